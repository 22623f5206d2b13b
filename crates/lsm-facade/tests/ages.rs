//! FIFO: what is past its age, or the size of the keyspace, goes, whole, also after a reopen, and nothing else does.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{DB, builder, killed, small};
use file_system::{Crash, FileSystem, Simulation};
use lsm_facade::{Database, Keyspace, KeyspaceOptions, Strategy};

const MINUTE: Duration = Duration::from_secs(60);

fn options() -> KeyspaceOptions {
    small().strategy(Strategy::Fifo).fifo_age_max(Some(60 * MINUTE))
}

fn open(simulation: &Simulation) -> (Database, Keyspace) {
    let database = builder(simulation).large_batch_bytes(1 << 10).compact_when_idle_after(None).open().unwrap();
    let keyspace = database.open_keyspace("a").or_else(|_| database.create_keyspace("a", options())).unwrap();
    (database, keyspace)
}

fn put(keyspace: &Keyspace, name: &str) {
    keyspace.insert(name, name).unwrap();
    keyspace.flush().unwrap();
}

fn settle(database: &Database) {
    while database.run_one_job().unwrap() {}
}

/// The keys that are left.
fn keys(keyspace: &Keyspace) -> Vec<String> {
    keyspace.iter().map(|row| String::from_utf8(row.unwrap().0.to_vec()).unwrap()).collect()
}

/// C1: each table goes when its newest row is past the age, also if the database was closed or killed since; at last the
/// newest goes too.
#[test]
fn what_is_past_its_age_goes_also_after_a_reopen() {
    let simulation = Simulation::new(1);
    let (database, keyspace) = open(&simulation);
    put(&keyspace, "0");
    simulation.clock.advance(20 * MINUTE);
    put(&keyspace, "20");
    simulation.clock.advance(20 * MINUTE);
    // A batch that becomes a table of its own.
    let mut batch = database.batch();
    batch.insert(&keyspace, "40", "40".repeat(1000)).unwrap();
    database.write(&batch).unwrap();
    keyspace.flush().unwrap();
    simulation.clock.advance(19 * MINUTE);
    settle(&database);
    assert_eq!(keys(&keyspace), ["0", "20", "40"], "59 minutes");
    simulation.clock.advance(2 * MINUTE);
    settle(&database);
    assert_eq!(keys(&keyspace), ["20", "40"], "61 minutes");
    database.close().unwrap();
    drop((database, keyspace));
    // The world goes on while the database is closed.
    simulation.clock.advance(20 * MINUTE);
    let (database, keyspace) = open(&simulation);
    settle(&database);
    assert_eq!(keys(&keyspace), ["40"], "81 minutes");
    // It is killed while a batch stands in the log alone.
    let mut batch = database.batch();
    batch.insert(&keyspace, "81", "81".repeat(1000)).unwrap();
    database.write(&batch).unwrap();
    let after = killed(&simulation.files, 1);
    after.clock.set_unix_time(file_system::Clock::unix_time(&*simulation.clock) + 20 * MINUTE);
    let (database, keyspace) = open(&after);
    keyspace.flush().unwrap();
    settle(&database);
    assert_eq!(
        keys(&keyspace),
        ["81"],
        "101 minutes; its age is counted anew, as if it had been written at the opening"
    );
    after.clock.advance(61 * MINUTE);
    settle(&database);
    assert!(keyspace.stats().levels.is_empty(), "{}", keyspace.stats());
}

/// C1: a merge makes no row younger. Tables of one eighth of the age, here seven and a half minutes, are merged, late, and go as
/// if they had not been.
#[test]
fn a_merge_makes_nothing_younger() {
    let simulation = Simulation::new(1);
    let (database, keyspace) = open(&simulation);
    for name in ["0", "1", "2"] {
        // In each of them, so that they overlap: else they would be put beside each other as they are.
        keyspace.insert("all", name).unwrap();
        put(&keyspace, name);
        simulation.clock.advance(MINUTE);
    }
    simulation.clock.advance(50 * MINUTE);
    put(&keyspace, "53");
    settle(&database);
    assert_eq!(keyspace.stats().levels[0].runs, 2, "three became one: {}", keyspace.stats());
    simulation.clock.advance(8 * MINUTE);
    settle(&database);
    assert_eq!(keys(&keyspace), ["0", "1", "2", "53", "all"], "61 minutes: the newest of them is 59 minutes old");
    simulation.clock.advance(2 * MINUTE);
    settle(&database);
    assert_eq!(keys(&keyspace), ["53"], "63 minutes");
}

/// C4: a crash while tables go for their age leaves all of their rows or none, and every other row.
#[test]
fn a_crash_leaves_what_goes_for_its_age_whole_or_takes_it_whole() {
    let simulation = Simulation::new(1);
    let (database, keyspace) = open(&simulation);
    put(&keyspace, "0");
    put(&keyspace, "00");
    simulation.clock.advance(40 * MINUTE);
    put(&keyspace, "40");
    settle(&database);
    simulation.clock.advance(30 * MINUTE);
    let before = simulation.files.event_count();
    settle(&database);
    assert_eq!(keys(&keyspace), ["40"]);
    let after = simulation.files.event_count();
    assert!(after > before + 2);
    let mut outcomes = [0; 2];
    for event in before..=after {
        for crash in [Crash::Kill, Crash::PowerCut] {
            let world = Simulation::with_files(simulation.files.crash_image_at(event, crash, event), event);
            // Before the age, so that opening drops nothing itself.
            let database = Database::builder(DB).environment(world.environment()).background_threads(0).open().unwrap();
            let keyspace = database.open_keyspace("a").unwrap();
            match &keys(&keyspace).iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["0", "00", "40"] => outcomes[0] += 1,
                ["40"] => outcomes[1] += 1,
                other => panic!("{crash:?} at event {event}: {other:?}"),
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// C4: a crash while tables go for the size of the keyspace leaves all of their rows or none, and every other row; what is left
/// to drop is dropped by whoever opens it next.
#[test]
fn a_crash_leaves_what_goes_for_the_size_whole_or_takes_it_whole() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).compact_when_idle_after(None).open().unwrap();
    // Room for the first two, or for the last.
    let options = small().strategy(Strategy::Fifo).fifo_bytes_max(6000);
    let keyspace = database.create_keyspace("a", options).unwrap();
    for (name, bytes) in [("0", 2000), ("00", 2000), ("1", 4000)] {
        settle(&database);
        keyspace.insert(name, vec![b'v'; bytes]).unwrap();
        keyspace.flush().unwrap();
    }
    let before = simulation.files.event_count();
    assert_eq!(keys(&keyspace), ["0", "00", "1"]);
    settle(&database);
    assert_eq!(keys(&keyspace), ["1"]);
    let after = simulation.files.event_count();
    assert!(after > before + 2);
    let mut outcomes = [0; 2];
    for event in before..=after {
        for crash in [Crash::Kill, Crash::PowerCut] {
            let world = Simulation::with_files(simulation.files.crash_image_at(event, crash, event), event);
            let database = Database::builder(DB).environment(world.environment()).background_threads(0).open().unwrap();
            let keyspace = database.open_keyspace("a").unwrap();
            match &keys(&keyspace).iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["0", "00", "1"] => outcomes[0] += 1,
                ["1"] => outcomes[1] += 1,
                other => panic!("{crash:?} at event {event}: {other:?}"),
            }
            settle(&database);
            assert_eq!(keys(&keyspace), ["1"], "{crash:?} at event {event}");
            let tables = world.files.read_dir(Path::new(DB).join("tables").as_path()).unwrap();
            assert_eq!(tables.len(), 1, "R5: {crash:?} at event {event}: {tables:?}");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

/// P9: on threads it happens at its time, though nobody writes and nobody waits.
#[test]
fn on_threads_the_time_itself_is_a_reason_to_look() {
    let dir = tempfile::tempdir().unwrap();
    let builder = Database::builder(dir.path()).background_threads(2).compact_when_idle_after(None);
    let database = builder.open().unwrap();
    let age = Some(Duration::from_millis(100));
    let keyspace = database.create_keyspace("a", options().fifo_age_max(age)).unwrap();
    put(&keyspace, "0");
    let begun = Instant::now();
    while !keyspace.stats().levels.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", keyspace.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(keys(&keyspace).is_empty());
}
