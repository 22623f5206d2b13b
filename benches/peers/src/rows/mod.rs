//! The rows of the table, by theme.

mod fill;
mod get;
mod keyspaces;
#[cfg(test)]
mod liars;
mod mixed;
mod open;
mod scan;
mod space;
mod written;
mod ycsb;

pub(crate) use open::die_with_rows;

use serde_json::Value;

use crate::context::Context;
use crate::engine::Outcome;

/// How a row is measured.
type Run = Box<dyn Fn(&Context) -> Outcome<Value>>;

/// One row.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) says: &'static str,
    /// Measures it; returns the line without the figures that only the caller knows.
    pub(crate) run: Run,
}

/// A row.
fn row(name: &'static str, says: &'static str, run: impl Fn(&Context) -> Outcome<Value> + 'static) -> Row {
    Row { name, says, run: Box::new(run) }
}

/// All rows, in the order of the table.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(fill::rows());
    rows.extend(get::rows());
    rows.extend(scan::rows());
    rows.extend(mixed::rows());
    rows.extend(ycsb::rows());
    rows.extend(space::rows());
    rows.extend(open::rows());
    rows.extend(keyspaces::rows());
    rows
}

/// The `place`-th of the numbers below `count` in an order in which each comes once, and which has nothing to do with
/// that of the fill.
#[inline]
fn shuffled(place: u64, count: u64) -> u64 {
    // A prime far above every count in use, so that it shares no factor with one.
    (place + 1) * 68_718_952_447 % count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_comes_once() {
        for count in [1, 64, 1000, 4096] {
            let mut seen: Vec<u64> = (0..count).map(|place| shuffled(place, count)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_two_rows_have_one_name() {
        let mut names: Vec<_> = all().iter().map(|row| row.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
