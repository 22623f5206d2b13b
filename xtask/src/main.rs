//! The verbs of development: `cargo xtask ci` is what CI runs, and each of its steps is a verb of its own.
//!
//! ```text
//!   cargo xtask ci ─▶ fmt ─▶ tidy ─▶ clippy ─▶ test ─▶ examples ─▶ doc ─▶ loom ─▶ model
//!                  ─▶ crash ─▶ kill ─▶ damage ─▶ main-job ─▶ page ─▶ counts ─▶ mutants
//!   by hand        ─▶ golden --update, model --seeds N, crash --seeds N, kill --kills N, damage --trials N,
//!                     fuzz --secs N,
//!                     mutants --only NAME, bench, audit-get, profile WORKLOAD, simulate
//! ```
//!
//! One file a verb; [`shell`] runs commands for all of them. Standard library, `clap` and `serde_json` alone: this is
//! compiled before anything else on a fresh machine.

mod audit;
mod bench;
mod callgrind;
mod checks;
mod ci;
mod crash;
mod damage;
mod fuzz;
mod golden;
mod kill;
mod loom;
mod main_job;
mod model;
mod mutants;
mod profile;
mod shell;
mod simulate;
mod stress;
mod tidy;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a developer of this engine does, and what CI does in the same words.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Every step that CI runs, in order; stops at the first that fails and prints what each took
    Ci(ci::Options),
    /// Is the source formatted? (`cargo fmt` formats it)
    Fmt,
    /// Lints of all targets, warnings denied
    Clippy,
    /// Every test of the workspace, doc tests included; prints how many passed
    Test,
    /// Runs every example of every crate
    Examples,
    /// Builds the documentation, warnings denied
    Doc,
    /// Checks that the tree says what it does: layers, headers, links, invariants, formats, faults
    Tidy,
    /// Runs the loom models (`tests/loom_*.rs`) of every crate
    Loom(loom::Options),
    /// Runs the golden scripts of every crate
    Golden(golden::Options),
    /// Runs random operations through the database beside a reference model
    Model(model::Options),
    /// Crashes the database at every event of random runs, and recovers it
    Crash(crash::Options),
    /// Kills the database in a process of its own at random moments, and opens it again
    Kill(kill::Options),
    /// Runs many threads on one database at once, as long as one likes
    Stress(stress::Options),
    /// Damages any file of a database, and opens, reads and verifies it
    Damage(damage::Options),
    /// Drives every decoder by coverage on a nightly compiler, as long as one likes
    Fuzz(fuzz::Options),
    /// Runs the main job on real input: once whole, and once killed in the middle and taken up again
    MainJob,
    /// Plants each fault of the registry and demands that its test fails
    Mutants(mutants::Options),
    /// Measures: beside the peers, in instructions, what the machine can do
    Bench(Box<bench::Options>),
    /// Lists the locked and exchanging instructions of a warm point read, and whose cache line each touches
    AuditGet,
    /// Draws where the time of one path goes, as a flame graph in target/profile
    Profile(profile::Options),
    /// Runs the pickers of compaction over synthetic writes, without a disk, and draws what comes of it
    Simulate(simulate::Options),
}

fn main() -> ExitCode {
    if let Some(compiled) = mutants::compile() {
        return compiled;
    }
    let outcome = match Arguments::parse().verb {
        Verb::Ci(options) => ci::run(&options),
        Verb::Fmt => checks::fmt(),
        Verb::Clippy => checks::clippy(),
        Verb::Test => checks::test(),
        Verb::Examples => checks::examples(),
        Verb::Doc => checks::doc(),
        Verb::Tidy => tidy::run(),
        Verb::Loom(options) => loom::run(&options),
        Verb::Golden(options) => golden::run(&options),
        Verb::Model(options) => model::run(&options),
        Verb::Crash(options) => crash::run(&options),
        Verb::Kill(options) => kill::run(&options),
        Verb::Stress(options) => stress::run(&options),
        Verb::Damage(options) => damage::run(&options),
        Verb::Fuzz(options) => fuzz::run_targets(&options),
        Verb::MainJob => main_job::main_job(),
        Verb::Mutants(options) => mutants::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::AuditGet => audit::run(),
        Verb::Profile(options) => profile::profile(&options),
        Verb::Simulate(options) => simulate::simulate(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\ncargo xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
