//! Rows about bytes: written to the disk, and taken on it.

use serde_json::{Value, json};

use super::written::check_overwritten;
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
            space(it, Of::Everything, &nothing)
        }),
        row("space-filled-live", "Of these, what live tables or pages take.", |it| space(it, Of::Live, &nothing)),
        row(
            "space-overwritten",
            "Bytes on the disk for each byte of a row, after each row was written once more, and settled.",
            |it| space(it, Of::Everything, &|engine| overwrite(it, engine)),
        ),
        row("space-overwritten-live", "Of these, what live tables or pages take.", |it| {
            space(it, Of::Live, &|engine| overwrite(it, engine))
        }),
        row(
            "space-compacted",
            "Bytes on the disk for each byte of a row, after each was written once more and all was compacted by hand.",
            |it| {
                space(it, Of::Everything, &|engine| {
                    let overwritten = overwrite(it, engine)?;
                    let compacted = engine.compact()?;
                    engine.settle()?;
                    Ok(overwritten.filter(|_| compacted))
                })
            },
        ),
    ]
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Everything,
    Live,
}

/// What is done before space is measured: writes every row once more or none, then settles. Says how many of how many
/// there was time for, or nothing if the engine cannot do it.
type Work<'a> = &'a dyn Fn(&dyn Engine) -> Outcome<Option<Overwritten>>;

/// Rows that were written once more, of those that were to be.
#[derive(Debug, Clone, Copy)]
struct Overwritten {
    done: u64,
    wanted: u64,
}

fn overwrite(context: &Context, engine: &dyn Engine) -> Outcome<Option<Overwritten>> {
    let done = write_all(context, engine, true)?;
    engine.settle()?;
    Ok(Some(Overwritten { done, wanted: context.keys() }))
}

/// Leaves the data set as it is.
fn nothing(_: &dyn Engine) -> Outcome<Option<Overwritten>> {
    Ok(Some(Overwritten { done: 0, wanted: 0 }))
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
        return Ok(json!({"unit": "x", "unavailable": "the kernel does not count written bytes"}));
    };
    let factor = written as f64 / (done * (KEY_BYTES + VALUE_BYTES) as u64) as f64;
    let line = context.figure("x", factor, done == context.keys(), &costs, Some(engine.as_ref()))?;
    match again {
        true => check_overwritten(context, engine.as_ref(), done)?,
        false => context.check_first(engine.as_ref(), done)?,
    }
    Ok(line)
}

/// Does the work and measures what it left.
fn space(context: &Context, of: Of, work: Work<'_>) -> Outcome<Value> {
    let engine = context.open(Set::Base, &context.settings())?;
    let (overwritten, costs) = Costs::of(|| work(engine.as_ref()));
    let Some(Overwritten { done, wanted }) = overwritten? else {
        return Ok(json!({"unit": "x", "unsupported": "it has no compaction by hand"}));
    };
    let bytes = match of {
        Of::Everything => disk_bytes(&context.database_dir())?,
        Of::Live => match engine.live_bytes()? {
            Some(bytes) => bytes,
            None => return Ok(json!({"unit": "x", "unsupported": "it does not tell"})),
        },
    };
    let factor = bytes as f64 / context.logical_bytes() as f64;
    let line = context.figure("x", factor, done == wanted, &costs, Some(engine.as_ref()))?;
    check_overwritten(context, engine.as_ref(), done)?;
    Ok(line)
}
