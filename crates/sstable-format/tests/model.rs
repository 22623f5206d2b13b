//! Tables against a sorted vector of their rows, under random shapes of keys, options and ways of reading.

mod common;

use std::sync::Arc;

use common::{Row, Tables, random_options, random_rows, ways_of_reading};
use internal_key::{Cursor, InternalKey, OwnedInternalKey, SeqNo, Trailer};
use sstable_format::{TableCursor, TableReader, verify};
use test_support::{Rng, for_each_seed};
use xxhash_rust::xxh3::xxh3_64;

fn rebased(rows: &[Row], base: u64) -> Vec<Row> {
    let lift = |(key, value): &Row| {
        let trailer = key.trailer.rebased(base).expect("a small base");
        (InternalKey::new(&key.user_key, trailer).to_owned(), value.clone())
    };
    rows.iter().map(lift).collect()
}

fn here(cursor: &mut TableCursor) -> Option<Row> {
    let key = cursor.valid().then(|| cursor.key().to_owned())?;
    Some((key, cursor.value().expect("a value").to_vec()))
}

fn scan_both_ways(table: &Arc<TableReader>, rows: &[Row], sequential: bool) {
    let mut cursor = if sequential { table.cursor_for_compaction() } else { table.cursor() };
    cursor.seek_to_first().unwrap();
    for row in rows {
        assert_eq!(here(&mut cursor).as_ref(), Some(row));
        assert_eq!(cursor.head(), internal_key::key_head(&row.0.user_key));
        cursor.next().unwrap();
    }
    assert_eq!(here(&mut cursor), None);
    cursor.next().unwrap();
    assert_eq!(here(&mut cursor), None, "past the end only a seek leads back");
    cursor.seek_to_last().unwrap();
    for row in rows.iter().rev() {
        assert_eq!(here(&mut cursor).as_ref(), Some(row));
        cursor.prev().unwrap();
    }
    assert_eq!(here(&mut cursor), None);
}

/// A key near one of `rows`: the same, or with a byte changed, dropped or added.
fn nearby(rows: &[Row], rng: &mut Rng) -> Vec<u8> {
    let mut key = rng.pick(rows).0.user_key.to_vec();
    match rng.below(6) {
        0 => key.push(*rng.pick(b"\0a\xff")),
        1 => drop(key.pop()),
        2 if !key.is_empty() => {
            let at = rng.index(key.len());
            key[at] = key[at].wrapping_add(1);
        }
        3 => key = rng.bytes(3),
        _ => {}
    }
    key
}

fn seek_and_get(table: &Arc<TableReader>, rows: &[Row], rng: &mut Rng) {
    let mut cursor = table.cursor();
    for _ in 0..300 {
        let key = nearby(rows, rng);
        let seqno = SeqNo::new(rng.below(2100)).unwrap();
        let target = match rng.below(4) {
            0 => rng.pick(rows).0.clone(),
            _ => OwnedInternalKey { user_key: key.clone().into(), trailer: Trailer::seek(seqno) },
        };
        let at = rows.partition_point(|row| row.0 < target);
        cursor.seek(target.borrow()).unwrap();
        assert_eq!(here(&mut cursor).as_ref(), rows.get(at), "seek {target:?}");
        // A few steps both ways from there.
        let mut position = at;
        for _ in 0..rng.below(6) {
            if rng.one_in(2) && position + 1 < rows.len() {
                cursor.next().unwrap();
                position += 1;
            } else if position > 0 && position < rows.len() {
                cursor.prev().unwrap();
                position -= 1;
            }
            assert_eq!(here(&mut cursor).as_ref(), rows.get(position));
        }
        cursor.seek_before(target.borrow()).unwrap();
        assert_eq!(here(&mut cursor).as_ref(), at.checked_sub(1).map(|before| &rows[before]), "before {target:?}");

        let expected = rows.iter().find(|row| *row.0.user_key == *key && row.0.trailer.seqno() <= seqno);
        let found = table.get(&key, xxh3_64(&key), seqno).unwrap();
        let found = found.map(|found| (found.trailer, found.value.into_vec()));
        assert_eq!(found, expected.map(|row| (row.0.trailer, row.1.clone())), "get {} at {seqno}", key.escape_ascii());
    }
}

fn check(tables: &mut Tables, rows: &[Row], rng: &mut Rng) {
    let options = random_options(rng);
    let (table, summary) = tables.write(rows, options);
    assert_eq!(summary.entries, rows.len() as u64);
    assert_eq!(summary.bytes, tables.files.file_len(&tables.path(table)).unwrap());
    assert_eq!(summary.checksum, xxh3_64(&std::fs::read(tables.path(table)).unwrap()));
    assert_eq!(*summary.min_key, *rows[0].0.user_key);
    assert_eq!(*summary.max_key, *rows[rows.len() - 1].0.user_key);
    let base = *rng.pick(&[0, 0, 500, 1000]);
    let rows = rebased(rows, base);
    for way in ways_of_reading() {
        let reader = tables.open(table, base, way).unwrap();
        for sequential in [false, true] {
            scan_both_ways(&reader, &rows, sequential);
        }
        seek_and_get(&reader, &rows, rng);
        assert_eq!(verify(&reader).unwrap().entries, rows.len() as u64);
    }
}

/// T1: whatever the rows, options and way of reading, a table holds exactly its rows, in order, found by any seek.
#[test]
fn table_holds_exactly_its_rows() {
    let mut tables = Tables::new();
    for_each_seed(0..60, |rng| {
        let count = *rng.pick(&[1, 2, 3, 10, 100, 500]);
        let rows = random_rows(rng, count);
        check(&mut tables, &rows, rng);
    });
}

/// T1: one key whose versions fill many blocks: each reader finds its own.
#[test]
fn versions_of_one_key_span_blocks() {
    let mut tables = Tables::new();
    for_each_seed(100..106, |rng| {
        let kind = internal_key::Kind::Put;
        let mut rows: Vec<Row> = (1..1000).map(|seqno| common::row(b"k", seqno, kind, &seqno.to_le_bytes())).collect();
        rows.extend([common::row(b"", 5, kind, b"empty"), common::row(b"z", 7, kind, b"last")]);
        rows.sort_by(|left, right| left.0.cmp(&right.0));
        check(&mut tables, &rows, rng);
    });
}

/// T1: values around and far above the limit lie out of line and come back whole, chunk borders included.
#[test]
fn large_values_come_back_whole() {
    let mut tables = Tables::new();
    for_each_seed(200..203, |rng| {
        let sizes = [0, 1, 65_535, 65_536, 65_537, 131_072, 300_001, 1 << 20];
        let rows: Vec<Row> = (0_u8..)
            .zip(sizes)
            .map(|(n, bytes)| {
                let value = rng.bytes(bytes);
                common::row(&[b'k', n], 10, internal_key::Kind::Put, &value)
            })
            .collect();
        check(&mut tables, &rows, rng);
    });
}

/// T1: the longest keys there are.
#[test]
fn longest_keys_are_held() {
    let mut tables = Tables::new();
    for_each_seed(300..303, |rng| {
        let rows: Vec<Row> = (0_u8..5)
            .map(|n| {
                let mut key = vec![b'k'; internal_key::MAX_KEY_BYTES];
                key[if n.is_multiple_of(2) { 3 } else { 65_534 }] = b'k' + n;
                common::row(&key, 1, internal_key::Kind::Put, b"v")
            })
            .collect();
        let mut rows = rows;
        rows.sort_by(|left, right| left.0.cmp(&right.0));
        check(&mut tables, &rows, rng);
    });
}
