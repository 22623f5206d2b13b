//! The scheduler: nobody is forgotten, whoever fails.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use compaction::{JobFailure, JobPanicked, JobSource, Scheduler, Scope, WaitError};

type Job = Box<dyn FnOnce(&AtomicBool) -> Result<(), JobFailure> + Send>;

/// Jobs in a queue, run in order.
#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    done: AtomicUsize,
}

impl Queue {
    fn push(&self, job: impl FnOnce(&AtomicBool) -> Result<(), JobFailure> + Send + 'static) {
        self.jobs.lock().unwrap().push_back(Box::new(job));
    }

    fn push_plain(&self, count: usize) {
        (0..count).for_each(|_| self.push(|_| Ok(())));
    }

    fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }
}

impl JobSource for Queue {
    fn run_next_job(&self, cancel: &AtomicBool) -> Result<bool, JobFailure> {
        let Some(job) = self.jobs.lock().unwrap().pop_front() else {
            return Ok(false);
        };
        job(cancel)?;
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(true)
    }
}

fn start(threads: usize) -> (Arc<Queue>, Scheduler) {
    let queue = Arc::new(Queue::default());
    let scheduler = Scheduler::start("worker", threads, queue.clone()).unwrap();
    (queue, scheduler)
}

/// A gate that a job waits at until the test opens it.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
struct DiskFull;

/// P9: with zero threads nothing runs by itself, and a waiter runs what is needed and no more.
#[test]
fn without_threads_a_waiter_runs_jobs_until_its_condition_holds() {
    let (queue, scheduler) = start(0);
    queue.push_plain(5);
    scheduler.notify();
    assert_eq!(queue.done(), 0);
    assert!(scheduler.run_one_job().unwrap());
    assert_eq!(queue.done(), 1);
    scheduler.wait_until(|| queue.done() == 3).unwrap();
    assert_eq!(queue.done(), 3, "no more than needed");
    assert!(matches!(scheduler.wait_until(|| queue.done() == 9), Err(WaitError::NoJobLeft)));
    assert_eq!(queue.done(), 5);
    assert!(!scheduler.run_one_job().unwrap());
}

/// P9: telling workers that there may be a job has them run it, and does not make whoever waits look at a condition that
/// only a job's end can change.
#[test]
fn workers_are_told_of_a_job_without_waking_waiters() {
    let (queue, scheduler) = start(1);
    let looks = AtomicUsize::new(0);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            scheduler.wait_until(|| {
                looks.fetch_add(1, Ordering::SeqCst);
                queue.done() == 1
            })
        });
        while looks.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        // No job yet: every one of these would be a look if it woke the waiter.
        for _ in 0..1000 {
            scheduler.notify_workers();
        }
        queue.push_plain(1);
        scheduler.notify_workers();
        waiter.join().unwrap().unwrap();
    });
    assert!(looks.load(Ordering::SeqCst) <= 3, "{looks:?} looks for one job");
}

/// P9: a failure that comes between the beginning of a wait and its turn to look ends the wait.
#[test]
fn a_wait_learns_of_failures_since_it_began() {
    let (queue, scheduler) = start(0);
    let wait = scheduler.begin_wait_in(Scope(1));
    queue.push(|_| Err(JobFailure::within(Scope(1), DiskFull)));
    assert!(scheduler.run_one_job().is_err());
    queue.push_plain(1);
    let ended = wait.until(|| queue.done() == 1);
    assert!(matches!(&ended, Err(WaitError::Failed(failure)) if failure.cause().is::<DiskFull>()), "{ended:?}");
    scheduler.begin_wait_in(Scope(1)).until(|| queue.done() == 1).unwrap();
}

/// P9: a waiter without threads gets the failure of the job it ran, and may go on afterwards.
#[test]
fn without_threads_a_waiter_gets_the_failure_of_its_job() {
    let (queue, scheduler) = start(0);
    queue.push(|_| Err(JobFailure::new(DiskFull)));
    queue.push_plain(1);
    let error = scheduler.wait_until(|| queue.done() == 1).unwrap_err();
    let WaitError::Failed(failure) = &error else { panic!("{error}") };
    assert!(failure.cause().downcast_ref::<DiskFull>().is_some());
    assert_eq!(error.to_string(), "a background job failed: the disk is full");
    scheduler.wait_until(|| queue.done() == 1).unwrap();
}

/// P9: without threads, a waiter that finds nothing to do waits for the job that another thread runs.
#[test]
fn without_threads_a_waiter_waits_for_a_job_that_another_thread_runs() {
    let (queue, scheduler) = start(0);
    let (running, gate) = (Arc::new(Barrier::new(2)), Arc::new(Gate::default()));
    queue.push({
        let (running, gate) = (running.clone(), gate.clone());
        move |_| {
            running.wait();
            gate.pass();
            Ok(())
        }
    });
    thread::scope(|scope| {
        scope.spawn(|| scheduler.run_one_job().unwrap());
        running.wait();
        let looks = AtomicUsize::new(0);
        let done = scheduler.wait_until(|| {
            // The first look finds it running; only then may it end.
            if looks.fetch_add(1, Ordering::SeqCst) == 0 {
                gate.open();
            }
            queue.done() == 1
        });
        done.unwrap();
    });
}

/// P9: every waiter is woken when its condition holds, however many there are.
#[test]
fn workers_run_every_job_and_wake_every_waiter() {
    for threads in 1..4 {
        let (queue, scheduler) = start(threads);
        thread::scope(|scope| {
            for waiter in 1..9 {
                let (queue, scheduler) = (&queue, &scheduler);
                scope.spawn(move || scheduler.wait_until(|| queue.done() >= waiter * 50).unwrap());
            }
            for _ in 0..40 {
                queue.push_plain(10);
                scheduler.notify();
            }
        });
        assert_eq!(queue.done(), 400);
    }
}

/// P9: a job's failure reaches everyone who waits, and the worker goes on with the next notify.
#[test]
fn a_failure_wakes_every_waiter_with_its_cause() {
    let (queue, scheduler) = start(2);
    let gate = Arc::new(Gate::default());
    queue.push({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            Err(JobFailure::new(DiskFull))
        }
    });
    let waiting = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let is_first = AtomicBool::new(true);
                let error = scheduler.wait_until(|| {
                    if is_first.swap(false, Ordering::SeqCst) && waiting.fetch_add(1, Ordering::SeqCst) == 3 {
                        gate.open();
                    }
                    false
                });
                let Err(WaitError::Failed(failure)) = error else { panic!("{error:?}") };
                assert!(failure.cause().is::<DiskFull>());
            });
        }
        scheduler.notify();
    });
    queue.push_plain(1);
    scheduler.wait_until(|| queue.done() == 1).unwrap();
}

/// P9: a panic is a failure like any other; the worker lives on.
#[test]
fn a_panic_wakes_the_waiter_and_the_worker_lives_on() {
    let (queue, scheduler) = start(1);
    queue.push(|_| panic!("a job of {} bytes", 7));
    let Err(WaitError::Failed(failure)) = scheduler.wait_until(|| false) else { panic!("no failure") };
    let panicked = failure.cause().downcast_ref::<JobPanicked>().unwrap();
    assert_eq!(panicked.message, "a job of 7 bytes");
    queue.push_plain(3);
    scheduler.wait_until(|| queue.done() == 3).unwrap();
}

/// P9: suspending wakes who waits, starts nothing, and is taken back by as many resumes.
#[test]
fn suspended_jobs_do_not_start_and_nobody_waits_for_them() {
    for threads in [0, 2] {
        let (queue, scheduler) = start(threads);
        scheduler.suspend();
        scheduler.suspend();
        scheduler.wait_until_idle();
        queue.push_plain(2);
        scheduler.notify();
        assert!(matches!(scheduler.wait_until(|| queue.done() > 0), Err(WaitError::Suspended)));
        assert!(!scheduler.run_one_job().unwrap());
        scheduler.resume();
        assert!(scheduler.is_suspended());
        scheduler.resume();
        scheduler.wait_until(|| queue.done() == 2).unwrap();
    }
}

/// P9: somebody who already waits when jobs are suspended wakes up.
#[test]
fn suspending_wakes_who_already_waits() {
    let (_queue, scheduler) = start(1);
    let is_waiting = Barrier::new(2);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let is_first = AtomicBool::new(true);
            scheduler.wait_until(|| {
                if is_first.swap(false, Ordering::SeqCst) {
                    is_waiting.wait();
                }
                false
            })
        });
        is_waiting.wait();
        scheduler.suspend();
        assert!(matches!(waiter.join().unwrap(), Err(WaitError::Suspended)));
    });
}

/// P9: shutting down tells running jobs to give up, joins, and wakes who waits.
#[test]
fn shutting_down_cancels_joins_and_wakes() {
    let (queue, scheduler) = start(2);
    let running = Arc::new(Barrier::new(2));
    queue.push({
        let running = running.clone();
        move |cancel| {
            running.wait();
            while !cancel.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            Ok(())
        }
    });
    scheduler.notify();
    running.wait();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| scheduler.wait_until(|| false));
        scheduler.shut_down();
        assert!(matches!(waiter.join().unwrap(), Err(WaitError::ShutDown)));
    });
    assert_eq!(queue.done(), 1, "the job has ended");
    scheduler.shut_down();
    queue.push_plain(1);
    scheduler.notify();
    assert!(!scheduler.run_one_job().unwrap(), "nothing starts any more");
    assert_eq!(Arc::strong_count(&queue), 2, "the scheduler and the test; the workers are gone");
}

/// P9: a job may hold the last handle and shut its own scheduler down without waiting for itself.
#[test]
fn a_job_may_drop_its_own_scheduler() {
    let (queue, scheduler) = start(2);
    let scheduler = Arc::new(Mutex::new(Some(scheduler)));
    let dropped = Arc::new(Gate::default());
    let ready = Arc::new(Gate::default());
    queue.push({
        let (scheduler, dropped, ready) = (scheduler.clone(), dropped.clone(), ready.clone());
        move |_| {
            ready.pass();
            drop(scheduler.lock().unwrap().take());
            dropped.open();
            Ok(())
        }
    });
    scheduler.lock().unwrap().as_ref().unwrap().notify();
    ready.open();
    dropped.pass();
    assert!(scheduler.lock().unwrap().is_none());
}

/// P9: a job that waits for jobs is told so instead of hanging.
#[test]
fn a_job_that_waits_for_jobs_panics() {
    let (queue, scheduler) = start(0);
    let scheduler = Arc::new(scheduler);
    queue.push({
        let scheduler = Arc::downgrade(&scheduler);
        move |_| {
            let _ = scheduler.upgrade().unwrap().wait_until(|| false);
            Ok(())
        }
    });
    let failure = scheduler.run_one_job().unwrap_err();
    assert!(failure.cause().is::<JobPanicked>(), "{failure}");
}

/// P9: notifications, jobs, waits and suspensions from many threads at once: nobody is forgotten.
#[test]
fn nobody_is_forgotten_under_load() {
    for threads in [0, 1, 3] {
        let (queue, scheduler) = start(threads);
        let wanted = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..4 {
                let (queue, scheduler, wanted) = (&queue, &scheduler, &wanted);
                scope.spawn(move || {
                    for round in 0..200 {
                        queue.push_plain(1);
                        let mine = wanted.fetch_add(1, Ordering::SeqCst) + 1;
                        scheduler.notify();
                        if thread == 0 && round % 10 == 0 {
                            scheduler.suspend();
                            scheduler.resume();
                        }
                        loop {
                            match scheduler.wait_until(|| queue.done() >= mine) {
                                Ok(()) => break,
                                // Another thread pushed later than it counted, or suspended for a moment.
                                Err(WaitError::Suspended | WaitError::NoJobLeft) => thread::yield_now(),
                                Err(other) => panic!("{other}"),
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(queue.done(), 800);
    }
}

/// P9: a failure within a scope ends the waits in it and those for everything; others go on, and so does the worker.
#[test]
fn a_failure_within_a_scope_leaves_the_other_scopes_alone() {
    for threads in [0, 1, 2] {
        let (queue, scheduler) = start(threads);
        let fail_and_go_on = |scope: u64| {
            scheduler.suspend();
            queue.push(move |_| Err(JobFailure::within(Scope(scope), "planned")));
            queue.push_plain(1);
        };
        fail_and_go_on(1);
        let before = queue.done();
        thread::scope(|threads| {
            let other = threads.spawn(|| {
                // Told that jobs are suspended until they are not; what it waits for comes after the failure.
                loop {
                    match scheduler.wait_until_in(Scope(2), || queue.done() > before) {
                        Err(WaitError::Suspended) => thread::yield_now(),
                        waited => break waited,
                    }
                }
            });
            scheduler.resume();
            other.join().unwrap().unwrap();
        });
        for concerned in [Some(Scope(3)), None] {
            queue.push(|_| Err(JobFailure::within(Scope(3), "planned")));
            let waited = match concerned {
                Some(scope) => scheduler.wait_until_in(scope, || false),
                None => scheduler.wait_until(|| false),
            };
            let Err(WaitError::Failed(failure)) = waited else { panic!("{threads} threads: {waited:?}") };
            assert_eq!(failure.scope(), Some(Scope(3)));
        }
        // One that concerns everybody ends every wait.
        queue.push(|_| Err(JobFailure::new("planned")));
        let waited = scheduler.wait_until_in(Scope(2), || false);
        assert!(matches!(waited, Err(WaitError::Failed(_))), "{threads} threads: {waited:?}");
    }
}

/// A source that has a job only when idle.
#[derive(Default)]
struct WhenIdle {
    asked: AtomicUsize,
    /// How many jobs are allowed and not done.
    allowed: AtomicUsize,
    done: AtomicUsize,
}

impl JobSource for WhenIdle {
    fn run_next_job(&self, _: &AtomicBool) -> Result<bool, JobFailure> {
        let taken = self.allowed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |allowed| allowed.checked_sub(1));
        self.done.fetch_add(usize::from(taken.is_ok()), Ordering::SeqCst);
        Ok(taken.is_ok())
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(Duration::from_millis(5))
    }

    fn look_when_idle(&self) -> bool {
        let is_first = self.asked.fetch_add(1, Ordering::SeqCst) == 0;
        self.allowed.fetch_add(usize::from(is_first), Ordering::SeqCst);
        is_first
    }
}

/// P9: a source is asked once for each time that nothing happened for a while, by one of its workers, and what it then has
/// to do is done. Nobody polls.
#[test]
fn an_idle_source_is_asked_once() {
    let source = Arc::new(WhenIdle::default());
    let scheduler = Scheduler::start("worker", 2, source.clone()).unwrap();
    // Not by a wait of the scheduler, which is itself a reason to look for jobs.
    let asked_so_often = |times: usize| {
        while source.asked.load(Ordering::SeqCst) < times {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        assert_eq!((source.asked.load(Ordering::SeqCst), source.done.load(Ordering::SeqCst)), (times, 1));
    };
    // The job was a reason to look again, so that it is asked once more, and then no more.
    asked_so_often(2);
    scheduler.notify();
    asked_so_often(3);
}

/// Has one job for each time that its deadline, which it names once, has passed.
#[derive(Default)]
struct DueLater {
    due: Mutex<Option<std::time::Instant>>,
    done: AtomicUsize,
}

impl JobSource for DueLater {
    fn run_next_job(&self, _: &AtomicBool) -> Result<bool, JobFailure> {
        let mut due = self.due.lock().unwrap();
        let is_due = due.is_some_and(|due| due <= std::time::Instant::now());
        if is_due {
            *due = None;
            self.done.fetch_add(1, Ordering::SeqCst);
        }
        Ok(is_due)
    }

    fn due_after(&self) -> Option<Duration> {
        let left = |due: std::time::Instant| due.saturating_duration_since(std::time::Instant::now());
        self.due.lock().unwrap().map(|due| left(due).max(Duration::from_millis(1)))
    }
}

/// P9: what becomes due at a time is done then, though nobody says anything; and before the time nobody looks again and again.
#[test]
fn what_is_due_at_a_time_is_done_then() {
    let source = Arc::new(DueLater::default());
    let scheduler = Scheduler::start("worker", 2, source.clone()).unwrap();
    for times in 1..=3 {
        let begun = std::time::Instant::now();
        *source.due.lock().unwrap() = Some(begun + Duration::from_millis(20));
        // As the job that finds out what is due later: it was a reason to look.
        scheduler.notify();
        while source.done.load(Ordering::SeqCst) < times {
            assert!(begun.elapsed() < Duration::from_secs(10), "nobody woke");
            thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
