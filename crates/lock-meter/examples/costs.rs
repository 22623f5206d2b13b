//! What a lock costs that four threads take all the time.

use std::thread;

use lock_meter::Mutex;

fn main() {
    let sum = Mutex::new(0_u64);
    thread::scope(|scope| {
        for thread in 0..4 {
            let sum = &sum;
            scope.spawn(move || (0..100_000).for_each(|number| *sum.lock() += number ^ thread));
        }
    });
    let costs = sum.costs();
    assert_eq!(costs.acquisitions, 400_000);
    println!("{costs}");
}
