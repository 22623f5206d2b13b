//! Stories of logs, told by commands: what is written, what is damaged, what replay makes of it.
#![cfg(not(loom))]

mod common;

use std::fmt::Write as _;

use common::{Open, RealDirectory, Remembered, create, listing, overwrite, payload_of, read_file, replay_all, seqno};
use file_system::LogFileWay;
use test_support::{Command, Fixture};
use write_ahead_log::{
    Inspection, Log, LogOptions, LogPin, Payload, RECORD_HEADER_BYTES, RecordKind, ReserveError, SegmentName,
    segment_file_name,
};

/// L1, L3, L4, L5: the stories in `tests/golden`, stored through a map.
#[test]
fn golden_scripts() {
    test_support::run_scripts("tests/golden", || LogFixture::new(LogFileWay::Mapped));
}

/// L1: the same stories, stored by calls, leave the same bytes.
#[test]
fn golden_scripts_written() {
    test_support::run_scripts("tests/golden", || LogFixture::new(LogFileWay::Written));
}

struct LogFixture {
    place: RealDirectory,
    options: LogOptions,
    open: Option<Open>,
    remembered: Option<Remembered>,
    pin: Option<LogPin>,
}

impl LogFixture {
    fn new(way: LogFileWay) -> Self {
        let options =
            LogOptions { segment_bytes: 4096, segment_bytes_first: 4096, way, populate_bytes: 4096, recycled_max: 1 };
        Self { place: RealDirectory::new(), options, open: None, remembered: None, pin: None }
    }

    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect("the log is open")
    }

    fn path(&self, command: &Command, index: usize) -> std::path::PathBuf {
        self.place.dir.join(command.arg(index))
    }

    fn text_of(&self, error: &dyn std::fmt::Display) -> String {
        let dir = format!("{}/", self.place.dir.display());
        error.to_string().replace(&dir, "")
    }

    fn replay(&mut self, salvage: bool) -> String {
        let remembered = self.remembered.expect("the log was created");
        let (seen, report) = replay_all(&self.place.environment, &self.place.dir, &remembered, salvage);
        let mut text = String::new();
        for record in &seen {
            let whole = record.payload == payload_of(record.seqno, record.payload.len());
            let odd = if whole { "" } else { ", not what was written" };
            writeln!(text, "{} #{}, {} bytes{odd}", record.kind, record.seqno, record.payload.len()).unwrap();
        }
        match report {
            Ok(report) => {
                for skipped in &report.skipped {
                    let to = skipped.to.map_or("the end".to_string(), |to| to.to_string());
                    writeln!(text, "skipped {} to {to}: {}", skipped.from, self.text_of(&skipped.cause)).unwrap();
                }
                writeln!(text, "{report}").unwrap();
                if report.beyond_claim {
                    writeln!(text, "records lie beyond the claim").unwrap();
                }
                if !report.later.is_empty() {
                    let later: Vec<_> = report.later.iter().map(SegmentName::to_string).collect();
                    writeln!(text, "behind it: {}", later.join(" ")).unwrap();
                }
            }
            Err(error) => writeln!(text, "error: {}", self.text_of(&error)).unwrap(),
        }
        text
    }
}

impl Fixture for LogFixture {
    fn run(&mut self, command: &Command) -> String {
        match command.name() {
            // create [segment=BYTES]
            "create" => {
                self.options.segment_bytes = command.option_or("segment", 4096);
                match create(&self.place.environment, &self.place.dir, self.options) {
                    Ok((open, remembered)) => {
                        self.open = Some(open);
                        self.remembered = Some(remembered);
                        format!("floor {}", remembered.floor)
                    }
                    Err(error) => format!("error: {}", self.text_of(&error)),
                }
            }
            // append BYTES [times=N] [kind=drop]
            "append" => {
                let (bytes, times) = (command.parse::<usize>(0), command.option_or("times", 1));
                let kind = match command.option("kind") {
                    None => RecordKind::Batch,
                    Some(name) => RecordKind::ALL.into_iter().find(|kind| kind.to_string() == name).unwrap(),
                };
                let mut text = String::new();
                for _ in 0..times {
                    let open = self.open();
                    let payload = payload_of(open.next_seqno, bytes);
                    let number = open.next_seqno;
                    match open.append(kind, &payload) {
                        Ok(end) => writeln!(text, "#{number} ends at {end}").unwrap(),
                        Err(error) => writeln!(text, "error: {}", self.text_of(&error)).unwrap(),
                    }
                }
                text
            }
            // A writer that reserved and died before it appended.
            "lose" => {
                let bytes = command.parse::<usize>(0);
                let open = self.open();
                let reservation = loop {
                    match open.log.reserve(&open.tail, bytes, seqno(open.next_seqno)) {
                        Ok(reservation) => break reservation,
                        Err(ReserveError::NoSegmentReady) => open.log.prepare_segment().unwrap(),
                        Err(error) => return format!("error: {error}"),
                    }
                };
                open.tail.accept(&reservation);
                open.next_seqno += 1;
                format!("hole from {} to {}", reservation.start(), reservation.end())
            }
            // A reservation that is not accepted: nothing happens.
            "try" => {
                let open = self.open();
                match open.log.reserve(&open.tail, command.parse(0), seqno(open.next_seqno)) {
                    Ok(reservation) => format!("could be {} to {}", reservation.start(), reservation.end()),
                    Err(error) => format!("error: {error}"),
                }
            }
            "prepare" => match self.open().log.prepare_segment() {
                Ok(()) => String::new(),
                Err(error) => format!("error: {}", self.text_of(&error)),
            },
            "sync" => {
                let open = self.open();
                let end = open.tail.next_end();
                match open.log.sync_through(end) {
                    Ok(()) => format!("durable to {}", open.log.durable()),
                    Err(error) => format!("error: {error}"),
                }
            }
            // The manifest remembers the claim.
            "remember" => {
                let durable = self.open().log.durable();
                self.remembered.as_mut().unwrap().claim = durable;
                String::new()
            }
            "close" => {
                let mut open = self.open.take().expect("the log is open");
                let claim = open.log.close(&mut open.tail, common::seqno(open.next_seqno)).unwrap();
                self.remembered.as_mut().unwrap().claim = claim;
                let closed = format!("closed, durable to {claim}");
                if command.has("remove") {
                    format!("{closed}, {} segments removed", open.log.remove(open.tail).unwrap())
                } else {
                    closed
                }
            }
            // The process dies; what it stored stays.
            "kill" => {
                self.open = None;
                self.pin = None;
                String::new()
            }
            "replay" => self.replay(command.has("salvage")),
            "resume" => {
                let remembered = self.remembered.expect("the log was created");
                let (environment, dir) = (&self.place.environment, &self.place.dir);
                let (seen, report) = replay_all(environment, dir, &remembered, command.has("salvage"));
                let report = match report {
                    Ok(report) => report,
                    Err(error) => return format!("error: {}", self.text_of(&error)),
                };
                let next_seqno = seen.last().map_or(1, |last| last.seqno + 1);
                let resumed = Log::resume(
                    environment,
                    dir,
                    common::DATABASE,
                    self.options,
                    &report,
                    remembered.next_id,
                    seqno(next_seqno),
                );
                match resumed {
                    Ok((log, tail)) => {
                        let held = if log.holds_claims() { ", claims held" } else { "" };
                        let text = format!("goes on at {}, durable to {}{held}", tail.next_end(), log.durable());
                        self.open = Some(Open { log, tail, next_seqno });
                        text
                    }
                    Err(error) => format!("error: {}", self.text_of(&error)),
                }
            }
            // Everything below the next sequence number is flushed and the manifest says so.
            "flush" => {
                let open = self.open.as_mut().expect("the log is open");
                let oldest = command.option_or("oldest", open.next_seqno);
                let floor = open.log.floor_for(seqno(oldest));
                open.log.release_claims();
                let claim = open.log.durable();
                let remembered = self.remembered.as_mut().unwrap();
                *remembered = Remembered { floor, claim, next_id: open.log.next_segment_id() };
                match open.log.recycle_before(floor) {
                    Ok(done) => format!(
                        "floor {floor}: {} kept, {} removed, {} held; {} bytes live",
                        done.kept,
                        done.removed,
                        done.held,
                        open.log.total_bytes()
                    ),
                    Err(error) => format!("error: {}", self.text_of(&error)),
                }
            }
            "remove-unnamed" => {
                let done = self.open().log.remove_unnamed().unwrap();
                format!("{} kept, {} removed", done.kept, done.removed)
            }
            "pin" => {
                let pin = self.open().log.pin();
                let text = pin.segments().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(" ");
                self.pin = Some(pin);
                text
            }
            "unpin" => {
                self.pin = None;
                String::new()
            }
            "list" => listing(&self.place.environment, &self.place.dir),
            "link" => {
                let to = self.place.dir.join(command.arg(1));
                self.place.environment.files.hard_link(&self.path(command, 0), &to).unwrap();
                String::new()
            }
            "remove" => {
                self.place.environment.files.remove_file(&self.path(command, 0)).unwrap();
                String::new()
            }
            // copy FROM TO: the whole file under another name.
            "copy" => {
                let bytes = read_file(&self.place.environment, &self.path(command, 0));
                let files = &self.place.environment.files;
                let file = files.create_log(&self.path(command, 1), bytes.len() as u64, LogFileWay::Written).unwrap();
                file.store(0, &bytes).unwrap();
                String::new()
            }
            // flip FILE OFFSET: one bit.
            "flip" => {
                let (path, offset) = (self.path(command, 0), command.parse::<u64>(1));
                let byte = read_file(&self.place.environment, &path)[offset as usize];
                overwrite(&self.place.environment, &path, offset, &[byte ^ 1]);
                String::new()
            }
            // zero FILE FROM TO
            "zero" => {
                let (from, to) = (command.parse::<u64>(1), command.parse::<u64>(2));
                overwrite(&self.place.environment, &self.path(command, 0), from, &vec![0; (to - from) as usize]);
                String::new()
            }
            // forge FILE OFFSET [kind=N] [seqno=N]: another record header, its checksum made right.
            "forge" => {
                let (path, offset) = (self.path(command, 0), command.parse::<usize>(1));
                let segment = read_file(&self.place.environment, &path);
                let mut header = segment[offset..offset + RECORD_HEADER_BYTES].to_vec();
                header[12] = command.option_or("kind", header[12]);
                if let Some(seqno) = command.option("seqno") {
                    let salt = u64::from_le_bytes(*segment[48..].first_chunk().unwrap());
                    let stored = seqno.parse::<u64>().unwrap() ^ salt >> 8;
                    header[13..20].copy_from_slice(&stored.to_le_bytes()[..7]);
                }
                let covered = [&segment[48..56], &(offset as u32).to_le_bytes(), &header[4..]].concat();
                header[..4].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
                overwrite(&self.place.environment, &path, offset as u64, &header);
                String::new()
            }
            // header FILE FIELD VALUE: a field of the segment header, its checksum made right.
            "header" => {
                let path = self.path(command, 0);
                let mut header = read_file(&self.place.environment, &path)[..64].to_vec();
                let at = match command.arg(1) {
                    "version" => 8,
                    "read-compatible" => 16,
                    "incompatible" => 20,
                    "database" => 24,
                    "salt" => 48,
                    _ => command.unknown(),
                };
                header[at] = command.parse(2);
                let crc = crc32fast::hash(&header[..60]);
                header[60..].copy_from_slice(&crc.to_le_bytes());
                overwrite(&self.place.environment, &path, 0, &header);
                String::new()
            }
            "inspect" => match Inspection::open(&*self.place.environment.files, &self.path(command, 0)) {
                Ok(inspection) => {
                    let mut text = format!("{}\n", inspection.header());
                    for item in inspection {
                        writeln!(text, "{}", item.unwrap()).unwrap();
                    }
                    text
                }
                Err(error) => format!("error: {}", self.text_of(&error)),
            },
            // The bytes of a range, in hexadecimal.
            "hex" => {
                let (from, to) = (command.parse::<usize>(1), command.parse::<usize>(2));
                let bytes = read_file(&self.place.environment, &self.path(command, 0));
                let mut text = String::new();
                for (row, chunk) in bytes[from..to].chunks(16).enumerate() {
                    let hex = chunk.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
                    writeln!(text, "{:04x}  {hex}", from + row * 16).unwrap();
                }
                text
            }
            _ => command.unknown(),
        }
    }
}

/// L2: the log's own kinds cannot be appended by others.
#[test]
#[should_panic(expected = "L2")]
fn a_seal_is_not_a_payload() {
    let _ = Payload::new(RecordKind::Seal, &[]);
}

/// L1: segments have names that sort into their order.
#[test]
fn the_first_segment_is_called_by_its_id() {
    assert_eq!(segment_file_name(internal_key::SegmentId(1)), "1.wal");
}
