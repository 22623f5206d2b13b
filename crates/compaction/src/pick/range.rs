//! `compact_range`: everything that overlaps a range of keys goes down to the last level, one step at a time.
//!
//! Each step takes the newest level that still holds something of the range to the next level that holds anything, so
//! that it passes nothing (C3), and merges the last level into one run. Then tables of the last level that still hold
//! tombstones are rewritten once. Any policy but the dropping one can use it.

use internal_key::Level;
use version_history::Run;

use crate::pick::{Draft, KeyRange, PickInput};
use crate::plan::{Plan, PlanKind, Reason};

/// What is to be done next for a range.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Settled,
    /// Running jobs hold what is needed.
    Blocked,
    /// This.
    Run(Plan),
}

pub(super) fn pick<S>(input: &PickInput<'_, S>, range: KeyRange<'_>) -> Option<Plan> {
    match next_step(input, range) {
        Step::Run(plan) => Some(plan),
        Step::Settled | Step::Blocked => None,
    }
}

pub(super) fn next_step<S>(input: &PickInput<'_, S>, range: KeyRange<'_>) -> Step {
    let step = |plan: Option<Plan>| plan.map_or(Step::Blocked, Step::Run);
    for level in (0..Level::LAST.0).map(Level) {
        let runs = input.eligible(level);
        if runs.iter().any(|run| run.tables().iter().any(|table| range.wants(table))) {
            return step(go_down(input, range, level));
        }
    }
    let last = input.version.runs(Level::LAST);
    if last.iter().filter(|run| run.tables().iter().any(|table| range.overlaps(table))).count() > 1 {
        return step(unite_last(input, range));
    }
    let mut stale = Vec::new();
    for run in last {
        let tables = run.tables().iter().filter(|table| range.overlaps(table));
        stale.extend(
            tables
                .filter(|table| table.entry.tombstones > 0 && table.id() < range.rewrite_before)
                .map(|table| (run.epoch, table)),
        );
    }
    let Some(&(run, table)) = stale.iter().find(|(_, table)| input.is_free(table)) else {
        return if stale.is_empty() { Step::Settled } else { Step::Blocked };
    };
    let mut draft = Draft::new();
    draft.add(Level::LAST, run, [table]);
    step(draft.finish(input, PlanKind::Merge, Reason::Range, Level::LAST, run))
}

/// Takes what the range overlaps in `level` to the next level that holds anything.
fn go_down<S>(input: &PickInput<'_, S>, range: KeyRange<'_>, level: Level) -> Option<Plan> {
    let output = input.destination(level, Level::LAST);
    let runs = input.eligible(level);
    let mut draft = Draft::new();
    if let [run] = runs
        && level > Level::ZERO
    {
        // One run: any part of it may go alone, so a step takes no more than a job should, and nothing that nobody asked
        // for: newer tables with smaller keys, which others bring on and on, would keep it from ever getting further.
        let mut bytes = 0;
        for table in run.tables().iter().filter(|table| range.wants(table)) {
            let is_first = draft.tables.is_empty();
            bytes += table.entry.bytes;
            if !is_first && bytes > input.options.merge_bytes_max / 4 {
                break;
            }
            draft.add(level, run.epoch, [table]);
        }
    } else {
        for run in runs {
            draft.add(level, run.epoch, run.tables().iter().filter(|table| range.overlaps(table)));
        }
        add_older(&mut draft, runs, level);
    }
    let moved = draft.tables.len();
    draft.add_overlapping(input.version, output);
    let formats = &input.options.formats;
    let is_alone = draft.tables.len() == moved && draft.is_disjoint();
    let can_move = is_alone && formats[level.index()] == formats[output.index()];
    let kind = if can_move { PlanKind::Move } else { PlanKind::Merge };
    draft.finish(input, kind, Reason::Range, output, input.run_of(output))
}

/// Adds what is older in the same level and overlaps an input, until nothing more does (C3).
fn add_older<'a, S>(draft: &mut Draft<'a, S>, runs: &'a [Run<S>], level: Level) {
    let mut held = draft.ids();
    let mut looked_at = 0;
    while looked_at < draft.tables.len() {
        let mut missing = Vec::new();
        // What was looked at before has everything that it needs.
        for (_, newer, table) in &draft.tables[looked_at..] {
            for run in runs.iter().filter(|run| run.epoch < *newer) {
                let overlapping = run.overlapping(&table.entry.min_key, &table.entry.max_key).iter();
                missing.extend(overlapping.filter(|older| held.insert(older.id())).map(|older| (run.epoch, older)));
            }
        }
        looked_at = draft.tables.len();
        draft.tables.extend(missing.into_iter().map(|(epoch, table)| (level, epoch, table)));
    }
}

/// Merges what the range overlaps in the runs of the last level into its newest run.
fn unite_last<S>(input: &PickInput<'_, S>, range: KeyRange<'_>) -> Option<Plan> {
    let runs = input.version.runs(Level::LAST);
    let mut draft = Draft::new();
    for run in runs {
        draft.add(Level::LAST, run.epoch, run.tables().iter().filter(|table| range.overlaps(table)));
    }
    draft.add_overlapping(input.version, Level::LAST);
    draft.finish(input, PlanKind::Merge, Reason::Range, Level::LAST, input.run_of(Level::LAST))
}
