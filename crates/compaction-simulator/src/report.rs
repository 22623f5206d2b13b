//! What came of a simulation.

use compaction::Debt;
use internal_key::Level;

/// One look at the store, taken in even steps of the writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When, in seconds from the start.
    pub at: f64,
    /// The worst debt as a share of its hard limit: writers are delayed above 0.85 and stopped at 1.
    pub debt: f64,
    /// User bytes per second since the last sample, as a share of what the writer offers.
    pub pace: f64,
    /// Bytes of tables over bytes of live keys and values in them.
    pub space: f64,
    /// Runs that a get of a live key asks, newest first up to the one that has it; the mean over live keys. Filters
    /// spare it most of them.
    pub get_runs: f64,
    /// Runs that a scan merges, where a live key lies; the mean over live keys.
    pub scan_runs: f64,
}

/// How long writers were held up, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stalls {
    /// Delayed between soft and hard limit, for runs in level 0, bytes of sealed memtables, and pending bytes.
    pub delayed: [f64; 3],
    /// Stopped at a hard limit, by the same.
    pub stopped: [f64; 3],
    /// User bytes written while delayed.
    pub delayed_bytes: u64,
    /// The longest stop.
    pub longest_stop: f64,
    /// How many stops there were.
    pub stops: u64,
}

impl Stalls {
    /// Where a debt stands in the arrays.
    pub fn index(debt: Debt) -> usize {
        match debt {
            Debt::L0Runs => 0,
            Debt::SealedBytes => 1,
            _ => 2,
        }
    }
}

/// Figures of a whole simulation. The means of reading and space are over its second half.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Bytes of keys and values that the writer wrote.
    pub user_bytes: u64,
    /// Bytes of tables that flushes wrote.
    pub flushed_bytes: u64,
    /// Bytes of tables that merges wrote.
    pub merged_bytes: u64,
    /// Bytes of tables that merges read.
    pub read_bytes: u64,
    /// Those among them that lay in blocks which none of the other inputs had a key in, and nothing to drop: what could be
    /// copied as it is.
    pub untouched_bytes: u64,
    /// Bytes of tables that were moved without being rewritten.
    pub moved_bytes: u64,
    /// Bytes of tables that were dropped for their age.
    pub dropped_bytes: u64,
    /// Flushes, and compactions that merged.
    pub jobs: (u64, u64),
    /// Seconds until the last write was taken.
    pub write_seconds: f64,
    /// Seconds from there until no picker had anything to do.
    pub settle_seconds: f64,
    /// How long writers were held up.
    pub stalls: Stalls,
    /// Mean of [`Sample::get_runs`].
    pub get_runs: f64,
    /// Mean of [`Sample::scan_runs`].
    pub scan_runs: f64,
    /// Mean of [`Sample::space`].
    pub space: f64,
    /// The most bytes of tables at any time, those that running jobs had made included.
    pub peak_bytes: u64,
    /// Space amplification once no picker had anything to do.
    pub settled_space: f64,
    /// Bytes of each level then.
    pub settled_levels: [u64; Level::COUNT],
    /// Bytes of keys and values that were live in the tables then.
    pub settled_live_bytes: u64,
    /// The store over time.
    pub samples: Vec<Sample>,
}

impl Report {
    /// Bytes of tables written per byte of user data. The log adds one.
    pub fn write_amplification(&self) -> f64 {
        (self.flushed_bytes + self.merged_bytes) as f64 / self.user_bytes as f64
    }

    /// The largest debt that any sample saw, as a share of its hard limit.
    pub fn debt_max(&self) -> f64 {
        self.samples.iter().map(|sample| sample.debt).fold(0.0, f64::max)
    }

    /// The mean rate of the writer, in bytes of user data per second.
    pub fn write_rate(&self) -> f64 {
        self.user_bytes as f64 / self.write_seconds
    }
}
