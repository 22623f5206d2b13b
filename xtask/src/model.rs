//! `model`: random operations through the database, beside a reference model.

use crate::shell::{Outcome, Workspace, cargo, run_tests};

/// How `model` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds are tried
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first of them; a failure prints the seed that repeats it
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Operations of each seed [default: what the test says]
    #[arg(long)]
    ops: Option<u64>,
}

impl Options {
    /// The first `seeds` seeds.
    pub(crate) fn short(seeds: u64) -> Self {
        Self { seeds, first_seed: 0, ops: None }
    }
}

/// The package and test that read `MODEL_SEEDS`, `MODEL_FIRST_SEED` and `MODEL_OPS`.
const PACKAGE: &str = "lsm-facade";
const TEST: &str = "model";

/// Runs the model test, optimised; it prints a summary and fails if the run never met what it is for.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let target = ("test".to_string(), TEST.to_string());
    if !workspace.package(PACKAGE).is_some_and(|package| package.targets.contains(&target)) {
        return Err(format!("package {PACKAGE} has no test called `{TEST}`"));
    }
    let mut command = cargo(&["test", "--release", "--package", PACKAGE, "--test", TEST, "--", "--nocapture"]);
    command.env("MODEL_SEEDS", options.seeds.to_string());
    command.env("MODEL_FIRST_SEED", options.first_seed.to_string());
    if let Some(ops) = options.ops {
        command.env("MODEL_OPS", ops.to_string());
    }
    let count = run_tests(command, |_| true)?;
    if count.passed == 0 { Err("no model test ran".to_string()) } else { Ok(()) }
}
