//! What the tests share: edits written as text, a world with fixed random numbers, a directory drawn.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use file_system::{Environment, Randomness};
use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, SeqNo, TableId};
use manifest::{AddedTable, Change, Claim, Edit, LogFloor, Manifest, TableEntry};

/// Counts instead of dicing, so that a run's bytes are the same every time.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

impl Randomness for Counting {
    fn next_u64(&self) -> u64 {
        // Relaxed: only the number matters, nothing is ordered by it.
        0xC0DE_0000_0000_0000 + self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// The real file system with counted random numbers.
pub(crate) fn real_environment() -> Environment {
    Environment { randomness: Arc::new(Counting::default()), ..Environment::real() }
}

pub(crate) fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}

/// A table of 1 MiB with these keys and seqnos.
pub(crate) fn table(id: u64, min_key: &[u8], max_key: &[u8], seqnos: (u64, u64)) -> TableEntry {
    TableEntry {
        id: TableId(id),
        bytes: 1 << 20,
        checksum: 0xABCD_0000 + id,
        min_key: min_key.into(),
        max_key: max_key.into(),
        min_seqno: seqno(seqnos.0),
        max_seqno: seqno(seqnos.1),
        entries: 10,
        tombstones: 1,
        logical_bytes: 2 << 20,
        epoch: Epoch(1),
        job: JobId(1),
        seqno_base: 0,
        newest_unix_ms: 0,
    }
}

pub(crate) fn create_keyspace(id: u32, name: &str) -> Change {
    Change::CreateKeyspace {
        id: KeyspaceId(id),
        name: name.into(),
        options: BTreeMap::new(),
        created_seqno: SeqNo::ZERO,
    }
}

/// An edit, a change a line:
///
/// ```text
/// create 1 default at=0 [compression=lz4]
/// drop 1
/// clear 1 at=9
/// replace 1 [flushed=9] - L0:t4 - L0:t5 + L1:e3:t6[a..c #1..#9] + …
/// history 1 #5
/// claim seg1 4096
/// floor seg2 salt=7
/// last #9
/// next t9 seg3 job4 e5
/// closed true
/// ```
pub(crate) fn parse_edit(text: &str) -> Edit {
    let changes = text.lines().filter(|line| !line.trim().is_empty()).map(|line| parse_change(line.trim()));
    Edit { changes: changes.collect() }
}

fn parse_change(line: &str) -> Change {
    let words: Vec<&str> = line.split_whitespace().collect();
    let id = |index: usize| KeyspaceId(words[index].parse().unwrap_or_else(|_| panic!("a keyspace in {line:?}")));
    let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let prefixed = |index: usize, prefix: &str| parse_number(words[index], prefix);
    match words[0] {
        "create" => Change::CreateKeyspace {
            id: id(1),
            name: words[2].into(),
            options: words[3..]
                .iter()
                .filter_map(|word| word.split_once('='))
                .filter(|(name, _)| *name != "at")
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect(),
            created_seqno: seqno(option("at").map_or(0, |at| at.parse().unwrap())),
        },
        "drop" => Change::DropKeyspace { id: id(1) },
        "clear" => Change::ClearKeyspace { id: id(1), at: seqno(option("at").unwrap().parse().unwrap()) },
        "replace" => {
            let rest = line.splitn(3, ' ').nth(2).unwrap_or_default();
            let rest = rest.strip_prefix("flushed=").map_or(rest, |rest| rest.split_once(' ').map_or("", |(_, r)| r));
            let (mut removed, mut added) = (Vec::new(), Vec::new());
            for part in
                rest.split_inclusive(['+', '-']).collect::<String>().replace('+', "\n+").replace('-', "\n-").lines()
            {
                let part = part.trim();
                if let Some(part) = part.strip_prefix('-') {
                    let (level, id) = part.trim().split_once(':').unwrap();
                    removed.push((parse_level(level), TableId(parse_number(id, "t"))));
                } else if let Some(part) = part.strip_prefix('+') {
                    let mut parts = part.trim().splitn(3, ':');
                    let level = parse_level(parts.next().unwrap());
                    let run = Epoch(parse_number(parts.next().unwrap(), "e"));
                    added.push(AddedTable { level, run, table: Arc::new(parse_table(parts.next().unwrap(), run)) });
                }
            }
            let flushed_seqno = option("flushed").map(|number| seqno(number.parse().unwrap()));
            Change::ReplaceTables { keyspace: id(1), removed, added, flushed_seqno }
        }
        "history" => Change::RaiseHistoryFloor { keyspace: id(1), to: seqno(prefixed(2, "#")) },
        "claim" => Change::RaiseClaim(Claim { segment: SegmentId(prefixed(1, "seg")), offset: prefixed(2, "") }),
        "floor" => Change::RaiseLogFloor(LogFloor {
            segment: SegmentId(prefixed(1, "seg")),
            salt: option("salt").map_or(0, |salt| salt.parse().unwrap()),
        }),
        "last" => Change::RaiseLastSeqno(seqno(prefixed(1, "#"))),
        "next" => Change::RaiseNextIds {
            table: TableId(prefixed(1, "t")),
            segment: SegmentId(prefixed(2, "seg")),
            job: JobId(prefixed(3, "job")),
            epoch: Epoch(prefixed(4, "e")),
        },
        "end-log" => Change::EndLog,
        "closed" => Change::SetClosedCleanly(words[1] == "true"),
        other => panic!("unknown change {other:?}"),
    }
}

fn parse_number(word: &str, prefix: &str) -> u64 {
    let digits = word.strip_prefix(prefix).unwrap_or_else(|| panic!("{prefix}N expected, found {word:?}"));
    digits.parse().unwrap_or_else(|_| panic!("{prefix}N expected, found {word:?}"))
}

fn parse_level(word: &str) -> Level {
    Level(parse_number(word, "L") as u8)
}

/// `t6[a..c #1..#9]`
fn parse_table(text: &str, epoch: Epoch) -> TableEntry {
    let (id, rest) = text.trim().split_once('[').unwrap_or_else(|| panic!("a table expected, found {text:?}"));
    let (keys, seqnos) = rest.strip_suffix(']').unwrap().rsplit_once(' ').unwrap();
    let (min_key, max_key) = keys.split_once("..").unwrap();
    let (first, last) = seqnos.split_once("..").unwrap();
    let seqnos = (parse_number(first, "#"), parse_number(last, "#"));
    TableEntry { epoch, ..table(parse_number(id, "t"), min_key.as_bytes(), max_key.as_bytes(), seqnos) }
}

/// Every file below `dir`, sorted, relative.
pub(crate) fn files_below(env: &Environment, dir: &Path) -> Vec<PathBuf> {
    fn walk(env: &Environment, root: &Path, dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in env.files.read_dir(dir).unwrap() {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                walk(env, root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(env, dir, dir, &mut found);
    found.sort();
    found
}

/// What a manifest says, without what only counts commits and names files: equal for equal histories.
pub(crate) fn content(manifest: &Manifest) -> Manifest {
    let mut content = manifest.clone();
    content.generation = 0;
    for keyspace in content.keyspaces.values_mut() {
        for level in &mut Arc::make_mut(keyspace).levels {
            let level = Arc::make_mut(level);
            (level.generation, level.checksum) = (0, 0);
        }
    }
    content
}

/// A life of a database: flushes, compactions, keyspaces that come and go, and numbers that rise.
pub(crate) fn scripted_edits() -> Vec<Edit> {
    [
        "replace 1 flushed=5 + L0:e1:t1[a..m #1..#5]\nclaim seg1 4096\nfloor seg1 salt=5",
        "create 2 users at=5",
        "replace 1 flushed=9 + L0:e2:t2[c..z #6..#9]\nclaim seg1 8192",
        "replace 2 flushed=8 + L0:e3:t3[k..k #7..#8]",
        "replace 1 - L0:t1 - L0:t2 + L1:e2:t4[a..k #1..#8] + L1:e2:t5[l..z #2..#9]",
        "replace 1 flushed=12 + L0:e4:t6[a..b #10..#12]\nreplace 2 - L0:t3 + L1:e3:t3[k..k #7..#8]",
        "clear 2 at=13",
        "replace 1 - L0:t6 + L1:e2:t7[zz..zz #10..#12]\nhistory 1 #4",
        "drop 2\ncreate 3 users at=14 compression=lz4",
        "replace 3 flushed=20 + L0:e5:t8[q..r #15..#20]",
        "closed true",
    ]
    .into_iter()
    .map(parse_edit)
    .collect()
}
