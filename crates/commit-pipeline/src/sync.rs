//! The one place that chooses between the standard primitives, loom's and shuttle's: everything else in the crate imports
//! from here. The locks choose for themselves, and count what they cost.
//!
//! They are taken also after a holder has panicked: every section in this crate either changes its state in one last step,
//! or fails the pipeline when it unwinds.

pub(crate) use lock_meter::{Condvar, Mutex, MutexGuard, wait};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;

#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::atomic;
