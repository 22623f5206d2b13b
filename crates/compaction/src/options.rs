//! What a keyspace may choose about its compaction.

use internal_key::Level;

/// Which picker decides what to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Strategy {
    /// One run per level below 0, each level ten times the one above: few runs to read, more to write. The default.
    #[default]
    Leveled,
    /// Several runs per level, merged into the next level when there are enough: less to write, more runs to read.
    Tiered,
    /// The oldest run is dropped when the keyspace grows past a size, or when the run is past an age: a bounded log or
    /// cache. **Loses data by design**, also data that a snapshot could see.
    Fifo,
}

/// When and how much is compacted. Every value is taken as it stands; [`CompactionOptions::validate`] names what is
/// out of range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionOptions {
    /// Which picker decides.
    pub strategy: Strategy,
    /// The most runs that level 0 should have; work begins at 85 % of it (C1): 4 runs, so 3. At least 1. Under
    /// [`Strategy::Leveled`] only of a small keyspace, see `l0_runs_patient`.
    pub l0_runs_max: u32,
    /// [`Strategy::Leveled`]: the same where merging level 0 rewrites much: it holds less than all that lies below it, or
    /// both are more than a sixteenth of `level_base_bytes` together, or more than 64 MiB. Without effect where it is not more than `l0_runs_max`.
    pub l0_runs_patient: u32,
    /// The largest size in bytes that the first level below 0 should have. At least 1.
    pub level_base_bytes: u64,
    /// How many times larger each level is than the one above. At least 2.
    pub level_multiplier: u32,
    /// Where a table is cut when tables are written, in bytes of the file. At least 1.
    pub table_bytes_target: u64,
    /// The most input bytes of one job, unless a single run or table with what it overlaps is larger; tiered compaction
    /// takes whole runs whatever their size. At least 1.
    pub merge_bytes_max: u64,
    /// A keyspace of at most this many bytes is brought to one run when it is idle. A larger one keeps its levels: what
    /// that would rewrite is out of proportion to the tenth of the space that it may free.
    pub idle_bytes_max: u64,
    /// How each level stores its tables, as numbers that mean nothing here: a table is moved without being rewritten
    /// only between levels with equal numbers (say, equal compression).
    pub formats: [u8; Level::COUNT],
    /// [`Strategy::Tiered`]: the most runs that a level should have; work begins at 85 % of it. At least 2.
    pub tier_runs_max: u32,
    /// [`Strategy::Fifo`]: the most bytes that the tables of the keyspace should have.
    pub fifo_bytes_max: u64,
    /// [`Strategy::Fifo`]: the age in milliseconds past which a run is dropped, counted from its newest row
    /// ([`TableEntry::newest_unix_ms`](manifest::TableEntry::newest_unix_ms)); 0 for none.
    pub fifo_age_ms_max: u64,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::Leveled,
            l0_runs_max: 4,
            l0_runs_patient: 12,
            level_base_bytes: 1 << 30,
            level_multiplier: 10,
            table_bytes_target: 64 << 20,
            merge_bytes_max: 2 << 30,
            idle_bytes_max: 4 << 30,
            formats: [0; Level::COUNT],
            tier_runs_max: 4,
            fifo_bytes_max: 1 << 30,
            fifo_age_ms_max: 0,
        }
    }
}

/// An option that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("compaction option {name} is {found}: expected at least {expected}")]
pub struct OptionOutOfRange {
    /// The field.
    pub name: &'static str,
    /// The smallest legal value.
    pub expected: u64,
    /// The value.
    pub found: u64,
}

impl CompactionOptions {
    /// Checks every lower bound.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), OptionOutOfRange> {
        let bounds = [
            ("l0_runs_max", 1, u64::from(self.l0_runs_max)),
            ("level_base_bytes", 1, self.level_base_bytes),
            ("level_multiplier", 2, u64::from(self.level_multiplier)),
            ("table_bytes_target", 1, self.table_bytes_target),
            ("merge_bytes_max", 1, self.merge_bytes_max),
            ("tier_runs_max", 2, u64::from(self.tier_runs_max)),
        ];
        match bounds.into_iter().find(|(_, expected, found)| found < expected) {
            Some((name, expected, found)) => Err(OptionOutOfRange { name, expected, found }),
            None => Ok(()),
        }
    }

    /// How many runs in level 0 trigger work: 85 % of the limit, rounded down, at least 1 (C1).
    pub fn l0_trigger(&self) -> usize {
        soft(u64::from(self.l0_runs_max)).max(1) as usize
    }

    /// How many runs in level 0 trigger work where merging them rewrites much: 85 % of that limit, at least
    /// [`l0_trigger`](Self::l0_trigger).
    pub fn l0_patience(&self) -> usize {
        (soft(u64::from(self.l0_runs_patient)) as usize).max(self.l0_trigger())
    }

    /// How many bytes a keyspace may have to be kept to few runs while it is written to: a sixteenth of `level_base_bytes`, at
    /// most 64 MiB.
    pub fn small_bytes(&self) -> u64 {
        (self.level_base_bytes / 16).min(64 << 20)
    }

    /// How many runs in a level trigger work under [`Strategy::Tiered`] (C1); at least 2.
    pub fn tier_trigger(&self) -> usize {
        soft(u64::from(self.tier_runs_max)).max(2) as usize
    }
}

/// The soft limit that belongs to a hard one: 85 %, rounded down (C1, P10).
pub(crate) fn soft(hard: u64) -> u64 {
    (u128::from(hard) * 85 / 100) as u64
}
