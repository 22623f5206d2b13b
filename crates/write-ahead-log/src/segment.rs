//! One segment: a file of fixed length that begins with a header and is then filled with records.
//!
//! ```text
//!   0        8    12     16     20     24           40       48     56      60     64
//!   ┌────────┬────┬──────┬──────┬──────┬────────────┬────────┬──────┬───────┬──────┬─────────┬─────────┬─ ─
//!   │ magic  │ver-│compa-│ read │incom-│ database   │ segment│ salt │segment│ crc32│ record  │ record  │
//!   │lsm-log\n sion│tible │compa.│patib.│ id         │ id     │      │ bytes │ 0..60│         │         │
//!   └────────┴────┴──────┴──────┴──────┴────────────┴────────┴──────┴───────┴──────┴─────────┴─────────┴─ ─
//! ```
//!
//! - **L1** A segment gets its name only after its header is durable, and is used only after its name is: the file is
//!   made under a temporary name, stored, synced, renamed, the directory synced. So a `.wal` file always has a header.
//! - **L5** Recycling goes the same way, through a temporary name, with a new id and a new salt.
//! - Magic, version and checksum stay where they are in every format; the rest belongs to the version.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use file_system::traits::TEMPORARY_PREFIX;
use file_system::{Environment, FileError, LogFile, LogFileWay};
use internal_key::SegmentId;

use crate::position::{segment_file_name, segment_path};
use crate::record::{RECORD_HEADER_BYTES, SEAL_BYTES, record_bytes};
use crate::{LogOptions, SegmentName};

/// What every segment begins with. On disk since format 1.
pub const MAGIC: [u8; 8] = *b"lsm-log\n";

/// The format that this crate writes, and the only one that it reads. Format 1, which no release wrote, had longer record
/// headers.
pub const FORMAT_VERSION: u32 = 2;

/// Bytes of the segment header; the first record starts here. On disk since format 1.
pub const SEGMENT_HEADER_BYTES: usize = 64;
const _: () = assert!(SEGMENT_HEADER_BYTES == 8 + 4 + 3 * 4 + 16 + 8 + 8 + 4 + 4);

/// Optional features of a segment, in three classes. None is known yet: every bit is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureBits {
    /// Unknown bits may be ignored.
    pub compatible: u32,
    /// Unknown bits allow reading, not writing.
    pub read_compatible: u32,
    /// Unknown bits allow nothing.
    pub incompatible: u32,
}

/// A decoded segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Optional features.
    pub features: FeatureBits,
    /// The database that the segment belongs to.
    pub database_id: u128,
    /// Its id and salt.
    pub name: SegmentName,
    /// The length of the file.
    pub segment_bytes: u32,
}

/// Why the start of a file is not a usable segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderFault {
    /// The file ends within the header.
    #[error("expected a segment header of {SEGMENT_HEADER_BYTES} bytes, found {found} bytes")]
    Short {
        /// Bytes there were.
        found: u64,
    },
    /// It is no log segment.
    #[error("expected magic {MAGIC:02x?}, found {found:02x?}")]
    Magic {
        /// The bytes found.
        found: [u8; 8],
    },
    /// The header is damaged.
    #[error("expected segment header checksum {expected:08x}, found {found:08x}")]
    Checksum {
        /// What the bytes amount to.
        expected: u32,
        /// What the header says.
        found: u32,
    },
    /// Another format.
    #[error("expected log format version {FORMAT_VERSION}, found {found}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// A feature without which the segment cannot be read.
    #[error("unknown incompatible log features {found:#x}")]
    Features {
        /// The unknown bits.
        found: u32,
    },
    /// The file has not the length that the header tells.
    #[error("expected a segment of {expected} bytes, found {found} bytes")]
    Length {
        /// What the header says.
        expected: u64,
        /// The file's length.
        found: u64,
    },
    /// The header belongs to another segment than the file's name tells.
    #[error("expected the header of {expected}, found that of {found}")]
    Id {
        /// What the file's name says.
        expected: SegmentId,
        /// What the header says.
        found: SegmentId,
    },
}

impl SegmentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.features.compatible.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.features.read_compatible.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.features.incompatible.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.database_id.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.name.id.get().to_le_bytes());
        bytes[48..56].copy_from_slice(&self.name.salt.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.segment_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`.
    ///
    /// # Errors
    /// The first [`HeaderFault`] met: length, magic, checksum, version, features. The file's length and name are the
    /// caller's to compare.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let Some((header, _)) = bytes.split_first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(HeaderFault::Short { found: bytes.len() as u64 });
        };
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let mut magic = [0; 8];
        magic.copy_from_slice(&header[..8]);
        if magic != MAGIC {
            return Err(HeaderFault::Magic { found: magic });
        }
        let (expected, found) = (crc32fast::hash(&header[..60]), u32_at(60));
        if expected != found && !planted_faults::planted("log-segment-header-checksum-unchecked") {
            return Err(HeaderFault::Checksum { expected, found });
        }
        if u32_at(8) != FORMAT_VERSION {
            return Err(HeaderFault::Version { found: u32_at(8) });
        }
        let features = FeatureBits { compatible: u32_at(12), read_compatible: u32_at(16), incompatible: u32_at(20) };
        if features.incompatible != 0 {
            return Err(HeaderFault::Features { found: features.incompatible });
        }
        Ok(Self {
            features,
            database_id: u128::from(u64_at(24)) | u128::from(u64_at(32)) << 64,
            name: SegmentName { id: SegmentId(u64_at(40)), salt: u64_at(48) },
            segment_bytes: u32_at(56),
        })
    }
}

/// Displayed on one line, as `lsm inspect` prints it.
impl fmt::Display for SegmentHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { features, database_id, name, segment_bytes } = self;
        write!(f, "segment {name} of database {database_id:032x}, format {FORMAT_VERSION}, {segment_bytes} bytes")?;
        let FeatureBits { compatible, read_compatible, incompatible } = features;
        if *features != FeatureBits::default() {
            write!(f, ", features {compatible:#x}/{read_compatible:#x}/{incompatible:#x}")?;
        }
        Ok(())
    }
}

/// The longest payload of a record that is alone in a segment of that length, a seal behind it.
pub(crate) const fn payload_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes - SEGMENT_HEADER_BYTES as u64 - SEAL_BYTES as u64 - RECORD_HEADER_BYTES as u64
}

/// The shortest segment that holds a record with that payload, alone: the inverse of [`payload_bytes_max`].
pub(crate) const fn segment_bytes_of(payload_bytes: u64) -> u64 {
    SEGMENT_HEADER_BYTES as u64 + record_bytes(payload_bytes) + SEAL_BYTES as u64
}

/// A segment that stores can reach.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    /// Its length; the same as the file's.
    pub(crate) bytes: u64,
    /// `None` for a segment that was replayed: nothing is stored there any more (L4).
    pub(crate) file: Option<Arc<dyn LogFile>>,
    /// Pages before this were touched. Advice only, so `Relaxed` suffices everywhere.
    pub(crate) populated: AtomicU64,
}

impl Segment {
    /// What stands for the current segment until there is a first one: nothing fits into it, and it is no file.
    pub(crate) fn nowhere(id: SegmentId, dir: &Path) -> Self {
        let file = Arc::new(Nowhere { dir: dir.to_owned() });
        // Salt zero is no segment's.
        Self { name: SegmentName { id, salt: 0 }, bytes: 0, file: Some(file), populated: AtomicU64::new(0) }
    }

    /// Whether it only stands for one.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.bytes == 0
    }
}

/// The file of a segment that is none.
#[derive(Debug)]
struct Nowhere {
    dir: PathBuf,
}

impl LogFile for Nowhere {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn len(&self) -> u64 {
        0
    }

    fn way(&self) -> LogFileWay {
        LogFileWay::Written
    }

    fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        panic!("L1: {} bytes at {offset} of a log that has not begun", bytes.len());
    }

    fn populate(&self, _offset: u64, _bytes: u64) {}

    fn sync(&self) -> Result<(), FileError> {
        Ok(())
    }
}

/// What new segments are made from: where, and for whom.
#[derive(Debug)]
pub(crate) struct SegmentMaker {
    pub(crate) environment: Environment,
    pub(crate) dir: PathBuf,
    pub(crate) database_id: u128,
    pub(crate) options: LogOptions,
}

impl SegmentMaker {
    /// Makes a segment durable under its final name, and opens it (L1, L5): of `bytes` bytes, or out of `recycled` if given,
    /// whose length it keeps.
    ///
    /// # Errors
    /// Certain (P8): nothing names the segment yet. What was begun is removed where possible; the caller retries with
    /// another id.
    pub(crate) fn make(&self, id: SegmentId, bytes: u64, recycled: Option<&Path>) -> Result<Segment, FileError> {
        let files = &self.environment.files;
        let temporary = self.dir.join(format!("{TEMPORARY_PREFIX}{}", segment_file_name(id)));
        let path = segment_path(&self.dir, id);
        let made = (|| {
            match files.remove_file(&temporary) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
            // Written by a call whatever the way: for these few bytes a map costs more than it spares.
            let file = match recycled {
                Some(old) => {
                    files.rename(old, &temporary)?;
                    files.open_log(&temporary, LogFileWay::Written)?
                }
                None => files.create_log(&temporary, bytes, LogFileWay::Written)?,
            };
            let bytes = file.len();
            // Salt zero is what untouched bytes look like.
            let salt = match planted_faults::planted("log-salt-never-changes") {
                true => 1,
                false => self.environment.randomness.next_u64().max(1),
            };
            let name = SegmentName { id, salt };
            let header = SegmentHeader {
                features: FeatureBits::default(),
                database_id: self.database_id,
                name,
                segment_bytes: u32::try_from(bytes).expect("L1: segments are at most 2 GiB"),
            };
            file.store(0, &header.encode())?;
            if !planted_faults::planted("log-segment-header-not-synced") {
                file.sync()?;
            }
            // Not renamed while it is open: Windows refuses that for a mapped file.
            drop(file);
            files.rename(&temporary, &path)?;
            if !planted_faults::planted("log-segment-used-before-its-name-is-durable") {
                files.sync_dir(&self.dir)?;
            }
            let file = files.open_log(&path, self.options.way)?;
            Ok(Segment { name, bytes, file: Some(file), populated: AtomicU64::new(0) })
        })();
        if made.is_err() {
            // Nothing names either file; if they cannot be removed now, opening does it (M2).
            let _ = files.remove_file(&temporary);
            let _ = files.remove_file(&path);
        }
        made
    }
}
