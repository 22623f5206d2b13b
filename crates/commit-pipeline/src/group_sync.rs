//! One waiter syncs for all.
//!
//! ```text
//!   round 7:  leader: gather ─▶ load logged ─▶ sync ─▶ durable ─▶ wake round 7, wake one of round 8
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
//! To gather is to sleep until as many wait as were there when the last round ended, for at most half of what its sync
//! took and never longer than a millisecond. Without it the writers part into two halves, each of which sleeps through the other's sync
//! (`docs/decisions/0013-a-leader-gathers.md`).
//!
//! Knows no log: positions are distances (integers in log order), and the sync is a closure.

use std::time::{Duration, Instant};

use lock_meter::LockCosts;

use crate::sync::{Condvar, Mutex, MutexGuard, wait};

/// A leader gathers no longer: threads come back as fast as they are scheduled, however slow the disk was a moment ago.
#[cfg(not(any(loom, shuttle)))]
const PATIENCE_MAX: Duration = Duration::from_millis(1);

/// The rounds of syncing.
#[derive(Debug)]
pub(crate) struct GroupSync {
    state: Mutex<State>,
    /// Where round `n` sleeps: `n & 1`.
    rounds: [Condvar; 2],
    /// Where a leader gathers, and for how long at most.
    gathered: Condvar,
    #[cfg(not(any(loom, shuttle)))]
    patience_max: Duration,
}

#[derive(Debug)]
struct State {
    /// The round that is being synced or will be next.
    round: u64,
    leader: Leader,
    /// How many sleep in each round: `n & 1`.
    asleep: [u64; 2],
    /// How many waited for a sync when the last round ended, in it or for the next.
    present: u64,
    /// What the last sync took.
    sync_time: Duration,
    /// The log's last sync succeeded without raising what is durable (L4): nobody leads until a release.
    held: bool,
    /// How often claims were released.
    releases: u64,
    syncs: u64,
    synced: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// Nobody leads.
    None,
    /// It has not loaded `logged` yet.
    Gathers,
    /// It syncs through there.
    Syncs(u64),
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
        let state = State {
            round: 0,
            leader: Leader::None,
            asleep: [0, 0],
            present: 0,
            sync_time: Duration::ZERO,
            held: false,
            releases: 0,
            syncs: 0,
            synced: 0,
        };
        Self {
            state: Mutex::new(state),
            rounds: [Condvar::new(), Condvar::new()],
            gathered: Condvar::new(),
            #[cfg(not(any(loom, shuttle)))]
            patience_max: PATIENCE_MAX,
        }
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
                if slept && state.leader == Leader::None {
                    // Woken to lead, and not needed any more, because the log was synced by another way: the others who
                    // sleep need a leader all the same.
                    self.condvar(state.round).notify_one();
                }
                return Ok(());
            }
            if source.is_failed() {
                return Err(SyncAbandoned);
            }
            match state.leader {
                Leader::None if !state.held => state = self.lead(state, source),
                // Asleep until the sync under way ends, if that covers the target: its leader loaded enough of `logged`, or
                // will load it after this thread gives up the lock. Otherwise until the next one does, which one of the
                // sleepers leads, or until claims are released.
                leader => {
                    slept = true;
                    let late = matches!(leader, Leader::Syncs(through) if through < target);
                    let round = state.round + u64::from(late);
                    state.asleep[parity(round)] += 1;
                    if leader == Leader::Gathers && state.has_gathered() {
                        self.gathered.notify_one();
                    }
                    state = wait(self.condvar(round), state);
                    state.asleep[parity(round)] -= 1;
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
        state = self.gather(state);
        // P7: `logged` is loaded before the sync begins, and vouched for after it has succeeded.
        let through = source.logged();
        state.leader = Leader::Syncs(through);
        let releases = state.releases;
        drop(state);
        // Ends the round also if the sync panics, so that nobody sleeps for ever; the source fails the database then.
        let mut ending = RoundEnd { group: self, releases, begun: Instant::now(), succeeded: false, held: false };
        ending.succeeded = source.sync_through(through) == Ok(());
        ending.held = ending.succeeded && source.durable() < through;
        drop(ending);
        self.state.lock()
    }

    /// Waits for those who were there when the last round ended: they are likely to come back with their next commit. A
    /// delay and nothing else, so the models do without it: there a thread may be stopped anywhere.
    #[cfg(not(any(loom, shuttle)))]
    fn gather<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let patience = (state.sync_time / 2).min(self.patience_max);
        if planted_faults::planted("commit-pipeline-gathers-nobody") {
            return state;
        }
        let begun = Instant::now();
        state.leader = Leader::Gathers;
        while !state.has_gathered() {
            let left = patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                break;
            }
            // Asleep and not yielding: beside threads that never sleep, whoever yields waits for all of them.
            (state, _) = lock_meter::wait_timeout(&self.gathered, state, left);
        }
        state
    }

    #[cfg(any(loom, shuttle))]
    fn gather<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state
    }

    fn condvar(&self, round: u64) -> &Condvar {
        &self.rounds[parity(round)]
    }
}

impl State {
    /// Whether a leader need not wait for more: itself, and those asleep in its round.
    fn has_gathered(&self) -> bool {
        self.asleep[parity(self.round)] + 1 >= self.present
    }
}

fn parity(round: u64) -> usize {
    (round & 1) as usize
}

struct RoundEnd<'a> {
    group: &'a GroupSync,
    /// As it was when the round began: claims released since then are not held any more.
    releases: u64,
    begun: Instant,
    succeeded: bool,
    held: bool,
}

impl Drop for RoundEnd<'_> {
    fn drop(&mut self) {
        let round = {
            let mut state = self.group.state.lock();
            state.leader = Leader::None;
            state.present = state.asleep[0] + state.asleep[1] + 1;
            state.sync_time = self.begun.elapsed();
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

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Disk {
        logged: AtomicU64,
        durable: AtomicU64,
    }

    impl SyncSource for Disk {
        fn logged(&self) -> u64 {
            self.logged.load(Ordering::SeqCst)
        }

        fn durable(&self) -> u64 {
            self.durable.load(Ordering::SeqCst)
        }

        fn sync_through(&self, distance: u64) -> Result<(), SyncAbandoned> {
            self.durable.fetch_max(distance, Ordering::SeqCst);
            Ok(())
        }

        fn is_failed(&self) -> bool {
            false
        }
    }

    /// As if the last round had been `present` waiters and a sync of this length.
    fn after_a_round(present: u64, sync_time: Duration) -> (GroupSync, Disk) {
        let group = GroupSync::new();
        {
            let mut state = group.state.lock();
            (state.present, state.sync_time) = (present, sync_time);
        }
        (group, Disk::default())
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_leader_that_gathers_answers_also_who_comes_meanwhile() {
        let (mut group, disk) = after_a_round(2, LONG);
        group.patience_max = LONG;
        let group = group;
        thread::scope(|scope| {
            disk.logged.store(1, Ordering::SeqCst);
            let leader = scope.spawn(|| group.wait_through(1, &disk));
            while group.state.lock().leader != Leader::Gathers {
                assert!(!leader.is_finished(), "it led without gathering");
                thread::yield_now();
            }
            disk.logged.store(2, Ordering::SeqCst);
            group.wait_through(2, &disk).unwrap();
            leader.join().unwrap().unwrap();
        });
        assert_eq!(group.counts(), (1, 2), "P7: one sync, loaded after both had come");
        assert_eq!(group.state.lock().present, 2);
    }

    #[test]
    fn a_leader_waits_neither_for_the_last_round_for_ever_nor_when_it_was_alone() {
        // The last sync took an hour: the disk had stood still.
        let (group, disk) = after_a_round(2, LONG);
        disk.logged.store(1, Ordering::SeqCst);
        group.wait_through(1, &disk).unwrap();
        assert_eq!((group.counts(), group.state.lock().present), ((1, 1), 1));
        group.state.lock().sync_time = LONG;
        disk.logged.store(2, Ordering::SeqCst);
        group.wait_through(2, &disk).unwrap();
        assert_eq!(group.counts(), (2, 2));
    }
}
