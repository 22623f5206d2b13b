//! New files under a name that the next opening would remove, until they are whole (M1, M2).

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use super::{Modes, failed};
use crate::traits::TEMPORARY_PREFIX;
use crate::{FileError, FileOperation, TemporaryFile};

/// A file that is removed when dropped, unless persisted.
#[derive(Debug)]
pub(super) struct RealTemporaryFile {
    file: NamedTempFile,
    len: u64,
}

impl RealTemporaryFile {
    pub(super) fn create(dir: &Path, modes: Modes) -> Result<Self, FileError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).rand_bytes(12);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(modes.file));
        #[cfg(not(unix))]
        let _ = modes;
        let file = builder.tempfile_in(dir).map_err(failed(FileOperation::Create, dir))?;
        Ok(Self { file, len: 0 })
    }
}

impl TemporaryFile for RealTemporaryFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        // Straight to the file: the wrapper has no buffer.
        self.file
            .as_file_mut()
            .write_all(bytes)
            .map_err(|source| FileError::new(FileOperation::Write, self.file.path(), source).at(self.len))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result<(), FileError> {
        // `sync_data` includes the length, which is all of the metadata that reading needs.
        self.file.as_file().sync_data().map_err(failed(FileOperation::Sync, self.file.path()))
    }

    fn persist(self: Box<Self>, to: &Path) -> Result<(), FileError> {
        // On failure the temporary file comes back inside the error and is removed by its drop.
        match self.file.persist(to) {
            Ok(_file) => Ok(()),
            Err(error) => Err(FileError::new(FileOperation::Rename, error.file.path(), error.error)),
        }
    }
}
