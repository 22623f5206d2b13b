//! The index: which block can hold a key (T3).
//!
//! ```text
//!   root ─┬─▶ partition ─┬─▶ data block        a row of a partition: separator → block handle (8 bytes)
//!         │              ├─▶ data block        a row of the root:    the partition's last separator
//!         └─▶ partition …                                            → its handle, first block's ordinal (16 bytes)
//! ```
//!
//! Root and partitions are columnar blocks like data blocks, so a search is one over an array of heads, and each
//! partition has a prefix of its own. An index that fits one partition has no root: the partition takes its place.
//!
//! A separator is an internal key at or after the last entry of its block and before the first of the next one. Mostly
//! that is a shortened user key with the trailer 0, which sorts after every entry of its key; where the versions of one
//! key span two blocks it is the block's last internal key. So a search for any internal key ends in one block, and
//! the answer to a point read, if there is one, lies in it.

use crate::block::{BlockBuilder, common_prefix};
use crate::error::{Damage, Expectation};
use crate::frame::{BlockHandle, u64_at};

/// Bytes of a row's value in a partition. On disk since format 1.
pub(crate) const PARTITION_VALUE_BYTES: usize = 8;
/// Bytes of a row's value in a root above partitions. On disk since format 1.
pub(crate) const ROOT_VALUE_BYTES: usize = 16;

/// A short user key that is at or after `last` and before `next`, which must be greater than `last`.
pub(crate) fn separator(last: &[u8], next: &[u8]) -> Vec<u8> {
    debug_assert!(last < next, "T3: blocks ascend");
    let common = common_prefix(last, next);
    // Raise one byte of `last` behind the common part and cut there. At the first differing byte the result must stay
    // below `next`; further on it does whatever it is.
    for at in common..last.len() {
        let Some(raised) = last[at].checked_add(1) else { continue };
        let mut candidate = last[..at].to_vec();
        candidate.push(raised);
        if at > common || *candidate < *next {
            return if candidate.len() < last.len() { candidate } else { last.to_vec() };
        }
    }
    last.to_vec()
}

#[derive(Debug)]
struct FinishedPartition {
    block: Vec<u8>,
    /// User key and trailer.
    last_separator: (Vec<u8>, u64),
    /// The ordinal of its first data block.
    first_ordinal: u64,
}

/// Gathers separators and cuts them into partitions.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    partition: BlockBuilder,
    partition_bytes: usize,
    finished: Vec<FinishedPartition>,
    finished_bytes: usize,
    first_ordinal: u64,
    next_ordinal: u64,
}

impl IndexBuilder {
    pub(crate) fn new(partition_bytes: usize) -> Self {
        Self {
            partition: BlockBuilder::default(),
            partition_bytes,
            finished: Vec::new(),
            finished_bytes: 0,
            first_ordinal: 0,
            next_ordinal: 0,
        }
    }

    pub(crate) fn add(&mut self, separator: &[u8], trailer: u64, handle: BlockHandle) {
        let mut shape = self.partition.shape_with(separator, trailer, PARTITION_VALUE_BYTES);
        if !self.partition.is_empty() && shape.bytes() > self.partition_bytes {
            self.finish_partition();
            shape = self.partition.shape_with(separator, trailer, PARTITION_VALUE_BYTES);
        }
        self.partition.add(shape, separator, trailer, &handle.to_raw().to_le_bytes());
        self.next_ordinal += 1;
    }

    fn finish_partition(&mut self) {
        let Some((key, trailer)) = self.partition.last_key() else { return };
        let last_separator = (key.to_vec(), trailer);
        let mut block = Vec::new();
        self.partition.encode(&mut block, true, false);
        self.finished_bytes += block.len();
        self.finished.push(FinishedPartition { block, last_separator, first_ordinal: self.first_ordinal });
        self.first_ordinal = self.next_ordinal;
    }

    /// Bytes of the index so far, frames left out.
    pub(crate) fn bytes(&self) -> usize {
        self.finished_bytes + self.partition.bytes()
    }

    /// How many data blocks were added.
    pub(crate) fn blocks(&self) -> u64 {
        self.next_ordinal
    }

    /// The partitions, each handed to `write`, which returns its handle; then the root and how many levels there are.
    pub(crate) fn finish<E>(
        mut self,
        mut write: impl FnMut(Vec<u8>) -> Result<BlockHandle, E>,
    ) -> Result<(Vec<u8>, u32, u64), E> {
        self.finish_partition();
        if self.finished.len() == 1 {
            return Ok((self.finished.remove(0).block, 1, 1));
        }
        let partitions = self.finished.len() as u64;
        let mut root = BlockBuilder::default();
        for FinishedPartition { block, last_separator: (key, trailer), first_ordinal } in self.finished {
            let handle = write(block)?;
            let mut value = [0; ROOT_VALUE_BYTES];
            value[..8].copy_from_slice(&handle.to_raw().to_le_bytes());
            value[8..].copy_from_slice(&first_ordinal.to_le_bytes());
            root.add(root.shape_with(&key, trailer, value.len()), &key, trailer, &value);
        }
        let mut block = Vec::new();
        root.encode(&mut block, true, false);
        Ok((block, 2, partitions))
    }
}

/// The handle in a partition's row.
#[inline(always)]
pub(crate) fn decode_partition_value(value: &[u8]) -> Result<BlockHandle, Damage> {
    match u64_at(value, 0) {
        Some(raw) if value.len() == PARTITION_VALUE_BYTES => Ok(BlockHandle::from_raw(raw)),
        _ => Err(bad_length(PARTITION_VALUE_BYTES, value.len())),
    }
}

/// The handle and the first ordinal in the root's row.
#[inline(always)]
pub(crate) fn decode_root_value(value: &[u8]) -> Result<(BlockHandle, u64), Damage> {
    match (u64_at(value, 0), u64_at(value, 8)) {
        (Some(raw), Some(first_ordinal)) if value.len() == ROOT_VALUE_BYTES => {
            Ok((BlockHandle::from_raw(raw), first_ordinal))
        }
        _ => Err(bad_length(ROOT_VALUE_BYTES, value.len())),
    }
}

#[cold]
fn bad_length(expected: usize, found: usize) -> Damage {
    Damage::new(0, "length of a block handle", Expectation::Exactly(expected as u64), found as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// T3: a separator is at or after the last key and before the next, and not longer than the last.
    #[test]
    fn separator_lies_between_its_neighbours() {
        for (last, next, expected) in [
            (&b"abc"[..], &b"abd"[..], &b"abc"[..]),
            (b"abcdef", b"abzz", b"abd"),
            (b"abcdef", b"abdd", b"abd"),
            (b"ab\xff\xffz", b"ac", b"ab\xff\xffz"),
            (b"ab\xff\x01z", b"ac", b"ab\xff\x02"),
            (b"abcdef", b"abd", b"abce"),
            (b"", b"a", b""),
            (b"a", b"a\0", b"a"),
            (b"\xff", b"\xff\xff", b"\xff"),
        ] {
            let found = separator(last, next);
            assert_eq!(found.escape_ascii().to_string(), expected.escape_ascii().to_string());
            assert!(*last <= *found && *found < *next && found.len() <= last.len());
        }
    }
}
