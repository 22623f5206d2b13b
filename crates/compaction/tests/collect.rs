//! What the collector keeps, against a model that reads before and after.

use std::collections::{BTreeMap, BTreeSet};

use compaction::{Cause, Collector, Verdict};
use internal_key::{Kind, SeqNo, Trailer};
use proptest::prelude::*;

fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

/// The versions of one key, newest first.
type Versions = Vec<(u64, Kind)>;

/// What a reader at `at` sees: operands from the newest on, then what they stand on.
fn read(versions: &[(u64, Kind)], at: u64) -> (Vec<u64>, Option<u64>) {
    let mut operands = Vec::new();
    for &(number, kind) in versions.iter().filter(|(number, _)| *number <= at) {
        match kind {
            Kind::Put | Kind::ValuePointer => return (operands, Some(number)),
            Kind::Delete | Kind::SingleDelete => return (operands, None),
            Kind::Merge => operands.push(number),
            Kind::RangeDelete => {}
        }
    }
    (operands, None)
}

#[derive(Debug, Clone)]
struct Case {
    /// By key: the versions in the inputs, and older ones in runs outside them.
    keys: BTreeMap<u8, (Versions, Versions)>,
    floor: u64,
    snapshots: BTreeSet<u64>,
    /// Keys of which the runs outside might hold something, for all their bounds say.
    maybe: BTreeSet<u8>,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        5 => Just(Kind::Put),
        4 => Just(Kind::Delete),
        1 => Just(Kind::SingleDelete),
        1 => Just(Kind::Merge),
        1 => Just(Kind::ValuePointer),
        1 => Just(Kind::RangeDelete),
    ];
    let entries = prop::collection::btree_map(1_u64..40, (0_u8..6, kind), 0..40);
    let split = prop::collection::btree_map(0_u8..6, 0_u64..20, 0..6);
    (
        entries,
        split,
        0_u64..45,
        prop::collection::btree_set(0_u64..45, 0..6),
        prop::collection::btree_set(0_u8..6, 0..3),
    )
        .prop_map(|(entries, split, floor, snapshots, maybe)| {
            let mut keys: BTreeMap<u8, (Versions, Versions)> = BTreeMap::new();
            for (number, (key, kind)) in entries.into_iter().rev() {
                let (inside, outside) = keys.entry(key).or_default();
                let is_outside = split.get(&key).is_some_and(|oldest| number < *oldest);
                if is_outside { outside.push((number, kind)) } else { inside.push((number, kind)) }
            }
            Case { keys, floor, snapshots, maybe }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// C2: at the floor, at every seqno above it and at every snapshot, reads before and after agree; and nothing is
    /// kept that no such reader needs.
    #[test]
    fn every_reader_sees_the_same_and_nothing_else_stays(case in case()) {
        let snapshots: Vec<SeqNo> = case.snapshots.iter().copied().map(seqno).collect();
        let may_hold = |key: u8| case.maybe.contains(&key) || case.keys[&key].1.iter().any(|_| true);
        let mut collector = Collector::new(seqno(case.floor), &snapshots, |key: &[u8]| may_hold(key[0]));
        let mut kept: BTreeMap<u8, Versions> = BTreeMap::new();
        let mut dropped_tombstones: BTreeSet<(u8, u64)> = BTreeSet::new();
        let mut fed = 0;
        for (&key, (inside, _)) in &case.keys {
            for &(number, kind) in inside {
                fed += 1;
                match collector.visit(&[key], Trailer::new(seqno(number), kind)) {
                    Verdict::Keep => kept.entry(key).or_default().push((number, kind)),
                    Verdict::Drop(Cause::Tombstone) => { dropped_tombstones.insert((key, number)); }
                    Verdict::Drop(Cause::Hidden) => {}
                    Verdict::Drop(Cause::Duplicate) => prop_assert!(false, "no entry stands twice"),
                }
            }
        }
        let collected = collector.collected();
        prop_assert_eq!(collected.seen(), fed);
        prop_assert_eq!(collected.kept, kept.values().map(|versions| versions.len() as u64).sum::<u64>());
        prop_assert_eq!(collected.tombstones, dropped_tombstones.len() as u64);

        let readers: BTreeSet<u64> = (case.floor..50).chain(case.snapshots.iter().copied()).collect();
        for (key, (inside, outside)) in &case.keys {
            let none = Versions::new();
            let left = kept.get(key).unwrap_or(&none);
            let before: Versions = inside.iter().chain(outside).copied().collect();
            let after: Versions = left.iter().chain(outside).copied().collect();
            for &at in &readers {
                prop_assert_eq!(read(&before, at), read(&after, at), "key {} at {}", key, at);
            }
            for &(number, kind) in inside {
                let is_kept = left.contains(&(number, kind));
                let must_stay = number > case.floor || kind == Kind::RangeDelete;
                prop_assert!(is_kept || !must_stay, "{} of key {} must stay", number, key);
                if !is_kept || must_stay {
                    continue;
                }
                // Somebody reads it: taken away, or put away where it is a tombstone, some read would change.
                let seen = readers.iter().any(|&at| {
                    let mut below = before.iter().filter(|(other, _)| *other <= at);
                    below.find(|(other, kind)| *other == number || !matches!(kind, Kind::Merge | Kind::RangeDelete))
                        .is_some_and(|(other, _)| *other == number)
                });
                prop_assert!(seen, "{} of key {} is seen by nobody", number, key);
                let oldest = case.snapshots.first().copied().unwrap_or(case.floor).min(case.floor);
                if kind.is_tombstone() && number <= oldest {
                    prop_assert!(may_hold(*key), "tombstone {} of key {} has nothing to hide", number, key);
                }
            }
        }
    }
}

fn verdicts(floor: u64, snapshots: &[u64], held: bool, entries: &[(&str, u64, Kind)]) -> Vec<Verdict> {
    let snapshots: Vec<SeqNo> = snapshots.iter().copied().map(seqno).collect();
    let mut collector = Collector::new(seqno(floor), &snapshots, |_: &[u8]| held);
    let entries = entries.iter();
    entries.map(|(key, number, kind)| collector.visit(key.as_bytes(), Trailer::new(seqno(*number), *kind))).collect()
}

const HIDDEN: Verdict = Verdict::Drop(Cause::Hidden);

/// C2: the figure of the module header, as a test.
#[test]
fn stripes_end_at_the_floor_and_at_each_snapshot() {
    use Verdict::Keep;
    let entries = [52, 47, 38, 31, 22, 14, 9, 3].map(|number| ("k", number, Kind::Put));
    assert_eq!(verdicts(40, &[10, 25], true, &entries), [Keep, Keep, Keep, HIDDEN, Keep, HIDDEN, Keep, HIDDEN],);
}

/// C2: a version written at exactly a snapshot's seqno belongs to the snapshot.
#[test]
fn a_snapshot_sees_what_was_written_at_its_seqno() {
    let entries = [("k", 14, Kind::Put), ("k", 10, Kind::Put), ("k", 9, Kind::Put)];
    assert_eq!(verdicts(40, &[10], true, &entries), [Verdict::Keep, Verdict::Keep, HIDDEN]);
}

/// C2: a tombstone goes only when nothing older can lie elsewhere.
#[test]
fn a_tombstone_stays_while_an_older_run_may_hold_the_key() {
    let entries = [("k", 9, Kind::Delete), ("k", 3, Kind::Put)];
    assert_eq!(verdicts(20, &[], true, &entries), [Verdict::Keep, HIDDEN]);
    assert_eq!(verdicts(20, &[], false, &entries), [Verdict::Drop(Cause::Tombstone), HIDDEN]);
}

/// C2: a tombstone stays while a snapshot can see what it hides, and while it is above the floor.
#[test]
fn a_tombstone_stays_outside_the_oldest_stripe() {
    let entries = [("k", 9, Kind::Delete), ("k", 3, Kind::Put)];
    assert_eq!(verdicts(20, &[5], false, &entries), [Verdict::Keep; 2]);
    assert_eq!(verdicts(8, &[], false, &entries), [Verdict::Keep; 2]);
}

/// C2: a merge operand hides nothing; what it stands on stays.
#[test]
fn what_a_merge_operand_stands_on_stays() {
    let entries =
        [("k", 9, Kind::Merge), ("k", 8, Kind::Merge), ("k", 7, Kind::Put), ("k", 6, Kind::Merge), ("k", 5, Kind::Put)];
    assert_eq!(verdicts(20, &[], false, &entries), [Verdict::Keep, Verdict::Keep, Verdict::Keep, HIDDEN, HIDDEN],);
}

/// C2: an entry that stands in two inputs is written once, also above the floor.
#[test]
fn a_duplicate_is_written_once() {
    let entries = [("k", 9, Kind::Merge), ("k", 9, Kind::Merge), ("l", 9, Kind::Put)];
    assert_eq!(verdicts(5, &[], false, &entries), [Verdict::Keep, Verdict::Drop(Cause::Duplicate), Verdict::Keep]);
}
