//! Folding the edit file into JSON files beside the commits: where that takes long, nobody waits for it.
//!
//! ```text
//!  begin    disk held   1  what is current is the snapshot; from here on each line is kept as well, as the tail
//!  write    nothing     2  level files of the snapshot       temporary → sync → rename → sync directories
//!           held        3  the next edit file, empty         create → sync → sync directory
//!                       4  the next global.json names both   temporary → sync
//!  install  disk held   5  the tail, in the next edit file   store → sync
//!                       6  global.json                       rename ═ the commit point → sync directory
//!                       7  the value in memory; what was replaced is obsolete
//! ```
//!
//! Lines go to the edit file that stands until 6, and are acknowledged by its syncs.
//!
//! - **M1** Until 6 the `global.json` that stands names none of the new files, and the files that it names are all there:
//!   a crash finds the old JSON files and every acknowledged line. From 6 on it finds the snapshot and, in the next edit
//!   file, every line since: the same state. The new files are durable, names too, before the rename.
//! - **M2** What 6 replaces is removed after its directory's sync, by `collect_obsolete`, never here.
//! - **M3** No line is acknowledged between 5 and 7: `disk` is held. That, two syncs and a rename, is what a commit may
//!   wait for.
//! - **M5** Lines keep their boundaries, one each for the passes that wrote them, so that the generation goes on rising by
//!   one a line, from the fold's own, which is above all before. A follower goes from the old state to the new, or finds a
//!   file gone and reads `global.json` again.
//! - **M7** A failure before 6 is certain, and the fold is as if it had not been. If the sync after the rename fails the
//!   store is failed: both states are the same, but a line appended to either file might be in the other one's past.
//!
//! A pass that writes JSON files itself (a clean close, `commit_anew`, an edit file that was full too soon) takes the tail
//! away. Then the fold's files are obsolete and it ends without having done anything.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use file_system::{FileError, LogFile, TemporaryFile};

use crate::commit::PassCost;
use crate::edit_file::{Chain, encode_line};
use crate::global::{self, EditFile, MigratedFrom};
use crate::obsolete::Obsolete;
use crate::paths::GLOBAL_NAME;
use crate::store::{Disk, LevelFiles, OpenEdits};
use crate::{CommitError, Edit, FailureCause, Manifest, ManifestStore, OpenMode, load};

/// The lines that were appended since a fold began.
pub(crate) struct Tail {
    /// The fold's.
    pub(crate) generation: u64,
    /// Of each line its edits, in order.
    pub(crate) lines: Vec<Vec<Edit>>,
}

/// The edit file being folded, beside the commits. Dropped before it was installed, it is as if it had not been.
pub struct Fold<'a> {
    store: &'a ManifestStore,
    /// In the names of all files that this makes, and of `global.json` after it.
    generation: u64,
    /// What was current when it began.
    snapshot: Arc<Manifest>,
    /// What the JSON files said then, and which they were.
    base: Arc<Manifest>,
    levels: Arc<LevelFiles>,
    migrated_from: Option<MigratedFrom>,
    /// Files that nothing names yet.
    made: Vec<PathBuf>,
    written: Option<Written>,
    cost: PassCost,
}

/// What is ready to be named.
struct Written {
    folded: Manifest,
    levels: LevelFiles,
    file: EditFile,
    log: Arc<dyn LogFile>,
    global: Box<dyn TemporaryFile>,
    replaced: Vec<Obsolete>,
}

impl ManifestStore {
    /// Whether the edit file is so full that somebody should [`fold`](Self::fold) it: soon, or a commit will have to. Takes
    /// no lock.
    pub fn fold_is_due(&self) -> bool {
        // Relaxed: a hint; beginning a fold looks under the lock.
        self.fold_due.load(Ordering::Relaxed)
    }

    /// Folds the edit file into JSON files while commits go on, and returns whether it did: there may be nothing to fold,
    /// another fold may run, or a commit may have written JSON files meanwhile. A worker calls this when it
    /// [is due](Self::fold_is_due).
    ///
    /// # Errors
    /// - [`CommitError::Certain`]: nothing changed; it is due again with the next line.
    /// - [`CommitError::Uncertain`]: the old or the new files are named; the store is failed (M7).
    /// - [`CommitError::Failed`]: the store was failed before.
    pub fn fold(&self) -> Result<bool, CommitError> {
        let Some(mut fold) = self.begin_fold() else { return Ok(false) };
        fold.write()?;
        fold.install()
    }

    /// Step 1 of [`fold`](Self::fold): `None` if there is nothing to fold, or a fold runs.
    pub fn begin_fold(&self) -> Option<Fold<'_>> {
        if self.mode == OpenMode::ReadOnly || self.failed().is_some() {
            return None;
        }
        let mut disk = self.disk();
        self.fold_due.store(false, Ordering::Relaxed); // A hint, see `fold_is_due`.
        let lines = disk.edits.as_ref().is_some_and(|open| open.log.is_some() && open.chain.next > 1);
        if !lines || disk.fold.is_some() {
            return None;
        }
        let snapshot = self.current();
        let generation = disk.next_generation.max(snapshot.generation.saturating_add(1));
        disk.next_generation = generation.saturating_add(1);
        disk.fold = Some(Tail { generation, lines: Vec::new() });
        Some(Fold {
            store: self,
            generation,
            snapshot,
            base: Arc::clone(&disk.base),
            levels: Arc::clone(&disk.levels),
            migrated_from: disk.migrated_from,
            made: Vec::new(),
            written: None,
            cost: PassCost::default(),
        })
    }
}

impl Fold<'_> {
    /// Steps 2 to 4: writes everything that does not depend on the lines that come meanwhile. Holds no lock.
    ///
    /// # Errors
    /// [`CommitError::Certain`]: drop the fold, and nothing has changed.
    pub fn write(&mut self) -> Result<(), CommitError> {
        self.written = Some(self.write_files().map_err(certain)?);
        Ok(())
    }

    fn write_files(&mut self) -> Result<Written, FileError> {
        let (store, cost) = (self.store, &mut self.cost);
        let mut folded = Manifest::clone(&self.snapshot);
        let levels =
            store.write_levels(&self.base, &self.levels, &mut folded, self.generation, &mut self.made, cost)?;
        self.made.push(store.paths.edits(self.generation));
        // The length that is part of global.json must be known before it is written: its own is about what it was.
        let global_bytes = global::encode(&folded, &levels, None, self.migrated_from).len() as u64;
        let bytes = store.edit_file_bytes(global_bytes, &levels);
        let (file, log) = store.make_edit_file(self.generation, bytes, cost)?;
        let encoded = global::encode(&folded, &levels, Some(file), self.migrated_from);
        let mut global = store.env.files.create_temporary(store.paths.dir())?;
        self.made.push(global.path().to_owned());
        global.append(&encoded)?;
        cost.bytes += encoded.len() as u64;
        if !planted_faults::planted("manifest-folded-global-not-synced") {
            cost.syncs += 1;
            global.sync()?;
        }
        let replaced = store.replaced_levels(&self.levels, &levels, &folded);
        Ok(Written { folded, levels, file, log, global, replaced })
    }

    /// Steps 5 to 7: returns whether the JSON files were replaced, or a pass had done that meanwhile.
    ///
    /// # Errors
    /// As [`ManifestStore::fold`].
    ///
    /// # Panics
    /// If [`write`](Self::write) has not succeeded.
    pub fn install(mut self) -> Result<bool, CommitError> {
        let Written { folded, levels, file, log, global, replaced } = self.written.take().expect("M1: written before");
        let store = self.store;
        let mut disk = store.disk();
        if let Some(cause) = store.failed() {
            return Err(CommitError::Failed(cause));
        }
        let tail: &[Vec<Edit>] = match self.tail(&disk) {
            Some(tail) => &tail.lines,
            None if planted_faults::planted("manifest-overtaken-fold-installed") => &[],
            None => return Ok(false),
        };

        // 5
        let mut chain = Chain::new(file.salt);
        let mut lines = Vec::new();
        for edits in tail {
            let (line, next) = encode_line(chain, &edits.iter().collect::<Vec<_>>());
            lines.extend_from_slice(&line);
            chain = next;
        }
        if chain.offset > file.bytes {
            // So many lines came that they do not fit: what was written is old. With the next line a fold is due again.
            return Ok(false);
        }
        if !lines.is_empty() && !planted_faults::planted("manifest-fold-forgets-the-tail") {
            log.store(0, &lines).map_err(certain)?;
            self.cost.bytes += lines.len() as u64;
            if !planted_faults::planted("manifest-fold-tail-not-synced") {
                self.cost.syncs += 1;
                log.sync().map_err(certain)?;
            }
        }

        // 6
        let global_bytes = global.len();
        global.persist(&store.paths.dir().join(GLOBAL_NAME)).map_err(certain)?;
        // Gone before `disk` is given up: who takes it next finds the store failed.
        let _panics = FailsIfPanicking(store);
        self.cost.syncs += 1;
        if let Err(error) = store.env.files.sync_dir(store.paths.dir()) {
            tracing::error!(%error, "outcome of folding the manifest unknown: no more commits");
            let error = Arc::new(error);
            store.queue.lock().failed = Some(Arc::new(FailureCause::Uncertain(Arc::clone(&error))));
            return Err(CommitError::Uncertain(error));
        }

        // 7
        let generation = self.generation + chain.next - 1;
        let mut current = Manifest { generation, ..Manifest::clone(&store.current()) };
        self.adopt(&mut current, &folded);
        disk.obsolete.extend(replaced);
        if let Some(edits) = disk.edits.take() {
            disk.obsolete.push(Obsolete::File(store.paths.edits(edits.file.generation)));
        }
        disk.base = Arc::new(folded);
        disk.levels = Arc::new(levels);
        disk.global_bytes = global_bytes;
        disk.edits = Some(OpenEdits { file, chain, log: Some(log) });
        disk.fold = None;
        disk.next_generation = disk.next_generation.max(generation.saturating_add(1));
        store.current.store(Arc::new(current)); // M5
        self.made.clear();
        let mut metrics = store.metrics.lock();
        metrics.folds += 1;
        metrics.folds_beside += 1;
        metrics.edit_files += 1;
        Ok(true)
    }

    /// The lines that came since this began, unless a pass has written JSON files.
    fn tail<'d>(&self, disk: &'d Disk) -> Option<&'d Tail> {
        disk.fold.as_ref().filter(|tail| tail.generation == self.generation)
    }

    /// Makes `current` share with `folded` what it shared with the snapshot: what of it no line has changed since, and now
    /// has files.
    fn adopt(&self, current: &mut Manifest, folded: &Manifest) {
        for (keyspace, level) in load::changed_levels(&self.snapshot, folded) {
            let (Some(state), Some(was), Some(is)) = (
                current.keyspaces.get_mut(&keyspace),
                self.snapshot.keyspaces.get(&keyspace),
                folded.keyspaces.get(&keyspace),
            ) else {
                continue; // Dropped since.
            };
            let index = level.index();
            if Arc::ptr_eq(state, was) {
                *state = Arc::clone(is);
            } else if Arc::ptr_eq(&state.levels[index], &was.levels[index]) {
                Arc::make_mut(state).levels[index] = Arc::clone(&is.levels[index]);
            }
        }
    }
}

/// Stands between the rename and the value in memory, where a panic leaves the store without knowledge of its disk.
struct FailsIfPanicking<'a>(&'a ManifestStore);

impl Drop for FailsIfPanicking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.lock().failed.get_or_insert_with(|| Arc::new(FailureCause::Panicked));
        }
    }
}

impl Drop for Fold<'_> {
    fn drop(&mut self) {
        let store = self.store;
        let mut disk = store.disk();
        if self.tail(&disk).is_some() {
            disk.fold = None;
        }
        // Nothing is removed once the store is failed (M7), and what was installed is not among these.
        disk.obsolete.extend(self.made.drain(..).map(Obsolete::File));
        drop(disk);
        let mut metrics = store.metrics.lock();
        metrics.total.syncs += self.cost.syncs;
        metrics.total.bytes += self.cost.bytes;
    }
}

fn certain(error: FileError) -> CommitError {
    tracing::warn!(%error, "folding the manifest abandoned");
    CommitError::Certain(Arc::new(error))
}
