//! What was replayed from beyond the log's last claim: flushed beside the first reads and writes.
//!
//! ```text
//!   opening   replay ─▶ seal ─▶ reads, and writes that are not synced …
//!                         └────▶ a job, or whoever needs a durable log before:  tables ─▶ one edit ─▶ claims are released
//!   synced commits, other flushes, clears, drops, closing                                                └─▶ go on
//! ```
//!
//! - **L4** One edit for all keyspaces, which also moves the log's floor to the segment that follows those replayed. Until it is
//!   durable no claim rises. Whoever would wait for a claim comes here first, and so does not sleep for what nobody does.
//! - **P5** It needs no sync of the log: with one edit for all, no table can hold half of a batch whose other half is lost. Every
//!   other flush syncs the log, and so waits for this one.
//! - **P6** What was replayed is the oldest that its keyspace has in memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use manifest::Change;

use super::TaskError;
use super::queue::Task;
use crate::core::{Core, KeyspaceShared, SealedPart};
use crate::{Error, Result};

/// What was replayed and is not flushed.
pub(crate) struct Unsettled {
    pub(super) keyspaces: Vec<Replayed>,
    /// What the edit says beside.
    pub(super) change: Option<Change>,
}

/// What was replayed of one keyspace.
pub(super) struct Replayed {
    pub(super) keyspace: Arc<KeyspaceShared>,
    /// All that it has, newest first.
    pub(super) sealed: Vec<SealedPart>,
}

impl Unsettled {
    /// Whether there is nothing to flush.
    pub(crate) fn is_empty(&self) -> bool {
        self.keyspaces.is_empty()
    }
}

/// The job that settles, until this is dropped.
struct SettlingClaim<'a>(&'a Core);

impl Drop for SettlingClaim<'_> {
    fn drop(&mut self) {
        self.0.jobs.lock().settling = false;
    }
}

impl Core {
    /// Seals what was replayed. Runs before there are jobs or writers.
    pub(crate) fn seal_replayed(&self, change: Option<Change>) -> Result<Unsettled> {
        let mut keyspaces = Vec::new();
        for keyspace in self.keyspace_list() {
            self.seal(&keyspace)?;
            let sealed = keyspace.history.current().sealed().to_vec();
            if !sealed.is_empty() {
                keyspaces.push(Replayed { keyspace, sealed });
            }
        }
        Ok(Unsettled { keyspaces, change })
    }

    /// Opening is done, and claims stay held until this is flushed (L4).
    pub(crate) fn leave_unsettled(&self, unsettled: Unsettled) {
        *self.unsettled.lock() = Some(unsettled);
        self.is_settled.store(false, Ordering::Relaxed);
        self.jobs.lock().is_unsettled = true;
    }

    /// Claims rise from here on (L4).
    pub(crate) fn release_claims(&self) {
        if let Some(pipeline) = &self.pipeline {
            pipeline.journal().release_claims();
            pipeline.claims_released();
        }
    }

    /// Returns when a sync of the log raises what it claims: flushes what was replayed, if nobody has (L4). To be called, under
    /// no lock, by whoever is about to wait for such a sync.
    ///
    /// # Errors
    /// Those of a flush. Nothing has changed, unless the database failed.
    #[inline]
    pub(crate) fn settle(&self) -> Result<()> {
        if self.is_settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _changing = self.begin_change()?;
        self.settle_now().map(drop)
    }

    /// [`settle`](Self::settle) for who keeps the database from being closed in another way, and whether there was anything.
    #[cold]
    pub(crate) fn settle_now(&self) -> Result<bool> {
        let mut unsettled = self.unsettled.lock();
        let Some(replayed) = &*unsettled else { return Ok(false) };
        if let Some(cause) = self.pipeline.as_ref().and_then(|pipeline| pipeline.failure()) {
            return Err(Error::Failed { cause });
        }
        let began = self.environment.clock.monotonic();
        if planted_faults::planted("facade-claims-released-before-the-flush") {
            self.release_claims();
        }
        self.guarded(|| self.flush_replayed(replayed, Vec::new()))?;
        self.release_claims();
        let keyspaces: Vec<_> = replayed.keyspaces.iter().map(|replayed| Arc::clone(&replayed.keyspace)).collect();
        *unsettled = None;
        self.is_settled.store(true, Ordering::Relaxed);
        drop(unsettled);
        for keyspace in &keyspaces {
            self.update_pace(keyspace);
            self.note_flush_due(keyspace);
            self.note_compaction_due(keyspace);
        }
        {
            let mut jobs = self.jobs.lock();
            jobs.is_unsettled = false;
            jobs.no_longer_fails(Task::Settle);
            keyspaces.iter().for_each(|keyspace| jobs.wants_look(keyspace.id));
        }
        let took = self.environment.clock.monotonic().saturating_sub(began);
        tracing::info!(keyspaces = keyspaces.len(), ?took, "flushed what was replayed");
        // Also if this was no job: whose end would tell those who wait for a flush.
        self.notify();
        Ok(true)
    }

    /// Settles, unless another worker does.
    pub(super) fn settle_next(&self) -> Result<bool, TaskError> {
        if self.is_settled.load(Ordering::Relaxed) {
            return Ok(false);
        }
        {
            let mut jobs = self.jobs.lock();
            if !jobs.is_unsettled || !jobs.may_run(Task::Settle) || std::mem::replace(&mut jobs.settling, true) {
                return Ok(false);
            }
        }
        let _claim = SettlingClaim(self);
        match self.settle_now() {
            Ok(true) => Ok(self.job_succeeded(Task::Settle)),
            Ok(false) => Ok(false),
            Err(error) => Err((Task::Settle, error)),
        }
    }
}
