//! Relative links in Markdown lead somewhere, and to a heading that exists.

use std::path::{Component, Path, PathBuf};

use super::Finding;
use super::source::{File, Tree};
use crate::shell::Workspace;

/// Checks `[text](target)` outside of code; links with a scheme are not looked at.
pub(crate) fn check(tree: &Tree, _: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.has_extension("md")) {
        for (line, target) in links(file) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if path.is_empty() { file.path.clone() } else { resolved(&file.path, path) };
            if !path.is_empty() && !tree.root.join(&linked).exists() && !tree.files.iter().any(|it| it.path == linked) {
                findings.push(Finding::new(&file.path, line, format!("{target} does not exist")));
                continue;
            }
            let document = tree.files.iter().find(|it| it.path == linked && it.has_extension("md"));
            if let (false, Some(document)) = (anchor.is_empty(), document)
                && !headings(document).any(|heading| slug(heading) == anchor)
            {
                findings.push(Finding::new(&file.path, line, format!("{} has no heading #{anchor}", linked.display())));
            }
        }
    }
    findings
}

/// Lines outside of code blocks.
fn prose(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    file.lines().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The targets of a file's links.
fn links(file: &File) -> impl Iterator<Item = (usize, &str)> {
    prose(file).flat_map(|(number, line)| {
        let pieces = line.match_indices("](").filter_map(move |(at, _)| {
            let in_code = line[..at].matches('`').count() % 2 == 1;
            let target = line[at + 2..].split_once(')')?.0;
            (!in_code).then_some((number, target))
        });
        pieces.collect::<Vec<_>>()
    })
}

fn headings(file: &File) -> impl Iterator<Item = &str> {
    prose(file)
        .map(|(_, line)| line)
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
}

/// A heading as an anchor: lower case, words joined by hyphens, punctuation gone.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.map(|it| if it == ' ' { '-' } else { it.to_ascii_lowercase() }).collect()
}

/// `target` as seen from `file`, relative to the root, without `..`.
fn resolved(file: &Path, target: &str) -> PathBuf {
    let mut path = file.parent().map(Path::to_path_buf).unwrap_or_default();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_and_anchors_are_found() {
        let text = "[a](b.md) [b](../crates/x/README.md) [c](https://x.y/z) [d](gone.md)\n[e](#two-words) [f](#no)\n\
                    ```\n[g](gone.md)\n```\n`[h](gone.md)` [i](b.md#here) [j](b.md#gone)\n## Two words!\n";
        let tree = Tree::of(&[("docs/a.md", text), ("docs/b.md", "# Here"), ("crates/x/README.md", "")]);
        let workspace = Workspace { packages: vec![], target_dir: "t".into() };
        let found: Vec<String> = check(&tree, &workspace).into_iter().map(|finding| finding.to_string()).collect();
        assert_eq!(
            found,
            [
                "docs/a.md:1: gone.md does not exist",
                "docs/a.md:2: docs/a.md has no heading #no",
                "docs/a.md:6: docs/b.md has no heading #gone",
            ]
        );
    }
}
