//! Operations on some threads, each timed, for as long as there is time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::engine::Outcome;
use crate::process;

/// How much is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) threads: u64,
    /// Operations of all threads.
    pub(crate) operations: u64,
    /// Things that one operation counts for: rows of a scan, keys of a batch.
    pub(crate) per_operation: u64,
    /// After so long it is broken off.
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) plan: Plan,
    /// Operations that each thread did.
    pub(crate) done: Vec<u64>,
    /// From the first operation's start to the last one's end.
    pub(crate) took: Duration,
    /// Nanoseconds of each operation.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) costs: Costs,
}

/// What the process used meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) cpu: Duration,
    pub(crate) written_bytes: Option<u64>,
    /// The most of anonymous memory, all of it.
    pub(crate) anonymous_max: u64,
    /// The most of file-backed memory, all of it.
    pub(crate) file_max: u64,
}

impl Costs {
    /// Runs `work` and says what it cost.
    pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let (cpu, written) = (process::cpu(), process::written_bytes());
        let (done, anonymous_max, file_max) = process::Memory::watch(work);
        let written_bytes = process::written_bytes().zip(written).map(|(after, before)| after - before);
        (done, Self { cpu: process::cpu() - cpu, written_bytes, anonymous_max, file_max })
    }
}

impl Measured {
    /// Operations that were done.
    pub(crate) fn operations(&self) -> u64 {
        self.done.iter().sum()
    }

    /// Whether all were done that were planned.
    pub(crate) fn finished(&self) -> bool {
        self.operations() == self.plan.operations
    }

    /// Things in a second.
    pub(crate) fn per_second(&self) -> f64 {
        (self.operations() * self.plan.per_operation) as f64 / self.took.as_secs_f64()
    }

    /// What a line says of it.
    pub(crate) fn line(&self, unit: &str) -> Value {
        json!({
            "unit": unit,
            "per_second": self.per_second(),
            "value": null,
            "finished": self.finished(),
            "operations": self.operations(),
            "seconds": self.took.as_secs_f64(),
            "threads": self.plan.threads,
            "latency_ns": latencies(&self.latencies),
        })
    }
}

/// Percentiles.
pub(crate) fn latencies(latencies: &Histogram<u64>) -> Value {
    let at = |quantile| latencies.value_at_quantile(quantile);
    json!({"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": latencies.max()})
}

/// Runs the plan: thread t does the operations t, t + threads, t + 2 × threads … Each thread first makes its state by
/// `begin`.
///
/// An operation's latency runs from the end of the one before, so that the clock is read once for each.
///
/// # Errors
/// The first operation that failed; the other threads stop then.
pub(crate) fn measure<S>(
    plan: Plan,
    begin: impl Fn(u64) -> S + Sync,
    operation: impl Fn(&mut S, u64) -> Outcome + Sync,
) -> Outcome<Measured> {
    let (ran, costs) = Costs::of(|| run(plan, &begin, &operation));
    let ran = ran?;
    let first = ran.iter().map(|thread| thread.first).min().ok_or("no thread")?;
    let last = ran.iter().map(|thread| thread.last).max().ok_or("no thread")?;
    let mut latencies = Histogram::new(3)?;
    for thread in &ran {
        latencies.add(&thread.latencies)?;
    }
    let done = ran.iter().map(|thread| thread.done).collect();
    Ok(Measured { plan, done, took: last - first, latencies, costs })
}

struct Ran {
    first: Instant,
    last: Instant,
    done: u64,
    latencies: Histogram<u64>,
}

fn run<S>(
    plan: Plan,
    begin: &(impl Fn(u64) -> S + Sync),
    operation: &(impl Fn(&mut S, u64) -> Outcome + Sync),
) -> Outcome<Vec<Ran>> {
    let barrier = Barrier::new(plan.threads as usize);
    // Relaxed: a thread that sees it late only works a little longer.
    let failed = AtomicBool::new(false);
    let run = |thread: u64| -> Outcome<Ran> {
        let mut state = begin(thread);
        let mut latencies = Histogram::new(3)?;
        barrier.wait();
        let first = Instant::now();
        let (mut last, mut done) = (first, 0);
        for number in (thread..plan.operations).step_by(plan.threads as usize) {
            if let Err(error) = operation(&mut state, number) {
                failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
            let now = Instant::now();
            latencies.record((now - last).as_nanos() as u64)?;
            last = now;
            done += 1;
            if now - first > plan.time || failed.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(Ran { first, last, done, latencies })
    };
    std::thread::scope(|scope| {
        let started: Vec<_> = (1..plan.threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let own = run(0);
        let others = started.into_iter().map(|thread| thread.join().expect("an answer was wrong"));
        std::iter::once(own).chain(others).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_time_is_unfinished_and_counted_by_thread() {
        let plan = Plan { threads: 2, operations: 1000, per_operation: 3, time: Duration::from_millis(50) };
        let all = measure(plan, |_| (), |(), _| Ok(())).unwrap();
        assert!(all.finished());
        assert_eq!(all.done, [500, 500]);
        let slow = |(): &mut (), _| {
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        };
        let part = measure(plan, |_| (), slow).unwrap();
        assert!(!part.finished() && part.operations() > 0);
        assert_eq!(part.line("ops")["finished"], false);
        assert_eq!(part.line("ops")["operations"], part.operations());
    }

    #[test]
    fn a_failure_ends_all_threads() {
        let plan = Plan { threads: 2, operations: u64::MAX, per_operation: 1, time: Duration::from_secs(60) };
        let failing = |(): &mut (), number: u64| if number == 1000 { Err("full".into()) } else { Ok(()) };
        assert_eq!(measure(plan, |_| (), failing).unwrap_err().to_string(), "full");
    }
}
