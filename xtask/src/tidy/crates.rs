//! Each crate has a README, an example, the workspace's lints, and says what it is and under which licence.

use super::Finding;
use super::source::Tree;
use crate::shell::Workspace;

/// Checks every package; those outside `crates/` need neither README nor example.
pub(crate) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let Ok(dir) = package.dir.strip_prefix(&tree.root) else { continue };
        let manifest = dir.join("Cargo.toml");
        let mut find = |message: &str| findings.push(Finding::new(&manifest, 0, message));
        let text = tree.files.iter().find(|file| file.path == manifest).map_or("", |file| file.text.as_str());
        if !has_workspace_lints(text) {
            find("takes no lints from the workspace: `[lints]` with `workspace = true`");
        }
        if !package.has_description || !package.has_license {
            find("needs a description and a license");
        }
        if !dir.starts_with("crates") {
            continue;
        }
        let readme = tree.files.iter().find(|file| file.path == dir.join("README.md"));
        // A title and one sentence are what a new crate starts with.
        if readme.is_none_or(|readme| readme.text.lines().filter(|line| !line.trim().is_empty()).count() < 5) {
            find("needs a README.md that says what the crate is, what it is not, and shows it in use");
        }
        if !package.targets.iter().any(|(kind, _)| kind == "example") {
            find("has no example (examples/*.rs)");
        }
    }
    findings
}

fn has_workspace_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.next() == Some("workspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Package;

    #[test]
    fn a_bare_crate_is_found() {
        let package = Package {
            name: "a".into(),
            dir: "crates/a".into(),
            dependencies: vec![],
            dev_dependencies: vec![],
            targets: vec![("lib".into(), "a".into())],
            has_description: false,
            has_license: true,
        };
        let workspace = Workspace { packages: vec![package.clone()], target_dir: "t".into() };
        let tree = Tree::of(&[("crates/a/Cargo.toml", "[package]\n"), ("crates/a/README.md", "# a\n\nOne line.\n")]);
        assert_eq!(check(&tree, &workspace).len(), 4);

        let targets = vec![("lib".into(), "a".into()), ("example".into(), "x".into())];
        let packages = vec![Package { has_description: true, targets, ..package }];
        let workspace = Workspace { packages, target_dir: "t".into() };
        let readme = "# a\n\nIs.\nIs not.\n```rust\nuse a;\n```\n";
        let tree = Tree::of(&[("crates/a/Cargo.toml", "[lints]\nworkspace = true\n"), ("crates/a/README.md", readme)]);
        assert_eq!(check(&tree, &workspace), []);
    }
}
