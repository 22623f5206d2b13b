//! Simulates a load under two policies, without a disk: how much is rewritten, and how many runs a read asks.
//!
//! `cargo run -p compaction --example write_amplification`

use std::sync::{Arc, Weak};

use compaction::pick::{self, LevelTargets};
use compaction::{Busy, CompactionOptions, Demand, PickInput, Plan, PlanKind, Strategy};
use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
use manifest::{AddedTable, Change, TableEntry};
use version_history::{DroppedTables, Table, Version};

const FLUSH_BYTES: u64 = 64 << 20;
const KEYSPACE: KeyspaceId = KeyspaceId(1);

#[derive(Debug)]
struct Nobody;

impl DroppedTables for Nobody {
    fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
}

struct Simulation {
    options: CompactionOptions,
    version: Version<()>,
    next: u64,
    rewritten: u64,
    moved: u64,
}

impl Simulation {
    /// Tables of `bytes` bytes together, evenly spread over the keys from `first` to `last`.
    fn tables(&mut self, first: u64, last: u64, bytes: u64, epoch: Epoch) -> Vec<Arc<TableEntry>> {
        let count = bytes.div_ceil(self.options.table_bytes_target).clamp(1, last - first + 1);
        let width = (last - first + 1) / count;
        (0..count)
            .map(|index| {
                self.next += 1;
                let end = if index + 1 == count { last } else { first + (index + 1) * width - 1 };
                Arc::new(TableEntry {
                    id: TableId(self.next),
                    bytes: bytes / count,
                    checksum: 0,
                    min_key: (first + index * width).to_be_bytes().into(),
                    max_key: end.to_be_bytes().into(),
                    min_seqno: SeqNo::ZERO,
                    max_seqno: SeqNo::ZERO,
                    entries: bytes / count / 116,
                    tombstones: 0,
                    logical_bytes: bytes / count,
                    epoch,
                    job: JobId(0),
                    seqno_base: 0,
                    newest_unix_ms: 0,
                })
            })
            .collect()
    }

    fn replace(&mut self, removed: &[(Level, TableId)], added: Vec<AddedTable>) {
        let on_drop: Weak<dyn DroppedTables> = Weak::<Nobody>::new();
        let table = |place: &AddedTable| Arc::new(Table::new(KEYSPACE, place.table.clone(), (), on_drop.clone()));
        let added: Vec<_> = added.into_iter().map(|place| (place.clone(), table(&place))).collect();
        self.version = self.version.replace(removed, &added).expect("the inputs stand");
    }

    fn flush(&mut self, first: u64, last: u64) {
        let run = Epoch(self.next + 1);
        let tables = self.tables(first, last, FLUSH_BYTES, run);
        self.replace(&[], tables.into_iter().map(|table| AddedTable { level: Level::ZERO, run, table }).collect());
    }

    fn compact(&mut self) {
        while let Some(plan) = self.pick() {
            let outputs = if plan.kind == PlanKind::Merge {
                self.rewritten += plan.input_bytes;
                let key = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("keys of eight bytes"));
                self.tables(key(&plan.min_key), key(&plan.max_key), plan.input_bytes, plan.table_epoch)
            } else {
                self.moved += plan.input_bytes;
                Vec::new()
            };
            if let Change::ReplaceTables { removed, added, .. } = plan.change(KEYSPACE, &self.version, &outputs) {
                self.replace(&removed, added);
            }
        }
    }

    fn pick(&self) -> Option<Plan> {
        pick::pick(&PickInput {
            version: &self.version,
            busy: &Busy::new(),
            options: &self.options,
            oldest_sealed_epoch: None,
            demand: Demand::Steady,
            now_unix_ms: 0,
            reads: &[],
        })
    }
}

fn simulate(name: &str, strategy: Strategy, flushes: u64, keys: impl Fn(u64) -> (u64, u64)) {
    let options = CompactionOptions { strategy, ..CompactionOptions::default() };
    let mut simulation = Simulation { options, version: Version::default(), next: 0, rewritten: 0, moved: 0 };
    for number in 0..flushes {
        let (first, last) = keys(number);
        simulation.flush(first, last);
        simulation.compact();
    }
    let written = flushes * FLUSH_BYTES;
    let amplification = (written + simulation.rewritten) as f64 / written as f64;
    let runs = simulation.version.runs_newest_first().count();
    println!(
        "{name:<20} {:>5.1} GiB in, {:>5.1} GiB moved, write amplification {amplification:>4.1}, runs at the end {runs}",
        written as f64 / (1 << 30) as f64,
        simulation.moved as f64 / (1 << 30) as f64,
    );
    let targets = LevelTargets::of(&simulation.version, &simulation.options);
    for level in (0..Level::COUNT as u8).map(Level) {
        let bytes = simulation.version.bytes(level);
        if bytes > 0 {
            let base = if level == targets.base && strategy == Strategy::Leveled { " (base)" } else { "" };
            println!("    {level}: {:>6} MiB in {} runs{base}", bytes >> 20, simulation.version.runs(level).len());
        }
    }
}

fn main() {
    let everywhere = |_| (0, u64::from(u32::MAX));
    let ascending = |number| (number << 32, (number << 32) + u64::from(u32::MAX));
    for flushes in [32, 256] {
        simulate("leveled, random", Strategy::Leveled, flushes, everywhere);
        simulate("tiered, random", Strategy::Tiered, flushes, everywhere);
        simulate("leveled, ascending", Strategy::Leveled, flushes, ascending);
    }
}
