//! `mutants`: plants each fault of the registry and demands that the test named beside it fails.
//!
//! ```text
//!   registry ─▶ build all named tests (--cfg mutants)
//!                 └─ each as soon as it is built ─▶ as many runners as processors:
//!                                                    run a test clean: must pass, and run at least one test
//!                                                    run it with LSM_MUTANT=fault: must fail
//! ```
//!
//! The flag is for this workspace alone: `RUSTFLAGS` would have every dependency compiled anew. So Cargo is told that this
//! program wraps the compiler of the workspace's packages, and the program adds the flag ([`compile`]). Cargo keeps what a
//! wrapper compiled apart from what was compiled without, and shares the rest with `cargo test --workspace`.
//!
//! A failed test is caught; a crash or a test that does not end is caught only where the registry expects it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use planted_faults::{CatchingTest, FAULTS, Fault};

use crate::loom;
use crate::shell::{Executable, Outcome, TestCount, Workspace, build_each, cargo, processors};

/// How `mutants` is run.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only faults whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// A test with a fault is given this long, or ten times what it takes without.
const PATIENCE: Duration = Duration::from_secs(30);

/// A test that the fault may keep from ending is given this long, or a hundred times what it takes without: as a rule all
/// of it is waited for.
const PATIENCE_WITH_A_HANG: Duration = Duration::from_secs(10);

/// How long a test with a fault is given, if it took `clean` without.
fn patience(test: &CatchingTest, clean: Duration) -> Duration {
    if test.may_hang { PATIENCE_WITH_A_HANG.max(clean * 100) } else { PATIENCE.max(clean * 10) }
}

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
    let groups = groups(&faults)?;
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let missed = Mutex::new(Vec::new());
    // What is built is run while the next is built; a test seldom needs more than one processor.
    let ended: Vec<Outcome> = thread::scope(|scope| {
        let runner = || {
            loop {
                // In a statement of its own: the lock is not held while the tests run.
                let next = receiver.lock().expect("no runner panics while it receives").recv();
                let Ok(run) = next else { return Ok(()) };
                let missed_here = run_group(&run, &workspace)?;
                missed.lock().expect("no runner panics while it adds").extend(missed_here);
            }
        };
        let runners: Vec<_> = (0..processors()).map(|_| scope.spawn(runner)).collect();
        let built = build_all(&groups, &workspace, &sender);
        drop(sender);
        let mut ended = vec![built];
        ended.extend(runners.into_iter().map(|runner| runner.join().expect("a runner does not panic")));
        ended
    });
    ended.into_iter().collect::<Outcome>()?;
    let missed = missed.into_inner().expect("every runner has ended");
    println!("mutants: {} planted, {} caught", faults.len(), faults.len() - missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("not caught: {}", missed.join(", "))) }
}

/// The faults that one test must catch: they share its build and its run without a fault.
struct Group<'a> {
    test: CatchingTest,
    /// What of the package is built: `--lib`, or `--test` with the name after it.
    target: Vec<&'static str>,
    /// Names of tests, and what stood after `--`.
    filters: Vec<&'static str>,
    faults: Vec<&'a Fault>,
}

impl Group<'_> {
    fn package(&self) -> &'static str {
        self.test.arguments[1]
    }

    /// The kind and the name of the target, as Cargo says them: it names a library's tests after its crate.
    fn kind_and_name(&self) -> (&'static str, String) {
        match self.target[..] {
            [_, test] => ("test", test.to_string()),
            _ => ("lib", self.package().replace('-', "_")),
        }
    }
}

/// A group with the executable of its test.
type Run<'a> = (&'a Group<'a>, PathBuf);

/// Groups, those of one kind of build and of one package beside each other.
fn groups<'a>(faults: &[&'a Fault]) -> Outcome<Vec<Group<'a>>> {
    let mut groups: BTreeMap<(bool, &str, &str), Group<'a>> = BTreeMap::new();
    for fault in faults {
        let test = fault.catching_test()?;
        let (target, filters) = split_arguments(&test.arguments[2..])?;
        groups
            .entry((test.loom, test.arguments[1], fault.caught_by))
            .or_insert_with(|| Group { test, target, filters, faults: Vec::new() })
            .faults
            .push(fault);
    }
    Ok(groups.into_values().collect())
}

/// Builds what the groups need, one kind of build after the other, and hands each group on as soon as it can run.
fn build_all<'a>(groups: &'a [Group<'a>], workspace: &Workspace, ready: &mpsc::Sender<Run<'a>>) -> Outcome {
    for groups in groups.chunk_by(|left, right| left.test.loom == right.test.loom) {
        let mut awaited: Vec<&Group<'a>> = groups.iter().collect();
        build_each(building(groups, workspace)?, |executable| {
            awaited.retain(|group| {
                let is_its = workspace.package(group.package()).is_some_and(|it| it.dir == executable.package_dir)
                    && is_of(group, &executable);
                if is_its {
                    // If every runner has ended, one of them says why.
                    let _ = ready.send((group, executable.path.clone()));
                }
                !is_its
            });
        })?;
        if let Some(group) = awaited.first() {
            return Err(format!("`cargo test {}` builds nothing to run", group.test.arguments.join(" ")));
        }
    }
    Ok(())
}

/// Whether the executable, one of the group's package, is that of its target.
fn is_of(group: &Group<'_>, executable: &Executable) -> bool {
    let (kind, name) = group.kind_and_name();
    (kind, &name) == (&executable.kind, &executable.target)
}

/// The command that builds the tests of the groups, which are all of one kind of build.
fn building(groups: &[Group<'_>], workspace: &Workspace) -> Outcome<Command> {
    let mut command = cargo(&["test", "--no-run", "--quiet"]);
    if groups.iter().any(|group| group.test.loom) {
        // Beside the models without a fault, and the same packages, for the same features: they share the dependencies.
        command.args(loom::with_models(workspace).flat_map(|package| ["--package", &package.name]));
        loom::in_its_own_build(&mut command, workspace);
    } else {
        // All packages, whose targets of these names are built: the features of dependencies are then those of
        // `cargo test --workspace`. A few tests are built in vain, which costs less than a package's dependencies.
        command.arg("--workspace");
        // Nobody steps through a fault; the dependencies' debug information is the profile's own (Cargo.toml).
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
    }
    let targets: BTreeSet<&[&str]> = groups.iter().map(|group| &group.target[..]).collect();
    command.args(targets.into_iter().flatten());
    let this = env::current_exe().map_err(|error| format!("where is this program? {error}"))?;
    command.env("RUSTC_WORKSPACE_WRAPPER", this).env(WRAPS, "1");
    Ok(command)
}

/// Set where this program wraps the compiler.
const WRAPS: &str = "XTASK_MUTANTS_WRAPS_RUSTC";

/// Where Cargo calls this program as the compiler: compiles, with `--cfg mutants`. `None` where somebody calls a verb.
pub(crate) fn compile() -> Option<ExitCode> {
    env::var_os(WRAPS)?;
    let Some(mut rustc) = compiler(env::args_os().skip(1)) else {
        eprintln!("{WRAPS} is set, but no compiler is called");
        return Some(ExitCode::FAILURE);
    };
    Some(match rustc.status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("the compiler could not be started: {error}");
            ExitCode::FAILURE
        }
    })
}

/// The compiler that a wrapper was called with, and the flag after what it was told.
fn compiler(mut arguments: impl Iterator<Item = OsString>) -> Option<Command> {
    let mut rustc = Command::new(arguments.next()?);
    rustc.args(arguments).args(["--cfg", "mutants"]);
    Some(rustc)
}

/// Runs a group's test without a fault, then with each; returns the names of the faults that it does not catch.
fn run_group((group, executable): &Run<'_>, workspace: &Workspace) -> Outcome<Vec<&'static str>> {
    let package = workspace.package(group.package());
    let dir = &package.ok_or_else(|| format!("{} is no package of this workspace", group.package()))?.dir;
    let run = |fault, patience| run_test(executable, &group.filters, dir, fault, patience);
    let test = group.test.arguments.join(" ");
    let (ending, clean_time) = run(None, Duration::from_secs(600))?;
    if let Err(why) = passed(&ending) {
        return Err(format!("`{test}` without a fault: {why}"));
    }
    let mut missed = Vec::new();
    for fault in &group.faults {
        let (ending, took) = run(Some(fault.name), patience(&group.test, clean_time))?;
        let verdict = verdict(&ending, &group.test);
        let caught = if verdict.is_ok() { "caught" } else { "MISSED" };
        let why = verdict.as_ref().map_or_else(|why| *why, |how| *how);
        let mut line = format!("{caught}  {:>6.1} s  {:<4} {:<46} {why}", took.as_secs_f64(), fault.breaks, fault.name);
        if verdict.is_err() {
            line.push_str(&format!("\n        by: cargo test {test}"));
            missed.push(fault.name);
        }
        println!("{line}");
    }
    Ok(missed)
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

/// Runs the executable, and says how long it took.
fn run_test(
    executable: &Path,
    filters: &[&str],
    dir: &Path,
    fault: Option<&str>,
    patience: Duration,
) -> Outcome<(Ending, Duration)> {
    let begun = Instant::now();
    let mut command = Command::new(executable);
    command.args(filters).current_dir(dir).env("CARGO_MANIFEST_DIR", dir);
    command.env("LSM_MUTANT", fault.unwrap_or_default()).env("LOOM_MAX_PREEMPTIONS", "2");
    Ok((run_bounded(command, patience)?, begun.elapsed()))
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

/// Splits what stands after the package into the target that is built and the arguments that the built test gets.
fn split_arguments(arguments: &[&'static str]) -> Outcome<(Vec<&'static str>, Vec<&'static str>)> {
    let (target, rest) = match arguments {
        ["--lib", rest @ ..] => (vec!["--lib"], rest),
        ["--test", name, rest @ ..] => (vec!["--test", *name], rest),
        _ => return Err(format!("`{}` begins with neither --lib nor --test NAME", arguments.join(" "))),
    };
    Ok((target, rest.iter().copied().filter(|word| *word != "--").collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_told_from_what_is_run() {
        let (target, filters) = split_arguments(&["--test", "replay", "torn_tail", "--", "--exact"]).unwrap();
        assert_eq!((target, filters), (vec!["--test", "replay"], vec!["torn_tail", "--exact"]));
        let (target, filters) = split_arguments(&["--lib", "cut::tests"]).unwrap();
        assert_eq!((target, filters), (vec!["--lib"], vec!["cut::tests"]));
        assert!(split_arguments(&["torn_tail"]).unwrap_err().contains("torn_tail"));
    }

    #[test]
    fn faults_of_one_test_share_a_group_and_groups_of_one_build_lie_together() {
        let groups = groups(&FAULTS.iter().collect::<Vec<_>>()).unwrap();
        let faults: usize = groups.iter().map(|group| group.faults.len()).sum();
        assert_eq!(faults, FAULTS.len());
        let build = |group: &Group<'_>| (group.test.loom, group.package());
        let builds = groups.chunk_by(|left, right| build(left) == build(right)).count();
        let distinct: BTreeSet<_> = groups.iter().map(build).collect();
        assert_eq!(builds, distinct.len());
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
    fn what_is_expected_to_hang_is_given_up_sooner_but_never_soon_by_its_own_measure() {
        let plain = CatchingTest { loom: false, may_crash: false, may_hang: false, arguments: vec![] };
        let hanging = CatchingTest { may_hang: true, ..plain.clone() };
        assert!(patience(&hanging, Duration::from_millis(20)) < patience(&plain, Duration::from_millis(20)));
        assert_eq!(patience(&plain, Duration::from_secs(60)), Duration::from_secs(600));
        assert_eq!(patience(&hanging, Duration::from_secs(1)), Duration::from_secs(100));
    }

    #[test]
    fn the_wrapped_compiler_gets_what_cargo_says_and_the_flag() {
        let said = ["rustc", "--crate-name", "manifest"].map(OsString::from);
        let rustc = compiler(said.into_iter()).unwrap();
        assert_eq!(rustc.get_program(), "rustc");
        assert_eq!(rustc.get_args().collect::<Vec<_>>(), ["--crate-name", "manifest", "--cfg", "mutants"]);
        assert!(compiler(std::iter::empty()).is_none());
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
