//! `--check-page`: does a browser draw every row of the page?
//!
//! ```text
//!   rows of the lab, by its source ─▶ sample lines ─┐
//!   results that were measured ─────────────────────┴▶ index.html ─▶ headless Chromium ─▶ a plot for each row?
//! ```
//!
//! The sample's page is made by the same steps as any other; what a browser made of it is read back: the plots are drawn
//! by the page's program, so they are there only if it ran.

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

/// The page's last step, which draws the rows: stands in it once.
const DRAWS_ROWS: &str = "\nrows();";

/// Checks the page of a directory of results, or one of sample results; where no browser can be had, says so and fails.
pub(crate) fn check_page(of: Option<&Path>) -> Outcome {
    let browser = tools::find_or_install(BROWSERS, "chromium")?;
    match of {
        // A browser wants to know where a page lies from the root on.
        Some(dir) => check(&browser, &dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?),
        None => check_sample(&browser),
    }
}

/// The step of `cargo xtask ci`: checks where a browser is there already, and says so where none is.
pub(crate) fn check_where_possible() -> Outcome {
    match tools::find(BROWSERS) {
        Some(browser) => check_sample(&browser),
        None => {
            println!("NOT CHECKED: there is no browser here. By hand: cargo xtask bench --check-page");
            Ok(())
        }
    }
}

fn check_sample(browser: &Path) -> Outcome {
    let dir = root().join("target/bench/sample");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    write_sample(&dir, &rows_of_the_lab()?)?;
    let summary = Summary::of(&Lab::load(&dir)?);
    results::write(&dir.join("results.md"), &markdown::draw(&summary))?;
    results::write(&dir.join("index.html"), &page::draw(&summary)?)?;
    check(browser, &dir)
}

/// Opens `index.html` of the directory, and the same broken: the first must show every row, the second none.
fn check(browser: &Path, dir: &Path) -> Outcome {
    let lab = Lab::load(dir)?;
    let summary = Summary::of(&lab);
    let names: Vec<&str> =
        lab.about["rows"].as_array().into_iter().flatten().filter_map(|row| row["name"].as_str()).collect();
    let wanted = Drawn {
        plots: names.len(),
        bars: summary.rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.figures.is_some()).count(),
    };
    let page = dir.join("index.html");
    let text = std::fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
    // What the browser leaves behind, and the broken page, do not belong beside results.
    let aside = root().join("target/bench/browser");
    let drawn = open(browser, &page, &aside)?;
    let found = Drawn::count(&drawn);
    println!("{}: {} plots, {} bars", page.display(), found.plots, found.bars);
    if let Some(name) = names.iter().find(|name| !drawn.contains(&format!("aria-label=\"{name}\""))) {
        return Err(format!("the browser drew no plot of `{name}`: {found:?}, and not {wanted:?}"));
    }
    if found != wanted {
        return Err(format!("the browser drew {found:?}, and not {wanted:?}"));
    }
    // A page whose program fails must not pass: the same check on a broken one.
    if text.matches(DRAWS_ROWS).count() != 1 {
        return Err(format!("{} has no `{}` to break", page.display(), DRAWS_ROWS.trim()));
    }
    let broken = aside.join("broken.html");
    results::write(&broken, &text.replace(DRAWS_ROWS, "\nthrow new Error(\"planted\");"))?;
    let found = Drawn::count(&open(browser, &broken, &aside)?);
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
fn open(browser: &Path, page: &Path, aside: &Path) -> Outcome<String> {
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
    command
        .arg(format!("--user-data-dir={}", aside.join("profile").display()))
        .arg(format!("file://{}", page.display()));
    output_of(command)
}

/// Where the lab's rows are written down.
const ROWS: &str = "benches/peers/src/rows";

/// Name and description of every row, in the lab's order, read in its source: the lab itself takes minutes to build, with
/// every peer in it.
fn rows_of_the_lab() -> Outcome<Vec<(String, String)>> {
    let read = |name: &str| {
        let path = root().join(ROWS).join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut rows = Vec::new();
    for theme in between(&read("mod.rs")?, "rows.extend(", "::rows());") {
        let file = format!("{theme}.rs");
        let found = rows_in(&read(&file)?).ok_or_else(|| format!("{ROWS}/{file}: a row without its name"))?;
        rows.extend(found);
    }
    if rows.is_empty() { Err(format!("{ROWS}/mod.rs names no rows")) } else { Ok(rows) }
}

/// The name and the description of each call of `row`; `None` if one is written in another way than with two literals.
fn rows_in(source: &str) -> Option<Vec<(String, String)>> {
    let literal = |text: &str| {
        let (literal, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
        Some((literal.to_string(), rest.trim_start().strip_prefix(',')?.to_string()))
    };
    // A call stands behind a blank or a bracket: `fn row(` is declared elsewhere, `fn throw(` is another word.
    let calls = source.match_indices("row(").filter(|(at, _)| source[..*at].ends_with([' ', '[', '\n']));
    calls
        .map(|(at, call)| {
            let (name, rest) = literal(&source[at + call.len()..])?;
            Some((name, literal(&rest)?.0))
        })
        .collect()
}

/// What stands between the two texts, wherever they follow each other within a line.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.split_once(before)?.1.split_once(after)).map(|(found, _)| found).collect()
}

/// Lines as the lab prints them, of every row: rates, times and factors, a row that did not finish, one that an engine has
/// not, one that failed, one with fewer rounds, several commits, and a text that would end a script.
fn write_sample(dir: &Path, names: &[(String, String)]) -> Outcome {
    let engines = ["lsm", "rocksdb", "fjall", "surrealkv", "heed-lmdb", "redb", "sled"];
    let mut rows: Vec<Value> = Vec::new();
    let mut lines = String::new();
    for (number, (name, description)) in (0..).zip(names) {
        rows.push(json!({"name": name, "description": format!("{description} </script> & \"more\".")}));
        let unit = match name.as_str() {
            name if name.starts_with("open") => "ms",
            name if name.starts_with("space") || name.starts_with("write-amplification") => "x",
            name if name.starts_with("scan") => "rows",
            _ => "ops",
        };
        for (at, engine) in (0..).zip(&engines) {
            for round in 1..=3_u32 {
                let size = f64::from(1000 * (number + 1) + 700 * at + 50 * round);
                let rate = !matches!(unit, "ms" | "x");
                let mut line = json!({
                    "engine": engine, "row": name, "round": round, "unit": unit, "finished": at != 5,
                    "per_second": rate.then_some(size * 100.0), "value": (!rate).then_some(size / 500.0),
                    "writer_per_second": (*name == "read-while-writing").then_some(size),
                    "latency_ns": {"p50": 300.0 + size, "p90": 2.0 * size, "p99": 9.0 * size, "p999": 30.0 * size, "max": 4000.0 * size},
                    "cpu_seconds": size / 800.0, "written_bytes": size * 9e4, "anonymous_peak_bytes": size * 7e4,
                    "file_peak_bytes": size * 5e4, "live_bytes": size * 2e4, "total_bytes": size * 3e4, "threads": 1,
                    "date": machine::date(), "machine": "a sample, measured nowhere", "load": 0.5,
                });
                if at == 6 && unit == "ms" {
                    line =
                        json!({"engine": engine, "row": name, "round": round, "unsupported": "it has no such thing"});
                }
                if at == 3 && unit == "x" {
                    line = json!({"engine": engine, "row": name, "round": round, "failed": "a wrong <value>"});
                }
                line["commit"] = json!(if round == 3 { "1234567890+" } else { "1234567890" });
                if at != 4 || round < 3 {
                    lines.push_str(&format!("{line}\n"));
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_has_every_row_of_the_lab_once() {
        let rows = rows_of_the_lab().unwrap();
        let mut names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names.first(), names.last()), (Some(&"fill-sequential"), Some(&"keyspaces")), "the lab's order");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        // Every file of the lab's rows takes part.
        let files = std::fs::read_dir(root().join(ROWS)).unwrap().count();
        let themes = between(&std::fs::read_to_string(root().join(ROWS).join("mod.rs")).unwrap(), "mod ", ";").len();
        assert!(
            files > 5 && themes + 1 == files && rows.len() >= 46,
            "{files} files, {themes} themes, {} rows",
            rows.len()
        );
    }

    #[test]
    fn a_row_is_read_however_it_is_laid_out_and_one_without_a_name_is_an_error() {
        let source = "vec![row(\"get\", \"Reads.\", f), row(\n    \"scan\",\n    \"All.\",\n    g,\n), throw(\"x\")]";
        let row = |name: &str, says: &str| (name.to_string(), says.to_string());
        assert_eq!(rows_in(source), Some(vec![row("get", "Reads."), row("scan", "All.")]));
        assert_eq!(rows_in("[row(NAME, \"Reads.\", f)]"), None);
    }
}
