//! What every row needs: the engine, its directories, the rows, the time it has.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::data::{KEY_BYTES, Rows, VALUE_BYTES, check_value, number_of};
use crate::engine::{Direction, Engine, Kind, Outcome, Settings, WRITE_BUFFER_BYTES};
use crate::measure::{Costs, Measured, Plan};
use crate::process;
use crate::sets::{self, Set};

/// Bytes of cache where a row does not say otherwise, however few rows there are.
const CACHE_BYTES_MIN: u64 = 256 << 20;

/// Operations of a row that mostly reads: enough for percentiles, however few keys there are, and no more than that.
const READS: std::ops::RangeInclusive<u64> = 300_000..=1_000_000;

/// What a measurement was asked for.
pub(crate) struct Context {
    pub(crate) kind: Kind,
    pub(crate) rows: Rows,
    pub(crate) time: Duration,
    pub(crate) compressed: bool,
    /// Where the database of this measurement lies.
    pub(crate) dir: PathBuf,
    /// Where the data sets lie.
    pub(crate) data: PathBuf,
    /// Anonymous and file-backed memory before the database was opened: the measuring program's own. Relaxed: one
    /// thread uses them.
    own_bytes: [AtomicU64; 2],
}

impl Context {
    /// For `keys` rows.
    pub(crate) fn new(kind: Kind, keys: u64, time: Duration, compressed: bool, dir: PathBuf, data: PathBuf) -> Self {
        Self { kind, rows: Rows::new(keys), time, compressed, dir, data, own_bytes: Default::default() }
    }

    /// How many rows there are.
    pub(crate) fn keys(&self) -> u64 {
        self.rows.count()
    }

    /// Bytes of all keys and values.
    pub(crate) fn logical_bytes(&self) -> u64 {
        self.keys() * (KEY_BYTES + VALUE_BYTES) as u64
    }

    /// The usual settings: half as much cache again as the rows take, so that an engine with a cache of its own finds
    /// there all that it reads often, as one that maps its files finds it in the page cache.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            cache_bytes: CACHE_BYTES_MIN.max(self.logical_bytes() / 2 * 3),
            larger_than_memory: false,
            compressed: self.compressed,
            synced: false,
            logical_bytes_max: self.logical_bytes() * 2,
            keyspaces: 0,
        }
    }

    /// Some operations on some threads, in the time that a row has.
    pub(crate) fn plan(&self, threads: u64, operations: u64) -> Plan {
        Plan { threads, operations, per_operation: 1, time: self.time }
    }

    /// As many reads as a row does.
    pub(crate) fn reads(&self, threads: u64) -> Plan {
        self.plan(threads, self.keys().clamp(*READS.start(), *READS.end()))
    }

    /// Where the database lies.
    pub(crate) fn database_dir(&self) -> PathBuf {
        self.dir.join("db")
    }

    fn note_own_bytes(&self) {
        let (anonymous, file) = process::resident();
        self.own_bytes[0].store(anonymous, Ordering::Relaxed);
        self.own_bytes[1].store(file, Ordering::Relaxed);
    }

    /// A new database.
    pub(crate) fn create(&self, settings: &Settings) -> Outcome<Box<dyn Engine>> {
        self.note_own_bytes();
        (self.kind.open)(&self.database_dir(), settings)
    }

    /// Copies a data set to where the database lies.
    pub(crate) fn copy(&self, set: Set) -> Outcome {
        sets::copy(&self.kind, &self.data.join(set.name()), &self.database_dir())
    }

    /// A copy of a data set, open.
    pub(crate) fn open(&self, set: Set, settings: &Settings) -> Outcome<Box<dyn Engine>> {
        self.copy(set)?;
        self.create(settings)
    }

    /// A data set for reading only: itself, if reading leaves it as it is.
    pub(crate) fn open_to_read(&self, set: Set, settings: &Settings) -> Outcome<Box<dyn Engine>> {
        if !self.kind.reads_in_place {
            return self.open(set, settings);
        }
        self.note_own_bytes();
        (self.kind.open)(&self.data.join(set.name()), settings)
    }

    /// What was measured, with what it cost and what the database takes now.
    pub(crate) fn line(&self, measured: &Measured, unit: &str, engine: &dyn Engine) -> Outcome<Value> {
        self.with_costs(measured.line(unit), &measured.costs, Some(engine))
    }

    /// A figure that is no rate: a time or a factor.
    pub(crate) fn figure(
        &self,
        unit: &str,
        value: f64,
        finished: bool,
        costs: &Costs,
        engine: Option<&dyn Engine>,
    ) -> Outcome<Value> {
        let line = json!({"unit": unit, "per_second": null, "value": value, "finished": finished});
        self.with_costs(line, costs, engine)
    }

    fn with_costs(&self, mut line: Value, costs: &Costs, engine: Option<&dyn Engine>) -> Outcome<Value> {
        let dir = self.database_dir();
        let dir = if dir.exists() { dir } else { self.data.join(Set::Base.name()) };
        let [anonymous, file] = self.own_bytes.each_ref().map(|bytes| bytes.load(Ordering::Relaxed));
        line["cpu_seconds"] = json!(costs.cpu.as_secs_f64());
        line["written_bytes"] = json!(costs.written_bytes);
        line["anonymous_peak_bytes"] = json!(costs.anonymous_max.saturating_sub(anonymous));
        line["file_peak_bytes"] = json!(costs.file_max.saturating_sub(file));
        line["live_bytes"] = json!(engine.map(Engine::live_bytes).transpose()?.flatten());
        line["total_bytes"] = json!(sets::disk_bytes(&dir)?);
        Ok(line)
    }

    /// What is the same for every engine, for above the table of their settings.
    pub(crate) fn says(&self) -> String {
        let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
        format!(
            "Cache: {} for {} of keys and values (1.5 times as much, at least {}), but where a row says otherwise. Write \
             buffers: {}. Settled: memtables are flushed, and nothing is due, running, or made due by a rest of the database.",
            mib(self.settings().cache_bytes),
            mib(self.logical_bytes()),
            mib(CACHE_BYTES_MIN),
            mib(WRITE_BUFFER_BYTES),
        )
    }

    /// Panics unless the database holds exactly `count` rows, in order, each of which passes `check`.
    pub(crate) fn check_all(&self, engine: &dyn Engine, count: u64, mut check: impl FnMut(u64, &[u8])) -> Outcome {
        let (mut found, mut before) = (0, Vec::new());
        engine.scan(None, Direction::Forward, &mut |key, value| {
            assert!(found == 0 || before.as_slice() < key, "keys are out of order");
            before.clear();
            before.extend_from_slice(key);
            check(number_of(key), value);
            found += 1;
            true
        })?;
        assert_eq!(found, count, "another number of rows than were written");
        Ok(())
    }

    /// Panics unless the database holds `count` rows as they were first written.
    pub(crate) fn check_first(&self, engine: &dyn Engine, count: u64) -> Outcome {
        self.check_all(engine, count, |number, value| check_value(number, 0, value))
    }
}
