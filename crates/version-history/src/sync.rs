//! The one place that chooses between the standard primitives, loom's and shuttle's: everything else in the crate imports
//! from here.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};

/// Locks, also after a holder has panicked: every section in this crate changes its state in one last step, so that
/// what a panic leaves behind is the state before the section.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
