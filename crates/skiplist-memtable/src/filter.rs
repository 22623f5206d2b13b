//! Tells a read that a key is surely not here, for the price of a few words.
//!
//! A Bloom filter blocked by machine word: a key sets [`KEY_BITS`] bits of one word, so that an insert costs one atomic
//! *or* and a probe one load. How many keys will come is not known in advance, so the filter grows by segments, each
//! four times the last; a key lies in the segment that was newest when its place was reserved.
//!
//! ```text
//!   segment 0 [····]   segment 1 [················]   segment 2 [ 4 × as many words … ]
//!                                                       └─ hash, upper bits: which word
//!                                                          hash, lower bits: five bits in it
//! ```
//!
//! - **K6** A key whose insert happened before the question is never denied. Bits are only ever set, by a
//!   read-modify-write, before the writer reports its entries as applied; a reader that knows of the entry at all does
//!   so through `visible` (Release, Acquire), and from there coherence of each word is enough: all is Relaxed.

use planted_faults::planted;

use crate::sync::{AtomicU64, Ordering, Published};

/// Keys that the first segment is made for.
#[cfg(not(loom))]
const FIRST_SEGMENT_KEYS: u64 = 1024;
#[cfg(loom)]
const FIRST_SEGMENT_KEYS: u64 = 2;

/// How many times the keys of a segment the next one is made for.
const GROWTH: u64 = 4;

/// More segments than can come about: the last is made for 2^40 keys and more.
const SEGMENTS_MAX: usize = if cfg!(loom) { 2 } else { 16 };

/// Bits that a key sets in its word, if the hash does not name one twice. With 16 bits for each key, a full segment
/// denies all but about 1 in 200 keys that are not there.
const KEY_BITS: u32 = 5;

/// The filter of a memtable.
pub(crate) struct Filter {
    bits_per_key: u64,
    segments: [Published<Segment>; SEGMENTS_MAX],
}

struct Segment {
    words: Box<[AtomicU64]>,
}

/// How far a [`Filter`] is filled. Owned by whoever reserves.
#[derive(Debug, Default)]
pub(crate) struct Fill {
    /// Segments that there are.
    segments: usize,
    /// Keys that the newest has room for.
    room: u64,
}

/// The segment in which a reservation's keys are noted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SegmentIndex(u8);

impl Filter {
    /// A filter of `bits_per_key` bits for each key; none at all for 0. Allocates nothing yet.
    pub(crate) fn new(bits_per_key: u32) -> Self {
        Self { bits_per_key: u64::from(bits_per_key), segments: std::array::from_fn(|_| Published::empty()) }
    }

    /// Makes room for `keys` more and tells where; also how many bytes were allocated for it. One thread at a time.
    #[inline]
    pub(crate) fn reserve(&self, fill: &mut Fill, keys: u64) -> (SegmentIndex, u64) {
        let mut allocated = 0;
        if fill.room < keys && self.bits_per_key != 0 {
            allocated = self.grow(fill, keys);
        }
        fill.room = fill.room.saturating_sub(keys);
        (SegmentIndex(fill.segments.saturating_sub(1) as u8), allocated)
    }

    /// How many bytes [`reserve`](Self::reserve) would allocate for `keys` more.
    #[inline]
    pub(crate) fn growth(&self, fill: &Fill, keys: u64) -> u64 {
        if fill.room >= keys || self.bits_per_key == 0 || fill.segments == SEGMENTS_MAX {
            return 0;
        }
        self.next_segment(fill, keys).1 * size_of::<u64>() as u64
    }

    /// How many keys the next segment is made for, and of how many words it is.
    fn next_segment(&self, fill: &Fill, keys: u64) -> (u64, u64) {
        let capacity = (FIRST_SEGMENT_KEYS * GROWTH.pow(fill.segments as u32)).max(keys);
        (capacity, (capacity * self.bits_per_key).div_ceil(u64::from(u64::BITS)).max(1))
    }

    #[cold]
    fn grow(&self, fill: &mut Fill, keys: u64) -> u64 {
        let Some(slot) = self.segments.get(fill.segments) else { return 0 };
        let (capacity, words) = self.next_segment(fill, keys);
        slot.set(Segment::new(words as usize));
        fill.segments += 1;
        fill.room = capacity;
        words * size_of::<u64>() as u64
    }

    /// Notes a key. Any number of threads at a time.
    #[inline]
    pub(crate) fn insert(&self, segment: SegmentIndex, hash: u64) {
        if self.bits_per_key == 0 {
            return;
        }
        let segment = self.segments[usize::from(segment.0)].get().expect("a reserved segment exists (K6)");
        let mask = mask_of(hash);
        let word = segment.word(hash);
        // Relaxed, see K6. The load spares the exchange where a newer version of a key finds its bits set.
        let bits = word.load(Ordering::Relaxed);
        if planted("memtable-filter-bits-lost") {
            word.store(bits | mask, Ordering::Relaxed);
        } else if bits & mask != mask {
            word.fetch_or(mask, Ordering::Relaxed);
        }
    }

    /// Whether a key of this hash may have been noted; false is certain (K6).
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        if self.bits_per_key == 0 {
            return true;
        }
        let mask = mask_of(hash);
        self.segments
            .iter()
            .map_while(Published::get)
            .take(if planted("memtable-first-filter-segment-only") { 1 } else { SEGMENTS_MAX })
            .any(|segment| segment.word(hash).load(Ordering::Relaxed) & mask == mask) // Relaxed: K6.
    }
}

impl Segment {
    fn new(words: usize) -> Self {
        Self { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline]
    fn word(&self, hash: u64) -> &AtomicU64 {
        // The upper bits scaled to the number of words: always in bounds, and no division.
        &self.words[((u128::from(hash) * self.words.len() as u128) >> u64::BITS) as usize]
    }
}

/// The bits of a key in its word, out of the lower bits of its hash.
#[inline]
fn mask_of(hash: u64) -> u64 {
    (0..KEY_BITS).fold(0, |mask, bit| mask | 1 << (hash >> (bit * 6) & 63))
}
