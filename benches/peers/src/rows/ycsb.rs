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

use serde_json::Value;

use super::mixed::{check_every, get_any};
use super::{Row, row};
use crate::context::Context;
use crate::data::{Random, Zipf, check_any_value, key, mix, number_of, value};
use crate::engine::{Direction, Engine, Outcome};
use crate::measure::measure;
use crate::sets::Set;

const THREADS: u64 = 2;

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

/// What a thread knows.
struct Client<'a> {
    engine: &'a dyn Engine,
    zipf: &'a Zipf,
    random: Random,
    thread: u64,
    /// Rows of the data set.
    keys: u64,
    /// Rows that this thread has inserted.
    inserted: u64,
}

impl Client<'_> {
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
        self.keys + self.thread + place * THREADS
    }

    #[inline]
    fn get(&mut self, number: u64) -> Outcome<u32> {
        get_any(self.engine, number)
    }

    #[inline]
    fn overwrite(&mut self, number: u64, generation: u32) -> Outcome {
        self.engine.put(&key(number), &value(number, generation))
    }

    #[inline]
    fn insert(&mut self) -> Outcome {
        let number = self.own(self.inserted);
        self.engine.put(&key(number), &value(number, 0))?;
        self.inserted += 1;
        Ok(())
    }

    fn scan(&mut self) -> Outcome {
        let (first, length) = (self.skewed(), 1 + self.random.below(SCAN_MAX));
        let from = key(first);
        let (mut before, mut seen) = (from, 0);
        self.engine.scan(Some(&from), Direction::Forward, &mut |found, value| {
            check_any_value(number_of(found), value);
            assert!(if seen == 0 { found == from } else { found > &before[..] }, "rows are out of order");
            before.copy_from_slice(found);
            seen += 1;
            seen < length
        })?;
        assert!(seen > 0, "row {first} is missing");
        Ok(())
    }

    #[inline]
    fn step(&mut self, workload: Workload) -> Outcome {
        let of_hundred = self.random.below(100);
        match workload {
            Workload::A | Workload::B | Workload::C => {
                let reads = match workload {
                    Workload::A => 50,
                    Workload::B => 95,
                    _ => 100,
                };
                let number = self.skewed();
                if of_hundred < reads {
                    return self.get(number).map(|_| ());
                }
                let generation = self.random.next() as u32;
                self.overwrite(number, generation)
            }
            Workload::D if of_hundred < 95 => {
                let number = self.newest();
                self.get(number).map(|_| ())
            }
            Workload::E if of_hundred < 95 => self.scan(),
            Workload::D | Workload::E => self.insert(),
            Workload::F => {
                let number = self.skewed();
                let generation = self.get(number)?;
                if of_hundred < 50 { Ok(()) } else { self.overwrite(number, generation.wrapping_add(1)) }
            }
        }
    }
}

fn ycsb(context: &Context, workload: Workload) -> Outcome<Value> {
    let keys = context.keys();
    let zipf = Zipf::new(keys);
    let engine = context.open(Set::Base, &context.settings())?;
    super::get::warm_up(context, engine.as_ref())?;
    let mut plan = context.reads(THREADS);
    if matches!(workload, Workload::E) {
        plan.operations /= 5;
    }
    let inserts = std::sync::atomic::AtomicU64::new(0);
    let begin = |thread| Counted {
        client: Client { engine: engine.as_ref(), zipf: &zipf, random: Random::new(thread), thread, keys, inserted: 0 },
        inserts: &inserts,
    };
    let measured = measure(plan, begin, |it, _| it.client.step(workload))?;
    let line = context.line(&measured, "ops", engine.as_ref())?;
    check_every(context, engine.as_ref(), keys + inserts.into_inner())?;
    Ok(line)
}

/// Adds up what its thread inserted when the thread ends.
struct Counted<'a> {
    client: Client<'a>,
    inserts: &'a std::sync::atomic::AtomicU64,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        // Relaxed: it is read after the threads were joined.
        self.inserts.fetch_add(self.client.inserted, std::sync::atomic::Ordering::Relaxed);
    }
}
