//! Damage to any file of a database: the answers are right, or an error names the file. Never anything else.
//!
//! ```text
//!   samples ──▶ copy ──▶ flip, zero, overwrite, truncate, extend, swap or delete ──▶ verify
//!                                                                              ├──▶ open for reading ──▶ every row, both ways
//!                                                                              └──▶ open for writing ──▶ the same ──▶ again
//! ```
//!
//! An oracle kept beside the writes holds every pair. Forbidden are: wrong data, a panic, a call that does not end, an
//! error that is not typed as corruption or does not name the damaged file, a file that vanishes, damage that reading
//! meets and verifying does not, and refusing what is whole. A database that was killed may have lost its newest commits
//! behind the damage, as a suffix (L3); that is counted apart.
//!
//! `DAMAGE_TRIALS` and `DAMAGE_FIRST_TRIAL` say how much is tried. A trial's number is its seed.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::{DB, Listing, assert_unchanged, key, put_file, small, value};
use file_system::{Crash, FileSystem, LOCK_INFO_NAME, LOCK_NAME, SimulatedFileSystem, Simulation};
use lsm_facade::{
    Access, Compression, Database, DatabaseBuilder, Durability, Error, Iter, Keyspace, KeyspaceOptions, Strategy,
};
use manifest::{ManifestOptions, ManifestStore, OpenMode};
use test_support::{Rng, number_in};

/// L3, M2, M6, T2, T5: whatever becomes of one file, the answers are right or an error names it.
#[test]
fn damage_to_any_file_is_an_error_that_names_it_or_does_no_harm() {
    let first = number_in("DAMAGE_FIRST_TRIAL", 0);
    let trials = number_in("DAMAGE_TRIALS", 120);
    let samples: Arc<[Sample]> = Sample::all().into();
    let mut table = Table::default();
    let (sender, results) = mpsc::channel();
    // Panics are outcomes here, and told with the trial that met them.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let worker = std::thread::spawn(move || {
        for number in first..first + trials {
            let sample = &samples[(number % samples.len() as u64) as usize];
            let trial = Trial::new(sample, number);
            let (kind, what) = (trial.kind, format!("{}: {}", sample.name, trial.what));
            let outcome = catch_unwind(AssertUnwindSafe(|| trial.run(sample))).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
                Err(Forbidden { what: "panic", text: text.to_owned() })
            });
            if sender.send((number, kind, what, outcome)).is_err() {
                return;
            }
        }
    });
    let mut forbidden = Vec::new();
    for expected in first..first + trials {
        match results.recv_timeout(PATIENCE) {
            Ok((number, kind, what, outcome)) => {
                assert_eq!(number, expected);
                table.count(kind, &outcome);
                if let Err(error) = outcome {
                    forbidden.push(format!("trial {number}: {what}: {error}"));
                }
            }
            Err(_) => {
                forbidden.push(format!("trial {expected}: hang: nothing after {PATIENCE:?}, or its thread is gone"));
                break;
            }
        }
    }
    std::panic::set_hook(hook);
    println!("damage: {trials} trials from {first}\n{table}");
    for line in &forbidden {
        println!("{line}");
    }
    assert!(
        forbidden.is_empty(),
        "{} forbidden outcomes; DAMAGE_FIRST_TRIAL=N DAMAGE_TRIALS=1 repeats one",
        forbidden.len()
    );
    worker.join().unwrap();
}

/// A trial takes milliseconds; one that takes this long does not end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Global,
    Level,
    EditFile,
    Table,
    Segment,
    Lock,
    Nothing,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_str().unwrap();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("sst") => Self::Table,
            Some("wal") => Self::Segment,
            Some("jsonl") => Self::EditFile,
            Some("json") if name == "global.json" => Self::Global,
            Some("json") => Self::Level,
            _ => {
                assert!(name == LOCK_NAME || name == LOCK_INFO_NAME, "a file of no known kind: {}", path.display());
                Self::Lock
            }
        }
    }
}

/// What is allowed to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Everything is right, and nobody noticed anything.
    Harmless,
    /// Everything that was read is right, and verifying names the damage.
    Verify,
    /// Opening goes well, and some reads name the damage. Every other one is right.
    Read,
    /// Opening names the damage.
    Refused,
    /// As `Refused`, but the bytes look like those of a later version.
    Unsupported,
    /// Of a database that was killed: the newest commits are gone, as a suffix; or the newest edits, with no commit lost.
    Tear,
}

/// What must never happen.
#[derive(Debug)]
struct Forbidden {
    what: &'static str,
    text: String,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.text)
    }
}

fn forbidden<T>(what: &'static str, text: impl Into<String>) -> Result<T, Forbidden> {
    Err(Forbidden { what, text: text.into() })
}

/// What is counted, by kind of file and outcome.
#[derive(Default)]
struct Table {
    allowed: BTreeMap<(Kind, Outcome), u64>,
    forbidden: BTreeMap<&'static str, u64>,
}

const FORBIDDEN: [&str; 7] =
    ["wrong data", "panic", "hang", "untyped or unnamed", "vanished", "not verified", "refused although whole"];

impl Table {
    fn count(&mut self, kind: Kind, outcome: &Result<Outcome, Forbidden>) {
        match outcome {
            Ok(outcome) => *self.allowed.entry((kind, *outcome)).or_default() += 1,
            Err(error) => *self.forbidden.entry(error.what).or_default() += 1,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Outcome::{Harmless, Read, Refused, Tear, Unsupported, Verify};
        let columns = [Harmless, Verify, Read, Refused, Unsupported];
        writeln!(
            f,
            "{:<10} {:>9} {:>9} {:>9} {:>9} {:>11}",
            "file", "harmless", "verify", "read", "refused", "unsupported"
        )?;
        for kind in [Kind::Global, Kind::Level, Kind::EditFile, Kind::Table, Kind::Segment, Kind::Lock, Kind::Nothing] {
            let count = |outcome| self.allowed.get(&(kind, outcome)).copied().unwrap_or(0);
            let [harmless, verify, read, refused, unsupported] = columns.map(count);
            let name = format!("{kind:?}").to_lowercase();
            writeln!(f, "{name:<10} {harmless:>9} {verify:>9} {read:>9} {refused:>9} {unsupported:>11}")?;
        }
        let tears: u64 = self.allowed.iter().filter(|((_, outcome), _)| *outcome == Tear).map(|(_, count)| count).sum();
        writeln!(f, "like a torn tail, in a database that was killed: {tears}")?;
        for what in FORBIDDEN {
            writeln!(f, "forbidden: {what:<24} {}", self.forbidden.get(what).copied().unwrap_or(0))?;
        }
        Ok(())
    }
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A database, what it holds, and what it is.
struct Sample {
    name: &'static str,
    image: Arc<SimulatedFileSystem>,
    files: Listing,
    /// Tables that the manifest names: they never go.
    named: BTreeSet<PathBuf>,
    oracle: BTreeMap<String, Rows>,
    /// Keys that the newest commits inserted into the keyspace `left`, one each, in order. Only where it was killed.
    tail: Vec<Vec<u8>>,
    /// How many of them were synced, and have records behind them that say so.
    tail_synced: usize,
    edit_file_bytes: Option<u64>,
}

/// A database being written, beside its oracle.
struct Writing {
    simulation: Simulation,
    database: Database,
    oracle: BTreeMap<String, Rows>,
    edit_file_bytes: Option<u64>,
    tail: Vec<Vec<u8>>,
    tail_synced: usize,
}

fn builder(simulation: &Simulation, edit_file_bytes: Option<u64>) -> DatabaseBuilder {
    let builder = common::builder(simulation);
    match edit_file_bytes {
        Some(bytes) => builder.edit_file_bytes(bytes),
        None => builder,
    }
}

impl Writing {
    fn new(edit_file_bytes: Option<u64>) -> Self {
        let simulation = Simulation::new(1);
        let database = builder(&simulation, edit_file_bytes).open().unwrap();
        let oracle = BTreeMap::new();
        Self { simulation, database, oracle, edit_file_bytes, tail: Vec::new(), tail_synced: 0 }
    }

    fn create(&mut self, name: &str, options: KeyspaceOptions) -> Keyspace {
        self.oracle.insert(name.to_owned(), Rows::new());
        self.database.create_keyspace(name, options).unwrap()
    }

    fn rows(&mut self, keyspace: &Keyspace) -> &mut Rows {
        self.oracle.get_mut(keyspace.name()).unwrap()
    }

    fn insert(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        keyspace.insert(&key, &value).unwrap();
        self.rows(keyspace).insert(key.as_ref().to_vec(), value.as_ref().to_vec());
    }

    fn remove(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) {
        keyspace.remove(&key).unwrap();
        self.rows(keyspace).remove(key.as_ref());
    }

    /// Tables in several levels, tombstones, batches that became tables, and writes that only the log holds.
    fn fill(&mut self, left: &Keyspace, right: &Keyspace) {
        for number in 0..700_u32 {
            self.insert(left, key(number), value(number));
            if number % 3 == 0 {
                self.insert(right, key(number), b"right");
            }
        }
        for number in (0..700).step_by(7) {
            self.remove(left, key(number));
        }
        self.database.wait_until_idle().unwrap();
        self.database.flush().unwrap();
        for batch_number in 0..2 {
            let mut batch = self.database.batch();
            for number in (2000..2100).map(|number| number + batch_number * 50) {
                batch.insert(left, key(number), vec![b'b'; 50]).unwrap();
                batch.insert(right, key(number), vec![b'B'; 50]).unwrap();
                self.rows(left).insert(key(number).into(), vec![b'b'; 50]);
                self.rows(right).insert(key(number).into(), vec![b'B'; 50]);
            }
            self.database.write(&batch).unwrap();
            // The first is flushed, the second only the log refers to.
            if batch_number == 0 {
                self.database.wait_until_idle().unwrap();
            }
        }
        for number in 3000..3020 {
            self.insert(left, key(number), value(number));
            self.remove(right, key(number - 3000));
        }
    }

    /// Commits of one key each, some of them synced, of which a killed database may lose the last.
    fn tail(&mut self, left: &Keyspace) {
        self.database.persist().unwrap();
        for number in 0..40_u32 {
            let key = format!("tail {number:03}").into_bytes();
            let durability = if number == 20 { Durability::Synced } else { Durability::Buffered };
            left.with_durability(durability).insert(&key, b"tail").unwrap();
            if number == 20 {
                self.tail_synced = self.tail.len() + 1;
            }
            self.tail.push(key);
        }
    }

    fn end(self, name: &'static str, close: bool) -> Sample {
        if close {
            self.database.close().unwrap();
        }
        let image = self.simulation.files.crash_image(Crash::Kill, 1);
        drop(self.database);
        image.forget_events();
        let files = every_file(&*image);
        // Looked at in a copy: opening may change what it sees.
        let copy = Simulation::with_files(image.crash_image(Crash::Kill, 2), 2);
        let store =
            ManifestStore::open(&copy.environment(), DB, OpenMode::ReadOnly, ManifestOptions::default()).unwrap();
        let manifest = store.current();
        let tables = manifest.keyspaces.values().flat_map(|keyspace| keyspace.tables());
        let named = tables.map(|(_, _, table)| store.paths().table(table.id)).collect();
        let Self { oracle, edit_file_bytes, tail, tail_synced, .. } = self;
        Sample { name, image, files, named, oracle, tail, tail_synced, edit_file_bytes }
    }
}

impl Sample {
    fn all() -> Vec<Self> {
        vec![
            Self::filled("leveled", small(), None, true),
            Self::filled("killed", small().compression(Compression::None), None, false),
            Self::large_values(),
            Self::filled("tiered, edit file", small().strategy(Strategy::Tiered), Some(0), true),
            Self::filled("killed, edit file", small(), Some(0), false),
            Self::snapshots(),
        ]
    }

    fn filled(name: &'static str, options: KeyspaceOptions, edit_file_bytes: Option<u64>, close: bool) -> Self {
        let mut writing = Writing::new(edit_file_bytes);
        let left = writing.create("left", options.clone());
        let right = writing.create("right", options.filter_bits_per_key(0));
        writing.fill(&left, &right);
        if !close {
            writing.tail(&left);
        }
        writing.end(name, close)
    }

    /// Values that lie outside of blocks, with and without compression.
    fn large_values() -> Self {
        let mut writing = Writing::new(None);
        let plain = writing.create("plain", small().compression(Compression::None).table_bytes(1 << 20));
        let packed = writing.create("packed", small().table_bytes(1 << 20));
        let mut rng = Rng::new(3);
        for number in 0..6_u32 {
            let length = rng.within(60_000..90_000) as usize;
            let value = rng.bytes(length);
            writing.insert(&plain, key(number), &value);
            writing.insert(&packed, key(number), vec![b'z'; length]);
            for small in 0..20 {
                writing.insert(&plain, key(100 * number + small + 1000), common::value(small));
            }
        }
        writing.remove(&plain, key(1));
        writing.database.flush().unwrap();
        writing.database.wait_until_idle().unwrap();
        packed.compact().unwrap();
        writing.insert(&plain, key(2), b"short now");
        writing.end("large values", true)
    }

    /// Several versions of a key in one table, because snapshots asked for them; a clear; a dropped keyspace; FIFO.
    fn snapshots() -> Self {
        let mut writing = Writing::new(None);
        let left = writing.create("left", small());
        let queue = writing.create("queue", small().strategy(Strategy::Fifo));
        let gone = writing.create("gone", small());
        let mut held = Vec::new();
        for round in 0..4_u32 {
            for number in 0..150 {
                writing.insert(&left, key(number), format!("{round} of {number}"));
                writing.insert(&queue, key(round * 1000 + number), value(number));
            }
            writing.insert(&gone, key(round), "gone");
            held.push(writing.database.snapshot().unwrap());
            for number in (round..150).step_by(9) {
                writing.remove(&left, key(number));
            }
            writing.database.flush().unwrap();
        }
        writing.database.wait_until_idle().unwrap();
        left.compact().unwrap();
        queue.clear().unwrap();
        writing.rows(&queue).clear();
        for number in 0..100 {
            writing.insert(&queue, key(number), value(number));
        }
        queue.flush().unwrap();
        writing.database.drop_keyspace("gone").unwrap();
        writing.oracle.remove("gone");
        writing.insert(&left, "last", "word");
        drop(held);
        writing.end("snapshots", true)
    }
}

/// Every file, the lock's too; no directories.
fn every_file(files: &dyn FileSystem) -> Listing {
    let mut found = Listing::new();
    let mut left = vec![PathBuf::from(DB)];
    while let Some(dir) = left.pop() {
        for entry in files.read_dir(&dir).unwrap() {
            let path = dir.join(&entry.name);
            match entry.is_dir {
                true => left.push(path),
                false => drop(found.insert(path.clone(), files.read(&path, 1 << 30).unwrap())),
            }
        }
    }
    found
}

/// One damage to one copy.
struct Trial {
    simulation: Simulation,
    kind: Kind,
    what: String,
    /// The files that differ from the sample.
    damaged: Vec<PathBuf>,
    /// Whether no more than a few bytes in one place are not what they were.
    small: bool,
    /// Whether the database was killed, so that the end of a file may look torn.
    may_be_torn: bool,
    access: Access,
    rng: Rng,
}

impl Trial {
    fn new(sample: &Sample, number: u64) -> Self {
        let mut rng = Rng::new(number);
        let simulation = Simulation::with_files(sample.image.crash_image(Crash::Kill, number), number);
        let access = *rng.pick(&[Access::Mapped, Access::Pread]);
        let mut trial = Self {
            simulation,
            kind: Kind::Nothing,
            what: "nothing".to_owned(),
            damaged: Vec::new(),
            small: false,
            may_be_torn: !sample.tail.is_empty(),
            access,
            rng,
        };
        // Now and then nothing is damaged: then nothing may be refused.
        if !trial.rng.one_in(40) {
            trial.damage(sample);
        }
        trial
    }

    fn damage(&mut self, sample: &Sample) {
        let rng = &mut self.rng;
        let kinds: Vec<Kind> =
            sample.files.keys().map(|path| Kind::of(path)).collect::<BTreeSet<_>>().into_iter().collect();
        // The lock files hold nothing.
        let kind = match rng.pick(&kinds) {
            Kind::Lock if !rng.one_in(4) => Kind::Table,
            kind => *kind,
        };
        let of_kind: Vec<&PathBuf> = sample.files.keys().filter(|path| Kind::of(path) == kind).collect();
        let path = (*rng.pick(&of_kind)).clone();
        let before = &sample.files[&path];
        let mut bytes = before.clone();
        let length = bytes.len();
        // Half of the time where something was written: segments are mostly zeros.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let within = if rng.one_in(2) { length } else { written };
        let at = if within == 0 { 0 } else { rng.index(within) };
        let most = if rng.one_in(2) { 40 } else { length.max(1) };
        let count = rng.index(most) + 1;
        let end = (at + count).min(length);
        let what = match rng.below(if length == 0 { 2 } else { 9 }) {
            0 => {
                self.simulation.files.remove_file(&path).unwrap();
                (self.kind, self.what) = (kind, format!("{} deleted", path.display()));
                return self.damaged.push(path);
            }
            1 => {
                let more = if rng.one_in(2) { rng.bytes(count) } else { vec![0; count] };
                bytes.extend_from_slice(&more);
                format!("{count} bytes appended")
            }
            2 => {
                bytes.truncate(at);
                format!("cut to {at} of {length} bytes")
            }
            3 => {
                bytes[at..end].fill(0);
                format!("zeros from {at} to {end}")
            }
            4 => {
                let from = rng.index(length);
                let count = count.min(length - from).min(length - at);
                bytes.copy_within(from..from + count, at);
                format!("{count} bytes at {at} taken from {from}")
            }
            5 => {
                let random = rng.bytes(end - at);
                bytes[at..end].copy_from_slice(&random);
                format!("random bytes from {at} to {end}")
            }
            6 => {
                let other = (*rng.pick(&of_kind)).clone();
                if other != path && sample.files[&other] != *before {
                    put_file(&*self.simulation.files, &other, before);
                    bytes = sample.files[&other].clone();
                    self.damaged.push(other.clone());
                }
                format!("swapped with {}", other.display())
            }
            _ => {
                let bit = rng.below(8);
                bytes[at] ^= 1 << bit;
                self.small = true;
                format!("bit {bit} of byte {at} flipped")
            }
        };
        if bytes != *before {
            put_file(&*self.simulation.files, &path, &bytes);
            self.damaged.push(path.clone());
            (self.kind, self.what) = (kind, format!("{}: {what}", path.display()));
        }
    }

    fn run(mut self, sample: &Sample) -> Result<Outcome, Forbidden> {
        let disk = Arc::clone(&self.simulation.files);
        let damaged = common::listing(&*disk, Path::new(DB));
        let verified = match builder(&self.simulation, sample.edit_file_bytes).verify() {
            Ok(report) => report,
            Err(error) => return forbidden("untyped or unnamed", format!("verify: {error:?}")),
        };
        for error in &verified.damage {
            self.check_error(error)?;
        }
        assert_unchanged(&damaged, &common::listing(&*disk, Path::new(DB)), "after verifying");
        let mut worst = Outcome::Harmless;
        for step in ["reading", "writing", "writing again"] {
            let before = common::listing(&*disk, Path::new(DB));
            let builder = builder(&self.simulation, sample.edit_file_bytes).access(self.access);
            match builder.read_only(step == "reading").create_if_missing(true).open() {
                Ok(database) => {
                    let found = self.check_rows(sample, &database);
                    drop(database);
                    let found =
                        found.map_err(|error| Forbidden { text: format!("{step}: {}", error.text), ..error })?;
                    worst = worst.max(found);
                }
                Err(error) => {
                    self.check_error(&error)?;
                    assert_unchanged(&before, &common::listing(&*disk, Path::new(DB)), "after a refused opening");
                    let outcome = match error {
                        Error::Unsupported { .. } => Outcome::Unsupported,
                        _ => Outcome::Refused,
                    };
                    worst = worst.max(outcome);
                }
            }
            for table in sample.named.iter().filter(|table| !self.damaged.contains(table)) {
                if disk.exists(table).unwrap() {
                    continue;
                }
                // The last lines of an edit file are gone like a torn one: their tables hold what the log holds too.
                if self.kind != Kind::EditFile || sample.tail.is_empty() {
                    return forbidden("vanished", format!("{} after {step}", table.display()));
                }
                worst = worst.max(Outcome::Tear);
            }
        }
        if self.kind == Kind::Nothing && worst != Outcome::Harmless {
            return forbidden("refused although whole", format!("{worst:?}"));
        }
        match (worst, verified.damage.is_empty()) {
            (Outcome::Read | Outcome::Refused | Outcome::Unsupported, true) => {
                forbidden("not verified", format!("{worst:?}, but verifying finds nothing"))
            }
            (Outcome::Harmless, false) if self.kind == Kind::Nothing => {
                forbidden("refused although whole", format!("{:?}", verified.damage))
            }
            (Outcome::Harmless, false) => Ok(Outcome::Verify),
            _ => Ok(worst),
        }
    }

    /// An error must be typed as corruption and name a damaged file.
    fn check_error(&self, error: &Error) -> Result<(), Forbidden> {
        let text = error.to_string();
        if self.kind == Kind::Nothing {
            return forbidden("refused although whole", text);
        }
        let typed = matches!(error, Error::Corrupt { .. } | Error::Unsupported { .. });
        let named = self.damaged.iter().any(|path| text.contains(path.file_name().unwrap().to_str().unwrap()));
        let placed = ["offset ", "byte", "line ", "missing", "the file", "[", "xxh3", "length", "expected"];
        // An edit file that was cut where a line looks torn names tables that the lost lines had replaced.
        let cut_short = self.kind == Kind::EditFile && self.may_be_torn && text.contains("missing");
        if typed && (named || cut_short) && placed.iter().any(|place| text.contains(place)) {
            return Ok(());
        }
        forbidden("untyped or unnamed", format!("{error:?}: {text}"))
    }

    /// Reads everything, both ways, and some keys one by one.
    fn check_rows(&mut self, sample: &Sample, database: &Database) -> Result<Outcome, Forbidden> {
        let names: Vec<&String> = sample.oracle.keys().collect();
        if database.list_keyspaces().iter().collect::<Vec<_>>() != names {
            return forbidden("wrong data", format!("keyspaces {:?}", database.list_keyspaces()));
        }
        let mut worst = Outcome::Harmless;
        for (name, oracle) in &sample.oracle {
            let keyspace = database.open_keyspace(name).unwrap();
            let mut expected = oracle.clone();
            // Which of the newest commits are there: the first ones.
            let mut there = 0;
            if name == "left" {
                let mut unreadable = false;
                for key in &sample.tail {
                    match keyspace.get(key) {
                        Ok(Some(_)) => there += 1,
                        Ok(None) => break,
                        Err(error) => {
                            self.check_error(&error)?;
                            (unreadable, worst) = (true, worst.max(Outcome::Read));
                            break;
                        }
                    }
                }
                if unreadable {
                    there = sample.tail.len();
                }
                expected.extend(sample.tail[..there].iter().map(|key| (key.clone(), b"tail".to_vec())));
                if there < sample.tail.len() {
                    // Behind one small damage lie records that say what was synced.
                    if self.kind != Kind::Segment || self.small && there < sample.tail_synced {
                        return forbidden("wrong data", format!("{there} of the newest commits are there"));
                    }
                    worst = worst.max(Outcome::Tear);
                }
            }
            let mut read = |rows: Option<Error>| -> Result<(), Forbidden> {
                if let Some(error) = rows {
                    self.check_error(&error)?;
                    worst = worst.max(Outcome::Read);
                }
                Ok(())
            };
            read(compare(name, keyspace.iter(), expected.iter(), false)?)?;
            read(compare(name, keyspace.iter(), expected.iter().rev(), true)?)?;
            let keys: Vec<&Vec<u8>> = expected.keys().collect();
            for _ in 0..60 {
                let mut key = (*self.rng.pick(&keys)).clone();
                if self.rng.one_in(6) {
                    key.push(b'?');
                }
                match keyspace.get(&key) {
                    Ok(found) => {
                        if found.as_deref() != expected.get(&key).map(Vec::as_slice) {
                            let text = format!("get of {name} {}: {found:?}", key.escape_ascii());
                            return forbidden("wrong data", text);
                        }
                    }
                    Err(error) => {
                        self.check_error(&error)?;
                        worst = worst.max(Outcome::Read);
                    }
                }
            }
        }
        Ok(worst)
    }
}

/// Compares an iterator with what it should yield, up to an error, which is returned.
fn compare<'a>(
    name: &str,
    mut iter: Iter,
    mut expected: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    backward: bool,
) -> Result<Option<Error>, Forbidden> {
    loop {
        let row = if backward { iter.next_back() } else { iter.next() };
        match (row, expected.next()) {
            (None, None) => return Ok(None),
            (Some(Err(error)), _) => return Ok(Some(error)),
            (Some(Ok((key, value))), Some((wanted, its))) if *key == **wanted && *value == **its => {}
            (found, wanted) => {
                let found = found.map(|row| row.unwrap().0.escape_ascii().to_string());
                let wanted = wanted.map(|(key, _)| key.escape_ascii().to_string());
                let way = if backward { "backward" } else { "forward" };
                return forbidden("wrong data", format!("{name} {way}: expected {wanted:?}, found {found:?}"));
            }
        }
    }
}
