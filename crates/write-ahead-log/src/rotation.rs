//! Segments before and behind the current one: made ready ahead, passed by the floor, written over or removed.
//!
//! ```text
//!   segments:  floor ── sealed ── sealed ── current ── (prepared)          recycled, retired
//!              ▲ replay begins     synced in the background ▲ stores        ▲ to be written over
//! ```
//!
//! - **L1** A segment and its name are durable before a seal names it: [`Log::prepare_segment`] makes it, off the lock.
//! - **L5** A segment is recycled only when nobody holds it: no backup, and no reservation either.
//! - **P8** A segment that cannot be made changes nothing.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use file_system::traits::TEMPORARY_PREFIX;
use file_system::{Environment, FileError};
use internal_key::{SegmentId, SeqNo};

use crate::log::lock;
use crate::position::{parse_segment_file_name, segment_path};
use crate::reader::read_segment_header;
use crate::segment::{HeaderFault, SEGMENT_HEADER_BYTES, Segment};
use crate::tail::{Handles, handles_on};
use crate::{Log, LogError, LogOptions, LogPosition, LogTail, SegmentName};

/// Makes durable, in the manifest, what may become the first segment of a log that is
/// [created later](Log::create_later), and the smallest id that no segment has had. Called by one thread at a time, which holds
/// no lock that a reservation takes.
pub type NameFirst = Box<dyn Fn(SegmentName, SegmentId) -> Result<(), NotNamed> + Send + Sync>;

/// Why a [first segment](NameFirst) could not be named.
#[derive(Debug, Clone)]
pub struct NotNamed {
    /// What failed.
    pub cause: Arc<dyn std::error::Error + Send + Sync>,
    /// Whether it is certain that nothing names the segment (P8).
    pub is_certain: bool,
}

pub(crate) struct State {
    /// Oldest first; the last is current. Never empty: a log that has not begun has one that is [nowhere](Segment::nowhere).
    pub(crate) live: VecDeque<LiveSegment>,
    /// Durable, empty, and named by no seal; by the manifest, if it is to be the first.
    pub(crate) prepared: Option<(Arc<Segment>, Handles)>,
    pub(crate) next_id: SegmentId,
    /// How often what was prepared was given up because another is wanted. Who makes one that is no longer wanted begins anew.
    pub(crate) given_up: u64,
    /// What the next segment to be prepared must have room for: what a reservation wanted that found none, or too short a one.
    pub(crate) needed_bytes: u64,
    /// Before the floor, but held by a backup or a reservation; or prepared, and given up: that may be what the floor names.
    pub(crate) retired: Vec<Arc<Segment>>,
    /// Before the floor, to be written over.
    pub(crate) recycled: Vec<Spare>,
    /// Before the floor, to be removed.
    pub(crate) doomed: Vec<PathBuf>,
}

impl State {
    /// Whether there is a segment that records are in, or were meant for.
    pub(crate) fn has_begun(&self) -> bool {
        self.live.back().is_none_or(|live| !live.segment.is_nowhere())
    }

    /// The sum of the lengths of all live segments.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live.iter().map(|live| live.segment.bytes).sum()
    }
}

/// What came of making a segment.
#[derive(PartialEq, Eq)]
enum Made {
    /// One is ready.
    Ready,
    /// It was given up before it was there.
    Unwanted,
}

/// A file to be written over, and its length.
pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    bytes: u64,
}

pub(crate) struct LiveSegment {
    pub(crate) segment: Arc<Segment>,
    /// No record in it has a smaller sequence number.
    pub(crate) first_seqno: SeqNo,
}

/// What [`Log::recycle_before`] and [`Log::remove_unnamed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recycled {
    /// Segments kept to be written over.
    pub kept: usize,
    /// Segments removed.
    pub removed: usize,
    /// Segments before the floor that somebody still holds.
    pub held: usize,
}

/// Keeps every segment that was live when it was taken from being recycled or removed: for backups (L5).
#[derive(Debug)]
pub struct LogPin {
    segments: Vec<Arc<Segment>>,
    dir: PathBuf,
}

impl LogPin {
    /// The pinned segments, oldest first, with their paths.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentName, PathBuf)> {
        self.segments.iter().map(|segment| (segment.name, segment_path(&self.dir, segment.name.id)))
    }
}

impl Log {
    /// Whether no segment is ready and `tail` has come so far that one should be: past a quarter of the current one, so that
    /// a small database takes the space of one segment and not of two, and a large one never waits.
    pub fn wants_segment(&self, tail: &LogTail) -> bool {
        // Small segments are used up sooner than the background looks again.
        const ALWAYS_BYTES: u64 = 2 << 20;
        let is_due = tail.bytes <= ALWAYS_BYTES || tail.offset > tail.bytes / 4;
        // The first segment is made by who has a record for it.
        let is_due = is_due && tail.bytes > 0;
        is_due && lock(&self.shared.state).prepared.is_none()
    }

    /// Makes the next segment ready, out of a recycled file or a new one. Does nothing if one is ready. Several files'
    /// worth of I/O: never under the reservation lock.
    ///
    /// # Errors
    /// [`LogError::NotPrepared`] (certain, P8); [`LogError::NotNamed`] if it is to be the first one; [`LogError::Failed`] if the
    /// log has failed.
    pub fn prepare_segment(&self) -> Result<(), LogError> {
        let _one_at_a_time = lock(&self.shared.preparing);
        while self.make_segment()? == Made::Unwanted {}
        Ok(())
    }

    /// Makes the segment that is wanted now. The caller holds `preparing`.
    fn make_segment(&self) -> Result<Made, LogError> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let (id, bytes, recycled, is_first, given_up) = {
            let mut state = lock(&self.shared.state);
            if state.prepared.is_some() {
                return Ok(Made::Ready);
            }
            // An id is used up even if making the segment fails: ids are never reused (L4).
            let id = state.next_id;
            state.next_id = SegmentId(id.get() + 1);
            let needed = std::mem::take(&mut state.needed_bytes);
            let bytes = self.shared.maker.options.segment_bytes_after(state.live_bytes(), needed);
            let fits = |spare: &Spare| spare.bytes >= needed && spare.bytes * 2 >= bytes;
            let recycled = match state.recycled.iter().position(fits) {
                Some(at) => Some(state.recycled.swap_remove(at).path),
                None => {
                    // The log has outgrown them.
                    let State { recycled, doomed, .. } = &mut *state;
                    doomed.extend(recycled.drain(..).map(|spare| spare.path));
                    None
                }
            };
            (id, bytes, recycled, !state.has_begun(), state.given_up)
        };
        let segment = match self.shared.maker.make(id, bytes, recycled.as_deref()) {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                // It may still stand under its old name.
                lock(&self.shared.state).doomed.extend(recycled);
                return Err(LogError::NotPrepared { cause: Arc::new(error) });
            }
        };
        if is_first && !planted_faults::planted("log-first-segment-used-without-a-name") {
            self.name_first(&segment)?;
        }
        self.populate(&segment, 0);
        let handles = handles_on(&segment);
        {
            let mut state = lock(&self.shared.state);
            if state.given_up != given_up && !planted_faults::planted("log-made-for-an-older-wish") {
                drop(handles);
                state.retired.push(segment);
                return Ok(Made::Unwanted);
            }
            state.prepared = Some((segment, handles));
        }
        self.give_up_doomed();
        Ok(Made::Ready)
    }

    /// Removes what is to be removed; what cannot be now is by the next call.
    fn give_up_doomed(&self) {
        if let Err(error) = self.give_up(Vec::new(), Recycled::default()) {
            tracing::warn!(%error, "log segments that are of no use stay behind for now");
        }
    }

    /// Has the manifest name what may become the first segment of the log (M6).
    fn name_first(&self, segment: &Segment) -> Result<(), LogError> {
        let name_first = self.shared.name_first.as_ref().expect("M6: a log that begins later is named when it begins");
        name_first(segment.name, self.next_segment_id()).map_err(|NotNamed { cause, is_certain }| {
            if is_certain {
                lock(&self.shared.state).doomed.push(segment_path(&self.shared.maker.dir, segment.name.id));
                self.give_up_doomed();
            }
            LogError::NotNamed { cause, is_certain }
        })?;
        let mut state = lock(&self.shared.state);
        // What was named before and did not do: nothing leads on from it, should the manifest be lost.
        for segment in std::mem::take(&mut state.retired) {
            match Arc::try_unwrap(segment) {
                Ok(shorter) if planted_faults::planted("log-outgrown-first-segment-stays") => {
                    state.retired.push(Arc::new(shorter));
                }
                Ok(shorter) => state.doomed.push(segment_path(&self.shared.maker.dir, shorter.name.id)),
                Err(held) => state.retired.push(held),
            }
        }
        drop(state);
        // Nothing is before it.
        self.shared.durable.raise(LogPosition::new(segment.name.id, SEGMENT_HEADER_BYTES as u64));
        Ok(())
    }

    /// Touches the pages of the current segment up to a window behind `position`, so that no store faults (**L1**). For
    /// the background, when [`LogTail::wants_populate`] says so.
    pub fn populate_ahead(&self, position: LogPosition) {
        let segment = {
            let state = lock(&self.shared.state);
            let live = state.live.iter().rev().map(|live| &live.segment);
            live.into_iter().find(|segment| segment.name.id == position.segment).cloned()
        };
        if let Some(segment) = segment {
            self.populate(&segment, position.offset);
        }
    }

    fn populate(&self, segment: &Segment, offset: u64) {
        let Some(file) = &segment.file else { return };
        let until = (offset + self.shared.maker.options.populate_bytes).min(segment.bytes);
        let from = segment.populated.fetch_max(until, Ordering::Relaxed);
        if from < until {
            file.populate(from, until - from);
        }
    }

    /// The name of the first segment that holds records at or above `oldest_unflushed`: what the manifest's floor may
    /// move to when everything below that sequence number is flushed.
    ///
    /// It is the newest segment none of whose predecessors holds such a record.
    pub fn floor_for(&self, oldest_unflushed: SeqNo) -> SegmentName {
        let state = lock(&self.shared.state);
        let newest = state.live.iter().rev().find(|live| live.first_seqno <= oldest_unflushed);
        newest.or(state.live.front()).expect("L4: a log has a current segment").segment.name
    }

    /// Whether it has a segment for its records: not yet if it was [created to begin later](Self::create_later). Until then
    /// what it says of its segments belongs in no manifest.
    pub fn has_begun(&self) -> bool {
        lock(&self.shared.state).has_begun()
    }

    /// The name of the oldest live segment.
    pub fn first_segment(&self) -> SegmentName {
        lock(&self.shared.state).live.front().expect("L4: a log has a current segment").segment.name
    }

    /// The oldest live segment that has at most `bytes` bytes together with all that follow it; the current one at least. Above
    /// that length the caller flushes what pins the segments before it (**L5**).
    pub fn first_segment_within(&self, bytes: u64) -> SegmentName {
        let state = lock(&self.shared.state);
        let mut left = bytes;
        let mut newest_first = state.live.iter().rev();
        let mut first = newest_first.next().expect("L4: a log has a current segment");
        left = left.saturating_sub(first.segment.bytes);
        for live in newest_first {
            if live.segment.bytes > left {
                break;
            }
            left -= live.segment.bytes;
            first = live;
        }
        first.segment.name
    }

    /// The sum of the lengths of all live segments.
    pub fn total_bytes(&self) -> u64 {
        lock(&self.shared.state).live_bytes()
    }

    /// The smallest id that no segment has had: what the manifest's next segment id should be at least.
    pub fn next_segment_id(&self) -> SegmentId {
        lock(&self.shared.state).next_id
    }

    /// Keeps all live segments from being recycled until the pin is dropped (**L5**).
    pub fn pin(&self) -> LogPin {
        let state = lock(&self.shared.state);
        let live = state.live.iter().filter(|live| !live.segment.is_nowhere());
        let segments = live.map(|live| Arc::clone(&live.segment)).collect();
        LogPin { segments, dir: self.shared.maker.dir.clone() }
    }

    /// Gives up all segments before `floor`. Call only after a manifest that names `floor` is durable (**L5**).
    ///
    /// A segment that a pin or a reservation still holds waits for a later call; one with a second link is only
    /// unlinked; a few others are kept to be written over, the rest are removed. Does I/O, but not under a lock that
    /// writers take.
    ///
    /// # Errors
    /// The first file that could not be removed; it is tried again by the next call.
    ///
    /// # Panics
    /// If `floor` is a live segment's id with another salt (**L5**).
    pub fn recycle_before(&self, floor: SegmentName) -> Result<Recycled, FileError> {
        let mut report = Recycled::default();
        let mut candidates = Vec::new();
        {
            let mut guard = lock(&self.shared.state);
            let state = &mut *guard;
            if let Some(live) = state.live.iter().find(|live| live.segment.name.id == floor.id) {
                assert_eq!(live.segment.name, floor, "L5: the floor is one of our segments");
            }
            while state.live.len() > 1 && state.live.front().is_some_and(|live| live.segment.name.id < floor.id) {
                state.retired.extend(state.live.pop_front().map(|live| live.segment));
            }
            // Before the log has begun these are first ones that were too short. The manifest names the last of them, whichever
            // manifest the floor is of, and who has it name the next gives them up.
            let may_go = state.has_begun() || planted_faults::planted("log-gives-up-what-the-floor-names");
            for segment in if may_go { std::mem::take(&mut state.retired) } else { Vec::new() } {
                // Handles, pins and syncs each count; new ones come only from `live` and from the tail, which have it
                // no more, so that a count of one is final.
                match Arc::try_unwrap(segment) {
                    Ok(segment) => candidates.push((segment.name.id, segment.bytes)),
                    Err(held) if planted_faults::planted("log-recycles-what-is-held") => {
                        candidates.push((held.name.id, held.bytes));
                    }
                    Err(held) => state.retired.push(held),
                }
            }
            report.held = state.retired.len();
        }
        // What is kept has an id before the floor, where no scan for later records looks (L3).
        let candidates = candidates
            .into_iter()
            .map(|(id, bytes)| (segment_path(&self.shared.maker.dir, id), (id < floor.id).then_some(bytes)));
        self.give_up(candidates.collect(), report)
    }

    /// Whether the live segments take more than twice the room of the shortest one: worth
    /// [beginning anew](LogTail::give_up_prepared), if nothing in them is needed.
    pub fn is_long(&self) -> bool {
        self.total_bytes() > 2 * self.shared.maker.options.segment_bytes_after(0, 0)
    }

    /// Removes the files that are kept to be written over.
    ///
    /// # Errors
    /// As [`recycle_before`](Self::recycle_before).
    pub fn give_back(&self) -> Result<Recycled, FileError> {
        {
            let mut guard = lock(&self.shared.state);
            let State { recycled, doomed, .. } = &mut *guard;
            doomed.extend(recycled.drain(..).map(|spare| spare.path));
        }
        self.give_up(Vec::new(), Recycled::default())
    }

    /// Removes or recycles what earlier openings left behind: segments of this database that are neither live nor
    /// prepared, and half-made files. Anything else in the directory is left alone. Call only after the manifest was
    /// committed anew (M2).
    ///
    /// # Errors
    /// The first failure to list, read or remove; calling again is safe.
    pub fn remove_unnamed(&self) -> Result<Recycled, FileError> {
        // No segment is being made meanwhile: its temporary name would look abandoned.
        let _nothing_in_the_making = lock(&self.shared.preparing);
        let maker = &self.shared.maker;
        // The oldest live one comes first.
        let known: Vec<SegmentId> = {
            let state = lock(&self.shared.state);
            let live = state.live.iter().map(|live| live.segment.name.id);
            let prepared = state.prepared.iter().map(|(segment, _)| segment.name.id);
            live.chain(prepared).chain(state.retired.iter().map(|segment| segment.name.id)).collect()
        };
        let waiting: Vec<PathBuf> = {
            let state = lock(&self.shared.state);
            state.recycled.iter().map(|spare| &spare.path).chain(&state.doomed).cloned().collect()
        };
        let mut unnamed = Vec::new();
        for entry in maker.environment.files.read_dir(&maker.dir)? {
            let path = maker.dir.join(&entry.name);
            let temporary = entry.name.strip_prefix(TEMPORARY_PREFIX);
            if temporary.is_some_and(|name| parse_segment_file_name(name).is_some()) {
                unnamed.push((path, None));
            } else if let Some(id) = parse_segment_file_name(&entry.name).filter(|_| !entry.is_dir) {
                if known.contains(&id) || waiting.contains(&path) {
                    continue;
                }
                let file = maker.environment.files.open(&path)?;
                let is_needless = id < known[0];
                match read_segment_header(&*file)? {
                    // Recycled files have ids before the floor, where no scan for later records looks (L3).
                    Ok(header) if header.database_id == maker.database_id => {
                        unnamed.push((path, is_needless.then_some(file.len())));
                    }
                    // One that was being made of a recycled file when the power went: its new header is torn and its new
                    // name lost.
                    Err(HeaderFault::Checksum { .. })
                        if is_needless && !planted_faults::planted("log-torn-spare-left-behind") =>
                    {
                        unnamed.push((path, None));
                    }
                    // Any other header that cannot be read may be anybody's: left alone.
                    _ => {}
                }
            }
        }
        self.give_up(unnamed, Recycled::default())
    }

    /// Keeps or removes each file; `None` as its length means that it cannot be kept.
    fn give_up(&self, files: Vec<(PathBuf, Option<u64>)>, mut report: Recycled) -> Result<Recycled, FileError> {
        let Environment { files: system, .. } = &self.shared.maker.environment;
        let LogOptions { recycled_max, .. } = self.shared.maker.options;
        let longest = self.shared.maker.options.segment_bytes_effective();
        let mut first_error = None;
        for (path, bytes) in files {
            // A second link is a backup's: its bytes must stay as they are (L5).
            let alone = system.link_count(&path).is_ok_and(|links| links == 1);
            let mut state = lock(&self.shared.state);
            match bytes.filter(|&bytes| alone && bytes <= longest) {
                Some(bytes) if state.recycled.len() < recycled_max => {
                    state.recycled.push(Spare { path, bytes });
                    report.kept += 1;
                }
                _ => state.doomed.push(path),
            }
        }
        let doomed = std::mem::take(&mut lock(&self.shared.state).doomed);
        for path in doomed {
            match system.remove_file(&path) {
                Ok(()) => report.removed += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    lock(&self.shared.state).doomed.push(path);
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(report), Err)
    }

    /// Ends the log: removes every segment that nobody holds, and returns how many. Call only after
    /// [`close`](Self::close), and after a manifest that names no floor is durable (**L5**). What stays, because a pin or
    /// a failure keeps it, [`remove_unnamed`](Self::remove_unnamed) removes after the next opening.
    ///
    /// # Errors
    /// The first file that could not be removed; the others are.
    pub fn remove(&self, tail: LogTail) -> Result<usize, FileError> {
        // It holds the current segment.
        drop(tail);
        let files: Vec<(PathBuf, Option<u64>)> = {
            let mut state = lock(&self.shared.state);
            let State { live, retired, recycled, .. } = &mut *state;
            let segments = live.iter().map(|live| &live.segment).chain(&*retired);
            let free = segments.filter(|segment| Arc::strong_count(segment) == 1);
            let free = free.map(|segment| segment_path(&self.shared.maker.dir, segment.name.id));
            free.chain(recycled.drain(..).map(|spare| spare.path)).map(|path| (path, None)).collect()
        };
        self.give_up(files, Recycled::default()).map(|report| report.removed)
    }
}
