//! `kill`: the engine in a process of its own, killed at random moments, and opened again.

use crate::shell::{Outcome, run_facade_test};

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

/// Runs the kill test, optimised; it prints in which phases it killed.
pub(crate) fn run(options: &Options) -> Outcome {
    run_facade_test("kill", &[("KILL_KILLS", options.kills), ("KILL_SEED", options.seed)])
}
