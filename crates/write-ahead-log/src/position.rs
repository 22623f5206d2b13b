//! Places in the log, names of segments, and what their files are called.

use std::fmt;
use std::path::{Path, PathBuf};

use internal_key::SegmentId;

/// A place in the log: a segment and an offset in bytes from the start of its file. Ordered by segment, then offset.
///
/// As a *claim* it says that everything before it is durable (**L2**).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogPosition {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from the start of the segment's file; at most 2^31.
    pub offset: u64,
}

impl LogPosition {
    /// The position `offset` bytes into `segment`.
    pub const fn new(segment: SegmentId, offset: u64) -> Self {
        Self { segment, offset }
    }
}

/// Displayed as `seg4+64`.
impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.segment, self.offset)
    }
}

/// A segment by id *and* salt, so that a recycled file is told apart from what it was before (**L2**, **L5**).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentName {
    /// The id; never reused.
    pub id: SegmentId,
    /// Random, chosen each time a file becomes a segment. Never zero in a segment that this crate wrote.
    pub salt: u64,
}

/// Displayed as `seg4/00000000deadbeef`.
impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.id, self.salt)
    }
}

/// What the file names of segments end with.
const SUFFIX: &str = ".wal";

/// The file name of a segment: its id in decimal, without leading zeros, and `.wal`.
pub fn segment_file_name(id: SegmentId) -> String {
    format!("{}{SUFFIX}", id.get())
}

/// The id that a file name stands for, or `None` if [`segment_file_name`] never makes such a name.
pub fn parse_segment_file_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(SUFFIX)?;
    let id = SegmentId(digits.parse().ok()?);
    // `parse` also takes `+7` and `007`: only the one spelling counts, so that two files never share an id.
    (segment_file_name(id) == name).then_some(id)
}

/// The path of a segment in the log's directory.
pub(crate) fn segment_path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(segment_file_name(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L5: one id has one file name, and no other name stands for it.
    #[test]
    fn a_segment_has_one_file_name() {
        for id in [0, 1, 42, u64::MAX] {
            assert_eq!(parse_segment_file_name(&segment_file_name(SegmentId(id))), Some(SegmentId(id)));
        }
        for name in ["", ".wal", "7", "07.wal", "+7.wal", "7.wal.bak", ".tmp-7.wal", "18446744073709551616.wal"] {
            assert_eq!(parse_segment_file_name(name), None, "{name}");
        }
    }

    /// L2: claims compare by segment first.
    #[test]
    fn positions_order_by_segment_then_offset() {
        let at = |segment, offset| LogPosition::new(SegmentId(segment), offset);
        assert!(at(1, 900) < at(2, 64) && at(2, 64) < at(2, 72));
    }
}
