//! Operations that wait until they are let go: where a test needs somebody to stand in the middle of his work.
//!
//! ```text
//!   test    hold_up(Create, "/log/") ── wait_until_reached ── … ── drop
//!   engine            create_log("/log/…")  waits, and nothing has happened yet  ─▶ creates
//! ```
//!
//! - Who waits holds no lock of the disk: every other operation goes on.
//! - What is held up is what somebody asks for, not what comes along with it: the allocation of a new log file is not, nor the
//!   removal of a temporary one that is dropped.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Disk, SimulatedFileSystem};
use crate::{FileError, FileOperation};

/// The disk, and where those sleep who are held up.
pub(super) struct Shared {
    disk: Mutex<Disk>,
    /// Somebody has come to be held up, or is let go.
    changed: Condvar,
}

/// Which operations wait.
#[derive(Debug)]
pub(super) struct Hold {
    id: u64,
    operation: FileOperation,
    contains: String,
    reached: u64,
}

/// Holds operations up until it is dropped; see [`SimulatedFileSystem::hold_up`].
#[must_use = "dropping it lets go"]
pub struct HoldUp {
    shared: Arc<Shared>,
    id: u64,
}

impl SimulatedFileSystem {
    /// Has every `operation` on a path that contains `text` wait, before anything of it happens, until what is returned is
    /// dropped. The creation of a temporary file goes by the path of its directory.
    pub fn hold_up(&self, operation: FileOperation, text: impl Into<String>) -> HoldUp {
        let mut disk = self.disk();
        let id = disk.next_hold;
        disk.next_hold += 1;
        disk.holds.push(Hold { id, operation, contains: text.into(), reached: 0 });
        HoldUp { shared: Arc::clone(&self.shared), id }
    }
}

impl HoldUp {
    /// Waits until an operation has come to be held up, for at most `longest`. Returns whether one has.
    pub fn wait_until_reached(&self, longest: Duration) -> bool {
        let is_missing = |disk: &mut Disk| !disk.holds.iter().any(|hold| hold.id == self.id && hold.reached > 0);
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), longest, is_missing);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for HoldUp {
    fn drop(&mut self) {
        self.shared.lock().holds.retain(|hold| hold.id != self.id);
        self.shared.changed.notify_all();
    }
}

impl std::fmt::Debug for HoldUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = self.shared.lock();
        f.debug_tuple("HoldUp").field(&disk.holds.iter().find(|hold| hold.id == self.id)).finish()
    }
}

impl Shared {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk: Mutex::new(disk), changed: Condvar::new() }
    }

    /// The disk, also after a panic of a thread that held the lock: a test that catches the panic goes on.
    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for an operation that somebody asks for, once nothing holds that up, if the process lives then.
    pub(super) fn enter(&self, what: FileOperation, path: &Path) -> Result<MutexGuard<'_, Disk>, FileError> {
        let mut disk = self.lock();
        let mut counted_by = None;
        while let Some(hold) = disk.holds.iter_mut().find(|hold| hold.matches(what, path)) {
            if counted_by.replace(hold.id) != Some(hold.id) {
                hold.reached += 1;
                self.changed.notify_all();
            }
            disk = self.changed.wait(disk).unwrap_or_else(PoisonError::into_inner);
        }
        disk.check_alive(what, path)?;
        Ok(disk)
    }
}

impl Hold {
    fn matches(&self, what: FileOperation, path: &Path) -> bool {
        self.operation == what && path.to_string_lossy().contains(&self.contains)
    }
}
