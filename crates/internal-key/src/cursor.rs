//! How entries are walked: the one cursor vocabulary of memtables, tables and merges.

use crate::{InternalKey, Trailer, key_head};

/// One entry, borrowed from whatever holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Key, seqno and kind.
    pub key: InternalKey<'a>,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// A position in an ordered sequence of entries, movable both ways.
///
/// A cursor stands on an entry or on none. A new cursor stands on none; so does one that moved past either end, and
/// from there only the four seeks lead back. What it lends (`user_key`, `value`) is valid until it is moved.
///
/// Implementations are concrete types, chosen at compile time, so that a merge over them inlines. A cursor whose method
/// failed stands on no entry, and its next seek may be tried again.
pub trait Cursor {
    /// What can go wrong while moving; `Infallible` for memory.
    type Error;

    /// Whether the cursor stands on an entry.
    fn valid(&self) -> bool;

    /// The user key of the entry.
    ///
    /// # Panics
    /// May panic or return any bytes if the cursor is not [`valid`](Cursor::valid); never undefined behaviour.
    fn user_key(&self) -> &[u8];

    /// Sequence number and kind of the entry. The same condition as [`user_key`](Cursor::user_key).
    fn trailer(&self) -> Trailer;

    /// The first eight bytes of the user key as an integer (see [`key_head`]); cursors that store heads return them.
    #[inline]
    fn head(&self) -> u64 {
        key_head(self.user_key())
    }

    /// The internal key of the entry. The same condition as [`user_key`](Cursor::user_key).
    #[inline]
    fn key(&self) -> InternalKey<'_> {
        InternalKey::new(self.user_key(), self.trailer())
    }

    /// Whether this is known to be the last entry of its user key that [`next`](Cursor::next) comes to, so that whoever
    /// walks forward need not compare the next key with this one. `false` says nothing. The same condition as
    /// [`user_key`](Cursor::user_key).
    #[inline]
    fn is_last_version(&self) -> bool {
        false
    }

    /// The value of the entry. Takes `&mut self` because a large value may have to be fetched and checked first.
    ///
    /// # Errors
    /// If the value could not be read or does not match its checksum. The cursor stays where it is.
    fn value(&mut self) -> Result<&[u8], Self::Error>;

    /// Moves to the first entry.
    fn seek_to_first(&mut self) -> Result<(), Self::Error>;

    /// Moves to the last entry.
    fn seek_to_last(&mut self) -> Result<(), Self::Error>;

    /// Moves to the first entry at or after `target`.
    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), Self::Error>;

    /// Moves to the last entry strictly before `target`.
    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), Self::Error>;

    /// Moves to the next entry; on an invalid cursor, nothing.
    fn next(&mut self) -> Result<(), Self::Error>;

    /// Moves to the previous entry; on an invalid cursor, nothing.
    fn prev(&mut self) -> Result<(), Self::Error>;
}
