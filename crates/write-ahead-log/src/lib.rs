//! Batches as checksummed records in preallocated mapped segments; replay and group sync.
//!
//! ```text
//!   reserve ─▶ accept ─▶ append ─▶ … ─▶ sync_through ─▶ durable claim ─▶ in the next record's header
//!   └ caller's lock ┘   └ parallel ┘    └ one for all                     │
//!                                                                        ▼
//!   replay: B, the first place without a whole record; X, the largest claim:   B < X corrupt,   B >= X cut
//! ```
//!
//! - **L1** Segments are made durable before anything names them, populated ahead, and synced when sealed.
//! - **L2** Records are 8-aligned; header and payload have checksums of their own; each carries a claim.
//! - **L3** Claims decide between corruption and a torn tail.
//! - **L4** A replayed segment gets nothing but the seal at its cut.
//! - **L5** Segments are given up behind a durable floor, unless somebody holds them.
//!
//! ```
//! use file_system::Environment;
//! use internal_key::{SegmentId, SeqNo};
//! use write_ahead_log::{Log, LogOptions, LogPosition, Payload, RecordKind, ReplayOptions, replay};
//! # if cfg!(loom) { return Ok::<(), Box<dyn std::error::Error>>(()); }
//! # let options = LogOptions { segment_bytes: 1 << 16, ..LogOptions::default() };
//!
//! let environment = Environment::simulated(7);
//! let dir = std::path::Path::new("/log");
//! let (log, mut tail) = Log::create(&environment, dir, 42, options, SegmentId(1))?;
//! let floor = log.first_segment(); // the manifest remembers it
//!
//! let payload = Payload::new(RecordKind::Batch, b"two puts");
//! let reservation = log.reserve(&tail, payload.bytes().len(), SeqNo::new(1).unwrap())?;
//! tail.accept(&reservation);
//! log.append(&reservation, &payload)?;
//! log.sync_through(tail.next_end())?;
//! assert_eq!(log.durable(), reservation.end());
//! drop((log, tail)); // or the process dies
//!
//! let mut seen = Vec::new();
//! let no_claim = LogPosition::default();
//! let report = replay(&environment, dir, 42, floor, no_claim, ReplayOptions::default(), |record| {
//!     seen.push(record.payload.to_vec());
//!     Ok(())
//! })?;
//! assert_eq!(seen, [b"two puts"]);
//!
//! // The next two puts get the sequence numbers from 3 on, in a segment of their own.
//! let next = SeqNo::new(3).unwrap();
//! let (log, tail) = Log::resume(&environment, dir, 42, options, &report, SegmentId(2), next)?;
//! assert_eq!(tail.next_end().segment, SegmentId(2));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading order: [`position`] and [`record`] (what a record is), [`segment`] (the file it lies in), [`tail`] (where the next record goes), [`log`] (writing),
//! [`rotation`] (segments to come and to go), [`claim`] (what is durable), [`replay`](mod@replay) (reading back), [`resume`] (going on), [`inspect`] (looking).

pub mod claim;
pub mod error;
#[cfg(any(all(test, not(loom)), fuzzing))]
pub mod fuzzing;
pub mod inspect;
pub mod log;
pub mod options;
pub mod position;
pub mod reader;
pub mod record;
pub mod replay;
pub mod resume;
pub mod rotation;
pub mod segment;
mod sync;
pub mod tail;

pub use claim::DurableClaim;
pub use error::{LogError, ReserveError};
pub use inspect::{Inspected, Inspection};
pub use log::Log;
pub use options::LogOptions;
pub use position::{LogPosition, SegmentName, parse_segment_file_name, segment_file_name};
pub use reader::holds_records;
pub use record::{
    Payload, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RECORD_KIND_MAX, RecordHeader, RecordKind, UnknownRecordKind,
};
pub use replay::{
    NamedBy, Record, RecordFault, ReplayError, ReplayOptions, ReplayReport, ReplayedSegment, Skipped, replay,
};
pub use rotation::{LogPin, NameFirst, NotNamed, Recycled};
pub use segment::{FORMAT_VERSION, FeatureBits, HeaderFault, MAGIC, SEGMENT_HEADER_BYTES, SegmentHeader};
pub use tail::{LogTail, Reservation};
