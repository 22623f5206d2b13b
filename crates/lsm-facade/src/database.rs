//! The database handle.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use compaction::Scheduler;
use internal_key::{KeyspaceId, SeqNo};
use lock_meter::LockCosts;
use manifest::{Change, Edit, Refusal};
use version_history::Version;
use write_ahead_log::RecordKind;

use crate::batch::WriteBatch;
use crate::control::CompactionControl;
use crate::core::{Core, EditError, KeyspaceShared, SuperVersion, new_memtable};
use crate::jobs::{Jobs, check_wanted, is_cancelled};
use crate::options::{DatabaseBuilder, DatabaseOptions, KeyspaceOptions};
use crate::stats::{Health, KeyspaceStats, Stats};
use crate::{Durability, Error, Keyspace, Result, Snapshot};

/// What every handle shares; the last one to go closes the database.
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = crate::open::close(&self.core) {
            tracing::warn!(%error, "closing did not complete; the next opening recovers");
        }
    }
}

/// An open database: a directory of keyspaces that share one log, one order of writes and one set of snapshots.
///
/// Cheap to clone, `Send + Sync`. The database stays open as long as any handle, [`Keyspace`], [`Snapshot`] or iterator
/// lives; the last one to be dropped closes it. At most one process has it open for writing.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = lsm_facade::Database::open(dir.path())?;
/// let people = database.keyspace("people")?;
/// people.insert("ada", "1815")?;
/// people.insert("grace", "1906")?;
/// for row in people.range("b"..) {
///     let (name, year) = row?;
///     assert_eq!((&*name, &*year), (&b"grace"[..], &b"1906"[..]));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    handle: Arc<Handle>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Database").field(&self.handle.core.paths.dir()).finish()
    }
}

impl Database {
    /// Opens the database in `path`, creating it if there is none, with every option at its default.
    ///
    /// One that was closed when all of it was in tables is opened without changing any of it: the first change begins its log, which
    /// takes four syncs. Who has it open is written down beside it, and what happens, if an event log is asked for.
    ///
    /// # Errors
    /// As [`DatabaseBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open()
    }

    /// Options first, then [`DatabaseBuilder::open`].
    pub fn builder(path: impl AsRef<Path>) -> DatabaseBuilder {
        DatabaseBuilder::new(path.as_ref())
    }

    pub(crate) fn open_with(path: &Path, options: DatabaseOptions) -> Result<Self> {
        Ok(Self { handle: Arc::new(Handle { core: crate::open::open(path, options)? }) })
    }

    fn core(&self) -> &Core {
        &self.handle.core
    }

    /// The directory it lives in.
    pub fn path(&self) -> &Path {
        self.core().paths.dir()
    }

    /// The keyspace called `name`, created with default options if there is none.
    ///
    /// # Errors
    /// As [`create_keyspace`](Self::create_keyspace), except that an existing keyspace is fine.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        match self.open_keyspace(name) {
            Err(Error::NoSuchKeyspace { .. }) => {}
            opened => return opened,
        }
        match self.create_keyspace(name, KeyspaceOptions::default()) {
            // Another thread was faster.
            Err(Error::KeyspaceExists { .. }) => self.open_keyspace(name),
            created => created,
        }
    }

    /// Creates a keyspace. It is durable when this returns (P12). Names are 1 to 255 bytes of any text.
    ///
    /// An empty keyspace costs no file and no memory worth speaking of; thousands are fine.
    ///
    /// # Errors
    /// - [`Error::KeyspaceExists`], [`Error::InvalidOption`], [`Error::InvalidInput`] (the name).
    /// - [`Error::Io`], [`Error::DiskFull`]: nothing was created; it may succeed later.
    /// - [`Error::Failed`], [`Error::ReadOnly`], [`Error::Closed`].
    pub fn create_keyspace(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        options.check()?;
        if name.is_empty() || name.len() > 255 {
            let what = format!("keyspace name of {} bytes: expected 1 to 255", name.len());
            return Err(Error::InvalidInput { what });
        }
        let core = self.core();
        let pipeline = core.writable()?;
        if let Some(cause) = pipeline.failure() {
            return Err(Error::Failed { cause });
        }
        let _changing = core.begin_change()?;
        let _one_at_a_time = core.membership.lock();
        // Whatever the log holds so far belongs to others.
        let created_seqno = pipeline.next_seqno().before();
        let manifest = core.manifest.current();
        // One whose drop stands in the log alone goes with the edit that gives its name away.
        let dropped = core.keyspace_named(name).filter(|keyspace| keyspace.is_dropped());
        if manifest.keyspace_named(name).is_some() && dropped.is_none() {
            return Err(Error::KeyspaceExists { name: name.to_owned() });
        }
        let id: KeyspaceId = manifest.next_keyspace_id;
        let mut edit = Edit::default();
        edit.changes.extend(dropped.as_ref().map(|keyspace| Change::DropKeyspace { id: keyspace.id }));
        edit.changes.push(Change::CreateKeyspace {
            id,
            name: name.to_owned(),
            options: options.to_manifest(),
            created_seqno,
        });
        core.commit_edit(edit).map_err(|error| match error {
            EditError::Refused(Refusal::NameTaken { name, .. }) => Error::KeyspaceExists { name },
            EditError::Uncertain(error) => core.fail(error),
            other => other.into_error(),
        })?;
        let active = new_memtable(&options, &core.memory);
        let first = SuperVersion::new(active, Arc::new(Version::default()));
        let shared = Arc::new(KeyspaceShared::new(id, name.to_owned(), options, first, &core.parts));
        core.begin_history(&shared, created_seqno);
        {
            let mut keyspaces = core.keyspaces.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(dropped) = dropped {
                dropped.end_operations(SeqNo::MAX);
                keyspaces.remove(&dropped);
            }
            keyspaces.insert(Arc::clone(&shared));
        }
        Ok(Keyspace::new(&self.handle, shared))
    }

    /// The living keyspace called `name`.
    ///
    /// # Errors
    /// [`Error::NoSuchKeyspace`], [`Error::Closed`].
    pub fn open_keyspace(&self, name: &str) -> Result<Keyspace> {
        self.core().check_open()?;
        match self.core().keyspace_named(name).filter(|shared| !shared.is_dropped()) {
            Some(shared) => Ok(Keyspace::new(&self.handle, shared)),
            None => Err(Error::NoSuchKeyspace { name: name.to_owned() }),
        }
    }

    /// The names of the living keyspaces, sorted.
    pub fn list_keyspaces(&self) -> Vec<String> {
        let keyspaces = self.core().keyspaces.read().unwrap_or_else(PoisonError::into_inner);
        keyspaces.by_name.values().filter(|shared| !shared.is_dropped()).map(|shared| shared.name.clone()).collect()
    }

    /// Drops a keyspace with everything in it. Durable in the log when this returns, also if the manifest has no room to
    /// say so: then the background completes it, as for [`Keyspace::clear`]. Its files go when nobody reads them any
    /// more; snapshots taken before keep what they saw.
    ///
    /// # Errors
    /// [`Error::NoSuchKeyspace`], and as [`Keyspace::clear`].
    pub fn drop_keyspace(&self, name: &str) -> Result<()> {
        self.core().check_open()?;
        match self.core().keyspace_named(name) {
            Some(shared) => match self.core().restart_keyspace(&shared, RecordKind::DropKeyspace) {
                // Whoever dropped it may still be completing that.
                Err(Error::KeyspaceDropped { name }) => Err(Error::NoSuchKeyspace { name }),
                dropped => dropped,
            },
            None => Err(Error::NoSuchKeyspace { name: name.to_owned() }),
        }
    }

    /// An empty batch.
    pub fn batch(&self) -> WriteBatch {
        WriteBatch::new()
    }

    /// Commits a batch: all of it or nothing, at once for every reader, with the batch's durability.
    ///
    /// # Errors
    /// As [`Keyspace::insert`]; [`Error::InvalidInput`] if a keyspace belongs to another database. Nothing was written.
    pub fn write(&self, batch: &WriteBatch) -> Result<()> {
        self.core().write(batch)?;
        Ok(())
    }

    /// [`write`](Self::write), and the sequence number at which the batch is seen: what [`snapshot_at`](Self::snapshot_at)
    /// it sees is the batch, what came before it, and nothing that came after. For an empty batch what is visible now.
    ///
    /// A power cut may take the newest commits that were not [`Durability::Synced`](crate::Durability::Synced), and their
    /// numbers are then given to others.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn commit(&self, batch: &WriteBatch) -> Result<u64> {
        Ok(self.core().write(batch)?.get())
    }

    /// The state of every keyspace as it is now.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.core().check_open()?;
        Ok(Snapshot::new(&self.handle))
    }

    /// The state of every keyspace that keeps history as it was when `seqno` was visible: see
    /// [`KeyspaceOptions::history_writes`] and its neighbours. `seqno` is what [`commit`](Self::commit),
    /// [`Snapshot::seqno`] or [`visible_seqno`](Self::visible_seqno) returned: one within a batch shows a part of it.
    ///
    /// A keyspace can be read through it whose history reaches back so far, and it stays so while the snapshot is held,
    /// whatever falls out of the retention. The others answer [`Error::HistoryGone`] ([`Snapshot::keeps`]): those that
    /// keep less or none, were cleared since, or made later.
    ///
    /// ```
    /// # fn main() -> lsm_facade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use lsm_facade::{Database, Error, KeyspaceOptions};
    ///
    /// let database = Database::open(dir.path())?;
    /// let prices = database.create_keyspace("prices", KeyspaceOptions::default().history_writes(1000))?;
    /// let mut batch = database.batch();
    /// batch.insert(&prices, "tea", "2")?;
    /// let monday = database.commit(&batch)?;
    /// prices.insert("tea", "3")?;
    /// database.flush()?;
    /// assert_eq!(database.snapshot_at(monday)?.get(&prices, "tea")?.unwrap(), b"2");
    ///
    /// for number in 0..1000 {
    ///     prices.insert("coffee", number.to_string())?;
    /// }
    /// match database.snapshot_at(monday) {
    ///     Err(Error::HistoryGone { seqno, oldest, .. }) => assert!(seqno == monday && monday < oldest),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`Error::HistoryGone`]: no keyspace can be read as of it any more; says what the oldest is that one can.
    /// - [`Error::NotYetVisible`]: nothing was written at it yet.
    /// - [`Error::Closed`].
    pub fn snapshot_at(&self, seqno: u64) -> Result<Snapshot> {
        self.core().check_open()?;
        Snapshot::at(&self.handle, seqno)
    }

    /// The sequence number of the last write that reads see now.
    pub fn visible_seqno(&self) -> u64 {
        self.core().visible().load().get()
    }

    /// Makes every commit that has returned survive a power cut: one sync of the log for all who ask together (P7).
    ///
    /// # Errors
    /// [`Error::Failed`]: the outcome is unknown and the database takes no writes until it is reopened (P8).
    pub fn persist(&self) -> Result<()> {
        self.core().writable_as(Durability::Synced)?.persist().map_err(|cause| {
            // P9: nobody who waits for a job learns of it otherwise.
            self.core().notify();
            Error::failed(cause)
        })
    }

    /// [`Keyspace::flush`] for every keyspace.
    ///
    /// # Errors
    /// The first failure.
    pub fn flush(&self) -> Result<()> {
        self.core().writable()?;
        for shared in self.core().keyspace_list() {
            match Keyspace::new(&self.handle, shared).flush() {
                // Dropped meanwhile.
                Err(Error::KeyspaceDropped { .. }) => {}
                flushed => flushed?,
            }
        }
        Ok(())
    }

    /// Runs one background job on this thread, and returns whether there was one. With
    /// [`background_threads(0)`](DatabaseBuilder::background_threads) this is how flushes and compactions get done;
    /// otherwise it helps.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::InListener`].
    pub fn run_one_job(&self) -> Result<bool> {
        self.core().check_open()?;
        self.core().may_wait()?;
        match self.core().scheduler() {
            Some(scheduler) => {
                self.core().jobs.lock().try_failed_again();
                scheduler.run_one_job().map_err(Error::from_job)
            }
            None => Ok(false),
        }
    }

    /// Waits until no flush and no compaction is due or running. With zero threads runs them.
    ///
    /// # Errors
    /// What keeps background work from getting on; [`Error::Closed`], [`Error::InListener`].
    pub fn wait_until_idle(&self) -> Result<()> {
        let core = self.core();
        core.check_open()?;
        if core.pipeline.is_some() {
            // Time alone may have made something due, which no job has looked for yet.
            core.look_for_expired_history();
        }
        core.wait_for_jobs(None, Jobs::is_idle)?;
        let _changing = core.begin_change()?;
        if core.pipeline.is_some() {
            // What the last job replaced goes now and not at the next occasion: an idle database takes no room for it.
            core.tidy_up();
        }
        Ok(())
    }

    /// Keeps background jobs from being started until what this returns is dropped, and waits for those that run. For who
    /// needs the disk or the processors for a while. May be asked for several times at once.
    ///
    /// Writes go on while there is memory for them; at a hard limit they fail with [`Error::Suspended`] instead of waiting for
    /// what does not come, as does whoever waits for jobs (P9). The log is kept ahead of them meanwhile, on its own thread.
    ///
    /// ```
    /// # fn main() -> lsm_facade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let database = lsm_facade::Database::open(dir.path())?;
    /// let suspended = database.suspend_background()?;
    /// assert!(!database.run_one_job()?);
    /// drop(suspended);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::ReadOnly`], [`Error::InListener`].
    pub fn suspend_background(&self) -> Result<SuspendedBackground> {
        let core = self.core();
        core.writable()?;
        core.may_wait()?;
        let scheduler = Arc::clone(core.scheduler().ok_or(Error::ReadOnly)?);
        scheduler.suspend();
        scheduler.wait_until_idle();
        Ok(SuspendedBackground { scheduler })
    }

    /// What it has done since it was opened, and what it holds.
    pub fn stats(&self) -> Stats {
        let core = self.core();
        let mut stats = Stats {
            visible_seqno: core.visible().load().get(),
            snapshots: core.snapshots.counts().registered as u64,
            block_cache_bytes: core.blocks.as_ref().map_or(0, |blocks| blocks.bytes()),
            memory: core.memory_stats(),
            keyspaces: (core.keyspace_list().iter())
                .filter(|keyspace| !keyspace.is_dropped())
                .map(|keyspace| KeyspaceStats::of(keyspace))
                .collect(),
            ..Stats::default()
        };
        if let Some(pipeline) = &core.pipeline {
            let figures = pipeline.counts();
            stats.commits = figures.commits;
            stats.log_syncs = figures.syncs;
            stats.log_segment_waits = figures.segment_waits;
            stats.log_bytes = pipeline.journal().total_bytes();
        }
        stats.count(&core.counters);
        stats.count_manifest(&core.manifest.metrics());
        stats.locks = core.lock_costs();
        stats.keyspaces.sort_by(|left, right| left.name.cmp(&right.name));
        stats
    }

    /// Whether it takes writes and its background work gets on.
    pub fn health(&self) -> Health {
        let core = self.core();
        if core.check_open().is_err() {
            return Health::Closed;
        }
        if let Some(cause) = core.pipeline.as_ref().and_then(|pipeline| pipeline.failure()) {
            return Health::Failed { cause: Error::Failed { cause } };
        }
        match core.background_error() {
            Some(cause) => Health::Degraded { cause },
            None => Health::Well,
        }
    }

    /// Closes the database now, whatever handles are left: they answer [`Error::Closed`] from here on. What was recovered when it
    /// was opened is flushed if it is not yet, running jobs are cancelled, the log is synced and the manifest vouches for its end. Dropping the last handle does the same, without
    /// telling how it went.
    ///
    /// # Errors
    /// - If the end of the log could not be made durable. The database is closed all the same, and opening recovers it.
    /// - [`Error::InListener`]: nothing has happened.
    pub fn close(&self) -> Result<()> {
        self.core().may_wait()?;
        crate::open::close(self.core())
    }
}

/// Background jobs are suspended until this is dropped. See [`Database::suspend_background`].
#[must_use = "jobs go on as soon as this is dropped"]
#[derive(Debug)]
pub struct SuspendedBackground {
    scheduler: Arc<Scheduler>,
}

impl Drop for SuspendedBackground {
    fn drop(&mut self) {
        self.scheduler.resume();
    }
}

impl Core {
    /// What the locks that writers, snapshots and jobs take have cost. One entry for all keyspaces' locks of composition.
    fn lock_costs(&self) -> Vec<(&'static str, LockCosts)> {
        let mut composing = LockCosts::default();
        self.keyspace_list().iter().for_each(|keyspace| composing += keyspace.history.lock_costs());
        let pipeline = self.pipeline.iter().flat_map(|pipeline| pipeline.lock_costs());
        let scheduler = self.scheduler().map(|scheduler| ("scheduler", scheduler.lock_costs()));
        let others =
            [("super versions", composing), ("snapshots", self.snapshots.lock_costs()), ("jobs", self.jobs.costs())];
        pipeline.chain(others).chain(scheduler).collect()
    }

    /// The keyspace of this name, also one that is dropped while the manifest does not say so yet.
    fn keyspace_named(&self, name: &str) -> Option<Arc<KeyspaceShared>> {
        let keyspaces = self.keyspaces.read().unwrap_or_else(PoisonError::into_inner);
        keyspaces.by_name.get(name).cloned()
    }

    /// Seals the active memtable of a keyspace, whatever its size (P4).
    pub(crate) fn seal(&self, keyspace: &Arc<KeyspaceShared>) -> Result<()> {
        keyspace.check_alive()?;
        let pipeline = self.writable()?;
        let sealed = pipeline.with_order(|_| keyspace.seal_in_order());
        if sealed {
            self.after_seal(keyspace);
        }
        Ok(())
    }

    /// Tells the jobs that one of a keyspace may be due, and wakes them.
    pub(crate) fn request_job(&self, keyspace: &KeyspaceShared) {
        self.note_flush_due(keyspace);
        self.jobs.lock().wants_look(keyspace.id);
        self.notify_workers();
    }

    /// Tells the jobs that a keyspace wants a look, and wakes them and whoever waits for something of it.
    pub(crate) fn request_look(&self, keyspace: &KeyspaceShared) {
        self.jobs.lock().wants_look(keyspace.id);
        self.notify();
    }

    /// Waits until everything of a keyspace up to `target` is in tables, or `asked` is cancelled.
    pub(crate) fn wait_for_flush(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        target: SeqNo,
        asked: Option<&CompactionControl>,
    ) -> Result<()> {
        let flushed = || keyspace.oldest_sealed().is_none_or(|oldest| oldest > target);
        let waited =
            self.wait_for_jobs(Some(keyspace.id), |_| flushed() || keyspace.is_dropped() || is_cancelled(asked));
        if flushed() {
            return Ok(());
        }
        keyspace.check_alive()?;
        check_wanted(asked)?;
        if let Some(cause) = self.pipeline.as_ref().and_then(|pipeline| pipeline.failure()) {
            return Err(Error::Failed { cause });
        }
        self.check_open()?;
        waited
    }
}
