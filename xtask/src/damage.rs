//! `damage`: any file of a database damaged, and the database opened, read and verified.

use crate::shell::{Outcome, run_facade_test};

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

/// Runs the damage test, optimised; it prints a table of outcomes by kind of file.
pub(crate) fn run(options: &Options) -> Outcome {
    run_facade_test("damage", &[("DAMAGE_TRIALS", options.trials), ("DAMAGE_FIRST_TRIAL", options.first_trial)])
}
