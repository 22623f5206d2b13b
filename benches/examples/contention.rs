//! What threads cost each other: `contention [readers] [synced] [writers] [tail]`, all of them if none is named.
//!
//! Figures are processor time, counts and ratios of runs that alternate, so that a busy machine blurs them and does not
//! decide them. A control puts threads that only spin where the other threads were: what is left beside it is what the
//! engine's threads share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use benches::{KeyShape, Rows, mix};
use hdrhistogram::Histogram;
use lsm_facade::{Database, Durability, Keyspace, waits_of_this_thread};

/// What a thread beside the measured one does until it is told to end.
type Other<'a> = &'a (dyn Fn(&AtomicBool) + Sync);

/// Runs of each kind, alternating; the median counts.
const ROUNDS: usize = 5;

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, fn()); 4] = [("readers", readers), ("synced", synced), ("writers", writers), ("tail", tail)];
    for name in &chosen {
        assert!(parts.iter().any(|(part, _)| part == name), "{name}: not a part");
    }
    for (name, part) in parts {
        if chosen.is_empty() || chosen.iter().any(|it| it == name) {
            part();
        }
    }
}

/// Nanoseconds of processor time, voluntary and other switches of this thread, where the system tells.
fn own_time() -> [u64; 3] {
    let first_number = |text: &str| text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let ran = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let switches = |kind| status.lines().find_map(|line| line.strip_prefix(kind)).map_or(0, first_number);
    [first_number(&ran), switches("voluntary_ctxt_switches:"), switches("nonvoluntary_ctxt_switches:")]
}

/// `run`, and the processor time, voluntary and other switches that it took this thread.
fn timed<T>(run: impl FnOnce() -> T) -> (T, [u64; 3]) {
    let before = own_time();
    let result = run();
    let after = own_time();
    (result, std::array::from_fn(|which| after[which] - before[which]))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs `work` beside `others`, which go on until it has ended.
fn beside<T>(others: &[Other<'_>], work: impl FnOnce() -> T) -> T {
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for other in others {
            scope.spawn(|| other(&going));
        }
        let result = work();
        going.store(false, Ordering::Relaxed);
        result
    })
}

fn spin(going: &AtomicBool) {
    while going.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

fn any(number: u64, count: u32) -> u32 {
    (((mix(number) >> 32) * u64::from(count)) >> 32) as u32
}

/// Gets of random rows, each checked.
fn get_some(keyspace: &Keyspace, rows: &Rows, gets: u64, salt: u64) {
    for number in 0..gets {
        let row = any(number ^ salt << 40, rows.count());
        let value = keyspace.get(rows.key(row)).expect("a get succeeds").expect("the row is there");
        Rows::check_value(row, 0, &value);
    }
}

fn filled(database: &Database, name: &str, rows: &Rows) -> Keyspace {
    let keyspace = database.keyspace(name).expect("a keyspace can be created");
    for row in 0..rows.count() {
        keyspace.insert(rows.key(row), Rows::value(row, 0)).expect("an insert succeeds");
    }
    keyspace.compact().expect("a compaction succeeds");
    assert_eq!(keyspace.iter().count(), rows.count() as usize, "every block is checked once");
    keyspace
}

/// Processor time of a get: alone, beside a spinning thread, beside another reader, beside a writer of another keyspace.
fn readers() {
    const GETS: u64 = 200_000;
    let rows = Rows::new(KeyShape::Scattered, 200_000);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let database = Database::builder(dir.path()).background_threads(1).open().expect("a database can be created");
    let keyspace = filled(&database, "read", &rows);
    let other = database.keyspace("written").expect("a keyspace can be created");
    let read = |going: &AtomicBool| {
        while going.load(Ordering::Relaxed) {
            get_some(&keyspace, &rows, 1000, 1);
        }
    };
    let write = |going: &AtomicBool| {
        for number in (0..).take_while(|_| going.load(Ordering::Relaxed)) {
            other.insert(rows.key(number % rows.count()), Rows::value(number, 1)).expect("an insert succeeds");
        }
    };
    let layouts: [(&str, Option<Other<'_>>); 4] = [
        ("alone", None),
        ("beside a spinning thread", Some(&spin)),
        ("beside a reader", Some(&read)),
        ("beside a writer of another keyspace", Some(&write)),
    ];
    let mut figures = layouts.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, other), figures) in layouts.iter().zip(&mut figures) {
            let ((), [took, ..]) = beside(other.as_slice(), || timed(|| get_some(&keyspace, &rows, GETS, 2)));
            figures.push(took as f64 / GETS as f64);
        }
    }
    let figures = figures.map(median);
    for ((name, _), figure) in layouts.iter().zip(figures) {
        let (to_alone, to_spinning) = (figure / figures[0], figure / figures[1]);
        println!(
            "get, {name:<36} {figure:>6.0} ns of processor time, {to_alone:.2} × alone, {to_spinning:.2} × beside a spinning one"
        );
    }
}

/// Commits for each sync of the log, with 64 threads that wait for theirs.
fn synced() {
    const WRITERS: u64 = 64;
    const COMMITS: u64 = 100;
    let dir = tempfile::tempdir().expect("a directory can be made");
    let database = Database::open(dir.path()).expect("a database can be created");
    let keyspace = database.keyspace("rows").expect("a keyspace can be created").with_durability(Durability::Synced);
    let before = database.stats();
    let start = Barrier::new(WRITERS as usize);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (keyspace, start) = (&keyspace, &start);
            scope.spawn(move || {
                start.wait();
                for number in writer * COMMITS..(writer + 1) * COMMITS {
                    keyspace.insert(number.to_be_bytes(), number.to_le_bytes()).expect("an insert succeeds");
                }
            });
        }
    });
    let took = began.elapsed();
    let after = database.stats();
    let (commits, syncs) = (after.commits - before.commits, after.log_syncs - before.log_syncs);
    let (group, rate) = (commits as f64 / syncs as f64, commits as f64 / took.as_secs_f64());
    println!(
        "{WRITERS} synced writers: {commits} commits, {syncs} syncs of the log, {group:.1} commits a sync, {rate:.0} commits/s"
    );
    // Closing ends the log durably: one more. What a trace of system calls must agree with.
    println!("a trace shows {} calls of fdatasync on the log", after.log_syncs + 1);
}

/// Commits a second, processor time and switches of a commit, with two writers and with 200.
fn writers() {
    const COMMITS: u64 = 200_000;
    let run = |round: usize, threads: u64| {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let database = Database::open(dir.path()).expect("a database can be created");
        let keyspace = database.keyspace("rows").expect("a keyspace can be created");
        let start = Barrier::new(threads as usize + 1);
        let sums: [AtomicU64; 3] = Default::default();
        // By the first that goes on: this thread may be the last.
        let began = OnceLock::new();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (keyspace, start, began, sums) = (&keyspace, &start, &began, &sums);
                scope.spawn(move || {
                    start.wait();
                    began.get_or_init(Instant::now);
                    let ((), own) = timed(|| {
                        for number in (thread..COMMITS).step_by(threads as usize) {
                            let key = mix(number ^ (round as u64) << 40).to_be_bytes();
                            keyspace.insert(key, Rows::value(number as u32, 0)).expect("an insert succeeds");
                        }
                    });
                    for (sum, own) in sums.iter().zip(own) {
                        sum.fetch_add(own, Ordering::Relaxed);
                    }
                });
            }
            start.wait();
        });
        let took = began.get().expect("somebody began").elapsed();
        let [cpu, voluntary, others] = sums.map(|sum| sum.into_inner() as f64 / COMMITS as f64);
        [COMMITS as f64 / took.as_secs_f64(), cpu, voluntary, others]
    };
    let mut figures: [Vec<[f64; 4]>; 2] = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (threads, figures) in [2, 200].into_iter().zip(&mut figures) {
            figures.push(run(round, threads));
        }
    }
    for (threads, figures) in [2, 200].into_iter().zip(&figures) {
        let [rate, cpu, voluntary, others] =
            std::array::from_fn(|which| median(figures.iter().map(|it| it[which]).collect()));
        println!(
            "{threads} writers: {rate:.0} commits/s, {cpu:.0} ns of processor time, {voluntary:.3} voluntary and {others:.3} other switches a commit"
        );
    }
    let [few, many] = &figures;
    let ratios = few.iter().zip(many).map(|(few, many)| many[0] / few[0]).collect();
    println!(
        "200 writers reach {:.0} % of the rate of 2 (median of {ROUNDS} alternating runs)",
        100.0 * median(ratios)
    );
}

/// Gets slower than this are looked into: what else happened to the thread since the last slow one.
const SLOW_NS: u64 = 4000;

/// What a thread's gets took, and what happened to the thread meanwhile.
struct Gets {
    latencies: Histogram<u64>,
    slow: Slow,
    happened: Happened,
    /// How often the thread waited for another inside of the engine.
    waits: u64,
    /// Processors' worth of time that other threads of this process took.
    others_busy: f64,
}

/// Slow gets, by what happened to the thread since the slow one before: nearly always in this one, for both are rare.
#[derive(Default)]
struct Slow {
    all: u64,
    faulted: u64,
    switched: u64,
}

/// Page faults of the calling thread, and how often it was made to wait for another, so far.
#[derive(Clone, Copy, Default)]
struct Happened {
    faults: u64,
    switched: u64,
}

impl Happened {
    fn so_far() -> Self {
        let read = |name| std::fs::read_to_string(name).unwrap_or_default();
        let stat = read("/proc/thread-self/stat");
        // Behind the name, which may hold anything: state, seven numbers, the minor faults.
        let faults = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(7)?.parse().ok());
        let status = read("/proc/thread-self/status");
        let switched = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
        Self {
            faults: faults.unwrap_or(0),
            switched: switched.and_then(|number| number.trim().parse().ok()).unwrap_or(0),
        }
    }

    fn since(self, before: Self) -> Self {
        Self { faults: self.faults - before.faults, switched: self.switched - before.switched }
    }
}

/// Seconds of processor time of the whole process.
fn process_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// How long gets take while flushes and compactions run all the time, and while threads spin in their place: one, which is
/// about as much as the caller and its workers are busy, for they mostly wait for each other, and two.
fn tail() {
    const SECONDS: u64 = 3;
    let rows = Rows::new(KeyShape::Scattered, 100_000);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let database = Database::builder(dir.path()).background_threads(2).open().expect("a database can be created");
    let keyspace = filled(&database, "read", &rows);
    let gets = || {
        let mut latencies = Histogram::<u64>::new(3).expect("three digits are a valid precision");
        let mut slow = Slow::default();
        let (all_before, own_before, began) = (process_time(), own_time()[0], Instant::now());
        let waits_before = waits_of_this_thread();
        let first = Happened::so_far();
        let mut last = first;
        let until = began + Duration::from_secs(SECONDS);
        let mut before = Instant::now();
        for number in 0.. {
            get_some(&keyspace, &rows, 1, number);
            let mut after = Instant::now();
            let took = (after - before).as_nanos() as u64;
            latencies.record(took).expect("the histogram grows");
            if took > SLOW_NS {
                let now = Happened::so_far();
                let Happened { faults, switched } = now.since(last);
                slow.all += 1;
                slow.faulted += u64::from(faults > 0);
                slow.switched += u64::from(switched > 0);
                last = now;
                after = Instant::now();
            }
            before = after;
            if after >= until {
                break;
            }
        }
        let happened = Happened::so_far().since(first);
        let own = (own_time()[0] - own_before) as f64 / 1e9;
        let others_busy = (process_time() - all_before - own) / began.elapsed().as_secs_f64();
        let waits = waits_of_this_thread() - waits_before;
        Gets { latencies, slow, happened, waits, others_busy }
    };
    // A flush and a compaction, again and again, of the keyspace that is read: on a worker and on the caller's thread.
    let churn = |going: &AtomicBool| {
        while going.load(Ordering::Relaxed) {
            for row in (0..rows.count()).step_by(7) {
                keyspace.insert(rows.key(row), Rows::value(row, 0)).expect("an insert succeeds");
            }
            keyspace.flush().expect("a flush succeeds");
            keyspace.compact().expect("a compaction succeeds");
        }
    };
    let layouts: [(&str, &[Other<'_>]); 3] = [
        ("flushes and compactions", &[&churn]),
        ("1 spinning thread", &[&spin]),
        ("2 spinning threads", &[&spin, &spin]),
    ];
    let mut figures = layouts.map(|_| Vec::new());
    let before = database.stats();
    for _ in 0..ROUNDS {
        for ((_, others), figures) in layouts.iter().zip(&mut figures) {
            figures.push(beside(others, gets));
        }
    }
    let after = database.stats();
    let compactions = |stats: &lsm_facade::Stats| stats.compactions.iter().sum::<u64>();
    println!(
        "gets beside {} flushes and {} compactions, and beside 1 and 2 spinning threads:",
        after.flushes - before.flushes,
        compactions(&after) - compactions(&before),
    );
    for quantile in [0.5, 0.99, 0.999, 0.9999] {
        let [jobs, one, two] = figures
            .each_ref()
            .map(|figures| median(figures.iter().map(|it| it.latencies.value_at_quantile(quantile) as f64).collect()));
        println!(
            "  p{:<6} {jobs:>10.0} ns, spinning {one:>10.0} and {two:>10.0} ns: {:.2} × and {:.2} ×",
            quantile * 100.0,
            jobs / one,
            jobs / two
        );
    }
    for ((name, _), figures) in layouts.iter().zip(&figures) {
        let sum = |of: fn(&Gets) -> u64| figures.iter().map(of).sum::<u64>() as f64;
        let gets = sum(|it| it.latencies.len());
        let of_a_million = |of: fn(&Gets) -> u64| sum(of) * 1e6 / gets;
        println!(
            "  beside {name}, {:.2} processors' worth: {gets} gets; of a million",
            median(figures.iter().map(|it| it.others_busy).collect())
        );
        println!(
            "    {:.0} page faults, {:.0} switches; {:.0} took more than {SLOW_NS} ns: {:.0} with a fault, {:.0} with a switch",
            of_a_million(|it| it.happened.faults),
            of_a_million(|it| it.happened.switched),
            of_a_million(|it| it.slow.all),
            of_a_million(|it| it.slow.faulted),
            of_a_million(|it| it.slow.switched),
        );
    }
    let waits: u64 = figures.iter().flatten().map(|it| it.waits).sum();
    println!("  gets waited {waits} times for a lock of the engine or for another of its threads");
    assert_eq!(waits, 0, "R1: a get waits for nobody");
}
