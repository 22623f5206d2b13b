//! The whole protocol under random schedules: larger than loom can enumerate.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p commit-pipeline --test shuttle_pipeline`. A failure prints its schedule, which
//! `shuttle::replay` repeats.
#![cfg(all(shuttle, not(loom)))]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use commit_pipeline::{CommitError, Durability, Journal};
use shuttle::thread;
use support::atomic::Ordering;
use support::{FakeLog, Fixture, seqno};

/// How many random schedules each test runs.
const SCHEDULES: usize = 2_000;

fn durability(number: u64) -> Durability {
    if number.is_multiple_of(2) { Durability::Synced } else { Durability::Buffered }
}

/// P3, P7, P9: writers, readers and a closer over a small ring, with syncs from beside; every answer is checked and
/// everyone ends.
#[test]
fn writers_readers_and_a_closer_over_a_small_ring() {
    shuttle::check_random(
        || {
            let fixture = Arc::new(Fixture::new(24, 2));
            let mut threads: Vec<_> = (0..4_u64)
                .map(|writer| {
                    let fixture = Arc::clone(&fixture);
                    thread::spawn(move || {
                        for number in 0..3 {
                            fixture.commit(1 + number % 2, durability(writer + number)).unwrap();
                        }
                    })
                })
                .collect();
            // A log that syncs its segments in the background raises what is durable without the pipeline.
            threads.push(thread::spawn({
                let fixture = Arc::clone(&fixture);
                move || {
                    for _ in 0..3 {
                        let logged = fixture.pipeline.logged();
                        fixture.pipeline.journal().sync_through(logged).unwrap();
                        thread::yield_now();
                    }
                }
            }));
            threads.push(thread::spawn({
                let fixture = Arc::clone(&fixture);
                move || {
                    for _ in 0..4 {
                        fixture.check_visible();
                        thread::yield_now();
                    }
                    fixture.pipeline.persist().unwrap();
                }
            }));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let tail = fixture.pipeline.close().unwrap();
            assert_eq!(fixture.pipeline.visible().load().get(), tail.next);
            fixture.check_visible();
        },
        SCHEDULES,
    );
}

/// P2, P8: one of many writers dies; everyone ends with an answer or with the cause, and nothing behind the hole is
/// acknowledged.
#[test]
fn everyone_ends_when_one_writer_dies() {
    std::panic::set_hook(Box::new(|_| {}));
    shuttle::check_random(
        || {
            let fixture = Arc::new(Fixture::new(16, 2));
            let writers: Vec<_> = (0..4_u64)
                .map(|writer| {
                    let fixture = Arc::clone(&fixture);
                    thread::spawn(move || {
                        for number in 0..2 {
                            let dies = (writer, number) == (1, 1);
                            let ended = catch_unwind(AssertUnwindSafe(|| {
                                fixture.commit_with(1, durability(writer), || {
                                    assert!(!dies, "as the test asked");
                                })
                            }));
                            match ended {
                                Ok(Ok(_)) => assert!(!dies),
                                Ok(Err(CommitError::Failed(_))) => {}
                                Ok(Err(other)) => panic!("{other:?}"),
                                Err(_) => assert!(dies),
                            }
                        }
                    })
                })
                .collect();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            assert!(fixture.pipeline.failure().is_some());
            assert!(fixture.pipeline.close().is_err());
            fixture.check_visible();
        },
        SCHEDULES,
    );
}

/// L4, P7: claims that are released while writers wait, sync and arrive.
#[test]
fn released_claims_answer_everyone() {
    shuttle::check_random(
        || {
            let log = FakeLog::new(8);
            log.script().holds_claims = true;
            let fixture = Arc::new(Fixture::over(log, 4));
            let writers: Vec<_> = (0..3)
                .map(|_| {
                    let fixture = Arc::clone(&fixture);
                    thread::spawn(move || fixture.commit(1, Durability::Synced).unwrap())
                })
                .collect();
            thread::yield_now();
            fixture.pipeline.journal().script().holds_claims = false;
            fixture.pipeline.claims_released();
            writers.into_iter().for_each(|writer| {
                writer.join().unwrap();
            });
            assert!(fixture.pipeline.journal().durable.load(Ordering::Acquire) >= 3);
            assert_eq!(fixture.pipeline.visible().load(), seqno(3));
        },
        SCHEDULES,
    );
}
