//! Verifying: every checksum of a database, and whether its files say the same. Writes nothing, takes no lock.
//!
//! ```text
//!   global.json ─▶ level files ─▶ every table: whole-file checksum, every block, and what the manifest says of it
//!        └───────▶ log: every record from the floor on, every batch in it, every batch table that it names
//! ```
//!
//! - **T1**, **T3**, **T5** A table's order, fences, filter and counts are checked against its rows.
//! - **C3** Runs stand newest first: where two hold the same key, the newer run's versions are the newer ones.
//! - **L3** A torn tail is no damage; after a clean close there is none.
//! - **M2** Every checksum that the manifest names is computed.
//!
//! Files that another process replaces meanwhile are no damage: the manifest is read again, and what it no longer names
//! is not missed.

use std::path::Path;

use file_system::{Environment, FileError, FileSystem};
use internal_key::{Cursor, KeyspaceId, SeqNo, TableId};
use manifest::{DatabasePaths, FollowerStore, KeyspaceState, LogFloor, Manifest, ManifestError, TableEntry};
use sstable_format::{Access, Expected, ReadOptions, TableCursor, TableReader};
use write_ahead_log::{Record, RecordKind, ReplayOptions};
use xxhash_rust::xxh3::Xxh3;

use crate::batch_format::{self, BatchReference};
use crate::open::RecordError;
use crate::options::KeyspaceOptions;
use crate::{Error, Result};

/// What [`DatabaseBuilder::verify`](crate::DatabaseBuilder::verify) looked at, and what is wrong.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Living keyspaces.
    pub keyspaces: u64,
    /// Level files read.
    pub level_files: u64,
    /// Tables that the manifest names and that are whole.
    pub tables: u64,
    /// Their bytes.
    pub table_bytes: u64,
    /// Their data blocks.
    pub blocks: u64,
    /// Their entries.
    pub entries: u64,
    /// Log segments from the floor on.
    pub log_segments: u64,
    /// Records in them.
    pub log_records: u64,
    /// Entries in their batches.
    pub log_entries: u64,
    /// Bytes of an incomplete write at the log's end, which the next opening cuts (L3).
    pub log_cut_bytes: u64,
    /// Tables that nothing names: the next opening removes those of this database (M2).
    pub unnamed_tables: u64,
    /// What is wrong, each with file and place: [`Error::Corrupt`], or [`Error::Unsupported`].
    pub damage: Vec<Error>,
}

/// How often a database that is being written is looked at again before what it says counts.
const ATTEMPTS: usize = 4;

pub(crate) fn verify(environment: &Environment, path: &Path) -> Result<VerifyReport> {
    for attempt in 1.. {
        let mut report = VerifyReport::default();
        let store = match FollowerStore::open(environment, path) {
            Ok(store) => store,
            Err(error) => {
                report.note(manifest_damage(error)?);
                return Ok(report);
            }
        };
        let manifest = store.current();
        Check { environment, paths: store.paths(), manifest: &manifest, report: &mut report }.everything()?;
        // Damage that another process explains is looked at again.
        let moved = store.reload().is_ok_and(|now| now.generation != manifest.generation);
        if report.damage.is_empty() || !moved || attempt == ATTEMPTS {
            return Ok(report);
        }
    }
    unreachable!("the last attempt returns")
}

/// A manifest that is damaged, as a finding; one that is absent or cannot be read at all is the caller's error.
fn manifest_damage(error: ManifestError) -> Result<Error> {
    match Error::from(error) {
        error @ (Error::Corrupt { .. } | Error::Unsupported { .. }) => Ok(error),
        error => Err(error),
    }
}

/// An error that is the damage of a file that something names: one that is not there is damaged too.
pub(crate) fn missing_is_damage(error: Error, named_by: &str) -> Error {
    match &error {
        Error::Io { source } => match source.downcast_ref::<FileError>() {
            Some(file) if file.is_not_found() => {
                disagreement(format!("{}: missing, named by {named_by}", file.path.display()))
            }
            _ => error,
        },
        _ => error,
    }
}

/// An error that tells of files that disagree although each may be whole.
fn disagreement(what: String) -> Error {
    Error::corrupt(RecordError { what })
}

struct Check<'a> {
    environment: &'a Environment,
    paths: &'a DatabasePaths,
    manifest: &'a Manifest,
    report: &'a mut VerifyReport,
}

impl VerifyReport {
    fn note(&mut self, error: Error) {
        self.damage.push(error);
    }

    /// Notes what was found damaged; hands on what could not be looked at.
    fn note_if_damage(&mut self, outcome: Result<()>) -> Result<()> {
        match outcome {
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => self.note(error),
            other => return other,
        }
        Ok(())
    }
}

impl Check<'_> {
    fn everything(mut self) -> Result<()> {
        for keyspace in self.manifest.keyspaces.values() {
            self.report.keyspaces += 1;
            self.report.level_files += keyspace.levels.iter().filter(|level| level.generation > 0).count() as u64;
            if let Err(error) = KeyspaceOptions::from_manifest(&keyspace.options) {
                let global = self.paths.global();
                let what = format!("{}: keyspace {:?}: {error}", global.display(), keyspace.name);
                self.report.note(Error::Unsupported { source: std::sync::Arc::new(RecordError { what }) });
            }
            let before = self.report.damage.len();
            for (_, _, entry) in keyspace.tables() {
                let checked = self.table(keyspace.id, entry).map_err(|error| missing_is_damage(error, "the manifest"));
                self.report.note_if_damage(checked)?;
            }
            // Whether runs agree can be asked only of whole tables.
            if self.report.damage.len() == before {
                let checked = self.runs(keyspace).map_err(|error| missing_is_damage(error, "the manifest"));
                self.report.note_if_damage(checked)?;
            }
        }
        self.log()?;
        self.unnamed()
    }

    fn files(&self) -> &dyn FileSystem {
        &*self.environment.files
    }

    /// Checks one table that the manifest names.
    fn table(&mut self, keyspace: KeyspaceId, entry: &TableEntry) -> Result<()> {
        let path = self.paths.table(entry.id);
        let table = self.open(keyspace, entry)?;
        let report = sstable_format::verify(&table)?;
        let properties = table.properties();
        let at = path.display();
        for (what, said, is) in [
            ("entries", entry.entries, properties.entries),
            ("tombstones", entry.tombstones, properties.tombstones),
            ("logical bytes", entry.logical_bytes, properties.logical_bytes),
            ("smallest seqno", entry.min_seqno.get(), properties.min_seqno.get() + entry.seqno_base),
            ("largest seqno", entry.max_seqno.get(), properties.max_seqno.get() + entry.seqno_base),
        ] {
            // What the former layout did not say was filled in from what it did (M4).
            if said != is && entry.checksum != 0 {
                return Err(disagreement(format!("{at}: {what}: the manifest says {said}, the table {is}")));
            }
        }
        for (what, said, is) in [
            ("smallest key", &entry.min_key, &properties.min_key),
            ("largest key", &entry.max_key, &properties.max_key),
        ] {
            if said != is {
                let (said, is) = (said.escape_ascii(), is.escape_ascii());
                return Err(disagreement(format!("{at}: {what}: the manifest says \"{said}\", the table \"{is}\"")));
            }
        }
        if entry.max_seqno > self.manifest.last_seqno {
            let (found, last) = (entry.max_seqno, self.manifest.last_seqno);
            return Err(disagreement(format!("{at}: largest seqno: expected at most {last}, found {found}")));
        }
        // Zero: a table of the former layout, whose checksum nobody knows.
        if entry.checksum != 0 {
            let found = checksum(self.files(), &path)?;
            if found != entry.checksum {
                let expected = entry.checksum;
                let what = format!("{at}: xxh3 of the whole file: expected {expected:016x}, found {found:016x}");
                return Err(disagreement(what));
            }
        }
        self.report.tables += 1;
        self.report.table_bytes += entry.bytes;
        self.report.blocks += report.data_blocks;
        self.report.entries += report.entries;
        Ok(())
    }

    fn open(&self, keyspace: KeyspaceId, entry: &TableEntry) -> Result<TableReader> {
        let expected = Expected {
            bytes: entry.bytes,
            database_id: self.manifest.database_id.0,
            keyspace,
            table: entry.id,
            seqno_base: entry.seqno_base,
        };
        open(self.files(), &self.paths.table(entry.id), expected)
    }

    /// Checks that where runs hold the same key, the newer run's versions are newer, as point reads take for granted (C3).
    ///
    /// One pass over all runs side by side: each step takes the smallest key and asks the runs that stand on it.
    fn runs(&self, keyspace: &KeyspaceState) -> Result<()> {
        let runs = keyspace.levels.iter().flat_map(|level| &level.runs);
        let mut walks = Vec::new();
        for run in runs {
            let mut walk = RunWalk { check: self, keyspace: keyspace.id, left: &run.tables, cursor: None };
            walk.next_table()?;
            walks.push(walk);
        }
        loop {
            let smallest = walks.iter().filter_map(RunWalk::user_key).min().map(<[u8]>::to_vec);
            let Some(key) = smallest else { return Ok(()) };
            let mut oldest_above: Option<(SeqNo, TableId)> = None;
            for walk in &mut walks {
                let Some((newest, oldest, table)) = walk.versions_of(&key)? else { continue };
                if let Some((above, in_table)) = oldest_above
                    && newest >= above
                {
                    let (file, newer) = (self.paths.table(table), self.paths.table(in_table));
                    return Err(disagreement(format!(
                        "{}: key \"{}\": expected versions below {above}, which the newer run's {} holds, found {newest}",
                        file.display(),
                        key.escape_ascii(),
                        newer.display(),
                    )));
                }
                oldest_above = Some((oldest, table));
            }
        }
    }

    /// Replays the log without applying it.
    fn log(&mut self) -> Result<()> {
        if self.manifest.log_floor == LogFloor::default() {
            // Closed with nothing left in it, or created and interrupted before there was one.
            let checked = crate::open::check_no_log(self.environment, self.paths, self.manifest);
            return self.report.note_if_damage(checked);
        }
        let mut entries = 0_u64;
        let mut outcomes = Vec::new();
        let on_record = |record: Record<'_>| {
            match self.record(&record) {
                Ok(count) => entries += count,
                Err(error) => outcomes.push(error),
            }
            Ok(())
        };
        let options = ReplayOptions::default();
        let replayed = crate::core::replay_log(self.environment, self.paths, self.manifest, options, on_record);
        for error in outcomes {
            self.report.note_if_damage(Err(error))?;
        }
        match replayed {
            Ok(replayed) => {
                self.report.log_segments = replayed.segments.len() as u64;
                self.report.log_records = replayed.records;
                self.report.log_cut_bytes = replayed.cut_bytes;
            }
            Err(error) => {
                self.report.note_if_damage(Err(missing_is_damage(error.into(), "the list of the log's segments")))?;
            }
        }
        self.report.log_entries = entries;
        Ok(())
    }

    /// Checks what a record says and returns how many entries it holds itself.
    fn record(&self, record: &Record<'_>) -> Result<u64> {
        let file = self.paths.segment(record.position.segment);
        let wrong =
            |what: String| disagreement(format!("{} at offset {}: {what}", file.display(), record.position.offset));
        let damaged = |source: batch_format::BatchError| wrong(source.to_string());
        let known = |id: KeyspaceId| match id < self.manifest.next_keyspace_id {
            true => Ok(()),
            false => Err(wrong(format!("expected a keyspace below {}, found {id}", self.manifest.next_keyspace_id))),
        };
        match record.kind {
            RecordKind::Batch => {
                let mut count = 0;
                for entry in batch_format::decode(record.payload).map_err(damaged)? {
                    known(entry.map_err(damaged)?.keyspace)?;
                    count += 1;
                }
                Ok(count)
            }
            RecordKind::BatchReference => {
                let reference = BatchReference::decode(record.payload).map_err(damaged)?;
                for part in &reference.parts {
                    known(part.keyspace)?;
                    // Once a batch is flushed, the manifest names its table, or what it was merged into.
                    let keyspace = self.manifest.keyspaces.get(&part.keyspace);
                    if keyspace.is_none_or(|keyspace| record.first_seqno <= keyspace.flushed_seqno) {
                        continue;
                    }
                    let path = self.paths.table(part.table);
                    let expected = Expected {
                        bytes: part.bytes,
                        database_id: self.manifest.database_id.0,
                        keyspace: part.keyspace,
                        table: part.table,
                        seqno_base: record.first_seqno.get(),
                    };
                    let table = open(self.files(), &path, expected);
                    let table = table.map_err(|error| missing_is_damage(error, &record.position.to_string()))?;
                    sstable_format::verify(&table)?;
                    let found = checksum(self.files(), &path);
                    let found = found.map_err(|error| missing_is_damage(error, &record.position.to_string()))?;
                    if found != part.checksum {
                        let (at, expected) = (path.display(), part.checksum);
                        let what =
                            format!("{at}: xxh3 of the whole file: expected {expected:016x}, found {found:016x}");
                        return Err(disagreement(what));
                    }
                }
                Ok(0)
            }
            RecordKind::ClearKeyspace | RecordKind::DropKeyspace => {
                known(batch_format::decode_keyspace(record.payload).map_err(damaged)?)?;
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    /// Counts the tables that lie there and that nothing names: leftovers, which the next opening removes.
    fn unnamed(&mut self) -> Result<()> {
        let dir = self.paths.tables_dir();
        if !self.files().exists(&dir)? {
            return Ok(());
        }
        let named: std::collections::BTreeSet<TableId> = self
            .manifest
            .keyspaces
            .values()
            .flat_map(|keyspace| keyspace.tables().map(|(_, _, table)| table.id))
            .collect();
        let entries = self.files().read_dir(&dir)?;
        let ids = entries.iter().filter_map(|entry| manifest::paths::parse_table_name(&entry.name));
        self.report.unnamed_tables = ids.filter(|id| !named.contains(id)).count() as u64;
        Ok(())
    }
}

/// A walk through the tables of one run, one open at a time.
struct RunWalk<'a> {
    check: &'a Check<'a>,
    keyspace: KeyspaceId,
    left: &'a [std::sync::Arc<TableEntry>],
    cursor: Option<(TableId, TableCursor)>,
}

impl RunWalk<'_> {
    fn next_table(&mut self) -> Result<()> {
        self.cursor = None;
        while let Some((entry, left)) = self.left.split_first() {
            self.left = left;
            let mut cursor = std::sync::Arc::new(self.check.open(self.keyspace, entry)?).cursor_for_compaction();
            cursor.seek_to_first()?;
            if cursor.valid() {
                self.cursor = Some((entry.id, cursor));
                break;
            }
        }
        Ok(())
    }

    fn user_key(&self) -> Option<&[u8]> {
        self.cursor.as_ref().map(|(_, cursor)| cursor.user_key())
    }

    /// The newest and the oldest version of `key` if the walk stands on it, which it then leaves behind. All versions of
    /// a key lie in one table of a run (C3).
    fn versions_of(&mut self, key: &[u8]) -> Result<Option<(SeqNo, SeqNo, TableId)>> {
        let Some((table, cursor)) = &mut self.cursor else { return Ok(None) };
        if cursor.user_key() != key {
            return Ok(None);
        }
        let table = *table;
        let newest = cursor.trailer().seqno();
        let mut oldest = newest;
        while cursor.valid() && cursor.user_key() == key {
            oldest = cursor.trailer().seqno();
            cursor.next()?;
        }
        if !cursor.valid() {
            self.next_table()?;
        }
        Ok(Some((newest, oldest, table)))
    }
}

/// Opens a table to look at all of it.
pub(crate) fn open(files: &dyn FileSystem, path: &Path, expected: Expected) -> Result<TableReader> {
    // Not mapped: a disk that fails is then an error and not a signal.
    Ok(TableReader::open(files, path, expected, ReadOptions { access: Access::Pread, block_cache: None })?)
}

/// xxh3 of a whole file.
pub(crate) fn checksum(files: &dyn FileSystem, path: &Path) -> Result<u64> {
    let file = files.open(path)?;
    let (mut hash, mut at, mut buffer) = (Xxh3::new(), 0, vec![0; 1 << 20]);
    while at < file.len() {
        let bytes = usize::try_from(file.len() - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(at, &mut buffer[..bytes])?;
        hash.update(&buffer[..bytes]);
        at += bytes as u64;
    }
    Ok(hash.digest())
}
