//! Medians, spreads and ratios: what the tables and the page say of the lines.

use serde_json::{Value, json};

use super::results::Lab;

/// Our engine, as the lab calls it.
pub(crate) const OURS: &str = "lsm";

/// The peers that are log-structured merge trees as well: to be ahead of them is the first aim.
const LOG_STRUCTURED: &[&str] = &["rocksdb", "fjall", "surrealkv"];

/// All rows, in the lab's order.
#[derive(Debug)]
pub(crate) struct Summary {
    /// What `lab.json` says.
    pub(crate) about: Value,
    /// The machines that lines were measured on; more than one is a reason for doubt.
    pub(crate) machines: Vec<String>,
    /// First and last date.
    pub(crate) dates: (String, String),
    /// Lowest and highest load before a measurement.
    pub(crate) load: (f64, f64),
    /// The commits that lines are of, with their lines; more than one is a reason for doubt.
    pub(crate) commits: Vec<Commit>,
    /// The most rounds that anything was measured in.
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<Row>,
}

/// What was measured of one state of the source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// What it is called; a `+` at the end says that it was changed.
    pub(crate) name: String,
    /// Measurements.
    pub(crate) lines: usize,
    /// The rows that they are of, in the lab's order.
    pub(crate) rows: Vec<String>,
}

/// One row: what every engine did.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) description: String,
    /// `ops`, `rows` or `puts` (a second), `ms`, `x`.
    pub(crate) unit: String,
    /// Times and factors: the lower the better.
    pub(crate) lower_is_better: bool,
    /// In the lab's order of engines, those that have a line.
    pub(crate) cells: Vec<Cell>,
}

/// What one engine did in one row.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) engine: String,
    /// Median, least and most of the rounds; `None` if nothing was measured.
    pub(crate) figures: Option<Figures>,
    /// Why nothing was measured, or what failed.
    pub(crate) reason: Option<String>,
    /// Whether some round did not finish in its time.
    pub(crate) unfinished: bool,
    /// Rounds that were measured.
    pub(crate) rounds: usize,
    /// Medians of everything else that a line says in numbers, by its name.
    pub(crate) details: Value,
}

/// The middle, and how far the rounds lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Figures {
    /// Of at least one value.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Self { median, min, max })
    }
}

impl Row {
    fn cell(&self, engine: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.engine == engine)
    }

    /// Whether an engine that did not finish has no figure to compare. A factor is of the work that was done: half of it
    /// takes less space, and is merged less often. A rate or a time is one all the same.
    fn is_incomparable(&self, cell: &Cell) -> bool {
        self.unit == "x" && cell.unfinished && cell.figures.is_some()
    }

    /// The engines that are left out of the comparisons, ours as well.
    pub(crate) fn left_out(&self) -> Vec<&str> {
        self.cells.iter().filter(|cell| self.is_incomparable(cell)).map(|cell| cell.engine.as_str()).collect()
    }

    /// The same, of the log-structured ones and ours.
    pub(crate) fn left_out_log_structured(&self) -> Vec<&str> {
        let mut names = self.left_out();
        names.retain(|engine| *engine == OURS || LOG_STRUCTURED.contains(engine));
        names
    }

    /// The best of the engines that `may` take part, ours left out: its name and its median.
    fn best(&self, may: impl Fn(&str) -> bool) -> Option<(&str, f64)> {
        let measured = self.cells.iter().filter(|cell| cell.engine != OURS && may(&cell.engine));
        let measured = measured.filter(|cell| !self.is_incomparable(cell));
        let measured = measured.filter_map(|cell| Some((cell.engine.as_str(), cell.figures?.median)));
        if self.lower_is_better {
            measured.min_by(|left, right| left.1.total_cmp(&right.1))
        } else {
            measured.max_by(|left, right| left.1.total_cmp(&right.1))
        }
    }

    /// How many times as good ours is as the best of some peers: above one, ours is ahead, whatever the unit.
    fn ratio(&self, best: Option<(&str, f64)>) -> Option<f64> {
        let ours = self.cell(OURS).filter(|cell| !self.is_incomparable(cell))?.figures?.median;
        let (_, best) = best?;
        let ratio = if self.lower_is_better { best / ours } else { ours / best };
        ratio.is_finite().then_some(ratio)
    }

    /// The best log-structured peer and our ratio to it.
    pub(crate) fn beside_log_structured(&self) -> Option<(&str, f64)> {
        let best = self.best(|engine| LOG_STRUCTURED.contains(&engine));
        Some((best?.0, self.ratio(best)?))
    }

    /// The best peer of all and our ratio to it.
    pub(crate) fn beside_all(&self) -> Option<(&str, f64)> {
        let best = self.best(|_| true);
        Some((best?.0, self.ratio(best)?))
    }
}

impl Summary {
    /// Sums the lines up.
    pub(crate) fn of(lab: &Lab) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let strings = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
        let engines = strings(&lab.about["engines"]);
        let mut rows = Vec::new();
        for about in lab.about["rows"].as_array().into_iter().flatten() {
            let name = text(&about["name"]);
            let of_row: Vec<&Value> = lab.lines.iter().filter(|line| line["row"] == name.as_str()).collect();
            if of_row.is_empty() {
                continue;
            }
            let unit = of_row.iter().find_map(|line| line["unit"].as_str()).unwrap_or("ops").to_string();
            let cells = engines.iter().filter_map(|engine| {
                let lines: Vec<&Value> =
                    of_row.iter().copied().filter(|line| line["engine"] == engine.as_str()).collect();
                (!lines.is_empty()).then(|| cell(engine, &lines))
            });
            let cells = cells.collect();
            let lower_is_better = matches!(unit.as_str(), "ms" | "x");
            rows.push(Row { name, description: text(&about["description"]), unit, lower_is_better, cells });
        }
        let said = |name: &str| lab.lines.iter().filter_map(|line| line[name].as_str()).map(str::to_string).collect();
        let mut machines: Vec<String> = said("machine");
        machines.sort();
        machines.dedup();
        let mut dates: Vec<String> = said("date");
        dates.sort();
        let dates = (dates.first().cloned().unwrap_or_default(), dates.last().cloned().unwrap_or_default());
        let loads = Figures::of(lab.lines.iter().filter_map(|line| line["load"].as_f64()).collect());
        let load = loads.map_or((0.0, 0.0), |loads| (loads.min, loads.max));
        let rounds = rows.iter().flat_map(|row: &Row| &row.cells).map(|cell| cell.rounds).max().unwrap_or(0);
        let commits = commits(&lab.lines, &rows);
        Self { about: lab.about.clone(), machines, dates, load, commits, rounds, rows }
    }

    /// Which source was measured, in a sentence.
    pub(crate) fn source(&self) -> String {
        match &self.commits[..] {
            [] => "Source: nothing was measured.".to_string(),
            [one] => format!("Source: {}.", one.says()),
            several => {
                let all: usize = several.iter().map(|commit| commit.lines).sum();
                let each: Vec<String> = several
                    .iter()
                    .map(|commit| {
                        let rows = match commit.rows.len() {
                            ..=FEW_ROWS => commit.rows.join(", "),
                            count => format!("{count} rows"),
                        };
                        format!("{} ({} of {all} measurements: {rows})", commit.says(), commit.lines)
                    })
                    .collect();
                format!("NOT OF ONE SOURCE: {}.", each.join("; "))
            }
        }
    }

    /// What the page draws from.
    pub(crate) fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(row_json).collect();
        json!({
            "about": self.about, "machines": self.machines, "dates": [self.dates.0, self.dates.1],
            "load": [self.load.0, self.load.1], "ours": OURS, "logStructured": LOG_STRUCTURED, "rows": rows,
            "rounds": self.rounds, "source": self.source(),
        })
    }
}

/// So many rows are named, more are only counted.
const FEW_ROWS: usize = 8;

impl Commit {
    fn says(&self) -> String {
        match self.name.strip_suffix('+') {
            Some(name) => format!("commit {name} with changes"),
            None if self.name == "unknown" => "an unknown commit".to_string(),
            None => format!("commit {}", self.name),
        }
    }
}

/// Lines by commit, in the order in which commits came first.
fn commits(lines: &[Value], rows: &[Row]) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    for line in lines {
        let name = line["commit"].as_str().unwrap_or("unknown");
        let at = commits.iter().position(|commit| commit.name == name).unwrap_or_else(|| {
            commits.push(Commit { name: name.to_string(), lines: 0, rows: Vec::new() });
            commits.len() - 1
        });
        commits[at].lines += 1;
        let row = line["row"].as_str().unwrap_or_default();
        if !commits[at].rows.iter().any(|name| name == row) {
            commits[at].rows.push(row.to_string());
        }
    }
    for commit in &mut commits {
        commit.rows.sort_by_key(|name| rows.iter().position(|row| row.name == *name));
    }
    commits
}

fn row_json(row: &Row) -> Value {
    let ratio = |beside: Option<(&str, f64)>| beside.map(|(engine, ratio)| json!({"engine": engine, "ratio": ratio}));
    let cells = row.cells.iter().map(|cell| {
        json!({
            "engine": cell.engine, "reason": cell.reason, "unfinished": cell.unfinished, "rounds": cell.rounds,
            "median": cell.figures.map(|it| it.median), "min": cell.figures.map(|it| it.min),
            "max": cell.figures.map(|it| it.max), "details": cell.details,
        })
    });
    json!({
        "name": row.name, "description": row.description, "unit": row.unit, "lowerIsBetter": row.lower_is_better,
        "besideLogStructured": ratio(row.beside_log_structured()), "besideAll": ratio(row.beside_all()),
        "leftOutLogStructured": row.left_out_log_structured(), "leftOut": row.left_out(),
        "cells": cells.collect::<Vec<_>>(),
    })
}

/// Figures beside the main one whose medians are kept.
const DETAILS: &[&str] = &[
    "writer_per_second",
    "cpu_seconds",
    "written_bytes",
    "anonymous_peak_bytes",
    "file_peak_bytes",
    "live_bytes",
    "total_bytes",
    "seconds",
    "operations",
    "threads",
];

/// Percentiles of the latencies.
const LATENCIES: &[&str] = &["p50", "p90", "p99", "p999", "max"];

fn cell(engine: &str, lines: &[&Value]) -> Cell {
    let figure = |line: &Value| line["per_second"].as_f64().or_else(|| line["value"].as_f64());
    let measured: Vec<&Value> = lines.iter().copied().filter(|line| figure(line).is_some()).collect();
    let mut details = serde_json::Map::new();
    for name in DETAILS {
        let values = measured.iter().filter_map(|line| line[name].as_f64()).collect();
        details.insert((*name).to_string(), json!(Figures::of(values).map(|it| it.median)));
    }
    for name in LATENCIES {
        let values = measured.iter().filter_map(|line| line["latency_ns"][name].as_f64()).collect();
        details.insert((*name).to_string(), json!(Figures::of(values).map(|it| it.median)));
    }
    let said = |name: &str| lines.iter().find_map(|line| line[name].as_str());
    // A wrong answer is said before anything else: figures beside it are worth nothing.
    let reason = said("failed").or_else(|| said("unsupported")).or_else(|| said("unavailable"));
    let failed = said("failed").is_some();
    let figures = if failed { None } else { Figures::of(measured.iter().filter_map(|line| figure(line)).collect()) };
    Cell {
        engine: engine.to_string(),
        figures,
        reason: reason.map(str::to_string).filter(|_| figures.is_none()),
        unfinished: measured.iter().any(|line| line["finished"] == false),
        rounds: measured.len(),
        details: Value::Object(details),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(rows: &[&str], lines: Vec<Value>) -> Lab {
        let rows: Vec<Value> = rows.iter().map(|name| json!({"name": name, "description": ""})).collect();
        Lab { about: json!({"engines": ["lsm", "rocksdb", "heed-lmdb"], "rows": rows}), lines }
    }

    fn rate(engine: &str, round: u64, per_second: f64) -> Value {
        json!({"engine": engine, "row": "r", "round": round, "unit": "ops", "per_second": per_second})
    }

    #[test]
    fn the_middle_of_an_even_number_of_rounds_lies_between_two() {
        assert_eq!(Figures::of(vec![4.0, 1.0, 3.0]), Some(Figures { median: 3.0, min: 1.0, max: 4.0 }));
        assert_eq!(Figures::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
        assert_eq!(Figures::of(vec![]), None);
    }

    #[test]
    fn ours_is_compared_with_the_best_of_its_kind_and_the_best_of_all() {
        let lines = vec![rate("lsm", 1, 20.0), rate("rocksdb", 1, 10.0), rate("heed-lmdb", 1, 40.0)];
        let summary = Summary::of(&lab(&["r"], lines));
        assert_eq!(summary.rows[0].beside_log_structured(), Some(("rocksdb", 2.0)));
        assert_eq!(summary.rows[0].beside_all(), Some(("heed-lmdb", 0.5)));
    }

    #[test]
    fn of_times_the_lower_is_the_better() {
        let time = |engine: &str, value: f64| json!({"engine": engine, "row": "r", "round": 1, "unit": "ms", "per_second": null, "value": value});
        let summary = Summary::of(&lab(&["r"], vec![time("lsm", 5.0), time("rocksdb", 10.0), time("heed-lmdb", 1.0)]));
        assert_eq!(summary.rows[0].beside_log_structured(), Some(("rocksdb", 2.0)));
        assert_eq!(summary.rows[0].beside_all(), Some(("heed-lmdb", 0.2)));
    }

    #[test]
    fn a_factor_of_unfinished_work_is_compared_with_nothing_and_a_rate_is() {
        let factor = |engine: &str, value: f64, finished: bool| json!({"engine": engine, "row": "r", "round": 1, "unit": "x", "per_second": null, "value": value, "finished": finished});
        let summary = |ours: bool, theirs: bool| {
            let lines = vec![factor("lsm", 2.0, ours), factor("rocksdb", 1.0, theirs), factor("heed-lmdb", 3.0, true)];
            Summary::of(&lab(&["r"], lines)).rows.remove(0)
        };
        assert_eq!(summary(true, true).beside_all(), Some(("rocksdb", 0.5)));
        assert!(summary(true, true).left_out().is_empty());
        let row = summary(true, false);
        assert_eq!(row.beside_all(), Some(("heed-lmdb", 1.5)));
        assert_eq!((row.beside_log_structured(), row.left_out_log_structured()), (None, vec!["rocksdb"]));
        let row = summary(false, true);
        assert_eq!((row.beside_all(), row.left_out()), (None, vec!["lsm"]));
        let mut slow = rate("rocksdb", 1, 10.0);
        slow["finished"] = json!(false);
        let rates = Summary::of(&lab(&["r"], vec![rate("lsm", 1, 20.0), slow]));
        assert_eq!(rates.rows[0].beside_all(), Some(("rocksdb", 2.0)));
        assert!(rates.rows[0].left_out().is_empty());
    }

    #[test]
    fn lines_of_several_commits_are_told_apart() {
        let of = |mut line: Value, commit: &str| {
            line["commit"] = json!(commit);
            line
        };
        let one = vec![of(rate("lsm", 1, 1.0), "abc"), of(rate("rocksdb", 1, 1.0), "abc")];
        assert_eq!(Summary::of(&lab(&["r"], one.clone())).source(), "Source: commit abc.");
        let mut two = one;
        two.extend([of(rate("lsm", 2, 1.0), "def+"), rate("lsm", 3, 1.0)]);
        let summary = Summary::of(&lab(&["r"], two));
        assert_eq!(
            summary.source(),
            "NOT OF ONE SOURCE: commit abc (2 of 4 measurements: r); commit def with changes (1 of 4 measurements: r); \
             an unknown commit (1 of 4 measurements: r)."
        );
        assert_eq!(summary.rounds, 3);
        assert_eq!(summary.rows[0].cells.iter().map(|cell| cell.rounds).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn an_engine_that_failed_once_has_no_figure() {
        let wrong = json!({"engine": "lsm", "row": "r", "round": 2, "failed": "a wrong value"});
        let summary = Summary::of(&lab(&["r", "never run"], vec![rate("lsm", 1, 1.0), wrong, rate("rocksdb", 1, 1.0)]));
        assert_eq!(summary.rows.len(), 1);
        assert_eq!(summary.rows[0].cells[0].figures, None);
        assert_eq!(summary.rows[0].cells[0].reason.as_deref(), Some("a wrong value"));
        assert_eq!(summary.rows[0].beside_all(), None);
    }
}
