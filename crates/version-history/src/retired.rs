//! Values that were replaced, until the last reader has let go of them: so that a worker frees them, never a reader.
//!
//! ```text
//!   cell.swap(new) ──▶ old ──▶ retired ──▶ collect (on a worker): nobody else holds it? ──▶ freed here
//!                       ▲
//!                readers hold it a little longer; letting go of it frees nothing
//! ```
//!
//! - **R4** No read ever frees a memtable, unmaps or unlinks: the retired list holds a count of its own.

use std::sync::Arc;

use crate::sync::Mutex;

/// Keeps replaced values until a worker finds that nobody else holds them.
#[derive(Debug)]
pub struct Retired<T> {
    values: Mutex<Vec<Arc<T>>>,
}

impl<T> Default for Retired<T> {
    fn default() -> Self {
        Self { values: Mutex::new(Vec::new()) }
    }
}

impl<T> Retired<T> {
    /// Nothing is retired yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps `value`, which no cell holds any more, until [`collect`](Self::collect) finds it unused.
    pub fn retire(&self, value: Arc<T>) {
        self.values.lock().push(value);
    }

    /// Frees every retired value that nobody else holds, and returns how many those were. To be called on a worker:
    /// freeing a memtable can take milliseconds. Frees outside the lock.
    pub fn collect(&self) -> usize {
        let unused: Vec<Arc<T>> = {
            let mut values = self.values.lock();
            // A count of one is this list's own. It cannot rise again: no cell holds the value, there are no weak
            // pointers to it, and only a holder can clone. Extracted in order, so that predecessors, which are kept by
            // their successors, become unused after them.
            values.extract_if(.., |value| Arc::strong_count(value) == 1).collect()
        };
        unused.len()
    }

    /// How many values are retired and not freed yet.
    pub fn len(&self) -> usize {
        self.values.lock().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
