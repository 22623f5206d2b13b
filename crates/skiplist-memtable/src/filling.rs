//! Filling a memtable that nobody reads yet: its entries are sorted once and then linked in order.
//!
//! ```text
//!   add, in seqno order      arena  [b#1 x][a#2 y][c#3 z] …      filter noted        keys  b#1  a#2  c#3 …
//!   link                     keys sorted, then linked from the largest on:                a#2 ─▶ b#1 ─▶ c#3
//! ```
//!
//! To insert an entry into a list of some megabytes is to search it, at places that no cache holds. Sorted, and from the
//! largest on, each entry belongs before all that are there: its search looks at the first node of each level, and they
//! were linked a moment ago. The nodes lie in memory as they stand in the list, which whoever walks it gains by.
//!
//! - **K3**, **K5** As by [`Memtable::insert`]: every entry is linked by the same list.

use std::sync::Arc;

use internal_key::Trailer;

use crate::Memtable;
use crate::memtable::Reservation;
use crate::node_key::NodeKey;

/// A memtable, and those of its entries that are not linked yet: nobody finds them. For recovery, where a memtable is
/// filled before anybody knows it.
///
/// ```
/// use internal_key::{Kind, SeqNo, Trailer};
/// use skiplist_memtable::{Filling, Memtable, MemtableOptions};
/// use std::sync::Arc;
///
/// let memtable = Arc::new(Memtable::new(&MemtableOptions::default()));
/// let mut filling = Filling::new(Arc::clone(&memtable));
/// for (number, key) in (1..).zip(["pear", "apple"]) {
///     let trailer = Trailer::new(SeqNo::new(number).unwrap(), Kind::Put);
///     filling.add(key.as_bytes(), trailer, b"fruit");
/// }
/// assert!(!memtable.is_complete());
/// filling.link();
/// assert!(memtable.is_complete());
/// assert_eq!(memtable.to_string(), "apple#2 put=fruit\npear#1 put=fruit\n");
/// ```
pub struct Filling {
    memtable: Arc<Memtable>,
    /// Their bytes live as long as the memtable beside them (K2).
    keys: Vec<NodeKey>,
}

impl Filling {
    /// `memtable`, with nothing added to it yet.
    pub fn new(memtable: Arc<Memtable>) -> Self {
        Self { memtable, keys: Vec::new() }
    }

    /// The memtable that is filled. Its figures count what was added.
    pub fn memtable(&self) -> &Arc<Memtable> {
        &self.memtable
    }

    /// How many entries are not linked yet.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether every entry is linked.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds an entry, which nobody finds before [`link`](Self::link).
    ///
    /// # Panics
    /// As [`Memtable::reserve`] and [`Memtable::insert`] do, but for a key that is there already, which `link` meets.
    pub fn add(&mut self, user_key: &[u8], trailer: Trailer, value: &[u8]) {
        let seqno = trailer.seqno();
        let bytes = Memtable::entry_bytes(user_key.len(), value.len());
        let mut range = self.memtable.reserve(Reservation { bytes, entries: 1, first_seqno: seqno, last_seqno: seqno });
        self.keys.push(self.memtable.place(&mut range, user_key, trailer, value));
    }

    /// Links what was added.
    ///
    /// # Panics
    /// If an internal key was added twice (K5).
    pub fn link(mut self) {
        self.keys.sort_unstable();
        self.keys.iter().rev().for_each(|key| self.memtable.link(*key));
    }
}

impl std::fmt::Debug for Filling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filling").field("memtable", &self.memtable).field("not_linked", &self.keys.len()).finish()
    }
}
