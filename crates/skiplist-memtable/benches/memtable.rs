//! Insert, get and iterate at several sizes: 16-byte random keys, 100-byte values, one thread unless the name says so.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use internal_key::{Cursor, Kind, SeqNo, Trailer};
use skiplist_memtable::{Memtable, MemtableOptions, Reservation, key_hash};

const SIZES: [u64; 4] = [10_000, 25_000, 100_000, 400_000];

/// The `n`th key: 16 bytes that look random and never repeat.
fn key(n: u64) -> [u8; 16] {
    // A bijection on 64 bits (the finaliser of SplitMix64), then its continuation.
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let first = mix(n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut key = [0; 16];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&mix(first).to_be_bytes());
    key
}

fn insert(memtable: &Memtable, n: u64) {
    let seqno = SeqNo::new(n + 1).unwrap();
    let mut range = memtable.reserve(Reservation {
        bytes: Memtable::entry_bytes(16, 100),
        entries: 1,
        first_seqno: seqno,
        last_seqno: seqno,
    });
    memtable.insert(&mut range, &key(n), Trailer::new(seqno, Kind::Put), &[7; 100]);
}

fn filled(entries: u64) -> Arc<Memtable> {
    let memtable = Arc::new(Memtable::new(&MemtableOptions::default()));
    (0..entries).for_each(|n| insert(&memtable, n));
    memtable
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert-all");
    group.sample_size(10);
    for size in SIZES {
        group.throughput(Throughput::Elements(size));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(|| (), |()| filled(size), BatchSize::PerIteration);
        });
    }
    for threads in [2, 4] {
        group.throughput(Throughput::Elements(100_000));
        group.bench_function(BenchmarkId::new("parallel", threads), |bencher| {
            bencher.iter_custom(|iterations| (0..iterations).map(|_| insert_in_parallel(threads)).sum());
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("read");
    group.sample_size(20);
    for size in SIZES {
        let memtable = filled(size);
        let newest = SeqNo::MAX;
        let mut n = 0;
        group.bench_function(BenchmarkId::new("get", size), |bencher| {
            bencher.iter(|| {
                n = (n + 7919) % size;
                let key = key(n);
                black_box(memtable.get(&key, key_hash(&key), newest)).is_some()
            });
        });
        group.bench_function(BenchmarkId::new("get-absent", size), |bencher| {
            bencher.iter(|| {
                n += 1;
                let key = key(n | 1 << 40);
                black_box(memtable.get(&key, key_hash(&key), newest)).is_some()
            });
        });
        for (name, forward) in [("next", true), ("prev", false)] {
            let mut cursor = memtable.cursor();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    if !cursor.valid() {
                        if forward { cursor.seek_to_first() } else { cursor.seek_to_last() }.unwrap();
                    }
                    black_box((cursor.user_key().len(), cursor.value().unwrap().first().copied()));
                    if forward { cursor.next() } else { cursor.prev() }.unwrap();
                });
            });
        }
    }
    group.finish();
}

/// 100,000 inserts by `threads` threads, in batches of 8; a mutex stands for the reservation lock.
fn insert_in_parallel(threads: u64) -> Duration {
    let memtable = Memtable::new(&MemtableOptions::default());
    let next = std::sync::Mutex::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..100_000 / threads / 8 {
                    let (first, mut range) = {
                        let mut next = next.lock().unwrap();
                        let first = *next;
                        *next += 8;
                        let reservation = Reservation {
                            bytes: 8 * Memtable::entry_bytes(16, 100),
                            entries: 8,
                            first_seqno: SeqNo::new(first + 1).unwrap(),
                            last_seqno: SeqNo::new(first + 8).unwrap(),
                        };
                        (first, memtable.reserve(reservation))
                    };
                    for n in first..first + 8 {
                        let trailer = Trailer::new(SeqNo::new(n + 1).unwrap(), Kind::Put);
                        memtable.insert(&mut range, &key(n), trailer, &[7; 100]);
                    }
                }
            });
        }
    });
    start.elapsed()
}

criterion_group!(all, benches);
criterion_main!(all);
