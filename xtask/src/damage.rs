//! `damage`: any file of a database damaged, and the database opened, read and verified.

use crate::shell::{Outcome, Workspace, cargo, run_tests};

/// How `damage` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many damages are tried
    #[arg(long, default_value_t = 1000)]
    trials: u64,
    /// The first of them; a failure prints the number that repeats it
    #[arg(long, default_value_t = 0)]
    first_trial: u64,
}

impl Options {
    /// The first `trials` trials.
    pub(crate) fn short(trials: u64) -> Self {
        Self { trials, first_trial: 0 }
    }
}

/// The package and test that read `DAMAGE_TRIALS` and `DAMAGE_FIRST_TRIAL`.
const PACKAGE: &str = "lsm-facade";
const TEST: &str = "damage";

/// Runs the damage test, optimised; it prints a table of outcomes by kind of file.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let target = ("test".to_string(), TEST.to_string());
    if !workspace.package(PACKAGE).is_some_and(|package| package.targets.contains(&target)) {
        return Err(format!("package {PACKAGE} has no test called `{TEST}`"));
    }
    let mut command = cargo(&["test", "--release", "--package", PACKAGE, "--test", TEST, "--", "--nocapture"]);
    command.env("DAMAGE_TRIALS", options.trials.to_string());
    command.env("DAMAGE_FIRST_TRIAL", options.first_trial.to_string());
    let count = run_tests(command, |_| true)?;
    if count.passed == 0 { Err("no damage test ran".to_string()) } else { Ok(()) }
}
