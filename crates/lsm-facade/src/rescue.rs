//! Rescuing: what repair and salvage find out about a database without trusting its manifest.
//!
//! ```text
//!   tables (headers, properties) ─┐
//!   log (records, references)    ─┼─▶ Finding ─▶ repair:  a manifest that says it, in place; the old files are kept aside
//!   level files, global.json     ─┘          └─▶ salvage: every readable entry, oldest first, into a new database
//!   (hints, if they can be read)
//! ```
//!
//! - **M2** A table's properties say whose it is, how old, and what it was made of, so that a manifest can be made anew.
//! - **C3** Tables stand in the order that their rows say, and by epoch where these say nothing (`table_order`). A table whose
//!   inputs are all there was perhaps never installed: the inputs stand for it. One whose inputs are not all there was: it
//!   stands for them.
//! - **L5** The log begins where seals lead to its end: segments that wait to be written over are no part of it.
//! - **P6** Whatever a keyspace's tables reach is flushed; the log holds the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::{Environment, FileSystem};
use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, SeqNo, TableId};
use manifest::global::GLOBAL_BYTES_MAX;
use manifest::level::{LEVEL_BYTES_MAX, LevelIdentity};
use manifest::{
    AddedTable, Change, DatabaseId, DatabasePaths, Edit, FollowerStore, LogFloor, Manifest, ManifestError, OpenMode,
    TableEntry,
};
use serde_json::Value;
use sstable_format::{Access, Properties, ReadOptions, TableReader};
use write_ahead_log::{Inspected, Inspection, LogPosition, Record, RecordKind, ReplayOptions, SegmentName};

use crate::batch_format::{self, BatchPart, BatchReference};
use crate::core::{claimed, floor_segment, unix_ms};
use crate::options::KeyspaceOptions;
use crate::table_order::{self, Leveled, TableOrder};
use crate::verify::checksum;
use crate::{Error, Result};

/// A file that is left out, and why.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LeftOut {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub why: String,
}

/// What a keyspace is called, and its options as the manifest keeps them.
type Named = (String, BTreeMap<String, Value>);

/// A table that is whole.
struct Candidate {
    properties: Properties,
    bytes: u64,
    checksum: u64,
}

/// What the log says, as far as it can be read.
#[derive(Default)]
pub(crate) struct LogFinding {
    /// Batch tables with the sequence number that their record begins with.
    references: BTreeMap<TableId, (SeqNo, BatchPart)>,
    keyspaces: BTreeSet<KeyspaceId>,
    /// The last clear of each keyspace.
    clears: BTreeMap<KeyspaceId, SeqNo>,
    /// The last sequence number that a record holds.
    pub(crate) last_seqno: SeqNo,
    /// Stretches that cannot be read.
    pub(crate) skipped: Vec<String>,
}

/// What a database consists of.
pub(crate) struct Finding {
    pub(crate) paths: DatabasePaths,
    /// What its manifest would have to say; closed, it would open.
    pub(crate) manifest: Manifest,
    /// Whether the former manifest can be read, so that only what it names counts.
    pub(crate) manifest_was_whole: bool,
    /// Tables that are damaged and that the database needs, by keyspace if that can be told.
    pub(crate) damaged: BTreeMap<TableId, Option<KeyspaceId>>,
    /// Whole ones among them, tables of batches whose place in the order of writes nothing tells, and their smallest and largest
    /// keys.
    pub(crate) unplaced: BTreeMap<TableId, (Vec<u8>, Vec<u8>)>,
    /// Tables and segments that the manifest will not name.
    pub(crate) left_out: Vec<LeftOut>,
    /// What cannot be known, and what may be wrong with what is kept.
    pub(crate) notes: Vec<String>,
    pub(crate) log: LogFinding,
    /// What the level files that can be read say of tables, the damaged ones too.
    pub(crate) hints: BTreeMap<TableId, Arc<TableEntry>>,
}

/// Looks through the database in `path`. Writes nothing.
pub(crate) fn find_out(environment: &Environment, path: &Path) -> Result<Finding> {
    let files = &*environment.files;
    if !files.exists(path)? {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    let paths = DatabasePaths::new(path);
    if files.exists(&paths.former())? && !files.exists(&paths.global())? {
        let what = format!("{}: a manifest of the former layout is repaired by opening it", paths.former().display());
        return Err(Error::InvalidInput { what });
    }
    let (notes, left_out, unplaced) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut search = Search { environment, files, paths: &paths, notes, left_out, unplaced };
    let manifest = match FollowerStore::open(environment, path) {
        Ok(store) => Some(store.current()),
        Err(ManifestError::Io(error)) => return Err(Error::from_file(error)),
        Err(error @ ManifestError::NotFound { .. }) => return Err(error.into()),
        Err(error) => {
            search.notes.push(format!("the manifest cannot be read: {error}"));
            None
        }
    };
    let global = files.read(&paths.global(), GLOBAL_BYTES_MAX).ok();
    let decoded =
        global.as_deref().and_then(|bytes| manifest::global::decode(&paths.global(), bytes, OpenMode::ReadOnly).ok());
    let (whole, broken) = search.tables()?;
    let (segments, broken_segments) = search.segments()?;
    let database_id = match (&manifest, &decoded) {
        (Some(manifest), _) => manifest.database_id,
        (None, Some(global)) => global.manifest.database_id,
        (None, None) => {
            let tables = whole.values().map(|table| table.properties.identity.database_id);
            let all = tables.chain(segments.values().map(|(id, _)| *id));
            let mut votes = BTreeMap::<u128, u64>::new();
            all.for_each(|id| *votes.entry(id).or_default() += 1);
            let most = votes.into_iter().max_by_key(|(_, count)| *count);
            let nothing = || {
                let what = format!("{}: no table and no log segment can be read", path.display());
                Error::corrupt(crate::open::RecordError { what })
            };
            DatabaseId(most.ok_or_else(nothing)?.0)
        }
    };
    let segments: BTreeMap<SegmentId, SegmentName> =
        segments.into_iter().filter(|(_, (id, _))| *id == database_id.0).map(|(id, (_, name))| (id, name)).collect();
    let (hints, generation) = search.hints(database_id)?;
    let names = match (&manifest, &decoded) {
        (Some(manifest), _) => names_of(manifest),
        (None, Some(global)) => names_of(&global.manifest),
        (None, None) => search.names_from_damaged_text(global.as_deref().unwrap_or_default()),
    };
    let floor = match &manifest {
        Some(manifest) if manifest.log_floor == LogFloor::default() => {
            search.unnamed_log(manifest, &segments)?.unwrap_or_default()
        }
        Some(manifest) => manifest.log_floor,
        None => search.begin_of_log(&segments, &broken_segments)?,
    };
    let claim = manifest.as_ref().map_or_else(LogPosition::default, |manifest| claimed(manifest.claim));
    let log = search.log(database_id, floor, claim)?;
    for (segment, why) in &broken_segments {
        search.left_out.push(LeftOut { file: paths.segment(*segment), why: why.clone() });
    }
    let (mut found, damaged) = match &manifest {
        Some(manifest) => search.keep(manifest, &whole, &broken, &log)?,
        None => search.make_anew(database_id, &whole, &broken, &hints, &names, &log)?,
    };
    // Numbers that nothing may be given again.
    let above = |id: Option<u64>| id.map_or(1, |id| id.saturating_add(1));
    let tables = whole.keys().chain(broken.keys()).map(|id| id.get()).max();
    let segment = segments.keys().map(|id| id.get()).chain(broken_segments.iter().map(|(id, _)| id.get())).max();
    let edit = Edit::of(Change::RaiseNextIds {
        table: TableId(above(tables)),
        segment: SegmentId(above(segment)),
        job: JobId(above(whole.values().map(|table| table.properties.identity.job.get()).max())),
        epoch: Epoch(above(whole.values().map(|table| table.properties.identity.epoch.get()).max())),
    })
    .and(Change::RaiseLogFloor(floor));
    found = apply(&found, edit)?;
    found.generation = found.generation.max(generation).max(decoded.map_or(0, |global| global.manifest.generation));
    let Search { notes, left_out, unplaced, .. } = search;
    let manifest_was_whole = manifest.is_some();
    Ok(Finding { manifest: found, manifest_was_whole, damaged, unplaced, left_out, notes, log, hints, paths })
}

fn names_of(manifest: &Manifest) -> BTreeMap<KeyspaceId, Named> {
    let named = |state: &Arc<manifest::KeyspaceState>| (state.id, (state.name.clone(), state.options.clone()));
    manifest.keyspaces.values().map(named).collect()
}

fn apply(manifest: &Manifest, edit: Edit) -> Result<Manifest> {
    manifest.apply(&edit).map_err(|refusal| {
        let what = format!("what the files say does not fit together: {refusal}");
        Error::corrupt(crate::open::RecordError { what })
    })
}

struct Search<'a> {
    environment: &'a Environment,
    files: &'a dyn FileSystem,
    paths: &'a DatabasePaths,
    notes: Vec<String>,
    left_out: Vec<LeftOut>,
    unplaced: BTreeMap<TableId, (Vec<u8>, Vec<u8>)>,
}

impl Search<'_> {
    fn names_in(&self, dir: &Path) -> Result<Vec<String>> {
        match self.files.read_dir(dir) {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every table file: those that are whole, and why the others are not.
    fn tables(&self) -> Result<(BTreeMap<TableId, Candidate>, BTreeMap<TableId, Error>)> {
        let (mut whole, mut broken) = (BTreeMap::new(), BTreeMap::new());
        for name in self.names_in(&self.paths.tables_dir())? {
            let Some(id) = manifest::paths::parse_table_name(&name) else { continue };
            match self.table(id) {
                Ok(table) => drop(whole.insert(id, table)),
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => drop(broken.insert(id, error)),
                Err(error) => return Err(error),
            }
        }
        Ok((whole, broken))
    }

    fn table(&self, id: TableId) -> Result<Candidate> {
        let path = self.paths.table(id);
        let (expected, identity) = sstable_format::identify(self.files, &path)?;
        if identity.table != id {
            let what = format!("{}: expected table {id}, found table {}", path.display(), identity.table);
            return Err(Error::corrupt(crate::open::RecordError { what }));
        }
        let options = ReadOptions { access: Access::Pread, block_cache: None };
        let reader = TableReader::open(self.files, &path, expected, options)?;
        sstable_format::verify(&reader)?;
        let properties = reader.properties().clone();
        Ok(Candidate { properties, bytes: expected.bytes, checksum: checksum(self.files, &path)? })
    }

    /// Where a log with records begins that the manifest does not name: the edit that named it is gone.
    fn unnamed_log(
        &mut self,
        manifest: &Manifest,
        segments: &BTreeMap<SegmentId, SegmentName>,
    ) -> Result<Option<LogFloor>> {
        let dir = self.paths.log_dir();
        let Some(path) = write_ahead_log::holds_records(self.environment, &dir, manifest.next_segment_id)? else {
            return Ok(None);
        };
        let first = segments.values().find(|name| self.paths.segment(name.id) == path);
        if let Some(name) = first {
            self.notes.push(format!("{}: a log that the manifest does not name, taken as its log", path.display()));
            return Ok(Some(LogFloor { segment: name.id, salt: name.salt }));
        }
        Ok(None)
    }

    /// Where the log begins, without a manifest that says so: in the first segment from which seals lead to where it ends.
    /// Before it lie segments that wait to be written over (L5). Their records are whole, but not all that followed is there.
    fn begin_of_log(
        &mut self,
        segments: &BTreeMap<SegmentId, SegmentName>,
        broken: &[(SegmentId, String)],
    ) -> Result<LogFloor> {
        let mut leads_on: BTreeMap<SegmentId, bool> = BTreeMap::new();
        // A seal names a larger id.
        for id in segments.keys().rev() {
            let leads = match self.successor(*id)? {
                // The last, or one with a damaged end, which is for replay to report.
                None => true,
                Some(next) if segments.get(&next.id) == Some(&next) => leads_on[&next.id],
                Some(next) => broken.iter().any(|(broken, _)| *broken == next.id),
            };
            leads_on.insert(*id, leads);
        }
        let begin = leads_on.iter().find(|(_, leads)| **leads).map(|(id, _)| segments[id]);
        for id in leads_on.keys().take_while(|id| begin.is_none_or(|begin| **id < begin.id)) {
            let file = self.paths.segment(*id);
            self.notes.push(format!(
                "{}: what follows it is gone, taken for a segment that waited to be written over",
                file.display()
            ));
        }
        Ok(begin.map_or_else(LogFloor::default, |name| LogFloor { segment: name.id, salt: name.salt }))
    }

    /// What the seal of a segment names; `None` if none can be read.
    fn successor(&self, id: SegmentId) -> Result<Option<SegmentName>> {
        for stretch in Inspection::open(self.files, &self.paths.segment(id))? {
            let stretch = stretch?;
            if let Inspected::Record { successor: Some(next), .. } = stretch
                && stretch.payload_is_whole() == Some(true)
                && next.id > id
            {
                return Ok(Some(next));
            }
        }
        Ok(None)
    }

    /// Every segment with its database, and why the others cannot be read.
    #[expect(clippy::type_complexity, reason = "named by the two lines that take it apart")]
    fn segments(&self) -> Result<(BTreeMap<SegmentId, (u128, SegmentName)>, Vec<(SegmentId, String)>)> {
        let (mut whole, mut broken) = (BTreeMap::new(), Vec::new());
        for name in self.names_in(&self.paths.log_dir())? {
            let Some(id) = manifest::paths::parse_segment_name(&name) else { continue };
            match Inspection::open(self.files, &self.paths.segment(id)).map_err(Error::from) {
                Ok(inspection) if inspection.header().name.id == id => {
                    whole.insert(id, (inspection.header().database_id, inspection.header().name));
                }
                Ok(inspection) => broken.push((id, format!("its header is that of {}", inspection.header().name))),
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    broken.push((id, error.to_string()))
                }
                Err(error) => return Err(error),
            }
        }
        Ok((whole, broken))
    }

    /// What level files say of tables, each by its newest generation that can be read, and the largest generation in any
    /// name. They are no proof that a table is part of the database, but what they say of one was true.
    fn hints(&self, database_id: DatabaseId) -> Result<(BTreeMap<TableId, Arc<TableEntry>>, u64)> {
        let (mut hints, mut largest) = (BTreeMap::new(), 0);
        for name in self.names_in(self.paths.dir())? {
            largest = largest.max(manifest::paths::parse_edits_name(&name).unwrap_or(0));
        }
        for directory in self.names_in(&self.paths.keyspaces_dir())? {
            let Some(keyspace) = manifest::paths::parse_keyspace_name(&directory) else { continue };
            let mut levels: Vec<(u64, Level)> = self
                .names_in(&self.paths.keyspace_dir(keyspace))?
                .iter()
                .filter_map(|name| manifest::paths::parse_level_name(name))
                .map(|(level, generation)| (generation, level))
                .collect();
            levels.sort();
            for (generation, level) in levels {
                largest = largest.max(generation);
                let file = self.paths.level(keyspace, level, generation);
                let Ok(bytes) = self.files.read(&file, LEVEL_BYTES_MAX) else { continue };
                let identity = LevelIdentity { database_id, keyspace, level, generation };
                if let Ok(runs) = manifest::level::decode(&file, &bytes, identity) {
                    hints.extend(runs.into_iter().flat_map(|run| run.tables).map(|table| (table.id, table)));
                }
            }
        }
        Ok((hints, largest))
    }

    /// Names and options from a `global.json` whose checksum is wrong or that is cut short. They are shown to nobody but
    /// people: what they name is found by id.
    fn names_from_damaged_text(&mut self, bytes: &[u8]) -> BTreeMap<KeyspaceId, Named> {
        let text = String::from_utf8_lossy(bytes);
        let mut names = BTreeMap::new();
        // A keyspace is a line; one line's damage is not another's.
        for line in text.lines() {
            let line = line.trim().trim_end_matches(',');
            let line = if line.ends_with("\"levels\": [") { format!("{line}]}}") } else { line.to_owned() };
            let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(&line) else { continue };
            let (Some(id), Some(name)) = (fields.get("id").and_then(Value::as_u64), fields.get("name")) else {
                continue;
            };
            let (Ok(id), Some(name)) = (u32::try_from(id), name.as_str()) else { continue };
            let options = fields.get("options").and_then(Value::as_object).cloned().unwrap_or_default();
            let options: BTreeMap<String, Value> = options.into_iter().collect();
            if KeyspaceOptions::from_manifest(&options).is_ok() && !name.is_empty() && name.len() <= 255 {
                names.insert(KeyspaceId(id), (name.to_owned(), options));
            }
        }
        let mut seen = BTreeSet::new();
        names.retain(|_, (name, _)| seen.insert(name.clone()));
        if !names.is_empty() {
            self.notes.push("names and options of keyspaces come from a damaged global.json: look at them".to_owned());
        }
        names
    }

    /// Reads the log as far as it can be read.
    fn log(&mut self, database_id: DatabaseId, floor: LogFloor, claim: LogPosition) -> Result<LogFinding> {
        let mut found = LogFinding::default();
        if floor == LogFloor::default() {
            return Ok(found);
        }
        let on_record = |record: Record<'_>| {
            found.note(&record);
            Ok(())
        };
        let replayed = write_ahead_log::replay(
            self.environment,
            &self.paths.log_dir(),
            database_id.0,
            floor_segment(floor),
            claim,
            ReplayOptions { salvage: true },
            on_record,
        )?;
        for skipped in replayed.skipped {
            let to = skipped.to.map_or_else(|| "the end".to_owned(), |to| to.to_string());
            found.skipped.push(format!("the log from {} to {to}: {}", skipped.from, skipped.cause));
        }
        Ok(found)
    }

    /// The manifest as it is, without the tables that are damaged or gone.
    fn keep(
        &mut self,
        manifest: &Manifest,
        whole: &BTreeMap<TableId, Candidate>,
        broken: &BTreeMap<TableId, Error>,
        log: &LogFinding,
    ) -> Result<(Manifest, BTreeMap<TableId, Option<KeyspaceId>>)> {
        let (mut kept, mut damaged, mut named) = (manifest.clone(), BTreeMap::new(), BTreeSet::new());
        for keyspace in manifest.keyspaces.values() {
            let mut removed = Vec::new();
            for (level, _, entry) in keyspace.tables() {
                named.insert(entry.id);
                let identity = whole.get(&entry.id);
                let right = identity.is_some_and(|table| {
                    let identity = &table.properties.identity;
                    identity.database_id == manifest.database_id.0
                        && identity.keyspace == keyspace.id
                        && table.bytes == entry.bytes
                        && (entry.checksum == 0 || table.checksum == entry.checksum)
                });
                if right {
                    continue;
                }
                removed.push((level, entry.id));
                damaged.insert(entry.id, Some(keyspace.id));
                let why = match (broken.get(&entry.id), identity) {
                    (Some(error), _) => error.to_string(),
                    (None, Some(_)) => "whole, but not the table that the manifest names".to_owned(),
                    (None, None) => "missing".to_owned(),
                };
                self.left_out.push(LeftOut { file: self.paths.table(entry.id), why });
            }
            if !removed.is_empty() {
                let change =
                    Change::ReplaceTables { keyspace: keyspace.id, removed, added: Vec::new(), flushed_seqno: None };
                kept = apply(&kept, Edit::of(change))?;
            }
        }
        for (id, (first, part)) in &log.references {
            let keyspace = manifest.keyspaces.get(&part.keyspace);
            if keyspace.is_some_and(|keyspace| *first > keyspace.flushed_seqno) && named.insert(*id) {
                kept = self.without_batch(kept, *id, part, *first, whole, &mut damaged)?;
            }
        }
        for (id, error) in broken.iter().filter(|(id, _)| !named.contains(id)) {
            let why = format!("{error}; nothing names it");
            self.left_out.push(LeftOut { file: self.paths.table(*id), why });
        }
        Ok((kept, damaged))
    }

    /// A batch table that the log refers to and that is not whole keeps the database from opening: what precedes it in
    /// its keyspace counts as flushed, so that replay passes it over.
    fn without_batch(
        &mut self,
        manifest: Manifest,
        id: TableId,
        part: &BatchPart,
        first: SeqNo,
        whole: &BTreeMap<TableId, Candidate>,
        damaged: &mut BTreeMap<TableId, Option<KeyspaceId>>,
    ) -> Result<Manifest> {
        if whole.get(&id).is_some_and(|table| table.bytes == part.bytes && table.checksum == part.checksum) {
            return Ok(manifest);
        }
        damaged.insert(id, Some(part.keyspace));
        let why = format!("the table of a batch at {first}, damaged or missing");
        self.left_out.push(LeftOut { file: self.paths.table(id), why });
        let (keyspace, flushed) = (part.keyspace, Some(first));
        let change = Change::ReplaceTables { keyspace, removed: Vec::new(), added: Vec::new(), flushed_seqno: flushed };
        apply(&manifest, Edit::of(change))
    }

    /// A manifest from tables and log alone.
    fn make_anew(
        &mut self,
        database_id: DatabaseId,
        whole: &BTreeMap<TableId, Candidate>,
        broken: &BTreeMap<TableId, Error>,
        hints: &BTreeMap<TableId, Arc<TableEntry>>,
        names: &BTreeMap<KeyspaceId, Named>,
        log: &LogFinding,
    ) -> Result<(Manifest, BTreeMap<TableId, Option<KeyspaceId>>)> {
        let mut damaged = BTreeMap::new();
        for (id, error) in broken {
            let path = self.paths.table(*id);
            let header = sstable_format::read_header(self.files, &path).ok();
            damaged
                .insert(*id, header.filter(|header| header.database_id == database_id.0).map(|header| header.keyspace));
            self.left_out.push(LeftOut { file: path, why: error.to_string() });
        }
        let ours: BTreeMap<TableId, &Candidate> = whole
            .iter()
            .filter(|(_, table)| table.properties.identity.database_id == database_id.0)
            .map(|(id, table)| (*id, table))
            .collect();
        let mut live: BTreeSet<TableId> = ours.keys().copied().collect();
        self.settle_jobs(&ours, &mut live);
        let mut tables: BTreeMap<KeyspaceId, Vec<Leveled>> = BTreeMap::new();
        // Batches that only the log places come last: those behind all that is flushed are left to replay.
        let placed_by_log =
            |id: &TableId| hints.get(id).is_none_or(|hint| hint.seqno_base == 0) && log.references.contains_key(id);
        let (later, first): (Vec<TableId>, Vec<TableId>) = live.into_iter().partition(placed_by_log);
        for id in first.into_iter().chain(later) {
            let table = ours[&id];
            let keyspace = table.properties.identity.keyspace;
            let reached = tables.get(&keyspace).into_iter().flatten().map(|(_, entry)| entry.max_seqno).max();
            let placed = log.references.get(&id).filter(|_| placed_by_log(&id)).map(|(first, _)| *first);
            if placed.is_some_and(|first| reached.is_none_or(|reached| first > reached)) {
                continue;
            }
            let hint = hints.get(&id);
            let base = placed.or_else(|| hint.and_then(|hint| SeqNo::new(hint.seqno_base)));
            let Some(mut entry) = self.entry(id, table, base) else {
                if self.unplaced.contains_key(&id) {
                    damaged.insert(id, Some(keyspace));
                }
                continue;
            };
            if log.clears.get(&keyspace).is_some_and(|clear| entry.max_seqno < *clear) {
                self.leave_out(id, "older than a clear of its keyspace in the log");
                continue;
            }
            if names.get(&keyspace).is_some_and(|(_, options)| drops_by_age(options)) {
                // Where nothing says how old it is, it begins to age now: what has no age never goes.
                let known = hint.map(|hint| hint.newest_unix_ms).filter(|time| *time > 0);
                entry.newest_unix_ms = known.unwrap_or_else(|| unix_ms(&*self.environment.clock).max(1));
            }
            tables.entry(keyspace).or_default().push((table.properties.identity.level, Arc::new(entry)));
        }
        let keyspaces: BTreeSet<KeyspaceId> = tables
            .keys()
            .chain(&log.keyspaces)
            .chain(names.keys())
            .chain(damaged.values().flatten())
            .copied()
            .collect();
        let mut manifest = Manifest::empty(database_id);
        for id in keyspaces {
            let (name, options) = names.get(&id).cloned().unwrap_or_else(|| {
                self.notes.push(format!("the name of keyspace {id} is lost: it is called \"keyspace-{id}\", with default options; perhaps it had been dropped", id = id.get()));
                (format!("keyspace-{}", id.get()), BTreeMap::new())
            });
            let change = Change::CreateKeyspace { id, name, options, created_seqno: SeqNo::ZERO };
            manifest = apply(&manifest, Edit::of(change))?;
            let tables = tables.remove(&id).unwrap_or_default();
            let order = table_order::by_their_rows(self.files, self.paths, (database_id.0, id), tables)?;
            if !order.contradict.is_empty() {
                let tables: Vec<String> = order.contradict.iter().map(ToString::to_string).collect();
                let tables = tables.join(", ");
                self.notes
                    .push(format!("which tables of {id} are newer than {tables} cannot be told: values may be older"));
            }
            let flushed = order.tables.iter().map(|(_, entry)| entry.max_seqno).max().unwrap_or(SeqNo::ZERO);
            // Unique, and below the epoch of whatever is flushed later. There is always room: no two live tables share an entry.
            let epochs = (0..=flushed.get()).rev().chain(std::iter::repeat(0)).map(Epoch);
            let mut added = Vec::new();
            for (run, epoch) in runs_of(order).into_iter().zip(epochs) {
                added.extend(run.tables.into_iter().map(|table| AddedTable { level: Level::ZERO, run: epoch, table }));
            }
            if !added.is_empty() {
                let flushed_seqno = (flushed > SeqNo::ZERO).then_some(flushed);
                let change = Change::ReplaceTables { keyspace: id, removed: Vec::new(), added, flushed_seqno };
                manifest = apply(&manifest, Edit::of(change).and(Change::RaiseLastSeqno(flushed)))?;
            }
        }
        for (id, (first, part)) in &log.references {
            let flushed = manifest.keyspaces.get(&part.keyspace).map_or(SeqNo::ZERO, |keyspace| keyspace.flushed_seqno);
            if *first > flushed {
                manifest = self.without_batch(manifest, *id, part, *first, whole, &mut damaged)?;
            }
        }
        if self.notes.iter().any(|note| note.starts_with("the manifest")) {
            self.notes.push(
                "what was deleted may reappear, where a table that was already replaced still lay there".to_owned(),
            );
        }
        Ok((apply(&manifest, Edit::of(Change::RaiseLastSeqno(log.last_seqno.max(manifest.last_seqno))))?, damaged))
    }

    fn leave_out(&mut self, id: TableId, why: &str) {
        self.left_out.push(LeftOut { file: self.paths.table(id), why: why.to_owned() });
    }

    /// Newest job first: its outputs stand for its inputs, unless all of those are there.
    fn settle_jobs(&mut self, ours: &BTreeMap<TableId, &Candidate>, live: &mut BTreeSet<TableId>) {
        let mut jobs: BTreeMap<(JobId, KeyspaceId), (Vec<TableId>, BTreeSet<TableId>)> = BTreeMap::new();
        for (id, table) in ours {
            let identity = &table.properties.identity;
            if !identity.inputs.is_empty() {
                let (outputs, inputs) = jobs.entry((identity.job, identity.keyspace)).or_default();
                outputs.push(*id);
                inputs.extend(&identity.inputs);
            }
        }
        for (outputs, inputs) in jobs.into_values().rev() {
            let installed = outputs.iter().any(|output| live.contains(output));
            if installed && inputs.iter().all(|input| ours.contains_key(input)) {
                for output in outputs {
                    if live.remove(&output) {
                        self.leave_out(output, "what it was made of is all there");
                    }
                }
            } else {
                // Also where this job's outputs have been replaced themselves: then what they were made of has been, too.
                for input in inputs {
                    if live.remove(&input) {
                        self.leave_out(input, "a table made of it is there");
                    }
                }
            }
        }
    }

    /// What the manifest must say of a table; `None` if that cannot be known. `base` is that of a batch.
    fn entry(&mut self, id: TableId, table: &Candidate, base: Option<SeqNo>) -> Option<TableEntry> {
        let Properties { identity, min_key, max_key, min_seqno, max_seqno, .. } = &table.properties;
        let is_batch = identity.job == JobId(0) && identity.epoch == Epoch(0);
        let base = match base.filter(|base| *base > SeqNo::ZERO) {
            _ if !is_batch => SeqNo::ZERO,
            Some(base) => base,
            None => {
                self.leave_out(id, "the table of a batch, and nothing tells its place in the order of writes");
                self.unplaced.insert(id, (min_key.to_vec(), max_key.to_vec()));
                return None;
            }
        };
        let rebased = |seqno: &SeqNo| base.checked_add(seqno.get());
        let (Some(min_seqno), Some(max_seqno)) = (rebased(min_seqno), rebased(max_seqno)) else {
            self.leave_out(id, "its sequence numbers run past the last");
            return None;
        };
        Some(TableEntry {
            id,
            bytes: table.bytes,
            checksum: table.checksum,
            min_key: min_key.clone(),
            max_key: max_key.clone(),
            min_seqno,
            max_seqno,
            entries: table.properties.entries,
            tombstones: table.properties.tombstones,
            logical_bytes: table.properties.logical_bytes,
            epoch: if is_batch { Epoch(max_seqno.get()) } else { identity.epoch },
            job: identity.job,
            seqno_base: base.get(),
            newest_unix_ms: 0,
        })
    }
}

/// Whether a keyspace of these options drops what is past an age.
fn drops_by_age(options: &BTreeMap<String, Value>) -> bool {
    KeyspaceOptions::from_manifest(options).is_ok_and(|options| options.fifo_age_ms_max > 0)
}

/// Disjoint tables that one job wrote for one level.
struct Run {
    tables: Vec<Arc<TableEntry>>,
    level: Level,
}

impl Run {
    fn has_room_for(&self, entry: &TableEntry) -> bool {
        self.tables.iter().all(|table| table.max_key < entry.min_key || entry.max_key < table.min_key)
    }
}

/// The runs that tables make, newest first: a table joins those that its job wrote, but none above what must lie above it.
fn runs_of(order: TableOrder) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut places: BTreeMap<TableId, usize> = BTreeMap::new();
    for (level, entry) in order.tables {
        let above = order.above.get(&entry.id).into_iter().flatten().filter_map(|upper| places.get(upper));
        let first = above.max().map_or(0, |place| place + 1);
        let fits = |run: &Run| {
            let of_its_job = |table: &Arc<TableEntry>| table.epoch == entry.epoch && table.job == entry.job;
            run.level == level && run.tables.iter().all(of_its_job) && run.has_room_for(&entry)
        };
        let place = (first..runs.len()).find(|place| fits(&runs[*place])).unwrap_or(runs.len());
        places.insert(entry.id, place);
        match runs.get_mut(place) {
            Some(run) => run.tables.push(entry),
            None => runs.push(Run { tables: vec![entry], level }),
        }
    }
    runs
}

impl Finding {
    /// What is added to the sequence numbers of a damaged table as stored: those of a batch count from its place in the log.
    pub(crate) fn base_of(&self, table: TableId) -> SeqNo {
        let hint = self.hints.get(&table).map_or(0, |hint| hint.seqno_base);
        let in_log = self.log.references.get(&table).map(|(first, _)| *first);
        SeqNo::new(hint).filter(|base| *base > SeqNo::ZERO).or(in_log).unwrap_or(SeqNo::ZERO)
    }

    /// Whether `file` is a table that the manifest names.
    pub(crate) fn names_table(&self, file: &Path) -> bool {
        let mut tables = self.manifest.keyspaces.values().flat_map(|keyspace| keyspace.tables());
        tables.any(|(_, _, table)| self.paths.table(table.id) == file)
    }
}

impl LogFinding {
    /// Whether a clear or drop of this keyspace stands at or behind `seqno`.
    pub(crate) fn clear_follows(&self, keyspace: KeyspaceId, seqno: SeqNo) -> bool {
        self.clears.get(&keyspace).is_some_and(|clear| *clear >= seqno)
    }

    /// Batches too large for a record: their tables, and where each begins.
    pub(crate) fn large_batches(&self) -> impl Iterator<Item = (TableId, SeqNo, BatchPart)> {
        self.references.iter().map(|(id, (first, part))| (*id, *first, *part))
    }

    /// Those of this keyspace behind `seqno`.
    pub(crate) fn batches_behind(
        &self,
        keyspace: KeyspaceId,
        seqno: SeqNo,
    ) -> impl Iterator<Item = (TableId, SeqNo, BatchPart)> {
        self.large_batches().filter(move |(_, first, part)| part.keyspace == keyspace && *first > seqno)
    }

    fn note(&mut self, record: &Record<'_>) {
        let mut last = record.first_seqno;
        match record.kind {
            RecordKind::Batch => {
                for (entry, offset) in batch_format::decode(record.payload).into_iter().flatten().zip(0..) {
                    let Ok(entry) = entry else { break };
                    self.keyspaces.insert(entry.keyspace);
                    last = record.first_seqno.checked_add(offset).unwrap_or(last);
                }
            }
            RecordKind::BatchReference => {
                if let Ok(reference) = BatchReference::decode(record.payload) {
                    for part in &reference.parts {
                        self.keyspaces.insert(part.keyspace);
                        self.references.insert(part.table, (record.first_seqno, *part));
                    }
                    let offset = reference.entries.saturating_sub(1);
                    last = record.first_seqno.checked_add(offset).unwrap_or(last);
                }
            }
            RecordKind::ClearKeyspace => {
                if let Ok(id) = batch_format::decode_keyspace(record.payload) {
                    self.keyspaces.insert(id);
                    self.clears.insert(id, record.first_seqno);
                }
            }
            RecordKind::DropKeyspace => {
                if let Ok(id) = batch_format::decode_keyspace(record.payload) {
                    self.keyspaces.insert(id);
                    self.clears.insert(id, record.first_seqno);
                }
            }
            _ => {}
        }
        self.last_seqno = self.last_seqno.max(last);
    }
}
