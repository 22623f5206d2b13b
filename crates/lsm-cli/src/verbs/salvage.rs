//! `salvage`: copies what can be read of a damaged database into a new one.

use std::io::Write;
use std::path::PathBuf;

use lsm_facade::Database;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::text::grouped;

/// Copies every entry that can be read into a new database, also out of damaged tables. Exit code 1 if anything is lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The source stays as it is. Ranges of keys that may be missing, or older than they were, are listed.

Example:
  lsm salvage words.db rescued.db")]
pub(crate) struct Arguments {
    /// The damaged database's directory
    source: PathBuf,
    /// The directory of the new database
    target: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let target = Database::builder(&arguments.target);
    let report = Database::builder(&arguments.source).salvage_into(target).map_err(Failure::failed)?;
    let key = |key: &Option<Vec<u8>>| key.as_deref().map(|key| key.escape_ascii().to_string());
    if arguments.json {
        let lost: Vec<_> = report
            .lost
            .iter()
            .map(|lost| {
                let file = lost.file.display().to_string();
                let (from, to) = (key(&lost.from), key(&lost.to));
                json!({"keyspace": lost.keyspace, "file": file, "from": from, "to": to, "why": lost.why})
            })
            .collect();
        let shown = json!({
            "keyspaces": report.keyspaces,
            "table_entries": report.table_entries,
            "log_entries": report.log_entries,
            "lost": lost,
            "log_lost": report.log_lost,
            "notes": report.notes,
        });
        serde_json::to_writer_pretty(&mut *out, &shown)?;
        writeln!(out)?;
    } else {
        let (tables, log) = (grouped(report.table_entries), grouped(report.log_entries));
        writeln!(out, "salvaged  {} keyspaces: {tables} entries of tables, {log} of the log", report.keyspaces)?;
        for lost in &report.lost {
            let keyspace = lost.keyspace.as_deref().unwrap_or("?").escape_default();
            let from = key(&lost.from).map_or_else(|| "the first".to_owned(), |key| format!("\"{key}\""));
            let to = key(&lost.to).map_or_else(|| "the last".to_owned(), |key| format!("\"{key}\""));
            writeln!(out, "lost      \"{keyspace}\" from {from} to {to}: {}: {}", lost.file.display(), lost.why)?;
        }
        for lost in &report.log_lost {
            writeln!(out, "lost      {lost}")?;
        }
        for note in &report.notes {
            writeln!(out, "note      {note}")?;
        }
    }
    match report.lost.len() + report.log_lost.len() {
        0 => Ok(()),
        count => Err(Failure::no(format_args!("{}: {count} ranges are lost", arguments.source.display()))),
    }
}
