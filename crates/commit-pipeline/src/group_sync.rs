//! One waiter syncs for all.
//!
//! ```text
//!   round 7:  leader: load logged ─▶ sync ─▶ durable ─▶ wake round 7, wake one of round 8
//!             followers whose record ends at or before that position: asleep in round 7
//!   round 8:  those that came too late for it: asleep, one of them leads next
//! ```
//!
//! - **P7** `Synced` waits for a sync that began after `logged` had passed its record's end. One waiter syncs for all, the
//!   others sleep and are woken together.
//! - **P8** A failed sync fails the database and everyone who waits; it is never retried.
//!
//! - **L4** While the log holds its claims, a sync that succeeds answers nobody: all sleep until the claims are released.
//!
//! Knows no log: positions are distances (integers in log order), and the sync is a closure.

use lock_meter::LockCosts;

use crate::sync::{Condvar, Mutex, MutexGuard, wait};

/// The rounds of syncing.
#[derive(Debug)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    /// Where round `n` sleeps: `n & 1`.
    rounds: [Condvar; 2],
}

#[derive(Debug)]
struct State {
    /// The round that is being synced or will be next.
    round: u64,
    /// While a leader syncs: through where.
    syncing: Option<u64>,
    /// The log's last sync succeeded without raising what is durable (L4): nobody leads until a release.
    held: bool,
    /// How often claims were released.
    releases: u64,
    syncs: u64,
    synced: u64,
}

/// Why a wait for a sync ended without one: the database failed, see its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncAbandoned;

/// What a leader needs of its surroundings.
pub(crate) trait SyncSource {
    /// Through where the log is copied without a gap, as fresh as can be had.
    fn logged(&self) -> u64;
    /// Through where everything survives a power cut. Raised by each sync that succeeds; never falls.
    fn durable(&self) -> u64;
    /// Syncs through there. On failure the source has kept the cause before it returns.
    fn sync_through(&self, distance: u64) -> Result<(), SyncAbandoned>;
    /// Whether the database failed.
    fn is_failed(&self) -> bool;
}

impl GroupSync {
    pub(crate) fn new() -> Self {
        let state = State { round: 0, syncing: None, held: false, releases: 0, syncs: 0, synced: 0 };
        Self { state: Mutex::new(state), rounds: [Condvar::new(), Condvar::new()] }
    }

    /// Returns once a sync that covers `target` has succeeded.
    ///
    /// `target` must be at or below `source.logged()`, so that any sync that begins from now on covers it.
    pub(crate) fn wait_through(&self, target: u64, source: &impl SyncSource) -> Result<(), SyncAbandoned> {
        let mut state = self.state.lock();
        let mut slept = false;
        loop {
            if source.durable() >= target {
                state.synced += 1;
                if slept && state.syncing.is_none() {
                    // Woken to lead, and not needed any more, because the log was synced by another way: the others who
                    // sleep need a leader all the same.
                    self.condvar(state.round).notify_one();
                }
                return Ok(());
            }
            if source.is_failed() {
                return Err(SyncAbandoned);
            }
            match state.syncing {
                None if !state.held => state = self.lead(state, source),
                // Asleep until the sync under way ends, if that covers the target: it loaded `logged` before it began.
                // Otherwise until the next one does, which one of the sleepers leads, or until claims are released.
                syncing => {
                    slept = true;
                    let late = syncing.is_some_and(|through| through < target);
                    state = wait(self.condvar(state.round + u64::from(late)), state);
                    if planted_faults::planted("commit-pipeline-any-sync-will-do") && !source.is_failed() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// How many syncs there were, and how many waiters they answered.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.syncs, state.synced)
    }

    pub(crate) fn lock_costs(&self) -> LockCosts {
        self.state.costs()
    }

    /// The log has released its claims: the next sync raises what is durable (L4).
    pub(crate) fn claims_released(&self) {
        let mut state = self.state.lock();
        state.held = false;
        state.releases += 1;
        drop(state);
        self.rounds.iter().for_each(Condvar::notify_all);
    }

    /// Makes everyone look again: the database failed.
    pub(crate) fn wake_all(&self) {
        drop(self.state.lock());
        self.rounds.iter().for_each(Condvar::notify_all);
    }

    fn lead<'a>(&'a self, mut state: MutexGuard<'a, State>, source: &impl SyncSource) -> MutexGuard<'a, State> {
        // P7: `logged` is loaded before the sync begins, and vouched for after it has succeeded.
        let through = source.logged();
        state.syncing = Some(through);
        let releases = state.releases;
        drop(state);
        // Ends the round also if the sync panics, so that nobody sleeps for ever; the source fails the database then.
        let mut ending = RoundEnd { group: self, releases, succeeded: false, held: false };
        ending.succeeded = source.sync_through(through) == Ok(());
        ending.held = ending.succeeded && source.durable() < through;
        drop(ending);
        self.state.lock()
    }

    fn condvar(&self, round: u64) -> &Condvar {
        &self.rounds[(round & 1) as usize]
    }
}

struct RoundEnd<'a> {
    group: &'a GroupSync,
    /// As it was when the round began: claims released since then are not held any more.
    releases: u64,
    succeeded: bool,
    held: bool,
}

impl Drop for RoundEnd<'_> {
    fn drop(&mut self) {
        let round = {
            let mut state = self.group.state.lock();
            state.syncing = None;
            state.round += 1;
            state.syncs += u64::from(self.succeeded);
            state.held = self.held && state.releases == self.releases;
            state.round
        };
        self.group.condvar(round - 1).notify_all();
        if self.succeeded {
            // Of the next round one wakes and leads it.
            self.group.condvar(round).notify_one();
        } else if !planted_faults::planted("commit-pipeline-late-ones-sleep-on-after-a-failure") {
            self.group.condvar(round).notify_all();
        }
    }
}
