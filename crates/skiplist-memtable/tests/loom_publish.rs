//! Every interleaving of a writer that publishes and a reader that looks, with a stand-in for the list.
#![cfg(loom)]

use internal_key::{Kind, SeqNo, Trailer};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use skiplist_memtable::{ArenaRange, Memtable, MemtableOptions, Reservation, key_hash};

fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

fn put(number: u64) -> Trailer {
    Trailer::new(seqno(number), Kind::Put)
}

fn reserve(memtable: &Memtable, number: u64) -> ArenaRange {
    let (first_seqno, last_seqno) = (seqno(number), seqno(number));
    memtable.reserve(Reservation { bytes: 4, entries: 1, first_seqno, last_seqno })
}

fn get(memtable: &Memtable, key: &[u8], at: u64) -> Option<(Trailer, Vec<u8>)> {
    memtable.get(key, key_hash(key), seqno(at)).map(|(trailer, value)| (trailer, value.to_vec()))
}

/// K3, K6: who loads `visible` finds every entry it covers, whole, filter and range of heads included.
#[test]
fn what_is_visible_is_found_whole() {
    loom::model(|| {
        let memtable = Arc::new(Memtable::new(&MemtableOptions::default()));
        let visible = Arc::new(AtomicU64::new(0));
        let writer = thread::spawn({
            let (memtable, visible) = (Arc::clone(&memtable), Arc::clone(&visible));
            move || {
                let mut range = reserve(&memtable, 1);
                memtable.insert(&mut range, b"k", put(1), b"one");
                visible.store(1, Ordering::Release);
                let mut range = reserve(&memtable, 2);
                memtable.insert(&mut range, b"k", put(2), b"two");
                visible.store(2, Ordering::Release);
            }
        });
        let at = visible.load(Ordering::Acquire);
        let expected = match at {
            0 => None,
            1 => Some((put(1), b"one".to_vec())),
            _ => Some((put(2), b"two".to_vec())),
        };
        assert_eq!(get(&memtable, b"k", at), expected);
        writer.join().unwrap();
    });
}

/// K1, K3, K6: two writers reserve under a lock and insert in parallel, into one word of the filter; a reader that saw
/// either one's publication finds that one's entry.
#[test]
fn writers_in_parallel_lose_nothing() {
    loom::model(|| {
        let memtable =
            Arc::new(Memtable::new(&MemtableOptions { filter_bits_per_key: 1, ..MemtableOptions::default() }));
        let last = Arc::new(Mutex::new(0));
        let write = |key: &'static [u8; 1]| {
            let (memtable, last) = (Arc::clone(&memtable), Arc::clone(&last));
            move || {
                let (number, mut range) = {
                    let mut last = last.lock().unwrap();
                    *last += 1;
                    (*last, reserve(&memtable, *last))
                };
                memtable.insert(&mut range, key, put(number), b"val");
                number
            }
        };
        let other = thread::spawn(write(b"b"));
        let mine = write(b"a")();
        assert_eq!(get(&memtable, b"a", 2), Some((put(mine), b"val".to_vec())));
        let theirs = other.join().unwrap();
        assert_eq!(get(&memtable, b"b", 2), Some((put(theirs), b"val".to_vec())));
        assert_eq!(get(&memtable, b"a", 2), Some((put(mine), b"val".to_vec())));
        assert!(memtable.is_complete());
    });
}
