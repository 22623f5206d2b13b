//! What a picker decides: which tables go, and where their entries come out.
//!
//! ```text
//!   newest                                   a plan takes tables out of their places and puts their entries
//!   L0  e9  ▒▒▒▒▒▒▒▒▒▒▒▒                     at one place, (output_level, output_run):
//!   L0  e8  ▓▓▓▓▓▓  ▓▓▓▓▓ ─┐
//!   L0  e7     ▓▓▓▓▓▓▓    ─┼─▶ merge         C3: whatever overlaps an input and lies between its place
//!   L1  e3  ▓▓▓ ▓▓▓▓ ▓▓▓▓ ─┘   to L1 e3          and the output's is an input too
//!   L2  e1  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒
//!   oldest                                   ▓ inputs   ▒ left alone
//! ```
//!
//! - **C2** [`OlderRuns`] knows whether a run outside the inputs may hold something older than what comes out.
//! - **C3** [`Plan::check`] holds a plan against a version and the running jobs: newer data never moves below older data
//!   that overlaps it, and no run comes to overlap itself.
//! - **C4** A plan changes nothing; [`Plan::change`] is the one edit that installs it.
//!
//! The place of a run is its level and, within the level, its epoch: of two runs in different levels the upper is newer,
//! of two in one level the one with the larger epoch. Leveled compaction keeps more than that: read from newest to
//! oldest, its epochs never rise.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, TableId};
use manifest::{AddedTable, Change, TableEntry};
use version_history::{Run, Table, Version};

/// How a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PlanKind {
    /// The tables are named in another place; no byte is rewritten.
    Move,
    /// The tables are merged into new ones.
    Merge,
    /// The tables go and nothing replaces them ([`Strategy::Fifo`](crate::Strategy::Fifo) alone).
    Drop,
}

/// Why a plan was made; what logs and metrics show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// A level has more runs than it should.
    Runs {
        /// The level.
        level: Level,
        /// How many of its runs no job holds.
        runs: usize,
    },
    /// A level has more bytes than it should.
    Bytes {
        /// The level.
        level: Level,
        /// How many of its bytes no job holds.
        bytes: u64,
        /// How many it should have.
        target: u64,
    },
    /// The whole keyspace has more bytes than it should.
    Total {
        /// How many bytes no job holds.
        bytes: u64,
        /// How many it should have.
        target: u64,
    },
    /// Half of what a table holds, or more, is tombstones: what they hide and they themselves are of no use to anybody.
    Tombstones {
        /// The level.
        level: Level,
        /// How many there are in the table.
        tombstones: u64,
        /// Among how many entries.
        entries: u64,
    },
    /// A table holds versions, or tombstones, that are no longer kept for readers of the past.
    History {
        /// The level.
        level: Level,
        /// How many there are in the table.
        expired: u64,
        /// Among how many entries.
        entries: u64,
    },
    /// The newest row of a run is older than rows should be.
    Age {
        /// How old it is, in milliseconds; of several runs in the newest.
        age_ms: u64,
        /// How old it may be.
        limit_ms: u64,
    },
    /// Places were sought in tables that it does away with, as often as to have cost what the merge costs.
    Reads {
        /// How often.
        seeks: u64,
    },
    /// Nothing presses, and fewer runs read faster.
    Idle,
    /// Somebody asked for a range of keys to be compacted.
    Range,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs { level, runs } => write!(f, "{runs} runs in {level}"),
            Self::Bytes { level, bytes, target } => write!(f, "{bytes} bytes in {level}, target {target}"),
            Self::Total { bytes, target } => write!(f, "{bytes} bytes in all, target {target}"),
            Self::Tombstones { level, tombstones, entries } => {
                write!(f, "{tombstones} of {entries} entries in {level} are tombstones")
            }
            Self::History { level, expired, entries } => {
                write!(f, "{expired} of {entries} entries in {level} are history that is kept no longer")
            }
            Self::Age { age_ms, limit_ms } => write!(f, "newest row {age_ms} ms old, limit {limit_ms}"),
            Self::Reads { seeks } => write!(f, "{seeks} seeks paid for it"),
            Self::Idle => f.write_str("idle"),
            Self::Range => f.write_str("range asked for"),
        }
    }
}

/// What one compaction takes and where its entries come out. Pure data: making one touches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How it is carried out.
    pub kind: PlanKind,
    /// Why it was made.
    pub reason: Reason,
    /// The tables that go, newest place first and ascending within a run. Never empty.
    pub inputs: Vec<(Level, TableId)>,
    /// The level that the outputs join.
    pub output_level: Level,
    /// The run that the outputs join, created if the level has none of that epoch.
    pub output_run: Epoch,
    /// The largest [`TableEntry::epoch`] among the inputs: what every output carries.
    pub table_epoch: Epoch,
    /// The smallest user key of the inputs.
    pub min_key: Box<[u8]>,
    /// The largest user key of the inputs, inclusive.
    pub max_key: Box<[u8]>,
    /// Bytes of the input tables.
    pub input_bytes: u64,
}

impl PlanKind {
    /// The word that tools tell kinds apart by: none is ever renamed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Merge => "merge",
            Self::Drop => "drop",
        }
    }
}

impl Reason {
    /// The word that tools tell reasons apart by, without their figures: none is ever renamed.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Runs { .. } => "runs",
            Self::Bytes { .. } => "bytes",
            Self::Total { .. } => "total",
            Self::Tombstones { .. } => "tombstones",
            Self::History { .. } => "history",
            Self::Age { .. } => "age",
            Self::Reads { .. } => "reads",
            Self::Idle => "idle",
            Self::Range => "range",
        }
    }
}

/// Draws the plan as golden scripts write it: `merge L0 t4 t5 + L6 t1 -> L6 e1 [a..z]: 3 runs in L0`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.word())?;
        let mut last = None;
        for (level, id) in &self.inputs {
            match last {
                Some(at) if at == level => {}
                Some(_) => write!(f, " + {level}")?,
                None => write!(f, " {level}")?,
            }
            last = Some(level);
            write!(f, " {id}")?;
        }
        if self.kind != PlanKind::Drop {
            write!(f, " -> {} {}", self.output_level, self.output_run)?;
        }
        write!(f, " [{}..{}]: {}", self.min_key.escape_ascii(), self.max_key.escape_ascii(), self.reason)
    }
}

/// Why a plan does not fit a version and the running jobs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// An input is not where the plan says: the plan was made for another version.
    #[error("input {table} is not in {level}")]
    NotThere {
        /// Where it was expected.
        level: Level,
        /// The input.
        table: TableId,
    },
    /// A running job holds an input.
    #[error("input {table} is held by {job}")]
    Held {
        /// The input.
        table: TableId,
        /// Who holds it.
        job: JobId,
    },
    /// A running job puts tables of the same keys into the same run.
    #[error("{job} writes overlapping keys into {level} {run}")]
    OutputHeld {
        /// The output level of both.
        level: Level,
        /// The output run of both.
        run: Epoch,
        /// The running job.
        job: JobId,
    },
    /// An input would pass a table that overlaps it (C3).
    #[error("input {table} would pass {other} in {level}, which overlaps it")]
    Passes {
        /// The input.
        table: TableId,
        /// Where the other table is.
        level: Level,
        /// The table that is no input.
        other: TableId,
    },
    /// The output run would overlap itself (C3).
    #[error("the outputs would overlap {table} in their own run, {level} {run}")]
    RunOverlaps {
        /// The output level.
        level: Level,
        /// The output run.
        run: Epoch,
        /// A table in it, or an input that is moved there.
        table: TableId,
    },
}

/// Every table of a version with the place of its run.
type Places<'a, S> = HashMap<TableId, ((Level, Epoch), &'a Arc<Table<S>>)>;

/// A run's place: `true` if `left` is newer than `right`.
fn is_newer(left: (Level, Epoch), right: (Level, Epoch)) -> bool {
    left.0 < right.0 || (left.0 == right.0 && left.1 > right.1)
}

impl Plan {
    /// Holds the plan against a version and the running jobs (C3).
    ///
    /// Costs a search per input and run, so that every plan is checked before it is returned by a picker.
    ///
    /// # Errors
    /// The first [`Conflict`], in the order of the inputs.
    pub fn check<S>(&self, version: &Version<S>, busy: &Busy) -> Result<(), Conflict> {
        let mut places: Places<'_, S> = HashMap::new();
        for (level, run) in version.runs_newest_first() {
            for table in run.tables() {
                places.insert(table.id(), ((level, run.epoch), table));
            }
        }
        let chosen: BTreeSet<TableId> = self.inputs.iter().map(|(_, id)| *id).collect();
        let output = (self.output_level, self.output_run);
        if self.kind != PlanKind::Drop
            && let Some(job) = busy.writes_into(output.0, output.1, &self.min_key, &self.max_key)
        {
            return Err(Conflict::OutputHeld { level: output.0, run: output.1, job });
        }
        for &(level, id) in &self.inputs {
            let Some(&(place, table)) = places.get(&id).filter(|((at, _), _)| *at == level) else {
                return Err(Conflict::NotThere { level, table: id });
            };
            if let Some(job) = busy.holder(id) {
                return Err(Conflict::Held { table: id, job });
            }
            let TableEntry { min_key, max_key, .. } = &*table.entry;
            for (at, run) in version.runs_newest_first() {
                let between = (at, run.epoch);
                let passed = match self.kind {
                    // What is dropped must not bring something older to light.
                    PlanKind::Drop => is_newer(place, between),
                    _ if is_newer(place, output) => is_newer(place, between) && is_newer(between, output),
                    _ => is_newer(between, place) && is_newer(output, between),
                };
                if !passed {
                    continue;
                }
                if let Some(other) = run.overlapping(min_key, max_key).iter().find(|t| !chosen.contains(&t.id())) {
                    return Err(Conflict::Passes { table: id, level: at, other: other.id() });
                }
            }
        }
        self.check_output_run(version, &chosen, &places)
    }

    fn check_output_run<S>(
        &self,
        version: &Version<S>,
        chosen: &BTreeSet<TableId>,
        places: &Places<'_, S>,
    ) -> Result<(), Conflict> {
        let overlaps = |table: TableId| Conflict::RunOverlaps { level: self.output_level, run: self.output_run, table };
        let run = version.runs(self.output_level).iter().find(|run| run.epoch == self.output_run);
        let stays = |min: &[u8], max: &[u8]| {
            run.and_then(|run| run.overlapping(min, max).iter().find(|table| !chosen.contains(&table.id())))
        };
        match self.kind {
            PlanKind::Drop => Ok(()),
            // An output may span everything between two inputs.
            PlanKind::Merge => match stays(&self.min_key, &self.max_key) {
                Some(table) => Err(overlaps(table.id())),
                None => Ok(()),
            },
            PlanKind::Move => {
                let mut moved: Vec<&Arc<Table<S>>> = self.inputs.iter().map(|(_, id)| places[id].1).collect();
                moved.sort_by(|left, right| left.entry.min_key.cmp(&right.entry.min_key));
                if let Some(pair) = moved.windows(2).find(|pair| pair[0].entry.max_key >= pair[1].entry.min_key) {
                    return Err(overlaps(pair[1].id()));
                }
                let table = moved.iter().find_map(|table| stays(&table.entry.min_key, &table.entry.max_key));
                table.map_or(Ok(()), |table| Err(overlaps(table.id())))
            }
        }
    }

    /// The change that installs the plan: its inputs out, `outputs` in (C4). A [`PlanKind::Move`] takes its outputs from
    /// `version`, where its inputs stand, and a [`PlanKind::Drop`] has none: both ignore `outputs`.
    pub fn change<S>(&self, keyspace: KeyspaceId, version: &Version<S>, outputs: &[Arc<TableEntry>]) -> Change {
        let place = |table: Arc<TableEntry>| AddedTable { level: self.output_level, run: self.output_run, table };
        let added = match self.kind {
            PlanKind::Drop => Vec::new(),
            PlanKind::Merge => outputs.iter().cloned().map(place).collect(),
            PlanKind::Move => {
                let moved: BTreeSet<TableId> = self.inputs.iter().map(|(_, id)| *id).collect();
                let tables = version.tables().filter(|(_, table)| moved.contains(&table.id()));
                tables.map(|(_, table)| place(Arc::clone(&table.entry))).collect()
            }
        };
        Change::ReplaceTables { keyspace, removed: self.inputs.clone(), added, flushed_seqno: None }
    }

    /// The runs outside the inputs that may hold older versions of what comes out (C2).
    pub fn older_runs<'a, S>(&self, version: &'a Version<S>) -> OlderRuns<'a, S> {
        OlderRuns::below(version, self.output_level, self.output_run)
    }
}

/// Which runs lie below a place, asked key by key in ascending order (C2).
///
/// Everything newer than that place is newer than what comes out there; what overlaps and lies between an input and the
/// place is an input itself (C3). So only what is older than the place can hold what a tombstone hides.
#[derive(Debug)]
pub struct OlderRuns<'a, S> {
    /// Each run with the index of its first table that does not lie before the last key asked for.
    runs: Vec<(&'a Run<S>, usize)>,
}

impl<'a, S> OlderRuns<'a, S> {
    /// The runs older than run `epoch` of `level`.
    pub fn below(version: &'a Version<S>, level: Level, epoch: Epoch) -> Self {
        let older = |(at, run): &(Level, &Run<S>)| is_newer((level, epoch), (*at, run.epoch));
        let runs = version.runs_newest_first().filter(|place| {
            if planted_faults::planted("compaction-older-runs-forget-level-zero") && place.0 == Level::ZERO {
                return false;
            }
            older(place)
        });
        Self { runs: runs.map(|(_, run)| (run, 0)).collect() }
    }

    /// Every run of the version: what a flush asks, besides the sealed memtables that are older than its inputs.
    pub fn all(version: &'a Version<S>) -> Self {
        Self { runs: version.runs_newest_first().map(|(_, run)| (run, 0)).collect() }
    }

    /// Whether a table of these runs has `user_key` within its bounds. Keys must not descend from call to call; a whole
    /// pass costs a step per table, no search.
    ///
    /// Tables hold no range-delete so far. Once they do, their bounds have to include what it spans.
    pub fn may_hold(&mut self, user_key: &[u8]) -> bool {
        let mut held = false;
        for (run, next) in &mut self.runs {
            let tables = run.tables();
            while *next < tables.len() && *tables[*next].entry.max_key < *user_key {
                *next += 1;
            }
            held |= tables.get(*next).is_some_and(|table| *table.entry.min_key <= *user_key);
        }
        held
    }
}

/// What the running jobs of a keyspace hold: their inputs, and the place and keys of their outputs (C3).
#[derive(Debug, Clone, Default)]
pub struct Busy {
    jobs: Vec<(JobId, Plan)>,
    held: HashMap<TableId, JobId>,
}

impl Busy {
    /// No job runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// A job begins to carry out `plan`.
    ///
    /// # Panics
    /// If another job holds one of its inputs (C3): plans are made and begun under one lock.
    pub fn begin(&mut self, job: JobId, plan: &Plan) {
        for (_, table) in &plan.inputs {
            let earlier = self.held.insert(*table, job);
            assert!(earlier.is_none(), "C3: {table} is held by {earlier:?} and taken by {job}");
        }
        self.jobs.push((job, plan.clone()));
    }

    /// The job has been installed, or has failed. Returns its plan, or `None` if no such job runs.
    pub fn end(&mut self, job: JobId) -> Option<Plan> {
        let at = self.jobs.iter().position(|(id, _)| *id == job)?;
        self.held.retain(|_, holder| *holder != job);
        Some(self.jobs.remove(at).1)
    }

    /// The job that holds `table` as an input.
    pub fn holder(&self, table: TableId) -> Option<JobId> {
        self.held.get(&table).copied()
    }

    /// Whether no job runs.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The running jobs, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &Plan)> {
        self.jobs.iter().map(|(job, plan)| (*job, plan))
    }

    /// The job that puts tables with keys between `min` and `max`, both inclusive, into run `run` of `level`.
    pub fn writes_into(&self, level: Level, run: Epoch, min: &[u8], max: &[u8]) -> Option<JobId> {
        let clashes = |plan: &Plan| {
            plan.kind != PlanKind::Drop
                && plan.output_level == level
                && plan.output_run == run
                && *plan.min_key <= *max
                && *min <= *plan.max_key
        };
        self.jobs.iter().find(|(_, plan)| clashes(plan)).map(|(job, _)| *job)
    }

    /// The run that a running job puts tables into at `level`, if there is one.
    pub(crate) fn output_run(&self, level: Level) -> Option<Epoch> {
        let mut plans = self.jobs.iter().map(|(_, plan)| plan).filter(|plan| plan.kind != PlanKind::Drop);
        plans.find(|plan| plan.output_level == level).map(|plan| plan.output_run)
    }
}
