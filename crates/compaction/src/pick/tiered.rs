//! The tiered policy: several runs per level; when there are enough, the oldest are merged into one run of the next.
//!
//! ```text
//!   L0   ▓ ▓ ▓ ──┐        3 of 4 allowed runs
//!   L1   ▓▓▓ ▓▓▓ ▓▓▓ ◀┘   one new run, as old as its newest input
//!   …
//!   L6   ▓▓▓▓▓▓▓▓▓▓▓…     merged within itself: there is nothing below
//! ```
//!
//! What reading has paid for is merged though no level has too many runs ([`reads`]).
//!
//! An entry is written about once per level; a read asks up to `tier_runs_max` runs per level. A job takes whole runs,
//! however large: its outputs need as much room again until it is installed.

use internal_key::Level;
use version_history::{Run, Version};

use crate::CompactionOptions;
use crate::pick::{Demand, Draft, PickInput, Picker, merge_within, range, reads};
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
        let wanted = reads::pick(input);
        if wanted.is_some() || input.demand != Demand::Idle {
            return wanted;
        }
        // Idle: the runs of the newest level that has several become one.
        (0..Level::COUNT as u8).map(Level).find_map(|level| merge_within(input, level, 2, u64::MAX, Reason::Idle))
    }
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
