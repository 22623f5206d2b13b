//! How a batch stands in the log: the payload of a batch record.
//!
//! ```text
//!   0        4
//!  ┌────────┬─────────┬─────────┬───
//!  │ count  │ entry 0 │ entry 1 │ …        entry i has the record's first seqno + i
//!  └────────┴─────────┴─────────┴───
//!   entry:
//!   0      1      2          4           8            12        12+k       12+k+v
//!  ┌──────┬──────┬──────────┬───────────┬────────────┬─────────┬──────────┐
//!  │ kind │ zero │ key len  │ keyspace  │ value len  │ key     │ value    │
//!  │ u8   │ u8   │ u16      │ u32       │ u32        │ k bytes │ v bytes  │
//!  └──────┴──────┴──────────┴───────────┴────────────┴─────────┴──────────┘
//! ```
//!
//! Little-endian; the record's checksum covers all of it. Decoding checks every length against the bytes that are there
//! and never reads beyond them; an unknown kind is an error, never skipped.
//!
//! The payloads of the other records: clear and drop of a keyspace hold its id (u32); a batch reference holds
//! [`BatchReference`].

use internal_key::{KeyspaceId, Kind, TableId, UnknownKind};

/// Bytes before the first entry. On disk since format 1.
pub const BATCH_HEADER_BYTES: usize = 4;
const _: () = assert!(BATCH_HEADER_BYTES == size_of::<u32>());

/// Bytes of an entry before its key. On disk since format 1.
pub const ENTRY_HEADER_BYTES: usize = 12;
const _: () =
    assert!(ENTRY_HEADER_BYTES == size_of::<u8>() * 2 + size_of::<u16>() + size_of::<u32>() + size_of::<u32>());

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
    /// The reserved byte is not zero.
    #[error("entry at byte {at}: reserved byte is {found}, expected 0")]
    Reserved {
        /// Where the entry begins.
        at: usize,
        /// The byte found.
        found: u8,
    },
}

/// Appends one entry to `out`. The caller has checked the lengths.
pub(crate) fn encode_entry(out: &mut Vec<u8>, keyspace: KeyspaceId, kind: Kind, key: &[u8], value: &[u8]) {
    out.reserve(ENTRY_HEADER_BYTES + key.len() + value.len());
    let mut header = [0; ENTRY_HEADER_BYTES];
    header[0] = kind as u8;
    header[2..4].copy_from_slice(&(key.len() as u16).to_le_bytes());
    header[4..8].copy_from_slice(&keyspace.get().to_le_bytes());
    header[8..12].copy_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// The entries of a payload, in order, each checked as it is met. After an error the iterator ends.
#[derive(Debug, Clone)]
pub struct BatchEntries<'a> {
    payload: &'a [u8],
    at: usize,
    left: u32,
}

/// Reads a payload's header and returns its entries.
///
/// # Errors
/// [`BatchError::Truncated`] if there is no room for the header.
pub fn decode(payload: &[u8]) -> Result<BatchEntries<'_>, BatchError> {
    let Some(count) = payload.first_chunk() else {
        return Err(BatchError::Truncated { at: 0, expected: BATCH_HEADER_BYTES, len: payload.len() });
    };
    Ok(BatchEntries { payload, at: BATCH_HEADER_BYTES, left: u32::from_le_bytes(*count) })
}

impl<'a> BatchEntries<'a> {
    /// How many entries the header promises beyond those already read.
    pub fn remaining(&self) -> u32 {
        self.left
    }

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

    fn entry(&mut self) -> Result<BatchEntry<'a>, BatchError> {
        let at = self.at;
        let header = self.take(ENTRY_HEADER_BYTES)?;
        let kind = Kind::try_from(header[0]).map_err(|source| BatchError::Kind { at, source })?;
        if header[1] != 0 {
            return Err(BatchError::Reserved { at, found: header[1] });
        }
        let u32_at =
            |from: usize| u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]]);
        let key_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
        let keyspace = KeyspaceId(u32_at(4));
        let value_len = u32_at(8) as usize;
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
        let mut out = (entries.len() as u32).to_le_bytes().to_vec();
        for &(keyspace, kind, key, value) in entries {
            encode_entry(&mut out, KeyspaceId(keyspace), kind, key, value);
        }
        out
    }

    /// P1: what is encoded before the reservation is what replay decodes. The bytes are those of `docs/format.md`.
    #[test]
    fn a_batch_reads_back_and_its_bytes_are_those_of_the_format_page() {
        let bytes = batch(&[(1, Kind::Put, b"k", b"v1"), (2, Kind::Delete, b"", b"")]);
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex.join(" "),
            "02 00 00 00 01 00 01 00 01 00 00 00 02 00 00 00 6b 76 31 00 00 00 00 02 00 00 00 00 00 00 00"
        );
        let entries: Result<Vec<_>, _> = decode(&bytes).unwrap().collect();
        let expected = vec![
            BatchEntry { keyspace: KeyspaceId(1), kind: Kind::Put, key: b"k", value: b"v1" },
            BatchEntry { keyspace: KeyspaceId(2), kind: Kind::Delete, key: b"", value: b"" },
        ];
        assert_eq!(entries, Ok(expected));
    }

    #[test]
    fn every_truncation_and_every_longer_payload_is_an_error() {
        let bytes = batch(&[(1, Kind::Put, b"key", b"value"), (2, Kind::Delete, b"other", b"")]);
        for len in 0..bytes.len() {
            let read: Result<Vec<_>, _> = decode(&bytes[..len]).and_then(Iterator::collect);
            assert!(matches!(read, Err(BatchError::Truncated { .. })), "{len} of {} bytes: {read:?}", bytes.len());
        }
        let mut longer = bytes;
        longer.push(0);
        let read: Result<Vec<_>, _> = decode(&longer).unwrap().collect();
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
                    entries.flatten().map(|entry| ENTRY_HEADER_BYTES + entry.key.len() + entry.value.len()).sum();
                prop_assert!(held <= bytes.len());
            }
            let _ = BatchReference::decode(&bytes);
            let _ = decode_keyspace(&bytes);
        }
    }
}
