//! Walking a memtable.

use std::convert::Infallible;
use std::sync::Arc;

use internal_key::{Cursor, InternalKey, Trailer};

use crate::Memtable;
use crate::list::Position;
use crate::node_key::NodeKey;

/// A cursor over a memtable, which it keeps alive. `Send + 'static`; nothing is pinned, neither in a call nor between.
///
/// It walks the list as it is at each step, so that entries inserted after its making appear; which of them a reader may
/// see is decided above, by seqno. A step forwards costs a pointer or two; a step backwards is a search from the top.
pub struct MemtableCursor {
    /// A node of `memtable`'s list, borrowed for as long as `memtable` is held (K4).
    at: Option<Position<'static>>,
    memtable: Arc<Memtable>,
}

impl MemtableCursor {
    /// A cursor that stands on no entry.
    pub fn new(memtable: Arc<Memtable>) -> Self {
        Self { at: None, memtable }
    }

    /// The memtable that is walked.
    pub fn memtable(&self) -> &Arc<Memtable> {
        &self.memtable
    }

    /// Stands on what `find` finds.
    #[inline]
    fn stand(&mut self, find: impl for<'a> FnOnce(&'a Memtable) -> Option<Position<'a>>) -> Result<(), Infallible> {
        // SAFETY: a longer lifetime for the borrow of the memtable behind `self.memtable`, which does not move (it is
        // behind an `Arc`), is not dropped before `self`, and whose nodes stay where they are until then (K4). No
        // method lends a position, or what it points to, for longer than `&self`.
        let memtable: &'static Memtable = unsafe { &*Arc::as_ptr(&self.memtable) };
        self.at = find(memtable);
        Ok(())
    }

    #[inline]
    fn here(&self) -> &NodeKey {
        self.at.as_ref().expect("the cursor stands on an entry").key()
    }
}

impl std::fmt::Debug for MemtableCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.at.as_ref().map(|at| InternalKey::new(at.key().user_key(), at.key().trailer()));
        f.debug_struct("MemtableCursor").field("at", &at).field("memtable", &self.memtable).finish()
    }
}

impl Cursor for MemtableCursor {
    type Error = Infallible;

    #[inline]
    fn valid(&self) -> bool {
        self.at.is_some()
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

    #[inline]
    fn value(&mut self) -> Result<&[u8], Infallible> {
        Ok(self.here().value())
    }

    fn seek_to_first(&mut self) -> Result<(), Infallible> {
        self.stand(|memtable| memtable.list().first())
    }

    fn seek_to_last(&mut self) -> Result<(), Infallible> {
        self.stand(|memtable| memtable.list().last())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        // SAFETY: used in this call only.
        let target = unsafe { NodeKey::of_target(target) };
        self.stand(|memtable| memtable.list().at_or_after(&target))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        // SAFETY: used in this call only.
        let target = unsafe { NodeKey::of_target(target) };
        self.stand(|memtable| memtable.list().before(&target))
    }

    #[inline]
    fn next(&mut self) -> Result<(), Infallible> {
        self.at = self.at.as_ref().and_then(Position::next);
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<(), Infallible> {
        self.at = self.at.as_ref().and_then(Position::prev);
        Ok(())
    }
}
