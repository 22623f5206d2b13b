//! Where every file of a database lies, and which names are ours.
//!
//! ```text
//! <db>/
//!   global.json                                the commit point
//!   edits.<generation>.jsonl                   edits not yet folded into the JSON files (M3)
//!   keyspaces/<id>/level_<n>.<generation>.json
//!   tables/<id>.sst
//!   log/<id>.wal
//!   manifest.json, manifest.json.backup-<xxh3> the former layout, before and after its migration (M4)
//!   LOCK, LOCK.info                            the holder (the file system's)
//! ```
//!
//! Paths are made from ids, never from text found on disk, so nothing leads outside the directory. A name is parsed
//! back only if it is written exactly as this module writes it: `007.sst`, `+7.sst` and `7.SST` are nobody's files, and
//! nobody's files are left alone (M2).

use std::path::{Path, PathBuf};

use internal_key::{KeyspaceId, Level, SegmentId, TableId};

/// The name of the commit point.
pub const GLOBAL_NAME: &str = "global.json";
/// The name of the former layout's manifest (M4).
pub const FORMER_NAME: &str = "manifest.json";
/// What the name of a migrated manifest's backup begins with; 16 hexadecimal digits (its xxh3) follow.
pub const BACKUP_PREFIX: &str = "manifest.json.backup-";
/// The directory of the level files.
pub const KEYSPACES_NAME: &str = "keyspaces";
/// The directory of the tables.
pub const TABLES_NAME: &str = "tables";
/// The directory of the log.
pub const LOG_NAME: &str = "log";

/// The paths of one database. Cheap to clone; does no I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabasePaths {
    dir: PathBuf,
}

impl DatabasePaths {
    /// The paths of the database in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The database's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory that holds the database's directory: `.` for a bare name, `None` for a root.
    pub fn parent(&self) -> Option<&Path> {
        let parent = self.dir.parent()?;
        Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    /// `<db>/global.json`
    pub fn global(&self) -> PathBuf {
        self.dir.join(GLOBAL_NAME)
    }

    /// `<db>/edits.<generation>.jsonl`
    pub fn edits(&self, generation: u64) -> PathBuf {
        self.dir.join(edits_name(generation))
    }

    /// `<db>/keyspaces`
    pub fn keyspaces_dir(&self) -> PathBuf {
        self.dir.join(KEYSPACES_NAME)
    }

    /// `<db>/keyspaces/<id>`
    pub fn keyspace_dir(&self, keyspace: KeyspaceId) -> PathBuf {
        self.keyspaces_dir().join(keyspace.get().to_string())
    }

    /// `<db>/keyspaces/<id>/level_<n>.<generation>.json`
    pub fn level(&self, keyspace: KeyspaceId, level: Level, generation: u64) -> PathBuf {
        self.keyspace_dir(keyspace).join(level_name(level, generation))
    }

    /// `<db>/tables`
    pub fn tables_dir(&self) -> PathBuf {
        self.dir.join(TABLES_NAME)
    }

    /// `<db>/tables/<id>.sst`
    pub fn table(&self, table: TableId) -> PathBuf {
        self.tables_dir().join(table_name(table))
    }

    /// `<db>/log`
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join(LOG_NAME)
    }

    /// `<db>/log/<id>.wal`
    pub fn segment(&self, segment: SegmentId) -> PathBuf {
        self.log_dir().join(segment_name(segment))
    }

    /// `<db>/manifest.json`, the former layout's manifest (M4).
    pub fn former(&self) -> PathBuf {
        self.dir.join(FORMER_NAME)
    }

    /// `<db>/manifest.json.backup-<xxh3>`, where the migration keeps a former manifest with that checksum (M4).
    pub fn backup(&self, checksum: u64) -> PathBuf {
        self.dir.join(format!("{BACKUP_PREFIX}{checksum:016x}"))
    }
}

/// `<id>.sst`
pub fn table_name(table: TableId) -> String {
    format!("{}.sst", table.get())
}

/// `<id>.wal`
pub fn segment_name(segment: SegmentId) -> String {
    format!("{}.wal", segment.get())
}

/// `level_<n>.<generation>.json`
pub fn level_name(level: Level, generation: u64) -> String {
    format!("level_{}.{generation}.json", level.get())
}

/// `edits.<generation>.jsonl`
pub fn edits_name(generation: u64) -> String {
    format!("edits.{generation}.jsonl")
}

/// The table that a name in `tables/` stands for, if it is one of ours.
///
/// ```
/// use internal_key::TableId;
/// use manifest::paths::parse_table_name;
/// assert_eq!(parse_table_name("17.sst"), Some(TableId(17)));
/// assert_eq!(parse_table_name("017.sst"), None);
/// assert_eq!(parse_table_name("../17.sst"), None);
/// ```
pub fn parse_table_name(name: &str) -> Option<TableId> {
    number(name.strip_suffix(".sst")?).map(TableId)
}

/// The segment that a name in `log/` stands for, if it is one of ours.
pub fn parse_segment_name(name: &str) -> Option<SegmentId> {
    number(name.strip_suffix(".wal")?).map(SegmentId)
}

/// The level and generation that a name in `keyspaces/<id>/` stands for, if it is one of ours.
pub fn parse_level_name(name: &str) -> Option<(Level, u64)> {
    let (level, generation) = name.strip_prefix("level_")?.strip_suffix(".json")?.split_once('.')?;
    let level = u8::try_from(number(level)?).ok().map(Level).filter(|level| level.index() < Level::COUNT)?;
    Some((level, number(generation)?))
}

/// The keyspace that a directory name in `keyspaces/` stands for, if it is one of ours.
pub fn parse_keyspace_name(name: &str) -> Option<KeyspaceId> {
    number(name).and_then(|id| u32::try_from(id).ok()).map(KeyspaceId)
}

/// The generation that the name of an edit file stands for, if it is one of ours.
pub fn parse_edits_name(name: &str) -> Option<u64> {
    number(name.strip_prefix("edits.")?.strip_suffix(".jsonl")?)
}

/// A decimal number written as `to_string` writes it: digits alone, no leading zero.
pub(crate) fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// M2: only names written exactly as ours are ours.
    #[test]
    fn names_that_are_not_written_as_ours_are_not_parsed() {
        for name in ["", ".sst", "1", "01.sst", "+1.sst", "-1.sst", "1.sst ", " 1.sst", "1.SST", "a.sst", "1.2.sst"] {
            assert_eq!(parse_table_name(name), None, "{name:?}");
        }
        assert_eq!(parse_table_name("18446744073709551616.sst"), None, "one past the largest id");
        for name in ["level_7.1.json", "level_.1.json", "level_0.json", "level_0.01.json", "level_256.1.json"] {
            assert_eq!(parse_level_name(name), None, "{name:?}");
        }
        for name in ["4294967296", "", "..", "1a", "00"] {
            assert_eq!(parse_keyspace_name(name), None, "{name:?}");
        }
        for name in ["edits.jsonl", "edits..jsonl", "edits.1.json", "edits.1.jsonl.bak"] {
            assert_eq!(parse_edits_name(name), None, "{name:?}");
        }
    }

    proptest! {
        /// M2: every name we write is one of ours.
        #[test]
        fn written_names_parse_back(id: u64, keyspace: u32, level in 0..Level::COUNT as u8, generation: u64) {
            prop_assert_eq!(parse_table_name(&table_name(TableId(id))), Some(TableId(id)));
            prop_assert_eq!(parse_segment_name(&segment_name(SegmentId(id))), Some(SegmentId(id)));
            prop_assert_eq!(parse_level_name(&level_name(Level(level), generation)), Some((Level(level), generation)));
            prop_assert_eq!(parse_edits_name(&edits_name(generation)), Some(generation));
            let dir = DatabasePaths::new("db").keyspace_dir(KeyspaceId(keyspace));
            prop_assert_eq!(
                parse_keyspace_name(&dir.file_name().unwrap().to_string_lossy()),
                Some(KeyspaceId(keyspace))
            );
        }

        /// M2: no text makes the parsers panic, and what they accept they would have written.
        #[test]
        fn parsing_any_text_is_safe(name in "[a-z0-9_.+/-]{0,24}") {
            if let Some(id) = parse_table_name(&name) {
                prop_assert_eq!(table_name(id), name.clone());
            }
            if let Some((level, generation)) = parse_level_name(&name) {
                prop_assert_eq!(level_name(level, generation), name.clone());
            }
            if let Some(generation) = parse_edits_name(&name) {
                prop_assert_eq!(edits_name(generation), name);
            }
        }
    }
}
