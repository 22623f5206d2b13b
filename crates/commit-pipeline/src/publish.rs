//! Holds the prefixes of the log that are copied, and that are visible, while writers finish in any order.
//!
//! ```text
//!   ticket    ─ 3 ─ 4 ─ 5 ─ 6 ─ 7 ─ 8 ─▶ next            a ring of slots, one a ticket
//!   logged      ✓   ✓   ✓       ✓                        ──▶ logged:  end of 5
//!   applied     ✓   ✓           ✓                        ──▶ visible: last seqno of 4
//!                                                             visible ≤ logged ≤ reserved
//! ```
//!
//! - **P3** A frontier passes a batch only when it has passed all earlier ones. Whoever completes the prefix publishes all
//!   of it; nobody spins for a writer that is not running.
//! - **P9** Who waits parks, after a short spin if the awaited writers can be running. Nobody who publishes pays for
//!   waiters that are not there.
//!
//! # The protocol
//!
//! A writer stamps its slot (a Release store), then adds one to a shared word. Who finds the word's count at zero is the
//! *advancer*: it scans the stamped prefix, raises the frontiers, and subtracts what it had seen of the count before it
//! scanned. If that leaves nothing it is done; otherwise others have stamped meanwhile, and it scans again for them. So
//! every stamp is followed by a scan, by one thread at a time, and no thread waits for another to scan.
//!
//! Parked waiters are counted in the upper half of the same word. The advancer's subtraction returns them, so that either
//! it sees a waiter and wakes it, or the waiter's addition comes after the subtraction and acquires the raised frontier.
//! That closes the gap between "looked" and "slept" without a fence and without an extra load.

use crossbeam_utils::CachePadded;
use internal_key::SeqNo;
use lock_meter::LockCosts;
use version_history::Frontier;

use crate::crowd::{Crowd, yield_until};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex, wait};

/// One parked waiter in the word's upper half.
const WAITER: u64 = 1 << 32;
/// The word's lower half: stamps that no finished scan has covered.
const STAMPS: u64 = WAITER - 1;

/// How often a waiter looks again before it parks, if the writers it waits for can all be running.
const SPINS: u32 = if cfg!(any(loom, shuttle)) { 0 } else { 100 };

/// What one ticket's writer tells the advancer. A cache line of its own: neighbours are written by other threads.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// Where the record ends, as a distance. Written by the ticket's writer before `logged`.
    end: AtomicU64,
    /// The batch's last seqno. Written by the ticket's writer before `logged`.
    last: AtomicU64,
    /// `ticket + 1` once the record is copied; anything smaller belongs to an earlier round of the ring.
    logged: AtomicU64,
    /// `ticket + 1` once the batch is applied.
    applied: AtomicU64,
    /// `ticket + 1` if its writer has gone without applying it: the database has failed then.
    abandoned: AtomicU64,
}

/// Two frontiers over tickets that complete in any order.
///
/// Tickets are numbered from zero without gaps by the owner's reservation lock; each is stamped once as logged and then
/// once as applied, by one thread.
///
/// ```
/// use commit_pipeline::PublishQueue;
/// use internal_key::SeqNo;
///
/// let queue = PublishQueue::new(4, SeqNo::ZERO, 1);
/// let seqno = |number| SeqNo::new(number).unwrap();
/// queue.stamp_logged(1, 200, seqno(3));
/// queue.stamp_applied(1);
/// assert_eq!(queue.visible().load(), SeqNo::ZERO, "ticket 0 is not there yet");
/// queue.stamp_logged(0, 100, seqno(2));
/// queue.stamp_applied(0);
/// assert_eq!((queue.visible().load(), queue.logged()), (seqno(3), 200), "who fills the hole publishes both");
/// ```
#[derive(Debug)]
pub struct PublishQueue {
    slots: Box<[Slot]>,
    /// Waiters in the upper half, unscanned stamps in the lower one.
    word: CachePadded<AtomicU64>,
    /// Distance through which the log is copied without a gap.
    logged: CachePadded<AtomicU64>,
    visible: Frontier,
    /// Tickets below it are visible. Read by reservers, to know that a slot is free.
    published: CachePadded<AtomicU64>,
    /// Tickets below it are logged. Owned by the advancer.
    logged_tickets: AtomicU64,
    /// How many writers can run at once.
    cores: u64,
    crowd: Crowd,
    parking: Mutex<()>,
    woken: Condvar,
}

impl PublishQueue {
    /// A queue of `slots` tickets at a time (a power of two), with `visible` at that seqno and nothing logged. `cores` is
    /// how many threads can run at once: with one, nobody ever spins.
    ///
    /// # Panics
    /// If `slots` is not a power of two.
    pub fn new(slots: usize, visible: SeqNo, cores: usize) -> Self {
        assert!(slots.is_power_of_two(), "P3: a ring of {slots} slots: expected a power of two");
        let slot = || Slot {
            end: AtomicU64::new(0),
            last: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
        };
        Self {
            slots: std::iter::repeat_with(slot).take(slots).collect(),
            word: CachePadded::new(AtomicU64::new(0)),
            logged: CachePadded::new(AtomicU64::new(0)),
            visible: Frontier::new(visible),
            published: CachePadded::new(AtomicU64::new(0)),
            logged_tickets: AtomicU64::new(0),
            cores: cores as u64,
            crowd: Crowd::new(cores as u64),
            parking: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    /// The seqno through which every batch is copied and applied.
    #[inline]
    pub fn visible(&self) -> &Frontier {
        &self.visible
    }

    /// The distance through which the log is copied without a gap. At least the end of every visible batch.
    #[inline]
    pub fn logged(&self) -> u64 {
        // Acquire pairs with the Release in `scan`: the copies that it covers happened before.
        self.logged.load(Ordering::Acquire)
    }

    /// Tickets below this are visible.
    #[inline]
    pub fn published(&self) -> u64 {
        // Acquire pairs with the Release in `scan`: the scan has read what it needs from their slots.
        self.published.load(Ordering::Acquire)
    }

    /// The first ticket for which there is no slot yet.
    #[inline]
    pub fn limit(&self) -> u64 {
        self.published() + self.slots.len() as u64
    }

    /// Says that the record of `ticket`, which ends at distance `end` and whose batch ends with `last`, is copied.
    /// Published with the next [`stamp_applied`](Self::stamp_applied) or [`advance`](Self::advance) of anyone.
    #[inline]
    pub fn stamp_logged(&self, ticket: u64, end: u64, last: SeqNo) {
        let slot = self.slot(ticket);
        // Relaxed: published by the stamp below, and the slot is this writer's alone: its former ticket is visible, which
        // the reserver has acquired in `published`.
        slot.end.store(end, Ordering::Relaxed);
        slot.last.store(last.get(), Ordering::Relaxed);
        let order = if planted_faults::planted("commit-pipeline-relaxed-stamp") {
            Ordering::Relaxed
        } else {
            // Release pairs with the Acquire in `scan`: who sees the stamp sees the copy, `end` and `last`.
            Ordering::Release
        };
        slot.logged.store(ticket + 1, order);
    }

    /// Says that the batch of `ticket`, which is logged, is applied, and publishes what is complete now.
    #[inline]
    pub fn stamp_applied(&self, ticket: u64) {
        let slot = self.slot(ticket);
        if planted_faults::planted("commit-pipeline-counted-before-stamped") {
            self.advance();
            slot.applied.store(ticket + 1, Ordering::Release);
            return;
        }
        // Release pairs with the Acquire in `scan`: who sees the stamp sees the batch in its memtables (P3).
        slot.applied.store(ticket + 1, Ordering::Release);
        self.advance();
    }

    /// Says that the writer of `ticket` touches nothing any more and will not apply its batch: nothing behind it is ever
    /// published. Follow it with [`wake_all`](Self::wake_all).
    #[cold]
    pub fn stamp_abandoned(&self, ticket: u64) {
        // Release pairs with the Acquire in `have_left`: what the writer did has happened before.
        self.slot(ticket).abandoned.store(ticket + 1, Ordering::Release);
    }

    /// Whether no writer with a ticket below `tickets` touches anything any more. Tickets that are not handed out yet must
    /// not be below it.
    pub fn have_left(&self, tickets: u64) -> bool {
        // Acquire pairs with the Releases of the two stamps.
        let has_left = |stamp: &AtomicU64, ticket: u64| stamp.load(Ordering::Acquire) == ticket + 1;
        (self.published()..tickets).all(|ticket| {
            let slot = self.slot(ticket);
            has_left(&slot.applied, ticket) || has_left(&slot.abandoned, ticket)
        })
    }

    /// Publishes what is complete, or leaves it to the thread that is doing so now.
    #[inline]
    pub fn advance(&self) {
        // AcqRel, here and below: additions and subtractions of the word form one chain, so that the advancer has acquired
        // every stamp counted in it, and what the advancer before it wrote.
        if self.word.fetch_add(1, Ordering::AcqRel) & STAMPS != 0 {
            return;
        }
        let mut seen = 1;
        loop {
            let moved = self.scan();
            let before = self.word.fetch_sub(seen, Ordering::AcqRel);
            // P9: a waiter counted here may have looked before `scan` raised the frontier. One that is not counted here
            // acquires this subtraction with its own addition, and sees the frontier.
            if moved && before >= WAITER && !planted_faults::planted("commit-pipeline-waiters-forgotten") {
                // Relaxed: this thread wrote it, in `scan`.
                self.crowd.have_slept(before / WAITER, self.published.load(Ordering::Relaxed));
                self.wake_all();
            }
            let arrived = (before & STAMPS) - seen;
            if arrived == 0 {
                return;
            }
            seen = arrived;
        }
    }

    /// Parks until `condition` holds. It is asked again after each publication and each [`wake_all`](Self::wake_all), under
    /// a lock: it must be quick and take none.
    pub fn wait_until(&self, condition: impl Fn() -> bool) {
        self.word.fetch_add(WAITER, Ordering::AcqRel);
        let mut parked = self.parking.lock();
        while !condition() {
            parked = wait(&self.woken, parked);
        }
        drop(parked);
        // Relaxed: nothing is published by leaving; a waker that still counts this waiter wakes nobody too many.
        self.word.fetch_sub(WAITER, Ordering::Relaxed);
    }

    /// As [`wait_until`](Self::wait_until), for the writer of `ticket`: everyone from the first unpublished ticket to its own
    /// must finish.
    ///
    /// Spins shortly first if all of those can be running; one of many lets others run some times before it parks.
    pub fn wait_in_turn(&self, ticket: u64, condition: impl Fn() -> bool) {
        if ticket.saturating_sub(self.published()) < self.cores {
            for _ in 0..SPINS {
                if condition() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        if !(self.crowd.is_expected(ticket) && yield_until(&condition)) {
            self.wait_until(condition);
        }
    }

    /// What the lock under which waiters park has cost.
    pub fn lock_costs(&self) -> LockCosts {
        self.parking.costs()
    }

    /// Makes every waiter ask its condition again: for causes other than a publication.
    #[cold]
    pub fn wake_all(&self) {
        // Locked and unlocked, so that a waiter which has asked its condition before the change is asleep by now.
        drop(self.parking.lock());
        self.woken.notify_all();
    }

    /// Raises both frontiers over the stamped prefix. One thread at a time: the advancer. Returns whether `visible` moved.
    fn scan(&self) -> bool {
        // Relaxed: `logged_tickets` and `published` are written by advancers alone, which follow each other through `word`.
        let (from, mut tickets) = (self.logged_tickets.load(Ordering::Relaxed), 0);
        let mut end = 0;
        // Acquire pairs with the Releases in `stamp_logged` and, below, in `stamp_applied`.
        while self.slot(from + tickets).logged.load(Ordering::Acquire) == from + tickets + 1 {
            // Relaxed: published by the stamp.
            end = self.slot(from + tickets).end.load(Ordering::Relaxed);
            tickets += 1;
        }
        let logged_tickets = from + tickets;
        if tickets > 0 {
            // Release pairs with the Acquire in `logged`. Before `visible`, so that nobody sees visible > logged (P3).
            self.logged.store(end, Ordering::Release);
            self.logged_tickets.store(logged_tickets, Ordering::Relaxed);
        }
        let from = self.published.load(Ordering::Relaxed);
        let (mut published, mut last) = (from, SeqNo::ZERO);
        while published < logged_tickets && self.slot(published).applied.load(Ordering::Acquire) == published + 1 {
            let raw = self.slot(published).last.load(Ordering::Relaxed);
            last = SeqNo::new(raw).expect("P3: slots hold seqnos");
            published += 1;
        }
        if published == from {
            return false;
        }
        self.visible.raise(last);
        // Release pairs with the Acquire in `published`: the slots are read, their next tickets may write them.
        self.published.store(published, Ordering::Release);
        true
    }

    #[inline]
    fn slot(&self, ticket: u64) -> &Slot {
        &self.slots[ticket as usize & (self.slots.len() - 1)]
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::cell::Cell;
    use std::thread;

    use super::*;

    fn seqno() -> SeqNo {
        SeqNo::new(1).unwrap()
    }

    /// P9: who wakes many sees that there is a crowd, for a while and not for ever; from then on its writers wait awake.
    #[test]
    fn writers_of_a_crowd_wait_without_parking() {
        let queue = PublishQueue::new(8, SeqNo::ZERO, 1);
        let mut expected_before = true;
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| queue.wait_until(|| queue.published() > 0));
            }
            while queue.word.load(Ordering::Relaxed) / WAITER < 4 {
                thread::yield_now();
            }
            expected_before = queue.crowd.is_expected(1);
            queue.stamp_logged(0, 8, seqno());
            queue.stamp_applied(0);
        });
        assert!(!expected_before && queue.crowd.is_expected(1) && !queue.crowd.is_expected(1 << 20));
        // Ticket 1 is not published, so that the writer of ticket 2 does not spin.
        let parks_if_it_holds_at_look = |number: u32| {
            let (before, looks) = (queue.lock_costs().acquisitions, Cell::new(0));
            queue.wait_in_turn(2, || looks.replace(looks.get() + 1) + 1 >= number);
            queue.lock_costs().acquisitions - before
        };
        assert_eq!(parks_if_it_holds_at_look(3), 0, "it waits awake");
        assert_eq!(parks_if_it_holds_at_look(5), 1, "not for ever: the one that it waits for may be asleep");
    }

    /// P9: few that wait are no crowd: waking them costs less than letting them run for nothing.
    #[test]
    fn few_that_sleep_are_no_crowd() {
        let queue = PublishQueue::new(8, SeqNo::ZERO, 2);
        queue.crowd.have_slept(7, 1);
        assert!(!queue.crowd.is_expected(1));
        queue.crowd.have_slept(8, 1);
        assert!(queue.crowd.is_expected(1));
    }
}
