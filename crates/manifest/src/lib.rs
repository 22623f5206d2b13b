//! What the database consists of, as JSON with one commit point: global.json and a file per level.
//!
//! Reading order: [`value`] (the manifest as an immutable value), [`edit`] (how it changes), [`apply`] (what an edit
//! does), [`paths`] (where files lie), [`error`].

#![forbid(unsafe_code)]

pub mod apply;
pub mod edit;
pub mod error;
mod json;
pub mod paths;
pub mod value;

pub use edit::{AddedTable, Change, Edit, Refusal};
pub use error::{CommitError, DecodeError, FailureCause, FaultKind, ManifestError, Place};
pub use paths::DatabasePaths;
pub use value::{Claim, DatabaseId, KeyspaceState, LevelState, LogFloor, Manifest, RunEntry, TableEntry};
