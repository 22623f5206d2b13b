//! Batches as checksummed records in preallocated mapped segments; replay and group sync.
//!
//! Reading order: [`position`] and [`record`] (what a record is), [`segment`] (the file it lies in), [`log`] (writing),
//! [`claim`] (what is durable), [`replay`](mod@replay) (reading back), [`resume`] (going on), [`inspect`] (looking).

pub mod claim;
pub mod error;
pub mod inspect;
pub mod log;
pub mod options;
pub mod position;
pub mod reader;
pub mod record;
pub mod replay;
pub mod resume;
pub mod segment;
mod sync;

pub use claim::DurableClaim;
pub use error::{LogError, ReserveError};
pub use inspect::{Inspected, Inspection};
pub use log::{Log, LogPin, LogTail, Recycled, Reservation};
pub use options::LogOptions;
pub use position::{LogPosition, SegmentName, parse_segment_file_name, segment_file_name};
pub use reader::holds_records;
pub use record::{Payload, RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, RecordKind, UnknownRecordKind};
pub use replay::{
    NamedBy, Record, RecordFault, ReplayError, ReplayOptions, ReplayReport, ReplayedSegment, Skipped, replay,
};
pub use segment::{FORMAT_VERSION, FeatureBits, HeaderFault, MAGIC, SEGMENT_HEADER_BYTES, SegmentHeader};
