//! Waiting for what jobs bring about.
//!
//! - **P9** Who waits is told why if nothing can come of it any more: a job failed, the database failed or is closed.

use std::sync::atomic::Ordering;

use compaction::{Wait, WaitError};
use internal_key::KeyspaceId;

use super::queue::{Jobs, scope_of};
use crate::core::Core;
use crate::{Error, Result};

impl Core {
    /// Waits until `done` of the jobs holds; with zero threads runs jobs meanwhile. Ends too if a job fails that concerns
    /// `keyspace`, or with `None` if any does (P9).
    pub(crate) fn wait_for_jobs(&self, keyspace: Option<KeyspaceId>, done: impl Fn(&Jobs) -> bool) -> Result<()> {
        let Some(scheduler) = self.scheduler() else { return Ok(()) };
        self.may_wait()?;
        self.jobs.lock().try_failed_again();
        self.waited(done, |ended| match keyspace {
            Some(id) => scheduler.wait_until_in(scope_of(id), ended),
            None => scheduler.wait_until(ended),
        })
    }

    /// [`wait_for_jobs`](Self::wait_for_jobs) with a wait that has begun before.
    pub(crate) fn wait_with(&self, wait: Wait<'_>, done: impl Fn(&Jobs) -> bool) -> Result<()> {
        self.jobs.lock().try_failed_again();
        self.wait_on(wait, done)
    }

    /// [`wait_with`](Self::wait_with) for who goes on waiting although a job failed: it is not tried again for that.
    pub(crate) fn wait_on(&self, wait: Wait<'_>, done: impl Fn(&Jobs) -> bool) -> Result<()> {
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
        let waited = wait(&ended);
        if let Some(cause) = failure() {
            return if done(&self.jobs.lock()) { Ok(()) } else { Err(Error::Failed { cause }) };
        }
        match waited {
            Ok(()) => Ok(()),
            Err(WaitError::Failed(failure)) => Err(Error::from_job(failure)),
            Err(WaitError::ShutDown) => Err(Error::Closed),
            Err(WaitError::Suspended) => Err(Error::Suspended),
            Err(error) => Err(Error::InvalidInput { what: error.to_string() }),
        }
    }
}
