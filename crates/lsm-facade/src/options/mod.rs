//! What a database and a keyspace can be told, checked before any effect.

mod database;
mod keyspace;

pub use database::DatabaseBuilder;
pub(crate) use database::DatabaseOptions;
pub use keyspace::KeyspaceOptions;

use crate::{Error, Result};

/// When a commit is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// When it survives the death of the process: it lies in a shared map of the log (or was written to it). The
    /// operating system writes it to the disk in its own time; a power cut may lose the newest of these commits, always
    /// as a suffix and never half of one.
    #[default]
    Buffered,
    /// When it survives a power cut: a sync of the log that began after the commit was logged has succeeded (P7).
    Synced,
}

fn in_range(name: &str, found: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let expected = if max == u64::MAX { format!("at least {min}") } else { format!("{min} to {max}") };
    Err(Error::InvalidOption { name: name.to_owned(), expected, found: found.to_string() })
}
