//! Decides which versions of a merged stream are kept (C2). Pure: no I/O, no allocation per entry.
//!
//! ```text
//!   one key, newest first        floor 40, snapshots at 10 and 25
//!
//!   #52  #47 │ #38  #31 │ #22   #14 │ #9    #3
//!    ✓    ✓  │  ✓    ✗  │  ✓     ✗  │  ✓     ✗     ✓ newest of its stripe, or above the floor
//!   ─────────┼──────────┼───────────┼─────────▶    ✗ hidden from every reader
//!          floor       25          10              a tombstone at #9 goes too, if nothing older can lie elsewhere
//! ```
//!
//! - **C2** Every version above the floor stays: readers may come to stand at any seqno from the floor on. At and below
//!   it only the floor itself and the snapshots can be read at, so of what lies between two of them (a *stripe*) only
//!   the newest version is ever seen. A tombstone goes only in the oldest stripe, where nobody reads below it, and only
//!   when no older run or sealed memtable outside the inputs can hold what it hides.
//!
//! Kinds: a single-delete is treated as a delete. A value pointer is a version like a put. A merge operand hides
//! nothing, so what it stands on stays as well. A range-delete is reserved: here it is kept and hides nothing, and the
//! writer of tables refuses it, so that a job which meets one fails instead of leaving it out.

use std::ops::AddAssign;

use internal_key::{Kind, SeqNo, Trailer};

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is written.
    Keep,
    /// It is not.
    Drop(Cause),
}

/// Why an entry is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A newer version of its stripe hides it from every reader.
    Hidden,
    /// A tombstone in the oldest stripe that has nothing left to hide.
    Tombstone,
    /// The same key with the same seqno and kind as the entry before.
    Duplicate,
}

/// How many entries came to which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Written.
    pub kept: u64,
    /// [`Cause::Hidden`].
    pub hidden: u64,
    /// [`Cause::Tombstone`].
    pub tombstones: u64,
    /// [`Cause::Duplicate`].
    pub duplicates: u64,
}

impl Collected {
    /// Entries seen.
    pub fn seen(&self) -> u64 {
        self.kept + self.hidden + self.tombstones + self.duplicates
    }

    /// Entries not written.
    pub fn dropped(&self) -> u64 {
        self.seen() - self.kept
    }
}

impl AddAssign for Collected {
    fn add_assign(&mut self, other: Self) {
        self.kept += other.kept;
        self.hidden += other.hidden;
        self.tombstones += other.tombstones;
        self.duplicates += other.duplicates;
    }
}

/// Decides entry by entry, fed in internal key order: user key ascending, newest version first.
pub struct Collector<'a, F> {
    floor: SeqNo,
    /// Those below the floor, ascending.
    snapshots: &'a [SeqNo],
    may_hold_older: F,
    /// The user key of the last entry; nothing before the first.
    key: Vec<u8>,
    /// How many user keys there were.
    keys: u64,
    /// The trailer of the last entry of this key.
    last: Trailer,
    /// The stripe in which a version of this key hides everything older; none yet if `None`.
    hiding: Option<usize>,
    collected: Collected,
}

impl<'a, F: FnMut(&[u8]) -> bool> Collector<'a, F> {
    /// Every reader stands at `floor`, above it, or at one of `snapshots` (ascending; those above the floor make no
    /// difference). Both are taken in one step (R3).
    ///
    /// `may_hold_older` says whether a run or sealed memtable outside the inputs may hold versions of a user key that are
    /// older than the inputs': for a compaction [`OlderRuns::may_hold`](crate::OlderRuns::may_hold), for a flush that and
    /// the memtables sealed earlier. It is asked at most once per tombstone, keys ascending.
    pub fn new(floor: SeqNo, snapshots: &'a [SeqNo], may_hold_older: F) -> Self {
        debug_assert!(snapshots.is_sorted(), "C2: snapshots are ascending");
        let snapshots = &snapshots[..snapshots.partition_point(|snapshot| *snapshot < floor)];
        Self {
            floor,
            snapshots,
            may_hold_older,
            key: Vec::new(),
            keys: 0,
            last: Trailer::seek(SeqNo::MAX),
            hiding: None,
            collected: Collected::default(),
        }
    }

    /// Decides the next entry. Costs a key comparison, and a search among the snapshots if there are any.
    #[inline]
    pub fn visit(&mut self, user_key: &[u8], trailer: Trailer) -> Verdict {
        if self.keys > 0 && *self.key == *user_key {
            if trailer == self.last {
                self.collected.duplicates += 1;
                return Verdict::Drop(Cause::Duplicate);
            }
            debug_assert!(trailer < self.last, "C2: {trailer} of a key came after {}", self.last);
        } else {
            debug_assert!(self.keys == 0 || *self.key < *user_key, "C2: keys ascend");
            self.keys += 1;
            self.key.clear();
            self.key.extend_from_slice(user_key);
            self.hiding = None;
        }
        self.last = trailer;
        let verdict = self.decide(trailer);
        match verdict {
            Verdict::Keep => self.collected.kept += 1,
            Verdict::Drop(Cause::Hidden) => self.collected.hidden += 1,
            Verdict::Drop(Cause::Tombstone) => self.collected.tombstones += 1,
            Verdict::Drop(Cause::Duplicate) => self.collected.duplicates += 1,
        }
        verdict
    }

    #[inline]
    fn decide(&mut self, trailer: Trailer) -> Verdict {
        let (seqno, kind) = (trailer.seqno(), trailer.kind());
        if seqno > self.floor || kind == Kind::RangeDelete {
            return Verdict::Keep;
        }
        // Stripe 0 is the oldest: at or below the first snapshot, or the floor where there is none.
        let stripe = if planted_faults::planted("compaction-stripe-ends-before-its-snapshot") {
            self.snapshots.partition_point(|snapshot| *snapshot <= seqno)
        } else {
            self.snapshots.partition_point(|snapshot| *snapshot < seqno)
        };
        if self.hiding == Some(stripe) {
            return Verdict::Drop(Cause::Hidden);
        }
        if kind != Kind::Merge {
            self.hiding = Some(stripe);
        }
        let goes = kind.is_tombstone() && stripe == 0 && !self.is_needed_below();
        if goes { Verdict::Drop(Cause::Tombstone) } else { Verdict::Keep }
    }

    /// Whether a tombstone of the present key may have something to hide outside the inputs.
    fn is_needed_below(&mut self) -> bool {
        if planted_faults::planted("compaction-tombstone-dropped-early") {
            return false;
        }
        (self.may_hold_older)(&self.key)
    }

    /// The user key of the last entry decided; empty before the first.
    #[inline]
    pub fn user_key(&self) -> &[u8] {
        &self.key
    }

    /// How many user keys were seen: changes exactly when [`user_key`](Self::user_key) does.
    #[inline]
    pub fn key_number(&self) -> u64 {
        self.keys
    }

    /// What was decided so far.
    pub fn collected(&self) -> Collected {
        self.collected
    }
}
