//! `profile WORKLOAD`: where the time of one path goes, drawn as a flame graph.
//!
//! ```text
//!   perf record -e cpu-clock ─▶ perf script ─▶ inferno-collapse-perf ─┐
//!   or, where perf cannot:  callgrind --separate-callers ─▶ stacks ───┴▶ inferno-flamegraph ─▶ target/profile/NAME.svg
//! ```
//!
//! Samples of the processor's clock say where time goes, cache misses included; callgrind says where instructions go.
//! The graph's title says which of the two it shows.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::callgrind::{by_stack, count, paths_program};
use crate::shell::{Outcome, Workspace, drawn, run};
use crate::tools;

/// The version of inferno that draws.
const INFERNO: &str = "0.12.8";

/// How `profile` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What is run over and over
    #[arg(value_parser = ["get", "missing", "insert", "scan", "cursor", "seek", "range"])]
    workload: String,
    /// Rows in the database
    #[arg(long, default_value_t = 200_000)]
    rows: u32,
    /// How often the workload goes over all rows
    #[arg(long, default_value_t = 10)]
    repeats: u32,
    /// Counts instructions even where perf could sample
    #[arg(long)]
    callgrind: bool,
}

/// Profiles and draws.
pub(crate) fn profile(options: &Options) -> Outcome {
    let program = paths_program()?;
    let dir = Workspace::load()?.target_dir.join("profile");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let stacks = dir.join(format!("{}.stacks", options.workload));
    let perf = if options.callgrind { None } else { tools::find(&["perf"]) };
    let sampled = perf.map(|perf| sample(&perf, &program, options, &dir, &stacks));
    let unit = match sampled {
        Some(Ok(())) => "nanoseconds",
        other => {
            if let Some(Err(failure)) = other {
                println!("perf cannot sample here ({failure}): counting instructions instead");
            }
            count_stacks(&program, options, &dir, &stacks)?;
            "instructions"
        }
    };
    let inferno = tools::cargo_tool_with("inferno", INFERNO, "inferno-flamegraph")?;
    let picture = dir.join(format!("{}.svg", options.workload));
    let mut command = Command::new(inferno);
    command.arg("--title").arg(format!("{}: {unit}", options.workload)).arg("--countname").arg(unit).arg(&stacks);
    into_file(command, &picture)?;
    println!("wrote {}", picture.display());
    Ok(())
}

fn sample(perf: &Path, program: &Path, options: &Options, dir: &Path, stacks: &Path) -> Outcome {
    let data = dir.join(format!("{}.perf", options.workload));
    let mut record = Command::new(perf);
    // Frames are unwound from the stack itself: the program is the one that is shipped, without frame pointers.
    record.args(["record", "--quiet", "--event=cpu-clock", "--freq=997", "--call-graph=dwarf,4096", "--output"]);
    record.arg(&data).arg("--").arg(program).arg(&options.workload);
    record.args([options.rows.to_string(), options.repeats.to_string()]);
    run(record)?;
    let mut script = Command::new(perf);
    script.args(["script", "--no-inline", "--input"]).arg(&data);
    let text = dir.join(format!("{}.script", options.workload));
    into_file(script, &text)?;
    tools::cargo_tool_with("inferno", INFERNO, "inferno-flamegraph")?;
    let mut collapse = Command::new(tools::cargo_tool_with("inferno", INFERNO, "inferno-collapse-perf")?);
    collapse.arg(&text);
    into_file(collapse, stacks)?;
    match std::fs::metadata(stacks) {
        Ok(found) if found.len() > 0 => Ok(()),
        _ => Err("no samples".to_string()),
    }
}

/// Under valgrind everything takes some fifty times as long: fewer rows, and each visited as often.
fn count_stacks(program: &Path, options: &Options, dir: &Path, stacks: &Path) -> Outcome {
    let out = dir.join(format!("{}.callgrind", options.workload));
    let (rows, repeats) = ((options.rows / 10).max(1).to_string(), options.repeats.to_string());
    let text = count(program, &[&options.workload, &rows, &repeats], &["--separate-callers=16"], &out)?;
    let mut lines: Vec<String> =
        by_stack(&text)?.into_iter().map(|(stack, instructions)| format!("{stack} {instructions}\n")).collect();
    lines.sort();
    std::fs::write(stacks, lines.concat()).map_err(|error| format!("{}: {error}", stacks.display()))
}

fn into_file(mut command: Command, path: &Path) -> Outcome {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = drawn(&command);
    let status = command.stdout(file).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{line}` failed ({status})")),
        Err(error) => Err(format!("`{line}` could not be started: {error}")),
    }
}
