//! Sorted tables built to be read in place: columnar blocks, index, filter, footer, caches.
//!
//! Reading order: [`options`], [`error`], then the format from the inside out, then [`writer`].

mod block;
pub mod block_cache;
pub mod cursor;
pub mod error;
mod filter;
pub mod footer;
mod frame;
mod index;
pub mod inspect;
mod large;
pub mod options;
mod pinned;
pub mod properties;
pub mod reader;
pub mod table_cache;
pub mod verify;
pub mod writer;

pub use block_cache::{BlockCache, CachedBlock};
pub use cursor::TableCursor;
pub use error::{Corruption, TableError, Unsupported, WriteError, WrongTable};
pub use footer::{FORMAT_VERSION, TableHeader};
pub use inspect::{BlockInfo, Detail, for_each_block, inspect};
pub use options::{Access, Compression, Expected, ReadOptions, TableIdentity, TableOptions, TableSummary};
pub use properties::Properties;
pub use reader::{FileNumber, Found, TableReader, ValueRef, identify, read_header};
pub use table_cache::{TableCache, TableSlot};
pub use verify::{VerifyReport, verify};
pub use writer::{PendingTable, TableWriter};
