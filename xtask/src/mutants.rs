//! `mutants`: plants each fault of the registry and demands that the test named beside it fails.
//!
//! ```text
//!   registry ─▶ build each named test once (--cfg mutants) ─▶ run it clean: must pass, and run at least one test
//!                                                          └▶ run it with LSM_MUTANT=fault: must fail
//! ```
//!
//! A failed test is caught; a crash or a test that does not end is caught only where the registry expects it.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use planted_faults::{CatchingTest, FAULTS, Fault};

use crate::loom::quick_to_build;
use crate::shell::{Outcome, TestCount, Workspace, build_executables, cargo, with_rustflags};

/// How `mutants` is run.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only faults whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// A test with a fault is given this long, or ten times what it takes without.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether a test has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Runs every fault and prints a table.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let wanted = |fault: &&Fault| options.only.as_ref().is_none_or(|part| fault.name.contains(part.as_str()));
    let faults: Vec<&Fault> = FAULTS.iter().filter(wanted).collect();
    if faults.is_empty() {
        return Err("no planted fault is called so".to_string());
    }
    // Faults that share a test share its build and its clean run.
    let mut clean: HashMap<&str, (Selected, Duration)> = HashMap::new();
    let mut missed = Vec::new();
    for fault in &faults {
        if !clean.contains_key(fault.caught_by) {
            let selected = Selected::build(fault.catching_test()?, &workspace)?;
            let (ending, took) = selected.run(None, Duration::from_secs(600))?;
            if let Err(why) = passed(&ending) {
                return Err(format!("`{}` without a fault: {why}", fault.caught_by));
            }
            clean.insert(fault.caught_by, (selected, took));
        }
        let (selected, clean_time) = &clean[fault.caught_by];
        let (ending, took) = selected.run(Some(fault.name), PATIENCE.max(*clean_time * 10))?;
        let verdict = verdict(&ending, &selected.test);
        let caught = if verdict.is_ok() { "caught" } else { "MISSED" };
        let why = verdict.as_ref().map_or_else(|why| *why, |how| *how);
        println!("{caught}  {:>6.1} s  {:<4} {:<46} {why}", took.as_secs_f64(), fault.breaks, fault.name);
        if verdict.is_err() {
            println!("        by: cargo test {}", fault.caught_by);
            missed.push(fault.name);
        }
    }
    println!("mutants: {} planted, {} caught", faults.len(), faults.len() - missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {}", missed.join(", "))) }
}

/// How a test's process ended.
enum Ending {
    /// By itself, with this code; `None` if a signal ended it.
    Exit { code: Option<i32>, count: TestCount },
    /// It was still running and was killed.
    TimedOut,
}

/// What libtest exits with when a test failed.
const TEST_FAILED: i32 = 101;

/// Whether a run without a fault is good.
fn passed(ending: &Ending) -> Result<(), String> {
    match ending {
        Ending::Exit { code: Some(0), count } if count.passed > 0 => Ok(()),
        Ending::Exit { code: Some(0), .. } => Err("it selects no test".to_string()),
        Ending::Exit { code, count } => Err(format!("it fails (exit {code:?}, {} failed)", count.failed)),
        Ending::TimedOut => Err("it does not end".to_string()),
    }
}

/// How a run with a fault was caught, or why it was not.
fn verdict(ending: &Ending, test: &CatchingTest) -> Result<&'static str, &'static str> {
    match ending {
        Ending::Exit { code: Some(0), .. } => Err("the test passes"),
        Ending::Exit { code: Some(TEST_FAILED), .. } => Ok("the test fails"),
        Ending::Exit { .. } if test.may_crash => Ok("the test crashes"),
        Ending::Exit { .. } => Err("the test crashes, and the registry does not expect it (crash:)"),
        Ending::TimedOut if test.may_hang => Ok("the test hangs"),
        Ending::TimedOut => Err("the test does not end, and the registry does not expect it (hang:)"),
    }
}

/// A catching test, built: what is run for each of its faults.
struct Selected {
    test: CatchingTest,
    executables: Vec<PathBuf>,
    /// Names of tests, and what stood after `--`.
    filters: Vec<String>,
    package_dir: PathBuf,
}

impl Selected {
    fn build(test: CatchingTest, workspace: &Workspace) -> Outcome<Self> {
        let (build, filters) = split_arguments(&test.arguments);
        let name = build.get(1).ok_or("a fault names no package")?;
        let package = workspace.package(name).ok_or_else(|| format!("{name} is no package of this workspace"))?;
        let mut command = cargo(&["test", "--no-run", "--quiet"]);
        command.args(&build);
        if test.loom {
            command.arg("--release").arg("--target-dir").arg(workspace.target_dir.join("mutants-loom"));
            with_rustflags(&mut command, "--cfg mutants --cfg loom");
            quick_to_build(&mut command);
        } else {
            command.arg("--target-dir").arg(workspace.target_dir.join("mutants"));
            with_rustflags(&mut command, "--cfg mutants");
        }
        let executables: Vec<PathBuf> = build_executables(command)?.into_iter().map(|(_, path)| path).collect();
        if executables.is_empty() {
            return Err(format!("`cargo test {}` builds nothing to run", test.arguments.join(" ")));
        }
        let filters = filters.into_iter().map(str::to_string).collect();
        Ok(Self { test, executables, filters, package_dir: package.dir.clone() })
    }

    /// Runs the executables until one does not succeed.
    fn run(&self, fault: Option<&str>, patience: Duration) -> Outcome<(Ending, Duration)> {
        let begun = Instant::now();
        let mut all = TestCount::default();
        for executable in &self.executables {
            let mut command = Command::new(executable);
            command.args(&self.filters).current_dir(&self.package_dir).env("CARGO_MANIFEST_DIR", &self.package_dir);
            command.env("LSM_MUTANT", fault.unwrap_or_default()).env("LOOM_MAX_PREEMPTIONS", "2");
            match run_bounded(command, patience)? {
                Ending::Exit { code: Some(0), count } => all.add(count),
                failed => return Ok((failed, begun.elapsed())),
            }
        }
        Ok((Ending::Exit { code: Some(0), count: all }, begun.elapsed()))
    }
}

/// Runs a test's executable for at most `patience`.
fn run_bounded(mut command: Command, patience: Duration) -> Outcome<Ending> {
    let failed = |error: std::io::Error| format!("a test could not be run: {error}");
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(failed)?;
    let mut stdout = child.stdout.take().expect("standard output is piped");
    // On a thread of its own: a full pipe would stop the test.
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe ends the count, not the verdict, which is the exit code's.
        let _ = stdout.read_to_end(&mut bytes);
        let mut count = TestCount::default();
        String::from_utf8_lossy(&bytes).lines().for_each(|line| count.add_line(line));
        count
    });
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            let count = reader.join().map_err(|_| "the reader of a test's output died".to_string())?;
            return Ok(Ending::Exit { code: status.code(), count });
        }
        if begun.elapsed() > patience {
            child.kill().map_err(failed)?;
            child.wait().map_err(failed)?;
            return Ok(Ending::TimedOut);
        }
        thread::sleep(LOOK);
    }
}

/// Splits arguments of `cargo test` into those that select what is built, and those that the built tests get.
fn split_arguments<'a>(arguments: &[&'a str]) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut build, mut filters) = (Vec::new(), Vec::new());
    let mut words = arguments.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--" => filters.extend(words.by_ref()),
            "-p" | "--package" | "--test" | "--bin" | "--features" => {
                build.push(word);
                build.extend(words.next());
            }
            flag if flag.starts_with('-') => build.push(flag),
            filter => filters.push(filter),
        }
    }
    (build, filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_told_from_what_is_run() {
        let (build, filters) = split_arguments(&["-p", "log", "--test", "replay", "torn_tail", "--", "--exact"]);
        assert_eq!((build, filters), (vec!["-p", "log", "--test", "replay"], vec!["torn_tail", "--exact"]));
        let (build, filters) = split_arguments(&["-p", "log", "--lib", "cut::tests"]);
        assert_eq!((build, filters), (vec!["-p", "log", "--lib"], vec!["cut::tests"]));
    }

    #[test]
    fn only_a_failed_test_is_caught_unless_the_registry_says_more() {
        let plain = CatchingTest { loom: false, may_crash: false, may_hang: false, arguments: vec![] };
        let lenient = CatchingTest { may_crash: true, may_hang: true, ..plain.clone() };
        let exit = |code| Ending::Exit { code, count: TestCount { passed: 1, ..TestCount::default() } };
        assert!(verdict(&exit(Some(101)), &plain).is_ok());
        for not_enough in [exit(None), exit(Some(134)), Ending::TimedOut] {
            assert!(verdict(&not_enough, &plain).is_err());
            assert!(verdict(&not_enough, &lenient).is_ok());
        }
        assert!(verdict(&exit(Some(0)), &lenient).is_err());
    }

    #[test]
    fn a_clean_run_must_run_something_and_pass() {
        let exit = |code, passed| Ending::Exit { code, count: TestCount { passed, ..TestCount::default() } };
        assert!(passed(&exit(Some(0), 1)).is_ok());
        assert!(passed(&exit(Some(0), 0)).is_err());
        assert!(passed(&exit(Some(101), 1)).is_err());
        assert!(passed(&Ending::TimedOut).is_err());
    }
}
