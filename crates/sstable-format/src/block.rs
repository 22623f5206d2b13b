//! The columnar block: rows of (user key, trailer, value), each column in an array of its own (T1).
//!
//! Data blocks and index blocks are such blocks; in an index block a value is a handle.
//!
//! ```text
//!    0 u32 rows │ 4 u8 flags │ 5 u8 trailer width │ 6 u16 prefix bytes │ 8 u64 newest trailer
//!   16 u32 tail width │ 20 u32 value width │ 24 u32 tails bytes │ 28 u32 values bytes
//!   32 ┌──────────────────────────────────────────────────────────────────────────────┐
//!      │ heads       rows × u64: the 8 key bytes after the prefix, zero-padded, as an │
//!      │             integer that compares as the bytes do                            │
//!      │ tail ends   (rows + 1) × u16 or u32; absent if all tails have one width      │
//!      │ value ends  (rows + 1) × u16 or u32; absent if all values have one width     │
//!      │ lengths     rows × u8: min(key bytes after the prefix, 8); absent if all 8   │
//!      │ trailers    rows × trailer width: how far each is below the newest; in       │
//!      │             seqnos if all rows have one kind, else in raw trailers           │
//!      │ prefix      what all keys of the block begin with                            │
//!      │ tails       the key bytes after prefix and head, one after the other         │
//!      │ values      one after the other                                              │
//!      └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A search (`search`) compares integers in one array; header, heads and ends lie together at the front, so that the cache
//! lines of a search can be requested before it begins. Everything is looked up through bounds that are checked each time
//! (T2): the bytes may be anything, even after their checksum was found right. `build` encodes.

mod build;
mod search;

use std::ops::Range;

use internal_key::{Kind, Trailer};

pub(crate) use build::{BlockBuilder, common_prefix};

use crate::error::{Damage, Expectation};
use crate::frame::{u32_at, u64_at};

/// Bytes before the heads. On disk since format 1.
pub(crate) const BLOCK_HEADER_BYTES: usize = 4 + 1 + 1 + 2 + 8 + 4 * 4;
const _: () = assert!(BLOCK_HEADER_BYTES == 32);

/// In place of a width: there is no common one, the ends say. On disk since format 1.
const NO_WIDTH: u32 = u32::MAX;

/// What holds for every row of a block. On disk since format 1, but that 4 said "one trailer" there.
pub(crate) mod flags {
    /// Every entry is a put.
    pub(crate) const ALL_PUTS: u8 = 1;
    /// No user key of the block occurs a second time in the table.
    pub(crate) const UNIQUE: u8 = 2;
    /// Every entry is of one kind, and trailers count seqnos.
    pub(crate) const ONE_KIND: u8 = 4;
    /// Some key has fewer than eight bytes after the prefix.
    pub(crate) const SHORT_KEYS: u8 = 8;
    /// Ends are `u32`, not `u16`.
    pub(crate) const WIDE: u8 = 16;
    /// Every value is a reference to a large value.
    pub(crate) const OUT_OF_LINE: u8 = 32;
    /// All that is known.
    pub(crate) const ALL: u8 = 63;
}

/// The widest trailer: every distance of two raw trailers fits. On disk since format 2.
const TRAILER_WIDTH_MAX: u8 = 8;

/// By width, the bits that a distance takes of the eight bytes where it begins; in the second half those of blocks with
/// [`flags::ONE_KIND`], where it begins a byte later. What is no width takes none.
const TRAILER_MASKS: [u64; 32] = {
    let mut masks = [0; 32];
    let mut width = 1;
    while width <= TRAILER_WIDTH_MAX as usize {
        masks[width] = u64::MAX >> (64 - width * 8);
        masks[16 + width] = masks[width] << 8;
        width += 1;
    }
    masks
};

/// Where the columns of one block are. Made from the header and checked against the block's length, so that every
/// column lies within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) rows: usize,
    pub(crate) flags: u8,
    /// The bytes that each row's trailer takes; 0 where one stands for all.
    pub(crate) trailer_width: u8,
    /// The largest raw trailer, of which the column says how far below it each row's is.
    pub(crate) newest: u64,
    prefix_bytes: usize,
    tail_width: u32,
    value_width: u32,
    tails_bytes: usize,
    values_bytes: usize,
    tail_ends: usize,
    value_ends: usize,
    lengths: usize,
    trailers: usize,
    prefix: usize,
    tails: usize,
    values: usize,
}

impl Layout {
    pub(crate) const EMPTY: Self = Self {
        rows: 0,
        flags: 0,
        trailer_width: 0,
        newest: 0,
        prefix_bytes: 0,
        tail_width: 0,
        value_width: 0,
        tails_bytes: 0,
        values_bytes: 0,
        tail_ends: 0,
        value_ends: 0,
        lengths: 0,
        trailers: 0,
        prefix: 0,
        tails: 0,
        values: 0,
    };

    /// # Errors
    /// If the columns that the header promises do not fit into `block`, or there is no row.
    #[inline]
    pub(crate) fn parse(block: &[u8]) -> Result<Self, Damage> {
        let Some(header) = block.first_chunk::<BLOCK_HEADER_BYTES>() else {
            let least = Expectation::AtLeast(BLOCK_HEADER_BYTES as u64);
            return Err(Damage::new(0, "block length", least, block.len() as u64));
        };
        let u32_of = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let rows = u32_of(0);
        let (flags, trailer_width) = (header[4], header[5]);
        let prefix_bytes = u16::from_le_bytes([header[6], header[7]]);
        let newest = u64_at(header, 8).unwrap_or(0);
        let (tail_width, value_width, tails_bytes, values_bytes) = (u32_of(16), u32_of(20), u32_of(24), u32_of(28));
        // All sums are below 2^42, so that nothing overflows in 64 bits.
        let n = u64::from(rows);
        let end_bytes = if flags & flags::WIDE != 0 { 4 } else { 2 };
        let tail_ends = BLOCK_HEADER_BYTES as u64 + n * 8;
        let value_ends = tail_ends + if tail_width == NO_WIDTH { (n + 1) * end_bytes } else { 0 };
        let lengths = value_ends + if value_width == NO_WIDTH { (n + 1) * end_bytes } else { 0 };
        let trailers = lengths + if flags & flags::SHORT_KEYS != 0 { n } else { 0 };
        let prefix = trailers + n * u64::from(trailer_width);
        let tails = prefix + u64::from(prefix_bytes);
        let values = tails + u64::from(tails_bytes);
        let end = values + u64::from(values_bytes);
        // With one kind a byte less.
        let has_width =
            u32::from(trailer_width) * 4 + u32::from(flags & flags::ONE_KIND) <= u32::from(TRAILER_WIDTH_MAX) * 4;
        if end > block.len() as u64 || rows == 0 || flags > flags::ALL || !has_width {
            return Err(Self::misfit(rows, flags, trailer_width, end, block.len()));
        }
        Ok(Self {
            rows: rows as usize,
            flags,
            trailer_width,
            newest,
            prefix_bytes: prefix_bytes.into(),
            tail_width,
            value_width,
            tails_bytes: tails_bytes as usize,
            values_bytes: values_bytes as usize,
            tail_ends: tail_ends as usize,
            value_ends: value_ends as usize,
            lengths: lengths as usize,
            trailers: trailers as usize,
            prefix: prefix as usize,
            tails: tails as usize,
            values: values as usize,
        })
    }

    #[cold]
    fn misfit(rows: u32, flags: u8, trailer_width: u8, end: u64, length: usize) -> Damage {
        let width_max = TRAILER_WIDTH_MAX - u8::from(flags & flags::ONE_KIND != 0);
        if rows == 0 {
            Damage::new(0, "rows of a block", Expectation::AtLeast(1), 0)
        } else if flags > flags::ALL {
            Damage::new(4, "flags of a block", Expectation::AtMost(flags::ALL.into()), flags.into())
        } else if trailer_width > width_max {
            Damage::new(5, "bytes of a trailer", Expectation::AtMost(width_max.into()), trailer_width.into())
        } else {
            Damage::new(0, "bytes that the columns need", Expectation::AtMost(length as u64), end)
        }
    }

    /// Where the columns end: the exact length of the block.
    pub(crate) fn end(&self) -> usize {
        self.values + self.values_bytes
    }

    #[inline(always)]
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline(always)]
    pub(crate) fn prefix<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        block.get(self.prefix..self.prefix + self.prefix_bytes).unwrap_or(&[])
    }

    #[inline(always)]
    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix_bytes
    }

    pub(crate) fn tails_bytes(&self) -> usize {
        self.tails_bytes
    }

    #[inline(always)]
    fn heads<'a>(&self, block: &'a [u8]) -> &'a [[u8; 8]] {
        let heads = block.get(BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + self.rows * 8).unwrap_or(&[]);
        heads.as_chunks().0
    }

    /// The head of `row`, which must be below `rows`.
    #[inline(always)]
    pub(crate) fn head(&self, block: &[u8], row: usize) -> u64 {
        u64_at(block, BLOCK_HEADER_BYTES + row * 8).unwrap_or(0)
    }

    #[inline(always)]
    fn ends(&self, block: &[u8], ends: usize, row: usize) -> Option<(usize, usize)> {
        if self.has(flags::WIDE) {
            let at = ends + row * 4;
            Some((u32_at(block, at)? as usize, u32_at(block, at + 4)? as usize))
        } else {
            let pair = u32_at(block, ends + row * 2)?;
            Some(((pair & 0xFFFF) as usize, (pair >> 16) as usize))
        }
    }

    /// The tail of `row` as a range of the block.
    #[inline(always)]
    pub(crate) fn tail_range(&self, block: &[u8], row: usize) -> Result<Range<usize>, Damage> {
        self.range(block, row, self.tail_width, self.tail_ends, self.tails, self.tails_bytes, "end of a key tail")
    }

    /// The value of `row` as a range of the block.
    #[inline(always)]
    pub(crate) fn value_range(&self, block: &[u8], row: usize) -> Result<Range<usize>, Damage> {
        self.range(block, row, self.value_width, self.value_ends, self.values, self.values_bytes, "end of a value")
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "one body for two columns")]
    fn range(
        &self,
        block: &[u8],
        row: usize,
        width: u32,
        ends: usize,
        column: usize,
        column_bytes: usize,
        what: &'static str,
    ) -> Result<Range<usize>, Damage> {
        let (start, end) = if width != NO_WIDTH {
            let start = row as u64 * u64::from(width);
            (start, start + u64::from(width))
        } else {
            let Some((start, end)) = self.ends(block, ends, row) else {
                return Err(Damage::new(ends as u64, what, Expectation::AtMost(block.len() as u64), row as u64));
            };
            (start as u64, end as u64)
        };
        if start > end || end > column_bytes as u64 {
            return Err(Damage::new(ends as u64, what, Expectation::AtMost(column_bytes as u64), end.max(start)));
        }
        Ok(column + start as usize..column + end as usize)
    }

    #[inline(always)]
    pub(crate) fn tail<'a>(&self, block: &'a [u8], row: usize) -> Result<&'a [u8], Damage> {
        let range = self.tail_range(block, row)?;
        block.get(range).ok_or_else(|| Damage::new(0, "block length", Expectation::AtLeast(self.end() as u64), 0))
    }

    #[inline(always)]
    pub(crate) fn value<'a>(&self, block: &'a [u8], row: usize) -> Result<&'a [u8], Damage> {
        let range = self.value_range(block, row)?;
        block.get(range).ok_or_else(|| Damage::new(0, "block length", Expectation::AtLeast(self.end() as u64), 0))
    }

    /// How many of the eight bytes of the head belong to the key of `row`.
    #[inline(always)]
    pub(crate) fn head_bytes(&self, block: &[u8], row: usize) -> Result<usize, Damage> {
        if !self.has(flags::SHORT_KEYS) {
            return Ok(8);
        }
        match block.get(self.lengths + row) {
            Some(&length @ 0..=8) => Ok(length.into()),
            Some(&length) => Err(Damage::new(
                (self.lengths + row) as u64,
                "length of a short key",
                Expectation::AtMost(8),
                length.into(),
            )),
            None => Err(Damage::new(self.lengths as u64, "row", Expectation::AtMost(self.rows as u64), row as u64)),
        }
    }

    /// How the trailers of this block are read, with `base` added to their seqnos.
    #[inline(always)]
    pub(crate) fn trailers(&self, base: u64) -> Trailers {
        let has_one_kind = usize::from(self.has(flags::ONE_KIND));
        Trailers {
            newest: self.newest,
            newest_seen: self.newest.wrapping_add(base << 8),
            first: self.trailers - has_one_kind,
            width: self.trailer_width.into(),
            mask: TRAILER_MASKS[usize::from(self.trailer_width & 15) + has_one_kind * 16],
        }
    }

    /// The trailer of `row` as it was added, not checked.
    #[inline(always)]
    pub(crate) fn raw_trailer(&self, block: &[u8], row: usize) -> u64 {
        self.newest.wrapping_sub(self.trailers(0).below_newest(block, row))
    }

    /// The trailer of `row`, with `base` added to its seqno.
    #[inline(always)]
    pub(crate) fn trailer(&self, block: &[u8], row: usize, base: u64) -> Result<Trailer, Damage> {
        self.trailers(base).trailer(block, row)
    }

    /// Appends the user key of `row` to `key`.
    pub(crate) fn append_key(&self, block: &[u8], row: usize, key: &mut Vec<u8>) -> Result<(), Damage> {
        key.extend_from_slice(self.prefix(block));
        let head = self.head(block, row).to_be_bytes();
        key.extend_from_slice(&head[..self.head_bytes(block, row)?]);
        key.extend_from_slice(self.tail(block, row)?);
        Ok(())
    }
}

/// How the trailers of a block are read. Not part of its layout: a block that is searched by heads alone, as those of an
/// index are, has no use for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trailers {
    newest: u64,
    /// The newest with the base added to its seqno.
    newest_seen: u64,
    /// Where the eight bytes begin that hold the first distance: with [`flags::ONE_KIND`] a byte before the column, so
    /// that distances of seqnos come out above the kind's bits.
    first: usize,
    width: usize,
    /// The bits of those eight bytes that are the distance's.
    mask: u64,
}

impl Trailers {
    /// Those of no block.
    pub(crate) const EMPTY: Self = Self { newest: 0, newest_seen: 0, first: 0, width: 0, mask: 0 };

    /// How far the raw trailer of `row` is below the newest.
    #[inline(always)]
    fn below_newest(&self, block: &[u8], row: usize) -> u64 {
        let at = self.first + row * self.width;
        u64_at(block, at).unwrap_or_else(|| Self::last_bytes(block, at)) & self.mask
    }

    /// As eight bytes, those from `at` on, of which the block has fewer.
    #[cold]
    fn last_bytes(block: &[u8], at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(block.get(at..).unwrap_or(&[])).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(bytes)
    }

    /// The trailer of `row`, with the base added to its seqno.
    #[inline(always)]
    pub(crate) fn trailer(&self, block: &[u8], row: usize) -> Result<Trailer, Damage> {
        let below = self.below_newest(block, row);
        if below > self.newest {
            return self.out_of_range(row, below);
        }
        match Trailer::from_raw(self.newest_seen.wrapping_sub(below)) {
            Ok(trailer) => Ok(trailer),
            Err(unknown) => Err(Damage::new(
                self.offset(row),
                "entry kind",
                Expectation::AtMost(Kind::ALL.len() as u64 - 1),
                unknown.found.into(),
            )),
        }
    }

    /// Where the trailer of `row` stands; that of all rows is the newest, in the header.
    fn offset(&self, row: usize) -> u64 {
        match self.width {
            0 => 8,
            width => (self.first + usize::from(self.mask & 1 == 0) + row * width) as u64,
        }
    }

    #[cold]
    fn out_of_range(&self, row: usize, below: u64) -> Result<Trailer, Damage> {
        if planted_faults::planted("table-trailer-below-zero") {
            return Ok(Trailer::new(internal_key::SeqNo::ZERO, Kind::Put));
        }
        let most = Expectation::AtMost(self.newest);
        Err(Damage::new(self.offset(row), "distance of a trailer from the newest", most, below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: u64 = Kind::Put as u64;

    fn encoded(trailers: &[u64]) -> Vec<u8> {
        let mut builder = BlockBuilder::default();
        for trailer in trailers {
            builder.add(builder.shape_with(b"key", *trailer, 0), b"key", *trailer, b"");
        }
        let (bytes, mut block) = (builder.bytes(), Vec::new());
        builder.encode(&mut block, true, false);
        assert_eq!(block.len(), bytes, "T1: a block is as long as was computed");
        block
    }

    /// T1: trailers take the bytes that their largest distance needs, and read back, at both ends of every width.
    #[test]
    fn trailers_of_every_width_read_back() {
        for bits in 0..=56 {
            // Of a distance of `bits` bits the smallest and the largest.
            for distance in [1_u64 << bits >> 1, (1 << bits) - 1] {
                for (older_kind, width_max) in [(PUT, 7), (Kind::Delete as u64, 8)] {
                    let newest = (1 << 56) - 1;
                    let trailers =
                        [newest << 8 | PUT, (newest - distance / 3) << 8 | PUT, (newest - distance) << 8 | older_kind];
                    let block = encoded(&trailers);
                    let layout = Layout::parse(&block).unwrap();
                    assert_eq!(layout.end(), block.len());
                    for (row, trailer) in trailers.iter().enumerate() {
                        assert_eq!(
                            layout.trailer(&block, row, 0).unwrap().to_raw(),
                            *trailer,
                            "row {row}, {bits} bits"
                        );
                        assert_eq!(layout.raw_trailer(&block, row), *trailer);
                    }
                    let below = if older_kind == PUT { distance } else { distance << 8 | 1 };
                    assert_eq!(usize::from(layout.trailer_width), (64 - below.leading_zeros() as usize).div_ceil(8));
                    assert!(usize::from(layout.trailer_width) <= width_max);
                }
            }
        }
        assert_eq!(encoded(&[7 << 8]).len() + 8 + 1, encoded(&[7 << 8, 7 << 8]).len(), "equal trailers take no bytes");
    }

    /// T2: a row that is further below the newest trailer than that is above zero is damage, at its place.
    #[test]
    fn a_trailer_below_zero_is_damage() {
        let mut block = encoded(&[300 << 8 | PUT, 299 << 8 | PUT, 200 << 8 | PUT]);
        let layout = Layout::parse(&block).unwrap();
        assert_eq!(layout.trailer_width, 1);
        block[8..16].copy_from_slice(&(1_u64 << 8 | PUT).to_le_bytes());
        let layout = Layout::parse(&block).unwrap();
        assert_eq!(layout.trailer(&block, 1, 0).unwrap().to_raw(), PUT, "just at zero");
        let damage = layout.trailer(&block, 2, 0).unwrap_err();
        // Behind header, three heads and three lengths.
        let at = (BLOCK_HEADER_BYTES + 3 * 8 + 3 + 2) as u64;
        assert_eq!((damage.at, damage.what), (at, "distance of a trailer from the newest"));
        assert_eq!((damage.expected, damage.found), (Expectation::AtMost(257), 100 << 8));
    }

    /// T2: a width that no trailer has is damage, with one kind and with several.
    #[test]
    fn a_width_that_no_trailer_has_is_damage() {
        for (trailers, width_max) in [([9 << 8 | PUT, 8 << 8 | PUT], 7), ([9 << 8 | PUT, 8 << 8], 8)] {
            let mut block = encoded(&trailers);
            block.resize(block.len() + 1024, 0);
            for width in 0..=u8::MAX {
                block[5] = width;
                match Layout::parse(&block) {
                    Ok(_) => assert!(width <= width_max, "{width}"),
                    Err(damage) => {
                        assert!(width > width_max, "{width}");
                        assert_eq!((damage.at, damage.what, damage.found), (5, "bytes of a trailer", width.into()));
                        assert_eq!(damage.expected, Expectation::AtMost(width_max.into()));
                    }
                }
            }
        }
    }
}
