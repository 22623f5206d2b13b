//! Which sequence numbers must stay readable: registered snapshots, and the floors above which everything stays.
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
//! A keyspace that keeps history has a floor of its own; all others share one, and keep nothing below `visible`. So a seqno
//! of the past is registered for those keyspaces alone whose floor has not passed it, and its handle knows which.
//!
//! All steps take one short lock. How often it was taken, and how often it was contended, is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use internal_key::{KeyspaceId, SeqNo};
use lock_meter::LockCosts;

use crate::Frontier;
use crate::sync::{Mutex, MutexGuard};

/// Knows every registered seqno and the floors. One a database.
#[derive(Debug, Default)]
pub struct SnapshotRegistry {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every registered seqno, how many hold it, and what can be read at it.
    registered: BTreeMap<SeqNo, (usize, Readable)>,
    /// Of the keyspaces that keep no history.
    floor: SeqNo,
    /// Of each keyspace that keeps history.
    floors: BTreeMap<KeyspaceId, SeqNo>,
    registrations: u64,
}

/// Of which keyspaces everything stays that a read at a registered seqno needs: decided when it is first registered, true
/// until its last handle is dropped.
#[derive(Debug, Clone)]
enum Readable {
    /// It was visible, so of all.
    All,
    /// It was past: of those that kept history back to it.
    Only(Arc<BTreeSet<KeyspaceId>>),
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
        self.add(&mut state, seqno, Readable::All)
    }

    /// Registers a seqno of the past, for those keyspaces whose own floor is at or below it
    /// ([`SnapshotHandle::keeps`]). Where it is registered already, for those that it is registered for.
    ///
    /// # Errors
    /// - [`RegisterError::BelowFloor`] if no keyspace keeps history back to it.
    /// - [`RegisterError::NotVisible`] if `visible` has not reached it.
    pub fn register_at(self: &Arc<Self>, visible: &Frontier, seqno: SeqNo) -> Result<SnapshotHandle, RegisterError> {
        // The look at the floors and the insertion are one step: between them no floor can be computed (R3).
        let early =
            planted_faults::planted("version-history-looks-at-floors-before").then(|| self.state().floors.clone());
        let mut state = self.state();
        let visible = visible.load();
        if seqno > visible {
            return Err(RegisterError::NotVisible { seqno, visible });
        }
        if seqno == visible || state.registered.contains_key(&seqno) {
            return Ok(self.add(&mut state, seqno, Readable::All));
        }
        let floors = early.as_ref().unwrap_or(&state.floors);
        let kept: BTreeSet<KeyspaceId> =
            floors.iter().filter(|(_, floor)| **floor <= seqno).map(|(keyspace, _)| *keyspace).collect();
        if kept.is_empty() {
            let floor = state.floors.values().min().copied().unwrap_or(visible);
            return Err(RegisterError::BelowFloor { seqno, floor });
        }
        Ok(self.add(&mut state, seqno, Readable::Only(Arc::new(kept))))
    }

    /// From here on `keyspace` has a floor of its own, which begins at `floor`.
    pub fn keep_history(&self, keyspace: KeyspaceId, floor: SeqNo) {
        self.state().floors.insert(keyspace, floor);
    }

    /// The keyspace was dropped: nothing more of the past can be registered for it.
    pub fn forget_history(&self, keyspace: KeyspaceId) {
        self.state().floors.remove(&keyspace);
    }

    /// Raises the floor to min(`retention`, `visible`) and returns it with every registered seqno, distinct and
    /// ascending, in one step (R3): everything registered later is at or above the returned floor.
    ///
    /// `retention` is the seqno above which history is kept; [`SeqNo::MAX`] keeps none but the snapshots'. For keyspaces
    /// without a floor of their own.
    pub fn floor_and_registered(&self, visible: &Frontier, retention: SeqNo) -> (SeqNo, Vec<SeqNo>) {
        let mut state = self.state();
        let floor = visible.load().min(retention).max(state.floor);
        state.floor = floor;
        (floor, state.registered.keys().copied().collect())
    }

    /// The same for `keyspace`: raises its own floor, or the one of all others if it has none. Of the registered seqnos those
    /// at which it can be read: what is registered for other keyspaces alone keeps nothing of this one.
    pub fn floor_and_registered_of(
        &self,
        keyspace: KeyspaceId,
        visible: &Frontier,
        retention: SeqNo,
    ) -> (SeqNo, Vec<SeqNo>) {
        let mut state = self.state();
        let of_it = |of: &Readable| match of {
            Readable::All => true,
            Readable::Only(keyspaces) => keyspaces.contains(&keyspace),
        };
        let registered = state.registered.iter().filter(|(_, (_, of))| of_it(of)).map(|(seqno, _)| *seqno).collect();
        let visible = visible.load();
        let floor = match state.floors.get_mut(&keyspace) {
            Some(floor) => {
                *floor = visible.min(retention).max(*floor);
                *floor
            }
            None => {
                state.floor = state.floor.max(visible);
                state.floor
            }
        };
        (floor, registered)
    }

    /// The floor of the keyspaces without one of their own, as last computed.
    pub fn floor(&self) -> SeqNo {
        self.state().floor
    }

    /// The floor of a keyspace that keeps history, as last computed; `None` if it keeps none.
    pub fn floor_of(&self, keyspace: KeyspaceId) -> Option<SeqNo> {
        self.state().floors.get(&keyspace).copied()
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

    /// Counts one more handle of `seqno`. What is `readable` counts for the first: floors only rise, so that later ones
    /// can read no more than the first has kept.
    fn add(self: &Arc<Self>, state: &mut State, seqno: SeqNo, readable: Readable) -> SnapshotHandle {
        let (count, readable) = state.registered.entry(seqno).or_insert((0, readable));
        *count += 1;
        let readable = readable.clone();
        state.registrations += 1;
        SnapshotHandle { registry: Arc::clone(self), seqno, readable }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// A registered seqno; dropping it releases it. A clone registers the same seqno once more.
pub struct SnapshotHandle {
    registry: Arc<SnapshotRegistry>,
    seqno: SeqNo,
    readable: Readable,
}

impl SnapshotHandle {
    /// The registered seqno.
    #[inline]
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// Whether everything stays of `keyspace` that a read at this seqno needs: always if it was visible when it was
    /// registered, else if the keyspace kept history back to it.
    #[inline]
    pub fn keeps(&self, keyspace: KeyspaceId) -> bool {
        match &self.readable {
            Readable::All => true,
            Readable::Only(kept) => kept.contains(&keyspace),
        }
    }
}

impl Clone for SnapshotHandle {
    fn clone(&self) -> Self {
        let mut state = self.registry.state();
        debug_assert!(state.registered.contains_key(&self.seqno), "R3: a handle's seqno is registered");
        self.registry.add(&mut state, self.seqno, self.readable.clone())
    }
}

impl Drop for SnapshotHandle {
    fn drop(&mut self) {
        let mut state = self.registry.state();
        match state.registered.get_mut(&self.seqno) {
            Some((count, _)) if *count > 1 && !planted_faults::planted("version-history-release-forgets-others") => {
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
