//! What listeners are told: everything that happens, in order, without a lock held, and at nobody's cost.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use file_system::{Fault, FaultEffect, FileOperation, FileSystem, Simulation};
use lsm_facade::{
    Compression, Database, DatabaseBuilder, Ending, Error, Event, EventListener, Health, Keyspace, KeyspaceOptions,
    Plan, PlanKind, Strategy, Timeline, Work,
};
use serde_json::Value;

/// Keeps a word for each event, and what there was to add up.
#[derive(Debug, Default)]
struct Recorder {
    words: Mutex<Vec<String>>,
    flushed: AtomicU64,
    merged: AtomicU64,
    hidden: AtomicU64,
}

impl EventListener for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        let word = match event {
            Event::FlushBegun { job, .. } => format!("flush {job}"),
            Event::FlushEnded { job, ending, work, .. } => {
                self.flushed.fetch_add(work.written_bytes, Ordering::Relaxed);
                format!("flush {job} {ending}")
            }
            Event::CompactionBegun { job, plan, .. } => format!("compaction {job} of {}", plan.inputs.len()),
            Event::CompactionEnded { job, ending, work, .. } => {
                self.merged.fetch_add(work.written_bytes, Ordering::Relaxed);
                self.hidden.fetch_add(work.entries.hidden, Ordering::Relaxed);
                format!("compaction {job} {ending}")
            }
            Event::TableCreated { job, level, .. } => format!("created by {job} in L{level}"),
            Event::TableDeleted { .. } => "deleted".to_owned(),
            Event::ManifestEdited { job, added, removed, .. } => format!("edited by {job}: {added} in, {removed} out"),
            Event::BackgroundError { .. } => "error".to_owned(),
            other => other.to_string(),
        };
        self.words.lock().unwrap().push(word);
    }
}

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.words.lock().unwrap())
    }
}

fn builder(simulation: &Simulation) -> DatabaseBuilder {
    Database::builder("/db").environment(simulation.environment()).background_threads(0)
}

fn two_runs(keyspace: &Keyspace) {
    for value in ["old", "new"] {
        keyspace.insert("a", value).unwrap();
        keyspace.insert("b", value).unwrap();
        keyspace.flush().unwrap();
    }
}

/// C4: a job is told from its beginning to its end, and its tables between.
#[test]
fn jobs_are_told_from_begin_to_end() {
    let simulation = Simulation::new(1);
    let recorder = Arc::new(Recorder::default());
    let database = builder(&simulation).event_listener(recorder.clone()).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    keyspace.insert("a", "old").unwrap();
    keyspace.insert("b", "old").unwrap();
    keyspace.flush().unwrap();
    let told = recorder.take();
    let [begun, created, edited, ended] = &told[..] else { panic!("{told:?}") };
    let job = begun.strip_prefix("flush ").unwrap();
    assert_eq!(*created, format!("created by {job} in L0"));
    assert_eq!(*edited, format!("edited by {job}: 1 in, 0 out"));
    assert_eq!(*ended, format!("flush {job} installed"));

    keyspace.insert("a", "new").unwrap();
    keyspace.flush().unwrap();
    recorder.take();
    keyspace.compact().unwrap();
    database.wait_until_idle().unwrap();
    while database.run_one_job().unwrap() {}
    let told = recorder.take();
    let merge = told.iter().position(|word| word.ends_with(" of 2")).unwrap_or_else(|| panic!("{told:?}"));
    let job = told[merge].strip_prefix("compaction ").unwrap().strip_suffix(" of 2").unwrap();
    let rest: Vec<&str> = told[merge + 1..merge + 4].iter().map(String::as_str).collect();
    assert_eq!(rest[0], format!("created by {job} in L6"), "{told:?}");
    assert_eq!(rest[1], format!("edited by {job}: 1 in, 2 out"));
    assert_eq!(rest[2], format!("compaction {job} installed"));
    assert_eq!(told.iter().filter(|word| *word == "deleted").count(), 2, "{told:?}");
}

/// What listeners are told adds up to what the figures say, by level and by cause.
#[test]
fn what_is_told_adds_up_to_the_figures() {
    let simulation = Simulation::new(2);
    let recorder = Arc::new(Recorder::default());
    let database = builder(&simulation).event_listener(recorder.clone()).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    two_runs(&keyspace);
    keyspace.compact().unwrap();
    let stats = database.stats();
    assert_eq!(recorder.flushed.load(Ordering::Relaxed), stats.flushed_bytes);
    assert_eq!(stats.work[0].written_bytes, stats.flushed_bytes);
    assert_eq!(recorder.merged.load(Ordering::Relaxed), stats.compaction_written_bytes);
    assert_eq!(stats.work[6].written_bytes, stats.compaction_written_bytes);
    assert_eq!(stats.work[6].read_bytes, stats.compaction_read_bytes);
    assert_eq!((stats.work[6].hidden, recorder.hidden.load(Ordering::Relaxed)), (2, 2), "two old values");
    assert!(stats.to_string().contains("jobs into L0") || stats.work[0].busy_ns == 0);
}

/// Keeps what is told of each compaction that has ended.
#[derive(Debug, Default)]
struct Ended(Mutex<Vec<(Plan, Ending, Work)>>);

impl EventListener for Ended {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::CompactionEnded { plan, ending, work, .. } = event {
            self.0.lock().unwrap().push(((*plan).clone(), *ending, *work));
        }
    }
}

impl Ended {
    fn take(&self) -> Vec<(Plan, Ending, Work)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn settle(database: &Database) {
    while database.run_one_job().unwrap() {}
}

/// The lines of the event log that tell of `event`.
fn lines_of(simulation: &Simulation, event: &str) -> Vec<Value> {
    let text = simulation.files.read(Path::new("/db/events.1.jsonl"), 1 << 20).unwrap();
    let lines = text.split(|byte| *byte == b'\n' || *byte == 0).filter(|line| !line.is_empty());
    let lines = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

/// What only moves, or is dropped, is read by nobody; and what is dropped is counted by its cause. Figures, listeners and the
/// event log agree.
#[test]
fn what_moves_or_is_dropped_is_not_read() {
    let simulation = Simulation::new(8);
    let ended = Arc::new(Ended::default());
    let builder = builder(&simulation).event_log_bytes_max(256 << 10).compact_when_idle_after(None);
    let database = builder.event_listener(ended.clone()).open().unwrap();
    let options = KeyspaceOptions::default().compression(Compression::None).level_zero_runs_max(2);
    let moving = database.create_keyspace("moving", options.clone()).unwrap();
    for number in 0..8_u32 {
        moving.insert(number.to_be_bytes(), "value").unwrap();
        moving.flush().unwrap();
        settle(&database);
    }
    let moves = ended.take();
    assert!(!moves.is_empty() && moves.iter().all(|(plan, ..)| plan.kind == PlanKind::Move), "{moves:?}");
    assert!(
        moves.iter().all(|(_, ending, work)| (*ending, *work) == (Ending::Installed, Work::default())),
        "{moves:?}"
    );

    // Room for two tables, of which each holds two rows.
    let minute = Duration::from_secs(60);
    let options = options.strategy(Strategy::Fifo).fifo_bytes_max(50_000).fifo_age_max(Some(minute));
    let fifo = database.create_keyspace("fifo", options).unwrap();
    for number in 0..5_u32 {
        fifo.insert([&number.to_be_bytes()[..], b"a"].concat(), [0; 10_000]).unwrap();
        fifo.insert([&number.to_be_bytes()[..], b"b"].concat(), [0; 10_000]).unwrap();
        fifo.flush().unwrap();
        settle(&database);
    }
    assert_eq!(fifo.iter().count(), 4);
    simulation.clock.advance(2 * minute);
    settle(&database);
    assert_eq!(fifo.iter().count(), 0);
    let drops = ended.take();
    assert!(drops.iter().all(|(plan, ending, _)| plan.kind == PlanKind::Drop && *ending == Ending::Installed));
    let causes: Vec<_> = drops.iter().map(|(.., work)| (work.dropped_for_size, work.dropped_for_age)).collect();
    assert_eq!(causes, [(2, 0), (2, 0), (2, 0), (0, 4)]);
    assert!(drops.iter().all(|(.., work)| (work.read_bytes, work.written_bytes, work.parts) == (0, 0, 0)), "{drops:?}");

    let stats = database.stats();
    assert_eq!((stats.compaction_read_bytes, stats.compaction_written_bytes), (0, 0), "{stats}");
    assert!(stats.work.iter().all(|work| work.read_bytes == 0), "{stats}");
    assert_eq!((stats.work[0].dropped_for_size, stats.work[0].dropped_for_age), (6, 4), "{stats}");
    assert!(stats.to_string().contains("6 entries for size and 4 for age"), "{stats}");

    let lines = lines_of(&simulation, "compaction_ended");
    let words = |line: &Value| (line["kind"].clone(), line["reason"].clone());
    let told: Vec<_> = lines.iter().map(words).collect();
    assert_eq!(told, lines_of(&simulation, "compaction_begun").iter().map(words).collect::<Vec<_>>());
    let (of_moves, of_drops) = told.split_at(moves.len());
    assert!(of_moves.iter().all(|words| *words == ("move".into(), "runs".into())), "{told:?}");
    assert_eq!(of_drops[3], ("drop".into(), "age".into()));
    assert!(of_drops[..3].iter().all(|words| *words == ("drop".into(), "total".into())), "{told:?}");
    let sum = |name: &str| lines.iter().map(|line| line[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("dropped_for_size"), sum("dropped_for_age"), sum("read_bytes")), (6, 4, 0));
}

/// C4: a merge that fails tells how far it came, in whichever of its parts, and the figures by level count it; what it read is
/// not counted among what was installed.
#[test]
fn a_merge_that_fails_tells_how_far_it_came() {
    for parts in [1, 4] {
        let simulation = Simulation::new(9);
        let ended = Arc::new(Ended::default());
        let builder = builder(&simulation).subcompactions_max(parts).compact_when_idle_after(None);
        let database = builder.event_listener(ended.clone()).open().unwrap();
        let options = KeyspaceOptions::default().compression(Compression::None).table_bytes(64 << 10).block_bytes(1024);
        let keyspace = database.create_keyspace("a", options).unwrap();
        for round in 0..2_u8 {
            for number in 0..800_u32 {
                keyspace.insert(number.to_be_bytes(), [round; 1000]).unwrap();
            }
            keyspace.flush().unwrap();
        }
        settle(&database);
        assert!(ended.take().is_empty(), "two runs are not too many");
        let full = Fault::on(FileOperation::Create).path_contains("/tables").nth(4).effect(FaultEffect::NoSpace);
        simulation.files.inject(full);
        assert!(matches!(keyspace.compact(), Err(Error::DiskFull { .. })));
        simulation.files.clear_faults();
        let told = ended.take();
        let [(plan, Ending::Failed, failed)] = &told[..] else { panic!("{told:?}") };
        let Work { read_bytes, written_bytes, tables, entries, .. } = *failed;
        assert_eq!(failed.parts, parts as u64);
        assert!((1..1600).contains(&entries.seen()) && entries.hidden > 0, "{failed:?}");
        assert_eq!(read_bytes, plan.input_bytes * entries.seen() / 1600, "as a part of all entries");
        assert!(written_bytes > 100_000 && written_bytes < read_bytes && tables >= 2, "{failed:?}");
        let stats = database.stats();
        assert_eq!((stats.work[6].read_bytes, stats.work[6].hidden), (read_bytes, entries.hidden), "{stats}");
        assert_eq!(stats.compaction_read_bytes, 0, "{stats}");

        keyspace.compact().unwrap();
        let told = ended.take();
        let [(plan, Ending::Installed, done)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((done.read_bytes, done.entries.seen(), done.entries.hidden), (plan.input_bytes, 1600, 800));
        let level = &keyspace.stats().levels[0];
        assert_eq!((done.written_bytes, done.tables), (level.bytes, level.tables));
        assert_eq!(database.stats().compaction_read_bytes, plan.input_bytes);
    }
}

/// P10: the event log tells a stall's cause in a word, and as often as the figures count it.
#[test]
fn the_event_log_tells_causes_in_words() {
    let simulation = Simulation::new(10);
    let database = builder(&simulation).event_log_bytes_max(2 << 20).open().unwrap();
    let options = KeyspaceOptions::default().memtable_bytes(8 << 10).write_buffer_bytes(8 << 10);
    let keyspace = database.create_keyspace("a", options).unwrap();
    let mut number = 0_u32;
    while database.stats().stalls < 3 {
        assert!(number < 4000, "no limit is met");
        let mut batch = database.batch();
        for part in 0..8_u8 {
            batch.insert(&keyspace, [&number.to_be_bytes()[..], &[part]].concat(), [0; 2000]).unwrap();
        }
        database.write(&batch).unwrap();
        number += 1;
    }
    let by_cause = database.stats().stalls_by_cause;
    for event in ["stall_begun", "stall_ended"] {
        let lines = lines_of(&simulation, event);
        assert_eq!(lines.len() as u64, database.stats().stalls);
        for (word, stalled) in [
            ("l0_runs", by_cause.l0_runs),
            ("sealed_bytes", by_cause.sealed_bytes),
            ("pending_bytes", by_cause.pending_bytes),
            ("memory", by_cause.memory),
            ("log_bytes", by_cause.log_bytes),
            ("queue", by_cause.queue),
        ] {
            let told = lines.iter().filter(|line| line["cause"] == word).count() as u64;
            assert_eq!(told, stalled.count, "{word}: {lines:?}");
        }
    }
}

#[derive(Debug)]
struct Panics;

impl EventListener for Panics {
    fn on_event(&self, event: &Event<'_>) {
        panic!("a listener that cannot bear {event}");
    }
}

/// P9: a listener that panics costs nothing but its own call: jobs get on, and others are told.
#[test]
fn a_listener_that_panics_hurts_nobody() {
    let simulation = Simulation::new(3);
    let recorder = Arc::new(Recorder::default());
    let builder = builder(&simulation).event_listener(Arc::new(Panics)).event_listener(recorder.clone());
    let database = builder.open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    two_runs(&keyspace);
    keyspace.compact().unwrap();
    assert_eq!(keyspace.get("a").unwrap().unwrap(), b"new");
    assert_eq!(database.health().to_string(), "well");
    assert!(recorder.take().iter().any(|word| word.starts_with("compaction")));
}

/// Uses the database that it listens to.
#[derive(Debug, Default)]
struct Reads {
    of: OnceLock<(Database, Keyspace)>,
    read: AtomicU64,
}

impl EventListener for Reads {
    fn on_event(&self, event: &Event<'_>) {
        let Some((database, keyspace)) = self.of.get() else { return };
        let is_job =
            matches!(event, Event::FlushEnded { ending: Ending::Installed, .. } | Event::CompactionBegun { .. });
        if is_job {
            // Each takes locks that the engine must not hold.
            keyspace.insert("heard", event.to_string()).unwrap();
            assert!(keyspace.get("heard").unwrap().is_some());
            assert!(database.stats().commits > 0);
            let _snapshot = database.snapshot();
            self.read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_listener_may_use_the_database() {
    let simulation = Simulation::new(4);
    let reads = Arc::new(Reads::default());
    let database = builder(&simulation).event_listener(reads.clone()).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    reads.of.set((database.clone(), keyspace.clone())).unwrap();
    two_runs(&keyspace);
    keyspace.compact().unwrap();
    assert!(reads.read.load(Ordering::Relaxed) >= 3, "two flushes and a compaction");
    database.close().unwrap();
}

/// Calls, for some time, what it may call and what would wait for jobs, and remembers how that ended.
#[derive(Debug, Default)]
struct Meddles {
    of: OnceLock<(Database, Keyspace)>,
    /// By event, call and outcome. What panics leaves none.
    outcomes: Mutex<BTreeMap<(&'static str, &'static str, String), u64>>,
}

thread_local! {
    static MEDDLING: Cell<bool> = const { Cell::new(false) };
}

impl EventListener for Meddles {
    fn on_event(&self, event: &Event<'_>) {
        let Some((database, keyspace)) = self.of.get() else { return };
        let event = match event {
            Event::FlushBegun { .. } => "flush begins",
            Event::FlushEnded { .. } => "flush ends",
            Event::CompactionBegun { .. } => "compaction begins",
            Event::CompactionEnded { .. } => "compaction ends",
            Event::TableDeleted { .. } => "table deleted",
            Event::StallBegun { .. } => "stall begins",
            Event::StallEnded { .. } => "stall ends",
            _ => return,
        };
        // What is written makes jobs, of which it is told: not for ever.
        if self.outcomes(event, "whole").values().sum::<u64>() >= 20 {
            return;
        }
        let note = |call: &'static str, outcome: Result<(), Error>| {
            let outcome = format!("{outcome:?}").split([' ', '(']).next().unwrap().to_owned()
                + &match outcome {
                    Err(error) => format!(" {}", format!("{error:?}").split(' ').next().unwrap()),
                    Ok(()) => String::new(),
                };
            *self.outcomes.lock().unwrap().entry((event, call, outcome)).or_default() += 1;
        };
        let nested = if MEDDLING.replace(true) { Err(Error::Cancelled) } else { Ok(()) };
        note("told outside of a listener", nested);
        note("insert", keyspace.insert("heard", [0; 100]));
        note("flush", keyspace.flush());
        note("compact", keyspace.compact());
        note("wait", database.wait_until_idle());
        note("run", database.run_one_job().map(|_| ()));
        note("suspend", database.suspend_background().map(|_| ()));
        note("close", database.close());
        note("whole", Ok(()));
        MEDDLING.set(false);
    }
}

impl Meddles {
    /// Each outcome of a call at an event, with how often there was one.
    fn outcomes(&self, event: &str, call: &str) -> BTreeMap<String, u64> {
        let outcomes = self.outcomes.lock().unwrap();
        let of_call = outcomes.iter().filter(|((it, to, _), _)| (*it, *to) == (event, call));
        of_call.map(|((.., outcome), count)| (outcome.clone(), *count)).collect()
    }

    /// Nothing panicked, nothing was told within a listener, and no call waited.
    fn check(&self) {
        let outcomes = self.outcomes.lock().unwrap().clone();
        let sum = |call| outcomes.iter().filter(|((_, it, _), _)| *it == call).map(|(_, count)| count).sum::<u64>();
        assert_eq!(sum("whole"), sum("insert"), "a call panicked: {outcomes:?}");
        for ((event, call, outcome), count) in &outcomes {
            let expected: &[&str] = match *call {
                "insert" => &["Ok", "Err InListener", "Err MemoryFull"],
                // Of nothing there is nothing to wait for.
                "flush" => &["Ok", "Err InListener"],
                "whole" | "told outside of a listener" => &["Ok"],
                _ => &["Err InListener"],
            };
            let is_expected = expected.contains(&&**outcome) || outcome == "Err Closed";
            assert!(is_expected, "{event}, {call}: {outcome}, {count} times");
        }
    }
}

/// P9: what a listener calls never waits for the jobs that wait for it, nor begins another within it: not on a worker, nor in
/// a job that a writer or caller runs, nor on a writer that is told of its stall.
#[test]
fn what_a_listener_calls_waits_for_no_job() {
    for threads in [0, 1, 3] {
        let simulation = Simulation::new(11);
        let meddles = Arc::new(Meddles::default());
        let builder = builder(&simulation).background_threads(threads).event_listener(meddles.clone());
        let database = builder.open().unwrap();
        let options = KeyspaceOptions::default().memtable_bytes(8 << 10).write_buffer_bytes(8 << 10);
        let keyspace = database.create_keyspace("a", options).unwrap();
        meddles.of.set((database.clone(), keyspace.clone())).unwrap();
        // Larger than all the memtables may be.
        for number in 0..100_u32 {
            let mut batch = database.batch();
            for part in 0..8_u8 {
                batch.insert(&keyspace, [&number.to_be_bytes()[..], &[part]].concat(), [0; 2000]).unwrap();
            }
            database.write(&batch).unwrap();
        }
        keyspace.compact().unwrap();
        database.wait_until_idle().unwrap();
        assert_eq!(keyspace.iter().count(), 100 * 8 + 1);
        meddles.check();
        for event in ["flush begins", "flush ends", "compaction begins", "compaction ends", "table deleted"] {
            assert!(!meddles.outcomes(event, "wait").is_empty(), "{threads} threads, {event}");
        }
        if threads == 0 {
            let outcomes = meddles.outcomes("stall begins", "insert");
            assert!(outcomes.contains_key("Err InListener"), "{outcomes:?}");
        }
        database.close().unwrap();
    }
}

/// P9: a listener that is told of a stall because of the log, or of memory, and writes, stalls not again.
#[test]
fn a_listener_that_writes_when_a_stall_begins_is_refused() {
    for threads in [0, 1] {
        let simulation = Simulation::new(12);
        let meddles = Arc::new(Meddles::default());
        let builder = builder(&simulation).background_threads(threads).event_listener(meddles.clone());
        let database = builder.log_segment_bytes(16 << 10).log_bytes_max(256 << 10).open().unwrap();
        let options = KeyspaceOptions::default().memtable_bytes(4 << 20).write_buffer_bytes(4 << 20);
        let keyspace = database.create_keyspace("a", options).unwrap();
        meddles.of.set((database.clone(), keyspace.clone())).unwrap();
        let until_refused =
            || (0..2000_u32).find_map(|number| keyspace.insert(number.to_be_bytes(), [0; 1000]).err()).unwrap();
        let suspended = database.suspend_background().unwrap();
        assert!(matches!(until_refused(), Error::Suspended));
        assert_eq!(meddles.outcomes("stall begins", "insert"), BTreeMap::from([("Err InListener".to_owned(), 1)]));
        drop(suspended);
        keyspace.insert("key", "value").unwrap();
        database.wait_until_idle().unwrap();
        meddles.check();
        database.close().unwrap();
    }

    for threads in [0, 1] {
        let simulation = Simulation::new(13);
        let meddles = Arc::new(Meddles::default());
        let builder = builder(&simulation).background_threads(threads).event_listener(meddles.clone());
        let database = builder.block_cache_bytes(0).memory_bytes_max(256 << 10).open().unwrap();
        let options = KeyspaceOptions::default().memtable_bytes(4 << 20).write_buffer_bytes(4 << 20);
        let keyspace = database.create_keyspace("a", options).unwrap();
        meddles.of.set((database.clone(), keyspace.clone())).unwrap();
        let suspended = database.suspend_background().unwrap();
        let refused = (0..2000_u32).find_map(|number| keyspace.insert(number.to_be_bytes(), [0; 1000]).err()).unwrap();
        assert!(matches!(refused, Error::Suspended), "{refused}");
        let outcomes = meddles.outcomes("stall begins", "insert");
        // There may be room in the memtable for what is shorter.
        assert!(outcomes.keys().all(|it| it == "Err MemoryFull" || it == "Ok") && !outcomes.is_empty(), "{outcomes:?}");
        drop(suspended);
        keyspace.insert("key", "value").unwrap();
        database.wait_until_idle().unwrap();
        meddles.check();
        database.close().unwrap();
    }
}

/// A listener of one database that keeps what it hears in another.
#[derive(Debug)]
struct WritesElsewhere(Database, Keyspace);

impl EventListener for WritesElsewhere {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::FlushEnded { .. } = event {
            self.1.insert(event.to_string(), [0; 1000]).unwrap();
            self.1.flush().unwrap();
            self.0.wait_until_idle().unwrap();
        }
    }
}

/// P9: another database is nobody's who waits for the listener, so that may be waited for.
#[test]
fn a_listener_may_wait_for_another_database() {
    let simulations = [Simulation::new(14), Simulation::new(15)];
    let other = builder(&simulations[0]).open().unwrap();
    let kept = other.create_keyspace("kept", KeyspaceOptions::default()).unwrap();
    let listener = Arc::new(WritesElsewhere(other.clone(), kept.clone()));
    let database = builder(&simulations[1]).event_listener(listener).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    two_runs(&keyspace);
    assert_eq!((kept.iter().count(), other.stats().flushes), (2, 2));
}

/// Writes a large batch when a compaction begins, once another thread has begun to close the database.
#[derive(Debug, Default)]
struct WritesWhileClosed {
    of: OnceLock<(Database, Keyspace)>,
    outcome: Mutex<Option<Result<(), Error>>>,
}

impl EventListener for WritesWhileClosed {
    fn on_event(&self, event: &Event<'_>) {
        let (Event::CompactionBegun { .. }, Some((database, keyspace))) = (event, self.of.get()) else { return };
        let mut batch = database.batch();
        batch.insert(keyspace, "large", vec![7; 1 << 20]).unwrap();
        let closing = thread::spawn({
            let database = database.clone();
            move || database.close().unwrap()
        });
        let begun = Instant::now();
        while !matches!(database.health(), Health::Closed) {
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody closes: {}", database.health());
            thread::yield_now();
        }
        // Now it waits for the compaction, or will.
        thread::sleep(Duration::from_millis(20));
        *self.outcome.lock().unwrap() = Some(database.write(&batch));
        drop(closing);
    }
}

/// P9: a listener that changes files, called by a compaction for which closing waits, does not wait for closing.
#[test]
fn a_listener_does_not_wait_for_who_closes() {
    let simulation = Simulation::new(16);
    let writes = Arc::new(WritesWhileClosed::default());
    let database = builder(&simulation).event_listener(writes.clone()).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    two_runs(&keyspace);
    writes.of.set((database.clone(), keyspace.clone())).unwrap();
    assert!(keyspace.compact().is_err());
    let outcome = writes.outcome.lock().unwrap().take();
    assert!(matches!(outcome, Some(Err(Error::Closed))), "{outcome:?}");
    database.close().unwrap();
}

/// P10: a writer at a hard limit is told of, with the limit, and counted by it.
#[test]
fn a_stall_is_told_with_its_cause() {
    let simulation = Simulation::new(5);
    let recorder = Arc::new(Recorder::default());
    let database = builder(&simulation).event_listener(recorder.clone()).open().unwrap();
    let options = KeyspaceOptions::default().memtable_bytes(8 << 10).write_buffer_bytes(8 << 10);
    let keyspace = database.create_keyspace("a", options).unwrap();
    // Larger than all the memtables may be: without threads nothing is flushed until somebody waits.
    for number in 0..4000_u32 {
        let mut batch = database.batch();
        for part in 0..8_u8 {
            batch.insert(&keyspace, [&number.to_be_bytes()[..], &[part]].concat(), [0; 2000]).unwrap();
        }
        database.write(&batch).unwrap();
        if database.stats().stalls > 0 {
            break;
        }
    }
    let (stats, told) = (database.stats(), recorder.take());
    assert!(stats.stalls > 0, "the limit was met");
    let by_cause = stats.stalls_by_cause;
    let counts = [by_cause.l0_runs, by_cause.sealed_bytes, by_cause.pending_bytes, by_cause.queue];
    assert_eq!(counts.iter().map(|stalled| stalled.count).sum::<u64>(), stats.stalls);
    assert!(by_cause.queue.count < stats.stalls, "a limit is named: {counts:?}");
    let begun = told.iter().position(|word| word.starts_with("stall begins")).unwrap();
    let ended = told.iter().position(|word| word.starts_with("stall ends")).unwrap();
    assert!(told[begun + 1..ended].iter().any(|word| word.starts_with("flush") || word.starts_with("compaction")));
}

/// The timeline keeps so many events and no more, and draws each job that has ended.
#[test]
fn a_timeline_is_bounded_and_draws_its_jobs() {
    let simulation = Simulation::new(6);
    let all = Arc::new(Timeline::new(simulation.environment(), 1000));
    let few = Arc::new(Timeline::new(simulation.environment(), 3));
    let builder = builder(&simulation).event_listener(all.clone()).event_listener(few.clone());
    let database = builder.open().unwrap();
    let keyspace = database.create_keyspace("<a>", KeyspaceOptions::default()).unwrap();
    two_runs(&keyspace);
    keyspace.compact().unwrap();
    let picture = all.svg();
    assert_eq!(picture.matches("fill=\"#15803d\"").count(), 2, "two flushes");
    assert!(picture.matches("fill=\"#1d4ed8\"").count() >= 1, "a compaction");
    assert!(picture.contains("&lt;a&gt;") && !picture.contains("<a>"), "names are escaped");
    assert!(all.table().lines().count() > 6, "{}", all.table());
    let table = few.table();
    assert_eq!(table.lines().count(), 4, "three events and how many are forgotten: {table}");
    assert!(table.contains("earlier events are forgotten"), "{table}");
}

fn with_event_log(simulation: &Simulation) -> DatabaseBuilder {
    builder(simulation).event_log_bytes_max(8 << 10)
}

/// The event log tells what a timeline tells that listened itself, in the same words, across openings.
#[test]
fn the_event_log_tells_the_timeline() {
    let simulation = Simulation::new(3);
    let environment = simulation.environment();
    let lines = |timeline: &Timeline| -> Vec<String> {
        // Without the times, which begin elsewhere.
        timeline.table().lines().map(|line| line.trim_start().split_once(' ').unwrap().1.to_owned()).collect()
    };
    let mut expected = Vec::new();
    for round in 0..2 {
        let heard = Arc::new(Timeline::new(environment.clone(), 1000));
        let builder = builder(&simulation).event_log_bytes_max(64 << 10);
        let database = builder.event_listener(heard.clone()).open().unwrap();
        let keyspace = database.keyspace("a").unwrap();
        two_runs(&keyspace);
        keyspace.compact().unwrap();
        while database.run_one_job().unwrap() {}
        drop((keyspace, database));
        expected.extend(lines(&heard));
        let read = Timeline::of_event_log(&environment, "/db").unwrap();
        assert_eq!(lines(&read), expected, "round {round}");
        assert!(expected.len() > 10 * (round + 1), "{expected:?}");
        let picture = read.svg();
        assert!(picture.contains(">flushes<") && picture.contains(">into L6<"), "{picture}");
    }
}

/// Whatever happens, the event log stays within its limit, and keeps the newest.
#[test]
fn the_event_log_is_bounded_and_keeps_the_newest() {
    let simulation = Simulation::new(4);
    let environment = simulation.environment();
    let database = with_event_log(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    for round in 0..60 {
        keyspace.insert("k", [round]).unwrap();
        keyspace.flush().unwrap();
        let files = environment.files.read_dir(Path::new("/db")).unwrap();
        let logs = files.iter().filter(|file| file.name.starts_with("events."));
        let bytes: u64 = logs.map(|file| environment.files.file_len(&Path::new("/db").join(&file.name)).unwrap()).sum();
        assert!((4 << 10..=8 << 10).contains(&bytes), "round {round}: {bytes} bytes");
    }
    let told = Timeline::of_event_log(&environment, "/db").unwrap().table();
    let newest = told.lines().rfind(|line| line.contains("flush begins")).unwrap().to_owned();
    drop((keyspace, database));
    assert!(told.lines().count() > 10 && !told.contains("job 1 "), "{told}");
    let job: u64 = newest.split("job ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(job >= 60, "the last flush is there: {newest}");
}

/// P8: an event log that cannot be written is nobody's failure; and what it says is no part of what makes a database right.
#[test]
fn an_event_log_that_cannot_be_written_or_read_fails_nothing() {
    let simulation = Simulation::new(5);
    let environment = simulation.environment();
    let database = with_event_log(&simulation).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    two_runs(&keyspace);
    let fault = simulation.files.inject(Fault::on_anything().path_contains("events."));
    two_runs(&keyspace);
    keyspace.compact().unwrap();
    assert!(simulation.files.fault_hits(fault) > 0);
    assert!(matches!(database.health(), Health::Well) && database.stats().failed_jobs == 0);
    simulation.files.clear_faults();
    two_runs(&keyspace);
    drop((keyspace, database));
    let files: Vec<_> = environment.files.read_dir(Path::new("/db")).unwrap();
    let logs: Vec<_> = files.iter().filter(|file| file.name.starts_with("events.")).collect();
    assert_eq!(logs.len(), 2, "one before the failure, one after it: {files:?}");
    // The first line of the older one is damaged.
    simulation.files.corrupt(&Path::new("/db").join(&logs[0].name), 0, |byte| byte ^ 1).unwrap();
    let told = Timeline::of_event_log(&environment, "/db").unwrap().table();
    assert!(told.starts_with("1 earlier events are forgotten"), "{told}");
    let database = with_event_log(&simulation).open().unwrap();
    assert_eq!(database.keyspace("a").unwrap().get("a").unwrap().as_deref(), Some(&b"new"[..]));
    assert!(Database::builder("/db").environment(environment).verify().unwrap().damage.is_empty());
}

/// A job's queue time runs from when it could have begun: not from before it was due, nor from while another was in its way.
#[test]
fn jobs_tell_how_long_they_were_queued() {
    let simulation = Simulation::new(7);
    let clock = &simulation.clock;
    let timeline = Arc::new(Timeline::new(simulation.environment(), 1000));
    let builder = builder(&simulation).event_log_bytes_max(64 << 10).compact_when_idle_after(None);
    let database = builder.event_listener(timeline.clone()).open().unwrap();
    let options =
        KeyspaceOptions::default().memtable_bytes(8 << 10).write_buffer_bytes(12 << 10).level_zero_runs_max(2);
    let keyspace = database.create_keyspace("a", options).unwrap();
    let queued = |levels: std::ops::Range<usize>| {
        let work = database.stats().work;
        Duration::from_nanos(levels.map(|level| work[level].queued_ns).sum())
    };
    let mut next = 0_u32;
    let mut seal = || {
        let before = keyspace.stats().sealed;
        while keyspace.stats().sealed == before {
            keyspace.insert(next.to_be_bytes(), [7; 500]).unwrap();
            next += 1;
        }
    };
    let run_until = |done: &dyn Fn() -> bool| {
        while !done() {
            assert!(database.run_one_job().unwrap());
        }
    };
    // A flush takes two memtables.
    seal();
    clock.advance(Duration::from_secs(100));
    seal();
    clock.advance(Duration::from_secs(5));
    seal();
    run_until(&|| database.stats().flushes == 1);
    assert_eq!(queued(0..1), Duration::from_secs(5), "since the second seal: {}", timeline.table());
    // One run is enough for a compaction of two at most (C1).
    clock.advance(Duration::from_secs(3));
    run_until(&|| database.stats().compactions.iter().sum::<u64>() == 1);
    assert_eq!(queued(1..7), Duration::from_secs(3), "since the flush: {}", timeline.table());
    // A flush that is asked for begins at once; the compaction that it makes due waits for somebody to do it.
    clock.advance(Duration::from_secs(50));
    keyspace.flush().unwrap();
    clock.advance(Duration::from_secs(2));
    run_until(&|| database.stats().compactions.iter().sum::<u64>() == 2);
    assert_eq!((queued(0..1), queued(1..7)), (Duration::from_secs(5), Duration::from_secs(5)), "{}", timeline.table());
    let told = timeline.table();
    for words in ["after 5s in the queue", "after 3s in the queue", "after 2s in the queue"] {
        assert_eq!(told.matches(words).count(), 1, "{words}: {told}");
    }
    assert_eq!(timeline.svg().matches("<line ").count(), 3, "a line before each that was queued");
    let read = Timeline::of_event_log(&simulation.environment(), "/db").unwrap();
    assert_eq!(read.svg().matches("<line ").count(), 3);
}
