//! Reading the past: what a seqno within the retention shows, whatever has become of the files since, and what is answered
//! when it is gone.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{DB, Row, rows};
use file_system::{Clock, Crash, Simulation};
use lsm_facade::{Database, DatabaseBuilder, Error, Keyspace, KeyspaceOptions, Strategy};
use test_support::Rng;

fn builder(simulation: &Simulation) -> DatabaseBuilder {
    Database::builder(DB).environment(simulation.environment()).background_threads(0).compact_when_idle_after(None)
}

fn options() -> KeyspaceOptions {
    KeyspaceOptions::default().level_base_bytes(4 << 10).table_bytes(4 << 10).block_bytes(512).level_zero_runs_max(2)
}

/// What a keyspace held at each seqno that was visible, by what its users did.
#[derive(Default)]
struct Past {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    at: BTreeMap<u64, Vec<Row>>,
}

impl Past {
    /// Writes `count` times under few keys, so that nearly every write supersedes one.
    fn write(&mut self, database: &Database, keyspace: &Keyspace, rng: &mut Rng, count: u64) {
        for _ in 0..count {
            let key = format!("key-{}", rng.below(12)).into_bytes();
            if rng.one_in(4) {
                keyspace.remove(&key).unwrap();
                self.now.remove(&key);
            } else {
                let value = format!("value-{}", rng.below(1 << 30)).repeat(3).into_bytes();
                keyspace.insert(&key, &value).unwrap();
                self.now.insert(key, value);
            }
            self.remember(database);
        }
    }

    fn remember(&mut self, database: &Database) {
        let now = self.now.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        self.at.insert(database.visible_seqno(), now);
    }

    /// Every seqno from the oldest on shows what was visible then, and none before it is shown.
    fn check(&self, database: &Database, keyspace: &Keyspace, what: &str) {
        let oldest = keyspace.oldest_seqno().expect("it keeps history");
        for (seqno, expected) in &self.at {
            match database.snapshot_at(*seqno) {
                Ok(snapshot) => {
                    assert!(*seqno >= oldest && snapshot.seqno() == *seqno, "{what}: {seqno}, the oldest is {oldest}");
                    assert!(rows(snapshot.iter(keyspace)) == *expected, "{what}: seqno {seqno} shows something else");
                    let mut backwards: Vec<Row> = snapshot
                        .iter(keyspace)
                        .rev()
                        .map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap())
                        .collect();
                    backwards.reverse();
                    assert!(backwards == *expected, "{what}: seqno {seqno} shows something else backwards");
                    for (key, value) in expected {
                        assert_eq!(snapshot.get(keyspace, key).unwrap().as_deref(), Some(value.as_slice()));
                    }
                }
                Err(Error::HistoryGone { keyspace: None, seqno: asked, oldest: told }) => {
                    assert!(
                        *seqno < oldest && (asked, told) == (*seqno, oldest),
                        "{what}: {seqno}, {asked}, {told}, {oldest}"
                    );
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
    }
}

/// R3, C2: a seqno within the retention shows what was visible then, through flushes, compactions, closing, killing and
/// reopening; one before it is refused with the oldest that is not.
#[test]
fn a_retained_seqno_shows_what_was_visible_then() {
    for seed in 0..6 {
        let (mut rng, simulation) = (Rng::new(seed), Simulation::new(seed));
        let mut past = Past::default();
        let mut database = builder(&simulation).open().unwrap();
        let mut keyspace = database.create_keyspace("a", options().history_writes(150)).unwrap();
        let other = database.create_keyspace("other", options()).unwrap();
        let mut simulation = simulation;
        for round in 0..12 {
            past.write(&database, &keyspace, &mut rng, 30);
            let what = format!("seed {seed}, round {round}");
            match rng.below(6) {
                0 => keyspace.flush().unwrap(),
                1 => keyspace.compact().unwrap(),
                2 => database.wait_until_idle().unwrap(),
                3 => {
                    database.close().unwrap();
                    drop((keyspace, database));
                    database = builder(&simulation).open().unwrap();
                    keyspace = database.open_keyspace("a").unwrap();
                }
                _ => {
                    simulation = Simulation::with_files(simulation.files.crash_image(Crash::Kill, seed), seed);
                    drop((keyspace, database));
                    database = builder(&simulation).open().unwrap();
                    keyspace = database.open_keyspace("a").unwrap();
                }
            }
            past.check(&database, &keyspace, &what);
        }
        let oldest = keyspace.oldest_seqno().unwrap();
        assert_eq!(oldest, database.visible_seqno() - 150, "the bound is met to the write");
        drop(other);
    }
}

/// R3: the floor that a job collected by is durable with its tables: after a kill nothing is shown that it took.
#[test]
fn what_was_collected_is_refused_after_reopening() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    // By bytes: unlike a number of writes these are not known any more after reopening.
    let keyspace = database.create_keyspace("a", options().history_bytes(700)).unwrap();
    let mut past = Past::default();
    for round in 0..10 {
        past.write(&database, &keyspace, &mut Rng::new(round), 10);
        keyspace.flush().unwrap();
    }
    keyspace.compact().unwrap();
    let oldest = keyspace.oldest_seqno().unwrap();
    assert!(oldest > 30, "{oldest}");
    let simulation = Simulation::with_files(simulation.files.crash_image(Crash::Kill, 1), 1);
    // Opened for reading it may not promise more either.
    for read_only in [true, false] {
        let reopened = builder(&simulation).read_only(read_only).open().unwrap();
        let keyspace = reopened.open_keyspace("a").unwrap();
        assert_eq!(keyspace.oldest_seqno(), Some(oldest));
        past.check(&reopened, &keyspace, "after the kill");
    }
}

/// R3: a power cut may take writes that the durable floor has passed. What is left opens, and shows its last state.
#[test]
fn a_floor_beyond_what_a_power_cut_left_does_no_harm() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", options().history_writes(5)).unwrap();
    let mut past = Past::default();
    past.write(&database, &keyspace, &mut Rng::new(1), 40);
    keyspace.flush().unwrap();
    past.write(&database, &keyspace, &mut Rng::new(2), 40);
    keyspace.flush().unwrap();
    let left = database.visible_seqno();
    // In memory and in the log alone, and not synced.
    past.write(&database, &keyspace, &mut Rng::new(3), 40);
    while database.run_one_job().unwrap() {}
    for seed in 0..8 {
        let simulation = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, seed), seed);
        let database = builder(&simulation).open().unwrap();
        let keyspace = database.open_keyspace("a").unwrap();
        let visible = database.visible_seqno();
        assert!(visible >= left, "what was flushed was synced");
        assert_eq!(rows(database.snapshot_at(visible).unwrap().iter(&keyspace)), past.at[&visible]);
        assert!(matches!(database.snapshot_at(visible + 1), Err(Error::NotYetVisible { .. })));
        let mut past = Past { now: past.at[&visible].iter().cloned().collect(), at: BTreeMap::new() };
        past.remember(&database);
        past.write(&database, &keyspace, &mut Rng::new(4), 20);
        keyspace.compact().unwrap();
        past.check(&database, &keyspace, "going on");
    }
}

/// R3: the floor that a manifest promises is no higher than what a power cut leaves, though in memory it had passed that: what
/// is written afterwards is refused by no later opening.
#[test]
fn what_is_written_after_a_power_cut_stays_readable() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    // By bytes: after an opening only what is durable tells how far history goes back. About 18 writes.
    let keyspace = database.create_keyspace("a", options().history_bytes(700)).unwrap();
    let mut past = Past::default();
    for round in 0..4 {
        past.write(&database, &keyspace, &mut Rng::new(round), 40);
        keyspace.flush().unwrap();
    }
    let flushed = database.visible_seqno();
    // In memory and in the log alone, and not synced, while a compaction raises the floor.
    for round in 5..13 {
        past.write(&database, &keyspace, &mut Rng::new(round), 5);
        // How far history goes back is known to the moments at which somebody looked.
        keyspace.oldest_seqno();
    }
    let compactions = |database: &Database| database.stats().compactions.iter().sum::<u64>();
    let before = compactions(&database);
    while database.run_one_job().unwrap() {}
    let (after, oldest) = (compactions(&database), keyspace.oldest_seqno().unwrap());
    assert!(after > before && oldest > flushed, "{before} {after} compactions, {oldest} {flushed}");
    for seed in 0..8 {
        let simulation = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, seed), seed);
        let database = builder(&simulation).open().unwrap();
        let keyspace = database.open_keyspace("a").unwrap();
        let left = database.visible_seqno();
        assert!(left >= flushed, "what was flushed was synced");
        let mut past = Past {
            now: past.at[&left].iter().cloned().collect(),
            at: past.at.range(..=left).map(|(seqno, rows)| (*seqno, rows.clone())).collect(),
        };
        past.check(&database, &keyspace, "after the power cut");
        // Far fewer bytes than are kept.
        past.write(&database, &keyspace, &mut Rng::new(6), 8);
        let simulation = Simulation::with_files(simulation.files.crash_image(Crash::Kill, seed), seed);
        drop((keyspace, database));
        let database = builder(&simulation).open().unwrap();
        let keyspace = database.open_keyspace("a").unwrap();
        assert!(keyspace.oldest_seqno().unwrap() <= left, "seed {seed}: all since the power cut is there");
        past.check(&database, &keyspace, "after the opening behind it");
    }
}

/// R3: a snapshot of the past is as good as one taken then: what falls out of the retention while it is held stays for it.
#[test]
fn a_snapshot_of_the_past_stays_though_the_retention_passes_it() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", options().history_writes(50)).unwrap();
    let none = database.create_keyspace("none", options()).unwrap();
    let short = database.create_keyspace("short", options().history_writes(5)).unwrap();
    none.insert("k", "1").unwrap();
    let mut past = Past::default();
    past.write(&database, &keyspace, &mut Rng::new(1), 40);
    let at = *past.at.keys().nth(20).unwrap();
    let snapshot = database.snapshot_at(at).unwrap();
    assert_eq!([&keyspace, &none, &short].map(|it| snapshot.keeps(it)), [true, false, false]);
    past.write(&database, &keyspace, &mut Rng::new(2), 100);
    keyspace.compact().unwrap();
    assert!(keyspace.oldest_seqno().unwrap() > at);
    let again = database.snapshot_at(at).unwrap();
    let copy = snapshot.clone();
    drop(snapshot);
    for snapshot in [&again, &copy] {
        assert_eq!(rows(snapshot.iter(&keyspace)), past.at[&at]);
    }
    // What it does not keep it says, however it is asked.
    for (refused, name) in [(&none, "none"), (&short, "short")] {
        let is_told = |error: Error| {
            assert!(
                matches!(&error, Error::HistoryGone { keyspace: Some(keyspace), seqno, oldest }
                    if keyspace == name && *seqno == at && *oldest > at),
                "{error}"
            );
        };
        is_told(copy.get(refused, "k").unwrap_err());
        is_told(copy.contains_key(refused, "k").unwrap_err());
        is_told(copy.first_key_value(refused).unwrap_err());
        let mut iter = copy.iter(refused);
        is_told(iter.next_back().unwrap().unwrap_err());
        assert!(iter.next().is_none(), "fused");
        let mut cursor = copy.cursor(refused);
        is_told(cursor.seek_to_first().unwrap_err());
        is_told(cursor.seek("k").unwrap_err());
        assert_eq!(cursor.value().unwrap(), None);
    }
    drop((again, copy));
    assert!(matches!(database.snapshot_at(at), Err(Error::HistoryGone { .. })));
}

/// R3: without history only what is visible can be asked for; a number that nobody has written is told from one that is
/// gone; and an ordinary snapshot can be taken once more.
#[test]
fn without_history_the_past_is_refused() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", options()).unwrap();
    keyspace.insert("k", "1").unwrap();
    let snapshot = database.snapshot().unwrap();
    keyspace.insert("k", "2").unwrap();
    keyspace.insert("k", "3").unwrap();
    assert_eq!(keyspace.oldest_seqno(), None);
    let now = database.visible_seqno();
    assert_eq!(database.snapshot_at(now).unwrap().get(&keyspace, "k").unwrap().unwrap(), b"3");
    let error = database.snapshot_at(now - 1).unwrap_err();
    assert!(matches!(error, Error::HistoryGone { keyspace: None, oldest, .. } if oldest == now), "{error}");
    assert_eq!(
        error.to_string(),
        format!("the database cannot be read as of seqno {}: the oldest that it keeps is {now}", now - 1)
    );
    for future in [now + 1, u64::MAX] {
        let error = database.snapshot_at(future).unwrap_err();
        assert!(
            matches!(error, Error::NotYetVisible { seqno, visible } if (seqno, visible) == (future, now)),
            "{error}"
        );
    }
    let again = database.snapshot_at(snapshot.seqno()).unwrap();
    assert_eq!(again.get(&keyspace, "k").unwrap().unwrap(), b"1", "who holds it can take it once more");
}

/// P12, R4: a clear ends the history before it, for a reopened database too; snapshots taken before it stay, and history
/// goes on after it. A dropped keyspace's history goes with it.
#[test]
fn clear_and_drop_end_the_history_before_them() {
    for (flushed, killed) in [(false, false), (true, false), (false, true), (true, true)] {
        let simulation = Simulation::new(1);
        let database = builder(&simulation).open().unwrap();
        let keyspace = database.create_keyspace("a", options().history_writes(1000)).unwrap();
        let mut past = Past::default();
        past.write(&database, &keyspace, &mut Rng::new(1), 40);
        let before = *past.at.keys().nth(20).unwrap();
        let (held, held_rows) = (database.snapshot_at(before).unwrap(), past.at.remove(&before).unwrap());
        if flushed {
            keyspace.flush().unwrap();
        }
        keyspace.clear().unwrap();
        let cleared = database.visible_seqno();
        while database.run_one_job().unwrap() {}
        assert_eq!(keyspace.oldest_seqno(), Some(cleared));
        assert_eq!(rows(held.iter(&keyspace)), held_rows);
        assert!(matches!(database.snapshot_at(cleared - 1), Err(Error::HistoryGone { .. })));
        past.now.clear();
        past.remember(&database);
        past.write(&database, &keyspace, &mut Rng::new(2), 40);
        past.check(&database, &keyspace, "after the clear");
        let image = simulation.files.crash_image(Crash::Kill, 1);
        let reopened = if killed { Simulation::with_files(image, 1) } else { simulation };
        if !killed {
            database.close().unwrap();
        }
        drop((held, keyspace, database));
        let database = builder(&reopened).open().unwrap();
        let keyspace = database.open_keyspace("a").unwrap();
        assert_eq!(keyspace.oldest_seqno(), Some(cleared));
        past.check(&database, &keyspace, "after reopening");
        keyspace.compact().unwrap();
        past.check(&database, &keyspace, "after compacting");

        let at = *past.at.keys().next_back().unwrap();
        let held = database.snapshot_at(at - 1).unwrap();
        database.drop_keyspace("a").unwrap();
        while database.run_one_job().unwrap() {}
        assert_eq!(rows(held.iter(&keyspace)), past.at[&(at - 1)], "taken before the drop");
        assert!(matches!(database.snapshot_at(at), Err(Error::HistoryGone { .. })), "nobody keeps history any more");
        let anew = database.create_keyspace("a", options().history_writes(1000)).unwrap();
        assert!(!held.keeps(&anew) && held.keeps(&keyspace));
        assert!(matches!(database.snapshot_at(at), Err(Error::HistoryGone { .. })), "that one was not there yet");
    }
}

/// R3: age is counted by the engine's clock, and bytes as they were written: each keeps at least what was asked for, and a
/// sixteenth more at most where somebody looks that often; of two bounds the first that is met counts.
#[test]
fn age_and_bytes_bound_history() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let age = Duration::from_secs(1600);
    let aged = database.create_keyspace("aged", options().history_age(age)).unwrap();
    let sized = database.create_keyspace("sized", options().history_bytes(16_000)).unwrap();
    let both = database.create_keyspace("both", options().history_age(age * 1000).history_writes(20)).unwrap();
    let mut written = Vec::new();
    let value = [7; 95];
    for _ in 0..1000_u64 {
        simulation.clock.advance(Duration::from_secs(10));
        for keyspace in [&aged, &sized] {
            keyspace.insert("k-000", value).unwrap();
        }
        written.push((simulation.clock.monotonic(), database.visible_seqno()));
        let visible = database.visible_seqno();
        let after = |seqno: u64| (visible - seqno) / 2 * 100;
        let (oldest, now) = (sized.oldest_seqno().unwrap(), written.len());
        assert!(now < 160 || (16_000..=17_000 + 200).contains(&after(oldest)), "{} bytes since", after(oldest));
        let oldest = aged.oldest_seqno().unwrap();
        let was_replaced =
            written.iter().find(|(_, seqno)| *seqno > oldest).map(|(at, _)| simulation.clock.monotonic() - *at);
        assert!(now < 170 || was_replaced.is_some_and(|ago| ago >= age - Duration::from_secs(10)), "{was_replaced:?}");
        assert!(
            now < 170 || was_replaced.is_some_and(|ago| ago <= age * 17 / 16 + Duration::from_secs(20)),
            "{was_replaced:?}"
        );
    }
    assert_eq!(both.oldest_seqno().unwrap(), database.visible_seqno() - 20);
    // Flushed or not makes no difference to how much was written.
    let before = sized.oldest_seqno();
    sized.flush().unwrap();
    assert_eq!(sized.oldest_seqno(), before);
    // Reopening takes nothing away.
    let oldest = [aged.oldest_seqno(), sized.oldest_seqno()];
    database.close().unwrap();
    drop((aged, sized, both, database));
    simulation.clock.advance(age * 2);
    let database = builder(&simulation).open().unwrap();
    let reopened = ["aged", "sized"].map(|name| database.open_keyspace(name).unwrap());
    let found = [reopened[0].oldest_seqno(), reopened[1].oldest_seqno()];
    assert!(found[0] <= oldest[0] && found[1] <= oldest[1], "{found:?}, before {oldest:?}");
    simulation.clock.advance(age);
    assert_eq!(reopened[0].oldest_seqno().unwrap(), database.visible_seqno(), "all of it was there at opening");
}

fn entries(keyspace: &Keyspace) -> u64 {
    keyspace.stats().levels.iter().map(|level| level.entries).sum()
}

/// C2: history that is kept no longer goes though nobody writes to its keyspace: when enough else was written, when it has
/// come of age, and the last of it when the database is idle; also after reopening, when no job remembers it.
#[test]
fn expired_history_is_collected_without_writes() {
    for by_age in [false, true] {
        for reopens in [false, true] {
            let simulation = Simulation::new(1);
            let idle = |idle| builder(&simulation).compact_when_idle_after(idle).open().unwrap();
            let mut database = idle(None);
            let (age, options) = (Duration::from_secs(60), options());
            let options = if by_age { options.history_age(age) } else { options.history_writes(500) };
            let mut keyspace = database.create_keyspace("a", options).unwrap();
            let other = database.create_keyspace("other", KeyspaceOptions::default()).unwrap();
            for round in 0..10 {
                for number in 0..20 {
                    keyspace.insert(format!("key-{number}"), format!("{round}")).unwrap();
                }
            }
            keyspace.insert("gone", "").unwrap();
            keyspace.remove("gone").unwrap();
            keyspace.compact().unwrap();
            database.wait_until_idle().unwrap();
            assert_eq!(entries(&keyspace), 202, "all of it is kept");
            let snapshot = database.snapshot().unwrap();
            if reopens {
                drop((snapshot, other, keyspace));
                database.close().unwrap();
                drop(database);
                database = idle(None);
                keyspace = database.open_keyspace("a").unwrap();
            }
            let other = database.open_keyspace("other").unwrap();
            for number in 0..600_u64 {
                other.insert("k", number.to_string()).unwrap();
            }
            if by_age {
                database.wait_until_idle().unwrap();
                assert_eq!(entries(&keyspace), 202, "it is younger than that");
                simulation.clock.advance(age);
            }
            database.wait_until_idle().unwrap();
            assert_eq!(entries(&keyspace), 20, "by age: {by_age}, reopened: {reopens}");
            assert_eq!(rows(keyspace.iter()).len(), 20);
            assert!(!database.run_one_job().unwrap(), "it is written anew once");
        }
    }
}

/// C2: a little of a large table is worth no rewriting while there is something to do, and goes when there is not. What a
/// snapshot holds stays, and nothing is rewritten over and over for it.
#[test]
fn a_little_history_waits_for_idleness_and_what_is_held_stays() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default().history_writes(100)).unwrap();
    for number in 0..400_u64 {
        keyspace.insert(format!("key-{number:03}"), "1").unwrap();
    }
    let held = database.snapshot().unwrap();
    keyspace.insert("key-000", "2").unwrap();
    keyspace.insert("key-001", "2").unwrap();
    keyspace.compact().unwrap();
    for _ in 0..200 {
        keyspace.remove("key-999").unwrap();
    }
    let run_jobs = |database: &Database| while database.run_one_job().unwrap() {};
    run_jobs(&database);
    assert_eq!(entries(&keyspace), 402);
    drop(keyspace);
    drop(held);
    database.close().unwrap();
    drop(database);

    let database = builder(&simulation).compact_when_idle_after(Some(Duration::ZERO)).open().unwrap();
    let keyspace = database.open_keyspace("a").unwrap();
    run_jobs(&database);
    assert_eq!(entries(&keyspace), 400, "nobody holds it");

    keyspace.insert("key-000", "3").unwrap();
    let held = database.snapshot().unwrap();
    for _ in 0..200 {
        keyspace.insert("key-000", "4").unwrap();
    }
    keyspace.compact().unwrap();
    for _ in 0..200 {
        keyspace.remove("key-999").unwrap();
    }
    run_jobs(&database);
    assert_eq!(held.get(&keyspace, "key-000").unwrap().unwrap(), b"3");
    let with_held = entries(&keyspace);
    assert!(with_held > 400, "it is held");
    assert!(!database.run_one_job().unwrap(), "and left alone");
    drop(held);
    run_jobs(&database);
    assert_eq!(entries(&keyspace), 400);
}

/// P9: with threads a keyspace whose history comes of age is looked at without anybody's asking.
#[test]
fn a_worker_wakes_when_history_comes_of_age() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::builder(dir.path()).background_threads(1).compact_when_idle_after(None).open().unwrap();
    let keyspace =
        database.create_keyspace("a", KeyspaceOptions::default().history_age(Duration::from_millis(200))).unwrap();
    for round in 0..10 {
        keyspace.insert("key", round.to_string()).unwrap();
    }
    keyspace.compact().unwrap();
    let begun = std::time::Instant::now();
    while entries(&keyspace) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} entries are left", entries(&keyspace));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(keyspace.get("key").unwrap().unwrap(), b"9");
}

/// R3: readers that ask for seqnos about to fall out of the retention, beside writers, flushes and compactions, see what
/// was visible then or are refused; nothing else. Each value is the seqno that wrote it.
#[test]
fn readers_of_the_past_race_the_floor() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::builder(dir.path()).background_threads(2).open().unwrap();
    let keyspace = database.create_keyspace("a", options().memtable_bytes(1 << 10).history_writes(40)).unwrap();
    let (ends, newest, seen, refused) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut batch = database.batch();
            for number in 1..=4000_u64 {
                batch.clear();
                batch.insert(&keyspace, format!("key-{}", number % 3), number.to_string()).unwrap();
                let seqno = database.commit(&batch).unwrap();
                assert_eq!(seqno, number, "one writer, one entry each");
                newest.store(number, Ordering::Relaxed);
                if number % 50 == 0 {
                    keyspace.flush().unwrap();
                }
            }
            ends.store(true, Ordering::Relaxed);
        });
        for back in [30, 40, 45] {
            let (database, keyspace, ends, newest, seen, refused) =
                (&database, &keyspace, &ends, &newest, &seen, &refused);
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let Some(at) = newest.load(Ordering::Relaxed).checked_sub(back).filter(|at| *at >= 3) else {
                        std::thread::yield_now();
                        continue;
                    };
                    match database.snapshot_at(at) {
                        Ok(snapshot) => {
                            let found: Vec<Row> = rows(snapshot.iter(keyspace));
                            let mut expected: Vec<Row> = (at - 2..=at)
                                .map(|number| {
                                    (format!("key-{}", number % 3).into_bytes(), number.to_string().into_bytes())
                                })
                                .collect();
                            expected.sort();
                            assert_eq!(found, expected, "as of {at}");
                            seen.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Error::HistoryGone { oldest, .. }) => {
                            assert!(oldest > at);
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert!(seen.into_inner() > 0 && refused.into_inner() > 0);
}

/// Options of history are kept with the keyspace, and refused where they cannot be held.
#[test]
fn options_of_history_are_stored_and_checked() {
    let simulation = Simulation::new(1);
    let database = builder(&simulation).open().unwrap();
    let asked = options().history_writes(7).history_bytes(1 << 20).history_age(Duration::from_micros(1_500_300));
    database.create_keyspace("a", asked.clone()).unwrap();
    let fifo = options().strategy(Strategy::Fifo).history_writes(1);
    assert!(
        matches!(database.create_keyspace("b", fifo), Err(Error::InvalidOption { name, .. }) if name == "strategy")
    );
    database.close().unwrap();
    drop(database);
    let database = builder(&simulation).open().unwrap();
    assert_eq!(*database.open_keyspace("a").unwrap().options(), asked);
}
