//! Which job is next, and what its success, failure or panic leaves to do.
//!
//! ```text
//!   log ahead of its writers ─▶ what was replayed ─▶ clears and drops ─▶ flushes ─▶ compactions ─▶ tidy up ─▶ what failed and was asked for again
//! ```
//!
//! - **P8** A certain failure is kept in view and tried again; an uncertain one fails the database.
//! - **P9** A panic fails the database before the job's claim goes, so that nobody builds on what it left half done. Who
//!   waits until there is nothing to do is told when the last look has found nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use compaction::{JobFailure, JobPanicked, JobSource};

use super::TaskError;
use super::queue::Task;
use crate::core::Core;
use crate::events::Event;
use crate::{Error, Result};

/// The jobs of a database, for its scheduler. The database owns the scheduler, so that this must not own the database:
/// neither would ever be freed. Closing ends the threads before the database goes.
pub(crate) struct JobsOf(pub(crate) Weak<Core>);

impl JobSource for JobsOf {
    fn run_next_job(&self, cancel: &AtomicBool) -> Result<bool, JobFailure> {
        self.0.upgrade().map_or(Ok(false), |core| core.run_next_job(cancel))
    }

    fn try_failed_again(&self) -> bool {
        let Some(core) = self.0.upgrade() else { return false };
        // Nothing is tried again in a database that has failed.
        let failed = core.pipeline.as_ref().is_none_or(|pipeline| pipeline.failure().is_some());
        let mut jobs = core.jobs.lock();
        jobs.try_failed_again();
        !failed && !jobs.failed.is_empty()
    }

    fn idle_after(&self) -> Option<Duration> {
        self.0.upgrade().and_then(|core| core.options.idle_after)
    }

    fn look_when_idle(&self) -> bool {
        self.0.upgrade().is_some_and(|core| core.look_when_idle())
    }

    fn due_after(&self) -> Option<Duration> {
        let core = self.0.upgrade()?;
        [core.history_due_after(), core.expiry_due_after()].into_iter().flatten().min()
    }
}

impl Core {
    pub(super) fn run_next_job(&self, cancel: &AtomicBool) -> Result<bool, JobFailure> {
        // This is the look that was due; it says when the next one is. Relaxed: advice.
        self.history_due.store(u64::MAX, Ordering::Relaxed);
        if self.pipeline.as_ref().is_none_or(|pipeline| pipeline.failure().is_some()) {
            // P9: who began to wait before it failed is told once, by whoever looks first.
            if std::mem::take(&mut self.jobs.lock().was_busy) {
                self.notify();
            }
            return Ok(false);
        }
        let ran = self.guarded(|| Ok(self.run_most_pressing(cancel))).unwrap_or_else(|error| Err((Task::Log, error)));
        if matches!(ran, Ok(false)) {
            // P9: the last look found nothing to do. No job ended that would tell those who wait until it is so.
            let mut jobs = self.jobs.lock();
            if jobs.is_idle() && std::mem::take(&mut jobs.was_busy) {
                drop(jobs);
                self.notify();
            }
        }
        match ran {
            Ok(ran) => Ok(ran),
            Err((_, Error::Closed)) => Ok(false),
            Err((task, error)) => Err(self.job_failed(task, error)),
        }
    }

    fn run_most_pressing(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        let log_failed = match self.prepare_log() {
            Ok(true) => return Ok(true),
            Ok(false) => None,
            // P8: the disk is full, and the jobs below may be what makes room.
            Err(error) if error.is_retryable() => Some(error),
            Err(error) => return Err((Task::Log, error)),
        };
        let mut looked = false;
        // R4: before anything else, since on a busy database there is always something else: the memory of what the last
        // flush wrote counts for nobody's pace, and would grow for as long as writers keep the workers busy.
        let mut tidied = self.free_retired_unless_busy();
        self.look_for_expired_history();
        self.jobs.lock().release_overdue();
        loop {
            // The manifest before compactions, of which there may always be one more: else a commit would have to fold it.
            // Then what has begun before what has not: it is what others wait for.
            if self.settle_next()?
                || self.finish_next_operation()?
                || self.flush_next(cancel)?
                || self.raise_log_floor()?
            {
                return Ok(true);
            }
            // Writers wait for a flush; what it may leave behind on the disk waits until none is due, but not for the last
            // of the compactions. Before what failed: on a full disk this may be what makes room.
            tidied |= self.tidy_up();
            if self.fold_manifest()? || self.help_next(cancel) || self.compact_next(cancel)? {
                return Ok(true);
            }
            if std::mem::take(&mut tidied) {
                return Ok(true);
            }
            // Without time to tell idleness by, it begins at once: see the option.
            let at_once = self.options.idle_after == Some(Duration::ZERO) && !std::mem::replace(&mut looked, true);
            if at_once && self.look_when_idle() {
                continue;
            }
            if !self.jobs.lock().release_held_back() {
                return log_failed.map_or(Ok(false), |error| Err((Task::Log, error)));
            }
        }
    }

    /// Runs a job. If it panics the database has failed when this returns, with the panic as its cause: what the job was
    /// working on may be half done.
    pub(super) fn guarded<T>(&self, job: impl FnOnce() -> Result<T>) -> Result<T> {
        // Nobody meets what the job leaves half done: no later job runs, writes are refused, and reads see what was
        // published whole.
        catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| {
            let panicked = JobPanicked::of(&*payload);
            tracing::error!(%panicked, "the database fails");
            let error = self.fail(Error::Failed { cause: Arc::new(panicked) });
            self.notify();
            Err(error)
        })
    }

    pub(super) fn job_succeeded(&self, task: Task) -> bool {
        let mut jobs = self.jobs.lock();
        jobs.no_longer_fails(task);
        jobs.done_since_failure = jobs.done_since_failure.saturating_add(1);
        true
    }

    /// Keeps the failure in view (P8). A certain one is tried again whenever the background is woken: at the next seal, when
    /// somebody waits, or by itself after a while. Any other fails the database.
    pub(super) fn job_failed(&self, task: Task, error: Error) -> JobFailure {
        tracing::warn!(?task, %error, "a background job failed");
        self.counters.failed_jobs.fetch_add(1, Ordering::Relaxed);
        {
            let mut jobs = self.jobs.lock();
            jobs.failed.insert(task, error.clone());
            if task != Task::Log {
                jobs.hold_back(task);
            }
        }
        self.tell(&Event::BackgroundError { error: &error });
        if !error.is_retryable() {
            self.fail(error.clone());
            return JobFailure::new(error);
        }
        match task.scope() {
            Some(scope) => JobFailure::within(scope, error),
            None => JobFailure::new(error),
        }
    }

    /// Why background work does not get on, if it does not.
    pub(crate) fn background_error(&self) -> Option<Error> {
        self.jobs.lock().failed.values().next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::thread::ThreadId;
    use std::time::Duration;

    use file_system::{Clock, Fault, FaultEffect, FileOperation, Simulation};
    use internal_key::SeqNo;

    use crate::stats::Health;
    use crate::{Database, Error, Event, EventListener, KeyspaceOptions};

    /// A clock on which the next look of a job panics, once it is set to.
    #[derive(Debug, Default)]
    struct Trap {
        is_set: AtomicBool,
        /// The thread of the job that has begun since.
        job: Mutex<Option<ThreadId>>,
    }

    impl EventListener for Trap {
        fn on_event(&self, event: &Event<'_>) {
            let begins = matches!(event, Event::FlushBegun { .. } | Event::CompactionBegun { .. });
            if begins && self.is_set.load(Ordering::Relaxed) {
                *self.job.lock().unwrap() = Some(std::thread::current().id());
            }
        }
    }

    impl Clock for Trap {
        fn monotonic(&self) -> Duration {
            let springs = self.job.lock().unwrap().take_if(|job| *job == std::thread::current().id()).is_some();
            if springs {
                self.is_set.store(false, Ordering::Relaxed);
                panic!("the clock fell off the wall");
            }
            Duration::ZERO
        }

        fn unix_time(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// P9: a job that panics gives back what it claimed, is counted, and fails the database with its message; the process
    /// and whoever waits go on.
    #[test]
    fn a_job_that_panics_gives_its_claim_back() {
        for (threads, compacting) in [(0, false), (0, true), (2, false), (2, true)] {
            let simulation = Simulation::new(1);
            let clock = Arc::new(Trap::default());
            let environment = file_system::Environment { clock: clock.clone(), ..simulation.environment() };
            let builder = Database::builder("/db").environment(environment).event_listener(clock.clone());
            let database = builder.background_threads(threads).open().unwrap();
            let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
            keyspace.insert("key", "value").unwrap();
            if compacting {
                keyspace.flush().unwrap();
            }
            database.wait_until_idle().unwrap();
            clock.is_set.store(true, Ordering::Relaxed);
            let outcome = if compacting { keyspace.compact() } else { keyspace.flush() };
            assert!(matches!(outcome, Err(Error::Failed { .. })), "{outcome:?}");
            assert!(!clock.is_set.load(Ordering::Relaxed), "a job looked at the clock");
            match database.health() {
                Health::Failed { cause } => assert!(cause.to_string().contains("fell off the wall"), "{cause}"),
                health => panic!("{health}"),
            }
            // The waiter is told as soon as the database has failed, which comes before the claim goes.
            let core = &keyspace.handle.core;
            for _ in 0..1000 {
                if core.jobs.lock().running() == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let jobs = core.jobs.lock();
            assert_eq!((jobs.running(), jobs.compacting.len(), jobs.flushing.len()), (0, 0, 0));
            drop(jobs);
            assert!(matches!(database.wait_until_idle(), Err(Error::Failed { .. })));
            assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value");
        }
    }

    /// R4, R5: memory and files that nobody uses go though there is always more to do.
    #[test]
    fn what_nobody_uses_goes_though_there_is_always_more_to_do() {
        let simulation = Simulation::new(1);
        let database =
            Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
        let keyspaces: Vec<_> = (0..30)
            .map(|number| {
                // Two runs are enough for a compaction to be due: the flush below leads to one.
                let options = KeyspaceOptions::default().level_zero_runs_max(3);
                let keyspace = database.create_keyspace(&format!("busy-{number}"), options).unwrap();
                keyspace.insert("key", "old").unwrap();
                keyspace.flush().unwrap();
                keyspace.insert("key", "new").unwrap();
                keyspace
            })
            .collect();
        let core = &keyspaces[0].handle.core;
        for keyspace in &keyspaces {
            core.seal(&keyspace.shared).unwrap();
            assert!(core.ask_for_flush(&keyspace.shared, SeqNo::MAX));
        }
        core.tidy_up();
        let (mut retired_most, mut obsolete_most, mut jobs) = (0, 0, 0);
        while database.run_one_job().unwrap() {
            retired_most = retired_most.max(core.retired.len());
            obsolete_most = obsolete_most.max(core.obsolete.waiting());
            jobs += 1;
        }
        assert!(jobs >= 60, "{jobs} jobs");
        assert!(retired_most <= 2, "{retired_most} super versions with their memtables were retired at a time");
        assert!(obsolete_most <= 2, "{obsolete_most} tables waited at a time");
    }

    /// P9: a flush that failed once gets another turn though other work is always due, which it makes room for.
    #[test]
    fn what_failed_gets_its_turn_though_there_is_always_more_to_do() {
        let simulation = Simulation::new(1);
        let database =
            Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
        for number in 0..30 {
            // One run is enough for a compaction to be due.
            let options = KeyspaceOptions::default().level_zero_runs_max(2);
            let keyspace = database.create_keyspace(&format!("busy-{number}"), options).unwrap();
            keyspace.insert("key", "value").unwrap();
            keyspace.flush().unwrap();
        }
        let keyspace = database.keyspace("a").unwrap();
        keyspace.insert("key", "value").unwrap();
        let full = Fault::on(FileOperation::Create).path_contains("/tables").effect(FaultEffect::NoSpace);
        simulation.files.inject(full);
        assert!(keyspace.flush().is_err());
        simulation.files.clear_faults();
        let core = &keyspace.handle.core;
        let mut others = 0;
        while keyspace.stats().sealed > 0 {
            // As every writer does that enters another part of the log.
            core.jobs.lock().try_failed_again();
            assert!(database.run_one_job().unwrap());
            others += 1;
        }
        assert!(others <= super::super::queue::RETRY_AFTER_JOBS + 1, "{others} jobs came before it");
        let left = core.jobs.lock().look_for_compaction.len();
        assert!(left > 10, "there was more to do all the time, and still is: {left}");
    }
}
