//! The `lsm` command: load, read, check and inspect a database.
//!
//! ```text
//!   lsm VERB DB [ARGS]        one file of `verbs/` for each verb
//!     │
//!     ├─ load demo            rows ──▶ batches, each with the place in the input that it reaches
//!     ├─ get put delete scan count stats keyspaces compact
//!     ├─ verify inspect events   the files themselves, without opening the database
//!     └─ repair salvage       what is left of a damaged one
//! ```
//!
//! Answers go to standard output, everything else to standard error. Verbs that only read take no lock, so they work
//! beside a process that has the database open. What this crate does not do: decide anything about the engine.
//!
//! ```
//! let dir = tempfile::tempdir().unwrap();
//! let database = dir.path().join("fruit").into_os_string();
//! let lsm = |verb: &str, rest: &[&str]| {
//!     let arguments = ["lsm".into(), verb.into(), database.clone()].into_iter();
//!     lsm_cli::run(arguments.chain(rest.iter().map(Into::into)))
//! };
//! assert_eq!(lsm("put", &["apple", "red"]), 0);
//! assert_eq!(lsm("get", &["apple"]), 0); // prints: red
//! assert_eq!(lsm("get", &["plum"]), 1); // no such key
//! ```
//!
//! Reading order: [`rows`] (input formats), `text` (keys and values as text), `failure` (exit codes), then `verbs`.

mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod rows;
mod text;
mod verbs;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lsm_facade::{Database, Keyspace};

use crate::failure::{Outcome, code};
use crate::verbs::{
    compact, count, delete, demo, events, get, inspect, keyspaces, load, put, repair, salvage, scan, stats, verify,
};

/// Loads, reads, checks and inspects a database.
#[derive(Parser)]
#[command(name = "lsm", version, arg_required_else_help = true, max_term_width = 110, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Keys and values are bytes. In the output they stand as text, with \\\\ \\n \\r \\t and \\xNN for what is not.

Exit codes:
  0    done
  1    the answer is no: no such key, damage found, something lost, contents differ
  2    the command line makes no sense
  3    it could not be done: no such database or keyspace, in use, I/O error, unreadable files
  4    a line of the input is bad; everything before it is loaded
  130  ended by Ctrl-C, after the batch at hand

Examples:
  lsm load words.db words.tsv
  lsm get words.db apple
  lsm scan words.db --prefix app --limit 10
  lsm verify words.db
  lsm inspect words.db/tables/3.sst --json";

#[derive(Subcommand)]
enum Verb {
    Load(load::Arguments),
    Get(get::Arguments),
    Put(put::Arguments),
    Delete(delete::Arguments),
    Scan(scan::Arguments),
    Count(count::Arguments),
    Stats(stats::Arguments),
    Keyspaces(keyspaces::Arguments),
    Compact(compact::Arguments),
    Verify(verify::Arguments),
    Repair(repair::Arguments),
    Salvage(salvage::Arguments),
    Inspect(inspect::Arguments),
    Events(events::Arguments),
    Demo(demo::Arguments),
}

/// Carries out one command line, the program's name first, and returns the exit code. Writes to the standard streams.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to standard output and is no failure; a closed pipe there is none either.
            let _ = error.print();
            return error.exit_code().try_into().unwrap_or(code::USAGE);
        }
    };
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let outcome = match arguments.verb {
        Verb::Load(arguments) => load::run(&arguments, &mut out),
        Verb::Get(arguments) => get::run(&arguments, &mut out),
        Verb::Put(arguments) => put::run(&arguments),
        Verb::Delete(arguments) => delete::run(&arguments),
        Verb::Scan(arguments) => scan::run(&arguments, &mut out),
        Verb::Count(arguments) => count::run(&arguments, &mut out),
        Verb::Stats(arguments) => stats::run(&arguments, &mut out),
        Verb::Keyspaces(arguments) => keyspaces::run(&arguments, &mut out),
        Verb::Compact(arguments) => compact::run(&arguments, &mut out),
        Verb::Verify(arguments) => verify::run(&arguments, &mut out),
        Verb::Repair(arguments) => repair::run(&arguments, &mut out),
        Verb::Salvage(arguments) => salvage::run(&arguments, &mut out),
        Verb::Inspect(arguments) => inspect::run(&arguments, &mut out),
        Verb::Events(arguments) => events::run(&arguments, &mut out),
        Verb::Demo(arguments) => demo::run(&arguments, &mut out),
    };
    // What was found before a failure is printed all the same.
    let flushed = out.flush();
    match outcome.and_then(|()| Ok(flushed?)) {
        Ok(()) => code::OK,
        Err(failure) => {
            if !failure.message.is_empty() {
                let _ = writeln!(io::stderr(), "lsm: {}", failure.message);
            }
            failure.code
        }
    }
}

/// Which keyspace of which database.
#[derive(Debug, clap::Args)]
struct Target {
    /// The database's directory
    db: PathBuf,
    /// The keyspace
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    keyspace: String,
}

impl Target {
    /// Opens the database for reading beside whoever has it open.
    fn read(&self) -> Outcome<(Database, Keyspace)> {
        let database = Database::builder(&self.db).read_only(true).open()?;
        let keyspace = database.open_keyspace(&self.keyspace)?;
        Ok((database, keyspace))
    }

    /// Opens the database for writing. It must exist, and so must the keyspace, unless they are to be created.
    fn write(&self, create: bool) -> Outcome<(Database, Keyspace)> {
        let database = Database::builder(&self.db).create_if_missing(create).open()?;
        let keyspace =
            if create { database.keyspace(&self.keyspace)? } else { database.open_keyspace(&self.keyspace)? };
        Ok((database, keyspace))
    }
}
