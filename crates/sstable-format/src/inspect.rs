//! Draws a table as text: properties, index, blocks, entries. What `lsm inspect` prints and golden scripts compare.

use std::fmt;
use std::ops::ControlFlow;

use internal_key::{InternalKey, Trailer};

use crate::block::{Layout, flags};
use crate::error::{Damage, TableError};
use crate::frame::{BlockHandle, FrameKind};
use crate::index::decode_partition_value;
use crate::large::LargeReference;
use crate::reader::{BlockPlace, Fetched, TableReader};

/// How much of a table is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Properties and totals.
    Summary,
    /// And a line for each data block, with its separator.
    Blocks,
    /// And a line for each entry.
    Entries,
}

/// What a table is in a few lines: its properties and totals.
impl fmt::Display for TableReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let properties = self.properties();
        let identity = &properties.identity;
        write!(f, "table {} of {}, database {:032x}", identity.table, identity.keyspace, identity.database_id)?;
        write!(f, "\n  written for {} {} by {}", identity.level, identity.epoch, identity.job)?;
        write!(f, ", output {} of ", identity.output_index)?;
        match identity.output_count {
            0 => f.write_str("?")?,
            count => write!(f, "{count}")?,
        }
        if !identity.inputs.is_empty() {
            f.write_str(", from")?;
            for input in &identity.inputs {
                write!(f, " {input}")?;
            }
        }
        let (min_key, max_key) = (properties.min_key.escape_ascii(), properties.max_key.escape_ascii());
        write!(f, "\n  keys \"{min_key}\"..\"{max_key}\", seqnos {}..{}", properties.min_seqno, properties.max_seqno)?;
        if self.seqno_base() > 0 {
            write!(f, " + {}", self.seqno_base())?;
        }
        write!(f, "\n  {} entries, {} tombstones", properties.entries, properties.tombstones)?;
        if properties.superseded.versions > 0 {
            let crate::Superseded { versions, through } = properties.superseded;
            write!(f, ", {versions} versions superseded through {through}")?;
        }
        write!(f, ", {} bytes of keys and values", properties.logical_bytes)?;
        let footer = &self.footer;
        write!(f, "\n  {} bytes: {} data blocks", footer.file_bytes, footer.data_blocks)?;
        write!(f, " ({} uncompressed bytes)", properties.raw_bytes)?;
        write!(f, ", {} large values, {} index partitions", footer.large_values, footer.partitions)?;
        if footer.filter.is_none() {
            f.write_str(", no filter")?;
        } else {
            write!(f, ", filter of {} bytes, {} probes", footer.filter.bytes, footer.filter_probes)?;
        }
        for (what, name) in
            [("merge operator", &properties.merge_operator), ("prefix extractor", &properties.prefix_extractor)]
        {
            if let Some(name) = name {
                write!(f, "\n  {what} {name:?}")?;
            }
        }
        Ok(())
    }
}

/// One data block, as the index and its own header describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its number in the table.
    pub ordinal: u64,
    /// Where its frame begins.
    pub offset: u64,
    /// How long its frame is.
    pub frame_bytes: u64,
    /// Whether it is compressed.
    pub compressed: bool,
    /// How many rows it has.
    pub rows: usize,
    /// The largest sequence number in it, as stored.
    pub largest_seqno: u64,
    /// What holds for all of its rows: `all-puts`, `unique`, `one-kind`, `short-keys`, `wide`, `out-of-line`.
    pub flags: Vec<&'static str>,
    /// The bytes that each row's trailer takes: 0 where one stands for all.
    pub trailer_bytes: usize,
    /// What all of its keys begin with.
    pub prefix: Vec<u8>,
    /// The user key of its separator in the index.
    pub separator: Vec<u8>,
    /// The trailer of its separator, as stored: 0 except where a key goes on in the next block.
    pub separator_trailer: u64,
}

/// Draws the block as golden scripts write it.
impl fmt::Display for BlockInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ordinal, offset, frame_bytes, rows, largest_seqno, .. } = self;
        write!(f, "block {ordinal} at {offset}, {frame_bytes} bytes")?;
        if self.compressed {
            f.write_str(" (lz4)")?;
        }
        write!(f, ", {rows} rows up to #{largest_seqno}, prefix \"{}\"", self.prefix.escape_ascii())?;
        for flag in &self.flags {
            write!(f, ", {flag}")?;
        }
        write!(f, ", trailers of {} bytes", self.trailer_bytes)?;
        write!(f, ", separator \"{}\"", self.separator.escape_ascii())?;
        match Trailer::from_raw(self.separator_trailer) {
            Ok(trailer) if self.separator_trailer > 0 => write!(f, "{trailer}"),
            _ => Ok(()),
        }
    }
}

/// Hands every data block's description to `each` until it breaks.
///
/// # Errors
/// If an index partition or a block cannot be read or is damaged.
pub fn for_each_block(
    table: &TableReader,
    each: &mut dyn FnMut(BlockInfo) -> ControlFlow<()>,
) -> Result<(), TableError> {
    if !table.has_partitions() {
        let damaged = |damage| table.damaged_root(damage);
        let _: ControlFlow<()> = blocks_of(table, table.root.bytes(), 0, &damaged, each)?;
        return Ok(());
    }
    for row in 0..table.root_layout.rows {
        let (place, first_ordinal) = table.partition_place(row)?;
        let partition = table.fetch(place)?;
        let damaged = |damage| table.damaged(place, damage);
        if blocks_of(table, &partition, first_ordinal, &damaged, each)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn blocks_of(
    table: &TableReader,
    partition: &[u8],
    first_ordinal: u64,
    damaged: &dyn Fn(Damage) -> TableError,
    each: &mut dyn FnMut(BlockInfo) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, TableError> {
    let layout = Layout::parse(partition).map_err(damaged)?;
    for row in 0..layout.rows {
        let handle = layout.value(partition, row).and_then(decode_partition_value).map_err(damaged)?;
        let mut separator = Vec::new();
        layout.append_key(partition, row, &mut separator).map_err(damaged)?;
        let separator_trailer = layout.raw_trailer(partition, row);
        let ordinal = first_ordinal.wrapping_add(row as u64);
        if each(describe(table, handle, ordinal, separator, separator_trailer)?).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn describe(
    table: &TableReader,
    handle: BlockHandle,
    ordinal: u64,
    separator: Vec<u8>,
    separator_trailer: u64,
) -> Result<BlockInfo, TableError> {
    let place = BlockPlace { kind: FrameKind::Data, handle, ordinal };
    let block: Fetched<'_> = table.fetch(place)?;
    let layout = Layout::parse(&block).map_err(|damage| table.damaged(place, damage))?;
    let names = [
        (flags::ALL_PUTS, "all-puts"),
        (flags::UNIQUE, "unique"),
        (flags::ONE_KIND, "one-kind"),
        (flags::SHORT_KEYS, "short-keys"),
        (flags::WIDE, "wide"),
        (flags::OUT_OF_LINE, "out-of-line"),
    ];
    Ok(BlockInfo {
        ordinal,
        offset: handle.offset(),
        frame_bytes: handle.frame_bytes() as u64,
        compressed: handle.is_compressed(),
        rows: layout.rows,
        largest_seqno: layout.newest >> 8,
        flags: names.into_iter().filter(|&(flag, _)| layout.has(flag)).map(|(_, name)| name).collect(),
        trailer_bytes: layout.trailer_width.into(),
        prefix: layout.prefix(&block).to_vec(),
        separator,
        separator_trailer,
    })
}

/// How many bytes of a value are drawn.
const VALUE_BYTES_DRAWN: usize = 32;

/// Hands the lines that draw `table` to `line` until it breaks.
///
/// # Errors
/// If a part of the table that is to be drawn cannot be read or is damaged; the lines before it were handed over.
pub fn inspect(
    table: &TableReader,
    detail: Detail,
    line: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<(), TableError> {
    for text in table.to_string().lines() {
        if line(text).is_break() {
            return Ok(());
        }
    }
    if detail == Detail::Summary {
        return Ok(());
    }
    let mut failed = None;
    for_each_block(table, &mut |block| {
        if line(&format!("  {block}")).is_break() {
            return ControlFlow::Break(());
        }
        if detail < Detail::Entries {
            return ControlFlow::Continue(());
        }
        match draw_entries(table, &block, line) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failed.map_or(Ok(()), Err)
}

fn draw_entries(
    table: &TableReader,
    block: &BlockInfo,
    line: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, TableError> {
    let handle = BlockHandle::new(block.offset, block.frame_bytes as usize, block.compressed);
    let place = BlockPlace { kind: FrameKind::Data, handle, ordinal: block.ordinal };
    let bytes = table.fetch(place)?;
    let damaged = |damage| table.damaged(place, damage);
    let layout = Layout::parse(&bytes).map_err(damaged)?;
    let mut user_key = Vec::new();
    for row in 0..layout.rows {
        user_key.clear();
        layout.append_key(&bytes, row, &mut user_key).map_err(damaged)?;
        let trailer = layout.trailer(&bytes, row, table.seqno_base()).map_err(damaged)?;
        let key = InternalKey::new(&user_key, trailer);
        let value = layout.value(&bytes, row).map_err(damaged)?;
        let text = if layout.has(flags::OUT_OF_LINE) {
            let LargeReference { offset, bytes, .. } = LargeReference::decode(value).map_err(damaged)?;
            format!("    {key} = {bytes} bytes at {offset}")
        } else if value.is_empty() {
            format!("    {key}")
        } else if value.len() > VALUE_BYTES_DRAWN {
            format!("    {key} = \"{}\"… {} bytes", value[..VALUE_BYTES_DRAWN].escape_ascii(), value.len())
        } else {
            format!("    {key} = \"{}\"", value.escape_ascii())
        };
        if line(&text).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
