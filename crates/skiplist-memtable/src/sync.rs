//! The atomics of this crate: those of `std`, or loom's where every interleaving is tried.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// A value that one thread sets once and all may then read for as long as the owner lives.
///
/// Unlike `OnceLock` it has no waiting side: who comes too early is told that nothing is there yet.
#[derive(Debug)]
pub(crate) struct Published<T> {
    pointer: AtomicPtr<T>,
}

impl<T> Published<T> {
    /// Nothing yet.
    pub(crate) fn empty() -> Self {
        Self { pointer: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The value, if it has been set.
    #[inline]
    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire pairs with the Release in `set`: who sees the pointer sees the value behind it.
        let pointer = self.pointer.load(Ordering::Acquire);
        // SAFETY: null, or a box leaked by `set`, which only `drop` frees, and that has `&mut self`.
        unsafe { pointer.as_ref() }
    }

    /// Sets the value.
    ///
    /// # Panics
    /// If there is one already.
    pub(crate) fn set(&self, value: T) {
        let pointer = Box::into_raw(Box::new(value));
        // Release pairs with the Acquire in `get`. On failure nothing is read through the pointer: Relaxed.
        let set = self.pointer.compare_exchange(std::ptr::null_mut(), pointer, Ordering::Release, Ordering::Relaxed);
        assert!(set.is_ok(), "a published value is set once");
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        // Relaxed: `&mut self` came here by a synchronised path, nobody else looks any more.
        let pointer = self.pointer.load(Ordering::Relaxed);
        if !pointer.is_null() {
            // SAFETY: made by `Box::into_raw` in `set`, freed only here.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

// SAFETY: `get` lends `&T` to any thread and `drop` frees the `T` on any thread; the pointer is an owned box.
unsafe impl<T: Send + Sync> Send for Published<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Published<T> {}
