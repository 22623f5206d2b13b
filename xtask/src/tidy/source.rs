//! The files of the tree, and what of a line is code, comment or string.

use std::fs;
use std::path::{Path, PathBuf};

use crate::shell::Outcome;

/// A text file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Relative to the root, with `/` on every platform.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl File {
    /// Whether it lies in `dir`, which is relative to the root.
    pub(crate) fn is_in(&self, dir: &str) -> bool {
        self.path.starts_with(dir)
    }

    /// Whether its name ends in `.extension`.
    pub(crate) fn has_extension(&self, extension: &str) -> bool {
        self.path.extension().is_some_and(|found| found == extension)
    }

    /// The crate it belongs to, if it lies under `crates/`.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates").ok()?.iter().next()?.to_str()
    }

    /// Whether it is Rust that ships: under a `src` directory.
    pub(crate) fn is_shipped_rust(&self) -> bool {
        self.has_extension("rs") && self.path.iter().any(|part| part == "src")
    }

    /// Its lines, counted from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }
}

/// Every text file that tidy looks at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<File>,
}

/// Kinds of files that are read.
const EXTENSIONS: [&str; 5] = ["rs", "md", "toml", "txt", "yml"];

/// Directories that hold nothing of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];

impl Tree {
    /// Reads the tree under `root`.
    pub(crate) fn load(root: &Path) -> Outcome<Self> {
        let mut tree = Self { root: root.to_path_buf(), files: Vec::new() };
        tree.collect(root)?;
        tree.files.sort_by(|left, right| left.path.cmp(&right.path));
        Ok(tree)
    }

    fn collect(&mut self, dir: &Path) -> Outcome {
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        for entry in fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                if !SKIPPED.iter().any(|name| path.ends_with(name)) {
                    self.collect(&path)?;
                }
            } else if path.extension().is_some_and(|found| EXTENSIONS.iter().any(|wanted| found == *wanted)) {
                let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let path = path.strip_prefix(&self.root).expect("found under the root").to_path_buf();
                self.files.push(File { path, text });
            }
        }
        Ok(())
    }

    /// The file at `path`, relative to the root.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == Path::new(path))
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| File { path: path.into(), text: (*text).to_string() });
        Self { root: PathBuf::new(), files: files.collect() }
    }
}

/// A line of Rust, split: code with string contents removed, and the text of its comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SplitLine<'a> {
    pub(crate) code: String,
    /// After `//`, `///` or `//!`; empty if there is none.
    pub(crate) comment: &'a str,
}

/// Splits one line. Knows strings, characters and line comments, not strings over several lines nor block comments
/// (this project uses neither where it would matter).
pub(crate) fn split_line(line: &str) -> SplitLine<'_> {
    let bytes = line.as_bytes();
    let mut code = String::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                let comment = line[at + 2..].trim_start_matches(['/', '!']).trim();
                return SplitLine { code, comment };
            }
            b'"' => {
                code.push_str("\"\"");
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += 1 + usize::from(bytes[at] == b'\\');
                }
                at += 1;
            }
            // A quoted quote would open a string that never ends.
            b'\'' if line[at..].starts_with("'\"'") || line[at..].starts_with("'/'") => {
                code.push_str("''");
                at += 3;
            }
            _ => {
                let end = (at + 1..=bytes.len()).find(|end| line.is_char_boundary(*end)).unwrap_or(bytes.len());
                code.push_str(&line[at..end]);
                at = end;
            }
        }
    }
    SplitLine { code, comment: "" }
}

/// The lines of a shipped Rust file up to its unit tests (`#[cfg(test)]` before a `mod`).
pub(crate) fn lines_before_tests(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let end = (0..lines.len())
        .find(|&at| {
            let is_test = lines[at].trim_start().starts_with("#[cfg(") && lines[at].contains("test");
            is_test && lines.get(at + 1).is_some_and(|next| next.trim_start().starts_with("mod "))
        })
        .unwrap_or(lines.len());
    (1..).zip(lines.into_iter().take(end))
}

/// Whether `text[at..at + len]` stands alone, not as part of a longer word.
pub(crate) fn is_whole_word(text: &str, at: usize, len: usize) -> bool {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    !text[..at].ends_with(is_word) && !text[at + len..].starts_with(is_word)
}

/// Whether `word` stands in `text` as a word of its own.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| is_whole_word(text, at, word.len()))
}

/// The rows of the Markdown table under the heading that reads `heading`: line number and cells, without the header.
pub(crate) fn table_under<'a>(file: &'a File, heading: &str) -> Vec<(usize, Vec<&'a str>)> {
    let in_section = |line: &str| line.trim_start_matches('#').trim() == heading && line.starts_with('#');
    let mut lines = file.lines().skip_while(|(_, line)| !in_section(line));
    lines.next();
    let section = lines.take_while(|(_, line)| !line.starts_with('#'));
    let rows = section.filter(|(_, line)| line.starts_with('|'));
    rows.skip(2)
        .map(|(number, line)| (number, line.trim().trim_matches('|').split('|').map(str::trim).collect()))
        .collect()
}

/// The words between backticks in `cell`.
pub(crate) fn backticked(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_told_from_code() {
        let split = |line| {
            let SplitLine { code, comment } = split_line(line);
            (code, comment.to_string())
        };
        assert_eq!(split("let a = 1; // (P3) why"), ("let a = 1; ".to_string(), "(P3) why".to_string()));
        assert_eq!(split("    /// P3: it holds."), ("    ".to_string(), "P3: it holds.".to_string()));
        assert_eq!(split(r#"f("a // \" b", 'x')"#), (r#"f("", 'x')"#.to_string(), String::new()));
        assert_eq!(split("'\"' => 1, // quote"), ("'' => 1, ".to_string(), "quote".to_string()));
        assert_eq!(split("é // ü"), ("é ".to_string(), "ü".to_string()));
    }

    #[test]
    fn unit_tests_are_not_shipped() {
        let file = File {
            path: "a.rs".into(),
            text: "one\n#[cfg(test)]\nuse x;\n#[cfg(all(test, unix))]\nmod tests {".into(),
        };
        assert_eq!(lines_before_tests(&file).map(|(number, _)| number).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn a_table_is_read_under_its_own_heading() {
        let text =
            "# A\n| x |\n|---|\n| no |\n## B\nwords\n| crate | uses |\n|---|---|\n| `a` | `b`, `c` |\n\n# C\n| no |\n";
        let file = File { path: "a.md".into(), text: text.into() };
        let rows = table_under(&file, "B");
        assert_eq!(rows, [(9, vec!["`a`", "`b`, `c`"])]);
        assert_eq!(backticked(rows[0].1[1]).collect::<Vec<_>>(), ["b", "c"]);
    }

    #[test]
    fn words_stand_alone() {
        assert!(
            has_word("a std::fs b", "std::fs") && !has_word("Instantly", "Instant") && !has_word("my_rand", "rand")
        );
    }
}
