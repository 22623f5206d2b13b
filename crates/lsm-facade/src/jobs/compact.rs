//! Compactions: how a claimed plan is carried out and installed.
//!
//! ```text
//!   pick ─▶ floor and snapshots in one step (R3) ─▶ merge ─▶ edit (M1, C4) ─▶ super version
//! ```
//!
//! - **C4** A plan is installed by one edit; one that fails leaves everything as it was.
//! - **R5** A table that only moves keeps its handle.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use compaction::{Cancel, Demand, Plan, PlanKind};
use internal_key::{JobId, KeyspaceId};
use manifest::{Change, Edit};

use super::claim::CompactionClaim;
use super::edit::ending;
use super::queue::{Task, in_turn};
use super::{Outcome, TaskError};
use crate::Result;
use crate::control::CompactionControl;
use crate::core::{Core, KeyspaceShared, SuperVersion, Table};
use crate::events::{Event, Work};

impl Core {
    pub(super) fn compact_next(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        loop {
            let claim = {
                let mut jobs = self.jobs.lock();
                if jobs.compactions_running + jobs.helping >= self.compactions_max() {
                    return Ok(false);
                }
                let may_compact = |id: &&KeyspaceId| jobs.may_run(Task::Compaction(**id));
                // What limits demand first, then what idleness allows.
                let due = in_turn(&jobs.look_for_compaction, jobs.compacted_last).find(may_compact).copied();
                let idle = || in_turn(&jobs.look_when_idle, jobs.compacted_last).find(may_compact).copied();
                let due = due.map(|id| (id, Demand::Steady)).or_else(|| Some((idle()?, Demand::Idle)));
                let Some((id, demand)) = due else { return Ok(false) };
                jobs.compacted_last = Some(id);
                let keyspace = self.keyspace_by_id(id);
                let claim = keyspace.and_then(|keyspace| self.claim_plan(&mut jobs, &keyspace, demand));
                let Some(claim) = claim else {
                    match demand {
                        Demand::Idle => jobs.look_when_idle.remove(&id),
                        _ => jobs.look_for_compaction.remove(&id),
                    };
                    jobs.no_longer_fails(Task::Compaction(id));
                    continue;
                };
                claim
            };
            let task = Task::Compaction(claim.keyspace.id);
            self.compact_claimed(claim, Cancel::when(cancel), None).map_err(|error| (task, error))?;
            return Ok(self.job_succeeded(task));
        }
    }

    /// Carries a claimed plan out, installs it and gives the claim back.
    pub(super) fn compact_claimed(
        &self,
        claim: CompactionClaim<'_>,
        cancel: Cancel<'_>,
        asked: Option<&CompactionControl>,
    ) -> Result<Outcome> {
        let keyspace = Arc::clone(&claim.keyspace);
        let (job, name, plan) = (claim.job, &*keyspace.name, claim.plan.clone());
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
        drop(claim);
        self.update_pace(&keyspace);
        self.counters.worked(plan.output_level, &work, took);
        let ending = ending(&outcome);
        self.tell(&Event::CompactionEnded { job: job.get(), keyspace: name, plan: &plan, ending, work, took });
        outcome
    }

    fn compact(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        (job, plan): (JobId, &Plan),
        work: &mut Work,
        (cancel, asked): (Cancel<'_>, Option<&CompactionControl>),
    ) -> Result<Outcome> {
        let began = self.environment.clock.monotonic();
        tracing::info!(%job, keyspace = keyspace.name, %plan, "compaction begins");
        let current = keyspace.history.current_full();
        let inputs = plan_tables(&current, plan);
        if inputs.len() != plan.inputs.len() {
            // A clear came since the plan was made.
            return Ok(Outcome::Abandoned);
        }
        let outputs = match plan.kind {
            PlanKind::Merge => {
                let merged = self.merge_tables(keyspace, &current, (job, plan), &inputs, (cancel, asked))?;
                *work = Work {
                    read_bytes: plan.input_bytes,
                    written_bytes: merged.outputs.bytes(),
                    tables: merged.outputs.tables.len() as u64,
                    parts: merged.parts,
                    helped: merged.helped,
                    entries: merged.outputs.collected,
                };
                merged.outputs.tables
            }
            _ => Vec::new(),
        };
        let change = plan.change(keyspace.id, current.version(), &outputs);
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
        let moved = |id| inputs.iter().find(|table| table.id() == id).cloned();
        let placed = places.into_iter().map(|place| (place.clone(), moved(place.table.id))).collect();
        let added = self.with_handles(keyspace, placed);
        self.make_ready(&added, job, &|| cancel.is_set());
        if let Err(refusal) = keyspace.history.install(|current| current.replace_tables(&removed, &added)) {
            tracing::info!(%job, keyspace = keyspace.name, %refusal, "compaction installed in the manifest alone");
        }
        self.after_edit(&manifest);
        let made = added.iter().map(|(place, _)| place).filter(|_| plan.kind == PlanKind::Merge);
        self.tell_edit(job, made, added.len(), removed.len());
        let bytes: u64 = outputs.iter().map(|entry| entry.bytes).sum();
        self.counters.compacted(plan.output_level, plan.input_bytes, bytes);
        let took = self.environment.clock.monotonic().saturating_sub(began);
        tracing::info!(%job, keyspace = keyspace.name, tables = outputs.len(), bytes, ?took, "compaction ends");
        Ok(Outcome::Done)
    }
}

/// The tables that a plan names, in the version at hand.
fn plan_tables(current: &SuperVersion, plan: &Plan) -> Vec<Arc<Table>> {
    let named = |level, id| plan.inputs.contains(&(level, id));
    current.version().tables().filter(|(level, table)| named(*level, table.id())).map(|(_, t)| Arc::clone(t)).collect()
}
