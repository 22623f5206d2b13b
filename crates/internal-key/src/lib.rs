//! User key, sequence number and kind in their one order; the vocabulary of entries and cursors.
//!
//! Everything above orders entries in one way and no other: **user key ascending (bytewise), then seqno descending,
//! then kind descending**. So the newest version of a key comes first, and a seek to `(key, seqno, SEEK)` lands on the
//! newest version that a reader at `seqno` may see.
//!
//! ```
//! use internal_key::{InternalKey, Kind, SeqNo, Trailer};
//!
//! let old = InternalKey::new(b"k", Trailer::new(SeqNo::new(3).unwrap(), Kind::Put));
//! let new = InternalKey::new(b"k", Trailer::new(SeqNo::new(9).unwrap(), Kind::Delete));
//! assert!(new < old, "newer versions come first");
//! let target = InternalKey::seek(b"k", SeqNo::new(5).unwrap());
//! assert!(new < target && target < old, "a reader at 5 lands on version 3");
//! ```
//!
//! Reading order: [`ids`] (names of things), [`seqno`] (sequence number, kind, trailer), [`key`] (the order),
//! [`cursor`] (how entries are walked).

#![forbid(unsafe_code)]

pub mod cursor;
pub mod ids;
pub mod key;
pub mod seqno;

pub use cursor::{Cursor, Entry};
pub use ids::{Epoch, JobId, KeyspaceId, Level, SegmentId, TableId};
pub use key::{InternalKey, MAX_KEY_BYTES, MAX_VALUE_BYTES, OwnedInternalKey, key_head, successor_of_prefix};
pub use seqno::{Kind, SeqNo, Trailer, UnknownKind};
