//! The filter: a Bloom filter whose every key lies in one cache line. "No" is certain, "yes" is not (T3).
//!
//! ```text
//!   hash = xxh3 of the user key
//!   line = high 64 bits of hash × lines          one of `lines` lines of 512 bits
//!   bits = hash × odd constant, nine bits of it for each probe
//! ```
//!
//! One probe of memory decides; which line it is can be computed, and requested, before any table is looked at.

/// Bytes of a line: a cache line of the machines we know. On disk since format 1.
pub(crate) const LINE_BYTES: usize = 64;
const BITS_PER_PROBE: u32 = (LINE_BYTES * 8).ilog2();
/// The most probes a filter can have: what 64 bits are enough for.
pub(crate) const PROBES_MAX: u32 = u64::BITS / BITS_PER_PROBE;
const _: () = assert!(BITS_PER_PROBE == 9 && PROBES_MAX == 7);

/// Spreads the hash over the line independently of the bits that chose the line. Odd. On disk since format 1.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// How many probes serve `bits_per_key` best.
pub(crate) fn probes_for(bits_per_key: u8) -> u32 {
    // ln 2 bits of each key's share are set in the best filter; a little less suits a filter of lines.
    (u32::from(bits_per_key) * 66 / 100).clamp(1, PROBES_MAX)
}

/// The line of `hash` among `lines`.
#[inline(always)]
pub(crate) fn line_of(hash: u64, lines: usize) -> usize {
    ((u128::from(hash) * lines as u128) >> 64) as usize
}

/// The filter of all `hashes`: its lines, one after the other.
pub(crate) fn build(hashes: &[u64], bits_per_key: u8) -> Vec<u8> {
    let lines = (hashes.len() * usize::from(bits_per_key)).div_ceil(LINE_BYTES * 8).max(1);
    let probes = probes_for(bits_per_key);
    let mut filter = vec![0; lines * LINE_BYTES];
    for &hash in hashes {
        let start = line_of(hash, lines) * LINE_BYTES;
        let mut bits = hash.wrapping_mul(SPREAD);
        for _ in 0..probes {
            let bit = (bits & 511) as usize;
            filter[start + bit / 8] |= 1 << (bit % 8);
            bits >>= BITS_PER_PROBE;
        }
    }
    filter
}

/// Whether a key with `hash` may be among those that `line` was built of.
#[inline(always)]
pub(crate) fn line_may_contain(line: &[u8; LINE_BYTES], hash: u64, probes: u32) -> bool {
    let words = line.as_chunks::<8>().0;
    let mut bits = hash.wrapping_mul(SPREAD);
    for _ in 0..probes {
        // Little-endian words hold bit `n` of the line where its bytes do.
        let word = words.get((bits >> 6 & 7) as usize).map_or(0, |word| u64::from_le_bytes(*word));
        if word >> (bits & 63) & 1 == 0 {
            return false;
        }
        bits >>= BITS_PER_PROBE;
    }
    true
}
