//! Rows about opening.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::written::count_lost;
use super::{Row, row, shuffled};
use crate::context::Context;
use crate::data::{check_any_value, check_value, key, value};
use crate::engine::{Kind, Outcome, Settings};
use crate::measure::{Costs, latencies};
use crate::sets::Set;

/// How often a database that was closed is opened.
const OPENINGS: u64 = 5;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row(
            "open-after-close",
            "Opening the settled data set, with a first get: the median of 5, in the page cache.",
            closed,
        ),
        row(
            "open-after-kill",
            "Opening, with a first get, after half of the rows were overwritten and the process killed. What is lost is counted.",
            killed,
        ),
    ]
}

fn closed(context: &Context) -> Outcome<Value> {
    context.copy(Set::Base)?;
    let settings = context.settings();
    let mut times = Histogram::<u64>::new(3)?;
    let (outcome, costs) = Costs::of(|| -> Outcome {
        for number in 0..OPENINGS {
            let begun = Instant::now();
            let engine = context.create(&settings)?;
            let found = engine.get(&key(number), &mut |value| check_value(number, 0, value))?;
            times.record(begun.elapsed().as_nanos() as u64)?;
            assert!(found, "row {number} is missing");
        }
        Ok(())
    });
    outcome?;
    let mut line = context.figure("ms", times.value_at_quantile(0.5) as f64 / 1e6, true, &costs, None)?;
    line["latency_ns"] = latencies(&times);
    Ok(line)
}

/// Half of the rows, in an order of their own.
fn overwritten(keys: u64) -> impl Iterator<Item = u64> {
    (0..keys / 2).map(move |place| shuffled(place, keys))
}

fn killed(context: &Context) -> Outcome<Value> {
    context.copy(Set::Base)?;
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["die", "--engine", context.kind.name, "--keys", &context.keys().to_string()]);
    child.args(["--compression", if context.compressed { "lz4" } else { "none" }]);
    let status = child.arg("--dir").arg(context.database_dir()).status()?;
    if status.success() || status.code().is_some() {
        return Err(format!("the process that was to be killed ended by itself: {status}").into());
    }
    let settings = context.settings();
    let begun = Instant::now();
    let (engine, costs) = Costs::of(|| -> Outcome<_> {
        let engine = context.create(&settings)?;
        let found = engine.get(&key(0), &mut |value| {
            check_any_value(0, value);
        })?;
        assert!(found, "row 0 is missing");
        Ok((engine, begun.elapsed()))
    });
    let (engine, took) = engine?;
    let lost = count_lost(context, engine.as_ref(), context.keys() / 2)?;
    assert!(lost == 0 || !context.kind.survives_kill, "{lost} commits are lost that were to survive a kill");
    let mut line = context.figure("ms", took.as_secs_f64() * 1e3, true, &costs, Some(engine.as_ref()))?;
    line["lost"] = json!(lost);
    Ok(line)
}

/// Overwrites half of the rows of the database and kills this process without closing anything.
pub(crate) fn die_with_rows(kind: &Kind, settings: &Settings, keys: u64, dir: &Path) -> Outcome {
    let engine = (kind.open)(dir, settings)?;
    for number in overwritten(keys) {
        engine.put(&key(number), &value(number, 1))?;
    }
    // SAFETY: a signal to this process itself.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    Err("a killed process went on".into())
}
