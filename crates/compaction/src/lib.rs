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
//! Reading order: [`options`], [`plan`] (what a decision is), [`pick`] (how it is made), [`collect`] (what is kept),
//! [`run`] (how it is carried out), [`schedule`], [`pace`].

#![forbid(unsafe_code)]

pub mod collect;
pub mod options;
pub mod pace;
pub mod pick;
pub mod plan;
pub mod run;
pub mod schedule;

pub use collect::{Cause, Collected, Collector, Verdict};
pub use options::{CompactionOptions, OptionOutOfRange, Strategy};
pub use pace::{Debt, Limits, Load, Pace, RateLimiter, Throttle};
pub use pick::{Demand, KeyRange, PickInput, Picker};
pub use plan::{Busy, Conflict, OlderRuns, Plan, PlanKind, Reason};
pub use run::{Control, Output, Outputs, Progress, RunError, merge_into_tables, next_level_bounds, remove_tables};
pub use schedule::{JobFailure, JobPanicked, JobSource, Scheduler, WaitError};
