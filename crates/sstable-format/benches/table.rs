//! What reading and writing one table costs: 1M entries of 16 + 100 bytes, mapped, uncompressed.
//!
//! `cargo bench -p sstable-format`; `TABLE_BENCH_ENTRIES` sets another size.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use file_system::{Environment, FileSystem};
use internal_key::{Cursor, Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer};
use sstable_format::{
    Access, Compression, Expected, ReadOptions, TableIdentity, TableOptions, TableReader, TableWriter,
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

fn write(files: &dyn FileSystem, dir: &Path, entries: u64, options: TableOptions) -> Arc<TableReader> {
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
    let options = ReadOptions { access: Access::Mapped, block_cache: None };
    Arc::new(TableReader::open(files, &path, expected, options).expect("an open table"))
}

fn benches(c: &mut Criterion) {
    let files = Environment::real().files;
    let dir = tempfile::tempdir().expect("a directory");
    let entries = entries();
    let table = write(&*files, dir.path(), entries, TableOptions::default());
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
}

criterion_group!(table, benches);
criterion_main!(table);
