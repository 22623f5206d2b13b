//! Each planted fault is planted at exactly one place in shipped code, and breaks an invariant that exists. Each required
//! step in the document of invariants names a fault that exists.

use planted_faults::{FAULTS, Fault};

use super::Finding;
use super::invariants::{defined, numbers_in};
use super::source::{File, Tree, lines_before_tests};
use crate::shell::Workspace;

const REGISTRY: &str = "crates/planted-faults/src/registry.rs";

/// Compares the registry with the calls of `planted`.
pub(crate) fn check(tree: &Tree, workspace: &Workspace) -> Vec<Finding> {
    compare(tree, workspace, FAULTS)
}

fn compare(tree: &Tree, workspace: &Workspace, faults: &[Fault]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut planted: Vec<(String, Finding)> = Vec::new();
    for file in tree.files.iter().filter(|file| is_planted_in(file)) {
        for (line, text) in lines_before_tests(file).filter(|(_, text)| !text.trim_start().starts_with("//")) {
            // Formatting may break a long call before its argument, which then stands on the next line.
            for (at, call) in text.match_indices("planted(") {
                let argument = text[at + call.len()..].trim_start();
                let next = file.text.lines().nth(line).unwrap_or_default().trim_start();
                let argument = if argument.is_empty() { next } else { argument };
                match argument.strip_prefix('"').and_then(|rest| rest.split_once('"')) {
                    Some((name, _)) => planted.push((name.to_string(), Finding::new(&file.path, line, ""))),
                    None => findings.push(Finding::new(&file.path, line, "a fault is planted by a literal name")),
                }
            }
        }
    }
    let invariants = tree.file(super::invariants::DOCUMENT).map(defined).unwrap_or_default();
    for fault in faults {
        let mut find = |message: String| findings.push(Finding::new(REGISTRY, 0, format!("{}: {message}", fault.name)));
        let places = planted.iter().filter(|(name, _)| name == fault.name).count();
        if places != 1 {
            find(format!("planted at {places} places instead of one"));
        }
        let broken = numbers_in(fault.breaks);
        if broken.is_empty() || broken.iter().any(|number| !invariants.iter().any(|(defined, _)| defined == number)) {
            find(format!("`{}` is no invariant of {}", fault.breaks, super::invariants::DOCUMENT));
        }
        match fault.catching_test() {
            Ok(test) if workspace.package(test.arguments[1]).is_none() => {
                find(format!("no package {}", test.arguments[1]))
            }
            Ok(_) => {}
            Err(why) => find(why),
        }
    }
    for (line, name) in tree.file(super::invariants::DOCUMENT).into_iter().flat_map(faults_of_required_steps) {
        if !faults.iter().any(|fault| fault.name == name) {
            findings.push(Finding::new(super::invariants::DOCUMENT, line, format!("{name} is not in {REGISTRY}")));
        }
    }
    for (name, place) in planted {
        if !faults.iter().any(|fault| fault.name == name) {
            findings.push(Finding { message: format!("{name} is planted but not in {REGISTRY}"), ..place });
        }
    }
    findings
}

/// The last column of the table of required steps, with its lines.
fn faults_of_required_steps(document: &File) -> Vec<(usize, String)> {
    let lines = document.text.lines().enumerate().skip_while(|(_, line)| *line != "## Required steps");
    let rows = lines.filter(|(_, line)| line.starts_with("| ") && line.ends_with("` |"));
    let fault = |line: &str| line.rsplit('`').nth(1).unwrap_or_default().to_string();
    rows.map(|(index, line)| (index + 1, fault(line))).collect()
}

/// Whether faults may stand in a file: shipped code of a crate other than the registry's.
fn is_planted_in(file: &File) -> bool {
    file.is_shipped_rust() && file.is_in("crates") && !file.is_in("crates/planted-faults")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_and_code_name_the_same_faults() {
        let tree = Tree::of(&[
            (
                "docs/invariants.md",
                "- **P1** Order.\n\n## Required steps\n\n| step | without |\n|---|---|\n| a | `one` |\n| b | `none` |\n",
            ),
            (
                "crates/a/src/a.rs",
                "/// planted(\"doc\")\nif planted(\"one\") {\nif planted(\n    \"two\",\n) || planted(\"two\")\nplanted(\"stray\")\n",
            ),
        ]);
        let package = crate::shell::Package {
            name: "a".into(),
            dir: "crates/a".into(),
            dependencies: vec![],
            dev_dependencies: vec![],
            targets: vec![],
            has_description: true,
            has_license: true,
        };
        let workspace = Workspace { packages: vec![package], target_dir: "t".into() };
        let faults = [
            Fault { name: "one", breaks: "P1", caught_by: "-p a --lib" },
            Fault { name: "two", breaks: "P1", caught_by: "-p a --lib" },
            Fault { name: "gone", breaks: "P7", caught_by: "-p b --lib" },
        ];
        let found: Vec<String> =
            compare(&tree, &workspace, &faults).into_iter().map(|finding| finding.message).collect();
        assert_eq!(
            found,
            [
                "two: planted at 2 places instead of one",
                "gone: planted at 0 places instead of one",
                "gone: `P7` is no invariant of docs/invariants.md",
                "gone: no package b",
                "none is not in crates/planted-faults/src/registry.rs",
                "stray is planted but not in crates/planted-faults/src/registry.rs",
            ]
        );
    }
}
