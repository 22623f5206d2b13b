//! What the background does for the log: keeps it ahead of its writers, and from growing without end.
//!
//! - **L1** Pages are populated, the next segment is ready, full segments are synced.
//! - **L5** While the log is larger than its limit, the keyspace that keeps its oldest segment is flushed.

use super::claim::{PreparingClaim, SyncingClaim};
use super::queue::Task;
use crate::Result;
use crate::core::{Core, KeyspaceShared};

impl Core {
    /// Keeps the log ahead of its writers (L1): pages populated, the next segment ready, full segments synced.
    pub(super) fn prepare_log(&self) -> Result<bool> {
        let Some(pipeline) = &self.pipeline else { return Ok(false) };
        let log = pipeline.journal();
        let wanted = pipeline.with_tail(|tail| tail.wants_populate().then(|| tail.next_end())).flatten();
        if let Some(position) = wanted {
            log.populate_ahead(position);
        }
        // Before the sync of the full ones, which may take as long as the writers need to fill the next.
        let prepared = self.prepare_segment();
        let synced = self.sync_full_segments()?;
        Ok(prepared? || synced)
    }

    fn sync_full_segments(&self) -> Result<bool> {
        let Some(pipeline) = &self.pipeline else { return Ok(false) };
        let log = pipeline.journal();
        let before = log.durable();
        let logged = pipeline.logged();
        // Whoever came second would only wait for the first.
        if before.segment >= logged.segment || std::mem::replace(&mut self.jobs.lock().syncing_segments, true) {
            return Ok(false);
        }
        let _claim = SyncingClaim(self);
        log.sync_sealed(logged)?;
        Ok(log.durable() > before)
    }

    fn prepare_segment(&self) -> Result<bool> {
        let Some(pipeline) = &self.pipeline else { return Ok(false) };
        let log = pipeline.journal();
        let is_wanted = || pipeline.with_tail(|tail| log.wants_segment(tail)).unwrap_or(false);
        {
            let mut jobs = self.jobs.lock();
            if !is_wanted() {
                // A writer that was in need of it may have made it.
                jobs.no_longer_fails(Task::Log);
                return Ok(false);
            }
            if std::mem::replace(&mut jobs.preparing_segment, true) {
                return Ok(false);
            }
        }
        let _claim = PreparingClaim(self);
        self.guarded(|| Ok(log.prepare_segment()?))?;
        Ok(self.job_succeeded(Task::Log))
    }

    /// L5: while the log is larger than its limit, seals what keeps its oldest segment, so that it can be flushed.
    pub(super) fn relieve_log(&self) {
        let Some(pipeline) = &self.pipeline else { return };
        if pipeline.journal().total_bytes() <= self.options.log_bytes_max {
            return;
        }
        for keyspace in self.keyspace_list() {
            if !self.pins_too_much_log(&keyspace) {
                continue;
            }
            if keyspace.history.current().sealed().is_empty() && pipeline.with_order(|_| keyspace.seal_in_order()) {
                keyspace.refill_spare();
            }
            self.note_flush_due(&keyspace);
            self.jobs.lock().wants_look(keyspace.id);
        }
    }

    /// L5: whether the log has outgrown its limit and this keyspace keeps its oldest segment.
    pub(super) fn pins_too_much_log(&self, keyspace: &KeyspaceShared) -> bool {
        let Some(pipeline) = &self.pipeline else { return false };
        let log = pipeline.journal();
        log.total_bytes() > self.options.log_bytes_max
            && keyspace.oldest_unflushed(&[]).is_some_and(|oldest| log.floor_for(oldest) == log.first_segment())
    }
}
