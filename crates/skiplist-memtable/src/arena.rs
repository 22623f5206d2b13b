//! Where the bytes of keys and values lie: chunks that are filled from the front and freed together.
//!
//! ```text
//!   chunks   [xxxxxxxx][xxxxxxxxxxxxxxx-][xxxxxxxxxxxx|AAAAA|BB|··········]      spare [··········]
//!                                         handed out ─────────┘▲            └─ room          └─ made ahead of need
//!                                         A and B are filled by their writers, in parallel
//! ```
//!
//! - **K1** Every byte is handed out at most once: ranges are disjoint, and only the holder of a range writes to it.
//! - **K2** Bytes that a node points to are never written again, moved, or freed before the arena is dropped.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::ptr::{NonNull, null_mut};

use planted_faults::planted;

use crate::account::Account;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// The first chunk of an arena; each further one is twice as large, up to the size asked for. So a memtable of a few
/// entries costs a page.
const FIRST_CHUNK_BYTES: usize = 4 << 10;

/// A request above this part of the next chunk gets a chunk of its own, so that at most that part of a chunk is lost.
const OWN_CHUNK_FRACTION: usize = 4;

/// Chunks of bytes, handed out from front to back.
pub(crate) struct Arena {
    chunk_bytes_max: usize,
    /// Set while a thread is in `hand_out`, so that two can never be.
    handing_out: AtomicBool,
    /// Guarded by `handing_out`.
    state: UnsafeCell<State>,
    /// A chunk of `chunk_bytes_max`, made ahead of need by a writer, or null.
    spare: AtomicPtr<u8>,
    /// Bytes of all chunks, the spare included.
    allocated_bytes: AtomicU64,
}

/// The part of an arena that only the thread in `hand_out` touches.
struct State {
    chunks: Vec<Chunk>,
    /// The room left in the chunk that is being filled.
    next: *mut u8,
    room: usize,
    next_chunk_bytes: usize,
}

struct Chunk {
    start: NonNull<u8>,
    bytes: usize,
}

/// Bytes handed out to one writer.
pub(crate) struct Bytes {
    pub(crate) start: *mut u8,
    /// Whether the writer should call [`Arena::prepare_spare`] once it is out of the reservation.
    pub(crate) wants_spare: bool,
}

// SAFETY: `state` is touched by the thread that holds `handing_out` only, and by `drop`; chunks are plain memory.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena that owns nothing yet.
    pub(crate) fn new(chunk_bytes_max: usize) -> Self {
        let chunk_bytes_max = chunk_bytes_max.clamp(FIRST_CHUNK_BYTES, isize::MAX as usize / 2);
        let state = State { chunks: Vec::new(), next: null_mut(), room: 0, next_chunk_bytes: FIRST_CHUNK_BYTES };
        Self {
            chunk_bytes_max,
            handing_out: AtomicBool::new(false),
            state: UnsafeCell::new(state),
            spare: AtomicPtr::new(null_mut()),
            allocated_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes of all chunks.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        // Relaxed: a figure, nothing is reached through it.
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    /// Runs `body` in the section that one thread at a time may be in.
    ///
    /// # Panics
    /// If another thread is inside: K1 rests on the caller's lock, and a broken lock must not become two writers in
    /// one range.
    #[inline]
    pub(crate) fn alone<R>(&self, body: impl FnOnce(HandOut<'_>) -> R) -> R {
        // Acquire pairs with the Release below: this thread sees the state as the one before it left it. The caller's
        // lock gives the same; this makes the function sound without trusting it, for one exchange on a line that the
        // next lines write anyway.
        let entered = self.handing_out.swap(true, Ordering::Acquire);
        assert!(!entered, "K1: two threads reserve in one memtable at the same time");
        let result = body(HandOut { arena: self });
        self.handing_out.store(false, Ordering::Release);
        result
    }

    /// Allocates the next chunk ahead of need, outside the reservation. Does nothing if there is one already, or if there
    /// is no room for it.
    #[cold]
    pub(crate) fn prepare_spare(&self, account: &Account) {
        // Relaxed: a hint that saves an allocation; the exchange below decides.
        if !self.spare.load(Ordering::Relaxed).is_null() || !account.try_take(self.chunk_bytes_max as u64) {
            return;
        }
        let chunk = Chunk::allocate(self.chunk_bytes_max);
        // Release pairs with the Acquire in `take_spare`. On failure another writer was first: Relaxed.
        match self.spare.compare_exchange(null_mut(), chunk.start.as_ptr(), Ordering::Release, Ordering::Relaxed) {
            Ok(_) => {
                // Relaxed: a figure.
                self.allocated_bytes.fetch_add(self.chunk_bytes_max as u64, Ordering::Relaxed);
            }
            Err(_) => {
                chunk.free();
                account.give_back(self.chunk_bytes_max as u64);
            }
        }
    }

    /// Whether the next chunk has its full size, and whether a request that finds no room gets one of its own.
    fn next_chunk(&self, state: &State, bytes: usize) -> (bool, bool) {
        (state.next_chunk_bytes == self.chunk_bytes_max, bytes > state.next_chunk_bytes / OWN_CHUNK_FRACTION)
    }

    fn take_spare(&self) -> Option<Chunk> {
        // Acquire pairs with the Release in `prepare_spare`.
        let start = NonNull::new(self.spare.swap(null_mut(), Ordering::Acquire))?;
        Some(Chunk { start, bytes: self.chunk_bytes_max })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(spare) = self.take_spare() {
            spare.free();
        }
        for chunk in self.state.get_mut().chunks.drain(..) {
            chunk.free();
        }
    }
}

/// The right to hand out bytes, held by one thread at a time.
pub(crate) struct HandOut<'a> {
    arena: &'a Arena,
}

impl HandOut<'_> {
    /// How many bytes [`take`](Self::take) would allocate for `bytes` bytes, if nobody makes a spare chunk meanwhile.
    #[inline]
    pub(crate) fn growth(&self, bytes: usize) -> u64 {
        // SAFETY: as in `take`; nothing else is borrowed of it meanwhile.
        let state = unsafe { &*self.arena.state.get() };
        if bytes <= state.room { 0 } else { self.growth_of_new_chunk(state, bytes) }
    }

    #[cold]
    fn growth_of_new_chunk(&self, state: &State, bytes: usize) -> u64 {
        let (full_size, own) = self.arena.next_chunk(state, bytes);
        // Relaxed: a spare that is there stays, for only `take_from_new_chunk` takes it.
        match full_size && !own && !self.arena.spare.load(Ordering::Relaxed).is_null() {
            true => 0,
            false => {
                if own {
                    bytes as u64
                } else {
                    state.next_chunk_bytes as u64
                }
            }
        }
    }

    /// `bytes` bytes that nobody else gets, not yet initialised. For no bytes, a pointer that is not null.
    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> Bytes {
        // SAFETY: a `HandOut` exists only inside `alone`, on one thread at a time, and lends this for one call.
        let state = unsafe { &mut *self.arena.state.get() };
        if bytes > state.room {
            return self.take_from_new_chunk(bytes);
        }
        let start = if bytes == 0 { NonNull::dangling().as_ptr() } else { state.next };
        // SAFETY: `room` bytes are left from `next` in its chunk, and `bytes` is no more.
        state.next = unsafe { state.next.add(bytes - usize::from(bytes > 0 && planted("memtable-ranges-overlap"))) };
        state.room -= bytes;
        Bytes { start, wants_spare: false }
    }

    #[cold]
    fn take_from_new_chunk(&mut self, bytes: usize) -> Bytes {
        let arena = self.arena;
        // SAFETY: as in `take`.
        let state = unsafe { &mut *arena.state.get() };
        let (full_size, own) = arena.next_chunk(state, bytes);
        let spare = if full_size && !own { arena.take_spare() } else { None };
        let chunk = spare.unwrap_or_else(|| {
            let chunk = Chunk::allocate(if own { bytes } else { state.next_chunk_bytes });
            // Relaxed: a figure.
            arena.allocated_bytes.fetch_add(chunk.bytes as u64, Ordering::Relaxed);
            chunk
        });
        let start = chunk.start.as_ptr();
        if !own {
            // SAFETY: `bytes` is at most a quarter of the chunk.
            state.next = unsafe { start.add(bytes) };
            state.room = chunk.bytes - bytes;
            state.next_chunk_bytes = (state.next_chunk_bytes * 2).min(arena.chunk_bytes_max);
        }
        state.chunks.push(chunk);
        Bytes { start, wants_spare: !own && full_size }
    }
}

impl Chunk {
    fn allocate(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the size is not zero: `FIRST_CHUNK_BYTES` at least, or a request that found no room.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, bytes }
    }

    fn free(self) {
        // SAFETY: allocated by `allocate` with the same layout; chunks are freed once, by value.
        unsafe { dealloc(self.start.as_ptr(), Self::layout(self.bytes)) };
    }

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 1).expect("an arena chunk is smaller than half the address space")
    }
}
