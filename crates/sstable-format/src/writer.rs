//! Writes a table from front to back, once, from entries in order.
//!
//! ```text
//!   header │ data blocks and large values │ filter │ partitions │ root │ properties │ footer
//! ```
//!
//! - **M1** The file has a temporary name and carries the database id from its first byte on.
//! - **T1** A block ends where a page ends, if that costs little; all versions of a key that fit share a block.
//! - **T4** A block stays uncompressed where compression saves less than an eighth.

use std::fmt;
use std::path::Path;

use file_system::{FileError, FileSystem, TemporaryFile};
use internal_key::{InternalKey, Kind, MAX_KEY_BYTES, MAX_VALUE_BYTES, SeqNo};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::block::BlockBuilder;
use crate::error::WriteError;
use crate::filter;
use crate::footer::{Extent, FOOTER_BYTES, Footer, HEADER_BYTES, TableHeader};
use crate::frame::{BlockHandle, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameKind, append_frame};
use crate::index::{IndexBuilder, separator};
use crate::large::{LargeReference, REFERENCE_BYTES, write_large};
use crate::properties::Properties;
use crate::{Compression, TableIdentity, TableOptions, TableSummary};

/// Blocks end where pages end.
const PAGE_BYTES: usize = 4096;
/// How many bytes are gathered before they are handed to the file.
const APPEND_BYTES: usize = 256 << 10;

/// Counts, hashes and gathers the bytes of the file.
struct Output {
    file: Box<dyn TemporaryFile>,
    pending: Vec<u8>,
    /// Bytes handed to the file.
    written: u64,
    hasher: Xxh3,
}

impl Output {
    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        if bytes.len() >= APPEND_BYTES {
            self.flush()?;
            self.hand_over(bytes)
        } else {
            self.pending.extend_from_slice(bytes);
            self.flush_if_full()
        }
    }

    fn flush_if_full(&mut self) -> Result<(), FileError> {
        if self.pending.len() >= APPEND_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), FileError> {
        let mut pending = std::mem::take(&mut self.pending);
        let result = if pending.is_empty() { Ok(()) } else { self.hand_over(&pending) };
        pending.clear();
        self.pending = pending;
        result
    }

    fn hand_over(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.append(bytes)?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, multiple: usize) {
        let length = self.offset().next_multiple_of(multiple as u64) - self.offset();
        self.pending.resize(self.pending.len() + length as usize, 0);
    }
}

/// A table being written. Entries come in internal order; nothing names the file before [`PendingTable::persist`].
///
/// Dropping the writer, or an error, abandons the table: the temporary file is removed. Memory: one block, the index,
/// and eight bytes for each distinct user key (their hashes, for the filter).
pub struct TableWriter {
    output: Output,
    options: TableOptions,
    salt: u64,
    block: BlockBuilder,
    /// The encoded block, kept for its allocation.
    encoded: Vec<u8>,
    compressed: Vec<u8>,
    /// The frame size that the present block is filled to.
    block_budget: usize,
    /// Whether all values of the present block are large ones.
    block_out_of_line: bool,
    /// Whether the present block's first key is also the last key of the block before.
    continues_key: bool,
    /// The block before the present one: its last internal key and handle wait for a separator.
    waiting: Option<(Vec<u8>, u64, BlockHandle)>,
    index: IndexBuilder,
    hashes: Vec<u64>,
    last_key: Vec<u8>,
    last_trailer: u64,
    large_values: u64,
    properties: Properties,
}

impl TableWriter {
    /// Creates a temporary file in `dir` and begins a table in it.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn new(
        files: &dyn FileSystem,
        dir: &Path,
        identity: TableIdentity,
        options: TableOptions,
    ) -> Result<Self, WriteError> {
        let file = files.create_temporary(dir)?;
        let options = TableOptions {
            block_bytes: options.block_bytes.clamp(256, 16 << 20),
            index_partition_bytes: options.index_partition_bytes.clamp(1 << 10, 16 << 20),
            large_value_bytes: options.large_value_bytes.min(16 << 20),
            ..options
        };
        let header = TableHeader {
            database_id: identity.database_id,
            keyspace: identity.keyspace,
            table: identity.table,
            job: identity.job,
        };
        let header = header.encode();
        let salt = u64::from_le_bytes(*header.last_chunk().expect("T5: the header ends with the salt"));
        let mut output =
            Output { file, pending: Vec::with_capacity(APPEND_BYTES + 64 * 1024), written: 0, hasher: Xxh3::new() };
        output.write(&header)?;
        // Written at once, so that also an unfinished file says whose it is (M2).
        output.flush()?;
        let mut writer = Self {
            output,
            salt,
            block: BlockBuilder::default(),
            encoded: Vec::new(),
            compressed: Vec::new(),
            block_budget: 0,
            block_out_of_line: false,
            continues_key: false,
            waiting: None,
            index: IndexBuilder::new(options.index_partition_bytes),
            hashes: Vec::new(),
            last_key: Vec::new(),
            last_trailer: 0,
            large_values: 0,
            properties: Properties::new(identity, &options),
            options,
        };
        writer.block_budget = writer.next_budget();
        Ok(writer)
    }

    /// The temporary file.
    pub fn path(&self) -> &Path {
        self.output.file.path()
    }

    /// How many entries were added.
    pub fn entries(&self) -> u64 {
        self.properties.entries
    }

    /// The user key of the last entry.
    pub fn last_user_key(&self) -> Option<&[u8]> {
        (self.properties.entries > 0).then_some(&*self.last_key)
    }

    /// About how long the file would be if it were finished now: within a block and a percent.
    pub fn estimated_bytes(&self) -> u64 {
        let filter = self.hashes.len() as u64 * u64::from(self.options.filter_bits_per_key) / 8;
        let rest = self.block.bytes() + self.index.bytes() + FOOTER_BYTES + 512;
        self.output.offset() + filter + rest as u64
    }

    /// Adds an entry, which must sort after the last one.
    ///
    /// # Errors
    /// If key or value is too long, or a table cannot hold the kind (nothing changed), or the file cannot be written (the
    /// writer is then good for nothing but being dropped).
    ///
    /// # Panics
    /// If the entry does not sort after the last one (T1).
    pub fn add(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<(), WriteError> {
        let InternalKey { user_key, trailer } = key;
        let raw_trailer = trailer.to_raw();
        let kind = trailer.kind();
        if user_key.len() > MAX_KEY_BYTES {
            return Err(WriteError::KeyTooLong { bytes: user_key.len() });
        }
        if value.len() as u64 > MAX_VALUE_BYTES {
            return Err(WriteError::ValueTooLong { bytes: value.len() as u64 });
        }
        if kind == Kind::RangeDelete {
            return Err(WriteError::UnsupportedKind { kind });
        }
        // Far above what an entry, the open block and everything behind the data can need, far below the limit.
        if self.output.offset() + value.len() as u64 > BlockHandle::TABLE_BYTES_MAX / 2 {
            return Err(WriteError::TableTooLong { bytes_max: BlockHandle::TABLE_BYTES_MAX / 2 });
        }
        let is_first = self.properties.entries == 0;
        let same_key = !is_first && *user_key == *self.last_key;
        assert!(
            is_first || if same_key { raw_trailer < self.last_trailer } else { *user_key > *self.last_key },
            "T1: entries are added in internal order: {key} after {}#{}",
            self.last_key.escape_ascii(),
            self.last_trailer >> 8
        );

        let is_large = value.len() > self.options.large_value_bytes;
        let stored_bytes = if is_large { REFERENCE_BYTES } else { value.len() };
        let mut shape = self.block.shape_with(user_key, raw_trailer, stored_bytes);
        let is_full = shape.bytes() + FRAME_OVERHEAD_BYTES > self.block_budget;
        if !self.block.is_empty() && (is_full || is_large != self.block_out_of_line) {
            self.finish_block(same_key)?;
            shape = self.block.shape_with(user_key, raw_trailer, stored_bytes);
        }
        if self.block.is_empty() {
            self.name_waiting_block(user_key)?;
            self.continues_key = same_key;
            self.block_out_of_line = is_large;
        }
        if is_large {
            let reference = self.write_large_value(value)?;
            self.block.add(shape, user_key, raw_trailer, &reference.encode());
        } else {
            self.block.add(shape, user_key, raw_trailer, value);
        }

        let seqno = trailer.seqno();
        let properties = &mut self.properties;
        if is_first {
            properties.min_key = user_key.into();
        }
        properties.entries += 1;
        properties.tombstones += u64::from(kind.is_tombstone());
        properties.logical_bytes += (user_key.len() + value.len()) as u64;
        properties.min_seqno = properties.min_seqno.min(seqno);
        properties.max_seqno = properties.max_seqno.max(seqno);
        if same_key && self.options.notes_superseded {
            properties.superseded.versions += 1;
            let newer = SeqNo::new(self.last_trailer >> 8).expect("a trailer holds 56 bits of it");
            properties.superseded.through = properties.superseded.through.max(newer);
        }
        if !same_key {
            self.last_key.clear();
            self.last_key.extend_from_slice(user_key);
            if self.options.filter_bits_per_key > 0 {
                self.hashes.push(xxh3_64(user_key));
            }
        }
        self.last_trailer = raw_trailer;
        Ok(())
    }

    fn write_large_value(&mut self, value: &[u8]) -> Result<LargeReference, FileError> {
        let reference = LargeReference {
            offset: self.output.offset(),
            bytes: u32::try_from(value.len()).expect("T1: values stay below 4 GiB"),
            ordinal: u32::try_from(self.large_values).expect("T1: 8 TiB hold fewer large values than 2^32"),
        };
        self.large_values += 1;
        let output = &mut self.output;
        write_large(reference, value, self.salt, |piece| output.write(piece))?;
        debug_assert_eq!(self.output.offset(), reference.offset + reference.frame_bytes());
        Ok(reference)
    }

    /// How long the next frame may be, so that it ends where a page ends.
    fn next_budget(&self) -> usize {
        let block_bytes = self.options.block_bytes;
        if self.options.compression != Compression::None || block_bytes < PAGE_BYTES {
            return block_bytes;
        }
        let into_page = (self.output.offset() % PAGE_BYTES as u64) as usize;
        // The first block of a page gives up the bytes that lie before it; one that begins late reaches into the next.
        if into_page <= PAGE_BYTES / 2 { block_bytes - into_page } else { block_bytes + PAGE_BYTES - into_page }
    }

    /// Writes the gathered rows as a block. `key_goes_on`: the next entry has the user key of the last one.
    fn finish_block(&mut self, key_goes_on: bool) -> Result<(), FileError> {
        let (last_key, last_trailer) = self.block.last_key().expect("T1: only a block with rows is finished");
        let (last_key, last_trailer) = (last_key.to_vec(), last_trailer);
        self.encoded.clear();
        self.block.encode(&mut self.encoded, !key_goes_on && !self.continues_key, self.block_out_of_line);
        self.properties.raw_bytes += self.encoded.len() as u64;
        let mut compression = Compression::None;
        if self.options.compression == Compression::Lz4 {
            self.compressed.resize(lz4_flex::block::get_maximum_output_size(self.encoded.len()), 0);
            let length = lz4_flex::block::compress_into(&self.encoded, &mut self.compressed)
                .expect("T4: the buffer has the size that the compressor asks for");
            self.compressed.truncate(length);
            if length <= self.encoded.len() - self.encoded.len() / 8 {
                compression = Compression::Lz4;
            }
        }
        let payload = if compression == Compression::None { &self.encoded } else { &self.compressed };
        let offset = self.output.offset();
        let raw = self.encoded.len();
        let pending = &mut self.output.pending;
        let frame_bytes = append_frame(pending, FrameKind::Data, compression, raw, payload, self.salt, offset);
        self.output.flush_if_full()?;
        let handle = BlockHandle::new(offset, frame_bytes, compression != Compression::None);
        self.waiting = Some((last_key, last_trailer, handle));
        if self.options.compression == Compression::None {
            // What is left of the page is given up if it is little.
            let left = (PAGE_BYTES - (self.output.offset() % PAGE_BYTES as u64) as usize) % PAGE_BYTES;
            if left <= PAGE_BYTES / 16 && self.options.block_bytes >= PAGE_BYTES {
                self.output.pad_to(PAGE_BYTES);
            }
        }
        self.block_budget = self.next_budget();
        Ok(())
    }

    /// Puts the block before the present one into the index: its separator needs the key that follows.
    fn name_waiting_block(&mut self, next_key: &[u8]) -> Result<(), FileError> {
        if let Some((last_key, last_trailer, handle)) = self.waiting.take() {
            if *last_key == *next_key && planted_faults::planted("table-separator-forgets-versions") {
                self.index.add(&last_key, 0, handle);
            } else if *last_key == *next_key {
                self.index.add(&last_key, last_trailer, handle);
            } else {
                self.index.add(&separator(&last_key, next_key), 0, handle);
            }
        }
        Ok(())
    }

    /// Writes the rest of the table and syncs the file.
    ///
    /// # Errors
    /// [`WriteError::Empty`] without entries, or if the file cannot be written or synced: certain, nothing names it, and
    /// it is removed.
    pub fn finish(mut self) -> Result<PendingTable, WriteError> {
        if self.properties.entries == 0 {
            return Err(WriteError::Empty);
        }
        self.finish_block(false)?;
        let (last_key, _, handle) = self.waiting.take().expect("T3: the last block waits for its separator");
        self.index.add(&last_key, 0, handle);
        self.properties.max_key = last_key.into_boxed_slice();

        let mut footer = Footer {
            data_end: self.output.offset(),
            data_blocks: self.index.blocks(),
            large_values: self.large_values,
            salt: self.salt,
            ..Footer::default()
        };
        if self.options.filter_bits_per_key > 0 {
            // The lines, which follow the frame's header, begin where cache lines begin.
            while !(self.output.offset() + FRAME_HEADER_BYTES as u64).is_multiple_of(filter::LINE_BYTES as u64) {
                self.output.pending.extend_from_slice(&[0; 8]);
            }
            let lines = filter::build(&self.hashes, self.options.filter_bits_per_key);
            footer.filter_probes = filter::probes_for(self.options.filter_bits_per_key);
            footer.filter = self.write_frame(FrameKind::Filter, &lines)?;
        }
        let index = std::mem::replace(&mut self.index, IndexBuilder::new(self.options.index_partition_bytes));
        let (root, levels, partitions) = index.finish(|partition| {
            let extent = self.write_frame(FrameKind::Index, &partition)?;
            Ok::<_, FileError>(BlockHandle::new(extent.offset, extent.bytes as usize, false))
        })?;
        footer.index = self.write_frame(FrameKind::Index, &root)?;
        footer.index_levels = levels;
        footer.partitions = partitions;
        let properties = self.properties.encode();
        footer.properties = self.write_frame(FrameKind::Properties, &properties)?;
        footer.file_bytes = self.output.offset() + FOOTER_BYTES as u64;
        self.output.write(&footer.encode())?;
        self.output.flush()?;
        debug_assert_eq!(self.output.written, footer.file_bytes);
        if !planted_faults::planted("table-not-synced") {
            self.output.file.sync()?;
        }

        let Properties { min_key, max_key, min_seqno, max_seqno, entries, tombstones, logical_bytes, .. } =
            self.properties;
        let summary = TableSummary {
            bytes: self.output.written,
            checksum: self.output.hasher.digest(),
            min_key,
            max_key,
            min_seqno,
            max_seqno,
            entries,
            tombstones,
            logical_bytes,
        };
        Ok(PendingTable { temporary: self.output.file, summary })
    }

    fn write_frame(&mut self, kind: FrameKind, payload: &[u8]) -> Result<Extent, FileError> {
        let offset = self.output.offset();
        let pending = &mut self.output.pending;
        let bytes = append_frame(pending, kind, Compression::None, payload.len(), payload, self.salt, offset) as u64;
        self.output.flush_if_full()?;
        Ok(Extent { offset, bytes })
    }

    /// Gives the table up and removes its file, as dropping the writer does.
    pub fn abandon(self) {}
}

impl fmt::Debug for TableWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableWriter({}, {} entries)", self.path().display(), self.entries())
    }
}

/// A whole table under a temporary name: written and synced, not yet named (M1).
#[derive(Debug)]
pub struct PendingTable {
    /// The file. Dropping it removes the table.
    pub temporary: Box<dyn TemporaryFile>,
    /// What the manifest will say of it.
    pub summary: TableSummary,
}

impl PendingTable {
    /// Gives the table its name. Durable once the directory is synced.
    ///
    /// # Errors
    /// If the file cannot be renamed: certain, the temporary file is removed if it can be.
    pub fn persist(self, path: &Path) -> Result<TableSummary, FileError> {
        self.temporary.persist(path)?;
        Ok(self.summary)
    }

    /// Gives the table up and removes its file, as dropping it does.
    pub fn abandon(self) {}
}

/// The smallest file that can be a table.
pub(crate) const TABLE_BYTES_MIN: u64 = (HEADER_BYTES + FOOTER_BYTES) as u64;
const _: () = assert!(SeqNo::MAX.get() == (1 << 56) - 1, "seqnos leave eight bits for the kind");
