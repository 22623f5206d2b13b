//! Reference model, golden-script runner and generators for the tests of the other crates.
//!
//! A dev-dependency only: nothing that ships knows this crate. It depends on [`internal_key`] alone, so that every
//! crate above can test with it.
//!
//! ```text
//!   tests/golden/*.txt ──▶ run_scripts ──▶ Fixture (yours) ──▶ text, compared with what the script expects
//!   seed ──▶ Rng ──▶ KeyGenerator, ValueGenerator ──▶ operations ──▶ the code under test
//!                                                            └─────▶ ReferenceModel ──▶ compared
//! ```
//!
//! # Golden scripts
//!
//! A script tells one story: commands in, the structure printed back. The format stands in [`script`]. The Rust side is
//! a [`Fixture`] that turns a [`Command`] into text, and one line:
//!
//! ```no_run
//! # struct Shelf;
//! # impl test_support::Fixture for Shelf {
//! #     fn run(&mut self, _: &test_support::Command) -> String { String::new() }
//! # }
//! #[test]
//! fn golden_scripts() {
//!     test_support::run_scripts("tests/golden", || Shelf);
//! }
//! ```
//!
//! `cargo xtask golden --update` (or the environment variable [`UPDATE_VARIABLE`]) rewrites the expected output in
//! place; the difference is then read in review like any other.
//!
//! # Models and seeds
//!
//! ```
//! use internal_key::{KeyspaceId, SeqNo};
//! use test_support::{KeyGenerator, ReferenceModel, ValueGenerator, for_each_seed};
//!
//! let keyspace = KeyspaceId(1);
//! for_each_seed(0..4, |rng| {
//!     let keys = KeyGenerator::new(rng);
//!     let values = ValueGenerator::up_to(100);
//!     let mut model = ReferenceModel::new();
//!     model.create_keyspace(keyspace, SeqNo::ZERO);
//!     for number in 1..=50 {
//!         let seqno = SeqNo::new(number).unwrap();
//!         model.put(keyspace, &keys.key(rng), &values.value(rng), seqno);
//!     }
//!     let now = SeqNo::new(50).unwrap();
//!     let forward: Vec<_> = model.range(keyspace, .., now).collect();
//!     let mut backward: Vec<_> = model.range(keyspace, .., now).rev().collect();
//!     backward.reverse();
//!     assert_eq!(forward, backward);
//!     assert_eq!(model.range(keyspace, .., SeqNo::ZERO).count(), 0, "before the first write there is nothing");
//! });
//! ```
//!
//! Reading order: [`script`] (the format), [`golden`] (files), [`diff`], [`rng`] (seeds), [`generate`] (keys, values,
//! ranges), [`model`] (what the engine must answer), [`twin`] (fuzz harnesses on stable).

#![forbid(unsafe_code)]

pub mod diff;
pub mod generate;
pub mod golden;
pub mod model;
pub mod rng;
pub mod script;
pub mod twin;

pub use generate::{KeyGenerator, KeyRange, ValueGenerator};
pub use golden::{UPDATE_VARIABLE, run_scripts};
pub use model::ReferenceModel;
pub use rng::{Rng, SEED_VARIABLE, for_each_seed, number_in};
pub use script::{Command, Fixture, unescape};
pub use twin::fuzz_twin;
