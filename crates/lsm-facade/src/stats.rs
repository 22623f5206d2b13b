//! Figures: what a database and its keyspaces consist of, and what they have done since they were opened.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compaction::Debt;
use internal_key::Level;
use lock_meter::LockCosts;
use version_history::Sealed;

use crate::Error;
use crate::core::KeyspaceShared;
use crate::events::Work;
use crate::jobs::load_of;
use crate::memory::MemoryStats;

/// Counts since opening. Relaxed everywhere: figures, read by `stats` alone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flushed_bytes: AtomicU64,
    pub(crate) failed_jobs: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) delays: AtomicU64,
    pub(crate) waited_ns: AtomicU64,
    pub(crate) longest_wait_ns: AtomicU64,
    compactions: [AtomicU64; Level::COUNT],
    compaction_read_bytes: AtomicU64,
    compaction_written_bytes: AtomicU64,
    /// By the level that jobs wrote to: bytes read and written, entries hidden, tombstones, duplicates, dropped for size and for
    /// age, nanoseconds of work and in the queue.
    work: [[AtomicU64; 9]; Level::COUNT],
    /// By cause, the queue fourth, then memory and the log: how many, nanoseconds.
    stalled: [[AtomicU64; 2]; 6],
}

/// How long the calling thread has waited, inside this engine, since it began: for room (P10), for locks, for other
/// writers, for syncs. Only grows: how much of a call's time was waiting is the difference between after it and before it.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let keyspace = lsm_facade::Database::open(dir.path())?.keyspace("a")?;
/// let before = lsm_facade::waited_on_this_thread();
/// keyspace.insert("key", "value")?;
/// let waited = lsm_facade::waited_on_this_thread() - before;
/// # assert!(waited < std::time::Duration::from_secs(60));
/// # Ok(())
/// # }
/// ```
pub fn waited_on_this_thread() -> Duration {
    lock_meter::waited_on_this_thread()
}

/// A commit under way: what it waits, in sum, is held against the longest wait when this is dropped.
pub(crate) struct CommitWaits<'a> {
    counters: &'a Counters,
    before: Duration,
}

impl Drop for CommitWaits<'_> {
    #[inline]
    fn drop(&mut self) {
        let waited = waited_on_this_thread() - self.before;
        if !waited.is_zero() {
            self.counters.longest_wait_ns.fetch_max(waited.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

impl Counters {
    #[inline]
    pub(crate) fn commit_begins(&self) -> CommitWaits<'_> {
        CommitWaits { counters: self, before: waited_on_this_thread() }
    }

    pub(crate) fn worked(&self, level: Level, work: &Work, queued: Duration, took: Duration) {
        let entries = work.entries;
        let figures = [
            work.read_bytes,
            work.written_bytes,
            entries.hidden,
            entries.tombstones,
            entries.duplicates,
            work.dropped_for_size,
            work.dropped_for_age,
            took.as_nanos() as u64,
            queued.as_nanos() as u64,
        ];
        for (counter, figure) in self.work[level.index()].iter().zip(figures) {
            counter.fetch_add(figure, Ordering::Relaxed);
        }
    }

    pub(crate) fn stalled(&self, cause: Option<Debt>, took: Duration) {
        let index = match cause {
            Some(Debt::L0Runs) => 0,
            Some(Debt::SealedBytes) => 1,
            Some(Debt::Memory) => 4,
            Some(Debt::LogBytes) => 5,
            Some(_) => 2,
            None => 3,
        };
        for (counter, figure) in self.stalled[index].iter().zip([1, took.as_nanos() as u64]) {
            counter.fetch_add(figure, Ordering::Relaxed);
        }
    }

    pub(crate) fn compacted(&self, into: Level, read: u64, written: u64) {
        self.compactions[into.index()].fetch_add(1, Ordering::Relaxed);
        self.compaction_read_bytes.fetch_add(read, Ordering::Relaxed);
        self.compaction_written_bytes.fetch_add(written, Ordering::Relaxed);
    }
}

/// What a database has done since it was opened, and what it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The sequence number of the last visible write.
    pub visible_seqno: u64,
    /// Commits since opening.
    pub commits: u64,
    /// Syncs of the log since opening.
    pub log_syncs: u64,
    /// How often a commit found no log segment ready and waited until it was made, which the log's own worker is to spare it (L1),
    /// or was refused because it could not be made. The first commit after a close that left nothing in the log counts: it
    /// begins the log.
    pub log_segment_waits: u64,
    /// Bytes of all log segments.
    pub log_bytes: u64,
    /// Flushes since opening, and bytes of the tables that they wrote.
    pub flushes: u64,
    /// Bytes of the tables that flushes wrote.
    pub flushed_bytes: u64,
    /// Compactions installed since opening, by the level they wrote to.
    pub compactions: [u64; Level::COUNT],
    /// Bytes of the tables that they read; tables that only moved, or were dropped, were not read.
    pub compaction_read_bytes: u64,
    /// Bytes of the tables that they wrote.
    pub compaction_written_bytes: u64,
    /// Edits of the manifest since opening.
    pub manifest_edits: u64,
    /// Bytes that they and the folding of their file wrote (M3).
    pub manifest_bytes: u64,
    /// How often the manifest's edit file was folded into level files: by edits, which wait for it, and beside them.
    pub manifest_folds: [u64; 2],
    /// Background jobs that failed or panicked, each attempt counted.
    pub failed_jobs: u64,
    /// Commits that waited at a hard limit (P10).
    pub stalls: u64,
    /// Commits that were delayed above a soft limit (P10).
    pub delays: u64,
    /// Nanoseconds that commits were held up before their reservation, in all (P10).
    pub waited_ns: u64,
    /// The longest that one commit waited, in nanoseconds: all its waits in sum, before the reservation and after it.
    pub longest_wait_ns: u64,
    /// What jobs did, by the level that they wrote to; flushes write to level 0.
    pub work: [LevelWork; Level::COUNT],
    /// Stalls by what caused them.
    pub stalls_by_cause: StallStats,
    /// Distinct sequence numbers that snapshots hold.
    pub snapshots: u64,
    /// Bytes of blocks in the cache.
    pub block_cache_bytes: u64,
    /// What it holds in memory, by kind, and what it may (P13).
    pub memory: MemoryStats,
    /// What each lock that writers, snapshots and jobs take has cost, by its name. Reads take none.
    pub locks: Vec<(&'static str, LockCosts)>,
    /// Each keyspace, by name.
    pub keyspaces: Vec<KeyspaceStats>,
}

impl Stats {
    pub(crate) fn count_manifest(&mut self, metrics: &manifest::CommitMetrics) {
        self.manifest_edits = metrics.edits;
        self.manifest_bytes = metrics.total.bytes;
        self.manifest_folds = [metrics.folds - metrics.folds_beside, metrics.folds_beside];
    }

    pub(crate) fn count(&mut self, counters: &Counters) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.flushes = load(&counters.flushes);
        self.flushed_bytes = load(&counters.flushed_bytes);
        self.compactions = std::array::from_fn(|level| load(&counters.compactions[level]));
        self.compaction_read_bytes = load(&counters.compaction_read_bytes);
        self.compaction_written_bytes = load(&counters.compaction_written_bytes);
        self.failed_jobs = load(&counters.failed_jobs);
        self.stalls = load(&counters.stalls);
        self.delays = load(&counters.delays);
        self.waited_ns = load(&counters.waited_ns);
        self.longest_wait_ns = load(&counters.longest_wait_ns);
        self.work = std::array::from_fn(|level| {
            let [
                read_bytes,
                written_bytes,
                hidden,
                tombstones,
                duplicates,
                dropped_for_size,
                dropped_for_age,
                busy_ns,
                queued_ns,
            ] = std::array::from_fn(|figure| load(&counters.work[level][figure]));
            LevelWork {
                read_bytes,
                written_bytes,
                hidden,
                tombstones,
                duplicates,
                dropped_for_size,
                dropped_for_age,
                busy_ns,
                queued_ns,
            }
        });
        let stalled = |cause: usize| std::array::from_fn(|figure| load(&counters.stalled[cause][figure])).into();
        self.stalls_by_cause = StallStats {
            l0_runs: stalled(0),
            sealed_bytes: stalled(1),
            pending_bytes: stalled(2),
            queue: stalled(3),
            memory: stalled(4),
            log_bytes: stalled(5),
        };
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "visible seqno   {}", self.visible_seqno)?;
        writeln!(f, "commits         {} ({} log syncs)", self.commits, self.log_syncs)?;
        writeln!(f, "log             {} bytes ({} waits for a segment)", self.log_bytes, self.log_segment_waits)?;
        writeln!(f, "flushes         {} ({} bytes)", self.flushes, self.flushed_bytes)?;
        let compactions: u64 = self.compactions.iter().sum();
        let (read, written) = (self.compaction_read_bytes, self.compaction_written_bytes);
        writeln!(f, "compactions     {compactions} ({read} bytes read, {written} written)")?;
        let [by_edits, beside] = self.manifest_folds;
        let (edits, bytes) = (self.manifest_edits, self.manifest_bytes);
        writeln!(
            f,
            "manifest        {edits} edits ({bytes} bytes; folded {by_edits} times by edits, {beside} beside them)"
        )?;
        writeln!(f, "failed jobs     {}", self.failed_jobs)?;
        writeln!(f, "stalls          {} (and {} delays, {} ns waited)", self.stalls, self.delays, self.waited_ns)?;
        writeln!(f, "longest wait    {} ns in one commit", self.longest_wait_ns)?;
        for (level, work) in self.work.iter().enumerate().filter(|(_, work)| **work != LevelWork::default()) {
            let LevelWork { read_bytes, written_bytes, hidden, tombstones, busy_ns, queued_ns, .. } = work;
            write!(
                f,
                "jobs into L{level}    {read_bytes} bytes read, {written_bytes} written, {hidden} hidden entries and \
                 {tombstones} tombstones dropped, "
            )?;
            let (for_size, for_age) = (work.dropped_for_size, work.dropped_for_age);
            if for_size + for_age > 0 {
                write!(f, "{for_size} entries for size and {for_age} for age, ")?;
            }
            writeln!(f, "{busy_ns} ns after {queued_ns} ns in the queue")?;
        }
        writeln!(f, "snapshots       {}", self.snapshots)?;
        writeln!(f, "block cache     {} bytes", self.block_cache_bytes)?;
        writeln!(f, "memory          {}", self.memory)?;
        for (name, costs) in &self.locks {
            writeln!(f, "lock            {name}: {costs}")?;
        }
        for keyspace in &self.keyspaces {
            write!(f, "{keyspace}")?;
        }
        Ok(())
    }
}

/// What jobs that wrote to one level did, those that failed or were cancelled included: what they read and wrote was for
/// nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelWork {
    /// Bytes of the tables that were merged into it.
    pub read_bytes: u64,
    /// Bytes of the tables that were written to it.
    pub written_bytes: u64,
    /// Entries dropped because a newer version hides them from every reader.
    pub hidden: u64,
    /// Tombstones dropped because nothing older is left for them to hide.
    pub tombstones: u64,
    /// Entries dropped because they came twice.
    pub duplicates: u64,
    /// Entries dropped because the keyspace had grown past
    /// [`fifo_bytes_max`](crate::KeyspaceOptions::fifo_bytes_max).
    pub dropped_for_size: u64,
    /// Entries dropped because they were past [`fifo_age_max`](crate::KeyspaceOptions::fifo_age_max).
    pub dropped_for_age: u64,
    /// Nanoseconds that jobs took, in sum.
    pub busy_ns: u64,
    /// Nanoseconds that something of a keyspace was due and no running job was in its way, until one of these jobs began, in
    /// sum. Those of one keyspace never overlap, so this says for how long there was work for another thread.
    pub queued_ns: u64,
}

/// How many commits waited at a hard limit, and nanoseconds in sum, by the limit (P10).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StallStats {
    /// Runs in level 0.
    pub l0_runs: Stalled,
    /// Bytes of sealed memtables.
    pub sealed_bytes: Stalled,
    /// Bytes waiting for compaction.
    pub pending_bytes: Stalled,
    /// There was room again, and others stood in the queue before them.
    pub queue: Stalled,
    /// Memory of the database (P13).
    pub memory: Stalled,
    /// Bytes of the log (L5).
    pub log_bytes: Stalled,
}

/// Some stalls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stalled {
    /// How many.
    pub count: u64,
    /// Nanoseconds in sum.
    pub ns: u64,
}

impl From<[u64; 2]> for Stalled {
    fn from([count, ns]: [u64; 2]) -> Self {
        Self { count, ns }
    }
}

/// What a keyspace consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyspaceStats {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u32,
    /// Entries in memtables, active and sealed: every version and tombstone counts.
    pub memtable_entries: u64,
    /// Memory of its memtables in bytes.
    pub memtable_bytes: u64,
    /// Sealed memtables and batches that wait to be flushed.
    pub sealed: u64,
    /// What the background has to do for it.
    pub debt: DebtStats,
    /// Each level that holds a table.
    pub levels: Vec<LevelStats>,
}

/// What sets the pace of a keyspace's writers, each with its hard limit; 0 is no limit (C1, P10).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DebtStats {
    /// Runs in level 0.
    pub l0_runs: u64,
    /// Their limit.
    pub l0_runs_max: u64,
    /// Bytes of sealed memtables that are not flushed.
    pub sealed_bytes: u64,
    /// Their limit.
    pub sealed_bytes_max: u64,
    /// Bytes that compaction has to read, by estimate, before every level is within its target.
    pub pending_bytes: u64,
    /// Their limit.
    pub pending_bytes_max: u64,
}

/// What one level of a keyspace holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelStats {
    /// The level.
    pub level: u8,
    /// Its runs.
    pub runs: u64,
    /// Its tables.
    pub tables: u64,
    /// Bytes of its table files.
    pub bytes: u64,
    /// Entries in its tables: every version and tombstone counts.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Bytes of keys and values in its tables, uncompressed.
    pub logical_bytes: u64,
}

impl KeyspaceStats {
    pub(crate) fn of(keyspace: &KeyspaceShared) -> Self {
        let current = keyspace.history.current();
        let sealed = current.sealed().iter().filter_map(|sealed| match sealed {
            Sealed::Memtable(memtable) => Some(memtable),
            Sealed::Batch(_) => None,
        });
        let memtables = || sealed.clone().chain([current.active()]);
        let mut levels = Vec::new();
        for level in (0..Level::COUNT as u8).map(Level) {
            let runs = current.version().runs(level);
            if runs.is_empty() {
                continue;
            }
            let entries = || runs.iter().flat_map(|run| run.tables()).map(|table| &table.entry);
            levels.push(LevelStats {
                level: level.get(),
                runs: runs.len() as u64,
                tables: entries().count() as u64,
                bytes: entries().map(|entry| entry.bytes).sum(),
                entries: entries().map(|entry| entry.entries).sum(),
                tombstones: entries().map(|entry| entry.tombstones).sum(),
                logical_bytes: entries().map(|entry| entry.logical_bytes).sum(),
            });
        }
        let limits = keyspace.options.limits();
        let load = load_of(keyspace, &current);
        let debt = DebtStats {
            l0_runs: load.l0_runs,
            l0_runs_max: limits.l0_runs,
            sealed_bytes: load.sealed_bytes,
            sealed_bytes_max: limits.sealed_bytes,
            pending_bytes: load.pending_bytes,
            pending_bytes_max: limits.pending_bytes,
        };
        Self {
            debt,
            name: keyspace.name.clone(),
            id: keyspace.id.get(),
            memtable_entries: memtables().map(|memtable| memtable.entries()).sum(),
            memtable_bytes: memtables().map(|memtable| memtable.memory_usage()).sum(),
            sealed: current.sealed().len() as u64,
            levels,
        }
    }
}

impl fmt::Display for KeyspaceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "keyspace {:?} (ks{})", self.name, self.id)?;
        let (entries, bytes, sealed) = (self.memtable_entries, self.memtable_bytes, self.sealed);
        writeln!(f, "  memtables     {entries} entries, {bytes} bytes, {sealed} sealed")?;
        let DebtStats { l0_runs, sealed_bytes, pending_bytes, .. } = self.debt;
        writeln!(
            f,
            "  debt          {l0_runs} runs in L0, {sealed_bytes} bytes sealed, {pending_bytes} bytes to compact"
        )?;
        for level in &self.levels {
            let LevelStats { level, runs, tables, bytes, entries, tombstones, .. } = level;
            writeln!(
                f,
                "  L{level}            {runs} runs, {tables} tables, {bytes} bytes, {entries} entries, {tombstones} tombstones"
            )?;
        }
        Ok(())
    }
}

/// Whether a database takes writes and its background work gets on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Health {
    /// Everything goes on.
    Well,
    /// Background work fails for a cause that may go away, such as a full disk; it is tried again. Reads go on, and so
    /// do writes until the memory for them is used up.
    Degraded {
        /// The last failure.
        cause: Error,
    },
    /// No more writes until the database is reopened (P8). Reads go on.
    Failed {
        /// The first cause.
        cause: Error,
    },
    /// The database was closed.
    Closed,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("well"),
            Self::Degraded { cause } => write!(f, "degraded: {cause}"),
            Self::Failed { cause } => write!(f, "failed: {cause}"),
            Self::Closed => f.write_str("closed"),
        }
    }
}
