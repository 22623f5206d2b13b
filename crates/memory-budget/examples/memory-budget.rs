//! Four threads that ask for more than there is: what they hold never passes the limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use memory_budget::MemoryBudget;

fn main() {
    let budget = MemoryBudget::new(1 << 20, 0);
    let refused = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..10_000_u64 {
                    let mut grant = budget.no_grant();
                    if !grant.grow_to((round % 97 + 1) << 12) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let held = budget.held();
    println!("at most {} of {} bytes, {} refused", held.memtables_most, budget.memtables_max(), refused.into_inner());
    assert!(held.memtables == 0 && held.memtables_most <= budget.memtables_max());
}
