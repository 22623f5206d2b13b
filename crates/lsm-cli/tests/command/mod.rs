//! Runs the built command and looks at what it says.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What a run of the command left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The output of a run that must have succeeded without a word on standard error.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, &*self.err), (0, ""), "{self:?}");
        self.out
    }

    /// What a run said that must have failed with `code`, all of it on standard error.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!((self.code, &*self.out), (code, ""), "{self:?}");
        assert!(self.err.starts_with("lsm: ") || code == 2, "{self:?}");
        self.err
    }
}

pub(crate) fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lsm"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

pub(crate) fn lsm<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Ran {
    ran(command(arguments).output().unwrap())
}

/// A directory with a database's path in it.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) db: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("db");
        Self { dir, db }
    }

    /// `lsm VERB <db> REST…`
    pub(crate) fn lsm(&self, verb: &str, rest: &[&str]) -> Ran {
        lsm([verb, self.db()].into_iter().chain(rest.iter().copied()))
    }

    pub(crate) fn db(&self) -> &str {
        self.db.to_str().unwrap()
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The files below the database whose name ends in `end`.
    pub(crate) fn files(&self, end: &str) -> Vec<PathBuf> {
        let (mut left, mut found) = (vec![self.db.clone()], Vec::new());
        while let Some(dir) = left.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    left.push(path);
                } else if path.to_string_lossy().ends_with(end) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

/// Flips a bit of a file.
pub(crate) fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

/// Starts a command that reports each batch, and returns when the first is committed. As nobody reads its further reports,
/// it stops by itself, in the middle, as soon as the pipe is full.
pub(crate) fn start_and_stop_in_the_middle(arguments: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut reports = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("committed") {
        line.clear();
        if reports.read_line(&mut line).unwrap() == 0 {
            panic!("the command ended without a report: {}", child.wait().unwrap());
        }
    }
    (child, reports)
}
