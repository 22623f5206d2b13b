//! The end of the log: ranges are handed out one at a time, under the caller's lock.
//!
//! ```text
//!   reserve (one at a time)   ─▶ a range, tentative            plain stores, no I/O
//!   accept  (same lock)       ─▶ the range is taken
//! ```
//!
//! - **P1** A reservation is arithmetic: the next offset, the claim, a handle on the segment.
//! - **L1** The seal of a full segment is planned by the reservation that no longer fits and stored by that reservation's
//!   append, so that even in the written way nothing is stored under the caller's lock, and a tentative reservation
//!   leaves no trace.
//! - **L2** A record carries the claim as loaded when it was reserved.
//! - **L4** Every reservation leaves room for a seal behind itself, so that the log can be cut and sealed at any record.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use file_system::LogFile;
use internal_key::SeqNo;

use crate::log::{Shared, lock};
use crate::record::{SEAL_BYTES, record_bytes};
use crate::rotation::LiveSegment;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, payload_bytes_max, segment_bytes_of};
use crate::{Log, LogPosition, ReserveError, SegmentName};

/// The end of the log, owned by whoever hands out reservations (the commit pipeline's reservation lock guards it).
///
/// Exactly one exists for a [`Log`].
pub struct LogTail {
    pub(crate) shared: Arc<Shared>,
    /// Handles on the current segment, for reservations to take; see [`Handle`].
    pub(crate) handles: Handles,
    pub(crate) name: SegmentName,
    /// Length of the current segment.
    pub(crate) bytes: u64,
    /// Where the next record starts.
    pub(crate) offset: u64,
    /// The smallest sequence number that the next record may have (P1).
    pub(crate) seqno_min: SeqNo,
}

/// A range of the log for one record. Tentative until [`LogTail::accept`]; then it must be appended to, or the log
/// has a hole that no later record can be acknowledged behind (P3).
///
/// Keeps its segment from being recycled until dropped.
#[derive(Debug)]
pub struct Reservation {
    pub(crate) handle: Arc<Handle>,
    pub(crate) offset: u64,
    pub(crate) payload_len: u32,
    pub(crate) first_seqno: SeqNo,
    pub(crate) claim: LogPosition,
    /// The seal of the segment before, if this reservation begins a new one.
    pub(crate) seal: Option<PlannedSeal>,
}

#[derive(Debug)]
pub(crate) struct PlannedSeal {
    pub(crate) handle: Arc<Handle>,
    pub(crate) offset: u64,
}

/// One of several reference counts on the current segment, each on its own cache line: writers on different threads
/// count different ones, so that a reservation writes no line that another processor uses.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Handle {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn LogFile>,
}

const HANDLES: usize = 8;
pub(crate) type Handles = [Arc<Handle>; HANDLES];

pub(crate) fn handles_on(segment: &Arc<Segment>) -> Handles {
    std::array::from_fn(|_| {
        let file = segment.file.as_ref().expect("L4: a replayed segment is never appended to");
        Arc::new(Handle { segment: Arc::clone(segment), file: Arc::clone(file) })
    })
}

/// Which of the handles this thread counts.
fn handle_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: any distribution is correct, this one is even.
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % HANDLES;
    }
    MINE.with(|mine| *mine)
}

impl Log {
    /// Finds a range for a record of `payload_len` bytes of payload whose first entry gets `first_seqno`.
    ///
    /// Nothing changes but what is to be prepared: the caller may drop the reservation, or take it with
    /// [`LogTail::accept`] before the next reservation is made. No I/O, no allocation, and no lock unless a segment is full.
    ///
    /// # Errors
    /// [`ReserveError`]; nothing changed.
    ///
    /// # Panics
    /// If `first_seqno` is not above that of every data record accepted before (P1), or `tail` belongs to another log.
    #[inline]
    pub fn reserve(&self, tail: &LogTail, payload_len: usize, first_seqno: SeqNo) -> Result<Reservation, ReserveError> {
        assert!(Arc::ptr_eq(&self.shared, &tail.shared), "P1: the tail of another log");
        assert!(first_seqno >= tail.seqno_min, "P1: {first_seqno} after {} was due", tail.seqno_min);
        let room = record_bytes(payload_len as u64) + u64::from(SEAL_BYTES);
        if tail.offset + room > tail.bytes {
            return self.reserve_in_next_segment(tail, payload_len, first_seqno);
        }
        Ok(Reservation {
            handle: Arc::clone(&tail.handles[handle_of_this_thread()]),
            offset: tail.offset,
            // It fits a segment, and a segment is at most 2 GiB.
            payload_len: payload_len as u32,
            first_seqno,
            claim: self.shared.durable.load(),
            seal: None,
        })
    }

    #[cold]
    fn reserve_in_next_segment(
        &self,
        tail: &LogTail,
        payload_len: usize,
        first_seqno: SeqNo,
    ) -> Result<Reservation, ReserveError> {
        let mut guard = lock(&self.shared.state);
        let state = &mut *guard;
        let segment_bytes_max = self.shared.maker.options.segment_bytes_effective();
        let longest = payload_bytes_max(segment_bytes_max);
        if payload_len as u64 > longest {
            return Err(ReserveError::TooLarge { payload_bytes: payload_len as u64, payload_bytes_max: longest });
        }
        if let Some((segment, _)) = &state.prepared
            && payload_len as u64 > payload_bytes_max(segment.bytes)
        {
            // A longer one takes its place; it holds no record, and no seal names it.
            state.retired.extend(state.prepared.take().map(|(segment, _)| segment));
        }
        let Some((_, handles)) = &state.prepared else {
            state.needed_bytes = state.needed_bytes.max(segment_bytes_of(payload_len as u64));
            return Err(ReserveError::NoSegmentReady);
        };
        let mine = handle_of_this_thread();
        Ok(Reservation {
            handle: Arc::clone(&handles[mine]),
            offset: SEGMENT_HEADER_BYTES as u64,
            payload_len: payload_len as u32,
            first_seqno,
            claim: self.shared.durable.load(),
            seal: Some(PlannedSeal { handle: Arc::clone(&tail.handles[mine]), offset: tail.offset }),
        })
    }
}

impl LogTail {
    /// Takes the range that `reservation` found. Plain stores, unless it begins a new segment.
    ///
    /// # Panics
    /// If the reservation was not the last one made from this tail as it is now (P1).
    #[inline]
    pub fn accept(&mut self, reservation: &Reservation) {
        let after = reservation.first_seqno.checked_add(1).expect("P1: sequence numbers are not exhausted");
        self.take(reservation, after);
    }

    #[inline]
    pub(crate) fn take(&mut self, reservation: &Reservation, seqno_min: SeqNo) {
        match &reservation.seal {
            None => assert!(
                reservation.offset == self.offset && reservation.handle.segment.name == self.name,
                "P1: reservations are accepted in order"
            ),
            Some(seal) => self.move_on(seal, reservation),
        }
        self.offset = reservation.end().offset;
        self.seqno_min = seqno_min;
    }

    #[cold]
    fn move_on(&mut self, seal: &PlannedSeal, reservation: &Reservation) {
        assert!(
            seal.offset == self.offset && seal.handle.segment.name == self.name,
            "P1: reservations are accepted in order"
        );
        let mut state = lock(&self.shared.state);
        let (segment, handles) = state.prepared.take().expect("L1: the successor stays ready until it is taken");
        assert_eq!(segment.name, reservation.handle.segment.name, "L1: the successor is the one that was reserved");
        (self.name, self.bytes, self.handles) = (segment.name, segment.bytes, handles);
        if !state.has_begun() {
            state.live.clear();
        }
        state.live.push_back(LiveSegment { segment, first_seqno: reservation.first_seqno });
    }

    /// Lets the next segment be prepared as if none were, nor were being made, and keeps no others: a short one, if the live ones
    /// are few. For a log that holds nothing that is needed: [`Log::prepare_segment`], then [`end_segment`](Self::end_segment)
    /// lets the next record begin that segment, and once a floor that names it is durable, [`Log::give_back`] leaves it alone on
    /// the disk. Asked of the tail, so that no reservation is on its way into the segment that is given up (P1).
    pub fn give_up_prepared(&mut self) {
        let mut guard = lock(&self.shared.state);
        let state = &mut *guard;
        state.given_up += 1;
        state.retired.extend(state.prepared.take().map(|(segment, _)| segment));
        state.doomed.extend(state.recycled.drain(..).map(|spare| spare.path));
    }

    /// Lets the next record begin the next segment, if one is ready: a log is not to wait for room that it does not need.
    pub fn end_segment(&mut self) {
        if lock(&self.shared.state).prepared.is_some() {
            // L4: behind every record there is room for a seal, which is all that is stored there now.
            self.bytes = self.offset;
        }
    }

    /// Where the next record will start: the end of every accepted reservation (P7).
    #[inline]
    pub fn next_end(&self) -> LogPosition {
        LogPosition::new(self.name.id, self.offset)
    }

    /// Whether the populated window is more than half used up: time for [`Log::populate_ahead`] with
    /// [`next_end`](Self::next_end).
    #[inline]
    pub fn wants_populate(&self) -> bool {
        let half = self.shared.maker.options.populate_bytes / 2;
        // Relaxed: advice only.
        let populated = self.handles[0].segment.populated.load(Ordering::Relaxed);
        populated < self.bytes && self.offset + half > populated
    }
}

impl Reservation {
    /// Where the record starts.
    pub fn start(&self) -> LogPosition {
        LogPosition::new(self.handle.segment.name.id, self.offset)
    }

    /// Where the record ends, padding included. A sync through here covers it (P7).
    #[inline]
    pub fn end(&self) -> LogPosition {
        LogPosition::new(self.handle.segment.name.id, self.offset + record_bytes(u64::from(self.payload_len)))
    }

    /// Whether the record begins a new segment: the background should prepare the next one and sync the sealed one.
    #[inline]
    pub fn begins_segment(&self) -> bool {
        self.seal.is_some()
    }
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogTail({}, next {})", self.next_end(), self.seqno_min)
    }
}
