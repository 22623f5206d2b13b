//! Counts instructions: one function a path, single thread, under callgrind.
//!
//! `cargo xtask bench --ci` installs the runner, runs this and compares with `baseline.json`. The name of each
//! benchmark says how many operations one run makes (`per_1000`), so that a report can say what one costs.

#![expect(missing_docs, reason = "the macros make public items that nobody else sees")]

use std::hint::black_box;
use std::sync::Arc;

use commit_pipeline::Durability;
use compaction::Outputs;
use counts::{Edits, Filled, MergeJob, OpenLog, Piped, ROWS, Stage, Table, version, version_table};
use file_system::{Environment, LogFile, LogFileWay};
use gungraun::prelude::*;
use internal_key::{Cursor, Level, SeqNo, TableId};
use memory_budget::MemoryBudget;
use merge_iterator::{MergeCursor, SliceCursor};
use skiplist_memtable::key_hash;
use sstable_format::{PendingTable, TableReader, TableWriter};
use tempfile::TempDir;
use version_history::{History, Retired, SuperVersion};
use write_ahead_log::{Payload, RecordKind};

// A get of a key that is there: settled, all in tables, warm.
#[library_benchmark]
#[bench::per_1000(Stage::hits(1000))]
fn get_hit(mut stage: Stage) -> Stage {
    for (key, _) in &stage.asked {
        stage.bytes += black_box(stage.keyspace.get(key).expect("a get succeeds").expect("the row is there")).len();
    }
    stage
}

// A get of a key that nobody wrote, among those that are there.
#[library_benchmark]
#[bench::per_1000(Stage::misses(1000))]
fn get_miss(stage: Stage) -> Stage {
    for (key, _) in &stage.asked {
        assert!(black_box(stage.keyspace.get(key).expect("a get succeeds")).is_none());
    }
    stage
}

// An insert, not synced, into a database whose active memtable holds 20,000 rows.
#[library_benchmark]
#[bench::per_1000(Stage::inserts(1000))]
fn insert(stage: Stage) -> Stage {
    for (key, value) in &stage.asked {
        stage.keyspace.insert(key, value).expect("an insert succeeds");
    }
    stage
}

// A step of an iterator, which hands rows out; its making is counted too.
#[library_benchmark]
#[bench::per_10000(Stage::hits(0))]
fn iterator_next(mut stage: Stage) -> Stage {
    for row in stage.keyspace.iter().take(10_000) {
        let (key, value) = row.expect("a row is read");
        stage.bytes += key.len() + value.len();
    }
    stage
}

// A step of a cursor, which shows rows where they lie; its making is counted too.
#[library_benchmark]
#[bench::per_10000(Stage::hits(0))]
fn cursor_next(mut stage: Stage) -> Stage {
    let mut cursor = stage.keyspace.cursor();
    cursor.seek_to_first().expect("a row is read");
    for _ in 0..10_000 {
        stage.bytes += cursor.key().map_or(0, <[u8]>::len);
        stage.bytes += cursor.value().expect("a value is read").map_or(0, <[u8]>::len);
        cursor.next().expect("a row is read");
    }
    stage
}

// A get from a memtable of 20,000 entries.
#[library_benchmark]
#[bench::per_1000(Filled::hits(1000))]
fn memtable_get(filled: Filled) -> Filled {
    for (key, _) in &filled.asked {
        let found = filled.memtable.get(key, key_hash(key), SeqNo::MAX);
        assert!(black_box(found).is_some());
    }
    filled
}

// A reservation in a memtable of 20,000 entries, and the insert.
#[library_benchmark]
#[bench::per_1000(Filled::inserts(1000))]
fn memtable_insert(filled: Filled) -> Filled {
    for ((key, value), number) in filled.asked.iter().zip(ROWS..) {
        filled.insert(number, key, value);
    }
    filled
}

fn table_of_one_block() -> (Table, TableReader) {
    let table = Table::unwritten(30);
    let reader = table.open();
    assert_eq!(reader.data_blocks(), 1, "a table of one block");
    (table, reader)
}

// A search in one block: a get, past the filter, from a table of 30 rows.
#[library_benchmark]
#[bench::per_990(table_of_one_block())]
fn block_search((table, reader): (Table, TableReader)) -> (Table, TableReader) {
    for _ in 0..33 {
        for (key, _) in &table.rows {
            let found = reader.get_unfiltered(key, SeqNo::MAX).expect("a sound table");
            assert!(black_box(found).is_some());
        }
    }
    (table, reader)
}

fn table_and_hashes() -> (Table, TableReader, Vec<u64>) {
    let table = Table::unwritten(ROWS);
    let reader = table.open();
    // Of each two, one is there.
    let hashes = table.rows.iter().take(500).flat_map(|(key, _)| [key_hash(key), !key_hash(key)]).collect();
    (table, reader, hashes)
}

// A probe of a table's filter, of hashes that are there and that are not.
#[library_benchmark]
#[bench::per_1000(table_and_hashes())]
fn filter_probe((table, reader, hashes): (Table, TableReader, Vec<u64>)) -> (Table, TableReader, Vec<u64>) {
    let found = hashes.iter().filter(|hash| black_box(reader.may_contain(**hash))).count();
    assert!((500..600).contains(&found), "{found} of 1000 hashes may be there");
    (table, reader, hashes)
}

// A record of 100 bytes: checksummed, reserved, copied into the log.
#[library_benchmark]
#[bench::per_1000(OpenLog::new())]
fn log_append(mut open: OpenLog) -> OpenLog {
    let bytes = [0xA5; 100];
    for seqno in 1..=1000 {
        let payload = Payload::new(RecordKind::Batch, &bytes);
        let seqno = SeqNo::new(seqno).expect("a small number");
        let reservation = open.log.reserve(&open.tail, bytes.len(), seqno).expect("the segment has room");
        open.tail.accept(&reservation);
        open.log.append(&reservation, &payload).expect("a store into a map");
    }
    open
}

// A step of a merge of four sources.
#[library_benchmark]
#[bench::per_10000(counts::merge_of_four())]
fn merge_step(mut merge: MergeCursor<SliceCursor>) -> MergeCursor<SliceCursor> {
    let Ok(()) = merge.seek_to_first();
    for _ in 0..10_000 {
        black_box(merge.user_key());
        let Ok(value) = merge.value();
        black_box(value);
        let Ok(()) = merge.next();
    }
    merge
}

fn table_and_writer() -> (Table, TableWriter) {
    let table = Table::unwritten(10_000);
    let writer = table.writer();
    (table, writer)
}

// An entry written to a table, and its share of filter, index and footer.
#[library_benchmark]
#[bench::per_10000(table_and_writer())]
fn table_write((table, mut writer): (Table, TableWriter)) -> (Table, PendingTable) {
    table.write(&mut writer);
    let pending = writer.finish().expect("a table");
    (table, pending)
}

// An edit that adds a table to a level of a thousand.
#[library_benchmark]
#[bench::per_20(Edits::new(20))]
fn manifest_edit(edits: Edits) -> Edits {
    for edit in &edits.edits {
        edits.store.commit(edit.clone()).expect("an edit is committed");
    }
    edits
}

// A commit of 100 bytes through the pipeline, not synced: its log is in it, a memtable is not.
#[library_benchmark]
#[bench::per_1000(Piped::new())]
fn pipeline_commit(piped: Piped) -> Piped {
    for _ in 0..1000 {
        black_box(piped.commit(Durability::Buffered));
    }
    piped
}

// A store of a record of 100 bytes into a mapped log, whose pages are there.
#[library_benchmark]
#[bench::per_1000(populated_log())]
fn file_store((log, dir): (Arc<dyn LogFile>, TempDir)) -> (Arc<dyn LogFile>, TempDir) {
    for number in 0..1000 {
        log.store(number * 136, &[0xA5; 136]).expect("a store into a map");
    }
    (log, dir)
}

fn populated_log() -> (Arc<dyn LogFile>, TempDir) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let log = Environment::real().files.create_log(&dir.path().join("log"), 1 << 20, LogFileWay::Mapped);
    let log = log.expect("a new log");
    log.populate(0, 1 << 20);
    (log, dir)
}

// A grant of memory: grown, spent, and what was spent given back.
#[library_benchmark]
#[bench::per_1000(MemoryBudget::new(64 << 20, 0))]
fn memory_grant(budget: MemoryBudget) -> MemoryBudget {
    for _ in 0..1000 {
        let mut grant = budget.no_grant();
        assert!(grant.grow_to(black_box(4096)));
        grant.spend(4096);
        drop(grant);
        budget.give_back(4096);
    }
    budget
}

/// 1,002 tables, and keys that lie in them.
type Versions = (History<&'static str, ()>, Arc<Retired<SuperVersion<&'static str, ()>>>, Vec<Vec<u8>>);

fn versions() -> Versions {
    let retired = Arc::new(Retired::new());
    let history = History::new(SuperVersion::new(Arc::new("a memtable"), Arc::new(version())), Arc::clone(&retired));
    let keys = (0..1000).map(|nth| format!("key-{:012}-k", 1 + nth * 617 % 1000).into_bytes()).collect();
    (history, retired, keys)
}

// The super version loaded, and the one table of a thousand found that may hold a key.
#[library_benchmark]
#[bench::per_1000(versions())]
fn version_find((history, retired, keys): Versions) -> Versions {
    for key in &keys {
        let current = history.current();
        let run = &current.version().runs(Level(6))[0];
        black_box(run.find(key).expect("a table covers it").id());
    }
    (history, retired, keys)
}

// A version installed in which one of 1,002 tables is another, and the one before it freed.
#[library_benchmark]
#[bench::per_20(versions())]
fn version_install((history, retired, keys): Versions) -> Versions {
    for _ in 0..20 {
        let added = [version_table(Level(6), 1, 500)];
        let next = history.install(|current| current.replace_tables(&[(Level(6), TableId(500))], &added));
        drop(next.expect("the table is there"));
        assert_eq!(retired.collect(), 1);
    }
    (history, retired, keys)
}

// An entry of a compaction of two tables into one: read, merged, kept, written.
#[library_benchmark]
#[bench::per_10000(MergeJob::new(10_000))]
fn compaction_entry(job: MergeJob) -> (MergeJob, Outputs) {
    let outputs = job.run();
    (job, outputs)
}

library_benchmark_group!(
    name = paths,
    benchmarks = [
        get_hit,
        get_miss,
        insert,
        iterator_next,
        cursor_next,
        memtable_get,
        memtable_insert,
        block_search,
        filter_probe,
        log_append,
        pipeline_commit,
        file_store,
        memory_grant,
        version_find,
        version_install,
        merge_step,
        compaction_entry,
        table_write,
        manifest_edit
    ]
);

main!(
    // A directory for temporary files, and the fault that a planted run asks for.
    config = LibraryBenchmarkConfig::default().pass_through_envs(["TMPDIR", "LSM_MUTANT"]),
    library_benchmark_groups = paths
);
