//! Measures what an append costs: reservation, checksums, stores; and with a sync each.
//!
//! `cargo run --release -p write-ahead-log --example measure_appends [DIR]` (the default is a temporary directory; how
//! the file system behind it is mapped or written decides the figures).

use std::error::Error;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use file_system::{Environment, LogFileWay};
use internal_key::{SegmentId, SeqNo};
use write_ahead_log::{Log, LogOptions, LogTail, Payload, RecordKind, ReserveError};

const PAYLOAD: usize = 100; // A record of 140 bytes with its header.
const APPENDS: u64 = 400_000;

fn main() -> Result<(), Box<dyn Error>> {
    let place = match std::env::args().nth(1) {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    println!(
        "records of {} bytes, per record: the best of 5 rounds, on one thread the best thousand of them",
        PAYLOAD + 40
    );
    for way in [LogFileWay::Mapped, LogFileWay::Written] {
        for threads in [1, 2, 4] {
            let mut best = Duration::MAX;
            for round in 0..5 {
                let dir = place.path().join(format!("{way:?}-{threads}-{round}"));
                best = best.min(run(&dir, way, threads)?);
                std::fs::remove_dir_all(&dir)?;
            }
            println!("{way:?}, {threads} threads: {:.1} ns", best.as_nanos() as f64 / APPENDS as f64);
        }
        let dir = place.path().join(format!("{way:?}-synced"));
        println!("{way:?}, synced each: {:.1} us", synced(&dir, way)?.as_nanos() as f64 / 1000.0 / 500.0);
    }
    Ok(())
}

fn options(way: LogFileWay) -> LogOptions {
    // All of the segment is populated before: that is the background's work.
    LogOptions {
        segment_bytes: 64 << 20,
        segment_bytes_first: 64 << 20,
        way,
        populate_bytes: 64 << 20,
        recycled_max: 2,
    }
}

fn run(dir: &std::path::Path, way: LogFileWay, threads: u64) -> Result<Duration, Box<dyn Error>> {
    let (log, tail) = Log::create(&Environment::real(), dir, 1, options(way), SegmentId(1))?;
    log.populate_ahead(tail.next_end());
    let bytes = [0xA5; PAYLOAD];
    let begin = Instant::now();
    if threads == 1 {
        let mut tail = tail;
        // The quickest thousand: what is left when nobody else wants the processor.
        let mut best = Duration::MAX;
        for thousand in 0..APPENDS / 1000 {
            let begin = Instant::now();
            for each in 1..=1000 {
                append(&log, &mut tail, thousand * 1000 + each, &bytes)?;
            }
            best = best.min(begin.elapsed());
        }
        return Ok(best * (APPENDS / 1000) as u32);
    }
    let tail = Mutex::new((tail, 1_u64));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..APPENDS / threads {
                    let payload = Payload::new(RecordKind::Batch, &bytes);
                    let mut guard = tail.lock().expect("no thread dies");
                    let (tail, seqno) = &mut *guard;
                    let first = SeqNo::new(*seqno).expect("small");
                    let reservation = log.reserve(tail, bytes.len(), first).expect("one segment is enough");
                    tail.accept(&reservation);
                    *seqno += 1;
                    drop(guard);
                    log.append(&reservation, &payload).expect("a store into a map");
                }
            });
        }
    });
    Ok(begin.elapsed())
}

fn append(log: &Log, tail: &mut LogTail, seqno: u64, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let payload = Payload::new(RecordKind::Batch, bytes);
    let reservation = match log.reserve(tail, bytes.len(), SeqNo::new(seqno).expect("small")) {
        Err(ReserveError::NoSegmentReady) => {
            log.prepare_segment()?;
            log.reserve(tail, bytes.len(), SeqNo::new(seqno).expect("small"))?
        }
        reservation => reservation?,
    };
    tail.accept(&reservation);
    log.append(&reservation, &payload)?;
    Ok(())
}

fn synced(dir: &std::path::Path, way: LogFileWay) -> Result<Duration, Box<dyn Error>> {
    let (log, mut tail) = Log::create(&Environment::real(), dir, 1, options(way), SegmentId(1))?;
    log.populate_ahead(tail.next_end());
    let begin = Instant::now();
    for seqno in 1..=500 {
        append(&log, &mut tail, seqno, &[0xA5; PAYLOAD])?;
        log.sync_through(tail.next_end())?;
    }
    Ok(begin.elapsed())
}
