//! What the integration tests share: small databases, and directories as lists of bytes.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use file_system::{Crash, FileSystem, LOCK_INFO_NAME, LOCK_NAME, SimulatedFileSystem, Simulation, replace_file};
use lsm_facade::{Database, DatabaseBuilder, Iter, Keyspace, KeyspaceOptions};

pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Where simulated databases live.
pub(crate) const DB: &str = "/db";

/// Every file below a directory, with its bytes.
pub(crate) type Listing = BTreeMap<PathBuf, Vec<u8>>;

/// The rows of an iterator.
pub(crate) fn rows(iter: Iter) -> Vec<Row> {
    iter.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// The rows of every keyspace, by its name.
pub(crate) fn contents(database: &Database) -> BTreeMap<String, Vec<Row>> {
    let read = |name: String| {
        let rows = rows(database.open_keyspace(&name).unwrap().iter());
        (name, rows)
    };
    database.list_keyspaces().into_iter().map(read).collect()
}

/// Every file below `dir` but the lock and its holder's name, which come and go with every opening. Directories stand as
/// empty files.
pub(crate) fn listing(files: &dyn FileSystem, dir: &Path) -> Listing {
    let mut found = Listing::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in files.read_dir(&dir).unwrap() {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                found.insert(path.clone(), Vec::new());
                left.push(path);
            } else if entry.name != LOCK_NAME && entry.name != LOCK_INFO_NAME {
                let bytes = files.read(&path, 1 << 30).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

/// Fails, naming the files, if two listings differ.
#[track_caller]
pub(crate) fn assert_unchanged(before: &Listing, after: &Listing, what: &str) {
    let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).collect();
    let come: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    let changed: Vec<_> = before
        .iter()
        .filter(|(path, bytes)| after.get(*path).is_some_and(|now| now != *bytes))
        .map(|(p, _)| p)
        .collect();
    assert!(
        gone.is_empty() && come.is_empty() && changed.is_empty(),
        "{what}: gone {gone:?}, new {come:?}, changed {changed:?}"
    );
}

/// Replaces the bytes of a file, or creates it.
pub(crate) fn put_file(files: &dyn FileSystem, path: &Path, bytes: &[u8]) {
    let name = path.file_name().unwrap().to_str().unwrap();
    replace_file(files, path.parent().unwrap(), name, bytes).unwrap();
}

/// Makes every file of `wanted` what it says. Other files stay.
pub(crate) fn restore(files: &dyn FileSystem, wanted: &Listing) {
    for (path, bytes) in wanted {
        let is_dir = wanted.keys().any(|other| other.parent() == Some(path)) || path.extension().is_none();
        if is_dir {
            files.create_dir(path).unwrap();
        } else if !files.exists(path).unwrap() || files.read(path, 1 << 30).unwrap() != *bytes {
            put_file(files, path, bytes);
        }
    }
}

/// Small tables and memtables, so that a few hundred rows reach several levels.
pub(crate) fn small() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_bytes(16 << 10)
        .write_buffer_bytes(32 << 10)
        .table_bytes(8 << 10)
        .block_bytes(1 << 10)
        .level_base_bytes(16 << 10)
        .level_size_ratio(2)
}

/// A database on a simulated disk, without threads, with small log segments.
pub(crate) fn builder(simulation: &Simulation) -> DatabaseBuilder {
    Database::builder(DB).environment(simulation.environment()).background_threads(0).log_segment_bytes(16 << 10)
}

/// A simulated world around what a kill now would leave of `files`.
pub(crate) fn killed(files: &SimulatedFileSystem, seed: u64) -> Simulation {
    Simulation::with_files(files.crash_image(Crash::Kill, seed), seed)
}

/// Writes two keyspaces, `left` and `right`: tables in several levels, tombstones, a batch that became a table, and at the
/// end writes that only the log holds.
pub(crate) fn fill(database: &Database) {
    let left = database.create_keyspace("left", small()).unwrap();
    let right = database.create_keyspace("right", small()).unwrap();
    for number in 0..1500_u32 {
        left.insert(key(number), value(number)).unwrap();
        if number % 3 == 0 {
            right.insert(key(number), b"right").unwrap();
        }
    }
    for number in (0..1500).step_by(7) {
        left.remove(key(number)).unwrap();
    }
    left.flush().unwrap();
    right.flush().unwrap();
    database.wait_until_idle().unwrap();
    let mut batch = database.batch();
    for number in 2000..2100 {
        batch.insert(&left, key(number), vec![b'b'; 50]).unwrap();
        batch.insert(&right, key(number), vec![b'B'; 50]).unwrap();
    }
    database.write(&batch).unwrap();
    database.wait_until_idle().unwrap();
    for number in 3000..3020 {
        left.insert(key(number), value(number)).unwrap();
        right.remove(key(number - 3000)).unwrap();
    }
}

pub(crate) fn key(number: u32) -> String {
    format!("key {number:06}")
}

pub(crate) fn value(number: u32) -> String {
    format!("value {number} {}", "v".repeat(number as usize % 50))
}

/// The keyspace called `name`, which exists.
pub(crate) fn keyspace(database: &Database, name: &str) -> Keyspace {
    database.open_keyspace(name).unwrap()
}
