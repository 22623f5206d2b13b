//! `demo`: the main job on real input. Loads a million lines and more, opens the database anew, and compares every entry.
//!
//! ```text
//!   sources ──▶ load ──▶ close ──▶ open ──▶ settle ──▶ every entry by get, by scan forwards, by scan backwards ──▶ summary
//! ```
//!
//! Files are loaded in the order of a hash of their names, so that flushes and compactions have real work. The place
//! reached commits with each batch, so a run that was killed is taken up by the next one on the same directory.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use lsm_facade::{Database, Keyspace, RangeCursor, Stats};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::failure::{Failure, Outcome};
use crate::text::{escape, grouped};
use crate::verbs::interrupt;
use crate::verbs::sources::{SourceFile, Sources, lines};
use crate::verbs::stats::{DiskUse, write_levels};

const KEYSPACE: &str = "lines";
const PROGRESS_KEYSPACE: &str = "demo.progress";
const PROGRESS_KEY: &[u8] = b"place";
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// So many files are read side by side, a line of each in turn, so that gets one after the other go to different tables.
const FILES_SIDE_BY_SIDE: usize = 256;

/// So many differences are shown; the others are counted.
const DIFFERENCES_SHOWN: u64 = 10;

/// Loads the lines of the sources that Cargo unpacked, opens the database anew, compares every entry with its file by
/// gets and by scans both ways, and prints what it measured. Exit code 0 only if everything is equal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs nothing but what building this program has brought onto the machine. With --dir, a run that was killed is
taken up by the next one.

Examples:
  lsm demo
  lsm demo --dir /tmp/demo.db
  lsm demo --sources ~/src/linux --entries-min 0")]
pub(crate) struct Arguments {
    /// Where the database goes, and stays [default: a temporary directory, removed at the end]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the temporary directory, and say where it is
    #[arg(long, conflicts_with = "dir")]
    keep: bool,
    /// Load the text files below these directories instead
    #[arg(long, value_name = "DIR", num_args = 1..)]
    sources: Vec<PathBuf>,
    /// Fail if there are fewer entries
    #[arg(long, value_name = "ENTRIES", default_value_t = 1_000_000)]
    entries_min: u64,
    /// Take no more files once there are so many entries
    #[arg(long, value_name = "ENTRIES", default_value_t = 3_000_000)]
    entries_max: u64,
    /// A line on standard error each time that so many entries more are committed
    #[arg(long, value_name = "ENTRIES")]
    report: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let sources = match &*arguments.sources {
        [] => Sources::of_this_machine(arguments.entries_min, arguments.entries_max)?,
        dirs => Sources::below(dirs, arguments.entries_max)?,
    };
    if sources.entries < arguments.entries_min || sources.entries == 0 {
        return Err(Failure::failed(format_args!(
            "found {} entries in {sources}, expected at least {}: name more directories with --sources",
            grouped(sources.entries),
            grouped(arguments.entries_min.max(1)),
        )));
    }
    let temporary = match &arguments.dir {
        Some(_) => None,
        None => {
            let made = tempfile::Builder::new().prefix("lsm-demo-").tempdir();
            Some(made.map_err(|error| Failure::failed(format_args!("cannot make a temporary directory: {error}")))?)
        }
    };
    let dir = match (&arguments.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(temporary)) => temporary.path().join("db"),
        (None, None) => unreachable!("one of the two was chosen above"),
    };
    let outcome = main_job(arguments, &dir, sources, out);
    if let Some(temporary) = temporary
        && arguments.keep
    {
        writeln!(out, "kept        {}", dir.display())?;
        let _ = temporary.keep();
    }
    outcome
}

fn main_job(arguments: &Arguments, dir: &Path, mut sources: Sources, out: &mut dyn Write) -> Outcome {
    writeln!(out, "sources     {sources}")?;
    let (entries, logical) = (sources.entries, sources.logical_bytes);
    writeln!(out, "entries     {}, {} bytes of keys and values", grouped(entries), grouped(logical))?;
    out.flush()?;
    interrupt::catch()?;

    sources.files.sort_by_key(|file| xxh3_64(&file.prefix));
    let (loaded, stats) = load(arguments, dir, &sources)?;
    writeln!(out, "load        {loaded}")?;
    writeln!(out, "            {}", work(&stats))?;
    out.flush()?;

    let begun = Instant::now();
    let database = Database::builder(dir).create_if_missing(false).open()?;
    let keyspace = database.open_keyspace(KEYSPACE)?;
    let opened = begun.elapsed();
    database.wait_until_idle()?;
    writeln!(out, "open        {}, settled after {}", seconds(opened), seconds(begun.elapsed() - opened))?;
    let stats = database.stats();
    if let Some(lines) = stats.keyspaces.iter().find(|keyspace| keyspace.name == KEYSPACE) {
        write_levels(out, lines)?;
    }

    let mut compared = Compared::default();
    let gets = compare_by_gets(&keyspace, &sources, &mut compared)?;
    writeln!(out, "get         {gets}")?;
    out.flush()?;
    sources.files.sort_by(|left, right| left.prefix.cmp(&right.prefix));
    for (name, order) in [("forward", Order::Forward), ("backward", Order::Backward)] {
        let begun = Instant::now();
        let rows = compare_by_scan(&keyspace, &sources, order, &mut compared)?;
        let took = begun.elapsed();
        writeln!(out, "scan        {name}: {} rows in {}, {} rows/s", grouped(rows), seconds(took), rate(rows, took))?;
    }
    // Comparing reads the files too; the engine alone is faster than that.
    let (rows, took) = plain_scan(&keyspace)?;
    writeln!(out, "            without comparing: {} rows/s", rate(rows, took))?;
    database.close()?;

    let disk = DiskUse::of(dir)?;
    let percent = disk.tables as f64 / logical as f64 * 100.0;
    writeln!(
        out,
        "disk        {} bytes of tables, {percent:.0} % of the logical bytes; {} of log (allocated ahead), {} of manifest",
        grouped(disk.tables),
        grouped(disk.log),
        grouped(disk.manifest),
    )?;
    if compared.different > 0 {
        let (different, compared) = (grouped(compared.different), grouped(compared.equal));
        return Err(Failure::no(format_args!("{different} entries differ from their files, {compared} are equal")));
    }
    writeln!(out, "equal       {} entries, each by a get and by two scans", grouped(entries))?;
    Ok(())
}

/// How far a load is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// Whole files, in the order of loading.
    files: u64,
    /// Lines of the next one.
    lines: u64,
}

impl Place {
    fn encode(self, sources: u64) -> Vec<u8> {
        let sources = format!("{sources:016x}");
        json!({"sources": sources, "files": self.files, "lines": self.lines}).to_string().into_bytes()
    }

    /// The place, if it is one in these sources.
    fn decode(bytes: &[u8], sources: u64) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let same = value.get("sources")?.as_str()? == format!("{sources:016x}");
        let place = Self { files: value.get("files")?.as_u64()?, lines: value.get("lines")?.as_u64()? };
        same.then_some(place)
    }
}

/// Loads what is not yet loaded and closes the database, everything durable.
fn load(arguments: &Arguments, dir: &Path, sources: &Sources) -> Outcome<(String, Stats)> {
    let database = Database::open(dir)?;
    let keyspace = database.keyspace(KEYSPACE)?;
    let progress = database.keyspace(PROGRESS_KEYSPACE)?;
    let identity = sources.identity();
    let stored = progress.get(PROGRESS_KEY)?;
    let start = stored.as_deref().and_then(|stored| Place::decode(stored, identity));
    if start.is_none() && !keyspace.is_empty()? {
        note(&format!("{} holds lines of other sources: cleared", dir.display()));
        keyspace.clear()?;
    }
    let start = start.unwrap_or_default();
    let before: u64 = sources.files.iter().take(start.files as usize).map(|file| file.lines).sum::<u64>() + start.lines;
    if before > 0 {
        note(&format!("going on after {} entries of an earlier run", grouped(before)));
    }

    let bar = ProgressBar::new(sources.entries).with_style(
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {per_sec}").expect("the template is a constant"),
    );
    let begun = Instant::now();
    let mut batch = database.batch();
    let (mut done, mut reported, mut key, mut bytes) = (before, before, Vec::new(), 0);
    for (index, file) in (0_u64..).zip(&sources.files).skip(start.files as usize) {
        let content = file.read()?;
        let from = if index == start.files { start.lines } else { 0 };
        for (line, text) in (1_u64..).zip(lines(&content)).skip(from as usize) {
            file.key(line, &mut key);
            batch.insert(&keyspace, &key, text)?;
            bytes += (key.len() + text.len()) as u64;
            done += 1;
            if batch.len() < BATCH_ROWS && batch.bytes() < BATCH_BYTES_MAX && done < sources.entries {
                continue;
            }
            let place = if line == file.lines {
                Place { files: index + 1, lines: 0 }
            } else {
                Place { files: index, lines: line }
            };
            batch.insert(&progress, PROGRESS_KEY, place.encode(identity))?;
            database.write(&batch)?;
            batch.clear();
            bar.set_position(done);
            if arguments.report.is_some_and(|entries| done - reported >= entries.max(1)) {
                reported = done;
                note(&format!("{done} entries committed"));
            }
            if interrupt::requested() {
                database.close()?;
                return Err(Failure::interrupted(format_args!("stopped after {} entries", grouped(done))));
            }
        }
    }
    database.persist()?;
    let took = begun.elapsed();
    bar.finish_and_clear();
    let stats = database.stats();
    database.close()?;
    let loaded = done - before;
    let per_second = bytes as f64 / took.as_secs_f64().max(1e-9) / 1e6;
    let text = format!(
        "{} entries in {}, durable: {} entries/s, {per_second:.0} MB/s",
        grouped(loaded),
        seconds(took),
        rate(loaded, took)
    );
    Ok((text, stats))
}

fn work(stats: &Stats) -> String {
    let (commits, flushes) = (grouped(stats.commits), stats.flushes);
    let compactions: u64 = stats.compactions.iter().sum();
    let waited = seconds(Duration::from_nanos(stats.waited_ns));
    format!(
        "{commits} commits, {flushes} flushes, {compactions} compactions, {} stalls, {waited} held up",
        stats.stalls
    )
}

fn note(what: &str) {
    let _ = writeln!(io::stderr(), "lsm: {what}");
}

/// What comparing found.
#[derive(Debug, Default)]
struct Compared {
    equal: u64,
    different: u64,
}

impl Compared {
    fn check(&mut self, key: &[u8], expected: Option<&[u8]>, found: Option<&[u8]>) {
        if expected == found {
            self.equal += 1;
            return;
        }
        self.different += 1;
        if self.different <= DIFFERENCES_SHOWN {
            let show =
                |value: Option<&[u8]>| value.map_or("nothing".to_owned(), |text| format!("\"{}\"", escape(text)));
            note(&format!("{}: expected {}, found {}", escape(key), show(expected), show(found)));
        }
    }
}

/// A file whose lines are compared, from the next one on.
struct Open<'a> {
    file: &'a SourceFile,
    content: Vec<u8>,
    at: usize,
    line: u64,
}

impl<'a> Open<'a> {
    fn new(file: &'a SourceFile) -> Outcome<Self> {
        Ok(Self { file, content: file.read()?, at: 0, line: 1 })
    }

    /// The next line's bytes, and whether another follows.
    fn next_line(&mut self, key: &mut Vec<u8>) -> (&[u8], bool) {
        self.file.key(self.line, key);
        let rest = &self.content[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        self.at += end + 1;
        self.line += 1;
        (&rest[..end], self.line <= self.file.lines)
    }
}

/// Gets every entry once.
fn compare_by_gets(keyspace: &Keyspace, sources: &Sources, compared: &mut Compared) -> Outcome<String> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants");
    let mut waiting = sources.files.iter();
    let mut open = VecDeque::with_capacity(FILES_SIDE_BY_SIDE);
    let (mut key, mut spent) = (Vec::new(), Duration::ZERO);
    loop {
        while open.len() < FILES_SIDE_BY_SIDE
            && let Some(file) = waiting.next()
        {
            open.push_back(Open::new(file)?);
        }
        let Some(mut source) = open.pop_front() else { break };
        let (expected, more) = source.next_line(&mut key);
        let begun = Instant::now();
        let found = keyspace.get(&key)?;
        let took = begun.elapsed();
        spent += took;
        latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1));
        compared.check(&key, Some(expected), found.as_deref());
        if more {
            open.push_back(source);
        }
        if interrupt::requested() {
            return Err(Failure::interrupted("stopped while comparing"));
        }
    }
    let micro = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    Ok(format!(
        "{} entries, {}/s; p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, longest {:.1} µs",
        grouped(latencies.len()),
        rate(latencies.len(), spent),
        micro(0.5),
        micro(0.99),
        micro(0.999),
        latencies.max() as f64 / 1e3
    ))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Backward,
}

/// Compares a scan with the files, which stand in the order of their prefixes. Returns how many rows came.
fn compare_by_scan(keyspace: &Keyspace, sources: &Sources, order: Order, compared: &mut Compared) -> Outcome<u64> {
    let mut cursor = keyspace.cursor();
    let step = |cursor: &mut RangeCursor| if order == Order::Forward { cursor.next() } else { cursor.prev() };
    let files: Box<dyn Iterator<Item = &SourceFile>> = match order {
        Order::Forward => {
            cursor.seek_to_first()?;
            Box::new(sources.files.iter())
        }
        Order::Backward => {
            cursor.seek_to_last()?;
            Box::new(sources.files.iter().rev())
        }
    };
    let (mut rows, mut expected_key) = (0, Vec::new());
    for file in files {
        let content = file.read()?;
        let mut expected: Vec<(u64, &[u8])> = (1..).zip(lines(&content)).collect();
        if order == Order::Backward {
            expected.reverse();
        }
        for (line, text) in expected {
            file.key(line, &mut expected_key);
            // A row that no file has: it is counted, and the scan goes on to where it should be.
            while let Some(key) = cursor.key() {
                let strays = if order == Order::Forward { key < &*expected_key } else { key > &*expected_key };
                if !strays {
                    break;
                }
                let key = key.to_vec();
                compared.check(&key, None, cursor.value()?);
                rows += 1;
                step(&mut cursor)?;
            }
            if cursor.key() == Some(&expected_key) {
                compared.check(&expected_key, Some(text), cursor.value()?);
                rows += 1;
                step(&mut cursor)?;
            } else {
                compared.check(&expected_key, Some(text), None);
            }
        }
        if interrupt::requested() {
            return Err(Failure::interrupted("stopped while comparing"));
        }
    }
    while let Some(key) = cursor.key() {
        let key = key.to_vec();
        compared.check(&key, None, cursor.value()?);
        rows += 1;
        step(&mut cursor)?;
    }
    Ok(rows)
}

/// A scan that only looks at each row's length.
fn plain_scan(keyspace: &Keyspace) -> Outcome<(u64, Duration)> {
    let begun = Instant::now();
    let mut cursor = keyspace.cursor();
    cursor.seek_to_first()?;
    let (mut rows, mut bytes) = (0_u64, 0_usize);
    while let Some(key) = cursor.key() {
        bytes += key.len();
        bytes += cursor.value()?.unwrap_or_default().len();
        rows += 1;
        cursor.next()?;
    }
    std::hint::black_box(bytes);
    Ok((rows, begun.elapsed()))
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn rate(count: u64, time: Duration) -> String {
    grouped((count as f64 / time.as_secs_f64().max(1e-9)) as u64)
}
