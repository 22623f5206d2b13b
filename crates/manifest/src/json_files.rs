//! Writing JSON files: level files, then `global.json`.
//!
//! - **M1** The order. Until `global.json` is replaced nothing names the new files.
//! - **M6** A keyspace's directory is made with its first level file.
//! - **M7** From the rename of `global.json` until its directory's sync has succeeded the outcome is unknown.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use file_system::{FileError, ReplaceError, replace_file};
use internal_key::Level;
use xxhash_rust::xxh3::xxh3_64;

use crate::commit::PassCost;
use crate::global::{self, LevelFile};
use crate::level::{self, LevelIdentity};
use crate::obsolete::Obsolete;
use crate::paths::GLOBAL_NAME;
use crate::store::{Disk, LevelFiles, StepError};
use crate::{Manifest, ManifestStore, load};

impl ManifestStore {
    /// M1: level files, then `global.json`, then the value. Folds an edit file, if there is one; then a fold that runs
    /// beside this has nothing left to do.
    pub(crate) fn write_json(
        &self,
        disk: &mut Disk,
        mut working: Manifest,
        cost: &mut PassCost,
    ) -> Result<(), StepError> {
        let generation = disk.next_generation.max(working.generation.saturating_add(1));
        disk.next_generation = generation.saturating_add(1);

        // Until the rename of global.json nothing names these: abandoned, they are obsolete.
        let mut made = Vec::new();
        let written = self.write_levels(&disk.base, &disk.levels, &mut working, generation, &mut made, cost);
        let replaced = written.map_err(StepError::Certain).and_then(|levels| {
            let global = global::encode(&working, &levels, None, disk.migrated_from);
            self.replace_global(&global, cost)?;
            Ok((levels, global.len() as u64))
        });
        let (levels, global_bytes) = replaced.inspect_err(|error| {
            if matches!(error, StepError::Certain(_)) {
                disk.obsolete.extend(made.drain(..).map(Obsolete::File));
            }
        })?;

        disk.obsolete.extend(self.replaced_levels(&disk.levels, &levels, &working));
        if let Some(edits) = disk.edits.take() {
            disk.obsolete.push(Obsolete::File(self.paths.edits(edits.file.generation)));
            self.metrics.lock().folds += 1;
        }
        disk.fold = None;
        self.fold_due.store(false, Ordering::Relaxed); // A hint.
        disk.levels = Arc::new(levels);
        disk.global_bytes = global_bytes;
        disk.base = Arc::new(working);
        disk.settled = true;
        self.current.store(Arc::clone(&disk.base)); // M5
        Ok(())
    }

    /// Writes each level in which `working` differs from `base` as a file of `generation`, which becomes `working`'s, and
    /// makes the names durable. Returns the files that then hold `working`, given that `levels` hold `base`.
    ///
    /// `made` receives the path of each file that may stand on the disk, also if this fails: no `global.json` names them
    /// yet.
    pub(crate) fn write_levels(
        &self,
        base: &Manifest,
        levels: &LevelFiles,
        working: &mut Manifest,
        generation: u64,
        made: &mut Vec<PathBuf>,
        cost: &mut PassCost,
    ) -> Result<LevelFiles, FileError> {
        working.generation = generation;
        let mut named = levels.clone();
        named.retain(|(keyspace, _), _| working.keyspaces.contains_key(keyspace));
        let (mut keyspaces, mut new_directory) = (BTreeSet::new(), false);
        for (keyspace, level) in load::changed_levels(base, working) {
            let identity = LevelIdentity { database_id: working.database_id, keyspace, level, generation };
            let Some(state) = working.keyspaces.get_mut(&keyspace).map(Arc::make_mut) else { continue };
            let state = Arc::make_mut(&mut state.levels[level.index()]);
            if state.runs.is_empty() {
                (state.generation, state.checksum) = (0, 0);
                named.remove(&(keyspace, level));
                continue;
            }
            let bytes = level::encode(identity, &state.runs);
            (state.generation, state.checksum) = (generation, xxh3_64(&bytes));
            let file = LevelFile { generation, bytes: bytes.len() as u64, checksum: state.checksum };
            named.insert((keyspace, level), file);
            let dir = self.paths.keyspace_dir(keyspace);
            // A keyspace without level files may have no directory, or one whose entry never became durable (M6).
            let has_files = levels.range((keyspace, Level::ZERO)..=(keyspace, Level::LAST)).next().is_some();
            if keyspaces.insert(keyspace) && !has_files {
                self.env.files.create_dir(&dir)?;
                new_directory = true;
            }
            let path = self.paths.level(keyspace, level, generation);
            made.push(path.clone());
            self.write_file(&dir, &path, &bytes, cost)?;
        }
        if !planted_faults::planted("manifest-level-directory-not-synced") {
            for &keyspace in &keyspaces {
                self.sync_dir(&self.paths.keyspace_dir(keyspace), cost)?;
            }
        }
        if new_directory && !planted_faults::planted("manifest-keyspace-directory-not-synced-in-its-parent") {
            self.sync_dir(&self.paths.keyspaces_dir(), cost)?;
        }
        Ok(named)
    }

    /// The commit point: replaces `global.json`. Uncertain once the rename is done (M7).
    pub(crate) fn replace_global(&self, bytes: &[u8], cost: &mut PassCost) -> Result<(), StepError> {
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

    pub(crate) fn sync_dir(&self, dir: &Path, cost: &mut PassCost) -> Result<(), FileError> {
        cost.syncs += 1;
        self.env.files.sync_dir(dir)
    }

    /// What `old` named and `new`, the files of `working`, do not.
    pub(crate) fn replaced_levels(&self, old: &LevelFiles, new: &LevelFiles, working: &Manifest) -> Vec<Obsolete> {
        let (mut replaced, mut dropped) = (Vec::new(), BTreeSet::new());
        for (&(keyspace, level), file) in old {
            if new.get(&(keyspace, level)) != Some(file) {
                replaced.push(Obsolete::File(self.paths.level(keyspace, level, file.generation)));
            }
            if !working.keyspaces.contains_key(&keyspace) {
                dropped.insert(keyspace);
            }
        }
        replaced.extend(dropped.into_iter().map(|id| Obsolete::Directory(self.paths.keyspace_dir(id))));
        replaced
    }
}
