//! Edits: what one commit changes. Applying one to a value is pure; `commit` makes it durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, SeqNo, TableId};

use crate::{Claim, LogFloor, TableEntry};

/// A table to be named, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedTable {
    /// The level it joins.
    pub level: Level,
    /// The run it joins, created if the level has none of that epoch.
    pub run: Epoch,
    /// The table.
    pub table: Arc<TableEntry>,
}

/// One change. An edit applies all of its changes or none.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// A keyspace begins to exist (P12). Refused if a living one has its name, or its id was ever used.
    CreateKeyspace {
        /// At or above `next_keyspace_id`, which it raises.
        id: KeyspaceId,
        /// Unique among living keyspaces.
        name: String,
        /// Options by name.
        options: BTreeMap<String, serde_json::Value>,
        /// Entries at or below it never belong to this keyspace.
        created_seqno: SeqNo,
    },
    /// A keyspace and all its tables cease to exist.
    DropKeyspace {
        /// Refused unless it lives.
        id: KeyspaceId,
    },
    /// All tables of a keyspace go, and replay skips what the clear covered (P6, P12).
    ClearKeyspace {
        /// Refused unless it lives.
        id: KeyspaceId,
        /// The clear's own sequence number; `flushed_seqno` rises to it. Refused unless it is above: a clear that was
        /// installed before would take what was flushed since.
        at: SeqNo,
    },
    /// A flush, compaction or ingest: tables out, tables in (M1, C4).
    ReplaceTables {
        /// Refused unless it lives.
        keyspace: KeyspaceId,
        /// Refused unless each stands in that level.
        removed: Vec<(Level, TableId)>,
        /// Refused if an id already stands, or a run would overlap itself.
        added: Vec<AddedTable>,
        /// A flush raises `flushed_seqno` to this; refused unless it is above the present one (P6).
        flushed_seqno: Option<SeqNo>,
    },
    /// Versions of a keyspace below this need not be kept. Never falls, and rises to `last_seqno` at most, as the changes
    /// before it in the edit leave that: it comes after those that bring tables.
    RaiseHistoryFloor {
        /// Refused unless it lives.
        keyspace: KeyspaceId,
        /// The floor (R3).
        to: SeqNo,
    },
    /// The log is durable up to here. Never falls: a smaller claim changes nothing.
    RaiseClaim(Claim),
    /// Replay begins here from now on. A smaller segment changes nothing.
    RaiseLogFloor(LogFloor),
    /// Nothing in the log is needed any longer: there is nothing to replay, until a floor is raised again.
    EndLog,
    /// The largest sequence number is at least this.
    RaiseLastSeqno(SeqNo),
    /// Ids below these are taken. Smaller ones change nothing.
    RaiseNextIds {
        /// Next table.
        table: TableId,
        /// Next log segment.
        segment: SegmentId,
        /// Next job.
        job: JobId,
        /// Next run epoch.
        epoch: Epoch,
    },
    /// Whether the database is cleanly closed as of this commit. Every other edit sets it to false.
    SetClosedCleanly(bool),
}

/// Changes that become durable together.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Edit {
    /// In order.
    pub changes: Vec<Change>,
}

impl Edit {
    /// An edit of one change.
    pub fn of(change: Change) -> Self {
        Self { changes: vec![change] }
    }

    /// Adds a change at the end.
    pub fn and(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }
}

/// Why an edit does not fit the manifest it met. Nothing of it was applied (P12).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The keyspace was dropped, or never existed.
    #[error("keyspace {id} does not exist")]
    NoSuchKeyspace {
        /// Which.
        id: KeyspaceId,
    },
    /// A living keyspace has that name.
    #[error("a keyspace called {name:?} exists ({id})")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        id: KeyspaceId,
    },
    /// The keyspace id was used before.
    #[error("keyspace id {id} was used before: expected at least {expected}")]
    IdReused {
        /// The id.
        id: KeyspaceId,
        /// The smallest free id.
        expected: KeyspaceId,
    },
    /// An input table is no longer part of that level.
    #[error("table {table} is not in {level} of {keyspace}")]
    InputGone {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The level.
        level: Level,
        /// The table.
        table: TableId,
    },
    /// An added table has the id of a living one.
    #[error("table {table} is already in {keyspace}")]
    TableExists {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The table.
        table: TableId,
    },
    /// An added table overlaps a table of its own run.
    #[error("table {table} overlaps table {other} in run {run} of {level} of {keyspace}")]
    Overlap {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The level.
        level: Level,
        /// The run.
        run: Epoch,
        /// The added table.
        table: TableId,
        /// The table it overlaps.
        other: TableId,
    },
    /// What a flush would install lies at or below what is already flushed or cleared.
    #[error("flushed seqno {found} of {keyspace} is not above {present}")]
    AlreadyFlushed {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The seqno in the edit.
        found: SeqNo,
        /// The seqno in the manifest.
        present: SeqNo,
    },
}
