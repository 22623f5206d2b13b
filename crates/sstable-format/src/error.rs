//! What can go wrong with a table, by what the caller can do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use file_system::FileError;
use internal_key::Kind;

/// Why a table, or something in it, cannot be read.
///
/// Small (two words), so that the hit path returns it in registers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The system refused; trying again may succeed.
    #[error(transparent)]
    Io(Box<FileError>),
    /// Bytes that were written do not read back: damage. Give up on this table, or repair it.
    #[error(transparent)]
    Corrupt(Box<Corruption>),
    /// A sound table, but not the one that was asked for: another database's, keyspace's, or another id.
    #[error(transparent)]
    WrongTable(Box<WrongTable>),
    /// A table that another engine wrote, mostly a newer one, or that needs something this build lacks.
    #[error(transparent)]
    Unsupported(Box<Unsupported>),
}

/// Which bytes of a table are damaged, and how that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corruption {
    /// The table's file.
    pub path: PathBuf,
    /// Where in the file. For a compressed block: the start of its frame.
    pub offset: u64,
    /// What stands there.
    pub what: &'static str,
    /// What was expected, as text.
    pub expected: String,
    /// What was found, as text.
    pub found: String,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, what, expected, found } = self;
        write!(f, "table {} is damaged at offset {offset}: {what}: expected {expected}, found {found}", path.display())
    }
}

impl std::error::Error for Corruption {}

/// A table that is not the one asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongTable {
    /// The table's file.
    pub path: PathBuf,
    /// Which part of the identity differs.
    pub what: &'static str,
    /// What the caller asked for.
    pub expected: String,
    /// What the file says.
    pub found: String,
}

impl fmt::Display for WrongTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, expected, found } = self;
        write!(f, "{} is another table: {what}: expected {expected}, found {found}", path.display())
    }
}

impl std::error::Error for WrongTable {}

/// A table beyond what this build reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The table's file.
    pub path: PathBuf,
    /// What is not supported.
    pub what: &'static str,
    /// What this build supports.
    pub expected: String,
    /// What the file asks for.
    pub found: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, what, expected, found } = self;
        write!(f, "table {} needs another engine: {what}: supported {expected}, found {found}", path.display())
    }
}

impl std::error::Error for Unsupported {}

impl From<FileError> for TableError {
    fn from(error: FileError) -> Self {
        Self::Io(Box::new(error))
    }
}

/// Why a table cannot be written. Certain: nothing names the file yet, and it is removed when the writer is dropped (P8).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The system refused. [`FileError::is_out_of_space`] tells whether room would help.
    #[error(transparent)]
    Io(#[from] FileError),
    /// A user key above [`MAX_KEY_BYTES`](internal_key::MAX_KEY_BYTES). The table is as before the call.
    #[error("a key of {bytes} bytes is too long: expected at most {}", internal_key::MAX_KEY_BYTES)]
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A value above [`MAX_VALUE_BYTES`](internal_key::MAX_VALUE_BYTES). The table is as before the call.
    #[error("a value of {bytes} bytes is too long: expected at most {}", internal_key::MAX_VALUE_BYTES)]
    ValueTooLong {
        /// Its length.
        bytes: u64,
    },
    /// A kind of entry that no format has a place for. The table is as before the call.
    #[error("a table holds no {kind} entries")]
    UnsupportedKind {
        /// The kind.
        kind: Kind,
    },
    /// The table would pass what a block handle can address. Start another table.
    #[error("the table would grow past {bytes_max} bytes")]
    TableTooLong {
        /// The most bytes a table can have.
        bytes_max: u64,
    },
    /// `finish` without a single entry: there is no table of nothing.
    #[error("a table without entries is not written")]
    Empty,
}

/// Damage inside one piece of a file, before the file and the offset of the piece are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where, counted from the start of the piece.
    pub(crate) at: u64,
    pub(crate) what: &'static str,
    pub(crate) expected: Expectation,
    pub(crate) found: u64,
}

/// What a damaged number should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expectation {
    Exactly(u64),
    AtMost(u64),
    AtLeast(u64),
    Checksum(u64),
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::AtMost(number) => write!(f, "at most {number}"),
            Self::AtLeast(number) => write!(f, "at least {number}"),
            Self::Checksum(sum) => write!(f, "xxh3 {sum:016x}"),
        }
    }
}

impl Damage {
    #[cold]
    pub(crate) fn new(at: u64, what: &'static str, expected: Expectation, found: u64) -> Self {
        Self { at, what, expected, found }
    }

    /// The damage with its place: `piece` is the offset in the file that `at` counts from.
    #[cold]
    pub(crate) fn in_file(self, path: &Path, piece: u64) -> TableError {
        let found = match self.expected {
            Expectation::Checksum(_) => format!("xxh3 {:016x}", self.found),
            _ => self.found.to_string(),
        };
        TableError::Corrupt(Box::new(Corruption {
            path: path.to_owned(),
            offset: piece.saturating_add(self.at),
            what: self.what,
            expected: self.expected.to_string(),
            found,
        }))
    }
}
