//! How far the prefix of all writes has come: one number that only rises, alone on its cache line.
//!
//! ```text
//!   seqno   1 ─ 2 ─ 3 ─ 4 ─ 5 ─ 6 ─ 7
//!                       ▲ visible: every batch at or below it is copied and applied
//! ```
//!
//! - **P3** Whoever sees the frontier at a seqno sees everything that was done for the batches at or below it.

use crossbeam_utils::CachePadded;
use internal_key::SeqNo;

use crate::sync::atomic::{AtomicU64, Ordering};

/// A sequence number that never falls.
///
/// Reading costs one load of a cache line that nothing else lives on; readers never write to it.
///
/// ```
/// use internal_key::SeqNo;
/// use version_history::Frontier;
///
/// let visible = Frontier::new(SeqNo::ZERO);
/// visible.raise(SeqNo::new(9).unwrap());
/// visible.raise(SeqNo::new(4).unwrap());
/// assert_eq!(visible.load().get(), 9, "it never falls");
/// ```
#[derive(Debug)]
pub struct Frontier {
    seqno: CachePadded<AtomicU64>,
}

impl Frontier {
    /// A frontier that stands at `seqno`.
    pub fn new(seqno: SeqNo) -> Self {
        Self { seqno: CachePadded::new(AtomicU64::new(seqno.get())) }
    }

    /// Where it stands. Everything that happened before the [`raise`](Self::raise) to that seqno, or to a smaller one,
    /// happened before this returns.
    #[inline]
    pub fn load(&self) -> SeqNo {
        // Acquire pairs with the Release in `raise` (P3).
        let raw = self.seqno.load(Ordering::Acquire);
        SeqNo::new(raw).expect("P3: only `new` and `raise` store here, and both take a SeqNo")
    }

    /// Raises it to `seqno`; a smaller or equal one changes nothing. Callable from any thread.
    #[inline]
    pub fn raise(&self, seqno: SeqNo) {
        let order = if planted_faults::planted("version-history-relaxed-frontier") {
            Ordering::Relaxed
        } else {
            // Release pairs with the Acquire in `load`. A read-modify-write continues the release sequences of all
            // earlier raises, so that seeing this value also means seeing what they published.
            Ordering::Release
        };
        self.seqno.fetch_max(seqno.get(), order);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// P3: a frontier never falls, whatever order it is raised in.
    #[test]
    fn frontier_never_falls() {
        let frontier = Frontier::new(SeqNo::new(3).unwrap());
        for (raise, expected) in [(1, 3), (7, 7), (7, 7), (5, 7), (8, 8)] {
            frontier.raise(SeqNo::new(raise).unwrap());
            assert_eq!(frontier.load().get(), expected);
        }
        frontier.raise(SeqNo::MAX);
        assert_eq!(frontier.load(), SeqNo::MAX);
    }

    /// P3: the frontier shares its cache line with nothing.
    #[test]
    fn frontier_is_alone_on_its_cache_line() {
        assert!(align_of::<Frontier>() >= 64 && size_of::<Frontier>() >= 64);
    }
}
