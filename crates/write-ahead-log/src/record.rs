//! One record: a fixed header with a checksum of its own, then the payload.
//!
//! ```text
//!        0        4        8                 16       24                32       40
//!        ┌────────┬────────┬─────────────────┬────────┬────────┬────────┬────────┬─────────────┬─ ─ ─ ┐
//!        │ header │payload │ salt of the     │ offset │ length │ first seqno │kind│ claim    │ payload …   pad to 8
//!        │ crc32  │ crc32  │ segment         │ of this│        │ (56 bits)   │ 8  │ offset,back │
//!        └────────┴────────┴─────────────────┴────────┴────────┴────────┴────────┴─────────────┴─ ─ ─ ┘
//! bytes  0..4     4..8     8..16             16..20   20..24   24..32 (kind lowest) 32..36, 36..40  40..
//! ```
//!
//! - **L2** Records are 8-aligned. Salt and offset tell a record of this incarnation of the file from one that an
//!   earlier incarnation left behind. The header checksum covers bytes 4 to 40, the payload checksum the payload alone,
//!   so that headers can be tested without reading payloads.
//! - **P1** The payload checksum is made by [`Payload::new`], before the reservation; the header checksum after it.
//! - A claim is stored as an offset and as how many ids its segment lies *before* the record's own.

use std::fmt;
use std::sync::LazyLock;

use internal_key::{SegmentId, SeqNo};

use crate::{LogPosition, SegmentName};

/// What a record is. On disk since format 1: numbers are never changed or reused, and zero is never one.
///
/// The log itself writes and understands [`Seal`](Self::Seal) and [`End`](Self::End); the payloads of all others belong
/// to the layers above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// A batch of entries.
    Batch = 1,
    /// A batch whose entries stand in a file of their own (P11).
    BatchReference = 2,
    /// A keyspace begins to exist (P12).
    CreateKeyspace = 3,
    /// A keyspace ceases to exist (P12).
    DropKeyspace = 4,
    /// A keyspace becomes empty (P12).
    ClearKeyspace = 5,
    /// Tables written elsewhere join a keyspace (P12).
    Ingest = 6,
    /// The last record of its segment: names the successor by id and salt.
    Seal = 7,
    /// The log was closed cleanly here. Has no payload.
    End = 8,
}

impl RecordKind {
    /// Every kind, by number.
    pub const ALL: [Self; 8] = [
        Self::Batch,
        Self::BatchReference,
        Self::CreateKeyspace,
        Self::DropKeyspace,
        Self::ClearKeyspace,
        Self::Ingest,
        Self::Seal,
        Self::End,
    ];

    /// Whether the record belongs to the layers above: it has a sequence number of its own, and replay hands it out.
    #[inline]
    pub const fn is_data(self) -> bool {
        !matches!(self, Self::Seal | Self::End)
    }
}

/// A record kind that no format of this crate defines, behind a header whose checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown record kind {found}: expected 1 to 8")]
pub struct UnknownRecordKind {
    /// The number found.
    pub found: u8,
}

impl TryFrom<u8> for RecordKind {
    type Error = UnknownRecordKind;

    fn try_from(number: u8) -> Result<Self, UnknownRecordKind> {
        let index = usize::from(number).wrapping_sub(1);
        Self::ALL.get(index).copied().ok_or(UnknownRecordKind { found: number })
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Batch => "batch",
            Self::BatchReference => "batch-reference",
            Self::CreateKeyspace => "create-keyspace",
            Self::DropKeyspace => "drop-keyspace",
            Self::ClearKeyspace => "clear-keyspace",
            Self::Ingest => "ingest",
            Self::Seal => "seal",
            Self::End => "end",
        })
    }
}

/// Bytes before the payload. On disk since format 1.
pub const RECORD_HEADER_BYTES: usize = 40;
const _: () = assert!(RECORD_HEADER_BYTES == size_of::<u32>() * 6 + size_of::<u64>() * 2);

/// Records start at multiples of this. On disk since format 1.
pub const RECORD_ALIGNMENT: usize = 8;
const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGNMENT));

/// Bytes of a seal's payload: the successor's id and salt, 8 bytes each. On disk since format 1.
pub(crate) const SEAL_PAYLOAD_BYTES: usize = 16;

/// Room that every reservation leaves behind itself, so that a seal fits wherever the log is cut (**L4**).
pub(crate) const SEAL_BYTES: u32 = (RECORD_HEADER_BYTES + SEAL_PAYLOAD_BYTES) as u32;

/// The payload of a record with its kind and checksum, made before the reservation (**P1**).
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    kind: RecordKind,
    bytes: &'a [u8],
    crc: u32,
}

impl<'a> Payload<'a> {
    /// Computes the checksum of `bytes`: about 8 ns for 140 bytes.
    ///
    /// # Panics
    /// If `kind` is [`RecordKind::Seal`] or [`RecordKind::End`]: those are the log's own.
    pub fn new(kind: RecordKind, bytes: &'a [u8]) -> Self {
        assert!(kind.is_data(), "L2: {kind} records are written by the log alone");
        Self::of_any_kind(kind, bytes)
    }

    pub(crate) fn of_any_kind(kind: RecordKind, bytes: &'a [u8]) -> Self {
        Self { kind, bytes, crc: crc32(bytes) }
    }

    /// What the record will be.
    pub const fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The bytes. May be empty.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// CRC-32 (IEEE) of the bytes.
    pub const fn crc(&self) -> u32 {
        self.crc
    }
}

/// CRC-32 (IEEE) of `bytes`.
#[inline]
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    // What the processor can do is asked once: asking for each of a record's two checksums costs a tenth of an append.
    static FRESH: LazyLock<crc32fast::Hasher> = LazyLock::new(crc32fast::Hasher::new);
    // The thread sanitizer does not see how the standard library orders the making of a lazy value before its uses.
    let mut hasher = if cfg!(thread_sanitizer) { crc32fast::Hasher::new() } else { FRESH.clone() };
    hasher.update(bytes);
    hasher.finalize()
}

/// How many bytes a record with a payload of `payload_len` bytes occupies, padding included.
pub(crate) const fn record_bytes(payload_len: u64) -> u64 {
    (RECORD_HEADER_BYTES as u64 + payload_len).next_multiple_of(RECORD_ALIGNMENT as u64)
}

/// A decoded record header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where the record starts.
    pub position: LogPosition,
    /// What it is.
    pub kind: RecordKind,
    /// The sequence number of its first entry; for a seal or an end the smallest that may follow.
    pub first_seqno: SeqNo,
    /// Everything before this was durable when the record was reserved (**L2**).
    pub claim: LogPosition,
    /// Bytes of payload.
    pub payload_len: u32,
    /// CRC-32 (IEEE) of the payload.
    pub payload_crc: u32,
}

impl RecordHeader {
    /// Where the record ends, padding included: the position of the next.
    pub fn end(&self) -> LogPosition {
        LogPosition::new(self.position.segment, self.position.offset + record_bytes(u64::from(self.payload_len)))
    }

    /// Where the payload starts in the file.
    pub fn payload_offset(&self) -> u64 {
        self.position.offset + RECORD_HEADER_BYTES as u64
    }

    /// The header's bytes in a segment of that `salt`.
    ///
    /// # Panics
    /// If the claim lies behind the record (**L2**), or the offset does not fit (**L1**).
    #[inline]
    pub(crate) fn encode(&self, salt: u64) -> [u8; RECORD_HEADER_BYTES] {
        assert!(self.claim <= self.position, "L2: a claim never passes the record that carries it");
        let back = self.position.segment.get() - self.claim.segment.get();
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&salt.to_le_bytes());
        bytes[16..20].copy_from_slice(&fits_u32(self.position.offset).to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[24..32].copy_from_slice(&(self.first_seqno.get() << 8 | self.kind as u64).to_le_bytes());
        bytes[32..36].copy_from_slice(&fits_u32(self.claim.offset).to_le_bytes());
        bytes[36..40].copy_from_slice(&fits_u32(back).to_le_bytes());
        let crc = crc32(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `offset` of the segment `name` of `segment_bytes` bytes.
    ///
    /// `Ok(None)` means that no record of this segment starts here: zeros, a torn or damaged header, or one that an
    /// earlier incarnation of the file left behind. A header counts only if everything in it is possible, so whoever
    /// gets one may use its lengths without further checks.
    ///
    /// # Errors
    /// [`UnknownRecordKind`] if all else holds: a newer writer's record, never skipped.
    pub(crate) fn decode(
        bytes: &[u8],
        name: SegmentName,
        offset: u64,
        segment_bytes: u64,
    ) -> Result<Option<Self>, UnknownRecordKind> {
        let Some((header, _)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else { return Ok(None) };
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        // The cheap tests first: a scan asks at every eighth byte.
        if u64_at(8) != name.salt && !planted_faults::planted("log-salt-of-a-record-ignored") {
            return Ok(None);
        }
        let unchecked = planted_faults::planted("log-record-header-checksum-unchecked");
        if u64::from(u32_at(16)) != offset || (u32_at(0) != crc32(&header[4..]) && !unchecked) {
            return Ok(None);
        }
        let payload_len = u32_at(20);
        let claimed_segment = name.id.get().checked_sub(u64::from(u32_at(36)));
        let Some(claimed_segment) = claimed_segment else { return Ok(None) };
        let claim = LogPosition::new(SegmentId(claimed_segment), u64::from(u32_at(32)));
        let position = LogPosition::new(name.id, offset);
        let packed = u64_at(24);
        let Some(first_seqno) = SeqNo::new(packed >> 8) else { return Ok(None) };
        let kind = RecordKind::try_from(packed as u8);
        let room = if kind == Ok(RecordKind::Seal) { 0 } else { u64::from(SEAL_BYTES) };
        if claim > position || offset + record_bytes(u64::from(payload_len)) + room > segment_bytes {
            return Ok(None);
        }
        Ok(Some(Self { position, kind: kind?, first_seqno, claim, payload_len, payload_crc: u32_at(4) }))
    }
}

/// The payload of a seal that names `successor`.
pub(crate) fn encode_seal(successor: SegmentName) -> [u8; SEAL_PAYLOAD_BYTES] {
    let mut bytes = [0; SEAL_PAYLOAD_BYTES];
    bytes[..8].copy_from_slice(&successor.id.get().to_le_bytes());
    bytes[8..].copy_from_slice(&successor.salt.to_le_bytes());
    bytes
}

/// The successor that a seal's payload names, or `None` if it has another length.
pub(crate) fn decode_seal(payload: &[u8]) -> Option<SegmentName> {
    let (id, salt) = payload.split_first_chunk::<8>()?;
    let salt: [u8; 8] = salt.try_into().ok()?;
    Some(SegmentName { id: SegmentId(u64::from_le_bytes(*id)), salt: u64::from_le_bytes(salt) })
}

#[inline]
fn fits_u32(number: u64) -> u32 {
    u32::try_from(number).expect("L1: offsets and segment distances fit 32 bits")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: SegmentName = SegmentName { id: SegmentId(9), salt: 0x1122_3344_5566_7788 };
    const BYTES: u64 = 1 << 20;

    fn header() -> impl Strategy<Value = RecordHeader> {
        let ranges =
            (8_u64..100_000, 0_usize..8, 0..=SeqNo::MAX.get(), 0_u64..10, any::<u64>(), 0_u32..1000, any::<u32>());
        ranges.prop_map(|(eighth, kind, seqno, segment, claim, payload_len, payload_crc)| {
            let position = LogPosition::new(NAME.id, eighth * 8);
            let offset = if segment == 9 { claim % (position.offset + 1) } else { claim % (1 << 31) };
            let claim = LogPosition::new(SegmentId(segment), offset);
            let first_seqno = SeqNo::new(seqno).unwrap();
            RecordHeader { position, kind: RecordKind::ALL[kind], first_seqno, claim, payload_len, payload_crc }
        })
    }

    proptest! {
        /// L2: what was encoded comes back, at its own place in its own segment and nowhere else.
        #[test]
        fn a_header_comes_back_only_where_it_was_written(header in header(), elsewhere in 0_u64..1000, salt in any::<u64>()) {
            let bytes = header.encode(NAME.salt);
            let at = header.position.offset;
            prop_assert_eq!(RecordHeader::decode(&bytes, NAME, at, BYTES), Ok(Some(header)));
            prop_assert_eq!(RecordHeader::decode(&bytes, NAME, at + 8 + elsewhere, BYTES), Ok(None));
            let recycled = SegmentName { salt, ..NAME };
            prop_assume!(salt != NAME.salt);
            prop_assert_eq!(RecordHeader::decode(&bytes, recycled, at, BYTES), Ok(None));
        }

        /// L2: one changed bit is noticed.
        #[test]
        fn a_flipped_bit_is_no_header(header in header(), bit in 0..RECORD_HEADER_BYTES * 8) {
            let mut bytes = header.encode(NAME.salt);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(RecordHeader::decode(&bytes, NAME, header.position.offset, BYTES), Ok(None));
        }

        /// L2: arbitrary bytes never panic, also not with the right salt, place and checksum; and what is accepted fits
        /// the segment with a seal behind it (L4).
        #[test]
        fn what_is_accepted_is_possible(bytes in proptest::array::uniform32(any::<u8>()), mended in any::<bool>()) {
            let mut all = [0; RECORD_HEADER_BYTES];
            all[4..36].copy_from_slice(&bytes);
            if mended {
                all[8..16].copy_from_slice(&NAME.salt.to_le_bytes());
                all[16..20].copy_from_slice(&640_u32.to_le_bytes());
                let crc = crc32fast::hash(&all[4..]);
                all[..4].copy_from_slice(&crc.to_le_bytes());
            }
            for segment_bytes in [0, 640, 4096, 1 << 31] {
                if let Ok(Some(header)) = RecordHeader::decode(&all, NAME, 640, segment_bytes) {
                    let room = if header.kind == RecordKind::Seal { 0 } else { u64::from(SEAL_BYTES) };
                    prop_assert!(header.end().offset + room <= segment_bytes);
                    prop_assert!(header.claim <= header.position);
                }
            }
            for len in 0..RECORD_HEADER_BYTES {
                prop_assert_eq!(RecordHeader::decode(&all[..len], NAME, 640, 4096), Ok(None));
            }
        }
    }

    /// L2: an unknown kind is an error, never skipped, when all else holds.
    #[test]
    fn an_unknown_kind_is_an_error() {
        let position = LogPosition::new(NAME.id, 64);
        let header = RecordHeader {
            position,
            kind: RecordKind::Batch,
            first_seqno: SeqNo::ZERO,
            claim: position,
            payload_len: 0,
            payload_crc: 0,
        };
        for kind in [0_u8, 9, 255] {
            let mut bytes = header.encode(NAME.salt);
            bytes[24] = kind;
            let crc = crc32fast::hash(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(RecordHeader::decode(&bytes, NAME, 64, BYTES), Err(UnknownRecordKind { found: kind }));
        }
    }

    /// L2: a seal names id and salt.
    #[test]
    fn a_seal_comes_back() {
        assert_eq!(decode_seal(&encode_seal(NAME)), Some(NAME));
        assert_eq!(decode_seal(&encode_seal(NAME)[..15]), None);
        assert_eq!(decode_seal(&[0; 17]), None);
    }
}
