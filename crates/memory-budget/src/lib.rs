//! Counts what memtables and open tables hold in memory, within one limit.
//!
//! ```text
//!   0                                                                                                      limit
//!   ├─ block cache: all that it may hold ─┼─ memtables ──▶ ······ room ······ ◀── tables ─┼─ tables alone: an eighth ─┤
//!                                           ask before      they grow   are counted as they are, evicted if need be
//! ```
//!
//! - **P13** Memtables ask before they grow ([`Grant`]), and what they hold never passes
//!   [`memtables_max`](MemoryBudget::memtables_max) by it, whatever the threads do at the same time: room is looked for
//!   and taken in one step.
//! - What cannot be refused is counted all the same: tables, because a read goes on ([`TableMemory`]), and the little that
//!   an empty memtable is ([`MemoryBudget::take`]). An eighth of the room is left for that. Who opens tables beyond it
//!   is told how much of them to evict ([`MemoryBudget::tables_over`]).
//!
//! Nothing is published by any of these counters, so all of them are Relaxed: each is exact by itself, because it is changed
//! by read-modify-writes alone. They are touched once for a chunk of memory, not for a row.
//!
//! ```
//! use memory_budget::MemoryBudget;
//! use std::sync::Arc;
//!
//! let budget = Arc::new(MemoryBudget::new(8 << 10, 0));
//! assert_eq!(budget.memtables_max(), 7 << 10);
//! let mut grant = budget.no_grant();
//! assert!(grant.grow_to(6 << 10));
//!
//! // A table is opened: it takes what is its own first.
//! let table = budget.table(1 << 10);
//! assert_eq!((budget.memtables_max(), budget.tables_over(0)), (7 << 10, 0));
//! let other = budget.table(4 << 10);
//! assert_eq!((budget.memtables_max(), budget.tables_over(0)), (3 << 10, 3 << 10));
//! drop(other);
//! assert!(grant.grow_to(7 << 10) && !grant.grow_to(8 << 10));
//! ```
//!
//! Reading order: [`MemoryBudget`], [`Grant`], [`TableMemory`].

#![forbid(unsafe_code)]

mod sync;

use std::sync::Arc;

use planted_faults::planted;

use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// One part in so many of the room beside the block cache is what memtables cannot take.
const TABLES_ALONE: u64 = 8;

/// How much memory there is for a database, and how much of it is held. Shared behind an `Arc`.
#[derive(Debug)]
pub struct MemoryBudget {
    /// `u64::MAX` for none.
    limit: u64,
    block_cache: u64,
    /// What is left beside the block cache.
    room: u64,
    /// What of that only tables take.
    tables_alone: u64,
    /// Bytes that memtables hold or were granted.
    memtables: AtomicU64,
    /// The most that they ever were.
    memtables_most: AtomicU64,
    /// Bytes that open tables hold, those included that were evicted and are still read.
    tables: AtomicU64,
    /// Bytes of those that were evicted.
    tables_leaving: AtomicU64,
}

/// What is held, by kind, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryHeld {
    /// What memtables hold, or were granted and will.
    pub memtables: u64,
    /// The most that they ever were.
    pub memtables_most: u64,
    /// What open tables hold, blocks left out.
    pub tables: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes. `block_cache` of them are a block cache's, whatever it holds.
    pub fn new(limit: u64, block_cache: u64) -> Self {
        let room = limit.saturating_sub(block_cache);
        Self {
            limit,
            block_cache,
            room,
            tables_alone: room / TABLES_ALONE,
            memtables: AtomicU64::new(0),
            memtables_most: AtomicU64::new(0),
            tables: AtomicU64::new(0),
            tables_leaving: AtomicU64::new(0),
        }
    }

    /// One that counts and refuses nothing.
    pub fn unlimited(block_cache: u64) -> Self {
        Self::new(u64::MAX, block_cache)
    }

    /// Whether there is a limit.
    #[inline]
    pub fn is_limited(&self) -> bool {
        self.limit != u64::MAX
    }

    /// All that may be held; `u64::MAX` if there is no limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The part of the limit that a block cache has for itself.
    pub fn block_cache(&self) -> u64 {
        self.block_cache
    }

    /// What memtables hold, or were granted.
    #[inline]
    pub fn memtables(&self) -> u64 {
        // Relaxed, here and below: see the crate's documentation.
        self.memtables.load(Ordering::Relaxed)
    }

    /// What memtables may hold while tables hold what they do now.
    #[inline]
    pub fn memtables_max(&self) -> u64 {
        self.room.saturating_sub(self.tables.load(Ordering::Relaxed).max(self.tables_alone))
    }

    /// What memtables may hold at most, when tables hold no more than what is theirs alone.
    pub fn memtables_max_ever(&self) -> u64 {
        self.room - self.tables_alone
    }

    /// What is held now. The figures are taken one after the other.
    pub fn held(&self) -> MemoryHeld {
        MemoryHeld {
            memtables: self.memtables(),
            memtables_most: self.memtables_most.load(Ordering::Relaxed),
            tables: self.tables.load(Ordering::Relaxed),
        }
    }

    /// Whether a memtable that asks for `bytes` now gets them.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.memtables().saturating_add(bytes) <= self.memtables_max()
    }

    /// A grant of nothing, to be grown.
    #[inline]
    pub fn no_grant(&self) -> Grant<'_> {
        Grant { budget: self, bytes: 0, spent: 0 }
    }

    /// Takes `bytes` for memtables if there is room for them (P13).
    #[must_use = "what is taken has to be given back"]
    pub fn try_take(&self, bytes: u64) -> bool {
        if planted("memory-looked-for-before-it-is-taken") {
            let has_room = self.has_room(bytes);
            if has_room {
                self.take(bytes);
            }
            return has_room;
        }
        let taken = self.memtables.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|held| *held <= self.memtables_max())
        });
        if let Ok(before) = taken {
            self.memtables_most.fetch_max(before + bytes, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    /// Takes `bytes` for memtables, whatever there is: for the little that cannot be refused, and for what is being
    /// recovered.
    pub fn take(&self, bytes: u64) {
        let before = self.memtables.fetch_add(bytes, Ordering::Relaxed);
        self.memtables_most.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
    }

    /// Gives back what was taken for memtables.
    pub fn give_back(&self, bytes: u64) {
        let before = self.memtables.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "P13: {bytes} bytes are given back of {before}");
    }

    /// Counts an open table of `bytes` for as long as what this returns lives.
    pub fn table(self: &Arc<Self>, bytes: u64) -> TableMemory {
        self.tables.fetch_add(bytes, Ordering::Relaxed);
        TableMemory { budget: Arc::clone(self), bytes, is_leaving: AtomicBool::new(false) }
    }

    /// How many bytes of open tables have to be evicted so that memtables get `wanted` more, or as many as they may have:
    /// tables keep what is theirs alone. What was evicted and is still read is not counted again.
    pub fn tables_over(&self, wanted: u64) -> u64 {
        let leaving = self.tables_leaving.load(Ordering::Relaxed);
        let tables = self.tables.load(Ordering::Relaxed).saturating_sub(leaving);
        let fit = self.room.saturating_sub(self.memtables().saturating_add(wanted));
        tables.saturating_sub(fit.max(self.tables_alone))
    }
}

/// Bytes taken for memtables before anybody holds them. What is not spent goes back when this is dropped.
#[derive(Debug)]
#[must_use = "what is granted goes back when this is dropped"]
pub struct Grant<'a> {
    budget: &'a MemoryBudget,
    bytes: u64,
    spent: u64,
}

impl Grant<'_> {
    /// Makes it one of `bytes`, or more if it is already. `false` if there is no room: then nothing has changed.
    pub fn grow_to(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let has = more == 0 || self.budget.try_take(more);
        if has {
            self.bytes += more;
        }
        has
    }

    /// What is left of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was spent of it.
    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Spends `bytes` of it: from here on they are the spender's to give back.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn spend(&mut self, bytes: u64) {
        assert!(bytes <= self.bytes, "P13: {bytes} bytes are spent of {} granted", self.bytes);
        self.bytes -= bytes;
        self.spent += bytes;
    }
}

impl Drop for Grant<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes);
        }
    }
}

/// An open table's memory, counted until this is dropped.
#[derive(Debug)]
pub struct TableMemory {
    budget: Arc<MemoryBudget>,
    bytes: u64,
    /// Set once, by who evicts the table.
    is_leaving: AtomicBool,
}

impl TableMemory {
    /// The table was evicted: it goes when its last reader lets go of it, and nobody needs to evict it again.
    pub fn leaves(&self) {
        if !self.is_leaving.swap(true, Ordering::Relaxed) {
            self.budget.tables_leaving.fetch_add(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for TableMemory {
    fn drop(&mut self) {
        self.budget.tables.fetch_sub(self.bytes, Ordering::Relaxed);
        if self.is_leaving.load(Ordering::Relaxed) {
            self.budget.tables_leaving.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// P13: what is granted and not spent goes back, and what is spent stays until it is given back.
    #[test]
    fn a_grant_gives_back_what_is_not_spent() {
        let budget = MemoryBudget::new(1000, 200);
        assert_eq!((budget.memtables_max(), budget.memtables_max_ever()), (700, 700));
        let mut grant = budget.no_grant();
        assert!(grant.grow_to(500) && !grant.grow_to(701));
        assert_eq!((grant.bytes(), budget.memtables()), (500, 500));
        assert!(grant.grow_to(700) && grant.grow_to(100), "it is larger already");
        grant.spend(300);
        assert_eq!((grant.bytes(), grant.spent()), (400, 300));
        drop(grant);
        assert_eq!(budget.memtables(), 300);
        assert!(budget.has_room(400) && !budget.has_room(401));
        budget.give_back(300);
        assert_eq!(budget.held(), MemoryHeld { memtables: 0, memtables_most: 700, tables: 0 });
    }

    /// P13: tables and memtables push each other, but tables keep an eighth and memtables all that they hold.
    #[test]
    fn tables_give_way_but_for_an_eighth() {
        let budget = Arc::new(MemoryBudget::new(800, 0));
        let tables: Vec<TableMemory> = (0..5).map(|_| budget.table(80)).collect();
        assert_eq!((budget.memtables_max(), budget.tables_over(0)), (400, 0));
        assert_eq!(budget.tables_over(450), 50);
        assert_eq!(budget.tables_over(u64::MAX), 300, "an eighth stays");
        assert!(budget.try_take(400) && !budget.try_take(1));
        let more = budget.table(30);
        assert_eq!((budget.memtables_max(), budget.tables_over(0)), (370, 30));
        assert!(!budget.has_room(0));
        tables[0].leaves();
        tables[0].leaves();
        assert_eq!((budget.tables_over(0), budget.held().tables), (0, 430), "evicted, and still read by somebody");
        drop((tables, more));
        assert_eq!((budget.held().tables, budget.tables_over(u64::MAX)), (0, 0));
        budget.give_back(400);
    }

    /// Without a limit everything is counted and nothing refused.
    #[test]
    fn without_a_limit_nothing_is_refused() {
        let budget = Arc::new(MemoryBudget::unlimited(5));
        assert!(!budget.is_limited());
        let table = budget.table(1 << 40);
        assert!(budget.try_take(1 << 50));
        assert_eq!((budget.tables_over(0), budget.held().memtables), (0, 1 << 50));
        assert!(MemoryBudget::new(10, 5).is_limited());
        drop(table);
    }
}
