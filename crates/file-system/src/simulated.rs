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
mod fault;
mod hold;
mod random;
mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

pub use clock::SimulatedClock;
pub use crash::Crash;
pub use fault::{Fault, FaultEffect, FaultId};
pub use hold::HoldUp;
pub use random::SimulatedRandomness;

use crate::traits::{LOCK_INFO_NAME, LOCK_NAME, TEMPORARY_PREFIX};
use crate::{
    DirectoryEntry, DirectoryLock, Environment, FileError, FileOperation, FileSystem, LogFile, LogFileWay, MappedBytes,
    ReadFile, TemporaryFile,
};
use fault::Rule;
use hold::{Hold, Shared};
use random::SplitMix;
use state::{Entry, Inode, NameChange, Operation, PAGE_BYTES, State};

/// The process id that the holder of a simulated lock has.
const SIMULATED_PID: u32 = 1;

/// Events between two copies of the state that later crash images start from.
const CHECKPOINT_EVENTS: u64 = 128;

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

/// One event, for replaying and for people.
#[derive(Debug)]
struct Event {
    what: FileOperation,
    path: PathBuf,
    operation: Operation,
    /// Why it was reported as failed, if it was.
    failure: Option<String>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.path.display())?;
        match &self.operation {
            Operation::Write { offset, bytes, .. } => write!(f, " [{offset}..{})", offset + bytes.len() as u64)?,
            Operation::Grow { len, .. } => write!(f, " to {len} bytes")?,
            Operation::Name(NameChange::Rename { to, .. }) => write!(f, " to {}", to.1)?,
            _ => {}
        }
        if let Some(failure) = &self.failure {
            write!(f, " (failed: {failure})")?;
        }
        Ok(())
    }
}

/// When the run ends.
#[derive(Debug, Clone, Copy)]
enum Stop {
    Before(u64),
    After(u64),
}

/// Everything behind the lock.
#[derive(Debug)]
struct Disk {
    state: State,
    /// The events since the first checkpoint.
    events: Vec<Event>,
    /// States and how many events had happened then, ascending; never empty.
    checkpoints: Vec<(u64, State)>,
    stop: Option<Stop>,
    stopped: bool,
    rules: Vec<Rule>,
    next_fault: u64,
    holds: Vec<Hold>,
    next_hold: u64,
    random: SplitMix,
    /// Bytes, in whole pages; `None` when there is no limit.
    capacity: Option<u64>,
    maps_logs: bool,
    /// Open handles by inode: what keeps an unnamed file's space.
    open: BTreeMap<Inode, u64>,
    locked: Vec<Inode>,
    next_temporary: u64,
}

impl Disk {
    fn new(state: State, seed: u64) -> Self {
        Self {
            checkpoints: vec![(0, state.clone())],
            state,
            events: Vec::new(),
            stop: None,
            stopped: false,
            rules: Vec::new(),
            next_fault: 0,
            holds: Vec::new(),
            next_hold: 0,
            random: SplitMix::new(seed),
            capacity: None,
            maps_logs: true,
            open: BTreeMap::new(),
            locked: Vec::new(),
            next_temporary: 0,
        }
    }

    fn event_count(&self) -> u64 {
        self.checkpoints[0].0 + self.events.len() as u64
    }

    fn state_at(&self, events: u64) -> State {
        let (first, count) = (self.checkpoints[0].0, self.event_count());
        assert!((first..=count).contains(&events), "events {first} to {count} are known, not {events}");
        if events == count {
            return self.state.clone();
        }
        let nearest = self.checkpoints.partition_point(|&(at, _)| at <= events) - 1;
        let (at, mut state) = self.checkpoints[nearest].clone();
        for number in at..events {
            state.apply(number, &self.events[(number - first) as usize].operation);
        }
        state
    }

    fn check_alive(&self, what: FileOperation, path: &Path) -> Result<(), FileError> {
        if self.stopped {
            let source = io::Error::other("simulated: the process died");
            return Err(FileError::new(what, path, source));
        }
        Ok(())
    }

    /// The first rule that makes this operation fail. All that match count it.
    fn fault_for(&mut self, what: FileOperation, path: &Path) -> Option<FaultEffect> {
        let random = &mut self.random;
        let mut effects = self.rules.iter_mut().filter_map(|rule| rule.meet(what, path, random));
        let first = effects.next();
        effects.for_each(drop);
        first
    }

    /// An operation that changes nothing: it can fail, and it is no event.
    fn look(&mut self, what: FileOperation, path: &Path) -> Result<(), FileError> {
        self.check_alive(what, path)?;
        match self.fault_for(what, path) {
            Some(effect) => Err(FileError::new(what, path, effect.error())),
            None => Ok(()),
        }
    }

    fn record(&mut self, what: FileOperation, path: &Path, operation: Operation, failure: Option<&io::Error>) {
        let number = self.event_count();
        self.state.apply(number, &operation);
        let failure = failure.map(ToString::to_string);
        self.events.push(Event { what, path: path.to_owned(), operation, failure });
        if (number + 1).is_multiple_of(CHECKPOINT_EVENTS) {
            self.checkpoints.push((number + 1, self.state.clone()));
        }
    }

    /// One event: fails by a rule, for want of space, or because the run ends here; else it happens.
    fn perform(&mut self, what: FileOperation, path: &Path, operation: Operation) -> Result<(), FileError> {
        self.check_alive(what, path)?;
        let number = self.event_count();
        if matches!(self.stop, Some(Stop::Before(at)) if at <= number) {
            self.stopped = true;
            return self.check_alive(what, path);
        }
        let fault = self.fault_for(what, path);
        if let Some(effect) = fault {
            let error = effect.error();
            let left = match operation {
                Operation::Sync { inode } => Operation::FailSync { inode },
                Operation::Write { inode, offset, bytes } if effect == FaultEffect::ShortWrite => {
                    let reached = self.random.below(bytes.len().max(1) as u64) as usize;
                    Operation::Write { inode, offset, bytes: bytes[..reached].into() }
                }
                _ => Operation::Nothing,
            };
            self.record(what, path, left, Some(&error));
            self.stop_after(number);
            return Err(FileError::new(what, path, error));
        }
        if let Some(capacity) = self.capacity {
            let wanted = self.growth(&operation);
            if wanted > 0 && self.used() + wanted > capacity {
                return Err(FileError::new(what, path, FaultEffect::NoSpace.error()));
            }
        }
        self.record(what, path, operation, None);
        self.stop_after(number);
        self.check_alive(what, path)
    }

    fn stop_after(&mut self, number: u64) {
        if matches!(self.stop, Some(Stop::After(at)) if at <= number) {
            self.stopped = true;
        }
    }

    /// The bytes in whole pages that files take which are named or open.
    fn used(&self) -> u64 {
        let mut counted: std::collections::BTreeSet<Inode> = self.state.named().collect();
        counted.extend(self.open.keys());
        counted.into_iter().filter_map(|inode| self.state.file(inode)).map(|file| whole_pages(file.current.len)).sum()
    }

    fn growth(&self, operation: &Operation) -> u64 {
        let (inode, end) = match operation {
            Operation::Write { inode, offset, bytes } => (*inode, offset + bytes.len() as u64),
            Operation::Grow { inode, len } => (*inode, *len),
            _ => return 0,
        };
        let len = self.state.file(inode).map_or(0, |file| file.current.len);
        whole_pages(end).saturating_sub(whole_pages(len))
    }

    fn create_file(&mut self, what: FileOperation, path: &Path, entry: Entry) -> Result<Inode, FileError> {
        let inode = self.state.next_inode;
        self.perform(what, path, Operation::CreateFile { entry, inode })?;
        Ok(inode)
    }

    fn close(&mut self, inode: Inode) {
        if let Some(count) = self.open.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&inode);
            }
        }
    }
}

fn whole_pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_BYTES as u64).saturating_mul(PAGE_BYTES as u64)
}

/// Turns an `io::Error` (or its kind) into a [`FileError`].
fn failed<E: Into<io::Error>>(what: FileOperation, path: &Path) -> impl FnOnce(E) -> FileError + '_ {
    move |source| FileError::new(what, path, source.into())
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

    fn open_handle(&self, path: &Path, inode: Inode) -> Handle {
        Handle { shared: Arc::clone(&self.shared), path: path.to_owned(), inode }
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

impl FileSystem for SimulatedFileSystem {
    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Create;
        let mut disk = self.shared.enter(what, path)?;
        if let Ok(inode) = disk.state.resolve(path)
            && disk.state.dir(inode).is_some()
        {
            return disk.look(what, path);
        }
        let entry = disk.state.entry(path).map_err(failed(what, path))?;
        if disk.state.lookup(&entry).is_some() {
            return Err(failed(what, path)(io::ErrorKind::AlreadyExists));
        }
        let inode = disk.state.next_inode;
        disk.perform(what, path, Operation::CreateDir { entry, inode })
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>, FileError> {
        let (handle, len) = self.open_existing(path)?;
        Ok(Arc::new(SimulatedReadFile { handle, len }))
    }

    fn create_temporary(&self, dir: &Path) -> Result<Box<dyn TemporaryFile>, FileError> {
        let what = FileOperation::Create;
        let mut disk = self.shared.enter(what, dir)?;
        let (path, entry) = loop {
            let path = dir.join(format!("{TEMPORARY_PREFIX}{:06}", disk.next_temporary));
            disk.next_temporary += 1;
            let entry = disk.state.entry(&path).map_err(failed(what, dir))?;
            // One may be left from before a crash.
            if disk.state.lookup(&entry).is_none() {
                break (path, entry);
            }
        };
        let inode = disk.create_file(what, &path, entry)?;
        *disk.open.entry(inode).or_default() += 1;
        Ok(Box::new(SimulatedTemporaryFile { handle: self.open_handle(&path, inode), len: 0, persisted: false }))
    }

    fn create_log(&self, path: &Path, bytes: u64, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        let mut disk = self.shared.enter(FileOperation::Create, path)?;
        let entry = disk.state.entry(path).map_err(failed(FileOperation::Create, path))?;
        if disk.state.lookup(&entry).is_some() {
            return Err(failed(FileOperation::Create, path)(io::ErrorKind::AlreadyExists));
        }
        let inode = disk.create_file(FileOperation::Create, path, entry.clone())?;
        let allocated = if bytes > i64::MAX as u64 >> 10 {
            // No disk is so large.
            Err(failed(FileOperation::Allocate, path)(io::ErrorKind::FileTooLarge))
        } else {
            disk.perform(FileOperation::Allocate, path, Operation::Grow { inode, len: bytes })
        };
        if let Err(error) = allocated {
            // Fails when the process has died, and may fail by a rule; then the file stays, as a real one would.
            let _ = disk.perform(FileOperation::Remove, path, Operation::Name(NameChange::Unlink { entry }));
            return Err(error);
        }
        *disk.open.entry(inode).or_default() += 1;
        let way = if disk.maps_logs { way } else { LogFileWay::Written };
        Ok(Arc::new(SimulatedLogFile { handle: self.open_handle(path, inode), len: bytes, way }))
    }

    fn open_log(&self, path: &Path, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        let (handle, len) = self.open_existing(path)?;
        let way = if self.disk().maps_logs { way } else { LogFileWay::Written };
        Ok(Arc::new(SimulatedLogFile { handle, len, way }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.shared.enter(FileOperation::Rename, from)?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        self.shared.enter(FileOperation::Remove, path)?.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Remove;
        let mut disk = self.shared.enter(what, path)?;
        let entry = disk.state.entry(path).map_err(failed(what, path))?;
        let inode = disk.state.lookup(&entry).ok_or_else(|| failed(what, path)(io::ErrorKind::NotFound))?;
        match disk.state.dir(inode) {
            None => Err(failed(what, path)(io::ErrorKind::NotADirectory)),
            Some(dir) if !dir.current.is_empty() => Err(failed(what, path)(io::ErrorKind::DirectoryNotEmpty)),
            Some(_) => disk.perform(what, path, Operation::Name(NameChange::Unlink { entry })),
        }
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<DirectoryEntry>, FileError> {
        let what = FileOperation::List;
        let mut disk = self.shared.enter(what, path)?;
        let inode = disk.state.resolve(path).map_err(failed(what, path))?;
        if disk.state.dir(inode).is_none() {
            return Err(failed(what, path)(io::ErrorKind::NotADirectory));
        }
        disk.look(what, path)?;
        let Disk { state, .. } = &*disk;
        let entries = state.dir(inode).into_iter().flat_map(|dir| &dir.current);
        let is_dir = |inode: &Inode| state.dir(*inode).is_some();
        Ok(entries.map(|(name, inode)| DirectoryEntry { name: name.to_string(), is_dir: is_dir(inode) }).collect())
    }

    fn file_len(&self, path: &Path) -> Result<u64, FileError> {
        let (disk, inode) = self.inspect(path)?;
        Ok(disk.state.file(inode).map_or(0, |file| file.current.len))
    }

    fn link_count(&self, path: &Path) -> Result<u64, FileError> {
        let (disk, inode) = self.inspect(path)?;
        Ok(disk.state.link_count(inode))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        let what = FileOperation::Create;
        let mut disk = self.shared.enter(what, to)?;
        let inode = disk.state.resolve(from).map_err(failed(what, to))?;
        if disk.state.file(inode).is_none() {
            return Err(failed(what, to)(io::ErrorKind::PermissionDenied));
        }
        let entry = disk.state.entry(to).map_err(failed(what, to))?;
        if disk.state.lookup(&entry).is_some() {
            return Err(failed(what, to)(io::ErrorKind::AlreadyExists));
        }
        disk.perform(what, to, Operation::Name(NameChange::Link { entry, inode }))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::SyncDirectory;
        let mut disk = self.shared.enter(what, path)?;
        let dir = disk.state.resolve(path).map_err(failed(what, path))?;
        if disk.state.dir(dir).is_none() {
            return Err(failed(what, path)(io::ErrorKind::NotADirectory));
        }
        disk.perform(what, path, Operation::SyncDir { dir })
    }

    fn lock_dir(&self, dir: &Path) -> Result<Box<dyn DirectoryLock>, FileError> {
        let what = FileOperation::Lock;
        let path = dir.join(LOCK_NAME);
        let mut disk = self.shared.enter(what, &path)?;
        let entry = disk.state.entry(&path).map_err(failed(what, &path))?;
        let inode = entry.0;
        if disk.locked.contains(&inode) {
            let source = io::Error::new(io::ErrorKind::WouldBlock, format!("process {SIMULATED_PID} holds it"));
            return Err(FileError::new(what, &path, source));
        }
        match disk.state.lookup(&entry) {
            Some(_) => disk.look(what, &path)?,
            None => drop(disk.create_file(what, &path, entry)?),
        }
        let info = dir.join(LOCK_INFO_NAME);
        // As in the real one, the name of the holder is a courtesy; only a process that died here gets no lock.
        let _ = disk.name_holder(&info);
        disk.check_alive(what, &path)?;
        disk.locked.push(inode);
        Ok(Box::new(SimulatedLock { shared: Arc::clone(&self.shared), dir: inode }))
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        let mut disk = self.shared.enter(FileOperation::Inspect, path)?;
        disk.look(FileOperation::Inspect, path)?;
        match disk.state.resolve(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(FileOperation::Inspect, path)(error)),
        }
    }
}

impl SimulatedFileSystem {
    fn open_existing(&self, path: &Path) -> Result<(Handle, u64), FileError> {
        let what = FileOperation::Open;
        let mut disk = self.shared.enter(what, path)?;
        let inode = disk.state.resolve(path).map_err(failed(what, path))?;
        let Some(len) = disk.state.file(inode).map(|file| file.current.len) else {
            return Err(failed(what, path)(io::ErrorKind::IsADirectory));
        };
        disk.look(what, path)?;
        *disk.open.entry(inode).or_default() += 1;
        Ok((self.open_handle(path, inode), len))
    }

    fn inspect(&self, path: &Path) -> Result<(MutexGuard<'_, Disk>, Inode), FileError> {
        let what = FileOperation::Inspect;
        let mut disk = self.shared.enter(what, path)?;
        let inode = disk.state.resolve(path).map_err(failed(what, path))?;
        disk.look(what, path)?;
        Ok((disk, inode))
    }
}

impl Disk {
    fn rename(&mut self, from_path: &Path, to_path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Rename;
        let fail = |kind: io::ErrorKind| failed(what, from_path)(kind);
        self.check_alive(what, from_path)?;
        let from = self.state.entry(from_path).map_err(failed(what, from_path))?;
        let to = self.state.entry(to_path).map_err(failed(what, from_path))?;
        let inode = self.state.lookup(&from).ok_or_else(|| fail(io::ErrorKind::NotFound))?;
        if let Some(replaced) = self.state.lookup(&to) {
            match (self.state.dir(inode), self.state.dir(replaced)) {
                // Two names of one file: nothing happens.
                _ if inode == replaced => return self.look(what, from_path),
                (None, Some(_)) => return Err(fail(io::ErrorKind::IsADirectory)),
                (Some(_), None) => return Err(fail(io::ErrorKind::NotADirectory)),
                (Some(_), Some(dir)) if !dir.current.is_empty() => {
                    return Err(fail(io::ErrorKind::DirectoryNotEmpty));
                }
                _ => {}
            }
        }
        self.perform(what, from_path, Operation::Name(NameChange::Rename { from, to, inode }))
    }

    fn remove_file(&mut self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Remove;
        self.check_alive(what, path)?;
        let entry = self.state.entry(path).map_err(failed(what, path))?;
        let inode = self.state.lookup(&entry).ok_or_else(|| failed(what, path)(io::ErrorKind::NotFound))?;
        if self.state.dir(inode).is_some() {
            return Err(failed(what, path)(io::ErrorKind::IsADirectory));
        }
        self.perform(what, path, Operation::Name(NameChange::Unlink { entry }))
    }

    /// Counts as locking, so that no rule about writes or creations meets it.
    fn name_holder(&mut self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Lock;
        let entry = self.state.entry(path).map_err(failed(what, path))?;
        let inode = match self.state.lookup(&entry) {
            Some(inode) => inode,
            None => self.create_file(what, path, entry)?,
        };
        let bytes = format!("{SIMULATED_PID}\n").into_bytes().into();
        self.perform(what, path, Operation::Write { inode, offset: 0, bytes })
    }
}

/// An open file: keeps its space from being counted as free.
struct Handle {
    shared: Arc<Shared>,
    path: PathBuf,
    inode: Inode,
}

impl Handle {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.lock()
    }

    /// As [`Shared::enter`], for this file.
    fn enter(&self, what: FileOperation) -> Result<MutexGuard<'_, Disk>, FileError> {
        self.shared.enter(what, &self.path)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut disk = self.enter(FileOperation::Write)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let operation = Operation::Write { inode: self.inode, offset, bytes: bytes.into() };
        disk.perform(FileOperation::Write, &self.path, operation).map_err(|error| error.at(offset))
    }

    fn sync(&self) -> Result<(), FileError> {
        self.enter(FileOperation::Sync)?.perform(FileOperation::Sync, &self.path, Operation::Sync { inode: self.inode })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inode = self.inode;
        self.disk().close(inode);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

#[derive(Debug)]
struct SimulatedReadFile {
    handle: Handle,
    len: u64,
}

impl ReadFile for SimulatedReadFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        let Handle { path, inode, .. } = &self.handle;
        let mut disk = self.handle.enter(FileOperation::Read).map_err(|error| error.at(offset))?;
        disk.look(FileOperation::Read, path).map_err(|error| error.at(offset))?;
        if !buffer.is_empty() && !disk.state.file(*inode).is_some_and(|file| file.current.read(offset, buffer)) {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(FileError::new(FileOperation::Read, path, source).at(offset));
        }
        Ok(())
    }

    fn written_ranges(&self, offset: u64) -> Vec<Range<u64>> {
        let disk = self.handle.disk();
        disk.state.file(self.handle.inode).map_or_else(Vec::new, |file| file.current.written_ranges(offset))
    }

    fn map(&self) -> Result<MappedBytes, FileError> {
        let Handle { path, inode, .. } = &self.handle;
        let mut disk = self.handle.enter(FileOperation::Map)?;
        disk.look(FileOperation::Map, path)?;
        // A copy: what is mapped does not change.
        let mut bytes = vec![0; self.len as usize];
        if let Some(file) = disk.state.file(*inode) {
            file.current.read(0, &mut bytes);
        }
        Ok(MappedBytes::from_memory(&bytes))
    }
}

#[derive(Debug)]
struct SimulatedTemporaryFile {
    handle: Handle,
    len: u64,
    persisted: bool,
}

impl TemporaryFile for SimulatedTemporaryFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.handle.write(self.len, bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.handle.sync()
    }

    fn persist(mut self: Box<Self>, to: &Path) -> Result<(), FileError> {
        let path = self.handle.path.clone();
        self.handle.enter(FileOperation::Rename)?.rename(&path, to)?;
        self.persisted = true;
        Ok(())
    }
}

impl Drop for SimulatedTemporaryFile {
    fn drop(&mut self) {
        if !self.persisted {
            let path = std::mem::take(&mut self.handle.path);
            // Fails when the process has died, and may fail by a rule: then it stays, as a real one would.
            let _ = self.handle.disk().remove_file(&path);
        }
    }
}

#[derive(Debug)]
struct SimulatedLogFile {
    handle: Handle,
    len: u64,
    way: LogFileWay,
}

impl LogFile for SimulatedLogFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn way(&self) -> LogFileWay {
        self.way
    }

    fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        assert!(
            offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.len),
            "L1: a store of {} bytes at {offset} leaves {} of {} bytes",
            bytes.len(),
            self.handle.path.display(),
            self.len
        );
        self.handle.write(offset, bytes)
    }

    fn populate(&self, _offset: u64, _bytes: u64) {}

    fn sync(&self) -> Result<(), FileError> {
        self.handle.sync()
    }
}

struct SimulatedLock {
    shared: Arc<Shared>,
    dir: Inode,
}

impl fmt::Debug for SimulatedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedLock")
    }
}

impl DirectoryLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.shared.lock().locked.retain(|&dir| dir != self.dir);
    }
}
