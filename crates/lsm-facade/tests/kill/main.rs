//! The engine in a process of its own, on the real disk, killed (SIGKILL) again and again.
//!
//! ```text
//!   parent                                     child
//!   picks a phase ── starts ─────────────────▶ opens, writes with two threads, flushes, compacts
//!      │  waits until the phase shows  ◀─page─  says in a shared page: phases entered, commits begun and acknowledged
//!      └─ a random moment later: kill
//!   opens what is left, or a copy of it:
//!      every acknowledged commit is there, each commit whole in both keyspaces, nothing that no prefix explains
//!      └─ the next child recovers the rest
//! ```
//!
//! - [`work`] says what each commit does: the parent knows it without being told.
//! - [`page`] is the memory that outlives the child.
//! - [`child`] lives, and marks its phases by what it does to files.
//!
//! `KILL_KILLS` says how many children are killed, `KILL_SEED` seeds what they write and when they die. What is found
//! does not repeat exactly, as the threads and the disk decide too.

mod child;
mod page;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lsm_facade::Database;
use test_support::{Rng, number_in};

use page::{Page, Phase};
use work::{Contents, NAMES, WRITERS};

/// Tells a child where its database and its page are, and what it writes.
const DATABASE: &str = "KILL_TEST_DATABASE";
const PAGE: &str = "KILL_TEST_PAGE";
const SEED: &str = "KILL_SEED";

/// A phase that does not show for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// From so many kills on each phase must have its tenth of them.
const KILLS_TO_JUDGE: u64 = 100;

/// Does nothing unless started as the child; then it does not return.
#[test]
fn as_a_child_write_until_killed() {
    if let (Some(dir), Some(page)) = (std::env::var_os(DATABASE), std::env::var_os(PAGE)) {
        child::live(Path::new(&dir), &Page::open(Path::new(&page)), number_in(SEED, 0));
    }
}

/// P2, P3, L1, L4, M1, M2: whenever the process dies, nothing acknowledged is lost and no batch is torn.
#[test]
fn no_kill_loses_an_acknowledged_write_or_tears_a_batch() {
    let (kills, seed) = (number_in("KILL_KILLS", 8), number_in(SEED, 1));
    let place = tempfile::tempdir().unwrap();
    let mut run = Run::new(place.path(), seed);
    for kill in 0..kills {
        run.kill_one(kill);
    }
    println!("{run}");
    if kills >= KILLS_TO_JUDGE {
        for phase in Phase::ALL {
            assert!(run.hits[phase as usize] * 10 >= kills, "fewer than a tenth of the kills fell into {phase}");
        }
    }
}

struct Run {
    seed: u64,
    rng: Rng,
    /// Where the database lies, and beside it its copies and the page.
    place: PathBuf,
    page: Page,
    /// Commits of each writer that are known to be there.
    known: [u64; WRITERS],
    /// What they left.
    contents: Contents,
    kills: u64,
    hits: [u64; Phase::ALL.len()],
    /// Commits that had begun when their process was killed and were found, though nobody had been told of them.
    unasked: u64,
}

/// What was killed when, and what it had written.
impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let commits: u64 = self.known.iter().sum();
        write!(f, "kill: {} kills (seed {}), in", self.kills, self.seed)?;
        for phase in Phase::ALL {
            write!(f, " {phase} {},", self.hits[phase as usize])?;
        }
        let elsewhere = self.kills - self.hits.iter().sum::<u64>();
        write!(f, " between them {elsewhere}; {commits} commits, none lost, none torn, {} found unasked", self.unasked)
    }
}

impl Run {
    fn new(place: &Path, seed: u64) -> Self {
        Self {
            seed,
            rng: Rng::new(seed),
            place: place.to_owned(),
            page: Page::create(&place.join("page")),
            known: [0; WRITERS],
            contents: Contents::new(),
            kills: 0,
            hits: [0; Phase::ALL.len()],
            unasked: 0,
        }
    }

    fn database(&self) -> PathBuf {
        self.place.join("database")
    }

    fn kill_one(&mut self, kill: u64) {
        self.page.reset(&self.known);
        // One in six dies anywhere, the others where the fewest have died.
        let wanted = Phase::ALL.into_iter().min_by_key(|phase| self.hits[*phase as usize]).expect("there are phases");
        let wanted = (!self.rng.one_in(6)).then_some(wanted);
        let mut child = self.start();
        self.wait(&mut child, wanted);
        child.kill().unwrap();
        child.wait().unwrap();
        self.kills += 1;
        let hit = self.page.phase();
        if let Some(phase) = hit {
            self.hits[phase as usize] += 1;
        }
        let what = format!("kill {kill} in {}", hit.map_or("no phase".to_owned(), |phase| phase.to_string()));
        // The copy leaves it to the next child to recover what this one left.
        if self.rng.one_in(2) {
            let copy = self.place.join("copy");
            copy_directory(&self.database(), &copy);
            self.check(&copy, &what);
            std::fs::remove_dir_all(&copy).unwrap();
        } else {
            self.check(&self.database(), &what);
        }
    }

    fn start(&self) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "as_a_child_write_until_killed", "--nocapture"])
            .env(DATABASE, self.database())
            .env(PAGE, self.place.join("page"))
            .env(SEED, self.seed.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Until the child is to be killed.
    fn wait(&mut self, child: &mut Child, wanted: Option<Phase>) {
        let begun = Instant::now();
        // Also that much of a life before the phase is waited for, so that it is not always the first flush.
        let before = match wanted {
            Some(Phase::Recovery) => 0,
            Some(_) => self.rng.below(60),
            None => self.rng.within(1..400),
        };
        std::thread::sleep(Duration::from_millis(before));
        if let Some(phase) = wanted {
            while self.page.phase() != Some(phase) && begun.elapsed() < PATIENCE {
                // Shorter than any phase.
                std::thread::sleep(Duration::from_micros(50));
            }
            // A phase is a few syncs long: somewhere within, or shortly after it.
            std::thread::sleep(Duration::from_micros(self.rng.below(1500)));
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the child ended by itself: {ended:?}; its error stands above");
    }

    /// What is found is what the acknowledged commits left, or one more of each writer.
    fn check(&mut self, dir: &Path, what: &str) {
        let database = child::builder(dir, &mut self.rng).open().unwrap_or_else(|error| panic!("{what}: {error}"));
        let found: BTreeMap<&str, Contents> = NAMES.into_iter().map(|name| (name, rows(&database, name))).collect();
        for writer in 0..WRITERS {
            let (begun, acknowledged) = self.page.commits(writer);
            let [left, right] = NAMES.map(|name| work::last_commit(&found[name], writer));
            assert_eq!(left, right, "{what}: writer {writer}'s last commit is torn");
            assert!(
                (acknowledged..=begun).contains(&left),
                "{what}: writer {writer} was told of commit {acknowledged} and had begun {begun}, found {left}"
            );
            for commit in self.known[writer] + 1..=left {
                work::apply(self.seed, writer, commit, &mut self.contents);
            }
            self.unasked += left - acknowledged;
            self.known[writer] = left;
        }
        for (name, rows) in &found {
            if let Some(key) = work::first_difference(&self.contents, rows) {
                let (expected, found) = (self.contents.get(&key).map(Vec::len), rows.get(&key).map(Vec::len));
                let key = key.escape_ascii();
                panic!("{what}: {name} {key}: expected {expected:?} bytes or others, found {found:?}");
            }
        }
        if self.rng.one_in(2) {
            database.close().unwrap();
        }
    }
}

/// Everything in a keyspace; nothing if it was not created yet.
fn rows(database: &Database, name: &str) -> Contents {
    match database.open_keyspace(name) {
        Ok(keyspace) => {
            keyspace.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
        }
        Err(lsm_facade::Error::NoSuchKeyspace { .. }) => Contents::new(),
        Err(error) => panic!("{name}: {error}"),
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    // Killed before it had made its directory.
    if !from.exists() {
        return;
    }
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
