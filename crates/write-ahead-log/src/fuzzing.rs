//! Harness of the fuzz target `log_replay`: what must hold of a replay, whatever the bytes of the segments.
//!
//! Only in tests and under `--cfg fuzzing`. It takes one input and panics where a property fails (L2, L3). Random bytes
//! rarely pass a checksum, so an input's first byte may ask that checksums are mended.

use std::path::Path;

use file_system::{Environment, LogFileWay};
use internal_key::SegmentId;

use crate::record::{RECORD_HEADER_BYTES, RecordHeader, crc32, header_crc, payload_crc_mask, record_bytes};
use crate::segment::{FORMAT_VERSION, MAGIC, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::{
    Inspection, LogPosition, RecordKind, ReplayError, ReplayOptions, ReplayReport, SegmentName, replay,
    segment_file_name,
};

/// The database of every log here.
const DATABASE: u128 = 0xDB;
const DIR: &str = "/log";

/// A record as replay handed it out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    position: LogPosition,
    kind: RecordKind,
    first_seqno: u64,
    payload: Vec<u8>,
}

/// First byte: bit 0, mend headers and checksums; bit 1, the manifest claims nothing, else a place that the second byte
/// chooses; bits 2 and 3, the segments beside the first. The rest, cut into so many equal parts, is the segments: they
/// are replayed strictly, salvaged and inspected.
pub fn log_replay(input: &[u8]) {
    let [mode, claim, bytes @ ..] = input else { return };
    let count = usize::from(mode >> 2 & 3) + 1;
    // Records are aligned in segments of any length that is a multiple of eight.
    let segment_bytes = bytes.len() / count / 8 * 8;
    let environment = Environment::simulated(1);
    environment.files.create_dir(Path::new(DIR)).expect("the simulated disk works");
    let mut floor = SegmentName { id: SegmentId(1), salt: 0 };
    for (id, part) in (1..=count as u64).zip(bytes.chunks(segment_bytes.max(1))) {
        let mut segment = part.to_vec();
        if mode & 1 != 0 {
            mend_segment(&mut segment, SegmentId(id));
        }
        let header = SegmentHeader::decode(&segment);
        if let Ok(header) = header {
            assert_eq!(header.encode()[..], segment[..SEGMENT_HEADER_BYTES], "L1: a segment header keeps its bytes");
            check_record_headers(&segment, header.name);
            if id == 1 {
                floor.salt = header.name.salt;
            }
        }
        let path = Path::new(DIR).join(segment_file_name(SegmentId(id)));
        let file = environment.files.create_log(&path, segment.len() as u64, LogFileWay::Written);
        let file = file.expect("the simulated disk works");
        file.store(0, &segment).expect("the simulated disk works");
        if let Ok(inspection) = Inspection::open(&*environment.files, &path) {
            let items = inspection.take_while(Result::is_ok).take(segment.len() + 2).count();
            assert!(items <= segment.len() + 1, "L2: an inspection ends");
        }
    }
    let claim = match mode & 2 {
        0 => LogPosition::new(SegmentId(u64::from(*claim >> 6)), u64::from(*claim & 63) * 8),
        _ => LogPosition::default(),
    };
    let (strict, report) = replay_all(&environment, floor, claim, false);
    let (salvaged, salvage_report) = replay_all(&environment, floor, claim, true);
    for seen in [&strict, &salvaged] {
        assert!(seen.windows(2).all(|pair| pair[0].position < pair[1].position), "L2: records come in log order");
        assert!(seen.windows(2).all(|pair| pair[0].first_seqno <= pair[1].first_seqno), "P1: log order is seqno order");
        let bytes: usize = seen.iter().map(|record| RECORD_HEADER_BYTES + record.payload.len()).sum();
        assert!(bytes <= segment_bytes * count, "L2: records are no longer than the log");
    }
    assert!(salvaged.starts_with(&strict), "L3: a salvage loses nothing that a replay gives");
    match report {
        Ok(report) => {
            assert_eq!(report.records, strict.len() as u64, "L3: records are counted");
            assert!(report.end >= report.last_claim, "L3: the log is never cut below a claim");
            assert_eq!(salvaged, strict, "L3: a sound log has nothing to salvage");
        }
        Err(ReplayError::Io(error)) => panic!("the simulated disk works: {error}"),
        Err(refused) => {
            let report = salvage_report.unwrap_or_else(|error| panic!("L3: a salvage goes on: {error}"));
            // A newer writer's record in what is cut as a torn tail is cut with it.
            let told = !report.skipped.is_empty() || report.cut_bytes > 0 || !report.later.is_empty();
            assert!(told, "L3: a salvage says what it passed over, here {refused}");
        }
    }
}

fn replay_all(
    environment: &Environment,
    floor: SegmentName,
    claim: LogPosition,
    salvage: bool,
) -> (Vec<Seen>, Result<ReplayReport, ReplayError>) {
    let mut seen = Vec::new();
    let report = replay(environment, Path::new(DIR), DATABASE, floor, claim, ReplayOptions { salvage }, |record| {
        seen.push(Seen {
            position: record.position,
            kind: record.kind,
            first_seqno: record.first_seqno.get(),
            payload: record.payload.to_vec(),
        });
        Ok(())
    });
    (seen, report)
}

/// Every place that holds a record's header says, encoded again, the same bytes.
fn check_record_headers(segment: &[u8], name: SegmentName) {
    for at in (SEGMENT_HEADER_BYTES..segment.len()).step_by(8) {
        let decoded = RecordHeader::decode(&segment[at..], name, at as u64, segment.len() as u64);
        if let Ok(Some(header)) = decoded {
            let bytes = &segment[at..at + RECORD_HEADER_BYTES];
            assert_eq!(header.encode(name.salt)[..], *bytes, "L2: a record header keeps its bytes");
            assert!(header.end().offset <= segment.len() as u64, "L2: a record ends in its segment");
        }
    }
}

/// Makes the header one of this segment of this database, and mends the records behind it as their lengths say.
fn mend_segment(segment: &mut [u8], id: SegmentId) {
    let segment_bytes = segment.len() as u32;
    let Some((header, _)) = segment.split_first_chunk_mut::<SEGMENT_HEADER_BYTES>() else { return };
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[20..24].fill(0);
    header[24..40].copy_from_slice(&DATABASE.to_le_bytes());
    header[40..48].copy_from_slice(&id.get().to_le_bytes());
    header[56..60].copy_from_slice(&segment_bytes.to_le_bytes());
    let mut salt = [0; 8];
    salt.copy_from_slice(&header[48..56]);
    let salt = u64::from_le_bytes(salt);
    let crc = crc32(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(record) = segment.get_mut(at..).filter(|rest| rest.len() >= RECORD_HEADER_BYTES) {
        let payload_len = u32::from_le_bytes([record[8], record[9], record[10], record[11]]);
        let whole = record_bytes(u64::from(payload_len)) as usize;
        // Kind 0 is none: zeros stay the end of the log.
        if record[12] == 0 || whole > record.len() {
            at += 8;
            continue;
        }
        let payload = &record[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_len as usize];
        let payload_crc = crc32(payload) ^ payload_crc_mask(salt);
        let Some((header, _)) = record.split_first_chunk_mut::<RECORD_HEADER_BYTES>() else { return };
        header[4..8].copy_from_slice(&payload_crc.to_le_bytes());
        let crc = header_crc(header, salt, at as u64);
        header[..4].copy_from_slice(&crc.to_le_bytes());
        at += whole;
    }
}

#[cfg(test)]
mod tests {
    use internal_key::SeqNo;
    use test_support::fuzz_twin;

    use super::*;
    use crate::record::encode_seal;
    use crate::segment::FeatureBits;

    const SEGMENT_BYTES: usize = 512;

    fn name(id: u64) -> SegmentName {
        SegmentName { id: SegmentId(id), salt: 0x5A17 + id }
    }

    /// A segment with these records; a claim stands in each, at the segment's start.
    fn segment(id: u64, first_seqno: u64, records: &[(RecordKind, &[u8])]) -> Vec<u8> {
        let features = FeatureBits::default();
        let header =
            SegmentHeader { features, database_id: DATABASE, name: name(id), segment_bytes: SEGMENT_BYTES as u32 };
        let mut out = header.encode().to_vec();
        for (seqno, (kind, payload)) in (first_seqno..).zip(records) {
            let record = RecordHeader {
                position: LogPosition::new(SegmentId(id), out.len() as u64),
                kind: *kind,
                first_seqno: SeqNo::new(seqno).unwrap(),
                claim: LogPosition::new(SegmentId(id), SEGMENT_HEADER_BYTES as u64),
                payload_len: payload.len() as u32,
                payload_crc: crc32(payload),
            };
            out.extend(record.encode(name(id).salt));
            out.extend_from_slice(payload);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out.resize(SEGMENT_BYTES, 0);
        out
    }

    fn logs() -> [(&'static str, u8, Vec<u8>); 3] {
        let batch = RecordKind::Batch;
        let one = segment(1, 1, &[(batch, b"first"), (batch, b""), (batch, &[7; 100]), (RecordKind::End, b"")]);
        let sealed = segment(
            1,
            1,
            &[(batch, &[1; 64]), (RecordKind::ClearKeyspace, &[1, 0, 0, 0]), (RecordKind::Seal, &encode_seal(name(2)))],
        );
        let second = segment(2, 4, &[(batch, b"in the second segment"), (batch, &[9; 33])]);
        [
            ("one", 0, one),
            ("two", 1, [sealed.clone(), second.clone()].concat()),
            ("three", 2, [sealed, second, vec![0; SEGMENT_BYTES]].concat()),
        ]
    }

    /// L3: segments of any bytes, checksums mended or not: records come in order, and no replay loses what a claim covers.
    #[test]
    fn log_replay_holds_for_any_bytes() {
        let mut samples = Vec::new();
        for (name, more, bytes) in logs() {
            samples.push((name, [&[more << 2 | 3, 0][..], &bytes].concat()));
        }
        samples.push(("claimed", [&[0, 1 << 6 | 20][..], &logs()[0].2].concat()));
        // A salvage passed over the second file and did not say so.
        samples.push(("bad_segment_behind_the_end", [&[1 << 2, 0][..], &logs()[0].2, &[7; SEGMENT_BYTES]].concat()));
        fuzz_twin("log_replay", &samples, 1000, log_replay);
    }

    /// L3: what a salvage cuts is told, also where a newer writer's record is all that stands behind a tear.
    #[test]
    fn salvage_tells_of_a_newer_record_that_it_cuts() {
        let mut torn =
            segment(1, 1, &[(RecordKind::Batch, b"first"), (RecordKind::Batch, b""), (RecordKind::End, b"")]);
        let (second, third) = (64 + 32, 64 + 32 + 24);
        torn[third + 12] = 12;
        mend_segment(&mut torn, SegmentId(1));
        torn[second] ^= 1;
        log_replay(&[&[2, 0][..], &torn].concat());
    }

    /// The samples reach what they are for, and mending changes nothing that is sound.
    #[test]
    fn mending_keeps_a_sound_segment() {
        for (name, _, bytes) in logs() {
            for (id, sound) in (1..=2).zip(bytes.chunks(SEGMENT_BYTES)) {
                let mut mended = sound.to_vec();
                mend_segment(&mut mended, SegmentId(id));
                assert!(mended == sound, "{name}, segment {id}");
            }
        }
    }
}
