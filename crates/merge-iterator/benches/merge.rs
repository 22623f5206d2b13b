//! The price of a step: over one source and four, interleaved and in runs, with visibility and without.

use std::hint::black_box;
use std::ops::Bound;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use internal_key::{Cursor, Kind, SeqNo, Trailer};
use merge_iterator::{MergeCursor, SliceCursor, VisibleCursor};

const ENTRIES: u64 = 100_000;

/// `ENTRIES` keys dealt to `sources` in runs of `run`.
fn sources(sources: u64, run: u64) -> Vec<SliceCursor> {
    let mut dealt = vec![Vec::new(); sources as usize];
    for n in 0..ENTRIES {
        let mut key = n.wrapping_mul(1 << 40).to_be_bytes().to_vec();
        key.extend_from_slice(&n.to_be_bytes());
        let trailer = Trailer::new(SeqNo::new(n + 1).unwrap(), Kind::Put);
        // A cheap hash deals runs at random, as levels hold keys.
        let source = (n / run).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        dealt[(source % sources) as usize].push((key, trailer, vec![7; 100]));
    }
    dealt.into_iter().map(SliceCursor::new).collect()
}

/// One step forwards, around and around.
fn step<C: Cursor>(cursor: &mut C) -> usize
where
    C::Error: std::fmt::Debug,
{
    if !cursor.valid() {
        cursor.seek_to_first().unwrap();
    }
    let bytes = cursor.user_key().len() + cursor.value().unwrap().len();
    cursor.next().unwrap();
    bytes
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step");
    group.sample_size(20);
    let mut bare = sources(1, 1).remove(0);
    group.bench_function("bare-source", |bencher| bencher.iter(|| black_box(step(&mut bare))));
    for (count, run) in [(1, 1), (4, 1), (4, 100), (12, 1)] {
        let name = format!("{count}-sources-runs-of-{run}");
        let mut merge = MergeCursor::new(sources(count, run));
        group.bench_function(BenchmarkId::new("merge", &name), |bencher| bencher.iter(|| black_box(step(&mut merge))));
        let mut seen = VisibleCursor::new(merge, SeqNo::MAX, (Bound::Unbounded, Bound::Excluded(&[0xFF; 9])));
        group.bench_function(BenchmarkId::new("visible-next", &name), |bencher| {
            bencher.iter(|| {
                if !seen.valid() {
                    seen.seek_to_first().unwrap();
                }
                black_box(seen.user_key().len() + seen.value().unwrap().len());
                seen.next().unwrap();
            });
        });
        group.bench_function(BenchmarkId::new("visible-prev", &name), |bencher| {
            bencher.iter(|| {
                if !seen.valid() {
                    seen.seek_to_last().unwrap();
                }
                black_box(seen.user_key().len() + seen.value().unwrap().len());
                seen.prev().unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
