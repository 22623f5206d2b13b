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
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::SimulatedFileSystem;
use super::disk::{Disk, Shared};
use crate::FileOperation;

/// Which operations wait.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) id: u64,
    operation: FileOperation,
    contains: String,
    /// How many have come to wait.
    pub(super) reached: u64,
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

impl Hold {
    pub(super) fn matches(&self, what: FileOperation, path: &Path) -> bool {
        self.operation == what && path.to_string_lossy().contains(&self.contains)
    }
}
