//! Tables open lazily, and no more of them than a limit: descriptors and maps are limited resources.
//!
//! ```text
//!   table handle ─▶ TableSlot ─▶ reader (or nothing)      hot read: one load, under the caller's epoch pin
//!                       ▲
//!   TableCache ─ ring ──┘ weak    clock: a used slot gets a second chance, an unused one is emptied
//!                 └ retired       readers that no pinned thread can see any more, dropped by the next opener
//! ```
//!
//! - A reader that [`TableSlot::get`] lends stays whole until the guard it was asked with is dropped: an evicted reader
//!   goes to the retired list only when every thread that was pinned at its eviction has been unpinned since.
//! - A slot is in the ring exactly while it holds a reader: pointer and ring change together, under the ring's lock.
//! - **P13** Within a budget, a table's memory is counted from its opening until its last reader lets go of it, and whoever opens one
//!   beyond what there is room for evicts others.
//! - **R4** No reading thread closes or unmaps: what is evicted is dropped by an opener, or by [`TableCache::collect`].

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Weak};

use crossbeam_epoch::{Atomic, Guard, Shared};
use file_system::FileSystem;
use memory_budget::MemoryBudget;

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, UnmodelledMutex};
use crate::{Expected, FileNumber, ReadOptions, TableError, TableReader};

/// A place for one table's reader, empty until somebody opens the table. Lives in the handle that versions share.
pub struct TableSlot {
    inner: Arc<Inner>,
}

struct Inner {
    /// Null, or an `Arc<TableReader>` as a raw pointer, of which the slot owns one count.
    reader: Atomic<TableReader>,
    /// Whether somebody read since the clock's hand last came by.
    used: AtomicBool,
    /// Held while the table is opened, so that it is opened once.
    opening: Mutex<()>,
    /// Stays, so that blocks in the block cache outlive an eviction of their reader.
    number: FileNumber,
}

impl TableSlot {
    /// An empty slot.
    pub fn new() -> Self {
        let inner = Inner {
            reader: Atomic::null(),
            used: AtomicBool::new(false),
            opening: Mutex::new(()),
            number: FileNumber::fresh(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The open reader, if there is one: one load, no lock, and a shared write only if the clock's hand came by since
    /// the last call.
    #[inline]
    pub fn get<'g>(&'g self, guard: &'g Guard) -> Option<&'g TableReader> {
        self.inner.get(guard)
    }

    /// A share of the open reader, if there is one, for a cursor that outlives the guard.
    pub fn share(&self, guard: &Guard) -> Option<Arc<TableReader>> {
        self.get(guard).map(|reader| {
            let reader: *const TableReader = reader;
            // SAFETY: the pointer came from `Arc::into_raw` and its count is held by the slot, or by the eviction that
            // is deferred until `guard` and every other present pin is gone; so it is not zero while we add to it.
            unsafe {
                Arc::increment_strong_count(reader);
                Arc::from_raw(reader)
            }
        })
    }
}

impl Default for TableSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TableSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guard = crossbeam_epoch::pin();
        match self.get(&guard) {
            Some(reader) => write!(f, "TableSlot({reader:?})"),
            None => f.write_str("TableSlot(empty)"),
        }
    }
}

impl Inner {
    #[inline]
    fn get<'g>(&'g self, guard: &'g Guard) -> Option<&'g TableReader> {
        // Acquire pairs with the Release in `TableCache::open`: who sees the pointer sees the whole reader.
        let reader = self.reader.load(Ordering::Acquire, guard);
        // SAFETY: the pointer is null or came from `Arc::into_raw`. The slot's count is given up in three ways: at
        // eviction, which defers the drop until `guard`'s pin is over; when the slot is dropped, which the borrow of
        // `self` excludes; never otherwise.
        let reader = unsafe { reader.as_ref() }?;
        // Relaxed: a hint for the clock, which loses nothing by a late or lost one. Written only if not yet set, so that
        // reads do not fight for the line.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(reader)
    }

    /// Empties the slot and returns what was in it.
    fn take(&self, guard: &Guard) -> Option<Arc<TableReader>> {
        // Acquire pairs with the Release in `TableCache::open`; nothing is published by the null.
        let reader = self.reader.swap(Shared::null(), Ordering::Acquire, guard);
        // SAFETY: a pointer in the slot came from `Arc::into_raw` with one count, which the swap hands to us alone.
        (!reader.is_null()).then(|| unsafe { Arc::from_raw(reader.as_raw()) })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: nobody else holds the slot, so no guard protects a pointer loaded from it.
        let guard = unsafe { crossbeam_epoch::unprotected() };
        drop(self.take(guard));
    }
}

/// Opens tables into their slots and keeps at most so many of them open.
pub struct TableCache {
    files: Arc<dyn FileSystem>,
    options: ReadOptions,
    tables_max: usize,
    /// What open tables hold is counted here; `None`: nowhere.
    budget: Option<Arc<MemoryBudget>>,
    ring: Mutex<Ring>,
    retired: Arc<Readers>,
    opened: AtomicU64,
    evicted: AtomicU64,
}

/// Evicted readers.
type Readers = UnmodelledMutex<Vec<Arc<TableReader>>>;

/// The slots that hold a reader, and the clock's hand. Slots that were dropped remain until the hand meets them.
#[derive(Default)]
struct Ring {
    slots: Vec<Weak<Inner>>,
    hand: usize,
}

/// What `retired` holds, changed by `change`.
fn with_retired<R>(retired: &Readers, change: impl FnOnce(&mut Vec<Arc<TableReader>>) -> R) -> R {
    #[cfg(not(loom))]
    let mut readers = retired.lock();
    #[cfg(loom)]
    let mut readers = retired.lock().expect("nothing panics under this lock");
    change(&mut readers)
}

impl TableCache {
    /// A cache of at most `tables_max` (at least 1) open tables, all read with `options`.
    ///
    /// The limit holds for what slots keep open. Cursors keep their table beyond it, and so do pinned threads an evicted
    /// one for a moment.
    pub fn new(files: Arc<dyn FileSystem>, options: ReadOptions, tables_max: usize) -> Self {
        Self {
            files,
            options,
            tables_max: tables_max.max(1),
            budget: None,
            ring: Mutex::default(),
            retired: Arc::default(),
            opened: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    /// The same cache, which counts what its tables hold in `budget` and keeps within it (P13): see
    /// [`MemoryBudget::tables_over`].
    pub fn within(self, budget: Arc<MemoryBudget>) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// The reader in `slot`, opened from `path` if the slot is empty. Threads that want the same table wait for one
    /// opening; different tables open in parallel. May close other tables.
    ///
    /// # Errors
    /// As [`TableReader::open`]. The slot stays empty and the next call tries again.
    pub fn open<'g>(
        &self,
        slot: &'g TableSlot,
        path: &Path,
        expected: Expected,
        guard: &'g Guard,
    ) -> Result<&'g TableReader, TableError> {
        if let Some(reader) = slot.get(guard) {
            return Ok(reader);
        }
        let opening = slot.inner.opening.lock();
        if let Some(reader) = slot.get(guard).filter(|_| !planted_faults::planted("table-opened-by-everyone-who-waits"))
        {
            return Ok(reader);
        }
        let options = self.options.clone();
        let mut reader = TableReader::open_numbered(&*self.files, path, expected, options, slot.inner.number)?;
        reader.memory = self.budget.as_ref().map(|budget| budget.table(reader.memory_bytes() as u64));
        // Relaxed: counts for display.
        self.opened.fetch_add(1, Ordering::Relaxed);
        let reader = Arc::into_raw(Arc::new(reader));
        {
            let mut ring = self.ring.lock();
            self.make_room(&mut ring, guard);
            ring.slots.push(Arc::downgrade(&slot.inner));
            slot.inner.used.store(true, Ordering::Relaxed); // a hint, as in `get`
            // Release pairs with the Acquire in `Inner::get`. Under the ring's lock, so that no clock meets a slot in the
            // ring that is still empty and takes it out.
            slot.inner.reader.store(Shared::from(reader), Ordering::Release);
        }
        drop(opening);
        self.drop_retired();
        // SAFETY: the slot owned a count when the pointer was stored; an eviction since then is deferred past `guard`.
        Ok(unsafe { &*reader })
    }

    /// A share of the reader in `slot`, opened if need be, for a cursor that outlives the guard.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn share(
        &self,
        slot: &TableSlot,
        path: &Path,
        expected: Expected,
        guard: &Guard,
    ) -> Result<Arc<TableReader>, TableError> {
        let reader: *const TableReader = self.open(slot, path, expected, guard)?;
        // SAFETY: as in `TableSlot::share`: `open` lends it from the slot under `guard`.
        unsafe {
            Arc::increment_strong_count(reader);
            Ok(Arc::from_raw(reader))
        }
    }

    /// Evicts tables so that memtables find room for `wanted` bytes, or until only so many are open as have their memory for
    /// themselves. What it evicts is freed once nobody reads it: see [`collect`](Self::collect).
    pub fn make_room_for_memtables(&self, wanted: u64) {
        let guard = crossbeam_epoch::pin();
        self.evict_while(&mut self.ring.lock(), &guard, |_| self.is_over(wanted));
    }

    /// Whether open tables hold more than they may if memtables want so much.
    fn is_over(&self, wanted: u64) -> bool {
        let over = |budget: &Arc<MemoryBudget>| budget.tables_over(wanted) > 0;
        self.budget.as_ref().is_some_and(over) && !planted_faults::planted("table-memory-without-end")
    }

    /// Moves the hand until one more slot fits.
    fn make_room(&self, ring: &mut Ring, guard: &Guard) {
        self.evict_while(ring, guard, |ring| ring.slots.len() >= self.tables_max || self.is_over(0));
    }

    fn evict_while(&self, ring: &mut Ring, guard: &Guard, is_too_much: impl Fn(&Ring) -> bool) {
        let before = ring.slots.len();
        // Two rounds meet every slot once with its flag cleared; the third takes what comes.
        let mut chances = ring.slots.len() * 2;
        while is_too_much(ring) && !ring.slots.is_empty() {
            ring.hand = if ring.hand < ring.slots.len() { ring.hand } else { 0 };
            let Some(slot) = ring.slots[ring.hand].upgrade() else {
                ring.slots.swap_remove(ring.hand);
                continue;
            };
            // Relaxed: a hint, as in `get`.
            if chances > 0 && slot.used.swap(false, Ordering::Relaxed) {
                ring.hand += 1;
                chances -= 1;
                continue;
            }
            ring.slots.swap_remove(ring.hand);
            if let Some(reader) = slot.take(guard) {
                self.evicted.fetch_add(1, Ordering::Relaxed); // a count for display
                if let Some(memory) = &reader.memory {
                    memory.leaves();
                }
                self.retire(reader, guard);
            }
        }
        if ring.slots.len() < before && self.budget.as_ref().is_some_and(|budget| budget.is_limited()) {
            // What was evicted by the openings before is freed now, and not when some dozens have come together.
            guard.flush();
        }
    }

    /// Hands an evicted reader to the retired list once no pinned thread can hold what the slot lent.
    fn retire(&self, reader: Arc<TableReader>, guard: &Guard) {
        let retired = Arc::clone(&self.retired);
        if planted_faults::planted("table-evicted-reader-dropped-at-once") {
            drop(reader);
            return;
        }
        guard.defer(move || with_retired(&retired, |retired| retired.push(reader)));
    }

    fn drop_retired(&self) {
        let readers = with_retired(&self.retired, std::mem::take);
        drop(readers); // outside of the lock: unmapping takes its time
    }

    /// Closes what was evicted and is no longer seen by anybody. For a worker, now and then; openers do the same.
    pub fn collect(&self) {
        for _ in 0..3 {
            // Each round lets the epoch advance by one if nobody is in its way; garbage is two epochs old when it goes.
            crossbeam_epoch::pin().flush();
        }
        self.drop_retired();
    }

    /// How many tables were opened, and how many of them were evicted, since the cache was made.
    pub fn opened_and_evicted(&self) -> (u64, u64) {
        // Relaxed: counts for display.
        (self.opened.load(Ordering::Relaxed), self.evicted.load(Ordering::Relaxed))
    }

    /// How many slots hold a reader now.
    pub fn open_tables(&self) -> usize {
        self.ring.lock().slots.iter().filter(|slot| slot.strong_count() > 0).count()
    }

    /// How many evicted readers wait for their turn to be closed.
    pub fn retired_tables(&self) -> usize {
        with_retired(&self.retired, |retired| retired.len())
    }
}

impl fmt::Debug for TableCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableCache({} of {} open)", self.open_tables(), self.tables_max)
    }
}
