//! One crash: what recovery may find, and what it must leave.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use file_system::{Crash, FileSystem, SimulatedFileSystem, Simulation};
use internal_key::{KeyspaceId, SegmentId};
use lsm_facade::{Database, Error, Iter};
use manifest::{ManifestOptions, ManifestStore, OpenMode};
use test_support::Rng;

use crate::run::{Allowed, DIR, NAMES, Row, Run};

/// What a database holds, by the names of its keyspaces.
pub(crate) type State = BTreeMap<String, Vec<Row>>;

impl Run {
    /// Crashes before event `event` or `during` it, recovers, crashes the recovery, and goes on.
    pub(crate) fn check_crash(&self, event: u64, crash: Crash, during: bool, rng: &mut Rng) {
        let files = &self.simulation.files;
        let seed = rng.next_u64();
        let image = if during {
            files.crash_image_during(event, crash, seed)
        } else {
            files.crash_image_at(event, crash, seed)
        };
        let allowed = self.allowed(event, crash, during);
        let simulation = Simulation::with_files(image, rng.next_u64());
        let database = self.open(&simulation, "recovery");
        let found = state_of(&database);
        let (from, to) = (allowed[allowed.len() - 1].0, allowed[0].0);
        assert!(
            allowed.iter().any(|(_, state)| is_state(&found, state)),
            "no prefix from {from} to {to} gives the state found; beside the last: {}",
            differences(&owned(&allowed[0].1), &found)
        );
        // Randomness of its own, so that the seeds of before stand for the crashes of before.
        let mut own = Rng::new(!seed);
        let pasts = self.pasts(database.visible_seqno(), 3, &mut own);
        check_pasts(&database, &pasts, "after recovery");

        // L4: what a killed process had not synced may still be lost, from its end.
        let cut = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, own.next_u64()), own.next_u64());
        let state = state_of(&self.open(&cut, "recovery, cut at once"));
        self.check_prefix(&state, &found, event, crash, during, "after recovery and a power cut at once");

        // M2, L4: but not once it was asked to be durable; which nobody does half the time.
        let (image, again) = (rng.next_u64(), rng.next_u64());
        if own.one_in(2) {
            database.persist().unwrap();
            let cut = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, image), again);
            let database = self.open(&cut, "recovery, cut");
            assert_same(&state_of(&database), &found, "after recovery and a power cut");
            check_pasts(&database, &pasts, "after recovery and a power cut");
        }
        let recovery = simulation.files.event_count();

        // And recovery may be interrupted anywhere.
        for second in [Crash::Kill, Crash::PowerCut] {
            let (at, seed) = (rng.below(recovery + 1), rng.next_u64());
            let what = format!("recovery, {second:?} at its event {at} of {recovery}");
            let image = if at < recovery && rng.one_in(2) {
                simulation.files.crash_image_during(at, second, seed)
            } else {
                simulation.files.crash_image_at(at, second, seed)
            };
            let state = state_of(&self.open_image(image, rng, &what).1);
            // The power may take what the killed process had not synced and recovery neither.
            match second {
                Crash::PowerCut => self.check_prefix(&state, &found, event, crash, during, &what),
                _ => assert_same(&state, &found, &what),
            }
        }
        self.go_on(database, &simulation, found, &pasts, rng);
    }

    /// After a crash and then a power cut: what the first crash left, but for what a kill had left unsynced.
    fn check_prefix(&self, state: &State, found: &State, event: u64, crash: Crash, during: bool, what: &str) {
        if crash != Crash::Kill {
            return assert_same(state, found, what);
        }
        let allowed = self.allowed(event, Crash::PowerCut, during);
        assert!(
            allowed.iter().any(|(_, allowed)| is_state(state, allowed)),
            "{what}: no prefix gives the state found: {}",
            differences(found, state)
        );
    }

    fn open(&self, simulation: &Simulation, what: &str) -> Database {
        self.config.builder(simulation).open().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn open_image(&self, image: Arc<SimulatedFileSystem>, rng: &mut Rng, what: &str) -> (Simulation, Database) {
        let simulation = Simulation::with_files(image, rng.next_u64());
        let database = self.open(&simulation, what);
        (simulation, database)
    }

    /// The recovered database takes writes, flushes, compacts and reopens. A snapshot of what was recovered stays as it
    /// was. No file is left that nothing names: neither by the recovery, nor by what came after it.
    fn go_on(&self, database: Database, simulation: &Simulation, recovered: State, pasts: &[Past<'_>], rng: &mut Rng) {
        let snapshot = database.snapshot().unwrap();
        let mut expected = recovered.clone();
        for name in NAMES {
            let keyspace = database.keyspace(name).unwrap();
            let rows = expected.entry(name.to_owned()).or_default();
            let mut map: BTreeMap<Vec<u8>, Vec<u8>> = std::mem::take(rows).into_iter().collect();
            for _ in 0..rng.below(4) {
                let (key, value) = (self.keys.key(rng), self.values.value(rng));
                keyspace.insert(&key, &value).unwrap();
                map.insert(key, value);
            }
            *rows = map.into_iter().collect();
        }
        match rng.below(3) {
            0 => database.flush().unwrap(),
            1 => database.keyspace(NAMES[rng.index(2)]).unwrap().compact().unwrap(),
            _ => {}
        }
        assert_same(&state_of(&database), &expected, "going on after recovery");
        check_pasts(&database, pasts, "going on after recovery");
        for (name, rows) in &recovered {
            let seen = rows_of(snapshot.iter(&database.open_keyspace(name).unwrap()));
            assert!(seen == *rows, "the snapshot of what was recovered holds {} rows of {name}", seen.len());
        }
        drop(snapshot);
        check_pasts(&database, pasts, "after a snapshot has gone");
        // Half the time before another opening could remove what is left.
        let reopens_first = rng.one_in(2);
        let database = if reopens_first { self.reopened(database, simulation, &expected) } else { database };
        if rng.one_in(2) {
            database.flush().unwrap();
            while database.run_one_job().unwrap() {}
            check_files(simulation);
            assert_same(&state_of(&database), &expected, "after everything was flushed");
        }
        let database = if reopens_first { database } else { self.reopened(database, simulation, &expected) };
        check_pasts(&database, pasts, "after recovery, going on and closing");
    }

    /// A second recovery finds the same.
    fn reopened(&self, database: Database, simulation: &Simulation, expected: &State) -> Database {
        drop(database);
        let database = self.open(simulation, "after recovery and closing");
        assert_same(&state_of(&database), expected, "after recovery and closing");
        database
    }
}

/// A seqno of the run, and what its keyspaces held when it was visible.
type Past<'a> = (u64, &'a BTreeMap<KeyspaceId, Vec<Row>>);

/// R3: each seqno of the past shows what was visible then, or is refused; what is at or above the oldest that a keyspace
/// says it keeps is not.
fn check_pasts(database: &Database, pasts: &[Past<'_>], what: &str) {
    for stats in database.stats().keyspaces {
        let keyspace = database.open_keyspace(&stats.name).unwrap();
        let Some(oldest) = keyspace.oldest_seqno() else { continue };
        for (seqno, held) in pasts {
            let snapshot = match database.snapshot_at(*seqno) {
                Ok(snapshot) => snapshot,
                Err(Error::HistoryGone { .. }) => {
                    assert!(*seqno < oldest, "{what}: {} keeps {oldest} and refuses {seqno}", stats.name);
                    continue;
                }
                Err(error) => panic!("{what}: {error}"),
            };
            if snapshot.keeps(&keyspace) {
                let expected = held.get(&KeyspaceId(stats.id)).map_or(&[][..], Vec::as_slice);
                let found = rows_of(snapshot.iter(&keyspace));
                assert!(found == expected, "{what}: {} as of {seqno} is not what it was", stats.name);
            } else {
                assert!(*seqno < oldest, "{what}: {} keeps {oldest} and refuses {seqno}", stats.name);
            }
        }
    }
}

fn is_state(found: &State, allowed: &Allowed<'_>) -> bool {
    found.len() == allowed.len()
        && found.iter().all(|(name, rows)| allowed.get(name.as_str()).is_some_and(|allowed| rows == allowed))
}

fn owned(allowed: &Allowed<'_>) -> State {
    allowed.iter().map(|(name, rows)| ((*name).to_owned(), rows.to_vec())).collect()
}

fn rows_of(iter: Iter) -> Vec<Row> {
    iter.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// Everything that is there, by scanning; and each row once more by a get.
pub(crate) fn state_of(database: &Database) -> State {
    let read = |name: String| {
        let keyspace = database.open_keyspace(&name).unwrap();
        let rows = rows_of(keyspace.iter());
        for (key, value) in &rows {
            assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(value.as_slice()), "get {}", key.escape_ascii());
        }
        (name, rows)
    };
    database.list_keyspaces().into_iter().map(read).collect()
}

/// Fails with the differences.
pub(crate) fn assert_same(found: &State, expected: &State, what: &str) {
    assert!(found == expected, "{what}: {}", differences(expected, found));
}

fn differences(expected: &State, found: &State) -> String {
    let flat = |state: &State| -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
        let rows = state.iter().flat_map(|(name, rows)| rows.iter().map(move |(k, v)| ((name.clone(), k.clone()), v)));
        rows.map(|(key, value)| (key, value.clone())).collect()
    };
    let names = |state: &State| state.keys().cloned().collect::<Vec<_>>().join(", ");
    let (left, right) = (flat(expected), flat(found));
    let mut out = vec![format!("keyspaces [{}], expected [{}]", names(found), names(expected))];
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for key in keys.into_iter().filter(|key| left.get(*key) != right.get(*key)) {
        let bytes = |value: Option<&Vec<u8>>| value.map(Vec::len);
        let (expected, found) = (bytes(left.get(key)), bytes(right.get(key)));
        out.push(format!("{} {}: {found:?} bytes, expected {expected:?}", key.0, key.1.escape_ascii()));
    }
    out.truncate(12);
    out.join("; ")
}

/// M2, R5: with everything flushed and nothing held, the directories hold what the manifest names, and nothing else.
fn check_files(simulation: &Simulation) {
    let options = ManifestOptions::default();
    let store = ManifestStore::open(&simulation.environment(), DIR, OpenMode::ReadOnly, options).unwrap();
    let manifest = store.current();
    let names = |dir: &str| -> BTreeSet<String> {
        let entries = simulation.files.read_dir(&Path::new(DIR).join(dir)).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    };
    let named: BTreeSet<String> = manifest
        .keyspaces
        .values()
        .flat_map(|keyspace| keyspace.tables().map(|(_, _, table)| manifest::paths::table_name(table.id)))
        .collect();
    assert_eq!(names("tables"), named, "R5: tables that nothing names, or that are gone");
    assert_eq!(store.leftovers().unwrap(), Vec::<std::path::PathBuf>::new(), "M2: of the manifest");
    let segment = |name: &String| manifest::paths::parse_segment_name(name).unwrap_or_else(|| panic!("M2: log/{name}"));
    let (floor, segments) = (manifest.log_floor.segment, names("log"));
    if floor == SegmentId(0) {
        // M6: nothing was written since it was opened.
        assert!(segments.is_empty(), "L5: {segments:?}, and no log");
        return;
    }
    let before = segments.iter().filter(|name| segment(name) < floor).count();
    assert!(segments.iter().any(|name| segment(name) == floor), "L5: {floor} in {segments:?}");
    // Two at most are kept to be written over.
    assert!(before <= 2, "L5: {segments:?}, the floor is {floor}");
}
