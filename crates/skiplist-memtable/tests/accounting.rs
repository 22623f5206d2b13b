//! Whether `memory_usage` tells the truth: an allocator that counts stands beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use internal_key::{Kind, SeqNo, Trailer};
use skiplist_memtable::{Memtable, MemtableOptions, Reservation};

/// The system's allocator, counting what it really takes for a request.
struct Counting;

thread_local! {
    /// What this thread holds: the test runner's own threads allocate as they please.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// What a request costs: a header of 8 bytes and granules of 16, as the allocators of glibc and others lay it out.
fn cost(layout: Layout) -> i64 {
    (layout.size() as i64 + 8 + 15) / 16 * 16
}

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get() + cost(layout));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - cost(layout));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn fill(memtable: &Memtable, entries: u64, value: &[u8]) {
    for n in 1..=entries {
        let seqno = SeqNo::new(n).unwrap();
        let key = n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        let bytes = Memtable::entry_bytes(key.len(), value.len());
        let mut range = memtable.reserve(Reservation { bytes, entries: 1, first_seqno: seqno, last_seqno: seqno });
        memtable.insert(&mut range, &key, Trailer::new(seqno, Kind::Put), value);
    }
}

/// K8: within 10 % of the heap, for nodes nearly alone and for entries of ordinary size; and all of it comes back.
#[test]
fn memory_usage_is_within_a_tenth_of_the_heap_and_all_is_freed() {
    // The first memtable of a process makes what all share (the collector that the list asks for and never uses).
    fill(&Memtable::new(&MemtableOptions::default()), 1, &[]);
    for (entries, value_bytes) in [(50_000u64, 0), (20_000, 100), (2_000, 3_000), (0, 0), (3, 10)] {
        let value = vec![1; value_bytes];
        let before = HELD.get();
        let memtable = Box::new(Memtable::new(&MemtableOptions::default()));
        fill(&memtable, entries, &value);
        let held = HELD.get() - before;
        let told = memtable.memory_usage() as i64;
        assert!(
            (told - held).abs() * 10 <= held,
            "{entries} entries of 8 + {value_bytes} bytes: told {told}, held {held}"
        );
        assert!(entries > 0 || told < 2048, "an empty memtable is cheap: {told}");
        drop(memtable);
        assert_eq!(HELD.get(), before, "everything is freed with the memtable");
    }
}
