//! The memtable as its users see it: reservations, versions, cursors, filter, one thread and many.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use internal_key::{Cursor, InternalKey, Kind, OwnedInternalKey, SeqNo, Trailer};
use memory_budget::MemoryBudget;
use proptest::prelude::*;
use skiplist_memtable::{
    ArenaRange, Filling, Memtable, MemtableCursor, MemtableOptions, NODE_BYTES, NoMemory, Reservation, key_hash,
};

fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

fn put(number: u64) -> Trailer {
    Trailer::new(seqno(number), Kind::Put)
}

fn reserve(memtable: &Memtable, bytes: usize, seqnos: std::ops::RangeInclusive<u64>) -> ArenaRange {
    let (first, last) = (*seqnos.start(), *seqnos.end());
    let (first_seqno, last_seqno) = (seqno(first), seqno(last));
    memtable.reserve(Reservation { bytes, entries: last - first + 1, first_seqno, last_seqno })
}

/// Inserts one entry with a reservation of its own.
fn insert(memtable: &Memtable, key: &[u8], trailer: Trailer, value: &[u8]) {
    let number = trailer.seqno().get();
    let mut range = reserve(memtable, Memtable::entry_bytes(key.len(), value.len()), number..=number);
    memtable.insert(&mut range, key, trailer, value);
    assert_eq!((range.remaining_bytes(), range.remaining_entries()), (0, 0));
}

fn get<'a>(memtable: &'a Memtable, key: &[u8], at: u64) -> Option<(Trailer, &'a [u8])> {
    memtable.get(key, key_hash(key), seqno(at))
}

fn small() -> MemtableOptions {
    MemtableOptions { arena_chunk_bytes: 4096, ..MemtableOptions::default() }
}

#[test]
fn a_read_finds_the_newest_version_at_or_below_its_seqno() {
    let memtable = Memtable::new(&small());
    insert(&memtable, b"k", put(3), b"three");
    insert(&memtable, b"k", Trailer::new(seqno(5), Kind::Delete), b"");
    insert(&memtable, b"k\0", put(6), b"another key");
    assert_eq!(get(&memtable, b"k", 2), None);
    assert_eq!(get(&memtable, b"k", 3), Some((put(3), &b"three"[..])));
    assert_eq!(get(&memtable, b"k", 4), Some((put(3), &b"three"[..])));
    assert_eq!(get(&memtable, b"k", 9), Some((Trailer::new(seqno(5), Kind::Delete), &b""[..])));
    assert_eq!(get(&memtable, b"k\0", 9), Some((put(6), &b"another key"[..])));
    assert_eq!(get(&memtable, b"", 9), None);
}

#[test]
fn empty_keys_and_values_are_entries() {
    let memtable = Memtable::new(&small());
    insert(&memtable, b"", put(1), b"");
    assert_eq!(get(&memtable, b"", 1), Some((put(1), &b""[..])));
    assert_eq!(memtable.key_range(), Some((&b""[..], &b""[..])));
    assert_eq!((memtable.entries(), memtable.data_bytes()), (1, 0));
}

#[test]
fn the_longest_key_and_a_value_larger_than_a_chunk_are_kept_whole() {
    let memtable = Memtable::new(&small());
    let (key, value) = (vec![7; internal_key::MAX_KEY_BYTES], vec![9; 3 << 20]);
    insert(&memtable, &key, put(1), &value);
    insert(&memtable, b"small", put(2), b"x");
    assert_eq!(get(&memtable, &key, 2), Some((put(1), &value[..])));
    assert_eq!(get(&memtable, b"small", 2), Some((put(2), &b"x"[..])));
}

/// K1: small reservations after a large one go on in the chunk that was being filled.
#[test]
fn a_large_entry_does_not_waste_the_current_chunk() {
    let memtable = Memtable::new(&MemtableOptions { filter_bits_per_key: 0, ..small() });
    insert(&memtable, b"a", put(1), b"1");
    let before = memtable.memory_usage();
    insert(&memtable, b"b", put(2), &[0; 100_000]);
    insert(&memtable, b"c", put(3), &[0; 2000]);
    assert_eq!(memtable.memory_usage() - before, 100_001 + 2 * skiplist_memtable::NODE_BYTES);
}

/// K7: what the seal and the flush go by.
#[test]
fn reservations_move_the_seqno_bounds_and_inserts_complete_the_memtable() {
    let memtable = Memtable::new(&small());
    assert!(memtable.is_empty() && memtable.is_complete());
    assert_eq!((memtable.first_seqno(), memtable.last_reserved_seqno()), (None, SeqNo::ZERO));
    let mut range = reserve(&memtable, 2, 4..=5);
    assert!(!memtable.is_empty() && !memtable.is_complete());
    assert_eq!((memtable.first_seqno(), memtable.last_reserved_seqno()), (Some(seqno(4)), seqno(5)));
    memtable.insert(&mut range, b"a", put(5), b"");
    assert!(!memtable.is_complete());
    memtable.insert(&mut range, b"b", put(4), b"");
    assert!(memtable.is_complete());
    let _unfilled = reserve(&memtable, 0, 9..=9);
    assert_eq!((memtable.first_seqno(), memtable.last_reserved_seqno()), (Some(seqno(4)), seqno(9)));
}

/// K7: a reservation out of order is refused, for newer memtables are read first.
#[test]
#[should_panic(expected = "K7")]
fn a_reservation_below_an_earlier_one_is_refused() {
    let memtable = Memtable::new(&small());
    reserve(&memtable, 1, 5..=6);
    reserve(&memtable, 1, 6..=7);
}

/// K1: a range is of one memtable only.
#[test]
#[should_panic(expected = "K1")]
fn a_range_of_another_memtable_is_refused() {
    let mut range = reserve(&Memtable::new(&small()), 8, 1..=1);
    Memtable::new(&small()).insert(&mut range, b"k", put(1), b"v");
}

/// K1: nobody writes past the end of a range.
#[test]
#[should_panic(expected = "K1")]
fn more_bytes_than_reserved_are_refused() {
    let memtable = Memtable::new(&small());
    let mut range = reserve(&memtable, 3, 1..=2);
    memtable.insert(&mut range, b"k", put(1), b"v");
    memtable.insert(&mut range, b"l", put(2), b"v");
}

/// K7: an entry stays within the seqnos of its reservation.
#[test]
#[should_panic(expected = "K1")]
fn a_seqno_outside_the_reservation_is_refused() {
    let memtable = Memtable::new(&small());
    let mut range = reserve(&memtable, 3, 1..=2);
    memtable.insert(&mut range, b"k", put(3), b"v");
}

/// K5: each internal key once.
#[test]
#[should_panic(expected = "K5")]
fn the_same_internal_key_twice_is_refused() {
    let memtable = Memtable::new(&small());
    let mut range = reserve(&memtable, 2, 1..=2);
    memtable.insert(&mut range, b"k", put(1), b"");
    memtable.insert(&mut range, b"k", put(1), b"");
}

/// K6: the filter denies no key that is there and nearly all that are not, while it grows from segment to segment.
#[test]
fn the_filter_denies_only_absent_keys() {
    let memtable = Memtable::new(&MemtableOptions::default());
    let key = |n: u64| format!("key {n:08}").into_bytes();
    let may_contain = |n| memtable.may_contain(key_hash(&key(n)), &key(n));
    for n in 0..30_000 {
        // Absent keys lie between present ones, so that the range of heads does not deny them.
        insert(&memtable, &key(2 * n), put(n + 1), b"");
        assert!(may_contain(2 * n));
    }
    assert!((0..30_000).all(|n| may_contain(2 * n)));
    let wrong = (0..30_000).filter(|n| may_contain(2 * n + 1)).count();
    // About 1 in 200 for each of the three segments.
    assert!(wrong < 600, "{wrong} of 30000 absent keys not denied");
}

/// K6: keys outside of the range of heads are denied without a filter.
#[test]
fn the_range_of_heads_denies_keys_outside_of_it() {
    let memtable = Memtable::new(&MemtableOptions { filter_bits_per_key: 0, ..small() });
    let may_contain = |key: &[u8]| memtable.may_contain(key_hash(key), key);
    assert!(!may_contain(b"m") && !may_contain(b""), "an empty memtable denies all");
    insert(&memtable, b"g", put(1), b"");
    insert(&memtable, b"m", put(2), b"");
    for (key, expected) in [("a", false), ("g", true), ("h", true), ("m", true), ("n", false)] {
        assert_eq!(may_contain(key.as_bytes()), expected, "{key}");
    }
}

/// K4: a cursor keeps its place without a pin, keeps the memtable alive, and meets what is inserted before it.
#[test]
fn a_cursor_sees_later_inserts_and_outlives_other_handles() {
    fn assert_send<T: Send + 'static>(value: T) -> T {
        value
    }
    let memtable = Arc::new(Memtable::new(&small()));
    insert(&memtable, b"a", put(1), b"1");
    let mut cursor = assert_send(memtable.cursor());
    assert!(!cursor.valid());
    cursor.seek_to_first().unwrap();
    insert(&memtable, b"b", put(2), b"2");
    drop(memtable);
    let mut cursor = std::thread::spawn(move || {
        cursor.next().unwrap();
        cursor
    })
    .join()
    .unwrap();
    assert_eq!(cursor.user_key(), b"b");
    assert_eq!(cursor.value().unwrap(), b"2");
    cursor.prev().unwrap();
    assert_eq!(cursor.user_key(), b"a");
    cursor.prev().unwrap();
    assert!(!cursor.valid());
    cursor.next().unwrap();
    assert!(!cursor.valid(), "past an end only a seek leads back");
}

#[test]
fn a_memtable_is_drawn_in_order() {
    let memtable = Memtable::new(&small());
    insert(&memtable, b"b", put(1), b"old");
    insert(&memtable, b"b", Trailer::new(seqno(2), Kind::Delete), b"");
    insert(&memtable, b"a", put(3), b"\x01");
    assert_eq!(memtable.to_string(), "a#3 put=\\x01\nb#2 delete\nb#1 put=old\n");
}

/// K5, K6: a memtable that was filled holds what one holds into which the same was inserted, and is found by reads.
#[test]
fn filling_a_memtable_makes_the_same_as_inserting() {
    let (inserted, filled) = (Memtable::new(&small()), Arc::new(Memtable::new(&small())));
    let mut filling = Filling::new(Arc::clone(&filled));
    // Keys of all lengths around a head, each with several versions, in no order.
    let key = |number: u64| (number * 7919 % 501).to_string().repeat(1 + (number % 5) as usize);
    for number in 1..=3000 {
        let (key, value) = (key(number), vec![number as u8; (number % 200) as usize]);
        let kind = if number % 10 == 0 { Kind::Delete } else { Kind::Put };
        insert(&inserted, key.as_bytes(), Trailer::new(seqno(number), kind), &value);
        filling.add(key.as_bytes(), Trailer::new(seqno(number), kind), &value);
    }
    assert_eq!((filling.len(), filled.entries(), filled.key_range()), (3000, 3000, None));
    assert!(!filling.memtable().is_complete());
    filling.link();
    assert!(filled.is_complete());
    assert_eq!(filled.to_string(), inserted.to_string());
    assert_eq!(filled.data_bytes(), inserted.data_bytes());
    for number in 1..=3000 {
        let key = key(number);
        assert_eq!(get(&filled, key.as_bytes(), number), get(&inserted, key.as_bytes(), number));
        assert!(get(&filled, key.as_bytes(), 3000).is_some());
    }
}

type Model = BTreeMap<OwnedInternalKey, Vec<u8>>;

fn entry_of(cursor: &mut MemtableCursor) -> Option<(OwnedInternalKey, Vec<u8>)> {
    cursor.valid().then(|| (cursor.key().to_owned(), cursor.value().unwrap().to_vec()))
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', 255]), 0..11)
}

#[derive(Debug, Clone)]
enum Op {
    Insert(Vec<(Vec<u8>, bool, Vec<u8>)>),
    Get(Vec<u8>, u64),
    First,
    Last,
    Seek(Vec<u8>, u64),
    SeekBefore(Vec<u8>, u64),
    Next,
    Prev,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let batch = prop::collection::vec((keys(), any::<bool>(), value), 1..5);
    let op = prop_oneof![
        4 => batch.prop_map(Op::Insert),
        3 => (keys(), 0u64..100).prop_map(|(key, at)| Op::Get(key, at)),
        1 => Just(Op::First),
        1 => Just(Op::Last),
        2 => (keys(), 0u64..100).prop_map(|(key, at)| Op::Seek(key, at)),
        2 => (keys(), 0u64..100).prop_map(|(key, at)| Op::SeekBefore(key, at)),
        4 => Just(Op::Next),
        4 => Just(Op::Prev),
    ];
    prop::collection::vec(op, 0..60)
}

proptest! {
    /// K2, K5: whatever is done in whatever order, the memtable answers as a sorted map of versions does.
    #[test]
    fn agrees_with_a_sorted_map(ops in ops(), bits in prop::sample::select(vec![0u32, 1, 16])) {
        let memtable = Arc::new(Memtable::new(&MemtableOptions { arena_chunk_bytes: 4096, filter_bits_per_key: bits }));
        let mut cursor = memtable.cursor();
        let mut model = Model::new();
        let mut at: Option<OwnedInternalKey> = None;
        let mut last = 0;
        for op in ops {
            match op {
                Op::Insert(batch) => {
                    let bytes = batch.iter().map(|(key, _, value)| Memtable::entry_bytes(key.len(), value.len())).sum();
                    let mut range = reserve(&memtable, bytes, last + 1..=last + batch.len() as u64);
                    for (key, is_put, value) in batch {
                        last += 1;
                        let trailer = Trailer::new(seqno(last), if is_put { Kind::Put } else { Kind::Delete });
                        memtable.insert(&mut range, &key, trailer, &value);
                        model.insert(InternalKey::new(&key, trailer).to_owned(), value);
                    }
                    prop_assert_eq!((range.remaining_bytes(), range.remaining_entries()), (0, 0));
                    continue;
                }
                Op::Get(key, seqno_at) => {
                    let from = InternalKey::seek(&key, seqno(seqno_at)).to_owned();
                    let expected = model.range(from..).next().filter(|(found, _)| *found.user_key == *key);
                    let expected = expected.map(|(found, value)| (found.trailer, &value[..]));
                    prop_assert_eq!(get(&memtable, &key, seqno_at), expected);
                    continue;
                }
                Op::First => {
                    cursor.seek_to_first().unwrap();
                    at = model.keys().next().cloned();
                }
                Op::Last => {
                    cursor.seek_to_last().unwrap();
                    at = model.keys().next_back().cloned();
                }
                Op::Seek(key, seqno_at) => {
                    let target = InternalKey::seek(&key, seqno(seqno_at));
                    cursor.seek(target).unwrap();
                    at = model.range(target.to_owned()..).next().map(|(key, _)| key.clone());
                }
                Op::SeekBefore(key, seqno_at) => {
                    let target = InternalKey::seek(&key, seqno(seqno_at));
                    cursor.seek_before(target).unwrap();
                    at = model.range(..target.to_owned()).next_back().map(|(key, _)| key.clone());
                }
                Op::Next => {
                    cursor.next().unwrap();
                    at = at.and_then(|at| {
                        model.range((Bound::Excluded(at), Bound::Unbounded)).next().map(|(key, _)| key.clone())
                    });
                }
                Op::Prev => {
                    cursor.prev().unwrap();
                    at = at.and_then(|at| model.range(..at).next_back().map(|(key, _)| key.clone()));
                }
            }
            let expected = at.as_ref().map(|at| (at.clone(), model[at].clone()));
            prop_assert_eq!(entry_of(&mut cursor), expected);
        }
        prop_assert_eq!(memtable.entries(), model.len() as u64);
        prop_assert!(memtable.is_complete());
        let bytes: usize = model.iter().map(|(key, value)| key.user_key.len() + value.len()).sum();
        prop_assert_eq!(memtable.data_bytes(), bytes as u64);
    }
}

/// K1, K3, K6: writers fill their ranges in parallel while readers look; whatever is published is found whole.
#[test]
fn readers_find_every_published_entry_whole_while_writers_run() {
    const WRITERS: u64 = 3;
    const BATCHES: u64 = 400;
    const BATCH: u64 = 5;
    let memtable = Arc::new(Memtable::new(&small()));
    let reservation = std::sync::Mutex::new(0);
    // How many batches each writer has applied, published by Release.
    let applied: [AtomicU64; WRITERS as usize] = Default::default();
    let key = |writer: u64, n: u64| format!("{:04} of {writer}", n.wrapping_mul(7919) % 10_007).into_bytes();
    let value = |writer: u64, n: u64| vec![(writer * 31 + n) as u8; (n % 97) as usize];
    let check_one = |writer: u64, n: u64| {
        let key = key(writer, n);
        let (_, found) = memtable.get(&key, key_hash(&key), SeqNo::MAX).expect("K6: published and not found");
        assert_eq!(found, value(writer, n), "K3: writer {writer}, entry {n}");
    };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (memtable, reservation, applied) = (&memtable, &reservation, &applied);
            scope.spawn(move || {
                for batch in 0..BATCHES {
                    let entries: Vec<_> =
                        (batch * BATCH..(batch + 1) * BATCH).map(|n| (key(writer, n), value(writer, n))).collect();
                    let bytes = entries.iter().map(|(key, value)| Memtable::entry_bytes(key.len(), value.len())).sum();
                    let (first, mut range) = {
                        let mut last = reservation.lock().unwrap();
                        let first = *last + 1;
                        *last += BATCH;
                        (first, reserve(memtable, bytes, first..=*last))
                    };
                    for (at, (key, value)) in entries.iter().enumerate() {
                        memtable.insert(&mut range, key, put(first + at as u64), value);
                    }
                    applied[writer as usize].store(batch + 1, Ordering::Release);
                }
            });
        }
        scope.spawn(|| {
            let mut cursor = memtable.cursor();
            let mut round = 0;
            while applied.iter().any(|applied| applied.load(Ordering::Acquire) < BATCHES) {
                for writer in 0..WRITERS {
                    let published = applied[writer as usize].load(Ordering::Acquire) * BATCH;
                    for n in published.saturating_sub(20)..published {
                        check_one(writer, n);
                    }
                }
                round += 1;
                if round % 16 == 0 {
                    let before: u64 = applied.iter().map(|applied| applied.load(Ordering::Acquire) * BATCH).sum();
                    assert!(count_ascending(&mut cursor) >= before, "K4: a walk lost entries");
                }
            }
        });
    });
    (0..WRITERS).for_each(|writer| (0..BATCHES * BATCH).for_each(|n| check_one(writer, n)));
    assert!(memtable.is_complete());
    assert_eq!(count_ascending(&mut memtable.cursor()), WRITERS * BATCHES * BATCH);
}

/// Walks the whole memtable, asserts the order (K5), and counts.
fn count_ascending(cursor: &mut MemtableCursor) -> u64 {
    let mut last: Option<OwnedInternalKey> = None;
    let mut count = 0;
    cursor.seek_to_first().unwrap();
    while cursor.valid() {
        assert!(last.is_none_or(|last| last.borrow() < cursor.key()), "K5: the walk ascends");
        last = Some(cursor.key().to_owned());
        count += 1;
        cursor.next().unwrap();
    }
    count
}

/// P13: what a memtable takes of a budget is what it holds and a little ahead, in steps that grow with it; and all comes back.
#[test]
fn what_is_taken_of_a_budget_is_what_is_held() {
    let budget = Arc::new(MemoryBudget::unlimited(0));
    for value in [&[][..], &[0; 40], &[0; 3000]] {
        let memtable = Memtable::within(&small(), Arc::clone(&budget));
        let (mut before, mut steps) = (0, 0);
        for number in 1..=5000_u64 {
            insert(&memtable, &number.to_be_bytes(), put(number), value);
            let (taken, used) = (memtable.taken_bytes(), memtable.memory_usage());
            let ahead = (number / 8).clamp(16, 512) * NODE_BYTES;
            assert!((used..=used + ahead).contains(&taken), "{number}: {taken} taken, {used} held");
            assert_eq!(budget.memtables(), taken);
            steps += u64::from(taken != before);
            before = taken;
        }
        // Chunks here are of 4 KiB, which for large values is nearly a row each.
        assert!(steps <= 60 + 5000 * (8 + value.len() as u64) / 3000, "{steps} steps for {} bytes", value.len());
        drop(memtable);
        assert_eq!(budget.memtables(), 0);
    }
}

/// P13: at the limit a reservation is refused, with nothing changed, and succeeds when there is room again.
#[test]
fn a_reservation_without_room_changes_nothing() {
    let budget = Arc::new(MemoryBudget::new(64 << 10, 0));
    let memtable = Memtable::within(&small(), Arc::clone(&budget));
    let others = Memtable::within(&small(), Arc::clone(&budget));
    insert(&others, b"other", put(1), &[0; 20_000]);
    let mut number = 0;
    let reserve = |number| {
        let (first_seqno, last_seqno) = (seqno(number), seqno(number));
        let reservation = Reservation { bytes: 1001, entries: 1, first_seqno, last_seqno };
        let growth = memtable.growth(1001, 1);
        (growth, memtable.reserve_granted(reservation, &mut budget.no_grant()))
    };
    loop {
        number += 1;
        let before = memtable.taken_bytes();
        match reserve(number) {
            (growth, Ok(mut range)) => {
                memtable.insert(&mut range, b"k", put(number), &[0; 1000]);
                assert!(memtable.taken_bytes() - before <= growth + 4096, "and perhaps a chunk ahead");
            }
            (growth, Err(NoMemory { needed })) => {
                assert_eq!(growth, needed);
                break;
            }
        }
    }
    assert_eq!(memtable.entries(), number - 1);
    assert!(budget.held().memtables_most <= budget.memtables_max());
    assert!(reserve(number).1.is_err());
    drop(others);
    let (_, range) = reserve(number);
    memtable.insert(&mut range.unwrap(), b"k", put(number), &[0; 1000]);
    assert_eq!((memtable.entries(), memtable.is_complete()), (number, true));
}

/// P13: writers in parallel, who make chunks ahead, do not pass the limit either.
#[test]
fn chunks_that_are_made_ahead_keep_to_the_limit() {
    let budget = Arc::new(MemoryBudget::new(256 << 10, 0));
    for _ in 0..20 {
        let memtables = [0, 1].map(|_| Memtable::within(&small(), Arc::clone(&budget)));
        std::thread::scope(|scope| {
            for memtable in &memtables {
                let budget = &budget;
                scope.spawn(move || {
                    for number in 1.. {
                        let (first_seqno, last_seqno) = (seqno(number), seqno(number));
                        let reservation = Reservation { bytes: 308, entries: 1, first_seqno, last_seqno };
                        let Ok(mut range) = memtable.reserve_granted(reservation, &mut budget.no_grant()) else {
                            break;
                        };
                        memtable.insert(&mut range, &number.to_be_bytes(), put(number), &[0; 300]);
                    }
                });
            }
        });
        assert!(budget.held().memtables_most <= budget.memtables_max());
        assert!(budget.memtables() + (8 << 10) > budget.memtables_max(), "all of it was used");
    }
    assert_eq!(budget.memtables(), 0);
}
