//! Runs the measuring program, a fresh process and directory for each (engine, row, round).
//!
//! ```text
//!   for each round: for each row: for each engine   so that what the machine does meanwhile hits all alike
//!      slot has a line? ─ yes ─▶ next
//!      lab prepare (once for each engine) ─▶ lab run ─▶ one line appended at once
//! ```
//!
//! The data that rows read are built once for each engine and copied by the measuring program, off the clock.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::machine::{commit, date, load, machine};
use super::results::{self, Appender, Slot};
use crate::shell::{Outcome, build_executables, cargo, output_of, root};
use crate::tools;

/// What is measured.
#[derive(clap::Args)]
pub(crate) struct Measuring {
    /// 100,000 keys, one round of two seconds a row: the same rows and engines, in minutes
    #[arg(long)]
    quick: bool,
    /// Keys of the data set [default: 1000000]
    #[arg(long)]
    keys: Option<u64>,
    /// Only these engines, separated by commas
    #[arg(long, value_delimiter = ',')]
    engines: Vec<String>,
    /// Only these rows, separated by commas
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// How often each (engine, row) is measured [default: 3]
    #[arg(long)]
    rounds: Option<u64>,
    /// A row stops after so many seconds, and is marked as unfinished [default: 8]
    #[arg(long)]
    seconds: Option<f64>,
    /// `none` or `lz4`, where the engine has it
    #[arg(long, default_value = "none", value_parser = ["none", "lz4"])]
    compression: String,
    /// Where results lie: a name below `target/bench`, or a path
    #[arg(long)]
    out: Option<PathBuf>,
    /// Goes on where an earlier run into the same directory stopped; `off` forgets that run
    #[arg(long, default_value = "on", value_parser = ["on", "off"])]
    resume: String,
    /// Where databases are made [default: the output directory]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Another measuring program than the one of `benches/peers`
    #[arg(long, hide = true)]
    lab: Option<PathBuf>,
}

impl Measuring {
    fn keys(&self) -> u64 {
        self.keys.unwrap_or(if self.quick { 100_000 } else { 1_000_000 })
    }

    fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 2.0 } else { 8.0 })
    }

    /// The marks of the document's place for these tables: there is one for each size of the data set and compression.
    pub(crate) fn marks(&self) -> String {
        results::marks(self.keys(), &self.compression)
    }

    /// The output directory.
    pub(crate) fn out(&self) -> PathBuf {
        let bench = root().join("target/bench");
        match &self.out {
            None => bench.join(format!("{}-{}", self.keys(), self.compression)),
            Some(name) if name.components().count() == 1 => bench.join(name),
            Some(path) => std::env::current_dir().unwrap_or_default().join(path),
        }
    }
}

/// What building the peers needs beside Rust: RocksDB is C++, and its bindings are made by libclang.
const PACKAGES: &[&str] = &["g++", "cmake", "pkg-config", "clang", "libclang-dev"];

/// Beyond a row's time, so long may loading, settling and checking take. A fill of the slowest engine takes minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks at whether a measurement has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Measures everything that has no line yet.
pub(crate) fn run(options: &Measuring) -> Outcome {
    // Before building: what is changed meanwhile is not what is measured.
    let commit = commit();
    let lab = match &options.lab {
        Some(path) => path.clone(),
        None => build()?,
    };
    let out = options.out();
    let work = options.dir.clone().unwrap_or_else(|| out.clone());
    let failed = |error: std::io::Error| format!("{}: {error}", out.display());
    if options.resume == "off" && out.exists() {
        std::fs::remove_dir_all(&out).map_err(failed)?;
    }
    std::fs::create_dir_all(&out).map_err(failed)?;
    let about = About::ask(&lab, options)?;
    about.write(&out, options)?;

    let path = out.join("results.jsonl");
    let done: HashSet<Slot> = results::lines(&path)?
        .iter()
        // What failed is tried again.
        .filter(|line| line["failed"].is_null())
        .filter_map(results::slot)
        .collect();
    let mut lines = Appender::open(&path)?;
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let machine = machine(&work);
    let mut bench = Bench { lab: &lab, options, work: &work, prepared: HashMap::new() };
    let all = options.rounds() * (about.rows.len() * about.engines.len()) as u64;
    let (mut number, mut wrong) = (0, Vec::new());
    for round in 1..=options.rounds() {
        for (row, _) in &about.rows {
            for engine in &about.engines {
                number += 1;
                let slot = Slot { engine: engine.clone(), row: row.clone(), round };
                if done.contains(&slot) {
                    continue;
                }
                let load = load();
                let mut line = bench.measure(engine, row).unwrap_or_else(|failure| json!({"failed": failure}));
                if let Some(failure) = line["failed"].as_str() {
                    wrong.push(format!("{engine}, {row}, round {round}: {failure}"));
                }
                for (name, value) in [
                    ("engine", json!(engine)),
                    ("row", json!(row)),
                    ("round", json!(round)),
                    ("date", json!(date())),
                    ("machine", json!(machine)),
                    ("commit", json!(commit)),
                    ("load", json!(load)),
                ] {
                    line[name] = value;
                }
                lines.append(&line)?;
                println!("{number}/{all}  {row:<28} {engine:<10} {}", said(&line));
            }
        }
    }
    // Data sets are kept only as long as the run may have to go on.
    let _ = std::fs::remove_dir_all(work.join("data"));
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} measurements failed:\n{}", wrong.len(), wrong.join("\n"))) }
}

/// Builds the measuring program in its own workspace; installs what its peers need.
fn build() -> Outcome<PathBuf> {
    let manifest = root().join("benches/peers/Cargo.toml");
    let manifest = manifest.to_str().ok_or("the workspace's path is not UTF-8")?;
    if tools::find(&["apt-get"]).is_some() {
        tools::install(PACKAGES)?;
    } else {
        println!("without apt-get nothing is installed: the peers need a C++ compiler, cmake and libclang");
    }
    println!("building the measuring program and the peers: some minutes the first time");
    let built = build_executables(cargo(&["build", "--release", "--manifest-path", manifest, "--bin", "lab"]))?;
    let lab = built.into_iter().find(|(name, _)| name == "lab");
    Ok(lab.ok_or("benches/peers built no `lab`")?.1)
}

/// What the measuring program says of itself.
struct About {
    /// Rows and what they do.
    rows: Vec<(String, String)>,
    engines: Vec<String>,
    settings: String,
}

impl About {
    fn ask(lab: &Path, options: &Measuring) -> Outcome<Self> {
        let ask = |verb: &str, arguments: &[&str]| {
            let mut command = Command::new(lab);
            command.arg(verb).args(arguments);
            output_of(command)
        };
        let first_word = |line: &str| line.split('\t').next().unwrap_or_default().trim().to_string();
        let engines: Vec<String> =
            ask("engines", &[])?.lines().map(first_word).filter(|name| !name.is_empty()).collect();
        let rows: Vec<(String, String)> = ask("rows", &[])?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| (first_word(line), line.split_once('\t').map_or("", |(_, said)| said).trim().to_string()))
            .collect();
        let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        for (wanted, there, what) in [
            (&options.engines, engines.iter().map(String::as_str).collect::<Vec<_>>(), "engine"),
            (&options.rows, names, "row"),
        ] {
            if let Some(unknown) = wanted.iter().find(|name| !there.contains(&name.as_str())) {
                return Err(format!("`{unknown}` is no {what}: {}", there.join(", ")));
            }
        }
        let wanted = |list: &[String], name: &String| list.is_empty() || list.contains(name);
        Ok(Self {
            rows: rows.into_iter().filter(|(name, _)| wanted(&options.rows, name)).collect(),
            engines: engines.into_iter().filter(|name| wanted(&options.engines, name)).collect(),
            settings: ask("settings", &["--keys", &options.keys().to_string(), "--compression", &options.compression])?,
        })
    }

    /// Writes `lab.json`; what an earlier run into this directory measured besides stays in it.
    fn write(&self, out: &Path, options: &Measuring) -> Outcome {
        let path = out.join("lab.json");
        let earlier: Value = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?,
            Err(_) => Value::Null,
        };
        let asked = [
            ("keys", json!(options.keys())),
            ("compression", json!(options.compression)),
            ("seconds", json!(options.seconds())),
        ];
        for (name, value) in &asked {
            if !earlier.is_null() && &earlier[name] != value {
                return Err(format!(
                    "{} holds results with {name} {}, not {value}: give another --out, or --resume off",
                    out.display(),
                    earlier[name]
                ));
            }
        }
        let mut about = json!({"settings": self.settings, "rounds": options.rounds()});
        for (name, value) in asked {
            about[name] = value;
        }
        let mut engines: Vec<Value> = earlier["engines"].as_array().cloned().unwrap_or_default();
        for engine in &self.engines {
            if !engines.contains(&json!(engine)) {
                engines.push(json!(engine));
            }
        }
        let mut rows: Vec<Value> = earlier["rows"].as_array().cloned().unwrap_or_default();
        for (name, description) in &self.rows {
            if !rows.iter().any(|row| row["name"] == name.as_str()) {
                rows.push(json!({"name": name, "description": description}));
            }
        }
        about["engines"] = json!(engines);
        about["rows"] = json!(rows);
        results::write(&path, &format!("{about:#}\n"))
    }
}

/// What every measurement needs.
struct Bench<'a> {
    lab: &'a Path,
    options: &'a Measuring,
    work: &'a Path,
    /// What came of preparing an engine's data.
    prepared: HashMap<String, Outcome>,
}

impl Bench<'_> {
    /// The line that one measurement prints.
    fn measure(&mut self, engine: &str, row: &str) -> Outcome<Value> {
        let data = self.data(engine);
        if !self.prepared.contains_key(engine) {
            let outcome = self.prepare(engine, &data);
            self.prepared.insert(engine.to_string(), outcome);
        }
        self.prepared[engine].clone()?;
        let dir = self.work.join("work").join(engine);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        let mut command = self.command("run", engine);
        command.args(["--row", row, "--seconds", &self.options.seconds().to_string()]);
        command.arg("--dir").arg(&dir).arg("--data").arg(&data);
        let output = output_within(command, Duration::from_secs_f64(self.options.seconds()) * 4 + PATIENCE);
        let _ = std::fs::remove_dir_all(&dir);
        let output = output?;
        let last = output.lines().rev().find(|line| !line.trim().is_empty()).ok_or("it printed nothing")?;
        let line: Value = serde_json::from_str(last).map_err(|error| format!("{error} in `{last}`"))?;
        if line.is_object() { Ok(line) } else { Err(format!("not an object: `{last}`")) }
    }

    fn prepare(&self, engine: &str, data: &Path) -> Outcome {
        std::fs::create_dir_all(data).map_err(|error| format!("{}: {error}", data.display()))?;
        let mut command = self.command("prepare", engine);
        command.arg("--data").arg(data);
        output_within(command, PATIENCE * 4).map(|_| ()).map_err(|failure| format!("while preparing: {failure}"))
    }

    fn command(&self, verb: &str, engine: &str) -> Command {
        let mut command = Command::new(self.lab);
        command.args([verb, "--engine", engine, "--keys", &self.options.keys().to_string()]);
        command.args(["--compression", &self.options.compression]);
        command
    }

    /// Where the engine's data set lies.
    fn data(&self, engine: &str) -> PathBuf {
        self.work.join("data").join(engine)
    }
}

/// Runs the command for at most `patience`; returns what it printed.
///
/// # Errors
/// What it said on standard error, shortened, if it does not end well: a wrong answer ends a measurement.
fn output_within(mut command: Command, patience: Duration) -> Outcome<String> {
    let failed = |error: std::io::Error| format!("could not be run: {error}");
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let read = |pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut pipe = pipe;
            // What was read before a pipe broke is all there is to tell.
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().expect("standard output is piped")));
    let stderr = read(Box::new(child.stderr.take().expect("standard error is piped")));
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break Some(status);
        }
        if begun.elapsed() > patience {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    match status {
        Some(status) if status.success() => Ok(stdout),
        Some(status) => {
            let said: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).take(3).collect();
            Err(format!("{status}: {}", said.join(" / ")))
        }
        None => Err(format!("had not ended after {} s", patience.as_secs())),
    }
}

/// A line for who waits.
fn said(line: &Value) -> String {
    for reason in ["failed", "unsupported", "unavailable"] {
        if let Some(why) = line[reason].as_str() {
            return format!("{reason}: {why}");
        }
    }
    let unit = line["unit"].as_str().unwrap_or_default();
    let star = if line["finished"] == false { " *" } else { "" };
    match (line["per_second"].as_f64(), line["value"].as_f64()) {
        (Some(rate), _) => format!("{} {unit}/s{star}", super::markdown::short(rate)),
        (None, Some(value)) => format!("{} {unit}{star}", super::markdown::short(value)),
        (None, None) => "no figure".to_string(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A measuring program of a few lines: `lsm` and a peer, a row that counts how often it was measured, and one that
    /// answers wrongly.
    const FAKE: &str = r#"#!/bin/sh
verb=$1; shift
while [ $# -gt 0 ]; do case $1 in
  --engine) engine=$2;; --row) row=$2;; --data) data=$2;; --dir) dir=$2;; esac; shift 2; done
case $verb in
  engines) printf 'lsm\nrocksdb\n';;
  rows) printf 'get\tReads.\nwrong\tFails.\n';;
  settings) printf '| a | b |\n|---|---|\n';;
  prepare) echo "$engine" >> "$data/prepared";;
  run)
    [ -d "$dir" ] && [ "$(wc -l < "$data/prepared")" -eq 1 ] || exit 3
    if [ "$row" = wrong ] && [ "$engine" = lsm ]; then echo "a wrong value" >&2; exit 1; fi
    echo "$engine $row" >> "$(dirname "$0")/measured"
    echo '{"unit":"ops","per_second":1000,"value":null,"finished":true}';;
esac
"#;

    #[test]
    fn what_has_a_line_is_not_measured_again_and_what_failed_is() {
        let dir = std::env::temp_dir().join(format!("xtask-lab-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let lab = dir.join("lab");
        std::fs::write(&lab, FAKE).unwrap();
        std::fs::set_permissions(&lab, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = |rounds| Measuring {
            quick: true,
            keys: None,
            engines: vec![],
            rows: vec![],
            rounds: Some(rounds),
            seconds: Some(0.1),
            compression: "none".to_string(),
            out: Some(dir.join("out")),
            resume: "on".to_string(),
            dir: None,
            lab: Some(lab.clone()),
        };
        let measured = || std::fs::read_to_string(dir.join("measured")).unwrap();
        let failure = run(&options(1)).unwrap_err();
        assert!(failure.contains("lsm, wrong, round 1: exit status: 1: a wrong value"), "{failure}");
        assert_eq!(measured(), "lsm get\nrocksdb get\nrocksdb wrong\n");
        run(&options(2)).unwrap_err();
        assert_eq!(measured(), "lsm get\nrocksdb get\nrocksdb wrong\nlsm get\nrocksdb get\nrocksdb wrong\n");
        let other = Measuring { keys: Some(5), ..options(2) };
        assert!(run(&other).unwrap_err().contains("holds results with keys 100000, not 5"));
        let unknown = Measuring { rows: vec!["got".to_string()], ..options(2) };
        assert!(run(&unknown).unwrap_err().contains("`got` is no row: get, wrong"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
