//! Following a database that another process writes: read-only, and never removes anything (M5).
//!
//! ```text
//!   global.json ─▶ new value, built aside ─▶ prepare (open every table) ─▶ one swap
//!        ▲                    │
//!        └── a file vanished ─┘   the writer has moved on: read global.json again
//! ```
//!
//! - **M5** Until the swap readers see the old value whole, after it the new one whole.
//!
//! A follower sees a commit when its rename (or its line) is there, which is shortly before it is durable.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use file_system::Environment;

use crate::load::{self, Loaded};
use crate::{DatabasePaths, Manifest, ManifestError, OpenMode};

/// How often a reload reads `global.json` again because a file it named had vanished.
const ATTEMPTS: usize = 16;

/// A manifest that another process writes.
pub struct FollowerStore {
    env: Environment,
    paths: DatabasePaths,
    current: ArcSwap<Manifest>,
    /// What the JSON files said at the last reload; held through a reload, so that one runs at a time.
    base: Mutex<Arc<Manifest>>,
}

impl FollowerStore {
    /// Opens the database in `dir` to follow it.
    ///
    /// # Errors
    /// As [`ManifestStore::open`](crate::ManifestStore::open) for reading only.
    pub fn open(env: &Environment, dir: impl Into<PathBuf>) -> Result<Self, ManifestError> {
        let paths = DatabasePaths::new(dir);
        let loaded = load_settled(env, &paths, None)?;
        let current = ArcSwap::new(loaded.current);
        Ok(Self { env: env.clone(), paths, current, base: Mutex::new(loaded.base) })
    }

    /// The manifest as of the latest reload. Takes no lock.
    pub fn current(&self) -> Arc<Manifest> {
        self.current.load_full()
    }

    /// Where the database's files lie.
    pub fn paths(&self) -> &DatabasePaths {
        &self.paths
    }

    /// Reads what the disk says now and swaps it in; returns it.
    ///
    /// # Errors
    /// As [`open`](Self::open); the value before stays current.
    pub fn reload(&self) -> Result<Arc<Manifest>, ManifestError> {
        self.reload_with(|_| Ok(()))
    }

    /// The same, calling `prepare` with the new value before the swap: to open every table it names, so that their
    /// files stay readable when the writer removes them. If a table has vanished, the writer has moved on: call again.
    ///
    /// Level files that have not changed are not read again.
    ///
    /// # Errors
    /// As [`open`](Self::open), and what `prepare` returns; the value before stays current.
    pub fn reload_with<E: From<ManifestError>>(
        &self,
        prepare: impl FnOnce(&Arc<Manifest>) -> Result<(), E>,
    ) -> Result<Arc<Manifest>, E> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = load_settled(&self.env, &self.paths, Some(&**base))?;
        prepare(&loaded.current)?;
        *base = loaded.base;
        self.current.store(Arc::clone(&loaded.current));
        Ok(loaded.current)
    }
}

impl fmt::Debug for FollowerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FollowerStore")
            .field("dir", &self.paths.dir())
            .field("generation", &self.current().generation)
            .finish_non_exhaustive()
    }
}

/// Loads, again if a named file vanished because the writer replaced `global.json` meanwhile.
fn load_settled(env: &Environment, paths: &DatabasePaths, known: Option<&Manifest>) -> Result<Loaded, ManifestError> {
    let mut vanished = None;
    for _ in 0..ATTEMPTS {
        let Some((global, bytes)) = load::read_global(env, paths, OpenMode::ReadOnly)? else {
            return Err(match env.files.exists(&paths.former())? {
                true => ManifestError::MigrationNeeded { file: paths.former() },
                false => load::nothing_here(env, paths)?,
            });
        };
        let generation = global.manifest.generation;
        if let Some((seen, error)) = vanished.take()
            && seen == generation
        {
            return Err(error); // Nobody moved on: the file is missing.
        }
        match load::read_named(env, paths, global, bytes, known) {
            Err(error @ ManifestError::Missing { .. }) => vanished = Some((generation, error)),
            other => return other,
        }
    }
    match vanished {
        Some((_, error)) => Err(error),
        None => unreachable!("the loop ends without a vanished file only by returning"),
    }
}
