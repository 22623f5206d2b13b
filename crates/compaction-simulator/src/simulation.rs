//! When what happens: a writer that is paced, jobs that take as long as their bytes, and a look at the store now and then.
//!
//! - **C1, P10** What is due and how fast writers may go is asked of the shipped code, with the limits of a database.
//! - **P6** One flush at a time, oldest memtables first; of several threads one is kept for it.
//! - **C4** What a job makes is computed when it begins, from tables that cannot change, and stands from its end on.

use std::collections::VecDeque;
use std::sync::Arc;

use compaction::pick::{self, PickInput};
use compaction::{Busy, Debt, Demand, Load, OlderRuns, Pace, Plan, PlanKind, next_level_bounds};
use internal_key::{Epoch, JobId, Level, TableId};
use manifest::{AddedTable, Change};
use version_history::Version;

use crate::report::Stalls;
use crate::tables::{self, Entries, Entry, KEYSPACE, Outputs, Table, total_bytes};
use crate::{Report, Sample, Setup, Writes};

/// The writer asks for its pace once for so many user bytes.
const STEP_BYTES: u64 = 32 << 10;

/// Looks at the store in the course of the writes.
const SAMPLES: u64 = 100;

/// About so many live keys are looked for in each look.
const PROBES: usize = 500;

/// Runs a setup to its end.
pub fn simulate(setup: &Setup) -> Report {
    let mut simulation = Simulation::new(setup);
    let mut writes = Writes::new(setup.workload, setup.keys, setup.writes, setup.seed);
    for sample in 1..=SAMPLES {
        let until = setup.writes * sample / SAMPLES;
        simulation.write(&mut writes, until);
        simulation.sample();
    }
    simulation.settle()
}

type Placed = (AddedTable, Arc<Table>);

/// What a job does when it ends.
enum Task {
    /// So many of the oldest sealed memtables become a run.
    Flush {
        parts: usize,
    },
    Compact {
        job: JobId,
        plan: Plan,
    },
}

struct Job {
    task: Task,
    made: Vec<Placed>,
    made_bytes: u64,
    /// Bytes that it reads and writes in all, and those left.
    bytes: f64,
    left: f64,
    /// The most bytes per second that its thread does.
    rate: f64,
}

struct Simulation<'a> {
    setup: &'a Setup,
    /// Seconds.
    now: f64,
    written: u64,
    /// In the order of the writes.
    active: Vec<Entry>,
    active_bytes: u64,
    /// Oldest first: entries, memory, the number of the last write.
    sealed: VecDeque<(Vec<Entry>, u64, u64)>,
    version: Version<Entries>,
    busy: Busy,
    jobs: Vec<Job>,
    next_table: u64,
    next_job: u64,
    /// What keeps writers up, as of the last change of the store.
    load: Load,
    /// User bytes and time at the last sample.
    last_sample: (u64, f64),
    report: Report,
}

impl<'a> Simulation<'a> {
    fn new(setup: &'a Setup) -> Self {
        Self {
            setup,
            now: 0.0,
            written: 0,
            active: Vec::new(),
            active_bytes: 0,
            sealed: VecDeque::new(),
            version: Version::default(),
            busy: Busy::new(),
            jobs: Vec::new(),
            next_table: 0,
            next_job: 0,
            load: Load::default(),
            last_sample: (0, 0.0),
            report: Report::default(),
        }
    }

    /// Takes writes until there are `until` of them in all, each step at the pace that the debt allows.
    fn write(&mut self, writes: &mut Writes, until: u64) {
        while self.written < until {
            self.wait_for_room();
            let mut bytes = 0;
            while bytes < STEP_BYTES && self.written < until {
                let Some(write) = writes.next() else { unreachable!("a stream of writes has no end") };
                let user_bytes = self.setup.user_bytes(write.is_delete);
                bytes += user_bytes;
                self.active_bytes += user_bytes + self.setup.memtable_overhead_bytes;
                self.active.push(write.into());
                self.written += 1;
            }
            self.report.user_bytes += bytes;
            let delay = match compaction::pace::pace(&self.setup.limits, &self.load, bytes) {
                Pace::Delay(delay, debt) => {
                    self.report.stalls.delayed[Stalls::index(debt)] += delay.as_secs_f64();
                    self.report.stalls.delayed_bytes += bytes;
                    delay.as_secs_f64()
                }
                _ => 0.0,
            };
            self.run_until(self.now + bytes as f64 / self.setup.writer_rate as f64 + delay);
            if self.active_bytes >= self.setup.memtable_bytes {
                self.seal();
            }
        }
        self.report.write_seconds = self.now;
    }

    /// P10: at a hard limit the writer waits for a job that pays.
    fn wait_for_room(&mut self) {
        let began = self.now;
        let mut why: Option<Debt> = None;
        while let Pace::Wait(debt) = compaction::pace::pace(&self.setup.limits, &self.load, STEP_BYTES) {
            let before = self.now;
            let ended = self.run_to_next_end();
            assert!(ended, "C1: the writer waits for {debt} and nothing is due:\n{}", self.version);
            self.report.stalls.stopped[Stalls::index(debt)] += self.now - before;
            why = Some(debt);
        }
        if why.is_some() {
            self.report.stalls.stops += 1;
            self.report.stalls.longest_stop = self.report.stalls.longest_stop.max(self.now - began);
        }
    }

    fn seal(&mut self) {
        let entries = std::mem::take(&mut self.active);
        self.sealed.push_back((tables::newest_of(entries.into_iter()), self.active_bytes, self.written));
        self.active_bytes = 0;
        self.store_changed(false);
    }

    fn store_changed(&mut self, flush_all: bool) {
        self.begin_jobs(flush_all);
        self.load.l0_runs = self.version.runs(Level::ZERO).len() as u64;
        self.load.sealed_bytes = self.sealed_bytes();
        self.load.l0_runs_coming_thousandths = self.load.sealed_bytes * 1000 / self.flush_bytes();
        self.load.pending_bytes = pick::pending_bytes(&self.version, &self.setup.options);
    }

    fn sealed_bytes(&self) -> u64 {
        self.sealed.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// Bytes of sealed memtables at which a flush is due.
    fn flush_bytes(&self) -> u64 {
        self.setup.write_buffer_bytes.max(1)
    }

    fn is_flushing(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job.task, Task::Flush { .. }))
    }

    /// Gives every thread that is free a job, flushes first.
    fn begin_jobs(&mut self, flush_all: bool) {
        let threads = self.setup.threads.max(1);
        let due = self.sealed_bytes() >= self.flush_bytes() || (flush_all && !self.sealed.is_empty());
        if due && !self.is_flushing() && self.jobs.len() < threads {
            self.begin_flush();
        }
        let compactions_max = (threads - 1).max(1);
        while self.jobs.len() < threads {
            let compactions = self.jobs.iter().filter(|job| matches!(job.task, Task::Compact { .. })).count();
            if compactions >= compactions_max {
                break;
            }
            let plan = pick::pick(&PickInput {
                version: &self.version,
                busy: &self.busy,
                options: &self.setup.options,
                oldest_sealed_epoch: None,
                demand: Demand::Steady,
                now_unix_ms: 0,
                reads: &[],
            });
            let Some(plan) = plan else { break };
            self.begin_compaction(plan);
        }
    }

    fn begin_flush(&mut self) {
        let parts = self.sealed.len();
        let memory = self.sealed_bytes();
        let last = self.sealed.back().map_or(0, |(_, _, last)| *last);
        let mut entries = tables::merge(self.sealed.iter().rev().map(|(entries, _, _)| entries.clone()));
        tables::collect(&mut entries, &mut OlderRuns::all(&self.version));
        let made = self.cut(&entries, &[], (Level::ZERO, Epoch(last)), Epoch(last));
        let made_bytes = made.iter().map(|(place, _)| place.table.bytes).sum();
        self.begin(Task::Flush { parts }, made, memory, made_bytes, self.setup.flush_rate);
    }

    fn begin_compaction(&mut self, plan: Plan) {
        self.next_job += 1;
        let job = JobId(self.next_job);
        self.busy.begin(job, &plan);
        let (mut made, mut read) = (Vec::new(), 0);
        if plan.kind == PlanKind::Merge {
            let is_input = |id: TableId| plan.inputs.iter().any(|(_, input)| *input == id);
            let sources = self.version.runs_newest_first().map(|(_, run)| tables::entries_of(run, is_input));
            let sources: Vec<Vec<Entry>> = sources.filter(|source| !source.is_empty()).collect();
            self.report.untouched_bytes += tables::untouched_bytes(self.setup, &sources);
            let mut entries = tables::merge(sources);
            tables::collect(&mut entries, &mut plan.older_runs(&self.version));
            let bounds = next_level_bounds(&plan, &self.version);
            made = self.cut(&entries, &bounds, (plan.output_level, plan.output_run), plan.table_epoch);
            read = plan.input_bytes;
        }
        let made_bytes = made.iter().map(|(place, _)| place.table.bytes).sum();
        self.begin(Task::Compact { job, plan }, made, read, made_bytes, self.setup.merge_rate);
    }

    fn cut(&mut self, entries: &[Entry], bounds: &[Box<[u8]>], place: (Level, Epoch), epoch: Epoch) -> Vec<Placed> {
        let (level, run) = place;
        let next_table = &mut self.next_table;
        Outputs { setup: self.setup, bounds, level, run, epoch, next_table }.cut(entries)
    }

    /// `rate` is of the bytes read; what is written takes its share of the device beside.
    fn begin(&mut self, task: Task, made: Vec<Placed>, read: u64, made_bytes: u64, rate: u64) {
        let bytes = (read + made_bytes) as f64;
        let rate = if read == 0 { rate as f64 } else { rate as f64 * bytes / read as f64 };
        self.jobs.push(Job { task, made, made_bytes, bytes, left: bytes, rate });
    }

    /// How many bytes a job does per second now, with its share of the device.
    fn rate(&self, job: &Job) -> f64 {
        job.rate.min(self.setup.device_rate as f64 / self.jobs.len() as f64)
    }

    /// The job that ends next, and in how many seconds.
    fn next_end(&self) -> Option<(usize, f64)> {
        let ends = self.jobs.iter().map(|job| job.left / self.rate(job)).enumerate();
        ends.min_by(|(_, left), (_, right)| left.total_cmp(right))
    }

    fn advance(&mut self, seconds: f64) {
        let rates: Vec<f64> = self.jobs.iter().map(|job| self.rate(job)).collect();
        for (job, rate) in self.jobs.iter_mut().zip(rates) {
            job.left = (job.left - rate * seconds).max(0.0);
        }
        self.now += seconds;
    }

    fn run_until(&mut self, time: f64) {
        while let Some((index, seconds)) = self.next_end() {
            if self.now + seconds > time {
                break;
            }
            self.advance(seconds);
            self.end(index, false);
        }
        self.advance(time - self.now);
    }

    /// Lets time pass until a job has ended; `false` if none runs.
    fn run_to_next_end(&mut self) -> bool {
        let Some((index, seconds)) = self.next_end() else { return false };
        self.advance(seconds);
        self.end(index, false);
        true
    }

    fn end(&mut self, index: usize, flush_all: bool) {
        let made = |job: &Job| job.made_bytes as f64 * if job.bytes > 0.0 { 1.0 - job.left / job.bytes } else { 1.0 };
        let standing = total_bytes(&self.version) + self.jobs.iter().map(made).sum::<f64>() as u64;
        self.report.peak_bytes = self.report.peak_bytes.max(standing);
        let Job { task, made, made_bytes, .. } = self.jobs.remove(index);
        match task {
            Task::Flush { parts } => {
                self.sealed.drain(..parts);
                self.report.flushed_bytes += made_bytes;
                self.report.jobs.0 += 1;
                self.replace(&[], &made);
            }
            Task::Compact { job, plan } => {
                self.busy.end(job);
                self.install(&plan, made, made_bytes);
            }
        }
        self.store_changed(flush_all);
    }

    fn install(&mut self, plan: &Plan, mut made: Vec<Placed>, made_bytes: u64) {
        let entries: Vec<_> = made.iter().map(|(place, _)| Arc::clone(&place.table)).collect();
        let Change::ReplaceTables { removed, added, .. } = plan.change(KEYSPACE, &self.version, &entries) else {
            unreachable!("a plan replaces tables")
        };
        match plan.kind {
            PlanKind::Merge => {
                self.report.merged_bytes += made_bytes;
                self.report.read_bytes += plan.input_bytes;
                self.report.jobs.1 += 1;
            }
            PlanKind::Drop => self.report.dropped_bytes += plan.input_bytes,
            _ => {
                self.report.moved_bytes += plan.input_bytes;
                let handle = |id| self.version.tables().find(|(_, table)| table.id() == id).map(|(_, t)| Arc::clone(t));
                made =
                    added.into_iter().filter_map(|place| handle(place.table.id).map(|table| (place, table))).collect();
            }
        }
        self.replace(&removed, &made);
    }

    fn replace(&mut self, removed: &[(Level, TableId)], added: &[Placed]) {
        self.version = self.version.replace(removed, added).expect("C3: running jobs hold their inputs");
    }

    fn sample(&mut self) {
        let limits = &self.setup.limits;
        let share = |load: u64, hard: u64| if hard == 0 { 0.0 } else { load as f64 / hard as f64 };
        let debts = [
            share(self.load.l0_runs, limits.l0_runs),
            share(self.load.sealed_bytes, limits.sealed_bytes),
            share(self.load.pending_bytes, limits.pending_bytes),
        ];
        let (bytes, since) = self.last_sample;
        let rate = (self.report.user_bytes - bytes) as f64 / (self.now - since);
        self.last_sample = (self.report.user_bytes, self.now);
        let seen = look(self.setup, &self.version);
        self.report.samples.push(Sample {
            at: self.now,
            debt: debts.into_iter().fold(0.0, f64::max),
            pace: rate / self.setup.writer_rate as f64,
            space: total_bytes(&self.version) as f64 / seen.live_bytes.max(1) as f64,
            get_runs: seen.get_runs,
            scan_runs: seen.scan_runs,
        });
    }

    /// Flushes what is left, lets every job run that is due, and sums up.
    fn settle(mut self) -> Report {
        let began = self.now;
        if !self.active.is_empty() {
            let entries = std::mem::take(&mut self.active);
            self.sealed.push_back((tables::newest_of(entries.into_iter()), self.active_bytes, self.written));
        }
        self.store_changed(true);
        while let Some((index, seconds)) = self.next_end() {
            self.advance(seconds);
            self.end(index, true);
        }
        let seen = look(self.setup, &self.version);
        let mut report = self.report;
        report.settle_seconds = self.now - began;
        report.settled_live_bytes = seen.live_bytes;
        report.settled_levels = std::array::from_fn(|level| self.version.bytes(Level(level as u8)));
        report.settled_space = total_bytes(&self.version) as f64 / seen.live_bytes.max(1) as f64;
        let half = &report.samples[report.samples.len() / 2..];
        let mean = |of: fn(&Sample) -> f64| half.iter().map(of).sum::<f64>() / half.len() as f64;
        report.space = mean(|sample| sample.space);
        report.get_runs = mean(|sample| sample.get_runs);
        report.scan_runs = mean(|sample| sample.scan_runs);
        report
    }
}

/// What the tables hold that a reader would find.
struct Seen {
    live_bytes: u64,
    get_runs: f64,
    scan_runs: f64,
}

fn look(setup: &Setup, version: &Version<Entries>) -> Seen {
    let newest_first = || version.runs_newest_first().flat_map(|(_, run)| run.tables());
    let last_key = newest_first().filter_map(|table| table.slot.last()).map(|entry| entry.key()).max();
    let mut met = vec![0_u64; last_key.map_or(0, |key| key as usize / 64 + 1)];
    let mut live = Vec::new();
    for entry in newest_first().flat_map(|table| table.slot.iter()) {
        let (word, bit) = (entry.key() as usize / 64, 1 << (entry.key() % 64));
        if met[word] & bit == 0 {
            met[word] |= bit;
            if !entry.is_delete() {
                live.push(entry.key());
            }
        }
    }
    live.sort_unstable();
    let (mut probes, mut get_runs, mut scan_runs) = (0_u64, 0_u64, 0_u64);
    for key in live.iter().step_by(live.len() / PROBES + 1) {
        let bytes = tables::key_bytes(*key);
        probes += 1;
        let mut is_found = false;
        for (_, run) in version.runs_newest_first() {
            let spans = run.tables().first().is_some_and(|first| *first.entry.min_key <= bytes[..])
                && run.tables().last().is_some_and(|last| bytes[..] <= *last.entry.max_key);
            scan_runs += u64::from(spans);
            if let Some(table) = run.find(&bytes).filter(|_| !is_found) {
                get_runs += 1;
                is_found = table.slot.binary_search_by_key(key, |entry| entry.key()).is_ok();
            }
        }
    }
    let mean = |runs: u64| runs as f64 / probes.max(1) as f64;
    Seen {
        live_bytes: live.len() as u64 * setup.user_bytes(false),
        get_runs: mean(get_runs),
        scan_runs: mean(scan_runs),
    }
}
