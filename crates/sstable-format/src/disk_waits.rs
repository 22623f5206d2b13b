//! Notices when reads of a mapped table wait for the disk, so that only then all pages of a block are asked for at once.
//!
//! A map reads nothing ahead by itself. A block that lies in two pages, neither of them in memory, is two faults and two
//! reads, one after the other. To ask for both is a system call, which costs little beside a read of the disk and much
//! where the pages are in memory. The clock tells the two apart (decision 23).
//!
//! ```text
//!            a touch was slow: one of TIMED_OF is timed     a touch was slow: each is timed
//!   nothing is ───────────────────────────────▶ ASKED_FOR blocks ◀──────┐
//!    asked for ◀─────────────────────────────── are asked for    ───────┘
//!                as many touches were quick
//! ```

use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// A touch that took as long waited for a disk. That of a page in memory takes less than a microsecond, also where it is
/// not mapped yet; the quickest disks take more than this.
const WAITED_FROM: Duration = Duration::from_micros(10);

/// So many blocks are asked for after one that was waited for. The call costs a hundredth of a wait, so that it pays even
/// where most are in memory.
const ASKED_FOR: u8 = 64;

/// One of so many blocks is timed where nothing is asked for. To time them all was 3 % of a get that has to decode one.
const TIMED_OF: u64 = 16;

/// What a page is taken to be. Where pages are larger, a block that lies in one may be asked for in vain.
const SYSTEM_PAGE_BYTES: u64 = 4 << 10;

/// How many of the next blocks are asked for.
#[derive(Debug)]
pub(crate) struct DiskWaits(AtomicU8);

impl DiskWaits {
    /// Nothing was waited for.
    pub(crate) fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Calls `ask` if the disk is likely to be waited for, before the block of this ordinal is read as a whole. Its `bytes`
    /// lie at `offset` of a map. May touch them, to see how long that takes.
    #[inline]
    pub(crate) fn before_reading(&self, ordinal: u64, offset: u64, bytes: &[u8], ask: impl FnOnce()) {
        self.before_reading_at(ordinal, offset, bytes, ask, Instant::now);
    }

    #[inline]
    fn before_reading_at(
        &self,
        ordinal: u64,
        offset: u64,
        bytes: &[u8],
        ask: impl FnOnce(),
        mut now: impl FnMut() -> Instant,
    ) {
        // Relaxed: a guess, which publishes nothing.
        let asked_for = self.0.load(Ordering::Relaxed);
        let is_timed = asked_for > 0 || ordinal.is_multiple_of(TIMED_OF);
        if !is_timed || !lies_across_pages(offset, bytes.len()) {
            return;
        }
        let begun = now();
        if asked_for > 0 {
            ask();
        }
        black_box((bytes.first().copied(), bytes.last().copied()));
        let waited = now().saturating_duration_since(begun) >= WAITED_FROM;
        let next = if waited { ASKED_FOR } else { asked_for.saturating_sub(1) };
        // While everything is in memory, or nothing is, threads share the line and do not write to it.
        if next != asked_for {
            // Relaxed as above. Of what two threads notice at once, one may be lost.
            self.0.store(next, Ordering::Relaxed);
        }
    }
}

fn lies_across_pages(offset: u64, bytes: usize) -> bool {
    bytes > 0 && offset / SYSTEM_PAGE_BYTES != (offset + bytes as u64 - 1) / SYSTEM_PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a block whose touch takes so long; returns whether it was asked for and whether it was timed.
    fn read(waits: &DiskWaits, ordinal: u64, offset: u64, took: Duration) -> (bool, bool) {
        let (mut asked, mut looks) = (false, 0);
        let begun = Instant::now();
        let now = || {
            looks += 1;
            begun + took * (looks - 1)
        };
        waits.before_reading_at(ordinal, offset, &[1; 2700], || asked = true, now);
        (asked, looks == 2)
    }

    const ACROSS: u64 = SYSTEM_PAGE_BYTES - 100;
    const QUICK: Duration = Duration::from_nanos(300);
    const SLOW: Duration = Duration::from_micros(60);

    #[test]
    fn nothing_is_asked_for_while_touches_are_quick_and_few_are_timed() {
        let waits = DiskWaits::new();
        let timed = (0..800).filter(|&ordinal| {
            let (asked, timed) = read(&waits, ordinal, ACROSS, QUICK);
            assert!(!asked);
            timed
        });
        assert_eq!(timed.count() as u64, 800 / TIMED_OF);
    }

    #[test]
    fn all_blocks_are_asked_for_while_touches_are_slow() {
        let waits = DiskWaits::new();
        assert_eq!(read(&waits, 0, ACROSS, SLOW), (false, true));
        for ordinal in 1..1000 {
            assert_eq!(read(&waits, ordinal, ACROSS, SLOW), (true, true));
        }
    }

    #[test]
    fn as_many_quick_touches_as_one_slow_one_had_blocks_asked_for_end_it() {
        let waits = DiskWaits::new();
        read(&waits, 0, ACROSS, SLOW);
        for ordinal in 1..u64::from(ASKED_FOR) {
            assert!(read(&waits, ordinal, ACROSS, QUICK).0);
        }
        // The last one is slow: it begins anew.
        assert!(read(&waits, 0, ACROSS, SLOW).0);
        for ordinal in 1..=u64::from(ASKED_FOR) {
            assert!(read(&waits, ordinal, ACROSS, QUICK).0);
        }
        assert_eq!(read(&waits, 0, ACROSS, QUICK), (false, true));
        assert_eq!(read(&waits, 1, ACROSS, QUICK), (false, false));
    }

    #[test]
    fn a_block_in_one_page_is_neither_asked_for_nor_timed() {
        let waits = DiskWaits::new();
        assert_eq!(read(&waits, 0, SYSTEM_PAGE_BYTES, SLOW), (false, false));
        read(&waits, 0, ACROSS, SLOW);
        assert_eq!(read(&waits, 0, SYSTEM_PAGE_BYTES, SLOW), (false, false));
    }

    #[test]
    fn a_block_lies_across_pages_if_its_ends_lie_in_different_ones() {
        assert!(!lies_across_pages(0, 4096));
        assert!(lies_across_pages(0, 4097));
        assert!(lies_across_pages(4095, 2));
        assert!(!lies_across_pages(4096, 2700));
        assert!(!lies_across_pages(4095, 0));
    }
}
