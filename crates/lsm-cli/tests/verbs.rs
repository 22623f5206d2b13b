//! Each verb from outside: what it prints, where, and its exit code.

mod command;

use std::io::Read;
use std::process::Stdio;

use command::{Place, command, lsm, ran};

#[test]
fn rows_are_put_got_counted_scanned_and_deleted() {
    let place = Place::new();
    for (key, value) in [("apple", "red"), ("banana", "yellow"), ("cherry", "dark red"), ("", "of the empty key")] {
        assert_eq!(place.lsm("put", &[key, value]).ok(), "");
    }
    assert_eq!(place.lsm("get", &["apple"]).ok(), "red\n");
    assert_eq!(place.lsm("get", &["apple", "--raw"]).ok(), "red");
    assert_eq!(place.lsm("get", &[""]).ok(), "of the empty key\n");
    assert_eq!(place.lsm("get", &["plum"]).fails(1), "lsm: no such key: plum\n");
    assert_eq!(place.lsm("count", &[]).ok(), "4\n");
    assert_eq!(place.lsm("count", &["--prefix", "b"]).ok(), "1\n");
    assert_eq!(place.lsm("delete", &["apple", "never there"]).ok(), "");
    assert_eq!(place.lsm("get", &["apple"]).code, 1);
    assert_eq!(place.lsm("scan", &[]).ok(), "\tof the empty key\nbanana\tyellow\ncherry\tdark red\n");
    assert_eq!(place.lsm("scan", &["--reverse", "--limit", "2", "--keys-only"]).ok(), "cherry\nbanana\n");
    assert_eq!(place.lsm("scan", &["--from", "b", "--to", "cherry"]).ok(), "banana\tyellow\n");
    assert_eq!(place.lsm("scan", &["--from", "c", "--to", "b"]).ok(), "", "an inverted range is empty");
    assert_eq!(place.lsm("scan", &["--limit", "0"]).ok(), "");
    assert!(place.lsm("compact", &[]).ok().contains("bytes of tables"));
    assert_eq!(place.lsm("count", &[]).ok(), "3\n");
}

#[test]
fn bytes_that_are_no_text_go_in_and_come_out() {
    let place = Place::new();
    place.lsm("put", &["00ff0a", "5c09", "--hex"]).ok();
    assert_eq!(place.lsm("scan", &[]).ok(), "\\x00\\xff\\n\t\\\\\\t\n");
    assert_eq!(place.lsm("scan", &["--hex"]).ok(), "00ff0a\t5c09\n");
    assert_eq!(place.lsm("get", &["\\x00\\xff\\n", "--escaped"]).ok(), "\\\\\\t\n");
    assert_eq!(place.lsm("get", &["00FF0A", "--hex", "--raw"]).ok(), "\\\t");
    assert!(place.lsm("get", &["0", "--hex"]).fails(2).contains("even number"));
    assert!(place.lsm("get", &["\\q", "--escaped"]).fails(2).contains("backslash"));

    let mut child = command(["put", place.db(), "from stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"a\nb").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(place.lsm("get", &["from stdin", "--raw"]).ok(), "a\nb");
}

#[test]
fn keyspaces_are_apart_and_listed() {
    let place = Place::new();
    place.lsm("put", &["k", "1", "--keyspace", "one"]).ok();
    place.lsm("put", &["k", "2", "--keyspace", "two"]).ok();
    assert_eq!(place.lsm("get", &["k", "--keyspace", "one"]).ok(), "1\n");
    assert_eq!(place.lsm("keyspaces", &[]).ok(), "one\ntwo\n");
    assert!(place.lsm("get", &["k"]).fails(3).contains("no keyspace is called \"default\""));
    let stats: serde_json::Value = serde_json::from_str(&place.lsm("stats", &["--json"]).ok()).unwrap();
    assert_eq!(stats["keyspaces"][0]["name"], "one");
    assert!(stats["disk_bytes"]["log"].as_u64().unwrap() > 0);
    assert!(stats["memory_bytes"]["memtables"].as_u64().unwrap() > 0);
    assert!(place.lsm("stats", &[]).ok().contains("keyspace two (ks2)"));
}

#[test]
fn hostile_places_are_refused_and_left_alone() {
    let place = Place::new();
    for verb in ["count", "scan", "stats", "keyspaces", "verify", "inspect", "compact"] {
        place.lsm(verb, &[]).fails(3);
        assert!(!place.db.exists(), "{verb} made a directory");
    }
    place.lsm("delete", &["k"]).fails(3);
    let missing = place.dir.path().join("missing.tsv");
    place.lsm("load", &[missing.to_str().unwrap()]).fails(3);
    assert!(!place.db.exists(), "a wrong file name made a database");

    let file = place.file("file", "no directory");
    lsm(["put", &file, "k", "v"]).fails(3);
    lsm(["put", &format!("{file}/below"), "k", "v"]).fails(3);
    lsm(["count", &file]).fails(3);
    assert_eq!(std::fs::read(&file).unwrap(), b"no directory");

    let foreign = place.dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "precious").unwrap();
    let said = lsm(["put", foreign.to_str().unwrap(), "k", "v"]).fails(3);
    assert!(said.contains("thesis.txt"), "{said}");
    assert_eq!(std::fs::read(foreign.join("thesis.txt")).unwrap(), b"precious");

    let key = "k".repeat(65_536);
    assert!(place.lsm("put", &[&key, "v"]).fails(2).contains("65536"));
}

#[cfg(unix)]
#[test]
fn a_directory_without_write_permission_is_an_error_with_its_name() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    std::fs::set_permissions(place.dir.path(), PermissionsExt::from_mode(0o555)).unwrap();
    // Whoever is above permissions cannot be refused.
    let above = std::fs::write(place.dir.path().join("probe"), "").is_ok();
    let put = place.lsm("put", &["k", "v"]);
    std::fs::set_permissions(place.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    if !above {
        assert!(put.fails(3).contains("db"));
    }
}

#[test]
fn a_database_in_use_is_read_but_not_written() {
    let place = Place::new();
    place.lsm("put", &["k", "v"]).ok();
    let database = lsm_facade::Database::open(&place.db).unwrap();
    assert_eq!(place.lsm("get", &["k"]).ok(), "v\n");
    let said = place.lsm("put", &["k", "w"]).fails(3);
    assert!(said.contains("open elsewhere") && said.contains(&std::process::id().to_string()), "{said}");
    database.close().unwrap();
    place.lsm("put", &["k", "w"]).ok();
}

#[test]
fn a_pipe_that_is_closed_early_ends_a_scan_quietly() {
    let place = Place::new();
    let lines: String = (0..50_000).map(|line| format!("key {line:08}\tvalue\n")).collect();
    let file = place.file("rows.tsv", lines);
    place.lsm("load", &[&file]).ok();
    let arguments = ["scan", place.db()];
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 12];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"key 00000000");
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!((ran.code, &*ran.err), (0, ""));
}

#[test]
fn help_names_what_each_verb_takes() {
    let usages = [
        ("load", "Usage: lsm load [OPTIONS] <DB> <FILE>"),
        ("get", "Usage: lsm get [OPTIONS] <DB> <KEY>"),
        ("put", "Usage: lsm put [OPTIONS] <DB> <KEY> [VALUE]"),
        ("delete", "Usage: lsm delete [OPTIONS] <DB> <KEY>..."),
        ("scan", "Usage: lsm scan [OPTIONS] <DB>"),
        ("count", "Usage: lsm count [OPTIONS] <DB>"),
        ("stats", "Usage: lsm stats [OPTIONS] <DB>"),
        ("keyspaces", "Usage: lsm keyspaces <DB>"),
        ("compact", "Usage: lsm compact [OPTIONS] <DB>"),
        ("verify", "Usage: lsm verify [OPTIONS] <DB>"),
        ("inspect", "Usage: lsm inspect [OPTIONS] <PATH>"),
        ("demo", "Usage: lsm demo [OPTIONS]"),
    ];
    let all = lsm(["--help"]).ok();
    for (verb, usage) in usages {
        let help = lsm([verb, "--help"]).ok();
        assert!(help.lines().any(|line| line == usage), "{usage}\nis not in\n{help}");
        assert!(all.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} is not in\n{all}");
    }
    assert!(all.contains("Exit codes:"));
    assert!(lsm(["--version"]).ok().starts_with("lsm "));
    assert!(lsm(["frobnicate"]).fails(2).contains("unrecognized subcommand"));
    assert_eq!(lsm([""; 0]).code, 2, "no verb is a usage error");
}
