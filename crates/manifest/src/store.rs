//! The manifest of one database, open: what is current, and what stands on the disk.
//!
//! ```text
//!   ManifestStore ┬ current ── the value: readers take no lock (M5)
//!                 ├ queue ──── who waits for a commit, who leads                                    see `commit`
//!                 └ disk ───── what the JSON files say, which they are, the edit file, what is obsolete
//! ```
//!
//! - **M5** The value is behind an atomic pointer.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use file_system::{Environment, FileError, LogFile};
use internal_key::{KeyspaceId, Level, SegmentId, TableId};
use lock_meter::{Condvar, Mutex, MutexGuard};

use crate::commit::Queue;
use crate::edit_file::Chain;
use crate::fold::Tail;
use crate::global::{EditFile, LevelFile, MigratedFrom};
use crate::load::Loaded;
use crate::obsolete::Obsolete;
use crate::{CommitMetrics, DatabasePaths, FailureCause, LogFloor, Manifest, OpenMode};

/// When edits go to the edit file (M3), and how long that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestOptions {
    /// What an edit may cost whatever its job's size, in bytes.
    pub edit_bytes_free: u64,
    /// An edit may cost its job's bytes divided by this.
    pub job_bytes_divisor: u64,
    /// The least length of an edit file in bytes; at most [`EDIT_FILE_BYTES_MAX`](crate::edit_file::EDIT_FILE_BYTES_MAX).
    pub edit_file_bytes_min: u64,
    /// The first commit after a process that died folds its edit file if no more levels than this have changed in it. Otherwise
    /// it goes on in a copy of it, and leaves the folding to [`ManifestStore::fold`].
    pub levels_folded_at_once_max: usize,
}

impl Default for ManifestOptions {
    /// 4 KiB, 1 %, 64 KiB, 64 levels.
    fn default() -> Self {
        Self {
            edit_bytes_free: 4 << 10,
            job_bytes_divisor: 100,
            edit_file_bytes_min: 64 << 10,
            levels_folded_at_once_max: 64,
        }
    }
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
    pub(crate) env: Environment,
    pub(crate) paths: DatabasePaths,
    pub(crate) mode: OpenMode,
    pub(crate) options: ManifestOptions,
    /// Written by who holds `disk`: the leader, or who installs a fold.
    pub(crate) current: ArcSwap<Manifest>,
    /// Taken before no other lock, and never while `disk` is wanted. Also after its holder died: the store has failed then
    /// and says so.
    pub(crate) queue: Mutex<Queue>,
    /// Told when answers have arrived or nobody leads any more; belongs to `queue`.
    pub(crate) answered: Condvar,
    /// Held by the leader through a pass, I/O included; by a fold while it begins and while it is installed.
    pub(crate) disk: Mutex<Disk>,
    /// Whether the edit file is so full that it should be folded. A hint, written by who holds `disk`.
    pub(crate) fold_due: AtomicBool,
    /// Innermost.
    pub(crate) metrics: Mutex<CommitMetrics>,
}

/// The level files that a `global.json` names.
pub(crate) type LevelFiles = BTreeMap<(KeyspaceId, Level), LevelFile>;

/// What stands on the disk.
pub(crate) struct Disk {
    /// What the JSON files say: the current value, unless there is an edit file.
    pub(crate) base: Arc<Manifest>,
    /// Which they are.
    pub(crate) levels: Arc<LevelFiles>,
    pub(crate) global_bytes: u64,
    pub(crate) edits: Option<OpenEdits>,
    /// The fold that runs, unless a pass has made it pointless.
    pub(crate) fold: Option<Tail>,
    pub(crate) migrated_from: Option<MigratedFrom>,
    /// Above every generation that named a file, abandoned ones included: an abandoned file's name is never used again.
    pub(crate) next_generation: u64,
    pub(crate) obsolete: Vec<Obsolete>,
    /// Whether this process has made the state durable, so that what it replaced may go (M2).
    pub(crate) settled: bool,
}

pub(crate) struct OpenEdits {
    pub(crate) file: EditFile,
    pub(crate) chain: Chain,
    /// `None` if another process wrote the lines: a file whose last sync may have failed is never appended to.
    pub(crate) log: Option<Arc<dyn LogFile>>,
}

/// A failed step, before or after the commit point.
pub(crate) enum StepError {
    Certain(FileError),
    Uncertain(FileError),
}

impl From<FileError> for StepError {
    fn from(error: FileError) -> Self {
        Self::Certain(error)
    }
}

impl ManifestStore {
    pub(crate) fn new(
        env: &Environment,
        paths: DatabasePaths,
        mode: OpenMode,
        options: ManifestOptions,
        disk: Disk,
    ) -> Self {
        Self {
            env: env.clone(),
            paths,
            mode,
            options,
            current: ArcSwap::new(Arc::clone(&disk.base)),
            queue: Mutex::default(),
            answered: Condvar::new(),
            disk: Mutex::new(disk),
            fold_due: AtomicBool::new(false),
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

    /// Every file that the current manifest names. Waits for a running pass.
    pub fn named_files(&self) -> Vec<NamedFile> {
        let disk = self.disk();
        let mut named = Vec::new();
        let mut name = |path, kind, bytes, checksum| named.push(NamedFile { path, kind, bytes, checksum });
        name(self.paths.global(), NamedFileKind::Global, Some(disk.global_bytes), None);
        for (&(keyspace, level), file) in &*disk.levels {
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

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
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
    pub(crate) fn new(empty: Arc<Manifest>, migrated_from: Option<MigratedFrom>) -> Self {
        Self {
            base: empty,
            levels: Arc::default(),
            global_bytes: 0,
            edits: None,
            fold: None,
            migrated_from,
            next_generation: 1,
            obsolete: Vec::new(),
            settled: false,
        }
    }

    pub(crate) fn from_loaded(loaded: Loaded) -> Self {
        let Loaded { base, current, global, global_bytes, chain } = loaded;
        let edits = global.edits.zip(chain).map(|(file, chain)| OpenEdits { file, chain, log: None });
        Self {
            base,
            levels: Arc::new(global.levels),
            global_bytes,
            edits,
            fold: None,
            migrated_from: global.migrated_from,
            next_generation: current.generation.saturating_add(1),
            obsolete: Vec::new(),
            settled: false,
        }
    }
}
