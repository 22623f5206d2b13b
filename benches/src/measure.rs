//! Operations on some threads, each timed.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// What came of a row.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Things done: operations, or rows where one operation yields many.
    pub count: u64,
    /// From the first operation's start to the last one's end, over all threads.
    pub took: Duration,
    /// Nanoseconds of each operation.
    pub latencies: Histogram<u64>,
    /// Things that one operation counts for.
    pub per_operation: u64,
}

impl Measured {
    /// Things done in a second.
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

/// Runs `operations` on `threads` threads at once; thread t does the operations t, t + threads, t + 2 × threads …
/// Each thread first makes its state by `begin`. An operation counts for `per_operation` things.
///
/// An operation's latency runs from the end of the one before: the clock is read once for each, about 25 ns.
pub fn measure<S>(
    threads: u32,
    operations: u32,
    per_operation: u64,
    begin: impl Fn() -> S + Sync,
    operation: impl Fn(&mut S, u32) + Sync,
) -> Measured {
    let barrier = Barrier::new(threads as usize);
    let run = |thread: u32| {
        let mut state = begin();
        let mut latencies = Histogram::new(3).expect("three digits are a valid precision");
        barrier.wait();
        let first = Instant::now();
        let mut before = first;
        for number in (thread..operations).step_by(threads as usize) {
            operation(&mut state, number);
            let after = Instant::now();
            latencies.record((after - before).as_nanos() as u64).expect("the histogram grows");
            before = after;
        }
        (first, before, latencies)
    };
    let ran: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let own = run(0);
        let others = started.into_iter().map(|thread| thread.join().expect("an answer was wrong"));
        std::iter::once(own).chain(others).collect()
    });
    let first = ran.iter().map(|(first, ..)| *first).min().expect("at least one thread");
    let last = ran.iter().map(|(_, last, _)| *last).max().expect("at least one thread");
    let mut latencies = Histogram::new(3).expect("three digits are a valid precision");
    for (_, _, of_thread) in &ran {
        latencies.add(of_thread).expect("the histogram grows");
    }
    Measured { count: u64::from(operations) * per_operation, took: last - first, latencies, per_operation }
}
