//! `put`: gives a key a value.

use std::ffi::OsString;
use std::io::Read;

use lsm_facade::Durability;

use crate::Target;
use crate::failure::{Failure, Outcome};
use crate::text::BytesForm;

/// Gives a key a value. Durable when it returns. Creates the database and the keyspace if they are missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lsm put words.db apple 'a fruit'
  lsm put pictures.db sun.png < sun.png")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The key
    key: OsString,
    /// The value; without it standard input is the value, byte for byte
    value: Option<OsString>,
    #[command(flatten)]
    form: BytesForm,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let key = arguments.form.read(&arguments.key)?;
    let value = match &arguments.value {
        Some(value) => arguments.form.read(value)?,
        None => {
            let mut value = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut value);
            read.map_err(|error| Failure::failed(format_args!("cannot read standard input: {error}")))?;
            value
        }
    };
    let (database, keyspace) = arguments.target.write(true)?;
    keyspace.with_durability(Durability::Synced).insert(key, value)?;
    Ok(database.close()?)
}
