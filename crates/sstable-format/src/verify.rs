//! Checks a whole table against itself: every checksum, and everything that a reader takes for granted.
//!
//! - **T1** Rows ascend within and across blocks; each block's header tells the truth about its rows.
//! - **T2** Every frame's checksum is computed anew, whatever the open table remembers.
//! - **T3** Separators lie between their blocks; the filter says yes to every key.
//! - **T5** Counts and ranges are those of the properties.

use std::fmt;

use internal_key::{InternalKey, Kind, MAX_KEY_BYTES, OwnedInternalKey, SeqNo, key_head};
use xxhash_rust::xxh3::xxh3_64;

use crate::block::{Layout, flags};
use crate::error::{Damage, Expectation, TableError};
use crate::frame::{BlockHandle, FrameKind};
use crate::index::{decode_partition_value, decode_root_value};
use crate::large::LargeReference;
use crate::reader::{BlockPlace, TableReader};

/// What [`verify`] looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Entries read.
    pub entries: u64,
    /// Distinct user keys among them.
    pub keys: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Data blocks checked.
    pub data_blocks: u64,
    /// Index partitions checked; 0 where the root is the only one.
    pub partitions: u64,
    /// Large values checked.
    pub large_values: u64,
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entries, keys, tombstones, data_blocks, partitions, large_values } = self;
        write!(
            f,
            "{entries} entries of {keys} keys, {tombstones} tombstones, in {data_blocks} blocks, {partitions} index \
             partitions, {large_values} large values"
        )
    }
}

/// Reads the whole table and checks it. Costs about a scan and a hash of every byte; opening has already checked header,
/// footer, properties, root index and filter.
///
/// # Errors
/// The first damage met, with its place; or an I/O error.
pub fn verify(table: &TableReader) -> Result<VerifyReport, TableError> {
    let mut walk = Walk {
        table,
        report: VerifyReport::default(),
        last: None,
        separator: None,
        logical_bytes: 0,
        min_seqno: SeqNo::MAX,
        max_seqno: SeqNo::ZERO,
    };
    let root = table.root.bytes();
    let layout = table.root_layout;
    if table.has_partitions() {
        for row in 0..layout.rows {
            let value = layout.value(root, row).and_then(decode_root_value);
            let (handle, first_ordinal) = value.map_err(|damage| table.damaged_root(damage))?;
            let place = BlockPlace { kind: FrameKind::Index, handle, ordinal: row as u64 };
            if first_ordinal != walk.report.data_blocks {
                let exactly = Expectation::Exactly(walk.report.data_blocks);
                return Err(table.damaged_root(Damage::new(0, "first ordinal of a partition", exactly, first_ordinal)));
            }
            let partition = walk.read_block(place)?;
            let in_partition = |damage| table.damaged(place, damage);
            let partition_layout = Layout::parse(&partition).map_err(in_partition)?;
            walk.partition(&partition, &partition_layout, &in_partition)?;
            let mut key = Vec::new();
            layout.append_key(root, row, &mut key).map_err(|damage| table.damaged_root(damage))?;
            let trailer = layout.raw_trailer(root, row);
            if walk.separator.as_ref().is_none_or(|last| *last.0 != *key || last.1 != trailer) {
                let damage = Damage::new(0, "separator of a partition", Expectation::Exactly(row as u64), row as u64);
                return Err(table.damaged_root(damage));
            }
            walk.report.partitions += 1;
        }
    } else {
        walk.partition(root, &layout, &|damage| table.damaged_root(damage))?;
    }
    walk.finish()
}

struct Walk<'t> {
    table: &'t TableReader,
    report: VerifyReport,
    last: Option<OwnedInternalKey>,
    /// The last block's separator: key and raw trailer.
    separator: Option<(Vec<u8>, u64)>,
    logical_bytes: u64,
    min_seqno: SeqNo,
    max_seqno: SeqNo,
}

impl Walk<'_> {
    fn read_block(&self, place: BlockPlace) -> Result<Vec<u8>, TableError> {
        let frame = self.table.frame(place.handle.offset(), place.handle.frame_bytes() as u64)?;
        let payload = self.table.decode(place, &frame)?;
        let exact = Layout::parse(&payload).map_err(|damage| self.table.damaged(place, damage))?.end();
        if exact != payload.len() {
            let damage = Damage::new(0, "block length", Expectation::Exactly(exact as u64), payload.len() as u64);
            return Err(self.table.damaged(place, damage));
        }
        Ok(payload)
    }

    fn partition(
        &mut self,
        partition: &[u8],
        layout: &Layout,
        damaged: &dyn Fn(Damage) -> TableError,
    ) -> Result<(), TableError> {
        for row in 0..layout.rows {
            let handle = layout.value(partition, row).and_then(decode_partition_value).map_err(damaged)?;
            let mut key = Vec::new();
            layout.append_key(partition, row, &mut key).map_err(damaged)?;
            let separator = (key, layout.raw_trailer(partition, row));
            self.block(handle, &separator)?;
            self.separator = Some(separator);
        }
        Ok(())
    }

    fn block(&mut self, handle: BlockHandle, separator: &(Vec<u8>, u64)) -> Result<(), TableError> {
        let place = BlockPlace { kind: FrameKind::Data, handle, ordinal: self.report.data_blocks };
        let block = self.read_block(place)?;
        let damaged = |damage| self.table.damaged(place, damage);
        let layout = Layout::parse(&block).map_err(damaged)?;
        let mut truth = flags::ALL_PUTS | flags::UNIQUE;
        let mut newest = 0;
        for row in 0..layout.rows {
            let mut user_key = Vec::new();
            layout.append_key(&block, row, &mut user_key).map_err(damaged)?;
            let trailer = layout.trailer(&block, row, 0).map_err(damaged)?;
            let key = InternalKey::new(&user_key, trailer);
            let value = layout.value(&block, row).map_err(damaged)?;
            let wrong = |what, expected, found| Err(self.table.damaged(place, Damage::new(0, what, expected, found)));
            // What a scan does not read of a short key's head, a search compares.
            let head = key_head(user_key.get(layout.prefix_bytes()..).unwrap_or_default());
            if layout.head(&block, row) != head {
                return wrong("head of a key", Expectation::Exactly(head), layout.head(&block, row));
            }
            if user_key.len() > MAX_KEY_BYTES {
                return wrong("key length", Expectation::AtMost(MAX_KEY_BYTES as u64), user_key.len() as u64);
            }
            if self.last.as_ref().is_some_and(|last| last.borrow() >= key) {
                return wrong("order of entries, at row", Expectation::AtLeast(row as u64), row as u64);
            }
            if row == 0 && self.separator.as_ref().is_some_and(|before| is_at_or_after(before, key)) {
                return wrong("separator before the first entry", Expectation::Exactly(1), 0);
            }
            let same_key = self.last.as_ref().is_some_and(|last| *last.user_key == *user_key);
            if same_key {
                truth &= !flags::UNIQUE;
            } else {
                self.report.keys += 1;
                if !self.table.may_contain(xxh3_64(&user_key)) {
                    return wrong(
                        "filter's answer for a key that is there, at row",
                        Expectation::Exactly(1),
                        row as u64,
                    );
                }
            }
            if trailer.kind() != Kind::Put {
                truth &= !flags::ALL_PUTS;
            }
            newest = newest.max(trailer.to_raw());
            let mut value_bytes = value.len() as u64;
            if layout.has(flags::OUT_OF_LINE) {
                let reference = LargeReference::decode(value).map_err(damaged)?;
                if u64::from(reference.ordinal) != self.report.large_values {
                    let exactly = Expectation::Exactly(self.report.large_values);
                    return wrong("ordinal of a large value", exactly, reference.ordinal.into());
                }
                self.table.check_large_value(reference)?;
                self.report.large_values += 1;
                value_bytes = reference.bytes.into();
            }
            self.report.entries += 1;
            self.report.tombstones += u64::from(trailer.kind().is_tombstone());
            self.logical_bytes += user_key.len() as u64 + value_bytes;
            self.min_seqno = self.min_seqno.min(trailer.seqno());
            self.max_seqno = self.max_seqno.max(trailer.seqno());
            self.last = Some(key.to_owned());
        }
        let wrong = |what, expected, found| Err(damaged(Damage::new(0, what, expected, found)));
        if layout.newest != newest {
            return wrong("newest trailer of a block", Expectation::Exactly(newest), layout.newest);
        }
        // The flag may say less than the truth (a key that goes on in the next block is not seen here), never more.
        let claimed = layout.flags & (flags::ALL_PUTS | flags::UNIQUE);
        if claimed & !truth != 0 {
            return wrong("flags of a block", Expectation::Exactly(truth.into()), layout.flags.into());
        }
        if self.last.as_ref().is_some_and(|last| !is_at_or_after(separator, last.borrow())) {
            return wrong("separator at or after the last entry", Expectation::Exactly(1), 0);
        }
        self.report.data_blocks += 1;
        Ok(())
    }

    fn finish(self) -> Result<VerifyReport, TableError> {
        let (properties, footer, report) = (self.table.properties(), self.table.footer, self.report);
        let at = footer.properties.offset;
        // A table that says nothing of them may hold some.
        let superseded = match properties.superseded.versions {
            0 => 0,
            _ => report.entries - report.keys,
        };
        for (what, stated, counted) in [
            ("entries", properties.entries, report.entries),
            ("tombstones", properties.tombstones, report.tombstones),
            ("logical bytes", properties.logical_bytes, self.logical_bytes),
            ("smallest seqno", properties.min_seqno.get(), self.min_seqno.get()),
            ("largest seqno", properties.max_seqno.get(), self.max_seqno.get()),
            ("data blocks", footer.data_blocks, report.data_blocks),
            ("large values", footer.large_values, report.large_values),
            ("superseded versions", properties.superseded.versions, superseded),
            ("index partitions", footer.partitions, report.partitions.max(1)),
        ] {
            if stated != counted {
                return Err(Damage::new(0, what, Expectation::Exactly(counted), stated).in_file(&self.table.path, at));
            }
        }
        let is_max = self.last.as_ref().is_some_and(|last| last.user_key == properties.max_key);
        if !is_max {
            return Err(Damage::new(0, "largest key", Expectation::Exactly(1), 0).in_file(&self.table.path, at));
        }
        Ok(report)
    }
}

/// Whether a separator is at or after `key`, both with stored seqnos.
fn is_at_or_after(separator: &(Vec<u8>, u64), key: InternalKey<'_>) -> bool {
    let (user_key, trailer) = separator;
    match (**user_key).cmp(key.user_key) {
        std::cmp::Ordering::Equal => *trailer <= key.trailer.to_raw(),
        unequal => unequal.is_gt(),
    }
}
