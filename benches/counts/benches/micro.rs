//! What the public hot paths of the layers cost in time, beside those that have benchmarks of their own.
//!
//! `cargo bench -p counts --bench micro`. Memtable, table and merge: `cargo bench -p skiplist-memtable`,
//! `-p sstable-format`, `-p merge-iterator`. The whole: `cargo bench -p benches`.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Arc, Weak};

use commit_pipeline::{Durability, Pipeline, PipelineOptions, Request};
use compaction::pick::{LevelTargets, pick};
use compaction::{Busy, CompactionOptions, Demand, PickInput};
use counts::{Edits, OpenLog, Stage, table_entry};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use internal_key::{Epoch, InternalKey, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer, key_head};
use version_history::{DroppedTables, Frontier, History, Retired, SnapshotRegistry, SuperVersion, Table, Version};
use write_ahead_log::{Payload, RecordKind};

/// Records of 140 bytes that fit into the segment of [`OpenLog`], with room to spare.
const RECORDS: u64 = 20_000;

fn internal_key(c: &mut Criterion) {
    let trailer = |seqno| Trailer::new(SeqNo::new(seqno).expect("a small number"), Kind::Put);
    let (left, right) = (b"user00000000000000000001", b"user00000000000000000002");
    let (left, right) = (InternalKey::new(left, trailer(7)), InternalKey::new(right, trailer(9)));
    c.bench_function("internal-key/compare", |b| b.iter(|| black_box(left).cmp(&black_box(right))));
    c.bench_function("internal-key/head", |b| b.iter(|| key_head(black_box(left.user_key))));
}

fn log(c: &mut Criterion) {
    let bytes = [0xA5; 100];
    let seqno = |number| SeqNo::new(number).expect("a small number");
    c.bench_function("write-ahead-log/append", |b| {
        b.iter_custom(|appends| {
            let mut took = std::time::Duration::ZERO;
            let mut left = appends;
            while left > 0 {
                // A segment at a time, each new: its making is not measured.
                let mut open = OpenLog::new();
                let now = left.min(RECORDS);
                let begun = std::time::Instant::now();
                for number in 1..=now {
                    let payload = Payload::new(RecordKind::Batch, &bytes);
                    let range = open.log.reserve(&open.tail, bytes.len(), seqno(number)).expect("the segment has room");
                    open.tail.accept(&range);
                    open.log.append(&range, &payload).expect("a store into a map");
                }
                took += begun.elapsed();
                left -= now;
            }
            took
        });
    });
    c.bench_function("commit-pipeline/commit", |b| {
        b.iter_custom(|commits| {
            let mut took = std::time::Duration::ZERO;
            let mut left = commits;
            while left > 0 {
                let OpenLog { log, tail, dir: _dir } = OpenLog::new();
                let pipeline = Pipeline::new(log, tail, SeqNo::ZERO, PipelineOptions::default());
                let now = left.min(RECORDS);
                let begun = std::time::Instant::now();
                for _ in 0..now {
                    let request = Request::new(Payload::new(RecordKind::Batch, &bytes), 1, Durability::Buffered);
                    let committed = pipeline.commit(
                        &request,
                        |first, _| Ok::<_, Infallible>(first),
                        |first| {
                            black_box(first);
                        },
                    );
                    committed.expect("nothing is refused");
                }
                took += begun.elapsed();
                left -= now;
            }
            took
        });
    });
}

#[derive(Debug)]
struct Nobody;

impl DroppedTables for Nobody {
    fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
}

/// Two runs in level 0, and a thousand tables in the last level.
fn version() -> Version<()> {
    let on_drop: Weak<dyn DroppedTables> = Weak::<Nobody>::new();
    let table = |id| Arc::new(Table::new(KeyspaceId(1), Arc::new(table_entry(id)), (), on_drop.clone()));
    let place = |level, run, id| manifest::AddedTable { level, run: Epoch(run), table: Arc::new(table_entry(id)) };
    let below = (1..=1000).map(|id| (place(Level(6), 1, id), table(id)));
    let above = (1001..=1002).map(|id| (place(Level::ZERO, id, id), table(id)));
    Version::default().replace(&[], &below.chain(above).collect::<Vec<_>>()).expect("nothing is removed")
}

fn versions(c: &mut Criterion) {
    let version = Arc::new(version());
    let history =
        History::new(SuperVersion::new(Arc::new("a memtable"), Arc::clone(&version)), Arc::new(Retired::new()));
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
    let (busy, options) = (Busy::new(), CompactionOptions::default());
    let input = PickInput {
        version: &*version,
        busy: &busy,
        options: &options,
        oldest_sealed_epoch: None,
        demand: Demand::Steady,
        now_unix_ms: 0,
        reads: &[],
    };
    c.bench_function("compaction/pick among 1002 tables", |b| b.iter(|| pick(black_box(&input)).is_some()));
    c.bench_function("compaction/targets of 1002 tables", |b| {
        b.iter(|| LevelTargets::of(black_box(&*version), &options).base);
    });
}

fn manifest_edits(c: &mut Criterion) {
    c.bench_function("manifest/edit of 1000 tables, synced", |b| {
        b.iter_batched_ref(
            || Edits::new(1),
            |edits| edits.store.commit(edits.edits[0].clone()).expect("an edit is committed"),
            BatchSize::PerIteration,
        );
    });
}

fn facade(c: &mut Criterion) {
    let stage = Stage::hits(10_000);
    let mut asked = stage.asked.iter().cycle();
    c.bench_function("lsm-facade/get", |b| {
        b.iter(|| {
            let (key, value) = asked.next().expect("it goes around");
            let found = stage.keyspace.get(key).expect("a get succeeds").expect("the row is there");
            assert!(found == value.as_slice());
        });
    });
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
}

criterion_group!(micro, internal_key, log, versions, manifest_edits, facade);
criterion_main!(micro);
