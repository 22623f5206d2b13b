//! Carries out a plan: a merged stream in, whole tables out. Flushes go the same way.
//!
//! ```text
//!   cursor ─▶ collector ─▶ writer ─▶ .tmp-… ─ sync ─ rename ─▶ <id>.sst   … one table after the other
//!               (C2)         └ next table where a user key ends (C3)          then one sync of the directory (M1)
//! ```
//!
//! - **C2** What the collector drops is not written; nothing else is left out.
//! - **C3** All versions of a user key go into one table: an output ends only where a user key ends.
//! - **C4** Cancelled or failed, nothing is left: the unfinished output's temporary file goes with its writer, and those
//!   that already have their names are removed.
//! - **M1** When [`merge_into_tables`] returns, every table is durable under its name. Nothing names them yet.
//! - **R3** A job that is cut into parts ([`merge_part`], each over its own [`KeySpan`]) sees one floor and one set of
//!   snapshots; its directory is synced once, when all parts are written ([`sync_tables`]).
//! - **P8** Every failure is certain: the caller may try again, once there is room if [`RunError::is_out_of_space`].
//!
//! One output is open at a time, so that a job of any size needs one file descriptor for writing. Nothing is allocated
//! for an entry.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use file_system::{FileError, FileSystem};
use internal_key::{Cursor, Epoch, InternalKey, JobId, KeyspaceId, Level, SeqNo, TableId};
use manifest::paths::table_name;
use manifest::{DatabaseId, TableEntry};
use sstable_format::{TableIdentity, TableOptions, TableSummary, TableWriter, WriteError};
use version_history::Version;

use crate::collect::{Collected, Collector, Verdict};
use crate::plan::Plan;

/// Removes the files of tables that no manifest names: outputs whose edit was refused or failed before its commit point
/// (C4; never after an uncertain commit, M7). Files that do not exist are fine.
///
/// # Errors
/// The first failure; the other files are tried nevertheless. What stays is removed at the next opening (M2).
pub fn remove_tables(
    files: &dyn FileSystem,
    dir: &Path,
    tables: impl IntoIterator<Item = TableId>,
) -> Result<(), FileError> {
    let mut first = Ok(());
    for table in tables {
        match files.remove_file(&dir.join(table_name(table))) {
            Err(error) if !error.is_not_found() && first.is_ok() => first = Err(error),
            _ => {}
        }
    }
    first
}

/// Where tables are written, and what is recorded in them.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Where files live.
    pub files: &'a dyn FileSystem,
    /// The directory of the tables ([`tables_dir`](manifest::DatabasePaths::tables_dir)).
    pub dir: &'a Path,
    /// How the tables are written; the caller's choice for the level.
    pub table_options: &'a TableOptions,
    /// A table is ended at the first user key at which it is estimated to have this many bytes.
    pub table_bytes_target: u64,
    /// Keys, ascending, after which a table had better end: the last keys of the tables of the next level
    /// ([`next_level_bounds`]). A table that has half its target ends there, so that it overlaps fewer of them when it
    /// goes down in its turn. May be empty.
    pub bounds: &'a [Box<[u8]>],
    /// Gives out ids that were never used.
    pub next_table_id: &'a dyn Fn() -> TableId,
    /// The database.
    pub database_id: DatabaseId,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The level written for.
    pub level: Level,
    /// What every output carries: the largest epoch among the inputs ([`Plan::table_epoch`]), for a flush the newest
    /// memtable's.
    pub epoch: Epoch,
    /// The job.
    pub job: JobId,
    /// The tables that are merged; none for a flush.
    pub inputs: &'a [TableId],
    /// Which user keys are written; the others belong to other parts of the job.
    pub span: KeySpan<'a>,
    /// What every output is recorded with ([`TableEntry::newest_unix_ms`]): for a merge the largest among its inputs, for a
    /// flush the present time, or 0 where nobody asks for it.
    pub newest_unix_ms: u64,
}

/// A range of user keys, whole keys only, so that all versions of one lie in one span (C3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeySpan<'a> {
    /// Keys behind this one; `None`: from the first.
    pub after: Option<&'a [u8]>,
    /// Keys up to this one, itself included; `None`: to the last.
    pub through: Option<&'a [u8]>,
}

impl<'a> KeySpan<'a> {
    /// The span of part `part` of a job that is cut at `cuts`, ascending: one part more than there are cuts.
    ///
    /// # Panics
    /// If there is no such part.
    pub fn of_part(cuts: &'a [Box<[u8]>], part: usize) -> Self {
        assert!(part <= cuts.len(), "part {part} of {}", cuts.len() + 1);
        Self { after: part.checked_sub(1).map(|before| &*cuts[before]), through: cuts.get(part).map(|cut| &**cut) }
    }

    /// Whether it has keys between `min` and `max`, both inclusive.
    pub fn overlaps(&self, min: &[u8], max: &[u8]) -> bool {
        self.after.is_none_or(|after| *after < *max) && self.through.is_none_or(|through| *min <= *through)
    }
}

/// How far a job is: all its parts together. Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    entries_read: AtomicU64,
    bytes_written: AtomicU64,
    tables_written: AtomicU64,
}

impl Progress {
    /// Entries read so far, up to a hundred or so.
    pub fn entries_read(&self) -> u64 {
        // Relaxed, here and below: figures for people, nothing is published through them.
        self.entries_read.load(Ordering::Relaxed)
    }

    /// Bytes of tables written so far, up to the block that is being filled.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    /// Tables finished so far.
    pub fn tables_written(&self) -> u64 {
        self.tables_written.load(Ordering::Relaxed)
    }
}

/// When a job is to give up: as soon as any of its flags is true. Whoever may end it has a flag of their own.
#[derive(Debug, Clone, Copy)]
pub struct Cancel<'a> {
    flag: &'a AtomicBool,
    or: Option<&'a Cancel<'a>>,
}

impl<'a> Cancel<'a> {
    /// When `flag` is true.
    pub fn when(flag: &'a AtomicBool) -> Self {
        Self { flag, or: None }
    }

    /// When `flag` is true too.
    pub fn or_when(&'a self, flag: &'a AtomicBool) -> Self {
        Self { flag, or: Some(self) }
    }

    /// Whether the job is to give up.
    pub fn is_set(&self) -> bool {
        // Relaxed: seen a little later, the job gives up a little later.
        self.flag.load(Ordering::Relaxed) || self.or.is_some_and(Cancel::is_set)
    }
}

/// What a running job looks at besides its entries.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// The job gives up soon after this is set.
    pub cancel: Cancel<'a>,
    /// Told how far the job is.
    pub progress: &'a Progress,
    /// Called with the number of bytes about to be written since the last call, each time that at least
    /// [`Control::RATE_STEP_BYTES`] have gathered: a byte-rate limit waits here.
    pub before_write: &'a dyn Fn(u64),
}

impl Control<'_> {
    /// How many bytes gather between two calls of [`Control::before_write`].
    pub const RATE_STEP_BYTES: u64 = 256 << 10;
    /// How many entries pass at most between two looks at `cancel`; large ones fewer, because each call of `before_write` is
    /// followed by a look.
    const LOOK_ENTRIES: u64 = 128;
}

/// Tables that are durable under their names, and named by nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outputs {
    /// As the manifest will name them, ascending and disjoint. Empty if nothing was kept.
    pub tables: Vec<Arc<TableEntry>>,
    /// What became of the entries.
    pub collected: Collected,
}

impl Outputs {
    /// Adds what the next part of the same job has written.
    pub fn append(&mut self, next: Self) {
        self.tables.extend(next.tables);
        self.collected += next.collected;
        debug_assert!(self.tables.is_sorted_by(|left, right| left.max_key < right.min_key), "C3: parts are disjoint");
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }
}

/// Why no tables came out. Nothing is left behind (C4); `E` is the error of the cursor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The job was told to give up.
    #[error("the job was cancelled")]
    Cancelled,
    /// An input cannot be read. Trying again is of no use if it is damaged.
    #[error("an input cannot be read: {0}")]
    Read(#[source] E),
    /// A table cannot be written.
    #[error(transparent)]
    Write(WriteError),
    /// A table cannot be given its name, or the directory cannot be synced.
    #[error(transparent)]
    Install(FileError),
}

impl<E> RunError<E> {
    /// Whether the disk is full: trying again helps once there is room (P8).
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Write(WriteError::Io(error)) | Self::Install(error) => error.is_out_of_space(),
            _ => false,
        }
    }
}

/// The last keys of the tables one level below a plan's output that its outputs may overlap: for [`Output::bounds`].
pub fn next_level_bounds<S>(plan: &Plan, version: &Version<S>) -> Vec<Box<[u8]>> {
    let runs = plan.output_level.below().map_or(&[][..], |below| version.runs(below));
    let tables = runs.iter().flat_map(|run| run.overlapping(&plan.min_key, &plan.max_key));
    let mut bounds: Vec<Box<[u8]>> = tables.map(|table| table.entry.max_key.clone()).collect();
    bounds.sort_unstable();
    bounds
}

/// Writes what `collector` keeps of `cursor`, from its first entry to its last, into tables.
///
/// Both a compaction (a merge of tables) and a flush (a merge of sealed memtables) run through here. The tables are
/// durable under their names when this returns; the caller then commits the one edit that names them (M1, C4) or, if
/// that is refused, calls [`remove_tables`].
///
/// # Errors
/// See [`RunError`]. Nothing is left: what was written is removed. A file that cannot even be removed is removed at the
/// next opening, because nothing names it (M2).
///
/// # Panics
/// If the cursor's entries are not in internal order (T1).
pub fn merge_into_tables<C, F>(
    cursor: C,
    collector: &mut Collector<'_, F>,
    output: &Output<'_>,
    control: &Control<'_>,
) -> Result<Outputs, RunError<C::Error>>
where
    C: Cursor,
    F: FnMut(&[u8]) -> bool,
{
    let outputs = merge_part(cursor, collector, output, control)?;
    sync_tables(output.files, output.dir, &outputs.tables).map_err(RunError::Install)?;
    Ok(outputs)
}

/// Writes what `collector` keeps of the entries of `cursor` in [`Output::span`] into tables: one part of a job. They have
/// their names when this returns, and are durable under them once [`sync_tables`] has succeeded for all parts (M1).
///
/// Parts may be written at the same time, each by its own cursor and collector; what one holds in memory does not depend
/// on how large it is.
///
/// # Errors
/// See [`RunError`]. Nothing of this part is left, as for [`merge_into_tables`]; other parts are the caller's.
///
/// # Panics
/// If the cursor's entries are not in internal order (T1).
pub fn merge_part<C, F>(
    mut cursor: C,
    collector: &mut Collector<'_, F>,
    output: &Output<'_>,
    control: &Control<'_>,
) -> Result<Outputs, RunError<C::Error>>
where
    C: Cursor,
    F: FnMut(&[u8]) -> bool,
{
    let mut job = Job {
        output,
        control,
        tables: Vec::new(),
        writer: None,
        unpaid: 0,
        counted: 0,
        told: Told::default(),
        next_bound: 0,
    };
    match job.run(&mut cursor, collector) {
        Ok(()) => {
            let collected = collector.collected();
            tracing::debug!(job = %output.job, tables = job.tables.len(), ?collected, "tables written");
            Ok(Outputs { tables: std::mem::take(&mut job.tables), collected })
        }
        Err(error) => {
            job.give_up();
            Err(error)
        }
    }
}

/// Makes the names of a job's tables durable (M1): one sync of their directory, none if there is no table.
///
/// # Errors
/// The sync failed: the tables are removed (C4), as far as that is possible.
pub fn sync_tables(files: &dyn FileSystem, dir: &Path, tables: &[Arc<TableEntry>]) -> Result<(), FileError> {
    if tables.is_empty() || planted_faults::planted("compaction-directory-not-synced") {
        return Ok(());
    }
    files.sync_dir(dir).inspect_err(|_| remove_outputs(files, dir, tables))
}

/// C4: nothing is left of a job that failed.
fn remove_outputs(files: &dyn FileSystem, dir: &Path, tables: &[Arc<TableEntry>]) {
    if tables.is_empty() || planted_faults::planted("compaction-outputs-stay-after-failure") {
        return;
    }
    if let Err(error) = remove_tables(files, dir, tables.iter().map(|table| table.id)) {
        tracing::warn!(%error, "an output of a failed job stays until the next opening");
    }
}

/// An output that is being written.
struct Open {
    writer: TableWriter,
    table: TableId,
    /// The number of the last user key written, as the collector counts them.
    key_number: u64,
}

struct Job<'a> {
    output: &'a Output<'a>,
    control: &'a Control<'a>,
    /// Those that have their names.
    tables: Vec<Arc<TableEntry>>,
    writer: Option<Open>,
    /// Bytes of keys and values written since the rate limit was last asked.
    unpaid: u64,
    /// Bytes of the finished tables.
    counted: u64,
    /// What the progress was told so far.
    told: Told,
    /// The first bound that does not lie before the last key written.
    next_bound: usize,
}

/// Entries read, bytes and tables written.
#[derive(Default)]
struct Told(u64, u64, u64);

impl Job<'_> {
    fn run<C, F>(&mut self, cursor: &mut C, collector: &mut Collector<'_, F>) -> Result<(), RunError<C::Error>>
    where
        C: Cursor,
        F: FnMut(&[u8]) -> bool,
    {
        let KeySpan { after, through } = self.output.span;
        match after {
            None => cursor.seek_to_first().map_err(RunError::Read)?,
            Some(after) => {
                // The last place that an entry of this key can have: one that lies there belongs to the part before.
                cursor.seek(InternalKey::seek(after, SeqNo::ZERO)).map_err(RunError::Read)?;
                while cursor.valid() && *cursor.user_key() == *after {
                    cursor.next().map_err(RunError::Read)?;
                }
            }
        }
        let end = if planted_faults::planted("compaction-part-goes-on-into-the-next") { None } else { through };
        let mut read = 0_u64;
        while cursor.valid() && end.is_none_or(|end| *cursor.user_key() <= *end) {
            if read.is_multiple_of(Control::LOOK_ENTRIES) {
                self.look(read).ok_or(RunError::Cancelled)?;
            }
            read += 1;
            let trailer = cursor.trailer();
            if collector.visit(cursor.user_key(), trailer) == Verdict::Keep {
                let key_number = collector.key_number();
                // The collector's copy of the key, because the value borrows the cursor.
                let user_key = collector.user_key();
                self.end_table_before(user_key, key_number).map_err(give_reason)?;
                let value = cursor.value().map_err(RunError::Read)?;
                self.unpaid += (user_key.len() + value.len()) as u64;
                if self.unpaid >= Control::RATE_STEP_BYTES {
                    (self.control.before_write)(std::mem::take(&mut self.unpaid));
                    if !planted_faults::planted("compaction-cancel-seen-by-entries-alone") {
                        self.look(read).ok_or(RunError::Cancelled)?;
                    }
                }
                let open = self.open_table().map_err(RunError::Write)?;
                open.writer.add(InternalKey::new(user_key, trailer), value).map_err(RunError::Write)?;
                open.key_number = key_number;
            }
            cursor.next().map_err(RunError::Read)?;
        }
        self.end_table().map_err(give_reason)?;
        self.look(read).ok_or(RunError::Cancelled)
    }

    /// Reports how far the job is; `None` if it is to give up.
    fn look(&mut self, read: u64) -> Option<()> {
        let progress = self.control.progress;
        let open = self.writer.as_ref().map_or(0, |open| open.writer.estimated_bytes());
        let now = Told(read, self.counted + open, self.tables.len() as u64);
        let before = std::mem::replace(&mut self.told, now);
        // Other parts add theirs. Wrapping, because an estimate of bytes may turn out to have been too large. Relaxed:
        // figures for people.
        let add =
            |figure: &AtomicU64, now: u64, before: u64| figure.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        add(&progress.entries_read, self.told.0, before.0);
        add(&progress.bytes_written, self.told.1, before.1);
        add(&progress.tables_written, self.told.2, before.2);
        (!self.control.cancel.is_set()).then_some(())
    }

    /// Ends the open table if it is full and `user_key` is not its last one (C3).
    fn end_table_before(&mut self, user_key: &[u8], key_number: u64) -> Result<(), Reason> {
        let Some(open) = &self.writer else {
            return Ok(());
        };
        if open.key_number == key_number && !planted_faults::planted("compaction-table-ends-inside-a-key") {
            return Ok(());
        }
        let mut passed_bound = false;
        while self.output.bounds.get(self.next_bound).is_some_and(|bound| **bound < *user_key) {
            self.next_bound += 1;
            passed_bound = true;
        }
        let target = self.output.table_bytes_target;
        let enough = if passed_bound { target / 2 } else { target };
        if open.writer.estimated_bytes() >= enough { self.end_table() } else { Ok(()) }
    }

    fn open_table(&mut self) -> Result<&mut Open, WriteError> {
        if self.writer.is_none() {
            let Output { files, dir, table_options, .. } = *self.output;
            let table = (self.output.next_table_id)();
            let identity = TableIdentity {
                database_id: self.output.database_id.0,
                keyspace: self.output.keyspace,
                table,
                level: self.output.level,
                epoch: self.output.epoch,
                job: self.output.job,
                inputs: self.output.inputs.to_vec(),
                output_index: self.tables.len() as u32,
                // Unknown before the last entry was read.
                output_count: 0,
            };
            let writer = TableWriter::new(files, dir, identity, table_options.clone())?;
            self.writer = Some(Open { writer, table, key_number: 0 });
        }
        Ok(self.writer.as_mut().expect("just opened"))
    }

    /// Finishes the open table and gives it its name.
    fn end_table(&mut self) -> Result<(), Reason> {
        let Some(Open { writer, table, .. }) = self.writer.take() else {
            return Ok(());
        };
        let pending = writer.finish().map_err(Reason::Write)?;
        let path = self.output.dir.join(table_name(table));
        let summary = pending.persist(&path).map_err(Reason::Install)?;
        self.counted += summary.bytes;
        self.tables.push(Arc::new(entry(summary, table, self.output)));
        Ok(())
    }

    /// C4: nothing is left.
    fn give_up(&mut self) {
        self.writer = None;
        remove_outputs(self.output.files, self.output.dir, &std::mem::take(&mut self.tables));
    }
}

/// Why a table could not be ended.
enum Reason {
    Write(WriteError),
    Install(FileError),
}

fn give_reason<E>(reason: Reason) -> RunError<E> {
    match reason {
        Reason::Write(error) => RunError::Write(error),
        Reason::Install(error) => RunError::Install(error),
    }
}

fn entry(summary: TableSummary, id: TableId, output: &Output<'_>) -> TableEntry {
    TableEntry {
        id,
        bytes: summary.bytes,
        checksum: summary.checksum,
        min_key: summary.min_key,
        max_key: summary.max_key,
        min_seqno: summary.min_seqno,
        max_seqno: summary.max_seqno,
        entries: summary.entries,
        tombstones: summary.tombstones,
        logical_bytes: summary.logical_bytes,
        epoch: output.epoch,
        job: output.job,
        // Inputs were read with their bases added.
        seqno_base: 0,
        newest_unix_ms: output.newest_unix_ms,
    }
}
