//! Harnesses of the fuzz targets `block`, `index`, `filter`, `footer` and `table`: what must hold whatever the bytes.
//!
//! Only in tests and under `--cfg fuzzing`. Each takes one input and panics where a property fails (T2). Random bytes
//! rarely pass a checksum, so an input's first byte may ask that checksums are mended: then what lies behind them is
//! reached.

use std::path::Path;
use std::sync::Arc;

use file_system::{Environment, FileSystem};
use internal_key::{Cursor, InternalKey, MAX_KEY_BYTES, OwnedInternalKey, SeqNo, Trailer};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::block::{BlockBuilder, Layout};
use crate::error::{Damage, TableError};
use crate::filter::{self, LINE_BYTES, PROBES_MAX, line_may_contain, line_of};
use crate::footer::{FOOTER_BYTES, FOOTER_MAGIC, FORMAT_VERSION, Footer, HEADER_BYTES, HEADER_MAGIC, TableHeader};
use crate::frame::{
    BlockHandle, CHECKSUM_BYTES, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameHeader, FrameKind, check_frame,
    decompress, seed, u32_at, u64_at,
};
use crate::index::{IndexBuilder, decode_partition_value, decode_root_value, separator};
use crate::large::{CHUNK_BYTES, LargeReference, write_large};
use crate::properties::Properties;
use crate::{Access, BlockCache, Expected, ReadOptions, TableReader, verify};

/// Rows of one input that are looked at: enough for every layout, few enough for thousands of inputs a second.
const ROWS_MAX: usize = 256;

/// An entry: user key, raw trailer, value.
type Entry = (Vec<u8>, u64, Vec<u8>);

/// The bytes are a block's payload: every row is read, sought and found without a panic; rows that ascend, encoded again,
/// read back the same and are found (T1).
pub fn block(input: &[u8]) {
    let Ok(layout) = Layout::parse(input) else { return };
    assert!(layout.end() <= input.len(), "T2: every column lies within the block");
    let Ok(rows) = entries(input, &layout) else { return };
    for (key, trailer, _) in rows.iter().take(16) {
        let _ = layout.seek(input, layout.strip(input, key), *trailer, 0);
        let _ = layout.find(input, key, *trailer, 0);
        let _ = layout.find(input, &key[..key.len() / 2], *trailer, 0);
    }
    let ascends = |pair: &[Entry]| pair[0].0 < pair[1].0 || (pair[0].0 == pair[1].0 && pair[0].1 > pair[1].1);
    if rows.is_empty() || !rows.windows(2).all(ascends) || rows.iter().any(|row| row.0.len() > MAX_KEY_BYTES) {
        return;
    }
    let mut builder = BlockBuilder::default();
    for (key, trailer, value) in &rows {
        builder.add(builder.shape_with(key, *trailer, value.len()), key, *trailer, value);
    }
    let bytes = builder.bytes();
    let mut encoded = Vec::new();
    builder.encode(&mut encoded, false, false);
    assert_eq!(bytes, encoded.len(), "T1: a block is as long as was computed");
    let layout = Layout::parse(&encoded).expect("T1: what is encoded parses");
    assert_eq!(layout.end(), encoded.len(), "T1: nothing follows the last column");
    assert_eq!(entries(&encoded, &layout).expect("T1: what is encoded reads"), rows, "T1: rows read back");
    for (row, (key, trailer, _)) in rows.iter().enumerate() {
        let sought = layout.seek(&encoded, layout.strip(&encoded, key), *trailer, 0).expect("T1: a sound block");
        assert_eq!(sought, row, "T1: each row is sought where it stands");
        // A point read asks for a sequence number, not for a kind: of two entries with one, the larger kind answers.
        let target = trailer | u64::from(Trailer::SEEK_KIND);
        let found = layout.find(&encoded, key, target, 0).expect("T1: a sound block");
        let newest = rows.iter().position(|other| other.0 == *key && other.1 <= target);
        assert_eq!(found, newest, "T1: the newest visible row of each key is found");
    }
}

/// The rows of a block, at most [`ROWS_MAX`] and a mebibyte of keys, if each can be read.
fn entries(block: &[u8], layout: &Layout) -> Result<Vec<Entry>, Damage> {
    let (mut rows, mut key_bytes) = (Vec::new(), 0);
    for row in 0..layout.rows.min(ROWS_MAX) {
        let mut key = Vec::new();
        layout.append_key(block, row, &mut key)?;
        let trailer = layout.trailer(block, row, 0)?.to_raw();
        key_bytes += key.len();
        rows.push((key, trailer, layout.value(block, row)?.to_vec()));
        if key_bytes > 1 << 20 {
            break;
        }
    }
    Ok(rows)
}

/// First byte even: the rest is an index block, whose handles are decoded. Odd: the rest is cut into keys, an index is
/// built of them, and a search for each ends in its block (T3).
pub fn index(input: &[u8]) {
    let Some((&mode, rest)) = input.split_first() else { return };
    if mode % 2 == 0 {
        let Ok(layout) = Layout::parse(rest) else { return };
        for row in 0..layout.rows.min(ROWS_MAX) {
            let Ok(value) = layout.value(rest, row) else { continue };
            if let Ok(handle) = decode_partition_value(value) {
                assert_eq!(handle.to_raw().to_le_bytes()[..], *value, "T3: a handle keeps its bits");
            }
            if let Ok((handle, ordinal)) = decode_root_value(value) {
                let again = [handle.to_raw().to_le_bytes(), ordinal.to_le_bytes()].concat();
                assert_eq!(again, value, "T3: a root's row keeps its bits");
            }
        }
        return;
    }
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut rest = rest;
    while let Some((&len, after)) = rest.split_first() {
        let (key, after) = after.split_at(after.len().min(usize::from(len % 32)));
        keys.push(key);
        rest = after;
    }
    keys.sort_unstable();
    keys.dedup();
    keys.truncate(ROWS_MAX);
    // One block a key; the last needs no separator shorter than itself.
    let mut builder = IndexBuilder::new(64 << (mode / 2 % 4));
    for (ordinal, key) in keys.iter().enumerate() {
        let separator = keys.get(ordinal + 1).map_or_else(
            || key.to_vec(),
            |next| {
                let separator = separator(key, next);
                assert!(**key <= *separator && *separator < **next, "T3: a separator lies between its blocks");
                separator
            },
        );
        builder.add(&separator, 0, BlockHandle::new(ordinal as u64 * 8, 24, false));
    }
    if keys.is_empty() {
        return;
    }
    let mut partitions = Vec::new();
    let finished = builder.finish(|block| {
        partitions.push(block);
        Ok::<_, ()>(BlockHandle::new(partitions.len() as u64 * 8, 24, false))
    });
    let (root, levels, count) = finished.expect("nothing here fails");
    assert!(levels == 1 && partitions.is_empty() || count as usize == partitions.len(), "T3: partitions are counted");
    let sought = |block: &[u8], key: &[u8]| {
        let layout = Layout::parse(block).expect("T3: an index block parses");
        let row = layout.seek(block, layout.strip(block, key), Trailer::seek(SeqNo::MAX).to_raw(), 0);
        let row = row.expect("T3: an index block is sound");
        layout.value(block, row).expect("T3: the last separator is at or after every key").to_vec()
    };
    for (ordinal, key) in keys.iter().enumerate() {
        let mut value = sought(&root, key);
        if levels == 2 {
            let (handle, _) = decode_root_value(&value).expect("T3: a root's row");
            value = sought(&partitions[handle.offset() as usize / 8 - 1], key);
        }
        let handle = decode_partition_value(&value).expect("T3: a partition's row");
        assert_eq!(handle.offset() / 8, ordinal as u64, "T3: a search ends in the key's block");
    }
}

/// First byte: bits per key. The rest, by eight, are hashes: the filter built of them says yes to each; and as lines of
/// a filter they answer any hash (T3).
pub fn filter(input: &[u8]) {
    let Some((&bits_per_key, rest)) = input.split_first() else { return };
    let hashes: Vec<u64> = rest.as_chunks().0.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
    let bits_per_key = bits_per_key.max(1);
    let built = filter::build(&hashes, bits_per_key);
    assert!(built.len() <= hashes.len() * 32 + LINE_BYTES, "T3: a filter takes the bits it was given");
    let (lines, rest) = built.as_chunks::<LINE_BYTES>();
    assert!(rest.is_empty() && !lines.is_empty(), "T3: a filter is made of lines");
    let probes = filter::probes_for(bits_per_key);
    for &hash in &hashes {
        let line = &lines[line_of(hash, lines.len())];
        assert!(line_may_contain(line, hash, probes), "T3: no is certain");
    }
    let lines = input.as_chunks::<LINE_BYTES>().0;
    for &hash in hashes.iter().take(ROWS_MAX) {
        if let Some(line) = lines.get(line_of(hash, lines.len())) {
            for probes in 1..=PROBES_MAX {
                // More probes can only say no more often.
                let (more, fewer) = (line_may_contain(line, hash, probes), line_may_contain(line, hash, probes - 1));
                assert!(fewer || !more, "T3: a probe never adds a key");
            }
        }
    }
}

/// First byte, modulo 4: footer, header, properties, frame; its bit 2: mend checksums. What decodes, encoded again,
/// is the same (T5), and a frame decompresses to no more than it can hold (T2).
pub fn footer(input: &[u8]) {
    let Some((&mode, rest)) = input.split_first() else { return };
    let (what, mend, path) = (mode % 4, mode & 4 != 0, Path::new("fuzzed.sst"));
    match what {
        0 => {
            let mut bytes = [0; FOOTER_BYTES];
            let len = rest.len().min(FOOTER_BYTES);
            bytes[..len].copy_from_slice(&rest[..len]);
            if mend {
                mend_footer(&mut bytes);
            }
            let file_bytes = u64_at(&bytes, 152).unwrap_or(0).max((HEADER_BYTES + FOOTER_BYTES) as u64);
            if let Ok(footer) = Footer::decode(&bytes, file_bytes, path) {
                assert_eq!(footer.encode(), bytes, "T5: a footer keeps its bytes");
                assert!(footer.data_blocks <= file_bytes && footer.partitions <= file_bytes, "T5: counts are bounded");
            }
        }
        1 => {
            let mut bytes = [0; HEADER_BYTES];
            let len = rest.len().min(HEADER_BYTES);
            bytes[..len].copy_from_slice(&rest[..len]);
            if mend {
                mend_header(&mut bytes);
            }
            if let Ok((header, _)) = TableHeader::decode(&bytes, path) {
                let (again, salt) = TableHeader::decode(&header.encode(), path).expect("T5: a header reads back");
                assert_eq!(again, header, "T5: a header keeps its fields");
                assert_eq!(u64_at(&header.encode(), 56), Some(salt), "T5: the salt ends the header");
            }
        }
        2 => {
            if let Ok(properties) = Properties::decode(rest, path, 64) {
                let again = Properties::decode(&properties.encode(), path, 64).expect("T5: properties read back");
                assert_eq!(again.encode(), properties.encode(), "T5: properties keep their fields");
            }
        }
        _ => {
            let mut bytes = rest.to_vec();
            if mend {
                mend_frame(&mut bytes, 7, 64);
            }
            let Ok(header) = check_frame(&bytes, FrameKind::Data, 7, 64) else { return };
            let mut payload = Vec::new();
            if decompress(&bytes, header, &mut payload).is_ok() {
                assert_eq!(payload.len(), header.raw as usize, "T2: a payload is as long as its header says");
            }
            assert!(payload.capacity() <= 2 * (bytes.len() * 255 + 64), "T2: memory is bounded by the input");
        }
    }
}

/// First byte: bit 0, mend all checksums; bit 1, read through a map; bit 2, through a block cache. The rest is a table's
/// file: opened, verified, scanned both ways, and asked for keys (T2). If it verifies, the scans are in order and agree,
/// and each entry is found (T1, T3).
pub fn table(input: &[u8]) {
    let Some((&mode, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if mode & 1 != 0 {
        mend_table(&mut bytes);
    }
    let environment = Environment::simulated(1);
    let (files, path) = (&*environment.files, Path::new("/1.sst"));
    put_file(files, path, &bytes);
    let access = if mode & 2 != 0 { Access::Mapped } else { Access::Pread };
    let block_cache = (mode & 4 != 0).then(|| Arc::new(BlockCache::new(1 << 20)));
    // As a repair does: whose table it is stands in its header.
    let Ok(TableHeader { database_id, keyspace, table, .. }) = crate::read_header(files, path) else { return };
    let expected = Expected { bytes: bytes.len() as u64, database_id, keyspace, table, seqno_base: 0 };
    let Ok(reader) = TableReader::open(files, path, expected, ReadOptions { access, block_cache }) else { return };
    assert!(reader.memory_bytes() <= 4096 + 2 * bytes.len(), "T2: an open table holds no more than its file");
    let reader = Arc::new(reader);
    let verified = verify(&reader);
    let forward = scan(&reader, true);
    let backward = scan(&reader, false);
    let keys: Vec<&OwnedInternalKey> = match &forward {
        Ok(entries) => entries.iter().map(|entry| &entry.0).collect(),
        Err(_) => Vec::new(),
    };
    for key in keys.iter().take(32) {
        let borrowed = key.borrow();
        let _ = reader.get(borrowed.user_key, xxh3_64(borrowed.user_key), borrowed.trailer.seqno());
        let mut cursor = reader.cursor();
        let _ = cursor.seek(borrowed);
        let _ = cursor.seek_before(borrowed);
    }
    let _ = reader.get(b"", xxh3_64(b""), SeqNo::MAX);
    let _ = reader.get_unfiltered(b"\xff\xff", SeqNo::MAX);
    let Ok(report) = verified else { return };
    let forward = forward.expect("T1: what verifies can be read");
    let mut backward = backward.expect("T1: what verifies can be read");
    if report.entries > SCAN_MAX as u64 {
        return;
    }
    backward.reverse();
    assert_eq!(forward, backward, "T1: both ways meet the same entries");
    assert_eq!(forward.len() as u64, report.entries, "T5: entries are counted");
    assert!(forward.windows(2).all(|pair| pair[0].0.borrow() < pair[1].0.borrow()), "T1: entries ascend");
    for (key, value) in forward.iter().take(64) {
        let InternalKey { user_key, trailer } = key.borrow();
        let found = reader.get(user_key, xxh3_64(user_key), trailer.seqno()).expect("T1: what verifies can be read");
        let found = found.expect("T3: an entry is found");
        // Of two entries with one seqno the larger kind comes first and is the answer.
        if found.trailer == trailer {
            assert_eq!(found.value.as_slice(), value, "T1: a get and a scan say the same");
        } else {
            assert_eq!(found.trailer.seqno(), trailer.seqno(), "T1: a get finds the version asked for");
        }
    }
}

/// Entries that a scan looks at. A hostile index may name one block many times.
const SCAN_MAX: usize = 2048;

fn scan(table: &Arc<TableReader>, forward: bool) -> Result<Vec<(OwnedInternalKey, Vec<u8>)>, TableError> {
    let mut cursor = table.cursor();
    if forward {
        cursor.seek_to_first()?
    } else {
        cursor.seek_to_last()?
    }
    let mut entries = Vec::new();
    while cursor.valid() && entries.len() < SCAN_MAX {
        entries.push((cursor.key().to_owned(), cursor.value()?.to_vec()));
        if forward { cursor.next()? } else { cursor.prev()? }
    }
    Ok(entries)
}

fn put_file(files: &dyn FileSystem, path: &Path, bytes: &[u8]) {
    let mut file = files.create_temporary(Path::new("/")).expect("the simulated disk works");
    file.append(bytes).expect("the simulated disk works");
    file.persist(path).expect("the simulated disk works");
}

fn mend_header(bytes: &mut [u8; HEADER_BYTES]) {
    bytes[..8].copy_from_slice(&HEADER_MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let salt = xxh3_64(&bytes[..56]);
    bytes[56..].copy_from_slice(&salt.to_le_bytes());
}

fn mend_footer(bytes: &mut [u8; FOOTER_BYTES]) {
    bytes[160..164].copy_from_slice(&(FOOTER_BYTES as u32).to_le_bytes());
    bytes[164..168].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let checksum = xxh3_64(&bytes[..168]);
    bytes[168..176].copy_from_slice(&checksum.to_le_bytes());
    bytes[176..].copy_from_slice(&FOOTER_MAGIC);
}

/// How long the frame that seems to begin `bytes` is; `None` if these are no frame's.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = FrameHeader::decode(bytes)?;
    let plausible = (1..=5).contains(&header.kind) && header.compression <= 1 && bytes[10..16] == [0; 6];
    let stored = header.stored as usize;
    let sums =
        if header.kind == FrameKind::LargeValue as u8 { stored.div_ceil(CHUNK_BYTES) * CHECKSUM_BYTES } else { 0 };
    let whole = stored.next_multiple_of(8) + sums + FRAME_OVERHEAD_BYTES;
    (plausible && whole <= bytes.len()).then_some(whole)
}

/// Puts checksums that fit behind a frame.
fn mend_frame(frame: &mut [u8], salt: u64, offset: u64) {
    match FrameHeader::decode(frame) {
        Some(header) if header.kind == FrameKind::LargeValue as u8 => {
            let reference = LargeReference { offset, bytes: header.stored, ordinal: 0 };
            let value = frame.get(FRAME_HEADER_BYTES..).and_then(|rest| rest.get(..header.stored as usize));
            let Some(value) = value.map(<[u8]>::to_vec) else { return };
            let mut mended = Vec::new();
            let written = write_large(reference, &value, salt, |bytes| {
                mended.extend_from_slice(bytes);
                Ok::<_, ()>(())
            });
            if written.is_ok() && mended.len() == frame.len() {
                frame.copy_from_slice(&mended);
            }
        }
        _ => {
            if let Some((body, sum)) = frame.split_last_chunk_mut::<CHECKSUM_BYTES>() {
                *sum = xxh3_64_with_seed(body, seed(salt, offset)).to_le_bytes();
            }
        }
    }
}

/// Mends header, footer, and whatever between them looks like a frame.
fn mend_table(bytes: &mut [u8]) {
    let len = bytes.len();
    let Some(header) = bytes.first_chunk_mut::<HEADER_BYTES>() else { return };
    mend_header(header);
    let Some(salt) = u64_at(header, 56) else { return };
    let Some(footer) = bytes.last_chunk_mut::<FOOTER_BYTES>() else { return };
    footer[144..152].copy_from_slice(&salt.to_le_bytes());
    footer[152..160].copy_from_slice(&(len as u64).to_le_bytes());
    mend_footer(footer);
    let named: Vec<(u64, u64)> =
        [24, 40, 56].iter().filter_map(|&at| Some((u64_at(footer, at)?, u64_at(footer, at + 8)?))).collect();
    let end = len.saturating_sub(FOOTER_BYTES);
    let mut at = HEADER_BYTES;
    while at + FRAME_OVERHEAD_BYTES <= end {
        let whole = frame_bytes(&bytes[at..end]).unwrap_or(0);
        if whole > 0 {
            mend_frame(&mut bytes[at..at + whole], salt, at as u64);
        }
        at += whole.max(8);
    }
    for (offset, length) in named {
        let range = offset.checked_add(length).map(|end| offset as usize..end as usize);
        if let Some(frame) = range.and_then(|range| bytes.get_mut(range)) {
            // An extent that was changed is a frame of that size all the same.
            if frame.len() >= FRAME_OVERHEAD_BYTES && frame_bytes(frame) != Some(frame.len()) {
                let stored = (frame.len() - FRAME_OVERHEAD_BYTES) as u32;
                frame[..4].copy_from_slice(&stored.to_le_bytes());
            }
            mend_frame(frame, salt, offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use internal_key::{Epoch, JobId, KeyspaceId, Kind, Level, TableId};
    use test_support::fuzz_twin;

    use super::*;
    use crate::{Compression, TableIdentity, TableOptions, TableWriter};

    fn trailer(seqno: u64, kind: Kind) -> Trailer {
        Trailer::new(SeqNo::new(seqno).expect("a small number"), kind)
    }

    /// A table's file with `keys` keys, a third of them in two versions, every seventh deleted.
    fn table_file(keys: u64, options: TableOptions) -> Vec<u8> {
        let environment = Environment::simulated(1);
        let identity = TableIdentity {
            database_id: 77,
            keyspace: KeyspaceId(1),
            table: TableId(1),
            level: Level(1),
            epoch: Epoch(2),
            job: JobId(3),
            inputs: vec![TableId(4)],
            output_index: 0,
            output_count: 1,
        };
        let mut writer = TableWriter::new(&*environment.files, Path::new("/"), identity, options).unwrap();
        for number in 0..keys {
            let key = format!("key-{number:03}-{}", "x".repeat(number as usize % 5));
            let kind = if number % 7 == 0 { Kind::Delete } else { Kind::Put };
            let value =
                if kind == Kind::Put { format!("value {number} ").repeat(number as usize % 9) } else { String::new() };
            writer.add(InternalKey::new(key.as_bytes(), trailer(100 + number, kind)), value.as_bytes()).unwrap();
            if number % 3 == 0 {
                writer.add(InternalKey::new(key.as_bytes(), trailer(9, Kind::Put)), b"old").unwrap();
            }
        }
        writer.finish().unwrap().persist(Path::new("/1.sst")).unwrap();
        environment.files.read(Path::new("/1.sst"), 1 << 20).unwrap()
    }

    fn tables() -> Vec<(&'static str, Vec<u8>)> {
        let small = TableOptions { block_bytes: 256, index_partition_bytes: 1024, ..TableOptions::default() };
        vec![
            ("plain", table_file(40, TableOptions::default())),
            ("partitions", table_file(200, small.clone())),
            ("lz4", table_file(60, TableOptions { compression: Compression::Lz4, ..small.clone() })),
            ("large-values", table_file(20, TableOptions { large_value_bytes: 40, filter_bits_per_key: 0, ..small })),
        ]
    }

    fn with_mode(mode: u8, bytes: &[u8]) -> Vec<u8> {
        [&[mode], bytes].concat()
    }

    /// The frames of a kind in a table's file, in order.
    fn frames(file: &[u8], kind: FrameKind) -> Vec<&[u8]> {
        let (mut at, mut found) = (HEADER_BYTES, Vec::new());
        while at + FRAME_OVERHEAD_BYTES <= file.len() - FOOTER_BYTES {
            let Some(whole) = frame_bytes(&file[at..]) else {
                at += 8;
                continue;
            };
            if file[at + 8] == kind as u8 {
                found.push(&file[at..at + whole]);
            }
            at += whole;
        }
        found
    }

    fn payload(frame: &[u8]) -> &[u8] {
        &frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + u32_at(frame, 0).unwrap() as usize]
    }

    /// T2: bytes of a block, mutated and arbitrary, never panic; sound rows read back and are found.
    #[test]
    fn block_holds_for_any_bytes() {
        let [plain, partitions, ..] = &tables()[..] else { panic!("four tables") };
        let samples = [
            ("plain", payload(frames(&plain.1, FrameKind::Data)[0]).to_vec()),
            ("small", payload(frames(&partitions.1, FrameKind::Data)[1]).to_vec()),
            ("index", payload(frames(&plain.1, FrameKind::Index)[0]).to_vec()),
        ];
        fuzz_twin("block", &samples, 1000, block);
    }

    /// T3: bytes of an index never panic; an index of any keys leads to each.
    #[test]
    fn index_holds_for_any_bytes() {
        let partitions = &tables()[1].1;
        let index_frames = frames(partitions, FrameKind::Index);
        assert!(index_frames.len() > 2, "several partitions and a root");
        let samples = [
            ("partition", with_mode(0, payload(index_frames[0]))),
            ("root", with_mode(0, payload(index_frames[index_frames.len() - 1]))),
            ("keys", with_mode(1, b"\x01a\x02ab\x03abc\x05abcde\x01b\x00\x02b\x00\x02b\xff\x08zzzzzzzz\x09zzzzzzzzz")),
            (
                "long-keys",
                with_mode(7, &b"\x14the same long prefix\x15the same long prefix1\x15the same long prefix2".repeat(3)),
            ),
        ];
        fuzz_twin("index", &samples, 1000, index);
    }

    /// T3: a filter never says no to a key of its own, and any line answers any hash.
    #[test]
    fn filter_holds_for_any_bytes() {
        let hashes: Vec<u8> = (0..40_u64).flat_map(|number| xxh3_64(&number.to_le_bytes()).to_le_bytes()).collect();
        let plain = &tables()[0].1;
        let samples = [
            ("ten-bits", with_mode(10, &hashes)),
            ("one-bit", with_mode(1, &hashes[..80])),
            ("lines", with_mode(10, payload(frames(plain, FrameKind::Filter)[0]))),
        ];
        fuzz_twin("filter", &samples, 1000, filter);
    }

    /// T5: footers, headers, properties and frames that decode are the same when encoded again.
    #[test]
    fn footer_holds_for_any_bytes() {
        let tables = tables();
        let (plain, lz4) = (&tables[0].1, &tables[2].1);
        let properties = frames(plain, FrameKind::Properties)[0];
        let samples = [
            ("footer", with_mode(4, &plain[plain.len() - FOOTER_BYTES..])),
            ("header", with_mode(5, &plain[..HEADER_BYTES])),
            ("properties", with_mode(2, payload(properties))),
            ("frame", with_mode(7, frames(plain, FrameKind::Data)[0])),
            ("lz4-frame", with_mode(7, frames(lz4, FrameKind::Data)[0])),
        ];
        fuzz_twin("footer", &samples, 1000, footer);
    }

    /// T2: a table's file of any bytes, checksums mended or not, never panics; what verifies is scanned in order.
    #[test]
    fn table_holds_for_any_bytes() {
        let tables = (0..).zip(tables());
        let samples: Vec<_> = tables.map(|(mode, (name, file))| (name, with_mode(1 + 2 * mode, &file))).collect();
        fuzz_twin("table", &samples, 500, table);
    }

    /// The samples reach what they are for: each table opens and verifies, with its checksums as they are and mended.
    #[test]
    fn samples_are_sound_tables_and_mending_keeps_them() {
        for (name, file) in tables() {
            let mut mended = file.clone();
            mend_table(&mut mended);
            assert!(mended == file, "{name}: mending a sound table changes nothing");
            let mut damaged = file.clone();
            damaged[HEADER_BYTES + FRAME_HEADER_BYTES + 9] ^= 1;
            let before = damaged.clone();
            mend_table(&mut damaged);
            assert!(damaged != before, "{name}: a damaged frame gets a checksum that fits");
        }
    }
}
