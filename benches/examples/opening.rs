//! How long opening takes: `opening [rows]`, after a clean close and after the process was killed.
//!
//! A child process fills a fresh database and ends either way, with memtables full or flushed; this one opens what it left,
//! and prints milliseconds. `opening ROWS DIR open` opens once, for a tracer.

use std::process::Command;
use std::time::Instant;

use benches::{KeyShape, Rows};
use lsm_facade::Database;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count: u32 = arguments.first().map_or(100_000, |text| text.parse().expect("a number of rows"));
    if let [_, dir, end] = &arguments[..] {
        if end == "open" {
            let begun = Instant::now();
            let database = Database::open(dir).expect("the database opens");
            println!("opened in {:.2} ms", begun.elapsed().as_secs_f64() * 1e3);
            database.close().expect("a close succeeds");
            return;
        }
        fill(dir, count, end == "killed");
    }
    let program = std::env::current_exe().expect("a program knows its path");
    for end in ["closed", "killed"] {
        for settle in [false, true] {
            let dir = tempfile::tempdir().expect("a directory can be made");
            let mut child = Command::new(&program);
            child.arg(count.to_string()).arg(dir.path()).arg(end).env("SETTLE", if settle { "1" } else { "0" });
            let _ = child.status().expect("a process can be started");
            let begun = Instant::now();
            let database = Database::open(dir.path()).expect("the database opens");
            let opened = begun.elapsed();
            let keyspace = database.keyspace("rows").expect("the keyspace is there");
            let begun = Instant::now();
            assert_eq!(keyspace.iter().count(), count as usize, "every row is there");
            println!(
                "{end}, settled {settle}: opened in {:.2} ms, all read in {:.0} ms",
                opened.as_secs_f64() * 1e3,
                begun.elapsed().as_secs_f64() * 1e3
            );
        }
    }
}

fn fill(dir: &str, count: u32, kill: bool) -> ! {
    let rows = Rows::new(KeyShape::Scattered, count);
    let database = Database::open(dir).expect("a database can be created");
    let keyspace = database.keyspace("rows").expect("a keyspace can be created");
    for row in 0..count {
        keyspace.insert(rows.key(row), Rows::value(row, 0)).expect("an insert succeeds");
    }
    if std::env::var_os("SETTLE").is_some_and(|value| value == "1") {
        keyspace.flush().expect("a flush succeeds");
        database.wait_until_idle().expect("jobs succeed");
    }
    if kill {
        std::process::abort();
    }
    database.close().expect("a close succeeds");
    std::process::exit(0);
}
