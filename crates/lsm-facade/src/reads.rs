//! Counts how often readers seek places in tables, so that reading may be a reason to merge (`compaction::pick::reads`).
//!
//! ```text
//!   a seek ─▶ this thread's stripe += 1 ─ every 16th ─▶ the table's count += 16 ─ at each doubling ─▶ a look is due
//!             a line of few threads                     a line of its own                             under a lock
//! ```
//!
//! - **R1** A get that finds its row in the first table whose filter lets it through counts nothing. What is counted here is
//!   what cost a block: a cursor that enters a table, and a get that looks into one in vain. Both write to the stripe of
//!   their thread, with a plain load and store: who shares a stripe may lose a count, and no count is worth a locked
//!   instruction. The lock is taken when a table's count has doubled, so a few times in its life.
//!
//! Counts live as long as their table is held: after a reopen they begin anew.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{OnceLock, Weak};

use compaction::{SEEK_BYTES, Scheduler, TableReads};
use internal_key::KeyspaceId;
use lock_meter::Mutex;
use sstable_format::TableSlot;
use version_history::Version;

use crate::core::Table;

/// One in so many seeks is counted, as so many.
const SAMPLED: u64 = 16;

/// More than one for each core of a small machine; what is shared beyond that is only slower.
const STRIPES: usize = 16;

/// A count on a pair of lines of its own: adjacent lines are fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Count {
    /// Adds, and returns the sums before and after. Relaxed, and no read-modify-write: see the module.
    fn add(&self, seeks: u64) -> (u64, u64) {
        let before = self.0.load(Ordering::Relaxed);
        let after = before.saturating_add(seeks);
        self.0.store(after, Ordering::Relaxed);
        (before, after)
    }
}

/// What an open database keeps beside a table of its versions.
#[derive(Debug, Default)]
pub(crate) struct TableState {
    reader: TableSlot,
    /// Not on the line of `reader`, which every get reads.
    seeks: Count,
}

impl Deref for TableState {
    type Target = TableSlot;

    #[inline]
    fn deref(&self) -> &TableSlot {
        &self.reader
    }
}

/// The seeks of one open database.
#[derive(Default)]
pub(crate) struct ReadCounts {
    stripes: [Count; STRIPES],
    /// Keyspaces that have a table whose count has doubled since they were last looked at.
    doubled: Mutex<BTreeSet<KeyspaceId>>,
    /// Whether `doubled` holds any, to be looked at without the lock. Relaxed: who sets it wakes a worker after, under the
    /// scheduler's lock.
    has_doubled: AtomicBool,
    scheduler: OnceLock<Weak<Scheduler>>,
}

impl ReadCounts {
    /// Whom to wake when a look is due.
    pub(crate) fn wakes(&self, scheduler: Weak<Scheduler>) {
        let _ = self.scheduler.set(scheduler);
    }

    /// A place was sought in `table`, which cost a block.
    pub(crate) fn sought(&self, table: &Table) {
        let (_, after) = self.stripes[stripe()].add(1);
        if after.is_multiple_of(SAMPLED) {
            self.count(table);
        }
    }

    #[cold]
    fn count(&self, table: &Table) {
        let (before, after) = table.slot.seeks.add(SAMPLED);
        // No merge reads less than the table itself.
        let least = (table.entry.bytes / SEEK_BYTES).max(1);
        let doublings = |seeks: u64| (seeks / least).checked_ilog2();
        if doublings(before) == doublings(after) {
            return;
        }
        {
            let mut doubled = self.doubled.lock();
            doubled.insert(table.keyspace);
            self.has_doubled.store(true, Ordering::Relaxed);
        }
        if let Some(scheduler) = self.scheduler.get().and_then(Weak::upgrade) {
            scheduler.notify_workers();
        }
    }

    /// The keyspaces in which a look is due since this was last asked.
    pub(crate) fn take_doubled(&self) -> BTreeSet<KeyspaceId> {
        if !self.has_doubled.load(Ordering::Relaxed) {
            return BTreeSet::new();
        }
        let mut doubled = self.doubled.lock();
        self.has_doubled.store(false, Ordering::Relaxed);
        std::mem::take(&mut doubled)
    }
}

/// What was counted in the tables of a version, for the picker.
pub(crate) fn of_version(version: &Version<TableState>) -> Vec<TableReads> {
    let counted = version.tables().map(|(_, table)| TableReads {
        table: table.id(),
        // Relaxed: an estimate.
        seeks: table.slot.seeks.0.load(Ordering::Relaxed),
    });
    counted.filter(|reads| reads.seeks > 0).collect()
}

/// The stripe of this thread: threads take them by turns.
fn stripe() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: only that neighbours differ matters.
        static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}

#[cfg(test)]
mod tests {
    use file_system::Simulation;

    use super::*;
    use crate::{Compression, Database, Keyspace, KeyspaceOptions, Strategy};

    /// A database without threads that merges for no other reason than reading.
    fn open(simulation: &Simulation) -> Database {
        let builder = Database::builder("/db").environment(simulation.environment()).background_threads(0);
        builder.compact_when_idle_after(None).open().unwrap()
    }

    fn options() -> KeyspaceOptions {
        KeyspaceOptions::default().compression(Compression::None).level_zero_runs_max(100)
    }

    fn key(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    /// Three runs over the same keys.
    fn fill(keyspace: &Keyspace) {
        for run in 0..3_u32 {
            for number in (0..3000).filter(|number| number % 3 == run) {
                keyspace.insert(key(number), "value".repeat(12)).unwrap();
            }
            keyspace.flush().unwrap();
        }
        assert_eq!(runs(keyspace), 3);
    }

    fn runs(keyspace: &Keyspace) -> u64 {
        keyspace.stats().levels.iter().map(|level| level.runs).sum()
    }

    /// Tables that were looked into so far.
    fn sought(keyspace: &Keyspace) -> u64 {
        let stripes = &keyspace.handle.core.reads.stripes;
        stripes.iter().map(|stripe| stripe.0.load(Ordering::Relaxed)).sum()
    }

    /// Reads ten rows of a range, and returns how many tables that took.
    fn read(keyspace: &Keyspace, from: u32) -> u64 {
        let before = sought(keyspace);
        let rows: Vec<_> = keyspace.range(key(from)..key(from + 10)).map(|row| row.unwrap().0.to_vec()).collect();
        assert_eq!(rows, (from..from + 10).map(|number| key(number).to_vec()).collect::<Vec<_>>());
        sought(keyspace) - before
    }

    /// C1: what is read again and again comes to one run, step by step and no earlier than reading has paid; then a read
    /// looks into one table where it looked into three.
    #[test]
    fn what_is_often_read_is_merged_and_gets_cheaper() {
        for strategy in [Strategy::Leveled, Strategy::Tiered] {
            let database = open(&Simulation::new(1));
            let keyspace = database.create_keyspace("a", options().strategy(strategy)).unwrap();
            fill(&keyspace);
            let (bytes, mut merged) = (database.stats().flushed_bytes, 0);
            let (mut tables_read, mut costs) = (0, Vec::new());
            for round in 0..400 {
                let cost = read(&keyspace, round * 7);
                tables_read += cost;
                costs.push(cost);
                while database.run_one_job().unwrap() {}
                let read_by_merges = database.stats().compaction_read_bytes;
                if read_by_merges > merged {
                    assert!(read_by_merges <= tables_read * SEEK_BYTES, "{round}: no earlier than it pays");
                    merged = read_by_merges;
                }
            }
            assert!(costs.is_sorted_by(|left, right| left >= right), "{costs:?}");
            assert_eq!((costs[0], costs[costs.len() - 1], runs(&keyspace)), (3, 1, 1), "{strategy:?}");
            assert!(merged <= 2 * bytes, "{merged} bytes were merged of {bytes} flushed");
            assert_eq!(keyspace.iter().count(), 3000);
        }
    }

    /// R1: a get that finds its row in the first table that the filters let it look into counts nothing; one that looks into
    /// a table in vain, here for want of filters, counts, and is spared it in the end.
    #[test]
    fn gets_count_what_they_look_into_in_vain() {
        for filter_bits in [10, 0] {
            let database = open(&Simulation::new(1));
            let keyspace = database.create_keyspace("a", options().filter_bits_per_key(filter_bits)).unwrap();
            fill(&keyspace);
            // In the oldest run: without filters both others are looked into first.
            let get = |number: u32| assert!(keyspace.get(key(number * 3)).unwrap().is_some());
            (10..110).for_each(get);
            let in_vain = sought(&keyspace);
            match filter_bits {
                0 => assert_eq!(in_vain, 200),
                _ => assert!(in_vain < 20, "{in_vain}"),
            }
            for _ in 0..2 {
                (0..1000).for_each(get);
                while database.run_one_job().unwrap() {}
            }
            assert_eq!(runs(&keyspace), if filter_bits == 0 { 1 } else { 3 });
            let before = sought(&keyspace);
            (0..100).for_each(get);
            assert!(sought(&keyspace) - before < 20);
        }
    }

    #[test]
    fn reading_merges_nothing_where_that_is_not_wanted() {
        let database = open(&Simulation::new(1));
        let keyspace = database.create_keyspace("a", options().merge_what_is_read(false)).unwrap();
        fill(&keyspace);
        for round in 0..400 {
            read(&keyspace, round * 7);
        }
        while database.run_one_job().unwrap() {}
        assert_eq!(runs(&keyspace), 3);
    }

    /// P9: a read tells the workers itself: nothing else happens that would wake them.
    #[test]
    fn workers_learn_of_reads_though_nothing_else_happens() {
        let simulation = Simulation::new(1);
        let builder = Database::builder("/db").environment(simulation.environment()).background_threads(2);
        let database = builder.compact_when_idle_after(None).open().unwrap();
        let keyspace = database.create_keyspace("a", options()).unwrap();
        fill(&keyspace);
        database.wait_until_idle().unwrap();
        let begun = std::time::Instant::now();
        while runs(&keyspace) > 1 {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{}", keyspace.stats());
            read(&keyspace, 1500);
        }
    }
}
