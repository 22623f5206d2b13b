//! The disk behind its lock: what an operation does to it, what makes it fail, and the events that are recorded.
//!
//! ```text
//!   perform ─▶ has the run ended? ─▶ does a rule make it fail? ─▶ is there room? ─▶ applied to the state, recorded
//!                                                                                    └ every 128 events a copy is kept
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::fault::{FaultEffect, Rule};
use super::hold::Hold;
use super::random::SplitMix;
use super::state::{Entry, Inode, NameChange, Operation, PAGE_BYTES, State};
use crate::{FileError, FileOperation};

/// The process id that the holder of a simulated lock has.
pub(super) const SIMULATED_PID: u32 = 1;

/// Events between two copies of the state that later crash images start from.
const CHECKPOINT_EVENTS: u64 = 128;

/// One event, for replaying and for people.
#[derive(Debug)]
pub(super) struct Event {
    what: FileOperation,
    path: PathBuf,
    pub(super) operation: Operation,
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
pub(super) enum Stop {
    Before(u64),
    After(u64),
}

/// The disk, and where those sleep who are held up.
pub(super) struct Shared {
    disk: Mutex<Disk>,
    /// Somebody has come to be held up, or is let go.
    pub(super) changed: Condvar,
}

/// Everything behind the lock.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) state: State,
    /// The events since the first checkpoint.
    pub(super) events: Vec<Event>,
    /// States and how many events had happened then, ascending; never empty.
    pub(super) checkpoints: Vec<(u64, State)>,
    pub(super) stop: Option<Stop>,
    pub(super) stopped: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) next_fault: u64,
    pub(super) holds: Vec<Hold>,
    pub(super) next_hold: u64,
    random: SplitMix,
    /// Bytes, in whole pages; `None` when there is no limit.
    pub(super) capacity: Option<u64>,
    pub(super) maps_logs: bool,
    /// Open handles by inode: what keeps an unnamed file's space.
    pub(super) open: BTreeMap<Inode, u64>,
    pub(super) locked: Vec<Inode>,
    pub(super) next_temporary: u64,
}

impl Shared {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk: Mutex::new(disk), changed: Condvar::new() }
    }

    /// The disk, also after a panic of a thread that held the lock: a test that catches the panic goes on.
    pub(super) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk for an operation that somebody asks for, once nothing holds that up, if the process lives then.
    pub(super) fn enter(&self, what: FileOperation, path: &Path) -> Result<MutexGuard<'_, Disk>, FileError> {
        let mut disk = self.lock();
        let mut counted_by = None;
        while let Some(hold) = disk.holds.iter_mut().find(|hold| hold.matches(what, path)) {
            if counted_by.replace(hold.id) != Some(hold.id) {
                hold.reached += 1;
                self.changed.notify_all();
            }
            disk = self.changed.wait(disk).unwrap_or_else(PoisonError::into_inner);
        }
        disk.check_alive(what, path)?;
        Ok(disk)
    }
}

impl Disk {
    pub(super) fn new(state: State, seed: u64) -> Self {
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

    pub(super) fn event_count(&self) -> u64 {
        self.checkpoints[0].0 + self.events.len() as u64
    }

    pub(super) fn state_at(&self, events: u64) -> State {
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

    pub(super) fn check_alive(&self, what: FileOperation, path: &Path) -> Result<(), FileError> {
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
    pub(super) fn look(&mut self, what: FileOperation, path: &Path) -> Result<(), FileError> {
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
    pub(super) fn perform(&mut self, what: FileOperation, path: &Path, operation: Operation) -> Result<(), FileError> {
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
    pub(super) fn used(&self) -> u64 {
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

    pub(super) fn create_file(&mut self, what: FileOperation, path: &Path, entry: Entry) -> Result<Inode, FileError> {
        let inode = self.state.next_inode;
        self.perform(what, path, Operation::CreateFile { entry, inode })?;
        Ok(inode)
    }

    pub(super) fn close(&mut self, inode: Inode) {
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
pub(super) fn failed<E: Into<io::Error>>(what: FileOperation, path: &Path) -> impl FnOnce(E) -> FileError + '_ {
    move |source| FileError::new(what, path, source.into())
}

impl Disk {
    pub(super) fn rename(&mut self, from_path: &Path, to_path: &Path) -> Result<(), FileError> {
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

    pub(super) fn remove_file(&mut self, path: &Path) -> Result<(), FileError> {
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
    pub(super) fn name_holder(&mut self, path: &Path) -> Result<(), FileError> {
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
