//! Every byte of a small log flipped, and arbitrary bytes in its place: never a wrong record, never a panic.
#![cfg(not(loom))]

mod common;

use common::{DATABASE, RealDirectory, Remembered, Seen, create, overwrite, payload_of, read_file, replay_all};
use file_system::LogFileWay;
use internal_key::SegmentId;
use proptest::prelude::*;
use write_ahead_log::{
    Inspection, LogOptions, LogPosition, Record, RecordKind, ReplayError, ReplayOptions, SEGMENT_HEADER_BYTES,
    SegmentHeader, replay,
};

const OPTIONS: LogOptions = common::SHORT_SEGMENTS;

/// Two segments: records of several lengths, a sync in between, a seal.
fn written(place: &RealDirectory) -> (Vec<Seen>, common::Remembered) {
    let (mut open, remembered) = create(&place.environment, &place.dir, OPTIONS).unwrap();
    let mut expected = Vec::new();
    for (number, len) in [100, 0, 3000, 1, 700, 500, 30].into_iter().enumerate() {
        let seqno = open.next_seqno;
        open.append_batch(len).unwrap();
        expected.push(Seen { seqno, kind: RecordKind::Batch, payload: payload_of(seqno, len) });
        if number == 4 {
            open.log.sync_through(open.tail.next_end()).unwrap();
        }
    }
    (expected, remembered)
}

/// L3: one flipped byte costs at most what follows it, and what a claim covers is never lost silently.
#[test]
fn any_flipped_byte_is_a_prefix_or_an_error() {
    let place = RealDirectory::new();
    let (expected, remembered) = written(&place);
    let (mut refused, mut cut) = (0, 0);
    for name in ["1.wal", "2.wal"] {
        let path = place.dir.join(name);
        let original = read_file(&place.environment, &path);
        for (offset, byte) in original.iter().enumerate() {
            overwrite(&place.environment, &path, offset as u64, &[byte ^ 0x10]);
            let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
            assert!(expected.starts_with(&seen), "{name} at {offset}: a record that was never written");
            match report {
                Ok(_) => {
                    assert!(
                        offset >= SEGMENT_HEADER_BYTES,
                        "{name} at {offset}: no crash leaves such a segment header"
                    );
                    assert!(seen.len() >= 5, "{name} at {offset}: synced records were lost without an error");
                    cut += usize::from(seen.len() < expected.len());
                }
                Err(ReplayError::Io(error)) => panic!("{name} at {offset}: {error}"),
                Err(_) => refused += 1,
            }
            let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, true);
            report.unwrap_or_else(|error| panic!("{name} at {offset}: salvage refused: {error}"));
            assert!(
                seen.iter().all(|record| expected.contains(record)),
                "{name} at {offset}: salvage made a record up"
            );
            // However bad its header, inspection ends.
            if let Ok(inspection) = Inspection::open(&*place.environment.files, &path) {
                for item in inspection {
                    item.unwrap();
                }
            }
            overwrite(&place.environment, &path, offset as u64, &[*byte]);
        }
    }
    assert!(refused > 3000 && cut > 100, "{refused} refused, {cut} cut: the test has lost its subject");
}

/// L5: a segment cut short is damage.
#[test]
fn a_shortened_segment_is_refused() {
    let place = RealDirectory::new();
    let (_, remembered) = written(&place);
    let path = place.dir.join("2.wal");
    let bytes = read_file(&place.environment, &path);
    for len in [0, 10, 64, 65, 2000, 4095] {
        place.environment.files.remove_file(&path).unwrap();
        let file = place.environment.files.create_log(&path, len as u64, LogFileWay::Written).unwrap();
        file.store(0, &bytes[..len]).unwrap();
        let (_, report) = replay_all(&place.environment, &place.dir, &remembered, false);
        assert!(matches!(report, Err(ReplayError::BadSegment { .. })), "{len} bytes: {report:?}");
    }
}

/// L3, M5: what another process writes and syncs while a window of the log is being replayed is no damage: its claim is met
/// behind a place that was zeros when the window was read, and is a record when it is looked at again.
#[test]
fn what_is_written_while_it_is_replayed_is_no_damage() {
    let place = RealDirectory::new();
    // Longer than a window.
    let options = LogOptions { segment_bytes: 1 << 20, segment_bytes_first: 1 << 20, ..OPTIONS };
    let (mut open, remembered) = create(&place.environment, &place.dir, options).unwrap();
    open.append_batch(100).unwrap();
    let Remembered { floor, claim, .. } = remembered;
    let mut seen = Vec::new();
    let on_record = |record: Record<'_>| {
        seen.push(record.first_seqno.get());
        if seen.len() == 1 {
            // The window that the record comes from was read before; the last of these lie behind it.
            for _ in 0..40 {
                let end = open.append_batch(10_000)?;
                open.log.sync_through(end)?;
            }
        }
        Ok(())
    };
    let options = ReplayOptions::default();
    let report = replay(&place.environment, &place.dir, DATABASE, floor, claim, options, on_record).unwrap();
    assert_eq!(seen, (1..=report.records).collect::<Vec<_>>());
    assert!(report.end >= report.last_claim && report.records > 1, "{report}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// L2: whatever stands in a segment behind its header, replay and inspection end without a panic and without records.
    #[test]
    fn arbitrary_bytes_are_no_records(bytes in proptest::collection::vec(any::<u8>(), 4032), possible in any::<bool>()) {
        let place = RealDirectory::new();
        let (_, remembered) = create(&place.environment, &place.dir, OPTIONS).unwrap();
        let mut bytes = bytes;
        if possible {
            // Headers in which only the checksum is wrong: nothing of payload, a batch, a claim that was there before.
            for row in bytes.chunks_exact_mut(24) {
                row[8..12].fill(0);
                row[12] = 1;
                row[20..].copy_from_slice(&8_u32.to_le_bytes());
            }
        }
        let path = place.dir.join("1.wal");
        overwrite(&place.environment, &path, 64, &bytes);
        let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
        prop_assert!(seen.is_empty());
        prop_assert_eq!(report.unwrap().end, LogPosition::new(SegmentId(1), 64));
        let total: usize = Inspection::open(&*place.environment.files, &path).unwrap().map(|item| item.map(|_| 1).unwrap()).sum();
        prop_assert!(total >= 1);
    }

    /// L1: a segment header that is not what we encode is a typed error.
    #[test]
    fn arbitrary_bytes_are_no_segment_header(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 8 {
            bytes[..8].copy_from_slice(&write_ahead_log::MAGIC);
        }
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
    }
}
