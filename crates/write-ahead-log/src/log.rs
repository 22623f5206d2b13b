//! The log being written: append in parallel, sync for everybody.
//!
//! ```text
//!   reserve, accept           ─▶ a range, one at a time: see `tail`
//!   append  (any thread)      ─▶ payload, then header          two stores into a mapped file
//!   sync_through(logged)      ─▶ older segments, then this     raises the durable claim to `logged`
//! ```
//!
//! - **P7** A sync covers all older segments first, and vouches for the position its caller loaded before.
//! - **P8** The first failed store or sync fails the log for good.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use file_system::{Environment, FileError};
use internal_key::{SegmentId, SeqNo};

use crate::position::segment_path;
use crate::record::{Payload, RECORD_HEADER_BYTES, RecordHeader, RecordKind, encode_seal};
use crate::rotation::{LiveSegment, State};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentMaker};
use crate::sync::{Mutex, MutexGuard};
use crate::tail::{Handle, handles_on};
use crate::{DurableClaim, LogError, LogOptions, LogPosition, LogTail, NameFirst, Reservation, ReserveError};

/// The log of a database, shared by all its threads.
///
/// All methods may be called from any thread at any time, except where a [`LogTail`] is asked for. Dropping it closes
/// the files without syncing.
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) maker: SegmentMaker,
    pub(crate) durable: DurableClaim,
    /// The first failure of a store or sync (P8).
    failure: OnceLock<Arc<FileError>>,
    /// Names the first segment of a log that was created to begin later.
    pub(crate) name_first: Option<NameFirst>,
    /// Held while a segment is being made, so that only one is. Before `state`.
    pub(crate) preparing: Mutex<()>,
    /// Held while syncing. Before `state`.
    sync: Mutex<SyncState>,
    /// Never held during I/O.
    pub(crate) state: Mutex<State>,
}

/// A sync of fewer bytes than this goes through their pages as it finds them: to release so few is no cheaper.
const RELEASED_BYTES_MIN: u64 = 16 << 10;

struct SyncState {
    /// Every segment before this one is complete and was synced since.
    clean_before: SegmentId,
    /// Claims do not rise yet (L4).
    claims_held: bool,
}

impl Log {
    /// Begins a new log in `dir`, whose first segment gets the id `first`. Creates `dir` if it does not exist and makes
    /// it durable in its parent. Can be interrupted anywhere and simply done again (M6). A `first` above 1 says that there
    /// was a log before, whose directory was durable before its first segment was named: one that stands there is taken for it.
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
        let is_durable = first > SegmentId(1) && environment.files.exists(dir).map_err(certain)?;
        if !is_durable {
            environment.files.create_dir(dir).map_err(certain)?;
            let syncs = !planted_faults::planted("log-directory-not-synced-in-its-parent");
            if let Some(parent) = dir.parent().filter(|_| syncs) {
                environment.files.sync_dir(parent).map_err(certain)?;
            }
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
        Ok(Self::begin(maker, live, DurableClaim::new(start), false, None))
    }

    /// As [`create`](Self::create), but does nothing yet: the first segment is made by the first
    /// [`prepare_segment`](Self::prepare_segment), which a writer calls whose record finds no room. So who only reads what a
    /// closed database holds writes nothing.
    ///
    /// `dir` must be durable and hold no segment. `name_first` is given the name of a segment that could become the first one
    /// and the [next id](Self::next_segment_id), and makes both durable in the manifest, before any record can get into that
    /// segment (**M6**). If the first record turns out not to fit, it is called again with another one, whose id is larger.
    ///
    /// # Panics
    /// If `first` is zero.
    pub fn create_later(
        environment: &Environment,
        dir: &Path,
        database_id: u128,
        options: LogOptions,
        first: SegmentId,
        name_first: NameFirst,
    ) -> (Self, LogTail) {
        assert!(first > SegmentId(0), "L4: ids begin with one");
        let maker = SegmentMaker { environment: environment.clone(), dir: dir.to_owned(), database_id, options };
        // Before every position that a record will have.
        let before = SegmentId(first.get() - 1);
        let segment = Arc::new(Segment::nowhere(before, dir));
        let live = VecDeque::from([LiveSegment { segment, first_seqno: SeqNo::ZERO }]);
        let start = LogPosition::new(before, SEGMENT_HEADER_BYTES as u64);
        Self::begin(maker, live, DurableClaim::new(start), false, Some(name_first))
    }

    /// A log whose current segment is the last of `live`, and empty.
    pub(crate) fn begin(
        maker: SegmentMaker,
        live: VecDeque<LiveSegment>,
        durable: DurableClaim,
        claims_held: bool,
        name_first: Option<NameFirst>,
    ) -> (Self, LogTail) {
        let current = live.back().expect("L4: a log has a current segment");
        let (name, bytes, seqno_min) = (current.segment.name, current.segment.bytes, current.first_seqno);
        let handles = handles_on(&current.segment);
        let state = State {
            live,
            prepared: None,
            next_id: SegmentId(name.id.get() + 1),
            given_up: 0,
            needed_bytes: 0,
            retired: Vec::new(),
            recycled: Vec::new(),
            doomed: Vec::new(),
        };
        let shared = Arc::new(Shared {
            maker,
            durable,
            failure: OnceLock::new(),
            name_first,
            preparing: Mutex::new(()),
            sync: Mutex::new(SyncState { clean_before: name.id, claims_held }),
            state: Mutex::new(state),
        });
        let offset = SEGMENT_HEADER_BYTES as u64;
        let tail = LogTail { shared: Arc::clone(&shared), handles, name, bytes, offset, seqno_min };
        (Self { shared }, tail)
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
        // The first segment is named by the manifest alone.
        if let Some(seal) = reservation.seal.as_ref().filter(|seal| !seal.handle.segment.is_nowhere()) {
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let guard = mutex.lock();
    #[cfg(not(any(loom, shuttle)))]
    assert!(!mutex.is_poisoned(), "a thread died inside the log: P8 leaves only reopening");
    guard
}
