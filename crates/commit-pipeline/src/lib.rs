//! The write protocol: reserve, log, apply, publish, sync; testable without a database.
//!
//! Reading order: [`pipeline`] (the protocol as its steps), [`journal`] (what it asks of a log, and `log_journal`, how the log answers), [`publish`] (how batches
//! become visible in order), `group_sync` (one waiter syncs for all), `failure` (the first cause).

#![forbid(unsafe_code)]

pub mod error;
mod failure;
mod group_sync;
pub mod journal;
mod log_journal;
pub mod pipeline;
pub mod publish;
mod sync;

pub use error::{CloseError, CommitError};
pub use failure::{Cause, WriterDied};
pub use journal::{Journal, ReserveError};
pub use pipeline::{Durability, Pipeline, PipelineCounts, PipelineOptions, Request};
pub use publish::PublishQueue;
