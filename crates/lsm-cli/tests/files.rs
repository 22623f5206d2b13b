//! `verify` and `inspect`: whole databases, and every kind of damaged file.

mod command;

use std::path::Path;

use command::{Place, flip, lsm};
use serde_json::Value;

/// Rows in tables, a newer one in the log.
fn database() -> Place {
    let place = Place::new();
    let rows: String = (0..3_000).map(|row| format!("key {row:06}\tvalue number {row}\n")).collect();
    let file = place.file("rows.tsv", rows);
    place.lsm("load", &[&file]).ok();
    place.lsm("compact", &[]).ok();
    place.lsm("put", &["newest", "row"]).ok();
    place
}

fn inspect(path: &Path, options: &[&str]) -> command::Ran {
    lsm(["inspect", path.to_str().unwrap()].into_iter().chain(options.iter().copied()))
}

#[test]
fn a_whole_database_is_verified() {
    let place = database();
    let said = place.lsm("verify", &[]).ok();
    assert!(said.contains("3,000 entries") && said.ends_with("no damage\n"), "{said}");
    let json: Value = serde_json::from_str(&place.lsm("verify", &["--json"]).ok()).unwrap();
    assert_eq!((&json["tables"]["entries"], &json["damage"]), (&3000.into(), &Value::Array(vec![])));
    assert!(json["log"]["entries"].as_u64().unwrap() >= 1, "{json}");
}

#[track_caller]
fn damaged(place: &Place, file: &Path) -> String {
    let ran = place.lsm("verify", &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let name = file.file_name().unwrap().to_str().unwrap();
    let line = ran.out.lines().find(|line| line.starts_with("damage") && line.contains(name));
    line.unwrap_or_else(|| panic!("no damage in {name}: {ran:?}")).to_owned()
}

/// T2: a bit anywhere in a table is noticed, with its file and offset.
#[test]
fn damage_in_a_table_is_found() {
    let place = database();
    let table = place.files(".sst").remove(0);
    let length = std::fs::read(&table).unwrap().len();
    for offset in [20, length / 3, length / 2, length - 300, length - 30] {
        flip(&table, offset);
        damaged(&place, &table);
        flip(&table, offset);
    }
    flip(&table, length / 2);
    let said = damaged(&place, &table);
    assert!(said.contains("at") && said.contains("expected") && said.contains("found"), "{said}");
    let ran = inspect(&table, &["--detail", "entries"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    std::fs::remove_file(&table).unwrap();
    damaged(&place, &table);
}

/// L3: damage in what a claim covers is noticed, with its file and offset.
#[test]
fn damage_in_the_log_is_found() {
    let place = database();
    let log = place.files(".wal").into_iter().find(|log| inspect(log, &["--detail", "entries"]).out.contains("newest"));
    let log = log.expect("a segment holds the newest row");
    let bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(6).position(|window| window == b"newest").unwrap();
    flip(&log, at);
    let said = damaged(&place, &log);
    assert!(said.contains("offset"), "{said}");
    assert_eq!(inspect(&log, &[]).code, 1);
    assert_eq!(place.lsm("get", &["newest"]).code, 3, "a damaged log does not open");
}

/// M2: every named checksum is verified.
#[test]
fn damage_in_the_manifest_is_found() {
    let place = database();
    let level = place.files(".json").into_iter().find(|path| path.to_string_lossy().contains("level_")).unwrap();
    for file in [level, place.db.join("global.json")] {
        let length = std::fs::read(&file).unwrap().len();
        flip(&file, length / 2);
        damaged(&place, &file);
        place.lsm("count", &[]).fails(3);
        flip(&file, length / 2);
    }
    assert_eq!(place.lsm("count", &[]).ok(), "3001\n", "mended, it opens");
    let global = place.db.join("global.json");
    std::fs::remove_file(&global).unwrap();
    damaged(&place, &global);
}

#[test]
fn every_kind_of_file_is_printed() {
    let place = database();
    let json_lines =
        |text: String| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };

    let table = place.files(".sst").remove(0);
    let text = inspect(&table, &["--detail", "entries"]).ok();
    assert!(text.starts_with("table ") && text.contains("value number 2999"), "{}", &text[..200]);
    assert!(inspect(&table, &["--detail", "summary"]).ok().lines().count() < 10);
    let entries = json_lines(inspect(&table, &["--json", "--detail", "entries"]).ok());
    assert_eq!((entries.len(), &entries[1]["key"]), (3_001, &"key 000000".into()));
    let blocks = json_lines(inspect(&table, &["--json"]).ok());
    assert!(blocks.len() > 2);
    assert_eq!(blocks[1]["trailer_bytes"], 1, "rows were loaded in the order of their keys: {}", blocks[1]);
    assert!(inspect(&table, &[]).ok().contains(", trailers of 1 bytes"));

    for log in place.files(".wal") {
        assert!(inspect(&log, &[]).ok().starts_with("segment "));
        assert!(json_lines(inspect(&log, &["--json", "--detail", "entries"]).ok()).len() >= 2);
    }
    let whole: Value = serde_json::from_str(&place.lsm("inspect", &["--json"]).ok()).unwrap();
    assert_eq!(whole["keyspaces"][0]["name"], "default");
    assert!(place.lsm("inspect", &[]).ok().contains("keyspace ks1 \"default\""));
    for file in place.files(".json") {
        assert!(inspect(&file, &[]).ok().contains("database"));
        assert!(inspect(&file, &["--json"]).ok().starts_with('{'));
    }

    // By its content, whatever it is called.
    let copy = place.dir.path().join("copy");
    std::fs::copy(&table, &copy).unwrap();
    assert!(inspect(&copy, &[]).ok().starts_with("table "));
    let text = place.file("text", "nothing of ours");
    assert!(inspect(text.as_ref(), &[]).fails(3).contains("no file of a database"));
    for (name, code) in [("1.sst", 1), ("1.wal", 1), ("global.json", 1), ("level_0.1.json", 1), ("edits.1.jsonl", 1)] {
        let junk = place.file(name, "junk that has a name of ours");
        inspect(junk.as_ref(), &[]).fails(code);
    }
}

/// M3: an edit file is printed line by line.
#[test]
fn an_edit_file_is_printed() {
    let place = Place::new();
    // Nobody folds the file beside the edits and puts another in its place, and the edits are so few that none has to.
    let builder = lsm_facade::Database::builder(&place.db).edit_file_bytes(1).background_threads(0);
    let database = builder.open().unwrap();
    for name in 0..5 {
        database.keyspace(&format!("keyspace {name}")).unwrap();
    }
    // While it is open: a clean close folds the file.
    let edits = place.files(".jsonl");
    assert!(!edits.is_empty(), "no edit file: {:?}", place.files(""));
    let text = inspect(&edits[0], &[]).ok();
    assert!(text.starts_with("edit file, salt ") && text.contains("lines,"), "{text}");
    assert!(inspect(&edits[0], &["--json"]).ok().starts_with("{\"n\": 1, "));
    drop(database);
    assert!(place.files(".jsonl").is_empty(), "{:?}", place.files(""));
    assert!(place.lsm("verify", &[]).ok().ends_with("no damage\n"));
}

/// What an event log tells is printed, as lines and as a picture; it is no part of what is checked or counted as manifest.
#[test]
fn the_event_log_is_printed() {
    let place = Place::new();
    assert_eq!(place.lsm("put", &["apple", "red"]).ok(), "");
    assert_eq!(place.lsm("events", &[]).ok(), "", "there is no event log");
    let database = lsm_facade::Database::builder(&place.db).event_log_bytes_max(64 << 10).open().unwrap();
    let keyspace = database.keyspace("default").unwrap();
    for round in ["one", "two"] {
        keyspace.insert("k", round).unwrap();
        keyspace.flush().unwrap();
    }
    keyspace.compact().unwrap();
    let lines = place.lsm("events", &[]).ok();
    assert!(lines.contains("flush ends: default, installed") && lines.contains("compaction ends: default"), "{lines}");
    let picture = place.lsm("events", &["--svg"]).ok();
    assert!(picture.starts_with("<svg") && picture.contains(">flushes<") && picture.contains(">into L6<"), "{picture}");
    drop((keyspace, database));
    assert!(place.lsm("verify", &[]).ok().ends_with("no damage\n"));
    assert!(place.lsm("events", &[]).ok().starts_with(&lines), "it outlives the process");
    place.lsm("events", &["--png"]).fails(2);
}

/// M2: a database without its manifest is repaired in place, or salvaged into another; what could not be saved is told.
#[test]
fn a_damaged_database_is_repaired_and_salvaged() {
    let place = database();
    let rescued = place.db.with_file_name("rescued.db");
    std::fs::remove_file(place.db.join("global.json")).unwrap();
    place.lsm("count", &[]).fails(3);
    let said = place.lsm("salvage", &[rescued.to_str().unwrap()]).ok();
    assert!(said.contains("2 keyspaces") && said.contains("keyspace-1"), "{said}");
    let ran = place.lsm("repair", &[]);
    assert!(ran.code == 0 && ran.out.contains("tables and log alone"), "{ran:?}");
    assert_eq!(place.lsm("count", &["--keyspace", "keyspace-1"]).ok(), "3001\n");
    assert!(place.lsm("repair", &[]).ok().contains("no damage"));

    let table = place.files(".sst").remove(0);
    let length = std::fs::read(&table).unwrap().len();
    flip(&table, length / 2);
    let again = place.db.with_file_name("again.db");
    let ran = place.lsm("salvage", &[again.to_str().unwrap(), "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json["lost"].as_array().unwrap().len()), (1, 1), "{ran:?}");
    let ran = place.lsm("repair", &["--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json["left_out"].as_array().unwrap().len()), (1, 1), "{ran:?}");
    let aside = Path::new(json["kept_aside"].as_str().unwrap()).join("tables").join(table.file_name().unwrap());
    assert!(aside.exists() && !table.exists());
    assert!(place.lsm("verify", &[]).ok().ends_with("no damage\n"));
}
