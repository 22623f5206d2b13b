//! The one place that chooses between the standard primitives, loom's and shuttle's, and that reads the clock, which
//! models have not.

use std::sync::{PoisonError, TryLockError};

#[cfg(not(any(loom, shuttle)))]
pub use std::sync::Condvar;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
pub use loom::sync::Condvar;
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

#[cfg(all(shuttle, not(loom)))]
pub use shuttle::sync::Condvar;
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

/// What came of asking for a lock without waiting.
#[derive(Debug)]
pub(crate) enum TryLock<G> {
    /// It was free.
    Taken(G),
    /// Somebody has it.
    Busy,
}

#[inline]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> TryLock<MutexGuard<'_, T>> {
    // A model need not try an attempt and then a lock: they are the same to it.
    if cfg!(any(loom, shuttle)) {
        return TryLock::Taken(lock(mutex));
    }
    match mutex.try_lock() {
        Ok(guard) => TryLock::Taken(guard),
        Err(TryLockError::Poisoned(poisoned)) => TryLock::Taken(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => TryLock::Busy,
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// A moment on the monotonic clock.
#[cfg(not(any(loom, shuttle)))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(std::time::Instant);

#[cfg(not(any(loom, shuttle)))]
impl Moment {
    pub(crate) fn now() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn elapsed_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Models know no time.
#[cfg(any(loom, shuttle))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment;

#[cfg(any(loom, shuttle))]
impl Moment {
    pub(crate) fn now() -> Self {
        Self
    }

    pub(crate) fn elapsed_ns(self) -> u64 {
        0
    }
}

/// What the thread sanitizer sees of a lock: the standard library is not built with it, so that it does not know that a
/// lock that somebody had to wait for orders anything. Nothing in any other build.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    #[cfg(thread_sanitizer)]
    given_up: std::sync::atomic::AtomicU64,
}

impl Edge {
    /// The lock was taken.
    #[inline(always)]
    pub(crate) fn taken(&self) {
        // Acquire pairs with the Release in `given_up`.
        #[cfg(thread_sanitizer)]
        self.given_up.load(std::sync::atomic::Ordering::Acquire);
    }

    /// The lock is about to be given up.
    #[inline(always)]
    pub(crate) fn given_up(&self) {
        // Release pairs with the Acquire in `taken`.
        #[cfg(thread_sanitizer)]
        self.given_up.fetch_add(1, std::sync::atomic::Ordering::Release);
    }
}
