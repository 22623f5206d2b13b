//! The frame: how every piece of a table between header and footer is wrapped, so that it checks and describes itself.
//!
//! ```text
//!   0        4        8    9    10      16                      +stored, zero-padded to 8      +8
//!  ┌────────┬────────┬────┬────┬───────┬───────────────────────┬─────────────────────────────┐
//!  │ stored │ raw    │kind│comp│ zeros │ payload               │ xxh3, seed = salt ^ offset  │
//!  │ u32    │ u32    │ u8 │ u8 │       │ `stored` bytes        │ over all bytes before it    │
//!  └────────┴────────┴────┴────┴───────┴───────────────────────┴─────────────────────────────┘
//! ```
//!
//! - Frames start at multiples of 8, so an uncompressed payload can be read in place.
//! - The seed holds the table's salt and the frame's offset: a sound frame at a wrong place, or left over from another
//!   table, does not check.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Compression;
use crate::error::{Damage, Expectation};

/// Bytes before the payload. On disk since format 1.
pub(crate) const FRAME_HEADER_BYTES: usize = 4 + 4 + 1 + 1 + 6;
/// Bytes of the checksum after it. On disk since format 1.
pub(crate) const CHECKSUM_BYTES: usize = 8;
/// Frame bytes that are not payload.
pub(crate) const FRAME_OVERHEAD_BYTES: usize = FRAME_HEADER_BYTES + CHECKSUM_BYTES;
const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(8) && FRAME_OVERHEAD_BYTES == 24);

/// What a frame holds. On disk since format 1: numbers are never changed or reused. 6 (dictionary) and 7 (range deletes)
/// are reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Data = 1,
    LargeValue = 2,
    Index = 3,
    Filter = 4,
    Properties = 5,
}

/// Where a block's frame is, and whether its payload is compressed, in one integer.
///
/// ```text
///   63                    25   24   23                0
///  ┌────────────────────────┬──────┬──────────────────┐
///  │ offset / 8 (39 bits)   │ comp │ bytes / 8        │
///  └────────────────────────┴──────┴──────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHandle(u64);

impl BlockHandle {
    /// The longest frame that a handle can name.
    pub(crate) const FRAME_BYTES_MAX: usize = ((1 << 24) - 1) * 8;
    /// The most bytes a table can have.
    pub(crate) const TABLE_BYTES_MAX: u64 = (1 << 39) * 8;

    pub(crate) fn new(offset: u64, frame_bytes: usize, compressed: bool) -> Self {
        assert!(
            offset.is_multiple_of(8) && frame_bytes.is_multiple_of(8),
            "T1: frames start and end at multiples of eight"
        );
        assert!(offset < Self::TABLE_BYTES_MAX && frame_bytes <= Self::FRAME_BYTES_MAX, "T1: frames fit their handles");
        Self((offset / 8) << 25 | u64::from(compressed) << 24 | (frame_bytes as u64 / 8))
    }

    #[inline(always)]
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) fn to_raw(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn offset(self) -> u64 {
        (self.0 >> 25) * 8
    }

    #[inline(always)]
    pub(crate) fn frame_bytes(self) -> usize {
        (self.0 & 0xFF_FFFF) as usize * 8
    }

    #[inline(always)]
    pub(crate) fn is_compressed(self) -> bool {
        self.0 & 1 << 24 != 0
    }
}

/// The header of a frame, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Bytes of payload in the file.
    pub(crate) stored: u32,
    /// Bytes of payload once decompressed.
    pub(crate) raw: u32,
    pub(crate) kind: u8,
    pub(crate) compression: u8,
}

impl FrameHeader {
    pub(crate) fn encode(self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(&self.stored.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.raw.to_le_bytes());
        bytes[8] = self.kind;
        bytes[9] = self.compression;
        bytes
    }

    /// `None` if `frame` is shorter than a header.
    pub(crate) fn decode(frame: &[u8]) -> Option<Self> {
        let bytes = frame.first_chunk::<FRAME_HEADER_BYTES>()?;
        Some(Self { stored: u32_at(bytes, 0)?, raw: u32_at(bytes, 4)?, kind: bytes[8], compression: bytes[9] })
    }
}

/// The seed of the checksum of what lies at `offset`.
pub(crate) fn seed(salt: u64, offset: u64) -> u64 {
    salt ^ offset
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

#[inline(always)]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

#[inline(always)]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// Appends a frame to `out`, which will be written at `offset`, and returns how long it is.
pub(crate) fn append_frame(
    out: &mut Vec<u8>,
    kind: FrameKind,
    compression: Compression,
    raw: usize,
    payload: &[u8],
    salt: u64,
    offset: u64,
) -> usize {
    let length = |bytes: usize| u32::try_from(bytes).expect("T1: no payload passes 4 GiB");
    let start = out.len();
    let header = FrameHeader {
        stored: length(payload.len()),
        raw: length(raw),
        kind: kind as u8,
        compression: compression as u8,
    };
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(payload);
    out.resize(start + FRAME_HEADER_BYTES + payload.len().next_multiple_of(8), 0);
    let checksum = xxh3_64_with_seed(&out[start..], seed(salt, offset));
    out.extend_from_slice(&checksum.to_le_bytes());
    out.len() - start
}

/// Checks a whole frame, read from `offset`, and returns its header. Costs a hash of its bytes.
///
/// # Errors
/// Damage counted from the frame's start.
pub(crate) fn check_frame(frame: &[u8], kind: FrameKind, salt: u64, offset: u64) -> Result<FrameHeader, Damage> {
    let length = frame.len() as u64;
    let (Some(header), Some((body, sum))) = (FrameHeader::decode(frame), frame.split_last_chunk::<CHECKSUM_BYTES>())
    else {
        let least = Expectation::AtLeast(FRAME_OVERHEAD_BYTES as u64);
        return Err(Damage::new(0, "frame length", least, length));
    };
    let found = xxh3_64_with_seed(body, seed(salt, offset));
    let expected = u64::from_le_bytes(*sum);
    if found != expected && !planted_faults::planted("table-checksum-skipped") {
        return Err(Damage::new(0, "frame checksum", Expectation::Checksum(expected), found));
    }
    if header.kind != kind as u8 {
        return Err(Damage::new(8, "frame kind", Expectation::Exactly(kind as u64), header.kind.into()));
    }
    let whole = u64::from(header.stored).next_multiple_of(8) + FRAME_OVERHEAD_BYTES as u64;
    if whole != length {
        return Err(Damage::new(0, "frame length", Expectation::Exactly(whole), length));
    }
    Ok(header)
}

/// The payload of a frame that was checked, decompressed into `into`.
///
/// # Errors
/// Damage counted from the frame's start: an unknown compression, a raw length beyond reason (before anything is
/// allocated for it), or a payload that does not decompress to it.
pub(crate) fn decompress(frame: &[u8], header: FrameHeader, into: &mut Vec<u8>) -> Result<(), Damage> {
    let stored = header.stored as usize;
    let payload = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + stored);
    let payload = payload
        .ok_or_else(|| Damage::new(0, "frame length", Expectation::AtLeast(stored as u64), frame.len() as u64))?;
    into.clear();
    if header.compression == Compression::None as u8 {
        if header.raw != header.stored {
            let stored = Expectation::Exactly(header.stored.into());
            return Err(Damage::new(4, "raw length", stored, header.raw.into()));
        }
        into.extend_from_slice(payload);
        return Ok(());
    }
    if header.compression != Compression::Lz4 as u8 {
        return Err(Damage::new(9, "compression", Expectation::AtMost(1), header.compression.into()));
    }
    // LZ4 cannot expand more than 255 times: a larger claim is damage, found before memory is taken for it.
    let raw_max = (stored as u64 * 255 + 64).min(BlockHandle::FRAME_BYTES_MAX as u64);
    if u64::from(header.raw) > raw_max {
        return Err(Damage::new(4, "raw length", Expectation::AtMost(raw_max), header.raw.into()));
    }
    into.resize(header.raw as usize, 0);
    match lz4_flex::block::decompress_into(payload, into) {
        Ok(bytes) if bytes == into.len() => Ok(()),
        Ok(bytes) => Err(Damage::new(4, "decompressed length", Expectation::Exactly(header.raw.into()), bytes as u64)),
        Err(_) => Err(Damage::new(FRAME_HEADER_BYTES as u64, "lz4 data", Expectation::Exactly(header.raw.into()), 0)),
    }
}
