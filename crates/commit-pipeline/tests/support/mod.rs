//! A journal in memory, with which the write protocol is tested without a disk: under the standard primitives, under
//! loom and under shuttle.
//!
//! Its cells are atomics that are written and read relaxed, so that a record is seen by others only if the pipeline
//! itself made it happen before.

#![allow(dead_code, reason = "each test binary uses its own part")]

#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;

#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::sync::atomic;

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

use commit_pipeline::{CommitError, Durability, Journal, Pipeline, PipelineOptions, Request, ReserveError};
use internal_key::SeqNo;

use atomic::{AtomicU64, Ordering};

/// What went wrong in the fake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fake log: {what}")]
pub(crate) struct FakeError {
    pub(crate) what: &'static str,
    pub(crate) certain: bool,
}

/// One range: cell numbers.
#[derive(Debug)]
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) first: SeqNo,
}

/// Where the next record goes.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) next: u64,
}

/// What the fake should do wrong, and what it saw. Behind a standard lock that no model knows of: it orders nothing that
/// the pipeline has to order.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// `append` of the record with this first seqno fails.
    pub(crate) failing_append: Option<SeqNo>,
    /// Every `sync_through` fails.
    pub(crate) failing_sync: bool,
    /// `sync_through` panics.
    pub(crate) panicking_sync: bool,
    /// `prepare_segment` fails with this.
    pub(crate) failing_prepare: Option<FakeError>,
    /// Cells that are ready; `prepare_segment` adds `segment`.
    pub(crate) ready: u64,
    pub(crate) segment: u64,
    /// Syncs do not raise what is durable.
    pub(crate) holds_claims: bool,
    pub(crate) syncs: u64,
    /// The first seqno of every record accepted, in log order.
    pub(crate) accepted: Vec<SeqNo>,
}

/// The journal. A record of `n` payload words fills `n` cells, each holding the record's first seqno.
#[derive(Debug)]
pub(crate) struct FakeLog {
    pub(crate) cells: Vec<AtomicU64>,
    pub(crate) durable: AtomicU64,
    /// How many segments were prepared. An atomic, so that a model can interrupt whoever prepares one.
    pub(crate) prepared: AtomicU64,
    script: Mutex<Script>,
    /// Called inside each sync, with the position: where tests hold a sync open.
    pub(crate) in_sync: fn(u64),
    /// Called inside each preparation of a segment.
    pub(crate) in_prepare: fn(),
}

impl FakeLog {
    pub(crate) fn new(cells: usize) -> Self {
        Self {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            durable: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
            script: Mutex::new(Script { ready: cells as u64, ..Script::default() }),
            in_sync: |_| {},
            in_prepare: || {},
        }
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every cell before `end` is copied, as this thread sees it.
    pub(crate) fn is_copied_through(&self, end: u64) -> bool {
        self.cells[..end as usize].iter().all(|cell| cell.load(Ordering::Relaxed) != 0)
    }
}

impl Journal for FakeLog {
    type Tail = Tail;
    type Reservation = Range;
    /// How many cells.
    type Payload<'a> = u64;
    type Position = u64;
    type Error = FakeError;

    fn payload_bytes(payload: &u64) -> u64 {
        *payload
    }

    fn reserve(&self, tail: &mut Tail, payload_bytes: u64, first: SeqNo) -> Result<Range, ReserveError> {
        let payload_bytes_max = self.cells.len() as u64;
        if payload_bytes > payload_bytes_max {
            return Err(ReserveError::TooLarge { payload_bytes, payload_bytes_max });
        }
        let end = tail.next + payload_bytes;
        if end > self.script().ready {
            return Err(ReserveError::NoSegmentReady);
        }
        assert!(end <= payload_bytes_max, "the test writes more than its journal has cells");
        Ok(Range { start: tail.next, end, first })
    }

    fn accept(&self, tail: &mut Tail, range: &Range) {
        assert_eq!(tail.next, range.start, "P1: only the latest reservation is accepted");
        tail.next = range.end;
        self.script().accepted.push(range.first);
    }

    fn start(range: &Range) -> u64 {
        range.start
    }

    fn end(range: &Range) -> u64 {
        range.end
    }

    fn prepare_segment(&self) -> Result<(), FakeError> {
        (self.in_prepare)();
        if let Some(error) = &self.script().failing_prepare {
            return Err(error.clone());
        }
        self.prepared.fetch_add(1, Ordering::Relaxed);
        let mut script = self.script();
        script.ready += script.segment;
        Ok(())
    }

    fn append(&self, range: &Range, payload: &u64) -> Result<(), FakeError> {
        assert_eq!(*payload, range.end - range.start, "P1: the record has the reserved length");
        if self.script().failing_append == Some(range.first) {
            return Err(FakeError { what: "append", certain: false });
        }
        for cell in &self.cells[range.start as usize..range.end as usize] {
            cell.store(range.first.get(), Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync_through(&self, position: u64) -> Result<(), FakeError> {
        assert!(self.is_copied_through(position), "P7: a sync vouches for {position}, which is not copied");
        (self.in_sync)(position);
        let (fails, panics, held) = {
            let mut script = self.script();
            script.syncs += 1;
            (script.failing_sync, script.panicking_sync, script.holds_claims)
        };
        assert!(!panics, "the fake log's sync panics, as the test asked");
        if fails {
            return Err(FakeError { what: "sync", certain: false });
        }
        if !held {
            self.durable.fetch_max(position, Ordering::Release);
        }
        Ok(())
    }

    fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    fn is_certain(error: &FakeError) -> bool {
        error.certain
    }

    fn distance(base: u64, position: u64) -> u64 {
        position - base
    }

    fn at_distance(base: u64, distance: u64) -> u64 {
        base + distance
    }
}

/// What batches are applied to: one relaxed cell a seqno.
#[derive(Debug)]
pub(crate) struct FakeMemtable {
    applied: Vec<AtomicU64>,
}

impl FakeMemtable {
    pub(crate) fn new(seqnos: usize) -> Self {
        Self { applied: (0..=seqnos).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn apply(&self, first: SeqNo, entries: u64) {
        for seqno in first.get()..first.get() + entries {
            self.applied[seqno as usize].store(seqno, Ordering::Relaxed);
        }
    }

    /// Whether everything at or below `seqno` is applied, as this thread sees it.
    pub(crate) fn is_applied_through(&self, seqno: SeqNo) -> bool {
        (1..=seqno.get()).all(|number| self.applied[number as usize].load(Ordering::Relaxed) == number)
    }
}

/// A pipeline over the fake, and what it writes to.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) pipeline: Pipeline<FakeLog>,
    pub(crate) memtable: FakeMemtable,
}

impl Fixture {
    /// Room for `cells` cells and as many seqnos, `in_flight` batches at a time.
    pub(crate) fn new(cells: usize, in_flight: usize) -> Self {
        Self::over(FakeLog::new(cells), in_flight)
    }

    pub(crate) fn over(log: FakeLog, in_flight: usize) -> Self {
        let memtable = FakeMemtable::new(log.cells.len());
        let options = PipelineOptions { in_flight_max: in_flight, cores: 2 };
        Self { pipeline: Pipeline::new(log, Tail { next: 0 }, SeqNo::ZERO, options), memtable }
    }

    /// Commits a batch of `entries`, one cell each, and checks what a reader would find (P3).
    pub(crate) fn commit(
        &self,
        entries: u64,
        durability: Durability,
    ) -> Result<SeqNo, CommitError<Infallible, FakeError>> {
        self.commit_with(entries, durability, || {})
    }

    /// The same; `inside` runs after the batch is applied and before it is published.
    pub(crate) fn commit_with(
        &self,
        entries: u64,
        durability: Durability,
        inside: impl FnOnce(),
    ) -> Result<SeqNo, CommitError<Infallible, FakeError>> {
        let last = self.pipeline.commit(
            &Request::new(entries, entries, durability),
            |first, _| Ok::<_, Infallible>(first),
            |first| {
                self.memtable.apply(first, entries);
                inside();
            },
        )?;
        self.check_visible();
        assert!(self.pipeline.visible().load() >= last, "P3: a writer reads its own write");
        if durability == Durability::Synced {
            assert!(self.pipeline.journal().durable() >= last.get(), "P7: a synced commit is durable");
        }
        Ok(last)
    }

    /// P3: whatever is visible is applied and copied, as this thread sees it, and logged is not behind it.
    pub(crate) fn check_visible(&self) {
        let visible = self.pipeline.visible().load();
        assert!(
            self.memtable.is_applied_through(visible),
            "P3: visible {visible} has passed a batch that is not applied"
        );
        let logged = self.pipeline.logged();
        // One cell a seqno, so that positions and seqnos are the same numbers.
        assert!(logged >= visible.get(), "P3: visible {visible} has passed logged {logged}");
        assert!(self.pipeline.journal().is_copied_through(logged), "P3: logged {logged} has passed a hole");
    }
}

/// `number` as a seqno.
pub(crate) fn seqno(number: u64) -> SeqNo {
    SeqNo::new(number).unwrap()
}
