//! The small verbs: each is one or two commands of Cargo.

use std::process::Command;

use crate::shell::{Outcome, Workspace, build_executables, cargo, run, run_tests};

/// Is the source formatted?
pub(crate) fn fmt() -> Outcome {
    run(cargo(&["fmt", "--all", "--check"]))
}

/// Lints, warnings denied.
pub(crate) fn clippy() -> Outcome {
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Every test, doc tests included.
pub(crate) fn test() -> Outcome {
    let count = run_tests(cargo(&["test", "--workspace", "--no-fail-fast"]), |line| {
        line.starts_with("test result") || line.contains("... FAILED")
    })?;
    println!("tests: {} passed, {} failed, {} ignored", count.passed, count.failed, count.ignored);
    if count.passed == 0 { Err("no test ran".to_string()) } else { Ok(()) }
}

/// Builds every example and runs it without arguments; its output is shown only if it fails.
pub(crate) fn examples() -> Outcome {
    let workspace = Workspace::load()?;
    // All at once, with the features that the tests were built with: one by one most of the workspace is built anew for each.
    let built = build_executables(cargo(&["build", "--quiet", "--workspace", "--examples"]))?;
    let mut ran = 0;
    for package in &workspace.packages {
        for (_, example) in package.targets.iter().filter(|(kind, _)| kind == "example") {
            let mut named = built.iter().filter(|(name, _)| name == example);
            let (_, path) = named.next().ok_or("Cargo built no example")?;
            if named.next().is_some() {
                return Err(format!("two examples are called `{example}`, and Cargo writes one over the other"));
            }
            let line = format!("cargo run -p {} --example {example}", package.name);
            let output = Command::new(path).current_dir(&package.dir).output();
            let output = output.map_err(|error| format!("`{line}` could not be started: {error}"))?;
            if !output.status.success() {
                print!("{}", String::from_utf8_lossy(&output.stdout));
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                return Err(format!("`{line}` failed ({})", output.status));
            }
            println!("ran: {line}");
            ran += 1;
        }
    }
    println!("examples: {ran} ran");
    Ok(())
}

/// Builds the documentation, warnings denied.
pub(crate) fn doc() -> Outcome {
    let mut command = cargo(&["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    run(command)
}
