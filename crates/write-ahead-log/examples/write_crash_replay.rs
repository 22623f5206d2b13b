//! Writes a log, tears its tail, replays it, goes on, and prints what the files hold.
//!
//! `cargo run -p write-ahead-log --example write_crash_replay`

use std::error::Error;

use file_system::Environment;
use internal_key::{SegmentId, SeqNo};
use write_ahead_log::{Inspection, Log, LogOptions, LogPosition, Payload, RecordKind, ReplayOptions, replay};

fn main() -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let (environment, dir) = (Environment::real(), place.path().join("log"));
    let options = LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() };
    let database_id = 0xfeed;

    let (log, mut tail) = Log::create(&environment, &dir, database_id, options, SegmentId(1))?;
    let floor = log.first_segment();
    for (number, text) in ["synced", "buffered", "lost by its writer", "buffered behind a hole"].iter().enumerate() {
        let payload = Payload::new(RecordKind::Batch, text.as_bytes());
        let first_seqno = SeqNo::new(number as u64 + 1).expect("small");
        let reservation = log.reserve(&tail, text.len(), first_seqno)?;
        tail.accept(&reservation);
        if number == 2 {
            continue; // This writer dies between its reservation and its append.
        }
        log.append(&reservation, &payload)?;
        if number == 0 {
            log.sync_through(tail.next_end())?;
        }
    }
    drop((log, tail)); // The process dies; what was stored stays.

    println!("after the crash:");
    let report =
        replay(&environment, &dir, database_id, floor, LogPosition::default(), ReplayOptions::default(), |record| {
            println!("  {} {} {:?}", record.kind, record.first_seqno, String::from_utf8_lossy(record.payload));
            Ok(())
        })?;
    println!("  {report}");

    let next = SeqNo::new(3).expect("small");
    let (log, mut tail) = Log::resume(&environment, &dir, database_id, options, &report, SegmentId(2), next)?;
    println!("goes on at {}; claims are held: {}", tail.next_end(), log.holds_claims());
    // A database would now flush what was replayed and commit a floor at the successor.
    log.release_claims();
    let claim = log.close(&mut tail, next)?;
    println!("closed, durable to {claim}");

    for name in ["1.wal", "2.wal"] {
        let inspection = Inspection::open(&*environment.files, &dir.join(name))?;
        println!("{name}: {}", inspection.header());
        for item in inspection {
            println!("{}", item?);
        }
    }
    Ok(())
}
