//! Super versions are composed by pure functions: what they take, keep and refuse.
#![cfg(not(any(loom, shuttle)))]

mod support;

use std::sync::Arc;

use internal_key::{Level, TableId};
use support::{added, first, memtable, seqno, table};
use version_history::{History, InstallRefusal, Retired, Sealed, SuperVersion, VersionRefusal};

/// R2: composing changes nothing of what readers hold.
#[test]
fn composing_leaves_the_former_super_version_as_it_was() {
    let old = first("m1");
    let drawn = old.to_string();
    let sealed = old.seal(memtable("m2"));
    let with_batch = sealed.seal_around_batch(memtable("m3"), table(7, "a", "c"));
    let all = with_batch.sealed().to_vec();
    let flushed = with_batch.install_flush(&all, &[added(0, 9, &table(8, "a", "z"))]).unwrap();
    assert_eq!(old.to_string(), drawn);
    assert_eq!(sealed.to_string(), "active m2\nsealed m1\n");
    assert_eq!(with_batch.to_string(), "active m3\nbatch t7[a..c]\nsealed m2\nsealed m1\n");
    assert_eq!(flushed.to_string(), "active m3\nL0 e9: t8[a..z]\n");
}

/// P6: memtables leave oldest first; a newer one cannot be installed before an older one.
#[test]
fn newer_memtable_is_not_installed_before_an_older_one() {
    let current = first("m1").seal(memtable("m2")).seal(memtable("m3")).seal(memtable("m4"));
    let [m3, m2, m1] = current.sealed() else { panic!("three are sealed") };
    let out = [added(0, 5, &table(1, "a", "b"))];
    let refused = |flushed: &[Sealed<_, _>]| current.install_flush(flushed, &out).unwrap_err();
    assert_eq!(refused(std::slice::from_ref(m2)), InstallRefusal::OutOfOrder { older: 1 });
    assert_eq!(refused(std::slice::from_ref(m3)), InstallRefusal::OutOfOrder { older: 2 });
    assert_eq!(refused(&[m3.clone(), m1.clone()]), InstallRefusal::OutOfOrder { older: 1 });
    let installed = current.install_flush(&[m1.clone(), m2.clone()], &out).unwrap();
    assert_eq!(installed.to_string(), "active m4\nsealed m3\nL0 e5: t1[a..b]\n", "the order of the list says nothing");
}

/// P12: a flush whose memtables left by a clear, or were installed before, is refused and changes nothing.
#[test]
fn flush_of_what_left_is_refused() {
    let current = Arc::new(first("m1").seal(memtable("m2")));
    let flushed = current.sealed().to_vec();
    let cleared = current.restart(memtable("m3"), seqno(9));
    let out = [added(0, 5, &table(1, "a", "b"))];
    assert_eq!(cleared.install_flush(&flushed, &out).unwrap_err(), InstallRefusal::SealedGone { index: 0 });
    let installed = current.install_flush(&flushed, &out).unwrap();
    assert_eq!(installed.install_flush(&flushed, &out).unwrap_err(), InstallRefusal::SealedGone { index: 0 });
}

/// P12: an edit whose input tables left the version is refused.
#[test]
fn replacement_of_tables_that_left_is_refused() {
    let (old, new) = (table(1, "a", "f"), table(2, "a", "f"));
    let current = Arc::new(first("m1").replace_tables(&[], &[added(0, 5, &old)]).unwrap());
    let replaced = current.replace_tables(&[(Level(0), TableId(1))], &[added(1, 5, &new)]).unwrap();
    assert_eq!(replaced.to_string(), "active m1\nL1 e5: t2[a..f]\n");
    let refusal = VersionRefusal { level: Level(0), table: TableId(1) };
    assert_eq!(replaced.replace_tables(&[(Level(0), TableId(1))], &[]).unwrap_err(), refusal);
    let cleared = current.restart(memtable("m2"), seqno(4));
    assert_eq!(cleared.replace_tables(&[(Level(0), TableId(1))], &[]).unwrap_err(), refusal);
}

/// P12: reads below a clear follow the link, reads at or above it do not.
#[test]
fn reads_below_a_clear_follow_the_link() {
    let before = Arc::new(first("m1").replace_tables(&[], &[added(0, 5, &table(1, "a", "f"))]).unwrap());
    let between = Arc::new(before.restart(memtable("m2"), seqno(10)));
    let after = between.restart(memtable("m3"), seqno(20));
    let name = |at: u64| after.for_seqno(seqno(at)).unwrap().active().0.clone();
    assert_eq!([name(0), name(9)], ["m1", "m1"]);
    assert_eq!([name(10), name(19)], ["m2", "m2"]);
    assert_eq!([name(20), name(99)], ["m3", "m3"]);
    assert!(after.version().is_empty() && after.sealed().is_empty());
    // Later changes keep the link.
    let sealed = after.seal(memtable("m4"));
    assert_eq!(sealed.for_seqno(seqno(3)).unwrap().version().to_string(), "L0 e5: t1[a..f]\n");
}

/// P1: a clear cannot start at or before the one it follows.
#[test]
#[should_panic(expected = "P1: a restart at #10 cannot follow one at #10")]
fn restart_must_be_later_than_the_last() {
    let cleared = Arc::new(first("m1").restart(memtable("m2"), seqno(10)));
    let _ = cleared.restart(memtable("m3"), seqno(10));
}

/// A chain of four that starts at 0, 10, 20 and 30, with memtables m0, m10, m20 and m30.
fn chain() -> Arc<SuperVersion<support::Named, ()>> {
    let mut current = first("m0");
    for at in [10, 20, 30] {
        current = Arc::new(current.restart(memtable(&format!("m{at}")), seqno(at)));
    }
    current
}

fn readable(current: &SuperVersion<support::Named, ()>) -> Vec<String> {
    [5, 15, 25, 35]
        .iter()
        .map(|&at| current.for_seqno(seqno(at)).map_or("-".to_string(), |version| version.active().0.clone()))
        .collect()
}

/// R4: a predecessor is kept while a registered seqno or one at or above the floor reads through it, and no longer.
#[test]
fn predecessor_is_kept_while_it_can_be_read() {
    let current = chain();
    let after = |floor: u64, registered: &[u64]| {
        let registered: Vec<_> = registered.iter().copied().map(seqno).collect();
        current.without_unneeded_predecessors(seqno(floor), &registered)
    };
    assert!(after(0, &[]).is_none(), "everything above the floor stays");
    assert!(after(9, &[]).is_none());
    assert_eq!(readable(&after(10, &[]).unwrap()), ["-", "m10", "m20", "m30"]);
    assert_eq!(readable(&after(29, &[]).unwrap()), ["-", "-", "m20", "m30"]);
    assert_eq!(readable(&after(30, &[]).unwrap()), ["-", "-", "-", "m30"]);
    assert!(after(30, &[]).unwrap().predecessor().is_none());
    // What lies between two kept ones answers with the older: nobody may ask for it any more.
    assert_eq!(readable(&after(30, &[9]).unwrap()), ["m0", "m0", "m0", "m30"]);
    assert_eq!(readable(&after(30, &[10, 12]).unwrap()), ["-", "m10", "m10", "m30"]);
    assert_eq!(readable(&after(30, &[29]).unwrap()), ["-", "-", "m20", "m30"]);
    assert!(after(30, &[0, 19, 20]).is_none(), "each is registered");
}

/// R4: the history answers for any seqno that can still be read, and forgets the others.
#[test]
fn history_forgets_what_nobody_can_read() {
    let retired = Arc::new(Retired::new());
    let history = History::new(SuperVersion::clone(&chain()), Arc::clone(&retired));
    assert_eq!(history.version_for_snapshot(seqno(12)).unwrap().active().0, "m10");
    assert!(!history.forget_predecessors(seqno(4), &[]));
    assert!(history.forget_predecessors(seqno(40), &[seqno(12)]));
    assert_eq!(history.version_for_snapshot(seqno(12)).unwrap().active().0, "m10");
    assert!(history.version_for_snapshot(seqno(5)).is_none());
    assert_eq!(history.version_for_snapshot(seqno(44)).unwrap().active().0, "m30");
}

/// R4: dropping a long chain of predecessors needs no deep stack.
#[test]
fn long_chains_of_predecessors_are_dropped_flat() {
    let mut current = first("m0");
    let active = memtable("m");
    for at in 1..200_000 {
        current = Arc::new(current.restart(Arc::clone(&active), seqno(at)));
    }
    drop(current);
    assert_eq!(Arc::strong_count(&active), 1);
}

/// R4: a reader that lets go of a replaced super version frees nothing; the worker that collects does.
#[test]
fn replaced_super_version_is_freed_by_the_collector() {
    let retired = Arc::new(Retired::new());
    let old = memtable("m1");
    let watched = Arc::downgrade(&old);
    let history = History::new(SuperVersion::<_, ()>::new(old, Arc::default()), Arc::clone(&retired));
    let guard = history.current();
    let shared = history.current_full();
    // A clear without history: the memtable leaves with the super version.
    let replace = |current: &Arc<SuperVersion<_, _>>| {
        let next = Arc::new(current.restart(memtable("m2"), seqno(5)));
        next.without_unneeded_predecessors(seqno(5), &[]).ok_or(())
    };
    history.install(replace).unwrap();
    assert_eq!((retired.collect(), retired.len()), (0, 1), "two readers hold it");
    drop(guard);
    assert_eq!(retired.collect(), 0);
    drop(shared);
    assert!(watched.upgrade().is_some(), "the last reader freed nothing");
    assert_eq!(retired.collect(), 1);
    assert!(watched.upgrade().is_none() && retired.is_empty());
}

/// R2: a refused change leaves the current super version in place and retires nothing.
#[test]
fn refused_install_changes_nothing() {
    let retired = Arc::new(Retired::new());
    let history = History::new(SuperVersion::<_, ()>::new(memtable("m1"), Arc::default()), Arc::clone(&retired));
    let before = history.current_full();
    let refused = history.install(|current| current.install_flush(&[Sealed::Memtable(memtable("other"))], &[]));
    assert_eq!(refused.unwrap_err(), InstallRefusal::SealedGone { index: 0 });
    assert!(Arc::ptr_eq(&before, &history.current_full()) && retired.is_empty());
}
