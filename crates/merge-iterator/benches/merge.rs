//! The price of a step: over one source and four, interleaved and in runs, with visibility and without.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Bound;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use internal_key::{Cursor, InternalKey, Kind, SeqNo, Trailer};
use merge_iterator::{MergeCursor, VisibleCursor};

/// 116 bytes each: what lies in a few megabytes of table, in the second-level cache and the third.
const ENTRIES: u64 = 20_000;

/// A source that costs next to nothing: entries one after another, as a block holds them.
#[derive(Default)]
struct Rows {
    heads: Vec<u64>,
    keys: Vec<[u8; 16]>,
    values: Vec<[u8; 100]>,
    at: usize,
}

impl Rows {
    fn stand(&mut self, at: usize) -> Result<(), Infallible> {
        self.at = at;
        Ok(())
    }

    fn below(&self, target: InternalKey<'_>) -> usize {
        self.keys.partition_point(|key| InternalKey::new(key, TRAILER) < target)
    }
}

const TRAILER: Trailer = Trailer::new(SeqNo::ZERO, Kind::Put);

impl Cursor for Rows {
    type Error = Infallible;

    fn valid(&self) -> bool {
        self.at < self.keys.len()
    }

    fn user_key(&self) -> &[u8] {
        &self.keys[self.at]
    }

    fn trailer(&self) -> Trailer {
        TRAILER
    }

    fn head(&self) -> u64 {
        self.heads[self.at]
    }

    fn value(&mut self) -> Result<&[u8], Infallible> {
        Ok(&self.values[self.at])
    }

    fn seek_to_first(&mut self) -> Result<(), Infallible> {
        self.stand(0)
    }

    fn seek_to_last(&mut self) -> Result<(), Infallible> {
        self.stand(self.keys.len().wrapping_sub(1))
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.stand(self.below(target))
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.stand(self.below(target).wrapping_sub(1))
    }

    fn next(&mut self) -> Result<(), Infallible> {
        self.stand(self.at.saturating_add(1))
    }

    fn prev(&mut self) -> Result<(), Infallible> {
        self.stand(self.at.wrapping_sub(1))
    }
}

/// `ENTRIES` keys dealt to `sources` in runs of `run`.
fn sources(sources: u64, run: u64) -> Vec<Rows> {
    let mut dealt: Vec<Rows> = (0..sources).map(|_| Rows::default()).collect();
    for n in 0..ENTRIES {
        // A cheap hash deals runs at random, as levels hold keys.
        let source = ((n / run).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33) % sources;
        let rows = &mut dealt[source as usize];
        let head = n << 40;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&head.to_be_bytes());
        rows.heads.push(head);
        rows.keys.push(key);
        rows.values.push([n as u8; 100]);
    }
    dealt
}

/// Reads a little, as a caller would.
fn touch(bytes: &[u8]) -> u64 {
    u64::from(bytes[0]) + bytes.len() as u64
}

/// One step forwards, around and around.
fn step<C: Cursor>(cursor: &mut C) -> u64
where
    C::Error: std::fmt::Debug,
{
    if !cursor.valid() {
        cursor.seek_to_first().unwrap();
    }
    let bytes = touch(cursor.user_key()) + touch(cursor.value().unwrap());
    cursor.next().unwrap();
    bytes
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group.sample_size(20);
    let mut bare = sources(1, 1).remove(0);
    let Ok(()) = bare.seek_to_first();
    group.bench_function("bare-source", |bencher| bencher.iter(|| black_box(step(&mut bare))));
    for (count, run) in [(1, 1), (4, 1), (4, 100), (12, 1)] {
        let name = format!("{count}-sources-runs-of-{run}");
        let mut merge = MergeCursor::new(sources(count, run));
        group.bench_function(BenchmarkId::new("merge", &name), |bencher| bencher.iter(|| black_box(step(&mut merge))));
        let mut n = 0;
        group.bench_function(BenchmarkId::new("merge-seek", &name), |bencher| {
            bencher.iter(|| {
                n = (n + 7919) % ENTRIES;
                let head = n << 40;
                merge.seek(InternalKey::seek(&head.to_be_bytes(), SeqNo::MAX)).unwrap();
                assert_eq!(merge.head(), head);
            });
        });
        let mut seen = VisibleCursor::new(merge, SeqNo::MAX, (Bound::Unbounded, Bound::Excluded(&[0xFF; 9])));
        group.bench_function(BenchmarkId::new("visible-next", &name), |bencher| {
            bencher.iter(|| {
                if !seen.valid() {
                    seen.seek_to_first().unwrap();
                }
                black_box(touch(seen.user_key()) + touch(seen.value().unwrap()));
                seen.next().unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("visible-prev", &name), |bencher| {
            bencher.iter(|| {
                if !seen.valid() {
                    seen.seek_to_last().unwrap();
                }
                black_box(touch(seen.user_key()) + touch(seen.value().unwrap()));
                seen.prev().unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
