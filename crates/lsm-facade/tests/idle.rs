//! What the background does when there is nothing that it must do.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{builder, key, rows, small, value};
use file_system::Simulation;
use lsm_facade::{Compression, Database, Error, Keyspace, KeyspaceOptions, KeyspaceStats, Strategy};

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
    while database.run_one_job().unwrap() {}
    let stats = keyspace.stats();
    assert!(is_one_run_of_what_lives(&stats), "{stats}");
    check(&keyspace);
}

/// Deletes that stay in memtables, because they are less than a flush takes, would be met by every scan.
#[test]
fn what_a_keyspace_has_sealed_is_flushed_when_it_rests() {
    let hour = Duration::from_secs(3600);
    // When nothing else is to do, by a step; after a time of the whole database; and by rest beside another.
    for (threads, idle_after) in [(0, Duration::ZERO), (2, Duration::from_millis(10)), (2, hour)] {
        let simulation = Simulation::new(1);
        let opening = builder(&simulation).background_threads(threads).compact_when_idle_after(Some(idle_after));
        let database = opening.open().unwrap();
        let keyspace =
            database.create_keyspace("a", small().memtable_bytes(32 << 10).write_buffer_bytes(4 << 20)).unwrap();
        let busy = database.create_keyspace("busy", small()).unwrap();
        for number in 0..1500 {
            keyspace.insert(key(number), value(number)).unwrap();
        }
        keyspace.flush().unwrap();
        for number in (0..1500).filter(|number| number % 10 != 0) {
            keyspace.remove(key(number)).unwrap();
        }
        let stats = keyspace.stats();
        assert!(threads > 0 || stats.sealed > 1, "nothing else is a reason to flush: {stats}");
        let is_at_rest = || {
            let stats = keyspace.stats();
            let runs: u64 = stats.levels.iter().map(|level| level.runs).sum();
            let tombstones: u64 = stats.levels.iter().map(|level| level.tombstones).sum();
            (stats.sealed, runs, tombstones) == (0, 1, 0)
        };
        let begun = Instant::now();
        while threads == 0 && database.run_one_job().unwrap() {}
        while threads > 0 && !is_at_rest() && begun.elapsed() < Duration::from_secs(10) {
            if idle_after == hour {
                simulation.clock.advance(hour / 4);
                busy.insert("key", "value").unwrap();
                busy.flush().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let stats = keyspace.stats();
        assert!(is_at_rest(), "{threads} threads, {idle_after:?}: {stats}");
        assert!(0 < stats.memtable_entries && stats.memtable_entries < 500, "the active one stays: {stats}");
        check(&keyspace);
    }
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

/// Compactions write no faster than they may; flushes go on, and closing does not wait for the rate.
#[test]
fn compactions_keep_to_their_rate() {
    let dir = tempfile::tempdir().unwrap();
    let open = |rate| {
        let builder = Database::builder(dir.path()).background_threads(2).compact_when_idle_after(None);
        builder.compaction_bytes_per_second(rate).open().unwrap()
    };
    // Half a minute for what a compaction of everything writes.
    let database = open(32 << 10);
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default().compression(Compression::None)).unwrap();
    for round in 0..2 {
        for number in 0..1000 {
            keyspace.insert(key(number), [round; 1000]).unwrap();
        }
        keyspace.flush().unwrap();
    }
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let compacting = scope.spawn(|| keyspace.compact());
        std::thread::sleep(Duration::from_millis(300));
        keyspace.insert("more", "").unwrap();
        keyspace.flush().unwrap();
        database.close().unwrap();
        assert!(matches!(compacting.join().unwrap(), Err(Error::Closed)));
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "closing ends the wait for the rate");
    // Two thirds of a second for it.
    let database = open(1536 << 10);
    let keyspace = database.open_keyspace("a").unwrap();
    let begun = Instant::now();
    keyspace.compact().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(keyspace.iter().count(), 1001);
}

#[test]
fn nothing_runs_while_the_background_is_suspended() {
    for threads in [0, 2] {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).background_threads(threads).open().unwrap();
        let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
        let suspended = database.suspend_background().unwrap();
        let also = database.suspend_background().unwrap();
        // Within every limit: one memtable holds them.
        for number in 0..10_u32 {
            keyspace.insert(key(number), "value").unwrap();
        }
        assert!(keyspace.flush().is_err(), "P9: nobody waits for what does not come");
        drop(also);
        assert!(keyspace.flush().is_err() && database.stats().flushes == 0);
        drop(suspended);
        keyspace.flush().unwrap();
        assert_eq!(database.stats().flushes, 1);
        assert_eq!(keyspace.iter().count(), 10);
    }
}

/// A keyspace that rests comes to one run though another is written to all the time, so that the database is never idle.
#[test]
fn a_keyspace_that_rests_comes_to_one_run_beside_a_busy_one() {
    // Idleness of the whole is told by sleeping, rest by the clock, which stands by itself here: with hours, nothing but rest
    // can be the reason.
    let hour = Duration::from_secs(3600);
    let simulation = Simulation::new(1);
    let database = builder(&simulation).background_threads(2).compact_when_idle_after(Some(hour)).open().unwrap();
    let busy = database.create_keyspace("busy", small()).unwrap();
    let keyspace = database.create_keyspace("a", small()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in (0..).take_while(|_| !done.load(Ordering::Relaxed)) {
                busy.insert(key(number % 3000), value(number)).unwrap();
                if number % 64 == 0 {
                    busy.flush().unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
        fill(&keyspace);
        // A run of level 0 above another: nothing of it is due, now or later.
        let runs = || keyspace.stats().levels.iter().map(|level| level.runs).collect::<Vec<_>>();
        while runs()[0] != 1 || runs().iter().sum::<u64>() != 2 {
            keyspace.insert(key(0), value(0)).unwrap();
            keyspace.flush().unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let begun = Instant::now();
        while !is_one_run_of_what_lives(&keyspace.stats()) && begun.elapsed() < Duration::from_secs(5) {
            simulation.clock.advance(hour / 4);
            std::thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    assert!(is_one_run_of_what_lives(&keyspace.stats()), "{}", keyspace.stats());
    check(&keyspace);
}

/// P9: where idleness leads to nothing, however many runs there are, nobody looks for it again and again.
#[test]
fn nobody_polls_where_there_is_nothing_to_do_when_idle() {
    for idle_after in [Duration::ZERO, Duration::from_millis(5)] {
        let simulation = Simulation::new(1);
        let database =
            builder(&simulation).background_threads(1).compact_when_idle_after(Some(idle_after)).open().unwrap();
        let keyspace = database.create_keyspace("a", small().strategy(Strategy::Fifo)).unwrap();
        for number in 0..2 {
            keyspace.insert(key(number), value(number)).unwrap();
            keyspace.flush().unwrap();
        }
        assert_eq!(keyspace.stats().levels[0].runs, 2);
        let looks = || {
            let stats = database.stats();
            let (_, costs) = stats.locks.iter().find(|(name, _)| *name == "jobs").expect("a lock by that name");
            costs.acquisitions
        };
        // What is left to do after the flush may take some looks.
        std::thread::sleep(Duration::from_millis(100));
        let before = looks();
        std::thread::sleep(Duration::from_millis(200));
        let more = looks() - before;
        assert!(more < 20, "{more} looks within 200 ms, idle after {idle_after:?}");
    }
}
