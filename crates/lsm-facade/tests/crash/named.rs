//! Runs that once failed, or that random ones seldom reach, each under the name of what must hold.

use std::path::Path;

use file_system::{Crash, Fault, FaultEffect, FileOperation, FileSystem, Simulation};
use lsm_facade::{Database, Durability, Error};

use crate::check::state_of;
use crate::run::DIR;

fn small(simulation: &Simulation) -> Database {
    let builder = Database::builder(DIR).environment(simulation.environment()).background_threads(0);
    builder.log_segment_bytes(16 << 10).log_bytes_max(1 << 20).large_batch_bytes(2000).open().unwrap()
}

/// No temporary file can be made for an edit of the manifest: it fails with certainty (P8).
fn fill_disk_for_edits(simulation: &Simulation) {
    let fault = Fault::on(FileOperation::Create).path_contains("/db/.tmp").effect(FaultEffect::NoSpace);
    simulation.files.inject(fault);
}

/// M6: every directory on the way to a new database is durable in its parent before anything is acknowledged in it.
#[test]
fn a_database_in_new_directories_survives_a_power_cut() {
    let simulation = Simulation::new(1);
    let open = |simulation: &Simulation| {
        Database::builder("/some/new/place").environment(simulation.environment()).background_threads(0).open()
    };
    let database = open(&simulation).unwrap();
    database.keyspace("a").unwrap().with_durability(Durability::Synced).insert("key", "value").unwrap();
    for seed in 0..20 {
        let cut = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, seed), seed);
        assert_eq!(state_of(&open(&cut).unwrap())["a"], [(b"key".to_vec(), b"value".to_vec())], "seed {seed}");
    }
}

/// P11: the names of a batch's tables are durable before the log refers to them.
#[test]
fn a_synced_batch_too_large_for_the_log_survives_a_power_cut() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    let mut batch = database.batch();
    batch.set_durability(Durability::Synced);
    batch.insert(&keyspace, "large", [7; 5000]).unwrap();
    database.write(&batch).unwrap();
    for seed in 0..20 {
        let cut = Simulation::with_files(simulation.files.crash_image(Crash::PowerCut, seed), seed);
        assert_eq!(state_of(&small(&cut))["a"].len(), 1, "seed {seed}");
    }
}

/// Forty rows, in several segments, of a process that was killed and had synced none of them.
fn killed() -> Simulation {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    for name in ["a", "other"] {
        database.keyspace(name).unwrap();
    }
    database.persist().unwrap();
    let keyspace = database.keyspace("a").unwrap().with_durability(Durability::Buffered);
    for key in 0..40_u32 {
        keyspace.insert(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    after(Crash::Kill, &simulation)
}

/// L4: what recovery found beyond the last claim, in several segments, is durable before anything is that came later.
#[test]
fn what_was_recovered_after_a_kill_survives_a_power_cut() {
    type Later = (&'static str, fn(&Database));
    let laters: [Later; 8] = [
        ("persist", |database| database.persist().unwrap()),
        ("a synced commit", |database| {
            let other = database.keyspace("other").unwrap().with_durability(Durability::Synced);
            other.insert("later", "1").unwrap();
        }),
        ("a synced batch", |database| {
            let mut batch = database.batch();
            batch.set_durability(Durability::Synced);
            batch.insert(&database.keyspace("other").unwrap(), "later", [7; 5000]).unwrap();
            database.write(&batch).unwrap();
        }),
        ("a flush", |database| {
            let other = database.keyspace("other").unwrap();
            other.insert("later", "1").unwrap();
            other.flush().unwrap();
        }),
        ("a clear", |database| database.keyspace("other").unwrap().clear().unwrap()),
        ("a drop", |database| database.drop_keyspace("other").unwrap()),
        ("jobs", |database| while database.run_one_job().unwrap() {}),
        ("closing", |database| database.close().unwrap()),
    ];
    for (what, later) in laters {
        let killed = killed();
        let recovered = small(&killed);
        assert_eq!(state_of(&recovered)["a"].len(), 40, "{what}");
        later(&recovered);
        for seed in 0..20 {
            let cut = Simulation::with_files(killed.files.crash_image(Crash::PowerCut, seed), seed);
            assert_eq!(state_of(&small(&cut))["a"].len(), 40, "{what}, seed {seed}");
        }
    }
}

/// L4, L3: until it is durable, what was recovered is as it was before the kill: read, written over, and all of it up to some
/// commit is found after a power cut at any event.
#[test]
fn what_was_recovered_and_is_not_settled_may_be_lost_from_its_end() {
    let killed = killed();
    let recovered = small(&killed);
    let opened = killed.files.event_count();
    let keyspace = recovered.keyspace("a").unwrap().with_durability(Durability::Buffered);
    for key in 40..60_u32 {
        keyspace.insert(key.to_be_bytes(), [8; 1000]).unwrap();
    }
    assert_eq!(state_of(&recovered)["a"].len(), 60);
    assert!(keyspace.stats().levels.is_empty(), "nothing but reads and buffered writes came");
    while keyspace.stats().levels.is_empty() {
        assert!(recovered.run_one_job().unwrap());
    }
    let settled = killed.files.event_count();
    let mut found = std::collections::BTreeSet::new();
    for event in 0..=settled {
        let cut = Simulation::with_files(killed.files.crash_image_at(event, Crash::PowerCut, event), event);
        let rows = state_of(&small(&cut)).remove("a").unwrap();
        let keys: Vec<_> = rows.iter().map(|(key, _)| u32::from_be_bytes(key[..].try_into().unwrap())).collect();
        assert!(keys.iter().copied().eq(0..keys.len() as u32), "cut at {event} of {opened} and {settled}: {keys:?}");
        found.insert(keys.len());
        let killed_again = Simulation::with_files(killed.files.crash_image_at(event, Crash::Kill, event), event);
        assert!(state_of(&small(&killed_again))["a"].len() >= 40, "killed again at {event}");
    }
    assert!(found.len() > 1 && found.iter().all(|rows| *rows <= 60), "{found:?}");
}

/// L4: while what was recovered cannot be flushed no claim rises, whatever is written and synced meanwhile: a power cut then finds
/// a torn tail and no damage.
#[test]
fn claims_stay_where_they_are_while_recovery_cannot_be_flushed() {
    let killed = killed();
    let recovered = small(&killed);
    let opened = killed.files.event_count();
    let full = Fault::on(FileOperation::Create).path_contains("/tables").effect(FaultEffect::NoSpace);
    killed.files.inject(full);
    let keyspace = recovered.keyspace("other").unwrap();
    let synced = keyspace.with_durability(Durability::Synced);
    for round in 0..40_u32 {
        keyspace.with_durability(Durability::Buffered).insert(round.to_be_bytes(), [8; 1000]).unwrap();
        let refused = synced.insert("later", "1").unwrap_err();
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
        // Looks after the log all the same, and says that the disk is full.
        let _ = recovered.run_one_job();
    }
    let ended = killed.files.event_count();
    for event in opened..=ended {
        let cut = Simulation::with_files(killed.files.crash_image_at(event, Crash::PowerCut, event), event);
        let rows = state_of(&small(&cut)).remove("a").unwrap();
        let keys: Vec<_> = rows.iter().map(|(key, _)| u32::from_be_bytes(key[..].try_into().unwrap())).collect();
        assert!(keys.iter().copied().eq(0..keys.len() as u32), "cut at {event}: {keys:?}");
    }
    killed.files.clear_faults();
    synced.insert("later", "1").unwrap();
    let cut = Simulation::with_files(killed.files.crash_image(Crash::PowerCut, 1), 1);
    assert_eq!(state_of(&small(&cut))["a"].len(), 40, "there is room again");
}

/// L5: segments go when the edit that moves the floor is durable, and not before.
#[test]
fn a_crash_while_a_flush_frees_many_segments_loses_nothing() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    for key in 0..100_u32 {
        keyspace.with_durability(Durability::Buffered).insert(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    database.persist().unwrap();
    let before = simulation.files.event_count();
    keyspace.flush().unwrap();
    for event in before..=simulation.files.event_count() {
        for crash in [Crash::Kill, Crash::PowerCut] {
            let crashed = Simulation::with_files(simulation.files.crash_image_at(event, crash, event), event);
            assert_eq!(state_of(&small(&crashed))["a"].len(), 100, "{crash:?} at {event}");
        }
    }
}

/// L3: a clean close claims the log's end, so that damage there is told though no later record carries a claim.
#[test]
fn damage_to_the_last_record_of_a_closed_log_is_told() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    for key in 0..4_u32 {
        keyspace.with_durability(Durability::Buffered).insert(key.to_be_bytes(), [7; 100]).unwrap();
    }
    database.close().unwrap();
    let (files, log) = (&simulation.files, Path::new(DIR).join("log"));
    let last = files.read_dir(&log).unwrap().into_iter().find_map(|entry| {
        let path = log.join(entry.name);
        let bytes = files.read(&path, 1 << 20).unwrap();
        bytes.windows(50).rposition(|window| window == [7; 50]).map(|at| (path, at as u64))
    });
    let (path, at) = last.expect("the log holds the last value");
    files.corrupt(&path, at, |byte| byte ^ 1).unwrap();
    let opened = Database::builder(DIR).environment(simulation.environment()).background_threads(0).open();
    assert!(matches!(opened, Err(Error::Corrupt { .. })), "{opened:?}");
}

fn after(crash: Crash, simulation: &Simulation) -> Simulation {
    Simulation::with_files(simulation.files.crash_image(crash, 1), 2)
}

/// P12: replay skips what `flushed_seqno` has passed, so a flush takes along a clear that the manifest lacks.
#[test]
fn a_clear_whose_edit_failed_survives_a_later_flush() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    keyspace.insert("old", "1").unwrap();
    keyspace.flush().unwrap();
    fill_disk_for_edits(&simulation);
    keyspace.clear().unwrap();
    simulation.files.clear_faults();
    assert!(keyspace.is_empty().unwrap());
    keyspace.insert("new", "2").unwrap();
    keyspace.flush().unwrap();
    for crash in [Crash::Kill, Crash::PowerCut] {
        let found = state_of(&small(&after(crash, &simulation)));
        assert_eq!(found["a"], [(b"new".to_vec(), b"2".to_vec())], "{crash:?}");
    }
}

/// P12, L5: the log floor waits for a drop that the manifest lacks, and a second call or a new keyspace completes it.
#[test]
fn a_drop_whose_edit_failed_is_not_forgotten() {
    for again in [false, true] {
        let simulation = Simulation::new(1);
        let database = small(&simulation);
        let (dropped, other) = (database.keyspace("dropped").unwrap(), database.keyspace("other").unwrap());
        dropped.insert("old", "1").unwrap();
        dropped.flush().unwrap();
        fill_disk_for_edits(&simulation);
        database.drop_keyspace("dropped").unwrap();
        simulation.files.clear_faults();
        assert_eq!(database.list_keyspaces(), ["other"]);
        // Several segments' worth, so that the floor would pass the drop.
        for round in 0..40_u32 {
            other.insert(round.to_be_bytes(), [7; 1000]).unwrap();
            other.flush().unwrap();
        }
        for crash in [Crash::Kill, Crash::PowerCut] {
            assert_eq!(small(&after(crash, &simulation)).list_keyspaces(), ["other"], "{crash:?}");
        }
        if again {
            assert!(matches!(database.drop_keyspace("dropped"), Err(Error::NoSuchKeyspace { .. })));
        }
        assert!(database.keyspace("dropped").unwrap().is_empty().unwrap());
        for crash in [Crash::Kill, Crash::PowerCut] {
            assert_eq!(small(&after(crash, &simulation)).list_keyspaces(), ["dropped", "other"], "{crash:?}");
        }
    }
}

/// P11, P12: the table of a batch stays while replay would still open it.
#[test]
fn a_batch_before_a_clear_whose_edit_failed_can_be_replayed() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    let mut batch = database.batch();
    batch.insert(&keyspace, "large", [7; 5000]).unwrap();
    database.write(&batch).unwrap();
    fill_disk_for_edits(&simulation);
    keyspace.clear().unwrap();
    // Everything that can be done while the manifest cannot be told.
    while !matches!(database.run_one_job(), Err(Error::DiskFull { .. })) {}
    simulation.files.clear_faults();
    for crash in [Crash::Kill, Crash::PowerCut] {
        assert!(state_of(&small(&after(crash, &simulation)))["a"].is_empty(), "{crash:?}");
    }
}

/// M2, M6: a database that was killed while it was made or closed survives a power cut at any event of what comes next.
#[test]
fn a_power_cut_while_recovering_from_a_kill_leaves_a_database_that_opens() {
    let simulation = Simulation::new(1);
    let database = small(&simulation);
    let keyspace = database.keyspace("a").unwrap();
    for key in 0..40_u32 {
        keyspace.insert(key.to_be_bytes(), [7; 1000]).unwrap();
    }
    keyspace.flush().unwrap();
    keyspace.insert("last", "1").unwrap();
    drop((database, keyspace));
    for event in 0..=simulation.files.event_count() {
        let killed = Simulation::with_files(simulation.files.crash_image_at(event, Crash::Kill, event), event);
        let database = small(&killed);
        let keyspace = database.keyspace("a").unwrap();
        let found = keyspace.iter().count();
        // So much that a recycled segment is written over.
        for key in 0..20_u32 {
            keyspace.with_durability(Durability::Buffered).insert(key.to_be_bytes(), [7; 1000]).unwrap();
        }
        for second in 0..=killed.files.event_count() {
            let image = killed.files.crash_image_at(second, Crash::PowerCut, second);
            let again = Simulation::with_files(image, second);
            let builder = Database::builder(DIR).environment(again.environment()).background_threads(0);
            let opened = builder.log_segment_bytes(16 << 10).open();
            assert!(opened.is_ok(), "killed at {event} with {found} rows, cut at {second}: {opened:?}");
        }
    }
}
