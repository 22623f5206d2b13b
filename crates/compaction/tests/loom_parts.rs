//! Models of a job in parts: who began it, and a helper.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p compaction --test loom_parts`
#![cfg(loom)]

use std::sync::Arc;

use compaction::{Parts, PartsFailed};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// What becomes of a part.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Written,
    Failed,
    /// Dropped, as by a panic.
    Abandoned,
}

/// A job of two parts, and what each writes outside of it, as a part writes files.
struct Job {
    parts: Parts<usize, usize>,
    /// Relaxed: a load finds what a store left only if the parts have ordered the two.
    written: [AtomicUsize; 2],
    fates: [Fate; 2],
}

impl Job {
    fn new(fates: [Fate; 2]) -> Arc<Self> {
        Arc::new(Self { parts: Parts::new(2), written: [AtomicUsize::new(0), AtomicUsize::new(0)], fates })
    }

    fn work(&self) {
        while let Some(part) = self.parts.take() {
            let index = part.index();
            self.written[index].store(index + 1, Ordering::Relaxed);
            match self.fates[index] {
                Fate::Written => part.end(Ok(index)),
                Fate::Failed => part.end(Err(index)),
                Fate::Abandoned => drop(part),
            }
        }
    }

    /// Works beside a helper, waits, and then looks at everything.
    fn lead(self: Arc<Self>) -> (Result<Vec<usize>, PartsFailed<usize, usize>>, [usize; 2]) {
        let helper = thread::spawn({
            let job = Arc::clone(&self);
            move || job.work()
        });
        self.work();
        let made = self.parts.wait();
        let written = [0, 1].map(|index| self.written[index].load(Ordering::Relaxed));
        assert!(self.parts.take().is_none(), "C4: nothing is begun once the wait is over");
        helper.join().unwrap();
        (made, written)
    }
}

/// C4, P9: the wait ends, and not before every part has: what the parts wrote is there for who began the job, whoever wrote
/// it.
#[test]
fn the_wait_ends_when_every_part_has() {
    loom::model(|| {
        let (made, written) = Job::new([Fate::Written, Fate::Written]).lead();
        assert_eq!((made, written), (Ok(vec![0, 1]), [1, 2]));
    });
}

/// C4, P9: a part that fails or is abandoned ends the job. What ran beside it has ended by then, and what it made is told, to
/// be removed.
#[test]
fn a_part_that_fails_ends_the_job_and_leaves_none_running() {
    for fate in [Fate::Failed, Fate::Abandoned] {
        loom::model(move || {
            let (made, written) = Job::new([fate, Fate::Written]).lead();
            let failed = made.expect_err("C4: a part failed");
            assert_eq!(failed.cause, (fate == Fate::Failed).then_some(0));
            // The other was never begun, or ran to its end.
            let second = if written[1] == 0 { vec![] } else { vec![1] };
            assert_eq!((failed.made, written[0]), (second, 1));
        });
    }
}
