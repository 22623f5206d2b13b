//! The limit of a database's memory: it holds, idle keyspaces make room, and whoever cannot be helped is told by what.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::DB;
use file_system::{Clock, Environment, Fault, FaultEffect, FileOperation, Simulation};
use lsm_facade::{
    Access, Database, DatabaseBuilder, Error, Event, EventListener, Iter, Keyspace, KeyspaceOptions, MemoryStats,
    Strategy,
};

const KIB: u64 = 1 << 10;

/// Small segments, and no cache: what is left is the memtables' and the tables'.
fn builder(simulation: &Simulation, memory: u64) -> DatabaseBuilder {
    Database::builder(DB)
        .environment(simulation.environment())
        .background_threads(0)
        .compact_when_idle_after(None)
        .log_segment_bytes(1 << 20)
        .block_cache_bytes(0)
        .memory_bytes_max(memory)
}

/// Memtables that no keyspace would flush by itself before all of them together are far beyond the limit.
fn patient() -> KeyspaceOptions {
    KeyspaceOptions::default().memtable_bytes(1 << 20).write_buffer_bytes(16 << 20)
}

fn keyspaces(database: &Database, count: u32) -> Vec<Keyspace> {
    (0..count).map(|number| database.create_keyspace(&format!("{number:03}"), patient()).unwrap()).collect()
}

fn row(number: u32) -> ([u8; 4], Vec<u8>) {
    (number.wrapping_mul(0x9E37_79B1).to_be_bytes(), vec![number as u8; 100 + number as usize % 200])
}

fn insert(keyspace: &Keyspace, number: u32) -> Result<(), Error> {
    let (key, value) = row(number);
    keyspace.insert(key, value)
}

#[track_caller]
fn check(keyspace: &Keyspace, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        let (key, value) = row(number);
        assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(value.as_slice()), "{number} in {}", keyspace.name());
    }
}

/// What memtables may hold at most: all but the eighth that is for tables, and the KiB that an empty one is, which no keyspace
/// is refused.
fn for_memtables(memory: u64, keyspaces: u64) -> u64 {
    memory - memory / 8 + keyspaces * KIB
}

/// P13: without threads, and so the same each time: the limit holds at every step, and every row is there.
#[test]
fn the_limit_holds_at_every_step() {
    let simulation = Simulation::new(1);
    let memory = 512 * KIB;
    let database = builder(&simulation, memory).open().unwrap();
    let keyspaces = keyspaces(&database, 12);
    for number in 0..6000 {
        // Some keyspaces are busier than others.
        insert(&keyspaces[(number % 12 * (number % 5) / 4) as usize], number).unwrap();
        let MemoryStats { memtables, memtables_most, tables, .. } = database.stats().memory;
        assert!(memtables_most <= for_memtables(memory, 12) && memtables + tables <= memory, "{number}");
    }
    let stats = database.stats();
    assert!(stats.memory.memtables_most > memory / 2, "the limit was of no concern: {stats}");
    assert!(stats.flushes >= 5, "{stats}");
    for (index, keyspace) in keyspaces.iter().enumerate() {
        check(keyspace, (0..6000).filter(|number| (number % 12 * (number % 5) / 4) as usize == index));
    }
    drop(keyspaces);
    database.close().unwrap();
}

/// P13, P9: with writers, readers and workers on threads of their own it holds too, nobody waits for ever, and every row
/// is there.
#[test]
fn the_limit_holds_with_many_writers() {
    let simulation = Simulation::new(2);
    let memory = 384 * KIB;
    let database = builder(&simulation, memory).background_threads(2).open().unwrap();
    let keyspaces = keyspaces(&database, 8);
    const EACH: u32 = 1500;
    thread::scope(|scope| {
        for writer in 0..4_u32 {
            let (database, keyspaces) = (&database, &keyspaces);
            scope.spawn(move || {
                for number in writer * EACH..(writer + 1) * EACH {
                    if number % 16 == 0 {
                        let mut batch = database.batch();
                        for keyspace in keyspaces {
                            let (key, value) = row(number);
                            batch.insert(keyspace, key, value).unwrap();
                        }
                        database.write(&batch).unwrap();
                    } else {
                        insert(&keyspaces[number as usize % 8], number).unwrap();
                    }
                }
            });
        }
    });
    let stats = database.stats();
    assert!(stats.memory.memtables_most <= for_memtables(memory, 8), "{stats}");
    assert!(stats.flushes >= 5, "{stats}");
    for (index, keyspace) in keyspaces.iter().enumerate() {
        check(keyspace, (0..4 * EACH).filter(|number| number % 16 == 0 || *number as usize % 8 == index));
    }
}

/// P13: keyspaces that nobody writes to any more make room for those that are written to, though each of them holds little.
#[test]
fn idle_keyspaces_make_room() {
    let simulation = Simulation::new(3);
    let memory = 512 * KIB;
    let database = builder(&simulation, memory).open().unwrap();
    let keyspaces = keyspaces(&database, 71);
    let (busy, idle) = keyspaces.split_first().unwrap();
    for keyspace in idle {
        insert(keyspace, 7).unwrap();
    }
    let held = |keyspace: &Keyspace| keyspace.stats().memtable_entries > 0;
    for number in 0..4000 {
        insert(busy, number).unwrap();
    }
    let stats = database.stats();
    let still = idle.iter().filter(|keyspace| held(keyspace)).count();
    assert!((1..40).contains(&still), "{still} idle keyspaces hold memory, not more than half of it in sum: {stats}");
    assert!(stats.memory.memtables_most <= for_memtables(memory, 71), "{stats}");
    for keyspace in idle {
        check(keyspace, 7..8);
    }
    check(busy, 0..4000);
}

/// Writes until there is no memory, keeping an iterator for every few rows; returns how many rows were written.
fn fill_and_pin(keyspace: &Keyspace, pins: &mut Vec<Iter>) -> (u32, Error) {
    for number in 0..100_000 {
        match insert(keyspace, number) {
            Ok(()) if number % 20 == 0 => pins.push(keyspace.iter()),
            Ok(()) => {}
            Err(error) => return (number, error),
        }
    }
    panic!("iterators cost nothing");
}

/// P13: iterators that keep what was flushed are named as who holds the memory; nothing is lost, and without them writes go
/// on.
#[test]
fn what_iterators_hold_is_told_and_comes_back() {
    for threads in [0, 1] {
        let simulation = Simulation::new(4);
        let memory = 256 * KIB;
        let database = builder(&simulation, memory).background_threads(threads).open().unwrap();
        let keyspace = database.create_keyspace("a", patient()).unwrap();
        let mut pins = Vec::new();
        let (written, error) = fill_and_pin(&keyspace, &mut pins);
        let Error::MemoryFull { needed_bytes, held, .. } = &error else { panic!("{error}") };
        assert!(error.is_retryable());
        assert!(held.memtables + needed_bytes > held.memtables_max, "{error}");
        assert!(held.memtables_kept > held.memtables / 2, "they are flushed: {error}");
        assert_eq!(held.bytes_max, memory);
        assert!(database.stats().memory.memtables_most <= for_memtables(memory, 1));
        assert!(insert(&keyspace, written).is_err(), "and again");
        check(&keyspace, 0..written);
        // The oldest reads what it always did.
        assert_eq!(pins.first_mut().unwrap().count(), 1);
        drop(pins);
        for number in written..written + 2000 {
            insert(&keyspace, number).unwrap();
        }
        check(&keyspace, 0..written + 2000);
        let stats = database.stats();
        assert!(
            stats.stalls_by_cause.memory.count > 0 && stats.stalls >= stats.stalls_by_cause.memory.count,
            "{stats}"
        );
    }
}

/// P13: what a batch would need at once is asked for at once, and if the whole limit does not hold it that is said.
#[test]
fn a_batch_that_the_limit_cannot_hold_is_refused_whole() {
    let simulation = Simulation::new(5);
    let memory = 64 * KIB;
    let database = builder(&simulation, memory).open().unwrap();
    let keyspaces = keyspaces(&database, 12);
    let mut batch = database.batch();
    for keyspace in &keyspaces {
        batch.insert(keyspace, "key", "value").unwrap();
    }
    let error = database.write(&batch).unwrap_err();
    let Error::MemoryFull { needed_bytes, .. } = error else { panic!("{error}") };
    assert!(needed_bytes > for_memtables(memory, 12), "{needed_bytes}");
    for keyspace in &keyspaces {
        assert_eq!(keyspace.get("key").unwrap(), None);
        keyspace.insert("key", "one by one").unwrap();
    }
    assert!(database.stats().memory.memtables_most <= for_memtables(memory, 12));
}

/// P11, P13: a batch of more bytes than the limit takes no memtable, and is written.
#[test]
fn a_large_batch_takes_no_memtable() {
    let simulation = Simulation::new(6);
    let database = builder(&simulation, 64 * KIB).open().unwrap();
    let keyspace = database.create_keyspace("a", patient()).unwrap();
    let mut batch = database.batch();
    for number in 0..2000 {
        let (key, value) = row(number);
        batch.insert(&keyspace, key, value).unwrap();
    }
    database.write(&batch).unwrap();
    check(&keyspace, 0..2000);
}

/// P13: open tables count, and are closed rather than that they pass the limit.
#[test]
fn tables_are_closed_at_the_limit() {
    let simulation = Simulation::new(7);
    let memory = 128 * KIB;
    let database = builder(&simulation, memory).access(Access::Pread).open().unwrap();
    let options = patient().strategy(Strategy::Fifo);
    let keyspace = database.create_keyspace("a", options).unwrap();
    // In order, so that a get looks into one table.
    let insert = |number: u32| keyspace.insert(number.to_be_bytes(), row(number).1).unwrap();
    let check = |number: u32| {
        assert_eq!(keyspace.get(number.to_be_bytes()).unwrap().as_deref(), Some(row(number).1.as_slice()));
    };
    for table in 0..200 {
        (table * 10..(table + 1) * 10).for_each(insert);
        keyspace.flush().unwrap();
    }
    for _ in 0..2 {
        for number in 0..2000 {
            check(number);
            // One that was evicted goes when no thread of the process, be it another test's, may still look at it: as soon as
            // others are opened after that.
            let begun = Instant::now();
            for other in (number..).step_by(10) {
                let MemoryStats { memtables, tables, .. } = database.stats().memory;
                if memtables + tables <= memory + 8 * KIB {
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(10), "{number}: {memtables} and {tables} bytes");
                thread::yield_now();
                check(other % 2000);
            }
        }
    }
    assert!(database.stats().memory.tables > 16 * KIB, "what is free is used");
    // Memtables push them back, to the eighth that is theirs.
    (2000..4000).for_each(insert);
    (0..4000).for_each(check);
}

/// P13, P9: whoever waits for memory when the database is closed is told so, and closing waits for nobody.
#[test]
fn closing_ends_the_wait_for_memory() {
    let simulation = Simulation::new(8);
    let database = builder(&simulation, 64 * KIB).background_threads(1).open().unwrap();
    let keyspaces = keyspaces(&database, 4);
    let written = AtomicU32::new(0);
    let began = Instant::now();
    thread::scope(|scope| {
        for keyspace in &keyspaces {
            let written = &written;
            scope.spawn(move || {
                for number in 0.. {
                    match insert(keyspace, number) {
                        Ok(()) => written.fetch_add(1, Ordering::Relaxed),
                        Err(Error::Closed) => break,
                        Err(error) => panic!("{error}"),
                    };
                }
            });
        }
        // If they do not get so far they end all the same, and then the test fails.
        while written.load(Ordering::Relaxed) < 2000 && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(1));
        }
        database.close().unwrap();
    });
    assert!(began.elapsed() < Duration::from_secs(60));
    assert!(database.stats().memory.memtables_most <= for_memtables(64 * KIB, 4));
}

/// P9, P13: while the background is suspended nobody waits for memory in vain.
#[test]
fn a_suspended_background_ends_the_wait_for_memory() {
    let simulation = Simulation::new(9);
    let database = builder(&simulation, 64 * KIB).background_threads(1).open().unwrap();
    let keyspace = database.create_keyspace("a", patient()).unwrap();
    let suspended = database.suspend_background().unwrap();
    let error = (0..10_000).find_map(|number| insert(&keyspace, number).err()).unwrap();
    assert!(matches!(error, Error::Suspended), "{error}");
    drop(suspended);
    insert(&keyspace, 0).unwrap();
}

/// P13: what a log holds that was written without a limit is opened with one, and flushed down to it.
#[test]
fn a_long_log_is_brought_within_the_limit() {
    let simulation = Simulation::new(10);
    let database = builder(&simulation, 0).open().unwrap();
    let keyspace = database.create_keyspace("a", patient()).unwrap();
    for number in 0..3000 {
        insert(&keyspace, number).unwrap();
    }
    drop((keyspace, database));
    let database = builder(&simulation, 128 * KIB).open().unwrap();
    let keyspace = database.open_keyspace("a").unwrap();
    assert!(database.stats().memory.memtables > 128 * KIB, "as the log has it");
    for number in 3000..3200 {
        insert(&keyspace, number).unwrap();
    }
    assert!(database.stats().memory.memtables <= for_memtables(128 * KIB, 1));
    check(&keyspace, 0..3200);
}

/// P13, L4: who writes while what was replayed is being flushed waits for that, and is not told that somebody keeps the memory.
#[test]
fn writers_wait_while_what_was_replayed_is_flushed() {
    for round in 0..20 {
        let simulation = Simulation::new(100 + round);
        let database = builder(&simulation, 0).open().unwrap();
        let keyspace = database.create_keyspace("a", patient()).unwrap();
        for number in 0..3000 {
            insert(&keyspace, number).unwrap();
        }
        drop((keyspace, database));
        let database = builder(&simulation, 128 * KIB).background_threads(2).open().unwrap();
        let keyspace = database.open_keyspace("a").unwrap();
        for number in 3000..3050 {
            insert(&keyspace, number).unwrap();
        }
        assert!(database.stats().memory.memtables_most > 128 * KIB, "as the log has it");
    }
}

/// P13: memtables that were made ahead are given up before anybody is told that there is no memory.
#[test]
fn memtables_made_ahead_make_room() {
    let simulation = Simulation::new(15);
    let memory = 128 * KIB;
    let database = builder(&simulation, memory).open().unwrap();
    // Their empty memtables take more than half of the room, and would take all of it twice.
    let mut keyspaces = Vec::new();
    while database.stats().memory.memtables < memory / 2 {
        keyspaces.push(database.create_keyspace(&format!("{:03}", keyspaces.len()), patient()).unwrap());
    }
    for number in 0..3 {
        for keyspace in &keyspaces {
            insert(keyspace, number).unwrap();
            keyspace.flush().unwrap();
        }
    }
    // More than was left when they were made.
    let mut batch = database.batch();
    for keyspace in &keyspaces[..3] {
        batch.insert(keyspace, "key", "value").unwrap();
    }
    database.write(&batch).unwrap();
    assert!(database.stats().memory.memtables_most <= for_memtables(memory, 0));
}

/// P9, P13: a listener that writes from a job never waits for memory, which that job may be about to make: it writes, or is told
/// that there is none.
#[test]
fn a_listener_that_writes_from_a_job_waits_for_no_memory() {
    #[derive(Debug, Default)]
    struct Writes {
        to: OnceLock<Keyspace>,
        begun: AtomicU32,
        written: AtomicU32,
        refused: AtomicU32,
    }

    impl EventListener for Writes {
        fn on_event(&self, event: &Event<'_>) {
            let is_job = matches!(event, Event::FlushBegun { .. } | Event::FlushEnded { .. });
            let Some(keyspace) = self.to.get().filter(|_| is_job) else { return };
            self.begun.fetch_add(1, Ordering::Relaxed);
            match keyspace.insert(event.to_string(), [0; 300]) {
                Ok(()) => _ = self.written.fetch_add(1, Ordering::Relaxed),
                Err(Error::MemoryFull { .. } | Error::Closed) => _ = self.refused.fetch_add(1, Ordering::Relaxed),
                Err(_) => {}
            }
        }
    }

    for threads in [0, 1] {
        let simulation = Simulation::new(12);
        let writes = Arc::new(Writes::default());
        let builder = builder(&simulation, 64 * KIB).event_listener(writes.clone());
        let database = builder.background_threads(threads).open().unwrap();
        let keyspaces = keyspaces(&database, 2);
        writes.to.set(keyspaces[0].clone()).unwrap();
        thread::scope(|scope| {
            for keyspace in &keyspaces {
                scope.spawn(move || (0..1500).for_each(|number| insert(keyspace, number).unwrap()));
            }
        });
        check(&keyspaces[1], 0..1500);
        database.close().unwrap();
        let [begun, written, refused] =
            [&writes.begun, &writes.written, &writes.refused].map(|count| count.load(Ordering::Relaxed));
        assert!(begun >= 10, "{begun}");
        assert_eq!(begun, written + refused, "neither panics nor other errors");
    }
}

/// P9, P13: many writers for whom there is no memory are told so together, and not each after asking as often as the first.
#[test]
fn writers_in_a_queue_are_refused_together() {
    #[derive(Debug)]
    struct Sleeps(Instant, AtomicU32);

    impl Clock for Sleeps {
        fn monotonic(&self) -> Duration {
            self.0.elapsed()
        }

        fn unix_time(&self) -> Duration {
            self.0.elapsed()
        }

        fn sleep(&self, duration: Duration) {
            self.1.fetch_add(1, Ordering::Relaxed);
            thread::sleep(duration);
        }
    }

    const WRITERS: usize = 50;
    let simulation = Simulation::new(13);
    let clock = Arc::new(Sleeps(Instant::now(), AtomicU32::new(0)));
    let environment = Environment { clock: clock.clone(), ..simulation.environment() };
    let builder = builder(&simulation, 256 * KIB).environment(environment).background_threads(1);
    let database = builder.open().unwrap();
    let keyspace = database.create_keyspace("a", patient()).unwrap();
    let mut pins = Vec::new();
    fill_and_pin(&keyspace, &mut pins);
    let before = clock.1.load(Ordering::Relaxed);
    let (together, refused) = (Barrier::new(WRITERS), AtomicU32::new(0));
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                together.wait();
                // More than what flushing the little that nobody reads gives back.
                match keyspace.insert("key", vec![0; 7 << 10]) {
                    Ok(()) => {}
                    Err(Error::MemoryFull { .. }) => _ = refused.fetch_add(1, Ordering::Relaxed),
                    Err(error) => panic!("{error}"),
                }
            });
        }
    });
    assert!(refused.load(Ordering::Relaxed) >= 40, "little was left");
    let sleeps = clock.1.load(Ordering::Relaxed) - before;
    assert!(sleeps < 8 * WRITERS as u32, "{sleeps} sleeps for {WRITERS} writers, of which each asks 16 times alone");
}

/// P9, P13: a compaction that fails, of whichever keyspace, is no writer's who waits for memory: flushes make it.
#[test]
fn a_compaction_that_fails_does_not_keep_writers_from_memory() {
    /// The disk is full for compactions. There is one worker, and so no flush beside them.
    #[derive(Debug)]
    struct Full(Simulation, AtomicU32);

    impl EventListener for Full {
        fn on_event(&self, event: &Event<'_>) {
            match event {
                Event::CompactionBegun { .. } => {
                    let full = Fault::on(FileOperation::Create).path_contains("/tables").effect(FaultEffect::NoSpace);
                    self.0.files.inject(full);
                    self.1.fetch_add(1, Ordering::Relaxed);
                    // Writers run out of memory meanwhile.
                    thread::sleep(Duration::from_millis(50));
                }
                Event::CompactionEnded { .. } => self.0.files.clear_faults(),
                _ => {}
            }
        }
    }

    let simulation = Simulation::new(14);
    let full = Arc::new(Full(simulation.clone(), AtomicU32::new(0)));
    let builder = builder(&simulation, 128 * KIB).event_listener(full.clone()).background_threads(1);
    let database = builder.open().unwrap();
    let compacted = database.create_keyspace("compacted", patient().level_zero_runs_max(3)).unwrap();
    for _ in 0..2 {
        insert(&compacted, 0).unwrap();
        compacted.flush().unwrap();
    }
    // So that this one itself may have any number of runs.
    let keyspace = database.create_keyspace("a", patient().strategy(Strategy::Fifo)).unwrap();
    thread::scope(|scope| {
        for writer in 0..4 {
            let keyspace = &keyspace;
            scope.spawn(move || {
                for number in writer * 100..(writer + 1) * 100_u32 {
                    keyspace.insert(number.to_be_bytes(), [0; 3 << 10]).unwrap();
                }
            });
        }
    });
    assert_eq!(keyspace.iter().count(), 400);
    assert!(full.1.load(Ordering::Relaxed) >= 2, "compactions were tried");
}

/// Without a limit everything is counted, and nobody is held up.
#[test]
fn without_a_limit_memory_is_counted() {
    let simulation = Simulation::new(11);
    let database = builder(&simulation, 0).block_cache_bytes(1 << 20).open().unwrap();
    let keyspace = database.create_keyspace("a", patient()).unwrap();
    for number in 0..1000 {
        insert(&keyspace, number).unwrap();
    }
    let stats = database.stats();
    let memory = stats.memory;
    assert_eq!((memory.bytes_max, memory.memtables_max, memory.block_cache_max), (0, 0, 1 << 20));
    let told = keyspace.stats().memtable_bytes;
    assert!((told..told + told / 8).contains(&memory.memtables), "{stats}");
    assert_eq!(memory.bytes(), memory.memtables + memory.tables + (1 << 20));
    assert_eq!(stats.stalls, 0);
}
