//! A run: planned from its seed, options included, and carried out beside the model.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use file_system::{Crash, Fault, FaultEffect, FileOperation, LogFileWay, Simulation};
use internal_key::{KeyspaceId, SeqNo};
use lsm_facade::{
    Access, CompactionControl, Compression, Database, DatabaseBuilder, Durability, Error, Keyspace, KeyspaceOptions,
    Snapshot, Strategy,
};
use test_support::{KeyGenerator, ReferenceModel, Rng, ValueGenerator};

use crate::check::{State, assert_same, state_of};
use crate::compactions::{Compactions, Counts};

/// The keyspaces that every run has.
pub(crate) const NAMES: [&str; 2] = ["left", "right"];
/// Where the database lies.
pub(crate) const DIR: &str = "/db";

/// How a database is opened.
pub(crate) struct Config {
    access: Access,
    log_way: LogFileWay,
    log_segment_bytes: u64,
    log_bytes_max: u64,
    large_batch_bytes: u64,
    edit_file_bytes: Option<u64>,
    open_tables_max: usize,
    block_cache_bytes: u64,
    /// One commit in so many is synced, and so raises what the log claims; 0 for none.
    synced_one_in: u64,
    /// Whether what only idleness justifies is done whenever nothing else is.
    compacts_when_idle: bool,
    event_log_bytes_max: u64,
    subcompactions_max: usize,
    memory_bytes_max: u64,
    compaction_bytes_per_second: u64,
}

impl Config {
    fn random(rng: &mut Rng) -> Self {
        let log_segment_bytes = *rng.pick(&[16 << 10, 16 << 10, 64 << 10]);
        let mut config = Self {
            access: *rng.pick(&[Access::Mapped, Access::Pread]),
            log_way: *rng.pick(&[LogFileWay::Mapped, LogFileWay::Written]),
            log_segment_bytes,
            log_bytes_max: log_segment_bytes * rng.within(2..5),
            large_batch_bytes: rng.within(200..log_segment_bytes / 4),
            edit_file_bytes: if rng.one_in(2) { Some(*rng.pick(&[0, 512, 4096])) } else { None },
            open_tables_max: *rng.pick(&[8, 4096]),
            block_cache_bytes: *rng.pick(&[0, 4 << 10]),
            synced_one_in: *rng.pick(&[0, 2, 6, 6, 30]),
            compacts_when_idle: false,
            event_log_bytes_max: 0,
            subcompactions_max: 1,
            memory_bytes_max: 0,
            compaction_bytes_per_second: 0,
        };
        // Not drawn, so that the seeds of before stand for the runs of before.
        config.compacts_when_idle = config.large_batch_bytes.is_multiple_of(2);
        config.event_log_bytes_max = config.large_batch_bytes % 7 / 6 * (8 << 10);
        config.subcompactions_max = 1 + (config.large_batch_bytes / 2 % 3) as usize;
        config.compaction_bytes_per_second = config.large_batch_bytes % 3 * (1 << 20);
        if config.large_batch_bytes % 5 < 2 {
            config.memory_bytes_max = config.block_cache_bytes + (64 << 10) + config.large_batch_bytes % 4 * (8 << 10);
        }
        config
    }

    /// Opens the same way in another world.
    pub(crate) fn builder(&self, simulation: &Simulation) -> DatabaseBuilder {
        let builder = Database::builder(DIR)
            .environment(simulation.environment())
            .background_threads(0)
            .block_cache_bytes(self.block_cache_bytes)
            .memory_bytes_max(self.memory_bytes_max)
            .open_tables_max(self.open_tables_max)
            .access(self.access)
            .log_way(self.log_way)
            .log_segment_bytes(self.log_segment_bytes)
            .log_bytes_max(self.log_bytes_max)
            .event_log_bytes_max(self.event_log_bytes_max)
            .compact_when_idle_after(self.compacts_when_idle.then_some(Duration::ZERO))
            .subcompactions_max(self.subcompactions_max)
            .compaction_bytes_per_second(self.compaction_bytes_per_second)
            .large_batch_bytes(self.large_batch_bytes);
        match self.edit_file_bytes {
            Some(bytes) => builder.edit_file_bytes(bytes),
            None => builder,
        }
    }
}

/// Options, and the strategy among them. `right` is never FIFO, which compacts nothing below its limit.
fn keyspace_options(name: &str, rng: &mut Rng) -> (KeyspaceOptions, Strategy) {
    let memtable = rng.within(1 << 10..4 << 10);
    let strategies: &[Strategy] = if name == NAMES[0] {
        &[Strategy::Leveled, Strategy::Tiered, Strategy::Fifo]
    } else {
        &[Strategy::Leveled, Strategy::Leveled, Strategy::Tiered]
    };
    let strategy: Strategy;
    let options = KeyspaceOptions::default()
        .memtable_bytes(memtable)
        .write_buffer_bytes(memtable * rng.within(1..4))
        .block_bytes(*rng.pick(&[512, 2048]))
        .table_bytes(*rng.pick(&[4 << 10, 16 << 10]))
        .filter_bits_per_key(*rng.pick(&[0, 10]))
        .compression(*rng.pick(&[Compression::None, Compression::Lz4]))
        .strategy({
            strategy = *rng.pick(strategies);
            strategy
        })
        .level_zero_runs_max(*rng.pick(&[2, 4]))
        .level_base_bytes(4 << 10)
        .level_size_ratio(*rng.pick(&[2, 4]));
    // Not drawn, so that the seeds of before stand for the runs of before.
    let options = options
        // Nothing comes of age here, or is too much: what goes for its age or for the size is told in `ages`.
        .fifo_age_max(memtable.is_multiple_of(2).then_some(Duration::from_secs(100 * 365 * 24 * 3600)))
        .merge_what_is_read(memtable % 5 < 3);
    let options = match (strategy, memtable % 6) {
        (Strategy::Fifo, _) | (_, 0 | 3) => options,
        (_, 1 | 4) => options.history_writes(memtable / 16),
        (_, 2) => options.history_bytes(4 * memtable),
        _ => options.history_age(Duration::from_secs(memtable / 4)),
    };
    (options, strategy)
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Insert,
    InsertRight,
    Remove,
    Batch,
    LargeBatch,
    Flush,
    FlushRight,
    Job,
    Compact,
    CompactRight,
    Clear,
    ClearOnFullDisk,
    DropAndCreate,
    DropAndCreateOnFullDisk,
    Snapshot,
    Reopen,
    Persist,
}

/// What steps are drawn from, and how often.
const STEPS: [(What, u64); 14] = [
    (What::Insert, 240),
    (What::Remove, 60),
    (What::Batch, 120),
    (What::LargeBatch, 30),
    (What::Flush, 30),
    (What::Job, 50),
    (What::Compact, 20),
    (What::Clear, 10),
    (What::DropAndCreate, 10),
    (What::Snapshot, 20),
    (What::Reopen, 10),
    (What::Persist, 12),
    (What::ClearOnFullDisk, 12),
    (What::DropAndCreateOnFullDisk, 12),
];

/// What every run does somewhere: two flushes and a compaction.
const ALWAYS: [What; 5] =
    [What::InsertRight, What::FlushRight, What::InsertRight, What::FlushRight, What::CompactRight];

impl What {
    fn commits(self) -> bool {
        matches!(self, Self::Insert | Self::InsertRight | Self::Remove | Self::Batch | Self::LargeBatch)
    }
}

/// A step, with the randomness that is its own: it does the same whatever steps are left out before it.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// Which of its seed's plan it is.
    pub(crate) index: usize,
    what: What,
    seed: u64,
}

/// What a seed stands for.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
    /// Whether no step was left out.
    whole: bool,
    commits_min: u64,
}

impl Plan {
    /// At least `commits_min` commits, and what [`ALWAYS`] says.
    pub(crate) fn new(seed: u64, commits_min: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut whats = Vec::new();
        let mut commits = 0;
        while commits < commits_min {
            let what = STEPS[rng.weighted(&STEPS.map(|(_, weight)| weight))].0;
            commits += u64::from(what.commits());
            whats.push(what);
        }
        let at = rng.index(whats.len() + 1);
        whats.splice(at..at, ALWAYS);
        let steps = whats.into_iter().enumerate().map(|(index, what)| Step { index, what, seed: rng.next_u64() });
        Self { seed, steps: steps.collect(), whole: true, commits_min }
    }

    /// The same run with those of its steps alone.
    pub(crate) fn keeping(&self, kept: &[usize]) -> Self {
        let steps = kept.iter().filter_map(|index| self.steps.get(*index).copied()).collect();
        Self { steps, whole: false, ..*self }
    }
}

/// The steps, one a line.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "    {:>4} {:?}", step.index, step.what))
    }
}

/// What runs did.
#[derive(Default)]
pub(crate) struct Met {
    commits: u64,
    flushes: u64,
    compactions: u64,
    reopenings: u64,
    /// Compactions of a part of the keys, and calls of `compact_range` that were cancelled.
    partial: u64,
    cancelled: u64,
    suspensions: u64,
    kinds: Counts,
}

/// What the seeds of the longer runs in continuous integration meet.
const KINDS: [&str; 9] = [
    "leveled",
    "tiered",
    "FIFO",
    "leveled merge for runs",
    "tiered merge for runs",
    "FIFO merge for runs",
    "move for runs",
    "merge for range",
    "merge in several parts",
];

impl Met {
    /// Adds what another run did.
    pub(crate) fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.flushes += other.flushes;
        self.compactions += other.compactions;
        self.reopenings += other.reopenings;
        self.partial += other.partial;
        self.cancelled += other.cancelled;
        self.suspensions += other.suspensions;
        self.kinds.add(&other.kinds);
    }

    /// Fails unless each strategy, and the main reasons and ways to compact, were met.
    pub(crate) fn assert_varied(&self) {
        self.kinds.assert_met(&KINDS);
        assert!(self.partial > 0 && self.cancelled > 0 && self.suspensions > 0, "{self}");
    }
}

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { commits, flushes, compactions, reopenings, partial, cancelled, suspensions, kinds } = self;
        write!(
            f,
            "{commits} commits, {flushes} flushes, {compactions} compactions, {reopenings} reopenings, {partial} partial \
             and {cancelled} cancelled calls, {suspensions} suspensions; {kinds}"
        )
    }
}

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// One tick of the model's clock.
struct Tick {
    at: SeqNo,
    /// Events that had happened when it began.
    begun: u64,
    /// Events that had happened when it returned.
    returned: u64,
    /// Whether it and all before it are promised to survive a power cut.
    synced: bool,
    /// What was visible when it returned.
    seqno: u64,
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

/// A run, and what the model knows of it.
pub(crate) struct Run {
    /// The randomness of the step that is carried out.
    rng: Rng,
    pub(crate) config: Config,
    pub(crate) simulation: Simulation,
    database: Option<Database>,
    keyspaces: BTreeMap<&'static str, (Keyspace, KeyspaceId)>,
    lives: Vec<Life>,
    model: ReferenceModel,
    ticks: Vec<Tick>,
    pub(crate) keys: KeyGenerator,
    pub(crate) values: ValueGenerator,
    snapshots: Vec<Snapshot>,
    /// What the model held at each tick from the first on, once the run is over: asked for at every crash point.
    history: Vec<BTreeMap<KeyspaceId, Vec<Row>>>,
    heard: Arc<Compactions>,
    met: Met,
}

/// What a crash may leave: the rows of each keyspace by its name.
pub(crate) type Allowed<'a> = BTreeMap<&'a str, &'a [Row]>;

impl Run {
    /// Before its first step.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut rng = Rng::new(plan.seed);
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
            history: Vec::new(),
            heard: Arc::default(),
            met: Met::default(),
            rng,
        }
    }

    /// Carries out the plan.
    pub(crate) fn run(&mut self, plan: &Plan) {
        self.database = Some(self.open_here());
        for name in NAMES {
            self.create(name);
        }
        for step in &plan.steps {
            self.rng = Rng::new(step.seed);
            self.step(step.what);
        }
        let expected: State =
            self.keyspaces.iter().map(|(name, (_, id))| (name.to_string(), self.rows(*id, self.now()))).collect();
        assert_same(&state_of(self.db()), &expected, "before any crash");
        let at = |tick| SeqNo::new(tick).expect("ticks are few");
        let lives = |at| self.model.keyspaces(at).map(|id| (id, self.rows(id, at))).collect();
        self.history = (0..=self.now().get()).map(|tick| lives(at(tick))).collect();
        self.count();
        let Met { commits, flushes, compactions, .. } = self.met;
        let enough = commits >= plan.commits_min && flushes >= 2 && compactions >= 1;
        assert!(enough || !plan.whole, "only {}", self.met);
    }

    /// Closes what is open and returns what was done.
    pub(crate) fn end(mut self) -> Met {
        self.snapshots.clear();
        self.keyspaces.clear();
        self.database = None;
        self.met
    }

    /// Adds what the database counted since it was opened.
    fn count(&mut self) {
        let stats = self.db().stats();
        self.met.flushes += stats.flushes;
        self.met.compactions += stats.compactions.iter().sum::<u64>();
        self.met.kinds.add(&self.heard.take());
    }

    fn open_here(&self) -> Database {
        self.config.builder(&self.simulation).event_listener(Arc::clone(&self.heard) as _).open().unwrap()
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
        let seqno = self.database.as_ref().map_or(0, |database| database.visible_seqno());
        let tick = Tick { at: self.next(), begun, returned: self.events(), synced, seqno };
        self.ticks.push(tick);
    }

    fn rows(&self, id: KeyspaceId, at: SeqNo) -> Vec<Row> {
        self.model.range(id, .., at).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    fn step(&mut self, what: What) {
        self.met.commits += u64::from(what.commits());
        match what {
            What::Insert => {
                let keyspace = self.some();
                self.insert(keyspace);
            }
            What::InsertRight => self.insert(self.right()),
            What::Remove => self.remove(),
            What::Batch => self.batch(12),
            What::LargeBatch => self.batch(120),
            What::Flush => self.some().0.flush().unwrap(),
            What::FlushRight => self.right().0.flush().unwrap(),
            What::Job => self.job(),
            What::Compact => self.compact(),
            What::CompactRight => self.right().0.compact().unwrap(),
            What::Clear => self.clear(false),
            What::ClearOnFullDisk => self.clear(true),
            What::DropAndCreate => self.drop_and_create(false),
            What::DropAndCreateOnFullDisk => self.drop_and_create(true),
            What::Snapshot => self.snapshot(),
            What::Reopen => self.reopen(),
            What::Persist => self.persist(),
        }
    }

    fn some(&mut self) -> (Keyspace, KeyspaceId) {
        let name = *self.rng.pick(&NAMES);
        self.keyspaces[name].clone()
    }

    fn right(&self) -> (Keyspace, KeyspaceId) {
        self.keyspaces[NAMES[1]].clone()
    }

    fn create(&mut self, name: &'static str) {
        let (options, strategy) = keyspace_options(name, &mut self.rng);
        let begun = self.events();
        let keyspace = self.db().create_keyspace(name, options).unwrap();
        self.heard.created(name, strategy);
        let id = KeyspaceId(self.lives.len() as u32 + 1);
        self.model.create_keyspace(id, self.next());
        self.ticked(begun, false);
        self.lives.push(Life { id, name, created: (begun, self.events()), dropped: None });
        self.keyspaces.insert(name, (keyspace, id));
    }

    fn durability(&mut self) -> Durability {
        let one_in = self.config.synced_one_in;
        if one_in > 0 && self.rng.one_in(one_in) { Durability::Synced } else { Durability::Buffered }
    }

    /// P13: where there is no memory for a write, snapshots of what was cleared since hold it.
    fn write(&mut self, write: impl Fn() -> lsm_facade::Result<()>) {
        let Err(error) = write() else { return };
        assert!(matches!(error, Error::MemoryFull { .. }) && !self.snapshots.is_empty(), "{error}");
        self.snapshots.clear();
        write().unwrap();
    }

    fn insert(&mut self, (keyspace, id): (Keyspace, KeyspaceId)) {
        let (key, value) = (self.keys.key(&mut self.rng), self.values.value(&mut self.rng));
        let durability = self.durability();
        let begun = self.events();
        let keyspace = keyspace.with_durability(durability);
        self.write(|| keyspace.insert(&key, &value));
        self.model.put(id, &key, &value, self.next());
        self.ticked(begun, durability == Durability::Synced);
    }

    fn remove(&mut self) {
        let (keyspace, id) = self.some();
        let key = self.keys.key(&mut self.rng);
        let durability = self.durability();
        let begun = self.events();
        let keyspace = keyspace.with_durability(durability);
        self.write(|| keyspace.remove(&key));
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
        let database = self.db().clone();
        self.write(|| database.write(&batch));
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

    /// A job, or none because jobs are suspended, which a write and a flush find too.
    fn job(&mut self) {
        if !self.rng.one_in(4) {
            self.db().run_one_job().unwrap();
            return;
        }
        self.met.suspensions += 1;
        let database = self.db().clone();
        let suspended = database.suspend_background().unwrap();
        let (keyspace, id) = self.some();
        let (key, value) = (self.keys.key(&mut self.rng), self.values.value(&mut self.rng));
        let begun = self.events();
        match keyspace.insert(&key, &value) {
            Ok(()) => {
                self.model.put(id, &key, &value, self.next());
                self.ticked(begun, false);
            }
            Err(error) => assert!(matches!(error, Error::Suspended | Error::MemoryFull { .. }), "{error}"),
        }
        assert!(!database.run_one_job().unwrap());
        drop(suspended);
    }

    /// Compacts a keyspace, a part of it, or what of it can be compacted before it is cancelled.
    fn compact(&mut self) {
        let (keyspace, _) = self.some();
        match self.rng.below(3) {
            0 => keyspace.compact().unwrap(),
            1 => {
                self.met.partial += 1;
                keyspace.compact_range(self.keys.range(&mut self.rng)).unwrap();
            }
            _ => {
                // As many events as a flush tells, and a few of the compaction.
                let events = self.rng.below(7);
                let compact = |control: &CompactionControl| keyspace.compact_range_with::<&[u8]>(.., control);
                match self.heard.cancelling_after(events, compact) {
                    Ok(()) => {}
                    Err(Error::Cancelled) => self.met.cancelled += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn snapshot(&mut self) {
        // What is kept for an age comes of it.
        self.simulation.clock.advance(Duration::from_secs(self.rng.below(200)));
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
        self.count();
        self.met.reopenings += 1;
        let begun = self.events();
        self.snapshots.clear();
        let known: Vec<_> = std::mem::take(&mut self.keyspaces).into_iter().map(|(name, (_, id))| (name, id)).collect();
        if self.rng.one_in(2) {
            self.db().close().unwrap();
        }
        self.database = None;
        self.ticked(begun, true);
        let database = self.open_here();
        for (name, id) in known {
            self.keyspaces.insert(name, (database.open_keyspace(name).unwrap(), id));
        }
        self.database = Some(database);
    }

    /// Up to `count` seqnos of the run, none above `visible`, and what each of its keyspaces held then.
    pub(crate) fn pasts(
        &self,
        visible: u64,
        count: usize,
        rng: &mut Rng,
    ) -> Vec<(u64, &BTreeMap<KeyspaceId, Vec<Row>>)> {
        // Of ticks that wrote nothing, the last shows what the seqno shows.
        let ticks: BTreeMap<u64, SeqNo> = self.ticks.iter().map(|tick| (tick.seqno, tick.at)).collect();
        let ticks: Vec<(u64, SeqNo)> = ticks.into_iter().filter(|(seqno, _)| (1..=visible).contains(seqno)).collect();
        let pick = |_| ticks.get(rng.index(ticks.len().max(1))).copied();
        let picked: Vec<(u64, SeqNo)> = (0..count).filter_map(pick).collect();
        picked.into_iter().map(|(seqno, at)| (seqno, &self.history[at.get() as usize])).collect()
    }

    /// What the model says that the database may hold after the first `events` events, newest first.
    pub(crate) fn allowed<'a>(&'a self, events: u64, crash: Crash, during: bool) -> Vec<(SeqNo, Allowed<'a>)> {
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
            // A keyspace that was made after a tick is empty at it.
            let rows = |life: &Life| -> &'a [Row] {
                self.history[at.get() as usize].get(&life.id).map_or(&[][..], Vec::as_slice)
            };
            let with =
                |lives: &[&'a Life]| -> Allowed<'a> { lives.iter().map(|life| (life.name, rows(life))).collect() };
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
}
