//! Models of the group sync.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p commit-pipeline --test loom_sync`
#![cfg(loom)]

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};

use commit_pipeline::{CommitError, Durability};
use loom::sync::Arc;
use loom::thread;
use support::{FakeLog, Fixture, seqno};

/// P7: a synced commit is answered by a sync that began after `logged` had passed its record (the fake log refuses to sync
/// what is not copied, the fixture refuses an answer that is not durable), and nobody sleeps for ever.
#[test]
fn synced_commits_are_answered_by_a_sync_that_covers_them() {
    loom::model(|| {
        let fixture = Arc::new(Fixture::new(4, 4));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Synced).unwrap()
        });
        fixture.commit(1, Durability::Synced).unwrap();
        other.join().unwrap();
        assert_eq!(fixture.pipeline.journal().script().accepted, [seqno(1), seqno(2)]);
        let counts = fixture.pipeline.counts();
        assert!((1..=2).contains(&counts.syncs) && counts.synced == 2, "{counts:?}");
    });
}

/// P8: a failed sync reaches everyone who waits for it, with the first cause, and is not tried again.
#[test]
fn failed_sync_wakes_everyone_with_the_cause() {
    loom::model(|| {
        let log = FakeLog::new(4);
        log.script().failing_sync = true;
        let fixture = Arc::new(Fixture::over(log, 4));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Synced)
        });
        let results = [fixture.commit(1, Durability::Synced), other.join().unwrap()];
        for result in results {
            let Err(CommitError::Failed(cause)) = result else { panic!("P8: {result:?}") };
            assert_eq!(cause.to_string(), "fake log: sync");
        }
        assert_eq!(fixture.pipeline.journal().script().syncs, 1, "P8: a failed sync is never retried");
    });
}

/// P2, P9: a leader that panics while it syncs fails the database, and nobody sleeps on: neither who waits for its sync
/// nor who came too late for that.
#[test]
fn panicking_leader_leaves_nobody_asleep() {
    std::panic::set_hook(Box::new(|_| {}));
    loom::model(|| {
        let log = FakeLog::new(4);
        log.script().panicking_sync = true;
        let fixture = Arc::new(Fixture::over(log, 4));
        let commit = |fixture: &Fixture| catch_unwind(AssertUnwindSafe(|| fixture.commit(1, Durability::Synced)));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || commit(&fixture)
        });
        let results = [commit(&fixture), other.join().unwrap()];
        let mut leaders = 0;
        for result in results {
            match result {
                Err(_) => leaders += 1,
                Ok(Err(CommitError::Failed(cause))) => {
                    assert_eq!(cause.to_string(), "the log panicked while it synced")
                }
                Ok(other) => panic!("P8: {other:?}"),
            }
        }
        assert_eq!(leaders, 1, "P8: a failed sync is never retried");
    });
}

/// L4: while the log holds its claims a synced commit sleeps, whenever the release comes.
#[test]
fn released_claims_wake_those_who_wait_for_a_sync() {
    loom::model(|| {
        let log = FakeLog::new(2);
        log.script().holds_claims = true;
        let fixture = Arc::new(Fixture::over(log, 2));
        let writer = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Synced).unwrap()
        });
        fixture.pipeline.journal().script().holds_claims = false;
        fixture.pipeline.claims_released();
        writer.join().unwrap();
    });
}
