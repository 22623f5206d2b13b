//! Keys and values made from numbers, so that every answer can be checked without keeping what was written.
//!
//! ```text
//!   key    8 scattered bytes, then the number (u64 BE): neighbours in the order differ early
//!   value  number (u64 LE) | generation (u32 LE) | pieces of 44 bytes: 22 that look random, 22 dots
//! ```
//!
//! So almost half of a value compresses away, as is usual in measurements of this kind.

use std::sync::OnceLock;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 16;

/// Bytes of a value, but for the rows of large values.
pub(crate) const VALUE_BYTES: usize = 100;

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

/// Bytes of a value before its pieces.
const VALUE_HEADER_BYTES: usize = 12;

/// Bytes of a piece: two of them make a value of the usual size.
const PIECE_BYTES: usize = 44;
const _: () = assert!(VALUE_HEADER_BYTES + 2 * PIECE_BYTES == VALUE_BYTES);

/// Scatters numbers: different ones stay different.
#[inline]
pub(crate) fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

/// The key of a row.
#[inline]
pub(crate) fn key(number: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Fills `value` with what row `number` got at its `generation`-th writing.
#[inline]
pub(crate) fn fill_value(number: u64, generation: u32, value: &mut [u8]) {
    value[..8].copy_from_slice(&number.to_le_bytes());
    value[8..VALUE_HEADER_BYTES].copy_from_slice(&generation.to_le_bytes());
    let mut word = mix(number ^ u64::from(generation) << 40);
    for piece in value[VALUE_HEADER_BYTES..].chunks_mut(PIECE_BYTES) {
        let (random, plain) = piece.split_at_mut(piece.len().min(PIECE_BYTES / 2));
        for part in random.chunks_mut(8) {
            part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
            word = word.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(1);
        }
        plain.fill(b'.');
    }
}

/// A value of the usual size.
#[inline]
pub(crate) fn value(number: u64, generation: u32) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    fill_value(number, generation, &mut value);
    value
}

/// Panics unless `found` is the value of row `number` as of `generation`.
#[inline]
pub(crate) fn check_value(number: u64, generation: u32, found: &[u8]) {
    assert!(
        found == value(number, generation),
        "a wrong value in row {number}, generation {generation}: {}",
        found.escape_ascii()
    );
}

/// Panics unless `found` is a value that row `number` got at some time; says which generation.
#[inline]
pub(crate) fn check_any_value(number: u64, found: &[u8]) -> u32 {
    let generation = match found.get(8..VALUE_HEADER_BYTES) {
        Some(bytes) => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        None => panic!("a value of {} bytes in row {number}", found.len()),
    };
    check_value(number, generation, found);
    generation
}

/// Panics unless `found` is the value of `bytes` bytes of row `number`; `scratch` is for making what is expected.
pub(crate) fn check_large_value(number: u64, found: &[u8], bytes: usize, scratch: &mut Vec<u8>) {
    scratch.resize(bytes, 0);
    fill_value(number, 0, scratch);
    assert!(found == &scratch[..], "a wrong value of {} bytes in row {number}", found.len());
}

/// The number that stands in a key. Panics unless the whole key is that number's.
#[inline]
pub(crate) fn number_of(found: &[u8]) -> u64 {
    let number = match found.get(8..KEY_BYTES).and_then(|bytes| bytes.try_into().ok()) {
        Some(bytes) => u64::from_be_bytes(bytes),
        None => panic!("a key of {} bytes", found.len()),
    };
    assert!(found == key(number), "a key that nobody wrote: {}", found.escape_ascii());
    number
}

/// The rows `0..count`; their order by key is made when it is asked for.
pub(crate) struct Rows {
    count: u64,
    sorted: OnceLock<Vec<u32>>,
}

impl Rows {
    /// `count` rows, fewer than 2^32.
    pub(crate) fn new(count: u64) -> Self {
        Self { count, sorted: OnceLock::new() }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The numbers in the order of their keys.
    pub(crate) fn sorted(&self) -> &[u32] {
        self.sorted.get_or_init(|| {
            let mut sorted: Vec<u32> = (0..self.count as u32).collect();
            sorted.sort_unstable_by_key(|&number| mix(u64::from(number)));
            sorted
        })
    }
}

/// Random numbers, the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A sequence of its own for each `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed) << 32)
    }

    /// The next number.
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// The next number, below `count`.
    #[inline]
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(count)) >> 64) as u64
    }

    /// The next number, from 0 to 1.
    #[inline]
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks of which the first are asked for most, after Gray et al., *Quickly generating billion-record synthetic
/// databases* (SIGMOD 1994), with the skew that YCSB uses.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    count: f64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

/// The skew.
const THETA: f64 = 0.99;

impl Zipf {
    /// Ranks below `count`.
    pub(crate) fn new(count: u64) -> Self {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum();
        let zeta_two = 1.0 + 0.5f64.powf(THETA);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - THETA)) / (1.0 - zeta_two / zeta);
        Self { count: count as f64, alpha: 1.0 / (1.0 - THETA), zeta, eta }
    }

    /// A rank.
    #[inline]
    pub(crate) fn rank(&self, random: &mut Random) -> u64 {
        let fraction = random.fraction();
        let scaled = fraction * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(THETA) {
            1
        } else {
            let rank = self.count * (self.eta * fraction - self.eta + 1.0).powf(self.alpha);
            (rank as u64).min(self.count as u64 - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_number_and_sorts_as_its_rank_says() {
        let rows = Rows::new(1000);
        let keys: Vec<Key> = rows.sorted().iter().map(|&number| key(u64::from(number))).collect();
        assert!(keys.is_sorted());
        for (key, &number) in keys.iter().zip(rows.sorted()) {
            assert_eq!(number_of(key), u64::from(number));
        }
    }

    #[test]
    fn a_value_tells_its_generation_and_almost_half_of_it_is_plain() {
        let made = value(7, 3);
        assert_eq!(check_any_value(7, &made), 3);
        assert!((44..50).contains(&made.iter().filter(|byte| **byte == b'.').count()));
        for wrong in [value(8, 3), value(7, 4)] {
            assert!(std::panic::catch_unwind(|| check_value(7, 3, &wrong)).is_err());
        }
        let mut changed = made;
        changed[99] ^= 1;
        assert!(std::panic::catch_unwind(|| check_any_value(7, &changed)).is_err());
    }

    #[test]
    fn the_first_ranks_are_asked_for_most() {
        let (zipf, mut random) = (Zipf::new(1000), Random::new(1));
        let mut seen = vec![0u32; 1000];
        for _ in 0..100_000 {
            seen[zipf.rank(&mut random) as usize] += 1;
        }
        // 1 / zeta(1000, 0.99) is 0.129.
        assert!((12_000..14_000).contains(&seen[0]), "{}", seen[0]);
        assert!(seen[0] > seen[1] && seen[1] > seen[10] && seen[10] > seen[500]);
        assert!(seen[500..].iter().sum::<u32>() > 5_000);
    }
}
