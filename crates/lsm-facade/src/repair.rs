//! Repairing: a manifest made from what is there, in place. Nothing is thrown away.
//!
//! ```text
//!   find out ─▶ keep aside (second names in repair-<n>/) ─▶ the new manifest ═ the commit point
//!            ─▶ remove what is kept aside ─▶ open, passing over damage in the log ─▶ close
//! ```
//!
//! - **M2** Until the new manifest is durable nothing but second names has been made; after it only files go that are
//!   kept aside. Interrupted anywhere, it can be done again.
//! - **L3** What the log cannot give back is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::FileSystem;
use internal_key::{KeyspaceId, Kind, SeqNo};
use manifest::{LogFloor, Manifest, ManifestError, ManifestStore};
use sstable_format::{Access, Expected, ReadOptions, TableReader};
use write_ahead_log::{Record, RecordKind, ReplayOptions};

use crate::batch_format;
use crate::core::replay_log;
use crate::options::{DatabaseOptions, KeyspaceOptions};
use crate::rescue::{Finding, LeftOut, find_out};
use crate::{Database, Error, Result, VerifyReport};

/// What [`DatabaseBuilder::repair`](crate::DatabaseBuilder::repair) did, and what it could not save.
#[derive(Debug)]
#[non_exhaustive]
pub struct RepairReport {
    /// Where the files lie that the database no longer has, and those that repair replaced.
    pub kept_aside: PathBuf,
    /// Whether the former manifest could be read. If not, the new one was made from tables and log alone.
    pub manifest_was_whole: bool,
    /// Tables that the database now has.
    pub tables: u64,
    /// Files that it no longer has, each with the reason. A table among them may still be read in part: salvage does.
    pub left_out: Vec<LeftOut>,
    /// Stretches of the log that could not be read. What was written there is lost unless a table holds it.
    pub log_lost: Vec<String>,
    /// Entries of tables that are left out, which the log still held and which were written anew.
    pub recovered_from_log: u64,
    /// What cannot be known: names, what may reappear.
    pub notes: Vec<String>,
    /// What verifying says now.
    pub verified: VerifyReport,
}

pub(crate) fn repair(path: &Path, options: DatabaseOptions) -> Result<RepairReport> {
    let environment = options.environment.clone();
    let files = &*environment.files;
    if !files.exists(path)? {
        return Err(Error::NotFound { path: path.to_owned() });
    }
    let lock = files.lock_dir(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { path: path.to_owned(), source: std::sync::Arc::new(source) },
        _ => Error::from_file(source),
    })?;
    let found = find_out(&environment, path)?;
    let kept_aside = keep_aside(files, &found)?;
    let lost = again_from_log(&options, &found)?;
    let Finding { mut manifest, manifest_was_whole, left_out, notes, log, paths, .. } = found;
    end_histories(&mut manifest, log.last_seqno);
    let tables = manifest.keyspaces.values().map(|keyspace| keyspace.tables().count() as u64).sum();
    drop(ManifestStore::rebuild(&environment, path, options.manifest(), manifest).map_err(|error| match error {
        ManifestError::Io(error) => Error::from_file(error),
        error => error.into(),
    })?);
    for LeftOut { file, .. } in &left_out {
        if files.exists(file)? {
            files.remove_file(file)?;
        }
    }
    for dir in [paths.tables_dir(), paths.log_dir()] {
        files.sync_dir(&dir)?;
    }
    drop(lock);
    let open = DatabaseOptions {
        salvage: true,
        create_if_missing: false,
        error_if_exists: false,
        read_only: false,
        ..options
    };
    let database = Database::open_with(path, open)?;
    let recovered_from_log = write_again(&database, lost)?;
    database.close()?;
    let verified = crate::verify::verify(&environment, path)?;
    let log_lost = log.skipped;
    Ok(RepairReport { kept_aside, manifest_was_whole, tables, left_out, log_lost, recovered_from_log, notes, verified })
}

/// What was lost may have been written at any sequence number: nothing of the past is promised. The log may reach further
/// than the manifest says.
fn end_histories(manifest: &mut Manifest, last_in_log: SeqNo) {
    let last = manifest.last_seqno.max(last_in_log);
    for state in manifest.keyspaces.values_mut() {
        if KeyspaceOptions::from_manifest(&state.options).is_ok_and(|options| options.keeps_history()) {
            Arc::make_mut(state).history_floor = last;
        }
    }
}

/// Gives second names, in a new directory, to all that repair will remove or replace.
fn keep_aside(files: &dyn FileSystem, found: &Finding) -> Result<PathBuf> {
    let dir = found.paths.dir();
    let free = |number: &u32| files.exists(&dir.join(format!("repair-{number}"))).map(|exists| !exists);
    let mut number = 1;
    while !free(&number)? {
        number += 1;
    }
    let aside = dir.join(format!("repair-{number}"));
    files.create_dir(&aside)?;
    files.sync_dir(dir)?;
    let mut kept: BTreeSet<PathBuf> = found.left_out.iter().map(|left_out| left_out.file.clone()).collect();
    for entry in files.read_dir(dir)? {
        if entry.name == "global.json" || manifest::paths::parse_edits_name(&entry.name).is_some() {
            kept.insert(dir.join(entry.name));
        }
    }
    for (sub, wanted) in
        [(found.paths.tables_dir(), !found.manifest_was_whole), (found.paths.log_dir(), !found.log.skipped.is_empty())]
    {
        if wanted && files.exists(&sub)? {
            kept.extend(
                files.read_dir(&sub)?.into_iter().filter(|entry| !entry.is_dir).map(|entry| sub.join(entry.name)),
            );
        }
    }
    if files.exists(&found.paths.keyspaces_dir())? {
        for keyspace in files.read_dir(&found.paths.keyspaces_dir())?.into_iter().filter(|entry| entry.is_dir) {
            let sub = found.paths.keyspaces_dir().join(keyspace.name);
            kept.extend(
                files.read_dir(&sub)?.into_iter().filter(|entry| !entry.is_dir).map(|entry| sub.join(entry.name)),
            );
        }
    }
    for file in kept {
        let inside = file.strip_prefix(dir).expect("every file of a database lies in its directory");
        let named_by_manifest = found.names_table(&file);
        if named_by_manifest || !files.exists(&file)? {
            continue;
        }
        let mut parent = aside.clone();
        for part in inside.parent().into_iter().flat_map(Path::components) {
            let child = parent.join(part);
            if !files.exists(&child)? {
                files.create_dir(&child)?;
                files.sync_dir(&parent)?;
            }
            parent = child;
        }
        files.hard_link(&file, &aside.join(inside))?;
        files.sync_dir(&parent)?;
    }
    Ok(aside)
}

/// The newest version of a key that the log holds: its sequence number, and its value unless it was removed.
type Newest = BTreeMap<(KeyspaceId, Vec<u8>), (SeqNo, Option<Vec<u8>>)>;

/// What the log holds of keyspaces that lost a table, as far as the tables that are left count as holding it (P6), so
/// that replay will pass it over. The log is a suffix of all writes: its newest version of a key is the newest.
fn again_from_log(options: &DatabaseOptions, found: &Finding) -> Result<Newest> {
    let mut newest = Newest::new();
    let lost: BTreeSet<KeyspaceId> = found.damaged.values().flatten().copied().collect();
    let all = found.damaged.values().any(Option::is_none);
    if found.damaged.is_empty() || !found.log.skipped.is_empty() || found.manifest.log_floor == LogFloor::default() {
        return Ok(newest);
    }
    let on_record = |record: Record<'_>| {
        match record.kind {
            RecordKind::Batch => {
                for (entry, offset) in batch_format::decode(record.payload)?.zip(0_u64..) {
                    let entry = entry?;
                    let seqno = record.first_seqno.checked_add(offset).unwrap_or(SeqNo::MAX);
                    if all || lost.contains(&entry.keyspace) {
                        let value = (entry.kind == Kind::Put).then(|| entry.value.to_vec());
                        newest.insert((entry.keyspace, entry.key.to_vec()), (seqno, value));
                    }
                }
            }
            RecordKind::ClearKeyspace | RecordKind::DropKeyspace => {
                let id = batch_format::decode_keyspace(record.payload)?;
                newest.retain(|(keyspace, _), _| *keyspace != id);
            }
            _ => {}
        }
        Ok(())
    };
    replay_log(&options.environment, &found.paths, &found.manifest, ReplayOptions { salvage: true }, on_record)?;
    newest.retain(|(keyspace, _), (seqno, _)| {
        let flushed = found.manifest.keyspaces.get(keyspace).map(|state| state.flushed_seqno);
        flushed.is_some_and(|flushed| *seqno <= flushed)
    });
    if !planted_faults::planted("facade-repair-passes-over-batches") {
        remove_what_batches_hide(options, found, &mut newest);
    }
    Ok(newest)
}

/// Takes out each key of which a batch that became a table may hold a newer version than the log's record. A batch whose
/// table was merged into others may; one that is damaged hides nothing, for nobody will read it. Each table is opened once.
fn remove_what_batches_hide(options: &DatabaseOptions, found: &Finding, newest: &mut Newest) {
    for (id, first, part) in found.log.large_batches().filter(|(id, ..)| !found.damaged.contains_key(id)) {
        let expected = Expected {
            bytes: part.bytes,
            database_id: found.manifest.database_id.0,
            keyspace: part.keyspace,
            table: id,
            seqno_base: first.get(),
        };
        let read = ReadOptions { access: Access::Pread, block_cache: None };
        let table = TableReader::open(&*options.environment.files, &found.paths.table(id), expected, read).ok();
        let holds = |table: &TableReader, key: &[u8]| {
            table.get_unfiltered(key, SeqNo::MAX).is_ok_and(|version| version.is_some())
        };
        newest.retain(|(keyspace, key), (seqno, _)| {
            let may_hold =
                *keyspace == part.keyspace && *seqno < first && table.as_ref().is_none_or(|table| holds(table, key));
            !may_hold
        });
    }
}

/// Writes anew what the database does not have.
fn write_again(database: &Database, lost: Newest) -> Result<u64> {
    let mut written = 0;
    let keyspaces: BTreeMap<KeyspaceId, crate::Keyspace> = database
        .list_keyspaces()
        .into_iter()
        .map(|name| database.open_keyspace(&name).map(|keyspace| (keyspace.shared.id, keyspace)))
        .collect::<Result<_>>()?;
    for ((id, key), (_, value)) in lost {
        let Some(keyspace) = keyspaces.get(&id) else { continue };
        if keyspace.get(&key)?.as_deref() == value.as_deref() {
            continue;
        }
        match value {
            Some(value) => keyspace.insert(&key, value)?,
            None => keyspace.remove(&key)?,
        }
        written += 1;
    }
    Ok(written)
}
