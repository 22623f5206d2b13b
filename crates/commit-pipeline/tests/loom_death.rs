//! Models of writers that do not get through.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p commit-pipeline --test loom_death`
#![cfg(loom)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use commit_pipeline::{CloseError, CommitError, Durability};
use loom::sync::Arc;
use loom::sync::atomic::Ordering;
use loom::thread;
use support::{FakeLog, Fixture, seqno};

/// P2: a writer that dies between reserve and publish fails the database; whoever waits behind it wakes with the cause,
/// whoever was before it does not notice.
#[test]
fn dead_writer_wakes_those_behind_it_with_the_cause() {
    std::panic::set_hook(Box::new(|_| {}));
    loom::model(|| {
        let fixture = Arc::new(Fixture::new(4, 4));
        let dying = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || {
                let died = catch_unwind(AssertUnwindSafe(|| {
                    let _ = fixture.commit_with(1, Durability::Buffered, || panic!("as the test asked"));
                }));
                // Not reached inside the batch if the other writer's end of things came first.
                let _ = died;
            }
        });
        match fixture.commit(1, Durability::Buffered) {
            Ok(last) => assert_eq!(last, seqno(1), "P3: nothing behind the dead writer is acknowledged"),
            Err(CommitError::Failed(cause)) => {
                assert!(cause.to_string().starts_with("a writer died with the batch"), "{cause}");
            }
            Err(other) => panic!("{other:?}"),
        }
        dying.join().unwrap();
        assert!(fixture.pipeline.failure().is_some(), "P2: the database has failed");
        fixture.check_visible();
    });
}

/// P8: a failed store of the log reaches those behind it, and the log's end is not handed out.
#[test]
fn failed_append_wakes_those_behind_it_and_a_closer() {
    loom::model(|| {
        let log = FakeLog::new(4);
        log.script().failing_append = Some(seqno(1));
        let fixture = Arc::new(Fixture::over(log, 4));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Buffered)
        });
        let closed = fixture.pipeline.close();
        match other.join().unwrap() {
            Err(CommitError::Failed(_)) => {}
            Err(CommitError::Closed) => assert!(closed.is_ok()),
            other => panic!("{other:?}"),
        }
        if fixture.pipeline.failure().is_some() {
            assert!(matches!(closed, Err(CloseError::Failed(_))), "P8: {closed:?}");
        }
    });
}

/// P9: closing waits for whoever is in flight, and refuses whoever comes after; both end.
#[test]
fn closing_waits_for_those_in_flight() {
    loom::model(|| {
        let fixture = Arc::new(Fixture::new(4, 4));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Buffered)
        });
        let tail = fixture.pipeline.close().unwrap();
        assert_eq!(fixture.pipeline.visible().load().get(), tail.next, "everything reserved is visible");
        fixture.check_visible();
        match other.join().unwrap() {
            Ok(last) => assert_eq!((last, tail.next), (seqno(1), 1)),
            Err(CommitError::Closed) => assert_eq!(tail.next, 0),
            Err(other) => panic!("{other:?}"),
        }
    });
}

/// P9: closing a database that fails waits for who is in flight too: whoever opens it next finds nobody storing into its log.
#[test]
fn closing_a_failed_pipeline_waits_for_those_in_flight() {
    loom::model(|| {
        let fixture = Arc::new(Fixture::new(4, 4));
        let writer = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Buffered)
        });
        fixture.pipeline.fail(std::sync::Arc::new(std::io::Error::other("as the test asked")));
        assert!(matches!(fixture.pipeline.close(), Err(CloseError::Failed(_))));
        let stored =
            || fixture.pipeline.journal().cells.iter().filter(|cell| cell.load(Ordering::Relaxed) != 0).count();
        let before = stored();
        let reserved = fixture.pipeline.journal().script().accepted.len();
        assert_eq!(before, reserved, "P9: a writer stores after closing has returned");
        assert!(matches!(writer.join().unwrap(), Ok(_) | Err(CommitError::Failed(_) | CommitError::Closed)));
        assert_eq!(stored(), before);
    });
}

/// P9: a writer behind a hole publishes nothing when it is done, and wakes a closer who waits for it all the same.
#[test]
fn a_writer_behind_a_hole_wakes_the_closer() {
    loom::model(|| {
        let log = FakeLog::new(4);
        log.script().failing_append = Some(seqno(1));
        let fixture = Arc::new(Fixture::over(log, 4));
        let writers = [(); 2].map(|()| {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || fixture.commit(1, Durability::Buffered))
        });
        let closed = fixture.pipeline.close();
        for writer in writers {
            assert!(matches!(writer.join().unwrap(), Err(CommitError::Failed(_) | CommitError::Closed)));
        }
        // Of those who came before it the first has failed the pipeline.
        assert_eq!(closed.is_ok(), fixture.pipeline.failure().is_none());
    });
}

/// P9: a writer that found no segment ready and prepares one has no ticket yet; closing waits for it all the same, and
/// one that comes later is refused before it prepares anything. So nobody creates a file once closing has returned.
#[test]
fn closing_waits_for_whoever_prepares_a_segment() {
    loom::model(|| {
        let log = FakeLog::new(2);
        log.script().ready = 0;
        log.script().segment = 2;
        let fixture = Arc::new(Fixture::over(log, 2));
        let writer = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Buffered)
        });
        let tail = fixture.pipeline.close().unwrap();
        let prepared = fixture.pipeline.journal().prepared.load(Ordering::Relaxed);
        match writer.join().unwrap() {
            Ok(last) => assert_eq!((last, tail.next), (seqno(1), 1)),
            Err(CommitError::Closed) => assert_eq!(tail.next, 0),
            Err(other) => panic!("{other:?}"),
        }
        let now = fixture.pipeline.journal().prepared.load(Ordering::Relaxed);
        assert_eq!(prepared, now, "P9: a segment was prepared after closing had returned");
    });
}
