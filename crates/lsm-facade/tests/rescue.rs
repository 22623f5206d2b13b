//! Repair and salvage: what lies outside of what they say is lost is exactly what was there.
//!
//! An oracle holds every pair. Each case damages a database, rescues it, and compares every key; inside of what is
//! reported lost a key may be missing, or older than it was, but never something that nobody wrote.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{DB, Listing, Row, builder, contents, fill, key, killed, listing, put_file, value};
use file_system::{FileSystem, SimulatedFileSystem, Simulation};
use lsm_facade::{Database, DatabaseBuilder, RepairReport, SalvageReport};
use manifest::{Manifest, ManifestOptions, ManifestStore, OpenMode};
use test_support::Rng;

type Contents = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

/// A range of keys of a keyspace, both ends inclusive; `None` has no end.
type Range = (String, Option<Vec<u8>>, Option<Vec<u8>>);

struct Sample {
    simulation: Simulation,
    files: Listing,
    manifest: Arc<Manifest>,
    oracle: Contents,
}

fn by_key(contents: BTreeMap<String, Vec<Row>>) -> Contents {
    contents.into_iter().map(|(name, rows)| (name, rows.into_iter().collect())).collect()
}

impl Sample {
    fn new(close: bool, edit_file: bool) -> Self {
        let simulation = Simulation::new(1);
        let database = Self::options(&simulation, edit_file).open().unwrap();
        fill(&database);
        let oracle = by_key(contents(&database));
        Self::of(simulation, database, oracle, close)
    }

    fn of(simulation: Simulation, database: Database, oracle: Contents, close: bool) -> Self {
        if close {
            database.close().unwrap();
        }
        let simulation = killed(&simulation.files, 2);
        drop(database);
        let copy = killed(&simulation.files, 3);
        let store =
            ManifestStore::open(&copy.environment(), DB, OpenMode::ReadOnly, ManifestOptions::default()).unwrap();
        let files = listing(&*simulation.files, Path::new(DB));
        Self { simulation, files, manifest: store.current(), oracle }
    }

    fn options(simulation: &Simulation, edit_file: bool) -> DatabaseBuilder {
        let builder = builder(simulation);
        if edit_file { builder.edit_file_bytes(0) } else { builder }
    }

    fn disk(&self) -> &SimulatedFileSystem {
        &self.simulation.files
    }

    fn paths(&self, pick: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        self.files.keys().filter(|path| pick(path.to_str().unwrap())).cloned().collect()
    }

    /// Repairs, checks every pair, and that nothing is gone.
    #[track_caller]
    fn repair(
        &self,
        what: &str,
        lost: impl FnOnce(&RepairReport) -> Vec<Range>,
        log_may_be_lost: bool,
    ) -> RepairReport {
        let damaged = listing(self.disk(), Path::new(DB));
        let report = builder(&self.simulation).repair().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(report.verified.damage.is_empty(), "{what}: {report:?}");
        let found = by_key(contents(&builder(&self.simulation).open().unwrap()));
        self.compare(what, &found, &lost(&report), log_may_be_lost);
        // What the database still has may be merged as ever; all else keeps a name.
        let now: BTreeSet<Vec<u8>> = listing(self.disk(), Path::new(DB)).into_values().collect();
        let of_manifest = |path: &Path| path.extension().is_some_and(|ending| ending == "json" || ending == "jsonl");
        let left_out = |path: &Path| report.left_out.iter().any(|left_out| left_out.file == path);
        for (path, bytes) in damaged.iter().filter(|(path, _)| of_manifest(path) || left_out(path)) {
            assert!(now.contains(bytes), "{what}: {} is gone: {report:?}", path.display());
        }
        report
    }

    /// Salvages and checks every pair.
    #[track_caller]
    fn salvage(&self, what: &str) -> SalvageReport {
        let before = listing(self.disk(), Path::new(DB));
        let target = Database::builder("/rescued").environment(self.simulation.environment()).background_threads(0);
        let report =
            builder(&self.simulation).salvage_into(target.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        common::assert_unchanged(&before, &listing(self.disk(), Path::new(DB)), what);
        let found = by_key(contents(&target.open().unwrap()));
        let lost: Vec<Range> = report
            .lost
            .iter()
            .map(|lost| (lost.keyspace.clone().unwrap_or_default(), lost.from.clone(), lost.to.clone()))
            .collect();
        self.compare(what, &found, &lost, !report.log_lost.is_empty());
        remove_all(self.disk(), Path::new("/rescued"));
        report
    }

    fn compare(&self, what: &str, found: &Contents, lost: &[Range], log_may_be_lost: bool) {
        for (id, state) in &self.manifest.keyspaces {
            let generic = format!("keyspace-{}", id.get());
            let name = if found.contains_key(&state.name) { &state.name } else { &generic };
            let (expected, found) = (&self.oracle[&state.name], &found[name]);
            let keys: BTreeSet<&Vec<u8>> = expected.keys().chain(found.keys()).collect();
            for key in keys {
                let (wanted, is) = (expected.get(key), found.get(key));
                if wanted == is {
                    continue;
                }
                let at = format!("{what}: {} of {name}: expected {wanted:?}, found {is:?}", key.escape_ascii());
                let inside = lost.iter().any(|(of, from, to)| {
                    (of == name || *of == state.name || of.is_empty())
                        && from.as_ref().is_none_or(|from| from <= key)
                        && to.as_ref().is_none_or(|to| key <= to)
                });
                assert!(inside || log_may_be_lost && in_log_alone(key), "{at}; lost: {lost:?}");
                let ever = is.is_none_or(|is| Some(is) == wanted || ever_written(&state.name, key, is));
                assert!(ever, "{at}");
            }
        }
    }

    /// The range of the table at `path`.
    fn range_of(&self, path: &Path) -> Option<Range> {
        let id = manifest::paths::parse_table_name(path.file_name()?.to_str()?)?;
        self.manifest.keyspaces.values().find_map(|keyspace| {
            let (_, _, table) = keyspace.tables().find(|(_, _, table)| table.id == id)?;
            Some((keyspace.name.clone(), Some(table.min_key.to_vec()), Some(table.max_key.to_vec())))
        })
    }

    fn undo(&self) {
        remove_all(self.disk(), Path::new(DB));
        self.disk().create_dir(Path::new(DB)).unwrap();
        let directory =
            |path: &Path| self.files.keys().any(|other| other.parent() == Some(path)) || path.extension().is_none();
        for (path, bytes) in &self.files {
            match directory(path) {
                true => self.disk().create_dir(path).unwrap(),
                false => put_file(self.disk(), path, bytes),
            }
        }
    }
}

/// What the last steps of `fill` wrote or removed: only the log holds it, or the table of a batch.
fn in_log_alone(key: &[u8]) -> bool {
    let number: u32 = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
    !(20..2000).contains(&number)
}

/// Whether `fill` ever gave `key` this value, which it may have removed later.
fn ever_written(keyspace: &str, key_bytes: &[u8], found: &[u8]) -> bool {
    let number: u32 = std::str::from_utf8(&key_bytes[4..]).unwrap().parse().unwrap();
    assert_eq!(key(number).as_bytes(), key_bytes);
    match keyspace {
        "left" => found == value(number).as_bytes(),
        _ => found == b"right",
    }
}

fn remove_all(files: &SimulatedFileSystem, dir: &Path) {
    for entry in files.read_dir(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_all(files, &path);
        } else {
            files.remove_file(&path).unwrap();
        }
    }
    files.remove_dir(dir).unwrap();
}

/// M2: a manifest that is gone, in part or whole, costs names at most.
#[test]
fn a_lost_manifest_is_made_anew_from_tables_and_log() {
    for (close, edit_file) in [(true, false), (false, false), (false, true)] {
        let sample = Sample::new(close, edit_file);
        let global = vec![Path::new(DB).join("global.json")];
        let levels = sample.paths(|path| path.contains("level_"));
        let edits = sample.paths(|path| path.contains("edits."));
        let all: Vec<PathBuf> = [global.clone(), levels.clone(), edits.clone()].concat();
        for (what, gone) in [("global.json", &global), ("level files", &levels), ("edit file", &edits), ("all", &all)] {
            let what = format!("closed {close}, edit file {edit_file}, without {what}");
            for path in gone {
                sample.disk().remove_file(path).unwrap();
            }
            sample.salvage(&what);
            // A batch's table has its place in the order of writes from a level file or the log: without either it is
            // left out.
            let unplaced = |report: &RepairReport| {
                report.left_out.iter().filter_map(|left_out| sample.range_of(&left_out.file)).collect()
            };
            let report = sample.repair(&what, unplaced, false);
            assert_eq!(report.manifest_was_whole, gone.is_empty(), "{what}");
            sample.undo();
        }
    }
}

/// M2, T2: a damaged table costs what it held, and salvage reads its whole blocks.
#[test]
fn a_damaged_table_costs_its_keys_at_most() {
    let sample = Sample::new(true, false);
    let mut rng = Rng::new(7);
    let mut in_part = 0;
    let named = sample.paths(|path| path.ends_with(".sst")).into_iter().filter(|path| sample.range_of(path).is_some());
    for path in named.step_by(11) {
        let Some(range) = sample.range_of(&path) else { continue };
        let bytes = &sample.files[&path];
        for (what, damage) in [("flip", 0), ("zeros", 1), ("cut", 2), ("gone", 3)] {
            let what = format!("{what} in {}", path.display());
            let mut changed = bytes.clone();
            let at = rng.within(64..bytes.len() as u64 - 8) as usize;
            match damage {
                0 => changed[at] ^= 1,
                1 => changed[at..at + 8].fill(if bytes[at..at + 8] == [0; 8] { 1 } else { 0 }),
                2 => changed.truncate(at),
                _ => {}
            }
            match damage {
                3 => sample.disk().remove_file(&path).unwrap(),
                _ => put_file(sample.disk(), &path, &changed),
            }
            let salvaged = sample.salvage(&what);
            in_part += u64::from(salvaged.lost.iter().any(|lost| lost.from.is_some() && lost.to.is_some()));
            let report = sample.repair(&what, |_| vec![range.clone()], false);
            assert!(report.manifest_was_whole, "{what}");
            sample.undo();
        }
    }
    assert!(in_part > 0, "some table was read in part");
}

/// P11: the table of a batch that only the log names costs the batch's keys, and nothing that was written before it.
#[test]
fn a_damaged_batch_costs_its_keys_at_most() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let left =
        database.create_keyspace("left", common::small().memtable_bytes(64 << 10).write_buffer_bytes(1 << 20)).unwrap();
    let write =
        |numbers: std::ops::Range<u32>| numbers.for_each(|number| left.insert(key(number), value(number)).unwrap());
    write(0..30);
    left.flush().unwrap();
    write(30..60);
    let mut batch = database.batch();
    (100..300).for_each(|number| batch.insert(&left, key(number), value(number)).unwrap());
    database.write(&batch).unwrap();
    write(60..90);
    let oracle = by_key(contents(&database));
    let sample = Sample::of(simulation, database, oracle, false);
    let batches: Vec<PathBuf> = sample
        .paths(|path| path.ends_with(".sst"))
        .into_iter()
        .filter(|path| sample.range_of(path).is_none())
        .collect();
    assert_eq!(batches.len(), 1, "only the log names the batch");
    let keys = |number: u32| Some(key(number).into_bytes());
    for (what, damage) in [("flip", true), ("gone", false)] {
        let mut bytes = sample.files[&batches[0]].clone();
        bytes[200] ^= 1;
        match damage {
            true => put_file(sample.disk(), &batches[0], &bytes),
            false => sample.disk().remove_file(&batches[0]).unwrap(),
        }
        let salvaged = sample.salvage(what);
        assert!(salvaged.log_entries >= 60, "{salvaged:?}");
        let report = sample.repair(what, |_| vec![("left".to_owned(), keys(100), keys(299))], false);
        assert_eq!(report.left_out.len(), 1, "{report:?}");
        sample.undo();
    }
}

/// P11: what repair writes anew from the log's records is not older than what a batch outside of the log wrote later.
#[test]
fn repair_brings_nothing_back_that_a_batch_replaced() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let options = || common::small().memtable_bytes(64 << 10).write_buffer_bytes(1 << 20);
    let left = database.create_keyspace("left", options()).unwrap();
    // Never flushed, so that the log is kept from here on.
    database.create_keyspace("right", options()).unwrap().insert(key(0), "right").unwrap();
    left.insert(key(100), "old").unwrap();
    left.insert(key(900), value(900)).unwrap();
    left.flush().unwrap();
    let mut batch = database.batch();
    (100..300).for_each(|number| batch.insert(&left, key(number), value(number)).unwrap());
    database.write(&batch).unwrap();
    left.insert(key(500), value(500)).unwrap();
    left.flush().unwrap();
    let oracle = by_key(contents(&database));
    let sample = Sample::of(simulation, database, oracle, false);
    let of_500 = sample.paths(|path| path.ends_with(".sst")).into_iter().find(|path| {
        let wanted = Some(key(500).into_bytes());
        sample.range_of(path).is_some_and(|(_, from, to)| from == wanted && to == wanted)
    });
    sample.disk().remove_file(&of_500.expect("a table of its own")).unwrap();
    let report = sample.repair("the table of one key is gone", |_| Vec::new(), false);
    assert_eq!(report.recovered_from_log, 1, "{report:?}");
}

/// M2: the same without any manifest.
#[test]
fn a_damaged_table_without_a_manifest_costs_its_keys_at_most() {
    let sample = Sample::new(true, false);
    let mut left_out = 0;
    for path in sample.paths(|path| path.ends_with(".sst")).into_iter().step_by(9) {
        let Some(range) = sample.range_of(&path) else { continue };
        let mut changed = sample.files[&path].clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 4;
        put_file(sample.disk(), &path, &changed);
        sample.disk().remove_file(&Path::new(DB).join("global.json")).unwrap();
        let what = format!("flip in {}, without global.json", path.display());
        let report = sample.repair(&what, |_| vec![range], false);
        // Without a manifest nobody knows the checksum of the whole file: a bit between two frames is not missed.
        left_out += u64::from(report.left_out.iter().any(|left_out| left_out.file == path));
        assert!(!report.manifest_was_whole, "{what}: {report:?}");
        sample.undo();
    }
    assert!(left_out > 0, "some table is left out");
}

/// L3: damage in the log costs what only the log held.
#[test]
fn a_damaged_log_costs_what_it_alone_held() {
    let sample = Sample::new(true, false);
    let mut refused = 0;
    for path in sample.paths(|path| path.ends_with(".wal")) {
        for (what, at) in [("header", 30_usize), ("first record", 100), ("later", 2000)] {
            let mut changed = sample.files[&path].clone();
            if changed[at..at + 8] == [0; 8] {
                continue;
            }
            changed[at] ^= 0x10;
            put_file(sample.disk(), &path, &changed);
            let what = format!("{what} of {}", path.display());
            sample.salvage(&what);
            if !builder(&sample.simulation).verify().unwrap().damage.is_empty() {
                refused += 1;
                let report = sample.repair(&what, |_| Vec::new(), true);
                assert!(report.manifest_was_whole && !report.log_lost.is_empty(), "{what}: {report:?}");
            }
            sample.undo();
        }
        sample.disk().remove_file(&path).unwrap();
        if !builder(&sample.simulation).verify().unwrap().damage.is_empty() {
            refused += 1;
            sample.repair(&format!("{} is gone", path.display()), |_| Vec::new(), true);
        }
        sample.undo();
    }
    assert!(refused > 2, "the log is what recovery needs");
}

/// M2: repairing what is whole changes no pair.
#[test]
fn a_whole_database_is_repaired_into_itself() {
    for (close, edit_file) in [(true, false), (false, false), (false, true)] {
        let sample = Sample::new(close, edit_file);
        let report = sample.repair("whole", |_| Vec::new(), false);
        assert!(report.left_out.is_empty() && report.log_lost.is_empty() && report.manifest_was_whole, "{report:?}");
        let salvaged = sample.salvage("whole");
        assert!(salvaged.lost.is_empty() && salvaged.log_lost.is_empty(), "{salvaged:?}");
    }
}

/// M6, M2: an older manifest, of a close that had left no log, stands beside a log with records: nobody takes the records
/// for leftovers. Opening, reading and verifying say so, and repair takes them in.
#[test]
fn a_log_that_the_manifest_does_not_name_is_not_forgotten() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    fill(&database);
    for name in database.list_keyspaces() {
        common::keyspace(&database, &name).flush().unwrap();
    }
    database.close().unwrap();
    let path = Path::new(DB).join("global.json");
    let closed = simulation.files.read(&path, 1 << 20).unwrap();
    drop(database);
    let database = builder(&simulation).open().unwrap();
    common::keyspace(&database, "left").insert("written", "later").unwrap();
    let oracle = by_key(contents(&database));
    let simulation = killed(&simulation.files, 2);
    drop(database);
    put_file(&*simulation.files, &path, &closed);

    let named = |error: &str| assert!(error.contains(".wal"), "{error} names no segment");
    let before = listing(&*simulation.files, Path::new(DB));
    named(&builder(&simulation).open().unwrap_err().to_string());
    named(&builder(&simulation).read_only(true).open().unwrap_err().to_string());
    let report = builder(&simulation).verify().unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    named(&report.damage[0].to_string());
    common::assert_unchanged(&before, &listing(&*simulation.files, Path::new(DB)), "looking changes nothing");

    let report = builder(&simulation).repair().unwrap();
    assert!(report.notes.iter().any(|note| note.contains(".wal")), "{report:?}");
    assert!(by_key(contents(&builder(&simulation).open().unwrap())) == oracle);
}
