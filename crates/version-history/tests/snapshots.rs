//! The snapshot registry and its floor.
#![cfg(not(any(loom, shuttle)))]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use internal_key::{KeyspaceId, SeqNo};
use support::seqno;
use test_support::for_each_seed;
use version_history::{Frontier, RegisterError, SnapshotHandle, SnapshotRegistry};

/// R3: a snapshot is registered at what is visible, and counts until its last handle is dropped.
#[test]
fn snapshot_counts_until_its_last_handle_is_dropped() {
    let (registry, visible) = (Arc::new(SnapshotRegistry::default()), Frontier::new(seqno(5)));
    let first = registry.register(&visible);
    let second = registry.register(&visible);
    let copy = first.clone();
    visible.raise(seqno(9));
    let third = registry.register(&visible);
    let registered = || registry.floor_and_registered(&visible, SeqNo::ZERO).1;
    assert_eq!(registered(), [seqno(5), seqno(9)], "distinct and ascending");
    drop(first);
    drop(copy);
    assert_eq!(registered(), [seqno(5), seqno(9)], "the second handle holds it still");
    drop(third);
    drop(second);
    assert_eq!(registered(), []);
    assert_eq!(registry.oldest(), None);
    assert_eq!(registry.counts().registrations, 4);
}

/// R3: the floor is min(retention, visible) and never falls; a snapshot below it stays as a stripe.
#[test]
fn floor_rises_with_retention_and_visible_and_never_falls() {
    let (registry, visible) = (Arc::new(SnapshotRegistry::new(seqno(2))), Frontier::new(seqno(5)));
    let snapshot = registry.register(&visible);
    let floor = |retention| registry.floor_and_registered(&visible, retention).0;
    assert_eq!(floor(seqno(1)), seqno(2), "it began at 2");
    assert_eq!(floor(seqno(4)), seqno(4));
    assert_eq!(floor(SeqNo::MAX), seqno(5), "never above visible");
    assert_eq!(floor(seqno(3)), seqno(5), "never falls");
    visible.raise(seqno(50));
    assert_eq!(registry.floor_and_registered(&visible, SeqNo::MAX), (seqno(50), vec![seqno(5)]));
    assert_eq!(snapshot.seqno(), seqno(5));
    assert_eq!(registry.floor(), seqno(50));
}

/// R3: a seqno of the past is registered for the keyspaces whose own floor has not passed it, and for no others; above
/// visible nothing can be.
#[test]
fn the_past_is_registered_where_history_is_kept() {
    let (registry, visible) = (Arc::new(SnapshotRegistry::default()), Frontier::new(seqno(30)));
    let (short, long, none) = (KeyspaceId(1), KeyspaceId(2), KeyspaceId(3));
    let refused = registry.register_at(&visible, seqno(29)).unwrap_err();
    assert_eq!(refused, RegisterError::BelowFloor { seqno: seqno(29), floor: seqno(30) }, "nobody keeps history");
    registry.keep_history(short, seqno(20));
    registry.keep_history(long, seqno(5));
    let keeps = |at| {
        let handle = registry.register_at(&visible, seqno(at)).unwrap();
        [short, long, none].map(|keyspace| handle.keeps(keyspace))
    };
    assert_eq!(keeps(30), [true, true, true], "what is visible is there");
    assert_eq!(keeps(20), [true, true, false]);
    assert_eq!(keeps(19), [false, true, false]);
    let refused = registry.register_at(&visible, seqno(4)).unwrap_err();
    assert_eq!(refused, RegisterError::BelowFloor { seqno: seqno(4), floor: seqno(5) });
    let refused = registry.register_at(&visible, seqno(31)).unwrap_err();
    assert_eq!(refused, RegisterError::NotVisible { seqno: seqno(31), visible: seqno(30) });

    // Held, it stays as readable as it was, also for who comes later; released, it goes.
    let held = registry.register_at(&visible, seqno(10)).unwrap();
    assert_eq!(registry.floor_and_registered_of(long, &visible, seqno(15)), (seqno(15), vec![seqno(10)]));
    assert_eq!(registry.floor_of(long), Some(seqno(15)));
    let of_short = registry.floor_and_registered_of(short, &visible, seqno(15));
    assert_eq!(of_short, (seqno(20), vec![]), "never falls, and what is registered for others keeps nothing of it");
    assert_eq!(registry.floor(), SeqNo::ZERO, "the others' floor is another");
    let of_none = registry.floor_and_registered_of(none, &visible, seqno(15));
    assert_eq!(of_none, (seqno(30), vec![]), "they keep nothing");
    let again = registry.register_at(&visible, seqno(10)).unwrap();
    assert_eq!([short, long].map(|keyspace| again.clone().keeps(keyspace)), [false, true]);
    drop(held);
    drop(again);
    assert!(registry.register_at(&visible, seqno(10)).is_err(), "released: its versions may be gone");
    registry.forget_history(long);
    assert!(registry.register_at(&visible, seqno(19)).is_err(), "dropped: its history went with it");
    assert_eq!(registry.floor_of(long), None);
}

/// R3: against a model: whatever is registered was at or above the floor of its moment, and is named until released.
#[test]
fn random_registrations_agree_with_a_model() {
    for_each_seed(0..50, |rng| {
        let (registry, visible) = (Arc::new(SnapshotRegistry::default()), Frontier::new(SeqNo::ZERO));
        let mut handles: Vec<SnapshotHandle> = Vec::new();
        let keyspace = KeyspaceId(1);
        registry.keep_history(keyspace, SeqNo::ZERO);
        let mut floor = SeqNo::ZERO;
        for _ in 0..200 {
            match rng.below(6) {
                0 => visible.raise(seqno(visible.load().get() + rng.below(4))),
                1 => handles.push(registry.register(&visible)),
                2 => {
                    let at = seqno(rng.below(visible.load().get() + 3));
                    let held = handles.iter().any(|handle| handle.seqno() == at);
                    match registry.register_at(&visible, at) {
                        Ok(handle) => {
                            assert!(at <= visible.load() && (at >= floor || held));
                            assert!(handle.keeps(keyspace), "whoever held it first could read it");
                            handles.push(handle);
                        }
                        Err(RegisterError::NotVisible { .. }) => assert!(at > visible.load()),
                        Err(_) => assert!(at < floor && !held),
                    }
                }
                3 if !handles.is_empty() => {
                    let index = rng.index(handles.len());
                    handles.swap_remove(index);
                }
                _ => {
                    let retention = seqno(rng.below(visible.load().get() + 5));
                    floor = floor.max(retention.min(visible.load()));
                    let distinct: BTreeSet<SeqNo> = handles.iter().map(SnapshotHandle::seqno).collect();
                    let expected = (floor, distinct.into_iter().collect());
                    assert_eq!(registry.floor_and_registered_of(keyspace, &visible, retention), expected);
                }
            }
        }
    });
}
