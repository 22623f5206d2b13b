//! One record: a fixed header with a checksum of its own, then the payload.
//!
//! ```text
//!        0        4        8        12   13              20       24
//!        ┌────────┬────────┬────────┬────┬───────────────┬────────┬─────────────┬─ ─ ─ ┐
//!        │ header │payload │ length │kind│ first seqno   │ claim  │ payload …   pad to 8
//!        │ crc32  │crc ^salt│        │ 8  │ ^ salt >> 8   │        │             │       │
//!        └────────┴────────┴────────┴────┴───────────────┴────────┴─────────────┴─ ─ ─ ┘
//!
//!   covered by the header's checksum, in this order:
//!        ┌─────────────────┬────────┬─ ─ ─
//!        │ salt of the     │ offset │ bytes 4..24 of the header
//!        │ segment         │ of this│
//!        └─────────────────┴────────┴─ ─ ─
//!
//!   claim, a u32:   31   28 27                       0
//!                  ┌───────┬──────────────────────────┐
//!                  │ back  │ offset / 8               │   back 0 to 14: so many ids before the record's own
//!                  │ 15    │ so many ids back, or 0   │   the start of a segment further back; 0: of nothing
//!                  └───────┴──────────────────────────┘
//! ```
//!
//! - **L2** Records are 8-aligned. Salt and offset are not stored, the header's checksum covers them: so a record of this
//!   incarnation of the file is told from one that an earlier incarnation left behind, by 12 bytes less. The payload has a
//!   checksum of its own, so that headers can be tested without reading payloads.
//! - The payload's checksum is stored XOR the salt's lower 32 bits, the sequence number XOR its upper 56. Replay asks of a
//!   header beside its checksum that either is as it should be (**L3**): nobody who does not know the salt can write values
//!   that are, if they are taken for a header.
//! - **P1** The payload checksum is made by [`Payload::new`], before the reservation; the header checksum after it.
//! - A claim may be stored as an earlier position than it is, never as a later one: it says that everything before it is
//!   durable, and so does whatever lies before it. All that occur are stored exactly but those 15 segments back or more,
//!   of which the segment is kept and the offset in it is not.

use std::fmt;
use std::sync::LazyLock;

use internal_key::{SegmentId, SeqNo};

use crate::{LogPosition, SegmentName};

/// What a record is. On disk since format 1: numbers are never changed or reused, zero is never one, and none is above
/// [`RECORD_KIND_MAX`].
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

/// The largest number that a later writer of this format may give a kind. On disk since format 2: where a larger one
/// stands no record begins, so that few of the places that a scan passes need their checksum made.
pub const RECORD_KIND_MAX: u8 = 15;
const _: () = assert!(RecordKind::ALL.len() < RECORD_KIND_MAX as usize);

/// Bytes before the payload. On disk since format 2.
pub const RECORD_HEADER_BYTES: usize = 24;
const _: () = assert!(RECORD_HEADER_BYTES == size_of::<u32>() * 4 + size_of::<u64>());

/// What the header's checksum is made of: salt, offset, and the header but for the checksum.
const COVERED_BYTES: usize = size_of::<u64>() + size_of::<u32>() + RECORD_HEADER_BYTES - size_of::<u32>();

/// In how many segments before its own a record can name every place of a claim. On disk since format 2.
const CLAIM_BACK_MAX: u32 = 14;

/// Stands instead of a distance where a claim lies further back, and only its segment is named. On disk since format 2.
const CLAIM_FAR: u32 = 15;

/// The largest number that a claim holds beside the distance. On disk since format 2.
const CLAIM_REST_MAX: u32 = (1 << CLAIM_BACK_SHIFT) - 1;
const CLAIM_BACK_SHIFT: u32 = 28;
const _: () = assert!(CLAIM_FAR == CLAIM_BACK_MAX + 1 && CLAIM_FAR == u32::MAX >> CLAIM_BACK_SHIFT);

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
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&(self.payload_crc ^ payload_crc_mask(salt)).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        let first_seqno = self.first_seqno.get() ^ seqno_mask(salt);
        bytes[12..20].copy_from_slice(&(first_seqno << 8 | self.kind as u64).to_le_bytes());
        bytes[20..24].copy_from_slice(&encode_claim(self.claim, self.position.segment).to_le_bytes());
        let crc = header_crc(&bytes, salt, self.position.offset);
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
    /// [`UnknownRecord`] if all else holds: a newer writer's record, never skipped.
    #[inline]
    pub(crate) fn decode(
        bytes: &[u8],
        name: SegmentName,
        offset: u64,
        segment_bytes: u64,
    ) -> Result<Option<Self>, UnknownRecord> {
        let Some((header, _)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else { return Ok(None) };
        match Self::possible(header, LogPosition::new(name.id, offset), segment_bytes) {
            Some(claim) => Self::decode_possible(header, name, offset, claim),
            None => Ok(None),
        }
    }

    /// The claim of a header in which everything is possible but for the checksum, which is not looked at. Cheap: a scan
    /// asks at every eighth byte, and at most of them the first comparison is the last.
    #[inline]
    pub(crate) fn possible(
        header: &[u8; RECORD_HEADER_BYTES],
        position: LogPosition,
        segment_bytes: u64,
    ) -> Option<LogPosition> {
        let kind = header[12];
        if kind == 0 || kind > RECORD_KIND_MAX {
            return None;
        }
        let room = if kind == RecordKind::Seal as u8 { 0 } else { u64::from(SEAL_BYTES) };
        if position.offset + record_bytes(u64::from(u32_at(header, 8))) + room > segment_bytes {
            return None;
        }
        decode_claim(u32_at(header, 20), position)
    }

    /// The header, if its checksum holds.
    fn decode_possible(
        header: &[u8; RECORD_HEADER_BYTES],
        name: SegmentName,
        offset: u64,
        claim: LogPosition,
    ) -> Result<Option<Self>, UnknownRecord> {
        let unchecked = planted_faults::planted("log-record-header-checksum-unchecked");
        if u32_at(header, 0) != header_crc(header, name.salt, offset) && !unchecked {
            return Ok(None);
        }
        let packed = u64::from(u32_at(header, 12)) | u64::from(u32_at(header, 16)) << 32;
        let Some(first_seqno) = SeqNo::new(packed >> 8 ^ seqno_mask(name.salt)) else { return Ok(None) };
        let (payload_len, payload_crc) = (u32_at(header, 8), u32_at(header, 4) ^ payload_crc_mask(name.salt));
        match RecordKind::try_from(packed as u8) {
            Ok(kind) => {
                let position = LogPosition::new(name.id, offset);
                Ok(Some(Self { position, kind, first_seqno, claim, payload_len, payload_crc }))
            }
            Err(kind) => Err(UnknownRecord { kind, first_seqno, payload_len, payload_crc }),
        }
    }
}

/// What a header says that holds in all but its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownRecord {
    pub(crate) kind: UnknownRecordKind,
    pub(crate) first_seqno: SeqNo,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
}

/// The checksum of a header at `offset` of a segment of that `salt`.
#[inline]
pub(crate) fn header_crc(header: &[u8; RECORD_HEADER_BYTES], salt: u64, offset: u64) -> u32 {
    let salt = told_salt(salt);
    let offset = u32::try_from(offset).expect("L1: offsets fit 32 bits");
    // In one piece: a checksum is made of 16 bytes at once.
    let mut covered = [0; COVERED_BYTES];
    covered[..8].copy_from_slice(&salt.to_le_bytes());
    covered[8..12].copy_from_slice(&offset.to_le_bytes());
    covered[12..].copy_from_slice(&header[4..]);
    crc32(&covered)
}

#[inline]
fn told_salt(salt: u64) -> u64 {
    if planted_faults::planted("log-salt-of-a-record-ignored") { 0 } else { salt }
}

/// What a sequence number is stored XOR of.
#[inline]
fn seqno_mask(salt: u64) -> u64 {
    told_salt(salt) >> 8
}

/// What a payload's checksum is stored XOR of.
#[inline]
pub(crate) fn payload_crc_mask(salt: u64) -> u32 {
    told_salt(salt) as u32
}

#[inline]
fn u32_at(header: &[u8; RECORD_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// A claim as a record in `segment` stores it: exactly, or as an earlier position.
#[inline]
fn encode_claim(claim: LogPosition, segment: SegmentId) -> u32 {
    let back = segment.get() - claim.segment.get();
    let (back, rest) = if back <= u64::from(CLAIM_BACK_MAX) {
        // `logged` is a multiple of 8 that lies before the end of its segment; what is not is rounded down.
        (back as u32, claim.offset / RECORD_ALIGNMENT as u64)
    } else {
        (CLAIM_FAR, if back <= u64::from(CLAIM_REST_MAX) { back } else { 0 })
    };
    back << CLAIM_BACK_SHIFT | rest.min(u64::from(CLAIM_REST_MAX)) as u32
}

/// The claim that a record at `position` stores, or `None` if none is stored so.
#[inline]
fn decode_claim(packed: u32, position: LogPosition) -> Option<LogPosition> {
    let (back, rest) = (packed >> CLAIM_BACK_SHIFT, u64::from(packed & CLAIM_REST_MAX));
    let id = position.segment.get();
    let claim = if back <= CLAIM_BACK_MAX {
        LogPosition::new(SegmentId(id.checked_sub(u64::from(back))?), rest * RECORD_ALIGNMENT as u64)
    } else if rest == 0 && id > u64::from(CLAIM_REST_MAX) {
        LogPosition::default()
    } else {
        let back = Some(rest).filter(|back| *back > u64::from(CLAIM_BACK_MAX))?;
        LogPosition::new(SegmentId(id.checked_sub(back)?), 0)
    };
    (claim <= position).then_some(claim)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: SegmentName = SegmentName { id: SegmentId(9), salt: 0x1122_3344_5566_7788 };
    const BYTES: u64 = 1 << 20;

    fn header() -> impl Strategy<Value = RecordHeader> {
        let ranges =
            (8_u64..100_000, 0_usize..8, 0..=SeqNo::MAX.get(), 0_u64..10, 0_u64..1 << 28, 0_u32..1000, any::<u32>());
        ranges.prop_map(|(eighth, kind, seqno, segment, claim, payload_len, payload_crc)| {
            let position = LogPosition::new(NAME.id, eighth * 8);
            let offset = if segment == 9 { claim % (eighth + 1) * 8 } else { claim * 8 };
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
            // A difference of 32 bits always changes a checksum of 32 bits, so that these two hold of every header.
            prop_assert_eq!(RecordHeader::decode(&bytes, NAME, at + 8 + elsewhere, BYTES), Ok(None));
            for half in [salt << 32, salt >> 32].into_iter().filter(|half| *half != 0) {
                let recycled = SegmentName { salt: NAME.salt ^ half, ..NAME };
                prop_assert_eq!(RecordHeader::decode(&bytes, recycled, at, BYTES), Ok(None));
            }
        }

        /// L2: one changed bit is noticed.
        #[test]
        fn a_flipped_bit_is_no_header(header in header(), bit in 0..RECORD_HEADER_BYTES * 8) {
            let mut bytes = header.encode(NAME.salt);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(RecordHeader::decode(&bytes, NAME, header.position.offset, BYTES), Ok(None));
        }

        /// L2: arbitrary bytes never panic, also not with the right checksum; what is accepted fits the segment with a seal
        /// behind it (L4), and has no other bytes.
        #[test]
        fn what_is_accepted_is_possible(
            bytes in proptest::array::uniform::<_, RECORD_HEADER_BYTES>(any::<u8>()),
            mended in any::<bool>(),
        ) {
            let mut all = bytes;
            if mended {
                all[12] &= RECORD_KIND_MAX;
                all[10..12].fill(0);
                let crc = header_crc(&all, NAME.salt, 640);
                all[..4].copy_from_slice(&crc.to_le_bytes());
            }
            for segment_bytes in [0, 640, 4096, 1 << 31] {
                if let Ok(Some(header)) = RecordHeader::decode(&all, NAME, 640, segment_bytes) {
                    let room = if header.kind == RecordKind::Seal { 0 } else { u64::from(SEAL_BYTES) };
                    prop_assert!(header.end().offset + room <= segment_bytes);
                    prop_assert!(header.claim <= header.position);
                    prop_assert_eq!(header.encode(NAME.salt), all);
                }
            }
            for len in 0..RECORD_HEADER_BYTES {
                prop_assert_eq!(RecordHeader::decode(&all[..len], NAME, 640, 4096), Ok(None));
            }
        }

        /// L2: a claim never comes back as a later one, exactly where it lies at most 14 segments back, else as the start of
        /// its segment, if that is told at all.
        #[test]
        fn a_claim_never_grows(
            id in prop_oneof![0_u64..100, any::<u64>()],
            back in prop_oneof![0_u64..40, (0_u32..64).prop_map(|bits| 1 << bits)],
            eighth in 8_u64..1 << 28,
            odd in 0_u64..8,
        ) {
            let record = LogPosition::new(SegmentId(id), (1 << 31) - 64);
            let Some(segment) = id.checked_sub(back) else { return Ok(()) };
            let claim = LogPosition::new(SegmentId(segment), (eighth * 8 + odd).min(record.offset));
            let told = decode_claim(encode_claim(claim, record.segment), record).unwrap();
            let start = LogPosition::new(SegmentId(segment), 0);
            let expected = match back {
                0..=14 => LogPosition { offset: claim.offset / 8 * 8, ..claim },
                _ if back < 1 << 28 => start,
                _ => LogPosition::default(),
            };
            prop_assert_eq!(told, expected);
            prop_assert!(told <= claim);
        }

        /// L2: each claim has one form, and what is none of these forms is no claim.
        #[test]
        fn a_claim_has_one_form(id in prop_oneof![0_u64..100, any::<u64>()], packed in any::<u32>(), far in any::<bool>()) {
            let record = LogPosition::new(SegmentId(id), (1 << 31) - 64);
            let packed = if far { CLAIM_FAR << CLAIM_BACK_SHIFT | packed & 63 } else { packed };
            if let Some(claim) = decode_claim(packed, record) {
                prop_assert_eq!(encode_claim(claim, record.segment), packed);
                prop_assert!(claim <= record);
            }
        }
    }

    /// L2: an unknown kind is an error, never skipped, when all else holds; beyond what kinds may ever be is no record.
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
        for kind in [0_u8, 9, 15, 16, 255] {
            let mut bytes = header.encode(NAME.salt);
            bytes[12] = kind;
            let crc = header_crc(&bytes, NAME.salt, 64);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
            let expected = match kind {
                1..=RECORD_KIND_MAX => Err(UnknownRecordKind { found: kind }),
                _ => Ok(None),
            };
            assert_eq!(RecordHeader::decode(&bytes, NAME, 64, BYTES).map_err(|unknown| unknown.kind), expected);
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
