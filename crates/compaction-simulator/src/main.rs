//! Simulates every workload under every strategy: `simulate-compaction [--into DIR] [--quick]`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use compaction::Strategy;
use compaction_simulator::{Setup, Workload, draw, simulate};

/// The pickers and the pacing of compaction over synthetic writes, without a disk.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Writes amplification.md and debt.svg there; otherwise the table goes to standard output
    #[arg(long)]
    into: Option<PathBuf>,
    /// A hundredth of the writes
    #[arg(long)]
    quick: bool,
    /// Repeats the writes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut cases = Vec::new();
    for workload in Workload::ALL {
        for strategy in [Strategy::Leveled, Strategy::Tiered, Strategy::Fifo] {
            let setup = if arguments.quick { Setup::small } else { Setup::new };
            let setup = Setup { seed: arguments.seed, ..setup(workload, strategy) };
            cases.push((workload, strategy, simulate(&setup)));
            eprintln!("simulated: {workload}, {}", draw::strategy_name(strategy));
        }
    }
    let table = draw::markdown(&cases);
    let Some(dir) = arguments.into else {
        print!("{table}");
        return ExitCode::SUCCESS;
    };
    let write = || {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("amplification.md"), &table)?;
        std::fs::write(dir.join("debt.svg"), draw::svg(&cases))
    };
    match write() {
        Ok(()) => {
            println!("wrote amplification.md and debt.svg into {}", dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}
