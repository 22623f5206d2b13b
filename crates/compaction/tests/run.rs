//! Flushes and compactions on real tables: what readers see, what failures leave, what a crash leaves.

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Entry, Readers, Store, read_all, seqno};
use compaction::pick;
use compaction::{
    Collector, CompactionOptions, Control, Demand, KeyRange, KeySpan, PickInput, Plan, PlanKind, Reason, RunError,
    Strategy, remove_tables,
};
use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem};
use internal_key::{Cursor, Epoch, InternalKey, Kind, Level, SeqNo, TableId, Trailer};
use merge_iterator::SliceCursor;
use sstable_format::{TableError, WriteError};
use test_support::{Rng, for_each_seed};

fn entry(key: &str, number: u64, value: &str) -> Entry {
    (key.as_bytes().to_vec(), Trailer::new(seqno(number), Kind::Put), value.as_bytes().to_vec())
}

fn pick_from(store: &Store, demand: Demand<'_>) -> Option<Plan> {
    let Store { version, busy, options, .. } = store;
    pick::pick(&PickInput { version, busy, options, oldest_sealed_epoch: None, demand, now_unix_ms: 0, reads: &[] })
}

const EVERYTHING: Demand<'_> =
    Demand::Range(KeyRange { min: b"", max: None, rewrite_before: TableId(0), through: SeqNo::MAX });

/// Two overlapping runs of some size, and the plan that merges them into several tables.
fn two_runs() -> (Store, Plan) {
    let mut store = Store::new(7);
    store.options.table_bytes_target = 2000;
    for (run, (level, step)) in [(6, 1), (5, 2)].into_iter().enumerate() {
        let number = run as u64 * 1000;
        let entries: Vec<Entry> = (0..300)
            .step_by(step)
            .map(|key| entry(&format!("key{key:04}"), number + key + 1, &"v".repeat(key as usize % 60)))
            .collect();
        let epoch = Epoch(run as u64 + 1);
        let outputs = store.flush(vec![SliceCursor::new(entries)], Level(level), epoch, &Readers::default()).unwrap();
        assert!(outputs.tables.len() > 3);
        store.add_run(Level(level), epoch, &outputs.tables);
    }
    let plan = pick_from(&store, EVERYTHING).unwrap();
    assert_eq!(plan.kind, PlanKind::Merge);
    (store, plan)
}

fn all_readers() -> Readers {
    Readers { floor: SeqNo::MAX, snapshots: Vec::new() }
}

/// Key to versions, newest first; `None` is a tombstone.
type Model = BTreeMap<Vec<u8>, Vec<(u64, Option<Vec<u8>>)>>;

fn read_model(model: &Model, key: &[u8], at: u64) -> Option<(SeqNo, Vec<u8>)> {
    let (number, value) = model.get(key)?.iter().find(|(number, _)| *number <= at)?;
    value.clone().map(|value| (seqno(*number), value))
}

/// C2, C3: whatever is flushed and compacted, and whatever fails meanwhile, every reader that may stand somewhere finds
/// what was written, reading the newest run first.
#[test]
fn readers_find_what_was_written_whatever_was_compacted() {
    let mut kinds = BTreeSet::new();
    for_each_seed(0..40, |rng| {
        let mut store = Store::new(rng.next_u64());
        store.options = CompactionOptions {
            strategy: *rng.pick(&[Strategy::Leveled, Strategy::Tiered]),
            level_base_bytes: rng.within(2_000..20_000),
            level_multiplier: 3,
            table_bytes_target: rng.within(1..5_000),
            formats: if rng.one_in(2) { [0; 7] } else { [0, 0, 1, 1, 1, 1, 1] },
            ..CompactionOptions::default()
        };
        let mut model = Model::new();
        let (mut next, mut epoch) = (1, 1);
        let mut readers = Readers::default();
        for _ in 0..40 {
            match rng.weighted(&[4, 6, 2]) {
                0 => {
                    let memtables: Vec<Vec<Entry>> =
                        (0..rng.within(1..4)).map(|_| write(rng, &mut model, &mut next)).collect();
                    // Newest first, as a flush of a stack of sealed memtables merges them.
                    let cursors = memtables.into_iter().rev().map(SliceCursor::new).collect();
                    epoch += 1;
                    let outputs = store.flush(cursors, Level::ZERO, Epoch(epoch), &readers).unwrap();
                    store.add_run(Level::ZERO, Epoch(epoch), &outputs.tables);
                }
                1 => {
                    let demand = [Demand::Steady, Demand::Idle, EVERYTHING][rng.weighted(&[6, 3, 1])];
                    let Some(plan) = pick_from(&store, demand) else { continue };
                    kinds.insert((plan.kind == PlanKind::Move, plan.output_level == Level::ZERO));
                    let before = store.names();
                    let fails = rng.one_in(4);
                    if fails {
                        store.files.inject(Fault::on_anything().nth(rng.within(1..12)));
                    }
                    // Not drawn, so that the seeds of before stand for the runs of before.
                    let parts = if fails { 1 } else { 1 + next as usize % 4 };
                    let outputs = store.carry_out_in_parts(&plan, &readers, parts, &|_| {});
                    store.files.clear_faults();
                    match outputs {
                        Ok(outputs) => store.install(&plan, outputs.as_ref()),
                        Err(error) => {
                            assert!(fails, "{error}");
                            assert_eq!(store.names(), before, "C4: nothing is left");
                        }
                    }
                }
                _ => {
                    // The floor rises to somewhere; snapshots that it passes remain as stripes.
                    let floor = rng.within(readers.floor.get()..next.max(readers.floor.get() + 1));
                    readers.snapshots.retain(|_| !rng.one_in(3));
                    readers.snapshots.push(seqno(rng.within(readers.floor.get()..floor + 1)));
                    readers.snapshots.sort_unstable();
                    readers.floor = seqno(floor);
                }
            }
        }
        let mut seqnos: Vec<u64> = readers.snapshots.iter().map(|snapshot| snapshot.get()).collect();
        seqnos.extend([readers.floor.get(), next, rng.within(readers.floor.get()..next + 1)]);
        for key in model.keys() {
            for &at in &seqnos {
                let (found, expected) = (store.get(key, seqno(at)), read_model(&model, key, at));
                assert_eq!(found, expected, "{} at {at}\n{}", key.escape_ascii(), store.version);
            }
        }
        for (_, run) in store.version.runs_newest_first() {
            let tables = run.tables().windows(2);
            assert!(tables.into_iter().all(|pair| pair[0].entry.max_key < pair[1].entry.min_key), "C3");
        }
    });
    if std::env::var_os(test_support::rng::SEED_VARIABLE).is_none() {
        assert!(kinds.len() >= 3, "moves, merges and merges within level 0: {kinds:?}");
    }
}

fn write(rng: &mut Rng, model: &mut Model, next: &mut u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let first = rng.below(40);
    for _ in 0..rng.within(1..40) {
        let key = format!("k{:03}", first + rng.below(30)).into_bytes();
        let value = (!rng.one_in(3)).then(|| {
            let len = rng.below(60) as usize;
            rng.bytes(len)
        });
        let kind = if value.is_some() { Kind::Put } else { Kind::Delete };
        entries.push((key.clone(), Trailer::new(seqno(*next), kind), value.clone().unwrap_or_default()));
        model.entry(key).or_default().insert(0, (*next, value));
        *next += 1;
    }
    entries.sort_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(&left.1)));
    entries
}

/// C2, C3: in however many parts a job is carried out, the same entries are written and the same are dropped, each part's
/// tables end where a key ends, and what was told of its progress is the same.
#[test]
fn parts_write_what_the_whole_writes() {
    for_each_seed(0..30, |rng| {
        let mut store = Store::new(rng.next_u64());
        store.options.table_bytes_target = rng.within(1..6_000);
        let (mut model, mut next) = (Model::new(), 1);
        for epoch in 1..=rng.within(2..5) {
            let cursors = (0..rng.within(1..6)).map(|_| SliceCursor::new(write(rng, &mut model, &mut next))).collect();
            let outputs = store.flush(cursors, Level::ZERO, Epoch(epoch), &Readers::default()).unwrap();
            store.add_run(Level::ZERO, Epoch(epoch), &outputs.tables);
        }
        let floor = rng.below(next);
        let readers = Readers { floor: seqno(floor), snapshots: vec![seqno(rng.below(floor + 1))] };
        let Some(plan) = pick_from(&store, EVERYTHING).filter(|plan| plan.kind == PlanKind::Merge) else { return };
        let entries = |outputs: &compaction::Outputs| -> Vec<Entry> {
            outputs.tables.iter().flat_map(|table| store.entries(table)).collect()
        };
        let before = store.progress.entries_read();
        let whole = store.carry_out(&plan, &readers, &|_| {}).unwrap().unwrap();
        let read = store.progress.entries_read() - before;
        for parts in 2..6 {
            let before = store.progress.entries_read();
            let outputs = store.carry_out_in_parts(&plan, &readers, parts, &|_| {}).unwrap().unwrap();
            assert_eq!(entries(&outputs), entries(&whole), "in {parts} parts");
            assert_eq!(outputs.collected, whole.collected, "in {parts} parts");
            assert_eq!(store.progress.entries_read() - before, read, "each entry is read by one part");
            let bounds = outputs.tables.windows(2);
            assert!(bounds.into_iter().all(|pair| pair[0].max_key < pair[1].min_key), "C3");
        }
    });
}

/// C4: a job that fails at any of its operations leaves the directory as it was, and can be done again.
#[test]
fn a_job_that_fails_anywhere_leaves_nothing() {
    let (mut store, plan) = two_runs();
    let before = store.names();
    let mut operation = 0;
    let outputs = loop {
        operation += 1;
        let fault = store.files.inject(Fault::on_anything().nth(operation).effect(FaultEffect::InputOutput));
        let outputs = store.carry_out(&plan, &all_readers(), &|_| {});
        let hits = store.files.fault_hits(fault);
        store.files.clear_faults();
        match outputs {
            Ok(outputs) if hits == 0 => break outputs.unwrap(),
            Ok(_) => panic!("operation {operation} failed and nobody noticed"),
            Err(error) => {
                assert!(!error.is_out_of_space(), "{error}");
                assert_eq!(store.names(), before, "after {error} at operation {operation}");
            }
        }
    };
    assert!(operation > 20, "only {operation} operations");
    store.install(&plan, Some(&outputs));
    assert_eq!(store.get(b"key0002", SeqNo::MAX).unwrap().0, seqno(1003), "the newer run's");
}

/// C4: an output that cannot be removed either is not an endless loop, and the failure is the first one.
#[test]
fn a_failing_removal_does_not_hide_the_failure() {
    let (store, plan) = two_runs();
    store.files.inject(Fault::on(FileOperation::SyncDirectory));
    store.files.inject(Fault::on(FileOperation::Remove).effect(FaultEffect::PermissionDenied));
    let error = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap_err();
    assert!(matches!(&error, RunError::Install(error) if error.operation == FileOperation::SyncDirectory), "{error}");
}

/// P8: a full disk is told apart, because it helps to wait for room.
#[test]
fn a_full_disk_is_told_apart() {
    let (store, plan) = two_runs();
    let before = store.names();
    store.files.set_capacity(Some(store.files.used_bytes() + 8192));
    let error = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap_err();
    assert!(error.is_out_of_space(), "{error}");
    assert_eq!(store.names(), before);
    store.files.set_capacity(None);
    assert!(store.carry_out(&plan, &all_readers(), &|_| {}).is_ok());
}

/// C4: a cancelled job leaves nothing.
#[test]
fn a_cancelled_job_leaves_nothing() {
    let (mut store, _) = two_runs();
    let large: Vec<Entry> =
        (0..40).map(|key| entry(&format!("large{key:02}"), 9000 + key, &"x".repeat(20_000))).collect();
    let outputs = store.flush(vec![SliceCursor::new(large)], Level::ZERO, Epoch(9), &Readers::default()).unwrap();
    store.add_run(Level::ZERO, Epoch(9), &outputs.tables);
    store.options.formats = [0, 1, 2, 3, 4, 5, 6];
    let plan = pick_from(&store, EVERYTHING).unwrap();
    let before = store.names();

    let asked = Cell::new(0);
    let cancel = |bytes| {
        asked.set(asked.get() + bytes);
        store.cancel.store(true, Ordering::Relaxed);
    };
    let error = store.carry_out(&plan, &all_readers(), &cancel).unwrap_err();
    assert!(matches!(error, RunError::Cancelled), "{error}");
    assert!(asked.get() > 0);
    assert_eq!(store.names(), before);
    let error = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap_err();
    assert!(matches!(error, RunError::Cancelled), "a job that begins cancelled does nothing: {error}");
    assert_eq!(store.names(), before);
}

/// Tells a job to give up when it has read so many values, and counts what it reads after that.
struct Interrupted<'a> {
    inner: SliceCursor,
    values_left: u64,
    cancel: &'a AtomicBool,
    bytes_after: &'a Cell<u64>,
}

impl Cursor for Interrupted<'_> {
    type Error = Infallible;

    fn valid(&self) -> bool {
        self.inner.valid()
    }

    fn user_key(&self) -> &[u8] {
        self.inner.user_key()
    }

    fn trailer(&self) -> Trailer {
        self.inner.trailer()
    }

    fn value(&mut self) -> Result<&[u8], Infallible> {
        let value = self.inner.value()?;
        if self.cancel.load(Ordering::Relaxed) {
            self.bytes_after.set(self.bytes_after.get() + value.len() as u64);
        }
        Ok(value)
    }

    fn seek_to_first(&mut self) -> Result<(), Infallible> {
        self.inner.seek_to_first()
    }

    fn seek_to_last(&mut self) -> Result<(), Infallible> {
        self.inner.seek_to_last()
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.inner.seek(target)
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.inner.seek_before(target)
    }

    fn next(&mut self) -> Result<(), Infallible> {
        self.values_left = self.values_left.saturating_sub(1);
        if self.values_left == 0 {
            self.cancel.store(true, Ordering::Relaxed);
        }
        self.inner.next()
    }

    fn prev(&mut self) -> Result<(), Infallible> {
        self.inner.prev()
    }
}

/// C4: however large the values are, a cancelled job reads no more of them than passes between two calls of the rate limit.
#[test]
fn a_cancelled_job_reads_little_more() {
    for value_bytes in [100, 10_000, 60_000, 1 << 20] {
        let store = Store::new(1);
        let before = store.names();
        let value = "x".repeat(value_bytes);
        let entries = (0..300.min((20 << 20) / value_bytes)).map(|key| entry(&format!("key{key:03}"), 1, &value));
        let bytes_after = Cell::new(0);
        let cursor = Interrupted {
            inner: SliceCursor::new(entries.collect::<Vec<_>>()),
            values_left: 5,
            cancel: &store.cancel,
            bytes_after: &bytes_after,
        };
        let mut collector = Collector::new(SeqNo::MAX, &[], |_: &[u8]| false);
        let part: (&[TableId], &[Box<[u8]>], _) = (&[TableId(9)], &[], KeySpan::default());
        let error = store.write(cursor, &mut collector, (Level(6), Epoch(1)), part, &|_| {}).unwrap_err();
        assert!(matches!(error, RunError::Cancelled), "{error}");
        let most = Control::RATE_STEP_BYTES + value_bytes as u64;
        assert!(bytes_after.get() <= most, "{} bytes of values of {value_bytes}", bytes_after.get());
        assert_eq!(store.names(), before);
    }
}

/// M1: when the job returns, its tables survive a power cut, whole and under their names.
#[test]
fn outputs_are_durable_when_the_job_returns() {
    let (store, plan) = two_runs();
    let outputs = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap().unwrap();
    let whole: Vec<Vec<Entry>> = outputs.tables.iter().map(|table| store.entries(table)).collect();
    for seed in 0..20 {
        let disk = store.files.crash_image(Crash::PowerCut, seed);
        for (table, whole) in outputs.tables.iter().zip(&whole) {
            let reader = store.open_in(&*disk, table).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(read_all(reader.cursor()), *whole);
        }
    }
}

/// M1: whenever the power fails during a job, what has a table's name is the whole table (its directory entry may be
/// missing), so that the next opening can tell and remove it.
#[test]
fn what_has_a_name_after_a_crash_is_whole() {
    let (store, plan) = two_runs();
    let first = store.files.event_count();
    let outputs = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap().unwrap();
    for event in (first..store.files.event_count()).step_by(3) {
        let disk = store.files.crash_image_at(event, Crash::PowerCut, event);
        let names: BTreeSet<String> = disk.read_dir(&store.dir).unwrap().into_iter().map(|entry| entry.name).collect();
        for table in &outputs.tables {
            if names.contains(&manifest::paths::table_name(table.id)) {
                store.open_in(&*disk, table).unwrap_or_else(|error| panic!("event {event}: {error}"));
            }
        }
    }
}

/// C3: however small the target, all versions of a key lie in one table.
#[test]
fn a_table_ends_only_where_a_key_ends() {
    let mut store = Store::new(1);
    store.options.table_bytes_target = 1;
    let entries: Vec<Entry> =
        ["a", "b", "c"].iter().flat_map(|key| (1..40).rev().map(move |number| entry(key, number, "value"))).collect();
    let outputs = store.flush(vec![SliceCursor::new(entries)], Level::ZERO, Epoch(1), &Readers::default()).unwrap();
    let bounds: Vec<(&[u8], &[u8], u64)> =
        outputs.tables.iter().map(|table| (&*table.min_key, &*table.max_key, table.entries)).collect();
    assert_eq!(bounds, [(&b"a"[..], &b"a"[..], 39), (b"b", b"b", 39), (b"c", b"c", 39)]);
    store.add_run(Level::ZERO, Epoch(1), &outputs.tables);
    let table = &outputs.tables[1];
    assert_eq!((table.min_seqno, table.max_seqno, table.epoch), (seqno(1), seqno(39), Epoch(1)));
    let identity = store.open(table).properties().identity.clone();
    assert_eq!((identity.output_index, identity.level, identity.epoch), (1, Level::ZERO, Epoch(1)));
    assert_eq!(identity.inputs, []);
}

/// A table that is half full ends where a table of the next level ends, so that it overlaps fewer of them later.
#[test]
fn tables_end_with_those_of_the_next_level() {
    let build = |bounded: bool| {
        let mut store = Store::new(1);
        store.options.table_bytes_target = 3000;
        let entries = |from: u64, to: u64, base: u64| -> Vec<Entry> {
            (from..to).map(|key| entry(&format!("key{key:04}"), base + key, &"v".repeat(40))).collect()
        };
        if bounded {
            for (from, to) in [(0, 45), (45, 90), (90, 135), (135, 210)] {
                let run = SliceCursor::new(entries(from, to, 1));
                store.options.table_bytes_target = u64::MAX;
                let outputs = store.flush(vec![run], Level(6), Epoch(1), &Readers::default()).unwrap();
                store.add_run(Level(6), Epoch(1), &outputs.tables);
            }
        }
        store.options.table_bytes_target = 6000;
        for (level, epoch) in [(5, 2), (4, 3)] {
            let run = SliceCursor::new(entries(0, 200, epoch * 1000));
            let outputs = store.flush(vec![run], Level(level), Epoch(epoch), &Readers::default()).unwrap();
            store.add_run(Level(level), Epoch(epoch), &outputs.tables);
        }
        let plan = pick_from(&store, EVERYTHING).unwrap();
        assert_eq!((plan.output_level, plan.reason), (Level(5), Reason::Range));
        let outputs = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap().unwrap();
        let ends: Vec<String> = outputs.tables.iter().map(|table| table.max_key.escape_ascii().to_string()).collect();
        ends
    };
    assert!(!build(false).contains(&"key0044".to_owned()));
    let bounded = build(true);
    assert!(bounded[..3] == ["key0044", "key0089", "key0134"], "{bounded:?}");
}

/// C4: a damaged input is an error that names it, not a panic, and nothing is left.
#[test]
fn a_damaged_input_is_an_error() {
    let (store, plan) = two_runs();
    let before = store.names();
    let path = store.dir.join(manifest::paths::table_name(plan.inputs[1].1));
    store.files.corrupt(&path, 300, |byte| byte ^ 0x10).unwrap();
    match store.carry_out(&plan, &all_readers(), &|_| {}).unwrap_err() {
        RunError::Read(TableError::Corrupt(corruption)) => assert_eq!(corruption.path, path),
        other => panic!("{other}"),
    }
    assert_eq!(store.names(), before);
}

/// A kind that tables of format 1 cannot hold is a typed error, never left out.
#[test]
fn a_kind_without_a_place_is_an_error() {
    let store = Store::new(1);
    let range_delete = (b"a".to_vec(), Trailer::new(seqno(1), Kind::RangeDelete), b"b".to_vec());
    let error = store.flush(vec![SliceCursor::new([range_delete])], Level::ZERO, Epoch(1), &all_readers()).unwrap_err();
    assert!(matches!(error, RunError::Write(WriteError::UnsupportedKind { kind: Kind::RangeDelete })), "{error}");
    assert_eq!(store.names(), [""; 0]);
}

/// A refused edit's outputs can be removed, twice if need be.
#[test]
fn outputs_that_nothing_names_can_be_removed() {
    let (store, plan) = two_runs();
    let before = store.names();
    let outputs = store.carry_out(&plan, &all_readers(), &|_| {}).unwrap().unwrap();
    assert!(store.names().len() > before.len());
    for _ in 0..2 {
        remove_tables(&*store.files, &store.dir, outputs.tables.iter().map(|table| table.id)).unwrap();
        assert_eq!(store.names(), before);
    }
}

/// Nothing in, nothing out: no table, no file, no sync.
#[test]
fn an_empty_stream_makes_no_table() {
    let store = Store::new(1);
    let events = store.files.event_count();
    let outputs = store.flush(Vec::new(), Level::ZERO, Epoch(1), &all_readers()).unwrap();
    assert!(outputs.tables.is_empty());
    assert_eq!(store.files.event_count(), events);
}
