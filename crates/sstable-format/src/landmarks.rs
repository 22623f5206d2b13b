//! Where a table can be cut into pieces of similar size: separators of its index.
//!
//! - **T3** A separator is at or after every entry of its block and before every entry of the next: so the blocks up to it
//!   are what lies at or before it.

use crate::block::Layout;
use crate::error::TableError;
use crate::reader::TableReader;

/// User keys, each with the number of data blocks whose entries lie at or before it. See [`TableReader::landmarks`].
pub type Landmarks = Vec<(Box<[u8]>, u64)>;

impl TableReader {
    /// At most `count` user keys that cut the table into pieces of as many blocks each, ascending, each with the number of
    /// data blocks whose entries lie at or before it. Neither the table's end nor its beginning is among them. The
    /// versions of one user key may lie on both sides of the block that it ends; the keys need not be in the table.
    ///
    /// Reads the index alone: the root, which is in memory, and the partitions that the cuts lie in.
    ///
    /// # Errors
    /// If the index cannot be read or is damaged.
    pub fn landmarks(&self, count: usize) -> Result<Landmarks, TableError> {
        let blocks = self.data_blocks();
        let pieces = (count as u64).saturating_add(1).min(blocks);
        // The last block of every piece but the last.
        let last_of = |piece: u64| (u128::from(blocks) * u128::from(piece) / u128::from(pieces)) as u64 - 1;
        let mut wanted = (1..pieces).map(last_of).peekable();
        let mut found = Landmarks::new();
        let mut keep = |key: Vec<u8>, ordinal: u64| match found.last_mut() {
            // One key that has more versions than a block holds: what lies at or before it ends with the last of them.
            Some((last, at_or_before)) if **last == *key => *at_or_before = ordinal + 1,
            _ => found.push((key.into(), ordinal + 1)),
        };
        let root = self.root.bytes();
        let rows = self.root_layout.rows;
        if !self.has_partitions() {
            for ordinal in wanted.take_while(|ordinal| *ordinal < rows as u64) {
                let mut key = Vec::new();
                let appended = self.root_layout.append_key(root, ordinal as usize, &mut key);
                appended.map_err(|damage| self.damaged_root(damage))?;
                keep(key, ordinal);
            }
            return Ok(found);
        }
        for row in 0..rows {
            let (place, first) = self.partition_place(row)?;
            let end = if row + 1 < rows { self.partition_place(row + 1)?.1 } else { blocks };
            if wanted.peek().is_none_or(|ordinal| *ordinal >= end) {
                continue;
            }
            let partition = self.fetch(place)?;
            let damaged = |damage| self.damaged(place, damage);
            let layout = Layout::parse(&partition).map_err(damaged)?;
            while let Some(ordinal) = wanted.next_if(|ordinal| *ordinal < end) {
                let row = ordinal.wrapping_sub(first);
                if row >= layout.rows as u64 {
                    // The ordinals disagree: whoever reads the block finds out.
                    continue;
                }
                let mut key = Vec::new();
                layout.append_key(&partition, row as usize, &mut key).map_err(damaged)?;
                keep(key, ordinal);
            }
        }
        Ok(found)
    }
}
