//! Walks a table's entries in order, both ways.
//!
//! ```text
//!   root row ─▶ partition row ─▶ block row
//!   key buffer: │ prefix: written once a block │ head and tail: rewritten at each row │
//!   value:        in the map, or in the decoded block that the cursor holds
//! ```

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use internal_key::{Cursor, InternalKey, MAX_KEY_BYTES, SeqNo, Trailer};

use crate::block::{Layout, Trailers, flags};
use crate::error::{Damage, Expectation, TableError};
use crate::filter::LINE_BYTES;
use crate::frame::FrameKind;
use crate::index::decode_partition_value;
use crate::pinned::{Pinned, prefetch};
use crate::reader::{BlockPlace, Fetched, TableReader};
use crate::{CachedBlock, ValueRef};

/// How many bytes a sequential cursor reads at once where it cannot read in place.
const WINDOW_BYTES: u64 = 256 << 10;
/// After so many blocks one after the other a cursor lets the system read ahead of it, on a mapped table.
const AHEAD_AFTER_BLOCKS: u32 = 8;
/// How far. Another piece is asked for when less than half of it is left.
const AHEAD_BYTES: u64 = 1 << 20;
/// How many cache lines of values a seek asks for.
const VALUES_AHEAD_LINES: usize = 8;
/// Tails up to this long are copied as two words; the key buffer has room for it behind every key.
const SHORT_TAIL_BYTES: usize = 16;

/// A cursor over one table. Owns a share of the table; moving within a block touches nothing shared.
pub struct TableCursor {
    // What moving within a block reads and writes comes first.
    block: Pinned,
    layout: Layout,
    trailers: Trailers,
    row: usize,
    valid: bool,
    trailer: Trailer,
    seqno_base: u64,
    /// The present key, and behind it at least [`SHORT_TAIL_BYTES`] bytes of no meaning.
    key: Vec<u8>,
    key_bytes: usize,

    place: Option<BlockPlace>,
    partition: Pinned,
    partition_layout: Layout,
    partition_first_ordinal: u64,
    /// The root's row of the partition at hand; `None` before the first. Always `Some(0)` where there is no root.
    root_row: Option<usize>,
    partition_row: usize,
    sequential: bool,
    /// How many blocks it has moved on since the last seek.
    steps: u32,
    /// What of the map the system was asked to read.
    asked: Range<u64>,
    /// Where the window begins, and its bytes.
    window: (u64, Vec<u8>),
    /// A large value that could not be lent in place.
    large: Option<Vec<u8>>,
    table: Arc<TableReader>,
}

impl TableReader {
    /// A cursor over the whole table, standing on no entry.
    pub fn cursor(self: &Arc<Self>) -> TableCursor {
        TableCursor::new(Arc::clone(self), false)
    }

    /// A cursor for reading the whole table once, forward: what it decodes does not enter the block cache, and what it
    /// cannot read in place it reads in large pieces.
    pub fn cursor_for_compaction(self: &Arc<Self>) -> TableCursor {
        TableCursor::new(Arc::clone(self), true)
    }
}

impl TableCursor {
    fn new(table: Arc<TableReader>, sequential: bool) -> Self {
        Self {
            block: Pinned::EMPTY,
            layout: Layout::EMPTY,
            trailers: Trailers::EMPTY,
            row: 0,
            valid: false,
            trailer: Trailer::seek(SeqNo::ZERO),
            seqno_base: table.seqno_base,
            key: Vec::new(),
            key_bytes: 0,
            place: None,
            partition: Pinned::EMPTY,
            partition_layout: Layout::EMPTY,
            partition_first_ordinal: 0,
            root_row: None,
            partition_row: 0,
            sequential,
            steps: 0,
            asked: 0..0,
            window: (0, Vec::new()),
            large: None,
            table,
        }
    }

    /// The table.
    pub fn table(&self) -> &Arc<TableReader> {
        &self.table
    }

    /// Stands on no entry from now on; the block at hand is kept for the next seek.
    fn leave(&mut self) {
        self.valid = false;
        self.large = None;
    }

    /// Makes `key` and `trailer` those of `row`, a row of the block at hand.
    #[inline(always)]
    fn stand_on(&mut self, row: usize) -> Result<(), TableError> {
        match self.read_row(row) {
            Ok(()) => {
                self.row = row;
                self.valid = true;
                Ok(())
            }
            Err(damage) => Err(self.lost(damage)),
        }
    }

    #[cold]
    fn lost(&mut self, damage: Damage) -> TableError {
        self.leave();
        match self.place {
            Some(place) => self.table.damaged(place, damage),
            None => self.table.damaged_root(damage),
        }
    }

    #[inline(always)]
    fn read_row(&mut self, row: usize) -> Result<(), Damage> {
        let block = self.block.bytes();
        let layout = &self.layout;
        self.trailer = self.trailers.trailer(block, row)?;
        let prefix_bytes = layout.prefix_bytes();
        let head = layout.head(block, row).to_be_bytes();
        let head_bytes = layout.head_bytes(block, row)?;
        let tail = layout.tail_range(block, row)?;
        let tail_bytes = tail.len();
        let Some(suffix) = self.key.get_mut(prefix_bytes..) else { return Err(Self::key_too_long(tail_bytes)) };
        let Some((head_room, tail_room)) = suffix.split_first_chunk_mut::<8>() else {
            return Err(Self::key_too_long(tail_bytes));
        };
        *head_room = head;
        let short = block.get(tail.start..).and_then(|rest| rest.first_chunk::<SHORT_TAIL_BYTES>());
        match (short, tail_room.first_chunk_mut::<SHORT_TAIL_BYTES>()) {
            (Some(from), Some(to)) if tail_bytes <= SHORT_TAIL_BYTES => *to = *from,
            _ => match (block.get(tail), tail_room.get_mut(..tail_bytes)) {
                (Some(from), Some(to)) => to.copy_from_slice(from),
                _ => return Err(Self::key_too_long(tail_bytes)),
            },
        }
        self.key_bytes = prefix_bytes + head_bytes + tail_bytes;
        Ok(())
    }

    #[cold]
    fn key_too_long(tail_bytes: usize) -> Damage {
        Damage::new(0, "bytes of a key tail", Expectation::AtMost(MAX_KEY_BYTES as u64 - 8), tail_bytes as u64)
    }

    /// Loads the partition in `row` of the root, unless it is at hand. Without a root the root is the partition.
    fn load_partition(&mut self, row: usize) -> Result<(), TableError> {
        if self.root_row == Some(row) {
            return Ok(());
        }
        self.root_row = None;
        self.place = None;
        if !self.table.has_partitions() {
            // SAFETY: the root is held by the table, of which this cursor owns a share for as long as it lives; the
            // table neither moves nor changes those bytes.
            self.partition = unsafe { Pinned::lent(self.table.root.bytes()) };
            self.partition_layout = self.table.root_layout;
            self.partition_first_ordinal = 0;
        } else {
            let (place, first_ordinal) = self.table.partition_place(row)?;
            self.partition = match self.table.fetch(place)? {
                // SAFETY: the bytes lie in the table's map, which the table keeps and this cursor keeps the table.
                Fetched::InPlace(bytes) => unsafe { Pinned::lent(bytes) },
                Fetched::Decoded(block) => Pinned::block(block),
            };
            let layout = Layout::parse(self.partition.bytes());
            self.partition_layout = layout.map_err(|damage| self.table.damaged(place, damage))?;
            self.partition_first_ordinal = first_ordinal;
        }
        self.root_row = Some(row);
        Ok(())
    }

    fn partition_rows(&self) -> usize {
        self.partition_layout.rows
    }

    fn root_rows(&self) -> usize {
        if self.table.has_partitions() { self.table.root_layout.rows } else { 1 }
    }

    /// Loads the data block in `row` of the partition at hand, unless it is at hand.
    fn load_block(&mut self, row: usize) -> Result<(), TableError> {
        let value = self.partition_layout.value(self.partition.bytes(), row);
        let handle = value.and_then(decode_partition_value).map_err(|damage| self.damaged_partition(damage))?;
        let ordinal = self.partition_first_ordinal.wrapping_add(row as u64);
        let place = BlockPlace { kind: FrameKind::Data, handle, ordinal };
        self.partition_row = row;
        if self.place == Some(place) {
            return Ok(());
        }
        self.place = None;
        let table = Arc::as_ptr(&self.table);
        // SAFETY: the cursor owns a share of the table, so the pointer is good for this whole call; going through it
        // lets the window of `self` change while bytes of the table are borrowed.
        let table = unsafe { &*table };
        self.block = match table.in_place(place)? {
            // SAFETY: the bytes lie in the table's map, which the table keeps and this cursor keeps the table.
            Some(bytes) => unsafe { Pinned::lent(bytes) },
            None if self.sequential => Pinned::block(Arc::new(CachedBlock::new(self.decode_sequentially(place)?))),
            None => match table.fetch(place)? {
                // SAFETY: as above.
                Fetched::InPlace(bytes) => unsafe { Pinned::lent(bytes) },
                Fetched::Decoded(block) => Pinned::block(block),
            },
        };
        let layout = Layout::parse(self.block.bytes()).map_err(|damage| table.damaged(place, damage))?;
        self.layout = layout;
        self.trailers = layout.trailers(self.seqno_base);
        let prefix = layout.prefix(self.block.bytes());
        let room = prefix.len() + 8 + layout.tails_bytes().min(MAX_KEY_BYTES) + SHORT_TAIL_BYTES;
        if self.key.len() < room {
            self.key.resize(room, 0);
        }
        self.key[..prefix.len()].copy_from_slice(prefix);
        self.place = Some(place);
        Ok(())
    }

    /// Decodes a block from the window, which is moved forward if the block does not lie in it.
    fn decode_sequentially(&mut self, place: BlockPlace) -> Result<Vec<u8>, TableError> {
        let (offset, bytes) = (place.handle.offset(), place.handle.frame_bytes() as u64);
        if self.table.is_mapped() {
            let frame = self.table.frame(offset, bytes)?;
            return self.table.decode(place, &frame);
        }
        let (start, window) = &self.window;
        let in_window = offset >= *start && offset + bytes <= start + window.len() as u64;
        if !in_window {
            let until = (offset + WINDOW_BYTES).min(self.table.footer.data_end).max(offset + bytes);
            let window = self.table.frame(offset, until - offset)?.into_owned();
            self.window = (offset, window);
        }
        let (start, window) = &self.window;
        let at = (offset - start) as usize;
        self.table.decode(place, &window[at..at + bytes as usize])
    }

    #[cold]
    fn damaged_partition(&self, damage: Damage) -> TableError {
        match self.root_row {
            Some(row) if self.table.has_partitions() => match self.table.partition_place(row) {
                Ok((place, _)) => self.table.damaged(place, damage),
                Err(error) => error,
            },
            _ => self.table.damaged_root(damage),
        }
    }

    /// Loads the block that holds the first entry at or after `target`, or the one before it, and returns that entry's
    /// row, which may be one past the last; `None` if every entry of the table is before `target`.
    fn locate(&mut self, target: InternalKey<'_>) -> Result<Option<usize>, TableError> {
        let trailer = target.trailer.to_raw();
        let base = self.seqno_base;
        let seek =
            |layout: &Layout, block: &[u8]| layout.seek(block, layout.strip(block, target.user_key), trailer, base);
        if self.table.has_partitions() {
            let row = seek(&self.table.root_layout, self.table.root.bytes());
            let row = row.map_err(|damage| self.table.damaged_root(damage))?;
            if row >= self.table.root_layout.rows {
                return Ok(None);
            }
            self.load_partition(row)?;
        } else {
            self.load_partition(0)?;
        }
        let row = seek(&self.partition_layout, self.partition.bytes());
        let row = row.map_err(|damage| self.damaged_partition(damage))?;
        if row >= self.partition_rows() {
            return Ok(None);
        }
        self.load_block(row)?;
        let row = seek(&self.layout, self.block.bytes());
        row.map(Some).map_err(|damage| self.lost(damage))
    }

    /// Asks the processor for what the rows from `row` on hold: who seeks reads some of them, and by itself it notices only after
    /// two or three lines that they are read one after the other.
    #[inline(always)]
    fn prefetch_values(&self, row: usize) {
        let block = self.block.bytes();
        if let Ok(values) = self.layout.value_range(block, row) {
            for line in 0..VALUES_AHEAD_LINES {
                prefetch(block, values.start + line * LINE_BYTES);
            }
        }
    }

    /// Moves to the first row of the next block.
    #[cold]
    #[inline(never)]
    fn next_block(&mut self) -> Result<(), TableError> {
        self.leave();
        let Some(root_row) = self.root_row else { return Ok(()) };
        if self.partition_row + 1 < self.partition_rows() {
            self.load_block(self.partition_row + 1)?;
        } else if root_row + 1 < self.root_rows() {
            self.load_partition(root_row + 1)?;
            self.load_block(0)?;
        } else {
            return Ok(());
        }
        self.read_ahead(true);
        self.stand_on(0)
    }

    /// Moves to the last row of the previous block.
    #[cold]
    #[inline(never)]
    fn previous_block(&mut self) -> Result<(), TableError> {
        self.leave();
        let Some(root_row) = self.root_row else { return Ok(()) };
        if self.partition_row > 0 {
            self.load_block(self.partition_row - 1)?;
        } else if root_row > 0 {
            self.load_partition(root_row - 1)?;
            self.load_block(self.partition_rows() - 1)?;
        } else {
            return Ok(());
        }
        self.read_ahead(false);
        self.stand_on(self.layout.rows - 1)
    }

    /// The cursor has moved on by a block, and may be about to move through many: a map reads nothing ahead by itself.
    fn read_ahead(&mut self, forward: bool) {
        self.steps = self.steps.saturating_add(1);
        if self.steps < AHEAD_AFTER_BLOCKS && !self.sequential {
            return;
        }
        let Some(place) = self.place else { return };
        let at = place.handle.offset();
        let known = self.asked.contains(&at);
        if forward {
            if known && self.asked.end - at >= AHEAD_BYTES / 2 {
                return;
            }
            let from = if known { self.asked.end } else { at };
            self.table.will_need(from..at + AHEAD_BYTES);
            self.asked = at..at + AHEAD_BYTES;
        } else {
            if known && at - self.asked.start >= (AHEAD_BYTES / 2).min(at) {
                return;
            }
            let to = if known { self.asked.start } else { at };
            self.asked = at.saturating_sub(AHEAD_BYTES)..at + 1;
            self.table.will_need(self.asked.start..to);
        }
    }
}

impl Cursor for TableCursor {
    type Error = TableError;

    #[inline(always)]
    fn valid(&self) -> bool {
        self.valid
    }

    #[inline(always)]
    fn user_key(&self) -> &[u8] {
        &self.key[..self.key_bytes]
    }

    #[inline(always)]
    fn trailer(&self) -> Trailer {
        self.trailer
    }

    #[inline(always)]
    fn is_last_version(&self) -> bool {
        self.layout.has(flags::UNIQUE)
    }

    #[inline(always)]
    fn value(&mut self) -> Result<&[u8], TableError> {
        let place = self.place;
        let range = match self.layout.value_range(self.block.bytes(), self.row) {
            Ok(range) => range,
            Err(damage) => return Err(damaged_value(&self.table, place, damage)),
        };
        if self.layout.has(flags::OUT_OF_LINE) {
            return self.out_of_line_value(range);
        }
        Ok(self.block.bytes().get(range).unwrap_or(&[]))
    }

    fn seek_to_first(&mut self) -> Result<(), TableError> {
        self.leave();
        self.steps = 0;
        self.load_partition(0)?;
        self.load_block(0)?;
        self.stand_on(0)
    }

    fn seek_to_last(&mut self) -> Result<(), TableError> {
        self.leave();
        self.steps = 0;
        self.load_partition(self.root_rows() - 1)?;
        self.load_block(self.partition_rows() - 1)?;
        self.stand_on(self.layout.rows - 1)
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), TableError> {
        self.leave();
        self.steps = 0;
        match self.locate(target)? {
            None => Ok(()),
            Some(row) if row < self.layout.rows => {
                self.prefetch_values(row);
                self.stand_on(row)
            }
            Some(_) => self.next_block(),
        }
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), TableError> {
        self.leave();
        self.steps = 0;
        match self.locate(target)? {
            None => self.seek_to_last(),
            Some(0) => self.previous_block(),
            Some(row) => self.stand_on(row - 1),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<(), TableError> {
        if !self.valid {
            return Ok(());
        }
        if self.row + 1 < self.layout.rows {
            self.large = None;
            self.stand_on(self.row + 1)
        } else {
            self.next_block()
        }
    }

    #[inline]
    fn prev(&mut self) -> Result<(), TableError> {
        if !self.valid {
            return Ok(());
        }
        if self.row > 0 {
            self.large = None;
            self.stand_on(self.row - 1)
        } else {
            self.previous_block()
        }
    }
}

impl TableCursor {
    #[cold]
    fn out_of_line_value(&mut self, range: std::ops::Range<usize>) -> Result<&[u8], TableError> {
        let place = self.place.expect("T1: a cursor on an entry has its block at hand");
        if self.large.is_none() {
            let reference = self.block.bytes().get(range).unwrap_or(&[]);
            match self.table.large_value(place, reference)? {
                ValueRef::Owned(bytes) => self.large = Some(bytes),
                // Lent in place: nothing to keep.
                ValueRef::InPlace(bytes) => return Ok(bytes),
                ValueRef::Block { .. } => unreachable!("T1: large values lie outside of blocks"),
            }
        }
        Ok(self.large.as_deref().unwrap_or(&[]))
    }
}

#[cold]
fn damaged_value(table: &TableReader, place: Option<BlockPlace>, damage: Damage) -> TableError {
    match place {
        Some(place) => table.damaged(place, damage),
        None => table.damaged_root(damage),
    }
}

impl fmt::Debug for TableCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.valid {
            write!(f, "TableCursor({:?} in {:?})", self.key(), self.table)
        } else {
            write!(f, "TableCursor(on no entry of {:?})", self.table)
        }
    }
}

const _: () = {
    const fn send<T: Send + 'static>() {}
    send::<TableCursor>();
};
