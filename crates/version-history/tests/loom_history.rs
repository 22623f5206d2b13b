//! Models of reading: the swap of super versions, registration against the floor, the last holder.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p version-history --test loom_history`
#![cfg(loom)]

mod support;

use std::sync::Arc;

use internal_key::{Level, SeqNo, TableId};
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use support::{KEYSPACE, added, entry, seqno};
use version_history::{
    DroppedTables, Frontier, History, InstallRefusal, KeptForSnapshots, ObsoleteTables, Retired, SnapshotRegistry,
    SuperVersion, Table,
};

/// R3: whatever is registered is named by each floor computed later, or lies at or above it; so a seqno that a floor has
/// passed unnamed is never registered.
#[test]
fn registration_and_floor_agree_on_what_stays() {
    loom::model(|| {
        let registry = Arc::new(SnapshotRegistry::default());
        let visible = Arc::new(Frontier::new(seqno(1)));
        let reader = thread::spawn({
            let (registry, visible) = (Arc::clone(&registry), Arc::clone(&visible));
            move || registry.register(&visible)
        });
        visible.raise(seqno(2));
        let (floor, registered) = registry.floor_and_registered(&visible, SeqNo::MAX);
        let snapshot = reader.join().unwrap();
        assert!(
            snapshot.seqno() >= floor || registered.contains(&snapshot.seqno()),
            "R3: {snapshot:?} is below the floor {floor} and was not named in {registered:?}"
        );
    });
}

/// R3: a seqno of the past that is registered for a keyspace is one that each floor computed later names, or that lies at
/// or above it: whoever collects history beside the registration keeps what it needs, or has refused it.
#[test]
fn registration_of_the_past_and_a_floor_of_history_agree() {
    loom::model(|| {
        let registry = Arc::new(SnapshotRegistry::default());
        registry.keep_history(KEYSPACE, seqno(1));
        let visible = Arc::new(Frontier::new(seqno(4)));
        let reader = thread::spawn({
            let (registry, visible) = (Arc::clone(&registry), Arc::clone(&visible));
            move || registry.register_at(&visible, seqno(2))
        });
        let (floor, registered) = registry.floor_and_registered_of(KEYSPACE, &visible, seqno(3));
        let at = reader.join().unwrap();
        let is_kept = at.as_ref().is_ok_and(|snapshot| snapshot.keeps(KEYSPACE));
        assert!(
            !is_kept || floor <= seqno(2) || registered.contains(&seqno(2)),
            "R3: registered below the floor {floor} and not named in {registered:?}"
        );
    });
}

/// C2: a look beside the drop of a snapshot finds its seqno gone, or the drop finds what the look has noted: what the
/// snapshot kept is looked at once more.
#[test]
fn look_finds_a_snapshot_gone_or_its_drop_finds_the_note() {
    loom::model(|| {
        let registry = Arc::new(SnapshotRegistry::default());
        let kept = Arc::new(KeptForSnapshots::default());
        let visible = Frontier::new(seqno(1));
        let snapshot = registry.register(&visible);
        visible.raise(seqno(2));
        let reader = thread::spawn({
            let kept = Arc::clone(&kept);
            move || {
                drop(snapshot);
                kept.take_above(seqno(1))
            }
        });
        let take = || registry.floor_and_registered_of(KEYSPACE, &visible, SeqNo::MAX);
        let (_, registered) = kept.look(KEYSPACE, seqno(2), take);
        let looked_at = reader.join().unwrap();
        assert!(
            registered.is_empty() || looked_at == [KEYSPACE],
            "C2: {registered:?} kept something, and nobody looks at it again"
        );
        // A note that the drop came too early for is the next drop's.
        let left = kept.take_above(seqno(1));
        assert_eq!([looked_at, left].concat(), [KEYSPACE], "C2: each note is taken once");
    });
}

/// A memtable with one relaxed cell, so that only the protocol orders what is read from it.
struct Cell(AtomicU64);

/// R1, P4: a reader that loads the super version first and `visible` after finds everything at or below `visible` that the
/// super version is to hold, whole; and one that meets the table of a flush meets a `visible` that the flush waited for.
#[test]
fn reader_finds_what_its_super_version_holds() {
    loom::model(|| {
        let cell = || Arc::new(Cell(AtomicU64::new(0)));
        let (m1, m2) = (cell(), cell());
        let history = Arc::new(History::new(
            SuperVersion::<Cell, ()>::new(Arc::clone(&m1), Arc::default()),
            Arc::new(Retired::new()),
        ));
        let visible = Arc::new(Frontier::new(SeqNo::ZERO));
        let writer = thread::spawn({
            let (history, visible) = (Arc::clone(&history), Arc::clone(&visible));
            move || {
                m1.0.store(1, Ordering::Relaxed);
                visible.raise(seqno(1));
                // Seal, write to the new memtable, and install the flush of the old one, which `visible` has passed.
                let sealed = history.install(|current| Ok::<_, ()>(current.seal(Arc::clone(&m2)))).unwrap();
                m2.0.store(2, Ordering::Relaxed);
                visible.raise(seqno(2));
                let out = [added(0, 1, &support::table(1, "a", "z"))];
                history.install(|current| current.install_flush(sealed.sealed(), &out)).unwrap();
            }
        });
        let view = history.current();
        let at = visible.load().get();
        let active = view.active().0.load(Ordering::Relaxed);
        match (view.sealed().len(), view.version().is_empty()) {
            // Before the seal.
            (0, true) => assert!(at < 1 || active == 1, "R1: visible {at}, found {active}"),
            // Between: the seal came after seqno 1 was visible.
            (1, true) => assert!(at >= 1 && (at < 2 || active == 2), "R1: visible {at}, found {active}"),
            // After the flush.
            (0, false) => assert!(at >= 2 && active == 2, "P4: visible {at}, found {active}"),
            other => panic!("R2: no super version looks like {other:?}"),
        }
        drop(view);
        writer.join().unwrap();
    });
}

/// Whether a reader is open: set back when it is dropped.
struct Reader(Arc<AtomicU64>);

impl Drop for Reader {
    fn drop(&mut self) {
        // Relaxed: the model asks whoever holds the reader, and that is ordered by the count of holders.
        self.0.store(0, Ordering::Relaxed);
    }
}

/// R4, R5: with a reader, an edit and two collectors a replaced table is closed and returned exactly once, never while the
/// reader holds it, and never by the reader.
#[test]
fn last_holder_is_a_collector_and_deletes_once() {
    loom::model(|| {
        let open = Arc::new(AtomicU64::new(1));
        let obsolete = Arc::new(ObsoleteTables::new());
        let retired = Arc::new(Retired::new());
        let heard: Arc<dyn DroppedTables> = Arc::clone(&obsolete) as _;
        let slot = Reader(Arc::clone(&open));
        let table = Arc::new(Table::new(KEYSPACE, entry(1, b"a", b"z"), slot, Arc::downgrade(&heard)));
        let first = SuperVersion::<(), Reader>::new(Arc::new(()), Arc::default());
        let first = first.replace_tables(&[], &[added(0, 1, &table)]).unwrap();
        drop(table);
        let history = Arc::new(History::new(first, Arc::clone(&retired)));
        let collect = |retired: &Retired<_>, obsolete: &ObsoleteTables| {
            retired.collect();
            // The edit is durable before its super version is published.
            obsolete.collect(|| |_, _| false).len()
        };
        let reader = thread::spawn({
            let (history, open) = (Arc::clone(&history), Arc::clone(&open));
            move || {
                let view = history.current();
                if !view.version().is_empty() {
                    assert_eq!(open.load(Ordering::Relaxed), 1, "R5: closed under a reader");
                }
            }
        });
        let editor = thread::spawn({
            let (history, retired, obsolete) = (Arc::clone(&history), Arc::clone(&retired), Arc::clone(&obsolete));
            move || {
                let gone = [(Level(0), TableId(1))];
                history.install(|current| current.replace_tables(&gone, &[])).unwrap();
                collect(&retired, &obsolete)
            }
        });
        let mine = collect(&retired, &obsolete);
        let theirs = editor.join().unwrap();
        reader.join().unwrap();
        let late = collect(&retired, &obsolete);
        assert_eq!(mine + theirs + late, 1, "R5: exactly once");
        assert_eq!((open.load(Ordering::Relaxed), obsolete.waiting(), retired.len()), (0, 0, 0));
    });
}

/// P6, R2: two flushes that are built at once install in seal order, whoever comes first, beside a seal; at every moment a
/// reader finds each generation in exactly one place, and newer ones before older ones.
#[test]
fn flushes_install_in_seal_order() {
    loom::model(|| {
        let cell = |generation| Arc::new(Cell(AtomicU64::new(generation)));
        let history =
            Arc::new(History::new(SuperVersion::<Cell, ()>::new(cell(1), Arc::default()), Arc::new(Retired::new())));
        for generation in 2..=3 {
            history.install(|current| Ok::<_, ()>(current.seal(cell(generation)))).unwrap();
        }
        // Newest first: generation 2, then 1.
        let sealed = history.current().sealed().to_vec();
        let flush = |history: &History<Cell, ()>, part: &version_history::Sealed<Cell, ()>, generation: u64| {
            // A run's epoch is what stands in it.
            let out = [added(0, generation, &support::table(generation, "a", "z"))];
            history.install(|current| current.install_flush(std::slice::from_ref(part), &out)).map(|_| ())
        };
        let check = |history: &History<Cell, ()>| {
            let view = history.current();
            let in_memory = view.sealed().iter().map(|sealed| match sealed {
                version_history::Sealed::Memtable(memtable) => memtable.0.load(Ordering::Relaxed),
                version_history::Sealed::Batch(_) => unreachable!("no batches here"),
            });
            let in_tables = view.version().runs(Level(0)).iter().map(|run| run.epoch.0);
            let active = view.active().0.load(Ordering::Relaxed);
            let found: Vec<u64> = [active].into_iter().chain(in_memory).chain(in_tables).collect();
            assert_eq!(found, (1..=active).rev().collect::<Vec<_>>(), "P6: each generation once, newest first");
        };
        let newer = thread::spawn({
            let (history, part) = (Arc::clone(&history), sealed[0].clone());
            move || flush(&history, &part, 2)
        });
        let sealing = thread::spawn({
            let history = Arc::clone(&history);
            move || {
                history.install(|current| Ok::<_, ()>(current.seal(cell(4)))).map(|_| ()).unwrap();
                check(&history);
            }
        });
        flush(&history, &sealed[1], 1).unwrap();
        check(&history);
        sealing.join().unwrap();
        match newer.join().unwrap() {
            Ok(()) => {}
            // It came before the older one, and comes again after it.
            Err(InstallRefusal::OutOfOrder { older: 1 }) => flush(&history, &sealed[0], 2).unwrap(),
            Err(other) => panic!("P6: {other:?}"),
        }
        assert_eq!(history.current().version().runs(Level(0)).len(), 2);
    });
}
