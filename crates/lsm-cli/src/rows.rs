//! Rows out of text: tab-separated, comma-separated, JSON by line, plain lines.
//!
//! ```text
//!   bytes ──▶ raw line(s) of one record ──▶ key and value, or what is wrong with the record
//!                    │
//!                    └─▶ position: bytes and lines before the next record, xxh3 of all those bytes
//! ```
//!
//! Input is untrusted: no bytes make the reader panic, and no record longer than the limit is held in memory. A bad
//! record costs its first line and nothing after it: a quote that is never closed does not take the rest of the file.
//!
//! The position is what a load commits together with its rows. The checksum tells whether the file that is met again is
//! still the one that those bytes were read from.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, BufRead};

use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

/// How a file's lines become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[non_exhaustive]
pub enum Format {
    /// A key, a tab, the value, which may hold tabs
    Tsv,
    /// Comma-separated, quoted as in RFC 4180; a quoted field may hold line ends
    Csv,
    /// A JSON object on each line, with a member for the key and one for the value
    Jsonl,
    /// Each line is a value; its key is its number, in twelve digits
    Lines,
}

impl Format {
    /// The name that the command line uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tsv => "tsv",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Lines => "lines",
        }
    }
}

/// How rows are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOptions {
    /// The format.
    pub format: Format,
    /// The key's column: a number from 1, a name if there is a header, a member's name in JSON. Default 1 or `key`.
    pub key_column: Option<String>,
    /// The value's column. Default: all columns but the key's, as they stand; in JSON `value`.
    pub value_column: Option<String>,
    /// Whether the first record of a tab- or comma-separated file names the columns.
    pub header: bool,
    /// The longest record that is taken, in bytes.
    pub record_bytes_max: usize,
}

impl RowOptions {
    /// The format with everything else at its default; records up to 64 MiB.
    pub fn new(format: Format) -> Self {
        Self { format, key_column: None, value_column: None, header: false, record_bytes_max: 64 << 20 }
    }
}

/// A place between two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Bytes before it.
    pub offset: u64,
    /// Lines before it.
    pub line: u64,
    /// xxh3 of those bytes.
    pub checksum: u64,
}

/// A row; its buffers are used again for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What came next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A row, which stands in the caller's [`Row`].
    Row,
    /// A record that is no row.
    Bad(BadLine),
    /// The end of the input.
    End,
}

/// A record that is no row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The number of its line, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: String,
    /// How it begins.
    pub text: Vec<u8>,
}

/// Displayed as number, what is wrong, and the beginning of the line.
impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": \"{}\"", crate::text::escape(&self.text)) }
    }
}

/// Why reading cannot go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum RowError {
    /// The input failed.
    Io(io::Error),
    /// A column is named that the options or the header do not know.
    Column(String),
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Column(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for RowError {}

impl From<io::Error> for RowError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How many bytes of a bad line are shown.
const SHOWN_BYTES: usize = 60;

/// Reads records one by one.
///
/// ```
/// use lsm_cli::rows::{Format, Next, Row, RowOptions, RowReader};
///
/// let text = "name,colour\napple,\"red, mostly\"\nlime\n";
/// let options = RowOptions { header: true, ..RowOptions::new(Format::Csv) };
/// let mut reader = RowReader::new(text.as_bytes(), options)?;
/// let mut row = Row::default();
/// assert_eq!(reader.next(&mut row)?, Next::Row);
/// assert_eq!((&*row.key, &*row.value), (&b"apple"[..], &b"red, mostly"[..]));
/// let Next::Bad(bad) = reader.next(&mut row)? else { panic!("one column is no row") };
/// assert_eq!(bad.line, 3);
/// assert_eq!(reader.next(&mut row)?, Next::End);
/// # Ok::<(), lsm_cli::rows::RowError>(())
/// ```
pub struct RowReader<R> {
    input: R,
    options: RowOptions,
    columns: Columns,
    header_is_due: bool,
    /// Lines that a bad record gave back, raw.
    pushed: VecDeque<Vec<u8>>,
    /// The raw bytes of the record at hand; they count as read once the next record is asked for.
    record: Vec<u8>,
    record_lines: u64,
    offset: u64,
    line: u64,
    hash: Xxh3,
    /// Where a record began whose bytes were too many to be kept.
    before_long: Option<Position>,
    csv: CsvRecord,
}

impl<R> fmt::Debug for RowReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowReader").field("offset", &self.offset).field("line", &self.line).finish_non_exhaustive()
    }
}

/// Which columns of a separated record are meant, from 0.
#[derive(Debug, Clone, Copy, Default)]
struct Columns {
    key: usize,
    /// `None`: all but the key's.
    value: Option<usize>,
}

enum RawLine {
    End,
    Line,
    TooLong,
}

impl<R: BufRead> RowReader<R> {
    /// A reader of `input` from its first byte.
    ///
    /// # Errors
    /// [`RowError::Column`] if a column is named and nothing names columns.
    pub fn new(input: R, options: RowOptions) -> Result<Self, RowError> {
        let separated = matches!(options.format, Format::Tsv | Format::Csv);
        let mut reader = Self {
            input,
            columns: Columns::default(),
            header_is_due: separated && options.header,
            pushed: VecDeque::new(),
            record: Vec::new(),
            record_lines: 0,
            offset: 0,
            line: 0,
            hash: Xxh3::new(),
            before_long: None,
            csv: CsvRecord::default(),
            options,
        };
        if separated && !reader.header_is_due {
            reader.columns = reader.columns_among(&[])?;
        }
        Ok(reader)
    }

    /// A reader of the same `input` from its first byte, moved to a position that an earlier reader was at; `None` if
    /// the bytes before that position are not the same.
    ///
    /// # Errors
    /// As [`new`](Self::new) and [`next`](Self::next).
    pub fn resume(input: R, options: RowOptions, at: Position) -> Result<Option<Self>, RowError> {
        let mut reader = Self::new(input, options)?;
        reader.read_header()?;
        reader.account();
        while reader.offset < at.offset {
            let available = match reader.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let bytes = available.len().min(usize::try_from(at.offset - reader.offset).unwrap_or(usize::MAX));
            if bytes == 0 {
                return Ok(None);
            }
            reader.hash.update(&available[..bytes]);
            reader.input.consume(bytes);
            reader.offset += bytes as u64;
        }
        reader.line = at.line;
        Ok((reader.position() == at).then_some(reader))
    }

    /// The next row, put into `row`, or why there is none. Empty lines are passed over, except in [`Format::Lines`].
    ///
    /// # Errors
    /// [`RowError::Io`], and [`RowError::Column`] if the header lacks a column that was named.
    pub fn next(&mut self, row: &mut Row) -> Result<Next, RowError> {
        self.read_header()?;
        loop {
            self.account();
            match self.read_record()? {
                Err(bad) => return Ok(Next::Bad(bad)),
                Ok(false) => return Ok(Next::End),
                Ok(true) => {}
            }
            let empty = matches!((self.options.format, body(&self.record)), (Format::Csv, b"\r") | (_, b""));
            if empty && self.options.format != Format::Lines {
                continue;
            }
            return Ok(match self.parse(row) {
                Ok(()) => Next::Row,
                Err(what) => Next::Bad(self.bad(what)),
            });
        }
    }

    /// After the record that [`next`](Self::next) returned.
    pub fn position(&mut self) -> Position {
        self.account();
        Position { offset: self.offset, line: self.line, checksum: self.hash.digest() }
    }

    /// Before the record that [`next`](Self::next) returned: where to go on once a bad one is mended.
    pub fn position_before(&self) -> Position {
        let here = Position { offset: self.offset, line: self.line, checksum: self.hash.digest() };
        self.before_long.unwrap_or(here)
    }

    /// What is wrong with the record at hand, for those who find more wrong with it than the reader does.
    pub fn bad(&self, what: String) -> BadLine {
        let text = body(&self.record);
        BadLine { line: self.line + 1, what, text: text[..text.len().min(SHOWN_BYTES)].to_vec() }
    }

    /// Counts the record at hand as read.
    fn account(&mut self) {
        self.hash.update(&self.record);
        self.offset += self.record.len() as u64;
        self.line += self.record_lines;
        self.record.clear();
        self.record_lines = 0;
        self.before_long = None;
    }

    /// Appends the next raw line to the record.
    fn read_line(&mut self) -> io::Result<RawLine> {
        let begun = self.record.len();
        if let Some(line) = self.pushed.pop_front() {
            self.record.extend_from_slice(&line);
        }
        // What was pushed back may be the beginning of a line, of which the rest is still to come.
        if self.record.len() == begun || self.record.last() != Some(&b'\n') {
            let room = (self.options.record_bytes_max + 1).saturating_sub(self.record.len());
            io::Read::take(&mut self.input, room as u64).read_until(b'\n', &mut self.record)?;
        }
        if self.record.len() > self.options.record_bytes_max {
            return Ok(RawLine::TooLong);
        }
        if self.record.len() == begun {
            return Ok(RawLine::End);
        }
        self.record_lines += 1;
        Ok(RawLine::Line)
    }

    /// Reads the raw lines of one record; `Ok(false)` at the end.
    fn read_record(&mut self) -> io::Result<Result<bool, BadLine>> {
        match self.read_line()? {
            RawLine::End => return Ok(Ok(false)),
            RawLine::TooLong => return self.pass_over_long_line().map(Err),
            RawLine::Line => {}
        }
        if self.options.format != Format::Csv {
            return Ok(Ok(true));
        }
        let first_line = self.record.len();
        self.csv.clear();
        let mut fed = 0;
        let what = loop {
            match self.csv.feed(&self.record[fed..], fed) {
                CsvState::Whole => return Ok(Ok(true)),
                CsvState::Bad(at) => break format!("byte {at}: text after a closing quote"),
                CsvState::Open => fed = self.record.len(),
            }
            if !matches!(self.read_line()?, RawLine::Line) {
                break "a quote is opened and not closed".to_owned();
            }
        };
        // Only the first line is bad: what follows may be good.
        let rest = self.record.split_off(first_line);
        self.record_lines = 1;
        let lines = rest.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec);
        for line in lines.rev() {
            self.pushed.push_front(line);
        }
        Ok(Err(self.bad(what)))
    }

    /// Reads to the end of a line that is too long to be kept.
    fn pass_over_long_line(&mut self) -> io::Result<BadLine> {
        let before = self.position_before();
        let bad = self.bad(format!("longer than {} bytes", self.options.record_bytes_max));
        let mut ended = self.record.last() == Some(&b'\n');
        self.record_lines = 1;
        self.account();
        while !ended {
            let available = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if available.is_empty() {
                break;
            }
            let end = available.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let bytes = end.unwrap_or(available.len());
            self.hash.update(&available[..bytes]);
            self.input.consume(bytes);
            self.offset += bytes as u64;
            ended = end.is_some();
        }
        self.before_long = Some(before);
        Ok(bad)
    }

    fn read_header(&mut self) -> Result<(), RowError> {
        if !self.header_is_due {
            return Ok(());
        }
        self.header_is_due = false;
        match self.read_record()? {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(bad) => return Err(RowError::Column(format!("header: {bad}"))),
        }
        let names: Vec<Vec<u8>> = match self.options.format {
            Format::Csv => (0..self.csv.ends.len()).map(|field| self.csv.text(field).to_vec()).collect(),
            _ => body(&self.record).split(|&byte| byte == b'\t').map(<[u8]>::to_vec).collect(),
        };
        self.columns = self.columns_among(&names)?;
        Ok(())
    }

    fn columns_among(&self, names: &[Vec<u8>]) -> Result<Columns, RowError> {
        let find = |column: &String| {
            if let Some(found) = names.iter().position(|name| name == column.as_bytes()) {
                return Ok(found);
            }
            match column.parse::<usize>() {
                Ok(number) if number > 0 => Ok(number - 1),
                _ if names.is_empty() => Err(RowError::Column(format!(
                    "column {column:?}: expected a number from 1, or --header and a name"
                ))),
                _ => {
                    let names: Vec<_> = names.iter().map(|name| crate::text::escape(name)).collect();
                    Err(RowError::Column(format!("column {column:?}: expected one of {names:?}")))
                }
            }
        };
        let key = self.options.key_column.as_ref().map_or(Ok(0), find)?;
        Ok(Columns { key, value: self.options.value_column.as_ref().map(find).transpose()? })
    }

    fn parse(&self, row: &mut Row) -> Result<(), String> {
        row.key.clear();
        row.value.clear();
        match self.options.format {
            Format::Tsv => self.parse_tsv(row),
            Format::Csv => self.parse_csv(row),
            Format::Jsonl => self.parse_json(row),
            Format::Lines => {
                row.key.extend_from_slice(format!("{:012}", self.line + 1).as_bytes());
                row.value.extend_from_slice(body(&self.record));
                Ok(())
            }
        }
    }

    fn parse_tsv(&self, row: &mut Row) -> Result<(), String> {
        let line = body(&self.record);
        let Columns { key, value } = self.columns;
        if (key, value) == (0, None) {
            let tab = line.iter().position(|&byte| byte == b'\t').ok_or("no tab: expected a key, a tab, a value")?;
            row.key.extend_from_slice(&line[..tab]);
            row.value.extend_from_slice(&line[tab + 1..]);
            return Ok(());
        }
        let columns: Vec<&[u8]> = line.split(|&byte| byte == b'\t').collect();
        row.key.extend_from_slice(columns.get(key).ok_or_else(|| missing(key, columns.len()))?);
        match value {
            Some(value) => {
                row.value.extend_from_slice(columns.get(value).ok_or_else(|| missing(value, columns.len()))?);
            }
            None => join_others(row, &columns, key, b'\t')?,
        }
        Ok(())
    }

    fn parse_csv(&self, row: &mut Row) -> Result<(), String> {
        let Columns { key, value } = self.columns;
        let count = self.csv.ends.len();
        let text = |field: usize| if field < count { Ok(self.csv.text(field)) } else { Err(missing(field, count)) };
        row.key.extend_from_slice(text(key)?);
        match value {
            Some(value) => row.value.extend_from_slice(text(value)?),
            None if count == 2 => row.value.extend_from_slice(text(1 - key)?),
            None => {
                let raw: Vec<&[u8]> = (0..count).map(|field| self.csv.raw(&self.record, field)).collect();
                join_others(row, &raw, key, b',')?;
            }
        }
        Ok(())
    }

    fn parse_json(&self, row: &mut Row) -> Result<(), String> {
        let object: BTreeMap<String, &RawValue> = serde_json::from_slice(body(&self.record)).map_err(|error| {
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or_default();
            format!("column {}: {what}", error.column())
        })?;
        let member = |name: &Option<String>, default: &str| {
            let name = name.as_deref().unwrap_or(default);
            object.get(name).map(|value| value.get()).ok_or_else(|| format!("no member {name:?}"))
        };
        let text = |json: &str| serde_json::from_str::<String>(json).map_err(|error| error.to_string());
        let key = member(&self.options.key_column, "key")?;
        match key.as_bytes().first() {
            Some(b'"') => row.key.extend_from_slice(text(key)?.as_bytes()),
            Some(b'-' | b'0'..=b'9') => row.key.extend_from_slice(key.as_bytes()),
            _ => return Err(format!("the key is {key}: expected a string or a number")),
        }
        let value = member(&self.options.value_column, "value")?;
        match value.as_bytes().first() {
            Some(b'"') => row.value.extend_from_slice(text(value)?.as_bytes()),
            _ => row.value.extend_from_slice(value.as_bytes()),
        }
        Ok(())
    }
}

fn missing(column: usize, columns: usize) -> String {
    format!("no column {}: the line has {columns}", column + 1)
}

/// The value where no column is told: all but the key's, as they stand.
fn join_others(row: &mut Row, columns: &[&[u8]], key: usize, separator: u8) -> Result<(), String> {
    if columns.len() < 2 {
        return Err("one column: expected a key and a value".to_owned());
    }
    let others = columns.iter().enumerate().filter(|(column, _)| *column != key);
    for (index, (_, text)) in others.enumerate() {
        if index > 0 {
            row.value.push(separator);
        }
        row.value.extend_from_slice(text);
    }
    Ok(())
}

/// A raw record without its line end. A carriage return belongs to the line end only in CSV, which splits for itself.
fn body(record: &[u8]) -> &[u8] {
    record.strip_suffix(b"\n").unwrap_or(record)
}

/// One comma-separated record, split as its lines come in.
#[derive(Debug, Default)]
struct CsvRecord {
    /// The fields' text without quotes, one behind the other.
    unquoted: Vec<u8>,
    /// Where each field's text ends in `unquoted`.
    ends: Vec<usize>,
    /// Where each field lies in the raw record.
    extents: Vec<(usize, usize)>,
    place: CsvPlace,
    field_start: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CsvPlace {
    #[default]
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote within quotes: it closed the field, or stands for itself with the next one.
    Quote,
}

enum CsvState {
    Whole,
    /// A quoted field goes on in the next line.
    Open,
    /// Text after a closing quote, at this byte.
    Bad(usize),
}

impl CsvRecord {
    fn clear(&mut self) {
        self.unquoted.clear();
        self.ends.clear();
        self.extents.clear();
        self.place = CsvPlace::FieldStart;
        self.field_start = 0;
    }

    fn text(&self, field: usize) -> &[u8] {
        let start = if field == 0 { 0 } else { self.ends[field - 1] };
        &self.unquoted[start..self.ends[field]]
    }

    fn raw<'a>(&self, record: &'a [u8], field: usize) -> &'a [u8] {
        let (start, end) = self.extents[field];
        &record[start..end]
    }

    fn end_field(&mut self, at: usize) {
        self.ends.push(self.unquoted.len());
        self.extents.push((self.field_start, at));
        self.field_start = at + 1;
        self.place = CsvPlace::FieldStart;
    }

    /// Takes the next raw line, which begins at byte `from` of the record.
    fn feed(&mut self, line: &[u8], from: usize) -> CsvState {
        let end = line.strip_suffix(b"\n").map_or(line, |body| body.strip_suffix(b"\r").unwrap_or(body)).len();
        for (at, &byte) in line[..end].iter().enumerate() {
            match (self.place, byte) {
                (CsvPlace::FieldStart, b'"') => self.place = CsvPlace::Quoted,
                (CsvPlace::FieldStart | CsvPlace::Plain | CsvPlace::Quote, b',') => self.end_field(from + at),
                (CsvPlace::FieldStart | CsvPlace::Plain, _) => {
                    self.place = CsvPlace::Plain;
                    self.unquoted.push(byte);
                }
                (CsvPlace::Quoted, b'"') => self.place = CsvPlace::Quote,
                (CsvPlace::Quoted, _) => self.unquoted.push(byte),
                (CsvPlace::Quote, b'"') => {
                    self.place = CsvPlace::Quoted;
                    self.unquoted.push(byte);
                }
                (CsvPlace::Quote, _) => return CsvState::Bad(from + at),
            }
        }
        if self.place == CsvPlace::Quoted {
            self.unquoted.extend_from_slice(&line[end..]);
            return CsvState::Open;
        }
        self.end_field(from + end);
        CsvState::Whole
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], options: RowOptions) -> Vec<Result<(String, String), String>> {
        let mut reader = RowReader::new(text, options).unwrap();
        let (mut row, mut rows) = (Row::default(), Vec::new());
        loop {
            rows.push(match reader.next(&mut row).unwrap() {
                Next::Row => {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    Ok((text(&row.key), text(&row.value)))
                }
                Next::Bad(bad) => Err(bad.to_string()),
                Next::End => return rows,
            });
        }
    }

    fn row(key: &str, value: &str) -> Result<(String, String), String> {
        Ok((key.to_owned(), value.to_owned()))
    }

    fn bad(text: &str) -> Result<(String, String), String> {
        Err(text.to_owned())
    }

    #[test]
    fn tab_separated_lines_split_at_the_first_tab_unless_told() {
        let text = b"a\t1\t2\n\nb\t\nlonely\n\tvalue of the empty key";
        let plain = all(text, RowOptions::new(Format::Tsv));
        let no_tab = "line 4: no tab: expected a key, a tab, a value: \"lonely\"";
        assert_eq!(plain, [row("a", "1\t2"), row("b", ""), bad(no_tab), row("", "value of the empty key")]);
        let told = RowOptions { key_column: Some("2".into()), ..RowOptions::new(Format::Tsv) };
        assert_eq!(all(b"a\t1\t2\n", told.clone()), [row("1", "a\t2")]);
        let told = RowOptions { value_column: Some("9".into()), ..told };
        assert_eq!(all(b"a\t1\t2\n", told), [bad("line 1: no column 9: the line has 3: \"a\\t1\\t2\"")]);
    }

    #[test]
    fn comma_separated_records_are_unquoted() {
        let text = b"a,1\r\n\"b \"\"x\"\"\",\"two\nlines\"\nc,\"x\",y\n,\n\"open,1\nd,4\n\"e\"f,5\ng\n";
        assert_eq!(
            all(text, RowOptions::new(Format::Csv)),
            [
                row("a", "1"),
                row("b \"x\"", "two\nlines"),
                row("c", "\"x\",y"),
                row("", ""),
                bad("line 6: byte 13: text after a closing quote: \"\"open,1\""),
                row("d", "4"),
                bad("line 8: byte 3: text after a closing quote: \"\"e\"f,5\""),
                bad("line 9: one column: expected a key and a value: \"g\""),
            ]
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_one_line() {
        let rows = all(b"\"a,1\nb,2\nc,3\n", RowOptions::new(Format::Csv));
        assert_eq!(rows, [bad("line 1: a quote is opened and not closed: \"\"a,1\""), row("b", "2"), row("c", "3")]);
    }

    #[test]
    fn a_header_names_the_columns() {
        let options = RowOptions {
            header: true,
            key_column: Some("id".into()),
            value_column: Some("name".into()),
            ..RowOptions::new(Format::Csv)
        };
        assert_eq!(all(b"name,id\nApple,7\n", options.clone()), [row("7", "Apple")]);
        let mut reader = RowReader::new(&b"name,nr\nApple,7\n"[..], options.clone()).unwrap();
        let error = reader.next(&mut Row::default()).unwrap_err();
        assert_eq!(error.to_string(), "column \"id\": expected one of [\"name\", \"nr\"]");
        assert!(RowReader::new(&b""[..], RowOptions { header: false, ..options }).is_err());
    }

    #[test]
    fn json_members_become_key_and_value() {
        let text = "{\"key\":\"a\\n\",\"value\":\"x\"}\n{\"key\":7,\"value\":{\"z\": 1, \"a\": [2]}}\n{\"key\":\"k\"}\n[1]\n{\"key\":true,\"value\":1}\n";
        let rows = all(text.as_bytes(), RowOptions::new(Format::Jsonl));
        assert_eq!(rows[..2], [row("a\n", "x"), row("7", "{\"z\": 1, \"a\": [2]}")]);
        assert_eq!(rows[2], bad("line 3: no member \"value\": \"{\"key\":\"k\"}\""));
        assert!(rows[3].as_ref().unwrap_err().starts_with("line 4: column "), "{:?}", rows[3]);
        assert!(rows[4].as_ref().unwrap_err().starts_with("line 5: the key is true"), "{:?}", rows[4]);
    }

    #[test]
    fn plain_lines_are_numbered_and_kept_as_they_are() {
        let rows = all(b"x\r\n\n\xffy", RowOptions::new(Format::Lines));
        assert_eq!(rows, [row("000000000001", "x\r"), row("000000000002", ""), row("000000000003", "\u{fffd}y")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let options = RowOptions { record_bytes_max: 8, ..RowOptions::new(Format::Tsv) };
        let rows = all(b"a\t1\nb\t3456789012345\nc\t3\nd\t345678", options);
        assert_eq!(rows.len(), 4, "{rows:?}");
        assert_eq!((&rows[0], &rows[2], &rows[3]), (&row("a", "1"), &row("c", "3"), &row("d", "345678")));
        assert!(rows[1].as_ref().unwrap_err().starts_with("line 2: longer than 8 bytes"));
    }

    fn any_options() -> impl Strategy<Value = RowOptions> {
        let format = prop_oneof![Just(Format::Tsv), Just(Format::Csv), Just(Format::Jsonl), Just(Format::Lines)];
        (format, proptest::option::of(1_usize..4), 4_usize..64).prop_map(|(format, column, most)| RowOptions {
            value_column: column.map(|column| column.to_string()),
            record_bytes_max: most,
            ..RowOptions::new(format)
        })
    }

    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\"".to_vec()),
            Just(b",".to_vec()),
            Just(b"\t".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"{\"key\":\"a\",\"value\":1}\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Whatever the bytes: no panic, every byte and line counted once, and any place can be returned to.
        #[test]
        fn any_bytes_are_rows_or_bad_lines(text in any_text(), options in any_options(), stop in 0_usize..20) {
            let mut reader = RowReader::new(&*text, options.clone()).unwrap();
            let (mut row, mut rest, mut place) = (Row::default(), Vec::new(), None);
            for count in 0.. {
                if count == stop {
                    place = Some(reader.position());
                }
                let next = reader.next(&mut row).unwrap();
                if count >= stop {
                    rest.push((next.clone(), row.clone()));
                }
                if next == Next::End {
                    break;
                }
            }
            let end = reader.position();
            prop_assert_eq!(end.offset, text.len() as u64);
            prop_assert_eq!(end.line, text.split_inclusive(|&byte| byte == b'\n').count() as u64);

            let Some(place) = place else { return Ok(()) };
            let mut again = RowReader::resume(&*text, options.clone(), place).unwrap().expect("the bytes are the same");
            for (next, expected) in rest {
                prop_assert_eq!(again.next(&mut row).unwrap(), next.clone());
                if next == Next::Row {
                    prop_assert_eq!(&row, &expected);
                }
            }
            if place.offset > 0 {
                let mut other = text.clone();
                other[place.offset as usize / 2] ^= 1;
                prop_assert!(RowReader::resume(&*other, options, place).unwrap().is_none());
            }
        }
    }
}
