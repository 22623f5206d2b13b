//! How large segments are and how stores reach them.

use file_system::LogFileWay;

/// Options of a log. They may change from one opening to the next: every segment's header carries its own length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    /// Bytes of the longest segments, header included. Rounded up to a multiple of 4 KiB and taken into
    /// [`SEGMENT_BYTES_MIN`](Self::SEGMENT_BYTES_MIN) ..= [`SEGMENT_BYTES_MAX`](Self::SEGMENT_BYTES_MAX).
    pub segment_bytes: u64,
    /// Bytes of the shortest segments, likewise: what a log begins with. A new segment has about a quarter of what the
    /// live ones have together, within these two, so that a log that is kept short takes little space and one that is kept
    /// long has few segments.
    pub segment_bytes_first: u64,
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

    /// The length of the longest segments.
    pub fn segment_bytes_effective(&self) -> u64 {
        self.segment_bytes.clamp(Self::SEGMENT_BYTES_MIN, Self::SEGMENT_BYTES_MAX).next_multiple_of(4 << 10)
    }

    /// The length of a new segment of a log whose live ones have `live_bytes` together, with room for `needed_bytes`.
    pub(crate) fn segment_bytes_after(&self, live_bytes: u64, needed_bytes: u64) -> u64 {
        let longest = self.segment_bytes_effective();
        let shortest = self.segment_bytes_first.clamp(Self::SEGMENT_BYTES_MIN, longest);
        (live_bytes / 4).max(shortest).max(needed_bytes).next_multiple_of(4 << 10).min(longest)
    }

    /// The longest payload that fits a record; anything longer is written by reference (P11).
    pub fn payload_bytes_max(&self) -> u64 {
        crate::segment::payload_bytes_max(self.segment_bytes_effective())
    }
}

/// Segments of 4 to 64 MiB, mapped, populated 4 MiB ahead (20 ms at a million small records a second), two recycled.
impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_bytes_first: 4 << 20,
            way: LogFileWay::Mapped,
            populate_bytes: 4 << 20,
            recycled_max: 2,
        }
    }
}
