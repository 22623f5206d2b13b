//! The one place that chooses between the standard primitives and loom's: what is model-checked imports from here. The locks
//! choose for themselves, and count what they cost.

pub(crate) use lock_meter::Mutex;
#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

/// A lock that epochs take, at times that no model knows of.
#[cfg(not(loom))]
pub(crate) type UnmodelledMutex<T> = Mutex<T>;
/// A standard lock, which loom does not see.
#[cfg(loom)]
pub(crate) type UnmodelledMutex<T> = std::sync::Mutex<T>;
