//! Frontiers, snapshots, super versions behind an atomic pointer, and the files nobody needs any more.
//!
//! Reading order: [`version`] (which tables make up a keyspace).

pub mod version;

pub use version::{DroppedTables, Run, Table, Version, VersionRefusal};
