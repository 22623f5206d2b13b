//! What several tests share: writing a table of given entries, and options drawn at random.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::{Environment, FileSystem};
use internal_key::{Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, OwnedInternalKey, SeqNo, TableId, Trailer};
use sstable_format::{
    Access, BlockCache, Compression, Expected, PendingTable, ReadOptions, TableError, TableIdentity, TableOptions,
    TableReader, TableSummary, TableWriter,
};
use test_support::Rng;

/// An internal key and its value.
pub(crate) type Row = (OwnedInternalKey, Vec<u8>);

pub(crate) const DATABASE: u128 = 0x0123_4567_89ab_cdef_0011_2233_4455_6677;

pub(crate) fn identity(table: u64) -> TableIdentity {
    TableIdentity {
        database_id: DATABASE,
        keyspace: KeyspaceId(3),
        table: TableId(table),
        level: Level(1),
        epoch: Epoch(12),
        job: JobId(9),
        inputs: vec![TableId(4), TableId(5)],
        output_index: 1,
        output_count: 2,
    }
}

pub(crate) fn row(key: &[u8], seqno: u64, kind: Kind, value: &[u8]) -> Row {
    let trailer = Trailer::new(SeqNo::new(seqno).expect("a small number"), kind);
    (InternalKey::new(key, trailer).to_owned(), value.to_vec())
}

/// A directory with tables in it.
pub(crate) struct Tables {
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) dir: tempfile::TempDir,
    next: u64,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Self { files: Environment::real().files, dir: tempfile::tempdir().expect("a directory"), next: 1 }
    }

    pub(crate) fn path(&self, table: u64) -> PathBuf {
        self.dir.path().join(format!("{table}.sst"))
    }

    pub(crate) fn pending(&self, table: u64, rows: &[Row], options: TableOptions) -> PendingTable {
        let mut writer = TableWriter::new(&*self.files, self.dir.path(), identity(table), options).expect("a writer");
        for (key, value) in rows {
            writer.add(key.borrow(), value).expect("an added row");
        }
        writer.finish().expect("a finished table")
    }

    /// Writes `rows` and returns the table's number and summary.
    pub(crate) fn write(&mut self, rows: &[Row], options: TableOptions) -> (u64, TableSummary) {
        let table = self.next;
        self.next += 1;
        let summary = self.pending(table, rows, options).persist(&self.path(table)).expect("a named table");
        (table, summary)
    }

    pub(crate) fn expected(table: u64, bytes: u64, seqno_base: u64) -> Expected {
        Expected { bytes, database_id: DATABASE, keyspace: KeyspaceId(3), table: TableId(table), seqno_base }
    }

    pub(crate) fn open(&self, table: u64, base: u64, options: ReadOptions) -> Result<Arc<TableReader>, TableError> {
        self.open_at(&self.path(table), table, base, options)
    }

    pub(crate) fn open_at(
        &self,
        path: &Path,
        table: u64,
        base: u64,
        options: ReadOptions,
    ) -> Result<Arc<TableReader>, TableError> {
        let bytes = self.files.file_len(path)?;
        TableReader::open(&*self.files, path, Self::expected(table, bytes, base), options).map(Arc::new)
    }
}

/// Every way of reading.
pub(crate) fn ways_of_reading() -> Vec<ReadOptions> {
    let cache = || Some(Arc::new(BlockCache::new(1 << 20)));
    vec![
        ReadOptions { access: Access::Mapped, block_cache: None },
        ReadOptions { access: Access::Mapped, block_cache: cache() },
        ReadOptions { access: Access::Pread, block_cache: None },
        ReadOptions { access: Access::Pread, block_cache: cache() },
    ]
}

pub(crate) fn random_options(rng: &mut Rng) -> TableOptions {
    TableOptions {
        block_bytes: *rng.pick(&[256, 300, 1024, 4096, 16384]),
        compression: *rng.pick(&[Compression::None, Compression::Lz4]),
        filter_bits_per_key: *rng.pick(&[0, 1, 6, 10, 10, 20]),
        index_partition_bytes: *rng.pick(&[0, 1024, 2048, 128 << 10]),
        large_value_bytes: *rng.pick(&[0, 1, 100, 1000, 64 << 10]),
        merge_operator: rng.one_in(4).then(|| "sum".to_owned()),
        prefix_extractor: rng.one_in(4).then(|| "first 4".to_owned()),
        // Verifying counts them again.
        notes_superseded: true,
    }
}

/// A key of a shape that one of `shapes` gives: short alphabets make shared prefixes, zero bytes make equal heads.
fn random_key(rng: &mut Rng, shape: usize) -> Vec<u8> {
    match shape {
        0 => (0..rng.index(4)).map(|_| *rng.pick(b"ab\0")).collect(),
        1 => (0..rng.index(20)).map(|_| *rng.pick(b"\0\0\0\xff")).collect(),
        2 => {
            let bytes = rng.index(24);
            rng.bytes(bytes)
        }
        3 => format!("user/{:04}/name/{:08}", rng.below(10), rng.below(1000)).into_bytes(),
        4 => format!("{:016}", rng.below(100_000)).into_bytes(),
        _ => [vec![b'p'; rng.index(300)], vec![*rng.pick(b"xyz")]].concat(),
    }
}

/// Sorted rows with distinct internal keys; some keys have many versions.
pub(crate) fn random_rows(rng: &mut Rng, count: usize) -> Vec<Row> {
    let shape = rng.index(6);
    let equal_values = rng.one_in(3);
    let mut rows = Vec::new();
    while rows.len() < count {
        let key = random_key(rng, shape);
        let versions = if rng.one_in(10) { 1 + rng.index(60) } else { 1 };
        for _ in 0..versions {
            let kind = *rng.pick(&[Kind::Put, Kind::Put, Kind::Put, Kind::Delete, Kind::SingleDelete, Kind::Merge]);
            let bytes = match kind {
                Kind::Delete | Kind::SingleDelete => 0,
                _ if equal_values => 20,
                _ if rng.one_in(40) => rng.index(3000),
                _ => rng.index(40),
            };
            let value = if rng.one_in(2) { rng.bytes(bytes) } else { vec![b'v'; bytes] };
            rows.push(row(&key, 1 + rng.below(1000), kind, &value));
        }
    }
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    rows.dedup_by(|left, right| left.0 == right.0);
    rows
}
