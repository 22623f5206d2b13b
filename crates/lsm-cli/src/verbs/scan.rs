//! `scan`: rows in key order.

use std::io::Write;

use crate::Target;
use crate::failure::Outcome;
use crate::text::BytesForm;
use crate::verbs::ranges::Range;

/// Prints rows in key order: key, tab, value.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lsm scan words.db --from a --to c
  lsm scan words.db --prefix app --reverse --limit 10
  lsm scan words.db --keys-only | wc -l")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    range: Range,
    /// From the last row to the first
    #[arg(long)]
    reverse: bool,
    /// At most this many rows
    #[arg(long, value_name = "ROWS", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    /// Keys without their values
    #[arg(long)]
    keys_only: bool,
    #[command(flatten)]
    form: BytesForm,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let (_database, keyspace) = arguments.target.read()?;
    let mut cursor = arguments.range.cursor(&keyspace, arguments.form)?;
    if arguments.reverse {
        cursor.seek_to_last()?;
    } else {
        cursor.seek_to_first()?;
    }
    for _ in 0..arguments.limit {
        let Some(key) = cursor.key() else { break };
        arguments.form.write(out, key)?;
        if !arguments.keys_only {
            out.write_all(b"\t")?;
            arguments.form.write(out, cursor.value()?.unwrap_or_default())?;
        }
        out.write_all(b"\n")?;
        if arguments.reverse {
            cursor.prev()?;
        } else {
            cursor.next()?;
        }
    }
    Ok(())
}
