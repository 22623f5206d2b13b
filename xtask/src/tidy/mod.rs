//! `tidy`: what the documents say of the tree is true of the tree.
//!
//! ```text
//!   docs/architecture.md ── layers, doors, words ──▶ compared with Cargo's metadata and the source
//!   docs/invariants.md   ── numbers              ──▶ each cited one exists, each existing one has a test
//!   docs/format.md       ── `NAME = value`       ──▶ compared with the constant in the source
//!   docs/unsafe.md       ── files, functions    ──▶ compared with every `unsafe` of the source
//!   planted-faults       ── registry             ──▶ each fault is planted at one place
//!   *.md links, module headers, READMEs, examples
//! ```
//!
//! Every check is a function from the tree to findings; all are run, and one finding fails the verb.

mod constants;
mod crates;
mod doors;
mod faults;
mod headers;
mod invariants;
mod layers;
mod links;
mod source;
mod unsafety;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::shell::{Outcome, Workspace, root};
use source::Tree;

/// One thing that is not as the documents say.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the root.
    file: PathBuf,
    /// Counted from 1; 0 means the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(file: impl AsRef<Path>, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.as_ref().to_path_buf(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

/// What is compared, and what compares it.
type Check = (&'static str, fn(&Tree, &Workspace) -> Vec<Finding>);

const CHECKS: &[Check] = &[
    ("layers", layers::check),
    ("crates", crates::check),
    ("doors", doors::check),
    ("headers", headers::check),
    ("links", links::check),
    ("invariants", invariants::check),
    ("constants", constants::check),
    ("faults", faults::check),
    ("unsafe", unsafety::check),
    ("words", words::check),
];

/// Runs every check.
pub(crate) fn run() -> Outcome {
    let workspace = Workspace::load()?;
    let tree = Tree::load(root())?;
    let mut all = 0;
    for (name, check) in CHECKS {
        let mut findings = check(&tree, &workspace);
        findings.sort();
        println!(
            "tidy: {name:<10} {}",
            if findings.is_empty() { "ok".to_string() } else { format!("{} findings", findings.len()) }
        );
        for finding in &findings {
            println!("  {finding}");
        }
        all += findings.len();
    }
    if all == 0 { Ok(()) } else { Err(format!("tidy: {all} findings")) }
}
