//! Merging the tables of a plan: in one part or, if there is enough to merge, in several that share the workers.
//!
//! ```text
//!   floor and snapshots in one step (R3) ─▶ cuts ─▶ parts ─▶ who leads: part, part, … ─▶ wait ─▶ one sync (M1)
//!                                                     └─▶ workers that find no flush due: a part each
//! ```
//!
//! - **R3** All parts see the floor and the snapshots of one moment: a key is collected by the same rule wherever it is cut.
//! - **C3** A cut falls between user keys, and a part holds every input's entries of its keys.
//! - **C4** If a part fails or is cancelled the others give up, and the tables of those that were done go too.
//! - **P9** Nobody waits for help: who leads takes every part that nobody else has taken.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use compaction::{
    Cancel, Collected, Collector, JobPanicked, KeySpan, Landmark, Outputs, Parts, PartsFailed, Plan, Progress, Reason,
};
use internal_key::{JobId, SeqNo, TableId};
use merge_iterator::MergeCursor;
use version_history::Version;

use super::tables::Destination;
use crate::control::CompactionControl;
use crate::core::{Core, KeyspaceShared, Table};
use crate::events::Work;
use crate::reads::TableState;
use crate::source::{RunCursor, Source};
use crate::{Error, Result};

/// How many landmarks there are for each part, or more: so much finer than a part is the place of a cut.
const LANDMARKS_PER_PART: u64 = 16;

/// One merge, as all who work on it see it.
pub(super) struct Merge {
    keyspace: Arc<KeyspaceShared>,
    /// Holds the inputs, and what is older than they are; and no memtables, which would then be kept for as long.
    version: Arc<Version<TableState>>,
    plan: Plan,
    job: JobId,
    inputs: Vec<TableId>,
    /// Entries in the inputs.
    input_entries: u64,
    /// The same, to be asked for: a version may have a hundred thousand tables, and each part looks at all of them.
    is_input: HashSet<TableId>,
    floor: SeqNo,
    snapshots: Vec<SeqNo>,
    /// Where tables of the level below end.
    bounds: Vec<Box<[u8]>>,
    /// The last keys of all parts but the last.
    cuts: Vec<Box<[u8]>>,
    progress: Arc<Progress>,
    /// Who asked for it, if they want to follow it.
    asked: Option<CompactionControl>,
    parts: Parts<Outputs, Error>,
    /// Parts that others than the leader took. Relaxed: a figure, read when none runs any more.
    helped: AtomicU64,
    /// What became of the entries of the parts that have ended, however they did. A leaf among the locks.
    collected: Mutex<Collected>,
}

impl Merge {
    /// How far it has come, once no part runs any more.
    fn work(&self) -> Work {
        let entries = *self.collected.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, seen) = (self.plan.input_bytes, entries.seen().min(self.input_entries));
        Work {
            read_bytes: (u128::from(bytes) * u128::from(seen) / u128::from(self.input_entries.max(1))) as u64,
            written_bytes: self.progress.bytes_written(),
            tables: self.progress.tables_written(),
            parts: self.cuts.len() as u64 + 1,
            helped: self.helped.load(Ordering::Relaxed),
            entries,
            ..Work::default()
        }
    }
}

/// A merge whose parts others may take, until this is dropped.
struct SharedMerge<'a> {
    core: &'a Core,
    merge: &'a Arc<Merge>,
}

impl Drop for SharedMerge<'_> {
    fn drop(&mut self) {
        self.core.jobs.lock().shared.retain(|shared| !Arc::ptr_eq(shared, self.merge));
    }
}

/// A worker that helps, until this is dropped. Not under the jobs' lock.
struct HelpClaim<'a> {
    core: &'a Core,
    /// `None` while this is dropped: who waits until nobody helps finds what it held free.
    merge: Option<Arc<Merge>>,
}

impl Drop for HelpClaim<'_> {
    fn drop(&mut self) {
        self.merge = None;
        self.core.jobs.lock().helping -= 1;
    }
}

impl Core {
    /// Writes what stays of the tables of a plan. They are durable under their names when this returns, and nothing names
    /// them; if it fails nothing of them is left (C4). `work` says how far it came, also then.
    pub(super) fn merge_tables(
        &self,
        keyspace: &Arc<KeyspaceShared>,
        version: &Arc<Version<TableState>>,
        (job, plan): (JobId, &Plan),
        inputs: &[Arc<Table>],
        work: &mut Work,
        (cancel, asked): (Cancel<'_>, Option<&CompactionControl>),
    ) -> Result<Outputs> {
        let bounds = compaction::next_level_bounds(plan, version);
        let cuts = self.cuts_of(keyspace, plan, inputs, &bounds)?;
        let count = cuts.len() + 1;
        let progress = Arc::new(Progress::default());
        let input_entries = inputs.iter().map(|table| table.entry.entries).sum();
        if let Some(asked) = asked {
            asked.begin_step(plan.input_bytes, input_entries, &progress);
        }
        let (floor, snapshots) = self.floor_and_registered(keyspace);
        let merge = Arc::new(Merge {
            keyspace: Arc::clone(keyspace),
            version: Arc::clone(version),
            plan: plan.clone(),
            job,
            inputs: plan.inputs.iter().map(|(_, id)| *id).collect(),
            input_entries,
            is_input: plan.inputs.iter().map(|(_, id)| *id).collect(),
            floor,
            snapshots,
            bounds,
            cuts,
            progress,
            asked: asked.cloned(),
            parts: Parts::new(count),
            helped: AtomicU64::new(0),
            collected: Mutex::default(),
        });
        let shared = (count > 1).then(|| self.share(&merge));
        while let Some(part) = merge.parts.take() {
            let index = part.index();
            part.end(self.guarded(|| self.write_part(&merge, index, cancel)));
        }
        drop(shared);
        let ended = merge.parts.wait();
        *work = merge.work();
        let outputs = match ended {
            Ok(parts) => {
                let mut outputs = Outputs::default();
                parts.into_iter().for_each(|part| outputs.append(part));
                outputs
            }
            Err(PartsFailed { cause, made }) => {
                if !planted_faults::planted("facade-outputs-of-other-parts-stay") {
                    let tables = made.iter().flat_map(|outputs| &outputs.tables);
                    tables.for_each(|table| {
                        self.remove_unnamed_table(table.id);
                    });
                }
                return Err(cause.unwrap_or_else(|| {
                    let message = "a part of the job was abandoned".to_owned();
                    self.fail(Error::Failed { cause: Arc::new(JobPanicked { message }) })
                }));
            }
        };
        work.read_bytes = plan.input_bytes;
        compaction::sync_tables(self.files(), &self.paths.tables_dir(), &outputs.tables)?;
        Ok(outputs)
    }

    /// Where a merge is cut, so that its parts have similar bytes. Reads no block: fences, and indexes of large tables.
    fn cuts_of(
        &self,
        keyspace: &KeyspaceShared,
        plan: &Plan,
        inputs: &[Arc<Table>],
        bounds: &[Box<[u8]>],
    ) -> Result<Vec<Box<[u8]>>> {
        let parts = compaction::parts_for(plan.input_bytes, keyspace.options.table_bytes, self.parts_max(plan));
        if parts == 1 {
            return Ok(Vec::new());
        }
        let piece_bytes = (plan.input_bytes / (parts as u64 * LANDMARKS_PER_PART)).max(1);
        let mut landmarks = Vec::new();
        for table in inputs {
            let entry = &table.entry;
            let mut before = 0;
            let pieces = entry.bytes / piece_bytes;
            if pieces > 0 {
                let reader = self.reader(table)?;
                for (key, blocks) in reader.landmarks(pieces as usize)? {
                    let at = (u128::from(entry.bytes) * u128::from(blocks) / u128::from(reader.data_blocks())) as u64;
                    landmarks.push(Landmark { key, bytes: at - before });
                    before = at;
                }
            }
            landmarks.push(Landmark { key: entry.max_key.clone(), bytes: entry.bytes - before });
        }
        Ok(compaction::cut_keys(landmarks, parts, bounds))
    }

    /// In how many parts a merge may be carried out: by default as many as there may be threads to work on it, so that no
    /// table is cut for nothing.
    fn parts_max(&self, plan: &Plan) -> usize {
        let leads_itself = usize::from(plan.reason == Reason::Range);
        self.options.subcompactions_max.unwrap_or_else(|| self.compactions_max() + leads_itself)
    }

    /// Lets workers take parts of a merge.
    fn share<'a>(&'a self, merge: &'a Arc<Merge>) -> SharedMerge<'a> {
        self.jobs.lock().shared.push(Arc::clone(merge));
        if let Some(scheduler) = self.scheduler() {
            scheduler.notify_workers();
        }
        SharedMerge { core: self, merge }
    }

    /// Takes a part of a merge that somebody else leads, and returns whether there was one. What becomes of it is the
    /// leader's to tell.
    pub(super) fn help_next(&self, cancel: &AtomicBool) -> bool {
        let claim = {
            let mut jobs = self.jobs.lock();
            // One worker stays free for flushes, as with compactions.
            if jobs.workers_compacting() >= self.compactions_max() {
                return false;
            }
            let Some(merge) = jobs.shared.iter().find(|merge| merge.parts.has_more()).cloned() else { return false };
            jobs.helping += 1;
            HelpClaim { core: self, merge: Some(merge) }
        };
        let Some(merge) = &claim.merge else { return false };
        // Another may have been faster.
        let Some(part) = merge.parts.take() else { return false };
        merge.helped.fetch_add(1, Ordering::Relaxed);
        let index = part.index();
        let cancel = Cancel::when(cancel);
        part.end(self.guarded(|| self.write_part(merge, index, cancel.or_when(&self.closed))));
        true
    }

    /// Writes one part of a merge.
    fn write_part(&self, merge: &Merge, index: usize, cancel: Cancel<'_>) -> Result<Outputs> {
        let Merge { keyspace, version, plan, .. } = merge;
        let span = KeySpan::of_part(&merge.cuts, index);
        let mut sources = Vec::new();
        for (_, run) in version.runs_newest_first() {
            let is_input = |table: &&Arc<Table>| {
                merge.is_input.contains(&table.id()) && span.overlaps(&table.entry.min_key, &table.entry.max_key)
            };
            let chosen: Vec<Arc<Table>> = run.tables().iter().filter(is_input).cloned().collect();
            if !chosen.is_empty() {
                sources.push(Source::Run(RunCursor::for_compaction(&self.parts, &chosen)));
            }
        }
        let merged = MergeCursor::new(sources);
        let mut older = plan.older_runs(version);
        let mut collector = Collector::new(merge.floor, &merge.snapshots, |key: &[u8]| older.may_hold(key));
        let newest_unix_ms = if planted_faults::planted("facade-merge-makes-rows-young") {
            self.newest_unix_ms(&keyspace.options)
        } else {
            let inputs = version.tables().map(|(_, table)| table);
            newest_of(inputs.filter(|table| merge.is_input.contains(&table.id())))
        };
        let to = Destination {
            level: plan.output_level,
            epoch: plan.table_epoch,
            job: merge.job,
            inputs: &merge.inputs,
            newest_unix_ms,
            bounds: &merge.bounds,
            span,
        };
        let stopped = cancel.or_when(merge.parts.stopped());
        let asked = merge.asked.as_ref();
        let cancel = asked.map_or(stopped, |asked| stopped.or_when(asked.flag()));
        let written = self.write_tables(keyspace, merged, &mut collector, to, (cancel, &merge.progress));
        *merge.collected.lock().unwrap_or_else(PoisonError::into_inner) += collector.collected();
        written.map_err(|error| match error {
            Error::Closed if asked.is_some_and(CompactionControl::is_cancelled) => Error::Cancelled,
            error => error,
        })
    }
}

/// By when the newest row of `tables` had been written; 0 if that is not known of one of them.
fn newest_of<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> u64 {
    let mut newest = 0;
    for table in tables {
        match table.entry.newest_unix_ms {
            0 => return 0,
            time => newest = newest.max(time),
        }
    }
    newest
}
