//! `compact_range`: everything that overlaps a range goes down to the last level, on the caller's thread.
//!
//! - **P9** Where a job of the background holds what is needed, the caller waits until the set of running jobs has changed.

use std::sync::Arc;

use compaction::{Demand, KeyRange};
use internal_key::{JobId, SeqNo};

use crate::Result;
use crate::core::{Core, KeyspaceShared};

impl Core {
    /// Compacts everything of `keyspace` that overlaps a range down to the last level, on the caller's thread, beside
    /// whatever the background does.
    ///
    /// What was written after `through` may stay where it is, so that the call ends though writing goes on.
    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        min: &[u8],
        max: Option<&[u8]>,
        through: SeqNo,
    ) -> Result<()> {
        self.writable()?;
        let range = KeyRange { min, max, rewrite_before: self.next_table_id(), through };
        loop {
            keyspace.check_alive()?;
            self.check_open()?;
            let claimed = {
                let mut jobs = self.jobs.lock();
                if self.is_settled(&jobs, keyspace, range) {
                    return Ok(());
                }
                let claimed = self.claim_plan(&mut jobs, keyspace, Demand::Range(range));
                let busy = jobs.compacting.get(&keyspace.id).cloned().unwrap_or_default();
                claimed.ok_or(busy)
            };
            match claimed {
                Ok(claim) => {
                    let compacted = match self.begin_change() {
                        Ok(_changing) => self.compact_claimed(claim, &self.closed),
                        Err(closed) => {
                            drop(claim);
                            Err(closed)
                        }
                    };
                    // P9: no worker ran this job, so nobody else tells those who wait for its end.
                    self.notify();
                    compacted?;
                }
                Err(busy) if busy.is_empty() => return Ok(()),
                // A running job holds what is needed: wait until the set of running jobs has changed.
                Err(busy) => {
                    let held: Vec<JobId> = busy.jobs().map(|(job, _)| job).collect();
                    self.wait_for_jobs(Some(keyspace.id), |jobs| {
                        let now = jobs.compacting.get(&keyspace.id);
                        !held.iter().all(|id| now.is_some_and(|busy| busy.jobs().any(|(job, _)| job == *id)))
                    })?;
                }
            }
        }
    }
}
