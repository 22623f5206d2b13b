//! Checks a new table's blocks ahead of its first readers.
//!
//! - **T2** A block is checked once per open table. Whoever has made a table does it here, before others know of the table:
//!   then no read hashes a block, and none is the first to touch a page of the map.

use crate::block::Layout;
use crate::error::{Damage, TableError};
use crate::frame::FrameKind;
use crate::index::decode_partition_value;
use crate::reader::{BlockPlace, TableReader};

impl TableReader {
    /// Checks every index partition and every data block that is read in place. Nothing is left to do for
    /// [`Access::Pread`](crate::Access::Pread).
    ///
    /// Left to their first readers are large values, and compressed blocks, which are checked each time they are decoded
    /// into the block cache. Asks `cancelled` before each block and ends early once it says yes.
    ///
    /// # Errors
    /// The first damage met. A reader that comes to that place meets it as well.
    pub fn check_ahead(&self, cancelled: &dyn Fn() -> bool) -> Result<(), TableError> {
        if !self.is_mapped() {
            return Ok(());
        }
        let root = self.root.bytes();
        if !self.has_partitions() {
            return self.check_partition(root, &self.root_layout, 0, cancelled, &|damage| self.damaged_root(damage));
        }
        for row in 0..self.root_layout.rows {
            let (place, first_ordinal) = self.partition_place(row)?;
            let partition = self.fetch(place)?;
            let damaged = |damage| self.damaged(place, damage);
            let layout = Layout::parse(&partition).map_err(damaged)?;
            self.check_partition(&partition, &layout, first_ordinal, cancelled, &damaged)?;
        }
        Ok(())
    }

    /// Checks the blocks that a partition of the index names, or the root where it is the only one.
    fn check_partition(
        &self,
        partition: &[u8],
        layout: &Layout,
        first_ordinal: u64,
        cancelled: &dyn Fn() -> bool,
        damaged: &dyn Fn(Damage) -> TableError,
    ) -> Result<(), TableError> {
        for row in 0..layout.rows {
            if cancelled() {
                break;
            }
            let handle = layout.value(partition, row).and_then(decode_partition_value).map_err(damaged)?;
            let ordinal = first_ordinal.wrapping_add(row as u64);
            // Checks and remembers as for a reader; `None` for a compressed one.
            self.in_place(BlockPlace { kind: FrameKind::Data, handle, ordinal })?;
        }
        Ok(())
    }
}
