//! File descriptors are a limited resource: none is left behind. Alone in its process, so that nobody else opens files.

#![cfg(target_os = "linux")]

use std::path::Path;

use file_system::{FileSystem, LogFileWay, RealFileSystem, replace_file};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn maps_of(dir: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
}

#[test]
fn no_descriptor_or_map_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFileSystem::new();
    let at = |name: &str| dir.path().join(name);
    let before = descriptors();
    for _ in 0..20 {
        let lock = files.lock_dir(dir.path()).unwrap();
        assert!(files.lock_dir(dir.path()).is_err());
        replace_file(&files, dir.path(), "f", b"bytes").unwrap();
        let file = files.open(&at("f")).unwrap();
        let map = file.map().unwrap();
        drop(file);
        assert_eq!(&*map, b"bytes");
        assert!(files.create_temporary(dir.path()).unwrap().persist(dir.path()).is_err());
        drop(files.create_temporary(dir.path()).unwrap());
        for way in [LogFileWay::Mapped, LogFileWay::Written] {
            let log = files.create_log(&at("log"), 8192, way).unwrap();
            assert!(files.create_log(&at("log"), 8192, way).is_err());
            assert!(files.create_log(&at("huge"), u64::MAX, way).is_err());
            log.store(0, b"x").unwrap();
            log.sync().unwrap();
            drop(log);
            drop(files.open_log(&at("log"), way).unwrap());
            files.remove_file(&at("log")).unwrap();
        }
        assert!(files.open(dir.path()).is_err());
        files.read_dir(dir.path()).unwrap();
        drop((lock, map));
    }
    assert_eq!(descriptors(), before);
    assert_eq!(maps_of(dir.path()), 0);
}
