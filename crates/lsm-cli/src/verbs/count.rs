//! `count`: how many rows there are.

use std::io::Write;

use crate::Target;
use crate::failure::Outcome;
use crate::text::BytesForm;
use crate::verbs::ranges::Range;

/// Prints the number of rows, and nothing else. Counts by reading them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  lsm count words.db --prefix app")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    form: BytesForm,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let (_database, keyspace) = arguments.target.read()?;
    let mut cursor = arguments.range.cursor(&keyspace, arguments.form)?;
    let mut rows = 0_u64;
    cursor.seek_to_first()?;
    while cursor.key().is_some() {
        rows += 1;
        cursor.next()?;
    }
    writeln!(out, "{rows}")?;
    Ok(())
}
