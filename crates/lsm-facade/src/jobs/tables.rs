//! The tables of a job: written, opened and checked before anybody reads them.
//!
//! - **C4** Whatever the failure, no table is left behind that nothing names.
//! - **T2** The blocks of a new table are checked by the job that made it, not by its first readers.
//! - **T4** Levels 0 and 1 are written uncompressed.
//! - **R5** One handle for each table and process.

use std::sync::Arc;

use compaction::{Cancel, Collector, Control, KeySpan, Output, Outputs, Progress, RunError, Strategy};
use internal_key::{Epoch, JobId, Level, TableId};
use manifest::{AddedTable, TableEntry};
use merge_iterator::MergeCursor;
use sstable_format::{Compression, TableOptions, TableSummary};

use crate::core::{Core, KeyspaceShared, Table};
use crate::options::KeyspaceOptions;
use crate::source::Source;
use crate::{Error, Result};

/// A table and where it goes, with its handle if it has one already.
pub(super) type Placed = (AddedTable, Option<Arc<Table>>);

/// Where a job's tables go, and what their properties say of it.
pub(super) struct Destination<'a> {
    pub(super) level: Level,
    pub(super) epoch: Epoch,
    pub(super) job: JobId,
    pub(super) inputs: &'a [TableId],
    /// By when the newest row that comes out had been written, where that matters.
    pub(super) newest_unix_ms: u64,
    /// Where tables of the level below end.
    pub(super) bounds: &'a [Box<[u8]>],
    /// Which keys are written; all but in a job of several parts.
    pub(super) span: KeySpan<'a>,
}

impl Core {
    /// Writes the tables of a flush, or of a part of a compaction: who leads that makes their names durable when all parts
    /// are written. Whatever the failure, none is left behind (C4).
    pub(super) fn write_tables<F: FnMut(&[u8]) -> bool>(
        &self,
        keyspace: &KeyspaceShared,
        merged: MergeCursor<Source>,
        collector: &mut Collector<'_, F>,
        to: Destination<'_>,
        (cancel, progress): (Cancel<'_>, &Progress),
    ) -> Result<Outputs> {
        let tables_dir = self.paths.tables_dir();
        let output = Output {
            files: self.files(),
            dir: &tables_dir,
            table_options: &table_options(&keyspace.options, to.level),
            table_bytes_target: keyspace.options.table_bytes,
            bounds: to.bounds,
            next_table_id: &|| self.next_table_id(),
            database_id: self.manifest.current().database_id,
            keyspace: keyspace.id,
            level: to.level,
            epoch: to.epoch,
            job: to.job,
            inputs: to.inputs,
            span: to.span,
            newest_unix_ms: to.newest_unix_ms,
        };
        // Flushes are not limited: they are what writers wait for.
        let is_compaction = !to.inputs.is_empty();
        let before_write = |bytes| {
            if is_compaction {
                self.wait_for_rate(bytes, cancel);
            }
        };
        let control = Control { cancel, progress, before_write: &before_write };
        let written = if is_compaction {
            compaction::merge_part(merged, collector, &output, &control)
        } else {
            compaction::merge_into_tables(merged, collector, &output, &control)
        };
        written.map_err(|error| match error {
            RunError::Read(error) => error,
            RunError::Write(error) => error.into(),
            RunError::Install(error) => error.into(),
            RunError::Cancelled => Error::Closed,
            other => Error::InvalidInput { what: other.to_string() },
        })
    }

    /// Handles for tables that the manifest names from now on; a batch keeps the one it has (R5).
    pub(super) fn with_handles(&self, keyspace: &KeyspaceShared, added: Vec<Placed>) -> Vec<(AddedTable, Arc<Table>)> {
        let with_handle = |(place, handle): Placed| {
            let handle = handle.unwrap_or_else(|| self.table_handle(keyspace.id, &place.table));
            (place, handle)
        };
        added.into_iter().map(with_handle).collect()
    }

    /// Opens the tables that `job` has made and checks their blocks before readers know of them: otherwise the first get
    /// of each block would fault its pages in and hash it (T2). A table that was only moved stays as it is.
    ///
    /// A failure is the readers' to report: whoever comes to that place meets it too.
    pub(super) fn make_ready(&self, added: &[(AddedTable, Arc<Table>)], job: JobId, cancelled: &dyn Fn() -> bool) {
        if planted_faults::planted("facade-new-tables-left-to-their-readers") {
            return;
        }
        for (_, table) in added.iter().filter(|(place, _)| place.table.job == job) {
            let ready = self.reader(table).and_then(|reader| Ok(reader.check_ahead(cancelled)?));
            if let Err(error) = ready {
                tracing::warn!(%job, %error, "a new table is damaged, or cannot be opened");
            }
        }
    }
}

/// What the manifest says of a table, from what its writer or its reader says.
pub(crate) fn table_entry(id: TableId, job: JobId, epoch: Epoch, summary: &TableSummary) -> TableEntry {
    TableEntry {
        id,
        bytes: summary.bytes,
        checksum: summary.checksum,
        min_key: summary.min_key.clone(),
        max_key: summary.max_key.clone(),
        min_seqno: summary.min_seqno,
        max_seqno: summary.max_seqno,
        entries: summary.entries,
        tombstones: summary.tombstones,
        logical_bytes: summary.logical_bytes,
        epoch,
        job,
        seqno_base: 0,
        newest_unix_ms: 0,
    }
}

/// How the tables of a level are written (T4): levels 0 and 1 uncompressed.
pub(crate) fn table_options(options: &KeyspaceOptions, level: Level) -> TableOptions {
    TableOptions {
        block_bytes: options.block_bytes as usize,
        compression: if level.get() <= 1 { Compression::None } else { options.compression },
        filter_bits_per_key: options.filter_bits_per_key as u8,
        notes_superseded: options.strategy != Strategy::Fifo,
        ..TableOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use file_system::Simulation;
    use internal_key::Level;

    use crate::{Compression, Database, KeyspaceOptions};

    /// T2: no reader is the first in a table that a flush or a compaction has made: it is open, and each of its blocks is
    /// checked, before the version that names it is seen.
    #[test]
    fn new_tables_are_checked_before_they_are_read() {
        let simulation = Simulation::new(1);
        let database =
            Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
        let options = KeyspaceOptions::default().block_bytes(512).table_bytes(8 << 10).compression(Compression::None);
        let keyspace = database.create_keyspace("a", options).unwrap();
        for compacting in [false, true] {
            for number in 0..500_u32 {
                keyspace.insert(number.to_be_bytes(), "value".repeat(10)).unwrap();
            }
            keyspace.flush().unwrap();
            if compacting {
                keyspace.compact().unwrap();
            }
            let current = keyspace.shared.history.current();
            let guard = crossbeam_epoch::pin();
            for (_, table) in current.version().tables() {
                let reader = table.slot.get(&guard).expect("the table is open");
                assert!(reader.data_blocks() > 1, "{reader:?}");
                assert_eq!(reader.checked_blocks(), reader.data_blocks(), "{reader:?}");
            }
            let in_level_zero = current.version().tables().filter(|(level, _)| *level == Level::ZERO).count();
            assert_eq!(in_level_zero == 0, compacting, "a flush's tables, then a compaction's");
        }
    }
}
