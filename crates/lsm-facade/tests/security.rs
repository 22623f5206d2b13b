//! Who may read a database: its owner alone, whatever the process's mask says, also after a repair.
#![cfg(unix)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::fill;
use file_system::{Environment, RealFileSystem};
use lsm_facade::Database;

/// Every file and directory below `dir`, itself included, is its owner's alone.
#[track_caller]
fn assert_private(dir: &Path) -> usize {
    assert_modes(dir, 0o600, 0o700)
}

/// Every file and directory below `dir`, itself included, has its mode.
#[track_caller]
fn assert_modes(dir: &Path, file_mode: u32, dir_mode: u32) -> usize {
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir), dir_mode, "{}", dir.display());
    let mut files = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += assert_modes(&path, file_mode, dir_mode);
        } else {
            assert_eq!(mode(&path), file_mode, "{}", path.display());
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

#[test]
fn other_modes_are_had_by_asking() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("db");
    let mut environment = Environment::real();
    // Modes that the usual mask lets through.
    environment.files = std::sync::Arc::new(RealFileSystem::new().with_modes(0o400, 0o711));
    let database = Database::builder(&dir).environment(environment).background_threads(0).open().unwrap();
    fill(&database);
    assert!(assert_modes(&dir, 0o600, 0o711) > 5);
}
