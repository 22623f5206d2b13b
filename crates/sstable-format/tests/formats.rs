//! Bytes on disk stay what they are: sample tables of every released format open for ever, and the table drawn in
//! `docs/format.md` is byte for byte what the writer writes. Format 1 was never released: it is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Row, Tables, row, ways_of_reading};
use internal_key::{Cursor, Kind, SeqNo};
use sstable_format::{Compression, TableError, TableOptions, TableReader, identify, read_header, verify};
use test_support::Rng;
use xxhash_rust::xxh3::xxh3_64;

/// The rows of the sample: every kind, many versions, a prefix, equal heads, an empty key, a large value.
fn sample_rows() -> Vec<Row> {
    let mut rng = Rng::new(20_261_120);
    let mut rows = vec![
        row(b"", 1, Kind::Put, b"the empty key"),
        row(b"a", 2, Kind::Delete, b""),
        row(b"a\0", 3, Kind::Put, b"a zero byte more"),
        row(b"large", 4, Kind::Put, &rng.bytes(70_000)),
        row(b"merge", 6, Kind::Merge, b"+1"),
        row(b"merge", 5, Kind::Put, b"41"),
        row(b"pointer", 7, Kind::ValuePointer, b"somewhere"),
        row(b"single", 8, Kind::SingleDelete, b""),
    ];
    rows.extend((0..40).map(|n| row(b"versions", 100 - n, Kind::Put, format!("version {n}").as_bytes())));
    rows.extend((0..200).map(|n| {
        let value = vec![b'v'; n % 37];
        row(format!("user/{:05}/name", n * 3).as_bytes(), 1000 + n as u64, Kind::Put, &value)
    }));
    rows.sort_by(|left, right| left.0.cmp(&right.0));
    rows
}

fn sample_options(compression: Compression) -> TableOptions {
    TableOptions {
        block_bytes: 1024,
        index_partition_bytes: 1024,
        compression,
        merge_operator: Some("sum".to_owned()),
        ..TableOptions::default()
    }
}

fn samples() -> Vec<(PathBuf, Compression)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/v2");
    vec![(dir.join("plain.sst"), Compression::None), (dir.join("lz4.sst"), Compression::Lz4)]
}

/// T5: the samples of format 2 open, check, and hold what was written into them.
#[test]
fn samples_of_format_2_open_for_ever() {
    let tables = Tables::new();
    for (path, compression) in samples() {
        if std::env::var("LSM_GOLDEN_UPDATE").is_ok_and(|value| !value.is_empty()) && !path.exists() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let pending = tables.pending(17, &sample_rows(), sample_options(compression));
            fs::copy(pending.temporary.path(), &path).unwrap();
        }
        let (expected, identity) = identify(&*tables.files, &path).unwrap();
        assert_eq!(identity, common::identity(17));
        for way in ways_of_reading() {
            let reader = Arc::new(TableReader::open(&*tables.files, &path, expected, way).unwrap());
            assert_eq!(verify(&reader).unwrap().entries, 248);
            let mut cursor = reader.cursor();
            cursor.seek_to_first().unwrap();
            for (key, value) in sample_rows() {
                assert_eq!(cursor.key(), key.borrow());
                assert_eq!(cursor.value().unwrap(), value);
                let found = reader.get(&key.user_key, xxh3_64(&key.user_key), key.trailer.seqno()).unwrap().unwrap();
                assert_eq!((found.trailer, found.value.into_vec()), (key.trailer, value));
                cursor.next().unwrap();
            }
            assert!(!cursor.valid());
            assert!(reader.get(b"nobody", xxh3_64(b"nobody"), SeqNo::MAX).unwrap().is_none());
        }
    }
}

/// T5: a table of format 1, which no release wrote, is refused with an error that names both versions.
#[test]
fn tables_of_format_1_are_refused() {
    let tables = Tables::new();
    for name in ["plain.sst", "lz4.sst"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/v1").join(name);
        let Err(TableError::Unsupported(refused)) = identify(&*tables.files, &path) else {
            panic!("{name} is refused")
        };
        assert_eq!((refused.what, &*refused.expected, &*refused.found), ("format version", "2", "1"));
        assert!(matches!(read_header(&*tables.files, &path), Err(TableError::Unsupported(_))), "{name}");
    }
}

/// T5: what is written today is what the samples hold: a change to bytes on disk is a new format. (Compressed bytes may
/// change with the compressor, so only the plain sample is compared.)
#[test]
fn writer_still_writes_format_2() {
    let tables = Tables::new();
    let (path, compression) = samples().remove(0);
    let pending = tables.pending(17, &sample_rows(), sample_options(compression));
    assert!(fs::read(pending.temporary.path()).unwrap() == fs::read(path).unwrap(), "the plain sample differs");
}

/// The bytes in `docs/format.md` between the markers of the worked example.
fn documented_bytes() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    let text = fs::read_to_string(path).unwrap().replace("\r\n", "\n");
    let (_, rest) = text.split_once("<!-- table example -->").expect("the example's start");
    let (example, _) = rest.split_once("<!-- end of table example -->").expect("the example's end");
    let mut bytes = Vec::new();
    for line in example.lines() {
        let Some((offset, rest)) = line.split_once("  ") else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        assert_eq!(offset, bytes.len(), "offsets of the example: {line}");
        let hex = rest.split("  ").next().unwrap_or("");
        bytes.extend(hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("two digits")));
    }
    bytes
}

/// T5: the worked example is a real table, byte for byte.
#[test]
fn worked_example_is_what_the_writer_writes() {
    let tables = Tables::new();
    let rows = [
        row(b"apple", 3, Kind::Put, b"red"),
        row(b"apple", 2, Kind::Delete, b""),
        row(b"apricot", 1, Kind::Put, b"orange"),
    ];
    let pending = tables.pending(1, &rows, TableOptions::default());
    let written = fs::read(pending.temporary.path()).unwrap();
    let documented = documented_bytes();
    if documented != written {
        let dump: String = written
            .chunks(16)
            .enumerate()
            .map(|(line, bytes)| {
                let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{:04x}  {}\n", line * 16, hex.join(" "))
            })
            .collect();
        panic!("docs/format.md differs; the table is now\n{dump}");
    }
}
