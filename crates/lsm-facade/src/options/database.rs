//! How a database is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use file_system::{Environment, LogFileWay};
use manifest::ManifestOptions;
use memory_budget::MemoryBudget;
use sstable_format::Access;

use super::in_range;
use crate::events::{EventListener, Listeners};
use crate::{Database, Error, Result};

/// How a database is opened. Made by [`Database::builder`]; [`open`](Self::open) checks every option before it
/// touches the disk.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = lsm_facade::Database::builder(dir.path())
///     .block_cache_bytes(64 << 20)
///     .background_threads(1)
///     .open()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `open` is called"]
pub struct DatabaseBuilder {
    pub(crate) path: PathBuf,
    pub(crate) options: DatabaseOptions,
}

/// The options of a [`DatabaseBuilder`], as checked.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseOptions {
    pub(crate) environment: Environment,
    pub(crate) create_if_missing: bool,
    pub(crate) error_if_exists: bool,
    pub(crate) read_only: bool,
    pub(crate) salvage: bool,
    /// `None`: the default.
    pub(crate) block_cache_bytes: Option<u64>,
    /// 0 for no limit.
    pub(crate) memory_bytes_max: u64,
    pub(crate) open_tables_max: usize,
    pub(crate) background_threads: usize,
    pub(crate) access: Access,
    pub(crate) log_way: LogFileWay,
    pub(crate) log_segment_bytes: u64,
    pub(crate) log_bytes_max: u64,
    pub(crate) large_batch_bytes: Option<u64>,
    pub(crate) edit_file_bytes: Option<u64>,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) compaction_bytes_per_second: u64,
    pub(crate) event_log_bytes_max: u64,
    /// `None`: as many as there are threads for it.
    pub(crate) subcompactions_max: Option<usize>,
    pub(crate) listeners: Listeners,
}

impl DatabaseBuilder {
    pub(crate) fn new(path: &Path) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().clamp(1, 4));
        let options = DatabaseOptions {
            environment: Environment::real(),
            create_if_missing: true,
            error_if_exists: false,
            read_only: false,
            salvage: false,
            block_cache_bytes: None,
            memory_bytes_max: 0,
            open_tables_max: 4096,
            background_threads: threads,
            access: Access::Mapped,
            log_way: LogFileWay::Mapped,
            log_segment_bytes: 64 << 20,
            log_bytes_max: 1 << 30,
            large_batch_bytes: None,
            edit_file_bytes: None,
            idle_after: Some(Duration::from_secs(1)),
            compaction_bytes_per_second: 0,
            event_log_bytes_max: 0,
            subcompactions_max: None,
            listeners: Listeners::default(),
        };
        Self { path: path.to_owned(), options }
    }

    /// Whether a database is created where there is none. Default: yes.
    pub fn create_if_missing(mut self, yes: bool) -> Self {
        self.options.create_if_missing = yes;
        self
    }

    /// Whether an existing database is an error. Default: no.
    pub fn error_if_exists(mut self, yes: bool) -> Self {
        self.options.error_if_exists = yes;
        self
    }

    /// Opens for reading only: takes no lock, writes and removes nothing, so that a database that another process has
    /// open can be read as it was at some moment. Every table is opened at once. Default: no.
    pub fn read_only(mut self, yes: bool) -> Self {
        self.options.read_only = yes;
        self
    }

    /// Whether opening goes on after damage in the log, leaving out what cannot be read (L3). Default: no: damage is
    /// an error and nothing is changed.
    pub fn salvage_log(mut self, yes: bool) -> Self {
        self.options.salvage = yes;
        self
    }

    /// Bytes of decompressed blocks (and of all blocks under [`Access::Pread`]) kept in memory. 0 keeps none. Default: 64 MiB,
    /// but at most a quarter of [`memory_bytes_max`](Self::memory_bytes_max).
    pub fn block_cache_bytes(mut self, bytes: u64) -> Self {
        self.options.block_cache_bytes = Some(bytes);
        self
    }

    /// The most memory that the database holds in sum (P13): in the memtables of all keyspaces, also those that are flushed and
    /// that an iterator still reads; in open tables, whose indexes and filters are held unless they are mapped; and in the
    /// block cache, which counts with all that it may hold. At least 64 KiB more than
    /// [`block_cache_bytes`](Self::block_cache_bytes). 0: no limit, and what bounds memtables is each keyspace's
    /// [`write_buffer_bytes`](crate::KeyspaceOptions::write_buffer_bytes) alone. Default: 0, because a number that suits a small machine
    /// would slow a large one down.
    ///
    /// Above half of what memtables may hold the largest of them are flushed, whatever their keyspaces say, idle ones too; above
    /// 85 % writers are delayed; and whoever needs more than there is waits for a flush. What no flush can help gets
    /// [`Error::MemoryFull`]: iterators that pin what was flushed, or a batch that the whole limit could not hold. Batches above
    /// a 32nd of it go by the way of [`large_batch_bytes`](Self::large_batch_bytes) and take no memtable.
    ///
    /// An empty keyspace takes about a KiB, which is never refused.
    ///
    /// Not counted: what jobs, iterators and batches hold for themselves while they are under way; tables beyond an eighth of the
    /// limit that iterators keep open, or that one get looks into; and while opening, what the log holds, which is flushed next. Without effect on a
    /// database that is [`read_only`](Self::read_only).
    pub fn memory_bytes_max(mut self, bytes: u64) -> Self {
        self.options.memory_bytes_max = bytes;
        self
    }

    /// How many tables are kept open (mapped, or with a descriptor) at once. At least 8. Default: 4096.
    pub fn open_tables_max(mut self, tables: usize) -> Self {
        self.options.open_tables_max = tables;
        self
    }

    /// Threads for flushes and compactions. 0 runs nothing in the background: [`Database::run_one_job`] steps, and
    /// whoever has to wait for a job runs it, so that a run is deterministic. At most 64. Default: the number of
    /// cores, at most 4. With any, one more keeps the log ahead of its writers; it sleeps unless they have filled another MiB.
    pub fn background_threads(mut self, threads: usize) -> Self {
        self.options.background_threads = threads;
        self
    }

    /// After how long without writes and jobs keyspaces are flushed and compacted though nothing is due. All have what is sealed
    /// of their memtables flushed, though it is not a whole write buffer. Compacted are those of up to sixteen times
    /// their `level_base_bytes`, and of 4 GiB at most, to one run, which reads and space gain by, or to one above another of twenty
    /// times its size. Not under [`Strategy::Fifo`](crate::Strategy::Fifo). A seal ends it. While others are written to, a
    /// keyspace that was not for as long has its turn too, after them and in jobs of bounded size. `None`: never. Zero: whenever
    /// nothing else is to do; also [`Database::run_one_job`] does it then, and only then. Default: a second.
    pub fn compact_when_idle_after(mut self, idle: Option<Duration>) -> Self {
        self.options.idle_after = idle;
        self
    }

    /// The most bytes of keys and values, before compression, that all compactions together write in a second; 0 for no limit:
    /// so tables grow by no more, but for small rows, of which each takes some bytes besides. Flushes are not limited:
    /// they are what writers wait for. Too low a rate holds writers up in the end (P10). Default: 0.
    pub fn compaction_bytes_per_second(mut self, bytes: u64) -> Self {
        self.options.compaction_bytes_per_second = bytes;
        self
    }

    /// Into how many parts a large compaction may be cut, by keys, so that several threads write it at once: each part has
    /// at least the [`table_bytes`](crate::KeyspaceOptions::table_bytes) of its keyspace, and ends with a table that may not be
    /// full. Each holds as much memory as a job of one part. 1 cuts none. 1 to 64. Default: as many as there are threads
    /// that compact, which is one less than [`background_threads`](Self::background_threads) and on small machines one.
    pub fn subcompactions_max(mut self, parts: usize) -> Self {
        self.options.subcompactions_max = Some(parts);
        self
    }

    /// How tables are read. Default: [`Access::Mapped`]. A failing disk under a map ends the process with a signal,
    /// under [`Access::Pread`] it is an error.
    pub fn access(mut self, access: Access) -> Self {
        self.options.access = access;
        self
    }

    /// How the log is written. Default: [`LogFileWay::Mapped`], where the file system is known to be safe for it.
    pub fn log_way(mut self, way: LogFileWay) -> Self {
        self.options.log_way = way;
        self
    }

    /// Bytes of the longest log segments; a short log has segments down to a sixteenth of it. 16 KiB to 1 GiB. Default:
    /// 64 MiB.
    pub fn log_segment_bytes(mut self, bytes: u64) -> Self {
        self.options.log_segment_bytes = bytes;
        self
    }

    /// Above this many bytes of log every keyspace is flushed that has unflushed writes in what lies beyond them, idle ones too
    /// (L5). Twice as many is a hard limit: from 85 % of it on writers are delayed, at it they wait until flushes have made
    /// the log shorter (P10). So the log, with all keyspaces together, has at most twice as many bytes, the segment that was being
    /// filled when that was reached, and what commits write that were already on their way; what is prepared ahead, or kept to be
    /// written over, is three segments at most beside it. At least two segments. Default: 1 GiB.
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.options.log_bytes_max = bytes;
        self
    }

    /// Batches whose log record would be larger than this are written as tables of their own and only referred to by
    /// the log (P11). At most a quarter of a segment, which is the default.
    pub fn large_batch_bytes(mut self, bytes: u64) -> Self {
        self.options.large_batch_bytes = Some(bytes);
        self
    }

    /// What a manifest edit may cost in bytes before edits go to an edit file instead of rewriting level files (M3).
    /// Default: 4 KiB.
    pub fn edit_file_bytes(mut self, bytes: u64) -> Self {
        self.options.edit_file_bytes = Some(bytes);
        self
    }

    /// Tells `listener` what the background does, and who waits for it; may be called for several. Default: nobody.
    pub fn event_listener(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.options.listeners.add(listener);
        self
    }

    /// Bytes of disk for an event log: what listeners are told, as lines of JSON in `events.<n>.jsonl`, the newest that fit.
    /// [`Timeline::of_event_log`](crate::Timeline::of_event_log) and `lsm events` read it. It is never synced, and no commit
    /// and no job fails for it. 8 KiB to 1 GiB; 0 for none. Default: 0.
    pub fn event_log_bytes_max(mut self, bytes: u64) -> Self {
        self.options.event_log_bytes_max = bytes;
        self
    }

    /// The outside world: files, clock, randomness. Default: the operating system's.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.options.environment = environment;
        self
    }

    /// Opens the database.
    ///
    /// Reads the manifest, checks that what it names is there, replays the log, and only then removes what nothing
    /// names any more (M2). If the last owner was killed, whatever of the log was never claimed as durable is flushed
    /// first (L4). Cost: one read per level file, one inspection per table, and the log above the flushed writes.
    ///
    /// # Errors
    /// - [`Error::InvalidOption`]: an option is out of its range. Nothing was touched.
    /// - [`Error::NotFound`], [`Error::Exists`], [`Error::Locked`].
    /// - [`Error::Corrupt`], [`Error::Unsupported`]: the files are left as they are.
    /// - [`Error::Io`], [`Error::DiskFull`]: opening again may succeed.
    pub fn open(self) -> Result<Database> {
        self.options.check()?;
        Database::open_with(&self.path, self.options)
    }

    /// Checks every file of the database without opening it: all checksums, the order and the counts of every table, and
    /// whether the files agree. Writes nothing and takes no lock, so that it may run beside a process that has the
    /// database open. Cost: every byte is read twice, and every key compared.
    ///
    /// ```
    /// # fn main() -> lsm_facade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # lsm_facade::Database::open(dir.path())?.keyspace("a")?.insert("k", "v")?;
    /// let report = lsm_facade::Database::builder(dir.path()).verify()?;
    /// assert!(report.damage.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`]: nothing can be said. Damage is no error but stands in the report.
    pub fn verify(self) -> Result<crate::VerifyReport> {
        crate::verify::verify(&self.options.environment, &self.path)
    }

    /// Makes a damaged database open again. The manifest is taken as it is if it can be read, without the tables that
    /// are damaged; else it is made anew from tables and log alone, and level files that can be read. Damage in the log is
    /// passed over.
    ///
    /// Nothing is thrown away: files that the database no longer has keep a name in `repair-<n>`, a new directory in its
    /// own. What a damaged table still holds is not taken over: [`salvage_into`](Self::salvage_into) does that. Cost:
    /// every byte is read about three times; without a manifest once more, to see which tables are newer.
    ///
    /// # Errors
    /// - [`Error::NotFound`], [`Error::Locked`].
    /// - [`Error::Corrupt`]: nothing is left to make a manifest from.
    /// - [`Error::Io`], [`Error::DiskFull`]: the old or the new manifest stands; repairing again may succeed.
    pub fn repair(self) -> Result<crate::RepairReport> {
        self.options.check()?;
        crate::repair::repair(&self.path, self.options)
    }

    /// Copies every entry that can be read into a new database, which `target` says how to open and which must not
    /// exist: whole blocks of damaged tables too, and what the log holds. This database stays as it is, and no lock is
    /// taken: nobody should be writing to it.
    ///
    /// Only the newest version of each key is copied. Where a newer one is lost an older one may be found: the report
    /// says in which ranges of keys that can be.
    ///
    /// # Errors
    /// - [`Error::NotFound`], [`Error::Exists`], [`Error::Corrupt`] (nothing can be read at all), [`Error::Io`].
    /// - What writing to the new database returns; it then holds a part.
    pub fn salvage_into(self, target: DatabaseBuilder) -> Result<crate::SalvageReport> {
        self.options.check()?;
        crate::salvage::salvage(&self.path, &self.options, target)
    }
}

impl DatabaseOptions {
    fn check(&self) -> Result<()> {
        in_range("open_tables_max", self.open_tables_max as u64, 8, 1 << 20)?;
        if self.memory_bytes_max > 0 {
            let least = self.block_cache_bytes().saturating_add(MEMORY_BYTES_MIN);
            in_range("memory_bytes_max", self.memory_bytes_max, least, u64::MAX)?;
        }
        in_range("background_threads", self.background_threads as u64, 0, 64)?;
        in_range("subcompactions_max", self.subcompactions_max.unwrap_or(1) as u64, 1, 64)?;
        in_range("log_segment_bytes", self.log_segment_bytes, 16 << 10, 1 << 30)?;
        in_range("log_bytes_max", self.log_bytes_max, 2 * self.log_segment_bytes, u64::MAX)?;
        if let Some(bytes) = self.large_batch_bytes {
            in_range("large_batch_bytes", bytes, 64, self.log_segment_bytes / 4)?;
        }
        if self.event_log_bytes_max > 0 {
            in_range("event_log_bytes_max", self.event_log_bytes_max, crate::event_log::EVENT_LOG_BYTES_MIN, 1 << 30)?;
        }
        if self.read_only && self.error_if_exists {
            return Err(Error::InvalidOption {
                name: "error_if_exists".to_owned(),
                expected: "false when read_only is set".to_owned(),
                found: "true".to_owned(),
            });
        }
        Ok(())
    }

    pub(crate) fn manifest(&self) -> ManifestOptions {
        let default = ManifestOptions::default();
        let edit_bytes_free = self.edit_file_bytes.unwrap_or(default.edit_bytes_free);
        // Who lets edits cost less has the file folded sooner.
        let edit_file_bytes_min = edit_bytes_free.saturating_mul(16).clamp(2 << 10, default.edit_file_bytes_min);
        let levels_folded_at_once_max = default.levels_folded_at_once_max.min(edit_bytes_free as usize / 64);
        ManifestOptions { edit_bytes_free, edit_file_bytes_min, levels_folded_at_once_max, ..default }
    }

    /// All that the block cache may hold.
    pub(crate) fn block_cache_bytes(&self) -> u64 {
        let default = match self.memory_bytes_max {
            0 => BLOCK_CACHE_BYTES,
            limit => BLOCK_CACHE_BYTES.min(limit / 4),
        };
        self.block_cache_bytes.unwrap_or(default)
    }

    /// What counts the memory of the database, and limits it (P13).
    pub(crate) fn memory_budget(&self) -> MemoryBudget {
        match self.memory_bytes_max {
            limit if limit > 0 && !self.read_only => MemoryBudget::new(limit, self.block_cache_bytes()),
            _ => MemoryBudget::unlimited(self.block_cache_bytes()),
        }
    }

    /// The largest batch payload that goes into the log itself.
    pub(crate) fn inline_batch_bytes(&self) -> u64 {
        let bytes = self.large_batch_bytes.unwrap_or(self.log_segment_bytes / 4);
        match self.memory_bytes_max {
            0 => bytes,
            // In memtables a batch takes several times its bytes, if its entries are small.
            limit => bytes.min(limit.saturating_sub(self.block_cache_bytes()) / INLINE_BATCH_FRACTION),
        }
    }
}

/// The default size of the block cache.
const BLOCK_CACHE_BYTES: u64 = 64 << 20;

/// The least that a limit of memory leaves beside the block cache.
const MEMORY_BYTES_MIN: u64 = 64 << 10;

/// A batch of more than this part of the memory beside the block cache takes no memtable.
const INLINE_BATCH_FRACTION: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused_before_anything_is_touched() {
        let dir = std::path::Path::new("/nonexistent/for/certain");
        let builder = || Database::builder(dir);
        for refused in [
            builder().open_tables_max(1),
            builder().memory_bytes_max(1),
            builder().block_cache_bytes(1 << 20).memory_bytes_max((1 << 20) + (64 << 10) - 1),
            builder().background_threads(65),
            builder().log_segment_bytes(1),
            builder().log_bytes_max(1),
            builder().large_batch_bytes(1 << 30),
            builder().read_only(true).error_if_exists(true),
        ] {
            assert!(matches!(refused.open(), Err(Error::InvalidOption { .. })));
        }
    }
}
