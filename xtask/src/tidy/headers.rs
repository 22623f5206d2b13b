//! Every module says at its top what it is for.

use super::Finding;
use super::source::Tree;
use crate::shell::Workspace;

/// Every Rust file begins with `//!`, tests, examples and benchmarks too.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let rust = tree.files.iter().filter(|file| file.has_extension("rs"));
    let bare = rust.filter(|file| {
        let mut lines = file.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("#!["));
        !lines.next().is_some_and(|line| line.starts_with("//!"))
    });
    bare.map(|file| Finding::new(&file.path, 1, "a module begins with `//!`: its role, its invariants")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_header_is_found() {
        let workspace = Workspace { packages: vec![], target_dir: "t".into() };
        let tree = Tree::of(&[
            ("crates/a/src/a.rs", "//! Role.\n"),
            ("crates/a/tests/b.rs", "#![cfg(loom)]\n//! Role.\n"),
            ("crates/a/src/c.rs", "// Not a header.\nfn f() {}\n"),
            ("crates/a/src/d.rs", ""),
        ]);
        let found: Vec<_> = check(&tree, &workspace).into_iter().map(|finding| finding.file).collect();
        assert_eq!(found, ["crates/a/src/c.rs", "crates/a/src/d.rs"].map(std::path::PathBuf::from));
    }
}
