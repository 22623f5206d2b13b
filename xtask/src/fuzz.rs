//! `fuzz`: every decoder, driven by coverage, on a nightly compiler; `fuzz/README.md` says what each target checks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::shell::{Outcome, cargo, drawn, root, run, run_tests};

/// How `fuzz` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seconds each target is driven
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// Only this target
    #[arg(long)]
    target: Option<String>,
    /// Write the committed corpora anew instead, from the samples of the tests
    #[arg(long)]
    corpus: bool,
}

/// The packages whose tests write corpora, and what their harnesses' tests are called.
const PACKAGES: [&str; 5] = ["write-ahead-log", "sstable-format", "manifest", "lsm-facade", "lsm-cli"];
const TESTS: &str = "fuzzing::";

/// Inputs are not longer; no allocation is larger (`fuzz/README.md`); no input takes longer.
const LIMITS: [&str; 4] = ["-max_len=32768", "-malloc_limit_mb=32", "-rss_limit_mb=2048", "-timeout=10"];

/// Drives the targets one after the other, all of them even if one fails.
pub(crate) fn run_targets(options: &Options) -> Outcome {
    if options.corpus {
        return write_corpora();
    }
    let mut targets = targets()?;
    if let Some(only) = &options.target {
        if !targets.contains(only) {
            return Err(format!("no target is called {only}; there are {}", targets.join(", ")));
        }
        targets = vec![only.clone()];
    }
    need_tools()?;
    // Apart from the runs, so that one sees it build: some minutes the first time.
    for target in &targets {
        run(rustup_cargo(&["+nightly", "fuzz", "build", target]))?;
    }
    let mut failed = Vec::new();
    let mut rows = Vec::new();
    for target in targets {
        let (runs, outcome) = drive(&target, options.secs);
        rows.push(format!("{target:<12} {runs:>12} runs  {}", if outcome.is_ok() { "no finding" } else { "FINDING" }));
        if let Err(failure) = outcome {
            eprintln!("{failure}");
            failed.push(target);
        }
    }
    println!("\n{}", rows.join("\n"));
    if failed.is_empty() { Ok(()) } else { Err(format!("findings: {}", failed.join(", "))) }
}

/// The names of the targets: of the files that hold them.
fn targets() -> Outcome<Vec<String>> {
    let dir = root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(Path::new(&entry.ok()?.file_name()).file_stem()?.to_str()?.to_string()))
        .collect();
    names.sort();
    Ok(names)
}

/// A nightly compiler must be there; cargo-fuzz is installed if it is not.
fn need_tools() -> Outcome {
    if !answers(&["+nightly", "--version"]) {
        return Err("fuzzing needs a nightly compiler: `rustup toolchain install nightly`".to_string());
    }
    if !answers(&["fuzz", "--version"]) {
        println!("cargo-fuzz is missing and is installed");
        run(rustup_cargo(&["install", "cargo-fuzz", "--locked"]))?;
    }
    Ok(())
}

fn answers(arguments: &[&str]) -> bool {
    let status = rustup_cargo(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The `cargo` of rustup, which chooses a toolchain; the one that runs this program has chosen already.
fn rustup_cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(arguments).env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Drives one target, and returns how many inputs it ran.
fn drive(target: &str, secs: u64) -> (u64, Outcome) {
    let found = root().join("fuzz/found").join(target);
    if let Err(error) = fs::create_dir_all(&found) {
        return (0, Err(format!("{}: {error}", found.display())));
    }
    // The first directory takes what is discovered; the committed corpus is only read.
    let (found, corpus) = (format!("fuzz/found/{target}"), format!("fuzz/corpus/{target}"));
    let time = format!("-max_total_time={secs}");
    let mut arguments = vec!["+nightly", "fuzz", "run", target, &found, &corpus, "--", &time, "-print_final_stats=1"];
    arguments.extend(LIMITS);
    let mut command = rustup_cargo(&arguments);
    let line = drawn(&command);
    eprintln!("$ {line}");
    let child = command.stdout(Stdio::inherit()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (0, Err(format!("`{line}` could not be started: {error}"))),
    };
    let mut runs = 0;
    // What libFuzzer says at each discovery is left out, unless the run fails.
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        for text in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&text).into_owned();
            runs = runs_of(&text).unwrap_or(runs);
            said.push(text);
        }
    }
    match child.wait() {
        Ok(status) if status.success() => (runs, Ok(())),
        Ok(status) => {
            let end = &said[said.len().saturating_sub(60)..];
            (runs, Err(format!("{}\n`{line}` failed ({status})", end.join("\n"))))
        }
        Err(error) => (runs, Err(format!("`{line}`: {error}"))),
    }
}

/// The number in `stat::number_of_executed_units: 123`.
fn runs_of(line: &str) -> Option<u64> {
    line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok()
}

fn write_corpora() -> Outcome {
    let mut command = cargo(&["test"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.args(["--lib", TESTS]).env("LSM_GOLDEN_UPDATE", "1");
    let count = run_tests(command, |line| line.starts_with("test "))?;
    if count.passed == 0 { Err("no corpus was written".to_string()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_corpus_and_a_row_in_the_readme() {
        let readme = fs::read_to_string(root().join("fuzz/README.md")).unwrap();
        let targets = targets().unwrap();
        assert_eq!(targets.len(), 9, "{targets:?}");
        for target in targets {
            assert!(readme.contains(&format!("| `{target}` |")), "{target}");
            assert!(fs::read_dir(root().join("fuzz/corpus").join(&target)).unwrap().count() > 0, "{target}");
        }
    }

    #[test]
    fn runs_are_read_from_the_final_statistics() {
        assert_eq!(runs_of("stat::number_of_executed_units: 1234"), Some(1234));
        assert_eq!(runs_of("#2 INITED cov: 12"), None);
    }
}
