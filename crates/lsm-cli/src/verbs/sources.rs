//! Real data that any machine has that has just built this project: text files, line by line.
//!
//! ```text
//!   1  $CARGO_HOME/registry/src/*/*       the dependencies that Cargo unpacked
//!   2  $CARGO_HOME/git/checkouts/*/*      those that it checked out          ┐ only while
//!   3  sysroot/lib/rustlib/src/rust       the standard library, if there     │ there are
//!   4  this project's own tree            without target/ and hidden files   │ too few
//!   5  sysroot/share/doc                  Rust's documentation, if there     ┘
//! ```
//!
//! A file is taken unless it is larger than 4 MiB, has a zero byte in its first 8 KiB (it is no text), is a link or no
//! file, or has a colon in its path. A line's key is `label/path:line`, the line in seven digits: so keys of one file
//! stand together and in the order of its lines, and files stand in the order of their prefixes, as no prefix begins
//! another.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::failure::{Failure, Outcome};

/// Larger files are left out.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file with a zero byte among so many first ones is no text.
const PROBED_BYTES: usize = 8 << 10;

/// One text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceFile {
    /// What the keys of its lines begin with: `label/path:`.
    pub(super) prefix: Vec<u8>,
    pub(super) path: PathBuf,
    pub(super) lines: u64,
    /// xxh3 of its content when it was found.
    checksum: u64,
}

impl SourceFile {
    /// Its content, which must be what it was.
    pub(super) fn read(&self) -> Outcome<Vec<u8>> {
        let content = std::fs::read(&self.path).map_err(|error| Failure::reading(&self.path, &error))?;
        if xxhash_rust::xxh3::xxh3_64(&content) != self.checksum {
            return Err(Failure::failed(format_args!("{} changes while it is loaded", self.path.display())));
        }
        Ok(content)
    }

    /// Puts the key of a line, counted from 1, into `key`.
    pub(super) fn key(&self, line: u64, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(&self.prefix);
        let digits = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1].map(|unit| b'0' + (line / unit % 10) as u8);
        key.extend_from_slice(&digits);
    }
}

/// The lines of a file without their line feeds. A last line may lack its own; other bytes are kept as they are.
pub(super) fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = content.strip_suffix(b"\n").unwrap_or(content);
    let lines = body.split(|&byte| byte == b'\n');
    lines.take(if content.is_empty() { 0 } else { usize::MAX })
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) files: Vec<SourceFile>,
    pub(super) entries: u64,
    pub(super) logical_bytes: u64,
    trees: usize,
    large: u64,
    binary: u64,
    labels: HashSet<String>,
}

/// What was found, on a line.
impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, trees, large, binary, .. } = self;
        write!(f, "{} text files of {trees} source trees", crate::text::grouped(files.len() as u64))?;
        write!(f, " ({binary} without text and {large} above 4 MiB left out)")
    }
}

impl Sources {
    /// Files below `dirs`.
    pub(super) fn below(dirs: &[PathBuf], most: u64) -> Outcome<Self> {
        let mut sources = Self::default();
        for dir in dirs {
            let whole = std::fs::canonicalize(dir).map_err(|error| Failure::reading(dir, &error))?;
            let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sources.tree(&name, dir, most)?;
        }
        Ok(sources)
    }

    /// Files that every machine has that has built this project: more and more kinds of them until there are `least`.
    pub(super) fn of_this_machine(least: u64, most: u64) -> Outcome<Self> {
        let mut sources = Self::default();
        let cargo = cargo_home();
        for (kind, below) in [("registry/src", ""), ("git/checkouts", "git-")] {
            let Some(cargo) = &cargo else { break };
            if kind != "registry/src" && sources.entries >= least {
                break;
            }
            for outer in directories(&cargo.join(kind)) {
                for tree in directories(&outer) {
                    let name = tree.file_name().unwrap_or_default().to_string_lossy();
                    let outer = outer.file_name().unwrap_or_default().to_string_lossy();
                    let label = if below.is_empty() { name.into_owned() } else { format!("{below}{outer}-{name}") };
                    sources.tree(&label, &tree, most)?;
                }
            }
        }
        let mut more: Vec<(&str, PathBuf)> = Vec::new();
        if sources.entries < least {
            let sysroot = sysroot();
            more.extend(sysroot.iter().map(|root| ("rust-src", root.join("lib/rustlib/src/rust"))));
            more.push(("this-project", Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")));
            more.extend(sysroot.iter().map(|root| ("rust-doc", root.join("share/doc"))));
        }
        for (label, tree) in more {
            if sources.entries < least && tree.is_dir() {
                sources.tree(label, &tree, most)?;
            }
        }
        Ok(sources)
    }

    /// Tells these files, as they are now, from others.
    pub(super) fn identity(&self) -> u64 {
        let mut hash = Xxh3::new();
        for file in &self.files {
            hash.update(&file.prefix);
            hash.update(&file.checksum.to_le_bytes());
        }
        hash.digest()
    }

    /// Takes the files of one tree until there are `most` entries.
    fn tree(&mut self, label: &str, root: &Path, most: u64) -> Outcome {
        // The same release can be unpacked from two registries: its lines would have the same keys.
        if self.entries >= most || label.contains(':') || !self.labels.insert(label.to_owned()) {
            return Ok(());
        }
        let before = self.files.len();
        let mut left = vec![(root.to_owned(), format!("{label}/").into_bytes())];
        while let Some((dir, prefix)) = left.pop() {
            let mut entries: Vec<_> = match std::fs::read_dir(&dir) {
                Ok(entries) => entries.flatten().collect(),
                // A tree that this user may not read is not fit for this purpose, and nothing else is wrong with it.
                Err(_) if dir != root => continue,
                Err(error) => return Err(Failure::reading(&dir, &error)),
            };
            entries.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
            for entry in entries {
                let (Ok(kind), name) = (entry.file_type(), entry.file_name()) else { continue };
                let name = name.as_encoded_bytes();
                let skipped = dir == root && name == b"target" || name.starts_with(b".git") && kind.is_dir();
                if name.contains(&b':') || skipped {
                    continue;
                }
                let mut prefix = prefix.clone();
                prefix.extend_from_slice(name);
                if kind.is_dir() {
                    prefix.push(b'/');
                    left.push((entry.path(), prefix));
                } else if kind.is_file() && self.entries < most {
                    prefix.push(b':');
                    self.file(entry.path(), prefix);
                }
            }
        }
        self.trees += usize::from(self.files.len() > before);
        Ok(())
    }

    /// Takes a file if it is text. One that cannot be read is passed over.
    fn file(&mut self, path: PathBuf, prefix: Vec<u8>) {
        let Ok(mut file) = std::fs::File::open(&path) else { return };
        if file.metadata().is_ok_and(|data| data.len() > FILE_BYTES_MAX) {
            self.large += 1;
            return;
        }
        let mut content = Vec::new();
        if file.read_to_end(&mut content).is_err() {
            return;
        }
        if content[..content.len().min(PROBED_BYTES)].contains(&0) {
            self.binary += 1;
            return;
        }
        let count = lines(&content).count() as u64;
        if count == 0 {
            return;
        }
        self.entries += count;
        let text: u64 = lines(&content).map(|line| line.len() as u64).sum();
        self.logical_bytes += text + count * (prefix.len() as u64 + 7);
        self.files.push(SourceFile { prefix, path, lines: count, checksum: xxhash_rust::xxh3::xxh3_64(&content) });
    }
}

fn cargo_home() -> Option<PathBuf> {
    let told = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    told.or_else(|| Some(std::env::home_dir()?.join(".cargo")))
}

/// Where the toolchain lies, if there is one.
fn sysroot() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim_end()))
}

/// The directories in a directory, in order; none if it cannot be read.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_as_they_are() {
        let of = |text: &'static [u8]| lines(text).collect::<Vec<_>>();
        assert_eq!(of(b""), [b""; 0]);
        assert_eq!(of(b"\n"), [b""]);
        assert_eq!(of(b"a\r\n\n\xff"), [&b"a\r"[..], b"", b"\xff"]);
    }

    #[test]
    fn only_text_is_taken_and_keys_ascend_with_the_lines() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        std::fs::create_dir_all(root.join("target")).unwrap();
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("target/left-out"), "x").unwrap();
        std::fs::write(root.join("sub/b.txt"), "1\n2\n").unwrap();
        std::fs::write(root.join("a.txt"), "1").unwrap();
        std::fs::write(root.join("binary"), b"a\0b").unwrap();
        std::fs::write(root.join("large"), vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        std::fs::write(root.join("empty"), "").unwrap();
        let sources = Sources::below(&[root], u64::MAX).unwrap();
        let mut prefixes: Vec<_> = sources.files.iter().map(|file| file.prefix.escape_ascii().to_string()).collect();
        prefixes.sort();
        assert_eq!(prefixes, ["tree/a.txt:", "tree/sub/b.txt:"]);
        assert_eq!((sources.entries, sources.binary, sources.large), (3, 1, 1));
        let mut key = Vec::new();
        sources.files[0].key(1_234_567, &mut key);
        assert!(key.ends_with(b":1234567"));
    }
}
