//! Searching a block: by integers in the array of heads, and among equal heads by the rest of the key and the trailer (T1).
//!
//! ```text
//!   target ─▶ without the prefix ─▶ its head ─▶ first row with a head at least as large, without a branch
//!                                               └ of the same head ─▶ short keys, tails, trailers, by halves
//! ```

use std::cmp::Ordering;

use internal_key::key_head;

use super::Layout;
use crate::error::Damage;

/// Where a target stands relative to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stripped<'k> {
    /// Before the first row, by the prefix alone.
    Before,
    /// After the last row, by the prefix alone.
    After,
    /// Begins with the prefix; the rest.
    Rest(&'k [u8]),
}

impl Layout {
    /// The first row whose head is at least `head`; the row count if there is none. Without a branch on the heads.
    #[inline(always)]
    fn lower_bound(&self, block: &[u8], head: u64) -> usize {
        let heads = self.heads(block);
        let mut base = 0;
        let mut size = heads.len();
        if size == 0 {
            return 0;
        }
        while size > 1 {
            let half = size / 2;
            // SAFETY: `base + size <= heads.len()` holds at the start and is kept by both outcomes (the halves of a
            // range lie in it), and `half < size`, so `base + half` is within.
            let middle = u64::from_le_bytes(*unsafe { heads.get_unchecked(base + half) });
            base = std::hint::select_unpredictable(middle < head, base + half, base);
            size -= half;
        }
        // SAFETY: as above, with `size == 1`.
        let last = u64::from_le_bytes(*unsafe { heads.get_unchecked(base) });
        base + usize::from(last < head)
    }

    /// `user_key` without the block's prefix.
    #[inline(always)]
    pub(crate) fn strip<'k>(&self, block: &[u8], user_key: &'k [u8]) -> Stripped<'k> {
        if self.prefix_bytes == 0 {
            return Stripped::Rest(user_key);
        }
        let prefix = self.prefix(block);
        match user_key.strip_prefix(prefix) {
            Some(rest) => Stripped::Rest(rest),
            None if user_key < prefix => Stripped::Before,
            None => Stripped::After,
        }
    }

    /// Compares the key of `row`, without the prefix, with `rest`, whose head is equal to the row's.
    #[inline(always)]
    fn compare_equal_heads(&self, block: &[u8], row: usize, rest: &[u8]) -> Result<Ordering, Damage> {
        let head_bytes = self.head_bytes(block, row)?;
        // Of two keys with equal heads, one of them short, the longer one goes on with zero bytes: the shorter is less.
        match head_bytes.cmp(&rest.len().min(8)) {
            Ordering::Equal => Ok(self.tail(block, row)?.cmp(rest.get(8..).unwrap_or(&[]))),
            unequal => Ok(unequal),
        }
    }

    /// Whether the key of `row`, without the prefix, is `rest`, whose head is equal to the row's.
    #[inline(always)]
    fn equals(&self, block: &[u8], row: usize, rest: &[u8]) -> Result<bool, Damage> {
        if self.head_bytes(block, row)? != rest.len().min(8) {
            return Ok(false);
        }
        let tail = self.tail(block, row)?;
        Ok(equal_bytes(tail, rest.get(8..).unwrap_or(&[])))
    }

    /// The first row at or after (`rest`, `trailer`), where `trailer` is the raw integer with the base already added.
    #[inline(always)]
    pub(crate) fn seek(&self, block: &[u8], target: Stripped<'_>, trailer: u64, base: u64) -> Result<usize, Damage> {
        let rest = match target {
            Stripped::Rest(rest) => rest,
            Stripped::Before => return Ok(0),
            Stripped::After => return Ok(self.rows),
        };
        let head = key_head(rest);
        let row = self.lower_bound(block, head);
        if row == self.rows || self.head(block, row) != head {
            return Ok(row);
        }
        self.seek_equal_heads(block, row, rest, trailer, base)
    }

    /// The first row at or after (`rest`, `trailer`) from `first` on, the first row with the head of `rest`.
    fn seek_equal_heads(
        &self,
        block: &[u8],
        first: usize,
        rest: &[u8],
        trailer: u64,
        base: u64,
    ) -> Result<usize, Damage> {
        let head = key_head(rest);
        let is_before = |row: usize| -> Result<bool, Damage> {
            if self.head(block, row) != head {
                return Ok(false);
            }
            Ok(match self.compare_equal_heads(block, row, rest)? {
                Ordering::Less => true,
                Ordering::Greater => false,
                // Larger trailers come first.
                Ordering::Equal => self.raw_trailer(block, row).wrapping_add(base << 8) > trailer,
            })
        };
        // Mostly the first or the second; else by halves, so that thousands of versions of one key cost log n.
        let (mut low, mut high, mut step) = (first, first, 1);
        while high < self.rows && is_before(high)? {
            low = high + 1;
            high += step;
            step *= 2;
        }
        high = high.min(self.rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The newest row of `user_key` at or below `trailer` (a seek target, base added), if the block has one.
    #[inline(always)]
    pub(crate) fn find(&self, block: &[u8], user_key: &[u8], trailer: u64, base: u64) -> Result<Option<usize>, Damage> {
        let Stripped::Rest(rest) = self.strip(block, user_key) else { return Ok(None) };
        let head = key_head(rest);
        let mut row = self.lower_bound(block, head);
        if row == self.rows || self.head(block, row) != head {
            return Ok(None);
        }
        if self.equals(block, row, rest)? && self.is_visible(block, row, trailer, base) {
            return Ok(Some(row));
        }
        row = self.seek_equal_heads(block, row, rest, trailer, base)?;
        let found = row < self.rows && self.head(block, row) == head && self.equals(block, row, rest)?;
        Ok(found.then_some(row))
    }

    /// Whether `row` is at or below `trailer`; from the header alone where nothing in the block is newer.
    #[inline(always)]
    fn is_visible(&self, block: &[u8], row: usize, trailer: u64, base: u64) -> bool {
        if planted_faults::planted("table-newest-version-for-all") {
            return true;
        }
        let visible_by_header = self.newest.wrapping_add(base << 8) <= trailer;
        visible_by_header || self.raw_trailer(block, row).wrapping_add(base << 8) <= trailer
    }
}

/// `left == right`, by words where both are short: a call to the C library costs more than the comparison.
#[inline(always)]
fn equal_bytes(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    match left.len() {
        0 => true,
        1..4 => left.iter().zip(right).all(|(l, r)| l == r),
        // The first and the last word, which overlap or meet, hold every byte.
        4..8 => {
            left.first_chunk::<4>() == right.first_chunk::<4>() && left.last_chunk::<4>() == right.last_chunk::<4>()
        }
        8..=16 => {
            left.first_chunk::<8>() == right.first_chunk::<8>() && left.last_chunk::<8>() == right.last_chunk::<8>()
        }
        _ => left == right,
    }
}
