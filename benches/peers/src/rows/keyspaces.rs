//! The row of many keyspaces.

use std::sync::Mutex;

use serde_json::{Value, json};

use super::{Row, row};
use crate::context::Context;
use crate::data::{check_value, key, value};
use crate::engine::{Outcome, Settings, Space};
use crate::measure::measure;

/// How many.
const KEYSPACES: u64 = 10_000;

pub(super) fn rows() -> Vec<Row> {
    vec![row(
        "keyspaces",
        "10,000 keyspaces, each created and given a row; 1 thread. An operation is one of them.",
        keyspaces,
    )]
}

fn keyspaces(context: &Context) -> Outcome<Value> {
    let settings = Settings { keyspaces: KEYSPACES as u32, ..context.settings() };
    let engine = context.create(&settings)?;
    let made: Mutex<Vec<Box<dyn Space + '_>>> = Mutex::default();
    let measured = measure(
        context.plan(1, KEYSPACES),
        |_| (),
        |(), number| {
            let Some(space) = engine.create_space(&format!("space-{number}"))? else { return Ok(()) };
            space.put(&key(number), &value(number, 0))?;
            made.lock().expect("one thread uses it").push(space);
            Ok(())
        },
    )?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    let made = made.into_inner().expect("one thread uses it");
    if made.is_empty() {
        return Ok(json!({"unit": "ops", "unsupported": "it has no keyspaces"}));
    }
    assert_eq!(made.len() as u64, measured.operations());
    for (number, space) in made.iter().enumerate() {
        let number = number as u64;
        assert!(space.get(&key(number), &mut |found| check_value(number, 0, found))?, "row {number} is missing");
        assert!(!space.get(&key(number + 1), &mut |_| {})?, "a row of another keyspace");
    }
    Ok(line)
}
