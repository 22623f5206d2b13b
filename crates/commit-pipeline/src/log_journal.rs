//! The log of this workspace as a [`Journal`].

use internal_key::{SegmentId, SeqNo};
use write_ahead_log::{Log, LogError, LogPosition, LogTail, Payload, Reservation};

use crate::{Journal, ReserveError};

/// Bits of a distance that hold an offset; offsets are at most 2^31 (L1). The others count segments from the base.
const OFFSET_BITS: u32 = 32;

impl Journal for Log {
    type Tail = LogTail;
    type Reservation = Reservation;
    type Payload<'a> = Payload<'a>;
    type Position = LogPosition;
    type Error = LogError;

    #[inline]
    fn payload_bytes(payload: &Payload<'_>) -> u64 {
        payload.bytes().len() as u64
    }

    #[inline]
    fn reserve(&self, tail: &mut LogTail, payload_bytes: u64, first_seqno: SeqNo) -> Result<Reservation, ReserveError> {
        Log::reserve(self, tail, payload_bytes as usize, first_seqno).map_err(|error| match error {
            write_ahead_log::ReserveError::NoSegmentReady => ReserveError::NoSegmentReady,
            write_ahead_log::ReserveError::TooLarge { payload_bytes, payload_bytes_max } => {
                ReserveError::TooLarge { payload_bytes, payload_bytes_max }
            }
        })
    }

    #[inline]
    fn accept(&self, tail: &mut LogTail, reservation: &Reservation) {
        tail.accept(reservation);
    }

    #[inline]
    fn start(reservation: &Reservation) -> LogPosition {
        reservation.start()
    }

    #[inline]
    fn end(reservation: &Reservation) -> LogPosition {
        reservation.end()
    }

    fn prepare_segment(&self) -> Result<(), LogError> {
        Log::prepare_segment(self)
    }

    #[inline]
    fn append(&self, reservation: &Reservation, payload: &Payload<'_>) -> Result<(), LogError> {
        Log::append(self, reservation, payload)
    }

    fn sync_through(&self, position: LogPosition) -> Result<(), LogError> {
        Log::sync_through(self, position)
    }

    #[inline]
    fn durable(&self) -> LogPosition {
        Log::durable(self)
    }

    fn is_certain(error: &LogError) -> bool {
        !error.is_uncertain()
    }

    #[inline]
    fn distance(base: LogPosition, position: LogPosition) -> u64 {
        // As integers these are in the order of positions; the base's own offset counts, so that it is subtracted last.
        let segments = position.segment.get() - base.segment.get();
        (segments << OFFSET_BITS) + position.offset - base.offset
    }

    #[inline]
    fn at_distance(base: LogPosition, distance: u64) -> LogPosition {
        let packed = distance + base.offset;
        let segment = SegmentId(base.segment.get() + (packed >> OFFSET_BITS));
        LogPosition::new(segment, packed & ((1 << OFFSET_BITS) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7: distances are in the order of positions, and lead back to them.
    #[test]
    fn distances_order_as_positions_do() {
        let at = |segment, offset| LogPosition::new(SegmentId(segment), offset);
        let base = at(7, 4096);
        let positions = [base, at(7, 4104), at(7, 1 << 31), at(8, 64), at(8, 4096), at(900, 0), at(1 << 31, 1 << 31)];
        let distances: Vec<u64> = positions.iter().map(|&position| Log::distance(base, position)).collect();
        assert_eq!(distances[0], 0);
        assert!(distances.is_sorted_by(|left, right| left < right), "{distances:?}");
        for (position, distance) in positions.into_iter().zip(distances) {
            assert_eq!(Log::at_distance(base, distance), position);
        }
    }
}
