//! Every interleaving of two threads that ask for the last of the room.
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use memory_budget::MemoryBudget;

/// P13: of two memtables that ask at once for the same room one gets it, and what is held never passes what may be.
#[test]
fn the_last_of_the_room_is_given_once() {
    loom::model(|| {
        let budget = Arc::new(MemoryBudget::new(8, 0));
        let asks = |budget: Arc<MemoryBudget>| {
            move || {
                let mut grant = budget.no_grant();
                let granted = grant.grow_to(4);
                assert!(budget.memtables() <= 7, "P13: {} bytes are held", budget.memtables());
                if granted {
                    grant.spend(3);
                }
                granted
            }
        };
        let other = thread::spawn(asks(Arc::clone(&budget)));
        let here = asks(Arc::clone(&budget))();
        let there = other.join().unwrap();
        assert!(here || there, "there was room for one");
        assert!(budget.held().memtables_most <= 7);
        assert_eq!(budget.memtables(), 3 * (u64::from(here) + u64::from(there)));
    });
}
