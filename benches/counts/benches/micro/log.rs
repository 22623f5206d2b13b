//! Records into one log: appended, synced, read back; through the pipeline, by one thread and by several.

use std::thread;

use commit_pipeline::Durability;
use counts::{DATABASE, OpenLog, Piped};
use criterion::{Criterion, Throughput};
use file_system::Environment;
use internal_key::SeqNo;
use write_ahead_log::{LogPosition, Payload, RecordKind, ReplayOptions, replay};

use crate::in_rounds;

/// Records of 140 bytes that fit into the segment of [`OpenLog`], with room to spare.
const RECORDS: u64 = 20_000;

fn append(open: &mut OpenLog, number: u64) -> LogPosition {
    let payload = Payload::new(RecordKind::Batch, &[0xA5; 100]);
    let first = SeqNo::new(number).expect("a small number");
    let range = open.log.reserve(&open.tail, payload.bytes().len(), first).expect("the segment has room");
    open.tail.accept(&range);
    open.log.append(&range, &payload).expect("a store into a map");
    range.end()
}

pub(crate) fn benches(c: &mut Criterion) {
    c.bench_function("write-ahead-log/append", |b| {
        b.iter_custom(|appends| {
            in_rounds(appends, RECORDS, OpenLog::new, |open, now| {
                (1..=now).for_each(|number| {
                    append(open, number);
                });
            })
        });
    });
    c.bench_function("write-ahead-log/append and sync", |b| {
        b.iter_custom(|appends| {
            in_rounds(appends, RECORDS, OpenLog::new, |open, now| {
                for number in 1..=now {
                    let end = append(open, number);
                    open.log.sync_through(end).expect("a sync");
                    assert!(open.log.durable() >= end);
                }
            })
        });
    });
    let mut open = OpenLog::new();
    (1..=RECORDS).for_each(|number| {
        append(&mut open, number);
    });
    let mut group = c.benchmark_group("write-ahead-log");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    group.bench_function(format!("replay {RECORDS} records"), |b| {
        let (environment, dir, floor) = (Environment::real(), open.dir.path().join("log"), open.log.first_segment());
        let (claim, options) = (LogPosition::default(), ReplayOptions::default());
        b.iter(|| {
            let mut bytes = 0;
            let report = replay(&environment, &dir, DATABASE, floor, claim, options, |record| {
                bytes += record.payload.len() as u64;
                Ok(())
            });
            assert_eq!((report.expect("a sound log").records, bytes), (RECORDS, RECORDS * 100));
        });
    });
    group.finish();

    c.bench_function("commit-pipeline/commit", |b| {
        b.iter_custom(|commits| commit_by(1, Durability::Buffered, commits));
    });
    c.bench_function("commit-pipeline/commit, 2 threads", |b| {
        b.iter_custom(|commits| commit_by(2, Durability::Buffered, commits));
    });
    c.bench_function("commit-pipeline/commit, synced", |b| {
        b.iter_custom(|commits| commit_by(1, Durability::Synced, commits));
    });
    c.bench_function("commit-pipeline/commit, synced, 8 threads", |b| {
        b.iter_custom(|commits| commit_by(8, Durability::Synced, commits));
    });
}

/// What `commits` take that so many threads share, the beginning and the end of the threads with them.
fn commit_by(threads: u64, durability: Durability, commits: u64) -> std::time::Duration {
    in_rounds(commits, RECORDS, Piped::new, |piped, now| {
        let commit = |count: u64| {
            (0..count).for_each(|_| {
                piped.commit(durability);
            });
        };
        if threads == 1 {
            commit(now);
        } else {
            thread::scope(|scope| {
                for thread in 0..threads {
                    let share = now / threads + u64::from(thread < now % threads);
                    scope.spawn(move || commit(share));
                }
            });
        }
        assert_eq!(piped.pipeline.visible().load().get(), now);
    })
}
