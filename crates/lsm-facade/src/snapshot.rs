//! A consistent view of all keyspaces.

use std::ops::RangeBounds;
use std::sync::Arc;

use version_history::{RegisterError, SnapshotHandle};

use crate::database::Handle;
use crate::history::{LooksWhenDropped, seqno_of};
use crate::iterator::{Iter, KeyBounds, RangeCursor, RangeView, owned_bounds, prefix_bounds};
use crate::read::copy_value;
use crate::{Error, Keyspace, Result, Slice};

/// The state of every keyspace at one moment, unchanged by whatever is written, cleared or dropped afterwards.
///
/// Taken by [`Database::snapshot`](crate::Database::snapshot), or of the past by
/// [`Database::snapshot_at`](crate::Database::snapshot_at).
///
/// Cheap to take and to clone (one short lock). It pins sequence numbers, not files: while it is held, compaction keeps
/// the versions that it sees. It keeps the database open.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = lsm_facade::Database::open(dir.path())?;
/// let prices = database.keyspace("prices")?;
/// prices.insert("tea", "2")?;
/// let before = database.snapshot()?;
/// prices.insert("tea", "3")?;
/// assert_eq!(before.get(&prices, "tea")?.unwrap(), b"2");
/// assert_eq!(prices.get("tea")?.unwrap(), b"3");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Snapshot {
    handle: Arc<Handle>,
    registered: SnapshotHandle,
    /// Behind `registered`: fields are dropped in their order.
    _looks: LooksWhenDropped,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({})", self.seqno())
    }
}

impl Snapshot {
    /// Registers first; super versions are loaded after, when something is read (R1).
    pub(crate) fn new(handle: &Arc<Handle>) -> Self {
        let registered = handle.core.snapshots.register(handle.core.visible());
        Self::registered(handle, registered)
    }

    /// Registers a seqno of the past, if there is a keyspace that keeps it.
    pub(crate) fn at(handle: &Arc<Handle>, seqno: u64) -> Result<Self> {
        let core = &handle.core;
        core.raise_history_floors();
        let at = seqno_of(seqno, core.visible().load())?;
        let registered = core.snapshots.register_at(core.visible(), at).map_err(|error| match error {
            RegisterError::NotVisible { visible, .. } => Error::NotYetVisible { seqno, visible: visible.get() },
            RegisterError::BelowFloor { floor, .. } => {
                Error::HistoryGone { keyspace: None, seqno, oldest: floor.get() }
            }
            other => Error::InvalidInput { what: other.to_string() },
        })?;
        Ok(Self::registered(handle, registered))
    }

    fn registered(handle: &Arc<Handle>, registered: SnapshotHandle) -> Self {
        let looks = LooksWhenDropped::new(handle, registered.seqno());
        Self { handle: Arc::clone(handle), registered, _looks: looks }
    }

    /// Whether `keyspace` can be read through it: always, unless it was taken at a sequence number of the past
    /// ([`Database::snapshot_at`](crate::Database::snapshot_at)) to which the keyspace's history did not reach.
    pub fn keeps(&self, keyspace: &Keyspace) -> bool {
        self.registered.keeps(keyspace.shared.id)
    }

    /// The sequence number of the last write that it sees.
    pub fn seqno(&self) -> u64 {
        self.registered.seqno().get()
    }

    /// The value of `key` in `keyspace`.
    ///
    /// # Errors
    /// As [`Keyspace::get`]; [`Error::HistoryGone`] if the snapshot does not [keep](Self::keeps) the keyspace.
    pub fn get(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        let core = &self.handle.core;
        core.check_open()?;
        self.check_kept(keyspace)?;
        let super_version = core.super_version_at(&keyspace.shared, self.registered.seqno());
        core.get_in(&super_version, key.as_ref(), self.registered.seqno(), copy_value)
            .map_err(|error| core.read_failed(error))
    }

    /// Whether `key` has a value in `keyspace`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key(&self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<bool> {
        let core = &self.handle.core;
        core.check_open()?;
        self.check_kept(keyspace)?;
        let super_version = core.super_version_at(&keyspace.shared, self.registered.seqno());
        core.get_in(&super_version, key.as_ref(), self.registered.seqno(), |_| ())
            .map(|found| found.is_some())
            .map_err(|error| core.read_failed(error))
    }

    /// All rows of `keyspace`.
    pub fn iter(&self, keyspace: &Keyspace) -> Iter {
        Iter::new(self.view(keyspace, (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)))
    }

    /// The rows of `keyspace` whose keys lie in `range`. An inverted range is empty.
    pub fn range<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Iter {
        Iter::new(self.view(keyspace, owned_bounds(&range)))
    }

    /// The rows of `keyspace` whose keys begin with `prefix`.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: impl AsRef<[u8]>) -> Iter {
        Iter::new(self.view(keyspace, prefix_bounds(prefix.as_ref())))
    }

    /// A cursor over all rows of `keyspace`.
    pub fn cursor(&self, keyspace: &Keyspace) -> RangeCursor {
        RangeCursor::new(&self.view(keyspace, (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded)))
    }

    /// A cursor over the rows of `keyspace` whose keys lie in `range`.
    pub fn cursor_in<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> RangeCursor {
        RangeCursor::new(&self.view(keyspace, owned_bounds(&range)))
    }

    /// The row with the smallest key of `keyspace`.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn first_key_value(&self, keyspace: &Keyspace) -> Result<Option<(Slice, Slice)>> {
        self.iter(keyspace).next().transpose()
    }

    /// The row with the largest key of `keyspace`.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn last_key_value(&self, keyspace: &Keyspace) -> Result<Option<(Slice, Slice)>> {
        self.iter(keyspace).next_back().transpose()
    }

    fn check_kept(&self, keyspace: &Keyspace) -> Result<()> {
        match self.keeps(keyspace) {
            true => Ok(()),
            false => Err(self.handle.core.history_gone(&keyspace.shared, self.registered.seqno())),
        }
    }

    fn view(&self, keyspace: &Keyspace, bounds: KeyBounds) -> RangeView {
        let core = &self.handle.core;
        let seqno = self.registered.seqno();
        let refused = self.check_kept(keyspace).err();
        let super_version = match refused {
            None => core.super_version_at(&keyspace.shared, seqno),
            // Any will do: nothing is read of it.
            Some(_) => keyspace.shared.history.current_full(),
        };
        RangeView { handle: Arc::clone(&self.handle), super_version, seqno, bounds, refused: refused.map(Box::new) }
    }
}
