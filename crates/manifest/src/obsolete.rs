//! Files of the manifest that nobody names any more: what commits replaced, and what a crash left.
//!
//! - **M2** Nothing is removed before this process has made the state durable anew.
//! - **M7** A failed store removes nothing.

use std::path::{Path, PathBuf};

use file_system::{Environment, FileError, TEMPORARY_PREFIX};

use crate::paths::{parse_edits_name, parse_keyspace_name, parse_level_name};
use crate::store::Disk;
use crate::{ManifestError, ManifestStore, load};

/// A path that nothing durable names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obsolete {
    File(PathBuf),
    /// Removed if it is empty.
    Directory(PathBuf),
}

impl ManifestStore {
    /// Which files of the manifest nobody names: temporary files, and level and edit files of states that were
    /// abandoned or replaced. Tables and segments are not among them, nor what a running fold makes. Waits for a running
    /// pass.
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
            // A fold that runs may have made one, and be about to put a file there.
            if entry.is_dir
                && disk.fold.is_none()
                && id.is_some_and(|id| !disk.levels.keys().any(|(owner, _)| *owner == id))
            {
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

    fn find_leftovers(&self, disk: &Disk) -> Result<Vec<PathBuf>, FileError> {
        let mut found = Vec::new();
        // A fold that runs has temporary files, and files of its generation that nothing names yet.
        let folding = disk.fold.as_ref().map(|tail| tail.generation);
        let temporary = |name: &str| folding.is_none() && name.starts_with(TEMPORARY_PREFIX);
        let edits = disk.edits.as_ref().map(|edits| edits.file.generation);
        for entry in load::entries(&self.env, self.paths.dir())? {
            let unnamed = parse_edits_name(&entry.name).is_some_and(|it| ![edits, folding].contains(&Some(it)));
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
                    let named = disk.levels.get(&(id, level)).map(|file| file.generation);
                    ![named, folding].contains(&Some(generation))
                });
                if !entry.is_dir && (temporary(&entry.name) || unnamed) {
                    found.push(path.join(entry.name));
                }
            }
        }
        Ok(found)
    }
}

/// Removes a file that may be gone already.
fn remove(env: &Environment, file: &Path) -> Result<(), FileError> {
    match env.files.remove_file(file) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
