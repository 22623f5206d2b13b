//! `compact`: rewrites a keyspace to its smallest form.

use std::io::Write;

use crate::Target;
use crate::failure::Outcome;
use crate::text::grouped;

/// Flushes a keyspace and merges all of its tables into one run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  lsm compact words.db")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let (database, keyspace) = arguments.target.write(false)?;
    let bytes = || keyspace.stats().levels.iter().map(|level| level.bytes).sum();
    keyspace.flush()?;
    let before = bytes();
    keyspace.compact()?;
    writeln!(out, "{} bytes of tables, before {}", grouped(bytes()), grouped(before))?;
    Ok(database.close()?)
}
