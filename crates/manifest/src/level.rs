//! Level files, `keyspaces/<id>/level_<n>.<generation>.json`: the tables of one level, a line a table.
//!
//! ```text
//! {
//!   "format": "lsm-level", "version": 1,
//!   "database_id": "00112233445566778899aabbccddeeff", "keyspace": 1, "level": 0, "generation": 12,
//!   "runs": [
//!     {"epoch": 7, "tables": [
//!       {"id": 4, "bytes": 9000, "xxh3": "0123456789abcdef", "min_key": "a", "max_key": "c%00", "min_seqno": 3, …}
//!     ]}
//!   ]
//! }
//! ```
//!
//! - **M1** A level file is written once, under a generation of its own, and never changed. Its checksum stands in
//!   `global.json`, which alone makes it count.
//! - **C3** Runs stand newest epoch first; the tables of a run ascend and are disjoint. Reading checks both.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, TableId};

use crate::global::{FORMAT_VERSION, version};
use crate::json::{Number, Source, Value, write_key};
use crate::{DatabaseId, DecodeError, RunEntry, TableEntry};

/// No level file longer than this is read: 16 GiB, some forty million tables.
pub const LEVEL_BYTES_MAX: u64 = 16 << 30;

const FORMAT_NAME: &str = "lsm-level";

/// Which level of which database a level file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelIdentity {
    /// The database.
    pub database_id: DatabaseId,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The level.
    pub level: Level,
    /// The generation in the file's name.
    pub generation: u64,
}

/// The bytes of a level file that holds `runs`.
pub fn encode(identity: LevelIdentity, runs: &[RunEntry]) -> Vec<u8> {
    let tables: usize = runs.iter().map(|run| run.tables.len()).sum();
    let mut out = String::with_capacity(256 + 320 * tables);
    let LevelIdentity { database_id, keyspace, level, generation } = identity;
    let _ = write!(
        out,
        concat!(
            "{{\n  \"format\": \"{}\", \"version\": {},\n",
            "  \"database_id\": \"{}\", \"keyspace\": {}, \"level\": {}, \"generation\": {},\n  \"runs\": [",
        ),
        FORMAT_NAME,
        FORMAT_VERSION,
        database_id,
        keyspace.get(),
        level.get(),
        Number(generation),
    );
    for (index, run) in runs.iter().enumerate() {
        out.push_str(if index == 0 { "\n    " } else { ",\n    " });
        let _ = write!(out, "{{\"epoch\": {}, \"tables\": [", Number(run.epoch.get()));
        for (index, table) in run.tables.iter().enumerate() {
            out.push_str(if index == 0 { "\n      " } else { ",\n      " });
            write_table(&mut out, table);
        }
        out.push_str("\n    ]}");
    }
    out.push_str("\n  ]\n}\n");
    out.into_bytes()
}

/// Writes a table as one line of JSON.
pub(crate) fn write_table(out: &mut String, table: &TableEntry) {
    let _ = write!(
        out,
        "{{\"id\": {}, \"bytes\": {}, \"xxh3\": \"{:016x}\", \"min_key\": ",
        Number(table.id.get()),
        Number(table.bytes),
        table.checksum
    );
    write_key(out, &table.min_key);
    out.push_str(", \"max_key\": ");
    write_key(out, &table.max_key);
    let _ = write!(
        out,
        concat!(
            ", \"min_seqno\": {}, \"max_seqno\": {}, \"entries\": {}, \"tombstones\": {}",
            ", \"logical_bytes\": {}, \"epoch\": {}, \"job\": {}",
        ),
        Number(table.min_seqno.get()),
        Number(table.max_seqno.get()),
        Number(table.entries),
        Number(table.tombstones),
        Number(table.logical_bytes),
        Number(table.epoch.get()),
        Number(table.job.get()),
    );
    // Only batch tables have one (P11).
    if table.seqno_base != 0 {
        let _ = write!(out, ", \"seqno_base\": {}", Number(table.seqno_base));
    }
    // Only where rows are dropped for their age.
    if table.newest_unix_ms != 0 {
        let _ = write!(out, ", \"newest_unix_ms\": {}", Number(table.newest_unix_ms));
    }
    out.push('}');
}

/// Reads what [`write_table`] writes.
pub(crate) fn read_table(value: Value<'_>) -> Result<TableEntry, DecodeError> {
    let spot = value.spot();
    let mut object = value.object()?;
    let table = TableEntry {
        id: TableId(object.field("id")?.u64()?),
        bytes: object.field("bytes")?.u64()?,
        checksum: object.field("xxh3")?.hex64()?,
        min_key: object.field("min_key")?.key()?,
        max_key: object.field("max_key")?.key()?,
        min_seqno: object.field("min_seqno")?.seqno()?,
        max_seqno: object.field("max_seqno")?.seqno()?,
        entries: object.field("entries")?.u64()?,
        tombstones: object.field("tombstones")?.u64()?,
        logical_bytes: object.field("logical_bytes")?.u64()?,
        epoch: Epoch(object.field("epoch")?.u64()?),
        job: JobId(object.field("job")?.u64()?),
        seqno_base: object.optional("seqno_base").map_or(Ok(0), Value::u64)?,
        newest_unix_ms: object.optional("newest_unix_ms").map_or(Ok(0), Value::u64)?,
    };
    object.reserved(&["filter", "dictionary", "range_deletes", "encryption"])?;
    object.finish()?;
    if table.min_key > table.max_key {
        return Err(spot.wrong("min_key at or before max_key", "a min_key after max_key"));
    }
    if table.min_seqno > table.max_seqno {
        return Err(spot.wrong("min_seqno at or before max_seqno", "a min_seqno after max_seqno"));
    }
    Ok(table)
}

/// The runs that the bytes of a level file hold. `file` is named in errors.
///
/// # Errors
/// If the file is of another level, its format is unknown, or anything does not fit: never a panic, whatever the bytes.
/// The caller has compared the bytes with the checksum in `global.json`.
pub fn decode(file: &Path, bytes: &[u8], identity: LevelIdentity) -> Result<Vec<RunEntry>, DecodeError> {
    let mut root = Source::strict(file).parse(bytes)?.object()?;
    root.field("format")?.exactly(FORMAT_NAME)?;
    version(root.field("version")?)?;
    let database_id = root.field("database_id")?;
    let other = database_id.wrong(format!("{:?}", identity.database_id.to_string()));
    if database_id.hex128()? != identity.database_id.0 {
        return Err(other);
    }
    for (name, expected) in [
        ("keyspace", u64::from(identity.keyspace.get())),
        ("level", identity.level.get().into()),
        ("generation", identity.generation),
    ] {
        let value = root.field(name)?;
        let other = value.wrong(expected.to_string());
        if value.u64()? != expected {
            return Err(other);
        }
    }
    let mut runs: Vec<RunEntry> = Vec::new();
    let mut ids = HashSet::new();
    for value in root.field("runs")?.list()? {
        let spot = value.spot();
        let run = read_run(value, &mut ids)?;
        if runs.last().is_some_and(|newer| newer.epoch <= run.epoch) {
            return Err(spot.wrong("a run older than the one before it", run.epoch.to_string()));
        }
        runs.push(run);
    }
    root.reserved(&["encryption"])?;
    root.finish()?;
    Ok(runs)
}

fn read_run(value: Value<'_>, ids: &mut HashSet<TableId>) -> Result<RunEntry, DecodeError> {
    let run = value.spot();
    let mut object = value.object()?;
    let epoch = Epoch(object.field("epoch")?.u64()?);
    let mut tables: Vec<Arc<TableEntry>> = Vec::new();
    for value in object.field("tables")?.list()? {
        let spot = value.spot();
        let table = read_table(value)?;
        let overlaps = tables.last().is_some_and(|before| before.max_key >= table.min_key);
        if overlaps && !planted_faults::planted("manifest-overlapping-run-read") {
            let found = format!("min_key {}", table.min_key.escape_ascii());
            return Err(spot.wrong("keys after those of the table before it", found));
        }
        if !ids.insert(table.id) {
            return Err(spot.wrong("a table id of its own", format!("{} a second time", table.id.get())));
        }
        tables.push(Arc::new(table));
    }
    object.finish()?;
    if tables.is_empty() {
        return Err(run.wrong("a run of at least one table", "none"));
    }
    Ok(RunEntry { epoch, tables })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{FaultKind, arbitrary};

    const IDENTITY: LevelIdentity =
        LevelIdentity { database_id: DatabaseId(7), keyspace: KeyspaceId(1), level: Level(0), generation: 4 };

    fn sample() -> String {
        let table = |id: u64, min: &[u8], max: &[u8]| {
            Arc::new(TableEntry {
                id: TableId(id),
                bytes: 900,
                checksum: 1,
                min_key: min.into(),
                max_key: max.into(),
                min_seqno: internal_key::SeqNo::ZERO,
                max_seqno: internal_key::SeqNo::MAX,
                entries: 3,
                tombstones: 1,
                logical_bytes: 1000,
                epoch: Epoch(2),
                job: JobId(5),
                seqno_base: 0,
                newest_unix_ms: 0,
            })
        };
        let runs = [
            RunEntry { epoch: Epoch(2), tables: vec![table(3, b"a", b"c"), table(4, b"d", b"f")] },
            RunEntry { epoch: Epoch(1), tables: vec![table(2, b"b", b"e")] },
        ];
        String::from_utf8(encode(IDENTITY, &runs)).unwrap()
    }

    fn decode_here(text: &str) -> Result<Vec<RunEntry>, DecodeError> {
        decode(Path::new("level_0.4.json"), text.as_bytes(), IDENTITY)
    }

    /// C3: each thing that must not pass is refused, at its place.
    #[test]
    fn what_does_not_fit_is_refused_at_its_place() {
        use FaultKind::{Damaged, Unsupported};
        for (from, to, kind, place) in [
            ("\"version\": 1", "\"version\": 3", Unsupported, "version"),
            ("\"database_id\": \"0", "\"database_id\": \"1", Damaged, "database_id"),
            ("\"keyspace\": 1", "\"keyspace\": 2", Damaged, "keyspace"),
            ("\"level\": 0", "\"level\": 1", Damaged, "level"),
            ("\"generation\": 4", "\"generation\": 5", Damaged, "generation"),
            ("\"epoch\": 1, \"tables\"", "\"epoch\": 2, \"tables\"", Damaged, "runs[1]"),
            ("\"min_key\": \"d\"", "\"min_key\": \"c\"", Damaged, "runs[0].tables[1]"),
            ("\"min_key\": \"d\"", "\"min_key\": \"g\"", Damaged, "runs[0].tables[1]"),
            ("\"min_key\": \"d\"", "\"min_key\": \"%64\"", Damaged, "runs[0].tables[1].min_key"),
            ("{\"id\": 2,", "{\"id\": 3,", Damaged, "runs[1].tables[0]"),
            (
                "\"min_seqno\": 0, \"max_seqno\": \"72057594037927935\"",
                "\"min_seqno\": 2, \"max_seqno\": 1",
                Damaged,
                "runs[0].tables[0]",
            ),
            ("\"job\": 5", "\"job\": 5, \"dictionary\": {\"offset\": 1}", Unsupported, "runs[0].tables[0].dictionary"),
            ("\"job\": 5", "\"job\": 5, \"colour\": null", Unsupported, "runs[0].tables[0].colour"),
            ("\"entries\": 3", "\"entries\": 3.5", Damaged, "runs[0].tables[0].entries"),
        ] {
            let text = sample();
            assert!(text.contains(from), "{from} stands in {text}");
            let error = decode_here(&text.replacen(from, to, 1)).unwrap_err();
            assert_eq!((error.kind, error.place.to_string()), (kind, place.to_owned()), "{from} -> {to}: {error}");
        }
        assert_eq!(
            decode_here(&sample().replacen("\"job\": 5", "\"job\": 5, \"filter\": null", 1)),
            decode_here(&sample())
        );
        let empty_run = sample().replacen("  \"runs\": [", "  \"runs\": [{\"epoch\": 9, \"tables\": []},", 1);
        assert_eq!(decode_here(&empty_run).unwrap_err().place.to_string(), "runs[0]");
    }

    proptest! {
        /// M1: what is written reads back.
        #[test]
        fn what_is_written_reads_back(runs in arbitrary::runs()) {
            let bytes = encode(IDENTITY, &runs);
            prop_assert_eq!(decode(Path::new("f"), &bytes, IDENTITY), Ok(runs));
        }

        /// M1: whatever the bytes, reading them neither panics nor gives runs that break C3.
        #[test]
        fn reading_mutated_bytes_is_safe(
            runs in arbitrary::runs(),
            at: prop::sample::Index,
            cut in 0..4_usize,
            insert in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut bytes = encode(IDENTITY, &runs);
            let at = at.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, insert);
            if let Ok(runs) = decode(Path::new("f"), &bytes, IDENTITY) {
                prop_assert!(runs.windows(2).all(|pair| pair[0].epoch > pair[1].epoch));
                for run in &runs {
                    prop_assert!(run.tables.windows(2).all(|pair| pair[0].max_key < pair[1].min_key));
                }
            }
        }

        /// M1: arbitrary bytes are refused.
        #[test]
        fn reading_arbitrary_bytes_is_safe(bytes: Vec<u8>) {
            prop_assert!(decode(Path::new("f"), &bytes, IDENTITY).is_err());
        }
    }
}
