//! What handles promise: opening and closing, reading beside a writer, jobs without threads, health, durability, and
//! batches that are whole or not there.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{DB, Row, assert_unchanged, builder, contents, fill, key, keyspace, killed, listing, rows, small, value};
use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, Simulation};
use lsm_facade::{
    Database, DatabaseBuilder, Durability, Error, Health, Iter, Keyspace, KeyspaceOptions, RangeCursor, Slice,
    Snapshot, WriteBatch,
};

fn real(dir: &Path) -> DatabaseBuilder {
    Database::builder(dir).background_threads(0).log_segment_bytes(64 << 10)
}

fn put(rows: &[(&str, &str)]) -> Vec<Row> {
    rows.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// P1: a write takes the reservation lock once, a read takes none; the figures say what the locks cost.
#[test]
fn stats_say_what_locks_cost() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).background_threads(0).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    let costs = |name: &str| database.stats().locks.iter().find(|(it, _)| *it == name).unwrap().1;
    let before = costs("reservation");
    for number in 0..1000 {
        keyspace.insert(key(number), "x").unwrap();
    }
    let after = costs("reservation");
    assert!((1000..1100).contains(&(after.acquisitions - before.acquisitions)), "{before}; {after}");
    assert!(after.contended == 0 && after.waited_ns == 0 && after.held_ns > before.held_ns, "{after}");
    let names: Vec<_> = database.stats().locks.into_iter().map(|(name, _)| name).collect();
    let before = names.iter().map(|name| costs(name).acquisitions).collect::<Vec<_>>();
    for number in 0..1000 {
        keyspace.get(key(number)).unwrap().unwrap();
    }
    // Asking for the figures takes the reservation lock, for the count of commits.
    let after = names.iter().map(|name| costs(name).acquisitions).collect::<Vec<_>>();
    let grown: u64 = after.iter().zip(&before).map(|(after, before)| after - before).sum();
    assert!(grown < 100, "{names:?}: {before:?}, then {after:?}");
}

#[test]
fn handles_may_go_to_any_thread() {
    fn handle<T: Clone + Send + Sync + 'static>() {}
    fn owned<T: Send + 'static>() {}
    handle::<Database>();
    handle::<Keyspace>();
    handle::<Snapshot>();
    handle::<Slice>();
    handle::<WriteBatch>();
    handle::<Error>();
    owned::<Iter>();
    owned::<RangeCursor>();
}

/// L3: a clean close vouches for the end of the log: opening again flushes nothing and finds everything.
#[test]
fn closing_is_prompt_and_idempotent_and_everything_is_there_afterwards() {
    for threads in [0, 2] {
        let simulation = Simulation::new(1);
        let open = || builder(&simulation).background_threads(threads).open().unwrap();
        let database = open();
        fill(&database);
        let expected = contents(&database);
        // Sealed memtables and due compactions are waiting: closing does none of that work.
        let left = keyspace(&database, "left");
        for number in 0..200 {
            left.insert(key(number), value(number)).unwrap();
        }
        left.compact_range("a".."b").unwrap();
        for number in 0..1500 {
            if expected["left"].iter().all(|(found, _)| *found != key(number).as_bytes()) {
                left.remove(key(number)).unwrap();
            }
        }
        let flushes = database.stats().flushes;
        database.close().unwrap();
        database.close().unwrap();
        let other = database.clone();
        std::thread::spawn(move || other.close().unwrap()).join().unwrap();
        if threads == 0 {
            assert_eq!(database.stats().flushes, flushes, "closing flushes nothing");
        }
        assert!(matches!(database.health(), Health::Closed));

        let before = listing(&*simulation.files, Path::new(DB));
        let database = open();
        assert!(contents(&database) == expected);
        if threads == 0 {
            let tables = |files: common::Listing| -> BTreeSet<_> {
                files.into_keys().filter(|path| path.extension().is_some_and(|ending| ending == "sst")).collect()
            };
            let after = listing(&*simulation.files, Path::new(DB));
            assert_eq!(tables(before), tables(after), "opening flushed nothing");
        }
        drop((left, database));
    }
}

/// A close does not wait for jobs to end of their own accord: it cancels them, whatever they are doing.
#[test]
fn closing_cancels_running_jobs() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let database = Database::builder(home.path()).background_threads(2).open().unwrap();
        let keyspace = match database.open_keyspace("a") {
            Ok(keyspace) => keyspace,
            Err(_) => {
                database.create_keyspace("a", small().write_buffer_bytes(1 << 20).level_zero_runs_max(100)).unwrap()
            }
        };
        for number in 0..2000 {
            keyspace.insert(key(number), value(number + round)).unwrap();
        }
        let flusher = std::thread::spawn({
            let keyspace = keyspace.clone();
            move || keyspace.compact()
        });
        database.close().unwrap();
        match flusher.join().unwrap() {
            Ok(()) | Err(Error::Closed) => {}
            Err(error) => panic!("{error}"),
        }
        drop((keyspace, database));
        let database = Database::builder(home.path()).background_threads(0).open().unwrap();
        let keyspace = common::keyspace(&database, "a");
        assert_eq!(keyspace.iter().count(), 2000);
        assert_eq!(keyspace.get(key(1999)).unwrap().unwrap(), value(1999 + round).as_bytes());
    }
}

#[test]
fn each_kind_of_handle_keeps_the_database_open() {
    let simulation = Simulation::new(1);
    let refused = || match builder(&simulation).open() {
        Err(Error::Locked { .. }) => {}
        other => panic!("still open: {other:?}"),
    };
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.keyspace("a").unwrap();
    keyspace.insert("k", "v").unwrap();
    drop(database);
    refused();
    assert_eq!(keyspace.get("k").unwrap().unwrap(), b"v");

    let mut iter = keyspace.iter();
    drop(keyspace);
    refused();
    assert_eq!(iter.next().unwrap().unwrap().1, b"v");
    drop(iter);

    let database = builder(&simulation).open().unwrap();
    let keyspace = common::keyspace(&database, "a");
    let snapshot = database.snapshot().unwrap();
    let second = snapshot.clone();
    drop((database, snapshot));
    refused();
    assert_eq!(second.get(&keyspace, "k").unwrap().unwrap(), b"v");
    let mut cursor = second.cursor(&keyspace);
    drop((second, keyspace));
    refused();
    cursor.seek_to_last().unwrap();
    assert_eq!(cursor.key(), Some(&b"k"[..]));
    drop(cursor);

    // Nothing is left: it is closed, cleanly, and its lock is free.
    let reader = builder(&simulation).read_only(true).open().unwrap();
    assert_eq!(rows(common::keyspace(&reader, "a").iter()), put(&[("k", "v")]));
    let database = builder(&simulation).open().unwrap();
    // Values stand for themselves.
    let value = common::keyspace(&database, "a").get("k").unwrap().unwrap();
    drop(database);
    builder(&simulation).open().unwrap();
    assert_eq!(value, b"v");
}

#[test]
fn every_handle_answers_closed_after_closing() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.keyspace("a").unwrap();
    keyspace.insert("k", "v").unwrap();
    let mut batch = database.batch();
    batch.insert(&keyspace, "k", "w").unwrap();
    let snapshot = database.snapshot().unwrap();
    let (mut iter, mut backward, mut cursor) = (keyspace.iter(), snapshot.iter(&keyspace), keyspace.cursor());
    database.close().unwrap();
    let events = simulation.files.event_count();
    let answers: Vec<(&str, Result<(), Error>)> = vec![
        ("insert", keyspace.insert("k", "w")),
        ("remove", keyspace.remove("k")),
        ("synced insert", keyspace.with_durability(Durability::Synced).insert("k", "w")),
        ("write", database.write(&batch)),
        ("get", keyspace.get("k").map(drop)),
        ("contains_key", keyspace.contains_key("k").map(drop)),
        ("first_key_value", keyspace.first_key_value().map(drop)),
        ("last_key_value", keyspace.last_key_value().map(drop)),
        ("is_empty", keyspace.is_empty().map(drop)),
        ("clear", keyspace.clear()),
        ("flush", keyspace.flush()),
        ("compact", keyspace.compact()),
        ("snapshot", database.snapshot().map(drop)),
        ("snapshot's get", snapshot.get(&keyspace, "k").map(drop)),
        ("snapshot's contains_key", snapshot.contains_key(&keyspace, "k").map(drop)),
        ("next", iter.next().unwrap().map(drop)),
        ("next_back", backward.next_back().unwrap().map(drop)),
        ("seek_to_first", cursor.seek_to_first()),
        ("seek_to_last", cursor.seek_to_last()),
        ("seek", cursor.seek("k")),
        ("seek_for_prev", cursor.seek_for_prev("k")),
        ("keyspace", database.keyspace("b").map(drop)),
        ("create_keyspace", database.create_keyspace("b", small()).map(drop)),
        ("open_keyspace", database.open_keyspace("a").map(drop)),
        ("drop_keyspace", database.drop_keyspace("a")),
        ("persist", database.persist()),
        ("flush all", database.flush()),
        ("run_one_job", database.run_one_job().map(drop)),
        ("wait_until_idle", database.wait_until_idle()),
    ];
    for (name, answer) in answers {
        assert!(matches!(answer, Err(Error::Closed)), "{name}: {answer:?}");
    }
    assert!(iter.next().is_none(), "fused");
    assert_eq!(simulation.files.event_count(), events, "nothing was touched");
    // Closed is closed for others too: the directory is free although handles are left.
    let again = builder(&simulation).open().unwrap();
    assert_eq!(common::keyspace(&again, "a").get("k").unwrap().unwrap(), b"v");
}

/// M5: a reader beside a live writer sees one state, keeps its files, and writes nothing.
#[test]
fn a_reader_beside_a_writer_sees_what_was_there_when_it_opened() {
    let home = tempfile::tempdir().unwrap();
    let writer = real(home.path()).open().unwrap();
    fill(&writer);
    let expected = contents(&writer);
    let reader = real(home.path()).read_only(true).open().unwrap();
    assert!(contents(&reader) == expected, "flushed and logged rows alike");

    let left = keyspace(&writer, "left");
    for number in 0..1500 {
        left.insert(key(number), "changed").unwrap();
    }
    left.compact().unwrap();
    keyspace(&writer, "right").clear().unwrap();
    while writer.run_one_job().unwrap() {}
    assert!(contents(&reader) == expected, "what it opened stays, although the writer replaced the tables");

    let keyspace = keyspace(&reader, "left");
    let mut batch = reader.batch();
    batch.insert(&keyspace, "k", "v").unwrap();
    for (name, answer) in [
        ("insert", keyspace.insert("k", "v")),
        ("remove", keyspace.remove("k")),
        ("write", reader.write(&batch)),
        ("clear", keyspace.clear()),
        ("flush", keyspace.flush()),
        ("compact", keyspace.compact()),
        ("persist", reader.persist()),
        ("keyspace", reader.keyspace("new").map(drop)),
        ("drop_keyspace", reader.drop_keyspace("left")),
    ] {
        assert!(matches!(answer, Err(Error::ReadOnly)), "{name}: {answer:?}");
    }
    assert!(!reader.run_one_job().unwrap());
    assert!(matches!(reader.health(), Health::Well));
    let snapshot = reader.snapshot().unwrap();
    assert!(rows(snapshot.iter(&keyspace)) == expected["left"]);
    let files = file_system::Environment::real().files;
    let before = listing(&*files, home.path());
    reader.close().unwrap();
    assert_unchanged(&before, &listing(&*files, home.path()), "closing a reader");
    assert!(matches!(keyspace.get("k"), Err(Error::Closed)));
    // The writer never noticed.
    left.insert("k", "v").unwrap();
    assert_eq!(rows(left.iter()).len(), 1500 + 100 + 20 + 1);
}

/// M5, L3, M3: beside a writer that writes, syncs and flushes all the while, opening for reading and verifying find a whole
/// database each time, with all that was written before.
#[test]
fn a_reader_beside_a_writer_that_goes_on_finds_no_damage() {
    const KEYS: u32 = 500;
    struct StopsWriter<'a>(&'a AtomicBool);
    impl Drop for StopsWriter<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let home = tempfile::tempdir().unwrap();
    let builder = Database::builder(home.path()).background_threads(2).edit_file_bytes(0);
    let database = builder.clone().open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    let (stop, written) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let stops = StopsWriter(&stop);
        scope.spawn(|| {
            let synced = keyspace.with_durability(Durability::Synced);
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // New keys first, in their order; then the same again.
                let keyspace = if number % 4 == 0 { &synced } else { &keyspace };
                keyspace.insert(key(number % KEYS), value(number)).unwrap();
                if number % 64 == 0 {
                    keyspace.flush().unwrap();
                    // Who verifies begins again when what it looked at was replaced meanwhile: it has to get to an end.
                    std::thread::sleep(Duration::from_millis(20));
                }
                written.store(KEYS.min(number + 1), Ordering::Release);
            }
        });
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            let before = written.load(Ordering::Acquire);
            let reader = builder.clone().read_only(true).open().unwrap();
            let found = contents(&reader).remove("a").unwrap_or_default();
            assert!(found.len() >= before as usize, "{} of {before}", found.len());
            for ((found, _), number) in found.iter().zip(0..) {
                assert_eq!(*found, key(number).into_bytes(), "nothing is left out");
            }
            reader.close().unwrap();
            let report = builder.clone().verify().unwrap();
            assert!(report.damage.is_empty(), "{report:?}");
        }
        drop(stops);
    });
}

/// R2: an iterator holds what it reads: it goes on through writes, flushes, compactions, a clear and a drop, on any thread.
#[test]
fn iterators_outlive_everything_else() {
    let home = tempfile::tempdir().unwrap();
    let database = real(home.path()).open().unwrap();
    fill(&database);
    let left = keyspace(&database, "left");
    let expected = rows(left.iter());
    let mut halfway = left.iter();
    let first: Vec<Row> =
        halfway.by_ref().take(10).map(|row| row.unwrap()).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
    let untouched = left.iter();
    let backward = left.iter().rev();
    for number in 0..1500 {
        left.insert(key(number), "changed").unwrap();
    }
    left.compact().unwrap();
    left.clear().unwrap();
    database.drop_keyspace("left").unwrap();
    while database.run_one_job().unwrap() {}
    drop((left, database));
    let all =
        std::thread::spawn(move || (rows(halfway), rows(untouched), backward.collect::<Result<Vec<_>, _>>().unwrap()));
    let (rest, untouched, backward) = all.join().unwrap();
    assert!([first, rest].concat() == expected);
    assert!(untouched == expected);
    let backward: Vec<Row> = backward.into_iter().rev().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert!(backward == expected);
    let database = real(home.path()).open().unwrap();
    assert_eq!(database.list_keyspaces(), ["right"]);
}

/// R3: a snapshot sees all keyspaces at one moment, through flushes, compactions, clears and drops.
#[test]
fn snapshots_see_what_was_there() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    fill(&database);
    let expected = contents(&database);
    let (left, right) = (keyspace(&database, "left"), keyspace(&database, "right"));
    let snapshot = database.snapshot().unwrap();
    left.clear().unwrap();
    left.insert("new", "1").unwrap();
    database.drop_keyspace("right").unwrap();
    left.compact().unwrap();
    while database.run_one_job().unwrap() {}
    assert!(rows(snapshot.iter(&left)) == expected["left"]);
    assert!(rows(snapshot.iter(&right)) == expected["right"]);
    for (key, value) in &expected["left"] {
        assert_eq!(snapshot.get(&left, key).unwrap().unwrap(), value);
    }
    assert!(!snapshot.contains_key(&left, "new").unwrap());
    assert_eq!(rows(left.iter()), put(&[("new", "1")]));
    assert_eq!(rows(right.iter()), []);
}

/// C4: with zero threads nothing happens until it is asked for, and then one job at a time.
#[test]
fn without_threads_jobs_run_when_asked() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).log_segment_bytes(1 << 20).open().unwrap();
    database.wait_until_idle().unwrap();
    while database.run_one_job().unwrap() {}
    // No limit is near, so that no writer runs a job.
    let options = small().write_buffer_bytes(64 << 20);
    let keyspace = database.create_keyspace("a", options).unwrap();
    for number in 0..1000 {
        keyspace.insert(key(number), value(number)).unwrap();
    }
    let stats = database.stats();
    assert_eq!((stats.flushes, stats.compactions.iter().sum::<u64>()), (0, 0), "nothing ran by itself");
    assert!(stats.keyspaces[0].sealed > 3);
    keyspace.flush().unwrap();
    let flushed = database.stats();
    assert!(flushed.flushes > 0 && flushed.keyspaces[0].sealed == 0, "a waiter runs what it waits for");
    let mut jobs = 0;
    while database.run_one_job().unwrap() {
        jobs += 1;
        assert!(jobs < 1000, "jobs end");
    }
    database.wait_until_idle().unwrap();
    assert!(!database.run_one_job().unwrap(), "idle means that nothing is left");
    assert_eq!(keyspace.iter().count(), 1000);
}

/// P8: a full disk is certain: nothing changes, what was written is read, and everything goes on when there is room.
#[test]
fn a_full_disk_degrades_and_room_mends() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", small().write_buffer_bytes(1 << 20)).unwrap();
    assert!(matches!(database.health(), Health::Well));
    for number in 0..100 {
        keyspace.insert(key(number), value(number)).unwrap();
    }
    simulation.files.set_capacity(Some(simulation.files.used_bytes()));
    let error = keyspace.flush().unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }) && error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains(DB), "{error}");
    match database.health() {
        Health::Degraded { cause: Error::DiskFull { .. } } => {}
        other => panic!("{other}"),
    }
    // Writing goes on as long as the log has room, then says so; nothing that was acknowledged is lost.
    let mut written = 100;
    let refused = loop {
        match keyspace.insert(key(written), value(written)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100_000, "the disk is full");
    };
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
    assert!(written > 100, "the segment at hand had room");
    assert_eq!(keyspace.iter().count(), written as usize);
    let expected = rows(keyspace.iter());
    assert!(matches!(database.health(), Health::Degraded { .. }));

    simulation.files.set_capacity(None);
    keyspace.insert(key(written), value(written)).unwrap();
    keyspace.flush().unwrap();
    database.wait_until_idle().unwrap();
    assert!(matches!(database.health(), Health::Well), "{}", database.health());
    keyspace.remove(key(written)).unwrap();
    assert!(rows(keyspace.iter()) == expected);
    let simulation = killed(&simulation.files, 3);
    let database = builder(&simulation).open().unwrap();
    assert!(rows(common::keyspace(&database, "a").iter()) == expected);
}

/// P8: a failed sync is uncertain: no more writes, reads go on, and reopening recovers.
#[test]
fn a_failed_sync_fails_the_database_until_it_is_reopened() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.keyspace("a").unwrap();
    let synced = keyspace.with_durability(Durability::Synced);
    synced.insert("synced", "1").unwrap();
    keyspace.insert("buffered", "2").unwrap();
    let fault = simulation.files.inject(Fault::on(FileOperation::Sync).path_ends_with(".wal"));
    let error = database.persist().unwrap_err();
    assert!(matches!(error, Error::Failed { .. }) && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains(".wal"), "{error}");
    simulation.files.remove_fault(fault);
    // Never retried on the same file: the disk is well again, the database is not.
    for refused in [
        database.persist(),
        keyspace.insert("k", "v"),
        synced.remove("synced"),
        keyspace.clear(),
        keyspace.flush(),
        database.create_keyspace("b", small()).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Failed { .. })), "{refused:?}");
    }
    match database.health() {
        Health::Failed { cause } => assert!(cause.to_string().contains(".wal"), "the first cause: {cause}"),
        other => panic!("{other}"),
    }
    assert_eq!(keyspace.get("synced").unwrap().unwrap(), b"1", "reads go on");
    assert_eq!(keyspace.iter().count(), 2);
    assert!(database.close().is_err(), "the end of the log is unknown");
    database.close().unwrap();
    let database = builder(&simulation).open().unwrap();
    let keyspace = common::keyspace(&database, "a");
    assert_eq!(keyspace.get("synced").unwrap().unwrap(), b"1");
    keyspace.with_durability(Durability::Synced).insert("k", "v").unwrap();
    assert!(matches!(database.health(), Health::Well));
}

/// M7: a manifest edit whose outcome is unknown fails the database, and no file of it is removed.
#[test]
fn an_unknown_manifest_edit_fails_the_database() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    fill(&database);
    let expected = contents(&database);
    let left = keyspace(&database, "left");
    let tables = |simulation: &Simulation| simulation.files.read_dir(&Path::new(DB).join("tables")).unwrap().len();
    let before = tables(&simulation);
    // The directory sync after the rename, or the sync of the edit file's line.
    simulation.files.inject(Fault::on(FileOperation::SyncDirectory).path_ends_with(DB));
    simulation.files.inject(Fault::on(FileOperation::Sync).path_ends_with(".jsonl"));
    let error = left.compact().unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error:?}");
    assert!(matches!(database.health(), Health::Failed { .. }));
    assert!(contents(&database) == expected, "reads go on");
    while database.run_one_job().unwrap() {}
    assert!(tables(&simulation) > before, "neither inputs nor outputs are deleted");
    drop((left, database));
    assert!(tables(&simulation) > before, "not by closing either");
    simulation.files.clear_faults();
    let database = builder(&simulation).open().unwrap();
    assert!(contents(&database) == expected);
}

/// M3: folding the manifest's edit file is a job of the background; no edit ever has to do it, but for the close.
#[test]
fn the_background_folds_the_manifest_before_an_edit_has_to() {
    let simulation = Simulation::new(1);
    // In a shorter file one line may take the last quarter.
    let database = builder(&simulation).edit_file_bytes(512).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    for round in 0..60 {
        keyspace.insert(key(round), b"value").unwrap();
        keyspace.flush().unwrap();
        database.wait_until_idle().unwrap();
    }
    let expected = contents(&database);
    let stats = database.stats();
    let [by_edits, beside] = stats.manifest_folds;
    assert!(by_edits == 0 && beside >= 2, "{stats}");
    assert!(stats.manifest_edits >= 60 && stats.manifest_bytes > 0, "{stats}");
    drop((keyspace, database));
    let database = builder(&simulation).open().unwrap();
    assert!(contents(&database) == expected);
}

/// L5, M2: a database that is closed when all is flushed leaves no log, whatever a power cut makes of that; one write later
/// it leaves one.
#[test]
fn a_log_with_nothing_in_it_ends_with_the_database() {
    let log = |simulation: &Simulation| {
        let files = listing(&*simulation.files, Path::new(DB)).into_keys();
        files.filter(|path| path.extension().is_some_and(|extension| extension == "wal")).count()
    };
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    fill(&database);
    for name in database.list_keyspaces() {
        keyspace(&database, &name).flush().unwrap();
    }
    database.wait_until_idle().unwrap();
    let expected = contents(&database);
    let last = database.snapshot().unwrap().seqno();
    database.close().unwrap();
    assert_eq!(log(&simulation), 0, "nothing is needed of the log");
    let reader = builder(&simulation).read_only(true).open().unwrap();
    assert!(contents(&reader) == expected);
    drop(reader);
    for crash in [Crash::Kill, Crash::PowerCut] {
        for seed in 0..8 {
            let simulation = Simulation::with_files(simulation.files.crash_image(crash, seed), seed);
            let database = builder(&simulation).open().unwrap();
            assert!(contents(&database) == expected);
            assert!(database.snapshot().unwrap().seqno() >= last, "P6: no sequence number is given out twice");
            let one = keyspace(&database, "left").with_durability(Durability::Synced);
            one.insert(key(7), b"again").unwrap();
            let after = contents(&database);
            database.close().unwrap();
            assert!(log(&simulation) > 0, "the log of the write stays");
            let database = builder(&simulation).open().unwrap();
            assert!(contents(&database) == after);
        }
    }
}

/// L5, M2, M6, P6: a crash before and after every event of a close that ends the log, of the opening that begins no other, and
/// of the write that does.
#[test]
fn a_crash_while_a_log_ends_or_begins_anew_loses_nothing() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    fill(&database);
    database.flush().unwrap();
    database.wait_until_idle().unwrap();
    let expected = contents(&database);
    let began = simulation.files.event_count();
    database.close().unwrap();
    drop(database);
    let closed = simulation.files.event_count();
    let database = builder(&simulation).open().unwrap();
    let opened = simulation.files.event_count();
    // What is there already, so that every crash finds the same.
    let written = keyspace(&database, "left").with_durability(Durability::Synced);
    let (row, value) = expected["left"].last().unwrap();
    written.insert(row, value).unwrap();
    let ended = simulation.files.event_count();
    assert!(began + 10 < closed && closed <= opened && opened + 10 < ended, "{began}, {closed}, {opened}, {ended}");
    crash_after_each(&simulation, began..=ended, &expected);
}

/// Crashes after each of these events in three ways: what is there is what is expected, and what is written next is whole.
#[track_caller]
fn crash_after_each(simulation: &Simulation, events: RangeInclusive<u64>, expected: &BTreeMap<String, Vec<Row>>) {
    for event in events {
        for (crash, seed) in [(Crash::Kill, 0), (Crash::PowerCut, 2 * event), (Crash::PowerCut, 2 * event + 1)] {
            let crashed = Simulation::with_files(simulation.files.crash_image_at(event, crash, seed), seed);
            let what = format!("{crash:?} after event {event}, seed {seed}");
            let database = builder(&crashed).open().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(contents(&database) == *expected, "{what}");
            let written = keyspace(&database, "left").with_durability(Durability::Synced);
            written.insert("written", "later").unwrap();
            // What it begins is whole: another power cut takes nothing.
            let crashed = Simulation::with_files(crashed.files.crash_image(Crash::PowerCut, seed), seed);
            drop(database);
            let database = builder(&crashed).open().unwrap_or_else(|error| panic!("{what}, cut again: {error}"));
            assert_eq!(keyspace(&database, "left").get("written").unwrap().unwrap(), b"later", "{what}");
        }
    }
}

/// L4, L5, P6: a flush by hand leaves a short log, and a crash at any event of that loses nothing and gives no sequence
/// number out twice.
#[test]
fn a_crash_while_a_flush_shortens_the_log_loses_nothing() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    fill(&database);
    for number in 0..200 {
        keyspace(&database, "left").insert(key(number), value(number).repeat(20)).unwrap();
    }
    database.persist().unwrap();
    let expected = contents(&database);
    let began = simulation.files.event_count();
    let long = database.stats().log_bytes;
    database.flush().unwrap();
    let short = database.stats().log_bytes;
    assert!(long > 40 << 10 && short <= 8 << 10, "{long} bytes of log, then {short}");
    let ended = simulation.files.event_count();
    drop(database);
    crash_after_each(&simulation, began.max(ended - 80)..=ended, &expected);
}

/// P8: while no segment can be had, flushes and compactions go on: what they free may be what is lacking.
#[test]
fn a_log_that_cannot_grow_keeps_nothing_from_making_room() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    simulation.files.inject(Fault::on(FileOperation::Allocate).path_contains("log").effect(FaultEffect::NoSpace));
    for number in 0..20 {
        keyspace.insert(key(number), value(number)).unwrap();
    }
    keyspace.flush().unwrap();
    assert!(database.stats().flushes > 0);
    keyspace.compact().unwrap();
    assert_eq!(keyspace.iter().count(), 20);
}

/// P7: what was written before `persist` or with `Synced` survives a power cut, and what was not is lost as a suffix.
#[test]
fn persisted_writes_survive_a_power_cut() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    let synced = keyspace.with_durability(Durability::Synced);
    for number in 0..20 {
        keyspace.insert(key(number), value(number)).unwrap();
    }
    database.persist().unwrap();
    let mut lost = BTreeSet::new();
    for (number, certain) in [(20, 20), (21, 20), (22, 20), (23, 24), (24, 24)] {
        if number == 23 {
            synced.insert(key(number), value(number)).unwrap();
        } else {
            keyspace.insert(key(number), value(number)).unwrap();
        }
        for seed in 0..10 {
            let image = simulation.files.crash_image(Crash::PowerCut, seed);
            let simulation = Simulation::with_files(image, seed);
            let database = builder(&simulation).open().unwrap();
            let found = rows(common::keyspace(&database, "a").iter());
            assert!((certain..=number + 1).contains(&(found.len() as u32)), "{} of {}", found.len(), number + 1);
            for (number, (key_found, value_found)) in (0..).zip(&found) {
                assert_eq!(
                    (key_found.as_slice(), value_found.as_slice()),
                    (key(number).as_bytes(), value(number).as_bytes())
                );
            }
            lost.insert(number as usize + 1 - found.len());
        }
    }
    assert!(lost.len() > 1, "some cuts lost unsynced writes: the test would notice");
}

/// C2: compacting a range rewrites what overlaps it to one run, without tombstones; the rest stays where it is.
#[test]
fn compacting_a_range_leaves_the_rest_alone() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", small().level_base_bytes(1 << 20)).unwrap();
    for number in 0..2000 {
        keyspace.insert(key(number), value(number)).unwrap();
    }
    keyspace.compact().unwrap();
    let level = |keyspace: &Keyspace| keyspace.stats().levels.last().cloned().unwrap();
    let all = level(&keyspace);
    assert_eq!((all.runs, all.entries, keyspace.stats().levels.len()), (1, 2000, 1), "{:?}", keyspace.stats());
    for number in 0..500 {
        keyspace.remove(key(number)).unwrap();
    }
    for number in 1500..2000 {
        keyspace.insert(key(number), "again").unwrap();
    }
    keyspace.flush().unwrap();
    keyspace.compact_range(..key(600)).unwrap();
    let stats = keyspace.stats();
    let bottom = level(&keyspace);
    assert!(bottom.entries < 2000 && bottom.tombstones == 0, "the removed rows are gone: {stats}");
    assert_eq!(keyspace.iter().count(), 1500);
    keyspace.compact().unwrap();
    let stats = keyspace.stats();
    assert_eq!((stats.levels.len(), level(&keyspace).runs, level(&keyspace).entries), (1, 1, 1500), "{stats}");
    assert_eq!(keyspace.get(key(1999)).unwrap().unwrap(), b"again");
    // An inverted or empty range does nothing harmful.
    keyspace.compact_range("b".."a").unwrap();
    assert_eq!(keyspace.iter().count(), 1500);
}

/// R5: a large value from a mapped table is lent in place; it stays readable when its table is long gone.
#[test]
fn a_pinned_value_outlives_its_table() {
    let home = tempfile::tempdir().unwrap();
    // Segments so long that no value is a large batch by itself.
    let database = real(home.path()).log_segment_bytes(1 << 20).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    let large = |byte: u8, bytes: usize| -> Vec<u8> { (0..bytes).map(|at| byte.wrapping_add(at as u8)).collect() };
    let sizes = [4096, 5000, 60_000, 70_000, 200_000];
    for (number, bytes) in (0..).zip(sizes) {
        keyspace.insert(key(number), large(number as u8, bytes)).unwrap();
    }
    keyspace.flush().unwrap();
    let tables =
        || -> Vec<_> { std::fs::read_dir(home.path().join("tables")).unwrap().map(|e| e.unwrap().path()).collect() };
    let old = tables();
    assert_eq!(old.len(), 1);
    let pinned: Vec<Slice> = (0..).zip(sizes).map(|(number, _)| keyspace.get(key(number)).unwrap().unwrap()).collect();
    let copies = pinned.clone();
    for number in 0..5 {
        keyspace.insert(key(number), "small").unwrap();
    }
    keyspace.compact().unwrap();
    while database.run_one_job().unwrap() {}
    assert!(tables().iter().all(|path| !old.contains(path)), "the old table's file is removed: {:?}", tables());
    drop((keyspace, database, pinned));
    let checked = std::thread::spawn(move || {
        for ((number, bytes), value) in (0..).zip(sizes).zip(&copies) {
            assert!(*value == large(number as u8, bytes), "value {number}");
        }
    });
    checked.join().unwrap();
}

/// Both keyspaces of a batch, as they were before it or after it and nothing else; whether it was after.
fn whole_or_not_at_all(database: &Database, rows_before: usize, rows_after: usize, what: &str) -> bool {
    let counts = ["left", "right"].map(|name| keyspace(database, name).iter().count());
    match counts {
        [left, right] if [left, right] == [rows_before; 2] => false,
        [left, right] if [left, right] == [rows_after; 2] => true,
        _ => panic!("{what}: a part of the batch is there: {counts:?}"),
    }
}

/// P11: a batch across keyspaces is whole or not there, at every event at which the process or the power can fail; small
/// ones in the log, and large ones as tables.
#[test]
fn a_batch_is_atomic_across_keyspaces_at_every_crash() {
    for large in [false, true] {
        let simulation = Simulation::new(1);
        let open = |simulation: &Simulation| {
            let opened = builder(simulation).large_batch_bytes(if large { 64 } else { 4096 }).open();
            opened.unwrap()
        };
        let database = open(&simulation);
        let keyspaces = ["left", "right"].map(|name| database.create_keyspace(name, small()).unwrap());
        for keyspace in &keyspaces {
            keyspace.with_durability(Durability::Synced).insert("before", "1").unwrap();
        }
        let mut batch = database.batch().with_durability(Durability::Synced);
        for number in 0..30 {
            for keyspace in &keyspaces {
                batch.insert(keyspace, key(number), value(number)).unwrap();
            }
        }
        let began = simulation.files.event_count();
        database.write(&batch).unwrap();
        let committed = simulation.files.event_count();
        database.flush().unwrap();
        let ended = simulation.files.event_count();
        let mut met = BTreeSet::new();
        for event in began..=ended {
            for (crash, seed) in [(Crash::Kill, 0), (Crash::PowerCut, 2 * event), (Crash::PowerCut, 2 * event + 1)] {
                let crashed = Simulation::with_files(simulation.files.crash_image_at(event, crash, seed), seed);
                let what = format!("large {large}, {crash:?} after event {event}, seed {seed}");
                let database = open(&crashed);
                let there = whole_or_not_at_all(&database, 1, 31, &what);
                assert!(there || event < committed, "{what}: an acknowledged batch is lost");
                met.insert(there);
                // It stays so.
                drop(database);
                if event % 4 == 0 {
                    assert_eq!(whole_or_not_at_all(&open(&crashed), 1, 31, &what), there, "{what}, reopened");
                }
            }
        }
        assert_eq!(met.len(), 2, "crashes before and after the commit were met");
    }
}

/// P5: a flush of one keyspace syncs the log first: no table holds half of a batch whose other half can be lost.
#[test]
fn a_flush_makes_no_half_of_a_batch_durable() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspaces = ["left", "right"].map(|name| database.create_keyspace(name, small()).unwrap());
    let mut batch = database.batch();
    for number in 0..30 {
        for keyspace in &keyspaces {
            batch.insert(keyspace, key(number), value(number)).unwrap();
        }
    }
    database.write(&batch).unwrap();
    let began = simulation.files.event_count();
    keyspaces[0].flush().unwrap();
    for event in began..=simulation.files.event_count() {
        for seed in 0..8 {
            let image = simulation.files.crash_image_at(event, Crash::PowerCut, seed);
            let database = builder(&Simulation::with_files(image, seed)).open().unwrap();
            whole_or_not_at_all(&database, 0, 30, &format!("power cut after event {event}, seed {seed}"));
        }
    }
}

/// P3: no reader sees a part of a batch, through a snapshot or an iterator, while writers write.
#[test]
fn no_reader_sees_a_part_of_a_batch() {
    let home = tempfile::tempdir().unwrap();
    let database = Database::builder(home.path()).background_threads(2).large_batch_bytes(2048).open().unwrap();
    let keyspaces = ["left", "right"].map(|name| database.create_keyspace(name, small()).unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (database, keyspaces, done) = (database.clone(), keyspaces.clone(), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut looks = 0;
                // Relaxed: only says when to stop.
                while !done.load(Ordering::Relaxed) || looks == 0 {
                    let snapshot = database.snapshot().unwrap();
                    let seen: Vec<Vec<Row>> = keyspaces.iter().map(|keyspace| rows(snapshot.iter(keyspace))).collect();
                    assert!(seen[0] == seen[1], "a part of a batch is visible");
                    let values: BTreeSet<Vec<u8>> =
                        rows(keyspaces[0].iter()).into_iter().map(|(_, value)| value).collect();
                    assert!(values.len() <= 1, "an iterator sees a part of a batch");
                    looks += 1;
                }
            })
        })
        .collect();
    let mut batch = database.batch();
    for round in 0..300_u32 {
        batch.clear();
        // Every tenth is large.
        let bytes = if round % 10 == 0 { 200 } else { 4 };
        for number in 0..10 {
            for keyspace in &keyspaces {
                batch.insert(keyspace, key(number), round.to_be_bytes().repeat(bytes / 4)).unwrap();
            }
        }
        database.write(&batch).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// P1: within a batch the last write of a key wins, in memtables, in the tables of large batches, and after replay.
#[test]
fn the_last_write_of_a_batch_wins() {
    let expected = put(&[("b", "2"), ("c", "4"), ("d", "1")]);
    for large in [false, true] {
        let simulation = Simulation::new(1);
        let open = |simulation: &Simulation| {
            builder(simulation).large_batch_bytes(if large { 64 } else { 4096 }).open().unwrap()
        };
        let database = open(&simulation);
        let keyspace = database.create_keyspace("a", small()).unwrap();
        keyspace.insert("a", "old").unwrap();
        let mut batch = database.batch();
        batch.insert(&keyspace, "a", "1").unwrap();
        batch.remove(&keyspace, "a").unwrap();
        batch.insert(&keyspace, "b", "1").unwrap();
        batch.remove(&keyspace, "b").unwrap();
        batch.insert(&keyspace, "b", "2").unwrap();
        for number in 0..5 {
            batch.insert(&keyspace, "c", number.to_string()).unwrap();
        }
        batch.insert(&keyspace, "d", "1").unwrap();
        assert_eq!(batch.len(), 11);
        database.write(&batch).unwrap();
        assert_eq!(rows(keyspace.iter()), expected, "large {large}");
        let crashed = killed(&simulation.files, 1);
        assert_eq!(rows(common::keyspace(&open(&crashed), "a").iter()), expected, "large {large}, replayed");
        keyspace.compact().unwrap();
        assert_eq!(rows(keyspace.iter()), expected, "large {large}, compacted");
        assert!(keyspace.get("a").unwrap().is_none());
        assert_eq!(keyspace.get("c").unwrap().unwrap(), b"4");
        // A batch can be committed again: it says the same once more.
        keyspace.clear().unwrap();
        database.write(&batch).unwrap();
        assert_eq!(rows(keyspace.iter()), expected, "large {large}, once more");
    }
}

/// P8: a large batch whose tables cannot be written changes nothing, leaves no file, and can be written later.
#[test]
fn a_large_batch_on_a_full_disk_changes_nothing() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).large_batch_bytes(64).open().unwrap();
    let keyspaces = ["left", "right"].map(|name| database.create_keyspace(name, small()).unwrap());
    let mut batch = database.batch();
    for number in 0..30 {
        for keyspace in &keyspaces {
            batch.insert(keyspace, key(number), value(number)).unwrap();
        }
    }
    let tables = || simulation.files.read_dir(&Path::new(DB).join("tables")).unwrap();
    // The first table succeeds, the second does not.
    let fault = Fault::on(FileOperation::Create).path_contains("tables").from_nth(2).effect(FaultEffect::NoSpace);
    let fault = simulation.files.inject(fault);
    let error = database.write(&batch).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(tables().is_empty(), "{:?}", tables());
    assert!(!whole_or_not_at_all(&database, 0, 30, "refused"));
    simulation.files.remove_fault(fault);
    database.write(&batch).unwrap();
    assert!(whole_or_not_at_all(&database, 0, 30, "written"));
}
