//! The tables, for people and for `docs/performance.md`.

use std::path::Path;

use super::summary::{Cell, OURS, Row, Summary};
use crate::shell::Outcome;

/// Everything, as Markdown.
pub(crate) fn draw(summary: &Summary) -> String {
    let about = &summary.about;
    let engines: Vec<&str> =
        about["engines"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    let mut text = format!(
        "{} keys of 16 + 100 B, compression {}, at most {} s a row. {}. Load average before a measurement {:.1} to {:.1}.\n\n",
        about["keys"],
        about["compression"].as_str().unwrap_or("unknown"),
        about["seconds"],
        dates(summary),
        summary.load.0,
        summary.load.1,
    );
    for machine in &summary.machines {
        text.push_str(&format!("Machine: {machine}.\n"));
    }
    text.push_str(&format!("{}\n", summary.source()));
    text.push_str(&match summary.rounds {
        ..=1 => "\nOne round, so that there is no spread.".to_string(),
        rounds => format!(
            "\nMedian of {rounds} rounds, (least–most); where there are fewer rounds their number stands behind, as in `[1]`."
        ),
    });
    text.push_str(
        " `*`: did not finish in its time.\nRatios say how many times as good ours is: above 1 ours is ahead. Of `ms` and `x` \
         the lower is the better. A factor (`x`) of unfinished work is compared with nothing.\n\n",
    );
    text.push_str(&format!("| row | unit | {} | to the best log-structured | to the best |\n", engines.join(" | ")));
    text.push_str(&format!("|---|---|{}---:|---:|\n", "---:|".repeat(engines.len())));
    let (mut ahead, mut ahead_of_all, mut compared) = (0, 0, 0);
    for row in &summary.rows {
        let cells: Vec<String> = engines.iter().map(|engine| figure(row, engine, summary.rounds)).collect();
        if let Some((_, ratio)) = row.beside_log_structured() {
            compared += 1;
            ahead += u32::from(ratio >= 1.0);
            ahead_of_all += u32::from(row.beside_all().is_some_and(|(_, ratio)| ratio >= 1.0));
        }
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            row.name,
            unit(row),
            cells.join(" | "),
            beside(row.beside_log_structured(), &row.left_out_log_structured()),
            beside(row.beside_all(), &row.left_out()),
        ));
    }
    text.push_str(&format!(
        "\nOf {compared} rows that ours and a log-structured peer have, ours is ahead of the best such peer in {ahead}, and \
         of every peer in {ahead_of_all}.\n"
    ));
    let behind: Vec<String> = summary
        .rows
        .iter()
        .filter_map(|row| row.beside_all().filter(|(_, ratio)| *ratio < 1.0).map(|beside| (row, beside)))
        .map(|(row, (engine, ratio))| format!("{} ({ratio:.2} of {engine})", row.name))
        .collect();
    if !behind.is_empty() {
        text.push_str(&format!("Behind the best peer: {}.\n", behind.join(", ")));
    }
    text.push_str(&costs(summary, &engines));
    if let Some(settings) = about["settings"].as_str() {
        text.push_str(&format!("\n#### Settings\n\n{}\n", settings.trim()));
    }
    let reasons = summary.rows.iter().flat_map(|row| {
        row.cells
            .iter()
            .filter_map(move |cell| Some(format!("- {}, {}: {}\n", row.name, cell.engine, cell.reason.as_ref()?)))
    });
    let reasons: String = reasons.collect();
    if !reasons.is_empty() {
        text.push_str(&format!("\n#### Not measured\n\n{reasons}"));
    }
    text
}

fn dates(summary: &Summary) -> String {
    let (first, last) = &summary.dates;
    if first == last { first.clone() } else { format!("{first} to {last}") }
}

/// A ratio to the best peer, and what it leaves out because it did not finish.
fn beside(best: Option<(&str, f64)>, left_out: &[&str]) -> String {
    let without: Vec<String> = left_out.iter().map(|engine| format!("{engine}*")).collect();
    let without = if without.is_empty() { String::new() } else { format!(", without {}", without.join(", ")) };
    match best {
        None => format!("–{without}"),
        Some((engine, ratio)) if ratio >= 1.0 => format!("**{ratio:.2} ({engine})**{without}"),
        Some((engine, ratio)) => format!("{ratio:.2} ({engine}){without}"),
    }
}

/// What our engine, its best log-structured peer and its best peer pay for each row beside time.
fn costs(summary: &Summary, engines: &[&str]) -> String {
    let mut text = "\n#### Latency, memory, space, processor time and bytes written\n\n\
        | row | engine | p50 | p90 | p99 | p99.9 | most | anonymous | file-backed | live | in all | cpu s | written |\n\
        |---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_string();
    for row in &summary.rows {
        let best = [row.beside_log_structured(), row.beside_all()].map(|it| it.map(|(engine, _)| engine));
        for engine in engines.iter().filter(|engine| **engine == OURS || best.contains(&Some(**engine))) {
            let Some(cell) = row.cells.iter().find(|cell| cell.engine == **engine && cell.figures.is_some()) else {
                continue;
            };
            let number = |name: &str| cell.details[name].as_f64();
            let time = |name: &str| number(name).map_or("–".to_string(), time);
            let size = |name: &str| number(name).map_or("–".to_string(), size);
            text.push_str(&format!(
                "| {} | {engine} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
                row.name,
                time("p50"),
                time("p90"),
                time("p99"),
                time("p999"),
                time("max"),
                size("anonymous_peak_bytes"),
                size("file_peak_bytes"),
                size("live_bytes"),
                size("total_bytes"),
                number("cpu_seconds").map_or("–".to_string(), |seconds| format!("{seconds:.2}")),
                size("written_bytes"),
            ));
        }
    }
    text
}

fn unit(row: &Row) -> String {
    if row.lower_is_better { row.unit.clone() } else { format!("{}/s", row.unit) }
}

/// The cell of an engine; `rounds` is how many rounds the others have.
fn figure(row: &Row, engine: &str, rounds: usize) -> String {
    let Some(cell) = row.cells.iter().find(|cell| cell.engine == engine) else { return "–".to_string() };
    let Cell { figures: Some(figures), .. } = cell else { return "–".to_string() };
    let star = if cell.unfinished { "*" } else { "" };
    let writer = cell.details["writer_per_second"].as_f64();
    let writer = writer.map_or(String::new(), |rate| format!(", writer {}", short(rate)));
    let fewer = if cell.rounds < rounds { format!(" [{}]", cell.rounds) } else { String::new() };
    if cell.rounds < 2 {
        return format!("{}{star}{fewer}{writer}", short(figures.median));
    }
    format!("{}{star} ({}–{}){fewer}{writer}", short(figures.median), short(figures.min), short(figures.max))
}

/// A number in three digits or so.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        0.0..1.0 => format!("{number:.3}"),
        1.0..10.0 => format!("{number:.2}"),
        10.0..100.0 => format!("{number:.1}"),
        100.0..1e3 => format!("{number:.0}"),
        1e3..1e4 => format!("{:.2}k", number / 1e3),
        1e4..1e5 => format!("{:.1}k", number / 1e3),
        1e5..1e6 => format!("{:.0}k", number / 1e3),
        _ => format!("{:.2}M", number / 1e6),
    }
}

/// Nanoseconds, for people.
fn time(ns: f64) -> String {
    match ns {
        ..1e4 => format!("{ns:.0} ns"),
        1e4..1e7 => format!("{:.0} µs", ns / 1e3),
        _ => format!("{:.0} ms", ns / 1e6),
    }
}

/// Bytes, for people.
fn size(bytes: f64) -> String {
    match bytes {
        ..1_048_576.0 => format!("{:.0} KiB", bytes / 1024.0),
        _ => format!("{:.1} MiB", bytes / f64::from(1 << 20)),
    }
}

/// Says whether [`put_between_marks`] will find its marks.
///
/// # Errors
/// If they are not there.
pub(crate) fn check_marks(document: &Path, name: &str) -> Outcome {
    marked(document, name, "").map(|_| ())
}

/// Replaces what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->` in the document.
///
/// # Errors
/// If the marks are not there, once each and in this order: nothing is written then.
pub(crate) fn put_between_marks(document: &Path, name: &str, text: &str) -> Outcome {
    let new = marked(document, name, text)?;
    std::fs::write(document, new).map_err(|error| format!("{}: {error}", document.display()))
}

/// The document with the text between the marks.
fn marked(document: &Path, name: &str, text: &str) -> Outcome<String> {
    let old = std::fs::read_to_string(document).map_err(|error| format!("{}: {error}", document.display()))?;
    between_marks(&old, name, text).ok_or_else(|| {
        format!("{}: needs one `<!-- {name}: begin -->` and after it one `<!-- {name}: end -->`", document.display())
    })
}

fn between_marks(old: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let (before, rest) = old.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    if rest.contains(&begin) || after.contains(&end) {
        return None;
    }
    Some(format!("{before}{begin}\n\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::super::results::Lab;
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let old = "a\n<!-- t: begin -->\nold\n<!-- t: end -->\nb\n";
        let new = between_marks(old, "t", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- t: begin -->\n\nnew\n\n<!-- t: end -->\nb\n");
        assert_eq!(between_marks(&new, "t", "new").unwrap(), new);
        assert_eq!(between_marks("<!-- t: end --><!-- t: begin -->", "t", ""), None);
        assert_eq!(between_marks(&format!("{old}{old}"), "t", ""), None);
    }

    #[test]
    fn a_ratio_says_what_it_leaves_out_and_a_cell_how_few_rounds_it_has() {
        assert_eq!(beside(Some(("rocksdb", 1.5)), &[]), "**1.50 (rocksdb)**");
        assert_eq!(beside(Some(("lmdb", 0.5)), &["sled", "redb"]), "0.50 (lmdb), without sled*, redb*");
        assert_eq!(beside(None, &["lsm"]), "–, without lsm*");
        let line = |engine: &str, round: u64, rate: u64| {
            json!({"engine": engine, "row": "r", "round": round, "unit": "ops", "per_second": rate, "finished": true,
                "latency_ns": {"p50": 1, "p90": 2, "p99": 3, "p999": 4, "max": 5}})
        };
        let lines = vec![line("lsm", 1, 100), line("lsm", 2, 300), line("rocksdb", 1, 50)];
        let about = json!({"engines": ["lsm", "rocksdb"], "rows": [{"name": "r", "description": ""}]});
        let text = draw(&Summary::of(&Lab { about, lines }));
        assert!(text.contains("Median of 2 rounds"), "{text}");
        assert!(text.contains("| r | ops/s | 200 (100–300) | 50.0 [1] |"), "{text}");
        assert!(text.contains("| r | lsm | 1 ns | 2 ns | 3 ns | 4 ns | 5 ns |"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let drawn = [0.134, 4.5, 45.04, 999.0, 1234.0, 56_789.0, 282_000.0, 1_720_000.0].map(short);
        assert_eq!(drawn, ["0.134", "4.50", "45.0", "999", "1.23k", "56.8k", "282k", "1.72M"]);
    }
}
