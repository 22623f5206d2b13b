//! What the public hot paths of the layers cost in time, beside those that have benchmarks of their own.
//!
//! ```text
//!   small      internal-key, memory-budget, lock-meter: a few instructions each
//!   files      file-system: stores, syncs, maps
//!   log        write-ahead-log, commit-pipeline: records into one log, by one thread and several
//!   versions   version-history, compaction, manifest: what changes the set of tables
//!   facade     lsm-facade: reads and writes of a whole database
//! ```
//!
//! `cargo bench -p counts --bench micro`, with a part of a name behind `--` for less than all. Memtable, table and merge:
//! `cargo bench -p skiplist-memtable`, `-p sstable-format`, `-p merge-iterator`. The whole: `cargo bench -p benches`.

mod facade;
mod files;
mod log;
mod small;
mod versions;

use std::time::{Duration, Instant};

use criterion::{criterion_group, criterion_main};

/// What so many operations take, at most `most` on one subject: the making of each is not measured, nor its end.
fn in_rounds<T>(operations: u64, most: u64, mut make: impl FnMut() -> T, mut run: impl FnMut(&mut T, u64)) -> Duration {
    let (mut took, mut left) = (Duration::ZERO, operations);
    while left > 0 {
        let (mut subject, now) = (make(), left.min(most));
        let begun = Instant::now();
        run(&mut subject, now);
        took += begun.elapsed();
        left -= now;
    }
    took
}

criterion_group!(micro, small::benches, files::benches, log::benches, versions::benches, facade::benches);
criterion_main!(micro);
