//! Dependencies between crates of this workspace are exactly those that `docs/architecture.md` allows.

use super::Finding;
use super::source::{Tree, backticked, table_under};
use crate::shell::Workspace;

const DOCUMENT: &str = "docs/architecture.md";
const HEADING: &str = "Allowed dependencies";

/// Compares the table with Cargo's metadata, both ways, and that rows depend on rows above them only.
pub(crate) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    let Some(document) = tree.file(DOCUMENT) else {
        return vec![Finding::new(DOCUMENT, 0, "is missing: it holds the allowed dependencies")];
    };
    let mut findings = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    for (line, cells) in table_under(document, HEADING) {
        let mut find = |message: String| findings.push(Finding::new(DOCUMENT, line, message));
        let [name, uses, tests_use] = cells[..] else {
            find("a row has three cells: crate, what it uses, what its tests use besides".to_string());
            continue;
        };
        let Some(name) = backticked(name).next() else {
            find("the first cell names no crate in backticks".to_string());
            continue;
        };
        let Some(package) = workspace.package(name) else {
            find(format!("{name} is no package of this workspace"));
            continue;
        };
        let kinds = [("", uses, &package.dependencies), ("for tests ", tests_use, &package.dev_dependencies)];
        for (what, allowed, found) in kinds {
            let allowed: Vec<&str> = backticked(allowed).collect();
            for edge in found.iter().filter(|edge| !allowed.contains(&edge.as_str())) {
                find(format!("{name} uses {edge} {what}and the table does not allow it"));
            }
            for edge in allowed.iter().filter(|edge| !found.iter().any(|used| used == *edge)) {
                find(format!("{name} may use {edge} {what}but does not: the table says more than is true"));
            }
        }
        for edge in package.dependencies.iter().filter(|edge| !above.contains(&edge.as_str())) {
            find(format!("{name} uses {edge}, which does not stand above it: dependencies point one way"));
        }
        above.push(name);
    }
    for package in workspace.packages.iter().filter(|package| !above.contains(&package.name.as_str())) {
        findings.push(Finding::new(
            DOCUMENT,
            0,
            format!("{} is not in the table of allowed dependencies", package.name),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Package;

    fn package(name: &str, uses: &[&str], tests_use: &[&str]) -> Package {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Package {
            name: name.into(),
            dir: name.into(),
            dependencies: owned(uses),
            dev_dependencies: owned(tests_use),
            targets: vec![],
            has_description: true,
            has_license: true,
        }
    }

    fn messages(rows: &str, packages: Vec<Package>) -> Vec<String> {
        let text = format!("## Allowed dependencies\n\n| crate | uses | tests use |\n|---|---|---|\n{rows}");
        let tree = Tree::of(&[(DOCUMENT, &text)]);
        let workspace = Workspace { packages, target_dir: "t".into() };
        check(&tree, &workspace).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn an_edge_is_allowed_only_where_the_table_says_so() {
        let packages = || vec![package("a", &[], &[]), package("b", &["a"], &["t"]), package("t", &["a"], &[])];
        assert_eq!(messages("| `a` | | |\n| `t` | `a` | |\n| `b` | `a` | `t` |\n", packages()), [""; 0]);
        let found = messages("| `a` | | |\n| `t` | `a` | |\n| `b` | | `t`, `a` |\n", packages());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("b uses a") && found[1].contains("b may use a for tests"));
    }

    #[test]
    fn crates_and_rows_match_and_point_one_way() {
        let packages = || vec![package("a", &[], &[]), package("b", &["a"], &[])];
        assert!(messages("| `b` | `a` | |\n| `a` | | |\n", packages())[0].contains("does not stand above"));
        assert!(messages("| `a` | | |\n", packages())[0].contains("b is not in the table"));
        assert!(messages("| `a` | | |\n| `b` | `a` | |\n| `c` | | |\n", packages())[0].contains("c is no package"));
    }
}
