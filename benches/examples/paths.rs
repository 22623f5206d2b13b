//! One path of the engine, some times over, for a profiler: `paths insert|get|missing|scan|cursor|seek|range [rows] [repeats]`.
//!
//! With 0 repeats only the preparations are made: the difference of two runs is what the path costs.

use benches::{KeyShape, Rows, mix};
use lsm_facade::Database;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "get".to_owned());
    let mut number = |default: u32| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (count, repeats) = (number(20_000), number(1));
    let rows = Rows::new(KeyShape::Scattered, count);
    let dir = tempfile::tempdir().expect("a directory can be made");
    // No threads, so that a run repeats itself.
    let database = Database::builder(dir.path()).background_threads(0).open().expect("a database can be created");
    let keyspace = database.keyspace("rows").expect("a keyspace can be created");
    for row in 0..count {
        keyspace.insert(rows.key(row), Rows::value(row, 0)).expect("an insert succeeds");
    }
    if path != "insert" {
        keyspace.flush().expect("a flush succeeds");
        database.wait_until_idle().expect("jobs succeed");
        // Every block is checked once.
        assert_eq!(keyspace.iter().count(), count as usize);
    }
    let mut bytes = 0;
    for repeat in 0..repeats {
        let any = |row: u32| (((mix(u64::from(row)) >> 32) * u64::from(count)) >> 32) as u32;
        match path.as_str() {
            "insert" => {
                for row in 0..count {
                    keyspace.insert(rows.key(row), Rows::value(row, repeat + 1)).expect("an insert succeeds");
                }
            }
            "get" => {
                for row in 0..count {
                    let value = keyspace.get(rows.key(any(row))).expect("a get succeeds").expect("the row is there");
                    bytes += value.len();
                }
            }
            "missing" => {
                for row in 0..count {
                    let value = keyspace.get(rows.key(count + any(row))).expect("a get succeeds");
                    assert!(value.is_none(), "a key that nobody wrote");
                }
            }
            "scan" => {
                for row in keyspace.iter() {
                    let (key, value) = row.expect("a row is read");
                    bytes += key.len() + value.len();
                }
            }
            "cursor" => {
                let mut cursor = keyspace.cursor();
                cursor.seek_to_first().expect("a row is read");
                while let Some(key) = cursor.key() {
                    bytes += key.len();
                    bytes += cursor.value().expect("a value is read").map_or(0, <[u8]>::len);
                    cursor.next().expect("a row is read");
                }
            }
            "seek" => {
                let mut cursor = keyspace.cursor();
                for row in 0..count {
                    cursor.seek(rows.key(any(row))).expect("a row is read");
                    for _ in 0..10 {
                        bytes += cursor.value().expect("a value is read").map_or(0, <[u8]>::len);
                        cursor.next().expect("a row is read");
                    }
                }
            }
            "range" => {
                for row in 0..count {
                    for row in keyspace.range(rows.key(any(row))..).take(10) {
                        let (key, value) = row.expect("a row is read");
                        bytes += key.len() + value.len();
                    }
                }
            }
            other => panic!("{other}: not a path"),
        }
    }
    println!("{path}: {repeats} × {count} rows, {bytes} bytes");
}
