//! A cursor over entries in memory: for small inputs that are sorted anyway, and for tests.

use std::convert::Infallible;
use std::sync::Arc;

use internal_key::{Cursor, InternalKey, Trailer};

/// User key, trailer and value of an entry.
pub type SliceEntry = (Vec<u8>, Trailer, Vec<u8>);

/// A [`Cursor`] over a shared, sorted array of entries.
#[derive(Debug, Clone)]
pub struct SliceCursor {
    entries: Arc<[SliceEntry]>,
    /// Index of the entry it stands on; on none if out of bounds.
    at: usize,
}

impl SliceCursor {
    /// A cursor over `entries`, standing on none.
    ///
    /// # Panics
    /// If they do not ascend in the order of internal keys.
    pub fn new(entries: impl Into<Arc<[SliceEntry]>>) -> Self {
        let entries = entries.into();
        assert!(entries.is_sorted_by_key(key_of), "I1: the entries of a source ascend");
        Self { at: entries.len(), entries }
    }

    fn first_at_or_after(&self, target: InternalKey<'_>) -> usize {
        self.entries.partition_point(|entry| key_of(entry) < target)
    }
}

fn key_of((user_key, trailer, _): &SliceEntry) -> InternalKey<'_> {
    InternalKey::new(user_key, *trailer)
}

impl Cursor for SliceCursor {
    type Error = Infallible;

    #[inline]
    fn valid(&self) -> bool {
        self.at < self.entries.len()
    }

    #[inline]
    fn user_key(&self) -> &[u8] {
        &self.entries[self.at].0
    }

    #[inline]
    fn trailer(&self) -> Trailer {
        self.entries[self.at].1
    }

    #[inline]
    fn is_last_version(&self) -> bool {
        self.entries.get(self.at + 1).is_none_or(|next| next.0 != self.entries[self.at].0)
    }

    #[inline]
    fn value(&mut self) -> Result<&[u8], Infallible> {
        Ok(&self.entries[self.at].2)
    }

    fn seek_to_first(&mut self) -> Result<(), Infallible> {
        self.at = 0;
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<(), Infallible> {
        self.at = self.entries.len().wrapping_sub(1);
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.at = self.first_at_or_after(target);
        Ok(())
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.at = self.first_at_or_after(target).wrapping_sub(1);
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<(), Infallible> {
        if self.valid() {
            self.at += 1;
        }
        Ok(())
    }

    #[inline]
    fn prev(&mut self) -> Result<(), Infallible> {
        if self.valid() {
            self.at = self.at.wrapping_sub(1);
        }
        Ok(())
    }
}
