//! What is deleted gives its place back without a call.

mod common;

use std::time::Duration;

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

fn write(keyspace: &Keyspace, round: u32) {
    for number in 0..ROWS {
        keyspace.insert(key(number), value(number, round)).unwrap();
    }
}

/// Runs jobs until there is none.
fn settle(database: &Database) -> u32 {
    let mut jobs = 0;
    while database.run_one_job().unwrap() {
        jobs += 1;
        assert!(jobs < 10_000, "there is always one more job");
    }
    jobs
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
