//! Going on after a replay: a fresh segment, and a seal at the cut that names it.
//!
//! ```text
//!   before   … ─ record ─ record ─ B  (torn bytes, or nothing)        later segments, discarded
//!   1        … ─ record ─ record ─ B                                  successor, durable, named by nothing
//!   2        … ─ record ─ record ─ seal ──────────────────────────▶   successor
//! ```
//!
//! - **L4** Nothing is ever appended to a replayed segment but this seal. A crash before step 2 is durable leaves the
//!   cut where it was, and the next opening does the same with another successor; after it, replay follows the seal. It is
//!   synced here unless claims are held.
//!   The successor's id is above every id in the directory, so that segments which were discarded with the tail are
//!   never met again: a scan looks only at larger ids.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use file_system::{Environment, FileError, FileOperation};
use internal_key::{SegmentId, SeqNo};

use crate::position::segment_path;
use crate::record::{Payload, RECORD_HEADER_BYTES, RecordHeader, RecordKind, encode_seal};
use crate::rotation::LiveSegment;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentMaker};
use crate::{DurableClaim, Log, LogError, LogOptions, LogPosition, LogTail, ReplayReport};

impl Log {
    /// Goes on with a log that was replayed, in a fresh successor segment (**L4**).
    ///
    /// `next_id` is the manifest's next segment id; the successor gets it, or one above every id met. `next_seqno`
    /// exceeds every sequence number in the manifest, the tables and the log. The log holds the replayed segments as
    /// live until a floor passes them. If [`ReplayReport::beyond_claim`], claims are held until
    /// [`release_claims`](Log::release_claims).
    ///
    /// Idempotent under crashes: after one, replay and resume again.
    ///
    /// # Errors
    /// [`LogError::NotPrepared`] if the successor cannot be made (certain); [`LogError::ReadOnly`];
    /// [`LogError::Failed`] if the seal cannot be stored or synced (uncertain: replay again before another attempt).
    pub fn resume(
        environment: &Environment,
        dir: &Path,
        database_id: u128,
        options: LogOptions,
        report: &ReplayReport,
        next_id: SegmentId,
        next_seqno: SeqNo,
    ) -> Result<(Self, LogTail), LogError> {
        let cut = report.segments.last();
        if let Some(cut) = cut
            && cut.header.features.read_compatible != 0
        {
            let path = segment_path(dir, cut.header.name.id);
            return Err(LogError::ReadOnly { path, found: cut.header.features.read_compatible });
        }
        let maker = SegmentMaker { environment: environment.clone(), dir: dir.to_owned(), database_id, options };
        let id = next_id.max(SegmentId(report.largest_id.get() + 1));
        // Whoever opens flushes what it replayed, so that the log begins anew in length too.
        let bytes = options.segment_bytes_after(0, 0);
        let successor =
            maker.make(id, bytes, None).map_err(|error| LogError::NotPrepared { cause: Arc::new(error) })?;
        let claim = report.last_claim.min(report.end);
        if let Some(cut) = cut {
            let failed = |error| LogError::Failed { cause: Arc::new(error) };
            let path = segment_path(dir, cut.header.name.id);
            let file = environment.files.open_log(&path, options.way).map_err(failed)?;
            if file.len() != u64::from(cut.header.segment_bytes) {
                let text = format!("{} bytes long, expected {}", file.len(), cut.header.segment_bytes);
                let source = std::io::Error::new(std::io::ErrorKind::InvalidData, text);
                return Err(failed(FileError::new(FileOperation::Open, path, source)));
            }
            let names = encode_seal(successor.name);
            let payload = Payload::of_any_kind(RecordKind::Seal, &names);
            let header = RecordHeader {
                position: report.end,
                kind: RecordKind::Seal,
                first_seqno: next_seqno,
                claim,
                payload_len: names.len() as u32,
                payload_crc: payload.crc(),
            };
            let at = report.end.offset;
            file.store(at + RECORD_HEADER_BYTES as u64, &names).map_err(failed)?;
            file.store(at, &header.encode(cut.header.name.salt)).map_err(failed)?;
            // Held claims are released by a floor behind this seal: until then nothing behind it is promised to anybody, and
            // then nobody reads it. Its sync would write the whole segment out.
            if !report.beyond_claim && !planted_faults::planted("log-seal-of-recovery-not-synced") {
                file.sync().map_err(failed)?;
            }
        }
        let start = LogPosition::new(id, SEGMENT_HEADER_BYTES as u64);
        let mut live: VecDeque<_> = report
            .segments
            .iter()
            .map(|replayed| {
                let (name, bytes) = (replayed.header.name, u64::from(replayed.header.segment_bytes));
                let segment = Arc::new(Segment { name, bytes, file: None, populated: AtomicU64::new(bytes) });
                LiveSegment { segment, first_seqno: replayed.first_seqno.unwrap_or(next_seqno) }
            })
            .collect();
        let oldest =
            live.front().map_or(start, |live| LogPosition::new(live.segment.name.id, SEGMENT_HEADER_BYTES as u64));
        live.push_back(LiveSegment { segment: Arc::new(successor), first_seqno: next_seqno });
        // Distances are counted from the oldest segment; a claim before it says no more than its start does.
        let durable = DurableClaim::new(oldest);
        durable.raise(claim.max(oldest));
        if !report.beyond_claim {
            // All that was replayed was durable before, and the seal is now.
            durable.raise(start);
        }
        let (log, tail) = Self::begin(maker, live, durable, report.beyond_claim, None);
        log.populate_ahead(start);
        tracing::info!(%report, successor = %start.segment, "log resumed");
        Ok((log, tail))
    }
}
