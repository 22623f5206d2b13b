//! What is written: five streams of puts and deletes, each repeated exactly by its seed.

use std::fmt;

/// A kind of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Workload {
    /// Puts of keys that are all equally likely.
    Uniform,
    /// Puts of keys of which few are hot: the one of rank `r` in proportion to `r^-0.99`. Ranks are scattered over the
    /// keys, so that hot keys lie everywhere.
    Zipfian,
    /// Puts of ascending keys, each once.
    Sequential,
    /// As many deletes as puts, all keys equally likely for both.
    DeleteHeavy,
    /// A thousand series grow in turn, each at its own end. Once a series has its retention each new point is followed by
    /// the delete of its oldest.
    TimeSeries,
}

impl Workload {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Uniform, Self::Zipfian, Self::Sequential, Self::DeleteHeavy, Self::TimeSeries];
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::Sequential => "sequential",
            Self::DeleteHeavy => "delete-heavy",
            Self::TimeSeries => "time-series",
        })
    }
}

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// The key, below 2³¹.
    pub key: u32,
    /// Whether it is a delete.
    pub is_delete: bool,
}

/// The series of [`Workload::TimeSeries`].
const SERIES: u64 = 1000;

/// How skewed [`Workload::Zipfian`] is.
const ZIPF_EXPONENT: f64 = 0.99;

/// An endless stream of writes.
#[derive(Debug, Clone)]
pub struct Writes {
    workload: Workload,
    /// How many keys there are; with [`Workload::TimeSeries`] how many are retained.
    keys: u64,
    /// How many keys a series may come to have.
    series_room: u64,
    zipf: Option<Zipf>,
    random: Random,
    next: u64,
    /// The delete that follows the last put.
    expired: Option<u32>,
}

impl Writes {
    /// A stream over `keys` keys of which `writes` writes will be taken. [`Workload::Sequential`] writes as many keys as
    /// there are writes.
    ///
    /// # Panics
    /// If a key would not be below 2³¹.
    pub fn new(workload: Workload, keys: u64, writes: u64, seed: u64) -> Self {
        let series_room = writes.div_ceil(SERIES) + 1;
        let most = match workload {
            Workload::Sequential => writes,
            Workload::TimeSeries => series_room * SERIES,
            _ => keys,
        };
        assert!(keys > 0 && most < 1 << 31, "keys are numbers below 2^31");
        let zipf = (workload == Workload::Zipfian).then(|| Zipf::new(keys));
        Self { workload, keys, series_room, zipf, random: Random(seed), next: 0, expired: None }
    }
}

impl Iterator for Writes {
    type Item = Write;

    fn next(&mut self) -> Option<Write> {
        if let Some(key) = self.expired.take() {
            return Some(Write { key, is_delete: true });
        }
        let number = self.next;
        self.next += 1;
        let put = |key: u64| Write { key: key as u32, is_delete: false };
        Some(match self.workload {
            Workload::Uniform => put(self.random.below(self.keys)),
            Workload::Zipfian => {
                let rank = self.zipf.as_ref()?.rank(self.random.unit());
                // A prime that is no divisor of anything this small: each rank has a key of its own.
                put((u128::from(rank) * 2_654_435_761 % u128::from(self.keys)) as u64)
            }
            Workload::Sequential => put(number),
            Workload::DeleteHeavy => {
                let key = self.random.below(self.keys) as u32;
                Write { key, is_delete: self.random.below(2) == 0 }
            }
            Workload::TimeSeries => {
                let (series, time) = (number % SERIES, number / SERIES);
                let first = series * self.series_room;
                let retained = self.keys.div_ceil(SERIES);
                self.expired = time.checked_sub(retained).map(|expired| (first + expired) as u32);
                put(first + time)
            }
        })
    }
}

/// How many distinct keys `writes` writes to `keys` equally likely keys are expected to hit: a key is missed by all of
/// them with probability `(1 - 1/keys)^writes`.
pub fn expected_distinct(keys: u64, writes: u64) -> f64 {
    let missed = (writes as f64 * (-1.0 / keys as f64).ln_1p()).exp();
    keys as f64 * (1.0 - missed)
}

/// Ranks that are likely in proportion to a power, by inverting the integral that approximates their sum.
#[derive(Debug, Clone)]
struct Zipf {
    count: f64,
    sum: f64,
    stretch: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let sum = (1..=count).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum();
        let first_two = 1.0 + 0.5_f64.powf(ZIPF_EXPONENT);
        let stretch = (1.0 - (2.0 / count as f64).powf(1.0 - ZIPF_EXPONENT)) / (1.0 - first_two / sum);
        Self { count: count as f64, sum, stretch }
    }

    /// The rank, from 0, at `unit` of the distribution. The first two are exact.
    fn rank(&self, unit: f64) -> u64 {
        let reached = unit * self.sum;
        if reached < 1.0 {
            return 0;
        }
        if reached < 1.0 + 0.5_f64.powf(ZIPF_EXPONENT) {
            return 1;
        }
        let base = self.stretch * unit - self.stretch + 1.0;
        let rank = self.count * base.max(0.0).powf(1.0 / (1.0 - ZIPF_EXPONENT));
        (rank as u64).min(self.count as u64 - 1)
    }
}

/// A counter, mixed (the published splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn count(workload: Workload, keys: u64, writes: u64) -> HashMap<u32, u64> {
        let mut counts = HashMap::new();
        for write in Writes::new(workload, keys, writes, 1).take(writes as usize) {
            *counts.entry(write.key).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_seed_repeats_its_writes() {
        for workload in Workload::ALL {
            let stream = |seed| Writes::new(workload, 5000, 20_000, seed).take(20_000).collect::<Vec<_>>();
            assert_eq!(stream(3), stream(3), "{workload}");
            let is_random = !matches!(workload, Workload::Sequential | Workload::TimeSeries);
            assert_eq!(stream(3) != stream(4), is_random, "{workload}");
        }
    }

    #[test]
    fn uniform_writes_hit_as_many_keys_as_the_formula_says() {
        for (keys, writes) in [(10_000, 1000), (10_000, 10_000), (10_000, 40_000)] {
            let found = count(Workload::Uniform, keys, writes).len() as f64;
            let expected = expected_distinct(keys, writes);
            assert!((found / expected - 1.0).abs() < 0.02, "{writes} of {keys}: {found}, expected {expected}");
        }
    }

    /// The share of the hottest keys is what the power says, and each rank has a key of its own.
    #[test]
    fn zipfian_writes_favour_ranks_by_the_power() {
        let (keys, writes) = (1000_u64, 400_000_u64);
        let counts = count(Workload::Zipfian, keys, writes);
        let sum: f64 = (1..=keys).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum();
        let mut found: Vec<u64> = counts.into_values().collect();
        found.sort_unstable_by(|left, right| right.cmp(left));
        assert!(found.len() > 900, "all but the coldest keys are met: {}", found.len());
        for ranks in [1, 2, 10, 100, 500] {
            let expected: f64 = (1..=ranks).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT)).sum::<f64>() / sum;
            let share = found[..ranks].iter().sum::<u64>() as f64 / writes as f64;
            assert!((share / expected - 1.0).abs() < 0.05, "the first {ranks}: {share}, expected {expected}");
        }
    }

    #[test]
    fn a_time_series_keeps_what_is_retained() {
        let mut live = std::collections::BTreeSet::new();
        for write in Writes::new(Workload::TimeSeries, 10_000, 100_000, 1).take(100_000) {
            if write.is_delete {
                assert!(live.remove(&write.key), "only what stands is deleted");
            } else {
                assert!(live.insert(write.key), "each point once");
            }
        }
        assert!((10_000..=10_001).contains(&live.len()), "{}", live.len());
    }
}
