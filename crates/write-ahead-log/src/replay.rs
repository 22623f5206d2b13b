//! Reading the log back: every record in order, where it ends, and whether what is missing was ever promised.
//!
//! ```text
//!   floor ──▶ records … ──▶ B: the first place that holds no whole record
//!                           │
//!                           └─ scan on, for headers, in this segment and in every later one
//!                              X = the largest claim met there, or in the manifest
//!
//!              B <  X   bytes that were durable are gone: corruption, nothing is cut
//!              B >= X   a tail that was never promised: cut at B, the rest is discarded
//! ```
//!
//! - **L3** is this picture. Zero-filled space is the ordinary B; it is scanned behind like any other, because a power
//!   cut may keep a later page and lose an earlier one.
//! - **L3** A header is told from other bytes by a checksum of 32 bits. So a scan believes one whose payload does not hold
//!   only if its sequence number is less than 2^32 above what was replayed: bytes of an earlier use of the file pass for
//!   such a header so seldom that no torn tail is taken for corruption, and what a crash tears is near.
//! - **L1**, **L5** The floor and every seal name a segment that was durable before: one that is missing, or that has
//!   another salt, is damage, never a torn tail.
//! - **M5** Another process may write the log meanwhile: what looks like corruption is read anew before it counts.
//! - **P1** Sequence numbers ascend from record to record.
//! - Nothing here writes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use file_system::{Environment, FileError};
use internal_key::{SegmentId, SeqNo};

use crate::position::segment_path;
use crate::reader::{ScanError, SegmentReader, list_segments, read_segment_header};
use crate::record::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, UnknownRecord, crc32, decode_seal, header_crc};
use crate::segment::{HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::{LogPosition, SegmentName};

/// How to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplayOptions {
    /// Go on after corruption and report what was skipped, instead of refusing. What was skipped is lost.
    pub salvage: bool,
}

/// A record as it is handed out: never a seal or an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it starts.
    pub position: LogPosition,
    /// What it is.
    pub kind: RecordKind,
    /// The sequence number of its first entry.
    pub first_seqno: SeqNo,
    /// Its payload; the checksum holds.
    pub payload: &'a [u8],
}

/// A segment that replay read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedSegment {
    /// Its header.
    pub header: SegmentHeader,
    /// The sequence number of its first record; `None` if it has none.
    pub first_seqno: Option<SeqNo>,
}

/// A stretch of the log that salvage left out.
#[derive(Debug)]
pub struct Skipped {
    /// Where reading stopped.
    pub from: LogPosition,
    /// Where it went on; `None` if nothing readable followed.
    pub to: Option<LogPosition>,
    /// What an ordinary replay would have returned.
    pub cause: ReplayError,
}

/// What a replay found. [`Log::resume`](crate::Log::resume) continues from it.
#[derive(Debug)]
pub struct ReplayReport {
    /// Where the log is cut (**L3**): everything before was handed out.
    pub end: LogPosition,
    /// X: everything before this is known to be durable (**L3**).
    pub last_claim: LogPosition,
    /// How many records were handed out.
    pub records: u64,
    /// The sequence number of the last record handed out.
    pub last_first_seqno: Option<SeqNo>,
    /// How many bytes behind `end` this log had written, as far as whole headers tell: they are discarded. A torn
    /// header alone counts nothing, because it cannot be told from what an earlier use of the file left.
    pub cut_bytes: u64,
    /// Whether the last record is an end: the log was closed cleanly.
    pub closed_cleanly: bool,
    /// Whether any record lies beyond `last_claim`, or something was skipped, so that claims are held after resuming
    /// (**L4**).
    pub beyond_claim: bool,
    /// The segments replayed, oldest first; `end` lies in the last. Empty only after a salvage that found none.
    pub segments: Vec<ReplayedSegment>,
    /// Segments of this database behind the last one: prepared, or discarded with the tail.
    pub later: Vec<SegmentName>,
    /// The largest segment id met, also among files that were not read.
    pub largest_id: SegmentId,
    /// What salvage left out; empty in an ordinary replay.
    pub skipped: Vec<Skipped>,
}

/// Displayed on one line, as the opening of a database logs it.
impl fmt::Display for ReplayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { end, last_claim, records, cut_bytes, closed_cleanly, segments, skipped, .. } = self;
        write!(f, "{records} records in {} segments up to {end}, durable to {last_claim}", segments.len())?;
        if *closed_cleanly {
            f.write_str(", closed cleanly")?;
        }
        if *cut_bytes > 0 {
            write!(f, ", {cut_bytes} bytes cut")?;
        }
        if !skipped.is_empty() {
            write!(f, ", {} stretches skipped", skipped.len())?;
        }
        Ok(())
    }
}

/// Who named a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The manifest's floor.
    Floor,
    /// A seal that starts there.
    Seal(LogPosition),
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Floor => f.write_str("the manifest's floor"),
            Self::Seal(position) => write!(f, "the seal at {position}"),
        }
    }
}

/// What stands where a record should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordFault {
    /// Zeros: nothing was ever written there.
    Zeros,
    /// Bytes that no header has, whatever its checksum: damage, or an earlier use of the file.
    NoHeader,
    /// What may be a header, but not of this segment and this place: damage, or an earlier use of the file.
    Header {
        /// What its bytes amount to.
        expected: u32,
        /// What it says.
        found: u32,
    },
    /// A whole header, but a payload that does not match it.
    Payload {
        /// What the header says.
        expected: u32,
        /// What the bytes amount to.
        found: u32,
    },
    /// The segment ends.
    SegmentEnd,
    /// A seal that names no possible successor.
    Seal,
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeros => f.write_str("expected a record, found zeros"),
            Self::NoHeader => f.write_str("expected a record, found bytes that no record begins with"),
            Self::Header { expected, found } => {
                write!(f, "expected record header checksum {expected:08x}, found {found:08x}")
            }
            Self::Payload { expected, found } => {
                write!(f, "expected payload checksum {expected:08x}, found {found:08x}")
            }
            Self::SegmentEnd => f.write_str("expected a record, found the end of the segment"),
            Self::Seal => f.write_str("expected a seal that names a later segment, found another"),
        }
    }
}

/// Why a log cannot be replayed. Nothing was changed on the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A file could not be read; trying again may succeed.
    #[error(transparent)]
    Io(#[from] FileError),
    /// A segment that must be there is not (**L5**).
    #[error("log segment {expected} is missing: expected {}, named by {named_by}", path.display())]
    MissingSegment {
        /// Where it should be.
        path: PathBuf,
        /// What was looked for.
        expected: SegmentName,
        /// Who named it.
        named_by: NamedBy,
    },
    /// A file is no segment that this version can read.
    #[error("{}: {fault}", path.display())]
    BadSegment {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        fault: HeaderFault,
    },
    /// The file was recycled since it was named, or another one stands in its place (**L5**).
    #[error("{}: expected {expected} as named by {named_by}, found {found}", path.display())]
    WrongSalt {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: SegmentName,
        /// What is there.
        found: SegmentName,
        /// Who named it.
        named_by: NamedBy,
    },
    /// The segment belongs to another database.
    #[error("{}: expected database {expected:032x}, found {found:032x}", path.display())]
    ForeignDatabase {
        /// The file.
        path: PathBuf,
        /// This database.
        expected: u128,
        /// The segment's.
        found: u128,
    },
    /// What was once durable is damaged or gone (**L3**).
    #[error("{} is corrupt at offset {at}: {fault}; the log was durable up to {claim}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where a record should start.
        at: u64,
        /// What is there instead.
        fault: RecordFault,
        /// X, the claim that covers it.
        claim: LogPosition,
    },
    /// A record of a newer writer, never skipped.
    #[error("{} at offset {at}: expected record kind 1 to 8, found {found}", path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// Where the record starts.
        at: u64,
        /// The kind's number.
        found: u8,
    },
    /// A whole record whose sequence number goes back (**P1**).
    #[error("{} at offset {at}: expected a sequence number of at least {expected}, found {found}", path.display())]
    Disordered {
        /// The file.
        path: PathBuf,
        /// Where the record starts.
        at: u64,
        /// The smallest that may stand here.
        expected: SeqNo,
        /// The record's.
        found: SeqNo,
    },
    /// The receiver of the records refused one.
    #[error("log record at {position}: {source}")]
    Refused {
        /// Where the record starts.
        position: LogPosition,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Hands out every record from the segment `floor` on, in order, and finds where the log ends.
///
/// `claim` is the manifest's. A torn tail is not an error: it is where the log is cut, and reported (**L3**). Records
/// are handed out while reading, also those before corruption that is found later. One pass over the segments, with a
/// window of 256 KiB or one record in memory.
///
/// # Errors
/// [`ReplayError`]; with [`ReplayOptions::salvage`] only `Io` and `Refused`, what else is wrong is skipped and reported.
pub fn replay(
    environment: &Environment,
    dir: &Path,
    database_id: u128,
    floor: SegmentName,
    claim: LogPosition,
    options: ReplayOptions,
    on_record: impl FnMut(Record<'_>) -> Result<(), Box<dyn Error + Send + Sync>>,
) -> Result<ReplayReport, ReplayError> {
    let listing = list_segments(environment, dir)?;
    let largest_id = listing.keys().next_back().copied().unwrap_or_default().max(floor.id);
    let report = ReplayReport {
        end: LogPosition::new(floor.id, SEGMENT_HEADER_BYTES as u64),
        last_claim: claim,
        records: 0,
        last_first_seqno: None,
        cut_bytes: 0,
        closed_cleanly: false,
        beyond_claim: false,
        segments: Vec::new(),
        later: Vec::new(),
        largest_id,
        skipped: Vec::new(),
    };
    let run = Run {
        environment,
        dir,
        database_id,
        listing,
        salvage: options.salvage,
        manifest_claim: claim,
        on_record,
        seqno_min: SeqNo::ZERO,
        last_record_end: LogPosition::default(),
        report,
    };
    run.run(floor)
}

/// One replay under way.
struct Run<'a, F> {
    environment: &'a Environment,
    dir: &'a Path,
    database_id: u128,
    listing: BTreeMap<SegmentId, PathBuf>,
    salvage: bool,
    manifest_claim: LogPosition,
    on_record: F,
    seqno_min: SeqNo,
    /// The end of the last whole record of any kind.
    last_record_end: LogPosition,
    report: ReplayReport,
}

/// How far above what was replayed a record's sequence number may be for a scan to believe its header alone.
const NEAR_SEQNOS: u64 = 1 << 32;

/// What stands at one place.
enum Step {
    /// A whole record, handed out; the next starts there.
    Next(u64),
    /// A whole seal.
    Seal(SegmentName),
    /// No whole record.
    Bad(RecordFault),
    /// A whole record that must not be handed out, and where it ends if that is known.
    Wrong(ReplayError, Option<u64>),
}

/// What a scan behind a bad record found.
struct Beyond {
    /// The largest claim.
    claim: LogPosition,
    cut_bytes: u64,
    later: Vec<SegmentName>,
    /// Segments that salvage could not read.
    unreadable: Vec<Skipped>,
}

impl<F> Run<'_, F>
where
    F: FnMut(Record<'_>) -> Result<(), Box<dyn Error + Send + Sync>>,
{
    fn run(mut self, floor: SegmentName) -> Result<ReplayReport, ReplayError> {
        let mut next = match self.open_named(floor, NamedBy::Floor) {
            Ok(reader) => Some(reader),
            Err(cause) => self.skip_to_segment_after(self.report.end, None, cause)?,
        };
        while let Some(reader) = next {
            next = self.replay_segment(reader)?;
        }
        // After a salvage the chain is broken: only a floor behind it makes what was read durable again.
        let skipped = !self.report.skipped.is_empty();
        self.report.beyond_claim = skipped || self.last_record_end > self.report.last_claim;
        Ok(self.report)
    }

    /// Replays one segment to its seal, and returns the next; or to the end of the log, and returns `None`.
    fn replay_segment(&mut self, mut reader: SegmentReader) -> Result<Option<SegmentReader>, ReplayError> {
        let id = reader.header.name.id;
        self.report.segments.push(ReplayedSegment { header: reader.header, first_seqno: None });
        let mut at = SEGMENT_HEADER_BYTES as u64;
        let mut looked_again_at = None;
        loop {
            let here = LogPosition::new(id, at);
            self.report.end = here;
            match self.step(&mut reader, at)? {
                Step::Next(end) => at = end,
                Step::Seal(successor) => match self.open_named(successor, NamedBy::Seal(here)) {
                    Ok(reader) => return Ok(Some(reader)),
                    Err(cause) => return self.skip_to_segment_after(here, Some(id), cause),
                },
                Step::Wrong(cause, end) => match self.skip_within(&mut reader, here, end, cause)? {
                    Some(further) => at = further,
                    None => return self.resume_after_skip(id),
                },
                Step::Bad(fault) => {
                    // Behind a clean end nothing but the seal of a later opening is ever stored in this segment (L4).
                    let ended = self.report.closed_cleanly && here == self.manifest_claim;
                    let beyond = self.scan_beyond(&mut reader, at, !ended)?;
                    let claim = self.report.last_claim.max(beyond.claim);
                    self.report.last_claim = claim;
                    if here >= claim || planted_faults::planted("log-claim-ignored-at-a-bad-record") {
                        self.report.cut_bytes = beyond.cut_bytes;
                        self.report.later = beyond.later;
                        self.report.skipped.extend(beyond.unreadable);
                        return Ok(None);
                    }
                    // A writer may have stored the record here, and what claims it, since this was read. It stored the record
                    // first: whoever has met the claim finds it.
                    if looked_again_at != Some(at) && !planted_faults::planted("log-damage-not-looked-at-again") {
                        looked_again_at = Some(at);
                        reader.forget_window();
                        continue;
                    }
                    let cause = ReplayError::Corrupt { path: reader.path().to_owned(), at, fault, claim };
                    match self.skip_within(&mut reader, here, None, cause)? {
                        Some(further) => at = further,
                        None => return self.resume_after_skip(id),
                    }
                }
            }
        }
    }

    /// Looks at one place and hands out the record that starts there.
    fn step(&mut self, reader: &mut SegmentReader, at: u64) -> Result<Step, ReplayError> {
        // Made where something is wrong only, not for each record.
        let path_of = |reader: &SegmentReader| reader.path().to_owned();
        let header = match reader.header_at(at) {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(Step::Bad(fault_at(reader, at)?)),
            Err(ScanError::Io(error)) => return Err(error.into()),
            Err(ScanError::UnknownKind { at, record }) => {
                let (path, found) = (path_of(reader), record.kind.found);
                return Ok(Step::Wrong(ReplayError::UnknownKind { path, at, found }, None));
            }
        };
        let payload = reader.payload(&header)?;
        let found = crc32(payload);
        if found != header.payload_crc && !planted_faults::planted("log-payload-checksum-unchecked") {
            return Ok(Step::Bad(RecordFault::Payload { expected: header.payload_crc, found }));
        }
        let RecordHeader { position, kind, first_seqno, claim, .. } = header;
        let end = header.end();
        if first_seqno < self.seqno_min {
            let (expected, found, path) = (self.seqno_min, first_seqno, path_of(reader));
            return Ok(Step::Wrong(ReplayError::Disordered { path, at, expected, found }, Some(end.offset)));
        }
        let successor = decode_seal(payload).filter(|successor| successor.id > position.segment);
        if kind == RecordKind::Seal && successor.is_none() {
            // Its checksums hold, so it is no torn tail, whatever the claims say.
            let (claim, path) = (self.report.last_claim, path_of(reader));
            return Ok(Step::Wrong(ReplayError::Corrupt { path, at, fault: RecordFault::Seal, claim }, None));
        }
        if kind.is_data() {
            let record = Record { position, kind, first_seqno, payload };
            (self.on_record)(record).map_err(|source| ReplayError::Refused { position, source })?;
            self.report.records += 1;
            self.report.last_first_seqno = Some(first_seqno);
        }
        self.seqno_min = match kind.is_data().then(|| first_seqno.checked_add(1)) {
            Some(next) => next.unwrap_or(SeqNo::MAX),
            None => first_seqno,
        };
        self.report.closed_cleanly = kind == RecordKind::End;
        self.last_record_end = end;
        // It lies before the record, so that it decides nothing here; but it is known to be durable.
        self.report.last_claim = self.report.last_claim.max(claim);
        if let Some(segment) = self.report.segments.last_mut() {
            segment.first_seqno.get_or_insert(first_seqno);
        }
        match successor {
            Some(successor) if kind == RecordKind::Seal => Ok(Step::Seal(successor)),
            _ => Ok(Step::Next(end.offset)),
        }
    }

    /// Scans this segment behind `at` if `here`, and all later ones, for headers (L3).
    fn scan_beyond(&mut self, reader: &mut SegmentReader, at: u64, here: bool) -> Result<Beyond, ReplayError> {
        let mut beyond =
            Beyond { claim: LogPosition::default(), cut_bytes: 0, later: Vec::new(), unreadable: Vec::new() };
        if here {
            self.scan_segment(reader, at, &mut beyond)?;
        }
        let behind = (std::ops::Bound::Excluded(reader.header.name.id), std::ops::Bound::Unbounded);
        let later: Vec<_> = self.listing.range(behind).map(|(id, path)| (*id, path.clone())).collect();
        for (id, path) in later {
            match self.open_listed(id, &path) {
                Ok(Some(mut reader)) => {
                    beyond.later.push(reader.header.name);
                    self.scan_segment(&mut reader, SEGMENT_HEADER_BYTES as u64, &mut beyond)?;
                }
                Ok(None) => {}
                // Salvage takes what it can read. If the log ends here this is all that is said of the file; if it goes on,
                // `next_readable` meets it again.
                Err(cause @ ReplayError::BadSegment { .. }) if self.salvage => {
                    beyond.unreadable.push(Skipped { from: LogPosition::new(id, 0), to: None, cause });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(beyond)
    }

    fn scan_segment(&self, reader: &mut SegmentReader, from: u64, beyond: &mut Beyond) -> Result<(), ReplayError> {
        let (mut at, mut trace_end) = (from, from);
        loop {
            match reader.next_header(at) {
                Ok(Some(header)) => {
                    let RecordHeader { position, first_seqno, payload_len, payload_crc, .. } = header;
                    let is_whole = reader.is_whole(position.offset, payload_len, payload_crc)?;
                    if is_whole || self.is_near(first_seqno) {
                        if !planted_faults::planted("log-claims-behind-a-bad-record-ignored") {
                            beyond.claim = beyond.claim.max(header.claim);
                        }
                        trace_end = trace_end.max(header.end().offset);
                    }
                    // Of what is not whole, others may stand in the place.
                    at = if is_whole { header.end().offset } else { position.offset + 1 };
                }
                Ok(None) => break,
                Err(ScanError::Io(error)) => return Err(error.into()),
                Err(ScanError::UnknownKind { at: there, record }) => {
                    let UnknownRecord { kind, first_seqno, payload_len, payload_crc } = record;
                    at = there + 1;
                    if !self.is_near(first_seqno) && !reader.is_whole(there, payload_len, payload_crc)? {
                        continue;
                    }
                    // What it claims is not known, so nothing can be cut before it.
                    if !self.salvage {
                        let (path, found) = (reader.path().to_owned(), kind.found);
                        return Err(ReplayError::UnknownKind { path, at: there, found });
                    }
                    // How long it is is not known; that it was cut is told all the same.
                    trace_end = trace_end.max(there + RECORD_HEADER_BYTES as u64);
                }
            }
        }
        beyond.cut_bytes += trace_end - from;
        Ok(())
    }

    /// Whether a record of that sequence number may follow soon upon what was replayed.
    fn is_near(&self, first_seqno: SeqNo) -> bool {
        (first_seqno.get().checked_sub(self.seqno_min.get())).is_some_and(|distance| distance < NEAR_SEQNOS)
    }

    /// Opens a segment that must be there.
    fn open_named(&self, expected: SegmentName, named_by: NamedBy) -> Result<SegmentReader, ReplayError> {
        let path = segment_path(self.dir, expected.id);
        let file = match self.environment.files.open(&path) {
            Err(error) if error.is_not_found() => {
                return Err(ReplayError::MissingSegment { path, expected, named_by });
            }
            file => file?,
        };
        let header =
            read_segment_header(&*file)?.map_err(|fault| ReplayError::BadSegment { path: path.clone(), fault })?;
        if header.database_id != self.database_id {
            let (expected, found) = (self.database_id, header.database_id);
            return Err(ReplayError::ForeignDatabase { path, expected, found });
        }
        if header.name != expected {
            return Err(ReplayError::WrongSalt { path, expected, found: header.name, named_by });
        }
        Ok(SegmentReader::new(file, header))
    }

    /// Opens a segment that nothing names; `None` if it belongs to another database.
    fn open_listed(&self, id: SegmentId, path: &Path) -> Result<Option<SegmentReader>, ReplayError> {
        let bad = |fault| ReplayError::BadSegment { path: path.to_owned(), fault };
        let file = self.environment.files.open(path)?;
        // L1: a file gets this name only with a durable header, so that a bad one is damage, whatever it hides.
        let header = read_segment_header(&*file)?.map_err(bad)?;
        if header.database_id != self.database_id {
            return Ok(None);
        }
        if header.name.id != id {
            return Err(bad(HeaderFault::Id { expected: id, found: header.name.id }));
        }
        Ok(Some(SegmentReader::new(file, header)))
    }

    /// Refuses with `cause`; or, when salvaging, finds where this segment goes on behind `from`.
    fn skip_within(
        &mut self,
        reader: &mut SegmentReader,
        from: LogPosition,
        end: Option<u64>,
        cause: ReplayError,
    ) -> Result<Option<u64>, ReplayError> {
        if !self.salvage {
            return Err(cause);
        }
        let mut search = end.unwrap_or(from.offset + 1);
        let further = loop {
            match reader.next_header(search) {
                Ok(header) => break header.map(|header| header.position.offset),
                Err(ScanError::Io(error)) => return Err(error.into()),
                Err(ScanError::UnknownKind { at, .. }) => search = at + 1,
            }
        };
        let to = further.map(|offset| LogPosition::new(from.segment, offset));
        self.report.skipped.push(Skipped { from, to, cause });
        Ok(further)
    }

    /// Refuses with `cause`; or, when salvaging, opens the next segment in the directory that can be read.
    fn skip_to_segment_after(
        &mut self,
        from: LogPosition,
        last: Option<SegmentId>,
        cause: ReplayError,
    ) -> Result<Option<SegmentReader>, ReplayError> {
        if !self.salvage || matches!(cause, ReplayError::Io(_)) {
            return Err(cause);
        }
        self.report.skipped.push(Skipped { from, to: None, cause });
        match last {
            Some(last) => self.resume_after_skip(last),
            None => self.next_readable(from.segment, true),
        }
    }

    /// Salvage: goes on with the next readable segment after `last`, and completes the report of the last skip.
    fn resume_after_skip(&mut self, last: SegmentId) -> Result<Option<SegmentReader>, ReplayError> {
        self.next_readable(last, false)
    }

    fn next_readable(&mut self, from: SegmentId, inclusive: bool) -> Result<Option<SegmentReader>, ReplayError> {
        let candidates: Vec<_> = self.listing.range(from..).map(|(id, path)| (*id, path.clone())).collect();
        for (id, path) in candidates.into_iter().filter(|(id, _)| inclusive || *id > from) {
            match self.open_listed(id, &path) {
                Ok(Some(reader)) => {
                    if let Some(skipped) = self.report.skipped.last_mut() {
                        skipped.to = Some(LogPosition::new(id, SEGMENT_HEADER_BYTES as u64));
                    }
                    return Ok(Some(reader));
                }
                Ok(None) => {}
                Err(error @ ReplayError::Io(_)) => return Err(error),
                Err(cause) => {
                    let from = LogPosition::new(id, 0);
                    self.report.skipped.push(Skipped { from, to: None, cause });
                }
            }
        }
        Ok(None)
    }
}

/// What stands at a place where no header does.
fn fault_at(reader: &mut SegmentReader, at: u64) -> Result<RecordFault, ReplayError> {
    let (name, segment_bytes) = (reader.header.name, reader.len());
    let bytes = reader.bytes(at, RECORD_HEADER_BYTES as u64)?;
    let Some((header, _)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Ok(RecordFault::SegmentEnd);
    };
    if header.iter().all(|byte| *byte == 0) {
        return Ok(RecordFault::Zeros);
    }
    if RecordHeader::possible(header, LogPosition::new(name.id, at), segment_bytes).is_none() {
        return Ok(RecordFault::NoHeader);
    }
    let found = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    Ok(RecordFault::Header { expected: header_crc(header, name.salt, at), found })
}
