//! How a batch stands in the log: the payload of a batch record.
//!
//! ```text
//!  ┌────────┬─────────┬─────────┬───
//!  │ count  │ entry 0 │ entry 1 │ …        entry i has the record's first seqno + i
//!  └────────┴─────────┴─────────┴───
//!   entry:
//!   0        1
//!  ┌────────┬─────────────┬─────────┬───────────┬─────────┬──────────┐
//!  │ head   │ keyspace-31 │ key len │ value len │ key     │ value    │
//!  │ u8     │ if escaped  │         │           │         │          │
//!  └────────┴─────────────┴─────────┴───────────┴─────────┴──────────┘
//!   head:  7          3 2      0
//!         ┌────────────┬────────┐
//!         │ keyspace   │ kind   │    keyspace 31: 31 or more, what it has above that follows
//!         └────────────┴────────┘
//! ```
//!
//! Count, lengths and what follows an escape are *numbers*: seven bits a byte, the lowest first, bit 7 set in all but the
//! last (LEB128), in as few bytes as hold them. So there is one way to write a batch; anything else is an error. The
//! record's checksum covers all of it. Decoding checks every length against the bytes that are there and never reads beyond
//! them; an unknown kind is an error, never skipped.
//!
//! The payloads of the other records: clear and drop of a keyspace hold its id (u32); a batch reference holds
//! [`BatchReference`]. Their integers are little-endian.

use internal_key::{KeyspaceId, Kind, MAX_KEY_BYTES, TableId, UnknownKind};

/// Bytes of the longest number, which has 32 bits. On disk since log format 2.
pub const NUMBER_BYTES_MAX: usize = 5;
const _: () = assert!(NUMBER_BYTES_MAX == (u32::BITS as usize).div_ceil(7));

/// Bytes of an entry before its key, at least. On disk since log format 2.
pub const ENTRY_HEADER_BYTES_MIN: usize = 3;

/// Bytes of an entry before its key, at most: 64 KiB of key take three bytes.
const ENTRY_HEADER_BYTES_MAX: usize = 1 + NUMBER_BYTES_MAX + 3 + NUMBER_BYTES_MAX;
const _: () = assert!(MAX_KEY_BYTES < 1 << (3 * 7));

/// Bits of an entry's head that hold its kind. On disk since log format 2.
pub const HEAD_KIND_BITS: u32 = 3;
const _: () = assert!(Kind::ALL.len() <= 1 << HEAD_KIND_BITS);

/// What an entry's head holds instead of a keyspace that does not fit it. On disk since log format 2.
pub const HEAD_KEYSPACE_ESCAPE: u32 = 31;
const _: () = assert!(HEAD_KEYSPACE_ESCAPE == (u8::MAX >> HEAD_KIND_BITS) as u32);

/// One entry of a batch, borrowed from its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry<'a> {
    /// Where it goes.
    pub keyspace: KeyspaceId,
    /// What it does.
    pub kind: Kind,
    /// The user key.
    pub key: &'a [u8],
    /// The value; empty for a delete.
    pub value: &'a [u8],
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The payload ends inside an entry, or before it.
    #[error("batch ends at byte {len}: expected {expected} more at {at}")]
    Truncated {
        /// Where the missing part begins.
        at: usize,
        /// How many bytes it has.
        expected: usize,
        /// The payload's length.
        len: usize,
    },
    /// Bytes follow the last entry.
    #[error("batch has {found} bytes after its last entry, at {at}: expected none")]
    TrailingBytes {
        /// Where they begin.
        at: usize,
        /// How many.
        found: usize,
    },
    /// An entry's kind is unknown.
    #[error("entry at byte {at}: {source}")]
    Kind {
        /// Where the entry begins.
        at: usize,
        /// The number found.
        source: UnknownKind,
    },
    /// A number stands in more bytes than it needs.
    #[error("number at byte {at} has {found} bytes, expected {expected}")]
    Overlong {
        /// Where it begins.
        at: usize,
        /// How many bytes it needs.
        expected: usize,
        /// How many it has.
        found: usize,
    },
    /// A number is larger than what it counts can be.
    #[error("number at byte {at} is {found}, expected at most {expected}")]
    TooLarge {
        /// Where it begins.
        at: usize,
        /// The largest that it can be.
        expected: u32,
        /// What it is; of one that goes on behind five bytes, the least.
        found: u64,
    },
    /// A reserved byte of a batch reference is not zero.
    #[error("entry at byte {at}: reserved byte is {found}, expected 0")]
    Reserved {
        /// Where the entry begins.
        at: usize,
        /// The byte found.
        found: u8,
    },
}

/// Appends a number to `out`.
#[inline]
pub(crate) fn encode_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes a number to the end of `room`, and returns where it begins there: for a count that grows before its entries.
#[inline]
pub(crate) fn encode_number_at_end(room: &mut [u8; NUMBER_BYTES_MAX], mut number: u32) -> usize {
    let start = NUMBER_BYTES_MAX - number_bytes(number);
    for byte in &mut room[start..NUMBER_BYTES_MAX - 1] {
        *byte = number as u8 | 0x80;
        number >>= 7;
    }
    room[NUMBER_BYTES_MAX - 1] = number as u8;
    start
}

/// How many bytes a number takes.
#[inline]
pub(crate) const fn number_bytes(number: u32) -> usize {
    match number {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        0x20_0000..=0xFFF_FFFF => 4,
        0x1000_0000.. => 5,
    }
}

/// Appends one entry to `out`. The caller has checked the lengths.
#[inline]
pub(crate) fn encode_entry(out: &mut Vec<u8>, keyspace: KeyspaceId, kind: Kind, key: &[u8], value: &[u8]) {
    out.reserve(ENTRY_HEADER_BYTES_MAX + key.len() + value.len());
    let escaped = keyspace.get().checked_sub(HEAD_KEYSPACE_ESCAPE);
    let in_head = if escaped.is_some() { HEAD_KEYSPACE_ESCAPE } else { keyspace.get() };
    out.push((in_head << HEAD_KIND_BITS) as u8 | kind as u8);
    if let Some(rest) = escaped {
        encode_number(out, rest);
    }
    encode_number(out, key.len() as u32);
    encode_number(out, value.len() as u32);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// How many bytes a batch of one entry takes.
#[inline]
pub(crate) fn single_bytes(keyspace: KeyspaceId, key_len: usize, value_len: usize) -> usize {
    let escaped = keyspace.get().checked_sub(HEAD_KEYSPACE_ESCAPE).map_or(0, number_bytes);
    let lengths = number_bytes(key_len as u32) + number_bytes(value_len as u32);
    number_bytes(1) + 1 + escaped + lengths + key_len + value_len
}

/// The entries of a payload, in order, each checked as it is met. After an error the iterator ends.
#[derive(Debug, Clone)]
pub struct BatchEntries<'a> {
    payload: &'a [u8],
    at: usize,
    left: u32,
}

/// Reads a payload's count and returns its entries.
///
/// # Errors
/// [`BatchError`] if the count does not end in the payload or is not written as it should be.
pub fn decode(payload: &[u8]) -> Result<BatchEntries<'_>, BatchError> {
    let mut entries = BatchEntries { payload, at: 0, left: 0 };
    entries.left = entries.number(u32::MAX)?;
    Ok(entries)
}

impl<'a> BatchEntries<'a> {
    /// How many entries the count promises beyond those already read.
    pub fn remaining(&self) -> u32 {
        self.left
    }

    #[inline]
    fn take(&mut self, expected: usize) -> Result<&'a [u8], BatchError> {
        let rest = &self.payload[self.at..];
        match rest.get(..expected) {
            Some(bytes) => {
                self.at += expected;
                Ok(bytes)
            }
            None => Err(BatchError::Truncated { at: self.at, expected, len: self.payload.len() }),
        }
    }

    /// The next number, which is at most `max`; `max` has more than seven bits.
    #[inline]
    fn number(&mut self, max: u32) -> Result<u32, BatchError> {
        match self.payload.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_number(max),
        }
    }

    /// A number of more than one byte, or none.
    fn long_number(&mut self, max: u32) -> Result<u32, BatchError> {
        let (at, len) = (self.at, self.payload.len());
        let mut number = 0;
        for (before, &byte) in self.payload[at..].iter().take(NUMBER_BYTES_MAX).enumerate() {
            number |= u64::from(byte & 0x7F) << (7 * before);
            if byte >= 0x80 {
                continue;
            }
            let found = before + 1;
            if byte == 0 && before > 0 {
                let expected = u32::try_from(number).map_or(NUMBER_BYTES_MAX, number_bytes);
                return Err(BatchError::Overlong { at, expected, found });
            }
            return match u32::try_from(number) {
                Ok(number) if number <= max => {
                    self.at += found;
                    Ok(number)
                }
                _ => Err(BatchError::TooLarge { at, expected: max, found: number }),
            };
        }
        if len - at < NUMBER_BYTES_MAX {
            return Err(BatchError::Truncated { at: len, expected: 1, len });
        }
        Err(BatchError::TooLarge { at, expected: max, found: 1 << (7 * NUMBER_BYTES_MAX) })
    }

    #[inline]
    fn entry(&mut self) -> Result<BatchEntry<'a>, BatchError> {
        let at = self.at;
        let head = self.take(1)?[0];
        let kind = head & ((1 << HEAD_KIND_BITS) - 1);
        let kind = Kind::try_from(kind).map_err(|source| BatchError::Kind { at, source })?;
        let mut keyspace = u32::from(head >> HEAD_KIND_BITS);
        if keyspace == HEAD_KEYSPACE_ESCAPE {
            keyspace += self.number(u32::MAX - HEAD_KEYSPACE_ESCAPE)?;
        }
        let key_len = self.number(MAX_KEY_BYTES as u32)? as usize;
        let value_len = self.number(u32::MAX)? as usize;
        let keyspace = KeyspaceId(keyspace);
        Ok(BatchEntry { keyspace, kind, key: self.take(key_len)?, value: self.take(value_len)? })
    }
}

impl<'a> Iterator for BatchEntries<'a> {
    type Item = Result<BatchEntry<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let found = self.payload.len() - self.at;
            if found == 0 {
                return None;
            }
            let error = BatchError::TrailingBytes { at: self.at, found };
            self.at = self.payload.len();
            return Some(Err(error));
        }
        self.left -= 1;
        let entry = self.entry();
        if entry.is_err() {
            (self.left, self.at) = (0, self.payload.len());
        }
        Some(entry)
    }
}

/// What the log says of a batch that was written as tables of its own (P11): one part per keyspace.
///
/// ```text
///   0        4       8          16
///  ┌────────┬───────┬──────────┬────────┬────────┬───
///  │ parts  │ zero  │ entries  │ part 0 │ part 1 │ …
///  └────────┴───────┴──────────┴────────┴────────┴───
///   part:
///   0           4       8         16       24          32
///  ┌───────────┬───────┬─────────┬────────┬───────────┐
///  │ keyspace  │ zero  │ table   │ bytes  │ xxh3      │
///  └───────────┴───────┴─────────┴────────┴───────────┘
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReference {
    /// How many entries its tables hold together, and so how many sequence numbers the record takes.
    pub entries: u64,
    /// Its tables.
    pub parts: Vec<BatchPart>,
}

/// One table of a [`BatchReference`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPart {
    /// Whose entries it holds.
    pub keyspace: KeyspaceId,
    /// The file.
    pub table: TableId,
    /// Its length in bytes.
    pub bytes: u64,
    /// xxh3 of the file.
    pub checksum: u64,
}

const PART_BYTES: usize = 32;
const REFERENCE_HEADER_BYTES: usize = 16;

impl BatchReference {
    /// The payload.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(REFERENCE_HEADER_BYTES + PART_BYTES * self.parts.len());
        out.extend_from_slice(&(self.parts.len() as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.entries.to_le_bytes());
        for part in &self.parts {
            out.extend_from_slice(&part.keyspace.get().to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&part.table.get().to_le_bytes());
            out.extend_from_slice(&part.bytes.to_le_bytes());
            out.extend_from_slice(&part.checksum.to_le_bytes());
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`BatchError`] if the length is not what the count says.
    pub fn decode(payload: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = payload.first_chunk::<REFERENCE_HEADER_BYTES>() else {
            return Err(BatchError::Truncated { at: 0, expected: REFERENCE_HEADER_BYTES, len: payload.len() });
        };
        let [count @ .., _, _, _, _, _, _, _, _, _, _, _, _] = *header;
        let [_, _, _, _, _, _, _, _, entries @ ..] = *header;
        check_reserved(payload, 4)?;
        let (count, entries) = (u32::from_le_bytes(count) as usize, u64::from_le_bytes(entries));
        let (parts, rest) = payload[REFERENCE_HEADER_BYTES..].as_chunks::<PART_BYTES>();
        if parts.len() < count {
            let expected = count.saturating_mul(PART_BYTES);
            return Err(BatchError::Truncated { at: REFERENCE_HEADER_BYTES, expected, len: payload.len() });
        }
        if parts.len() > count || !rest.is_empty() {
            let at = REFERENCE_HEADER_BYTES + count * PART_BYTES;
            return Err(BatchError::TrailingBytes { at, found: payload.len() - at });
        }
        for part in 0..count {
            check_reserved(payload, REFERENCE_HEADER_BYTES + part * PART_BYTES + 4)?;
        }
        let u32_at = |part: &[u8; PART_BYTES], at: usize| {
            u32::from_le_bytes([part[at], part[at + 1], part[at + 2], part[at + 3]])
        };
        let u64_at =
            |part: &[u8; PART_BYTES], at: usize| u64::from(u32_at(part, at)) | u64::from(u32_at(part, at + 4)) << 32;
        let parts = parts.iter().map(|part| BatchPart {
            keyspace: KeyspaceId(u32_at(part, 0)),
            table: TableId(u64_at(part, 8)),
            bytes: u64_at(part, 16),
            checksum: u64_at(part, 24),
        });
        Ok(Self { entries, parts: parts.collect() })
    }
}

/// Checks that the four bytes at `at` are zero.
fn check_reserved(payload: &[u8], at: usize) -> Result<(), BatchError> {
    let bytes = payload.get(at..at + 4).unwrap_or_default();
    match bytes.iter().zip(at..).find(|(byte, _)| **byte != 0) {
        Some((&found, at)) => Err(BatchError::Reserved { at, found }),
        None => Ok(()),
    }
}

/// The payload of a clear or drop record.
pub(crate) fn encode_keyspace(id: KeyspaceId) -> [u8; 4] {
    id.get().to_le_bytes()
}

/// The keyspace that a clear or drop record names.
///
/// # Errors
/// [`BatchError`] if the payload is not four bytes.
pub fn decode_keyspace(payload: &[u8]) -> Result<KeyspaceId, BatchError> {
    match payload.try_into() {
        Ok(bytes) => Ok(KeyspaceId(u32::from_le_bytes(bytes))),
        Err(_) if payload.len() < 4 => Err(BatchError::Truncated { at: 0, expected: 4, len: payload.len() }),
        Err(_) => Err(BatchError::TrailingBytes { at: 4, found: payload.len() - 4 }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batch(entries: &[(u32, Kind, &[u8], &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_number(&mut out, entries.len() as u32);
        for &(keyspace, kind, key, value) in entries {
            encode_entry(&mut out, KeyspaceId(keyspace), kind, key, value);
        }
        out
    }

    fn entries_of(payload: &[u8]) -> Result<Vec<BatchEntry<'_>>, BatchError> {
        decode(payload)?.collect()
    }

    /// P1: what is encoded before the reservation is what replay decodes. The bytes are those of `docs/format.md`.
    #[test]
    fn a_batch_reads_back_and_its_bytes_are_those_of_the_format_page() {
        let bytes = batch(&[(1, Kind::Put, b"k", b"v1"), (200, Kind::Delete, b"", b"")]);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md")).unwrap();
        let (_, section) = page.split_once("\n## Batches\n").unwrap();
        let (_, example) = section.split_once("put of `k` = `v1`").unwrap();
        let shown = example.split("```").nth(1).unwrap().lines().skip(1);
        let shown: Vec<&str> = shown.flat_map(|line| line.split("   ").next().unwrap().split_whitespace()).collect();
        assert_eq!(hex, shown);
        let expected = vec![
            BatchEntry { keyspace: KeyspaceId(1), kind: Kind::Put, key: b"k", value: b"v1" },
            BatchEntry { keyspace: KeyspaceId(200), kind: Kind::Delete, key: b"", value: b"" },
        ];
        assert_eq!(entries_of(&bytes), Ok(expected));
    }

    /// L2: a row of 16 + 100 bytes takes four bytes more, so that its record is 144 bytes long.
    #[test]
    fn a_small_row_has_four_bytes_around_it() {
        assert_eq!(batch(&[(1, Kind::Put, &[1; 16], &[2; 100])]).len(), 4 + 16 + 100);
    }

    #[test]
    fn numbers_read_back_at_every_length_and_everywhere_a_batch_has_one() {
        for number in (0..32).flat_map(|bit| [(1_u32 << bit) - 1, 1 << bit]).chain([u32::MAX]) {
            let mut out = Vec::new();
            encode_number(&mut out, number);
            assert_eq!(out.len(), number_bytes(number), "{number}");
            let mut room = [0xEE; NUMBER_BYTES_MAX];
            let start = encode_number_at_end(&mut room, number);
            assert_eq!(room[start..], out, "{number}");
            assert_eq!(decode(&out).map(|entries| entries.remaining()), Ok(number));
            let keyspace = KeyspaceId(number);
            let (key, value) = (vec![1; number.min(65_535) as usize], vec![2; number.min(1 << 22) as usize]);
            let mut payload = vec![1];
            encode_entry(&mut payload, keyspace, Kind::Put, &key, &value);
            assert_eq!(payload.len(), single_bytes(keyspace, key.len(), value.len()));
            let expected = BatchEntry { keyspace, kind: Kind::Put, key: &key, value: &value };
            assert_eq!(entries_of(&payload), Ok(vec![expected]));
        }
    }

    /// L2: there is one way to write a batch.
    #[test]
    fn what_is_written_otherwise_is_an_error() {
        let put = (1 << HEAD_KIND_BITS) | Kind::Put as u8;
        let escaped = (31 << HEAD_KIND_BITS) | Kind::Put as u8;
        let overlong = |at, expected, found| Err(BatchError::Overlong { at, expected, found });
        let too_large = |at, expected, found| Err(BatchError::TooLarge { at, expected, found });
        assert_eq!(entries_of(&[0x80, 0]), overlong(0, 1, 2));
        assert_eq!(entries_of(&[0xFF, 0x80, 0]), overlong(0, 1, 3));
        assert_eq!(entries_of(&[1, put, 0x80, 0, 0]), overlong(2, 1, 2));
        assert_eq!(entries_of(&[1, put, 0, 0xFF, 0xFF, 0x80, 0x80, 0]), overlong(3, 2, 5));
        assert_eq!(entries_of(&[1, escaped, 0x80, 0, 0, 0]), overlong(2, 1, 2));
        let (key_max, keyspace_max) = (MAX_KEY_BYTES as u32, u32::MAX - 31);
        assert_eq!(entries_of(&[1, put, 0x80, 0x80, 4, 0]), too_large(2, key_max, 65_536));
        assert_eq!(entries_of(&[1, escaped, 0xE1, 0xFF, 0xFF, 0xFF, 0x0F]), too_large(2, keyspace_max, (1 << 32) - 31));
        assert_eq!(entries_of(&[0x80, 0x80, 0x80, 0x80, 0x10]), too_large(0, u32::MAX, 1 << 32));
        assert_eq!(entries_of(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]), too_large(0, u32::MAX, 1 << 35));
        let unknown = BatchError::Kind { at: 1, source: UnknownKind { found: 6 } };
        assert_eq!(entries_of(&[1, 6, 0, 0]), Err(unknown));
    }

    #[test]
    fn every_truncation_and_every_longer_payload_is_an_error() {
        let long = [3; 300];
        let bytes = batch(&[(1, Kind::Put, b"key", &long), (1 << 30, Kind::Delete, b"other", b"")]);
        for len in 0..bytes.len() {
            let read = entries_of(&bytes[..len]);
            let Err(BatchError::Truncated { at, expected, len: found }) = read else {
                panic!("{len} of {} bytes: {read:?}", bytes.len());
            };
            assert!(at <= len && at + expected > len && found == len, "{len} of {} bytes: {read:?}", bytes.len());
        }
        let mut longer = bytes;
        longer.push(0);
        let read = entries_of(&longer);
        assert!(matches!(read, Err(BatchError::TrailingBytes { .. })), "{read:?}");
    }

    /// P11: each reserved byte of a reference, in its header and in its parts, is zero or an error.
    #[test]
    fn a_reserved_byte_of_a_reference_that_is_not_zero_is_an_error() {
        let part = |id| BatchPart { keyspace: KeyspaceId(id), table: TableId(9), bytes: 4096, checksum: 7 };
        let payload = BatchReference { entries: 3, parts: vec![part(1), part(2)] }.encode();
        for at in [4..8, 20..24, 52..56].into_iter().flatten() {
            let mut changed = payload.clone();
            changed[at] = 8;
            assert_eq!(BatchReference::decode(&changed), Err(BatchError::Reserved { at, found: 8 }));
        }
    }

    #[test]
    fn a_reference_reads_back_and_a_wrong_length_is_an_error() {
        let part = BatchPart { keyspace: KeyspaceId(3), table: TableId(1 << 40), bytes: u64::MAX, checksum: 7 };
        let reference = BatchReference { entries: 9, parts: vec![part, part] };
        let bytes = reference.encode();
        assert_eq!(BatchReference::decode(&bytes), Ok(reference));
        for len in (0..bytes.len()).chain([bytes.len() + 1]) {
            let mut other = bytes.clone();
            other.resize(len, 0);
            assert!(BatchReference::decode(&other).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_yield_more_than_they_hold(bytes: Vec<u8>) {
            if let Ok(entries) = decode(&bytes) {
                let held: usize =
                    entries.flatten().map(|entry| ENTRY_HEADER_BYTES_MIN + entry.key.len() + entry.value.len()).sum();
                prop_assert!(held <= bytes.len());
            }
            let _ = BatchReference::decode(&bytes);
            let _ = decode_keyspace(&bytes);
        }
    }
}
