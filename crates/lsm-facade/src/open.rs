//! Opening: from a directory to an open database, removing nothing before everything has been seen (M2).
//!
//! ```text
//!   lock ─▶ manifest ─▶ every named table is there ─▶ replay the log above the flushed writes ─▶ seal its end (L4)
//!        ─▶ commit the manifest anew (M2) ─▶ remove leftovers ─▶ jobs, the first of which flushes what was replayed if
//!           some of it lies beyond the last claim (L4)
//! ```
//!
//! - **M2** What opening saw is durable before anything is removed, and only files of this database are.
//! - **M6** Creating can be interrupted anywhere and simply done again.
//! - **L3** A torn tail is cut and reported; damage before a claim is an error and nothing is changed.
//! - **L4** Nothing is appended to a replayed segment.
//! - **P6** Replay skips what is flushed; the next seqno exceeds all in manifest, tables and log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, RwLock};
use std::thread::Scope;

use commit_pipeline::{Pipeline, PipelineOptions, Turnstile};
use compaction::{Scheduler, Throttle};
use file_system::{DirectoryEntry, Environment};
use internal_key::{Epoch, JobId, KeyspaceId, SegmentId, SeqNo, TableId, Trailer};
use lock_meter::Mutex;
use manifest::{
    Change, DatabasePaths, Edit, KeyspaceState, LogFloor, Manifest, ManifestError, ManifestStore, OpenMode, TableEntry,
};
use memory_budget::MemoryBudget;
use skiplist_memtable::{Filling, Memtable};
use version_history::{Frontier, KeptForSnapshots, SnapshotRegistry};
use write_ahead_log::{
    Log, LogOptions, NameFirst, NotNamed, Record, RecordKind, ReplayOptions, ReplayReport, SegmentName,
};

use crate::batch_format::{self, BatchPart, BatchReference};
use crate::core::{
    Core, EditError, KeyspaceShared, Keyspaces, PACE_FREE, Parts, SuperVersion, claim, new_memtable, replay_log,
};
use crate::event_log::EventLog;
use crate::jobs::{Jobs, JobsOf, LogJobsOf};
use crate::options::{DatabaseOptions, KeyspaceOptions};
use crate::stats::Counters;
use crate::verify::missing_is_damage;
use crate::{Error, Result};

/// Opens or creates the database in `path`.
pub(crate) fn open(path: &Path, options: DatabaseOptions) -> Result<Arc<Core>> {
    let files = Arc::clone(&options.environment.files);
    if !options.read_only && files.exists(path)? {
        // Before the lock, whose file would be the first to stand in a directory that is not ours.
        match ManifestStore::check_vacant(&options.environment, path) {
            Ok(()) if !options.create_if_missing => return Err(Error::NotFound { path: path.to_owned() }),
            Ok(()) | Err(ManifestError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if options.create_if_missing && !options.read_only {
        create_directory(&*files, path)?;
    }
    if options.read_only {
        return open_beside_a_writer(path, &options);
    }
    if !files.exists(path)? {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    let directory_lock = files.lock_dir(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { path: path.to_owned(), source: Arc::new(source) },
        _ => Error::from_file(source),
    })?;
    let (manifest, created) = open_manifest(path, &options)?;
    let mut options = options;
    if options.event_log_bytes_max > 0 {
        let event_log = EventLog::new(&options.environment, path, options.event_log_bytes_max);
        options.listeners.add(Arc::new(event_log));
    }
    let core = open_for_writing(Parts::new(path, options, manifest), created)?;
    *core.directory_lock.lock() = Some(directory_lock);
    Ok(core)
}

/// Opens for reading. A writer may commit edits meanwhile, remove what the manifest named when it was read, or begin a log
/// that it did not name: then it is read again (M5).
fn open_beside_a_writer(path: &Path, options: &DatabaseOptions) -> Result<Arc<Core>> {
    /// A writer that commits during each of so many attempts is not what is wrong.
    const ATTEMPTS: u32 = 16;
    let read = || open_manifest(path, options).map(|(manifest, _)| manifest);
    let mut manifest = read()?;
    for _ in 1..ATTEMPTS {
        let seen = manifest.current().generation;
        let error = match open_for_reading(Parts::new(path, options.clone(), manifest)) {
            Ok(core) => return Ok(core),
            Err(error) => error,
        };
        manifest = read()?;
        if manifest.current().generation == seen {
            return Err(error);
        }
    }
    open_for_reading(Parts::new(path, options.clone(), manifest))
}

/// Makes the database's directory, durable in its parent (M6).
fn create_directory(files: &dyn file_system::FileSystem, path: &Path) -> Result<()> {
    if files.exists(path)? {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        create_directory(files, parent)?;
        files.create_dir(path)?;
        if !planted_faults::planted("facade-new-directory-not-synced-in-its-parent") {
            files.sync_dir(parent)?;
        }
    } else {
        files.create_dir(path)?;
    }
    Ok(())
}

/// The manifest, and whether it was created just now.
fn open_manifest(path: &Path, options: &DatabaseOptions) -> Result<(ManifestStore, bool)> {
    let mode = if options.read_only { OpenMode::ReadOnly } else { OpenMode::ReadWrite };
    let store_options = options.manifest();
    match ManifestStore::open(&options.environment, path, mode, store_options) {
        Ok(_) if options.error_if_exists => Err(Error::Exists { path: path.to_owned() }),
        Ok(store) => Ok((store, false)),
        Err(ManifestError::NotFound { .. }) if options.create_if_missing && !options.read_only => {
            let store = ManifestStore::create(&options.environment, path, store_options, &Edit::default())?;
            Ok((store, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// What replay gathers, keyspace by keyspace.
struct Recovered {
    keyspaces: BTreeMap<KeyspaceId, RecoveredKeyspace>,
    /// Tables that replayed batch references name: they must not be removed.
    referenced: BTreeSet<TableId>,
    last_seqno: SeqNo,
    /// `None` where there is no log yet.
    report: Option<ReplayReport>,
}

struct RecoveredKeyspace {
    memory: Arc<MemoryBudget>,
    id: KeyspaceId,
    name: String,
    options: KeyspaceOptions,
    flushed_seqno: SeqNo,
    super_version: Arc<SuperVersion>,
    /// Its active memtable, to which replay adds.
    filling: Filling,
    dropped: Option<SeqNo>,
    cleared: Option<SeqNo>,
    /// From where on the manifest promises all versions (R3).
    history_floor: SeqNo,
}

impl RecoveredKeyspace {
    fn new_memtable(&self) -> Arc<Memtable> {
        new_memtable(&self.options, &self.memory)
    }

    /// Adds one replayed entry, sealing as the memtables fill.
    fn apply(&mut self, seqno: SeqNo, entry: &batch_format::BatchEntry<'_>, linker: &mut Linker<'_, '_>) {
        let bytes = Memtable::entry_bytes(entry.key.len(), entry.value.len());
        let active = self.super_version.active();
        let full = active.data_bytes() + bytes as u64 > self.options.memtable_bytes;
        if full && !active.is_empty() {
            let new_active = self.new_memtable();
            self.next(self.super_version.seal(new_active), linker);
        }
        self.filling.add(entry.key, Trailer::new(seqno, entry.kind), entry.value);
    }

    /// Goes on with `next`, whose active memtable is filled from here on.
    fn next(&mut self, next: SuperVersion, linker: &mut Linker<'_, '_>) {
        let filling = Filling::new(Arc::clone(next.active()));
        linker.link(std::mem::replace(&mut self.filling, filling));
        self.super_version = Arc::new(next);
    }

    /// Begins anew: what was replayed so far is of no use, and is not linked.
    fn restart(&mut self) {
        let next = SuperVersion::new(self.new_memtable(), Arc::default());
        self.filling = Filling::new(Arc::clone(next.active()));
        self.super_version = Arc::new(next);
    }
}

/// Links the memtables that replay has filled: where there may be threads one of its own helps, from the first full one on.
struct Linker<'scope, 'env> {
    /// `None` if everything is done on this thread, also because there is no other to be had.
    scope: Option<&'scope Scope<'scope, 'env>>,
    helper: Option<SyncSender<Filling>>,
}

impl Linker<'_, '_> {
    /// Not worth a thread.
    const HELPED_ENTRIES_MIN: usize = 4096;

    fn link(&mut self, filling: Filling) {
        let Some(scope) = self.scope.filter(|_| filling.len() >= Self::HELPED_ENTRIES_MIN) else {
            return filling.link();
        };
        if self.helper.is_none() {
            // One waits while another is linked; whatever comes then is linked by who has filled it.
            let (helper, filled) = sync_channel::<Filling>(1);
            let link_all = move || filled.into_iter().for_each(Filling::link);
            match std::thread::Builder::new().name("replay".to_owned()).spawn_scoped(scope, link_all) {
                Ok(_) => self.helper = Some(helper),
                Err(error) => {
                    tracing::warn!(%error, "no thread to be had: replay goes on with one");
                    self.scope = None;
                }
            }
        }
        let Some(helper) = &self.helper else { return filling.link() };
        match helper.try_send(filling) {
            Ok(()) => {}
            // Who has died says why when the scope ends.
            Err(TrySendError::Full(filling) | TrySendError::Disconnected(filling)) => filling.link(),
        }
    }
}

fn replay(parts: &Parts) -> Result<Recovered> {
    let manifest = parts.manifest.current();
    if manifest.log_floor == LogFloor::default() {
        check_no_log(&parts.environment, &parts.paths, &manifest)?;
        return without_log(parts);
    }
    let mut keyspaces = keyspaces_of(parts, &manifest)?;
    let mut last_seqno = manifest.last_seqno;
    let mut referenced = BTreeSet::new();
    // When it ends, everything is linked.
    let report = std::thread::scope(|scope| {
        let scope = (parts.options.background_threads > 0).then_some(scope);
        let mut linker = Linker { scope, helper: None };
        let on_record = |record: Record<'_>| -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let count = apply_record(parts, &manifest, &mut keyspaces, &mut referenced, &record, &mut linker)?;
            if let Some(last) = count.checked_sub(1).and_then(|rest| record.first_seqno.checked_add(rest)) {
                last_seqno = last_seqno.max(last);
            }
            Ok(())
        };
        let options = ReplayOptions { salvage: parts.options.salvage };
        let report = replay_log(&parts.environment, &parts.paths, &manifest, options, on_record)?;
        for keyspace in keyspaces.values_mut() {
            let filled = Filling::new(Arc::clone(keyspace.super_version.active()));
            linker.link(std::mem::replace(&mut keyspace.filling, filled));
        }
        Ok::<_, Error>(report)
    })?;
    if report.cut_bytes > 0 {
        tracing::warn!(bytes = report.cut_bytes, at = %report.end, "the log ended in an incomplete write, which was cut");
    }
    Ok(Recovered { keyspaces, referenced, last_seqno, report: Some(report) })
}

/// The keyspaces as the manifest has them, with empty memtables.
fn keyspaces_of(parts: &Parts, manifest: &Manifest) -> Result<BTreeMap<KeyspaceId, RecoveredKeyspace>> {
    let mut keyspaces = BTreeMap::new();
    for state in manifest.keyspaces.values() {
        let options = stored_options(parts, state)?;
        let active = new_memtable(&options, &parts.memory);
        let keyspace = RecoveredKeyspace {
            memory: Arc::clone(&parts.memory),
            id: state.id,
            name: state.name.clone(),
            flushed_seqno: state.flushed_seqno.max(state.created_seqno),
            filling: Filling::new(Arc::clone(&active)),
            super_version: Arc::new(SuperVersion::new(active, parts.version_of(state))),
            options,
            dropped: None,
            cleared: None,
            history_floor: state.history_floor.max(state.created_seqno),
        };
        keyspaces.insert(state.id, keyspace);
    }
    Ok(keyspaces)
}

/// Applies one record and returns how many sequence numbers it holds.
fn apply_record(
    parts: &Parts,
    manifest: &Manifest,
    keyspaces: &mut BTreeMap<KeyspaceId, RecoveredKeyspace>,
    referenced: &mut BTreeSet<TableId>,
    record: &Record<'_>,
    linker: &mut Linker<'_, '_>,
) -> Result<u64> {
    let first = record.first_seqno;
    let damaged = |source: batch_format::BatchError| {
        let what = format!("record of {} at {}: {source}", record.kind, record.position);
        Error::corrupt(RecordError { what })
    };
    let next_keyspace_id = manifest.next_keyspace_id;
    // A keyspace that the manifest does not know was dropped, unless its id was never given away.
    let known = |id: KeyspaceId| -> Result<()> {
        if id < next_keyspace_id {
            return Ok(());
        }
        let what = format!("record at {} names {id}: expected an id below {next_keyspace_id}", record.position);
        Err(Error::corrupt(RecordError { what }))
    };
    match record.kind {
        RecordKind::Batch => {
            let entries = batch_format::decode(record.payload).map_err(damaged)?;
            let count = u64::from(entries.remaining());
            for (entry, offset) in entries.zip(0..) {
                let entry = entry.map_err(damaged)?;
                known(entry.keyspace)?;
                let Some(keyspace) = keyspaces.get_mut(&entry.keyspace) else { continue };
                let seqno = seqno_at(record, offset)?;
                if seqno > keyspace.flushed_seqno && keyspace.dropped.is_none() {
                    keyspace.apply(seqno, &entry, linker);
                }
            }
            // A batch of nothing, which begins a segment of a log that was shortened, took one.
            Ok(count.max(1))
        }
        RecordKind::BatchReference => {
            let reference = BatchReference::decode(record.payload).map_err(damaged)?;
            for part in &reference.parts {
                known(part.keyspace)?;
                let Some(keyspace) = keyspaces.get_mut(&part.keyspace) else { continue };
                // A batch is flushed as a whole, and then its table may be gone already.
                if first <= keyspace.flushed_seqno || keyspace.dropped.is_some() {
                    continue;
                }
                let named_by = |error| missing_is_damage(error, &format!("the record at {}", record.position));
                let entry = batch_table_entry(parts, part, first).map_err(named_by)?;
                let entry = TableEntry { newest_unix_ms: parts.newest_unix_ms(&keyspace.options), ..entry };
                referenced.insert(part.table);
                let handle = parts.table_handle(part.keyspace, &Arc::new(entry));
                let new_active = keyspace.new_memtable();
                keyspace.next(keyspace.super_version.seal_around_batch(new_active, handle), linker);
            }
            Ok(reference.entries)
        }
        RecordKind::ClearKeyspace | RecordKind::DropKeyspace => {
            let id = batch_format::decode_keyspace(record.payload).map_err(damaged)?;
            known(id)?;
            if let Some(keyspace) = keyspaces.get_mut(&id)
                && first > keyspace.flushed_seqno
            {
                // Nobody can hold a snapshot from before: the past is not linked.
                keyspace.restart();
                match record.kind {
                    RecordKind::DropKeyspace => keyspace.dropped = Some(first),
                    _ => keyspace.cleared = Some(first),
                }
            }
            Ok(1)
        }
        RecordKind::Seal | RecordKind::End => Ok(0),
        kind => {
            let what = format!("record at {} is of kind {kind}, which this version does not replay", record.position);
            Err(Error::Unsupported { source: Arc::new(RecordError { what }) })
        }
    }
}

fn seqno_at(record: &Record<'_>, offset: u64) -> Result<SeqNo> {
    record.first_seqno.checked_add(offset).ok_or_else(|| {
        let what = format!("record at {} runs past the last sequence number", record.position);
        Error::corrupt(RecordError { what })
    })
}

/// What a manifest would say of a batch's table (P11): read from the table itself.
fn batch_table_entry(parts: &Parts, part: &BatchPart, first: SeqNo) -> Result<TableEntry> {
    let path = parts.paths.table(part.table);
    let expected = sstable_format::Expected {
        bytes: part.bytes,
        database_id: parts.manifest.current().database_id.0,
        keyspace: part.keyspace,
        table: part.table,
        seqno_base: first.get(),
    };
    let read = sstable_format::ReadOptions { access: sstable_format::Access::Pread, block_cache: None };
    let reader = sstable_format::TableReader::open(parts.files(), &path, expected, read)?;
    let properties = reader.properties();
    let entry = TableEntry {
        id: part.table,
        bytes: part.bytes,
        checksum: part.checksum,
        min_key: properties.min_key.clone(),
        max_key: properties.max_key.clone(),
        min_seqno: properties.min_seqno,
        max_seqno: properties.max_seqno,
        entries: properties.entries,
        tombstones: properties.tombstones,
        logical_bytes: properties.logical_bytes,
        epoch: Epoch(0),
        job: JobId(0),
        seqno_base: 0,
        newest_unix_ms: 0,
    };
    match first.checked_add(properties.max_seqno.get()) {
        Some(last) => Ok(crate::write::rebased(&entry, first, last)),
        None => {
            let what = format!("{}: its sequence numbers run past the last at base {first}", path.display());
            Err(Error::corrupt(RecordError { what }))
        }
    }
}

/// The options that the manifest keeps of a keyspace. Its checksum is right: what does not fit here, another version
/// wrote.
fn stored_options(parts: &Parts, state: &KeyspaceState) -> Result<KeyspaceOptions> {
    KeyspaceOptions::from_manifest(&state.options).map_err(|error| {
        let what = format!("{}: keyspace {:?}: {error}", parts.paths.global().display(), state.name);
        Error::Unsupported { source: Arc::new(RecordError { what }) }
    })
}

/// What is wrong with a record or a file whose checksum is right.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct RecordError {
    pub(crate) what: String,
}

/// Checks that every table that the manifest names is there with its length, and nothing else: opening does not read
/// tables (M2).
fn check_tables(parts: &Parts) -> Result<()> {
    for keyspace in parts.manifest.current().keyspaces.values() {
        for (_, _, table) in keyspace.tables() {
            let path = parts.paths.table(table.id);
            let what = match parts.files().file_len(&path) {
                Ok(bytes) if bytes == table.bytes => continue,
                Ok(bytes) => format!("{}: {bytes} bytes long, expected {}", path.display(), table.bytes),
                Err(error) if error.is_not_found() => {
                    format!("{}: missing, expected {} bytes of {}", path.display(), table.bytes, keyspace.name)
                }
                Err(error) => return Err(error.into()),
            };
            return Err(Error::corrupt(RecordError { what }));
        }
    }
    Ok(())
}

fn new_core(parts: Arc<Parts>, pipeline: Option<Pipeline<Log>>, recovered: Recovered) -> Core {
    let mut keyspaces = Keyspaces::default();
    let mut histories = Vec::new();
    // What salvage passed over may have been written at any seqno.
    let is_whole = recovered.report.as_ref().is_none_or(|report| report.skipped.is_empty());
    for keyspace in recovered.keyspaces.into_values().filter(|keyspace| keyspace.dropped.is_none()) {
        let begins = if is_whole { keyspace.history_begins() } else { recovered.last_seqno };
        let first = SuperVersion::clone(&keyspace.super_version);
        let shared = Arc::new(KeyspaceShared::new(keyspace.id, keyspace.name, keyspace.options, first, &parts));
        // A compaction does not sync the log before its edit: the floor may have passed writes that a power cut took.
        // What is left in tables is whole from the last write on.
        histories.push((Arc::clone(&shared), begins.min(recovered.last_seqno)));
        keyspaces.insert(shared);
    }
    let core = Core {
        parts,
        pipeline,
        frozen_visible: Frontier::new(recovered.last_seqno),
        snapshots: Arc::new(SnapshotRegistry::new(SeqNo::ZERO)),
        keeps_history: AtomicBool::new(false),
        history_due: AtomicU64::new(u64::MAX),
        kept_for_snapshots: KeptForSnapshots::default(),
        keyspaces: RwLock::new(keyspaces),
        membership: Mutex::new(()),
        tidying: std::sync::Mutex::new(()),
        changing: RwLock::new(()),
        jobs: Mutex::new(Jobs::default()),
        log_window: AtomicU64::new(0),
        log_pace: AtomicU64::new(PACE_FREE),
        log_throttle: Throttle::default(),
        first_expiry_unix_ms: AtomicU64::new(u64::MAX),
        memory_room: Turnstile::default(),
        memory_throttle: Throttle::default(),
        restarted: Mutex::new(Vec::new()),
        unsettled: Mutex::new(None),
        is_settled: AtomicBool::new(true),
        scheduler: OnceLock::new(),
        log_keeper: OnceLock::new(),
        counters: Counters::default(),
        closed: AtomicBool::new(false),
        directory_lock: Mutex::new(None),
    };
    for (keyspace, begins) in histories {
        core.begin_history(&keyspace, begins);
    }
    core
}

fn open_for_reading(parts: Parts) -> Result<Arc<Core>> {
    check_tables(&parts)?;
    let recovered = replay(&parts)?;
    let core = new_core(Arc::new(parts), None, recovered);
    // A later file may be gone by the time it is read: every table is opened now, and stays open (M5).
    for keyspace in core.keyspace_list() {
        for (_, table) in keyspace.history.current_full().version().tables() {
            core.reader(table)?;
        }
    }
    Ok(Arc::new(core))
}

fn open_for_writing(parts: Parts, created: bool) -> Result<Arc<Core>> {
    if !created {
        check_tables(&parts)?;
    }
    let files = Arc::clone(&parts.environment.files);
    for dir in [parts.paths.tables_dir(), parts.paths.log_dir()] {
        if !files.exists(&dir)? {
            files.create_dir(&dir)?;
            files.sync_dir(parts.paths.dir())?;
        }
    }
    // Batches are named by the log alone, and what an interrupted job left by nothing: no new table takes such a name.
    let tables = files.read_dir(&parts.paths.tables_dir())?;
    for table in tables.iter().filter_map(|entry| manifest::paths::parse_table_name(&entry.name)) {
        parts.skip_table_ids(table);
    }
    let log_options = LogOptions {
        segment_bytes: parts.options.log_segment_bytes,
        segment_bytes_first: parts.options.log_segment_bytes / 16,
        way: parts.options.log_way,
        ..LogOptions::default()
    };
    let parts = Arc::new(parts);
    let manifest = parts.manifest.current();
    let (log, tail, recovered) = if !created && log_may_begin_later(&parts, &manifest)? {
        let (log, tail) = Log::create_later(
            &parts.environment,
            &parts.paths.log_dir(),
            manifest.database_id.0,
            log_options,
            manifest.next_segment_id,
            name_first(&parts),
        );
        (log, tail, without_log(&parts)?)
    } else if manifest.log_floor == LogFloor::default() {
        let (log, tail) = Log::create(
            &parts.environment,
            &parts.paths.log_dir(),
            manifest.database_id.0,
            log_options,
            manifest.next_segment_id,
        )?;
        let start = log.first_segment();
        name_log(&parts, start, log.next_segment_id()).map_err(EditError::into_error)?;
        (log, tail, without_log(&parts)?)
    } else {
        let recovered = replay(&parts)?;
        let report = recovered.report.as_ref().expect("replay makes a report");
        if report.records == 0 && !manifest.closed_cleanly {
            // M6: perhaps nothing has ever been written, and the edit that names the log's first segment is not durable.
            // Without it the seal that is about to be written would look like the log of a database that was lost.
            let edit = Edit::of(Change::RaiseLastSeqno(manifest.last_seqno));
            parts.commit_edit(edit).map_err(EditError::into_error)?;
        }
        let (log, tail) = Log::resume(
            &parts.environment,
            &parts.paths.log_dir(),
            manifest.database_id.0,
            log_options,
            report,
            manifest.next_segment_id,
            recovered.last_seqno.checked_add(1).unwrap_or(SeqNo::MAX),
        )?;
        (log, tail, recovered)
    };
    let report = recovered.report.as_ref();
    let seen = Seen {
        beyond_claim: report.is_some_and(|report| report.beyond_claim),
        skipped: report.is_some_and(|report| !report.skipped.is_empty()),
        operations: recovered.keyspaces.values().flat_map(RecoveredKeyspace::operation).collect(),
        new_seqno: Some(recovered.last_seqno).filter(|last| *last > manifest.last_seqno),
        clean: manifest.closed_cleanly,
    };
    let referenced = recovered.referenced.clone();
    let pipeline = Pipeline::new(log, tail, recovered.last_seqno, PipelineOptions::default());
    drop(manifest);
    let core = Arc::new(new_core(parts, Some(pipeline), recovered));
    finish_recovery(&core, seen, &tables)?;
    remove_leftovers(&core, &referenced, &tables)?;
    start_jobs(&core).map_err(|source| Error::Io { source: Arc::new(source) })?;
    Ok(core)
}

/// Whether the log can wait for the first change: the database is as its last close left it, and that it cannot be taken for one
/// that never was (M6) is said by its tables.
fn log_may_begin_later(parts: &Parts, manifest: &Manifest) -> Result<bool> {
    if manifest.log_floor != LogFloor::default()
        || !manifest.closed_cleanly
        || !has_tables(manifest)
        || planted_faults::planted("facade-log-begun-by-opening")
    {
        return Ok(false);
    }
    // A process that was killed while it closed left a manifest that may not be durable yet, and the segments that the one
    // before names.
    Ok(parts.files().read_dir(&parts.paths.log_dir())?.is_empty())
}

/// Names the first segment of the log in the manifest.
fn name_log(parts: &Parts, first: SegmentName, next_id: SegmentId) -> Result<(), EditError> {
    let floor = Change::RaiseLogFloor(LogFloor { segment: first.id, salt: first.salt });
    parts.commit_edit(Edit::of(floor).and(parts.taken_ids(next_id))).map(drop)
}

/// Names the first segment of a log that begins later.
fn name_first(parts: &Arc<Parts>) -> NameFirst {
    let parts = Arc::clone(parts);
    Box::new(move |first, next_id| {
        name_log(&parts, first, next_id).map_err(|error| {
            let is_certain = !matches!(error, EditError::Uncertain(_));
            NotNamed { cause: Arc::new(error.into_error()), is_certain }
        })
    })
}

/// Whether a manifest names any table.
fn has_tables(manifest: &Manifest) -> bool {
    manifest.keyspaces.values().any(|state| state.tables().next().is_some())
}

impl RecoveredKeyspace {
    /// The manifest changes that a replayed clear or drop still lacks.
    fn operation(&self) -> Vec<Change> {
        match (self.dropped, self.cleared) {
            (Some(_), _) => vec![Change::DropKeyspace { id: self.id }],
            (None, Some(at)) => crate::history::clear_changes(self.id, &self.options, at),
            (None, None) => Vec::new(),
        }
    }

    /// The smallest seqno at which everything is there: a clear has left nothing of what was before.
    fn history_begins(&self) -> SeqNo {
        self.history_floor.max(self.cleared.unwrap_or(SeqNo::ZERO))
    }
}

/// M6: where the manifest names no log there must be none with records, beside what a log that has ended left behind.
/// Otherwise the edit that named it is gone.
pub(crate) fn check_no_log(environment: &Environment, paths: &DatabasePaths, manifest: &Manifest) -> Result<()> {
    match write_ahead_log::holds_records(environment, &paths.log_dir(), manifest.next_segment_id)? {
        None => Ok(()),
        Some(path) => {
            let what = format!("{}: holds records, expected none: the manifest names no log", path.display());
            Err(Error::corrupt(RecordError { what }))
        }
    }
}

/// What there is without a log: it has ended, or none was begun yet.
fn without_log(parts: &Parts) -> Result<Recovered> {
    let manifest = parts.manifest.current();
    Ok(Recovered {
        keyspaces: keyspaces_of(parts, &manifest)?,
        referenced: BTreeSet::new(),
        last_seqno: manifest.last_seqno,
        report: None,
    })
}

/// What opening saw and has to make durable.
struct Seen {
    /// Records lie beyond the last claim.
    beyond_claim: bool,
    /// Salvage has passed over damage.
    skipped: bool,
    /// Replayed clears and drops that the manifest lacks.
    operations: Vec<Change>,
    /// The last sequence number, if the manifest does not know of it.
    new_seqno: Option<SeqNo>,
    /// The database was closed cleanly.
    clean: bool,
}

/// Makes durable what opening saw (M2, L4): replayed clears and drops, and the manifest. What lies beyond the last claim is
/// left to [`Core::settle`], unless it must not wait.
fn finish_recovery(core: &Arc<Core>, seen: Seen, tables: &[DirectoryEntry]) -> Result<()> {
    let Seen { beyond_claim, skipped, operations: mut changes, new_seqno, clean } = seen;
    // A clear may no more outlive the power than what came before it, and what was salvaged would have to be again.
    let at_once = skipped || !changes.is_empty();
    let raise = new_seqno.map(Change::RaiseLastSeqno); // P6: the floor may pass what it was seen in.
    if beyond_claim && !planted_faults::planted("facade-log-beyond-the-claim-not-flushed") {
        let unsettled = core.seal_replayed(raise)?;
        if at_once || unsettled.is_empty() {
            core.flush_replayed(&unsettled, changes)?;
        } else {
            if !clean || has_leftovers(core, tables)? {
                commit_anew(core, Vec::new())?;
            }
            core.leave_unsettled(unsettled);
            return Ok(());
        }
    } else {
        changes.extend(raise);
        if !clean || !changes.is_empty() || has_leftovers(core, tables)? {
            commit_anew(core, changes)?;
        }
    }
    core.release_claims();
    Ok(())
}

/// M2: an edit, whatever it says, makes durable what the manifest said before it.
fn commit_anew(core: &Core, changes: Vec<Change>) -> Result<()> {
    if planted_faults::planted("facade-manifest-not-committed-anew") {
        return Ok(()); // Nothing of what opening saw is made durable.
    }
    let mut edit = Edit { changes };
    edit.changes.extend(core.log_progress(&[]));
    let manifest = core.commit_edit(edit).map_err(EditError::into_error)?;
    core.after_edit(&manifest);
    Ok(())
}

/// Whether there may be something to remove. A process that was killed while it closed leaves a manifest that says so and
/// is not durable yet: before anything goes it is committed anew (M2). `tables` is what opening found in their directory.
fn has_leftovers(core: &Core, tables: &[DirectoryEntry]) -> Result<bool> {
    let manifest = core.manifest.current();
    let named = named_tables(&manifest);
    let unnamed_table =
        |name: &str| manifest::paths::parse_table_name(name).is_none_or(|table| !named.contains(&table));
    let segments = core.files().read_dir(&core.paths.log_dir())?;
    let before_floor =
        |name: &str| manifest::paths::parse_segment_name(name).is_none_or(|id| id < manifest.log_floor.segment);
    Ok(tables.iter().any(|entry| unnamed_table(&entry.name)) || segments.iter().any(|entry| before_floor(&entry.name)))
}

/// The tables that a manifest names.
fn named_tables(manifest: &Manifest) -> BTreeSet<TableId> {
    manifest.keyspaces.values().flat_map(|keyspace| keyspace.tables().map(|(_, _, table)| table.id)).collect()
}

/// M2: temporary names, and those files of this database that neither the manifest nor the replayed log names. `tables` is
/// what opening found in their directory: what came since is its own.
fn remove_leftovers(core: &Core, referenced: &BTreeSet<TableId>, tables: &[DirectoryEntry]) -> Result<()> {
    core.manifest.remove_leftovers()?;
    let manifest = core.manifest.current();
    let named = named_tables(&manifest);
    let dir = core.paths.tables_dir();
    for entry in tables {
        let temporary = entry.name.starts_with(file_system::TEMPORARY_PREFIX);
        let is_named = |id| named.contains(&id) || referenced.contains(&id);
        let unnamed = manifest::paths::parse_table_name(&entry.name).is_some_and(|id| !is_named(id));
        if entry.is_dir || !(temporary || unnamed) {
            continue;
        }
        let path = dir.join(&entry.name);
        let ours = || {
            sstable_format::read_header(core.files(), &path)
                .is_ok_and(|header| header.database_id == manifest.database_id.0)
        };
        if temporary || ours() {
            tracing::info!(file = entry.name, "removed a file that an interrupted job left");
            core.files().remove_file(&path)?;
        }
    }
    if let Some(pipeline) = &core.pipeline {
        pipeline.journal().remove_unnamed()?;
    }
    Ok(())
}

fn start_jobs(core: &Arc<Core>) -> std::io::Result<()> {
    for keyspace in core.keyspace_list() {
        core.update_pace(&keyspace);
        core.note_flush_due(&keyspace);
        core.note_compaction_due(&keyspace);
        core.jobs.lock().wants_look(keyspace.id);
    }
    let source = Arc::new(JobsOf(Arc::downgrade(core)));
    let scheduler = Arc::new(Scheduler::start("compaction", core.options.background_threads, source)?);
    if core.options.background_threads > 0 && !planted_faults::planted("facade-log-prepared-between-jobs-alone") {
        let keeper = Scheduler::start("log", 1, Arc::new(LogJobsOf(Arc::downgrade(core))))?;
        assert!(core.log_keeper.set(keeper).is_ok(), "jobs are started once");
    }
    core.reads.wakes(Arc::downgrade(&scheduler));
    let first = core.scheduler.set(Arc::clone(&scheduler));
    assert!(first.is_ok(), "jobs are started once");
    scheduler.notify();
    Ok(())
}

/// Closes: jobs end, the log gets its end and is synced, the manifest vouches for it (L3), the lock goes.
///
/// Idempotent. What is in memtables stays in the log: closing is prompt. Where nothing is, the log ends: there is nothing
/// to replay, and it is removed.
pub(crate) fn close(core: &Core) -> Result<()> {
    // Held to the end: whoever closes second returns when it is closed.
    let mut directory_lock = core.directory_lock.lock();
    // What is closed cleanly survives a power cut, also what was replayed. Where that fails the claims stay held: the next
    // opening replays it again.
    let settled = match core.closed.load(Ordering::Relaxed) {
        false if !planted_faults::planted("facade-closed-before-it-is-settled") => core.settle_now(),
        _ => Ok(false),
    };
    if core.closed.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    if let Some(scheduler) = core.scheduler() {
        scheduler.shut_down();
    }
    // Before the log ends: a segment that is still in the making then would be nobody's, and might come after the lock has gone.
    let outlives = planted_faults::planted("facade-log-worker-outlives-the-log");
    let keeper = || core.log_keeper.get().into_iter();
    keeper().filter(|_| !outlives).for_each(Scheduler::shut_down);
    drop(core.changing.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    let closed = core.pipeline.as_ref().map_or(Ok(()), |pipeline| close_log(core, pipeline));
    keeper().filter(|_| outlives).for_each(Scheduler::shut_down);
    core.tables.collect();
    directory_lock.take();
    closed.and(settled.map(drop))
}

fn close_log(core: &Core, pipeline: &Pipeline<Log>) -> Result<()> {
    let mut tail = pipeline.close()?;
    let log = pipeline.journal();
    let manifest = core.manifest.current();
    if manifest.log_floor == LogFloor::default() {
        // M6: nothing was written since the close before. Tables may have been replaced, or leftovers of that close removed.
        if !manifest.closed_cleanly && !planted_faults::planted("facade-close-without-a-log-says-nothing") {
            core.tidy_up();
            core.parts.commit_edit(Edit::of(Change::SetClosedCleanly(true))).map_err(EditError::into_error)?;
            collect_replaced(core);
        }
        return Ok(());
    }
    let mut changes = core.log_progress(&[]);
    let needed = core.keyspace_list().iter().any(|keyspace| keyspace.oldest_unflushed(&[]).is_some())
        && !planted_faults::planted("log-ended-while-it-is-needed");
    let end = log.close(&mut tail, pipeline.next_seqno())?;
    if !planted_faults::planted("facade-close-vouches-for-nothing") {
        changes.push(Change::RaiseClaim(claim(end)));
    }
    // M6: a database without a table and without a log would look as if there never was one, should its manifest go.
    let ends = !needed && has_tables(&core.manifest.current());
    if ends {
        changes.push(Change::EndLog);
    }
    changes.push(Change::RaiseLastSeqno(pipeline.next_seqno().before()));
    changes.push(Change::SetClosedCleanly(true));
    core.tidy_up();
    let commit = || core.commit_edit(Edit { changes }).map_err(EditError::into_error);
    let remove = || {
        if ends && let Err(error) = log.remove(tail) {
            tracing::warn!(%error, "a segment of a log that has ended stays behind until the next opening");
        }
    };
    if planted_faults::planted("log-removed-before-its-end-is-durable") {
        remove();
        commit()?;
    } else {
        commit()?;
        remove();
    }
    collect_replaced(core);
    Ok(())
}

/// Removes what the last edit of a close replaced: once it is durable nothing needs it, and the next opening removes what stays.
fn collect_replaced(core: &Core) {
    if let Err(error) = core.manifest.collect_obsolete() {
        tracing::warn!(%error, "replaced manifest files stay until the next opening");
    }
}
