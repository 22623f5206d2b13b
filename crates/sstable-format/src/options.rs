//! Who a table is, how it is written, and how it is read.

use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};

use crate::BlockCache;

/// Who a table is: stands in its header and properties, so that openings recognise it (M1, M2) and a repair can rebuild
/// a manifest from tables alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableIdentity {
    /// The database it belongs to.
    pub database_id: u128,
    /// The keyspace it belongs to.
    pub keyspace: KeyspaceId,
    /// Its id, which also names its file.
    pub table: TableId,
    /// The level it was written for. A trivial move leaves it: the manifest says where a table stands now.
    pub level: Level,
    /// The newest epoch among its inputs (C3).
    pub epoch: Epoch,
    /// The job that wrote it.
    pub job: JobId,
    /// The tables it was made of; none for a flush.
    pub inputs: Vec<TableId>,
    /// Its place among the job's outputs, from 0.
    pub output_index: u32,
    /// How many outputs the job has; 0 if that was unknown when the table was finished.
    pub output_count: u32,
}

/// How data blocks are compressed. On disk since format 1: numbers are never changed or reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[repr(u8)]
pub enum Compression {
    /// Not at all: blocks are read in place.
    #[default]
    None = 0,
    /// LZ4 block format, where it saves at least an eighth (T4). Number 2 is reserved for Zstandard.
    Lz4 = 1,
}

/// How a table is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// The size that data blocks are filled to, in bytes, frame included; 256 to 16 MiB, other values are clamped. Default 4096.
    pub block_bytes: usize,
    /// Default none.
    pub compression: Compression,
    /// Bloom filter bits for each distinct user key; 0 writes no filter. Default 10.
    pub filter_bits_per_key: u8,
    /// The size above which the index is cut into partitions; 1 KiB to 16 MiB, other values are clamped. Default 1 MiB: a
    /// table of up to about 150 MiB then has a flat index, which is a level less to search. Without partitions the whole
    /// index is checked at opening, and held in memory under `pread`.
    pub index_partition_bytes: usize,
    /// Values longer than this lie out of line. At most 16 MiB, more is clamped. Default 64 KiB.
    pub large_value_bytes: usize,
    /// The merge operator's name, recorded for whoever reads `Merge` entries.
    pub merge_operator: Option<String>,
    /// The prefix extractor's name, recorded; no format has a prefix filter.
    pub prefix_extractor: Option<String>,
    /// Whether the table is to say how many superseded versions it holds. Default no.
    pub notes_superseded: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            block_bytes: 4096,
            compression: Compression::None,
            filter_bits_per_key: 10,
            index_partition_bytes: 1 << 20,
            large_value_bytes: 64 << 10,
            merge_operator: None,
            prefix_extractor: None,
            notes_superseded: false,
        }
    }
}

/// What a finished table holds: what the manifest records of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSummary {
    /// The file's length.
    pub bytes: u64,
    /// xxh3 of the whole file.
    pub checksum: u64,
    /// The smallest user key.
    pub min_key: Box<[u8]>,
    /// The largest user key.
    pub max_key: Box<[u8]>,
    /// The smallest sequence number as stored (without a base).
    pub min_seqno: SeqNo,
    /// The largest sequence number as stored (without a base).
    pub max_seqno: SeqNo,
    /// How many entries, tombstones included.
    pub entries: u64,
    /// How many of them are tombstones.
    pub tombstones: u64,
    /// Bytes of user keys and values, uncompressed.
    pub logical_bytes: u64,
}

/// What the manifest says of the table to be opened; anything else is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The file's length, checked before mapping (T4).
    pub bytes: u64,
    /// The database.
    pub database_id: u128,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The table.
    pub table: TableId,
    /// Added to every stored sequence number (P11); 0 for all but batch tables.
    pub seqno_base: u64,
}

/// How bytes are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Access {
    /// From a map of the file. A failing disk is then a signal, not an error.
    #[default]
    Mapped,
    /// By positioned reads. Index, properties' root and filter are held in memory, blocks come through the block cache.
    Pread,
}

/// How a table is read.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Default mapped.
    pub access: Access,
    /// Where decompressed or pread blocks are kept. Without one they are fetched and decoded anew each time.
    pub block_cache: Option<Arc<BlockCache>>,
}
