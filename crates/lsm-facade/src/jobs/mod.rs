//! Background work: which job is next, and how each is carried out and installed.
//!
//! ```text
//!   flush:    complete sealed parts ─▶ sync the log (P5) ─▶ tables ─▶ edit (M1, P6) ─▶ super version ─▶ log floor (L5)
//!   compact:  pick ─▶ floor and snapshots in one step (R3) ─▶ merge ─▶ edit (M1, C4) ─▶ super version
//!   tidy up:  retired memory, files that nobody holds and nothing names (R4, R5), replaced manifest files, old segments
//! ```
//!
//! - **C4** A job is installed by one edit; one that fails leaves everything as it was.
//! - **P6** One flush of a keyspace runs at a time, oldest parts first, so that flushes install in seal order.
//! - **P8** A certain failure is kept in view and tried again; an uncertain one fails the database.
//! - **P9** Whatever becomes of a job, its claim is given back and who waits is told: by guards, so also if it panics. A
//!   panic fails the database before the claim goes, so that nobody builds on what it left half done. A certain failure
//!   concerns its keyspace alone: that task is held back until somebody asks again, and the others get their turn.
//!
//! A run's epoch is its largest sequence number: it grows with every seal and is known without asking anybody (C3).
//!
//! Reading order: `queue` (what there is to do), `claim` (what a job has for itself), `due` (how long it was queued), `run`
//! (which job is next), then each kind: `settle`, `log`, `operation`, `flush`, `compact`, `merge`, `range`; what they share:
//! `tables`, `edit`; and `wait`, `pace`, `memory`, `tidy_up`.

mod claim;
mod compact;
mod due;
mod edit;
mod flush;
mod log;
mod memory;
mod merge;
mod operation;
mod pace;
mod queue;
mod range;
mod rest;
mod run;
mod settle;
mod tables;
mod tidy_up;
mod wait;

use crate::Error;

pub(crate) use self::log::LogJobsOf;
pub(crate) use self::pace::load_of;
pub(crate) use self::queue::{FlushAsked, Jobs, scope_of};
pub(crate) use self::range::{check_wanted, is_cancelled};
pub(crate) use self::run::JobsOf;
pub(crate) use self::settle::Unsettled;
pub(crate) use self::tables::{table_entry, table_options};

/// A task that failed, and why.
type TaskError = (queue::Task, Error);

/// How a job ended, for the scheduler.
enum Outcome {
    /// Something was done.
    Done,
    /// It was abandoned because a clear or drop came in between.
    Abandoned,
}
