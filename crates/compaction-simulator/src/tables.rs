//! Tables that are only their keys, and what flush and merge make of them.
//!
//! - **C2** Of each key the newest version stays; a tombstone goes if no older run may hold its key.
//! - **C3** Tables end between keys, as the runner ends them: at their target, or at half of it where one ends below.

use std::sync::{Arc, Weak};

use compaction::OlderRuns;
use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
use manifest::{AddedTable, TableEntry};
use version_history::{DroppedTables, Run, Version};

use crate::{Setup, Write};

/// A key and whether its newest version is a delete, in one number: ascending numbers are ascending keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(u32);

impl Entry {
    /// The key.
    pub fn key(self) -> u32 {
        self.0 >> 1
    }

    /// Whether it is a tombstone.
    pub fn is_delete(self) -> bool {
        self.0 & 1 == 1
    }
}

impl From<Write> for Entry {
    fn from(write: Write) -> Self {
        Self(write.key << 1 | u32::from(write.is_delete))
    }
}

/// What a table holds, ascending, each key once.
pub type Entries = Arc<[Entry]>;

/// A table of the simulation.
pub type Table = version_history::Table<Entries>;

/// The one keyspace of a simulation.
pub const KEYSPACE: KeyspaceId = KeyspaceId(1);

/// How a key stands in table bounds: numbers and their bytes have one order.
pub fn key_bytes(key: u32) -> [u8; 4] {
    key.to_be_bytes()
}

/// The entries of writes in the order they came: the last of each key stays.
pub fn newest_of(writes: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = writes.collect();
    // Stable: equal keys stay in the order of their writes.
    entries.sort_by_key(|entry| entry.key());
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        match kept.last_mut() {
            Some(last) if last.key() == entry.key() => *last = entry,
            _ => kept.push(entry),
        }
    }
    kept
}

/// Sources, newest first, as one: of each key the newest version.
pub fn merge(newest_first: impl IntoIterator<Item = Vec<Entry>>) -> Vec<Entry> {
    newest_first.into_iter().reduce(|newer, older| merge_two(&newer, &older)).unwrap_or_default()
}

fn merge_two(newer: &[Entry], older: &[Entry]) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(newer.len() + older.len());
    let mut rest = older;
    for &entry in newer {
        let before = rest.iter().take_while(|other| other.key() < entry.key()).count();
        merged.extend_from_slice(&rest[..before]);
        rest = &rest[before..];
        if rest.first().is_some_and(|other| other.key() == entry.key()) {
            rest = &rest[1..];
        }
        merged.push(entry);
    }
    merged.extend_from_slice(rest);
    merged
}

/// Drops the tombstones that hide nothing (C2).
pub fn collect(entries: &mut Vec<Entry>, older: &mut OlderRuns<'_, Entries>) {
    entries.retain(|entry| !entry.is_delete() || older.may_hold(&key_bytes(entry.key())));
}

/// The entries of some tables of a run, ascending.
pub fn entries_of(run: &Run<Entries>, chosen: impl Fn(TableId) -> bool) -> Vec<Entry> {
    let tables = run.tables().iter().filter(|table| chosen(table.id()));
    tables.flat_map(|table| table.slot.iter().copied()).collect()
}

/// Bytes of the blocks of some sources of a merge that no entry of another source falls into, and that hold no tombstone.
pub fn untouched_bytes(setup: &Setup, sources: &[Vec<Entry>]) -> u64 {
    let rows = (setup.block_bytes / setup.entry_bytes(false)).max(1) as usize;
    let is_touched_by = |other: &[Entry], block: &[Entry]| {
        let next = other.partition_point(|entry| entry.key() < block[0].key());
        other.get(next).is_some_and(|entry| entry.key() <= block[block.len() - 1].key())
    };
    let mut untouched = 0;
    for (index, source) in sources.iter().enumerate() {
        let others = || sources.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, other)| other);
        for block in source.chunks(rows).filter(|block| !block.iter().any(|entry| entry.is_delete())) {
            if !others().any(|other| is_touched_by(other, block)) {
                untouched += block.len() as u64 * setup.entry_bytes(false);
            }
        }
    }
    untouched
}

/// Where entries come out, and how.
pub struct Outputs<'a> {
    /// Sizes of entries and tables.
    pub setup: &'a Setup,
    /// The last keys of the tables one level further down, ascending ([`compaction::next_level_bounds`]).
    pub bounds: &'a [Box<[u8]>],
    /// Where the tables go.
    pub level: Level,
    /// The run that they join.
    pub run: Epoch,
    /// What they carry.
    pub epoch: Epoch,
    /// Numbers of tables.
    pub next_table: &'a mut u64,
}

impl Outputs<'_> {
    /// The tables that hold `entries`.
    pub fn cut(mut self, entries: &[Entry]) -> Vec<(AddedTable, Arc<Table>)> {
        let (mut tables, mut first, mut bytes, mut next_bound) = (Vec::new(), 0, 0, 0);
        let target = self.setup.options.table_bytes_target;
        for (index, entry) in entries.iter().enumerate() {
            if index > first {
                let mut passed_bound = false;
                while self.bounds.get(next_bound).is_some_and(|bound| **bound < key_bytes(entry.key())[..]) {
                    next_bound += 1;
                    passed_bound = true;
                }
                if bytes >= if passed_bound { target / 2 } else { target } {
                    tables.push(self.table(&entries[first..index], bytes));
                    (first, bytes) = (index, 0);
                }
            }
            bytes += self.setup.entry_bytes(entry.is_delete());
        }
        if first < entries.len() {
            tables.push(self.table(&entries[first..], bytes));
        }
        tables
    }

    fn table(&mut self, entries: &[Entry], bytes: u64) -> (AddedTable, Arc<Table>) {
        *self.next_table += 1;
        let user_bytes = |entry: &Entry| self.setup.user_bytes(entry.is_delete());
        let table = Arc::new(TableEntry {
            id: TableId(*self.next_table),
            bytes,
            checksum: 0,
            min_key: key_bytes(entries[0].key()).into(),
            max_key: key_bytes(entries[entries.len() - 1].key()).into(),
            min_seqno: SeqNo::ZERO,
            max_seqno: SeqNo::ZERO,
            entries: entries.len() as u64,
            tombstones: entries.iter().filter(|entry| entry.is_delete()).count() as u64,
            logical_bytes: entries.iter().map(user_bytes).sum(),
            epoch: self.epoch,
            job: JobId(0),
            seqno_base: 0,
            newest_unix_ms: 0,
        });
        let place = AddedTable { level: self.level, run: self.run, table };
        let handle = handle(&place, entries.into());
        (place, handle)
    }
}

#[derive(Debug)]
struct Nobody;

impl DroppedTables for Nobody {
    fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
}

fn handle(place: &AddedTable, entries: Entries) -> Arc<Table> {
    Arc::new(Table::new(KEYSPACE, Arc::clone(&place.table), entries, Weak::<Nobody>::new()))
}

/// Bytes of all tables.
pub fn total_bytes(version: &Version<Entries>) -> u64 {
    version.tables().map(|(_, table)| table.entry.bytes).sum()
}

#[cfg(test)]
mod tests {
    use compaction::{CompactionOptions, Strategy};

    use super::*;
    use crate::Workload;

    fn entries(text: &str) -> Vec<Entry> {
        let entry = |word: &str| {
            let is_delete = word.ends_with('x');
            Entry::from(Write { key: word.trim_end_matches('x').parse().unwrap(), is_delete })
        };
        text.split_whitespace().map(entry).collect()
    }

    #[test]
    fn of_each_key_the_newest_version_stays() {
        assert_eq!(newest_of(entries("5 3 5x 1 3x 3").into_iter()), entries("1 3 5x"));
        assert_eq!(merge([entries("2 4x"), entries("1 2x 4 9"), entries("9x")]), entries("1 2 4x 9"));
        assert_eq!(merge([]), []);
    }

    #[test]
    fn a_block_is_untouched_if_no_other_source_has_a_key_in_it() {
        let mut setup = Setup::small(Workload::Uniform, Strategy::Leveled);
        setup.block_bytes = setup.entry_bytes(false) * 3;
        let rows = |sources: &[Vec<Entry>]| untouched_bytes(&setup, sources) / setup.entry_bytes(false);
        assert_eq!(rows(&[entries("0 1 2 3 4 5 6"), entries("5")]), 4, "5 meets 5, in both");
        assert_eq!(rows(&[entries("0 1 2 3 4 5x 6"), entries("8 9")]), 6, "a tombstone may have to go");
        assert_eq!(
            rows(&[entries("0 4 8"), entries("2"), entries("9")]),
            2,
            "2 lies between 0 and 4, and meets neither"
        );
    }

    /// C3, and what alignment saves: a table ends where one ends below, once it has half its target.
    #[test]
    fn tables_end_at_their_target_or_where_one_ends_below() {
        let mut setup = Setup::small(Workload::Uniform, Strategy::Leveled);
        let four = setup.entry_bytes(false) * 4;
        setup.options = CompactionOptions { table_bytes_target: four, ..setup.options };
        let cut = |bounds: &[u32]| {
            let bounds: Vec<Box<[u8]>> = bounds.iter().map(|key| key_bytes(*key).into()).collect();
            let mut next_table = 0;
            let (level, epoch) = (Level::LAST, Epoch(1));
            let next_table = &mut next_table;
            let outputs = Outputs { setup: &setup, bounds: &bounds, level, run: epoch, epoch, next_table };
            let tables = outputs.cut(&entries("0 1 2 3 4 5 6 7 8 9"));
            tables.iter().map(|(place, _)| place.table.entries).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[]), [4, 4, 2]);
        assert_eq!(cut(&[0, 2, 4]), [3, 2, 4, 1], "not after the first key: too small");
    }
}
