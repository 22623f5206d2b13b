//! Every invariant that is cited exists, and every one that exists has a test that says so.
//!
//! `docs/invariants.md` defines them, each at the start of an item: `- **P3** ...`. A citation is a number outside of
//! backticks and code blocks, in a comment, a document, or at the start of a string (`"P3: ..."`, an assertion's message).
//! Because levels are called L0 to L6, a number with L counts only as `(L3)`, `**L3**`, `L3:` or at a comment's start with
//! a mark behind it. A test cites what it checks at the start of its doc comment, `/// P3: ...`; a golden script anywhere in
//! its comments.

use super::Finding;
use super::source::{File, Tree, is_whole_word, split_line};
use crate::shell::Workspace;

/// Where they stand.
pub(crate) const DOCUMENT: &str = "docs/invariants.md";

/// Commit, log, memtable, table, iterators, reading, manifest, compaction.
const LETTERS: [u8; 8] = *b"PLKTIRMC";

/// Compares citations with definitions, both ways.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, 0, "is missing: it holds the invariants")];
    };
    let invariants = defined(document);
    let mut findings = Vec::new();
    for (index, (number, line)) in invariants.iter().enumerate() {
        if invariants[..index].iter().any(|(earlier, _)| earlier == number) {
            findings.push(Finding::new(DOCUMENT, *line, format!("{number} is defined twice")));
        }
    }
    let mut tested: Vec<String> = Vec::new();
    // tidy itself speaks of numbers that need not exist.
    for file in tree.files.iter().filter(|file| !file.is_in("xtask")) {
        for (line, number) in citations(file) {
            if !invariants.iter().any(|(defined, _)| *defined == number) {
                findings.push(Finding::new(&file.path, line, format!("{number} is no invariant of {DOCUMENT}")));
            }
        }
        tested.extend(tested_in(file));
    }
    for (number, line) in &invariants {
        if !tested.contains(number) {
            findings.push(Finding::new(DOCUMENT, *line, format!("{number} has no test that begins `/// {number}:`")));
        }
    }
    findings
}

/// The invariants that a document defines, each with its line.
pub(crate) fn defined(document: &File) -> Vec<(String, usize)> {
    let items = document.lines().filter_map(|(line, text)| {
        let (number, _) = text.strip_prefix("- **")?.split_once("**")?;
        is_number(number).then(|| (number.to_string(), line))
    });
    items.collect()
}

/// Whether `text` is a letter of ours and one or two digits.
fn is_number(text: &str) -> bool {
    match text.as_bytes() {
        [letter, b'1'..=b'9'] | [letter, b'1'..=b'9', b'0'..=b'9'] => LETTERS.contains(letter),
        _ => false,
    }
}

/// The numbers in a list such as `P3`, `P3, M7` or `P3 and M7`; whatever else stands in `text` is passed over.
pub(crate) fn numbers_in(text: &str) -> Vec<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric());
    words.filter(|word| is_number(word)).map(str::to_string).collect()
}

/// What a file cites, with lines.
fn citations(file: &File) -> Vec<(usize, String)> {
    let mut cited = Vec::new();
    let mut cite = |line, numbers: Vec<String>| cited.extend(numbers.into_iter().map(|number| (line, number)));
    if file.has_extension("rs") {
        let mut in_code = false;
        for (line, text) in file.lines() {
            let comment = split_line(text).comment;
            in_code ^= comment.starts_with("```");
            if !in_code {
                cite(line, cited_in(comment));
            }
            let strings = text.match_indices('"').filter_map(|(at, _)| text[at + 1..].split_once(':'));
            cite(line, strings.filter(|(start, _)| is_number(start)).map(|(number, _)| number.to_string()).collect());
        }
    } else if file.has_extension("md") {
        let mut in_code = false;
        for (line, text) in file.lines() {
            in_code ^= text.trim_start().starts_with("```");
            if !in_code {
                cite(line, cited_in(text.trim_start_matches(['#', '-', '*', ' ', '>']).trim()));
                cite(
                    line,
                    text.split("**").skip(1).step_by(2).filter(|bold| is_number(bold)).map(str::to_string).collect(),
                );
            }
        }
    } else if is_golden(file) {
        for (line, text) in file.lines().filter(|(_, text)| text.starts_with('#')) {
            cite(line, cited_in(text.trim_start_matches('#').trim()));
        }
    }
    cited.sort();
    cited.dedup();
    cited
}

/// The numbers that a sentence cites.
fn cited_in(sentence: &str) -> Vec<String> {
    let prose: String = sentence.split('`').step_by(2).collect::<Vec<_>>().join("``");
    let mut cited = Vec::new();
    for (at, _) in prose.char_indices() {
        let rest = &prose[at..];
        let digits = rest.bytes().skip(1).take_while(u8::is_ascii_digit).count();
        let Some(number) = rest.get(..1 + digits).filter(|number| is_number(number)) else { continue };
        if !is_whole_word(&prose, at, number.len())
            || prose[..at].ends_with('-')
            || rest[number.len()..].starts_with('-')
        {
            continue;
        }
        if !number.starts_with('L') || marks_an_invariant(&prose, at, number.len()) {
            cited.push(number.to_string());
        }
    }
    cited
}

/// Whether an L with a number is meant as an invariant and not as a level: `(L3)`, `(P2, L3)`, `**L3**`, `L3:`.
fn marks_an_invariant(text: &str, at: usize, len: usize) -> bool {
    let (before, after) = (&text[..at], &text[at + len..]);
    if after.starts_with(':') || (before.ends_with("**") && after.starts_with("**")) {
        return true;
    }
    let (Some(open), Some(close)) = (before.rfind('('), after.find(')')) else { return false };
    let inside = &text[open + 1..at + len + close];
    inside.split([',', ' ', ';']).all(|word| word.is_empty() || word == "and" || is_number(word))
}

/// The invariants that a file's tests check.
fn tested_in(file: &File) -> Vec<String> {
    let mut tested = Vec::new();
    if is_golden(file) {
        let comments = file.text.lines().filter(|line| line.starts_with('#'));
        return comments.flat_map(|line| cited_in(line.trim_start_matches('#').trim())).collect();
    }
    if !file.has_extension("rs") {
        return tested;
    }
    let in_tests = file.path.iter().any(|part| part == "tests");
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let Some((numbers, _)) = line.strip_prefix("/// ").and_then(|comment| comment.split_once(':')) else {
            continue;
        };
        let is_list = numbers.split([',', ' ']).all(|word| word.is_empty() || word == "and" || is_number(word));
        let below = lines[at + 1..].iter().take_while(|line| line.starts_with("///") || line.starts_with("#["));
        // In a file of tests a macro may make the test out of the function.
        let is_test = below.clone().any(|line| line.starts_with("#[test]"))
            || (in_tests && lines.get(at + 1 + below.count()).is_some_and(|line| line.starts_with("fn ")));
        if is_list && is_test {
            tested.extend(numbers_in(numbers));
        }
    }
    tested
}

/// Whether a file is a golden script.
fn is_golden(file: &File) -> bool {
    file.path.iter().any(|part| part == "golden")
        && file.path.iter().any(|part| part == "tests")
        && !file.has_extension("rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_not_taken_for_invariants_of_the_log() {
        assert_eq!(cited_in("moves from L1 to L2 (L0 and L1 too)"), [""; 0]);
        assert_eq!(cited_in("cut there (L3), and (P6, L4); **L5** says L2: so"), ["L3", "P6", "L4", "L5", "L2"]);
        assert_eq!(cited_in("P3 and `M7`, x86-C2, T1-2, PP1, P100, P0, K8."), ["P3", "K8"]);
    }

    #[test]
    fn a_citation_needs_a_definition_and_a_definition_a_test() {
        let workspace = Workspace { packages: vec![], target_dir: "t".into() };
        let tree = Tree::of(&[
            (DOCUMENT, "- **P1** One.\n- **C2** Two.\n- **M3** Three.\n- **L4** Four.\n"),
            ("crates/a/src/a.rs", "// P1 holds, P9 too.\nassert!(x, \"M8: y\");\nlet p = \"the P7\"; struct C9;\n"),
            (
                "crates/a/tests/t.rs",
                "/// P1, L4: both.\n/// And more.\n#[test]\nfn a() {}\n/// M3: no test.\nconst B: u8;\n",
            ),
            ("crates/a/tests/golden/a.txt", "# A tombstone stays (C2).\ncompact L1 (M3)\n"),
        ]);
        let mut found: Vec<String> = check(&tree, &workspace).into_iter().map(|finding| finding.to_string()).collect();
        found.sort();
        assert_eq!(
            found,
            [
                "crates/a/src/a.rs:1: P9 is no invariant of docs/invariants.md",
                "crates/a/src/a.rs:2: M8 is no invariant of docs/invariants.md",
                "docs/invariants.md:3: M3 has no test that begins `/// M3:`",
            ]
        );
    }
}
