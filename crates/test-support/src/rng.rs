//! Seeded random numbers: the same seed gives the same run on every machine and in every version of this crate.

use std::ops::Range;
use std::{env, thread};

/// Overrides the seeds of [`for_each_seed`]: only this one is run.
pub const SEED_VARIABLE: &str = "LSM_SEED";

/// A small, fast generator (the published xoshiro256\*\* with splitmix64 seeding). Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// The generator of `seed`. Neighbouring seeds give unrelated sequences.
    pub fn new(seed: u64) -> Self {
        let mut mixed = seed;
        let state = std::array::from_fn(|_| {
            mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = mixed;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^ (word >> 31)
        });
        Self { state }
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let word = s1.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        word
    }

    /// A number below `bound`, every one equally likely up to a bias of `bound / 2^64`.
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index below `len`.
    ///
    /// # Panics
    /// If `len` is zero.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "no number is in {range:?}");
        range.start + self.below(range.end - range.start)
    }

    /// True once in `times` on average; always for 1.
    ///
    /// # Panics
    /// If `times` is zero.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of `items`.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// The index of one of `weights`, in proportion to it: how a test chooses its next operation.
    ///
    /// # Panics
    /// If all weights are zero.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut rest = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            match rest.checked_sub(weight) {
                Some(less) => rest = less,
                None => return index,
            }
        }
        unreachable!("the rest is below the sum of the weights")
    }

    /// Puts `items` in any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }

    /// `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 7);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// A generator of its own, for another thread or another part of the run.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}

/// The number in an environment variable, or `default` if it is not set: how much a test does, or where it begins.
///
/// # Panics
/// If it is set to something else: a test that did less than it was told would look as if it had passed.
pub fn number_in(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}

/// Runs `test` once for each seed; if one panics, the seed that repeats it stands on standard error.
///
/// With [`SEED_VARIABLE`] set, that seed alone is run: `LSM_SEED=17 cargo test -p CRATE TEST`.
///
/// # Panics
/// If `test` does; if the variable is no number; if `seeds` is empty.
pub fn for_each_seed(seeds: Range<u64>, mut test: impl FnMut(&mut Rng)) {
    let seeds = match env::var(SEED_VARIABLE) {
        Ok(text) => {
            let seed = text.parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text} is no number"));
            vec![seed]
        }
        Err(_) => seeds.collect(),
    };
    assert!(!seeds.is_empty(), "a test without a seed cannot fail");
    for seed in seeds {
        let _told = TellSeed(seed);
        test(&mut Rng::new(seed));
    }
}

struct TellSeed(u64);

impl Drop for TellSeed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("this run repeats with {SEED_VARIABLE}={}", self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut rng = Rng::new(0);
        // splitmix64 of 0 begins with these, and xoshiro256** of that state with the next.
        assert_eq!(rng.state[0], 0xE220_A839_7B1D_CDAF);
        assert_eq!(rng.state[1], 0x6E78_9E6A_A1B9_65F4);
        assert_eq!([rng.next_u64(), rng.next_u64()], [0x99EC_5F36_CB75_F2B4, 0xBF6E_1F78_4956_452A]);
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_them() {
        let mut rng = Rng::new(1);
        let mut seen = [0_u32; 5];
        for _ in 0..1_000 {
            seen[rng.index(5)] += 1;
            assert!((3..7).contains(&rng.within(3..7)));
        }
        assert!(seen.iter().all(|&count| (120..280).contains(&count)), "{seen:?}");
        assert!(rng.one_in(1));
        assert_eq!(rng.weighted(&[0, 0, 4, 0]), 2);
        assert_eq!(rng.bytes(11).len(), 11);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Rng::new(2).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn every_seed_is_run_once() {
        if env::var_os(SEED_VARIABLE).is_some() {
            return; // Only one seed is run then; the other tests still say whether it is sound.
        }
        let mut first = Vec::new();
        for_each_seed(3..6, |rng| first.push(rng.next_u64()));
        assert_eq!(first, (3..6).map(|seed| Rng::new(seed).next_u64()).collect::<Vec<_>>());
    }
}
