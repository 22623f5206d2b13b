//! The sorted list of keys, behind a cell so thin that a model checker can take its place.
//!
//! What the rest of the crate relies on, and what both lists here give:
//! - **K3** A key is linked with Release and met with Acquire (crossbeam: `SeqCst` and consume), so that who meets a
//!   key sees it whole, and the arena bytes that were written before it.
//! - **K4** Nothing is ever unlinked. A position is good for as long as the list.

use crate::node_key::NodeKey;

#[cfg(loom)]
pub(crate) use self::model::{List, Position};
#[cfg(not(loom))]
pub(crate) use self::skip::{List, Position};

#[cfg(not(loom))]
mod skip {
    use super::NodeKey;
    use crossbeam_epoch::Guard;
    use crossbeam_skiplist::base::{Entry, SkipList};
    use std::ops::Bound;

    /// The guard that every call passes: one that pins nothing.
    fn no_pin() -> &'static Guard {
        // SAFETY: a pin keeps removed nodes from being freed under a reader. Nothing is ever removed from a `List`
        // (K4: it has no method for it, and `get_or_insert_with` replaces nothing), so no node is freed before the
        // list is dropped, which needs `&mut`; and nothing is ever deferred through the guard.
        unsafe { crossbeam_epoch::unprotected() }
    }

    /// crossbeam's lock-free skip list, insert-only.
    pub(crate) struct List {
        nodes: SkipList<NodeKey, ()>,
    }

    impl List {
        pub(crate) fn new() -> Self {
            Self { nodes: SkipList::new(crossbeam_epoch::default_collector().clone()) }
        }

        /// Links `key`; false if an equal key stands there already, which then stays.
        #[inline]
        pub(crate) fn insert(&self, key: NodeKey) -> bool {
            let mut linked = false;
            // The reference that comes back is not given back: counts decide when a *removed* node is freed, and the
            // list frees its nodes itself. That spares an atomic subtraction for each insert.
            self.nodes.get_or_insert_with(key, || linked = true, no_pin());
            linked
        }

        /// How many keys are linked. Exact once all inserts have returned.
        #[inline]
        pub(crate) fn len(&self) -> usize {
            self.nodes.len()
        }

        /// The first key at or after `target`.
        #[inline]
        pub(crate) fn at_or_after(&self, target: &NodeKey) -> Option<Position<'_>> {
            self.nodes.lower_bound(Bound::Included(target), no_pin()).map(Position)
        }

        /// The last key before `target`.
        #[inline]
        pub(crate) fn before(&self, target: &NodeKey) -> Option<Position<'_>> {
            self.nodes.upper_bound(Bound::Excluded(target), no_pin()).map(Position)
        }

        /// The first key.
        #[inline]
        pub(crate) fn first(&self) -> Option<Position<'_>> {
            self.nodes.front(no_pin()).map(Position)
        }

        /// The last key.
        #[inline]
        pub(crate) fn last(&self) -> Option<Position<'_>> {
            self.nodes.back(no_pin()).map(Position)
        }
    }

    /// A key in a [`List`].
    pub(crate) struct Position<'a>(Entry<'a, 'a, NodeKey, ()>);

    // SAFETY: what keeps an `Entry` on one thread is its guard, and ours is the static that pins no thread. The rest is
    // a shared reference to a list that is `Sync`, and one to a node of it.
    unsafe impl Send for Position<'_> {}
    // SAFETY: as above; no method changes the position.
    unsafe impl Sync for Position<'_> {}

    impl<'a> Position<'a> {
        #[inline]
        pub(crate) fn key(&self) -> &'a NodeKey {
            self.0.key()
        }

        #[inline]
        pub(crate) fn next(&self) -> Option<Self> {
            self.0.next().map(Self)
        }

        /// The key before this one: a search from the top, for the list is linked one way.
        #[inline]
        pub(crate) fn prev(&self) -> Option<Self> {
            self.0.prev().map(Self)
        }
    }
}

#[cfg(loom)]
mod model {
    //! A sorted, insert-only, singly linked list with the same promises and no more: Release on the link, Acquire on
    //! the way to it. The key lies in a loom cell, so that a key met before it is whole fails the model.

    use super::NodeKey;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

    struct Node {
        key: UnsafeCell<NodeKey>,
        next: AtomicPtr<Node>,
    }

    impl Node {
        fn key(&self) -> &NodeKey {
            // SAFETY: written once, in `insert`, before the node was linked (K3); loom checks exactly this.
            self.key.with(|key| unsafe { &*key })
        }
    }

    pub(crate) struct List {
        first: AtomicPtr<Node>,
        len: AtomicUsize,
    }

    // SAFETY: nodes are shared through the atomics above, and their keys are `Send + Sync`.
    unsafe impl Send for List {}
    // SAFETY: as above.
    unsafe impl Sync for List {}

    impl List {
        pub(crate) fn new() -> Self {
            Self { first: AtomicPtr::new(std::ptr::null_mut()), len: AtomicUsize::new(0) }
        }

        pub(crate) fn insert(&self, key: NodeKey) -> bool {
            // The cell is made empty and then written, so that loom sees the write.
            let node = Box::into_raw(Box::new(Node {
                key: UnsafeCell::new(NodeKey::nothing()),
                next: AtomicPtr::new(std::ptr::null_mut()),
            }));
            // SAFETY: not linked yet: this thread alone has it.
            unsafe { (*node).key.with_mut(|cell| *cell = key) };
            loop {
                let (link, next) = self.link_before(&key);
                // SAFETY: nodes are freed by `drop` only.
                if unsafe { next.as_ref() }.is_some_and(|next| *next.key() == key) {
                    // SAFETY: never linked, made by `Box::into_raw` above.
                    drop(unsafe { Box::from_raw(node) });
                    return false;
                }
                // Relaxed: published by the exchange below.
                // SAFETY: not linked yet.
                unsafe { (*node).next.store(next, Ordering::Relaxed) };
                // Release pairs with the Acquire in `load`.
                if link.compare_exchange(next, node, Ordering::Release, Ordering::Relaxed).is_ok() {
                    self.len.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
            }
        }

        /// The link at which `key` belongs, and what it holds now.
        fn link_before(&self, key: &NodeKey) -> (&AtomicPtr<Node>, *mut Node) {
            let mut link = &self.first;
            loop {
                let next = link.load(Ordering::Acquire);
                // SAFETY: null or a linked node, which lives as long as the list.
                match unsafe { next.as_ref() } {
                    Some(node) if node.key() < key => link = &node.next,
                    _ => return (link, next),
                }
            }
        }

        fn position(&self, node: *mut Node) -> Option<Position<'_>> {
            // SAFETY: null or a linked node, which lives as long as the list.
            unsafe { node.as_ref() }.map(|node| Position { list: self, node })
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::Relaxed)
        }

        pub(crate) fn at_or_after(&self, target: &NodeKey) -> Option<Position<'_>> {
            self.position(self.link_before(target).1)
        }

        pub(crate) fn before(&self, target: &NodeKey) -> Option<Position<'_>> {
            let mut before = None;
            let mut at = self.first();
            while let Some(position) = at.filter(|position| position.key() < target) {
                at = position.next();
                before = Some(position);
            }
            before
        }

        pub(crate) fn first(&self) -> Option<Position<'_>> {
            self.position(self.first.load(Ordering::Acquire))
        }

        pub(crate) fn last(&self) -> Option<Position<'_>> {
            let mut at = self.first()?;
            while let Some(next) = at.next() {
                at = next;
            }
            Some(at)
        }
    }

    impl Drop for List {
        fn drop(&mut self) {
            let mut next = self.first.load(Ordering::Relaxed);
            while !next.is_null() {
                // SAFETY: made by `Box::into_raw` in `insert`, linked once, freed once.
                let node = unsafe { Box::from_raw(next) };
                next = node.next.load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) struct Position<'a> {
        list: &'a List,
        node: &'a Node,
    }

    impl<'a> Position<'a> {
        pub(crate) fn key(&self) -> &'a NodeKey {
            self.node.key()
        }

        pub(crate) fn next(&self) -> Option<Self> {
            self.list.position(self.node.next.load(Ordering::Acquire))
        }

        pub(crate) fn prev(&self) -> Option<Self> {
            self.list.before(self.key())
        }
    }
}
