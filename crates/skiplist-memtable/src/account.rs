//! What one memtable has taken of a budget that it may share with others.
//!
//! - **P13** Chunks and filter are paid for when they are allocated, nodes some ahead, so that a row touches no shared line.
//!   All goes back when the memtable is freed.

use std::sync::Arc;

use memory_budget::MemoryBudget;
use planted_faults::planted;

use crate::sync::{AtomicU64, Ordering};

/// Nodes are paid for in steps of an eighth of those that there are, of so many at least and at most: a memtable of few
/// entries costs little, and a large one is seldom at it.
const NODES_AHEAD: std::ops::RangeInclusive<u64> = 16..=512;

/// How many nodes are paid for at once, where there are `entries` and `missing` of them are to be paid for.
#[inline]
pub(crate) fn nodes_to_pay(entries: u64, missing: u64) -> u64 {
    missing.max((entries / 8).clamp(*NODES_AHEAD.start(), *NODES_AHEAD.end()))
}

/// Bytes taken of a budget; without one, nothing is counted.
pub(crate) struct Account {
    budget: Option<Arc<MemoryBudget>>,
    /// Relaxed: changed by read-modify-writes, and given back by whoever drops the memtable and has it alone.
    bytes: AtomicU64,
}

impl Account {
    pub(crate) fn new(budget: Option<Arc<MemoryBudget>>) -> Self {
        Self { budget, bytes: AtomicU64::new(0) }
    }

    #[inline]
    pub(crate) fn is_kept(&self) -> bool {
        self.budget.is_some()
    }

    /// Notes bytes that the caller has taken already.
    #[inline]
    pub(crate) fn owes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes bytes, whatever there is.
    pub(crate) fn take(&self, bytes: u64) {
        if let Some(budget) = &self.budget {
            budget.take(bytes);
            self.owes(bytes);
        }
    }

    /// Takes bytes if there is room for them.
    pub(crate) fn try_take(&self, bytes: u64) -> bool {
        let Some(budget) = &self.budget else { return true };
        let taken = budget.try_take(bytes);
        if taken {
            self.owes(bytes);
        }
        taken
    }

    /// Gives back what was not needed after all.
    pub(crate) fn give_back(&self, bytes: u64) {
        if let Some(budget) = &self.budget {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            budget.give_back(bytes);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget
            && !planted("memtable-keeps-its-memory")
        {
            budget.give_back(self.bytes());
        }
    }
}
