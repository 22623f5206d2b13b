//! What must hold when calls meet at an unlucky moment: each test makes one such moment happen, or tries it very often.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use file_system::{Crash, Fault, FaultEffect, FileOperation, Simulation};
use lsm_facade::{Database, DatabaseBuilder, Durability, Error, Health, KeyspaceOptions};
use manifest::{ManifestOptions, ManifestStore, OpenMode};

/// Ends the process if it is not dropped in time: a hang becomes a failure that says where (P9).
struct Watchdog {
    _done: SyncSender<()>,
}

impl Watchdog {
    fn new(test: &'static str) -> Self {
        let (done, wait) = sync_channel(0);
        thread::spawn(move || {
            if wait.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                // Not by a macro, whose output the harness would keep to itself.
                let _ = writeln!(std::io::stderr(), "P9: {test} did not end");
                std::process::abort();
            }
        });
        Self { _done: done }
    }
}

fn small() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_bytes(4 << 10)
        .write_buffer_bytes(8 << 10)
        .block_bytes(512)
        .table_bytes(8 << 10)
        .level_zero_runs_max(3)
        .level_base_bytes(32 << 10)
}

fn builder(simulation: &Simulation, threads: usize) -> DatabaseBuilder {
    Database::builder("/db")
        .environment(simulation.environment())
        .background_threads(threads)
        .log_segment_bytes(16 << 10)
        .log_bytes_max(64 << 10)
}

fn keys(keyspace: &lsm_facade::Keyspace) -> Vec<String> {
    keyspace.iter().map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap()).collect()
}

/// P4, P9: five hundred writes come through while a flush runs, which is held up until the last of them has returned: none
/// waits for it, though the log fills one segment after the other meanwhile, and none is lost.
#[test]
fn five_hundred_writes_during_a_flush_are_neither_blocked_nor_lost() {
    let _watchdog = Watchdog::new("five_hundred_writes_during_a_flush_are_neither_blocked_nor_lost");
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 1).open().unwrap();
    // Two memtables' worth of writes, so that sealing does not wait for the flush either.
    let options = KeyspaceOptions::default().memtable_bytes(32 << 10);
    let keyspace = database.create_keyspace("a", options).unwrap();
    let key = |number: usize| format!("{number:04}");
    let value = |number: usize| format!("{number}").repeat(30);
    for number in 0..100 {
        keyspace.insert(key(number), value(number)).unwrap();
    }
    let is_all_there = |keyspace: &lsm_facade::Keyspace, count: usize| {
        assert_eq!(keys(keyspace), (0..count).map(key).collect::<Vec<_>>());
        for number in 0..count {
            assert_eq!(keyspace.get(key(number)).unwrap().unwrap(), value(number).as_bytes());
        }
    };
    let before = database.stats();
    let held = simulation.files.hold_up(FileOperation::Create, "/tables");
    thread::scope(|scope| {
        let flushing = scope.spawn(|| keyspace.flush());
        assert!(held.wait_until_reached(Duration::from_secs(60)), "no flush has begun");
        thread::scope(|scope| {
            for writer in 0..5 {
                let keyspace = &keyspace;
                scope.spawn(move || {
                    for number in (100 + writer..600).step_by(5) {
                        keyspace.insert(key(number), value(number)).unwrap();
                        assert_eq!(keyspace.get(key(number)).unwrap().unwrap(), value(number).as_bytes());
                    }
                });
            }
        });
        let during = database.stats();
        assert!(!flushing.is_finished());
        assert_eq!(during.flushes, before.flushes, "the flush is still held up");
        assert_eq!(during.commits - before.commits, 500);
        assert_eq!((during.stalls, during.delays, during.waited_ns), (0, 0, 0));
        assert!(during.log_bytes >= before.log_bytes + (32 << 10), "the log grew by segments: {}", during.log_bytes);
        assert!(during.keyspaces[0].sealed > before.keyspaces[0].sealed + 1, "memtables were sealed");
        is_all_there(&keyspace, 600);
        drop(held);
        flushing.join().unwrap().unwrap();
    });
    assert!(database.stats().flushes > before.flushes);
    is_all_there(&keyspace, 600);
    for crash in [Crash::Kill, Crash::PowerCut] {
        let image = Simulation::with_files(simulation.files.crash_image(crash, 1), 1);
        let database = builder(&image, 0).open().unwrap();
        // A power cut may take writes that nobody synced, but none that stood in the table.
        let kept = keys(&database.open_keyspace("a").unwrap()).len();
        assert!(kept == 600 || (crash == Crash::PowerCut && kept >= 100), "{crash:?}: {kept}");
    }
    keyspace.flush().unwrap();
    keyspace.compact().unwrap();
    is_all_there(&keyspace, 600);
    drop((keyspace, database));
    let database = builder(&simulation, 0).open().unwrap();
    is_all_there(&database.open_keyspace("a").unwrap(), 600);
}

/// P9: two threads that compact the same keyspace both return, and so does one that waits until nothing is left to do, with
/// nothing else going on that could wake them.
#[test]
fn compactions_of_two_callers_both_return() {
    let _watchdog = Watchdog::new("compactions_of_two_callers_both_return");
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 1).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    for round in 0..60 {
        for number in 0..100 {
            keyspace.insert(format!("{number:03}"), format!("{round}").repeat(30)).unwrap();
        }
        database.wait_until_idle().unwrap();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    keyspace.compact().unwrap();
                });
            }
            start.wait();
            database.wait_until_idle().unwrap();
        });
    }
}

/// P9: callers who flush the same keyspace at the same time all return.
#[test]
fn flushes_of_many_callers_all_return() {
    let _watchdog = Watchdog::new("flushes_of_many_callers_all_return");
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 2).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    thread::scope(|scope| {
        for caller in 0..4 {
            let keyspace = &keyspace;
            scope.spawn(move || {
                for step in 0..200 {
                    keyspace.insert(format!("{caller} {step}"), "").unwrap();
                    keyspace.flush().unwrap();
                }
            });
        }
    });
}

/// P8, P9: whoever waits for background work of a database that fails is told so; nobody sleeps on.
#[test]
fn a_flush_of_a_failed_database_says_so() {
    let _watchdog = Watchdog::new("a_flush_of_a_failed_database_says_so");
    for threads in [0, 1, 2] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, threads).open().unwrap();
        let keyspace = database.create_keyspace("a", small()).unwrap();
        keyspace.insert("key", "value").unwrap();
        database.wait_until_idle().unwrap();
        simulation.files.inject(Fault::on(FileOperation::Sync).path_ends_with(".wal"));
        let failed = keyspace.with_durability(Durability::Synced).insert("lost", "perhaps");
        assert!(matches!(failed, Err(Error::Failed { .. })), "{failed:?}");
        for outcome in [keyspace.flush(), keyspace.compact(), database.wait_until_idle()] {
            assert!(matches!(outcome, Err(Error::Failed { .. })), "{threads} threads: {outcome:?}");
        }
        assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value");
    }
}

/// P9: a flush that fails concerns those who wait for its keyspace; another keyspace's flush goes on and succeeds.
#[test]
fn the_failure_of_one_keyspace_is_not_anothers() {
    let _watchdog = Watchdog::new("the_failure_of_one_keyspace_is_not_anothers");
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 0).open().unwrap();
    let failing = database.create_keyspace("a", small()).unwrap();
    let other = database.create_keyspace("b", small()).unwrap();
    // The other is flushed now, so that the next turn is the older one's. That gets no more than makes its flush due: a
    // writer who is delayed would run it.
    other.insert("key", "value").unwrap();
    other.flush().unwrap();
    database.wait_until_idle().unwrap();
    other.insert("key", "again").unwrap();
    let mut number = 0;
    while database.stats().keyspaces[0].sealed == 0 {
        failing.insert(format!("{number:04}"), "x".repeat(300)).unwrap();
        number += 1;
    }
    simulation.files.inject(Fault::on(FileOperation::Create).path_contains("/tables/.tmp-").nth(1));
    other.flush().unwrap();
    assert!(database.stats().keyspaces[0].sealed > 0, "the other's flush was tried first, and failed");
    assert!(matches!(database.health(), Health::Degraded { cause: Error::Io { .. } }), "{}", database.health());
    assert_eq!(database.stats().failed_jobs, 1);
    // Whoever asks again has it tried again.
    failing.flush().unwrap();
    database.wait_until_idle().unwrap();
    assert!(matches!(database.health(), Health::Well), "{}", database.health());

    // It does reach those who wait for its keyspace, and those who wait for all.
    failing.insert("more", "").unwrap();
    let fault = simulation.files.inject(Fault::on(FileOperation::Create).path_contains("/tables/.tmp-"));
    assert!(matches!(failing.flush(), Err(Error::Io { .. })));
    assert!(matches!(database.wait_until_idle(), Err(Error::Io { .. })));
    simulation.files.remove_fault(fault);
    database.wait_until_idle().unwrap();
}

/// P12: a clear and a drop that stand in the log have their effect, so they succeed, though the disk has no room for the
/// manifest's edit; the background completes them when there is room again.
#[test]
fn clears_and_drops_on_a_full_disk_succeed_and_are_completed_later() {
    let _watchdog = Watchdog::new("clears_and_drops_on_a_full_disk_succeed_and_are_completed_later");
    for threads in [0, 1, 2] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, threads).open().unwrap();
        let cleared = database.create_keyspace("cleared", small()).unwrap();
        let dropped = database.create_keyspace("dropped", small()).unwrap();
        for keyspace in [&cleared, &dropped] {
            keyspace.insert("old", "").unwrap();
            keyspace.flush().unwrap();
        }
        database.wait_until_idle().unwrap();
        let no_room = Fault::on(FileOperation::Create).path_contains("/db/.tmp-").effect(FaultEffect::NoSpace);
        simulation.files.inject(no_room);
        cleared.clear().unwrap();
        database.drop_keyspace("dropped").unwrap();
        assert!(matches!(database.drop_keyspace("dropped"), Err(Error::NoSuchKeyspace { .. })));
        assert!(matches!(dropped.insert("new", ""), Err(Error::KeyspaceDropped { .. })));
        assert!(cleared.is_empty().unwrap());
        assert_eq!(database.list_keyspaces(), ["cleared"]);
        assert!(
            matches!(database.health(), Health::Degraded { cause: Error::DiskFull { .. } }),
            "{}",
            database.health()
        );
        assert!(matches!(database.wait_until_idle(), Err(Error::DiskFull { .. })));
        for crash in [Crash::Kill, Crash::PowerCut] {
            let image = Simulation::with_files(simulation.files.crash_image(crash, 1), 1);
            let database = builder(&image, 0).open().unwrap();
            assert_eq!(database.list_keyspaces(), ["cleared"], "{crash:?}");
            assert!(database.open_keyspace("cleared").unwrap().is_empty().unwrap(), "{crash:?}");
        }
        simulation.files.clear_faults();
        database.wait_until_idle().unwrap();
        assert!(matches!(database.health(), Health::Well), "{}", database.health());
        drop((cleared, dropped, database));
        let manifest =
            ManifestStore::open(&simulation.environment(), "/db", OpenMode::ReadOnly, ManifestOptions::default());
        let manifest = manifest.unwrap().current();
        assert!(manifest.keyspace_named("dropped").is_none());
        assert_eq!(manifest.keyspace_named("cleared").unwrap().tables().count(), 0);
    }
}

/// P12: what a clear removed stays away, also when its manifest edit failed and later writes were flushed over it.
#[test]
fn cleared_rows_stay_away_though_the_edit_failed() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 0).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    keyspace.insert("old", "").unwrap();
    keyspace.flush().unwrap();
    let fault = simulation.files.inject(Fault::on_anything().path_contains("/db/.tmp-"));
    keyspace.clear().unwrap();
    simulation.files.remove_fault(fault);
    keyspace.insert("new", "").unwrap();
    keyspace.flush().unwrap();
    assert_eq!(keys(&keyspace), ["new"]);
    for crash in [Crash::Kill, Crash::PowerCut] {
        let image = Simulation::with_files(simulation.files.crash_image(crash, 1), 1);
        let database = builder(&image, 0).open().unwrap();
        assert_eq!(keys(&database.open_keyspace("a").unwrap()), ["new"], "{crash:?}");
    }
}

/// P12: a drop whose manifest edit failed is done by the next opening, also when the log moved on meanwhile.
#[test]
fn a_dropped_keyspace_stays_away_though_the_edit_failed() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 0).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    let other = database.create_keyspace("other", small()).unwrap();
    keyspace.insert("old", "").unwrap();
    keyspace.flush().unwrap();
    let fault = simulation.files.inject(Fault::on_anything().path_contains("/db/.tmp-"));
    database.drop_keyspace("a").unwrap();
    simulation.files.remove_fault(fault);
    drop(keyspace);
    for number in 0..1000 {
        other.insert(format!("{number:04}"), "x".repeat(50)).unwrap();
    }
    other.flush().unwrap();
    while database.run_one_job().unwrap() {}
    for crash in [Crash::Kill, Crash::PowerCut] {
        let image = Simulation::with_files(simulation.files.crash_image(crash, 1), 1);
        let database = builder(&image, 0).open().unwrap();
        assert_eq!(database.list_keyspaces(), ["other"], "{crash:?}");
        assert_eq!(keys(&database.open_keyspace("other").unwrap()).len(), 1000);
    }
}

/// R5: the table of a large batch stays as long as the log may be replayed over it, also when the batch was cleared.
#[test]
fn a_cleared_large_batch_keeps_its_table_until_the_clear_is_in_the_manifest() {
    for drops in [false, true] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, 0).large_batch_bytes(100).open().unwrap();
        let keyspace = database.create_keyspace("a", small()).unwrap();
        keyspace.insert("large", "x".repeat(500)).unwrap();
        simulation.files.inject(Fault::on_anything().path_contains("/db/.tmp-"));
        let outcome = if drops { database.drop_keyspace("a") } else { keyspace.clear() };
        outcome.unwrap();
        drop(keyspace);
        // Everything that can be done while the manifest cannot be told.
        while !matches!(database.run_one_job(), Err(Error::Io { .. })) {}
        for crash in [Crash::Kill, Crash::PowerCut] {
            let image = Simulation::with_files(simulation.files.crash_image(crash, 1), 1);
            let database = builder(&image, 0).open().unwrap();
            match database.open_keyspace("a") {
                Ok(keyspace) => assert!(!drops && keys(&keyspace).is_empty()),
                Err(error) => assert!(drops && matches!(error, Error::NoSuchKeyspace { .. }), "{error}"),
            }
        }
    }
}

/// A closed database lets go of everything it held, once its handles are gone.
#[test]
fn a_closed_database_frees_what_it_held() {
    for threads in [0, 2] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, threads).open().unwrap();
        let keyspace = database.create_keyspace("a", small()).unwrap();
        keyspace.insert("key", "value").unwrap();
        keyspace.flush().unwrap();
        drop((keyspace, database));
        assert_eq!(Arc::strong_count(&simulation.files), 1, "{threads} threads: somebody still holds the file system");
    }
}

/// P9: whoever closes finds the database closed afterwards, also if somebody else began to close it before.
#[test]
fn every_closer_waits_until_it_is_closed() {
    let _watchdog = Watchdog::new("every_closer_waits_until_it_is_closed");
    for _ in 0..50 {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, 2).open().unwrap();
        let keyspace = database.create_keyspace("a", small()).unwrap();
        keyspace.insert("key", "value").unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    database.close().unwrap();
                    match builder(&simulation, 0).open() {
                        // The other one has opened it again already.
                        Err(error @ Error::Locked { .. }) => assert!(!format!("{error}").is_empty()),
                        opened => drop(opened.unwrap()),
                    }
                });
            }
        });
        builder(&simulation, 0).open().unwrap();
    }
}

/// P9: a caller who compacts is answered when what was there at the call is compacted, though others write and compact on
/// and on, so that something is always above the last level and something always runs.
#[test]
fn a_compaction_ends_although_writing_and_compacting_go_on() {
    let _watchdog = Watchdog::new("a_compaction_ends_although_writing_and_compacting_go_on");
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 2).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    let calls = AtomicU64::new(0);
    thread::scope(|scope| {
        for writer in 0..2 {
            let (keyspace, calls) = (&keyspace, &calls);
            scope.spawn(move || {
                // Something is written however soon the calls return.
                for number in (0..).take_while(|number| *number < 200 || calls.load(Ordering::Relaxed) < 40) {
                    keyspace.insert(format!("{writer} {:03}", number % 500), "x".repeat(100)).unwrap();
                }
            });
        }
        for _ in 0..8 {
            scope.spawn(|| {
                while calls.fetch_add(1, Ordering::Relaxed) < 40 {
                    keyspace.compact().unwrap();
                }
            });
        }
    });
    keyspace.compact().unwrap();
    let stats = database.stats();
    let levels: Vec<u8> = stats.keyspaces[0].levels.iter().map(|level| level.level).collect();
    assert_eq!(levels, [6], "what is quiet is compacted to one level: {stats}");
}

/// P9: keyspaces in which a job is always due keep no other waiting: each has its turn.
#[test]
fn busy_keyspaces_leave_the_others_their_turn() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation, 0).open().unwrap();
    let busy = ["a", "b"].map(|name| database.create_keyspace(name, small()).unwrap());
    let last = database.create_keyspace("c", small()).unwrap();
    // A flush is due from half of the write buffer on, and nobody is slowed down before all of it is full.
    let fill = |keyspace: &lsm_facade::Keyspace| {
        for number in 0..12 {
            keyspace.insert(format!("{number:02}"), "x".repeat(700)).unwrap();
        }
    };
    fill(&last);
    let sealed = |name: &str| database.stats().keyspaces.iter().find(|it| it.name == name).unwrap().sealed;
    assert!(sealed("c") > 0);
    let mut jobs = 0;
    while sealed("c") > 0 {
        busy.iter().for_each(fill);
        assert!(database.run_one_job().unwrap());
        jobs += 1;
        assert!(jobs < 50, "fifty jobs and no turn for the last keyspace");
    }
}

/// The most that the log may have, whatever keeps it: twice the limit and the segment that was being filled.
const LOG_BYTES_MOST: u64 = 2 * LOG_BYTES_MAX + (16 << 10);
const LOG_BYTES_MAX: u64 = 256 << 10;

/// Memtables that are not full for a long time: what is in them stays in the log.
fn patient() -> KeyspaceOptions {
    KeyspaceOptions::default().memtable_bytes(4 << 20).write_buffer_bytes(4 << 20)
}

/// L5, P10: however many keyspaces keep old segments, the log does not grow past its bound while another is written to: they
/// are flushed, and until they are the writer waits.
#[test]
fn hundreds_of_idle_keyspaces_do_not_keep_the_log() {
    let _watchdog = Watchdog::new("hundreds_of_idle_keyspaces_do_not_keep_the_log");
    for threads in [0, 2] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, threads).log_bytes_max(LOG_BYTES_MAX).open().unwrap();
        let busy = database.create_keyspace("busy", small()).unwrap();
        let suspended = database.suspend_background().unwrap();
        // Each keeps a part of the first 200 KiB.
        let idle: Vec<_> = (0..200_u32)
            .map(|number| {
                let keyspace = database.create_keyspace(&format!("idle-{number}"), small()).unwrap();
                keyspace.insert("key", [7; 900]).unwrap();
                keyspace
            })
            .collect();
        drop(suspended);
        let mut most = 0;
        for number in 0..1500_u32 {
            busy.insert(number.to_be_bytes(), [0; 1000]).unwrap();
            if number % 8 == 0 {
                most = most.max(database.stats().log_bytes);
            }
        }
        // Workers may be so fast that nobody sees it.
        assert!(threads > 0 || most > LOG_BYTES_MAX, "the limit was met");
        assert!(most <= LOG_BYTES_MOST, "{threads} threads: {most} bytes of log, with a limit of {LOG_BYTES_MAX}");
        database.wait_until_idle().unwrap();
        let bytes = database.stats().log_bytes;
        assert!(bytes <= LOG_BYTES_MAX, "{threads} threads: {bytes} bytes of log are left");
        assert!(idle.iter().all(|keyspace| keyspace.get("key").unwrap().as_deref() == Some(&[7; 900])));
        assert_eq!(busy.iter().count(), 1500);
    }
}

/// P9, P10: a writer at the bound of the log is told why it cannot become shorter, and goes on when it can: jobs are suspended, or
/// the flush of a keyspace that it does not write to fails.
#[test]
fn a_writer_that_meets_a_long_log_is_told_why() {
    let _watchdog = Watchdog::new("a_writer_that_meets_a_long_log_is_told_why");
    for threads in [0, 1] {
        let simulation = Simulation::new(2);
        let database = builder(&simulation, threads).log_bytes_max(LOG_BYTES_MAX).open().unwrap();
        let idle = database.create_keyspace("idle", patient()).unwrap();
        let busy = database.create_keyspace("busy", patient()).unwrap();
        idle.insert("key", "value").unwrap();
        let mut number = 0_u32;
        let mut write = || {
            number += 1;
            busy.insert(number.to_be_bytes(), [0; 1000])
        };
        let mut until_refused = || (0..2000).find_map(|_| write().err()).expect("there is a bound");

        let suspended = database.suspend_background().unwrap();
        let error = until_refused();
        assert!(matches!(error, Error::Suspended), "{error}");
        drop(suspended);
        let full = Fault::on(FileOperation::Create).path_contains("/tables").effect(FaultEffect::NoSpace);
        simulation.files.inject(full);
        let error = until_refused();
        assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        let stats = database.stats();
        assert!((LOG_BYTES_MAX..=LOG_BYTES_MOST).contains(&stats.log_bytes), "{stats}");
        assert!(stats.stalls_by_cause.log_bytes.count >= 2, "{:?}", stats.stalls_by_cause);
        simulation.files.clear_faults();
        write().unwrap();
        database.wait_until_idle().unwrap();
        assert!(database.stats().log_bytes <= LOG_BYTES_MAX, "{}", database.stats());
        assert_eq!(idle.get("key").unwrap().unwrap(), b"value");
    }
}

/// L5: where a clear has done away with all that the log was kept for there is nothing to flush, and the log becomes shorter
/// nevertheless.
#[test]
fn a_log_that_nobody_needs_is_given_up_without_a_flush() {
    let _watchdog = Watchdog::new("a_log_that_nobody_needs_is_given_up_without_a_flush");
    for threads in [0, 1] {
        let simulation = Simulation::new(3);
        let database = builder(&simulation, threads).log_bytes_max(LOG_BYTES_MAX).open().unwrap();
        let [cleared, other] = ["cleared", "other"].map(|name| database.create_keyspace(name, patient()).unwrap());
        let suspended = database.suspend_background().unwrap();
        let refused = (0..2000_u32).find_map(|number| cleared.insert(number.to_be_bytes(), [0; 1000]).err());
        assert!(matches!(refused, Some(Error::Suspended)), "{refused:?}");
        cleared.clear().unwrap();
        drop(suspended);
        other.insert("key", "value").unwrap();
        database.wait_until_idle().unwrap();
        let stats = database.stats();
        assert!(stats.log_bytes <= LOG_BYTES_MAX && stats.flushes == 0, "{threads} threads: {stats}");
        assert_eq!((cleared.iter().count(), other.iter().count()), (0, 1));
    }
}

/// L5: a keyspace that is not written to any more does not keep the whole log.
#[test]
fn an_idle_keyspace_does_not_keep_the_log() {
    for threads in [0, 2] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, threads).open().unwrap();
        let idle = database.create_keyspace("idle", small()).unwrap();
        let busy = database.create_keyspace("busy", small()).unwrap();
        idle.insert("key", "value").unwrap();
        for number in 0..4000 {
            busy.insert(format!("{number:04}"), "x".repeat(100)).unwrap();
        }
        database.wait_until_idle().unwrap();
        let bytes = database.stats().log_bytes;
        assert!(bytes <= 128 << 10, "{threads} threads: {bytes} bytes of log, with a limit of {}", 64 << 10);
        assert_eq!(idle.get("key").unwrap().unwrap(), b"value");
    }
}
