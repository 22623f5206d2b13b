//! The edit file, `edits.<generation>.jsonl`: edits as lines, where rewriting JSON files would cost too much (M3).
//!
//! ```text
//! {"n": 1, "prev": "<salt>",      "edits": [[{"replace_tables": {…}}, {"raise_claim": {…}}]], "xxh3": "…"}⏎
//! {"n": 2, "prev": "<xxh3 of 1>", "edits": [[…], […]], "xxh3": "<xxh3 of the line up to here, seed: the salt>"}⏎
//! 00 00 00 …                        the file is preallocated; zeros follow the last line to its end
//! ```
//!
//! - **M3** Syncing a line is its commit point. Lines are written one at a time, the next after the one before is
//!   durable: so a bad line with a good one after it was damaged, and a bad line with none after it was never
//!   acknowledged and is cut. A line holds what one pass committed: a list of edits, each a list of changes.
//! - **M7** From the store of a line until its sync has succeeded the outcome is unknown.
//!
//! What this cannot tell: damage to the last durable line looks like a tear and loses that line's edits.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, TableId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::json::{Number, Source, Value, parse_hex64, write_options, write_text};
use crate::level::{read_table, write_table};
use crate::{AddedTable, Change, DecodeError, Edit, Place, global};

/// No edit file longer than this is written or read.
pub const EDIT_FILE_BYTES_MAX: u64 = 256 << 20;

pub(crate) const LINE_TRAILER_START: &[u8] = b", \"xxh3\": \"";
pub(crate) const LINE_TRAILER_END: &[u8] = b"\"}\n";
pub(crate) const LINE_TRAILER_BYTES: usize = LINE_TRAILER_START.len() + 16 + LINE_TRAILER_END.len();

/// Where the chain of lines stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The file's salt: the seed of every line's checksum.
    pub salt: u64,
    /// The number of the next line, from 1.
    pub next: u64,
    /// The checksum of the line before it; the salt before the first.
    pub previous: u64,
    /// Where the next line begins.
    pub offset: u64,
}

impl Chain {
    /// The chain of a file without lines.
    pub fn new(salt: u64) -> Self {
        Self { salt, next: 1, previous: salt, offset: 0 }
    }
}

/// The next line of `chain`, holding `edits`, and the chain after it.
pub fn encode_line(chain: Chain, edits: &[&Edit]) -> (Vec<u8>, Chain) {
    let mut out = String::new();
    let _ = write!(out, "{{\"n\": {}, \"prev\": \"{:016x}\", \"edits\": [", Number(chain.next), chain.previous);
    for (index, edit) in edits.iter().enumerate() {
        out.push_str(if index == 0 { "[" } else { ", [" });
        for (index, change) in edit.changes.iter().enumerate() {
            if index > 0 {
                out.push_str(", ");
            }
            write_change(&mut out, change);
        }
        out.push(']');
    }
    out.push(']');
    let checksum = xxh3_64_with_seed(out.as_bytes(), chain.salt);
    let mut line = out.into_bytes();
    line.extend_from_slice(LINE_TRAILER_START);
    line.extend_from_slice(format!("{checksum:016x}").as_bytes());
    line.extend_from_slice(LINE_TRAILER_END);
    let offset = chain.offset + line.len() as u64;
    (line, Chain { next: chain.next + 1, previous: checksum, offset, ..chain })
}

/// Hands every line's edits to `on_line`, in order, and returns where the chain ends: where a torn last line, if there
/// is one, is cut.
///
/// # Errors
/// If a line before the last is damaged, or a whole line says what no version writes; and what `on_line` returns.
pub fn replay(
    file: &Path,
    bytes: &[u8],
    salt: u64,
    mut on_line: impl FnMut(Vec<Edit>, Place) -> Result<(), DecodeError>,
) -> Result<Chain, DecodeError> {
    let mut chain = Chain::new(salt);
    loop {
        let rest = bytes.get(chain.offset as usize..).unwrap_or_default();
        let Some((line, checksum)) = whole_line(rest, salt).filter(|(line, _)| fits(line, chain)) else {
            if rest.iter().any(|&byte| byte != 0) && !planted_faults::planted("manifest-damaged-edit-line-cut") {
                refuse_damage(file, rest, chain)?;
            }
            return Ok(chain);
        };
        let at = |error: DecodeError| match error.place {
            Place::Json(path) => DecodeError { place: Place::Json(format!("line {}, {path}", chain.next)), ..error },
            _ => DecodeError { place: Place::Byte(chain.offset), ..error },
        };
        let edits = read_line(file, line).map_err(at)?;
        on_line(edits, Place::Line { line: chain.next, column: 1 })?;
        let offset = chain.offset + line.len() as u64;
        chain = Chain { next: chain.next + 1, previous: checksum, offset, ..chain };
    }
}

/// The first line of `bytes` with its checksum, if the line is whole.
fn whole_line(bytes: &[u8], salt: u64) -> Option<(&[u8], u64)> {
    let end = bytes.iter().position(|&byte| byte == b'\n' || byte == 0)?;
    let line = bytes.get(..=end)?;
    let (body, trailer) = line.split_at_checked(line.len().checked_sub(LINE_TRAILER_BYTES)?)?;
    let stored = parse_hex64(trailer.strip_prefix(LINE_TRAILER_START)?.strip_suffix(LINE_TRAILER_END)?)?;
    let right =
        xxh3_64_with_seed(body, salt) == stored || planted_faults::planted("manifest-edit-line-checksum-unchecked");
    right.then_some((line, stored))
}

/// Whether a whole line is the next one of the chain.
fn fits(line: &[u8], chain: Chain) -> bool {
    let start = format!("{{\"n\": {}, \"prev\": \"{:016x}\", ", Number(chain.next), chain.previous);
    line.starts_with(start.as_bytes()) || planted_faults::planted("manifest-edit-chain-unchecked")
}

/// Looks behind a bad line for a whole one: then the bad line was durable once and is damaged (M3).
fn refuse_damage(file: &Path, rest: &[u8], chain: Chain) -> Result<(), DecodeError> {
    let mut at = 0;
    while let Some(start) = rest[at..].windows(6).position(|window| window == b"{\"n\": ").map(|found| at + found) {
        if whole_line(&rest[start..], chain.salt).is_some() {
            let expected = format!("line {}", chain.next);
            let found = format!("damage, and a whole line after it at byte {}", chain.offset + start as u64);
            return Err(DecodeError::damaged(file, Place::Byte(chain.offset), expected, found));
        }
        at = start + 1;
    }
    Ok(())
}

fn read_line(file: &Path, line: &[u8]) -> Result<Vec<Edit>, DecodeError> {
    let mut root = Source::strict(file).parse(line)?.object()?;
    root.field("n")?;
    root.field("prev")?;
    root.field("xxh3")?;
    let edits = root.field("edits")?.list()?.map(|edit| {
        let changes = edit.list()?.map(read_change).collect::<Result<_, _>>()?;
        Ok(Edit { changes })
    });
    let edits = edits.collect::<Result<_, _>>()?;
    root.finish()?;
    Ok(edits)
}

/// Writes a change as an object of one field, its name.
fn write_change(out: &mut String, change: &Change) {
    let _ = match change {
        Change::CreateKeyspace { id, name, options, created_seqno } => {
            let _ = write!(out, "{{\"create_keyspace\": {{\"id\": {}, \"name\": ", id.get());
            write_text(out, name);
            out.push_str(", \"options\": ");
            write_options(out, options);
            write!(out, ", \"created_seqno\": {}}}}}", Number(created_seqno.get()))
        }
        Change::DropKeyspace { id } => write!(out, "{{\"drop_keyspace\": {{\"id\": {}}}}}", id.get()),
        Change::ClearKeyspace { id, at } => {
            write!(out, "{{\"clear_keyspace\": {{\"id\": {}, \"at\": {}}}}}", id.get(), Number(at.get()))
        }
        Change::ReplaceTables { keyspace, removed, added, flushed_seqno } => {
            let _ = write!(out, "{{\"replace_tables\": {{\"keyspace\": {}, \"removed\": [", keyspace.get());
            for (index, (level, table)) in removed.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _ = write!(out, "{comma}{{\"level\": {}, \"table\": {}}}", level.get(), Number(table.get()));
            }
            out.push_str("], \"added\": [");
            for (index, AddedTable { level, run, table }) in added.iter().enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _ = write!(out, "{comma}{{\"level\": {}, \"run\": {}, ", level.get(), Number(run.get()));
                out.push_str("\"table\": ");
                write_table(out, table);
                out.push('}');
            }
            out.push(']');
            if let Some(seqno) = flushed_seqno {
                let _ = write!(out, ", \"flushed_seqno\": {}", Number(seqno.get()));
            }
            write!(out, "}}}}")
        }
        Change::RaiseHistoryFloor { keyspace, to } => {
            let to = Number(to.get());
            write!(out, "{{\"raise_history_floor\": {{\"keyspace\": {}, \"to\": {to}}}}}", keyspace.get())
        }
        Change::RaiseClaim(claim) => {
            let (segment, offset) = (Number(claim.segment.get()), Number(claim.offset));
            write!(out, "{{\"raise_claim\": {{\"segment\": {segment}, \"offset\": {offset}}}}}")
        }
        Change::RaiseLogFloor(floor) => {
            let segment = Number(floor.segment.get());
            write!(out, "{{\"raise_log_floor\": {{\"segment\": {segment}, \"salt\": \"{:016x}\"}}}}", floor.salt)
        }
        Change::RaiseLastSeqno(to) => write!(out, "{{\"raise_last_seqno\": {{\"to\": {}}}}}", Number(to.get())),
        Change::RaiseNextIds { table, segment, job, epoch } => {
            let (table, segment) = (Number(table.get()), Number(segment.get()));
            let (job, epoch) = (Number(job.get()), Number(epoch.get()));
            let ids = format!("\"table\": {table}, \"segment\": {segment}, \"job\": {job}, \"epoch\": {epoch}");
            write!(out, "{{\"raise_next_ids\": {{{ids}}}}}")
        }
        Change::EndLog => write!(out, "{{\"end_log\": {{}}}}"),
        Change::SetClosedCleanly(to) => write!(out, "{{\"set_closed_cleanly\": {{\"to\": {to}}}}}"),
    };
}

fn read_change(value: Value<'_>) -> Result<Change, DecodeError> {
    let spot = value.spot();
    let mut object = value.object()?;
    let mut fields = object.rest().into_iter();
    let (Some((name, value)), None) = (fields.next(), fields.next()) else {
        return Err(spot.wrong("an object of one field, the change's name", "none or several"));
    };
    let claim_or_floor = matches!(name.as_str(), "raise_claim" | "raise_log_floor");
    if claim_or_floor {
        return match name.as_str() {
            "raise_claim" => global::claim(value).map(Change::RaiseClaim),
            _ => global::log_floor(value).map(Change::RaiseLogFloor),
        };
    }
    let mut object = value.object()?;
    let mut id_of = |name: &'static str| object.field(name)?.u32().map(KeyspaceId);
    let change = match name.as_str() {
        "create_keyspace" => Change::CreateKeyspace {
            id: id_of("id")?,
            name: object.field("name")?.text()?,
            options: object.field("options")?.options()?,
            created_seqno: object.field("created_seqno")?.seqno()?,
        },
        "drop_keyspace" => Change::DropKeyspace { id: id_of("id")? },
        "clear_keyspace" => Change::ClearKeyspace { id: id_of("id")?, at: object.field("at")?.seqno()? },
        "replace_tables" => Change::ReplaceTables {
            keyspace: id_of("keyspace")?,
            removed: object.field("removed")?.list()?.map(read_removed).collect::<Result<_, _>>()?,
            added: object.field("added")?.list()?.map(read_added).collect::<Result<_, _>>()?,
            flushed_seqno: object.optional("flushed_seqno").map(Value::seqno).transpose()?,
        },
        "raise_history_floor" => {
            Change::RaiseHistoryFloor { keyspace: id_of("keyspace")?, to: object.field("to")?.seqno()? }
        }
        "raise_last_seqno" => Change::RaiseLastSeqno(object.field("to")?.seqno()?),
        "raise_next_ids" => Change::RaiseNextIds {
            table: TableId(object.field("table")?.u64()?),
            segment: SegmentId(object.field("segment")?.u64()?),
            job: JobId(object.field("job")?.u64()?),
            epoch: Epoch(object.field("epoch")?.u64()?),
        },
        "end_log" => Change::EndLog,
        "set_closed_cleanly" => Change::SetClosedCleanly(object.field("to")?.bool()?),
        _ => return Err(spot.unsupported("a known change", format!("{name:?}"))),
    };
    object.finish()?;
    Ok(change)
}

fn read_level(value: Value<'_>) -> Result<Level, DecodeError> {
    value.u64_max(Level::LAST.get().into()).map(|level| Level(level as u8))
}

fn read_removed(value: Value<'_>) -> Result<(Level, TableId), DecodeError> {
    let mut object = value.object()?;
    let removed = (read_level(object.field("level")?)?, TableId(object.field("table")?.u64()?));
    object.finish()?;
    Ok(removed)
}

fn read_added(value: Value<'_>) -> Result<AddedTable, DecodeError> {
    let mut object = value.object()?;
    let added = AddedTable {
        level: read_level(object.field("level")?)?,
        run: Epoch(object.field("run")?.u64()?),
        table: Arc::new(read_table(object.field("table")?)?),
    };
    object.finish()?;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary;

    const SALT: u64 = 0x5A17;

    fn file_of(lines: &[Vec<Edit>]) -> (Vec<u8>, Vec<u64>) {
        let mut chain = Chain::new(SALT);
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for line in lines {
            starts.push(chain.offset);
            let (line, next) = encode_line(chain, &line.iter().collect::<Vec<_>>());
            bytes.extend_from_slice(&line);
            chain = next;
        }
        bytes.resize(bytes.len() + 64, 0);
        (bytes, starts)
    }

    fn replay_all(bytes: &[u8]) -> Result<Vec<Vec<Edit>>, DecodeError> {
        let mut lines = Vec::new();
        replay(Path::new("edits.1.jsonl"), bytes, SALT, |line, _| {
            lines.push(line);
            Ok(())
        })?;
        Ok(lines)
    }

    fn three_lines() -> Vec<Vec<Edit>> {
        (1..=3).map(|id| vec![Edit::of(Change::DropKeyspace { id: KeyspaceId(id) })]).collect()
    }

    /// M3: damage anywhere but in the last line is told; a bad last line is uncommitted.
    #[test]
    fn every_flipped_byte_is_told_or_cuts_the_last_line() {
        let lines = three_lines();
        let (bytes, starts) = file_of(&lines);
        let last = starts[2] as usize;
        for index in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[index] ^= 0x10;
            match replay_all(&flipped) {
                Ok(found) if index < last => panic!("byte {index} flipped, {} lines found", found.len()),
                Ok(found) if index < bytes.len() - 64 => assert_eq!(found, lines[..2], "byte {index}"),
                Ok(found) => assert_eq!(found, lines, "byte {index} lies behind the lines"),
                Err(error) => assert!(index < last, "byte {index}: {error}"),
            }
        }
    }

    /// M3: a tear of the last line, wherever its pages end, cuts that line alone.
    #[test]
    fn a_torn_last_line_is_uncommitted() {
        let lines = three_lines();
        let (bytes, starts) = file_of(&lines);
        for torn in starts[2] as usize..bytes.len() - 64 {
            let mut front = bytes.clone();
            front[torn..].fill(0);
            assert_eq!(replay_all(&front).unwrap(), lines[..2], "the end from byte {torn} was lost");
            let mut back = bytes.clone();
            back[starts[2] as usize..=torn].fill(0);
            assert_eq!(replay_all(&back).unwrap(), lines[..2], "the start to byte {torn} was lost");
        }
    }

    /// M3: lines of another file, and lines out of order, do not fit the chain.
    #[test]
    fn lines_that_do_not_fit_the_chain_are_no_lines() {
        let (bytes, starts) = file_of(&three_lines());
        assert!(replay(Path::new("f"), &bytes, SALT + 1, |_, _| unreachable!("another file's line")).is_ok());
        let swapped = [&bytes[starts[1] as usize..starts[2] as usize], &bytes[..starts[1] as usize]].concat();
        assert!(replay_all(&swapped).is_err(), "whole lines stand behind one that does not fit");
    }

    proptest! {
        /// M3: what is written reads back.
        #[test]
        fn what_is_written_reads_back(
            lines in prop::collection::vec(prop::collection::vec(arbitrary::edit(), 1..3), 0..4),
        ) {
            let (bytes, _) = file_of(&lines);
            prop_assert_eq!(replay_all(&bytes), Ok(lines));
        }

        /// M3: whatever the bytes, reading them neither panics nor loops.
        #[test]
        fn reading_any_bytes_is_safe(
            bytes: Vec<u8>,
            body in "\\{\"n\": 1, \"prev\": \"0000000000005a17\", \"edits\": \\[[a-z\\[\\]{}\":, 0-9]{0,40}\\]",
        ) {
            let _ = replay_all(&bytes);
            // A line whose checksum fits, so that the reader behind it is met.
            let mut line = body.clone().into_bytes();
            let checksum = xxh3_64_with_seed(&line, SALT);
            line.extend_from_slice(LINE_TRAILER_START);
            line.extend_from_slice(format!("{checksum:016x}").as_bytes());
            line.extend_from_slice(LINE_TRAILER_END);
            let _ = replay_all(&line);
        }
    }
}
