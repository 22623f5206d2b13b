//! What the database consists of, as JSON with one commit point: global.json and a file per level.
//!
//! ```text
//!   Edit ──apply──▶ Manifest ──commit──▶ level files ─▶ global.json ═ the commit point ─▶ current()
//!                                    └─▶ a line in the edit file ═ the commit point ──┘    (M3)
//! ```
//!
//! ```
//! use file_system::Environment;
//! use internal_key::{KeyspaceId, SeqNo};
//! use manifest::{Change, Edit, ManifestOptions, ManifestStore, OpenMode, Refusal};
//!
//! let env = Environment::simulated(1);
//! let options = ManifestOptions::default();
//! let store = ManifestStore::create(&env, "/db", options, &Edit::default())?;
//! let create = Change::CreateKeyspace {
//!     id: KeyspaceId(1),
//!     name: "default".into(),
//!     options: Default::default(),
//!     created_seqno: SeqNo::ZERO,
//! };
//! store.commit(Edit::of(create.clone()))?;
//!
//! // The same again is refused, and nothing is written.
//! let refused = store.current().apply(&Edit::of(create));
//! assert_eq!(refused, Err(Refusal::IdReused { id: KeyspaceId(1), expected: KeyspaceId(2) }));
//!
//! // What was committed is there when the database is opened again.
//! drop(store);
//! let store = ManifestStore::open(&env, "/db", OpenMode::ReadWrite, options)?;
//! assert!(store.current().keyspace_named("default").is_some());
//! # Ok::<(), manifest::ManifestError>(())
//! ```
//!
//! What this crate does not know: it opens no table and no segment, and decides neither what to compact nor when.
//!
//! Reading order: [`value`] (the manifest as an immutable value), [`edit`] (how it changes), [`apply`] (what an edit
//! does), [`paths`] (where files lie), [`global`], [`level`] and [`edit_file`] (the formats), [`store`] and [`create`] (an open
//! manifest and how it comes to be), [`commit`] (how a change becomes durable), [`fold`] (the edit file made JSON again),
//! [`reload`] (following another process), [`migrate`] (the former layout), [`error`].

#![forbid(unsafe_code)]

mod append;
pub mod apply;
#[cfg(test)]
mod arbitrary;
pub mod commit;
pub mod create;
pub mod edit;
pub mod edit_file;
pub mod error;
pub mod fold;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod global;
mod json;
mod json_files;
pub mod level;
mod load;
pub mod migrate;
mod obsolete;
pub mod paths;
pub mod reload;
pub mod store;
pub mod value;

pub use commit::{CommitMetrics, PassCost};
pub use edit::{AddedTable, Change, Edit, Refusal};
pub use error::{CommitError, DecodeError, FailureCause, FaultKind, ManifestError, Place};
pub use fold::Fold;
pub use global::OpenMode;
pub use paths::DatabasePaths;
pub use reload::FollowerStore;
pub use store::{ManifestOptions, ManifestStore, NamedFile, NamedFileKind};
pub use value::{Claim, DatabaseId, KeyspaceState, LevelState, LogFloor, Manifest, RunEntry, TableEntry};
