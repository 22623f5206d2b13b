//! Compactions: how a claimed plan is carried out and installed.
//!
//! ```text
//!   pick ─▶ floor and snapshots in one step (R3) ─▶ merge ─▶ edit (M1, C4) ─▶ super version
//! ```
//!
//! - **C4** A plan is installed by one edit; one that fails leaves everything as it was.
//! - **R5** A table that only moves keeps its handle.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use compaction::{Cancel, Demand, Plan, PlanKind, Reason};
use internal_key::{JobId, KeyspaceId, Level, TableId};
use manifest::{Change, Edit};
use version_history::Version;

use super::claim::CompactionClaim;
use super::edit::ending;
use super::queue::{Jobs, Task, Why};
use super::rest::gains_by_rest;
use super::{Outcome, TaskError};
use crate::Result;
use crate::control::CompactionControl;
use crate::core::{Core, KeyspaceShared, Table};
use crate::events::{Event, Work};
use crate::reads::TableState;

/// What a job may read that nobody needs now while others may come to need its place: about two seconds of merging.
const BESIDE_OTHERS_BYTES_MAX: u64 = 256 << 20;

impl Core {
    pub(super) fn compact_next(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        let read = self.reads.take_doubled();
        let rested = {
            let mut jobs = self.jobs.lock();
            jobs.was_busy |= !read.is_empty();
            jobs.look_for_compaction.extend(&read);
            jobs.look_for_reads.extend(&read);
            let rested = jobs.look_at_what_is_due(&*self.environment.clock);
            self.store_first_expiry(&jobs);
            rested
        };
        if self.flush_rested_beside_others(&rested) {
            // Flushes come before compactions.
            return Ok(true);
        }
        loop {
            let claim = {
                let mut jobs = self.jobs.lock();
                // What callers lead takes nobody's turn: a large one of theirs would hold up every keyspace.
                if jobs.workers_compacting() >= self.compactions_max() {
                    return Ok(false);
                }
                let Some((id, why)) = jobs.next_compaction() else { return Ok(false) };
                jobs.compacted_last = Some(id);
                let (demand, bytes_max) = match why {
                    Why::Due => (Demand::Steady, u64::MAX),
                    Why::AllIdle => (Demand::Idle, u64::MAX),
                    Why::Rested => (Demand::Idle, self.beside_others_bytes_max(&jobs)),
                };
                let keyspace = self.keyspace_by_id(id);
                let claim = keyspace.as_ref().and_then(|it| self.claim_plan(&mut jobs, it, demand, bytes_max));
                let Some(claim) = claim else {
                    match why {
                        Why::Rested => {
                            jobs.look_beside_others.remove(&id);
                            let too_large = || keyspace.as_ref().and_then(|it| self.pick_plan(&jobs, it, Demand::Idle));
                            if bytes_max < u64::MAX && too_large().is_some() {
                                self.look_again_when_rested(&mut jobs, id);
                            }
                        }
                        Why::AllIdle => _ = jobs.look_when_idle.remove(&id),
                        Why::Due => {
                            jobs.look_for_compaction.remove(&id);
                            jobs.look_for_reads.remove(&id);
                            self.nothing_is_due(&mut jobs, id, keyspace.as_deref());
                        }
                    }
                    jobs.no_longer_fails(Task::Compaction(id));
                    continue;
                };
                let begun = jobs.begun_before_beside.saturating_add(1);
                jobs.begun_before_beside = if why == Why::Rested { 0 } else { begun };
                claim
            };
            let task = Task::Compaction(claim.keyspace.id);
            self.compact_claimed(claim, Cancel::when(cancel), None).map_err(|error| (task, error))?;
            return Ok(self.job_succeeded(task));
        }
    }

    /// The most input bytes of a job for a keyspace that rests while others may be busy: where it would take the last place
    /// among the compactions, no more than writers can wait for (P10).
    fn beside_others_bytes_max(&self, jobs: &Jobs) -> u64 {
        if jobs.workers_compacting() + 1 < self.compactions_max() { u64::MAX } else { BESIDE_OTHERS_BYTES_MAX }
    }

    /// A look at a keyspace has found nothing due: when will there be something, though nothing is written to it?
    fn nothing_is_due(&self, jobs: &mut Jobs, id: KeyspaceId, keyspace: Option<&KeyspaceShared>) {
        let expires_at = keyspace.and_then(|keyspace| {
            let current = keyspace.history.current_full();
            compaction::pick::expires_at_unix_ms(current.version(), &keyspace.options.compaction())
        });
        // What is past its age already is held by a job, whose end is a reason to look.
        jobs.set_expiry(id, expires_at.filter(|at| *at > self.unix_ms()));
        self.store_first_expiry(jobs);
        jobs.compaction_due.forget(id);
        if keyspace.is_some_and(gains_by_rest) && !planted_faults::planted("facade-rest-beside-others-unnoticed") {
            self.look_again_when_rested(jobs, id);
        }
    }

    /// In how long the first table will be past its age; as [`JobSource::due_after`](compaction::JobSource::due_after).
    pub(super) fn expiry_due_after(&self) -> Option<Duration> {
        /// The system's clock may be set, which no sleep notices.
        const LONGEST: u64 = 60_000;
        // Relaxed: whoever stores it is a worker that looks for jobs, and sleeps next or has run one, whose end wakes.
        let at = self.first_expiry_unix_ms.load(Ordering::Relaxed);
        let left = at.saturating_sub(self.unix_ms()).clamp(1, LONGEST);
        (at < u64::MAX).then(|| Duration::from_millis(left))
    }

    fn store_first_expiry(&self, jobs: &Jobs) {
        // Relaxed: see `expiry_due_after`.
        self.first_expiry_unix_ms.store(jobs.first_expiry_unix_ms(), Ordering::Relaxed);
    }

    /// Carries a claimed plan out, installs it and gives the claim back.
    pub(super) fn compact_claimed(
        &self,
        claim: CompactionClaim<'_>,
        cancel: Cancel<'_>,
        asked: Option<&CompactionControl>,
    ) -> Result<Outcome> {
        let keyspace = Arc::clone(&claim.keyspace);
        let (job, name, plan, queued) = (claim.job, &*keyspace.name, claim.plan.clone(), claim.queued);
        self.tell(&Event::CompactionBegun { job: job.get(), keyspace: name, plan: &plan });
        let mut work = Work::default();
        // The job looks at the clock itself; a panic of it there must not be met outside of the guard.
        let mut took = Duration::ZERO;
        let outcome = self.guarded(|| {
            let began = self.environment.clock.monotonic();
            let outcome = self.compact(&keyspace, (job, &plan), &mut work, (cancel, asked));
            took = self.environment.clock.monotonic().saturating_sub(began);
            outcome
        });
        if let Ok(Outcome::Done) = outcome {
            let Work { tables, written_bytes: bytes, .. } = work;
            tracing::info!(%job, keyspace = name, tables, bytes, ?took, "compaction ends");
        }
        drop(claim);
        self.update_pace(&keyspace);
        self.note_compaction_due(&keyspace);
        self.counters.worked(plan.output_level, &work, queued, took);
        let ending = ending(&outcome);
        self.tell(&Event::CompactionEnded { job: job.get(), keyspace: name, plan: &plan, ending, work, queued, took });
        outcome
    }

    fn compact(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        (job, plan): (JobId, &Plan),
        work: &mut Work,
        (cancel, asked): (Cancel<'_>, Option<&CompactionControl>),
    ) -> Result<Outcome> {
        tracing::info!(%job, keyspace = keyspace.name, %plan, "compaction begins");
        // Without its memtables, which a long job would keep from being freed.
        let version = Arc::clone(keyspace.history.current().version());
        let inputs = plan_tables(&version, plan);
        if inputs.len() != plan.inputs.len() {
            // A clear came since the plan was made.
            return Ok(Outcome::Abandoned);
        }
        let outputs = match plan.kind {
            PlanKind::Merge => {
                self.merge_tables(keyspace, &version, (job, plan), &inputs, work, (cancel, asked))?.tables
            }
            _ => Vec::new(),
        };
        let change = plan.change(keyspace.id, &version, &outputs);
        let Change::ReplaceTables { removed, added, .. } = &change else { unreachable!("a plan replaces tables") };
        let places = added.clone();
        let removed = removed.clone();
        let mut edit = Edit::of(change);
        edit.changes.extend(self.history_floor(keyspace));
        edit.changes.extend(self.log_progress(&[]));
        let manifest = match self.commit_edit(edit) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.abandon_tables(&error, outputs.iter().map(|entry| entry.id));
                return self.edit_abandoned(error, job);
            }
        };
        // A moved table keeps its handle: one per table and process (R5).
        let moved: HashMap<TableId, &Arc<Table>> = inputs.iter().map(|table| (table.id(), table)).collect();
        let handle = |id| moved.get(&id).map(|table| Arc::clone(table));
        let placed = places.into_iter().map(|place| (place.clone(), handle(place.table.id))).collect();
        let added = self.with_handles(keyspace, placed);
        self.make_ready(&added, job, &|| cancel.is_set());
        if let Err(refusal) = keyspace.history.install(|current| current.replace_tables(&removed, &added)) {
            tracing::info!(%job, keyspace = keyspace.name, %refusal, "compaction installed in the manifest alone");
        }
        self.note_what_snapshots_keep(keyspace, added.iter().map(|(_, table)| table));
        self.after_edit(&manifest);
        let made = added.iter().map(|(place, _)| place).filter(|_| plan.kind == PlanKind::Merge);
        self.tell_edit(job, made, added.len(), removed.len());
        if plan.kind == PlanKind::Drop {
            let entries = inputs.iter().map(|table| table.entry.entries).sum();
            match plan.reason {
                Reason::Age { .. } => work.dropped_for_age = entries,
                _ => work.dropped_for_size = entries,
            }
        }
        // Of what only moves, or goes, nothing was read.
        self.counters.compacted(plan.output_level, work.read_bytes, work.written_bytes);
        Ok(Outcome::Done)
    }
}

/// The tables that a plan names, in the version at hand.
fn plan_tables(version: &Version<TableState>, plan: &Plan) -> Vec<Arc<Table>> {
    // A set: a version may have a hundred thousand tables, and a plan ten thousand of them.
    let named: HashSet<(Level, TableId)> = plan.inputs.iter().copied().collect();
    let tables = version.tables().filter(|(level, table)| named.contains(&(*level, table.id())));
    tables.map(|(_, table)| Arc::clone(table)).collect()
}
