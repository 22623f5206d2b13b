//! One order out of many cursors.
//!
//! ```text
//!                      ┌──────────────┐  head of the runner-up, cached
//!   current ─▶ source 2│ d#7  e#3 …   │◀───────────────┐ a step: move source 2; if it still comes first, that is all
//!                      └──────────────┘                │
//!   heap of the others (best first)      ┌─────────────┴──┐
//!                                        │ source 0  f#9  │
//!                              ┌─────────┴──────┐  ┌──────┴─────────┐
//!                              │ source 3  k#1  │  │ source 1  g#2  │
//!                              └────────────────┘  └────────────────┘
//! ```
//!
//! The source that the merge stands on is kept out of the heap, so that a source which is alone up to the next one's key
//! is drained with one comparison of integers a step, and the last source left (or an only one) with none. When it loses
//! its place, it takes the root's, and sinks: one sift for each change of source. A loser tree would spare a comparison
//! or so there, but needs its whole path on every step or the runner-up looked for at every change; among the dozen
//! sources of a read that is no gain.

use std::cmp::Ordering;

use internal_key::{Cursor, InternalKey, Trailer};
use planted_faults::planted;

/// Where the merge moves; the sources that it does not stand on lie on that side of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// Every other source stands on its first entry after the current one, or past its end.
    Forward,
    /// Every other source stands on its last entry before the current one, or past its beginning.
    Backward,
}

/// A source in the heap.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The head of the source's key, inverted when moving backwards: smaller comes first. Equal ranks decide nothing.
    rank: u64,
    source: usize,
}

/// No source: the merge stands on no entry.
const NONE: usize = usize::MAX;

/// A [`Cursor`] over all entries of its sources in the one order of internal keys.
///
/// Sources are all of one type, so that steps inline; an enumeration of cursors makes one type of several. Entries that
/// are equal in user key and trailer, which a sound database does not hold, come in the order of their sources forwards
/// and in the opposite order backwards; where the direction changes on one of them, the others of its kind may be left
/// out or repeated.
///
/// Nothing is allocated for an entry; a change of direction copies the current key into a buffer that is kept, and seeks
/// in every other source.
#[derive(Debug)]
pub struct MergeCursor<C> {
    sources: Vec<C>,
    /// Index of the source that the merge stands on, or [`NONE`].
    current: usize,
    direction: Direction,
    /// The valid sources other than the current one, as a binary heap, the next in `direction` at the root. Empty when
    /// the merge stands on no entry.
    others: Vec<Slot>,
    /// The current key while the direction changes.
    turning_point: Vec<u8>,
}

impl<C: Cursor> MergeCursor<C> {
    /// A merge of `sources`, standing on no entry. Of equal entries the earlier source's comes first.
    pub fn new(sources: Vec<C>) -> Self {
        let others = Vec::with_capacity(sources.len());
        Self { sources, current: NONE, direction: Direction::Forward, others, turning_point: Vec::new() }
    }

    /// The sources, in the order given.
    pub fn sources(&self) -> &[C] {
        &self.sources
    }

    /// Gives the sources back.
    pub fn into_sources(self) -> Vec<C> {
        self.sources
    }

    /// The source that the merge stands on, by its place in the order given; `None` if it stands on no entry.
    pub fn source_index(&self) -> Option<usize> {
        (self.current != NONE).then_some(self.current)
    }

    /// Moves every source with `position` and stands on the first of them in `direction`.
    fn position_all(
        &mut self,
        direction: Direction,
        mut position: impl FnMut(&mut C) -> Result<(), C::Error>,
    ) -> Result<(), C::Error> {
        // Until all have moved the merge stands on nothing, so that an error leaves it so.
        self.invalidate();
        self.direction = direction;
        for source in &mut self.sources {
            position(source)?;
        }
        self.stand_on_the_first();
        Ok(())
    }

    /// Builds the heap from all valid sources and takes its root as the current one.
    fn stand_on_the_first(&mut self) {
        self.others.clear();
        for source in 0..self.sources.len() {
            if self.sources[source].valid() {
                self.others.push(Slot { rank: self.rank_of(source), source });
            }
        }
        for at in (0..self.others.len() / 2).rev() {
            self.sink(at);
        }
        self.current = NONE;
        self.take_root();
    }

    /// Makes the root of the heap the current source; none if the heap is empty.
    fn take_root(&mut self) {
        if self.others.is_empty() {
            self.current = NONE;
            return;
        }
        self.current = self.others.swap_remove(0).source;
        self.sink(0);
    }

    fn invalidate(&mut self) {
        self.current = NONE;
        self.others.clear();
    }

    #[inline]
    fn rank_of(&self, source: usize) -> u64 {
        match self.direction {
            Direction::Forward => self.sources[source].head(),
            Direction::Backward => !self.sources[source].head(),
        }
    }

    /// Whether `a` comes before `b` in the merge's direction.
    #[inline]
    fn precedes(&self, a: Slot, b: Slot) -> bool {
        if a.rank != b.rank { a.rank < b.rank } else { self.precedes_beyond_head(a.source, b.source) }
    }

    fn precedes_beyond_head(&self, a: usize, b: usize) -> bool {
        if planted("merge-equal-heads-decide") {
            return a < b;
        }
        let order = self.sources[a].key().cmp(&self.sources[b].key()).then(a.cmp(&b));
        match self.direction {
            Direction::Forward => order == Ordering::Less,
            Direction::Backward => order == Ordering::Greater,
        }
    }

    /// Restores the heap below `at`, where a slot may come after its children.
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut child = 2 * at + 1;
            if child >= self.others.len() {
                return;
            }
            if child + 1 < self.others.len() && self.precedes(self.others[child + 1], self.others[child]) {
                child += 1;
            }
            if !self.precedes(self.others[child], self.others[at]) {
                return;
            }
            self.others.swap(at, child);
            at = child;
        }
    }

    /// After the current source has moved in the merge's direction: stands on whichever comes first now.
    #[inline]
    fn settle(&mut self) {
        let valid = self.sources[self.current].valid();
        let Some(&root) = self.others.first() else {
            if !valid {
                self.current = NONE;
            }
            return;
        };
        if !valid {
            return self.take_root();
        }
        let moved = Slot { rank: self.rank_of(self.current), source: self.current };
        if self.precedes(root, moved) {
            self.others[0] = moved;
            self.current = root.source;
            self.sink(0);
        }
    }

    /// Moves the current source one step in the merge's direction.
    #[inline]
    fn step(&mut self) -> Result<(), C::Error> {
        let source = &mut self.sources[self.current];
        let stepped = match self.direction {
            Direction::Forward => source.next(),
            Direction::Backward => source.prev(),
        };
        if stepped.is_err() {
            self.invalidate();
            return stepped;
        }
        self.settle();
        Ok(())
    }

    /// Turns around on the current entry: takes every other source to the other side of it, by a seek. A step would not
    /// do: a source may have gained entries in between (a memtable does).
    #[cold]
    fn turn(&mut self, direction: Direction) -> Result<(), C::Error> {
        let current = self.current;
        let here = self.sources[current].key();
        let trailer = here.trailer;
        let mut turning_point = std::mem::take(&mut self.turning_point);
        turning_point.clear();
        turning_point.extend_from_slice(here.user_key);
        let key = InternalKey::new(&turning_point, trailer);
        self.invalidate();
        self.direction = direction;
        let mut turned = Ok(());
        for (index, source) in self.sources.iter_mut().enumerate() {
            if index == current || planted("merge-turns-without-its-other-sources") {
                continue;
            }
            turned = match direction {
                Direction::Forward => source.seek(key),
                Direction::Backward => source.seek_before(key),
            };
            if turned.is_err() {
                break;
            }
        }
        self.turning_point = turning_point;
        turned?;
        for source in 0..self.sources.len() {
            if source != current && self.sources[source].valid() {
                self.others.push(Slot { rank: self.rank_of(source), source });
            }
        }
        for at in (0..self.others.len() / 2).rev() {
            self.sink(at);
        }
        self.current = current;
        Ok(())
    }

    #[inline]
    fn here(&self) -> &C {
        // An invalid merge has no such source: the index is out of bounds and panics, as the contract allows.
        &self.sources[self.current]
    }
}

impl<C: Cursor> Cursor for MergeCursor<C> {
    type Error = C::Error;

    #[inline]
    fn valid(&self) -> bool {
        self.current != NONE
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.here().user_key()
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.here().trailer()
    }

    #[inline]
    fn head(&self) -> u64 {
        self.here().head()
    }

    /// When the source says so, and the head of the runner-up says that no other source holds the key.
    #[inline]
    fn is_last_version(&self) -> bool {
        let alone = match self.others.first() {
            Some(root) => root.rank > self.rank_of(self.current) || planted("merge-runner-up-holds-the-key"),
            None => true,
        };
        alone && self.direction == Direction::Forward && self.here().is_last_version()
    }

    #[inline]
    fn value(&mut self) -> Result<&[u8], C::Error> {
        self.sources[self.current].value()
    }

    fn seek_to_first(&mut self) -> Result<(), C::Error> {
        self.position_all(Direction::Forward, C::seek_to_first)
    }

    fn seek_to_last(&mut self) -> Result<(), C::Error> {
        self.position_all(Direction::Backward, C::seek_to_last)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), C::Error> {
        self.position_all(Direction::Forward, |source| source.seek(target))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), C::Error> {
        self.position_all(Direction::Backward, |source| source.seek_before(target))
    }

    #[inline]
    fn next(&mut self) -> Result<(), C::Error> {
        if self.current == NONE {
            return Ok(());
        }
        if self.direction != Direction::Forward {
            self.turn(Direction::Forward)?;
        }
        self.step()
    }

    #[inline]
    fn prev(&mut self) -> Result<(), C::Error> {
        if self.current == NONE {
            return Ok(());
        }
        if self.direction != Direction::Backward {
            self.turn(Direction::Backward)?;
        }
        self.step()
    }
}
