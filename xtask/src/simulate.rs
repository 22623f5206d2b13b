//! `simulate`: the pickers of compaction over synthetic writes, without a disk; or beside the engine itself.

use crate::shell::{Outcome, Workspace, cargo, run};

/// How `simulate` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A hundredth of the writes
    #[arg(long)]
    quick: bool,
    /// Repeats the writes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs the same writes on the engine too, and prints both; takes minutes
    #[arg(long, conflicts_with = "quick")]
    compare: bool,
}

/// Writes a table and a picture into target/simulate, or prints the comparison.
pub(crate) fn simulate(options: &Options) -> Outcome {
    let seed = options.seed.to_string();
    if options.compare {
        let mut command = cargo(&["run", "--release", "--package", "benches", "--example", "simulated_and_real", "--"]);
        // 4.5 million writes of 116 bytes are 522 MB.
        command.args(["--keys", "1125000", "--seed", &seed]);
        return run(command);
    }
    let dir = Workspace::load()?.target_dir.join("simulate");
    let mut command = cargo(&["run", "--release", "--package", "compaction-simulator", "--"]);
    command.args(["--seed", &seed]).arg("--into").arg(dir);
    if options.quick {
        command.arg("--quick");
    }
    run(command)
}
