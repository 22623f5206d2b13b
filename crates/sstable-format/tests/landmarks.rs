//! Landmarks of a table: keys that cut it into pieces of similar size, whatever its index looks like.

mod common;

use common::{Row, Tables, random_options, random_rows, row, ways_of_reading};
use internal_key::Kind;
use sstable_format::{ReadOptions, TableOptions};
use test_support::for_each_seed;

fn at_or_before(rows: &[Row], key: &[u8]) -> usize {
    rows.partition_point(|(found, _)| *found.user_key <= *key)
}

/// T3: landmarks ascend, and so do the blocks before them, none at an end; each way of reading finds the same ones.
#[test]
fn landmarks_ascend_between_the_ends() {
    for_each_seed(0..60, |rng| {
        let mut tables = Tables::new();
        let count = rng.within(1..400) as usize;
        let rows = random_rows(rng, count);
        let (table, summary) = tables.write(&rows, random_options(rng));
        let count = rng.below(20) as usize;
        let mut before = None;
        for options in ways_of_reading() {
            let reader = tables.open(table, 0, options).unwrap();
            let landmarks = reader.landmarks(count).unwrap();
            assert!(landmarks.len() <= count);
            assert!(landmarks.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1), "{landmarks:?}");
            for (key, blocks) in &landmarks {
                assert!(at_or_before(&rows, key) > 0, "something lies at or before {}", key.escape_ascii());
                assert!(*key <= summary.max_key && (1..reader.data_blocks()).contains(blocks));
            }
            assert_eq!(before.get_or_insert_with(|| landmarks.clone()), &landmarks);
        }
    });
}

/// Pieces of a table of equal rows hold as many rows each, a few blocks' worth more or less, with one index and with
/// many partitions.
#[test]
fn pieces_are_of_similar_size() {
    let rows: Vec<Row> =
        (0..5000).map(|number| row(format!("key{number:05}").as_bytes(), 1, Kind::Put, &[7; 50])).collect();
    for index_partition_bytes in [0, 1024, 128 << 10] {
        let mut tables = Tables::new();
        let options = TableOptions { block_bytes: 512, index_partition_bytes, ..TableOptions::default() };
        let (table, _) = tables.write(&rows, options);
        let reader = tables.open(table, 0, ReadOptions::default()).unwrap();
        let landmarks = reader.landmarks(9).unwrap();
        assert_eq!(landmarks.len(), 9);
        for (index, (key, blocks)) in landmarks.iter().enumerate() {
            let share = at_or_before(&rows, key) as f64 / rows.len() as f64;
            assert!((share - (index + 1) as f64 / 10.0).abs() < 0.01, "{share} at or before landmark {index}");
            let of_blocks = *blocks as f64 / reader.data_blocks() as f64;
            assert!((share - of_blocks).abs() < 0.01, "{share} of the rows in {of_blocks} of the blocks");
        }
        // As many as there are blocks between, and no more.
        assert_eq!(reader.landmarks(1 << 20).unwrap().len() as u64, reader.data_blocks() - 1);
        assert_eq!(reader.landmarks(0).unwrap(), []);
    }
}
