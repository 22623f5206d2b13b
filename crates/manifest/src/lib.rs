//! What the database consists of, as JSON with one commit point: global.json and a file per level.
//!
//! Reading order: [`value`] (the manifest as an immutable value), [`edit`] (how it changes).

pub mod edit;
pub mod value;

pub use edit::{AddedTable, Change, Edit, Refusal};
pub use value::{Claim, DatabaseId, KeyspaceState, LevelState, LogFloor, Manifest, RunEntry, TableEntry};
