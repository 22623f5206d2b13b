//! What an edit does to a manifest: pure, so that every rule is tested without a disk.
//!
//! ```text
//!   manifest ──apply(edit)──▶ manifest'      all of the edit's changes, or a refusal and none
//!      └── keyspaces, levels, runs and tables that the edit does not name are shared, not copied
//! ```
//!
//! - **M1** A value that changed in a level has lost that level's generation and checksum: no file holds it yet.
//! - **C3** In a level, runs stand newest epoch first; in a run, tables ascend and are disjoint.
//! - **P6** `flushed_seqno` never falls.
//! - **P12** An edit to a dropped keyspace, or whose inputs left it, is refused.
//! - **R3** A floor of history stays at or below `last_seqno`, which all that opening finds is at least.
//!
//! Numbers that only grow (next ids, last seqno, claim, floor) are raised by every change that shows a larger one, so
//! that a caller who forgets to cannot make the database reuse an id.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, MAX_KEY_BYTES, SegmentId, SeqNo, TableId};

use crate::{
    AddedTable, Change, Claim, DatabaseId, Edit, KeyspaceState, LevelState, LogFloor, Manifest, Refusal, RunEntry,
    TableEntry,
};

impl Manifest {
    /// The manifest of a database that holds nothing. Ids begin at 1, so that 0 is nobody's.
    pub fn empty(database_id: DatabaseId) -> Self {
        Self {
            database_id,
            generation: 0,
            next_table_id: TableId(1),
            next_segment_id: SegmentId(1),
            next_keyspace_id: KeyspaceId(1),
            next_job_id: JobId(1),
            next_epoch: Epoch(1),
            last_seqno: SeqNo::ZERO,
            log_floor: LogFloor::default(),
            claim: Claim::default(),
            closed_cleanly: false,
            keyspaces: BTreeMap::new(),
        }
    }

    /// The manifest after `edit`. `self` stays as it was; what the edit does not name is shared by both.
    ///
    /// [`generation`](Manifest::generation) is the committer's to raise and stays. Levels that changed have generation
    /// and checksum 0: no file holds them yet (M1).
    ///
    /// Costs time in proportion to the keyspaces, the tables of the levels named, and, where an added id is below
    /// `next_table_id`, all tables.
    ///
    /// # Errors
    /// The first change that does not fit; then nothing was applied.
    ///
    /// # Panics
    /// If an added table is impossible in itself (keys or seqnos the wrong way round, a level that does not exist, a
    /// key too long): our own code wrote it.
    pub fn apply(&self, edit: &Edit) -> Result<Self, Refusal> {
        let mut next = self.clone();
        next.closed_cleanly = false;
        for change in &edit.changes {
            next.apply_change(change)?;
        }
        Ok(next)
    }

    fn apply_change(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::CreateKeyspace { id, name, options, created_seqno } => {
                if *id < self.next_keyspace_id {
                    return Err(Refusal::IdReused { id: *id, expected: self.next_keyspace_id });
                }
                if let Some(holder) = self.keyspace_named(name) {
                    return Err(Refusal::NameTaken { name: name.clone(), id: holder.id });
                }
                let state = KeyspaceState {
                    id: *id,
                    name: name.clone(),
                    options: options.clone(),
                    created_seqno: *created_seqno,
                    flushed_seqno: *created_seqno,
                    history_floor: SeqNo::ZERO,
                    levels: empty_levels(),
                };
                self.keyspaces.insert(*id, Arc::new(state));
                self.next_keyspace_id = KeyspaceId(id.get().saturating_add(1));
                self.last_seqno = self.last_seqno.max(*created_seqno);
            }
            Change::DropKeyspace { id } => {
                self.keyspaces.remove(id).ok_or(Refusal::NoSuchKeyspace { id: *id })?;
            }
            Change::ClearKeyspace { id, at } => {
                let state = self.keyspace_mut(*id)?;
                // A clear at or below what is flushed was installed before: tables flushed since would be lost.
                if *at <= state.flushed_seqno {
                    return Err(Refusal::AlreadyFlushed { keyspace: *id, found: *at, present: state.flushed_seqno });
                }
                state.flushed_seqno = *at;
                state.levels = empty_levels();
                self.last_seqno = self.last_seqno.max(*at);
            }
            Change::ReplaceTables { keyspace, removed, added, flushed_seqno } => {
                self.replace_tables(*keyspace, removed, added, *flushed_seqno)?;
            }
            Change::RaiseHistoryFloor { keyspace, to } => {
                // R3: at the largest seqno that a table can hold by now every table shows what it ever will. What the floor
                // has passed beyond it a power cut may take, and then the database goes on below the floor.
                let most = if planted_faults::planted("manifest-history-floor-beyond-all-writes") {
                    *to
                } else {
                    self.last_seqno
                };
                let state = self.keyspace_mut(*keyspace)?;
                state.history_floor = state.history_floor.max(*to.min(&most));
            }
            Change::RaiseClaim(claim) => {
                self.claim = self.claim.max(*claim);
                self.raise_next_segment(claim.segment);
            }
            Change::RaiseLogFloor(floor) => {
                if floor.segment >= self.log_floor.segment {
                    self.log_floor = *floor;
                    self.raise_next_segment(floor.segment);
                }
            }
            Change::EndLog => self.log_floor = LogFloor::default(),
            Change::RaiseLastSeqno(seqno) => self.last_seqno = self.last_seqno.max(*seqno),
            Change::RaiseNextIds { table, segment, job, epoch } => {
                self.next_table_id = self.next_table_id.max(*table);
                self.next_segment_id = self.next_segment_id.max(*segment);
                self.next_job_id = self.next_job_id.max(*job);
                self.next_epoch = self.next_epoch.max(*epoch);
            }
            Change::SetClosedCleanly(closed) => self.closed_cleanly = *closed,
        }
        Ok(())
    }

    fn replace_tables(
        &mut self,
        keyspace: KeyspaceId,
        removed: &[(Level, TableId)],
        added: &[AddedTable],
        flushed_seqno: Option<SeqNo>,
    ) -> Result<(), Refusal> {
        for AddedTable { level, table, .. } in added {
            assert!(level.index() < Level::COUNT, "C3: {level} of {} does not exist", table.id);
            assert!(table.min_key <= table.max_key, "C3: the keys of {} are the wrong way round", table.id);
            assert!(table.max_key.len() <= MAX_KEY_BYTES, "C3: a key of {} is too long", table.id);
            assert!(table.min_key.len() <= MAX_KEY_BYTES, "C3: a key of {} is too long", table.id);
            assert!(table.min_seqno <= table.max_seqno, "C3: the seqnos of {} are the wrong way round", table.id);
        }
        let state = self.keyspaces.get(&keyspace).ok_or(Refusal::NoSuchKeyspace { id: keyspace })?;
        let mut state = KeyspaceState::clone(state);
        if let Some(found) = flushed_seqno {
            if found <= state.flushed_seqno && !planted_faults::planted("manifest-flush-installed-twice") {
                return Err(Refusal::AlreadyFlushed { keyspace, found, present: state.flushed_seqno });
            }
            state.flushed_seqno = found;
            self.last_seqno = self.last_seqno.max(found);
        }
        for &(level, table) in removed {
            let gone = Refusal::InputGone { keyspace, level, table };
            if !remove_table(state.levels.get_mut(level.index()).ok_or_else(|| gone.clone())?, table) {
                return Err(gone);
            }
        }
        for (index, AddedTable { level, run, table }) in added.iter().enumerate() {
            let id = table.id;
            let exists = Refusal::TableExists { keyspace, table: id };
            // An id at or above the mark was never named, and one that this edit removes stood nowhere else; any other
            // (a job that took its id early and finished late) is looked for everywhere.
            let twice = added[..index].iter().any(|earlier| earlier.table.id == id);
            let fresh = id >= self.next_table_id || removed.iter().any(|(_, gone)| *gone == id);
            if twice || (!fresh && self.holds_table(id)) {
                return Err(exists);
            }
            insert_table(&mut state.levels[level.index()], *run, table).map_err(|other| Refusal::Overlap {
                keyspace,
                level: *level,
                run: *run,
                table: id,
                other,
            })?;
        }
        for AddedTable { run, table, .. } in added {
            self.next_table_id = self.next_table_id.max(TableId(table.id.get().saturating_add(1)));
            self.next_job_id = self.next_job_id.max(JobId(table.job.get().saturating_add(1)));
            self.next_epoch = self.next_epoch.max(Epoch(run.max(&table.epoch).get().saturating_add(1)));
            self.last_seqno = self.last_seqno.max(table.max_seqno);
        }
        self.keyspaces.insert(keyspace, Arc::new(state));
        Ok(())
    }

    fn keyspace_mut(&mut self, id: KeyspaceId) -> Result<&mut KeyspaceState, Refusal> {
        self.keyspaces.get_mut(&id).map(Arc::make_mut).ok_or(Refusal::NoSuchKeyspace { id })
    }

    fn raise_next_segment(&mut self, named: SegmentId) {
        self.next_segment_id = self.next_segment_id.max(SegmentId(named.get().saturating_add(1)));
    }

    fn holds_table(&self, id: TableId) -> bool {
        self.keyspaces.values().any(|keyspace| keyspace.tables().any(|(_, _, table)| table.id == id))
    }
}

/// [`Level::COUNT`] levels that share one empty value.
fn empty_levels() -> Vec<Arc<LevelState>> {
    let empty = Arc::new(LevelState::default());
    vec![empty; Level::COUNT]
}

/// The level, about to change: from here on no file holds it (M1).
fn changed(level: &mut Arc<LevelState>) -> &mut LevelState {
    let level = Arc::make_mut(level);
    level.generation = 0;
    level.checksum = 0;
    level
}

/// Whether the table stood in the level; if so it stands there no longer.
fn remove_table(level: &mut Arc<LevelState>, id: TableId) -> bool {
    let place =
        level.runs.iter().enumerate().find_map(|(run, entry)| {
            entry.tables.iter().position(|table| table.id == id).map(|position| (run, position))
        });
    let Some((run, position)) = place else { return false };
    let level = changed(level);
    level.runs[run].tables.remove(position);
    if level.runs[run].tables.is_empty() {
        level.runs.remove(run);
    }
    true
}

/// Puts the table into the run, created if need be, or says which table of the run it overlaps (C3).
fn insert_table(level: &mut Arc<LevelState>, epoch: Epoch, table: &Arc<TableEntry>) -> Result<(), TableId> {
    let place = level.runs.binary_search_by(|run| epoch.cmp(&run.epoch));
    if let Ok(run) = place {
        // The first table that does not end before this one begins, if it begins before this one ends, overlaps it.
        let tables = &level.runs[run].tables;
        let at = tables.partition_point(|other| other.max_key < table.min_key);
        let overlapped = tables.get(at).filter(|other| {
            if planted_faults::planted("manifest-touching-tables-may-share-a-run") {
                return other.min_key < table.max_key;
            }
            other.min_key <= table.max_key
        });
        if let Some(other) = overlapped {
            return Err(other.id);
        }
        changed(level).runs[run].tables.insert(at, Arc::clone(table));
    } else if let Err(run) = place {
        changed(level).runs.insert(run, RunEntry { epoch, tables: vec![Arc::clone(table)] });
    }
    Ok(())
}

/// Draws the manifest as golden scripts write it: what is not at its default, a line a keyspace, a line a run.
///
/// ```text
/// generation 3, next t5 seg2 ks2 job4 e3, last #9, floor seg1, claim seg1+4096
/// ks1 "default" created #0 flushed #9
///   L0 e2: t4[a..c #7..#9]
///   L1 e1: t2[a..c #1..#6] t3[d..f #2..#5]
/// ```
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, next_table_id, next_segment_id, next_keyspace_id, next_job_id, next_epoch, .. } = self;
        write!(f, "generation {generation}, next {next_table_id} {next_segment_id} {next_keyspace_id} ")?;
        write!(f, "{next_job_id} {next_epoch}, last {}", self.last_seqno)?;
        write!(f, ", floor {}, claim {}+{}", self.log_floor.segment, self.claim.segment, self.claim.offset)?;
        writeln!(f, "{}", if self.closed_cleanly { ", closed cleanly" } else { "" })?;
        self.keyspaces.values().try_for_each(|keyspace| fmt::Display::fmt(keyspace, f))
    }
}

/// Draws the keyspace as golden scripts write it; see [`Manifest`]'s.
impl fmt::Display for KeyspaceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, created_seqno, flushed_seqno, history_floor, .. } = self;
        write!(f, "{id} {name:?} created {created_seqno} flushed {flushed_seqno}")?;
        if *history_floor != SeqNo::ZERO {
            write!(f, " history from {history_floor}")?;
        }
        if !self.options.is_empty() {
            let options = self.options.iter().map(|(name, value)| format!("{name}={value}"));
            write!(f, " options {}", options.collect::<Vec<_>>().join(" "))?;
        }
        writeln!(f)?;
        for (level, number) in self.levels.iter().zip(0..) {
            for run in &level.runs {
                write!(f, "  {} {}:", Level(number), run.epoch)?;
                run.tables.iter().try_for_each(|table| write!(f, " {table}"))?;
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// Draws the table as golden scripts write it: `t4[a..c #7..#9]`, keys as `escape_ascii` shows them.
impl fmt::Display for TableEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, min_key, max_key, min_seqno, max_seqno, .. } = self;
        write!(f, "{id}[{}..{} {min_seqno}..{max_seqno}]", min_key.escape_ascii(), max_key.escape_ascii())
    }
}
