//! The manifest on disk and how it changes: one commit point, one committer, any number of callers.
//!
//! ```text
//!  commit(edit) ─┐                     ┌ every waiting edit is applied or refused on its own
//!  commit(edit) ─┼─▶ queue ─▶ leader ──┤ changed level files   temporary → sync → rename → sync directories
//!  commit(edit) ─┘   others sleep      │ global.json           temporary → sync → rename ═ the commit point
//!                                      │                                         → sync directory
//!                                      └ publish the value, answer everyone      (replaced files: collect_obsolete)
//!
//!  past the size where that costs too much (M3):  line ─▶ edit file ─▶ sync ═ the commit point ─▶ publish
//! ```
//!
//! - **M1** The order above. A crash between any two steps leaves exactly the old or exactly the new state.
//! - **M2** Nothing is removed before this process has made the state durable anew.
//! - **M3** An edit costs at most 1 % of its job's bytes or 4 KiB; where JSON files would cost more, an edit file takes
//!   the edits, and is folded into JSON files when it is full. Then the cost is that of the lines and, spread over
//!   them, of folding: the edit file is as long as what folding writes. A clean close folds too: from then on one
//!   checksum vouches for everything.
//! - **M5** The value is behind an atomic pointer; readers take no lock.
//! - **M6** Creation is repeatable; `global.json` is durable before anything else of the database exists.
//! - **M7** From the rename (or the store of a line) until the last sync has succeeded the outcome is unknown. If that
//!   sync fails the store is failed for good and removes nothing any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use file_system::{
    Environment, FileError, LOCK_INFO_NAME, LOCK_NAME, LogFile, LogFileWay, ReplaceError, TEMPORARY_PREFIX,
    replace_file,
};
use internal_key::{KeyspaceId, Level, SegmentId, TableId};
use lock_meter::{Condvar, Mutex, MutexGuard, wait};
use xxhash_rust::xxh3::xxh3_64;

use crate::edit_file::{Chain, EDIT_FILE_BYTES_MAX, encode_line};
use crate::global::{self, EditFile, LevelFile, MigratedFrom};
use crate::level::{self, LevelIdentity};
use crate::load::{self, Loaded};
use crate::paths::{
    GLOBAL_NAME, KEYSPACES_NAME, LOG_NAME, TABLES_NAME, parse_edits_name, parse_keyspace_name, parse_level_name,
};
use crate::{
    Change, CommitError, DatabaseId, DatabasePaths, Edit, FailureCause, LogFloor, Manifest, ManifestError, OpenMode,
    migrate,
};

/// When edits go to the edit file (M3), and how long that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestOptions {
    /// What an edit may cost whatever its job's size, in bytes.
    pub edit_bytes_free: u64,
    /// An edit may cost its job's bytes divided by this.
    pub job_bytes_divisor: u64,
    /// The least length of an edit file in bytes; at most [`EDIT_FILE_BYTES_MAX`].
    pub edit_file_bytes_min: u64,
}

impl Default for ManifestOptions {
    /// 4 KiB, 1 %, 64 KiB.
    fn default() -> Self {
        Self { edit_bytes_free: 4 << 10, job_bytes_divisor: 100, edit_file_bytes_min: 64 << 10 }
    }
}

/// What commits have cost since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitMetrics {
    /// Passes that reached their commit point.
    pub passes: u64,
    /// Edits committed by them.
    pub edits: u64,
    /// Edits refused.
    pub refused: u64,
    /// Passes abandoned with a certain error.
    pub abandoned: u64,
    /// Passes that appended a line to the edit file.
    pub lines: u64,
    /// Edit files begun.
    pub edit_files: u64,
    /// Edit files folded into JSON files.
    pub folds: u64,
    /// What all passes cost, abandoned ones included.
    pub total: PassCost,
    /// What the latest pass cost.
    pub last: PassCost,
}

/// What one pass cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PassCost {
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Bytes written to files.
    pub bytes: u64,
}

/// A file that the current manifest names, and what it says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Its path.
    pub path: PathBuf,
    /// What it is.
    pub kind: NamedFileKind,
    /// Its length in bytes, where the manifest says one.
    pub bytes: Option<u64>,
    /// xxh3 of its bytes, where the manifest says one.
    pub checksum: Option<u64>,
}

/// What a named file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamedFileKind {
    /// `global.json`; names itself.
    Global,
    /// A level file.
    Level(KeyspaceId, Level),
    /// The edit file.
    Edits,
    /// A table.
    Table(KeyspaceId, TableId),
    /// The segment that replay begins with; the log names the others (L5).
    FloorSegment(SegmentId),
}

/// The manifest of one database, open.
///
/// Any number of threads may call any method at any time. [`current`](Self::current) takes no lock.
pub struct ManifestStore {
    env: Environment,
    paths: DatabasePaths,
    mode: OpenMode,
    options: ManifestOptions,
    /// Written by the leader while it holds `disk`.
    current: ArcSwap<Manifest>,
    /// Taken before no other lock, and never while `disk` is wanted. Also after its holder died: the store has failed then
    /// and says so.
    queue: Mutex<Queue>,
    /// Told when answers have arrived or nobody leads any more; belongs to `queue`.
    answered: Condvar,
    /// Held by the leader through a pass, I/O included.
    disk: Mutex<Disk>,
    /// Innermost.
    metrics: Mutex<CommitMetrics>,
}

/// Who waits, who leads, what was answered.
#[derive(Default)]
struct Queue {
    waiting: Vec<(u64, Request)>,
    answers: HashMap<u64, Result<Arc<Manifest>, CommitError>>,
    next_ticket: u64,
    leading: bool,
    failed: Option<Arc<FailureCause>>,
}

enum Request {
    Edit(Edit),
    Anew,
}

/// What stands on the disk.
struct Disk {
    /// What the JSON files say: the current value, unless there is an edit file.
    base: Arc<Manifest>,
    levels: BTreeMap<(KeyspaceId, Level), LevelFile>,
    global_bytes: u64,
    edits: Option<OpenEdits>,
    migrated_from: Option<MigratedFrom>,
    /// Above every generation that named a file, abandoned ones included: an abandoned file's name is never used again.
    next_generation: u64,
    obsolete: Vec<Obsolete>,
    /// Whether this process has made the state durable, so that what it replaced may go (M2).
    settled: bool,
}

struct OpenEdits {
    file: EditFile,
    chain: Chain,
    /// `None` if another process wrote the lines: a file whose last sync may have failed is never appended to.
    log: Option<Arc<dyn LogFile>>,
}

/// A path that nothing durable names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Obsolete {
    File(PathBuf),
    /// Removed if it is empty.
    Directory(PathBuf),
}

/// A failed step, before or after the commit point.
enum StepError {
    Certain(FileError),
    Uncertain(FileError),
}

impl From<FileError> for StepError {
    fn from(error: FileError) -> Self {
        Self::Certain(error)
    }
}

impl ManifestStore {
    /// Creates a database in `dir` (made if it does not exist, its parent must), with what `first` says in it.
    ///
    /// May be interrupted anywhere and called again (M6). When it returns, the directory, its subdirectories and
    /// `global.json` are durable. Costs four to five syncs.
    ///
    /// # Errors
    /// - [`ManifestError::Exists`]: a database stands here, of this layout or the former.
    /// - [`ManifestError::Lost`]: one stood here and its `global.json` is gone.
    /// - [`ManifestError::Foreign`]: the directory holds something else.
    /// - [`ManifestError::Io`], [`ManifestError::Commit`]: the system failed, or `first` does not fit an empty manifest.
    pub fn create(
        env: &Environment,
        dir: impl Into<PathBuf>,
        options: ManifestOptions,
        first: &Edit,
    ) -> Result<Self, ManifestError> {
        let paths = DatabasePaths::new(dir);
        refuse_existing(env, &paths)?;
        make_directories(env, &paths)?;
        let random = || u128::from(env.randomness.next_u64());
        let database_id = DatabaseId(random() << 64 | random());
        let empty = Arc::new(Manifest::empty(database_id));
        let store = Self::new(env, paths, OpenMode::ReadWrite, options, Disk::new(empty, None));
        store.submit(Request::Edit(first.clone()))?;
        Ok(store)
    }

    /// Whether a database could be created in `dir`: nothing is there, or only what an interrupted creation leaves (M6).
    /// Reads names, writes nothing; a directory that does not exist is vacant.
    ///
    /// # Errors
    /// - [`ManifestError::Exists`]: a database, of this or the former layout.
    /// - [`ManifestError::Lost`]: a database was here and its `global.json` is gone.
    /// - [`ManifestError::Foreign`]: the directory holds something else.
    /// - [`ManifestError::Io`]: the system failed; trying again may succeed.
    pub fn check_vacant(env: &Environment, dir: impl Into<PathBuf>) -> Result<(), ManifestError> {
        refuse_existing(env, &DatabasePaths::new(dir))
    }

    /// Opens the database in `dir`. A database of the former layout is migrated if `mode` allows (M4).
    ///
    /// Verifies the checksum of every file of the manifest; that tables and segments exist is the caller's to check
    /// ([`named_files`](Self::named_files)). Removes nothing: see [`remove_leftovers`](Self::remove_leftovers).
    ///
    /// # Errors
    /// - [`ManifestError::NotFound`]: nothing is here; [`create`](Self::create) may be called.
    /// - [`ManifestError::Lost`]: a database was here and its `global.json` is gone.
    /// - [`ManifestError::Decode`], [`ManifestError::Missing`]: a file of the manifest is damaged, unknown or gone.
    /// - [`ManifestError::Conflict`], [`ManifestError::MigrationNeeded`]: about the former layout.
    /// - [`ManifestError::Io`]: the system failed; trying again may succeed.
    pub fn open(
        env: &Environment,
        dir: impl Into<PathBuf>,
        mode: OpenMode,
        options: ManifestOptions,
    ) -> Result<Self, ManifestError> {
        let paths = DatabasePaths::new(dir);
        let former = migrate::read_former(env, &paths)?;
        let Some((global, global_bytes)) = load::read_global(env, &paths, mode)? else {
            return match former {
                None => Err(load::nothing_here(env, &paths)?),
                Some(_) if mode == OpenMode::ReadOnly => Err(ManifestError::MigrationNeeded { file: paths.former() }),
                Some(former) => Self::migrate(env, paths, options, &former),
            };
        };
        let migrated_from = global.migrated_from;
        let loaded = load::read_named(env, &paths, global, global_bytes, None)?;
        let current = Arc::clone(&loaded.current);
        let store = Self::new(env, paths, mode, options, Disk::from_loaded(loaded));
        store.current.store(current);
        if let Some(former) = former {
            migrate::check(&store.paths, &former, migrated_from)?;
            if mode == OpenMode::ReadWrite {
                // An interrupted migration: global.json may not be durable yet, and must be before its source goes.
                store.commit_anew()?;
                migrate::finish(env, &store.paths, &former)?;
            }
        }
        Ok(store)
    }

    /// Gives the directory a manifest that says `manifest`, whatever stood there before: for repair, whose caller has
    /// found out what the database consists of and holds its lock. Files that the former manifest named and this one
    /// does not are [`leftovers`](Self::leftovers).
    ///
    /// Replaces `global.json` at once, as any commit does; its generation is above `manifest.generation`, which the
    /// caller sets to the largest that any file name shows.
    ///
    /// # Errors
    /// [`ManifestError::Io`]: the old or the new manifest stands; repair can be done again.
    pub fn rebuild(
        env: &Environment,
        dir: impl Into<PathBuf>,
        options: ManifestOptions,
        manifest: Manifest,
    ) -> Result<Self, ManifestError> {
        let paths = DatabasePaths::new(dir);
        make_directories(env, &paths)?;
        let empty = Arc::new(Manifest::empty(manifest.database_id));
        let store = Self::new(env, paths, OpenMode::ReadWrite, options, Disk::new(empty, None));
        {
            // Nobody else knows the store yet.
            let mut disk = store.disk();
            let mut cost = PassCost::default();
            store.write_json(&mut disk, manifest, &mut cost).map_err(|error| match error {
                StepError::Certain(error) | StepError::Uncertain(error) => error,
            })?;
        }
        Ok(store)
    }

    /// Makes a database of this layout out of a former manifest; the former one becomes a backup (M4).
    fn migrate(
        env: &Environment,
        paths: DatabasePaths,
        options: ManifestOptions,
        former: &[u8],
    ) -> Result<Self, ManifestError> {
        let random = || u128::from(env.randomness.next_u64());
        let migrated = migrate::decode(&paths.former(), former, DatabaseId(random() << 64 | random()))?;
        make_directories(env, &paths)?;
        let from = MigratedFrom { bytes: former.len() as u64, checksum: xxh3_64(former) };
        let empty = Arc::new(Manifest::empty(migrated.database_id));
        let store = Self::new(env, paths, OpenMode::ReadWrite, options, Disk::new(empty, Some(from)));
        {
            // Nobody else knows the store yet; the levels of an interrupted attempt may be replaced under their names.
            let mut disk = store.disk();
            let mut cost = PassCost::default();
            store.write_json(&mut disk, migrated, &mut cost).map_err(|error| match error {
                StepError::Certain(error) | StepError::Uncertain(error) => error,
            })?;
        }
        migrate::finish(env, &store.paths, former)?;
        Ok(store)
    }

    fn new(env: &Environment, paths: DatabasePaths, mode: OpenMode, options: ManifestOptions, disk: Disk) -> Self {
        Self {
            env: env.clone(),
            paths,
            mode,
            options,
            current: ArcSwap::new(Arc::clone(&disk.base)),
            queue: Mutex::default(),
            answered: Condvar::new(),
            disk: Mutex::new(disk),
            metrics: Mutex::default(),
        }
    }

    /// The manifest as of the latest commit. Takes no lock.
    pub fn current(&self) -> Arc<Manifest> {
        self.current.load_full()
    }

    /// Where the database's files lie.
    pub fn paths(&self) -> &DatabasePaths {
        &self.paths
    }

    /// What commits have cost.
    pub fn metrics(&self) -> CommitMetrics {
        *self.metrics.lock()
    }

    /// Why the store is failed, if it is.
    pub fn failed(&self) -> Option<Arc<FailureCause>> {
        self.queue.lock().failed.clone()
    }

    /// Whether this process has committed, so that what is current is known to be durable (M2).
    pub fn is_settled(&self) -> bool {
        self.disk().settled
    }

    /// Commits `edit` and returns the manifest that holds it (and whatever was committed with it).
    ///
    /// Sleeps while another thread's pass runs; then one of the waiting threads commits for all of them. When this
    /// returns, the edit is durable and [`current`](Self::current) shows it.
    ///
    /// # Errors
    /// - [`CommitError::Refused`]: the edit does not fit the manifest it met.
    /// - [`CommitError::Certain`]: nothing changed; the edit may be retried.
    /// - [`CommitError::Uncertain`]: the old or the new state is on disk; the store is failed (M7).
    /// - [`CommitError::Failed`]: the store was failed before.
    pub fn commit(&self, edit: Edit) -> Result<Arc<Manifest>, CommitError> {
        self.submit(Request::Edit(edit))
    }

    /// Commits the current state again, so that it is durable whatever the process before saw of it (M2), and folds an
    /// edit file into JSON files.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), except that it is never refused.
    pub fn commit_anew(&self) -> Result<Arc<Manifest>, CommitError> {
        self.submit(Request::Anew)
    }

    /// Every file that the current manifest names. Waits for a running pass.
    pub fn named_files(&self) -> Vec<NamedFile> {
        let disk = self.disk();
        let mut named = Vec::new();
        let mut name = |path, kind, bytes, checksum| named.push(NamedFile { path, kind, bytes, checksum });
        name(self.paths.global(), NamedFileKind::Global, Some(disk.global_bytes), None);
        for (&(keyspace, level), file) in &disk.levels {
            let path = self.paths.level(keyspace, level, file.generation);
            name(path, NamedFileKind::Level(keyspace, level), Some(file.bytes), Some(file.checksum));
        }
        if let Some(edits) = &disk.edits {
            let path = self.paths.edits(edits.file.generation);
            name(path, NamedFileKind::Edits, Some(edits.file.bytes), None);
        }
        let current = self.current();
        for keyspace in current.keyspaces.values() {
            for (_, _, table) in keyspace.tables() {
                let checksum = (table.checksum != 0).then_some(table.checksum);
                let kind = NamedFileKind::Table(keyspace.id, table.id);
                name(self.paths.table(table.id), kind, Some(table.bytes), checksum);
            }
        }
        if current.log_floor != LogFloor::default() {
            let segment = current.log_floor.segment;
            name(self.paths.segment(segment), NamedFileKind::FloorSegment(segment), None, None);
        }
        named
    }

    /// Which files of the manifest nobody names: temporary files, and level and edit files of states that were
    /// abandoned or replaced. Tables and segments are not among them. Waits for a running pass.
    ///
    /// # Errors
    /// If a directory could not be listed.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, FileError> {
        self.find_leftovers(&self.disk())
    }

    /// Removes the [`leftovers`](Self::leftovers), once opening has gone well, and returns how many. If this process
    /// has not committed yet, it commits anew first, because what is left over may be what a power cut brings back (M2).
    ///
    /// # Errors
    /// If committing, listing or removing failed. What was not removed is found again next time.
    pub fn remove_leftovers(&self) -> Result<usize, ManifestError> {
        if self.leftovers()?.is_empty() {
            return Ok(0);
        }
        if !self.is_settled() && !planted_faults::planted("manifest-leftovers-removed-before-commit") {
            self.commit_anew()?;
        }
        let disk = self.disk();
        if self.failed().is_some() {
            return Ok(0); // M7
        }
        let leftovers = self.find_leftovers(&disk)?;
        for file in &leftovers {
            remove(&self.env, file)?;
        }
        for entry in load::entries(&self.env, &self.paths.keyspaces_dir())? {
            let id = parse_keyspace_name(&entry.name);
            if entry.is_dir && id.is_some_and(|id| !disk.levels.keys().any(|(owner, _)| *owner == id)) {
                // Not empty if somebody put something there; then it stays.
                let _ = self.env.files.remove_dir(&self.paths.keyspaces_dir().join(entry.name));
            }
        }
        Ok(leftovers.len())
    }

    /// Removes the level and edit files that commits have replaced, and returns how many. A worker calls this now and
    /// then: commits leave the work to it. Does nothing once the store is failed (M7).
    ///
    /// # Errors
    /// If a file could not be removed; it and those after it are tried again next time.
    pub fn collect_obsolete(&self) -> Result<usize, FileError> {
        let mut disk = self.disk();
        if self.failed().is_some() {
            return Ok(0);
        }
        let obsolete = std::mem::take(&mut disk.obsolete);
        drop(disk);
        let mut removed = 0;
        for (index, path) in obsolete.iter().enumerate() {
            match path {
                Obsolete::File(file) => {
                    if let Err(error) = remove(&self.env, file) {
                        self.disk().obsolete.extend_from_slice(&obsolete[index..]);
                        return Err(error);
                    }
                    removed += 1;
                }
                Obsolete::Directory(dir) => drop(self.env.files.remove_dir(dir)),
            }
        }
        Ok(removed)
    }

    /// How many commits wait for the pass that runs now.
    #[doc(hidden)]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
    }

    /// Queues `request` and waits until somebody, perhaps this thread, has answered it.
    fn submit(&self, request: Request) -> Result<Arc<Manifest>, CommitError> {
        if self.mode == OpenMode::ReadOnly {
            return Err(CommitError::ReadOnly);
        }
        let mut queue = self.queue.lock();
        if let Some(cause) = &queue.failed {
            return Err(CommitError::Failed(Arc::clone(cause)));
        }
        let ticket = queue.next_ticket;
        queue.next_ticket += 1;
        queue.waiting.push((ticket, request));
        loop {
            if let Some(answer) = queue.answers.remove(&ticket) {
                return answer;
            }
            if queue.leading {
                queue = wait(&self.answered, queue);
                continue;
            }
            queue.leading = true;
            let group = std::mem::take(&mut queue.waiting);
            drop(queue);
            let mut lead = Lead { store: self, tickets: group.iter().map(|(ticket, _)| *ticket).collect() };
            let answers = self.pass(group);
            lead.tickets.clear();
            queue = self.queue.lock();
            queue.answers.extend(answers);
            drop(lead_ended(lead, &mut queue));
        }
    }

    /// Commits what fits of `group` in one go.
    fn pass(&self, group: Vec<(u64, Request)>) -> Vec<(u64, Result<Arc<Manifest>, CommitError>)> {
        let mut disk = self.disk();
        let mut working = self.current();
        let mut answers = Vec::with_capacity(group.len());
        let mut accepted = Vec::with_capacity(group.len());
        let mut edits: Vec<&Edit> = Vec::with_capacity(group.len());
        let mut anew = false;
        let mut refused = 0;
        for (ticket, request) in &group {
            match request {
                Request::Anew => {
                    anew = true;
                    Arc::make_mut(&mut working).closed_cleanly = false;
                    accepted.push(*ticket);
                }
                Request::Edit(edit) => match working.apply(edit) {
                    Ok(next) => {
                        working = Arc::new(next);
                        accepted.push(*ticket);
                        edits.push(edit);
                    }
                    Err(refusal) => {
                        refused += 1;
                        answers.push((*ticket, Err(CommitError::Refused(refusal))));
                    }
                },
            }
        }
        let mut cost = PassCost::default();
        let committed = match accepted.is_empty() {
            true => Ok(()),
            false => self.write(&mut disk, Arc::unwrap_or_clone(working), &edits, anew, &mut cost),
        };
        let answer = match committed {
            Ok(()) => Ok(self.current()),
            Err(StepError::Certain(error)) => {
                tracing::warn!(%error, "manifest commit abandoned");
                Err(CommitError::Certain(Arc::new(error)))
            }
            Err(StepError::Uncertain(error)) => {
                tracing::error!(%error, "manifest commit outcome unknown: no more commits");
                let error = Arc::new(error);
                // Before the answers: who is answered `Uncertain` finds the store failed.
                self.queue.lock().failed = Some(Arc::new(FailureCause::Uncertain(Arc::clone(&error))));
                Err(CommitError::Uncertain(error))
            }
        };
        let mut metrics = self.metrics.lock();
        metrics.refused += refused;
        if !accepted.is_empty() {
            metrics.total.syncs += cost.syncs;
            metrics.total.bytes += cost.bytes;
            metrics.last = cost;
            match answer {
                Ok(_) => {
                    metrics.passes += 1;
                    metrics.edits += edits.len() as u64;
                }
                Err(_) => metrics.abandoned += 1,
            }
        }
        drop(metrics);
        answers.extend(accepted.into_iter().map(|ticket| (ticket, answer.clone())));
        answers
    }

    /// Makes `working` durable, as a line or as JSON files, whichever M3 asks for, and publishes it.
    fn write(
        &self,
        disk: &mut Disk,
        working: Manifest,
        edits: &[&Edit],
        anew: bool,
        cost: &mut PassCost,
    ) -> Result<(), StepError> {
        let appendable = disk.edits.as_ref().is_some_and(|edits| edits.log.is_some());
        // Damage at the end of an edit file looks like a torn line, so that one that nobody will append to any more
        // is not left behind. The next process would fold it with its first commit anyway.
        if anew || working.closed_cleanly || (disk.edits.is_some() && !appendable) {
            return self.write_json(disk, working, cost);
        }
        if disk.edits.is_none() {
            let budget: u64 = edits.iter().map(|edit| self.budget(edit)).sum();
            if self.json_cost(disk, &working) <= budget {
                return self.write_json(disk, working, cost);
            }
            self.begin_edit_file(disk, cost)?;
        }
        self.append_line(disk, working, edits, cost)
    }

    /// What an edit may cost (M3).
    fn budget(&self, edit: &Edit) -> u64 {
        let job_bytes: u64 = edit
            .changes
            .iter()
            .map(|change| match change {
                Change::ReplaceTables { added, .. } => added.iter().map(|added| added.table.bytes).sum(),
                _ => 0_u64,
            })
            .fold(0, u64::saturating_add);
        (job_bytes / self.options.job_bytes_divisor.max(1)).max(self.options.edit_bytes_free)
    }

    /// About what writing `working` as JSON files would cost: from the lengths of what it replaces, not by encoding.
    fn json_cost(&self, disk: &Disk, working: &Manifest) -> u64 {
        let levels = load::changed_levels(&disk.base, working);
        let levels = levels.into_iter().map(|(keyspace, level)| {
            let tables: usize = working.keyspaces[&keyspace].levels[level.index()]
                .runs
                .iter()
                .map(|run| {
                    run.tables.iter().map(|table| 300 + table.min_key.len() + table.max_key.len()).sum::<usize>()
                })
                .sum();
            tables as u64
        });
        disk.global_bytes + levels.sum::<u64>()
    }

    /// M1: level files, then `global.json`, then the value. Folds an edit file, if there is one.
    fn write_json(&self, disk: &mut Disk, mut working: Manifest, cost: &mut PassCost) -> Result<(), StepError> {
        let generation = disk.next_generation.max(working.generation.saturating_add(1));
        disk.next_generation = generation.saturating_add(1);
        working.generation = generation;

        let changed = load::changed_levels(&disk.base, &working);
        let mut levels = disk.levels.clone();
        levels.retain(|(keyspace, _), _| working.keyspaces.contains_key(keyspace));
        let mut files = Vec::new();
        for &(keyspace, level) in &changed {
            let identity = LevelIdentity { database_id: working.database_id, keyspace, level, generation };
            let Some(state) = working.keyspaces.get_mut(&keyspace).map(Arc::make_mut) else { continue };
            let state = Arc::make_mut(&mut state.levels[level.index()]);
            if state.runs.is_empty() {
                (state.generation, state.checksum) = (0, 0);
                levels.remove(&(keyspace, level));
                continue;
            }
            let bytes = level::encode(identity, &state.runs);
            (state.generation, state.checksum) = (generation, xxh3_64(&bytes));
            let file = LevelFile { generation, bytes: bytes.len() as u64, checksum: state.checksum };
            levels.insert((keyspace, level), file);
            files.push((keyspace, self.paths.level(keyspace, level, generation), bytes));
        }
        let global = global::encode(&working, &levels, None, disk.migrated_from);

        // Until the rename of global.json nothing names these: abandoned, they are obsolete.
        if let Err(error) = self.write_level_files(disk, &files, cost) {
            disk.obsolete.extend(files.into_iter().map(|(_, path, _)| Obsolete::File(path)));
            return Err(error.into());
        }
        self.replace_global(&global, cost).inspect_err(|error| {
            if matches!(error, StepError::Certain(_)) {
                disk.obsolete.extend(files.iter().map(|(_, path, _)| Obsolete::File(path.clone())));
            }
        })?;

        self.retire(disk, &levels, &working);
        if disk.edits.take().is_some() {
            self.metrics.lock().folds += 1;
        }
        disk.levels = levels;
        disk.global_bytes = global.len() as u64;
        disk.base = Arc::new(working);
        disk.settled = true;
        self.current.store(Arc::clone(&disk.base)); // M5
        Ok(())
    }

    /// Writes level files and makes their names durable.
    fn write_level_files(
        &self,
        disk: &Disk,
        files: &[(KeyspaceId, PathBuf, Vec<u8>)],
        cost: &mut PassCost,
    ) -> Result<(), FileError> {
        let keyspaces: BTreeSet<KeyspaceId> = files.iter().map(|(keyspace, ..)| *keyspace).collect();
        let mut new_directory = false;
        for &keyspace in &keyspaces {
            // A keyspace without level files may have no directory, or one whose entry never became durable (M6).
            if disk.levels.range((keyspace, Level::ZERO)..=(keyspace, Level::LAST)).next().is_none() {
                self.env.files.create_dir(&self.paths.keyspace_dir(keyspace))?;
                new_directory = true;
            }
        }
        for (keyspace, path, bytes) in files {
            self.write_file(&self.paths.keyspace_dir(*keyspace), path, bytes, cost)?;
        }
        if !planted_faults::planted("manifest-level-directory-not-synced") {
            for &keyspace in &keyspaces {
                self.sync_dir(&self.paths.keyspace_dir(keyspace), cost)?;
            }
        }
        if new_directory && !planted_faults::planted("manifest-keyspace-directory-not-synced-in-its-parent") {
            self.sync_dir(&self.paths.keyspaces_dir(), cost)?;
        }
        Ok(())
    }

    /// The commit point: replaces `global.json`. Uncertain once the rename is done (M7).
    fn replace_global(&self, bytes: &[u8], cost: &mut PassCost) -> Result<(), StepError> {
        cost.bytes += bytes.len() as u64;
        cost.syncs += 2; // the file's and the directory's
        replace_file(&*self.env.files, self.paths.dir(), GLOBAL_NAME, bytes).map_err(|error| match error {
            ReplaceError::Uncertain(error) if !planted_faults::planted("manifest-uncertain-reported-as-certain") => {
                StepError::Uncertain(error)
            }
            ReplaceError::Uncertain(error) | ReplaceError::Certain(error) => StepError::Certain(error),
        })
    }

    fn write_file(&self, dir: &Path, path: &Path, bytes: &[u8], cost: &mut PassCost) -> Result<(), FileError> {
        let mut temporary = self.env.files.create_temporary(dir)?;
        temporary.append(bytes)?;
        cost.bytes += bytes.len() as u64;
        if !planted_faults::planted("manifest-renamed-before-sync") {
            cost.syncs += 1;
            temporary.sync()?;
        }
        temporary.persist(path)
    }

    fn sync_dir(&self, dir: &Path, cost: &mut PassCost) -> Result<(), FileError> {
        cost.syncs += 1;
        self.env.files.sync_dir(dir)
    }

    /// Takes note of what the JSON files about to be current replace.
    fn retire(&self, disk: &mut Disk, levels: &BTreeMap<(KeyspaceId, Level), LevelFile>, working: &Manifest) {
        let mut dropped = BTreeSet::new();
        for (&(keyspace, level), file) in &disk.levels {
            if levels.get(&(keyspace, level)) != Some(file) {
                disk.obsolete.push(Obsolete::File(self.paths.level(keyspace, level, file.generation)));
            }
            if !working.keyspaces.contains_key(&keyspace) {
                dropped.insert(keyspace);
            }
        }
        disk.obsolete.extend(dropped.into_iter().map(|id| Obsolete::Directory(self.paths.keyspace_dir(id))));
        if let Some(edits) = &disk.edits {
            disk.obsolete.push(Obsolete::File(self.paths.edits(edits.file.generation)));
        }
    }

    /// Names an empty edit file in `global.json`, which says otherwise what it said before.
    fn begin_edit_file(&self, disk: &mut Disk, cost: &mut PassCost) -> Result<(), StepError> {
        let generation = disk.next_generation.max(disk.base.generation.saturating_add(1));
        disk.next_generation = generation.saturating_add(1);
        // As long as what folding it will write at most, so that folding doubles the cost of a line at most.
        let foldable: u64 = 2 * disk.global_bytes + disk.levels.values().map(|file| file.bytes).sum::<u64>();
        let bytes = foldable.max(self.options.edit_file_bytes_min).min(EDIT_FILE_BYTES_MAX).next_multiple_of(512);
        let file = EditFile { generation, bytes, salt: self.env.randomness.next_u64() };
        let path = self.paths.edits(generation);
        // Left by a process that died before it was named.
        if self.env.files.exists(&path)? {
            self.env.files.remove_file(&path)?;
        }
        let named = |disk: &mut Disk, cost: &mut PassCost| {
            let log = self.env.files.create_log(&path, bytes, LogFileWay::Written)?;
            cost.syncs += 1;
            if !planted_faults::planted("manifest-edit-file-not-synced") {
                log.sync()?;
            }
            if !planted_faults::planted("manifest-edit-file-name-not-synced") {
                self.sync_dir(self.paths.dir(), cost)?;
            }
            let base = Manifest { generation, ..Manifest::clone(&disk.base) };
            let global = global::encode(&base, &disk.levels, Some(file), disk.migrated_from);
            self.replace_global(&global, cost)?;
            Ok((log, base, global.len() as u64))
        };
        match named(disk, cost) {
            Ok((log, base, global_bytes)) => {
                disk.base = Arc::new(base);
                disk.global_bytes = global_bytes;
                disk.edits = Some(OpenEdits { file, chain: Chain::new(file.salt), log: Some(log) });
                disk.settled = true;
                self.metrics.lock().edit_files += 1;
                Ok(())
            }
            Err(error) => {
                if matches!(error, StepError::Certain(_)) {
                    disk.obsolete.push(Obsolete::File(path));
                }
                Err(error)
            }
        }
    }

    /// M3: the store and sync of one line is the commit point. If the line does not fit, the file is folded.
    fn append_line(
        &self,
        disk: &mut Disk,
        mut working: Manifest,
        edits: &[&Edit],
        cost: &mut PassCost,
    ) -> Result<(), StepError> {
        let open = disk.edits.as_mut().filter(|open| open.log.is_some());
        let Some((open, log)) = open.and_then(|open| open.log.clone().map(|log| (open, log))) else {
            return self.write_json(disk, working, cost);
        };
        let (line, chain) = encode_line(open.chain, edits);
        if chain.offset > open.file.bytes {
            return self.write_json(disk, working, cost);
        }
        let offset = open.chain.offset;
        // From here on the line may be on disk (M7).
        log.store(offset, &line).map_err(StepError::Uncertain)?;
        cost.bytes += line.len() as u64;
        if !planted_faults::planted("manifest-edit-line-not-synced") {
            cost.syncs += 1;
            log.sync().map_err(StepError::Uncertain)?;
        }
        open.chain = chain;
        // What replaying the line will make of it.
        working.generation = disk.base.generation + chain.next - 1;
        disk.next_generation = disk.next_generation.max(working.generation + 1);
        self.current.store(Arc::new(working)); // M5
        self.metrics.lock().lines += 1;
        Ok(())
    }

    fn find_leftovers(&self, disk: &Disk) -> Result<Vec<PathBuf>, FileError> {
        let mut found = Vec::new();
        let temporary = |name: &str| name.starts_with(TEMPORARY_PREFIX);
        for entry in load::entries(&self.env, self.paths.dir())? {
            let named = disk.edits.as_ref().map(|edits| edits.file.generation);
            let unnamed = parse_edits_name(&entry.name).is_some_and(|generation| named != Some(generation));
            if !entry.is_dir && (temporary(&entry.name) || unnamed) {
                found.push(self.paths.dir().join(entry.name));
            }
        }
        for keyspace in load::entries(&self.env, &self.paths.keyspaces_dir())? {
            let path = self.paths.keyspaces_dir().join(&keyspace.name);
            if !keyspace.is_dir && temporary(&keyspace.name) {
                found.push(path);
                continue;
            }
            let Some(id) = parse_keyspace_name(&keyspace.name).filter(|_| keyspace.is_dir) else { continue };
            for entry in load::entries(&self.env, &path)? {
                let unnamed = parse_level_name(&entry.name).is_some_and(|(level, generation)| {
                    disk.levels.get(&(id, level)).is_none_or(|file| file.generation != generation)
                });
                if !entry.is_dir && (temporary(&entry.name) || unnamed) {
                    found.push(path.join(entry.name));
                }
            }
        }
        Ok(found)
    }
}

impl fmt::Debug for ManifestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestStore")
            .field("dir", &self.paths.dir())
            .field("mode", &self.mode)
            .field("generation", &self.current().generation)
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk that holds nothing yet.
    fn new(empty: Arc<Manifest>, migrated_from: Option<MigratedFrom>) -> Self {
        Self {
            base: empty,
            levels: BTreeMap::new(),
            global_bytes: 0,
            edits: None,
            migrated_from,
            next_generation: 1,
            obsolete: Vec::new(),
            settled: false,
        }
    }

    fn from_loaded(loaded: Loaded) -> Self {
        let Loaded { base, current, global, global_bytes, chain } = loaded;
        let edits = global.edits.zip(chain).map(|(file, chain)| OpenEdits { file, chain, log: None });
        Self {
            base,
            levels: global.levels,
            global_bytes,
            edits,
            migrated_from: global.migrated_from,
            next_generation: current.generation.saturating_add(1),
            obsolete: Vec::new(),
            settled: false,
        }
    }
}

/// Answers a group whose leader died, so that nobody waits for ever.
struct Lead<'a> {
    store: &'a ManifestStore,
    /// Whom the leader has not answered.
    tickets: Vec<u64>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if !self.tickets.is_empty() {
            let cause = Arc::new(FailureCause::Panicked);
            let mut queue = self.store.queue.lock();
            queue.failed.get_or_insert_with(|| Arc::clone(&cause));
            for ticket in self.tickets.drain(..) {
                queue.answers.insert(ticket, Err(CommitError::Failed(Arc::clone(&cause))));
            }
            end_lead(&mut queue);
            drop(queue);
            self.store.answered.notify_all();
        }
    }
}

/// Lets the next thread lead, or, if the store is failed, answers everyone who waits.
fn end_lead(queue: &mut Queue) {
    queue.leading = false;
    if let Some(cause) = queue.failed.clone() {
        for (ticket, _) in std::mem::take(&mut queue.waiting) {
            queue.answers.insert(ticket, Err(CommitError::Failed(Arc::clone(&cause))));
        }
    }
}

/// The leader has answered its group.
fn lead_ended<'a>(lead: Lead<'a>, queue: &mut Queue) -> Lead<'a> {
    end_lead(queue);
    lead.store.answered.notify_all();
    lead
}

/// Removes a file that may be gone already.
fn remove(env: &Environment, file: &Path) -> Result<(), FileError> {
    match env.files.remove_file(file) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// M6: a database is created only where none is, none was, and nothing else is.
fn refuse_existing(env: &Environment, paths: &DatabasePaths) -> Result<(), ManifestError> {
    let dir = paths.dir().to_owned();
    for evidence in [paths.global(), paths.former()] {
        if env.files.exists(&evidence)? {
            return Err(ManifestError::Exists { dir, evidence });
        }
    }
    if let Some(evidence) = load::evidence(env, paths)? {
        return Err(ManifestError::Lost { dir, evidence });
    }
    // What an interrupted creation leaves, who locks the directory, and what file systems and people's tools put
    // into every directory.
    let ours = [KEYSPACES_NAME, TABLES_NAME, LOG_NAME, LOCK_NAME, LOCK_INFO_NAME, "lost+found"];
    let foreign = |name: &str| !ours.contains(&name) && !name.starts_with('.');
    match load::entries(env, paths.dir())?.into_iter().find(|entry| foreign(&entry.name)) {
        Some(entry) => Err(ManifestError::Foreign { dir, entry: entry.name }),
        None => Ok(()),
    }
}

/// M6: makes the directories of a database and their entries durable, whatever an earlier attempt left.
fn make_directories(env: &Environment, paths: &DatabasePaths) -> Result<(), FileError> {
    let existed = env.files.exists(paths.dir())?;
    env.files.create_dir(paths.dir())?;
    if let Some(parent) =
        paths.parent().filter(|_| !planted_faults::planted("manifest-database-not-synced-in-its-parent"))
    {
        match env.files.sync_dir(parent) {
            // A parent that may be passed but not read: whoever made the directory there saw to its entry.
            Err(error) if existed && error.kind() == std::io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    for dir in [paths.tables_dir(), paths.log_dir(), paths.keyspaces_dir()] {
        env.files.create_dir(&dir)?;
    }
    if planted_faults::planted("manifest-subdirectories-not-synced") {
        return Ok(());
    }
    env.files.sync_dir(paths.dir())
}
