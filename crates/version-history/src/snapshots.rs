//! Which sequence numbers must stay readable: registered snapshots, and the floor above which everything stays.
//!
//! ```text
//!   seqno ────┬───────────┬─────────────┬──────────────────▶
//!          snapshot    snapshot       floor            visible
//!        (a stripe)   (a stripe)        └── all versions stay ──┘
//! ```
//!
//! - **R3** Loading `visible` and registering it is one step against the computation of the floor; the floor is
//!   min(retention, `visible`) and never falls; registering below it is an error. A snapshot that the floor passes later
//!   remains as a stripe.
//!
//! Both steps take one short lock. How often it was taken, and how often it was contended, is counted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use internal_key::SeqNo;
use lock_meter::LockCosts;

use crate::Frontier;
use crate::sync::{Mutex, MutexGuard};

/// Knows every registered seqno and the floor. One a database.
#[derive(Debug, Default)]
pub struct SnapshotRegistry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every registered seqno and how many hold it.
    registered: BTreeMap<SeqNo, usize>,
    floor: SeqNo,
    registrations: u64,
}

/// How often the registry was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryCounts {
    /// Snapshots registered since the start.
    pub registrations: u64,
    /// Times a caller had to wait for another one inside the registry.
    pub contended: u64,
    /// Distinct seqnos registered now.
    pub registered: usize,
}

/// Why a seqno cannot be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Versions at that seqno may be gone already.
    #[error("seqno {seqno} is below the floor {floor}: its versions may be gone")]
    BelowFloor {
        /// The seqno asked for.
        seqno: SeqNo,
        /// The smallest that can be registered.
        floor: SeqNo,
    },
    /// Writes at or below that seqno are still going on.
    #[error("seqno {seqno} is not visible yet: {visible} is")]
    NotVisible {
        /// The seqno asked for.
        seqno: SeqNo,
        /// The largest that can be registered.
        visible: SeqNo,
    },
}

impl SnapshotRegistry {
    /// A registry whose floor is `floor`, with nothing registered.
    pub fn new(floor: SeqNo) -> Self {
        let state = State { floor, ..State::default() };
        Self { state: Mutex::new(state) }
    }

    /// Registers what is visible now. Until the handle is dropped, every version that a read at its seqno needs stays.
    pub fn register(self: &Arc<Self>, visible: &Frontier) -> SnapshotHandle {
        // The load is under the lock: between it and the insertion no floor can be computed (R3).
        let early = planted_faults::planted("version-history-register-in-two-steps").then(|| visible.load());
        let mut state = self.state();
        let seqno = early.unwrap_or_else(|| visible.load());
        assert!(seqno >= state.floor, "R3: the floor {} has passed visible {seqno}", state.floor);
        self.add(&mut state, seqno)
    }

    /// Registers a seqno of the past. Allowed at or above the floor, and where the seqno is registered already.
    ///
    /// # Errors
    /// - [`RegisterError::BelowFloor`] if versions at it may be gone.
    /// - [`RegisterError::NotVisible`] if `visible` has not reached it.
    pub fn register_at(self: &Arc<Self>, visible: &Frontier, seqno: SeqNo) -> Result<SnapshotHandle, RegisterError> {
        let mut state = self.state();
        let visible = visible.load();
        if seqno > visible {
            return Err(RegisterError::NotVisible { seqno, visible });
        }
        if seqno < state.floor && !state.registered.contains_key(&seqno) {
            return Err(RegisterError::BelowFloor { seqno, floor: state.floor });
        }
        Ok(self.add(&mut state, seqno))
    }

    /// Raises the floor to min(`retention`, `visible`) and returns it with every registered seqno, distinct and
    /// ascending, in one step (R3): everything registered later is at or above the returned floor.
    ///
    /// `retention` is the seqno above which history is kept; [`SeqNo::MAX`] keeps none but the snapshots'.
    pub fn floor_and_registered(&self, visible: &Frontier, retention: SeqNo) -> (SeqNo, Vec<SeqNo>) {
        let mut state = self.state();
        let floor = visible.load().min(retention).max(state.floor);
        state.floor = floor;
        (floor, state.registered.keys().copied().collect())
    }

    /// The floor as last computed.
    pub fn floor(&self) -> SeqNo {
        self.state().floor
    }

    /// The smallest registered seqno.
    pub fn oldest(&self) -> Option<SeqNo> {
        self.state().registered.keys().next().copied()
    }

    /// How often the registry was used.
    pub fn counts(&self) -> RegistryCounts {
        let contended = self.state.costs().contended;
        let state = self.state();
        RegistryCounts { registrations: state.registrations, contended, registered: state.registered.len() }
    }

    /// What its lock has cost.
    pub fn lock_costs(&self) -> LockCosts {
        self.state.costs()
    }

    fn add(self: &Arc<Self>, state: &mut State, seqno: SeqNo) -> SnapshotHandle {
        *state.registered.entry(seqno).or_default() += 1;
        state.registrations += 1;
        SnapshotHandle { registry: Arc::clone(self), seqno }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A registered seqno; dropping it releases it. A clone registers the same seqno once more.
pub struct SnapshotHandle {
    registry: Arc<SnapshotRegistry>,
    seqno: SeqNo,
}

impl SnapshotHandle {
    /// The registered seqno.
    #[inline]
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }
}

impl Clone for SnapshotHandle {
    fn clone(&self) -> Self {
        let mut state = self.registry.state();
        debug_assert!(state.registered.contains_key(&self.seqno), "R3: a handle's seqno is registered");
        self.registry.add(&mut state, self.seqno)
    }
}

impl Drop for SnapshotHandle {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        match state.registered.get_mut(&self.seqno) {
            Some(count) if *count > 1 && !planted_faults::planted("version-history-release-forgets-others") => {
                *count -= 1;
            }
            _ => {
                state.registered.remove(&self.seqno);
            }
        }
    }
}

impl fmt::Debug for SnapshotHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SnapshotHandle").field(&self.seqno).finish()
    }
}
