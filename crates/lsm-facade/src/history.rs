//! How far back a keyspace can be read, and what becomes of history that is kept no longer.
//!
//! ```text
//!   retention (options) ─▶ floor and registered seqnos in one step (R3) ─▶ a job collects ─▶ one edit: its tables, the floor
//!                                     │                                                            │
//!              a seqno of the past below it is refused from here on          opening: nothing below it is readable
//! ```
//!
//! The protocol, in the order of its steps, stands in `docs/concurrency.md` ("History").
//!
//! - **C2** Every version above the floor stays. What fell below it goes with the next job that meets it, and a table in
//!   which all of it has is written anew when nothing else does that.
//! - **R3** A job takes floor and registered seqnos in one step, when it begins. The edit that installs what it collected
//!   raises the durable floor at least as far, so that an opening never promises what may be gone.
//!
//! Which seqno was visible when, and after how many bytes, is remembered by marks: few, so that the oldest of them is at most
//! a sixteenth of what was asked for too old.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use internal_key::{KeyspaceId, Level, SeqNo, TableId};
use lock_meter::Mutex;
use manifest::Change;
use sstable_format::Superseded;
use version_history::Sealed;

use crate::core::{Core, KeyspaceShared, SealedPart, SuperVersion, Table};
use crate::options::KeyspaceOptions;
use crate::{Error, Result};

/// Into how many parts a bound is divided by marks.
const MARKS_A_BOUND: u32 = 16;

/// How soon the next look at the age of history may come, so that nobody polls.
const LOOK_AFTER_MIN: Duration = Duration::from_millis(10);

/// What was visible at some time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// By the engine's clock, which never goes back.
    at: Duration,
    seqno: SeqNo,
    /// How much had been written to the keyspace.
    bytes: u64,
}

/// What one keyspace remembers of its history.
#[derive(Default)]
pub(crate) struct HistoryState {
    /// Ascending; the first is the newest that has fallen out of the retention, or none has. A leaf among the locks.
    marks: Mutex<VecDeque<Mark>>,
    /// Bytes of flushed memtables and batches since opening. Held while they leave the super version, so that whoever holds
    /// it counts none twice, and none not at all: a floor that was raised too far never comes back.
    flushed_bytes: Mutex<u64>,
    /// What each table holds for readers of the past alone; of tables that no job has looked at yet, nothing. A leaf.
    superseded: Mutex<BTreeMap<TableId, Superseded>>,
}

/// Bytes of keys and values in a sealed part.
fn part_bytes(part: &SealedPart) -> u64 {
    match part {
        Sealed::Memtable(memtable) => memtable.data_bytes(),
        Sealed::Batch(table) => table.entry.logical_bytes,
    }
}

impl HistoryState {
    /// Forgets what was, and begins with what is visible `now`.
    fn begin(&self, now: Duration, seqno: SeqNo, bytes: u64) {
        let mut marks = self.marks.lock();
        marks.clear();
        marks.push_back(Mark { at: now, seqno, bytes });
    }

    /// The newest seqno at which nothing is to be read any more, by age and bytes: what is visible is marked, and marks that
    /// are no longer needed go.
    fn retention(&self, options: &KeyspaceOptions, now: Duration, visible: SeqNo, bytes: u64) -> SeqNo {
        let (age, most) = (options.history_age, options.history_bytes);
        let aged = |mark: &Mark, age: Duration| !age.is_zero() && now.saturating_sub(mark.at) >= age;
        let written = |mark: &Mark, most: u64| most > 0 && bytes.saturating_sub(mark.bytes) >= most;
        let mut marks = self.marks.lock();
        let is_due = |before: &Mark| {
            let apart = (age / MARKS_A_BOUND).max(Duration::from_nanos(1));
            (!age.is_zero() && aged(before, apart)) || written(before, most.div_ceil(u64::from(MARKS_A_BOUND)))
        };
        if marks.back().is_none_or(|last| last.seqno < visible) {
            // The last moves along until it is a step away from the one before it: no look is forgotten at once.
            if marks.len() > 1 && !is_due(&marks[marks.len() - 2]) {
                marks.pop_back();
            }
            marks.push_back(Mark { at: now, seqno: visible, bytes });
        }
        let has_expired = |mark: &Mark| aged(mark, age) || written(mark, most);
        while marks.get(1).is_some_and(has_expired) {
            marks.pop_front();
        }
        marks.front().filter(|mark| has_expired(mark)).map_or(SeqNo::ZERO, |mark| mark.seqno)
    }
}

impl KeyspaceShared {
    /// Runs what takes flushed parts out of the super version, if that succeeds, and counts them as flushed then.
    pub(crate) fn counting_flushed<T, E>(
        &self,
        parts: &[SealedPart],
        install: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        if self.options.history_bytes == 0 {
            return install();
        }
        let mut flushed = self.history_state.flushed_bytes.lock();
        let installed = install();
        if installed.is_ok() {
            *flushed += parts.iter().map(part_bytes).sum::<u64>();
        }
        installed
    }

    /// Bytes of keys and values written since opening, of which some may not be visible yet.
    fn written_bytes(&self) -> u64 {
        let flushed = self.history_state.flushed_bytes.lock();
        let current = self.history.current();
        let sealed: u64 = current.sealed().iter().map(part_bytes).sum();
        sealed + current.active().data_bytes() + *flushed
    }
}

impl Core {
    /// R3: raises the keyspace's floor as far as its retention allows, and returns it with every registered seqno. A job
    /// calls this once, when it begins.
    pub(crate) fn floor_and_registered(&self, keyspace: &KeyspaceShared) -> (SeqNo, Vec<SeqNo>) {
        let retention = self.retention(keyspace);
        self.snapshots.floor_and_registered_of(keyspace.id, self.visible(), retention)
    }

    /// The seqno from which on the options want the keyspace to be readable.
    fn retention(&self, keyspace: &KeyspaceShared) -> SeqNo {
        let options = &keyspace.options;
        if !options.keeps_history() {
            return SeqNo::MAX;
        }
        // Before the clock and the bytes: history then looks younger and smaller than it is, never the other way.
        let visible = self.visible().load();
        let mut retention = SeqNo::ZERO;
        if options.history_writes > 0 {
            retention = SeqNo::new(visible.get().saturating_sub(options.history_writes)).unwrap_or(SeqNo::ZERO);
        }
        if options.history_bytes > 0 || !options.history_age.is_zero() {
            let (now, bytes) = (self.environment.clock.monotonic(), keyspace.written_bytes());
            retention = retention.max(keyspace.history_state.retention(options, now, visible, bytes));
        }
        retention
    }

    /// The keyspace was opened or created, and its history begins at `floor`.
    pub(crate) fn begin_history(&self, keyspace: &KeyspaceShared, floor: SeqNo) {
        if keyspace.options.keeps_history() {
            self.snapshots.keep_history(keyspace.id, floor);
            let seqno = self.visible().load();
            keyspace.history_state.begin(self.environment.clock.monotonic(), seqno, keyspace.written_bytes());
            // Relaxed: who misses it looks a little later.
            self.keeps_history.store(true, Ordering::Relaxed);
        }
    }

    /// A clear or drop at `at` is visible: nothing below it is readable any more but through snapshots that were taken
    /// before.
    pub(crate) fn end_history(&self, keyspace: &KeyspaceShared, at: SeqNo) {
        if !keyspace.options.keeps_history() {
            return;
        }
        if keyspace.is_dropped() {
            self.snapshots.forget_history(keyspace.id);
        } else {
            self.snapshots.floor_and_registered_of(keyspace.id, self.visible(), at);
            keyspace.history_state.begin(self.environment.clock.monotonic(), at, keyspace.written_bytes());
        }
    }

    /// What an edit says of the keyspace's history: that nothing below the floor, as it was last taken by a job or for a
    /// reader, is promised any more (R3).
    pub(crate) fn history_floor(&self, keyspace: &KeyspaceShared) -> Option<Change> {
        if planted_faults::planted("facade-history-floor-not-durable") {
            return None;
        }
        let to = self.snapshots.floor_of(keyspace.id)?;
        Some(Change::RaiseHistoryFloor { keyspace: keyspace.id, to })
    }

    /// Raises the floor of every keyspace that keeps history as far as its retention allows.
    pub(crate) fn raise_history_floors(&self) {
        // Relaxed: whoever made such a keyspace known to the caller did so after it was set.
        if self.keeps_history.load(Ordering::Relaxed) {
            for keyspace in self.keyspace_list().iter().filter(|keyspace| keyspace.options.keeps_history()) {
                self.floor_and_registered(keyspace);
            }
        }
    }

    /// The smallest seqno at which the keyspace can be read; `None` if it keeps no history.
    pub(crate) fn oldest_readable(&self, keyspace: &KeyspaceShared) -> Option<SeqNo> {
        self.floor_and_registered(keyspace);
        self.snapshots.floor_of(keyspace.id)
    }

    /// What a read of a keyspace at a registered seqno is answered with that is not kept for it.
    #[cold]
    pub(crate) fn history_gone(&self, keyspace: &KeyspaceShared, seqno: SeqNo) -> Error {
        let oldest = self.oldest_readable(keyspace).unwrap_or_else(|| self.visible().load()).get();
        Error::HistoryGone { keyspace: Some(keyspace.name.clone()), seqno: seqno.get(), oldest }
    }

    /// Looks for keyspaces in which a considerable part of a table is history that is kept no longer, so that they are
    /// compacted though no limit demands it; and when to look again though nobody writes.
    pub(crate) fn look_for_expired_history(&self) {
        // Relaxed: see `begin_history`.
        if !self.keeps_history.load(Ordering::Relaxed) {
            return;
        }
        for keyspace in self.keyspace_list().iter().filter(|keyspace| keyspace.options.keeps_history()) {
            if let Some(look_after) = self.note_superseded(keyspace) {
                let due = self.environment.clock.monotonic() + look_after.max(LOOK_AFTER_MIN);
                // Relaxed: a look too early or too late is made up for by the next.
                self.history_due.fetch_min(due.as_nanos() as u64, Ordering::Relaxed);
            }
            if self.expired_table(keyspace, Share::Tenth).is_some() {
                self.jobs.lock().wants_compaction(keyspace.id);
            }
        }
    }

    /// After how long age alone may make history expire; `None` if nothing waits for that.
    pub(crate) fn history_due_after(&self) -> Option<Duration> {
        // Relaxed: see `look_for_expired_history`.
        let due = Some(self.history_due.load(Ordering::Relaxed)).filter(|due| *due < u64::MAX)?;
        let now = self.environment.clock.monotonic();
        Some(Duration::from_nanos(due).saturating_sub(now).max(LOOK_AFTER_MIN))
    }

    /// Learns what new tables hold for readers of the past alone. Returns when to look again, if some of that has yet to
    /// come of age.
    fn note_superseded(&self, keyspace: &KeyspaceShared) -> Option<Duration> {
        let current = keyspace.history.current_full();
        let tables: Vec<&std::sync::Arc<Table>> = current.version().tables().map(|(_, table)| table).collect();
        let ids: BTreeSet<TableId> = tables.iter().map(|table| table.id()).collect();
        let known = {
            let mut superseded = keyspace.history_state.superseded.lock();
            superseded.retain(|id, _| ids.contains(id));
            superseded.clone()
        };
        for table in tables.iter().filter(|table| !known.contains_key(&table.id())) {
            // One that cannot be read is its readers' to report, and is not asked again.
            let found = self.reader(table).map(|reader| reader.properties().superseded).unwrap_or_default();
            let through = found.through.checked_add(table.entry.seqno_base).unwrap_or(SeqNo::MAX);
            let found = Superseded { through, ..found };
            keyspace.history_state.superseded.lock().insert(table.id(), found);
        }
        let age = Some(keyspace.options.history_age).filter(|age| !age.is_zero())?;
        let floor = self.snapshots.floor_of(keyspace.id)?;
        let superseded = keyspace.history_state.superseded.lock();
        let waits = |table: &&&std::sync::Arc<Table>| {
            let hidden = superseded.get(&table.id()).is_some_and(|it| it.versions > 0 && it.through > floor);
            hidden || (table.entry.tombstones > 0 && table.entry.max_seqno > floor)
        };
        tables.iter().any(|table| waits(&table)).then_some(age / MARKS_A_BOUND)
    }

    /// A table in which everything that was kept for readers of the past has expired, and how much that is at least.
    ///
    /// It is told by what can be known without reading: a registered seqno within the table's range may hold some of it, so
    /// then it is left alone. Otherwise writing it anew leaves none, and it is not found again.
    pub(crate) fn expired_table(&self, keyspace: &KeyspaceShared, share: Share) -> Option<(Level, TableId, u64)> {
        if !keyspace.options.keeps_history() {
            return None;
        }
        let (floor, registered) = self.floor_and_registered(keyspace);
        let current = keyspace.history.current_full();
        let superseded = keyspace.history_state.superseded.lock();
        let is_held = |from: SeqNo, to: SeqNo| registered.iter().any(|seqno| (from..to).contains(seqno));
        let expired = |table: &Table| {
            let (entry, hidden) = (&table.entry, superseded.get(&table.id()).copied().unwrap_or_default());
            let hidden_goes = hidden.through <= floor && !is_held(entry.min_seqno, hidden.through);
            let tombstones_go = entry.tombstones > 0
                && entry.max_seqno <= floor
                && !is_held(SeqNo::ZERO, entry.max_seqno)
                && is_oldest(&current, table);
            let hidden = if hidden_goes { hidden.versions } else { 0 };
            let tombstones = if tombstones_go { entry.tombstones } else { 0 };
            (hidden + tombstones).min(entry.entries)
        };
        let mut tables = current.version().tables();
        tables.find_map(|(level, table)| {
            let expired = expired(table);
            let is_enough = match share {
                Share::Tenth => expired.saturating_mul(10) >= table.entry.entries,
                Share::Any => true,
            };
            (expired > 0 && is_enough).then_some((level, table.id(), expired))
        })
    }
}

/// How much of a table must have expired before it is written anew for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// A tenth of its entries: whoever writes all the time pays at most ten bytes for one.
    Tenth,
    /// Anything: the database is idle.
    Any,
}

/// Whether no older run has a table that overlaps this one, so that its tombstones have nothing to hide.
fn is_oldest(current: &SuperVersion, table: &Table) -> bool {
    let older = current
        .version()
        .runs_newest_first()
        .skip_while(|(_, run)| !run.tables().iter().any(|it| it.id() == table.id()));
    older.skip(1).all(|(_, run)| run.overlapping(&table.entry.min_key, &table.entry.max_key).is_empty())
}

/// The changes of a clear: with its rows their history goes.
pub(crate) fn clear_changes(id: KeyspaceId, options: &KeyspaceOptions, at: SeqNo) -> Vec<Change> {
    let mut changes = vec![Change::ClearKeyspace { id, at }];
    if options.keeps_history() && !planted_faults::planted("facade-history-outlives-a-clear") {
        changes.push(Change::RaiseHistoryFloor { keyspace: id, to: at });
    }
    changes
}

/// A seqno as users have it.
pub(crate) fn seqno_of(seqno: u64, visible: SeqNo) -> Result<SeqNo> {
    SeqNo::new(seqno).ok_or(Error::NotYetVisible { seqno, visible: visible.get() })
}

#[cfg(test)]
mod tests {
    use file_system::Simulation;

    use crate::{Database, KeyspaceOptions};

    /// What is flushed counts once: as flushed, and no longer as sealed; and not at all if it was not installed.
    #[test]
    fn what_was_written_stays_the_same_through_a_flush() {
        let builder = Database::builder("/db").environment(Simulation::new(1).environment()).background_threads(0);
        let database = builder.open().unwrap();
        let keyspace = database.create_keyspace("a", KeyspaceOptions::default().history_bytes(1 << 20)).unwrap();
        keyspace.insert("key", "value".repeat(100)).unwrap();
        let shared = &keyspace.shared;
        let written = shared.written_bytes();
        assert!(written >= 503, "{written}");
        keyspace.flush().unwrap();
        assert_eq!(shared.written_bytes(), written);
        keyspace.insert("key", "new").unwrap();
        let sealed = [version_history::Sealed::Memtable(std::sync::Arc::clone(shared.history.current().active()))];
        let before = shared.written_bytes();
        assert!(shared.counting_flushed(&sealed, || Err::<(), ()>(())).is_err());
        assert_eq!(shared.written_bytes(), before);
    }
}
