//! Keys and values made from numbers, so that a row is known without being kept.

/// Bytes of a key.
pub const KEY_BYTES: usize = 16;

/// Bytes of a value.
pub const VALUE_BYTES: usize = 100;

/// What keys look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyShape {
    /// Eight scattered bytes, then the number: neighbours in the order differ early.
    Scattered,
    /// Sixteen decimal digits of a scattered number below the number of keys, so that all keys begin alike.
    Decimal,
}

/// A set of rows, numbered from 0 in the order of a random fill.
#[derive(Debug)]
pub struct Rows {
    shape: KeyShape,
    count: u32,
    /// The numbers in the order of their keys.
    sorted: Vec<u32>,
    /// Decimal keys: the number that stands in the key of each row, and beyond, a number that stands in none.
    places: Vec<u32>,
}

impl Rows {
    /// `count` rows. The rows from `count` to `2 * count` are missing ones: their keys lie among the others.
    pub fn new(shape: KeyShape, count: u32) -> Self {
        let mut rows = Self { shape, count, sorted: Vec::new(), places: Vec::new() };
        if shape == KeyShape::Decimal {
            rows.places = (0..count * 2).collect();
            // Fisher and Yates, by the same scattering as everything here.
            for at in (1..rows.places.len()).rev() {
                rows.places.swap(at, (mix(at as u64) % (at as u64 + 1)) as usize);
            }
        }
        rows.sorted = (0..count).collect();
        let mut sorted = std::mem::take(&mut rows.sorted);
        sorted.sort_unstable_by_key(|&number| rows.key(number));
        rows.sorted = sorted;
        rows
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The key of row `number`, below twice the count.
    #[inline]
    pub fn key(&self, number: u32) -> [u8; KEY_BYTES] {
        let mut key = [b'0'; KEY_BYTES];
        match self.shape {
            KeyShape::Scattered => {
                key[..8].copy_from_slice(&mix(u64::from(number)).to_be_bytes());
                key[8..].copy_from_slice(&u64::from(number).to_be_bytes());
            }
            KeyShape::Decimal => {
                let mut rest = self.places[number as usize];
                let mut at = KEY_BYTES;
                while rest > 0 {
                    at -= 1;
                    key[at] = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
            }
        }
        key
    }

    /// The value that row `number` got at its `round`-th writing.
    #[inline]
    pub fn value(number: u32, round: u32) -> [u8; VALUE_BYTES] {
        let mut value = [0; VALUE_BYTES];
        let mut word = mix(u64::from(round) << 32 | u64::from(number));
        for part in value.chunks_mut(8) {
            part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
            word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
        }
        value
    }

    /// The number of the row at `rank` in key order.
    #[inline]
    pub fn at_rank(&self, rank: u32) -> u32 {
        self.sorted[rank as usize]
    }

    /// Panics unless `key` and `value` are row `number` as of `round`.
    #[inline]
    pub fn check(&self, number: u32, round: u32, key: &[u8], value: &[u8]) {
        assert!(key == self.key(number), "another key than that of row {number}: {}", key.escape_ascii());
        Self::check_value(number, round, value);
    }

    /// Panics unless `value` is that of row `number` as of `round`.
    #[inline]
    pub fn check_value(number: u32, round: u32, value: &[u8]) {
        assert!(value == Self::value(number, round), "a wrong value in row {number}: {}", value.escape_ascii());
    }
}

/// Scatters numbers: different ones stay different.
#[inline]
pub fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_distinct_keys_and_ranks_are_their_order() {
        for shape in [KeyShape::Scattered, KeyShape::Decimal] {
            let rows = Rows::new(shape, 1000);
            let mut keys: Vec<_> = (0..2000).map(|number| rows.key(number)).collect();
            let ranked: Vec<_> = (0..1000).map(|rank| rows.key(rows.at_rank(rank))).collect();
            assert!(ranked.is_sorted());
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), 2000, "{shape:?}");
        }
    }
}
