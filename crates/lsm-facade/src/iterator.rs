//! Range reads: a double-ended iterator for handing rows out, and a cursor for looking at them in place.

use std::iter::FusedIterator;
use std::ops::Bound;
use std::sync::Arc;

use internal_key::{SeqNo, successor_of_prefix};
use merge_iterator::{MergeCursor, VisibleCursor, VisibleError};
use version_history::Sealed;

use crate::core::SuperVersion;
use crate::database::Handle;
use crate::slice::Slice;
use crate::source::{RunCursor, Source};
use crate::{Error, Result};

type Visible = VisibleCursor<MergeCursor<Source>>;

impl From<VisibleError<Error>> for Error {
    fn from(error: VisibleError<Error>) -> Self {
        match error {
            VisibleError::Source(error) => error,
            other => Self::Unsupported { source: Arc::new(other) },
        }
    }
}

/// Owned bounds of a range of keys. Empty keys are keys; an inverted range is an empty one.
pub(crate) type KeyBounds = (Bound<Box<[u8]>>, Bound<Box<[u8]>>);

/// The bounds of everything that begins with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> KeyBounds {
    let end = successor_of_prefix(prefix).map_or(Bound::Unbounded, |end| Bound::Excluded(end.into()));
    (Bound::Included(prefix.into()), end)
}

/// Bounds with the keys as bytes, owned.
pub(crate) fn owned_bounds<K: AsRef<[u8]>>(range: &impl std::ops::RangeBounds<K>) -> KeyBounds {
    let own = |bound: Bound<&K>| bound.map(|key| Box::from(key.as_ref()));
    (own(range.start_bound()), own(range.end_bound()))
}

fn borrowed((start, end): &KeyBounds) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (start.as_ref().map(|key| &**key), end.as_ref().map(|key| &**key))
}

/// What a range read reads: one super version of one keyspace at one sequence number, within bounds.
#[derive(Clone)]
pub(crate) struct RangeView {
    /// Keeps the database open.
    pub(crate) handle: Arc<Handle>,
    pub(crate) super_version: Arc<SuperVersion>,
    pub(crate) seqno: SeqNo,
    pub(crate) bounds: KeyBounds,
    /// Why nothing may be read of it, if nothing may.
    pub(crate) refused: Option<Box<Error>>,
}

impl RangeView {
    fn check(&self) -> Result<()> {
        self.refused.as_deref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// A cursor over the view, standing on no entry. Sources that cannot hold a key in bounds are left out.
    fn cursor(&self) -> Visible {
        let mut sources = Vec::with_capacity(4);
        // Asked after `seqno` was loaded (R1): what is visible at it was reserved before, so that an empty memtable holds
        // nothing of this view, whatever comes to it later.
        if !self.super_version.active().is_empty() {
            sources.push(Source::Memtable(self.super_version.active().cursor()));
        }
        for sealed in self.super_version.sealed() {
            match sealed {
                Sealed::Memtable(memtable) if memtable.is_empty() => {}
                Sealed::Memtable(memtable) => sources.push(Source::Memtable(memtable.cursor())),
                Sealed::Batch(table) => {
                    sources.push(Source::Run(RunCursor::new(&self.handle.core.parts, std::slice::from_ref(table))));
                }
            }
        }
        for (_, run) in self.super_version.version().runs_newest_first() {
            let tables = run.tables();
            let from = match &self.bounds.0 {
                Bound::Included(key) | Bound::Excluded(key) => run.seek(key),
                Bound::Unbounded => 0,
            };
            let until = match &self.bounds.1 {
                Bound::Included(key) => tables.partition_point(|table| table.entry.min_key <= *key),
                Bound::Excluded(key) => tables.partition_point(|table| table.entry.min_key < *key),
                Bound::Unbounded => tables.len(),
            };
            if from < until {
                sources.push(Source::Run(RunCursor::new(&self.handle.core.parts, &tables[from..until])));
            }
        }
        VisibleCursor::new(MergeCursor::new(sources), self.seqno, borrowed(&self.bounds))
    }
}

/// A double-ended iterator over the rows of a range, in key order, each as `Result<(key, value)>`.
///
/// It reads one consistent state: what was visible when it was made (or its snapshot's), whatever is written meanwhile.
/// It is `Send + 'static`, keeps what it reads alive by itself, and holds up nobody: writes, flushes and compactions go on.
/// Fused: after the last row, and after an error, it yields `None` for ever.
///
/// Both ends may be used by turns; they meet in the middle and no row comes twice. Each end costs a merge over the
/// keyspace's memtables and runs; a row costs a copy of key and value (see [`RangeCursor`] for reading in place).
pub struct Iter {
    /// Each end, once it is used, stands on the row that it yielded last.
    front: Option<Visible>,
    back: Option<Visible>,
    /// Dropped after the ends, so that a worker frees what they hold (R4).
    view: RangeView,
    done: bool,
}

impl std::fmt::Debug for Iter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iter").field("seqno", &self.view.seqno).field("done", &self.done).finish_non_exhaustive()
    }
}

impl Iter {
    pub(crate) fn new(view: RangeView) -> Self {
        Self { view, front: None, back: None, done: false }
    }

    /// Ends the iteration, letting go of everything that it held.
    #[cold]
    fn end(&mut self) {
        self.done = true;
        (self.front, self.back) = (None, None);
    }

    #[inline]
    fn step_front(&mut self) -> Result<Option<(Slice, Slice)>> {
        self.view.handle.core.check_open()?;
        let cursor = match &mut self.front {
            Some(cursor) => {
                cursor.next()?;
                cursor
            }
            None => {
                self.view.check()?;
                let mut cursor = self.view.cursor();
                cursor.seek_to_first()?;
                self.front.insert(cursor)
            }
        };
        if !cursor.valid() || self.back.as_ref().is_some_and(|back| cursor.user_key() >= back.user_key()) {
            return Ok(None);
        }
        Ok(Some((Slice::copy(cursor.user_key()), Slice::copy(cursor.value()?))))
    }

    #[inline]
    fn step_back(&mut self) -> Result<Option<(Slice, Slice)>> {
        self.view.handle.core.check_open()?;
        let cursor = match &mut self.back {
            Some(cursor) => {
                cursor.prev()?;
                cursor
            }
            None => {
                self.view.check()?;
                let mut cursor = self.view.cursor();
                cursor.seek_to_last()?;
                self.back.insert(cursor)
            }
        };
        if !cursor.valid() || self.front.as_ref().is_some_and(|front| cursor.user_key() <= front.user_key()) {
            return Ok(None);
        }
        Ok(Some((Slice::copy(cursor.user_key()), Slice::copy(cursor.value()?))))
    }
}

impl Iterator for Iter {
    type Item = Result<(Slice, Slice)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        // Each case makes the item in its place: a row is a quarter of a kilobyte, not to be moved about.
        match self.step_front() {
            Ok(Some(row)) => Some(Ok(row)),
            Ok(None) => {
                self.end();
                None
            }
            Err(error) => {
                self.end();
                Some(Err(self.view.handle.core.read_failed(error)))
            }
        }
    }
}

impl DoubleEndedIterator for Iter {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.step_back() {
            Ok(Some(row)) => Some(Ok(row)),
            Ok(None) => {
                self.end();
                None
            }
            Err(error) => {
                self.end();
                Some(Err(self.view.handle.core.read_failed(error)))
            }
        }
    }
}

impl FusedIterator for Iter {}

/// A movable position in a range, lending keys and values where they lie instead of copying them.
///
/// It reads one consistent state, like [`Iter`]. A new cursor stands on no row; so does one that moved past either end,
/// and from there the seeks lead back. Bounds hold for every movement.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = lsm_facade::Database::open(dir.path())?;
/// let words = database.keyspace("words")?;
/// for word in ["ant", "bee", "cat"] {
///     words.insert(word, "")?;
/// }
/// let mut cursor = words.cursor();
/// cursor.seek("b")?;
/// assert_eq!(cursor.key(), Some(&b"bee"[..]));
/// cursor.prev()?;
/// assert_eq!(cursor.key(), Some(&b"ant"[..]));
/// # Ok(())
/// # }
/// ```
pub struct RangeCursor {
    cursor: Visible,
    /// Lets a worker free what the sources hold, never the reader that drops them (R4): dropped after the cursor.
    _super_version: Arc<SuperVersion>,
    /// Why it never stands on a row, if it may not.
    refused: Option<Box<Error>>,
    /// Keeps the database open.
    handle: Arc<Handle>,
}

impl std::fmt::Debug for RangeCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RangeCursor").field("valid", &self.cursor.valid()).finish_non_exhaustive()
    }
}

impl RangeCursor {
    pub(crate) fn new(view: &RangeView) -> Self {
        Self {
            handle: Arc::clone(&view.handle),
            _super_version: Arc::clone(&view.super_version),
            refused: view.refused.clone(),
            cursor: view.cursor(),
        }
    }

    /// The key of the row that the cursor stands on.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.cursor.valid().then(|| self.cursor.user_key())
    }

    /// The value of the row that the cursor stands on.
    ///
    /// # Errors
    /// If a large value cannot be read or does not match its checksum.
    #[inline]
    pub fn value(&mut self) -> Result<Option<&[u8]>> {
        if !self.cursor.valid() {
            return Ok(None);
        }
        Ok(Some(self.cursor.value().map_err(|error| self.handle.core.read_failed(error.into()))?))
    }

    fn check(&self) -> Result<()> {
        self.handle.core.check_open()?;
        self.refused.as_deref().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Moves to the first row in bounds.
    ///
    /// # Errors
    /// If a table cannot be read; the cursor then stands on no row, and a seek may be tried again. So for each movement.
    pub fn seek_to_first(&mut self) -> Result<()> {
        self.check()?;
        self.cursor.seek_to_first().map_err(|error| self.handle.core.read_failed(error.into()))
    }

    /// Moves to the last row in bounds.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek_to_last(&mut self) -> Result<()> {
        self.check()?;
        self.cursor.seek_to_last().map_err(|error| self.handle.core.read_failed(error.into()))
    }

    /// Moves to the first row in bounds at or after `key`.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.check()?;
        self.cursor.seek(key.as_ref()).map_err(|error| self.handle.core.read_failed(error.into()))
    }

    /// Moves to the last row in bounds at or before `key`.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    pub fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) -> Result<()> {
        self.check()?;
        self.cursor.seek_for_prev(key.as_ref()).map_err(|error| self.handle.core.read_failed(error.into()))
    }

    /// Moves to the next row; nothing if the cursor stands on none.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a cursor's word; an iterator cannot lend its rows")]
    pub fn next(&mut self) -> Result<()> {
        self.cursor.next().map_err(|error| self.handle.core.read_failed(error.into()))
    }

    /// Moves to the previous row; nothing if the cursor stands on none.
    ///
    /// # Errors
    /// As [`seek_to_first`](Self::seek_to_first).
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        self.cursor.prev().map_err(|error| self.handle.core.read_failed(error.into()))
    }
}
