//! A whole database: 20,000 rows of 16 + 100 bytes, all in tables for the reads, all in the memtable for the writes.

use std::hint::black_box;

use counts::Stage;
use criterion::{Criterion, Throughput};
use lsm_facade::{Durability, Slice};

use crate::in_rounds;

/// Rows that are asked for, or written to one database.
const ASKED: u32 = 10_000;

/// Rows of a batch.
const BATCH: usize = 100;

pub(crate) fn benches(c: &mut Criterion) {
    gets(c);
    steps(c);
    writes(c);
}

fn gets(c: &mut Criterion) {
    let stage = Stage::hits(ASKED);
    let mut asked = stage.asked.iter().cycle();
    let mut next = || asked.next().expect("it goes around");
    let is_it = |found: Option<Slice>, value: &[u8]| assert!(found.expect("the row is there") == value);
    c.bench_function("lsm-facade/get", |b| {
        b.iter(|| {
            let (key, value) = next();
            is_it(stage.keyspace.get(key).expect("a get succeeds"), value);
        });
    });
    let snapshot = stage.database.snapshot().expect("an open database");
    c.bench_function("lsm-facade/get from a snapshot", |b| {
        b.iter(|| {
            let (key, value) = next();
            is_it(snapshot.get(&stage.keyspace, key).expect("a get succeeds"), value);
        });
    });
    c.bench_function("lsm-facade/take a snapshot and drop it", |b| {
        b.iter(|| black_box(stage.database.snapshot().expect("an open database").seqno()));
    });
    let stage = Stage::misses(ASKED);
    let mut asked = stage.asked.iter().cycle();
    c.bench_function("lsm-facade/get of a missing key", |b| {
        b.iter(|| {
            let (key, _) = asked.next().expect("it goes around");
            assert!(stage.keyspace.get(key).expect("a get succeeds").is_none());
        });
    });
}

fn steps(c: &mut Criterion) {
    let stage = Stage::hits(ASKED);
    let mut cursor = stage.keyspace.cursor();
    cursor.seek_to_first().expect("a row is read");
    c.bench_function("lsm-facade/step of a cursor", |b| {
        b.iter(|| {
            if cursor.key().is_none() {
                cursor.seek_to_first().expect("a row is read");
            }
            cursor.next().expect("a row is read");
        });
    });
    let mut rows = stage.keyspace.iter();
    c.bench_function("lsm-facade/step of an iterator", |b| {
        b.iter(|| {
            if let Some(row) = rows.next() {
                black_box(row.expect("a row is read"));
            } else {
                rows = stage.keyspace.iter();
            }
        });
    });
    let mut asked = stage.asked.iter().cycle();
    let mut next = || asked.next().expect("it goes around");
    c.bench_function("lsm-facade/seek of a cursor", |b| {
        b.iter(|| {
            let (key, _) = next();
            cursor.seek(key).expect("a row is read");
            assert!(cursor.key() == Some(key));
        });
    });
    c.bench_function("lsm-facade/range of 10 rows", |b| {
        b.iter(|| {
            let (key, value) = next();
            let mut rows = stage.keyspace.range(*key..).take(10).map(|row| row.expect("a row is read"));
            assert!(rows.next().expect("the row is there").1 == value.as_slice());
            rows.count()
        });
    });
}

fn writes(c: &mut Criterion) {
    c.bench_function("lsm-facade/insert", |b| {
        b.iter_custom(|inserts| {
            in_rounds(
                inserts,
                u64::from(ASKED),
                || Stage::inserts(ASKED),
                |stage, now| {
                    for (key, value) in &stage.asked[..now as usize] {
                        stage.keyspace.insert(key, value).expect("an insert succeeds");
                    }
                },
            )
        });
    });
    let mut group = c.benchmark_group("lsm-facade");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function(format!("make and write a batch of {BATCH} rows"), |b| {
        b.iter_custom(|batches| {
            in_rounds(
                batches,
                u64::from(ASKED) / BATCH as u64,
                || Stage::inserts(ASKED),
                |stage, now| {
                    for rows in stage.asked.chunks(BATCH).take(now as usize) {
                        let mut batch = stage.database.batch();
                        for (key, value) in rows {
                            batch.insert(&stage.keyspace, key, value).expect("a short row");
                        }
                        stage.database.write(&batch).expect("a write succeeds");
                    }
                },
            )
        });
    });
    group.finish();
    let once = Stage::inserts(1);
    let (synced, (key, value)) = (once.keyspace.with_durability(Durability::Synced), once.asked[0]);
    c.bench_function("lsm-facade/insert, synced", |b| {
        b.iter(|| synced.insert(key, value).expect("an insert succeeds"));
    });
}
