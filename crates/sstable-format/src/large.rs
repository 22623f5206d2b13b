//! Large values: contiguous bytes outside the blocks, checked in chunks (T1).
//!
//! ```text
//!   16                 +value, zero-padded to 8      +8 × chunks              +8
//!  ┌──────────────────┬─────────────┬───────────────┬────────────────────────┐
//!  │ frame header,    │ value       │ xxh3 of each  │ xxh3 of header and     │
//!  │ kind large value │             │ 64 KiB chunk  │ chunk checksums        │
//!  └──────────────────┴─────────────┴───────────────┴────────────────────────┘
//!   reference, the row's value in a data block: u64 offset of the frame │ u32 value bytes │ u32 ordinal
//! ```
//!
//! A chunk's checksum is seeded with the salt and the chunk's own offset; the last one with the frame's. The value can
//! be lent in place, and a part of it can be checked without the rest.

use std::hash::Hasher;

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::error::{Damage, Expectation};
use crate::frame::{CHECKSUM_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, seed, u32_at, u64_at};

/// Bytes under one checksum. On disk since format 1.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a reference. On disk since format 1.
pub(crate) const REFERENCE_BYTES: usize = 8 + 4 + 4;

/// Where a large value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LargeReference {
    /// Where its frame begins.
    pub(crate) offset: u64,
    /// How long the value is.
    pub(crate) bytes: u32,
    /// Which of the table's large values it is.
    pub(crate) ordinal: u32,
}

impl LargeReference {
    pub(crate) fn encode(self) -> [u8; REFERENCE_BYTES] {
        let mut bytes = [0; REFERENCE_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[12..].copy_from_slice(&self.ordinal.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, Damage> {
        match (u64_at(value, 0), u32_at(value, 8), u32_at(value, 12)) {
            (Some(offset), Some(bytes), Some(ordinal)) if value.len() == REFERENCE_BYTES => {
                Ok(Self { offset, bytes, ordinal })
            }
            _ => {
                let exactly = Expectation::Exactly(REFERENCE_BYTES as u64);
                Err(Damage::new(0, "length of a large value's reference", exactly, value.len() as u64))
            }
        }
    }

    /// How long the frame is.
    pub(crate) fn frame_bytes(self) -> u64 {
        let value = u64::from(self.bytes);
        let sums = value.div_ceil(CHUNK_BYTES as u64) * CHECKSUM_BYTES as u64;
        FRAME_HEADER_BYTES as u64 + value.next_multiple_of(8) + sums + CHECKSUM_BYTES as u64
    }

    fn header(self) -> [u8; FRAME_HEADER_BYTES] {
        let kind = FrameKind::LargeValue as u8;
        FrameHeader { stored: self.bytes, raw: self.bytes, kind, compression: 0 }.encode()
    }
}

/// Hands the frame of `value` to `write` piece by piece.
pub(crate) fn write_large<E>(
    reference: LargeReference,
    value: &[u8],
    salt: u64,
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let header = reference.header();
    write(&header)?;
    let mut sums = Vec::new();
    let mut at = reference.offset + FRAME_HEADER_BYTES as u64;
    for chunk in value.chunks(CHUNK_BYTES) {
        sums.extend_from_slice(&xxh3_64_with_seed(chunk, seed(salt, at)).to_le_bytes());
        write(chunk)?;
        at += chunk.len() as u64;
    }
    write(&[0; 8][..value.len().next_multiple_of(8) - value.len()])?;
    write(&sums)?;
    write(&sum_of_sums(&header, &sums, seed(salt, reference.offset)).to_le_bytes())
}

fn sum_of_sums(header: &[u8], sums: &[u8], seed: u64) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    hasher.write(header);
    hasher.write(sums);
    hasher.finish()
}

/// Checks the frame of a large value, all chunks.
///
/// # Errors
/// Damage counted from the frame's start.
pub(crate) fn check_large(frame: &[u8], reference: LargeReference, salt: u64) -> Result<(), Damage> {
    let value_bytes = reference.bytes as usize;
    let sums_at = FRAME_HEADER_BYTES + value_bytes.next_multiple_of(8);
    if frame.len() as u64 != reference.frame_bytes() {
        let exactly = Expectation::Exactly(reference.frame_bytes());
        return Err(Damage::new(0, "length of a large value", exactly, frame.len() as u64));
    }
    let (sums, last) = frame[sums_at..].split_at(frame.len() - sums_at - CHECKSUM_BYTES);
    let header = &frame[..FRAME_HEADER_BYTES];
    let expected = u64_at(last, 0).unwrap_or(0);
    let found = sum_of_sums(header, sums, seed(salt, reference.offset));
    let unchecked = planted_faults::planted("table-large-value-sums-unchecked");
    if (found != expected && !unchecked) || *header != reference.header() {
        return Err(Damage::new(0, "large value", Expectation::Checksum(expected), found));
    }
    let value = &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + value_bytes];
    for (number, (chunk, sum)) in value.chunks(CHUNK_BYTES).zip(sums.as_chunks::<CHECKSUM_BYTES>().0).enumerate() {
        let at = (FRAME_HEADER_BYTES + number * CHUNK_BYTES) as u64;
        let found = xxh3_64_with_seed(chunk, seed(salt, reference.offset.wrapping_add(at)));
        let expected = u64::from_le_bytes(*sum);
        if found != expected && !planted_faults::planted("table-large-value-chunk-unchecked") {
            return Err(Damage::new(at, "chunk of a large value", Expectation::Checksum(expected), found));
        }
    }
    Ok(())
}

/// The value within its frame.
pub(crate) fn value_of(frame: &[u8], reference: LargeReference) -> &[u8] {
    frame.get(FRAME_HEADER_BYTES..).and_then(|rest| rest.get(..reference.bytes as usize)).unwrap_or(&[])
}
