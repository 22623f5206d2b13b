//! What changes the set of tables: installing and reading versions, picking and carrying out a merge, edits.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compaction::pick::{LevelTargets, pick};
use compaction::{Busy, CompactionOptions, Demand, PickInput};
use counts::{Edits, MergeJob, ROWS, version, version_table};
use criterion::{BatchSize, Criterion, Throughput};
use file_system::Environment;
use internal_key::{KeyspaceId, Level, SeqNo, TableId};
use manifest::{ManifestOptions, ManifestStore, OpenMode};
use version_history::{Frontier, History, Retired, SnapshotRegistry, SuperVersion};

pub(crate) fn benches(c: &mut Criterion) {
    versions(c);
    compactions(c);
    edits(c);
}

fn versions(c: &mut Criterion) {
    let (version, retired) = (Arc::new(version()), Arc::new(Retired::new()));
    let history = History::new(SuperVersion::new(Arc::new("a memtable"), Arc::clone(&version)), Arc::clone(&retired));
    c.bench_function("version-history/load the super version", |b| b.iter(|| black_box(history.current().start())));
    let keys: Vec<Vec<u8>> = (1..=1000).map(|id| format!("key-{id:012}-k").into_bytes()).collect();
    let run = &version.runs(Level(6))[0];
    let mut at = 0;
    c.bench_function("version-history/find one table of 1000", |b| {
        b.iter(|| {
            at = (at + 617) % keys.len();
            run.find(black_box(&keys[at])).expect("a table covers it").id()
        });
    });
    let (registry, visible) = (Arc::new(SnapshotRegistry::default()), Frontier::new(SeqNo::ZERO));
    c.bench_function("version-history/register a snapshot and drop it", |b| {
        b.iter(|| black_box(registry.register(&visible).seqno()));
    });
    // The table goes and comes back, so that there are always as many.
    let replaced = [version_table(Level(6), 1, 500)];
    c.bench_function("version-history/replace one table of 1002, free the version before", |b| {
        b.iter(|| {
            let next = history.install(|current| current.replace_tables(&[(Level(6), TableId(500))], &replaced));
            drop(next.expect("the table is there"));
            assert_eq!(retired.collect(), 1);
        });
    });
    assert_eq!(history.current().version().tables().count(), 1002);
}

fn compactions(c: &mut Criterion) {
    let (version, busy, options) = (version(), Busy::new(), CompactionOptions::default());
    let input = PickInput {
        version: &version,
        busy: &busy,
        options: &options,
        oldest_sealed_epoch: None,
        demand: Demand::Steady,
        now_unix_ms: 0,
        reads: &[],
    };
    c.bench_function("compaction/pick among 1002 tables", |b| b.iter(|| pick(black_box(&input)).is_some()));
    c.bench_function("compaction/targets of 1002 tables", |b| {
        b.iter(|| LevelTargets::of(black_box(&version), &options).base);
    });
    let job = MergeJob::new(ROWS);
    let mut group = c.benchmark_group("compaction");
    group.throughput(Throughput::Elements(u64::from(ROWS))).sample_size(10);
    group.bench_function(format!("merge two tables of {} rows into one, synced", ROWS / 2), |b| {
        b.iter_custom(|jobs| {
            let mut took = Duration::ZERO;
            for _ in 0..jobs {
                let begun = Instant::now();
                let outputs = job.run();
                took += begun.elapsed();
                job.remove(&outputs);
            }
            took
        });
    });
    group.finish();
}

fn edits(c: &mut Criterion) {
    c.bench_function("manifest/edit of 1000 tables, synced", |b| {
        b.iter_batched_ref(
            || Edits::new(1),
            |edits| edits.store.commit(edits.edits[0].clone()).expect("an edit is committed"),
            BatchSize::PerIteration,
        );
    });
    let edits = Edits::new(0);
    let environment = Environment::real();
    c.bench_function("manifest/open 1000 tables", |b| {
        b.iter(|| {
            let options = ManifestOptions::default();
            let store = ManifestStore::open(&environment, edits.place(), OpenMode::ReadOnly, options);
            let manifest = store.expect("a sound manifest").current();
            assert!(manifest.keyspaces.contains_key(&KeyspaceId(1)));
        });
    });
}
