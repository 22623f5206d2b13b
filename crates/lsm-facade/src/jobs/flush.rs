//! Flushes: which sealed parts are due, and how tables of them are made and installed.
//!
//! ```text
//!   complete sealed parts ─▶ sync the log (P5) ─▶ tables ─▶ edit (M1, P6) ─▶ super version ─▶ log floor (L5)
//! ```
//!
//! - **P4** A sealed memtable is flushed only when it is complete.
//! - **P5** The log is synced first, so that no table holds half of a batch whose other half can be lost.
//! - **P6** Oldest parts first, one flush of a keyspace at a time, so that flushes install in seal order.
//!
//! A run's epoch is its largest sequence number: it grows with every seal and is known without asking anybody (C3).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use compaction::{Cancel, Collected, Collector, KeySpan, OlderRuns, Outputs, Progress};
use internal_key::{Epoch, JobId, Level, SeqNo, TableId};
use manifest::{AddedTable, Change, Edit, TableEntry};
use merge_iterator::MergeCursor;
use version_history::Sealed;

use super::edit::ending;
use super::pace::sealed_bytes;
use super::queue::Task;
use super::settle::{Replayed, Unsettled};
use super::tables::{Destination, Placed};
use super::{Outcome, TaskError};
use crate::core::{Core, KeyspaceShared, SealedPart, Table, first_seqno, last_seqno};
use crate::events::{Event, Work};
use crate::history::clear_changes;
use crate::source::Source;
use crate::{Error, Result};

impl Core {
    pub(super) fn flush_next(&self, cancel: &AtomicBool) -> Result<bool, TaskError> {
        self.relieve_log();
        if self.jobs.lock().is_unsettled {
            return Ok(false); // L4: a flush would sleep for a claim. Who settles wakes the workers.
        }
        self.relieve_memory();
        loop {
            let Some(mut claim) = self.claim_flush() else { return Ok(false) };
            let keyspace = Arc::clone(&claim.keyspace);
            let parts = self.parts_due(&keyspace);
            claim.tried = !parts.is_empty();
            let (queued, cancel) = (claim.queued, Cancel::when(cancel));
            let ended = claim.tried.then(|| self.guarded(|| self.flush_parts(&keyspace, &parts, queued, cancel)));
            // Before the claim: while nobody flushes, nobody holds what was flushed but those who read it (P13).
            drop(parts);
            if self.memory.is_limited() {
                self.free_retired();
            }
            drop(claim);
            self.update_pace(&keyspace);
            self.note_flush_due(&keyspace);
            if ended.is_some() {
                self.note_compaction_due(&keyspace);
            }
            let task = Task::Flush(keyspace.id);
            match ended {
                None => self.jobs.lock().no_longer_fails(task),
                Some(Ok(_)) => return Ok(self.job_succeeded(task)),
                Some(Err(error)) => return Err((task, error)),
            }
        }
    }

    /// Has everything flushed that a keyspace has sealed, whatever its size. Returns whether that was not asked for before.
    pub(super) fn flush_all_sealed(&self, keyspace: &KeyspaceShared) -> bool {
        let newest = keyspace.history.current().sealed().iter().filter_map(last_seqno).max();
        newest.is_some_and(|newest| self.ask_for_flush(keyspace, newest))
    }

    /// Has everything flushed that a keyspace has sealed up to `through`. Returns whether that was not asked for before.
    pub(crate) fn ask_for_flush(&self, keyspace: &KeyspaceShared, through: SeqNo) -> bool {
        let is_new = self.jobs.lock().ask_for_flush(keyspace, through);
        if is_new {
            self.note_flush_due(keyspace);
        }
        is_new
    }

    /// The oldest sealed parts that one flush takes, oldest first; empty while none is due.
    pub(super) fn parts_due(&self, keyspace: &KeyspaceShared) -> Vec<SealedPart> {
        let current = keyspace.history.current();
        let sealed = current.sealed();
        let Some(oldest) = sealed.iter().filter_map(first_seqno).min() else { return Vec::new() };
        let asked = keyspace.flush_asked.covers(oldest);
        let has_batch = sealed.iter().any(|part| matches!(part, Sealed::Batch(_)));
        let due = sealed_bytes(&current) >= keyspace.options.flush_bytes();
        if !(asked || has_batch || due || self.pins_too_much_log(keyspace)) {
            return Vec::new();
        }
        flush_groups(sealed).next().unwrap_or_default()
    }

    /// Makes tables of `parts`, the oldest sealed ones, and installs them (P4, P5, P6, M1).
    fn flush_parts(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        queued: Duration,
        cancel: Cancel<'_>,
    ) -> Result<Outcome> {
        let (job, name) = (self.next_job_id(), &*keyspace.name);
        self.tell(&Event::FlushBegun { job: job.get(), keyspace: name, memtables: parts.len() });
        let (began, mut work) = (self.environment.clock.monotonic(), Work::default());
        let outcome = self.guarded(|| self.flush_as(job, keyspace, parts, &mut work, cancel));
        let took = self.environment.clock.monotonic().saturating_sub(began);
        if let Ok(Outcome::Done) = outcome {
            let Work { tables, written_bytes: bytes, .. } = work;
            tracing::info!(%job, keyspace = name, parts = parts.len(), tables, bytes, ?took, "flushed");
        }
        self.counters.worked(Level::ZERO, &work, queued, took);
        self.tell(&Event::FlushEnded { job: job.get(), keyspace: name, ending: ending(&outcome), work, queued, took });
        outcome
    }

    fn flush_as(
        &self,
        job: JobId,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        work: &mut Work,
        cancel: Cancel<'_>,
    ) -> Result<Outcome> {
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
            parts: 1,
            entries: collected,
            ..Work::default()
        };
        let added_places: Vec<_> = added.iter().map(|(place, _)| place.clone()).collect();
        // P12: once `flushed_seqno` has passed a clear, replay skips it. So a clear that the manifest does not hold yet
        // goes first, in the same edit.
        let cleared = keyspace.unfinished_operation(last);
        let mut edit = Edit::default();
        edit.changes.extend(cleared.into_iter().flat_map(|at| clear_changes(keyspace.id, &keyspace.options, at)));
        edit.changes.extend([flush_change(keyspace, added_places, last), Change::RaiseLastSeqno(last)]);
        edit.changes.extend(self.history_floor(keyspace));
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
        self.make_ready(&added, job, &|| cancel.is_set());
        let outcome = self.install_flush(keyspace, parts, &added);
        self.after_edit(&manifest);
        self.tell_edit(job, added.iter().map(|(place, _)| place), added.len(), 0);
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.counters.flushed_bytes.fetch_add(work.written_bytes, Ordering::Relaxed);
        Ok(outcome)
    }

    /// The tables of one flush, written and not yet named; `None` if there is nothing to write.
    fn make_flush(
        &self,
        job: JobId,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        below: Below,
        cancel: Cancel<'_>,
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

    /// Flushes what was replayed, in every keyspace by one edit, which also moves the log floor: what recovery does with the
    /// part of the log that was never claimed as durable (L4).
    ///
    /// `changes` go first, in the same edit: a clear that was replayed from this part of the log may no more outlive it
    /// than a flush may.
    pub(crate) fn flush_replayed(&self, replayed: &Unsettled, changes: Vec<Change>) -> Result<()> {
        let mut flushed: Vec<(&Replayed, Vec<Placed>)> = Vec::new();
        let written = replayed.keyspaces.iter().try_for_each(|replayed| {
            flushed.push((replayed, Vec::new()));
            let added = &mut flushed.last_mut().expect("just pushed").1;
            for parts in flush_groups(&replayed.sealed) {
                // The tables made so far are older than these parts, and no version holds them yet.
                let below = if added.is_empty() { Below::Version } else { Below::Unknown };
                let (job, cancel) = (self.next_job_id(), Cancel::when(&self.closed));
                if let Some(flush) = self.make_flush(job, &replayed.keyspace, &parts, below, cancel)? {
                    added.extend(flush.added);
                }
            }
            Ok(())
        });
        let made = |flushed: &[(&Replayed, Vec<Placed>)]| -> Vec<TableId> {
            let made = flushed.iter().flat_map(|(_, added)| added).filter(|(_, handle)| handle.is_none());
            made.map(|(place, _)| place.table.id).collect()
        };
        if let Err(error) = written {
            made(&flushed).into_iter().for_each(|table| _ = self.remove_unnamed_table(table)); // C4
            return Err(error);
        }
        let mut edit = Edit { changes };
        for (Replayed { keyspace, sealed }, added) in &flushed {
            if let Some(last) = sealed.iter().filter_map(last_seqno).max() {
                let places = added.iter().map(|(place, _)| place.clone()).collect();
                edit.changes.extend([flush_change(keyspace, places, last), Change::RaiseLastSeqno(last)]);
                edit.changes.extend(self.history_floor(keyspace));
            }
        }
        edit.changes.extend(replayed.change.clone());
        let parts: Vec<_> = flushed.iter().map(|(replayed, _)| (replayed.keyspace.id, &*replayed.sealed)).collect();
        edit.changes.extend(self.log_progress(&parts));
        let manifest = match self.commit_edit(edit) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.abandon_tables(&error, made(&flushed).into_iter());
                return Err(self.edit_failed(error));
            }
        };
        for (Replayed { keyspace, sealed }, added) in flushed {
            let jobs: BTreeSet<JobId> =
                added.iter().filter(|(_, handle)| handle.is_none()).map(|(place, _)| place.table.job).collect();
            let added = self.with_handles(keyspace, added);
            // Opening leaves it to the readers, who wait for it.
            if self.scheduler().is_some() {
                jobs.iter().for_each(|job| self.make_ready(&added, *job, &|| self.closed.load(Ordering::Relaxed)));
            }
            self.install_flush(keyspace, sealed, &added);
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
        cancel: Cancel<'_>,
    ) -> Result<Outputs> {
        let memtables = parts.iter().rev().filter_map(|part| match part {
            Sealed::Memtable(memtable) if !memtable.is_empty() => Some(Source::Memtable(memtable.cursor())),
            _ => None,
        });
        let merged = MergeCursor::new(memtables.collect());
        let (floor, snapshots) = self.floor_and_registered(keyspace);
        let current = keyspace.history.current_full();
        let mut older = OlderRuns::all(current.version());
        let mut collector =
            Collector::new(floor, &snapshots, |key: &[u8]| below == Below::Unknown || older.may_hold(key));
        let span = KeySpan::default();
        // Complete since before this: nothing in it was written later.
        let newest_unix_ms = self.newest_unix_ms(&keyspace.options);
        let to = Destination { level: Level::ZERO, epoch, job, inputs: &[], newest_unix_ms, bounds: &[], span };
        self.write_tables(keyspace, merged, &mut collector, to, (cancel, &Progress::default()))
    }

    fn install_flush(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        parts: &[SealedPart],
        added: &[(AddedTable, Arc<Table>)],
    ) -> Outcome {
        let installed = keyspace
            .counting_flushed(parts, || keyspace.history.install(|current| current.install_flush(parts, added)));
        match installed {
            Ok(_) => Outcome::Done,
            Err(refusal) => {
                // A clear came between the edit and this: its own edit takes the tables out of the manifest (P12).
                tracing::info!(keyspace = keyspace.name, %refusal, "flush installed in the manifest alone");
                Outcome::Abandoned
            }
        }
    }
}

/// The tables of a flush, before anything names them.
struct Flush {
    last: SeqNo,
    added: Vec<Placed>,
    collected: Collected,
}

/// What is older than the parts of a flush (C2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// The tables of the current version, and nothing else: older parts were installed before (P6).
    Version,
    /// Tables that no version holds yet: every key may be in them.
    Unknown,
}

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

#[cfg(test)]
mod tests {
    use file_system::Simulation;

    use crate::{Database, KeyspaceOptions};

    /// P9: a request for a flush and the look that serves it are one step, and a request that was made before is none.
    #[test]
    fn what_is_asked_for_is_looked_for_in_one_step() {
        let simulation = Simulation::new(1);
        let builder = Database::builder("/db").environment(simulation.environment());
        let database = builder.background_threads(0).open().unwrap();
        let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
        let core = &keyspace.handle.core;
        keyspace.insert("key", "value").unwrap();
        core.seal(&keyspace.shared).unwrap();
        while database.run_one_job().unwrap() {}
        assert_eq!(database.stats().flushes, 0, "one memtable is too little to be flushed by itself");
        assert!(core.flush_all_sealed(&keyspace.shared));
        assert!(core.jobs.lock().look_for_flush.contains(&keyspace.shared.id));
        assert!(!core.flush_all_sealed(&keyspace.shared), "it was asked for before");
        while database.run_one_job().unwrap() {}
        assert_eq!(database.stats().flushes, 1, "what was asked for is not looked for");
        assert!(!core.flush_all_sealed(&keyspace.shared), "nothing is left");
    }
}
