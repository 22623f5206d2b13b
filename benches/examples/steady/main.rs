//! Whether compaction keeps up: figures that must hold, each printed with what it is held against.
//!
//! ```text
//! steady overwrite [key=value …]   random overwriting for minutes: longest waits, debt, throughput in windows
//! steady space     [key=value …]   everything overwritten once: bytes of live tables for each logical byte
//! steady deletes   [key=value …]   nine of ten keys deleted: bytes that are left, entries that a scan meets
//! steady manifest  [key=value …]   bytes and syncs of a manifest edit; opening many tables
//! steady                           as `space`, with a budget of 4 MiB: for a first look
//!
//! seconds=300    how long each run of `overwrite` takes
//! writers=1,4    the runs of `overwrite`
//! budget-mib=64  memory for memtables; levels and tables are scaled with it, and 64 gives the default options
//! times=10       how many times as large the data set is
//! dir=…          where the database is made; by default where temporary files are
//! ```
//!
//! Every answer is checked: all rows are read back with their last values. The process fails if a figure does not hold.

mod manifests;
mod overwrite;
mod settled;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use benches::{KEY_BYTES, KeyShape, Rows, VALUE_BYTES};
use lsm_facade::{Compression, Database, Keyspace, KeyspaceOptions};
use tempfile::TempDir;

/// Bytes of keys and values that a row counts for.
pub(crate) const ROW_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// What was asked for on the command line.
pub(crate) struct Arguments {
    pub(crate) seconds: u64,
    pub(crate) writers: Vec<u32>,
    pub(crate) budget_bytes: u64,
    pub(crate) times: u64,
    dir: PathBuf,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut parsed =
            Self { seconds: 300, writers: vec![1, 4], budget_bytes: 64 << 20, times: 10, dir: std::env::temp_dir() };
        for argument in arguments {
            let (name, value) = argument.split_once('=').expect("arguments look like seconds=30");
            match name {
                "seconds" => parsed.seconds = number(value),
                "writers" => parsed.writers = value.split(',').map(number).collect(),
                "budget-mib" => parsed.budget_bytes = number::<u64>(value) << 20,
                "times" => parsed.times = number(value),
                "dir" => parsed.dir = value.into(),
                _ => panic!("{name} is none of seconds, writers, budget-mib, times, dir"),
            }
        }
        parsed
    }

    /// A directory for one database, removed when this is dropped.
    pub(crate) fn fresh_dir(&self) -> TempDir {
        tempfile::tempdir_in(&self.dir).expect("a directory can be made")
    }

    /// The data set.
    pub(crate) fn rows(&self) -> Rows {
        let count = self.budget_bytes * self.times / ROW_BYTES;
        Rows::new(KeyShape::Scattered, u32::try_from(count).expect("a data set of less than 2^32 rows"))
    }

    pub(crate) fn memtable_bytes(&self) -> u64 {
        (self.budget_bytes / 16).max(64 << 10)
    }

    /// The default options, scaled to the budget.
    pub(crate) fn options(&self) -> KeyspaceOptions {
        KeyspaceOptions::default()
            .memtable_bytes(self.memtable_bytes())
            .write_buffer_bytes(self.budget_bytes)
            .level_base_bytes(16 * self.budget_bytes)
            .table_bytes(self.budget_bytes)
    }
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("{text} is no number"))
}

/// Held against what is wanted, and remembered.
#[derive(Default)]
pub(crate) struct Verdict {
    failed: bool,
}

impl Verdict {
    /// Prints a figure and whether it holds.
    pub(crate) fn holds(&mut self, what: &str, found: impl std::fmt::Display, wanted: &str, holds: bool) {
        println!("{}  {what}: {found} (wanted: {wanted})", if holds { "holds" } else { "FAILS" });
        self.failed |= !holds;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    if what == "open" {
        manifests::open_child(&arguments.next().expect("a directory"));
        return;
    }
    let mut arguments = Arguments::parse(arguments);
    let mut verdict = Verdict::default();
    match what.as_str() {
        "overwrite" => overwrite::run(&arguments, &mut verdict),
        "space" => settled::space(&arguments, &mut verdict),
        "deletes" => settled::deletes(&arguments, &mut verdict),
        "manifest" => manifests::run(&arguments, &mut verdict),
        "" => {
            arguments.budget_bytes = 4 << 20;
            settled::space(&arguments, &mut verdict);
        }
        _ => panic!("one of overwrite, space, deletes, manifest"),
    }
    if verdict.failed {
        std::process::exit(1);
    }
}

/// A new database with one keyspace.
pub(crate) fn create(arguments: &Arguments, dir: &TempDir, compression: Compression) -> (Database, Keyspace) {
    let database = Database::builder(dir.path()).background_threads(2).open().expect("a database can be created");
    let options = arguments.options().compression(compression);
    let keyspace = database.create_keyspace("rows", options).expect("a keyspace can be created");
    (database, keyspace)
}

/// Waits, without asking for anything, until the background has done nothing for a while: what a database comes to by
/// itself.
pub(crate) fn settle(database: &Database) {
    const QUIET: Duration = Duration::from_secs(5);
    loop {
        database.wait_until_idle().expect("jobs succeed");
        let before = done(database);
        std::thread::sleep(QUIET);
        if done(database) == before {
            return;
        }
    }
}

fn done(database: &Database) -> (u64, u64) {
    let stats = database.stats();
    (stats.flushes, stats.compactions.iter().sum())
}

/// Panics unless the rows that `round_of` gives a round are there, with the values of that round, and no others.
pub(crate) fn check_all(rows: &Rows, keyspace: &Keyspace, round_of: impl Fn(u32) -> Option<u32>) {
    let mut expected = (0..rows.count()).map(|rank| rows.at_rank(rank));
    for row in keyspace.iter() {
        let (key, value) = row.expect("a row can be read");
        let (number, round) = expected
            .find_map(|number| round_of(number).map(|round| (number, round)))
            .expect("no more rows than were written");
        rows.check(number, round, &key, &value);
    }
    assert!(expected.all(|number| round_of(number).is_none()), "a row is missing");
}
