//! The operating system's files, behind the door.
//!
//! - Nothing is buffered in the process: what a call has stored survives `kill -9` (the page cache holds it), and what a
//!   sync has covered survives power loss.
//! - **L1** A log segment is allocated before the first store into it, so that a store never runs out of space, and is
//!   mapped only on file systems known to be safe under mapped stores.
//! - **M6** Directories are created for their owner alone and an existing one is fine.
//!
//! What differs between systems stands in `system` (allocation, link counts, which file systems are safe to map);
//! the rest is `std`, whose `sync_data` is `fdatasync` on Linux, `F_FULLFSYNC` on macOS and `FlushFileBuffers` on
//! Windows.

mod directory_lock;
mod log_file;
mod read_file;
mod system;
mod temporary_file;

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::{
    Clock, DirectoryEntry, DirectoryLock, FileError, FileOperation, FileSystem, LogFile, LogFileWay, Randomness,
    ReadFile, TemporaryFile,
};

/// The file system of the operating system.
///
/// Holds nothing but the modes of what it creates. Every method may be called from any thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealFileSystem {
    modes: Modes,
}

/// Who may do what with a new file or directory, as Unix writes it. Nothing elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(unix), expect(dead_code, reason = "other systems inherit rights from the directory"))]
struct Modes {
    file: u32,
    dir: u32,
}

impl RealFileSystem {
    /// The operating system's file system. What it creates is its owner's alone: files 0600, directories 0700.
    pub const fn new() -> Self {
        Self { modes: Modes { file: 0o600, dir: 0o700 } }
    }

    /// The same with other modes for new files and directories, such as 0640 and 0750 for a group that reads. The process's
    /// mask takes away from them. Only the nine lowest bits count; the owner always reads and writes. Without effect where
    /// there are no such modes.
    ///
    /// ```
    /// use file_system::{Environment, RealFileSystem};
    ///
    /// let mut environment = Environment::real();
    /// environment.files = std::sync::Arc::new(RealFileSystem::new().with_modes(0o640, 0o750));
    /// ```
    #[must_use]
    pub const fn with_modes(self, file: u32, dir: u32) -> Self {
        Self { modes: Modes { file: file & 0o777 | 0o600, dir: dir & 0o777 | 0o700 } }
    }
}

impl Default for RealFileSystem {
    fn default() -> Self {
        Self::new()
    }
}

/// Turns an `io::Error` into a [`FileError`] of `operation` on `path`.
fn failed(operation: FileOperation, path: &Path) -> impl FnOnce(io::Error) -> FileError + '_ {
    move |source| FileError::new(operation, path, source)
}

impl FileSystem for RealFileSystem {
    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, self.modes.dir);
        match builder.create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            result => result.map_err(failed(FileOperation::Create, path)),
        }
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>, FileError> {
        Ok(Arc::new(read_file::RealReadFile::open(path)?))
    }

    fn create_temporary(&self, dir: &Path) -> Result<Box<dyn TemporaryFile>, FileError> {
        Ok(Box::new(temporary_file::RealTemporaryFile::create(dir, self.modes)?))
    }

    fn create_log(&self, path: &Path, bytes: u64, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        Ok(Arc::new(log_file::RealLogFile::create(path, bytes, way, self.modes)?))
    }

    fn open_log(&self, path: &Path, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        Ok(Arc::new(log_file::RealLogFile::open(path, way)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::rename(from, to).map_err(failed(FileOperation::Rename, from))
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        fs::remove_file(path).map_err(failed(FileOperation::Remove, path))
    }

    fn remove_dir(&self, path: &Path) -> Result<(), FileError> {
        fs::remove_dir(path).map_err(failed(FileOperation::Remove, path))
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<DirectoryEntry>, FileError> {
        let mut entries = fs::read_dir(path)
            .and_then(|listing| {
                listing
                    .map(|entry| {
                        let entry = entry?;
                        let name = entry.file_name().to_string_lossy().into_owned();
                        Ok(DirectoryEntry { name, is_dir: entry.file_type()?.is_dir() })
                    })
                    .collect::<io::Result<Vec<_>>>()
            })
            .map_err(failed(FileOperation::List, path))?;
        entries.sort();
        Ok(entries)
    }

    fn file_len(&self, path: &Path) -> Result<u64, FileError> {
        let metadata = fs::metadata(path).map_err(failed(FileOperation::Inspect, path))?;
        Ok(metadata.len())
    }

    fn link_count(&self, path: &Path) -> Result<u64, FileError> {
        system::link_count(path).map_err(failed(FileOperation::Inspect, path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        fs::hard_link(from, to).map_err(failed(FileOperation::Create, to))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        system::sync_dir(path).map_err(failed(FileOperation::SyncDirectory, path))
    }

    fn lock_dir(&self, dir: &Path) -> Result<Box<dyn DirectoryLock>, FileError> {
        Ok(Box::new(directory_lock::RealDirectoryLock::acquire(dir, self.modes)?))
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        path.try_exists().map_err(failed(FileOperation::Inspect, path))
    }
}

impl Modes {
    /// Options that open a file, or create it with its mode.
    fn open_options(self) -> OpenOptions {
        let mut options = OpenOptions::new();
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, self.file);
        options
    }
}

/// The length of an open regular file; anything else (a directory, a pipe) is refused.
fn regular_file_len(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(metadata.len())
}

/// The operating system's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    /// Zero if the system's clock stands before 1970.
    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

/// Random numbers out of keys that the operating system drew.
///
/// A keyed hash (with 128 bits of system entropy) of a counter, the time and the process id, so that a forked child,
/// which inherits the keys, goes another way. Good for salts and identifiers, not for secrets.
#[derive(Debug, Default)]
pub struct SystemRandomness {
    keys: RandomState,
    drawn: AtomicU64,
}

impl SystemRandomness {
    /// A source with keys of its own.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Randomness for SystemRandomness {
    fn next_u64(&self) -> u64 {
        // Relaxed: only the uniqueness of the count matters, and a read-modify-write gives that by itself.
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.keys.hash_one((count, std::process::id(), time.as_nanos()))
    }
}
