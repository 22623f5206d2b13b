//! The process killed and the power cut at every event of a scripted life of a log, and again while it recovers.
#![cfg(not(loom))]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{CountingRandomness, Open, Remembered, Seen, create, replay_all, seqno};
use file_system::{Crash, Environment, Fault, FaultEffect, FileOperation, FileSystem, Simulation};
use write_ahead_log::{Log, LogError, LogOptions, RecordKind, ReserveError};

const DIR: &str = "/db/log";
const OPTIONS: LogOptions = common::SHORT_SEGMENTS;

/// What holds from some event on.
#[derive(Debug, Clone, Copy)]
struct Milestone {
    event: u64,
    remembered: Remembered,
    /// Everything up to here lies in tables.
    flushed: u64,
    /// Everything up to here was appended: survives a kill.
    stored: u64,
    /// Everything up to here was synced: survives a power cut.
    synced: u64,
}

/// One life of a log, from an opening to a crash.
struct Life {
    simulation: Simulation,
    environment: Environment,
    open: Option<Open>,
    /// Every record that any replay may hand out, by sequence number from 1; later lives replace what was cut.
    written: Vec<Seen>,
    milestones: Vec<Milestone>,
    /// Marks payloads, so that a record of an earlier life is not taken for one of this.
    generation: u8,
}

fn environment(simulation: &Simulation) -> Environment {
    Environment {
        randomness: Arc::new(CountingRandomness::starting_at(simulation.files.used_bytes())),
        ..simulation.environment()
    }
}

impl Life {
    fn first() -> Self {
        let simulation = Simulation::new(1);
        let environment = environment(&simulation);
        simulation.files.create_dir(Path::new("/db")).unwrap();
        simulation.files.sync_dir(Path::new("/")).unwrap();
        let (open, remembered) = create(&environment, Path::new(DIR), OPTIONS).unwrap();
        let event = simulation.files.event_count();
        let milestones = vec![Milestone { event, remembered, flushed: 0, stored: 0, synced: 0 }];
        Self { simulation, environment, open: Some(open), written: Vec::new(), milestones, generation: 1 }
    }

    fn open(&mut self) -> &mut Open {
        self.open.as_mut().unwrap()
    }

    fn now(&self) -> Milestone {
        let event = self.simulation.files.event_count();
        Milestone { event, ..*self.milestones.last().unwrap() }
    }

    fn append(&mut self, len: usize) {
        let number = self.open().next_seqno;
        let mut payload = common::payload_of(number, len);
        payload.iter_mut().for_each(|byte| *byte ^= self.generation);
        self.written.truncate(number as usize - 1);
        self.written.push(Seen { seqno: number, kind: RecordKind::Batch, payload: payload.clone() });
        self.open().append(RecordKind::Batch, &payload).unwrap();
        let now = self.now();
        // Behind a hole nothing counts as stored.
        let stored = if now.stored + 1 == number { number } else { now.stored };
        self.milestones.push(Milestone { stored, ..now });
    }

    /// A writer reserves and dies; the database would fail here, the log only stops being contiguous.
    fn lose(&mut self, len: usize) {
        let open = self.open();
        let number = open.next_seqno;
        let reservation = loop {
            match open.log.reserve(&open.tail, len, seqno(number)) {
                Ok(reservation) => break reservation,
                Err(ReserveError::NoSegmentReady) => open.log.prepare_segment().unwrap(),
                Err(error) => panic!("{error}"),
            }
        };
        open.tail.accept(&reservation);
        open.next_seqno += 1;
        self.written.push(Seen { seqno: number, kind: RecordKind::Batch, payload: b"never appended".to_vec() });
    }

    fn sync(&mut self) {
        let open = self.open();
        let end = open.tail.next_end();
        open.log.sync_through(end).unwrap();
        let held = open.log.holds_claims();
        let now = self.now();
        self.milestones.push(if held { now } else { Milestone { synced: now.stored, ..now } });
    }

    /// Tables up to `through`, then a manifest that names the new floor, then the old segments go (L5).
    fn flush(&mut self, through: u64) {
        let now = self.now();
        let open = self.open();
        let floor = open.log.floor_for(seqno(through + 1));
        let claim = open.log.durable();
        let remembered = Remembered { floor, claim, next_id: open.log.next_segment_id() };
        let synced = now.synced.max(through);
        let event = self.simulation.files.event_count();
        self.milestones.push(Milestone { event, remembered, flushed: through, synced, ..now });
        self.open().log.recycle_before(floor).unwrap();
        self.milestones.push(self.now());
    }

    /// What the crash at `event` leaves, checked, and the records found.
    fn check(&self, files: &Simulation, event: u64, crash: Crash, what: &str) -> (Milestone, Vec<Seen>) {
        let milestone = *self.milestones.iter().rev().find(|milestone| milestone.event <= event).unwrap();
        let environment = environment(files);
        let (seen, report) = replay_all(&environment, Path::new(DIR), &milestone.remembered, false);
        let explain = || {
            let events = self.simulation.files.events();
            format!("{what}, {crash:?} at event {event} of\n{}\n{milestone:?}", events.join("\n"))
        };
        let report = report.unwrap_or_else(|error| panic!("{error}\n{}", explain()));
        assert!(report.skipped.is_empty());
        if let Some(first) = seen.first() {
            assert!(first.seqno <= milestone.flushed + 1, "L5: {} is missing\n{}", milestone.flushed + 1, explain());
        }
        for (record, number) in seen.iter().zip(seen.first().map_or(1, |first| first.seqno)..) {
            let expected = self.written.get(number as usize - 1);
            assert_eq!(Some(record), expected, "L3: not what was written\n{}", explain());
        }
        let last = seen.last().map_or(0, |last| last.seqno).max(milestone.flushed);
        let required = if crash == Crash::Kill { milestone.stored } else { milestone.synced };
        assert!(last >= required, "L3: found up to {last}, promised up to {required}\n{}", explain());
        (milestone, seen)
    }

    /// Opens what a crash left and lives on in it, until the end or until something is stopped from outside.
    fn second(simulation: Simulation, found: &Milestone, seen: &[Seen], before: &Self, crash: Crash) -> Self {
        let environment = environment(&simulation);
        let last = seen.last().map_or(0, |last| last.seqno).max(found.flushed);
        let written = before.written[..last as usize].to_vec();
        // What a power cut left is on the disk; what a kill left may still be lost, except what was synced.
        let synced = if crash == Crash::PowerCut { last } else { found.synced };
        let start = Milestone { event: 0, stored: last, synced, ..*found };
        let mut life = Self {
            simulation,
            environment,
            open: None,
            written,
            milestones: vec![start],
            generation: before.generation + 1,
        };
        let dir = Path::new(DIR);
        let (again, report) = replay_all(&life.environment, dir, &found.remembered, false);
        assert_eq!(again, seen, "L3: replaying twice");
        let report = report.unwrap();
        let (log, tail) = Log::resume(
            &life.environment,
            dir,
            common::DATABASE,
            OPTIONS,
            &report,
            found.remembered.next_id,
            seqno(last + 1),
        )
        .unwrap();
        let held = log.holds_claims();
        assert_eq!(held, report.beyond_claim, "L4");
        life.open = Some(Open { log, tail, next_seqno: last + 1 });
        let synced = if held { life.now().synced } else { last };
        life.milestones.push(Milestone { synced, ..life.now() });
        // Claims do not rise, whatever is synced, before the floor has passed what was replayed (L4).
        life.append(300);
        life.sync();
        // This record would carry the claim that must not rise.
        life.append(70);
        life.sync();
        if held {
            life.flush_replayed(last);
        }
        life.open().log.remove_unnamed().unwrap();
        life.append(1200);
        life.sync();
        life.append(2500);
        life.append(10);
        life
    }

    /// The edit that L4 asks for.
    fn flush_replayed(&mut self, last: u64) {
        let floor = self.open().log.floor_for(seqno(last + 1));
        assert_eq!(floor.id, self.open().tail.next_end().segment, "L4: the floor moves to the successor");
        self.flush(last);
        self.open().log.release_claims();
    }
}

/// A life with every step that touches the disk: several segments, seals, a recycled file, a hole at its end.
fn scripted_life() -> Life {
    let mut life = Life::first();
    life.append(100);
    life.append(0);
    life.sync();
    life.append(3000);
    life.append(1500);
    life.open().log.prepare_segment().unwrap();
    life.append(1500);
    life.append(1000);
    life.sync();
    life.append(2000);
    life.append(2000);
    let end = life.open().tail.next_end();
    life.open().log.sync_sealed(end).unwrap();
    life.append(700);
    life.sync();
    life.flush(5);
    life.append(1800);
    life.append(1800);
    life.append(1800);
    life.sync();
    life.append(60);
    life.lose(200);
    life.append(900);
    life.append(2900);
    life.append(60);
    life
}

/// How many times the power is cut at each event, differently each time.
const POWER_CUTS: u64 = 6;

fn crashes() -> impl Iterator<Item = (Crash, u64)> {
    std::iter::once((Crash::Kill, 0)).chain((0..POWER_CUTS).map(|seed| (Crash::PowerCut, seed)))
}

/// L1, L3, L5: after a kill everything stored is there, after a power cut everything synced, and nothing else than a
/// prefix of what was written, whatever the event.
#[test]
fn a_crash_at_every_event_leaves_a_prefix() {
    let life = scripted_life();
    let files = &life.simulation.files;
    let (first, last) = (life.milestones[0].event, files.event_count());
    assert!(last - first > 60, "{} events: the script has lost its subject", last - first);
    for event in first..=last {
        for (crash, seed) in crashes() {
            let image = Simulation::with_files(files.crash_image_at(event, crash, seed), seed);
            life.check(&image, event, crash, &format!("seed {seed}"));
            if event < last {
                let image = Simulation::with_files(files.crash_image_during(event, crash, seed), seed);
                life.check(&image, event, crash, &format!("seed {seed}, during"));
            }
        }
    }
}

/// L4: resuming, and the crash of a log that was resumed, at every event of both lives.
#[test]
fn a_crash_while_resuming_is_recovered_from() {
    let life = scripted_life();
    let files = &life.simulation.files;
    for event in life.milestones[0].event..=files.event_count() {
        for (crash, seed) in [(Crash::Kill, 0), (Crash::PowerCut, event), (Crash::PowerCut, !event)] {
            let image = || Simulation::with_files(files.crash_image_at(event, crash, seed), seed);
            let what = format!("first life, {crash:?} with seed {seed} at event {event}");
            let (found, seen) = life.check(&image(), event, crash, &what);
            let second = Life::second(image(), &found, &seen, &life, crash);
            let events = second.simulation.files.event_count();
            for again in 0..=events {
                for (crash, seed) in [(Crash::Kill, 0), (Crash::PowerCut, event * 1000 + again)] {
                    let files = second.simulation.files.crash_image_at(again, crash, seed);
                    let image = Simulation::with_files(files, seed);
                    second.check(&image, again, crash, &format!("{what}; second life, seed {seed}"));
                }
            }
        }
    }
}

/// M6: creating can be interrupted at every event and done again.
#[test]
fn creating_is_done_again_after_a_crash() {
    let life = Life::first();
    let files = &life.simulation.files;
    for event in 2..=files.event_count() {
        for (crash, seed) in crashes() {
            let image = Simulation::with_files(files.crash_image_at(event, crash, seed), seed);
            let environment = environment(&image);
            let (mut open, remembered) = create(&environment, Path::new(DIR), OPTIONS).unwrap();
            open.append_batch(10).unwrap();
            open.log.sync_through(open.tail.next_end()).unwrap();
            let after = Simulation::with_files(image.files.crash_image(Crash::PowerCut, seed), seed);
            let (seen, report) = replay_all(&after.environment(), Path::new(DIR), &remembered, false);
            assert_eq!((seen.len(), report.unwrap().records), (1, 1), "{crash:?} with seed {seed} at event {event}");
        }
    }
}

/// P8: the first failed sync fails the log for good, and is never tried again.
#[test]
fn a_failed_sync_is_final() {
    let mut life = Life::first();
    life.append(100);
    let fault = life.simulation.files.inject(Fault::on(FileOperation::Sync).path_ends_with("1.wal").nth(1));
    let open = life.open();
    let end = open.tail.next_end();
    let error = open.log.sync_through(end).unwrap_err();
    assert!(error.is_uncertain() && !error.is_out_of_space());
    let durable = open.log.durable();
    assert!(durable < end, "L2: nothing is claimed");
    // The disk is well again, the log is not.
    for result in [open.log.sync_through(end), open.log.prepare_segment()] {
        assert_eq!(result.unwrap_err().to_string(), error.to_string(), "the first cause");
    }
    assert!(matches!(open.append_batch(10), Err(LogError::Failed { .. })));
    assert_eq!(open.log.durable(), durable);
    assert_eq!(life.simulation.files.fault_hits(fault), 1);
}

/// P8: a failed store is uncertain too; the written way can meet one.
#[test]
fn a_failed_store_is_final() {
    let simulation = Simulation::new(1);
    simulation.files.create_dir(Path::new("/db")).unwrap();
    simulation.files.set_maps_logs(false);
    let (mut open, remembered) = create(&simulation.environment(), Path::new(DIR), OPTIONS).unwrap();
    open.append_batch(100).unwrap();
    simulation.files.inject(Fault::on(FileOperation::Write).nth(2));
    assert!(open.append_batch(100).unwrap_err().is_uncertain());
    assert!(open.log.failure().is_some());
    let (seen, report) = replay_all(&simulation.environment(), Path::new(DIR), &remembered, false);
    assert_eq!((seen.len(), report.unwrap().records), (1, 1), "the torn record is cut");
}

/// P8: a segment that cannot be made changes nothing, and the log goes on when the cause has gone, at every step of
/// making one.
#[test]
fn a_segment_that_cannot_be_made_is_certain() {
    for step in 1..=20 {
        let mut life = Life::first();
        life.append(3000);
        life.append(900);
        life.open().log.prepare_segment().unwrap();
        life.append(3000);
        life.sync();
        // The next segment comes from a recycled file.
        life.flush(2);
        life.append(600);
        let fault = life.simulation.files.inject(Fault::on_anything().nth(step).effect(FaultEffect::NoSpace));
        let result = life.open().log.prepare_segment();
        let hit = life.simulation.files.fault_hits(fault) > 0;
        life.simulation.files.clear_faults();
        if let Err(error) = &result {
            assert!(error.is_out_of_space() && !error.is_uncertain(), "step {step}: {error}");
        }
        assert!(life.open().log.failure().is_none(), "step {step}");
        life.append(900);
        life.append(900);
        life.append(900);
        life.append(900);
        life.sync();
        for (crash, seed) in crashes() {
            let event = life.simulation.files.event_count();
            let image = Simulation::with_files(life.simulation.files.crash_image(crash, seed), seed);
            life.check(&image, event, crash, &format!("step {step}, seed {seed}"));
        }
        if !hit {
            assert!(step > 7, "making a segment has {step} steps: the test has lost its subject");
            return;
        }
    }
    panic!("making a segment has more than 20 steps");
}

/// L5: a file that cannot be removed is tried again.
#[test]
fn a_file_that_cannot_be_removed_is_tried_again() {
    let mut life = Life::first();
    for _ in 0..8 {
        life.append(1800);
    }
    life.sync();
    let open = life.open();
    let floor = open.log.floor_for(seqno(9));
    let before = life.simulation.files.read_dir(Path::new(DIR)).unwrap().len();
    life.simulation.files.inject(Fault::on(FileOperation::Remove).nth(1).effect(FaultEffect::PermissionDenied));
    life.open().log.recycle_before(floor).unwrap_err();
    let done = life.open().log.recycle_before(floor).unwrap();
    assert_eq!(done.removed, 1);
    let after = life.simulation.files.read_dir(Path::new(DIR)).unwrap().len();
    assert_eq!((before, after), (4, 2), "the current segment and one to be written over");
}
