//! `crash`: the database crashed at every event of random runs, and recovered.

use crate::shell::{Outcome, Workspace, cargo, run_tests};

/// How `crash` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds are tried
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first of them; a failure prints the seed and the event that repeat it
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
}

impl Options {
    /// The first `seeds` seeds.
    pub(crate) fn short(seeds: u64) -> Self {
        Self { seeds, first_seed: 0 }
    }
}

/// The package and test that read `CRASH_SEEDS` and `CRASH_FIRST_SEED`.
const PACKAGE: &str = "lsm-facade";
const TEST: &str = "crash";

/// Runs the crash test, optimised; it prints how many crash points it tried.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let target = ("test".to_string(), TEST.to_string());
    if !workspace.package(PACKAGE).is_some_and(|package| package.targets.contains(&target)) {
        return Err(format!("package {PACKAGE} has no test called `{TEST}`"));
    }
    let mut command = cargo(&["test", "--release", "--package", PACKAGE, "--test", TEST, "--", "--nocapture"]);
    command.env("CRASH_SEEDS", options.seeds.to_string());
    command.env("CRASH_FIRST_SEED", options.first_seed.to_string());
    let count = run_tests(command, |_| true)?;
    if count.passed == 0 { Err("no crash test ran".to_string()) } else { Ok(()) }
}
