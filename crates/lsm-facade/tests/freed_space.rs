//! What is deleted, or kept for nobody any more, gives its place back without a call.

mod common;

use std::time::{Duration, Instant};

use common::{builder, key, rows, small};
use file_system::Simulation;
use lsm_facade::{Database, Keyspace, KeyspaceStats, Strategy};

const ROWS: u32 = 800;

fn value(number: u32, round: u32) -> String {
    format!("{round} {number:06} {}", "v".repeat(100))
}

fn table_bytes(stats: &KeyspaceStats) -> u64 {
    stats.levels.iter().map(|level| level.bytes).sum()
}

fn entries(stats: &KeyspaceStats) -> u64 {
    stats.levels.iter().map(|level| level.entries).sum()
}

fn write(keyspace: &Keyspace, round: u32) {
    for number in 0..ROWS {
        keyspace.insert(key(number), value(number, round)).unwrap();
    }
}

/// Runs jobs until there is none, and says how many there were.
fn settle(database: &Database) -> u32 {
    let mut jobs = 0;
    while database.run_one_job().unwrap() {
        jobs += 1;
        assert!(jobs < 10_000, "there is always one more job");
    }
    jobs
}

fn check(keyspace: &Keyspace, round: u32) {
    let expected = (0..ROWS).map(|number| (key(number).into_bytes(), value(number, round).into_bytes()));
    assert_eq!(rows(keyspace.iter()), expected.collect::<Vec<_>>());
}

/// Nine of ten rows are deleted, in order or all over, and nothing more is asked for: less than a quarter of the place is
/// taken, and a scan meets what lives.
#[test]
fn what_is_deleted_gives_its_place_back_when_idle() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        for stays in [|number: u32| number.is_multiple_of(10), |number: u32| number < ROWS / 10] {
            let database = builder(&Simulation::new(1)).compact_when_idle_after(Some(Duration::ZERO)).open().unwrap();
            let keyspace = database.create_keyspace("a", small().strategy(strategy)).unwrap();
            write(&keyspace, 1);
            keyspace.flush().unwrap();
            settle(&database);
            let before = table_bytes(&keyspace.stats());
            for number in (0..ROWS).filter(|number| !stays(*number)) {
                keyspace.remove(key(number)).unwrap();
            }
            keyspace.flush().unwrap();
            settle(&database);
            let stats = keyspace.stats();
            let after = table_bytes(&stats);
            assert!(after * 1000 <= before * 235, "{strategy:?}: {after} of {before} bytes\n{stats}");
            let [level] = &stats.levels[..] else { panic!("{strategy:?}: {stats}") };
            let left = u64::from(ROWS / 10);
            assert_eq!((level.runs, level.entries, level.tombstones), (1, left, 0), "{strategy:?}: {stats}");
            assert_eq!(rows(keyspace.iter()).len() as u64, left);
        }
    }
}

/// C2: also while nothing is ever idle the tombstones of a tiered keyspace go down to where they end.
#[test]
fn tombstones_of_a_tiered_keyspace_go_down_though_it_is_not_idle() {
    let database = builder(&Simulation::new(1)).compact_when_idle_after(None).open().unwrap();
    let keyspace = database.create_keyspace("a", small().strategy(Strategy::Tiered)).unwrap();
    for round in 0..3 {
        write(&keyspace, round);
    }
    settle(&database);
    let before = table_bytes(&keyspace.stats());
    for number in (0..ROWS).filter(|number| number % 20 != 0) {
        keyspace.remove(key(number)).unwrap();
    }
    keyspace.flush().unwrap();
    settle(&database);
    let stats = keyspace.stats();
    let below: u64 = stats.levels.iter().filter(|level| level.level > 0).map(|level| level.tombstones).sum();
    assert!(table_bytes(&stats) < before / 2 && below < u64::from(ROWS / 4), "{before} bytes, then {stats}");
    assert_eq!(rows(keyspace.iter()).len() as u32, ROWS / 20);
}

/// C2: what only a snapshot could see goes when it is dropped, though nothing else is to be compacted; and what others see
/// stays.
#[test]
fn what_a_snapshot_kept_goes_when_it_is_dropped() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        for deletes in [false, true] {
            let database = builder(&Simulation::new(1)).compact_when_idle_after(Some(Duration::ZERO)).open().unwrap();
            let keyspace = database.create_keyspace("a", small().strategy(strategy)).unwrap();
            write(&keyspace, 1);
            keyspace.flush().unwrap();
            settle(&database);
            let before = table_bytes(&keyspace.stats());
            let snapshot = database.snapshot().unwrap();
            if deletes {
                (0..ROWS).for_each(|number| keyspace.remove(key(number)).unwrap());
            } else {
                write(&keyspace, 2);
            }
            keyspace.flush().unwrap();
            settle(&database);
            let held = keyspace.stats();
            assert_eq!(entries(&held), 2 * u64::from(ROWS), "{held}");
            // One of the present holds nothing, and its end leads to nothing.
            drop(database.snapshot().unwrap());
            assert_eq!(settle(&database), 0, "{strategy:?}");
            let again = snapshot.clone();
            drop(snapshot);
            assert_eq!(settle(&database), 0, "{strategy:?}: one holds it still");
            assert_eq!(rows(again.iter(&keyspace)).len() as u32, ROWS);
            drop(again);
            assert!(settle(&database) > 0, "{strategy:?}");
            let stats = keyspace.stats();
            if deletes {
                assert_eq!(stats.levels.len(), 0, "{strategy:?}: {stats}");
                assert!(rows(keyspace.iter()).is_empty());
            } else {
                assert_eq!(entries(&stats), u64::from(ROWS), "{strategy:?}: {stats}");
                // The same rows, but cut into small tables elsewhere, each with what every table has.
                assert!(table_bytes(&stats) <= before + before / 5, "{strategy:?}: {before} bytes, then {stats}");
                check(&keyspace, 2);
            }
            assert_eq!(settle(&database), 0, "it ends");
        }
    }
}

/// On threads that are never idle the end of the snapshot itself is the reason to look; in however many tables.
#[test]
fn dropping_a_snapshot_wakes_who_writes_tables_anew() {
    let database = builder(&Simulation::new(1)).background_threads(2).compact_when_idle_after(None).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    write(&keyspace, 1);
    keyspace.flush().unwrap();
    let snapshot = database.snapshot().unwrap();
    write(&keyspace, 2);
    keyspace.compact().unwrap();
    database.wait_until_idle().unwrap();
    let held = keyspace.stats();
    assert_eq!(entries(&held), 2 * u64::from(ROWS), "{held}");
    drop(snapshot);
    let begun = Instant::now();
    while entries(&keyspace.stats()) > u64::from(ROWS) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", keyspace.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    database.wait_until_idle().unwrap();
    check(&keyspace, 2);
}

/// A table is written anew only if that is worth it: half of it while others may be busy, a tenth when all is idle.
#[test]
fn what_a_snapshot_kept_stays_where_it_is_little() {
    for (overwritten, goes_when_busy, goes_when_idle) in
        [(ROWS / 20, false, false), (ROWS / 4, false, true), (ROWS, true, true)]
    {
        for idle in [None, Some(Duration::ZERO)] {
            let database = builder(&Simulation::new(1)).compact_when_idle_after(idle).open().unwrap();
            // One table, so that its share is the keyspace's.
            let keyspace = database.create_keyspace("a", small().table_bytes(16 << 20)).unwrap();
            write(&keyspace, 1);
            let snapshot = database.snapshot().unwrap();
            for number in 0..overwritten {
                keyspace.insert(key(number), value(number, 2)).unwrap();
            }
            keyspace.compact().unwrap();
            settle(&database);
            drop(snapshot);
            settle(&database);
            let goes = if idle.is_some() { goes_when_idle } else { goes_when_busy };
            let left = if goes { ROWS } else { ROWS + overwritten };
            assert_eq!(entries(&keyspace.stats()), u64::from(left), "{overwritten} overwritten, idle {idle:?}");
        }
    }
}

/// Tombstones that a snapshot held back are known of a table without opening it, so also after a reopening.
#[test]
fn tombstones_that_a_snapshot_kept_go_after_a_reopening() {
    let simulation = Simulation::new(1);
    let open = || builder(&simulation).compact_when_idle_after(Some(Duration::ZERO)).open().unwrap();
    let database = open();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    write(&keyspace, 1);
    let snapshot = database.snapshot().unwrap();
    (0..ROWS).for_each(|number| keyspace.remove(key(number)).unwrap());
    keyspace.flush().unwrap();
    settle(&database);
    assert_eq!(entries(&keyspace.stats()), 2 * u64::from(ROWS));
    database.close().unwrap();
    drop((snapshot, keyspace, database));
    let database = open();
    let keyspace = database.open_keyspace("a").unwrap();
    settle(&database);
    let stats = keyspace.stats();
    assert_eq!(stats.levels.len(), 0, "{stats}");
}
