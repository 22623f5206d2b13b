//! What runs, what wants a look, and what failed: all that the choice of the next job is made from.
//!
//! - **P6** One flush of a keyspace runs at a time: `flushing` says in which one does.
//! - **P9** A certain failure concerns its keyspace alone: that task is held back until somebody asks again, and the others
//!   get their turn, also those behind a keyspace that always has something due.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compaction::{Busy, Scope};
use file_system::Clock;
use internal_key::{KeyspaceId, SeqNo};

use super::due::Due;
use super::merge::Merge;
use crate::Error;
use crate::core::{KeyspaceShared, unix_ms};

/// Up to which sequence number what a keyspace has sealed is to be flushed, whatever its size. Only rises, so that no request
/// is lost to an earlier one that is done.
///
/// Raised by [`Jobs::ask_for_flush`] alone, in one step with the look that it needs: none can come between the two, which would
/// find nothing asked for and be the last.
#[derive(Debug, Default)]
pub(crate) struct FlushAsked(AtomicU64);

impl FlushAsked {
    /// Whether what ends with `last` was asked for. Relaxed: to whom no look has led here, a request that is seen late is made
    /// again.
    pub(crate) fn covers(&self, last: SeqNo) -> bool {
        last.get() <= self.0.load(Ordering::Relaxed)
    }
}

/// What runs and what wants a look. Guarded by `Core::jobs`.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Keyspaces with a clear or drop that the manifest does not hold yet (P12).
    pub(super) look_for_operation: BTreeSet<KeyspaceId>,
    /// Keyspaces in which a flush may be due.
    pub(super) look_for_flush: BTreeSet<KeyspaceId>,
    /// Keyspaces in which a compaction may be due.
    pub(super) look_for_compaction: BTreeSet<KeyspaceId>,
    /// Keyspaces that may be compacted because the database is idle; each until its next seal.
    pub(super) look_when_idle: BTreeSet<KeyspaceId>,
    /// Keyspaces that have rested for as long while others are busy; each until its next seal.
    pub(super) look_beside_others: BTreeSet<KeyspaceId>,
    /// When keyspaces that have several runs will have rested for long enough, on the monotonic clock; each until its next
    /// seal.
    pub(super) rested_at: BTreeMap<KeyspaceId, Duration>,
    /// Compactions begun because they were due, since one was begun beside them.
    pub(super) begun_before_beside: u32,
    /// Keyspaces in which readers have sought so much that the picker is to know of it.
    pub(super) look_for_reads: BTreeSet<KeyspaceId>,
    /// When the oldest tables of keyspaces will be past their age, in milliseconds of Unix time.
    expires_at: BTreeMap<KeyspaceId, u64>,
    /// Since when a flush could have begun, and a compaction that limits demand.
    pub(super) flush_due: Due,
    pub(super) compaction_due: Due,
    pub(super) flushing: BTreeSet<KeyspaceId>,
    pub(super) compacting: BTreeMap<KeyspaceId, Busy>,
    /// The keyspaces in which a flush and a compaction was begun last: the next is looked for behind them, so that one
    /// that always has something due keeps no other waiting (P9).
    pub(super) flushed_last: Option<KeyspaceId>,
    pub(super) compacted_last: Option<KeyspaceId>,
    pub(super) compactions_running: usize,
    /// Those among them that a caller leads, and no worker.
    pub(super) led_by_callers: usize,
    /// Merges with parts that others may take.
    pub(super) shared: Vec<Arc<Merge>>,
    /// Workers that write a part of a merge that somebody else leads.
    pub(super) helping: usize,
    pub(super) preparing_segment: bool,
    /// Whether a job syncs full segments.
    pub(super) syncing_segments: bool,
    /// Whether something that was replayed is not flushed yet (L4), and no other flush begins.
    pub(super) is_unsettled: bool,
    /// Whether a job flushes it.
    pub(super) settling: bool,
    /// There was something to look at since everybody who waits for idleness was last told.
    pub(super) was_busy: bool,
    /// Why tasks failed that have not succeeded since.
    pub(super) failed: BTreeMap<Task, Error>,
    /// Those among them that wait for somebody to ask again.
    pub(super) held_back: BTreeSet<Task>,
    /// Somebody has asked.
    pub(super) asked_again: bool,
    /// Jobs done since a task was held back.
    pub(super) done_since_failure: u32,
    /// How often a writer has asked for memory, the last number that was answered, and how many bytes the last one asked for
    /// (P13). One asks at a time.
    memory_asked: u64,
    memory_answered: u64,
    memory_needed: u64,
    /// How many writers were told, after all their asking, that there is no memory.
    memory_refused: u64,
}

/// After so many other jobs a task that failed, and that somebody has asked for again, gets its turn though there is more to
/// do (P9): where something is always due, nothing would ever come of it otherwise.
pub(super) const RETRY_AFTER_JOBS: u32 = 8;

/// After so many compactions that were due a keyspace that rests gets its turn, for a job of bounded size.
const BESIDE_AFTER_JOBS: u32 = 4;

/// Why a keyspace is looked at for a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Something may be due.
    Due,
    /// The whole database is idle.
    AllIdle,
    /// The keyspace rests, and others may be busy.
    Rested,
}

/// What there is to do, as far as failures are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    Log,
    Settle,
    Manifest,
    Operation(KeyspaceId),
    Flush(KeyspaceId),
    Compaction(KeyspaceId),
}

impl Task {
    /// Whom its failure concerns.
    pub(super) fn scope(self) -> Option<Scope> {
        match self {
            Self::Log | Self::Settle | Self::Manifest => None,
            Self::Operation(id) | Self::Flush(id) | Self::Compaction(id) => Some(scope_of(id)),
        }
    }
}

pub(crate) fn scope_of(keyspace: KeyspaceId) -> Scope {
    Scope(u64::from(keyspace.get()))
}

impl Jobs {
    /// What failed and is held back gets another turn, after what else there is to do.
    pub(crate) fn try_failed_again(&mut self) {
        self.asked_again |= !self.held_back.is_empty();
    }

    /// Lets held back tasks go if somebody has asked for it, and returns whether there were any.
    pub(super) fn release_held_back(&mut self) -> bool {
        let release = std::mem::take(&mut self.asked_again) && !self.held_back.is_empty();
        if release {
            self.held_back.clear();
        }
        release
    }

    pub(super) fn release_overdue(&mut self) {
        if self.done_since_failure >= RETRY_AFTER_JOBS {
            self.release_held_back();
        }
    }

    /// Why nothing may come of what makes memory, if so: compactions make none.
    pub(crate) fn failure_to_make_memory(&self) -> Option<Error> {
        let makes = |task: &Task| matches!(task, Task::Log | Task::Settle | Task::Flush(_));
        self.failed.iter().find(|(task, _)| makes(task)).map(|(_, error)| error.clone())
    }

    pub(super) fn hold_back(&mut self, task: Task) {
        self.held_back.insert(task);
        self.done_since_failure = 0;
    }

    pub(super) fn may_run(&self, task: Task) -> bool {
        !self.held_back.contains(&task)
    }

    /// The task succeeded, or there is nothing left of it to do.
    pub(super) fn no_longer_fails(&mut self, task: Task) {
        self.failed.remove(&task);
        self.held_back.remove(&task);
    }

    /// A writer waits for so many bytes of memory. Returns the number that tells its question from earlier ones.
    pub(crate) fn asks_for_memory(&mut self, needed: u64) -> u64 {
        self.memory_asked += 1;
        self.memory_needed = needed;
        self.memory_asked
    }

    /// The question that is open, and how many bytes it asks for.
    pub(super) fn memory_wanted(&self) -> Option<(u64, u64)> {
        (self.memory_answered < self.memory_asked).then_some((self.memory_asked, self.memory_needed))
    }

    /// A question is settled: nothing that could be flushed would be enough, or nobody waits for an answer any more.
    pub(crate) fn answer_for_memory(&mut self, number: u64) {
        self.memory_answered = self.memory_answered.max(number);
    }

    pub(crate) fn has_answered(&self, number: u64) -> bool {
        self.memory_answered >= number
    }

    /// A writer has asked often enough: so have those who stood behind it.
    pub(crate) fn refuses_memory(&mut self) {
        self.memory_refused += 1;
    }

    pub(crate) fn memory_refused(&self) -> u64 {
        self.memory_refused
    }

    /// Has everything flushed that a keyspace has sealed up to `through`, whatever its size. Returns whether that was not asked
    /// for before.
    pub(super) fn ask_for_flush(&mut self, keyspace: &KeyspaceShared, through: SeqNo) -> bool {
        // Relaxed: whoever is led there by the look has taken the lock of these jobs since.
        let is_new = keyspace.flush_asked.0.fetch_max(through.get(), Ordering::Relaxed) < through.get();
        if is_new && !planted_faults::planted("facade-flush-asked-for-without-a-look") {
            self.wants_look(keyspace.id);
        }
        is_new
    }

    pub(crate) fn wants_look(&mut self, keyspace: KeyspaceId) {
        self.look_for_flush.insert(keyspace);
        self.look_for_compaction.insert(keyspace);
        self.was_busy = true;
    }

    /// A compaction may be due though nothing was written to the keyspace.
    pub(crate) fn wants_compaction(&mut self, keyspace: KeyspaceId) {
        self.look_for_compaction.insert(keyspace);
        self.was_busy = true;
    }

    /// The keyspace is written to: what only idleness justifies has time.
    pub(crate) fn no_longer_idle(&mut self, keyspace: KeyspaceId) {
        self.look_when_idle.remove(&keyspace);
        self.look_beside_others.remove(&keyspace);
        self.rested_at.remove(&keyspace);
    }

    /// A look at a keyspace has found when something will be past its age, if anything will.
    pub(super) fn set_expiry(&mut self, keyspace: KeyspaceId, unix_ms: Option<u64>) {
        match unix_ms {
            Some(at) => self.expires_at.insert(keyspace, at),
            None => self.expires_at.remove(&keyspace),
        };
    }

    /// When the first table will be past its age; `u64::MAX` if none will.
    pub(super) fn first_expiry_unix_ms(&self) -> u64 {
        self.expires_at.values().min().copied().unwrap_or(u64::MAX)
    }

    /// Lets the keyspaces be looked at whose time has come, and returns which have rested now. Looks at the clocks only if there
    /// is a time to compare.
    pub(super) fn look_at_what_is_due(&mut self, clock: &dyn Clock) -> Vec<KeyspaceId> {
        let mut rested = Vec::new();
        if !self.rested_at.is_empty() {
            let now = clock.monotonic();
            rested.extend(self.rested_at.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id));
            self.look_beside_others.extend(&rested);
            self.rested_at.retain(|_, at| *at > now);
            self.was_busy |= !self.look_beside_others.is_empty();
        }
        if !self.expires_at.is_empty() {
            let now = unix_ms(clock);
            let expired = self.expires_at.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id);
            self.look_for_compaction.extend(expired);
            self.expires_at.retain(|_, at| *at > now);
            self.was_busy |= !self.look_for_compaction.is_empty();
        }
        rested
    }

    /// The next keyspace to look at for a compaction, and why.
    pub(super) fn next_compaction(&self) -> Option<(KeyspaceId, Why)> {
        let may_compact = |id: &&KeyspaceId| self.may_run(Task::Compaction(**id));
        let next = |looks, why| {
            let id: Option<&KeyspaceId> = in_turn(looks, self.compacted_last).find(may_compact);
            id.map(|id| (*id, why))
        };
        let beside = || next(&self.look_beside_others, Why::Rested);
        let due = next(&self.look_for_compaction, Why::Due).or_else(|| next(&self.look_when_idle, Why::AllIdle));
        // What limits demand first, then what idleness allows; but now and then that too, where something is always due.
        if self.begun_before_beside >= BESIDE_AFTER_JOBS { beside().or(due) } else { due.or_else(beside) }
    }

    /// Flushes and compactions that run now, and workers that help.
    pub(crate) fn running(&self) -> usize {
        self.flushing.len() + self.compactions_running + self.helping
    }

    /// Workers that compact now: those that lead, and those that help.
    pub(super) fn workers_compacting(&self) -> usize {
        self.compactions_running - self.led_by_callers + self.helping
    }

    /// Whether nothing waits to be looked at and nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running() == 0
            && !self.is_unsettled
            && self.look_for_operation.is_empty()
            && self.look_for_flush.is_empty()
            && self.look_for_compaction.is_empty()
            && self.look_when_idle.is_empty()
            && self.look_beside_others.is_empty()
    }
}

/// The keyspaces behind `last`, and then those up to it.
pub(super) fn in_turn(keyspaces: &BTreeSet<KeyspaceId>, last: Option<KeyspaceId>) -> impl Iterator<Item = &KeyspaceId> {
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let behind = keyspaces.range((after, Bound::Unbounded));
    behind.chain(last.into_iter().flat_map(|last| keyspaces.range(..=last)))
}

#[cfg(test)]
mod tests {
    use file_system::Simulation;

    use super::*;

    /// P9: who waits for idleness is told when what time has made due turns out to be nothing.
    #[test]
    fn what_time_makes_due_counts_as_busy() {
        let simulation = Simulation::new(1);
        let due: [fn(&mut Jobs); 2] = [
            |jobs| _ = jobs.rested_at.insert(KeyspaceId(1), Duration::ZERO),
            |jobs| jobs.set_expiry(KeyspaceId(1), Some(1)),
        ];
        for make_due in due {
            let mut jobs = Jobs::default();
            jobs.look_at_what_is_due(&*simulation.clock);
            assert!(jobs.is_idle() && !jobs.was_busy);
            make_due(&mut jobs);
            jobs.look_at_what_is_due(&*simulation.clock);
            assert!(!jobs.is_idle() && jobs.was_busy);
        }
    }
}
