//! `golden`: the golden scripts of every crate, compared or rewritten.

use crate::shell::{Outcome, Workspace, cargo, run_tests};

/// How `golden` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rewrite the expected output in place; read the difference before committing it
    #[arg(long)]
    update: bool,
    /// Only this package
    #[arg(long, short)]
    package: Option<String>,
}

/// Runs the tests of every crate that has scripts under `tests/golden`.
pub(crate) fn run(options: &Options) -> Outcome {
    let workspace = Workspace::load()?;
    let mut command = cargo(&["test", "--no-fail-fast"]);
    let mut found = false;
    for package in &workspace.packages {
        let wanted = options.package.as_ref().is_none_or(|name| *name == package.name);
        if wanted && package.dir.join("tests/golden").is_dir() {
            found = true;
            command.args(["--package", &package.name]);
        }
    }
    if !found {
        return Err("no such package has golden scripts (tests/golden)".to_string());
    }
    command.arg("golden");
    if options.update {
        command.env("LSM_GOLDEN_UPDATE", "1");
    }
    let count = run_tests(command, |line| line.starts_with("test "))?;
    if count.passed == 0 {
        return Err("no test has `golden` in its name: nothing was compared".to_string());
    }
    Ok(())
}
