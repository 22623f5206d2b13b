//! What the background does for the log: keeps it ahead of its writers, and from growing without end.
//!
//! ```text
//!   a commit enters another window of the log ─┬─▶ the log's own worker: populates pages, makes the next segment
//!                                              └─▶ a worker, between two jobs: that, and syncs full segments
//! ```
//!
//! - **L1** Pages are populated, the next segment is ready, full segments are synced. A job may take as long as writers need to
//!   fill several segments, and making one takes two syncs, which nobody is to wait for: so the log has a worker of its own.
//! - **L5** While the log is longer than its limit, all keyspaces are flushed that keep what lies beyond it.
//! - **P10** At twice the limit writers wait until that has made it shorter.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};

use commit_pipeline::Pipeline;
use compaction::{JobFailure, JobSource, Limits, Load, Pace};
use manifest::{Change, Edit};
use write_ahead_log::Log;

use super::TaskError;
use super::claim::{PreparingClaim, SyncingClaim};
use super::queue::Task;
use crate::core::{Core, EditError, KeyspaceShared, PACE_FREE, PACE_QUEUE, PACE_WAIT};
use crate::{Error, Result};

/// What the log's own worker does, for its scheduler. As [`JobsOf`](super::JobsOf), this must not own the database.
pub(crate) struct LogJobsOf(pub(crate) Weak<Core>);

impl JobSource for LogJobsOf {
    fn run_next_job(&self, _cancel: &AtomicBool) -> Result<bool, JobFailure> {
        let Some(core) = self.0.upgrade() else { return Ok(false) };
        // What panics has failed the database.
        core.guarded(|| core.keep_log_ahead()).map_err(|error| {
            // P8: nobody waits for this one. The next look between jobs meets it too, and tells whom it concerns.
            core.notify_workers();
            JobFailure::new(error)
        })
    }

    fn try_failed_again(&self) -> bool {
        !planted_faults::planted("facade-log-worker-gives-up")
            && self.0.upgrade().is_some_and(|core| !core.log_has_failed() && core.wants_segment())
    }
}

impl Core {
    /// Keeps the log ahead of its writers (L1): pages populated, the next segment ready, full segments synced.
    pub(super) fn prepare_log(&self) -> Result<bool> {
        self.populate_log();
        // Before the sync of the full ones, which may take as long as the writers need to fill the next.
        let prepared = self.prepare_segment();
        let synced = self.sync_full_segments()?;
        Ok(prepared? || synced)
    }

    /// What the log's own worker does: pages and the next segment, which cannot wait for the end of a job. Returns whether it
    /// made a segment.
    fn keep_log_ahead(&self) -> Result<bool> {
        if self.log_has_failed() {
            return Ok(false);
        }
        self.populate_log();
        self.prepare_segment()
    }

    fn log_has_failed(&self) -> bool {
        self.pipeline.as_ref().is_none_or(|pipeline| pipeline.failure().is_some())
    }

    fn wants_segment(&self) -> bool {
        let wants = |pipeline: &Pipeline<Log>| pipeline.with_tail(|tail| pipeline.journal().wants_segment(tail));
        self.pipeline.as_ref().and_then(wants).unwrap_or(false)
    }

    fn populate_log(&self) {
        let Some(pipeline) = &self.pipeline else { return };
        let wanted = pipeline.with_tail(|tail| tail.wants_populate().then(|| tail.next_end())).flatten();
        if let Some(position) = wanted {
            pipeline.journal().populate_ahead(position);
        }
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
        {
            let mut jobs = self.jobs.lock();
            if !self.wants_segment() {
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
        // Not a job done since another failed: the log's own worker makes segments as fast as they are filled.
        self.jobs.lock().no_longer_fails(Task::Log);
        Ok(true)
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
            if keyspace.history.current().sealed().is_empty() {
                if !pipeline.with_order(|_| keyspace.seal_in_order())
                    && !planted_faults::planted("facade-log-relief-asks-for-nothing")
                {
                    // A clear or drop needs it, until its record is durable. A look would find no flush, and call for the next.
                    continue;
                }
                keyspace.refill_spare();
            }
            self.note_flush_due(&keyspace);
            self.jobs.lock().wants_look(keyspace.id);
        }
    }

    /// L5: whether this keyspace keeps a segment without which the log would be within its limit.
    pub(super) fn pins_too_much_log(&self, keyspace: &KeyspaceShared) -> bool {
        self.pins_log_beyond(keyspace, self.options.log_bytes_max)
    }

    fn pins_log_beyond(&self, keyspace: &KeyspaceShared, bytes: u64) -> bool {
        let Some(pipeline) = &self.pipeline else { return false };
        let log = pipeline.journal();
        let may_stay = log.first_segment_within(bytes);
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

    /// Why the log does not become shorter than where writers wait, if it does not: the failure of what concerns all, or of what
    /// is to be done for a keyspace that keeps so much of it. Compactions do not make it shorter, and other keyspaces keep it
    /// from nothing.
    pub(crate) fn failure_to_shorten_log(&self) -> Option<Error> {
        let failed: Vec<(Task, Error)> =
            self.jobs.lock().failed.iter().map(|(task, error)| (*task, error.clone())).collect();
        let within = self.log_limits().log_bytes.saturating_sub(1);
        let is_reason = |task: Task| match task {
            Task::Compaction(_) => false,
            Task::Log | Task::Settle | Task::Manifest => true,
            Task::Operation(id) | Task::Flush(id) => {
                self.keyspace_by_id(id).is_some_and(|keyspace| self.pins_log_beyond(&keyspace, within))
                    || planted_faults::planted("facade-log-failures-of-others-count")
            }
        };
        failed.into_iter().find(|(task, _)| is_reason(*task)).map(|(_, error)| error)
    }

    /// Whether the log is shorter than where writers wait (P10).
    pub(crate) fn has_log_room(&self) -> bool {
        let bytes = self.pipeline.as_ref().map_or(0, |pipeline| pipeline.journal().total_bytes());
        bytes < self.log_limits().log_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Condvar, Mutex};
    use std::time::Duration;

    use file_system::{Fault, FaultEffect, FileOperation, FileSystem, Simulation};
    use internal_key::SeqNo;

    use super::Task;
    use crate::{Database, Error, Event, EventListener, Keyspace, KeyspaceOptions};

    /// What has not come to be by then never will.
    const LONGEST: Duration = Duration::from_secs(60);

    /// Whether `condition` comes to hold. Asked so many times, however slow the machine is.
    fn comes_true(condition: &dyn Fn() -> bool) -> bool {
        (0..10_000).any(|_| {
            let is_true = condition();
            if !is_true {
                std::thread::sleep(Duration::from_millis(1));
            }
            is_true
        })
    }

    /// Holds every flush up from its beginning until it is let go.
    #[derive(Debug, Default)]
    struct HoldsUp {
        /// How many flushes have begun, and whether they may go on.
        state: Mutex<(u32, bool)>,
        changed: Condvar,
    }

    impl HoldsUp {
        fn wait_until_begun(&self) {
            let waited = self.changed.wait_timeout_while(self.state.lock().unwrap(), LONGEST, |(begun, _)| *begun == 0);
            assert!(!waited.unwrap().1.timed_out(), "no flush has begun within {LONGEST:?}");
        }
    }

    impl EventListener for HoldsUp {
        fn on_event(&self, event: &Event<'_>) {
            if let Event::FlushBegun { .. } = event {
                let mut state = self.state.lock().unwrap();
                state.0 += 1;
                self.changed.notify_all();
                let waited = self.changed.wait_timeout_while(state, LONGEST, |(_, let_go)| !*let_go).unwrap();
                assert!(!waited.1.timed_out(), "a flush was not let go within {LONGEST:?}");
            }
        }
    }

    /// L1: while the only worker is in a long job, whoever writes finds a segment ready each time, because the log has a worker of
    /// its own; after the disk was full too, without being asked.
    #[test]
    fn the_log_is_kept_ahead_while_the_workers_are_in_jobs() {
        let simulation = Simulation::new(1);
        let held_up = Arc::new(HoldsUp::default());
        let builder = Database::builder("/db").environment(simulation.environment()).event_listener(held_up.clone());
        let database = builder.background_threads(1).open().unwrap();
        let options = KeyspaceOptions::default().memtable_bytes(256 << 20).write_buffer_bytes(256 << 20);
        let keyspace = database.create_keyspace("a", options).unwrap();
        let core = &keyspace.handle.core;
        keyspace.insert("key", "value").unwrap();
        let flushing = keyspace.clone();
        let flushing = std::thread::spawn(move || flushing.flush());
        held_up.wait_until_begun();
        let is_made = || comes_true(&|| !core.wants_segment());
        let write_one = || keyspace.insert("key", [0; 32 << 10]).unwrap();
        let pipeline = core.pipeline.as_ref().unwrap();
        for _ in 0..3 {
            let full = pipeline.journal().total_bytes();
            while pipeline.journal().total_bytes() == full {
                // By then it has been told, whichever part of the log that falls into.
                if pipeline.with_tail(|tail| tail.next_end().offset).unwrap() > 3 << 20 {
                    assert!(is_made(), "nobody makes the segment: {}", database.stats());
                }
                write_one();
            }
        }
        assert_eq!(database.stats().log_segment_waits, 0, "{}", database.stats());
        let full = Fault::on(FileOperation::Create).path_contains("/log").effect(FaultEffect::NoSpace);
        let full = simulation.files.inject(full);
        let refused = (0..10_000).find_map(|_| keyspace.insert("key", [0; 32 << 10]).err());
        assert!(matches!(refused, Some(Error::DiskFull { .. })), "{refused:?}");
        // Two attempts it may still owe to those writes: the one it is in, and the one it was told of meanwhile.
        let owed = simulation.files.fault_hits(full) + 2;
        assert!(comes_true(&|| simulation.files.fault_hits(full) > owed), "nobody tries again: {}", database.stats());
        simulation.files.clear_faults();
        assert!(is_made(), "nobody makes a segment though the disk is full no more: {}", database.stats());
        write_one();
        held_up.state.lock().unwrap().1 = true;
        held_up.changed.notify_all();
        flushing.join().unwrap().unwrap();
        assert_eq!(database.stats().failed_jobs, 0, "{}", database.stats());
        database.close().unwrap();
    }

    /// L3: what the log's own worker is making when the database is closed is there before the log ends, which removes it: it does
    /// not come when nothing would.
    #[test]
    fn closing_waits_for_the_segment_in_the_making() {
        let simulation = Simulation::new(1);
        let builder = || Database::builder("/db").environment(simulation.environment()).background_threads(1);
        let database = builder().open().unwrap();
        let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
        let core = Arc::clone(&keyspace.handle.core);
        let segments = || -> Vec<String> {
            let entries = simulation.files.read_dir(&core.paths.log_dir()).unwrap();
            entries.into_iter().map(|entry| entry.name).collect()
        };
        // Nobody but the log's own worker makes segments.
        let suspended = database.suspend_background().unwrap();
        let (before, held) = (segments(), simulation.files.hold_up(FileOperation::Create, "/log/"));
        while !core.wants_segment() {
            keyspace.insert("key", [0; 32 << 10]).unwrap();
        }
        core.log_keeper.get().unwrap().notify_workers();
        assert!(held.wait_until_reached(LONGEST), "nobody makes a segment: {}", database.stats());
        let closing = std::thread::spawn(move || database.close());
        assert!(comes_true(&|| core.log_keeper.get().unwrap().is_shut_down()), "its worker is not shut down");
        assert!(!core.manifest.current().closed_cleanly, "the log has ended before its worker");
        drop(held);
        closing.join().unwrap().unwrap();
        assert_eq!(segments(), before, "a segment stays that nothing names");
        drop((suspended, keyspace));
        assert!(builder().open().unwrap().open_keyspace("a").unwrap().get("key").unwrap().is_some());
    }

    /// A database with a log of at least `bytes` and two keyspaces, one of which keeps all of it. The other has a row in its second
    /// half, and wants a flush.
    fn with_long_log(simulation: &Simulation, bytes: u64) -> (Database, Keyspace, Keyspace) {
        let builder = Database::builder("/db").environment(simulation.environment()).background_threads(0);
        let database = builder.log_segment_bytes(4 << 20).log_bytes_max(8 << 20).open().unwrap();
        let options = || KeyspaceOptions::default().memtable_bytes(64 << 20);
        let [other, long] = ["other", "long"].map(|name| database.create_keyspace(name, options()).unwrap());
        let core = &long.handle.core;
        // A delay would run a job.
        let _suspended = database.suspend_background().unwrap();
        let total_bytes = || core.pipeline.as_ref().unwrap().journal().total_bytes();
        let write_until = |bytes| {
            while total_bytes() < bytes {
                long.insert("key", [0; 64 << 10]).unwrap();
            }
        };
        write_until(bytes / 2);
        other.insert("key", "value").unwrap();
        core.seal(&other.shared).unwrap();
        assert!(core.ask_for_flush(&other.shared, SeqNo::MAX));
        write_until(bytes);
        (database, long, other)
    }

    /// L5: while a clear's record is not durable yet, nothing that a flush could do makes the log shorter, and no look for one
    /// is asked for, which would find nothing and call for another, for as long as the clear takes.
    #[test]
    fn what_an_operation_needs_of_the_log_asks_for_no_flush() {
        let simulation = Simulation::new(1);
        let (_database, long, other) = with_long_log(&simulation, 9 << 20);
        let core = &long.handle.core;
        other.flush().unwrap();
        // As a clear does that is reserved, and whose record waits for its sync.
        other.shared.begin_operation(long.shared.oldest_unflushed(&[]).unwrap());
        long.flush().unwrap();
        *core.jobs.lock() = crate::jobs::Jobs::default();
        core.relieve_log();
        let jobs = core.jobs.lock();
        assert!(core.pins_too_much_log(&other.shared), "the test is about a keyspace that keeps the log long");
        assert!(jobs.look_for_flush.is_empty() && !jobs.was_busy, "{:?}", jobs.look_for_flush);
    }

    /// P9, P10: a writer at the limit of the log waits on though a flush failed that would not have made it shorter.
    #[test]
    fn who_waits_for_the_log_is_not_told_of_what_does_not_matter() {
        let simulation = Simulation::new(1);
        let (database, long, other) = with_long_log(&simulation, 16 << 20);
        assert!(!long.handle.core.has_log_room(), "{}", database.stats());
        // The first flush is that of the keyspace that was created first.
        simulation
            .files
            .inject(Fault::on(FileOperation::Create).path_contains("/tables").nth(1).effect(FaultEffect::NoSpace));
        long.insert("key", "value").unwrap();
        assert_eq!(database.stats().failed_jobs, 1, "{}", database.stats());
        assert!(long.handle.core.has_log_room());
        other.flush().unwrap();
    }

    /// P9, P10: a writer at the limit of the log is told of a flush that failed if it is what keeps the log long, and of no other
    /// keyspace's.
    #[test]
    fn who_waits_for_the_log_is_told_of_what_keeps_it_long() {
        let simulation = Simulation::new(1);
        let (_database, long, other) = with_long_log(&simulation, 16 << 20);
        let core = &long.handle.core;
        let failed = Error::DiskFull { source: Arc::new(std::io::Error::from(std::io::ErrorKind::StorageFull)) };
        let reason = |task| {
            core.jobs.lock().failed = [(task, failed.clone())].into();
            core.failure_to_shorten_log()
        };
        assert!(reason(Task::Flush(other.shared.id)).is_none());
        assert!(reason(Task::Operation(other.shared.id)).is_none());
        assert!(reason(Task::Compaction(long.shared.id)).is_none());
        assert!(reason(Task::Flush(long.shared.id)).is_some());
        assert!(reason(Task::Log).is_some() && reason(Task::Manifest).is_some());
    }
}
