//! Background work: which job is next, and how each is carried out and installed.
//!
//! ```text
//!   flush:    complete sealed parts ─▶ sync the log (P5) ─▶ tables ─▶ edit (M1, P6) ─▶ super version ─▶ log floor (L5)
//!   compact:  pick ─▶ floor and snapshots in one step (R3) ─▶ merge ─▶ edit (M1, C4) ─▶ super version
//!   tidy up:  retired memory, files that nobody holds and nothing names (R4, R5), replaced manifest files, old segments
//! ```
//!
//! - **C4** A job is installed by one edit; one that fails leaves everything as it was.
//! - **P6** One flush of a keyspace runs at a time, oldest parts first, so that flushes install in seal order.
//! - **P8** A certain failure is kept in view and tried again; an uncertain one fails the database.
//! - **P9** Whatever becomes of a job, its claim is given back and who waits is told: by guards, so also if it panics. A
//!   panic fails the database before the claim goes, so that nobody builds on what it left half done. A certain failure
//!   concerns its keyspace alone: that task is held back until somebody asks again, and the others get their turn.
//!
//! A run's epoch is its largest sequence number: it grows with every seal and is known without asking anybody (C3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use compaction::{
    Busy, Collected, Collector, Control, Debt, Demand, JobFailure, JobPanicked, JobSource, KeyRange, Load, OlderRuns,
    Output, Outputs, Pace, PickInput, Plan, PlanKind, Progress, RunError, Scope, Wait, WaitError,
};
use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
use manifest::{AddedTable, Change, Edit, Manifest, TableEntry};
use merge_iterator::MergeCursor;
use sstable_format::{Compression, TableOptions, TableSummary};
use version_history::Sealed;

use crate::core::{
    Core, EditError, KeyspaceShared, PACE_FREE, PACE_QUEUE, PACE_WAIT, SealedPart, SuperVersion, Table, first_seqno,
    floor_segment, last_seqno,
};
use crate::events::{Ending, Event, Work};
use crate::options::KeyspaceOptions;
use crate::source::{RunCursor, Source};
use crate::{Error, Result};

/// What runs and what wants a look. Guarded by `Core::jobs`.
#[derive(Default)]
pub(crate) struct Jobs {
    /// Keyspaces with a clear or drop that the manifest does not hold yet (P12).
    look_for_operation: BTreeSet<KeyspaceId>,
    /// Keyspaces in which a flush may be due.
    look_for_flush: BTreeSet<KeyspaceId>,
    /// Keyspaces in which a compaction may be due.
    look_for_compaction: BTreeSet<KeyspaceId>,
    /// Keyspaces that may be compacted because the database is idle; each until its next seal.
    look_when_idle: BTreeSet<KeyspaceId>,
    flushing: BTreeSet<KeyspaceId>,
    compacting: BTreeMap<KeyspaceId, Busy>,
    /// The keyspaces in which a flush and a compaction was begun last: the next is looked for behind them, so that one
    /// that always has something due keeps no other waiting (P9).
    flushed_last: Option<KeyspaceId>,
    compacted_last: Option<KeyspaceId>,
    compactions_running: usize,
    preparing_segment: bool,
    /// There was something to look at since everybody who waits for idleness was last told.
    was_busy: bool,
    /// Why tasks failed that have not succeeded since.
    failed: BTreeMap<Task, Error>,
    /// Those among them that wait for somebody to ask again.
    held_back: BTreeSet<Task>,
    /// Somebody has asked.
    asked_again: bool,
    /// Jobs done since a task was held back.
    done_since_failure: u32,
}

/// After so many other jobs a task that failed, and that somebody has asked for again, gets its turn though there is more to
/// do (P9): where something is always due, nothing would ever come of it otherwise.
const RETRY_AFTER_JOBS: u32 = 8;

/// What there is to do, as far as failures are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Log,
    Operation(KeyspaceId),
    Flush(KeyspaceId),
    Compaction(KeyspaceId),
}

impl Task {
    /// Whom its failure concerns.
    fn scope(self) -> Option<Scope> {
        match self {
            Self::Log => None,
            Self::Operation(id) | Self::Flush(id) | Self::Compaction(id) => Some(scope_of(id)),
        }
    }
}

pub(crate) fn scope_of(keyspace: KeyspaceId) -> Scope {
    Scope(u64::from(keyspace.get()))
}

/// A task that failed, and why.
type TaskError = (Task, Error);

impl Jobs {
    /// What failed and is held back gets another turn, after what else there is to do.
    pub(crate) fn try_failed_again(&mut self) {
        self.asked_again |= !self.held_back.is_empty();
    }

    /// Lets held back tasks go if somebody has asked for it, and returns whether there were any.
    fn release_held_back(&mut self) -> bool {
        let release = std::mem::take(&mut self.asked_again) && !self.held_back.is_empty();
        if release {
            self.held_back.clear();
        }
        release
    }

    fn release_overdue(&mut self) {
        if self.done_since_failure >= RETRY_AFTER_JOBS {
            self.release_held_back();
        }
    }

    fn hold_back(&mut self, task: Task) {
        self.held_back.insert(task);
        self.done_since_failure = 0;
    }

    fn may_run(&self, task: Task) -> bool {
        !self.held_back.contains(&task)
    }

    /// The task succeeded, or there is nothing left of it to do.
    fn no_longer_fails(&mut self, task: Task) {
        self.failed.remove(&task);
        self.held_back.remove(&task);
    }

    pub(crate) fn wants_look(&mut self, keyspace: KeyspaceId) {
        self.look_for_flush.insert(keyspace);
        self.look_for_compaction.insert(keyspace);
        self.was_busy = true;
    }

    /// The keyspace is written to: what only idleness justifies has time.
    pub(crate) fn no_longer_idle(&mut self, keyspace: KeyspaceId) {
        self.look_when_idle.remove(&keyspace);
    }

    /// Flushes and compactions that run now.
    pub(crate) fn running(&self) -> usize {
        self.flushing.len() + self.compactions_running
    }

    /// Whether nothing waits to be looked at and nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running() == 0
            && self.look_for_operation.is_empty()
            && self.look_for_flush.is_empty()
            && self.look_for_compaction.is_empty()
            && self.look_when_idle.is_empty()
    }
}

/// The keyspaces behind `last`, and then those up to it.
fn in_turn(keyspaces: &BTreeSet<KeyspaceId>, last: Option<KeyspaceId>) -> impl Iterator<Item = &KeyspaceId> {
    let after = last.map_or(Bound::Unbounded, Bound::Excluded);
    let behind = keyspaces.range((after, Bound::Unbounded));
    behind.chain(last.into_iter().flat_map(|last| keyspaces.range(..=last)))
}

/// How a job ended, for the scheduler.
enum Outcome {
    /// Something was done.
    Done,
    /// It was abandoned because a clear or drop came in between.
    Abandoned,
}

/// The jobs of a database, for its scheduler. The database owns the scheduler, so that this must not own the database:
/// neither would ever be freed. Closing ends the threads before the database goes.
pub(crate) struct JobsOf(pub(crate) Weak<Core>);

impl JobSource for JobsOf {
    fn run_next_job(&self, cancel: &AtomicBool) -> Result<bool, JobFailure> {
        self.0.upgrade().map_or(Ok(false), |core| core.run_next_job(cancel))
    }

    fn try_failed_again(&self) -> bool {
        let Some(core) = self.0.upgrade() else { return false };
        // Nothing is tried again in a database that has failed.
        let failed = core.pipeline.as_ref().is_none_or(|pipeline| pipeline.failure().is_some());
        let mut jobs = core.jobs.lock();
        jobs.try_failed_again();
        !failed && !jobs.failed.is_empty()
    }

    fn idle_after(&self) -> Option<Duration> {
        self.0.upgrade().and_then(|core| core.options.idle_after)
    }

    fn look_when_idle(&self) -> bool {
        self.0.upgrade().is_some_and(|core| core.look_when_idle())
    }
}

/// A keyspace marked as flushing (P6), until this is dropped.
struct FlushClaim<'a> {
    core: &'a Core,
    keyspace: Arc<KeyspaceShared>,
    /// Whether a flush was tried, after which another may be due.
    tried: bool,
}

impl Drop for FlushClaim<'_> {
    fn drop(&mut self) {
        let mut jobs = self.core.jobs.lock();
        jobs.flushing.remove(&self.keyspace.id);
        if self.tried {
            jobs.wants_look(self.keyspace.id);
        }
    }
}

/// A plan whose inputs and room are claimed, until this is dropped. Not under the jobs' lock.
struct CompactionClaim<'a> {
    core: &'a Core,
    keyspace: Arc<KeyspaceShared>,
    plan: Plan,
    job: JobId,
}

impl Drop for CompactionClaim<'_> {
    fn drop(&mut self) {
        let mut jobs = self.core.jobs.lock();
        jobs.compactions_running -= 1;
        if let Some(busy) = jobs.compacting.get_mut(&self.keyspace.id) {
            busy.end(self.job);
            if busy.is_empty() {
                jobs.compacting.remove(&self.keyspace.id);
            }
        }
        jobs.wants_look(self.keyspace.id);
    }
}

/// The making of a segment, until this is dropped.
struct PreparingClaim<'a>(&'a Core);

impl Drop for PreparingClaim<'_> {
    fn drop(&mut self) {
        self.0.jobs.lock().preparing_segment = false;
    }
}

impl Core {
    fn run_next_job(&self, cancel: &AtomicBool) -> Result<bool, JobFailure> {
        if self.pipeline.as_ref().is_none_or(|pipeline| pipeline.failure().is_some()) {
            // P9: who began to wait before it failed is told once, by whoever looks first.
            if std::mem::take(&mut self.jobs.lock().was_busy) {
                self.notify();
            }
            return Ok(false);
        }
        let ran = self.guarded(|| Ok(self.run_most_pressing(cancel))).unwrap_or_else(|error| Err((Task::Log, error)));
        if matches!(ran, Ok(false)) {
            // P9: the last look found nothing to do. No job ended that would tell those who wait until it is so.
            let mut jobs = self.jobs.lock();
            if jobs.is_idle() && std::mem::take(&mut jobs.was_busy) {
                drop(jobs);
                self.notify();
            }
        }
        match ran {
            Ok(ran) => Ok(ran),
            Err((_, Error::Closed)) => Ok(false),
            Err((task, error)) => Err(self.job_failed(task, error)),
        }
    }

    fn run_most_pressing(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        let log_failed = match self.prepare_log() {
            Ok(true) => return Ok(true),
            Ok(false) => None,
            // P8: the disk is full, and the jobs below may be what makes room.
            Err(error) if error.is_retryable() => Some(error),
            Err(error) => return Err((Task::Log, error)),
        };
        let mut looked = false;
        self.jobs.lock().release_overdue();
        loop {
            if self.finish_next_operation()? || self.flush_next(cancel)? || self.compact_next(cancel)? {
                return Ok(true);
            }
            // Before what failed: on a full disk this may be what makes room.
            if self.tidy_up() {
                return Ok(true);
            }
            // Without time to tell idleness by, it begins at once: see the option.
            let at_once = self.options.idle_after == Some(Duration::ZERO) && !std::mem::replace(&mut looked, true);
            if at_once && self.look_when_idle() {
                continue;
            }
            if !self.jobs.lock().release_held_back() {
                return log_failed.map_or(Ok(false), |error| Err((Task::Log, error)));
            }
        }
    }

    /// Runs a job. If it panics the database has failed when this returns, with the panic as its cause: what the job was
    /// working on may be half done.
    fn guarded<T>(&self, job: impl FnOnce() -> Result<T>) -> Result<T> {
        // Nobody meets what the job leaves half done: no later job runs, writes are refused, and reads see what was
        // published whole.
        catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| {
            let panicked = JobPanicked::of(&*payload);
            tracing::error!(%panicked, "the database fails");
            let error = self.fail(Error::Failed { cause: Arc::new(panicked) });
            self.notify();
            Err(error)
        })
    }
}

impl Core {
    /// Keeps the log ahead of its writers (L1): pages populated, the next segment ready, full segments synced.
    fn prepare_log(&self) -> Result<bool> {
        let Some(pipeline) = &self.pipeline else { return Ok(false) };
        let log = pipeline.journal();
        let wanted = pipeline.with_tail(|tail| tail.wants_populate().then(|| tail.next_end())).flatten();
        if let Some(position) = wanted {
            log.populate_ahead(position);
        }
        let before = log.durable();
        let logged = pipeline.logged();
        if before.segment < logged.segment {
            log.sync_sealed(logged)?;
        }
        Ok(self.prepare_segment()? || log.durable() > before)
    }

    fn prepare_segment(&self) -> Result<bool> {
        let Some(pipeline) = &self.pipeline else { return Ok(false) };
        let log = pipeline.journal();
        let is_wanted = || pipeline.with_tail(|tail| log.wants_segment(tail)).unwrap_or(false);
        {
            let mut jobs = self.jobs.lock();
            if !is_wanted() {
                // A writer that was in need of it may have made it.
                jobs.no_longer_fails(Task::Log);
                return Ok(false);
            }
            if std::mem::replace(&mut jobs.preparing_segment, true) {
                return Ok(false);
            }
        }
        let _claim = PreparingClaim(self);
        self.guarded(|| Ok(log.prepare_segment()?))?;
        Ok(self.job_succeeded(Task::Log))
    }

    /// P12: the manifest edit of a clear or drop that came as far as the log.
    fn finish_next_operation(&self) -> Result<bool, TaskError> {
        loop {
            let due = {
                let jobs = self.jobs.lock();
                jobs.look_for_operation.iter().copied().find(|id| jobs.may_run(Task::Operation(*id)))
            };
            let Some(id) = due else { return Ok(false) };
            let task = Task::Operation(id);
            // Looks are added and taken under this lock, and each is there until its edit is durable: so whoever waits for
            // idleness waits for it, and of two who find it the second finds nothing left.
            let _one_at_a_time = self.membership.lock();
            let unfinished =
                self.keyspace_by_id(id).and_then(|it| it.unfinished_operation(SeqNo::MAX).map(|at| (it, at)));
            // Otherwise a flush, another clear or a new keyspace of its name has taken it along.
            if let Some((keyspace, at)) = &unfinished {
                self.finish_operation(keyspace, *at).map_err(|error| (task, error))?;
            }
            let mut jobs = self.jobs.lock();
            jobs.look_for_operation.remove(&id);
            jobs.no_longer_fails(task);
            if unfinished.is_some() {
                return Ok(true);
            }
        }
    }

    /// A clear or drop stands in the log and could not be brought into the manifest: the background will. `membership` is
    /// held.
    pub(crate) fn operation_unfinished(&self, keyspace: &KeyspaceShared, error: Error) {
        tracing::warn!(%error, keyspace = keyspace.name, "a clear or drop stands in the log alone for now");
        let mut jobs = self.jobs.lock();
        jobs.failed.insert(Task::Operation(keyspace.id), error);
        // At the next occasion, not at once.
        jobs.hold_back(Task::Operation(keyspace.id));
        jobs.look_for_operation.insert(keyspace.id);
        jobs.was_busy = true;
    }

    fn flush_next(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        self.relieve_log();
        loop {
            let Some(mut claim) = self.claim_flush() else { return Ok(false) };
            let keyspace = Arc::clone(&claim.keyspace);
            let parts = self.parts_due(&keyspace);
            claim.tried = !parts.is_empty();
            let ended = claim.tried.then(|| self.guarded(|| self.flush_parts(&keyspace, &parts, cancel)));
            drop(claim);
            self.update_pace(&keyspace);
            let task = Task::Flush(keyspace.id);
            match ended {
                None => self.jobs.lock().no_longer_fails(task),
                Some(Ok(_)) => return Ok(self.job_succeeded(task)),
                Some(Err(error)) => return Err((task, error)),
            }
        }
    }

    /// The next keyspace that may need a flush, marked as flushing (P6).
    fn claim_flush(&self) -> Option<FlushClaim<'_>> {
        loop {
            let id = {
                let mut jobs = self.jobs.lock();
                let may_flush = |id: &&KeyspaceId| !jobs.flushing.contains(id) && jobs.may_run(Task::Flush(**id));
                let id = in_turn(&jobs.look_for_flush, jobs.flushed_last).find(may_flush).copied()?;
                jobs.look_for_flush.remove(&id);
                jobs.flushed_last = Some(id);
                jobs.flushing.insert(id);
                id
            };
            match self.keyspace_by_id(id) {
                Some(keyspace) => return Some(FlushClaim { core: self, keyspace, tried: false }),
                None => {
                    let mut jobs = self.jobs.lock();
                    jobs.flushing.remove(&id);
                    jobs.no_longer_fails(Task::Flush(id));
                }
            }
        }
    }

    fn keyspace_by_id(&self, id: KeyspaceId) -> Option<Arc<KeyspaceShared>> {
        let keyspaces = self.keyspaces.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        keyspaces.by_id.get(&id).cloned()
    }

    /// The oldest sealed parts that one flush takes, oldest first; empty while none is due.
    fn parts_due(&self, keyspace: &KeyspaceShared) -> Vec<SealedPart> {
        let current = keyspace.history.current();
        let sealed = current.sealed();
        let Some(oldest) = sealed.iter().filter_map(first_seqno).min() else { return Vec::new() };
        let asked = oldest.get() <= keyspace.flush_through.load(Ordering::Relaxed);
        let has_batch = sealed.iter().any(|part| matches!(part, Sealed::Batch(_)));
        let due = sealed_bytes(&current) >= keyspace.options.flush_bytes();
        if !(asked || has_batch || due || self.pins_too_much_log(keyspace)) {
            return Vec::new();
        }
        flush_groups(sealed).next().unwrap_or_default()
    }

    /// L5: while the log is larger than its limit, seals what keeps its oldest segment, so that it can be flushed.
    fn relieve_log(&self) {
        let Some(pipeline) = &self.pipeline else { return };
        if pipeline.journal().total_bytes() <= self.options.log_bytes_max {
            return;
        }
        for keyspace in self.keyspace_list() {
            if !self.pins_too_much_log(&keyspace) {
                continue;
            }
            if keyspace.history.current().sealed().is_empty() && pipeline.with_order(|_| keyspace.seal_in_order()) {
                keyspace.refill_spare();
            }
            self.jobs.lock().wants_look(keyspace.id);
        }
    }

    /// L5: whether the log has outgrown its limit and this keyspace keeps its oldest segment.
    fn pins_too_much_log(&self, keyspace: &KeyspaceShared) -> bool {
        let Some(pipeline) = &self.pipeline else { return false };
        let log = pipeline.journal();
        log.total_bytes() > self.options.log_bytes_max
            && keyspace.oldest_unflushed(&[]).is_some_and(|oldest| log.floor_for(oldest) == log.first_segment())
    }

    /// Makes tables of `parts`, the oldest sealed ones, and installs them (P4, P5, P6, M1).
    fn flush_parts(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        cancel: &AtomicBool,
    ) -> Result<Outcome> {
        let (job, name) = (self.next_job_id(), &*keyspace.name);
        self.tell(&Event::FlushBegun { job: job.get(), keyspace: name, memtables: parts.len() });
        let (began, mut work) = (self.environment.clock.monotonic(), Work::default());
        let outcome = self.guarded(|| self.flush_as(job, keyspace, parts, &mut work, cancel));
        let took = self.environment.clock.monotonic().saturating_sub(began);
        self.counters.worked(Level::ZERO, &work, took);
        self.tell(&Event::FlushEnded { job: job.get(), keyspace: name, ending: ending(&outcome), work, took });
        outcome
    }

    fn flush_as(
        &self,
        job: JobId,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        work: &mut Work,
        cancel: &AtomicBool,
    ) -> Result<Outcome> {
        let began = self.environment.clock.monotonic();
        let Some(pipeline) = &self.pipeline else { return Err(Error::ReadOnly) };
        if let Some(last) = parts.iter().filter_map(last_seqno).max() {
            pipeline.wait_visible(last).map_err(Error::failed)?; // P4: complete
            if !planted_faults::planted("facade-flush-before-log-sync") {
                pipeline.persist().map_err(Error::failed)?; // P5
            }
        }
        let Some(flush) = self.make_flush(job, keyspace, parts, Below::Version, cancel)? else {
            // Only memtables in which nothing was ever reserved: nothing to write, nothing to name.
            return Ok(self.install_flush(keyspace, parts, &[]));
        };
        let Flush { last, added, collected } = flush;
        *work = Work {
            written_bytes: added.iter().map(|(place, _)| place.table.bytes).sum(),
            tables: added.len() as u64,
            entries: collected,
            ..Work::default()
        };
        let added_places: Vec<_> = added.iter().map(|(place, _)| place.clone()).collect();
        // P12: once `flushed_seqno` has passed a clear, replay skips it. So a clear that the manifest does not hold yet
        // goes first, in the same edit.
        let cleared = keyspace.unfinished_operation(last);
        let mut edit = Edit::default();
        edit.changes.extend(cleared.map(|at| Change::ClearKeyspace { id: keyspace.id, at }));
        edit.changes.extend([flush_change(keyspace, added_places, last), Change::RaiseLastSeqno(last)]);
        edit.changes.extend(self.log_progress(&[(keyspace.id, parts)]));
        if planted_faults::planted("facade-log-recycled-before-the-edit") {
            let progress = Edit { changes: self.log_progress(&[(keyspace.id, parts)]) };
            if let Ok(manifest) = self.manifest.current().apply(&progress) {
                self.after_edit(&manifest);
            }
        }
        let manifest = match self.commit_edit(edit) {
            Ok(manifest) => manifest,
            Err(error) => {
                let made = added.iter().filter(|(_, handle)| handle.is_none());
                self.abandon_tables(&error, made.map(|(place, _)| place.table.id));
                return self.edit_abandoned(error, job);
            }
        };
        if let Some(at) = cleared {
            keyspace.end_operations(at);
        }
        let added = self.with_handles(keyspace, added);
        self.make_ready(&added, job, cancel);
        let outcome = self.install_flush(keyspace, parts, &added);
        self.after_edit(&manifest);
        self.tell_edit(job, added.iter().map(|(place, _)| place), added.len(), 0);
        let bytes = work.written_bytes;
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.counters.flushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let took = self.environment.clock.monotonic().saturating_sub(began);
        let tables = added.len();
        tracing::info!(%job, keyspace = keyspace.name, parts = parts.len(), tables, bytes, ?took, "flushed");
        Ok(outcome)
    }

    /// The tables of one flush, written and not yet named; `None` if there is nothing to write.
    fn make_flush(
        &self,
        job: JobId,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        below: Below,
        cancel: &AtomicBool,
    ) -> Result<Option<Flush>> {
        let Some(last) = parts.iter().filter_map(last_seqno).max() else { return Ok(None) };
        let epoch = Epoch(last.get());
        let mut collected = Collected::default();
        let made: Vec<(Arc<TableEntry>, Option<Arc<Table>>)> = match parts {
            [Sealed::Batch(table)] => vec![(Arc::clone(&table.entry), Some(Arc::clone(table)))],
            _ => {
                let outputs = self.flush_memtables(keyspace, parts, below, (job, epoch), cancel)?;
                collected = outputs.collected;
                outputs.tables.into_iter().map(|entry| (entry, None)).collect()
            }
        };
        let place = |(table, handle)| (AddedTable { level: Level::ZERO, run: epoch, table }, handle);
        Ok(Some(Flush { last, added: made.into_iter().map(place).collect(), collected }))
    }

    /// Handles for tables that the manifest names from now on; a batch keeps the one it has (R5).
    fn with_handles(&self, keyspace: &KeyspaceShared, added: Vec<Placed>) -> Vec<(AddedTable, Arc<Table>)> {
        let with_handle = |(place, handle): Placed| {
            let handle = handle.unwrap_or_else(|| self.table_handle(keyspace.id, &place.table));
            (place, handle)
        };
        added.into_iter().map(with_handle).collect()
    }

    /// Opens the tables that `job` has made and checks their blocks before readers know of them: otherwise the first get
    /// of each block would fault its pages in and hash it (T2). A table that was only moved stays as it is.
    ///
    /// A failure is the readers' to report: whoever comes to that place meets it too.
    fn make_ready(&self, added: &[(AddedTable, Arc<Table>)], job: JobId, cancel: &AtomicBool) {
        if planted_faults::planted("facade-new-tables-left-to-their-readers") {
            return;
        }
        // Relaxed: whether to stop, nothing else.
        let cancelled = || cancel.load(Ordering::Relaxed);
        for (_, table) in added.iter().filter(|(place, _)| place.table.job == job) {
            let ready = self.reader(table).and_then(|reader| Ok(reader.check_ahead(&cancelled)?));
            if let Err(error) = ready {
                tracing::warn!(%job, %error, "a new table is damaged, or cannot be opened");
            }
        }
    }

    /// Flushes everything sealed in every keyspace by one edit, which also moves the log floor: what recovery does with
    /// the part of the log that was never claimed as durable (L4). Runs before there are jobs or writers. Needs no sync of
    /// the log (P5): with one edit for all, no table can hold half of a batch whose other half is lost.
    ///
    /// `changes` go first, in the same edit: a clear that was replayed from this part of the log may no more outlive it
    /// than a flush may.
    pub(crate) fn flush_recovered(&self, changes: Vec<Change>) -> Result<()> {
        let keyspaces = self.keyspace_list();
        let mut flushed = Vec::new();
        let mut edit = Edit { changes };
        for keyspace in &keyspaces {
            self.seal(keyspace)?;
            let sealed = keyspace.history.current().sealed().to_vec();
            let mut added = Vec::new();
            for parts in flush_groups(&sealed) {
                // The tables made so far are older than these parts, and no version holds them yet.
                let below = if added.is_empty() { Below::Version } else { Below::Unknown };
                if let Some(flush) = self.make_flush(self.next_job_id(), keyspace, &parts, below, &self.closed)? {
                    added.extend(flush.added);
                }
            }
            if let Some(last) = sealed.iter().filter_map(last_seqno).max() {
                let places = added.iter().map(|(place, _): &Placed| place.clone()).collect();
                edit.changes.push(flush_change(keyspace, places, last));
                edit.changes.push(Change::RaiseLastSeqno(last));
            }
            flushed.push((keyspace, sealed, added));
        }
        let parts: Vec<_> = flushed.iter().map(|(keyspace, sealed, _)| (keyspace.id, sealed.as_slice())).collect();
        edit.changes.extend(self.log_progress(&parts));
        let manifest = self.commit_edit(edit).map_err(EditError::into_error)?;
        for (keyspace, sealed, added) in flushed {
            let added = self.with_handles(keyspace, added);
            self.install_flush(keyspace, &sealed, &added);
        }
        self.after_edit(&manifest);
        Ok(())
    }

    fn flush_memtables(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        below: Below,
        (job, epoch): (JobId, Epoch),
        cancel: &AtomicBool,
    ) -> Result<Outputs> {
        let memtables = parts.iter().rev().filter_map(|part| match part {
            Sealed::Memtable(memtable) if !memtable.is_empty() => Some(Source::Memtable(memtable.cursor())),
            _ => None,
        });
        let merged = MergeCursor::new(memtables.collect());
        let (floor, snapshots) = self.snapshots.floor_and_registered(self.visible(), SeqNo::MAX);
        let current = keyspace.history.current_full();
        let mut older = OlderRuns::all(current.version());
        let mut collector =
            Collector::new(floor, &snapshots, |key: &[u8]| below == Below::Unknown || older.may_hold(key));
        let to = Destination { level: Level::ZERO, epoch, job, inputs: &[], bounds: &[] };
        self.write_tables(keyspace, merged, &mut collector, to, cancel)
    }

    fn install_flush(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        added: &[(AddedTable, Arc<Table>)],
    ) -> Outcome {
        match keyspace.history.install(|current| current.install_flush(parts, added)) {
            Ok(_) => Outcome::Done,
            Err(refusal) => {
                // A clear came between the edit and this: its own edit takes the tables out of the manifest (P12).
                tracing::info!(keyspace = keyspace.name, %refusal, "flush installed in the manifest alone");
                Outcome::Abandoned
            }
        }
    }

    /// Lets every keyspace be compacted because the database is idle, and returns whether one can be.
    fn look_when_idle(&self) -> bool {
        let several_runs = |keyspace: &Arc<KeyspaceShared>| {
            keyspace.history.current_full().version().runs_newest_first().nth(1).is_some()
        };
        let ids: Vec<KeyspaceId> =
            self.keyspace_list().iter().filter(|it| several_runs(it)).map(|keyspace| keyspace.id).collect();
        let mut jobs = self.jobs.lock();
        jobs.was_busy |= !ids.is_empty();
        jobs.look_when_idle.extend(&ids);
        !ids.is_empty()
    }

    fn compact_next(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        loop {
            let claim = {
                let mut jobs = self.jobs.lock();
                if jobs.compactions_running >= self.compactions_max() {
                    return Ok(false);
                }
                let may_compact = |id: &&KeyspaceId| jobs.may_run(Task::Compaction(**id));
                // What limits demand first, then what idleness allows.
                let due = in_turn(&jobs.look_for_compaction, jobs.compacted_last).find(may_compact).copied();
                let idle = || in_turn(&jobs.look_when_idle, jobs.compacted_last).find(may_compact).copied();
                let due = due.map(|id| (id, Demand::Steady)).or_else(|| Some((idle()?, Demand::Idle)));
                let Some((id, demand)) = due else { return Ok(false) };
                jobs.compacted_last = Some(id);
                let keyspace = self.keyspace_by_id(id);
                let claim = keyspace.and_then(|keyspace| self.claim_plan(&mut jobs, &keyspace, demand));
                let Some(claim) = claim else {
                    match demand {
                        Demand::Idle => jobs.look_when_idle.remove(&id),
                        _ => jobs.look_for_compaction.remove(&id),
                    };
                    jobs.no_longer_fails(Task::Compaction(id));
                    continue;
                };
                claim
            };
            let task = Task::Compaction(claim.keyspace.id);
            self.compact_claimed(claim, cancel).map_err(|error| (task, error))?;
            return Ok(self.job_succeeded(task));
        }
    }

    /// How many compactions may run at once: one thread stays free for flushes (flush before compaction).
    fn compactions_max(&self) -> usize {
        self.options.background_threads.saturating_sub(1).max(1)
    }

    /// Picks a plan and begins it, under the lock that guards both.
    fn claim_plan(
        &self,
        jobs: &mut Jobs,
        keyspace: &Arc<KeyspaceShared>,
        demand: Demand<'_>,
    ) -> Option<CompactionClaim<'_>> {
        let busy = jobs.compacting.entry(keyspace.id).or_default();
        let current = keyspace.history.current_full();
        let options = keyspace.options.compaction();
        let input =
            PickInput { version: current.version(), busy, options: &options, oldest_sealed_epoch: None, demand };
        let Some(plan) = compaction::pick::pick(&input) else {
            if busy.is_empty() {
                jobs.compacting.remove(&keyspace.id);
            }
            return None;
        };
        let job = self.next_job_id();
        busy.begin(job, &plan);
        jobs.compactions_running += 1;
        Some(CompactionClaim { core: self, keyspace: Arc::clone(keyspace), plan, job })
    }

    /// Whether nothing of a range is left to compact, whatever runs elsewhere in the keyspace.
    fn is_settled(&self, jobs: &Jobs, keyspace: &KeyspaceShared, range: KeyRange<'_>) -> bool {
        let (busy, current) = (Busy::default(), keyspace.history.current_full());
        let busy = jobs.compacting.get(&keyspace.id).unwrap_or(&busy);
        let options = keyspace.options.compaction();
        let input = PickInput {
            version: current.version(),
            busy,
            options: &options,
            oldest_sealed_epoch: None,
            demand: Demand::Range(range),
        };
        compaction::pick::is_settled(&input, range)
    }

    /// Carries a claimed plan out, installs it and gives the claim back.
    fn compact_claimed(&self, claim: CompactionClaim<'_>, cancel: &AtomicBool) -> Result<Outcome> {
        let keyspace = Arc::clone(&claim.keyspace);
        let (job, name, plan) = (claim.job, &*keyspace.name, claim.plan.clone());
        self.tell(&Event::CompactionBegun { job: job.get(), keyspace: name, plan: &plan });
        let mut work = Work::default();
        // The job looks at the clock itself; a panic of it there must not be met outside of the guard.
        let mut took = Duration::ZERO;
        let outcome = self.guarded(|| {
            let began = self.environment.clock.monotonic();
            let outcome = self.compact(&keyspace, &plan, job, &mut work, cancel);
            took = self.environment.clock.monotonic().saturating_sub(began);
            outcome
        });
        drop(claim);
        self.update_pace(&keyspace);
        self.counters.worked(plan.output_level, &work, took);
        let ending = ending(&outcome);
        self.tell(&Event::CompactionEnded { job: job.get(), keyspace: name, plan: &plan, ending, work, took });
        outcome
    }

    fn compact(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        plan: &Plan,
        job: JobId,
        work: &mut Work,
        cancel: &AtomicBool,
    ) -> Result<Outcome> {
        let began = self.environment.clock.monotonic();
        tracing::info!(%job, keyspace = keyspace.name, %plan, "compaction begins");
        let current = keyspace.history.current_full();
        let inputs = plan_tables(&current, plan);
        if inputs.len() != plan.inputs.len() {
            // A clear came since the plan was made.
            return Ok(Outcome::Abandoned);
        }
        let outputs = match plan.kind {
            PlanKind::Merge => {
                let made = self.merge_tables(keyspace, &current, plan, &inputs, job, cancel)?;
                *work = Work {
                    read_bytes: plan.input_bytes,
                    written_bytes: made.bytes(),
                    tables: made.tables.len() as u64,
                    entries: made.collected,
                };
                made.tables
            }
            _ => Vec::new(),
        };
        let change = plan.change(keyspace.id, current.version(), &outputs);
        let Change::ReplaceTables { removed, added, .. } = &change else { unreachable!("a plan replaces tables") };
        let places = added.clone();
        let removed = removed.clone();
        let mut edit = Edit::of(change);
        edit.changes.extend(self.log_progress(&[]));
        let manifest = match self.commit_edit(edit) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.abandon_tables(&error, outputs.iter().map(|entry| entry.id));
                return self.edit_abandoned(error, job);
            }
        };
        // A moved table keeps its handle: one per table and process (R5).
        let moved = |id| inputs.iter().find(|table| table.id() == id).cloned();
        let placed = places.into_iter().map(|place| (place.clone(), moved(place.table.id))).collect();
        let added = self.with_handles(keyspace, placed);
        self.make_ready(&added, job, cancel);
        if let Err(refusal) = keyspace.history.install(|current| current.replace_tables(&removed, &added)) {
            tracing::info!(%job, keyspace = keyspace.name, %refusal, "compaction installed in the manifest alone");
        }
        self.after_edit(&manifest);
        let made = added.iter().map(|(place, _)| place).filter(|_| plan.kind == PlanKind::Merge);
        self.tell_edit(job, made, added.len(), removed.len());
        let bytes: u64 = outputs.iter().map(|entry| entry.bytes).sum();
        self.counters.compacted(plan.output_level, plan.input_bytes, bytes);
        let took = self.environment.clock.monotonic().saturating_sub(began);
        tracing::info!(%job, keyspace = keyspace.name, tables = outputs.len(), bytes, ?took, "compaction ends");
        Ok(Outcome::Done)
    }

    fn merge_tables(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        current: &Arc<SuperVersion>,
        plan: &Plan,
        inputs: &[Arc<Table>],
        job: JobId,
        cancel: &AtomicBool,
    ) -> Result<Outputs> {
        let mut sources = Vec::new();
        for (_, run) in current.version().runs_newest_first() {
            let chosen: Vec<Arc<Table>> = run
                .tables()
                .iter()
                .filter(|table| inputs.iter().any(|input| input.id() == table.id()))
                .cloned()
                .collect();
            if !chosen.is_empty() {
                sources.push(Source::Run(RunCursor::for_compaction(&self.parts, &chosen)));
            }
        }
        let merged = MergeCursor::new(sources);
        let (floor, snapshots) = self.snapshots.floor_and_registered(self.visible(), SeqNo::MAX);
        let mut older = plan.older_runs(current.version());
        let mut collector = Collector::new(floor, &snapshots, |key: &[u8]| older.may_hold(key));
        let ids: Vec<TableId> = plan.inputs.iter().map(|(_, id)| *id).collect();
        let bounds = compaction::next_level_bounds(plan, current.version());
        let to = Destination { level: plan.output_level, epoch: plan.table_epoch, job, inputs: &ids, bounds: &bounds };
        self.write_tables(keyspace, merged, &mut collector, to, cancel)
    }

    /// Compacts everything of `keyspace` that overlaps a range down to the last level, on the caller's thread, beside
    /// whatever the background does.
    ///
    /// What was written after `through` may stay where it is, so that the call ends though writing goes on.
    pub(crate) fn compact_range(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        min: &[u8],
        max: Option<&[u8]>,
        through: SeqNo,
    ) -> Result<()> {
        self.writable()?;
        let range = KeyRange { min, max, rewrite_before: self.next_table_id(), through };
        loop {
            keyspace.check_alive()?;
            self.check_open()?;
            let claimed = {
                let mut jobs = self.jobs.lock();
                if self.is_settled(&jobs, keyspace, range) {
                    return Ok(());
                }
                let claimed = self.claim_plan(&mut jobs, keyspace, Demand::Range(range));
                let busy = jobs.compacting.get(&keyspace.id).cloned().unwrap_or_default();
                claimed.ok_or(busy)
            };
            match claimed {
                Ok(claim) => {
                    let compacted = match self.begin_change() {
                        Ok(_changing) => self.compact_claimed(claim, &self.closed),
                        Err(closed) => {
                            drop(claim);
                            Err(closed)
                        }
                    };
                    // P9: no worker ran this job, so nobody else tells those who wait for its end.
                    self.notify();
                    compacted?;
                }
                Err(busy) if busy.is_empty() => return Ok(()),
                // A running job holds what is needed: wait until the set of running jobs has changed.
                Err(busy) => {
                    let held: Vec<JobId> = busy.jobs().map(|(job, _)| job).collect();
                    self.wait_for_jobs(Some(keyspace.id), |jobs| {
                        let now = jobs.compacting.get(&keyspace.id);
                        !held.iter().all(|id| now.is_some_and(|busy| busy.jobs().any(|(job, _)| job == *id)))
                    })?;
                }
            }
        }
    }

    /// Waits until `done` of the jobs holds; with zero threads runs jobs meanwhile. Ends too if a job fails that concerns
    /// `keyspace`, or with `None` if any does (P9).
    pub(crate) fn wait_for_jobs(&self, keyspace: Option<KeyspaceId>, done: impl Fn(&Jobs) -> bool) -> Result<()> {
        let Some(scheduler) = self.scheduler() else { return Ok(()) };
        self.waited(done, |ended| match keyspace {
            Some(id) => scheduler.wait_until_in(scope_of(id), ended),
            None => scheduler.wait_until(ended),
        })
    }

    /// [`wait_for_jobs`](Self::wait_for_jobs) with a wait that has begun before.
    pub(crate) fn wait_with(&self, wait: Wait<'_>, done: impl Fn(&Jobs) -> bool) -> Result<()> {
        self.waited(done, |ended| wait.until(ended))
    }

    fn waited(
        &self,
        done: impl Fn(&Jobs) -> bool,
        wait: impl FnOnce(&dyn Fn() -> bool) -> Result<(), WaitError>,
    ) -> Result<()> {
        let failure = || self.pipeline.as_ref().and_then(|pipeline| pipeline.failure());
        let ended = || {
            // No job runs any more once the database failed: then there is nothing to wait for.
            self.closed.load(Ordering::Relaxed) || done(&self.jobs.lock()) || failure().is_some()
        };
        self.jobs.lock().try_failed_again();
        let waited = wait(&ended);
        if let Some(cause) = failure() {
            return if done(&self.jobs.lock()) { Ok(()) } else { Err(Error::Failed { cause }) };
        }
        match waited {
            Ok(()) => Ok(()),
            Err(WaitError::Failed(failure)) => Err(Error::from_job(failure)),
            Err(WaitError::ShutDown) => Err(Error::Closed),
            Err(error) => Err(Error::InvalidInput { what: error.to_string() }),
        }
    }

    /// Writes the tables of a flush or compaction. Whatever the failure, none is left behind (C4).
    fn write_tables<F: FnMut(&[u8]) -> bool>(
        &self,
        keyspace: &KeyspaceShared,
        merged: MergeCursor<Source>,
        collector: &mut Collector<'_, F>,
        to: Destination<'_>,
        cancel: &AtomicBool,
    ) -> Result<Outputs> {
        let tables_dir = self.paths.tables_dir();
        let output = Output {
            files: self.files(),
            dir: &tables_dir,
            table_options: &table_options(&keyspace.options, to.level),
            table_bytes_target: keyspace.options.table_bytes,
            bounds: to.bounds,
            next_table_id: &|| self.next_table_id(),
            database_id: self.manifest.current().database_id,
            keyspace: keyspace.id,
            level: to.level,
            epoch: to.epoch,
            job: to.job,
            inputs: to.inputs,
        };
        let progress = Progress::default();
        // Flushes are not limited: they are what writers wait for.
        let is_compaction = !to.inputs.is_empty();
        let before_write = |bytes| {
            if is_compaction {
                self.wait_for_rate(bytes, cancel);
            }
        };
        let control = Control { cancel, progress: &progress, before_write: &before_write };
        compaction::merge_into_tables(merged, collector, &output, &control).map_err(|error| match error {
            RunError::Read(error) => error,
            RunError::Write(error) => error.into(),
            RunError::Install(error) => error.into(),
            RunError::Cancelled => Error::Closed,
            other => Error::InvalidInput { what: other.to_string() },
        })
    }

    /// Waits until the rate of compactions lets `bytes` through, or until the job is cancelled.
    fn wait_for_rate(&self, bytes: u64, cancel: &AtomicBool) {
        /// How often a waiting job looks whether it is cancelled.
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let mut left = self.compaction_rate.take(bytes);
        while !left.is_zero() && !cancel.load(Ordering::Relaxed) {
            let step = left.min(LOOK_EVERY);
            self.environment.clock.sleep(step);
            left -= step;
        }
    }

    /// Commits an edit that was installed in memory before it is durable, such as a clear.
    pub(crate) fn commit_installed_edit(&self, edit: Edit) -> Result<()> {
        match self.commit_edit(edit) {
            Ok(manifest) => {
                self.after_edit(&manifest);
                Ok(())
            }
            Err(EditError::Refused(_)) => Ok(()),
            Err(error) => Err(self.edit_failed(error)),
        }
    }

    /// An edit that is certainly not durable leaves its tables unnamed for ever: they go now (C4). If nobody knows, they
    /// stay until reopening (M7).
    fn abandon_tables(&self, error: &EditError, tables: impl Iterator<Item = TableId>) {
        if !matches!(error, EditError::Uncertain(_)) {
            tables.for_each(|table| {
                self.remove_unnamed_table(table);
            });
        }
    }

    fn edit_abandoned(&self, error: EditError, job: JobId) -> Result<Outcome> {
        match error {
            EditError::Refused(refusal) => {
                tracing::info!(%job, %refusal, "job abandoned");
                Ok(Outcome::Abandoned)
            }
            error => Err(self.edit_failed(error)),
        }
    }

    fn edit_failed(&self, error: EditError) -> Error {
        match error {
            EditError::Refused(refusal) => Error::InvalidInput { what: refusal.to_string() },
            EditError::Certain(error) => error,
            EditError::Uncertain(error) if planted_faults::planted("facade-uncertain-edit-goes-on") => error,
            EditError::Uncertain(error) => self.fail(error),
        }
    }

    /// What a durable edit makes possible: segments below its floor can go (L5).
    pub(crate) fn after_edit(&self, manifest: &Manifest) {
        if let Some(pipeline) = &self.pipeline
            && let Err(error) = pipeline.journal().recycle_before(floor_segment(manifest.log_floor))
        {
            tracing::warn!(%error, "old log segments stay for now");
        }
    }

    /// Frees what nobody uses any more, and returns whether there was anything.
    pub(crate) fn tidy_up(&self) -> bool {
        let freed = self.retired.collect();
        let forgot = self.forget_predecessors();
        let removed = self.remove_obsolete_tables();
        let replaced = match self.manifest.collect_obsolete() {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "replaced manifest files stay until the next opening");
                0
            }
        };
        freed > 0 || forgot || removed > 0 || replaced > 0
    }

    /// R4: lets go of what stood before clears and drops, as far as no snapshot needs it.
    fn forget_predecessors(&self) -> bool {
        let mut restarted = self.restarted.lock();
        if restarted.is_empty() {
            return false;
        }
        let (floor, registered) = self.snapshots.floor_and_registered(self.visible(), SeqNo::MAX);
        let mut forgot = false;
        restarted.retain(|keyspace| {
            // Until the manifest holds the clear or drop, replay may still open the batch tables that stood before it.
            if keyspace.unfinished_operation(SeqNo::MAX).is_some() {
                return true;
            }
            forgot |= keyspace.history.forget_predecessors(floor, &registered);
            keyspace.history.current().predecessor().is_some()
        });
        forgot
    }

    /// R5: deletes the tables that nobody holds and the durable manifest does not name.
    fn remove_obsolete_tables(&self) -> usize {
        let gone = self.obsolete.collect(|| {
            let manifest = self.manifest.current();
            let named: BTreeSet<(KeyspaceId, TableId)> = manifest
                .keyspaces
                .values()
                .flat_map(|keyspace| keyspace.tables().map(|(_, _, table)| (keyspace.id, table.id)))
                .collect();
            move |keyspace, table| named.contains(&(keyspace, table))
        });
        for (_, table) in &gone {
            if self.remove_unnamed_table(*table) {
                self.tell(&Event::TableDeleted { table: table.get() });
            }
        }
        gone.len()
    }

    /// P10: what writers of a keyspace are told, from what the last change of its super version left to do.
    pub(crate) fn update_pace(&self, keyspace: &KeyspaceShared) {
        loop {
            let current = keyspace.history.current_full();
            let (pace, queue_delay) = self.pace_of(keyspace, &current);
            // Relaxed: advice for who stands in the queue, as old as what is stored below at most.
            keyspace.queue_delay.store(queue_delay, Ordering::Relaxed);
            // AcqRel: of two who do this at a time, the one that stores last has acquired what the other looked at, and
            // sees below if that was newer. So what stays is what the newest super version asks for.
            let before = keyspace.pace.swap(pace, Ordering::AcqRel);
            if before == PACE_WAIT && pace != PACE_WAIT {
                // P9: it may have been found wrong by somebody who did no job, whose end would tell.
                self.notify();
            }
            if Arc::ptr_eq(&current, &keyspace.history.current_full()) {
                return;
            }
        }
    }

    /// Per KiB written; each writer scales it by what it writes.
    fn pace_per_kib(&self, keyspace: &KeyspaceShared, current: &SuperVersion) -> Pace {
        compaction::pace::pace(&keyspace.options.limits(), &load_of(keyspace, current), 1024)
    }

    /// What writers of a keyspace are told; and the delay, in nanoseconds per KiB, of those who have come to the head of
    /// the queue and found room: a queue is no way around the debt.
    fn pace_of(&self, keyspace: &KeyspaceShared, current: &SuperVersion) -> (u64, u64) {
        let delay = match self.pace_per_kib(keyspace, current) {
            Pace::Wait(_) => return (PACE_WAIT, 0),
            Pace::Proceed => PACE_FREE,
            Pace::Delay(delay, _) => (delay.as_nanos() as u64).clamp(1, PACE_QUEUE - 1),
        };
        (if keyspace.room.is_in_use() { PACE_QUEUE } else { delay }, delay)
    }

    /// Tells the listeners. No lock may be held.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.options.listeners.tell(event);
    }

    /// Tells of a durable edit of a job, and of the tables that it made.
    fn tell_edit<'a>(&self, job: JobId, made: impl Iterator<Item = &'a AddedTable>, added: usize, removed: usize) {
        if self.options.listeners.is_empty() {
            return;
        }
        let job = job.get();
        for AddedTable { level, table, .. } in made {
            self.tell(&Event::TableCreated { job, table: table.id.get(), level: level.get(), bytes: table.bytes });
        }
        self.tell(&Event::ManifestEdited { job, added, removed });
    }

    /// Which hard limit the writers of a keyspace meet, if they meet one (P10).
    pub(crate) fn limit_met(&self, keyspace: &KeyspaceShared) -> Option<Debt> {
        match self.pace_per_kib(keyspace, &keyspace.history.current_full()) {
            Pace::Wait(debt) => Some(debt),
            _ => None,
        }
    }

    fn job_succeeded(&self, task: Task) -> bool {
        let mut jobs = self.jobs.lock();
        jobs.no_longer_fails(task);
        jobs.done_since_failure = jobs.done_since_failure.saturating_add(1);
        true
    }

    /// Keeps the failure in view (P8). A certain one is tried again whenever the background is woken: at the next seal, when
    /// somebody waits, or by itself after a while. Any other fails the database.
    fn job_failed(&self, task: Task, error: Error) -> JobFailure {
        tracing::warn!(?task, %error, "a background job failed");
        self.counters.failed_jobs.fetch_add(1, Ordering::Relaxed);
        {
            let mut jobs = self.jobs.lock();
            jobs.failed.insert(task, error.clone());
            if task != Task::Log {
                jobs.hold_back(task);
            }
        }
        self.tell(&Event::BackgroundError { error: &error });
        if !error.is_retryable() {
            self.fail(error.clone());
            return JobFailure::new(error);
        }
        match task.scope() {
            Some(scope) => JobFailure::within(scope, error),
            None => JobFailure::new(error),
        }
    }

    /// Why background work does not get on, if it does not.
    pub(crate) fn background_error(&self) -> Option<Error> {
        self.jobs.lock().failed.values().next().cloned()
    }
}

/// The tables of a flush, before anything names them.
struct Flush {
    last: SeqNo,
    added: Vec<Placed>,
    collected: Collected,
}

/// How a job ended, for who listens.
fn ending(outcome: &Result<Outcome>) -> Ending {
    match outcome {
        Ok(Outcome::Done) => Ending::Installed,
        Ok(Outcome::Abandoned) => Ending::Abandoned,
        Err(_) => Ending::Failed,
    }
}

/// What is older than the parts of a flush (C2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// The tables of the current version, and nothing else: older parts were installed before (P6).
    Version,
    /// Tables that no version holds yet: every key may be in them.
    Unknown,
}

/// A table and where it goes, with its handle if it has one already.
type Placed = (AddedTable, Option<Arc<Table>>);

/// Sealed parts as flushes take them, oldest first: memtables that follow each other together, batches alone.
fn flush_groups(sealed: &[SealedPart]) -> impl Iterator<Item = Vec<SealedPart>> {
    let together =
        |left: &SealedPart, right: &SealedPart| matches!((left, right), (Sealed::Memtable(_), Sealed::Memtable(_)));
    sealed.chunk_by(together).rev().map(|newest_first| newest_first.iter().rev().cloned().collect())
}

/// The change that installs a flush (P6).
fn flush_change(keyspace: &KeyspaceShared, added: Vec<AddedTable>, last: SeqNo) -> Change {
    Change::ReplaceTables { keyspace: keyspace.id, removed: Vec::new(), added, flushed_seqno: Some(last) }
}

/// Where a job's tables go, and what their properties say of it.
struct Destination<'a> {
    level: Level,
    epoch: Epoch,
    job: JobId,
    inputs: &'a [TableId],
    /// Where tables of the level below end.
    bounds: &'a [Box<[u8]>],
}

/// What the manifest says of a table, from what its writer or its reader says.
pub(crate) fn table_entry(id: TableId, job: JobId, epoch: Epoch, summary: &TableSummary) -> TableEntry {
    TableEntry {
        id,
        bytes: summary.bytes,
        checksum: summary.checksum,
        min_key: summary.min_key.clone(),
        max_key: summary.max_key.clone(),
        min_seqno: summary.min_seqno,
        max_seqno: summary.max_seqno,
        entries: summary.entries,
        tombstones: summary.tombstones,
        logical_bytes: summary.logical_bytes,
        epoch,
        job,
        seqno_base: 0,
    }
}

/// The tables that a plan names, in the version at hand.
fn plan_tables(current: &SuperVersion, plan: &Plan) -> Vec<Arc<Table>> {
    let named = |level, id| plan.inputs.contains(&(level, id));
    current.version().tables().filter(|(level, table)| named(*level, table.id())).map(|(_, t)| Arc::clone(t)).collect()
}

/// What there is to do for a keyspace, as far as it sets the pace of its writers (P10).
pub(crate) fn load_of(keyspace: &KeyspaceShared, current: &SuperVersion) -> Load {
    let sealed_bytes = sealed_bytes(current);
    Load {
        l0_runs: current.version().runs(Level::ZERO).len() as u64,
        l0_runs_coming_thousandths: sealed_bytes.saturating_mul(1000) / keyspace.options.flush_bytes(),
        sealed_bytes,
        pending_bytes: compaction::pick::pending_bytes(current.version(), &keyspace.options.compaction()),
    }
}

/// Bytes in sealed memtables and placed batches.
pub(crate) fn sealed_bytes(current: &SuperVersion) -> u64 {
    let bytes = |part: &SealedPart| match part {
        Sealed::Memtable(memtable) => memtable.memory_usage(),
        Sealed::Batch(_) => 0,
    };
    current.sealed().iter().map(bytes).sum()
}

/// How the tables of a level are written (T4): levels 0 and 1 uncompressed.
pub(crate) fn table_options(options: &KeyspaceOptions, level: Level) -> TableOptions {
    TableOptions {
        block_bytes: options.block_bytes as usize,
        compression: if level.get() <= 1 { Compression::None } else { options.compression },
        filter_bits_per_key: options.filter_bits_per_key as u8,
        ..TableOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use file_system::{Clock, Fault, FaultEffect, FileOperation, Simulation};
    use internal_key::Level;

    use crate::stats::Health;
    use crate::{Compression, Database, Error, KeyspaceOptions};

    /// T2: no reader is the first in a table that a flush or a compaction has made: it is open, and each of its blocks is
    /// checked, before the version that names it is seen.
    #[test]
    fn new_tables_are_checked_before_they_are_read() {
        let simulation = Simulation::new(1);
        let database =
            Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
        let options = KeyspaceOptions::default().block_bytes(512).table_bytes(8 << 10).compression(Compression::None);
        let keyspace = database.create_keyspace("a", options).unwrap();
        for compacting in [false, true] {
            for number in 0..500_u32 {
                keyspace.insert(number.to_be_bytes(), "value".repeat(10)).unwrap();
            }
            keyspace.flush().unwrap();
            if compacting {
                keyspace.compact().unwrap();
            }
            let current = keyspace.shared.history.current();
            let guard = crossbeam_epoch::pin();
            for (_, table) in current.version().tables() {
                let reader = table.slot.get(&guard).expect("the table is open");
                assert!(reader.data_blocks() > 1, "{reader:?}");
                assert_eq!(reader.checked_blocks(), reader.data_blocks(), "{reader:?}");
            }
            let in_level_zero = current.version().tables().filter(|(level, _)| *level == Level::ZERO).count();
            assert_eq!(in_level_zero == 0, compacting, "a flush's tables, then a compaction's");
        }
    }

    /// A clock on which the next look panics, once it is set to.
    #[derive(Debug, Default)]
    struct Trap(AtomicBool);

    impl Clock for Trap {
        fn monotonic(&self) -> Duration {
            assert!(!self.0.swap(false, Ordering::Relaxed), "the clock fell off the wall");
            Duration::ZERO
        }

        fn unix_time(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// P9: a job that panics gives back what it claimed, is counted, and fails the database with its message; the process
    /// and whoever waits go on.
    #[test]
    fn a_job_that_panics_gives_its_claim_back() {
        for (threads, compacting) in [(0, false), (0, true), (2, false), (2, true)] {
            let simulation = Simulation::new(1);
            let clock = Arc::new(Trap::default());
            let environment = file_system::Environment { clock: clock.clone(), ..simulation.environment() };
            let database =
                Database::builder("/db").environment(environment).background_threads(threads).open().unwrap();
            let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
            keyspace.insert("key", "value").unwrap();
            if compacting {
                keyspace.flush().unwrap();
            }
            database.wait_until_idle().unwrap();
            clock.0.store(true, Ordering::Relaxed);
            let outcome = if compacting { keyspace.compact() } else { keyspace.flush() };
            assert!(matches!(outcome, Err(Error::Failed { .. })), "{outcome:?}");
            assert!(!clock.0.load(Ordering::Relaxed), "a job looked at the clock");
            match database.health() {
                Health::Failed { cause } => assert!(cause.to_string().contains("fell off the wall"), "{cause}"),
                health => panic!("{health}"),
            }
            // The waiter is told as soon as the database has failed, which comes before the claim goes.
            let core = &keyspace.handle.core;
            for _ in 0..1000 {
                if core.jobs.lock().running() == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let jobs = core.jobs.lock();
            assert_eq!((jobs.running(), jobs.compacting.len(), jobs.flushing.len()), (0, 0, 0));
            drop(jobs);
            assert!(matches!(database.wait_until_idle(), Err(Error::Failed { .. })));
            assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value");
        }
    }

    /// P9: a flush that failed once gets another turn though other work is always due, which it makes room for.
    #[test]
    fn what_failed_gets_its_turn_though_there_is_always_more_to_do() {
        let simulation = Simulation::new(1);
        let database =
            Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
        for number in 0..30 {
            // One run is enough for a compaction to be due.
            let options = KeyspaceOptions::default().level_zero_runs_max(2);
            let keyspace = database.create_keyspace(&format!("busy-{number}"), options).unwrap();
            keyspace.insert("key", "value").unwrap();
            keyspace.flush().unwrap();
        }
        let keyspace = database.keyspace("a").unwrap();
        keyspace.insert("key", "value").unwrap();
        let full = Fault::on(FileOperation::Create).path_contains("/tables").effect(FaultEffect::NoSpace);
        simulation.files.inject(full);
        assert!(keyspace.flush().is_err());
        simulation.files.clear_faults();
        let core = &keyspace.handle.core;
        let mut others = 0;
        while keyspace.stats().sealed > 0 {
            // As every writer does that enters another part of the log.
            core.jobs.lock().try_failed_again();
            assert!(database.run_one_job().unwrap());
            others += 1;
        }
        assert!(others <= super::RETRY_AFTER_JOBS + 1, "{others} jobs came before it");
        let left = core.jobs.lock().look_for_compaction.len();
        assert!(left > 10, "there was more to do all the time, and still is: {left}");
    }
}
