//! Files of every format that was ever released, committed, which must open for ever.
//!
//! `tests/formats/v1/json` and `v1/lines` hold the manifest of format 1, `former` that of the former layout, and the
//! `.txt` beside each what it says. New samples come from `write_samples`, which is ignored: a released file never changes.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{create_keyspace, files_below, real_environment, scripted_edits};
use manifest::{Edit, FollowerStore, ManifestOptions, ManifestStore, OpenMode};

const SAMPLES: [&str; 3] = ["v1/json", "v1/lines", "former"];

fn sample_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

/// The sample's files in a directory of the test's own.
fn copied(sample: &str) -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (sample_dir().join(sample), home.path().join("db"));
    for file in files_below(&real_environment(), &from) {
        fs::create_dir_all(to.join(&file).parent().unwrap()).unwrap();
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
    (home, to)
}

/// M1, M3, M4: a file that a released version wrote is read as it was meant.
#[test]
fn files_of_every_released_format_open() {
    let env = real_environment();
    for sample in SAMPLES {
        let (_home, dir) = copied(sample);
        let expected = fs::read_to_string(sample_dir().join(format!("{sample}.txt"))).unwrap();
        if sample != "former" {
            assert_eq!(FollowerStore::open(&env, &dir).unwrap().current().to_string(), expected, "{sample}");
        }
        let options = ManifestOptions::default();
        let store = ManifestStore::open(&env, &dir, OpenMode::ReadWrite, options).unwrap();
        assert_eq!(store.current().to_string(), expected, "{sample}");
        store.commit(common::parse_edit("last #99")).unwrap();
        drop(store);
        let store = ManifestStore::open(&env, &dir, OpenMode::ReadOnly, options).unwrap();
        assert_eq!(store.current().last_seqno, common::seqno(99), "{sample}");
    }
}

/// The bytes drawn in `docs/format.md` are those of a sample.
#[test]
fn the_worked_example_stands_in_the_documents() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    let page = fs::read_to_string(page).unwrap();
    for file in ["v1/json/global.json", "v1/json/keyspaces/1/level_1.9.json"] {
        let text = fs::read_to_string(sample_dir().join(file)).unwrap();
        assert!(page.contains(&text), "docs/format.md draws {file}");
    }
    let lines = fs::read(sample_dir().join("v1/lines/edits.8.jsonl")).unwrap();
    let end = lines.iter().position(|&byte| byte == b'\n').unwrap();
    let line = String::from_utf8(lines[..=end].to_vec()).unwrap();
    assert!(page.contains(&line), "docs/format.md draws the first line: {line}");
}

/// Writes the samples of this version. Only for a new format: run it by hand, and never over released files.
#[test]
#[ignore = "writes samples of a new format; run by hand"]
fn write_samples() {
    let env = real_environment();
    let json = ManifestOptions::default();
    let lines = ManifestOptions {
        edit_bytes_free: 0,
        job_bytes_divisor: 1 << 30,
        edit_file_bytes_min: 512,
        ..ManifestOptions::default()
    };
    for (sample, options) in [("v1/json", json), ("v1/lines", lines)] {
        let dir = sample_dir().join(sample);
        assert!(!dir.exists(), "{sample} is released");
        fs::create_dir_all(dir.parent().unwrap()).unwrap();
        let first = Edit::of(create_keyspace(1, "default"));
        let store = ManifestStore::create(&env, &dir, options, &first).unwrap();
        for edit in scripted_edits() {
            store.commit(edit).unwrap();
        }
        store.collect_obsolete().unwrap();
        fs::write(sample_dir().join(format!("{sample}.txt")), store.current().to_string()).unwrap();
    }
}
