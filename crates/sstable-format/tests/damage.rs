//! Damaged tables: whatever the bytes, the answer is right or a typed error that names file and offset (T2, T5).

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{Row, Tables, random_options, random_rows, row, ways_of_reading};
use internal_key::{Cursor, KeyspaceId, Kind, SeqNo, TableId};
use proptest::prelude::*;
use sstable_format::{
    Access, Compression, Expected, ReadOptions, TableError, TableOptions, TableReader, identify, read_header, verify,
};
use test_support::{Rng, for_each_seed};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// An error must say which file; damage also where, what was expected and what was found.
fn assert_named(error: &TableError, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(&*path.to_string_lossy()), "{text}");
    if let TableError::Corrupt(corruption) = error {
        assert_eq!(corruption.path, path);
        assert!(!corruption.expected.is_empty() && !corruption.found.is_empty() && text.contains("offset"), "{text}");
    }
}

/// Reads everything and returns how many answers were errors; a wrong answer fails.
fn read_everything(table: &Arc<TableReader>, rows: &[Row], path: &Path, rng: &mut Rng) -> usize {
    let mut errors = 0;
    let mut note = |error: &TableError| {
        assert_named(error, path);
        errors += 1;
    };
    for sequential in [false, true] {
        let mut cursor = if sequential { table.cursor_for_compaction() } else { table.cursor() };
        let mut step = cursor.seek_to_first();
        for row in rows {
            if let Err(error) = &step {
                note(error);
                assert!(!cursor.valid(), "a cursor that failed stands on no entry");
                break;
            }
            assert!(cursor.valid(), "an entry is missing without an error");
            assert_eq!(cursor.key(), row.0.borrow());
            match cursor.value() {
                Ok(value) => assert_eq!(*value, *row.1),
                Err(error) => note(&error),
            }
            step = cursor.next();
        }
        let mut step = cursor.seek_to_last();
        for row in rows.iter().rev() {
            if let Err(error) = &step {
                note(error);
                break;
            }
            assert_eq!(cursor.key(), row.0.borrow());
            step = cursor.prev();
        }
    }
    let mut cursor = table.cursor();
    for _ in 0..50 {
        let target = &rng.pick(rows).0;
        let seqno = target.trailer.seqno();
        let key = &*target.user_key;
        let expected = rows.iter().find(|row| *row.0.user_key == *key && row.0.trailer.seqno() <= seqno);
        match table.get(key, xxh3_64(key), seqno) {
            Ok(found) => {
                let found = found.map(|found| (found.trailer, found.value.into_vec()));
                assert_eq!(found, expected.map(|row| (row.0.trailer, row.1.clone())));
            }
            Err(error) => note(&error),
        }
        match cursor.seek(target.borrow()) {
            Ok(()) => assert_eq!(cursor.key(), target.borrow()),
            Err(error) => note(&error),
        }
    }
    if let Err(error) = verify(table) {
        note(&error);
    }
    errors
}

/// Changes `bytes` somewhere and says how.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) -> String {
    let at = rng.index(bytes.len());
    match rng.below(6) {
        0 | 1 => {
            bytes[at] ^= 1 << rng.below(8);
            format!("a bit at {at} flipped")
        }
        2 => {
            let end = (at + 1 + rng.index(5000)).min(bytes.len());
            bytes[at..end].fill(0);
            format!("{at}..{end} zeroed")
        }
        3 => {
            let end = (at + 1 + rng.index(16)).min(bytes.len());
            let noise = rng.bytes(end - at);
            bytes[at..end].copy_from_slice(&noise);
            format!("{at}..{end} random")
        }
        4 => {
            // As when a write went to the wrong place.
            let length = (rng.index(300) / 8 * 8).min(bytes.len() - at);
            let from = rng.index(bytes.len() - length + 1) / 8 * 8;
            let piece = bytes[from..from + length].to_vec();
            bytes[at..at + length].copy_from_slice(&piece);
            format!("{length} bytes of {from} at {at}")
        }
        _ => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
    }
}

/// T2, T5: a change anywhere is noticed before a wrong answer is given, by each way of reading.
#[test]
fn damage_is_an_error_and_never_a_wrong_answer() {
    let mut tables = Tables::new();
    let mut noticed = 0;
    for_each_seed(0..120, |rng| {
        let count = *rng.pick(&[1, 5, 60, 200]);
        let rows = random_rows(rng, count);
        let (table, summary) = tables.write(&rows, random_options(rng));
        let sound = fs::read(tables.path(table)).unwrap();
        for _ in 0..6 {
            let mut bytes = sound.clone();
            let change = mutate(&mut bytes, rng);
            if bytes == sound {
                continue;
            }
            let way = rng.pick(&ways_of_reading()).clone();
            let path = tables.dir.path().join("damaged.sst");
            let _ = fs::remove_file(&path);
            fs::write(&path, &bytes).unwrap();
            // Either the length is checked against the manifest, or (a repair) taken as found.
            let length = if rng.one_in(2) { summary.bytes } else { bytes.len() as u64 };
            match TableReader::open(&*tables.files, &path, Tables::expected(table, length, 0), way) {
                Err(error) => {
                    assert_named(&error, &path);
                    noticed += 1;
                }
                Ok(reader) => {
                    if rng.one_in(2)
                        && let Err(error) = reader.check_ahead(&|| false)
                    {
                        assert_named(&error, &path);
                    }
                    let errors = read_everything(&Arc::new(reader), &rows, &path, rng);
                    noticed += usize::from(errors > 0);
                    // What no checksum covers is padding between frames and behind large values, which nobody reads.
                    let covered = frames(&sound).into_iter().flat_map(|frame| covered(&sound, frame));
                    let covered = covered.chain([(0, 64), (sound.len() - 184, sound.len())]);
                    let unchanged = bytes.len() == sound.len()
                        && covered.into_iter().all(|(start, end)| bytes[start..end] == sound[start..end]);
                    assert!(errors > 0 || unchanged, "{change}: unnoticed");
                }
            }
            if let Err(error) = identify(&*tables.files, &path) {
                assert_named(&error, &path);
            }
        }
    });
    assert!(noticed > 0, "no run met any damage");
}

/// What checksums cover of a frame: all of it, without the padding of a large value.
fn covered(bytes: &[u8], (start, end): (usize, usize)) -> [(usize, usize); 2] {
    let stored = u32::from_le_bytes(bytes[start..start + 4].try_into().unwrap()) as usize;
    let is_large = bytes[start + 8] == 2;
    let padding = if is_large { stored.next_multiple_of(8) - stored } else { 0 };
    let value_end = start + 16 + stored;
    [(start, value_end), (value_end + padding, end)]
}

/// Where the frames of `bytes` begin and end, by walking them as a salvager would.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 64;
    while at + 24 <= bytes.len() - 184 {
        let stored = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let kind = bytes[at + 8];
        if stored == 0 {
            at += 8; // padding
            continue;
        }
        let sums = if kind == 2 { stored.div_ceil(65_536) * 8 } else { 0 };
        let end = at + 16 + stored.next_multiple_of(8) + sums + 8;
        frames.push((at, end));
        at = end;
    }
    frames
}

/// T2: bytes that were made to match their checksums are still never trusted: reading them may give anything but a panic, a
/// read out of bounds or an allocation beyond the file's own order.
#[test]
fn forged_bytes_with_right_checksums_do_no_harm() {
    let mut tables = Tables::new();
    for_each_seed(1000..1150, |rng| {
        let count = *rng.pick(&[1, 5, 60, 200]);
        let rows = random_rows(rng, count);
        let (table, _) = tables.write(&rows, random_options(rng));
        let sound = fs::read(tables.path(table)).unwrap();
        let salt = u64::from_le_bytes(sound[56..64].try_into().unwrap());
        for _ in 0..4 {
            let mut bytes = sound.clone();
            let &(start, end) = rng.pick(&frames(&sound));
            for _ in 0..=rng.index(4) {
                // Headers are where forging hurts.
                let span = if rng.one_in(2) { (end - start - 8).min(64) } else { end - start - 8 };
                let at = start + rng.index(span);
                bytes[at] = *rng.pick(&[0, 1, 0x7F, 0x80, 0xFF, bytes[at].wrapping_add(1), bytes[at] ^ 0x10]);
            }
            if bytes[start + 8] != 2 {
                let sum = xxh3_64_with_seed(&bytes[start..end - 8], salt ^ start as u64);
                bytes[end - 8..end].copy_from_slice(&sum.to_le_bytes());
            }
            let path = tables.dir.path().join("forged.sst");
            let _ = fs::remove_file(&path);
            fs::write(&path, &bytes).unwrap();
            for way in ways_of_reading() {
                let opened =
                    TableReader::open(&*tables.files, &path, Tables::expected(table, bytes.len() as u64, 0), way);
                let Ok(reader) = opened else { continue };
                let reader = Arc::new(reader);
                for mut cursor in [reader.cursor(), reader.cursor_for_compaction()] {
                    let mut steps = 0;
                    let mut step = cursor.seek_to_first();
                    while step.is_ok() && cursor.valid() && steps < 5000 {
                        let _ = (cursor.user_key().len(), cursor.trailer(), cursor.value().map(<[u8]>::len));
                        step = cursor.next();
                        steps += 1;
                    }
                    let mut step = cursor.seek_to_last();
                    while step.is_ok() && cursor.valid() && steps < 10_000 {
                        step = cursor.prev();
                        steps += 1;
                    }
                    for _ in 0..20 {
                        let target = &rng.pick(&rows).0;
                        let _ = cursor.seek(target.borrow());
                        let _ = cursor.seek_before(target.borrow());
                        let _ = reader.get(&target.user_key, xxh3_64(&target.user_key), SeqNo::MAX);
                    }
                }
                let _ = verify(&reader);
                let _ = sstable_format::inspect(&reader, sstable_format::Detail::Entries, &mut |_| {
                    std::ops::ControlFlow::Continue(())
                });
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// T5: a file of any bytes is refused with an error, whatever it is opened as.
    #[test]
    fn arbitrary_bytes_are_no_table(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in any::<bool>()) {
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(b"lsmtable");
            let end = bytes.len() - 8;
            bytes[end..].copy_from_slice(b"tableend");
        }
        let tables = Tables::new();
        let path = tables.path(1);
        fs::write(&path, &bytes).unwrap();
        let length = bytes.len() as u64;
        for way in ways_of_reading() {
            let opened = TableReader::open(&*tables.files, &path, Tables::expected(1, length, 0), way);
            assert_named(&opened.expect_err("no table"), &path);
        }
        let _ = read_header(&*tables.files, &path).map_err(|error| assert_named(&error, &path));
    }
}

fn small_table(tables: &mut Tables) -> (u64, u64) {
    let rows = [row(b"a", 1, Kind::Put, b"one"), row(b"b", 2, Kind::Put, b"two")];
    let (table, summary) = tables.write(&rows, TableOptions::default());
    (table, summary.bytes)
}

/// T4: a file of another length than the manifest says is refused before it is mapped.
#[test]
fn length_is_checked_before_mapping() {
    let mut tables = Tables::new();
    let (table, bytes) = small_table(&mut tables);
    let expected = Tables::expected(table, bytes + 1, 0);
    let error = TableReader::open(&*tables.files, &tables.path(table), expected, ReadOptions::default()).unwrap_err();
    let TableError::Corrupt(corruption) = &error else { panic!("{error}") };
    assert_eq!((corruption.what, corruption.found.clone()), ("file length", bytes.to_string()));
}

/// M2: a sound table that is not the one asked for is told apart from damage.
#[test]
fn another_table_is_refused_as_such() {
    let mut tables = Tables::new();
    let (table, bytes) = small_table(&mut tables);
    let right = Tables::expected(table, bytes, 0);
    for (wrong, what) in [
        (Expected { database_id: 1, ..right }, "database"),
        (Expected { keyspace: KeyspaceId(4), ..right }, "keyspace"),
        (Expected { table: TableId(99), ..right }, "table"),
    ] {
        let error = TableReader::open(&*tables.files, &tables.path(table), wrong, ReadOptions::default()).unwrap_err();
        let TableError::WrongTable(wrong) = &error else { panic!("{error}") };
        assert_eq!(wrong.what, what);
        assert_named(&error, &tables.path(table));
    }
}

/// P11: a base that would carry a seqno past the last one is refused at opening.
#[test]
fn base_past_the_last_seqno_is_refused() {
    let mut tables = Tables::new();
    let (table, bytes) = small_table(&mut tables);
    for (base, fits) in [(SeqNo::MAX.get() - 2, true), (SeqNo::MAX.get() - 1, false), (u64::MAX, false)] {
        let expected = Tables::expected(table, bytes, base);
        let opened = TableReader::open(&*tables.files, &tables.path(table), expected, ReadOptions::default());
        assert_eq!(opened.is_ok(), fits, "{base}");
    }
}

/// Rewrites eight bytes of the footer and its checksum.
fn with_footer_field(bytes: &[u8], at: usize, value: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let footer = bytes.len() - 184;
    bytes[footer + at..footer + at + 8].copy_from_slice(&value.to_le_bytes());
    let sum = xxh3_64(&bytes[footer..footer + 168]);
    bytes[footer + 168..footer + 176].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// T5: unknown incompatible features, reserved sections and format versions are refused; compatible bits are not.
#[test]
fn what_a_newer_engine_wrote_is_refused_unless_marked_compatible() {
    let mut tables = Tables::new();
    let (table, length) = small_table(&mut tables);
    let sound = fs::read(tables.path(table)).unwrap();
    let open = |bytes: &[u8]| {
        let path = tables.path(99);
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        TableReader::open(&*tables.files, &path, Tables::expected(table, length, 0), ReadOptions::default())
    };
    for (at, class) in [(0, "compatible"), (8, "read-compatible")] {
        assert!(open(&with_footer_field(&sound, at, 1 << 17)).is_ok(), "an unknown {class} bit changes no read");
    }
    let version = (3_u64 << 32) | 184;
    for (at, value, what) in [
        (16, 1 << 17, "incompatible feature bits"),
        (72, 64, "dictionary"),
        (88, 64, "range deletes"),
        (160, version, "format version"),
    ] {
        let error = open(&with_footer_field(&sound, at, value)).expect_err(what);
        let TableError::Unsupported(unsupported) = &error else { panic!("{error}") };
        assert_eq!(unsupported.what, what);
        assert_named(&error, &tables.path(99));
    }
    let mut newer = sound.clone();
    newer[8] = 3;
    assert!(matches!(open(&newer), Err(TableError::Corrupt(_))), "a version that its checksum denies is damage");
    let sum = xxh3_64(&newer[..56]);
    newer[56..64].copy_from_slice(&sum.to_le_bytes());
    assert!(matches!(open(&newer), Err(TableError::Unsupported(_))), "the header says the version too");
    let mut damaged = sound.clone();
    let footer = damaged.len() - 184;
    damaged[footer + 164] = 3;
    assert!(matches!(open(&damaged), Err(TableError::Corrupt(_))), "the same in the footer");
    damaged[footer + 160] ^= 1;
    assert!(matches!(open(&damaged), Err(TableError::Corrupt(_))), "and where its length is damaged too");
}

/// M2: an unfinished table says whose it is from its first write on.
#[test]
fn unfinished_table_says_whose_it_is() {
    let tables = Tables::new();
    let dir = tables.dir.path();
    let writer =
        sstable_format::TableWriter::new(&*tables.files, dir, common::identity(7), TableOptions::default()).unwrap();
    let header = read_header(&*tables.files, writer.path()).unwrap();
    assert_eq!((header.database_id, header.table), (common::DATABASE, TableId(7)));
    let path = writer.path().to_owned();
    writer.abandon();
    assert!(!tables.files.exists(&path).unwrap(), "an abandoned table is removed");
}

/// T1: a writer refuses what a table cannot hold, and goes on.
#[test]
fn writer_refuses_what_does_not_fit_and_goes_on() {
    use internal_key::{InternalKey, Trailer};
    let tables = Tables::new();
    let options = TableOptions { compression: Compression::Lz4, ..TableOptions::default() };
    let mut writer =
        sstable_format::TableWriter::new(&*tables.files, tables.dir.path(), common::identity(7), options).unwrap();
    let trailer = |kind| Trailer::new(SeqNo::new(1).unwrap(), kind);
    let long = vec![b'a'; internal_key::MAX_KEY_BYTES + 1];
    let error = writer.add(InternalKey::new(&long, trailer(Kind::Put)), b"").unwrap_err();
    assert!(matches!(error, sstable_format::WriteError::KeyTooLong { bytes: 65_536 }));
    let error = writer.add(InternalKey::new(b"a", trailer(Kind::RangeDelete)), b"").unwrap_err();
    assert!(matches!(error, sstable_format::WriteError::UnsupportedKind { kind: Kind::RangeDelete }));
    writer.add(InternalKey::new(b"a", trailer(Kind::Put)), b"v").unwrap();
    assert_eq!(writer.entries(), 1);
    assert_eq!(writer.last_user_key(), Some(&b"a"[..]));
    writer.finish().unwrap().persist(&tables.path(7)).unwrap();
    let reader = tables.open(7, 0, ReadOptions { access: Access::Pread, block_cache: None }).unwrap();
    assert_eq!(verify(&reader).unwrap().entries, 1);
}

/// T1: entries out of order are our own mistake.
#[test]
#[should_panic(expected = "T1: entries are added in internal order")]
fn entries_out_of_order_are_an_assertion() {
    let mut tables = Tables::new();
    tables.write(&[row(b"a", 1, Kind::Put, b""), row(b"a", 2, Kind::Put, b"")], TableOptions::default());
}

/// T5: there is no table of nothing.
#[test]
fn empty_table_is_not_written() {
    let tables = Tables::new();
    let writer = sstable_format::TableWriter::new(
        &*tables.files,
        tables.dir.path(),
        common::identity(7),
        TableOptions::default(),
    );
    assert!(matches!(writer.unwrap().finish(), Err(sstable_format::WriteError::Empty)));
}
