//! An atomic pointer to an immutable value: readers load it without a lock, a writer replaces it with one store.
//!
//! - **R1** A load takes no lock and writes to no cache line that threads share.
//! - **R2** Publishing is one atomic store; who loads the new value sees all of it, and everything before the store.
//!
//! Shipped on `arc_swap`. Loom does not know `arc_swap`, so under `cfg(loom)` a lock around the `Arc` stands in: the same
//! values can be seen in the same orders, and a value's last holder is the same.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Holds the current value and replaces it atomically.
///
/// ```
/// use std::sync::Arc;
/// use version_history::SuperVersionCell;
///
/// let cell = SuperVersionCell::new(Arc::new("old"));
/// let held = cell.load();
/// let replaced = cell.swap(Arc::new("new"));
/// assert_eq!((*held, *cell.load(), *replaced), ("old", "new", "old"));
/// ```
pub struct SuperVersionCell<T> {
    #[cfg(not(loom))]
    value: arc_swap::ArcSwap<T>,
    #[cfg(loom)]
    value: crate::sync::Mutex<Arc<T>>,
}

/// A value as loaded, kept alive while this lives. For the length of a call, never longer: a thread has few of the slots
/// that make loading cheap. What must live longer takes [`SuperVersionCell::load_full`].
pub struct SuperVersionGuard<T> {
    #[cfg(not(loom))]
    value: arc_swap::Guard<Arc<T>>,
    #[cfg(loom)]
    value: Arc<T>,
}

impl<T> SuperVersionGuard<T> {
    /// The value, shared for as long as it is needed. Costs one count on a shared cache line.
    pub fn to_arc(&self) -> Arc<T> {
        Arc::clone(&self.value)
    }
}

impl<T> Deref for SuperVersionGuard<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> SuperVersionCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: Arc<T>) -> Self {
        #[cfg(not(loom))]
        let value = arc_swap::ArcSwap::new(value);
        #[cfg(loom)]
        let value = crate::sync::Mutex::new(value);
        Self { value }
    }

    /// The current value, for the length of a call. Lock-free; about 20 ns.
    #[inline]
    pub fn load(&self) -> SuperVersionGuard<T> {
        #[cfg(not(loom))]
        let value = self.value.load();
        #[cfg(loom)]
        let value = self.load_full();
        SuperVersionGuard { value }
    }

    /// The current value, shared. Lock-free; writes the value's shared count.
    #[inline]
    pub fn load_full(&self) -> Arc<T> {
        #[cfg(not(loom))]
        return self.value.load_full();
        #[cfg(loom)]
        return Arc::clone(&self.value.lock());
    }

    /// Replaces the value.
    pub fn store(&self, value: Arc<T>) {
        drop(self.swap(value));
    }

    /// Replaces the value and returns the former one. From then on every guard on the former one counts in its
    /// `Arc::strong_count`, and none can be added by a load: that is what [`Retired`](crate::Retired) relies on.
    #[must_use]
    pub fn swap(&self, value: Arc<T>) -> Arc<T> {
        #[cfg(not(loom))]
        return self.value.swap(value);
        #[cfg(loom)]
        return std::mem::replace(&mut *self.value.lock(), value);
    }
}

impl<T: fmt::Debug> fmt::Debug for SuperVersionCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SuperVersionCell").field(&*self.load()).finish()
    }
}
