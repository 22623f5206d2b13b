//! Frontiers, snapshots, super versions behind an atomic pointer, and the files nobody needs any more.
//!
//! Reading order: [`frontier`] (how far all writes have come), [`version`] (which tables make up a keyspace),
//! [`super_version`] (memtables over them), [`cell`] and [`history`] (how the next one is published), [`snapshots`] (which
//! seqnos must stay readable), [`retired`] and [`obsolete`] (what can go, and when).

#![forbid(unsafe_code)]

pub mod cell;
pub mod frontier;
pub mod history;
pub mod obsolete;
pub mod retired;
pub mod snapshots;
pub mod super_version;
mod sync;
pub mod version;

pub use cell::{SuperVersionCell, SuperVersionGuard};
pub use frontier::Frontier;
pub use history::History;
pub use obsolete::ObsoleteTables;
pub use retired::Retired;
pub use snapshots::{RegisterError, RegistryCounts, SnapshotHandle, SnapshotRegistry};
pub use super_version::{InstallRefusal, Sealed, SuperVersion};
pub use version::{DroppedTables, Run, Table, Version, VersionRefusal};
