//! The lock of a directory between two processes: this one, and itself started again as a child.

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use file_system::{FileOperation, FileSystem, RealFileSystem};

/// Tells the child which directory to lock.
const DIRECTORY: &str = "FILE_SYSTEM_LOCK_TEST_DIRECTORY";

/// Starts this test again as a child that tries to lock `dir`, says how it went, and holds on until its input ends.
fn child(dir: &Path) -> (Child, String) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_child_lock_and_wait", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let answer =
        lines.map(Result::unwrap).find_map(|line| line.split_once("answer: ").map(|(_, said)| said.to_owned()));
    (child, answer.expect("the child answers"))
}

/// Does nothing unless started as the child.
#[test]
fn as_a_child_lock_and_wait() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let lock = RealFileSystem::new().lock_dir(Path::new(&dir));
    match &lock {
        Ok(_) => println!("answer: locked"),
        Err(error) => println!("answer: {error}"),
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// One process holds a directory; another is told which.
#[test]
fn another_process_is_refused_and_told_who_holds_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let files = RealFileSystem::new();
    let lock = files.lock_dir(dir.path()).unwrap();
    let (mut refused, answer) = child(dir.path());
    assert!(answer.contains(&format!("process {} holds it", std::process::id())), "{answer}");
    assert!(answer.contains("LOCK"), "{answer}");
    drop(refused.stdin.take());
    assert!(refused.wait().unwrap().success());
    drop(lock);

    let (mut holder, answer) = child(dir.path());
    assert_eq!(answer, "locked");
    let error = files.lock_dir(dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.operation), (ErrorKind::WouldBlock, FileOperation::Lock));
    assert!(error.to_string().contains(&format!("process {} holds it", holder.id())), "{error}");
    // A holder that dies without a word holds nothing.
    holder.kill().unwrap();
    holder.wait().unwrap();
    drop(files.lock_dir(dir.path()).unwrap());
}
