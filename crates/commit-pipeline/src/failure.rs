//! The failed state: the first cause, kept for everyone who comes after.
//!
//! - **P8** After an uncertain error every later write gets the first cause; reads go on; only reopening recovers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};

/// Why a database failed; shared by everyone who is told.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Holds the first cause.
pub(crate) struct Failure {
    failed: AtomicBool,
    cause: Mutex<Option<Cause>>,
}

impl Failure {
    pub(crate) fn new() -> Self {
        Self { failed: AtomicBool::new(false), cause: Mutex::new(None) }
    }

    /// Keeps `cause` if it is the first. The caller then wakes whoever waits.
    pub(crate) fn set(&self, cause: Cause) {
        let mut first = self.cause.lock();
        if first.is_none() {
            tracing::error!(%cause, "the database failed: writes are refused until it is reopened");
            *first = Some(cause);
        }
        // Release pairs with the Acquire in `is_set`: who sees the flag finds the cause.
        self.failed.store(true, Ordering::Release);
    }

    /// Whether there is a cause. One load.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        // Acquire pairs with the Release in `set`.
        self.failed.load(Ordering::Acquire)
    }

    /// The first cause.
    pub(crate) fn cause(&self) -> Option<Cause> {
        if !self.is_set() {
            return None;
        }
        self.cause.lock().clone()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Failure").field(&self.cause()).finish()
    }
}

/// A writer panicked between its reservation and its publication, so that its batch can never become visible (P2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a writer died with the batch that begins at {first} reserved and not published")]
pub struct WriterDied {
    /// The first sequence number of its batch.
    pub first: internal_key::SeqNo,
}

/// The log panicked while it synced, so that nobody knows what is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log panicked while it synced")]
pub(crate) struct SyncDied;
