//! Writing from many threads, and what happens when files fail.
#![cfg(not(loom))]

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{DATABASE, RealDirectory, Remembered, create, listing, overwrite, payload_of, replay_all, seqno};
use file_system::{FileOperation, LogFileWay, Simulation};
use internal_key::SegmentId;
use write_ahead_log::{Log, LogError, LogOptions, NotNamed, Payload, RecordKind, ReserveError, SegmentName};

fn options(way: LogFileWay) -> LogOptions {
    LogOptions {
        segment_bytes: 64 << 10,
        segment_bytes_first: 64 << 10,
        way,
        populate_bytes: 16 << 10,
        recycled_max: 2,
    }
}

/// P1, P7: threads reserve one by one and append in any order; a sync between covers all that was appended before it.
#[test]
fn threads_append_at_once() {
    const THREADS: u64 = 4;
    const EACH: u64 = 500;
    for way in [LogFileWay::Mapped, LogFileWay::Written] {
        let place = RealDirectory::new();
        let (open, remembered) = create(&place.environment, &place.dir, options(way)).unwrap();
        let log = &open.log;
        let reservations = Mutex::new((open.tail, 1_u64));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let reservations = &reservations;
                scope.spawn(move || {
                    for each in 0..EACH {
                        let len = (thread * 37 + each * 13) as usize % 400;
                        loop {
                            let mut guard = reservations.lock().unwrap();
                            let (tail, next) = &mut *guard;
                            match log.reserve(tail, len, seqno(*next)) {
                                Ok(reservation) => {
                                    tail.accept(&reservation);
                                    let bytes = payload_of(*next, len);
                                    *next += 1;
                                    drop(guard);
                                    log.append(&reservation, &Payload::new(RecordKind::Batch, &bytes)).unwrap();
                                    break;
                                }
                                Err(ReserveError::NoSegmentReady) => {
                                    drop(guard);
                                    log.prepare_segment().unwrap();
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                });
            }
        });
        let (tail, next) = reservations.into_inner().unwrap();
        let end = tail.next_end();
        assert!(end.segment.get() > 3, "the log moved on");
        log.sync_through(end).unwrap();
        assert_eq!(log.durable(), end, "P7");
        let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
        assert_eq!(report.unwrap().end, end);
        assert_eq!(seen.len() as u64, next - 1);
        for (record, number) in seen.iter().zip(1..) {
            assert_eq!((record.seqno, &record.payload), (number, &payload_of(number, record.payload.len())));
        }
    }
}

/// P1: a reservation that is not accepted changes nothing, and one that is cannot be accepted twice.
#[test]
#[should_panic(expected = "P1: reservations are accepted in order")]
fn a_reservation_is_accepted_once() {
    let place = RealDirectory::new();
    let (mut open, _) = create(&place.environment, &place.dir, options(LogFileWay::Mapped)).unwrap();
    let first = open.log.reserve(&open.tail, 10, seqno(1)).unwrap();
    let again = open.log.reserve(&open.tail, 10, seqno(1)).unwrap();
    assert_eq!(first.start(), again.start());
    open.tail.accept(&again);
    open.tail.accept(&first);
}

/// P1: sequence numbers ascend.
#[test]
#[should_panic(expected = "P1")]
fn a_sequence_number_never_goes_back() {
    let place = RealDirectory::new();
    let (mut open, _) = create(&place.environment, &place.dir, options(LogFileWay::Mapped)).unwrap();
    open.append_batch(10).unwrap();
    let _ = open.log.reserve(&open.tail, 10, seqno(1));
}

/// L5: the floor is the newest segment behind which nothing unflushed lies.
#[test]
fn the_floor_follows_what_is_flushed() {
    let place = RealDirectory::new();
    let small = LogOptions { segment_bytes: 4096, segment_bytes_first: 4096, ..options(LogFileWay::Mapped) };
    let (mut open, _) = create(&place.environment, &place.dir, small).unwrap();
    let mut starts = Vec::new();
    for number in 1..=12 {
        let end = open.append_batch(1000).unwrap();
        starts.push((number, end.segment));
    }
    for (number, segment) in starts {
        assert_eq!(open.log.floor_for(seqno(number)).id, segment, "#{number} must stay");
    }
    assert_eq!(open.log.floor_for(seqno(13)).id, open.tail.next_end().segment);
    assert_eq!(open.log.total_bytes(), 4 * 4096);
}

/// L4, L5: an end record that begins a segment does not stand for entries of the batch before it: the floor of any of them is
/// the segment that holds the batch.
#[test]
fn an_end_record_that_begins_a_segment_keeps_the_last_batch() {
    let place = RealDirectory::new();
    let small = LogOptions { segment_bytes: 4096, segment_bytes_first: 4096, ..options(LogFileWay::Mapped) };
    let (mut open, mut remembered) = create(&place.environment, &place.dir, small).unwrap();
    // A batch of three entries, behind which the segment has no room for another record.
    open.append_batch(small.payload_bytes_max() as usize).unwrap();
    open.next_seqno += 2;
    let batch = open.tail.next_end().segment;
    remembered.claim = open.log.close(&mut open.tail, seqno(open.next_seqno)).unwrap();
    assert!(remembered.claim.segment > batch, "the end record begins a segment");
    let (_, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    let (next_id, next_seqno) = (open.log.next_segment_id(), seqno(open.next_seqno));
    let resumed = Log::resume(&place.environment, &place.dir, DATABASE, small, &report.unwrap(), next_id, next_seqno);
    for (log, again) in [(open.log, false), (resumed.unwrap().0, true)] {
        for entry in 1..=3 {
            assert_eq!(log.floor_for(seqno(entry)).id, batch, "#{entry}, opened again: {again}");
        }
    }
}

/// L5: what is left of a segment that was being made out of a recycled file when the power went, a torn header under the old
/// name, goes.
#[test]
fn a_recycled_segment_with_a_torn_header_goes() {
    let place = RealDirectory::new();
    let small = LogOptions { segment_bytes: 4096, segment_bytes_first: 4096, ..options(LogFileWay::Mapped) };
    let (mut open, mut remembered) = create(&place.environment, &place.dir, small).unwrap();
    for _ in 0..12 {
        open.append_batch(1000).unwrap();
    }
    open.log.sync_through(open.tail.next_end()).unwrap();
    remembered.floor = open.log.floor_for(seqno(open.next_seqno));
    open.log.recycle_before(remembered.floor).unwrap();
    open.log.prepare_segment().unwrap();
    let below = |floor: SegmentId| {
        listing(&place.environment, &place.dir).split(' ').find_map(|name| {
            let id: u64 = name.strip_suffix(".wal")?.parse().ok()?;
            (id < floor.get()).then(|| place.dir.join(name))
        })
    };
    let spare = below(remembered.floor.id).expect("a file is kept");
    // In the salt, behind which the checksum lies.
    overwrite(&place.environment, &spare, 48, &[0xFF; 8]);
    let (_, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    let (next_id, next_seqno) = (open.log.next_segment_id(), seqno(open.next_seqno));
    drop(open);
    let (log, _tail) =
        Log::resume(&place.environment, &place.dir, DATABASE, small, &report.unwrap(), next_id, next_seqno).unwrap();
    log.remove_unnamed().unwrap();
    assert!(!spare.exists(), "nothing needs it");
}

/// L1: the window of populated pages runs ahead of the end.
#[test]
fn populating_stays_ahead() {
    let place = RealDirectory::new();
    let (mut open, _) = create(&place.environment, &place.dir, options(LogFileWay::Mapped)).unwrap();
    for _ in 0..100 {
        if open.tail.wants_populate() {
            open.log.populate_ahead(open.tail.next_end());
        }
        assert!(!open.tail.wants_populate());
        open.append_batch(400).unwrap();
    }
}

/// L1: the next segment is wanted once a quarter of this one is full, not before, and only until there is one.
#[test]
fn the_next_segment_is_wanted_in_time() {
    let place = RealDirectory::new();
    let large = LogOptions { segment_bytes: 32 << 20, segment_bytes_first: 32 << 20, ..options(LogFileWay::Mapped) };
    let (mut open, _) = create(&place.environment, &place.dir, large).unwrap();
    let mut written = 0;
    while written < 8 << 20 {
        assert!(!open.log.wants_segment(&open.tail), "wanted after {written} bytes");
        written = open.append_batch(1 << 20).unwrap().offset;
    }
    assert!(open.log.wants_segment(&open.tail));
    open.log.prepare_segment().unwrap();
    assert!(!open.log.wants_segment(&open.tail));
}

/// A log of short segments that may become long ones.
fn growing() -> LogOptions {
    LogOptions { segment_bytes_first: 4096, ..options(LogFileWay::Mapped) }
}

/// The lengths of the segments' files, by id.
fn lengths(place: &RealDirectory) -> Vec<u64> {
    let mut files: Vec<(u64, u64)> = (place.environment.files.read_dir(&place.dir).unwrap().iter())
        .map(|entry| {
            let id = entry.name.split('.').next().unwrap().parse().unwrap();
            (id, place.environment.files.file_len(&place.dir.join(&entry.name)).unwrap())
        })
        .collect();
    files.sort_unstable();
    files.into_iter().map(|(_, bytes)| bytes).collect()
}

/// L1: a log that is kept long gets long segments, a quarter of what is live, up to the longest; and replays through them.
#[test]
fn segments_grow_with_the_log_that_is_kept() {
    let place = RealDirectory::new();
    let (mut open, remembered) = create(&place.environment, &place.dir, growing()).unwrap();
    for _ in 0..400 {
        open.append_batch(1000).unwrap();
    }
    let lengths = lengths(&place);
    assert_eq!((lengths[0], *lengths.last().unwrap()), (4096, 64 << 10), "{lengths:?}");
    assert!(lengths.is_sorted(), "{lengths:?}");
    for (at, bytes) in lengths.iter().enumerate().skip(1) {
        let live: u64 = lengths[..at].iter().sum();
        assert_eq!(*bytes, (live / 4).next_multiple_of(4096).clamp(4096, 64 << 10), "segment {at} of {lengths:?}");
    }
    let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    assert_eq!((seen.len(), report.unwrap().records), (400, 400));
}

/// L1, L4: a record for which the prepared segment is too short gets one that is long enough, and no id comes twice; only
/// one that no segment holds is refused.
#[test]
fn a_record_longer_than_the_prepared_segment_gets_a_longer_one() {
    let place = RealDirectory::new();
    let (mut open, remembered) = create(&place.environment, &place.dir, growing()).unwrap();
    open.append_batch(3000).unwrap();
    open.log.prepare_segment().unwrap();
    open.append_batch(30_000).unwrap();
    assert_eq!(open.tail.next_end().segment, SegmentId(3), "the second was too short");
    let longest = growing().payload_bytes_max() as usize;
    open.append_batch(longest).unwrap();
    let refused = open.log.reserve(&open.tail, longest + 1, seqno(open.next_seqno)).unwrap_err();
    assert!(matches!(refused, ReserveError::TooLarge { .. }), "{refused}");
    let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    assert_eq!(seen.iter().map(|record| record.payload.len()).collect::<Vec<_>>(), [3000, 30_000, longest]);
    assert_eq!(report.unwrap().end, open.tail.next_end());
    // The short one goes with the next that the floor passes.
    open.log.recycle_before(open.log.floor_for(seqno(open.next_seqno))).unwrap();
    open.log.give_back().unwrap();
    assert_eq!(lengths(&place), [64 << 10]);
}

/// L4, L5: a log that is needed no more goes on in a short segment, which is all that it takes once the floor is there.
#[test]
fn a_log_that_begins_anew_takes_one_short_segment() {
    let place = RealDirectory::new();
    let (mut open, mut remembered) = create(&place.environment, &place.dir, growing()).unwrap();
    for _ in 0..400 {
        open.append_batch(1000).unwrap();
    }
    remembered.floor = open.log.floor_for(seqno(open.next_seqno));
    open.log.recycle_before(remembered.floor).unwrap();
    open.log.prepare_segment().unwrap();
    let before = open.tail.next_end();
    open.tail.give_up_prepared();
    open.log.prepare_segment().unwrap();
    open.tail.end_segment();
    assert_eq!(open.tail.next_end(), before, "nothing is stored yet");
    open.append_batch(10).unwrap();
    let end = open.tail.next_end();
    assert!(end.segment > before.segment, "{end} after {before}");
    open.log.sync_through(end).unwrap();
    // The seal leads there, also from the floor before.
    let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    assert_eq!(report.unwrap().end, end);
    assert_eq!(seen.last().unwrap().seqno, 401);
    remembered.floor = open.log.floor_for(seqno(401));
    open.log.recycle_before(remembered.floor).unwrap();
    open.log.give_back().unwrap();
    assert_eq!(lengths(&place), [16 << 10], "a quarter of the long one that was live");
    let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    assert_eq!((seen.len(), report.unwrap().end), (1, end));
}

/// M6, L5: a log that is created to begin later does nothing before its first segment is asked for; that one is named before a
/// record can get into it, and stays while it is what the manifest names, though the first record turns out not to fit.
#[test]
fn a_log_that_begins_later_is_named_before_its_first_record() {
    let place = RealDirectory::new();
    place.environment.files.create_dir(&place.dir).unwrap();
    let named: Arc<Mutex<Vec<(SegmentName, SegmentId)>>> = Arc::default();
    let refused = Arc::new(AtomicBool::new(true));
    let (names, refuses) = (Arc::clone(&named), Arc::clone(&refused));
    let name_first = Box::new(move |name, next_id| {
        if refuses.load(Ordering::Relaxed) {
            return Err(NotNamed { cause: Arc::new(std::io::Error::other("no")), is_certain: true });
        }
        names.lock().unwrap().push((name, next_id));
        Ok(())
    });
    let (log, mut tail) =
        Log::create_later(&place.environment, &place.dir, DATABASE, growing(), SegmentId(5), name_first);
    assert!(!log.has_begun() && !log.wants_segment(&tail) && !tail.wants_populate() && log.total_bytes() == 0);
    log.sync_through(tail.next_end()).unwrap();
    log.sync_sealed(tail.next_end()).unwrap();
    assert_eq!(lengths(&place), Vec::<u64>::new());
    assert_eq!(log.reserve(&tail, 10, seqno(1)).unwrap_err(), ReserveError::NoSegmentReady);
    let error = log.prepare_segment().unwrap_err();
    assert!(matches!(error, LogError::NotNamed { is_certain: true, .. }) && !error.is_uncertain(), "{error}");
    assert_eq!(log.reserve(&tail, 10, seqno(1)).unwrap_err(), ReserveError::NoSegmentReady, "it has no name");
    assert_eq!(lengths(&place).len(), 0, "and is gone");
    refused.store(false, Ordering::Relaxed);
    log.prepare_segment().unwrap();
    let [(short, _)] = named.lock().unwrap()[..] else { panic!("one is named") };
    assert_eq!(lengths(&place).len(), 1);
    // Longer than that segment.
    let bytes = payload_of(1, 40 << 10);
    assert_eq!(log.reserve(&tail, bytes.len(), seqno(1)).unwrap_err(), ReserveError::NoSegmentReady);
    for floor in [short, SegmentName { id: SegmentId(0), salt: 0 }] {
        log.recycle_before(floor).unwrap();
        assert_eq!(lengths(&place).len(), 1, "the manifest names it, though not the one that the caller has seen");
    }
    log.prepare_segment().unwrap();
    let [_, (first, next_id)] = named.lock().unwrap()[..] else { panic!("the longer one is named too") };
    assert!(first.id > short.id && next_id > first.id && !log.has_begun());
    let reservation = log.reserve(&tail, bytes.len(), seqno(1)).unwrap();
    assert!(reservation.begins_segment());
    tail.accept(&reservation);
    log.append(&reservation, &Payload::new(RecordKind::Batch, &bytes)).unwrap();
    assert!(log.has_begun() && log.first_segment() == first && log.floor_for(seqno(1)) == first);
    log.recycle_before(first).unwrap();
    log.sync_through(tail.next_end()).unwrap();
    assert_eq!(log.durable(), tail.next_end());
    let remembered = Remembered { floor: first, claim: log.durable(), next_id };
    drop((log, tail));
    let (seen, report) = replay_all(&place.environment, &place.dir, &remembered, false);
    assert_eq!(seen.len(), 1, "{report:?}");
    assert!(seen[0].payload == bytes && !report.unwrap().beyond_claim);
}

/// L5: a log begins anew in a short segment although a long one was being made when that was asked for, and the long one goes.
#[test]
fn what_is_in_the_making_is_given_up_with_what_is_prepared() {
    let simulation = Simulation::new(1);
    let (environment, dir) = (simulation.environment(), Path::new("/log"));
    let (mut open, _) = create(&environment, dir, growing()).unwrap();
    for _ in 0..400 {
        open.append_batch(1000).unwrap();
    }
    let (log, tail) = (&open.log, &mut open.tail);
    let held = simulation.files.hold_up(FileOperation::Create, "/log/");
    std::thread::scope(|scope| {
        let making = scope.spawn(|| log.prepare_segment());
        assert!(held.wait_until_reached(Duration::from_secs(60)), "{held:?}");
        log.recycle_before(log.floor_for(seqno(open.next_seqno))).unwrap();
        tail.give_up_prepared();
        drop(held);
        making.join().unwrap().unwrap();
        log.prepare_segment().unwrap();
        tail.end_segment();
    });
    let before = open.log.total_bytes();
    open.append_batch(10).unwrap();
    let anew = open.log.total_bytes() - before;
    assert_eq!((before, anew), (64 << 10, 16 << 10), "a quarter of the long one that was live");
    open.log.recycle_before(open.log.floor_for(seqno(401))).unwrap();
    open.log.give_back().unwrap();
    let named = open.tail.next_end().segment;
    let left: Vec<String> = environment.files.read_dir(dir).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, [format!("{}.wal", named.get())], "nothing stays of what was given up");
}
