//! Tables that nobody holds any more, until nobody on disk names them either.
//!
//! ```text
//!   last holder drops ──▶ queued ──▶ collect: does the durable manifest name it?
//!                            ▲           ├── no  ──▶ returned, exactly once: the caller deletes the file
//!                            └── yes ────┘
//! ```
//!
//! - **R5** A file is deleted when its last holder has dropped it *and* a durable manifest no longer names it, exactly
//!   once.
//! - **M7** After an uncertain commit nothing is deleted until reopening: [`ObsoleteTables::freeze`].

use internal_key::{KeyspaceId, TableId};

use crate::DroppedTables;
use crate::sync::Mutex;

/// Collects dropped tables and tells which files may go. Does no I/O and calls nobody while it holds its lock.
///
/// Whoever makes a table holds a [`Table`](crate::Table) for it until the edit that names it has succeeded or was
/// abandoned; and one process makes one `Table` for each id. Then a queued table is never named by a later manifest than
/// one that names it now.
#[derive(Debug, Default)]
pub struct ObsoleteTables {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    dropped: Vec<(KeyspaceId, TableId)>,
    frozen: bool,
}

impl ObsoleteTables {
    /// Nothing is dropped yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those dropped tables that the durable manifest does not name, each returned exactly once; the others are kept
    /// for the next call. The caller deletes the files; if that fails, reopening finds them (M2).
    ///
    /// `durable_names` is called after the queue was taken, and returns whether the manifest that is durable *then*
    /// names a table. A manifest loaded before could be too old to know a table that was named and dropped since.
    pub fn collect<N>(&self, durable_names: impl FnOnce() -> N) -> Vec<(KeyspaceId, TableId)>
    where
        N: Fn(KeyspaceId, TableId) -> bool,
    {
        // Taking the queue makes two collectors share it out: no table is returned twice.
        let mut dropped = {
            let mut state = self.state.lock();
            if state.frozen {
                return Vec::new();
            }
            match planted_faults::planted("version-history-table-given-to-two-collectors") {
                true => state.dropped.clone(),
                false => std::mem::take(&mut state.dropped),
            }
        };
        if dropped.is_empty() {
            return dropped;
        }
        let named = durable_names();
        let mut kept = Vec::new();
        dropped.retain(|&(keyspace, table)| {
            let stays = named(keyspace, table) && !planted_faults::planted("version-history-named-table-deleted");
            if stays {
                kept.push((keyspace, table));
            }
            !stays
        });
        let mut state = self.state.lock();
        state.dropped.append(&mut kept);
        if state.frozen {
            // Frozen meanwhile: the manifest that was asked may not be the one on disk.
            state.dropped.append(&mut dropped);
        }
        dropped
    }

    /// From now on [`collect`](Self::collect) returns nothing: the outcome of a commit is unknown (M7).
    pub fn freeze(&self) {
        self.state.lock().frozen = true;
    }

    /// How many dropped tables wait for a manifest that does not name them.
    pub fn waiting(&self) -> usize {
        self.state.lock().dropped.len()
    }
}

impl DroppedTables for ObsoleteTables {
    fn table_dropped(&self, keyspace: KeyspaceId, table: TableId) {
        self.state.lock().dropped.push((keyspace, table));
    }
}
