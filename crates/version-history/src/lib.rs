//! Frontiers, snapshots, super versions behind an atomic pointer, and the files nobody needs any more.
//!
//! ```text
//!   writers ──▶ visible (a frontier) ──▶ readers: load the super version, then `visible`; no lock, no shared write
//!                                          │
//!   History: current ─▶ super version ─────┘ active memtable, sealed ones, version (runs of tables)
//!               │             └─ predecessor (before a clear), while a snapshot needs it
//!               └─ replaced ─▶ Retired ─▶ freed by a worker ─▶ last holder of a table ─▶ ObsoleteTables ─▶ file deleted
//! ```
//!
//! - **R1** A read loads the super version first, then `visible`: no lock, no write to a shared cache line.
//! - **R2** A super version is immutable; all changes compose under one short lock and are published by one store.
//! - **R3** Registering a snapshot is one step against the computation of the floor.
//! - **R4** The past is kept while somebody can read it; nothing is ever freed by a reader.
//! - **R5** A file is deleted when nobody holds it *and* no durable manifest names it, exactly once.
//!
//! ```
//! use std::sync::Arc;
//! use internal_key::SeqNo;
//! use version_history::{Frontier, History, Retired, SnapshotRegistry, SuperVersion};
//!
//! let visible = Frontier::new(SeqNo::new(10).unwrap());
//! let registry = Arc::new(SnapshotRegistry::default());
//! let history = History::new(SuperVersion::<_, ()>::new(Arc::new("before"), Arc::default()), Arc::new(Retired::new()));
//!
//! // A snapshot, and a clear that comes after it.
//! let snapshot = registry.register(&visible);
//! let at = SeqNo::new(11).unwrap();
//! history.install(|current| Ok::<_, ()>(current.restart(Arc::new("after"), at))).unwrap();
//! visible.raise(at);
//!
//! let read = |seqno| history.version_for_snapshot(seqno).map(|view| **view.active());
//! assert_eq!(read(snapshot.seqno()), Some("before"));
//! assert_eq!(read(visible.load()), Some("after"));
//!
//! // Without the snapshot the past goes.
//! let seqno = snapshot.seqno();
//! drop(snapshot);
//! let (floor, registered) = registry.floor_and_registered(&visible, SeqNo::MAX);
//! assert!(history.forget_predecessors(floor, &registered));
//! assert_eq!(read(seqno), None);
//! ```
//!
//! Reading order: [`frontier`] (how far all writes have come), [`version`] (which tables make up a keyspace),
//! [`super_version`] (memtables over them), [`cell`] and [`history`] (how the next one is published), [`snapshots`] (which
//! seqnos must stay readable), [`kept`] (who is to be looked at when one no longer must), [`retired`] and [`obsolete`] (what can go, and when).

#![forbid(unsafe_code)]

pub mod cell;
pub mod frontier;
pub mod history;
pub mod kept;
pub mod obsolete;
pub mod retired;
pub mod snapshots;
pub mod super_version;
mod sync;
pub mod version;

pub use cell::{SuperVersionCell, SuperVersionGuard};
pub use frontier::Frontier;
pub use history::History;
pub use kept::KeptForSnapshots;
pub use obsolete::ObsoleteTables;
pub use retired::Retired;
pub use snapshots::{RegisterError, RegistryCounts, SnapshotHandle, SnapshotRegistry};
pub use super_version::{InstallRefusal, Sealed, SuperVersion};
pub use version::{DroppedTables, Run, Table, Version, VersionRefusal};
