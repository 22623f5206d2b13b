//! Every `unsafe` in the shipped crates stands in `docs/unsafe.md`, by file, number of lines and function.

use std::collections::BTreeSet;

use super::Finding;
use super::source::{File, Tree, backticked, has_word, lines_before_tests, split_line, table_under};
use crate::shell::Workspace;

const DOCUMENT: &str = "docs/unsafe.md";
const HEADING: &str = "Unsafe code";

/// Compares the table with the source, both ways.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, 0, "is missing: it argues for every `unsafe`")];
    };
    let mut findings = Vec::new();
    let mut rows: Vec<(&str, bool)> = Vec::new();
    for (line, cells) in table_under(document, HEADING) {
        let [file, count, functions, why] = cells[..] else {
            findings.push(Finding::new(DOCUMENT, line, "a row names a file, a number, functions and a reason"));
            continue;
        };
        let name = backticked(file).next().unwrap_or(file);
        let Some(source) = tree.file(name) else {
            findings.push(Finding::new(DOCUMENT, line, format!("{name} does not exist")));
            continue;
        };
        rows.push((name, true));
        let lines = unsafe_lines(source);
        if count.parse() != Ok(lines.len()) {
            findings.push(Finding::new(DOCUMENT, line, format!("{name} says `unsafe` in {} lines", lines.len())));
        }
        if why.is_empty() {
            findings.push(Finding::new(DOCUMENT, line, format!("{name}: nothing argues for it")));
        }
        let holders: BTreeSet<&str> = lines.iter().filter_map(|&at| function_around(source, at)).collect();
        for function in backticked(functions).filter(|function| !holders.contains(function)) {
            findings.push(Finding::new(DOCUMENT, line, format!("`{function}` in {name} says no `unsafe`")));
        }
        for holder in holders.iter().filter(|holder| !backticked(functions).any(|function| function == **holder)) {
            findings.push(Finding::new(DOCUMENT, line, format!("`{holder}` in {name} says `unsafe`: name it")));
        }
    }
    for file in tree.files.iter().filter(|file| file.is_in("crates") && file.is_shipped_rust()) {
        if let Some(&line) = unsafe_lines(file).first()
            && !rows.iter().any(|(name, _)| file.path == std::path::Path::new(name))
        {
            findings.push(Finding::new(&file.path, line, format!("`unsafe` without a row in {DOCUMENT}")));
        }
    }
    findings
}

/// The lines, counted from 1, whose code says `unsafe`.
fn unsafe_lines(file: &File) -> Vec<usize> {
    lines_before_tests(file)
        .filter(|(_, text)| has_word(&split_line(text).code, "unsafe"))
        .map(|(line, _)| line)
        .collect()
}

/// The name of the function that line `at` lies in or begins; `None` for an `unsafe impl` or a foreign block.
fn function_around(file: &File, at: usize) -> Option<&str> {
    let lines: Vec<&str> = file.text.lines().take(at).collect();
    let own = lines.last()?.trim_start();
    if own.starts_with("unsafe impl") || own.starts_with("unsafe extern") {
        return None;
    }
    lines.iter().rev().find_map(|line| {
        let code = line.trim_start();
        let is_item = code.starts_with("fn ") || code.starts_with("pub") || code.starts_with("unsafe fn ");
        let (_, rest) = is_item.then(|| line.split_once("fn "))??;
        rest.split(['(', '<']).next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "pub(crate) fn lend(&self) -> &[u8] {\n    // unsafe in a comment\n    unsafe { raw() }\n}\n";

    fn found(row: &str, source: &str) -> Vec<String> {
        let document = format!("# Unsafe code\n| file | lines | in | why |\n|---|---|---|---|\n{row}\n");
        let workspace = Workspace { packages: vec![], target_dir: "t".into() };
        let tree = Tree::of(&[(DOCUMENT, &document), ("crates/a/src/lib.rs", source)]);
        check(&tree, &workspace).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn what_is_not_listed_right_is_found() {
        assert_eq!(found("| `crates/a/src/lib.rs` | 1 | `lend` | why |", SOURCE), [""; 0]);
        assert_eq!(found("", SOURCE), ["`unsafe` without a row in docs/unsafe.md"]);
        assert_eq!(
            found("| `crates/a/src/lib.rs` | 2 | `take` | why |", SOURCE),
            [
                "crates/a/src/lib.rs says `unsafe` in 1 lines",
                "`take` in crates/a/src/lib.rs says no `unsafe`",
                "`lend` in crates/a/src/lib.rs says `unsafe`: name it",
            ]
        );
        assert_eq!(found("| `crates/b/src/lib.rs` | 1 | `lend` | why |", ""), ["crates/b/src/lib.rs does not exist"]);
    }
}
