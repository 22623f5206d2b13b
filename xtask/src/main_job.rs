//! `main-job`: the README's main command, and the same job killed in the middle and taken up again.
//!
//! ```text
//!   demo                            ─▶ summary, exit code 0
//!   demo --dir D  ─▶ 300,000 entries ─▶ kill ─▶ demo --dir D ─▶ goes on, every entry equal, exit code 0
//! ```

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::shell::{Outcome, Workspace, build_executables, cargo, run};

/// So many reports of a thousand entries are read before the job is killed.
const REPORTS_BEFORE_KILL: u64 = 300;

/// Runs both.
pub(crate) fn main_job() -> Outcome {
    run(cargo(&["run", "--release", "--package", "lsm-cli", "--", "demo"]))?;
    killed_and_taken_up()
}

fn killed_and_taken_up() -> Outcome {
    let dir = Workspace::load()?.target_dir.join("main-job");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    let built = build_executables(cargo(&["build", "--quiet", "--release", "--package", "lsm-cli", "--bin", "lsm"]))?;
    let (_, lsm) = built.iter().find(|(name, _)| name == "lsm").ok_or("Cargo built no `lsm`")?;
    let demo = || {
        let mut command = Command::new(lsm);
        command.args(["demo", "--dir"]).arg(&dir);
        command
    };

    // Nobody reads more of these reports, so the job stands still as soon as their pipe is full, however fast it is.
    let mut first = demo();
    first.args(["--report", "1000"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = first.spawn().map_err(|error| format!("`lsm demo` could not be started: {error}"))?;
    let mut reports = BufReader::new(child.stderr.take().expect("standard error is piped"));
    let (mut line, mut seen) = (String::new(), 0);
    while seen < REPORTS_BEFORE_KILL {
        line.clear();
        match reports.read_line(&mut line) {
            Ok(1..) => seen += u64::from(line.contains("committed")),
            _ => break,
        }
    }
    child.kill().and_then(|()| child.wait()).map_err(|error| format!("`lsm demo` could not be killed: {error}"))?;
    if seen < REPORTS_BEFORE_KILL {
        return Err(format!("`lsm demo --report` ended after {seen} reports"));
    }
    println!("\nkilled after: {}", line.trim());

    let output = demo().stderr(Stdio::piped()).output();
    let output = output.map_err(|error| format!("`lsm demo` could not be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    print!("{said}{}", String::from_utf8_lossy(&output.stdout));
    let _ = std::fs::remove_dir_all(&dir);
    if !output.status.success() {
        return Err(format!("the main job that was taken up failed ({})", output.status));
    }
    if !said.contains("going on after") {
        return Err("the main job that was killed was not taken up".to_string());
    }
    Ok(())
}
