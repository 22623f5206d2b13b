//! A crash at every event and a fault at every operation: exactly the old or exactly the new state, never anything else.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{content, create_keyspace, parse_edit, scripted_edits};
use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, SimulatedFileSystem, Simulation};
use manifest::{CommitError, Edit, Manifest, ManifestError, ManifestOptions, ManifestStore, OpenMode};

const DIR: &str = "/data/db";

/// Level files as they are; or an edit file from the first edit on, folded every few edits.
const WAYS: [(&str, ManifestOptions); 2] = [
    ("json", ManifestOptions { edit_bytes_free: 1 << 20, job_bytes_divisor: 100, edit_file_bytes_min: 4096, ..LINES }),
    ("lines", LINES),
];

const LINES: ManifestOptions = ManifestOptions {
    edit_bytes_free: 0,
    job_bytes_divisor: 1 << 30,
    edit_file_bytes_min: 1000,
    levels_folded_at_once_max: 64,
};

const CRASHES: [(Crash, u64); 5] =
    [(Crash::Kill, 0), (Crash::PowerCut, 1), (Crash::PowerCut, 2), (Crash::PowerCut, 3), (Crash::PowerCut, 4)];

fn world(seed: u64) -> Simulation {
    let simulation = Simulation::new(seed);
    simulation.files.create_dir(Path::new("/data")).unwrap();
    simulation.files.sync_dir(Path::new("/")).unwrap();
    simulation
}

fn first() -> Edit {
    Edit::of(create_keyspace(1, "default"))
}

fn create(simulation: &Simulation, options: ManifestOptions) -> Result<ManifestStore, ManifestError> {
    ManifestStore::create(&simulation.environment(), DIR, options, &first())
}

fn open(simulation: &Simulation, options: ManifestOptions) -> Result<ManifestStore, ManifestError> {
    ManifestStore::open(&simulation.environment(), DIR, OpenMode::ReadWrite, options)
}

/// Every state of a scripted run, with the number of events after which its commit had returned.
fn scripted_run(simulation: &Simulation, options: ManifestOptions) -> Vec<(u64, Manifest)> {
    let store = create(simulation, options).unwrap();
    let mut states = vec![(simulation.files.event_count(), content(&store.current()))];
    for (index, edit) in scripted_edits().into_iter().enumerate() {
        store.commit(edit).unwrap();
        states.push((simulation.files.event_count(), content(&store.current())));
        if index % 3 == 2 {
            store.collect_obsolete().unwrap();
        }
    }
    let metrics = store.metrics();
    if options.edit_bytes_free == 0 {
        assert!(metrics.lines > 3 && metrics.folds >= 1 && metrics.edit_files >= 2, "{metrics:?}");
    } else {
        assert_eq!(metrics.lines, 0, "{metrics:?}");
    }
    states
}

/// Opens what a crash left and checks that it is the last state that was acknowledged, or the one in progress; then
/// that a second crash and further work leave it whole.
fn check_image(
    image: Arc<SimulatedFileSystem>,
    options: ManifestOptions,
    states: &[(u64, Manifest)],
    event: u64,
    story: &str,
) {
    let image = Simulation::with_files(image, 99);
    let acknowledged = states.iter().rposition(|(at, _)| *at <= event);
    let allowed = match acknowledged {
        Some(index) => &states[index..(index + 2).min(states.len())],
        None => &states[..1],
    };
    // A creation that is done again gives the database another id.
    let id = states[0].1.database_id;
    let content = |manifest: &Manifest| match acknowledged {
        Some(_) => content(manifest),
        None => Manifest { database_id: id, ..content(manifest) },
    };
    let allowed = |manifest: &Manifest| allowed.iter().any(|(_, state)| *state == content(manifest));
    let store = match open(&image, options) {
        Ok(store) => store,
        // M6: an interrupted creation is done again.
        Err(ManifestError::NotFound { .. }) if acknowledged.is_none() => {
            create(&image, options).unwrap_or_else(|error| panic!("{story}: creation must be repeatable: {error}"))
        }
        Err(error) => panic!("{story}: {error}"),
    };
    assert!(allowed(&store.current()), "{story}: neither old nor new:\n{}", store.current());

    // M2: until this process has committed, a second crash may bring back the other state, but nothing else.
    let seen = content(&store.current());
    let again = Simulation::with_files(image.files.crash_image(Crash::PowerCut, event), 98);
    match open(&again, options) {
        Ok(store) => assert!(allowed(&store.current()), "{story}, opened, power cut: neither old nor new"),
        Err(ManifestError::NotFound { .. }) if acknowledged.is_none() => {}
        Err(error) => panic!("{story}, opened, power cut: {error}"),
    }

    // M2: once leftovers are gone, what was seen is durable.
    store.remove_leftovers().unwrap_or_else(|error| panic!("{story}: {error}"));
    store.commit_anew().unwrap_or_else(|error| panic!("{story}: {error}"));
    let expected = Manifest { closed_cleanly: false, ..seen };
    let again = Simulation::with_files(image.files.crash_image(Crash::PowerCut, event + 1), 97);
    let reopened = open(&again, options).unwrap_or_else(|error| panic!("{story}, settled, power cut: {error}"));
    assert_eq!(content(&reopened.current()), expected, "{story}, settled, power cut");

    // And work goes on.
    let fits = parse_edit("replace 1 flushed=90 + L0:e90:t90[a..b #80..#90]");
    reopened.commit(fits.clone()).unwrap_or_else(|error| panic!("{story}: {error}"));
    let after = content(&reopened.current());
    reopened.collect_obsolete().unwrap();
    reopened.remove_leftovers().unwrap();
    assert_eq!(reopened.leftovers().unwrap(), Vec::<std::path::PathBuf>::new(), "{story}");
    drop(reopened);
    assert_eq!(content(&open(&again, options).unwrap().current()), after, "{story}");
}

/// Crashes before and in each event since `before`, and checks what is left.
fn check_every_event(
    simulation: &Simulation,
    before: u64,
    options: ManifestOptions,
    states: &[(u64, Manifest)],
    way: &str,
) {
    let names = simulation.files.events();
    for event in before..=simulation.files.event_count() {
        for (crash, seed) in CRASHES {
            let name = names.get(event as usize).map_or("the end", String::as_str);
            let story = format!("{way}: {crash:?} (seed {seed}) before event {name}");
            let image = simulation.files.crash_image_at(event, crash, seed);
            check_image(image, options, states, event, &story);
            if event < simulation.files.event_count() {
                let image = simulation.files.crash_image_during(event, crash, seed);
                check_image(image, options, states, event, &story.replace("before", "during"));
            }
        }
    }
}

/// M1: a crash at any event of a scripted run leaves exactly the old or exactly the new state.
#[test]
fn a_crash_at_any_event_leaves_the_old_or_the_new_state() {
    for (way, options) in WAYS {
        let simulation = world(7);
        let before = simulation.files.event_count();
        let states = scripted_run(&simulation, options);
        check_every_event(&simulation, before, options, &states, way);
    }
}

/// An edit file that all the edits of a script fit into: only folds beside the commits end it.
const ROOMY: ManifestOptions = ManifestOptions { edit_file_bytes_min: 1 << 16, ..LINES };

/// M1, M3: a crash at any event of a fold, and of the commits before, in and after it, leaves the state that was
/// acknowledged last, or the one in progress.
#[test]
fn a_crash_at_any_event_of_a_fold_leaves_what_was_acknowledged() {
    let simulation = world(7);
    let before = simulation.files.event_count();
    let store = create(&simulation, ROOMY).unwrap();
    let mut states = vec![(simulation.files.event_count(), content(&store.current()))];
    let mut edits = scripted_edits();
    edits.insert(10, parse_edit("last #30"));
    let mut edits = edits.into_iter();
    let mut commit = |count: usize| {
        for edit in edits.by_ref().take(count) {
            let generation = store.current().generation;
            let committed = store.commit(edit).unwrap();
            assert!(committed.generation > generation, "M5: the generation rises");
            states.push((simulation.files.event_count(), content(&committed)));
        }
    };
    commit(2);
    // Lines come while the files are written, and after.
    let mut fold = store.begin_fold().unwrap();
    commit(1);
    fold.write().unwrap();
    commit(1);
    assert!(fold.install().unwrap());
    commit(1);
    store.collect_obsolete().unwrap();
    // None come.
    assert!(store.fold().unwrap());
    assert!(store.begin_fold().is_none(), "there is nothing to fold");
    commit(1);
    // The last that comes drops a keyspace which the JSON files hold.
    let mut fold = store.begin_fold().unwrap();
    assert!(store.begin_fold().is_none(), "one fold at a time");
    fold.write().unwrap();
    commit(3);
    assert!(fold.install().unwrap());
    store.collect_obsolete().unwrap();
    // Dropped half way; and one that a pass overtakes.
    commit(1);
    let mut fold = store.begin_fold().unwrap();
    fold.write().unwrap();
    drop(fold);
    store.collect_obsolete().unwrap();
    let mut fold = store.begin_fold().unwrap();
    fold.write().unwrap();
    store.commit_anew().unwrap();
    commit(1);
    assert!(!fold.install().unwrap(), "M1: the pass has replaced what the fold meant to");
    store.collect_obsolete().unwrap();
    assert!(store.fold().unwrap());
    commit(1);
    assert!(store.current().closed_cleanly, "all edits were made");
    let metrics = store.metrics();
    assert_eq!((metrics.folds, metrics.folds_beside, metrics.edit_files), (6, 4, 6), "{metrics:?}");
    drop(store);
    check_every_event(&simulation, before, ROOMY, &states, "folds");
}

/// M1, M3: where folding would take long, whoever opens what a process left that died goes on in a copy of its edit file: a crash
/// at any event of that, and of what comes after, leaves the state that was acknowledged last, or the one in progress.
#[test]
fn a_crash_at_any_event_of_taking_over_an_edit_file_leaves_what_was_acknowledged() {
    let options = ManifestOptions { levels_folded_at_once_max: 0, ..ROOMY };
    let simulation = world(7);
    let mut store = create(&simulation, options).unwrap();
    let before = simulation.files.event_count();
    let mut states = vec![(before, content(&store.current()))];
    let mut edits = scripted_edits().into_iter();
    for life in 0..3 {
        if life > 0 {
            drop(store);
            store = open(&simulation, options).unwrap();
        }
        for edit in edits.by_ref().take(3) {
            let generation = store.current().generation;
            let committed = store.commit(edit).unwrap();
            assert!(committed.generation > generation, "M5: the generation rises");
            states.push((simulation.files.event_count(), content(&committed)));
        }
        let metrics = store.metrics();
        assert_eq!((metrics.lines, metrics.folds, metrics.edit_files), (3, 0, 1), "life {life}: {metrics:?}");
        assert_eq!(store.fold_is_due(), life > 0, "the worker is told");
        store.collect_obsolete().unwrap();
        assert!(store.leftovers().unwrap().is_empty(), "life {life}");
    }
    assert!(store.fold().unwrap());
    drop(store);
    check_every_event(&simulation, before, options, &states, "taken over");
}

/// M7: a fault at any operation of a fold, or of a commit in it, leaves everything as it was, or fails the store.
#[test]
fn a_fault_at_any_operation_of_a_fold_is_certain_or_fails_the_store() {
    let (mut certain, mut uncertain) = (0, 0);
    for n in 1.. {
        let simulation = world(7);
        let store = create(&simulation, ROOMY).unwrap();
        let mut edits = scripted_edits().into_iter();
        for edit in edits.by_ref().take(3) {
            store.commit(edit).unwrap();
        }
        let fault = simulation.files.inject(Fault::on_anything().nth(n).effect(FaultEffect::InputOutput));
        let story = format!("operation {n}");
        let during = edits.next().unwrap();
        let wanted = content(&store.current().apply(&during).unwrap());
        let mut committed = Ok(store.current());
        let mut fold = store.begin_fold().unwrap();
        let folded = fold.write().and_then(|()| {
            committed = store.commit(during.clone());
            fold.install()
        });
        let hit = simulation.files.fault_hits(fault) > 0;
        simulation.files.clear_faults();
        assert!(hit || folded.as_ref().is_ok_and(|folded| *folded), "{story}: {folded:?}");
        if store.failed().is_none() {
            certain += u64::from(folded.is_err());
            assert!(matches!(folded, Ok(true) | Err(CommitError::Certain(_))), "{story}: {folded:?}");
            if folded.is_err() && content(&store.current()) != wanted {
                store.commit(during).unwrap();
            }
            assert_eq!(content(&store.current()), wanted, "{story}");
            // What went wrong can be done again (or the line that came meanwhile be folded too), and work goes on.
            assert!(store.fold().unwrap(), "{story}");
            for edit in edits {
                store.commit(edit).unwrap();
            }
            let last = content(&store.current());
            store.collect_obsolete().unwrap();
            assert_eq!(store.leftovers().unwrap(), Vec::<std::path::PathBuf>::new(), "{story}");
            let again = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, n), 5);
            assert_eq!(content(&open(&again, ROOMY).unwrap().current()), last, "{story}");
        } else {
            uncertain += 1;
            let events = simulation.files.event_count();
            assert!(matches!(store.commit(during), Err(CommitError::Failed(_))), "{story}");
            assert!(matches!(store.fold(), Ok(false)) && store.collect_obsolete().unwrap() == 0, "{story}");
            assert_eq!(simulation.files.event_count(), events, "{story}: a failed store touches nothing");
            for (crash, seed) in CRASHES {
                let again = Simulation::with_files(simulation.files.crash_image(crash, seed), 5);
                let found = content(&open(&again, ROOMY).unwrap_or_else(|error| panic!("{story}: {error}")).current());
                // A line whose sync failed may be there or not; what was acknowledged is.
                let unknown = matches!(committed, Err(CommitError::Uncertain(_)));
                assert!(found == wanted || (unknown && found == content(&store.current())), "{story}");
            }
        }
        if !hit {
            break;
        }
    }
    assert!(certain >= 12 && uncertain == 3, "{certain} certain, {uncertain} uncertain");
}

/// M7: a fault at any operation is either certain, and the old state stands and a retry works; or uncertain, and the
/// store is failed, removes nothing, and the old or the new state is found.
#[test]
fn a_fault_at_any_operation_is_certain_or_fails_the_store() {
    for (way, options) in WAYS {
        let (mut certain, mut uncertain) = (0, 0);
        for n in 1.. {
            let simulation = world(7);
            let store = create(&simulation, options).unwrap();
            let fault = simulation.files.inject(Fault::on_anything().nth(n).effect(FaultEffect::InputOutput));
            let mut failed = false;
            for edit in scripted_edits() {
                let story = format!("{way}, operation {n}, {edit:?}");
                let before = store.current();
                let next = content(&before.apply(&edit).unwrap());
                match store.commit(edit.clone()) {
                    Ok(committed) => assert_eq!(content(&committed), next, "{story}"),
                    Err(CommitError::Certain(_)) => {
                        certain += 1;
                        assert!(Arc::ptr_eq(&before, &store.current()), "{story}: the old state stands");
                        let again = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, n), 5);
                        let found = content(&open(&again, options).unwrap().current());
                        assert_eq!(found, content(&before), "{story}: the old state is on disk");
                        let retried = store.commit(edit).unwrap_or_else(|error| panic!("{story}: retry: {error}"));
                        assert_eq!(content(&retried), next, "{story}: retry");
                    }
                    Err(CommitError::Uncertain(_)) => {
                        uncertain += 1;
                        failed = true;
                        assert!(store.failed().is_some(), "{story}");
                        let events = simulation.files.event_count();
                        assert!(matches!(store.commit(edit.clone()), Err(CommitError::Failed(_))), "{story}");
                        assert!(matches!(store.commit_anew(), Err(CommitError::Failed(_))), "{story}");
                        assert_eq!(store.collect_obsolete().unwrap(), 0, "{story}");
                        assert!(!matches!(store.remove_leftovers(), Ok(1..)), "{story}");
                        assert_eq!(simulation.files.event_count(), events, "{story}: a failed store touches nothing");
                        for (crash, seed) in CRASHES {
                            let again = Simulation::with_files(simulation.files.crash_image(crash, seed), 5);
                            let reopened = open(&again, options).unwrap_or_else(|error| panic!("{story}: {error}"));
                            let found = content(&reopened.current());
                            assert!(found == content(&before) || found == next, "{story}: neither old nor new");
                            reopened.remove_leftovers().unwrap();
                            assert_eq!(
                                content(&open(&again, options).unwrap().current()),
                                Manifest {
                                    closed_cleanly: open(&again, options).unwrap().current().closed_cleanly,
                                    ..found
                                }
                            );
                        }
                        break;
                    }
                    Err(error) => panic!("{story}: {error}"),
                }
            }
            if simulation.files.fault_hits(fault) == 0 {
                break;
            }
            simulation.files.clear_faults();
            if !failed {
                let last = content(&store.current());
                store.collect_obsolete().unwrap();
                store.remove_leftovers().unwrap();
                assert_eq!(content(&open(&simulation, options).unwrap().current()), last, "{way}, operation {n}");
            }
        }
        assert!(certain >= 20 && uncertain >= 8, "{way}: {certain} certain, {uncertain} uncertain");
    }
}

/// M6: a fault at any operation of creation or opening is reported, and the call simply made again.
#[test]
fn creation_and_opening_are_repeatable_after_any_fault() {
    for (_, options) in WAYS {
        for n in 1.. {
            let simulation = world(7);
            let fault = simulation.files.inject(Fault::on_anything().nth(n));
            let failed = create(&simulation, options).is_err();
            let hit = simulation.files.fault_hits(fault) > 0;
            simulation.files.clear_faults();
            if failed {
                assert!(hit);
                // A failure after the rename leaves a database whose durability is unknown: opening and committing
                // anew makes it known.
                match open(&simulation, options) {
                    Ok(store) => drop(store.commit_anew().unwrap()),
                    Err(ManifestError::NotFound { .. }) => drop(create(&simulation, options).unwrap()),
                    Err(error) => panic!("operation {n}: {error}"),
                }
                let again = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, n), 5);
                assert_eq!(open(&again, options).unwrap().current().keyspaces.len(), 1, "operation {n}");
            }
            if !hit {
                break;
            }
        }
        let simulation = world(7);
        let states = scripted_run(&simulation, options);
        for n in 1.. {
            let fault = simulation.files.inject(Fault::on_anything().nth(n));
            let opened = open(&simulation, options);
            let hit = simulation.files.fault_hits(fault) > 0;
            simulation.files.clear_faults();
            assert_eq!(opened.is_err(), hit, "operation {n}");
            assert_eq!(content(&open(&simulation, options).unwrap().current()), states.last().unwrap().1);
            if !hit {
                break;
            }
        }
    }
}

/// M7: a disk that is full is a certain error; when there is room again, commits go on.
#[test]
fn a_full_disk_is_certain_and_passes() {
    for (way, options) in WAYS {
        let simulation = world(7);
        let store = create(&simulation, options).unwrap();
        let mut edits = scripted_edits().into_iter();
        store.commit(edits.next().unwrap()).unwrap();
        store.collect_obsolete().unwrap();
        simulation.files.set_capacity(Some(simulation.files.used_bytes()));
        let before = store.current();
        // Lines go on in the space that their file has; what needs a new file fails, and certainly so.
        let refused = edits.by_ref().find_map(|edit| match store.commit(edit.clone()) {
            Ok(_) => None,
            Err(CommitError::Certain(error)) => Some((edit, error)),
            Err(error) => panic!("{way}: {error}"),
        });
        let (edit, error) = refused.unwrap_or_else(|| panic!("{way}: the disk never was full"));
        assert!(error.is_out_of_space(), "{way}: {error}");
        assert!(store.current().generation >= before.generation);
        simulation.files.set_capacity(None);
        store.commit(edit).unwrap();
        for edit in edits {
            store.commit(edit).unwrap();
        }
        let last = content(&store.current());
        assert_eq!(content(&open(&simulation, options).unwrap().current()), last, "{way}");
    }
}

/// M7: the failed sync of the directory after the last rename is uncertain, and the first cause is what everyone hears.
#[test]
fn a_failed_directory_sync_after_the_rename_fails_the_store() {
    let simulation = world(7);
    let store = create(&simulation, WAYS[0].1).unwrap();
    simulation.files.inject(Fault::on(FileOperation::SyncDirectory).path_ends_with("/db").nth(1));
    let edit = scripted_edits().remove(0);
    let Err(CommitError::Uncertain(cause)) = store.commit(edit.clone()) else { panic!("M7: uncertain") };
    assert_eq!(cause.operation, FileOperation::SyncDirectory);
    let Err(error @ CommitError::Failed(_)) = store.commit(edit) else { panic!("M7: failed") };
    assert!(error.to_string().contains(&cause.to_string()), "{error}");
}

/// M2: a process that opens after a failed sync removes nothing before it has made what it saw durable.
#[test]
fn leftovers_go_only_when_what_replaced_them_is_durable() {
    let (_, options) = WAYS[0];
    let simulation = world(7);
    let store = create(&simulation, options).unwrap();
    store.commit(scripted_edits().remove(0)).unwrap();
    let before = content(&store.current());
    simulation.files.inject(Fault::on(FileOperation::SyncDirectory).path_ends_with("/db").nth(1));
    let edit = parse_edit("replace 1 flushed=9 + L0:e2:t2[c..z #6..#9]\nclosed true");
    assert!(matches!(store.commit(edit.clone()), Err(CommitError::Uncertain(_))));
    simulation.files.clear_faults();
    let after = content(&Manifest::apply(&before, &edit).unwrap());

    let reopened = open(&simulation, options).unwrap();
    assert_eq!(content(&reopened.current()), after, "the process sees the rename");
    let begun = simulation.files.event_count();
    assert_eq!(reopened.remove_leftovers().unwrap(), 1, "the level file that the rename replaced");
    for event in begun..=simulation.files.event_count() {
        for seed in 0..8 {
            let image = Simulation::with_files(simulation.files.crash_image_at(event, Crash::PowerCut, seed), 9);
            let found = open(&image, options).unwrap_or_else(|error| panic!("event {event}, seed {seed}: {error}"));
            let found = Manifest { closed_cleanly: after.closed_cleanly, ..content(&found.current()) };
            let old = Manifest { closed_cleanly: after.closed_cleanly, ..before.clone() };
            assert!(found == after || (found == old && event < simulation.files.event_count()), "event {event}");
        }
    }
}

const FORMER: &str = r#"{"version":1,"next_file_id":9,"levels":[[{"id":8,"size":100,"min_key":"a","max_key":"z","entries":2}],
    [{"id":3,"size":70,"min_key":"b","max_key":"m","entries":5},{"id":4,"size":70,"min_key":"n","max_key":"z","entries":5}]]}"#;

fn former_world() -> Simulation {
    let simulation = world(7);
    simulation.files.create_dir(Path::new(DIR)).unwrap();
    simulation.files.sync_dir(Path::new("/data")).unwrap();
    file_system::replace_file(&*simulation.files, Path::new(DIR), "manifest.json", FORMER.as_bytes()).unwrap();
    simulation
}

fn backup_of(simulation: &Simulation) -> Option<Vec<u8>> {
    let entries = simulation.files.read_dir(Path::new(DIR)).unwrap();
    let backup = entries.into_iter().find(|entry| entry.name.starts_with("manifest.json.backup-"))?;
    Some(simulation.files.read(&Path::new(DIR).join(backup.name), 1 << 20).unwrap())
}

/// M4: a crash at any event of a migration, and opening migrates, or has migrated; the former manifest is never lost.
#[test]
fn a_crash_at_any_event_of_a_migration_is_mended_by_opening() {
    let (_, options) = WAYS[0];
    let simulation = former_world();
    let before = simulation.files.event_count();
    let expected = content(&open(&simulation, options).unwrap().current());
    assert_eq!(backup_of(&simulation).unwrap(), FORMER.as_bytes());
    for event in before..=simulation.files.event_count() {
        for (crash, seed) in CRASHES {
            let story = format!("{crash:?} (seed {seed}) at event {event}");
            let image = Simulation::with_files(simulation.files.crash_image_at(event, crash, seed), 7);
            let kept = image.files.read(&Path::new(DIR).join("manifest.json"), 1 << 20).ok();
            assert_eq!(kept.or_else(|| backup_of(&image)).as_deref(), Some(FORMER.as_bytes()), "{story}");
            let store = open(&image, options).unwrap_or_else(|error| panic!("{story}: {error}"));
            let found = Manifest { database_id: expected.database_id, ..content(&store.current()) };
            assert_eq!(found, expected, "{story}");
            // A second crash, at any event of this opening: still nothing is lost.
            for second in 0..=image.files.event_count() {
                let again = image.files.crash_image_at(second, Crash::PowerCut, event + second);
                let reopened = open(&Simulation::with_files(again, 8), options);
                let reopened = reopened.unwrap_or_else(|error| panic!("{story}, then at event {second}: {error}"));
                assert_eq!(content(&reopened.current()).keyspaces, expected.keyspaces, "{story}, then at {second}");
            }
            store.remove_leftovers().unwrap();
            store.commit_anew().unwrap();
            assert_eq!(backup_of(&image).as_deref(), Some(FORMER.as_bytes()), "{story}");
            assert!(!image.files.exists(&Path::new(DIR).join("manifest.json")).unwrap(), "{story}");
        }
    }
}

/// M4: a fault at any operation of a migration is reported, and opening again does what is missing.
#[test]
fn a_fault_at_any_operation_of_a_migration_is_mended_by_opening() {
    let (_, options) = WAYS[0];
    for n in 1.. {
        let simulation = former_world();
        let fault = simulation.files.inject(Fault::on_anything().nth(n));
        let failed = open(&simulation, options).is_err();
        let hit = simulation.files.fault_hits(fault) > 0;
        simulation.files.clear_faults();
        assert_eq!(failed, hit, "operation {n}");
        let store = open(&simulation, options).unwrap_or_else(|error| panic!("operation {n}: {error}"));
        assert_eq!(store.current().keyspaces[&internal_key::KeyspaceId(1)].tables().count(), 3, "operation {n}");
        assert_eq!(backup_of(&simulation).as_deref(), Some(FORMER.as_bytes()), "operation {n}");
        if !hit {
            break;
        }
    }
}

/// M1: every flipped byte of every file of the manifest gives the same value or a typed error. The last line of an edit
/// file is the exception that M3 states: damage to it looks like a tear, and the state before it is found.
#[test]
fn every_flipped_byte_is_harmless_or_told() {
    for (way, options) in WAYS {
        let simulation = world(7);
        let mut states = scripted_run(&simulation, options);
        let (_, last) = states.pop().unwrap();
        let before_last = states.pop().unwrap().1;
        let store = open(&simulation, options).unwrap();
        let named = store.named_files().into_iter().filter(|file| simulation.files.exists(&file.path).unwrap());
        for file in named {
            let bytes = simulation.files.read(&file.path, 1 << 20).unwrap();
            let is_lines = file.kind == manifest::NamedFileKind::Edits;
            let last_line = bytes
                .iter()
                .rposition(|&byte| byte == b'\n')
                .map_or(0, |end| bytes[..end].iter().rposition(|&byte| byte == b'\n').map_or(0, |start| start + 1));
            let (mut told, mut harmless) = (0, 0);
            for (index, bit) in (0..bytes.len()).flat_map(|index| [(index, 1 << (index % 8)), (index, 0x80)]) {
                let flip = |byte: u8| byte ^ bit;
                simulation.files.corrupt(&file.path, index as u64, flip).unwrap();
                match open(&simulation, options) {
                    Ok(store) => {
                        let found = content(&store.current());
                        let cut = is_lines && index >= last_line && found == before_last;
                        assert!(found == last || cut, "{way}: {} byte {index}", file.path.display());
                        harmless += 1;
                    }
                    Err(ManifestError::Decode(_)) => told += 1,
                    Err(error) => panic!("{way}: {} byte {index}: {error}", file.path.display()),
                }
                simulation.files.corrupt(&file.path, index as u64, flip).unwrap();
            }
            assert!(is_lines || harmless == 0, "{}: {told} told, {harmless} not", file.path.display());
        }
    }
}
