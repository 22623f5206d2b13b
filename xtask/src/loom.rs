//! `loom`: the models of every concurrency protocol, in a build of their own.

use std::process::Command;

use crate::shell::{Outcome, Workspace, build_executables, cargo, quick_to_build, run_tests_at_once, with_rustflags};

/// How `loom` is run.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Only this package
    #[arg(long, short)]
    package: Option<String>,
    /// Only models whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// How often a thread may be interrupted in one execution; each more costs about tenfold [default: 2, or
    /// LOOM_MAX_PREEMPTIONS]
    #[arg(long)]
    preemptions: Option<u32>,
}

/// Runs `tests/loom_*.rs` of every crate with `--cfg loom`, optimised, in `target/loom`.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let mut runs = Vec::new();
    for package in &workspace.packages {
        if options.package.as_ref().is_some_and(|name| *name != package.name) {
            continue;
        }
        let models: Vec<&String> =
            package.targets.iter().filter(|target| is_model(target)).map(|(_, name)| name).collect();
        if models.is_empty() {
            continue;
        }
        let mut command = cargo(&["test", "--no-run", "--release", "--package", &package.name]);
        for model in models {
            command.args(["--test", model]);
        }
        command.arg("--target-dir").arg(workspace.target_dir.join("loom"));
        with_rustflags(&mut command, "--cfg loom");
        quick_to_build(&mut command);
        for (_, executable) in build_executables(command)? {
            let mut run = Command::new(executable);
            run.args(options.only.as_slice()).args(["--nocapture", "--test-threads=1"]);
            run.current_dir(&package.dir).env("CARGO_MANIFEST_DIR", &package.dir);
            // Loom says how many executions a model took, and at this level nothing else.
            run.env("LOOM_LOG", "loom::model=info").env("NO_COLOR", "1");
            if let Some(preemptions) = options.preemptions {
                run.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
            } else if std::env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
                run.env("LOOM_MAX_PREEMPTIONS", "2");
            }
            runs.push(run);
        }
    }
    // A model is one thread's work.
    let wanted = |line: &str| line.starts_with("test ") || line.to_lowercase().contains("iterations");
    let all = run_tests_at_once(runs, wanted)?;
    println!("loom: {} models passed", all.passed);
    if all.passed == 0 { Err("no model ran".to_string()) } else { Ok(()) }
}

/// Whether a target, as Cargo names it, is a loom model.
fn is_model((kind, name): &(String, String)) -> bool {
    kind == "test" && name.starts_with("loom_")
}
