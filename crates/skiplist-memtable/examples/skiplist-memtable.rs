//! Four writers fill one memtable in parallel while a reader looks; then what lies in it is counted and drawn.
//!
//! `cargo run -p skiplist-memtable --example skiplist-memtable`

use std::sync::{Arc, Mutex};

use internal_key::{Cursor, InternalKey, Kind, SeqNo, Trailer};
use skiplist_memtable::{Memtable, MemtableOptions, Reservation, key_hash};

const FRUIT: [&str; 8] = ["apple", "banana", "cherry", "damson", "elderberry", "fig", "grape", "hazelnut"];

fn main() {
    let memtable = Arc::new(Memtable::new(&MemtableOptions::default()));
    let last = Mutex::new(SeqNo::ZERO);

    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (memtable, last) = (&memtable, &last);
            scope.spawn(move || {
                for round in 0..1000 {
                    let key = format!("{} {:03}", FRUIT[(round + writer) % FRUIT.len()], round % 100);
                    let value = format!("round {round} of writer {writer}");
                    // One lock hands out seqnos and room, so that both ascend together.
                    let (seqno, mut range) = {
                        let mut last = last.lock().unwrap();
                        let seqno = last.checked_add(1).unwrap();
                        *last = seqno;
                        let bytes = Memtable::entry_bytes(key.len(), value.len());
                        let reservation = Reservation { bytes, entries: 1, first_seqno: seqno, last_seqno: seqno };
                        (seqno, memtable.reserve(reservation))
                    };
                    // The work itself happens outside of it.
                    memtable.insert(&mut range, key.as_bytes(), Trailer::new(seqno, Kind::Put), value.as_bytes());
                }
            });
        }
    });

    println!("{memtable:?}");
    let bytes_per_entry = memtable.memory_usage() as f64 / memtable.entries() as f64;
    println!("memory {} bytes, {bytes_per_entry:.0} an entry", memtable.memory_usage());

    let key = b"cherry 042";
    let at = SeqNo::MAX;
    match memtable.get(key, key_hash(key), at) {
        Some((trailer, value)) => println!("newest: {} = {}", InternalKey::new(key, trailer), value.escape_ascii()),
        None => println!("nobody wrote {}", key.escape_ascii()),
    }
    let absent = (0..1000).map(|n| format!("kiwi {n}")).filter(|key| {
        let key = key.as_bytes();
        memtable.may_contain(key_hash(key), key)
    });
    println!("of 1000 absent keys {} would be searched for", absent.count());

    let mut cursor = memtable.cursor();
    let Ok(()) = cursor.seek(InternalKey::seek(b"fig", at));
    for _ in 0..3 {
        let key = cursor.key().to_string();
        let Ok(value) = cursor.value();
        println!("{key} = {}", value.escape_ascii());
        let Ok(()) = cursor.next();
    }
}
