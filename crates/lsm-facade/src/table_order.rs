//! Which of several tables is newer, where no manifest says so: their rows do.
//!
//! ```text
//!   t7   b#9 ──────┐                t7 lies above t5, because of b;  t5 above t9, because of k
//!   t5   b#4  k#6 ─┼──┐             t9 has the largest epoch: a merge gave it that of a row that t5 does not hold
//!   t9   a#1  k#2 ─┘──┘ m#20        ⇒  t7  t5  t9
//! ```
//!
//! - **C3** Where two tables of one version hold the same key, one of them holds the newer versions of every such key. So some
//!   order has each of them above what it hides, and any such order reads the same. A table's epoch is that of its newest
//!   input; it may hold rows that are older than those of tables with smaller epochs, and lies below these.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use file_system::FileSystem;
use internal_key::{Cursor, Epoch, InternalKey, KeyspaceId, Level, SeqNo, TableId};
use manifest::{DatabasePaths, TableEntry};
use sstable_format::{Expected, TableCursor};

use crate::Result;
use crate::verify;

/// A table, and the level that it was written for.
pub(crate) type Leveled = (Level, Arc<TableEntry>);

/// Tables in the order of their age, and what that follows from.
pub(crate) struct TableOrder {
    /// Newest first.
    pub(crate) tables: Vec<Leveled>,
    /// Each table with those that must lie above it.
    pub(crate) above: BTreeMap<TableId, BTreeSet<TableId>>,
    /// Tables each of which hides what another holds, and so on around: they are no part of one version, and stand by epoch.
    pub(crate) contradict: BTreeSet<TableId>,
}

/// Orders `tables` of one keyspace. Those that hide nothing of each other stand by epoch, then by level.
///
/// One pass over all tables that overlap others; each is open while the pass is within its range.
pub(crate) fn by_their_rows(
    files: &dyn FileSystem,
    paths: &DatabasePaths,
    (database_id, keyspace): (u128, KeyspaceId),
    tables: Vec<Leveled>,
) -> Result<TableOrder> {
    let open = |entry: &TableEntry| {
        let expected =
            Expected { bytes: entry.bytes, database_id, keyspace, table: entry.id, seqno_base: entry.seqno_base };
        verify::open(files, &paths.table(entry.id), expected)
    };
    let mut pass = Pass { open, standing: Vec::new(), above: BTreeMap::new() };
    if !planted_faults::planted("facade-repair-orders-tables-by-epoch") {
        pass.run(&tables)?;
    }
    Ok(ordered(tables, pass.above))
}

/// A walk through all tables by key.
struct Pass<F> {
    open: F,
    /// Where the walk is within a table.
    standing: Vec<(TableId, TableCursor)>,
    above: BTreeMap<TableId, BTreeSet<TableId>>,
}

impl<F: Fn(&TableEntry) -> Result<sstable_format::TableReader>> Pass<F> {
    fn run(&mut self, tables: &[Leveled]) -> Result<()> {
        let mut waiting: Vec<&TableEntry> = tables.iter().map(|(_, entry)| &**entry).collect();
        waiting.sort_by(|left, right| right.min_key.cmp(&left.min_key));
        loop {
            // What begins at or before the smallest key has a say in it.
            let key = loop {
                let smallest = self.standing.iter().map(|(_, cursor)| cursor.user_key()).min();
                match waiting.pop_if(|next| smallest.is_none_or(|key| *next.min_key <= *key)) {
                    Some(next) => {
                        let mut cursor = Arc::new((self.open)(next)?).cursor_for_compaction();
                        cursor.seek_to_first()?;
                        if cursor.valid() {
                            self.standing.push((next.id, cursor));
                        }
                    }
                    None => break smallest.map(<[u8]>::to_vec),
                }
            };
            let Some(key) = key else { return Ok(()) };
            if let [(_, alone)] = &mut self.standing[..] {
                // Nobody else holds what comes before the next table.
                let Some(next) = waiting.last() else { return Ok(()) };
                alone.seek(InternalKey::seek(&next.min_key, SeqNo::MAX))?;
            } else {
                self.compare(&key)?;
            }
            self.standing.retain(|(_, cursor)| cursor.valid());
        }
    }

    /// Notes which of those that stand on `key` are newer, and leaves it behind.
    fn compare(&mut self, key: &[u8]) -> Result<()> {
        let mut holders = Vec::new();
        for (table, cursor) in &mut self.standing {
            if cursor.user_key() == key {
                holders.push((Reverse(cursor.trailer().seqno()), *table));
            }
            while cursor.valid() && cursor.user_key() == key {
                cursor.next()?;
            }
        }
        holders.sort();
        for pair in holders.windows(2) {
            let [(newer, upper), (older, lower)] = pair else { continue };
            // The same row in both: a table, and one that was made of it.
            if newer != older {
                self.above.entry(*lower).or_default().insert(*upper);
            }
        }
        Ok(())
    }
}

/// Puts each table behind all that must lie above it; otherwise by epoch, then by level.
fn ordered(tables: Vec<Leveled>, above: BTreeMap<TableId, BTreeSet<TableId>>) -> TableOrder {
    let mut below: BTreeMap<TableId, Vec<TableId>> = BTreeMap::new();
    for (lower, uppers) in &above {
        uppers.iter().for_each(|upper| below.entry(*upper).or_default().push(*lower));
    }
    let mut blocked: BTreeMap<TableId, usize> = above.iter().map(|(lower, uppers)| (*lower, uppers.len())).collect();
    let age = |(level, entry): &Leveled| (Reverse(entry.epoch), *level, entry.id);
    let mut left: BTreeMap<TableId, Leveled> = tables.into_iter().map(|table| (table.1.id, table)).collect();
    let is_free = |blocked: &BTreeMap<TableId, usize>, id: TableId| blocked.get(&id).is_none_or(|count| *count == 0);
    let mut free: BTreeSet<(Reverse<Epoch>, Level, TableId)> =
        left.values().filter(|(_, entry)| is_free(&blocked, entry.id)).map(age).collect();
    let mut order =
        TableOrder { tables: Vec::with_capacity(left.len()), above: BTreeMap::new(), contradict: BTreeSet::new() };
    while !left.is_empty() {
        let id = match free.pop_first() {
            Some((.., id)) => id,
            None => {
                let (.., id) = left.values().map(age).min().expect("one is left");
                order.contradict.insert(id);
                id
            }
        };
        order.tables.extend(left.remove(&id));
        for lower in below.get(&id).into_iter().flatten() {
            if let Some(count) = blocked.get_mut(lower) {
                *count -= 1;
                free.extend(left.get(lower).filter(|_| *count == 0).map(age));
            }
        }
    }
    order.above = above;
    order
}
