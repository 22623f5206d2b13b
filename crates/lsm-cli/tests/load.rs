//! Loading: formats, bad lines, and going on after an interruption.

mod command;

use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use command::{Place, command, ran, start_and_stop_in_the_middle};

#[test]
fn each_format_is_loaded() {
    let place = Place::new();
    let tsv = place.file("a.tsv", "apple\tred\tround\npear\tgreen\n");
    assert_eq!(place.lsm("load", &[&tsv, "-k", "tsv"]).ok(), "2 rows loaded\n");
    assert_eq!(place.lsm("scan", &["-k", "tsv"]).ok(), "apple\tred\\tround\npear\tgreen\n");

    let csv = place.file("a.csv", "id,name\r\n7,\"Smith, \"\"J\"\"\"\r\n8,\"two\r\nlines\"\r\n");
    place.lsm("load", &[&csv, "-k", "csv", "--header", "--key-column", "id"]).ok();
    assert_eq!(place.lsm("scan", &["-k", "csv"]).ok(), "7\tSmith, \"J\"\n8\ttwo\\r\\nlines\n");

    let jsonl = place.file("a.jsonl", "{\"id\": \"x\", \"n\": {\"b\": 1, \"a\": 2}}\n");
    place.lsm("load", &[&jsonl, "-k", "jsonl", "--key-column", "id", "--value-column", "n"]).ok();
    assert_eq!(place.lsm("scan", &["-k", "jsonl"]).ok(), "x\t{\"b\": 1, \"a\": 2}\n");

    let lines = place.file("a.log", b"one\n\n\xff");
    place.lsm("load", &[&lines, "-k", "lines", "--format", "lines", "--durability", "synced"]).ok();
    assert_eq!(place.lsm("scan", &["-k", "lines"]).ok(), "000000000001\tone\n000000000002\t\n000000000003\t\\xff\n");

    let said = place.lsm("load", &[&lines]).fails(2);
    assert!(said.contains("--format"), "{said}");
    place.lsm("load", &[&tsv, "--key-column", "name"]).fails(2);
    place.lsm("load", &[&tsv, "-k", "lsm.load"]).fails(2);
}

#[test]
fn standard_input_is_loaded() {
    let place = Place::new();
    let arguments = ["load", place.db(), "-", "--format", "tsv"];
    let mut child = command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\t1\na\t2\n").unwrap();
    assert_eq!(ran(child.wait_with_output().unwrap()).out, "2 rows loaded\n");
    assert_eq!(place.lsm("scan", &[]).ok(), "a\t2\n", "the later row wins");
    assert_eq!(place.lsm("keyspaces", &[]).ok(), "default\n", "no progress is kept of what cannot be taken up");
}

#[test]
fn a_bad_line_stops_the_load_or_is_passed_over() {
    let place = Place::new();
    let rows = |third: &str| format!("a\t1\nb\t2\n{third}\nd\t4\n");
    let file = place.file("a.tsv", rows("oops"));
    let said = place.lsm("load", &[&file]).fails(4);
    assert!(said.contains("a.tsv: line 3: no tab") && said.contains("\"oops\""), "{said}");
    assert_eq!(place.lsm("count", &[]).ok(), "2\n", "what comes before is loaded");

    // Mended, the load goes on there.
    place.file("a.tsv", rows("c\t3"));
    let again = place.lsm("load", &[&file]);
    assert_eq!((again.code, &*again.out), (0, "4 rows loaded\n"));
    assert!(again.err.contains("going on at line 3"), "{}", again.err);

    let other = place.file("b.tsv", format!("{}\nx\t1\ny\t{}\n", "k".repeat(70_000), "long".repeat(100)));
    let skipped = place.lsm("load", &[&other, "--on-error", "skip", "-k", "b", "--line-bytes-max", "80000"]);
    assert_eq!((skipped.code, &*skipped.out), (0, "2 rows loaded, 1 bad lines passed over\n"));
    assert!(skipped.err.contains("line 1: no tab"), "{}", skipped.err);
    let key_too_long = place.file("c.tsv", format!("{}\tv\n", "k".repeat(70_000)));
    assert!(place.lsm("load", &[&key_too_long, "-k", "c"]).fails(4).contains("line 1: key of 70000 bytes"));
}

#[test]
fn a_file_that_changed_is_loaded_anew() {
    let place = Place::new();
    let file = place.file("a.tsv", "a\t1\nb\t2\noops\n");
    place.lsm("load", &[&file]).fails(4);
    place.file("a.tsv", "A\t1\nb\t2\nc\t3\n");
    let again = place.lsm("load", &[&file]);
    assert!(again.err.contains("has changed"), "{}", again.err);
    assert_eq!(again.out, "3 rows loaded\n");
    assert_eq!(place.lsm("scan", &["--keys-only"]).ok(), "A\na\nb\nc\n", "what was loaded before stays");
    place.file("a.tsv", "oops\n");
    place.lsm("load", &[&file]).fails(4);
    let fresh = place.lsm("load", &[&file, "--restart", "--on-error", "skip"]);
    assert_eq!((fresh.code, &*fresh.out), (0, "0 rows loaded, 1 bad lines passed over\n"));
}

/// Rows in an order that is not theirs, and the same as `scan` prints them.
fn shuffled_rows(count: u64) -> (String, String) {
    let row = |number: u64| format!("key {:09}\tvalue of {number}\n", number.wrapping_mul(7_919) % 1_000_003);
    let file: String = (0..count).map(row).collect();
    let mut sorted: Vec<String> = (0..count).map(row).collect();
    sorted.sort();
    (file, sorted.concat())
}

/// P3: what was committed survives the death of the process, rows and progress together.
#[test]
fn a_load_that_was_killed_goes_on_and_nothing_is_missing() {
    let place = Place::new();
    let (rows, sorted) = shuffled_rows(60_000);
    let file = place.file("rows.tsv", rows);
    let report = ["load", place.db(), &file, "--batch", "10", "--report", "10"];
    for _ in 0..2 {
        let (mut child, _reports) = start_and_stop_in_the_middle(&report);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let loaded: u64 = place.lsm("count", &[]).ok().trim().parse().unwrap();
    assert!(loaded > 0 && loaded < 60_000, "killed in the middle, after {loaded} rows");
    let last = place.lsm("load", &[&file]);
    assert_eq!((last.code, &*last.out), (0, "60,000 rows loaded\n"), "{}", last.err);
    assert!(last.err.contains(&format!("going on at line {}", loaded + 1)), "{}", last.err);
    assert_eq!(place.lsm("count", &[]).ok(), "60000\n");
    assert!(place.lsm("scan", &[]).ok() == sorted, "content differs from the file");
    assert!(place.lsm("verify", &[]).ok().ends_with("no damage\n"));
    assert_eq!(place.lsm("count", &["-k", "lsm.load"]).ok(), "0\n", "a load that has ended leaves no progress");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_load_after_the_batch_at_hand() {
    let place = Place::new();
    let (rows, sorted) = shuffled_rows(100_000);
    let file = place.file("rows.tsv", rows);
    let (mut child, reports) =
        start_and_stop_in_the_middle(&["load", place.db(), &file, "--batch", "10", "--report", "10"]);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let last = reports.lines().map(Result::unwrap).last().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{last}");
    assert!(last.starts_with("lsm: stopped after line ") && last.ends_with("; run again to go on"), "{last}");
    assert_eq!(place.lsm("load", &[&file]).code, 0);
    assert!(place.lsm("scan", &[]).ok() == sorted, "content differs from the file");
}
