//! Models of what readers of tables share: the bits of checked blocks, and the slots in which tables are opened.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p sstable-format --test loom_caches`
//!
//! Epochs are real here and not modelled: loom runs its threads on one of the system's, whose pins then count together. What
//! is tried are the orders of locks, flags and pointers.
#![cfg(loom)]

use std::path::{Path, PathBuf};

use file_system::{Environment, Simulation};
use internal_key::{Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer};
use loom::sync::Arc;
use loom::thread;
use sstable_format::checked::CheckedBits;
use sstable_format::{Expected, ReadOptions, TableCache, TableIdentity, TableOptions, TableSlot, TableWriter};

/// T2: two readers that check neighbouring blocks at once both leave their bit, so that no block is checked again.
#[test]
fn bits_of_neighbours_set_at_once_both_stay() {
    loom::model(|| {
        let checked = Arc::new(CheckedBits::new(66));
        let other = thread::spawn({
            let checked = Arc::clone(&checked);
            move || {
                checked.set(1);
                checked.set(65);
                assert!(checked.is_set(1) && checked.is_set(65), "T2: a bit that this thread set is lost");
            }
        });
        checked.set(0);
        assert!(checked.is_set(0), "T2: a bit that this thread set is lost");
        other.join().unwrap();
        let found: Vec<u64> = (0..66).filter(|ordinal| checked.is_set(*ordinal)).collect();
        assert_eq!(found, [0, 1, 65], "T2: checked blocks are remembered, and no others");
    });
}

fn put(number: u64) -> (Vec<u8>, Trailer) {
    (number.to_be_bytes().to_vec(), Trailer::new(SeqNo::new(1).unwrap(), Kind::Put))
}

fn write_table(environment: &Environment, table: u64) -> (PathBuf, Expected) {
    let identity = TableIdentity {
        database_id: 7,
        keyspace: KeyspaceId(1),
        table: TableId(table),
        level: Level::ZERO,
        epoch: Epoch(1),
        job: JobId(1),
        inputs: Vec::new(),
        output_index: 0,
        output_count: 1,
    };
    let dir = Path::new("/tables");
    let mut writer = TableWriter::new(&*environment.files, dir, identity, TableOptions::default()).unwrap();
    let (key, trailer) = put(table);
    writer.add(InternalKey::new(&key, trailer), b"value").unwrap();
    let path = dir.join(table.to_string());
    let summary = writer.finish().unwrap().persist(&path).unwrap();
    let expected = Expected {
        bytes: summary.bytes,
        database_id: 7,
        keyspace: KeyspaceId(1),
        table: TableId(table),
        seqno_base: 0,
    };
    (path, expected)
}

type Tables = std::sync::Arc<[(PathBuf, Expected); 2]>;

fn two_tables() -> (Environment, Tables) {
    let environment = Simulation::new(1).environment();
    environment.files.create_dir(Path::new("/tables")).unwrap();
    let tables = std::sync::Arc::new([write_table(&environment, 1), write_table(&environment, 2)]);
    (environment, tables)
}

fn open((cache, slots): &(TableCache, [TableSlot; 2]), tables: &Tables, number: usize) {
    let guard = crossbeam_epoch::pin();
    let (path, expected) = &tables[number];
    let reader = cache.open(&slots[number], path, *expected, &guard).unwrap();
    assert_eq!(reader.properties().entries, 1);
}

/// R4: threads that want the same table open it once, and each is lent the whole reader.
#[test]
fn tables_are_opened_once() {
    let (environment, tables) = two_tables();
    loom::model(move || {
        let cache = TableCache::new(std::sync::Arc::clone(&environment.files), ReadOptions::default(), 2);
        let shared = Arc::new((cache, [TableSlot::new(), TableSlot::new()]));
        let other = thread::spawn({
            let (shared, tables) = (Arc::clone(&shared), std::sync::Arc::clone(&tables));
            move || open(&shared, &tables, 0)
        });
        open(&shared, &tables, 0);
        other.join().unwrap();
        assert_eq!((shared.0.opened_and_evicted(), shared.0.open_tables()), ((1, 0), 1));
    });
}

/// R4: the slots that hold a reader are those in the ring, as many as the limit says, whoever evicts whom.
#[test]
fn slots_and_ring_agree() {
    let (environment, tables) = two_tables();
    loom::model(move || {
        let cache = TableCache::new(std::sync::Arc::clone(&environment.files), ReadOptions::default(), 1);
        let shared = Arc::new((cache, [TableSlot::new(), TableSlot::new()]));
        let other = thread::spawn({
            let (shared, tables) = (Arc::clone(&shared), std::sync::Arc::clone(&tables));
            move || {
                open(&shared, &tables, 0);
                open(&shared, &tables, 1);
            }
        });
        open(&shared, &tables, 0);
        other.join().unwrap();
        let (opened, evicted) = shared.0.opened_and_evicted();
        let guard = crossbeam_epoch::pin();
        let holding = shared.1.iter().filter(|slot| slot.get(&guard).is_some()).count() as u64;
        assert_eq!(opened - evicted, holding, "R4: a slot in the ring holds a reader, and no other does");
        assert_eq!((holding, shared.0.open_tables()), (1, 1));
        // Both are opened, and the first once more only if it was evicted before the second thread came to it.
        assert!((2..=3).contains(&opened), "{opened} openings");
    });
}
