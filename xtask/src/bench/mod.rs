//! `bench`: what the engine costs, beside every peer, and in instructions.
//!
//! ```text
//!   bench --peers   ─▶ lab run, a process for each (engine, row, round) ─▶ results.jsonl ─▶ results.md, index.html
//!   bench --report-only ─────────────────────────────────────────────────▶ the same, from the lines that are there
//!   bench --check-page  ─▶ a sample of every row, or a page that was measured ─▶ headless browser ─▶ is every row drawn?
//!   bench --ci      ─▶ callgrind over benches/counts ─▶ beside baseline.json: at most 3 % more, or it fails
//!   bench --planted ─▶ the same, without and with a fault of at least 5 % of a get ─▶ does it pass, and fail?
//!   bench --limits  ─▶ what the machine can do at best
//! ```
//!
//! One file a step; the measuring itself is done by the programs in `benches/`.

pub(crate) mod browser;
pub(crate) mod counts;
mod lab;
mod limits;
mod machine;
mod markdown;
mod page;
mod results;
mod summary;

use std::path::PathBuf;

use crate::shell::{Outcome, root};

/// How `bench` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Measures the engine and its peers, and writes the report
    #[arg(long, group = "what")]
    peers: bool,
    /// Writes the report anew from the results that are there
    #[arg(long, group = "what")]
    report_only: bool,
    /// Opens a page in a headless browser and counts what it draws: a sample that has every row of the lab, or the page
    /// of this directory of results
    #[arg(long, group = "what", value_name = "DIRECTORY")]
    check_page: Option<Option<PathBuf>>,
    /// Measures what the machine can do at best: copies, misses, syncs, page-cache reads
    #[arg(long, group = "what")]
    limits: bool,
    #[command(flatten)]
    counting: counts::Counting,
    #[command(flatten)]
    lab: lab::Measuring,
    /// Also puts the tables between the two marks of this Markdown file, relative to the workspace's root
    #[arg(long)]
    into: Option<PathBuf>,
}

/// Does the one thing that is asked for.
pub(crate) fn run(options: &Options) -> Outcome {
    if let Some(results) = &options.check_page {
        return browser::check_page(results.as_deref());
    }
    if options.counting.wanted() {
        return counts::run(&options.counting, options.into.as_deref());
    }
    if options.limits {
        return limits::run(options.into.as_deref());
    }
    let out = options.lab.out();
    if options.peers {
        if let Some(document) = &options.into {
            // Before hours of measuring, and not after.
            markdown::check_marks(&root().join(document), &options.lab.marks())?;
        }
        let measured = lab::run(&options.lab);
        // What was measured before a failure is reported all the same.
        let reported = report(&out, options.into.as_deref());
        return measured.and(reported);
    }
    if options.report_only {
        return report(&out, options.into.as_deref());
    }
    Err("say what to do: --peers, --report-only, --check-page, --limits, --ci, --record, --planted (see --help)"
        .to_string())
}

/// Writes `results.md` and `index.html` beside `results.jsonl`, and the tables into `into`.
fn report(out: &std::path::Path, into: Option<&std::path::Path>) -> Outcome {
    let lab = results::Lab::load(out)?;
    let summary = summary::Summary::of(&lab);
    let tables = markdown::draw(&summary);
    results::write(&out.join("results.md"), &tables)?;
    results::write(&out.join("index.html"), &page::draw(&summary)?)?;
    println!("wrote {} and index.html", out.join("results.md").display());
    if let Some(document) = into {
        let keys = lab.about["keys"].as_u64().unwrap_or_default();
        let marks = results::marks(keys, lab.about["compression"].as_str().unwrap_or_default());
        markdown::put_between_marks(&root().join(document), &marks, &tables)?;
        println!("wrote the tables into {}", document.display());
    }
    Ok(())
}
