//! The six workloads of YCSB, on 2 threads, over rows of 16 + 100 B.
//!
//! | | reads | writes | keys |
//! |---|---|---|---|
//! | A | 50 % gets | 50 % overwrites | skewed |
//! | B | 95 % gets | 5 % overwrites | skewed |
//! | C | all gets | | skewed |
//! | D | 95 % gets | 5 % inserts | the newest most |
//! | E | 95 % scans of 1 to 100 rows | 5 % inserts | skewed |
//! | F | 50 % gets | 50 % gets followed by an overwrite | skewed |

use std::collections::HashMap;

use serde_json::Value;

use super::mixed::get_any;
use super::written::Written;
use super::{Row, row};
use crate::context::Context;
use crate::data::{Random, Zipf, check_any_value, check_value, key, mix, number_of, value};
use crate::engine::{Direction, Engine, Outcome};
use crate::measure::measure;
use crate::sets::Set;

const THREADS: usize = 2;

/// The most rows of a scan.
const SCAN_MAX: u64 = 100;

#[derive(Debug, Clone, Copy)]
enum Workload {
    A,
    B,
    C,
    D,
    E,
    F,
}

pub(super) fn rows() -> Vec<Row> {
    let of = |workload| move |it: &Context| ycsb(it, workload);
    vec![
        row("ycsb-a", "50 % gets, 50 % overwrites, skewed; 2 threads.", of(Workload::A)),
        row("ycsb-b", "95 % gets, 5 % overwrites, skewed; 2 threads.", of(Workload::B)),
        row("ycsb-c", "Gets, skewed; 2 threads.", of(Workload::C)),
        row("ycsb-d", "95 % gets of the newest most, 5 % inserts; 2 threads.", of(Workload::D)),
        row("ycsb-e", "95 % scans of 1 to 100 rows, skewed, 5 % inserts; 2 threads.", of(Workload::E)),
        row("ycsb-f", "50 % gets, 50 % gets with overwrite, skewed; 2 threads.", of(Workload::F)),
    ]
}

/// What a thread does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Get(u64),
    /// Writes the row of the data set anew, as of this generation.
    Overwrite(u64, u32),
    /// Gets the row of the data set and writes it as of the next generation.
    Advance(u64),
    /// Writes a row that was not there.
    Insert(u64),
    /// Looks at so many rows from this one of the data set on.
    Scan(u64, u64),
}

/// Chooses the steps of a thread. They follow from its number, so that they can be gone through again.
struct Chooser<'a> {
    workload: Workload,
    zipf: &'a Zipf,
    random: Random,
    thread: u64,
    /// Rows of the data set.
    keys: u64,
    /// Rows that this thread has inserted.
    inserted: u64,
}

impl<'a> Chooser<'a> {
    fn new(workload: Workload, zipf: &'a Zipf, keys: u64, thread: u64) -> Self {
        Self { workload, zipf, random: Random::new(thread), thread, keys, inserted: 0 }
    }

    /// A row of the data set, some more likely than others, which lie anywhere.
    #[inline]
    fn skewed(&mut self) -> u64 {
        mix(self.zipf.rank(&mut self.random)) % self.keys
    }

    /// Of the rows that this thread knows of, the newest most.
    #[inline]
    fn newest(&mut self) -> u64 {
        let back = self.zipf.rank(&mut self.random);
        match self.inserted.checked_sub(back + 1) {
            Some(place) => self.own(place),
            None => (self.keys - 1).saturating_sub(back - self.inserted),
        }
    }

    /// The number of the row that this thread inserted as its `place`-th.
    #[inline]
    fn own(&self, place: u64) -> u64 {
        self.keys + self.thread + place * THREADS as u64
    }

    #[inline]
    fn insert(&mut self) -> Step {
        self.inserted += 1;
        Step::Insert(self.own(self.inserted - 1))
    }

    #[inline]
    fn next(&mut self) -> Step {
        let of_hundred = self.random.below(100);
        match self.workload {
            Workload::A | Workload::B | Workload::C => {
                let reads = match self.workload {
                    Workload::A => 50,
                    Workload::B => 95,
                    _ => 100,
                };
                let number = self.skewed();
                match of_hundred < reads {
                    true => Step::Get(number),
                    false => Step::Overwrite(number, self.random.next() as u32),
                }
            }
            Workload::D if of_hundred < 95 => Step::Get(self.newest()),
            Workload::E if of_hundred < 95 => {
                let first = self.skewed();
                Step::Scan(first, 1 + self.random.below(SCAN_MAX))
            }
            Workload::D | Workload::E => self.insert(),
            Workload::F => {
                let number = self.skewed();
                if of_hundred < 50 { Step::Get(number) } else { Step::Advance(number) }
            }
        }
    }
}

/// The data set in the order of its keys, for those that scan it.
struct Order<'a> {
    sorted: &'a [u32],
    /// Where each row stands in `sorted`.
    places: Vec<u32>,
}

impl<'a> Order<'a> {
    fn of(sorted: &'a [u32]) -> Self {
        let mut places = vec![0; sorted.len()];
        for (place, &number) in (0..).zip(sorted) {
            places[number as usize] = place;
        }
        Self { sorted, places }
    }
}

/// Scans `length` rows from row `first` on. No row of the data set may be passed over, and it may end early only where the
/// data set ends; rows that were inserted meanwhile may come between.
fn scan(engine: &dyn Engine, order: &Order<'_>, first: u64, length: u64) -> Outcome {
    let from = key(first);
    let mut place = order.places[first as usize] as usize;
    let (mut before, mut seen) = (from, 0);
    engine.scan(Some(&from), Direction::Forward, &mut |found, value| {
        let number = number_of(found);
        check_value(number, 0, value);
        assert!(if seen == 0 { found == from } else { found > &before[..] }, "rows are out of order");
        if number < order.sorted.len() as u64 {
            assert_eq!(order.sorted.get(place).copied(), Some(number as u32), "a row is missing before row {number}");
            place += 1;
        }
        before.copy_from_slice(found);
        seen += 1;
        seen < length
    })?;
    assert!(seen == length || place == order.sorted.len(), "a scan from row {first} on ended after {seen} rows");
    Ok(())
}

#[inline]
fn carry_out(engine: &dyn Engine, order: Option<&Order<'_>>, step: Step) -> Outcome {
    match step {
        Step::Get(number) => get_any(engine, number).map(|_| ()),
        Step::Overwrite(number, generation) => engine.put(&key(number), &value(number, generation)),
        Step::Advance(number) => {
            let generation = get_any(engine, number)?;
            engine.put(&key(number), &value(number, generation.wrapping_add(1)))
        }
        Step::Insert(number) => engine.put(&key(number), &value(number, 0)),
        Step::Scan(first, length) => scan(engine, order.expect("made for whoever scans"), first, length),
    }
}

fn ycsb(context: &Context, workload: Workload) -> Outcome<Value> {
    let keys = context.keys();
    let zipf = Zipf::new(keys);
    // Before the database is opened: it is no memory of the engine's.
    let order = matches!(workload, Workload::E).then(|| Order::of(context.rows.sorted()));
    let engine = context.open(Set::Base, &context.settings())?;
    super::get::warm_up(context, engine.as_ref())?;
    let mut plan = context.reads(THREADS as u64);
    if matches!(workload, Workload::E) {
        plan.operations /= 5;
    }
    let begin = |thread| Chooser::new(workload, &zipf, keys, thread);
    let measured = measure(plan, begin, |it, _| carry_out(engine.as_ref(), order.as_ref(), it.next()))?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    Left::of(&measured.done, begin).check(context, engine.as_ref())?;
    Ok(line)
}

/// What all threads together must have left.
#[derive(Default)]
struct Left {
    overwritten: Written,
    /// How often each thread wrote a row as of the next generation.
    advanced: HashMap<u64, [u32; THREADS]>,
    /// How many rows each thread inserted.
    inserted: [u64; THREADS],
}

impl Left {
    /// Goes through the steps again, as many as each thread did.
    fn of<'a>(done: &[u64], begin: impl Fn(u64) -> Chooser<'a>) -> Self {
        let mut left = Self::default();
        for (thread, &done) in done.iter().enumerate() {
            let mut chooser = begin(thread as u64);
            let mut overwritten = Vec::new();
            for _ in 0..done {
                match chooser.next() {
                    Step::Overwrite(number, generation) => overwritten.push((number, generation)),
                    Step::Advance(number) => left.advanced.entry(number).or_default()[thread] += 1,
                    Step::Get(_) | Step::Insert(_) | Step::Scan(..) => {}
                }
            }
            left.overwritten.add(overwritten.into_iter());
            left.inserted[thread] = chooser.inserted;
        }
        left
    }

    /// Panics unless the database holds this, and nothing else.
    fn check(&self, context: &Context, engine: &dyn Engine) -> Outcome {
        let keys = context.keys();
        context.check_all(engine, keys + self.inserted.iter().sum::<u64>(), |number, found| {
            let generation = check_any_value(number, found);
            if let Some(place) = number.checked_sub(keys) {
                let thread = (place % THREADS as u64) as usize;
                assert!(place / (THREADS as u64) < self.inserted[thread], "row {number}, which nobody inserted");
                assert_eq!(generation, 0, "row {number} was never overwritten");
                return;
            }
            match self.advanced.get(&number) {
                Some(times) => check_advanced(number, generation, times),
                None => self.overwritten.check(number, generation),
            }
        })
    }
}

/// Panics unless the row can be of this generation after each thread has got it and written the next one so often.
///
/// Between a get and its write the other thread's writes may come, and are lost then: two threads leave anything from 1 to
/// their sum.
fn check_advanced(number: u64, generation: u32, times: &[u32; THREADS]) {
    let all: u32 = times.iter().sum();
    let least = if times.contains(&all) { all } else { 1 };
    assert!(
        (least..=all).contains(&generation),
        "row {number} holds {generation} after {times:?} steps of the threads"
    );
}
