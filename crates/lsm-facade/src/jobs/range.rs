//! `compact_range`: everything that overlaps a range goes down to the last level, on the caller's thread.
//!
//! - **P9** Where a job of the background holds what is needed, the caller waits until the set of running jobs has changed.
//! - **C4** Cancelled between two steps or within one, it leaves what the steps before have installed, and nothing else.

use std::sync::Arc;

use compaction::{Cancel, Demand, KeyRange};
use internal_key::{JobId, SeqNo};

use super::Outcome;
use crate::control::CompactionControl;
use crate::core::{Core, KeyspaceShared};
use crate::{Error, Result};

impl Core {
    /// Compacts everything of `keyspace` that overlaps a range down to the last level, on the caller's thread, beside
    /// whatever the background does.
    ///
    /// What was written after `through` may stay where it is, so that the call ends though writing goes on.
    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        (min, max): (&[u8], Option<&[u8]>),
        through: SeqNo,
        asked: Option<&CompactionControl>,
    ) -> Result<()> {
        self.writable()?;
        self.may_wait()?;
        let range = KeyRange { min, max, rewrite_before: self.next_table_id(), through };
        loop {
            keyspace.check_alive()?;
            self.check_open()?;
            check_wanted(asked)?;
            let claimed = {
                let mut jobs = self.jobs.lock();
                if self.is_settled(&jobs, keyspace, range) {
                    break;
                }
                let claimed = self.claim_plan(&mut jobs, keyspace, Demand::Range(range), u64::MAX);
                let busy = jobs.compacting.get(&keyspace.id).cloned().unwrap_or_default();
                claimed.ok_or(busy)
            };
            match claimed {
                Ok(claim) => {
                    let bytes = claim.plan.input_bytes;
                    if let Some(asked) = asked {
                        asked.plan(compaction::pick::bytes_ahead(keyspace.history.current_full().version(), range));
                    }
                    let compacted = match self.begin_change() {
                        Ok(_changing) => self.compact_claimed(claim, Cancel::when(&self.closed), asked),
                        Err(closed) => {
                            drop(claim);
                            Err(closed)
                        }
                    };
                    if let Some(asked) = asked {
                        asked.end_step(matches!(compacted, Ok(Outcome::Done)).then_some(bytes));
                    }
                    // P9: no worker ran this job, so nobody else tells those who wait for its end.
                    self.notify();
                    compacted?;
                }
                Err(busy) if busy.is_empty() => break,
                // A running job holds what is needed: wait until the set of running jobs has changed.
                Err(busy) => {
                    let held: Vec<JobId> = busy.jobs().map(|(job, _)| job).collect();
                    self.wait_for_jobs(Some(keyspace.id), |jobs| {
                        let now = jobs.compacting.get(&keyspace.id);
                        let has_changed =
                            !held.iter().all(|id| now.is_some_and(|busy| busy.jobs().any(|(job, _)| job == *id)));
                        has_changed || is_cancelled(asked)
                    })?;
                }
            }
        }
        if let Some(asked) = asked {
            asked.end();
        }
        Ok(())
    }
}

pub(crate) fn is_cancelled(asked: Option<&CompactionControl>) -> bool {
    asked.is_some_and(CompactionControl::is_cancelled)
}

/// Whether who asked for a compaction still wants it.
pub(crate) fn check_wanted(asked: Option<&CompactionControl>) -> Result<()> {
    if is_cancelled(asked) { Err(Error::Cancelled) } else { Ok(()) }
}
