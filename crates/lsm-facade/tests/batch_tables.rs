//! Batches that were written as tables of their own (P11), after those tables are gone again.

use std::path::Path;

use lsm_facade::Database;

/// P6, P11: replay passes over a batch whose table was flushed and then merged away, although its record is still there.
#[test]
fn a_batch_table_that_was_merged_away_is_not_missed_by_replay() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::builder(dir.path()).large_batch_bytes(1024).background_threads(0).open().unwrap();
    let keyspace = database.keyspace("k").unwrap();
    for round in 0..3 {
        let mut batch = database.batch();
        for number in 0..100_u32 {
            batch.insert(&keyspace, format!("key {number:04}"), format!("round {round} of {number}")).unwrap();
        }
        database.write(&batch).unwrap();
        keyspace.flush().unwrap();
    }
    keyspace.compact().unwrap();
    while database.run_one_job().unwrap() {}
    let tables = std::fs::read_dir(dir.path().join("tables")).unwrap().count();
    assert_eq!(tables, 1, "the batches' own tables are gone, their records are not");

    // What a killed process would leave: nothing was closed.
    let left = tempfile::tempdir().unwrap();
    copy(dir.path(), left.path());
    for read_only in [true, false] {
        let database = Database::builder(left.path()).read_only(read_only).open().unwrap();
        let keyspace = database.open_keyspace("k").unwrap();
        assert_eq!(keyspace.iter().count(), 100);
        assert_eq!(keyspace.get("key 0007").unwrap().unwrap(), b"round 2 of 7");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => std::fs::copy(entry.path(), to).map(drop).unwrap(),
        }
    }
}
