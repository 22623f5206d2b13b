//! The door: what the engine asks of the outside world.
//!
//! - Nothing here retries. A failed sync is reported once and the caller decides (P8).
//! - Nothing here syncs on its own: durability is always a visible step of the caller's protocol.
//! - Paths are given whole; the trait knows no database directory.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::{FileError, MappedBytes};

/// A file system: the real one, or a simulated one.
///
/// Every method may be called from any thread. Files are created readable and writable by their owner alone (0600),
/// directories likewise (0700), where the system knows such modes.
pub trait FileSystem: fmt::Debug + Send + Sync + 'static {
    /// Creates one directory; an existing directory is fine. Not durable before the parent is synced (M6).
    fn create_dir(&self, path: &Path) -> Result<(), FileError>;

    /// Opens an existing file for reading.
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>, FileError>;

    /// Creates a file under a temporary name in `dir`, to be written, synced and then renamed into place.
    ///
    /// Temporary names begin with [`TEMPORARY_PREFIX`] so that opening can tell and remove them (M2). Dropping the
    /// handle before [`TemporaryFile::persist`] removes the file where that is possible.
    fn create_temporary(&self, dir: &Path) -> Result<Box<dyn TemporaryFile>, FileError>;

    /// Creates a log segment of exactly `bytes` bytes, allocated on the disk and reading as zeros, open for stores.
    ///
    /// `way` is what the caller wishes; [`LogFile::way`] says what it got, because a file system that is not known to
    /// be safe under mapped stores is written by calls instead (L1).
    ///
    /// # Errors
    /// If the file exists, or the space cannot be had (certain: nothing was written, and the file is removed).
    fn create_log(&self, path: &Path, bytes: u64, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError>;

    /// Opens an existing log segment for stores: to recycle it under a new name and salt (L5).
    fn open_log(&self, path: &Path, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError>;

    /// Renames a file, replacing `to` if it exists. Atomic; durable once the directory is synced.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<(), FileError>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> Result<(), FileError>;

    /// The entries of a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> Result<Vec<DirectoryEntry>, FileError>;

    /// The length of a file in bytes.
    fn file_len(&self, path: &Path) -> Result<u64, FileError>;

    /// How many names a file has; more than one means that a backup holds it (L5).
    fn link_count(&self, path: &Path) -> Result<u64, FileError>;

    /// Gives the file at `from` a second name `to`.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<(), FileError>;

    /// Makes the entries of a directory (creations, renames, removals) durable.
    fn sync_dir(&self, path: &Path) -> Result<(), FileError>;

    /// Locks `<dir>/LOCK` against every other holder, in this process or another, until the lock is dropped.
    ///
    /// The holder's process id is written to `<dir>/LOCK.info`; when the lock is taken, the error's text names it.
    ///
    /// # Errors
    /// Kind [`WouldBlock`](std::io::ErrorKind::WouldBlock) if somebody holds it.
    fn lock_dir(&self, dir: &Path) -> Result<Box<dyn DirectoryLock>, FileError>;

    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> Result<bool, FileError>;

    /// The whole content of a file, refusing files longer than `bytes_max` before allocating for them.
    fn read(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
        let file = self.open(path)?;
        if file.len() > bytes_max {
            let text = format!("{} bytes long, expected at most {bytes_max}", file.len());
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, text);
            return Err(FileError::new(crate::FileOperation::Read, path, source));
        }
        let mut bytes = vec![0; file.len() as usize];
        file.read_exact_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// What the names of temporary files begin with.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// The name of the file that [`FileSystem::lock_dir`] locks. Never removed.
pub const LOCK_NAME: &str = "LOCK";

/// The name of the file beside it that says who holds the lock: a process id in decimal and a line feed.
pub const LOCK_INFO_NAME: &str = "LOCK.info";

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryEntry {
    /// The name without its directory. Names that are not UTF-8 are shown with replacement characters.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file open for reading at any offset, from any thread.
pub trait ReadFile: fmt::Debug + Send + Sync + 'static {
    /// The path it was opened under.
    fn path(&self) -> &Path;

    /// Its length when it was opened.
    fn len(&self) -> u64;

    /// Whether it was empty when it was opened.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// Kind [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof) if the file ends before the buffer is full.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError>;

    /// Where bytes may stand that were ever written, at or after `offset`, ascending; everywhere else are zeros. A system
    /// that cannot tell answers with all of it.
    ///
    /// So space that was allocated ahead need not be read. Ask before reading: what was read ahead looks written.
    fn written_ranges(&self, offset: u64) -> Vec<Range<u64>> {
        (offset < self.len()).then_some(offset..self.len()).into_iter().collect()
    }

    /// The whole file as bytes to be read in place. The file must be immutable from now on.
    ///
    /// The caller has checked [`len`](Self::len) against what it expects: a shorter file behind a map is a signal, not
    /// an error.
    fn map(&self) -> Result<MappedBytes, FileError>;
}

/// A new file under a temporary name, written from front to back.
pub trait TemporaryFile: fmt::Debug + Send {
    /// The temporary path.
    fn path(&self) -> &Path;

    /// Appends all of `bytes`. Not buffered: callers hand over large pieces.
    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError>;

    /// How many bytes were appended.
    fn len(&self) -> u64;

    /// Whether nothing was appended.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the bytes durable; the name is not yet (M1).
    fn sync(&mut self) -> Result<(), FileError>;

    /// Renames the file to `to`, replacing what stands there. Durable once the directory is synced.
    ///
    /// # Errors
    /// Certain: the old name's file is untouched and the temporary file is removed if it can be.
    fn persist(self: Box<Self>, to: &Path) -> Result<(), FileError>;
}

/// How stores reach a log segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogFileWay {
    /// A store is a copy into a shared map.
    Mapped,
    /// A store is a positioned write call.
    Written,
}

/// A log segment open for stores, of fixed length.
///
/// Stores to disjoint ranges may run in parallel from any number of threads. A store that has returned survives the
/// death of the process; it survives power loss once a [`sync`](Self::sync) that began later has succeeded.
pub trait LogFile: fmt::Debug + Send + Sync + 'static {
    /// The path it was created or opened under.
    fn path(&self) -> &Path;

    /// Its fixed length in bytes.
    fn len(&self) -> u64;

    /// Whether its length is zero.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How stores reach it.
    fn way(&self) -> LogFileWay;

    /// Stores `bytes` at `offset`.
    ///
    /// # Panics
    /// If the range leaves the file: the range was reserved by our own code.
    fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError>;

    /// Touches the pages of a range ahead of their use, so that no store faults. Advice: does nothing where it cannot.
    fn populate(&self, offset: u64, bytes: u64);

    /// Takes the pages of a range out of a mapped file's map, in one piece. A sync would go through those that are dirty one
    /// by one, and for each interrupt every processor that runs a thread of this process. A store into the range brings
    /// its page back. Advice: does nothing by default, and loses nothing.
    fn release(&self, _offset: u64, _bytes: u64) {}

    /// Makes every store that returned before this call durable.
    fn sync(&self) -> Result<(), FileError>;
}

/// Holds a directory against other openers until dropped.
pub trait DirectoryLock: fmt::Debug + Send + Sync {}

/// Time. Injected, so that a simulated run owns it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;

    /// Time since the Unix epoch; may jump.
    fn unix_time(&self) -> Duration;

    /// Lets this thread wait for at least `duration`.
    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Random numbers: salts and identifiers, not secrets.
pub trait Randomness: fmt::Debug + Send + Sync + 'static {
    /// The next 64 random bits.
    fn next_u64(&self) -> u64;
}

/// The outside world, as a bundle that is cheap to clone.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where files live.
    pub files: Arc<dyn FileSystem>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where salts and identifiers come from.
    pub randomness: Arc<dyn Randomness>,
}

impl Environment {
    /// The operating system's files, clocks and randomness.
    pub fn real() -> Self {
        Self {
            files: Arc::new(crate::RealFileSystem::new()),
            clock: Arc::new(crate::SystemClock::new()),
            randomness: Arc::new(crate::SystemRandomness::new()),
        }
    }
}
