//! The write protocol.
//!
//! ```text
//! encode ─▶ reserve ─▶ log ─▶ apply ─▶ publish ─▶ wait until visible ─▶ (sync)
//! caller    one lock   └ parallel ┘    in order   parked, if at all     one for all
//! ```
//!
//! - **P1** Everything that can be done before the reservation is. Under its lock: sequence numbers, the range in the log,
//!   and the caller's own step (memtables, arena ranges, sealing). Log order is seqno order.
//! - **P2** Copying and applying run in parallel. A writer that dies between reserve and publish fails the database.
//! - **P3** `commit` returns only after its batch is visible, and so after everything before it is.
//! - **P7** `Synced` is answered by a sync that began after `logged` had passed the record's end.
//! - **P8** Certain errors change nothing; uncertain ones fail the database with their cause.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use internal_key::SeqNo;
use lock_meter::LockCosts;
use version_history::Frontier;

use crate::failure::{Failure, SyncDied, WriterDied};
use crate::group_sync::{GroupSync, SyncAbandoned, SyncSource};
use crate::sync::Mutex;
use crate::{Cause, CloseError, CommitError, Journal, PublishQueue, ReserveError};

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The process being killed: the record is in the log's mapped file.
    #[default]
    Buffered,
    /// Loss of power: the log is synced through the record (P7).
    Synced,
}

/// One batch on its way in: a payload with its checksum, how many sequence numbers it takes, and what it must survive.
#[derive(Debug, Clone, Copy)]
pub struct Request<P> {
    payload: P,
    entries: u64,
    durability: Durability,
}

impl<P> Request<P> {
    /// A request for `entries` sequence numbers, at least one.
    ///
    /// # Panics
    /// If `entries` is zero: every record takes a sequence number (P1).
    pub fn new(payload: P, entries: u64, durability: Durability) -> Self {
        assert!(entries > 0, "P1: a record takes at least one sequence number");
        Self { payload, entries, durability }
    }
}

/// How a pipeline is set up.
#[derive(Debug, Clone, Copy)]
pub struct PipelineOptions {
    /// How many batches can be between reserve and publish; a power of two. A writer beyond that waits before its
    /// reservation. 64 bytes each.
    pub in_flight_max: usize,
    /// How many threads can run at once; decides whether a waiter spins before it parks (P9).
    pub cores: usize,
}

impl Default for PipelineOptions {
    /// 1,024 batches in flight, and the cores that this process may use.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { in_flight_max: 1024, cores }
    }
}

/// How much went through a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineCounts {
    /// Batches reserved.
    pub commits: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Commits and calls of [`Pipeline::persist`] that these syncs answered: divided by `syncs`, the size of a group.
    pub synced: u64,
    /// How often a commit found no segment ready, and made it, waited for whoever did (several syncs of a disk), or was refused
    /// because there is no room for it. Zero where somebody keeps the journal ahead of its writers.
    pub segment_waits: u64,
}

/// The write path of a database: hands out sequence numbers and log ranges in one order, and publishes in that order.
///
/// Shared by reference between any number of threads. A buffered commit takes one lock once, allocates nothing, and makes
/// a handful of atomic operations; see the crate's README for figures.
pub struct Pipeline<J: Journal> {
    journal: J,
    /// Held while a writer prepares a segment. Before `order`.
    preparing: Mutex<()>,
    order: Mutex<Order<J>>,
    queue: PublishQueue,
    sync: GroupSync,
    failure: Failure,
    /// Distances are counted from here.
    base: J::Position,
}

/// What the reservation lock guards.
struct Order<J: Journal> {
    /// `None` once closed.
    tail: Option<J::Tail>,
    /// The last sequence number handed out.
    last: SeqNo,
    next_ticket: u64,
    /// Tickets below it have a slot; a cached, and so possibly too small, `PublishQueue::limit`.
    ticket_limit: u64,
    segment_waits: u64,
}

/// What one writer got from its reservation.
struct Ticket<R, T> {
    number: u64,
    first: SeqNo,
    last: SeqNo,
    range: R,
    /// What the caller's step made.
    target: T,
}

impl<J: Journal> Pipeline<J> {
    /// A pipeline that continues `journal` at `tail`, after `last`, the largest sequence number in manifest, tables and
    /// log (P6); everything at or below it is visible from the start.
    ///
    /// # Panics
    /// If `options.in_flight_max` is not a power of two.
    pub fn new(journal: J, tail: J::Tail, last: SeqNo, options: PipelineOptions) -> Self {
        let PipelineOptions { in_flight_max, cores } = options;
        let base = journal.durable();
        Self {
            journal,
            preparing: Mutex::new(()),
            order: Mutex::new(Order {
                tail: Some(tail),
                last,
                next_ticket: 0,
                ticket_limit: in_flight_max as u64,
                segment_waits: 0,
            }),
            queue: PublishQueue::new(in_flight_max, last, cores),
            sync: GroupSync::new(),
            failure: Failure::new(),
            base,
        }
    }

    /// Makes a batch visible to every later read and, if asked, waits until it survives a power cut. Returns its last
    /// sequence number.
    ///
    /// - `in_order` runs under the reservation lock with the batch's first sequence number and the place of its record,
    ///   in log order. Here memtables are picked and arena ranges reserved, full memtables sealed and super versions
    ///   published (P4). It may refuse: then nothing has changed. It must be quick, do no I/O, and not call this pipeline.
    /// - `apply` runs after the record is copied, in parallel with other writers', and inserts into the memtables.
    ///
    /// A panic in either fails the database (P2).
    ///
    /// # Errors
    /// See [`CommitError`]. All but [`CommitError::Failed`] are certain: nothing has changed.
    pub fn commit<T, E>(
        &self,
        request: &Request<J::Payload<'_>>,
        in_order: impl FnOnce(SeqNo, J::Position) -> Result<T, E>,
        apply: impl FnOnce(T),
    ) -> Result<SeqNo, CommitError<E, J::Error>> {
        let Ticket { number, first, last, range, target } = self.reserve(request, in_order)?; // P1
        let writer = Writer { pipeline: self, first, ticket: Some(number) }; // P2
        if let Err(error) = self.journal.append(&range, &request.payload) {
            std::mem::forget(writer);
            self.queue.stamp_abandoned(number);
            return Err(CommitError::Failed(self.fail(Arc::new(error)))); // P8: uncertain
        }
        let end = J::distance(self.base, J::end(&range));
        self.queue.stamp_logged(number, end, last);
        apply(target);
        self.queue.stamp_applied(number);
        std::mem::forget(writer);
        self.wait_until_visible(number, last)?; // P3
        if request.durability == Durability::Synced {
            self.wait_until_synced(end)?; // P7
        }
        Ok(last)
    }

    /// Runs `step` under the reservation lock without writing a record: for sealing a memtable that is to be flushed (P4).
    /// `step` gets the sequence number that the next batch will begin with. The rules of `in_order` apply.
    pub fn with_order<R>(&self, step: impl FnOnce(SeqNo) -> R) -> R {
        let order = self.order.lock();
        step(order.last.checked_add(1).unwrap_or(SeqNo::MAX))
    }

    /// Looks at the log's tail under the reservation lock, to see what the background should prepare. `None` once closed.
    pub fn with_tail<R>(&self, look: impl FnOnce(&J::Tail) -> R) -> Option<R> {
        self.order.lock().tail.as_ref().map(look)
    }

    /// Changes the log's tail under the reservation lock: for the log's own operations on it. `None` once closed.
    pub fn change_tail<R>(&self, change: impl FnOnce(&mut J::Tail) -> R) -> Option<R> {
        self.order.lock().tail.as_mut().map(change)
    }

    /// The sequence number that the next batch will begin with.
    pub fn next_seqno(&self) -> SeqNo {
        self.with_order(|next| next)
    }

    /// The seqno through which every batch is copied and applied.
    #[inline]
    pub fn visible(&self) -> &Frontier {
        self.queue.visible()
    }

    /// Through where the log is copied without a gap: what a sync that begins now vouches for.
    pub fn logged(&self) -> J::Position {
        J::at_distance(self.base, self.queue.logged())
    }

    /// The log.
    #[inline]
    pub fn journal(&self) -> &J {
        &self.journal
    }

    /// Waits until every batch at or below `seqno` is visible: when that is a sealed memtable's last, it is complete (P4).
    ///
    /// # Errors
    /// The cause, if the database failed before.
    pub fn wait_visible(&self, seqno: SeqNo) -> Result<(), Cause> {
        let visible =
            || self.visible().load() >= seqno || planted_faults::planted("commit-pipeline-sealed-taken-for-complete");
        if !visible() {
            self.queue.wait_until(|| visible() || self.failure.is_set());
        }
        if visible() { Ok(()) } else { Err(self.cause()) }
    }

    /// Makes everything that is visible now survive a power cut (P5, P7).
    ///
    /// # Errors
    /// The cause, if the database failed.
    pub fn persist(&self) -> Result<(), Cause> {
        self.queue.advance();
        match self.wait_until_synced::<Infallible>(self.queue.logged()) {
            Err(CommitError::Failed(cause)) => Err(cause),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Says that the log has released its claims (L4): those who wait for a sync wait on for one that counts.
    pub fn claims_released(&self) {
        self.sync.claims_released();
    }

    /// Fails the database: every later write gets `cause`, unless an earlier one is kept already; returns the one kept.
    /// Everyone who waits is woken with it (P8).
    pub fn fail(&self, cause: Cause) -> Cause {
        self.failure.set(cause);
        if !planted_faults::planted("commit-pipeline-failure-wakes-nobody") {
            self.queue.wake_all();
            self.sync.wake_all();
        }
        self.cause()
    }

    /// The first cause, if the database failed.
    pub fn failure(&self) -> Option<Cause> {
        self.failure.cause()
    }

    /// How much went through.
    pub fn counts(&self) -> PipelineCounts {
        let (commits, segment_waits) = {
            let order = self.order.lock();
            (order.next_ticket, order.segment_waits)
        };
        let (syncs, synced) = self.sync.counts();
        PipelineCounts { commits, syncs, synced, segment_waits }
    }

    /// What its locks have cost: the reservation, the rounds of syncing, and where writers park.
    pub fn lock_costs(&self) -> [(&'static str, LockCosts); 3] {
        [
            ("reservation", self.order.costs()),
            ("log sync rounds", self.sync.lock_costs()),
            ("parked writers", self.queue.lock_costs()),
        ]
    }

    /// Refuses later commits, waits for those in flight and for whoever prepares a segment, and hands out the tail for the
    /// log's last record. No writer touches a file any more when this returns, also after a failure.
    ///
    /// # Errors
    /// - [`CloseError::AlreadyClosed`] to all but the first.
    /// - [`CloseError::Failed`] if the database failed: its log must not be ended cleanly.
    pub fn close(&self) -> Result<J::Tail, CloseError> {
        let (tail, tickets) = {
            let mut order = self.order.lock();
            (order.tail.take().ok_or(CloseError::AlreadyClosed)?, order.next_ticket)
        };
        // Of a database that has failed nothing is published any more, and its writers leave one by one.
        let skips_the_failed =
            || planted_faults::planted("commit-pipeline-failed-close-passes-writers") && self.failure.is_set();
        self.queue.wait_until(|| {
            let all_published = self.queue.published() >= tickets;
            all_published || (self.failure.is_set() && self.queue.have_left(tickets)) || skips_the_failed()
        });
        if !planted_faults::planted("commit-pipeline-close-passes-a-preparing-writer") {
            // P9: whoever prepares has no ticket yet. Who takes this lock later finds the tail gone.
            drop(self.preparing.lock());
        }
        match self.failure() {
            Some(cause) => Err(CloseError::Failed(cause)),
            None => Ok(tail),
        }
    }

    /// P1: sequence numbers, log range and the caller's step, in one order.
    fn reserve<T, E>(
        &self,
        request: &Request<J::Payload<'_>>,
        in_order: impl FnOnce(SeqNo, J::Position) -> Result<T, E>,
    ) -> Result<Ticket<J::Reservation, T>, CommitError<E, J::Error>> {
        let payload_bytes = J::payload_bytes(&request.payload);
        loop {
            let mut guard = self.order.lock();
            if self.failure.is_set() {
                return Err(CommitError::Failed(self.cause()));
            }
            let order = &mut *guard;
            let Some(tail) = &mut order.tail else { return Err(CommitError::Closed) };
            if order.next_ticket >= order.ticket_limit {
                order.ticket_limit = self.queue.limit();
                if order.next_ticket >= order.ticket_limit {
                    let ticket = order.next_ticket;
                    drop(guard);
                    self.queue.wait_until(|| ticket < self.queue.limit() || self.failure.is_set());
                    continue;
                }
            }
            let last = order.last.checked_add(request.entries);
            let (Some(first), Some(last)) = (order.last.checked_add(1), last) else {
                return Err(CommitError::SeqNosExhausted { last: order.last, entries: request.entries });
            };
            let range = match self.journal.reserve(tail, payload_bytes, first) {
                Ok(range) => range,
                Err(ReserveError::TooLarge { payload_bytes, payload_bytes_max }) => {
                    return Err(CommitError::TooLarge { payload_bytes, payload_bytes_max });
                }
                Err(ReserveError::NoSegmentReady) => {
                    order.segment_waits += 1;
                    drop(guard);
                    self.prepare_segment()?;
                    continue;
                }
            };
            // A panic in the caller's step leaves what it has done so far, which no record describes.
            let writer = Writer { pipeline: self, first, ticket: None };
            let target = in_order(first, J::start(&range));
            std::mem::forget(writer);
            let target = target.map_err(CommitError::Refused)?;
            self.journal.accept(tail, &range);
            order.last = last;
            let number = order.next_ticket;
            order.next_ticket += 1;
            return Ok(Ticket { number, first, last, range, target });
        }
    }

    #[cold]
    fn prepare_segment<E>(&self) -> Result<(), CommitError<E, J::Error>> {
        let _until_it_is_made = self.preparing.lock();
        // P9: looked at after the lock is taken, because closing takes the tail before it waits for the lock.
        if self.order.lock().tail.is_none() {
            return Err(CommitError::Closed);
        }
        lock_meter::waiting(|| self.journal.prepare_segment()).map_err(|error| {
            if J::is_certain(&error) {
                CommitError::NoRoom(error)
            } else {
                CommitError::Failed(self.fail(Arc::new(error)))
            }
        })
    }

    #[inline]
    fn wait_until_visible<E>(&self, ticket: u64, last: SeqNo) -> Result<(), CommitError<E, J::Error>> {
        let visible = || self.visible().load() >= last;
        if visible() || planted_faults::planted("commit-pipeline-acknowledged-behind-a-hole") {
            return Ok(());
        }
        self.queue.wait_in_turn(ticket, || visible() || self.failure.is_set());
        if visible() {
            return Ok(());
        }
        // P9: its stamp behind a hole moved nothing and woke nobody, and closing waits for it.
        if !planted_faults::planted("commit-pipeline-closer-left-asleep") {
            self.queue.wake_all();
        }
        Err(CommitError::Failed(self.cause()))
    }

    fn wait_until_synced<E>(&self, target: u64) -> Result<(), CommitError<E, J::Error>> {
        // The one who syncs for all waits as well, for the disk.
        lock_meter::waiting(|| self.sync.wait_through(target, self))
            .map_err(|SyncAbandoned| CommitError::Failed(self.cause()))
    }

    fn cause(&self) -> Cause {
        self.failure.cause().expect("P8: asked for only after a failure")
    }
}

impl<J: Journal> SyncSource for Pipeline<J> {
    fn logged(&self) -> u64 {
        // Also what is copied and not yet applied: their writers will find the work done.
        self.queue.advance();
        self.queue.logged()
    }

    fn sync_through(&self, distance: u64) -> Result<(), SyncAbandoned> {
        let panicked = SyncPanic { pipeline: self };
        let synced = self.journal.sync_through(J::at_distance(self.base, distance));
        std::mem::forget(panicked);
        synced.map_err(|error| {
            self.failure.set(Arc::new(error)); // P8: uncertain
            self.queue.wake_all();
            SyncAbandoned
        })
    }

    fn durable(&self) -> u64 {
        J::distance(self.base, self.journal.durable())
    }

    fn is_failed(&self) -> bool {
        self.failure.is_set()
    }
}

/// Fails the pipeline if its writer unwinds between reserve and publish (P2); forgotten by a writer that gets through.
struct Writer<'a, J: Journal> {
    pipeline: &'a Pipeline<J>,
    first: SeqNo,
    /// `None` until the reservation is accepted.
    ticket: Option<u64>,
}

impl<J: Journal> Drop for Writer<'_, J> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.pipeline.queue.stamp_abandoned(ticket);
        }
        if !planted_faults::planted("commit-pipeline-death-unnoticed") {
            self.pipeline.fail(Arc::new(WriterDied { first: self.first }));
        }
    }
}

/// Fails the pipeline if the log panics while it syncs; forgotten otherwise.
struct SyncPanic<'a, J: Journal> {
    pipeline: &'a Pipeline<J>,
}

impl<J: Journal> Drop for SyncPanic<'_, J> {
    fn drop(&mut self) {
        self.pipeline.failure.set(Arc::new(SyncDied));
        self.pipeline.queue.wake_all();
    }
}

impl<J: Journal> fmt::Debug for Pipeline<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("visible", &self.visible().load())
            .field("logged", &self.logged())
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}
