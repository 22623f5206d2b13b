//! `--check-page`: does a browser draw every row of the page?
//!
//! The page is made from sample lines by the same steps as any other, opened in a headless Chromium, and what the
//! browser made of it is read back: the plots are drawn by the page's program, so they are there only if it ran.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::results::Lab;
use super::summary::Summary;
use super::{machine, markdown, page, results};
use crate::shell::{Outcome, output_of, root};
use crate::tools;

/// What the browser is called, here and there.
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Checks a page of sample results; where no browser can be had, says so and fails.
pub(crate) fn check_page() -> Outcome {
    let browser = tools::find_or_install(BROWSERS, "chromium")?;
    check_with(&browser)
}

/// The step of `cargo xtask ci`: checks where a browser is there already, and says so where none is.
pub(crate) fn check_where_possible() -> Outcome {
    match tools::find(BROWSERS) {
        Some(browser) => check_with(&browser),
        None => {
            println!("NOT CHECKED: there is no browser here. By hand: cargo xtask bench --check-page");
            Ok(())
        }
    }
}

fn check_with(browser: &Path) -> Outcome {
    let dir = root().join("target/bench/sample");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    write_sample(&dir)?;
    let summary = Summary::of(&Lab::load(&dir)?);
    results::write(&dir.join("results.md"), &markdown::draw(&summary))?;
    let path = dir.join("index.html");
    results::write(&path, &page::draw(&summary)?)?;
    let drawn = open(browser, &path, &dir.join("profile"))?;
    let wanted = Drawn {
        plots: summary.rows.len(),
        bars: summary.rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.figures.is_some()).count(),
    };
    let found = Drawn::count(&drawn);
    println!("{}: {} plots, {} bars", path.display(), found.plots, found.bars);
    if found != wanted {
        return Err(format!("the browser drew {found:?}, and not {wanted:?}"));
    }
    if let Some(row) = summary.rows.iter().find(|row| !drawn.contains(&format!("aria-label=\"{}\"", row.name))) {
        return Err(format!("the browser drew no plot of `{}`", row.name));
    }
    // A page whose program fails must not pass: the same check on a broken one.
    let broken = page::draw(&summary)?.replace("\nrows();", "\nthrow new Error(\"planted\");");
    let path = dir.join("broken.html");
    results::write(&path, &broken)?;
    let found = Drawn::count(&open(browser, &path, &dir.join("profile"))?);
    if found.plots != 0 {
        return Err(format!("a page whose program fails shows {} plots: the check sees nothing", found.plots));
    }
    println!("a page whose program fails is noticed");
    Ok(())
}

/// What stands in a document.
#[derive(Debug, PartialEq, Eq)]
struct Drawn {
    plots: usize,
    bars: usize,
}

impl Drawn {
    fn count(document: &str) -> Self {
        // The program's text stands in the document as well: it is no drawing.
        let body = document.split("<script>").next().unwrap_or_default();
        let after = document.rsplit("</script>").next().unwrap_or_default();
        let count = |what: &str| body.matches(what).count() + after.matches(what).count();
        Self { plots: count("<svg class=\"plot\""), bars: count("<rect class=\"bar\"") }
    }
}

/// The document as it stands after the browser ran its program.
fn open(browser: &Path, page: &Path, profile: &Path) -> Outcome<String> {
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--virtual-time-budget=2000",
        "--log-level=3",
        "--dump-dom",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(format!("file://{}", page.display()));
    output_of(command)
}

/// Lines as the lab prints them: rates, times and factors, a row that did not finish, one that an engine has not, one
/// that failed, and a text that would end a script.
fn write_sample(dir: &Path) -> Outcome {
    let engines = ["lsm", "rocksdb", "fjall", "surrealkv", "heed-lmdb", "redb", "sled"];
    let units =
        [("fill-random", "ops"), ("scan-forward", "rows"), ("batch-100", "puts"), ("open", "ms"), ("space", "x")];
    let mut rows: Vec<Value> = Vec::new();
    let mut lines = String::new();
    for (number, (name, unit)) in (0..).zip(units.iter().chain(&[("read-while-writing", "ops")])) {
        rows.push(json!({"name": name, "description": format!("Sample {number} </script> & \"more\".")}));
        for (at, engine) in (0..).zip(&engines) {
            for round in 1..=3_u32 {
                let size = f64::from(1000 * (number + 1) + 700 * at + 50 * round);
                let rate = !matches!(*unit, "ms" | "x");
                let mut line = json!({
                    "engine": engine, "row": name, "round": round, "unit": unit, "finished": at != 5,
                    "per_second": rate.then_some(size * 100.0), "value": (!rate).then_some(size / 500.0),
                    "writer_per_second": (*name == "read-while-writing").then_some(size),
                    "latency_ns": {"p50": 300.0 + size, "p90": 2.0 * size, "p99": 9.0 * size, "p999": 30.0 * size, "max": 4000.0 * size},
                    "cpu_seconds": size / 800.0, "written_bytes": size * 9e4, "anonymous_peak_bytes": size * 7e4,
                    "file_peak_bytes": size * 5e4, "live_bytes": size * 2e4, "total_bytes": size * 3e4, "threads": 1,
                    "date": machine::date(), "machine": "a sample, measured nowhere", "load": 0.5,
                });
                if at == 6 && *unit == "ms" {
                    line =
                        json!({"engine": engine, "row": name, "round": round, "unsupported": "it has no such thing"});
                }
                if at == 3 && *unit == "x" {
                    line = json!({"engine": engine, "row": name, "round": round, "failed": "a wrong <value>"});
                }
                lines.push_str(&format!("{line}\n"));
            }
        }
    }
    let about = json!({
        "engines": engines, "rows": rows, "keys": 1000, "compression": "none", "seconds": 1, "rounds": 3,
        "settings": "| engine | settings |\n|---|---|\n| sample | none |\n",
    });
    results::write(&dir.join("lab.json"), &about.to_string())?;
    results::write(&PathBuf::from(dir).join("results.jsonl"), &lines)
}
