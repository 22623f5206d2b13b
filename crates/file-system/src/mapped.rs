//! Bytes of an immutable file, readable in place.

use std::fmt;
use std::ops::Deref;

/// The bytes of a whole immutable file: a read-only map of it, or a copy in memory with the same alignment.
///
/// The start is aligned to at least 8 bytes. Holding it keeps the bytes readable even after the file is unlinked (on
/// Windows the unlink waits or fails instead; the caller retries). The file must not be changed while mapped: tables are
/// immutable once named, which is what makes handing out `&[u8]` sound.
pub struct MappedBytes {
    bytes: Bytes,
}

enum Bytes {
    Map(memmap2::Mmap),
    /// Eight-byte words so that the start is aligned, and how many bytes of them count.
    Memory(Box<[u64]>, usize),
}

impl MappedBytes {
    /// Bytes backed by a map of a file.
    pub fn from_map(map: memmap2::Mmap) -> Self {
        Self { bytes: Bytes::Map(map) }
    }

    /// A copy of `bytes` in memory: what the simulated file system hands out, and what replaces a map where mapping is
    /// not possible. Costs one allocation and one copy.
    pub fn from_memory(bytes: &[u8]) -> Self {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)].into_boxed_slice();
        for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_ne_bytes(padded);
        }
        Self { bytes: Bytes::Memory(words, bytes.len()) }
    }

    /// Lets the system read a range soon, without waiting for it. Advice: does nothing where it cannot, or where the bytes
    /// are in memory. A map that [`ReadFile::map`](crate::ReadFile::map) made reads nothing ahead by itself.
    pub fn will_need(&self, offset: usize, bytes: usize) {
        #[cfg(unix)]
        if let Bytes::Map(map) = &self.bytes {
            let bytes = bytes.min(map.len().saturating_sub(offset));
            let _ = map.advise_range(memmap2::Advice::WillNeed, offset.min(map.len()), bytes);
        }
        #[cfg(not(unix))]
        let _ = (offset, bytes);
    }
}

impl Deref for MappedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Map(map) => map,
            Bytes::Memory(words, len) => {
                // SAFETY: a `u64` is eight initialised bytes without padding, alignment 1 is weaker than 8, and
                // `from_memory` keeps `len` within the words.
                unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), *len) }
            }
        }
    }
}

impl fmt::Debug for MappedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedBytes({} bytes)", self.len())
    }
}
