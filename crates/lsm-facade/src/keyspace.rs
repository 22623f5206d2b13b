//! One keyspace, in the words of a `BTreeMap`.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use internal_key::Kind;
use write_ahead_log::RecordKind;

use crate::control::CompactionControl;
use crate::core::{KeyspaceShared, last_seqno};
use crate::database::Handle;
use crate::iterator::{Iter, KeyBounds, RangeCursor, RangeView, owned_bounds, prefix_bounds};
use crate::jobs::check_wanted;
use crate::stats::KeyspaceStats;
use crate::{Durability, KeyspaceOptions, Result, Slice};

/// A named, ordered map from keys to values within a [`Database`](crate::Database). Made by
/// [`Database::keyspace`](crate::Database::keyspace).
///
/// Cheap to clone, `Send + Sync`; every call may be made from any thread. Keys are ordered bytewise; the empty key is a
/// key. Writes are durable as [`Durability::Buffered`] unless the handle says otherwise
/// ([`with_durability`](Self::with_durability)). A handle keeps the database open. Once the keyspace is dropped its
/// writes fail with [`Error::KeyspaceDropped`](crate::Error::KeyspaceDropped), its reads find nothing, and snapshots taken
/// before still read what they saw.
#[derive(Clone)]
pub struct Keyspace {
    pub(crate) handle: Arc<Handle>,
    pub(crate) shared: Arc<KeyspaceShared>,
    durability: Durability,
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyspace({:?}, {})", self.shared.name, self.shared.id)
    }
}

impl Keyspace {
    pub(crate) fn new(handle: &Arc<Handle>, shared: Arc<KeyspaceShared>) -> Self {
        Self { handle: Arc::clone(handle), shared, durability: Durability::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The options it was created with.
    pub fn options(&self) -> &KeyspaceOptions {
        &self.shared.options
    }

    /// A handle whose writes are answered as `durability` says.
    #[must_use]
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { durability, ..self.clone() }
    }

    /// Gives `key` the value `value`, replacing what it had.
    ///
    /// Cost: one copy into the mapped log and one into the memtable.
    ///
    /// # Errors
    /// - [`Error::KeyTooLong`](crate::Error::KeyTooLong), [`Error::ValueTooLong`](crate::Error::ValueTooLong): nothing
    ///   was written.
    /// - [`Error::DiskFull`](crate::Error::DiskFull), [`Error::Io`](crate::Error::Io),
    ///   [`Error::MemoryFull`](crate::Error::MemoryFull): nothing was written; it may succeed later.
    /// - [`Error::InListener`](crate::Error::InListener): an event listener writes, at a hard limit. Nothing was written.
    /// - [`Error::Failed`](crate::Error::Failed): the database takes no writes until it is reopened.
    /// - [`Error::KeyspaceDropped`](crate::Error::KeyspaceDropped), [`Error::ReadOnly`](crate::Error::ReadOnly),
    ///   [`Error::Closed`](crate::Error::Closed).
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let core = &self.handle.core;
        core.write_one(&self.shared, Kind::Put, key.as_ref(), value.as_ref(), self.durability)?;
        Ok(())
    }

    /// Removes `key`, whether it has a value or not.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[inline]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.handle.core.write_one(&self.shared, Kind::Delete, key.as_ref(), &[], self.durability)?;
        Ok(())
    }

    /// The value of `key`.
    ///
    /// Takes no lock and writes to no memory that another thread reads (R1).
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::Io`](crate::Error::Io) if a table cannot be read,
    /// [`Error::KeyTooLong`](crate::Error::KeyTooLong), [`Error::Closed`](crate::Error::Closed).
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.handle.core.get(&self.shared, key.as_ref())
    }

    /// Whether `key` has a value. Costs what [`get`](Self::get) costs, without the value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[inline]
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.handle.core.contains(&self.shared, key.as_ref())
    }

    /// The row with the smallest key.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn first_key_value(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().next().transpose()
    }

    /// The row with the largest key.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn last_key_value(&self) -> Result<Option<(Slice, Slice)>> {
        self.iter().next_back().transpose()
    }

    /// Whether there is no row.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.first_key_value()?.is_none())
    }

    /// All rows in key order, as they are now.
    pub fn iter(&self) -> Iter {
        Iter::new(self.view((Bound::Unbounded, Bound::Unbounded)))
    }

    /// The rows whose keys lie in `range`, in key order, as they are now. An inverted range is empty.
    ///
    /// ```
    /// # fn main() -> lsm_facade::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// let database = lsm_facade::Database::open(dir.path())?;
    /// let words = database.keyspace("words")?;
    /// for word in ["ant", "bee", "cat"] {
    ///     words.insert(word, "")?;
    /// }
    /// let mut range = words.range("b"..);
    /// assert_eq!(range.next().unwrap()?.0, b"bee");
    /// assert_eq!(range.next_back().unwrap()?.0, b"cat");
    /// assert!(range.next().is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Iter {
        Iter::new(self.view(owned_bounds(&range)))
    }

    /// The rows whose keys begin with `prefix`, in key order, as they are now. The empty prefix begins every key.
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(self.view(prefix_bounds(prefix.as_ref())))
    }

    /// A cursor over all rows, as they are now: for looking at rows in place and for seeking.
    pub fn cursor(&self) -> RangeCursor {
        RangeCursor::new(&self.view((Bound::Unbounded, Bound::Unbounded)))
    }

    /// A cursor over the rows whose keys lie in `range`, as they are now.
    pub fn cursor_in<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> RangeCursor {
        RangeCursor::new(&self.view(owned_bounds(&range)))
    }

    /// Removes every row at once (P12): one log record and one manifest edit, whatever the size. Snapshots taken before
    /// keep what they saw; its history, where it keeps one, begins anew. Returns when its record in the log is durable, and so is the clear. If the manifest's edit then
    /// fails for want of room or the like, the rows are gone all the same and stay so: the call has succeeded,
    /// [`health`](crate::Database::health) shows the cause, and the background tries the edit again.
    ///
    /// # Errors
    /// As [`insert`](Self::insert): after [`Error::DiskFull`](crate::Error::DiskFull) and [`Error::Io`](crate::Error::Io)
    /// nothing has changed.
    pub fn clear(&self) -> Result<()> {
        self.handle.core.restart_keyspace(&self.shared, RecordKind::ClearKeyspace)
    }

    /// Writes everything that is only in memory and the log to tables, and returns when they are installed. If that leaves
    /// nothing in the log that is needed, the log gives its room on the disk back, down to a short segment.
    ///
    /// # Errors
    /// What kept the flush from succeeding, as for [`insert`](Self::insert).
    pub fn flush(&self) -> Result<()> {
        self.flush_unless(None)
    }

    /// [`flush`](Self::flush), given up when `asked` is cancelled: then the background completes it in its own time.
    fn flush_unless(&self, asked: Option<&CompactionControl>) -> Result<()> {
        let core = &self.handle.core;
        core.writable()?;
        core.seal(&self.shared)?;
        let newest = self.shared.history.current().sealed().first().and_then(last_seqno);
        if let Some(target) = newest {
            core.ask_for_flush(&self.shared, target);
            core.request_job(&self.shared);
            core.wait_for_flush(&self.shared, target, asked)?;
        }
        core.shrink_log()
    }

    /// Compacts the rows whose keys lie in `range` down to one run in the last level, flushing first. Returns when that
    /// is done; reads and writes go on meanwhile. Under [`Strategy::Fifo`](crate::Strategy::Fifo) it flushes and compacts
    /// nothing: what was written later stays in runs of its own there, so that what is oldest can be dropped whole.
    ///
    /// # Errors
    /// What kept it from succeeding, as for [`insert`](Self::insert).
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.compact_bounds(&range, None)
    }

    /// [`compact_range`](Self::compact_range) that `control` follows, and may cancel from any thread: see there.
    ///
    /// # Errors
    /// As [`compact_range`](Self::compact_range), and [`Error::Cancelled`](crate::Error::Cancelled): what was compacted so
    /// far stays so, nothing else has changed, and no table is left behind (C4).
    pub fn compact_range_with<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        control: &CompactionControl,
    ) -> Result<()> {
        let _entered = self.handle.core.scheduler().map(|scheduler| control.enter(scheduler));
        self.compact_bounds(&range, Some(control))
    }

    fn compact_bounds<K: AsRef<[u8]>>(
        &self,
        range: &impl RangeBounds<K>,
        asked: Option<&CompactionControl>,
    ) -> Result<()> {
        check_wanted(asked)?;
        // What is visible now is in tables when the flush returns.
        let through = self.handle.core.visible().load();
        self.flush_unless(asked)?;
        // The picker's bounds are inclusive: an excluded bound only makes it look at a table more.
        let (start, end) = owned_bounds(range);
        let min = match &start {
            Bound::Included(key) | Bound::Excluded(key) => &**key,
            Bound::Unbounded => &[],
        };
        let max = match &end {
            Bound::Included(key) | Bound::Excluded(key) => Some(&**key),
            Bound::Unbounded => None,
        };
        self.handle.core.compact_range(&self.shared, (min, max), through, asked)
    }

    /// [`compact_range`](Self::compact_range) over everything.
    ///
    /// # Errors
    /// As [`compact_range`](Self::compact_range).
    pub fn compact(&self) -> Result<()> {
        self.compact_range::<&[u8]>(..)
    }

    /// The smallest sequence number that it can be read as of ([`Database::snapshot_at`](crate::Database::snapshot_at));
    /// `None` if it keeps no history. Rises as its options say.
    pub fn oldest_seqno(&self) -> Option<u64> {
        self.handle.core.oldest_readable(&self.shared).map(|seqno| seqno.get())
    }

    /// What it consists of now.
    pub fn stats(&self) -> KeyspaceStats {
        KeyspaceStats::of(&self.shared)
    }

    fn view(&self, bounds: KeyBounds) -> RangeView {
        let (super_version, seqno) = self.handle.core.view(&self.shared);
        RangeView { handle: Arc::clone(&self.handle), super_version, seqno, bounds, refused: None }
    }
}
