//! A keyspace is written, cleared and written again while a snapshot looks at what was there before.

use std::sync::Arc;

use internal_key::SeqNo;
use version_history::{Frontier, History, Retired, SnapshotRegistry, SuperVersion};

fn main() {
    let seqno = |number| SeqNo::new(number).expect("a small number");
    let visible = Frontier::new(SeqNo::ZERO);
    let registry = Arc::new(SnapshotRegistry::default());
    let retired = Arc::new(Retired::new());
    let history = History::new(
        SuperVersion::<_, ()>::new(Arc::new("memtable of the first ten writes"), Arc::default()),
        Arc::clone(&retired),
    );

    visible.raise(seqno(10));
    let snapshot = registry.register(&visible);

    let cleared = |current: &Arc<SuperVersion<&'static str, ()>>| {
        Ok::<_, std::convert::Infallible>(current.restart(Arc::new("memtable after the clear"), seqno(11)))
    };
    let Ok(_) = history.install(cleared);
    visible.raise(seqno(11));

    let shows = |at: SeqNo| history.version_for_snapshot(at).map_or("nothing any more", |view| **view.active());
    println!("the snapshot at {} reads the {}", snapshot.seqno(), shows(snapshot.seqno()));
    println!("a read at {} reads the {}", visible.load(), shows(visible.load()));

    let released = snapshot.seqno();
    drop(snapshot);
    let (floor, registered) = registry.floor_and_registered(&visible, SeqNo::MAX);
    history.forget_predecessors(floor, &registered);
    println!("after its release, with the floor at {floor}, a read at {released} would find {}", shows(released));
    println!("the worker freed {} super versions", retired.collect() + retired.collect());
}
