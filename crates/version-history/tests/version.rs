//! Versions and runs against plain searches.
#![cfg(not(any(loom, shuttle)))]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use internal_key::{Epoch, Level, TableId};
use support::{added, table};
use test_support::{Rng, for_each_seed};
use version_history::{Run, Table, Version};

/// Keys whose heads are often equal: a few prefixes of eight bytes and more, short tails.
fn key(rng: &mut Rng) -> String {
    let prefix = rng.pick(&["", "a", "commonprefix", "commonprefiy", "eightbyt"]);
    format!("{prefix}{:02}", rng.below(40))
}

fn random_run(rng: &mut Rng) -> Run<()> {
    let count = 2 * (1 + rng.index(12));
    let mut bounds: Vec<String> = (0..count).map(|_| key(rng)).collect();
    bounds.sort();
    bounds.dedup();
    let tables = bounds.chunks(2).zip(1..).map(|(pair, id)| table(id, &pair[0], pair.last().unwrap())).collect();
    Run::new(Epoch(1), tables)
}

/// C3: a search over the fences finds what a search through all tables finds.
#[test]
fn run_finds_the_table_that_can_hold_a_key() {
    for_each_seed(0..300, |rng| {
        let run = random_run(rng);
        for _ in 0..20 {
            let (low, high) = (key(rng), key(rng));
            let tables = run.tables();
            let key = low.as_bytes();
            let seek = tables.iter().position(|table| *table.entry.max_key >= *key).unwrap_or(tables.len());
            assert_eq!(run.seek(key), seek, "{low} in {tables:?}");
            let holds = |table: &&Arc<Table<()>>| *table.entry.min_key <= *key && *key <= *table.entry.max_key;
            assert_eq!(run.find(key).map(|table| table.id()), tables.iter().find(holds).map(|table| table.id()));
            let overlaps = |table: &&Arc<Table<()>>| {
                *table.entry.max_key >= *low.as_bytes() && *table.entry.min_key <= *high.as_bytes()
            };
            let (low, high) = (low.as_bytes(), high.as_bytes());
            if low <= high {
                let expected: Vec<TableId> = tables.iter().filter(overlaps).map(|table| table.id()).collect();
                let found: Vec<TableId> = run.overlapping(low, high).iter().map(|table| table.id()).collect();
                assert_eq!(found, expected);
            }
        }
    });
}

/// C3: after any row of edits the runs of each level stand newest epoch first, and hold what a map of the edits holds; the
/// versions before stay as they were (R2).
#[test]
fn edits_agree_with_a_map() {
    for_each_seed(0..100, |rng| {
        let mut version: Arc<Version<()>> = Arc::default();
        // Slots keep the tables of a run apart: table `slot` of any run has the keys of that slot.
        let mut model: BTreeMap<(Level, Epoch, u64), TableId> = BTreeMap::new();
        let mut next_id = 1;
        for _ in 0..40 {
            let before = version.to_string();
            let (mut out, mut into) = (Vec::new(), Vec::new());
            for (&place, &id) in model.clone().iter() {
                if rng.one_in(4) {
                    out.push((place.0, id));
                    model.remove(&place);
                }
            }
            for _ in 0..rng.below(5) {
                let place = (Level(rng.below(3) as u8), Epoch(rng.below(4)), rng.below(6));
                if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(place) {
                    let new = table(next_id, &format!("k{}a", place.2), &format!("k{}z", place.2));
                    vacant.insert(new.id());
                    into.push(added(place.0.0, place.1.0, &new));
                    next_id += 1;
                }
            }
            let next = Arc::new(version.replace(&out, &into).unwrap());
            assert_eq!(version.to_string(), before);
            let mut found: BTreeMap<(Level, Epoch, u64), TableId> = BTreeMap::new();
            for (level, run) in next.runs_newest_first() {
                for table in run.tables() {
                    let slot = u64::from(table.entry.min_key[1] - b'0');
                    assert!(found.insert((level, run.epoch, slot), table.id()).is_none());
                }
            }
            assert_eq!(found, model);
            for level in (0..3).map(Level) {
                assert!(next.runs(level).is_sorted_by(|newer, older| newer.epoch > older.epoch), "C3:\n{next}");
                let bytes: u64 =
                    model.iter().filter(|(place, _)| place.0 == level).map(|(_, id)| 1000 * id.get()).sum();
                assert_eq!(next.bytes(level), bytes);
            }
            assert_eq!(next.is_empty(), model.is_empty());
            version = next;
        }
    });
}
