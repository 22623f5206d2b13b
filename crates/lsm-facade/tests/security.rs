//! Who may read a database: its owner alone, whatever the process's mask says, also after a repair.
#![cfg(unix)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::fill;
use lsm_facade::Database;

/// Every file and directory below `dir`, itself included, is its owner's alone.
#[track_caller]
fn assert_private(dir: &Path) -> usize {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir), 0o700, "{}", dir.display());
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += assert_private(&path);
        } else {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            files += 1;
        }
    }
    files
}

#[test]
fn every_file_is_its_owners_alone() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("new/db");
    let options = || Database::builder(&dir).background_threads(0).log_segment_bytes(16 << 10).edit_file_bytes(0);
    let database = options().open().unwrap();
    fill(&database);
    // While it is open: log, tables, level files, edit file, lock.
    assert!(assert_private(&dir) > 10);
    database.close().unwrap();
    drop(database);
    std::fs::remove_file(dir.join("global.json")).unwrap();
    let report = options().repair().unwrap();
    assert!(assert_private(&report.kept_aside) > 0);
    assert_private(&dir);
}
