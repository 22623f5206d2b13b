//! Finds the script files of a crate, runs each against its own fixture, and compares or rewrites them.

use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::script::{Fixture, Script};

/// If this environment variable is set and not empty, scripts are rewritten with what was found instead of compared.
pub const UPDATE_VARIABLE: &str = "LSM_GOLDEN_UPDATE";

/// Runs every script under `dir` (relative to the crate's root, subdirectories included), each against a fixture of its
/// own, in the order of their names. The format stands in [`crate::script`].
///
/// With [`UPDATE_VARIABLE`] set, files whose output differs are rewritten and named on standard error.
///
/// # Panics
/// If any output differs: the message holds file, line, commands and difference of all. If there is no script, or none
/// has a command: a test that cannot fail is a mistake. If a file is not readable UTF-8. If the fixture panics; file and
/// line of the command stand on standard error then.
pub fn run_scripts<F: Fixture>(dir: &str, make_fixture: impl FnMut() -> F) {
    let root = env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from).join(dir);
    let update = env::var_os(UPDATE_VARIABLE).is_some_and(|value| !value.is_empty());
    let failures = run_all(&root, update, make_fixture);
    assert!(failures.is_empty(), "golden scripts differ (`cargo xtask golden --update` rewrites them):\n{failures}");
}

/// Runs every script under `root` and returns what differs, as text; with `update`, rewrites it and returns nothing.
fn run_all<F: Fixture>(root: &Path, update: bool, mut make_fixture: impl FnMut() -> F) -> String {
    let mut files = Vec::new();
    collect_files(root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "no golden script under {}", root.display());

    let (mut failures, mut commands) = (String::new(), 0);
    for file in &files {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let script = Script::parse(&text);
        commands += script.commands();
        let mut place = Place { file, line: 0 };
        let (rewritten, mismatches) = script.run(&mut make_fixture(), |command| place.line = command.line_number());
        if update && !mismatches.is_empty() {
            fs::write(file, &rewritten).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            eprintln!("rewritten: {}", file.display());
        } else {
            for mismatch in mismatches {
                failures.push_str(&format!("\n{}:{}: {mismatch}", file.display(), mismatch.line));
            }
        }
    }
    assert!(commands > 0, "no script under {} has a command", root.display());
    failures
}

/// Says on standard error where a script was when its fixture panicked.
struct Place<'a> {
    file: &'a Path,
    line: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in golden script {}:{}", self.file.display(), self.line);
        }
    }
}

fn collect_files(dir: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", dir.display())).path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        if path.is_dir() {
            collect_files(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    /// Counts its commands: a fixture shared between files would go on counting.
    struct Counter(u32);

    impl Fixture for Counter {
        fn run(&mut self, _: &Command) -> String {
            self.0 += 1;
            self.0.to_string()
        }
    }

    /// A directory with these files, removed when it goes out of scope.
    struct Scripts(PathBuf);

    impl Scripts {
        fn new(test: &str, files: &[(&str, &str)]) -> Self {
            let root = env::temp_dir().join(format!("test-support-{test}-{}", std::process::id()));
            for (name, text) in files {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Scripts {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0); // What stays behind in the temporary directory hurts nobody.
        }
    }

    #[test]
    fn differences_name_file_and_line_and_update_mends_them() {
        let good = "count\n----\n1\n";
        let scripts = Scripts::new("update", &[("a.txt", good), ("deeper/b.txt", "# Two.\ncount\ncount\n----\n7\n")]);
        let failures = run_all(&scripts.0, false, || Counter(0));
        assert!(failures.contains("b.txt:5: line 5:\ncount\ncount\n----\n- 7\n+ 1\n+ 2\n"), "{failures}");
        assert!(!failures.contains("a.txt"), "{failures}");

        assert_eq!(run_all(&scripts.0, true, || Counter(0)), "");
        assert_eq!(scripts.read("deeper/b.txt"), "# Two.\ncount\ncount\n----\n1\n2\n");
        assert_eq!(scripts.read("a.txt"), good);
        assert_eq!(run_all(&scripts.0, false, || Counter(0)), "");
    }

    #[test]
    #[should_panic(expected = "has a command")]
    fn scripts_without_a_command_are_refused() {
        let scripts = Scripts::new("empty", &[("a.txt", "# Only a comment.\n")]);
        run_all(&scripts.0, false, || Counter(0));
    }
}
