//! Models of the change from one segment to the next, and of writing over old ones, on the simulated disk.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p write-ahead-log --test loom_rotation`
#![cfg(loom)]

use std::path::Path;

use file_system::{Environment, LogFileWay, Simulation};
use internal_key::{SegmentId, SeqNo};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use write_ahead_log::{
    Log, LogOptions, LogPosition, LogTail, Payload, RecordKind, ReplayOptions, ReserveError, SegmentName, replay,
};

const DATABASE: u128 = 7;

/// Of a segment of 64 KiB more than half, so that every record but the first needs the next segment.
const PAYLOAD_BYTES: usize = 48 << 10;

struct Written {
    environment: Environment,
    log: Log,
    /// The reservation lock, with the sequence number that comes next.
    order: Mutex<(LogTail, u64)>,
    /// Counted where a writer may be interrupted: loom switches threads at its own operations only.
    pauses: AtomicU64,
}

impl Written {
    fn new() -> Arc<Self> {
        let environment = Simulation::new(1).environment();
        let options = LogOptions {
            segment_bytes: 64 << 10,
            segment_bytes_first: 64 << 10,
            way: LogFileWay::Written,
            populate_bytes: 0,
            recycled_max: 2,
        };
        let (log, tail) = Log::create(&environment, Path::new("/log"), DATABASE, options, SegmentId(1)).unwrap();
        Arc::new(Self { environment, log, order: Mutex::new((tail, 1)), pauses: AtomicU64::new(0) })
    }

    /// Writes one record as the pipeline does, and returns its sequence number.
    fn append(&self) -> u64 {
        self.append_bytes(PAYLOAD_BYTES)
    }

    fn append_bytes(&self, len: usize) -> u64 {
        let (reservation, seqno) = loop {
            let mut order = self.order.lock().unwrap();
            let (tail, next) = &mut *order;
            match self.log.reserve(tail, len, SeqNo::new(*next).unwrap()) {
                Ok(reservation) => {
                    tail.accept(&reservation);
                    *next += 1;
                    break (reservation, *next - 1);
                }
                Err(ReserveError::NoSegmentReady) => {
                    drop(order);
                    self.log.prepare_segment().unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        };
        self.pauses.fetch_add(1, Ordering::Relaxed);
        let bytes = vec![seqno as u8; len];
        self.log.append(&reservation, &Payload::new(RecordKind::Batch, &bytes)).unwrap();
        seqno
    }

    /// The sequence numbers that replay finds from `floor` on.
    fn replayed_from(&self, floor: SegmentName) -> Vec<u64> {
        let mut found = Vec::new();
        let options = ReplayOptions { salvage: false };
        let nothing_claimed = LogPosition::default();
        let report =
            replay(&self.environment, Path::new("/log"), DATABASE, floor, nothing_claimed, options, |record| {
                let seqno = record.first_seqno.get();
                assert!(record.payload.iter().all(|byte| *byte == seqno as u8), "record {seqno} holds another's bytes");
                found.push(seqno);
                Ok(())
            });
        report.unwrap();
        found
    }
}

/// P1, L1: two writers that meet a full segment prepare its successor, each gets a range of its own in it or behind it, and
/// the seals lead from one to the next.
#[test]
fn writers_at_the_end_of_a_segment_go_on_in_the_next() {
    loom::model(|| {
        let written = Written::new();
        let floor = written.log.first_segment();
        assert_eq!(written.append(), 1);
        let other = thread::spawn({
            let written = Arc::clone(&written);
            move || written.append()
        });
        let mine = written.append();
        let theirs = other.join().unwrap();
        assert_eq!(mine.min(theirs) + 1, mine.max(theirs));
        assert_eq!(written.replayed_from(floor), [1, 2, 3]);
    });
}

/// L5: a segment that the floor has passed is written over only when no reservation holds it any more: who begins the next
/// segment still has to store the seal into it.
#[test]
fn segments_are_written_over_only_when_nobody_stores_into_them() {
    loom::model(|| {
        let written = Written::new();
        assert_eq!(written.append(), 1);
        written.log.prepare_segment().unwrap();
        let writer = thread::spawn({
            let written = Arc::clone(&written);
            move || written.append()
        });
        // Record 1 is flushed: the floor moves to the first segment that holds what is not.
        let floor = written.log.floor_for(SeqNo::new(2).unwrap());
        let recycled = written.log.recycle_before(floor).unwrap();
        assert!(recycled.kept + recycled.held <= 1 && recycled.removed == 0, "{recycled:?}");
        // The file that was given up, if it was, becomes the next segment at once, and a record is stored into it that lies
        // where the seal of the old one goes.
        written.log.prepare_segment().unwrap();
        let mine = written.append_bytes(PAYLOAD_BYTES + 1024);
        let theirs = writer.join().unwrap();
        assert_eq!(mine + theirs, 2 + 3);
        // By now nobody holds anything.
        let floor = written.log.floor_for(SeqNo::new(2).unwrap());
        assert_eq!(written.log.recycle_before(floor).unwrap().held, 0);
        assert_eq!(written.replayed_from(floor), [2, 3]);
    });
}
