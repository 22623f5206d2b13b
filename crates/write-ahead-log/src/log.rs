//! The log being written: reserve under the caller's lock, append in parallel, sync for everybody.
//!
//! ```text
//!   reserve (one at a time)   ─▶ a range, tentative            plain stores, no I/O
//!   accept  (same lock)       ─▶ the range is taken
//!   append  (any thread)      ─▶ payload, then header          two stores into a mapped file
//!   sync_through(logged)      ─▶ older segments, then this     raises the durable claim to `logged`
//!
//!   segments:  floor ── sealed ── sealed ── current ── (prepared)          recycled, retired
//!              ▲ replay begins     synced in the background ▲ stores        ▲ to be written over
//! ```
//!
//! - **P1** A reservation is arithmetic: the next offset, the claim, a handle on the segment.
//! - **L1** A segment and its name are durable before a seal names it: [`Log::prepare_segment`] makes it, off the lock.
//!   The seal is planned by the reservation that no longer fits and stored by that reservation's append, so that even
//!   in the written way nothing is stored under the caller's lock, and a tentative reservation leaves no trace.
//! - **L2** A record carries the claim as loaded when it was reserved.
//! - **L4** Every reservation leaves room for a seal behind itself, so that the log can be cut and sealed at any record.
//! - **L5** A segment is recycled only when nobody holds it: no backup, and no reservation either.
//! - **P7** A sync covers all older segments first, and vouches for the position its caller loaded before.
//! - **P8** The first failed store or sync fails the log for good. A segment that cannot be made changes nothing.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use file_system::traits::TEMPORARY_PREFIX;
use file_system::{Environment, FileError, LogFile};
use internal_key::{SegmentId, SeqNo};

use crate::position::{parse_segment_file_name, segment_path};
use crate::reader::read_segment_header;
use crate::record::{Payload, RECORD_HEADER_BYTES, RecordHeader, RecordKind, SEAL_BYTES, encode_seal, record_bytes};
use crate::segment::{HeaderFault, SEGMENT_HEADER_BYTES, Segment, SegmentMaker, payload_bytes_max, segment_bytes_of};
use crate::sync::{Mutex, MutexGuard};
use crate::{DurableClaim, LogError, LogOptions, LogPosition, ReserveError, SegmentName};

/// The log of a database, shared by all its threads.
///
/// All methods may be called from any thread at any time, except where a [`LogTail`] is asked for. Dropping it closes
/// the files without syncing.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

/// The end of the log, owned by whoever hands out reservations (the commit pipeline's reservation lock guards it).
///
/// Exactly one exists for a [`Log`].
pub struct LogTail {
    shared: Arc<Shared>,
    /// Handles on the current segment, for reservations to take; see [`Handle`].
    handles: Handles,
    name: SegmentName,
    /// Length of the current segment.
    bytes: u64,
    /// Where the next record starts.
    offset: u64,
    /// The smallest sequence number that the next record may have (P1).
    seqno_min: SeqNo,
}

/// A range of the log for one record. Tentative until [`LogTail::accept`]; then it must be appended to, or the log
/// has a hole that no later record can be acknowledged behind (P3).
///
/// Keeps its segment from being recycled until dropped.
#[derive(Debug)]
pub struct Reservation {
    handle: Arc<Handle>,
    offset: u64,
    payload_len: u32,
    first_seqno: SeqNo,
    claim: LogPosition,
    /// The seal of the segment before, if this reservation begins a new one.
    seal: Option<PlannedSeal>,
}

#[derive(Debug)]
struct PlannedSeal {
    handle: Arc<Handle>,
    offset: u64,
}

/// One of several reference counts on the current segment, each on its own cache line: writers on different threads
/// count different ones, so that a reservation writes no line that another processor uses.
#[derive(Debug)]
#[repr(align(128))]
struct Handle {
    segment: Arc<Segment>,
    file: Arc<dyn LogFile>,
}

const HANDLES: usize = 8;
type Handles = [Arc<Handle>; HANDLES];

fn handles_on(segment: &Arc<Segment>) -> Handles {
    std::array::from_fn(|_| {
        let file = segment.file.as_ref().expect("L4: a replayed segment is never appended to");
        Arc::new(Handle { segment: Arc::clone(segment), file: Arc::clone(file) })
    })
}

/// Which of the handles this thread counts.
fn handle_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // Relaxed: any distribution is correct, this one is even.
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % HANDLES;
    }
    MINE.with(|mine| *mine)
}

pub(crate) struct Shared {
    maker: SegmentMaker,
    durable: DurableClaim,
    /// The first failure of a store or sync (P8).
    failure: OnceLock<Arc<FileError>>,
    /// Held while a segment is being made, so that only one is. Before `state`.
    preparing: Mutex<()>,
    /// Held while syncing. Before `state`.
    sync: Mutex<SyncState>,
    /// Never held during I/O.
    state: Mutex<State>,
}

/// A sync of fewer bytes than this goes through their pages as it finds them: to release so few is no cheaper.
const RELEASED_BYTES_MIN: u64 = 16 << 10;

struct SyncState {
    /// Every segment before this one is complete and was synced since.
    clean_before: SegmentId,
    /// Claims do not rise yet (L4).
    claims_held: bool,
}

struct State {
    /// Oldest first; the last is current. Never empty.
    live: VecDeque<LiveSegment>,
    /// Durable, empty, named by nothing yet.
    prepared: Option<(Arc<Segment>, Handles)>,
    next_id: SegmentId,
    /// What the next segment to be prepared must have room for, because a reservation found the prepared one too short.
    needed_bytes: u64,
    /// Before the floor, but held by a backup or a reservation; or prepared, and found too short.
    retired: Vec<Arc<Segment>>,
    /// Before the floor, to be written over.
    recycled: Vec<Spare>,
    /// Before the floor, to be removed.
    doomed: Vec<PathBuf>,
}

impl State {
    /// The sum of the lengths of all live segments.
    fn live_bytes(&self) -> u64 {
        self.live.iter().map(|live| live.segment.bytes).sum()
    }
}

/// A file to be written over, and its length.
struct Spare {
    path: PathBuf,
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
    /// Begins a new log in `dir`, whose first segment gets the id `first`. Creates `dir` if it does not exist and makes
    /// it durable in its parent. Can be interrupted anywhere and simply done again (M6).
    ///
    /// Segments with smaller ids are those of a log that has ended: they are let be, until
    /// [`remove_unnamed`](Self::remove_unnamed) is called.
    ///
    /// `database_id` marks every segment; `first_segment().salt` belongs in the manifest's floor before the first record.
    ///
    /// # Errors
    /// [`LogError::NotEmpty`] if a segment in `dir` with an id of at least `first` holds records;
    /// [`LogError::NotPrepared`] if the directory or segment cannot be made.
    pub fn create(
        environment: &Environment,
        dir: &Path,
        database_id: u128,
        options: LogOptions,
        first: SegmentId,
    ) -> Result<(Self, LogTail), LogError> {
        let certain = |error| LogError::NotPrepared { cause: Arc::new(error) };
        environment.files.create_dir(dir).map_err(certain)?;
        if let Some(parent) =
            dir.parent().filter(|_| !planted_faults::planted("log-directory-not-synced-in-its-parent"))
        {
            environment.files.sync_dir(parent).map_err(certain)?;
        }
        let holds_records = crate::reader::holds_records(environment, dir, first);
        if let Some(path) = holds_records.map_err(|error| LogError::Io(Arc::new(error)))? {
            return Err(LogError::NotEmpty { path });
        }
        let maker = SegmentMaker { environment: environment.clone(), dir: dir.to_owned(), database_id, options };
        let bytes = options.segment_bytes_after(0, 0);
        let segment = Arc::new(maker.make(first, bytes, None).map_err(certain)?);
        let start = LogPosition::new(first, SEGMENT_HEADER_BYTES as u64);
        let live = VecDeque::from([LiveSegment { segment, first_seqno: SeqNo::ZERO }]);
        Ok(Self::begin(maker, live, DurableClaim::new(start), false))
    }

    /// A log whose current segment is the last of `live`, and empty.
    pub(crate) fn begin(
        maker: SegmentMaker,
        live: VecDeque<LiveSegment>,
        durable: DurableClaim,
        claims_held: bool,
    ) -> (Self, LogTail) {
        let current = live.back().expect("L4: a log has a current segment");
        let (name, bytes, seqno_min) = (current.segment.name, current.segment.bytes, current.first_seqno);
        let handles = handles_on(&current.segment);
        let state = State {
            live,
            prepared: None,
            next_id: SegmentId(name.id.get() + 1),
            needed_bytes: 0,
            retired: Vec::new(),
            recycled: Vec::new(),
            doomed: Vec::new(),
        };
        let shared = Arc::new(Shared {
            maker,
            durable,
            failure: OnceLock::new(),
            preparing: Mutex::new(()),
            sync: Mutex::new(SyncState { clean_before: name.id, claims_held }),
            state: Mutex::new(state),
        });
        let offset = SEGMENT_HEADER_BYTES as u64;
        let tail = LogTail { shared: Arc::clone(&shared), handles, name, bytes, offset, seqno_min };
        (Self { shared }, tail)
    }

    /// Finds a range for a record of `payload_len` bytes of payload whose first entry gets `first_seqno`.
    ///
    /// Nothing changes but what is to be prepared: the caller may drop the reservation, or take it with
    /// [`LogTail::accept`] before the next reservation is made. No I/O, no allocation, and no lock unless a segment is full.
    ///
    /// # Errors
    /// [`ReserveError`]; nothing changed.
    ///
    /// # Panics
    /// If `first_seqno` is not above that of every data record accepted before (P1), or `tail` belongs to another log.
    #[inline]
    pub fn reserve(&self, tail: &LogTail, payload_len: usize, first_seqno: SeqNo) -> Result<Reservation, ReserveError> {
        assert!(Arc::ptr_eq(&self.shared, &tail.shared), "P1: the tail of another log");
        assert!(first_seqno >= tail.seqno_min, "P1: {first_seqno} after {} was due", tail.seqno_min);
        let room = record_bytes(payload_len as u64) + u64::from(SEAL_BYTES);
        if tail.offset + room > tail.bytes {
            return self.reserve_in_next_segment(tail, payload_len, first_seqno);
        }
        Ok(Reservation {
            handle: Arc::clone(&tail.handles[handle_of_this_thread()]),
            offset: tail.offset,
            // It fits a segment, and a segment is at most 2 GiB.
            payload_len: payload_len as u32,
            first_seqno,
            claim: self.shared.durable.load(),
            seal: None,
        })
    }

    #[cold]
    fn reserve_in_next_segment(
        &self,
        tail: &LogTail,
        payload_len: usize,
        first_seqno: SeqNo,
    ) -> Result<Reservation, ReserveError> {
        let mut guard = lock(&self.shared.state);
        let state = &mut *guard;
        let segment_bytes_max = self.shared.maker.options.segment_bytes_effective();
        let longest = payload_bytes_max(segment_bytes_max);
        if payload_len as u64 > longest {
            return Err(ReserveError::TooLarge { payload_bytes: payload_len as u64, payload_bytes_max: longest });
        }
        if let Some((segment, _)) = &state.prepared
            && payload_len as u64 > payload_bytes_max(segment.bytes)
        {
            // A longer one takes its place; it holds no record, and nothing names it.
            state.needed_bytes = segment_bytes_of(payload_len as u64);
            state.retired.extend(state.prepared.take().map(|(segment, _)| segment));
        }
        let Some((_, handles)) = &state.prepared else { return Err(ReserveError::NoSegmentReady) };
        let mine = handle_of_this_thread();
        Ok(Reservation {
            handle: Arc::clone(&handles[mine]),
            offset: SEGMENT_HEADER_BYTES as u64,
            payload_len: payload_len as u32,
            first_seqno,
            claim: self.shared.durable.load(),
            seal: Some(PlannedSeal { handle: Arc::clone(&tail.handles[mine]), offset: tail.offset }),
        })
    }

    /// Stores the record: payload first, header last. Any number of threads append at once, in any order.
    ///
    /// When it returns the record survives the death of the process, if all before it were appended too; about 30 ns
    /// for 140 bytes, mapped and populated.
    ///
    /// # Errors
    /// [`LogError::Failed`] if a store fails now or any store or sync failed before (P8).
    ///
    /// # Panics
    /// If the payload has not the reserved length.
    #[inline]
    pub fn append(&self, reservation: &Reservation, payload: &Payload<'_>) -> Result<(), LogError> {
        assert!(payload.bytes().len() == reservation.payload_len as usize, "P1: the payload has the reserved length");
        if let Some(cause) = self.shared.failure.get() {
            return Err(LogError::Failed { cause: Arc::clone(cause) });
        }
        if let Some(seal) = &reservation.seal {
            let successor = encode_seal(reservation.handle.segment.name);
            let payload = Payload::of_any_kind(RecordKind::Seal, &successor);
            self.store(&seal.handle, seal.offset, reservation.first_seqno, reservation.claim, &payload)?;
        }
        let Reservation { handle, offset, first_seqno, claim, .. } = reservation;
        self.store(handle, *offset, *first_seqno, *claim, payload)
    }

    #[inline]
    fn store(
        &self,
        handle: &Handle,
        offset: u64,
        first_seqno: SeqNo,
        claim: LogPosition,
        payload: &Payload<'_>,
    ) -> Result<(), LogError> {
        let name = handle.segment.name;
        let header = RecordHeader {
            position: LogPosition::new(name.id, offset),
            kind: payload.kind(),
            first_seqno,
            claim,
            payload_len: payload.bytes().len() as u32,
            payload_crc: payload.crc(),
        };
        let header = header.encode(name.salt);
        let stored = (handle.file.store(offset + RECORD_HEADER_BYTES as u64, payload.bytes()))
            .and_then(|()| handle.file.store(offset, &header));
        stored.map_err(|error| self.fail(error))
    }

    /// Makes everything before `position` durable: older segments first, then the position's.
    ///
    /// `position` is `logged` as the caller loaded it before this call (P7): everything before it has been appended.
    /// On success [`durable`](Self::durable) is at least `position`, unless claims are held. One caller syncs at a time;
    /// one that finds its position durable returns at once.
    ///
    /// # Errors
    /// [`LogError::Failed`]: a sync failed now or before. It is never tried again (P8).
    pub fn sync_through(&self, position: LogPosition) -> Result<(), LogError> {
        let mut sync = lock(&self.shared.sync);
        if self.durable() >= position {
            return Ok(());
        }
        let first =
            if planted_faults::planted("log-older-segments-not-synced") { position.segment } else { sync.clean_before };
        self.sync_segments(first..=position.segment, position)?;
        sync.clean_before = sync.clean_before.max(position.segment);
        if !sync.claims_held || planted_faults::planted("log-held-claims-rise") {
            self.shared.durable.raise(position);
        }
        Ok(())
    }

    /// Makes every segment before the one that `logged` lies in durable, and raises the claim to that one's start. For
    /// the background: sealed segments should be clean before somebody waits for them (**L1**).
    ///
    /// `logged` is as in [`sync_through`](Self::sync_through).
    ///
    /// # Errors
    /// As [`sync_through`](Self::sync_through).
    pub fn sync_sealed(&self, logged: LogPosition) -> Result<(), LogError> {
        let mut sync = lock(&self.shared.sync);
        if sync.clean_before >= logged.segment {
            return Ok(());
        }
        if !planted_faults::planted("log-sealed-segments-taken-for-synced") {
            self.sync_segments(sync.clean_before..=SegmentId(logged.segment.get() - 1), logged)?;
        }
        sync.clean_before = logged.segment;
        if !sync.claims_held {
            // Nothing before the first record of a segment is not in an older one.
            self.shared.durable.raise(LogPosition::new(logged.segment, SEGMENT_HEADER_BYTES as u64));
        }
        Ok(())
    }

    /// Syncs the live segments of a range of ids, oldest first, of which `logged` says how much is stored. The caller holds `sync`.
    fn sync_segments(&self, ids: std::ops::RangeInclusive<SegmentId>, logged: LogPosition) -> Result<(), LogError> {
        if let Some(cause) = self.shared.failure.get() {
            return Err(LogError::Failed { cause: Arc::clone(cause) });
        }
        let segments: Vec<_> = {
            let state = lock(&self.shared.state);
            let live = state.live.iter().map(|live| &live.segment);
            live.filter(|segment| ids.contains(&segment.name.id)).cloned().collect()
        };
        let durable = self.durable();
        for (id, file) in segments.iter().filter_map(|segment| Some((segment.name.id, segment.file.as_ref()?))) {
            if planted_faults::planted("log-not-synced") {
                continue;
            }
            // What is stored since the last sync is dirty, and so is what was populated ahead.
            let from = if id == durable.segment { durable.offset } else { 0 };
            let to = if id == logged.segment { logged.offset } else { file.len() };
            if to.saturating_sub(from) >= RELEASED_BYTES_MIN {
                file.release(from, file.len() - from);
            }
            file.sync().map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Everything before this is durable (L2). Never falls.
    #[inline]
    pub fn durable(&self) -> LogPosition {
        self.shared.durable.load()
    }

    /// Whether claims are held since recovery found records beyond the last claim (**L4**): `Synced` commits and
    /// installs wait until an edit that moves the floor to the successor is durable and
    /// [`release_claims`](Self::release_claims) was called.
    pub fn holds_claims(&self) -> bool {
        lock(&self.shared.sync).claims_held
    }

    /// Lets claims rise from the next sync on. Call once the edit that flushes all replayed records and moves the floor
    /// to [`resume`](Self::resume)'s successor is durable (**L4**).
    pub fn release_claims(&self) {
        lock(&self.shared.sync).claims_held = false;
    }

    /// The first failure, if the log has failed (P8).
    pub fn failure(&self) -> Option<LogError> {
        self.shared.failure.get().map(|cause| LogError::Failed { cause: Arc::clone(cause) })
    }

    /// Whether no segment is ready and `tail` has come so far that one should be: past a quarter of the current one, so that
    /// a small database takes the space of one segment and not of two, and a large one never waits.
    pub fn wants_segment(&self, tail: &LogTail) -> bool {
        // Small segments are used up sooner than the background looks again.
        const ALWAYS_BYTES: u64 = 2 << 20;
        let is_due = tail.bytes <= ALWAYS_BYTES || tail.offset > tail.bytes / 4;
        is_due && lock(&self.shared.state).prepared.is_none()
    }

    /// Makes the next segment ready, out of a recycled file or a new one. Does nothing if one is ready. Several files'
    /// worth of I/O: never under the reservation lock.
    ///
    /// # Errors
    /// [`LogError::NotPrepared`] (certain, P8); [`LogError::Failed`] if the log has failed.
    pub fn prepare_segment(&self) -> Result<(), LogError> {
        let _one_at_a_time = lock(&self.shared.preparing);
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let (id, bytes, recycled) = {
            let mut state = lock(&self.shared.state);
            if state.prepared.is_some() {
                return Ok(());
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
            (id, bytes, recycled)
        };
        let segment = match self.shared.maker.make(id, bytes, recycled.as_deref()) {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                // It may still stand under its old name.
                lock(&self.shared.state).doomed.extend(recycled);
                return Err(LogError::NotPrepared { cause: Arc::new(error) });
            }
        };
        self.populate(&segment, 0);
        let handles = handles_on(&segment);
        lock(&self.shared.state).prepared = Some((segment, handles));
        if let Err(error) = self.give_up(Vec::new(), Recycled::default()) {
            tracing::warn!(%error, "log segments that the log has outgrown stay behind for now");
        }
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

    /// The name of the oldest live segment.
    pub fn first_segment(&self) -> SegmentName {
        lock(&self.shared.state).live.front().expect("L4: a log has a current segment").segment.name
    }

    /// The sum of the lengths of all live segments. Above a limit the caller flushes the keyspace that pins the floor
    /// (**L5**).
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
        let segments = state.live.iter().map(|live| Arc::clone(&live.segment)).collect();
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
            for segment in std::mem::take(&mut state.retired) {
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

    /// Writes an end record, syncs everything and returns the durable claim, which a clean close commits to the manifest
    /// (**L3**): the log's end, unless claims are still held.
    ///
    /// `next_seqno` exceeds every sequence number in the log: should the end record begin a segment, nobody must think that
    /// a later entry of the last batch lies in it ([`floor_for`](Self::floor_for)). Every accepted reservation must have been
    /// appended. Removes the prepared segment.
    ///
    /// # Errors
    /// [`LogError`]; the log is then as if the process had died.
    pub fn close(&self, tail: &mut LogTail, next_seqno: SeqNo) -> Result<LogPosition, LogError> {
        let next_seqno =
            if planted_faults::planted("log-end-numbered-within-the-last-batch") { tail.seqno_min } else { next_seqno };
        let reservation = loop {
            match self.reserve(tail, 0, next_seqno) {
                Ok(reservation) => break reservation,
                Err(ReserveError::NoSegmentReady) => self.prepare_segment()?,
                Err(ReserveError::TooLarge { .. }) => unreachable!("L4: the smallest segment holds an end record"),
            }
        };
        tail.take(&reservation, reservation.first_seqno);
        self.append(&reservation, &Payload::of_any_kind(RecordKind::End, &[]))?;
        self.sync_through(tail.next_end())?;
        // Nothing names the prepared segment; without it the next opening has nothing to scan.
        let prepared = lock(&self.shared.state).prepared.take();
        if let Some((segment, handles)) = prepared {
            let path = segment_path(&self.shared.maker.dir, segment.name.id);
            drop((segment, handles));
            if let Err(error) = self.shared.maker.environment.files.remove_file(&path) {
                tracing::warn!(%error, "a prepared log segment stays behind until the next opening");
            }
        }
        Ok(self.durable())
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

    /// Remembers the first failure and returns it, whichever it was.
    #[cold]
    fn fail(&self, error: FileError) -> LogError {
        let cause = self.shared.failure.get_or_init(|| {
            tracing::error!(%error, "the log failed");
            Arc::new(error)
        });
        LogError::Failed { cause: Arc::clone(cause) }
    }
}

impl LogTail {
    /// Takes the range that `reservation` found. Plain stores, unless it begins a new segment.
    ///
    /// # Panics
    /// If the reservation was not the last one made from this tail as it is now (P1).
    #[inline]
    pub fn accept(&mut self, reservation: &Reservation) {
        let after = reservation.first_seqno.checked_add(1).expect("P1: sequence numbers are not exhausted");
        self.take(reservation, after);
    }

    #[inline]
    fn take(&mut self, reservation: &Reservation, seqno_min: SeqNo) {
        match &reservation.seal {
            None => assert!(
                reservation.offset == self.offset && reservation.handle.segment.name == self.name,
                "P1: reservations are accepted in order"
            ),
            Some(seal) => self.move_on(seal, reservation),
        }
        self.offset = reservation.end().offset;
        self.seqno_min = seqno_min;
    }

    #[cold]
    fn move_on(&mut self, seal: &PlannedSeal, reservation: &Reservation) {
        assert!(
            seal.offset == self.offset && seal.handle.segment.name == self.name,
            "P1: reservations are accepted in order"
        );
        let mut state = lock(&self.shared.state);
        let (segment, handles) = state.prepared.take().expect("L1: the successor stays ready until it is taken");
        assert_eq!(segment.name, reservation.handle.segment.name, "L1: the successor is the one that was reserved");
        (self.name, self.bytes, self.handles) = (segment.name, segment.bytes, handles);
        state.live.push_back(LiveSegment { segment, first_seqno: reservation.first_seqno });
    }

    /// Lets the next segment be prepared as if none were, and keeps no others: a short one, if the live ones are few. For
    /// a log that holds nothing that is needed: [`Log::prepare_segment`], then [`end_segment`](Self::end_segment) lets the
    /// next record begin that segment, and once a floor that names it is durable, [`Log::give_back`] leaves it alone on the
    /// disk. Asked of the tail, so that no reservation is on its way into the segment that is given up (P1).
    pub fn give_up_prepared(&mut self) {
        let mut guard = lock(&self.shared.state);
        let state = &mut *guard;
        state.retired.extend(state.prepared.take().map(|(segment, _)| segment));
        state.doomed.extend(state.recycled.drain(..).map(|spare| spare.path));
    }

    /// Lets the next record begin the next segment, if one is ready: a log is not to wait for room that it does not need.
    pub fn end_segment(&mut self) {
        if lock(&self.shared.state).prepared.is_some() {
            // L4: behind every record there is room for a seal, which is all that is stored there now.
            self.bytes = self.offset;
        }
    }

    /// Where the next record will start: the end of every accepted reservation (P7).
    #[inline]
    pub fn next_end(&self) -> LogPosition {
        LogPosition::new(self.name.id, self.offset)
    }

    /// Whether the populated window is more than half used up: time for [`Log::populate_ahead`] with
    /// [`next_end`](Self::next_end).
    #[inline]
    pub fn wants_populate(&self) -> bool {
        let half = self.shared.maker.options.populate_bytes / 2;
        // Relaxed: advice only.
        let populated = self.handles[0].segment.populated.load(Ordering::Relaxed);
        populated < self.bytes && self.offset + half > populated
    }
}

impl Reservation {
    /// Where the record starts.
    pub fn start(&self) -> LogPosition {
        LogPosition::new(self.handle.segment.name.id, self.offset)
    }

    /// Where the record ends, padding included. A sync through here covers it (P7).
    #[inline]
    pub fn end(&self) -> LogPosition {
        LogPosition::new(self.handle.segment.name.id, self.offset + record_bytes(u64::from(self.payload_len)))
    }

    /// Whether the record begins a new segment: the background should prepare the next one and sync the sealed one.
    #[inline]
    pub fn begins_segment(&self) -> bool {
        self.seal.is_some()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("Log")
            .field("dir", &self.shared.maker.dir)
            .field("live", &state.live.iter().map(|live| live.segment.name.to_string()).collect::<Vec<_>>())
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogTail({}, next {})", self.next_end(), self.seqno_min)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let guard = mutex.lock();
    #[cfg(not(any(loom, shuttle)))]
    assert!(!mutex.is_poisoned(), "a thread died inside the log: P8 leaves only reopening");
    guard
}
