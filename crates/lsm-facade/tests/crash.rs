//! A crash at every event of a run: what recovery finds is the model's state after some prefix of commits, nothing lies
//! about unnamed, and the database goes on.
//!
//! ```text
//!   run      ──[event]──[event]──▶ … ──▶        two keyspaces, zero threads: a seed repeats it event by event
//!                 │ crash_image_at / crash_image_during, killed or power cut
//!                 ▼
//!   recover  ──[event]──▶ open                  prefix that holds every acknowledged (killed) or synced (power cut) commit
//!                 │ crash again, at an event of recovery or behind it
//!                 ▼
//!   recover  ──▶ the same state ──▶ writes, flushes, compacts, reopens
//! ```
//!
//! `CRASH_SEEDS` and `CRASH_FIRST_SEED` say how much is run, `CRASH_EVENT` names the one event that is tried. A failure
//! prints the seed, the event, and how to repeat it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, LogFileWay, SimulatedFileSystem, Simulation};
use internal_key::{KeyspaceId, SeqNo};
use lsm_facade::{
    Access, Compression, Database, DatabaseBuilder, Durability, Error, Keyspace, KeyspaceOptions, Snapshot, Strategy,
};
use manifest::{ManifestOptions, ManifestStore, OpenMode};
use test_support::{KeyGenerator, ReferenceModel, Rng, ValueGenerator};

const NAMES: [&str; 2] = ["left", "right"];
const DIR: &str = "/db";

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}

/// M1, M2, P5, P6, P7, L3, L4: a crash at any event of a short run loses nothing acknowledged and halves no batch.
#[test]
fn a_crash_at_any_event_of_a_short_run_leaves_a_prefix() {
    crash_runs(number("CRASH_SEEDS", 1), 40, None);
}

/// M1, M2, P5, P6, P7, L3, L4: the same at random events of longer runs, in which compactions reach deeper levels.
#[test]
fn a_crash_at_some_events_of_a_longer_run_leaves_a_prefix() {
    crash_runs(number("CRASH_SEEDS", 2), 400, Some(60));
}

/// Runs each seed once and crashes it at all events, or at `sample` of them.
fn crash_runs(seeds: u64, steps: u64, sample: Option<u64>) {
    let first = number("CRASH_FIRST_SEED", 0);
    let only = std::env::var("CRASH_EVENT").ok().map(|text| text.parse().expect("CRASH_EVENT is a number"));
    let mut points = 0;
    for seed in first..first + seeds {
        let mut run = Run::new(seed);
        run.run(steps);
        let count = run.simulation.files.event_count();
        let mut rng = Rng::new(!seed);
        let events: BTreeSet<u64> = match (only, sample) {
            (Some(event), _) => [event].into(),
            (None, None) => (0..=count).collect(),
            (None, Some(sample)) => (0..sample).map(|_| rng.below(count + 1)).collect(),
        };
        for event in events {
            // Every event decides its own crashes, so that one alone repeats.
            let mut rng = Rng::new(seed ^ (event << 20));
            for crash in [Crash::Kill, Crash::PowerCut] {
                let during = event < count && rng.one_in(2);
                let _told = Told { seed, event, crash, during };
                run.check_crash(event, crash, during, &mut rng);
                points += 1;
            }
        }
        run.end();
    }
    println!("crash: {seeds} seeds of {steps} steps, {points} crash points");
}

/// Says what was tried if the test panics meanwhile.
struct Told {
    seed: u64,
    event: u64,
    crash: Crash,
    during: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, event, crash, during } = self;
            let when = if *during { "during" } else { "before" };
            eprintln!("seed {seed}: {crash:?} {when} event {event}");
            eprintln!(
                "this repeats with CRASH_SEEDS=1 CRASH_FIRST_SEED={seed} CRASH_EVENT={event}, the same test alone"
            );
        }
    }
}

struct Config {
    access: Access,
    log_way: LogFileWay,
    log_segment_bytes: u64,
    log_bytes_max: u64,
    large_batch_bytes: u64,
    edit_file_bytes: Option<u64>,
}

impl Config {
    fn random(rng: &mut Rng) -> Self {
        let log_segment_bytes = *rng.pick(&[16 << 10, 16 << 10, 64 << 10]);
        Self {
            access: *rng.pick(&[Access::Mapped, Access::Pread]),
            log_way: *rng.pick(&[LogFileWay::Mapped, LogFileWay::Written]),
            log_segment_bytes,
            log_bytes_max: log_segment_bytes * rng.within(2..5),
            large_batch_bytes: rng.within(200..log_segment_bytes / 4),
            edit_file_bytes: if rng.one_in(2) { Some(*rng.pick(&[0, 512, 4096])) } else { None },
        }
    }

    fn builder(&self, simulation: &Simulation) -> DatabaseBuilder {
        let builder = Database::builder(DIR)
            .environment(simulation.environment())
            .background_threads(0)
            .block_cache_bytes(4 << 10)
            .access(self.access)
            .log_way(self.log_way)
            .log_segment_bytes(self.log_segment_bytes)
            .log_bytes_max(self.log_bytes_max)
            .large_batch_bytes(self.large_batch_bytes);
        match self.edit_file_bytes {
            Some(bytes) => builder.edit_file_bytes(bytes),
            None => builder,
        }
    }
}

fn keyspace_options(rng: &mut Rng) -> KeyspaceOptions {
    let memtable = rng.within(1 << 10..4 << 10);
    KeyspaceOptions::default()
        .memtable_bytes(memtable)
        .write_buffer_bytes(memtable * rng.within(1..4))
        .block_bytes(512)
        .table_bytes(*rng.pick(&[4 << 10, 16 << 10]))
        .compression(*rng.pick(&[Compression::None, Compression::Lz4]))
        .strategy(*rng.pick(&[Strategy::Leveled, Strategy::Leveled, Strategy::Tiered]))
        .level_zero_runs_max(*rng.pick(&[2, 4]))
        .level_base_bytes(4 << 10)
        .level_size_ratio(2)
}

type Row = (Vec<u8>, Vec<u8>);
/// What a database holds, by the names of its keyspaces.
type State = BTreeMap<String, Vec<Row>>;

/// One tick of the model's clock.
struct Tick {
    at: SeqNo,
    /// Events that had happened when it began.
    begun: u64,
    /// Events that had happened when it returned.
    returned: u64,
    /// Whether it and all before it are promised to survive a power cut.
    synced: bool,
}

/// A keyspace's life. Its creation is durable by itself, whatever becomes of the commits before it.
struct Life {
    id: KeyspaceId,
    name: &'static str,
    /// Events that had happened when creating it began, and when that had returned.
    created: (u64, u64),
    /// The tick of its drop.
    dropped: Option<SeqNo>,
}

struct Run {
    rng: Rng,
    config: Config,
    simulation: Simulation,
    database: Option<Database>,
    keyspaces: BTreeMap<&'static str, (Keyspace, KeyspaceId)>,
    lives: Vec<Life>,
    model: ReferenceModel,
    ticks: Vec<Tick>,
    keys: KeyGenerator,
    values: ValueGenerator,
    snapshots: Vec<Snapshot>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        Self {
            config: Config::random(&mut rng),
            simulation: Simulation::new(rng.next_u64()),
            database: None,
            keyspaces: BTreeMap::new(),
            lives: Vec::new(),
            model: ReferenceModel::new(),
            ticks: Vec::new(),
            keys: KeyGenerator::up_to(60, &mut rng),
            values: ValueGenerator::up_to(400),
            snapshots: Vec::new(),
            rng,
        }
    }

    fn db(&self) -> &Database {
        self.database.as_ref().expect("open")
    }

    fn events(&self) -> u64 {
        self.simulation.files.event_count()
    }

    fn now(&self) -> SeqNo {
        self.ticks.last().map_or(SeqNo::ZERO, |tick| tick.at)
    }

    fn next(&self) -> SeqNo {
        self.now().checked_add(1).unwrap()
    }

    fn ticked(&mut self, begun: u64, synced: bool) {
        let tick = Tick { at: self.next(), begun, returned: self.events(), synced };
        self.ticks.push(tick);
    }

    fn run(&mut self, steps: u64) {
        self.database = Some(self.config.builder(&self.simulation).open().unwrap());
        for name in NAMES {
            self.create(name);
        }
        for _ in 0..steps {
            self.step();
        }
        let expected: State =
            self.keyspaces.iter().map(|(name, (_, id))| (name.to_string(), self.rows(*id, self.now()))).collect();
        assert_same(&state_of(self.db()), &expected, "before any crash");
    }

    fn end(mut self) {
        self.snapshots.clear();
        self.keyspaces.clear();
        self.database = None;
    }

    fn rows(&self, id: KeyspaceId, at: SeqNo) -> Vec<Row> {
        self.model.range(id, .., at).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn step(&mut self) {
        match self.rng.weighted(&[240, 60, 120, 30, 30, 50, 20, 10, 10, 20, 10, 12, 12, 12]) {
            0 => self.insert(),
            1 => self.remove(),
            2 => self.batch(12),
            3 => self.batch(120),
            4 => self.some().0.flush().unwrap(),
            5 => drop(self.db().run_one_job().unwrap()),
            6 => self.some().0.compact().unwrap(),
            7 => self.clear(false),
            8 => self.drop_and_create(false),
            9 => self.snapshot(),
            10 => self.reopen(),
            11 => self.persist(),
            12 => self.clear(true),
            _ => self.drop_and_create(true),
        }
    }

    fn some(&mut self) -> (Keyspace, KeyspaceId) {
        let name = *self.rng.pick(&NAMES);
        let (keyspace, id) = &self.keyspaces[name];
        (keyspace.clone(), *id)
    }

    fn create(&mut self, name: &'static str) {
        let options = keyspace_options(&mut self.rng);
        let begun = self.events();
        let keyspace = self.db().create_keyspace(name, options).unwrap();
        let id = KeyspaceId(self.lives.len() as u32 + 1);
        self.model.create_keyspace(id, self.next());
        self.ticked(begun, false);
        self.lives.push(Life { id, name, created: (begun, self.events()), dropped: None });
        self.keyspaces.insert(name, (keyspace, id));
    }

    fn durability(&mut self) -> Durability {
        if self.rng.one_in(6) { Durability::Synced } else { Durability::Buffered }
    }

    fn insert(&mut self) {
        let (keyspace, id) = self.some();
        let (key, value) = (self.keys.key(&mut self.rng), self.values.value(&mut self.rng));
        let durability = self.durability();
        let begun = self.events();
        keyspace.with_durability(durability).insert(&key, &value).unwrap();
        self.model.put(id, &key, &value, self.next());
        self.ticked(begun, durability == Durability::Synced);
    }

    fn remove(&mut self) {
        let (keyspace, id) = self.some();
        let key = self.keys.key(&mut self.rng);
        let durability = self.durability();
        let begun = self.events();
        keyspace.with_durability(durability).remove(&key).unwrap();
        self.model.delete(id, &key, self.next());
        self.ticked(begun, durability == Durability::Synced);
    }

    /// A batch across both keyspaces; with many entries mostly one that is too large for the log (P11).
    fn batch(&mut self, entries_max: u64) {
        let mut batch = self.db().batch();
        let durability = self.durability();
        batch.set_durability(durability);
        let mut last: BTreeMap<(KeyspaceId, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..self.rng.within(1..entries_max) {
            let (keyspace, id) = self.some();
            let key = self.keys.key(&mut self.rng);
            if self.rng.one_in(4) {
                batch.remove(&keyspace, &key).unwrap();
                last.insert((id, key), None);
            } else {
                let value = self.values.value(&mut self.rng);
                batch.insert(&keyspace, &key, &value).unwrap();
                last.insert((id, key), Some(value));
            }
        }
        let begun = self.events();
        self.db().write(&batch).unwrap();
        let at = self.next();
        for ((id, key), value) in last {
            match value {
                Some(value) => self.model.put(id, &key, &value, at),
                None => self.model.delete(id, &key, at),
            }
        }
        self.ticked(begun, durability == Durability::Synced);
    }

    /// Makes manifest edits fail with certainty until the faults are cleared (P8). What is appended to an edit file goes
    /// on: from there a failure is uncertain (M7).
    fn no_space_for_edits(&self) {
        let fault = Fault::on(FileOperation::Create).path_contains("/db/.tmp").effect(FaultEffect::NoSpace);
        self.simulation.files.inject(fault);
    }

    fn clear(&mut self, disk_is_full: bool) {
        let (keyspace, id) = self.some();
        let begun = self.events();
        if disk_is_full {
            self.no_space_for_edits();
        }
        let cleared = keyspace.clear();
        assert!(cleared.is_ok(), "{cleared:?}");
        self.simulation.files.clear_faults();
        self.model.clear(id, self.next());
        self.ticked(begun, true);
    }

    fn drop_and_create(&mut self, disk_is_full: bool) {
        let name = *self.rng.pick(&NAMES);
        let begun = self.events();
        if disk_is_full {
            self.no_space_for_edits();
        }
        let dropped = self.db().drop_keyspace(name);
        assert!(dropped.is_ok(), "{dropped:?}");
        self.simulation.files.clear_faults();
        let (_, id) = self.keyspaces.remove(name).expect("it lives");
        let at = self.next();
        self.model.drop_keyspace(id, at);
        self.ticked(begun, true);
        self.lives[id.get() as usize - 1].dropped = Some(at);
        // What the other does meanwhile must not let the drop be forgotten.
        if disk_is_full {
            let other = NAMES.into_iter().find(|other| *other != name).expect("there are two");
            let (keyspace, _) = &self.keyspaces[other];
            keyspace.flush().unwrap();
            keyspace.compact().unwrap();
        }
        self.create(name);
    }

    fn snapshot(&mut self) {
        if self.snapshots.len() < 3 {
            self.snapshots.push(self.db().snapshot().unwrap());
        } else {
            self.snapshots.clear();
        }
    }

    fn persist(&mut self) {
        let begun = self.events();
        self.db().persist().unwrap();
        self.ticked(begun, true);
    }

    fn reopen(&mut self) {
        let begun = self.events();
        self.snapshots.clear();
        let known: Vec<_> = std::mem::take(&mut self.keyspaces).into_iter().map(|(name, (_, id))| (name, id)).collect();
        if self.rng.one_in(2) {
            self.db().close().unwrap();
        }
        self.database = None;
        self.ticked(begun, true);
        let database = self.config.builder(&self.simulation).open().unwrap();
        for (name, id) in known {
            self.keyspaces.insert(name, (database.open_keyspace(name).unwrap(), id));
        }
        self.database = Some(database);
    }

    /// What the model says that the database may hold after the first `events` events, newest first.
    fn allowed(&self, events: u64, crash: Crash, during: bool) -> Vec<(SeqNo, State)> {
        let kept = |tick: &&Tick| tick.returned <= events && (crash == Crash::Kill || tick.synced);
        let first = self.ticks.iter().rev().find(kept).map_or(SeqNo::ZERO, |tick| tick.at);
        let reached = events + u64::from(during);
        let begun = self.ticks.iter().rev().find(|tick| tick.begun < reached).map_or(SeqNo::ZERO, |tick| tick.at);
        let mut allowed = Vec::new();
        let mut at = begun.max(first);
        loop {
            let lives = self.lives.iter().filter(|life| life.dropped.is_none_or(|dropped| dropped > at));
            let (sure, perhaps): (Vec<_>, Vec<_>) =
                lives.filter(|life| life.created.0 < reached).partition(|life| life.created.1 <= events);
            let with = |lives: &[&Life]| -> State {
                lives.iter().map(|life| (life.name.to_owned(), self.rows(life.id, at))).collect()
            };
            allowed.push((at, with(&sure)));
            // One creation at a time is under way.
            if !perhaps.is_empty() {
                allowed.push((at, with(&[sure, perhaps].concat())));
            }
            if at == first {
                return allowed;
            }
            at = at.before();
        }
    }

    fn check_crash(&self, event: u64, crash: Crash, during: bool, rng: &mut Rng) {
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
        let Some(_) = allowed.iter().find(|(_, state)| *state == found) else {
            let (from, to) = (allowed[allowed.len() - 1].0, allowed[0].0);
            panic!("no prefix from {from} to {to} gives the state found: {}", differences(&allowed[0].1, &found));
        };
        let recovery = simulation.files.event_count();

        // M2, L4: what recovery saw is durable once it is open.
        let again =
            self.open_image(simulation.files.crash_image(Crash::PowerCut, rng.next_u64()), rng, "recovery, cut");
        assert_same(&state_of(&again.1), &found, "after recovery and a power cut");
        drop(again);

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
            if (crash, second) == (Crash::Kill, Crash::PowerCut) {
                let allowed = self.allowed(event, Crash::PowerCut, during);
                assert!(
                    allowed.iter().any(|(_, allowed)| *allowed == state),
                    "{what}: no prefix gives the state found: {}",
                    differences(&found, &state)
                );
            } else {
                assert_same(&state, &found, &what);
            }
        }
        self.go_on(database, &simulation, found, rng);
    }

    fn open(&self, simulation: &Simulation, what: &str) -> Database {
        self.config.builder(simulation).open().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn open_image(&self, image: Arc<SimulatedFileSystem>, rng: &mut Rng, what: &str) -> (Simulation, Database) {
        let simulation = Simulation::with_files(image, rng.next_u64());
        let database = self.open(&simulation, what);
        (simulation, database)
    }

    /// The recovered database takes writes, flushes, compacts and reopens, and leaves no file that nothing names.
    fn go_on(&self, database: Database, simulation: &Simulation, mut expected: State, rng: &mut Rng) {
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
        drop(database);
        let database = self.open(simulation, "after recovery and closing");
        assert_same(&state_of(&database), &expected, "after recovery and closing");
        if rng.one_in(2) {
            database.flush().unwrap();
            while database.run_one_job().unwrap() {}
            check_files(simulation);
            assert_same(&state_of(&database), &expected, "after everything was flushed");
        }
    }
}

/// Everything that is there, by scanning; and each row once more by a get.
fn state_of(database: &Database) -> State {
    let read = |name: String| {
        let keyspace = database.open_keyspace(&name).unwrap();
        let rows: Vec<Row> =
            keyspace.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
        for (key, value) in &rows {
            assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(value.as_slice()), "get {}", key.escape_ascii());
        }
        (name, rows)
    };
    database.list_keyspaces().into_iter().map(read).collect()
}

fn assert_same(found: &State, expected: &State, what: &str) {
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
    let before = segments.iter().filter(|name| segment(name) < floor).count();
    assert!(segments.iter().any(|name| segment(name) == floor), "L5: {floor} in {segments:?}");
    // Two at most are kept to be written over.
    assert!(before <= 2, "L5: {segments:?}, the floor is {floor}");
}

fn small(simulation: &Simulation) -> Database {
    let builder = Database::builder(DIR).environment(simulation.environment()).background_threads(0);
    builder.log_segment_bytes(16 << 10).log_bytes_max(1 << 20).large_batch_bytes(2000).open().unwrap()
}

/// No temporary file can be made for an edit of the manifest: it fails with certainty (P8).
fn fill_disk_for_edits(simulation: &Simulation) {
    let fault = Fault::on(FileOperation::Create).path_contains("/db/.tmp").effect(FaultEffect::NoSpace);
    simulation.files.inject(fault);
}

fn after(crash: Crash, simulation: &Simulation) -> Simulation {
    Simulation::with_files(simulation.files.crash_image(crash, 1), 2)
}

/// P12: replay skips what `flushed_seqno` has passed, so a flush takes along a clear that the manifest lacks.
#[test]
fn a_clear_whose_edit_failed_survives_a_later_flush() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    keyspace.insert("old", "1").unwrap();
    keyspace.flush().unwrap();
    fill_disk_for_edits(&simulation);
    keyspace.clear().unwrap();
    simulation.files.clear_faults();
    assert!(keyspace.is_empty().unwrap());
    keyspace.insert("new", "2").unwrap();
    keyspace.flush().unwrap();
    for crash in [Crash::Kill, Crash::PowerCut] {
        let found = state_of(&small(&after(crash, &simulation)));
        assert_eq!(found["a"], [(b"new".to_vec(), b"2".to_vec())], "{crash:?}");
    }
}

/// P12, L5: the log floor waits for a drop that the manifest lacks, and a second call or a new keyspace completes it.
#[test]
fn a_drop_whose_edit_failed_is_not_forgotten() {
    for again in [false, true] {
        let simulation = Simulation::new(1);
        let database = small(&simulation);
        let (dropped, other) = (database.keyspace("dropped").unwrap(), database.keyspace("other").unwrap());
        dropped.insert("old", "1").unwrap();
        dropped.flush().unwrap();
        fill_disk_for_edits(&simulation);
        database.drop_keyspace("dropped").unwrap();
        simulation.files.clear_faults();
        assert_eq!(database.list_keyspaces(), ["other"]);
        // Several segments' worth, so that the floor would pass the drop.
        for round in 0..40_u32 {
            other.insert(round.to_be_bytes(), [7; 1000]).unwrap();
            other.flush().unwrap();
        }
        for crash in [Crash::Kill, Crash::PowerCut] {
            assert_eq!(small(&after(crash, &simulation)).list_keyspaces(), ["other"], "{crash:?}");
        }
        if again {
            assert!(matches!(database.drop_keyspace("dropped"), Err(Error::NoSuchKeyspace { .. })));
        }
        assert!(database.keyspace("dropped").unwrap().is_empty().unwrap());
        for crash in [Crash::Kill, Crash::PowerCut] {
            assert_eq!(small(&after(crash, &simulation)).list_keyspaces(), ["dropped", "other"], "{crash:?}");
        }
    }
}

/// P11, P12: the table of a batch stays while replay would still open it.
#[test]
fn a_batch_before_a_clear_whose_edit_failed_can_be_replayed() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    let mut batch = database.batch();
    batch.insert(&keyspace, "large", [7; 5000]).unwrap();
    database.write(&batch).unwrap();
    fill_disk_for_edits(&simulation);
    keyspace.clear().unwrap();
    // Everything that can be done while the manifest cannot be told.
    while !matches!(database.run_one_job(), Err(Error::DiskFull { .. })) {}
    simulation.files.clear_faults();
    for crash in [Crash::Kill, Crash::PowerCut] {
        assert!(state_of(&small(&after(crash, &simulation)))["a"].is_empty(), "{crash:?}");
    }
}

/// M2, M6: a database that was killed while it was made or closed survives a power cut at any event of what comes next.
#[test]
fn a_power_cut_while_recovering_from_a_kill_leaves_a_database_that_opens() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    for key in 0..40_u32 {
        keyspace.insert(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    keyspace.flush().unwrap();
    keyspace.insert("last", "1").unwrap();
    drop((database, keyspace));
    for event in 0..=simulation.files.event_count() {
        let killed = Simulation::with_files(simulation.files.crash_image_at(event, Crash::Kill, event), event);
        let database = small(&killed);
        let keyspace = database.keyspace("a").unwrap();
        let found = keyspace.iter().count();
        // So much that a recycled segment is written over.
        for key in 0..20_u32 {
            keyspace.with_durability(Durability::Buffered).insert(key.to_be_bytes(), [7; 1000]).unwrap();
        }
        for second in 0..=killed.files.event_count() {
            let image = killed.files.crash_image_at(second, Crash::PowerCut, second);
            let again = Simulation::with_files(image, second);
            let builder = Database::builder(DIR).environment(again.environment()).background_threads(0);
            let opened = builder.log_segment_bytes(16 << 10).open();
            assert!(opened.is_ok(), "killed at {event} with {found} rows, cut at {second}: {opened:?}");
        }
    }
}
