//! Decoded blocks, shared by all tables, within a limit of bytes.
//!
//! Only what cannot be read in place lives here: decompressed blocks, and blocks fetched by `pread` (T4). Sharded; a hit
//! takes one shard's read lock.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// Which block: a number that no other table of this process has, and the offset of the block's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey {
    pub(crate) file: u64,
    pub(crate) offset: u64,
}

/// One block, decoded, shared by the cache and whoever reads it.
pub struct CachedBlock {
    bytes: Box<[u8]>,
}

impl CachedBlock {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into_boxed_slice() }
    }
}

impl Deref for CachedBlock {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for CachedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CachedBlock({} bytes)", self.bytes.len())
    }
}

/// What a block costs beside its bytes: its key, the `Arc` and its two counts, pointer and length of the bytes.
const OVERHEAD_BYTES: u64 = (size_of::<BlockKey>() + 5 * size_of::<usize>()) as u64;

#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Weighter<BlockKey, Arc<CachedBlock>> for Bytes {
    fn weight(&self, _: &BlockKey, block: &Arc<CachedBlock>) -> u64 {
        block.len() as u64 + OVERHEAD_BYTES
    }
}

/// A cache of decoded blocks. Shared behind an `Arc` by any number of tables and databases; every method may be called
/// from any thread.
pub struct BlockCache {
    blocks: Cache<BlockKey, Arc<CachedBlock>, Bytes>,
}

impl BlockCache {
    /// An empty cache of at most `bytes_max` bytes: blocks and what it costs to keep them (56 bytes each).
    pub fn new(bytes_max: u64) -> Self {
        // The estimate decides how many shards there are and how many evicted keys are remembered, not what fits.
        let blocks_estimated = usize::try_from(bytes_max / 4096).unwrap_or(usize::MAX).clamp(64, 1 << 24);
        Self { blocks: Cache::with_weighter(blocks_estimated, bytes_max, Bytes) }
    }

    /// How many bytes are in it now.
    pub fn bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// How many bytes it may hold.
    pub fn bytes_max(&self) -> u64 {
        self.blocks.capacity()
    }

    /// How many blocks are in it now.
    pub fn blocks(&self) -> usize {
        self.blocks.len()
    }

    #[inline]
    pub(crate) fn get(&self, key: BlockKey) -> Option<Arc<CachedBlock>> {
        self.blocks.get(&key)
    }

    /// A block too large for its shard is simply not kept.
    pub(crate) fn insert(&self, key: BlockKey, block: Arc<CachedBlock>) {
        self.blocks.insert(key, block);
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockCache({} blocks, {} of {} bytes)", self.blocks(), self.bytes(), self.bytes_max())
    }
}
