//! Many threads on one database, on a real file system (in memory, where there is one), with everything small: memtables seal, flush, compact, log
//! segments rotate and tables leave the cache all the time.
//!
//! Every value checks itself ([`value`]): it names its key and its generation, and carries a hash of both. A reader that
//! meets anything else has met something that nobody wrote. A [`Watchdog`] ends the process when a test hangs (P9).
//!
//! `cargo xtask stress --threads 200 --secs 60` makes the last test longer, by `STRESS_THREADS` and `STRESS_SECS`;
//! `STRESS_SMALL=0` gives it the default options.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use lsm_facade::{Database, Durability, Error, Keyspace, KeyspaceOptions};
use test_support::{Rng, number_in};

/// Ends the process if it is not dropped in time: a hang becomes a failure that says where.
struct Watchdog {
    _done: SyncSender<()>,
}

impl Watchdog {
    fn new(test: &'static str) -> Self {
        Self::within(test, Duration::from_secs(60))
    }

    fn within(test: &'static str, limit: Duration) -> Self {
        let (done, wait) = sync_channel(0);
        thread::spawn(move || {
            if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                // Not by a macro, whose output the harness would keep to itself.
                let _ = writeln!(std::io::stderr(), "P9: {test} did not end within {limit:?}");
                std::process::abort();
            }
        });
        Self { _done: done }
    }
}

/// A directory in memory where there is one: syncs then cost nothing, and threads meet more often in the same second.
fn directory() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn open(dir: &Path) -> Database {
    Database::builder(dir)
        .background_threads(2)
        .open_tables_max(8)
        .block_cache_bytes(16 << 10)
        .log_segment_bytes(16 << 10)
        .log_bytes_max(128 << 10)
        .open()
        .unwrap()
}

fn small() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_bytes(4 << 10)
        .write_buffer_bytes(8 << 10)
        .block_bytes(512)
        .table_bytes(8 << 10)
        .level_zero_runs_max(3)
        .level_base_bytes(32 << 10)
        .level_size_ratio(4)
}

fn fixture(dir: &Path) -> (Database, Keyspace) {
    let database = open(dir);
    let keyspace = database.create_keyspace("main", small()).unwrap();
    (database, keyspace)
}

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn mix(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// A value that names its key and its generation, followed by a hash of both and as many bytes as the hash says.
fn value(number: u64, generation: u64) -> Vec<u8> {
    let hash = mix(number.wrapping_add(mix(generation)));
    let mut bytes = [number.to_le_bytes(), generation.to_le_bytes(), hash.to_le_bytes()].concat();
    bytes.resize(24 + (hash % 100) as usize, hash as u8);
    bytes
}

/// The generation of a value of `number`, which must be one that [`value`] made.
#[track_caller]
fn generation(number: u64, bytes: &[u8]) -> u64 {
    let generation = bytes.get(8..16).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    assert_eq!(bytes, value(number, generation), "nobody wrote this value of key {number}");
    generation
}

#[track_caller]
fn read(keyspace: &Keyspace, number: u64) -> Option<u64> {
    keyspace.get(key(number)).unwrap().map(|bytes| generation(number, &bytes))
}

fn number_of(key: &[u8]) -> u64 {
    u64::from_be_bytes(key.try_into().unwrap())
}

/// Every row's key and generation, checked, in order.
fn rows(iter: impl Iterator<Item = lsm_facade::Result<(lsm_facade::Slice, lsm_facade::Slice)>>) -> Vec<(u64, u64)> {
    let rows = iter.map(|row| {
        let (key, bytes) = row.unwrap();
        let number = number_of(&key);
        (number, generation(number, &bytes))
    });
    rows.collect()
}

/// Runs `check` on what is in memory, after a flush, after a compaction and after reopening.
fn in_every_layer(dir: &Path, database: Database, mut check: impl FnMut(&Keyspace)) {
    let keyspace = database.open_keyspace("main").unwrap();
    check(&keyspace);
    keyspace.flush().unwrap();
    check(&keyspace);
    keyspace.compact().unwrap();
    check(&keyspace);
    drop((keyspace, database));
    let database = open(dir);
    check(&database.open_keyspace("main").unwrap());
}

/// P3: what ten writers were told is written is all there, at once and later.
#[test]
fn ten_writers_of_a_hundred_puts_lose_nothing() {
    let _watchdog = Watchdog::new("ten_writers_of_a_hundred_puts_lose_nothing");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    thread::scope(|scope| {
        for writer in 0..10 {
            let keyspace = &keyspace;
            scope.spawn(move || {
                for number in writer * 100..(writer + 1) * 100 {
                    keyspace.insert(key(number), value(number, writer)).unwrap();
                    assert_eq!(read(keyspace, number), Some(writer));
                }
            });
        }
    });
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| {
        for number in 0..1000 {
            assert_eq!(read(keyspace, number), Some(number / 100), "key {number}");
        }
        assert_eq!(rows(keyspace.iter()).len(), 1000);
    });
}

/// P3: no reader sees a value that nobody wrote, and none sees a key go back to an older one.
#[test]
fn readers_see_only_what_was_written_and_never_go_back() {
    let _watchdog = Watchdog::new("readers_see_only_what_was_written_and_never_go_back");
    let dir = directory();
    let (_database, keyspace) = fixture(dir.path());
    const KEYS_EACH: u64 = 20;
    let writing = AtomicU64::new(5);
    thread::scope(|scope| {
        for writer in 0..5 {
            let (keyspace, writing) = (&keyspace, &writing);
            scope.spawn(move || {
                for round in 1..=40 {
                    for number in writer * KEYS_EACH..(writer + 1) * KEYS_EACH {
                        keyspace.insert(key(number), value(number, round)).unwrap();
                    }
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for reader in 0..10_u64 {
            let (keyspace, writing) = (&keyspace, &writing);
            scope.spawn(move || {
                let mut seen = [0; 5 * KEYS_EACH as usize];
                let mut number = reader;
                while writing.load(Ordering::Relaxed) > 0 {
                    number = (number + 7) % (5 * KEYS_EACH);
                    let found = read(keyspace, number).unwrap_or(0);
                    assert!(found >= seen[number as usize], "key {number} went back to {found}");
                    seen[number as usize] = found;
                }
            });
        }
    });
    for number in 0..5 * KEYS_EACH {
        assert_eq!(read(&keyspace, number), Some(40));
    }
}

/// C2: what five threads deleted is gone at once, and stays so in every layer.
#[test]
fn concurrent_deletes_remove_every_key_from_every_layer() {
    let _watchdog = Watchdog::new("concurrent_deletes_remove_every_key_from_every_layer");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    for number in 0..250 {
        keyspace.insert(key(number), value(number, 1)).unwrap();
    }
    keyspace.compact().unwrap();
    for number in 0..250 {
        keyspace.insert(key(number), value(number, 2)).unwrap();
    }
    thread::scope(|scope| {
        for deleter in 0..5 {
            let keyspace = &keyspace;
            scope.spawn(move || {
                for number in deleter * 40..(deleter + 1) * 40 {
                    keyspace.remove(key(number)).unwrap();
                    assert_eq!(read(keyspace, number), None);
                }
            });
        }
    });
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| {
        let expected: Vec<_> = (200..250).map(|number| (number, 2)).collect();
        assert_eq!(rows(keyspace.iter()), expected);
        assert!((0..200).all(|number| read(keyspace, number).is_none()));
    });
}

/// P4, P6: no write is lost that comes while a flush runs.
#[test]
fn writes_during_flushes_are_all_kept() {
    let _watchdog = Watchdog::new("writes_during_flushes_are_all_kept");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    for number in 0..500 {
        keyspace.insert(key(number), value(number, 1)).unwrap();
    }
    let writing = AtomicBool::new(true);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while writing.load(Ordering::Relaxed) {
                    keyspace.flush().unwrap();
                }
            });
        }
        for number in 500..1000 {
            keyspace.insert(key(number), value(number, 1)).unwrap();
        }
        writing.store(false, Ordering::Relaxed);
    });
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| {
        assert_eq!(rows(keyspace.iter()), (0..1000).map(|number| (number, 1)).collect::<Vec<_>>());
    });
}

/// C4: a compaction changes no answer, and writes beside it go on.
#[test]
fn answers_are_the_same_while_compactions_run() {
    let _watchdog = Watchdog::new("answers_are_the_same_while_compactions_run");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    for round in 1..=3 {
        for number in 0..400 {
            keyspace.insert(key(number), value(number, round)).unwrap();
        }
    }
    let compacting = AtomicBool::new(true);
    thread::scope(|scope| {
        for reader in 0..3 {
            let (keyspace, compacting) = (&keyspace, &compacting);
            scope.spawn(move || {
                let mut number = reader;
                while compacting.load(Ordering::Relaxed) {
                    number = (number + 13) % 400;
                    assert_eq!(read(keyspace, number), Some(3));
                    let ahead = rows(keyspace.range(key(number)..key(number + 20)));
                    let expected: Vec<_> = (number..(number + 20).min(400)).map(|number| (number, 3)).collect();
                    assert_eq!(ahead, expected);
                }
            });
        }
        let (writer, compacting_still) = (&keyspace, &compacting);
        scope.spawn(move || {
            let mut number = 1000;
            while compacting_still.load(Ordering::Relaxed) && number < 4000 {
                writer.insert(key(number), value(number, 1)).unwrap();
                assert_eq!(read(writer, number), Some(1));
                number += 1;
            }
        });
        for _ in 0..5 {
            keyspace.compact().unwrap();
        }
        compacting.store(false, Ordering::Relaxed);
    });
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| {
        let expected: Vec<_> = (0..400).map(|number| (number, 3)).collect();
        assert_eq!(rows(keyspace.range(key(0)..key(400))), expected);
    });
}

/// P3: each of twenty threads finds in its own range what a map says, and on shared keys only what somebody wrote.
#[test]
fn twenty_threads_of_mixed_operations_match_their_models() {
    let _watchdog = Watchdog::new("twenty_threads_of_mixed_operations_match_their_models");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    const SHARED: u64 = 1 << 32;
    let models = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for owner in 0..20_u64 {
            let (database, keyspace, models) = (&database, &keyspace, &models);
            scope.spawn(move || {
                let mut rng = Rng::new(owner);
                let mut model: BTreeMap<u64, u64> = BTreeMap::new();
                let (first, last) = (owner * 1000, owner * 1000 + 999);
                for step in 1..=100 {
                    let number = first + rng.below(30);
                    match rng.below(10) {
                        0..4 => {
                            keyspace.insert(key(number), value(number, step)).unwrap();
                            model.insert(number, step);
                        }
                        4 => {
                            keyspace.remove(key(number)).unwrap();
                            model.remove(&number);
                        }
                        5 => {
                            let mut batch = database.batch();
                            for number in [number, first + 500, last] {
                                batch.insert(keyspace, key(number), value(number, step)).unwrap();
                                model.insert(number, step);
                            }
                            let shared = SHARED + rng.below(5);
                            batch.insert(keyspace, key(shared), value(shared, owner)).unwrap();
                            database.write(&batch).unwrap();
                        }
                        6 => {
                            let found = rows(keyspace.range(key(first)..=key(last)));
                            assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>());
                        }
                        7 => {
                            let found = rows(keyspace.range(key(first)..=key(last)).rev());
                            assert_eq!(found, model.clone().into_iter().rev().collect::<Vec<_>>());
                        }
                        8 => {
                            let snapshot = database.snapshot().unwrap();
                            keyspace.insert(key(number), value(number, 1000 + step)).unwrap();
                            let before = snapshot.get(keyspace, key(number)).unwrap();
                            assert_eq!(before.map(|bytes| generation(number, &bytes)), model.get(&number).copied());
                            model.insert(number, 1000 + step);
                        }
                        _ => {
                            assert_eq!(read(keyspace, number), model.get(&number).copied());
                            let shared = SHARED + rng.below(5);
                            assert!(read(keyspace, shared).is_none_or(|owner| owner < 20));
                        }
                    }
                }
                models.lock().unwrap().extend(model);
            });
        }
    });
    drop(keyspace);
    let expected: Vec<_> = models.into_inner().unwrap().into_iter().collect();
    in_every_layer(dir.path(), database, |keyspace| assert_eq!(rows(keyspace.range(..key(SHARED))), expected));
}

/// P3: each key of a sequential fill is visible when its insert returns, the last one too, for everyone.
#[test]
fn the_last_key_of_a_sequential_fill_is_visible_at_once() {
    let _watchdog = Watchdog::new("the_last_key_of_a_sequential_fill_is_visible_at_once");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=4000 {
                keyspace.insert(key(number), value(number, 1)).unwrap();
                // Release pairs with the Acquire of the readers: what they count on is acknowledged.
                written.store(number, Ordering::Release);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let last = written.load(Ordering::Acquire);
                    if last > 0 {
                        assert_eq!(read(&keyspace, last), Some(1));
                        let (newest, _) = keyspace.last_key_value().unwrap().unwrap();
                        assert!(number_of(&newest) >= last);
                    }
                    if last == 4000 {
                        break;
                    }
                }
            });
        }
    });
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| {
        assert_eq!(number_of(&keyspace.last_key_value().unwrap().unwrap().0), 4000);
        assert_eq!(keyspace.iter().count(), 4000);
    });
}

/// P3, R1: a batch over two keyspaces is seen as a whole by snapshots, and never ahead in the one that is read first.
#[test]
fn batches_over_two_keyspaces_agree_for_every_reader() {
    let _watchdog = Watchdog::new("batches_over_two_keyspaces_agree_for_every_reader");
    let dir = directory();
    let (database, left) = fixture(dir.path());
    let right = database.create_keyspace("right", small()).unwrap();
    const KEYS: u64 = 16;
    let writing = AtomicU64::new(4);
    thread::scope(|scope| {
        for writer in 0..4 {
            let (database, left, right, writing) = (&database, &left, &right, &writing);
            scope.spawn(move || {
                for round in 1..=150 {
                    let mut batch = database.batch();
                    for number in writer * KEYS / 4..(writer + 1) * KEYS / 4 {
                        batch.insert(left, key(number), value(number, round)).unwrap();
                        batch.insert(right, key(number), value(number, round)).unwrap();
                    }
                    database.write(&batch).unwrap();
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        for reader in 0..4_u64 {
            let (database, left, right, writing) = (&database, &left, &right, &writing);
            scope.spawn(move || {
                let mut number = reader;
                while writing.load(Ordering::Relaxed) > 0 {
                    number = (number + 3) % KEYS;
                    // Two single reads, one after the other: the second is no older than the first.
                    let first = read(left, number);
                    let second = read(right, number);
                    assert!(second >= first, "key {number}: {first:?}, then {second:?}");
                    let snapshot = database.snapshot().unwrap();
                    let of = |keyspace: &Keyspace| snapshot.get(keyspace, key(number)).unwrap();
                    assert_eq!(of(left), of(right), "key {number}");
                    let all = rows(snapshot.iter(left));
                    assert_eq!(all, rows(snapshot.iter(right)));
                    let backward: Vec<_> = rows(snapshot.iter(right).rev()).into_iter().rev().collect();
                    assert_eq!(all, backward);
                    for quarter in all.chunks(KEYS as usize / 4) {
                        assert!(quarter.iter().all(|row| row.1 == quarter[0].1), "half a batch: {quarter:?}");
                    }
                    // An iterator of one keyspace sees whole batches too.
                    for quarter in rows(left.iter()).chunks(KEYS as usize / 4) {
                        assert!(quarter.iter().all(|row| row.1 == quarter[0].1), "half a batch: {quarter:?}");
                    }
                }
            });
        }
    });
    assert_eq!(rows(left.iter()), rows(right.iter()));
}

/// R3: a snapshot reads the same as long as it is held, whatever is written, removed, flushed, compacted and cleared.
#[test]
fn snapshots_stay_as_they_were_while_everything_changes() {
    let _watchdog = Watchdog::new("snapshots_stay_as_they_were_while_everything_changes");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    const KEYS: u64 = 100;
    for number in 0..KEYS {
        keyspace.insert(key(number), value(number, 0)).unwrap();
    }
    let holding = AtomicU64::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..8 {
                    let snapshot = database.snapshot().unwrap();
                    let before = rows(snapshot.iter(&keyspace));
                    for round in 0..6 {
                        let again = match round % 2 {
                            0 => rows(snapshot.iter(&keyspace)),
                            _ => rows(snapshot.iter(&keyspace).rev()).into_iter().rev().collect(),
                        };
                        assert_eq!(again, before);
                        let model: BTreeMap<u64, u64> = before.iter().copied().collect();
                        for number in (round..KEYS).step_by(7) {
                            let found = snapshot.get(&keyspace, key(number)).unwrap();
                            assert_eq!(found.map(|bytes| generation(number, &bytes)), model.get(&number).copied());
                        }
                    }
                }
                holding.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let mut rng = Rng::new(7);
            let mut step = 0;
            while holding.load(Ordering::Relaxed) > 0 {
                step += 1;
                let number = rng.below(KEYS);
                match rng.below(4) {
                    0 => keyspace.remove(key(number)).unwrap(),
                    _ => keyspace.insert(key(number), value(number, step)).unwrap(),
                }
            }
        });
        scope.spawn(|| {
            for round in 0_u64.. {
                if holding.load(Ordering::Relaxed) == 0 {
                    break;
                }
                match round % 3 {
                    0 => keyspace.flush().unwrap(),
                    1 => keyspace.compact().unwrap(),
                    _ => keyspace.clear().unwrap(),
                }
            }
        });
    });
}

/// R2: an iterator sees each row of its state once, in order, from both ends, while the keyspace churns.
#[test]
fn iterators_go_both_ways_during_churn() {
    let _watchdog = Watchdog::new("iterators_go_both_ways_during_churn");
    let dir = directory();
    let (_database, keyspace) = fixture(dir.path());
    // Even keys are always there, in changing generations; odd ones come and go.
    for number in (0..300).step_by(2) {
        keyspace.insert(key(number), value(number, 0)).unwrap();
    }
    let iterating = AtomicU64::new(4);
    thread::scope(|scope| {
        for iterator in 0..4_u64 {
            let (keyspace, iterating) = (&keyspace, &iterating);
            scope.spawn(move || {
                let mut rng = Rng::new(iterator);
                for _ in 0..25 {
                    let mut iter = keyspace.iter();
                    let (mut front, mut back) = (Vec::new(), Vec::new());
                    loop {
                        let at_front = match iterator {
                            0 => true,
                            1 => false,
                            _ => rng.one_in(2),
                        };
                        let row = if at_front { iter.next() } else { iter.next_back() };
                        let Some(row) = row else { break };
                        let (key, bytes) = row.unwrap();
                        let number = number_of(&key);
                        generation(number, &bytes);
                        if at_front { front.push(number) } else { back.push(number) }
                    }
                    front.extend(back.into_iter().rev());
                    assert!(front.is_sorted_by(|left, right| left < right), "out of order: {front:?}");
                    let even: Vec<u64> = front.into_iter().filter(|number| number % 2 == 0).collect();
                    assert_eq!(even, (0..300).step_by(2).collect::<Vec<_>>());
                    // A cursor that turns around.
                    let mut cursor = keyspace.cursor();
                    let from = rng.below(298) / 2 * 2;
                    cursor.seek(key(from)).unwrap();
                    assert_eq!(cursor.key(), Some(&key(from)[..]));
                    cursor.next().unwrap();
                    cursor.prev().unwrap();
                    assert_eq!(cursor.key(), Some(&key(from)[..]));
                }
                iterating.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            let mut rng = Rng::new(99);
            let mut step = 0;
            while iterating.load(Ordering::Relaxed) > 0 {
                step += 1;
                let number = rng.below(300);
                match number % 2 {
                    1 if rng.one_in(2) => keyspace.remove(key(number)).unwrap(),
                    _ => keyspace.insert(key(number), value(number, step)).unwrap(),
                }
            }
        });
    });
}

/// P12: keyspaces are created, cleared and dropped while others write; writers meet no error but that their keyspace went.
#[test]
fn keyspaces_come_and_go_while_others_write() {
    let _watchdog = Watchdog::new("keyspaces_come_and_go_while_others_write");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    let current = Mutex::new(database.create_keyspace("short-lived", small()).unwrap());
    let going = AtomicBool::new(true);
    thread::scope(|scope| {
        for writer in 0..4_u64 {
            let (database, keyspace, current, going) = (&database, &keyspace, &current, &going);
            scope.spawn(move || {
                let mut step = 0;
                while going.load(Ordering::Relaxed) {
                    step += 1;
                    let number = writer * 100 + step % 100;
                    let short_lived = current.lock().unwrap().clone();
                    let mut batch = database.batch();
                    batch.insert(keyspace, key(number), value(number, step)).unwrap();
                    batch.insert(&short_lived, key(number), value(number, step)).unwrap();
                    match database.write(&batch) {
                        // P1: all of it or nothing.
                        Ok(()) => assert_eq!(read(keyspace, number), Some(step)),
                        Err(Error::KeyspaceDropped { .. }) => assert_ne!(read(keyspace, number), Some(step)),
                        Err(error) => panic!("{error}"),
                    }
                    match short_lived.insert(key(number), value(number, step)) {
                        Ok(()) | Err(Error::KeyspaceDropped { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    assert!(rows(short_lived.iter()).len() <= 400);
                    read(&short_lived, number);
                }
            });
        }
        for round in 0..12 {
            match round % 3 {
                0 => current.lock().unwrap().clone().clear().unwrap(),
                1 => keyspace.flush().unwrap(),
                _ => {
                    database.drop_keyspace("short-lived").unwrap();
                    let created = database.create_keyspace("short-lived", small()).unwrap();
                    assert!(created.is_empty().unwrap());
                    *current.lock().unwrap() = created;
                }
            }
        }
        going.store(false, Ordering::Relaxed);
    });
    let expected = (rows(keyspace.iter()), rows(current.lock().unwrap().iter()));
    drop((keyspace, current, database));
    let database = open(dir.path());
    let reopened = |name: &str| rows(database.open_keyspace(name).unwrap().iter());
    assert_eq!(reopened("main"), expected.0);
    assert_eq!(reopened("short-lived"), expected.1);
}

/// P12: what a clear removed stays away after reopening, also when flushes of later writes overtake the clear's own edit.
#[test]
fn cleared_rows_stay_away_when_flushes_overtake_the_clear() {
    let _watchdog = Watchdog::new("cleared_rows_stay_away_when_flushes_overtake_the_clear");
    let dir = directory();
    let (mut database, mut keyspace) = fixture(dir.path());
    for round in 0..12 {
        for number in 0..100 {
            keyspace.insert(key(number), value(number, round)).unwrap();
        }
        keyspace.flush().unwrap();
        let clearing = AtomicBool::new(true);
        thread::scope(|scope| {
            for writer in 0..2 {
                let (keyspace, clearing) = (&keyspace, &clearing);
                scope.spawn(move || {
                    let mut number = 1000 * (writer + 1);
                    while clearing.load(Ordering::Relaxed) {
                        keyspace.insert(key(number), value(number, round)).unwrap();
                        keyspace.flush().unwrap();
                        number += 1;
                    }
                });
            }
            keyspace.clear().unwrap();
            clearing.store(false, Ordering::Relaxed);
        });
        let expected = rows(keyspace.iter());
        assert!(expected.iter().all(|row| row.0 >= 100), "the clear removed these: {expected:?}");
        drop((keyspace, database));
        database = open(dir.path());
        keyspace = database.open_keyspace("main").unwrap();
        assert_eq!(rows(keyspace.iter()), expected);
    }
}

/// P7: synced commits of many threads share syncs.
#[test]
fn synced_commits_of_many_threads_share_syncs() {
    let _watchdog = Watchdog::new("synced_commits_of_many_threads_share_syncs");
    let dir = tempfile::tempdir().unwrap();
    let (database, keyspace) = fixture(dir.path());
    let before = database.stats();
    let start = Barrier::new(64);
    thread::scope(|scope| {
        for writer in 0..64_u64 {
            let (keyspace, start) = (keyspace.with_durability(Durability::Synced), &start);
            scope.spawn(move || {
                start.wait();
                for step in 0..8 {
                    let number = writer * 8 + step;
                    keyspace.insert(key(number), value(number, 1)).unwrap();
                    assert_eq!(read(&keyspace, number), Some(1));
                }
            });
        }
    });
    let after = database.stats();
    assert_eq!(after.commits - before.commits, 64 * 8);
    let syncs = after.log_syncs - before.log_syncs;
    assert!(0 < syncs && syncs < 64 * 8, "{syncs} syncs for {} commits", 64 * 8);
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| assert_eq!(keyspace.iter().count(), 64 * 8));
}

/// P9: closing while everything is used ends every call, with success or as closed, and loses no acknowledged write.
#[test]
fn closing_while_everything_is_used_ends_every_call() {
    let _watchdog = Watchdog::new("closing_while_everything_is_used_ends_every_call");
    for round in 0..6 {
        let dir = directory();
        let (database, keyspace) = fixture(dir.path());
        let enough = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..8_u64)
            .map(|owner| {
                let (database, keyspace, enough) = (database.clone(), keyspace.clone(), Arc::clone(&enough));
                thread::spawn(move || {
                    let synced = keyspace.with_durability(Durability::Synced);
                    let mut written = 0;
                    for step in 0_u64.. {
                        let number = owner << 32 | step;
                        let outcome = match owner {
                            0..4 => keyspace.insert(key(number), value(number, 1)),
                            4 => synced.insert(key(number), value(number, 1)),
                            5 => keyspace.iter().try_for_each(|row| row.map(|_| ())),
                            6 => keyspace.flush(),
                            _ => match step % 3 {
                                0 => keyspace.compact(),
                                1 => database.run_one_job().map(|_| ()),
                                _ => database.wait_until_idle(),
                            },
                        };
                        match outcome {
                            Ok(()) => written = step + 1,
                            Err(Error::Closed) => break,
                            Err(error) => panic!("thread {owner}: {error}"),
                        }
                        enough.fetch_add(1, Ordering::Relaxed);
                    }
                    if owner <= 4 { Some((owner, written)) } else { None }
                })
            })
            .collect();
        while enough.load(Ordering::Relaxed) < 300 * (round + 1) {
            thread::yield_now();
        }
        database.close().unwrap();
        assert!(matches!(keyspace.insert("after", "closing"), Err(Error::Closed)));
        // Somebody else may have it from here on, whatever threads are still in their last call.
        let reopened = open(dir.path());
        let written: Vec<(u64, u64)> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        let keyspace = reopened.open_keyspace("main").unwrap();
        for (owner, written) in written {
            for number in owner << 32..(owner << 32) + written {
                assert_eq!(read(&keyspace, number), Some(1), "an acknowledged write of thread {owner}");
            }
        }
    }
}

/// P11: large batches, which pass by the log and the memtables, and small writes keep their order.
#[test]
fn large_batches_and_small_writes_keep_their_order() {
    let _watchdog = Watchdog::new("large_batches_and_small_writes_keep_their_order");
    let dir = directory();
    let (database, keyspace) = fixture(dir.path());
    const KEYS: u64 = 100;
    let writing = AtomicU64::new(3);
    thread::scope(|scope| {
        for writer in 0..3_u64 {
            let (database, keyspace, writing) = (&database, &keyspace, &writing);
            scope.spawn(move || {
                let numbers = writer * KEYS..(writer + 1) * KEYS;
                for round in 1..=12 {
                    // About 7 KiB: more than a quarter of a log segment.
                    let mut batch = database.batch();
                    for number in numbers.clone() {
                        batch.insert(keyspace, key(number), value(number, round * 100)).unwrap();
                    }
                    database.write(&batch).unwrap();
                    for number in numbers.clone() {
                        assert_eq!(read(keyspace, number), Some(round * 100));
                        if number % 3 == 0 {
                            keyspace.insert(key(number), value(number, round * 100 + 1)).unwrap();
                            assert_eq!(read(keyspace, number), Some(round * 100 + 1));
                        }
                    }
                }
                writing.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            while writing.load(Ordering::Relaxed) > 0 {
                for third in rows(database.snapshot().unwrap().iter(&keyspace)).chunks(KEYS as usize) {
                    let rounds: Vec<u64> = third.iter().map(|row| row.1 / 100).collect();
                    assert!(rounds.iter().all(|round| *round == rounds[0]), "half a large batch: {rounds:?}");
                }
            }
        });
    });
    drop(keyspace);
    in_every_layer(dir.path(), database, |keyspace| {
        let expected: Vec<_> =
            (0..3 * KEYS).map(|number| (number, if number % 3 == 0 { 1201 } else { 1200 })).collect();
        assert_eq!(rows(keyspace.iter()), expected);
    });
}

/// What a thread of the stress test does; counted, and named when a thread is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Put,
    Delete,
    Batch,
    LargeBatch,
    Get,
    Scan,
    Snapshot,
    Past,
    Flush,
    Compaction,
    Stats,
}

const OPERATIONS: [Operation; 11] = [
    Operation::Put,
    Operation::Delete,
    Operation::Batch,
    Operation::LargeBatch,
    Operation::Get,
    Operation::Scan,
    Operation::Snapshot,
    Operation::Past,
    Operation::Flush,
    Operation::Compaction,
    Operation::Stats,
];

/// How often each operation comes, of a thousand.
const SHARES: [u64; 11] = [180, 40, 150, 2, 320, 120, 110, 60, 6, 2, 10];

/// What one thread has done and is doing, for whoever watches it.
#[derive(Default)]
struct Doing {
    /// Steps begun.
    step: AtomicU64,
    /// The index of the operation in `OPERATIONS`.
    operation: AtomicU64,
    counts: [AtomicU64; OPERATIONS.len()],
    /// `/proc` of the thread, where there is one.
    proc: lock_meter::Mutex<Option<PathBuf>>,
}

impl Doing {
    fn begin(&self, operation: Operation) {
        self.operation.store(operation as u64, Ordering::Relaxed);
        self.counts[operation as usize].fetch_add(1, Ordering::Relaxed);
        self.step.fetch_add(1, Ordering::Relaxed);
    }

    /// What it is at, and what the system says of it: asleep or ready to run, its time on processors, its switches.
    fn describe(&self) -> String {
        let operation = OPERATIONS[self.operation.load(Ordering::Relaxed) as usize];
        let of_system = self.proc.lock().as_ref().map(|proc| {
            let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
            let kept = |line: &&str| ["State", "voluntary", "nonvoluntary"].iter().any(|name| line.starts_with(name));
            let ran = std::fs::read_to_string(proc.join("schedstat")).unwrap_or_default();
            let status: Vec<&str> = status.lines().filter(kept).collect();
            format!("{}, ran/waited/slices {}", status.join(", "), ran.trim())
        });
        let step = self.step.load(Ordering::Relaxed);
        format!("step {step}, {operation:?}, {}", of_system.unwrap_or_default().replace('\t', " "))
    }
}

/// What every thread of the stress test shares.
struct Stress {
    database: Database,
    /// Always written together.
    pair: [Keyspace; 2],
    /// Single puts and deletes.
    single: Keyspace,
    owners: u64,
    /// Keys of each owner; nobody else writes them.
    keys: u64,
    until: Instant,
    /// How often a seqno of the past was read as of, and how often it was refused.
    past: [AtomicU64; 2],
}

/// What one thread knows: what it wrote, and the newest generation that it saw of anybody's key.
#[derive(Default)]
struct Knowledge {
    pair: BTreeMap<u64, u64>,
    single: BTreeMap<u64, u64>,
    seen_pair: BTreeMap<u64, u64>,
    seen_single: BTreeMap<u64, u64>,
    moments: VecDeque<Moment>,
}

/// What was visible when a thread had done some operation and not begun the next: its own keys as of `seqno` are known.
struct Moment {
    seqno: u64,
    /// What the thread's writes since then, up to the next moment, changed.
    since: Before,
}

/// Keys with the generation that each had, the first change first.
type Changes = Vec<(u64, Option<u64>)>;

/// What each key was before.
#[derive(Default)]
struct Before {
    pair: Changes,
    single: Changes,
}

/// So many moments are remembered by each thread.
const MOMENTS: usize = 32;

impl Knowledge {
    /// What is visible by now is what the thread has written.
    fn remember(&mut self, seqno: u64) {
        if self.moments.len() == MOMENTS {
            self.moments.pop_front();
        }
        self.moments.push_back(Moment { seqno, since: Before::default() });
    }

    /// The thread's own keys of the range as they were at the moment `at`, of the pair and single.
    fn as_of(&self, at: usize, numbers: &std::ops::Range<u64>) -> [Vec<(u64, u64)>; 2] {
        let as_of = |now: &BTreeMap<u64, u64>, changes: fn(&Before) -> &Changes| {
            let mut then: BTreeMap<u64, u64> = now.range(numbers.clone()).map(|(key, step)| (*key, *step)).collect();
            let later = self.moments.range(at..).rev().flat_map(|moment| changes(&moment.since).iter().rev());
            for (number, before) in later.filter(|(number, _)| numbers.contains(number)) {
                match before {
                    Some(step) => then.insert(*number, *step),
                    None => then.remove(number),
                };
            }
            then.into_iter().collect()
        };
        [as_of(&self.pair, |before| &before.pair), as_of(&self.single, |before| &before.single)]
    }

    fn changes(&mut self) -> &mut Before {
        &mut self.moments.back_mut().expect("a thread begins with a moment").since
    }

    /// A key of the single keyspace gets this generation, or goes.
    fn wrote_single(&mut self, number: u64, step: Option<u64>) {
        let before = match step {
            Some(step) => self.single.insert(number, step),
            None => self.single.remove(&number),
        };
        self.changes().single.push((number, before));
    }

    /// A key of the pair gets this generation, or goes.
    fn wrote_pair(&mut self, number: u64, step: Option<u64>) {
        let before = match step {
            Some(step) => self.pair.insert(number, step),
            None => self.pair.remove(&number),
        };
        self.changes().pair.push((number, before));
    }
}

/// Generations of a key only grow, so that a reader never finds an older one than before.
#[track_caller]
fn never_goes_back(seen: &mut BTreeMap<u64, u64>, number: u64, found: Option<u64>) {
    if let Some(found) = found {
        let before = seen.insert(number, found).unwrap_or(0);
        assert!(found >= before, "key {number} went back from generation {before} to {found}");
    }
}

impl Stress {
    fn own(&self, owner: u64) -> std::ops::Range<u64> {
        owner * self.keys..(owner + 1) * self.keys
    }

    /// One thread: random operations until the time is over. Returns what it knows to be written.
    fn run(&self, owner: u64, doing: &Doing) -> Knowledge {
        let mut rng = Rng::new(owner + 1);
        let mut known = Knowledge::default();
        let mut generation = 0;
        while Instant::now() < self.until {
            // Nothing of this thread is under way, so that its own keys are what it knows at every seqno until its next write.
            known.remember(self.database.visible_seqno());
            let mut left = rng.below(SHARES.iter().sum());
            let chosen = SHARES.iter().position(|share| {
                let chosen = left < *share;
                left = left.saturating_sub(*share);
                chosen
            });
            // Each operation is some thread's first, so that a run however short has all of them.
            let operation =
                OPERATIONS[if generation == 0 { owner as usize % OPERATIONS.len() } else { chosen.unwrap() }];
            generation += 1;
            doing.begin(operation);
            self.step(operation, owner, generation, &mut rng, &mut known);
        }
        known
    }

    fn step(&self, operation: Operation, owner: u64, step: u64, rng: &mut Rng, known: &mut Knowledge) {
        let number = owner * self.keys + rng.below(self.keys);
        let other = rng.below(self.owners * self.keys);
        let [left, right] = &self.pair;
        let expected = |model: &BTreeMap<u64, u64>| model.iter().map(|(key, step)| (*key, *step)).collect::<Vec<_>>();
        match operation {
            Operation::Put => {
                self.single.insert(key(number), value(number, step)).unwrap();
                known.wrote_single(number, Some(step));
                assert_eq!(read(&self.single, number), Some(step), "a thread reads its own write");
            }
            Operation::Delete => {
                self.single.remove(key(number)).unwrap();
                known.wrote_single(number, None);
                assert_eq!(read(&self.single, number), None, "a thread reads its own delete");
            }
            Operation::Batch | Operation::LargeBatch => {
                let many = if operation == Operation::LargeBatch { self.keys } else { 1 + rng.below(4) };
                let mut batch = self.database.batch();
                if rng.one_in(50) {
                    batch = batch.with_durability(Durability::Synced);
                }
                for number in (number..self.own(owner).end).take(many as usize) {
                    let remove = rng.one_in(8);
                    for keyspace in &self.pair {
                        match remove {
                            true => batch.remove(keyspace, key(number)).unwrap(),
                            false => batch.insert(keyspace, key(number), value(number, step)).unwrap(),
                        };
                    }
                    known.wrote_pair(number, (!remove).then_some(step));
                }
                self.database.write(&batch).unwrap();
            }
            Operation::Get => {
                assert_eq!(read(&self.single, number), known.single.get(&number).copied(), "own key {number}");
                assert_eq!(read(left, number), known.pair.get(&number).copied(), "own key {number}");
                never_goes_back(&mut known.seen_single, other, read(&self.single, other));
                let before = read(left, other);
                never_goes_back(&mut known.seen_pair, other, before);
                // The second is read after the first and no older.
                never_goes_back(&mut known.seen_pair, other, read(right, other));
            }
            Operation::Scan => {
                let own = || key(self.own(owner).start)..key(self.own(owner).end);
                assert_eq!(rows(right.range(own())), expected(&known.pair));
                let backward: Vec<_> = rows(self.single.range(own()).rev()).into_iter().rev().collect();
                assert_eq!(backward, expected(&known.single));
            }
            Operation::Snapshot => {
                let snapshot = self.database.snapshot().unwrap();
                let range = || key(other)..key(other + 20);
                let first = rows(snapshot.range(left, range()));
                let second: Vec<_> = rows(snapshot.range(right, range()).rev()).into_iter().rev().collect();
                assert_eq!(first, second, "the pair agrees");
                for (number, found) in first {
                    never_goes_back(&mut known.seen_pair, number, Some(found));
                    let again = snapshot.get(left, key(number)).unwrap();
                    assert_eq!(again.map(|bytes| generation(number, &bytes)), Some(found));
                }
            }
            Operation::Past => {
                let at = rng.below(known.moments.len() as u64) as usize;
                self.read_the_past(at, number..(number + 20).min(self.own(owner).end), other, known);
            }
            Operation::Flush => [left, right, &self.single][rng.below(3) as usize].flush().unwrap(),
            Operation::Compaction => [left, right, &self.single][rng.below(3) as usize].compact().unwrap(),
            Operation::Stats => drop(self.database.stats()),
        }
    }
}

impl Stress {
    /// R3: as of a moment of this thread its own keys `own` are what they were, and everybody's are of no later generation
    /// than now; or history does not reach back so far.
    fn read_the_past(&self, at: usize, own: std::ops::Range<u64>, other: u64, known: &mut Knowledge) {
        let seqno = known.moments[at].seqno;
        let snapshot = match self.database.snapshot_at(seqno) {
            Ok(snapshot) => snapshot,
            Err(Error::HistoryGone { keyspace: None, oldest, .. }) => {
                assert!(seqno < oldest, "seqno {seqno} is refused, and {oldest} is kept");
                self.past[1].fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(error) => panic!("seqno {seqno}: {error}"),
        };
        let [left, right] = &self.pair;
        // Their floors rise one after the other: this one may lie between them.
        let passed = [left, right, &self.single].into_iter().find(|keyspace| !snapshot.keeps(keyspace));
        if let Some(keyspace) = passed {
            assert!(keyspace.oldest_seqno().unwrap() > seqno, "seqno {seqno} is kept, and refused");
            self.past[1].fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.past[0].fetch_add(1, Ordering::Relaxed);
        let [pair, single] = known.as_of(at, &own);
        let range = |numbers: &std::ops::Range<u64>| key(numbers.start)..key(numbers.end);
        assert_eq!(rows(snapshot.range(left, range(&own))), pair, "own keys as of {seqno}");
        let mut backward = rows(snapshot.range(right, range(&own)).rev());
        backward.reverse();
        assert_eq!(backward, pair, "own keys as of {seqno}, backward");
        assert_eq!(rows(snapshot.range(&self.single, range(&own))), single, "own single keys as of {seqno}");
        for (number, found) in &single {
            let bytes = snapshot.get(&self.single, key(*number)).unwrap();
            assert_eq!(bytes.map(|bytes| generation(*number, &bytes)), Some(*found), "own key {number} as of {seqno}");
        }
        let others = other..other + 20;
        let then = rows(snapshot.range(left, range(&others)));
        assert_eq!(then, rows(snapshot.range(right, range(&others))), "the pair agrees as of {seqno}");
        // What is read now is no older than the past, nor than anything read before.
        for (number, found) in then {
            let newest = known.seen_pair.entry(number).or_insert(found);
            *newest = found.max(*newest);
            never_goes_back(&mut known.seen_pair, number, read(left, number));
        }
    }
}

/// What the machine did so far, in ticks of all processors: by this process, idle, and in all. `None` where the system does
/// not say.
fn machine_ticks() -> Option<[u64; 3]> {
    let numbers = |text: &str| text.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect::<Vec<u64>>();
    let all = std::fs::read_to_string("/proc/stat").ok()?;
    let all = numbers(all.lines().next()?.strip_prefix("cpu")?);
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    let own = numbers(own.rsplit_once(')')?.1);
    // Times for processes, and idle ones with and without outstanding input and output; of a process, user and system.
    Some([own.get(11)? + own.get(12)?, all.get(3)? + all.get(4)?, all.iter().take(8).sum()])
}

/// The part of the machine that this process had or could have had since `before`: what others took from it is not time in
/// which its threads could have gone on.
fn share_since(before: &mut Option<[u64; 3]>) -> Option<f64> {
    let now = machine_ticks();
    let [own, idle, all] = std::array::from_fn(|at| Some(now?[at].saturating_sub(before.as_ref()?[at])));
    *before = now;
    let all = all.filter(|all| *all > 0)?;
    Some(((own? + idle?) as f64 / all as f64).min(1.0))
}

/// P3, P9: everything at once for as long as `STRESS_SECS` says: a thread reads its own writes and never an older state
/// than before, the pair of keyspaces always agrees, and nobody is stuck.
#[test]
fn stress() {
    let (seconds, owners) = (number_in("STRESS_SECS", 1), number_in("STRESS_THREADS", 12));
    let smallest = number_in("STRESS_SMALL", 1) == 1;
    let _watchdog = Watchdog::within("stress", Duration::from_secs(seconds + 120));
    let dir = directory();
    let open = || if smallest { open(dir.path()) } else { Database::open(dir.path()).unwrap() };
    let database = open();
    let options = || match smallest {
        true => {
            small().memtable_bytes(1 << 10).write_buffer_bytes(1 << 10).table_bytes(4 << 10).level_base_bytes(4 << 10)
        }
        false => KeyspaceOptions::default(),
    };
    // Some operations of every thread.
    let history = if smallest { 20 * owners } else { 500 * owners };
    let options = || options().history_writes(history);
    let keyspace = |name: &str| database.create_keyspace(name, options()).unwrap();
    let stress = Stress {
        pair: [keyspace("left"), keyspace("right")],
        single: keyspace("single"),
        owners,
        keys: if smallest { 20 } else { 2000 },
        until: Instant::now() + Duration::from_secs(seconds),
        database: database.clone(),
        past: Default::default(),
    };
    let doing: Vec<Doing> = (0..owners).map(|_| Doing::default()).collect();
    // A lock that the thread sanitizer understands.
    let written = lock_meter::Mutex::new((BTreeMap::new(), BTreeMap::new()));
    let running = AtomicU64::new(owners);
    thread::scope(|scope| {
        for (owner, doing) in (0..owners).zip(&doing) {
            let (stress, running, written) = (&stress, &running, &written);
            scope.spawn(move || {
                *doing.proc.lock() = std::fs::read_link("/proc/thread-self").ok().map(|it| Path::new("/proc").join(it));
                let known = stress.run(owner, doing);
                {
                    let mut written = written.lock();
                    written.0.extend(known.pair);
                    written.1.extend(known.single);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        watch(&doing, &running, &database);
    });
    let counts =
        OPERATIONS.map(|it| doing.iter().map(|doing| doing.counts[it as usize].load(Ordering::Relaxed)).sum::<u64>());
    let stats = database.stats();
    println!("{:?}\n{stats}", OPERATIONS.iter().zip(counts).collect::<Vec<_>>());
    // A run that did less than this was no stress.
    let least = owners * seconds.min(10) / 2;
    for (operation, (count, share)) in OPERATIONS.iter().zip(counts.into_iter().zip(SHARES)) {
        assert!(count >= 1.max(least * share / 1000), "only {count} of {operation:?}");
    }
    assert!(stats.flushes >= 1 && stats.compactions.iter().sum::<u64>() >= 1, "{stats}");
    let [shown, refused] = stress.past.each_ref().map(|count| count.load(Ordering::Relaxed));
    let (oldest, visible) = (stress.single.oldest_seqno().unwrap(), database.visible_seqno());
    println!(
        "the oldest retained seqno is {oldest} of {visible}; the past was shown {shown} times, refused {refused} times"
    );
    let share = SHARES[Operation::Past as usize];
    assert!(shown >= 1.max(least * share / 1000 / 4), "the past was shown only {shown} times, refused {refused} times");
    let (pair, single) = std::mem::take(&mut *written.lock());
    let expected = |model: BTreeMap<u64, u64>| model.into_iter().collect::<Vec<_>>();
    let expected = [("left", expected(pair.clone())), ("right", expected(pair)), ("single", expected(single))];
    drop((stress, database));
    let database = open();
    let then = database.snapshot_at(visible).unwrap();
    for (name, expected) in expected {
        let keyspace = database.open_keyspace(name).unwrap();
        assert_eq!(rows(keyspace.iter()), expected, "{name} after reopening");
        assert_eq!(rows(then.iter(&keyspace)), expected, "{name} as of the last seqno before");
    }
}

/// P9: ends the process if a thread is at one operation for longer than `STRESS_STUCK_SECS`, and says what everybody is at.
fn watch(doing: &[Doing], running: &AtomicU64, database: &Database) {
    const LOOK: Duration = Duration::from_millis(20);
    let limit = Duration::from_secs(number_in("STRESS_STUCK_SECS", 10));
    let (mut ticks, mut share, mut shared_at) = (machine_ticks(), 1.0, Instant::now());
    let mut seen = vec![(0, Duration::ZERO, Duration::ZERO); doing.len()];
    let mut last = Instant::now();
    while running.load(Ordering::Relaxed) > 0 {
        thread::park_timeout(LOOK);
        // Time in which this thread too did not run is the machine's, not a stuck thread's.
        let passed = last.elapsed().min(5 * LOOK).mul_f64(share);
        if shared_at.elapsed() > Duration::from_secs(1) {
            share = share_since(&mut ticks).unwrap_or(1.0);
            shared_at = Instant::now();
        }
        last = Instant::now();
        for (doing, (step, since, longest)) in doing.iter().zip(&mut seen) {
            let now = doing.step.load(Ordering::Relaxed);
            *since = if now == *step { *since + passed } else { Duration::ZERO };
            *step = now;
            *longest = (*longest).max(*since);
        }
        // A thread that has ended is at its last step for ever.
        let going = |doing: &Doing| doing.proc.lock().as_ref().is_none_or(|proc| proc.exists());
        let stuck = |(doing, (_, since, _)): (&Doing, &(u64, Duration, Duration))| *since > limit && going(doing);
        if doing.iter().zip(&seen).any(stuck) {
            // Not by a macro, whose output the harness would keep to itself.
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "P9: a thread is stuck; {}", database.stats());
            for (owner, (doing, (_, since, _))) in doing.iter().zip(&seen).enumerate() {
                let _ = writeln!(stderr, "thread {owner}: {since:.1?} at {}", doing.describe());
            }
            std::process::abort();
        }
    }
    let longest = seen.iter().map(|(_, _, longest)| *longest).max().unwrap_or_default();
    println!("the longest operation took {longest:.1?} of the time that was this process's");
}
