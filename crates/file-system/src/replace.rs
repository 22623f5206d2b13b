//! The most common protocol: a whole file under a name, old or new and nothing between.
//!
//! ```text
//! temporary ─▶ append ─▶ sync ─▶ rename ─▶ sync directory
//! └───────── certain ──────────┘  └───── uncertain ─────┘
//! ```
//!
//! - **M1** The bytes are durable before the name points at them.
//! - **M7** From the rename until the directory's sync has succeeded the outcome is unknown.

use std::fmt;
use std::path::Path;

use crate::{FileError, FileSystem};

/// What a failed [`replace_file`] left behind.
#[derive(Debug)]
pub enum ReplaceError {
    /// The old file, or none, stands: nothing changed and the call may be repeated.
    Certain(FileError),
    /// The rename was done but may be undone by a power cut: old or new is found after reopening, and whatever either
    /// of them names must be kept until then (M7). Never sync again and believe it.
    Uncertain(FileError),
}

impl ReplaceError {
    /// What failed.
    pub fn file_error(&self) -> &FileError {
        match self {
            Self::Certain(error) | Self::Uncertain(error) => error,
        }
    }

    /// What failed.
    pub fn into_file_error(self) -> FileError {
        match self {
            Self::Certain(error) | Self::Uncertain(error) => error,
        }
    }

    /// Whether the old file stands for certain.
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Certain(_))
    }
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certain(error) => write!(f, "{error}; nothing was changed"),
            Self::Uncertain(error) => write!(f, "{error}; whether the new file survives power loss is unknown"),
        }
    }
}

impl std::error::Error for ReplaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.file_error())
    }
}

/// Makes `<dir>/<name>` hold exactly `bytes`, durably: after a crash at any time the old content or the new is found.
///
/// Costs two syncs, of the file and of its directory.
///
/// # Errors
/// [`ReplaceError::Certain`] before the rename and if the rename itself is refused, [`ReplaceError::Uncertain`] after.
pub fn replace_file(files: &dyn FileSystem, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
    let mut file = files.create_temporary(dir).map_err(ReplaceError::Certain)?;
    file.append(bytes).map_err(ReplaceError::Certain)?;
    if !planted_faults::planted("replace-without-syncing-the-file") {
        file.sync().map_err(ReplaceError::Certain)?;
    }
    if planted_faults::planted("replace-removes-the-old-before-renaming") {
        let _ = files.remove_file(&dir.join(name));
    }
    file.persist(&dir.join(name)).map_err(ReplaceError::Certain)?;
    if planted_faults::planted("replace-without-syncing-the-directory") {
        return Ok(());
    }
    files.sync_dir(dir).map_err(ReplaceError::Uncertain)
}
