//! Sequence numbers, kinds, and the trailer that packs both.

use std::fmt;

/// The place of an entry in the one order of all writes of a database: 56 bits, one per entry.
///
/// `SeqNo::ZERO` is before every write; the first write gets 1. At a billion writes a second the numbers last two years,
/// at a million two thousand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeqNo(u64);

impl SeqNo {
    /// Before every write.
    pub const ZERO: Self = Self(0);
    /// The largest number, `2^56 - 1`.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// `number` as a sequence number, or `None` above [`SeqNo::MAX`].
    #[inline]
    pub const fn new(number: u64) -> Option<Self> {
        if number <= Self::MAX.0 { Some(Self(number)) } else { None }
    }

    /// The number itself.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number `count` further on, or `None` if the sequence is exhausted.
    #[inline]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match self.0.checked_add(count) {
            Some(number) => Self::new(number),
            None => None,
        }
    }

    /// The number before this one; zero stays zero.
    #[inline]
    pub const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for SeqNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What an entry does to its key. On disk since format 1: numbers are never changed or reused.
///
/// Only `Put`, `Delete` are written today; the others are reserved so that a later writer's files are told apart from
/// damage. [`Kind::try_from`] knows them all and nothing else: an unknown kind is an error, never skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The key has no value from here on (a tombstone).
    Delete = 0,
    /// The key has this value.
    Put = 1,
    /// Cancels exactly one earlier `Put` of the key.
    SingleDelete = 2,
    /// From this key up to the key in the value, nothing older lives.
    RangeDelete = 3,
    /// An operand that is combined with the value below it.
    Merge = 4,
    /// The value stands elsewhere; the bytes here say where.
    ValuePointer = 5,
}

impl Kind {
    /// Every kind, by number.
    pub const ALL: [Self; 6] =
        [Self::Delete, Self::Put, Self::SingleDelete, Self::RangeDelete, Self::Merge, Self::ValuePointer];

    /// Whether the entry hides older versions without having a value.
    #[inline]
    pub const fn is_tombstone(self) -> bool {
        matches!(self, Self::Delete | Self::SingleDelete)
    }
}

/// A kind number that no format of this engine defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown entry kind {found}: expected 0 to 5")]
pub struct UnknownKind {
    /// The number found.
    pub found: u8,
}

impl TryFrom<u8> for Kind {
    type Error = UnknownKind;

    #[inline]
    fn try_from(number: u8) -> Result<Self, UnknownKind> {
        match number {
            0 => Ok(Self::Delete),
            1 => Ok(Self::Put),
            2 => Ok(Self::SingleDelete),
            3 => Ok(Self::RangeDelete),
            4 => Ok(Self::Merge),
            5 => Ok(Self::ValuePointer),
            found => Err(UnknownKind { found }),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delete => "delete",
            Self::Put => "put",
            Self::SingleDelete => "single-delete",
            Self::RangeDelete => "range-delete",
            Self::Merge => "merge",
            Self::ValuePointer => "value-pointer",
        })
    }
}

/// Sequence number and kind in one integer: `seqno << 8 | kind`. Larger trailers come first in the order.
///
/// ```text
///   63                              8 7      0
///  ┌─────────────────────────────────┬────────┐
///  │ seqno (56 bits)                 │ kind   │   little-endian on disk
///  └─────────────────────────────────┴────────┘
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trailer(u64);

impl Trailer {
    /// The kind number of a seek target: sorts before every entry of the same key and seqno. Never stored.
    pub const SEEK_KIND: u8 = 0xFF;

    /// The trailer of an entry.
    #[inline]
    pub const fn new(seqno: SeqNo, kind: Kind) -> Self {
        Self(seqno.get() << 8 | kind as u64)
    }

    /// The trailer that sorts before every entry at or below `seqno`, and after every newer one.
    #[inline]
    pub const fn seek(seqno: SeqNo) -> Self {
        Self(seqno.get() << 8 | Self::SEEK_KIND as u64)
    }

    /// The packed integer.
    #[inline]
    pub const fn to_raw(self) -> u64 {
        self.0
    }

    /// A packed integer from disk, checked.
    ///
    /// # Errors
    /// [`UnknownKind`] if the low byte is no [`Kind`] (the seek sentinel is not one: it is never stored).
    #[inline]
    pub fn from_raw(raw: u64) -> Result<Self, UnknownKind> {
        Kind::try_from(raw as u8)?;
        Ok(Self(raw))
    }

    /// The sequence number.
    #[inline]
    pub const fn seqno(self) -> SeqNo {
        SeqNo(self.0 >> 8)
    }

    /// The kind.
    ///
    /// # Panics
    /// If this is a seek target: those have no kind and never reach an entry.
    #[inline]
    pub fn kind(self) -> Kind {
        match Kind::try_from(self.0 as u8) {
            Ok(kind) => kind,
            Err(_) => panic!("a seek target has no kind"),
        }
    }

    /// The same kind at `base + seqno`: how a batch written with relative seqnos is read (P11). `None` past the end.
    #[inline]
    pub fn rebased(self, base: u64) -> Option<Self> {
        Some(Self(self.seqno().checked_add(base)?.get() << 8 | self.0 & 0xFF))
    }
}

impl fmt::Debug for Trailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Trailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Kind::try_from(self.0 as u8) {
            Ok(kind) => write!(f, "{} {kind}", self.seqno()),
            Err(_) => write!(f, "{} seek", self.seqno()),
        }
    }
}
