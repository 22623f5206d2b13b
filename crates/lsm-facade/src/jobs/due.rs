//! Since when a job could have begun: what its time in the queue is counted from.
//!
//! ```text
//!   seal, request, the end of a job ─▶ due, and nothing that runs is in its way ────▶ claimed
//!                                      └──────────────── queued ────────────────────┘
//! ```
//!
//! - **C1** A compaction is due when a picker finds one that limits demand; what rest, reading, age or a caller asks for
//!   counts as due when it begins.
//! - **P6** A flush is due while none of its keyspace runs: what is sealed meanwhile counts from the end of that one.
//!
//! Plans are made when they begin, so nobody can say since when one has waited. What waits is the keyspace: it is queued
//! while something of it could begin and nothing does. The queue times of its jobs therefore never overlap, and their sum
//! is how long it had work for another thread.

use std::collections::BTreeMap;
use std::time::Duration;

use compaction::{Busy, Demand};
use internal_key::KeyspaceId;

use super::claim::seen_by_pickers;
use super::queue::Jobs;
use crate::core::{Core, KeyspaceShared};

/// Since when keyspaces have had something that could begin, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Due(BTreeMap<KeyspaceId, Duration>);

impl Due {
    /// A look at a keyspace found that something could begin, or that nothing could.
    fn note(&mut self, keyspace: KeyspaceId, is_due: bool, now: Duration) {
        if is_due {
            self.0.entry(keyspace).or_insert(now);
        } else {
            self.forget(keyspace);
        }
    }

    /// Nothing of a keyspace can begin.
    pub(super) fn forget(&mut self, keyspace: KeyspaceId) {
        self.0.remove(&keyspace);
    }

    /// Something begins: how long it was queued. What else could begin is to be noted anew, and counts from now.
    pub(super) fn begin(&mut self, keyspace: KeyspaceId, now: Duration) -> Duration {
        self.0.remove(&keyspace).map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

impl Core {
    /// A flush of a keyspace may have become due.
    pub(crate) fn note_flush_due(&self, keyspace: &KeyspaceShared) {
        let now = self.environment.clock.monotonic();
        let is_due = !self.parts_due(keyspace).is_empty();
        let mut jobs = self.jobs.lock();
        if !jobs.flushing.contains(&keyspace.id) {
            jobs.flush_due.note(keyspace.id, is_due, now);
        }
    }

    /// A compaction of a keyspace may have become due.
    pub(crate) fn note_compaction_due(&self, keyspace: &KeyspaceShared) {
        let now = self.environment.clock.monotonic();
        self.note_compaction_due_in(&mut self.jobs.lock(), keyspace, now);
    }

    /// [`note_compaction_due`](Self::note_compaction_due) by who holds the jobs.
    pub(super) fn note_compaction_due_in(&self, jobs: &mut Jobs, keyspace: &KeyspaceShared, now: Duration) {
        let (nothing, current) = (Busy::default(), keyspace.history.current_full());
        let busy = jobs.compacting.get(&keyspace.id).unwrap_or(&nothing);
        let options = keyspace.options.compaction();
        let is_due = compaction::pick::pick(&seen_by_pickers(&current, busy, &options, Demand::Steady)).is_some();
        jobs.compaction_due.note(keyspace.id, is_due, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due stays due since when it was, and what is left once something has begun counts from there.
    #[test]
    fn queue_times_of_a_keyspace_do_not_overlap() {
        let (mut due, keyspace) = (Due::default(), KeyspaceId(1));
        let at = Duration::from_secs;
        due.note(keyspace, true, at(10));
        due.note(keyspace, true, at(12));
        due.note(KeyspaceId(2), true, at(13));
        assert_eq!(due.begin(keyspace, at(15)), at(5));
        due.note(keyspace, true, at(15));
        assert_eq!(due.begin(keyspace, at(18)), at(3));
        assert_eq!(due.begin(keyspace, at(20)), at(0), "nobody knew of it");
        due.note(keyspace, true, at(21));
        due.note(keyspace, false, at(22));
        assert_eq!(due.begin(keyspace, at(30)), at(0), "it was due no longer");
        assert_eq!(due.begin(KeyspaceId(2), at(30)), at(17));
    }
}
