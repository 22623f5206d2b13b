//! Whether walking allocates: an allocator that counts stands beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Bound;

use internal_key::{Kind, SeqNo, Trailer};
use merge_iterator::{MergeCursor, SliceCursor, VisibleCursor};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// I6: once the buffers have grown, no row costs an allocation, forwards, backwards or turning.
#[test]
fn walking_allocates_nothing_for_a_row() {
    let source = |offset: u64| {
        let entries: Vec<_> = (0..1000)
            .map(|n| {
                let key = format!("key {:08}", n * 3 + offset).into_bytes();
                (key, Trailer::new(SeqNo::new(n + 1).unwrap(), Kind::Put), vec![1; 100])
            })
            .collect();
        SliceCursor::new(entries)
    };
    let merge = MergeCursor::new(vec![source(0), source(1), source(2)]);
    let mut seen = VisibleCursor::new(merge, SeqNo::MAX, (Bound::Unbounded, Bound::Unbounded));
    let mut walk = |rows_expected: usize| {
        let mut rows = 0;
        seen.seek_to_first().unwrap();
        while seen.valid() {
            rows += 1;
            seen.next().unwrap();
        }
        seen.seek_to_last().unwrap();
        while seen.valid() {
            rows += 1;
            seen.prev().unwrap();
        }
        seen.seek(b"key 00000500").unwrap();
        for _ in 0..10 {
            seen.prev().unwrap();
            seen.next().unwrap();
            assert!(seen.valid());
        }
        assert_eq!(rows, rows_expected);
    };
    walk(6000);
    let before = ALLOCATIONS.get();
    walk(6000);
    assert_eq!(ALLOCATIONS.get() - before, 0);
}
