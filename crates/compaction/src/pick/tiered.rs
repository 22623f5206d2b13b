//! The tiered policy: several runs per level; when there are enough, the oldest are merged into one run of the next.
//!
//! ```text
//!   L0   ▓ ▓ ▓ ──┐        3 of 4 allowed runs
//!   L1   ▓▓▓ ▓▓▓ ▓▓▓ ◀┘   one new run, as old as its newest input
//!   …
//!   L6   ▓▓▓▓▓▓▓▓▓▓▓…     merged within itself: there is nothing below
//! ```
//!
//! A table that is half tombstones goes down though no level has too many runs, if what goes with it is worth that; so does
//! what reading has paid for ([`reads`]). And an idle keyspace, if it is not too large, is brought to one run in one step.
//!
//! An entry is written about once per level; a read asks up to `tier_runs_max` runs per level. A job takes whole runs,
//! however large: its outputs need as much room again until it is installed.

use std::sync::Arc;

use internal_key::{Epoch, Level};
use version_history::{Run, Table, Version};

use crate::CompactionOptions;
use crate::pick::{Demand, Draft, PickInput, Picker, is_worth_rest, merge_newest, merge_within, range, reads};
use crate::plan::{Plan, PlanKind, Reason};

/// Several runs per level. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiered;

impl Picker for Tiered {
    fn pick<S>(&self, input: &PickInput<'_, S>) -> Option<Plan> {
        if let Demand::Range(range) = input.demand {
            return range::pick(input, range);
        }
        let mut due: Vec<(usize, Level)> = Vec::new();
        for level in (0..Level::COUNT as u8).map(Level) {
            let runs = input.eligible(level).iter().filter(|run| input.is_run_free(run)).count();
            if runs >= trigger(input.options, level) {
                due.push((runs, level));
            }
        }
        // The level with the most runs is the most pressing; of equals the newer.
        due.sort_by(|(left, level), (right, other)| right.cmp(left).then(level.cmp(other)));
        let plan = due.iter().find_map(|&(runs, level)| {
            let reason = Reason::Runs { level, runs };
            match level {
                Level::LAST => merge_within(input, level, 2, u64::MAX, reason),
                _ => merge_down(input, level, reason),
            }
        });
        if plan.is_some() || !due.is_empty() {
            return plan;
        }
        let wanted = pick_tombstones(input).or_else(|| reads::pick(input));
        if wanted.is_some() || input.demand != Demand::Idle {
            return wanted;
        }
        pick_idle(input)
    }
}

/// Whether half of what a table holds, or more, is tombstones.
fn is_dense<S>(table: &Table<S>) -> bool {
    let (tombstones, entries) = (table.entry.tombstones, table.entry.entries);
    tombstones > 0 && tombstones.saturating_mul(2) >= entries
}

/// So many of the densest tables are looked at: a look has to stay cheap, and there will be another.
const DENSE_LOOKED_AT: usize = 16;

/// The table below level 0 with the largest share of tombstones that is worth taking down, of equals the first of the
/// newest run. Not from the oldest run, where nothing is left for them to hide: so each such pick takes tombstones further
/// towards where they end.
fn pick_tombstones<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    let runs: Vec<(Level, &Run<S>)> =
        input.version.runs_newest_first().filter(|(level, _)| *level > Level::ZERO).collect();
    let (_, newer) = runs.split_last()?;
    let mut dense: Vec<(usize, &Arc<Table<S>>)> = Vec::new();
    for (index, (_, run)) in newer.iter().enumerate() {
        dense.extend(run.tables().iter().filter(|table| is_dense(table) && input.is_free(table)).map(|it| (index, it)));
    }
    dense.sort_by(|(_, left), (_, right)| {
        let share =
            |one: &Table<S>, other: &Table<S>| u128::from(one.entry.tombstones) * u128::from(other.entry.entries);
        share(right, left).cmp(&share(left, right))
    });
    dense.iter().take(DENSE_LOOKED_AT).find_map(|&(index, table)| sink(input, &runs[index..], table))
}

/// Merges a table of the first of `runs` with what it meets in the older ones, down to the oldest for which what goes may be
/// half of what is read: each tombstone hides an older version at most in each run, and goes itself where nothing is older.
fn sink<'a, S>(input: &PickInput<'a, S>, runs: &[(Level, &'a Run<S>)], table: &'a Arc<Table<S>>) -> Option<Plan> {
    let (&(level, run), older) = runs.split_first()?;
    let mut draft = Draft::new();
    draft.add(level, run.epoch, [table]);
    let (mut entries, mut tombstones) = (table.entry.entries, table.entry.tombstones);
    let mut hidden = 0_u64;
    let mut best: Option<(usize, Level, Epoch)> = None;
    for (index, &(below, run)) in older.iter().enumerate() {
        let (min, max) = draft.hull()?;
        let (met, rest) = (run.overlapping(min, max), &older[index + 1..]);
        // Where it meets nothing it comes to lie in the oldest run, and is merged too: a move would take the tombstones along.
        let is_alone = rest.is_empty() && draft.tables.len() == 1;
        if met.is_empty() && !is_alone {
            continue;
        }
        if met.iter().any(|other| !input.is_free(other)) {
            break;
        }
        draft.add(below, run.epoch, met);
        let (min, max) = draft.hull()?;
        let met_entries: u64 = met.iter().map(|other| other.entry.entries).sum();
        hidden = hidden.saturating_add(tombstones.min(met_entries));
        entries = entries.saturating_add(met_entries);
        tombstones = tombstones.saturating_add(met.iter().map(|other| other.entry.tombstones).sum());
        let is_oldest = rest.iter().all(|(_, run)| run.overlapping(min, max).is_empty());
        let goes = hidden.saturating_add(if is_oldest { tombstones } else { 0 });
        if goes.saturating_mul(2) >= entries {
            best = Some((draft.tables.len(), below, run.epoch));
        }
    }
    let (tables, output, place) = best?;
    draft.tables.truncate(tables);
    let reason = Reason::Tombstones { level, tombstones: table.entry.tombstones, entries: table.entry.entries };
    draft.finish(input, PlanKind::Merge, reason, output, place)
}

/// Brings a keyspace that is not too large to one run, in the level of the oldest; in a larger one, or where that would
/// rewrite the oldest run for little, the runs of each level that are not too large together.
fn pick_idle<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    let levels = || (0..Level::COUNT as u8).map(Level);
    let most = input.options.idle_bytes_max;
    let within = || levels().find_map(|level| merge_newest(input, level, most));
    let bytes: u64 = input.version.tables().map(|(_, table)| table.entry.bytes).sum();
    let held: Vec<Level> = levels().filter(|&level| !input.eligible(level).is_empty()).collect();
    let (&output, above) = held.split_last()?;
    if bytes > most || above.is_empty() || planted_faults::planted("compaction-tiered-rests-in-several-levels") {
        return within();
    }
    let (oldest, newer) = input.eligible(output).split_last()?;
    let mut draft = Draft::new();
    for &level in above {
        input.eligible(level).iter().for_each(|run| draft.add_run(level, run));
    }
    newer.iter().for_each(|run| draft.add_run(output, run));
    // What meets nothing is moved. Not what is half tombstones: they would stay.
    let formats = &input.options.formats;
    let is_alone = |table: &Table<S>| {
        !is_dense(table) && oldest.overlapping(&table.entry.min_key, &table.entry.max_key).is_empty()
    };
    let can_move = above.iter().all(|level| formats[level.index()] == formats[output.index()])
        && draft.is_disjoint()
        && draft.tables.iter().all(|(_, _, table)| is_alone(table));
    if can_move {
        return draft.finish(input, PlanKind::Move, Reason::Idle, output, oldest.epoch);
    }
    let (min, max) = draft.hull()?;
    let (newer, met) = (draft.bytes(), oldest.overlapping(min, max));
    let tombstones: u64 = draft.tables.iter().map(|(_, _, table)| table.entry.tombstones).sum();
    let hides_much = tombstones.saturating_mul(20) >= met.iter().map(|table| table.entry.entries).sum();
    if !hides_much && !is_worth_rest(input, newer, met.iter().map(|table| table.entry.bytes).sum()) {
        return within();
    }
    draft.add(output, oldest.epoch, met);
    draft.finish(input, PlanKind::Merge, Reason::Idle, output, oldest.epoch)
}

fn trigger(options: &CompactionOptions, level: Level) -> usize {
    if level == Level::ZERO { options.l0_trigger().max(2) } else { options.tier_trigger() }
}

/// Merges the oldest runs of `level` into one run of the level below: as many as trigger work whatever their size, because
/// fewer would not become fewer, and more within `merge_bytes_max`.
fn merge_down<S>(input: &PickInput<'_, S>, level: Level, reason: Reason) -> Option<Plan> {
    let output = level.below()?;
    let mut draft = Draft::new();
    let mut newest = None;
    for (count, run) in input.eligible(level).iter().rev().enumerate() {
        let bytes: u64 = run.tables().iter().map(|table| table.entry.bytes).sum();
        let is_enough = count >= trigger(input.options, level);
        if !input.is_run_free(run) || (is_enough && draft.bytes() + bytes > input.options.merge_bytes_max) {
            break;
        }
        draft.add_run(level, run);
        newest = Some(run.epoch);
    }
    let newest = newest?;
    let own = draft.tables.len();
    // A run below that is as new (left by another policy) is the one that the outputs join.
    if input.version.runs(output).iter().any(|run| run.epoch >= newest) {
        draft.add_overlapping(input.version, output);
    }
    let formats = &input.options.formats;
    let is_alone = draft.tables.len() == own && draft.is_disjoint();
    let can_move = is_alone && formats[level.index()] == formats[output.index()];
    let kind = if can_move { PlanKind::Move } else { PlanKind::Merge };
    let place = input.version.runs(output).first().map_or(newest, |run| run.epoch.max(newest));
    draft.finish(input, kind, reason, output, place)
}

/// See [`pending_bytes`](crate::pick::pending_bytes): the levels that have too many runs, whole.
pub(super) fn pending_bytes<S>(version: &Version<S>, options: &CompactionOptions) -> u64 {
    let levels = (0..Level::COUNT as u8).map(Level);
    let due = levels.filter(|&level| version.runs(level).len() >= trigger(options, level));
    due.flat_map(|level| version.runs(level)).flat_map(Run::tables).map(|table| table.entry.bytes).sum()
}
