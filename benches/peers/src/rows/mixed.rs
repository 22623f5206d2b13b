//! Rows that read and write at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Row, row};
use crate::context::Context;
use crate::data::{Random, check_any_value, key, value};
use crate::engine::{Engine, Outcome};
use crate::measure::measure;
use crate::sets::Set;

/// Of a hundred operations so many are reads.
const READS: u64 = 80;

pub(super) fn rows() -> Vec<Row> {
    let mixed = |threads| move |it: &Context| mixed(it, threads);
    vec![
        row(
            "read-while-writing",
            "2 threads get random keys while a third overwrites random rows.",
            read_while_writing,
        ),
        row("mixed-1", "80 % gets, 20 % overwrites of random rows; 1 thread.", mixed(1)),
        row("mixed-2", "The same; 2 threads.", mixed(2)),
        row("mixed-4", "The same; 4 threads.", mixed(4)),
        row("mixed-8", "The same; 8 threads.", mixed(8)),
    ]
}

/// Asks for a random key that always has a value, of whatever generation.
#[inline]
pub(super) fn get_any(engine: &dyn Engine, number: u64) -> Outcome<u32> {
    let mut generation = 0;
    let found = engine.get(&key(number), &mut |value| generation = check_any_value(number, value))?;
    assert!(found, "row {number} is missing");
    Ok(generation)
}

fn mixed(context: &Context, threads: u64) -> Outcome<Value> {
    let engine = context.open(Set::Base, &context.settings())?;
    super::get::warm_up(context, engine.as_ref())?;
    let measured = measure(context.reads(threads), Random::new, |random, _| {
        let number = random.below(context.keys());
        if random.below(100) < READS {
            return get_any(engine.as_ref(), number).map(|_| ());
        }
        engine.put(&key(number), &value(number, random.next() as u32))
    })?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    check_every(context, engine.as_ref(), context.keys())?;
    Ok(line)
}

/// Panics unless there are `count` rows, of whatever generations.
pub(super) fn check_every(context: &Context, engine: &dyn Engine, count: u64) -> Outcome {
    context.check_all(engine, count, |number, found| {
        check_any_value(number, found);
    })
}

fn read_while_writing(context: &Context) -> Outcome<Value> {
    let engine = context.open(Set::Base, &context.settings())?;
    super::get::warm_up(context, engine.as_ref())?;
    // Relaxed: the writer only has to see it soon.
    let stop = AtomicBool::new(false);
    let (measured, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Outcome<f64> {
            let (mut random, mut count, begun) = (Random::new(77), 0u64, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let number = random.below(context.keys());
                engine.put(&key(number), &value(number, random.next() as u32))?;
                count += 1;
            }
            Ok(count as f64 / begun.elapsed().as_secs_f64())
        });
        let _stop = Stop(&stop);
        let measured = measure(context.reads(2), Random::new, |random, _| {
            get_any(engine.as_ref(), random.below(context.keys())).map(|_| ())
        });
        stop.store(true, Ordering::Relaxed);
        (measured, writer.join().expect("the writer asks nothing"))
    });
    let mut line = context.line(&measured?, "ops", engine.as_ref())?;
    line["writer_per_second"] = json!(written?);
    check_every(context, engine.as_ref(), context.keys())?;
    Ok(line)
}

/// Ends the writer also when a reader panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
