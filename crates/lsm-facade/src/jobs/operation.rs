//! Clears and drops that stand in the log alone: their manifest edits, brought up by the background (P12).

use internal_key::SeqNo;

use super::TaskError;
use super::queue::Task;
use crate::Error;
use crate::core::{Core, KeyspaceShared};

impl Core {
    /// P12: the manifest edit of a clear or drop that came as far as the log.
    pub(super) fn finish_next_operation(&self) -> Result<bool, TaskError> {
        loop {
            let due = {
                let jobs = self.jobs.lock();
                jobs.look_for_operation.iter().copied().find(|id| jobs.may_run(Task::Operation(*id)))
            };
            let Some(id) = due else { return Ok(false) };
            let task = Task::Operation(id);
            // Looks are added and taken under this lock, and each is there until its edit is durable: so whoever waits for
            // idleness waits for it, and of two who find it the second finds nothing left.
            let _one_at_a_time = self.membership.lock();
            let unfinished =
                self.keyspace_by_id(id).and_then(|it| it.unfinished_operation(SeqNo::MAX).map(|at| (it, at)));
            // Otherwise a flush, another clear or a new keyspace of its name has taken it along.
            if let Some((keyspace, at)) = &unfinished {
                self.finish_operation(keyspace, *at).map_err(|error| (task, error))?;
            }
            let mut jobs = self.jobs.lock();
            jobs.look_for_operation.remove(&id);
            jobs.no_longer_fails(task);
            if unfinished.is_some() {
                return Ok(true);
            }
        }
    }

    /// A clear or drop stands in the log and could not be brought into the manifest: the background will. `membership` is
    /// held.
    pub(crate) fn operation_unfinished(&self, keyspace: &KeyspaceShared, error: Error) {
        tracing::warn!(%error, keyspace = keyspace.name, "a clear or drop stands in the log alone for now");
        let mut jobs = self.jobs.lock();
        jobs.failed.insert(Task::Operation(keyspace.id), error);
        // At the next occasion, not at once.
        jobs.hold_back(Task::Operation(keyspace.id));
        jobs.look_for_operation.insert(keyspace.id);
        jobs.was_busy = true;
    }
}
