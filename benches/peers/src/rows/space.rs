//! Rows about bytes: written to the disk, and taken on it.

use serde_json::Value;

use super::{Row, row, shuffled};
use crate::context::Context;
use crate::data::{KEY_BYTES, VALUE_BYTES, key, value};
use crate::engine::{Engine, Outcome};
use crate::measure::{Costs, measure};
use crate::sets::{Set, disk_bytes};

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "write-amplification-fill",
            "Bytes written for each byte of a row: all rows in random order, then settled.",
            |it| amplification(it, false),
        ),
        row(
            "write-amplification-overwrite",
            "The same: each row of the settled data set once more, then settled.",
            |it| amplification(it, true),
        ),
        row("space-filled", "Bytes on the disk for each byte of a row: the data set, settled and reopened.", |it| {
            space(it, &|_| Ok(true))
        }),
        row("space-overwritten", "The same after each row was written once more, and settled.", |it| {
            space(it, &|engine| {
                write_all(it, engine, true)?;
                engine.settle()?;
                Ok(true)
            })
        }),
        row("space-compacted", "The same, compacted by hand on top.", |it| {
            space(it, &|engine| {
                write_all(it, engine, true)?;
                engine.settle()?;
                let has = engine.compact()?;
                engine.settle()?;
                Ok(has)
            })
        }),
    ]
}

/// Writes every row; says how many there was time for.
fn write_all(context: &Context, engine: &dyn Engine, again: bool) -> Outcome<u64> {
    let count = context.keys();
    let measured = measure(
        context.plan(1, count),
        |_| (),
        |(), place| {
            let number = if again { shuffled(place, count) } else { place };
            engine.put(&key(number), &value(number, u32::from(again)))
        },
    )?;
    Ok(measured.operations())
}

fn amplification(context: &Context, again: bool) -> Outcome<Value> {
    let settings = context.settings();
    let engine = if again { context.open(Set::Base, &settings)? } else { context.create(&settings)? };
    let (done, costs) = Costs::of(|| -> Outcome<u64> {
        let done = write_all(context, engine.as_ref(), again)?;
        engine.settle()?;
        Ok(done)
    });
    let done = done?;
    let Some(written) = costs.written_bytes else {
        return Ok(serde_json::json!({"unit": "x", "unavailable": "the kernel does not count written bytes"}));
    };
    let factor = written as f64 / (done * (KEY_BYTES + VALUE_BYTES) as u64) as f64;
    context.figure("x", factor, done == context.keys(), &costs, Some(engine.as_ref()))
}

fn space(context: &Context, work: &dyn Fn(&dyn Engine) -> Outcome<bool>) -> Outcome<Value> {
    let engine = context.open(Set::Base, &context.settings())?;
    let (can, costs) = Costs::of(|| work(engine.as_ref()));
    if !can? {
        return Ok(serde_json::json!({"unit": "x", "unsupported": "it has no compaction by hand"}));
    }
    let factor = disk_bytes(&context.database_dir())? as f64 / context.logical_bytes() as f64;
    super::mixed::check_every(context, engine.as_ref(), context.keys())?;
    context.figure("x", factor, true, &costs, Some(engine.as_ref()))
}
