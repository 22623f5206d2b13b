//! The database beside a reference model: random operations under random options, with reopening, kills, power cuts and
//! injected faults among them.
//!
//! Every read of the run is compared with a `BTreeMap` of versions. After a kill every commit that returned must be there
//! (L1); after a power cut the state must be the model's after some prefix of commits that holds every synced one, whole
//! batches only (P7, L3). `MODEL_SEEDS`, `MODEL_FIRST_SEED` and `MODEL_OPS` say how much is run; a failure prints the seed.

#[path = "common/compactions.rs"]
mod compactions;

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use compactions::{Compactions, Counts};

use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, LogFileWay, Simulation};
use internal_key::{KeyspaceId, SeqNo};
use lsm_facade::{
    Access, CompactionControl, Compression, Database, DatabaseBuilder, Durability, Error, Iter, Keyspace,
    KeyspaceOptions, Snapshot, Strategy,
};
use test_support::{KeyGenerator, ReferenceModel, Rng, ValueGenerator, number_in};

const NAMES: [&str; 2] = ["left", "right"];

/// What a run must have met, summed over all seeds.
#[derive(Debug, Default)]
struct Met {
    operations: u64,
    flushes: u64,
    compactions: u64,
    compactions_below_level_1: u64,
    reopens: u64,
    kills: u64,
    power_cuts: u64,
    faults: u64,
    snapshots_held: u64,
    iterators_held: u64,
    large_batches: u64,
    clears: u64,
    drops: u64,
    /// Writes for which there was no memory, and stalls for memory.
    refused_for_memory: u64,
    stalls_for_memory: u64,
    reads_of_the_past: u64,
    refused_reads_of_the_past: u64,
    /// Calls of `compact_range` that were cancelled.
    cancelled: u64,
    /// Times in which the background was suspended, and writes that were refused for it.
    suspensions: u64,
    refused_while_suspended: u64,
    compactions_by_kind: Counts,
}

/// What the seeds of continuous integration meet.
const KINDS: [&str; 14] = [
    "leveled",
    "tiered",
    "FIFO",
    "leveled merge for runs",
    "leveled merge for bytes",
    "tiered merge for runs",
    "FIFO merge for runs",
    "FIFO drop for total",
    "merge for tombstones",
    "merge for history",
    "merge for reads",
    "merge for idle",
    "merge for range",
    "merge in several parts",
];

#[test]
fn the_database_answers_as_the_model_does() {
    // Several of these meet all kinds by themselves, so that it does not hang on how threads take turns.
    let (seeds, first, operations) =
        (number_in("MODEL_SEEDS", 7), number_in("MODEL_FIRST_SEED", 9), number_in("MODEL_OPS", 5000));
    let mut met = Met::default();
    let seeds = match std::env::var(test_support::SEED_VARIABLE) {
        Ok(_) => 0..1,
        Err(_) => first..first + seeds,
    };
    let count = seeds.end - seeds.start;
    test_support::for_each_seed(seeds, |rng| Run::new(rng, &mut met).run(operations));
    println!("model: {count} seeds, {met:#?}");
    met.compactions_by_kind.assert_met(&KINDS);
    let Met { flushes, compactions_below_level_1, reopens, kills, power_cuts, snapshots_held, .. } = met;
    let Met { reads_of_the_past, refused_reads_of_the_past, cancelled, suspensions, refused_while_suspended, .. } = met;
    for (name, times) in [
        ("flushes", flushes),
        ("compactions below level 1", compactions_below_level_1),
        ("reopens", reopens),
        ("kills", kills),
        ("power cuts", power_cuts),
        ("snapshots held", snapshots_held),
        ("reads of the past", reads_of_the_past),
        ("refused reads of the past", refused_reads_of_the_past),
        ("cancelled compactions", cancelled),
        ("suspensions", suspensions),
        ("writes refused while jobs were suspended", refused_while_suspended),
    ] {
        assert!(times > 0, "the run met no {name}");
    }
}

struct Config {
    threads: usize,
    cache_bytes: u64,
    open_tables_max: usize,
    access: Access,
    log_way: LogFileWay,
    log_segment_bytes: u64,
    log_bytes_max: u64,
    memory_bytes_max: u64,
    large_batch_bytes: Option<u64>,
    edit_file_bytes: Option<u64>,
    event_log_bytes_max: u64,
    idle_after: Option<Duration>,
    compaction_bytes_per_second: u64,
    subcompactions_max: usize,
}

impl Config {
    fn random(rng: &mut Rng) -> Self {
        let log_segment_bytes = *rng.pick(&[16 << 10, 64 << 10, 1 << 20]);
        let mut config = Self {
            // Mostly none: then a seed repeats the run.
            threads: *rng.pick(&[0, 0, 0, 0, 0, 1, 2]),
            cache_bytes: *rng.pick(&[0, 4 << 10, 1 << 20]),
            open_tables_max: *rng.pick(&[8, 64, 4096]),
            access: *rng.pick(&[Access::Mapped, Access::Mapped, Access::Pread]),
            log_way: *rng.pick(&[LogFileWay::Mapped, LogFileWay::Mapped, LogFileWay::Written]),
            log_segment_bytes,
            log_bytes_max: 2 * log_segment_bytes + rng.below(1 << 20),
            memory_bytes_max: 0,
            large_batch_bytes: if rng.one_in(2) { Some(rng.within(200..log_segment_bytes / 4)) } else { None },
            edit_file_bytes: if rng.one_in(2) { Some(*rng.pick(&[0, 512, 4096])) } else { None },
            event_log_bytes_max: 0,
            idle_after: None,
            compaction_bytes_per_second: 0,
            subcompactions_max: 1,
        };
        // Not drawn, so that the seeds of before stand for the runs of before.
        config.idle_after = config.log_bytes_max.is_multiple_of(2).then_some(Duration::ZERO);
        config.event_log_bytes_max = config.log_bytes_max % 5 / 4 * (8 << 10);
        config.compaction_bytes_per_second = config.log_bytes_max % 3 * (1 << 30);
        config.subcompactions_max = 1 + (config.log_bytes_max / 2 % 4) as usize;
        if config.log_bytes_max % 8 < 3 {
            config.memory_bytes_max = config.cache_bytes + (64 << 10) + config.log_bytes_max / 8 % 16 * (16 << 10);
        }
        config
    }

    fn builder(&self, simulation: &Simulation) -> DatabaseBuilder {
        let mut builder = Database::builder("/db")
            .environment(simulation.environment())
            .background_threads(self.threads)
            .compact_when_idle_after(self.idle_after)
            .compaction_bytes_per_second(self.compaction_bytes_per_second)
            .event_log_bytes_max(self.event_log_bytes_max)
            .subcompactions_max(self.subcompactions_max)
            .block_cache_bytes(self.cache_bytes)
            .memory_bytes_max(self.memory_bytes_max)
            .open_tables_max(self.open_tables_max)
            .access(self.access)
            .log_way(self.log_way)
            .log_segment_bytes(self.log_segment_bytes)
            .log_bytes_max(self.log_bytes_max);
        if let Some(bytes) = self.large_batch_bytes {
            builder = builder.large_batch_bytes(bytes);
        }
        if let Some(bytes) = self.edit_file_bytes {
            builder = builder.edit_file_bytes(bytes);
        }
        builder
    }
}

/// Options, the strategy among them, and how many of the last sequence numbers they promise to keep, where they say so to the
/// number.
fn keyspace_options(rng: &mut Rng, threads: usize) -> (KeyspaceOptions, Strategy, Option<u64>) {
    let memtable = rng.within(1 << 10..32 << 10);
    let strategy: Strategy;
    let strategies = [Strategy::Leveled, Strategy::Leveled, Strategy::Leveled, Strategy::Tiered, Strategy::Fifo];
    let options = KeyspaceOptions::default()
        .memtable_bytes(memtable)
        .write_buffer_bytes(memtable * rng.within(1..6))
        .block_bytes(*rng.pick(&[512, 1024, 4096]))
        .table_bytes(*rng.pick(&[4 << 10, 16 << 10, 256 << 10]))
        .filter_bits_per_key(*rng.pick(&[0, 4, 10]))
        .compression(*rng.pick(&[Compression::None, Compression::Lz4]))
        .strategy({
            strategy = *rng.pick(&strategies);
            strategy
        })
        .level_zero_runs_max(*rng.pick(&[2, 4, 8]))
        .level_base_bytes(*rng.pick(&[4 << 10, 32 << 10]))
        .level_size_ratio(*rng.pick(&[2, 4, 10]));
    // Not drawn, so that the seeds of before stand for the runs of before.
    let options = options
        // The clock does not go so far that anything comes of age: what goes for its age is told in `ages`.
        .fifo_age_max(memtable.is_multiple_of(2).then_some(Duration::from_secs(100 * 365 * 24 * 3600)))
        .merge_what_is_read(memtable % 5 < 3)
        // Not beside threads, which would drop rows between the model's look and the database's.
        .fifo_bytes_max(if threads == 0 && memtable % 3 < 2 { memtable * (6 + memtable % 8) } else { 1 << 30 });
    let (options, writes) = match (strategy != Strategy::Fifo, memtable % 4) {
        (false, _) | (_, 0) => (options, None),
        (_, 1) => (options.history_writes(memtable / 4), Some(memtable / 4)),
        (_, 2) => (options.history_bytes(10 * memtable), None),
        _ => (options.history_writes(memtable / 8).history_age(Duration::from_secs(memtable)), None),
    };
    (options, strategy, writes)
}

type Row = (Vec<u8>, Vec<u8>);

struct HeldSnapshot {
    snapshot: Snapshot,
    at: SeqNo,
}

struct HeldIter {
    iter: Iter,
    left: VecDeque<Row>,
}

struct Run<'a> {
    rng: Rng,
    /// Whether each operation is told, for `MODEL_TRACE=1`.
    traced: bool,
    met: &'a mut Met,
    config: Config,
    simulation: Simulation,
    database: Option<Database>,
    keyspaces: BTreeMap<&'static str, (Keyspace, KeyspaceId)>,
    model: ReferenceModel,
    /// The model's clock: one tick per commit.
    now: SeqNo,
    /// What a power cut must not lose.
    synced: SeqNo,
    next_keyspace: u32,
    keys: KeyGenerator,
    values: ValueGenerator,
    snapshots: Vec<HeldSnapshot>,
    iterators: Vec<HeldIter>,
    /// The tick that each visible seqno stands for, if it is the last of one.
    seqnos: BTreeMap<u64, SeqNo>,
    /// Of each keyspace that promises a number of writes, that number, and the seqno with which its history begins.
    promised: BTreeMap<KeyspaceId, (u64, u64)>,
    /// Hears of compactions.
    heard: Arc<Compactions>,
    /// By the tick of each clear or drop of a keyspace, up to which tick FIFO had dropped what it held by then.
    dropped_before: BTreeMap<KeyspaceId, BTreeMap<SeqNo, SeqNo>>,
}

impl<'a> Run<'a> {
    fn new(rng: &mut Rng, met: &'a mut Met) -> Self {
        let mut rng = rng.fork();
        let config = Config::random(&mut rng);
        let simulation = Simulation::new(rng.next_u64());
        let keys = KeyGenerator::up_to(2000, &mut rng);
        let mut run = Self {
            config,
            simulation,
            database: None,
            keyspaces: BTreeMap::new(),
            model: ReferenceModel::new(),
            now: SeqNo::ZERO,
            synced: SeqNo::ZERO,
            next_keyspace: 1,
            keys,
            values: ValueGenerator::up_to(3000),
            snapshots: Vec::new(),
            iterators: Vec::new(),
            seqnos: BTreeMap::new(),
            promised: BTreeMap::new(),
            heard: Arc::default(),
            dropped_before: BTreeMap::new(),
            traced: std::env::var_os("MODEL_TRACE").is_some(),
            rng,
            met,
        };
        run.open();
        run
    }

    fn db(&self) -> &Database {
        self.database.as_ref().expect("open")
    }

    fn builder(&self) -> DatabaseBuilder {
        self.config.builder(&self.simulation).event_listener(Arc::clone(&self.heard) as _)
    }

    fn open(&mut self) {
        let database = self.builder().open().unwrap();
        let living: Vec<String> = database.list_keyspaces();
        self.database = Some(database);
        let known = std::mem::take(&mut self.keyspaces);
        for name in NAMES {
            if let Some((_, id)) = known.get(name) {
                assert!(living.iter().any(|found| found == name), "{name} is gone: {living:?}");
                let keyspace = self.db().open_keyspace(name).unwrap();
                self.keyspaces.insert(name, (keyspace, *id));
            } else {
                self.create(name);
            }
        }
    }

    fn tick(&mut self) -> SeqNo {
        self.now = self.now.checked_add(1).unwrap();
        self.seqnos.insert(self.db().visible_seqno(), self.now);
        self.now
    }

    fn create(&mut self, name: &'static str) {
        let (options, strategy, writes) = keyspace_options(&mut self.rng, self.config.threads);
        let keyspace = self.db().create_keyspace(name, options).unwrap();
        self.heard.created(name, strategy);
        let id = KeyspaceId(self.next_keyspace);
        self.next_keyspace += 1;
        let at = self.tick();
        self.model.create_keyspace(id, at);
        self.promised.extend(writes.map(|writes| (id, (writes, self.db().visible_seqno()))));
        self.keyspaces.insert(name, (keyspace, id));
        // Creating is durable by itself, not what came before it: a cut may go back behind earlier writes, never behind
        // the creation. The model's prefixes are ordered, so everything before is made durable as well.
        self.db().persist().unwrap();
        self.synced = self.now;
    }

    fn some(&mut self) -> (Keyspace, KeyspaceId) {
        let name = *self.rng.pick(&NAMES);
        let (keyspace, id) = &self.keyspaces[name];
        (keyspace.clone(), *id)
    }

    fn run(mut self, operations: u64) {
        for _ in 0..operations {
            self.met.operations += 1;
            self.step();
        }
        self.snapshots.clear();
        self.iterators.clear();
        self.check_everything(self.now);
        self.reopen();
        self.check_everything(self.now);
    }

    fn step(&mut self) {
        const WEIGHTS: [u64; 20] = [260, 60, 60, 160, 40, 40, 30, 30, 20, 20, 10, 12, 30, 4, 30, 3, 2, 3, 3, 3];
        let operation = self.rng.weighted(&WEIGHTS);
        if self.traced {
            const NAMES: [&str; 20] = [
                "insert",
                "remove",
                "batch",
                "get",
                "range",
                "prefix",
                "cursor",
                "ends",
                "take snapshot",
                "use snapshot",
                "drop snapshot",
                "begin iterator",
                "step iterator",
                "flush",
                "run a job",
                "compact",
                "clear or drop",
                "reopen",
                "crash",
                "fault",
            ];
            eprintln!("{} after {}: {}", self.met.operations, self.now, NAMES[operation]);
        }
        match operation {
            0 => self.insert(),
            1 => self.remove(),
            2 => self.batch(),
            3 => self.get(),
            4 => self.range(),
            5 => self.prefix(),
            6 => self.cursor(),
            7 => self.ends(),
            8 => self.take_snapshot(),
            9 => {
                self.use_snapshot();
                self.read_the_past();
            }
            10 => self.drop_snapshot(),
            11 => self.begin_iterator(),
            12 => self.step_iterator(),
            13 => self.flush(),
            14 => {
                self.db().run_one_job().unwrap();
            }
            15 => self.compact(),
            16 => self.clear_or_drop(),
            17 => self.reopen(),
            18 => self.crash(),
            _ => self.fault(),
        }
    }

    fn durability(&mut self) -> Durability {
        if self.rng.one_in(20) { Durability::Synced } else { Durability::Buffered }
    }

    fn acknowledged(&mut self, durability: Durability) {
        if durability == Durability::Synced {
            self.synced = self.now;
        }
    }

    /// P13: where there is no memory for a write, those who hold it are the run's own iterators, and its snapshots of what was
    /// cleared since: without them there is.
    fn write(&mut self, write: impl Fn() -> lsm_facade::Result<()>) {
        let Err(error) = write() else { return };
        assert!(self.config.memory_bytes_max > 0 && matches!(error, Error::MemoryFull { .. }), "{error}");
        assert!(!self.iterators.is_empty() || !self.snapshots.is_empty(), "nobody holds it: {error}");
        self.met.refused_for_memory += 1;
        self.iterators.clear();
        self.snapshots.clear();
        write().unwrap();
    }

    fn insert(&mut self) {
        let (keyspace, id) = self.some();
        let (key, value) = (self.keys.key(&mut self.rng), self.values.value(&mut self.rng));
        let durability = self.durability();
        let keyspace = keyspace.with_durability(durability);
        self.write(|| keyspace.insert(&key, &value));
        let at = self.tick();
        self.model.put(id, &key, &value, at);
        self.acknowledged(durability);
    }

    fn remove(&mut self) {
        let (keyspace, id) = self.some();
        let key = self.keys.key(&mut self.rng);
        let durability = self.durability();
        let keyspace = keyspace.with_durability(durability);
        self.write(|| keyspace.remove(&key));
        let at = self.tick();
        self.model.delete(id, &key, at);
        self.acknowledged(durability);
    }

    fn batch(&mut self) {
        let mut batch = self.db().batch();
        let durability = self.durability();
        batch.set_durability(durability);
        let mut last: BTreeMap<(KeyspaceId, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
        for _ in 0..self.rng.below(30) {
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
        if batch.bytes() as u64 > self.config.large_batch_bytes.unwrap_or(self.config.log_segment_bytes / 4) {
            self.met.large_batches += 1;
        }
        let database = self.db().clone();
        self.write(|| database.write(&batch));
        if batch.is_empty() {
            return;
        }
        let at = self.tick();
        for ((id, key), value) in last {
            match value {
                Some(value) => self.model.put(id, &key, &value, at),
                None => self.model.delete(id, &key, at),
            }
        }
        self.acknowledged(durability);
    }

    fn get(&mut self) {
        let (keyspace, id) = self.some();
        let key = self.keys.key(&mut self.rng);
        let found = keyspace.get(&key).unwrap().map(Vec::from);
        let expected = self.model_get(id, &key, self.now).map(<[u8]>::to_vec);
        assert_eq!(found, expected, "get {}", key.escape_ascii());
        assert_eq!(keyspace.contains_key(&key).unwrap(), expected.is_some());
    }

    fn model_get(&self, id: KeyspaceId, key: &[u8], at: SeqNo) -> Option<&[u8]> {
        let through = self.dropped_through(id, at);
        self.model.get(id, key, at).filter(|_| self.is_kept(id, key, at, through))
    }

    fn model_rows(&self, id: KeyspaceId, range: impl RangeBounds<Vec<u8>>, at: SeqNo) -> Vec<Row> {
        let through = self.dropped_through(id, at);
        let rows = self.model.range(id, range, at).filter(|(key, _)| self.is_kept(id, key, at, through));
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    /// Whether the newest version of a key, for a reader at `at`, came after the tick `dropped_through`. If not, nothing of the
    /// key is left: the older ones went before it.
    fn is_kept(&self, id: KeyspaceId, key: &[u8], at: SeqNo, dropped_through: SeqNo) -> bool {
        let newest = || self.model.versions(id, key).iter().rev().find(|(tick, _)| *tick <= at);
        dropped_through == SeqNo::ZERO || newest().is_some_and(|(tick, _)| *tick > dropped_through)
    }

    /// Up to which tick FIFO has dropped what a keyspace holds for a reader at `at`: a snapshot of what was cleared since sees
    /// what was left when it was.
    fn dropped_through(&self, id: KeyspaceId, at: SeqNo) -> SeqNo {
        let later = (Bound::Excluded(at), Bound::Unbounded);
        let before = self.dropped_before.get(&id).and_then(|clears| clears.range(later).next());
        before.map_or_else(|| self.dropped_now(id), |(_, through)| *through)
    }

    fn dropped_now(&self, id: KeyspaceId) -> SeqNo {
        let name = self.keyspaces.iter().find(|(_, (_, living))| *living == id).map(|(name, _)| *name);
        let through = name.and_then(|name| self.heard.dropped_through(name));
        // The commit that its last seqno belongs to.
        let tick = through.and_then(|seqno| self.seqnos.range(seqno..).next());
        tick.map_or(SeqNo::ZERO, |(_, tick)| *tick)
    }

    fn range(&mut self) {
        let (keyspace, id) = self.some();
        let range = self.keys.range(&mut self.rng);
        let expected = self.model_rows(id, range.clone(), self.now);
        check_both_ends(&mut self.rng, keyspace.range(range), expected);
    }

    fn prefix(&mut self) {
        let (keyspace, id) = self.some();
        let prefix = self.keys.prefix(&mut self.rng);
        let through = self.dropped_through(id, self.now);
        let rows = self.model.prefix(id, &prefix, self.now);
        let rows = rows.filter(|(key, _)| self.is_kept(id, key, self.now, through));
        let expected: Vec<Row> = rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        check_both_ends(&mut self.rng, keyspace.prefix(prefix), expected);
    }

    /// Seeks and steps a cursor about, beside an index into the model's rows.
    fn cursor(&mut self) {
        let (keyspace, id) = self.some();
        let range = self.keys.range(&mut self.rng);
        let rows = self.model_rows(id, range.clone(), self.now);
        let mut cursor = keyspace.cursor_in(range);
        let mut at: Option<usize> = None;
        for _ in 0..self.rng.below(30) {
            match self.rng.below(8) {
                0 => {
                    cursor.seek_to_first().unwrap();
                    at = (!rows.is_empty()).then_some(0);
                }
                1 => {
                    cursor.seek_to_last().unwrap();
                    at = rows.len().checked_sub(1);
                }
                2 => {
                    let key = self.keys.key(&mut self.rng);
                    cursor.seek(&key).unwrap();
                    at = Some(rows.partition_point(|(row, _)| *row < key)).filter(|&index| index < rows.len());
                }
                3 => {
                    let key = self.keys.key(&mut self.rng);
                    cursor.seek_for_prev(&key).unwrap();
                    at = rows.partition_point(|(row, _)| *row <= key).checked_sub(1);
                }
                4 | 5 => {
                    cursor.next().unwrap();
                    at = at.map(|index| index + 1).filter(|&index| index < rows.len());
                }
                _ => {
                    cursor.prev().unwrap();
                    at = at.and_then(|index| index.checked_sub(1));
                }
            }
            let expected = at.map(|index| &rows[index]);
            assert_eq!(cursor.key(), expected.map(|(key, _)| key.as_slice()));
            assert_eq!(cursor.value().unwrap(), expected.map(|(_, value)| value.as_slice()));
        }
    }

    fn ends(&mut self) {
        let (keyspace, id) = self.some();
        let rows = self.model_rows(id, .., self.now);
        let own = |row: Option<(lsm_facade::Slice, lsm_facade::Slice)>| row.map(|(k, v)| (k.to_vec(), v.to_vec()));
        assert_eq!(own(keyspace.first_key_value().unwrap()), rows.first().cloned());
        assert_eq!(own(keyspace.last_key_value().unwrap()), rows.last().cloned());
        assert_eq!(keyspace.is_empty().unwrap(), rows.is_empty());
    }

    fn take_snapshot(&mut self) {
        if self.snapshots.len() < 6 {
            let snapshot = self.db().snapshot().unwrap();
            self.snapshots.push(HeldSnapshot { snapshot, at: self.now });
            self.met.snapshots_held += 1;
        }
    }

    fn use_snapshot(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let index = self.rng.index(self.snapshots.len());
        let (keyspace, id) = self.some();
        let at = self.snapshots[index].at;
        if !self.model.exists(id, at) {
            assert!(self.snapshots[index].snapshot.iter(&keyspace).next().is_none());
            return;
        }
        let key = self.keys.key(&mut self.rng);
        let found = self.snapshots[index].snapshot.get(&keyspace, &key).unwrap().map(Vec::from);
        assert_eq!(found.as_deref(), self.model_get(id, &key, at), "snapshot get {}", key.escape_ascii());
        let range = self.keys.range(&mut self.rng);
        let expected = self.model_rows(id, range.clone(), at);
        let iter = self.snapshots[index].snapshot.range(&keyspace, range);
        check_both_ends(&mut self.rng, iter, expected);
    }

    /// A seqno of the past shows what was visible then, or is refused; and it is not refused while it is promised.
    fn read_the_past(&mut self) {
        // Randomness of its own, for the same reason as above.
        let mut rng = Rng::new(self.met.operations);
        self.simulation.clock.advance(Duration::from_secs(rng.below(200)));
        let Some((&seqno, &at)) = self.seqnos.iter().nth_back(rng.index(self.seqnos.len()) >> rng.below(8)) else {
            return;
        };
        let (keyspace, id) = self.keyspaces[*rng.pick(&NAMES)].clone();
        let oldest = keyspace.oldest_seqno();
        if let Some((writes, begun)) = self.promised.get(&id) {
            let promised = self.db().visible_seqno().saturating_sub(*writes).max(*begun);
            assert_eq!(oldest, Some(promised), "{writes} writes are promised, from {begun} on");
        }
        match self.db().snapshot_at(seqno) {
            Ok(snapshot) if snapshot.keeps(&keyspace) => {
                let exists = self.model.exists(id, at);
                let expected = if exists { self.model_rows(id, .., at) } else { Vec::new() };
                check_both_ends(&mut rng, snapshot.iter(&keyspace), expected);
                self.met.reads_of_the_past += 1;
            }
            Ok(snapshot) => {
                assert!(oldest.is_none_or(|oldest| seqno < oldest), "refused {seqno}, the oldest is {oldest:?}");
                let error = snapshot.iter(&keyspace).next().expect("an error").unwrap_err();
                assert!(matches!(error, Error::HistoryGone { keyspace: Some(_), .. }), "{error}");
                self.met.refused_reads_of_the_past += 1;
            }
            Err(Error::HistoryGone { keyspace: None, oldest, .. }) => {
                assert!(seqno < oldest);
                self.met.refused_reads_of_the_past += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn drop_snapshot(&mut self) {
        if !self.snapshots.is_empty() {
            let index = self.rng.index(self.snapshots.len());
            self.snapshots.swap_remove(index);
        }
    }

    fn begin_iterator(&mut self) {
        if self.iterators.len() < 4 {
            let (keyspace, id) = self.some();
            let left = self.model_rows(id, .., self.now).into();
            self.iterators.push(HeldIter { iter: keyspace.iter(), left });
            self.met.iterators_held += 1;
        }
    }

    fn step_iterator(&mut self) {
        if self.iterators.is_empty() {
            return;
        }
        let index = self.rng.index(self.iterators.len());
        let HeldIter { iter, left } = &mut self.iterators[index];
        for _ in 0..self.rng.below(20) {
            let (found, expected) =
                if self.rng.one_in(2) { (iter.next(), left.pop_front()) } else { (iter.next_back(), left.pop_back()) };
            let found = found.transpose().unwrap().map(|(key, value)| (key.to_vec(), value.to_vec()));
            assert_eq!(found, expected);
            if expected.is_none() {
                self.iterators.swap_remove(index);
                return;
            }
        }
    }

    /// Randomness beside the run's own, so that the steps of a seed stay those of before.
    fn beside(&self) -> Rng {
        Rng::new(!self.now.get() << 20 ^ self.met.operations)
    }

    fn flush(&mut self) {
        let (keyspace, _) = self.some();
        let mut beside = self.beside();
        if beside.one_in(4) {
            self.write_while_suspended(&mut beside);
        }
        keyspace.flush().unwrap();
    }

    /// Nothing runs while jobs are suspended. Writes go on, or are refused and change nothing.
    fn write_while_suspended(&mut self, rng: &mut Rng) {
        let database = self.db().clone();
        let suspended = database.suspend_background().unwrap();
        let flushes = database.stats().flushes;
        self.met.suspensions += 1;
        for _ in 0..rng.below(20) {
            let (keyspace, id) = self.keyspaces[*rng.pick(&NAMES)].clone();
            let (key, value) = (self.keys.key(rng), self.values.value(rng));
            match keyspace.insert(&key, &value) {
                Ok(()) => {
                    let at = self.tick();
                    self.model.put(id, &key, &value, at);
                }
                Err(error) => {
                    assert!(matches!(error, Error::Suspended | Error::MemoryFull { .. }), "{error}");
                    self.met.refused_while_suspended += 1;
                }
            }
            assert_eq!(keyspace.get(&key).unwrap().as_deref(), self.model_get(id, &key, self.now));
        }
        assert!(!database.run_one_job().unwrap() && database.stats().flushes == flushes);
        drop(suspended);
    }

    fn compact(&mut self) {
        let (keyspace, _) = self.some();
        let range = self.keys.range(&mut self.rng);
        let mut beside = self.beside();
        if !beside.one_in(2) {
            return keyspace.compact_range(range).unwrap();
        }
        let compact = |control: &CompactionControl| keyspace.compact_range_with(range, control);
        match self.heard.cancelling_after(beside.below(6), compact) {
            Ok(()) => {}
            Err(Error::Cancelled) => self.met.cancelled += 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn clear_or_drop(&mut self) {
        let name = *self.rng.pick(&NAMES);
        let (keyspace, id) = self.keyspaces[name].clone();
        let dropped = self.dropped_now(id);
        if self.rng.one_in(2) {
            self.met.clears += 1;
            keyspace.clear().unwrap();
            let at = self.tick();
            self.model.clear(id, at);
            self.dropped_before.entry(id).or_default().insert(at, dropped);
            let visible = self.db().visible_seqno();
            self.promised.entry(id).and_modify(|(_, begun)| *begun = visible);
        } else {
            self.met.drops += 1;
            self.db().drop_keyspace(name).unwrap();
            let at = self.tick();
            self.model.drop_keyspace(id, at);
            self.dropped_before.entry(id).or_default().insert(at, dropped);
            self.keyspaces.remove(name);
            assert!(matches!(keyspace.insert("late", ""), Err(Error::KeyspaceDropped { .. })));
            for held in &self.snapshots {
                if self.model.exists(id, held.at) {
                    let expected = self.model_rows(id, .., held.at);
                    check_both_ends(&mut self.rng, held.snapshot.iter(&keyspace), expected);
                }
            }
            self.create(name);
        }
        self.synced = self.now;
    }

    fn count(&mut self) {
        let stats = self.db().stats();
        self.met.flushes += stats.flushes;
        self.met.compactions += stats.compactions.iter().sum::<u64>();
        self.met.stalls_for_memory += stats.stalls_by_cause.memory.count;
        self.met.compactions_below_level_1 += stats.compactions[2..].iter().sum::<u64>();
        self.met.compactions_by_kind.add(&self.heard.take());
    }

    fn let_go(&mut self) {
        self.snapshots.clear();
        self.iterators.clear();
        for (keyspace, _) in self.keyspaces.values_mut() {
            let _ = keyspace;
        }
    }

    fn reopen(&mut self) {
        self.count();
        self.let_go();
        let known: BTreeMap<&'static str, KeyspaceId> = self.keyspaces.iter().map(|(n, (_, id))| (*n, *id)).collect();
        self.keyspaces.clear();
        match self.rng.below(3) {
            0 => self.db().close().unwrap(),
            1 => {
                self.db().flush().unwrap();
            }
            _ => {}
        }
        self.database = None;
        self.synced = self.now;
        self.met.reopens += 1;
        self.simulation.files.forget_events();
        self.open_known(&known);
        if self.rng.one_in(4) {
            self.check_everything(self.now);
        }
    }

    fn open_known(&mut self, known: &BTreeMap<&'static str, KeyspaceId>) {
        let database = self.builder().open().unwrap();
        let mut living = database.list_keyspaces();
        living.retain(|name| !known.contains_key(name.as_str()));
        assert!(living.is_empty(), "{living:?} came back");
        self.keyspaces = known.iter().map(|(name, id)| (*name, (database.open_keyspace(name).unwrap(), *id))).collect();
        self.database = Some(database);
    }

    /// The process is killed, or the power fails, and the database is opened on what is left.
    fn crash(&mut self) {
        let crash = if self.rng.one_in(2) { Crash::Kill } else { Crash::PowerCut };
        self.count();
        self.let_go();
        let known: BTreeMap<&'static str, KeyspaceId> = self.keyspaces.iter().map(|(n, (_, id))| (*n, *id)).collect();
        let image = self.simulation.files.crash_image(crash, self.rng.next_u64());
        self.keyspaces.clear();
        self.database = None;
        self.simulation = Simulation::with_files(image, self.rng.next_u64());
        // Recovery may be interrupted as well.
        if self.rng.one_in(3) {
            let opened = self.config.builder(&self.simulation).open().unwrap();
            let again = self.simulation.files.crash_image(crash, self.rng.next_u64());
            drop(opened);
            self.simulation = Simulation::with_files(again, self.rng.next_u64());
        }
        self.open_known(&known);
        match crash {
            Crash::Kill => {
                self.met.kills += 1;
                self.check_everything(self.now);
                // L4: what was not synced is not yet, until somebody asks for it. Not drawn, so that the seeds of before stand for
                // the runs of before.
                if self.met.kills.is_multiple_of(2) {
                    self.db().persist().unwrap();
                    self.synced = self.now;
                }
            }
            Crash::PowerCut => {
                self.met.power_cuts += 1;
                self.find_prefix(&known);
                self.synced = self.now;
            }
        }
    }

    /// The state must be the model's after some prefix of commits that holds every synced one.
    fn find_prefix(&mut self, known: &BTreeMap<&'static str, KeyspaceId>) {
        let found: BTreeMap<KeyspaceId, Vec<Row>> =
            known.iter().map(|(name, id)| (*id, rows(self.keyspaces[name].0.iter()))).collect();
        // What was lost had larger numbers than what is left: of several states that are alike, the last of those it may be.
        let newest = self.seqnos.range(..=self.db().visible_seqno()).map(|(_, tick)| *tick).next_back();
        let mut at = newest.map_or(self.now, |newest| newest.max(self.synced));
        loop {
            if found.iter().all(|(id, rows)| *rows == self.model_rows(*id, .., at)) {
                break;
            }
            assert!(
                at > self.synced,
                "after a power cut: no prefix from {} (synced) to {} gives the state found; first differences at the end: {:?}",
                self.synced,
                self.now,
                self.differences(&found),
            );
            at = at.before();
        }
        self.model.truncate_after(at);
        self.now = at;
        // The numbers of what was lost are given to others. A job may have taken the floor past what is left.
        let visible = self.db().visible_seqno();
        self.seqnos.retain(|seqno, tick| *seqno < visible && *tick <= at);
        self.seqnos.insert(visible, at);
        self.promised.clear();
    }

    fn differences(&self, found: &BTreeMap<KeyspaceId, Vec<Row>>) -> Vec<String> {
        let mut out = Vec::new();
        for (id, rows) in found {
            let expected = self.model_rows(*id, .., self.now);
            let found: BTreeMap<_, _> = rows.iter().cloned().collect();
            let expected: BTreeMap<_, _> = expected.into_iter().collect();
            for (key, value) in &expected {
                if found.get(key) != Some(value) {
                    out.push(format!(
                        "{id} {}: expected {}, found {:?}",
                        key.escape_ascii(),
                        value.len(),
                        found.get(key).map(Vec::len)
                    ));
                }
            }
            for key in found.keys().filter(|key| !expected.contains_key(*key)) {
                out.push(format!("{id} {}: unexpected", key.escape_ascii()));
            }
        }
        out.truncate(12);
        out
    }

    /// A full disk or a failing operation while background work runs: certain errors change nothing (P8).
    fn fault(&mut self) {
        if self.config.threads > 0 {
            return;
        }
        self.met.faults += 1;
        let operation = *self.rng.pick(&[FileOperation::Create, FileOperation::Write, FileOperation::Allocate]);
        let fault = Fault::on(operation).path_contains("tables").effect(FaultEffect::NoSpace);
        self.simulation.files.inject(fault);
        let (keyspace, id) = self.some();
        let key = self.keys.key(&mut self.rng);
        let inserted = keyspace.insert(&key, b"under a full disk");
        match inserted {
            Ok(()) => {
                let at = self.tick();
                self.model.put(id, &key, b"under a full disk", at);
            }
            Err(error) => assert!(matches!(error, Error::DiskFull { .. } | Error::MemoryFull { .. }), "{error}"),
        }
        match keyspace.flush() {
            Ok(()) => {}
            Err(error) => assert!(matches!(error, Error::DiskFull { .. }), "{error}"),
        }
        self.simulation.files.clear_faults();
        keyspace.flush().unwrap();
        let found = keyspace.get(&key).unwrap().map(Vec::from);
        assert_eq!(found.as_deref(), self.model_get(id, &key, self.now));
    }

    fn check_everything(&mut self, at: SeqNo) {
        let all: Vec<(Keyspace, KeyspaceId)> = self.keyspaces.values().cloned().collect();
        for (keyspace, id) in all {
            let expected = self.model_rows(id, .., at);
            let found = rows(keyspace.iter());
            if found != expected {
                let differences = self.differences(&BTreeMap::from([(id, found)]));
                panic!("{} differs: {differences:?}", keyspace.name());
            }
            for (key, value) in &expected {
                assert_eq!(keyspace.get(key).unwrap().as_deref(), Some(value.as_slice()), "{}", key.escape_ascii());
            }
        }
        let leftover: Vec<_> = self
            .simulation
            .files
            .read_dir(Path::new("/db/tables"))
            .unwrap()
            .into_iter()
            .filter(|entry| entry.name.starts_with(".tmp"))
            .collect();
        if self.config.threads == 0 {
            assert!(leftover.is_empty(), "M2: {leftover:?} was left behind");
        }
    }
}

fn rows(iter: Iter) -> Vec<Row> {
    iter.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

/// Drains an iterator from both ends by turns, and once more after its end (it is fused).
fn check_both_ends(rng: &mut Rng, mut iter: Iter, expected: Vec<Row>) {
    let mut left: VecDeque<Row> = expected.into();
    let way = rng.below(3);
    loop {
        let front = match way {
            0 => true,
            1 => false,
            _ => rng.one_in(2),
        };
        let (found, expected) =
            if front { (iter.next(), left.pop_front()) } else { (iter.next_back(), left.pop_back()) };
        let found = found.transpose().unwrap().map(|(key, value)| (key.to_vec(), value.to_vec()));
        assert_eq!(found, expected);
        if expected.is_none() {
            assert!(iter.next().is_none() && iter.next_back().is_none(), "fused");
            return;
        }
    }
}

/// The empty key, the empty prefix and inverted ranges mean what they say.
#[test]
fn unusual_keys_and_ranges_are_legal() {
    let simulation = Simulation::new(1);
    let database = Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
    let keyspace = database.keyspace("a").unwrap();
    keyspace.insert("", "empty").unwrap();
    keyspace.insert(vec![0xFF; 65_535], "longest").unwrap();
    keyspace.insert("m", "").unwrap();
    for flushed in [false, true] {
        if flushed {
            keyspace.flush().unwrap();
        }
        assert_eq!(rows(keyspace.prefix("")).len(), 3);
        assert_eq!(rows(keyspace.prefix([0xFF])).len(), 1);
        assert_eq!(rows(keyspace.range(""..="")).len(), 1);
        let inverted = (Bound::Included("z"), Bound::Excluded("a"));
        assert_eq!(rows(keyspace.range::<&str>(inverted)).len(), 0);
        let empty = (Bound::Excluded("m"), Bound::Excluded("m"));
        assert_eq!(rows(keyspace.range::<&str>(empty)).len(), 0);
        assert_eq!(rows(keyspace.range::<&str>((Bound::Excluded(""), Bound::Unbounded))).len(), 2);
        assert_eq!(keyspace.get("").unwrap().unwrap(), b"empty");
        assert_eq!(keyspace.get("m").unwrap().unwrap(), b"");
    }
    let long = vec![0; 65_536];
    assert!(matches!(keyspace.insert(&long, ""), Err(Error::KeyTooLong { found: 65_536 })));
    assert!(matches!(keyspace.get(&long), Err(Error::KeyTooLong { .. })));
    assert!(matches!(keyspace.remove(&long), Err(Error::KeyTooLong { .. })));
}
