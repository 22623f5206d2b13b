//! `keyspaces`: which there are.

use std::io::Write;
use std::path::PathBuf;

use lsm_facade::Database;

use crate::failure::Outcome;
use crate::text::escape;

/// Prints the names of the keyspaces, one on each line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The database's directory
    db: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let database = Database::builder(&arguments.db).read_only(true).open()?;
    for name in database.list_keyspaces() {
        writeln!(out, "{}", escape(name.as_bytes()))?;
    }
    Ok(())
}
