//! A database that was closed with nothing in its log has none, until something changes it.
//!
//! ```text
//!   close, all in tables ──▶ no log ──▶ open, read, close: nothing is written
//!                                └────▶ the first change: a segment ─▶ its name in the manifest ─▶ a record
//! ```

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::{DB, Row, assert_unchanged, builder, contents, fill, keyspace, listing, small};
use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, Simulation};
use lsm_facade::{Database, DatabaseBuilder, Durability, Error, Health};
use manifest::{Manifest, ManifestOptions, ManifestStore, OpenMode};

/// With an edit file, and without.
const WAYS: [fn(&Simulation) -> DatabaseBuilder; 2] = [builder, |simulation| builder(simulation).edit_file_bytes(0)];

/// A database of which all is in tables, and what it holds.
fn in_tables(make: fn(&Simulation) -> DatabaseBuilder) -> (Simulation, Database, BTreeMap<String, Vec<Row>>) {
    let simulation = Simulation::new(1);
    let database = make(&simulation).open().unwrap();
    fill(&database);
    database.flush().unwrap();
    database.wait_until_idle().unwrap();
    let expected = contents(&database);
    (simulation, database, expected)
}

/// The same, closed, so that it has no log.
fn without_log(make: fn(&Simulation) -> DatabaseBuilder) -> (Simulation, BTreeMap<String, Vec<Row>>) {
    let (simulation, database, expected) = in_tables(make);
    database.close().unwrap();
    (simulation, expected)
}

/// The manifest as it lies on the disk.
fn manifest_of(simulation: &Simulation) -> Arc<Manifest> {
    let store = ManifestStore::open(&simulation.environment(), DB, OpenMode::ReadOnly, ManifestOptions::default());
    store.unwrap().current()
}

/// M6: who opens what was closed when all was flushed, reads it and closes it again changes no file; the first change begins the
/// log, be it an edit of the manifest alone.
#[test]
fn who_only_reads_a_closed_database_writes_nothing() {
    let (simulation, expected) = without_log(builder);
    let files = |simulation: &Simulation| listing(&*simulation.files, Path::new(DB));
    let segments = |simulation: &Simulation| {
        files(simulation).into_keys().filter(|path| path.extension().is_some_and(|end| end == "wal")).count()
    };
    let closed = files(&simulation);
    for _ in 0..3 {
        let database = builder(&simulation).open().unwrap();
        assert!(contents(&database) == expected);
        let snapshot = database.snapshot().unwrap();
        assert_eq!(snapshot.iter(&keyspace(&database, "left")).count(), expected["left"].len());
        drop(snapshot);
        while database.run_one_job().unwrap() {}
        database.persist().unwrap();
        assert_eq!((database.stats().log_bytes, database.stats().manifest_edits), (0, 0));
        database.close().unwrap();
        assert_unchanged(&closed, &files(&simulation), "reading");
    }
    type Change = (&'static str, fn(&Database));
    let changes: [Change; 4] = [
        ("a write", |database| keyspace(database, "left").insert("key", "value").unwrap()),
        ("a new keyspace", |database| drop(database.create_keyspace("new", small()).unwrap())),
        ("a clear", |database| keyspace(database, "left").clear().unwrap()),
        ("a compaction", |database| keyspace(database, "left").compact().unwrap()),
    ];
    for (what, change) in changes {
        let simulation = Simulation::with_files(simulation.files.crash_image(Crash::Kill, 1), 1);
        let database = builder(&simulation).open().unwrap();
        change(&database);
        assert!(segments(&simulation) > 0, "{what} begins the log");
        let changed = contents(&database);
        database.close().unwrap();
        let database = builder(&simulation).open().unwrap();
        assert!(contents(&database) == changed, "{what}");
    }
}

/// M6, P8: while the manifest cannot name the first segment of the log no record gets into it; once it can, writes go on.
#[test]
fn a_log_that_cannot_be_named_takes_no_record() {
    let (simulation, expected) = without_log(builder);
    let database = builder(&simulation).open().unwrap();
    let left = keyspace(&database, "left");
    let full = Fault::on(FileOperation::Create).path_contains("/db/.tmp").effect(FaultEffect::NoSpace);
    let full = simulation.files.inject(full);
    // Twice: the segment that was made the first time is not for use.
    for _ in 0..2 {
        let refused = left.insert("key", "value");
        assert!(matches!(refused, Err(Error::DiskFull { .. })), "{refused:?}");
        assert!(matches!(left.compact(), Err(Error::DiskFull { .. }) | Ok(())));
    }
    assert!(matches!(database.health(), Health::Well | Health::Degraded { .. }));
    assert!(contents(&database) == expected);
    simulation.files.remove_fault(full);
    left.insert("key", "value").unwrap();
    let written = contents(&database);
    let killed = Simulation::with_files(simulation.files.crash_image(Crash::Kill, 1), 1);
    assert!(contents(&builder(&killed).open().unwrap()) == written);
    let uncertain = Simulation::with_files(simulation.files.crash_image(Crash::Kill, 2), 2);
    drop((left, database));
    // Where nobody knows whether it is named, the database fails.
    let database = builder(&uncertain).open().unwrap();
    database.flush().unwrap();
    database.wait_until_idle().unwrap();
    database.close().unwrap();
    let database = builder(&uncertain).open().unwrap();
    let unknown = uncertain.files.inject(Fault::on(FileOperation::SyncDirectory).path_ends_with(DB));
    let left = keyspace(&database, "left");
    for _ in 0..2 {
        let refused = left.insert("later", "value");
        assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
        assert!(matches!(database.health(), Health::Failed { .. }));
        uncertain.files.remove_fault(unknown);
    }
    assert!(contents(&database) == written);
    drop((left, database));
    assert!(contents(&builder(&uncertain).open().unwrap()) == written);
}

/// P8: where there is no room for a log, a compaction goes on without one: what it frees may be what is lacking.
#[test]
fn a_log_that_cannot_begin_keeps_no_compaction_from_making_room() {
    let (simulation, expected) = without_log(builder);
    let database = builder(&simulation).open().unwrap();
    let left = keyspace(&database, "left");
    let full = Fault::on(FileOperation::Allocate).path_contains("/log/").effect(FaultEffect::NoSpace);
    let full = simulation.files.inject(full);
    left.compact().unwrap();
    assert!(matches!(left.insert("key", "value"), Err(Error::DiskFull { .. })));
    assert!(matches!(database.create_keyspace("new", small()), Err(Error::DiskFull { .. })));
    let crashed = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, 1), 1);
    database.close().unwrap();
    assert!(manifest_of(&simulation).closed_cleanly);
    simulation.files.remove_fault(full);
    for simulation in [&simulation, &crashed] {
        let database = builder(simulation).open().unwrap();
        assert!(contents(&database) == expected);
        keyspace(&database, "left").insert("key", "value").unwrap();
    }
}

/// M6, L3: whatever a close that was killed leaves, who opens and closes it again leaves it closed cleanly.
#[test]
fn a_close_that_was_killed_is_made_up_for_by_the_next() {
    for make in WAYS {
        let (simulation, database, expected) = in_tables(make);
        let began = simulation.files.event_count();
        database.close().unwrap();
        for event in began..=simulation.files.event_count() {
            let killed = Simulation::with_files(simulation.files.crash_image_at(event, Crash::Kill, 0), 0);
            let database = make(&killed).open().unwrap();
            assert!(contents(&database) == expected, "killed after event {event}");
            // M2: what the killed close had not made durable yet comes back with all that it names.
            for seed in 0..8 {
                let cut = Simulation::with_files(killed.files.crash_image(Crash::PowerCut, seed), seed);
                let opened = make(&cut).open();
                let database = opened.unwrap_or_else(|error| panic!("after event {event}, seed {seed}: {error}"));
                assert!(contents(&database) == expected, "killed after event {event}, power cut with seed {seed}");
            }
            database.close().unwrap();
            assert!(manifest_of(&killed).closed_cleanly, "killed after event {event}");
        }
    }
}

/// M6: a crash at any event of what begins the log, be it a record that is too long for the segment that was made first, an edit,
/// or both, with and without an edit file, loses nothing.
#[test]
fn a_crash_while_anything_begins_the_log_loses_nothing() {
    type Change = fn(&Database);
    // Too long for a first segment of these options.
    const LONG: [u8; 4020] = [b'x'; 4020];
    let changes: [Change; 4] = [
        |database| keyspace(database, "left").with_durability(Durability::Synced).insert("long", LONG).unwrap(),
        |database| drop(database.create_keyspace("new", small()).unwrap()),
        |database| {
            // The edit has a short one made, for which the record then is too long.
            drop(database.create_keyspace("new", small()).unwrap());
            keyspace(database, "left").with_durability(Durability::Synced).insert("long", LONG).unwrap();
        },
        |database| {
            keyspace(database, "left").insert("long", LONG).unwrap();
            keyspace(database, "left").flush().unwrap();
            database.close().unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        for make in WAYS {
            let (simulation, before) = without_log(make);
            let database = make(&simulation).open().unwrap();
            let began = simulation.files.event_count();
            change(&database);
            drop(database);
            for event in began..=simulation.files.event_count() {
                for (crash, seed) in [(Crash::Kill, 0), (Crash::PowerCut, 2 * event), (Crash::PowerCut, 2 * event + 1)]
                {
                    let what = format!("change {number}, {crash:?} after event {event}, seed {seed}");
                    let crashed = Simulation::with_files(simulation.files.crash_image_at(event, crash, seed), seed);
                    let database = make(&crashed).open().unwrap_or_else(|error| panic!("{what}: {error}"));
                    let mut found = contents(&database);
                    found.get_mut("left").unwrap().retain(|(key, _)| key != b"long");
                    found.remove("new");
                    assert!(found == before, "{what}");
                    keyspace(&database, "left").with_durability(Durability::Synced).insert("later", "x").unwrap();
                    let again = Simulation::with_files(crashed.files.crash_image(Crash::PowerCut, seed), seed);
                    drop(database);
                    let database = make(&again).open().unwrap_or_else(|error| panic!("{what}, cut again: {error}"));
                    assert!(keyspace(&database, "left").get("later").unwrap().is_some(), "{what}");
                    drop(database);
                    let report = make(&again).verify().unwrap();
                    assert!(report.damage.is_empty(), "{what}: {:?}", report.damage);
                }
            }
        }
    }
}

/// M6, L5: a segment that was too short for the first record is gone with the naming of the next, so that a database that lost
/// `global.json` is repaired from where its log begins.
#[test]
fn a_first_segment_that_was_too_short_spoils_no_repair() {
    for begins_by_edit in [false, true] {
        let (simulation, _) = without_log(builder);
        let database = builder(&simulation).open().unwrap();
        if begins_by_edit {
            drop(database.create_keyspace("new", small()).unwrap());
        }
        keyspace(&database, "left").insert("long", [b'x'; 4020]).unwrap();
        let expected = contents(&database);
        let crashed = Simulation::with_files(simulation.files.crash_image(Crash::Kill, 1), 1);
        drop(database);
        crashed.files.remove_file(&Path::new(DB).join("global.json")).unwrap();
        let report = builder(&crashed).repair().unwrap();
        assert!(report.log_lost.is_empty(), "{:?}", report.log_lost);
        let database = builder(&crashed).open().unwrap();
        // Names are lost with the manifest.
        let found = contents(&database);
        assert!(found.values().any(|rows| *rows == expected["left"]), "by an edit: {begins_by_edit}");
    }
}

/// M6, P9: writers, an edit, a compaction and a close that begin the log at once: one log is begun, and what was synced stays.
#[test]
fn many_begin_a_log_at_once() {
    for round in 0..30 {
        let make = |simulation: &Simulation| builder(simulation).background_threads(2);
        let (simulation, expected) = without_log(builder);
        let database = make(&simulation).open().unwrap();
        let left = keyspace(&database, "left").with_durability(Durability::Synced);
        let closed_is_fine = |outcome: Result<(), Error>| match outcome {
            Ok(()) => true,
            Err(Error::Closed) => false,
            Err(error) => panic!("round {round}: {error}"),
        };
        let written = std::thread::scope(|scope| {
            // The first of them writes what a short first segment is too short for.
            let write = |thread: usize| {
                let bytes = if thread == 0 { 4020 } else { 10 };
                let keys = (0..5).map(|number| format!("thread {thread}, {number}"));
                keys.filter(|key| closed_is_fine(left.insert(key, vec![b'x'; bytes]))).collect::<Vec<_>>()
            };
            let writers: Vec<_> = (0..3).map(|thread| scope.spawn(move || write(thread))).collect();
            scope.spawn(|| closed_is_fine(database.create_keyspace("new", small()).map(drop)));
            scope.spawn(|| closed_is_fine(left.compact()));
            if round % 3 == 0 {
                scope.spawn(|| {
                    (0..round).for_each(|_| std::thread::yield_now());
                    database.close().unwrap();
                });
            }
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        let cut = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, round), round);
        drop((left, database));
        for simulation in [&simulation, &cut] {
            let database = make(simulation).open().unwrap();
            let left = keyspace(&database, "left");
            assert!(written.iter().all(|key| left.get(key).unwrap().is_some()), "round {round}: {written:?}");
            assert!(expected["left"].iter().all(|(key, value)| left.get(key).unwrap().unwrap() == value[..]));
        }
    }
}
