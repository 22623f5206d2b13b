//! What a reader at a seqno sees of an order of versions.
//!
//! ```text
//!   entries    a#9 put   a#4 put   b#7 delete   b#2 put   c#8 put   c#3 put   d#5 put
//!   at #6                a=…       (b#2 at 1)                       c=…       d=…         newest version ≤ seqno, for
//!   at #7                a=…       hidden                           c=…       d=…         each key; tombstones hide
//! ```
//!
//! Forwards the inner cursor stands on the entry that is lent. Backwards the versions of a key come oldest first, so which
//! of them is the newest visible one is known only after it was passed: there the inner cursor stands before the key, and
//! key and value are lent from buffers.

use std::ops::Bound;

use internal_key::{Cursor, InternalKey, Kind, SeqNo, Trailer, key_head};
use planted_faults::planted;

/// Versions of one key that are passed one by one before the cursor seeks past the rest.
const STEPS_BEFORE_SEEK: usize = 8;

/// Why a [`VisibleCursor`] could not move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VisibleError<E> {
    /// The cursor below failed. A later seek may succeed.
    #[error("{0}")]
    Source(#[source] E),
    /// What decides over a key is of a kind that this version cannot read. A later version may.
    #[error("unsupported kind {kind} of key \"{}\" at {seqno}", key.escape_ascii())]
    UnsupportedKind {
        /// The user key.
        key: Box<[u8]>,
        /// The seqno of the entry.
        seqno: SeqNo,
        /// Its kind.
        kind: Kind,
    },
}

/// Where a [`VisibleCursor`] stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    /// On no entry.
    None,
    /// On the entry of the inner cursor.
    Inner,
    /// On what the buffers hold; the inner cursor stands on the last entry before all versions of that key, or on none.
    Buffer,
}

/// A key that bounds, with its head: nearly every row is judged by that alone.
#[derive(Debug)]
struct Bounding {
    head: u64,
    key: Box<[u8]>,
}

impl Bounding {
    fn new(key: Vec<u8>) -> Self {
        Self { head: key_head(&key), key: key.into() }
    }

    /// Whether the entry that `cursor` stands on lies before this key.
    #[inline]
    fn is_after(&self, cursor: &impl Cursor) -> bool {
        let head = cursor.head();
        if head == self.head && planted("visible-bound-decided-by-head") {
            return true;
        }
        // The empty key is after nothing. Said here, not only for speed: a comparison of no bytes at the address that
        // an empty box has may fault and be resumed (masked vector loads do), which costs 100 ns where it happens.
        head < self.head || head == self.head && !self.key.is_empty() && cursor.user_key() < &*self.key
    }
}

/// What a reader at one seqno sees over a [`Cursor`], within bounds: live user keys, each with its newest visible value.
///
/// Puts are shown; delete and single-delete hide their key. What is lent is valid until the cursor is moved. After an
/// error the cursor stands on no entry, and seeks may be tried again. Many versions of one key cost a seek, not a step
/// each. Nothing is allocated for a row once the buffers have grown to the largest key (and, backwards, value).
#[derive(Debug)]
pub struct VisibleCursor<C> {
    inner: C,
    seqno: SeqNo,
    /// The smallest key in bounds; empty if unbounded.
    from: Bounding,
    /// The smallest key above the bounds; `None` if unbounded.
    until: Option<Bounding>,
    stand: Stand,
    /// The key that was shown or hidden last, with its head; while turning, a seek target.
    key: Vec<u8>,
    head: u64,
    /// With [`Stand::Buffer`], the entry that is lent.
    trailer: Trailer,
    value: Vec<u8>,
}

impl<C: Cursor> VisibleCursor<C> {
    /// What is visible at `seqno` of the keys within `bounds` (lower, upper), standing on no entry. Empty keys are keys;
    /// inverted bounds hold nothing.
    pub fn new(inner: C, seqno: SeqNo, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Self {
        let from = match bounds.0 {
            Bound::Included(key) => key.to_vec(),
            Bound::Excluded(key) => just_after(key),
            Bound::Unbounded => Vec::new(),
        };
        let until = match bounds.1 {
            Bound::Included(key) => Some(just_after(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        Self {
            inner,
            seqno,
            from: Bounding::new(from),
            until: until.map(Bounding::new),
            stand: Stand::None,
            key: Vec::new(),
            head: 0,
            trailer: Trailer::seek(seqno),
            value: Vec::new(),
        }
    }

    /// The seqno that the reader reads at.
    pub fn seqno(&self) -> SeqNo {
        self.seqno
    }

    /// The cursor below; where it stands is of no meaning.
    pub fn inner(&self) -> &C {
        &self.inner
    }

    /// Gives the cursor below back.
    pub fn into_inner(self) -> C {
        self.inner
    }

    /// Whether the cursor stands on an entry.
    #[inline]
    pub fn valid(&self) -> bool {
        self.stand != Stand::None
    }

    /// The user key.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Self::valid).
    #[inline]
    pub fn user_key(&self) -> &[u8] {
        match self.stand {
            Stand::Inner => self.inner.user_key(),
            Stand::Buffer => &self.key,
            Stand::None => no_entry(),
        }
    }

    /// Seqno and kind of the version that is shown.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Self::valid).
    #[inline]
    pub fn trailer(&self) -> Trailer {
        match self.stand {
            Stand::Inner => self.inner.trailer(),
            Stand::Buffer => self.trailer,
            Stand::None => no_entry(),
        }
    }

    /// The value.
    ///
    /// # Errors
    /// If the cursor below cannot read it. The cursor stays where it is.
    ///
    /// # Panics
    /// If the cursor is not [`valid`](Self::valid).
    #[inline]
    pub fn value(&mut self) -> Result<&[u8], VisibleError<C::Error>> {
        match self.stand {
            Stand::Inner => self.inner.value().map_err(VisibleError::Source),
            Stand::Buffer => Ok(&self.value),
            Stand::None => no_entry(),
        }
    }

    /// Moves to the first visible key.
    pub fn seek_to_first(&mut self) -> Result<(), VisibleError<C::Error>> {
        self.moving(|cursor| {
            if cursor.from.key.is_empty() {
                cursor.inner.seek_to_first().map_err(VisibleError::Source)?;
            } else {
                let target = InternalKey::seek(&cursor.from.key, cursor.seqno);
                cursor.inner.seek(target).map_err(VisibleError::Source)?;
            }
            cursor.settle_forward()
        })
    }

    /// Moves to the last visible key.
    pub fn seek_to_last(&mut self) -> Result<(), VisibleError<C::Error>> {
        self.moving(|cursor| {
            match &cursor.until {
                Some(until) => cursor.inner.seek_before(before_all_versions(&until.key)),
                None => cursor.inner.seek_to_last(),
            }
            .map_err(VisibleError::Source)?;
            cursor.settle_backward()
        })
    }

    /// Moves to the first visible key at or after `user_key`.
    pub fn seek(&mut self, user_key: &[u8]) -> Result<(), VisibleError<C::Error>> {
        self.moving(|cursor| {
            let target = InternalKey::seek(user_key.max(&cursor.from.key), cursor.seqno);
            cursor.inner.seek(target).map_err(VisibleError::Source)?;
            cursor.settle_forward()
        })
    }

    /// Moves to the last visible key at or before `user_key`.
    pub fn seek_for_prev(&mut self, user_key: &[u8]) -> Result<(), VisibleError<C::Error>> {
        match &self.until {
            Some(until) if *until.key <= *user_key => self.seek_to_last(),
            _ => self.moving(|cursor| {
                cursor.key.clear();
                cursor.key.extend_from_slice(user_key);
                cursor.key.push(0);
                cursor.inner.seek_before(before_all_versions(&cursor.key)).map_err(VisibleError::Source)?;
                cursor.settle_backward()
            }),
        }
    }

    /// Moves to the next visible key; on an invalid cursor, nothing.
    #[expect(clippy::should_implement_trait, reason = "it moves, and lends; an iterator could not lend")]
    #[inline]
    pub fn next(&mut self) -> Result<(), VisibleError<C::Error>> {
        match self.stand {
            Stand::None => Ok(()),
            Stand::Inner if self.inner.is_last_version() => self.moving(|cursor| {
                cursor.inner.next().map_err(VisibleError::Source)?;
                cursor.settle_forward()
            }),
            Stand::Inner => self.moving(|cursor| {
                cursor.remember_key();
                cursor.inner.next().map_err(VisibleError::Source)?;
                cursor.pass_older_versions()?;
                cursor.settle_forward()
            }),
            Stand::Buffer => self.moving(|cursor| {
                cursor.seek_past_key()?;
                cursor.settle_forward()
            }),
        }
    }

    /// Moves to the previous visible key; on an invalid cursor, nothing.
    #[inline]
    pub fn prev(&mut self) -> Result<(), VisibleError<C::Error>> {
        match self.stand {
            Stand::None => Ok(()),
            Stand::Inner => self.moving(|cursor| {
                cursor.remember_key();
                cursor.inner.prev().map_err(VisibleError::Source)?;
                cursor.pass_newer_versions()?;
                cursor.settle_backward()
            }),
            Stand::Buffer => self.moving(Self::settle_backward),
        }
    }

    /// Runs a move; the cursor stands on no entry unless it says otherwise at its end.
    #[inline]
    fn moving(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<Stand, VisibleError<C::Error>>,
    ) -> Result<(), VisibleError<C::Error>> {
        self.stand = Stand::None;
        self.stand = body(self)?;
        Ok(())
    }

    /// From wherever the inner cursor stands, at the newest version of a key that it does not stand behind: stands on the
    /// first visible entry.
    #[inline]
    fn settle_forward(&mut self) -> Result<Stand, VisibleError<C::Error>> {
        loop {
            if !self.inner.valid() || self.is_above_bounds() {
                return Ok(Stand::None);
            }
            let trailer = self.inner.trailer();
            if trailer.seqno() > self.seqno {
                self.pass_invisible_versions()?;
                continue;
            }
            match trailer.kind() {
                Kind::Put => return Ok(Stand::Inner),
                Kind::Delete | Kind::SingleDelete => {
                    self.remember_key();
                    self.inner.next().map_err(VisibleError::Source)?;
                    if !planted("visible-tombstone-hides-nothing-older") {
                        self.pass_older_versions()?;
                    }
                }
                kind => return Err(unsupported(self.inner.user_key(), trailer.seqno(), kind)),
            }
        }
    }

    /// From the oldest version of a key, stands on the buffered entry of the last visible key at or before it.
    fn settle_backward(&mut self) -> Result<Stand, VisibleError<C::Error>> {
        loop {
            if !self.inner.valid() || self.from.is_after(&self.inner) {
                return Ok(Stand::None);
            }
            self.remember_key();
            let oldest = self.inner.trailer();
            if oldest.seqno() > self.seqno {
                self.pass_newer_versions()?;
                continue;
            }
            self.buffer_newest_visible()?;
            match self.trailer.kind() {
                Kind::Put => return Ok(Stand::Buffer),
                Kind::Delete | Kind::SingleDelete => {}
                kind => return Err(unsupported(&self.key, self.trailer.seqno(), kind)),
            }
        }
    }

    /// On the oldest version of the remembered key, which is visible: buffers the newest visible one, and leaves the key
    /// backwards.
    #[inline]
    fn buffer_newest_visible(&mut self) -> Result<(), VisibleError<C::Error>> {
        for _ in 0..STEPS_BEFORE_SEEK {
            self.buffer_entry()?;
            self.inner.prev().map_err(VisibleError::Source)?;
            if !self.is_on_remembered_key() {
                return Ok(());
            }
            let newer = self.inner.trailer().seqno();
            if newer > self.seqno || newer == self.seqno && planted("visible-own-seqno-missed-backwards") {
                return self.pass_newer_versions();
            }
        }
        let target = InternalKey::seek(&self.key, self.seqno);
        self.inner.seek(target).map_err(VisibleError::Source)?;
        assert!(self.is_on_remembered_key(), "R2: a visible version of a key went away under its reader");
        self.buffer_entry()?;
        self.inner.seek_before(before_all_versions(&self.key)).map_err(VisibleError::Source)
    }

    /// Copies trailer and value of the entry.
    #[inline]
    fn buffer_entry(&mut self) -> Result<(), VisibleError<C::Error>> {
        self.trailer = self.inner.trailer();
        if self.trailer.kind() == Kind::Put {
            let value = self.inner.value().map_err(VisibleError::Source)?;
            self.value.clear();
            self.value.extend_from_slice(value);
        }
        Ok(())
    }

    /// Forwards, moves off the remembered key.
    #[inline]
    fn pass_older_versions(&mut self) -> Result<(), VisibleError<C::Error>> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.is_on_remembered_key() {
                return Ok(());
            }
            self.inner.next().map_err(VisibleError::Source)?;
        }
        if self.is_on_remembered_key() { self.seek_past_key() } else { Ok(()) }
    }

    /// Forwards, moves to the first version of this key that is visible, or to a later key.
    #[cold]
    fn pass_invisible_versions(&mut self) -> Result<(), VisibleError<C::Error>> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.inner.valid() || self.inner.trailer().seqno() <= self.seqno {
                return Ok(());
            }
            self.inner.next().map_err(VisibleError::Source)?;
        }
        if self.inner.valid() && self.inner.trailer().seqno() > self.seqno {
            self.remember_key();
            let target = InternalKey::seek(&self.key, self.seqno);
            self.inner.seek(target).map_err(VisibleError::Source)?;
        }
        Ok(())
    }

    /// Backwards, moves off the remembered key.
    #[inline]
    fn pass_newer_versions(&mut self) -> Result<(), VisibleError<C::Error>> {
        for _ in 0..STEPS_BEFORE_SEEK {
            if !self.is_on_remembered_key() {
                return Ok(());
            }
            self.inner.prev().map_err(VisibleError::Source)?;
        }
        if self.is_on_remembered_key() {
            self.inner.seek_before(before_all_versions(&self.key)).map_err(VisibleError::Source)?;
        }
        Ok(())
    }

    /// Seeks to the first entry after all versions of the remembered key.
    #[cold]
    fn seek_past_key(&mut self) -> Result<(), VisibleError<C::Error>> {
        self.key.push(0);
        self.inner.seek(before_all_versions(&self.key)).map_err(VisibleError::Source)
    }

    #[inline]
    fn remember_key(&mut self) {
        self.head = self.inner.head();
        self.key.clear();
        self.key.extend_from_slice(self.inner.user_key());
    }

    #[inline]
    fn is_on_remembered_key(&self) -> bool {
        self.inner.valid() && self.inner.head() == self.head && self.inner.user_key() == self.key
    }

    #[inline]
    fn is_above_bounds(&self) -> bool {
        self.until.as_ref().is_some_and(|until| !until.is_after(&self.inner))
    }
}

/// The smallest key larger than `key`.
fn just_after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The seek target before every version of `user_key`.
fn before_all_versions(user_key: &[u8]) -> InternalKey<'_> {
    InternalKey::seek(user_key, SeqNo::MAX)
}

#[cold]
fn unsupported<E>(key: &[u8], seqno: SeqNo, kind: Kind) -> VisibleError<E> {
    VisibleError::UnsupportedKind { key: key.into(), seqno, kind }
}

#[cold]
fn no_entry() -> ! {
    panic!("the cursor stands on no entry")
}
