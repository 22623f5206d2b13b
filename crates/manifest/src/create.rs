//! How a store comes to be: a new database, one that stands, one of the former layout, one that repair has put together.
//!
//! - **M2** Opening removes nothing.
//! - **M4** A database of the former layout is migrated.
//! - **M6** Creation is repeatable; `global.json` is durable before anything else of the database exists.

use std::path::PathBuf;
use std::sync::Arc;

use file_system::{Environment, FileError, LOCK_INFO_NAME, LOCK_NAME};
use xxhash_rust::xxh3::xxh3_64;

use crate::commit::{PassCost, Request};
use crate::global::MigratedFrom;
use crate::paths::{KEYSPACES_NAME, LOG_NAME, TABLES_NAME};
use crate::store::{Disk, ManifestOptions, StepError};
use crate::{DatabaseId, DatabasePaths, Edit, Manifest, ManifestError, ManifestStore, OpenMode, load, migrate};

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
