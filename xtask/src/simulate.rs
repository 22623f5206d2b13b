//! `simulate`: the pickers of compaction over synthetic writes, without a disk.

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
}

/// Writes a table and a picture into target/simulate.
pub(crate) fn simulate(options: &Options) -> Outcome {
    let seed = options.seed.to_string();
    let dir = Workspace::load()?.target_dir.join("simulate");
    let mut command = cargo(&["run", "--release", "--package", "compaction-simulator", "--"]);
    command.args(["--seed", &seed]).arg("--into").arg(dir);
    if options.quick {
        command.arg("--quick");
    }
    run(command)
}
