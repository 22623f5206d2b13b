//! Models of publication: order, reading one's own writes, waking.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p commit-pipeline --test loom_publish`
#![cfg(loom)]

mod support;

use commit_pipeline::{Durability, PublishQueue};
use internal_key::SeqNo;
use loom::sync::Arc;
use loom::thread;
use support::atomic::{AtomicU64, Ordering};
use support::{Fixture, seqno};

/// P3: a frontier passes a batch only when it has passed all earlier ones, whoever sees it sees them whole, and when both
/// writers are through nothing is left unpublished. Here the writers do not even wait.
#[test]
fn queue_publishes_whole_prefixes_and_all_of_them() {
    loom::model(|| {
        let queue = Arc::new(PublishQueue::new(2, SeqNo::ZERO, 1));
        let written = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let writers: Vec<_> = (0..2_u64)
            .map(|ticket| {
                let (queue, written) = (Arc::clone(&queue), Arc::clone(&written));
                thread::spawn(move || {
                    written[ticket as usize].store(1, Ordering::Relaxed);
                    queue.stamp_logged(ticket, 10 * (ticket + 1), seqno(ticket + 1));
                    written[ticket as usize].store(2, Ordering::Relaxed);
                    queue.stamp_applied(ticket);
                })
            })
            .collect();
        let (visible, logged) = (queue.visible().load(), queue.logged());
        assert!(logged >= 10 * visible.get(), "P3: visible {visible} has passed logged {logged}");
        for (index, cell) in written.iter().enumerate() {
            let (ticket, written) = (index as u64, cell.load(Ordering::Relaxed));
            assert!(written >= 1 || logged < 10 * (ticket + 1), "P3: logged {logged} has passed ticket {ticket}");
            assert!(written == 2 || visible.get() <= ticket, "P3: visible {visible} has passed ticket {ticket}");
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!((queue.visible().load(), queue.logged()), (seqno(2), 20), "P3: the prefix is published");
    });
}

/// P3: a commit returns only after its batch and all before it are visible, and a reader sees no part of a batch.
#[test]
fn commit_returns_when_its_batch_is_visible() {
    loom::model(|| {
        let fixture = Arc::new(Fixture::new(4, 4));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(2, Durability::Buffered).unwrap()
        });
        let mine = fixture.commit(1, Durability::Buffered).unwrap();
        let theirs = other.join().unwrap();
        assert_ne!(mine, theirs);
        assert_eq!(fixture.pipeline.visible().load(), seqno(3));
        fixture.check_visible();
    });
}

/// P3: the same with three writers, two of which share what the third has to publish.
#[test]
fn three_writers_publish_each_others_batches() {
    loom::model(|| {
        let queue = Arc::new(PublishQueue::new(4, SeqNo::ZERO, 1));
        let complete = |queue: &PublishQueue, ticket: u64| {
            queue.stamp_logged(ticket, ticket + 1, seqno(ticket + 1));
            queue.stamp_applied(ticket);
        };
        let writers: Vec<_> = (1..3)
            .map(|ticket| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || complete(&queue, ticket))
            })
            .collect();
        complete(&queue, 0);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!((queue.visible().load(), queue.logged(), queue.published()), (seqno(3), 3, 3));
    });
}

/// P9: who waits for a batch is woken when it is published; a lost wake-up would be a deadlock.
#[test]
fn waiter_is_woken_by_the_publication_it_waits_for() {
    loom::model(|| {
        let queue = Arc::new(PublishQueue::new(2, SeqNo::ZERO, 1));
        let waiter = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                queue.wait_until(|| queue.visible().load() >= seqno(2));
                assert_eq!(queue.logged(), 2, "P3: visible ≤ logged");
            }
        });
        for ticket in 0..2 {
            queue.stamp_logged(ticket, ticket + 1, seqno(ticket + 1));
            queue.stamp_applied(ticket);
        }
        waiter.join().unwrap();
    });
}

/// P3: the slot of a ticket is used again only after it was read; a writer beyond the ring waits before its reservation.
#[test]
fn ring_of_one_slot_serves_two_writers() {
    loom::model(|| {
        let fixture = Arc::new(Fixture::new(2, 1));
        let other = thread::spawn({
            let fixture = Arc::clone(&fixture);
            move || fixture.commit(1, Durability::Buffered).unwrap()
        });
        fixture.commit(1, Durability::Buffered).unwrap();
        other.join().unwrap();
        assert_eq!(fixture.pipeline.visible().load(), seqno(2));
        fixture.check_visible();
    });
}
