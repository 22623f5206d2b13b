//! The protocol on one thread, step by step, and on several where the order is forced.
#![cfg(not(any(loom, shuttle)))]

mod support;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use commit_pipeline::{CloseError, CommitError, Durability, Pipeline, PipelineOptions, Request};
use internal_key::SeqNo;
use support::{FakeError, FakeLog, Fixture, Tail, seqno};

/// P1: every entry has a sequence number of its own, log order is seqno order, and the step under the lock sees both.
#[test]
fn batches_get_consecutive_seqnos_in_log_order() {
    let fixture = Fixture::new(16, 4);
    let seen = RefCell::new(Vec::new());
    for entries in [1, 3, 2] {
        let request = Request::new(entries, entries, Durability::Buffered);
        let last = fixture.pipeline.commit(
            &request,
            |first, position| {
                seen.borrow_mut().push((first.get(), position));
                Ok::<_, Infallible>(first)
            },
            |first| fixture.memtable.apply(first, entries),
        );
        assert_eq!(last.unwrap().get(), seen.borrow().last().unwrap().0 + entries - 1);
    }
    assert_eq!(*seen.borrow(), [(1, 0), (2, 1), (5, 4)]);
    assert_eq!(fixture.pipeline.journal().script().accepted, [seqno(1), seqno(2), seqno(5)]);
    assert_eq!(fixture.pipeline.next_seqno(), seqno(7));
    assert_eq!(fixture.pipeline.logged(), 6);
}

/// P3: the steps come in their order: the record is copied before the batch is applied, and visible only after both.
#[test]
fn steps_come_in_order() {
    let fixture = Fixture::new(4, 4);
    let journal = fixture.pipeline.journal();
    let committed = fixture.pipeline.commit(
        &Request::new(2, 2, Durability::Synced),
        |first, _| {
            assert!(!journal.is_copied_through(1), "P1: nothing is copied under the lock");
            assert_eq!(fixture.pipeline.visible().load(), SeqNo::ZERO);
            Ok::<_, Infallible>(first)
        },
        |first| {
            assert!(journal.is_copied_through(2), "the record is copied before the batch is applied");
            assert_eq!(fixture.pipeline.visible().load(), SeqNo::ZERO, "P3: not visible before it is applied");
            assert_eq!(journal.script().syncs, 0);
            fixture.memtable.apply(first, 2);
        },
    );
    assert_eq!(committed.unwrap(), seqno(2));
    assert_eq!(journal.script().syncs, 1, "P7: synced once, after publication");
    fixture.check_visible();
}

/// P1: a refusal under the lock changes nothing: no seqno, no log range, no failure.
#[test]
fn refusal_under_the_lock_changes_nothing() {
    let fixture = Fixture::new(4, 4);
    let request = Request::new(2, 2, Durability::Buffered);
    for _ in 0..3 {
        let refused = fixture.pipeline.commit(&request, |_, _| Err("keyspace dropped"), |()| unreachable!());
        assert!(matches!(refused, Err(CommitError::Refused("keyspace dropped"))), "{refused:?}");
    }
    assert_eq!(fixture.pipeline.next_seqno(), seqno(1));
    assert_eq!(fixture.commit(2, Durability::Buffered).unwrap(), seqno(2));
    assert_eq!(fixture.pipeline.journal().script().accepted, [seqno(1)]);
}

/// P4: a step between two batches runs under the reservation lock, and sees the seqno of the next.
#[test]
fn step_between_batches_sees_the_next_seqno() {
    let fixture = Fixture::new(4, 4);
    fixture.commit(3, Durability::Buffered).unwrap();
    assert_eq!(fixture.pipeline.with_order(|next| next), seqno(4));
    assert_eq!(fixture.pipeline.with_tail(|tail| tail.next), Some(3));
    fixture.pipeline.wait_visible(seqno(3)).unwrap();
}

/// P2: a writer that panics while it applies fails the database; what was visible stays visible, and later writes get the
/// cause.
#[test]
fn panic_while_applying_fails_the_database() {
    let fixture = Fixture::new(8, 4);
    fixture.commit(1, Durability::Buffered).unwrap();
    let died = catch_unwind(AssertUnwindSafe(|| {
        let _ = fixture.commit_with(2, Durability::Buffered, || panic!("as the test asked"));
    }));
    assert!(died.is_err());
    let cause = fixture.pipeline.failure().expect("P2: the database has failed");
    assert_eq!(cause.to_string(), "a writer died with the batch that begins at #2 reserved and not published");
    assert_eq!(fixture.pipeline.visible().load(), seqno(1));
    let refused = fixture.commit(1, Durability::Buffered);
    assert!(matches!(&refused, Err(CommitError::Failed(later)) if Arc::ptr_eq(later, &cause)), "P8: {refused:?}");
    assert!(fixture.pipeline.wait_visible(seqno(2)).is_err(), "P9: who waits behind a hole is told");
    assert!(matches!(fixture.pipeline.close(), Err(CloseError::Failed(_))));
}

/// P2: a panic under the lock leaves steps that no record describes, so that it fails the database as well.
#[test]
fn panic_under_the_lock_fails_the_database() {
    let fixture = Fixture::new(4, 4);
    let died = catch_unwind(AssertUnwindSafe(|| {
        let request = Request::new(1, 1, Durability::Buffered);
        let _ = fixture.pipeline.commit(&request, |_, _| -> Result<(), ()> { panic!("as the test asked") }, |()| {});
    }));
    assert!(died.is_err());
    assert!(fixture.pipeline.failure().is_some());
    assert!(matches!(fixture.commit(1, Durability::Buffered), Err(CommitError::Failed(_))));
}

/// P8: a failed store of the log is uncertain: the database fails, and keeps the first cause.
#[test]
fn failed_append_fails_the_database() {
    let fixture = Fixture::new(4, 4);
    fixture.pipeline.journal().script().failing_append = Some(seqno(1));
    let failed = fixture.commit(1, Durability::Buffered);
    assert!(
        matches!(&failed, Err(CommitError::Failed(cause)) if cause.to_string() == "fake log: append"),
        "{failed:?}"
    );
    let kept = fixture.pipeline.fail(Arc::new(FakeError { what: "later", certain: false }));
    assert_eq!(kept.to_string(), "fake log: append", "P8: the first cause stays");
    assert_eq!(fixture.pipeline.visible().load(), SeqNo::ZERO);
}

/// P8: a failed sync fails the database and is never tried again; the batch is visible all the same.
#[test]
fn failed_sync_is_not_retried() {
    let fixture = Fixture::new(8, 4);
    fixture.pipeline.journal().script().failing_sync = true;
    assert!(matches!(fixture.commit(1, Durability::Synced), Err(CommitError::Failed(_))));
    fixture.pipeline.journal().script().failing_sync = false;
    assert!(matches!(fixture.commit(1, Durability::Synced), Err(CommitError::Failed(_))));
    assert!(fixture.pipeline.persist().is_err());
    assert_eq!(fixture.pipeline.journal().script().syncs, 1);
    assert_eq!(fixture.pipeline.visible().load(), seqno(1), "visible may come before durable");
}

/// P8: a log that panics while it syncs fails the database, and nobody waits for that sync for ever.
#[test]
fn panic_while_syncing_fails_the_database() {
    let fixture = Fixture::new(8, 4);
    fixture.pipeline.journal().script().panicking_sync = true;
    assert!(catch_unwind(AssertUnwindSafe(|| fixture.commit(1, Durability::Synced))).is_err());
    assert_eq!(fixture.pipeline.persist().unwrap_err().to_string(), "the log panicked while it synced");
}

/// P8: no room for another segment is certain: the write fails, nothing changes, and writes resume with the room.
#[test]
fn no_room_in_the_log_is_certain() {
    let log = FakeLog::new(8);
    {
        let mut script = log.script();
        (script.ready, script.segment) = (2, 2);
        script.failing_prepare = Some(FakeError { what: "no space", certain: true });
    }
    let fixture = Fixture::over(log, 4);
    assert_eq!(fixture.commit(2, Durability::Buffered).unwrap(), seqno(2));
    for _ in 0..2 {
        let full = fixture.commit(1, Durability::Buffered);
        assert!(matches!(&full, Err(CommitError::NoRoom(FakeError { what: "no space", .. }))), "{full:?}");
    }
    assert!(fixture.pipeline.failure().is_none());
    fixture.pipeline.journal().script().failing_prepare = None;
    assert_eq!(fixture.commit(3, Durability::Buffered).unwrap(), seqno(5), "P1: the refused batches took no seqno");
    assert_eq!(fixture.pipeline.journal().prepared.load(Ordering::Relaxed), 2, "prepared until the record fitted");
}

/// P8: an uncertain failure to make room fails the database.
#[test]
fn uncertain_failure_to_make_room_fails_the_database() {
    let log = FakeLog::new(8);
    log.script().ready = 0;
    log.script().failing_prepare = Some(FakeError { what: "log failed", certain: false });
    let fixture = Fixture::over(log, 4);
    assert!(matches!(fixture.commit(1, Durability::Buffered), Err(CommitError::Failed(_))));
    assert_eq!(fixture.pipeline.failure().unwrap().to_string(), "fake log: log failed");
}

/// P11: a record that no segment can hold is refused with both sizes, and changes nothing.
#[test]
fn record_larger_than_a_segment_is_refused() {
    let fixture = Fixture::new(4, 4);
    let refused = fixture.commit(5, Durability::Buffered);
    assert!(matches!(refused, Err(CommitError::TooLarge { payload_bytes: 5, payload_bytes_max: 4 })), "{refused:?}");
    assert_eq!(fixture.commit(4, Durability::Buffered).unwrap(), seqno(4));
}

/// P1: when the sequence numbers end, writes are refused with a typed error, and the last one can still be used.
#[test]
fn exhausted_seqnos_are_a_typed_error() {
    let last = SeqNo::new(SeqNo::MAX.get() - 2).unwrap();
    let options = PipelineOptions { in_flight_max: 4, cores: 1 };
    let pipeline = Pipeline::new(FakeLog::new(8), Tail { next: 0 }, last, options);
    let commit = |entries: u64| {
        pipeline.commit(&Request::new(1, entries, Durability::Buffered), |_, _| Ok::<_, Infallible>(()), |()| {})
    };
    let refused = commit(3);
    assert!(matches!(refused, Err(CommitError::SeqNosExhausted { last: found, entries: 3 }) if found == last));
    assert_eq!(commit(2).unwrap(), SeqNo::MAX);
    assert!(matches!(commit(1), Err(CommitError::SeqNosExhausted { .. })));
    assert!(matches!(commit(u64::MAX), Err(CommitError::SeqNosExhausted { .. })));
    assert!(pipeline.failure().is_none());
}

/// P9: closing refuses later commits, hands the tail out once, and leaves what is visible.
#[test]
fn closed_pipeline_refuses_commits() {
    let fixture = Fixture::new(4, 4);
    fixture.commit(2, Durability::Buffered).unwrap();
    assert_eq!(fixture.pipeline.close().unwrap().next, 2);
    assert!(matches!(fixture.commit(1, Durability::Buffered), Err(CommitError::Closed)));
    assert!(matches!(fixture.pipeline.close(), Err(CloseError::AlreadyClosed)));
    assert_eq!(fixture.pipeline.with_tail(|tail| tail.next), None);
    fixture.pipeline.persist().unwrap();
    assert_eq!(fixture.pipeline.journal().script().syncs, 1, "what is visible can still be made durable");
}

/// P7: persisting covers everything visible with one sync, and none when nothing is new.
#[test]
fn persist_syncs_what_is_new_once() {
    let fixture = Fixture::new(8, 4);
    fixture.pipeline.persist().unwrap();
    assert_eq!(fixture.pipeline.journal().script().syncs, 0, "nothing was written");
    for _ in 0..3 {
        fixture.commit(1, Durability::Buffered).unwrap();
    }
    fixture.pipeline.persist().unwrap();
    fixture.pipeline.persist().unwrap();
    assert_eq!(fixture.pipeline.journal().script().syncs, 1);
    assert_eq!(fixture.pipeline.counts().commits, 3);
}

/// P3: a batch behind an unfinished one is not acknowledged, and both are published by whoever finishes the first.
#[test]
fn batch_behind_an_unfinished_one_waits_for_it() {
    let fixture = Arc::new(Fixture::new(4, 4));
    let (reserved, is_reserved) = mpsc::channel();
    let (release, is_released) = mpsc::channel::<()>();
    let first = thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || {
            fixture.commit_with(1, Durability::Buffered, || {
                reserved.send(()).unwrap();
                is_released.recv().unwrap();
            })
        }
    });
    is_reserved.recv().unwrap();
    let finished = Arc::new(Barrier::new(2));
    let second = thread::spawn({
        let (fixture, finished) = (Arc::clone(&fixture), Arc::clone(&finished));
        move || {
            fixture.commit_with(1, Durability::Buffered, || {
                finished.wait();
            })
        }
    });
    finished.wait();
    assert_eq!(fixture.pipeline.visible().load(), SeqNo::ZERO, "P3: the hole is not passed");
    release.send(()).unwrap();
    assert_eq!(first.join().unwrap().unwrap(), seqno(1));
    assert_eq!(second.join().unwrap().unwrap(), seqno(2));
}

/// P9: with the ring full a writer waits before its reservation, and goes on when a batch is published.
#[test]
fn full_ring_holds_writers_before_their_reservation() {
    let fixture = Arc::new(Fixture::new(8, 2));
    let inside = Arc::new(Barrier::new(3));
    let release = Arc::new(Barrier::new(3));
    let holders: Vec<_> = (0..2)
        .map(|_| {
            let (fixture, inside, release) = (Arc::clone(&fixture), Arc::clone(&inside), Arc::clone(&release));
            thread::spawn(move || {
                fixture.commit_with(1, Durability::Buffered, || {
                    inside.wait();
                    release.wait();
                })
            })
        })
        .collect();
    inside.wait();
    let third = thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || fixture.commit(1, Durability::Buffered)
    });
    assert_eq!(
        fixture.pipeline.next_seqno(),
        seqno(3),
        "the third has no reservation, whether it waits already or not"
    );
    release.wait();
    holders.into_iter().for_each(|holder| {
        holder.join().unwrap().unwrap();
    });
    assert_eq!(third.join().unwrap().unwrap(), seqno(3));
}

/// P7: commits that wait while a sync runs share the next one.
#[test]
fn waiting_commits_share_one_sync() {
    const FOLLOWERS: u64 = 6;
    thread_local! {
        static HOLDS: Cell<bool> = const { Cell::new(false) };
    }
    static INSIDE: Barrier = Barrier::new(2);
    static RELEASE: Barrier = Barrier::new(2);
    let mut log = FakeLog::new(16);
    // Only the first leader's sync is held open.
    log.in_sync = |_| {
        if HOLDS.get() {
            INSIDE.wait();
            RELEASE.wait();
        }
    };
    let fixture = Arc::new(Fixture::over(log, 16));
    let leader = thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || {
            HOLDS.set(true);
            fixture.commit(1, Durability::Synced).unwrap()
        }
    });
    INSIDE.wait();
    let followers: Vec<_> = (0..FOLLOWERS)
        .map(|_| {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || fixture.commit(1, Durability::Synced).unwrap())
        })
        .collect();
    // All followers' batches are visible, so that the next sync covers all of them.
    fixture.pipeline.wait_visible(seqno(1 + FOLLOWERS)).unwrap();
    RELEASE.wait();
    leader.join().unwrap();
    followers.into_iter().for_each(|follower| {
        follower.join().unwrap();
    });
    let counts = fixture.pipeline.counts();
    assert_eq!((counts.commits, counts.synced), (1 + FOLLOWERS, 1 + FOLLOWERS));
    assert_eq!(counts.syncs, 2, "one for the leader, one for all who came meanwhile");
}

/// P9: closing returns only when whoever prepares a segment has done so: after it nobody creates a file.
#[test]
fn closing_waits_for_whoever_prepares_a_segment() {
    static INSIDE: Barrier = Barrier::new(2);
    static RELEASE: Barrier = Barrier::new(2);
    let mut log = FakeLog::new(4);
    log.script().ready = 0;
    log.in_prepare = || {
        INSIDE.wait();
        RELEASE.wait();
    };
    let fixture = Arc::new(Fixture::over(log, 4));
    let writer = thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || fixture.commit(1, Durability::Buffered)
    });
    INSIDE.wait();
    let (closed, was_closed) = mpsc::channel();
    let closer = thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || {
            fixture.pipeline.close().unwrap();
            closed.send(fixture.pipeline.journal().prepared.load(Ordering::Relaxed)).unwrap();
        }
    });
    assert!(was_closed.recv_timeout(Duration::from_millis(50)).is_err(), "closed while a segment was in the making");
    RELEASE.wait();
    assert_eq!(was_closed.recv().unwrap(), 1, "the segment was made before closing returned");
    closer.join().unwrap();
    assert!(matches!(writer.join().unwrap(), Err(CommitError::Closed)));
    assert!(matches!(fixture.commit(1, Durability::Buffered), Err(CommitError::Closed)));
}

/// L4: while the log holds its claims a synced commit sleeps instead of syncing again and again.
#[test]
fn held_claims_hold_synced_commits() {
    let log = FakeLog::new(4);
    log.script().holds_claims = true;
    let fixture = Arc::new(Fixture::over(log, 4));
    let writer = thread::spawn({
        let fixture = Arc::clone(&fixture);
        move || fixture.commit(1, Durability::Synced).unwrap()
    });
    fixture.pipeline.wait_visible(seqno(1)).unwrap();
    while fixture.pipeline.counts().syncs == 0 {
        thread::yield_now();
    }
    fixture.pipeline.journal().script().holds_claims = false;
    fixture.pipeline.claims_released();
    writer.join().unwrap();
    assert_eq!(fixture.pipeline.counts().syncs, 2, "one that did not count, one that did");
}

/// P3: many writers over a small ring: every acknowledgement is checked, nothing hangs, nothing is left unpublished.
#[test]
fn writers_over_a_small_ring_see_their_writes() {
    const WRITERS: u64 = 4;
    const COMMITS: u64 = 200;
    let seqnos = WRITERS * COMMITS * 2;
    let fixture = Arc::new(Fixture::new(seqnos as usize, 4));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let fixture = Arc::clone(&fixture);
            thread::spawn(move || {
                for number in 0..COMMITS {
                    let durability =
                        if (number + writer).is_multiple_of(16) { Durability::Synced } else { Durability::Buffered };
                    let entries = 1 + (number + writer) % 2;
                    fixture.commit(entries, durability).unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let last = fixture.pipeline.next_seqno().before();
    assert_eq!(last.get(), WRITERS * COMMITS * 3 / 2);
    assert_eq!(fixture.pipeline.visible().load(), last);
    assert!(fixture.memtable.is_applied_through(last));
}
