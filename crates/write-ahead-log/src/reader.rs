//! Reading one segment: headers, payloads, and the scan for headers that lie further on.
//!
//! Reads go through a window in memory, not a map, so that a segment that another process writes can be read too, and a
//! failing disk is an error instead of a signal. No length from the disk is trusted before its checksum holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::{Environment, FileError, ReadFile};
use internal_key::SegmentId;

use crate::position::parse_segment_file_name;
use crate::record::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RecordHeader, UnknownRecord, crc32};
use crate::segment::{HeaderFault, SEGMENT_HEADER_BYTES, SegmentHeader};

/// Bytes read at once, unless a record is longer.
const WINDOW_BYTES: u64 = 256 << 10;

/// The segments of a directory by id. A directory that does not exist has none.
pub(crate) fn list_segments(environment: &Environment, dir: &Path) -> Result<BTreeMap<SegmentId, PathBuf>, FileError> {
    let entries = match environment.files.read_dir(dir) {
        Err(error) if error.is_not_found() => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let named = entries.iter().filter(|entry| !entry.is_dir);
    Ok(named.filter_map(|entry| Some((parse_segment_file_name(&entry.name)?, dir.join(&entry.name)))).collect())
}

/// The header of a segment, its length compared with the file's.
pub(crate) fn read_segment_header(file: &dyn ReadFile) -> Result<Result<SegmentHeader, HeaderFault>, FileError> {
    if file.len() < SEGMENT_HEADER_BYTES as u64 {
        return Ok(Err(HeaderFault::Short { found: file.len() }));
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(0, &mut bytes)?;
    Ok(SegmentHeader::decode(&bytes).and_then(|header| {
        let expected = u64::from(header.segment_bytes);
        if expected == file.len() { Ok(header) } else { Err(HeaderFault::Length { expected, found: file.len() }) }
    }))
}

/// The path of the first segment in `dir` with an id of at least `from` that holds a record, whosever it is, or `None` if
/// all are empty or there is no such directory. A new database is created only over `None` (M6): anything else is a log
/// that lost its manifest.
///
/// # Errors
/// If a file cannot be listed or read.
pub fn holds_records(environment: &Environment, dir: &Path, from: SegmentId) -> Result<Option<PathBuf>, FileError> {
    for path in list_segments(environment, dir)?.split_off(&from).into_values() {
        let file = match environment.files.open(&path) {
            Ok(file) => file,
            // Its writer took it back since it was listed: it held nothing.
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let header = match read_segment_header(&*file)? {
            Ok(header) => header,
            // Another version's log: what it holds cannot be told.
            Err(HeaderFault::Version { .. } | HeaderFault::Features { .. }) => return Ok(Some(path)),
            Err(_) => continue,
        };
        match SegmentReader::new(file, header).next_header(SEGMENT_HEADER_BYTES as u64) {
            Ok(None) => {}
            Ok(Some(_)) | Err(ScanError::UnknownKind { .. }) => return Ok(Some(path)),
            Err(ScanError::Io(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Why a header could not be given out.
#[derive(Debug)]
pub(crate) enum ScanError {
    Io(FileError),
    /// A header that holds in all else.
    UnknownKind {
        at: u64,
        record: UnknownRecord,
    },
}

impl From<FileError> for ScanError {
    fn from(error: FileError) -> Self {
        Self::Io(error)
    }
}

/// A segment being read.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    file: Arc<dyn ReadFile>,
    pub(crate) header: SegmentHeader,
    window: Vec<u8>,
    window_at: u64,
    /// Where bytes stand that were ever written, from the offset on with which this was first asked.
    written: Option<(u64, Vec<Range<u64>>)>,
}

impl SegmentReader {
    /// A reader of a file whose header was read.
    pub(crate) fn new(file: Arc<dyn ReadFile>, header: SegmentHeader) -> Self {
        Self { file, header, window: Vec::new(), window_at: 0, written: None }
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn len(&self) -> u64 {
        u64::from(self.header.segment_bytes)
    }

    /// At most `len` bytes from `offset`: fewer only where the segment ends.
    pub(crate) fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8], FileError> {
        let len = len.min(self.len().saturating_sub(offset));
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len > window_end {
            let fill = len.max(WINDOW_BYTES.min(self.len().saturating_sub(offset)));
            self.window.clear();
            self.window.resize(fill as usize, 0);
            self.window_at = offset;
            if let Err(error) = self.file.read_exact_at(offset, &mut self.window) {
                self.window.clear();
                return Err(error);
            }
        }
        let start = (offset - self.window_at) as usize;
        Ok(&self.window[start..start + len as usize])
    }

    /// Lets whatever is asked next be read anew.
    pub(crate) fn forget_window(&mut self) {
        self.window.clear();
    }

    /// The record header at `offset`, or `None` if none starts there.
    pub(crate) fn header_at(&mut self, offset: u64) -> Result<Option<RecordHeader>, ScanError> {
        let (name, segment_bytes) = (self.header.name, self.len());
        let bytes = self.bytes(offset, RECORD_HEADER_BYTES as u64)?;
        RecordHeader::decode(bytes, name, offset, segment_bytes)
            .map_err(|record| ScanError::UnknownKind { at: offset, record })
    }

    /// The payload of a record whose header was decoded, checked or not.
    pub(crate) fn payload(&mut self, record: &RecordHeader) -> Result<&[u8], FileError> {
        self.bytes(record.payload_offset(), u64::from(record.payload_len))
    }

    /// Whether `payload_len` bytes of payload behind the header at `offset` have that checksum.
    pub(crate) fn is_whole(&mut self, offset: u64, payload_len: u32, payload_crc: u32) -> Result<bool, FileError> {
        let payload = self.bytes(offset + RECORD_HEADER_BYTES as u64, u64::from(payload_len))?;
        Ok(crc32(payload) == payload_crc)
    }

    /// Where the first byte at or after `offset` may stand that was ever written. What another process writes after the
    /// first call may be left out, as if the scan had been earlier.
    fn written_after(&mut self, offset: u64) -> Option<u64> {
        let (from, written) = self.written.get_or_insert_with(|| (offset, self.file.written_ranges(offset)));
        if offset < *from {
            (*from, *written) = (offset, self.file.written_ranges(offset));
        }
        let next = written.partition_point(|range| range.end <= offset);
        written.get(next).map(|range| range.start.max(offset))
    }

    /// The first record header at or after `from` (L3: a scan tests headers only).
    ///
    /// Bytes that are no header of this segment pass for one once in 2^32 of the places where all but the checksum is
    /// possible: whoever acts on what a record far from the others says has more to ask.
    pub(crate) fn next_header(&mut self, from: u64) -> Result<Option<RecordHeader>, ScanError> {
        const HEADER: usize = RECORD_HEADER_BYTES;
        let (name, segment_bytes) = (self.header.name, self.len());
        let mut at = from.next_multiple_of(RECORD_ALIGNMENT as u64);
        while at + HEADER as u64 <= segment_bytes {
            let Some(written) = self.written_after(at) else { break };
            // A header may begin with zeros, before the first page that was written.
            at = at.max(written.saturating_sub(HEADER as u64).next_multiple_of(RECORD_ALIGNMENT as u64));
            // What is there of the window, and a new one only where that ends: headers lie close together.
            self.bytes(at, HEADER as u64)?;
            let window = &self.window[(at - self.window_at) as usize..];
            let mut passed = 0;
            while let Some(bytes) = window.get(passed..passed + HEADER) {
                let offset = at + passed as u64;
                match RecordHeader::decode(bytes, name, offset, segment_bytes) {
                    Ok(None) => {}
                    Ok(header) => return Ok(header),
                    Err(record) => return Err(ScanError::UnknownKind { at: offset, record }),
                }
                passed += RECORD_ALIGNMENT;
            }
            at += passed as u64;
        }
        Ok(None)
    }

    /// Whether a range holds only zeros: space never used.
    pub(crate) fn is_zero(&mut self, from: u64, to: u64) -> Result<bool, FileError> {
        let mut at = from;
        while at < to {
            let bytes = self.bytes(at, WINDOW_BYTES.min(to - at))?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use file_system::MappedBytes;
    use internal_key::SeqNo;

    use super::*;
    use crate::record::{RecordKind, record_bytes};
    use crate::segment::FeatureBits;
    use crate::{LogPosition, SegmentName};

    /// A file in memory that counts what is read of it.
    #[derive(Debug)]
    struct Counted {
        bytes: Vec<u8>,
        read: Arc<AtomicU64>,
    }

    impl ReadFile for Counted {
        fn path(&self) -> &Path {
            Path::new("1.wal")
        }

        fn len(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
            buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
            self.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            Ok(())
        }

        fn map(&self) -> Result<MappedBytes, FileError> {
            unreachable!("a scan reads")
        }
    }

    /// A scan from header to header reads the segment about once, however close together they lie: what lies behind a torn
    /// record can be a whole segment of small ones.
    #[test]
    fn a_scan_reads_the_segment_once() {
        let name = SegmentName { id: SegmentId(1), salt: 7 };
        let mut bytes = vec![0; 1 << 20];
        let (mut at, mut written) = (64, 0);
        while at + 200 < bytes.len() as u64 {
            let header = RecordHeader {
                position: LogPosition::new(name.id, at),
                kind: RecordKind::Batch,
                first_seqno: SeqNo::new(written + 1).unwrap(),
                claim: LogPosition::new(name.id, 64),
                payload_len: 20,
                payload_crc: 0,
            };
            let encoded = header.encode(name.salt);
            bytes[at as usize..][..encoded.len()].copy_from_slice(&encoded);
            at += record_bytes(20);
            written += 1;
        }
        let segment_bytes = bytes.len() as u32;
        let header = SegmentHeader { features: FeatureBits::default(), database_id: 1, name, segment_bytes };
        let read = Arc::new(AtomicU64::new(0));
        let mut reader = SegmentReader::new(Arc::new(Counted { bytes, read: Arc::clone(&read) }), header);
        let (mut from, mut found) = (64, 0);
        while let Some(header) = reader.next_header(from).unwrap() {
            from = header.end().offset;
            found += 1;
        }
        assert_eq!(found, written);
        let read = read.load(Ordering::Relaxed);
        assert!(read < 2 * u64::from(segment_bytes), "{read} bytes read of {segment_bytes}, for {found} headers");
    }
}
