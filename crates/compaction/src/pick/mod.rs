//! Decides what to compact: a version goes in, a plan comes out. No I/O, no clock, no randomness, no state.
//!
//! ```text
//!   version ─┐
//!   busy    ─┼─▶ pick ─▶ check (C3) ─▶ plan ─▶ the caller begins it in `busy` under the same lock
//!   options ─┘
//! ```
//!
//! - **C1** Work is due at 85 % of each limit, so that the limit itself is rarely met.
//! - **C3** Of level 0 the oldest runs go first; whatever older overlaps an input goes with it; what running jobs hold,
//!   and where their outputs come out, is left alone. Each plan is checked before it is returned.

pub mod fifo;
pub mod leveled;
pub mod reads;
pub mod tiered;

mod ahead;
mod range;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

use internal_key::{Epoch, Level, SeqNo, TableId};
use version_history::{Run, Table, Version};

pub use ahead::bytes_ahead;
pub use fifo::Fifo;
pub use leveled::{LevelTargets, Leveled};
pub use reads::{SEEK_BYTES, TableReads};
pub use tiered::Tiered;

use crate::plan::{Busy, Plan, PlanKind, Reason};
use crate::{CompactionOptions, Strategy};

/// What somebody wants of the picker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Demand<'a> {
    /// What limits demand, and no more.
    #[default]
    Steady,
    /// The keyspace is idle: also what only makes reads cheaper.
    Idle,
    /// Everything that overlaps a range of keys goes down to the last level, step by step (`compact_range`).
    Range(KeyRange<'a>),
}

/// A range of user keys that is to be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The smallest key.
    pub min: &'a [u8],
    /// The largest key, inclusive; `None` for no end.
    pub max: Option<&'a [u8]>,
    /// Tables of the last level with tombstones and an id below this are rewritten too. The next table id at the time of
    /// the request: what the request itself writes is not written again. `TableId(0)` for none.
    pub rewrite_before: TableId,
    /// What was written later may stay where it is: a table above the last level that holds nothing up to this sequence
    /// number asks for no step. What was visible at the time of the request, so that a request ends though writing goes
    /// on (P9); [`SeqNo::MAX`] for everything.
    pub through: SeqNo,
}

impl KeyRange<'_> {
    fn overlaps<S>(&self, table: &Table<S>) -> bool {
        *self.min <= *table.entry.max_key && self.max.is_none_or(|max| *table.entry.min_key <= *max)
    }

    /// Whether a table above the last level has to go down for this range.
    fn wants<S>(&self, table: &Table<S>) -> bool {
        self.overlaps(table) && table.entry.min_seqno <= self.through
    }
}

/// What a picker looks at. One keyspace.
pub struct PickInput<'a, S> {
    /// Its tables.
    pub version: &'a Version<S>,
    /// What running jobs hold.
    pub busy: &'a Busy,
    /// How it is to be compacted.
    pub options: &'a CompactionOptions,
    /// The epoch of its oldest sealed memtable. Runs of level 0 that are as new or newer stay where they are: that
    /// memtable's table must come out below them (C3).
    pub oldest_sealed_epoch: Option<Epoch>,
    /// What is wanted.
    pub demand: Demand<'a>,
    /// The Unix time in milliseconds: what is written before a certain age is dropped under [`Strategy::Fifo`].
    pub now_unix_ms: u64,
    /// The tables that readers sought places in, in any order; none where reading is no reason to merge.
    pub reads: &'a [TableReads],
}

impl<S> Clone for PickInput<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for PickInput<'_, S> {}

/// A policy: which tables to compact next.
pub trait Picker {
    /// The most pressing plan, or `None` if nothing is due or what is due is held by running jobs. Equal inputs give
    /// equal plans.
    fn pick<S>(&self, input: &PickInput<'_, S>) -> Option<Plan>;
}

impl Picker for Strategy {
    /// # Panics
    /// If the chosen policy breaks C3: a wrong plan would let old data hide new data.
    fn pick<S>(&self, input: &PickInput<'_, S>) -> Option<Plan> {
        let plan = match self {
            Self::Leveled => Leveled.pick(input),
            Self::Tiered => Tiered.pick(input),
            Self::Fifo => Fifo.pick(input),
        }?;
        if let Err(conflict) = plan.check(input.version, input.busy) {
            panic!("C3: {plan}: {conflict}");
        }
        Some(plan)
    }
}

/// The most pressing plan under the strategy that the options name.
///
/// # Panics
/// As [`Strategy`]'s [`Picker::pick`].
pub fn pick<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    input.options.strategy.pick(input)
}

/// The plan that writes one table anew where it stands, without the `expired` entries that nobody can see any more
/// (C2); `None` if it is not there, or a running job holds it. What has expired is the caller's to know: pickers look at no
/// table's inside.
///
/// # Panics
/// As [`pick`].
pub fn rewrite<S>(input: &PickInput<'_, S>, level: Level, table: TableId, expired: u64) -> Option<Plan> {
    let found =
        input.version.runs(level).iter().find_map(|run| {
            run.tables().iter().find(|candidate| candidate.id() == table).map(|found| (run.epoch, found))
        });
    let (run, table) = found?;
    let mut draft = Draft::new();
    draft.add(level, run, [table]);
    let reason = Reason::History { level, expired, entries: table.entry.entries };
    let plan = draft.finish(input, PlanKind::Merge, reason, level, run)?;
    if let Err(conflict) = plan.check(input.version, input.busy) {
        panic!("C3: {plan}: {conflict}");
    }
    Some(plan)
}

/// Whether nothing is left to do for a range: everything in it that the request is about lies in the last level, in one run, and no table there
/// waits to be rewritten. Under [`Strategy::Fifo`] a range is never compacted, so it is always settled.
///
/// While this is `false` and [`pick`] returns `None`, running jobs hold what is needed.
pub fn is_settled<S>(input: &PickInput<'_, S>, range: KeyRange<'_>) -> bool {
    input.options.strategy == Strategy::Fifo || range::next_step(input, range) == range::Step::Settled
}

/// The Unix time in milliseconds from which on [`pick`] has a run to drop for its age, if there is an age.
pub fn expires_at_unix_ms<S>(version: &Version<S>, options: &CompactionOptions) -> Option<u64> {
    if options.strategy == Strategy::Fifo { fifo::expires_at_unix_ms(version, options) } else { None }
}

/// Estimates how many bytes compaction has to read before every level is within its limit: the debt that writers are
/// delayed in proportion to (P10). Zero when nothing is due.
///
/// Level 0 counts whole once it triggers work, with the part of the next level that it meets; what a level has above its
/// target counts with its share of the next level.
pub fn pending_bytes<S>(version: &Version<S>, options: &CompactionOptions) -> u64 {
    match options.strategy {
        Strategy::Leveled => leveled::pending_bytes(version, options),
        Strategy::Tiered => tiered::pending_bytes(version, options),
        Strategy::Fifo => fifo::pending_bytes(version, options),
    }
}

impl<'a, S> PickInput<'a, S> {
    /// The runs of a level that may be compacted at all, newest first.
    fn eligible(&self, level: Level) -> &'a [Run<S>] {
        let runs = self.version.runs(level);
        match self.oldest_sealed_epoch {
            Some(sealed) if level == Level::ZERO => &runs[runs.partition_point(|run| run.epoch >= sealed)..],
            _ => runs,
        }
    }

    fn is_free(&self, table: &Table<S>) -> bool {
        self.busy.is_empty() || self.busy.holder(table.id()).is_none()
    }

    fn is_run_free(&self, run: &Run<S>) -> bool {
        self.busy.is_empty() || run.tables().iter().all(|table| self.is_free(table))
    }

    /// Bytes of the tables of a level that no job holds.
    fn free_bytes(&self, level: Level) -> u64 {
        let tables = self.version.runs(level).iter().flat_map(Run::tables);
        tables.filter(|table| self.is_free(table)).map(|table| table.entry.bytes).sum()
    }

    /// The first level below `level`, at most `deepest`, that holds a table or will; `deepest` if there is none.
    fn destination(&self, level: Level, deepest: Level) -> Level {
        let held = |level: Level| !self.version.runs(level).is_empty() || self.busy.output_run(level).is_some();
        let between = (level.0 + 1..deepest.0).map(Level);
        between.into_iter().find(|&level| held(level)).unwrap_or(deepest)
    }

    /// The run that everything compacted into `level`, below 0, joins: the newest that stands or that a running job is
    /// about to make; else one as old as the oldest run above, so that the epochs never rise from level to level.
    fn run_of(&self, level: Level) -> Epoch {
        if let Some(run) = self.version.runs(level).first() {
            return run.epoch;
        }
        let above = (0..level.0).rev().find_map(|above| self.version.runs(Level(above)).last().map(|run| run.epoch));
        let above = above.unwrap_or_default();
        // A job of another policy may be about to make a run that is newer than what it leaves above: keep apart.
        self.busy.output_run(level).filter(|run| *run <= above).unwrap_or(above)
    }
}

/// A plan in the making.
struct Draft<'a, S> {
    tables: Vec<(Level, Epoch, &'a Arc<Table<S>>)>,
}

impl<'a, S> Draft<'a, S> {
    fn new() -> Self {
        Self { tables: Vec::new() }
    }

    fn add_run(&mut self, level: Level, run: &'a Run<S>) {
        self.add(level, run.epoch, run.tables());
    }

    fn add(&mut self, level: Level, run: Epoch, tables: impl IntoIterator<Item = &'a Arc<Table<S>>>) {
        self.tables.extend(tables.into_iter().map(|table| (level, run, table)));
    }

    fn bytes(&self) -> u64 {
        self.tables.iter().map(|(_, _, table)| table.entry.bytes).sum()
    }

    /// The ids of the tables, for who asks of many whether they are held: a draft may have tens of thousands.
    fn ids(&self) -> HashSet<TableId> {
        self.tables.iter().map(|(_, _, table)| table.id()).collect()
    }

    /// The smallest and the largest user key.
    fn hull(&self) -> Option<(&'a [u8], &'a [u8])> {
        let min = self.tables.iter().map(|(_, _, table)| &*table.entry.min_key).min()?;
        let max = self.tables.iter().map(|(_, _, table)| &*table.entry.max_key).max()?;
        Some((min, max))
    }

    /// Adds every table of `level` that lies between the smallest and the largest key, until no more do.
    fn add_overlapping(&mut self, version: &'a Version<S>, level: Level) {
        let mut held = self.ids();
        while let Some((min, max)) = self.hull() {
            let before = self.tables.len();
            for run in version.runs(level) {
                let met = run.overlapping(min, max).iter();
                self.add(level, run.epoch, met.filter(|table| held.insert(table.id())));
            }
            if self.tables.len() == before {
                break;
            }
        }
    }

    fn is_free(&self, input: &PickInput<'_, S>) -> bool {
        self.tables.iter().all(|(_, _, table)| input.is_free(table))
    }

    /// Whether no two of the tables overlap, so that they could stand in one run as they are.
    fn is_disjoint(&self) -> bool {
        let mut bounds: Vec<(&[u8], &[u8])> =
            self.tables.iter().map(|(_, _, table)| (&*table.entry.min_key, &*table.entry.max_key)).collect();
        bounds.sort_unstable();
        bounds.windows(2).all(|pair| pair[0].1 < pair[1].0)
    }

    /// The plan, or `None` if running jobs hold what it needs or there is nothing in it.
    fn finish(
        mut self,
        input: &PickInput<'_, S>,
        kind: PlanKind,
        reason: Reason,
        output_level: Level,
        output_run: Epoch,
    ) -> Option<Plan> {
        let (min, max) = self.hull()?;
        let held = kind != PlanKind::Drop && input.busy.writes_into(output_level, output_run, min, max).is_some();
        if held || !self.is_free(input) {
            return None;
        }
        self.tables.sort_by(|(level, run, table), (other_level, other_run, other)| {
            let place = (level, Reverse(run)).cmp(&(other_level, Reverse(other_run)));
            place.then_with(|| table.entry.min_key.cmp(&other.entry.min_key))
        });
        Some(Plan {
            kind,
            reason,
            inputs: self.tables.iter().map(|(level, _, table)| (*level, table.id())).collect(),
            output_level,
            output_run,
            table_epoch: self.tables.iter().map(|(_, _, table)| table.entry.epoch).max().unwrap_or_default(),
            min_key: min.into(),
            max_key: max.into(),
            input_bytes: self.bytes(),
        })
    }
}

/// Whether rest is a reason to merge `newer` bytes into `older` ones: not if more than twenty are rewritten for each, unless
/// those are as few as a small keyspace has. So what is left above is a twentieth of what it stands above at most.
fn is_worth_rest<S>(input: &PickInput<'_, S>, newer: u64, older: u64) -> bool {
    let is_in_proportion = newer.saturating_mul(20) >= older;
    is_in_proportion
        || older <= input.options.small_bytes()
        || planted_faults::planted("compaction-rest-out-of-proportion")
}

/// Merges the newest runs of one level into one because of rest: as many as no job holds, as have `bytes_max` bytes
/// together, and as are in proportion to what is newer ([`is_worth_rest`]).
fn merge_newest<S>(input: &PickInput<'_, S>, level: Level, bytes_max: u64) -> Option<Plan> {
    let mut draft = Draft::new();
    for run in input.eligible(level) {
        let (newer, bytes): (u64, u64) = (draft.bytes(), run.tables().iter().map(|table| table.entry.bytes).sum());
        let is_first = draft.tables.is_empty();
        if !input.is_run_free(run) || !(is_first || (newer + bytes <= bytes_max && is_worth_rest(input, newer, bytes)))
        {
            break;
        }
        draft.add_run(level, run);
    }
    let (newest, oldest) = (draft.tables.first()?.1, draft.tables.last()?.1);
    if newest == oldest {
        return None;
    }
    let kind = if draft.is_disjoint() { PlanKind::Move } else { PlanKind::Merge };
    draft.finish(input, kind, Reason::Idle, level, newest)
}

/// Merges neighbouring runs of one level into one at the place of the newest: fewer runs to read, nothing below is
/// touched. Takes the oldest stretch of at least `least` runs that no job holds and that have `bytes_max` bytes together.
fn merge_within<S>(
    input: &PickInput<'_, S>,
    level: Level,
    least: usize,
    bytes_max: u64,
    reason: Reason,
) -> Option<Plan> {
    let least = least.max(2);
    let mut stretch: Vec<&Run<S>> = Vec::new();
    let mut bytes = 0;
    for run in input.eligible(level).iter().rev() {
        let run_bytes: u64 = run.tables().iter().map(|table| table.entry.bytes).sum();
        let fits = input.is_run_free(run) && bytes + run_bytes <= bytes_max;
        if fits {
            bytes += run_bytes;
            stretch.push(run);
        } else if stretch.len() >= least {
            break;
        } else {
            // A run that may not go divides: what is newer must not pass it.
            stretch.clear();
            bytes = 0;
        }
    }
    if stretch.len() < least {
        return None;
    }
    let newest = stretch.last()?.epoch;
    let mut draft = Draft::new();
    stretch.iter().for_each(|run| draft.add_run(level, run));
    let kind = if draft.is_disjoint() { PlanKind::Move } else { PlanKind::Merge };
    draft.finish(input, kind, reason, level, newest)
}
