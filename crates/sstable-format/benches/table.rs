//! What reading and writing one table costs: 1M entries of 16 + 100 bytes, mapped, uncompressed unless the name says so.
//!
//! `cargo bench -p sstable-format`; `TABLE_BENCH_ENTRIES` sets another size.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use file_system::{Environment, FileSystem};
use internal_key::{Cursor, Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer};
use sstable_format::{
    Access, BlockCache, Compression, Expected, ReadOptions, TableIdentity, TableOptions, TableReader, TableWriter,
};
use test_support::Rng;
use xxhash_rust::xxh3::xxh3_64;

const DATABASE: u128 = 7;

fn entries() -> u64 {
    std::env::var("TABLE_BENCH_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

/// Sixteen bytes, spread as hashes are, ascending in `n`.
fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let spread = (u128::from(n) << 64) / u128::from(entries() + 1);
    key[..8].copy_from_slice(&(spread as u64).to_be_bytes());
    key[8..].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

/// Where a table lies, and what it is.
type Written = (PathBuf, Expected);

fn write(files: &dyn FileSystem, dir: &Path, entries: u64, options: TableOptions) -> Written {
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
    let mut writer = TableWriter::new(files, dir, identity, options).expect("a writer");
    let value = [0x5A; 100];
    for n in 0..entries {
        let trailer = Trailer::new(SeqNo::new(n + 1).expect("a seqno"), Kind::Put);
        writer.add(InternalKey::new(&key(n), trailer), &value).expect("an added entry");
    }
    let path = dir.join("1.sst");
    let summary = writer.finish().expect("a table").persist(&path).expect("a named table");
    let expected = Expected {
        bytes: summary.bytes,
        database_id: DATABASE,
        keyspace: KeyspaceId(1),
        table: TableId(1),
        seqno_base: 0,
    };
    (path, expected)
}

fn open(files: &dyn FileSystem, (path, expected): &Written, options: ReadOptions) -> Arc<TableReader> {
    Arc::new(TableReader::open(files, path, *expected, options).expect("an open table"))
}

fn benches(c: &mut Criterion) {
    let files = Environment::real().files;
    let dir = tempfile::tempdir().expect("a directory");
    let entries = entries();
    let written = write(&*files, dir.path(), entries, TableOptions::default());
    let mapped = ReadOptions { access: Access::Mapped, block_cache: None };
    let table = open(&*files, &written, mapped.clone());
    let mut rng = Rng::new(1);
    let now = SeqNo::MAX;

    c.bench_function("get/hit", |b| {
        b.iter_batched(
            || key(rng.below(entries)),
            |key| table.get(black_box(&key), xxh3_64(&key), now).map(|found| found.map(|f| f.value[0])),
            BatchSize::NumIterations(10_000),
        );
    });
    c.bench_function("get/hit at a seqno inside the blocks", |b| {
        let now = SeqNo::new(entries).expect("a seqno");
        b.iter_batched(
            || key(rng.below(entries)),
            |key| table.get(black_box(&key), xxh3_64(&key), now).map(|found| found.map(|f| f.value[0])),
            BatchSize::NumIterations(10_000),
        );
    });
    c.bench_function("get/miss by filter", |b| {
        b.iter_batched(
            || rng.next_u64().to_be_bytes(),
            |key| table.get(black_box(&key), xxh3_64(&key), now).map(|found| found.is_some()),
            BatchSize::NumIterations(10_000),
        );
    });
    c.bench_function("get/miss past the filter", |b| {
        b.iter_batched(
            || rng.next_u64().to_be_bytes(),
            |key| table.get_unfiltered(black_box(&key), now).map(|found| found.is_some()),
            BatchSize::NumIterations(10_000),
        );
    });
    c.bench_function("filter/hash and probe", |b| {
        b.iter_batched(
            || key(rng.below(entries)),
            |key| table.may_contain(xxh3_64(black_box(&key))),
            BatchSize::NumIterations(10_000),
        );
    });
    let mut scans = c.benchmark_group("scan");
    scans.throughput(Throughput::Elements(entries)).sample_size(10);
    scans.bench_function("forward, keys and values", |b| {
        let mut cursor = table.cursor();
        b.iter(|| {
            cursor.seek_to_first().expect("a sound table");
            let mut sum = 0_u64;
            while cursor.valid() {
                sum += u64::from(cursor.user_key()[15]) + u64::from(cursor.value().expect("a value")[0]);
                cursor.next().expect("a sound table");
            }
            sum
        });
    });
    scans.bench_function("backward, keys and values", |b| {
        let mut cursor = table.cursor();
        b.iter(|| {
            cursor.seek_to_last().expect("a sound table");
            let mut sum = 0_u64;
            while cursor.valid() {
                sum += u64::from(cursor.user_key()[15]) + u64::from(cursor.value().expect("a value")[0]);
                cursor.prev().expect("a sound table");
            }
            sum
        });
    });
    scans.finish();
    c.bench_function("seek", |b| {
        let mut cursor = table.cursor();
        b.iter_batched(
            || key(rng.below(entries)),
            |key| cursor.seek(InternalKey::seek(black_box(&key), now)),
            BatchSize::NumIterations(10_000),
        );
    });
    let mut writes = c.benchmark_group("write and sync");
    writes.throughput(Throughput::Elements(entries / 10)).sample_size(10);
    for compression in [Compression::None, Compression::Lz4] {
        writes.bench_function(format!("{compression:?}"), |b| {
            let dir = tempfile::tempdir().expect("a directory");
            let options = TableOptions { compression, ..TableOptions::default() };
            b.iter(|| write(&*files, dir.path(), entries / 10, options.clone()));
        });
    }
    writes.finish();
    for (access, name) in [(Access::Mapped, "mapped"), (Access::Pread, "pread")] {
        let options = ReadOptions { access, block_cache: None };
        c.bench_function(&format!("open, {name}"), |b| b.iter(|| open(&*files, &written, options.clone()).bytes()));
    }
    through_the_cache(c, &*files, entries / 10);
}

/// Gets of blocks that cannot be read in place: all of them in the block cache, and none, so that each is read and decoded.
fn through_the_cache(c: &mut Criterion, files: &dyn FileSystem, entries: u64) {
    let mut rng = Rng::new(2);
    for (access, compression, name) in [
        (Access::Pread, Compression::None, "pread, None"),
        (Access::Pread, Compression::Lz4, "pread, Lz4"),
        (Access::Mapped, Compression::Lz4, "mapped, Lz4"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let written = write(files, dir.path(), entries, TableOptions { compression, ..TableOptions::default() });
        let cache = Arc::new(BlockCache::new(256 << 20));
        let cached = open(files, &written, ReadOptions { access, block_cache: Some(Arc::clone(&cache)) });
        let uncached = open(files, &written, ReadOptions { access, block_cache: None });
        let get = |table: &TableReader, key: [u8; 16]| {
            let found = table.get(black_box(&key), xxh3_64(&key), SeqNo::MAX).expect("a sound table");
            assert_eq!(found.expect("the entry is there").value[0], 0x5A);
        };
        (0..entries).for_each(|n| get(&cached, key(n)));
        assert_eq!(cache.blocks() as u64, cached.data_blocks(), "all of it is in the cache");
        for (table, place) in [(&cached, "in the block cache"), (&uncached, "without a cache")] {
            c.bench_function(&format!("get/{place}, {name}"), |b| {
                b.iter_batched(|| key(rng.below(entries)), |key| get(table, key), BatchSize::NumIterations(10_000));
            });
        }
    }
}

criterion_group!(table, benches);
criterion_main!(table);
