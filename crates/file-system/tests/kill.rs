//! What a process has stored survives its death: this test starts itself again as a child, and kills it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use file_system::{FileSystem, LogFileWay, RealFileSystem};

/// Tells the child where to store.
const DIRECTORY: &str = "FILE_SYSTEM_KILL_TEST_DIRECTORY";

const WAYS: [(&str, LogFileWay); 2] = [("mapped", LogFileWay::Mapped), ("written", LogFileWay::Written)];

/// Does nothing unless started as the child.
#[test]
fn as_a_child_store_and_wait() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let (dir, files) = (Path::new(&dir), RealFileSystem::new());
    let logs = WAYS.map(|(name, way)| files.create_log(&dir.join(name), 1 << 20, way).unwrap());
    for log in &logs {
        log.populate(0, 64 * 1024);
        for record in 0..5000_u64 {
            log.store(record * 140, &[record as u8 | 1; 140]).unwrap();
        }
    }
    let mut temporary = files.create_temporary(dir).unwrap();
    temporary.append(b"half a table").unwrap();
    println!("answer: stored");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// P2: neither a mapped nor a written store is lost with the process that made it; nor is it synced.
#[test]
fn stores_survive_kill_nine() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_child_store_and_wait", "--nocapture"])
        .env(DIRECTORY, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("answer: stored")));
    // SIGKILL on Unix, TerminateProcess on Windows.
    child.kill().unwrap();
    child.wait().unwrap();
    let files = RealFileSystem::new();
    for (name, _) in WAYS {
        let bytes = files.read(&dir.path().join(name), 1 << 20).unwrap();
        for (record, chunk) in bytes.chunks_exact(140).take(5000).enumerate() {
            assert_eq!(chunk, [record as u8 | 1; 140], "{name}, record {record}");
        }
        assert!(bytes[5000 * 140..].iter().all(|&byte| byte == 0));
    }
    // M2: what it left half done is known by its name.
    let left: Vec<String> = files.read_dir(dir.path()).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(left.len() == 3 && left[0].starts_with(file_system::TEMPORARY_PREFIX), "{left:?}");
}
