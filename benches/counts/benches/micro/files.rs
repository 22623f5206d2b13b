//! What the layers ask of the disk: stores into a log, syncs, maps of tables, files replaced.

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use file_system::{Environment, LogFile, LogFileWay, replace_file};
use tempfile::TempDir;

use crate::in_rounds;

/// A log segment, or a table.
const BYTES: u64 = 16 << 20;

/// What a record of 100 bytes takes in a log.
const RECORD: [u8; 136] = [0xA5; 136];

const PAGE: u64 = 4096;

fn new_log(way: LogFileWay) -> (Arc<dyn LogFile>, TempDir) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let log = Environment::real().files.create_log(&dir.path().join("log"), BYTES, way).expect("a new log");
    (log, dir)
}

pub(crate) fn benches(c: &mut Criterion) {
    let files = Environment::real().files;
    for (way, name) in [(LogFileWay::Mapped, "mapped"), (LogFileWay::Written, "written")] {
        let (log, _dir) = new_log(way);
        log.populate(0, BYTES);
        let mut at = 0;
        c.bench_function(&format!("file-system/store a record, {name}"), |b| {
            b.iter(|| {
                at = (at + RECORD.len() as u64) % (BYTES - RECORD.len() as u64);
                log.store(at, black_box(&RECORD)).expect("a store into the file");
            });
        });
        let mut at = 0;
        c.bench_function(&format!("file-system/store a page and sync, {name}"), |b| {
            b.iter(|| {
                at = (at + PAGE) % BYTES;
                log.store(at, &[0xA5; PAGE as usize]).expect("a store into the file");
                log.sync().expect("a sync");
            });
        });
    }
    c.bench_function("file-system/populate 64 KiB of a log", |b| {
        const STEP: u64 = 64 << 10;
        b.iter_custom(|steps| {
            let make = || new_log(LogFileWay::Mapped);
            in_rounds(steps, BYTES / STEP, make, |(log, _), now| {
                (0..now).for_each(|step| log.populate(step * STEP, STEP))
            })
        });
    });

    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("table");
    let mut table = files.create_temporary(dir.path()).expect("a new file");
    table.append(&vec![0x5A; BYTES as usize]).expect("an append");
    table.persist(&path).expect("a named file");
    c.bench_function("file-system/open and map a table, read a byte of it", |b| {
        b.iter(|| {
            let bytes = files.open(&path).expect("it is there").map().expect("a map");
            assert_eq!((bytes.len() as u64, bytes[black_box(0)]), (BYTES, 0x5A));
        });
    });
    let bytes = files.open(&path).expect("it is there").map().expect("a map");
    let mut at = 0;
    c.bench_function("file-system/ask for a page that is there", |b| {
        b.iter(|| {
            at = (at + PAGE as usize) % BYTES as usize;
            bytes.will_need(black_box(at), PAGE as usize);
        });
    });
    let mut replaced = 0_u64;
    c.bench_function("file-system/replace a file of 4 KiB", |b| {
        b.iter(|| {
            replaced += 1;
            replace_file(&*files, dir.path(), "global.json", &[replaced as u8; PAGE as usize])
                .expect("a replaced file");
        });
    });
    let stands = files.read(&dir.path().join("global.json"), PAGE);
    // Unless the name did not match what was asked for on the command line.
    assert!(replaced == 0 || stands.expect("it is there") == [replaced as u8; PAGE as usize]);
}
