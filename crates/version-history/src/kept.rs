//! Which keyspaces hold something for snapshots alone, so that the drop of a snapshot gives them a look.
//!
//! ```text
//!   who looks at a keyspace               who drops a snapshot
//!   1. notes that it waits                1. unregisters its seqno: the handle's drop
//!   2. takes the registered seqnos        2. takes the notes above it, and has those keyspaces looked at
//! ```
//!
//! - **C2** What a snapshot kept is looked at when it has gone: either the look's step 2 finds the seqno gone, or the drop's
//!   step 2 finds the note. Both second steps would have to come before the other's first for neither to happen, and the
//!   registry's lock orders the drop's first against the look's second.

use std::collections::BTreeMap;

use internal_key::{KeyspaceId, SeqNo};

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Which keyspaces wait for snapshots to be dropped: below which seqno. One a database, beside its
/// [`SnapshotRegistry`](crate::SnapshotRegistry).
#[derive(Debug, Default)]
pub struct KeptForSnapshots {
    /// A leaf among the locks.
    notes: Mutex<BTreeMap<KeyspaceId, SeqNo>>,
    /// The largest of them, or zero, so that dropping a snapshot that nothing waits for takes no lock. Stored under the lock.
    /// Relaxed: the registry's lock lies between a note and the drop of a snapshot that the note is about.
    largest: AtomicU64,
}

impl KeptForSnapshots {
    /// Looks at a keyspace, in which something may have to be left for whoever reads `below` that seqno: notes that it
    /// waits, and only then calls `take`, which takes the registered seqnos from the registry. Returns what that returns.
    ///
    /// The note stays until a snapshot below it has gone, also if the look has left nothing: then it costs one look.
    pub fn look<T>(&self, keyspace: KeyspaceId, below: SeqNo, take: impl FnOnce() -> T) -> T {
        if planted_faults::planted("version-history-taken-before-noted") {
            let taken = take();
            self.note(keyspace, below);
            return taken;
        }
        self.note(keyspace, below);
        take()
    }

    /// Takes the keyspaces that have noted a seqno above `seqno`, ascending: they are to be looked at. Call it when a
    /// snapshot at `seqno` has been dropped.
    pub fn take_above(&self, seqno: SeqNo) -> Vec<KeyspaceId> {
        if self.largest.load(Ordering::Relaxed) <= seqno.get() {
            return Vec::new();
        }
        let mut notes = self.notes.lock();
        let taken = notes.iter().filter(|(_, below)| **below > seqno).map(|(id, _)| *id).collect();
        notes.retain(|_, below| *below <= seqno);
        self.store_largest(&notes);
        taken
    }

    /// What an earlier look has left may be there still, so the larger of both stays.
    fn note(&self, keyspace: KeyspaceId, below: SeqNo) {
        let mut notes = self.notes.lock();
        let noted = notes.entry(keyspace).or_default();
        *noted = below.max(*noted);
        self.store_largest(&notes);
    }

    fn store_largest(&self, notes: &BTreeMap<KeyspaceId, SeqNo>) {
        let largest = notes.values().max().map_or(0, |seqno| seqno.get());
        self.largest.store(largest, Ordering::Relaxed);
    }
}
