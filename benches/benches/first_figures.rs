//! The first figures: one machine, one process, the engine and a `BTreeMap` in the same rows, every answer checked.
//!
//! See `README.md` beside this crate for what the rows mean and how to choose among them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use benches::{AnonymousMemory, KeyShape, Measured, Rows, measure, mix, resident_bytes_max};
use lsm_facade::{Database, Durability, Keyspace, KeyspaceOptions, RangeCursor};

/// What is measured, each in a process of its own.
const STORES: [&str; 2] = ["engine", "map"];
/// Operations of a batch.
const BATCH: u32 = 100;
/// Rows of a scan that are timed together.
const TOGETHER: u32 = 100;
/// Rows read after a seek.
const AFTER_SEEK: u32 = 10;

struct Settings {
    keys: u32,
    shape: KeyShape,
    rows: Vec<String>,
    dir: Option<PathBuf>,
    /// Which store this process measures; `None` in the process that starts one for each.
    store: Option<String>,
}

impl Settings {
    /// From the arguments, before them from `BENCH_KEYS`, `BENCH_ROWS` and `BENCH_DIR`.
    fn read() -> Result<Self, String> {
        let variable = |name| std::env::var(name).ok();
        let mut settings =
            Self { keys: 1_000_000, shape: KeyShape::Scattered, rows: Vec::new(), dir: None, store: None };
        let mut given: Vec<String> = Vec::new();
        for (flag, name) in [("--keys", "BENCH_KEYS"), ("--rows", "BENCH_ROWS"), ("--dir", "BENCH_DIR")] {
            given.extend(variable(name).into_iter().flat_map(|value| [flag.to_owned(), value]));
        }
        let mut given = given.into_iter().chain(std::env::args().skip(1));
        while let Some(flag) = given.next() {
            let mut value = || given.next().ok_or(format!("{flag} wants a value"));
            match flag.as_str() {
                // Given by cargo.
                "--bench" => {}
                "--quick" => settings.keys = 100_000,
                "--decimal" => settings.shape = KeyShape::Decimal,
                "--keys" => settings.keys = value()?.replace('_', "").parse().map_err(|error| format!("{error}"))?,
                "--rows" => settings.rows = value()?.split(',').map(str::to_owned).collect(),
                "--store" => settings.store = Some(value()?),
                "--dir" => settings.dir = Some(value()?.into()),
                other => return Err(format!("{other}: not known; see benches/README.md")),
            }
        }
        if !(1000..=500_000_000).contains(&settings.keys) || !settings.keys.is_multiple_of(1000) {
            return Err("between 1,000 and 500,000,000 keys, a multiple of 1,000".to_owned());
        }
        Ok(settings)
    }

    fn wants(&self, name: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|part| name.contains(part.as_str()))
    }
}

/// One line of the table.
struct Row {
    name: String,
    measured: Measured,
    /// Memory at its most, above what there was before the first row.
    anonymous: Option<u64>,
}

/// What runs the rows over one store.
struct Runner<'a> {
    settings: &'a Settings,
    rows: &'a Rows,
    memory: &'a AnonymousMemory,
    anonymous_before: u64,
    done: Vec<Row>,
}

impl Runner<'_> {
    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.settings.wants(name))
    }

    fn row(&mut self, name: &str, run: impl FnOnce() -> Measured) {
        let _ = self.memory.take_max();
        let measured = run();
        let anonymous = self.memory.take_max().map(|most| most.saturating_sub(self.anonymous_before));
        eprintln!("{name}: {} in {:.2} s", measured.count, measured.took.as_secs_f64());
        self.done.push(Row { name: name.to_owned(), measured, anonymous });
    }
}

fn main() {
    let settings = Settings::read().unwrap_or_else(|error| {
        eprintln!("{error}");
        std::process::exit(2);
    });
    match &settings.store {
        Some(store) => run_store(&settings, store),
        None => run_each_store(&settings),
    }
}

/// Starts a process for each store, so that none is charged with memory that another has left behind.
fn run_each_store(settings: &Settings) {
    let (started, load_before) = (Instant::now(), load());
    let program = std::env::current_exe().expect("this program has a path");
    for store in STORES {
        let mut child = Command::new(&program);
        let status = child.args(std::env::args().skip(1)).args(["--store", store]).status();
        let status = status.expect("this program can be started again");
        if !status.success() {
            std::process::exit(status.code().unwrap_or(1));
        }
    }
    println!(
        "\n{} keys of {} + {} B ({:?}), {}, load before {load_before} and after {}, {}, {:.0} s in all",
        settings.keys,
        benches::KEY_BYTES,
        benches::VALUE_BYTES,
        settings.shape,
        machine(),
        load(),
        date(),
        started.elapsed().as_secs_f64()
    );
}

/// Measures one store in this process.
fn run_store(settings: &Settings, store: &str) {
    let rows = &Rows::new(settings.shape, settings.keys);
    let memory = &AnonymousMemory::watch();
    let anonymous_before = AnonymousMemory::now().unwrap_or(0);
    let mut runner = Runner { settings, rows, memory, anonymous_before, done: Vec::new() };
    match store {
        "engine" => {
            let parent = settings.dir.clone().unwrap_or_else(std::env::temp_dir);
            run_engine(&mut runner, &parent);
            print_table("lsm-facade", &runner.done);
        }
        _ => {
            run_map(&mut runner);
            print_table("`RwLock<BTreeMap>`, in memory only", &runner.done);
        }
    }
    if let Some(bytes) = resident_bytes_max() {
        println!("\nMost memory ever resident, mapped files included (`VmHWM`): {} MiB", bytes >> 20);
    }
}

/// Every row over the engine, with its default options.
fn run_engine(runner: &mut Runner<'_>, parent: &Path) {
    let rows = runner.rows;
    let count = rows.count();
    let options = KeyspaceOptions::default;
    let insert = |keyspace: &Keyspace, number: u32, round: u32| {
        keyspace.insert(rows.key(number), Rows::value(number, round)).expect("an insert succeeds");
    };
    let fresh = |runner: &mut Runner<'_>, name: &str, fill: &dyn Fn(&Database, &Keyspace) -> Measured| {
        if !runner.settings.wants(name) {
            return;
        }
        let store = Store::create(parent, options());
        runner.row(name, || fill(&store.database, &store.keyspace));
        let written = runner.done.last().map_or(0, |row| row.measured.count) as u32;
        if written == count {
            store.check_all(rows, 0);
        } else {
            // A shorter row wrote the first so many.
            for number in 0..written {
                let value = store.keyspace.get(rows.key(number)).expect("a get succeeds").expect("was written");
                Rows::check_value(number, 0, &value);
            }
        }
    };

    fresh(runner, "fill sequential", &|_, keyspace| {
        measure(1, count, 1, || (), |(), rank| insert(keyspace, rows.at_rank(rank), 0))
    });
    fresh(runner, "fill random, 4 threads", &|_, keyspace| {
        measure(4, count, 1, || (), |(), number| insert(keyspace, number, 0))
    });
    fresh(runner, "batches of 100", &|database, keyspace| {
        let write = |(): &mut (), batch_number: u32| {
            let mut batch = database.batch();
            for number in batch_number * BATCH..(batch_number + 1) * BATCH {
                batch.insert(keyspace, rows.key(number), Rows::value(number, 0)).expect("the row is short");
            }
            database.write(&batch).expect("a batch is written");
        };
        measure(1, count / BATCH, u64::from(BATCH), || (), write)
    });
    for (threads, part) in [(1, 500), (8, 50)] {
        fresh(runner, &format!("synced, {threads} threads"), &|_, keyspace| {
            let keyspace = keyspace.with_durability(Durability::Synced);
            measure(threads, count / part, 1, || (), |(), number| insert(&keyspace, number, 0))
        });
    }

    let reads = ["fill random, 1 thread", "get", "scan", "seek", "overwrite", "settle"];
    if !runner.wants_any(&reads) {
        return;
    }
    let store = Store::create(parent, options());
    let (database, keyspace) = (&store.database, &store.keyspace);
    runner.row("fill random, 1 thread", || measure(1, count, 1, || (), |(), number| insert(keyspace, number, 0)));
    let get = |_: &mut (), number: u32| {
        let number = any(number, count);
        let value = keyspace.get(rows.key(number)).expect("a get succeeds").expect("the row is there");
        Rows::check_value(number, 0, &value);
    };
    if runner.settings.wants("get right after the fill") {
        runner.row("get right after the fill", || measure(1, count, 1, || (), get));
    }
    runner.row("settle (flush, compactions)", || {
        measure(
            1,
            1,
            1,
            || (),
            |(), _| {
                database.flush().expect("a flush succeeds");
                database.wait_until_idle().expect("compactions succeed");
            },
        )
    });
    eprintln!("{}", database.stats());
    for threads in [1, 2] {
        let name = format!("get, {threads} threads");
        if runner.settings.wants(&name) {
            runner.row(&name, || measure(threads, count, 1, || (), get));
        }
    }
    if runner.settings.wants("get of missing keys") {
        runner.row("get of missing keys", || {
            measure(
                1,
                count,
                1,
                || (),
                |(), number| {
                    let found = keyspace.get(rows.key(count + any(number, count))).expect("a get succeeds");
                    assert!(found.is_none(), "a key that nobody wrote");
                },
            )
        });
    }
    if runner.settings.wants("scan forward, iterator") {
        runner.row("scan forward, iterator", || {
            scan(
                rows,
                || keyspace.iter(),
                |iter, rank| {
                    let (key, value) = iter.next().expect("a row is left").expect("a row is read");
                    rows.check(rows.at_rank(rank), 0, &key, &value);
                },
            )
        });
    }
    if runner.settings.wants("scan backward, iterator") {
        runner.row("scan backward, iterator", || {
            scan(
                rows,
                || keyspace.iter(),
                |iter, rank| {
                    let (key, value) = iter.next_back().expect("a row is left").expect("a row is read");
                    rows.check(rows.at_rank(count - 1 - rank), 0, &key, &value);
                },
            )
        });
    }
    let check_at = |cursor: &mut RangeCursor, rank: u32| {
        let number = rows.at_rank(rank);
        assert!(cursor.key() == Some(&rows.key(number)), "another key than that of row {number}");
        Rows::check_value(number, 0, cursor.value().expect("a value is read").expect("a row is left"));
    };
    if runner.settings.wants("scan forward, cursor") {
        runner.row("scan forward, cursor", || {
            scan(
                rows,
                || keyspace.cursor(),
                |cursor, rank| {
                    if rank == 0 { cursor.seek_to_first() } else { cursor.next() }.expect("a row is read");
                    check_at(cursor, rank);
                },
            )
        });
    }
    if runner.settings.wants("scan backward, cursor") {
        runner.row("scan backward, cursor", || {
            scan(
                rows,
                || keyspace.cursor(),
                |cursor, rank| {
                    if rank == 0 { cursor.seek_to_last() } else { cursor.prev() }.expect("a row is read");
                    check_at(cursor, count - 1 - rank);
                },
            )
        });
    }
    if runner.settings.wants("seek + next 10, one cursor") {
        runner.row("seek + next 10, one cursor", || {
            measure(
                1,
                count / 5,
                1,
                || keyspace.cursor(),
                |cursor, number| {
                    let rank = any(number, count - AFTER_SEEK);
                    cursor.seek(rows.key(rows.at_rank(rank))).expect("a seek succeeds");
                    for rank in rank..rank + AFTER_SEEK {
                        check_at(cursor, rank);
                        cursor.next().expect("the next row is read");
                    }
                },
            )
        });
    }
    if runner.settings.wants("range + next 10, a new iterator each") {
        runner.row("range + next 10, a new iterator each", || {
            measure(
                1,
                count / 5,
                1,
                || (),
                |(), number| {
                    let rank = any(number, count - AFTER_SEEK);
                    let mut range = keyspace.range(rows.key(rows.at_rank(rank))..);
                    for rank in rank..rank + AFTER_SEEK {
                        let (key, value) = range.next().expect("a row is left").expect("a row is read");
                        rows.check(rows.at_rank(rank), 0, &key, &value);
                    }
                },
            )
        });
    }
    if runner.settings.wants("overwrite") {
        runner.row("overwrite", || {
            // Each row once, in an order other than that of the fill.
            let order = shuffled(count);
            measure(1, count, 1, || (), |(), at| insert(keyspace, order[at as usize], 1))
        });
        store.check_all(rows, 1);
    }
}

/// A database in a directory that goes with it.
struct Store {
    database: Database,
    keyspace: Keyspace,
    _dir: tempfile::TempDir,
}

impl Store {
    fn create(parent: &Path, options: KeyspaceOptions) -> Self {
        let dir = tempfile::tempdir_in(parent).expect("a directory can be made");
        let database = Database::open(dir.path()).expect("a database can be created");
        let keyspace = database.create_keyspace("rows", options).expect("a keyspace can be created");
        Self { database, keyspace, _dir: dir }
    }

    /// Panics unless there are exactly the rows, as of `round`.
    fn check_all(&self, rows: &Rows, round: u32) {
        let mut found = self.keyspace.iter();
        for rank in 0..rows.count() {
            let (key, value) = found.next().expect("no row is missing").expect("a row is read");
            rows.check(rows.at_rank(rank), round, &key, &value);
        }
        assert!(found.next().is_none(), "more rows than were written");
    }
}

type Map = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The rows that a map in memory can run.
fn run_map(runner: &mut Runner<'_>) {
    let rows = runner.rows;
    let count = rows.count();
    let write = |map: &RwLock<Map>, number: u32, round: u32| {
        let (key, value) = (Box::from(rows.key(number)), Box::from(Rows::value(number, round)));
        map.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    };
    let fresh = |runner: &mut Runner<'_>, name: &str, fill: &dyn Fn(&RwLock<Map>) -> Measured| {
        if runner.settings.wants(name) {
            let map = RwLock::default();
            runner.row(name, || fill(&map));
            assert!(map.into_inner().unwrap_or_else(PoisonError::into_inner).len() == count as usize);
        }
    };
    fresh(runner, "fill sequential", &|map| measure(1, count, 1, || (), |(), rank| write(map, rows.at_rank(rank), 0)));
    fresh(runner, "fill random, 4 threads", &|map| measure(4, count, 1, || (), |(), number| write(map, number, 0)));
    if !runner.wants_any(&["fill random, 1 thread", "get", "scan", "seek", "range", "overwrite"]) {
        return;
    }
    let map: &RwLock<Map> = &RwLock::default();
    runner.row("fill random, 1 thread", || measure(1, count, 1, || (), |(), number| write(map, number, 0)));
    let read = || map.read().unwrap_or_else(PoisonError::into_inner);
    for threads in [1, 2] {
        let name = format!("get, {threads} threads");
        if runner.settings.wants(&name) {
            runner.row(&name, || {
                measure(
                    threads,
                    count,
                    1,
                    || (),
                    |(), number| {
                        let number = any(number, count);
                        let map = read();
                        Rows::check_value(number, 0, map.get(&rows.key(number)[..]).expect("the row is there"));
                    },
                )
            });
        }
    }
    if runner.settings.wants("get of missing keys") {
        runner.row("get of missing keys", || {
            measure(
                1,
                count,
                1,
                || (),
                |(), number| {
                    let found = read().contains_key(&rows.key(count + any(number, count))[..]);
                    assert!(!found, "a key that nobody wrote");
                },
            )
        });
    }
    let all = read();
    if runner.settings.wants("scan forward") {
        runner.row("scan forward", || {
            scan(
                rows,
                || all.iter(),
                |iter, rank| {
                    let (key, value) = iter.next().expect("a row is left");
                    rows.check(rows.at_rank(rank), 0, key, value);
                },
            )
        });
    }
    if runner.settings.wants("scan backward") {
        runner.row("scan backward", || {
            scan(
                rows,
                || all.iter(),
                |iter, rank| {
                    let (key, value) = iter.next_back().expect("a row is left");
                    rows.check(rows.at_rank(count - 1 - rank), 0, key, value);
                },
            )
        });
    }
    if runner.settings.wants("range + next 10") {
        runner.row("range + next 10", || {
            measure(
                1,
                count / 5,
                1,
                || (),
                |(), number| {
                    let rank = any(number, count - AFTER_SEEK);
                    let from: Box<[u8]> = Box::from(rows.key(rows.at_rank(rank)));
                    let mut range = all.range(from..);
                    for rank in rank..rank + AFTER_SEEK {
                        let (key, value) = range.next().expect("a row is left");
                        rows.check(rows.at_rank(rank), 0, key, value);
                    }
                },
            )
        });
    }
    drop(all);
    if runner.settings.wants("overwrite") {
        let order = shuffled(count);
        runner.row("overwrite", || measure(1, count, 1, || (), |(), at| write(map, order[at as usize], 1)));
        for number in 0..count {
            Rows::check_value(number, 1, read().get(&rows.key(number)[..]).expect("the row is there"));
        }
    }
}

/// Visits every rank once, in order. [`TOGETHER`] rows are one operation, for reading the clock costs more than a row.
fn scan<S>(rows: &Rows, begin: impl Fn() -> S + Sync, visit: impl Fn(&mut S, u32) + Sync) -> Measured {
    let step = |state: &mut S, part: u32| (part * TOGETHER..(part + 1) * TOGETHER).for_each(|rank| visit(state, rank));
    measure(1, rows.count() / TOGETHER, u64::from(TOGETHER), begin, step)
}

/// The `draw`-th of a sequence of random numbers below `count`.
#[inline]
fn any(draw: u32, count: u32) -> u32 {
    ((u128::from(mix(u64::from(draw) | 1 << 40)) * u128::from(count)) >> 64) as u32
}

/// The numbers below `count`, shuffled.
fn shuffled(count: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    numbers.sort_unstable_by_key(|&number| mix(u64::from(number) | 1 << 41));
    numbers
}

fn print_table(store: &str, rows: &[Row]) {
    println!("\n### {store}\n");
    println!("| row | per second | p50 | p99 | p99.9 | most | peak anonymous memory |");
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for Row { name, measured, anonymous } in rows {
        let at = |quantile| time(measured.latencies.value_at_quantile(quantile));
        let anonymous = anonymous.map_or("?".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        let (p50, p99, p999, most) = (at(0.5), at(0.99), at(0.999), time(measured.latencies.max()));
        let together = match measured.per_operation {
            1 => String::new(),
            many => format!(" (times: of {many})"),
        };
        println!(
            "| {name}{together} | {} | {p50} | {p99} | {p999} | {most} | {anonymous} |",
            rate(measured.per_second())
        );
    }
}

fn rate(per_second: f64) -> String {
    match per_second {
        0.0..1e3 => format!("{per_second:.1}"),
        1e3..1e4 => format!("{:.1}k", per_second / 1e3),
        1e4..1e6 => format!("{:.0}k", per_second / 1e3),
        _ => format!("{:.2}M", per_second / 1e6),
    }
}

fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

/// What the figures are of.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    format!("{} ({cores} cores, {})", model.trim_start_matches([' ', '\t', ':']), std::env::consts::OS)
}

/// The load average of the last minute, where there is one.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().filter(|load| !load.is_empty()).unwrap_or("unknown").to_owned()
}

/// Today as year-month-day, UTC.
fn date() -> String {
    let days = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / 86_400;
    // Counted from March of year 0, so that the leap day comes last in its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
