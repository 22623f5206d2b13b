//! `kill`: the engine in a process of its own, killed at random moments, and opened again.

use crate::shell::{Outcome, Workspace, cargo, run_tests};

/// How `kill` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many processes are killed
    #[arg(long, default_value_t = 300)]
    kills: u64,
    /// Seeds what they write and when they are killed; the threads and the disk decide too
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Options {
    /// So many kills.
    pub(crate) fn short(kills: u64) -> Self {
        Self { kills, seed: 1 }
    }
}

/// The package and test that read `KILL_KILLS` and `KILL_SEED`.
const PACKAGE: &str = "lsm-facade";
const TEST: &str = "kill";

/// Runs the kill test, optimised; it prints in which phases it killed.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let target = ("test".to_string(), TEST.to_string());
    if !workspace.package(PACKAGE).is_some_and(|package| package.targets.contains(&target)) {
        return Err(format!("package {PACKAGE} has no test called `{TEST}`"));
    }
    let mut command = cargo(&["test", "--release", "--package", PACKAGE, "--test", TEST, "--", "--nocapture"]);
    command.env("KILL_KILLS", options.kills.to_string());
    command.env("KILL_SEED", options.seed.to_string());
    let count = run_tests(command, |_| true)?;
    if count.passed == 0 { Err("no kill test ran".to_string()) } else { Ok(()) }
}
