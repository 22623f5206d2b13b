//! Whether a point read allocates: an allocator that counts stands beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lsm_facade::{Database, Keyspace};

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

fn allocations_of(read: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    read();
    ALLOCATIONS.get() - before
}

/// Even numbers have a value: those that 20 divides a long one.
fn value_of(number: u32) -> Option<usize> {
    number.is_multiple_of(2).then(|| if number.is_multiple_of(20) { 1000 } else { 100 })
}

fn check_every_read(keyspace: &Keyspace) {
    for round in 0..2 {
        for number in 0..1000_u32 {
            let mut found = None;
            let allocations = allocations_of(|| found = keyspace.get(number.to_be_bytes()).unwrap());
            assert_eq!(found.map(|value| value.len()), value_of(number));
            // The first round opens and checks what is opened and checked once.
            if round > 0 {
                assert_eq!(allocations, usize::from(value_of(number) == Some(1000)), "R1: a get of {number}");
            }
        }
    }
}

/// R1: a get allocates for a value too long for its handle, once it is found, and for nothing else.
#[test]
fn a_get_allocates_nothing_until_a_value_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::builder(dir.path()).background_threads(0).open().unwrap();
    let keyspace = database.keyspace("a").unwrap();
    for number in 0..1000 {
        if let Some(bytes) = value_of(number) {
            keyspace.insert(number.to_be_bytes(), vec![7; bytes]).unwrap();
        }
    }
    check_every_read(&keyspace);
    keyspace.flush().unwrap();
    database.wait_until_idle().unwrap();
    check_every_read(&keyspace);
}
