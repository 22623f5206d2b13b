//! A file system in memory that numbers its events, fails on command, and shows what a crash would leave.
//!
//! ```text
//!                 event 0   1   2   3   4  …                        inject(fault): an operation fails
//! engine ──────────────▶ [create][write][sync][rename][sync dir]    stop_at_event(n): all fail from there on
//!                                          └─ crash_image_at(3, PowerCut, seed) ─▶ a fresh file system
//! ```
//!
//! Every operation that changes the disk or the page cache is an event with a number, counted from 0: creating a file
//! or directory, allocating, writing, storing, syncing, renaming, linking, removing, syncing a directory. Operations
//! that read are none. The events are recorded, so that one run yields the crash images of all its events.
//!
//! - The same calls in the same order give the same events, whatever the machine.
//! - A sync of a file makes its bytes and length durable, never its name; a directory sync makes names durable, never
//!   bytes.
//! - A failed sync drops what it should have written: later syncs succeed without it, as in real kernels (P8).
//! - A failed directory sync leaves the names pending; a later one may make them durable.
//! - An operation can be [held up](SimulatedFileSystem::hold_up) before it happens.
//! - Crash images, see [`Crash`]: a killed process loses nothing, a power cut everything that was not synced, more or
//!   less. Locks are free again.

mod clock;
mod crash;
mod disk;
mod fault;
mod files;
mod hold;
mod random;
mod state;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

pub use clock::SimulatedClock;
pub use crash::Crash;
pub use fault::{Fault, FaultEffect, FaultId};
pub use hold::HoldUp;
pub use random::SimulatedRandomness;

use crate::{Environment, FileError, FileOperation};
use disk::{Disk, Event, Shared, Stop, failed};
use fault::Rule;
use random::SplitMix;
use state::State;

/// A whole simulated outside world.
///
/// ```
/// use file_system::{Crash, Simulation, replace_file};
/// use std::path::Path;
///
/// let simulation = Simulation::new(7);
/// replace_file(&*simulation.files, Path::new("/"), "name", b"old").unwrap();
/// let before = simulation.files.event_count();
/// replace_file(&*simulation.files, Path::new("/"), "name", b"new").unwrap();
///
/// // Whatever the event at which the power fails, the file is old or new, and new once the call has returned.
/// for event in before..=simulation.files.event_count() {
///     let after = simulation.files.crash_image_at(event, Crash::PowerCut, 1);
///     let bytes = file_system::FileSystem::read(&*after, Path::new("/name"), 100).unwrap();
///     assert!(bytes == b"new" || (bytes == b"old" && event < simulation.files.event_count()));
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Simulation {
    /// The files.
    pub files: Arc<SimulatedFileSystem>,
    /// The clock.
    pub clock: Arc<SimulatedClock>,
    /// The randomness.
    pub randomness: Arc<SimulatedRandomness>,
}

impl Simulation {
    /// A world with an empty root directory, a clock at its start, and the randomness of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::with_files(SimulatedFileSystem::new(seed), seed)
    }

    /// A world around `files`, such as a crash image, with a fresh clock and the randomness of `seed`.
    pub fn with_files(files: Arc<SimulatedFileSystem>, seed: u64) -> Self {
        let randomness = Arc::new(SimulatedRandomness::new(seed));
        Self { files, clock: Arc::new(SimulatedClock::new()), randomness }
    }

    /// The bundle that the engine takes.
    pub fn environment(&self) -> Environment {
        let (files, clock) = (Arc::clone(&self.files), Arc::clone(&self.clock));
        Environment { files, clock, randomness: Arc::<SimulatedRandomness>::clone(&self.randomness) }
    }
}

impl Environment {
    /// A simulated world; [`Simulation`] also gives the handles that steer it.
    pub fn simulated(seed: u64) -> Self {
        Simulation::new(seed).environment()
    }
}

/// A file system in memory; see the [module](self).
///
/// Only `/` exists at first. One lock guards everything, so calls from several threads are safe and serialised, in
/// an order that only the threads decide: a reproducible run uses one thread.
pub struct SimulatedFileSystem {
    shared: Arc<Shared>,
}

impl SimulatedFileSystem {
    /// An empty disk. `seed` decides probabilities and short writes, nothing else.
    pub fn new(seed: u64) -> Arc<Self> {
        Self::with_disk(Disk::new(State::new(), seed))
    }

    fn with_disk(disk: Disk) -> Arc<Self> {
        Arc::new(Self { shared: Arc::new(Shared::new(disk)) })
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.lock()
    }

    /// How many events have happened; also the number of the next one.
    pub fn event_count(&self) -> u64 {
        self.disk().event_count()
    }

    /// The known events as text, one line each, beginning with their number.
    pub fn events(&self) -> Vec<String> {
        let disk = self.disk();
        let first = disk.checkpoints[0].0;
        disk.events.iter().zip(first..).map(|(event, number)| format!("{number} {event}")).collect()
    }

    /// Forgets the recorded events, and what no name and no handle leads to. Crash images are possible from now on
    /// only; numbers go on. Keeps the memory of a long run bounded.
    pub fn forget_events(&self) {
        let mut disk = self.disk();
        let count = disk.event_count();
        let Disk { state, open, .. } = &mut *disk;
        state.collect(|inode| open.contains_key(&inode));
        disk.events.clear();
        disk.checkpoints = vec![(count, disk.state.clone())];
    }

    /// Ends the run before event `number` happens: it and every later operation, reads too, fail as if the process had
    /// died.
    pub fn stop_at_event(&self, number: u64) {
        self.disk().stop = Some(Stop::Before(number));
    }

    /// Ends the run when event `number` has happened: its caller hears of a failure, and everything later fails.
    pub fn stop_after_event(&self, number: u64) {
        self.disk().stop = Some(Stop::After(number));
    }

    /// Whether the run has ended by [`stop_at_event`](Self::stop_at_event) or
    /// [`stop_after_event`](Self::stop_after_event).
    pub fn is_stopped(&self) -> bool {
        self.disk().stopped
    }

    /// A fresh file system with what a crash now would leave. The same seed gives the same image.
    ///
    /// Nothing is locked in it, no fault is in force, and its events count from 0; its capacity is that of this one.
    pub fn crash_image(&self, crash: Crash, seed: u64) -> Arc<Self> {
        self.crash_image_at(self.event_count(), crash, seed)
    }

    /// The same, for a crash after exactly the first `events` events.
    ///
    /// # Panics
    /// If so many have not happened, or they are forgotten.
    pub fn crash_image_at(&self, events: u64, crash: Crash, seed: u64) -> Arc<Self> {
        let disk = self.disk();
        disk.image(&disk.state_at(events), crash, seed)
    }

    /// The same, for a crash in the middle of event `event`: a part of a write reached the page cache, any other
    /// operation happened or not, by seed.
    ///
    /// # Panics
    /// If the event has not happened, or it is forgotten.
    pub fn crash_image_during(&self, event: u64, crash: Crash, seed: u64) -> Arc<Self> {
        let disk = self.disk();
        let mut state = disk.state_at(event);
        let first = disk.checkpoints[0].0;
        let Some(Event { operation, .. }) = disk.events.get((event - first) as usize) else {
            panic!("event {event} has not happened");
        };
        crash::apply_partly(&mut state, event, operation, &mut SplitMix::new(!seed));
        disk.image(&state, crash, seed)
    }

    /// Puts a fault in force until it is removed.
    pub fn inject(&self, fault: Fault) -> FaultId {
        let mut disk = self.disk();
        let id = FaultId(disk.next_fault);
        disk.next_fault += 1;
        disk.rules.push(Rule { id, fault, matched: 0, hits: 0 });
        id
    }

    /// How many operations a fault in force has made fail.
    pub fn fault_hits(&self, id: FaultId) -> u64 {
        self.disk().rules.iter().find(|rule| rule.id == id).map_or(0, |rule| rule.hits)
    }

    /// Lifts a fault.
    pub fn remove_fault(&self, id: FaultId) {
        self.disk().rules.retain(|rule| rule.id != id);
    }

    /// Lifts all faults.
    pub fn clear_faults(&self) {
        self.disk().rules.clear();
    }

    /// Limits the disk to `bytes`, counted in whole pages of files that are named or open; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// The bytes that named or open files take, in whole pages.
    pub fn used_bytes(&self) -> u64 {
        self.disk().used()
    }

    /// Whether log segments are mapped when that is asked for (they are, unless told otherwise), or written by calls as
    /// on a file system not known to be safe.
    pub fn set_maps_logs(&self, maps: bool) {
        self.disk().maps_logs = maps;
    }

    /// Changes one byte of a file behind everybody's back, as a failing disk does, durably. Not an event.
    ///
    /// # Errors
    /// If there is no such file or it is not longer than `offset`.
    pub fn corrupt(&self, path: &Path, offset: u64, change: impl FnOnce(u8) -> u8) -> Result<(), FileError> {
        let mut disk = self.disk();
        let number = disk.event_count();
        let inode = disk.state.resolve(path).map_err(failed(FileOperation::Open, path))?;
        let mut byte = [0];
        if !disk.state.file(inode).is_some_and(|file| file.current.read(offset, &mut byte)) {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(FileError::new(FileOperation::Write, path, source).at(offset));
        }
        disk.state.corrupt(inode, offset, change(byte[0]));
        // Images of earlier events do not know the damage.
        disk.events.clear();
        disk.checkpoints = vec![(number, disk.state.clone())];
        Ok(())
    }
}

impl Disk {
    fn image(&self, state: &State, crash: Crash, seed: u64) -> Arc<SimulatedFileSystem> {
        let mut state = crash::image(state, crash, seed);
        state.collect(|_| false);
        let mut disk = Self::new(state, seed);
        disk.capacity = self.capacity;
        disk.maps_logs = self.maps_logs;
        SimulatedFileSystem::with_disk(disk)
    }
}

impl fmt::Debug for SimulatedFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedFileSystem({} events)", self.event_count())
    }
}
