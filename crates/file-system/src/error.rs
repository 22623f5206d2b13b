//! One error type: what was attempted, on which file, at which offset, and what the system said.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What was attempted when a [`FileError`] happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileOperation {
    /// Opening an existing file.
    Open,
    /// Creating a file or directory.
    Create,
    /// Reserving space on the disk.
    Allocate,
    /// Mapping a file into memory.
    Map,
    /// Reading.
    Read,
    /// Writing, or storing into a mapped log.
    Write,
    /// Making a file's bytes durable.
    Sync,
    /// Making a directory's entries durable.
    SyncDirectory,
    /// Renaming.
    Rename,
    /// Removing a file or directory.
    Remove,
    /// Listing a directory.
    List,
    /// Asking for a file's length, links or kind.
    Inspect,
    /// Locking a directory against other processes.
    Lock,
}

impl fmt::Display for FileOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::Allocate => "allocate",
            Self::Map => "map",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SyncDirectory => "sync directory",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Inspect => "inspect",
            Self::Lock => "lock",
        })
    }
}

/// A failed operation on a file or directory.
#[derive(Debug, thiserror::Error)]
pub struct FileError {
    /// What was attempted.
    pub operation: FileOperation,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, if the operation has a place.
    pub offset: Option<u64>,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// A failure of `operation` on `path`.
    pub fn new(operation: FileOperation, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self { operation, path: path.as_ref().to_owned(), offset: None, source }
    }

    /// The same, at `offset`.
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    /// What kind of failure the system reported.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether space, quota or the file-size limit ran out: certain, and writes may resume once there is room (P8).
    pub fn is_out_of_space(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    }

    /// Whether the file or directory does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.operation, self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        write!(f, ": {}", self.source)
    }
}
