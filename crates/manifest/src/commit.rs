//! The manifest on disk and how it changes: one commit point, one committer, any number of callers.
//!
//! ```text
//!  commit(edit) ─┐                     ┌ every waiting edit is applied or refused on its own
//!  commit(edit) ─┼─▶ queue ─▶ leader ──┤ changed level files   temporary → sync → rename → sync directories
//!  commit(edit) ─┘   others sleep      │ global.json           temporary → sync → rename ═ the commit point
//!                                      │                                         → sync directory
//!                                      └ publish the value, answer everyone      (replaced files: collect_obsolete)
//!
//!  past the size where that costs too much (M3):  line ─▶ edit file ─▶ sync ═ the commit point ─▶ publish
//! ```
//!
//! - **M1** The order above. A crash between any two steps leaves exactly the old or exactly the new state.
//! - **M2** Nothing is removed before this process has made the state durable anew.
//! - **M3** An edit costs at most 1 % of its job's bytes or 4 KiB; where JSON files would cost more, an edit file takes
//!   the edits. It is folded into JSON files when it is three quarters full, beside the passes ([`fold`](crate::fold)), or
//!   by a pass if nobody came to do that before it was full. Then the cost is that of the lines and, spread over them, of
//!   folding. A clean close folds too: from then on one checksum vouches for everything.
//! - **M5** The value is behind an atomic pointer; readers take no lock.
//! - **M7** From the rename (or the store of a line) until the last sync has succeeded the outcome is unknown. If that
//!   sync fails the store is failed for good and removes nothing any more.

use std::collections::HashMap;
use std::sync::Arc;

use lock_meter::wait;

use crate::store::{Disk, StepError};
use crate::{Change, CommitError, Edit, FailureCause, Manifest, ManifestStore, OpenMode, load};

/// What commits have cost since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitMetrics {
    /// Passes that reached their commit point.
    pub passes: u64,
    /// Edits committed by them.
    pub edits: u64,
    /// Edits refused.
    pub refused: u64,
    /// Passes abandoned with a certain error.
    pub abandoned: u64,
    /// Passes that appended a line to the edit file.
    pub lines: u64,
    /// Edit files begun.
    pub edit_files: u64,
    /// Edit files folded into JSON files, by a pass or beside the passes.
    pub folds: u64,
    /// Those that were folded beside the passes.
    pub folds_beside: u64,
    /// What all passes and folds cost, abandoned ones included.
    pub total: PassCost,
    /// What the latest pass cost.
    pub last: PassCost,
}

/// What one pass cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassCost {
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Bytes written to files.
    pub bytes: u64,
}

/// Who waits, who leads, what was answered.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Vec<(u64, Request)>,
    answers: HashMap<u64, Result<Arc<Manifest>, CommitError>>,
    next_ticket: u64,
    leading: bool,
    pub(crate) failed: Option<Arc<FailureCause>>,
}

pub(crate) enum Request {
    Edit(Edit),
    Anew,
}

impl ManifestStore {
    /// Commits `edit` and returns the manifest that holds it (and whatever was committed with it).
    ///
    /// Sleeps while another thread's pass runs; then one of the waiting threads commits for all of them. When this
    /// returns, the edit is durable and [`current`](Self::current) shows it.
    ///
    /// # Errors
    /// - [`CommitError::Refused`]: the edit does not fit the manifest it met.
    /// - [`CommitError::Certain`]: nothing changed; the edit may be retried.
    /// - [`CommitError::Uncertain`]: the old or the new state is on disk; the store is failed (M7).
    /// - [`CommitError::Failed`]: the store was failed before.
    pub fn commit(&self, edit: Edit) -> Result<Arc<Manifest>, CommitError> {
        self.submit(Request::Edit(edit))
    }

    /// Commits the current state again, so that it is durable whatever the process before saw of it (M2), and folds an
    /// edit file into JSON files.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), except that it is never refused.
    pub fn commit_anew(&self) -> Result<Arc<Manifest>, CommitError> {
        self.submit(Request::Anew)
    }

    /// How many commits wait for the pass that runs now.
    #[doc(hidden)]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Queues `request` and waits until somebody, perhaps this thread, has answered it.
    pub(crate) fn submit(&self, request: Request) -> Result<Arc<Manifest>, CommitError> {
        if self.mode == OpenMode::ReadOnly {
            return Err(CommitError::ReadOnly);
        }
        let mut queue = self.queue.lock();
        if let Some(cause) = &queue.failed {
            return Err(CommitError::Failed(Arc::clone(cause)));
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push((ticket, request));
        loop {
            if let Some(answer) = queue.answers.remove(&ticket) {
                return answer;
            }
            if queue.leading {
                queue = wait(&self.answered, queue);
                continue;
            }
            queue.leading = true;
            let group = std::mem::take(&mut queue.waiting);
            drop(queue);
            let mut lead = Lead { store: self, tickets: group.iter().map(|(ticket, _)| *ticket).collect() };
            let answers = self.pass(group);
            lead.tickets.clear();
            queue = self.queue.lock();
            queue.answers.extend(answers);
            drop(lead_ended(lead, &mut queue));
        }
    }

    /// Commits what fits of `group` in one go.
    fn pass(&self, group: Vec<(u64, Request)>) -> Vec<(u64, Result<Arc<Manifest>, CommitError>)> {
        let mut disk = self.disk();
        // M7: a fold may have failed the store while this waited for `disk`, and then nobody knows which file is named.
        if let Some(cause) =
            self.failed().filter(|_| !planted_faults::planted("manifest-pass-goes-on-after-a-fold-failed"))
        {
            let failed = |(ticket, _)| (ticket, Err(CommitError::Failed(Arc::clone(&cause))));
            return group.into_iter().map(failed).collect();
        }
        let mut working = self.current();
        let mut answers = Vec::with_capacity(group.len());
        let mut accepted = Vec::with_capacity(group.len());
        let mut edits: Vec<&Edit> = Vec::with_capacity(group.len());
        let mut anew = false;
        let mut refused = 0;
        for (ticket, request) in &group {
            match request {
                Request::Anew => {
                    anew = true;
                    Arc::make_mut(&mut working).closed_cleanly = false;
                    accepted.push(*ticket);
                }
                Request::Edit(edit) => match working.apply(edit) {
                    Ok(next) => {
                        working = Arc::new(next);
                        accepted.push(*ticket);
                        edits.push(edit);
                    }
                    Err(refusal) => {
                        refused += 1;
                        answers.push((*ticket, Err(CommitError::Refused(refusal))));
                    }
                },
            }
        }
        let mut cost = PassCost::default();
        let committed = match accepted.is_empty() {
            true => Ok(()),
            false => self.write(&mut disk, Arc::unwrap_or_clone(working), &edits, anew, &mut cost),
        };
        let answer = match committed {
            Ok(()) => Ok(self.current()),
            Err(StepError::Certain(error)) => {
                tracing::warn!(%error, "manifest commit abandoned");
                Err(CommitError::Certain(Arc::new(error)))
            }
            Err(StepError::Uncertain(error)) => {
                tracing::error!(%error, "manifest commit outcome unknown: no more commits");
                let error = Arc::new(error);
                // Before the answers: who is answered `Uncertain` finds the store failed.
                self.queue.lock().failed = Some(Arc::new(FailureCause::Uncertain(Arc::clone(&error))));
                Err(CommitError::Uncertain(error))
            }
        };
        let mut metrics = self.metrics.lock();
        metrics.refused += refused;
        if !accepted.is_empty() {
            metrics.total.syncs += cost.syncs;
            metrics.total.bytes += cost.bytes;
            metrics.last = cost;
            match answer {
                Ok(_) => {
                    metrics.passes += 1;
                    metrics.edits += edits.len() as u64;
                }
                Err(_) => metrics.abandoned += 1,
            }
        }
        drop(metrics);
        answers.extend(accepted.into_iter().map(|ticket| (ticket, answer.clone())));
        answers
    }

    /// Makes `working` durable, as a line or as JSON files, whichever M3 asks for, and publishes it.
    fn write(
        &self,
        disk: &mut Disk,
        working: Manifest,
        edits: &[&Edit],
        anew: bool,
        cost: &mut PassCost,
    ) -> Result<(), StepError> {
        // Damage at the end of an edit file looks like a torn line, so that one that nobody will append to any more
        // is not left behind.
        if anew || working.closed_cleanly {
            return self.write_json(disk, working, cost);
        }
        let is_anothers = disk.edits.as_ref().is_some_and(|edits| edits.log.is_none());
        if is_anothers {
            let changed = load::changed_levels(&disk.base, &working).len();
            if changed <= self.options.levels_folded_at_once_max || !self.take_over_edit_file(disk, cost)? {
                return self.write_json(disk, working, cost);
            }
        }
        if disk.edits.is_none() {
            let budget: u64 = edits.iter().map(|edit| self.budget(edit)).sum();
            if self.json_cost(disk, &working) <= budget {
                return self.write_json(disk, working, cost);
            }
            self.begin_edit_file(disk, cost)?;
        }
        self.append_line(disk, working, edits, cost)
    }

    /// What an edit may cost (M3).
    fn budget(&self, edit: &Edit) -> u64 {
        let job_bytes: u64 = edit
            .changes
            .iter()
            .map(|change| match change {
                Change::ReplaceTables { added, .. } => added.iter().map(|added| added.table.bytes).sum(),
                _ => 0_u64,
            })
            .fold(0, u64::saturating_add);
        (job_bytes / self.options.job_bytes_divisor.max(1)).max(self.options.edit_bytes_free)
    }

    /// About what writing `working` as JSON files would cost: from the lengths of what it replaces, not by encoding.
    fn json_cost(&self, disk: &Disk, working: &Manifest) -> u64 {
        let levels = load::changed_levels(&disk.base, working);
        let levels = levels.into_iter().map(|(keyspace, level)| {
            let tables: usize = working.keyspaces[&keyspace].levels[level.index()]
                .runs
                .iter()
                .map(|run| {
                    run.tables.iter().map(|table| 300 + table.min_key.len() + table.max_key.len()).sum::<usize>()
                })
                .sum();
            tables as u64
        });
        disk.global_bytes + levels.sum::<u64>()
    }
}

/// Answers a group whose leader died, so that nobody waits for ever.
struct Lead<'a> {
    store: &'a ManifestStore,
    /// Whom the leader has not answered.
    tickets: Vec<u64>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.tickets.is_empty() {
            let cause = Arc::new(FailureCause::Panicked);
            let mut queue = self.store.queue.lock();
            queue.failed.get_or_insert_with(|| Arc::clone(&cause));
            for ticket in self.tickets.drain(..) {
                queue.answers.insert(ticket, Err(CommitError::Failed(Arc::clone(&cause))));
            }
            end_lead(&mut queue);
            drop(queue);
            self.store.answered.notify_all();
        }
    }
}

/// Lets the next thread lead, or, if the store is failed, answers everyone who waits.
fn end_lead(queue: &mut Queue) {
    queue.leading = false;
    if let Some(cause) = queue.failed.clone() {
        for (ticket, _) in std::mem::take(&mut queue.waiting) {
            queue.answers.insert(ticket, Err(CommitError::Failed(Arc::clone(&cause))));
        }
    }
}

/// The leader has answered its group.
fn lead_ended<'a>(lead: Lead<'a>, queue: &mut Queue) -> Lead<'a> {
    end_lead(queue);
    lead.store.answered.notify_all();
    lead
}

#[cfg(test)]
mod tests {
    use std::thread;

    use file_system::Simulation;

    use super::*;
    use crate::ManifestOptions;

    /// M7: a fold fails the store while it holds `disk` and a pass waits for it: the pass writes nothing.
    #[test]
    fn a_pass_that_waited_while_the_store_failed_writes_nothing() {
        let simulation = Simulation::new(1);
        let options = ManifestOptions::default();
        let store = ManifestStore::create(&simulation.environment(), "/db", options, &Edit::default()).unwrap();
        let disk = store.disk();
        thread::scope(|scope| {
            let commit = scope.spawn(|| store.commit(Edit::default()));
            while !store.queue.lock().leading {
                assert!(!commit.is_finished());
                thread::yield_now();
            }
            let events = simulation.files.event_count();
            store.queue.lock().failed = Some(Arc::new(FailureCause::Panicked));
            drop(disk);
            assert!(matches!(commit.join().unwrap(), Err(CommitError::Failed(_))));
            assert_eq!(simulation.files.event_count(), events);
        });
    }
}
