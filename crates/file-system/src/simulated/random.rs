//! Reproducible random numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Randomness;

/// The increment of the generator: odd, so that every state is visited.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// Turns a counter into random bits (the finisher of SplitMix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A small generator for decisions inside the simulation.
#[derive(Debug, Clone)]
pub(super) struct SplitMix {
    state: u64,
}

impl SplitMix {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: mix(seed.wrapping_add(STEP)) }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number below `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `numerator` of `denominator` cases.
    pub(super) fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }
}

/// Random numbers that a seed repeats.
#[derive(Debug)]
pub struct SimulatedRandomness {
    state: AtomicU64,
}

impl SimulatedRandomness {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(mix(seed.wrapping_add(STEP))) }
    }
}

impl Randomness for SimulatedRandomness {
    fn next_u64(&self) -> u64 {
        // Relaxed: each caller takes one place of the sequence, and nothing else is ordered by it.
        mix(self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP))
    }
}
