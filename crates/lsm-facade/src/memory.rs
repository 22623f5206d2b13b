//! The memory of a database: what its writers do when it runs short.
//!
//! ```text
//!   reservation: room for what its memtables grow by? ── yes ─▶ goes on
//!                  │ no: refused, nothing has changed
//!                  ▼
//!   a queue ─▶ asks the jobs ─▶ the largest memtables are flushed ─▶ a grant ─▶ the reservation anew, with the grant
//!                                └ none that could help ─▶ an error that says who holds the memory
//! ```
//!
//! - **P13** What memtables grow by is taken under the reservation lock, before they do, or the reservation is refused. Who
//!   is refused waits before the next one (P10), in the order of coming (P9), and takes what it waited for with it.
//!
//! 1. The writer is refused: `growth` bytes are not to be had. It lets go of the reservation lock and enters the queue.
//! 2. At the head of the queue it asks: a number, and the bytes, under the jobs' lock; and wakes the workers.
//! 3. A worker that looks for a job sees that somebody asks. It frees what nobody reads any more, evicts tables, seals the
//!    largest memtables and has them flushed, as many as it takes (`jobs::memory`).
//! 4. When a job ends the writer looks again. If there is room it takes a grant, leaves the queue, and reserves.
//! 5. A worker that finds, while no flush runs, that all that could be flushed would not be enough, answers the number.
//!    The writer asks again a few times, a moment apart: a reader that only passed by has then let go. After that it gets
//!    [`Error::MemoryFull`]; who stood behind it asks once.
//!
//! So every wait ends: a flush makes room, or fails and so ends it (P9), or there is none to wait for and it is answered.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compaction::{Debt, Limits, Load, Pace, Wait};
use internal_key::SeqNo;
use memory_budget::Grant;
use version_history::Sealed;

use crate::core::{Core, KeyspaceShared};
use crate::events::Event;
use crate::jobs::Jobs;
use crate::{Error, Result};

/// How often a writer asks before it takes no for an answer.
const ASKS: u32 = 16;

/// How long it waits in between.
const BETWEEN_ASKS: Duration = Duration::from_millis(2);

/// What a database holds in memory, in bytes, and what it may (P13).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// All that it may hold ([`DatabaseBuilder::memory_bytes_max`](crate::DatabaseBuilder::memory_bytes_max)); 0 for no limit.
    pub bytes_max: u64,
    /// What all its memtables hold, and what was granted to writers for them.
    pub memtables: u64,
    /// The part of it that no keyspace consists of any more: flushed, cleared or dropped, and still read by somebody or about to
    /// be freed; and empty memtables, of which every keyspace has one and may have another made ahead.
    pub memtables_kept: u64,
    /// The most that `memtables` ever was.
    pub memtables_most: u64,
    /// What `memtables` may be now, beside the others; 0 for no limit.
    pub memtables_max: u64,
    /// What open tables hold: indexes and filters, unless they are mapped, and which blocks were checked.
    pub tables: u64,
    /// What the block cache may hold.
    pub block_cache_max: u64,
}

impl MemoryStats {
    /// What counts against the limit, in sum.
    pub fn bytes(&self) -> u64 {
        self.memtables.saturating_add(self.tables).saturating_add(self.block_cache_max)
    }
}

impl fmt::Display for MemoryStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes())?;
        if self.bytes_max > 0 {
            write!(f, " of at most {}", self.bytes_max)?;
        }
        let Self { memtables, memtables_kept, tables, block_cache_max, .. } = self;
        write!(f, ": memtables {memtables}")?;
        if self.bytes_max > 0 {
            write!(f, " of {}", self.memtables_max)?;
        }
        write!(f, " ({memtables_kept} kept by readers, or empty), tables {tables}, block cache {block_cache_max}")
    }
}

impl Core {
    /// What is held, and by what.
    pub(crate) fn memory_stats(&self) -> MemoryStats {
        let in_use: u64 = self.keyspace_list().iter().map(|keyspace| MemtableUse::of(keyspace).all).sum();
        let held = self.memory.held();
        let limit = |bytes| if self.memory.is_limited() { bytes } else { 0 };
        MemoryStats {
            bytes_max: limit(self.memory.limit()),
            memtables: held.memtables,
            memtables_kept: held.memtables.saturating_sub(in_use),
            memtables_most: held.memtables_most,
            memtables_max: limit(self.memory.memtables_max()),
            tables: held.tables,
            block_cache_max: self.memory.block_cache(),
        }
    }

    /// Whether the largest memtables should be flushed, whatever their keyspaces say: from half of what memtables may hold, so
    /// that writers can go on for as long as a flush takes.
    pub(crate) fn memory_runs_short(&self) -> bool {
        self.memory.is_limited() && self.memory.memtables() > self.memory.memtables_max() / 2
    }

    /// Runs `attempt`, which reserves with what the grant has and refuses with [`Error::MemoryFull`] if that is too little; again
    /// when there is memory for it, or not at all if there will be none (P13).
    #[inline]
    pub(crate) fn within_memory(
        &self,
        keyspace: &KeyspaceShared,
        bytes: usize,
        mut attempt: impl FnMut(&mut Grant<'_>) -> Result<SeqNo>,
    ) -> Result<SeqNo> {
        if !self.is_memory_calm() {
            return self.write_when_there_is_memory(keyspace, bytes as u64, &mut attempt);
        }
        let mut grant = self.memory.no_grant();
        let written = attempt(&mut grant);
        if grant.spent() > 0 && self.memory_runs_short() {
            self.notify_workers();
        }
        match written {
            Err(Error::MemoryFull { needed_bytes, .. }) => {
                drop(grant);
                self.write_after_waiting(keyspace, needed_bytes, &mut attempt)
            }
            written => written,
        }
    }

    /// Whether a writer need neither be delayed nor stand in a queue. Reads a line that is written once for a chunk.
    #[inline]
    fn is_memory_calm(&self) -> bool {
        !self.memory.is_limited()
            || (self.memory.memtables() < self.memory.memtables_max() / 100 * 85 && !self.memory_room.is_in_use())
    }

    #[cold]
    fn write_when_there_is_memory(
        &self,
        keyspace: &KeyspaceShared,
        bytes: u64,
        attempt: &mut dyn FnMut(&mut Grant<'_>) -> Result<SeqNo>,
    ) -> Result<SeqNo> {
        let mut grant = self.memory.no_grant();
        if self.memory_room.is_in_use() {
            // Who comes while others wait stands behind them: it would take what they wait for. If there is none for them,
            // there may be room in its memtable still.
            match self.wait_for_memory(keyspace, bytes) {
                Err(Error::MemoryFull { .. }) => {}
                granted => grant = granted?,
            }
        } else {
            self.delay_for_memory(bytes);
        }
        let written = attempt(&mut grant);
        if grant.spent() > 0 {
            self.notify_workers();
        }
        match written {
            Err(Error::MemoryFull { needed_bytes, .. }) => {
                drop(grant);
                self.write_after_waiting(keyspace, needed_bytes, attempt)
            }
            written => written,
        }
    }

    #[cold]
    fn write_after_waiting(
        &self,
        keyspace: &KeyspaceShared,
        mut needed: u64,
        attempt: &mut dyn FnMut(&mut Grant<'_>) -> Result<SeqNo>,
    ) -> Result<SeqNo> {
        loop {
            let mut grant = self.wait_for_memory(keyspace, needed)?;
            match attempt(&mut grant) {
                // Its memtable was sealed meanwhile, or filled by others: it needs more than it has waited for.
                Err(Error::MemoryFull { needed_bytes, .. }) => needed = needed_bytes,
                written => return written,
            }
        }
    }

    /// P10: above 85 % of what memtables may hold a writer is delayed in proportion.
    fn delay_for_memory(&self, bytes: u64) {
        let limits = Limits {
            l0_runs: 0,
            sealed_bytes: 0,
            pending_bytes: 0,
            memory_bytes: self.memory.memtables_max(),
            ..Limits::default()
        };
        let load = Load { memory_bytes: self.memory.memtables(), ..Load::default() };
        // At the limit a writer waits if it needs more, and only then: its reservation says so.
        let Pace::Delay(delay, _) = compaction::pace::pace(&limits, &load, bytes) else { return };
        let Some(scheduler) = self.scheduler() else { return };
        if self.must_not_wait() {
            return;
        }
        if scheduler.threads() == 0 {
            // Without threads a delay pays nothing off; a job does. Its failure is not this writer's while there is room.
            let _ = scheduler.run_one_job();
            return;
        }
        self.counters.delays.fetch_add(1, Ordering::Relaxed);
        if let Some(delay) = self.memory_throttle.owe(delay, self.environment.clock.monotonic()) {
            lock_meter::waiting(|| self.environment.clock.sleep(delay));
            self.counters.waited_ns.fetch_add(delay.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// Waits for its turn and then for memory, and takes it.
    fn wait_for_memory(&self, keyspace: &KeyspaceShared, needed: u64) -> Result<Grant<'_>> {
        if self.must_not_wait() {
            // P9: a listener writes. It would wait for the job that waits for it, and so would all who stand in the queue.
            let mut grant = self.memory.no_grant();
            return if grant.grow_to(needed) { Ok(grant) } else { Err(self.memory_full(needed)) };
        }
        let cause = Some(Debt::Memory);
        self.counters.stalls.fetch_add(1, Ordering::Relaxed);
        self.tell(&Event::StallBegun { keyspace: &keyspace.name, cause });
        let began = self.environment.clock.monotonic();
        // Begun before the turn comes: what fails meanwhile, or is refused, concerns everybody in the queue.
        let wait = self.scheduler().map(|scheduler| scheduler.begin_wait());
        let refused = self.jobs.lock().memory_refused();
        let turn = self.memory_room.enter();
        let granted = self.ask_for_memory(needed, wait, refused);
        drop(turn);
        let took = self.environment.clock.monotonic().saturating_sub(began);
        self.counters.waited_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.counters.stalled(cause, took);
        self.tell(&Event::StallEnded { keyspace: &keyspace.name, cause, took });
        granted
    }

    /// Steps 2 to 5, at the head of the queue. `wait` began when `refused` writers had been.
    fn ask_for_memory(&self, needed: u64, mut wait: Option<Wait<'_>>, refused: u64) -> Result<Grant<'_>> {
        let mut asks = 0;
        loop {
            let mut grant = self.memory.no_grant();
            if grant.grow_to(needed) {
                return Ok(grant);
            }
            self.writable()?;
            if needed > self.memory.memtables_max_ever() {
                return Err(self.memory_full(needed));
            }
            if asks == ASKS {
                self.jobs.lock().refuses_memory();
                return Err(self.memory_full(needed));
            }
            if asks > 0 && self.jobs.lock().memory_refused() != refused {
                // Who stood before it has asked as often, and nothing has come of it since.
                return Err(self.memory_full(needed));
            }
            if asks > 0 {
                lock_meter::waiting(|| self.environment.clock.sleep(BETWEEN_ASKS));
            }
            let asked = self.jobs.lock().asks_for_memory(needed);
            // With threads the wait below wakes them; without any it runs the jobs.
            let waited = self.wait_for_answer(needed, asked, wait.take());
            self.jobs.lock().answer_for_memory(asked);
            if let Err(error) = waited
                && !self.memory.has_room(needed)
            {
                return Err(error);
            }
            asks += u32::from(!self.memory.has_room(needed));
        }
    }

    /// Step 4. A compaction that fails ends no such wait: it would have made no room.
    fn wait_for_answer(&self, needed: u64, asked: u64, wait: Option<Wait<'_>>) -> Result<()> {
        let Some(scheduler) = self.scheduler() else { return Ok(()) };
        let done = |jobs: &Jobs| self.memory.has_room(needed) || jobs.has_answered(asked);
        let mut waited = self.wait_with(wait.unwrap_or_else(|| scheduler.begin_wait()), done);
        while let Err(Error::DiskFull { .. } | Error::Io { .. }) = waited {
            // Begun before the look: what fails after it ends this one.
            let wait = scheduler.begin_wait();
            let failed = self.jobs.lock().failure_to_make_memory();
            if let Some(error) = failed {
                return Err(error);
            }
            waited = self.wait_on(wait, done);
        }
        waited
    }

    fn memory_full(&self, needed: u64) -> Error {
        Error::MemoryFull { needed_bytes: needed, held: self.memory_stats() }
    }
}

/// What the memtables of a keyspace hold.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MemtableUse {
    /// Those that hold anything.
    pub(crate) all: u64,
    /// Those among them that somebody has asked to be flushed, whatever their size.
    pub(crate) asked: u64,
}

impl MemtableUse {
    pub(crate) fn of(keyspace: &KeyspaceShared) -> Self {
        let current = keyspace.history.current();
        let mut sum = Self::default();
        let sealed = current.sealed().iter().filter_map(|sealed| match sealed {
            Sealed::Memtable(memtable) => Some(memtable),
            Sealed::Batch(_) => None,
        });
        for memtable in sealed.filter(|memtable| !memtable.is_empty()) {
            // Once: it still grows, by what is inserted late, and what is asked for is a part of all.
            let bytes = memtable.taken_bytes();
            sum.all += bytes;
            if keyspace.flush_asked.covers(memtable.last_reserved_seqno()) {
                sum.asked += bytes;
            }
        }
        if !current.active().is_empty() {
            sum.all += current.active().taken_bytes();
        }
        sum
    }
}

/// What a reservation is refused with: [`Core::within_memory`] makes the error of it that a caller sees.
pub(crate) fn refused(needed: u64) -> Error {
    Error::MemoryFull { needed_bytes: needed, held: MemoryStats::default() }
}
