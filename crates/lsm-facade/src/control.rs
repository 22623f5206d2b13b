//! Following a compaction that somebody asked for, and ending it.
//!
//! - **C4** One that is cancelled leaves the database whole: what it had installed step by step stays, the tables of the
//!   step under way go.
//! - **P9** Who waits for it is woken when it is cancelled.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use compaction::{Progress, Scheduler};

/// Follows [`Keyspace::compact_range_with`](crate::Keyspace::compact_range_with) from any thread: how far it is, and a way
/// to end it. Cheap to clone; the clones are one control. Meant for one call: it counts the bytes of all calls that it is
/// given to together, and once cancelled it stays so.
///
/// ```
/// use lsm_facade::{CompactionControl, Database, Error};
///
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = Database::open(dir.path())?;
/// let keyspace = database.keyspace("a")?;
/// for number in 0..1000_u32 {
///     keyspace.insert(number.to_be_bytes(), "value")?;
/// }
/// let control = CompactionControl::new();
/// let compacted = std::thread::scope(|scope| {
///     let compacting = scope.spawn(|| keyspace.compact_range_with::<&[u8]>(.., &control));
///     while !compacting.is_finished() {
///         println!("{}", control.progress());
///         // Somebody has had enough: `control.cancel()` ends the call with `Error::Cancelled`.
///         std::thread::yield_now();
///     }
///     compacting.join().unwrap()
/// });
/// compacted?;
/// let progress = control.progress();
/// assert_eq!(progress.done_bytes, progress.planned_bytes);
///
/// control.cancel();
/// assert!(matches!(keyspace.compact_range_with("a".."b", &control), Err(Error::Cancelled)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct CompactionControl {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Relaxed where running jobs look: seen a little later, they give up a little later. Who waits looks again when it is
    /// told, which takes a lock.
    cancelled: AtomicBool,
    /// The schedulers at which a call may wait. A leaf among the locks, except that a scheduler is told under it.
    waiting: Mutex<Vec<Weak<Scheduler>>>,
    /// A leaf among the locks.
    course: Mutex<Course>,
}

/// How a compaction gets on, step by step.
#[derive(Default)]
struct Course {
    /// Bytes of the inputs of all steps that have ended.
    done: u64,
    planned: u64,
    step: Option<Step>,
}

/// The step under way.
struct Step {
    bytes: u64,
    entries: u64,
    progress: Arc<Progress>,
}

impl Step {
    /// How many bytes of its inputs were read, as far as its entries tell.
    fn done(&self) -> u64 {
        let read = self.progress.entries_read().min(self.entries);
        (u128::from(self.bytes) * u128::from(read) / u128::from(self.entries.max(1))) as u64
    }
}

/// How far a compaction is: bytes of tables that are read. Neither figure ever falls, and `done_bytes` is never the larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CompactionProgress {
    /// What is done.
    pub done_bytes: u64,
    /// What is done and what is still to do, by estimate: it grows where more turns out to be needed. Equal to what is done
    /// once the call has succeeded; 0 before there is a plan, and to the end if there was nothing to do.
    pub planned_bytes: u64,
}

impl fmt::Display for CompactionProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} bytes", self.done_bytes, self.planned_bytes)
    }
}

impl CompactionControl {
    /// A control of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the call soon, wherever it is: it returns [`Error::Cancelled`](crate::Error::Cancelled), unless it is just
    /// done. Returns at once. A call that begins later ends at once.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
        // Who enters later than this takes the lock later, and sees the flag.
        if planted_faults::planted("facade-cancel-wakes-nobody") {
            return;
        }
        for scheduler in lock(&self.shared.waiting).iter().filter_map(Weak::upgrade) {
            scheduler.notify();
        }
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    /// How far it is.
    pub fn progress(&self) -> CompactionProgress {
        let course = lock(&self.shared.course);
        let done = course.done + course.step.as_ref().map_or(0, Step::done);
        CompactionProgress { done_bytes: done.min(course.planned), planned_bytes: course.planned }
    }

    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.shared.cancelled
    }

    /// A call begins that may wait at `scheduler`: until what this returns is dropped, cancelling wakes it.
    pub(crate) fn enter(&self, scheduler: &Arc<Scheduler>) -> Entered<'_> {
        let scheduler = Arc::downgrade(scheduler);
        lock(&self.shared.waiting).push(Weak::clone(&scheduler));
        Entered { control: self, scheduler }
    }

    /// So many bytes are still to be read, by estimate.
    pub(crate) fn plan(&self, ahead: u64) {
        let mut course = lock(&self.shared.course);
        course.planned = course.planned.max(course.done + ahead);
    }

    /// A step begins that reads so much.
    pub(crate) fn begin_step(&self, bytes: u64, entries: u64, progress: &Arc<Progress>) {
        let mut course = lock(&self.shared.course);
        course.planned = course.planned.max(course.done + bytes);
        course.step = Some(Step { bytes, entries, progress: Arc::clone(progress) });
    }

    /// The step has ended: with `bytes` of inputs, or, if it came to nothing, where it was.
    pub(crate) fn end_step(&self, bytes: Option<u64>) {
        let mut course = lock(&self.shared.course);
        let begun = course.step.take().map_or(0, |step| step.done());
        course.done += bytes.unwrap_or(begun);
        course.planned = course.planned.max(course.done);
    }

    /// Nothing is left to do: what was planned and turned out to be needless counts as done.
    pub(crate) fn end(&self) {
        let mut course = lock(&self.shared.course);
        course.step = None;
        course.done = course.planned;
    }
}

impl fmt::Debug for CompactionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (progress, cancelled) = (self.progress(), self.is_cancelled());
        f.debug_struct("CompactionControl").field("progress", &progress).field("cancelled", &cancelled).finish()
    }
}

/// A call that cancelling wakes, until this is dropped.
pub(crate) struct Entered<'a> {
    control: &'a CompactionControl,
    scheduler: Weak<Scheduler>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.control.shared.waiting);
        if let Some(at) = waiting.iter().position(|other| other.ptr_eq(&self.scheduler)) {
            waiting.swap_remove(at);
        }
    }
}

/// Also after a holder has panicked: what it left is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
