//! A disk that fails at every operation of a run, once or from then on. Limits of the real system: `limits.rs`.
//!
//! ```text
//!   run ── operation 1 ── operation 2 ── … ── operation n fails ──▶ each call: done, or a typed error
//!                                                   │
//!            certain (P8): nothing changed, reads go on, and so do writes when the cause is gone
//!            uncertain:    the call happened or not, reads go on, writes are refused, reopening recovers
//! ```
//!
//! Everything is compared with a model after each call. `FAULT_STRIDE=n` tries only every n-th operation.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use file_system::{Fault, FaultEffect, FileOperation, LogFileWay, Simulation};
use lsm_facade::{Access, Database, DatabaseBuilder, Durability, Error, Health, KeyspaceOptions, Result};
use test_support::{Rng, number_in};

/// Ends the process if it is not dropped in time: a hang becomes a failure (P9).
struct Watchdog {
    _done: SyncSender<()>,
}

impl Watchdog {
    fn new(test: &'static str) -> Self {
        let (done, wait) = sync_channel(0);
        std::thread::spawn(move || {
            if wait.recv_timeout(Duration::from_secs(600)) == Err(RecvTimeoutError::Timeout) {
                let _ = writeln!(std::io::stderr(), "P9: {test} did not end");
                std::process::abort();
            }
        });
        Self { _done: done }
    }
}

/// What the database must hold: the rows of each keyspace.
type State = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

const NAMES: [&str; 2] = ["left", "right"];

/// Of a batch: the keyspace, the key, and the value if it is put.
type Entry = (&'static str, Vec<u8>, Option<Vec<u8>>);

/// One call.
#[derive(Debug, Clone)]
enum Call {
    Create(&'static str),
    /// A batch over both keyspaces.
    Write(Vec<Entry>, Durability),
    Flush(&'static str),
    Compact(&'static str),
    Clear(&'static str),
    Drop(&'static str),
    Job,
    Persist,
    /// Drops the database and opens it again.
    Reopen,
}

impl Call {
    /// What it does to what is there.
    fn apply(&self, state: &mut State) {
        match self {
            Self::Create(name) => drop(state.insert((*name).to_owned(), BTreeMap::new())),
            Self::Write(entries, _) => {
                for (name, key, value) in entries {
                    let rows = state.get_mut(*name).expect("it was created");
                    match value {
                        Some(value) => drop(rows.insert(key.clone(), value.clone())),
                        None => drop(rows.remove(key)),
                    }
                }
            }
            Self::Clear(name) => state.get_mut(*name).expect("it was created").clear(),
            Self::Drop(name) => drop(state.remove(*name)),
            Self::Flush(_) | Self::Compact(_) | Self::Job | Self::Persist | Self::Reopen => {}
        }
    }

    fn perform(&self, database: &Database) -> Result<()> {
        match self {
            Self::Create(name) => database.create_keyspace(name, options()).map(drop),
            Self::Write(entries, durability) => {
                let mut batch = database.batch();
                batch.set_durability(*durability);
                for (name, key, value) in entries {
                    let keyspace = database.open_keyspace(name)?;
                    match value {
                        Some(value) => batch.insert(&keyspace, key, value)?,
                        None => batch.remove(&keyspace, key)?,
                    }
                }
                database.write(&batch)
            }
            Self::Flush(name) => database.open_keyspace(name)?.flush(),
            Self::Compact(name) => database.open_keyspace(name)?.compact(),
            Self::Clear(name) => database.open_keyspace(name)?.clear(),
            Self::Drop(name) => database.drop_keyspace(name),
            Self::Job => database.run_one_job().map(drop),
            Self::Persist => database.persist(),
            Self::Reopen => unreachable!("the run does it"),
        }
    }
}

fn options() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_bytes(1 << 10)
        .write_buffer_bytes(4 << 10)
        .block_bytes(512)
        .table_bytes(4 << 10)
        .level_base_bytes(4 << 10)
        .level_size_ratio(2)
}

/// A run of some thirty calls: batches in the log and as tables, seals, flushes, compactions, edits of both kinds, a
/// clear, a drop, a reopening.
fn calls(seed: u64) -> Vec<Call> {
    let mut rng = Rng::new(seed);
    let mut write = |entries: u64, durability| {
        let entries = (0..entries).map(|_| {
            let (name, key, len) = (*rng.pick(&NAMES), format!("key {:02}", rng.below(40)), rng.below(200) as usize);
            (name, key.into_bytes(), (!rng.one_in(5)).then(|| rng.bytes(len)))
        });
        Call::Write(entries.collect(), durability)
    };
    use Durability::{Buffered, Synced};
    vec![
        Call::Create("left"),
        Call::Create("right"),
        write(3, Buffered),
        write(20, Buffered),
        write(2, Synced),
        Call::Flush("left"),
        write(20, Buffered),
        Call::Flush("left"),
        write(60, Buffered),
        Call::Job,
        Call::Compact("left"),
        write(3, Buffered),
        Call::Reopen,
        write(15, Buffered),
        Call::Clear("right"),
        write(15, Synced),
        Call::Flush("right"),
        Call::Job,
        Call::Drop("left"),
        Call::Create("left"),
        write(20, Buffered),
        Call::Persist,
        Call::Compact("right"),
        Call::Reopen,
        write(20, Buffered),
        Call::Flush("left"),
    ]
}

/// How one run opens its database.
#[derive(Clone, Copy)]
struct Config {
    access: Access,
    log_way: LogFileWay,
    edit_file_bytes: u64,
}

const CONFIGS: [Config; 2] = [
    Config { access: Access::Mapped, log_way: LogFileWay::Mapped, edit_file_bytes: 1 << 20 },
    Config { access: Access::Pread, log_way: LogFileWay::Written, edit_file_bytes: 0 },
];

impl Config {
    fn builder(self, simulation: &Simulation) -> DatabaseBuilder {
        Database::builder("/db")
            .environment(simulation.environment())
            .background_threads(0)
            .block_cache_bytes(0)
            .log_segment_bytes(16 << 10)
            .log_bytes_max(32 << 10)
            .large_batch_bytes(2 << 10)
            .access(self.access)
            .log_way(self.log_way)
            .edit_file_bytes(self.edit_file_bytes)
    }
}

fn rows_of(database: &Database, name: &str) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let rows = database.open_keyspace(name)?.iter();
    rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec()))).collect()
}

/// Everything that is there. A read may meet the failure too, with an error that says so; then the cause goes away.
fn state_of(database: &Database, simulation: &Simulation) -> State {
    let rows = |name: String| {
        let rows = rows_of(database, &name).or_else(|error| {
            assert!(matches!(error, Error::Io { .. }), "a read: {error:?}");
            simulation.files.clear_faults();
            rows_of(database, &name)
        });
        (name, rows.unwrap())
    };
    database.list_keyspaces().into_iter().map(rows).collect()
}

/// What became of runs.
#[derive(Debug, Default)]
struct Met {
    runs: u64,
    /// Calls that failed and certainly changed nothing.
    certain: u64,
    /// Calls whose outcome nobody knew: the database failed.
    uncertain: u64,
    /// Runs in which no call failed, though an operation did.
    unnoticed: u64,
}

/// Runs everything with one fault; returns whether an operation met it.
fn run_with(fault: Fault, lasts: u64, config: Config, calls: &[Call], met: &mut Met, what: &str) -> bool {
    let simulation = Simulation::new(1);
    let id = simulation.files.inject(fault);
    let mut state = State::new();
    let mut hit = false;
    // Calls that still fail before the cause goes away.
    let mut left = lasts;
    let (certain, uncertain) = (met.certain, met.uncertain);
    let open = |met: &mut Met, hit: &mut bool| match config.builder(&simulation).open() {
        Ok(database) => database,
        Err(error) => {
            *hit |= simulation.files.fault_hits(id) > 0;
            assert!(error.is_retryable() || matches!(error, Error::Failed { .. }), "{what}, opening: {error:?}");
            met.certain += 1;
            simulation.files.clear_faults();
            // M6: whatever failed, opening is simply done again.
            config.builder(&simulation).open().unwrap_or_else(|error| panic!("{what}, opening again: {error}"))
        }
    };
    let mut database = open(met, &mut hit);
    for (index, call) in calls.iter().enumerate() {
        let what = format!("{what}, call {index} ({})", name_of(call));
        if matches!(call, Call::Reopen) {
            hit |= simulation.files.fault_hits(id) > 0;
            drop(database);
            database = open(met, &mut hit);
            assert!(state_of(&database, &simulation) == state, "{what}: reopening changed something");
            continue;
        }
        let outcome = call.perform(&database);
        hit |= simulation.files.fault_hits(id) > 0;
        let mut after = state.clone();
        call.apply(&mut after);
        let Err(error) = outcome else {
            state = after;
            continue;
        };
        assert!(hit, "{what}: {error:?} before anything failed");
        let text = error.to_string();
        match database.health() {
            Health::Failed { .. } => {
                assert!(matches!(error, Error::Failed { .. }), "{what}: {error:?}");
                assert!(may_be_uncertain(&text), "{what}: {text}: this was certain");
                met.uncertain += 1;
                simulation.files.clear_faults();
                let found = state_of(&database, &simulation);
                assert!(found == state || found == after, "{what}: reads after {error}");
                // Writes are refused with the first cause, until reopening.
                let write = Call::Write(vec![(NAMES[0], b"refused".to_vec(), Some(Vec::new()))], Durability::Buffered);
                if found.contains_key(NAMES[0]) {
                    let refused = write.perform(&database).unwrap_err();
                    assert!(matches!(refused, Error::Failed { .. }), "{what}: {refused:?}");
                }
                drop(database);
                database = open(met, &mut hit);
                let found = state_of(&database, &simulation);
                assert!(found == state || found == after, "{what}: reopening after {error}");
                state = found;
                // The call is made again unless it has happened.
                if state != after {
                    call.perform(&database).unwrap_or_else(|error| panic!("{what}, after reopening: {error}"));
                    state = after;
                }
            }
            _ => {
                assert!(error.is_retryable(), "{what}: {error:?}");
                assert!(text.contains("/db"), "{what}: {text} names no file");
                met.certain += 1;
                if left == 0 {
                    simulation.files.clear_faults();
                }
                left = left.saturating_sub(1);
                // P8: nothing changed, and nothing has to be reopened.
                if left == 0 || lasts == 0 {
                    simulation.files.clear_faults();
                    assert!(state_of(&database, &simulation) == state, "{what}: {text} changed something");
                    call.perform(&database).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                    state = after;
                } else if matches!(call, Call::Create(_) | Call::Drop(_)) {
                    // What follows needs it.
                    simulation.files.clear_faults();
                    call.perform(&database).unwrap_or_else(|error| panic!("{what}, again: {error}"));
                    state = after;
                }
            }
        }
    }
    hit |= simulation.files.fault_hits(id) > 0;
    simulation.files.clear_faults();
    assert!(state_of(&database, &simulation) == state, "{what}: at the end");
    database.flush().unwrap_or_else(|error| panic!("{what}, flushing at the end: {error}"));
    database.wait_until_idle().unwrap_or_else(|error| panic!("{what}, at the end: {error}"));
    assert!(matches!(database.health(), Health::Well), "{what}: {}", database.health());
    drop(database);
    let database = config.builder(&simulation).open().unwrap();
    assert!(state_of(&database, &simulation) == state, "{what}: reopened at the end");
    met.runs += 1;
    if hit && (certain, uncertain) == (met.certain, met.uncertain) {
        met.unnoticed += 1;
    }
    hit
}

fn name_of(call: &Call) -> String {
    match call {
        Call::Write(entries, durability) => format!("write of {} entries, {durability:?}", entries.len()),
        call => format!("{call:?}"),
    }
}

/// P8, M7: a store or sync of the log or of an edit file, or the sync of a directory in which a name was replaced.
fn may_be_uncertain(error: &str) -> bool {
    let appended = error.contains(".wal") || error.contains(".jsonl");
    let failed = |what: &str| error.contains(&format!("cannot {what} /db"));
    failed("sync directory") || (appended && (failed("write") || failed("sync")))
}

/// Every operation of a run fails once, and then so many calls long.
fn fail_everywhere(effect: FaultEffect, operations: &[Option<FileOperation>], stride: u64) -> Met {
    let calls = calls(7);
    let mut met = Met::default();
    for (number_of_config, config) in CONFIGS.into_iter().enumerate() {
        for operation in operations {
            for lasts in [0, 4] {
                for n in (1..).step_by(stride as usize) {
                    let fault = operation.map_or_else(Fault::on_anything, Fault::on).effect(effect);
                    let fault = if lasts == 0 { fault.nth(n) } else { fault.from_nth(n) };
                    let kind = operation.map_or("operation".to_owned(), |operation| operation.to_string());
                    let what = format!("config {number_of_config}, {effect:?} at {kind} {n}, lasts {lasts}");
                    if !run_with(fault, lasts, config, &calls, &mut met, &what) {
                        break;
                    }
                }
            }
        }
    }
    println!("failing disk: {effect:?}: {met:?}");
    assert!(met.runs > 100 && met.certain > 0, "{met:?}");
    met
}

/// P8: no space at any operation that needs some: a clear error, reads go on, and writes when there is room again.
#[test]
fn no_space_at_any_operation_is_told_and_passes() {
    let _watchdog = Watchdog::new("no_space_at_any_operation_is_told_and_passes");
    let needs_space = [FileOperation::Create, FileOperation::Allocate, FileOperation::Write, FileOperation::Rename];
    fail_everywhere(FaultEffect::NoSpace, &needs_space.map(Some), number_in("FAULT_STRIDE", 1));
}

/// P8: what failed in the background is tried again by itself, without anybody writing or waiting.
#[test]
fn what_failed_in_the_background_is_tried_again_by_itself() {
    let _watchdog = Watchdog::new("what_failed_in_the_background_is_tried_again_by_itself");
    let simulation = Simulation::new(1);
    let database = CONFIGS[0].builder(&simulation).background_threads(2).open().unwrap();
    let keyspace = database.create_keyspace("a", options()).unwrap();
    let full = Fault::on(FileOperation::Create).path_contains("/tables").effect(FaultEffect::NoSpace);
    let full = simulation.files.inject(full);
    let mut count = 0_u64;
    while simulation.files.fault_hits(full) == 0 {
        match keyspace.insert(count.to_be_bytes(), [7; 100]) {
            Ok(()) => count += 1,
            Err(error) => assert!(matches!(error, Error::DiskFull { .. }), "{error:?}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Nobody calls for it, and it is tried more than once.
    while simulation.files.fault_hits(full) < 4 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(database.health(), Health::Degraded { .. }), "{}", database.health());
    simulation.files.clear_faults();
    while !matches!(database.health(), Health::Well) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(database.stats().flushes > 0);
    assert_eq!(keyspace.iter().count() as u64, count);
}

/// P8, M7: an input/output error at any operation, reads and syncs too, is certain or fails the database.
#[test]
fn an_error_at_any_operation_is_certain_or_fails_the_database() {
    let _watchdog = Watchdog::new("an_error_at_any_operation_is_certain_or_fails_the_database");
    let met = fail_everywhere(FaultEffect::InputOutput, &[None], number_in("FAULT_STRIDE", 1));
    assert!(met.uncertain > 0, "{met:?}");
}
