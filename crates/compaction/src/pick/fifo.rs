//! The dropping policy: the oldest run goes when the keyspace grows past a size.
//!
//! ```text
//!   L0   ▓ ▓ ▓ ▓ ▓ ▓ ▓ ✗      newest … oldest; nothing is ever merged into a level below
//! ```
//!
//! For caches and bounded logs. Dropping **loses data by design**, also what a snapshot could see. Runs that are many
//! and small are merged within level 0, so that reads and the limit on its runs stay bounded.

use internal_key::Level;
use version_history::{Run, Version};

use crate::CompactionOptions;
use crate::pick::{Demand, Draft, PickInput, Picker};
use crate::plan::{Plan, PlanKind, Reason};

/// Drops the oldest run past a size. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fifo;

impl Picker for Fifo {
    fn pick<S>(&self, input: &PickInput<'_, S>) -> Option<Plan> {
        drop_oldest(input).or_else(|| {
            let runs = input.eligible(Level::ZERO).len();
            let due = runs >= input.options.l0_trigger().max(2) && !matches!(input.demand, Demand::Range(_));
            if due { merge_smallest(input, Reason::Runs { level: Level::ZERO, runs }) } else { None }
        })
    }
}

fn run_bytes<S>(run: &Run<S>) -> u64 {
    run.tables().iter().map(|table| table.entry.bytes).sum()
}

/// Drops as many of the oldest runs as bring the size within its limit; always keeps the newest.
fn drop_oldest<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    let limit = input.options.fifo_bytes_max;
    let bytes: u64 = input.version.tables().map(|(_, table)| table.entry.bytes).sum();
    let mut left = bytes;
    let mut draft = Draft::new();
    let mut oldest_first = input.version.runs_newest_first().rev().peekable();
    while let Some((level, run)) = oldest_first.next() {
        let is_newest = oldest_first.peek().is_none();
        if left <= limit || is_newest || !input.is_run_free(run) {
            break;
        }
        left -= run_bytes(run);
        draft.add_run(level, run);
    }
    let output = draft.tables.first().map(|(level, epoch, _)| (*level, *epoch))?;
    draft.finish(input, PlanKind::Drop, Reason::Total { bytes, target: limit }, output.0, output.1)
}

/// Merges the neighbouring runs of level 0 that are the smallest together; of equals the oldest. What they make may have
/// an eighth of the limit at most, so that dropping stays gradual.
fn merge_smallest<S>(input: &PickInput<'_, S>, reason: Reason) -> Option<Plan> {
    let runs = input.eligible(Level::ZERO);
    let width = input.options.l0_trigger().max(2);
    let most = (input.options.fifo_bytes_max / 8).min(input.options.merge_bytes_max);
    let stretches = runs.windows(width).rev();
    let free = stretches.filter(|stretch| stretch.iter().all(|run| input.is_run_free(run)));
    let sized = free.map(|stretch| (stretch.iter().map(run_bytes).sum::<u64>(), stretch));
    let (_, stretch) = sized.filter(|(bytes, _)| *bytes <= most).min_by_key(|(bytes, _)| *bytes)?;
    let mut draft = Draft::new();
    stretch.iter().for_each(|run| draft.add_run(Level::ZERO, run));
    let kind = if draft.is_disjoint() { PlanKind::Move } else { PlanKind::Merge };
    draft.finish(input, kind, reason, Level::ZERO, stretch.first()?.epoch)
}

/// See [`pending_bytes`](crate::pick::pending_bytes): dropping costs nothing, so only small runs count.
pub(super) fn pending_bytes<S>(version: &Version<S>, options: &CompactionOptions) -> u64 {
    let runs = version.runs(Level::ZERO);
    if runs.len() < options.l0_trigger().max(2) {
        return 0;
    }
    let small = runs.iter().map(run_bytes).filter(|bytes| *bytes <= options.fifo_bytes_max / 8);
    small.sum()
}
