//! The leveled policy: one run per level below 0, sizes derived from the largest level.
//!
//! ```text
//!   L0   ▓ ▓ ▓            runs of flushes; 10 of 12 allowed trigger work (C1), 3 of 4 where that rewrites little
//!   L1                    ┐ levels above the base stay empty
//!   …                     ┘
//!   L4   ▓▓               base level: the first whose target is within level_base_bytes
//!   L5   ▓▓▓▓▓▓▓▓         target: a tenth of the level below
//!   L6   ▓▓▓▓▓▓▓▓▓▓▓…     the largest level's size stands here; never over its target
//! ```
//!
//! A table that is half tombstones goes down though its level is within its target: what is deleted otherwise keeps its
//! place until so much else has come that the level is full. So does what reading has paid for ([`reads`]). And an idle keyspace, if it is not too large, is brought to
//! one run, level by level.
//!
//! Sizes from the bottom up keep nine tenths of the data in the last level however much there is, so that dead versions
//! are a tenth of the space at most in the steady state.

use std::collections::HashSet;
use std::sync::Arc;

use internal_key::{Level, TableId};
use version_history::{Run, Table, Version};

use crate::CompactionOptions;
use crate::pick::{Demand, Draft, PickInput, Picker, is_worth_rest, merge_newest, merge_within, range, reads};
use crate::plan::{Plan, PlanKind, Reason};

/// One run per level below 0. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leveled;

/// How many bytes each level should have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelTargets {
    /// Where level 0 is compacted into.
    pub base: Level,
    /// By level. Level 0 is limited by runs and has `u64::MAX`, as has the last; levels above the base have 0.
    pub bytes: [u64; Level::COUNT],
}

impl LevelTargets {
    /// The targets of a version.
    pub fn of<S>(version: &Version<S>, options: &CompactionOptions) -> Self {
        let largest = (1..Level::COUNT as u8).map(|level| version.bytes(Level(level))).max().unwrap_or(0);
        let mut bytes = [0; Level::COUNT];
        bytes[0] = u64::MAX;
        let mut base = Level::LAST;
        let mut target = largest;
        while target > options.level_base_bytes && base.0 > 1 {
            base = Level(base.0 - 1);
            target = (target / u64::from(options.level_multiplier.max(2))).max(1);
            bytes[base.index()] = target;
        }
        bytes[Level::LAST.index()] = u64::MAX;
        Self { base, bytes }
    }
}

/// How pressing a level is: 1 and above is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    level: Level,
    score: f64,
    reason: Reason,
}

impl Picker for Leveled {
    fn pick<S>(&self, input: &PickInput<'_, S>) -> Option<Plan> {
        if let Demand::Range(range) = input.demand {
            return range::pick(input, range);
        }
        let targets = LevelTargets::of(input.version, input.options);
        if let Some(plan) = unite_runs(input) {
            return Some(plan);
        }
        let due = due_levels(input, &targets);
        if let Some(plan) = due.iter().find_map(|due| pick_from(input, &targets, *due)) {
            return Some(plan);
        }
        if !due.is_empty() {
            return None;
        }
        let wanted = pick_tombstones(input, &targets).or_else(|| reads::pick(input));
        if wanted.is_some() || input.demand != Demand::Idle {
            return wanted;
        }
        pick_idle(input, &targets)
    }
}

/// The table of a level above the last, below level 0, that has the largest share of tombstones, if that is half or more;
/// of equals the first of the newest level. Each such pick takes tombstones a level further, where the last drops them.
fn pick_tombstones<S>(input: &PickInput<'_, S>, targets: &LevelTargets) -> Option<Plan> {
    let mut densest: Option<(Level, &Arc<Table<S>>)> = None;
    for level in (1..Level::LAST.0).map(Level) {
        for table in input.version.runs(level).iter().flat_map(Run::tables) {
            let (tombstones, entries) = (u128::from(table.entry.tombstones), u128::from(table.entry.entries));
            let is_dense = tombstones > 0 && tombstones * 2 >= entries && input.is_free(table);
            let is_denser = densest.is_none_or(|(_, other)| {
                tombstones * u128::from(other.entry.entries) > u128::from(other.entry.tombstones) * entries
            });
            if is_dense && is_denser {
                densest = Some((level, table));
            }
        }
    }
    let (level, table) = densest?;
    let output = input.destination(level, if level < targets.base { targets.base } else { Level::LAST });
    let ([source], [] | [_]) = (input.version.runs(level), input.version.runs(output)) else { return None };
    let (tombstones, entries) = (table.entry.tombstones, table.entry.entries);
    let draft = merge_of(input, level, source, output, table);
    // Merged, also where it meets nothing: a move would take the tombstones along.
    let reason = Reason::Tombstones { level, tombstones, entries };
    draft.finish(input, PlanKind::Merge, reason, output, input.run_of(output))
}

/// Level 0 goes though its runs are few; and then, in a keyspace that is not too large, each level goes down into the next
/// that holds anything, until one run is left. What would be merged out of proportion stays where it is, as one run.
fn pick_idle<S>(input: &PickInput<'_, S>, targets: &LevelTargets) -> Option<Plan> {
    let version = input.version;
    if !version.runs(Level::ZERO).is_empty() {
        if input.eligible(Level::ZERO).is_empty() {
            return None;
        }
        let plan = pick_level_zero(input, targets, Reason::Idle)
            .filter(|plan| is_in_proportion(input, plan))
            .or_else(|| merge_newest(input, Level::ZERO, input.options.merge_bytes_max));
        if plan.is_some() {
            return plan;
        }
    }
    let bytes: u64 = version.tables().map(|(_, table)| table.entry.bytes).sum();
    if bytes > input.options.idle_bytes_max {
        return None;
    }
    let held: Vec<Level> = (1..=Level::LAST.0).map(Level).filter(|&level| !version.runs(level).is_empty()).collect();
    let targets = LevelTargets { base: Level::LAST, bytes: [0; Level::COUNT] };
    held.iter().rev().skip(1).rev().find_map(|&level| {
        pick_level(input, &targets, Due { level, score: 0.0, reason: Reason::Idle })
            .filter(|plan| is_in_proportion(input, plan))
    })
}

/// Whether rest is worth what a plan rewrites in the level that it writes to, for bytes or for tombstones.
fn is_in_proportion<S>(input: &PickInput<'_, S>, plan: &Plan) -> bool {
    let inputs: HashSet<TableId> = plan.inputs.iter().map(|(_, id)| *id).collect();
    let (mut bytes, mut entries, mut tombstones) = (0, 0, 0_u64);
    for (level, table) in input.version.tables().filter(|(_, table)| inputs.contains(&table.entry.id)) {
        if level == plan.output_level {
            bytes += table.entry.bytes;
            entries += table.entry.entries;
        } else {
            tombstones += table.entry.tombstones;
        }
    }
    plan.kind == PlanKind::Move
        || tombstones.saturating_mul(20) >= entries
        || is_worth_rest(input, plan.input_bytes.saturating_sub(bytes), bytes)
}

/// A level below 0 that has several runs (after another policy, or a repair) is made one run first.
fn unite_runs<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    (1..Level::COUNT as u8).map(Level).find_map(|level| {
        let runs = input.version.runs(level).len();
        if runs < 2 {
            return None;
        }
        merge_within(input, level, runs, u64::MAX, Reason::Runs { level, runs })
    })
}

/// The levels that are due, most pressing first; of equals the newer.
fn due_levels<S>(input: &PickInput<'_, S>, targets: &LevelTargets) -> Vec<Due> {
    let mut due = Vec::new();
    let free = || input.eligible(Level::ZERO).iter().filter(|run| input.is_run_free(run));
    let (runs, bytes) = (free().count(), free().map(bytes_of).sum());
    let (reason, output) = (Reason::Runs { level: Level::ZERO, runs }, input.destination(Level::ZERO, targets.base));
    // What can be moved rewrites nothing, so there is nothing to be patient for.
    let moves = || runs >= input.options.l0_trigger() && move_level_zero(input, output, reason, most(runs)).is_some();
    if level_zero_is_due(input.version, input.options, runs, bytes) || moves() {
        due.push(Due { level: Level::ZERO, score: runs as f64 / input.options.l0_trigger() as f64, reason });
    }
    for level in (1..Level::LAST.0).map(Level) {
        let bytes = input.free_bytes(level);
        let target = targets.bytes[level.index()];
        let score = if bytes == 0 {
            0.0
        } else if level < targets.base {
            // Left over from when the base was higher. Always due: level 0 cannot pass it, and each pass rewrites more.
            1.0 + bytes as f64 / input.options.level_base_bytes as f64
        } else {
            bytes as f64 / target as f64
        };
        if score >= 1.0 && bytes > target {
            due.push(Due { level, score, reason: Reason::Bytes { level, bytes, target } });
        }
    }
    due.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.level.cmp(&right.level)));
    due
}

/// Whether level 0 goes down, of which `runs` runs with `bytes` bytes can (C1). Each byte of them rewrites its share of what
/// lies below. Few runs go only where that is cheap: at most one byte rewritten for each of theirs, and little in all.
fn level_zero_is_due<S>(version: &Version<S>, options: &CompactionOptions, runs: usize, bytes: u64) -> bool {
    let below: u64 = (1..Level::COUNT as u8).map(|level| version.bytes(Level(level))).sum();
    let is_small = bytes.saturating_add(below) <= options.small_bytes();
    let is_cheap = (bytes >= below && is_small) || planted_faults::planted("compaction-level-zero-impatient");
    runs >= options.l0_trigger() && (is_cheap || runs >= options.l0_patience())
}

fn bytes_of<S>(run: &Run<S>) -> u64 {
    run.tables().iter().map(|table| table.entry.bytes).sum()
}

fn pick_from<S>(input: &PickInput<'_, S>, targets: &LevelTargets, due: Due) -> Option<Plan> {
    if due.level == Level::ZERO {
        let CompactionOptions { merge_bytes_max, .. } = *input.options;
        let down = pick_level_zero(input, targets, due.reason);
        let within = || merge_within(input, Level::ZERO, input.options.l0_trigger(), merge_bytes_max, due.reason);
        return down.or_else(within);
    }
    pick_level(input, targets, due)
}

fn pick_level_zero<S>(input: &PickInput<'_, S>, targets: &LevelTargets, reason: Reason) -> Option<Plan> {
    let output = input.destination(Level::ZERO, targets.base);
    if input.version.runs(output).len() > 1 {
        return None;
    }
    let merge = || merge_level_zero(input, output, reason);
    let move_of = |least| move_level_zero(input, output, reason, least);
    move_of(most(input.eligible(Level::ZERO).len())).or_else(merge).or_else(|| move_of(1))
}

/// More than half of the runs. Of keys in random order only the oldest run can be moved, which makes level 0 hardly shorter,
/// and what follows it rewrites it.
fn most(runs: usize) -> usize {
    runs / 2 + 1
}

/// Moves the tables of level 0 that meet nothing on their way, if that empties at least `least` runs: a sequential load
/// rewrites nothing.
fn move_level_zero<S>(input: &PickInput<'_, S>, output: Level, reason: Reason, least: usize) -> Option<Plan> {
    let formats = &input.options.formats;
    if formats[0] != formats[output.index()] {
        return None;
    }
    let runs = input.version.runs(Level::ZERO);
    let run_of_output = input.run_of(output);
    let mut draft = Draft::new();
    let mut emptied = 0;
    for (index, run) in runs.iter().enumerate().rev() {
        if input.oldest_sealed_epoch.is_some_and(|sealed| run.epoch >= sealed) {
            break;
        }
        let before = draft.tables.len();
        for table in run.tables() {
            let (min, max) = (&*table.entry.min_key, &*table.entry.max_key);
            // C3: everything older in level 0, whether it goes too or not, then what lies below.
            let older = runs[index + 1..].iter();
            let below = (1..=output.0).flat_map(|level| input.version.runs(Level(level)));
            let is_clear = older.chain(below).all(|run| run.overlapping(min, max).is_empty())
                && input.busy.writes_into(output, run_of_output, min, max).is_none();
            if is_clear && input.is_free(table) {
                draft.add(Level::ZERO, run.epoch, [table]);
            }
        }
        if draft.tables.len() - before == run.tables().len() {
            emptied += 1;
        }
    }
    if emptied < least {
        return None;
    }
    draft.finish(input, PlanKind::Move, reason, output, run_of_output)
}

/// Merges the oldest runs of level 0, with what they overlap below, into `output`.
fn merge_level_zero<S>(input: &PickInput<'_, S>, output: Level, reason: Reason) -> Option<Plan> {
    let mut draft = Draft::new();
    let mut oldest_first: Vec<&Run<S>> = input.eligible(Level::ZERO).iter().rev().collect();
    if planted_faults::planted("compaction-level-zero-newest-first") {
        oldest_first.reverse();
        oldest_first.truncate(1);
    }
    for run in oldest_first {
        let bytes = bytes_of(run);
        let is_first = draft.tables.is_empty();
        if !is_first && draft.bytes() + bytes > input.options.merge_bytes_max {
            break;
        }
        if !input.is_run_free(run) {
            break;
        }
        draft.add_run(Level::ZERO, run);
    }
    if !planted_faults::planted("compaction-forgets-overlap-below") {
        draft.add_overlapping(input.version, output);
    }
    draft.finish(input, PlanKind::Merge, reason, output, input.run_of(output))
}

/// One table of the source level with what it meets below.
struct Candidate<'a, S> {
    table: &'a Arc<Table<S>>,
    /// Bytes that it overlaps in the output level.
    overlap: u64,
}

fn pick_level<S>(input: &PickInput<'_, S>, targets: &LevelTargets, due: Due) -> Option<Plan> {
    let Due { level, reason, .. } = due;
    let output = if level < targets.base { input.destination(level, targets.base) } else { level.below()? };
    let ([source], target @ ([] | [_])) = (input.version.runs(level), input.version.runs(output)) else {
        return None;
    };
    let run = input.run_of(output);
    let candidates = candidates(input, source, target.first());
    let excess = input.free_bytes(level).saturating_sub(targets.bytes[level.index()]);

    // What meets nothing below is moved, as much as is too much.
    let mut alone = Draft::new();
    let mut bytes = 0;
    for candidate in candidates.iter().filter(|candidate| candidate.overlap == 0) {
        if bytes >= excess {
            break;
        }
        let (min, max) = (&*candidate.table.entry.min_key, &*candidate.table.entry.max_key);
        if input.busy.writes_into(output, run, min, max).is_none() {
            bytes += candidate.table.entry.bytes;
            alone.add(level, source.epoch, [candidate.table]);
        }
    }
    let formats = &input.options.formats;
    if formats[level.index()] == formats[output.index()] {
        let plan = alone.finish(input, PlanKind::Move, reason, output, run);
        if plan.is_some() {
            return plan;
        }
    }

    // Else the table that rewrites the least below for its size; of equals the first in key order.
    let mut best: Option<&Candidate<'_, S>> = None;
    for candidate in &candidates {
        let is_better = best.is_none_or(|best| {
            let left = u128::from(candidate.overlap) * u128::from(best.table.entry.bytes.max(1));
            let right = u128::from(best.overlap) * u128::from(candidate.table.entry.bytes.max(1));
            left < right
        });
        if is_better && merge_of(input, level, source, output, candidate.table).is_free(input) {
            best = Some(candidate);
        }
    }
    merge_of(input, level, source, output, best?.table).finish(input, PlanKind::Merge, reason, output, run)
}

/// The free tables of `source`, ascending, with what each overlaps in `target`. One pass over both.
fn candidates<'a, S>(
    input: &PickInput<'a, S>,
    source: &'a Run<S>,
    target: Option<&'a Run<S>>,
) -> Vec<Candidate<'a, S>> {
    let below = target.map_or(&[][..], Run::tables);
    let mut first = 0;
    let mut candidates = Vec::new();
    for table in source.tables() {
        while first < below.len() && below[first].entry.max_key < table.entry.min_key {
            first += 1;
        }
        if input.is_free(table) {
            let met = below[first..].iter().take_while(|other| other.entry.min_key <= table.entry.max_key);
            candidates.push(Candidate { table, overlap: met.map(|other| other.entry.bytes).sum() });
        }
    }
    candidates
}

/// The merge that one table leads to: with what it overlaps below, and with its free neighbours that lie within the
/// same stretch and so rewrite nothing more.
fn merge_of<'a, S>(
    input: &PickInput<'a, S>,
    level: Level,
    source: &'a Run<S>,
    output: Level,
    table: &'a Arc<Table<S>>,
) -> Draft<'a, S> {
    let mut draft = Draft::new();
    draft.add(level, source.epoch, [table]);
    draft.add_overlapping(input.version, output);
    if let Some((min, max)) = draft.hull() {
        let mut bytes = draft.bytes();
        for neighbour in source.overlapping(min, max) {
            let within = *min <= *neighbour.entry.min_key && *neighbour.entry.max_key <= *max;
            let fits = bytes + neighbour.entry.bytes <= input.options.merge_bytes_max;
            // Of the source the draft holds this table and, so far, neighbours before this one.
            if within && fits && input.is_free(neighbour) && neighbour.id() != table.id() {
                bytes += neighbour.entry.bytes;
                draft.add(level, source.epoch, [neighbour]);
            }
        }
    }
    draft
}

/// See [`pending_bytes`](crate::pick::pending_bytes).
pub(super) fn pending_bytes<S>(version: &Version<S>, options: &CompactionOptions) -> u64 {
    let targets = LevelTargets::of(version, options);
    let mut pending = 0_u64;
    let level_zero = version.runs(Level::ZERO);
    // What level 0 will bring to the base level adds to what that has too much.
    let mut arriving = 0_u64;
    if level_zero_is_due(version, options, level_zero.len(), version.bytes(Level::ZERO)) {
        arriving = version.bytes(Level::ZERO);
        let met = version.bytes(targets.base).min(arriving.saturating_mul(u64::from(options.level_multiplier)));
        pending = arriving + met;
    }
    for level in (1..Level::LAST.0).map(Level) {
        let bytes = version.bytes(level) + if level == targets.base { arriving } else { 0 };
        let excess = bytes.saturating_sub(targets.bytes[level.index()]);
        if excess > 0 {
            let below = level.below().map_or(0, |below| version.bytes(below));
            // Each byte that goes down meets its share of the level below.
            let share = u128::from(excess) * u128::from(below) / u128::from(bytes);
            pending = pending.saturating_add(excess).saturating_add(share as u64);
        }
    }
    pending
}
