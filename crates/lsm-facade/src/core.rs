//! What the handles, the jobs and the cursors of one open database share.
//!
//! - **R2** Each keyspace has one super version at a time, in its [`History`].
//! - **R5** A table's file is deleted when its last holder has dropped it and the durable manifest does not name it.
//! - **P8** What is certain is returned and can be tried again; what is not fails the database until it is reopened.
//!
//! Locks, in the order in which they may be taken: `unsettled` → `keyspaces` → the pipeline's reservation lock → a history's
//! compose lock. `jobs` is taken alone, or before `keyspaces`, or under `unsettled`; `restarted` before a history's compose lock.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, TryLockError, Weak};

use commit_pipeline::{Pipeline, Turnstile};
use compaction::{RateLimiter, Scheduler, Throttle};
use crossbeam_epoch::Guard;
use file_system::{DirectoryLock, Environment, FileSystem};
use internal_key::{JobId, KeyspaceId, SegmentId, SeqNo, TableId};
use lock_meter::Mutex;
use manifest::{Change, Claim, DatabasePaths, Edit, KeyspaceState, LogFloor, Manifest, ManifestStore, TableEntry};
use memory_budget::MemoryBudget;
use skiplist_memtable::{Memtable, MemtableOptions};
use sstable_format::{BlockCache, Expected, ReadOptions, TableCache, TableReader};
use version_history::{
    DroppedTables, Frontier, History, KeptForSnapshots, ObsoleteTables, Retired, Sealed, SnapshotRegistry,
};
use write_ahead_log::{Log, LogPosition, Record, ReplayError, ReplayOptions, ReplayReport, SegmentName};

use crate::events::is_telling_here;
use crate::history::HistoryState;
use crate::jobs::{FlushAsked, Jobs, Unsettled};
use crate::options::{DatabaseOptions, KeyspaceOptions};
use crate::reads::{ReadCounts, TableState};
use crate::stats::Counters;
use crate::{Error, Result};

pub(crate) type SuperVersion = version_history::SuperVersion<Memtable, TableState>;
pub(crate) type Table = version_history::Table<TableState>;
pub(crate) type SealedPart = Sealed<Memtable, TableState>;

/// `KeyspaceShared::pace` while writes go on at full speed.
pub(crate) const PACE_FREE: u64 = 0;
/// `KeyspaceShared::pace` while there is room and writers still wait for their turn: whoever comes stands behind them.
pub(crate) const PACE_QUEUE: u64 = u64::MAX - 1;
/// `KeyspaceShared::pace` while writers wait for room.
pub(crate) const PACE_WAIT: u64 = u64::MAX;

/// A clear or drop that is reserved while its manifest edit is not durable yet (P12).
#[derive(Debug, Clone, Copy)]
struct Operation {
    at: SeqNo,
    /// What replay needs of the log until the edit is durable: the operation's own record, and as long as that may still
    /// be lost, whatever it put an end to.
    needs: SeqNo,
}

/// One keyspace, as its handles and the jobs see it.
pub(crate) struct KeyspaceShared {
    pub(crate) id: KeyspaceId,
    /// Which open database it belongs to: handles of one must not be used with another.
    pub(crate) instance: u64,
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
    pub(crate) history: History<Memtable, TableState>,
    /// What is remembered of the past, where the options keep it.
    pub(crate) history_state: HistoryState,
    memory: Arc<MemoryBudget>,
    /// Made ahead by whoever sealed last, so that sealing allocates nothing under the reservation lock.
    spare: Mutex<Option<Arc<Memtable>>>,
    /// Clears and the drop whose manifest edits are not durable, ascending: two at most, one that failed and one under
    /// way. The log floor does not pass them, and a flush of what came after carries them. A leaf among the locks.
    operations: Mutex<Vec<Operation>>,
    /// Set under the reservation lock by a drop. Relaxed everywhere: the lock orders it for writers, and a reader that
    /// sees it late reads as if it had come a little earlier.
    pub(crate) dropped: AtomicBool,
    /// `PACE_FREE`, `PACE_QUEUE`, `PACE_WAIT`, or a delay in nanoseconds per KiB written (P10). Relaxed: advice, corrected
    /// at the next change of the super version.
    pub(crate) pace: AtomicU64,
    /// The delay in nanoseconds per KiB that is due at the head of the queue, whatever `pace` says (P10). Relaxed, as `pace`.
    pub(crate) queue_delay: AtomicU64,
    /// Where writers at a hard limit wait for their turn (P9, P10).
    pub(crate) room: Turnstile,
    /// Makes one rate of the delays of all writers.
    pub(crate) throttle: Throttle,
    /// What is to be flushed because somebody asked for it.
    pub(crate) flush_asked: FlushAsked,
}

impl KeyspaceShared {
    pub(crate) fn new(
        id: KeyspaceId,
        name: String,
        options: KeyspaceOptions,
        first: SuperVersion,
        core: &Parts,
    ) -> Self {
        Self {
            id,
            instance: core.instance,
            name,
            options,
            history: History::new(first, Arc::clone(&core.retired)),
            history_state: HistoryState::default(),
            memory: Arc::clone(&core.memory),
            spare: Mutex::new(None),
            operations: Mutex::new(Vec::new()),
            dropped: AtomicBool::new(false),
            pace: AtomicU64::new(PACE_FREE),
            queue_delay: AtomicU64::new(0),
            room: Turnstile::default(),
            throttle: Throttle::default(),
            flush_asked: FlushAsked::default(),
        }
    }

    /// A new, empty memtable of this keyspace's size. It allocates its arena when the first entry comes.
    pub(crate) fn new_memtable(&self) -> Arc<Memtable> {
        new_memtable(&self.options, &self.memory)
    }

    /// The memtable made ahead, or a new one. Called under the reservation lock.
    pub(crate) fn take_spare(&self) -> Arc<Memtable> {
        self.spare.lock().take().unwrap_or_else(|| self.new_memtable())
    }

    /// Gives up the memtable made ahead.
    pub(crate) fn give_up_spare(&self) {
        let spare = self.spare.lock().take();
        drop(spare);
    }

    /// Makes the next memtable ahead, outside of every other lock, if there is memory for it.
    pub(crate) fn refill_spare(&self) {
        if self.spare.lock().is_none() && self.memory.has_room(size_of::<Memtable>() as u64) {
            let memtable = self.new_memtable();
            *self.spare.lock() = Some(memtable);
        }
    }

    /// Seals the active memtable if it holds anything (P4). Called under the reservation lock.
    pub(crate) fn seal_in_order(&self) -> bool {
        if self.history.current().active().is_empty() {
            return false;
        }
        let new_active = self.take_spare();
        let sealed: Result<_, std::convert::Infallible> = self.history.install(|current| Ok(current.seal(new_active)));
        let Ok(_) = sealed;
        true
    }

    /// The first sequence number of the oldest sealed part; `None` if nothing is sealed.
    pub(crate) fn oldest_sealed(&self) -> Option<SeqNo> {
        self.history.current().sealed().iter().filter_map(first_seqno).min()
    }

    /// The smallest sequence number that this keyspace needs from the log, or `None` if it needs nothing of it. Leaves
    /// out `flushing`, which becomes durable with the edit that this is asked for.
    pub(crate) fn oldest_unflushed(&self, flushing: &[SealedPart]) -> Option<SeqNo> {
        let current = self.history.current();
        let memtables = current.sealed().iter().filter(|sealed| !flushing.iter().any(|part| part.is(sealed)));
        let sealed = memtables.filter_map(first_seqno).min();
        let active = current.active().first_seqno();
        // After the super version: whoever sees one that a clear has emptied sees the clear.
        let operation = self.operations.lock().iter().map(|operation| operation.needs).min();
        [sealed, active, operation].into_iter().flatten().min()
    }

    /// A clear or drop is reserved at `at`. Called under the reservation lock, before its super version is published.
    pub(crate) fn begin_operation(&self, at: SeqNo) {
        let needs = self.oldest_unflushed(&[]).map_or(at, |oldest| oldest.min(at));
        self.operations.lock().push(Operation { at, needs });
    }

    /// The record of the operation at `at` is durable: what it put an end to is needed no longer, earlier ones neither.
    pub(crate) fn operation_logged(&self, at: SeqNo) {
        let mut operations = self.operations.lock();
        operations.retain(|operation| operation.at >= at);
        operations.iter_mut().filter(|operation| operation.at == at).for_each(|operation| operation.needs = at);
    }

    /// The manifest holds every operation up to `at`.
    pub(crate) fn end_operations(&self, at: SeqNo) {
        self.operations.lock().retain(|operation| operation.at > at);
    }

    /// The newest clear or drop before `seqno` that the manifest does not hold yet.
    pub(crate) fn unfinished_operation(&self, before: SeqNo) -> Option<SeqNo> {
        self.operations.lock().iter().map(|operation| operation.at).rfind(|at| *at < before)
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.is_dropped() { Err(Error::KeyspaceDropped { name: self.name.clone() }) } else { Ok(()) }
    }
}

/// A new, empty memtable of a keyspace of these options, which counts in `memory`.
pub(crate) fn new_memtable(options: &KeyspaceOptions, memory: &Arc<MemoryBudget>) -> Arc<Memtable> {
    // A sixteenth of the memtable, so that a full one wastes little and a small one is not all one chunk; and a little part
    // of the memory that all share, so that there is room for one as long as there is room at all.
    let whole = options.memtable_bytes.min(memory.memtables_max_ever() / 4);
    let arena_chunk_bytes = (whole as usize / 16).clamp(4 << 10, 1 << 20);
    let options = MemtableOptions { arena_chunk_bytes, ..MemtableOptions::default() };
    Arc::new(Memtable::within(&options, Arc::clone(memory)))
}

/// The first sequence number in a sealed part; `None` for a memtable in which nothing was ever reserved.
pub(crate) fn first_seqno(part: &SealedPart) -> Option<SeqNo> {
    match part {
        Sealed::Memtable(memtable) => memtable.first_seqno(),
        Sealed::Batch(table) => Some(table.entry.min_seqno),
    }
}

/// The last sequence number in a sealed part.
pub(crate) fn last_seqno(part: &SealedPart) -> Option<SeqNo> {
    match part {
        Sealed::Memtable(memtable) => Some(memtable.last_reserved_seqno()).filter(|&last| last > SeqNo::ZERO),
        Sealed::Batch(table) => Some(table.entry.max_seqno),
    }
}

/// The living keyspaces, by name and by id.
#[derive(Default)]
pub(crate) struct Keyspaces {
    pub(crate) by_name: BTreeMap<String, Arc<KeyspaceShared>>,
    pub(crate) by_id: BTreeMap<KeyspaceId, Arc<KeyspaceShared>>,
}

impl Keyspaces {
    pub(crate) fn insert(&mut self, keyspace: Arc<KeyspaceShared>) {
        self.by_name.insert(keyspace.name.clone(), Arc::clone(&keyspace));
        self.by_id.insert(keyspace.id, keyspace);
    }

    pub(crate) fn remove(&mut self, keyspace: &KeyspaceShared) {
        self.by_name.remove(&keyspace.name);
        self.by_id.remove(&keyspace.id);
    }
}

/// What recovery needs before there is a pipeline, and the open database ever after.
pub(crate) struct Parts {
    /// Tells this open database from every other in the process.
    pub(crate) instance: u64,
    pub(crate) paths: DatabasePaths,
    pub(crate) environment: Environment,
    pub(crate) options: DatabaseOptions,
    pub(crate) manifest: ManifestStore,
    pub(crate) obsolete: Arc<ObsoleteTables>,
    pub(crate) retired: Arc<Retired<SuperVersion>>,
    /// What memtables and tables hold, and may hold (P13).
    pub(crate) memory: Arc<MemoryBudget>,
    pub(crate) tables: TableCache,
    pub(crate) blocks: Option<Arc<BlockCache>>,
    /// What compactions ask before they write.
    pub(crate) compaction_rate: RateLimiter,
    /// How often readers seek.
    pub(crate) reads: ReadCounts,
    database_id: u128,
    next_table: AtomicU64,
    next_job: AtomicU64,
}

impl Parts {
    pub(crate) fn new(path: &Path, options: DatabaseOptions, manifest: ManifestStore) -> Self {
        let current = manifest.current();
        let memory = Arc::new(options.memory_budget());
        let blocks = match options.block_cache_bytes() {
            0 => None,
            bytes => Some(Arc::new(BlockCache::new(bytes))),
        };
        // A reader that may not come back to a file later keeps every table open (M5).
        let open_tables_max = if options.read_only { usize::MAX } else { options.open_tables_max };
        let read = ReadOptions { access: options.access, block_cache: blocks.clone() };
        static INSTANCES: AtomicU64 = AtomicU64::new(0);
        Self {
            // Relaxed: only uniqueness matters.
            instance: INSTANCES.fetch_add(1, Ordering::Relaxed),
            paths: DatabasePaths::new(path),
            environment: options.environment.clone(),
            obsolete: Arc::new(ObsoleteTables::new()),
            retired: Arc::new(Retired::new()),
            tables: TableCache::new(Arc::clone(&options.environment.files), read, open_tables_max)
                .within(Arc::clone(&memory)),
            memory,
            blocks,
            compaction_rate: RateLimiter::new(
                Arc::clone(&options.environment.clock),
                options.compaction_bytes_per_second,
            ),
            reads: ReadCounts::default(),
            database_id: current.database_id.0,
            next_table: AtomicU64::new(current.next_table_id.get()),
            next_job: AtomicU64::new(current.next_job_id.get()),
            options,
            manifest,
        }
    }

    pub(crate) fn files(&self) -> &dyn FileSystem {
        &*self.environment.files
    }

    /// What a table of a keyspace that is written now is recorded with: the present time, where rows are dropped for their
    /// age.
    pub(crate) fn newest_unix_ms(&self, options: &KeyspaceOptions) -> u64 {
        if options.fifo_age_ms_max == 0 {
            return 0;
        }
        // 0 says that it is not known.
        self.unix_ms().max(1)
    }

    /// The Unix time in milliseconds.
    pub(crate) fn unix_ms(&self) -> u64 {
        unix_ms(&*self.environment.clock)
    }

    /// A table id that nobody has or had. Relaxed: only uniqueness matters.
    pub(crate) fn next_table_id(&self) -> TableId {
        TableId(self.next_table.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps `taken` and every smaller table id from being given away.
    pub(crate) fn skip_table_ids(&self, taken: TableId) {
        self.next_table.fetch_max(taken.get() + 1, Ordering::Relaxed);
    }

    /// A job id that nobody has or had. Relaxed: only uniqueness matters.
    pub(crate) fn next_job_id(&self) -> JobId {
        JobId(self.next_job.fetch_add(1, Ordering::Relaxed))
    }

    /// The ids that an edit must record as taken.
    pub(crate) fn taken_ids(&self, next_segment: SegmentId) -> Change {
        let last = self.manifest.current().last_seqno;
        Change::RaiseNextIds {
            table: TableId(self.next_table.load(Ordering::Relaxed)),
            segment: next_segment,
            job: JobId(self.next_job.load(Ordering::Relaxed)),
            epoch: internal_key::Epoch(last.get() + 1),
        }
    }

    /// A handle for a table that the manifest names or is about to name. One per table and process (R5).
    pub(crate) fn table_handle(&self, keyspace: KeyspaceId, entry: &Arc<TableEntry>) -> Arc<Table> {
        let obsolete: Weak<ObsoleteTables> = Arc::downgrade(&self.obsolete);
        let on_drop: Weak<dyn DroppedTables> = obsolete;
        Arc::new(Table::new(keyspace, Arc::clone(entry), TableState::default(), on_drop))
    }

    /// The opened reader of a table, lent for as long as the guard pins it; opened now if it was not (T2, T5).
    #[inline]
    pub(crate) fn reader_in<'g>(&self, table: &'g Table, guard: &'g Guard) -> Result<&'g TableReader> {
        match table.slot.get(guard) {
            Some(reader) => Ok(reader),
            None => self.open_reader(table, guard),
        }
    }

    #[cold]
    fn open_reader<'g>(&self, table: &'g Table, guard: &'g Guard) -> Result<&'g TableReader> {
        Ok(self.tables.open(&table.slot, &self.paths.table(table.id()), self.expected(table), guard)?)
    }

    /// The opened reader of a table, shared: for cursors, which outlive a call.
    pub(crate) fn reader(&self, table: &Table) -> Result<Arc<TableReader>> {
        let guard = crossbeam_epoch::pin();
        match table.slot.share(&guard) {
            Some(reader) => Ok(reader),
            None => Ok(self.tables.share(&table.slot, &self.paths.table(table.id()), self.expected(table), &guard)?),
        }
    }

    /// What the manifest says that the file of a table must be.
    fn expected(&self, table: &Table) -> Expected {
        Expected {
            bytes: table.entry.bytes,
            database_id: self.database_id,
            keyspace: table.keyspace,
            table: table.id(),
            seqno_base: table.entry.seqno_base,
        }
    }

    /// The version that a keyspace's manifest state describes.
    pub(crate) fn version_of(&self, state: &KeyspaceState) -> Arc<version_history::Version<TableState>> {
        Arc::new(version_history::Version::from_state(state, |entry| self.table_handle(state.id, entry)))
    }

    /// Makes an edit durable, and tells the certain failures from those that fail the database (M7, P8).
    pub(crate) fn commit_edit(&self, edit: Edit) -> Result<Arc<Manifest>, EditError> {
        self.manifest.commit(edit).map_err(|error| EditError::from(error, self))
    }
}

/// How a manifest edit can fail, for the caller's three ways on.
#[derive(Debug)]
pub(crate) enum EditError {
    /// It does not fit any more: abandon the work (P12).
    Refused(manifest::Refusal),
    /// Nothing changed: try again later (P8).
    Certain(Error),
    /// Nobody knows whether it is durable: the database fails (M7).
    Uncertain(Error),
}

impl EditError {
    /// What a caller is told who has no other way on.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Refused(refusal) => Error::InvalidInput { what: refusal.to_string() },
            Self::Certain(error) | Self::Uncertain(error) => error,
        }
    }

    pub(crate) fn from(error: manifest::CommitError, parts: &Parts) -> Self {
        match error {
            manifest::CommitError::Refused(refusal) => Self::Refused(refusal),
            manifest::CommitError::Certain(source) => Self::Certain(Error::from_shared_file(source)),
            uncertain => {
                parts.obsolete.freeze();
                Self::Uncertain(Error::Failed { cause: Arc::new(uncertain) })
            }
        }
    }
}

/// An open database.
pub(crate) struct Core {
    pub(crate) parts: Arc<Parts>,
    /// The write protocol over the log; `None` when open for reading only.
    pub(crate) pipeline: Option<Pipeline<Log>>,
    /// What is visible when open for reading only.
    pub(crate) frozen_visible: Frontier,
    pub(crate) snapshots: Arc<SnapshotRegistry>,
    /// Whether there is, or was, a keyspace that keeps history. Relaxed: only ever set.
    pub(crate) keeps_history: AtomicBool,
    /// When a job should look whether history has come of age, in nanoseconds of the engine's clock. Relaxed: advice.
    pub(crate) history_due: AtomicU64,
    /// Which keyspaces get a look when a snapshot is dropped.
    pub(crate) kept_for_snapshots: KeptForSnapshots,
    pub(crate) keyspaces: RwLock<Keyspaces>,
    /// Held while a keyspace is created or dropped, whose manifest edits must not cross.
    pub(crate) membership: Mutex<()>,
    /// Held for reading by calls that change files on the caller's thread, for writing by closing: when the directory's
    /// lock goes, nobody changes anything in it any more. Taken before every other lock.
    pub(crate) changing: RwLock<()>,
    /// Taken also after a holder has panicked, as the other locks here: no holder leaves its data half changed.
    pub(crate) jobs: Mutex<Jobs>,
    /// Held by who frees what nobody uses any more, so that who waits for an idle database finds it gone.
    pub(crate) tidying: std::sync::Mutex<()>,
    /// The part of the log that the last commit lay in, as [`log_window`] numbers them. Written under the reservation lock.
    pub(crate) log_window: AtomicU64,
    /// What the length of the log asks of all writers, as `KeyspaceShared::pace` says what a keyspace's debt asks of its own
    /// (P10). Relaxed: advice, corrected whenever the log has grown by a segment or lost one.
    pub(crate) log_pace: AtomicU64,
    /// Makes one rate of the delays of all writers while the log is long.
    pub(crate) log_throttle: Throttle,
    /// When the first table of any keyspace will be past its age, in milliseconds of Unix time; `u64::MAX` while none will.
    /// Written under `jobs`, read without: what a worker sleeps for.
    pub(crate) first_expiry_unix_ms: AtomicU64,
    /// Where writers wait for memory, in the order in which they came (P9, P13).
    pub(crate) memory_room: Turnstile,
    /// Makes one rate of the delays of all writers while memory runs short.
    pub(crate) memory_throttle: Throttle,
    /// Keyspaces, dropped ones too, that may still link what stood before a clear or drop.
    pub(crate) restarted: Mutex<Vec<Arc<KeyspaceShared>>>,
    /// What was replayed from beyond the last claim and is not flushed yet (L4). Held, I/O included, by who flushes it.
    pub(crate) unsettled: Mutex<Option<Unsettled>>,
    /// Whether there is nothing of that left. Relaxed: only ever set, and who misses it finds nothing under the lock.
    pub(crate) is_settled: AtomicBool,
    pub(crate) scheduler: OnceLock<Arc<Scheduler>>,
    /// The log's own worker (L1); none where there are no threads.
    pub(crate) log_keeper: OnceLock<Scheduler>,
    pub(crate) counters: Counters,
    /// Set once by closing. Relaxed: whoever misses it meets the pipeline's own refusal, or reads what is still there.
    pub(crate) closed: AtomicBool,
    /// Held from before the first read of the directory until closing.
    pub(crate) directory_lock: Mutex<Option<Box<dyn DirectoryLock>>>,
}

impl std::ops::Deref for Core {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Core {
    /// The write protocol.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::Closed`].
    pub(crate) fn writable(&self) -> Result<&Pipeline<Log>> {
        self.check_open()?;
        self.pipeline.as_ref().ok_or(Error::ReadOnly)
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Keeps the database from being closed while the caller changes files (see `changing`).
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub(crate) fn begin_change(&self) -> Result<std::sync::RwLockReadGuard<'_, ()>> {
        let changing = match self.changing.try_read() {
            Ok(changing) => changing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Closing has begun. Not waited for: a listener may be called by who holds the lock already, for which closing
            // waits.
            Err(TryLockError::WouldBlock) => return Err(Error::Closed),
        };
        // Closing sets the flag before it takes the lock: who comes after it sees the flag.
        self.check_open()?;
        Ok(changing)
    }

    /// Whether the thread must neither wait for jobs nor run one: it is within a listener, for which they may wait (P9).
    pub(crate) fn must_not_wait(&self) -> bool {
        is_telling_here(self.instance)
    }

    /// For calls that wait for jobs, or run them.
    ///
    /// # Errors
    /// [`Error::InListener`].
    pub(crate) fn may_wait(&self) -> Result<()> {
        if self.must_not_wait() { Err(Error::InListener) } else { Ok(()) }
    }

    /// What a failed read is answered with: once the database is closed its files belong to others, who may have removed
    /// what the read looked for, so that being closed is the cause of whatever it met.
    #[cold]
    pub(crate) fn read_failed(&self, error: Error) -> Error {
        if self.closed.load(Ordering::Relaxed) { Error::Closed } else { error }
    }

    /// Makes an edit durable, and tells the certain failures from those that fail the database (M7, P8). Begins the log if it
    /// has not begun: what a database without one holds is what its last close left (M6).
    pub(crate) fn commit_edit(&self, edit: Edit) -> Result<Arc<Manifest>, EditError> {
        if let Some(pipeline) = &self.pipeline
            && self.manifest.current().log_floor == LogFloor::default()
            && !planted_faults::planted("facade-edited-without-a-log")
        {
            match pipeline.journal().prepare_segment() {
                Ok(()) => {}
                Err(error) if error.is_uncertain() => return Err(EditError::Uncertain(error.into())),
                // P8: what a compaction frees may be what is lacking.
                Err(error)
                    if error.is_out_of_space()
                        && leaves_tables(&self.manifest.current(), &edit)
                        && !planted_faults::planted("facade-no-compaction-without-a-log") => {}
                Err(error) => return Err(EditError::Certain(error.into())),
            }
        }
        self.parts.commit_edit(edit)
    }

    /// The prefix of all writes that reads see (P3).
    #[inline]
    pub(crate) fn visible(&self) -> &Frontier {
        match &self.pipeline {
            Some(pipeline) => pipeline.visible(),
            None => &self.frozen_visible,
        }
    }

    /// The super version that a registered sequence number reads of a keyspace (R4).
    pub(crate) fn super_version_at(&self, keyspace: &KeyspaceShared, seqno: SeqNo) -> Arc<SuperVersion> {
        keyspace
            .history
            .version_for_snapshot(seqno)
            .unwrap_or_else(|| panic!("R4: the super version of {} at registered seqno {seqno} is gone", keyspace.name))
    }

    /// What a read of one keyspace outside a snapshot looks through, and up to which sequence number: the super version
    /// first, `visible` after (R1).
    pub(crate) fn view(&self, keyspace: &KeyspaceShared) -> (Arc<SuperVersion>, SeqNo) {
        let current = keyspace.history.current_full();
        let seqno = self.visible().load();
        // Between a clear's reservation and its publishing the past is what is visible. Nothing is registered here, so only
        // the super version at hand keeps it: the history may have let go of it by now (R4).
        let mut chosen = current;
        while seqno < chosen.start() {
            let predecessor = chosen.predecessor().map(Arc::clone);
            chosen = predecessor.unwrap_or_else(|| self.super_version_at(keyspace, seqno));
        }
        (chosen, seqno)
    }

    /// Whether the commit at `position` enters another part of the log. Called under the reservation lock.
    #[inline]
    pub(crate) fn enters_log_window(&self, position: LogPosition) -> bool {
        let window = log_window(position);
        // Relaxed: only written under the reservation lock.
        let enters = self.log_window.load(Ordering::Relaxed) != window;
        if enters {
            self.log_window.store(window, Ordering::Relaxed);
        }
        enters
    }

    pub(crate) fn keyspace_list(&self) -> Vec<Arc<KeyspaceShared>> {
        let keyspaces = self.keyspaces.read().unwrap_or_else(PoisonError::into_inner);
        keyspaces.by_id.values().cloned().collect()
    }

    pub(crate) fn scheduler(&self) -> Option<&Arc<Scheduler>> {
        self.scheduler.get()
    }

    /// Wakes the background, if there is one: also to try again what failed.
    pub(crate) fn notify(&self) {
        if let Some(scheduler) = self.scheduler() {
            self.jobs.lock().try_failed_again();
            scheduler.notify();
        }
    }

    /// Wakes the background for a job that may be due, and nobody who waits for what jobs bring about.
    pub(crate) fn notify_workers(&self) {
        if let Some(scheduler) = self.scheduler() {
            self.jobs.lock().try_failed_again();
            scheduler.notify_workers();
        }
    }

    /// Fails the database for writes with the first cause (P8).
    pub(crate) fn fail(&self, cause: Error) -> Error {
        if let Some(pipeline) = &self.pipeline {
            pipeline.fail(Arc::new(cause.clone()));
        }
        self.parts.obsolete.freeze();
        // P9: no job runs any more whose end would tell those who wait.
        if let Some(scheduler) = self.scheduler() {
            scheduler.notify();
        }
        cause
    }

    /// Where replay would have to begin if the parts in `flushing` were durable (L5, M2), and the claim to raise (L3).
    ///
    /// Nothing while there is no log.
    ///
    /// The next sequence number is read first: whatever is reserved later is at or above it, and whatever was reserved
    /// before has left its mark in a memtable under the same lock.
    pub(crate) fn log_progress(&self, flushing: &[(KeyspaceId, &[SealedPart])]) -> Vec<Change> {
        let Some(pipeline) = &self.pipeline else { return Vec::new() };
        let mut oldest = pipeline.next_seqno();
        for keyspace in self.keyspace_list() {
            let leave_out = flushing.iter().find(|(id, _)| *id == keyspace.id).map_or(&[][..], |(_, parts)| parts);
            if let Some(seqno) = keyspace.oldest_unflushed(leave_out) {
                oldest = oldest.min(seqno);
            }
        }
        let log = pipeline.journal();
        if !log.has_begun() {
            return Vec::new();
        }
        let floor = log.floor_for(oldest);
        vec![
            Change::RaiseLogFloor(LogFloor { segment: floor.id, salt: floor.salt }),
            Change::RaiseClaim(claim(log.durable())),
            self.taken_ids(log.next_segment_id()),
        ]
    }
}

/// Whether an edit does nothing but replace tables, and leaves some: then they say that there was a database (M6).
fn leaves_tables(manifest: &Manifest, edit: &Edit) -> bool {
    let mut tables = manifest.keyspaces.values().map(|state| state.tables().count()).sum::<usize>();
    for change in &edit.changes {
        match change {
            Change::ReplaceTables { removed, added, .. } => {
                tables = (tables + added.len()).saturating_sub(removed.len())
            }
            Change::RaiseHistoryFloor { .. } | Change::RaiseNextIds { .. } => {}
            _ => return false,
        }
    }
    tables > 0
}

/// The Unix time in milliseconds.
pub(crate) fn unix_ms(clock: &dyn file_system::Clock) -> u64 {
    u64::try_from(clock.unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// Numbers the mebibytes of the log: whenever a commit enters the next one, the background looks whether pages are to be
/// populated, a segment prepared, a full one synced (L1).
pub(crate) fn log_window(position: LogPosition) -> u64 {
    position.segment.get() << 16 | position.offset >> 20
}

/// A log position as the manifest keeps it.
pub(crate) fn claim(position: LogPosition) -> Claim {
    Claim { segment: position.segment, offset: position.offset }
}

/// The log position that a manifest keeps as a claim.
pub(crate) fn claimed(claim: Claim) -> LogPosition {
    LogPosition { segment: claim.segment, offset: claim.offset }
}

/// The segment that a manifest's floor names.
pub(crate) fn floor_segment(floor: LogFloor) -> SegmentName {
    SegmentName { id: floor.segment, salt: floor.salt }
}

/// Replays the log that `manifest` names. There must be one: see [`Manifest::log_floor`].
pub(crate) fn replay_log(
    environment: &Environment,
    paths: &DatabasePaths,
    manifest: &Manifest,
    options: ReplayOptions,
    on_record: impl FnMut(Record<'_>) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> std::result::Result<ReplayReport, ReplayError> {
    let (floor, claim) = (floor_segment(manifest.log_floor), claimed(manifest.claim));
    let database_id = manifest.database_id.0;
    write_ahead_log::replay(environment, &paths.log_dir(), database_id, floor, claim, options, on_record)
}
