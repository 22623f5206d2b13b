//! Log segments: allocated first, then stored into through a shared map or by positioned writes (L1).
//!
//! ```text
//! create ─▶ allocate ─▶ (map) ─▶ populate ahead │ store, store … from any thread ─▶ release ─▶ sync
//!             └ no space: certain, the file goes again
//! ```
//!
//! - **L1** Blocks are allocated before the map exists, so no store meets a full disk (which would be a signal).
//! - **L1** A live map is only ever written by copies onto a raw pointer: no reference to its bytes is ever made.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use memmap2::{MmapOptions, MmapRaw};

use super::{Modes, failed, system};
use crate::{FileError, FileOperation, LogFile, LogFileWay};

/// A segment open for stores.
#[derive(Debug)]
pub(super) struct RealLogFile {
    path: PathBuf,
    file: File,
    len: u64,
    /// `None` when stores are written by calls.
    map: Option<MmapRaw>,
}

impl RealLogFile {
    pub(super) fn create(path: &Path, bytes: u64, way: LogFileWay, modes: Modes) -> Result<Self, FileError> {
        let file = modes
            .open_options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(failed(FileOperation::Create, path))?;
        let created = system::allocate(&file, bytes)
            .map_err(failed(FileOperation::Allocate, path))
            .and_then(|()| Self::over(path, file, bytes, way));
        if created.is_err() && !planted_faults::planted("log-left-behind-without-space") {
            // Nothing names the file yet. Should this fail too, it is an unnamed segment that opening removes (M2).
            let _ = std::fs::remove_file(path);
        }
        created
    }

    pub(super) fn open(path: &Path, way: LogFileWay) -> Result<Self, FileError> {
        let file =
            std::fs::OpenOptions::new().read(true).write(true).open(path).map_err(failed(FileOperation::Open, path))?;
        let len = super::regular_file_len(&file).map_err(failed(FileOperation::Open, path))?;
        // A copy made by a tool may have holes; a mapped store into one could meet a full disk.
        system::allocate(&file, len).map_err(failed(FileOperation::Allocate, path))?;
        Self::over(path, file, len, way)
    }

    fn over(path: &Path, file: File, len: u64, way: LogFileWay) -> Result<Self, FileError> {
        let wants_map = way == LogFileWay::Mapped && len > 0;
        let map = if wants_map && system::is_safe_to_map(&file).map_err(failed(FileOperation::Inspect, path))? {
            let len = usize::try_from(len).map_err(|_| {
                let source = io::Error::new(io::ErrorKind::FileTooLarge, "longer than this machine's address space");
                FileError::new(FileOperation::Map, path, source)
            })?;
            Some(MmapOptions::new().len(len).map_raw(&file).map_err(failed(FileOperation::Map, path))?)
        } else {
            None
        };
        Ok(Self { path: path.to_owned(), file, len, map })
    }

    /// Panics if the range leaves the file.
    fn assert_inside(&self, offset: u64, bytes: u64) {
        assert!(
            offset.checked_add(bytes).is_some_and(|end| end <= self.len),
            "L1: a store of {bytes} bytes at {offset} leaves {} of {} bytes",
            self.path.display(),
            self.len
        );
    }
}

impl LogFile for RealLogFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn way(&self) -> LogFileWay {
        if self.map.is_some() { LogFileWay::Mapped } else { LogFileWay::Written }
    }

    #[inline]
    fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        self.assert_inside(offset, bytes.len() as u64);
        match &self.map {
            Some(map) => {
                // SAFETY: the range lies inside the map (asserted above, the map is as long as the file), so the
                // pointer arithmetic stays in one allocation. `bytes` cannot overlap it: no reference to the map's
                // bytes is ever made (L1). Stores to overlapping ranges do not happen: ranges are reserved by the
                // caller's critical section (P1), which the trait demands.
                unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_mut_ptr().add(offset as usize), bytes.len())
                };
                Ok(())
            }
            None => write_all_at(&self.file, offset, bytes)
                .map_err(|source| FileError::new(FileOperation::Write, &self.path, source).at(offset)),
        }
    }

    fn populate(&self, offset: u64, bytes: u64) {
        let end = offset.saturating_add(bytes).min(self.len);
        if let Some(map) = &self.map
            && offset < end
        {
            system::populate(map, offset as usize, (end - offset) as usize);
        }
    }

    fn release(&self, offset: u64, bytes: u64) {
        let end = offset.saturating_add(bytes).min(self.len);
        if let Some(map) = &self.map
            && offset < end
            && !planted_faults::planted("log-pages-left-to-the-sync")
        {
            system::release(map, offset as usize, (end - offset) as usize);
        }
    }

    fn sync(&self) -> Result<(), FileError> {
        // Linux writes mapped pages out with the rest; POSIX promises it only after `msync`, and Windows needs its view
        // flushed.
        #[cfg(not(target_os = "linux"))]
        if let Some(map) = &self.map {
            map.flush().map_err(failed(FileOperation::Sync, &self.path))?;
        }
        self.file.sync_data().map_err(failed(FileOperation::Sync, &self.path))
    }
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(count) => {
                offset += count as u64;
                bytes = &bytes[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
