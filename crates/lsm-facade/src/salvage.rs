//! Salvaging: every entry that can be read, oldest first, into a new database. The source stays as it is.
//!
//! ```text
//!   find out ─▶ whole tables, oldest run first         ─▶ inserts and removals ─┐
//!            ├▶ damaged ones, what nothing newer hides   ─▶ the same             ├─▶ a new database
//!            └▶ log, from what the tables reach on       ─▶ the same             │
//!                                                                                └─▶ ranges lost
//! ```
//!
//! - **C3** A newer run's version of a key is written over an older one's. A damaged table may lie anywhere: of each of its
//!   rows the whole tables are asked whether they hold a newer one. Where a newer one is lost, the older is what is found: the
//!   report says in which ranges that can be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use internal_key::{InternalKey, KeyspaceId, Kind, SeqNo, TableId};
use manifest::{LogFloor, RunEntry};
use sstable_format::{Expected, TableReader};
use write_ahead_log::{Record, RecordKind, ReplayOptions};

use crate::batch_format::{self, BatchReference};
use crate::core::replay_log;
use crate::open::RecordError;
use crate::options::{DatabaseBuilder, DatabaseOptions, KeyspaceOptions};
use crate::rescue::{Finding, find_out};
use crate::{Database, Error, Keyspace, Result, WriteBatch, verify};

/// Keys that may be missing, or have an older value than they had.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LostKeys {
    /// The keyspace's name in the new database; `None` if nobody knows whose they were.
    pub keyspace: Option<String>,
    /// The damaged file.
    pub file: PathBuf,
    /// Keys from this one on, inclusive; `None`: from the first.
    pub from: Option<Vec<u8>>,
    /// Keys up to this one, inclusive; `None`: to the last.
    pub to: Option<Vec<u8>>,
    /// What is wrong.
    pub why: String,
}

/// What [`DatabaseBuilder::salvage_into`](crate::DatabaseBuilder::salvage_into) copied, and what it could not read.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SalvageReport {
    /// Keyspaces in the new database.
    pub keyspaces: u64,
    /// Entries read from tables.
    pub table_entries: u64,
    /// Entries read from the log.
    pub log_entries: u64,
    /// Ranges of keys that are lost or may be older than they were.
    pub lost: Vec<LostKeys>,
    /// Stretches of the log that could not be read.
    pub log_lost: Vec<String>,
    /// What cannot be known: names, what may reappear.
    pub notes: Vec<String>,
}

pub(crate) fn salvage(source: &Path, options: &DatabaseOptions, target: DatabaseBuilder) -> Result<SalvageReport> {
    let found = find_out(&options.environment, source)?;
    let database = target.create_if_missing(true).error_if_exists(true).open()?;
    let hidden = Hidden { options, found: &found, given: BTreeMap::new() };
    let (keyspaces, report) = (BTreeMap::new(), SalvageReport::default());
    let mut copy = Copy { options, found: &found, database, keyspaces, hidden, report };
    copy.report.notes.clone_from(&found.notes);
    copy.report.log_lost.clone_from(&found.log.skipped);
    copy.create_keyspaces()?;
    copy.tables()?;
    copy.log()?;
    copy.report.keyspaces = copy.keyspaces.len() as u64;
    copy.database.flush()?;
    copy.database.close()?;
    Ok(copy.report)
}

/// Entries written at once.
const BATCH_ENTRIES: usize = 1000;
/// Bytes above which no more are.
const BATCH_BYTES: usize = 1 << 20;

struct Copy<'a> {
    options: &'a DatabaseOptions,
    found: &'a Finding,
    database: Database,
    keyspaces: BTreeMap<KeyspaceId, Keyspace>,
    hidden: Hidden<'a>,
    report: SalvageReport,
}

/// What hides rows of damaged tables.
struct Hidden<'a> {
    options: &'a DatabaseOptions,
    found: &'a Finding,
    /// Of each key that a damaged table gave, the newest row's sequence number: kept where another damaged table may hold the
    /// key too.
    given: BTreeMap<(KeyspaceId, Vec<u8>), SeqNo>,
}

/// The same, for the rows of one table in ascending order of keys.
struct HiddenOf<'h, 'a> {
    hidden: &'h mut Hidden<'a>,
    keyspace: KeyspaceId,
    /// What is added to the sequence numbers as stored.
    base: SeqNo,
    /// Whether another damaged table may hold the same keys.
    has_others: bool,
    /// Each run of whole tables, and the table of it that was asked last.
    runs: Vec<(&'a RunEntry, Option<(TableId, TableReader)>)>,
}

impl Copy<'_> {
    fn create_keyspaces(&mut self) -> Result<()> {
        for state in self.found.manifest.keyspaces.values() {
            let options = KeyspaceOptions::from_manifest(&state.options).unwrap_or_else(|error| {
                self.report.notes.push(format!("the options of {:?} are not kept: {error}", state.name));
                KeyspaceOptions::default()
            });
            self.keyspaces.insert(state.id, self.database.create_keyspace(&state.name, options)?);
        }
        Ok(())
    }

    /// Every whole table, the oldest run first; then what is left of the damaged ones.
    fn tables(&mut self) -> Result<()> {
        for state in self.found.manifest.keyspaces.values() {
            let mut tables: Vec<_> = state.tables().collect();
            tables.sort_by_key(|(level, epoch, _)| (std::cmp::Reverse(*level), *epoch));
            for (_, _, entry) in tables {
                self.table(state.id, entry.id, (Some(&entry.min_key), Some(&entry.max_key)))?;
            }
        }
        for (id, keyspace) in &self.found.damaged {
            self.damaged(*id, *keyspace)?;
        }
        Ok(())
    }

    fn damaged(&mut self, id: TableId, keyspace: Option<KeyspaceId>) -> Result<()> {
        match keyspace.filter(|keyspace| self.keyspaces.contains_key(keyspace)) {
            Some(keyspace) => {
                let bounds = self.found.hints.get(&id).map(|hint| (&*hint.min_key, &*hint.max_key)).unzip();
                self.table(keyspace, id, bounds)?;
                if let Some((min, max)) = self.found.unplaced.get(&id) {
                    let why =
                        "the table of a batch, and nothing tells its place: its rows stand below all others".to_owned();
                    self.lost(Some(keyspace), id, (Some(min), Some(max)), why);
                }
                Ok(())
            }
            None => {
                let why = "damaged, and nothing tells whose it is".to_owned();
                self.lost(None, id, (None, None), why);
                Ok(())
            }
        }
    }

    fn lost(&mut self, keyspace: Option<KeyspaceId>, id: TableId, bounds: (Option<&[u8]>, Option<&[u8]>), why: String) {
        let keyspace = keyspace.and_then(|id| self.keyspaces.get(&id)).map(|keyspace| keyspace.name().to_owned());
        let (from, to) = (bounds.0.map(<[u8]>::to_vec), bounds.1.map(<[u8]>::to_vec));
        self.report.lost.push(LostKeys { keyspace, file: self.found.paths.table(id), from, to, why });
    }

    /// What can be read of one table.
    fn table(&mut self, keyspace: KeyspaceId, id: TableId, bounds: (Option<&[u8]>, Option<&[u8]>)) -> Result<()> {
        let path = self.found.paths.table(id);
        let Some(target) = self.keyspaces.get(&keyspace).cloned() else { return Ok(()) };
        let mut writer = Writer { database: &self.database, batch: self.database.batch() };
        let mut hidden = self.found.damaged.contains_key(&id).then(|| self.hidden.of(id, keyspace));
        let mut last: Option<Vec<u8>> = None;
        let on_entry = |key: InternalKey<'_>, value: &[u8]| -> Result<()> {
            // Newest first: of a key's versions only the first counts.
            if last.as_deref() == Some(key.user_key) {
                return Ok(());
            }
            last = Some(key.user_key.to_vec());
            if let Some(hidden) = &mut hidden
                && hidden.hides(key.user_key, key.trailer.seqno())?
            {
                return Ok(());
            }
            writer.apply(&target, key.trailer.kind(), key.user_key, value)
        };
        match sstable_format::salvage(&*self.options.environment.files, &path, on_entry) {
            Ok(salvaged) => {
                writer.write()?;
                self.report.table_entries += salvaged.entries;
                for range in salvaged.lost {
                    let why = format!("{} bytes at offset {} cannot be read", range.bytes, range.offset);
                    let from = range.after.as_deref().or(bounds.0);
                    let to = range.before.as_deref().or(bounds.1);
                    self.lost(Some(keyspace), id, (from, to), why);
                }
            }
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                self.lost(Some(keyspace), id, bounds, error.to_string());
            }
            Err(error @ Error::Io { .. }) if !self.options.environment.files.exists(&path)? => {
                self.lost(Some(keyspace), id, bounds, error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the log holds beyond the tables; where tables are lost, all that it holds.
    fn log(&mut self) -> Result<()> {
        let manifest = self.found.manifest.clone();
        if manifest.log_floor == LogFloor::default() {
            return Ok(());
        }
        let (environment, paths) = (self.options.environment.clone(), self.found.paths.clone());
        let on_record = |record: Record<'_>| Ok(self.record(&record)?);
        replay_log(&environment, &paths, &manifest, ReplayOptions { salvage: true }, on_record)?;
        Ok(())
    }

    /// Whether the log's entry at `seqno` counts. One that the tables hold already does only where they lost something and
    /// it hides nothing newer: the log is whole, and so a suffix of all writes, and no clear and no batch outside of it
    /// follows.
    fn counts(&self, keyspace: KeyspaceId, seqno: SeqNo) -> bool {
        let Some(state) = self.found.manifest.keyspaces.get(&keyspace) else { return false };
        let log = &self.found.log;
        let lost = || self.found.damaged.values().any(|of| of.is_none_or(|of| of == keyspace));
        let in_tables = |(id, first, _)| first <= state.flushed_seqno && !self.found.damaged.contains_key(&id);
        let hides_nothing =
            || !log.clear_follows(keyspace, seqno) && !log.batches_behind(keyspace, seqno).any(in_tables);
        seqno > state.flushed_seqno || lost() && log.skipped.is_empty() && hides_nothing()
    }

    fn record(&mut self, record: &Record<'_>) -> Result<()> {
        let wrong =
            |what: String| Error::corrupt(RecordError { what: format!("record at {}: {what}", record.position) });
        match record.kind {
            RecordKind::Batch => {
                let mut writer = Writer { database: &self.database, batch: self.database.batch() };
                let entries = batch_format::decode(record.payload).map_err(|error| wrong(error.to_string()))?;
                for (entry, offset) in entries.zip(0_u64..) {
                    let entry = entry.map_err(|error| wrong(error.to_string()))?;
                    let seqno = record.first_seqno.checked_add(offset).unwrap_or(SeqNo::MAX);
                    let Some(keyspace) = self.keyspaces.get(&entry.keyspace) else { continue };
                    if self.counts(entry.keyspace, seqno) {
                        writer.apply(keyspace, entry.kind, entry.key, entry.value)?;
                        self.report.log_entries += 1;
                    }
                }
                writer.write()
            }
            RecordKind::BatchReference => {
                let reference = BatchReference::decode(record.payload).map_err(|error| wrong(error.to_string()))?;
                for part in &reference.parts {
                    // One that is flushed is among the tables, or in what it was merged into.
                    let state = self.found.manifest.keyspaces.get(&part.keyspace);
                    let damaged = self.found.damaged.contains_key(&part.table);
                    if damaged || state.is_some_and(|state| record.first_seqno > state.flushed_seqno) {
                        self.table(part.keyspace, part.table, (None, None))?;
                    }
                }
                Ok(())
            }
            RecordKind::ClearKeyspace | RecordKind::DropKeyspace => {
                let id = batch_format::decode_keyspace(record.payload).map_err(|error| wrong(error.to_string()))?;
                if !self.counts(id, record.first_seqno) {
                    return Ok(());
                }
                match record.kind {
                    RecordKind::ClearKeyspace => self.keyspaces.get(&id).map_or(Ok(()), Keyspace::clear),
                    _ => match self.keyspaces.remove(&id) {
                        Some(keyspace) => self.database.drop_keyspace(keyspace.name()),
                        None => Ok(()),
                    },
                }
            }
            _ => Ok(()),
        }
    }
}

impl<'a> Hidden<'a> {
    fn of(&mut self, table: TableId, keyspace: KeyspaceId) -> HiddenOf<'_, 'a> {
        let found = self.found;
        let of_keyspace = |of: &&Option<KeyspaceId>| of.is_none_or(|of| of == keyspace);
        let levels = found.manifest.keyspaces.get(&keyspace).into_iter().flat_map(|state| &state.levels);
        HiddenOf {
            hidden: self,
            keyspace,
            base: found.base_of(table),
            has_others: found.damaged.values().filter(of_keyspace).count() > 1,
            runs: levels.flat_map(|level| &level.runs).map(|run| (run, None)).collect(),
        }
    }
}

impl HiddenOf<'_, '_> {
    /// Whether a newer row of `key` than the one stored with `seqno` is found elsewhere.
    fn hides(&mut self, key: &[u8], seqno: SeqNo) -> Result<bool> {
        if planted_faults::planted("facade-salvage-takes-hidden-rows") {
            return Ok(false);
        }
        let Hidden { options, found, given } = &mut *self.hidden;
        let seqno = self.base.checked_add(seqno.get()).unwrap_or(SeqNo::MAX);
        for (run, asked) in &mut self.runs {
            let at = run.tables.partition_point(|table| *table.max_key < *key);
            let Some(entry) = run.tables.get(at).filter(|entry| *entry.min_key <= *key && entry.max_seqno > seqno)
            else {
                continue;
            };
            let table = match asked.take() {
                Some((id, table)) if id == entry.id => table,
                _ => {
                    let expected = Expected {
                        bytes: entry.bytes,
                        database_id: found.manifest.database_id.0,
                        keyspace: self.keyspace,
                        table: entry.id,
                        seqno_base: entry.seqno_base,
                    };
                    verify::open(&*options.environment.files, &found.paths.table(entry.id), expected)?
                }
            };
            let newest = table.get_unfiltered(key, SeqNo::MAX)?.map(|newest| newest.trailer.seqno());
            *asked = Some((entry.id, table));
            if newest.is_some_and(|newest| newest > seqno) {
                return Ok(true);
            }
        }
        if self.has_others {
            let newest = given.entry((self.keyspace, key.to_vec())).or_insert(seqno);
            if *newest > seqno {
                return Ok(true);
            }
            *newest = seqno;
        }
        Ok(false)
    }
}

/// Writes entries in batches.
struct Writer<'a> {
    database: &'a Database,
    batch: WriteBatch,
}

impl Writer<'_> {
    fn apply(&mut self, keyspace: &Keyspace, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        match kind {
            Kind::Put => self.batch.insert(keyspace, key, value)?,
            Kind::Delete | Kind::SingleDelete => self.batch.remove(keyspace, key)?,
            other => {
                let what = format!("an entry of kind {other}, which this version does not read");
                return Err(Error::Unsupported { source: Arc::new(RecordError { what }) });
            }
        }
        if self.batch.len() >= BATCH_ENTRIES || self.batch.bytes() >= BATCH_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        if !self.batch.is_empty() {
            self.database.write(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}
