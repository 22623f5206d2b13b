//! A mutex that counts what it costs: acquisitions, contended ones, time waited, time held.
//!
//! ```text
//!   try ──▶ free: count 1                                       1 of 64: time from here to the drop
//!       └─▶ taken: clock ─▶ lock ─▶ clock: count 1 contended, add the time waited
//! ```
//!
//! The figures lie beside the value, under the lock: counting needs no atomic and no other cache line. The clock is read
//! where somebody waits anyway, and in one of [`SAMPLE`] acquisitions.
//!
//! Each thread counts its own waits as well ([`waits_of_this_thread`]), so that one can show that it never waits.
//!
//! A panic under the lock does not poison it: who uses this takes care of what a panic leaves, as with a standard mutex
//! whose poison is ignored.

#![forbid(unsafe_code)]

mod sync;

use std::cell::Cell;
use std::fmt;
use std::ops::{AddAssign, Deref, DerefMut};
use std::time::Duration;

pub use sync::Condvar;
use sync::{Edge, Moment, TryLock};

/// Of so many acquisitions the holding of one is timed.
pub const SAMPLE: u64 = 64;

thread_local! {
    static WAITS: Cell<u64> = const { Cell::new(0) };
    /// Nanoseconds that this thread has waited.
    static WAITED_NS: Cell<u64> = const { Cell::new(0) };
}

/// How often the calling thread has waited so far: for a [`Mutex`] that somebody had, or in [`wait`] and [`wait_timeout`].
pub fn waits_of_this_thread() -> u64 {
    WAITS.get()
}

fn this_thread_waits() {
    WAITS.set(WAITS.get() + 1);
}

/// How long this thread has waited since it began: for contended locks, in [`wait`], and in [`waiting`]. Only grows; what
/// one call waited is the difference between after and before it.
#[inline]
pub fn waited_on_this_thread() -> Duration {
    Duration::from_nanos(WAITED_NS.get())
}

/// Runs `step`, a sleep or something else that only makes the caller wait, and counts its time as waited.
pub fn waiting<R>(step: impl FnOnce() -> R) -> R {
    let (since, before) = (Moment::now(), WAITED_NS.get());
    let result = step();
    // Not added: what was waited within the step lies within its time.
    WAITED_NS.set(before + since.elapsed_ns());
    result
}

/// What a lock has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockCosts {
    /// How often it was taken.
    pub acquisitions: u64,
    /// How often somebody had to wait for it.
    pub contended: u64,
    /// Nanoseconds that they waited.
    pub waited_ns: u64,
    /// Nanoseconds that it was held: [`SAMPLE`] times those of the acquisitions that were timed.
    pub held_ns: u64,
}

impl AddAssign for LockCosts {
    fn add_assign(&mut self, other: Self) {
        self.acquisitions += other.acquisitions;
        self.contended += other.contended;
        self.waited_ns += other.waited_ns;
        self.held_ns += other.held_ns;
    }
}

impl fmt::Display for LockCosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acquisitions, contended, waited_ns, held_ns } = self;
        let [waited, held] = [waited_ns, held_ns].map(|ns| Duration::from_nanos(*ns));
        write!(f, "{acquisitions} acquisitions, {contended} contended, {waited:.1?} waited, {held:.1?} held")
    }
}

/// A mutual exclusion that counts. See the crate.
#[derive(Default)]
pub struct Mutex<T> {
    inner: sync::Mutex<Metered<T>>,
}

#[derive(Default)]
struct Metered<T> {
    costs: LockCosts,
    edge: Edge,
    value: T,
}

/// The lock, held until this is dropped.
pub struct MutexGuard<'a, T> {
    /// `None` only while [`wait`] has it.
    inner: Option<sync::MutexGuard<'a, Metered<T>>>,
    /// Since when it is held, if that is timed.
    since: Option<Moment>,
}

impl<T> Mutex<T> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self { inner: sync::Mutex::new(Metered { costs: LockCosts::default(), edge: Edge::default(), value }) }
    }

    /// Takes the lock, waiting while somebody has it.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let mut inner = match sync::try_lock(&self.inner) {
            TryLock::Taken(inner) => inner,
            TryLock::Busy => self.lock_contended(),
        };
        inner.edge.taken();
        inner.costs.acquisitions += 1;
        let timed = inner.costs.acquisitions % SAMPLE == 1;
        MutexGuard { inner: Some(inner), since: timed.then(Moment::now) }
    }

    #[cold]
    fn lock_contended(&self) -> sync::MutexGuard<'_, Metered<T>> {
        let since = Moment::now();
        this_thread_waits();
        let mut inner = sync::lock(&self.inner);
        inner.edge.taken();
        inner.costs.contended += 1;
        let waited = since.elapsed_ns();
        inner.costs.waited_ns += waited;
        WAITED_NS.set(WAITED_NS.get() + waited);
        inner
    }

    /// Whether somebody panicked while they had it.
    #[cfg(not(any(loom, shuttle)))]
    pub fn is_poisoned(&self) -> bool {
        self.inner.is_poisoned()
    }

    /// What it has cost so far. Takes it, and does not count that.
    pub fn costs(&self) -> LockCosts {
        self.uncounted(|inner| inner.costs)
    }

    fn uncounted<R>(&self, look: impl FnOnce(&Metered<T>) -> R) -> R {
        let inner = sync::lock(&self.inner);
        inner.edge.taken();
        let found = look(&inner);
        inner.edge.given_up();
        found
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uncounted(|inner| f.debug_tuple("Mutex").field(&inner.value).finish())
    }
}

impl<T> MutexGuard<'_, T> {
    fn end_timing(&mut self) {
        if let (Some(inner), Some(since)) = (&mut self.inner, self.since.take()) {
            inner.costs.held_ns += since.elapsed_ns() * SAMPLE;
        }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.since.is_some() {
            self.end_timing();
        }
        if let Some(inner) = &self.inner {
            inner.edge.given_up();
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner.as_ref().expect("held until it is dropped").value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner.as_mut().expect("held until it is dropped").value
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Gives the lock up until `condvar` is notified, and takes it again, which counts as one more acquisition; may also end
/// without a notification. The time between is neither held nor waited for the lock, but waited by this thread.
pub fn wait<'a, T>(condvar: &Condvar, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    guard.end_timing();
    this_thread_waits();
    let inner = guard.inner.take().expect("held until it is dropped");
    inner.edge.given_up();
    let mut inner = waiting(|| sync::wait(condvar, inner));
    inner.edge.taken();
    inner.costs.acquisitions += 1;
    MutexGuard { inner: Some(inner), since: None }
}

/// As [`wait`], for no longer than `limit`; returns too whether that was reached.
#[cfg(not(any(loom, shuttle)))]
pub fn wait_timeout<'a, T>(
    condvar: &Condvar,
    mut guard: MutexGuard<'a, T>,
    limit: Duration,
) -> (MutexGuard<'a, T>, bool) {
    guard.end_timing();
    this_thread_waits();
    let inner = guard.inner.take().expect("held until it is dropped");
    inner.edge.given_up();
    let (mut inner, waited) =
        waiting(|| condvar.wait_timeout(inner, limit).unwrap_or_else(std::sync::PoisonError::into_inner));
    inner.edge.taken();
    inner.costs.acquisitions += 1;
    (MutexGuard { inner: Some(inner), since: None }, waited.timed_out())
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn acquisitions_are_counted_and_some_are_timed() {
        let mutex = Mutex::new(0);
        for _ in 0..2 * SAMPLE {
            *mutex.lock() += 1;
        }
        let costs = mutex.costs();
        assert_eq!((*mutex.lock(), costs.acquisitions, costs.contended, costs.waited_ns), (128, 128, 0, 0));
        // The first acquisition is among those that are timed.
        let mutex = Mutex::new(());
        let guard = mutex.lock();
        thread::sleep(Duration::from_millis(5));
        drop(guard);
        assert!(mutex.costs().held_ns >= 5_000_000 * SAMPLE, "{}", mutex.costs());
    }

    #[test]
    fn who_waits_is_counted_with_the_time() {
        let mutex = Mutex::new(());
        let (holds, held) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let guard = mutex.lock();
                holds.send(()).unwrap();
                thread::sleep(Duration::from_millis(20));
                drop(guard);
            });
            held.recv().unwrap();
            let before = waits_of_this_thread();
            drop(mutex.lock());
            assert_eq!(waits_of_this_thread(), before + 1, "it waited");
            drop(mutex.lock());
            assert_eq!(waits_of_this_thread(), before + 1, "it was free");
        });
        let costs = mutex.costs();
        assert_eq!((costs.acquisitions, costs.contended), (3, 1));
        assert!(costs.waited_ns > 0 && costs.held_ns >= 20_000_000, "{costs}");
    }

    #[test]
    fn a_thread_knows_how_long_it_has_waited() {
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        let of = |step: &dyn Fn()| {
            let before = waited_on_this_thread();
            step();
            waited_on_this_thread() - before
        };
        assert_eq!(of(&|| drop(mutex.lock())), Duration::ZERO, "nobody has it");
        let limit = Duration::from_millis(5);
        assert!(of(&|| drop(wait_timeout(&condvar, mutex.lock(), limit))) >= limit);
        // A wait within a wait is the same time, not as much again.
        let outer = of(&|| waiting(|| drop(wait_timeout(&condvar, mutex.lock(), limit))));
        assert!(outer >= limit);
        let begun = std::time::Instant::now();
        let nested = of(&|| waiting(|| waiting(|| thread::sleep(limit))));
        assert!(nested >= limit && nested <= begun.elapsed());
        let elsewhere = thread::spawn(waited_on_this_thread).join().unwrap();
        assert_eq!(elsewhere, Duration::ZERO);
    }

    #[test]
    fn a_panic_under_the_lock_leaves_it_usable() {
        let mutex = Mutex::new(1);
        thread::scope(|scope| {
            let died = scope.spawn(|| {
                let _guard = mutex.lock();
                panic!("as the test asked");
            });
            assert!(died.join().is_err());
        });
        assert_eq!(*mutex.lock(), 1);
    }

    #[test]
    fn waiting_ends_at_its_limit() {
        let (mutex, condvar) = (Mutex::new(1), Condvar::new());
        let before = waits_of_this_thread();
        let (guard, timed_out) = wait_timeout(&condvar, mutex.lock(), Duration::from_millis(1));
        assert!(*guard == 1 && timed_out);
        assert_eq!(waits_of_this_thread(), before + 1);
    }

    #[test]
    fn waiting_gives_the_lock_up_and_takes_it_again() {
        let (mutex, condvar) = (Mutex::new(false), Condvar::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut is_set = mutex.lock();
                while !*is_set {
                    is_set = wait(&condvar, is_set);
                }
            });
            *mutex.lock() = true;
            condvar.notify_all();
        });
        assert!((2..=3).contains(&mutex.costs().acquisitions));
    }
}
