//! Rows that ask for keys.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Row, row};
use crate::context::Context;
use crate::data::{Key, Random, check_large_value, check_value, key};
use crate::engine::{Direction, Engine, Outcome, Settings};
use crate::limit::MemoryLimit;
use crate::measure::{Plan, measure};
use crate::sets::{self, Set};

/// Keys of one call of `get_many`.
const TOGETHER: u64 = 100;

/// Less memory than this is no place for any engine, however small the data are.
const LIMIT_BYTES_MIN: u64 = 16 << 20;

pub(super) fn rows() -> Vec<Row> {
    vec![
        row("get", "Random keys of the settled data set, all in memory; 1 thread.", |it| warm(it, 1)),
        row("get-2", "The same; 2 threads.", |it| warm(it, 2)),
        row(
            "get-small-cache",
            "Random keys with a cache of 1/10 of the data, the files in the page cache; 1 thread.",
            small_cache,
        ),
        row(
            "get-little-memory",
            "Random keys in a control group with memory for 1/4 of the data, half of it as cache; 1 thread.",
            little_memory,
        ),
        row("get-missing", "Random keys that nobody wrote, among the others; 1 thread.", missing),
        row(
            "multi-get",
            "100 random keys a call, of one state where the engine has a call for that; 1 thread. An operation is one key.",
            multi,
        ),
        row("get-4k", "Random keys of 1/40 of the rows, with values of 4 KiB; 1 thread.", |it| large(it, Set::Large4K)),
        row("get-64k", "Random keys of 1/640 of the rows, with values of 64 KiB; 1 thread.", |it| {
            large(it, Set::Large64K)
        }),
    ]
}

/// Reads everything once in order and some of it at random, so that what caches can hold they hold.
pub(super) fn warm_up(context: &Context, engine: &dyn Engine) -> Outcome {
    engine.scan(None, Direction::Forward, &mut |_, _| true)?;
    let plan = Plan { time: context.time / 4, ..context.reads(1) };
    measure(plan, |_| Random::new(99), |random, _| get_one(context, engine, random)).map(|_| ())
}

/// Asks for a random key and checks the answer.
#[inline]
fn get_one(context: &Context, engine: &dyn Engine, random: &mut Random) -> Outcome {
    let number = random.below(context.keys());
    let found = engine.get(&key(number), &mut |value| check_value(number, 0, value))?;
    assert!(found, "row {number} is missing");
    Ok(())
}

/// Random keys.
fn gets(context: &Context, engine: &dyn Engine, threads: u64) -> Outcome<Value> {
    let measured = measure(context.reads(threads), Random::new, |random, _| get_one(context, engine, random))?;
    context.line(&measured, "ops", engine)
}

fn warm(context: &Context, threads: u64) -> Outcome<Value> {
    let engine = context.open_to_read(Set::Base, &context.settings())?;
    warm_up(context, engine.as_ref())?;
    gets(context, engine.as_ref(), threads)
}

fn small_cache(context: &Context) -> Outcome<Value> {
    let settings = Settings { cache_bytes: context.logical_bytes() / 10, ..context.settings() };
    let engine = context.open_to_read(Set::Base, &settings)?;
    warm_up(context, engine.as_ref())?;
    gets(context, engine.as_ref(), 1)
}

/// Set in the process that [`little_memory`] starts: in the group, where the kernel may kill it.
const IN_GROUP: &str = "LAB_IN_GROUP";

/// Measures in a process of its own, so that what is killed for want of memory is a result and no failure.
fn little_memory(context: &Context) -> Outcome<Value> {
    if std::env::var_os(IN_GROUP).is_some() {
        return in_group(context);
    }
    let mut child = Command::new(std::env::current_exe()?);
    let child = child.args(std::env::args_os().skip(1)).env(IN_GROUP, "").stdout(Stdio::piped()).spawn()?;
    let id = child.id();
    let output = child.wait_with_output()?;
    if output.status.signal() == Some(libc::SIGKILL) {
        MemoryLimit::remove_of(id);
        return Ok(json!({"unit": "ops", "unsupported": "it was killed: it took more memory than there is"}));
    }
    if !output.status.success() {
        return Err(format!("in the control group: {}", output.status).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(serde_json::from_str(text.lines().last().ok_or("it printed nothing")?)?)
}

fn in_group(context: &Context) -> Outcome<Value> {
    let bytes = (context.logical_bytes() / 4).max(LIMIT_BYTES_MIN);
    let settings = Settings { cache_bytes: bytes / 2, larger_than_memory: true, ..context.settings() };
    context.copy(Set::Base)?;
    // Pages count for the group that read them first.
    sets::forget_pages(&context.database_dir())?;
    let limit = match MemoryLimit::enter(bytes) {
        Ok(limit) => limit,
        Err(why) => return Ok(json!({"unit": "ops", "unavailable": why})),
    };
    let engine = context.create(&settings)?;
    let line = gets(context, engine.as_ref(), 1);
    drop(limit);
    line
}

fn missing(context: &Context) -> Outcome<Value> {
    let engine = context.open_to_read(Set::Base, &context.settings())?;
    warm_up(context, engine.as_ref())?;
    let measured = measure(context.reads(1), Random::new, |random, _| {
        let number = context.keys() + random.below(context.keys());
        let found = engine.get(&key(number), &mut |_| {})?;
        assert!(!found, "row {number}, which nobody wrote");
        Ok(())
    })?;
    context.line(&measured, "ops", engine.as_ref())
}

fn multi(context: &Context) -> Outcome<Value> {
    struct State {
        random: Random,
        numbers: Vec<u64>,
        keys: Vec<Key>,
    }
    let engine = context.open_to_read(Set::Base, &context.settings())?;
    warm_up(context, engine.as_ref())?;
    let reads = context.reads(1);
    let plan = Plan { operations: reads.operations / TOGETHER, per_operation: TOGETHER, ..reads };
    let begin = |thread| State { random: Random::new(thread), numbers: Vec::new(), keys: Vec::new() };
    let measured = measure(plan, begin, |state, _| {
        state.numbers.clear();
        state.keys.clear();
        for _ in 0..TOGETHER {
            let number = state.random.below(context.keys());
            state.numbers.push(number);
            state.keys.push(key(number));
        }
        let mut found = 0;
        engine.get_many(&state.keys, &mut |place, value| {
            check_value(state.numbers[place], 0, value);
            found += 1;
        })?;
        assert_eq!(found, TOGETHER, "rows are missing");
        Ok(())
    })?;
    context.line(&measured, "ops", engine.as_ref())
}

fn large(context: &Context, set: Set) -> Outcome<Value> {
    let count = set.count(context.keys());
    let engine = context.open_to_read(set, &context.settings())?;
    engine.scan(None, Direction::Forward, &mut |_, _| true)?;
    // Each row some times over.
    let plan = context.plan(1, count * 8);
    let measured = measure(
        plan,
        |thread| (Random::new(thread), Vec::new()),
        |(random, scratch), _| {
            let number = random.below(count);
            let check = &mut |value: &[u8]| check_large_value(number, value, set.value_bytes(), scratch);
            assert!(engine.get(&key(number), check)?, "row {number} is missing");
            Ok(())
        },
    )?;
    context.line(&measured, "ops", engine.as_ref())
}
