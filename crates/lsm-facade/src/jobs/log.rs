//! What the background does for the log: keeps it ahead of its writers, and from growing without end.
//!
//! - **L1** Pages are populated, the next segment is ready, full segments are synced.
//! - **L5** While the log is longer than its limit, all keyspaces are flushed that keep what lies beyond it.
//! - **P10** At twice the limit writers wait until that has made it shorter.

use std::sync::atomic::Ordering;

use compaction::{Limits, Load, Pace};
use manifest::{Change, Edit};

use super::TaskError;
use super::claim::{PreparingClaim, SyncingClaim};
use super::queue::Task;
use crate::Result;
use crate::core::{Core, EditError, KeyspaceShared, PACE_FREE, PACE_QUEUE, PACE_WAIT};

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

    /// L5: while the log is longer than its limit, seals what keeps that of it which is too much, so that it can be flushed.
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

    /// L5: whether this keyspace keeps a segment without which the log would be within its limit.
    pub(super) fn pins_too_much_log(&self, keyspace: &KeyspaceShared) -> bool {
        let Some(pipeline) = &self.pipeline else { return false };
        let log = pipeline.journal();
        let may_stay = log.first_segment_within(self.options.log_bytes_max);
        keyspace.oldest_unflushed(&[]).is_some_and(|oldest| log.floor_for(oldest).id < may_stay.id)
    }

    /// L5: while the log is longer than its limit, has the manifest say that segments are needed no more of which no flush has
    /// said it: it was a clear or a drop that did away with what they held.
    pub(super) fn raise_log_floor(&self) -> Result<bool, TaskError> {
        let Some(pipeline) = &self.pipeline else { return Ok(false) };
        let log = pipeline.journal();
        {
            let jobs = self.jobs.lock();
            // L4: no edit before what was replayed is flushed, which moves the floor itself.
            if log.total_bytes() <= self.options.log_bytes_max || jobs.is_unsettled || !jobs.may_run(Task::Manifest) {
                return Ok(false);
            }
        }
        let first = log.first_segment();
        let changes = self.log_progress(&[]);
        let rises = |change: &Change| matches!(change, Change::RaiseLogFloor(floor) if floor.segment > first.id);
        if !changes.iter().any(rises) || planted_faults::planted("facade-log-floor-raised-by-flushes-alone") {
            return Ok(false);
        }
        match self.commit_edit(Edit { changes }) {
            Ok(manifest) => {
                self.after_edit(&manifest);
                Ok(self.job_succeeded(Task::Manifest))
            }
            Err(EditError::Refused(_)) => Ok(false),
            Err(error) => Err((Task::Manifest, self.edit_failed(error))),
        }
    }

    /// Where the length of the log slows writers down, and stops them: the limit leaves as much room again for what is written
    /// while flushes make it shorter.
    fn log_limits(&self) -> Limits {
        let none = Limits { l0_runs: 0, sealed_bytes: 0, pending_bytes: 0, memory_bytes: 0, ..Limits::default() };
        Limits { log_bytes: self.options.log_bytes_max.saturating_mul(2), ..none }
    }

    /// P10: what the length of the log asks of writers. To be called whenever it has grown by a segment or lost one.
    pub(crate) fn update_log_pace(&self) {
        let Some(pipeline) = &self.pipeline else { return };
        let log = pipeline.journal();
        loop {
            let log_bytes = log.total_bytes();
            let load = Load { log_bytes, ..Load::default() };
            // Per KiB; each writer scales it by what it writes.
            let pace = match compaction::pace::pace(&self.log_limits(), &load, 1024) {
                Pace::Wait(_) => PACE_WAIT,
                Pace::Proceed => PACE_FREE,
                Pace::Delay(delay, _) => (delay.as_nanos() as u64).clamp(1, PACE_QUEUE - 1),
            };
            // AcqRel: as in `update_pace`.
            let before = self.log_pace.swap(pace, Ordering::AcqRel);
            if before == PACE_WAIT && pace != PACE_WAIT {
                // P9: it may have become shorter by an edit that was no job's.
                self.notify();
            }
            if log.total_bytes() == log_bytes {
                return;
            }
        }
    }

    /// Whether the log is shorter than where writers wait (P10).
    pub(crate) fn has_log_room(&self) -> bool {
        let bytes = self.pipeline.as_ref().map_or(0, |pipeline| pipeline.journal().total_bytes());
        bytes < self.log_limits().log_bytes
    }
}
