//! Golden scripts: `tests/golden/pick` decides about tables that are only described, `tests/golden/compact` carries
//! plans out on real tables.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{Entry, Readers, Store, seqno};
use compaction::pick::{self, LevelTargets};
use compaction::{CompactionOptions, Demand, KeyRange, PickInput, Plan, PlanKind, Strategy, TableReads};
use internal_key::{Epoch, JobId, Kind, Level, SeqNo, TableId, Trailer};
use manifest::TableEntry;
use merge_iterator::SliceCursor;
use test_support::{Command, Fixture, unescape};

/// ```text
/// options strategy=leveled l0=4 base=1000 multiplier=10 tiers=4 fifo=1000 age=800 merge=10000 formats=0011111 table=100
/// define             one line a run: `L0 e7: t4[a..c]=100 t5[d..f]=100!3@7`: bytes, how many tombstones, when written
/// pick [idle] [range=a..c] [sealed=8] [rewrite=9] [now=1000] [reads=4:100,5:20]
/// rewrite L6 t1 expired=5    the plan that writes one table anew where it stands
/// begin ...          as `pick`, or `table=L6:t1 expired=5` as `rewrite`; and a job begins that carries it out
/// install job 9[a..c]=100   ends a job with these outputs (a move needs none)
/// fail job           ends a job without
/// targets, debt, show, expires
/// ```
/// and on real tables:
/// ```text
/// write              one line a run: `L1 e4: a#9 delete, b#3 put=x`
/// compact [range=a..c] [table=L6:t1 expired=5] [floor=9] [snapshots=3,5]
/// ```
struct Keyspace {
    store: Store,
    running: Vec<(JobId, Plan)>,
}

impl Default for Keyspace {
    fn default() -> Self {
        Self { store: Store::new(0), running: Vec::new() }
    }
}

#[test]
fn picking() {
    test_support::run_scripts("tests/golden/pick", Keyspace::default);
}

#[test]
fn compacting() {
    test_support::run_scripts("tests/golden/compact", Keyspace::default);
}

impl Fixture for Keyspace {
    fn run(&mut self, command: &Command) -> String {
        match command.name() {
            "options" => self.options(command),
            "define" => self.define(command),
            "pick" => draw_plan(self.pick(command)),
            "rewrite" => draw_plan(self.rewrite(command, command.arg(0), command.arg(1))),
            "begin" => self.begin(command),
            "install" => self.install(command),
            "fail" => {
                let at = self.job(command);
                self.store.busy.end(self.running.remove(at).0);
                String::new()
            }
            "targets" => self.targets(),
            "debt" => format!("{}\n", pick::pending_bytes(&self.store.version, &self.store.options)),
            "expires" => match pick::expires_at_unix_ms(&self.store.version, &self.store.options) {
                Some(time) => format!("{time}\n"),
                None => "never\n".to_owned(),
            },
            "show" => self.store.version.to_string(),
            "write" => self.write(command),
            "compact" => self.compact(command),
            _ => command.unknown(),
        }
    }
}

fn keys(command: &Command, text: &str) -> (Vec<u8>, Vec<u8>) {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let bytes = |text| unescape(text).unwrap_or_else(|| panic!("line {}: {text}", command.line_number()));
    (bytes(min), bytes(max))
}

/// `t4[a..c]=100!3@7`
fn table(command: &Command, text: &str) -> TableEntry {
    let wrong = || -> ! { panic!("line {}: no table: {text}", command.line_number()) };
    let Some((id, rest)) = text.trim_start_matches('t').split_once('[') else { wrong() };
    let Some((range, size)) = rest.split_once(']') else { wrong() };
    let (size, time) = size.split_once('@').unwrap_or((size, "0"));
    let (bytes, tombstones) =
        size.trim_start_matches('=').split_once('!').unwrap_or((size.trim_start_matches('='), "0"));
    let (min_key, max_key) = keys(command, range);
    let bytes = if bytes.is_empty() { 100 } else { bytes.parse().unwrap_or_else(|_| wrong()) };
    TableEntry {
        id: TableId(id.parse().unwrap_or_else(|_| wrong())),
        bytes,
        checksum: 0,
        min_key: min_key.into(),
        max_key: max_key.into(),
        min_seqno: SeqNo::ZERO,
        max_seqno: SeqNo::ZERO,
        entries: bytes,
        tombstones: tombstones.parse().unwrap_or_else(|_| wrong()),
        logical_bytes: bytes,
        epoch: Epoch(0),
        job: JobId(0),
        seqno_base: 0,
        newest_unix_ms: time.parse().unwrap_or_else(|_| wrong()),
    }
}

/// `L0 e7`
fn place(command: &Command, text: &str) -> (Level, Epoch) {
    let parsed = text.split_once(' ').and_then(|(level, epoch)| {
        Some((level.strip_prefix('L')?.parse().ok()?, epoch.trim().strip_prefix('e')?.parse().ok()?))
    });
    let (level, epoch) = parsed.unwrap_or_else(|| panic!("line {}: no run: {text}", command.line_number()));
    (Level(level), Epoch(epoch))
}

impl Keyspace {
    fn options(&mut self, command: &Command) -> String {
        let before = self.store.options.clone();
        let options = CompactionOptions {
            strategy: match command.option("strategy") {
                None => before.strategy,
                Some("leveled") => Strategy::Leveled,
                Some("tiered") => Strategy::Tiered,
                Some("fifo") => Strategy::Fifo,
                Some(_) => command.unknown(),
            },
            l0_runs_max: command.option_or("l0", before.l0_runs_max),
            // Without patience, unless a script asks for it: most are about something else.
            l0_runs_patient: command.option_or("patient", 0),
            level_base_bytes: command.option_or("base", before.level_base_bytes),
            level_multiplier: command.option_or("multiplier", before.level_multiplier),
            table_bytes_target: command.option_or("table", before.table_bytes_target),
            merge_bytes_max: command.option_or("merge", before.merge_bytes_max),
            idle_bytes_max: command.option_or("idle", before.idle_bytes_max),
            tier_runs_max: command.option_or("tiers", before.tier_runs_max),
            fifo_bytes_max: command.option_or("fifo", before.fifo_bytes_max),
            fifo_age_ms_max: command.option_or("age", before.fifo_age_ms_max),
            formats: command.option("formats").map_or(before.formats, |text| {
                let digits: Vec<u8> = text.bytes().map(|digit| digit - b'0').collect();
                digits.try_into().expect("a digit for each level")
            }),
        };
        if let Err(error) = options.validate() {
            return format!("{error}\n");
        }
        self.store.options = options;
        String::new()
    }

    fn define(&mut self, command: &Command) -> String {
        self.store.version = Default::default();
        for line in command.body_commands() {
            let (run, tables) = line.line().split_once(':').expect("a run, a colon, its tables");
            let (level, epoch) = place(&line, run);
            let tables: Vec<_> = tables.split_whitespace().map(|text| Arc::new(table(&line, text))).collect();
            let tables: Vec<_> =
                // The only sequence number that matters is that of the run.
                tables.into_iter().map(|table| Arc::new(TableEntry { epoch, min_seqno: SeqNo::new(epoch.0).unwrap(), ..(*table).clone() })).collect();
            self.store.add_run(level, epoch, &tables);
        }
        String::new()
    }

    fn with_input<R>(&self, command: &Command, then: impl FnOnce(&PickInput<'_, ()>) -> R) -> R {
        let (min, max);
        let demand = if let Some(range) = command.option("range") {
            (min, max) = keys(command, range);
            let rewrite_before = TableId(command.option_or("rewrite", 0));
            let through = SeqNo::new(command.option_or("through", SeqNo::MAX.get())).unwrap();
            Demand::Range(KeyRange { min: &min, max: Some(&max), rewrite_before, through })
        } else if command.has("idle") {
            Demand::Idle
        } else {
            Demand::Steady
        };
        let Store { version, busy, options, .. } = &self.store;
        let oldest_sealed_epoch = command.option("sealed").map(|epoch| Epoch(epoch.parse().unwrap()));
        let reads: Vec<TableReads> = command.option("reads").map_or(Vec::new(), |text| {
            let pair = |pair: &str| {
                let (table, seeks) = pair.split_once(':').expect("a table and how often");
                TableReads { table: TableId(table.parse().unwrap()), seeks: seeks.parse().unwrap() }
            };
            text.split(',').map(pair).collect()
        });
        let now_unix_ms = command.option_or("now", 0);
        then(&PickInput { version, busy, options, oldest_sealed_epoch, demand, now_unix_ms, reads: &reads })
    }

    fn pick(&self, command: &Command) -> Option<Plan> {
        match command.option("table").map(|place| place.split_once(':').expect("a level and a table")) {
            Some((level, table)) => self.rewrite(command, level, table),
            None => self.with_input(command, pick::pick),
        }
    }

    fn rewrite(&self, command: &Command, level: &str, table: &str) -> Option<Plan> {
        let level = Level(level.trim_start_matches('L').parse().expect("a level"));
        let table = TableId(table.trim_start_matches('t').parse().expect("a table"));
        self.with_input(command, |input| pick::rewrite(input, level, table, command.option_or("expired", 0)))
    }

    fn begin(&mut self, command: &Command) -> String {
        let Some(plan) = self.pick(command) else {
            return "nothing\n".to_owned();
        };
        let job = JobId(self.store.next_job);
        self.store.next_job += 1;
        self.store.busy.begin(job, &plan);
        let drawn = format!("{job}: {plan}\n");
        self.running.push((job, plan));
        drawn
    }

    fn job(&self, command: &Command) -> usize {
        let job = JobId(command.parse(0));
        self.running.iter().position(|(id, _)| *id == job).expect("a running job")
    }

    fn install(&mut self, command: &Command) -> String {
        let (job, plan) = self.running.remove(self.job(command));
        self.store.busy.end(job);
        let tables = command.args()[1..].iter().map(|text| table(command, text));
        let tables = tables.map(|table| Arc::new(TableEntry { epoch: plan.table_epoch, ..table })).collect();
        let outputs = compaction::Outputs { tables, collected: Default::default() };
        self.store.install(&plan, Some(&outputs));
        self.store.version.to_string()
    }

    fn targets(&self) -> String {
        let targets = LevelTargets::of(&self.store.version, &self.store.options);
        let mut drawn = format!("base {}", targets.base);
        for (level, bytes) in targets.bytes.iter().enumerate().skip(1) {
            match *bytes {
                0 => {}
                u64::MAX => drawn += &format!(" L{level}=any"),
                bytes => drawn += &format!(" L{level}={bytes}"),
            }
        }
        drawn + "\n"
    }

    fn write(&mut self, command: &Command) -> String {
        for line in command.body_commands() {
            let (run, entries) = line.line().split_once(':').expect("a run, a colon, its entries");
            let (level, epoch) = place(&line, run);
            let entries: Vec<Entry> = entries.split(',').map(|text| entry(&line, text.trim())).collect();
            let outputs = self.store.flush(vec![SliceCursor::new(entries)], level, epoch, &Readers::default()).unwrap();
            self.store.add_run(level, epoch, &outputs.tables);
        }
        self.draw()
    }

    fn compact(&mut self, command: &Command) -> String {
        let Some(plan) = self.pick(command) else {
            return "nothing\n".to_owned();
        };
        let snapshots = command
            .option("snapshots")
            .map_or(Vec::new(), |text| text.split(',').map(|number| seqno(number.parse().unwrap())).collect());
        let readers = Readers { floor: seqno(command.option_or("floor", 0)), snapshots };
        // A job's own.
        self.store.progress = compaction::Progress::default();
        let outputs = self.store.carry_out(&plan, &readers, &|_| {}).unwrap();
        let mut drawn = format!("{plan}\n");
        if let Some(outputs) = &outputs {
            let collected = outputs.collected;
            drawn +=
                &format!("kept {}, hidden {}, tombstones {}\n", collected.kept, collected.hidden, collected.tombstones);
            assert_eq!(self.store.progress.entries_read(), collected.seen());
            assert_eq!(self.store.progress.bytes_written(), outputs.bytes());
        }
        self.store.install(&plan, outputs.as_ref());
        assert_eq!(outputs.is_some(), plan.kind == PlanKind::Merge);
        drawn + &self.draw()
    }

    fn draw(&self) -> String {
        let mut drawn = String::new();
        for (level, run) in self.store.version.runs_newest_first() {
            drawn += &format!("{level} {}:", run.epoch);
            for table in run.tables() {
                let entries: Vec<String> = self.store.entries(&table.entry).iter().map(draw_entry).collect();
                drawn += &format!(" {}[{}]", table.id(), entries.join(", "));
            }
            drawn += "\n";
        }
        if drawn.is_empty() { "no tables\n".to_owned() } else { drawn }
    }
}

fn draw_plan(plan: Option<Plan>) -> String {
    plan.map_or("nothing\n".to_owned(), |plan| format!("{plan}\n"))
}

fn draw_entry((key, trailer, value): &Entry) -> String {
    let value = if value.is_empty() { String::new() } else { format!("={}", value.escape_ascii()) };
    format!("{}{trailer}{value}", key.escape_ascii())
}

/// `a#9 put=x`
fn entry(command: &Command, text: &str) -> Entry {
    let wrong = || -> ! { panic!("line {}: no entry: {text}", command.line_number()) };
    let Some((key, rest)) = text.split_once('#') else { wrong() };
    let Some((number, rest)) = rest.split_once(' ') else { wrong() };
    let (kind, value) = rest.split_once('=').unwrap_or((rest, ""));
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.to_string() == kind) else { wrong() };
    let bytes = |text| unescape(text).unwrap_or_else(|| wrong());
    let number = number.parse().unwrap_or_else(|_| wrong());
    (bytes(key), Trailer::new(seqno(number), kind), bytes(value))
}

/// The ids that tables get do not depend on the order in which scripts run.
#[test]
fn every_story_begins_with_table_one() {
    assert_eq!(Keyspace::default().store.next_table.load(Ordering::Relaxed), 1);
}
