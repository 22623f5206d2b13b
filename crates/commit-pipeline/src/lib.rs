//! The write protocol: reserve, log, apply, publish, sync; testable without a database.
//!
//! ```text
//! encode ─▶ reserve ─▶ log ─▶ apply ─▶ publish ─▶ wait until visible ─▶ (sync)
//! caller    one lock   └ parallel ┘    in order   parked, if at all     one for all
//! ```
//!
//! - **P1** One short lock hands out sequence numbers and log ranges, in one order. **P2** The rest is parallel.
//! - **P3** A commit returns when it and everything before it is visible. Whoever completes the prefix publishes it.
//! - **P7** Synced commits share syncs. **P8** Certain errors change nothing, uncertain ones fail the pipeline.
//! - **P9** Waiters park, and everyone who waits learns of a failure.
//!
//! The log is a trait, [`Journal`], which `write_ahead_log::Log` implements; the memtables are a closure:
//!
//! ```
//! # if cfg!(any(loom, shuttle)) { return Ok(()) }
//! use std::cell::RefCell;
//! use std::collections::BTreeMap;
//! use std::convert::Infallible;
//!
//! use commit_pipeline::{Durability, Pipeline, PipelineOptions, Request};
//! use file_system::Environment;
//! use internal_key::{SegmentId, SeqNo};
//! use write_ahead_log::{Log, LogOptions, Payload, RecordKind};
//!
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("log");
//! let (log, tail) = Log::create(&Environment::real(), &dir, 1, LogOptions::default(), SegmentId(1))?;
//! let pipeline = Pipeline::new(log, tail, SeqNo::ZERO, PipelineOptions::default());
//!
//! let memtable = RefCell::new(BTreeMap::new());
//! let payload = Payload::new(RecordKind::Batch, b"key=value");
//! let last = pipeline.commit(
//!     &Request::new(payload, 1, Durability::Synced),
//!     |first, _position| Ok::<_, Infallible>(first),
//!     |first| drop(memtable.borrow_mut().insert("key", (first, "value"))),
//! )?;
//! assert_eq!((last, pipeline.visible().load()), (SeqNo::new(1).unwrap(), last));
//! assert_eq!(pipeline.counts().syncs, 1);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! Reading order: [`pipeline`] (the protocol as its steps), [`journal`] (what it asks of a log, and `log_journal`, how the log answers), [`publish`] (how batches
//! become visible in order), `crowd` (when a writer waits without sleeping), `group_sync` (one waiter syncs for all), `failure` (the first cause), [`turnstile`]
//! (who waits for room before the reservation, one by one).

#![forbid(unsafe_code)]

mod crowd;
pub mod error;
mod failure;
mod group_sync;
pub mod journal;
mod log_journal;
pub mod pipeline;
pub mod publish;
mod sync;
pub mod turnstile;

pub use error::{CloseError, CommitError};
pub use failure::{Cause, WriterDied};
pub use journal::{Journal, ReserveError};
pub use pipeline::{Durability, Pipeline, PipelineCounts, PipelineOptions, Request};
pub use publish::PublishQueue;
pub use turnstile::{Turn, Turnstile};
