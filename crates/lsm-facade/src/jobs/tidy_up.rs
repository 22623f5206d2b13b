//! What nobody uses any more goes: retired memory, tables that nobody holds and nothing names, replaced manifest files.
//!
//! - **R4** No read ever frees a memtable, unmaps or unlinks: the background does.
//! - **R5** A table's file goes when nobody holds it and the durable manifest does not name it.

use std::collections::BTreeSet;
use std::sync::{PoisonError, TryLockError};

use internal_key::{KeyspaceId, SeqNo, TableId};

use crate::core::Core;
use crate::events::Event;

impl Core {
    /// Frees what nobody uses any more, and returns whether there was anything.
    pub(crate) fn tidy_up(&self) -> bool {
        let _alone = self.tidying.lock().unwrap_or_else(PoisonError::into_inner);
        let freed = self.collect_retired();
        let forgot = self.forget_predecessors();
        let removed = self.remove_obsolete_tables();
        let replaced = match self.manifest.collect_obsolete() {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "replaced manifest files stay until the next opening");
                0
            }
        };
        freed || forgot || removed > 0 || replaced > 0
    }

    /// Frees retired memory, also that which only retired memory held, and returns whether there was any.
    pub(super) fn free_retired(&self) -> bool {
        let _alone = self.tidying.lock().unwrap_or_else(PoisonError::into_inner);
        self.collect_retired()
    }

    /// The same, unless somebody is about it: who looks for a job does not wait for that.
    pub(super) fn free_retired_unless_busy(&self) -> bool {
        match self.tidying.try_lock() {
            Err(TryLockError::WouldBlock) => false,
            Ok(_alone) => self.collect_retired(),
            Err(TryLockError::Poisoned(_)) => self.free_retired(),
        }
    }

    /// To be called while tidying.
    fn collect_retired(&self) -> bool {
        let mut found = false;
        while self.retired.collect() > 0 {
            found = true;
        }
        found
    }

    /// R4: lets go of what stood before clears and drops, as far as no snapshot needs it.
    pub(super) fn forget_predecessors(&self) -> bool {
        let mut restarted = self.restarted.lock();
        if restarted.is_empty() {
            return false;
        }
        let mut forgot = false;
        restarted.retain(|keyspace| {
            // Until the manifest holds the clear or drop, replay may still open the batch tables that stood before it.
            if keyspace.unfinished_operation(SeqNo::MAX).is_some() {
                return true;
            }
            let (floor, registered) = self.floor_and_registered(keyspace);
            forgot |= keyspace.history.forget_predecessors(floor, &registered);
            keyspace.history.current().predecessor().is_some()
        });
        forgot
    }

    /// R5: deletes the tables that nobody holds and the durable manifest does not name.
    fn remove_obsolete_tables(&self) -> usize {
        let gone = self.obsolete.collect(|| {
            let manifest = self.manifest.current();
            let named: BTreeSet<(KeyspaceId, TableId)> = manifest
                .keyspaces
                .values()
                .flat_map(|keyspace| keyspace.tables().map(|(_, _, table)| (keyspace.id, table.id)))
                .collect();
            move |keyspace, table| named.contains(&(keyspace, table))
        });
        for (_, table) in &gone {
            if self.remove_unnamed_table(*table) {
                self.tell(&Event::TableDeleted { table: table.get() });
            }
        }
        gone.len()
    }
}
