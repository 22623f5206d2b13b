//! `loom`: the models of every concurrency protocol, in a build of their own.

use std::collections::BTreeSet;
use std::process::Command;

use crate::shell::{Outcome, Package, Workspace, build_each, cargo, quick_to_build, run_tests_at_once, with_rustflags};

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
    let packages: Vec<&Package> = with_models(&workspace)
        .filter(|package| options.package.as_ref().is_none_or(|name| *name == package.name))
        .collect();
    if packages.is_empty() {
        return Err("no package of this name has a model".to_string());
    }
    let mut command = cargo(&["test", "--no-run"]);
    // All packages at once: one after the other leaves processors idle, and compiles anew what gets other features.
    command.args(packages.iter().flat_map(|package| ["--package", &package.name]));
    let models: BTreeSet<&str> = packages.iter().flat_map(|package| models(package)).collect();
    command.args(models.into_iter().flat_map(|model| ["--test", model]));
    in_its_own_build(&mut command, &workspace);
    let mut runs = Vec::new();
    build_each(command, |executable| {
        let mut run = Command::new(executable.path);
        run.args(options.only.as_slice()).args(["--nocapture", "--test-threads=1"]);
        run.current_dir(&executable.package_dir).env("CARGO_MANIFEST_DIR", &executable.package_dir);
        // Loom says how many executions a model took, and at this level nothing else.
        run.env("LOOM_LOG", "loom::model=info").env("NO_COLOR", "1");
        if let Some(preemptions) = options.preemptions {
            run.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
        } else if std::env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
            run.env("LOOM_MAX_PREEMPTIONS", "2");
        }
        runs.push(run);
    })?;
    // A model is one thread's work.
    let wanted = |line: &str| line.starts_with("test ") || line.to_lowercase().contains("iterations");
    let all = run_tests_at_once(runs, wanted)?;
    println!("loom: {} models passed", all.passed);
    if all.passed == 0 { Err("no model ran".to_string()) } else { Ok(()) }
}

/// The packages that have models.
pub(crate) fn with_models(workspace: &Workspace) -> impl Iterator<Item = &Package> {
    workspace.packages.iter().filter(|package| models(package).next().is_some())
}

/// The models of a package: its targets that Cargo knows as tests with such a name.
fn models(package: &Package) -> impl Iterator<Item = &str> {
    package.targets.iter().filter(|(kind, name)| kind == "test" && name.starts_with("loom_")).map(|(_, name)| &name[..])
}

/// Builds what `command` says with `--cfg loom`, optimised, in a directory of its own: dependencies see the flag too.
pub(crate) fn in_its_own_build(command: &mut Command, workspace: &Workspace) {
    command.arg("--release").arg("--target-dir").arg(workspace.target_dir.join("loom"));
    with_rustflags(command, "--cfg loom");
    quick_to_build(command);
}
