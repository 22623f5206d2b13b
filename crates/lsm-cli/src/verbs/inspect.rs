//! `inspect`: one file of a database, or its whole manifest, as text or JSON. The database is not opened.
//!
//! ```text
//!   a directory      ─▶ the manifest: global.json, level files, edit file
//!   "lsmtable"       ─▶ a table: properties, blocks, entries
//!   "lsm-log\n"      ─▶ a log segment: header, records, their entries
//!   {"format": …     ─▶ global.json or a level file
//!   {"n": 1, …       ─▶ an edit file
//! ```
//!
//! What a file is, its first bytes say; its name decides only where those are damaged. Bytes are untrusted: damage is a
//! message with its place, after whatever could be read.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use file_system::{Environment, FileSystem};
use internal_key::{Cursor, KeyspaceId, Level};
use lsm_facade::Access;
use lsm_facade::batch_format::{self, BatchReference};
use manifest::level::LevelIdentity;
use manifest::{DatabaseId, FollowerStore, KeyspaceState, Manifest, OpenMode, RunEntry, TableEntry};
use serde_json::{Value, json};
use sstable_format::{BlockInfo, Detail, ReadOptions, TableReader};
use write_ahead_log::{Inspected, Inspection, RecordHeader, RecordKind};

use crate::failure::{Failure, Outcome};
use crate::text::{escape, grouped};

/// Prints a table, a log segment, a level file, an edit file or a manifest: name a file, or a database's directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 if the file is damaged; what could be read is printed first.

Examples:
  lsm inspect words.db
  lsm inspect words.db/tables/3.sst --detail entries
  lsm inspect words.db/log/1.wal --json")]
pub(crate) struct Arguments {
    /// The file, or the database's directory
    path: PathBuf,
    /// As JSON; for tables and logs one object on each line
    #[arg(long)]
    json: bool,
    /// How much of a table or log is shown
    #[arg(long, value_enum, default_value_t = DetailName::Parts)]
    detail: DetailName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum DetailName {
    /// Header and totals
    Summary,
    /// Each block, each record
    Parts,
    /// Each entry
    Entries,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Log,
    Global,
    Level,
    Edits,
}

/// JSON files of a manifest are read whole; larger ones are refused.
const JSON_BYTES_MAX: u64 = 1 << 30;

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let environment = Environment::real();
    let path = &*arguments.path;
    if path.is_dir() {
        let store = FollowerStore::open(&environment, path).map_err(Failure::failed)?;
        return whole_manifest(&store.current(), arguments.json, out);
    }
    let files = &*environment.files;
    match kind_of(files, path)? {
        Kind::Table => table(files, arguments, out),
        Kind::Log => log(files, arguments, out),
        Kind::Global => global(files, arguments, out),
        Kind::Level => level(files, arguments, out),
        Kind::Edits => edits(files, arguments, out),
    }
}

/// What the first bytes say, and where they say nothing, the name.
fn kind_of(files: &dyn FileSystem, path: &Path) -> Outcome<Kind> {
    let file = files.open(path).map_err(Failure::failed)?;
    let mut start = vec![0; file.len().min(32) as usize];
    file.read_exact_at(0, &mut start).map_err(Failure::failed)?;
    let starts: [(&[u8], Kind); 5] = [
        (&sstable_format::footer::HEADER_MAGIC, Kind::Table),
        (&write_ahead_log::MAGIC, Kind::Log),
        (b"{\n  \"format\": \"lsm-global\"", Kind::Global),
        (b"{\n  \"format\": \"lsm-level\"", Kind::Level),
        (b"{\"n\": 1, ", Kind::Edits),
    ];
    if let Some((_, kind)) = starts.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Ok(*kind);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match () {
        () if manifest::paths::parse_table_name(&name).is_some() => Ok(Kind::Table),
        () if manifest::paths::parse_segment_name(&name).is_some() => Ok(Kind::Log),
        () if name == manifest::paths::GLOBAL_NAME => Ok(Kind::Global),
        () if manifest::paths::parse_level_name(&name).is_some() => Ok(Kind::Level),
        () if manifest::paths::parse_edits_name(&name).is_some() => Ok(Kind::Edits),
        () => {
            Err(Failure::failed(format_args!("{}: no file of a database by its name or first bytes", path.display())))
        }
    }
}

fn json_line(out: &mut dyn Write, value: &Value) -> Outcome {
    serde_json::to_writer(&mut *out, value)?;
    Ok(writeln!(out)?)
}

fn json_whole(out: &mut dyn Write, value: &Value) -> Outcome {
    serde_json::to_writer_pretty(&mut *out, value)?;
    Ok(writeln!(out)?)
}

// ---- tables

fn table(files: &dyn FileSystem, arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let path = &*arguments.path;
    let open = || {
        let (expected, _) = sstable_format::identify(files, path)?;
        // Not mapped: a disk that fails is then an error and not a signal.
        TableReader::open(files, path, expected, ReadOptions { access: Access::Pread, block_cache: None })
    };
    let table = Arc::new(open().map_err(Failure::no)?);
    if arguments.json {
        return table_json(&table, arguments.detail, out);
    }
    let detail = match arguments.detail {
        DetailName::Summary => Detail::Summary,
        DetailName::Parts => Detail::Blocks,
        DetailName::Entries => Detail::Entries,
    };
    let mut written = Ok(());
    let drawn = sstable_format::inspect(&table, detail, &mut |line| {
        written = writeln!(out, "{line}");
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    written?;
    drawn.map_err(Failure::no)
}

fn table_json(table: &Arc<TableReader>, detail: DetailName, out: &mut dyn Write) -> Outcome {
    let properties = table.properties();
    let identity = &properties.identity;
    json_line(
        out,
        &json!({
            "table": identity.table.get(),
            "database_id": format!("{:032x}", identity.database_id),
            "keyspace": identity.keyspace.get(),
            "level": identity.level.get(),
            "epoch": identity.epoch.get(),
            "job": identity.job.get(),
            "inputs": identity.inputs.iter().map(|input| input.get()).collect::<Vec<_>>(),
            "output": [identity.output_index, identity.output_count],
            "bytes": table.bytes(),
            "entries": properties.entries,
            "tombstones": properties.tombstones,
            "logical_bytes": properties.logical_bytes,
            "raw_bytes": properties.raw_bytes,
            "data_blocks": table.data_blocks(),
            "min_key": escape(&properties.min_key),
            "max_key": escape(&properties.max_key),
            "min_seqno": properties.min_seqno.get(),
            "max_seqno": properties.max_seqno.get(),
        }),
    )?;
    match detail {
        DetailName::Summary => Ok(()),
        DetailName::Parts => {
            let mut outcome = Ok(());
            let walked = sstable_format::for_each_block(table, &mut |block| {
                outcome = json_line(out, &block_json(&block));
                if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            outcome?;
            walked.map_err(Failure::no)
        }
        DetailName::Entries => {
            let mut cursor = table.cursor();
            cursor.seek_to_first().map_err(Failure::no)?;
            while cursor.valid() {
                let (seqno, kind) = (cursor.trailer().seqno().get(), cursor.trailer().kind().to_string());
                let value = escape(cursor.value().map_err(Failure::no)?);
                let key = escape(cursor.user_key());
                json_line(out, &json!({"key": key, "seqno": seqno, "kind": kind, "value": value}))?;
                cursor.next().map_err(Failure::no)?;
            }
            Ok(())
        }
    }
}

fn block_json(block: &BlockInfo) -> Value {
    json!({
        "block": block.ordinal,
        "offset": block.offset,
        "bytes": block.frame_bytes,
        "compressed": block.compressed,
        "rows": block.rows,
        "largest_seqno": block.largest_seqno,
        "trailer_bytes": block.trailer_bytes,
        "flags": block.flags,
        "prefix": escape(&block.prefix),
        "separator": escape(&block.separator),
    })
}

// ---- log segments

fn log(files: &dyn FileSystem, arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let path = &*arguments.path;
    let inspection = Inspection::open(files, path).map_err(Failure::no)?;
    let file = files.open(path).map_err(Failure::failed)?;
    let header = *inspection.header();
    let database_id = format!("{:032x}", header.database_id);
    if arguments.json {
        json_line(
            out,
            &json!({
                "segment": header.name.id.get(),
                "salt": format!("{:016x}", header.name.salt),
                "database_id": database_id,
                "bytes": header.segment_bytes,
            }),
        )?;
    } else {
        writeln!(out, "segment {}, {} bytes, database {database_id}", header.name, header.segment_bytes)?;
    }
    let (mut records, mut payload_bytes, mut damaged) = (0_u64, 0_u64, 0_u64);
    for found in inspection {
        let found = found.map_err(Failure::failed)?;
        damaged += u64::from(found.payload_is_whole() == Some(false));
        if let Inspected::Record { header, .. } = &found {
            records += 1;
            payload_bytes += u64::from(header.payload_len);
        }
        if arguments.detail == DetailName::Summary {
            continue;
        }
        match arguments.json {
            true => json_line(out, &record_json(&found))?,
            false => writeln!(out, "{found}")?,
        }
        if arguments.detail < DetailName::Entries || found.payload_is_whole() != Some(true) {
            continue;
        }
        if let Inspected::Record { header, .. } = &found {
            let mut payload = vec![0; header.payload_len as usize];
            file.read_exact_at(header.payload_offset(), &mut payload).map_err(Failure::failed)?;
            damaged += u64::from(!record_entries(header, &payload, arguments.json, out)?);
        }
    }
    if arguments.json {
        json_line(out, &json!({"records": records, "payload_bytes": payload_bytes, "damaged": damaged}))?;
    } else {
        writeln!(out, "{} records, {} bytes of payload", grouped(records), grouped(payload_bytes))?;
    }
    match damaged {
        0 => Ok(()),
        count => {
            let path = path.display();
            Err(Failure::no(format_args!("{path}: {count} records are damaged, or were not written to their end")))
        }
    }
}

fn record_json(found: &Inspected) -> Value {
    match found {
        Inspected::Record { header, payload_crc, successor } => json!({
            "offset": header.position.offset,
            "kind": header.kind.to_string(),
            "first_seqno": header.first_seqno.get(),
            "payload_bytes": header.payload_len,
            "claim": {"segment": header.claim.segment.get(), "offset": header.claim.offset},
            "successor": successor.map(|successor| successor.id.get()),
            "whole": header.payload_crc == *payload_crc,
        }),
        Inspected::Unknown { from, kind, .. } => json!({"offset": from, "unknown_kind": kind}),
        Inspected::Gap { from, to, zeros } => json!({"offset": from, "gap_bytes": to - from, "zeros": zeros}),
        _ => json!({"text": found.to_string()}),
    }
}

/// Prints what a record's payload says; `false` if it does not make sense.
fn record_entries(header: &RecordHeader, payload: &[u8], json: bool, out: &mut dyn Write) -> Outcome<bool> {
    match header.kind {
        RecordKind::Batch => {
            let entries = match batch_format::decode(payload) {
                Ok(entries) => entries,
                Err(error) => return complain(&error, out),
            };
            for (entry, seqno) in entries.zip(header.first_seqno.get()..) {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => return complain(&error, out),
                };
                let (key, value) = (escape(entry.key), escape(entry.value));
                let (keyspace, kind) = (entry.keyspace, entry.kind);
                if json {
                    let (keyspace, kind) = (keyspace.get(), kind.to_string());
                    let entry = json!({"keyspace": keyspace, "seqno": seqno, "kind": kind, "key": key, "value": value});
                    json_line(out, &entry)?;
                } else {
                    writeln!(out, "              {keyspace} #{seqno} {kind} \"{key}\" = \"{value}\"")?;
                }
            }
        }
        RecordKind::BatchReference => match BatchReference::decode(payload) {
            Err(error) => return complain(&error, out),
            Ok(reference) => {
                for part in &reference.parts {
                    let (keyspace, table, bytes) = (part.keyspace, part.table, part.bytes);
                    if json {
                        let (keyspace, table) = (keyspace.get(), table.get());
                        json_line(out, &json!({"keyspace": keyspace, "table": table, "bytes": bytes}))?;
                    } else {
                        writeln!(out, "              {keyspace} {table}, {bytes} bytes")?;
                    }
                }
            }
        },
        RecordKind::ClearKeyspace | RecordKind::DropKeyspace => match batch_format::decode_keyspace(payload) {
            Err(error) => return complain(&error, out),
            Ok(keyspace) if json => json_line(out, &json!({"keyspace": keyspace.get()}))?,
            Ok(keyspace) => writeln!(out, "              {keyspace}")?,
        },
        _ => {}
    }
    Ok(true)
}

fn complain(error: &batch_format::BatchError, out: &mut dyn Write) -> Outcome<bool> {
    writeln!(out, "              {error}")?;
    Ok(false)
}

// ---- manifests

fn read_json(files: &dyn FileSystem, path: &Path) -> Outcome<Vec<u8>> {
    files.read(path, JSON_BYTES_MAX).map_err(Failure::failed)
}

/// Everything that the manifest says, its files put together.
fn whole_manifest(manifest: &Manifest, json: bool, out: &mut dyn Write) -> Outcome {
    if json {
        let mut value = heading_json(manifest);
        value["keyspaces"] = manifest.keyspaces.values().map(|keyspace| keyspace_json(keyspace)).collect();
        return json_whole(out, &value);
    }
    write_heading(manifest, out)?;
    for keyspace in manifest.keyspaces.values() {
        write_keyspace(keyspace, out)?;
        for (level, state) in (0_u8..).map(Level).zip(&keyspace.levels) {
            if !state.runs.is_empty() {
                writeln!(out, "  {level}, generation {}", state.generation)?;
                write_runs(&state.runs, "    ", out)?;
            }
        }
    }
    Ok(())
}

/// `global.json` alone: it names level files and does not hold what is in them.
fn global(files: &dyn FileSystem, arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let path = &*arguments.path;
    let bytes = read_json(files, path)?;
    let global = manifest::global::decode(path, &bytes, OpenMode::ReadOnly).map_err(Failure::no)?;
    if arguments.json {
        // The file is JSON, and now known to be whole.
        return Ok(out.write_all(&bytes)?);
    }
    write_heading(&global.manifest, out)?;
    if let Some(edits) = global.edits {
        writeln!(out, "edit file      generation {}, {} bytes", edits.generation, grouped(edits.bytes))?;
    }
    if let Some(former) = global.migrated_from {
        writeln!(out, "migrated from  {} bytes, xxh3 {:016x}", grouped(former.bytes), former.checksum)?;
    }
    for keyspace in global.manifest.keyspaces.values() {
        write_keyspace(keyspace, out)?;
        for ((_, level), file) in global.levels.iter().filter(|((owner, _), _)| *owner == keyspace.id) {
            let (generation, bytes) = (file.generation, grouped(file.bytes));
            writeln!(out, "  {level}, generation {generation}, {bytes} bytes, xxh3 {:016x}", file.checksum)?;
        }
    }
    Ok(())
}

/// A level file, taken at its own word for which level it is.
fn level(files: &dyn FileSystem, arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let path = &*arguments.path;
    let bytes = read_json(files, path)?;
    let identity = level_identity(&bytes)
        .ok_or_else(|| Failure::no(format_args!("{}: it does not say which level it is", path.display())))?;
    let runs = manifest::level::decode(path, &bytes, identity).map_err(Failure::no)?;
    if arguments.json {
        // As above.
        return Ok(out.write_all(&bytes)?);
    }
    let LevelIdentity { database_id, keyspace, level, generation } = identity;
    writeln!(out, "{level} of {keyspace}, generation {generation}, database {database_id}")?;
    write_runs(&runs, "  ", out)
}

fn level_identity(bytes: &[u8]) -> Option<LevelIdentity> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let number = |name: &str| match value.get(name)? {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    };
    Some(LevelIdentity {
        database_id: DatabaseId(u128::from_str_radix(value.get("database_id")?.as_str()?, 16).ok()?),
        keyspace: KeyspaceId(number("keyspace")?.try_into().ok()?),
        level: Level(number("level")?.try_into().ok()?),
        generation: number("generation")?,
    })
}

/// An edit file: each line with its changes. Its salt, which `global.json` holds, is also what its first line chains to.
fn edits(files: &dyn FileSystem, arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let path = &*arguments.path;
    let bytes = read_json(files, path)?;
    let parse = |line: &[u8]| serde_json::from_slice::<Value>(line).ok();
    let first = bytes.split(|&byte| byte == b'\n').next().and_then(parse);
    let salt = first.as_ref().and_then(|line| u64::from_str_radix(line.get("prev")?.as_str()?, 16).ok());
    let Some(salt) = salt else {
        return Err(Failure::no(format_args!("{}: its first line is unreadable", path.display())));
    };
    let chain = manifest::edit_file::replay(path, &bytes, salt, |_, _| Ok(())).map_err(Failure::no)?;
    let whole = bytes.get(..usize::try_from(chain.offset).unwrap_or(usize::MAX)).unwrap_or(&bytes);
    if arguments.json {
        return Ok(out.write_all(whole)?);
    }
    writeln!(out, "edit file, salt {salt:016x}")?;
    for line in whole.split(|&byte| byte == b'\n').filter_map(parse) {
        writeln!(out, "line {}", line["n"])?;
        for edit in line["edits"].as_array().into_iter().flatten() {
            writeln!(out, "  edit")?;
            for change in edit.as_array().into_iter().flatten() {
                writeln!(out, "    {change}")?;
            }
        }
    }
    writeln!(out, "{} lines, {} bytes of {}", chain.next - 1, grouped(chain.offset), grouped(bytes.len() as u64))?;
    Ok(())
}

fn write_heading(manifest: &Manifest, out: &mut dyn Write) -> Outcome {
    let Manifest { next_table_id, next_segment_id, next_keyspace_id, next_job_id, next_epoch, .. } = manifest;
    writeln!(out, "database       {}", manifest.database_id)?;
    writeln!(out, "generation     {}", manifest.generation)?;
    writeln!(out, "next ids       {next_table_id} {next_segment_id} {next_keyspace_id} {next_job_id} {next_epoch}")?;
    writeln!(out, "last seqno     {}", manifest.last_seqno)?;
    writeln!(out, "log floor      {}, salt {:016x}", manifest.log_floor.segment, manifest.log_floor.salt)?;
    let clean = if manifest.closed_cleanly { ", closed cleanly" } else { "" };
    writeln!(out, "claim          {}+{}{clean}", manifest.claim.segment, manifest.claim.offset)?;
    Ok(())
}

fn heading_json(manifest: &Manifest) -> Value {
    json!({
        "database_id": manifest.database_id.to_string(),
        "generation": manifest.generation,
        "next": {
            "table": manifest.next_table_id.get(),
            "segment": manifest.next_segment_id.get(),
            "keyspace": manifest.next_keyspace_id.get(),
            "job": manifest.next_job_id.get(),
            "epoch": manifest.next_epoch.get(),
        },
        "last_seqno": manifest.last_seqno.get(),
        "log_floor": {"segment": manifest.log_floor.segment.get(), "salt": format!("{:016x}", manifest.log_floor.salt)},
        "claim": {"segment": manifest.claim.segment.get(), "offset": manifest.claim.offset},
        "closed_cleanly": manifest.closed_cleanly,
    })
}

fn write_keyspace(keyspace: &KeyspaceState, out: &mut dyn Write) -> Outcome {
    writeln!(out, "\nkeyspace {} \"{}\"", keyspace.id, escape(keyspace.name.as_bytes()))?;
    let KeyspaceState { created_seqno, flushed_seqno, history_floor, .. } = keyspace;
    writeln!(out, "  created {created_seqno}, flushed {flushed_seqno}, history floor {history_floor}")?;
    for (name, value) in &keyspace.options {
        writeln!(out, "  {name} = {value}")?;
    }
    Ok(())
}

fn keyspace_json(keyspace: &KeyspaceState) -> Value {
    let levels = (0_u8..).zip(&keyspace.levels).filter(|(_, state)| !state.runs.is_empty()).map(|(level, state)| {
        let runs: Vec<Value> = state
            .runs
            .iter()
            .map(|run| json!({"epoch": run.epoch.get(), "tables": run.tables.iter().map(|table| table_entry_json(table)).collect::<Vec<_>>()}))
            .collect();
        json!({"level": level, "generation": state.generation, "runs": runs})
    });
    json!({
        "id": keyspace.id.get(),
        "name": keyspace.name,
        "options": keyspace.options,
        "created_seqno": keyspace.created_seqno.get(),
        "flushed_seqno": keyspace.flushed_seqno.get(),
        "history_floor": keyspace.history_floor.get(),
        "levels": levels.collect::<Vec<_>>(),
    })
}

fn write_runs(runs: &[RunEntry], indent: &str, out: &mut dyn Write) -> Outcome {
    for run in runs {
        writeln!(out, "{indent}run {}", run.epoch)?;
        for table in &run.tables {
            let TableEntry { id, bytes, entries, tombstones, min_seqno, max_seqno, job, .. } = &**table;
            let (min, max) = (escape(&table.min_key), escape(&table.max_key));
            write!(
                out,
                "{indent}  {id}  \"{min}\"..\"{max}\"  {} bytes, {} entries",
                grouped(*bytes),
                grouped(*entries)
            )?;
            writeln!(out, ", {tombstones} tombstones, {min_seqno}..{max_seqno}, by {job}")?;
        }
    }
    Ok(())
}

fn table_entry_json(table: &TableEntry) -> Value {
    json!({
        "id": table.id.get(),
        "bytes": table.bytes,
        "xxh3": format!("{:016x}", table.checksum),
        "min_key": escape(&table.min_key),
        "max_key": escape(&table.max_key),
        "min_seqno": table.min_seqno.get(),
        "max_seqno": table.max_seqno.get(),
        "entries": table.entries,
        "tombstones": table.tombstones,
        "logical_bytes": table.logical_bytes,
        "epoch": table.epoch.get(),
        "job": table.job.get(),
        "seqno_base": table.seqno_base,
    })
}
