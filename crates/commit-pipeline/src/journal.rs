//! What the pipeline asks of a log. The log of this workspace implements it; tests and models bring their own.
//!
//! - **P1** Ranges are handed out under the reservation lock, tentatively: until a reservation is accepted it has changed
//!   nothing.
//! - **P8** An error says whether it is certain.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use internal_key::SeqNo;

/// A log that hands out ranges in order, is copied into in parallel, and is synced by position.
pub trait Journal: Send + Sync {
    /// Where the next range begins; kept under the pipeline's reservation lock.
    type Tail: Send;
    /// One range, handed out by [`reserve`](Self::reserve).
    type Reservation;
    /// What a record holds, its checksum made beforehand (P1).
    type Payload<'a>;
    /// A place in the log.
    type Position: Copy + Ord + fmt::Debug + Send + Sync;
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// The length of a payload in bytes.
    fn payload_bytes(payload: &Self::Payload<'_>) -> u64;

    /// The range for a record of `payload_bytes` bytes at the tail. Tentative: the same tail may be asked again, and
    /// answers the same, until one answer is [`accept`](Self::accept)ed. Called under the reservation lock: no I/O.
    ///
    /// # Errors
    /// See [`ReserveError`]. Nothing changes.
    fn reserve(
        &self,
        tail: &mut Self::Tail,
        payload_bytes: u64,
        first_seqno: SeqNo,
    ) -> Result<Self::Reservation, ReserveError>;

    /// Moves the tail behind `reservation`, the latest that was made. Under the reservation lock.
    fn accept(&self, tail: &mut Self::Tail, reservation: &Self::Reservation);

    /// Where the record begins.
    fn start(reservation: &Self::Reservation) -> Self::Position;

    /// Where the record ends.
    fn end(reservation: &Self::Reservation) -> Self::Position;

    /// Makes room after [`ReserveError::NoSegmentReady`]. Called without the lock, by several writers at once; one of
    /// them does the work.
    ///
    /// # Errors
    /// The pipeline asks [`is_certain`](Self::is_certain).
    fn prepare_segment(&self) -> Result<(), Self::Error>;

    /// Copies the record into its range. Called in parallel for different reservations.
    ///
    /// # Errors
    /// Always uncertain: the range was handed out (P8).
    fn append(&self, reservation: &Self::Reservation, payload: &Self::Payload<'_>) -> Result<(), Self::Error>;

    /// Makes every record that ends at or before `position` survive a power cut, older segments first (P7). The pipeline
    /// calls it for one position at a time, and only when all those records are copied.
    ///
    /// A log that holds its claims after recovery (L4) returns `Ok` without raising [`durable`](Self::durable): everyone
    /// who waits then sleeps until [`Pipeline::claims_released`](crate::Pipeline::claims_released).
    ///
    /// # Errors
    /// Always uncertain: a failed sync is never retried (P8).
    fn sync_through(&self, position: Self::Position) -> Result<(), Self::Error>;

    /// Everything that ends at or before it survives a power cut, as far as is claimed. Never falls.
    fn durable(&self) -> Self::Position;

    /// Whether `error` left everything as it was, so that the write fails and the database does not (P8).
    fn is_certain(error: &Self::Error) -> bool;

    /// How far `position` lies behind `base`: an integer in the order of positions, zero for `base` itself.
    fn distance(base: Self::Position, position: Self::Position) -> u64;

    /// The position at `distance` from `base`.
    fn at_distance(base: Self::Position, distance: u64) -> Self::Position;
}

/// Why the log has no range now. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// The segment is full and its successor is not ready.
    #[error("the log segment is full and no successor is ready")]
    NoSegmentReady,
    /// No segment can hold such a record: it must be written by reference (P11).
    #[error("a log record of {payload_bytes} bytes is too large: expected at most {payload_bytes_max}")]
    TooLarge {
        /// The payload's length.
        payload_bytes: u64,
        /// What fits.
        payload_bytes_max: u64,
    },
}

/// A shared journal is a journal.
impl<J: Journal> Journal for Arc<J> {
    type Tail = J::Tail;
    type Reservation = J::Reservation;
    type Payload<'a> = J::Payload<'a>;
    type Position = J::Position;
    type Error = J::Error;

    fn payload_bytes(payload: &Self::Payload<'_>) -> u64 {
        J::payload_bytes(payload)
    }

    fn reserve(
        &self,
        tail: &mut Self::Tail,
        payload_bytes: u64,
        first_seqno: SeqNo,
    ) -> Result<Self::Reservation, ReserveError> {
        J::reserve(self, tail, payload_bytes, first_seqno)
    }

    fn accept(&self, tail: &mut Self::Tail, reservation: &Self::Reservation) {
        J::accept(self, tail, reservation);
    }

    fn start(reservation: &Self::Reservation) -> Self::Position {
        J::start(reservation)
    }

    fn end(reservation: &Self::Reservation) -> Self::Position {
        J::end(reservation)
    }

    fn prepare_segment(&self) -> Result<(), Self::Error> {
        J::prepare_segment(self)
    }

    fn append(&self, reservation: &Self::Reservation, payload: &Self::Payload<'_>) -> Result<(), Self::Error> {
        J::append(self, reservation, payload)
    }

    fn sync_through(&self, position: Self::Position) -> Result<(), Self::Error> {
        J::sync_through(self, position)
    }

    fn durable(&self) -> Self::Position {
        J::durable(self)
    }

    fn is_certain(error: &Self::Error) -> bool {
        J::is_certain(error)
    }

    fn distance(base: Self::Position, position: Self::Position) -> u64 {
        J::distance(base, position)
    }

    fn at_distance(base: Self::Position, distance: u64) -> Self::Position {
        J::at_distance(base, distance)
    }
}
