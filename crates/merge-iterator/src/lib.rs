//! One order out of many cursors, and what of it a reader at a seqno may see.
//!
//! ```text
//!   memtable cursors, table cursors           MergeCursor              VisibleCursor
//!   ┌─────────────┐ ┌─────────────┐    one order of all entries    newest version ≤ seqno,
//!   │ a#9  c#8    │ │ a#4  b#2    │ ─▶ a#9 a#4 b#2 c#8          ─▶ tombstones hide, bounds cut
//!   └─────────────┘ └─────────────┘
//! ```
//!
//! - **I1** A merge holds exactly the entries of its sources, in the order of internal keys, both ways; of equal entries
//!   the earlier source's comes first.
//! - **I2** Where a merge stands depends on the last seek and the steps since, not on how it turned in between.
//! - **I3** An error from a source invalidates the merge and is returned; a later seek may succeed.
//! - **I4** At seqno S exactly those keys in bounds are seen whose newest version at or below S is a put, with its value;
//!   the same ones forwards and backwards.
//! - **I5** A kind that cannot be read is an error, never skipped.
//! - **I6** Nothing is allocated for an entry once the buffers have grown.
//!
//! ```
//! use std::ops::Bound;
//! use std::sync::Arc;
//! use internal_key::{Kind, SeqNo, Trailer};
//! use merge_iterator::{MergeCursor, SliceCursor, VisibleCursor};
//!
//! let entry = |key: &str, seqno, kind, value: &str| {
//!     (key.as_bytes().to_vec(), Trailer::new(SeqNo::new(seqno).unwrap(), kind), value.as_bytes().to_vec())
//! };
//! let newer = SliceCursor::new([entry("a", 9, Kind::Put, "new"), entry("c", 8, Kind::Delete, "")]);
//! let older = SliceCursor::new([entry("a", 4, Kind::Put, "old"), entry("b", 2, Kind::Put, "bee"), entry("c", 1, Kind::Put, "sea")]);
//!
//! let merge = MergeCursor::new(vec![newer, older]);
//! let mut seen = VisibleCursor::new(merge, SeqNo::new(8).unwrap(), (Bound::Unbounded, Bound::Unbounded));
//! seen.seek_to_first()?;
//! assert_eq!((seen.user_key(), seen.trailer().seqno().get()), (&b"a"[..], 4), "a#9 is too new");
//! seen.next()?;
//! assert_eq!(seen.value()?, b"bee");
//! seen.next()?;
//! assert!(!seen.valid(), "c is deleted");
//! # Ok::<(), merge_iterator::VisibleError<std::convert::Infallible>>(())
//! ```
//!
//! Reading order: [`merge`], [`visible`], [`mod@slice`].

#![forbid(unsafe_code)]

pub mod merge;
pub mod slice;
pub mod visible;

pub use merge::MergeCursor;
pub use slice::SliceCursor;
pub use visible::{VisibleCursor, VisibleError};
