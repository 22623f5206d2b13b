//! Reports as people read them: a table in Markdown, and a picture that needs nothing else.

use std::fmt::Write as _;

use compaction::Strategy;

use crate::{Report, Sample, Workload};

/// A report and what it is of.
pub type Case = (Workload, Strategy, Report);

/// The name of a strategy.
pub fn strategy_name(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Leveled => "leveled",
        Strategy::Tiered => "tiered",
        Strategy::Fifo => "FIFO",
        _ => "another",
    }
}

/// One row a case.
pub fn markdown(cases: &[Case]) -> String {
    let mut text = String::from(concat!(
        "| writes | strategy | write amp. | get runs | scan runs | space, mean | space, settled | peak / live ",
        "| MB/s | delayed | stopped | longest stop | largest debt |\n",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    ));
    for (workload, strategy, report) in cases {
        let share = |seconds: [f64; 3]| 100.0 * seconds.iter().sum::<f64>() / report.write_seconds;
        let _ = writeln!(
            text,
            "| {workload} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} % | {:.0} % | {:.0} ms | {:.0} % |",
            strategy_name(*strategy),
            report.write_amplification(),
            report.get_runs,
            report.scan_runs,
            report.space,
            report.settled_space,
            report.peak_bytes as f64 / report.settled_live_bytes.max(1) as f64,
            report.write_rate() / 1e6,
            share(report.stalls.delayed),
            share(report.stalls.stopped),
            report.stalls.longest_stop * 1e3,
            report.debt_max() * 100.0,
        );
    }
    text
}

const CELL: (f64, f64) = (250.0, 90.0);
const GAP: (f64, f64) = (24.0, 40.0);
const MARGIN: (f64, f64) = (120.0, 70.0);

/// Debt and pace over time, a cell a case: a row a workload, a column a strategy.
pub fn svg(cases: &[Case]) -> String {
    let mut workloads: Vec<Workload> = Vec::new();
    let mut strategies: Vec<Strategy> = Vec::new();
    for (workload, strategy, _) in cases {
        if !workloads.contains(workload) {
            workloads.push(*workload);
        }
        if !strategies.contains(strategy) {
            strategies.push(*strategy);
        }
    }
    let place = |column: usize, row: usize| {
        (MARGIN.0 + column as f64 * (CELL.0 + GAP.0), MARGIN.1 + row as f64 * (CELL.1 + GAP.1))
    };
    let (width, height) = place(strategies.len(), workloads.len());
    let mut out = String::new();
    let _ = writeln!(
        out,
        concat!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" ",
            "font-size=\"12\">\n",
            "<title>Debt and pace over time</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
        ),
        width, height,
    );
    let _ = writeln!(
        out,
        concat!(
            "<text x=\"12\" y=\"22\" font-size=\"15\">Debt and pace over time</text>\n",
            "<text x=\"12\" y=\"42\"><tspan fill=\"#c2410c\">■ worst debt, share of its hard limit (dashed: soft, ",
            "solid: hard)</tspan><tspan dx=\"16\" fill=\"#1d4ed8\">■ written, share of what is offered</tspan></text>"
        )
    );
    for (column, strategy) in strategies.iter().enumerate() {
        let (x, y) = place(column, 0);
        let name = strategy_name(*strategy);
        let _ = writeln!(out, "<text x=\"{:.0}\" y=\"{:.0}\" font-weight=\"bold\">{name}</text>", x, y - 8.0);
    }
    for (row, workload) in workloads.iter().enumerate() {
        let y = place(0, row).1 + CELL.1 / 2.0;
        let _ = writeln!(out, "<text x=\"12\" y=\"{y:.0}\" font-weight=\"bold\">{workload}</text>");
    }
    for (workload, strategy, report) in cases {
        let column = strategies.iter().position(|known| known == strategy).unwrap_or(0);
        let row = workloads.iter().position(|known| known == workload).unwrap_or(0);
        cell(&mut out, place(column, row), report);
    }
    out.push_str("</svg>\n");
    out
}

/// The largest share that a cell shows.
const SHOWN_MAX: f64 = 1.2;

fn cell(out: &mut String, (left, top): (f64, f64), report: &Report) {
    let (width, height) = CELL;
    let bottom = top + height;
    let y = |share: f64| bottom - share.min(SHOWN_MAX) / SHOWN_MAX * height;
    let x = |at: f64| left + at / report.write_seconds * width;
    let _ = writeln!(
        out,
        "<rect x=\"{left:.0}\" y=\"{top:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" fill=\"#fafafa\" stroke=\"#999\"/>"
    );
    for (share, dash) in [(0.85, " stroke-dasharray=\"4 3\""), (1.0, "")] {
        let y = y(share);
        let right = left + width;
        let _ = writeln!(
            out,
            "<line x1=\"{left:.0}\" y1=\"{y:.1}\" x2=\"{right:.0}\" y2=\"{y:.1}\" stroke=\"#bbb\"{dash}/>"
        );
    }
    for (color, share) in
        [("#1d4ed8", (|sample: &Sample| sample.pace) as fn(&Sample) -> f64), ("#c2410c", |sample: &Sample| sample.debt)]
    {
        let mut points = String::new();
        for sample in &report.samples {
            let _ = write!(points, "{:.1},{:.1} ", x(sample.at), y(share(sample)));
        }
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.3\"/>",
            points.trim_end()
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{left:.0}\" y=\"{:.0}\" fill=\"#555\" font-size=\"10\">0 … {:.0} s</text>",
        bottom + 12.0,
        report.write_seconds,
    );
}
