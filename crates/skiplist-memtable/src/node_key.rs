//! What a node of the list holds: enough of an entry to order it, mostly without touching the arena.
//!
//! ```text
//!   node   ┌──────────┬──────────┬──────────┬─────────┬───────────┐
//!          │ head (8) │ trailer  │ bytes ●  │ key len │ value len │ counts, tower …
//!          └──────────┴──────────┴───────┼──┴─────────┴───────────┘
//!   arena  ┌─────────────────┬───────────▼───┐
//!          │ user key        │ value         │
//!          └─────────────────┴───────────────┘
//! ```

use std::cmp::Ordering;

use internal_key::{InternalKey, Trailer, key_head};
use planted_faults::planted;

/// Bytes of a key that its head holds.
const HEAD_BYTES: usize = size_of::<u64>();

/// An entry's place in the order, and where its bytes lie. Also made for a search, with the target's own bytes.
#[derive(Clone, Copy)]
pub(crate) struct NodeKey {
    head: u64,
    trailer: Trailer,
    /// The user key, directly followed by the value. Valid while the arena or the search target lives (K2).
    bytes: *const u8,
    key_bytes: u32,
    value_bytes: u32,
}

// A node is this, 8 bytes of counts and 8 bytes for each of its levels; `NODE_BYTES` counts on it.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<NodeKey>() == 32);

// SAFETY: the bytes behind the pointer are written before the key is linked and never after (K2, K3), so that any
// thread may read them.
unsafe impl Send for NodeKey {}
// SAFETY: as above.
unsafe impl Sync for NodeKey {}

impl NodeKey {
    /// The key of an entry.
    ///
    /// # Safety
    /// `bytes` points to `user_key.len() + value_bytes` bytes, the first of which equal `user_key`. They are not
    /// written again and live as long as the result or any copy of it is used.
    #[inline]
    pub(crate) unsafe fn of_entry(user_key: &[u8], trailer: Trailer, bytes: *const u8, value_bytes: u32) -> Self {
        Self { head: key_head(user_key), trailer, bytes, key_bytes: user_key.len() as u32, value_bytes }
    }

    /// A search target.
    ///
    /// # Safety
    /// The result, and copies of it, are not used after `target`'s bytes are gone: it is never inserted.
    #[inline]
    pub(crate) unsafe fn of_target(target: InternalKey<'_>) -> Self {
        // SAFETY: a value of no bytes; the rest is the caller's promise.
        unsafe { Self::of_entry(target.user_key, target.trailer, target.user_key.as_ptr(), 0) }
    }

    /// A key of no entry, to be overwritten.
    #[cfg(loom)]
    pub(crate) fn nothing() -> Self {
        let none = InternalKey::seek(&[], internal_key::SeqNo::ZERO);
        // SAFETY: the empty slice is static.
        unsafe { Self::of_target(none) }
    }

    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head
    }

    #[inline]
    pub(crate) fn trailer(&self) -> Trailer {
        self.trailer
    }

    #[inline]
    pub(crate) fn user_key(&self) -> &[u8] {
        // SAFETY: the promise of `of_entry`: so many bytes, valid and unchanged while `self` is used.
        unsafe { std::slice::from_raw_parts(self.bytes, self.key_bytes as usize) }
    }

    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        // SAFETY: the promise of `of_entry`; the value follows the key directly.
        unsafe { std::slice::from_raw_parts(self.bytes.add(self.key_bytes as usize), self.value_bytes as usize) }
    }

    /// Whether both are versions of one user key.
    #[inline]
    pub(crate) fn same_user_key(&self, other: &Self) -> bool {
        self.head == other.head && self.key_bytes == other.key_bytes && self.tail() == other.tail()
    }

    /// The user key after its head.
    #[inline]
    fn tail(&self) -> &[u8] {
        // Where there is none, still an address in the key and not that of a constant empty slice: comparing no bytes
        // at an unmapped address may fault and be resumed (masked vector loads do), which costs 100 ns.
        let key = self.user_key();
        &key[key.len().min(HEAD_BYTES)..]
    }

    /// The order of two keys whose heads are equal.
    #[inline]
    fn cmp_after_head(&self, other: &Self) -> Ordering {
        // Equal heads and tails, and one longer: then the shorter has fewer than eight bytes and the rest are zeros.
        self.tail().cmp(other.tail()).then_with(|| self.key_bytes.cmp(&other.key_bytes)).then_with(|| {
            match planted("memtable-older-versions-first") {
                true => self.trailer.cmp(&other.trailer),
                false => other.trailer.cmp(&self.trailer),
            }
        })
    }
}

impl Ord for NodeKey {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match self.head.cmp(&other.head) {
            Ordering::Equal => self.cmp_after_head(other),
            decided => decided,
        }
    }
}

impl PartialOrd for NodeKey {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for NodeKey {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        // The trailer differs between any two entries of a database, so it decides nearly always.
        self.trailer == other.trailer && self.same_user_key(other)
    }
}

impl Eq for NodeKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use internal_key::{Kind, SeqNo};
    use proptest::prelude::*;

    proptest! {
        /// K5: the order of nodes is the order of internal keys, also for keys that differ in length and zeros only.
        #[test]
        fn node_keys_order_as_internal_keys(
            a in prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..12),
            b in prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..12),
            seqnos in (0u64..3, 0u64..3),
        ) {
            let trailer = |seqno| Trailer::new(SeqNo::new(seqno).unwrap(), Kind::Put);
            let (a, b) = (InternalKey::new(&a, trailer(seqnos.0)), InternalKey::new(&b, trailer(seqnos.1)));
            // SAFETY: the bytes live to the end of the test.
            let (x, y) = unsafe { (NodeKey::of_target(a), NodeKey::of_target(b)) };
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x == y, a == b);
            prop_assert_eq!(x.same_user_key(&y), a.user_key == b.user_key);
        }
    }
}
