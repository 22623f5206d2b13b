//! The only door to the disk, the clock and randomness: real, and simulated with faults and crashes.
//!
//! Everything above takes an [`Environment`] and touches nothing else of the outside world, so that a seed repeats a
//! whole run. [`Environment::real`] is the operating system; a simulated one lives in memory, numbers its events,
//! injects errors, and hands out what a crash at any event would leave.
//!
//! Reading order: [`traits`] (the door), [`error`], [`mapped`] (bytes read in place), then the implementations.

pub mod error;
pub mod mapped;
pub mod real;
pub mod replace;
pub mod simulated;
pub mod traits;

pub use error::{FileError, FileOperation};
pub use mapped::MappedBytes;
pub use real::{RealFileSystem, SystemClock, SystemRandomness};
pub use replace::{ReplaceError, replace_file};
pub use simulated::{
    Crash, Fault, FaultEffect, FaultId, SimulatedClock, SimulatedFileSystem, SimulatedRandomness, Simulation,
};
pub use traits::{
    Clock, DirectoryEntry, DirectoryLock, Environment, FileSystem, LOCK_INFO_NAME, LOCK_NAME, LogFile, LogFileWay,
    Randomness, ReadFile, TEMPORARY_PREFIX, TemporaryFile,
};
