//! What the background does when there is nothing that it must do.

mod common;

use std::time::{Duration, Instant};

use common::{builder, key, rows, small, value};
use file_system::Simulation;
use lsm_facade::{Keyspace, KeyspaceStats};

/// Writes 1500 rows three times over and deletes nine of ten.
fn fill(keyspace: &Keyspace) {
    for _ in 0..3 {
        for number in 0..1500_u32 {
            keyspace.insert(key(number), value(number)).unwrap();
        }
    }
    for number in (0..1500).filter(|number| number % 10 != 0) {
        keyspace.remove(key(number)).unwrap();
    }
    keyspace.flush().unwrap();
}

fn is_one_run_of_what_lives(stats: &KeyspaceStats) -> bool {
    match &stats.levels[..] {
        [level] => (level.runs, level.entries, level.tombstones) == (1, 150, 0),
        _ => false,
    }
}

fn check(keyspace: &Keyspace) {
    let expected: Vec<_> =
        (0..1500).step_by(10).map(|number| (key(number).into_bytes(), value(number).into_bytes())).collect();
    assert_eq!(rows(keyspace.iter()), expected);
}

#[test]
fn an_idle_keyspace_is_brought_to_one_run_without_what_is_dead() {
    let database = builder(&Simulation::new(1)).compact_when_idle_after(Some(Duration::ZERO)).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    fill(&keyspace);
    database.wait_until_idle().unwrap();
    let stats = keyspace.stats();
    assert!(is_one_run_of_what_lives(&stats), "{stats}");
    check(&keyspace);
}

#[test]
fn nothing_is_compacted_for_idleness_where_that_is_not_wanted() {
    let database = builder(&Simulation::new(1)).compact_when_idle_after(None).open().unwrap();
    let keyspace = database.create_keyspace("a", small().level_zero_runs_max(100)).unwrap();
    keyspace.insert("a", "1").unwrap();
    keyspace.flush().unwrap();
    keyspace.insert("a", "2").unwrap();
    keyspace.flush().unwrap();
    database.wait_until_idle().unwrap();
    let stats = keyspace.stats();
    assert_eq!((stats.levels.len(), stats.levels[0].runs), (1, 2), "{stats}");
}

/// On threads idleness is told by time.
#[test]
fn idleness_comes_by_itself() {
    let idle_after = Some(Duration::from_millis(10));
    let simulation = Simulation::new(1);
    let database = builder(&simulation).background_threads(2).compact_when_idle_after(idle_after).open().unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    fill(&keyspace);
    let begun = Instant::now();
    while !is_one_run_of_what_lives(&keyspace.stats()) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", keyspace.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
    check(&keyspace);
}
