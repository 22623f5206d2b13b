//! Which tables make up one keyspace: an immutable value, and how an edit makes the next one out of it.
//!
//! - **C3** A level's runs stand newest epoch first; a run's tables are disjoint and ascending.
//! - **R2** A version never changes; holding one keeps its tables.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use internal_key::{Epoch, KeyspaceId, Level, TableId, key_head};
use manifest::{AddedTable, KeyspaceState, TableEntry};

/// Told when the last holder of a table has dropped it (R5). Called from whatever thread that was: only takes note.
pub trait DroppedTables: fmt::Debug + Send + Sync {
    /// Nobody in this process holds `table` of `keyspace` any more.
    fn table_dropped(&self, keyspace: KeyspaceId, table: TableId);
}

/// A table that versions share. `S` is the owner's slot for the opened reader; this crate never opens a table.
pub struct Table<S> {
    /// The keyspace it belongs to.
    pub keyspace: KeyspaceId,
    /// What the manifest says of it.
    pub entry: Arc<TableEntry>,
    /// Where the owner keeps the opened reader.
    pub slot: S,
    /// Last, because fields are dropped in order: who hears of the drop finds the reader closed and its file unmapped.
    _notice: DropNotice,
}

/// Tells of its table's last drop (R5).
struct DropNotice {
    keyspace: KeyspaceId,
    table: TableId,
    on_drop: Weak<dyn DroppedTables>,
}

impl Drop for DropNotice {
    fn drop(&mut self) {
        if let Some(dropped) = self.on_drop.upgrade() {
            dropped.table_dropped(self.keyspace, self.table);
        }
    }
}

impl<S> Table<S> {
    /// A handle for `entry`; `on_drop` hears of the last drop, if it still lives then.
    pub fn new(keyspace: KeyspaceId, entry: Arc<TableEntry>, slot: S, on_drop: Weak<dyn DroppedTables>) -> Self {
        let _notice = DropNotice { keyspace, table: entry.id, on_drop };
        Self { keyspace, entry, slot, _notice }
    }

    /// The table's id.
    pub fn id(&self) -> TableId {
        self.entry.id
    }
}

impl<S> fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Draws the table as golden scripts write it: `t4[a..c]`.
impl<S> fmt::Display for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableEntry { id, min_key, max_key, .. } = &*self.entry;
        write!(f, "{id}[{}..{}]", min_key.escape_ascii(), max_key.escape_ascii())
    }
}

/// Disjoint tables in key order.
#[derive(Debug)]
pub struct Run<S> {
    /// Its age; larger is newer.
    pub epoch: Epoch,
    /// Shared between versions, so that the next version costs nothing for the runs that an edit does not touch.
    tables: Arc<[Arc<Table<S>>]>,
    /// `key_head` of each table's largest key: the fences of a point read, in one array.
    max_heads: Arc<[u64]>,
}

impl<S> Clone for Run<S> {
    fn clone(&self) -> Self {
        Self { epoch: self.epoch, tables: Arc::clone(&self.tables), max_heads: Arc::clone(&self.max_heads) }
    }
}

impl<S> Run<S> {
    /// A run of `tables`, which must be ascending and disjoint.
    pub fn new(epoch: Epoch, tables: Vec<Arc<Table<S>>>) -> Self {
        debug_assert!(
            tables.windows(2).all(|pair| pair[0].entry.max_key < pair[1].entry.min_key),
            "C3: the tables of a run are disjoint and ascending"
        );
        let max_heads = tables.iter().map(|table| key_head(&table.entry.max_key)).collect();
        Self { epoch, tables: tables.into(), max_heads }
    }

    /// A run of `tables`, which must be disjoint, in any order.
    fn sorted(epoch: Epoch, mut tables: Vec<Arc<Table<S>>>) -> Self {
        tables.sort_by(|left, right| left.entry.min_key.cmp(&right.entry.min_key));
        Self::new(epoch, tables)
    }

    /// Its tables, ascending.
    pub fn tables(&self) -> &[Arc<Table<S>>] {
        &self.tables
    }

    /// The index of the first table whose largest key is at or after `user_key`; the table count if there is none.
    #[inline]
    pub fn seek(&self, user_key: &[u8]) -> usize {
        let head = key_head(user_key);
        let index = self.max_heads.partition_point(|&max| max < head);
        if self.max_heads.get(index) != Some(&head) {
            return index;
        }
        // Equal heads decide nothing. Keys with a long common prefix make whole runs of equal heads, so search again.
        let equal = self.max_heads[index..].partition_point(|&max| max == head);
        index + self.tables[index..index + equal].partition_point(|table| *table.entry.max_key < *user_key)
    }

    /// The one table that can hold `user_key`.
    #[inline]
    pub fn find(&self, user_key: &[u8]) -> Option<&Arc<Table<S>>> {
        let table = self.tables.get(self.seek(user_key))?;
        (*table.entry.min_key <= *user_key).then_some(table)
    }

    /// The tables that can hold keys from `min` to `max`, both inclusive.
    pub fn overlapping(&self, min: &[u8], max: &[u8]) -> &[Arc<Table<S>>] {
        let start = self.seek(min);
        let rest = &self.tables[start..];
        &rest[..rest.partition_point(|table| *table.entry.min_key <= *max)]
    }
}

/// The tables of one keyspace, by level and run.
#[derive(Debug)]
pub struct Version<S> {
    levels: Vec<Vec<Run<S>>>,
}

impl<S> Clone for Version<S> {
    fn clone(&self) -> Self {
        Self { levels: self.levels.clone() }
    }
}

impl<S> Default for Version<S> {
    fn default() -> Self {
        Self { levels: (0..Level::COUNT).map(|_| Vec::new()).collect() }
    }
}

/// Why a version has no successor under an edit: an input left it meanwhile (P12).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table} is not in {level}")]
pub struct VersionRefusal {
    /// Where it was expected.
    pub level: Level,
    /// The table.
    pub table: TableId,
}

impl<S> Version<S> {
    /// The version that a keyspace's manifest state describes, with handles made by `open`.
    pub fn from_state(state: &KeyspaceState, mut open: impl FnMut(&Arc<TableEntry>) -> Arc<Table<S>>) -> Self {
        let levels = state
            .levels
            .iter()
            .map(|level| {
                let runs = level.runs.iter();
                runs.map(|run| Run::new(run.epoch, run.tables.iter().map(&mut open).collect())).collect()
            })
            .collect();
        Self { levels }
    }

    /// The runs of a level, newest epoch first.
    pub fn runs(&self, level: Level) -> &[Run<S>] {
        &self.levels[level.index()]
    }

    /// Every run from newest to oldest, with its level.
    pub fn runs_newest_first(&self) -> impl DoubleEndedIterator<Item = (Level, &Run<S>)> {
        self.levels.iter().enumerate().flat_map(|(level, runs)| runs.iter().map(move |run| (Level(level as u8), run)))
    }

    /// Every table with its level.
    pub fn tables(&self) -> impl Iterator<Item = (Level, &Arc<Table<S>>)> {
        self.runs_newest_first().flat_map(|(level, run)| run.tables.iter().map(move |table| (level, table)))
    }

    /// Whether no level holds a table.
    pub fn is_empty(&self) -> bool {
        self.levels.iter().all(Vec::is_empty)
    }

    /// Bytes of the table files in `level`.
    pub fn bytes(&self, level: Level) -> u64 {
        self.runs(level).iter().flat_map(|run| run.tables.iter()).map(|table| table.entry.bytes).sum()
    }

    /// The next version: without `removed`, with `added` in their levels and runs.
    ///
    /// # Errors
    /// If a removed table is not where the edit says. Nothing is changed: `self` is immutable.
    pub fn replace(
        &self,
        removed: &[(Level, TableId)],
        added: &[(AddedTable, Arc<Table<S>>)],
    ) -> Result<Self, VersionRefusal> {
        for &(level, id) in removed {
            let stands = self.runs(level).iter().flat_map(|run| run.tables.iter()).any(|table| table.id() == id);
            if !stands {
                return Err(VersionRefusal { level, table: id });
            }
        }
        let mut levels = self.levels.clone();
        for (index, runs) in levels.iter_mut().enumerate() {
            let level = Level(index as u8);
            let touched = removed.iter().any(|(at, _)| *at == level) || added.iter().any(|(a, _)| a.level == level);
            if !touched {
                continue;
            }
            let mut joining: BTreeMap<Epoch, Vec<Arc<Table<S>>>> = BTreeMap::new();
            for (place, table) in added.iter().filter(|(place, _)| place.level == level) {
                joining.entry(place.run).or_default().push(Arc::clone(table));
            }
            let mut next = Vec::with_capacity(runs.len() + joining.len());
            for run in runs.iter() {
                let leaves = |table: &Arc<Table<S>>| removed.contains(&(level, table.id()));
                let added = joining.remove(&run.epoch);
                if added.is_none() && !run.tables.iter().any(leaves) {
                    next.push(run.clone());
                    continue;
                }
                let kept = run.tables.iter().filter(|table| !leaves(table)).cloned();
                let tables: Vec<_> = kept.chain(added.into_iter().flatten()).collect();
                if !tables.is_empty() {
                    next.push(Run::sorted(run.epoch, tables));
                }
            }
            next.extend(joining.into_iter().map(|(epoch, tables)| Run::sorted(epoch, tables)));
            next.sort_by_key(|run| Reverse(run.epoch));
            *runs = next;
        }
        Ok(Self { levels })
    }
}

/// Draws the version as golden scripts write it, one line a run: `L0 e7: t4[a..c] t5[d..f]`.
impl<S> fmt::Display for Version<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, run) in self.runs_newest_first() {
            write!(f, "{level} {}:", run.epoch)?;
            for table in run.tables.iter() {
                write!(f, " {table}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
