//! Rows that read and write at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};

use super::written::Written;
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

/// The row that a thread turns to next, and the generation that it gives it; `None` if it only reads it.
#[inline]
fn next_step(random: &mut Random, keys: u64) -> (u64, Option<u32>) {
    let number = random.below(keys);
    (number, (random.below(100) >= READS).then(|| random.next() as u32))
}

fn mixed(context: &Context, threads: u64) -> Outcome<Value> {
    let keys = context.keys();
    let engine = context.open(Set::Base, &context.settings())?;
    super::get::warm_up(context, engine.as_ref())?;
    let measured = measure(context.reads(threads), Random::new, |random, _| match next_step(random, keys) {
        (number, None) => get_any(engine.as_ref(), number).map(|_| ()),
        (number, Some(generation)) => engine.put(&key(number), &value(number, generation)),
    })?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    let mut written = Written::default();
    for (thread, &done) in (0..).zip(&measured.done) {
        let mut random = Random::new(thread);
        let steps = (0..done).map(|_| next_step(&mut random, keys));
        written.add(steps.filter_map(|(number, generation)| Some((number, generation?))));
    }
    written.check_all(context, engine.as_ref())?;
    Ok(line)
}

/// The row that the writer beside readers overwrites next, and its generation.
#[inline]
fn next_write(random: &mut Random, keys: u64) -> (u64, u32) {
    (random.below(keys), random.next() as u32)
}

/// What the random numbers of the writer beside readers begin with.
const WRITER: u64 = 77;

fn read_while_writing(context: &Context) -> Outcome<Value> {
    let engine = context.open(Set::Base, &context.settings())?;
    super::get::warm_up(context, engine.as_ref())?;
    // Relaxed: the writer only has to see it soon.
    let stop = AtomicBool::new(false);
    let (measured, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Outcome<(u64, f64)> {
            let (mut random, mut count, begun) = (Random::new(WRITER), 0u64, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let (number, generation) = next_write(&mut random, context.keys());
                engine.put(&key(number), &value(number, generation))?;
                count += 1;
            }
            Ok((count, count as f64 / begun.elapsed().as_secs_f64()))
        });
        let _stop = Stop(&stop);
        let measured = measure(context.reads(2), Random::new, |random, _| {
            get_any(engine.as_ref(), random.below(context.keys())).map(|_| ())
        });
        stop.store(true, Ordering::Relaxed);
        (measured, writer.join().expect("the writer asks nothing"))
    });
    let mut line = context.line(&measured?, "ops", engine.as_ref())?;
    let (count, per_second) = written?;
    line["writer_per_second"] = json!(per_second);
    let (mut written, mut random) = (Written::default(), Random::new(WRITER));
    written.add((0..count).map(|_| next_write(&mut random, context.keys())));
    written.check_all(context, engine.as_ref())?;
    Ok(line)
}

/// Ends the writer also when a reader panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
