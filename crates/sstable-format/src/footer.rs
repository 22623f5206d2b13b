//! The two ends of a table: the header, written first, and the footer, which says where everything is (T5).
//!
//! ```text
//!   header, at 0                                        footer, the last 184 bytes
//!    0 [8] "lsmtable"                                     0 u64 compatible features
//!    8 u32 format version (2)                             8 u64 read-compatible features
//!   12 u32 header bytes (64)                             16 u64 incompatible features
//!   16 u128 database id                                  24 u64 offset, u64 bytes of the properties' frame
//!   32 u32 keyspace                                      40 … of the root index
//!   36 u32 zero                                          56 … of the filter (0, 0: none)
//!   40 u64 table id                                      72 … of the dictionary (reserved: 0, 0)
//!   48 u64 job id                                        88 … of the range deletes (reserved: 0, 0)
//!   56 u64 xxh3 of bytes 0 to 56: the *salt*            104 u64 data end: blocks and large values lie before it
//!                                                       112 u32 index levels (1 or 2), 116 u32 filter probes
//!                                                       120 u64 data blocks, 128 u64 index partitions
//!                                                       136 u64 large values
//!                                                       144 u64 salt: binds the footer to its header
//!                                                       152 u64 file bytes
//!                                                       160 u32 footer bytes (184), 164 u32 format version (2)
//!                                                       168 u64 xxh3 of bytes 0 to 168
//!                                                       176 [8] "tableend"
//! ```
//!
//! The last 24 bytes have the same meaning in every format version, so that a reader always learns which it met. Feature
//! bits are of three classes: an unknown *compatible* bit changes nothing, with an unknown *read-compatible* bit a table
//! can be read but not rewritten, an unknown *incompatible* bit refuses the table.

use std::path::Path;

use internal_key::{JobId, KeyspaceId, TableId};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Corruption, Damage, Expectation, TableError, Unsupported};
use crate::frame::{BlockHandle, FRAME_OVERHEAD_BYTES, u32_at, u64_at};

/// The format that this crate writes.
///
/// Format 1, which no release wrote, had trailers of eight bytes; it is refused.
pub const FORMAT_VERSION: u32 = 2;
/// What a table begins with. On disk since format 1.
pub const HEADER_MAGIC: [u8; 8] = *b"lsmtable";
/// What a table ends with. On disk since format 1.
pub const FOOTER_MAGIC: [u8; 8] = *b"tableend";
/// Bytes before the first frame. On disk since format 1.
pub const HEADER_BYTES: usize = 8 + 4 + 4 + 16 + 4 + 4 + 8 + 8 + 8;
/// Bytes after the last frame. On disk since format 1.
pub const FOOTER_BYTES: usize = 3 * 8 + 5 * 16 + 8 + 2 * 4 + 3 * 8 + 8 + 8 + 2 * 4 + 8 + 8;
const _: () = assert!(HEADER_BYTES == 64 && FOOTER_BYTES == 184);

/// Incompatible feature bits that this crate understands: none yet.
pub const INCOMPATIBLE_FEATURES_KNOWN: u64 = 0;
/// Read-compatible feature bits that this crate understands: none yet.
pub const READ_COMPATIBLE_FEATURES_KNOWN: u64 = 0;

/// The first bytes of a table: enough to tell whose it is, also of an unfinished one (M2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableHeader {
    /// The database it belongs to.
    pub database_id: u128,
    /// The keyspace it belongs to.
    pub keyspace: KeyspaceId,
    /// Its id.
    pub table: TableId,
    /// The job that wrote it.
    pub job: JobId,
}

impl TableHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.database_id.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.keyspace.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.table.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.job.0.to_le_bytes());
        let salt = xxh3_64(&bytes[..56]);
        bytes[56..].copy_from_slice(&salt.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, and the salt.
    ///
    /// # Errors
    /// If it is no table's, or of an unknown format version, or damaged.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES], path: &Path) -> Result<(Self, u64), TableError> {
        let corrupt = |at, what, expected, found| Err(Damage::new(at, what, expected, found).in_file(path, 0));
        let field = |at| u64_at(bytes, at).unwrap_or(0);
        if bytes[..8] != HEADER_MAGIC {
            return Err(wrong_magic(path, 0, "table header", &HEADER_MAGIC, &bytes[..8]));
        }
        // Before the version: a damaged one is damage, not a newer engine's.
        let salt = field(56);
        let found = xxh3_64(&bytes[..56]);
        if found != salt && !planted_faults::planted("table-header-checksum-unchecked") {
            return corrupt(56, "header checksum", Expectation::Checksum(salt), found);
        }
        let version = u32_at(bytes, 8).unwrap_or(0);
        if version != FORMAT_VERSION {
            return Err(unsupported(path, "format version", FORMAT_VERSION, version));
        }
        let mut database_id = [0; 16];
        database_id.copy_from_slice(&bytes[16..32]);
        let header = Self {
            database_id: u128::from_le_bytes(database_id),
            keyspace: KeyspaceId(field(32) as u32),
            table: TableId(field(40)),
            job: JobId(field(48)),
        };
        Ok((header, salt))
    }
}

/// Where a frame is: offset and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Extent {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    pub(crate) compatible: u64,
    pub(crate) read_compatible: u64,
    pub(crate) incompatible: u64,
    pub(crate) properties: Extent,
    pub(crate) index: Extent,
    pub(crate) filter: Extent,
    pub(crate) data_end: u64,
    pub(crate) index_levels: u32,
    pub(crate) filter_probes: u32,
    pub(crate) data_blocks: u64,
    pub(crate) partitions: u64,
    pub(crate) large_values: u64,
    pub(crate) salt: u64,
    pub(crate) file_bytes: u64,
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let none = Extent::default();
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        for number in [self.compatible, self.read_compatible, self.incompatible] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for extent in [self.properties, self.index, self.filter, none, none] {
            bytes.extend_from_slice(&extent.offset.to_le_bytes());
            bytes.extend_from_slice(&extent.bytes.to_le_bytes());
        }
        bytes.extend_from_slice(&self.data_end.to_le_bytes());
        bytes.extend_from_slice(&self.index_levels.to_le_bytes());
        bytes.extend_from_slice(&self.filter_probes.to_le_bytes());
        for number in [self.data_blocks, self.partitions, self.large_values, self.salt, self.file_bytes] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(FOOTER_BYTES as u32).to_le_bytes());
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&FOOTER_MAGIC);
        bytes.try_into().expect("T5: the footer has a fixed length")
    }

    /// The footer of a file of `file_bytes` bytes, checked against itself and that length.
    ///
    /// # Errors
    /// If it is no table's, damaged, or of an unknown format version or incompatible feature.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES], file_bytes: u64, path: &Path) -> Result<Self, TableError> {
        let start = file_bytes - FOOTER_BYTES as u64;
        let corrupt = |at, what, expected, found| Err(Damage::new(at, what, expected, found).in_file(path, start));
        let number = |at| u64_at(bytes, at).unwrap_or(0);
        let small = |at| u32_at(bytes, at).unwrap_or(0);
        if bytes[176..] != FOOTER_MAGIC {
            return Err(wrong_magic(path, start + 176, "table footer", &FOOTER_MAGIC, &bytes[176..]));
        }
        let (length, version) = (small(160), small(164));
        if length == FOOTER_BYTES as u32 || version == FORMAT_VERSION {
            // Before the version: a damaged one is damage, not a newer engine's.
            let found = xxh3_64(&bytes[..168]);
            if found != number(168) && !planted_faults::planted("table-footer-checksum-unchecked") {
                return corrupt(168, "footer checksum", Expectation::Checksum(number(168)), found);
            }
        }
        if version != FORMAT_VERSION {
            return Err(unsupported(path, "format version", FORMAT_VERSION, version));
        }
        if length != FOOTER_BYTES as u32 {
            return corrupt(160, "footer length", Expectation::Exactly(FOOTER_BYTES as u64), length.into());
        }
        let extent = |at| Extent { offset: number(at), bytes: number(at + 8) };
        let footer = Self {
            compatible: number(0),
            read_compatible: number(8),
            incompatible: number(16),
            properties: extent(24),
            index: extent(40),
            filter: extent(56),
            data_end: number(104),
            index_levels: small(112),
            filter_probes: small(116),
            data_blocks: number(120),
            partitions: number(128),
            large_values: number(136),
            salt: number(144),
            file_bytes: number(152),
        };
        let unknown = footer.incompatible & !INCOMPATIBLE_FEATURES_KNOWN;
        if unknown != 0 && !planted_faults::planted("table-unknown-feature-accepted") {
            let known = format!("{INCOMPATIBLE_FEATURES_KNOWN:#x}");
            return Err(unsupported(path, "incompatible feature bits", known, format!("{:#x}", footer.incompatible)));
        }
        for (at, what) in [(72, "dictionary"), (88, "range deletes")] {
            if !extent(at).is_none() {
                return Err(unsupported(path, what, "none", format!("{:?}", extent(at))));
            }
        }
        if footer.file_bytes != file_bytes {
            return corrupt(152, "file length", Expectation::Exactly(footer.file_bytes), file_bytes);
        }
        // Every frame lies between header and footer, so that no later arithmetic on offsets overflows.
        for (at, what, extent) in
            [(24, "properties", footer.properties), (40, "root index", footer.index), (56, "filter", footer.filter)]
        {
            if at == 56 && extent.is_none() {
                continue;
            }
            let end = extent.offset.checked_add(extent.bytes);
            let fits = extent.offset >= HEADER_BYTES as u64 && end.is_some_and(|end| end <= start);
            if !fits || extent.bytes < FRAME_OVERHEAD_BYTES as u64 || !extent.offset.is_multiple_of(8) {
                return corrupt(at, what, Expectation::AtMost(start), end.unwrap_or(u64::MAX));
            }
        }
        if footer.data_end > start || file_bytes > BlockHandle::TABLE_BYTES_MAX {
            return corrupt(104, "data end", Expectation::AtMost(start), footer.data_end);
        }
        if !(1..=2).contains(&footer.index_levels) {
            return corrupt(112, "index levels", Expectation::AtMost(2), footer.index_levels.into());
        }
        // No block is shorter than a frame, so these bound what the counts may make a reader allocate.
        let pieces_max = file_bytes / FRAME_OVERHEAD_BYTES as u64;
        for (at, what, count) in [
            (120, "data blocks", footer.data_blocks),
            (128, "index partitions", footer.partitions),
            (136, "large values", footer.large_values),
        ] {
            if count > pieces_max {
                return corrupt(at, what, Expectation::AtMost(pieces_max), count);
            }
        }
        Ok(footer)
    }
}

pub(crate) fn unsupported(
    path: &Path,
    what: &'static str,
    expected: impl ToString,
    found: impl ToString,
) -> TableError {
    let (expected, found) = (expected.to_string(), found.to_string());
    TableError::Unsupported(Box::new(Unsupported { path: path.to_owned(), what, expected, found }))
}

fn wrong_magic(path: &Path, offset: u64, what: &'static str, expected: &[u8], found: &[u8]) -> TableError {
    let text = |bytes: &[u8]| format!("\"{}\"", bytes.escape_ascii());
    let (expected, found) = (text(expected), text(found));
    TableError::Corrupt(Box::new(Corruption { path: path.to_owned(), offset, what, expected, found }))
}
