//! One holder per directory, in this process and all others.
//!
//! ```text
//! LOCK        empty, never removed; an advisory lock on it is the truth
//! LOCK.info   the holder's process id in decimal and a line feed; read only when LOCK is held, so it may be stale
//! ```
//!
//! The system's lock belongs to the open file on most systems and to the process on some (network file systems), so
//! holders within the process are also kept in a list.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Modes, failed};
use crate::traits::{LOCK_INFO_NAME, LOCK_NAME};
use crate::{DirectoryLock, FileError, FileOperation};

/// The canonical directories that this process holds.
static HELD_HERE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Entry in [`HELD_HERE`]; leaves it when dropped.
#[derive(Debug)]
struct HeldHere(PathBuf);

impl HeldHere {
    /// `None` if this process holds `dir` already.
    fn enter(dir: PathBuf) -> Option<Self> {
        // A set of paths is whole after every step, so poisoning says nothing about it.
        let mut held = HELD_HERE.lock().unwrap_or_else(PoisonError::into_inner);
        if held.insert(dir.clone()) { Some(Self(dir)) } else { None }
    }
}

impl Drop for HeldHere {
    fn drop(&mut self) {
        HELD_HERE.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// The lock, until dropped. The fields are dropped in order: the system's lock first, then the entry in the list.
#[derive(Debug)]
pub(super) struct RealDirectoryLock {
    _file: File,
    _held: HeldHere,
}

impl DirectoryLock for RealDirectoryLock {}

impl RealDirectoryLock {
    pub(super) fn acquire(dir: &Path, modes: Modes) -> Result<Self, FileError> {
        let path = dir.join(LOCK_NAME);
        let canonical = dir.canonicalize().map_err(failed(FileOperation::Lock, &path))?;
        let held = HeldHere::enter(canonical).ok_or_else(|| taken(&path, "this process holds it already".into()))?;
        // Never truncated, never removed: a lock on a file that another opener could replace excludes nobody.
        let file = modes
            .open_options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed(FileOperation::Lock, &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(&path, holder(dir))),
            Err(TryLockError::Error(source)) => return Err(FileError::new(FileOperation::Lock, &path, source)),
        }
        name_holder(&dir.join(LOCK_INFO_NAME), modes);
        Ok(Self { _file: file, _held: held })
    }
}

fn taken(path: &Path, holder: String) -> FileError {
    FileError::new(FileOperation::Lock, path, io::Error::new(io::ErrorKind::WouldBlock, holder))
}

/// Who holds `dir`, in words. The file comes from somebody else's process: a number or nothing.
fn holder(dir: &Path) -> String {
    let pid = File::open(dir.join(LOCK_INFO_NAME)).ok().and_then(|file| {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, 32), &mut text).ok()?;
        text.trim().parse::<u32>().ok()
    });
    match pid {
        Some(pid) => format!("process {pid} holds it"),
        None => "another process holds it".into(),
    }
}

/// Writes our process id beside the lock. Only a courtesy: on a full disk it fails and the lock stands, without a stale
/// name where that can be helped.
fn name_holder(path: &Path, modes: Modes) {
    let text = format!("{}\n", std::process::id());
    // Written over, not truncated first: some file systems write a file out that was.
    let file = modes.open_options().write(true).create(true).truncate(false).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        let bytes = text.len() as u64;
        if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
    });
    if written.is_err() {
        let _ = std::fs::remove_file(path);
    }
}
