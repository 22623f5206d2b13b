//! Time that passes when it is told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Clock;

/// A clock that stands still, unless told to advance or made to step at every look.
///
/// Reaches about 584 years, then stands.
#[derive(Debug)]
pub struct SimulatedClock {
    /// Nanoseconds since the start.
    monotonic: AtomicU64,
    /// Nanoseconds from the epoch to the start.
    epoch: AtomicU64,
    /// Nanoseconds that pass with every look.
    step: u64,
}

impl SimulatedClock {
    /// A clock that stands at zero; its start is 2020-01-01 00:00 UTC.
    pub fn new() -> Self {
        Self::with_step(Duration::ZERO)
    }

    /// A clock on which `step` passes at every look at either time.
    pub fn with_step(step: Duration) -> Self {
        let start = Duration::from_secs(1_577_836_800);
        Self { monotonic: AtomicU64::new(0), epoch: AtomicU64::new(nanoseconds(start)), step: nanoseconds(step) }
    }

    /// Lets `time` pass.
    pub fn advance(&self, time: Duration) {
        self.pass(nanoseconds(time));
    }

    /// Sets the time since the epoch, also backwards, as an administrator may; the monotonic time is not touched.
    pub fn set_unix_time(&self, time: Duration) {
        // Relaxed throughout: each value is a number by itself, and a read-modify-write never loses an advance.
        let passed = self.monotonic.load(Ordering::Relaxed);
        self.epoch.store(nanoseconds(time).wrapping_sub(passed), Ordering::Relaxed);
    }

    /// Lets `nanoseconds` pass and returns the time before.
    fn pass(&self, nanoseconds: u64) -> u64 {
        let later = |now: u64| Some(now.saturating_add(nanoseconds));
        // Relaxed: see `set_unix_time`.
        self.monotonic.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).unwrap_or_else(|now| now)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.pass(self.step))
    }

    fn unix_time(&self) -> Duration {
        // Relaxed: see `set_unix_time`.
        let epoch = self.epoch.load(Ordering::Relaxed);
        Duration::from_nanos(self.pass(self.step).wrapping_add(epoch))
    }
}
