//! What a commit can end with, other than a sequence number.

use internal_key::SeqNo;

use crate::Cause;

/// Why a commit did not succeed. `E` is the caller's own refusal, `L` the log's error.
///
/// All but [`Failed`](Self::Failed) are certain (P8): nothing has changed, nobody ever sees any of the batch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError<E, L = write_ahead_log::LogError> {
    /// The caller's own step under the reservation lock refused.
    #[error("{0}")]
    Refused(E),
    /// The pipeline is closed.
    #[error("the database is closed")]
    Closed,
    /// The database has failed; this is the first cause. If the batch was reserved before that, its outcome is unknown
    /// until reopening.
    #[error("the database failed and must be reopened: {0}")]
    Failed(Cause),
    /// The log could not make room; trying again may succeed once the cause is gone.
    #[error("the log has no room: {0}")]
    NoRoom(#[source] L),
    /// No log segment can hold the record: write it by reference (P11).
    #[error("a log record of {payload_bytes} bytes is too large: expected at most {payload_bytes_max}")]
    TooLarge {
        /// The payload's length.
        payload_bytes: u64,
        /// What fits.
        payload_bytes_max: u64,
    },
    /// The sequence numbers are used up; nothing can be written to this database any more.
    #[error("a batch of {entries} entries does not fit between seqno {last} and the largest")]
    SeqNosExhausted {
        /// The last sequence number in use.
        last: SeqNo,
        /// How many more were asked for.
        entries: u64,
    },
}

/// Why a pipeline could not be closed cleanly.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// It was closed before.
    #[error("the database is closed already")]
    AlreadyClosed,
    /// The database failed; the log's end is unknown.
    #[error("the database failed and must be reopened: {0}")]
    Failed(Cause),
}
