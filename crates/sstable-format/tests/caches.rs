//! The block cache and the table cache: limits hold, answers stay right, under real threads.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Row, Tables, row};
use internal_key::{Cursor, Kind, SeqNo};
use sstable_format::{Access, BlockCache, Compression, Expected, ReadOptions, TableCache, TableOptions, TableSlot};
use test_support::Rng;
use xxhash_rust::xxh3::xxh3_64;

fn rows_of(table: u64) -> Vec<Row> {
    (0..200_u64)
        .map(|n| row(format!("{n:04}").as_bytes(), n + 1, Kind::Put, &(table * 1000 + n).to_le_bytes()))
        .collect()
}

fn some_tables(count: u64, options: &TableOptions) -> (Tables, Vec<Expected>) {
    let mut tables = Tables::new();
    let expected = (1..=count)
        .map(|number| {
            let (table, summary) = tables.write(&rows_of(number), options.clone());
            Tables::expected(table, summary.bytes, 0)
        })
        .collect();
    (tables, expected)
}

/// T2: each block is checked ahead of its readers where it is read in place; a sign to stop is obeyed.
#[test]
fn blocks_are_checked_ahead() {
    for index_partition_bytes in [128 << 10, 1024] {
        let options = TableOptions { block_bytes: 256, index_partition_bytes, ..TableOptions::default() };
        let (tables, expected) = some_tables(1, &options);
        let open = |access| tables.open(expected[0].table.0, 0, ReadOptions { access, block_cache: None }).unwrap();
        let table = open(Access::Mapped);
        assert!(table.data_blocks() > 10 && table.checked_blocks() == 0);
        let asked = AtomicU64::new(0);
        table.check_ahead(&|| asked.fetch_add(1, Ordering::Relaxed) >= 5).unwrap();
        assert_eq!(table.checked_blocks(), 5);
        table.check_ahead(&|| false).unwrap();
        assert_eq!(table.checked_blocks(), table.data_blocks());
        let read = open(Access::Pread);
        read.check_ahead(&|| false).unwrap();
        assert_eq!(read.checked_blocks(), 0, "nothing is read in place");
    }
    let options = TableOptions { compression: Compression::Lz4, ..TableOptions::default() };
    let rows: Vec<Row> = (0..200).map(|n: u64| row(&n.to_be_bytes(), n + 1, Kind::Put, &[7; 100])).collect();
    let mut tables = Tables::new();
    let (table, _) = tables.write(&rows, options);
    let table = tables.open(table, 0, ReadOptions { access: Access::Mapped, block_cache: None }).unwrap();
    table.check_ahead(&|| false).unwrap();
    assert_eq!(table.checked_blocks(), 0, "compressed blocks are checked whenever they are decoded");
}

/// T4: the block cache keeps to its limit, counts exactly what is in it, and serves what it has.
#[test]
fn block_cache_keeps_to_its_limit() {
    let options = TableOptions { compression: Compression::Lz4, block_bytes: 512, ..TableOptions::default() };
    let (tables, expected) = some_tables(4, &options);
    let cache = Arc::new(BlockCache::new(8 << 10));
    let read = ReadOptions { access: Access::Pread, block_cache: Some(Arc::clone(&cache)) };
    let readers: Vec<_> = expected.iter().map(|e| tables.open(e.table.0, 0, read.clone()).unwrap()).collect();
    assert_eq!((cache.bytes(), cache.blocks()), (0, 0), "opening puts nothing into the cache");
    let mut rng = Rng::new(1);
    for _ in 0..2000 {
        let table = 1 + rng.below(4);
        let n = rng.below(200);
        let key = format!("{n:04}");
        let found = readers[table as usize - 1].get(key.as_bytes(), xxh3_64(key.as_bytes()), SeqNo::MAX).unwrap();
        assert_eq!(*found.unwrap().value, (table * 1000 + n).to_le_bytes());
        assert!(cache.bytes() <= cache.bytes_max(), "{cache:?}");
    }
    assert!(cache.blocks() > 0 && cache.bytes() > cache.blocks() as u64 * 56, "{cache:?}");
    let before = cache.blocks();
    let mut cursor = readers[0].cursor_for_compaction();
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        cursor.next().unwrap();
    }
    assert_eq!(cache.blocks(), before, "a compaction's cursor leaves the cache alone");
}

/// T4: what is read in place does not enter the cache.
#[test]
fn blocks_read_in_place_are_not_cached() {
    let (tables, expected) = some_tables(1, &TableOptions::default());
    let cache = Arc::new(BlockCache::new(1 << 20));
    let read = ReadOptions { access: Access::Mapped, block_cache: Some(Arc::clone(&cache)) };
    let reader = tables.open(expected[0].table.0, 0, read).unwrap();
    let mut cursor = reader.cursor();
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        cursor.next().unwrap();
    }
    assert_eq!(cache.blocks(), 0);
}

/// R4: the clock evicts what was not read since it came by, and keeps what was.
#[test]
fn clock_keeps_what_is_read() {
    let (tables, expected) = some_tables(4, &TableOptions::default());
    let cache = TableCache::new(Arc::clone(&tables.files), ReadOptions::default(), 2);
    let slots: Vec<TableSlot> = (0..4).map(|_| TableSlot::new()).collect();
    let guard = crossbeam_epoch::pin();
    let open = |n: usize| cache.open(&slots[n], &tables.path(expected[n].table.0), expected[n], &guard).unwrap();
    let (first, _) = (open(0), open(1));
    assert_eq!(cache.open_tables(), 2);
    let still_there = Arc::downgrade(&slots[0].share(&guard).unwrap());
    // The hand clears both flags, then takes the first that it meets again.
    open(2);
    assert_eq!(cache.open_tables(), 2);
    assert!(slots[0].get(&guard).is_none() && slots[2].get(&guard).is_some());
    assert!(still_there.upgrade().is_some(), "an evicted reader lives while somebody is pinned");
    assert_eq!(first.properties().entries, 200);
    assert_eq!(cache.retired_tables(), 0, "and is not even retired before");
    // Slot 2 was just read, slot 1 not since the hand cleared it.
    open(3);
    assert!(slots[1].get(&guard).is_none() && slots[2].get(&guard).is_some() && slots[3].get(&guard).is_some());
    assert_eq!(cache.opened_and_evicted(), (4, 2));
}

/// R4: an evicted reader is closed once nobody can see it any more, and a cursor keeps its table beyond that.
#[test]
fn evicted_readers_are_closed_and_cursors_keep_theirs() {
    let (tables, expected) = some_tables(2, &TableOptions::default());
    let cache = TableCache::new(Arc::clone(&tables.files), ReadOptions::default(), 1);
    let slots = [TableSlot::new(), TableSlot::new()];
    let open = |n: usize| {
        let guard = crossbeam_epoch::pin();
        cache.share(&slots[n], &tables.path(expected[n].table.0), expected[n], &guard).unwrap()
    };
    let mut cursor = open(0).cursor();
    let reader = Arc::downgrade(cursor.table());
    drop(open(1));
    // Other tests of this process pin too, so the epoch may take a few rounds.
    let mut rounds = 0;
    while Arc::strong_count(cursor.table()) > 1 {
        cache.collect();
        rounds += 1;
        assert!(rounds < 1_000_000, "an evicted reader is never closed");
        std::thread::yield_now();
    }
    cursor.seek_to_last().unwrap();
    assert_eq!(cursor.user_key(), b"0199");
    drop(cursor);
    assert!(reader.upgrade().is_none());
}

/// R4: a failed opening leaves the slot empty, and the next one tries again.
#[test]
fn failed_opening_can_be_tried_again() {
    let (tables, expected) = some_tables(1, &TableOptions::default());
    let cache = TableCache::new(Arc::clone(&tables.files), ReadOptions::default(), 2);
    let slot = TableSlot::new();
    let guard = crossbeam_epoch::pin();
    assert!(cache.open(&slot, &tables.path(99), expected[0], &guard).is_err());
    assert!(slot.get(&guard).is_none());
    assert!(cache.open(&slot, &tables.path(1), expected[0], &guard).is_ok());
    drop(guard);
    drop(slot);
    assert_eq!(cache.open_tables(), 0, "a dropped slot counts no more");
}

/// R4: threads that read, open and evict at once always read the right table, and the limit holds.
#[test]
fn readers_and_openers_race_without_harm() {
    const TABLES: u64 = 6;
    let (tables, expected) = some_tables(TABLES, &TableOptions { block_bytes: 512, ..TableOptions::default() });
    let cache = TableCache::new(Arc::clone(&tables.files), ReadOptions::default(), 2);
    let slots: Vec<TableSlot> = (0..TABLES).map(|_| TableSlot::new()).collect();
    let (reads, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cache, slots, tables, expected, reads, failed) = (&cache, &slots, &tables, &expected, &reads, &failed);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                let mut cursors = Vec::new();
                for step in 0..3000 {
                    let table = rng.index(TABLES as usize);
                    let guard = crossbeam_epoch::pin();
                    let path = tables.path(expected[table].table.0);
                    let reader = cache.open(&slots[table], &path, expected[table], &guard).unwrap();
                    let n = rng.below(200);
                    let key = format!("{n:04}");
                    let found = reader.get(key.as_bytes(), xxh3_64(key.as_bytes()), SeqNo::MAX).unwrap().unwrap();
                    if *found.value != ((table as u64 + 1) * 1000 + n).to_le_bytes() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    if step % 50 == 0 {
                        cursors.push((
                            table,
                            cache.share(&slots[table], &path, expected[table], &guard).unwrap().cursor(),
                        ));
                    }
                    if cursors.len() > 3 {
                        let (table, mut cursor) = cursors.swap_remove(0);
                        cursor.seek_to_first().unwrap();
                        assert_eq!(cursor.value().unwrap(), ((table as u64 + 1) * 1000).to_le_bytes());
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert!(!failed.load(Ordering::Relaxed), "a read met another table's value");
    assert_eq!(reads.load(Ordering::Relaxed), 12_000);
    assert!(cache.open_tables() <= 2, "{cache:?}");
    let (opened, evicted) = cache.opened_and_evicted();
    assert!(evicted >= opened - 2, "opened {opened}, evicted {evicted}");
}
