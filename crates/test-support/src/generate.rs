//! Keys, values and ranges that find bugs: few hot keys, families with a common prefix, and the edges of what is legal.

use std::ops::Bound;

use internal_key::MAX_KEY_BYTES;

use crate::Rng;

/// The bounds of a range over owned keys; a legal one may be inverted or empty.
pub type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Makes user keys. A generator remembers its hot keys and families, so that one run meets the same keys again.
#[derive(Debug, Clone)]
pub struct KeyGenerator {
    hot: Vec<Vec<u8>>,
    prefixes: Vec<Vec<u8>>,
    longest: usize,
}

impl KeyGenerator {
    /// Keys up to [`MAX_KEY_BYTES`] long; long ones are rare.
    pub fn new(rng: &mut Rng) -> Self {
        Self::up_to(MAX_KEY_BYTES, rng)
    }

    /// Keys of at most `longest` bytes.
    pub fn up_to(longest: usize, rng: &mut Rng) -> Self {
        let prefixes = vec![
            b"user/".to_vec(),
            b"user/\xff".to_vec(),
            b"\xff\xff".to_vec(),
            b"12345678".to_vec(), // one key head exactly
            b"12345678\0\0".to_vec(),
            rng.bytes(20),
        ];
        let mut generator = Self { hot: Vec::new(), prefixes, longest };
        generator.hot = (0..8).map(|_| generator.cold_key(rng)).collect();
        generator
    }

    /// The next key: often a hot one, sometimes the empty one.
    pub fn key(&self, rng: &mut Rng) -> Vec<u8> {
        if rng.one_in(3) { rng.pick(&self.hot).clone() } else { self.cold_key(rng) }
    }

    /// A prefix that several keys have: for prefix scans.
    pub fn prefix(&self, rng: &mut Rng) -> Vec<u8> {
        let mut prefix = match rng.below(8) {
            0 => Vec::new(),
            1 => vec![u8::MAX; rng.index(4)],
            2 => self.key(rng),
            _ => rng.pick(&self.prefixes).clone(),
        };
        prefix.truncate(self.longest);
        prefix
    }

    /// Any legal range: every kind of bound, one in some inverted or empty.
    pub fn range(&self, rng: &mut Rng) -> KeyRange {
        let bound = |rng: &mut Rng| match rng.below(4) {
            0 => Bound::Unbounded,
            1 => Bound::Excluded(self.key(rng)),
            _ => Bound::Included(self.key(rng)),
        };
        let (start, end) = (bound(rng), bound(rng));
        let inverted = match (&start, &end) {
            (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
                start > end
            }
            _ => false,
        };
        if inverted && !rng.one_in(8) { (end, start) } else { (start, end) }
    }

    fn cold_key(&self, rng: &mut Rng) -> Vec<u8> {
        let mut key = match rng.below(40) {
            0 => Vec::new(),
            1 => vec![u8::MAX; rng.index(20)],
            2 => vec![0; rng.index(20)],
            3 => {
                let len = self.longest.min(1 + rng.index(2_000));
                rng.bytes(len)
            }
            4 if rng.one_in(8) => {
                let mut longest = vec![b'L'; self.longest];
                if let Some(last) = longest.last_mut() {
                    *last = rng.below(4) as u8;
                }
                longest
            }
            // Few bytes, few values: many keys that differ only at their ends, or are prefixes of each other.
            5..=14 => (0..rng.index(11)).map(|_| *rng.pick(b"\0\x01ab\xff")).collect(),
            15..=29 => {
                let mut key = rng.pick(&self.prefixes).clone();
                key.extend_from_slice(format!("{:03}", rng.below(200)).as_bytes());
                key
            }
            _ => format!("{:08}", rng.below(1_000)).into_bytes(),
        };
        key.truncate(self.longest);
        key
    }
}

/// Makes values: empty, short, compressible, random, and now and then the longest allowed.
#[derive(Debug, Clone)]
pub struct ValueGenerator {
    longest: usize,
}

impl ValueGenerator {
    /// Values of at most `longest` bytes. One in 64 is of that order, so the longest decides what a run costs.
    pub fn up_to(longest: usize) -> Self {
        Self { longest }
    }

    /// The next value.
    pub fn value(&self, rng: &mut Rng) -> Vec<u8> {
        let len = match rng.below(64) {
            0 => self.longest - rng.index(self.longest / 2 + 1),
            1..=4 => 0,
            5..=20 => rng.index(200),
            _ => rng.index(24),
        };
        let len = len.min(self.longest);
        if rng.one_in(2) { rng.bytes(len) } else { vec![*rng.pick(b"\0v\xff"); len] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_meets_the_edges_and_the_hot_keys() {
        let rng = &mut Rng::new(7);
        let generator = KeyGenerator::new(rng);
        let keys: Vec<_> = (0..20_000).map(|_| generator.key(rng)).collect();
        assert!(keys.iter().any(|key| key.is_empty()), "the empty key");
        assert!(keys.iter().any(|key| key.len() == MAX_KEY_BYTES), "the longest key");
        assert!(keys.iter().any(|key| key.len() > 1 && key.iter().all(|&byte| byte == u8::MAX)), "only 0xFF");
        for hot in &generator.hot {
            assert!(keys.iter().filter(|key| *key == hot).count() > 100, "{} is hot", hot.escape_ascii());
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let rng = &mut Rng::new(8);
        let keys = KeyGenerator::up_to(5, rng);
        let values = ValueGenerator::up_to(1_000);
        assert!((0..5_000).all(|_| keys.key(rng).len() <= 5 && keys.prefix(rng).len() <= 5));
        let lengths: Vec<_> = (0..5_000).map(|_| values.value(rng).len()).collect();
        assert!(lengths.iter().all(|&len| len <= 1_000));
        assert!(lengths.contains(&0) && lengths.iter().any(|&len| len > 500));
        assert!((0..100).all(|_| ValueGenerator::up_to(0).value(rng).is_empty()));
    }

    #[test]
    fn ranges_have_every_kind_of_bound() {
        let rng = &mut Rng::new(9);
        let keys = KeyGenerator::up_to(12, rng);
        let ranges: Vec<KeyRange> = (0..2_000).map(|_| keys.range(rng)).collect();
        assert!(ranges.iter().any(|range| matches!(range, (Bound::Unbounded, Bound::Unbounded))));
        assert!(ranges.iter().any(|range| matches!(range, (Bound::Excluded(_), Bound::Included(_)))));
        let inverted = |range: &&KeyRange| matches!(range, (Bound::Included(a), Bound::Included(b)) if a > b);
        assert!(ranges.iter().filter(inverted).count() > 10);
    }
}
