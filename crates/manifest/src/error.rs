//! What can be wrong with a manifest: variants follow what a caller can do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::FileError;

use crate::Refusal;

/// A place in a file of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The whole file.
    File,
    /// A byte, counted from the file's start.
    Byte(u64),
    /// A line and column, counted from 1, as text editors do.
    Line {
        /// The line.
        line: u64,
        /// The column, in bytes.
        column: u64,
    },
    /// A value in the JSON, such as `keyspaces[3].levels[0].xxh3`.
    Json(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Byte(byte) => write!(f, "byte {byte}"),
            Self::Line { line, column } => write!(f, "line {line}, column {column}"),
            Self::Json(path) => f.write_str(path),
        }
    }
}

/// Whether bytes that cannot be used are damaged, or whole and of a kind this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// No version of this engine writes such bytes: restore or repair.
    Damaged,
    /// A later version may have written them: open with that.
    Unsupported,
}

/// What in a file cannot be used: where, what was expected, what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {place} of {}: expected {expected}, found {found}", file.display(), kind = match kind {
    FaultKind::Damaged => "damaged",
    FaultKind::Unsupported => "not supported by this version",
})]
pub struct DecodeError {
    /// Damaged, or unknown to this version.
    pub kind: FaultKind,
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub place: Place,
    /// What would have been right.
    pub expected: String,
    /// What stands there, shortened if it is long.
    pub found: String,
}

impl DecodeError {
    pub(crate) fn damaged(file: &Path, place: Place, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            kind: FaultKind::Damaged,
            file: file.to_owned(),
            place,
            expected: expected.into(),
            found: shortened(found.into()),
        }
    }

    pub(crate) fn unsupported(
        file: &Path,
        place: Place,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self { kind: FaultKind::Unsupported, ..Self::damaged(file, place, expected, found) }
    }
}

/// At most 80 characters of `text`, so that damage does not fill the screen.
fn shortened(text: String) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Why a manifest could not be created, opened or reloaded. Nothing was removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The system failed; trying again may succeed.
    #[error(transparent)]
    Io(#[from] FileError),
    /// There is no database here: none was ever created, or its creation was interrupted. It may be created (M6).
    #[error("no database in {}", dir.display())]
    NotFound {
        /// Where.
        dir: PathBuf,
    },
    /// Creation found a database.
    #[error("a database exists in {}: {} stands there", dir.display(), evidence.display())]
    Exists {
        /// Where.
        dir: PathBuf,
        /// What showed it.
        evidence: PathBuf,
    },
    /// `global.json` is missing although a table, a level file, an edit file or a log segment shows that there was a
    /// database (M6). Restore the file from a backup or run a repair.
    #[error("global.json is missing from {}, but {} stands there", dir.display(), evidence.display())]
    Lost {
        /// Where.
        dir: PathBuf,
        /// What showed it.
        evidence: PathBuf,
    },
    /// The directory holds something that is not ours; a database is created only where there is nothing else (M6).
    #[error("{} is not the directory of a database: {entry:?} stands there", dir.display())]
    Foreign {
        /// Where.
        dir: PathBuf,
        /// The entry that is not ours.
        entry: String,
    },
    /// Bytes of the manifest cannot be used.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A file that `global.json` names does not exist.
    #[error("{} is missing, but {} names it", file.display(), named_by.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// The file that names it.
        named_by: PathBuf,
    },
    /// The database is of the former layout and open for reading only: open it once for writing (M4).
    #[error("{} is of the former layout: open the database for writing once, which migrates it", file.display())]
    MigrationNeeded {
        /// `manifest.json`.
        file: PathBuf,
    },
    /// Both `global.json` and a `manifest.json` that was not migrated into it stand here: an older program wrote to
    /// this directory after the migration. Neither is touched (M4).
    #[error("{} stands beside global.json but was not migrated into it: move one of them away", file.display())]
    Conflict {
        /// `manifest.json`.
        file: PathBuf,
    },
    /// Committing anew, which removal must wait for, failed (M2).
    #[error("cannot commit anew: {0}")]
    Commit(#[from] CommitError),
}

/// Why a commit did not happen, or may not have.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The edit does not fit the manifest it met. Nothing happened; the others of its group are not concerned.
    #[error("edit refused: {0}")]
    Refused(#[from] Refusal),
    /// The system failed before the commit point. The old state stands, in memory and on disk; the edit may be retried.
    #[error("commit abandoned: {0}")]
    Certain(Arc<FileError>),
    /// The system failed at or after the commit point: the old or the new state is on disk (M7). The store is failed;
    /// nothing that either state names may be removed until the database is opened again.
    #[error("commit outcome unknown: {0}")]
    Uncertain(Arc<FileError>),
    /// An earlier commit's outcome is unknown, or its thread died; this one was not tried.
    #[error("the manifest failed earlier: {0}")]
    Failed(Arc<FailureCause>),
    /// The store was opened for reading only.
    #[error("the manifest is open for reading only")]
    ReadOnly,
}

/// Why a store is failed for good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FailureCause {
    /// A commit's outcome is unknown (M7).
    #[error("commit outcome unknown: {0}")]
    Uncertain(Arc<FileError>),
    /// A thread panicked while it committed.
    #[error("a thread died while it committed")]
    Panicked,
}
