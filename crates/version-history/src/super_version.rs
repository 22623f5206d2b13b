//! What a read of one keyspace looks through: memtables and tables, as an immutable value, and how the next one is made.
//!
//! ```text
//!   newest                                                                                        oldest
//!   active ─▶ sealed[0] ─▶ sealed[1] (a batch table) ─▶ sealed[2] ─▶ version (L0 … L6)
//!   └──────────────── seqnos at or above `start` ───────────────────┘
//!                 │ predecessor: what stood before a clear; reads below `start` follow the link
//!                 ▼
//!   active ─▶ sealed … ─▶ version
//! ```
//!
//! - **R2** A super version never changes; holding one keeps its memtables and tables. Every change makes a new one.
//! - **P4** The new active memtable stands in a published super version before anything is reserved in it.
//! - **P6** Memtables leave in the order in which they were sealed, and as their tables join.
//! - **P12** A clear starts anew at its own seqno and links what stood before; what an edit would replace must still be
//!   there, or the edit is refused.

use std::fmt;
use std::sync::Arc;

use internal_key::{Level, SeqNo, TableId};
use manifest::AddedTable;

use crate::{Table, Version, VersionRefusal};

/// Something between the active memtable and the tables: complete or soon to be, and no longer written to by new
/// reservations.
pub enum Sealed<M, S> {
    /// A memtable that was active until it was sealed.
    Memtable(Arc<M>),
    /// The table of a large batch, placed between two memtables by its reservation (P11).
    Batch(Arc<Table<S>>),
}

impl<M, S> Sealed<M, S> {
    /// Whether both are the same memtable or the same table, by identity.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Memtable(left), Self::Memtable(right)) => Arc::ptr_eq(left, right),
            (Self::Batch(left), Self::Batch(right)) => Arc::ptr_eq(left, right),
            _ => false,
        }
    }
}

impl<M, S> Clone for Sealed<M, S> {
    fn clone(&self) -> Self {
        match self {
            Self::Memtable(memtable) => Self::Memtable(Arc::clone(memtable)),
            Self::Batch(table) => Self::Batch(Arc::clone(table)),
        }
    }
}

impl<M: fmt::Display, S> fmt::Display for Sealed<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memtable(memtable) => write!(f, "sealed {memtable}"),
            Self::Batch(table) => write!(f, "batch {table}"),
        }
    }
}

/// Why a change does not fit the super version it met. Nothing was changed (P12).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstallRefusal {
    /// A flushed memtable or batch is not among the sealed ones: a clear came in between, or it was installed before.
    #[error("flushed memtable {index} of the job is no longer sealed in this keyspace")]
    SealedGone {
        /// Its index in what the flush offered.
        index: usize,
    },
    /// An older sealed memtable has not been installed yet (P6): try again after it has.
    #[error("{older} older sealed memtables are not installed yet")]
    OutOfOrder {
        /// How many older ones stand in the way.
        older: usize,
    },
    /// An input table has left its level.
    #[error(transparent)]
    Tables(#[from] VersionRefusal),
}

/// The memtables and tables of one keyspace at one moment. `M` is a memtable, `S` the owner's slot in each [`Table`].
///
/// Immutable and shared; every change is a function that returns the next one. None of them does I/O, each costs a few
/// allocations, so that all fit under the short lock of [`History`](crate::History).
pub struct SuperVersion<M, S> {
    active: Arc<M>,
    sealed: Vec<Sealed<M, S>>,
    version: Arc<Version<S>>,
    start: SeqNo,
    predecessor: Link<M, S>,
}

/// The way to a predecessor. Dropping the last way to a long chain drops it link by link, not link in link.
struct Link<M, S>(Option<Arc<SuperVersion<M, S>>>);

impl<M, S> Clone for Link<M, S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M, S> Drop for Link<M, S> {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut last) = next.and_then(Arc::into_inner) {
            next = last.predecessor.0.take();
        }
    }
}

impl<M, S> Clone for SuperVersion<M, S> {
    fn clone(&self) -> Self {
        Self {
            active: Arc::clone(&self.active),
            sealed: self.sealed.clone(),
            version: Arc::clone(&self.version),
            start: self.start,
            predecessor: self.predecessor.clone(),
        }
    }
}

impl<M, S> SuperVersion<M, S> {
    /// The first one of a keyspace: an active memtable over `version`, reaching back to the beginning.
    pub fn new(active: Arc<M>, version: Arc<Version<S>>) -> Self {
        Self { active, sealed: Vec::new(), version, start: SeqNo::ZERO, predecessor: Link(None) }
    }

    /// The memtable that takes new writes.
    #[inline]
    pub fn active(&self) -> &Arc<M> {
        &self.active
    }

    /// Sealed memtables and placed batches, newest first.
    #[inline]
    pub fn sealed(&self) -> &[Sealed<M, S>] {
        &self.sealed
    }

    /// The tables.
    #[inline]
    pub fn version(&self) -> &Arc<Version<S>> {
        &self.version
    }

    /// Reads below it belong to the predecessor (P12); zero for the first.
    #[inline]
    pub fn start(&self) -> SeqNo {
        self.start
    }

    /// What stood before [`start`](Self::start), while it is kept.
    pub fn predecessor(&self) -> Option<&Arc<Self>> {
        self.predecessor.0.as_ref()
    }

    /// The one that a read at `seqno` looks through: this one, or one of its predecessors. `None` if that one is no
    /// longer kept, which cannot happen to a registered seqno nor to one at or above the floor (R4).
    #[inline]
    pub fn for_seqno(&self, seqno: SeqNo) -> Option<&Self> {
        let mut candidate = self;
        while seqno < candidate.start {
            candidate = candidate.predecessor.0.as_deref()?;
        }
        Some(candidate)
    }

    /// The next one: `new_active` takes writes, the active memtable is sealed (P4).
    pub fn seal(&self, new_active: Arc<M>) -> Self {
        let mut sealed = Vec::with_capacity(self.sealed.len() + 1);
        sealed.push(Sealed::Memtable(Arc::clone(&self.active)));
        sealed.extend_from_slice(&self.sealed);
        Self { active: new_active, sealed, ..self.clone_frame() }
    }

    /// The next one: the active memtable is sealed, `batch` lies over it, and `new_active` takes writes (P11).
    pub fn seal_around_batch(&self, new_active: Arc<M>, batch: Arc<Table<S>>) -> Self {
        let mut sealed = Vec::with_capacity(self.sealed.len() + 2);
        sealed.push(Sealed::Batch(batch));
        sealed.push(Sealed::Memtable(Arc::clone(&self.active)));
        sealed.extend_from_slice(&self.sealed);
        Self { active: new_active, sealed, ..self.clone_frame() }
    }

    /// The next one after a flush: `flushed`, which must be the oldest of the sealed ones in any order, are gone, and
    /// the tables made of them have joined.
    ///
    /// # Errors
    /// - [`InstallRefusal::OutOfOrder`]: an older sealed memtable still waits (P6).
    /// - [`InstallRefusal::SealedGone`]: one of `flushed` is not sealed here any more (P12): abandon the flush.
    pub fn install_flush(
        &self,
        flushed: &[Sealed<M, S>],
        added: &[(AddedTable, Arc<Table<S>>)],
    ) -> Result<Self, InstallRefusal> {
        if let Some(index) = flushed.iter().position(|gone| !self.sealed.iter().any(|sealed| sealed.is(gone))) {
            return Err(InstallRefusal::SealedGone { index });
        }
        let kept: Vec<_> =
            self.sealed.iter().filter(|sealed| !flushed.iter().any(|gone| gone.is(sealed))).cloned().collect();
        let newest_flushed = self.sealed.iter().position(|sealed| flushed.iter().any(|gone| gone.is(sealed)));
        let older = kept.len() - newest_flushed.unwrap_or(kept.len());
        if older > 0 && !planted_faults::planted("version-history-flush-out-of-order") {
            return Err(InstallRefusal::OutOfOrder { older });
        }
        let version = Arc::new(self.version.replace(&[], added)?);
        Ok(Self { sealed: kept, version, ..self.clone_frame() })
    }

    /// The next one after a compaction or ingest: tables out, tables in.
    ///
    /// # Errors
    /// If an input is no longer where the edit says (P12): abandon the edit.
    pub fn replace_tables(
        &self,
        removed: &[(Level, TableId)],
        added: &[(AddedTable, Arc<Table<S>>)],
    ) -> Result<Self, VersionRefusal> {
        let version = Arc::new(self.version.replace(removed, added)?);
        Ok(Self { version, sealed: self.sealed.clone(), ..self.clone_frame() })
    }

    /// The next one after a clear or drop with the sequence number `at`: empty, starting at `at`, linked to this one,
    /// which reads below `at` still use (P12).
    ///
    /// # Panics
    /// If `at` is not above [`start`](Self::start): reservations come in seqno order (P1).
    pub fn restart(self: &Arc<Self>, new_active: Arc<M>, at: SeqNo) -> Self {
        assert!(at > self.start, "P1: a restart at {at} cannot follow one at {}", self.start);
        Self {
            active: new_active,
            sealed: Vec::new(),
            version: Arc::new(Version::default()),
            start: at,
            predecessor: Link(Some(Arc::clone(self))),
        }
    }

    /// The next one without those predecessors that nobody can read any more: every seqno that belongs to one is below
    /// `floor` and not in `registered` (ascending). `None` if all are needed, or there are none.
    ///
    /// Take both from [`SnapshotRegistry::floor_and_registered`](crate::SnapshotRegistry::floor_and_registered).
    pub fn without_unneeded_predecessors(&self, floor: SeqNo, registered: &[SeqNo]) -> Option<Self> {
        let mut needed = Vec::new();
        let mut dropped = false;
        let (mut end, mut link) = (self.start, self.predecessor());
        while let Some(predecessor) = link {
            // It answers reads in start..end. The floor never falls, so that what is unneeded now stays so.
            let from = registered.partition_point(|&seqno| seqno < predecessor.start);
            let is_registered = registered.get(from).is_some_and(|&seqno| seqno < end);
            let is_needed = is_registered || floor < end;
            if is_needed && !planted_faults::planted("version-history-predecessor-dropped-early") {
                needed.push(predecessor);
            } else {
                dropped = true;
            }
            (end, link) = (predecessor.start, predecessor.predecessor());
        }
        if !dropped {
            return None;
        }
        // Relinked from the oldest up; one whose link does not change is shared.
        let mut chain: Option<Arc<Self>> = None;
        for predecessor in needed.into_iter().rev() {
            let same = match (&chain, predecessor.predecessor()) {
                (None, None) => true,
                (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                _ => false,
            };
            chain = Some(if same {
                Arc::clone(predecessor)
            } else {
                Arc::new(Self { predecessor: Link(chain), ..Self::clone(predecessor) })
            });
        }
        Some(Self { predecessor: Link(chain), ..self.clone() })
    }

    /// A copy with an empty list of sealed memtables, to be filled by the caller.
    fn clone_frame(&self) -> Self {
        Self {
            active: Arc::clone(&self.active),
            sealed: Vec::new(),
            version: Arc::clone(&self.version),
            start: self.start,
            predecessor: self.predecessor.clone(),
        }
    }
}

impl<M: fmt::Display, S> fmt::Debug for SuperVersion<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Draws it as golden scripts write it: newest first, one line each, predecessors below.
impl<M: fmt::Display, S> fmt::Display for SuperVersion<M, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "active {}", self.active)?;
        for sealed in &self.sealed {
            writeln!(f, "{sealed}")?;
        }
        write!(f, "{}", self.version)?;
        if let Some(predecessor) = self.predecessor() {
            writeln!(f, "below {}:", self.start)?;
            write!(f, "{predecessor}")?;
        }
        Ok(())
    }
}
