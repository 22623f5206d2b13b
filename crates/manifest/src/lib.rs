//! What the database consists of, as JSON with one commit point: global.json and a file per level.
//!
//! Reading order: [`value`] (the manifest as an immutable value), [`edit`] (how it changes), [`apply`] (what an edit
//! does), [`paths`] (where files lie), [`global`], [`level`] and [`edit_file`] (the formats), [`commit`] (how a change becomes
//! durable), [`reload`] (following another process), [`migrate`] (the former layout), [`error`].

#![forbid(unsafe_code)]

pub mod apply;
#[cfg(test)]
mod arbitrary;
pub mod commit;
pub mod edit;
pub mod edit_file;
pub mod error;
pub mod global;
mod json;
pub mod level;
mod load;
pub mod migrate;
pub mod paths;
pub mod reload;
pub mod value;

pub use commit::{CommitMetrics, ManifestOptions, ManifestStore, NamedFile, NamedFileKind, PassCost};
pub use edit::{AddedTable, Change, Edit, Refusal};
pub use error::{CommitError, DecodeError, FailureCause, FaultKind, ManifestError, Place};
pub use global::OpenMode;
pub use paths::DatabasePaths;
pub use reload::FollowerStore;
pub use value::{Claim, DatabaseId, KeyspaceState, LevelState, LogFloor, Manifest, RunEntry, TableEntry};
