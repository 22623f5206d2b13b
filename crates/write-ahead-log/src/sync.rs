//! The locks and atomics that are model-checked: the standard library's, or loom's under `--cfg loom`. The locks choose for
//! themselves, and count what they cost.

pub(crate) use lock_meter::{Mutex, MutexGuard};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
