//! Reads a table: opening checks everything that the rest is trusted by, then point reads search two or three arrays.
//!
//! ```text
//!   get ─▶ filter line ─▶ index heads ─▶ handle ─▶ block heads ─▶ key tail, value
//!          one miss       mostly cached            one miss       one miss
//! ```
//!
//! - **T2** A block is checked once per open table, a bitmap remembers; bounds are checked each time.
//! - **T4** The length is checked before mapping. Uncompressed blocks of a mapped table are read in place: no lock, no
//!   shared write, no allocation. Everything else comes through the block cache.
//! - **T5** Header, footer, properties, root index and filter are checked before `open` returns.
//! - **P11** A base is added to every stored sequence number.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use file_system::{FileSystem, MappedBytes, ReadFile};
use internal_key::{InternalKey, SeqNo, Trailer};
use memory_budget::TableMemory;
use xxhash_rust::xxh3::xxh3_64;

use crate::block::{Layout, flags};
use crate::block_cache::BlockKey;
use crate::checked::CheckedBits;
use crate::disk_waits::DiskWaits;
use crate::error::{Damage, Expectation, TableError, WrongTable};
use crate::filter::{LINE_BYTES, PROBES_MAX, line_may_contain, line_of};
use crate::footer::{Extent, FOOTER_BYTES, FORMAT_VERSION, Footer, HEADER_BYTES, TableHeader};
use crate::frame::{
    BlockHandle, CHECKSUM_BYTES, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameKind, check_frame, decompress, u32_at,
    u64_at,
};
use crate::index::{decode_partition_value, decode_root_value};
use crate::large::{LargeReference, check_large, value_of};
use crate::pinned::{Pinned, prefetch};
use crate::writer::TABLE_BYTES_MIN;
use crate::{Access, BlockCache, CachedBlock, Expected, Properties, ReadOptions, TableIdentity};

/// Numbers that tell the blocks of open tables apart in a block cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileNumber(u64);

impl FileNumber {
    /// A number that this process has not used before. A table that is closed and opened again under the same number
    /// finds its blocks in the cache; two different files must never share one.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: only uniqueness matters, which a read-modify-write gives.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

#[derive(Debug)]
enum Source {
    /// The whole file. Its descriptor is closed again.
    Map(Arc<MappedBytes>),
    File(Arc<dyn ReadFile>),
}

/// An open table. Shared behind an `Arc`; every method may be called from any thread.
pub struct TableReader {
    /// The whole map, or nothing.
    map: Pinned,
    filter: Pinned,
    filter_probes: u32,
    index_levels: u32,
    pub(crate) root: Pinned,
    pub(crate) root_layout: Layout,
    pub(crate) seqno_base: u64,
    checked_blocks: CheckedBits,
    checked_partitions: CheckedBits,
    checked_large: CheckedBits,
    block_cache: Option<Arc<BlockCache>>,
    number: FileNumber,
    source: Source,
    /// Of blocks that are decoded. For one that is read in place the clock would cost too much.
    disk_waits: DiskWaits,
    pub(crate) path: PathBuf,
    pub(crate) footer: Footer,
    salt: u64,
    properties: Properties,
    /// Counts what it holds, where a table cache keeps it within a budget. Last, so that what is given back has been freed.
    pub(crate) memory: Option<TableMemory>,
}

/// A value and how it is held.
#[derive(Debug, Clone)]
pub enum ValueRef<'t> {
    /// In the map.
    InPlace(&'t [u8]),
    /// In a decoded block.
    Block {
        /// The block.
        block: Arc<CachedBlock>,
        /// Where in it.
        range: Range<usize>,
    },
    /// Read for this call alone: a large value of a table that is not mapped, or of one that is read without a cache.
    Owned(Vec<u8>),
}

impl ValueRef<'_> {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Block { block, range } => block.get(range.clone()).unwrap_or(&[]),
            Self::Owned(bytes) => bytes,
        }
    }

    /// The bytes, copied unless they are already the caller's.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Owned(bytes) => bytes,
            other => other.as_slice().to_vec(),
        }
    }
}

impl Deref for ValueRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// The answer to a point read.
#[derive(Debug, Clone)]
pub struct Found<'t> {
    /// Sequence number (base added) and kind.
    pub trailer: Trailer,
    /// The value; empty for a tombstone.
    pub value: ValueRef<'t>,
}

/// A block's payload and how it is held.
pub(crate) enum Fetched<'t> {
    InPlace(&'t [u8]),
    Decoded(Arc<CachedBlock>),
}

impl Deref for Fetched<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Decoded(block) => block,
        }
    }
}

/// Which block is wanted, and of what kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    pub(crate) kind: FrameKind,
    pub(crate) handle: BlockHandle,
    pub(crate) ordinal: u64,
}

impl TableReader {
    /// Opens the table at `path` and checks that it is the one that is expected.
    ///
    /// Reads header, footer, properties, root index and the whole filter.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, is of a newer format, or is another table.
    pub fn open(
        files: &dyn FileSystem,
        path: &Path,
        expected: Expected,
        options: ReadOptions,
    ) -> Result<Self, TableError> {
        Self::open_numbered(files, path, expected, options, FileNumber::fresh())
    }

    /// As [`open`](Self::open), with the number under which a block cache knows the file.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_numbered(
        files: &dyn FileSystem,
        path: &Path,
        expected: Expected,
        options: ReadOptions,
        number: FileNumber,
    ) -> Result<Self, TableError> {
        let file = files.open(path)?;
        let wrong = |what, expected: String, found: String| {
            Err(TableError::WrongTable(Box::new(WrongTable { path: path.to_owned(), what, expected, found })))
        };
        if file.len() != expected.bytes && !planted_faults::planted("table-length-unchecked") {
            let length = Expectation::Exactly(expected.bytes);
            return Err(Damage::new(0, "file length", length, file.len()).in_file(path, 0));
        }
        let ends = Ends::read(&*file, path)?;
        let Ends { header, salt, footer } = ends;
        if header.database_id != expected.database_id {
            let (expected, found) = (expected.database_id, header.database_id);
            return wrong("database", format!("{expected:032x}"), format!("{found:032x}"));
        }
        if header.keyspace != expected.keyspace {
            return wrong("keyspace", expected.keyspace.to_string(), header.keyspace.to_string());
        }
        if header.table != expected.table {
            return wrong("table", expected.table.to_string(), header.table.to_string());
        }

        let source = match options.access {
            Access::Mapped => Source::Map(Arc::new(file.map()?)),
            Access::Pread => Source::File(file),
        };
        let piece = |extent: Extent, kind: FrameKind| -> Result<Pinned, TableError> {
            let damaged = |damage: Damage| damage.in_file(path, extent.offset);
            let payload = |stored: u32| FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + stored as usize;
            // The footer vouches that the extent lies in the file.
            match &source {
                Source::Map(map) => {
                    let start = extent.offset as usize;
                    map.will_need(start, extent.bytes as usize);
                    let frame = map.get(start..start + extent.bytes as usize).unwrap_or(&[]);
                    let header = check_frame(frame, kind, salt, extent.offset).map_err(damaged)?;
                    let range = payload(header.stored);
                    Pinned::map(map, start + range.start..start + range.end)
                        .ok_or_else(|| damaged(Damage::new(0, "frame length", Expectation::AtLeast(24), extent.bytes)))
                }
                Source::File(file) => {
                    let mut frame = vec![0; extent.bytes as usize];
                    file.read_exact_at(extent.offset, &mut frame)?;
                    let header = check_frame(&frame, kind, salt, extent.offset).map_err(damaged)?;
                    frame.truncate(payload(header.stored).end);
                    frame.drain(..FRAME_HEADER_BYTES);
                    Ok(Pinned::block(Arc::new(CachedBlock::new(frame))))
                }
            }
        };
        let properties = piece(footer.properties, FrameKind::Properties)?;
        let properties = Properties::decode(properties.bytes(), path, footer.properties.offset)?;
        let identity = &properties.identity;
        let stated = (identity.database_id, identity.keyspace, identity.table, identity.job);
        if stated != (header.database_id, header.keyspace, header.table, header.job) {
            return wrong("properties", format!("{header:?}"), format!("{identity:?}"));
        }
        let seqno_max = SeqNo::MAX.get() - properties.max_seqno.get();
        if expected.seqno_base > seqno_max {
            let base = Expectation::AtMost(seqno_max);
            return Err(Damage::new(0, "seqno base", base, expected.seqno_base).in_file(path, footer.properties.offset));
        }
        let root = piece(footer.index, FrameKind::Index)?;
        let root_at = footer.index.offset + FRAME_HEADER_BYTES as u64;
        let root_layout = Layout::parse(root.bytes()).map_err(|damage| damage.in_file(path, root_at))?;
        let (filter, filter_probes) = if footer.filter.is_none() {
            (Pinned::EMPTY, 0)
        } else {
            let filter = piece(footer.filter, FrameKind::Filter)?;
            let bytes = filter.bytes().len();
            let probes = footer.filter_probes;
            if bytes == 0 || !bytes.is_multiple_of(LINE_BYTES) || !(1..=PROBES_MAX).contains(&probes) {
                let most = Expectation::AtMost(PROBES_MAX.into());
                return Err(Damage::new(0, "filter probes", most, probes.into()).in_file(path, footer.filter.offset));
            }
            (filter, probes)
        };
        let map = match &source {
            Source::Map(map) => Pinned::map(map, 0..map.len()).unwrap_or(Pinned::EMPTY),
            Source::File(_) => Pinned::EMPTY,
        };
        Ok(Self {
            map,
            filter,
            filter_probes,
            index_levels: footer.index_levels,
            root,
            root_layout,
            seqno_base: expected.seqno_base,
            checked_blocks: CheckedBits::new(footer.data_blocks),
            checked_partitions: CheckedBits::new(footer.partitions),
            checked_large: CheckedBits::new(footer.large_values),
            block_cache: options.block_cache,
            number,
            source,
            disk_waits: DiskWaits::new(),
            path: path.to_owned(),
            footer,
            salt,
            properties,
            memory: None,
        })
    }

    /// Where the table is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the table says of itself.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The file's length.
    pub fn bytes(&self) -> u64 {
        self.footer.file_bytes
    }

    /// What is added to every stored sequence number.
    pub fn seqno_base(&self) -> u64 {
        self.seqno_base
    }

    /// How many data blocks there are.
    pub fn data_blocks(&self) -> u64 {
        self.footer.data_blocks
    }

    /// How many data blocks that are read in place were found right since the table was opened (T2).
    pub fn checked_blocks(&self) -> u64 {
        self.checked_blocks.count()
    }

    /// Bytes that the open table itself holds in memory, maps and the block cache left out.
    pub fn memory_bytes(&self) -> usize {
        let counts = [self.footer.data_blocks, self.footer.partitions, self.footer.large_values];
        let bits: usize = counts.iter().map(|count| count.div_ceil(64) as usize * 8).sum();
        let held = match self.source {
            Source::Map(_) => 0,
            Source::File(_) => self.filter.bytes().len() + self.root.bytes().len(),
        };
        let texts = self.properties.min_key.len() + self.properties.max_key.len() + self.path.as_os_str().len();
        size_of::<Self>() + bits + held + texts
    }

    /// Whether a key with this hash (xxh3, 64 bits, of the user key) may be in the table. "No" is certain.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        let lines = self.filter.bytes().as_chunks::<LINE_BYTES>().0;
        match lines.get(line_of(hash, lines.len())) {
            Some(line) => line_may_contain(line, hash, self.filter_probes),
            None => true,
        }
    }

    /// Asks the processor for the one line that [`may_contain`](Self::may_contain) will read.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        let bytes = self.filter.bytes();
        prefetch(bytes, line_of(hash, bytes.len() / LINE_BYTES) * LINE_BYTES);
    }

    /// The newest version of `user_key` at or below `seqno`. `hash` is the xxh3 (64 bits) of `user_key`.
    ///
    /// On a mapped table, where the block is not compressed: no lock, no shared write, no allocation.
    ///
    /// # Errors
    /// If a block cannot be read or is damaged.
    #[inline]
    pub fn get(&self, user_key: &[u8], hash: u64, seqno: SeqNo) -> Result<Option<Found<'_>>, TableError> {
        if !self.may_contain(hash) {
            return Ok(None);
        }
        self.get_unfiltered(user_key, seqno)
    }

    /// As [`get`](Self::get), for a caller that has already asked the filter.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_unfiltered(&self, user_key: &[u8], seqno: SeqNo) -> Result<Option<Found<'_>>, TableError> {
        let target = InternalKey::seek(user_key, seqno);
        let Some(place) = self.find_block(target)? else { return Ok(None) };
        let block = self.fetch(place)?;
        let found = self.find_in_block(place, &block, target).map_err(|damage| self.damaged(place, damage))?;
        let Some((trailer, range, out_of_line)) = found else { return Ok(None) };
        if out_of_line {
            return Ok(Some(Found { trailer, value: self.large_value(place, block.get(range).unwrap_or(&[]))? }));
        }
        let value = match block {
            Fetched::InPlace(bytes) => ValueRef::InPlace(bytes.get(range).unwrap_or(&[])),
            Fetched::Decoded(block) => ValueRef::Block { block, range },
        };
        Ok(Some(Found { trailer, value }))
    }

    #[inline(always)]
    fn find_in_block(
        &self,
        place: BlockPlace,
        block: &[u8],
        target: InternalKey<'_>,
    ) -> Result<Option<(Trailer, Range<usize>, bool)>, Damage> {
        debug_assert_eq!(place.kind, FrameKind::Data);
        let layout = Layout::parse(block)?;
        let Some(row) = layout.find(block, target.user_key, target.trailer.to_raw(), self.seqno_base)? else {
            return Ok(None);
        };
        let trailer = layout.trailer(block, row, self.seqno_base)?;
        let range = layout.value_range(block, row)?;
        Ok(Some((trailer, range, layout.has(flags::OUT_OF_LINE))))
    }

    /// The one block that can hold the first entry at or after `target`, except that the entry may be the first of the
    /// block behind it.
    #[inline(always)]
    fn find_block(&self, target: InternalKey<'_>) -> Result<Option<BlockPlace>, TableError> {
        let trailer = target.trailer.to_raw();
        let root = self.root.bytes();
        let layout = &self.root_layout;
        let stripped = layout.strip(root, target.user_key);
        let row = layout.seek(root, stripped, trailer, self.seqno_base).map_err(|damage| self.damaged_root(damage))?;
        if row >= layout.rows {
            return Ok(None);
        }
        if self.index_levels == 1 {
            let handle = layout.value(root, row).and_then(decode_partition_value);
            let handle = handle.map_err(|damage| self.damaged_root(damage))?;
            return Ok(Some(BlockPlace { kind: FrameKind::Data, handle, ordinal: row as u64 }));
        }
        let (place, first_ordinal) = self.partition_place(row)?;
        let partition = self.fetch(place)?;
        let find = || -> Result<Option<BlockPlace>, Damage> {
            let layout = Layout::parse(&partition)?;
            let stripped = layout.strip(&partition, target.user_key);
            let row = layout.seek(&partition, stripped, trailer, self.seqno_base)?;
            if row >= layout.rows {
                // The root says that the last separator is at or after the target.
                return Err(Damage::new(
                    0,
                    "separators of a partition",
                    Expectation::AtLeast(row as u64 + 1),
                    row as u64,
                ));
            }
            let handle = decode_partition_value(layout.value(&partition, row)?)?;
            Ok(Some(BlockPlace { kind: FrameKind::Data, handle, ordinal: first_ordinal.wrapping_add(row as u64) }))
        };
        find().map_err(|damage| self.damaged(place, damage))
    }

    /// Lets the system read a range of the file soon, if it is mapped.
    pub(crate) fn will_need(&self, range: Range<u64>) {
        if let Source::Map(map) = &self.source {
            map.will_need(range.start as usize, range.end.saturating_sub(range.start) as usize);
        }
    }

    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Map(_))
    }

    pub(crate) fn has_partitions(&self) -> bool {
        self.index_levels == 2
    }

    /// The partition in `row` of the root, and the ordinal of its first data block.
    #[inline(always)]
    pub(crate) fn partition_place(&self, row: usize) -> Result<(BlockPlace, u64), TableError> {
        let value = self.root_layout.value(self.root.bytes(), row).and_then(decode_root_value);
        let (handle, first_ordinal) = value.map_err(|damage| self.damaged_root(damage))?;
        Ok((BlockPlace { kind: FrameKind::Index, handle, ordinal: row as u64 }, first_ordinal))
    }

    /// The payload of a block that can be read in place; `None` if it cannot (compressed, or not mapped).
    #[inline(always)]
    pub(crate) fn in_place(&self, place: BlockPlace) -> Result<Option<&[u8]>, TableError> {
        let BlockPlace { kind, handle, ordinal } = place;
        let map = self.map.bytes();
        if handle.is_compressed() || map.is_empty() {
            return Ok(None);
        }
        let start = handle.offset() as usize;
        let Some(frame) = map.get(start..start + handle.frame_bytes()) else { return Err(self.out_of_file(place)) };
        if kind == FrameKind::Data {
            // What a search reads first: header, heads and ends, which lie together. A block that is shorter needs no
            // help, and lines that are known to be there need no check each.
            if let Some(front) = frame.first_chunk::<{ 8 * LINE_BYTES }>() {
                for line in 0..8 {
                    prefetch(front, line * LINE_BYTES);
                }
            }
        }
        let checked = if kind == FrameKind::Data { &self.checked_blocks } else { &self.checked_partitions };
        if !checked.is_set(ordinal) {
            self.check_in_place(place, frame)?;
            checked.set(ordinal);
        }
        let payload = frame.get(FRAME_HEADER_BYTES..frame.len().saturating_sub(CHECKSUM_BYTES));
        payload.map(Some).ok_or_else(|| self.out_of_file(place))
    }

    #[cold]
    fn check_in_place(&self, place: BlockPlace, frame: &[u8]) -> Result<(), TableError> {
        /// Of more pages than this all are asked for at once; fewer cost less than the call where they are in memory.
        const ASKED_FOR_FROM_BYTES: usize = 16 << 10;
        if frame.len() >= ASKED_FOR_FROM_BYTES {
            self.will_need(place.handle.offset()..place.handle.offset() + frame.len() as u64);
        }
        let damaged = |damage: Damage| damage.in_file(&self.path, place.handle.offset());
        let header = check_frame(frame, place.kind, self.salt, place.handle.offset()).map_err(damaged)?;
        if header.compression != 0 || header.raw != header.stored {
            return Err(damaged(Damage::new(9, "compression", Expectation::Exactly(0), header.compression.into())));
        }
        Ok(())
    }

    /// The payload of a block: in place, from the cache, or read and decoded.
    #[inline(always)]
    pub(crate) fn fetch(&self, place: BlockPlace) -> Result<Fetched<'_>, TableError> {
        match self.in_place(place)? {
            Some(bytes) => Ok(Fetched::InPlace(bytes)),
            None => self.fetch_decoded(place).map(Fetched::Decoded),
        }
    }

    #[inline(never)]
    fn fetch_decoded(&self, place: BlockPlace) -> Result<Arc<CachedBlock>, TableError> {
        let key = BlockKey { file: self.number.0, offset: place.handle.offset() };
        if let Some(block) = self.block_cache.as_ref().and_then(|cache| cache.get(key)) {
            return Ok(block);
        }
        self.decode_anew(place, key)
    }

    /// Reads and decodes a block and puts it into the cache. Never inlined: what a hit costs stands alone.
    #[inline(never)]
    fn decode_anew(&self, place: BlockPlace, key: BlockKey) -> Result<Arc<CachedBlock>, TableError> {
        let frame = self.frame(place.handle.offset(), place.handle.frame_bytes() as u64)?;
        if let Cow::Borrowed(bytes) = frame {
            let offset = place.handle.offset();
            let ask = || self.will_need(offset..offset + bytes.len() as u64);
            self.disk_waits.before_reading(place.ordinal, offset, bytes, ask);
        }
        let block = Arc::new(CachedBlock::new(self.decode(place, &frame)?));
        if let Some(cache) = &self.block_cache {
            cache.insert(key, Arc::clone(&block));
        }
        Ok(block)
    }

    /// The payload of a block whose whole frame was read.
    pub(crate) fn decode(&self, place: BlockPlace, frame: &[u8]) -> Result<Vec<u8>, TableError> {
        let offset = place.handle.offset();
        let damaged = |damage: Damage| damage.in_file(&self.path, offset);
        let header = check_frame(frame, place.kind, self.salt, offset).map_err(damaged)?;
        let mut payload = Vec::new();
        decompress(frame, header, &mut payload).map_err(damaged)?;
        Ok(payload)
    }

    /// A range of the file that a handle or a reference names.
    pub(crate) fn frame(&self, offset: u64, bytes: u64) -> Result<Cow<'_, [u8]>, TableError> {
        let end = offset.checked_add(bytes).filter(|&end| end <= self.footer.data_end.max(self.footer.index.offset));
        let fits = end.is_some() && bytes >= FRAME_OVERHEAD_BYTES as u64;
        let out_of_file = || {
            let most = Expectation::AtMost(self.footer.file_bytes);
            Damage::new(0, "end of a frame", most, offset.saturating_add(bytes)).in_file(&self.path, offset)
        };
        if !fits {
            return Err(out_of_file());
        }
        match &self.source {
            Source::Map(map) => {
                map.get(offset as usize..(offset + bytes) as usize).map(Cow::Borrowed).ok_or_else(out_of_file)
            }
            Source::File(file) => {
                let mut frame = vec![0; bytes as usize];
                file.read_exact_at(offset, &mut frame)?;
                Ok(Cow::Owned(frame))
            }
        }
    }

    /// The large value that a row refers to.
    pub(crate) fn large_value(&self, place: BlockPlace, reference: &[u8]) -> Result<ValueRef<'_>, TableError> {
        let reference = LargeReference::decode(reference).map_err(|damage| self.damaged(place, damage))?;
        let frame = self.frame(reference.offset, reference.frame_bytes())?;
        let ordinal = reference.ordinal.into();
        let check =
            || check_large(&frame, reference, self.salt).map_err(|damage| damage.in_file(&self.path, reference.offset));
        match frame {
            Cow::Borrowed(bytes) => {
                if !self.checked_large.is_set(ordinal) {
                    check()?;
                    self.checked_large.set(ordinal);
                }
                Ok(ValueRef::InPlace(value_of(bytes, reference)))
            }
            Cow::Owned(_) => {
                check()?;
                let mut bytes = frame.into_owned();
                bytes.truncate(FRAME_HEADER_BYTES + reference.bytes as usize);
                bytes.drain(..FRAME_HEADER_BYTES);
                Ok(ValueRef::Owned(bytes))
            }
        }
    }

    /// Checks the frame of a large value without remembering.
    pub(crate) fn check_large_value(&self, reference: LargeReference) -> Result<(), TableError> {
        let frame = self.frame(reference.offset, reference.frame_bytes())?;
        check_large(&frame, reference, self.salt).map_err(|damage| damage.in_file(&self.path, reference.offset))
    }

    /// Damage inside a block, with its place in the file.
    #[cold]
    pub(crate) fn damaged(&self, place: BlockPlace, damage: Damage) -> TableError {
        let frame = place.handle.offset();
        if place.handle.is_compressed() {
            return Damage { at: 0, ..damage }.in_file(&self.path, frame);
        }
        damage.in_file(&self.path, frame + FRAME_HEADER_BYTES as u64)
    }

    #[cold]
    pub(crate) fn damaged_root(&self, damage: Damage) -> TableError {
        damage.in_file(&self.path, self.footer.index.offset + FRAME_HEADER_BYTES as u64)
    }

    #[cold]
    fn out_of_file(&self, place: BlockPlace) -> TableError {
        let handle = place.handle;
        let end = handle.offset().saturating_add(handle.frame_bytes() as u64);
        let most = Expectation::AtMost(self.footer.file_bytes);
        Damage::new(0, "end of a block", most, end).in_file(&self.path, handle.offset())
    }
}

impl fmt::Debug for TableReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableReader({}, {} entries)", self.path.display(), self.properties.entries)
    }
}

/// Header and footer of a file, checked against each other.
struct Ends {
    header: TableHeader,
    salt: u64,
    footer: Footer,
}

impl Ends {
    fn read(file: &dyn ReadFile, path: &Path) -> Result<Self, TableError> {
        let length = file.len();
        if length < TABLE_BYTES_MIN {
            return Err(Damage::new(0, "file length", Expectation::AtLeast(TABLE_BYTES_MIN), length).in_file(path, 0));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(0, &mut header)?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(length - FOOTER_BYTES as u64, &mut footer)?;
        let (header, salt) = TableHeader::decode(&header, path)?;
        let footer = Footer::decode(&footer, length, path).or_else(|error| match &error {
            // What looks like a newer engine's footer may be a damaged one.
            TableError::Unsupported(_) => match is_whole_footer(file, &footer)? {
                true => Err(error),
                false => {
                    let version = u64::from(u32_at(&footer, 164).unwrap_or(0));
                    let exactly = Expectation::Exactly(FORMAT_VERSION.into());
                    let at = length - FOOTER_BYTES as u64;
                    Err(Damage::new(164, "format version, and the footer's checksum", exactly, version)
                        .in_file(path, at))
                }
            },
            _ => Err(error),
        })?;
        if footer.salt != salt {
            let at = length - FOOTER_BYTES as u64 + 144;
            return Err(Damage::new(0, "salt", Expectation::Checksum(salt), footer.salt).in_file(path, at));
        }
        Ok(Self { header, salt, footer })
    }
}

/// The longest footer that any version may write.
const ANY_FOOTER_BYTES_MAX: u32 = 64 << 10;

/// Whether a footer of any version checks. In all of them the last 24 bytes are its length, version, checksum and magic.
fn is_whole_footer(file: &dyn ReadFile, end: &[u8; FOOTER_BYTES]) -> Result<bool, TableError> {
    let (Some(bytes), Some(checksum)) = (u32_at(end, 160), u64_at(end, 168)) else { return Ok(false) };
    if !(24..=ANY_FOOTER_BYTES_MAX).contains(&bytes) || u64::from(bytes) > file.len() {
        return Ok(false);
    }
    let mut footer = vec![0; bytes as usize];
    file.read_exact_at(file.len() - u64::from(bytes), &mut footer)?;
    Ok(xxh3_64(&footer[..footer.len() - 16]) == checksum)
}

/// Whose table a file is, from its first bytes alone: works on an unfinished one too (M2).
///
/// # Errors
/// If the file cannot be read, is too short, or does not begin with a sound header.
pub fn read_header(files: &dyn FileSystem, path: &Path) -> Result<TableHeader, TableError> {
    let file = files.open(path)?;
    if file.len() < HEADER_BYTES as u64 {
        let least = Expectation::AtLeast(HEADER_BYTES as u64);
        return Err(Damage::new(0, "file length", least, file.len()).in_file(path, 0));
    }
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(0, &mut header)?;
    Ok(TableHeader::decode(&header, path)?.0)
}

/// What to expect of the file at `path`, read from the file itself: for tools that look at a table without a manifest.
///
/// # Errors
/// As [`TableReader::open`].
pub fn identify(files: &dyn FileSystem, path: &Path) -> Result<(Expected, TableIdentity), TableError> {
    let file = files.open(path)?;
    let TableHeader { database_id, keyspace, table, .. } = Ends::read(&*file, path)?.header;
    let expected = Expected { bytes: file.len(), database_id, keyspace, table, seqno_base: 0 };
    drop(file);
    let options = ReadOptions { access: Access::Pread, block_cache: None };
    let reader = TableReader::open(files, path, expected, options)?;
    Ok((expected, reader.properties.identity))
}
