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
use lsm_facade::{Database, DatabaseBuilder, Error, Keyspace, LeftOut, RepairReport, SalvageReport, Strategy};
use manifest::{Manifest, ManifestOptions, ManifestStore, OpenMode, TableEntry};
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
        let (left, right) = (common::keyspace(&database, "left"), common::keyspace(&database, "right"));
        rewrite_in_parts(&left, &right);
        // What only the log holds.
        for number in 3020..3030 {
            left.insert(key(number), value(number)).unwrap();
        }
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

    /// Whether a table with a larger epoch lies below one that it overlaps: its age is no order.
    fn a_table_seems_newer_than_it_lies(&self) -> bool {
        self.manifest.keyspaces.values().any(|keyspace| {
            // Newest first.
            let tables: Vec<_> = keyspace.tables().collect();
            let lie_so = |(place, (level, run, upper)): (usize, &(_, _, &Arc<TableEntry>))| {
                tables[place + 1..].iter().any(|(at, of, lower)| {
                    let overlap = lower.min_key <= upper.max_key && upper.min_key <= lower.max_key;
                    (at, of) != (level, run) && overlap && lower.epoch > upper.epoch
                })
            };
            tables.iter().enumerate().any(lie_so)
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

/// What the last steps wrote or removed, which perhaps only the log holds, or the table of a batch.
fn in_log_alone(key: &[u8]) -> bool {
    let number: u32 = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
    !(20..2000).contains(&number)
}

/// Whether `key` ever had this value, which may have been replaced or removed later.
fn ever_written(keyspace: &str, key_bytes: &[u8], found: &[u8]) -> bool {
    let number: u32 = std::str::from_utf8(&key_bytes[4..]).unwrap().parse().unwrap();
    assert_eq!(key(number).as_bytes(), key_bytes);
    let first = if keyspace == "left" { value(number) } else { "right".to_owned() };
    found == first.as_bytes() || (0..ROUNDS).any(|round| found == newer_value(number, round).as_bytes())
}

/// How often [`rewrite_in_parts`] goes over a keyspace.
const ROUNDS: u32 = 4;

fn newer_value(number: u32, round: u32) -> String {
    format!("round {round} of {number} {}", "n".repeat(number as usize % 40))
}

/// Replaces and removes what `fill` wrote, again and again, and compacts parts between: so that a key has had several
/// values, and tables with old rows have been merged later than newer ones that they overlap.
fn rewrite_in_parts(left: &Keyspace, right: &Keyspace) {
    for round in 0..ROUNDS {
        // Two keys of each, all over, in runs of their own; and a few that lie close together.
        for (keyspace, step) in [(left, 61), (right, 83)] {
            for number in (20 + round * 7..1500).step_by(step) {
                keyspace.insert(key(number), newer_value(number, round)).unwrap();
                keyspace.remove(key(number + 3)).unwrap();
            }
            keyspace.flush().unwrap();
            let from = 200 + 300 * round;
            for number in from..from + 20 {
                keyspace.insert(key(number), newer_value(number, round)).unwrap();
            }
            keyspace.flush().unwrap();
            keyspace.compact_range(key(from)..key(from + 20)).unwrap();
        }
    }
    left.compact().unwrap();
    for from in [700, 706] {
        (from..from + 3).for_each(|number| left.insert(key(number), newer_value(number, 0)).unwrap());
        left.flush().unwrap();
    }
    left.compact_range(key(706)..key(709)).unwrap();
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
        assert!(
            sample.a_table_seems_newer_than_it_lies(),
            "no table lies below one with a smaller epoch:\n{}",
            sample.manifest
        );
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
                let of_batch = || (String::new(), Some(key(2000).into_bytes()), Some(key(2099).into_bytes()));
                let range = |left_out: &LeftOut| {
                    let is_unplaced = left_out.why.contains("nothing tells its place");
                    sample.range_of(&left_out.file).or_else(|| is_unplaced.then(of_batch))
                };
                report.left_out.iter().filter_map(range).collect()
            };
            let report = sample.repair(&what, unplaced, false);
            assert_eq!(report.manifest_was_whole, gone.is_empty(), "{what}");
            assert!(report.log_lost.is_empty(), "{what}: the log is whole: {report:?}");
            sample.undo();
        }
    }
}

/// A keyspace of one old table in the last level that was merged later than the run above it, which holds newer rows: the
/// last run was compacted alone, and met nothing but the old table. All is flushed, and nothing of what was replaced is left.
fn compacted_in_part() -> Sample {
    let simulation = Simulation::new(1);
    // Level files tell all, also of what is damaged.
    let database = builder(&simulation).compact_when_idle_after(None).edit_file_bytes(1 << 20).open().unwrap();
    let options = common::small().level_zero_runs_max(100).merge_what_is_read(false);
    let left = database.create_keyspace("left", options).unwrap();
    let write = |numbers: std::ops::Range<u32>, round: Option<u32>| {
        for number in numbers {
            let value = round.map_or_else(|| value(number), |round| newer_value(number, round));
            left.insert(key(number), value).unwrap();
        }
    };
    write(0..100, None);
    left.flush().unwrap();
    left.compact().unwrap();
    write(10..12, Some(0));
    left.remove(key(12)).unwrap();
    left.flush().unwrap();
    write(20..23, Some(1));
    left.flush().unwrap();
    left.compact_range(key(20)..=key(22)).unwrap();
    database.wait_until_idle().unwrap();
    let oracle = by_key(contents(&database));
    let sample = Sample::of(simulation, database, oracle, true);
    assert!(sample.a_table_seems_newer_than_it_lies(), "{}", sample.manifest);
    sample
}

/// C3, M2: without a manifest rows say which table is newer: a table's age is that of its newest row, and it may hold old ones
/// that lie below others.
#[test]
fn without_a_manifest_no_old_row_takes_the_place_of_a_newer_one() {
    let sample = compacted_in_part();
    sample.disk().remove_file(&Path::new(DB).join("global.json")).unwrap();
    let salvaged = sample.salvage("without global.json");
    assert!(salvaged.lost.is_empty() && salvaged.log_lost.is_empty(), "{salvaged:?}");
    let report = sample.repair("without global.json", |_| Vec::new(), false);
    assert!(!report.manifest_was_whole && report.left_out.is_empty(), "{report:?}");
    // The next compactions keep what the order was.
    let database = builder(&sample.simulation).open().unwrap();
    common::keyspace(&database, &database.list_keyspaces()[0]).compact().unwrap();
    sample.compare("compacted", &by_key(contents(&database)), &[], false);
}

/// C3: where a damaged table lies below newer ones, what salvage reads of it stays below them, with a manifest and without.
#[test]
fn what_is_left_of_a_damaged_table_takes_no_newer_rows_place() {
    let sample = compacted_in_part();
    // The larger of the two that hold a key which was overwritten: it lies below.
    let holds = |path: &Path| {
        let (_, from, to) = sample.range_of(path)?;
        (from? <= key(11).into_bytes() && key(11).into_bytes() <= to?).then_some(())
    };
    let tables = sample.paths(|path| path.ends_with(".sst"));
    let tables: Vec<_> = tables.into_iter().filter(|path| holds(Path::new(path)).is_some()).collect();
    assert_eq!(tables.len(), 2, "{tables:?}");
    let last = tables.into_iter().max_by_key(|path| sample.files[path].len()).unwrap();
    for without_manifest in [false, true] {
        let mut elsewhere = 0;
        for at in (64..sample.files[&last].len()).step_by(97) {
            let mut changed = sample.files[&last].clone();
            changed[at] ^= 1;
            put_file(sample.disk(), &last, &changed);
            if without_manifest {
                sample.disk().remove_file(&Path::new(DB).join("global.json")).unwrap();
            }
            let salvaged = sample.salvage(&format!("byte {at} of the old table, without manifest: {without_manifest}"));
            let beyond = |from: &Option<Vec<u8>>| from.as_ref().is_some_and(|from| *from > key(12).into_bytes());
            elsewhere += usize::from(!salvaged.lost.is_empty() && salvaged.lost.iter().all(|lost| beyond(&lost.from)));
            sample.undo();
        }
        assert!(elsewhere > 5, "{elsewhere}: what is newer above lies outside of what is lost");
    }
}

/// L5: without a manifest the log begins where seals lead to its end, and not in a segment that waits to be written over:
/// nothing is reported lost, and what was removed behind such a segment stays removed.
#[test]
fn without_a_manifest_the_log_does_not_begin_in_a_segment_that_it_gave_up() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).compact_when_idle_after(None).open().unwrap();
    let left = database.create_keyspace("left", common::small()).unwrap();
    // Takes a large memtable, so that the log runs through several segments before any is given up.
    let options = || common::small().memtable_bytes(256 << 10).write_buffer_bytes(256 << 10);
    let right = database.create_keyspace("right", options()).unwrap();
    left.insert(key(1), value(1)).unwrap();
    left.flush().unwrap();
    left.insert(key(2), value(2)).unwrap();
    (20..1500).for_each(|number| right.insert(key(number), "right").unwrap());
    left.remove(key(2)).unwrap();
    left.flush().unwrap();
    left.compact().unwrap();
    // The log is needed from here on, so that it is not begun anew.
    left.insert(key(3), value(3)).unwrap();
    right.flush().unwrap();
    database.wait_until_idle().unwrap();
    let oracle = by_key(contents(&database));
    let sample = Sample::of(simulation, database, oracle, false);
    let floor = sample.manifest.log_floor.segment;
    let segments = sample.disk().read_dir(&Path::new(DB).join("log")).unwrap();
    let ids = segments.iter().filter_map(|entry| manifest::paths::parse_segment_name(&entry.name));
    let spares: Vec<_> = ids.filter(|id| *id < floor).collect();
    assert!(!spares.is_empty(), "segments wait to be written over: {segments:?}, {floor}");
    assert!(spares.iter().all(|id| id.get() + 2 < floor.get()), "and those behind them are gone: {spares:?}, {floor}");

    sample.disk().remove_file(&Path::new(DB).join("global.json")).unwrap();
    let salvaged = sample.salvage("without global.json");
    assert!(salvaged.log_lost.is_empty(), "{salvaged:?}");
    let report = sample.repair("without global.json", |_| Vec::new(), false);
    assert!(report.log_lost.is_empty(), "{report:?}");
    for spare in spares {
        let named = format!("{}.wal", spare.get());
        assert!(report.notes.iter().any(|note| note.contains(&named)), "{named}: {report:?}");
    }
}

/// R3: after a repair nothing of the past is promised up to the last write, also where only the log held it.
#[test]
fn after_a_repair_no_past_is_shown_in_which_something_was_lost() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).compact_when_idle_after(None).open().unwrap();
    let left = database.create_keyspace("left", common::small().history_writes(1000)).unwrap();
    (100..130).for_each(|number| left.insert(key(number), value(number)).unwrap());
    left.flush().unwrap();
    let flushed = database.visible_seqno();
    // The log is needed from here on alone.
    (130..140).for_each(|number| left.insert(key(number), value(number)).unwrap());
    let last = database.visible_seqno();
    let oracle = by_key(contents(&database));
    let sample = Sample::of(simulation, database, oracle, false);
    sample.paths(|path| path.ends_with(".sst")).iter().for_each(|path| sample.disk().remove_file(path).unwrap());
    sample.repair("the tables are gone", |_| vec![("left".to_owned(), None, Some(key(129).into_bytes()))], false);
    let database = builder(&sample.simulation).open().unwrap();
    let left = common::keyspace(&database, "left");
    for seqno in flushed..last {
        let past = database.snapshot_at(seqno).and_then(|snapshot| snapshot.get(&left, key(100)));
        assert!(matches!(past, Err(Error::HistoryGone { .. })), "{seqno} of {last}: {past:?}");
    }
    let now = database.snapshot_at(database.visible_seqno()).unwrap();
    assert!(now.get(&left, key(139)).unwrap().is_some());
}

/// C1: without a manifest, but with its options, what is past its age goes as ever: its age is that which a level file says,
/// or counted from the repair.
#[test]
fn what_is_repaired_goes_when_it_is_past_its_age() {
    let minute = std::time::Duration::from_secs(60);
    for (what, with_levels) in [("level files are there", true), ("level files are gone", false)] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation).compact_when_idle_after(None).open().unwrap();
        let options = common::small().strategy(Strategy::Fifo).fifo_age_max(Some(60 * minute));
        let left = database.create_keyspace("left", options).unwrap();
        for number in 100..103 {
            left.insert(key(number), value(number)).unwrap();
            left.flush().unwrap();
            simulation.clock.advance(10 * minute);
        }
        let now = file_system::Clock::unix_time(&*simulation.clock);
        let oracle = by_key(contents(&database));
        let sample = Sample::of(simulation, database, oracle, true);
        sample.simulation.clock.set_unix_time(now);
        // A digit of its checksum: the line of the keyspace, with its options, stays.
        let global = Path::new(DB).join("global.json");
        let text = String::from_utf8(sample.files[&global].clone()).unwrap();
        let at = text.rfind("xxh3").unwrap() + "xxh3\": \"".len();
        let mut bytes = text.into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        put_file(sample.disk(), &global, &bytes);
        if !with_levels {
            sample
                .paths(|path| path.contains("level_"))
                .iter()
                .for_each(|path| sample.disk().remove_file(path).unwrap());
        }
        let report = sample.repair(what, |_| Vec::new(), false);
        assert!(!report.manifest_was_whole, "{what}");
        let database = builder(&sample.simulation).compact_when_idle_after(None).open().unwrap();
        let settled = || {
            while database.run_one_job().unwrap() {}
            contents(&database)["left"].len()
        };
        sample.simulation.clock.advance(35 * minute);
        assert_eq!(settled(), if with_levels { 2 } else { 3 }, "{what}: after 65 minutes, 35 from the repair on");
        sample.simulation.clock.advance(26 * minute);
        assert_eq!(settled(), 0, "{what}: after 91 minutes, 61 from the repair on");
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
