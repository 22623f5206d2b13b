//! The cursors that a merge of one keyspace draws from: a memtable, or a run of disjoint tables.

use std::sync::Arc;

use internal_key::{Cursor, InternalKey, Trailer};
use skiplist_memtable::MemtableCursor;
use sstable_format::TableCursor;

use crate::core::{Parts, Table};
use crate::{Error, Result};

/// One source of a merge. A concrete type, so that a step through the merge is a branch and not a virtual call.
#[expect(clippy::large_enum_variant, reason = "a merge holds few sources; a box would cost a miss for each step")]
pub(crate) enum Source {
    Memtable(MemtableCursor),
    Run(RunCursor),
}

macro_rules! each {
    ($source:expr, $cursor:ident => $call:expr) => {
        match $source {
            Source::Memtable($cursor) => $call,
            Source::Run($cursor) => $call,
        }
    };
}

/// The same for calls whose errors differ by source.
macro_rules! try_each {
    ($source:expr, $cursor:ident => $call:expr) => {
        match $source {
            Source::Memtable($cursor) => match $call {
                Ok(done) => Ok(done),
            },
            Source::Run($cursor) => $call,
        }
    };
}

impl Cursor for Source {
    type Error = Error;

    #[inline]
    fn valid(&self) -> bool {
        each!(self, cursor => cursor.valid())
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        each!(self, cursor => cursor.user_key())
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        each!(self, cursor => cursor.trailer())
    }

    #[inline]
    fn head(&self) -> u64 {
        each!(self, cursor => cursor.head())
    }

    #[inline]
    fn is_last_version(&self) -> bool {
        each!(self, cursor => cursor.is_last_version())
    }

    #[inline]
    fn value(&mut self) -> Result<&[u8]> {
        try_each!(self, cursor => cursor.value())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        try_each!(self, cursor => cursor.seek_to_first())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        try_each!(self, cursor => cursor.seek_to_last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        try_each!(self, cursor => cursor.seek(target))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        try_each!(self, cursor => cursor.seek_before(target))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        try_each!(self, cursor => cursor.next())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        try_each!(self, cursor => cursor.prev())
    }
}

/// Walks the disjoint tables of a run as one sequence, opening each when the walk reaches it.
///
/// The run's tables are held by whoever holds the cursor's super version; the cursor itself holds them too, because
/// it may outlive that.
pub(crate) struct RunCursor {
    parts: Arc<Parts>,
    /// Whether blocks are read once and for all, past the cache.
    once: bool,
    tables: Box<[Arc<Table>]>,
    /// Which table `cursor` walks; meaningless while there is none.
    index: usize,
    cursor: Option<TableCursor>,
}

impl RunCursor {
    /// A cursor over `tables`, ascending and disjoint.
    pub(crate) fn new(parts: &Arc<Parts>, tables: &[Arc<Table>]) -> Self {
        Self { parts: Arc::clone(parts), once: false, tables: tables.into(), index: 0, cursor: None }
    }

    /// A cursor for a compaction, which reads everything once and must not displace what readers use.
    pub(crate) fn for_compaction(parts: &Arc<Parts>, tables: &[Arc<Table>]) -> Self {
        Self { once: true, ..Self::new(parts, tables) }
    }

    /// Opens table `index` unless the cursor walks it already, and positions it by `place`.
    fn enter(
        &mut self,
        index: usize,
        place: impl FnOnce(&mut TableCursor) -> Result<(), sstable_format::TableError>,
    ) -> Result<()> {
        if self.cursor.is_none() || self.index != index {
            self.cursor = None;
            let reader = self.parts.reader(&self.tables[index])?;
            self.cursor = Some(if self.once { reader.cursor_for_compaction() } else { reader.cursor() });
            self.index = index;
        }
        if !self.once {
            self.parts.reads.sought(&self.tables[index]);
        }
        let placed = self.cursor.as_mut().map_or(Ok(()), place);
        if placed.is_err() {
            self.cursor = None;
        }
        Ok(placed?)
    }

    /// Moves on to the following tables while the present one is exhausted.
    fn skip_forward(&mut self) -> Result<()> {
        while self.cursor.as_ref().is_some_and(|cursor| !cursor.valid()) {
            if self.index + 1 == self.tables.len() {
                self.cursor = None;
                break;
            }
            self.enter(self.index + 1, Cursor::seek_to_first)?;
        }
        Ok(())
    }

    /// Moves on to the preceding tables while the present one is exhausted.
    fn skip_backward(&mut self) -> Result<()> {
        while self.cursor.as_ref().is_some_and(|cursor| !cursor.valid()) {
            if self.index == 0 {
                self.cursor = None;
                break;
            }
            self.enter(self.index - 1, Cursor::seek_to_last)?;
        }
        Ok(())
    }

    /// The index of the first table whose largest user key is at or after `user_key`.
    fn first_reaching(&self, user_key: &[u8]) -> usize {
        self.tables.partition_point(|table| *table.entry.max_key < *user_key)
    }
}

/// What is lent while the cursor stands on no entry, which its contract leaves open.
const NO_TRAILER: Trailer = Trailer::seek(internal_key::SeqNo::ZERO);

impl Cursor for RunCursor {
    type Error = Error;

    #[inline]
    fn valid(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::valid)
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        self.cursor.as_ref().map_or(&[], Cursor::user_key)
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.cursor.as_ref().map_or(NO_TRAILER, Cursor::trailer)
    }

    #[inline]
    fn head(&self) -> u64 {
        self.cursor.as_ref().map_or(0, Cursor::head)
    }

    /// C3: all versions of a user key lie in one table of a run.
    #[inline]
    fn is_last_version(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::is_last_version)
    }

    #[inline]
    fn value(&mut self) -> Result<&[u8]> {
        match &mut self.cursor {
            Some(cursor) => Ok(cursor.value()?),
            None => Ok(&[]),
        }
    }

    fn seek_to_first(&mut self) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        self.enter(0, Cursor::seek_to_first)?;
        self.skip_forward()
    }

    fn seek_to_last(&mut self) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        self.enter(self.tables.len() - 1, Cursor::seek_to_last)?;
        self.skip_backward()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<()> {
        let index = self.first_reaching(target.user_key);
        if index == self.tables.len() {
            self.cursor = None;
            return Ok(());
        }
        self.enter(index, |cursor| cursor.seek(target))?;
        self.skip_forward()
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<()> {
        if self.tables.is_empty() {
            return Ok(());
        }
        let index = self.first_reaching(target.user_key).min(self.tables.len() - 1);
        self.enter(index, |cursor| cursor.seek_before(target))?;
        self.skip_backward()
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.next()?;
            if !cursor.valid() {
                self.skip_forward()?;
            }
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if let Some(cursor) = &mut self.cursor {
            cursor.prev()?;
            if !cursor.valid() {
                self.skip_backward()?;
            }
        }
        Ok(())
    }
}
