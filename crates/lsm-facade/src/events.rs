//! What the background does, told as it happens: to listeners, and from there to whoever draws it.
//!
//! ```text
//!   flush begins ─▶ table created … ─▶ manifest edited ─▶ flush ended
//!   compaction begins ─▶ table created … ─▶ manifest edited ─▶ compaction ended ─▶ table deleted …
//!   stall begins ─▶ stall ended        (on the writer's thread, before its reservation)
//! ```
//!
//! - **C4** A job that fails, is cancelled or is abandoned ends too, and says so; its tables were never created.
//! - **P9** A listener is called without a lock of the engine held that reads, writes or jobs take. A panic in it is caught, counted and logged: neither
//!   the job nor the writer is the worse for it. What it calls never waits for jobs, nor runs one ([`Error::InListener`]): jobs
//!   wait for it, and a stall within a stall would be told again, without end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use compaction::{Collected, Debt, Plan};

use crate::Error;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It was installed.
    Installed,
    /// Nothing came of it: a clear or drop came in between, or there was nothing to write.
    Abandoned,
    /// It failed, or was cancelled: by who asked for it, or because the database closes. It leaves nothing behind.
    Failed,
}

/// What a job has done, as far as it came: one that failed or was cancelled has read, and perhaps written, for nothing. Of such
/// a merge the bytes are estimates, and what it did in its last hundred entries may be left out of those that it wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Work {
    /// Bytes of the tables that it read; none of what it only moved or dropped.
    pub read_bytes: u64,
    /// Bytes of the tables that it wrote.
    pub written_bytes: u64,
    /// Tables that it wrote.
    pub tables: u64,
    /// In how many parts, side by side if there were threads for it.
    pub parts: u64,
    /// How many of them others than its leader wrote: it began on one thread, others had time.
    pub helped: u64,
    /// What became of the entries that it read: how many were kept, and how many dropped for which cause.
    pub entries: Collected,
    /// Entries that it dropped unread because the keyspace had grown past
    /// [`fifo_bytes_max`](crate::KeyspaceOptions::fifo_bytes_max).
    pub dropped_for_size: u64,
    /// Entries that it dropped unread because they were past [`fifo_age_max`](crate::KeyspaceOptions::fifo_age_max).
    pub dropped_for_age: u64,
}

/// Something that happened.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Sealed memtables begin to be written as tables.
    #[non_exhaustive]
    FlushBegun {
        /// The job.
        job: u64,
        /// The keyspace.
        keyspace: &'a str,
        /// How many memtables it takes.
        memtables: usize,
    },
    /// A flush has ended.
    #[non_exhaustive]
    FlushEnded {
        /// The job.
        job: u64,
        /// The keyspace.
        keyspace: &'a str,
        /// How.
        ending: Ending,
        /// What it did.
        work: Work,
        /// How long it had been due when it began, with no running job in its way.
        queued: Duration,
        /// From its beginning.
        took: Duration,
    },
    /// A plan begins to be carried out.
    #[non_exhaustive]
    CompactionBegun {
        /// The job.
        job: u64,
        /// The keyspace.
        keyspace: &'a str,
        /// What it takes, where its entries come out, and why.
        plan: &'a Plan,
    },
    /// A compaction has ended.
    #[non_exhaustive]
    CompactionEnded {
        /// The job.
        job: u64,
        /// The keyspace.
        keyspace: &'a str,
        /// What it took.
        plan: &'a Plan,
        /// How.
        ending: Ending,
        /// What it did.
        work: Work,
        /// How long it had been due when it began, with no running job in its way.
        queued: Duration,
        /// From its beginning.
        took: Duration,
    },
    /// The manifest names a table that was written.
    #[non_exhaustive]
    TableCreated {
        /// The job that wrote it.
        job: u64,
        /// The table.
        table: u64,
        /// The level that it joined.
        level: u8,
        /// Bytes of its file.
        bytes: u64,
    },
    /// The file of a table is gone: nobody held it and the manifest did not name it.
    #[non_exhaustive]
    TableDeleted {
        /// The table.
        table: u64,
    },
    /// The edit of a job is durable.
    #[non_exhaustive]
    ManifestEdited {
        /// The job.
        job: u64,
        /// Tables that the manifest names from now on, or in another place.
        added: usize,
        /// Tables that it names no more, or in another place.
        removed: usize,
    },
    /// A writer waits at a hard limit (P10). On its thread.
    #[non_exhaustive]
    StallBegun {
        /// The keyspace that it writes to.
        keyspace: &'a str,
        /// The limit; `None` if there is room again, and others stand in the queue before it.
        cause: Option<Debt>,
    },
    /// The writer goes on, or has failed. On its thread.
    #[non_exhaustive]
    StallEnded {
        /// The keyspace that it writes to.
        keyspace: &'a str,
        /// As at its beginning.
        cause: Option<Debt>,
        /// How long it waited.
        took: Duration,
    },
    /// A background job failed. If it may succeed later it is tried again.
    #[non_exhaustive]
    BackgroundError {
        /// Why.
        error: &'a Error,
    },
}

/// Draws the event in a line, as logs and [`Timeline`] show it.
impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |cause: &Option<Debt>| cause.map_or("the queue".to_owned(), |debt| debt.to_string());
        match self {
            Self::FlushBegun { job, keyspace, memtables } => {
                write!(f, "job {job} flush begins: {keyspace}, {memtables} memtables")
            }
            Self::FlushEnded { job, keyspace, ending, work, queued, took } => {
                write!(f, "job {job} flush ends: {keyspace}, {ending}, {work}, {took:?} after {queued:?} in the queue")
            }
            Self::CompactionBegun { job, keyspace, plan } => {
                write!(f, "job {job} compaction begins: {keyspace}, {plan}")
            }
            Self::CompactionEnded { job, keyspace, ending, work, queued, took, .. } => {
                write!(
                    f,
                    "job {job} compaction ends: {keyspace}, {ending}, {work}, {took:?} after {queued:?} in the queue"
                )
            }
            Self::TableCreated { job, table, level, bytes } => {
                write!(f, "job {job} table created: t{table} in L{level}, {bytes} bytes")
            }
            Self::TableDeleted { table } => write!(f, "table deleted: t{table}"),
            Self::ManifestEdited { job, added, removed } => {
                write!(f, "job {job} manifest edited: {added} tables in, {removed} out")
            }
            Self::StallBegun { keyspace, cause } => write!(f, "stall begins: {keyspace}, {}", limit(cause)),
            Self::StallEnded { keyspace, cause, took } => {
                write!(f, "stall ends: {keyspace}, {}, {took:?}", limit(cause))
            }
            Self::BackgroundError { error } => write!(f, "background error: {error}"),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Installed => "installed",
            Self::Abandoned => "abandoned",
            Self::Failed => "failed",
        })
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Collected { hidden, tombstones, duplicates, .. } = self.entries;
        write!(
            f,
            "{} bytes in, {} bytes in {} tables out, dropped {hidden} hidden, {tombstones} tombstones, {duplicates} twice",
            self.read_bytes, self.written_bytes, self.tables
        )?;
        let (for_size, for_age) = (self.dropped_for_size, self.dropped_for_age);
        if for_size + for_age > 0 {
            write!(f, ", {for_size} for size, {for_age} for age")?;
        }
        if self.parts > 1 { write!(f, ", in {} parts", self.parts) } else { Ok(()) }
    }
}

/// Told what happens, on the thread where it happens: a worker's, or a writer's for stalls.
///
/// It is called without any lock of the engine held that reads, writes or jobs take, so it may read and write the database. What
/// it takes, the job or the writer takes longer. A panic is caught and logged.
///
/// Jobs wait for it, and so may everybody who waits for them. Therefore nothing that it calls of the same database waits
/// for jobs or runs one:
///
/// - A write is never delayed, and where it would have to wait it is refused at once: at a hard limit with
///   [`Error::InListener`], if there is no memory with [`Error::MemoryFull`]. A listener that tells of a stall in the keyspace
///   that stalls, or while the log is too long, will meet that; one that cannot go without hands what it has to say to
///   another thread.
/// - Flushing, compacting, waiting for idleness, running a job, suspending jobs and closing answer [`Error::InListener`]. A
///   flush is begun all the same, by the background.
///
/// It must not drop the last handle of the database, which closes it. Whatever comes of its own calls is told to no listener.
/// Another database may be used without restriction.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use lsm_facade::{Database, Event, EventListener};
///
/// #[derive(Debug, Default)]
/// struct Flushed(AtomicU64);
///
/// impl EventListener for Flushed {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::FlushEnded { work, .. } = event {
///             self.0.fetch_add(work.written_bytes, Ordering::Relaxed);
///         }
///     }
/// }
///
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let flushed = Arc::new(Flushed::default());
/// let database = Database::builder(dir.path()).event_listener(flushed.clone()).open()?;
/// let keyspace = database.keyspace("a")?;
/// keyspace.insert("key", "value")?;
/// keyspace.flush()?;
/// database.close()?;
/// assert!(flushed.0.load(Ordering::Relaxed) > 0);
/// # Ok(())
/// # }
/// ```
pub trait EventListener: fmt::Debug + Send + Sync {
    /// Something has happened.
    fn on_event(&self, event: &Event<'_>);
}

thread_local! {
    /// The databases, by their instance, whose listeners this thread calls just now: one may use another.
    static TELLING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Whether this thread is within a listener of that database.
pub(crate) fn is_telling_here(instance: u64) -> bool {
    TELLING.with_borrow(|telling| telling.contains(&instance))
}

/// A call of listeners, until this is dropped.
struct Telling;

impl Telling {
    /// `None` if this thread is within a listener of that database already.
    fn begin(instance: u64) -> Option<Self> {
        let is_first = !is_telling_here(instance);
        is_first.then(|| {
            TELLING.with_borrow_mut(|telling| telling.push(instance));
            Self
        })
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        TELLING.with_borrow_mut(Vec::pop);
    }
}

/// The listeners of a database.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listeners {
    listeners: Vec<Arc<dyn EventListener>>,
}

impl Listeners {
    pub(crate) fn add(&mut self, listener: Arc<dyn EventListener>) {
        self.listeners.push(listener);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Tells everybody, unless it is a listener of the same database whose call has led to this. No lock of the engine may be
    /// held.
    pub(crate) fn tell(&self, instance: u64, event: &Event<'_>) {
        if self.is_empty() {
            return;
        }
        let Some(_telling) = Telling::begin(instance) else { return };
        for listener in &self.listeners {
            // The listener alone may be left half done, and it is its own.
            if catch_unwind(AssertUnwindSafe(|| listener.on_event(event))).is_err() {
                tracing::error!(%event, ?listener, "an event listener panicked");
            }
        }
    }
}

/// Keeps the newest events, each with its time, and draws the jobs and stalls among them: what compacted when, beside
/// what, and who waited meanwhile.
///
/// Bounded: a new event takes the place of the oldest.
///
/// ```
/// use std::sync::Arc;
/// use lsm_facade::{Database, Environment, Timeline};
///
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let timeline = Arc::new(Timeline::new(Environment::real(), 1000));
/// let database = Database::builder(dir.path()).event_listener(timeline.clone()).open()?;
/// let keyspace = database.keyspace("a")?;
/// keyspace.insert("key", "value")?;
/// keyspace.flush()?;
/// database.close()?;
/// assert!(timeline.table().contains("flush"));
/// assert!(timeline.svg().starts_with("<svg"));
/// # Ok(())
/// # }
/// ```
pub struct Timeline {
    clock: Arc<dyn file_system::Clock>,
    began: Duration,
    events_max: usize,
    kept: Mutex<VecDeque<Kept>>,
    /// Relaxed: a figure.
    forgotten: AtomicU64,
}

/// What is kept of an event.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// When it was told, from when the timeline was made.
    pub(crate) at: Duration,
    pub(crate) line: String,
    pub(crate) bar: Option<Bar>,
}

/// Something that took time and has ended.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) row: Row,
    pub(crate) from: Duration,
    /// How long before that it was due.
    pub(crate) queued: Duration,
    pub(crate) label: String,
}

impl Bar {
    fn due(&self) -> Duration {
        self.from.saturating_sub(self.queued)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Stalls,
    Flushes,
    /// By the level that they write to.
    Compactions(u8),
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stalls => f.write_str("stalls"),
            Self::Flushes => f.write_str("flushes"),
            Self::Compactions(level) => write!(f, "into L{level}"),
        }
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("events_max", &self.events_max).finish_non_exhaustive()
    }
}

impl Timeline {
    /// An empty timeline that keeps `events_max` events, and at least one.
    pub fn new(environment: file_system::Environment, events_max: usize) -> Self {
        let clock = environment.clock;
        let began = clock.monotonic();
        let events_max = events_max.max(1);
        Self { clock, began, events_max, kept: Mutex::default(), forgotten: AtomicU64::new(0) }
    }

    /// A timeline of events that were told before.
    pub(crate) fn told(environment: &file_system::Environment, kept: VecDeque<Kept>, forgotten: u64) -> Self {
        let timeline = Self::new(environment.clone(), kept.len());
        timeline.forgotten.store(forgotten, Ordering::Relaxed);
        Self { kept: Mutex::new(kept), ..timeline }
    }

    /// A line an event, oldest first.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let forgotten = self.forgotten.load(Ordering::Relaxed);
        if forgotten > 0 {
            let _ = writeln!(text, "{forgotten} earlier events are forgotten");
        }
        for Kept { at, line, .. } in self.kept() {
            let _ = writeln!(text, "{:>12.6} {line}", at.as_secs_f64());
        }
        text
    }

    /// Every flush, compaction and stall that has ended as a bar over time, with a line before it for the time that it was
    /// queued: a picture that needs nothing else.
    pub fn svg(&self) -> String {
        let kept = self.kept();
        let bars: Vec<(&Bar, Duration)> = kept.iter().filter_map(|kept| Some((kept.bar.as_ref()?, kept.at))).collect();
        let mut rows: Vec<Row> = bars.iter().map(|(bar, _)| bar.row).collect();
        rows.sort_unstable();
        rows.dedup();
        let from = bars.iter().map(|(bar, _)| bar.due()).min().unwrap_or_default();
        let to = bars.iter().map(|(_, to)| *to).max().unwrap_or_default();
        let span = to.saturating_sub(from).as_secs_f64().max(1e-9);
        let (left, width, height) = (90.0, 900.0, 28.0);
        let x = |at: Duration| left + at.saturating_sub(from).as_secs_f64() / span * width;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<title>Jobs and stalls over {span:.3} s</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
            left + width + 20.0,
            height * (rows.len() as f64 + 1.5),
        );
        for (index, row) in rows.iter().enumerate() {
            let y = height * (index as f64 + 0.5);
            let color = match row {
                Row::Stalls => "#c2410c",
                Row::Flushes => "#15803d",
                Row::Compactions(_) => "#1d4ed8",
            };
            let _ = writeln!(out, "<text x=\"8\" y=\"{:.0}\">{row}</text>", y + height * 0.6);
            for (bar, to) in bars.iter().filter(|(bar, _)| bar.row == *row) {
                let _ = writeln!(
                    out,
                    "<rect x=\"{:.1}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"{:.0}\" fill=\"{color}\" \
                     fill-opacity=\"0.6\"><title>{}</title></rect>",
                    x(bar.from),
                    (x(*to) - x(bar.from)).max(0.5),
                    height - 6.0,
                    escaped(&bar.label),
                );
                if !bar.queued.is_zero() {
                    let (x1, x2, y) = (x(bar.due()), x(bar.from), y + height * 0.4);
                    let _ = writeln!(
                        out,
                        "<line x1=\"{x1:.1}\" y1=\"{y:.0}\" x2=\"{x2:.1}\" y2=\"{y:.0}\" stroke=\"{color}\"/>"
                    );
                }
            }
        }
        let y = height * (rows.len() as f64 + 1.1);
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        let _ = writeln!(out, "<text x=\"{left:.0}\" y=\"{y:.0}\" fill=\"#555\">{from:.3} s</text>");
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{y:.0}\" fill=\"#555\" text-anchor=\"end\">{to:.3} s</text>\n</svg>",
            left + width
        );
        out
    }

    fn kept(&self) -> VecDeque<Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl EventListener for Timeline {
    fn on_event(&self, event: &Event<'_>) {
        let at = self.clock.monotonic().saturating_sub(self.began);
        let line = event.to_string();
        let ended = match event {
            Event::FlushEnded { took, queued, .. } => Some((Row::Flushes, took, *queued)),
            Event::CompactionEnded { took, queued, plan, .. } => {
                Some((Row::Compactions(plan.output_level.get()), took, *queued))
            }
            Event::StallEnded { took, .. } => Some((Row::Stalls, took, Duration::ZERO)),
            _ => None,
        };
        let bar =
            ended.map(|(row, took, queued)| Bar { row, from: at.saturating_sub(*took), queued, label: line.clone() });
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == self.events_max {
            kept.pop_front();
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        kept.push_back(Kept { at, line, bar });
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
