//! One word for each thing: those that the glossary gave up do not come back.

use super::Finding;
use super::source::{Tree, backticked, has_word, table_under};
use crate::shell::Workspace;

const DOCUMENT: &str = "docs/architecture.md";
const HEADING: &str = "Words not used";

/// Looks for the words in the first column of the table, in every file but the one that lists them.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, 0, "is missing: it holds the words not used")];
    };
    let rows = table_under(document, HEADING);
    let words: Vec<&str> = rows.iter().filter_map(|(_, cells)| backticked(cells.first()?).next()).collect();
    if words.is_empty() {
        return vec![Finding::new(DOCUMENT, 0, format!("has no table under `{HEADING}`"))];
    }
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path != document.path && !file.is_in("xtask/src/tidy")) {
        for (line, text) in file.lines() {
            let used = words.iter().filter(|word| has_word(text, word));
            findings
                .extend(used.map(|word| Finding::new(&file.path, line, format!("`{word}` is not used: {DOCUMENT}"))));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_given_up_is_found_as_a_whole_word() {
        let document = "### Words not used\n| not | but |\n|---|---|\n| `frobnicate` | do |\n";
        let tree = Tree::of(&[(DOCUMENT, document), ("a.rs", "frobnicated\n// to frobnicate\n")]);
        let workspace = Workspace { packages: vec![], target_dir: "t".into() };
        assert_eq!(
            check(&tree, &workspace),
            [Finding::new("a.rs", 2, "`frobnicate` is not used: docs/architecture.md")]
        );
    }
}
