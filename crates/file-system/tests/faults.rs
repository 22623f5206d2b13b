//! Injected errors, full disks, and what they leave.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use file_system::{
    Crash, Environment, Fault, FaultEffect, FileOperation, FileSystem, LogFileWay, Randomness, ReplaceError,
    SimulatedFileSystem, Simulation, replace_file,
};

fn root() -> &'static Path {
    Path::new("/")
}

fn names(files: &SimulatedFileSystem) -> Vec<String> {
    files.read_dir(root()).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Which of ten creations failed.
fn failures(files: &SimulatedFileSystem) -> Vec<usize> {
    (0..10).filter(|index| files.create_dir(Path::new(&format!("/d{index}"))).is_err()).collect()
}

#[test]
fn rules_choose_which_times_fail() {
    let files = SimulatedFileSystem::new(1);
    let create = Fault::on(FileOperation::Create);
    let id = files.inject(create.clone().nth(3));
    assert_eq!(failures(&files), [2]);
    assert_eq!(files.fault_hits(id), 1);
    files.remove_fault(id);
    assert_eq!(files.fault_hits(id), 0);
    files.inject(create.clone().from_nth(8));
    assert_eq!(failures(&files), [7, 8, 9]);
    files.clear_faults();
    assert!(failures(&files).is_empty());
    files.inject(create.path_ends_with("5"));
    files.inject(Fault::on_anything().path_contains("/d7"));
    assert_eq!(failures(&files), [5, 7]);
    let error = files.exists(Path::new("/d7")).unwrap_err();
    assert_eq!((error.kind(), error.operation), (ErrorKind::Other, FileOperation::Inspect));
}

#[test]
fn probabilities_repeat_with_the_seed() {
    let run = |seed| {
        let files = SimulatedFileSystem::new(seed);
        files.inject(Fault::on(FileOperation::Create).with_probability(0.5));
        failures(&files)
    };
    assert_eq!(run(1), run(1));
    let outcomes: BTreeSet<Vec<usize>> = (0..20).map(run).collect();
    assert!(outcomes.len() > 10);
    let files = SimulatedFileSystem::new(1);
    files.inject(Fault::on(FileOperation::Create).with_probability(0.0));
    assert!(failures(&files).is_empty());
    files.inject(Fault::on(FileOperation::Create).with_probability(1.0));
    assert_eq!(failures(&files).len(), 10);
}

#[test]
fn every_operation_can_fail_with_every_effect() {
    let effects = [
        (FaultEffect::InputOutput, ErrorKind::Other),
        (FaultEffect::NoSpace, ErrorKind::StorageFull),
        (FaultEffect::PermissionDenied, ErrorKind::PermissionDenied),
        (FaultEffect::ShortWrite, ErrorKind::WriteZero),
        (FaultEffect::Kind(ErrorKind::TimedOut), ErrorKind::TimedOut),
    ];
    let operations = [
        FileOperation::Open,
        FileOperation::Create,
        FileOperation::Allocate,
        FileOperation::Map,
        FileOperation::Read,
        FileOperation::Write,
        FileOperation::Sync,
        FileOperation::SyncDirectory,
        FileOperation::Rename,
        FileOperation::Remove,
        FileOperation::List,
        FileOperation::Inspect,
        FileOperation::Lock,
    ];
    for operation in operations {
        for (effect, kind) in effects {
            let files = SimulatedFileSystem::new(1);
            let fault = files.inject(Fault::on(operation).nth(1).effect(effect));
            // Everything once; the operation at fault stops it.
            let run = || -> Result<(), file_system::FileError> {
                let _lock = files.lock_dir(root())?;
                let mut file = files.create_temporary(root())?;
                file.append(b"x")?;
                file.sync()?;
                file.persist(Path::new("/f"))?;
                files.sync_dir(root())?;
                let log = files.create_log(Path::new("/log"), 100, LogFileWay::Mapped)?;
                log.store(0, b"y")?;
                log.sync()?;
                let file = files.open(Path::new("/f"))?;
                file.map()?;
                file.read_exact_at(0, &mut [0])?;
                files.file_len(Path::new("/f"))?;
                files.read_dir(root())?;
                files.remove_file(Path::new("/f"))
            };
            let error = run().expect_err("the operation was to fail");
            assert_eq!((error.operation, error.kind()), (operation, kind));
            assert_eq!(files.fault_hits(fault), 1);
        }
    }
}

/// P8: a failed sync drops what it should have written; later syncs succeed and do not bring it back.
#[test]
fn a_failed_sync_is_not_mended_by_a_later_one() {
    let files = SimulatedFileSystem::new(1);
    let log = files.create_log(Path::new("/log"), 4 * 4096, LogFileWay::Mapped).unwrap();
    log.sync().unwrap();
    files.sync_dir(root()).unwrap();
    log.store(0, b"first").unwrap();
    log.store(4096, b"second").unwrap();
    files.inject(Fault::on(FileOperation::Sync).nth(1));
    assert_eq!(log.sync().unwrap_err().operation, FileOperation::Sync);
    log.sync().unwrap();
    // Programs see the bytes as long as the machine runs.
    assert!(files.read(Path::new("/log"), u64::MAX).unwrap().starts_with(b"first"));
    let outcomes = |files: &SimulatedFileSystem| -> BTreeSet<(bool, bool)> {
        let images = (0..200).map(|seed| files.crash_image(Crash::PowerCut, seed));
        images
            .map(|image| {
                let bytes = image.read(Path::new("/log"), u64::MAX).unwrap();
                (bytes.starts_with(b"first"), bytes[4096..].starts_with(b"second"))
            })
            .collect()
    };
    assert!(outcomes(&files).contains(&(false, false)), "the second sync covered nothing");
    assert!(outcomes(&files).contains(&(true, true)), "the first one may have written before it failed");
    // A page that is written again goes to the disk whole.
    log.store(100, b"again").unwrap();
    log.sync().unwrap();
    assert!(outcomes(&files).iter().all(|&(first, _)| first));
    assert!(outcomes(&files).iter().any(|&(_, second)| !second));
}

#[test]
fn a_failed_directory_sync_leaves_the_names_open() {
    let files = SimulatedFileSystem::new(1);
    files.create_dir(Path::new("/d")).unwrap();
    files.inject(Fault::on(FileOperation::SyncDirectory).nth(1));
    files.sync_dir(root()).unwrap_err();
    let exists = |files: &SimulatedFileSystem| -> BTreeSet<bool> {
        (0..50).map(|seed| files.crash_image(Crash::PowerCut, seed).exists(Path::new("/d")).unwrap()).collect()
    };
    assert_eq!(exists(&files).len(), 2);
    files.sync_dir(root()).unwrap();
    assert_eq!(exists(&files), BTreeSet::from([true]));
}

#[test]
fn a_short_write_leaves_a_prefix() {
    let mut lengths = BTreeSet::new();
    for seed in 0..50 {
        let files = SimulatedFileSystem::new(seed);
        files.inject(Fault::on(FileOperation::Write).nth(2).effect(FaultEffect::ShortWrite));
        let mut file = files.create_temporary(root()).unwrap();
        file.append(b"first").unwrap();
        let error = file.append(b"second").unwrap_err();
        assert_eq!((error.kind(), error.offset), (ErrorKind::WriteZero, Some(5)));
        let bytes = files.read(file.path(), 100).unwrap();
        assert!(b"firstsecond".starts_with(&bytes) && (5..11).contains(&bytes.len()), "{bytes:?}");
        lengths.insert(bytes.len());
    }
    assert!(lengths.len() > 3);
}

/// P8: a full disk is certain: nothing changed, and work goes on when there is room.
#[test]
fn a_full_disk_is_certain_and_passes() {
    let files = SimulatedFileSystem::new(1);
    files.set_capacity(Some(5 * 4096));
    let log = files.create_log(Path::new("/log"), 3 * 4096, LogFileWay::Mapped).unwrap();
    assert_eq!(files.used_bytes(), 3 * 4096);
    let error = files.create_log(Path::new("/log2"), 3 * 4096, LogFileWay::Mapped).unwrap_err();
    assert!(error.is_out_of_space());
    assert_eq!(error.operation, FileOperation::Allocate);
    assert_eq!(names(&files), ["log"]);
    log.store(0, &[1; 3 * 4096]).unwrap();
    let mut file = files.create_temporary(root()).unwrap();
    file.append(&[1; 8192]).unwrap();
    let error = file.append(b"x").unwrap_err();
    assert!(error.is_out_of_space());
    assert_eq!((error.offset, file.len()), (Some(8192), 8192));
    // A removed file keeps its space while it is open.
    files.remove_file(Path::new("/log")).unwrap();
    assert!(file.append(b"x").is_err());
    drop(log);
    file.append(b"x").unwrap();
    assert_eq!(files.used_bytes(), 3 * 4096);
    files.set_capacity(None);
    file.append(&[1; 100_000]).unwrap();
    // The disk of a crash image is as large.
    files.set_capacity(Some(4096));
    assert!(files.crash_image(Crash::Kill, 0).create_log(Path::new("/log"), 4096, LogFileWay::Mapped).is_err());
}

/// L1: a file system not known to be safe is written by calls.
#[test]
fn the_way_of_a_log_is_what_the_file_system_allows() {
    let files = SimulatedFileSystem::new(1);
    let way = |path: &str| files.create_log(Path::new(path), 10, LogFileWay::Mapped).unwrap().way();
    assert_eq!(way("/a"), LogFileWay::Mapped);
    files.set_maps_logs(false);
    assert_eq!(way("/b"), LogFileWay::Written);
    assert_eq!(files.open_log(Path::new("/a"), LogFileWay::Mapped).unwrap().way(), LogFileWay::Written);
}

/// M7: up to the rename a failure is certain and leaves nothing; from then on the outcome is unknown.
#[test]
fn replacing_tells_certain_from_uncertain() {
    let steps = [
        (FileOperation::Create, true),
        (FileOperation::Write, true),
        (FileOperation::Sync, true),
        (FileOperation::Rename, true),
        (FileOperation::SyncDirectory, false),
    ];
    for (operation, certain) in steps {
        let files = SimulatedFileSystem::new(1);
        replace_file(&*files, root(), "f", b"old").unwrap();
        files.inject(Fault::on(operation).nth(1).effect(FaultEffect::NoSpace));
        let error = replace_file(&*files, root(), "f", b"new").unwrap_err();
        assert_eq!((error.file_error().operation, error.is_certain()), (operation, certain));
        assert_eq!(matches!(error, ReplaceError::Certain(_)), certain);
        assert_eq!(names(&files), ["f"], "no temporary file is left");
        let contents: BTreeSet<Vec<u8>> =
            (0..50).map(|seed| files.crash_image(Crash::PowerCut, seed).read(Path::new("/f"), 9).unwrap()).collect();
        let expected: &[&[u8]] = if certain { &[b"old"] } else { &[b"new", b"old"] };
        assert_eq!(contents.iter().map(Vec::as_slice).collect::<Vec<_>>(), expected, "{operation}");
        assert_eq!(error.to_string().contains("nothing was changed"), certain, "{error}");
        assert!(error.into_file_error().is_out_of_space());
        // What is certain can be repeated.
        replace_file(&*files, root(), "f", b"new").unwrap();
    }
}

/// A temporary file that cannot be removed stays, and its name tells what it is (M2).
#[test]
fn what_cannot_be_removed_stays() {
    let files = SimulatedFileSystem::new(1);
    files.inject(Fault::on(FileOperation::Remove));
    drop(files.create_temporary(root()).unwrap());
    files.inject(Fault::on(FileOperation::Allocate));
    files.create_log(Path::new("/log"), 4096, LogFileWay::Mapped).unwrap_err();
    assert_eq!(names(&files), [".tmp-000000", "log"]);
}

#[test]
fn the_trace_tells_what_happened() {
    let files = SimulatedFileSystem::new(1);
    files.inject(Fault::on(FileOperation::Sync).path_ends_with("log").effect(FaultEffect::NoSpace));
    replace_file(&*files, root(), "f", b"12345").unwrap();
    let log = files.create_log(Path::new("/log"), 4096, LogFileWay::Mapped).unwrap();
    log.store(64, b"abc").unwrap();
    log.sync().unwrap_err();
    let expected = "\
0 create /.tmp-000000
1 write /.tmp-000000 [0..5)
2 sync /.tmp-000000
3 rename /.tmp-000000 to f
4 sync directory /
5 create /log
6 allocate /log to 4096 bytes
7 write /log [64..67)
8 sync /log (failed: simulated: no space left on device)";
    assert_eq!(files.events().join("\n"), expected);
}

/// A seed repeats everything that is injected, and nothing of the real world leaks in.
#[test]
fn a_simulated_world_repeats_itself() {
    let draw = |environment: &Environment| {
        let numbers: Vec<u64> = (0..8).map(|_| environment.randomness.next_u64()).collect();
        (numbers, environment.clock.monotonic(), environment.clock.unix_time())
    };
    let one = draw(&Environment::simulated(5));
    assert_eq!(one, draw(&Simulation::new(5).environment()));
    assert_ne!(one.0, draw(&Environment::simulated(6)).0);
    assert_eq!(one.0.iter().collect::<BTreeSet<_>>().len(), 8);
    let simulation = Simulation::new(5);
    assert_eq!(simulation.randomness.next_u64(), one.0[0]);
    let environment = simulation.environment();
    environment.files.create_dir(Path::new("/d")).unwrap();
    assert_eq!(names(&simulation.files), ["d"]);
}

/// Who is held up waits before anything has happened, and holds up nobody else.
#[test]
fn an_operation_waits_until_it_is_let_go() {
    let files = SimulatedFileSystem::new(1);
    let held = files.hold_up(FileOperation::Create, "/log");
    assert!(!held.wait_until_reached(Duration::ZERO));
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| files.create_log(Path::new("/log"), 4096, LogFileWay::Mapped).map(drop));
        assert!(held.wait_until_reached(Duration::from_secs(60)), "{held:?}");
        files.create_dir(Path::new("/d")).unwrap();
        assert!(!creating.is_finished());
        assert_eq!(names(&files), ["d"]);
        drop(held);
        creating.join().unwrap().unwrap();
    });
    assert_eq!(files.events(), ["0 create /d", "1 create /log", "2 allocate /log to 4096 bytes"]);
}

/// What is held up when the process dies has not happened.
#[test]
fn an_operation_that_is_held_up_dies_with_the_process() {
    let files = SimulatedFileSystem::new(1);
    let held = files.hold_up(FileOperation::Create, "");
    std::thread::scope(|scope| {
        let creating = scope.spawn(|| files.create_dir(Path::new("/d")));
        assert!(held.wait_until_reached(Duration::from_secs(60)), "{held:?}");
        files.stop_at_event(0);
        files.sync_dir(root()).unwrap_err();
        drop(held);
        creating.join().unwrap().unwrap_err();
    });
    assert_eq!(files.event_count(), 0);
}
