//! Only `file-system` touches files, clocks and random numbers; who else may stands in `docs/architecture.md`.

use super::Finding;
use super::source::{Tree, backticked, has_word, is_whole_word, lines_before_tests, split_line, table_under};
use crate::shell::Workspace;

const DOCUMENT: &str = "docs/architecture.md";
const HEADING: &str = "Doors";

/// What only a door may say, outside of tests.
const GUARDED: [&str; 10] = [
    "std::fs",
    "fs::File",
    "File::open",
    "OpenOptions",
    "SystemTime",
    "Instant",
    "rand",
    "getrandom",
    "memmap2",
    "thread::sleep",
];

/// Looks for guarded names in shipped code. A row of the table allows one crate some of them, in backticks.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, 0, "is missing: it holds the doors")];
    };
    let mut findings = Vec::new();
    let mut allowed: Vec<(&str, Vec<&str>, usize, bool)> = Vec::new();
    for (line, cells) in table_under(document, HEADING) {
        match (cells.first().and_then(|cell| backticked(cell).next()), cells.get(1)) {
            (Some(name), Some(names)) => allowed.push((name, backticked(names).collect(), line, false)),
            _ => findings.push(Finding::new(DOCUMENT, line, "a row names a crate and what it may use, in backticks")),
        }
    }
    for file in tree.files.iter().filter(|file| file.is_shipped_rust()) {
        let place = file.crate_name().or_else(|| file.path.iter().next()?.to_str()).unwrap_or_default();
        for (line, text) in lines_before_tests(file) {
            let code = split_line(text).code;
            for name in GUARDED.into_iter().filter(|name| names(&code, name)) {
                let door = allowed.iter_mut().find(|(owner, names, ..)| *owner == place && names.contains(&name));
                match door {
                    Some((.., used)) => *used = true,
                    None => {
                        findings.push(Finding::new(&file.path, line, format!("`{name}` is behind a door: {DOCUMENT}")))
                    }
                }
            }
        }
    }
    for (owner, _, line, _) in allowed.iter().filter(|(.., used)| !used) {
        findings.push(Finding::new(DOCUMENT, *line, format!("{owner} uses nothing of what this row allows")));
    }
    findings
}

/// Whether a line of code uses what is behind `name`, also if it was imported in braces or by its module.
fn names(code: &str, name: &str) -> bool {
    let in_braces = || code.trim_start().starts_with("use std::{") && has_word(code, "fs");
    let by_module = || code.match_indices("fs::").any(|(at, _)| is_whole_word(code, at, 2));
    has_word(code, name) || (name == "std::fs" && (in_braces() || by_module()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_has_several_names() {
        assert!(names("use std::{env, fs};", "std::fs") && names("fs::read(path)", "std::fs"));
        assert!(!names("self.fs.read(path)", "std::fs") && !names("offs::X", "std::fs") && !names("fs::x", "rand"));
    }

    #[test]
    fn a_clock_outside_the_door_is_found() {
        let document = "## Doors\n| crate | may use |\n|---|---|\n| `file-system` | `std::fs`, `Instant` |\n";
        let workspace = Workspace { packages: vec![], target_dir: "t".into() };
        let tree = Tree::of(&[
            (DOCUMENT, document),
            ("crates/file-system/src/lib.rs", "use std::fs;\nlet now = Instant::now();\n"),
            (
                "crates/log/src/lib.rs",
                "//! Never Instant.\nlet a = Instant::now();\n#[cfg(test)]\nmod tests {\nInstant::now();",
            ),
            ("crates/log/tests/a.rs", "std::fs::read(x);"),
        ]);
        let findings = check(&tree, &workspace);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].line, findings[0].file.to_str()), (2, Some("crates/log/src/lib.rs")));
    }
}
