//! `ci`: every step that CI runs, in order, with the time each took.

use std::time::{Duration, Instant};

use crate::shell::Outcome;
use crate::{bench, checks, crash, damage, kill, loom, main_job, model, mutants, tidy};

/// How `ci` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Go on after a step that fails, and say at the end which ones did
    #[arg(long)]
    keep_going: bool,
    /// Leave out what has the same answer on every platform: loom models, the page of figures, counts, planted faults
    #[arg(long)]
    portable: bool,
}

/// Seeds of the model test that every run of CI tries. More by hand: `cargo xtask model --seeds 200`.
const MODEL_SEEDS: u64 = 100;

/// Seeds of the crash test that every run of CI tries. More by hand: `cargo xtask crash --seeds 200`.
const CRASH_SEEDS: u64 = 10;

/// Processes that every run of CI kills. More by hand: `cargo xtask kill --kills 300`.
const KILLS: u64 = 60;

/// Damages that every run of CI tries. More by hand: `cargo xtask damage --trials 5000`.
const DAMAGE_TRIALS: u64 = 300;

/// A step's name and what it runs.
type Step = (&'static str, fn() -> Outcome);

/// In the order of what fails soonest; each is also a verb. The boolean says whether its answer is the same on every
/// platform, so that `--portable` leaves it out.
const STEPS: &[(Step, bool)] = &[
    (("fmt", checks::fmt), false),
    (("tidy", tidy::run), false),
    (("clippy", checks::clippy), false),
    (("test", checks::test), false),
    (("examples", checks::examples), false),
    (("doc", checks::doc), false),
    (("loom", || loom::run(&loom::Options::default())), true),
    (("model", || model::run(&model::Options::short(MODEL_SEEDS))), false),
    (("crash", || crash::run(&crash::Options::short(CRASH_SEEDS))), false),
    (("kill", || kill::run(&kill::Options::short(KILLS))), false),
    (("damage", || damage::run(&damage::Options::short(DAMAGE_TRIALS))), false),
    (("main-job", main_job::main_job), false),
    (("page", bench::browser::check_where_possible), true),
    (("counts", bench::counts::where_possible), true),
    (("mutants", || mutants::run(&mutants::Options::default())), true),
];

/// Runs the steps.
pub(crate) fn run(options: &Options) -> Outcome {
    let mut took: Vec<(&str, Duration, Outcome)> = Vec::new();
    for ((name, step), _) in STEPS.iter().filter(|(_, same_everywhere)| !(*same_everywhere && options.portable)) {
        println!("\n==== {name}");
        let begun = Instant::now();
        let outcome = step();
        if let Err(failure) = &outcome {
            eprintln!("{name}: {failure}");
        }
        let stop = outcome.is_err() && !options.keep_going;
        took.push((name, begun.elapsed(), outcome));
        if stop {
            break;
        }
    }
    println!();
    for (name, time, outcome) in &took {
        println!("{name:<10} {:>7.1} s  {}", time.as_secs_f64(), if outcome.is_ok() { "ok" } else { "FAILED" });
    }
    let all: Duration = took.iter().map(|(_, time, _)| *time).sum();
    println!("{:<10} {:>7.1} s", "all", all.as_secs_f64());
    let failed: Vec<&str> = took.iter().filter(|(.., outcome)| outcome.is_err()).map(|(name, ..)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}
