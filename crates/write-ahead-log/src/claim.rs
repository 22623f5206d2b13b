//! The durable claim: the place in the log before which everything is known to be durable.
//!
//! ```text
//!   logged ──load──▶ position ──sync──▶ ok ──raise──▶ durable ──load──▶ claim in the next record's header
//! ```
//!
//! - **L2** A claim is `logged` as it was loaded *before* the sync began, raised only after the sync succeeded.
//! - It never falls.

use internal_key::SegmentId;

use crate::LogPosition;
use crate::sync::{AtomicU64, Ordering};

/// A [`LogPosition`] that only rises and is read with one load.
///
/// ```
/// use internal_key::SegmentId;
/// use write_ahead_log::{DurableClaim, LogPosition};
/// # if cfg!(loom) { return; }
/// let at = |offset| LogPosition::new(SegmentId(7), offset);
/// let claim = DurableClaim::new(at(64));
/// claim.raise(at(200));
/// claim.raise(at(128)); // late and smaller: changes nothing
/// assert_eq!(claim.load(), at(200));
/// ```
#[derive(Debug)]
pub struct DurableClaim {
    /// The segment that distance 0 stands for.
    base: SegmentId,
    /// `(segment - base) << 32 | offset`, so that integer order is position order.
    packed: AtomicU64,
}

impl DurableClaim {
    /// A claim that begins at `position` and can rise through the next 2^32 segments.
    pub fn new(position: LogPosition) -> Self {
        Self { base: position.segment, packed: AtomicU64::new(pack(position.segment, position)) }
    }

    /// The claim. Whoever uses it acts after the sync that it vouches for.
    #[inline]
    pub fn load(&self) -> LogPosition {
        // Acquire pairs with the Release in `raise`: the sync has returned before anyone acts on its claim (L2).
        let packed = self.packed.load(Ordering::Acquire);
        LogPosition::new(SegmentId(self.base.get() + (packed >> 32)), packed & u64::from(u32::MAX))
    }

    /// Raises the claim to `position` unless it is there already. Call only after a sync that covers `position`.
    ///
    /// # Panics
    /// If `position` lies before the first segment, or more than 2^32 segments after it.
    pub fn raise(&self, position: LogPosition) {
        let order = if planted_faults::planted("log-relaxed-claim") {
            Ordering::Relaxed
        } else {
            // Release pairs with the Acquire in `load`; of two racing syncs the larger position stays (P7).
            Ordering::Release
        };
        self.packed.fetch_max(pack(self.base, position), order);
    }
}

fn pack(base: SegmentId, position: LogPosition) -> u64 {
    let distance = position.segment.get().checked_sub(base.get()).and_then(|distance| u32::try_from(distance).ok());
    let distance = distance.expect("L2: a claim lies within 2^32 segments of where the log was opened");
    let offset = u32::try_from(position.offset).expect("L1: offsets fit 32 bits");
    u64::from(distance) << 32 | u64::from(offset)
}
