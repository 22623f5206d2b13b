//! `events`: what the background did and when, from the event log.

use std::io::Write;
use std::path::PathBuf;

use lsm_facade::{Environment, Timeline};

use crate::failure::Outcome;

/// Prints the timeline of a database's event log: flushes, compactions, stalls, with their times from the first event on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A database keeps an event log if it is opened with event_log_bytes_max; `lsm load` and the like keep none.

Example:
  lsm events words.db --svg > words.svg")]
pub(crate) struct Arguments {
    /// The database's directory
    db: PathBuf,
    /// As a picture: a bar for each flush, compaction and stall that has ended
    #[arg(long)]
    svg: bool,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let timeline = Timeline::of_event_log(&Environment::real(), &arguments.db)?;
    let text = if arguments.svg { timeline.svg() } else { timeline.table() };
    out.write_all(text.as_bytes())?;
    Ok(())
}
