//! Listing one segment for people: its header, every record, every stretch that holds none.

use std::fmt;
use std::path::Path;

use file_system::{FileError, FileSystem};

use crate::reader::{ScanError, SegmentReader, read_segment_header};
use crate::record::{RecordHeader, RecordKind, decode_seal};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::{ReplayError, SegmentName};

/// Walks one segment file from front to back, also over damage. Yields every byte behind the header exactly once.
#[derive(Debug)]
pub struct Inspection {
    reader: SegmentReader,
    at: u64,
    failed: bool,
}

/// One stretch of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspected {
    /// A record with a whole header.
    Record {
        /// The header.
        header: RecordHeader,
        /// CRC-32 of the payload as it is; equal to the header's unless it is damaged or torn.
        payload_crc: u32,
        /// What it names, if it is a seal.
        successor: Option<SegmentName>,
    },
    /// A record of a kind that this version does not know; its length is not looked at.
    Unknown {
        /// Where it starts.
        from: u64,
        /// Where the search goes on.
        to: u64,
        /// The kind's number.
        kind: u8,
    },
    /// No record of this segment.
    Gap {
        /// Where it starts.
        from: u64,
        /// Where the next record starts, or the file ends.
        to: u64,
        /// Whether it holds only zeros: never used. Otherwise damage, a torn tail, or an earlier use of the file.
        zeros: bool,
    },
}

impl Inspected {
    /// Whether a record's payload matches its header; `None` for anything but a record.
    pub fn payload_is_whole(&self) -> Option<bool> {
        match self {
            Self::Record { header, payload_crc, .. } => Some(header.payload_crc == *payload_crc),
            _ => None,
        }
    }
}

/// Displayed on one line: offset, kind, sequence number, length, claim, and what is wrong.
impl fmt::Display for Inspected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record { header, payload_crc, successor } => {
                let RecordHeader { position, kind, first_seqno, claim, payload_len, payload_crc: expected } = header;
                write!(f, "{:>10}  {kind} {first_seqno}, {payload_len} bytes, claim {claim}", position.offset)?;
                if let Some(successor) = successor {
                    write!(f, ", successor {successor}")?;
                }
                if payload_crc != expected {
                    write!(f, ", payload checksum {payload_crc:08x} should be {expected:08x}")?;
                }
                Ok(())
            }
            Self::Unknown { from, kind, .. } => write!(f, "{from:>10}  unknown record kind {kind}"),
            Self::Gap { from, to, zeros } => {
                let what = if *zeros { "unused" } else { "no record" };
                write!(f, "{from:>10}  {what}, {} bytes", to - from)
            }
        }
    }
}

impl Inspection {
    /// Opens a segment file.
    ///
    /// # Errors
    /// [`ReplayError::Io`], or [`ReplayError::BadSegment`] if its header does not hold.
    pub fn open(files: &dyn FileSystem, path: &Path) -> Result<Self, ReplayError> {
        let file = files.open(path)?;
        let header =
            read_segment_header(&*file)?.map_err(|fault| ReplayError::BadSegment { path: path.to_owned(), fault })?;
        let at = SEGMENT_HEADER_BYTES as u64;
        Ok(Self { reader: SegmentReader::new(file, header), at, failed: false })
    }

    /// The segment's header.
    pub fn header(&self) -> &SegmentHeader {
        &self.reader.header
    }

    fn step(&mut self) -> Result<Inspected, FileError> {
        let from = self.at;
        let next = match self.reader.next_header(from) {
            Ok(next) => next,
            Err(ScanError::Io(error)) => return Err(error),
            Err(ScanError::UnknownKind { at, record }) if at == from => {
                let to = at + crate::RECORD_ALIGNMENT as u64;
                return Ok(Inspected::Unknown { from, to, kind: record.kind.found });
            }
            Err(ScanError::UnknownKind { at, .. }) => {
                return Ok(Inspected::Gap { from, to: at, zeros: self.reader.is_zero(from, at)? });
            }
        };
        match next {
            Some(header) if header.position.offset == from => {
                let payload = self.reader.payload(&header)?;
                let successor = decode_seal(payload).filter(|_| header.kind == RecordKind::Seal);
                Ok(Inspected::Record { header, payload_crc: crc32fast::hash(payload), successor })
            }
            next => {
                let to = next.map_or(self.reader.len(), |header| header.position.offset);
                Ok(Inspected::Gap { from, to, zeros: self.reader.is_zero(from, to)? })
            }
        }
    }
}

impl Iterator for Inspection {
    type Item = Result<Inspected, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.at >= self.reader.len() {
            return None;
        }
        let step = self.step();
        match &step {
            // A record whose payload does not hold may have a wrong length too: look for headers inside it.
            Ok(found @ Inspected::Record { header, .. }) if found.payload_is_whole() == Some(true) => {
                self.at = header.end().offset;
            }
            Ok(Inspected::Record { header, .. }) => self.at = header.payload_offset(),
            Ok(Inspected::Unknown { to, .. } | Inspected::Gap { to, .. }) => self.at = *to,
            Err(_) => self.failed = true,
        }
        Some(step)
    }
}
