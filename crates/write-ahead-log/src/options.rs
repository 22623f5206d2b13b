//! How large segments are and how stores reach them.

use file_system::LogFileWay;

/// Options of a log. They may change from one opening to the next: every segment's header carries its own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of each new segment, header included. Rounded up to a multiple of 4 KiB and taken into
    /// [`SEGMENT_BYTES_MIN`](Self::SEGMENT_BYTES_MIN) ..= [`SEGMENT_BYTES_MAX`](Self::SEGMENT_BYTES_MAX).
    pub segment_bytes: u64,
    /// How stores reach a segment, where the file system allows it (**L1**).
    pub way: LogFileWay,
    /// How many bytes ahead of the log's end have their pages touched by [`Log::populate_ahead`](crate::Log::populate_ahead).
    pub populate_bytes: u64,
    /// How many segments that are no longer needed are kept to be written over; the others are removed.
    pub recycled_max: usize,
}

impl LogOptions {
    /// The smallest segment: 4 KiB.
    pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
    /// The largest segment: 2 GiB, so that every offset fits 32 bits.
    pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;

    /// The length that new segments get.
    pub fn segment_bytes_effective(&self) -> u64 {
        self.segment_bytes.clamp(Self::SEGMENT_BYTES_MIN, Self::SEGMENT_BYTES_MAX).next_multiple_of(4 << 10)
    }

    /// The longest payload that fits a record; anything longer is written by reference (P11).
    pub fn payload_bytes_max(&self) -> u64 {
        crate::segment::payload_bytes_max(self.segment_bytes_effective())
    }
}

/// Segments of 64 MiB, mapped, populated 4 MiB ahead (20 ms at a million small records a second), two recycled.
impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, way: LogFileWay::Mapped, populate_bytes: 4 << 20, recycled_max: 2 }
    }
}
