//! Memtables and tables that are names.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fmt;
use std::sync::{Arc, Weak};

use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
use manifest::{AddedTable, TableEntry};
use version_history::{DroppedTables, SuperVersion, Table, Version};

/// The keyspace of every table here.
pub(crate) const KEYSPACE: KeyspaceId = KeyspaceId(3);

/// A memtable of which only the name matters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named(pub(crate) String);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn memtable(name: &str) -> Arc<Named> {
    Arc::new(Named(name.to_string()))
}

pub(crate) fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

/// What a level file would say of table `id` with keys from `min` to `max`.
pub(crate) fn entry(id: u64, min: &[u8], max: &[u8]) -> Arc<TableEntry> {
    Arc::new(TableEntry {
        id: TableId(id),
        bytes: 1000 * id,
        checksum: 0,
        min_key: min.into(),
        max_key: max.into(),
        min_seqno: SeqNo::ZERO,
        max_seqno: SeqNo::ZERO,
        entries: 1,
        tombstones: 0,
        logical_bytes: 0,
        epoch: Epoch(0),
        job: JobId(0),
        seqno_base: 0,
        newest_unix_ms: 0,
    })
}

/// A handle on table `id` whose drop nobody hears.
pub(crate) fn table<S: Default>(id: u64, min: &str, max: &str) -> Arc<Table<S>> {
    let nobody: Weak<dyn DroppedTables> = Weak::<version_history::ObsoleteTables>::new();
    Arc::new(Table::new(KEYSPACE, entry(id, min.as_bytes(), max.as_bytes()), S::default(), nobody))
}

/// `table` as an edit adds it.
pub(crate) fn added<S>(level: u8, run: u64, table: &Arc<Table<S>>) -> (AddedTable, Arc<Table<S>>) {
    let place = AddedTable { level: Level(level), run: Epoch(run), table: Arc::clone(&table.entry) };
    (place, Arc::clone(table))
}

/// A super version with an active memtable and no tables.
pub(crate) fn first(name: &str) -> Arc<SuperVersion<Named, ()>> {
    Arc::new(SuperVersion::new(memtable(name), Arc::new(Version::default())))
}
