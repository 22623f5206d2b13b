//! What every file system promises, run over the real one and the simulated one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use file_system::{
    DirectoryEntry, FileOperation, FileSystem, LOCK_INFO_NAME, LOCK_NAME, LogFileWay, RealFileSystem,
    SimulatedFileSystem, TEMPORARY_PREFIX,
};

/// A file system and an empty directory in it.
struct World {
    files: Arc<dyn FileSystem>,
    root: PathBuf,
    /// Removes a real directory at the end.
    _cleanup: Option<tempfile::TempDir>,
}

impl World {
    fn real() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { files: Arc::new(RealFileSystem::new()), root: dir.path().to_owned(), _cleanup: Some(dir) }
    }

    fn simulated() -> Self {
        let files = SimulatedFileSystem::new(1);
        files.create_dir(Path::new("/root")).unwrap();
        Self { files, root: "/root".into(), _cleanup: None }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let mut file = self.files.create_temporary(&self.root).unwrap();
        file.append(bytes).unwrap();
        file.persist(&self.at(name)).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.files.read(&self.at(name), u64::MAX).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.files.read_dir(&self.root).unwrap().into_iter().map(|entry| entry.name).collect()
    }
}

macro_rules! over_both {
    ($($(#[$attribute:meta])* fn $name:ident($world:ident: World) $body:block)*) => {
        $(fn $name($world: World) $body)*

        mod real {
            $($(#[$attribute])* #[test] fn $name() { super::$name(super::World::real()); })*
        }

        mod simulated {
            $($(#[$attribute])* #[test] fn $name() { super::$name(super::World::simulated()); })*
        }
    };
}

over_both! {
    /// M6: a directory can be created again, and a file in its place is refused.
    fn creating_a_directory_twice_is_fine(world: World) {
        let dir = world.at("d");
        world.files.create_dir(&dir).unwrap();
        world.files.create_dir(&dir).unwrap();
        assert_eq!(world.files.read_dir(&world.root).unwrap(), [DirectoryEntry { name: "d".into(), is_dir: true }]);
        world.files.sync_dir(&dir).unwrap();
        world.write("f", b"");
        let error = world.files.create_dir(&world.at("f")).unwrap_err();
        assert_eq!((error.kind(), error.operation), (ErrorKind::AlreadyExists, FileOperation::Create));
        let error = world.files.create_dir(&world.at("missing/d")).unwrap_err();
        assert!(error.is_not_found(), "{error}");
    }

    fn what_is_missing_is_not_found(world: World) {
        let missing = world.at("missing");
        assert!(!world.files.exists(&missing).unwrap());
        assert!(world.files.exists(&world.root).unwrap());
        let errors = [
            world.files.open(&missing).unwrap_err(),
            world.files.open_log(&missing, LogFileWay::Mapped).unwrap_err(),
            world.files.create_temporary(&missing).unwrap_err(),
            world.files.create_log(&missing.join("log"), 4096, LogFileWay::Mapped).unwrap_err(),
            world.files.rename(&missing, &world.at("to")).unwrap_err(),
            world.files.remove_file(&missing).unwrap_err(),
            world.files.remove_dir(&missing).unwrap_err(),
            world.files.read_dir(&missing).unwrap_err(),
            world.files.file_len(&missing).unwrap_err(),
            world.files.link_count(&missing).unwrap_err(),
            world.files.hard_link(&missing, &world.at("to")).unwrap_err(),
            world.files.sync_dir(&missing).unwrap_err(),
            world.files.lock_dir(&missing).unwrap_err(),
            world.files.read(&missing, 10).unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_not_found(), "{error}");
            assert!(!error.is_out_of_space());
        }
        assert!(world.names().is_empty());
    }

    /// M1: a file appears under its name whole, by a rename, and the temporary name is told apart (M2).
    fn temporary_files_appear_whole(world: World) {
        let mut file = world.files.create_temporary(&world.root).unwrap();
        assert!(file.is_empty());
        file.append(b"one ").unwrap();
        file.append(b"two").unwrap();
        assert_eq!(file.len(), 7);
        let name = file.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.starts_with(TEMPORARY_PREFIX), "{name}");
        assert_eq!(file.path().parent(), Some(world.root.as_path()));
        assert_eq!(world.names(), [name]);
        file.sync().unwrap();
        file.persist(&world.at("table")).unwrap();
        assert_eq!(world.names(), ["table"]);
        world.files.sync_dir(&world.root).unwrap();
        assert_eq!(world.read("table"), b"one two");
        world.write("table", b"replaced");
        assert_eq!(world.read("table"), b"replaced");
    }

    fn temporary_files_go_when_dropped(world: World) {
        let mut file = world.files.create_temporary(&world.root).unwrap();
        file.append(b"x").unwrap();
        drop(file);
        assert!(world.names().is_empty());
        // A failed rename is certain: the target stands, the temporary file is gone.
        world.files.create_dir(&world.at("d")).unwrap();
        let error = world.files.create_temporary(&world.root).unwrap().persist(&world.at("d")).unwrap_err();
        assert_eq!(error.operation, FileOperation::Rename);
        assert_eq!(world.names(), ["d"]);
    }

    fn two_temporary_files_have_two_names(world: World) {
        let one = world.files.create_temporary(&world.root).unwrap();
        let two = world.files.create_temporary(&world.root).unwrap();
        assert_ne!(one.path(), two.path());
        assert_eq!(world.names().len(), 2);
    }

    fn reading_is_exact_and_at_any_offset(world: World) {
        let bytes: Vec<u8> = (0..20_000_u32).map(|i| i as u8).collect();
        world.write("f", &bytes);
        let file = world.files.open(&world.at("f")).unwrap();
        assert_eq!((file.len(), file.is_empty(), file.path()), (20_000, false, world.at("f").as_path()));
        for (offset, length) in [(0, 20_000), (4095, 2), (4096, 4096), (19_999, 1), (20_000, 0), (123, 9_000)] {
            let mut buffer = vec![0; length];
            file.read_exact_at(offset, &mut buffer).unwrap();
            assert_eq!(buffer, bytes[offset as usize..][..length]);
        }
        for (offset, length) in [(19_999, 2), (20_000, 1), (1 << 40, 1)] {
            let error = file.read_exact_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!((error.kind(), error.operation), (ErrorKind::UnexpectedEof, FileOperation::Read));
            assert_eq!(error.offset, Some(offset));
        }
        assert_eq!(*file.map().unwrap(), *bytes);
        assert_eq!(world.files.file_len(&world.at("f")).unwrap(), 20_000);
    }

    fn reading_whole_files_is_bounded(world: World) {
        world.write("f", b"12345");
        assert_eq!(world.files.read(&world.at("f"), 5).unwrap(), b"12345");
        let error = world.files.read(&world.at("f"), 4).unwrap_err();
        assert_eq!((error.kind(), error.operation), (ErrorKind::InvalidData, FileOperation::Read));
    }

    /// L3: no byte that was written is left out, whether it reached the disk or not; what is, reads as zeros.
    fn only_what_was_never_written_is_left_out(world: World) {
        let path = world.at("log");
        let log = world.files.create_log(&path, 1 << 20, LogFileWay::Mapped).unwrap();
        let places = [8, 4095, 300_000, (1 << 20) - 1];
        for place in places {
            log.store(place, b"x").unwrap();
        }
        let file = world.files.open(&path).unwrap();
        for from in [0, 8, 9, 4096, 300_000, 300_001, 1 << 20] {
            let ranges = file.written_ranges(from);
            assert!(ranges.iter().all(|range| from <= range.start && range.start < range.end), "{ranges:?} from {from}");
            assert!(ranges.is_sorted_by(|one, next| one.end <= next.start), "{ranges:?} from {from}");
            assert!(ranges.last().is_none_or(|last| last.end <= 1 << 20), "{ranges:?} from {from}");
            for place in places.into_iter().filter(|place| *place >= from) {
                assert!(ranges.iter().any(|range| range.contains(&place)), "{ranges:?} from {from}: {place} is missing");
            }
        }
    }

    fn an_empty_file_can_be_mapped(world: World) {
        world.write("empty", b"");
        let file = world.files.open(&world.at("empty")).unwrap();
        assert!(file.is_empty());
        assert!(file.map().unwrap().is_empty());
        assert_eq!(world.read("empty"), b"");
    }

    /// R5: who holds a file reads on after its name is gone.
    fn held_files_outlive_their_names(world: World) {
        world.write("f", b"still here");
        let file = world.files.open(&world.at("f")).unwrap();
        let map = file.map().unwrap();
        if cfg!(windows) {
            return; // A mapped file cannot be removed there; the caller retries.
        }
        world.files.remove_file(&world.at("f")).unwrap();
        assert!(world.names().is_empty());
        let mut buffer = [0; 10];
        file.read_exact_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"still here");
        drop(file);
        assert_eq!(&*map, b"still here");
    }

    fn a_directory_is_not_a_file(world: World) {
        world.files.create_dir(&world.at("d")).unwrap();
        assert_eq!(world.files.open(&world.at("d")).unwrap_err().operation, FileOperation::Open);
        assert_eq!(world.files.open_log(&world.at("d"), LogFileWay::Mapped).unwrap_err().operation, FileOperation::Open);
        assert_eq!(world.files.remove_file(&world.at("d")).unwrap_err().operation, FileOperation::Remove);
        world.write("f", b"");
        assert_eq!(world.files.remove_dir(&world.at("f")).unwrap_err().operation, FileOperation::Remove);
        assert_eq!(world.files.read_dir(&world.at("f")).unwrap_err().operation, FileOperation::List);
        if cfg!(unix) {
            assert_eq!(world.files.exists(&world.at("f/x")).unwrap_err().kind(), ErrorKind::NotADirectory);
        }
        assert_eq!(world.names(), ["d", "f"]);
    }

    fn only_empty_directories_are_removed(world: World) {
        world.files.create_dir(&world.at("d")).unwrap();
        world.write("d/f", b"x");
        assert_eq!(world.files.remove_dir(&world.at("d")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        world.files.remove_file(&world.at("d/f")).unwrap();
        world.files.remove_dir(&world.at("d")).unwrap();
        assert!(world.names().is_empty());
    }

    fn renaming_replaces(world: World) {
        world.write("a", b"new");
        world.write("b", b"old");
        world.files.rename(&world.at("a"), &world.at("b")).unwrap();
        assert_eq!(world.names(), ["b"]);
        assert_eq!(world.read("b"), b"new");
        world.files.rename(&world.at("b"), &world.at("b")).unwrap();
        assert_eq!(world.read("b"), b"new");
        world.files.create_dir(&world.at("d")).unwrap();
        world.files.rename(&world.at("b"), &world.at("d/b")).unwrap();
        assert_eq!(world.read("d/b"), b"new");
        assert!(world.files.rename(&world.at("d/b"), &world.at("d")).is_err());
        assert_eq!(world.read("d/b"), b"new");
    }

    /// L5: a segment with a second name is held by a backup.
    fn links_are_counted(world: World) {
        world.write("f", b"x");
        assert_eq!(world.files.link_count(&world.at("f")).unwrap(), 1);
        world.files.hard_link(&world.at("f"), &world.at("g")).unwrap();
        assert_eq!(world.files.link_count(&world.at("f")).unwrap(), 2);
        let error = world.files.hard_link(&world.at("f"), &world.at("g")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        world.files.remove_file(&world.at("f")).unwrap();
        assert_eq!(world.files.link_count(&world.at("g")).unwrap(), 1);
        assert_eq!(world.read("g"), b"x");
    }

    fn listings_are_sorted(world: World) {
        for name in ["b", "a", "c", "10", "9"] {
            world.write(name, b"");
        }
        assert_eq!(world.names(), ["10", "9", "a", "b", "c"]);
    }

    /// L1: a segment has its full length and reads as zeros before the first store.
    fn log_segments_are_stored_into(world: World) {
        for way in [LogFileWay::Mapped, LogFileWay::Written] {
            let path = world.at("log");
            let log = world.files.create_log(&path, 10_000, way).unwrap();
            assert_eq!((log.len(), log.path()), (10_000, path.as_path()));
            if way == LogFileWay::Written {
                assert_eq!(log.way(), LogFileWay::Written);
            }
            assert_eq!(world.read("log"), vec![0; 10_000]);
            log.populate(0, 8192);
            log.populate(5_000, u64::MAX);
            log.populate(u64::MAX, 1);
            log.store(4_090, b"across a page").unwrap();
            log.store(9_999, b"!").unwrap();
            log.store(10_000, b"").unwrap();
            log.sync().unwrap();
            let mut expected = vec![0; 10_000];
            expected[4_090..][..13].copy_from_slice(b"across a page");
            expected[9_999] = b'!';
            assert_eq!(world.read("log"), expected);
            assert_eq!(world.files.create_log(&path, 1, way).unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(world.files.file_len(&path).unwrap(), 10_000, "the segment that stood there is unharmed");
            drop(log);

            // L5: recycled under a new name.
            world.files.rename(&path, &world.at("log2")).unwrap();
            let log = world.files.open_log(&world.at("log2"), way).unwrap();
            assert_eq!(log.len(), 10_000);
            log.store(0, b"again").unwrap();
            log.sync().unwrap();
            assert_eq!(&world.read("log2")[..5], b"again");
            assert_eq!(world.read("log2")[9_999], b'!');
            drop(log);
            world.files.remove_file(&world.at("log2")).unwrap();
        }
    }

    fn an_empty_log_segment_is_no_special_case(world: World) {
        let log = world.files.create_log(&world.at("log"), 0, LogFileWay::Mapped).unwrap();
        assert!(log.is_empty());
        log.populate(0, 1);
        log.store(0, b"").unwrap();
        log.sync().unwrap();
    }

    /// P2: stores to disjoint ranges run in parallel.
    fn stores_run_in_parallel(world: World) {
        for way in [LogFileWay::Mapped, LogFileWay::Written] {
            let path = world.at("log");
            let log = world.files.create_log(&path, 64 * 1024, way).unwrap();
            std::thread::scope(|scope| {
                for thread in 0..4_u8 {
                    let log = &log;
                    scope.spawn(move || {
                        for index in 0..512_u64 {
                            let offset = (index * 4 + u64::from(thread)) * 32;
                            log.store(offset, &[thread + 1; 32]).unwrap();
                        }
                    });
                }
            });
            let bytes = world.read("log");
            for (index, chunk) in bytes.chunks(32).enumerate() {
                assert_eq!(chunk, [(index % 4) as u8 + 1; 32]);
            }
            drop(log);
            world.files.remove_file(&path).unwrap();
        }
    }

    /// P8: no space is certain, and the file that could not be had is gone.
    fn a_segment_that_cannot_be_had_leaves_nothing(world: World) {
        for bytes in [1 << 62, u64::MAX] {
            let error = world.files.create_log(&world.at("log"), bytes, LogFileWay::Mapped).unwrap_err();
            assert!(error.is_out_of_space(), "{error}");
            assert_eq!(error.operation, FileOperation::Allocate);
            assert!(world.names().is_empty());
        }
    }

    /// A directory has one holder, also within one process, and the error names it.
    fn a_directory_is_locked_once(world: World) {
        let lock = world.files.lock_dir(&world.root).unwrap();
        assert_eq!(world.names(), [LOCK_NAME, LOCK_INFO_NAME]);
        let pid = String::from_utf8(world.read(LOCK_INFO_NAME)).unwrap();
        assert!(pid.ends_with('\n') && pid.trim().parse::<u32>().is_ok(), "{pid:?}");
        let error = world.files.lock_dir(&world.root).unwrap_err();
        assert_eq!((error.kind(), error.operation), (ErrorKind::WouldBlock, FileOperation::Lock));
        assert!(error.to_string().contains("process"), "{error}");
        let error = world.files.lock_dir(&world.root.join(".")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "by another spelling");
        drop(lock);
        drop(world.files.lock_dir(&world.root).unwrap());
        assert_eq!(world.names(), [LOCK_NAME, LOCK_INFO_NAME], "LOCK is never removed");
    }
}

/// Stores that leave the file are our own defect, on both implementations.
fn store_outside(world: &World) {
    let log = world.files.create_log(&world.at("log"), 100, LogFileWay::Mapped).unwrap();
    let _ = log.store(99, b"xy");
}

/// L1: no store leaves its segment.
#[test]
#[should_panic(expected = "L1: a store of 2 bytes at 99 leaves")]
fn a_real_store_outside_the_segment_panics() {
    store_outside(&World::real());
}

/// L1: here too.
#[test]
#[should_panic(expected = "L1: a store of 2 bytes at 99 leaves")]
fn a_simulated_store_outside_the_segment_panics() {
    store_outside(&World::simulated());
}

/// L1: neither does one whose end overflows.
#[test]
#[should_panic(expected = "L1")]
fn a_real_store_at_the_end_of_the_world_panics() {
    let world = World::real();
    let log = world.files.create_log(&world.at("log"), 100, LogFileWay::Mapped).unwrap();
    let _ = log.store(u64::MAX, b"xy");
}

/// Nobody else can read what the engine writes.
#[cfg(unix)]
#[test]
fn real_files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::real();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    world.files.create_dir(&world.at("d")).unwrap();
    world.write("f", b"x");
    drop(world.files.create_log(&world.at("log"), 4096, LogFileWay::Mapped).unwrap());
    let _lock = world.files.lock_dir(&world.root).unwrap();
    assert_eq!(mode(&world.at("d")), 0o700);
    for name in ["f", "log", LOCK_NAME, LOCK_INFO_NAME] {
        assert_eq!(mode(&world.at(name)), 0o600, "{name}");
    }
}

/// LOCK.info is what `docs/format.md` draws.
#[test]
fn the_holder_of_a_real_lock_is_a_number_and_a_line_feed() {
    let world = World::real();
    let _lock = world.files.lock_dir(&world.root).unwrap();
    assert_eq!(world.read(LOCK_INFO_NAME), format!("{}\n", std::process::id()).into_bytes());
    assert!(world.read(LOCK_NAME).is_empty());
    // A longer number of an earlier holder leaves nothing behind, and a name that is none is not believed.
    std::fs::write(world.at(LOCK_INFO_NAME), b"not a number, and longer").unwrap();
    drop(_lock);
    let _lock = world.files.lock_dir(&world.root).unwrap();
    assert_eq!(world.read(LOCK_INFO_NAME), format!("{}\n", std::process::id()).into_bytes());
}

/// L1: a segment's blocks are there before the first store.
#[cfg(target_os = "linux")]
#[test]
fn real_segments_are_allocated() {
    use std::os::unix::fs::MetadataExt;
    let world = World::real();
    let log = world.files.create_log(&world.at("log"), 1 << 20, LogFileWay::Mapped).unwrap();
    assert!(std::fs::metadata(world.at("log")).unwrap().blocks() * 512 >= 1 << 20);
    drop(log);
    // A copy with holes is filled before it is stored into.
    std::fs::File::create(world.at("holes")).unwrap().set_len(1 << 20).unwrap();
    drop(world.files.open_log(&world.at("holes"), LogFileWay::Mapped).unwrap());
    assert!(std::fs::metadata(world.at("holes")).unwrap().blocks() * 512 >= 1 << 20);
}

/// P8: a full disk is told when the segment is created, and nothing remains. Here the disk is a tmpfs that refuses at
/// once what is larger than itself.
#[cfg(target_os = "linux")]
#[test]
fn a_full_real_disk_is_certain() {
    let shm = Path::new("/dev/shm");
    let Ok(dir) = tempfile::tempdir_in(shm) else {
        eprintln!("no /dev/shm here: not tested");
        return;
    };
    let files = RealFileSystem::new();
    let error = files.create_log(&dir.path().join("log"), 1 << 50, LogFileWay::Mapped).unwrap_err();
    assert_eq!((error.kind(), error.operation), (ErrorKind::StorageFull, FileOperation::Allocate));
    assert!(error.is_out_of_space());
    assert!(files.read_dir(dir.path()).unwrap().is_empty());
    // L1: a tmpfs is known to be safe, so what was asked for is what comes.
    let way = |way| files.create_log(&dir.path().join(format!("{way:?}")), 4096, way).unwrap().way();
    assert_eq!(way(LogFileWay::Mapped), LogFileWay::Mapped);
    assert_eq!(way(LogFileWay::Written), LogFileWay::Written);
}

/// L1: released pages leave the map, and what was stored there does not leave the file; storing there again is as good as
/// anywhere.
#[cfg(target_os = "linux")]
#[test]
fn released_pages_leave_the_map_and_keep_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let log = RealFileSystem::new().create_log(&path, 1 << 20, LogFileWay::Mapped).unwrap();
    if log.way() != LogFileWay::Mapped {
        return;
    }
    let bytes: Vec<u8> = (0..(512 << 10) + 100).map(|number: u32| (number % 251) as u8).collect();
    log.store(0, &bytes).unwrap();
    let before = resident_kib(&path);
    assert!(before >= 512, "{before} KiB are in the map");
    log.release(0, bytes.len() as u64);
    let after = resident_kib(&path);
    assert!(after <= before - 512, "{before} KiB before, {after} KiB after");
    log.sync().unwrap();
    log.store(1000, b"again").unwrap();
    log.sync().unwrap();
    let mut expected = bytes;
    expected[1000..1005].copy_from_slice(b"again");
    assert!(std::fs::read(&path).unwrap().starts_with(&expected), "every byte is in the file");
}

/// How much of the maps of the file at `path` this process has in its page table.
#[cfg(target_os = "linux")]
fn resident_kib(path: &std::path::Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut of_file = maps.split(path.to_str().unwrap()).skip(1);
    let figures = of_file.next().expect("the file is mapped");
    let line = figures.lines().find_map(|line| line.strip_prefix("Rss:")).expect("each map has this line");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
