//! How a keyspace is kept, and how the manifest stores that.

use std::collections::BTreeMap;
use std::time::Duration;

use compaction::{CompactionOptions, Limits, Strategy};
use serde_json::{Value, json};
use sstable_format::Compression;

use super::in_range;
use crate::{Error, Result};

/// How a keyspace is kept. Stored with it; an existing keyspace keeps the options it was created with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct KeyspaceOptions {
    pub(crate) memtable_bytes: u64,
    pub(crate) write_buffer_bytes: u64,
    pub(crate) block_bytes: u64,
    pub(crate) table_bytes: u64,
    pub(crate) filter_bits_per_key: u64,
    pub(crate) compression: Compression,
    pub(crate) strategy: Strategy,
    pub(crate) level_zero_runs_max: u64,
    pub(crate) level_base_bytes: u64,
    pub(crate) level_size_ratio: u64,
    pub(crate) fifo_bytes_max: u64,
    /// 0 where this does not bound history; so for the next two. If none does, none is kept.
    pub(crate) history_writes: u64,
    pub(crate) history_bytes: u64,
    pub(crate) history_age: Duration,
    /// 0 for none.
    pub(crate) fifo_age_ms_max: u64,
    pub(crate) merge_what_is_read: bool,
}

impl Default for KeyspaceOptions {
    fn default() -> Self {
        Self {
            memtable_bytes: 4 << 20,
            write_buffer_bytes: 64 << 20,
            block_bytes: 4096,
            table_bytes: 64 << 20,
            filter_bits_per_key: 10,
            compression: Compression::Lz4,
            strategy: Strategy::Leveled,
            level_zero_runs_max: 4,
            level_base_bytes: 1 << 30,
            level_size_ratio: 10,
            fifo_bytes_max: 1 << 30,
            history_writes: 0,
            history_bytes: 0,
            history_age: Duration::ZERO,
            fifo_age_ms_max: 0,
            merge_what_is_read: true,
        }
    }
}

impl KeyspaceOptions {
    /// Bytes at which the active memtable is sealed. Cache-sized is fastest. 1 KiB to 1 GiB. Default: 4 MiB.
    pub fn memtable_bytes(mut self, bytes: u64) -> Self {
        self.memtable_bytes = bytes;
        self
    }

    /// Bytes of memtables at which a flush is due; writers are slowed down, then stopped, as twice as much is
    /// approached (P10). At least `memtable_bytes`. Default: 64 MiB.
    pub fn write_buffer_bytes(mut self, bytes: u64) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    /// Uncompressed bytes of a table block. 512 to 1 MiB. Default: 4096.
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Bytes at which a compaction begins the next table. 4 KiB to 16 GiB. Default: 64 MiB.
    pub fn table_bytes(mut self, bytes: u64) -> Self {
        self.table_bytes = bytes;
        self
    }

    /// Bits per key of the tables' filters; 0 for none. At most 32. Default: 10 (about 1 % false positives).
    pub fn filter_bits_per_key(mut self, bits: u64) -> Self {
        self.filter_bits_per_key = bits;
        self
    }

    /// Compression below level 1; levels 0 and 1 are never compressed (T4). Default: lz4.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// How tables are compacted. Default: leveled.
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// The most runs that level 0 should have; compaction begins at 85 % of it (C1). Leveled: three times as many where
    /// merging them would rewrite much, that is while they hold less than the rest of the keyspace, or both together more than a
    /// sixteenth of `level_base_bytes`, or 64 MiB. Writers are slowed down, then stopped, as twice that is approached (P10). 2 to 1000.
    /// Default: 4.
    pub fn level_zero_runs_max(mut self, runs: u64) -> Self {
        self.level_zero_runs_max = runs;
        self
    }

    /// The most bytes that the first level below level 0 should have: up to these there is only one, into which level 0
    /// is merged, and no second to write everything to once more. 4 KiB or more. Default: 1 GiB.
    pub fn level_base_bytes(mut self, bytes: u64) -> Self {
        self.level_base_bytes = bytes;
        self
    }

    /// How many times larger each level is than the one above. 2 to 100. Default: 10.
    pub fn level_size_ratio(mut self, ratio: u64) -> Self {
        self.level_size_ratio = ratio;
        self
    }

    /// Bytes of tables above which [`Strategy::Fifo`] drops the oldest. Default: 1 GiB.
    pub fn fifo_bytes_max(mut self, bytes: u64) -> Self {
        self.fifo_bytes_max = bytes;
        self
    }

    /// Keeps history: the keyspace can be read as it was at each of the last so many sequence numbers of the *database*
    /// ([`Database::snapshot_at`](crate::Database::snapshot_at)). Each insert and each removal takes one, in whatever
    /// keyspace, and each entry of a batch; a clear or drop takes one. 0: history is not bounded by this, and if by nothing
    /// else, none is kept. Default: 0.
    ///
    /// Where several of `history_writes`, [`history_bytes`](Self::history_bytes) and [`history_age`](Self::history_age) are
    /// set, what falls out of any of them is kept no longer. Versions that only readers of the past can see take the
    /// room that their keys and values take. What is kept no longer goes when its table is compacted; a table of which that is
    /// a tenth is compacted for it, and when the database is idle any. Not with [`Strategy::Fifo`].
    pub fn history_writes(mut self, writes: u64) -> Self {
        self.history_writes = writes;
        self
    }

    /// Keeps history back to where so many bytes of keys and values were written to this keyspace since, and up to a
    /// sixteenth more. What stands at opening counts as if it had been written before the first of them: history never becomes
    /// less by reopening. 0: not bounded by this. Default: 0. See [`history_writes`](Self::history_writes).
    pub fn history_bytes(mut self, bytes: u64) -> Self {
        self.history_bytes = bytes;
        self
    }

    /// Keeps history for so long, and up to a sixteenth longer, by the engine's monotonic clock: nobody who sets the time
    /// of day changes it. Only time in which the database is open counts, anew from each opening: history never becomes less
    /// by reopening. Milliseconds count. Zero: not bounded by this. Default: zero. See
    /// [`history_writes`](Self::history_writes).
    pub fn history_age(mut self, age: Duration) -> Self {
        self.history_age = Duration::from_millis(age.as_millis().min(u64::MAX.into()) as u64);
        self
    }

    /// Whether it can be read as it was.
    pub(crate) fn keeps_history(&self) -> bool {
        self.history_writes > 0 || self.history_bytes > 0 || !self.history_age.is_zero()
    }

    /// The age past which [`Strategy::Fifo`] drops the oldest tables, also if nothing is written any more; `None`, which is the
    /// default, for none. At least a millisecond, in whole ones.
    ///
    /// A table is as old as its newest row, which is counted from the flush that wrote it: rows stay for as long as it takes to
    /// fill a write buffer beyond their age, and in tables that were merged for an eighth of the age. The time is that of the
    /// system, is kept with the table, and goes on while the database is closed.
    pub fn fifo_age_max(mut self, age: Option<Duration>) -> Self {
        let milliseconds = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1);
        self.fifo_age_ms_max = age.map_or(0, milliseconds);
        self
    }

    /// Whether tables are merged because they are read: a table in which places are sought so often that the blocks of it that
    /// were read for that come to what a merge into older tables of the same keys reads is merged into them. Seeks of cursors
    /// count, and gets that look into a table in vain. Not under [`Strategy::Fifo`]. Default: yes.
    pub fn merge_what_is_read(mut self, yes: bool) -> Self {
        self.merge_what_is_read = yes;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.keeps_history() && self.strategy == Strategy::Fifo {
            return Err(Error::InvalidOption {
                name: "strategy".to_owned(),
                expected: "one that keeps what was written, for a keyspace with history".to_owned(),
                found: "fifo".to_owned(),
            });
        }
        in_range("memtable_bytes", self.memtable_bytes, 1 << 10, 1 << 30)?;
        in_range("write_buffer_bytes", self.write_buffer_bytes, self.memtable_bytes, 1 << 40)?;
        in_range("block_bytes", self.block_bytes, 512, 1 << 20)?;
        in_range("table_bytes", self.table_bytes, 4 << 10, 16 << 30)?;
        in_range("filter_bits_per_key", self.filter_bits_per_key, 0, 32)?;
        in_range("level_zero_runs_max", self.level_zero_runs_max, 2, 1000)?;
        in_range("level_base_bytes", self.level_base_bytes, 4 << 10, u64::MAX)?;
        in_range("level_size_ratio", self.level_size_ratio, 2, 100)
    }

    /// The options by name, as the manifest keeps them.
    pub(crate) fn to_manifest(&self) -> BTreeMap<String, Value> {
        let compression = match self.compression {
            Compression::None => "none",
            _ => "lz4",
        };
        let strategy = match self.strategy {
            Strategy::Tiered => "tiered",
            Strategy::Fifo => "fifo",
            _ => "leveled",
        };
        let pairs = [
            ("memtable_bytes", json!(self.memtable_bytes)),
            ("write_buffer_bytes", json!(self.write_buffer_bytes)),
            ("block_bytes", json!(self.block_bytes)),
            ("table_bytes", json!(self.table_bytes)),
            ("filter_bits_per_key", json!(self.filter_bits_per_key)),
            ("compression", json!(compression)),
            ("strategy", json!(strategy)),
            ("level_zero_runs_max", json!(self.level_zero_runs_max)),
            ("level_base_bytes", json!(self.level_base_bytes)),
            ("level_size_ratio", json!(self.level_size_ratio)),
            ("fifo_bytes_max", json!(self.fifo_bytes_max)),
        ];
        // Only where there is history: versions that know none open the other keyspaces.
        let history = [
            ("history_writes", self.history_writes),
            ("history_bytes", self.history_bytes),
            ("history_age_ms", self.history_age.as_millis() as u64),
        ];
        let history = history.into_iter().filter(|(_, bound)| *bound > 0).map(|(name, bound)| (name, json!(bound)));
        let mut named: BTreeMap<String, Value> =
            pairs.into_iter().chain(history).map(|(name, value)| (name.to_owned(), value)).collect();
        // Named only where they differ from the default: versions that do not know them can read the rest.
        if self.fifo_age_ms_max != 0 {
            named.insert("fifo_age_ms_max".to_owned(), json!(self.fifo_age_ms_max));
        }
        if !self.merge_what_is_read {
            named.insert("merge_what_is_read".to_owned(), json!(false));
        }
        named
    }

    /// The options that the manifest keeps; what it does not name has its default.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for an unknown name, a value of another type, or one out of its range.
    pub(crate) fn from_manifest(stored: &BTreeMap<String, Value>) -> Result<Self> {
        let mut options = Self::default();
        for (name, value) in stored {
            let invalid = |expected: &str| Error::InvalidOption {
                name: name.clone(),
                expected: expected.to_owned(),
                found: value.to_string(),
            };
            let number = || value.as_u64().ok_or_else(|| invalid("a whole number"));
            match name.as_str() {
                "memtable_bytes" => options.memtable_bytes = number()?,
                "write_buffer_bytes" => options.write_buffer_bytes = number()?,
                "block_bytes" => options.block_bytes = number()?,
                "table_bytes" => options.table_bytes = number()?,
                "filter_bits_per_key" => options.filter_bits_per_key = number()?,
                "level_zero_runs_max" => options.level_zero_runs_max = number()?,
                "level_base_bytes" => options.level_base_bytes = number()?,
                "level_size_ratio" => options.level_size_ratio = number()?,
                "fifo_bytes_max" => options.fifo_bytes_max = number()?,
                "history_writes" => options.history_writes = number()?,
                "history_bytes" => options.history_bytes = number()?,
                "history_age_ms" => options.history_age = Duration::from_millis(number()?),
                "fifo_age_ms_max" => options.fifo_age_ms_max = number()?,
                "merge_what_is_read" => {
                    options.merge_what_is_read = value.as_bool().ok_or_else(|| invalid("true or false"))?;
                }
                "compression" => {
                    options.compression = match value.as_str() {
                        Some("none") => Compression::None,
                        Some("lz4") => Compression::Lz4,
                        _ => return Err(invalid("\"none\" or \"lz4\"")),
                    }
                }
                "strategy" => {
                    options.strategy = match value.as_str() {
                        Some("leveled") => Strategy::Leveled,
                        Some("tiered") => Strategy::Tiered,
                        Some("fifo") => Strategy::Fifo,
                        _ => return Err(invalid("\"leveled\", \"tiered\" or \"fifo\"")),
                    }
                }
                _ => return Err(invalid("an option that this version knows")),
            }
        }
        options.check()?;
        Ok(options)
    }

    /// The picker's view of these options.
    pub(crate) fn compaction(&self) -> CompactionOptions {
        CompactionOptions {
            strategy: self.strategy,
            l0_runs_max: self.level_zero_runs_max as u32,
            l0_runs_patient: self.level_zero_runs_patient() as u32,
            level_base_bytes: self.level_base_bytes,
            level_multiplier: self.level_size_ratio as u32,
            table_bytes_target: self.table_bytes,
            // Levels 0 and 1 are never compressed (T4), so that a move across that border rewrites.
            formats: std::array::from_fn(|level| u8::from(level > 1 && self.compression != Compression::None)),
            idle_bytes_max: self.level_base_bytes.saturating_mul(16).min(4 << 30),
            tier_runs_max: self.level_zero_runs_max as u32,
            fifo_bytes_max: self.fifo_bytes_max,
            fifo_age_ms_max: self.fifo_age_ms_max,
            ..CompactionOptions::default()
        }
    }

    /// The most runs of level 0 where merging them rewrites much.
    fn level_zero_runs_patient(&self) -> u64 {
        self.level_zero_runs_max * 3
    }

    /// Bytes of sealed memtables at which a flush is due; as much again is filled meanwhile.
    pub(crate) fn flush_bytes(&self) -> u64 {
        self.write_buffer_bytes.max(1)
    }

    /// Where writers are slowed down, and stopped (P10).
    pub(crate) fn limits(&self) -> Limits {
        Limits::of_keyspace(&self.compaction(), self.write_buffer_bytes, self.memtable_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_back_from_the_manifest() {
        let options =
            KeyspaceOptions::default().memtable_bytes(1 << 12).strategy(Strategy::Tiered).table_bytes(1 << 20);
        assert_eq!(KeyspaceOptions::from_manifest(&options.to_manifest()).unwrap(), options);
        let options = options.fifo_bytes_max(1 << 21).fifo_age_max(Some(Duration::from_secs(60)));
        let options = options.merge_what_is_read(false);
        assert_eq!(KeyspaceOptions::from_manifest(&options.to_manifest()).unwrap(), options);
    }

    #[test]
    fn an_unknown_or_mistyped_stored_option_is_named() {
        for (name, value) in [("colour", json!("red")), ("block_bytes", json!("4096")), ("strategy", json!("none"))] {
            let mut stored = KeyspaceOptions::default().to_manifest();
            stored.insert(name.to_owned(), value);
            match KeyspaceOptions::from_manifest(&stored) {
                Err(Error::InvalidOption { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
