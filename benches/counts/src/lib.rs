//! What the counted paths run on: a database, a table, a log, each filled and warm, made outside of the count.
//!
//! ```text
//!   prepare, and check every answer once (not counted) ─▶ so many operations (counted)
//! ```
//!
//! Everything repeats itself: keys and values come from numbers, there are no background threads, and what could be
//! checked or opened lazily was, before the count begins. `benches/counts.rs` counts; `cargo xtask bench --ci`
//! compares. `benches/micro` measures in time what has no benchmark beside it.

use std::cell::Cell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use benches::{KEY_BYTES, KeyShape, Rows, VALUE_BYTES, mix};
use commit_pipeline::{Durability, Pipeline, PipelineOptions, Request};
use compaction::{Cancel, Collector, Control, KeySpan, Output, Outputs, Progress, merge_into_tables, remove_tables};
use file_system::{Environment, LogFileWay};
use internal_key::{Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SegmentId, SeqNo, TableId, Trailer};
use lsm_facade::{Database, Keyspace};
use manifest::{AddedTable, Change, DatabaseId, Edit, ManifestOptions, ManifestStore, TableEntry};
use merge_iterator::{MergeCursor, SliceCursor};
use skiplist_memtable::{Memtable, MemtableOptions, Reservation};
use sstable_format::{Expected, ReadOptions, TableIdentity, TableOptions, TableReader, TableWriter};
use tempfile::TempDir;
use version_history::{DroppedTables, Version};
use write_ahead_log::{Log, LogOptions, LogTail, Payload, RecordKind};

/// Rows in a database, a memtable or a table before anything is counted.
pub const ROWS: u32 = 20_000;

/// A key as all rows have it.
pub type Key = [u8; KEY_BYTES];

/// A value as all rows have it.
pub type Value = [u8; VALUE_BYTES];

/// An open database without threads, and the keys to ask for.
pub struct Stage {
    /// The keyspace of all rows.
    pub keyspace: Keyspace,
    /// What is asked for, or written next.
    pub asked: Vec<(Key, Value)>,
    /// Rows that are in it.
    pub rows: Rows,
    /// Bytes that the counted path read, so that it must read them.
    pub bytes: usize,
    // Dropped in this order: the database closes before its directory goes.
    /// The database.
    pub database: Database,
    _dir: TempDir,
}

impl Stage {
    fn filled(flushed: bool) -> Self {
        let rows = Rows::new(KeyShape::Scattered, ROWS);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let database = Database::builder(dir.path()).background_threads(0).open().expect("a new database");
        let keyspace = database.keyspace("rows").expect("a new keyspace");
        for row in 0..ROWS {
            keyspace.insert(rows.key(row), Rows::value(row, 0)).expect("an insert succeeds");
        }
        if flushed {
            keyspace.flush().expect("a flush succeeds");
            database.wait_until_idle().expect("jobs succeed");
            // Opens the table and checks every block of it once.
            assert_eq!(keyspace.iter().count(), ROWS as usize);
        }
        Self { keyspace, asked: Vec::new(), rows, bytes: 0, database, _dir: dir }
    }

    /// All rows in tables; asks for `count` of them.
    pub fn hits(count: u32) -> Self {
        let mut stage = Self::filled(true);
        stage.asked = (0..count).map(any).map(|row| (stage.rows.key(row), Rows::value(row, 0))).collect();
        for (key, value) in &stage.asked {
            let found = stage.keyspace.get(key).expect("a get succeeds").expect("the row is there");
            assert!(found == value.as_slice(), "a wrong value");
        }
        stage
    }

    /// All rows in tables; asks for `count` keys that nobody wrote.
    pub fn misses(count: u32) -> Self {
        let mut stage = Self::filled(true);
        stage.asked = (0..count).map(any).map(|row| (stage.rows.key(ROWS + row), [0; VALUE_BYTES])).collect();
        stage
    }

    /// All rows in one active memtable; `count` more are to be written.
    pub fn inserts(count: u32) -> Self {
        let mut stage = Self::filled(false);
        stage.asked = (ROWS..ROWS + count).map(|row| (stage.rows.key(row), Rows::value(row, 0))).collect();
        stage
    }
}

/// The `nth` of rows in no order, with repetition.
fn any(nth: u32) -> u32 {
    (((mix(u64::from(nth)) >> 32) * u64::from(ROWS)) >> 32) as u32
}

fn put(seqno: u64) -> Trailer {
    Trailer::new(SeqNo::new(seqno).expect("a small number"), Kind::Put)
}

/// A memtable of [`ROWS`] entries, and the keys to ask for or to insert.
pub struct Filled {
    /// The memtable.
    pub memtable: Memtable,
    /// What is asked for, or inserted next.
    pub asked: Vec<(Key, Value)>,
}

impl Filled {
    /// Asks for `count` keys that are there.
    pub fn hits(count: u32) -> Self {
        let filled = Self::new();
        let rows = Rows::new(KeyShape::Scattered, 0);
        Self { asked: (0..count).map(any).map(|row| (rows.key(row), Rows::value(row, 0))).collect(), ..filled }
    }

    /// Inserts `count` more.
    pub fn inserts(count: u32) -> Self {
        let filled = Self::new();
        let rows = Rows::new(KeyShape::Scattered, 0);
        Self { asked: (ROWS..ROWS + count).map(|row| (rows.key(row), Rows::value(row, 0))).collect(), ..filled }
    }

    fn new() -> Self {
        let rows = Rows::new(KeyShape::Scattered, 0);
        let filled = Self { memtable: Memtable::new(&MemtableOptions::default()), asked: Vec::new() };
        for row in 0..ROWS {
            filled.insert(row, &rows.key(row), &Rows::value(row, 0));
        }
        filled
    }

    /// Reserves room for the entry and inserts it.
    #[inline]
    pub fn insert(&self, number: u32, key: &Key, value: &Value) {
        let trailer = put(u64::from(number) + 1);
        let mut range = self.memtable.reserve(Reservation {
            bytes: Memtable::entry_bytes(KEY_BYTES, VALUE_BYTES),
            entries: 1,
            first_seqno: trailer.seqno(),
            last_seqno: trailer.seqno(),
        });
        self.memtable.insert(&mut range, key, trailer, value);
    }
}

/// What tables and logs belong to.
pub const DATABASE: u128 = 7;

/// A table of rows in the order of their keys, or the place for one.
pub struct Table {
    /// Its rows, ascending.
    pub rows: Vec<(Key, Value)>,
    dir: TempDir,
    environment: Environment,
}

impl Table {
    /// `count` rows for a table that is still to be written.
    pub fn unwritten(count: u32) -> Self {
        let rows = Rows::new(KeyShape::Scattered, count);
        let number = |rank| rows.at_rank(rank);
        Self {
            rows: (0..count).map(|rank| (rows.key(number(rank)), Rows::value(number(rank), 0))).collect(),
            dir: tempfile::tempdir().expect("a directory can be made"),
            environment: Environment::real(),
        }
    }

    /// Two tables that are still to be written, `count` rows between them, dealt by turns.
    pub fn halves(count: u32) -> [Self; 2] {
        [0, 1].map(|half| {
            let mut table = Self::unwritten(count);
            table.rows = table.rows.into_iter().skip(half).step_by(2).collect();
            table
        })
    }

    /// A writer for it.
    pub fn writer(&self) -> TableWriter {
        let identity = TableIdentity {
            database_id: DATABASE,
            keyspace: KeyspaceId(1),
            table: TableId(1),
            level: Level::ZERO,
            epoch: Epoch(1),
            job: JobId(1),
            inputs: Vec::new(),
            output_index: 0,
            output_count: 1,
        };
        TableWriter::new(&*self.environment.files, self.dir.path(), identity, TableOptions::default())
            .expect("a new table")
    }

    /// Adds all rows.
    #[inline]
    pub fn write(&self, writer: &mut TableWriter) {
        for ((key, value), seqno) in self.rows.iter().zip(1..) {
            writer.add(InternalKey::new(key, put(seqno)), value).expect("an entry is added");
        }
    }

    /// Writes it, opens it, and reads every row once.
    pub fn open(&self) -> TableReader {
        let mut writer = self.writer();
        self.write(&mut writer);
        let path = self.dir.path().join("1.sst");
        let summary = writer.finish().expect("a table").persist(&path).expect("a named table");
        let expected = Expected {
            bytes: summary.bytes,
            database_id: DATABASE,
            keyspace: KeyspaceId(1),
            table: TableId(1),
            seqno_base: 0,
        };
        let table = TableReader::open(&*self.environment.files, &path, expected, ReadOptions::default());
        let table = table.expect("an open table");
        for (key, value) in &self.rows {
            let found = table.get_unfiltered(key, SeqNo::MAX).expect("a sound table").expect("the row is there");
            assert_eq!(&*found.value, value);
        }
        table
    }
}

/// An open log with room for what is counted, and its end.
pub struct OpenLog {
    /// The log.
    pub log: Log,
    /// Where the next record goes.
    pub tail: LogTail,
    /// Where it lies; gone with this.
    pub dir: TempDir,
}

impl OpenLog {
    /// A new log in one segment, its pages there.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let bytes = 4 << 20;
        let options = LogOptions {
            segment_bytes: bytes,
            segment_bytes_first: bytes,
            way: LogFileWay::Mapped,
            populate_bytes: bytes,
            recycled_max: 2,
        };
        let (log, tail) =
            Log::create(&Environment::real(), &dir.path().join("log"), DATABASE, options, SegmentId(1)).expect("a log");
        log.populate_ahead(tail.next_end());
        Self { log, tail, dir }
    }
}

/// The write pipeline over a log of its own.
pub struct Piped {
    /// The pipeline.
    pub pipeline: Pipeline<Log>,
    _dir: TempDir,
}

impl Piped {
    /// A pipeline over a new [`OpenLog`].
    pub fn new() -> Self {
        let OpenLog { log, tail, dir } = OpenLog::new();
        Self { pipeline: Pipeline::new(log, tail, SeqNo::ZERO, PipelineOptions::default()), _dir: dir }
    }

    /// Commits a record of 100 bytes and one sequence number, which nothing is applied for.
    #[inline]
    pub fn commit(&self, durability: Durability) -> SeqNo {
        let request = Request::new(Payload::new(RecordKind::Batch, &[0xA5; 100]), 1, durability);
        let in_order = |first, _| Ok::<_, Infallible>(first);
        let committed = self.pipeline.commit(&request, in_order, |first| {
            std::hint::black_box(first);
        });
        committed.expect("nothing is refused")
    }
}

impl Default for Piped {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for OpenLog {
    fn default() -> Self {
        Self::new()
    }
}

/// A merge of four sorted sources that hold [`ROWS`] entries between them, dealt in no order.
pub fn merge_of_four() -> MergeCursor<SliceCursor> {
    let mut sources = vec![Vec::new(); 4];
    for row in 0..ROWS {
        let key = u64::from(row).to_be_bytes();
        sources[(mix(u64::from(row)) % 4) as usize].push((key.to_vec(), put(1), vec![row as u8; VALUE_BYTES]));
    }
    MergeCursor::new(sources.into_iter().map(SliceCursor::new).collect())
}

/// A manifest of a thousand tables in one level, and edits that add one more each.
pub struct Edits {
    /// The manifest.
    pub store: ManifestStore,
    /// To be committed in this order.
    pub edits: Vec<Edit>,
    dir: TempDir,
}

impl Edits {
    /// `count` edits, none committed.
    pub fn new(count: u64) -> Self {
        const TABLES: u64 = 1000;
        let dir = tempfile::tempdir().expect("a directory can be made");
        let add = |ids: std::ops::RangeInclusive<u64>| Change::ReplaceTables {
            keyspace: KeyspaceId(1),
            removed: Vec::new(),
            flushed_seqno: SeqNo::new(*ids.end()),
            added: ids
                .map(|id| AddedTable { level: Level(6), run: Epoch(1), table: Arc::new(table_entry(id)) })
                .collect(),
        };
        let keyspace = Change::CreateKeyspace {
            id: KeyspaceId(1),
            name: "rows".to_owned(),
            options: Default::default(),
            created_seqno: SeqNo::ZERO,
        };
        let first = Edit::of(keyspace).and(add(1..=TABLES));
        let store = Self::create(dir.path(), &first);
        let edits = (TABLES + 1..=TABLES + count).map(|id| Edit::of(add(id..=id))).collect();
        Self { store, edits, dir }
    }

    /// Where the manifest lies.
    pub fn place(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    fn create(dir: &Path, first: &Edit) -> ManifestStore {
        ManifestStore::create(&Environment::real(), dir.join("db"), ManifestOptions::default(), first)
            .expect("a new manifest")
    }
}

/// Two tables, and where what is merged of them goes.
pub struct MergeJob {
    tables: [Table; 2],
    readers: [Arc<TableReader>; 2],
    dir: TempDir,
    next: Cell<u64>,
}

impl MergeJob {
    /// Two tables with `count` rows between them, dealt by turns.
    pub fn new(count: u32) -> Self {
        let tables = Table::halves(count);
        let readers = tables.each_ref().map(|table| Arc::new(table.open()));
        Self { tables, readers, dir: tempfile::tempdir().expect("a directory can be made"), next: Cell::new(1) }
    }

    /// Merges them into one table, as a compaction into the last level does, and syncs it.
    pub fn run(&self) -> Outputs {
        let next_table_id = || TableId(self.next.replace(self.next.get() + 1));
        let output = Output {
            files: &*self.tables[0].environment.files,
            dir: self.dir.path(),
            table_options: &TableOptions::default(),
            table_bytes_target: 64 << 20,
            bounds: &[],
            next_table_id: &next_table_id,
            database_id: DatabaseId(DATABASE),
            keyspace: KeyspaceId(1),
            level: Level(6),
            epoch: Epoch(1),
            job: JobId(1),
            inputs: &[TableId(1), TableId(2)],
            span: KeySpan::default(),
            newest_unix_ms: 0,
        };
        let (cancelled, progress) = (AtomicBool::new(false), Progress::default());
        let control = Control { cancel: Cancel::when(&cancelled), progress: &progress, before_write: &|_| {} };
        let merge = MergeCursor::new(self.readers.iter().map(TableReader::cursor_for_compaction).collect());
        // No reader but the newest, and nothing older elsewhere.
        let mut collector = Collector::new(SeqNo::MAX, &[], |_: &[u8]| false);
        let outputs = merge_into_tables(merge, &mut collector, &output, &control).expect("a merge of sound tables");
        let rows: usize = self.tables.iter().map(|table| table.rows.len()).sum();
        let written: u64 = outputs.tables.iter().map(|table| table.entries).sum();
        assert_eq!(written, rows as u64, "every row is in what was written");
        outputs
    }

    /// Removes what was written.
    pub fn remove(&self, outputs: &Outputs) {
        let tables = outputs.tables.iter().map(|table| table.id);
        remove_tables(&*self.tables[0].environment.files, self.dir.path(), tables).expect("files can be removed");
    }
}

#[derive(Debug)]
struct Nobody;

impl DroppedTables for Nobody {
    fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
}

/// A table of a version, and its place: what an edit adds.
pub fn version_table(level: Level, run: u64, id: u64) -> (AddedTable, Arc<version_history::Table<()>>) {
    let on_drop: Weak<dyn DroppedTables> = Weak::<Nobody>::new();
    let table = Arc::new(table_entry(id));
    let handle = version_history::Table::new(KeyspaceId(1), Arc::clone(&table), (), on_drop);
    (AddedTable { level, run: Epoch(run), table }, Arc::new(handle))
}

/// Two runs in level 0, and a thousand tables in one run of the last level.
pub fn version() -> Version<()> {
    let below = (1..=1000).map(|id| version_table(Level(6), 1, id));
    let above = (1001..=1002).map(|id| version_table(Level::ZERO, id, id));
    Version::default().replace(&[], &below.chain(above).collect::<Vec<_>>()).expect("nothing is removed")
}

/// A table of a manifest: `id` tells it and its range of keys apart.
pub fn table_entry(id: u64) -> TableEntry {
    let seqno = SeqNo::new(id).expect("a small number");
    TableEntry {
        id: TableId(id),
        bytes: 256 << 10,
        checksum: id,
        min_key: format!("key-{id:012}-a").into_bytes().into(),
        max_key: format!("key-{id:012}-z").into_bytes().into(),
        min_seqno: seqno,
        max_seqno: seqno,
        entries: 2000,
        tombstones: 0,
        logical_bytes: 512 << 10,
        epoch: Epoch(1),
        job: JobId(id),
        seqno_base: 0,
        newest_unix_ms: 0,
    }
}
