//! What a database says to input that it cannot take: a typed error that names the place, and nothing lost, deleted or
//! changed. Each damage is undone afterwards, and then every row must be there.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{
    DB, Listing, Row, assert_unchanged, builder, contents, fill, key, keyspace, killed, listing, put_file, restore,
    small,
};
use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, SimulatedFileSystem, Simulation};
use lsm_facade::{Database, Error, KeyspaceOptions, Result};
use manifest::{DatabasePaths, ManifestOptions, ManifestStore, OpenMode};
use write_ahead_log::SegmentHeader;

/// A closed database with everything in it, and what it holds.
struct Sample {
    simulation: Simulation,
    files: Listing,
    contents: BTreeMap<String, Vec<Row>>,
}

impl Sample {
    fn closed() -> Self {
        Self::ended(|database| database.close().unwrap())
    }

    /// As a killed process leaves it: the log is to be replayed.
    fn left_by_a_kill() -> Self {
        Self::ended(|_| {})
    }

    fn ended(end: impl FnOnce(&Database)) -> Self {
        let simulation = Simulation::new(1);
        let database = builder(&simulation).open().unwrap();
        fill(&database);
        let contents = contents(&database);
        end(&database);
        let simulation = killed(&simulation.files, 2);
        drop(database);
        let files = listing(&*simulation.files, Path::new(DB));
        Self { simulation, files, contents }
    }

    fn disk(&self) -> &SimulatedFileSystem {
        &self.simulation.files
    }

    fn path(&self, pick: impl Fn(&str) -> bool) -> PathBuf {
        let found = self.files.keys().find(|path| pick(path.to_str().unwrap()));
        found.unwrap_or_else(|| panic!("no such file among {:?}", self.files.keys())).clone()
    }

    /// Rewrites one file.
    fn change(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.files[path].clone();
        change(&mut bytes);
        assert_ne!(bytes, self.files[path], "the damage changes {}", path.display());
        put_file(self.disk(), path, &bytes);
    }

    /// Opening for writing and for reading is refused with an error that `is` accepts and that says all of `words`;
    /// no file changes; with the damage undone everything is there.
    #[track_caller]
    fn refuses(self, is: impl Fn(&Error) -> bool, words: &[&str]) {
        let damaged = listing(self.disk(), Path::new(DB));
        assert_ne!(damaged, self.files, "there is damage");
        for read_only in [false, true] {
            let error = builder(&self.simulation).read_only(read_only).open().unwrap_err();
            assert!(is(&error), "read_only {read_only}: {error:?}");
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "read_only {read_only}: {word:?} is missing from {text:?}");
            }
            assert_unchanged(&damaged, &listing(self.disk(), Path::new(DB)), "after a refused opening");
        }
        self.opens_once_restored();
    }

    #[track_caller]
    fn opens_once_restored(self) {
        restore(self.disk(), &self.files);
        let database = builder(&self.simulation).open().unwrap();
        assert!(contents(&database) == self.contents, "a row is lost");
    }
}

fn corrupt(error: &Error) -> bool {
    matches!(error, Error::Corrupt { .. })
}

fn unsupported(error: &Error) -> bool {
    matches!(error, Error::Unsupported { .. })
}

/// `global.json` with its text changed and its checksum made right again.
fn edit_global(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "{from} stands in {text}");
    let text = text.replacen(from, to, 1);
    let start = text.len() - "  \"checksum\": \"0123456789abcdef\"\n}\n".len();
    let checksum = xxhash_rust::xxh3::xxh3_64(&text.as_bytes()[..start]);
    *bytes = format!("{}  \"checksum\": \"{checksum:016x}\"\n}}\n", &text[..start]).into_bytes();
}

#[test]
fn a_key_over_65535_bytes_is_refused_before_any_effect() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    // What locks cost is left out: also looking takes some.
    let stats = || {
        let mut stats = database.stats();
        stats.locks.clear();
        stats
    };
    let (events, before) = (simulation.files.event_count(), stats());
    let long = vec![b'k'; 65_536];
    let mut batch = database.batch();
    for refused in [
        keyspace.insert(&long, ""),
        keyspace.remove(&long),
        batch.insert(&keyspace, &long, ""),
        batch.remove(&keyspace, &long),
        keyspace.get(&long).map(drop),
        keyspace.contains_key(&long).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::KeyTooLong { found: 65_536 })), "{refused:?}");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("65536") && text.contains("65535"), "{text}");
    }
    assert!(batch.is_empty());
    assert_eq!((simulation.files.event_count(), stats()), (events, before), "nothing was written");
    // Bounds and seeks may lie anywhere: they name no row.
    assert_eq!(keyspace.range(&long[..]..).count(), 0);
    keyspace.insert(&long[..65_535], "the longest").unwrap();
    keyspace.flush().unwrap();
    assert_eq!(keyspace.get(&long[..65_535]).unwrap().unwrap(), b"the longest");
}

#[test]
#[cfg(target_pointer_width = "64")]
fn a_value_over_4_gib_is_refused_before_any_effect() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    // What locks cost is left out: also looking takes some.
    let stats = || {
        let mut stats = database.stats();
        stats.locks.clear();
        stats
    };
    let (events, before) = (simulation.files.event_count(), stats());
    // Never touched, so that no memory is used: whoever copies or hashes it before looking at the length takes long.
    let map = memmap2::MmapOptions::new().len(1 << 32).map_anon().unwrap();
    let mut batch = database.batch();
    batch.insert(&keyspace, "before", "1").unwrap();
    let bytes = batch.bytes();
    for refused in [keyspace.insert("k", &map[..]), batch.insert(&keyspace, "k", &map[..])] {
        assert!(matches!(refused, Err(Error::ValueTooLong { found }) if found == 1 << 32), "{refused:?}");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("4294967296") && text.contains("4294967295"), "{text}");
    }
    assert_eq!((batch.len(), batch.bytes()), (1, bytes), "the batch is as it was");
    assert_eq!((simulation.files.event_count(), stats()), (events, before), "nothing was written");
    database.write(&batch).unwrap();
    assert_eq!(common::rows(keyspace.iter()), [(b"before".to_vec(), b"1".to_vec())]);
}

#[test]
fn options_out_of_their_range_are_named_and_nothing_is_touched() {
    let simulation = Simulation::new(1);
    let builder = || builder(&simulation);
    for (name, refused) in [
        ("open_tables_max", builder().open_tables_max(7)),
        ("background_threads", builder().background_threads(65)),
        ("log_segment_bytes", builder().log_segment_bytes((16 << 10) - 1)),
        ("log_segment_bytes", builder().log_segment_bytes((1 << 30) + 1)),
        ("log_bytes_max", builder().log_bytes_max(0)),
        ("large_batch_bytes", builder().large_batch_bytes(u64::MAX)),
        ("error_if_exists", builder().read_only(true).error_if_exists(true)),
    ] {
        let error = refused.open().unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { name: found, .. } if found == name), "{name}: {error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(simulation.files.event_count(), 0, "nothing was touched");
    let database = builder().open().unwrap();
    let events = simulation.files.event_count();
    for (name, refused) in [
        ("memtable_bytes", KeyspaceOptions::default().memtable_bytes(0)),
        ("write_buffer_bytes", KeyspaceOptions::default().write_buffer_bytes(1)),
        ("block_bytes", KeyspaceOptions::default().block_bytes(511)),
        ("table_bytes", KeyspaceOptions::default().table_bytes(u64::MAX)),
        ("filter_bits_per_key", KeyspaceOptions::default().filter_bits_per_key(33)),
        ("level_zero_runs_max", KeyspaceOptions::default().level_zero_runs_max(1)),
        ("level_base_bytes", KeyspaceOptions::default().level_base_bytes(0)),
        ("level_size_ratio", KeyspaceOptions::default().level_size_ratio(1)),
    ] {
        let error = database.create_keyspace("a", refused).unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { name: found, .. } if found == name), "{name}: {error:?}");
    }
    assert_eq!(simulation.files.event_count(), events, "nothing was touched");
    assert!(database.list_keyspaces().is_empty());
}

#[test]
fn names_of_keyspaces_are_1_to_255_bytes_and_taken_once() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    for name in ["", &"n".repeat(256)] {
        let error = database.keyspace(name).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().contains(&format!("{} bytes", name.len())), "{error}");
    }
    // Names are no paths, and any text is one.
    let names = ["../../outside", "a b\n\"", "n".repeat(255).leak(), "ключ"];
    for name in names {
        database.keyspace(name).unwrap().insert("k", name).unwrap();
    }
    let error = database.create_keyspace(names[0], KeyspaceOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::KeyspaceExists { name } if name == names[0]), "{error:?}");
    let error = database.open_keyspace("none").unwrap_err();
    assert!(matches!(&error, Error::NoSuchKeyspace { name } if name == "none"), "{error:?}");
    assert!(matches!(database.drop_keyspace("none"), Err(Error::NoSuchKeyspace { .. })));
    drop(database);
    let database = builder(&simulation).open().unwrap();
    for name in names {
        assert_eq!(keyspace(&database, name).get("k").unwrap().unwrap(), name.as_bytes());
    }
}

#[test]
fn a_batch_takes_no_keyspace_of_another_database() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let other = Database::builder("/other").environment(simulation.environment()).background_threads(0).open().unwrap();
    // The same name and the same id: only the instance differs.
    let (ours, theirs) = (database.keyspace("a").unwrap(), other.keyspace("a").unwrap());
    let mut batch = database.batch();
    batch.insert(&ours, "k", "1").unwrap();
    batch.insert(&theirs, "k", "2").unwrap();
    for database in [&database, &other] {
        let error = database.write(&batch).unwrap_err();
        assert!(matches!(error, Error::InvalidInput { .. }) && error.to_string().contains("\"a\""), "{error:?}");
    }
    assert!(ours.is_empty().unwrap() && theirs.is_empty().unwrap(), "nothing was written");
}

#[test]
fn a_missing_database_is_created_only_if_asked() {
    let simulation = Simulation::new(1);
    for refused in [builder(&simulation).create_if_missing(false), builder(&simulation).read_only(true)] {
        let error = refused.open().unwrap_err();
        assert!(matches!(&error, Error::NotFound { path } if path == Path::new(DB)), "{error:?}");
        assert!(error.to_string().contains(DB), "{error}");
        assert_eq!(simulation.files.event_count(), 0, "nothing was created");
    }
    simulation.files.create_dir(Path::new(DB)).unwrap();
    for refused in [builder(&simulation).create_if_missing(false), builder(&simulation).read_only(true)] {
        assert!(matches!(refused.open(), Err(Error::NotFound { .. })));
        assert_eq!(simulation.files.event_count(), 1, "nothing was created in an empty directory");
    }
    let database = builder(&simulation).error_if_exists(true).open().unwrap();
    database.keyspace("a").unwrap().insert("k", "v").unwrap();
    drop(database);
    let before = listing(&*simulation.files, Path::new(DB));
    let error = builder(&simulation).error_if_exists(true).open().unwrap_err();
    assert!(matches!(&error, Error::Exists { path } if path == Path::new(DB)), "{error:?}");
    assert_unchanged(&before, &listing(&*simulation.files, Path::new(DB)), "error_if_exists");
    let database = builder(&simulation).create_if_missing(false).open().unwrap();
    assert_eq!(keyspace(&database, "a").get("k").unwrap().unwrap(), b"v");
}

/// M6: a database is created only where nothing else is.
#[test]
fn a_foreign_directory_stays_as_it_is() {
    let simulation = Simulation::new(1);
    let files = &*simulation.files;
    files.create_dir(Path::new(DB)).unwrap();
    files.create_dir(&Path::new(DB).join("photos")).unwrap();
    put_file(files, &Path::new(DB).join("letter.txt"), b"Dear Ada");
    let events = files.event_count();
    for read_only in [false, true] {
        let error = builder(&simulation).read_only(read_only).open().unwrap_err();
        match read_only {
            false => {
                assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
                assert!(error.to_string().contains(DB) && error.to_string().contains("letter.txt"), "{error}");
            }
            true => assert!(matches!(error, Error::NotFound { .. }), "{error:?}"),
        }
        assert_eq!(files.event_count(), events, "not even a lock was left: {:?}", files.events());
    }
    files.remove_file(&Path::new(DB).join("letter.txt")).unwrap();
    files.remove_dir(&Path::new(DB).join("photos")).unwrap();
    builder(&simulation).open().unwrap().keyspace("a").unwrap();
}

/// M6: a path that is a file, or leads through one, is no directory.
#[test]
fn a_file_in_place_of_the_directory_is_an_error_and_stays() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "text").unwrap();
    for path in [file.clone(), file.join("below")] {
        for read_only in [false, true] {
            let error = Database::builder(&path).background_threads(0).read_only(read_only).open().unwrap_err();
            assert!(matches!(error, Error::Io { .. } | Error::NotFound { .. }), "{path:?}: {error:?}");
            assert!(error.to_string().contains("file"), "{error}");
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
}

/// M6: the first opening can be interrupted anywhere, by a kill or a power cut, and simply done again.
#[test]
fn a_half_created_database_is_created_by_opening_again() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    database.keyspace("a").unwrap();
    let events = simulation.files.event_count();
    for event in 0..=events {
        for crash in [Crash::Kill, Crash::PowerCut] {
            for seed in 0..3 {
                let image = simulation.files.crash_image_at(event, crash, seed);
                let simulation = Simulation::with_files(image, seed);
                let opened = builder(&simulation).open();
                let database = opened.unwrap_or_else(|error| panic!("{crash:?} after event {event}: {error}"));
                assert!(event < events || database.open_keyspace("a").is_ok(), "created keyspaces are durable (P12)");
                database.keyspace("a").unwrap().insert("k", "v").unwrap();
                drop(database);
                let database = builder(&simulation).open().unwrap();
                assert_eq!(keyspace(&database, "a").get("k").unwrap().unwrap(), b"v");
            }
        }
    }
    assert!(events > 10, "the first opening had {events} events");
}

/// M1: an unknown version or an unknown incompatible feature refuses the manifest, whatever else it says.
#[test]
fn an_unknown_version_or_feature_of_global_json_is_refused() {
    let version = ("\"version\": 1,", "\"version\": 2,");
    let feature = ("\"incompatible\": 0", "\"incompatible\": 4");
    for (from, to) in [version, feature] {
        let sample = Sample::closed();
        let global = sample.path(|path| path.ends_with("global.json"));
        sample.change(&global, |bytes| edit_global(bytes, from, to));
        sample.refuses(unsupported, &["/db/global.json", "expected", "found"]);
    }
}

/// M1: a feature that only readers may pass over keeps writers out, and lets readers in.
#[test]
fn an_unknown_read_compatible_feature_lets_readers_in() {
    let sample = Sample::closed();
    let global = sample.path(|path| path.ends_with("global.json"));
    sample.change(&global, |bytes| edit_global(bytes, "\"read_compatible\": 0", "\"read_compatible\": 1"));
    let error = builder(&sample.simulation).open().unwrap_err();
    assert!(unsupported(&error) && error.to_string().contains("/db/global.json"), "{error:?}");
    let reader = builder(&sample.simulation).read_only(true).open().unwrap();
    assert!(contents(&reader) == sample.contents);
    drop(reader);
    sample.opens_once_restored();
}

#[test]
fn an_unknown_option_in_global_json_is_refused() {
    for (from, to, words) in [
        ("\"block_bytes\": 1024", "\"block_bytes\": 1024, \"colour\": \"red\"", ["colour", "\"red\""]),
        ("\"block_bytes\": 1024", "\"block_bytes\": 7", ["block_bytes", "found 7"]),
        ("\"compression\": \"lz4\"", "\"compression\": \"snappy\"", ["compression", "snappy"]),
        ("\"strategy\": \"leveled\"", "\"strategy\": 3", ["strategy", "found 3"]),
    ] {
        let sample = Sample::closed();
        let global = sample.path(|path| path.ends_with("global.json"));
        sample.change(&global, |bytes| edit_global(bytes, from, to));
        sample.refuses(unsupported, &["/db/global.json", "\"left\"", "expected", words[0], words[1]]);
    }
}

/// M2: every checksum that the manifest names is verified before anything is changed.
#[test]
fn damaged_manifest_files_are_refused() {
    for name in ["global.json", "level_"] {
        let sample = Sample::closed();
        let path = sample.path(|path| path.contains(name));
        sample.change(&path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        sample.refuses(corrupt, &[path.to_str().unwrap(), "expected", "found"]);
    }
}

/// M6: a lost `global.json` is damage, not an empty database.
#[test]
fn a_missing_global_json_is_damage() {
    let sample = Sample::closed();
    sample.disk().remove_file(&sample.path(|path| path.ends_with("global.json"))).unwrap();
    sample.refuses(corrupt, &["global.json is missing", DB]);
}

/// M2: every named level file and table must be there before anything is changed.
#[test]
fn a_missing_level_file_or_table_is_named() {
    for name in ["level_", ".sst"] {
        let sample = Sample::closed();
        let path = sample.path(|path| path.contains(name));
        sample.disk().remove_file(&path).unwrap();
        sample.refuses(corrupt, &[path.to_str().unwrap(), "missing"]);
    }
}

/// P11: the table of a batch that the log names is damage if it is gone, and trying again would not help.
#[test]
fn a_missing_table_of_a_batch_is_named_with_its_record() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).large_batch_bytes(1024).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    let mut batch = database.batch();
    for number in 0..100 {
        batch.insert(&keyspace, key(number), "some value of a row").unwrap();
    }
    database.write(&batch).unwrap();
    let left = killed(&simulation.files, 2);
    let table = listing(&*left.files, Path::new(DB)).into_keys().find(|path| path.to_str().unwrap().ends_with(".sst"));
    let table = table.unwrap();
    left.files.remove_file(&table).unwrap();
    for read_only in [true, false] {
        let error = builder(&left).read_only(read_only).open().unwrap_err();
        let text = error.to_string();
        assert!(corrupt(&error) && !error.is_retryable(), "{error:?}");
        for word in [table.to_str().unwrap(), "missing", "record at"] {
            assert!(text.contains(word), "{word:?} is missing from {text:?}");
        }
    }
}

/// M2: a table of another length than the manifest says is named, with both lengths.
#[test]
fn a_cut_table_is_named() {
    let sample = Sample::closed();
    let path = sample.path(|path| path.ends_with(".sst"));
    let bytes = sample.files[&path].len();
    sample.change(&path, |bytes| bytes.truncate(bytes.len() - 8));
    let (found, expected) = (format!("{} bytes", bytes - 8), format!("expected {bytes}"));
    sample.refuses(corrupt, &[path.to_str().unwrap(), &found, &expected]);
}

/// L5: the floor names its segment, so that a missing one is noticed, after a clean close and after a kill.
#[test]
fn a_missing_log_segment_is_named() {
    for sample in [Sample::closed(), Sample::left_by_a_kill()] {
        let path = floor_segment(&sample);
        sample.disk().remove_file(&path).unwrap();
        sample.refuses(corrupt, &[path.to_str().unwrap(), "missing", "floor"]);
    }
}

/// The segment that the floor names: it is always read.
fn floor_segment(sample: &Sample) -> PathBuf {
    let environment = sample.simulation.environment();
    let store = ManifestStore::open(&environment, DB, OpenMode::ReadOnly, ManifestOptions::default()).unwrap();
    DatabasePaths::new(DB).segment(store.current().log_floor.segment)
}

/// L3: damage before the last claim is an error that names file and offset, never a shorter log.
#[test]
fn a_damaged_log_record_is_named_with_its_offset() {
    let sample = Sample::closed();
    let path = floor_segment(&sample);
    // In its header: what stands behind may be padding, which nothing reads.
    sample.change(&path, |bytes| bytes[64 + 20] ^= 1);
    sample.refuses(corrupt, &[path.to_str().unwrap(), "offset 64", "expected", "found"]);
}

/// L2: a segment of another version or with an unknown incompatible feature is not read.
#[test]
fn an_unknown_version_or_feature_of_the_log_is_refused() {
    type Change = fn(&mut [u8]);
    let version: Change = |bytes| bytes[8] += 1;
    let feature: Change = |bytes| bytes[20] = 4;
    for change in [version, feature] {
        let sample = Sample::left_by_a_kill();
        let path = floor_segment(&sample);
        sample.change(&path, |bytes| {
            SegmentHeader::decode(bytes).unwrap();
            change(bytes);
            let checksum = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
        });
        sample.refuses(unsupported, &[path.to_str().unwrap(), "log f"]);
    }
}

/// T5: a table of another version or with an unknown incompatible feature is not read. Opening reads no table, so the
/// read says so; what does not need the table goes on.
#[test]
fn an_unknown_version_or_feature_of_a_table_is_refused() {
    // Offsets in the footer: the feature bits, the version, and the checksum that covers both.
    let (feature, version) = (16, 164);
    for at in [feature, version] {
        let sample = Sample::closed();
        let path = sample.path(|path| path.ends_with(".sst"));
        sample.change(&path, |bytes| {
            let footer = bytes.len() - 184;
            let footer = &mut bytes[footer..];
            footer[at] += 2;
            let checksum = xxhash_rust::xxh3::xxh3_64(&footer[..168]);
            footer[168..176].copy_from_slice(&checksum.to_le_bytes());
        });
        let damaged = listing(sample.disk(), Path::new(DB));
        let error = builder(&sample.simulation).read_only(true).open().unwrap_err();
        assert!(unsupported(&error) && error.to_string().contains(path.to_str().unwrap()), "{error:?}");
        assert_unchanged(&damaged, &listing(sample.disk(), Path::new(DB)), "after a refused opening");

        let database = builder(&sample.simulation).open().unwrap();
        let failures: Vec<Error> = ["left", "right"]
            .map(|name| keyspace(&database, name).iter().collect::<Result<Vec<_>>>())
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert_eq!(failures.len(), 1, "one keyspace has the table: {failures:?}");
        assert!(unsupported(&failures[0]), "{failures:?}");
        let text = failures[0].to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("found"), "{text}");
        drop(database);
        let now = listing(sample.disk(), Path::new(DB));
        let tables = |files: &Listing| -> Listing {
            let tables = files.iter().filter(|(path, _)| path.extension().is_some_and(|ending| ending == "sst"));
            tables.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
        };
        assert_unchanged(&tables(&damaged), &tables(&now), "after reading");
        put_file(sample.disk(), &path, &sample.files[&path]);
        let database = builder(&sample.simulation).open().unwrap();
        assert!(contents(&database) == sample.contents, "a row is lost");
    }
}

/// T2: damage in a table's block is an error of the reads that meet it, with file and offset; the rest is read.
#[test]
fn a_damaged_block_is_named_with_its_offset() {
    let sample = Sample::closed();
    let path = sample.path(|path| path.ends_with(".sst"));
    sample.change(&path, |bytes| bytes[64 + 40] ^= 1);
    for read_only in [false, true] {
        let database = builder(&sample.simulation).read_only(read_only).open().unwrap();
        let mut damaged = 0;
        for (name, expected) in &sample.contents {
            let keyspace = keyspace(&database, name);
            for (key, value) in expected {
                match keyspace.get(key) {
                    Ok(found) => assert_eq!(found.unwrap(), value),
                    Err(error) => {
                        damaged += 1;
                        let text = error.to_string();
                        assert!(corrupt(&error) && text.contains(path.to_str().unwrap()), "{error:?}");
                        assert!(text.contains("offset") && text.contains("expected"), "{text}");
                    }
                }
            }
        }
        assert!(damaged > 0, "the damage was met");
    }
    put_file(sample.disk(), &path, &sample.files[&path]);
    let database = builder(&sample.simulation).open().unwrap();
    assert!(contents(&database) == sample.contents, "a row is lost");
}

/// P8: a directory that may not be written is a certain error: nothing changes, and what the system allows again works.
#[test]
fn a_directory_without_write_permission_is_refused() {
    let sample = Sample::left_by_a_kill();
    for operation in [FileOperation::Create, FileOperation::Lock] {
        let fault = Fault::on(operation).path_contains(DB).effect(FaultEffect::PermissionDenied);
        let fault = sample.disk().inject(fault);
        let error = builder(&sample.simulation).open().unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{operation}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(DB) && text.contains("permission denied"), "{text}");
        assert_unchanged(&sample.files, &listing(sample.disk(), Path::new(DB)), "without permission");
        sample.disk().remove_fault(fault);
    }
    // Reading needs no permission to write.
    let fault = Fault::on(FileOperation::Create).path_contains(DB).effect(FaultEffect::PermissionDenied);
    let fault = sample.disk().inject(fault);
    let reader = builder(&sample.simulation).read_only(true).open().unwrap();
    assert!(contents(&reader) == sample.contents);
    drop(reader);
    sample.disk().remove_fault(fault);
    assert_unchanged(&sample.files, &listing(sample.disk(), Path::new(DB)), "after reading");
    sample.opens_once_restored();
}

/// P8: the same for a database that is to be created.
#[test]
fn a_parent_without_write_permission_is_refused() {
    let simulation = Simulation::new(1);
    let fault = Fault::on(FileOperation::Create).path_contains(DB).effect(FaultEffect::PermissionDenied);
    let fault = simulation.files.inject(fault);
    let error = builder(&simulation).open().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert!(error.to_string().contains(DB) && error.to_string().contains("permission denied"), "{error}");
    simulation.files.remove_fault(fault);
    builder(&simulation).open().unwrap();
}

/// The same with the system's own permissions, where they bind (they do not bind root).
#[test]
#[cfg(unix)]
fn a_read_only_directory_of_the_system_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("db");
    let database = Database::builder(&dir).background_threads(0).open().unwrap();
    database.keyspace("a").unwrap().insert("k", "v").unwrap();
    drop(database);
    let set = |mode| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
    set(0o500);
    if std::fs::write(dir.join("probe"), "").is_ok() {
        eprintln!("permissions do not bind this user: not tried");
        set(0o700);
        std::fs::remove_file(dir.join("probe")).unwrap();
        return;
    }
    let opened = Database::builder(&dir).background_threads(0).open();
    let reader = Database::builder(&dir).background_threads(0).read_only(true).open().unwrap();
    assert_eq!(keyspace(&reader, "a").get("k").unwrap().unwrap(), b"v");
    set(0o700);
    assert!(matches!(opened, Err(Error::Io { .. })), "{opened:?}");
    let database = Database::builder(&dir).background_threads(0).open().unwrap();
    assert_eq!(keyspace(&database, "a").get("k").unwrap().unwrap(), b"v");
}

/// P8: a directory that is removed under an open database: reads go on from what is open, writing says what it misses,
/// and nothing is created in its place.
#[test]
#[cfg(unix)]
fn a_vanished_directory_is_an_error_and_is_not_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("db");
    let database = Database::builder(&dir).background_threads(0).log_segment_bytes(16 << 10).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    keyspace.insert("k", "v").unwrap();
    keyspace.flush().unwrap();
    assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v", "the table is open");
    // The log's segment is open too: writing goes on until a new file is needed.
    let refused = (0..10_000).find_map(|number| keyspace.insert(key(number), [7; 100]).err());
    let error = refused.unwrap_or_else(|| keyspace.flush().unwrap_err());
    assert!(matches!(error, Error::Io { .. } | Error::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
    let _ = database.close();
    drop((keyspace, database));
    assert!(!dir.exists(), "nothing was created");
}

/// The second opener of [`a_second_process_is_told_who_holds_the_database`]: holds the directory that a variable names.
#[test]
fn holds_a_database_for_another_process() {
    let Ok(dir) = std::env::var("LSM_TEST_HOLD") else { return };
    let database = Database::builder(dir).background_threads(0).open().unwrap();
    database.keyspace("a").unwrap().insert("k", "v").unwrap();
    println!("\nholding");
    // Until the other process closes the pipe.
    let _ = std::io::stdin().lines().next();
}

#[test]
fn a_second_process_is_told_who_holds_the_database() {
    let home = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_database_for_another_process", "--nocapture"])
        .env("LSM_TEST_HOLD", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap() == "holding"), "the other process opened it");
    let error = Database::open(home.path()).unwrap_err();
    match &error {
        Error::Locked { path, source } => {
            assert_eq!(path, home.path());
            assert_eq!(source.kind(), ErrorKind::WouldBlock);
        }
        other => panic!("{other:?}"),
    }
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", holder.id())), "{text}");
    assert!(error.is_retryable());
    // Reading beside it is fine.
    let reader = Database::builder(home.path()).read_only(true).open().unwrap();
    assert_eq!(keyspace(&reader, "a").get("k").unwrap().unwrap(), b"v");
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    let database = Database::open(home.path()).unwrap();
    assert_eq!(keyspace(&database, "a").get("k").unwrap().unwrap(), b"v");
}

/// A database that was killed, not closed: its lock is free at once.
#[test]
#[cfg(unix)]
fn a_killed_holder_holds_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_database_for_another_process", "--nocapture"])
        .env("LSM_TEST_HOLD", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap() == "holding"), "the other process opened it");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let database = Database::open(home.path()).unwrap();
    assert_eq!(keyspace(&database, "a").get("k").unwrap().unwrap(), b"v", "acknowledged before the kill");
}

/// P12: handles of a dropped keyspace say so; its reads find nothing.
#[test]
fn a_dropped_keyspace_takes_no_writes() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.keyspace("a").unwrap();
    keyspace.insert("k", "v").unwrap();
    let mut batch = database.batch();
    batch.insert(&keyspace, "k", "w").unwrap();
    database.drop_keyspace("a").unwrap();
    for refused in [keyspace.insert("k", "w"), keyspace.remove("k"), database.write(&batch), keyspace.clear()] {
        assert!(matches!(&refused, Err(Error::KeyspaceDropped { name }) if name == "a"), "{refused:?}");
    }
    assert!(keyspace.get("k").unwrap().is_none());
    assert_eq!(keyspace.iter().count(), 0);
    assert!(database.keyspace("a").unwrap().is_empty().unwrap(), "a new one of that name is empty");
}
