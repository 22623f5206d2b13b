//! Sorted tables built to be read in place: columnar blocks, index, filter, footer, caches.
//!
//! ```text
//!   ┌────────┬───────────────────────────────┬────────┬───────┬────────────┬────────┐
//!   │ header │ data blocks, large values ... │ filter │ index │ properties │ footer │
//!   └────────┴───────────────────────────────┴────────┴───────┴────────────┴────────┘
//!     salt    ▲ heads │ ends │ trailers │ prefix │ tails │ values
//! ```
//!
//! - **T1** A block keeps each column in an array; a search compares integers in one of them.
//! - **T2** A block is checked once per open table, bounds each time: no bytes make a reader panic or read elsewhere.
//! - **T3** A search for any internal key ends in one block; the filter never denies a key that is there.
//! - **T4** Uncompressed blocks of a mapped table are read in place, everything else through a bounded cache.
//! - **T5** The footer vouches for what the rest is trusted by; unknown versions and features are refused.
//!
//! ```
//! use std::sync::Arc;
//!
//! use file_system::Environment;
//! use internal_key::{Cursor, Epoch, InternalKey, JobId, Kind, KeyspaceId, Level, SeqNo, TableId, Trailer};
//! use sstable_format::{Expected, ReadOptions, TableIdentity, TableOptions, TableReader, TableWriter};
//! use xxhash_rust::xxh3::xxh3_64;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let files = Environment::real().files;
//! let dir = tempfile::tempdir()?;
//! let identity = TableIdentity {
//!     database_id: 7,
//!     keyspace: KeyspaceId(1),
//!     table: TableId(1),
//!     level: Level::ZERO,
//!     epoch: Epoch(1),
//!     job: JobId(1),
//!     inputs: Vec::new(),
//!     output_index: 0,
//!     output_count: 1,
//! };
//! let mut writer = TableWriter::new(&*files, dir.path(), identity, TableOptions::default())?;
//! let put = |seqno| Trailer::new(SeqNo::new(seqno).unwrap(), Kind::Put);
//! writer.add(InternalKey::new(b"apple", put(9)), b"green")?;
//! writer.add(InternalKey::new(b"apple", put(3)), b"red")?;
//! writer.add(InternalKey::new(b"pear", put(5)), b"yellow")?;
//! let path = dir.path().join("1.sst");
//! let summary = writer.finish()?.persist(&path)?;
//!
//! let expected = Expected {
//!     bytes: summary.bytes,
//!     database_id: 7,
//!     keyspace: KeyspaceId(1),
//!     table: TableId(1),
//!     seqno_base: 0,
//! };
//! let table = Arc::new(TableReader::open(&*files, &path, expected, ReadOptions::default())?);
//! let at_5 = SeqNo::new(5).unwrap();
//! let found = table.get(b"apple", xxh3_64(b"apple"), at_5)?.expect("a version at or below 5");
//! assert_eq!(&*found.value, b"red");
//!
//! let mut cursor = table.cursor();
//! cursor.seek(InternalKey::seek(b"b", SeqNo::MAX))?;
//! assert_eq!(cursor.user_key(), b"pear");
//! assert_eq!(cursor.value()?, b"yellow");
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`options`] (who a table is), [`error`], `frame`, `block`, `index`, `filter`, `large`,
//! [`properties`], [`footer`] (the format from the inside out), [`writer`], [`checked`], `disk_waits`, [`reader`],
//! `check_ahead`, `landmarks`, [`cursor`], [`block_cache`], [`table_cache`], [`mod@verify`], [`mod@inspect`], [`mod@salvage`].

mod block;
pub mod block_cache;
mod check_ahead;
pub mod checked;
pub mod cursor;
mod disk_waits;
pub mod error;
mod filter;
pub mod footer;
mod frame;
#[cfg(any(all(test, not(loom)), fuzzing))]
pub mod fuzzing;
mod index;
pub mod inspect;
mod landmarks;
mod large;
pub mod options;
mod pinned;
pub mod properties;
pub mod reader;
pub mod salvage;
mod sync;
pub mod table_cache;
pub mod verify;
pub mod writer;

pub use block_cache::{BlockCache, CachedBlock};
pub use cursor::TableCursor;
pub use error::{Corruption, TableError, Unsupported, WriteError, WrongTable};
pub use footer::{FORMAT_VERSION, TableHeader};
pub use inspect::{BlockInfo, Detail, for_each_block, inspect};
pub use landmarks::Landmarks;
pub use options::{Access, Compression, Expected, ReadOptions, TableIdentity, TableOptions, TableSummary};
pub use properties::{Properties, Superseded};
pub use reader::{FileNumber, Found, TableReader, ValueRef, identify, read_header};
pub use salvage::{LostRange, Salvaged, salvage};
pub use table_cache::{TableCache, TableSlot};
pub use verify::{VerifyReport, verify};
pub use writer::{PendingTable, TableWriter};
