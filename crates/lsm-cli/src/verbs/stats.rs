//! `stats`: what a database consists of.

use std::io::Write;
use std::path::{Path, PathBuf};

use lsm_facade::{Database, KeyspaceStats, Stats};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::text::{escape, grouped};

/// Prints what a database consists of: keyspaces, levels, tables, bytes. Opens it for reading only.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Entries count every version and every tombstone; `lsm count` counts rows.

Example:
  lsm stats words.db --json")]
pub(crate) struct Arguments {
    /// The database's directory
    db: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let database = Database::builder(&arguments.db).read_only(true).open()?;
    let stats = database.stats();
    let disk = DiskUse::of(&arguments.db)?;
    if arguments.json {
        serde_json::to_writer_pretty(&mut *out, &as_json(&stats, disk))?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "visible seqno  {}", stats.visible_seqno)?;
    let DiskUse { tables, log, manifest, .. } = disk;
    writeln!(
        out,
        "on disk        {} bytes of tables, {} of log, {} of manifest",
        grouped(tables),
        grouped(log),
        grouped(manifest)
    )?;
    for keyspace in &stats.keyspaces {
        writeln!(out, "\nkeyspace {} (ks{})", escape(keyspace.name.as_bytes()), keyspace.id)?;
        write_levels(out, keyspace)?;
    }
    Ok(())
}

/// The levels of a keyspace as a table.
pub(super) fn write_levels(out: &mut dyn Write, keyspace: &KeyspaceStats) -> Outcome {
    writeln!(out, "  level   runs  tables         bytes  logical bytes       entries  tombstones")?;
    let (entries, bytes) = (grouped(keyspace.memtable_entries), grouped(keyspace.memtable_bytes));
    writeln!(out, "  memory                {bytes:>12}                {entries:>12}")?;
    for level in &keyspace.levels {
        writeln!(
            out,
            "  L{:<5} {:>5} {:>7}  {:>12}   {:>12}  {:>12}  {:>10}",
            level.level,
            level.runs,
            level.tables,
            grouped(level.bytes),
            grouped(level.logical_bytes),
            grouped(level.entries),
            grouped(level.tombstones),
        )?;
    }
    Ok(())
}

fn as_json(stats: &Stats, disk: DiskUse) -> Value {
    let level = |level: &lsm_facade::LevelStats| {
        json!({
            "level": level.level,
            "runs": level.runs,
            "tables": level.tables,
            "bytes": level.bytes,
            "logical_bytes": level.logical_bytes,
            "entries": level.entries,
            "tombstones": level.tombstones,
        })
    };
    let keyspace = |keyspace: &KeyspaceStats| {
        json!({
            "name": keyspace.name,
            "id": keyspace.id,
            "memtable_entries": keyspace.memtable_entries,
            "memtable_bytes": keyspace.memtable_bytes,
            "levels": keyspace.levels.iter().map(level).collect::<Vec<_>>(),
        })
    };
    json!({
        "visible_seqno": stats.visible_seqno,
        "memory_bytes": {
            "memtables": stats.memory.memtables,
            "tables": stats.memory.tables,
            "block_cache_max": stats.memory.block_cache_max,
        },
        "disk_bytes": {"tables": disk.tables, "log": disk.log, "manifest": disk.manifest, "other": disk.other},
        "keyspaces": stats.keyspaces.iter().map(keyspace).collect::<Vec<_>>(),
    })
}

/// Bytes of a database's files, by what they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DiskUse {
    pub(super) tables: u64,
    /// Segments are allocated ahead: this is what they take, not what was written to them.
    pub(super) log: u64,
    pub(super) manifest: u64,
    pub(super) other: u64,
}

impl DiskUse {
    /// Adds up the lengths of the files below a directory. Files that vanish meanwhile count nothing.
    pub(super) fn of(dir: &Path) -> Outcome<Self> {
        let mut sum = Self::default();
        let mut left = vec![dir.to_owned()];
        while let Some(dir) = left.pop() {
            let entries = std::fs::read_dir(&dir).map_err(|error| Failure::reading(&dir, &error))?;
            for entry in entries.flatten() {
                let path = entry.path();
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    left.push(path);
                    continue;
                }
                let bytes = metadata.len();
                let is_event_log = entry.file_name().to_string_lossy().starts_with("events.");
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("sst") => sum.tables += bytes,
                    Some("wal") => sum.log += bytes,
                    Some("json" | "jsonl") if !is_event_log => sum.manifest += bytes,
                    _ => sum.other += bytes,
                }
            }
        }
        Ok(sum)
    }
}
