//! How fast writers may go: the debt in, a delay out. Pure, but for a limiter that reads an injected clock.
//!
//! ```text
//!   delay per KiB
//!     max ┤                      ╱│ hard: wait until a job has paid
//!         │                   ╱   │
//!         │                ╱      │
//!       0 ┼──────────────╱────────┼──▶ debt
//!         0           soft       hard
//!                     85 %
//! ```
//!
//! - **C1, P10** Below 85 % of every limit a writer goes on. Between that and the limit it is delayed in proportion to
//!   how much of the last 15 % is used, and to the bytes it writes. At the limit it waits. All before it reserves.
//!
//! The curve is a straight line from 0 at the soft limit to [`Limits::delay_per_kib_max`] at the hard one; of several
//! debts the worst counts. A compaction that keeps up with some rate therefore meets the writers at the one point of
//! the line where they write at that rate: the debt settles there instead of swinging between free and stopped. All
//! writers of a keyspace share one rate ([`Throttle`]): many are not let through faster than one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use file_system::Clock;

use crate::{CompactionOptions, Strategy};

/// The hard limits; the soft ones are 85 % of them. A limit of 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs in level 0. The default is twice what the picker calls full at most
    /// ([`CompactionOptions::l0_runs_patient`](crate::CompactionOptions::l0_runs_patient)): those that arrive while one
    /// compaction runs, and those that arrived before it.
    pub l0_runs: u64,
    /// Bytes of sealed memtables that are not flushed.
    pub sealed_bytes: u64,
    /// Bytes that compaction has to read before every level is within its target
    /// ([`pending_bytes`](crate::pick::pending_bytes)).
    pub pending_bytes: u64,
    /// Bytes that all memtables of a database may hold (P13).
    pub memory_bytes: u64,
    /// Bytes that the log of a database may have (L5).
    pub log_bytes: u64,
    /// How long a writer is delayed for each KiB it writes when a debt is just below its hard limit.
    pub delay_per_kib_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            l0_runs: 24,
            sealed_bytes: 256 << 20,
            pending_bytes: 64 << 30,
            memory_bytes: 0,
            log_bytes: 0,
            // A mebibyte in a second: what is left of the room then outlasts a job that makes more.
            delay_per_kib_max: Duration::from_millis(1),
        }
    }
}

impl Limits {
    /// Those of a keyspace that is compacted as `options` say, of which a flush is due at `write_buffer_bytes` of sealed
    /// memtables of `memtable_bytes` each; none of the database that it belongs to.
    pub fn of_keyspace(options: &CompactionOptions, write_buffer_bytes: u64, memtable_bytes: u64) -> Self {
        Self {
            l0_runs: match options.strategy {
                // Those that the picker calls full, and as many that arrive while one compaction runs.
                Strategy::Leveled => u64::from(options.l0_runs_patient) * 2,
                // No job would ever bring their number down.
                Strategy::Fifo => 0,
                Strategy::Tiered => u64::from(options.l0_runs_max) * 3,
            },
            sealed_bytes: write_buffer_bytes.max(2 * memtable_bytes) * 2,
            pending_bytes: match options.strategy {
                // Its runs bound it; and a merge of whole runs may be as large as the data, which no writer is to wait for.
                Strategy::Tiered => 0,
                Strategy::Leveled | Strategy::Fifo => options.level_base_bytes.saturating_mul(16).max(64 << 20),
            },
            ..Self::default()
        }
    }
}

/// What there is of each limited thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Runs in level 0.
    pub l0_runs: u64,
    /// Runs of level 0 that the sealed memtables will become, in thousandths: they count as if they were there, so that
    /// the debt grows by memtables and not by leaps, and no flush takes it past the limit.
    pub l0_runs_coming_thousandths: u64,
    /// Bytes of sealed memtables that are not flushed.
    pub sealed_bytes: u64,
    /// Bytes that compaction has to read.
    pub pending_bytes: u64,
    /// Bytes that all memtables of the database hold.
    pub memory_bytes: u64,
    /// Bytes of the segments of the database's log.
    pub log_bytes: u64,
}

/// Which limit holds a writer up; what metrics count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Debt {
    /// [`Limits::l0_runs`].
    L0Runs,
    /// [`Limits::sealed_bytes`].
    SealedBytes,
    /// [`Limits::pending_bytes`].
    PendingBytes,
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::log_bytes`].
    LogBytes,
}

impl fmt::Display for Debt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L0Runs => "runs in level 0",
            Self::SealedBytes => "bytes of sealed memtables",
            Self::PendingBytes => "bytes waiting for compaction",
            Self::Memory => "memory of the database",
            Self::LogBytes => "bytes of the log",
        })
    }
}

/// What a writer does before it reserves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nothing.
    Proceed,
    /// It goes on that much later. Often far below what a sleep can measure: give it to a [`Throttle`].
    Delay(Duration, Debt),
    /// It waits until the debt is below the hard limit.
    Wait(Debt),
}

/// What a writer of `bytes` bytes does under `load`. Costs a few divisions; no clock is read.
pub fn pace(limits: &Limits, load: &Load, bytes: u64) -> Pace {
    let l0_runs = load.l0_runs.saturating_mul(1000).saturating_add(load.l0_runs_coming_thousandths);
    let debts = [
        (limits.l0_runs.saturating_mul(1000), l0_runs, Debt::L0Runs),
        (limits.sealed_bytes, load.sealed_bytes, Debt::SealedBytes),
        (limits.pending_bytes, load.pending_bytes, Debt::PendingBytes),
        (limits.memory_bytes, load.memory_bytes, Debt::Memory),
        (limits.log_bytes, load.log_bytes, Debt::LogBytes),
    ];
    let mut worst = (0, Debt::L0Runs);
    for (hard, found, debt) in debts {
        if hard == 0 {
            continue;
        }
        if found >= hard {
            return Pace::Wait(debt);
        }
        let used = used_thousandths(hard, found);
        if used > worst.0 {
            worst = (used, debt);
        }
    }
    let (used, debt) = worst;
    let nanos = limits.delay_per_kib_max.as_nanos() * u128::from(used) * u128::from(bytes) / 1000 / 1024;
    match u64::try_from(nanos).unwrap_or(u64::MAX) {
        0 => Pace::Proceed,
        nanos => Pace::Delay(Duration::from_nanos(nanos), debt),
    }
}

/// How much of the room between the soft limit and the hard one is used, in thousandths; 0 up to the soft limit.
fn used_thousandths(hard: u64, found: u64) -> u64 {
    // In hundredths of the limit's unit, so that 85 % of a small limit is exact.
    let (hard, found) = (u128::from(hard) * 100, u128::from(found) * 100);
    let soft = hard / 100 * 85;
    (found.saturating_sub(soft) * 1000 / (hard - soft)) as u64
}

/// Makes one rate of the delays of all writers of a keyspace, and gathers those that are too short to sleep.
///
/// Each delay pushes a shared point in time forward; a writer sleeps until that point once it is worth a sleep. So the
/// delays of several writers add up instead of passing side by side.
#[derive(Debug, Default)]
pub struct Throttle {
    /// When all delays so far are over, in nanoseconds of the caller's clock.
    over_at: AtomicU64,
}

impl Throttle {
    /// What is worth sleeping: shorter sleeps take much longer than asked. As much is made up for of what a sleep took
    /// longer.
    pub const SLEEP_MIN: Duration = Duration::from_millis(1);

    /// Adds a delay. Returns how long the caller sleeps now, if that is worth it.
    pub fn owe(&self, delay: Duration, now: Duration) -> Option<Duration> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (delay, earliest) = (nanos(delay), nanos(now.saturating_sub(Self::SLEEP_MIN)));
        let later = |over_at: u64| over_at.max(earliest).saturating_add(delay);
        // Relaxed: the number stands alone, nothing is published through it, and read-modify-writes of it lose no delay.
        let before = self.over_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |over_at| Some(later(over_at)));
        let (Ok(before) | Err(before)) = before;
        let sleep = Duration::from_nanos(later(before)).saturating_sub(now);
        (sleep >= Self::SLEEP_MIN).then_some(sleep)
    }
}

/// Lets bytes through at a rate: background jobs ask it before they write.
///
/// Each call pushes a shared point in time forward by what its bytes cost and waits for where the point was, so that
/// any number of jobs share the rate, and an idle time of up to [`RateLimiter::BURST`] is made up for.
#[derive(Debug)]
pub struct RateLimiter {
    clock: Arc<dyn Clock>,
    /// Bytes per second; 0 for no limit.
    bytes_per_second: AtomicU64,
    /// When everything let through so far has been paid for, on the clock's monotonic time.
    paid_until: Mutex<Duration>,
}

impl RateLimiter {
    /// How much idle time is made up for.
    pub const BURST: Duration = Duration::from_millis(100);

    /// A limiter of `bytes_per_second`; 0 for no limit.
    pub fn new(clock: Arc<dyn Clock>, bytes_per_second: u64) -> Self {
        let paid_until = Mutex::new(clock.monotonic());
        Self { clock, bytes_per_second: AtomicU64::new(bytes_per_second), paid_until }
    }

    /// Changes the rate, also for jobs that are running; 0 for no limit.
    pub fn set_rate(&self, bytes_per_second: u64) {
        // Relaxed: a rate that is seen a little later is as good.
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Lets `bytes` through: returns how long the caller waits before it writes them. Never waits itself.
    pub fn take(&self, bytes: u64) -> Duration {
        // Relaxed: see `set_rate`.
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = self.clock.monotonic();
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (*paid_until).max(now.saturating_sub(Self::BURST));
        *paid_until = start.saturating_add(cost);
        start.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        l0_runs: 20,
        sealed_bytes: 1000,
        pending_bytes: 100_000,
        memory_bytes: 1000,
        log_bytes: 1000,
        delay_per_kib_max: Duration::from_micros(1000),
    };

    fn load(l0_runs: u64, sealed_bytes: u64, pending_bytes: u64) -> Load {
        Load { l0_runs, sealed_bytes, pending_bytes, ..Load::default() }
    }

    /// P10: up to 85 % of every limit nobody is held up.
    #[test]
    fn below_the_soft_limit_writers_go_on() {
        assert_eq!(pace(&LIMITS, &load(17, 850, 85_000), 1 << 20), Pace::Proceed);
        assert_eq!(pace(&LIMITS, &Load::default(), u64::MAX), Pace::Proceed);
    }

    /// P10: the delay grows with the debt and with the bytes, in proportion.
    #[test]
    fn between_the_limits_the_delay_is_in_proportion_to_the_debt() {
        let delay = |found, bytes| match pace(&LIMITS, &load(0, 0, found), bytes) {
            Pace::Delay(delay, Debt::PendingBytes) => delay,
            other => panic!("{other:?}"),
        };
        assert_eq!(delay(88_000, 1024), Duration::from_micros(200), "a fifth of the way");
        assert_eq!(delay(94_000, 1024), Duration::from_micros(600));
        assert_eq!(delay(94_000, 4096), Duration::from_micros(2400));
        assert_eq!(pace(&LIMITS, &load(0, 0, 94_000), 0), Pace::Proceed, "no bytes, no delay");
    }

    /// P10: of several debts the worst counts.
    #[test]
    fn the_worst_debt_decides() {
        assert_eq!(
            pace(&LIMITS, &load(18, 910, 88_000), 1024),
            Pace::Delay(Duration::from_micros(400), Debt::SealedBytes),
        );
        assert_eq!(pace(&LIMITS, &load(18, 910, 100_000), 1024), Pace::Wait(Debt::PendingBytes));
    }

    /// P10: at the hard limit a writer waits.
    #[test]
    fn at_the_hard_limit_writers_wait() {
        assert_eq!(pace(&LIMITS, &load(20, 0, 0), 1), Pace::Wait(Debt::L0Runs));
        assert_eq!(pace(&LIMITS, &load(0, 1000, 0), 1), Pace::Wait(Debt::SealedBytes));
        let memory = |memory_bytes| pace(&LIMITS, &Load { memory_bytes, ..Load::default() }, 1024);
        assert_eq!(memory(1000), Pace::Wait(Debt::Memory));
        assert_eq!(memory(910), Pace::Delay(Duration::from_micros(400), Debt::Memory));
        let log = |log_bytes| pace(&LIMITS, &Load { log_bytes, ..Load::default() }, 1024);
        assert_eq!(log(1000), Pace::Wait(Debt::LogBytes));
        assert_eq!(log(910), Pace::Delay(Duration::from_micros(400), Debt::LogBytes));
        assert_eq!(pace(&Limits { l0_runs: 0, ..LIMITS }, &load(u64::MAX, 0, 0), 1), Pace::Proceed, "0 is no limit");
    }

    /// P10: extreme numbers neither overflow nor divide by zero.
    #[test]
    fn extremes_are_harmless() {
        let limits = Limits { pending_bytes: u64::MAX, delay_per_kib_max: Duration::from_secs(1), ..LIMITS };
        let Pace::Delay(delay, _) = pace(&limits, &load(0, 0, u64::MAX - 1), u64::MAX) else { panic!() };
        assert!(delay > Duration::from_secs(3600));
        let tiny = Limits { l0_runs: 1, sealed_bytes: 1, pending_bytes: 1, ..LIMITS };
        assert_eq!(pace(&tiny, &Load::default(), u64::MAX), Pace::Proceed);
    }

    /// C1, P10: what a flush will bring to level 0 counts before it is there.
    #[test]
    fn runs_that_are_coming_count() {
        let coming = |thousandths| Load { l0_runs: 17, l0_runs_coming_thousandths: thousandths, ..Load::default() };
        assert_eq!(pace(&LIMITS, &coming(0), 1024), Pace::Proceed);
        let half_a_run = Pace::Delay(Duration::from_micros(166), Debt::L0Runs);
        assert_eq!(
            pace(&Limits { delay_per_kib_max: Duration::from_micros(1000), ..LIMITS }, &coming(500), 1024),
            half_a_run
        );
        assert_eq!(pace(&LIMITS, &coming(3000), 1024), Pace::Wait(Debt::L0Runs));
    }

    #[test]
    fn short_delays_gather_into_one_that_can_be_slept() {
        let (throttle, now) = (Throttle::default(), Duration::from_secs(1));
        let delay = Duration::from_micros(600);
        // The first millisecond is what a sleep before may have taken longer.
        assert_eq!([throttle.owe(delay, now), throttle.owe(delay, now), throttle.owe(delay, now)], [None; 3]);
        assert_eq!(throttle.owe(delay, now), Some(Duration::from_micros(1400)));
        let later = now + Duration::from_millis(10);
        assert_eq!(throttle.owe(delay, later), None, "what was slept is no longer owed");
        assert!(throttle.owe(Duration::MAX, later).is_some());
    }

    /// P10: the delays of writers that come at the same time add up: each sleeps until those before it are over too.
    #[test]
    fn several_writers_are_not_let_through_faster_than_one() {
        let (throttle, now) = (Throttle::default(), Duration::from_secs(1));
        let slept = std::array::from_fn(|_| throttle.owe(Duration::from_millis(5), now));
        assert_eq!(slept, [4, 9, 14, 19].map(|ms| Some(Duration::from_millis(ms))));
    }

    #[derive(Debug, Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn unix_time(&self) -> Duration {
            self.monotonic()
        }
    }

    #[test]
    fn the_limiter_lets_bytes_through_at_its_rate() {
        let clock = Arc::new(HandClock::default());
        clock.0.store(10_000, Ordering::Relaxed);
        let limiter = RateLimiter::new(clock.clone(), 1000);
        assert_eq!(limiter.take(500), Duration::ZERO, "the first goes at once");
        assert_eq!(limiter.take(500), Duration::from_millis(500));
        assert_eq!(limiter.take(1000), Duration::from_secs(1));
        clock.0.store(12_000, Ordering::Relaxed);
        assert_eq!(limiter.take(10), Duration::ZERO, "all is paid");
        clock.0.store(100_000, Ordering::Relaxed);
        let waits = [limiter.take(100), limiter.take(100), limiter.take(100)];
        assert_eq!(waits, [Duration::ZERO, Duration::ZERO, Duration::from_millis(100)], "idle time counts a little");
        limiter.set_rate(0);
        assert_eq!(limiter.take(u64::MAX), Duration::ZERO);
    }
}
