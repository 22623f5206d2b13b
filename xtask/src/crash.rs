//! `crash`: the database crashed at every event of random runs, and recovered.

use crate::shell::{Outcome, run_facade_test};

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

/// Runs the crash test, optimised; it prints how many crash points it tried.
pub(crate) fn run(options: &Options) -> Outcome {
    run_facade_test("crash", &[("CRASH_SEEDS", options.seeds), ("CRASH_FIRST_SEED", options.first_seed)])
}
