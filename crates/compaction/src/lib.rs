//! What is merged with what, how, when, and how fast writers may go meanwhile.
//!
//! ```text
//!   version, busy ─▶ pick ─▶ plan ─▶ run: merge ─▶ collect ─▶ tables ─▶ one edit (the caller's)
//!                     pure             cursors      pure
//!   schedule: threads that run jobs, or none        pace: debt in, delay out
//! ```
//!
//! - **C1** Work is due at 85 % of each limit ([`pick`]).
//! - **C2** What no reader can see goes, and nothing else ([`collect`]).
//! - **C3** Newer data never passes older data that overlaps it ([`plan`]).
//! - **C4** A job that fails leaves nothing behind ([`run`]).
//! - **P9, P10** Nobody waits for a worker that has failed ([`schedule`]); the debt sets the pace ([`pace`]).
//!
//! The parts are of use alone. Picking needs no disk, only a description of tables:
//!
//! ```
//! use std::sync::{Arc, Weak};
//! use compaction::{Busy, CompactionOptions, Demand, PickInput, pick};
//! use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
//! use manifest::{AddedTable, TableEntry};
//! use version_history::{DroppedTables, Table, Version};
//!
//! # #[derive(Debug)]
//! # struct Nobody;
//! # impl DroppedTables for Nobody { fn table_dropped(&self, _: KeyspaceId, _: TableId) {} }
//! // Three flushes, each one run of level 0, each from a to z.
//! let mut added = Vec::new();
//! for number in 1..=3 {
//!     let table = Arc::new(TableEntry {
//!         id: TableId(number), epoch: Epoch(number), bytes: 1 << 20,
//!         min_key: (*b"a").into(), max_key: (*b"z").into(),
//!         // What picking does not look at:
//!         checksum: 0, min_seqno: SeqNo::ZERO, max_seqno: SeqNo::ZERO, entries: 1, tombstones: 0,
//!         logical_bytes: 1 << 20, job: JobId(0), seqno_base: 0, newest_unix_ms: 0,
//!     });
//!     let handle = Arc::new(Table::new(KeyspaceId(1), table.clone(), (), Weak::<Nobody>::new()));
//!     added.push((AddedTable { level: Level::ZERO, run: Epoch(number), table }, handle));
//! }
//! let version = Version::default().replace(&[], &added)?;
//!
//! // Level 0 may have 4 runs, so 3 are due (C1). Level 6 stores tables differently, so nothing is moved as it is.
//! let options = CompactionOptions { formats: [0, 0, 1, 1, 1, 1, 1], ..CompactionOptions::default() };
//! let plan = pick::pick(&PickInput {
//!     version: &version, busy: &Busy::new(), options: &options, oldest_sealed_epoch: None, demand: Demand::Steady,
//!     now_unix_ms: 0, reads: &[],
//! });
//! assert_eq!(plan.unwrap().to_string(), "merge L0 t3 t2 t1 -> L6 e1 [a..z]: 3 runs in L0");
//! # Ok::<(), version_history::VersionRefusal>(())
//! ```
//!
//! So is the rule of what stays:
//!
//! ```
//! use compaction::{Cause, Collector, Verdict};
//! use internal_key::{Kind, SeqNo, Trailer};
//!
//! // Readers stand at 40 or later, and one snapshot at 10; nothing older than the inputs lies elsewhere.
//! let at = |number| SeqNo::new(number).unwrap();
//! let snapshots = [at(10)];
//! let mut collector = Collector::new(at(40), &snapshots, |_user_key: &[u8]| false);
//! let mut visit = |number, kind| collector.visit(b"k", Trailer::new(at(number), kind));
//! assert_eq!(visit(52, Kind::Put), Verdict::Keep, "above the floor everything stays");
//! assert_eq!(visit(31, Kind::Put), Verdict::Keep, "what a reader at 40 sees");
//! assert_eq!(visit(14, Kind::Put), Verdict::Drop(Cause::Hidden));
//! assert_eq!(visit(9, Kind::Delete), Verdict::Drop(Cause::Tombstone), "what the snapshot sees: nothing");
//! ```
//!
//! Reading order: [`options`], [`plan`] (what a decision is), [`pick`] (how it is made), [`collect`] (what is kept),
//! [`run`] (how it is carried out), [`parts`] (on several threads), [`schedule`], [`pace`].

#![forbid(unsafe_code)]

pub mod collect;
pub mod options;
pub mod pace;
pub mod parts;
pub mod pick;
pub mod plan;
pub mod run;
pub mod schedule;

pub use collect::{Cause, Collected, Collector, Verdict};
pub use options::{CompactionOptions, OptionOutOfRange, Strategy};
pub use pace::{Debt, Limits, Load, Pace, RateLimiter, Throttle};
pub use parts::{Landmark, Parts, PartsFailed, TakenPart, cut_keys, parts_for};
pub use pick::{Demand, KeyRange, PickInput, Picker, SEEK_BYTES, TableReads};
pub use plan::{Busy, Conflict, OlderRuns, Plan, PlanKind, Reason};
pub use run::{
    Cancel, Control, KeySpan, Output, Outputs, Progress, RunError, merge_into_tables, merge_part, next_level_bounds,
    remove_tables, sync_tables,
};
pub use schedule::{
    BACK_OFF_FIRST, BACK_OFF_LONGEST, JobFailure, JobPanicked, JobSource, Scheduler, Scope, Wait, WaitError,
};
