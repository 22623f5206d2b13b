//! `verify`: every checksum of a database, and whether its files say the same. Writes nothing, takes no lock.

use std::io::Write;
use std::path::PathBuf;

use lsm_facade::{Database, VerifyReport};
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::text::grouped;

/// Checks every file of a database: all checksums, and whether the files agree. Exit code 1 if anything is damaged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes nothing. Damage is shown with file, offset, what was expected and what was found.

Example:
  lsm verify words.db --json")]
pub(crate) struct Arguments {
    /// The database's directory
    db: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let report = Database::builder(&arguments.db).verify().map_err(Failure::failed)?;
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &as_json(&report))?;
        writeln!(out)?;
    } else {
        write(&report, out)?;
    }
    match report.damage.len() {
        0 => Ok(()),
        count => Err(Failure::no(format_args!("{}: damaged in {count} places", arguments.db.display()))),
    }
}

fn write(report: &VerifyReport, out: &mut dyn Write) -> Outcome {
    let VerifyReport { keyspaces, level_files, tables, .. } = report;
    let (blocks, entries, bytes) = (grouped(report.blocks), grouped(report.entries), grouped(report.table_bytes));
    writeln!(out, "manifest  {keyspaces} keyspaces, {level_files} level files")?;
    writeln!(out, "tables    {tables} of {bytes} bytes: {blocks} blocks, {entries} entries")?;
    let (records, logged) = (grouped(report.log_records), grouped(report.log_entries));
    writeln!(out, "log       {} segments: {records} records, {logged} entries", report.log_segments)?;
    if report.log_cut_bytes > 0 {
        let cut = grouped(report.log_cut_bytes);
        writeln!(out, "          ends in an incomplete write of {cut} bytes, which the next opening cuts")?;
    }
    if report.unnamed_tables > 0 {
        writeln!(out, "          {} table files that the manifest does not name", report.unnamed_tables)?;
    }
    for damage in &report.damage {
        writeln!(out, "damage    {damage}")?;
    }
    if report.damage.is_empty() {
        writeln!(out, "no damage")?;
    }
    Ok(())
}

fn as_json(report: &VerifyReport) -> serde_json::Value {
    json!({
        "manifest": {"keyspaces": report.keyspaces, "level_files": report.level_files},
        "tables": {
            "count": report.tables,
            "bytes": report.table_bytes,
            "blocks": report.blocks,
            "entries": report.entries,
            "unnamed": report.unnamed_tables,
        },
        "log": {
            "segments": report.log_segments,
            "records": report.log_records,
            "entries": report.log_entries,
            "cut_bytes": report.log_cut_bytes,
        },
        "damage": report.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
