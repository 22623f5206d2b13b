//! `global.json`: the commit point. What it says of the database, and which level files belong to it.
//!
//! ```text
//! {
//!   "format": "lsm-global",
//!   "version": 1,
//!   "features": {"compatible": 0, "read_compatible": 0, "incompatible": 0},
//!   "database_id": "00112233445566778899aabbccddeeff",
//!   "generation": 12,
//!   "next": {"table": 9, "segment": 3, "keyspace": 2, "job": 7, "epoch": 5},
//!   "last_seqno": 400,
//!   "log_floor": {"segment": 2, "salt": "0123456789abcdef"},
//!   "claim": {"segment": 2, "offset": 8192},
//!   "closed_cleanly": false,
//!   "keyspaces": [
//!     {"id": 1, "name": "default", "options": {}, "created_seqno": 0, "flushed_seqno": 400, "history_floor": 0, "levels": [
//!       {"level": 0, "file": "keyspaces/1/level_0.12.json", "generation": 12, "bytes": 512, "xxh3": "0123456789abcdef"}
//!     ]}
//!   ],                                                                                  ┐ the trailer: always these
//!   "checksum": "0123456789abcdef"      xxh3 of every byte before the trailer           │ 35 bytes, so a flipped bit
//! }                                                                                     ┘ is told wherever it is
//! ```
//!
//! - **M1** Replacing this file is the commit; a level file counts only through the generation, length and checksum here.
//! - **M3** `edits`, where it stands, names the edit file whose lines come after what the JSON files say.
//! - **M4** `migrated_from`, where it stands, is the former manifest that this database was made from.
//!
//! Feature bits come in three classes. A version that meets a bit it does not know may, if the bit is *compatible*,
//! read and write (and drops the bit with what it announced), if *read-compatible*, only read, and if *incompatible*,
//! do neither. Only such a bit makes unknown fields admissible.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, TableId};
use xxhash_rust::xxh3::xxh3_64;

use crate::json::{Number, Object, Source, Value, parse_hex64, write_options, write_text};
use crate::paths::{KEYSPACES_NAME, level_name};
use crate::{Claim, DatabaseId, DecodeError, KeyspaceState, LevelState, LogFloor, Manifest, Place};

/// The version of `global.json`, level files and edit files that this code writes, and the only one it reads.
pub const FORMAT_VERSION: u64 = 1;

/// No `global.json` longer than this is read: 4 GiB, some ten million keyspaces.
pub const GLOBAL_BYTES_MAX: u64 = 4 << 30;

const FORMAT_NAME: &str = "lsm-global";
pub(crate) const TRAILER_START: &[u8] = b"  \"checksum\": \"";
pub(crate) const TRAILER_END: &[u8] = b"\"\n}\n";
/// Bytes of the trailer. On disk since format 1, and the same in every later one.
pub(crate) const TRAILER_BYTES: usize = 35;
const _: () = assert!(TRAILER_BYTES == TRAILER_START.len() + 16 + TRAILER_END.len());

/// What a reader means to do, which decides what feature bits it may pass over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenMode {
    /// Read and commit.
    ReadWrite,
    /// Read only; nothing is ever written or removed.
    ReadOnly,
}

/// A level file as `global.json` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelFile {
    /// In its name.
    pub generation: u64,
    /// Its length.
    pub bytes: u64,
    /// xxh3 of its bytes.
    pub checksum: u64,
}

/// An edit file as `global.json` names it (M3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditFile {
    /// In its name.
    pub generation: u64,
    /// Its length, preallocated.
    pub bytes: u64,
    /// What the chain of its lines begins with; random, so that no other file's line fits.
    pub salt: u64,
}

/// The former manifest that a database was migrated from (M4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MigratedFrom {
    /// Its length.
    pub bytes: u64,
    /// xxh3 of its bytes.
    pub checksum: u64,
}

/// What `global.json` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Global {
    /// The manifest, except that its levels know only their file's generation and checksum, not their runs.
    pub manifest: Manifest,
    /// The level files it names.
    pub levels: BTreeMap<(KeyspaceId, Level), LevelFile>,
    /// The edit file it names.
    pub edits: Option<EditFile>,
    /// Where the database came from, if it was migrated.
    pub migrated_from: Option<MigratedFrom>,
}

/// The bytes of a `global.json` that says `manifest` and names `levels`.
///
/// The runs in the manifest's levels do not count, nor do their generations and checksums: `levels` says which file
/// holds each level.
pub fn encode(
    manifest: &Manifest,
    levels: &BTreeMap<(KeyspaceId, Level), LevelFile>,
    edits: Option<EditFile>,
    migrated_from: Option<MigratedFrom>,
) -> Vec<u8> {
    let mut out = String::with_capacity(1024 + 160 * (manifest.keyspaces.len() + levels.len()));
    let Manifest { generation, next_table_id, next_segment_id, next_keyspace_id, next_job_id, next_epoch, .. } =
        manifest;
    let Manifest { log_floor, claim, .. } = manifest;
    let _ = write!(
        out,
        concat!(
            "{{\n  \"format\": \"{}\",\n  \"version\": {},\n",
            "  \"features\": {{\"compatible\": 0, \"read_compatible\": 0, \"incompatible\": 0}},\n",
            "  \"database_id\": \"{}\",\n  \"generation\": {},\n",
            "  \"next\": {{\"table\": {}, \"segment\": {}, \"keyspace\": {}, \"job\": {}, \"epoch\": {}}},\n",
            "  \"last_seqno\": {},\n",
            "  \"log_floor\": {{\"segment\": {}, \"salt\": \"{:016x}\"}},\n",
            "  \"claim\": {{\"segment\": {}, \"offset\": {}}},\n",
            "  \"closed_cleanly\": {},\n",
        ),
        FORMAT_NAME,
        FORMAT_VERSION,
        manifest.database_id,
        Number(*generation),
        Number(next_table_id.get()),
        Number(next_segment_id.get()),
        next_keyspace_id.get(),
        Number(next_job_id.get()),
        Number(next_epoch.get()),
        Number(manifest.last_seqno.get()),
        Number(log_floor.segment.get()),
        log_floor.salt,
        Number(claim.segment.get()),
        Number(claim.offset),
        manifest.closed_cleanly,
    );
    if let Some(EditFile { generation, bytes, salt }) = edits {
        let (generation, bytes) = (Number(generation), Number(bytes));
        let _ = writeln!(
            out,
            "  \"edits\": {{\"generation\": {generation}, \"bytes\": {bytes}, \"salt\": \"{salt:016x}\"}},"
        );
    }
    if let Some(MigratedFrom { bytes, checksum }) = migrated_from {
        let _ = writeln!(out, "  \"migrated_from\": {{\"bytes\": {}, \"xxh3\": \"{checksum:016x}\"}},", Number(bytes));
    }
    out.push_str("  \"keyspaces\": [");
    for (index, keyspace) in manifest.keyspaces.values().enumerate() {
        out.push_str(if index == 0 { "\n    " } else { ",\n    " });
        write_keyspace(&mut out, keyspace, levels);
    }
    out.push_str(if manifest.keyspaces.is_empty() { "],\n" } else { "\n  ],\n" });
    seal(out)
}

/// Appends the trailer: the checksum of everything before it.
fn seal(body: String) -> Vec<u8> {
    let checksum = xxh3_64(body.as_bytes());
    let mut bytes = body.into_bytes();
    bytes.extend_from_slice(TRAILER_START);
    bytes.extend_from_slice(format!("{checksum:016x}").as_bytes());
    bytes.extend_from_slice(TRAILER_END);
    bytes
}

fn write_keyspace(out: &mut String, keyspace: &KeyspaceState, levels: &BTreeMap<(KeyspaceId, Level), LevelFile>) {
    let _ = write!(out, "{{\"id\": {}, \"name\": ", keyspace.id.get());
    write_text(out, &keyspace.name);
    out.push_str(", \"options\": ");
    write_options(out, &keyspace.options);
    let _ = write!(
        out,
        ", \"created_seqno\": {}, \"flushed_seqno\": {}, \"history_floor\": {}, \"levels\": [",
        Number(keyspace.created_seqno.get()),
        Number(keyspace.flushed_seqno.get()),
        Number(keyspace.history_floor.get()),
    );
    let mut empty = true;
    for ((_, level), file) in levels.range((keyspace.id, Level::ZERO)..=(keyspace.id, Level::LAST)) {
        out.push_str(if empty { "\n      " } else { ",\n      " });
        empty = false;
        let _ = write!(
            out,
            "{{\"level\": {}, \"file\": \"{}\", \"generation\": {}, \"bytes\": {}, \"xxh3\": \"{:016x}\"}}",
            level.get(),
            level_file(keyspace.id, *level, file.generation),
            Number(file.generation),
            Number(file.bytes),
            file.checksum,
        );
    }
    out.push_str(if empty { "]}" } else { "\n    ]}" });
}

/// A level file's path below the database's directory, as `global.json` shows it.
fn level_file(keyspace: KeyspaceId, level: Level, generation: u64) -> String {
    format!("{KEYSPACES_NAME}/{}/{}", keyspace.get(), level_name(level, generation))
}

/// What the bytes of a `global.json` say. `file` is named in errors.
///
/// # Errors
/// If the checksum does not match, the format is unknown, or anything does not fit: never a panic, whatever the bytes.
pub fn decode(file: &Path, bytes: &[u8], mode: OpenMode) -> Result<Global, DecodeError> {
    check_trailer(file, bytes)?;
    let mut root = Source::strict(file).parse(bytes)?.object()?;
    root.field("format")?.exactly(FORMAT_NAME)?;
    version(root.field("version")?)?;
    features(&mut root, mode)?;
    let database_id = DatabaseId(root.field("database_id")?.hex128()?);
    let generation = root.field("generation")?.u64()?;
    let mut next = root.field("next")?.object()?;
    let next_table_id = TableId(next.field("table")?.u64()?);
    let next_segment_id = SegmentId(next.field("segment")?.u64()?);
    let next_keyspace_id = KeyspaceId(next.field("keyspace")?.u32()?);
    let next_job_id = JobId(next.field("job")?.u64()?);
    let next_epoch = Epoch(next.field("epoch")?.u64()?);
    next.finish()?;
    let last_seqno = root.field("last_seqno")?.seqno()?;
    let log_floor = log_floor(root.field("log_floor")?)?;
    let claim = claim(root.field("claim")?)?;
    let closed_cleanly = root.field("closed_cleanly")?.bool()?;
    let edits = root.optional("edits").map(|edits| edit_file(edits, generation)).transpose()?;
    let migrated_from = root.optional("migrated_from").map(migrated).transpose()?;
    let mut manifest = Manifest {
        database_id,
        generation,
        next_table_id,
        next_segment_id,
        next_keyspace_id,
        next_job_id,
        next_epoch,
        last_seqno,
        log_floor,
        claim,
        closed_cleanly,
        keyspaces: BTreeMap::new(),
    };
    let mut levels = BTreeMap::new();
    let mut names = HashSet::new();
    for value in root.field("keyspaces")?.list()? {
        let spot = value.spot();
        let state = keyspace(value, generation, &mut levels)?;
        if state.id >= next_keyspace_id {
            let expected = format!("an id below next.keyspace, {}", next_keyspace_id.get());
            return Err(spot.wrong(expected, state.id.get().to_string()));
        }
        if !names.insert(state.name.clone()) {
            return Err(spot.wrong("a name of its own", format!("{:?} a second time", state.name)));
        }
        let id = state.id;
        if manifest.keyspaces.insert(id, Arc::new(state)).is_some() {
            return Err(spot.wrong("an id of its own", format!("{} a second time", id.get())));
        }
    }
    root.reserved(&["encryption"])?;
    root.field("checksum")?;
    root.finish()?;
    Ok(Global { manifest, levels, edits, migrated_from })
}

/// Checks that the file ends with the trailer and that the trailer's checksum fits. Every version keeps this.
fn check_trailer(file: &Path, bytes: &[u8]) -> Result<(), DecodeError> {
    let start = bytes.len().saturating_sub(TRAILER_BYTES);
    let (body, trailer) = bytes.split_at(start);
    let digits = trailer.strip_prefix(TRAILER_START).and_then(|rest| rest.strip_suffix(TRAILER_END));
    let Some(stored) = digits.and_then(parse_hex64) else {
        let expected = "a last line with the checksum, then }";
        return Err(DecodeError::damaged(
            file,
            Place::Byte(start as u64),
            expected,
            trailer.escape_ascii().to_string(),
        ));
    };
    let computed = xxh3_64(body);
    if computed != stored && !planted_faults::planted("manifest-global-checksum-unchecked") {
        let expected = format!("{computed:016x}, the xxh3 of the {start} bytes before the trailer");
        return Err(DecodeError::damaged(file, Place::Json("checksum".into()), expected, format!("{stored:016x}")));
    }
    Ok(())
}

/// Checks a `version` field.
pub(crate) fn version(value: Value<'_>) -> Result<(), DecodeError> {
    let unsupported = value.unsupported(format!("version {FORMAT_VERSION}"));
    if value.u64()? == FORMAT_VERSION { Ok(()) } else { Err(unsupported) }
}

/// Reads the feature bits; none is known yet, so all are unknown.
fn features(root: &mut Object<'_>, mode: OpenMode) -> Result<(), DecodeError> {
    let mut features = root.field("features")?.object()?;
    let mut announced = false;
    for (class, may_stay) in [
        ("compatible", true),
        ("read_compatible", mode == OpenMode::ReadOnly),
        ("incompatible", planted_faults::planted("manifest-incompatible-feature-passed-over")),
    ] {
        let value = features.field(class)?;
        let unsupported = value.unsupported("no unknown feature bit");
        if value.u64()? != 0 {
            if !may_stay {
                return Err(unsupported);
            }
            announced = true;
        }
    }
    features.finish()?;
    root.set_lenient(announced);
    Ok(())
}

pub(crate) fn log_floor(value: Value<'_>) -> Result<LogFloor, DecodeError> {
    let mut floor = value.object()?;
    let log_floor =
        LogFloor { segment: SegmentId(floor.field("segment")?.u64()?), salt: floor.field("salt")?.hex64()? };
    floor.finish()?;
    Ok(log_floor)
}

pub(crate) fn claim(value: Value<'_>) -> Result<Claim, DecodeError> {
    let mut claim = value.object()?;
    let read = Claim { segment: SegmentId(claim.field("segment")?.u64()?), offset: claim.field("offset")?.u64()? };
    claim.finish()?;
    Ok(read)
}

fn edit_file(value: Value<'_>, generation: u64) -> Result<EditFile, DecodeError> {
    let mut object = value.object()?;
    let edits = EditFile {
        generation: object.field("generation")?.u64_max(generation)?,
        bytes: object.field("bytes")?.u64_max(crate::edit_file::EDIT_FILE_BYTES_MAX)?,
        salt: object.field("salt")?.hex64()?,
    };
    object.finish()?;
    Ok(edits)
}

fn migrated(value: Value<'_>) -> Result<MigratedFrom, DecodeError> {
    let mut object = value.object()?;
    let from = MigratedFrom { bytes: object.field("bytes")?.u64()?, checksum: object.field("xxh3")?.hex64()? };
    object.finish()?;
    Ok(from)
}

fn keyspace(
    value: Value<'_>,
    generation: u64,
    files: &mut BTreeMap<(KeyspaceId, Level), LevelFile>,
) -> Result<KeyspaceState, DecodeError> {
    let mut object = value.object()?;
    let id = KeyspaceId(object.field("id")?.u32()?);
    let name = object.field("name")?.text()?;
    let options = object.field("options")?.options()?;
    let created_seqno = object.field("created_seqno")?.seqno()?;
    let flushed_seqno = object.field("flushed_seqno")?.seqno()?;
    let history_floor = object.field("history_floor")?.seqno()?;
    let empty = Arc::new(LevelState::default());
    let mut levels = vec![empty; Level::COUNT];
    for value in object.field("levels")?.list()? {
        let spot = value.spot();
        let (level, file) = level_reference(value, id, generation)?;
        if files.insert((id, level), file).is_some() {
            return Err(spot.wrong("a level of its own", format!("{level} a second time")));
        }
        if let Some(state) = levels.get_mut(level.index()) {
            *state = Arc::new(LevelState { runs: Vec::new(), generation: file.generation, checksum: file.checksum });
        }
    }
    object.reserved(&["comparator", "merge_operator", "prefix_extractor", "user_timestamp_bytes"])?;
    object.finish()?;
    Ok(KeyspaceState { id, name, options, created_seqno, flushed_seqno, history_floor, levels })
}

fn level_reference(value: Value<'_>, keyspace: KeyspaceId, newest: u64) -> Result<(Level, LevelFile), DecodeError> {
    let mut object = value.object()?;
    let level = Level(object.field("level")?.u64_max(Level::LAST.get().into())? as u8);
    let named = object.field("file")?;
    // Zero means that no file holds a level, so no file has it.
    let generation = object.field("generation")?;
    let spot = generation.spot();
    let generation = match generation.u64_max(newest)? {
        0 => return Err(spot.wrong("a generation from 1", "0")),
        generation => generation,
    };
    // The name is for people. It must be the one that the ids make, so that no name leads outside the directory.
    let expected = level_file(keyspace, level, generation);
    let spot = named.spot();
    let named = named.text()?;
    if named != expected {
        return Err(spot.wrong(format!("{expected:?}"), format!("{named:?}")));
    }
    let file = LevelFile {
        generation,
        bytes: object.field("bytes")?.u64_max(crate::level::LEVEL_BYTES_MAX)?,
        checksum: object.field("xxh3")?.hex64()?,
    };
    object.reserved(&["encryption"])?;
    object.finish()?;
    Ok((level, file))
}

/// The largest of what a table needs a manifest's counters to be above; checked when everything has been read.
pub(crate) fn check_counters(file: &Path, manifest: &Manifest) -> Result<(), DecodeError> {
    let mut tables = HashSet::new();
    for keyspace in manifest.keyspaces.values() {
        for (level, run, table) in keyspace.tables() {
            let place = || Place::Json(format!("{} in {level} of {}", table.id, keyspace.id));
            let below = |what: &str, next: u64, found: u64| {
                DecodeError::damaged(file, place(), format!("a {what} below {next}"), found.to_string())
            };
            if !tables.insert(table.id) {
                return Err(DecodeError::damaged(file, place(), "a table id of its own", "one that stands twice"));
            }
            if table.id >= manifest.next_table_id {
                return Err(below("table id", manifest.next_table_id.get(), table.id.get()));
            }
            if run.max(table.epoch) >= manifest.next_epoch {
                return Err(below("run epoch", manifest.next_epoch.get(), run.max(table.epoch).get()));
            }
            if table.max_seqno > manifest.last_seqno {
                let next = manifest.last_seqno.get().saturating_add(1);
                return Err(below("seqno", next, table.max_seqno.get()));
            }
        }
        if keyspace.flushed_seqno > manifest.last_seqno {
            let place = Place::Json(format!("flushed_seqno of {}", keyspace.id));
            let expected = format!("at most last_seqno, {}", manifest.last_seqno);
            return Err(DecodeError::damaged(file, place, expected, keyspace.flushed_seqno.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{FaultKind, arbitrary};

    fn files(manifest: &Manifest) -> BTreeMap<(KeyspaceId, Level), LevelFile> {
        let levels = manifest.keyspaces.values().flat_map(|keyspace| {
            keyspace.levels.iter().zip(0_u8..).map(move |(level, number)| (keyspace.id, Level(number), level))
        });
        levels
            .filter(|(.., level)| level.generation != 0)
            .map(|(id, number, level)| {
                let file = LevelFile { generation: level.generation, bytes: 77, checksum: level.checksum };
                ((id, number), file)
            })
            .collect()
    }

    /// The file with `from` replaced by `to`, under a checksum that fits.
    fn edited(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
        let body = std::str::from_utf8(&bytes[..bytes.len() - TRAILER_BYTES]).unwrap();
        assert!(body.contains(from), "{from:?} stands in {body}");
        seal(body.replacen(from, to, 1))
    }

    fn decode_here(bytes: &[u8], mode: OpenMode) -> Result<Global, DecodeError> {
        decode(Path::new("global.json"), bytes, mode)
    }

    fn sample() -> Vec<u8> {
        let mut manifest = Manifest::empty(DatabaseId(7));
        let edit = crate::Edit::of(crate::Change::CreateKeyspace {
            id: KeyspaceId(1),
            name: "default".into(),
            options: BTreeMap::new(),
            created_seqno: internal_key::SeqNo::ZERO,
        });
        manifest = manifest.apply(&edit).unwrap();
        manifest.generation = 9;
        let file = LevelFile { generation: 4, bytes: 100, checksum: 1 };
        encode(&manifest, &BTreeMap::from([((KeyspaceId(1), Level(2)), file)]), None, None)
    }

    /// M1: each thing that must not pass is refused, at its place.
    #[test]
    fn what_does_not_fit_is_refused_at_its_place() {
        use FaultKind::{Damaged, Unsupported};
        for (from, to, kind, place) in [
            ("\"version\": 1", "\"version\": 2", Unsupported, "version"),
            ("\"version\": 1", "\"version\": \"one\"", Damaged, "version"),
            ("lsm-global", "lsm-galaxy", Unsupported, "format"),
            ("\"incompatible\": 0", "\"incompatible\": 1", Unsupported, "features.incompatible"),
            ("\"read_compatible\": 0", "\"read_compatible\": 4", Unsupported, "features.read_compatible"),
            ("\"last_seqno\": 0", "\"last_seqno\": 72057594037927936", Damaged, "last_seqno"),
            ("\"last_seqno\": 0", "\"last_seqno\": -1", Damaged, "last_seqno"),
            ("\"closed_cleanly\": false", "\"closed_cleanly\": 0", Damaged, "closed_cleanly"),
            ("\"closed_cleanly\": false,", "", Damaged, "closed_cleanly"),
            ("\"claim\": {", "\"claim\": {\"more\": 1, ", Unsupported, "claim.more"),
            ("\"options\": {}", "\"options\": []", Damaged, "keyspaces[0].options"),
            ("\"options\": {}", "\"options\": {}, \"comparator\": \"reverse\"", Unsupported, "keyspaces[0].comparator"),
            ("\"level\": 2", "\"level\": 7", Damaged, "keyspaces[0].levels[0].level"),
            ("keyspaces/1/level_2.4.json", "../level_2.4.json", Damaged, "keyspaces[0].levels[0].file"),
            ("keyspaces/1/level_2.4.json", "keyspaces/2/level_2.4.json", Damaged, "keyspaces[0].levels[0].file"),
            ("\"generation\": 4", "\"generation\": 10", Damaged, "keyspaces[0].levels[0].generation"),
            ("\"generation\": 4", "\"generation\": 0", Damaged, "keyspaces[0].levels[0].generation"),
            ("\"bytes\": 100", "\"bytes\": 99999999999", Damaged, "keyspaces[0].levels[0].bytes"),
            ("\"xxh3\": \"0000", "\"xxh3\": \"000G", Damaged, "keyspaces[0].levels[0].xxh3"),
            ("\"keyspace\": 2", "\"keyspace\": 1", Damaged, "keyspaces[0]"),
            ("\"generation\": 9", "\"encryption\": {\"key\": 1}, \"generation\": 9", Unsupported, "encryption"),
        ] {
            let error = decode_here(&edited(&sample(), from, to), OpenMode::ReadWrite).unwrap_err();
            assert_eq!((error.kind, error.place.to_string()), (kind, place.to_owned()), "{from} -> {to}: {error}");
        }
        let twice = edited(&sample(), "\"last_seqno\"", "\"generation\": 9,\n  \"last_seqno\"");
        let error = decode_here(&twice, OpenMode::ReadWrite).unwrap_err();
        assert!(error.to_string().contains("stands twice"), "{error}");
    }

    /// M1: a compatible bit lets unknown fields pass, a read-compatible one only for reading.
    #[test]
    fn feature_bits_say_who_may_pass_over_what() {
        let with_field = |class: &str| {
            let bit = edited(&sample(), &format!("\"{class}\": 0"), &format!("\"{class}\": 1"));
            edited(&bit, "\"claim\": {", "\"claim\": {\"more\": 1, ")
        };
        for (class, write, read) in
            [("compatible", true, true), ("read_compatible", false, true), ("incompatible", false, false)]
        {
            let bytes = if class == "compatible" {
                let bit = edited(&sample(), "{\"compatible\": 0", "{\"compatible\": 1");
                edited(&bit, "\"claim\": {", "\"claim\": {\"more\": 1, ")
            } else {
                with_field(class)
            };
            assert_eq!(decode_here(&bytes, OpenMode::ReadWrite).is_ok(), write, "{class}");
            assert_eq!(decode_here(&bytes, OpenMode::ReadOnly).is_ok(), read, "{class}");
        }
    }

    /// M1: every flipped bit of `global.json` is told.
    #[test]
    fn every_flipped_bit_is_told() {
        let bytes = sample();
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[index] ^= 1 << bit;
                let error = decode_here(&flipped, OpenMode::ReadWrite).unwrap_err();
                assert_eq!(error.kind, FaultKind::Damaged, "byte {index}, bit {bit}: {error}");
            }
        }
        for end in 0..bytes.len() {
            assert!(decode_here(&bytes[..end], OpenMode::ReadWrite).is_err(), "cut at {end}");
        }
    }

    proptest! {
        /// M1: what is written reads back.
        #[test]
        fn what_is_written_reads_back(manifest in arbitrary::manifest(), more: Option<(u32, u64)>) {
            let levels = files(&manifest);
            let edits = more.map(|(bytes, salt)| EditFile { generation: 5, bytes: u64::from(bytes >> 4), salt });
            let migrated_from = more.map(|(bytes, checksum)| MigratedFrom { bytes: bytes.into(), checksum });
            let bytes = encode(&manifest, &levels, edits, migrated_from);
            let global = decode_here(&bytes, OpenMode::ReadWrite);
            prop_assert_eq!(global, Ok(Global { manifest, levels, edits, migrated_from }));
        }

        /// M1: whatever stands under a checksum that fits, reading it neither panics nor loops.
        #[test]
        fn reading_mutated_bytes_is_safe(
            manifest in arbitrary::manifest(),
            at: prop::sample::Index,
            cut in 0..4_usize,
            insert in "[0-9a-z\"{}\\[\\], :-]{0,4}",
        ) {
            let bytes = encode(&manifest, &files(&manifest), None, None);
            let mut body = bytes[..bytes.len() - TRAILER_BYTES].to_vec();
            let at = at.index(body.len());
            let end = (at + cut).min(body.len());
            body.splice(at..end, insert.bytes());
            if let Ok(body) = String::from_utf8(body) {
                let _ = decode_here(&seal(body), OpenMode::ReadWrite);
            }
        }

        /// M1: arbitrary bytes are refused.
        #[test]
        fn reading_arbitrary_bytes_is_safe(bytes: Vec<u8>) {
            prop_assert!(decode_here(&bytes, OpenMode::ReadOnly).is_err());
        }
    }
}
