//! Limits that the system sets to a process: how many files it may have open, how long they may grow. Each is met in a
//! process of its own, which lowers its limit, meets it, and raises it again; a hang fails the test (P9).

#![cfg(unix)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lsm_facade::{Access, Database, DatabaseBuilder, Error, Health, Keyspace, KeyspaceOptions, Strategy};

/// Tells the child where its database is.
const DIRECTORY: &str = "LIMITS_TEST_DIRECTORY";

/// Runs one of the tests below as a child, for at most a minute.
#[track_caller]
fn in_a_child(test: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, dir.path().join("db"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > Duration::from_secs(60) => {
                child.kill().unwrap();
                panic!("P9: {test} hung");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert!(status.success(), "{test}: {status}; why stands above");
}

/// The resources of `setrlimit`, whose type differs between systems.
macro_rules! set_limit {
    ($resource:expr, $soft:expr) => {{
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a whole `rlimit`, which the call fills, and which the next only reads.
        let got = unsafe { libc::getrlimit($resource, &mut limit) };
        assert_eq!(got, 0);
        let before = limit.rlim_cur;
        limit.rlim_cur = $soft;
        // SAFETY: as above.
        let set = unsafe { libc::setrlimit($resource, &limit) };
        assert_eq!(set, 0);
        before
    }};
}

fn builder(dir: &Path) -> DatabaseBuilder {
    Database::builder(dir).background_threads(2).log_segment_bytes(64 << 10).access(Access::Pread).block_cache_bytes(0)
}

/// FIFO: no compaction joins the tables.
fn many_tables() -> KeyspaceOptions {
    KeyspaceOptions::default().memtable_bytes(16 << 10).write_buffer_bytes(1 << 20).strategy(Strategy::Fifo)
}

fn fill(keyspace: &Keyspace, from: u32, to: u32) -> Result<(), Error> {
    for number in from..to {
        keyspace.insert(number.to_be_bytes(), [number as u8; 100])?;
        if number % 4 == 3 {
            keyspace.flush()?;
        }
    }
    Ok(())
}

#[track_caller]
fn check(keyspace: &Keyspace, count: u32) {
    for number in 0..count {
        let value = keyspace.get(number.to_be_bytes()).unwrap();
        assert!(value.is_some_and(|value| *value == [number as u8; 100]), "{number}");
    }
}

/// P8: too many open files are an error of whoever meets it, and pass.
#[test]
fn the_limit_of_open_files_is_told_and_passes() {
    in_a_child("as_a_child_run_out_of_descriptors");
}

/// Does nothing unless started as the child.
#[test]
fn as_a_child_run_out_of_descriptors() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let database = builder(dir).open().unwrap();
    let keyspace = database.create_keyspace("a", many_tables()).unwrap();
    fill(&keyspace, 0, 200).unwrap();
    drop((keyspace, database));
    let database = builder(dir).open().unwrap();
    let keyspace = database.open_keyspace("a").unwrap();
    // Fifty tables, of which thirty fit.
    let before = set_limit!(libc::RLIMIT_NOFILE, 40);
    let mut refused = 0;
    for number in 0..200_u32 {
        match keyspace.get(number.to_be_bytes()) {
            Ok(value) => assert_eq!(*value.unwrap(), [number as u8; 100]),
            Err(Error::Io { source }) => {
                let text = source.to_string();
                assert!(text.contains(".sst"), "{text} names no table");
                refused += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(refused > 0, "the limit was met");
    // The same limit for writing: every call ends, with a typed error at most.
    let written = fill(&keyspace, 200, 300);
    if let Err(error) = &written {
        assert!(matches!(error, Error::Io { .. } | Error::Failed { .. }), "{error:?}");
    }
    set_limit!(libc::RLIMIT_NOFILE, before);
    // A directory that could not be opened to be synced may have left it unknown whether an edit is durable (M7).
    let failed = matches!(database.health(), Health::Failed { .. });
    assert!(!failed || written.is_err());
    let (database, keyspace) = if failed {
        drop((keyspace, database));
        let database = builder(dir).open().unwrap();
        let keyspace = database.open_keyspace("a").unwrap();
        (database, keyspace)
    } else {
        (database, keyspace)
    };
    check(&keyspace, 200);
    fill(&keyspace, 200, 300).unwrap();
    check(&keyspace, 300);
    database.wait_until_idle().unwrap();
    assert!(matches!(database.health(), Health::Well), "{}", database.health());
}

/// P8: a file that may not grow is a full disk: certain, and over when it may.
#[test]
fn the_limit_of_file_sizes_is_told_and_passes() {
    in_a_child("as_a_child_meet_the_limit_of_file_sizes");
}

/// Does nothing unless started as the child.
#[test]
fn as_a_child_meet_the_limit_of_file_sizes() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    // SAFETY: ignoring a signal installs no handler. Without this the system ends the process instead of failing the call.
    let before = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    assert_ne!(before, libc::SIG_ERR);
    let database = builder(Path::new(&dir)).open().unwrap();
    let keyspace = database.create_keyspace("a", many_tables().memtable_bytes(1 << 20)).unwrap();
    for number in 0..300_u32 {
        keyspace.insert(number.to_be_bytes(), [number as u8; 100]).unwrap();
    }
    let before = set_limit!(libc::RLIMIT_FSIZE, 16 << 10);
    let error = keyspace.flush().unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    // Whichever met the limit first: the flush's table, or the segment that is made ahead of need.
    let text = error.to_string();
    assert!(text.contains("tables") || text.contains(".wal"), "{text}");
    assert!(matches!(database.health(), Health::Degraded { .. }), "{}", database.health());
    check(&keyspace, 300);
    // The log goes on as long as its segments last, and then says so too.
    let mut count = 300_u32;
    let error = loop {
        match keyspace.insert(count.to_be_bytes(), [count as u8; 100]) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100_000, "a segment is longer than any file may be");
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    check(&keyspace, count);
    set_limit!(libc::RLIMIT_FSIZE, before);
    // What a worker had begun before may fail still, and is told to who waits: it may be tried again (P8).
    let again = |work: &dyn Fn() -> Result<(), Error>| {
        let begun = Instant::now();
        while let Err(error) = work() {
            let is_late = begun.elapsed() > Duration::from_secs(10);
            assert!(matches!(error, Error::DiskFull { .. }) && error.is_retryable() && !is_late, "{error:?}");
        }
    };
    again(&|| keyspace.insert(count.to_be_bytes(), [count as u8; 100]));
    again(&|| keyspace.flush());
    again(&|| database.wait_until_idle());
    assert!(matches!(database.health(), Health::Well), "{}", database.health());
    check(&keyspace, count + 1);
}
