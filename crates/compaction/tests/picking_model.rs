//! Random flushes, compactions and failures over versions whose entries are known, checked entry by entry (C3).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use compaction::pick::{self, LevelTargets};
use compaction::{
    Busy, CompactionOptions, Demand, KeyRange, PickInput, Plan, PlanKind, Reason, SEEK_BYTES, Strategy, TableReads,
};
use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
use manifest::{AddedTable, Change, TableEntry};
use test_support::{Rng, for_each_seed};
use version_history::{DroppedTables, Table, Version};

#[derive(Debug)]
struct Nobody;

impl DroppedTables for Nobody {
    fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
}

/// Key and seqno, ascending by key, then descending by seqno.
type Entries = Vec<(u8, u64)>;

fn sort(entries: &mut Entries) {
    entries.sort_by(|left, right| left.0.cmp(&right.0).then(right.1.cmp(&left.1)));
}

struct World {
    options: CompactionOptions,
    version: Version<()>,
    entries: BTreeMap<TableId, Entries>,
    busy: Busy,
    running: Vec<(JobId, Plan)>,
    /// Sealed memtables, oldest first.
    sealed: Vec<(Epoch, Entries)>,
    /// What readers sought; also in tables that are gone.
    reads: Vec<TableReads>,
    now: u64,
    next: u64,
    next_seqno: u64,
    next_epoch: u64,
    picked: BTreeMap<&'static str, usize>,
    /// Whether anything but steady leveled compaction was done: then only levels order runs across levels.
    mixed: bool,
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let strategy = *rng.pick(&[Strategy::Leveled, Strategy::Leveled, Strategy::Tiered, Strategy::Fifo]);
        let mut formats = [0; Level::COUNT];
        if rng.one_in(2) {
            formats[2..].fill(1);
        }
        let options = CompactionOptions {
            strategy,
            l0_runs_max: rng.within(1..6) as u32,
            l0_runs_patient: rng.within(0..12) as u32,
            level_base_bytes: rng.within(1..200),
            level_multiplier: rng.within(2..5) as u32,
            table_bytes_target: rng.within(1..20),
            merge_bytes_max: rng.within(1..2000),
            idle_bytes_max: rng.within(1..2000),
            formats,
            tier_runs_max: rng.within(2..6) as u32,
            fifo_bytes_max: rng.within(50..400),
            fifo_age_ms_max: if rng.one_in(2) { rng.within(10..400) } else { 0 },
        };
        options.validate().unwrap();
        Self {
            options,
            version: Version::default(),
            entries: BTreeMap::new(),
            busy: Busy::new(),
            running: Vec::new(),
            sealed: Vec::new(),
            reads: Vec::new(),
            now: 1,
            next: 1,
            next_seqno: 1,
            next_epoch: 1,
            picked: BTreeMap::new(),
            mixed: strategy != Strategy::Leveled,
        }
    }

    fn write(&mut self, rng: &mut Rng) -> Entries {
        let first = rng.below(60) as u8;
        let width = rng.within(1..40) as u8;
        let mut entries: Entries = (0..rng.within(1..15))
            .map(|_| {
                self.next_seqno += 1;
                (first + rng.below(u64::from(width)) as u8, self.next_seqno)
            })
            .collect();
        sort(&mut entries);
        entries
    }

    fn epoch(&mut self) -> Epoch {
        self.next_epoch += 1;
        Epoch(self.next_epoch)
    }

    fn tables(&mut self, mut entries: Entries, epoch: Epoch, newest_unix_ms: u64) -> Vec<Arc<TableEntry>> {
        sort(&mut entries);
        let mut tables = Vec::new();
        while !entries.is_empty() {
            let wanted = (self.options.table_bytes_target as usize).min(entries.len());
            let mut end = wanted;
            // C3: a table ends where a key ends.
            while end < entries.len() && entries[end].0 == entries[end - 1].0 {
                end += 1;
            }
            let rest = entries.split_off(end);
            let id = TableId(self.next);
            self.next += 1;
            tables.push(Arc::new(TableEntry {
                id,
                bytes: entries.len() as u64,
                checksum: 0,
                min_key: [entries[0].0].into(),
                max_key: [entries[entries.len() - 1].0].into(),
                min_seqno: SeqNo::new(entries.iter().map(|entry| entry.1).min().unwrap()).unwrap(),
                max_seqno: SeqNo::new(entries.iter().map(|entry| entry.1).max().unwrap()).unwrap(),
                entries: entries.len() as u64,
                tombstones: u64::from(entries[0].1.is_multiple_of(5)),
                logical_bytes: entries.len() as u64,
                epoch,
                job: JobId(0),
                seqno_base: 0,
                newest_unix_ms,
            }));
            self.entries.insert(id, entries);
            entries = rest;
        }
        tables
    }

    fn replace(&mut self, removed: &[(Level, TableId)], added: Vec<AddedTable>) {
        let on_drop: Weak<dyn DroppedTables> = Weak::<Nobody>::new();
        let added: Vec<_> = added
            .into_iter()
            .map(|place| {
                let table = Arc::new(Table::new(KeyspaceId(1), Arc::clone(&place.table), (), on_drop.clone()));
                (place, table)
            })
            .collect();
        self.version = self.version.replace(removed, &added).expect("the inputs stand");
    }

    fn flush(&mut self) {
        if self.sealed.is_empty() {
            return;
        }
        let (epoch, entries) = self.sealed.remove(0);
        let tables = self.tables(entries, epoch, self.now);
        let added = tables.into_iter().map(|table| AddedTable { level: Level::ZERO, run: epoch, table }).collect();
        self.replace(&[], added);
    }

    fn input<'a>(&'a self, demand: Demand<'a>) -> PickInput<'a, ()> {
        PickInput {
            version: &self.version,
            busy: &self.busy,
            options: &self.options,
            oldest_sealed_epoch: self.sealed.first().map(|(epoch, _)| *epoch),
            demand,
            now_unix_ms: self.now,
            reads: &self.reads,
        }
    }

    fn begin(&mut self, demand: Demand<'_>) -> bool {
        let Some(plan) = pick::pick(&self.input(demand)) else {
            return false;
        };
        plan.check(&self.version, &self.busy).unwrap();
        let again = pick::pick(&self.input(demand)).unwrap();
        assert_eq!(plan, again, "equal inputs give equal plans");
        self.check_reason(&plan);
        let kind = match plan.kind {
            PlanKind::Move => "move",
            PlanKind::Drop if matches!(plan.reason, Reason::Age { .. }) => "drop for its age",
            PlanKind::Drop => "drop",
            _ if plan.output_level == Level::ZERO => "merge within level 0",
            _ if plan.reason == Reason::Range => "merge of a range",
            _ if matches!(plan.reason, Reason::Reads { .. }) => "merge for readers",
            _ if matches!(plan.reason, Reason::Tombstones { .. }) && self.options.strategy == Strategy::Tiered => {
                "merge of tombstones under tiered"
            }
            _ => "merge",
        };
        *self.picked.entry(kind).or_default() += 1;
        self.mixed |= plan.reason == Reason::Range;
        let job = JobId(self.next);
        self.next += 1;
        self.busy.begin(job, &plan);
        self.running.push((job, plan));
        true
    }

    fn end(&mut self, index: usize, installed: bool) {
        let (job, plan) = self.running.remove(index);
        assert_eq!(self.busy.end(job).as_ref(), Some(&plan));
        if !installed {
            return;
        }
        let outputs = if plan.kind == PlanKind::Merge {
            let merged = plan.inputs.iter().flat_map(|(_, id)| self.entries[id].clone()).collect();
            self.tables(merged, plan.table_epoch, self.newest(&plan))
        } else {
            Vec::new()
        };
        let Change::ReplaceTables { removed, added, .. } = plan.change(KeyspaceId(1), &self.version, &outputs) else {
            panic!("another change");
        };
        self.replace(&removed, added);
    }

    /// The newest time of a plan's inputs.
    fn newest(&self, plan: &Plan) -> u64 {
        self.inputs(plan).map(|table| table.newest_unix_ms).max().unwrap()
    }

    fn inputs<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a TableEntry> {
        let tables = self.version.tables().map(|(_, table)| &*table.entry);
        tables.filter(|table| plan.inputs.iter().any(|(_, id)| *id == table.id))
    }

    /// What goes for its age is as old; what is merged for readers has been paid for by them.
    fn check_reason(&self, plan: &Plan) {
        match plan.reason {
            Reason::Age { age_ms, limit_ms } => {
                let newest = self.newest(plan);
                assert!(age_ms > limit_ms && newest + limit_ms < self.now, "{plan} at {}", self.now);
            }
            Reason::Reads { seeks } => {
                let sought = |id| self.reads.iter().filter(move |reads| reads.table == id).map(|reads| reads.seeks);
                let most: u64 = plan.inputs.iter().flat_map(|(_, id)| sought(*id)).sum();
                assert!(plan.inputs.len() > 1 && seeks <= most && seeks * SEEK_BYTES >= plan.input_bytes, "{plan}");
            }
            _ => {}
        }
    }

    /// C3, by hand: going from newest to oldest run, the seqnos of every key fall; runs are disjoint; under
    /// leveled compaction alone, epochs never rise.
    fn check(&self) {
        let mut oldest_seen: BTreeMap<u8, u64> = BTreeMap::new();
        let mut last: Option<(Level, Epoch)> = None;
        for (level, run) in self.version.runs_newest_first() {
            if let Some((above, epoch)) = last {
                let in_order = if above == level { epoch > run.epoch } else { self.mixed || epoch >= run.epoch };
                assert!(in_order, "epochs rise from {above} {epoch} to {level} {}:\n{}", run.epoch, self.version);
            }
            last = Some((level, run.epoch));
            for pair in run.tables().windows(2) {
                assert!(pair[0].entry.max_key < pair[1].entry.min_key, "{level} overlaps itself:\n{}", self.version);
            }
            let mut here: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
            for (key, seqno) in run.tables().iter().flat_map(|table| &self.entries[&table.id()]) {
                let (min, max) = here.entry(*key).or_insert((*seqno, *seqno));
                (*min, *max) = ((*min).min(*seqno), (*max).max(*seqno));
            }
            for (key, (min, max)) in here {
                if let Some(newer) = oldest_seen.insert(key, min) {
                    assert!(max < newer, "key {key}: {max} in {level} is above {newer}\n{}", self.version);
                }
            }
        }
        for (_, sealed) in &self.sealed {
            for (key, seqno) in sealed {
                // What is sealed comes out below newer runs of level 0 and above everything else.
                let runs = self.version.runs_newest_first().filter(|(level, _)| *level > Level::ZERO);
                let below = runs.flat_map(|(_, run)| run.tables()).flat_map(|table| &self.entries[&table.id()]);
                assert!(below.filter(|(other, _)| other == key).all(|(_, other)| other < seqno), "{}", self.version);
            }
        }
    }

    fn total(&self) -> usize {
        self.version.tables().map(|(_, table)| self.entries[&table.id()].len()).sum()
    }
}

fn settle(world: &mut World) {
    while !world.running.is_empty() {
        world.end(0, true);
        world.check();
    }
    while !world.sealed.is_empty() {
        world.flush();
    }
    let mut steps = 0;
    while world.begin(Demand::Steady) || world.begin(Demand::Idle) {
        world.end(0, true);
        world.check();
        steps += 1;
        assert!(steps < 2000, "compaction never ends: {:?}\n{}", world.options, world.version);
    }
}

/// C3: whatever is picked, in whatever order jobs end or fail, no older entry comes to lie above a newer one of its key.
#[test]
fn newer_entries_never_come_to_lie_below_older_ones() {
    let mut picked: BTreeMap<&'static str, usize> = BTreeMap::new();
    for_each_seed(0..300, |rng| {
        let mut world = World::new(rng);
        let mut written = 0;
        let may_ask = rng.one_in(2);
        for _ in 0..120 {
            world.now += rng.below(20);
            match rng.weighted(&[30, 30, 6, 30, 20, 4, 2, 6]) {
                0 => {
                    let entries = world.write(rng);
                    written += entries.len();
                    let epoch = world.epoch();
                    world.sealed.push((epoch, entries));
                }
                1 => world.flush(),
                // A batch that was written as a table (P11) stands in level 0 before older memtables are flushed.
                2 => {
                    let mut entries = world.write(rng);
                    entries.dedup_by_key(|entry| entry.0);
                    written += entries.len();
                    let epoch = world.epoch();
                    let tables = world.tables(entries, epoch, world.now);
                    let place = |table| AddedTable { level: Level::ZERO, run: epoch, table };
                    world.replace(&[], tables.into_iter().map(place).collect());
                }
                3 => {
                    let min = [rng.below(60) as u8];
                    let max = [min[0] + rng.below(50) as u8];
                    let range = KeyRange {
                        min: &min,
                        max: Some(&max),
                        rewrite_before: TableId(world.next / 2),
                        through: SeqNo::MAX,
                    };
                    let demands = [Demand::Steady, Demand::Steady, Demand::Idle, Demand::Range(range)];
                    let kinds = if may_ask { demands.len() } else { 3 };
                    world.begin(demands[rng.index(kinds)]);
                }
                4 if !world.running.is_empty() => {
                    let index = rng.index(world.running.len());
                    let installed = !rng.one_in(5);
                    world.end(index, installed);
                }
                // A policy changes only while no job runs.
                5 if may_ask && world.running.is_empty() && rng.one_in(4) => {
                    world.options.strategy = *rng.pick(&[Strategy::Leveled, Strategy::Tiered]);
                    world.mixed = true;
                }
                6 => world.options.level_base_bytes = rng.within(1..200),
                // A few seeks pay for tables as small as these.
                7 if !world.version.is_empty() => {
                    let tables: Vec<TableId> = world.version.tables().map(|(_, table)| table.id()).collect();
                    world.reads.retain(|reads| tables.contains(&reads.table));
                    let table = *rng.pick(&tables);
                    if world.reads.iter().all(|reads| reads.table != table) {
                        world.reads.push(TableReads { table, seeks: rng.within(1..3) });
                    }
                }
                _ => {}
            }
            world.check();
        }
        settle(&mut world);
        for (kind, count) in &world.picked {
            *picked.entry(kind).or_default() += count;
        }
        if !world.picked.keys().any(|kind| kind.starts_with("drop")) {
            assert_eq!(world.total(), written, "nothing is lost");
        }
    });
    if std::env::var_os(test_support::rng::SEED_VARIABLE).is_none() {
        let kinds = [
            "move",
            "drop",
            "drop for its age",
            "merge within level 0",
            "merge of a range",
            "merge for readers",
            "merge of tombstones under tiered",
            "merge",
        ];
        assert!(kinds.iter().all(|kind| picked.get(kind).is_some_and(|count| *count > 20)), "{picked:?}");
    }
}

/// C1: when compaction has caught up, level 0 has fewer runs than trigger work, every level is within its target, and no
/// debt is left.
#[test]
fn leveled_compaction_ends_within_every_limit() {
    for_each_seed(0..80, |rng| {
        let mut world = World::new(rng);
        world.options.strategy = Strategy::Leveled;
        for _ in 0..rng.within(1..80) {
            let entries = world.write(rng);
            let epoch = world.epoch();
            world.sealed.push((epoch, entries));
            world.flush();
            if rng.one_in(3) && world.begin(Demand::Steady) {
                world.end(0, true);
            }
        }
        settle(&mut world);
        let targets = LevelTargets::of(&world.version, &world.options);
        let drawn = format!("{:?} {targets:?}\n{}", world.options, world.version);
        let runs = world.version.runs(Level::ZERO).len();
        let below: u64 = (1..=Level::LAST.0).map(|level| world.version.bytes(Level(level))).sum();
        let holds_little = world.version.bytes(Level::ZERO) < below;
        let most = if holds_little { world.options.l0_patience() } else { world.options.l0_trigger() };
        assert!(runs < most, "{drawn}");
        for level in (1..Level::LAST.0).map(Level) {
            assert!(world.version.bytes(level) <= targets.bytes[level.index()], "{level}: {drawn}");
            assert!(world.version.runs(level).len() <= 1, "{level}: {drawn}");
        }
        assert_eq!(pick::pending_bytes(&world.version, &world.options), 0, "{drawn}");
    });
}

/// A tiered keyspace that is not too large comes to one run when it is idle.
#[test]
fn an_idle_tiered_keyspace_comes_to_one_run() {
    for_each_seed(0..80, |rng| {
        let mut world = World::new(rng);
        world.options.strategy = Strategy::Tiered;
        for _ in 0..rng.within(1..40) {
            let entries = world.write(rng);
            let epoch = world.epoch();
            world.sealed.push((epoch, entries));
            world.flush();
            if rng.one_in(3) && world.begin(*rng.pick(&[Demand::Steady, Demand::Idle])) {
                world.end(0, true);
            }
        }
        settle(&mut world);
        let drawn = format!("{:?}\n{}", world.options, world.version);
        let bytes: u64 = world.version.tables().map(|(_, table)| table.entry.bytes).sum();
        let runs = world.version.runs_newest_first().count();
        assert!(runs == 1 || bytes > world.options.idle_bytes_max, "{drawn}");
    });
}

/// A range that was asked for ends in one run of the last level, in finitely many steps.
#[test]
fn a_range_goes_down_to_the_last_level() {
    for_each_seed(0..80, |rng| {
        let mut world = World::new(rng);
        world.options.strategy = *rng.pick(&[Strategy::Leveled, Strategy::Tiered]);
        for _ in 0..rng.within(1..40) {
            let entries = world.write(rng);
            let epoch = world.epoch();
            world.sealed.push((epoch, entries));
            world.flush();
            if rng.one_in(2) && world.begin(Demand::Steady) {
                world.end(0, true);
            }
        }
        let min = [rng.below(80) as u8];
        let max = [min[0] + rng.below(30) as u8];
        let range = KeyRange {
            min: &min,
            max: rng.one_in(2).then_some(&max),
            rewrite_before: TableId(world.next),
            through: SeqNo::MAX,
        };
        let mut steps = 0;
        while !pick::is_settled(&world.input(Demand::Steady), range) {
            assert!(world.begin(Demand::Range(range)), "nothing runs, so nothing blocks");
            world.end(0, true);
            world.check();
            steps += 1;
            assert!(steps < 500, "the range never settles: {}", world.version);
        }
        assert!(!world.begin(Demand::Range(range)));
        let meets =
            |min_key: &[u8], max_key: &[u8]| min[..] <= *max_key && range.max.is_none_or(|max| *min_key <= *max);
        for (level, table) in world.version.tables() {
            let meets = meets(&table.entry.min_key, &table.entry.max_key);
            assert!(!meets || level == Level::LAST, "{table} in {level}");
        }
    });
}
