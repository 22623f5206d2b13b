//! The same writes in the simulator and on the engine: what both wrote, how often, and where it lies, side by side.
//!
//! The engine goes first: how fast its writer, its flushes and its merges were is what the simulator is told, so that both
//! have the same machine.
//!
//! `cargo xtask simulate --compare`; without `--keys` it writes over 20,000 keys under one strategy, only enough to see that
//! both still run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benches::mix;
use compaction::{PlanKind, Strategy};
use compaction_simulator::{Setup, Workload, Writes, draw, simulate};
use lsm_facade::{Compression, Database, Event, EventListener, Keyspace, KeyspaceOptions};

/// Looks at the size of the tables, in the course of the writes.
const SAMPLES: u64 = 100;

/// What is compared.
struct Figures {
    /// Bytes that flushes wrote for each byte of the user's, and merges.
    flushed: f64,
    merged: f64,
    /// How many flushes and merges there were.
    flushes: f64,
    merges: f64,
    /// Bytes of tables over live bytes: the mean over the second half of the writes, and once nothing is due.
    space: f64,
    settled_space: f64,
    /// Millions of bytes of the user's taken per second.
    rate: f64,
    /// Bytes of each level once nothing is due.
    levels: Vec<u64>,
}

impl Figures {
    fn rows(&self) -> [(&'static str, f64); 8] {
        [
            ("write amplification", self.flushed + self.merged),
            ("of it flushes", self.flushed),
            ("flushes", self.flushes),
            ("merges", self.merges),
            ("space, mean", self.space),
            ("space, settled", self.settled_space),
            ("MB/s", self.rate),
            // What lies above the largest level is what the next overwrites meet first.
            ("share of the largest level", self.share_of_largest_level()),
        ]
    }

    fn share_of_largest_level(&self) -> f64 {
        let largest = self.levels.iter().max().copied().unwrap_or(0);
        largest as f64 / self.levels.iter().sum::<u64>().max(1) as f64
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name).map(|at| at + 1);
        at.map_or(default, |at| arguments.get(at).and_then(|text| text.parse().ok()).expect("a number"))
    };
    let (keys, seed) = (number("--keys", 20_000), number("--seed", 1));
    println!("| writes | strategy | figure | simulated | engine | deviation |\n|---|---|---|---:|---:|---:|");
    let is_whole = arguments.iter().any(|argument| argument == "--keys");
    let [workloads, strategies] = if is_whole { [3, 2] } else { [1, 1] };
    for workload in [Workload::Uniform, Workload::Zipfian, Workload::DeleteHeavy].into_iter().take(workloads) {
        for strategy in [Strategy::Leveled, Strategy::Tiered].into_iter().take(strategies) {
            let mut setup = setup_of(workload, strategy, keys);
            setup.seed = seed;
            let real = run_on_engine(&mut setup);
            let simulated = run_in_simulator(&setup);
            let strategy = draw::strategy_name(strategy);
            for ((name, simulated), (_, real)) in simulated.rows().into_iter().zip(real.rows()) {
                let deviation = (simulated / real - 1.0) * 100.0;
                println!("| {workload} | {strategy} | {name} | {simulated:.2} | {real:.2} | {deviation:+.0} % |");
            }
            eprintln!("  levels simulated {:?}\n  levels of the engine {:?}", simulated.levels, real.levels);
        }
    }
}

/// Each key is written four times on average. The data is sixteen times the write buffer, and twice the base level.
fn setup_of(workload: Workload, strategy: Strategy, keys: u64) -> Setup {
    let mut setup = Setup::new(workload, strategy);
    (setup.keys, setup.writes) = (keys, keys * 4);
    let data = keys * setup.user_bytes(false);
    setup.write_buffer_bytes = data / 16;
    setup.memtable_bytes = setup.write_buffer_bytes / 16;
    setup.options.table_bytes_target = setup.write_buffer_bytes;
    setup.options.level_base_bytes = data / 2;
    setup.limits = setup.limits_of_keyspace();
    setup
}

fn run_in_simulator(setup: &Setup) -> Figures {
    let report = simulate(setup);
    let share = |bytes: u64| bytes as f64 / report.user_bytes as f64;
    Figures {
        flushed: share(report.flushed_bytes),
        merged: share(report.merged_bytes),
        flushes: report.jobs.0 as f64,
        merges: report.jobs.1 as f64,
        space: report.space,
        settled_space: report.settled_space,
        rate: report.write_rate() / 1e6,
        levels: report.settled_levels.to_vec(),
    }
}

/// Counts merges: the figures of a database count moves among its compactions.
#[derive(Debug, Default)]
struct Merges(AtomicU64);

impl EventListener for Merges {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::CompactionEnded { plan, .. } = event
            && plan.kind == PlanKind::Merge
        {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Also sets the rates to what they were.
fn run_on_engine(setup: &mut Setup) -> Figures {
    let (dir, merges) = (tempfile::tempdir().expect("a directory can be made"), Arc::new(Merges::default()));
    let database = Database::builder(dir.path())
        .background_threads(setup.threads)
        .log_segment_bytes(16 << 20)
        // The simulator settles what is due, and no more.
        .compact_when_idle_after(None)
        .event_listener(merges.clone())
        .open()
        .expect("a database can be created");
    let options = KeyspaceOptions::default()
        .memtable_bytes(setup.memtable_bytes)
        .write_buffer_bytes(setup.write_buffer_bytes)
        .table_bytes(setup.options.table_bytes_target)
        .level_base_bytes(setup.options.level_base_bytes)
        // The simulator knows no compression.
        .compression(Compression::None)
        .strategy(setup.options.strategy);
    let keyspace = database.create_keyspace("writes", options).expect("a keyspace can be created");
    let mut writes = Writes::new(setup.workload, setup.keys, setup.writes, setup.seed);
    // Which keys are live, to know what space amplification is relative to.
    let mut is_live = vec![false; setup.keys as usize];
    let (mut live, mut user_bytes, mut spaces) = (0_u64, 0_u64, Vec::new());
    let began = Instant::now();
    for sample in 1..=SAMPLES {
        for _ in setup.writes * (sample - 1) / SAMPLES..setup.writes * sample / SAMPLES {
            let write = writes.next().expect("a stream of writes has no end");
            let key = key(write.key);
            if write.is_delete {
                keyspace.remove(key).expect("a delete succeeds");
            } else {
                keyspace.insert(key, value(user_bytes)).expect("an insert succeeds");
            }
            user_bytes += setup.user_bytes(write.is_delete);
            let was_live = std::mem::replace(&mut is_live[write.key as usize], !write.is_delete);
            live = live + u64::from(!write.is_delete) - u64::from(was_live);
        }
        if sample > SAMPLES / 2 {
            spaces.push(space(&keyspace, live, setup));
        }
    }
    let (written_in, waited) = (began.elapsed(), Duration::from_nanos(database.stats().waited_ns));
    keyspace.flush().expect("a flush succeeds");
    database.wait_until_idle().expect("jobs succeed");
    let stats = database.stats();
    let rate = |bytes: u64, seconds: f64| ((bytes as f64 / seconds.max(1e-6)) as u64).max(1);
    setup.writer_rate = rate(user_bytes, written_in.saturating_sub(waited).as_secs_f64());
    let memtables = user_bytes + setup.writes * setup.memtable_overhead_bytes;
    // Level 0 is written to by flushes; what is merged within it is little.
    setup.flush_rate = rate(memtables, stats.work[0].busy_ns as f64 / 1e9);
    let below = stats.work[1..].iter().fold((0, 0), |(bytes, ns), work| (bytes + work.read_bytes, ns + work.busy_ns));
    setup.merge_rate = rate(below.0, below.1 as f64 / 1e9);
    // The rates above were reached side by side: what the device allows is in them.
    setup.device_rate = 1 << 40;
    eprintln!(
        "{}, {}: writer {} MB/s, flush {} MB/s, merge {} MB/s; {} stalls and {} delays, {:?} waited in all; \
         queued {:?} for flushes and {:?} for compactions",
        setup.workload,
        draw::strategy_name(setup.options.strategy),
        setup.writer_rate / 1_000_000,
        setup.flush_rate / 1_000_000,
        setup.merge_rate / 1_000_000,
        stats.stalls,
        stats.delays,
        Duration::from_nanos(stats.waited_ns),
        Duration::from_nanos(stats.work[0].queued_ns),
        Duration::from_nanos(stats.work[1..].iter().map(|work| work.queued_ns).sum()),
    );
    let share = |bytes: u64| bytes as f64 / user_bytes as f64;
    let mut levels = vec![0; setup.options.formats.len()];
    for level in keyspace.stats().levels {
        levels[usize::from(level.level)] = level.bytes;
    }
    Figures {
        flushed: share(stats.flushed_bytes),
        merged: share(stats.compaction_written_bytes),
        flushes: stats.flushes as f64,
        merges: merges.0.load(Ordering::Relaxed) as f64,
        space: spaces.iter().sum::<f64>() / spaces.len() as f64,
        settled_space: space(&keyspace, live, setup),
        rate: user_bytes as f64 / 1e6 / written_in.as_secs_f64(),
        levels,
    }
}

/// Bytes of tables over bytes of live keys and values. What memtables hold counts as live and not as bytes of tables, as
/// it is small beside both.
fn space(keyspace: &Keyspace, live: u64, setup: &Setup) -> f64 {
    let tables: u64 = keyspace.stats().levels.iter().map(|level| level.bytes).sum();
    tables as f64 / (live * setup.user_bytes(false)).max(1) as f64
}

/// Sixteen bytes in the order of the numbers, of which the last eight have nothing in common.
fn key(number: u32) -> [u8; 16] {
    let mut key = [0; 16];
    key[4..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&mix(u64::from(number)).to_be_bytes());
    key
}

fn value(seed: u64) -> [u8; 100] {
    let mut value = [0; 100];
    for (at, chunk) in value.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(seed + at as u64).to_be_bytes()[..chunk.len()]);
    }
    value
}
