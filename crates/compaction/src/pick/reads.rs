//! What reading has paid for: a table that is often sought in above older tables of the same keys goes down into them.
//!
//! ```text
//!   L0 e9   ▓▓▓▓▓▓▓▓      100 seeks: 100 blocks read beside those of the runs below
//!   L4 e3     ▓▓ ▓▓       a merge with these reads less than 100 blocks: it is picked
//!   L6 e1   ▒▒▒▒▒▒▒▒▒▒    with these too it would read more: not yet
//! ```
//!
//! LevelDB gives each table a budget of one seek for 16 KiB of it, at least 100, and compacts the table that has used its
//! budget up (`db/version_set.cc`, where a file is added to a version): a seek of its disks took as long as the compaction
//! of 40 KB, with a tenfold overlap below assumed. Here both sides are counted instead. A seek costs a block,
//! [`SEEK_BYTES`], in each run that the place is looked for in; a merge costs its input; and it is picked once the seeks in
//! those of its tables that it does away with have cost as much. So merges for the sake of reading never read more than what
//! reading has been through before, whatever the overlap; and a range that is read on and on comes to one run.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use internal_key::{Epoch, Level, TableId};
use version_history::Table;

use crate::pick::{Draft, PickInput};
use crate::plan::{Plan, PlanKind, Reason};

/// What a seek in a table is counted as: the block that it reads.
pub const SEEK_BYTES: u64 = 4096;

/// So many of the tables that are sought in most are looked at: a look has to stay cheap, and there will be another.
const TABLES_LOOKED_AT: usize = 16;

/// How often readers sought a place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableReads {
    /// The table.
    pub table: TableId,
    /// How many seeks there were since it was written, as far as they were counted.
    pub seeks: u64,
}

/// The merge that the most sought table has paid for, or of the following ones.
pub(super) fn pick<S>(input: &PickInput<'_, S>) -> Option<Plan> {
    if input.reads.is_empty() {
        return None;
    }
    let seeks: BTreeMap<TableId, u64> = input.reads.iter().map(|reads| (reads.table, reads.seeks)).collect();
    let mut most_first: Vec<(TableId, u64)> = seeks.iter().map(|(table, seeks)| (*table, *seeks)).collect();
    most_first.sort_by_key(|(table, seeks)| (Reverse(*seeks), *table));
    most_first.iter().take(TABLES_LOOKED_AT).find_map(|(table, _)| go_down(input, &seeks, *table))
}

/// Merges `table` into the older runs that it meets: down to the oldest that the seeks pay for.
fn go_down<S>(input: &PickInput<'_, S>, seeks: &BTreeMap<TableId, u64>, table: TableId) -> Option<Plan> {
    let seeks_in = |table: &Table<S>| seeks.get(&table.id()).copied().unwrap_or(0);
    let mut runs = input.version.runs_newest_first();
    let (level, run, table) = runs.find_map(|(level, run)| {
        let table = run.tables().iter().find(|candidate| candidate.id() == table)?;
        Some((level, run, table))
    })?;
    // C3: what a sealed memtable must come out below stays where it is.
    if !input.is_free(table) || !input.eligible(level).iter().any(|eligible| eligible.epoch == run.epoch) {
        return None;
    }
    let mut draft = Draft::new();
    draft.add(level, run.epoch, [table]);
    let mut spent = seeks_in(table);
    let mut best: Option<(usize, Level, Epoch, u64)> = None;
    // From here on the iterator is behind the table's run: only what is older.
    for (below, older) in runs {
        let (min, max) = draft.hull()?;
        let met = older.overlapping(min, max);
        if met.is_empty() {
            continue;
        }
        draft.add(below, older.epoch, met);
        if met.iter().any(|other| !input.is_free(other)) || draft.bytes() > input.options.merge_bytes_max {
            break;
        }
        let pays = spent.saturating_mul(SEEK_BYTES) >= draft.bytes();
        if pays || planted_faults::planted("compaction-reads-need-not-pay") {
            best = Some((draft.tables.len(), below, older.epoch, spent));
        }
        // The next step would do away with these as well.
        spent = spent.saturating_add(met.iter().map(|other| seeks_in(other)).sum());
    }
    let (tables, output, place, seeks) = best?;
    draft.tables.truncate(tables);
    draft.finish(input, PlanKind::Merge, Reason::Reads { seeks }, output, place)
}
