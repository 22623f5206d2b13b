//! Remembers which parts of a table were found right.
//!
//! - **T2** A part is checked once per open table: by whoever made the table, or who reads the part first, or by several
//!   who do so at once.

use crate::sync::atomic::{AtomicU64, Ordering};

/// One bit for each part, set once its checksum was found right.
#[derive(Debug)]
pub struct CheckedBits(Box<[AtomicU64]>);

impl CheckedBits {
    /// None of `count` parts is checked.
    pub fn new(count: u64) -> Self {
        Self((0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether the part of this number was found right. `false` for one beyond the count.
    #[inline(always)]
    pub fn is_set(&self, ordinal: u64) -> bool {
        let word = self.0.get((ordinal / 64) as usize);
        // Relaxed: the bit publishes nothing. Whoever sees it reads the same immutable bytes of the file.
        word.is_some_and(|word| word.load(Ordering::Relaxed) >> (ordinal % 64) & 1 == 1)
    }

    /// How many parts were found right.
    pub fn count(&self) -> u64 {
        // Relaxed as in `is_set`: a figure.
        self.0.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Says that the part of this number was found right. Nothing happens for one beyond the count.
    pub fn set(&self, ordinal: u64) {
        let Some(word) = self.0.get((ordinal / 64) as usize) else { return };
        let bit = 1 << (ordinal % 64);
        if planted_faults::planted("table-checked-bit-lost") {
            word.store(word.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
            return;
        }
        // A read-modify-write, so that of two neighbours set at once none is lost. Relaxed as in `is_set`.
        word.fetch_or(bit, Ordering::Relaxed);
    }
}
