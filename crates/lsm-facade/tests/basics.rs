//! What the calls mean, one story each, on the real file system and with zero threads on the simulated one.

use lsm_facade::{Database, Durability, Error, KeyspaceOptions};

fn open(dir: &std::path::Path) -> Database {
    Database::builder(dir).background_threads(0).open().unwrap()
}

fn small() -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_bytes(32 << 10)
        .write_buffer_bytes(64 << 10)
        .table_bytes(16 << 10)
        .level_base_bytes(64 << 10)
}

#[test]
fn what_was_written_is_read_after_flush_compaction_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    {
        let database = open(dir.path());
        let keyspace = database.create_keyspace("a", small()).unwrap();
        for number in 0..5000_u32 {
            keyspace.insert(number.to_be_bytes(), format!("value {number}")).unwrap();
        }
        for number in (0..5000_u32).step_by(3) {
            keyspace.remove(number.to_be_bytes()).unwrap();
        }
        database.wait_until_idle().unwrap();
        check(&keyspace);
        keyspace.flush().unwrap();
        check(&keyspace);
        keyspace.compact().unwrap();
        check(&keyspace);
        println!("{}", database.stats());
        keyspace.with_durability(Durability::Synced).insert("last", "one").unwrap();
        keyspace.remove("last").unwrap();
    }
    for _ in 0..2 {
        let database = open(dir.path());
        let keyspace = database.open_keyspace("a").unwrap();
        check(&keyspace);
    }
}

fn check(keyspace: &lsm_facade::Keyspace) {
    let expected: Vec<(Vec<u8>, Vec<u8>)> = (0..5000_u32)
        .filter(|number| number % 3 != 0)
        .map(|number| (number.to_be_bytes().to_vec(), format!("value {number}").into_bytes()))
        .collect();
    for number in 0..5000_u32 {
        let value = keyspace.get(number.to_be_bytes()).unwrap();
        let wanted = (number % 3 != 0).then(|| format!("value {number}").into_bytes());
        assert_eq!(value.map(Vec::from), wanted, "{number}");
    }
    let forward: Vec<_> = keyspace.iter().map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
    assert_eq!(forward.len(), expected.len());
    assert!(forward == expected);
    let mut backward: Vec<_> =
        keyspace.iter().rev().map(|row| row.map(|(k, v)| (k.to_vec(), v.to_vec())).unwrap()).collect();
    backward.reverse();
    assert!(backward == expected);
}

#[test]
fn a_second_open_says_who_holds_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(dir.path());
    match Database::open(dir.path()) {
        Err(error @ Error::Locked { .. }) => {
            assert!(error.to_string().contains("this process holds it"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    drop(database);
    open(dir.path());
}

#[test]
fn a_closed_database_lets_go_of_everything_it_held() {
    for threads in [0, 2] {
        let simulation = file_system::Simulation::new(1);
        let builder = Database::builder("/db").environment(simulation.environment()).background_threads(threads);
        let database = builder.open().unwrap();
        let keyspace = database.create_keyspace("a", small()).unwrap();
        for number in 0..500_u32 {
            keyspace.insert(number.to_be_bytes(), [7; 100]).unwrap();
        }
        keyspace.flush().unwrap();
        let iter = keyspace.iter();
        drop((database, keyspace));
        assert!(std::sync::Arc::strong_count(&simulation.files) > 1, "the iterator keeps it open");
        drop(iter);
        assert_eq!(std::sync::Arc::strong_count(&simulation.files), 1, "with {threads} threads");
    }
}
