//! One keyspace of real tables on a simulated disk: what compaction needs of a database, and no more.

#![allow(dead_code, reason = "each test uses a part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use compaction::{
    Busy, Cancel, Collector, CompactionOptions, Control, KeySpan, Landmark, OlderRuns, Output, Outputs, Plan, PlanKind,
    Progress, RunError, cut_keys, merge_into_tables, merge_part, next_level_bounds,
};
use file_system::{FileSystem, SimulatedFileSystem, Simulation};
use internal_key::{Cursor, Epoch, JobId, KeyspaceId, Level, SeqNo, TableId, Trailer};
use manifest::paths::table_name;
use manifest::{AddedTable, Change, DatabaseId, TableEntry};
use merge_iterator::{MergeCursor, SliceCursor};
use sstable_format::{Expected, ReadOptions, TableError, TableOptions, TableReader};
use version_history::{DroppedTables, Table, Version};

pub(crate) const KEYSPACE: KeyspaceId = KeyspaceId(1);
pub(crate) const DATABASE: DatabaseId = DatabaseId(0x5eed);

pub(crate) type Entry = (Vec<u8>, Trailer, Vec<u8>);

pub(crate) fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

#[derive(Debug)]
struct Nobody;

impl DroppedTables for Nobody {
    fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
}

pub(crate) struct Store {
    pub(crate) files: Arc<SimulatedFileSystem>,
    pub(crate) dir: PathBuf,
    pub(crate) version: Version<()>,
    pub(crate) busy: Busy,
    pub(crate) options: CompactionOptions,
    pub(crate) table_options: TableOptions,
    pub(crate) next_table: AtomicU64,
    pub(crate) next_job: u64,
    pub(crate) cancel: AtomicBool,
    pub(crate) progress: Progress,
}

/// What a reader at a seqno needs to be answered the same before and after.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readers {
    pub(crate) floor: SeqNo,
    pub(crate) snapshots: Vec<SeqNo>,
}

impl Store {
    pub(crate) fn new(seed: u64) -> Self {
        let files = Simulation::new(seed).files;
        let dir = PathBuf::from("/tables");
        files.create_dir(&dir).unwrap();
        files.sync_dir(Path::new("/")).unwrap();
        Self {
            files,
            dir,
            version: Version::default(),
            busy: Busy::new(),
            options: CompactionOptions::default(),
            table_options: TableOptions { block_bytes: 256, ..TableOptions::default() },
            next_table: AtomicU64::new(1),
            next_job: 1,
            cancel: AtomicBool::new(false),
            progress: Progress::default(),
        }
    }

    pub(crate) fn open(&self, entry: &TableEntry) -> Arc<TableReader> {
        self.open_in(&*self.files, entry).unwrap()
    }

    pub(crate) fn open_in(&self, files: &dyn FileSystem, entry: &TableEntry) -> Result<Arc<TableReader>, TableError> {
        let expected = Expected {
            bytes: entry.bytes,
            database_id: DATABASE.0,
            keyspace: KEYSPACE,
            table: entry.id,
            seqno_base: entry.seqno_base,
        };
        let path = self.dir.join(table_name(entry.id));
        TableReader::open(files, &path, expected, ReadOptions::default()).map(Arc::new)
    }

    pub(crate) fn entries(&self, entry: &TableEntry) -> Vec<Entry> {
        read_all(self.open(entry).cursor())
    }

    /// The names in the directory of the tables.
    pub(crate) fn names(&self) -> Vec<String> {
        self.files.read_dir(&self.dir).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    /// Writes what a collector keeps of any cursor.
    pub(crate) fn write<C: Cursor>(
        &self,
        cursor: C,
        collector: &mut Collector<'_, impl FnMut(&[u8]) -> bool>,
        place: (Level, Epoch),
        (inputs, bounds, span): (&[TableId], &[Box<[u8]>], KeySpan<'_>),
        before_write: &dyn Fn(u64),
    ) -> Result<Outputs, RunError<C::Error>> {
        let output = Output {
            files: &*self.files,
            dir: &self.dir,
            table_options: &self.table_options,
            table_bytes_target: self.options.table_bytes_target,
            bounds,
            next_table_id: &|| TableId(self.next_table.fetch_add(1, Ordering::Relaxed)),
            database_id: DATABASE,
            keyspace: KEYSPACE,
            level: place.0,
            epoch: place.1,
            job: JobId(self.next_job),
            inputs,
            span,
            newest_unix_ms: 0,
        };
        let control = Control { cancel: Cancel::when(&self.cancel), progress: &self.progress, before_write };
        // A flush is whole by itself.
        if inputs.is_empty() {
            merge_into_tables(cursor, collector, &output, &control)
        } else {
            merge_part(cursor, collector, &output, &control)
        }
    }

    /// Writes memtables, newest first, as one run, dropping what the readers do not need.
    pub(crate) fn flush(
        &self,
        memtables: Vec<SliceCursor>,
        level: Level,
        epoch: Epoch,
        readers: &Readers,
    ) -> Result<Outputs, RunError<std::convert::Infallible>> {
        let mut older = OlderRuns::all(&self.version);
        let mut collector = Collector::new(readers.floor, &readers.snapshots, |key: &[u8]| older.may_hold(key));
        self.write(MergeCursor::new(memtables), &mut collector, (level, epoch), (&[], &[], KeySpan::default()), &|_| {})
    }

    /// Carries out a plan up to its edit.
    pub(crate) fn carry_out(
        &self,
        plan: &Plan,
        readers: &Readers,
        before_write: &dyn Fn(u64),
    ) -> Result<Option<Outputs>, RunError<TableError>> {
        self.carry_out_in_parts(plan, readers, 1, before_write)
    }

    /// The same, cut into at most so many parts, one after the other.
    pub(crate) fn carry_out_in_parts(
        &self,
        plan: &Plan,
        readers: &Readers,
        parts: usize,
        before_write: &dyn Fn(u64),
    ) -> Result<Option<Outputs>, RunError<TableError>> {
        if plan.kind != PlanKind::Merge {
            return Ok(None);
        }
        let ids: Vec<TableId> = plan.inputs.iter().map(|(_, id)| *id).collect();
        let tables: Vec<_> = self.version.tables().filter(|(_, table)| ids.contains(&table.id())).collect();
        let bounds = next_level_bounds(plan, &self.version);
        let cuts = if parts > 1 { self.cuts(&tables, parts, &bounds) } else { Vec::new() };
        let place = (plan.output_level, plan.table_epoch);
        let mut outputs = Outputs::default();
        for part in 0..=cuts.len() {
            let open = |entry| self.open_in(&*self.files, entry).map(|reader| reader.cursor_for_compaction());
            let cursors: Result<Vec<_>, _> = tables.iter().map(|(_, table)| open(&table.entry)).collect();
            let written = cursors.map_err(RunError::Read).and_then(|cursors| {
                let mut older = plan.older_runs(&self.version);
                let mut collector = Collector::new(readers.floor, &readers.snapshots, |key: &[u8]| older.may_hold(key));
                let part = (&ids[..], &bounds[..], KeySpan::of_part(&cuts, part));
                self.write(MergeCursor::new(cursors), &mut collector, place, part, before_write)
            });
            match written {
                Ok(written) => outputs.append(written),
                Err(error) => {
                    let made = outputs.tables.iter().map(|table| table.id);
                    compaction::remove_tables(&*self.files, &self.dir, made).unwrap();
                    return Err(error);
                }
            }
        }
        compaction::sync_tables(&*self.files, &self.dir, &outputs.tables).map_err(RunError::Install)?;
        Ok(Some(outputs))
    }

    fn cuts(&self, tables: &[(Level, &Arc<Table<()>>)], parts: usize, bounds: &[Box<[u8]>]) -> Vec<Box<[u8]>> {
        let mut landmarks = Vec::new();
        for (_, table) in tables {
            let mut before = 0;
            for (key, blocks) in self.open(&table.entry).landmarks(20).unwrap() {
                landmarks.push(Landmark { key, bytes: blocks - before });
                before = blocks;
            }
            landmarks.push(Landmark { key: table.entry.max_key.clone(), bytes: 1 });
        }
        cut_keys(landmarks, parts, bounds)
    }

    pub(crate) fn add_run(&mut self, level: Level, run: Epoch, tables: &[Arc<TableEntry>]) {
        let added = tables.iter().cloned().map(|table| AddedTable { level, run, table }).collect();
        self.replace(&[], added);
    }

    pub(crate) fn install(&mut self, plan: &Plan, outputs: Option<&Outputs>) {
        let tables = outputs.map_or(&[][..], |outputs| &outputs.tables);
        let Change::ReplaceTables { removed, added, .. } = plan.change(KEYSPACE, &self.version, tables) else {
            panic!("another change");
        };
        self.replace(&removed, added);
    }

    fn replace(&mut self, removed: &[(Level, TableId)], added: Vec<AddedTable>) {
        let on_drop: Weak<dyn DroppedTables> = Weak::<Nobody>::new();
        let table = |place: &AddedTable| Arc::new(Table::new(KEYSPACE, place.table.clone(), (), on_drop.clone()));
        let added: Vec<_> = added.into_iter().map(|place| (place.clone(), table(&place))).collect();
        self.version = self.version.replace(removed, &added).unwrap();
    }

    /// The newest version of `key` at or below `at`, as a point read finds it: the first run that has one decides (C3).
    pub(crate) fn get(&self, key: &[u8], at: SeqNo) -> Option<(SeqNo, Vec<u8>)> {
        for (_, run) in self.version.runs_newest_first() {
            let Some(table) = run.find(key) else { continue };
            if let Some(found) = self.open(&table.entry).get_unfiltered(key, at).unwrap() {
                let trailer = found.trailer;
                return (!trailer.kind().is_tombstone()).then(|| (trailer.seqno(), found.value.into_vec()));
            }
        }
        None
    }
}

pub(crate) fn read_all<C: Cursor>(mut cursor: C) -> Vec<Entry>
where
    C::Error: std::fmt::Debug,
{
    let mut entries = Vec::new();
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        let (key, trailer) = (cursor.user_key().to_vec(), cursor.trailer());
        let value = cursor.value().unwrap().to_vec();
        entries.push((key, trailer, value));
        cursor.next().unwrap();
    }
    entries
}
