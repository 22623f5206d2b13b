//! The writing side: what happens before the reservation, in it, and after it.
//!
//! ```text
//! check, encode, wait for room ─▶ reserve: seqnos, log range, arena ranges, sealing ─▶ log ─▶ apply ─▶ visible
//!          (P1, P10)                       (P1, P4, P11, P12)                          (P2)   (P2)     (P3)
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commit_pipeline::{CommitError, Pipeline, Request};
use compaction::{Debt, Scheduler, Throttle};
use internal_key::{Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, Trailer};
use manifest::TableEntry;
use memory_budget::Grant;
use skiplist_memtable::{ArenaRange, Memtable, NoMemory, Reservation};
use sstable_format::{TableIdentity, TableWriter};
use write_ahead_log::{Log, LogError, LogTail, Payload, RecordKind};

use crate::batch::{Part, WriteBatch, check_lengths};
use crate::batch_format::{
    self, BatchPart, BatchReference, encode_entry, encode_keyspace, encode_number, single_bytes,
};
use crate::core::{Core, KeyspaceShared, PACE_FREE, PACE_QUEUE, PACE_WAIT};
use crate::events::Event;
use crate::jobs::Jobs;
use crate::memory::refused;
use crate::{Durability, Error, Result};

thread_local! {
    /// Where a single write is encoded: one allocation per thread instead of one per write.
    static ENCODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of encoding memory that a thread keeps between writes.
const ENCODED_BYTES_KEPT: usize = 1 << 20;

impl Core {
    /// Writes one entry: [`Self::write`] without a batch around it.
    pub(crate) fn write_one(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        kind: Kind,
        key: &[u8],
        value: &[u8],
        durability: Durability,
    ) -> Result<SeqNo> {
        check_lengths(key, value)?;
        let bytes = single_bytes(keyspace.id, key.len(), value.len());
        if bytes as u64 > self.options.inline_batch_bytes() {
            let mut batch = WriteBatch::new().with_durability(durability);
            batch.push(keyspace, kind, key, value)?;
            return self.write_large(&batch);
        }
        let pipeline = self.writable_as(durability)?;
        let _waits = self.counters.commit_begins();
        self.make_room(keyspace, bytes)?;
        let attempt = |payload: &mut Vec<u8>, grant: &mut Grant<'_>| {
            payload.clear();
            encode_number(payload, 1);
            encode_entry(payload, keyspace.id, kind, key, value);
            let arena_bytes = Memtable::entry_bytes(key.len(), value.len());
            let (mut sealed, mut enters) = (false, false);
            let request = Request::new(Payload::new(RecordKind::Batch, payload), 1, durability.into());
            let committed = pipeline.commit(
                &request,
                |first, position| {
                    keyspace.check_alive()?;
                    enters = self.enters_log_window(position);
                    let memtable = memtable_in_order(keyspace, arena_bytes, &mut sealed);
                    let range = reserve_in_order(&memtable, arena_bytes, 1, (first, first), grant)?;
                    Ok((memtable, range, first))
                },
                |(memtable, mut range, first)| {
                    memtable.insert(&mut range, key, Trailer::new(first, kind), value);
                },
            );
            if payload.capacity() > ENCODED_BYTES_KEPT {
                *payload = Vec::new();
            }
            self.after_commit(keyspace, sealed, enters);
            self.committed(committed)
        };
        self.within_memory(keyspace, bytes, |grant| ENCODED.with_borrow_mut(|payload| attempt(payload, grant)))
    }

    /// Writes a batch. Returns the last sequence number it got, or what is visible for an empty one.
    pub(crate) fn write(&self, batch: &WriteBatch) -> Result<SeqNo> {
        let pipeline = self.writable_as(batch.durability)?;
        if batch.is_empty() {
            return Ok(self.visible().load());
        }
        for part in &batch.parts {
            if part.keyspace.instance != self.instance {
                let what = format!("keyspace {:?} belongs to another database", part.keyspace.name);
                return Err(Error::InvalidInput { what });
            }
        }
        if batch.bytes() as u64 > self.options.inline_batch_bytes() {
            return self.write_large(batch);
        }
        let _waits = self.counters.commit_begins();
        for part in &batch.parts {
            self.make_room(&part.keyspace, part.arena_bytes)?;
        }
        let first_keyspace = &batch.parts[0].keyspace;
        self.within_memory(first_keyspace, batch.bytes(), |grant| self.write_inline(pipeline, batch, grant))
    }

    /// Writes a batch that goes into the log itself, if the grant or what is left of the memory holds what its memtables
    /// grow by.
    fn write_inline(&self, pipeline: &Pipeline<Log>, batch: &WriteBatch, grant: &mut Grant<'_>) -> Result<SeqNo> {
        let mut sealed = vec![false; batch.parts.len()];
        let mut enters = false;
        let payload = Payload::new(RecordKind::Batch, batch.payload());
        let request = Request::new(payload, batch.entries, batch.durability.into());
        let committed = pipeline.commit(
            &request,
            |first, position| {
                for part in &batch.parts {
                    part.keyspace.check_alive()?;
                }
                enters = self.enters_log_window(position);
                let last = last_of(first, batch.entries);
                let targets = reserve_parts_in_order(&batch.parts, (first, last), &mut sealed, grant)?;
                Ok((targets, first))
            },
            |(mut targets, first)| {
                let entries = batch_format::decode(batch.payload()).into_iter().flatten().flatten();
                for (entry, offset) in entries.zip(0..) {
                    let trailer = Trailer::new(last_of(first, offset + 1), entry.kind);
                    let target = targets.iter_mut().find(|(id, ..)| *id == entry.keyspace);
                    let (_, memtable, range) = target.expect("P1: every keyspace of a batch got a range");
                    memtable.insert(range, entry.key, trailer, entry.value);
                }
            },
        );
        for (part, sealed) in batch.parts.iter().zip(sealed) {
            self.after_commit(&part.keyspace, sealed, std::mem::take(&mut enters));
        }
        self.committed(committed)
    }

    /// Writes a batch that is too large for the log (P11): a sorted table per keyspace, durable before the reservation,
    /// whose sequence numbers are relative to what the reservation will give; the log holds a reference.
    fn write_large(&self, batch: &WriteBatch) -> Result<SeqNo> {
        let pipeline = self.writable_as(batch.durability)?;
        let _waits = self.counters.commit_begins();
        for part in &batch.parts {
            part.keyspace.check_alive()?;
            self.make_room(&part.keyspace, part.arena_bytes)?;
        }
        let changing = self.begin_change()?;
        let tables = self.write_batch_tables(batch)?;
        let reference =
            BatchReference { entries: batch.entries, parts: tables.iter().map(|(part, _)| *part).collect() };
        let payload = reference.encode();
        let request =
            Request::new(Payload::new(RecordKind::BatchReference, &payload), batch.entries, batch.durability.into());
        let committed = pipeline.commit(
            &request,
            |first, _| {
                for part in &batch.parts {
                    part.keyspace.check_alive()?;
                }
                let last = last_of(first, batch.entries);
                for (part, (_, entry)) in batch.parts.iter().zip(&tables) {
                    let entry = Arc::new(rebased(entry, first, last));
                    let handle = self.table_handle(part.keyspace.id, &entry);
                    let new_active = part.keyspace.take_spare();
                    let placed: Result<_, std::convert::Infallible> =
                        part.keyspace.history.install(|current| Ok(current.seal_around_batch(new_active, handle)));
                    let Ok(_) = placed;
                }
                Ok(())
            },
            |()| {},
        );
        if committed.is_err() && pipeline.failure().is_none() {
            for (part, _) in &tables {
                self.remove_unnamed_table(part.table);
            }
        }
        drop(changing);
        for part in &batch.parts {
            self.after_commit(&part.keyspace, true, false);
        }
        self.committed(committed)
    }

    /// Writes, syncs and names the tables of a large batch, in the order of its parts. Any failure is certain: what was
    /// written is removed.
    fn write_batch_tables(&self, batch: &WriteBatch) -> Result<Vec<(BatchPart, TableEntry)>> {
        let mut by_keyspace: BTreeMap<KeyspaceId, Vec<TableRow<'_>>> = BTreeMap::new();
        let entries = batch_format::decode(batch.payload()).into_iter().flatten().flatten();
        for (entry, offset) in entries.zip(0_u64..) {
            let relative = SeqNo::new(offset).expect("a batch has at most 2^32 entries");
            by_keyspace.entry(entry.keyspace).or_default().push((
                entry.key,
                Trailer::new(relative, entry.kind),
                entry.value,
            ));
        }
        let mut tables = Vec::with_capacity(batch.parts.len());
        let written = batch.parts.iter().try_for_each(|part| {
            let mut entries = by_keyspace.remove(&part.keyspace.id).unwrap_or_default();
            entries.sort_by(|left, right| InternalKey::new(left.0, left.1).cmp(&InternalKey::new(right.0, right.1)));
            tables.push(self.write_batch_table(&part.keyspace, &entries)?);
            Ok(())
        });
        let durable = written.and_then(|()| match planted_faults::planted("facade-batch-table-name-not-synced") {
            true => Ok(()),
            false => Ok(self.files().sync_dir(&self.paths.tables_dir())?),
        });
        if let Err(error) = durable {
            for (part, _) in &tables {
                self.remove_unnamed_table(part.table);
            }
            return Err(error);
        }
        Ok(tables)
    }

    fn write_batch_table(
        &self,
        keyspace: &KeyspaceShared,
        entries: &[TableRow<'_>],
    ) -> Result<(BatchPart, TableEntry)> {
        let table = self.next_table_id();
        let identity = TableIdentity {
            database_id: self.manifest.current().database_id.0,
            keyspace: keyspace.id,
            table,
            level: Level::ZERO,
            epoch: Epoch(0),
            job: JobId(0),
            inputs: Vec::new(),
            output_index: 0,
            output_count: 1,
        };
        let options = crate::jobs::table_options(&keyspace.options, Level::ZERO);
        let tables_dir = self.paths.tables_dir();
        let mut writer = TableWriter::new(self.files(), &tables_dir, identity, options)?;
        for &(key, trailer, value) in entries {
            writer.add(InternalKey::new(key, trailer), value)?;
        }
        let pending = writer.finish()?;
        let summary = pending.persist(&self.paths.table(table))?;
        let part = BatchPart { keyspace: keyspace.id, table, bytes: summary.bytes, checksum: summary.checksum };
        let newest_unix_ms = self.newest_unix_ms(&keyspace.options);
        let entry = crate::jobs::table_entry(table, JobId(0), Epoch(0), &summary);
        Ok((part, TableEntry { newest_unix_ms, ..entry }))
    }

    /// Removes a table that nothing names and nobody else knows. If that fails, the next opening does it (M2).
    pub(crate) fn remove_unnamed_table(&self, table: internal_key::TableId) -> bool {
        let removed = self.files().remove_file(&self.paths.table(table));
        if let Err(error) = &removed {
            tracing::warn!(%table, %error, "an unnamed table stays until the next opening");
        }
        removed.is_ok()
    }

    /// Forgets all entries of a keyspace, or the keyspace itself (P12): a log record, a super version that starts anew,
    /// then a manifest edit.
    pub(crate) fn restart_keyspace(&self, keyspace: &Arc<KeyspaceShared>, kind: RecordKind) -> Result<()> {
        let pipeline = self.writable_as(Durability::Synced)?;
        let _changing = self.begin_change()?;
        let _one_at_a_time = self.membership.lock();
        let payload = encode_keyspace(keyspace.id);
        // Synced: the manifest edit below must not become durable before the record and all that precedes it (P5).
        let durability = match planted_faults::planted("facade-clear-not-synced") {
            true => commit_pipeline::Durability::Buffered,
            false => commit_pipeline::Durability::Synced,
        };
        let request = Request::new(Payload::new(kind, &payload), 1, durability);
        let committed = pipeline.commit(
            &request,
            |at, _| {
                keyspace.check_alive()?;
                keyspace.begin_operation(at);
                keyspace.dropped.store(kind == RecordKind::DropKeyspace, Ordering::Relaxed);
                let new_active = keyspace.take_spare();
                let restarted: Result<_, std::convert::Infallible> =
                    keyspace.history.install(|current| Ok(current.restart(new_active, at)));
                let Ok(_) = restarted;
                Ok(())
            },
            |()| {},
        );
        let at = self.committed(committed)?;
        self.end_history(keyspace, at);
        keyspace.operation_logged(at);
        self.restarted.lock().push(Arc::clone(keyspace));
        self.update_pace(keyspace);
        match self.finish_operation(keyspace, at) {
            // It has its effect, for readers and for recovery: the record stands in the log, which is kept from here on.
            // So it succeeds, and the next job, flush, creation of the same name or opening brings the manifest up to it.
            Err(error) if error.is_retryable() => {
                self.operation_unfinished(keyspace, error);
                Ok(())
            }
            finished => finished,
        }
    }

    /// The manifest edit of a clear or drop that stands in the log. `membership` is held.
    pub(crate) fn finish_operation(&self, keyspace: &Arc<KeyspaceShared>, at: SeqNo) -> Result<()> {
        let mut changes = match keyspace.is_dropped() {
            true => vec![manifest::Change::DropKeyspace { id: keyspace.id }],
            false => crate::history::clear_changes(keyspace.id, &keyspace.options, at),
        };
        changes.push(manifest::Change::RaiseLastSeqno(at));
        let edit = manifest::Edit { changes };
        self.commit_installed_edit(edit)?;
        keyspace.end_operations(at);
        if keyspace.is_dropped() {
            // Not before: the log floor asks those that are listed what they need.
            self.keyspaces.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(keyspace);
        }
        self.request_look(keyspace);
        Ok(())
    }

    /// Lets the log begin anew in a short segment if it holds nothing that is needed and takes much more than one: what was
    /// flushed by hand is to take its tables' room on the disk and little else.
    ///
    /// # Errors
    /// Only what fails the database. Where there is no room for a segment or an edit, the log stays as it is.
    pub(crate) fn shrink_log(&self) -> Result<()> {
        let pipeline = self.writable_as(Durability::Synced)?;
        let log = pipeline.journal();
        let is_needed = || self.keyspace_list().iter().any(|keyspace| keyspace.oldest_unflushed(&[]).is_some());
        if !log.is_long() || is_needed() {
            return Ok(());
        }
        let _changing = self.begin_change()?;
        let shrink = || {
            pipeline.change_tail(LogTail::give_up_prepared);
            log.prepare_segment()?;
            pipeline.change_tail(LogTail::end_segment);
            // A batch of nothing, so that the new segment begins with a record; synced, so that the claim lies in it.
            let batch = WriteBatch::new();
            let payload = Payload::new(RecordKind::Batch, batch.payload());
            let request = Request::new(payload, 1, commit_pipeline::Durability::Synced);
            self.committed(pipeline.commit(&request, |_, _| Ok(()), |()| {}))?;
            self.commit_installed_edit(manifest::Edit { changes: self.log_progress(&[]) })?;
            log.give_back()?;
            Ok(())
        };
        match shrink() {
            Err(error) if Error::is_retryable(&error) => {
                tracing::warn!(%error, "the log keeps its length for now");
                Ok(())
            }
            shrunk => shrunk,
        }
    }

    /// The write protocol, for who will wait for a sync if `durability` says so (L4).
    ///
    /// # Errors
    /// As [`writable`](Self::writable), and those of [`settle`](Self::settle).
    #[inline]
    pub(crate) fn writable_as(&self, durability: Durability) -> Result<&Pipeline<Log>> {
        let pipeline = self.writable()?;
        if durability == Durability::Synced {
            self.settle()?;
        }
        Ok(pipeline)
    }

    /// P10: before the reservation, never after. Delays or holds the writer as the debt asks.
    #[inline]
    pub(crate) fn make_room(&self, keyspace: &Arc<KeyspaceShared>, bytes: usize) -> Result<()> {
        match keyspace.pace.load(Ordering::Relaxed) | self.log_pace.load(Ordering::Relaxed) {
            PACE_FREE => Ok(()),
            _ => self.slow_down(keyspace, bytes as u64),
        }
    }

    #[cold]
    fn slow_down(&self, keyspace: &Arc<KeyspaceShared>, bytes: u64) -> Result<()> {
        let Some(scheduler) = self.scheduler() else { return Ok(()) };
        if self.must_not_wait() {
            return self.pass_unless_full(keyspace);
        }
        if self.log_pace.load(Ordering::Relaxed) == PACE_WAIT {
            self.wait_for_log(scheduler, keyspace)?;
        }
        // Whoever has waited goes on, whatever others have done since.
        match self.log_pace.load(Ordering::Relaxed) {
            PACE_FREE | PACE_WAIT => {}
            pace => self.pay(scheduler, &self.log_throttle, pace, bytes),
        }
        match keyspace.pace.load(Ordering::Relaxed) {
            PACE_FREE => Ok(()),
            pace if pace >= PACE_QUEUE => self.wait_for_room(scheduler, keyspace, bytes),
            pace => {
                self.pay(scheduler, &keyspace.throttle, pace, bytes);
                Ok(())
            }
        }
    }

    /// What a write from a listener does instead of being slowed down: it would wait for the job that waits for it (P9).
    fn pass_unless_full(&self, keyspace: &Arc<KeyspaceShared>) -> Result<()> {
        let is_full = || {
            let pace = keyspace.pace.load(Ordering::Relaxed);
            let log_pace = self.log_pace.load(Ordering::Relaxed);
            pace >= PACE_QUEUE || log_pace == PACE_WAIT
        };
        if is_full() {
            // They may be out of date, and this writer waits for no job that would put them right.
            self.update_pace(keyspace);
            self.update_log_pace();
        }
        if is_full() { Err(Error::InListener) } else { Ok(()) }
    }

    /// What a writer does above a soft limit.
    fn pay(&self, scheduler: &Scheduler, throttle: &Throttle, nanos_per_kib: u64, bytes: u64) {
        if scheduler.threads() == 0 {
            // Without threads a delay pays nothing off; a job does. Its failure is not this writer's while there is room.
            let _ = scheduler.run_one_job();
            return;
        }
        let delayed = self.delay(throttle, nanos_per_kib, bytes);
        self.counters.waited_ns.fetch_add(delayed.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Delays a writer in proportion to the debt and to what it writes, and returns for how long.
    fn delay(&self, throttle: &Throttle, nanos_per_kib: u64, bytes: u64) -> Duration {
        self.counters.delays.fetch_add(1, Ordering::Relaxed);
        let delay = Duration::from_nanos(nanos_per_kib.saturating_mul(bytes) / 1024);
        let delay = throttle.owe(delay, self.environment.clock.monotonic());
        if let Some(delay) = delay {
            lock_meter::waiting(|| self.environment.clock.sleep(delay));
        }
        delay.unwrap_or_default()
    }

    /// Waits at a hard limit until a job has made room, or until it is known why none can: those who wait, one by one, in
    /// the order in which they came (P9). Who then has room is delayed as any other, still at the head of the queue: else
    /// all who stand in it would go on at full speed until the limit is met again.
    fn wait_for_room(&self, scheduler: &Scheduler, keyspace: &Arc<KeyspaceShared>, bytes: u64) -> Result<()> {
        self.counters.stalls.fetch_add(1, Ordering::Relaxed);
        let cause = self.limit_met(keyspace);
        self.tell(&Event::StallBegun { keyspace: &keyspace.name, cause });
        let began = self.environment.clock.monotonic();
        let has_room = || keyspace.is_dropped() || keyspace.pace.load(Ordering::Relaxed) != PACE_WAIT;
        // Begun before the turn comes: what fails meanwhile concerns everybody in the queue.
        let wait = scheduler.begin_wait_in(crate::jobs::scope_of(keyspace.id));
        let turn = keyspace.room.enter();
        let waited = match has_room() {
            true => Ok(()),
            false => {
                self.jobs.lock().wants_look(keyspace.id);
                self.wait_with(wait, |_| has_room())
            }
        };
        // Relaxed: advice, as the pace.
        let delay = keyspace.queue_delay.load(Ordering::Relaxed);
        if has_room() && delay > 0 && scheduler.threads() > 0 {
            self.delay(&keyspace.throttle, delay, bytes);
        }
        drop(turn);
        if !keyspace.room.is_in_use() {
            // The last of the queue: whoever comes from here on need not stand in it.
            self.update_pace(keyspace);
        }
        self.stall_ends(keyspace, cause, began);
        self.writable()?;
        match waited {
            // A failure elsewhere does not concern a writer that has room.
            Err(_) if has_room() => Ok(()),
            waited => waited,
        }
    }

    fn stall_ends(&self, keyspace: &KeyspaceShared, cause: Option<Debt>, began: Duration) {
        let took = self.environment.clock.monotonic().saturating_sub(began);
        self.counters.waited_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.counters.stalled(cause, took);
        self.tell(&Event::StallEnded { keyspace: &keyspace.name, cause, took });
    }

    /// Waits, whichever keyspace the writer writes to, until flushes have made the log shorter than twice its limit (L5), or
    /// until it is known why they cannot (P9).
    fn wait_for_log(&self, scheduler: &Scheduler, keyspace: &Arc<KeyspaceShared>) -> Result<()> {
        if planted_faults::planted("facade-writers-pass-a-long-log") {
            return Ok(());
        }
        let cause = Some(Debt::LogBytes);
        self.counters.stalls.fetch_add(1, Ordering::Relaxed);
        self.tell(&Event::StallBegun { keyspace: &keyspace.name, cause });
        let began = self.environment.clock.monotonic();
        let has_room = |_: &Jobs| self.has_log_room();
        let mut waited = self.wait_with(scheduler.begin_wait(), has_room);
        // Not every failure keeps the log from becoming shorter.
        while let Err(Error::DiskFull { .. } | Error::Io { .. }) = waited {
            // Begun before the look: what fails after it ends this one.
            let wait = scheduler.begin_wait();
            if let Some(error) = self.failure_to_shorten_log() {
                waited = Err(error);
                break;
            }
            waited = self.wait_on(wait, has_room);
        }
        // It may have been out of date.
        self.update_log_pace();
        self.stall_ends(keyspace, cause, began);
        self.writable()?;
        match waited {
            Err(_) if self.has_log_room() => Ok(()),
            waited => waited,
        }
    }

    /// What a commit leaves to do once the locks are released.
    #[inline]
    fn after_commit(&self, keyspace: &Arc<KeyspaceShared>, sealed: bool, enters_log_window: bool) {
        if enters_log_window {
            self.update_log_pace();
        }
        if sealed {
            self.after_seal(keyspace);
        } else if enters_log_window {
            self.notify_workers();
        }
        if enters_log_window && let Some(keeper) = self.log_keeper.get() {
            keeper.notify_workers();
        }
    }

    #[cold]
    pub(crate) fn after_seal(&self, keyspace: &Arc<KeyspaceShared>) {
        keyspace.refill_spare();
        self.update_pace(keyspace);
        self.jobs.lock().no_longer_idle(keyspace.id);
        self.request_job(keyspace);
    }

    fn committed(&self, committed: Result<SeqNo, CommitError<Error, LogError>>) -> Result<SeqNo> {
        committed.map_err(|error| match error {
            CommitError::Refused(error) => error,
            CommitError::Closed => Error::Closed,
            CommitError::Failed(cause) => {
                // P9: whoever waits for jobs waits in vain from here on.
                self.notify();
                Error::Failed { cause }
            }
            CommitError::NoRoom(error) => error.into(),
            other => Error::InvalidInput { what: other.to_string() },
        })
    }
}

/// Key, trailer and value of an entry of a batch table.
type TableRow<'a> = (&'a [u8], Trailer, &'a [u8]);

/// Reserves room in the memtables of all parts of a batch, sealing those that are full first, or in none of them. Under the
/// reservation lock.
fn reserve_parts_in_order(
    parts: &[Part],
    seqnos: (SeqNo, SeqNo),
    sealed: &mut [bool],
    grant: &mut Grant<'_>,
) -> Result<Vec<(KeyspaceId, Arc<Memtable>, ArenaRange)>> {
    let memtable = |(part, sealed): (&Part, &mut bool)| memtable_in_order(&part.keyspace, part.arena_bytes, sealed);
    let reserve = |part: &Part, memtable: Arc<Memtable>, grant: &mut Grant<'_>| {
        let range = reserve_in_order(&memtable, part.arena_bytes, part.entries, seqnos, grant)?;
        Ok((part.keyspace.id, memtable, range))
    };
    if let ([part], [sealed]) = (parts, &mut *sealed) {
        return Ok(vec![reserve(part, memtable((part, sealed)), grant)?]);
    }
    // P13: a range that was reserved must be filled, so what all of them need is asked for before the first, of the same
    // memtables.
    let memtables: Vec<Arc<Memtable>> = parts.iter().zip(sealed).map(memtable).collect();
    let growth = |(part, memtable): (&Part, &Arc<Memtable>)| memtable.growth(part.arena_bytes, part.entries);
    let needed = parts.iter().zip(&memtables).map(growth).sum();
    if !grant.grow_to(needed) {
        return Err(refused(needed));
    }
    parts.iter().zip(memtables).map(|(part, memtable)| reserve(part, memtable, grant)).collect()
}

/// Reserves room in one memtable if there is memory for what it grows by (P13). Under the reservation lock.
#[inline]
fn reserve_in_order(
    memtable: &Memtable,
    bytes: usize,
    entries: u64,
    (first_seqno, last_seqno): (SeqNo, SeqNo),
    grant: &mut Grant<'_>,
) -> Result<ArenaRange> {
    let reservation = Reservation { bytes, entries, first_seqno, last_seqno };
    memtable.reserve_granted(reservation, grant).map_err(|NoMemory { needed }| refused(needed))
}

/// The memtable that takes `arena_bytes` more: the active one, or its successor if it is full (P4). Under the reservation
/// lock.
#[inline]
fn memtable_in_order(keyspace: &KeyspaceShared, arena_bytes: usize, sealed: &mut bool) -> Arc<Memtable> {
    let mut active = Arc::clone(keyspace.history.current().active());
    let full = active.memory_usage() + arena_bytes as u64 > keyspace.options.memtable_bytes;
    if full && keyspace.seal_in_order() {
        *sealed = true;
        active = Arc::clone(keyspace.history.current().active());
    }
    active
}

/// The last of `entries` sequence numbers that begin with `first`. The pipeline has checked that they exist.
#[inline]
fn last_of(first: SeqNo, entries: u64) -> SeqNo {
    first.checked_add(entries - 1).expect("P1: the reservation checked that its seqnos exist")
}

/// A batch table's entry once its base is known (P11). Its run's epoch is its last sequence number (C3).
pub(crate) fn rebased(entry: &TableEntry, first: SeqNo, last: SeqNo) -> TableEntry {
    let rebase = |seqno: SeqNo| first.checked_add(seqno.get()).unwrap_or(last);
    TableEntry {
        min_seqno: rebase(entry.min_seqno),
        max_seqno: rebase(entry.max_seqno),
        seqno_base: first.get(),
        epoch: Epoch(rebase(entry.max_seqno).get()),
        ..entry.clone()
    }
}

impl From<Durability> for commit_pipeline::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Buffered => Self::Buffered,
            Durability::Synced => Self::Synced,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use crate::Database;
    use crate::core::{PACE_FREE, PACE_QUEUE, PACE_WAIT};

    /// P10: a queue is no way around the debt. Whoever has waited for their turn and then has room is delayed as any other.
    #[test]
    fn writers_are_delayed_also_when_they_come_out_of_a_queue() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).background_threads(1).open().unwrap();
        let keyspace = database.keyspace("a").unwrap();
        let shared = &keyspace.shared;
        let begun = std::time::Instant::now();
        thread::scope(|scope| {
            let turn = shared.room.enter();
            keyspace.handle.core.update_pace(shared);
            // As a debt would ask for.
            shared.queue_delay.store(Duration::from_millis(10).as_nanos() as u64, Ordering::Relaxed);
            for number in 0..3_u32 {
                let keyspace = &keyspace;
                scope.spawn(move || keyspace.insert(number.to_be_bytes(), [0; 1024]).unwrap());
            }
            while shared.room.present() < 4 {
                thread::yield_now();
            }
            drop(turn);
        });
        let stats = database.stats();
        assert_eq!((stats.stalls, stats.delays), (3, 3));
        assert!(begun.elapsed() >= Duration::from_millis(29), "each 10 ms, one after the other");
        assert!(
            stats.longest_wait_ns >= 29_000_000,
            "the last waited for the others, and then for its own delay: {stats}"
        );
    }

    /// P9, P10: while writers wait for their turn at a hard limit, one that comes later does not pass them though there is
    /// room again; and when all have gone, nobody stands in a queue any more.
    #[test]
    fn nobody_overtakes_writers_that_wait_for_room() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::builder(dir.path()).background_threads(1).open().unwrap();
        let keyspace = database.keyspace("a").unwrap();
        let shared = &keyspace.shared;
        let written = AtomicUsize::new(0);
        thread::scope(|scope| {
            // The first of the queue, which has not gone on yet.
            let turn = shared.room.enter();
            keyspace.handle.core.update_pace(shared);
            assert_eq!(shared.pace.load(Ordering::Relaxed), PACE_QUEUE);
            for number in 0..5_u32 {
                let (keyspace, written) = (&keyspace, &written);
                scope.spawn(move || {
                    keyspace.insert(number.to_be_bytes(), "").unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                });
                while shared.room.present() < number as usize + 2 {
                    thread::yield_now();
                }
            }
            thread::sleep(Duration::from_millis(20));
            assert_eq!(written.load(Ordering::Relaxed), 0, "nobody goes before the first");
            drop(turn);
            // As every writer does: the others may have gone on and left before this thread is out of the queue.
            if !shared.room.is_in_use() {
                keyspace.handle.core.update_pace(shared);
            }
        });
        assert_eq!(written.load(Ordering::Relaxed), 5);
        assert_eq!(shared.pace.load(Ordering::Relaxed), PACE_FREE);
        let stats = database.stats();
        assert_eq!((stats.stalls, stats.delays), (5, 0));
        assert!(stats.longest_wait_ns >= 20_000_000, "{stats}");
    }

    /// P9, P10: a pace that is out of date, as two threads that compute it at once can leave it, holds nobody for ever: the
    /// writer that waits has it corrected and is woken, although no job is due.
    #[test]
    fn a_writer_held_by_a_pace_out_of_date_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        for threads in [0, 1, 3] {
            let database = Database::builder(dir.path()).background_threads(threads).open().unwrap();
            let keyspace = database.keyspace("a").unwrap();
            for number in 0..50_u32 {
                keyspace.shared.pace.store(PACE_WAIT, Ordering::Relaxed);
                keyspace.insert(number.to_be_bytes(), "").unwrap();
            }
        }
    }
}
