//! The manifest in memory: an immutable value, cheap to clone because unchanged parts are shared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, SeqNo, TableId};

/// Tells the files of one database from those of another. Random, chosen when the database is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DatabaseId(pub u128);

/// Displayed as 32 hexadecimal digits, which is also how JSON holds it.
impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A place in the log up to which everything is known to be durable (L2, L3). Ordered by segment, then offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Claim {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from its start; everything before is durable.
    pub offset: u64,
}

/// The segment that replay begins with, named by id *and* salt so that a recycled file is told apart (L2, L5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LogFloor {
    /// The segment.
    pub segment: SegmentId,
    /// The salt in its header.
    pub salt: u64,
}

/// One table as a level file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// The file `tables/<id>.sst`.
    pub id: TableId,
    /// Its length in bytes.
    pub bytes: u64,
    /// xxh3 of the whole file; 0 where it is not known, which is so only in tables of the former layout (M4).
    pub checksum: u64,
    /// The smallest user key in it.
    pub min_key: Box<[u8]>,
    /// The largest user key in it, inclusive.
    pub max_key: Box<[u8]>,
    /// The smallest sequence number in it, base added.
    pub min_seqno: SeqNo,
    /// The largest sequence number in it, base added.
    pub max_seqno: SeqNo,
    /// How many entries it holds, tombstones included.
    pub entries: u64,
    /// How many of them are tombstones.
    pub tombstones: u64,
    /// Bytes of user keys and values in it, uncompressed.
    pub logical_bytes: u64,
    /// The newest epoch among its inputs (C3).
    pub epoch: Epoch,
    /// The job that wrote it.
    pub job: JobId,
    /// Added to every stored sequence number: not zero for a batch table, whose seqnos are relative (P11).
    pub seqno_base: u64,
    /// The Unix time in milliseconds by which its newest row had been written; 0 where nobody asked for it. What is dropped
    /// for its age goes by this.
    pub newest_unix_ms: u64,
}

/// Tables that do not overlap each other, in key order, with their age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEntry {
    /// The age: of overlapping runs the one with the larger epoch is newer (C3). Unique within a level.
    pub epoch: Epoch,
    /// Ascending, disjoint by user key (C3: all versions of a user key lie in one table of a run).
    pub tables: Vec<Arc<TableEntry>>,
}

/// One level of one keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LevelState {
    /// Newest epoch first.
    pub runs: Vec<RunEntry>,
    /// The generation of the level file that holds this state; 0 when no file does, because the level is empty or its
    /// latest change stands in the edit file (M3).
    pub generation: u64,
    /// xxh3 of that file's bytes.
    pub checksum: u64,
}

/// One keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyspaceState {
    /// Its id; never reused.
    pub id: KeyspaceId,
    /// Its name; unique among living keyspaces.
    pub name: String,
    /// Options by name, as the facade writes and checks them.
    pub options: BTreeMap<String, serde_json::Value>,
    /// The sequence number before which the keyspace did not exist.
    pub created_seqno: SeqNo,
    /// Replay skips entries of this keyspace at or below it (P6).
    pub flushed_seqno: SeqNo,
    /// Versions at or above it are all kept (R3); `SeqNo::ZERO` where no history is kept.
    pub history_floor: SeqNo,
    /// [`Level::COUNT`] levels.
    pub levels: Vec<Arc<LevelState>>,
}

impl KeyspaceState {
    /// Every table with its level and its run's epoch.
    pub fn tables(&self) -> impl Iterator<Item = (Level, Epoch, &Arc<TableEntry>)> {
        self.levels.iter().zip(0_u8..).flat_map(|(level, number)| {
            level.runs.iter().flat_map(move |run| run.tables.iter().map(move |table| (Level(number), run.epoch, table)))
        })
    }
}

/// Everything that `global.json` and the level files say, at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Which database this is.
    pub database_id: DatabaseId,
    /// Counts commits; names the files written by the latest.
    pub generation: u64,
    /// Above every table id ever named.
    pub next_table_id: TableId,
    /// Above every segment id ever named.
    pub next_segment_id: SegmentId,
    /// Above every keyspace id ever used.
    pub next_keyspace_id: KeyspaceId,
    /// Above every job id ever used.
    pub next_job_id: JobId,
    /// Above every run epoch ever used.
    pub next_epoch: Epoch,
    /// At least the largest sequence number in any table.
    pub last_seqno: SeqNo,
    /// Where replay begins.
    pub log_floor: LogFloor,
    /// The log is durable up to here (L3).
    pub claim: Claim,
    /// Whether the database was closed cleanly at this commit, so that `claim` is the log's end.
    pub closed_cleanly: bool,
    /// The living keyspaces.
    pub keyspaces: BTreeMap<KeyspaceId, Arc<KeyspaceState>>,
}

impl Manifest {
    /// The living keyspace called `name`.
    pub fn keyspace_named(&self, name: &str) -> Option<&Arc<KeyspaceState>> {
        self.keyspaces.values().find(|keyspace| keyspace.name == name)
    }
}
