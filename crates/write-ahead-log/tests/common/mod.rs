//! A log with the little of a database around it that its protocol needs: who holds the manifest's floor and claim.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use file_system::{Environment, LogFileWay, Randomness};
use internal_key::{SegmentId, SeqNo};
use write_ahead_log::{
    Log, LogError, LogOptions, LogPosition, LogTail, Payload, RecordKind, ReplayError, ReplayOptions, ReplayReport,
    ReserveError, SegmentName, replay,
};

pub(crate) const DATABASE: u128 = 0xdb00_0000_0000_0000_0000_0000_0000_0001;

/// Segments as short as they may be.
pub(crate) const SHORT_SEGMENTS: LogOptions = LogOptions {
    segment_bytes: 4096,
    segment_bytes_first: 4096,
    way: LogFileWay::Mapped,
    populate_bytes: 4096,
    recycled_max: 1,
};

/// Salts that can be read in a golden script.
#[derive(Debug, Default)]
pub(crate) struct CountingRandomness(AtomicU64);

impl CountingRandomness {
    pub(crate) fn starting_at(number: u64) -> Self {
        Self(AtomicU64::new(number))
    }
}

impl Randomness for CountingRandomness {
    fn next_u64(&self) -> u64 {
        0x5a17_0000_0000_0001 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What the manifest would remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) floor: SegmentName,
    pub(crate) claim: LogPosition,
    pub(crate) next_id: SegmentId,
}

/// One record as a test sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) seqno: u64,
    pub(crate) kind: RecordKind,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

/// A payload that tells its sequence number.
pub(crate) fn payload_of(seqno: u64, len: usize) -> Vec<u8> {
    seqno.to_le_bytes().iter().copied().cycle().take(len).map(|byte| byte ^ 0xA5).collect()
}

/// An open log, and the test's idea of what was written to it.
pub(crate) struct Open {
    pub(crate) log: Log,
    pub(crate) tail: LogTail,
    pub(crate) next_seqno: u64,
}

pub(crate) fn create(
    environment: &Environment,
    dir: &Path,
    options: LogOptions,
) -> Result<(Open, Remembered), LogError> {
    let (log, tail) = Log::create(environment, dir, DATABASE, options, SegmentId(1))?;
    let floor = log.first_segment();
    let remembered = Remembered { floor, claim: LogPosition::default(), next_id: SegmentId(2) };
    Ok((Open { log, tail, next_seqno: 1 }, remembered))
}

impl Open {
    /// Reserves, accepts and appends one record; prepares a segment when there is none.
    pub(crate) fn append(&mut self, kind: RecordKind, bytes: &[u8]) -> Result<LogPosition, LogError> {
        let payload = Payload::new(kind, bytes);
        let reservation = loop {
            match self.log.reserve(&self.tail, bytes.len(), seqno(self.next_seqno)) {
                Ok(reservation) => break reservation,
                Err(ReserveError::NoSegmentReady) => self.log.prepare_segment()?,
                Err(error) => panic!("{error}"),
            }
        };
        self.tail.accept(&reservation);
        self.next_seqno += 1;
        self.log.append(&reservation, &payload)?;
        Ok(reservation.end())
    }

    pub(crate) fn append_batch(&mut self, len: usize) -> Result<LogPosition, LogError> {
        let bytes = payload_of(self.next_seqno, len);
        self.append(RecordKind::Batch, &bytes)
    }
}

/// Replays, collecting the records.
pub(crate) fn replay_all(
    environment: &Environment,
    dir: &Path,
    remembered: &Remembered,
    salvage: bool,
) -> (Vec<Seen>, Result<ReplayReport, ReplayError>) {
    let mut seen = Vec::new();
    let Remembered { floor, claim, .. } = *remembered;
    let report = replay(environment, dir, DATABASE, floor, claim, ReplayOptions { salvage }, |record| {
        let payload = record.payload.to_vec();
        seen.push(Seen { seqno: record.first_seqno.get(), kind: record.kind, payload });
        Ok(())
    });
    (seen, report)
}

/// Replays and resumes.
pub(crate) fn reopen(
    environment: &Environment,
    dir: &Path,
    remembered: &Remembered,
    options: LogOptions,
) -> (Vec<Seen>, Result<Open, String>) {
    let (seen, report) = replay_all(environment, dir, remembered, false);
    let next_seqno = seen.last().map_or(1, |last| last.seqno + 1);
    let open = report.map_err(|error| error.to_string()).and_then(|report| {
        Log::resume(environment, dir, DATABASE, options, &report, remembered.next_id, seqno(next_seqno))
            .map(|(log, tail)| Open { log, tail, next_seqno })
            .map_err(|error| error.to_string())
    });
    (seen, open)
}

/// Stores over a closed segment: damage.
pub(crate) fn overwrite(environment: &Environment, path: &Path, offset: u64, bytes: &[u8]) {
    let file = environment.files.open_log(path, file_system::LogFileWay::Written).unwrap();
    file.store(offset, bytes).unwrap();
}

pub(crate) fn read_file(environment: &Environment, path: &Path) -> Vec<u8> {
    environment.files.read(path, 1 << 31).unwrap()
}

/// The directory's entries, as text.
pub(crate) fn listing(environment: &Environment, dir: &Path) -> String {
    let entries = environment.files.read_dir(dir).unwrap();
    entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// A real directory, with salts that count.
pub(crate) struct RealDirectory {
    pub(crate) environment: Environment,
    pub(crate) dir: PathBuf,
    _temporary: tempfile::TempDir,
}

impl RealDirectory {
    pub(crate) fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let mut environment = Environment::real();
        environment.randomness = Arc::new(CountingRandomness::default());
        Self { environment, dir: temporary.path().join("log"), _temporary: temporary }
    }
}
