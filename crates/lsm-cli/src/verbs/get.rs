//! `get`: the value of a key.

use std::ffi::OsString;
use std::io::Write;

use crate::Target;
use crate::failure::{Failure, Outcome};
use crate::text::BytesForm;

/// Prints the value of a key, on a line of its own; exit code 1 if there is none.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lsm get words.db apple
  lsm get pictures.db 'sun.png' --raw > sun.png")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The key
    key: OsString,
    /// Print the bytes of the value and nothing else
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    form: BytesForm,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let key = arguments.form.read(&arguments.key)?;
    let (_database, keyspace) = arguments.target.read()?;
    let Some(value) = keyspace.get(&key)? else {
        return Err(Failure::no(format_args!("no such key: {}", crate::text::escape(&key))));
    };
    if arguments.raw {
        out.write_all(&value)?;
    } else {
        arguments.form.write(out, &value)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
