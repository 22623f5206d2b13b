//! What listeners are told: everything that happens, in order, without a lock held, and at nobody's cost.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use file_system::{Fault, Simulation};
use lsm_facade::{
    Database, DatabaseBuilder, Ending, Event, EventListener, Health, Keyspace, KeyspaceOptions, Timeline,
};

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
