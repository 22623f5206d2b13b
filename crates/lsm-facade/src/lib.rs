//! An ordered, multi-version, embedded key-value engine: databases, keyspaces, batches, snapshots.
//!
//! This crate wires the layers below it and documents what they add up to; the algorithms are theirs.
//!
//! ```
//! use lsm_facade::{Database, Durability};
//!
//! # fn main() -> lsm_facade::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let database = Database::open(dir.path())?;
//! let fruit = database.keyspace("fruit")?;
//! fruit.insert("apple", "red")?;
//! fruit.insert("banana", "yellow")?;
//!
//! // Batches are atomic, across keyspaces, and this one also survives a power cut.
//! let stock = database.keyspace("stock")?;
//! let mut batch = database.batch().with_durability(Durability::Synced);
//! batch.remove(&fruit, "apple")?;
//! batch.insert(&stock, "banana", "12")?;
//! database.write(&batch)?;
//!
//! // Reads are in order, both ways, on a consistent state.
//! let names: Vec<_> = fruit.iter().map(|row| row.map(|(key, _)| key)).collect::<Result<_, _>>()?;
//! assert_eq!(names, [b"banana"]);
//! # Ok(())
//! # }
//! ```
//!
//! Reading order: [`Database`], [`Keyspace`], [`WriteBatch`], [`Snapshot`], [`Iter`] and [`RangeCursor`], [`Error`].
//! Inside: `core` (what is shared), `open`, `write`, `read`, `iterator`, `jobs`.

mod batch;
pub mod batch_format;
mod control;
mod core;
mod database;
mod error;
mod event_log;
mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod history;
mod iterator;
mod jobs;
mod keyspace;
mod memory;
mod open;
mod options;
mod read;
mod reads;
mod repair;
mod rescue;
mod salvage;
mod slice;
mod snapshot;
mod source;
mod stats;
mod table_order;
mod verify;
mod write;

pub use compaction::{Collected, Debt, Plan, PlanKind, Reason, Strategy};
pub use file_system::{Environment, LogFileWay};
pub use sstable_format::{Access, Compression};

pub use batch::WriteBatch;
pub use control::{CompactionControl, CompactionProgress};
pub use database::{Database, SuspendedBackground};
pub use error::{Error, Result};
pub use events::{Ending, Event, EventListener, Timeline, Work};
pub use iterator::{Iter, RangeCursor};
pub use keyspace::Keyspace;
pub use lock_meter::{LockCosts, waits_of_this_thread};
pub use memory::MemoryStats;
pub use options::{DatabaseBuilder, Durability, KeyspaceOptions};
pub use repair::RepairReport;
pub use rescue::LeftOut;
pub use salvage::{LostKeys, SalvageReport};
pub use slice::Slice;
pub use snapshot::Snapshot;
pub use stats::{
    DebtStats, Health, KeyspaceStats, LevelStats, LevelWork, StallStats, Stalled, Stats, waited_on_this_thread,
};
pub use verify::VerifyReport;
