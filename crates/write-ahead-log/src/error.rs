//! What can go wrong while writing. (Reading has [`ReplayError`](crate::ReplayError).)

use std::path::PathBuf;
use std::sync::Arc;

use file_system::FileError;

/// Why the log could not do something. Cheap to clone: every waiter gets the cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Uncertain (P8): a store or a sync of the log failed, nobody knows what is on the disk. Every later append and
    /// sync returns this same first cause; reopening recovers.
    #[error("the log failed and must be reopened: {cause}")]
    Failed {
        /// The first failure.
        #[source]
        cause: Arc<FileError>,
    },
    /// Certain (P8): a segment could not be made; nothing changed, trying again later may succeed.
    #[error("no log segment could be prepared: {cause}")]
    NotPrepared {
        /// What failed.
        #[source]
        cause: Arc<FileError>,
    },
    /// The first segment of a log that is [created later](crate::Log::create_later) could not be named. No record was stored.
    #[error("the log's first segment could not be named: {cause}")]
    NotNamed {
        /// What whoever was to name it says.
        #[source]
        cause: Arc<dyn std::error::Error + Send + Sync>,
        /// Whether it is certain that nothing names it (P8): then trying again later may succeed.
        is_certain: bool,
    },
    /// A log was to be created where records lie (M6). Nothing was changed.
    #[error("cannot create a log: {path} holds records")]
    NotEmpty {
        /// The segment with records.
        path: PathBuf,
    },
    /// A segment may be read but not written by this version. Nothing was changed.
    #[error("cannot write to {path}: unknown read-compatible log features {found:#x}")]
    ReadOnly {
        /// The segment.
        path: PathBuf,
        /// The unknown feature bits.
        found: u32,
    },
    /// A file could not be read or listed. Nothing was changed.
    #[error(transparent)]
    Io(Arc<FileError>),
}

impl LogError {
    /// Whether space ran out and nothing else happened: writes may resume once there is room (P8).
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::NotPrepared { cause } if cause.is_out_of_space())
    }

    /// Whether nobody knows what is on the disk, so that nothing more may be written until it is reopened (P8).
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::NotNamed { is_certain: false, .. })
    }
}

/// Why no range was reserved. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The segment is full and no successor is ready: leave the reservation lock, call
    /// [`Log::prepare_segment`](crate::Log::prepare_segment), try again.
    #[error("the log segment is full and no successor is ready")]
    NoSegmentReady,
    /// No segment can ever hold such a record; it must be written by reference (P11).
    #[error("a log record of {payload_bytes} bytes does not fit a segment: expected at most {payload_bytes_max}")]
    TooLarge {
        /// The payload's length.
        payload_bytes: u64,
        /// What fits.
        payload_bytes_max: u64,
    },
}
