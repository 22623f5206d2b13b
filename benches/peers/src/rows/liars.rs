//! Engines in memory that do not do what they say: a row that is not fit to notice it says nothing of any engine.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::all;
use crate::context::Context;
use crate::data::{Key, VALUE_BYTES, key, value};
use crate::engine::{Direction, Engine, Kind, Look, Outcome};
use crate::sets::Set;

const KEYS: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Of a row that is there already a put changes nothing.
    OldValuesStay,
    /// A row is overwritten once, and never again.
    SecondValuesStay,
    /// Some new rows are not written.
    NewRowsAreLost,
    /// A delete changes nothing.
    DeletesNothing,
    /// A scan from a key on ends after a row.
    ScansEndEarly,
    /// A scan from a key on passes over a row.
    ScansPassOver,
}

struct Liar {
    lie: Lie,
    rows: Mutex<BTreeMap<Key, Vec<u8>>>,
}

impl Liar {
    /// A copy of the data set where there is a directory, an empty database where there is none.
    fn open(lie: Lie, dir: &Path) -> Outcome<Box<dyn Engine>> {
        let count = if dir.exists() { KEYS } else { 0 };
        let rows = (0..count).map(|number| (key(number), value(number, 0).to_vec())).collect();
        Ok(Box::new(Self { lie, rows: Mutex::new(rows) }))
    }

    fn rows(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
        // A row's check panics while it looks at a value.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine for Liar {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        let (key, mut rows): (Key, _) = (key.try_into()?, self.rows());
        let is_lost = match (self.lie, rows.get(&key)) {
            (Lie::OldValuesStay, old) => old.is_some(),
            (Lie::SecondValuesStay, Some(old)) => old[8..12] != [0; 4],
            (Lie::NewRowsAreLost, None) => key[0].is_multiple_of(8),
            _ => false,
        };
        if !is_lost {
            rows.insert(key, value.to_vec());
        }
        Ok(())
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        rows.iter().try_for_each(|(key, value)| self.put(key, value))
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        if self.lie != Lie::DeletesNothing {
            self.rows().remove(key);
        }
        Ok(())
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.rows().get(key).cloned();
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        assert_eq!(direction, Direction::Forward, "no row of these tests goes backwards");
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        let rows = self.rows();
        for (place, (key, value)) in rows.range::<[u8], _>((start, Bound::Unbounded)).enumerate() {
            let ends = from.is_some() && self.lie == Lie::ScansEndEarly && place == 1;
            let passes = from.is_some() && self.lie == Lie::ScansPassOver && place == 1;
            if ends || (!passes && !look(key, value)) {
                break;
            }
        }
        Ok(())
    }

    fn settle(&self) -> Outcome {
        Ok(())
    }

    fn compact(&self) -> Outcome<bool> {
        Ok(true)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        Ok(Some(1))
    }
}

/// An engine that tells this lie.
fn kind(lie: Lie) -> Kind {
    Kind {
        name: "liar",
        version: "0",
        says: |_| String::new(),
        open: match lie {
            Lie::None => |dir, _| Liar::open(Lie::None, dir),
            Lie::OldValuesStay => |dir, _| Liar::open(Lie::OldValuesStay, dir),
            Lie::SecondValuesStay => |dir, _| Liar::open(Lie::SecondValuesStay, dir),
            Lie::NewRowsAreLost => |dir, _| Liar::open(Lie::NewRowsAreLost, dir),
            Lie::DeletesNothing => |dir, _| Liar::open(Lie::DeletesNothing, dir),
            Lie::ScansEndEarly => |dir, _| Liar::open(Lie::ScansEndEarly, dir),
            Lie::ScansPassOver => |dir, _| Liar::open(Lie::ScansPassOver, dir),
        },
        is_immutable: |_| false,
        reads_in_place: false,
        survives_kill: true,
    }
}

/// Whether the row, measured with an engine that tells this lie, ends well.
fn passes(row: &str, lie: Lie) -> bool {
    let dir = std::env::temp_dir().join(format!("lab-liar-{}-{row}-{lie:?}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(dir.join("data").join(Set::Base.name())).unwrap();
    let context = Context::new(kind(lie), KEYS, Duration::from_millis(40), false, dir.join("run"), dir.join("data"));
    let row = all().into_iter().find(|it| it.name == row).unwrap();
    std::fs::create_dir_all(&context.dir).unwrap();
    let ended = catch_unwind(AssertUnwindSafe(|| (row.run)(&context).is_ok()));
    std::fs::remove_dir_all(&dir).unwrap();
    ended.unwrap_or(false)
}

#[test]
fn an_engine_that_lies_is_noticed_and_one_that_does_not_is_measured() {
    const OVERWRITE: &[&str] = &[
        "overwrite",
        "read-while-writing",
        "mixed-1",
        "mixed-2",
        "ycsb-a",
        "ycsb-b",
        "ycsb-f",
        "write-amplification-overwrite",
        "space-overwritten",
        "space-overwritten-live",
        "space-compacted",
    ];
    const OVERWRITE_OFTEN: &[&str] = &["read-while-writing", "mixed-1", "mixed-2", "ycsb-a", "ycsb-b", "ycsb-f"];
    const INSERT: &[&str] =
        &["fill-sequential", "fill-random", "fill-batch", "ycsb-d", "ycsb-e", "write-amplification-fill"];
    for (lie, rows) in [
        (Lie::OldValuesStay, OVERWRITE),
        (Lie::SecondValuesStay, OVERWRITE_OFTEN),
        (Lie::NewRowsAreLost, INSERT),
        (Lie::DeletesNothing, &["delete", "scan-after-delete"]),
        (Lie::ScansEndEarly, &["ycsb-e", "seek-10", "seek-10-kept"]),
        (Lie::ScansPassOver, &["ycsb-e", "seek-10", "seek-10-kept"]),
    ] {
        for row in rows {
            assert!(passes(row, Lie::None), "{row} fails without a lie");
            assert!(!passes(row, lie), "{row} does not notice {lie:?}");
        }
    }
}
