//! `model`: random operations through the database, beside a reference model.

use crate::shell::{Outcome, run_facade_test};

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

/// Runs the model test, optimised; it prints a summary and fails if the run never met what it is for.
pub(crate) fn run(options: &Options) -> Outcome {
    let mut variables = vec![("MODEL_SEEDS", options.seeds), ("MODEL_FIRST_SEED", options.first_seed)];
    variables.extend(options.ops.map(|ops| ("MODEL_OPS", ops)));
    run_facade_test("model", &variables)
}
