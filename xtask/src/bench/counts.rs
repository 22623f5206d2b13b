//! `--ci`: do the hot paths execute more instructions than they did?
//!
//! ```text
//!   benches/counts ─▶ gungraun, a run of valgrind for each path ─▶ instructions per operation ─┐
//!   benches/counts/baseline.json ──────────────────────────────────────────────────────────────┴▶ at most 3 % more
//! ```
//!
//! Counts repeat themselves to a few instructions on one toolchain; another compiler makes other code, and another C library
//! has another allocator. So the baseline says what it was recorded with, and with anything else nothing is compared.
//!
//! `--planted` shows that the gate closes: it builds what is shipped, and the same with a fault that makes a get allocate
//! (`--cfg planted`: nothing else differs). Both are compared with the committed baseline; the gate must pass the one and
//! fail the other, of which the fault must be at least 5 %.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::markdown::put_between_marks;
use super::results;
use crate::shell::{Outcome, Workspace, cargo, output_of, root, with_rustflags};
use crate::tools;

/// Above this share of additional instructions the gate is closed.
const LIMIT: f64 = 0.03;

/// The version of gungraun's runner, and of the library in `Cargo.toml`: they must be the same.
const GUNGRAUN: &str = "0.20.0";

/// The fault that `--planted` plants.
const PLANTED: &str = "facade-get-allocates-before-a-value-is-found";

/// The path that it makes more expensive.
const SLOWED: &str = "get_hit";

/// By at least this share, or it would not show what it is there to show.
const PLANTED_SHARE: f64 = 0.05;

/// How counts are compared.
#[derive(clap::Args)]
pub(crate) struct Counting {
    /// Counts the instructions of the hot paths and compares them with `benches/counts/baseline.json`
    #[arg(long, group = "what")]
    ci: bool,
    /// Counts the instructions of the hot paths and makes them the baseline
    #[arg(long, group = "what")]
    record: bool,
    /// Shows that `--ci` passes without a planted fault of at least 5 % of a get, and fails with it
    #[arg(long, group = "what")]
    planted: bool,
}

impl Counting {
    /// Whether any of it is asked for.
    pub(crate) fn wanted(&self) -> bool {
        self.ci || self.record || self.planted
    }
}

/// Does the one thing that is asked for.
pub(crate) fn run(options: &Counting, into: Option<&Path>) -> Outcome {
    if options.planted {
        return planted();
    }
    let counts = Counts { toolchain: toolchain()?, paths: Program::Shipped.count()? };
    if let Some(document) = into {
        put_between_marks(&root().join(document), "counts", &counts.draw())?;
    }
    let path = baseline_path();
    if options.record {
        results::write(&path, &counts.to_json())?;
        println!("{}", Comparison::of(&counts.paths, &counts.paths).draw());
        println!("wrote {}", path.display());
        return Ok(());
    }
    let baseline = Counts::load(&path)?;
    let comparison = Comparison::of(&baseline.paths, &counts.paths);
    println!("{}", comparison.draw());
    println!("baseline: {}; now: {}", baseline.toolchain, counts.toolchain);
    comparable(&baseline.toolchain, &counts.toolchain)?;
    comparison.verdict()
}

/// The step of `cargo xtask ci`: compares where all that it takes is there already, and says so where it is not.
pub(crate) fn where_possible() -> Outcome {
    let not_here = |why: String| {
        println!("NOT COMPARED: instructions were not counted, for {why}. By hand: cargo xtask bench --ci");
        Ok(())
    };
    if tools::find(&["valgrind"]).is_none() {
        return not_here("there is no valgrind here (apt-get install valgrind)".to_string());
    }
    if tools::cargo_tool_if_there("gungraun-runner", GUNGRAUN).is_none() {
        return not_here(format!("gungraun-runner {GUNGRAUN} is not installed here and takes minutes to build"));
    }
    let differing = differences(&Counts::load(&baseline_path())?.toolchain, &toolchain()?);
    if !differing.is_empty() {
        return not_here(format!("the baseline is of {}", differing.join(", of ")));
    }
    run(&Counting { ci: true, record: false, planted: false }, None)
}

fn baseline_path() -> PathBuf {
    root().join("benches/counts/baseline.json")
}

/// Holds what is shipped, and the same with a fault, against the baseline.
fn planted() -> Outcome {
    let (baseline, here) = (Counts::load(&baseline_path())?, toolchain()?);
    comparable(&baseline.toolchain, &here)?;
    let without = Program::Shipped.count()?;
    let with = Program::Planted.count()?;
    println!("The committed baseline, {here}, beside this tree without and with the fault {PLANTED}:\n");
    println!("{}", draw_planted(&baseline.paths, &without, &with));
    println!("{}", closes(&baseline.paths, &without, &with)?);
    Ok(())
}

/// Says that the gate is open without the fault and closed with it.
///
/// # Errors
/// What of that is not so.
fn closes(baseline: &Costs, without: &Costs, with: &Costs) -> Outcome<String> {
    let unchanged = Comparison::of(baseline, without).verdict();
    unchanged.map_err(|failure| format!("the gate is closed without a fault: {failure}"))?;
    let of = |costs: &Costs| costs.get(SLOWED).copied();
    let size = change(of(without), of(with)).ok_or_else(|| format!("{SLOWED} was not counted"))?;
    if size < PLANTED_SHARE {
        return Err(format!(
            "{PLANTED} makes {SLOWED} execute {:.1} % more: too little to show anything",
            size * 100.0
        ));
    }
    match Comparison::of(baseline, with).verdict() {
        Err(failure) => Ok(format!(
            "without the fault: the gate PASSES\nwith the fault, {:.1} % of {SLOWED}: the gate FAILS: {failure}",
            size * 100.0
        )),
        Ok(()) => Err(format!("the gate is open with {PLANTED}, which is {:.1} % of {SLOWED}", size * 100.0)),
    }
}

fn draw_planted(baseline: &Costs, without: &Costs, with: &Costs) -> String {
    let mut text = "| path, instructions per operation | baseline | without | change | with | change |\n\
                    |---|---:|---:|---:|---:|---:|\n"
        .to_string();
    for (name, before) in baseline {
        let of = |costs: &Costs| {
            let now = costs.get(name).copied();
            format!("{} | {}", draw_instructions(now), draw_change(Some(*before), now))
        };
        let before = draw_instructions(Some(*before));
        text.push_str(&format!("| {name} | {before} | {} | {} |\n", of(without), of(with)));
    }
    text
}

/// What is built and counted.
#[derive(Clone, Copy)]
enum Program {
    Shipped,
    /// The same with [`PLANTED`] compiled in.
    Planted,
}

impl Program {
    /// Instructions per operation, by path.
    fn count(self) -> Outcome<Costs> {
        let runner = runner()?;
        let target = Workspace::load()?.target_dir;
        let mut command = cargo(&["bench", "--package", "counts", "--bench", "counts"]);
        let home = match self {
            Self::Shipped => target.join("counts"),
            Self::Planted => {
                with_rustflags(&mut command, "--cfg planted");
                command.arg("--target-dir").arg(target.join("planted"));
                command.env("LSM_MUTANT", PLANTED);
                target.join("planted/counts")
            }
        };
        command.args(["--", "--output-format=json", "--nosummary=true"]);
        command.env("GUNGRAUN_RUNNER", runner).env("GUNGRAUN_HOME", home);
        let paths = read_counts(&output_of(command)?)?;
        if paths.is_empty() {
            return Err("no path was counted".to_string());
        }
        Ok(paths)
    }
}

/// gungraun's runner, and the valgrind that it runs: installed if they are not there.
fn runner() -> Outcome<PathBuf> {
    tools::find_or_install(&["valgrind"], "valgrind")?;
    tools::cargo_tool("gungraun-runner", GUNGRAUN)
}

/// What one operation of a path costs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    instructions: f64,
    /// Reads and writes of data that the simulated first-level cache did not hold: a figure beside, not compared.
    misses: f64,
}

/// What gungraun prints: an object a line and path.
fn read_counts(text: &str) -> Outcome<Costs> {
    let mut paths = Costs::new();
    for line in text.lines().filter(|line| line.starts_with('{')) {
        let json: Value = serde_json::from_str(line).map_err(|error| format!("gungraun's output: {error}"))?;
        let shape = || format!("gungraun's output has another shape than expected: {line}");
        let name = json["function_name"].as_str().ok_or_else(shape)?;
        // The identity says how many operations a run makes.
        let operations = json["id"].as_str().and_then(|id| id.strip_prefix("per_")?.parse::<f64>().ok());
        let operations = operations.ok_or_else(shape)?;
        let metrics = &json["profiles"][0]["data"]["total"]["metrics"];
        let metric = |name: &str| metrics[name]["values"]["new"].as_f64().ok_or_else(shape);
        let (instructions, misses) = (metric("Ir")?, metric("D1mr")? + metric("D1mw")?);
        paths.insert(name.to_string(), Cost { instructions: instructions / operations, misses: misses / operations });
    }
    Ok(paths)
}

/// By the names of the paths.
type Costs = BTreeMap<String, Cost>;

/// Counts and what they were made with.
struct Counts {
    /// `rustc 1.95.0, valgrind 3.19.0, glibc 2.36, x86_64`.
    toolchain: String,
    /// Instructions per operation.
    paths: Costs,
}

impl Counts {
    fn load(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let paths = json["per_operation"].as_object().ok_or("the baseline holds no counts")?;
        let cost = |json: &Value| {
            Some(Cost { instructions: json["instructions"].as_f64()?, misses: json["l1_misses"].as_f64()? })
        };
        let paths = paths.iter().map(|(name, json)| Some((name.clone(), cost(json)?))).collect::<Option<Costs>>();
        let paths = paths.ok_or_else(|| format!("{}: a path without its counts", path.display()))?;
        Ok(Self { toolchain: json["toolchain"].as_str().unwrap_or_default().to_string(), paths })
    }

    fn to_json(&self) -> String {
        let rounded = |number: f64| (number * 10.0).round() / 10.0;
        let cost = |cost: &Cost| json!({"instructions": rounded(cost.instructions), "l1_misses": rounded(cost.misses)});
        let paths: BTreeMap<&str, Value> = self.paths.iter().map(|(name, it)| (name.as_str(), cost(it))).collect();
        let json = json!({"toolchain": self.toolchain, "per_operation": paths});
        format!("{json:#}\n")
    }

    /// For a document.
    fn draw(&self) -> String {
        let mut text = format!("{}.\n\n| path | instructions | L1 misses |\n|---|---:|---:|\n", self.toolchain);
        for (name, cost) in &self.paths {
            text.push_str(&format!("| `{name}` | {:.0} | {:.1} |\n", cost.instructions, cost.misses));
        }
        text
    }
}

/// Everything that a count depends on beside the source: `rustc 1.95.0, valgrind 3.19.0, glibc 2.36, x86_64`.
fn toolchain() -> Outcome<String> {
    let version_of = |program: &Path, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(arguments).current_dir(root());
        output_of(command)
    };
    let word = |text: &str, nth: usize| text.split_whitespace().nth(nth).unwrap_or("unknown").to_string();
    let rustc = word(&version_of(Path::new("rustc"), &["--version"])?, 1);
    // Asked once it is there: a fresh machine has none yet.
    let valgrind = version_of(&tools::find_or_install(&["valgrind"], "valgrind")?, &["--version"])?;
    let libc = version_of(Path::new("ldd"), &["--version"]).unwrap_or_default();
    let libc = libc.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("unknown").to_string();
    Ok(format!(
        "rustc {rustc}, valgrind {}, glibc {libc}, {}",
        valgrind.trim().trim_start_matches("valgrind-"),
        std::env::consts::ARCH
    ))
}

/// In what two toolchains differ: `rustc 1.95.0 and not rustc 1.96.0`.
fn differences(recorded: &str, here: &str) -> Vec<String> {
    let (recorded, here): (Vec<&str>, Vec<&str>) = (recorded.split(", ").collect(), here.split(", ").collect());
    if recorded.len() != here.len() {
        return vec![format!("{} and not {}", recorded.join(", "), here.join(", "))];
    }
    let differing = recorded.iter().zip(&here).filter(|(recorded, here)| recorded != here);
    differing.map(|(recorded, here)| format!("{recorded} and not {here}")).collect()
}

/// Whether counts of the two can be held against each other.
fn comparable(recorded: &str, here: &str) -> Outcome {
    let differing = differences(recorded, here);
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the baseline was recorded with {}: counts of two toolchains say nothing of the source. Take that one (cargo \
         +VERSION xtask bench --ci for the compiler), or record the baseline anew (--record) from a tree whose counts \
         are known to be good",
        differing.join(", ")
    ))
}

/// Counts before and now.
struct Comparison {
    /// Path, what it cost before, what it costs now.
    rows: Vec<(String, Option<Cost>, Option<Cost>)>,
}

impl Comparison {
    fn of(before: &Costs, now: &Costs) -> Self {
        let mut names: Vec<&String> = before.keys().chain(now.keys()).collect();
        names.sort();
        names.dedup();
        let row = |name: &String| (name.clone(), before.get(name).copied(), now.get(name).copied());
        Self { rows: names.into_iter().map(row).collect() }
    }

    fn draw(&self) -> String {
        let mut text = "| path, per operation | instructions before | now | change | L1 misses now |\n\
                        |---|---:|---:|---:|---:|\n"
            .to_string();
        for (name, before, now) in &self.rows {
            let (change, misses) =
                (draw_change(*before, *now), now.map_or("–".to_string(), |cost| format!("{:.1}", cost.misses)));
            let (before, now) = (draw_instructions(*before), draw_instructions(*now));
            text.push_str(&format!("| {name} | {before} | {now} | {change} | {misses} |\n"));
        }
        text
    }

    /// Whether the gate is open.
    fn verdict(&self) -> Outcome {
        let mut failures = Vec::new();
        for (name, before, now) in &self.rows {
            match (before, now) {
                (Some(_), None) => failures.push(format!("{name} is no longer counted")),
                (None, Some(_)) => failures.push(format!("{name} is not in the baseline (--record)")),
                _ => match change(*before, *now) {
                    Some(change) if change <= LIMIT => {}
                    Some(change) => failures.push(format!("{name} executes {:.1} % more", change * 100.0)),
                    None => failures.push(format!("{name} has no counts that can be compared")),
                },
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

/// The share by which `now` is above `before`.
fn change(before: Option<Cost>, now: Option<Cost>) -> Option<f64> {
    let (before, now) = (before?.instructions, now?.instructions);
    (before > 0.0 && now > 0.0).then(|| now / before - 1.0)
}

fn draw_instructions(cost: Option<Cost>) -> String {
    cost.map_or("–".to_string(), |cost| format!("{:.1}", cost.instructions))
}

/// What is above the limit is in bold.
fn draw_change(before: Option<Cost>, now: Option<Cost>) -> String {
    match change(before, now) {
        Some(change) if change > LIMIT => format!("**{:+.2} %**", change * 100.0),
        Some(change) => format!("{:+.2} %", change * 100.0),
        None => "–".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, f64)]) -> Costs {
        let cost = |instructions: &f64| Cost { instructions: *instructions, misses: 0.5 };
        of.iter().map(|(name, count)| (name.to_string(), cost(count))).collect()
    }

    #[test]
    fn three_per_cent_more_pass_and_anything_above_fails() {
        let before = counts(&[("get", 1000.0), ("insert", 2000.0)]);
        let verdict = |get, insert| Comparison::of(&before, &counts(&[("get", get), ("insert", insert)])).verdict();
        assert_eq!(verdict(1029.9, 2000.0), Ok(()));
        assert_eq!(verdict(500.0, 2059.9), Ok(()));
        assert!(verdict(1030.1, 2000.0).unwrap_err().contains("get executes 3.0 % more"));
        assert!(verdict(1000.0, 2100.0).unwrap_err().contains("insert executes 5.0 % more"));
    }

    #[test]
    fn a_path_that_only_one_side_has_fails() {
        let (one, two) = (counts(&[("get", 1.0)]), counts(&[("get", 1.0), ("next", 1.0)]));
        assert!(Comparison::of(&one, &two).verdict().unwrap_err().contains("not in the baseline"));
        assert!(Comparison::of(&two, &one).verdict().unwrap_err().contains("no longer counted"));
        assert!(Comparison::of(&counts(&[("get", 0.0)]), &one).verdict().is_err());
    }

    #[test]
    fn a_planted_fault_shows_something_only_if_the_gate_is_open_without_it_and_closed_with_it() {
        let baseline = counts(&[("get_hit", 1000.0), ("insert", 2000.0)]);
        let judged = |without, with| {
            let tree = |get| counts(&[("get_hit", get), ("insert", 2000.0)]);
            closes(&baseline, &tree(without), &tree(with))
        };
        let said = judged(1000.0, 1050.0).unwrap();
        assert!(said.contains("5.0 % of get_hit: the gate FAILS: get_hit executes 5.0 % more"), "{said}");
        assert!(judged(1031.0, 1100.0).unwrap_err().contains("closed without a fault: get_hit executes 3.1 % more"));
        assert!(judged(1000.0, 1049.0).unwrap_err().contains("too little"));
        // Below the baseline by so much that a fault of 5 % stays below the limit: the baseline is to be recorded anew.
        assert!(judged(970.0, 1020.0).unwrap_err().contains("the gate is open"));
        assert!(planted_faults::FAULTS.iter().any(|fault| fault.name == PLANTED));
    }

    #[test]
    fn counts_of_another_compiler_valgrind_or_library_are_not_compared() {
        let recorded = "rustc 1.95.0, valgrind 3.19.0, glibc 2.36, x86_64";
        assert_eq!(comparable(recorded, recorded), Ok(()));
        let other = comparable(recorded, "rustc 1.95.0, valgrind 3.22.0, glibc 2.39, x86_64").unwrap_err();
        assert!(other.contains("valgrind 3.19.0 and not valgrind 3.22.0, glibc 2.36 and not glibc 2.39:"), "{other}");
        assert!(comparable(recorded, "rustc 1.96.0, valgrind 3.19.0, glibc 2.36, x86_64").is_err());
        assert!(comparable("", recorded).is_err());
    }

    #[test]
    fn what_gungraun_prints_is_divided_by_the_operations_of_a_run() {
        let metric = |value: u64| json!({"values": {"new": value}});
        let metrics = json!({"Ir": metric(2_593_000), "D1mr": metric(9000), "D1mw": metric(1000)});
        let mut line =
            json!({"function_name": "get", "id": "per_2000", "profiles": [{"data": {"total": {"metrics": metrics}}}]});
        let costs = read_counts(&format!("a line of chatter\n{line}\n")).unwrap();
        assert_eq!(costs["get"], Cost { instructions: 1296.5, misses: 5.0 });
        line["id"] = json!("warm");
        assert!(read_counts(&line.to_string()).is_err());
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let written = Counts { toolchain: "rustc 1.95.0, valgrind 3".into(), paths: counts(&[("get", 10.04)]) };
        let dir = std::env::temp_dir().join(format!("baseline-{}.json", std::process::id()));
        std::fs::write(&dir, written.to_json()).unwrap();
        let read = Counts::load(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!((read.toolchain.as_str(), &read.paths), ("rustc 1.95.0, valgrind 3", &counts(&[("get", 10.0)])));
    }
}
