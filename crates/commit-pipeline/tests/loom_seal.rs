//! A model of sealing: real writers of the pipeline, real super versions, and a flush that waits as jobs do.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p commit-pipeline --test loom_seal`
#![cfg(loom)]

mod support;

use std::convert::Infallible;

use commit_pipeline::{Durability, Pipeline, PipelineOptions, Request};
use internal_key::SeqNo;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use support::{FakeLog, Tail, seqno};
use version_history::{History, Retired, Sealed, SuperVersion};

/// Room for one entry. Relaxed cells, so that only the protocols order what is read from them.
#[derive(Default)]
struct Memtable {
    /// The sequence number reserved in it; written under the reservation lock, as a real memtable's.
    reserved: AtomicU64,
    applied: AtomicU64,
}

struct Keyspace {
    pipeline: Pipeline<FakeLog>,
    history: History<Memtable, ()>,
}

impl Keyspace {
    fn commit(&self) -> SeqNo {
        let committed = self.pipeline.commit(
            &Request::new(1, 1, Durability::Buffered),
            |first, _| {
                let mut active = std::sync::Arc::clone(self.history.current().active());
                if active.reserved.load(Ordering::Relaxed) != 0 {
                    // Full: sealed, and its successor published, before anything is reserved in that (P4).
                    active = std::sync::Arc::default();
                    let next = std::sync::Arc::clone(&active);
                    self.history.install(|current| Ok::<_, Infallible>(current.seal(next))).unwrap();
                }
                active.reserved.store(first.get(), Ordering::Relaxed);
                Ok::<_, Infallible>((active, first))
            },
            |(memtable, first)| memtable.applied.store(first.get(), Ordering::Relaxed),
        );
        committed.unwrap()
    }

    /// Whether a reader that comes now finds the entry of this sequence number.
    fn holds(&self, seqno: SeqNo) -> bool {
        let current = self.history.current();
        let is_it = |memtable: &Memtable| memtable.applied.load(Ordering::Relaxed) == seqno.get();
        let is_sealed = |sealed: &Sealed<Memtable, ()>| match sealed {
            Sealed::Memtable(memtable) => is_it(memtable),
            Sealed::Batch(_) => unreachable!("no batches here"),
        };
        is_it(current.active()) || current.sealed().iter().any(is_sealed)
    }

    /// What a flush does: picks what is sealed, waits until it is complete, and reads it.
    fn flush(&self) {
        let current = self.history.current();
        for sealed in current.sealed() {
            let Sealed::Memtable(memtable) = sealed else { unreachable!("no batches here") };
            let last = memtable.reserved.load(Ordering::Relaxed);
            assert_ne!(last, 0, "P4: sealed before its reservation was seen");
            self.pipeline.wait_visible(seqno(last)).unwrap();
            assert_eq!(memtable.applied.load(Ordering::Relaxed), last, "P4: flushed before it was complete");
        }
    }
}

/// P4: whatever is sealed holds all that was reserved in it once `visible` has passed its last sequence number, and a
/// writer finds its entry in the super version that it loads afterwards.
#[test]
fn sealed_memtables_are_complete_when_they_are_flushed() {
    loom::model(|| {
        let first = SuperVersion::new(std::sync::Arc::default(), std::sync::Arc::default());
        let options = PipelineOptions { in_flight_max: 4, cores: 2 };
        let keyspace = Arc::new(Keyspace {
            pipeline: Pipeline::new(FakeLog::new(4), Tail { next: 0 }, SeqNo::ZERO, options),
            history: History::new(first, std::sync::Arc::new(Retired::new())),
        });
        let writers = [(); 2].map(|()| {
            let keyspace = Arc::clone(&keyspace);
            thread::spawn(move || {
                let mine = keyspace.commit();
                assert!(keyspace.holds(mine), "P3: a writer does not find its own write {mine}");
            })
        });
        keyspace.flush();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert_eq!(keyspace.history.current().sealed().len(), 1);
        keyspace.flush();
    });
}
