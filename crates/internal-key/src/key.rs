//! Internal keys and their one order.

use std::cmp::Ordering;
use std::fmt;

use crate::{SeqNo, Trailer};

/// The longest user key, in bytes.
pub const MAX_KEY_BYTES: usize = 65_535;

/// The longest value, in bytes: 4 GiB − 1.
pub const MAX_VALUE_BYTES: u64 = u32::MAX as u64;

/// The first eight bytes of `key` as a big-endian integer, zero-padded: compares as the bytes do.
///
/// Unequal heads decide the order of two keys. Equal heads decide nothing, because the padding of a short key looks
/// like zero bytes of a long one: compare the keys then.
///
/// ```
/// use internal_key::key_head;
/// assert!(key_head(b"apple") < key_head(b"banana"));
/// assert_eq!(key_head(b"a"), key_head(b"a\0"), "equal heads decide nothing");
/// ```
#[inline]
pub fn key_head(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(head) => u64::from_be_bytes(*head),
        None => {
            let mut head = [0; 8];
            head[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(head)
        }
    }
}

/// The smallest key that is larger than every key beginning with `prefix`, or `None` if there is none.
///
/// ```
/// use internal_key::successor_of_prefix;
/// assert_eq!(successor_of_prefix(b"ab"), Some(b"ac".to_vec()));
/// assert_eq!(successor_of_prefix(b"a\xff"), Some(b"b".to_vec()));
/// assert_eq!(successor_of_prefix(b"\xff"), None);
/// ```
pub fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut successor = prefix[..=last].to_vec();
    successor[last] += 1;
    Some(successor)
}

/// A user key with its trailer, borrowed. Ordered: user key ascending, trailer (seqno, then kind) descending.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InternalKey<'a> {
    /// The bytes that the user gave.
    pub user_key: &'a [u8],
    /// Sequence number and kind.
    pub trailer: Trailer,
}

impl<'a> InternalKey<'a> {
    /// `user_key` with `trailer`.
    #[inline]
    pub const fn new(user_key: &'a [u8], trailer: Trailer) -> Self {
        Self { user_key, trailer }
    }

    /// The seek target for the newest version of `user_key` at or below `seqno`.
    #[inline]
    pub const fn seek(user_key: &'a [u8], seqno: SeqNo) -> Self {
        Self { user_key, trailer: Trailer::seek(seqno) }
    }

    /// A copy that owns its bytes.
    pub fn to_owned(self) -> OwnedInternalKey {
        OwnedInternalKey { user_key: self.user_key.into(), trailer: self.trailer }
    }
}

impl Ord for InternalKey<'_> {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.user_key.cmp(other.user_key).then_with(|| other.trailer.cmp(&self.trailer))
    }
}

impl PartialOrd for InternalKey<'_> {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Draws the key as golden scripts write it: `a#9 delete`, with bytes that are not printable ASCII as `\xNN`.
impl fmt::Display for InternalKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.user_key.escape_ascii(), self.trailer)
    }
}

/// An [`InternalKey`] that owns its bytes, in the same order.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OwnedInternalKey {
    /// The bytes that the user gave.
    pub user_key: Box<[u8]>,
    /// Sequence number and kind.
    pub trailer: Trailer,
}

impl OwnedInternalKey {
    /// The key, borrowed.
    #[inline]
    pub fn borrow(&self) -> InternalKey<'_> {
        InternalKey::new(&self.user_key, self.trailer)
    }
}

impl Ord for OwnedInternalKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.borrow().cmp(&other.borrow())
    }
}

impl PartialOrd for OwnedInternalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for OwnedInternalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.borrow(), f)
    }
}
