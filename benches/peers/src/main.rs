//! `lab`: measures one row of one engine in one process.
//!
//! ```text
//!   lab engines | rows                           what there is, a line each
//!   lab settings --keys N --compression C        how each engine is configured for so many rows
//!   lab prepare --engine E --data DIR            builds the data sets that rows read
//!   lab run --engine E --row R --dir DIR …       prints one JSON object as the last line of standard output
//! ```
//!
//! `cargo xtask bench --peers` calls it. A wrong answer of an engine ends the process with a panic.

mod context;
mod data;
mod engine;
mod engines;
mod limit;
mod measure;
mod process;
mod rows;
mod sets;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::context::Context;
use crate::engine::{Kind, Outcome};

#[derive(Parser)]
#[command(about = "Measures one row of one engine in one process.")]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The engines that were compiled in, a line each
    Engines,
    /// The rows, a line each: name, tab, what it does
    Rows,
    /// How the engines are configured, as a Markdown table
    Settings {
        #[command(flatten)]
        data: Data,
    },
    /// Builds the data sets that rows read
    Prepare {
        #[command(flatten)]
        subject: Subject,
        /// Where they are to lie
        #[arg(long)]
        data: PathBuf,
    },
    /// Measures a row
    Run {
        #[command(flatten)]
        subject: Subject,
        #[arg(long)]
        row: String,
        /// The row is broken off after so many seconds
        #[arg(long)]
        seconds: f64,
        /// An empty directory
        #[arg(long)]
        dir: PathBuf,
        /// What `prepare` has built
        #[arg(long)]
        data: PathBuf,
    },
    /// Overwrites rows and kills itself: a part of the row `open-after-kill`
    #[command(hide = true)]
    Die {
        #[command(flatten)]
        subject: Subject,
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Subject {
    #[arg(long)]
    engine: String,
    #[command(flatten)]
    data: Data,
}

#[derive(Args)]
struct Data {
    /// Rows of the data set: a multiple of 1,000
    #[arg(long, value_parser = clap::value_parser!(u64).range(1000..=1_000_000_000))]
    keys: u64,
    /// `none` or `lz4`, where the engine has it
    #[arg(long, value_parser = ["none", "lz4"])]
    compression: String,
}

impl Subject {
    fn context(&self, time: Duration, dir: PathBuf, data: PathBuf) -> Outcome<Context> {
        let kind: Kind = engine::kinds()
            .into_iter()
            .find(|kind| kind.name == self.engine)
            .ok_or_else(|| format!("`{}` is no engine, or was not compiled in", self.engine))?;
        Ok(self.data.context(kind, time, dir, data))
    }
}

impl Data {
    fn context(&self, kind: Kind, time: Duration, dir: PathBuf, data: PathBuf) -> Context {
        Context::new(kind, self.keys, time, self.compression == "lz4", dir, data)
    }

    /// What is the same for all engines, then a line for each.
    fn settings(&self) -> String {
        let (mut all, mut table) = (String::new(), "| engine | version | settings |\n|---|---|---|\n".to_string());
        for kind in engine::kinds() {
            let (name, version, says) = (kind.name, kind.version, kind.says);
            let context = self.context(kind, Duration::ZERO, PathBuf::new(), PathBuf::new());
            table.push_str(&format!("| {name} | {version} | {} |\n", says(&context.settings())));
            all = context.says();
        }
        format!("{all}\n\n{table}")
    }
}

fn main() {
    if let Err(error) = run(Command::parse().verb) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(verb: Verb) -> Outcome {
    match verb {
        Verb::Engines => {
            for kind in engine::kinds() {
                println!("{}\t{}", kind.name, kind.version);
            }
        }
        Verb::Rows => {
            for row in rows::all() {
                println!("{}\t{}", row.name, row.says);
            }
        }
        Verb::Settings { data } => print!("{}", data.settings()),
        Verb::Prepare { subject, data } => {
            let context = subject.context(Duration::ZERO, PathBuf::new(), data)?;
            sets::build(&context.kind, &context.settings(), context.keys(), &context.data)?;
        }
        Verb::Run { subject, row, seconds, dir, data } => {
            let context = subject.context(Duration::from_secs_f64(seconds), dir, data)?;
            let rows = rows::all();
            let row = rows.iter().find(|it| it.name == row).ok_or_else(|| format!("`{row}` is no row"))?;
            let line = (row.run)(&context)?;
            let mut out = std::io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()?;
        }
        Verb::Die { subject, dir } => {
            let context = subject.context(Duration::ZERO, PathBuf::new(), PathBuf::new())?;
            rows::die_with_rows(&context.kind, &context.settings(), context.keys(), &dir)?;
        }
    }
    Ok(())
}
