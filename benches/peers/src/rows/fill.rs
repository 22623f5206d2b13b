//! Rows that write.

use serde_json::Value;

use super::written::{check_deleted, check_overwritten};
use super::{Row, row, shuffled};
use crate::context::Context;
use crate::data::{check_large_value, fill_value, key, value};
use crate::engine::{Outcome, Settings};
use crate::measure::{Plan, measure};
use crate::sets::Set;

/// Rows of a batch.
const TOGETHER: u64 = 100;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("fill-sequential", "All rows into a new database, in the order of their keys; 1 thread.", sequential),
        row("fill-random", "All rows into a new database, in random order; 1 thread.", |it| random(it, 1)),
        row("fill-random-4", "The same; 4 threads.", |it| random(it, 4)),
        row("fill-batch", "The same in batches of 100 rows; 1 thread. A put is one row.", batches),
        row("fill-synced-1", "1/100 of the rows, each commit durable; 1 thread.", |it| synced(it, 1, 100)),
        row("fill-synced-8", "1/20 of the rows, each commit durable; 8 threads.", |it| synced(it, 8, 20)),
        row("fill-synced-64", "1/10 of the rows, each commit durable; 64 threads.", |it| synced(it, 64, 10)),
        row("overwrite", "Each row of the settled data set once more, in another order; 1 thread.", overwrite),
        row("delete", "Each row of the settled data set, in random order; 1 thread.", delete),
        row("fill-4k", "1/40 of the rows with values of 4 KiB, in random order; 1 thread.", |it| {
            large(it, Set::Large4K)
        }),
        row("fill-64k", "1/640 of the rows with values of 64 KiB, in random order; 1 thread.", |it| {
            large(it, Set::Large64K)
        }),
    ]
}

fn sequential(context: &Context) -> Outcome<Value> {
    let sorted = context.rows.sorted();
    let engine = context.create(&context.settings())?;
    let measured = measure(
        context.plan(1, context.keys()),
        |_| (),
        |(), place| {
            let number = u64::from(sorted[place as usize]);
            engine.put(&key(number), &value(number, 0))
        },
    )?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    context.check_first(engine.as_ref(), measured.operations())?;
    Ok(line)
}

fn random(context: &Context, threads: u64) -> Outcome<Value> {
    singly(context, context.plan(threads, context.keys()), &context.settings())
}

fn synced(context: &Context, threads: u64, part: u64) -> Outcome<Value> {
    let settings = Settings { synced: true, ..context.settings() };
    singly(context, context.plan(threads, context.keys() / part), &settings)
}

/// One row an operation, into a new database.
fn singly(context: &Context, plan: Plan, settings: &Settings) -> Outcome<Value> {
    let engine = context.create(settings)?;
    let measured = measure(plan, |_| (), |(), number| engine.put(&key(number), &value(number, 0)))?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    context.check_first(engine.as_ref(), measured.operations())?;
    Ok(line)
}

fn batches(context: &Context) -> Outcome<Value> {
    let engine = context.create(&context.settings())?;
    let plan = Plan { per_operation: TOGETHER, ..context.plan(1, context.keys() / TOGETHER) };
    let measured = measure(
        plan,
        |_| Vec::new(),
        |rows, batch| {
            rows.clear();
            rows.extend((batch * TOGETHER..(batch + 1) * TOGETHER).map(|number| (key(number), value(number, 0))));
            engine.put_many(rows)
        },
    )?;
    let line = context.line(&measured, "puts", engine.as_ref())?;
    context.check_first(engine.as_ref(), measured.operations() * TOGETHER)?;
    Ok(line)
}

fn overwrite(context: &Context) -> Outcome<Value> {
    let count = context.keys();
    let engine = context.open(Set::Base, &context.settings())?;
    let measured = measure(
        context.plan(1, count),
        |_| (),
        |(), place| {
            let number = shuffled(place, count);
            engine.put(&key(number), &value(number, 1))
        },
    )?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    check_overwritten(context, engine.as_ref(), measured.operations())?;
    Ok(line)
}

fn delete(context: &Context) -> Outcome<Value> {
    let count = context.keys();
    let engine = context.open(Set::Base, &context.settings())?;
    let measured = measure(context.plan(1, count), |_| (), |(), place| engine.delete(&key(shuffled(place, count))))?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    check_deleted(context, engine.as_ref(), measured.operations())?;
    Ok(line)
}

fn large(context: &Context, set: Set) -> Outcome<Value> {
    let engine = context.create(&context.settings())?;
    let plan = context.plan(1, set.count(context.keys()));
    let measured = measure(
        plan,
        |_| vec![0; set.value_bytes()],
        |value, number| {
            fill_value(number, 0, value);
            engine.put(&key(number), value)
        },
    )?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    let mut scratch = Vec::new();
    context.check_all(engine.as_ref(), measured.operations(), |number, found| {
        check_large_value(number, found, set.value_bytes(), &mut scratch);
    })?;
    Ok(line)
}
