//! Benchmarks of the engine through its public interface: what they share.
//!
//! - [`Rows`]: which keys and values there are, so that every answer can be checked.
//! - [`Measured`], [`measure`]: operations on some threads, with their latencies.
//! - [`AnonymousMemory`]: what the process holds beside files, sampled.

mod measure;
mod memory;
mod rows;

pub use measure::{Measured, measure};
pub use memory::{AnonymousMemory, resident_bytes_max};
pub use rows::{KEY_BYTES, KeyShape, Rows, VALUE_BYTES, mix};
