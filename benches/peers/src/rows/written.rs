//! What the rows must hold after a measurement, told from what the threads were asked to write.
//!
//! A thread's operations follow from its number alone, so they are gone through once more when the clock has stopped, without
//! the database. Which of two threads wrote a row last is not known, but what each of them wrote last is.

use std::collections::HashMap;

use super::shuffled;
use crate::context::Context;
use crate::data::{check_any_value, check_value};
use crate::engine::{Engine, Outcome};

/// The generations that the last writes of rows gave them; a row that is not in it holds what it held at first.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// At most one for each thread.
    last: HashMap<u64, Vec<u32>>,
}

impl Written {
    /// Adds the rows and generations that one thread wrote, in its order.
    pub(super) fn add(&mut self, of_thread: impl Iterator<Item = (u64, u32)>) {
        let last: HashMap<u64, u32> = of_thread.collect();
        for (number, generation) in last {
            self.last.entry(number).or_default().push(generation);
        }
    }

    /// Panics unless `generation` is one that some thread gave to the row last.
    pub(super) fn check(&self, number: u64, generation: u32) {
        match self.last.get(&number) {
            None => assert_eq!(generation, 0, "row {number} was never overwritten"),
            Some(last) => {
                assert!(last.contains(&generation), "row {number} holds {generation}; its last writes were {last:?}");
            }
        }
    }

    /// Panics unless the database holds every row of the data set, as it was written last.
    pub(super) fn check_all(&self, context: &Context, engine: &dyn Engine) -> Outcome {
        context.check_all(engine, context.keys(), |number, found| self.check(number, check_any_value(number, found)))
    }
}

/// Of `count` rows those that come first in the [shuffled] order: `done` of them.
fn first_shuffled(done: u64, count: u64) -> Vec<bool> {
    let mut chosen = vec![false; count as usize];
    for place in 0..done {
        chosen[shuffled(place, count) as usize] = true;
    }
    chosen
}

/// Panics unless the first `done` rows of the shuffled order are of generation 1, the others of generation 0, and all are
/// there.
pub(super) fn check_overwritten(context: &Context, engine: &dyn Engine, done: u64) -> Outcome {
    let new = first_shuffled(done, context.keys());
    context.check_all(engine, context.keys(), |number, found| {
        check_value(number, u32::from(is(&new, number)), found);
    })
}

/// Panics unless the first `done` rows of the shuffled order are gone, and only these.
pub(super) fn check_deleted(context: &Context, engine: &dyn Engine, done: u64) -> Outcome {
    let gone = first_shuffled(done, context.keys());
    context.check_all(engine, context.keys() - done, |number, found| {
        assert!(!is(&gone, number), "row {number} was deleted");
        check_value(number, 0, found);
    })
}

/// Panics unless none but the first `done` rows of the shuffled order are of generation 1, and none of another; counts those
/// that are of generation 0 all the same.
pub(super) fn count_lost(context: &Context, engine: &dyn Engine, done: u64) -> Outcome<u64> {
    let (new, mut kept) = (first_shuffled(done, context.keys()), 0);
    context.check_all(engine, context.keys(), |number, found| {
        let generation = check_any_value(number, found);
        assert!(generation <= u32::from(is(&new, number)), "a generation that nobody wrote");
        kept += u64::from(generation);
    })?;
    Ok(done - kept)
}

fn is(chosen: &[bool], number: u64) -> bool {
    chosen.get(number as usize).copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_any_thread_may_be_what_is_left_and_no_earlier_one() {
        let mut written = Written::default();
        written.add([(1, 7), (2, 5), (1, 8)].into_iter());
        written.add([(1, 9)].into_iter());
        for (number, generation) in [(1, 8), (1, 9), (2, 5), (3, 0)] {
            written.check(number, generation);
        }
        for (number, generation) in [(1, 7), (1, 0), (2, 0), (3, 5)] {
            assert!(std::panic::catch_unwind(|| written.check(number, generation)).is_err(), "{number} {generation}");
        }
    }
}
