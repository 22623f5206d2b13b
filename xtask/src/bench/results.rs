//! The lines that were measured, and what was asked for, as they lie in the output directory.
//!
//! ```text
//!   results.jsonl  one line a measurement: what `lab run` printed, with round, date, machine, commit and load added
//!   lab.json       rows with descriptions, engines, settings, keys: what the report needs beside the lines
//! ```
//!
//! A line is appended as soon as it is there, so that a run that was interrupted goes on where it stopped. Of two lines
//! of one (engine, row, round) the later counts.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::shell::Outcome;

/// What names a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) engine: String,
    pub(crate) row: String,
    pub(crate) round: u64,
}

/// Everything in the output directory.
#[derive(Debug)]
pub(crate) struct Lab {
    /// What `lab.json` says.
    pub(crate) about: Value,
    /// The lines, in the order of measuring, without those that were done anew.
    pub(crate) lines: Vec<Value>,
}

impl Lab {
    /// Reads the directory.
    pub(crate) fn load(out: &Path) -> Outcome<Self> {
        let path = out.join("lab.json");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let about = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { about, lines: lines(&out.join("results.jsonl"))? })
    }
}

/// The lines of `path` that still count; none if there is no such file.
///
/// A last line without its end was being written when the run was killed: it is left out, and the slot done anew.
pub(crate) fn lines(path: &Path) -> Outcome<Vec<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let mut all: Vec<Value> = Vec::new();
    let mut at: HashMap<Slot, usize> = HashMap::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let Some(whole) = line.strip_suffix('\n') else { break };
        if whole.trim().is_empty() {
            continue;
        }
        let place = || format!("{}:{}", path.display(), number + 1);
        let value: Value = serde_json::from_str(whole).map_err(|error| format!("{}: {error}", place()))?;
        let slot = slot(&value).ok_or_else(|| format!("{}: needs engine, row and round", place()))?;
        match at.get(&slot) {
            Some(&earlier) => all[earlier] = value,
            None => {
                at.insert(slot, all.len());
                all.push(value);
            }
        }
    }
    Ok(all)
}

/// What the marks are called between which a document has the tables of so many keys.
pub(crate) fn marks(keys: u64, compression: &str) -> String {
    format!("lab-{keys}-{compression}")
}

/// What the line measures.
pub(crate) fn slot(line: &Value) -> Option<Slot> {
    Some(Slot {
        engine: line["engine"].as_str()?.to_string(),
        row: line["row"].as_str()?.to_string(),
        round: line["round"].as_u64()?,
    })
}

/// The file that lines are appended to. A torn last line is cut off first, so that the next one does not stick to it.
pub(crate) struct Appender {
    file: File,
    path: PathBuf,
}

impl Appender {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        let text = std::fs::read(path).map_err(failed)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(failed)?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    /// Appends a line.
    pub(crate) fn append(&mut self, line: &Value) -> Outcome {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Writes a file whole, its directories first.
pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_cut_and_a_later_line_of_a_slot_counts() {
        let dir = std::env::temp_dir().join(format!("xtask-results-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("results.jsonl");
        let line =
            |round: u64, value: u64| serde_json::json!({"engine": "e", "row": "r", "round": round, "value": value});
        std::fs::write(&path, format!("{}\n{}\n{}\n{{\"eng", line(1, 1), line(2, 2), line(1, 3))).unwrap();
        let values = |path: &Path| -> Vec<u64> {
            lines(path).unwrap().iter().map(|line| line["value"].as_u64().unwrap()).collect()
        };
        assert_eq!(values(&path), [3, 2]);
        Appender::open(&path).unwrap().append(&line(3, 4)).unwrap();
        assert_eq!(values(&path), [3, 2, 4]);
        std::fs::write(&path, "{\"engine\":\"e\"}\n").unwrap();
        assert!(lines(&path).unwrap_err().contains("results.jsonl:1: needs engine"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
