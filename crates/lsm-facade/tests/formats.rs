//! Databases of every format that was ever released, committed, which must open for ever.
//!
//! `tests/formats/v3/closed` was closed, `v3/killed` was not: its log is to be replayed. Both have two keyspaces, tables in
//! several levels, compressed ones among them, tombstones, and a batch that became tables. The `.txt` beside each lists its
//! rows. They were made by [`write_samples`] of the version that released the format, and are never changed.
//!
//! `v1` has a log of format 1, `v2` has tables of format 1. Neither was ever released: they are refused.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{DB, contents, key, listing, value};
use file_system::{Crash, Environment, Simulation};
use lsm_facade::{Database, DatabaseBuilder, Error, KeyspaceOptions};

const SAMPLES: [&str; 2] = ["v3/closed", "v3/killed"];

fn sample_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn options(builder: DatabaseBuilder) -> DatabaseBuilder {
    builder.background_threads(0).log_segment_bytes(16 << 10)
}

/// Every row, a line each: keyspace, key, value.
fn rows_as_text(database: &Database) -> String {
    let mut out = String::new();
    for (name, rows) in contents(database) {
        for (key, value) in rows {
            writeln!(out, "{name}\t{}\t{}", key.escape_ascii(), value.escape_ascii()).unwrap();
        }
    }
    out
}

fn copy_files(from: &Path, to: &Path) {
    for path in listing(&*Environment::real().files, from).into_keys().filter(|path| path.is_file()) {
        let to = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    }
}

/// M1, L3, T5: a database that a released version wrote has the rows it had, whether it was closed or killed, read-only
/// and after everything was rewritten.
#[test]
fn databases_of_every_released_format_open() {
    for sample in SAMPLES {
        let from = sample_dir().join(sample);
        let expected = fs::read_to_string(from.with_extension("txt")).unwrap();
        assert!(expected.lines().count() > 200, "{sample} has rows");
        let home = tempfile::tempdir().unwrap();
        copy_files(&from, home.path());
        let reader = options(Database::builder(home.path())).read_only(true).open().unwrap();
        assert!(rows_as_text(&reader) == expected, "{sample}, for reading only");
        drop(reader);
        let database = options(Database::builder(home.path())).create_if_missing(false).open().unwrap();
        assert!(rows_as_text(&database) == expected, "{sample}");
        let levels: BTreeSet<u8> =
            database.stats().keyspaces.iter().flat_map(|keyspace| &keyspace.levels).map(|level| level.level).collect();
        assert!(levels.len() > 2 && levels.last() >= Some(&2), "{sample}: lz4 stands below level 1: {levels:?}");
        for name in database.list_keyspaces() {
            common::keyspace(&database, &name).compact().unwrap();
        }
        assert!(rows_as_text(&database) == expected, "{sample}, rewritten");
        drop(database);
        let database = options(Database::builder(home.path())).open().unwrap();
        assert!(rows_as_text(&database) == expected, "{sample}, reopened");
    }
}

/// M2, M6: a log of an older format is refused by an error that names both versions, and stays as it is; also where all else
/// is lost, so that no new database begins over it.
#[test]
fn a_log_of_an_older_format_is_refused_and_let_be() {
    let from = sample_dir().join("v1/killed");
    let home = tempfile::tempdir().unwrap();
    copy_files(&from, home.path());
    let segments = |home: &Path| -> Vec<(PathBuf, Vec<u8>)> {
        let files = listing(&*Environment::real().files, home).into_iter();
        files.filter(|(path, _)| path.extension().is_some_and(|end| end == "wal")).collect()
    };
    let before = segments(home.path());
    assert!(!before.is_empty());
    for read_only in [true, false] {
        let error = options(Database::builder(home.path())).read_only(read_only).open().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains("expected log format version 2, found 1"), "{error}");
    }
    assert!(segments(home.path()) == before, "nothing was changed");
    let lost = tempfile::tempdir().unwrap();
    copy_files(&from.join("log"), &lost.path().join("log"));
    options(Database::builder(lost.path())).open().unwrap_err();
    assert!(segments(lost.path()).len() == before.len(), "nothing was changed");
}

/// T5: a table of an older format is refused by an error that names the file and both versions, when the database is opened
/// or the table is first read, be it by a merge. Every table stays as it is.
#[test]
fn tables_of_an_older_format_are_refused_and_let_be() {
    for sample in ["v2/closed", "v2/killed"] {
        let home = tempfile::tempdir().unwrap();
        copy_files(&sample_dir().join(sample), home.path());
        let tables = || -> Vec<(PathBuf, Vec<u8>)> {
            let files = listing(&*Environment::real().files, home.path()).into_iter();
            files.filter(|(path, _)| path.extension().is_some_and(|end| end == "sst")).collect()
        };
        let before = tables();
        assert!(before.len() > 5);
        for read_only in [true, false] {
            let errors = match options(Database::builder(home.path())).read_only(read_only).open() {
                Err(error) => vec![error],
                Ok(database) => {
                    let left = common::keyspace(&database, "left");
                    let scanned = left.iter().find_map(Result::err).expect("an iterator meets it");
                    let merged = (!read_only).then(|| left.compact().unwrap_err());
                    [left.get(key(100)).unwrap_err(), scanned].into_iter().chain(merged).collect()
                }
            };
            for error in errors {
                let text = error.to_string();
                assert!(matches!(error, Error::Unsupported { .. }), "{sample}, {error:?}");
                let named = text.contains(&*home.path().join("tables").to_string_lossy());
                assert!(named && text.contains("format version: supported 2, found 1"), "{sample}, {text}");
            }
        }
        assert!(before.iter().all(|table| tables().contains(table)), "{sample}: no table was changed or removed");
    }
}

/// Two small keyspaces with tables in several levels, tombstones, large batches, and writes that only the log holds.
fn write_rows(database: &Database) {
    let options = KeyspaceOptions::default()
        .memtable_bytes(2 << 10)
        .write_buffer_bytes(4 << 10)
        .table_bytes(4 << 10)
        .block_bytes(1 << 10)
        .level_base_bytes(4 << 10)
        .level_size_ratio(2);
    let left = database.create_keyspace("left", options.clone()).unwrap();
    let right = database.create_keyspace("right", options).unwrap();
    for number in 0..200 {
        left.insert(key(number), value(number)).unwrap();
        if number % 7 == 0 {
            right.insert(key(number), "right").unwrap();
            left.remove(key(number / 2)).unwrap();
        }
    }
    left.compact().unwrap();
    database.wait_until_idle().unwrap();
    for number in 0..60 {
        left.insert(key(number * 3), "again").unwrap();
    }
    database.flush().unwrap();
    for round in 0..2 {
        let mut batch = database.batch();
        for number in 300..340 {
            batch.insert(&left, key(number), format!("left {round}")).unwrap();
            batch.insert(&right, key(number), format!("right {round}")).unwrap();
        }
        batch.remove(&left, key(300 + round)).unwrap();
        database.write(&batch).unwrap();
        if round == 0 {
            database.wait_until_idle().unwrap();
        }
    }
    left.insert("last", "of the log").unwrap();
    right.remove(key(7)).unwrap();
}

/// Writes the samples of this version, where there are none: `LSM_WRITE_SAMPLES=1 cargo test -p lsm-facade --test formats`.
/// Only for a new format; a released sample is never overwritten.
#[test]
fn write_samples() {
    if std::env::var_os("LSM_WRITE_SAMPLES").is_none() {
        return;
    }
    for (sample, killed) in [("v3/closed", false), ("v3/killed", true)] {
        let dir = sample_dir().join(sample);
        if dir.exists() {
            continue;
        }
        let simulation = Simulation::new(1);
        let builder = options(Database::builder(DB).environment(simulation.environment())).large_batch_bytes(2048);
        // One manifest in JSON files alone, the other with an edit file.
        let builder = if killed { builder } else { builder.edit_file_bytes(1 << 30) };
        let database = builder.open().unwrap();
        write_rows(&database);
        let expected = rows_as_text(&database);
        if !killed {
            database.close().unwrap();
        }
        let image = simulation.files.crash_image(Crash::Kill, 1);
        drop(database);
        for (path, bytes) in listing(&*image, Path::new(DB)) {
            let to = dir.join(path.strip_prefix(DB).unwrap());
            if path.extension().is_none() {
                fs::create_dir_all(to).unwrap();
            } else {
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::write(to, bytes).unwrap();
            }
        }
        fs::write(dir.with_extension("txt"), expected).unwrap();
    }
}
