//! Many threads commit at once: one pass serves all that wait, and nobody waits for ever.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{content, create_keyspace, parse_edit, seqno};
use file_system::{Environment, FileSystem, Randomness, Simulation};
use internal_key::{KeyspaceId, TableId};
use manifest::{
    Change, CommitError, Edit, FailureCause, FollowerStore, ManifestError, ManifestOptions, ManifestStore, OpenMode,
    Refusal,
};

/// Edits go to an edit file at once: beginning one asks for a random number, which is where a pass can be held.
const LINES: ManifestOptions = ManifestOptions {
    edit_bytes_free: 0,
    job_bytes_divisor: 1 << 30,
    edit_file_bytes_min: 1 << 16,
    levels_folded_at_once_max: 64,
};

/// Says that it was asked, and answers when it is told to; or panics.
#[derive(Debug)]
struct Gate {
    asked: Mutex<Sender<()>>,
    answer: Mutex<Receiver<bool>>,
    open: AtomicBool,
}

impl Randomness for Gate {
    fn next_u64(&self) -> u64 {
        // Relaxed: set before the threads begin.
        if !self.open.load(Ordering::Relaxed) {
            self.asked.lock().unwrap().send(()).unwrap();
            assert!(self.answer.lock().unwrap().recv().unwrap(), "told to die");
        }
        7
    }
}

struct Gated {
    store: Arc<ManifestStore>,
    asked: Receiver<()>,
    answer: Sender<bool>,
}

/// A store whose first commit stops in the middle of its pass.
fn gated() -> Gated {
    let simulation = Simulation::new(3);
    let (asked_sender, asked) = channel();
    let (answer, answer_receiver) = channel();
    let gate = Arc::new(Gate {
        asked: Mutex::new(asked_sender),
        answer: Mutex::new(answer_receiver),
        open: AtomicBool::new(true),
    });
    let env = Environment { randomness: Arc::<Gate>::clone(&gate), ..simulation.environment() };
    let first = Edit::of(create_keyspace(1, "default"));
    let store = Arc::new(ManifestStore::create(&env, "/db", LINES, &first).unwrap());
    gate.open.store(false, Ordering::Relaxed);
    Gated { store, asked, answer }
}

fn spawn_commit(
    store: &Arc<ManifestStore>,
    edit: Edit,
) -> thread::JoinHandle<Result<Arc<manifest::Manifest>, CommitError>> {
    let store = Arc::clone(store);
    thread::spawn(move || store.commit(edit))
}

fn wait_for_waiting(store: &ManifestStore, count: usize) {
    while store.waiting() < count {
        thread::yield_now();
    }
}

/// M1: all edits that wait are committed in one pass, each applied or refused on its own.
#[test]
fn one_pass_commits_everything_that_waits() {
    let Gated { store, asked, answer } = gated();
    let leader = spawn_commit(&store, parse_edit("last #1"));
    asked.recv().unwrap();
    let followers: Vec<_> = (0..8)
        .map(|number| {
            let edit = parse_edit(&format!("replace 1 + L{}:e1:t{}[a..b #1..#1]", number % 7, number + 1));
            let handle = spawn_commit(&store, edit);
            wait_for_waiting(&store, number + 1);
            handle
        })
        .collect();
    let refused = spawn_commit(&store, Edit::of(Change::DropKeyspace { id: KeyspaceId(9) }));
    wait_for_waiting(&store, 9);
    answer.send(true).unwrap();

    leader.join().unwrap().unwrap();
    for (number, follower) in followers.into_iter().enumerate() {
        let committed = follower.join().unwrap();
        // The eighth table overlaps the first, in the same run.
        if number == 7 {
            assert!(matches!(committed, Err(CommitError::Refused(Refusal::Overlap { table: TableId(8), .. }))));
        } else {
            assert_eq!(committed.unwrap().keyspaces[&KeyspaceId(1)].tables().count(), 7);
        }
    }
    let expected = Refusal::NoSuchKeyspace { id: KeyspaceId(9) };
    assert!(matches!(refused.join().unwrap(), Err(CommitError::Refused(refusal)) if refusal == expected));
    let metrics = store.metrics();
    assert_eq!((metrics.passes, metrics.edits, metrics.refused), (3, 9, 2), "{metrics:?}");
    assert_eq!(metrics.last.syncs, 1, "one line, one sync, for seven edits: {metrics:?}");
}

/// M7: a thread that dies while it commits fails the store and wakes everyone with the cause.
#[test]
fn a_leader_that_dies_wakes_everyone() {
    let Gated { store, asked, answer } = gated();
    let leader = spawn_commit(&store, parse_edit("last #1"));
    asked.recv().unwrap();
    let followers: Vec<_> = (0..4).map(|_| spawn_commit(&store, parse_edit("last #2"))).collect();
    wait_for_waiting(&store, 4);
    answer.send(false).unwrap();
    assert!(leader.join().is_err(), "the panic is the leader's own");
    for follower in followers {
        let Err(CommitError::Failed(cause)) = follower.join().unwrap() else { panic!("the store is failed") };
        assert!(matches!(*cause, FailureCause::Panicked));
    }
    assert!(matches!(store.commit(Edit::default()), Err(CommitError::Failed(_))));
    assert_eq!(store.current().last_seqno, seqno(0), "the value that stood stands");
}

/// M1: whatever the threads do, each committed edit is there, in memory and after reopening.
#[test]
fn nothing_is_lost_between_threads() {
    for options in [ManifestOptions::default(), LINES] {
        let simulation = Simulation::new(3);
        let env = simulation.environment();
        let first = Edit::of(create_keyspace(1, "default"));
        let store = ManifestStore::create(&env, "/db", options, &first).unwrap();
        let working = AtomicUsize::new(4);
        thread::scope(|scope| {
            // Beside them the edit file is folded again and again.
            scope.spawn(|| {
                // Relaxed: one more fold than needed does no harm.
                while working.load(Ordering::Relaxed) > 0 {
                    store.fold().unwrap();
                    thread::yield_now();
                }
            });
            for worker in 0..4_u64 {
                let (store, working) = (&store, &working);
                scope.spawn(move || {
                    for step in 0..25 {
                        let id = 1 + worker * 100 + step;
                        let edit = format!("replace 1 + L{worker}:e{id}:t{id}[a..b #{id}..#{id}]\nlast #{id}");
                        let committed = store.commit(parse_edit(&edit)).unwrap();
                        assert!(committed.keyspaces[&KeyspaceId(1)].tables().any(|(_, _, t)| t.id == TableId(id)));
                        if step % 10 == 9 {
                            store.collect_obsolete().unwrap();
                        }
                    }
                    working.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(store.current().keyspaces[&KeyspaceId(1)].tables().count(), 100);
        let metrics = store.metrics();
        assert_eq!(metrics.edits, 101);
        assert_eq!(metrics.lines > 0, metrics.edit_files > 0, "{metrics:?}");
        store.collect_obsolete().unwrap();
        assert_eq!(store.leftovers().unwrap(), Vec::<std::path::PathBuf>::new());
        let reopened = ManifestStore::open(&env, "/db", OpenMode::ReadOnly, options).unwrap();
        assert_eq!(content(&reopened.current()), content(&store.current()));
    }
}

/// M5: a follower that reloads while the writer commits and removes what it replaced sees whole states, one after the
/// other, and removes nothing.
#[test]
fn a_follower_sees_whole_states_while_the_writer_goes_on() {
    for options in [ManifestOptions::default(), ManifestOptions { edit_file_bytes_min: 2000, ..LINES }] {
        let simulation = Simulation::new(3);
        let env = simulation.environment();
        let first = Edit::of(create_keyspace(1, "default"));
        let store = ManifestStore::create(&env, "/db", options, &first).unwrap();
        let follower = FollowerStore::open(&env, "/db").unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for id in 1..=60 {
                    // Each state holds exactly the table that its last seqno says.
                    let gone = if id > 1 { format!("- L0:t{}", id - 1) } else { String::new() };
                    let edit = format!("replace 1 flushed={id} {gone} + L0:e{id}:t{id}[a..b #{id}..#{id}]");
                    store.commit(parse_edit(&edit)).unwrap();
                    if id % 5 == 0 {
                        store.fold().unwrap();
                    }
                    store.collect_obsolete().unwrap();
                }
                // Release pairs with the Acquire below: who sees it set finds the last state on disk.
                done.store(true, Ordering::Release);
            });
            let mut generation = 0;
            loop {
                let last = done.load(Ordering::Acquire);
                // A writer that goes on all the time may outrun the attempts of one reload, nothing else.
                match follower.reload() {
                    Ok(manifest) => {
                        assert!(manifest.generation >= generation, "M5: a follower never goes back");
                        generation = manifest.generation;
                        let tables: Vec<u64> =
                            manifest.keyspaces[&KeyspaceId(1)].tables().map(|(_, _, table)| table.id.get()).collect();
                        let seqno = manifest.last_seqno.get();
                        assert!(tables == [seqno] || (tables.is_empty() && seqno == 0), "{manifest}");
                    }
                    Err(ManifestError::Missing { .. }) if !last => {}
                    Err(error) => panic!("{error}"),
                }
                if last {
                    break;
                }
            }
        });
        assert_eq!(follower.current().last_seqno, seqno(60));
        let before = simulation.files.event_count();
        follower.reload().unwrap();
        assert_eq!(simulation.files.event_count(), before, "M5: a follower changes nothing");
    }
}

/// M5: what `prepare` refuses is not swapped in.
#[test]
fn a_reload_that_cannot_be_prepared_leaves_the_old_value() {
    let simulation = Simulation::new(3);
    let env = simulation.environment();
    let first = Edit::of(create_keyspace(1, "default"));
    let store = ManifestStore::create(&env, "/db", ManifestOptions::default(), &first).unwrap();
    let follower = FollowerStore::open(&env, "/db").unwrap();
    store.commit(parse_edit("replace 1 flushed=1 + L0:e1:t1[a..b #1..#1]")).unwrap();
    let before = follower.current();
    let refused = follower.reload_with(|manifest| {
        assert_eq!(manifest.last_seqno, seqno(1));
        Err::<(), _>(ManifestError::NotFound { dir: "tables/1.sst".into() })
    });
    assert!(refused.is_err());
    assert!(Arc::ptr_eq(&before, &follower.current()));
    let reloaded = follower.reload().unwrap();
    assert_eq!(reloaded.last_seqno, seqno(1));
    // A level file that has not changed is shared, not read again.
    store.commit(parse_edit("last #5")).unwrap();
    let level = |manifest: &manifest::Manifest| Arc::clone(&manifest.keyspaces[&KeyspaceId(1)].levels[0]);
    let again = follower.reload().unwrap();
    assert!(Arc::ptr_eq(&level(&reloaded), &level(&again)));
    assert!(simulation.files.exists(Path::new("/db/global.json")).unwrap());
}
