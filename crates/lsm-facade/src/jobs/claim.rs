//! What a job has for itself while it runs: a keyspace's flushes, the inputs and room of a plan, the next segment.
//!
//! - **P6** One flush of a keyspace runs at a time.
//! - **P9** Whatever becomes of a job, its claim is given back: by a guard, so also if it panics.
//! - **C3** A plan is picked and claimed in one step, so that no two that overlap run.

use std::sync::Arc;
use std::time::Duration;

use compaction::{Busy, CompactionOptions, Demand, KeyRange, PickInput, Plan};
use internal_key::{JobId, KeyspaceId};

use super::queue::{Jobs, Task, in_turn};
use crate::core::{Core, KeyspaceShared, SuperVersion};
use crate::history::Share;
use crate::reads::TableState;

/// A keyspace marked as flushing (P6), until this is dropped.
pub(super) struct FlushClaim<'a> {
    pub(super) core: &'a Core,
    pub(super) keyspace: Arc<KeyspaceShared>,
    /// How long it had been due.
    pub(super) queued: Duration,
    /// Whether a flush was tried, after which another may be due.
    pub(super) tried: bool,
}

impl Drop for FlushClaim<'_> {
    fn drop(&mut self) {
        let mut jobs = self.core.jobs.lock();
        jobs.flushing.remove(&self.keyspace.id);
        if self.tried {
            jobs.wants_look(self.keyspace.id);
        }
    }
}

/// A plan whose inputs and room are claimed, until this is dropped. Not under the jobs' lock.
pub(super) struct CompactionClaim<'a> {
    pub(super) core: &'a Core,
    pub(super) keyspace: Arc<KeyspaceShared>,
    pub(super) plan: Plan,
    pub(super) job: JobId,
    /// How long something of its keyspace had been due.
    pub(super) queued: Duration,
    /// Whether the caller of `compact_range` carries it out, and no worker.
    led_by_caller: bool,
}

impl Drop for CompactionClaim<'_> {
    fn drop(&mut self) {
        let mut jobs = self.core.jobs.lock();
        jobs.compactions_running -= 1;
        jobs.led_by_callers -= usize::from(self.led_by_caller);
        if let Some(busy) = jobs.compacting.get_mut(&self.keyspace.id) {
            busy.end(self.job);
            if busy.is_empty() {
                jobs.compacting.remove(&self.keyspace.id);
            }
        }
        jobs.wants_look(self.keyspace.id);
    }
}

/// The making of a segment, until this is dropped.
pub(super) struct PreparingClaim<'a>(pub(super) &'a Core);

impl Drop for PreparingClaim<'_> {
    fn drop(&mut self) {
        self.0.jobs.lock().preparing_segment = false;
    }
}

/// The sync of full segments, until this is dropped.
pub(super) struct SyncingClaim<'a>(pub(super) &'a Core);

impl Drop for SyncingClaim<'_> {
    fn drop(&mut self) {
        self.0.jobs.lock().syncing_segments = false;
    }
}

impl Core {
    /// The next keyspace that may need a flush, marked as flushing (P6).
    pub(super) fn claim_flush(&self) -> Option<FlushClaim<'_>> {
        loop {
            let (id, queued) = {
                let mut jobs = self.jobs.lock();
                let may_flush = |id: &&KeyspaceId| !jobs.flushing.contains(id) && jobs.may_run(Task::Flush(**id));
                let id = in_turn(&jobs.look_for_flush, jobs.flushed_last).find(may_flush).copied()?;
                jobs.look_for_flush.remove(&id);
                jobs.flushed_last = Some(id);
                jobs.flushing.insert(id);
                (id, jobs.flush_due.begin(id, self.environment.clock.monotonic()))
            };
            match self.keyspace_by_id(id) {
                Some(keyspace) => return Some(FlushClaim { core: self, keyspace, queued, tried: false }),
                None => {
                    let mut jobs = self.jobs.lock();
                    jobs.flushing.remove(&id);
                    jobs.no_longer_fails(Task::Flush(id));
                }
            }
        }
    }

    pub(super) fn keyspace_by_id(&self, id: KeyspaceId) -> Option<Arc<KeyspaceShared>> {
        let keyspaces = self.keyspaces.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        keyspaces.by_id.get(&id).cloned()
    }

    /// How many compactions may run at once: one thread stays free for flushes (flush before compaction).
    pub(super) fn compactions_max(&self) -> usize {
        self.options.background_threads.saturating_sub(1).max(1)
    }

    /// Picks a plan and begins it, under the lock that guards both; but none that reads more than `bytes_max`.
    pub(super) fn claim_plan(
        &self,
        jobs: &mut Jobs,
        keyspace: &Arc<KeyspaceShared>,
        demand: Demand<'_>,
        bytes_max: u64,
    ) -> Option<CompactionClaim<'_>> {
        let plan = self.pick_plan(jobs, keyspace, demand).filter(|plan| plan.input_bytes <= bytes_max)?;
        let job = self.next_job_id();
        jobs.compacting.entry(keyspace.id).or_default().begin(job, &plan);
        jobs.compactions_running += 1;
        let now = self.environment.clock.monotonic();
        let queued = match demand {
            Demand::Steady => jobs.compaction_due.begin(keyspace.id, now),
            _ => Duration::ZERO,
        };
        self.note_compaction_due_in(jobs, keyspace, now);
        let led_by_caller = matches!(demand, Demand::Range(_));
        jobs.led_by_callers += usize::from(led_by_caller);
        Some(CompactionClaim { core: self, keyspace: Arc::clone(keyspace), plan, job, queued, led_by_caller })
    }

    /// The plan that a claim would begin now.
    pub(super) fn pick_plan(&self, jobs: &Jobs, keyspace: &KeyspaceShared, demand: Demand<'_>) -> Option<Plan> {
        let current = keyspace.history.current_full();
        let reads = match demand {
            Demand::Steady if keyspace.options.merge_what_is_read && jobs.look_for_reads.contains(&keyspace.id) => {
                crate::reads::of_version(current.version())
            }
            _ => Vec::new(),
        };
        let nothing_runs = Busy::default();
        let busy = jobs.compacting.get(&keyspace.id).unwrap_or(&nothing_runs);
        let options = keyspace.options.compaction();
        let seen = seen_by_pickers(&current, busy, &options, demand);
        let input = PickInput { now_unix_ms: self.unix_ms(), reads: &reads, ..seen };
        let expired = || {
            let share = match demand {
                Demand::Steady => Share::WhenBusy,
                Demand::Idle => Share::WhenIdle,
                _ => return None,
            };
            let (level, table, expired) = self.expired_table(keyspace, share)?;
            compaction::pick::rewrite(&input, level, table, expired)
        };
        compaction::pick::pick(&input).or_else(expired)
    }

    /// Whether nothing of a range is left to compact, whatever runs elsewhere in the keyspace.
    pub(super) fn is_settled(&self, jobs: &Jobs, keyspace: &KeyspaceShared, range: KeyRange<'_>) -> bool {
        let (busy, current) = (Busy::default(), keyspace.history.current_full());
        let busy = jobs.compacting.get(&keyspace.id).unwrap_or(&busy);
        let options = keyspace.options.compaction();
        compaction::pick::is_settled(&seen_by_pickers(&current, busy, &options, Demand::Range(range)), range)
    }
}

/// What a picker looks at where neither time nor reading is a reason.
pub(super) fn seen_by_pickers<'a>(
    current: &'a SuperVersion,
    busy: &'a Busy,
    options: &'a CompactionOptions,
    demand: Demand<'a>,
) -> PickInput<'a, TableState> {
    PickInput {
        version: current.version(),
        busy,
        options,
        oldest_sealed_epoch: None,
        demand,
        now_unix_ms: 0,
        reads: &[],
    }
}
