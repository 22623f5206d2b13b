//! Harness of the fuzz target `manifest`: what must hold of every file of the manifest, whatever its bytes.
//!
//! Only in tests and under `--cfg fuzzing`. It takes one input and panics where a property fails (M1, M3, M4). Random
//! bytes rarely pass a checksum, so an input's first byte may ask that checksums are mended.

use std::collections::BTreeMap;
use std::path::Path;

use internal_key::{KeyspaceId, Level};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::edit_file::{self, Chain};
use crate::global::{self, LevelFile};
use crate::level::{self, LevelIdentity};
use crate::{DatabaseId, Edit, OpenMode, migrate};

/// The salt of every edit file here.
const SALT: u64 = 0x5A17;

const IDENTITY: LevelIdentity =
    LevelIdentity { database_id: DatabaseId(7), keyspace: KeyspaceId(1), level: Level(1), generation: 9 };

/// First byte, modulo 4: `global.json`, a level file, an edit file, a former `manifest.json`; its bit 2: mend checksums;
/// bit 3: open for reading only. What decodes, encoded again, decodes to the same.
pub fn manifest(input: &[u8]) {
    let Some((&mode, bytes)) = input.split_first() else { return };
    let mend = mode & 4 != 0;
    match mode % 4 {
        0 => global(bytes, mend, if mode & 8 == 0 { OpenMode::ReadWrite } else { OpenMode::ReadOnly }),
        1 => level(bytes),
        2 => edits(bytes, mend),
        _ => former(bytes),
    }
}

fn global(bytes: &[u8], mend: bool, mode: OpenMode) {
    let file = Path::new("global.json");
    let mended = if mend { mend_global(bytes) } else { bytes.to_vec() };
    let Ok(found) = global::decode(file, &mended, mode) else { return };
    let again = global::encode(&found.manifest, &found.levels, found.edits, found.migrated_from);
    let again = global::decode(file, &again, OpenMode::ReadWrite).expect("M1: what is written reads back");
    assert_eq!(again, found, "M1: global.json keeps what it says");
}

fn level(bytes: &[u8]) {
    let file = Path::new("level_1.9.json");
    let Ok(runs) = level::decode(file, bytes, IDENTITY) else { return };
    assert!(runs.windows(2).all(|pair| pair[0].epoch > pair[1].epoch), "C3: runs stand newest first");
    for run in &runs {
        let apart = run.tables.windows(2).all(|pair| pair[0].max_key < pair[1].min_key);
        assert!(apart, "C3: the tables of a run ascend and are disjoint");
    }
    let again = level::decode(file, &level::encode(IDENTITY, &runs), IDENTITY);
    assert_eq!(again.expect("M1: what is written reads back"), runs, "M1: a level file keeps what it says");
}

fn edits(bytes: &[u8], mend: bool) {
    let mended = if mend { mend_lines(bytes) } else { bytes.to_vec() };
    let Some((lines, end)) = replay(&mended) else { return };
    assert!(
        end.offset as usize <= mended.len() && end.next == 1 + lines.len() as u64,
        "M3: the chain ends in the file"
    );
    let (mut chain, mut again) = (Chain::new(SALT), Vec::new());
    for line in &lines {
        let (line, next) = edit_file::encode_line(chain, &line.iter().collect::<Vec<&Edit>>());
        again.extend(line);
        chain = next;
    }
    let (read, end) = replay(&again).expect("M3: what is written reads back");
    assert_eq!((read, end), (lines, chain), "M3: an edit file keeps what it says");
}

fn replay(bytes: &[u8]) -> Option<(Vec<Vec<Edit>>, Chain)> {
    let mut lines = Vec::new();
    let end = edit_file::replay(Path::new("edits.1.jsonl"), bytes, SALT, |line, _| {
        lines.push(line);
        Ok(())
    });
    Some((lines, end.ok()?))
}

/// What is migrated can be written, and read again: else the database would be lost with the migration (M4).
fn former(bytes: &[u8]) {
    let Ok(manifest) = migrate::decode(Path::new("manifest.json"), bytes, DatabaseId(7)) else { return };
    let mut files = BTreeMap::new();
    for keyspace in manifest.keyspaces.values() {
        for (number, state) in (0..).zip(&keyspace.levels) {
            let identity = LevelIdentity { keyspace: keyspace.id, level: Level(number), generation: 1, ..IDENTITY };
            let written = level::encode(identity, &state.runs);
            let again = level::decode(Path::new("level"), &written, identity).expect("M4: a migrated level reads back");
            assert_eq!(again, state.runs, "M4: a migrated level keeps its tables");
            if !state.runs.is_empty() {
                let (bytes, checksum) = (written.len() as u64, xxh3_64(&written));
                files.insert((keyspace.id, Level(number)), LevelFile { generation: 1, bytes, checksum });
            }
        }
    }
    let mut manifest = manifest;
    manifest.generation = 1;
    let written = global::encode(&manifest, &files, None, None);
    let again = global::decode(Path::new("global.json"), &written, OpenMode::ReadWrite);
    let again = again.expect("M4: a migrated manifest reads back");
    assert_eq!(again.levels, files, "M4: a migrated manifest names its levels");
    assert_eq!(again.manifest.next_table_id, manifest.next_table_id, "M4: ids go on");
}

/// The bytes with a trailer that fits, in place of the one they have, if any.
fn mend_global(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.len().saturating_sub(global::TRAILER_BYTES);
    let body = if bytes[start..].starts_with(global::TRAILER_START) { &bytes[..start] } else { bytes };
    let checksum = format!("{:016x}", xxh3_64(body));
    [body, global::TRAILER_START, checksum.as_bytes(), global::TRAILER_END].concat()
}

/// The lines, numbered and chained anew from their edits on.
fn mend_lines(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut chain) = (Vec::new(), Chain::new(SALT));
    let edits_at = |line: &[u8]| line.windows(9).position(|window| window == b"\"edits\": ");
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let trailer = line.len().saturating_sub(edit_file::LINE_TRAILER_BYTES);
        let Some(from) = edits_at(line).filter(|_| line.ends_with(b"\n")) else {
            out.extend_from_slice(line);
            continue;
        };
        let body = &line[from..trailer.max(from)];
        let mut mended = format!("{{\"n\": {}, \"prev\": \"{:016x}\", ", chain.next, chain.previous).into_bytes();
        mended.extend_from_slice(body);
        let checksum = xxh3_64_with_seed(&mended, SALT);
        mended.extend_from_slice(edit_file::LINE_TRAILER_START);
        mended.extend_from_slice(format!("{checksum:016x}").as_bytes());
        mended.extend_from_slice(edit_file::LINE_TRAILER_END);
        out.extend_from_slice(&mended);
        chain = Chain { next: chain.next + 1, previous: checksum, ..chain };
    }
    out
}

#[cfg(test)]
mod tests {
    use internal_key::{Epoch, JobId, SeqNo, TableId};
    use std::sync::Arc;
    use test_support::fuzz_twin;

    use super::*;
    use crate::global::EditFile;
    use crate::{AddedTable, Change, Manifest, RunEntry, TableEntry};

    fn table(id: u64, min_key: &[u8], max_key: &[u8]) -> Arc<TableEntry> {
        let seqno = |number| SeqNo::new(number).unwrap();
        Arc::new(TableEntry {
            id: TableId(id),
            bytes: 9000 + id,
            checksum: 0xABCD + id,
            min_key: min_key.into(),
            max_key: max_key.into(),
            min_seqno: seqno(id),
            max_seqno: seqno(id + 40),
            entries: 41,
            tombstones: 1,
            logical_bytes: 4000,
            epoch: Epoch(2),
            job: JobId(5),
            seqno_base: u64::from(id == 3),
            newest_unix_ms: if id == 3 { 1_700_000_000_000 } else { 0 },
        })
    }

    fn create(id: u32, name: &str) -> Change {
        let options = BTreeMap::from([("block_bytes".into(), 4096.into()), ("ratio".into(), 0.5.into())]);
        Change::CreateKeyspace { id: KeyspaceId(id), name: name.into(), options, created_seqno: SeqNo::ZERO }
    }

    fn global_file() -> Vec<u8> {
        let edit = Edit::of(create(1, "default")).and(create(2, "ümlaut \"quoted\""));
        let mut manifest = Manifest::empty(DatabaseId(7)).apply(&edit).unwrap();
        manifest.generation = 9;
        let file = LevelFile { generation: 4, bytes: 100, checksum: 1 };
        let levels = BTreeMap::from([((KeyspaceId(1), Level(0)), file), ((KeyspaceId(1), Level(2)), file)]);
        global::encode(&manifest, &levels, Some(EditFile { generation: 8, bytes: 4096, salt: SALT }), None)
    }

    fn level_file() -> Vec<u8> {
        let run = |epoch, tables| RunEntry { epoch: Epoch(epoch), tables };
        let runs =
            [run(7, vec![table(3, b"a", b"c\0"), table(4, b"c\0\0", b"\xff")]), run(2, vec![table(1, b"", b"z%")])];
        level::encode(IDENTITY, &runs)
    }

    fn edit_lines() -> Vec<u8> {
        let added = AddedTable { level: Level(0), run: Epoch(2), table: table(6, b"k", b"l") };
        let replace = Change::ReplaceTables {
            keyspace: KeyspaceId(1),
            removed: vec![(Level(1), TableId(4))],
            added: vec![added],
            flushed_seqno: SeqNo::new(77),
        };
        let lines = [
            vec![Edit::of(create(3, "third")), Edit::of(Change::DropKeyspace { id: KeyspaceId(2) })],
            vec![Edit::of(replace).and(Change::RaiseLastSeqno(SeqNo::MAX)).and(Change::EndLog)],
            vec![Edit::of(Change::SetClosedCleanly(true))],
        ];
        let (mut chain, mut out) = (Chain::new(SALT), Vec::new());
        for line in &lines {
            let (bytes, next) = edit_file::encode_line(chain, &line.iter().collect::<Vec<_>>());
            out.extend(bytes);
            chain = next;
        }
        out.extend([0; 32]);
        out
    }

    const FORMER: &[u8] = br#"{"version": 1, "next_file_id": 9, "levels": [
        [{"id": 8, "size": 10, "min_key": "a", "max_key": "z", "entries": 2},
         {"id": 5, "size": 10, "min_key": "b", "max_key": "y", "entries": 2}],
        [{"id": 4, "size": 10, "min_key": "n", "max_key": "z", "entries": 1},
         {"id": 3, "size": 10, "min_key": "", "max_key": "m", "entries": 1}],
        []]}"#;

    /// M1, M3, M4: files of any bytes, checksums mended or not, never panic; what decodes is the same when written anew.
    #[test]
    fn manifest_holds_for_any_bytes() {
        let with_mode = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
        let samples = [
            ("global", with_mode(4, &global_file())),
            ("level", with_mode(1, &level_file())),
            ("edits", with_mode(6, &edit_lines())),
            ("former", with_mode(3, FORMER)),
        ];
        fuzz_twin("manifest", &samples, 1000, manifest);
    }

    /// The samples reach what they are for, and mending changes nothing that is sound.
    #[test]
    fn samples_decode_and_mending_keeps_them() {
        let sound = global_file();
        assert_eq!(mend_global(&sound), sound);
        assert!(global::decode(Path::new("g"), &sound, OpenMode::ReadWrite).is_ok());
        assert_eq!(level::decode(Path::new("l"), &level_file(), IDENTITY).unwrap().len(), 2);
        let lines = edit_lines();
        assert_eq!(mend_lines(&lines), lines);
        assert_eq!(replay(&lines).unwrap().0.len(), 3);
        assert!(migrate::decode(Path::new("m"), FORMER, DatabaseId(7)).is_ok());
    }
}
