//! What crash images keep, lose and tear.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use file_system::{Crash, FileSystem, LogFile, LogFileWay, SimulatedFileSystem, replace_file};
use proptest::prelude::*;

const SEEDS: u64 = 400;

fn root() -> &'static Path {
    Path::new("/")
}

/// Everything in the file system by path: a file's bytes, `None` for a directory.
fn dump(files: &SimulatedFileSystem) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![root().to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in files.read_dir(&dir).unwrap() {
            let path = dir.join(&entry.name);
            let text = path.to_str().unwrap().to_owned();
            if entry.is_dir {
                all.insert(text, None);
                waiting.push(path);
            } else {
                all.insert(text, Some(files.read(&path, u64::MAX).unwrap()));
            }
        }
    }
    all
}

/// The names that files have in `/`.
fn names(files: &SimulatedFileSystem) -> Vec<String> {
    files.read_dir(root()).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn read(files: &SimulatedFileSystem, path: &str) -> Vec<u8> {
    files.read(Path::new(path), u64::MAX).unwrap()
}

/// A file with synced bytes whose name is not synced.
fn create(files: &SimulatedFileSystem, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    let mut file = files.create_temporary(path.parent().unwrap()).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    file.persist(path).unwrap();
}

/// A log segment whose name and length are durable.
fn durable_log(files: &SimulatedFileSystem, bytes: u64) -> Arc<dyn LogFile> {
    let log = files.create_log(Path::new("/log"), bytes, LogFileWay::Mapped).unwrap();
    log.sync().unwrap();
    files.sync_dir(root()).unwrap();
    log
}

/// The images of a power cut now, by many seeds.
fn power_cuts(files: &SimulatedFileSystem) -> impl Iterator<Item = Arc<SimulatedFileSystem>> + '_ {
    (0..SEEDS).map(|seed| files.crash_image(Crash::PowerCut, seed))
}

/// P2: a store that has returned survives the death of the process, and so does everything else.
#[test]
fn a_killed_process_loses_nothing() {
    let files = SimulatedFileSystem::new(1);
    files.create_dir(Path::new("/d")).unwrap();
    create(&files, "/d/f", b"bytes");
    let log = files.create_log(Path::new("/log"), 5000, LogFileWay::Mapped).unwrap();
    log.store(4000, &[7; 500]).unwrap();
    let mut temporary = files.create_temporary(root()).unwrap();
    temporary.append(b"half").unwrap();
    let image = files.crash_image(Crash::Kill, 3);
    assert_eq!(dump(&image), dump(&files));
    assert_eq!(names(&image), [".tmp-000001", "d", "log"], "nobody removes the temporary file of a dead process");
    assert_eq!(image.event_count(), 0);
    assert_ne!(image.create_temporary(root()).unwrap().path(), temporary.path());
}

/// M2: what a reopened process reads after a kill may still be lost by a power cut.
#[test]
fn what_a_killed_process_had_not_synced_is_still_not_durable() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 4096);
    log.store(0, b"stored").unwrap();
    let killed = files.crash_image(Crash::Kill, 0);
    assert_eq!(&read(&killed, "/log")[..6], b"stored");
    let outcomes: BTreeSet<Vec<u8>> = power_cuts(&killed).map(|image| read(&image, "/log")[..6].to_vec()).collect();
    assert_eq!(outcomes, BTreeSet::from([b"stored".to_vec(), vec![0; 6]]));
    // Synced by the second process, it is certain.
    killed.open_log(Path::new("/log"), LogFileWay::Mapped).unwrap().sync().unwrap();
    assert!(power_cuts(&killed).all(|image| read(&image, "/log").starts_with(b"stored")));
}

/// P7: what a sync covered is in every image; what came after may not be.
#[test]
fn synced_bytes_survive_a_power_cut() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 3 * 4096);
    log.store(100, &[1; 8000]).unwrap();
    log.sync().unwrap();
    log.store(8100, &[2; 600]).unwrap();
    let mut seen = BTreeSet::new();
    for image in power_cuts(&files) {
        let bytes = read(&image, "/log");
        assert_eq!(bytes.len(), 3 * 4096);
        assert!(bytes[100..8100].iter().all(|&byte| byte == 1));
        seen.insert(bytes[8100..8700].to_vec());
    }
    assert!(seen.contains(&vec![0; 600]) && seen.contains(&vec![2; 600]));
}

/// L3: unsynced stores are torn at sector borders and never inside a sector.
#[test]
fn unsynced_bytes_are_torn_at_sector_borders() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 4 * 4096);
    log.store(300, &[9; 3 * 4096]).unwrap();
    let mut borders = BTreeSet::new();
    for image in power_cuts(&files) {
        let bytes = read(&image, "/log");
        for (sector, chunk) in bytes[300..300 + 3 * 4096].chunk_by(|a, b| a == b).scan(300, |at, chunk| {
            let start = *at;
            *at += chunk.len();
            Some((start, chunk))
        }) {
            assert!(chunk[0] == 0 || chunk[0] == 9);
            if sector > 300 {
                assert_eq!(sector % 512, 0, "torn inside a sector");
                borders.insert(sector);
            }
        }
        assert!(bytes[..300].iter().chain(&bytes[300 + 3 * 4096..]).all(|&byte| byte == 0));
    }
    assert!(borders.iter().any(|border| border % 4096 == 0) && borders.iter().any(|border| border % 4096 != 0));
}

/// L3: a later store may survive without an earlier one, in other pages and in other sectors.
#[test]
fn unsynced_stores_are_reordered() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 2 * 4096);
    for (offset, byte) in [(0, 1), (512, 2), (4096, 3)] {
        log.store(offset, &[byte; 512]).unwrap();
    }
    let outcomes: BTreeSet<[bool; 3]> = power_cuts(&files)
        .map(|image| {
            let bytes = read(&image, "/log");
            [bytes[0] == 1, bytes[512] == 2, bytes[4096] == 3]
        })
        .collect();
    assert_eq!(outcomes.len(), 8, "every combination is met: {outcomes:?}");
}

/// L3: a sector holds what it held at one time, so of several stores into it a prefix survives.
#[test]
fn stores_into_one_sector_survive_in_order() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 4096);
    for index in 0..5_u8 {
        log.store(u64::from(index) * 10, &[index + 1; 10]).unwrap();
    }
    let mut lengths = BTreeSet::new();
    for image in power_cuts(&files) {
        let bytes = read(&image, "/log");
        let survivors = (0..5).take_while(|&index| bytes[index * 10] == index as u8 + 1).count();
        assert!(bytes[survivors * 10..].iter().all(|&byte| byte == 0));
        lengths.insert(survivors);
    }
    assert_eq!(lengths, BTreeSet::from([0, 1, 2, 3, 4, 5]));
}

/// M1: bytes of a file that was never synced may be missing although its name is there.
#[test]
fn a_durable_name_does_not_make_bytes_durable() {
    let files = SimulatedFileSystem::new(1);
    let mut file = files.create_temporary(root()).unwrap();
    file.append(&[5; 1000]).unwrap();
    file.append(&[6; 1000]).unwrap();
    file.persist(Path::new("/f")).unwrap();
    files.sync_dir(root()).unwrap();
    let contents: BTreeSet<Vec<u8>> = power_cuts(&files).map(|image| read(&image, "/f")).collect();
    let lengths: BTreeSet<usize> = contents.iter().map(Vec::len).collect();
    assert_eq!(lengths, BTreeSet::from([0, 1000, 2000]));
    assert!(contents.contains(&vec![0; 2000]), "the length may survive without the bytes");
    assert!(contents.contains(&[vec![5; 1000], vec![6; 1000]].concat()));
}

/// M6: a synced file under a name that was not synced may be gone.
#[test]
fn a_file_sync_does_not_make_the_name_durable() {
    let files = SimulatedFileSystem::new(1);
    let log = files.create_log(Path::new("/log"), 4096, LogFileWay::Mapped).unwrap();
    log.store(0, b"synced").unwrap();
    log.sync().unwrap();
    let mut seen = BTreeSet::new();
    for image in power_cuts(&files) {
        let exists = image.exists(Path::new("/log")).unwrap();
        if exists {
            assert!(read(&image, "/log").starts_with(b"synced"), "where the name is, so are the synced bytes");
        }
        seen.insert(exists);
    }
    assert_eq!(seen.len(), 2);
    files.sync_dir(root()).unwrap();
    assert!(power_cuts(&files).all(|image| image.exists(Path::new("/log")).unwrap()));
}

/// M6: a directory whose parent was not synced may be gone with all that is in it.
#[test]
fn a_new_directory_needs_its_parent_synced() {
    let files = SimulatedFileSystem::new(1);
    files.create_dir(Path::new("/d")).unwrap();
    create(&files, "/d/f", b"x");
    files.sync_dir(Path::new("/d")).unwrap();
    let seen: BTreeSet<Vec<String>> = power_cuts(&files).map(|image| dump(&image).into_keys().collect()).collect();
    assert_eq!(seen, BTreeSet::from([vec![], vec!["/d".into(), "/d/f".into()]]));
    files.sync_dir(root()).unwrap();
    assert!(power_cuts(&files).all(|image| image.exists(Path::new("/d/f")).unwrap()));
}

/// M1: each unsynced name happened or not, apart from the others, whatever their order.
#[test]
fn unsynced_names_survive_one_by_one() {
    let files = SimulatedFileSystem::new(1);
    for name in ["/a", "/b", "/c"] {
        create(&files, name, b"old");
    }
    files.sync_dir(root()).unwrap();
    create(&files, "/a", b"new");
    files.remove_file(Path::new("/b")).unwrap();
    files.rename(Path::new("/c"), Path::new("/d")).unwrap();
    let mut seen = BTreeSet::new();
    for image in power_cuts(&files) {
        let names = names(&image);
        let [c, d] = ["c", "d"].map(|name| names.contains(&name.to_owned()));
        assert!(c != d, "a rename happens whole: {names:?}");
        seen.insert((read(&image, "/a") == b"new", names.contains(&"b".to_owned()), c));
    }
    assert_eq!(seen.len(), 8, "every combination is met: {seen:?}");
}

/// M1: changes of one name happen in order.
#[test]
fn changes_of_one_name_keep_their_order() {
    let files = SimulatedFileSystem::new(1);
    for content in [b"1", b"2", b"3"] {
        create(&files, "/f", content);
    }
    files.remove_file(Path::new("/f")).unwrap();
    let contents: BTreeSet<Option<Vec<u8>>> =
        power_cuts(&files).map(|image| image.read(Path::new("/f"), 9).ok()).collect();
    let expected = [None, Some(b"1".to_vec()), Some(b"2".to_vec()), Some(b"3".to_vec())];
    assert_eq!(contents, BTreeSet::from(expected));
    files.sync_dir(root()).unwrap();
    assert!(power_cuts(&files).all(|image| dump(&image).is_empty()), "synced, the removal is certain");
}

/// L5: a second name is an entry like any other.
#[test]
fn hard_links_survive_when_their_directory_was_synced() {
    let files = SimulatedFileSystem::new(1);
    files.create_dir(Path::new("/backup")).unwrap();
    create(&files, "/f", b"x");
    files.sync_dir(root()).unwrap();
    files.hard_link(Path::new("/f"), Path::new("/backup/f")).unwrap();
    let counts: BTreeSet<u64> = power_cuts(&files).map(|image| image.link_count(Path::new("/f")).unwrap()).collect();
    assert_eq!(counts, BTreeSet::from([1, 2]));
    files.sync_dir(Path::new("/backup")).unwrap();
    files.remove_file(Path::new("/f")).unwrap();
    files.sync_dir(root()).unwrap();
    assert!(power_cuts(&files).all(|image| read(&image, "/backup/f") == b"x" && names(&image) == ["backup"]));
}

/// M1: a rename between directories is settled by a sync of either, and never leaves the file nowhere.
#[test]
fn a_rename_between_directories_happens_whole() {
    for synced in [None, Some("/one"), Some("/two")] {
        let files = SimulatedFileSystem::new(1);
        for dir in ["/one", "/two"] {
            files.create_dir(Path::new(dir)).unwrap();
        }
        create(&files, "/one/f", b"x");
        files.sync_dir(Path::new("/one")).unwrap();
        files.sync_dir(root()).unwrap();
        files.rename(Path::new("/one/f"), Path::new("/two/f")).unwrap();
        if let Some(dir) = synced {
            files.sync_dir(Path::new(dir)).unwrap();
        }
        let seen: BTreeSet<[bool; 2]> = power_cuts(&files)
            .map(|image| ["/one/f", "/two/f"].map(|path| image.exists(Path::new(path)).unwrap()))
            .collect();
        let moved = [false, true];
        let expected = if synced.is_some() { BTreeSet::from([moved]) } else { BTreeSet::from([moved, [true, false]]) };
        assert_eq!(seen, expected);
    }
}

/// M1: a change of a name is never made durable without the earlier changes of that name, in whatever directory.
#[test]
fn a_directory_sync_settles_earlier_changes_of_the_same_names() {
    let files = SimulatedFileSystem::new(1);
    for dir in ["/one", "/two"] {
        files.create_dir(Path::new(dir)).unwrap();
    }
    files.sync_dir(root()).unwrap();
    create(&files, "/one/f", b"x");
    files.rename(Path::new("/one/f"), Path::new("/two/f")).unwrap();
    files.sync_dir(Path::new("/two")).unwrap();
    let expected =
        BTreeMap::from([("/one".into(), None), ("/two".into(), None), ("/two/f".into(), Some(b"x".to_vec()))]);
    for image in power_cuts(&files) {
        assert_eq!(dump(&image), expected, "the first name comes back");
    }
}

/// M1: replacing a file leaves the old or the new content at every event, and the new one once it has returned.
#[test]
fn replacing_is_atomic_and_durable_at_every_event() {
    let files = SimulatedFileSystem::new(1);
    let (old, new) = (vec![1; 5000], vec![2; 7000]);
    replace_file(&*files, root(), "f", &old).unwrap();
    let before = files.event_count();
    replace_file(&*files, root(), "f", &new).unwrap();
    let after = files.event_count();
    let mut seen = BTreeSet::new();
    for event in before..=after {
        for seed in 0..100 {
            let crash = if seed < 50 { Crash::PowerCut } else { Crash::Kill };
            let bytes = read(&files.crash_image_at(event, crash, seed), "/f");
            assert!(bytes == old || bytes == new, "event {event}, seed {seed}: neither old nor new");
            assert!(event < after || bytes == new, "seed {seed}: the new content was not durable");
            seen.insert((event, bytes == new));
        }
    }
    assert!(
        seen.contains(&(after - 1, false)) && seen.contains(&(after - 1, true)),
        "unknown before the directory sync"
    );
    assert_eq!(names(&files), ["f"]);
}

/// A crash falls also into the middle of a write: in part, and word by word.
#[test]
fn a_crash_during_a_write_leaves_a_part_of_it() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 4096);
    let event = files.event_count();
    log.store(0, &[1; 64]).unwrap();
    let mut prefixes = BTreeSet::new();
    let mut holes = false;
    for seed in 0..SEEDS {
        let bytes = read(&files.crash_image_during(event, Crash::Kill, seed), "/log");
        let prefix = bytes.iter().take_while(|&&byte| byte == 1).count();
        prefixes.insert(prefix);
        holes |= bytes[prefix..].contains(&1);
    }
    assert!(prefixes.contains(&0) && prefixes.contains(&64) && prefixes.contains(&13) && holes, "{prefixes:?}");
    // Other operations happen or do not.
    let event = files.event_count();
    files.create_dir(Path::new("/d")).unwrap();
    let exists: BTreeSet<bool> = (0..50)
        .map(|seed| files.crash_image_during(event, Crash::Kill, seed).exists(Path::new("/d")).unwrap())
        .collect();
    assert_eq!(exists.len(), 2);
}

/// The run ends at a chosen event: before it, or after it with its caller none the wiser.
#[test]
fn a_run_stops_at_an_event() {
    let work = |files: &SimulatedFileSystem| -> Result<(), file_system::FileError> {
        files.create_dir(Path::new("/a"))?;
        files.create_dir(Path::new("/b"))?;
        files.create_dir(Path::new("/c"))
    };
    let files = SimulatedFileSystem::new(1);
    work(&files).unwrap();
    assert_eq!(files.events(), ["0 create /a", "1 create /b", "2 create /c"]);

    let files = SimulatedFileSystem::new(1);
    files.stop_at_event(1);
    assert!(!files.is_stopped());
    assert!(work(&files).is_err());
    assert!(files.is_stopped());
    assert_eq!(files.event_count(), 1);
    assert!(files.read_dir(root()).is_err() && files.exists(root()).is_err(), "a dead process reads nothing");
    assert_eq!(names(&files.crash_image(Crash::Kill, 0)), ["a"]);

    let files = SimulatedFileSystem::new(1);
    files.stop_after_event(1);
    assert!(work(&files).is_err());
    assert!(files.is_stopped());
    assert_eq!(names(&files.crash_image(Crash::Kill, 0)), ["a", "b"]);
}

/// A process that died holds no lock, and removes no temporary file.
#[test]
fn locks_are_free_in_crash_images() {
    let files = SimulatedFileSystem::new(1);
    let _lock = files.lock_dir(root()).unwrap();
    let _temporary = files.create_temporary(root()).unwrap();
    for crash in [Crash::Kill, Crash::PowerCut] {
        let image = files.crash_image(crash, 0);
        let _lock = image.lock_dir(root()).unwrap();
        assert!(image.lock_dir(root()).is_err());
    }
    files.stop_at_event(files.event_count());
    assert!(files.create_dir(Path::new("/d")).is_err());
    drop(_temporary);
    assert_eq!(names(&files.crash_image(Crash::Kill, 0)), [".tmp-000000", "LOCK", "LOCK.info"]);
}

/// Damage of the disk is seen by every later reader and survives every crash.
#[test]
fn a_corrupted_byte_stays_corrupted() {
    let files = SimulatedFileSystem::new(1);
    create(&files, "/f", b"abc");
    files.sync_dir(root()).unwrap();
    files.corrupt(Path::new("/f"), 1, |byte| byte ^ 1).unwrap();
    assert_eq!(read(&files, "/f"), b"acc");
    assert!(power_cuts(&files).all(|image| read(&image, "/f") == b"acc"));
    assert!(files.corrupt(Path::new("/f"), 3, |byte| byte).is_err());
}

/// A long run can drop its past: the present stays, and what is open or named.
#[test]
fn events_can_be_forgotten() {
    let files = SimulatedFileSystem::new(1);
    create(&files, "/f", b"named");
    create(&files, "/g", b"open");
    let open = files.open(Path::new("/g")).unwrap();
    files.remove_file(Path::new("/g")).unwrap();
    files.sync_dir(root()).unwrap();
    let before = dump(&files);
    let count = files.event_count();
    files.forget_events();
    assert!(files.events().is_empty());
    assert_eq!((files.event_count(), dump(&files)), (count, before));
    let mut bytes = [0; 4];
    open.read_exact_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"open");
    create(&files, "/h", b"later");
    assert_eq!(names(&files.crash_image_at(count, Crash::Kill, 0)), ["f"]);
}

/// A crash at each of thousands of events is affordable: a log of 4,000 records, all images read.
#[test]
fn thousands_of_images_come_from_one_run() {
    let files = SimulatedFileSystem::new(1);
    let log = durable_log(&files, 1 << 20);
    let first = files.event_count();
    for index in 0..4000_u64 {
        log.store(index * 140, &[index as u8 | 1; 140]).unwrap();
        if index % 100 == 99 {
            log.sync().unwrap();
        }
    }
    for event in first..files.event_count() {
        let image = files.crash_image_at(event, Crash::PowerCut, event);
        let synced = (event - first) / 101 * 100 * 140;
        let file = image.open(Path::new("/log")).unwrap();
        let mut bytes = [0; 140];
        if synced > 0 {
            file.read_exact_at(synced - 140, &mut bytes).unwrap();
            assert!(bytes[0] != 0, "event {event}: a synced record is missing");
        }
    }
}

/// One step of a random run over a few names and two directories.
#[derive(Debug, Clone)]
enum Step {
    Create(usize, u16, bool),
    Store(u16, u16),
    SyncLog,
    Rename(usize, usize),
    Remove(usize),
    Link(usize, usize),
    SyncDir(bool),
    LeaveTemporary,
}

const PATHS: [&str; 6] = ["/a", "/b", "/c", "/d/a", "/d/b", "/d/c"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..PATHS.len();
    let step = prop_oneof![
        (name.clone(), 0..9000_u16, any::<bool>()).prop_map(|(name, len, sync)| Step::Create(name, len, sync)),
        (0..8000_u16, 1..3000_u16).prop_map(|(offset, len)| Step::Store(offset, len)),
        Just(Step::SyncLog),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        name.clone().prop_map(Step::Remove),
        (name.clone(), name).prop_map(|(from, to)| Step::Link(from, to)),
        any::<bool>().prop_map(Step::SyncDir),
        Just(Step::LeaveTemporary),
    ];
    proptest::collection::vec(step, 1..60)
}

fn run(files: &SimulatedFileSystem, steps: &[Step], mut after_each: impl FnMut()) {
    files.create_dir(Path::new("/d")).unwrap();
    let log = files.create_log(Path::new("/log"), 11_000, LogFileWay::Mapped).unwrap();
    for (index, step) in steps.iter().enumerate() {
        let byte = index as u8 | 1;
        match step {
            Step::Create(name, len, sync) => {
                let path = Path::new(PATHS[*name]);
                let mut file = files.create_temporary(path.parent().unwrap()).unwrap();
                file.append(&vec![byte; usize::from(*len)]).unwrap();
                if *sync {
                    file.sync().unwrap();
                }
                file.persist(path).unwrap();
            }
            Step::Store(offset, len) => log.store(u64::from(*offset), &vec![byte; usize::from(*len)]).unwrap(),
            Step::SyncLog => log.sync().unwrap(),
            Step::Rename(from, to) => drop(files.rename(Path::new(PATHS[*from]), Path::new(PATHS[*to]))),
            Step::Remove(name) => drop(files.remove_file(Path::new(PATHS[*name]))),
            Step::Link(from, to) => drop(files.hard_link(Path::new(PATHS[*from]), Path::new(PATHS[*to]))),
            Step::SyncDir(inner) => files.sync_dir(Path::new(if *inner { "/d" } else { "/" })).unwrap(),
            Step::LeaveTemporary => std::mem::forget(files.create_temporary(root()).unwrap()),
        }
        after_each();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// A past event's image is the one that would have been taken then, and a seed repeats it.
    #[test]
    fn images_of_past_events_equal_images_taken_then(steps in steps(), seed: u64) {
        let files = SimulatedFileSystem::new(1);
        let mut then = Vec::new();
        run(&files, &steps, || {
            let count = files.event_count();
            for crash in [Crash::Kill, Crash::PowerCut] {
                then.push((count, crash, dump(&files.crash_image(crash, seed))));
            }
        });
        for (count, crash, image) in then {
            prop_assert_eq!(dump(&files.crash_image_at(count, crash, seed)), image, "at event {}", count);
        }
    }

    /// M1: after syncing everything, every power cut leaves exactly what programs saw.
    #[test]
    fn all_synced_is_all_kept(steps in steps(), seed: u64) {
        let files = SimulatedFileSystem::new(1);
        run(&files, &steps, || ());
        for (path, bytes) in dump(&files) {
            if bytes.is_some() {
                files.open_log(Path::new(&path), LogFileWay::Written).unwrap().sync().unwrap();
            }
        }
        files.sync_dir(Path::new("/d")).unwrap();
        files.sync_dir(root()).unwrap();
        prop_assert_eq!(dump(&files.crash_image(Crash::PowerCut, seed)), dump(&files));
    }

    /// A power cut after a power cut loses nothing more: the first image is durable.
    #[test]
    fn an_image_is_durable(steps in steps(), seed: u64) {
        let files = SimulatedFileSystem::new(1);
        run(&files, &steps, || ());
        let image = files.crash_image(Crash::PowerCut, seed);
        prop_assert_eq!(dump(&image.crash_image(Crash::PowerCut, !seed)), dump(&image));
    }
}
