//! The super versions of one keyspace: the current one, those of the past that can still be read, and the one lock under
//! which the next is composed.
//!
//! ```text
//!   install: lock ─▶ load current ─▶ compose the next (pure) ─▶ one atomic store ─▶ unlock ─▶ the old one is retired
//!   read:    load current ─▶ (snapshot below its start: follow the link)
//! ```
//!
//! - **R2** All changes of one keyspace's super version compose under one short lock, taken after the reservation lock,
//!   under which no I/O happens.
//! - **R4** A past super version is kept while a snapshot needs it.

use std::fmt;
use std::sync::Arc;

use internal_key::SeqNo;
use lock_meter::LockCosts;

use crate::sync::Mutex;
use crate::{Retired, SuperVersion, SuperVersionCell, SuperVersionGuard};

/// The current super version of a keyspace and its past.
pub struct History<M, S> {
    current: SuperVersionCell<SuperVersion<M, S>>,
    /// Serialises composition; guards nothing else, readers never take it. Taken after the reservation lock.
    compose: Mutex<()>,
    retired: Arc<Retired<SuperVersion<M, S>>>,
}

impl<M, S> History<M, S> {
    /// A history that begins with `first`. What is replaced goes to `retired`, which keyspaces can share.
    pub fn new(first: SuperVersion<M, S>, retired: Arc<Retired<SuperVersion<M, S>>>) -> Self {
        Self { current: SuperVersionCell::new(Arc::new(first)), compose: Mutex::new(()), retired }
    }

    /// The current super version, for the length of a call. Lock-free (R1): load this first, `visible` after.
    #[inline]
    pub fn current(&self) -> SuperVersionGuard<SuperVersion<M, S>> {
        self.current.load()
    }

    /// The current super version, shared: for what outlives a call.
    #[inline]
    pub fn current_full(&self) -> Arc<SuperVersion<M, S>> {
        self.current.load_full()
    }

    /// The super version that a read at `seqno` looks through (R4). `None` only if `seqno` is neither registered nor at
    /// or above the floor. Register the seqno first, call this after (R1).
    pub fn version_for_snapshot(&self, seqno: SeqNo) -> Option<Arc<SuperVersion<M, S>>> {
        let mut candidate = self.current_full();
        while seqno < candidate.start() {
            candidate = Arc::clone(candidate.predecessor()?);
        }
        Some(candidate)
    }

    /// Replaces the current super version by what `compose` makes of it, and retires the old one.
    ///
    /// `compose` runs under the lock: it must do no I/O and take no lock that is ever held around this call.
    ///
    /// # Errors
    /// What `compose` returns; then nothing has changed.
    pub fn install<E>(
        &self,
        compose: impl FnOnce(&Arc<SuperVersion<M, S>>) -> Result<SuperVersion<M, S>, E>,
    ) -> Result<Arc<SuperVersion<M, S>>, E> {
        let (next, old) = {
            let _composing = self.compose.lock();
            let next = Arc::new(compose(&self.current.load_full())?);
            let old = self.current.swap(Arc::clone(&next));
            (next, old)
        };
        self.retired.retire(old);
        Ok(next)
    }

    /// What the lock of composition has cost.
    pub fn lock_costs(&self) -> LockCosts {
        self.compose.costs()
    }

    /// Drops predecessors that nobody can read any more (R4), and returns whether there were any. For a worker, now and
    /// then and whenever a snapshot went; see [`SuperVersion::without_unneeded_predecessors`].
    pub fn forget_predecessors(&self, floor: SeqNo, registered: &[SeqNo]) -> bool {
        self.install(|current| current.without_unneeded_predecessors(floor, registered).ok_or(())).is_ok()
    }
}

impl<M: fmt::Display, S> fmt::Debug for History<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("current", &*self.current()).finish_non_exhaustive()
    }
}
