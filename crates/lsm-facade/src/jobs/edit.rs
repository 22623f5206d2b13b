//! The manifest edits of jobs: how each can end, and who is told; and the folding of the file that they are written to.
//!
//! - **C4** An edit that is certainly not durable leaves nothing: its tables go at once.
//! - **M7** If nobody knows whether it is durable, its tables stay until reopening and the database fails (P8).

use internal_key::{JobId, TableId};
use manifest::{AddedTable, Edit, Manifest};

use super::queue::Task;
use super::{Outcome, TaskError};
use crate::core::{Core, EditError, floor_segment};
use crate::events::{Ending, Event};
use crate::{Error, Result};

impl Core {
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

    /// M3: folds the manifest's edit file beside the commits, if that is due. A certain failure holds nobody up: with the
    /// next edit it is due again, and once the file is full the edit that has to fold it says why it cannot.
    pub(super) fn fold_manifest(&self) -> Result<bool, TaskError> {
        if !self.manifest.fold_is_due() || planted_faults::planted("facade-manifest-folded-by-edits-alone") {
            return Ok(false);
        }
        match self.manifest.fold().map_err(|error| EditError::from(error, self)) {
            Ok(folded) => Ok(folded),
            Err(EditError::Uncertain(error)) => Err((Task::Manifest, error)),
            Err(_) => Ok(false),
        }
    }

    /// An edit that is certainly not durable leaves its tables unnamed for ever: they go now (C4). If nobody knows, they
    /// stay until reopening (M7).
    pub(super) fn abandon_tables(&self, error: &EditError, tables: impl Iterator<Item = TableId>) {
        if !matches!(error, EditError::Uncertain(_)) {
            tables.for_each(|table| {
                self.remove_unnamed_table(table);
            });
        }
    }

    pub(super) fn edit_abandoned(&self, error: EditError, job: JobId) -> Result<Outcome> {
        match error {
            EditError::Refused(refusal) => {
                tracing::info!(%job, %refusal, "job abandoned");
                Ok(Outcome::Abandoned)
            }
            error => Err(self.edit_failed(error)),
        }
    }

    pub(super) fn edit_failed(&self, error: EditError) -> Error {
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
        self.update_log_pace();
    }

    /// Tells the listeners. No lock may be held.
    pub(crate) fn tell(&self, event: &Event<'_>) {
        self.options.listeners.tell(self.instance, event);
    }

    /// Tells of a durable edit of a job, and of the tables that it made.
    pub(super) fn tell_edit<'a>(
        &self,
        job: JobId,
        made: impl Iterator<Item = &'a AddedTable>,
        added: usize,
        removed: usize,
    ) {
        if self.options.listeners.is_empty() {
            return;
        }
        let job = job.get();
        for AddedTable { level, table, .. } in made {
            self.tell(&Event::TableCreated { job, table: table.id.get(), level: level.get(), bytes: table.bytes });
        }
        self.tell(&Event::ManifestEdited { job, added, removed });
    }
}

/// How a job ended, for who listens.
pub(super) fn ending(outcome: &Result<Outcome>) -> Ending {
    match outcome {
        Ok(Outcome::Done) => Ending::Installed,
        Ok(Outcome::Abandoned) => Ending::Abandoned,
        Err(_) => Ending::Failed,
    }
}
