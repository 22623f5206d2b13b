//! Files that may go: once nobody holds and no durable manifest names them, exactly once.
#![cfg(not(any(loom, shuttle)))]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use internal_key::TableId;
use support::{KEYSPACE, entry};
use version_history::{DroppedTables, ObsoleteTables, Table};

fn table(obsolete: &Arc<ObsoleteTables>, id: u64) -> Arc<Table<()>> {
    let heard: Arc<dyn DroppedTables> = Arc::clone(obsolete) as _;
    Arc::new(Table::new(KEYSPACE, entry(id, b"a", b"b"), (), Arc::downgrade(&heard)))
}

/// R5: a table is returned once nobody holds it and the manifest does not name it, and then never again.
#[test]
fn dropped_table_is_returned_once_the_manifest_forgets_it() {
    let obsolete = Arc::new(ObsoleteTables::new());
    let (kept, also_kept) = (table(&obsolete, 1), table(&obsolete, 2));
    let second = Arc::clone(&kept);
    let collect = |names: &'static [u64]| obsolete.collect(|| move |_, id: TableId| names.contains(&id.get()));
    drop(kept);
    assert_eq!(collect(&[]), [], "a holder is left");
    drop(second);
    drop(also_kept);
    assert_eq!(collect(&[1, 2]), [], "both are named");
    assert_eq!(obsolete.waiting(), 2);
    assert_eq!(collect(&[2]), [(KEYSPACE, TableId(1))]);
    assert_eq!(collect(&[2]), [], "returned once");
    assert_eq!(collect(&[]), [(KEYSPACE, TableId(2))]);
    assert_eq!(obsolete.waiting(), 0);
}

/// R5: the manifest is asked after the queue was taken: a table dropped while it is loaded waits for the next call.
#[test]
fn table_dropped_while_the_manifest_is_loaded_waits() {
    let obsolete = Arc::new(ObsoleteTables::new());
    drop(table(&obsolete, 1));
    let late = table(&obsolete, 2);
    let collected = obsolete.collect(|| {
        drop(late);
        |_, _| false
    });
    assert_eq!(collected, [(KEYSPACE, TableId(1))]);
    assert_eq!(obsolete.collect(|| |_, _| false), [(KEYSPACE, TableId(2))]);
}

/// M7: once a commit's outcome is unknown nothing is returned, not even what was being collected.
#[test]
fn frozen_queue_returns_nothing() {
    let obsolete = Arc::new(ObsoleteTables::new());
    drop(table(&obsolete, 1));
    let collected = obsolete.collect(|| {
        obsolete.freeze();
        |_, _| false
    });
    assert_eq!(collected, []);
    assert_eq!(obsolete.collect(|| |_, _| false), []);
    assert_eq!(obsolete.waiting(), 1);
}

/// R5: whoever hears of a drop finds the reader closed.
#[test]
fn reader_is_closed_before_its_table_is_reported() {
    #[derive(Debug, Default)]
    struct Reader(Arc<AtomicBool>);
    impl Drop for Reader {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    #[derive(Debug)]
    struct Listener(Arc<AtomicBool>, AtomicBool);
    impl DroppedTables for Listener {
        fn table_dropped(&self, _: internal_key::KeyspaceId, _: TableId) {
            self.1.store(self.0.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    let closed = Arc::new(AtomicBool::new(false));
    let listener = Arc::new(Listener(Arc::clone(&closed), AtomicBool::new(false)));
    let heard: Arc<dyn DroppedTables> = Arc::clone(&listener) as _;
    drop(Table::new(KEYSPACE, entry(1, b"a", b"b"), Reader(closed), Arc::downgrade(&heard)));
    assert!(listener.1.load(Ordering::Relaxed), "R5: the file was open when the drop was reported");
}

/// R5: tables that outlive the queue drop quietly.
#[test]
fn drop_after_the_queue_is_gone_is_quiet() {
    let obsolete = Arc::new(ObsoleteTables::new());
    let late = table(&obsolete, 1);
    drop(obsolete);
    drop(late);
}
