//! The shipped pickers and the shipped pacing over synthetic writes: no disk, no data, no wall clock.
//!
//! ```text
//!   writes ─▶ memtables ─▶ flush ─▶ version ─▶ pick (shipped) ─▶ plan ─▶ merge of keys ─▶ version
//!     ▲                                │
//!     └── pace (shipped) ◀── debt ─────┘            clock: bytes of jobs at the rates of threads and device
//! ```
//!
//! A table is its keys, four bytes an entry, instead of its data. So how many entries of merged tables coincide is
//! counted and not estimated, whatever the distribution; that flushes of uniform writes hold what the closed formula says
//! ([`expected_distinct`]) is a test. Everything else is arithmetic: an entry has a fixed number of bytes, a job takes the
//! time that its bytes take.
//!
//! ```
//! use compaction::Strategy;
//! use compaction_simulator::{Setup, Workload, simulate};
//!
//! let leveled = simulate(&Setup::small(Workload::Uniform, Strategy::Leveled));
//! let tiered = simulate(&Setup::small(Workload::Uniform, Strategy::Tiered));
//! assert!(tiered.write_amplification() < leveled.write_amplification(), "tiered writes less");
//! assert!(tiered.space > leveled.space, "and takes more space");
//! ```
//!
//! Reading order: [`workload`] (what is written), [`setup`] (on what), [`tables`] (what flush and merge make),
//! [`simulation`] (when), [`report`] (what came of it), [`draw`].
//!
//! What it does not model: syncs, the page cache, processors that are short, snapshots, and more than one keyspace.

#![forbid(unsafe_code)]

pub mod draw;
pub mod report;
pub mod setup;
pub mod simulation;
pub mod tables;
pub mod workload;

pub use report::{Report, Sample};
pub use setup::Setup;
pub use simulation::simulate;
pub use workload::{Workload, Write, Writes, expected_distinct};
