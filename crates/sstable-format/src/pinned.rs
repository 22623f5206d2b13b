//! Bytes together with what keeps them where they are.
//!
//! Readers and cursors hold slices of maps and of cached blocks beside the `Arc` that owns them. A lifetime cannot say
//! that, so it is said here, once; everything else in the crate sees `&[u8]`.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use file_system::MappedBytes;

use crate::CachedBlock;

/// Immutable bytes at a fixed address, and their owner.
pub(crate) struct Pinned {
    start: NonNull<u8>,
    length: usize,
    owner: Owner,
}

#[derive(Clone)]
enum Owner {
    /// Whoever made the value keeps the bytes: see [`Pinned::lent`].
    Lender,
    Map(#[expect(dead_code, reason = "held, not read")] Arc<MappedBytes>),
    Block(#[expect(dead_code, reason = "held, not read")] Arc<CachedBlock>),
}

// SAFETY: the bytes are only read, from any thread; every owner is `Send + Sync` (asserted below), and a lender promises
// to keep them valid on whatever thread the value is.
unsafe impl Send for Pinned {}
// SAFETY: as above; no method changes anything.
unsafe impl Sync for Pinned {}
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Arc<MappedBytes>>();
    send_and_sync::<Arc<CachedBlock>>();
};

impl Pinned {
    pub(crate) const EMPTY: Self = Self { start: NonNull::dangling(), length: 0, owner: Owner::Lender };

    fn new(bytes: &[u8], owner: Owner) -> Self {
        Self { start: NonNull::from(bytes).cast(), length: bytes.len(), owner }
    }

    /// A range of a map, or `None` if it leaves the map.
    pub(crate) fn map(map: &Arc<MappedBytes>, range: Range<usize>) -> Option<Self> {
        // The `Arc` keeps the map, and with it the address that the map derefs to, until the last clone is dropped.
        Some(Self::new(map.get(range)?, Owner::Map(Arc::clone(map))))
    }

    /// A decoded block.
    pub(crate) fn block(block: Arc<CachedBlock>) -> Self {
        let (start, length) = (NonNull::from(&**block).cast(), block.len());
        Self { start, length, owner: Owner::Block(block) }
    }

    /// Bytes that somebody else keeps, without a count of holders.
    ///
    /// # Safety
    /// `bytes` must stay where they are, unchanged, for as long as the value lives.
    pub(crate) unsafe fn lent(bytes: &[u8]) -> Self {
        Self::new(bytes, Owner::Lender)
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `length` come from one slice. Its bytes live as long as `self`: for `Map` and `Block` the
        // `Arc` in `owner` keeps them (neither ever hands out `&mut`), for `Lender` the caller of `lent` promised so,
        // and the empty slice needs nobody.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = match self.owner {
            Owner::Lender => "lender",
            Owner::Map(_) => "map",
            Owner::Block(_) => "block",
        };
        write!(f, "Pinned({} bytes of a {owner})", self.length)
    }
}

/// Asks the processor for the cache line at `bytes[at]`, if there is one. Costs an instruction, changes nothing.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if at < bytes.len() {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the address lies in `bytes`, and a prefetch reads nothing architecturally; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}
