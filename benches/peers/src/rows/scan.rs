//! Rows that go through keys in order.

use std::cell::RefCell;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::Value;

use super::get::warm_up;
use super::{Row, row};
use crate::context::Context;
use crate::data::{Random, check_value, key};
use crate::engine::{Direction, Engine, Look, Outcome};
use crate::measure::{Costs, Measured, Plan, measure};
use crate::sets::Set;

/// Rows of a scan that are timed together: reading the clock costs more than a row.
const TOGETHER: u64 = 100;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "scan",
            "All rows in order, again and again for a quarter of the time; 1 thread. Timed by the hundred.",
            |it| scan(it, Direction::Forward),
        ),
        row("scan-back", "The same backwards.", |it| scan(it, Direction::Backward)),
        row("seek-10", "The 10 rows from a random key on, each time as they are then; 1 thread.", |it| seek(it, 10)),
        row("seek-100", "The 100 rows from a random key on, each time as they are then; 1 thread.", |it| seek(it, 100)),
        row("seek-10-kept", "The 10 rows from a random key on, all of one state of the database; 1 thread.", seek_kept),
        row("scan-after-delete", "All rows in order right after every second one was deleted; 1 thread.", after_delete),
    ]
}

/// Goes through all rows, checks each, and times them by the hundred.
struct Pass<'a> {
    expected: &'a mut dyn Iterator<Item = u32>,
    latencies: &'a mut Histogram<u64>,
    since: Instant,
    rows: u64,
    until: Instant,
}

impl Pass<'_> {
    /// Whether the next row is wanted.
    #[inline]
    fn see(&mut self, found: &[u8], value: &[u8]) -> bool {
        let number = u64::from(self.expected.next().expect("no more rows than were written"));
        assert!(found == key(number), "another key than that of row {number}: {}", found.escape_ascii());
        check_value(number, 0, value);
        self.rows += 1;
        if !self.rows.is_multiple_of(TOGETHER) {
            return true;
        }
        let now = Instant::now();
        self.latencies.record((now - self.since).as_nanos() as u64).expect("the histogram grows");
        self.since = now;
        now < self.until
    }
}

/// Goes through all rows once, or until the time is over; says how many there were.
fn pass(
    context: &Context,
    engine: &dyn Engine,
    direction: Direction,
    latencies: &mut Histogram<u64>,
    deleted: impl Fn(u32) -> bool,
    until: Instant,
) -> Outcome<u64> {
    let sorted = context.rows.sorted().iter().copied().filter(|&number| !deleted(number));
    let (mut forward, mut backward) = (sorted.clone(), sorted.rev());
    let expected: &mut dyn Iterator<Item = u32> = match direction {
        Direction::Forward => &mut forward,
        Direction::Backward => &mut backward,
    };
    let mut pass = Pass { expected, latencies, since: Instant::now(), rows: 0, until };
    engine.scan(None, direction, &mut |found, value| pass.see(found, value))?;
    if Instant::now() < until {
        assert!(pass.expected.next().is_none(), "rows are missing at the end");
    }
    Ok(pass.rows)
}

fn scan(context: &Context, direction: Direction) -> Outcome<Value> {
    context.rows.sorted();
    let engine = context.open_to_read(Set::Base, &context.settings())?;
    engine.scan(None, direction, &mut |_, _| true)?;
    let mut latencies = Histogram::new(3)?;
    let begun = Instant::now();
    let (counted, costs) = Costs::of(|| -> Outcome<u64> {
        let mut rows = 0;
        // At least once whole, if the time allows it at all.
        while rows == 0 || begun.elapsed() < context.time / 4 {
            rows += pass(context, engine.as_ref(), direction, &mut latencies, |_| false, begun + context.time)?;
        }
        Ok(rows)
    });
    let (counted, took) = (counted?, begun.elapsed());
    let plan = Plan { operations: counted.max(context.keys()), ..context.plan(1, 0) };
    let measured = Measured { plan, done: vec![counted], took, latencies, costs };
    context.line(&measured, "rows", engine.as_ref())
}

fn after_delete(context: &Context) -> Outcome<Value> {
    context.rows.sorted();
    let engine = context.open(Set::Base, &context.settings())?;
    let deleted = |number: u32| number % 2 == 1;
    for number in (0..context.keys() as u32).filter(|&number| deleted(number)) {
        engine.delete(&key(u64::from(number)))?;
    }
    let mut latencies = Histogram::new(3)?;
    let begun = Instant::now();
    let until = begun + context.time;
    let (counted, costs) =
        Costs::of(|| pass(context, engine.as_ref(), Direction::Forward, &mut latencies, deleted, until));
    let (counted, took) = (counted?, begun.elapsed());
    let plan = context.plan(1, context.keys().div_ceil(2));
    let measured = Measured { plan, done: vec![counted], took, latencies, costs };
    context.line(&measured, "rows", engine.as_ref())
}

/// Looks at the rows from a random rank on and checks them.
struct Seeker<'a> {
    sorted: &'a [u32],
    random: Random,
    length: u64,
}

impl Seeker<'_> {
    #[inline]
    fn seek(&mut self, seek: impl FnOnce(&[u8], Look<'_>) -> Outcome) -> Outcome {
        let first = self.random.below(self.sorted.len() as u64 - self.length) as usize;
        let expected = &self.sorted[first..first + self.length as usize];
        let mut seen = 0;
        seek(&key(u64::from(expected[0])), &mut |found, value| {
            let number = u64::from(expected[seen]);
            assert!(found == key(number), "another key than that of row {number}: {}", found.escape_ascii());
            check_value(number, 0, value);
            seen += 1;
            seen < expected.len()
        })?;
        assert_eq!(seen, expected.len(), "rows are missing");
        Ok(())
    }
}

fn seek(context: &Context, length: u64) -> Outcome<Value> {
    let sorted = context.rows.sorted();
    let engine = context.open_to_read(Set::Base, &context.settings())?;
    warm_up(context, engine.as_ref())?;
    let reads = context.reads(1);
    let plan = Plan { operations: reads.operations / 5, ..reads };
    let begin = |thread| Seeker { sorted, random: Random::new(thread), length };
    let measured =
        measure(plan, begin, |seeker, _| seeker.seek(|from, look| engine.scan(Some(from), Direction::Forward, look)))?;
    context.line(&measured, "ops", engine.as_ref())
}

fn seek_kept(context: &Context) -> Outcome<Value> {
    let sorted = context.rows.sorted();
    let engine = context.open_to_read(Set::Base, &context.settings())?;
    warm_up(context, engine.as_ref())?;
    let reads = context.reads(1);
    let plan = Plan { operations: reads.operations / 5, ..reads };
    let mut seeker = Seeker { sorted, random: Random::new(0), length: 10 };
    let (mut latencies, mut done) = (Histogram::new(3)?, 0);
    let took = RefCell::new(std::time::Duration::ZERO);
    let (outcome, costs) = Costs::of(|| {
        engine.seek_often(&mut |seek| {
            let begun = Instant::now();
            let mut last = begun;
            while done < plan.operations && last - begun < plan.time {
                seeker.seek(&mut *seek)?;
                let now = Instant::now();
                latencies.record((now - last).as_nanos() as u64)?;
                last = now;
                done += 1;
            }
            *took.borrow_mut() = last - begun;
            Ok(())
        })
    });
    outcome?;
    let measured = Measured { plan, done: vec![done], took: took.into_inner(), latencies, costs };
    context.line(&measured, "ops", engine.as_ref())
}
