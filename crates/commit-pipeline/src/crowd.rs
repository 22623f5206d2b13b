//! Writers that are many more than the processors wait for each other without going to sleep.
//!
//! ```text
//!   stopped by the system     ├─ r·p ─ r·p ─ r·─╳─────────────────────────────────────────┤─ p ─ r·p ─   r reserved, p published
//!   others, if they sleep                       └ r·sleep  r·sleep  r·sleep …                 all woken, which stops the next
//!   others among a crowd                        └ r·yield  r·yield  r·yield …                 go on when it is their turn
//! ```
//!
//! - **P3** What is reserved behind a writer that was stopped in the middle is invisible until that one goes on, and the
//!   system lets all others run before it: each reserves one batch and waits.
//! - **P9** If all of them sleep, whoever completes the prefix wakes them all. A thread that wakes is let run at once, in the
//!   place of another writer, which is stopped in the middle: so it goes on, with a sleep for every few batches. A writer that is
//!   one of many therefore lets the others run, without sleeping, and looks again when its turn comes; some times at most,
//!   for the one that it waits for may be asleep itself.
//!
//! A delay and nothing else: no promise depends on it. Figures: `docs/decisions/0015-many-writers-yield.md`.

// Not of `sync`: it orders nothing, and models would only grow by it.
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// So many sleepers for each processor, waiting for one batch, are a crowd: fewer are cheap to wake.
const SLEEPERS_A_CORE: u64 = 4;

/// For how many batches a crowd is expected to stay after it was seen. It is seen again by whoever wakes it again.
const EXPECTED_BATCHES: u64 = 1 << 18;

/// How often a writer among a crowd lets the others run before it sleeps. Once is nearly always enough.
const YIELDS: u32 = 4;

/// Whether there are many more writers than processors.
#[derive(Debug)]
pub(crate) struct Crowd {
    /// Expected until this ticket. Written when many are woken together.
    until: CachePadded<AtomicU64>,
    least: u64,
}

impl Crowd {
    /// Nobody is there, on so many processors.
    pub(crate) fn new(cores: u64) -> Self {
        let least = cores.max(1).saturating_mul(SLEEPERS_A_CORE);
        Self { until: CachePadded::new(AtomicU64::new(0)), least }
    }

    /// So many slept until a batch before `ticket` was published.
    pub(crate) fn have_slept(&self, sleepers: u64, ticket: u64) {
        if sleepers >= self.least {
            // Relaxed, here and below: advice.
            self.until.store(ticket.saturating_add(EXPECTED_BATCHES), Ordering::Relaxed);
        }
    }

    /// Whether the writer of `ticket` is taken to be one of many.
    pub(crate) fn is_expected(&self, ticket: u64) -> bool {
        let is_expected = ticket < self.until.load(Ordering::Relaxed);
        is_expected && !planted_faults::planted("commit-pipeline-a-crowd-sleeps")
    }
}

/// Lets other threads run until `condition` holds, some times at most. Returns whether it holds.
#[cold]
pub(crate) fn yield_until(condition: impl Fn() -> bool) -> bool {
    lock_meter::waiting(|| {
        (0..YIELDS).any(|_| {
            std::thread::yield_now();
            condition()
        })
    })
}
