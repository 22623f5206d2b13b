//! `verify`: every checksum of a database, and whether its files say the same.
//!
//! ```text
//!   global.json ─▶ level files ─▶ every table: whole-file checksum, every block, and what the manifest says of it
//!        └───────▶ log: every record from the floor on, every batch in it, every batch table that it names
//! ```
//!
//! Nothing is written and no lock is taken. Files that another process replaces meanwhile are no damage: the manifest is
//! read again, and what it no longer names is not missed.

use std::io::Write;
use std::path::{Path, PathBuf};

use file_system::{Environment, FileSystem};
use internal_key::{KeyspaceId, TableId};
use lsm_facade::Access;
use lsm_facade::batch_format::{self, BatchReference};
use manifest::{FollowerStore, LogFloor, Manifest, ManifestError, TableEntry};
use serde_json::json;
use sstable_format::{Expected, ReadOptions, TableError, TableReader};
use write_ahead_log::{LogPosition, Record, RecordKind, ReplayOptions, SegmentName};
use xxhash_rust::xxh3::Xxh3;

use crate::failure::{Failure, Outcome};
use crate::text::grouped;

/// Checks every file of a database: all checksums, and whether the files agree. Exit code 1 if anything is damaged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes nothing. Damage is shown with file, offset, what was expected and what was found.

Example:
  lsm verify words.db --json")]
pub(crate) struct Arguments {
    /// The database's directory
    db: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, and what is wrong.
#[derive(Debug, Default)]
struct Report {
    keyspaces: u64,
    level_files: u64,
    tables: u64,
    table_bytes: u64,
    blocks: u64,
    entries: u64,
    log_segments: u64,
    log_records: u64,
    log_entries: u64,
    log_cut_bytes: u64,
    unnamed_tables: u64,
    damage: Vec<String>,
}

/// How often a database that is being written is looked at again before what it says counts.
const ATTEMPTS: usize = 4;

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let environment = Environment::real();
    let mut report = Report::default();
    for attempt in 1..=ATTEMPTS {
        report = Report::default();
        let store = match FollowerStore::open(&environment, &arguments.db) {
            Ok(store) => store,
            Err(error) if is_damage(&error) => {
                report.damage.push(error.to_string());
                break;
            }
            Err(error) => return Err(Failure::failed(error)),
        };
        let manifest = store.current();
        Check { environment: &environment, store: &store, manifest: &manifest, report: &mut report }.everything()?;
        // Damage that another process explains is looked at again.
        let moved = store.reload().is_ok_and(|now| now.generation != manifest.generation);
        if report.damage.is_empty() || !moved || attempt == ATTEMPTS {
            break;
        }
    }
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &report.as_json())?;
        writeln!(out)?;
    } else {
        report.write(out)?;
    }
    match report.damage.len() {
        0 => Ok(()),
        count => Err(Failure::no(format_args!("{}: damaged in {count} places", arguments.db.display()))),
    }
}

/// Whether a manifest that does not open is damaged, rather than absent or not to be read.
fn is_damage(error: &ManifestError) -> bool {
    matches!(error, ManifestError::Decode(_) | ManifestError::Missing { .. } | ManifestError::Lost { .. })
}

struct Check<'a> {
    environment: &'a Environment,
    store: &'a FollowerStore,
    manifest: &'a Manifest,
    report: &'a mut Report,
}

impl Check<'_> {
    fn everything(mut self) -> Outcome {
        for keyspace in self.manifest.keyspaces.values() {
            self.report.keyspaces += 1;
            self.report.level_files += keyspace.levels.iter().filter(|level| level.generation > 0).count() as u64;
            for (level, _, entry) in keyspace.tables() {
                if let Err(error) = self.table(keyspace.id, entry) {
                    let (name, id) = (keyspace.name.escape_default(), entry.id);
                    self.report.damage.push(format!("keyspace \"{name}\", {level}, {id}: {error}"));
                }
            }
        }
        self.log();
        self.unnamed()
    }

    fn files(&self) -> &dyn FileSystem {
        &*self.environment.files
    }

    /// Checks one table that the manifest names.
    fn table(&mut self, keyspace: KeyspaceId, entry: &TableEntry) -> Result<(), String> {
        let path = self.store.paths().table(entry.id);
        let expected = Expected {
            bytes: entry.bytes,
            database_id: self.manifest.database_id.0,
            keyspace,
            table: entry.id,
            seqno_base: entry.seqno_base,
        };
        let text = |error: TableError| error.to_string();
        let table = open(self.files(), &path, expected).map_err(text)?;
        let report = sstable_format::verify(&table).map_err(text)?;
        self.report.tables += 1;
        self.report.table_bytes += entry.bytes;
        self.report.blocks += report.data_blocks;
        self.report.entries += report.entries;
        let properties = table.properties();
        let at = path.display();
        for (what, said, is) in [
            ("entries", entry.entries, properties.entries),
            ("tombstones", entry.tombstones, properties.tombstones),
            ("logical bytes", entry.logical_bytes, properties.logical_bytes),
            ("smallest seqno", entry.min_seqno.get(), properties.min_seqno.get() + entry.seqno_base),
            ("largest seqno", entry.max_seqno.get(), properties.max_seqno.get() + entry.seqno_base),
        ] {
            if said != is {
                return Err(format!("{at}: {what}: the manifest says {said}, the table {is}"));
            }
        }
        for (what, said, is) in [
            ("smallest key", &entry.min_key, &properties.min_key),
            ("largest key", &entry.max_key, &properties.max_key),
        ] {
            if said != is {
                let (said, is) = (said.escape_ascii(), is.escape_ascii());
                return Err(format!("{at}: {what}: the manifest says \"{said}\", the table \"{is}\""));
            }
        }
        // Zero: a table of the former layout, whose checksum nobody knows.
        if entry.checksum != 0 {
            let found = checksum(self.files(), &path)?;
            if found != entry.checksum {
                let expected = entry.checksum;
                return Err(format!("{at}: xxh3 of the whole file: expected {expected:016x}, found {found:016x}"));
            }
        }
        Ok(())
    }

    /// Replays the log without applying it.
    fn log(&mut self) {
        let LogFloor { segment, salt } = self.manifest.log_floor;
        if self.manifest.log_floor == LogFloor::default() {
            return; // Closed with nothing left in it, or created and interrupted before there was one.
        }
        let claim = LogPosition { segment: self.manifest.claim.segment, offset: self.manifest.claim.offset };
        let (environment, paths, manifest) = (self.environment, self.store.paths(), self.manifest);
        let database_id = manifest.database_id.0;
        let (mut entries, mut damage) = (0_u64, Vec::new());
        let on_record = |record: Record<'_>| {
            match check_record(environment, paths, manifest, &record) {
                Ok(count) => entries += count,
                Err(what) => {
                    let file = paths.segment(record.position.segment);
                    damage.push(format!("{} at offset {}: {what}", file.display(), record.position.offset));
                }
            }
            Ok(())
        };
        let floor = SegmentName { id: segment, salt };
        let options = ReplayOptions::default();
        match write_ahead_log::replay(environment, &paths.log_dir(), database_id, floor, claim, options, on_record) {
            Ok(replayed) => {
                self.report.log_segments = replayed.segments.len() as u64;
                self.report.log_records = replayed.records;
                self.report.log_cut_bytes = replayed.cut_bytes;
            }
            Err(error) => damage.push(error.to_string()),
        }
        self.report.log_entries = entries;
        self.report.damage.append(&mut damage);
    }

    /// Counts the tables that lie there and that nothing names: leftovers, which the next opening removes.
    fn unnamed(&mut self) -> Outcome {
        let dir = self.store.paths().tables_dir();
        if !self.files().exists(&dir).map_err(Failure::failed)? {
            return Ok(());
        }
        let named = |id: TableId| {
            self.manifest.keyspaces.values().any(|keyspace| keyspace.tables().any(|(_, _, table)| table.id == id))
        };
        let entries = self.files().read_dir(&dir).map_err(Failure::failed)?;
        let ids = entries.iter().filter_map(|entry| manifest::paths::parse_table_name(&entry.name));
        self.report.unnamed_tables = ids.filter(|&id| !named(id)).count() as u64;
        Ok(())
    }
}

/// Checks what a record says and returns how many entries it holds itself.
fn check_record(
    environment: &Environment,
    paths: &manifest::DatabasePaths,
    manifest: &Manifest,
    record: &Record<'_>,
) -> Result<u64, String> {
    match record.kind {
        RecordKind::Batch => {
            let entries = batch_format::decode(record.payload).map_err(|error| error.to_string())?;
            let mut count = 0;
            for entry in entries {
                entry.map_err(|error| error.to_string())?;
                count += 1;
            }
            Ok(count)
        }
        RecordKind::BatchReference => {
            let reference = BatchReference::decode(record.payload).map_err(|error| error.to_string())?;
            for part in &reference.parts {
                // Once a batch is flushed, the manifest names its table, or what it was merged into.
                let keyspace = manifest.keyspaces.get(&part.keyspace);
                if keyspace.is_none_or(|keyspace| record.first_seqno <= keyspace.flushed_seqno) {
                    continue;
                }
                let path = paths.table(part.table);
                let expected = Expected {
                    bytes: part.bytes,
                    database_id: manifest.database_id.0,
                    keyspace: part.keyspace,
                    table: part.table,
                    seqno_base: record.first_seqno.get(),
                };
                let table = open(&*environment.files, &path, expected).map_err(|error| error.to_string())?;
                sstable_format::verify(&table).map_err(|error| error.to_string())?;
            }
            Ok(0)
        }
        RecordKind::ClearKeyspace | RecordKind::DropKeyspace => {
            batch_format::decode_keyspace(record.payload).map_err(|error| error.to_string())?;
            Ok(0)
        }
        _ => Ok(0),
    }
}

fn open(files: &dyn FileSystem, path: &Path, expected: Expected) -> Result<TableReader, TableError> {
    // Not mapped: a disk that fails is then an error and not a signal.
    TableReader::open(files, path, expected, ReadOptions { access: Access::Pread, block_cache: None })
}

/// xxh3 of a whole file.
fn checksum(files: &dyn FileSystem, path: &Path) -> Result<u64, String> {
    let file = files.open(path).map_err(|error| error.to_string())?;
    let (mut hash, mut at, mut buffer) = (Xxh3::new(), 0, vec![0; 1 << 20]);
    while at < file.len() {
        let bytes = usize::try_from(file.len() - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(at, &mut buffer[..bytes]).map_err(|error| error.to_string())?;
        hash.update(&buffer[..bytes]);
        at += bytes as u64;
    }
    Ok(hash.digest())
}

impl Report {
    fn write(&self, out: &mut dyn Write) -> Outcome {
        let Self { keyspaces, level_files, tables, .. } = self;
        let (blocks, entries, bytes) = (grouped(self.blocks), grouped(self.entries), grouped(self.table_bytes));
        writeln!(out, "manifest  {keyspaces} keyspaces, {level_files} level files")?;
        writeln!(out, "tables    {tables} of {bytes} bytes: {blocks} blocks, {entries} entries")?;
        let (records, logged) = (grouped(self.log_records), grouped(self.log_entries));
        writeln!(out, "log       {} segments: {records} records, {logged} entries", self.log_segments)?;
        if self.log_cut_bytes > 0 {
            let cut = grouped(self.log_cut_bytes);
            writeln!(out, "          ends in an incomplete write of {cut} bytes, which the next opening cuts")?;
        }
        if self.unnamed_tables > 0 {
            writeln!(out, "          {} table files that the manifest does not name", self.unnamed_tables)?;
        }
        for damage in &self.damage {
            writeln!(out, "damage    {damage}")?;
        }
        if self.damage.is_empty() {
            writeln!(out, "no damage")?;
        }
        Ok(())
    }

    fn as_json(&self) -> serde_json::Value {
        json!({
            "manifest": {"keyspaces": self.keyspaces, "level_files": self.level_files},
            "tables": {
                "count": self.tables,
                "bytes": self.table_bytes,
                "blocks": self.blocks,
                "entries": self.entries,
                "unnamed": self.unnamed_tables,
            },
            "log": {
                "segments": self.log_segments,
                "records": self.log_records,
                "entries": self.log_entries,
                "cut_bytes": self.log_cut_bytes,
            },
            "damage": self.damage,
        })
    }
}
