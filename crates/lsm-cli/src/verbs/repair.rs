//! `repair`: gives a damaged database a manifest that says what is left of it, in place.

use std::io::Write;
use std::path::PathBuf;

use lsm_facade::Database;
use serde_json::json;

use crate::failure::{Failure, Outcome};

/// Makes a damaged database open again, from its tables and its log. Exit code 1 if anything could not be saved.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nothing is thrown away: what the database no longer has lies in DB/repair-<n>. What a damaged table still holds is not
taken over; `lsm salvage` copies that into a new database. A whole database stays as it is.

Example:
  lsm repair words.db")]
pub(crate) struct Arguments {
    /// The database's directory
    db: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let before = Database::builder(&arguments.db).verify().map_err(Failure::failed)?;
    if before.damage.is_empty() {
        match arguments.json {
            true => writeln!(out, "{}", json!({"damaged": false}))?,
            false => writeln!(out, "no damage: nothing is repaired")?,
        }
        return Ok(());
    }
    let report = Database::builder(&arguments.db).repair().map_err(Failure::failed)?;
    let damage: Vec<String> = report.verified.damage.iter().map(ToString::to_string).collect();
    let left_out: Vec<_> =
        report.left_out.iter().map(|left_out| (left_out.file.display().to_string(), &left_out.why)).collect();
    if arguments.json {
        let left_out: Vec<_> = left_out.iter().map(|(file, why)| json!({"file": file, "why": why})).collect();
        let shown = json!({
            "damaged": true,
            "manifest_was_whole": report.manifest_was_whole,
            "kept_aside": report.kept_aside.display().to_string(),
            "tables": report.tables,
            "left_out": left_out,
            "log_lost": report.log_lost,
            "recovered_from_log": report.recovered_from_log,
            "notes": report.notes,
            "damage": damage,
        });
        serde_json::to_writer_pretty(&mut *out, &shown)?;
        writeln!(out)?;
    } else {
        let from = if report.manifest_was_whole { "the manifest" } else { "tables and log alone" };
        writeln!(out, "repaired  from {from}: {} tables", report.tables)?;
        writeln!(out, "aside     {}", report.kept_aside.display())?;
        for (file, why) in &left_out {
            writeln!(out, "left out  {file}: {why}")?;
        }
        for lost in &report.log_lost {
            writeln!(out, "lost      {lost}")?;
        }
        if report.recovered_from_log > 0 {
            writeln!(out, "log       {} entries of tables left out were still there", report.recovered_from_log)?;
        }
        for note in &report.notes {
            writeln!(out, "note      {note}")?;
        }
        for damage in &damage {
            writeln!(out, "damage    {damage}")?;
        }
    }
    match report.left_out.len() + report.log_lost.len() + damage.len() {
        0 => Ok(()),
        count => Err(Failure::no(format_args!("{}: {count} things could not be saved", arguments.db.display()))),
    }
}
