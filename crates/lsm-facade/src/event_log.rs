//! The event log: what listeners are told, as lines of JSON in the database's directory.
//!
//! ```text
//!   events.1.jsonl   full              removed when 3 begins
//!   events.2.jsonl   full
//!   events.3.jsonl   {"unix_us": …, "event": "flush_ended", …, "text": "…"}⏎ … 00 00 00    written from front to back
//! ```
//!
//! - **P8** It is never a reason for anything to fail, and nothing waits for the disk because of it: it is not synced, and a
//!   line that cannot be written is counted and left out.
//! - Bounded: two files, each half of what the option says, allocated when it begins. Each opening of the database begins
//!   another: what a process that was killed wrote is left as it is.
//! - Nothing reads it but who asks for it ([`Timeline::of_event_log`]): opening, repair and verification pass it over.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use compaction::{Collected, Debt, Plan};
use file_system::{Environment, FileError, LogFile, LogFileWay};
use serde_json::{Map, Value, json};

use crate::Result;
use crate::events::{Bar, Ending, Event, EventListener, Kept, Row, Timeline, Work};

/// The least that the option may be: two files of 4 KiB.
pub(crate) const EVENT_LOG_BYTES_MIN: u64 = 8 << 10;

/// Files that are kept, the one being written included.
const FILES: usize = 2;

/// No file longer than this is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Writes the event log of one open database.
pub(crate) struct EventLog {
    environment: Environment,
    dir: PathBuf,
    /// The length of each file.
    file_bytes: u64,
    writing: Mutex<Writing>,
    /// Lines that could not be written. Relaxed: a figure.
    lost: AtomicU64,
}

#[derive(Default)]
struct Writing {
    /// `None` before the first line, and after a failure.
    file: Option<Arc<dyn LogFile>>,
    offset: u64,
}

impl EventLog {
    /// An event log in `dir` that takes at most `bytes_max` bytes. Touches nothing before the first event.
    pub(crate) fn new(environment: &Environment, dir: &Path, bytes_max: u64) -> Self {
        Self {
            environment: environment.clone(),
            dir: dir.to_owned(),
            file_bytes: bytes_max / FILES as u64,
            writing: Mutex::default(),
            lost: AtomicU64::new(0),
        }
    }

    fn write(&self, line: &[u8]) -> std::result::Result<(), FileError> {
        let mut writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = line.len() as u64;
        let file = match &writing.file {
            Some(file) if writing.offset + bytes <= self.file_bytes => Arc::clone(file),
            _ => {
                *writing = Writing::default();
                let file = self.begin_file()?;
                writing.file = Some(Arc::clone(&file));
                file
            }
        };
        if let Err(error) = file.store(writing.offset, line) {
            // What of the line is there is not known: the next begins in another file.
            *writing = Writing::default();
            return Err(error);
        }
        writing.offset += bytes;
        Ok(())
    }

    /// Begins the next file, and removes those that it leaves no room for.
    fn begin_file(&self) -> std::result::Result<Arc<dyn LogFile>, FileError> {
        let files = &self.environment.files;
        let numbers = file_numbers(&self.environment, &self.dir)?;
        for &number in numbers.iter().rev().skip(FILES - 1) {
            files.remove_file(&self.dir.join(file_name(number)))?;
        }
        let next = numbers.last().map_or(1, |last| last.saturating_add(1));
        files.create_log(&self.dir.join(file_name(next)), self.file_bytes, LogFileWay::Written)
    }
}

impl EventListener for EventLog {
    fn on_event(&self, event: &Event<'_>) {
        let mut line = line_of(event, self.environment.clock.unix_time()).to_string().into_bytes();
        line.push(b'\n');
        let written = match line.len() as u64 <= self.file_bytes {
            true => self.write(&line).map_err(Some),
            false => Err(None),
        };
        // The first of a row of failures is told; a full disk would fail every line.
        if let Err(error) = written
            && self.lost.fetch_add(1, Ordering::Relaxed) == 0
        {
            match error {
                Some(error) => tracing::warn!(%error, "the event log cannot be written"),
                None => tracing::warn!(%event, "an event is longer than a file of the event log"),
            }
        }
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("dir", &self.dir).field("lost", &self.lost).finish_non_exhaustive()
    }
}

fn file_name(number: u64) -> String {
    format!("events.{number}.jsonl")
}

/// The number that the name of a file of an event log stands for.
fn parse_file_name(name: &str) -> Option<u64> {
    let number = name.strip_prefix("events.")?.strip_suffix(".jsonl")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// The numbers of the event log's files in `dir`, ascending.
fn file_numbers(environment: &Environment, dir: &Path) -> std::result::Result<Vec<u64>, FileError> {
    let entries = environment.files.read_dir(dir)?;
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| parse_file_name(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// An event as its line says it.
fn line_of(event: &Event<'_>, at: Duration) -> Value {
    let mut line = Map::new();
    line.insert("unix_us".to_owned(), micros(at));
    let (name, fields) = match event {
        Event::FlushBegun { job, keyspace, memtables } => {
            ("flush_begun", json!({"job": job, "keyspace": keyspace, "memtables": memtables}))
        }
        Event::FlushEnded { job, keyspace, ending, work, queued, took } => {
            ("flush_ended", job_fields(*job, keyspace, 0, *ending, work, (*queued, *took)))
        }
        Event::CompactionBegun { job, keyspace, plan } => {
            let Plan { kind, reason, output_level, inputs, .. } = plan;
            let fields = json!({
                "job": job,
                "keyspace": keyspace,
                "level": output_level.get(),
                "inputs": inputs.len(),
                "kind": kind.word(),
                "reason": reason.word(),
            });
            ("compaction_begun", fields)
        }
        Event::CompactionEnded { job, keyspace, plan, ending, work, queued, took } => {
            let level = plan.output_level.get();
            let mut fields = job_fields(*job, keyspace, level, *ending, work, (*queued, *took));
            fields["kind"] = plan.kind.word().into();
            fields["reason"] = plan.reason.word().into();
            ("compaction_ended", fields)
        }
        Event::TableCreated { job, table, level, bytes } => {
            ("table_created", json!({"job": job, "table": table, "level": level, "bytes": bytes}))
        }
        Event::TableDeleted { table } => ("table_deleted", json!({"table": table})),
        Event::ManifestEdited { job, added, removed } => {
            ("manifest_edited", json!({"job": job, "added": added, "removed": removed}))
        }
        Event::StallBegun { keyspace, cause } => {
            ("stall_begun", json!({"keyspace": keyspace, "cause": cause_word(*cause)}))
        }
        Event::StallEnded { keyspace, cause, took } => {
            ("stall_ended", json!({"keyspace": keyspace, "cause": cause_word(*cause), "took_us": micros(*took)}))
        }
        Event::BackgroundError { .. } => ("background_error", json!({})),
    };
    line.insert("event".to_owned(), name.into());
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    line.insert("text".to_owned(), event.to_string().into());
    Value::Object(line)
}

fn job_fields(
    job: u64,
    keyspace: &str,
    level: u8,
    ending: Ending,
    work: &Work,
    (queued, took): (Duration, Duration),
) -> Value {
    let Work { read_bytes, written_bytes, tables, parts, helped, entries, dropped_for_size, dropped_for_age } = *work;
    let Collected { hidden, tombstones, duplicates, .. } = entries;
    json!({
        "job": job,
        "keyspace": keyspace,
        "level": level,
        "ending": ending.to_string(),
        "read_bytes": read_bytes,
        "written_bytes": written_bytes,
        "tables": tables,
        "parts": parts,
        "helped": helped,
        "hidden": hidden,
        "tombstones": tombstones,
        "duplicates": duplicates,
        "dropped_for_size": dropped_for_size,
        "dropped_for_age": dropped_for_age,
        "queued_us": micros(queued),
        "took_us": micros(took),
    })
}

/// The word for the limit at which a writer waits, by which tools tell lines apart: none is ever renamed.
fn cause_word(cause: Option<Debt>) -> &'static str {
    match cause {
        Some(Debt::L0Runs) => "l0_runs",
        Some(Debt::SealedBytes) => "sealed_bytes",
        Some(Debt::PendingBytes) => "pending_bytes",
        Some(Debt::Memory) => "memory",
        Some(Debt::LogBytes) => "log_bytes",
        Some(_) => "other",
        None => "queue",
    }
}

fn micros(duration: Duration) -> Value {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).into()
}

impl Timeline {
    /// The timeline that the event log of the database in `dir` tells, which
    /// [`event_log_bytes_max`](crate::DatabaseBuilder::event_log_bytes_max) has asked for; an empty one if there is none. Its
    /// times are from its first event. Takes no lock: a process may have the database open.
    ///
    /// Lines that cannot be read, such as the one being written, are counted among the
    /// [forgotten](Self::table) events.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io): the directory or a file cannot be read.
    pub fn of_event_log(environment: &Environment, dir: impl AsRef<Path>) -> Result<Self> {
        let mut lines = VecDeque::new();
        let mut unreadable = 0;
        for text in event_log_files(environment, dir.as_ref())? {
            for line in text.split(|&byte| byte == b'\n' || byte == 0).filter(|line| !line.is_empty()) {
                match read_line(line) {
                    Some(line) => lines.push_back(line),
                    None => unreadable += 1,
                }
            }
        }
        let began = lines.front().map_or(Duration::ZERO, |(at, ..)| *at);
        let kept = |(at, text, ended): ReadLine| {
            let at = at.saturating_sub(began);
            let bar = ended.map(|(row, took, queued)| {
                let from = at.saturating_sub(took);
                Bar { row, from, queued, label: text.clone() }
            });
            Kept { at, line: text, bar }
        };
        Ok(Self::told(environment, lines.into_iter().map(kept).collect(), unreadable))
    }
}

/// The files of the event log in `dir`, oldest first. One that a writer removes meanwhile is left out.
fn event_log_files(environment: &Environment, dir: &Path) -> Result<Vec<Vec<u8>>> {
    let mut texts = Vec::new();
    for number in file_numbers(environment, dir)? {
        match environment.files.read(&dir.join(file_name(number)), FILE_BYTES_MAX) {
            Ok(text) => texts.push(text),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(texts)
}

/// When a line's event was told, its text, and what ended with it, how long that took, and how long it was queued before.
type ReadLine = (Duration, String, Option<(Row, Duration, Duration)>);

/// `None` for a line that is no event's.
fn read_line(line: &[u8]) -> Option<ReadLine> {
    let line: Value = serde_json::from_slice(line).ok()?;
    let number = |name: &str| line.get(name).and_then(Value::as_u64);
    let row = match line.get("event")?.as_str()? {
        "flush_ended" => Some(Row::Flushes),
        "compaction_ended" => Some(Row::Compactions(u8::try_from(number("level")?).ok()?)),
        "stall_ended" => Some(Row::Stalls),
        _ => None,
    };
    let ended = match row {
        // Stalls have no queue, and lines of an earlier version do not tell of it.
        Some(row) => {
            let queued = Duration::from_micros(number("queued_us").unwrap_or(0));
            Some((row, Duration::from_micros(number("took_us")?), queued))
        }
        None => None,
    };
    Some((Duration::from_micros(number("unix_us")?), line.get("text")?.as_str()?.to_owned(), ended))
}
