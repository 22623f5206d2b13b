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
//!
//! # What is kept for readers of the past, and goes
//!
//! Versions that newer ones hide, and tombstones, stay in a table for a snapshot or for history. When those have gone nothing
//! else need ever look at the table again: in the last level none is full. So:
//!
//! 1. A table says how many of its versions a newer one in it hides, and which seqno is the largest that hides another
//!    ([`Superseded`]). Of a keyspace without history this is remembered when a compaction has written the table, and of
//!    other tables, if they are open anyway, when the database is idle: nothing is opened to ask.
//! 2. A look at the keyspace, when nothing else is to be compacted, takes those tables of which such versions, and tombstones
//!    that have nothing older to hide, are a part worth writing the rest anew for ([`Share`]).
//! 3. It notes that the keyspace waits for registered seqnos below the largest seqno that hides, or deletes, in them
//!    ([`look`](version_history::KeptForSnapshots::look)), and only then takes floor and registered seqnos in one step (R3).
//! 4. A table in whose range of seqnos one is registered, or which the floor has not passed, stays. Another is written anew by a
//!    job like any other. What was counted is dropped by it, all of it: floors only rise, and no seqno is registered below
//!    one. So the new table is not found again, and there are at most as many such jobs as tables.
//! 5. Who drops a snapshot unregisters its seqno first, and then takes the notes above it, whose keyspaces get a look. By the
//!    registry's lock either step 4 finds the seqno gone, or step 5 finds the note of step 3.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compaction::Strategy;
use internal_key::{KeyspaceId, Level, SeqNo, TableId};
use lock_meter::Mutex;
use manifest::{Change, TableEntry};
use sstable_format::Superseded;
use version_history::{Run, Sealed};

use crate::core::{Core, KeyspaceShared, SealedPart, Table};
use crate::database::Handle;
use crate::options::KeyspaceOptions;
use crate::reads::TableState;
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
    /// What each table holds for readers of the past alone; of tables that no job has looked at yet, nothing. Without history
    /// only what is not nothing. A leaf.
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
            if self.expired_table(keyspace, Share::WhenBusy).is_some() {
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

    /// Remembers what the tables that a job has written for a keyspace without history hold for readers of the past alone
    /// (step 1 of the module).
    pub(crate) fn note_what_snapshots_keep<'a>(
        &self,
        keyspace: &KeyspaceShared,
        tables: impl IntoIterator<Item = &'a Arc<Table>>,
    ) {
        if keyspace.options.keeps_history() {
            return;
        }
        let guard = crossbeam_epoch::pin();
        for table in tables {
            let Some(reader) = table.slot.get(&guard) else { continue };
            let found = reader.properties().superseded;
            if found.versions > 0 {
                let through = found.through.checked_add(table.entry.seqno_base).unwrap_or(SeqNo::MAX);
                let mut superseded = keyspace.history_state.superseded.lock();
                superseded.insert(table.id(), Superseded { through, ..found });
            }
        }
    }

    /// A table in which everything that was kept for readers of the past is needed no longer, and how much that is at least
    /// (steps 2 to 4 of the module).
    ///
    /// It is told by what can be known without reading: a registered seqno within the table's range may hold some of it, so
    /// then it is left alone. Otherwise writing it anew leaves none, and it is not found again.
    pub(crate) fn expired_table(&self, keyspace: &KeyspaceShared, share: Share) -> Option<(Level, TableId, u64)> {
        let options = &keyspace.options;
        if options.strategy == Strategy::Fifo {
            return None;
        }
        let current = keyspace.history.current_full();
        let version = current.version();
        if share == Share::WhenIdle && !options.keeps_history() {
            let ids: BTreeSet<TableId> = version.tables().map(|(_, table)| table.id()).collect();
            keyspace.history_state.superseded.lock().retain(|id, _| ids.contains(id));
            self.note_what_snapshots_keep(keyspace, version.tables().map(|(_, table)| table));
        }
        let runs: Vec<(Level, &Run<TableState>)> = version.runs_newest_first().collect();
        let mut found: Vec<Kept> = Vec::new();
        {
            let superseded = keyspace.history_state.superseded.lock();
            for (index, (level, run)) in runs.iter().enumerate() {
                for table in run.tables() {
                    let entry = &table.entry;
                    let hidden = superseded.get(&entry.id).copied().unwrap_or_default();
                    let is_enough = |kept: u64| share.is_enough(options.keeps_history(), kept, entry.entries);
                    // Without a search among what is older, for most tables.
                    if !is_enough(hidden.versions.saturating_add(entry.tombstones)) {
                        continue;
                    }
                    let older = || runs[index + 1..].iter();
                    let is_oldest =
                        || older().all(|(_, run)| run.overlapping(&entry.min_key, &entry.max_key).is_empty());
                    let tombstones = if entry.tombstones > 0 && is_oldest() { entry.tombstones } else { 0 };
                    let kept = Kept { level: *level, entry, hidden, tombstones };
                    if is_enough(kept.most()) {
                        found.push(kept);
                    }
                }
            }
        }
        let through = found.iter().map(Kept::through).max()?;
        let take = || self.floor_and_registered(keyspace);
        let (floor, registered) = self.kept_for_snapshots.look(keyspace.id, through, take);
        found.iter().find_map(|kept| {
            let expired = kept.expired(floor, &registered);
            let is_enough = share.is_enough(options.keeps_history(), expired, kept.entry.entries);
            is_enough.then_some((kept.level, kept.entry.id, expired))
        })
    }

    /// A snapshot at `seqno` is registered no longer (step 5 of the module).
    fn snapshot_has_gone(&self, seqno: SeqNo) {
        if planted_faults::planted("facade-snapshot-goes-unnoticed") {
            return;
        }
        let keyspaces = self.kept_for_snapshots.take_above(seqno);
        if keyspaces.is_empty() {
            return;
        }
        {
            let mut jobs = self.jobs.lock();
            keyspaces.into_iter().for_each(|keyspace| jobs.wants_compaction(keyspace));
        }
        self.notify_workers();
    }
}

/// What a table holds for readers of the past alone.
struct Kept<'a> {
    level: Level,
    entry: &'a TableEntry,
    hidden: Superseded,
    /// Those that have nothing older to hide.
    tombstones: u64,
}

impl Kept<'_> {
    fn most(&self) -> u64 {
        self.hidden.versions.saturating_add(self.tombstones).min(self.entry.entries)
    }

    /// Whoever reads at this seqno or above needs none of it.
    fn through(&self) -> SeqNo {
        if self.tombstones > 0 { self.entry.max_seqno.max(self.hidden.through) } else { self.hidden.through }
    }

    /// How much of it nobody needs who reads at `floor` or above, or at a registered seqno, which ascend.
    fn expired(&self, floor: SeqNo, registered: &[SeqNo]) -> u64 {
        let is_held = |from: SeqNo, to: SeqNo| holds_within(registered, from, to);
        let entry = self.entry;
        let hidden_goes = self.hidden.through <= floor && !is_held(entry.min_seqno, self.hidden.through);
        let tombstones_go = entry.max_seqno <= floor && !is_held(SeqNo::ZERO, entry.max_seqno);
        let hidden = if hidden_goes { self.hidden.versions } else { 0 };
        let tombstones = if tombstones_go { self.tombstones } else { 0 };
        hidden.saturating_add(tombstones).min(entry.entries)
    }
}

/// Whether one of `ascending` is at or above `from` and below `to`. A search: many may be registered, and a look asks for each
/// table.
fn holds_within(ascending: &[SeqNo], from: SeqNo, to: SeqNo) -> bool {
    let first = ascending.partition_point(|seqno| *seqno < from);
    ascending.get(first).is_some_and(|seqno| *seqno < to)
}

/// How much of a table must be of no use to anybody before it is written anew for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Others may be busy. Half, as for tombstones: an entry goes for each that is written. With history, which expires all
    /// the time, a tenth: whoever writes all the time pays at most ten bytes for one.
    WhenBusy,
    /// The database is idle. A tenth, so that ever new snapshots and a write now and then do not write everything anew. With
    /// history anything: what was to be kept so long is to be kept no longer.
    WhenIdle,
}

impl Share {
    fn is_enough(self, keeps_history: bool, expired: u64, entries: u64) -> bool {
        let times = match (self, keeps_history) {
            (Self::WhenBusy, false) => 2,
            (Self::WhenBusy, true) | (Self::WhenIdle, false) => 10,
            (Self::WhenIdle, true) => u64::MAX,
        };
        expired > 0 && expired.saturating_mul(times) >= entries
    }
}

/// Gives what a snapshot kept a look when it is dropped. A field behind the snapshot's registration, which goes first.
#[derive(Clone)]
pub(crate) struct LooksWhenDropped {
    handle: Arc<Handle>,
    seqno: SeqNo,
}

impl LooksWhenDropped {
    pub(crate) fn new(handle: &Arc<Handle>, seqno: SeqNo) -> Self {
        Self { handle: Arc::clone(handle), seqno }
    }
}

impl Drop for LooksWhenDropped {
    fn drop(&mut self) {
        self.handle.core.snapshot_has_gone(self.seqno);
    }
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
    use internal_key::SeqNo;

    use super::holds_within;
    use crate::{Database, KeyspaceOptions};

    /// Every set of four seqnos, and every range over them, the empty and the reversed ones too.
    #[test]
    fn a_registered_seqno_is_found_within_a_range_that_holds_it() {
        let seqno = |number: u64| SeqNo::new(number).unwrap();
        for set in 0..1_u64 << 4 {
            let ascending: Vec<SeqNo> = (0..4).filter(|bit| set >> bit & 1 == 1).map(|bit| seqno(bit + 1)).collect();
            for (from, to) in (0..6).flat_map(|from| (0..7).map(move |to| (seqno(from), seqno(to)))) {
                let is_held = ascending.iter().any(|seqno| (from..to).contains(seqno));
                assert_eq!(holds_within(&ascending, from, to), is_held, "{from}..{to} of {ascending:?}");
            }
        }
    }

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
