//! Reading at any offset through positioned reads, or in place through a map.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::failed;
use crate::{FileError, FileOperation, MappedBytes, ReadFile};

/// An open file and its length when it was opened.
#[derive(Debug)]
pub(super) struct RealReadFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl RealReadFile {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path).map_err(failed(FileOperation::Open, path))?;
        let len = super::regular_file_len(&file).map_err(failed(FileOperation::Open, path))?;
        Ok(Self { path: path.to_owned(), file, len })
    }
}

impl ReadFile for RealReadFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        read_exact_at(&self.file, offset, buffer)
            .map_err(|source| FileError::new(FileOperation::Read, &self.path, source).at(offset))
    }

    fn written_ranges(&self, offset: u64) -> Vec<Range<u64>> {
        let all = || (offset < self.len).then_some(offset..self.len).into_iter().collect();
        super::system::written_ranges(&self.file, offset, self.len).unwrap_or_else(all)
    }

    fn map(&self) -> Result<MappedBytes, FileError> {
        // An empty range cannot be mapped on every system.
        if self.len == 0 {
            return Ok(MappedBytes::from_memory(&[]));
        }
        let len = usize::try_from(self.len).map_err(|_| {
            let source = io::Error::new(io::ErrorKind::FileTooLarge, "longer than this machine's address space");
            FileError::new(FileOperation::Map, &self.path, source)
        })?;
        // SAFETY: the file is immutable from now on (the contract of `ReadFile::map`): the engine maps tables only,
        // which are never written after they were named, and it unlinks them instead of truncating.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(&self.file) }
            .map_err(failed(FileOperation::Map, &self.path))?;
        // A page that is not in memory comes alone: a system that reads megabytes around each pushes out, where memory is
        // scarce, what the next read needs. Advice: without it reads are slower there, and nothing else.
        #[cfg(unix)]
        let _ = map.advise(memmap2::Advice::Random);
        Ok(MappedBytes::from_map(map))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// The cursor of the handle moves, and nobody looks at it.
#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            Ok(count) => {
                offset += count as u64;
                buffer = &mut buffer[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
