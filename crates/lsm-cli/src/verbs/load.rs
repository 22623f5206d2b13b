//! `load`: rows of a file into a keyspace, to be taken up again wherever it was broken off.
//!
//! ```text
//!   file ──▶ rows ──▶ batch ──┬─ the rows                                 ┐ one commit
//!                             └─ keyspace `lsm.load`: how far the file is │
//!                                read: offset, line, xxh3 of all before   ┘
//! ```
//!
//! The place in the file commits in the same batch as the rows before it, so after a crash both are there or neither
//! is. It goes with the last batch: a load that has ended leaves nothing behind, and the same command loads anew. A file
//! that has changed before the place is loaded from its beginning; one that only grew, or was mended behind it, goes on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use lsm_facade::{Database, Durability, Keyspace, WriteBatch};
use serde_json::{Value, json};

use crate::Target;
use crate::failure::{Failure, Outcome};
use crate::rows::{BadLine, Format, Next, Position, Row, RowError, RowOptions, RowReader};
use crate::text::grouped;
use crate::verbs::interrupt;

/// Where the places of unfinished loads stand.
const PROGRESS_KEYSPACE: &str = "lsm.load";

/// A batch is committed at this size, whatever its number of rows.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// With `--on-error skip` so many bad lines are shown; the others are counted.
const BAD_LINES_SHOWN: u64 = 20;

/// Loads the rows of a file. Creates the database and the keyspace if they are missing. Run again after any interruption,
/// also `kill -9`, it goes on where it stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A key that comes again gets the later value. When the command has ended, everything is durable.
Standard input and pipes cannot be taken up again: there a load begins anew.

Examples:
  lsm load words.db words.tsv
  lsm load people.db people.csv --header --key-column email
  lsm load events.db events.jsonl --key-column id --value-column payload --on-error skip
  zcat access.log.gz | lsm load logs.db - --format lines --keyspace access")]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// The file; `-` is standard input
    file: PathBuf,
    /// Its format; by default what the file's name says
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The key's column: a number from 1, or a name of the header; for jsonl a member's name [default: 1 or `key`]
    #[arg(long, value_name = "COLUMN")]
    key_column: Option<String>,
    /// The value's column, likewise [default: all columns but the key's; for jsonl `value`]
    #[arg(long, value_name = "COLUMN")]
    value_column: Option<String>,
    /// The first line names the columns (tsv, csv)
    #[arg(long)]
    header: bool,
    /// Rows in a batch
    #[arg(long, value_name = "ROWS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    batch: u64,
    /// When a batch is answered
    #[arg(long, value_enum, default_value_t = DurabilityName::Buffered)]
    durability: DurabilityName,
    /// What to do at a line that is no row
    #[arg(long, value_enum, default_value_t = OnError::Stop)]
    on_error: OnError,
    /// The longest line, in bytes, that is taken
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(1..1 << 32))]
    line_bytes_max: u64,
    /// Load from the beginning, even if an earlier load of this file stopped in the middle
    #[arg(long)]
    restart: bool,
    /// A line on standard error each time that so many rows more are committed
    #[arg(long, value_name = "ROWS")]
    report: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DurabilityName {
    /// When it survives the death of the process; the end of the load is synced
    Buffered,
    /// When it survives a power cut
    Synced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// Stop there; what comes before is loaded, and the next run begins with that line
    Stop,
    /// Show it and go on
    Skip,
}

/// Where a load goes and how far it is.
struct Load<'a> {
    arguments: &'a Arguments,
    database: Database,
    keyspace: Keyspace,
    batch: WriteBatch,
    /// The keyspace and key of the place in the file; `None` where the input cannot be taken up again.
    progress: Option<(Keyspace, Vec<u8>)>,
    rows: u64,
    bad: u64,
    reported: u64,
    bar: ProgressBar,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Outcome {
    let options = RowOptions {
        format: arguments.format()?,
        key_column: arguments.key_column.clone(),
        value_column: arguments.value_column.clone(),
        header: arguments.header,
        record_bytes_max: usize::try_from(arguments.line_bytes_max).unwrap_or(usize::MAX),
    };
    if arguments.target.keyspace == PROGRESS_KEYSPACE {
        return Err(Failure::usage(format_args!("keyspace {PROGRESS_KEYSPACE:?} is kept for the progress of loads")));
    }
    // The input first: a wrong name must not create a database.
    let from_stdin = arguments.file.as_os_str() == "-";
    let opened = match from_stdin {
        true => None,
        false => Some(File::open(&arguments.file).map_err(|error| arguments.reading(&error))?),
    };
    // Wrong columns must not either.
    RowReader::new(io::empty(), options.clone()).map_err(Failure::usage)?;
    let regular = match &opened {
        Some(file) => Some(file.metadata().map_err(|error| arguments.reading(&error))?).filter(|data| data.is_file()),
        None => None,
    };
    interrupt::catch()?;
    let (database, keyspace) = arguments.target.write(true)?;
    let progress = match &regular {
        Some(_) => Some((database.keyspace(PROGRESS_KEYSPACE)?, arguments.identity(&options)?)),
        None => None,
    };
    let mut batch = database.batch();
    if arguments.durability == DurabilityName::Synced {
        batch.set_durability(Durability::Synced);
    }
    let bar = match &regular {
        Some(data) => {
            ProgressBar::new(data.len()).with_style(style("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}"))
        }
        None => ProgressBar::no_length().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    };
    let mut load = Load { arguments, database, keyspace, batch, progress, rows: 0, bad: 0, reported: 0, bar };
    let outcome = match opened {
        None => load.rows_of(RowReader::new(io::stdin().lock(), options)),
        Some(mut file) => {
            let earlier = if arguments.restart { None } else { load.earlier()? };
            match earlier {
                None => load.rows_of(RowReader::new(buffered(&file), options)),
                Some(earlier) => match RowReader::resume(buffered(&file), options.clone(), earlier.at) {
                    Ok(None) => {
                        load.say(format_args!("the file has changed since the earlier load: beginning anew"));
                        file.seek(SeekFrom::Start(0)).map_err(|error| arguments.reading(&error))?;
                        load.rows_of(RowReader::new(buffered(&file), options))
                    }
                    Ok(Some(reader)) => {
                        load.take_up(earlier);
                        load.rows_of(Ok(reader))
                    }
                    Err(error) => load.rows_of::<io::Empty>(Err(error)),
                },
            }
        }
    };
    load.bar.finish_and_clear();
    // What was committed stays, however the load ended.
    let closed = load.database.close();
    outcome?;
    closed?;
    write!(out, "{} rows loaded", grouped(load.rows))?;
    if load.bad > 0 {
        write!(out, ", {} bad lines passed over", grouped(load.bad))?;
    }
    writeln!(out)?;
    Ok(())
}

fn buffered<R: io::Read>(input: R) -> BufReader<R> {
    BufReader::with_capacity(256 << 10, input)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}

impl Arguments {
    fn format(&self) -> Outcome<Format> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        match self.file.extension().and_then(|extension| extension.to_str()) {
            Some("tsv" | "tab") => Ok(Format::Tsv),
            Some("csv") => Ok(Format::Csv),
            Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
            _ => Err(Failure::usage(format_args!("{}: which --format is it?", self.file.display()))),
        }
    }

    fn reading(&self, error: &io::Error) -> Failure {
        Failure::reading(&self.file, error)
    }

    /// Under which key the place in the input stands: what is loaded, where to, and how it is read.
    fn identity(&self, options: &RowOptions) -> Outcome<Vec<u8>> {
        let path = std::fs::canonicalize(&self.file).map_err(|error| self.reading(&error))?;
        let RowOptions { format, key_column, value_column, header, .. } = options;
        let how = json!([self.target.keyspace, format.name(), key_column, value_column, header]);
        let mut identity = how.to_string().into_bytes();
        identity.extend_from_slice(path.as_os_str().as_encoded_bytes());
        Ok(identity)
    }
}

/// How far an earlier load came.
#[derive(Debug, Clone, Copy)]
struct Earlier {
    at: Position,
    rows: u64,
    bad: u64,
}

impl Earlier {
    fn encode(self) -> Vec<u8> {
        let Self { at: Position { offset, line, checksum }, rows, bad } = self;
        let checksum = format!("{checksum:016x}");
        json!({"offset": offset, "line": line, "xxh3": checksum, "rows": rows, "bad": bad}).to_string().into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let number = |name: &str| value.get(name)?.as_u64();
        let checksum = u64::from_str_radix(value.get("xxh3")?.as_str()?, 16).ok()?;
        let at = Position { offset: number("offset")?, line: number("line")?, checksum };
        Some(Self { at, rows: number("rows")?, bad: number("bad")? })
    }
}

impl Load<'_> {
    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.bar.suspend(|| {
            let _ = writeln!(io::stderr(), "lsm: {}: {what}", self.arguments.file.display());
        });
    }

    /// Where an earlier load of the same input stopped.
    fn earlier(&self) -> Outcome<Option<Earlier>> {
        let Some((keyspace, key)) = &self.progress else { return Ok(None) };
        let Some(stored) = keyspace.get(key)? else { return Ok(None) };
        let damaged = || Failure::failed("the progress of the earlier load is unreadable: --restart begins anew");
        Earlier::decode(&stored).map(Some).ok_or_else(damaged)
    }

    fn take_up(&mut self, earlier: Earlier) {
        (self.rows, self.bad, self.reported) = (earlier.rows, earlier.bad, earlier.rows);
        self.say(format_args!("going on at line {}", earlier.at.line + 1));
    }

    /// Loads all rows of a reader.
    fn rows_of<R: BufRead>(&mut self, reader: Result<RowReader<R>, RowError>) -> Outcome {
        let failed = |arguments: &Arguments, error: RowError| match error {
            RowError::Io(error) => arguments.reading(&error),
            error => Failure::usage(format_args!("{}: {error}", arguments.file.display())),
        };
        let mut reader = reader.map_err(|error| failed(self.arguments, error))?;
        let mut row = Row::default();
        loop {
            if interrupt::requested() {
                let at = reader.position();
                self.commit(Some(at))?;
                self.database.persist()?;
                let hint = if self.progress.is_some() { "; run again to go on" } else { "" };
                return Err(Failure::interrupted(format_args!("stopped after line {}{hint}", at.line)));
            }
            let bad = match reader.next(&mut row).map_err(|error| failed(self.arguments, error))? {
                Next::Row => match self.batch.insert(&self.keyspace, &row.key, &row.value) {
                    Ok(()) => None,
                    Err(error) => Some(reader.bad(error.to_string())),
                },
                Next::Bad(bad) => Some(bad),
                Next::End => break,
            };
            match bad {
                None => self.rows += 1,
                Some(bad) => self.bad_line(&bad, reader.position_before())?,
            }
            if self.batch.len() as u64 >= self.arguments.batch || self.batch.bytes() >= BATCH_BYTES_MAX {
                self.commit(Some(reader.position()))?;
            }
        }
        self.commit(None)?;
        Ok(self.database.persist()?)
    }

    fn bad_line(&mut self, bad: &BadLine, before: Position) -> Outcome {
        if self.arguments.on_error == OnError::Stop {
            self.commit(Some(before))?;
            self.database.persist()?;
            return Err(Failure::bad_input(format_args!("{}: {bad}", self.arguments.file.display())));
        }
        self.bad += 1;
        if self.bad <= BAD_LINES_SHOWN {
            self.say(format_args!("{bad}"));
        } else if self.bad == BAD_LINES_SHOWN + 1 {
            self.say(format_args!("more bad lines; they are only counted from here on"));
        }
        Ok(())
    }

    /// Commits the batch at hand together with the place that it reaches; `None`: the end, which leaves no place.
    fn commit(&mut self, at: Option<Position>) -> Outcome {
        if let Some((keyspace, key)) = &self.progress {
            match at {
                Some(at) => {
                    let place = Earlier { at, rows: self.rows, bad: self.bad };
                    self.batch.insert(keyspace, key, place.encode())?;
                }
                None => self.batch.remove(keyspace, key)?,
            }
        }
        self.database.write(&self.batch)?;
        self.batch.clear();
        if let Some(at) = at {
            self.bar.set_position(at.offset);
        }
        if self.arguments.report.is_some_and(|rows| self.rows - self.reported >= rows.max(1)) {
            self.reported = self.rows;
            self.say(format_args!("{} rows committed", self.rows));
        }
        Ok(())
    }
}
