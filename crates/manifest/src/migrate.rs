//! The former layout, one `manifest.json`, and how it becomes this one (M4).
//!
//! ```text
//!  {"version": 1, "next_file_id": 8, "levels": [[{"id": 7, "size": 900, "min_key": "a", "max_key": "c", "entries": 3}]]}
//!
//!  manifest.json ─▶ level files ─▶ global.json (the commit point) ─▶ manifest.json renamed to manifest.json.backup-<xxh3>
//! ```
//!
//! - **M4** A crash before the commit point leaves the former database, one after it the new; opening again does what
//!   is missing. `global.json` remembers the former manifest's checksum, so that a manifest which an older program
//!   wrote *after* the migration is told apart and nothing of it is lost.
//!
//! What the former layout did not say is decided so: keys are the bytes of the strings; everything becomes the keyspace
//! `default` (id 1); entries stand before every write (seqno 0) and are ordered by epochs alone. Level 0 may overlap: each of
//! its tables is a run, a larger id newer. Every deeper level is one run, older than all above it. File checksums were
//! not kept: 0 stands for "not known". `next_file_id` becomes the next table and the next segment id.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use file_system::{Environment, FileError};
use internal_key::{Epoch, JobId, KeyspaceId, Level, MAX_KEY_BYTES, SegmentId, SeqNo, TableId};
use xxhash_rust::xxh3::xxh3_64;

use crate::global::{MigratedFrom, version};
use crate::json::{Source, Value};
use crate::level::LEVEL_BYTES_MAX;
use crate::{AddedTable, Change, DatabaseId, DatabasePaths, DecodeError, Edit, Manifest, ManifestError, TableEntry};

/// The keyspace that a former database becomes.
pub const MIGRATED_KEYSPACE_NAME: &str = "default";

/// The former manifest's bytes, if there is one.
pub(crate) fn read_former(env: &Environment, paths: &DatabasePaths) -> Result<Option<Vec<u8>>, ManifestError> {
    match env.files.read(&paths.former(), LEVEL_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The manifest that a former one becomes. `file` is named in errors.
///
/// # Errors
/// If anything does not fit the former layout: never a panic, whatever the bytes.
pub fn decode(file: &Path, bytes: &[u8], database_id: DatabaseId) -> Result<Manifest, DecodeError> {
    let mut root = Source::strict(file).parse(bytes)?.object()?;
    version(root.field("version")?)?;
    let next_file_id = root.field("next_file_id")?.u64()?;
    let levels = root.field("levels")?;
    let too_many = levels.wrong(format!("at most {} levels", Level::COUNT));
    let levels: Vec<Value<'_>> = levels.list()?.collect();
    if levels.len() > Level::COUNT {
        return Err(too_many);
    }
    root.finish()?;

    let keyspace = KeyspaceId(1);
    let create = Change::CreateKeyspace {
        id: keyspace,
        name: MIGRATED_KEYSPACE_NAME.into(),
        options: BTreeMap::new(),
        created_seqno: SeqNo::ZERO,
    };
    let mut ids = HashSet::new();
    let mut added = Vec::new();
    let mut epoch = Epoch(0);
    // Oldest first: the deepest level, up to the newest table of level 0.
    for (number, value) in levels.into_iter().enumerate().rev() {
        let level = Level(number as u8);
        let mut tables = Vec::new();
        for value in value.list()? {
            let spot = value.spot();
            let table = read_table(value)?;
            if table.id.get() >= next_file_id || !ids.insert(table.id) {
                let expected = format!("an id of its own below next_file_id, {next_file_id}");
                return Err(spot.wrong(expected, table.id.get().to_string()));
            }
            tables.push(table);
        }
        tables.sort_by_key(|table| table.id);
        if level != Level::ZERO && !tables.is_empty() {
            epoch = Epoch(epoch.get() + 1);
        }
        for table in tables {
            if level == Level::ZERO {
                epoch = Epoch(epoch.get() + 1);
            }
            let table = Arc::new(TableEntry { epoch, ..table });
            added.push(AddedTable { level, run: epoch, table });
        }
    }
    let edit = Edit::of(create)
        .and(Change::ReplaceTables { keyspace, removed: Vec::new(), added, flushed_seqno: None })
        .and(Change::RaiseNextIds {
            table: TableId(next_file_id),
            segment: SegmentId(next_file_id),
            job: JobId(1),
            epoch: Epoch(1),
        });
    Manifest::empty(database_id).apply(&edit).map_err(|refusal| {
        let place = crate::Place::Json("levels".into());
        DecodeError::damaged(file, place, "tables that do not overlap below level 0", refusal.to_string())
    })
}

fn read_table(value: Value<'_>) -> Result<TableEntry, DecodeError> {
    let spot = value.spot();
    let mut object = value.object()?;
    let mut key = |name: &'static str| {
        let value = object.field(name)?;
        let spot = value.spot();
        let key = value.text()?.into_bytes();
        if key.len() > MAX_KEY_BYTES {
            return Err(spot.wrong(format!("a key of at most {MAX_KEY_BYTES} bytes"), format!("{} bytes", key.len())));
        }
        Ok(key.into_boxed_slice())
    };
    let (min_key, max_key) = (key("min_key")?, key("max_key")?);
    let bytes = object.field("size")?.u64()?;
    let table = TableEntry {
        id: TableId(object.field("id")?.u64()?),
        bytes,
        checksum: 0,
        min_key,
        max_key,
        min_seqno: SeqNo::ZERO,
        max_seqno: SeqNo::ZERO,
        entries: object.field("entries")?.u64()?,
        tombstones: 0,
        logical_bytes: bytes,
        epoch: Epoch(0),
        job: JobId(0),
        seqno_base: 0,
        newest_unix_ms: 0,
    };
    object.finish()?;
    if table.min_key > table.max_key {
        return Err(spot.wrong("min_key at or before max_key", "a min_key after max_key"));
    }
    Ok(table)
}

/// Checks that the former manifest beside a `global.json` is the one that was migrated into it.
pub(crate) fn check(
    paths: &DatabasePaths,
    former: &[u8],
    migrated_from: Option<MigratedFrom>,
) -> Result<(), ManifestError> {
    let found = MigratedFrom { bytes: former.len() as u64, checksum: xxh3_64(former) };
    if migrated_from == Some(found) { Ok(()) } else { Err(ManifestError::Conflict { file: paths.former() }) }
}

/// The step after the commit point, when that is durable: the former manifest becomes a backup.
pub(crate) fn finish(env: &Environment, paths: &DatabasePaths, former: &[u8]) -> Result<(), FileError> {
    env.files.rename(&paths.former(), &paths.backup(xxh3_64(former)))?;
    env.files.sync_dir(paths.dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_here(text: &str) -> Result<Manifest, DecodeError> {
        decode(Path::new("manifest.json"), text.as_bytes(), DatabaseId(7))
    }

    /// M4: a former manifest becomes one keyspace; level 0 by id, deeper levels one run each, older the deeper.
    #[test]
    fn a_former_manifest_becomes_one_keyspace() {
        let manifest = decode_here(
            r#"{"version": 1, "next_file_id": 9, "levels": [
                [{"id": 8, "size": 10, "min_key": "a", "max_key": "z", "entries": 2},
                 {"id": 5, "size": 10, "min_key": "b", "max_key": "y", "entries": 2}],
                [{"id": 4, "size": 10, "min_key": "n", "max_key": "z", "entries": 1},
                 {"id": 3, "size": 10, "min_key": "", "max_key": "mü", "entries": 1}],
                [],
                [{"id": 1, "size": 10, "min_key": "a", "max_key": "b", "entries": 1}]]}"#,
        )
        .unwrap();
        assert_eq!(
            manifest.to_string(),
            concat!(
                "generation 0, next t9 seg9 ks2 job1 e5, last #0, floor seg0, claim seg0+0\n",
                "ks1 \"default\" created #0 flushed #0\n",
                "  L0 e4: t8[a..z #0..#0]\n",
                "  L0 e3: t5[b..y #0..#0]\n",
                "  L1 e2: t3[..m\\xc3\\xbc #0..#0] t4[n..z #0..#0]\n",
                "  L3 e1: t1[a..b #0..#0]\n",
            )
        );
    }

    /// M4: what does not fit the former layout is refused.
    #[test]
    fn what_does_not_fit_is_refused() {
        let table = |id: u64, min: &str, max: &str| {
            format!(r#"{{"id": {id}, "size": 1, "min_key": "{min}", "max_key": "{max}", "entries": 1}}"#)
        };
        let with = |levels: &str| format!(r#"{{"version": 1, "next_file_id": 9, "levels": [{levels}]}}"#);
        let two = |left: &str, right: &str| with(&format!("[], [{left}, {right}]"));
        for (wrong, expected) in [
            (with("[],[],[],[],[],[],[],[]"), "at most 7 levels"),
            (two(&table(1, "a", "c"), &table(2, "c", "d")), "overlaps"),
            (two(&table(1, "a", "c"), &table(1, "d", "e")), "an id of its own"),
            (with(&format!("[{}]", table(9, "a", "b"))), "below next_file_id"),
            (with(&format!("[{}]", table(1, "b", "a"))), "min_key at or before"),
            (with("[{\"id\": 1}]"), "min_key"),
            (with("").replace("version\": 1", "version\": 2"), "version 1"),
            (with("").replace("next_file_id", "next_id"), "next_file_id"),
            ("[]".into(), "an object"),
            ("".into(), "JSON"),
        ] {
            let error = decode_here(&wrong).unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
        assert!(decode_here(&with("")).is_ok());
    }

    proptest::proptest! {
        /// M4: arbitrary bytes are refused.
        #[test]
        fn reading_arbitrary_bytes_is_safe(bytes: Vec<u8>) {
            let _ = decode(Path::new("manifest.json"), &bytes, DatabaseId(7));
        }
    }
}
