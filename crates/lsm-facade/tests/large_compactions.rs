//! Large compactions: cut into parts that threads share, followed by who asked for them, and cancelled.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use file_system::{Clock, Environment, Fault, FaultEffect, FileOperation, FileSystem, Simulation};
use lsm_facade::{
    Collected, CompactionControl, CompactionProgress, Compression, Database, DatabaseBuilder, Error, Event,
    EventListener, Keyspace, KeyspaceOptions,
};

const KEYS: u32 = 800;

type Row = (Vec<u8>, Vec<u8>);

/// Adds up what merges did.
#[derive(Debug, Default)]
struct Merges(Mutex<(Collected, Vec<u64>, u64)>);

impl EventListener for Merges {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::CompactionEnded { work, .. } = event
            && work.read_bytes > 0
        {
            let mut merges = self.0.lock().unwrap();
            merges.0 += work.entries;
            merges.1.push(work.parts);
            merges.2 += work.helped;
        }
    }
}

fn builder(environment: Environment) -> DatabaseBuilder {
    Database::builder("/db").environment(environment).background_threads(0).compact_when_idle_after(None)
}

fn options() -> KeyspaceOptions {
    KeyspaceOptions::default().table_bytes(64 << 10).block_bytes(1024).compression(Compression::None)
}

/// Two runs of level 0 that overlap everywhere: some keys overwritten, some removed, some new.
fn fill(keyspace: &Keyspace) {
    for round in 0..2_u32 {
        for number in (0..KEYS).filter(|number| round == 0 || !number.is_multiple_of(3)) {
            match (round, number % 5) {
                (1, 0) => keyspace.remove(number.to_be_bytes()).unwrap(),
                _ => keyspace.insert(number.to_be_bytes(), [round as u8; 1000]).unwrap(),
            }
        }
        keyspace.flush().unwrap();
    }
}

fn rows(keyspace: &Keyspace) -> Vec<Row> {
    keyspace.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn table_names(simulation: &Simulation) -> Vec<String> {
    simulation.files.read_dir(Path::new("/db/tables")).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// C2, C3, R3: a compaction of one part and one of four, on one thread and on several, leave the same rows, for snapshots
/// too, and have kept and dropped the same entries.
#[test]
fn one_part_and_four_leave_the_same_rows() {
    let compacted = |threads: usize, parts: usize| {
        let simulation = Simulation::new(1);
        let merges = Arc::new(Merges::default());
        let builder = builder(simulation.environment()).background_threads(threads).event_listener(merges.clone());
        let database = builder.subcompactions_max(parts).open().unwrap();
        let keyspace = database.create_keyspace("a", options()).unwrap();
        keyspace.insert(7_u32.to_be_bytes(), "before").unwrap();
        let snapshot = database.snapshot().unwrap();
        fill(&keyspace);
        keyspace.compact().unwrap();
        let stats = keyspace.stats();
        assert_eq!((stats.levels.len(), stats.levels[0].runs), (1, 1), "one run is left");
        assert!(stats.levels[0].tables > 8, "of many tables");
        let old = snapshot.get(&keyspace, 7_u32.to_be_bytes()).unwrap().map(|value| value.to_vec());
        assert_eq!(old.as_deref(), Some(&b"before"[..]));
        let rows = rows(&keyspace);
        drop((snapshot, keyspace));
        database.close().unwrap();
        let merges = merges.0.lock().unwrap();
        (rows, merges.0, merges.1.clone())
    };
    let (whole, collected, parts) = compacted(0, 1);
    assert_eq!(parts, [1]);
    assert!(collected.hidden > 100, "{collected:?}");
    for threads in [0, 3] {
        let (rows, in_parts, parts) = compacted(threads, 4);
        assert_eq!(parts, [4]);
        assert!(rows == whole, "the same rows with {threads} threads");
        assert_eq!(in_parts, collected);
    }
}

/// A clock that stands still while nobody sleeps, and on which a sleep lasts until so many threads have slept.
#[derive(Debug, Default)]
struct Meeting {
    now_ns: AtomicU64,
    wanted: AtomicUsize,
    came: Mutex<HashSet<ThreadId>>,
    enough: Condvar,
}

impl Clock for Meeting {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, duration: Duration) {
        self.now_ns.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
        let mut came = self.came.lock().unwrap();
        came.insert(thread::current().id());
        self.enough.notify_all();
        let too_few = |came: &mut HashSet<ThreadId>| came.len() < self.wanted.load(Ordering::Relaxed);
        drop(self.enough.wait_timeout_while(came, Duration::from_secs(20), too_few).unwrap());
    }
}

/// P9: workers take parts of a compaction that somebody else leads, and one of them stays free for flushes.
#[test]
fn workers_help_with_parts() {
    let simulation = Simulation::new(2);
    let (clock, merges) = (Arc::new(Meeting::default()), Arc::new(Merges::default()));
    let environment = Environment { clock: clock.clone(), ..simulation.environment() };
    let builder = builder(environment).background_threads(3).compaction_bytes_per_second(1 << 20);
    let database = builder.event_listener(merges.clone()).subcompactions_max(6).open().unwrap();
    // Enough for each part to ask the rate.
    let keyspace = database.create_keyspace("a", options()).unwrap();
    for round in 0..2_u8 {
        for number in 0..2 * KEYS {
            keyspace.insert(number.to_be_bytes(), [round; 2000]).unwrap();
        }
        keyspace.flush().unwrap();
    }
    clock.came.lock().unwrap().clear();
    // The caller and two of the three workers.
    clock.wanted.store(3, Ordering::Relaxed);
    keyspace.compact().unwrap();
    clock.wanted.store(0, Ordering::Relaxed);
    // At least: after one of them has ended its part, the third worker may have taken the next in its place.
    let wrote = clock.came.lock().unwrap().len();
    assert!((3..=4).contains(&wrote), "{wrote} threads wrote parts");
    let merges = merges.0.lock().unwrap();
    assert_eq!(merges.1, [6]);
    assert!((2..6).contains(&merges.2), "{merges:?}");
}

/// C4: whichever part fails, and at whichever table, the outputs of all parts go, the rows stay, and it can be done again.
#[test]
fn a_part_that_fails_takes_the_others_outputs_along() {
    for threads in [0, 3] {
        let simulation = Simulation::new(3);
        let builder = builder(simulation.environment()).background_threads(threads).subcompactions_max(4);
        let database = builder.open().unwrap();
        let keyspace = database.create_keyspace("a", options()).unwrap();
        fill(&keyspace);
        database.wait_until_idle().unwrap();
        let (before, rows_before) = (table_names(&simulation), rows(&keyspace));
        let mut failures = 0;
        loop {
            let full = Fault::on(FileOperation::Create).path_contains("/tables").nth(1 + 3 * failures);
            let fault = simulation.files.inject(full.effect(FaultEffect::NoSpace));
            let compacted = keyspace.compact();
            let hits = simulation.files.fault_hits(fault);
            simulation.files.clear_faults();
            database.wait_until_idle().unwrap();
            match compacted {
                Ok(()) if hits == 0 => break,
                Ok(()) => panic!("table {failures} could not be created and nobody noticed"),
                Err(error) => assert!(matches!(error, Error::DiskFull { .. }), "{error}"),
            }
            failures += 1;
            assert_eq!(table_names(&simulation), before, "after failure {failures}");
        }
        assert!(failures > 2, "{failures}");
        assert!(rows(&keyspace) == rows_before);
    }
}

/// A clock on which sleeping takes no time, and who has asked for a compaction looks how far it is.
#[derive(Debug, Default)]
struct Watch {
    now_ns: AtomicU64,
    control: Mutex<CompactionControl>,
    seen: Mutex<Vec<CompactionProgress>>,
    cancel_at: AtomicUsize,
}

impl Clock for Watch {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    fn unix_time(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, duration: Duration) {
        self.now_ns.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
        let control = self.control.lock().unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.push(control.progress());
        if seen.len() == self.cancel_at.load(Ordering::Relaxed) {
            control.cancel();
        }
    }
}

/// C4: wherever a compaction is cancelled the database is whole and none of its tables is left; its progress never goes
/// back, and is complete when it is done.
#[test]
fn a_cancelled_compaction_leaves_nothing_and_progress_never_goes_back() {
    let simulation = Simulation::new(4);
    let clock = Arc::new(Watch::default());
    let environment = Environment { clock: clock.clone(), ..simulation.environment() };
    // A step of the rate is a look.
    let merges = Arc::new(Merges::default());
    let builder = builder(environment).compaction_bytes_per_second(4 << 20).subcompactions_max(2);
    let database = builder.event_listener(merges.clone()).open().unwrap();
    let keyspace = database.create_keyspace("a", options()).unwrap();
    fill(&keyspace);
    database.wait_until_idle().unwrap();
    let (before, rows_before) = (table_names(&simulation), rows(&keyspace));
    let mut cancelled = 0;
    loop {
        let control = CompactionControl::new();
        *clock.control.lock().unwrap() = control.clone();
        clock.seen.lock().unwrap().clear();
        clock.cancel_at.store(1 + 3 * cancelled, Ordering::Relaxed);
        let compacted = keyspace.compact_range_with::<&[u8]>(.., &control);
        let seen = clock.seen.lock().unwrap().clone();
        assert!(seen.iter().all(|progress| progress.done_bytes <= progress.planned_bytes), "{seen:?}");
        let rises = |pair: &[CompactionProgress]| {
            pair[0].done_bytes <= pair[1].done_bytes && pair[0].planned_bytes <= pair[1].planned_bytes
        };
        assert!(seen.windows(2).all(rises), "{seen:?}");
        assert!(rows(&keyspace) == rows_before);
        if let Err(error) = compacted {
            assert!(matches!(error, Error::Cancelled), "{error}");
            assert!(control.is_cancelled());
            cancelled += 1;
            assert_eq!(table_names(&simulation), before, "after the look at which it was cancelled: {cancelled}");
            continue;
        }
        assert!(!control.is_cancelled());
        let progress = control.progress();
        assert_eq!(progress.done_bytes, progress.planned_bytes);
        assert!(progress.planned_bytes > 1 << 20, "{progress}");
        let between = seen.iter().filter(|seen| (1..progress.done_bytes).contains(&seen.done_bytes)).count();
        assert!(between > 3, "it was seen on its way: {seen:?}");
        break;
    }
    assert!(cancelled > 2, "{cancelled}");
    assert_eq!(keyspace.stats().levels.len(), 1, "done in the end");
    assert_eq!(merges.0.lock().unwrap().1.len(), cancelled + 1, "each has told of what it read for nothing");
}

/// Keeps a worker in its first flush until it is let go.
#[derive(Debug)]
struct HoldsFlush {
    begun: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl EventListener for HoldsFlush {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::FlushBegun { .. } = event {
            self.begun.send(()).unwrap();
            // Gone: nobody holds it any longer.
            let _ = self.go_on.lock().unwrap().recv();
        }
    }
}

/// Keeps whoever begins a compaction of the keyspace "held" until it is let go.
#[derive(Debug)]
struct HoldsCompaction {
    begun: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl EventListener for HoldsCompaction {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::CompactionBegun { keyspace: "held", .. } = event {
            self.begun.send(()).unwrap();
            // Gone: nobody holds it any longer.
            let _ = self.go_on.lock().unwrap().recv();
        }
    }
}

/// P9: a compaction that a caller leads, however long, takes the place of none of the background's.
#[test]
fn a_callers_compaction_holds_up_no_other_keyspace() {
    let simulation = Simulation::new(8);
    let ((begun, has_begun), (let_go, go_on)) = (mpsc::channel(), mpsc::channel());
    let holds = Arc::new(HoldsCompaction { begun, go_on: Mutex::new(go_on) });
    let database = builder(simulation.environment()).background_threads(2).event_listener(holds).open().unwrap();
    let held = database.create_keyspace("held", options().level_zero_runs_max(100)).unwrap();
    let other = database.create_keyspace("other", options().level_zero_runs_max(2)).unwrap();
    fill(&held);
    thread::scope(|scope| {
        let compacting = scope.spawn(|| held.compact());
        has_begun.recv_timeout(Duration::from_secs(60)).expect("what is to be held up has not begun");
        other.insert("key", "value").unwrap();
        other.flush().unwrap();
        let level_zero = || other.stats().levels.iter().find(|level| level.level == 0).map_or(0, |level| level.runs);
        let begun = Instant::now();
        while level_zero() > 0 && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(1));
        }
        let left = level_zero();
        drop(let_go);
        compacting.join().unwrap().unwrap();
        assert_eq!(left, 0, "its runs stand while the other keyspace is compacted");
    });
}

/// P9: who waits for a job on behalf of a compaction is woken when that is cancelled.
#[test]
fn cancelling_wakes_who_waits_for_a_job() {
    let simulation = Simulation::new(5);
    let ((begun, has_begun), (let_go, go_on)) = (mpsc::channel(), mpsc::channel());
    let holds = Arc::new(HoldsFlush { begun, go_on: Mutex::new(go_on) });
    let database = builder(simulation.environment()).background_threads(1).event_listener(holds).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    keyspace.insert("key", "value").unwrap();
    let control = CompactionControl::new();
    thread::scope(|scope| {
        let compacting = scope.spawn(|| keyspace.compact_range_with("a".."z", &control));
        has_begun.recv_timeout(Duration::from_secs(60)).expect("what is to be held up has not begun");
        // Long enough for the caller to have fallen asleep.
        thread::sleep(Duration::from_millis(20));
        control.cancel();
        assert!(matches!(compacting.join().unwrap(), Err(Error::Cancelled)));
        drop(let_go);
    });
    database.wait_until_idle().unwrap();
    assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value");
    assert!(matches!(keyspace.compact_range_with("a".."z", &control), Err(Error::Cancelled)), "it stays cancelled");
    keyspace.compact_range("a".."z").unwrap();
}

/// P9, P10: a writer at a hard limit learns that jobs are suspended, and goes on when they are resumed.
#[test]
fn a_writer_at_a_hard_limit_is_told_of_the_suspension() {
    let simulation = Simulation::new(6);
    let database = builder(simulation.environment()).background_threads(1).open().unwrap();
    let options = KeyspaceOptions::default().memtable_bytes(8 << 10).write_buffer_bytes(8 << 10);
    let keyspace = database.create_keyspace("a", options).unwrap();
    let suspended = database.suspend_background().unwrap();
    let refused = (0..1000_u32).find_map(|number| {
        let error = keyspace.insert(number.to_be_bytes(), [0; 1000]).err()?;
        Some((number, error))
    });
    let (number, error) = refused.expect("there is a limit");
    assert!(matches!(error, Error::Suspended), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("resume"), "{error}");
    assert!(matches!(keyspace.flush(), Err(Error::Suspended)));
    drop(suspended);
    keyspace.insert(number.to_be_bytes(), [0; 1000]).unwrap();
    keyspace.flush().unwrap();
    assert_eq!(keyspace.iter().count(), number as usize + 1, "what was refused was not written");
}

/// P10: large batches count as the runs that they will be, before they are installed.
#[test]
fn large_batches_are_part_of_the_debt() {
    let simulation = Simulation::new(9);
    let database = builder(simulation.environment()).large_batch_bytes(1024).open().unwrap();
    let keyspace = database.create_keyspace("a", options()).unwrap();
    let limit = keyspace.stats().debt.l0_runs_max;
    for round in 0..4 * limit as u32 {
        let mut batch = database.batch();
        for number in 0..4_u32 {
            batch.insert(&keyspace, (round * 4 + number).to_be_bytes(), [1; 1000]).unwrap();
        }
        database.write(&batch).unwrap();
        let stats = keyspace.stats();
        let batches = stats.sealed / 2;
        let runs = stats.levels.iter().find(|level| level.level == 0).map_or(0, |level| level.runs);
        assert!(batches + runs <= limit + 1, "after {round}: {batches} batches and {runs} runs, at most {limit}");
    }
    assert_eq!(keyspace.iter().count() as u64, 16 * limit);
}
