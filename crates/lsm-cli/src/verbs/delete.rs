//! `delete`: removes keys.

use std::ffi::OsString;

use lsm_facade::Durability;

use crate::Target;
use crate::failure::Outcome;
use crate::text::BytesForm;

/// Removes keys, all at once, whether they have a value or not. Durable when it returns.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  lsm delete words.db apple pear")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The keys
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: BytesForm,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let (database, keyspace) = arguments.target.write(false)?;
    let mut batch = database.batch().with_durability(Durability::Synced);
    for key in &arguments.keys {
        batch.remove(&keyspace, arguments.form.read(key)?)?;
    }
    database.write(&batch)?;
    Ok(database.close()?)
}
