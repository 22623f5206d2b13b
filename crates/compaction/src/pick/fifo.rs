//! The dropping policy: the oldest runs go when the keyspace grows past a size, and when they are past an age.
//!
//! ```text
//!   L0   ▓ ▓ ▓ ▓ ▓ ▓ ▓ ✗      newest … oldest; nothing is ever merged into a level below
//! ```
//!
//! For caches and bounded logs. Dropping **loses data by design**, also what a snapshot could see. Runs that are many
//! and small are merged within level 0, so that reads and the limit on its runs stay bounded.
//!
//! A run goes whole once its newest row is past the age; rows that are older than that stay with it until then. So that
//! a merge keeps no row for much longer, only runs whose newest rows fall into the same eighth of the age are merged: what
//! comes out falls into it again, however often it is merged.

use internal_key::Level;
use version_history::{Run, Version};

use crate::CompactionOptions;
use crate::pick::{Demand, Draft, PickInput, Picker};
use crate::plan::{Plan, PlanKind, Reason};

/// Drops the oldest runs past a size or an age. See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fifo;

impl Picker for Fifo {
    fn pick<S>(&self, input: &PickInput<'_, S>) -> Option<Plan> {
        drop_expired(input).or_else(|| drop_oldest(input)).or_else(|| {
            let runs = input.eligible(Level::ZERO).len();
            let due = runs >= width(input.options) && !matches!(input.demand, Demand::Range(_));
            if due { merge_smallest(input, Reason::Runs { level: Level::ZERO, runs }) } else { None }
        })
    }
}

/// How many runs are merged into one, and how many there must be.
fn width(options: &CompactionOptions) -> usize {
    options.l0_trigger().max(2)
}

fn run_bytes<S>(run: &Run<S>) -> u64 {
    run.tables().iter().map(|table| table.entry.bytes).sum()
}

/// By when every row of a run had been written; `None` if that is not known of a table in it.
fn newest_unix_ms<S>(run: &Run<S>) -> Option<u64> {
    let times = || run.tables().iter().map(|table| table.entry.newest_unix_ms);
    if times().any(|time| time == 0) {
        return None;
    }
    if planted_faults::planted("compaction-age-by-the-oldest-table") { times().min() } else { times().max() }
}

/// See [`expires_at_unix_ms`](crate::pick::expires_at_unix_ms).
pub(super) fn expires_at_unix_ms<S>(version: &Version<S>, options: &CompactionOptions) -> Option<u64> {
    let (_, oldest) = version.runs_newest_first().next_back().filter(|_| options.fifo_age_ms_max > 0)?;
    Some(newest_unix_ms(oldest)?.saturating_add(options.fifo_age_ms_max).saturating_add(1))
}

/// The runs that may be dropped, oldest first: what is dropped must not bring an older memtable to light (C3).
fn droppable<'a, S>(input: &PickInput<'a, S>) -> impl Iterator<Item = (Level, &'a Run<S>)> {
    let input = *input;
    let may_go = move |(level, run): &(Level, &Run<S>)| {
        *level > Level::ZERO || input.oldest_sealed_epoch.is_none_or(|sealed| run.epoch < sealed)
    };
    input.version.runs_newest_first().rev().take_while(may_go)
}

/// Drops the oldest runs that are past the age, up to the first that is not: whatever the clock did when they were written,
/// nothing goes while something older stays.
fn drop_expired<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    let limit_ms = input.options.fifo_age_ms_max;
    if limit_ms == 0 {
        return None;
    }
    let mut draft = Draft::new();
    let mut age_ms = 0;
    for (level, run) in droppable(input) {
        let age = newest_unix_ms(run).map(|newest| input.now_unix_ms.saturating_sub(newest));
        let Some(age) = age.filter(|age| *age > limit_ms && input.is_run_free(run)) else { break };
        age_ms = age;
        draft.add_run(level, run);
    }
    let output = draft.tables.first().map(|(level, epoch, _)| (*level, *epoch))?;
    draft.finish(input, PlanKind::Drop, Reason::Age { age_ms, limit_ms }, output.0, output.1)
}

/// Drops as many of the oldest runs as bring the size within its limit; always keeps the newest.
fn drop_oldest<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    let limit = input.options.fifo_bytes_max;
    let bytes: u64 = input.version.tables().map(|(_, table)| table.entry.bytes).sum();
    let mut left = bytes;
    let mut draft = Draft::new();
    let mut oldest_first = droppable(input).peekable();
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

/// The stretches of `runs` that may be merged, newest first, each with the index of its first run and its bytes. What they
/// make may have an eighth of the limit at most, and be of one eighth of the age, so that dropping stays gradual.
fn stretches<'a, S>(
    runs: &'a [Run<S>],
    options: &CompactionOptions,
) -> impl Iterator<Item = (usize, u64, &'a [Run<S>])> {
    let most = (options.fifo_bytes_max / 8).min(options.merge_bytes_max);
    let age_ms = options.fifo_age_ms_max;
    let eighth = move |run: &Run<S>| newest_unix_ms(run).map(|newest| newest / (age_ms / 8).max(1));
    let is_of_one_age = move |stretch: &[Run<S>]| {
        let same = stretch.windows(2).all(|pair| eighth(&pair[0]) == eighth(&pair[1]));
        same || age_ms == 0 || planted_faults::planted("compaction-fifo-merges-across-ages")
    };
    let of_one_age = runs.windows(width(options)).enumerate().filter(move |(_, stretch)| is_of_one_age(stretch));
    let sized = of_one_age.map(|(first, stretch)| (first, stretch.iter().map(run_bytes).sum(), stretch));
    sized.filter(move |(_, bytes, _)| *bytes <= most)
}

/// Merges the neighbouring runs of level 0 that are the smallest together; of equals the oldest.
fn merge_smallest<S>(input: &PickInput<'_, S>, reason: Reason) -> Option<Plan> {
    let mut best: Option<(u64, &[Run<S>])> = None;
    for (_, bytes, stretch) in stretches(input.eligible(Level::ZERO), input.options) {
        let is_free = stretch.iter().all(|run| input.is_run_free(run));
        if is_free && best.is_none_or(|(least, _)| bytes <= least) {
            best = Some((bytes, stretch));
        }
    }
    let (_, stretch) = best?;
    let mut draft = Draft::new();
    stretch.iter().for_each(|run| draft.add_run(Level::ZERO, run));
    let kind = if draft.is_disjoint() { PlanKind::Move } else { PlanKind::Merge };
    draft.finish(input, kind, reason, Level::ZERO, stretch.first()?.epoch)
}

/// See [`pending_bytes`](crate::pick::pending_bytes): dropping costs nothing, so only the runs count that may be merged.
pub(super) fn pending_bytes<S>(version: &Version<S>, options: &CompactionOptions) -> u64 {
    let runs = version.runs(Level::ZERO);
    let (mut counted, mut pending) = (0, 0);
    for (first, _, stretch) in stretches(runs, options) {
        // Stretches come in order and overlap: each run counts once.
        let end = first + stretch.len();
        pending += runs[first.max(counted)..end].iter().map(run_bytes).sum::<u64>();
        counted = end;
    }
    pending
}
