//! The only door to the disk, the clock and randomness: real, and simulated with faults and crashes.
//!
//! Everything above takes an [`Environment`] and touches nothing else of the outside world, so that a seed repeats a
//! whole run. [`Environment::real`] is the operating system; a simulated one lives in memory, numbers its events,
//! injects errors, and hands out what a crash at any event would leave.
//!
//! ```
//! use file_system::{Environment, FileSystem, LogFileWay};
//!
//! /// Runs anywhere: nothing but the environment is touched.
//! fn store_and_read(world: &Environment, dir: &std::path::Path) -> Result<Vec<u8>, file_system::FileError> {
//!     let log = world.files.create_log(&dir.join("log"), 4096, LogFileWay::Mapped)?;
//!     log.store(0, b"record")?; // survives the death of the process
//!     log.sync()?; // survives power loss …
//!     world.files.sync_dir(dir)?; // … and so does its name
//!     world.files.read(&dir.join("log"), 4096)
//! }
//!
//! let real = tempfile::tempdir().unwrap();
//! assert!(store_and_read(&Environment::real(), real.path()).unwrap().starts_with(b"record"));
//! assert!(store_and_read(&Environment::simulated(7), "/".as_ref()).unwrap().starts_with(b"record"));
//! ```
//!
//! Reading order: [`traits`] (the door), [`error`], [`mapped`] (bytes read in place), [`replace`] (the commonest
//! protocol), then the implementations: [`real`], [`simulated`] (events, faults, hold-ups, crash images).

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
    Crash, Fault, FaultEffect, FaultId, HoldUp, SimulatedClock, SimulatedFileSystem, SimulatedRandomness, Simulation,
};
pub use traits::{
    Clock, DirectoryEntry, DirectoryLock, Environment, FileSystem, LOCK_INFO_NAME, LOCK_NAME, LogFile, LogFileWay,
    Randomness, ReadFile, TEMPORARY_PREFIX, TemporaryFile,
};
