//! Runs background jobs on threads, or step by step without any; waits for what jobs bring about.
//!
//! ```text
//!   notify ──▶ work += 1 ──▶ a worker looks for jobs until there is none, then sleeps until work grows again
//!   a job ends ─▶ events += 1 ──▶ waiters look at their conditions again
//!   nothing happens for a while ─▶ a worker asks the source, once, what there is to do when idle
//!   a job fails ─▶ a worker that finds nothing else sleeps no longer than the back-off, then asks the source to try again
//! ```
//!
//! - **P9** Nobody polls and nobody spins: workers and waiters sleep on condition variables. A waiter whose worker fails
//!   or panics, or whose scheduler is suspended or shut down, wakes with the cause. A failure within one [`Scope`] ends
//!   the waits in that scope and those for everything, and no other.
//! - **P10** Writers at a hard limit wait here.
//!
//! Two counters make wake-ups reliable: a worker compares `work`, a waiter `events`, with what it was *before* it looked
//! for a job or at its condition, and sleeps only if it is the same. Both change only under the one lock, so what happens
//! between the look and the sleep is not missed. The lock is never held while a job or a condition runs.
//!
//! With zero threads nothing runs by itself: [`Scheduler::run_one_job`] steps, and a waiter runs jobs until its condition
//! holds. The same jobs in the same order then give the same run.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use lock_meter::{Condvar, LockCosts, Mutex, MutexGuard};

/// Where jobs come from: a database, a test.
pub trait JobSource: Send + Sync + 'static {
    /// Runs the most pressing job to its end, on this thread. Returns whether there was one to run.
    ///
    /// Called from several threads at once. A long job looks at `cancel` now and then and gives up, with nothing changed
    /// (C4), once it is true: the scheduler is shutting down.
    ///
    /// # Errors
    /// The job's failure. Without a scope it reaches everyone who waits now, and the source is not asked again by itself,
    /// but at the next [`Scheduler::notify`] or [`Scheduler::wait_until`]. With one it reaches those whom it concerns,
    /// and the source is asked for other jobs at once: it must keep the failed one back until it has reason to try again.
    fn run_next_job(&self, cancel: &AtomicBool) -> Result<bool, JobFailure>;

    /// Lets the jobs that failed and were kept back run again; the source is then asked for jobs at once. Returns whether
    /// there is anything that failed and has not succeeded since.
    ///
    /// Called by a worker some time after a failure, each time later (P8): [`BACK_OFF_FIRST`], then twice as long up to
    /// [`BACK_OFF_LONGEST`], until this returns `false`. By default it does.
    fn try_failed_again(&self) -> bool {
        false
    }

    /// After how long without any reason to look for jobs the source is asked what there is to do when idle
    /// ([`look_when_idle`](Self::look_when_idle)). By default never.
    fn idle_after(&self) -> Option<Duration> {
        None
    }

    /// Makes what only idleness justifies the next job, and returns whether there may be any. Called by a worker, once
    /// for each time that nothing happened for [`idle_after`](Self::idle_after).
    fn look_when_idle(&self) -> bool {
        false
    }

    /// After how long a job may be due because of the time that has passed, and nothing else: then the source is asked for
    /// one. Not zero, or workers would not sleep; asked each time that they would, under the scheduler's lock. By default
    /// never.
    fn due_after(&self) -> Option<Duration> {
        None
    }
}

/// How long after a failure it is tried again by itself.
pub const BACK_OFF_FIRST: Duration = Duration::from_millis(100);

/// The longest time between two attempts.
pub const BACK_OFF_LONGEST: Duration = Duration::from_secs(10);

/// A part of what a source's jobs work on, such as a keyspace, that can fail by itself. The source numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(pub u64);

/// Why a job failed. Cheap to clone: every waiter gets it.
#[derive(Debug, Clone)]
pub struct JobFailure {
    cause: Arc<dyn Error + Send + Sync>,
    /// `None`: it concerns everybody.
    scope: Option<Scope>,
}

impl JobFailure {
    /// A failure with its cause, which concerns everybody.
    pub fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { cause: Arc::from(cause.into()), scope: None }
    }

    /// A failure that concerns those alone who wait in `scope`, or for everything.
    pub fn within(scope: Scope, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { scope: Some(scope), ..Self::new(cause) }
    }

    /// Whom it concerns; `None`: everybody.
    pub fn scope(&self) -> Option<Scope> {
        self.scope
    }

    /// Whether it ends a wait in `scope`, or, with `None`, one for everything.
    fn concerns(&self, scope: Option<Scope>) -> bool {
        self.scope.is_none() || scope.is_none() || self.scope == scope
    }

    /// The cause, to be downcast by whoever knows its type.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.cause
    }

    fn of_panic(payload: &(dyn Any + Send)) -> Self {
        let panicked = JobPanicked::of(payload);
        tracing::error!(%panicked, "its worker goes on");
        Self::new(panicked)
    }
}

impl fmt::Display for JobFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a background job failed: {}", self.cause)
    }
}

impl Error for JobFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The cause of a [`JobFailure`] when a job panicked. What it was working on may be half done in memory: a source should
/// treat its database as failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a background job panicked: {message}")]
pub struct JobPanicked {
    /// The panic's message.
    pub message: String,
}

impl JobPanicked {
    /// From what [`catch_unwind`] caught.
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self { message: text.unwrap_or_else(|| "no message".to_owned()) }
    }
}

/// Why a wait ended without its condition (P9).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// A job of the wait's scope failed since it began. Not necessarily the one that was waited for: who knows better
    /// waits again.
    #[error(transparent)]
    Failed(#[from] JobFailure),
    /// Jobs are suspended.
    #[error("background jobs are suspended")]
    Suspended,
    /// The scheduler was shut down.
    #[error("background jobs were shut down")]
    ShutDown,
    /// There are no threads, no job is left to run, and the condition does not hold.
    #[error("no background job is left that could end the wait")]
    NoJobLeft,
}

#[derive(Debug, Default)]
struct State {
    /// Grows with every reason to look for jobs.
    work: u64,
    /// Grows with every reason to look at a condition again.
    events: u64,
    /// How many failures there were.
    failures: u64,
    /// The last failure of each scope with its number, while anybody waits who may have to be told.
    recent_failures: Vec<(u64, JobFailure)>,
    waiters: usize,
    /// Suspensions that were not resumed.
    suspended: usize,
    /// The threads that run a job now, or look for one.
    runners: Vec<ThreadId>,
    is_shut_down: bool,
    /// What `work` was when the source was last asked what there is to do when idle.
    idle_asked: u64,
    /// After how long what failed is tried again; `None` while nothing has failed that has not succeeded since.
    back_off: Option<Duration>,
}

impl State {
    fn is_running_here(&self) -> bool {
        self.runners.contains(&thread::current().id())
    }

    fn failed(&mut self, failure: &JobFailure) {
        self.failures += 1;
        self.back_off.get_or_insert(BACK_OFF_FIRST);
        if self.waiters > 0 {
            self.recent_failures.retain(|(_, earlier)| earlier.scope != failure.scope);
            self.recent_failures.push((self.failures, failure.clone()));
        }
    }

    /// The last failure after the first `before` that ends a wait in `scope`.
    fn failure_since(&self, before: u64, scope: Option<Scope>) -> Option<JobFailure> {
        let mut newest_first = self.recent_failures.iter().rev();
        newest_first.find(|(number, failure)| *number > before && failure.concerns(scope)).map(|(_, it)| it.clone())
    }
}

struct Shared {
    source: Arc<dyn JobSource>,
    state: Mutex<State>,
    /// Workers sleep here until `work` grows.
    work_grew: Condvar,
    /// Waiters sleep here until `events` grows.
    events_grew: Condvar,
    /// Set once, by `shut_down`.
    cancel: AtomicBool,
}

/// Runs the jobs of one [`JobSource`]. Shut down when dropped.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: usize,
    workers: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("threads", &self.threads).field("state", &*self.shared.lock()).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic halfway: what a panic leaves is a whole state.
        self.state.lock()
    }

    fn grow_events(&self, state: &mut State) {
        state.events += 1;
        self.events_grew.notify_all();
    }

    fn grow_work(&self, state: &mut State) {
        state.work += 1;
        self.work_grew.notify_all();
    }

    fn sleep<'a>(&self, until: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        lock_meter::wait(until, state)
    }

    /// Runs one job, without the lock, and records how it ended.
    fn run_job(&self, mut state: MutexGuard<'_, State>) -> Result<bool, JobFailure> {
        let here = thread::current().id();
        state.runners.push(here);
        drop(state);
        let outcome = catch_unwind(AssertUnwindSafe(|| self.source.run_next_job(&self.cancel)))
            .unwrap_or_else(|payload| Err(JobFailure::of_panic(&*payload)));
        let mut state = self.lock();
        let at = state.runners.iter().rposition(|runner| *runner == here);
        at.map(|at| state.runners.swap_remove(at));
        match &outcome {
            Ok(true) => {
                // It may have made others possible, for workers that found none.
                self.grow_work(&mut state);
                self.grow_events(&mut state);
            }
            // Nothing has changed, but whoever waits until nothing runs looks again.
            Ok(false) => self.events_grew.notify_all(),
            Err(failure) => {
                state.failed(failure);
                self.grow_events(&mut state);
            }
        }
        outcome
    }

    /// Sleeps for at most `longest`, and if nothing has happened by then goes on with `then`.
    fn sleep_for<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        seen: u64,
        longest: Duration,
        then: impl FnOnce(MutexGuard<'a, State>) -> MutexGuard<'a, State>,
    ) -> MutexGuard<'a, State> {
        #[cfg(not(any(loom, shuttle)))]
        let (state, timed_out) = lock_meter::wait_timeout(&self.work_grew, state, longest);
        // A model knows no time.
        #[cfg(any(loom, shuttle))]
        let (state, timed_out) = (self.sleep(&self.work_grew, state), longest.is_zero());
        if timed_out && state.work == seen { then(state) } else { state }
    }

    /// Has the source try again what failed `back_off` ago.
    fn retry<'a>(&'a self, mut state: MutexGuard<'a, State>, back_off: Duration) -> MutexGuard<'a, State> {
        // Of several workers the first to wake does it, and has made the next time another.
        if state.back_off != Some(back_off) {
            return state;
        }
        state.back_off = Some((back_off * 2).min(BACK_OFF_LONGEST));
        let failures = state.failures;
        drop(state);
        let failing = self.source.try_failed_again();
        let mut state = self.lock();
        if failing {
            self.grow_work(&mut state);
        } else if state.failures == failures {
            state.back_off = None;
        }
        state
    }

    /// Asks the source what there is to do when idle.
    fn ask_when_idle<'a>(&'a self, mut state: MutexGuard<'a, State>, seen: u64) -> MutexGuard<'a, State> {
        // Of several workers the first to wake asks, and none asks again before something has happened: nobody polls (P9).
        let is_idle = state.runners.is_empty() && state.suspended == 0;
        if !is_idle || state.idle_asked == seen || state.is_shut_down {
            return state;
        }
        state.idle_asked = seen;
        drop(state);
        let found = catch_unwind(AssertUnwindSafe(|| self.source.look_when_idle())).unwrap_or(false);
        let mut state = self.lock();
        if found {
            self.grow_work(&mut state);
        }
        state
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.is_shut_down {
                return;
            }
            let seen = state.work;
            if state.suspended == 0 {
                let outcome = self.run_job(state);
                state = self.lock();
                let others_may_go_on = |failure: &JobFailure| failure.scope.is_some();
                if outcome.as_ref().map_or_else(others_may_go_on, |ran| *ran) {
                    continue;
                }
            }
            // No job, a failure or a suspension: sleep until there is a reason to look again.
            while state.work == seen && !state.is_shut_down {
                let may_wait = state.suspended == 0;
                let idle_after = self.source.idle_after().filter(|_| state.idle_asked != seen);
                let due_after = self.source.due_after();
                let due_first = due_after.filter(|due| idle_after.is_none_or(|idle| *due < idle));
                state = match (state.back_off, due_first, idle_after) {
                    (Some(back_off), ..) if may_wait => {
                        self.sleep_for(state, seen, back_off, |state| self.retry(state, back_off))
                    }
                    // The time that has passed is the reason to look for a job.
                    (None, Some(due_after), _) if may_wait => self.sleep_for(state, seen, due_after, |mut state| {
                        self.grow_work(&mut state);
                        state
                    }),
                    (None, None, Some(idle_after)) if may_wait => {
                        self.sleep_for(state, seen, idle_after, |state| self.ask_when_idle(state, seen))
                    }
                    _ => self.sleep(&self.work_grew, state),
                };
            }
        }
    }
}

impl Scheduler {
    /// A scheduler of `threads` workers, named after `name` and numbered; with zero, jobs run in
    /// [`run_one_job`](Self::run_one_job) and in waiters.
    ///
    /// The workers keep `source` alive until the scheduler is shut down.
    ///
    /// # Errors
    /// If the system gives no thread. None is left running.
    pub fn start(name: &str, threads: usize, source: Arc<dyn JobSource>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            source,
            // Workers look once by themselves.
            state: Mutex::new(State { work: 1, ..State::default() }),
            work_grew: Condvar::new(),
            events_grew: Condvar::new(),
            cancel: AtomicBool::new(false),
        });
        let scheduler = Self { shared, threads, workers: std::sync::Mutex::new(Vec::with_capacity(threads)) };
        for number in 0..threads {
            let shared = Arc::clone(&scheduler.shared);
            // Dropping the scheduler on the way out joins those that run.
            let worker = thread::Builder::new().name(format!("{name}-{number}")).spawn(move || shared.work())?;
            scheduler.workers().push(worker);
        }
        Ok(scheduler)
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its lock has cost.
    pub fn lock_costs(&self) -> LockCosts {
        self.shared.state.costs()
    }

    /// How many threads run jobs.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// There may be a job now, or a condition that somebody waits for may hold. Never blocks for long; may be called from
    /// anywhere, also from a job.
    pub fn notify(&self) {
        let mut state = self.shared.lock();
        self.shared.grow_work(&mut state);
        self.shared.grow_events(&mut state);
    }

    /// There may be a job now, and nothing else has changed: wakes workers, and leaves those alone who wait for something
    /// that a job brings about. With zero threads these run the jobs, and are told too.
    pub fn notify_workers(&self) {
        let mut state = self.shared.lock();
        self.shared.grow_work(&mut state);
        if self.threads == 0 {
            self.shared.grow_events(&mut state);
        }
    }

    /// Runs one job on this thread. Returns whether there was one; `false` too while suspended or shut down.
    ///
    /// # Errors
    /// The job's failure, which everyone who waits gets too.
    pub fn run_one_job(&self) -> Result<bool, JobFailure> {
        let state = self.shared.lock();
        if state.suspended > 0 || state.is_shut_down { Ok(false) } else { self.shared.run_job(state) }
    }

    /// Waits until `condition` holds. It is asked at once, and again whenever a job ends and at every
    /// [`notify`](Self::notify); no lock of the scheduler is held meanwhile. Workers are woken once, so that a job
    /// that failed before is tried again. With zero threads the waiter runs the jobs itself.
    ///
    /// # Errors
    /// P9: a job failed since the wait began, jobs are suspended or shut down, or (with zero threads) none is left.
    ///
    /// # Panics
    /// If called from a job: it would wait for itself.
    pub fn wait_until(&self, condition: impl FnMut() -> bool) -> Result<(), WaitError> {
        self.wait(None, condition)
    }

    /// [`wait_until`](Self::wait_until) for something that failures within other scopes do not keep from happening.
    ///
    /// # Errors
    /// As [`wait_until`](Self::wait_until), without the failures within other scopes.
    ///
    /// # Panics
    /// If called from a job: it would wait for itself.
    pub fn wait_until_in(&self, scope: Scope, condition: impl FnMut() -> bool) -> Result<(), WaitError> {
        self.wait(Some(scope), condition)
    }

    /// Begins a wait in `scope`: failures count from here on, also those before [`Wait::until`]. For who has to stand in
    /// a queue first.
    ///
    /// # Panics
    /// If called from a job: it would wait for itself.
    pub fn begin_wait_in(&self, scope: Scope) -> Wait<'_> {
        Wait::begin(self, Some(scope))
    }

    /// [`begin_wait_in`](Self::begin_wait_in) for what failures within every scope end.
    ///
    /// # Panics
    /// If called from a job: it would wait for itself.
    pub fn begin_wait(&self) -> Wait<'_> {
        Wait::begin(self, None)
    }

    fn wait(&self, scope: Option<Scope>, condition: impl FnMut() -> bool) -> Result<(), WaitError> {
        Wait::begin(self, scope).until(condition)
    }

    fn wait_since(
        &self,
        failures_before: u64,
        scope: Option<Scope>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), WaitError> {
        let shared = &*self.shared;
        shared.grow_work(&mut shared.lock());
        loop {
            let seen = shared.lock().events;
            if condition() {
                return Ok(());
            }
            let mut state = shared.lock();
            if let Some(failure) = state.failure_since(failures_before, scope) {
                return Err(WaitError::Failed(failure));
            }
            if state.is_shut_down {
                return Err(WaitError::ShutDown);
            }
            if state.suspended > 0 {
                return Err(WaitError::Suspended);
            }
            if self.threads > 0 {
                while state.events == seen {
                    state = shared.sleep(&shared.events_grew, state);
                }
                continue;
            }
            drop(state);
            // A failure is looked at above: it may be that of another scope.
            if self.run_one_job().unwrap_or(true) {
                continue;
            }
            let mut state = shared.lock();
            if state.events == seen && state.runners.is_empty() {
                return Err(WaitError::NoJobLeft);
            }
            // Another thread runs a job or looks for one: its end may be what we wait for, or leave us to end the wait.
            while state.events == seen && !state.runners.is_empty() {
                state = shared.sleep(&shared.events_grew, state);
            }
        }
    }

    /// Starts no more jobs until [`resume`](Self::resume) was called as often. Running jobs go on to their end;
    /// [`wait_until_idle`](Self::wait_until_idle) waits for them. Everyone who waits for jobs wakes with
    /// [`WaitError::Suspended`] (P9).
    pub fn suspend(&self) {
        let mut state = self.shared.lock();
        state.suspended += 1;
        self.shared.grow_events(&mut state);
    }

    /// Takes back one [`suspend`](Self::suspend).
    ///
    /// # Panics
    /// If nothing is suspended.
    pub fn resume(&self) {
        let mut state = self.shared.lock();
        assert!(state.suspended > 0, "resume without suspend");
        state.suspended -= 1;
        self.shared.grow_work(&mut state);
        self.shared.grow_events(&mut state);
    }

    /// Whether jobs are suspended.
    pub fn is_suspended(&self) -> bool {
        self.shared.lock().suspended > 0
    }

    /// Waits until no other thread runs a job. Meaningful after [`suspend`](Self::suspend): else the next may begin at
    /// once.
    pub fn wait_until_idle(&self) {
        let here = thread::current().id();
        let mut state = self.shared.lock();
        while state.runners.iter().any(|runner| *runner != here) {
            state = self.shared.sleep(&self.shared.events_grew, state);
        }
    }

    /// Whether it is shut down, or was told to: the last jobs may still run.
    pub fn is_shut_down(&self) -> bool {
        self.shared.lock().is_shut_down
    }

    /// Tells running jobs to give up, waits until they have ended and their threads are gone, and starts none again.
    /// Everyone who waits wakes with [`WaitError::ShutDown`]. May be called twice, from several threads, and from a job:
    /// that one, and its thread, then end after the call.
    pub fn shut_down(&self) {
        {
            let mut state = self.shared.lock();
            state.is_shut_down = true;
            // Relaxed: a job that sees it a little later gives up a little later; what jobs share is behind locks.
            self.shared.cancel.store(true, Ordering::Relaxed);
            self.shared.grow_work(&mut state);
            self.shared.grow_events(&mut state);
        }
        self.wait_until_idle();
        let here = thread::current().id();
        let workers = std::mem::take(&mut *self.workers());
        for worker in workers.into_iter().filter(|worker| worker.thread().id() != here) {
            // A worker ends by returning: panics of jobs are caught.
            let _ = worker.join();
        }
    }
}

/// A wait that has begun: it learns of every failure since then. See [`Scheduler::begin_wait_in`].
#[derive(Debug)]
pub struct Wait<'a> {
    scheduler: &'a Scheduler,
    scope: Option<Scope>,
    failures_before: u64,
}

impl<'a> Wait<'a> {
    fn begin(scheduler: &'a Scheduler, scope: Option<Scope>) -> Self {
        let mut state = scheduler.shared.lock();
        assert!(!state.is_running_here(), "P9: a job waits for jobs");
        state.waiters += 1;
        Self { scheduler, scope, failures_before: state.failures }
    }

    /// As [`Scheduler::wait_until_in`], with the failures since this wait began.
    ///
    /// # Errors
    /// As [`Scheduler::wait_until_in`].
    pub fn until(self, condition: impl FnMut() -> bool) -> Result<(), WaitError> {
        self.scheduler.wait_since(self.failures_before, self.scope, condition)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut state = self.scheduler.shared.lock();
        state.waiters -= 1;
        if state.waiters == 0 {
            state.recent_failures.clear();
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shut_down();
    }
}
