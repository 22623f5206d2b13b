//! One error for everything that a database can answer, its variants following what the caller can do.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;

use commit_pipeline::CloseError;
use compaction::JobFailure;
use file_system::FileError;
use internal_key::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use manifest::{CommitError, FaultKind, ManifestError};
use sstable_format::{TableError, WriteError};
use write_ahead_log::{HeaderFault, LogError, ReplayError};

/// What went wrong, and so what the caller can do about it.
///
/// | variants | what a caller does |
/// |---|---|
/// | [`InvalidInput`](Error::InvalidInput), [`KeyTooLong`](Error::KeyTooLong), [`ValueTooLong`](Error::ValueTooLong), [`InvalidOption`](Error::InvalidOption) | mends the call |
/// | [`NotFound`](Error::NotFound), [`Exists`](Error::Exists), [`Locked`](Error::Locked), [`NoSuchKeyspace`](Error::NoSuchKeyspace), [`KeyspaceDropped`](Error::KeyspaceDropped), [`HistoryGone`](Error::HistoryGone), [`NotYetVisible`](Error::NotYetVisible), [`ReadOnly`](Error::ReadOnly), [`Closed`](Error::Closed) | decides |
/// | [`Cancelled`](Error::Cancelled) | goes on: it was the caller's own wish |
/// | [`Suspended`](Error::Suspended) | resumes background jobs, then tries again; nothing changed |
/// | [`InListener`](Error::InListener) | makes the call from another thread |
/// | [`DiskFull`](Error::DiskFull), [`Io`](Error::Io) | tries again once the cause is gone; nothing changed (P8) |
/// | [`Failed`](Error::Failed) | reopens the database; reads go on until then (P8) |
/// | [`Corrupt`](Error::Corrupt), [`Unsupported`](Error::Unsupported) | reports; the files are as they were |
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key is longer than 65,535 bytes. Nothing was written.
    #[error("key of {found} bytes: expected at most {MAX_KEY_BYTES}")]
    KeyTooLong {
        /// Its length.
        found: usize,
    },
    /// The value is longer than 4 GiB − 1. Nothing was written.
    #[error("value of {found} bytes: expected at most {MAX_VALUE_BYTES}")]
    ValueTooLong {
        /// Its length.
        found: u64,
    },
    /// The call cannot be carried out as it stands.
    #[error("{what}")]
    InvalidInput {
        /// What does not fit.
        what: String,
    },
    /// An option is out of its range, or unknown.
    #[error("option {name}: expected {expected}, found {found}")]
    InvalidOption {
        /// Which option.
        name: String,
        /// What it may be.
        expected: String,
        /// What it was.
        found: String,
    },
    /// There is no database here and none was to be created.
    #[error("{} holds no database", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// There is a database here and none was expected.
    #[error("{} already holds a database", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the database open.
    #[error("{}: the database is open elsewhere: {source}", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who holds it, as far as is known.
        source: Arc<FileError>,
    },
    /// No living keyspace has this name.
    #[error("no keyspace is called {name:?}")]
    NoSuchKeyspace {
        /// The name.
        name: String,
    },
    /// A living keyspace has this name already.
    #[error("a keyspace called {name:?} exists")]
    KeyspaceExists {
        /// The name.
        name: String,
    },
    /// The keyspace was dropped; the handle outlived it.
    #[error("keyspace {name:?} was dropped")]
    KeyspaceDropped {
        /// Its former name.
        name: String,
    },
    /// What was written at that sequence number may not be readable any more.
    #[error("{} cannot be read as of seqno {seqno}: the oldest that it keeps is {oldest}", whose(keyspace.as_deref()))]
    HistoryGone {
        /// Whose history ends before; `None` for the database, none of whose keyspaces has one that reaches back so far.
        keyspace: Option<String>,
        /// The sequence number asked for.
        seqno: u64,
        /// The smallest that can be asked for now; what is visible, if no history is kept.
        oldest: u64,
    },
    /// Nothing was written at that sequence number yet.
    #[error("seqno {seqno} is not visible yet: {visible} is")]
    NotYetVisible {
        /// The sequence number asked for.
        seqno: u64,
        /// The largest that can be asked for now.
        visible: u64,
    },
    /// The database was opened for reading only.
    #[error("the database is open for reading only")]
    ReadOnly,
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
    /// What was asked for was cancelled by whoever asked ([`CompactionControl`](crate::CompactionControl)). The database is
    /// whole.
    #[error("cancelled")]
    Cancelled,
    /// The call has to wait for background jobs, and they are suspended
    /// ([`Database::suspend_background`](crate::Database::suspend_background)). Nothing changed; the same call succeeds
    /// once they are resumed: by dropping every [`SuspendedBackground`](crate::SuspendedBackground).
    #[error("background jobs are suspended: resume them and try again")]
    Suspended,
    /// The call would have to wait for background jobs, or to run one, and an [`EventListener`](crate::EventListener) makes it,
    /// for which those jobs may wait (P9). Nothing changed, but that a flush which was asked for is begun. The same call
    /// succeeds from another thread.
    #[error("called from an event listener, for which the background jobs may wait that it would wait for")]
    InListener,
    /// There was no memory for what the commit needs in memtables within
    /// [`memory_bytes_max`](crate::DatabaseBuilder::memory_bytes_max), and no flush could make room (P13): iterators read what was
    /// flushed, or the whole limit would not hold it. Nothing changed; the same call succeeds once they are dropped.
    #[error(
        "no memory for {needed_bytes} bytes more of memtables: {held}; drop iterators, write smaller batches, or raise \
         memory_bytes_max"
    )]
    MemoryFull {
        /// How many bytes more the commit needed.
        needed_bytes: u64,
        /// Who holds the memory.
        held: crate::MemoryStats,
    },
    /// There was no room on the disk. Nothing changed; the same call succeeds once there is room.
    #[error("the disk is full: {source}")]
    DiskFull {
        /// What could not be written.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// An operation on a file failed before it had any effect. The same call may succeed later.
    #[error("{source}")]
    Io {
        /// The operation, the file, the offset and the system's word.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// Bytes on the disk are not what was written there. The text names file, offset, expected and found.
    #[error("corrupt: {source}")]
    Corrupt {
        /// What was found, and where.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The files were written by a version, or with features, that this one does not know.
    #[error("not supported: {source}")]
    Unsupported {
        /// What is unknown, and where.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// The outcome of an earlier write is unknown, so the database takes no more of them. Reopen it.
    #[error("the database takes no more writes until it is reopened: {cause}")]
    Failed {
        /// The first cause.
        cause: Arc<dyn StdError + Send + Sync>,
    },
}

fn whose(keyspace: Option<&str>) -> String {
    keyspace.map_or_else(|| "the database".to_owned(), |name| format!("keyspace {name:?}"))
}

/// What fallible calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn corrupt(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Corrupt { source: Arc::new(source) }
    }

    /// A failed file operation: full disks apart from the rest.
    pub(crate) fn from_file(source: FileError) -> Self {
        if source.is_out_of_space() {
            Self::DiskFull { source: Arc::new(source) }
        } else {
            Self::Io { source: Arc::new(source) }
        }
    }

    /// The same for a failure that several callers are told of.
    pub(crate) fn from_shared_file(source: Arc<FileError>) -> Self {
        if source.is_out_of_space() { Self::DiskFull { source } } else { Self::Io { source } }
    }

    /// The database has failed with `cause`.
    pub(crate) fn failed(cause: Arc<dyn StdError + Send + Sync>) -> Self {
        Self::Failed { cause }
    }

    /// What a background job failed with.
    pub(crate) fn from_job(failure: JobFailure) -> Self {
        match failure.cause().downcast_ref::<Self>() {
            Some(error) => error.clone(),
            None => Self::Failed { cause: Arc::new(failure) },
        }
    }

    /// Whether trying the same call again may succeed without reopening: nothing was changed (P8).
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::DiskFull { .. }
                | Self::Io { .. }
                | Self::Locked { .. }
                | Self::MemoryFull { .. }
                | Self::Suspended
                | Self::InListener
        )
    }
}

impl From<FileError> for Error {
    fn from(source: FileError) -> Self {
        Self::from_file(source)
    }
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        match error {
            LogError::NotPrepared { cause } | LogError::Io(cause) => Self::from_shared_file(cause),
            LogError::Failed { .. } | LogError::NotNamed { is_certain: false, .. } => {
                Self::Failed { cause: Arc::new(error) }
            }
            LogError::NotNamed { ref cause, .. } => match cause.downcast_ref::<Self>() {
                Some(error) => error.clone(),
                None => Self::corrupt(error),
            },
            LogError::ReadOnly { .. } => Self::Unsupported { source: Arc::new(error) },
            other => Self::corrupt(other),
        }
    }
}

impl From<ReplayError> for Error {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Io(source) => Self::from_file(source),
            ReplayError::UnknownKind { .. }
            | ReplayError::BadSegment { fault: HeaderFault::Version { .. } | HeaderFault::Features { .. }, .. } => {
                Self::Unsupported { source: Arc::new(error) }
            }
            ReplayError::Refused { position, source } => match source.downcast::<Self>() {
                Ok(error) => *error,
                Err(source) => Self::corrupt(ReplayError::Refused { position, source }),
            },
            other => Self::corrupt(other),
        }
    }
}

impl From<ManifestError> for Error {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Io(source) => Self::from_file(source),
            ManifestError::NotFound { dir } => Self::NotFound { path: dir },
            ManifestError::Exists { dir, .. } => Self::Exists { path: dir },
            ManifestError::Foreign { .. } | ManifestError::Conflict { .. } => {
                Self::InvalidInput { what: error.to_string() }
            }
            ManifestError::MigrationNeeded { .. } => Self::Unsupported { source: Arc::new(error) },
            ManifestError::Decode(ref decode) if decode.kind == FaultKind::Unsupported => {
                Self::Unsupported { source: Arc::new(error) }
            }
            ManifestError::Commit(CommitError::Certain(source)) => Self::from_shared_file(source),
            ManifestError::Commit(error) => Self::Failed { cause: Arc::new(error) },
            other => Self::corrupt(other),
        }
    }
}

impl From<TableError> for Error {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Io(source) => Self::from_file(*source),
            TableError::Unsupported(_) => Self::Unsupported { source: Arc::new(error) },
            other => Self::corrupt(other),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(source) => Self::from_file(source),
            other => Self::InvalidInput { what: other.to_string() },
        }
    }
}

impl From<CloseError> for Error {
    fn from(error: CloseError) -> Self {
        match error {
            CloseError::Failed(cause) => Self::Failed { cause },
            _ => Self::Closed,
        }
    }
}
