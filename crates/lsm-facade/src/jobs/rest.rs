//! What there is to do when nothing is due: where nobody writes, keyspaces are flushed and brought to one run.
//!
//! ```text
//!   no seal for `idle_after` ─▶ flush what is sealed ─▶ compact to one run
//!   ├ whole database: look_when_idle, at once
//!   └ one keyspace:   rested_at, then look_beside_others, after what is due elsewhere
//! ```
//!
//! 1. A look at a keyspace that finds nothing due notes when it will have rested, if rest would lead to anything.
//! 2. A seal takes that back: whoever writes gives it more to do soon, in larger pieces.
//! 3. Once it has rested, its sealed memtables are flushed though they are not as much as a flush takes. Not the active one,
//!    which may be filled up yet and costs a read no more than a run would.
//! 4. When the flush has ended, the keyspace rests anew, and is compacted with what came of it.
//!
//! - **P9** What was asked for once is not found again, so that nobody polls where a flush fails.

use compaction::Demand;
use internal_key::KeyspaceId;

use super::queue::Jobs;
use crate::core::{Core, KeyspaceShared, SuperVersion, last_seqno};
use crate::history::Share;

impl Core {
    /// Lets every keyspace be flushed and compacted because the database is idle of which that makes anything, and returns
    /// whether there is one. Not where several runs are all there is to it, which strategies and sizes may keep for ever: it
    /// would be found again and again, and the workers never sleep.
    pub(super) fn look_when_idle(&self) -> bool {
        let mut keyspaces = self.keyspace_list();
        if self.flush_rested(keyspaces.iter().map(|keyspace| &**keyspace)) {
            return true;
        }
        keyspaces.retain(|keyspace| {
            several_runs(&keyspace.history.current_full()) || self.expired_table(keyspace, Share::WhenIdle).is_some()
        });
        let mut jobs = self.jobs.lock();
        let wants = keyspaces.iter().filter(|keyspace| self.pick_plan(&jobs, keyspace, Demand::Idle).is_some());
        let ids: Vec<KeyspaceId> = wants.map(|keyspace| keyspace.id).collect();
        jobs.was_busy |= !ids.is_empty();
        jobs.look_when_idle.extend(&ids);
        !ids.is_empty()
    }

    /// Has the keyspaces flushed among `ids`, which have rested, that have anything sealed; returns whether there is one.
    pub(super) fn flush_rested_beside_others(&self, ids: &[KeyspaceId]) -> bool {
        let keyspaces: Vec<_> = ids.iter().filter_map(|id| self.keyspace_by_id(*id)).collect();
        self.flush_rested(keyspaces.iter().map(|keyspace| &**keyspace))
    }

    fn flush_rested<'a>(&self, rested: impl Iterator<Item = &'a KeyspaceShared>) -> bool {
        // Each of them, whatever was found before.
        rested.filter(|keyspace| has_unasked_flush(keyspace) && self.flush_all_sealed(keyspace)).count() > 0
    }

    /// Has a look at a keyspace when it has rested, if idleness is told by time.
    pub(super) fn look_again_when_rested(&self, jobs: &mut Jobs, id: KeyspaceId) {
        let by_time = self.options.idle_after.filter(|idle| !idle.is_zero() && self.options.background_threads > 0);
        if let Some(idle_after) = by_time {
            jobs.rested_at.insert(id, self.environment.clock.monotonic() + idle_after);
        }
    }
}

/// Whether rest is a reason to look at a keyspace in which nothing is due.
pub(super) fn gains_by_rest(keyspace: &KeyspaceShared) -> bool {
    several_runs(&keyspace.history.current_full()) || has_unasked_flush(keyspace)
}

/// Whether idleness is a reason to compact.
fn several_runs(current: &SuperVersion) -> bool {
    current.version().runs_newest_first().nth(1).is_some()
}

/// Whether there are sealed memtables whose flush nobody has asked for.
fn has_unasked_flush(keyspace: &KeyspaceShared) -> bool {
    if planted_faults::planted("facade-rest-leaves-sealed-memtables") {
        return false;
    }
    keyspace.history.current().sealed().iter().filter_map(last_seqno).any(|last| !keyspace.flush_asked.covers(last))
}
