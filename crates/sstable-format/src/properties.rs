//! What a table says of itself, as tagged fields in a frame of their own.
//!
//! ```text
//!   field: u16 tag │ u32 bytes │ the bytes       fields ascend by tag, each at most once
//! ```
//!
//! | tag | field | tag | field |
//! |---|---|---|---|
//! | 1 | database id, u128 | 16 | entries, u64 |
//! | 2 | keyspace, u32 | 17 | tombstones, u64 |
//! | 3 | table id, u64 | 18 | logical bytes, u64 |
//! | 4 | level, u8 | 19, 20 | smallest, largest seqno, u64 |
//! | 5 | epoch, u64 | 21, 22 | smallest, largest user key |
//! | 6 | job, u64 | 23 | bytes of data blocks uncompressed, u64 |
//! | 7 | input table ids, u64 each | 24 | superseded: how many u64, the largest seqno that supersedes u64 |
//! | 8 | output index, u32 | 32 | comparator, text ("bytewise") |
//! | 9 | output count, u32 | 33, 34 | merge operator, prefix extractor, text |
//! | | | 36 | filter: policy u8 (1: one-line Bloom), bits per key u8, seed u64 |
//! | | | 37 | compression, u8; 38 block bytes, u32 |
//!
//! 24 stands only where it was asked for and there is something to say. Tables without it may hold superseded versions all
//! the same.
//!
//! Reserved: 35 timestamp width, 48 encryption key id, 49 nonce. An unknown tag below 0x8000 is skipped; one at or above
//! it, or a reserved one, must be understood and refuses the table.

use std::path::Path;

use internal_key::{Epoch, JobId, KeyspaceId, Level, MAX_KEY_BYTES, SeqNo, TableId};

use crate::error::{Corruption, Damage, Expectation, TableError};
use crate::footer::unsupported;
use crate::frame::{FRAME_HEADER_BYTES, u16_at, u32_at};
use crate::{TableIdentity, TableOptions};

/// The comparator that this engine has.
pub(crate) const COMPARATOR: &str = "bytewise";

/// What a table says of itself: identity, counts, ranges, and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// Who it is.
    pub identity: TableIdentity,
    /// How many entries it holds, tombstones included.
    pub entries: u64,
    /// How many of them are tombstones.
    pub tombstones: u64,
    /// Bytes of user keys and values, uncompressed.
    pub logical_bytes: u64,
    /// The smallest sequence number as stored (without a base).
    pub min_seqno: SeqNo,
    /// The largest sequence number as stored (without a base).
    pub max_seqno: SeqNo,
    /// The smallest user key.
    pub min_key: Box<[u8]>,
    /// The largest user key.
    pub max_key: Box<[u8]>,
    /// Bytes of all data blocks before compression.
    pub raw_bytes: u64,
    /// What of it only readers of the past can see.
    pub superseded: Superseded,
    /// The merge operator's name.
    pub merge_operator: Option<String>,
    /// The prefix extractor's name.
    pub prefix_extractor: Option<String>,
    /// Filter bits per distinct user key; 0 without a filter.
    pub filter_bits_per_key: u8,
    /// The number of the compression asked for (blocks say themselves whether they are compressed).
    pub compression: u8,
    /// The size that data blocks were filled to.
    pub block_bytes: u32,
}

/// Versions of a table that a newer version of the same key, in the same table, hides from whoever reads the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Superseded {
    /// How many; zero also if the table was not to say it.
    pub versions: u64,
    /// The largest sequence number, as stored, of a version that hides another: once nobody reads below it, none of
    /// them is needed. Zero if there are none.
    pub through: SeqNo,
}

mod tag {
    pub(super) const DATABASE: u16 = 1;
    pub(super) const KEYSPACE: u16 = 2;
    pub(super) const TABLE: u16 = 3;
    pub(super) const LEVEL: u16 = 4;
    pub(super) const EPOCH: u16 = 5;
    pub(super) const JOB: u16 = 6;
    pub(super) const INPUTS: u16 = 7;
    pub(super) const OUTPUT_INDEX: u16 = 8;
    pub(super) const OUTPUT_COUNT: u16 = 9;
    pub(super) const ENTRIES: u16 = 16;
    pub(super) const TOMBSTONES: u16 = 17;
    pub(super) const LOGICAL_BYTES: u16 = 18;
    pub(super) const MIN_SEQNO: u16 = 19;
    pub(super) const MAX_SEQNO: u16 = 20;
    pub(super) const MIN_KEY: u16 = 21;
    pub(super) const MAX_KEY: u16 = 22;
    pub(super) const RAW_BYTES: u16 = 23;
    pub(super) const SUPERSEDED: u16 = 24;
    pub(super) const COMPARATOR: u16 = 32;
    pub(super) const MERGE_OPERATOR: u16 = 33;
    pub(super) const PREFIX_EXTRACTOR: u16 = 34;
    pub(super) const TIMESTAMP_WIDTH: u16 = 35;
    pub(super) const FILTER: u16 = 36;
    pub(super) const COMPRESSION: u16 = 37;
    pub(super) const BLOCK_BYTES: u16 = 38;
    pub(super) const ENCRYPTION_KEY: u16 = 48;
    pub(super) const ENCRYPTION_NONCE: u16 = 49;
    /// From here on a reader must know the tag.
    pub(super) const CRITICAL: u16 = 0x8000;
}

/// The number of the one-line Bloom filter. On disk since format 1.
const FILTER_POLICY: u8 = 1;

impl Properties {
    pub(crate) fn new(identity: TableIdentity, options: &TableOptions) -> Self {
        Self {
            identity,
            entries: 0,
            tombstones: 0,
            logical_bytes: 0,
            min_seqno: SeqNo::MAX,
            max_seqno: SeqNo::ZERO,
            min_key: Box::default(),
            max_key: Box::default(),
            raw_bytes: 0,
            superseded: Superseded::default(),
            merge_operator: options.merge_operator.clone(),
            prefix_extractor: options.prefix_extractor.clone(),
            filter_bits_per_key: options.filter_bits_per_key,
            compression: options.compression as u8,
            block_bytes: u32::try_from(options.block_bytes).unwrap_or(u32::MAX),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = |tag: u16, bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("T5: a property stays below 4 GiB");
            out.extend_from_slice(&tag.to_le_bytes());
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        };
        let identity = &self.identity;
        field(tag::DATABASE, &identity.database_id.to_le_bytes());
        field(tag::KEYSPACE, &identity.keyspace.0.to_le_bytes());
        field(tag::TABLE, &identity.table.0.to_le_bytes());
        field(tag::LEVEL, &[identity.level.0]);
        field(tag::EPOCH, &identity.epoch.0.to_le_bytes());
        field(tag::JOB, &identity.job.0.to_le_bytes());
        let inputs: Vec<u8> = identity.inputs.iter().flat_map(|input| input.0.to_le_bytes()).collect();
        field(tag::INPUTS, &inputs);
        field(tag::OUTPUT_INDEX, &identity.output_index.to_le_bytes());
        field(tag::OUTPUT_COUNT, &identity.output_count.to_le_bytes());
        field(tag::ENTRIES, &self.entries.to_le_bytes());
        field(tag::TOMBSTONES, &self.tombstones.to_le_bytes());
        field(tag::LOGICAL_BYTES, &self.logical_bytes.to_le_bytes());
        field(tag::MIN_SEQNO, &self.min_seqno.get().to_le_bytes());
        field(tag::MAX_SEQNO, &self.max_seqno.get().to_le_bytes());
        field(tag::MIN_KEY, &self.min_key);
        field(tag::MAX_KEY, &self.max_key);
        field(tag::RAW_BYTES, &self.raw_bytes.to_le_bytes());
        if self.superseded.versions > 0 {
            let Superseded { versions, through } = self.superseded;
            field(tag::SUPERSEDED, &[versions.to_le_bytes(), through.get().to_le_bytes()].concat());
        }
        field(tag::COMPARATOR, COMPARATOR.as_bytes());
        if let Some(name) = &self.merge_operator {
            field(tag::MERGE_OPERATOR, name.as_bytes());
        }
        if let Some(name) = &self.prefix_extractor {
            field(tag::PREFIX_EXTRACTOR, name.as_bytes());
        }
        if self.filter_bits_per_key > 0 {
            let mut filter = vec![FILTER_POLICY, self.filter_bits_per_key];
            filter.extend_from_slice(&0_u64.to_le_bytes());
            field(tag::FILTER, &filter);
        }
        field(tag::COMPRESSION, &[self.compression]);
        field(tag::BLOCK_BYTES, &self.block_bytes.to_le_bytes());
        out
    }

    /// The properties in `payload`, whose frame was checked; `frame` is the frame's offset in the file.
    ///
    /// # Errors
    /// If a field is missing, has a wrong length, or must be understood and is not.
    pub(crate) fn decode(payload: &[u8], path: &Path, frame: u64) -> Result<Self, TableError> {
        let piece = frame + FRAME_HEADER_BYTES as u64;
        let corrupt =
            |at: usize, what, expected, found| Damage::new(at as u64, what, expected, found).in_file(path, piece);
        let mut fields: Vec<(u16, usize, &[u8])> = Vec::new();
        let mut at = 0;
        while at < payload.len() {
            let (tag, length) = (u16_at(payload, at), u32_at(payload, at + 2));
            let (Some(tag), Some(length)) = (tag, length) else {
                return Err(corrupt(at, "property", Expectation::AtLeast(6), (payload.len() - at) as u64));
            };
            let start = at + 6;
            let bytes = payload.get(start..).and_then(|rest| rest.get(..length as usize));
            let Some(bytes) = bytes else {
                let room = Expectation::AtMost((payload.len() - start) as u64);
                return Err(corrupt(at + 2, "property length", room, length.into()));
            };
            if let Some(&(before, ..)) = fields.last()
                && before >= tag
            {
                return Err(corrupt(at, "property tag", Expectation::AtLeast(u64::from(before) + 1), tag.into()));
            }
            fields.push((tag, start, bytes));
            at = start + bytes.len();
        }
        for &(tag, start, bytes) in &fields {
            let reserved = matches!(tag, tag::TIMESTAMP_WIDTH | tag::ENCRYPTION_KEY | tag::ENCRYPTION_NONCE);
            if reserved || tag >= tag::CRITICAL {
                return Err(unsupported(path, "property", "tags 1 to 38", tag));
            }
            if tag == tag::COMPARATOR && bytes != COMPARATOR.as_bytes() {
                return Err(unsupported(path, "comparator", COMPARATOR, bytes.escape_ascii()));
            }
            if tag == tag::FILTER && (bytes.len() != 10 || bytes[0] != FILTER_POLICY || bytes[2..] != [0; 8]) {
                return Err(unsupported(path, "filter policy", "1 with seed 0", bytes.escape_ascii()));
            }
            let _ = start;
        }
        let find = |tag: u16| fields.iter().find(|field| field.0 == tag).map(|&(_, at, bytes)| (at, bytes));
        let need = |tag: u16| {
            find(tag)
                .ok_or_else(|| corrupt(payload.len(), "property that is missing", Expectation::Exactly(tag.into()), 0))
        };
        fn number<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
            bytes.try_into().ok()
        }
        macro_rules! integer {
            ($int:ty, $tag:expr) => {{
                let (at, bytes) = need($tag)?;
                let width = Expectation::Exactly(size_of::<$int>() as u64);
                let bytes = number(bytes).ok_or_else(|| corrupt(at, "property length", width, bytes.len() as u64))?;
                <$int>::from_le_bytes(bytes)
            }};
        }
        let seqno = |tag: u16| -> Result<SeqNo, TableError> {
            let raw = integer!(u64, tag);
            let at = need(tag)?.0;
            SeqNo::new(raw).ok_or_else(|| corrupt(at, "sequence number", Expectation::AtMost(SeqNo::MAX.get()), raw))
        };
        let key = |tag: u16| -> Result<Box<[u8]>, TableError> {
            let (at, bytes) = need(tag)?;
            if bytes.len() > MAX_KEY_BYTES {
                return Err(corrupt(at, "key length", Expectation::AtMost(MAX_KEY_BYTES as u64), bytes.len() as u64));
            }
            Ok(bytes.into())
        };
        let text = |tag: u16| -> Result<Option<String>, TableError> {
            let Some((at, bytes)) = find(tag) else { return Ok(None) };
            match str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(error) => Err(TableError::Corrupt(Box::new(Corruption {
                    path: path.to_owned(),
                    offset: piece + (at + error.valid_up_to()) as u64,
                    what: "property text",
                    expected: "UTF-8".to_owned(),
                    found: format!("\"{}\"", bytes.escape_ascii()),
                }))),
            }
        };
        let superseded = match find(tag::SUPERSEDED) {
            None => Superseded::default(),
            Some((at, bytes)) => {
                let both: [u8; 16] = number(bytes)
                    .ok_or_else(|| corrupt(at, "property length", Expectation::Exactly(16), bytes.len() as u64))?;
                let (versions, through) = (u128::from_le_bytes(both) as u64, (u128::from_le_bytes(both) >> 64) as u64);
                let most = Expectation::AtMost(SeqNo::MAX.get());
                let through = SeqNo::new(through).ok_or_else(|| corrupt(at + 8, "sequence number", most, through))?;
                Superseded { versions, through }
            }
        };
        let (inputs_at, inputs) = need(tag::INPUTS)?;
        let (inputs, rest) = inputs.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(corrupt(inputs_at, "input table ids", Expectation::Exactly(0), rest.len() as u64));
        }
        let identity = TableIdentity {
            database_id: integer!(u128, tag::DATABASE),
            keyspace: KeyspaceId(integer!(u32, tag::KEYSPACE)),
            table: TableId(integer!(u64, tag::TABLE)),
            level: Level(integer!(u8, tag::LEVEL)),
            epoch: Epoch(integer!(u64, tag::EPOCH)),
            job: JobId(integer!(u64, tag::JOB)),
            inputs: inputs.iter().map(|input| TableId(u64::from_le_bytes(*input))).collect(),
            output_index: integer!(u32, tag::OUTPUT_INDEX),
            output_count: integer!(u32, tag::OUTPUT_COUNT),
        };
        Ok(Self {
            identity,
            entries: integer!(u64, tag::ENTRIES),
            tombstones: integer!(u64, tag::TOMBSTONES),
            logical_bytes: integer!(u64, tag::LOGICAL_BYTES),
            min_seqno: seqno(tag::MIN_SEQNO)?,
            max_seqno: seqno(tag::MAX_SEQNO)?,
            min_key: key(tag::MIN_KEY)?,
            max_key: key(tag::MAX_KEY)?,
            raw_bytes: integer!(u64, tag::RAW_BYTES),
            superseded,
            merge_operator: text(tag::MERGE_OPERATOR)?,
            prefix_extractor: text(tag::PREFIX_EXTRACTOR)?,
            filter_bits_per_key: find(tag::FILTER).and_then(|(_, bytes)| bytes.get(1).copied()).unwrap_or(0),
            compression: integer!(u8, tag::COMPRESSION),
            block_bytes: integer!(u32, tag::BLOCK_BYTES),
        })
    }
}
