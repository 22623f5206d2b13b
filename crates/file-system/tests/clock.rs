//! Time and randomness, real and simulated.

use std::collections::BTreeSet;
use std::time::Duration;

use file_system::{Clock, Environment, Randomness, SimulatedClock, SystemClock, SystemRandomness};

#[test]
fn a_simulated_clock_moves_only_when_told() {
    let clock = SimulatedClock::new();
    let start = clock.unix_time();
    assert_eq!((clock.monotonic(), clock.monotonic()), (Duration::ZERO, Duration::ZERO));
    clock.advance(Duration::from_millis(1500));
    assert_eq!(clock.monotonic(), Duration::from_millis(1500));
    assert_eq!(clock.unix_time(), start + Duration::from_millis(1500));
    // The administrator turns the clock back: monotonic time does not mind.
    clock.set_unix_time(Duration::from_secs(7));
    assert_eq!(clock.unix_time(), Duration::from_secs(7));
    clock.advance(Duration::from_secs(1));
    assert_eq!((clock.unix_time(), clock.monotonic()), (Duration::from_secs(8), Duration::from_millis(2500)));
    clock.set_unix_time(Duration::from_millis(1));
    assert_eq!(clock.unix_time(), Duration::from_millis(1), "before the clock's start");
}

#[test]
fn a_stepping_clock_passes_time_at_every_look() {
    let clock = SimulatedClock::with_step(Duration::from_nanos(3));
    let looks: Vec<u128> = (0..4).map(|_| clock.monotonic().as_nanos()).collect();
    assert_eq!(looks, [0, 3, 6, 9]);
    clock.advance(Duration::MAX);
    assert_eq!(clock.monotonic(), clock.monotonic(), "stands at the end of time");
}

#[test]
fn the_system_clock_never_goes_back() {
    let clock = SystemClock::new();
    let looks: Vec<Duration> = (0..1000).map(|_| clock.monotonic()).collect();
    assert!(looks.is_sorted());
    assert!(clock.unix_time() > Duration::from_secs(1_577_836_800), "this was written after 2020");
}

#[test]
fn system_randomness_does_not_repeat() {
    let drawn: BTreeSet<u64> = [SystemRandomness::new(), SystemRandomness::new()]
        .iter()
        .flat_map(|source| (0..5000).map(|_| source.next_u64()).collect::<Vec<_>>())
        .collect();
    assert_eq!(drawn.len(), 10_000, "a collision among 10,000 of 2^64 has a chance of 3 in 10^12");
    let ones: u32 = drawn.iter().map(|bits| bits.count_ones()).sum();
    assert!((318_000..322_000).contains(&ones), "{ones} of 640,000 bits are set");
    assert_ne!(Environment::real().randomness.next_u64(), Environment::real().randomness.next_u64());
}
