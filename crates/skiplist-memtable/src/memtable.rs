//! The memtable: reserve a range, fill it, and find what is there.

use std::sync::Arc;

use internal_key::{InternalKey, MAX_KEY_BYTES, SeqNo, Trailer, key_head};

use memory_budget::{Grant, MemoryBudget};
use planted_faults::planted;

use crate::MemtableCursor;
use crate::account::{Account, nodes_to_pay};
use crate::arena::{Arena, HandOut};
use crate::filter::{Fill, Filter, SegmentIndex};
use crate::list::{List, Position};
use crate::node_key::NodeKey;
use crate::sync::{AtomicU64, Ordering};

/// What an entry's node costs on the heap, estimated: its key (32), its counts (8), two levels on average (16), and what
/// a general-purpose allocator adds in headers and rounding. The test `accounting` measures it.
pub const NODE_BYTES: u64 = 69;

/// How a [`Memtable`] is laid out.
#[derive(Debug, Clone)]
pub struct MemtableOptions {
    /// Bytes of an arena chunk, once the memtable has grown; 4 KiB at least. The first chunks are smaller. Larger
    /// requests than a quarter of this get a chunk of their own.
    pub arena_chunk_bytes: usize,
    /// Filter bits for each key; 0 for no filter. With 16, about 1 absent key in 100 is searched for in vain.
    pub filter_bits_per_key: u32,
}

impl Default for MemtableOptions {
    fn default() -> Self {
        Self { arena_chunk_bytes: 256 << 10, filter_bits_per_key: 16 }
    }
}

/// What one writer asks of a memtable for its batch: see [`Memtable::reserve`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// The sum of [`Memtable::entry_bytes`] over its entries.
    pub bytes: usize,
    /// How many entries it will insert here; at least one.
    pub entries: u64,
    /// The lowest seqno among them, or a lower one above every earlier reservation.
    pub first_seqno: SeqNo,
    /// The highest seqno among them, or a higher one below every later reservation.
    pub last_seqno: SeqNo,
}

/// There is no room in the budget for what a reservation takes. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NoMemory {
    /// Bytes that the memtable would grow by.
    pub needed: u64,
}

/// Room in one memtable for one writer's entries. Filled by [`Memtable::insert`].
///
/// Dropped unfilled it only wastes its bytes; whether the writer may give up is the commit protocol's question.
#[derive(Debug)]
pub struct ArenaRange {
    /// Which memtable it belongs to.
    memtable: u64,
    /// The first byte not yet filled.
    next: *mut u8,
    bytes: usize,
    entries: u64,
    first_seqno: SeqNo,
    last_seqno: SeqNo,
    filter_segment: SegmentIndex,
    /// Whether this writer is to allocate the next chunk ahead of need.
    wants_spare: bool,
}

// SAFETY: the range is its holder's alone (K1), so that any thread may be that holder; it is only written through with
// its memtable at hand.
unsafe impl Send for ArenaRange {}
// SAFETY: `&ArenaRange` gives no access to the bytes.
unsafe impl Sync for ArenaRange {}

impl ArenaRange {
    /// Bytes not yet filled.
    pub fn remaining_bytes(&self) -> usize {
        self.bytes
    }

    /// Entries not yet inserted.
    pub fn remaining_entries(&self) -> u64 {
        self.entries
    }
}

/// A sorted, concurrent, insert-only buffer of versions. See the [crate documentation](crate).
///
/// Freeing one takes time in proportion to its entries (about 20 ns each): whoever may hold the last `Arc` of a big
/// memtable hands it to a worker instead of dropping it in a read or a write.
pub struct Memtable {
    /// Never reused in this process: tells a range of this memtable from one of another.
    id: u64,
    list: List,
    filter: Filter,
    /// Heads of the smallest and largest user key. Widened only (K6).
    min_head: AtomicU64,
    max_head: AtomicU64,
    arena: Arena,
    /// Touched inside `arena.alone` only.
    fill: std::cell::UnsafeCell<Fill>,
    // The figures below are stored by the thread in `reserve`, one at a time, with plain (Relaxed) stores. Relaxed is
    // enough: who needs them exact (the sealer, the flush) comes after the last reservation through the caller's
    // reservation lock or through the super version published under it; everyone else reads a figure.
    filter_bytes: AtomicU64,
    reserved_bytes: AtomicU64,
    reserved_entries: AtomicU64,
    first_seqno: AtomicU64,
    last_reserved_seqno: AtomicU64,
    /// Nodes that are paid for, of a memtable that is within a budget.
    nodes_paid: AtomicU64,
    /// Last, so that what is given back has been freed.
    account: Account,
}

// SAFETY: `fill` is touched by the thread inside `arena.alone` only; every other part is `Send + Sync`.
unsafe impl Send for Memtable {}
// SAFETY: as above.
unsafe impl Sync for Memtable {}

impl Memtable {
    /// An empty memtable. Allocates nothing but itself.
    pub fn new(options: &MemtableOptions) -> Self {
        Self::counted(options, None)
    }

    /// An empty memtable whose memory is taken of `budget`, which it may share with others, for as long as it lives (P13).
    /// What an empty one takes is taken at once, whatever there is.
    pub fn within(options: &MemtableOptions, budget: Arc<MemoryBudget>) -> Self {
        let memtable = Self::counted(options, Some(budget));
        memtable.account.take(size_of::<Self>() as u64);
        memtable
    }

    fn counted(options: &MemtableOptions, budget: Option<Arc<MemoryBudget>>) -> Self {
        /// Numbers memtables. Of std also under loom: it is no part of any protocol.
        static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        Self {
            // Relaxed: numbers only have to differ.
            id: NEXT_ID.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            list: List::new(),
            filter: Filter::new(options.filter_bits_per_key),
            min_head: AtomicU64::new(u64::MAX),
            max_head: AtomicU64::new(0),
            arena: Arena::new(options.arena_chunk_bytes),
            fill: std::cell::UnsafeCell::new(Fill::default()),
            filter_bytes: AtomicU64::new(0),
            reserved_bytes: AtomicU64::new(0),
            reserved_entries: AtomicU64::new(0),
            first_seqno: AtomicU64::new(0),
            last_reserved_seqno: AtomicU64::new(0),
            nodes_paid: AtomicU64::new(0),
            account: Account::new(budget),
        }
    }

    /// How many bytes of a [`Reservation`] an entry needs.
    #[inline]
    pub const fn entry_bytes(key_bytes: usize, value_bytes: usize) -> usize {
        key_bytes + value_bytes
    }

    /// Reserves room for one writer's entries.
    ///
    /// Called by one thread at a time, under the lock that also hands out seqnos, and so in seqno order. Costs a few
    /// plain stores; chunks of the arena are usually allocated ahead of need, outside of it, by [`insert`](Self::insert).
    ///
    /// A memtable that is within a budget takes of it what it needs, whatever there is: [`reserve_granted`](Self::reserve_granted)
    /// asks before.
    ///
    /// # Panics
    /// If another thread is inside (K1), if the seqnos are not above all reserved before (K7), or if there are fewer
    /// seqnos than entries.
    #[inline]
    pub fn reserve(&self, reservation: Reservation) -> ArenaRange {
        let take = |growth| {
            self.account.take(growth);
            true
        };
        match self.reserve_paid(reservation, take) {
            Ok(range) => range,
            Err(NoMemory { .. }) => unreachable!("it is taken whatever there is"),
        }
    }

    /// [`reserve`](Self::reserve) within a budget: what the memtable grows by is paid out of `grant`, which is grown if it is too
    /// small (P13). `grant` must be of this memtable's budget.
    ///
    /// # Errors
    /// If there is no room for what it takes. Nothing has changed.
    ///
    /// # Panics
    /// As [`reserve`](Self::reserve).
    #[inline]
    pub fn reserve_granted(&self, reservation: Reservation, grant: &mut Grant<'_>) -> Result<ArenaRange, NoMemory> {
        self.reserve_paid(reservation, |growth| {
            let granted = grant.grow_to(growth);
            if granted {
                grant.spend(growth);
                self.account.owes(growth);
            }
            granted
        })
    }

    /// How many bytes a reservation would take of the budget now; 0 without one. Called as [`reserve`](Self::reserve) is: it is exact
    /// until the next reservation, or too much by a chunk that was made ahead meanwhile.
    pub fn growth(&self, bytes: usize, entries: u64) -> u64 {
        // SAFETY: inside `alone`, so on one thread at a time.
        self.arena.alone(|arena| self.growth_alone(&arena, unsafe { &*self.fill.get() }, bytes, entries))
    }

    /// What a reservation takes of the budget. Inside `alone`.
    #[inline]
    fn growth_alone(&self, arena: &HandOut<'_>, fill: &Fill, bytes: usize, entries: u64) -> u64 {
        if !self.account.is_kept() {
            return 0;
        }
        arena.growth(bytes) + self.filter.growth(fill, entries) + self.nodes_growth(entries) * NODE_BYTES
    }

    /// How many nodes are to be paid for, so that `more` can be made. Inside `alone`.
    #[inline]
    fn nodes_growth(&self, more: u64) -> u64 {
        // Relaxed: see the fields.
        let entries = self.reserved_entries.load(Ordering::Relaxed);
        let missing = (entries + more).saturating_sub(self.nodes_paid.load(Ordering::Relaxed));
        if missing == 0 { 0 } else { nodes_to_pay(entries, missing) }
    }

    /// Reserves if `pay` has paid for what the memtable grows by; it is asked only if that is something.
    #[inline]
    fn reserve_paid(&self, reservation: Reservation, pay: impl FnOnce(u64) -> bool) -> Result<ArenaRange, NoMemory> {
        let Reservation { bytes, entries, first_seqno, last_seqno } = reservation;
        self.arena.alone(|mut arena| {
            // Relaxed, all of them: see the fields.
            let last = self.last_reserved_seqno.load(Ordering::Relaxed);
            let earlier_entries = self.reserved_entries.load(Ordering::Relaxed);
            assert!(
                entries > 0 && first_seqno.get() > last && last_seqno.get() - first_seqno.get() >= entries - 1,
                "K7: {entries} entries at {first_seqno}..={last_seqno} after #{last}"
            );
            // SAFETY: inside `alone`, so on one thread at a time.
            let fill = unsafe { &mut *self.fill.get() };
            let needed = self.growth_alone(&arena, fill, bytes, entries);
            if needed > 0 {
                let nodes = self.nodes_growth(entries);
                if !pay(needed) {
                    return Err(NoMemory { needed });
                }
                self.nodes_paid.store(self.nodes_paid.load(Ordering::Relaxed) + nodes, Ordering::Relaxed);
            }
            let (filter_segment, allocated) = self.filter.reserve(fill, entries);
            if allocated != 0 {
                self.filter_bytes.store(self.filter_bytes.load(Ordering::Relaxed) + allocated, Ordering::Relaxed);
            }
            let taken = arena.take(bytes);
            if earlier_entries == 0 {
                self.first_seqno.store(first_seqno.get(), Ordering::Relaxed);
            }
            let earlier_bytes = self.reserved_bytes.load(Ordering::Relaxed);
            self.reserved_bytes.store(earlier_bytes + bytes as u64, Ordering::Relaxed);
            self.reserved_entries.store(earlier_entries + entries, Ordering::Relaxed);
            self.last_reserved_seqno.store(last_seqno.get(), Ordering::Relaxed);
            Ok(ArenaRange {
                memtable: self.id,
                next: taken.start,
                bytes,
                entries,
                first_seqno,
                last_seqno,
                filter_segment,
                wants_spare: taken.wants_spare,
            })
        })
    }

    /// Inserts one entry into its writer's range. Any number of threads in parallel, each with its own range.
    ///
    /// When it returns the entry is linked. Readers are to learn of it by the caller's own Release (`visible`): only from
    /// there on are [`get`](Self::get) and [`may_contain`](Self::may_contain) certain to find it.
    ///
    /// # Panics
    /// If the range is another memtable's, too small, or of other seqnos; if key or value are longer than
    /// [`MAX_KEY_BYTES`] and [`MAX_VALUE_BYTES`](internal_key::MAX_VALUE_BYTES); if the memtable holds the same internal
    /// key already (K5).
    #[inline]
    pub fn insert(&self, range: &mut ArenaRange, user_key: &[u8], trailer: Trailer, value: &[u8]) {
        let key = self.place(range, user_key, trailer, value);
        self.link(key);
        if range.wants_spare {
            range.wants_spare = false;
            self.arena.prepare_spare(&self.account);
        }
    }

    /// All of an insertion but the link: the entry lies in its range and is noted in the filter, and nobody finds it yet.
    #[inline]
    pub(crate) fn place(&self, range: &mut ArenaRange, user_key: &[u8], trailer: Trailer, value: &[u8]) -> NodeKey {
        let key = self.fill_range(range, user_key, trailer, value);
        // Before the entry is linked, though any place before the caller's Release would do (K6).
        self.filter.insert(range.filter_segment, key_hash(user_key));
        self.widen(key.head());
        key
    }

    /// Links an entry that was [placed](Self::place) here, and so points into this arena (K2).
    #[inline]
    pub(crate) fn link(&self, key: NodeKey) {
        let linked = self.list.insert(key);
        assert!(linked, "K5: {} is inserted twice", InternalKey::new(key.user_key(), key.trailer()));
    }

    /// Copies the entry into the range.
    #[inline]
    fn fill_range(&self, range: &mut ArenaRange, user_key: &[u8], trailer: Trailer, value: &[u8]) -> NodeKey {
        let bytes = Self::entry_bytes(user_key.len(), value.len());
        let seqno = trailer.seqno();
        assert!(
            range.memtable == self.id
                && bytes <= range.bytes
                && range.entries > 0
                && (range.first_seqno..=range.last_seqno).contains(&seqno),
            "K1: {bytes} bytes at {seqno} do not fit into {range:?} of memtable {}",
            self.id
        );
        assert!(user_key.len() <= MAX_KEY_BYTES, "a key of {} bytes", user_key.len());
        let value_bytes = u32::try_from(value.len()).expect("values are shorter than 4 GiB");
        let start = range.next;
        // SAFETY: `range.bytes` bytes from `next` are this range's alone (K1), not read by anyone before the node is
        // linked, and alive as long as this memtable, whose id the range carries. Fresh, so they overlap no argument.
        unsafe {
            start.copy_from_nonoverlapping(user_key.as_ptr(), user_key.len());
            start.add(user_key.len()).copy_from_nonoverlapping(value.as_ptr(), value.len());
        }
        // SAFETY: `bytes <= range.bytes`.
        range.next = unsafe { start.add(bytes) };
        range.bytes -= bytes;
        range.entries -= 1;
        // SAFETY: just copied so; the range has moved past the bytes, which live as long as the list beside them (K2).
        unsafe { NodeKey::of_entry(user_key, trailer, start, value_bytes) }
    }

    /// Widens the range of heads to `head`.
    #[inline]
    fn widen(&self, head: u64) {
        // Relaxed, and read first so that the line stays shared: see K6, it holds for these two words as well.
        if head < self.min_head.load(Ordering::Relaxed) {
            self.min_head.fetch_min(head, Ordering::Relaxed);
        }
        if head > self.max_head.load(Ordering::Relaxed) && !planted("memtable-largest-head-not-raised") {
            self.max_head.fetch_max(head, Ordering::Relaxed);
        }
    }

    /// Whether a version of `user_key`, whose [`key_hash`] is `hash`, may be here. False is certain for every entry that
    /// happened before the call (K6), so for every entry that a reader may see.
    ///
    /// Costs a comparison of heads and one load for each segment of the filter (two to four).
    #[inline]
    pub fn may_contain(&self, hash: u64, user_key: &[u8]) -> bool {
        let head = key_head(user_key);
        // Relaxed: K6.
        self.min_head.load(Ordering::Relaxed) <= head
            && head <= self.max_head.load(Ordering::Relaxed)
            && self.filter.may_contain(hash)
    }

    /// The newest version of `user_key` at or below `seqno`, whatever its kind. `hash` is [`key_hash`] of the key.
    ///
    /// Takes no lock, writes nothing, allocates nothing.
    #[inline]
    pub fn get(&self, user_key: &[u8], hash: u64, seqno: SeqNo) -> Option<(Trailer, &[u8])> {
        if !self.may_contain(hash, user_key) {
            return None;
        }
        // SAFETY: used in this call only.
        let target = unsafe { NodeKey::of_target(InternalKey::seek(user_key, seqno)) };
        let found = self.list.at_or_after(&target)?.key();
        found.same_user_key(&target).then(|| (found.trailer(), found.value()))
    }

    /// A cursor over all entries, also those inserted later.
    pub fn cursor(self: &Arc<Self>) -> MemtableCursor {
        MemtableCursor::new(Arc::clone(self))
    }

    /// The smallest and the largest user key, or `None` if there is no entry. Exact once every reservation is filled.
    pub fn key_range(&self) -> Option<(&[u8], &[u8])> {
        Some((self.list.first()?.key().user_key(), self.list.last()?.key().user_key()))
    }

    /// The `first_seqno` of the first reservation, or `None` before it.
    pub fn first_seqno(&self) -> Option<SeqNo> {
        // Relaxed: see the field.
        SeqNo::new(self.first_seqno.load(Ordering::Relaxed)).filter(|&seqno| seqno > SeqNo::ZERO)
    }

    /// The highest seqno reserved; `SeqNo::ZERO` before the first. A sealed memtable is complete when `visible` has passed
    /// it (P4). Read it under the reservation lock or after the memtable was sealed.
    pub fn last_reserved_seqno(&self) -> SeqNo {
        // Relaxed: see the field.
        SeqNo::new(self.last_reserved_seqno.load(Ordering::Relaxed)).expect("stored from a SeqNo")
    }

    /// Entries reserved so far; all of them inserted once [`is_complete`](Self::is_complete).
    pub fn entries(&self) -> u64 {
        // Relaxed: see the field.
        self.reserved_entries.load(Ordering::Relaxed)
    }

    /// Whether nothing was ever reserved.
    pub fn is_empty(&self) -> bool {
        self.entries() == 0
    }

    /// Whether every reserved entry is inserted: what a flush asserts before it begins (P4).
    pub fn is_complete(&self) -> bool {
        self.list.len() as u64 == self.entries()
    }

    /// Bytes of keys and values reserved so far, exactly.
    pub fn data_bytes(&self) -> u64 {
        // Relaxed: see the field.
        self.reserved_bytes.load(Ordering::Relaxed)
    }

    /// Memory held: chunks and filter exactly, nodes at [`NODE_BYTES`] each.
    pub fn memory_usage(&self) -> u64 {
        // Relaxed: see the fields.
        size_of::<Self>() as u64
            + self.arena.allocated_bytes()
            + self.filter_bytes.load(Ordering::Relaxed)
            + self.entries() * NODE_BYTES
    }

    /// What it has taken of its budget, [`memory_usage`](Self::memory_usage) and a little ahead; 0 without one.
    pub fn taken_bytes(&self) -> u64 {
        self.account.bytes()
    }

    pub(crate) fn list(&self) -> &List {
        &self.list
    }
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memtable")
            .field("entries", &self.entries())
            .field("data_bytes", &self.data_bytes())
            .field("first_seqno", &self.first_seqno())
            .field("last_reserved_seqno", &self.last_reserved_seqno())
            .finish()
    }
}

/// Draws every entry in order, as golden scripts write it: `a#9 put=x`, one a line.
impl std::fmt::Display for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut at = self.list.first();
        while let Some(position) = at {
            let key = position.key();
            let drawn = InternalKey::new(key.user_key(), key.trailer());
            match key.value() {
                [] => writeln!(f, "{drawn}")?,
                value => writeln!(f, "{drawn}={}", value.escape_ascii())?,
            }
            at = Position::next(&position);
        }
        Ok(())
    }
}

/// The hash of a user key that filters use, here and in tables: XXH3 with 64 bits, no seed. Computed once for a read.
#[inline]
pub fn key_hash(user_key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(user_key)
}
