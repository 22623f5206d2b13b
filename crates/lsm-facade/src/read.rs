//! Point reads: memtables newest first, then fences, filters, indexes, blocks.
//!
//! - **R1** No lock, no write to a line that another thread reads, no allocation until a value is found.
//! - **R2** What is looked through is one super version, which never changes.

use std::sync::Arc;

use internal_key::{Kind, SeqNo, Trailer};
use sstable_format::{TableReader, ValueRef};
use version_history::Sealed;

use crate::core::{Core, KeyspaceShared, SuperVersion, Table};
use crate::slice::{PIN_BYTES_MIN, Slice};
use crate::{Error, Result};

/// How many tables' filter lines are prefetched together before the first is probed.
const CANDIDATES_AHEAD: usize = 16;

impl Core {
    /// The value of `key` in the latest state.
    #[inline]
    pub(crate) fn get(&self, keyspace: &KeyspaceShared, key: &[u8]) -> Result<Option<Slice>> {
        self.with_latest(keyspace, |super_version, seqno| self.get_in(super_version, key, seqno, copy_value))
            .map_err(|error| self.read_failed(error))
    }

    /// Whether `key` has a value in the latest state: [`Self::get`] without the value.
    pub(crate) fn contains(&self, keyspace: &KeyspaceShared, key: &[u8]) -> Result<bool> {
        self.with_latest(keyspace, |super_version, seqno| self.get_in(super_version, key, seqno, |_| ()))
            .map(|found| found.is_some())
            .map_err(|error| self.read_failed(error))
    }

    /// Reads through the current super version, or through the one before an operation that is not visible yet.
    #[inline]
    fn with_latest<T>(
        &self,
        keyspace: &KeyspaceShared,
        read: impl FnOnce(&SuperVersion, SeqNo) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        self.check_open()?;
        // R1: the super version first, `visible` after. What the super version holds at or below `visible` is then a
        // prefix of the keyspace's writes, and no version that a read at `visible` needs has been collected from it.
        let current = keyspace.history.current();
        let seqno = self.visible().load();
        match current.for_seqno(seqno) {
            Some(chosen) => read(chosen, seqno),
            None => read(&self.super_version_at(keyspace, seqno), seqno),
        }
    }

    /// The newest version of `key` at or below `seqno`, handed to `take` where it lies; `None` if there is none or it is
    /// a tombstone.
    #[inline]
    pub(crate) fn get_in<T>(
        &self,
        super_version: &SuperVersion,
        key: &[u8],
        seqno: SeqNo,
        take: impl FnOnce(FoundValue<'_>) -> T,
    ) -> Result<Option<T>> {
        if key.len() > internal_key::MAX_KEY_BYTES {
            return Err(Error::KeyTooLong { found: key.len() });
        }
        if planted_faults::planted("facade-get-allocates-before-a-value-is-found") {
            std::hint::black_box(key.to_vec());
        }
        let hash = skiplist_memtable::key_hash(key);
        if let Some((trailer, value)) = super_version.active().get(key, hash, seqno) {
            return decide(key, trailer, || take(FoundValue::Memory(value)));
        }
        for sealed in super_version.sealed() {
            match sealed {
                Sealed::Memtable(memtable) => {
                    if let Some((trailer, value)) = memtable.get(key, hash, seqno) {
                        return decide(key, trailer, || take(FoundValue::Memory(value)));
                    }
                }
                Sealed::Batch(table) => {
                    if !in_bounds(table, key) {
                        continue;
                    }
                    let guard = crossbeam_epoch::pin();
                    let reader = self.reader_in(table, &guard)?;
                    if let Some(found) = reader.get(key, hash, seqno)? {
                        return decide(key, found.trailer, || take(FoundValue::Table(table, reader, found.value)));
                    }
                }
            }
        }
        self.get_in_tables(super_version, key, hash, seqno, take)
    }

    fn get_in_tables<T>(
        &self,
        super_version: &SuperVersion,
        key: &[u8],
        hash: u64,
        seqno: SeqNo,
        take: impl FnOnce(FoundValue<'_>) -> T,
    ) -> Result<Option<T>> {
        let guard = crossbeam_epoch::pin();
        let mut runs = super_version.version().runs_newest_first();
        loop {
            // The fences first, then all filter lines on their way from memory together, then one table after the other.
            let mut candidates: [Option<(&Table, &TableReader)>; CANDIDATES_AHEAD] = [None; CANDIDATES_AHEAD];
            let mut count = 0;
            let mut more = false;
            for (_, run) in runs.by_ref() {
                let fenced =
                    if planted_faults::planted("facade-fence-skipped") { run.tables().last() } else { run.find(key) };
                if let Some(table) = fenced {
                    let reader = self.reader_in(table, &guard)?;
                    reader.prefetch_filter(hash);
                    candidates[count] = Some((table, reader));
                    count += 1;
                    if count == CANDIDATES_AHEAD {
                        more = true;
                        break;
                    }
                }
            }
            for (table, reader) in candidates[..count].iter().flatten() {
                if !reader.may_contain(hash) {
                    continue;
                }
                if let Some(found) = reader.get(key, hash, seqno)? {
                    return decide(key, found.trailer, || take(FoundValue::Table(table, reader, found.value)));
                }
                self.reads.sought(table);
            }
            if !more {
                return Ok(None);
            }
        }
    }
}

/// A value where it lies.
pub(crate) enum FoundValue<'a> {
    Memory(&'a [u8]),
    Table(&'a Table, &'a TableReader, ValueRef<'a>),
}

/// Hands a value out: copied, or pinned in its table when that is cheaper.
#[inline]
pub(crate) fn copy_value(found: FoundValue<'_>) -> Slice {
    match found {
        FoundValue::Memory(bytes) => Slice::copy(bytes),
        FoundValue::Table(table, reader, ValueRef::InPlace(bytes)) if bytes.len() >= PIN_BYTES_MIN => {
            let guard = crossbeam_epoch::pin();
            match table.slot.share(&guard) {
                // SAFETY: a value in place lies in the map of `reader`, which nobody writes to; this is a share of that
                // very reader, not of one that was opened since.
                Some(shared) if std::ptr::eq(&*shared, reader) => unsafe { Slice::pin(&shared, bytes) },
                _ => Slice::copy(bytes),
            }
        }
        FoundValue::Table(_, _, ValueRef::Owned(bytes)) => Slice::owned(bytes),
        FoundValue::Table(_, _, value) => Slice::copy(value.as_slice()),
    }
}

/// What the newest version means for a reader.
#[inline]
fn decide<T>(key: &[u8], trailer: Trailer, take: impl FnOnce() -> T) -> Result<Option<T>> {
    match trailer.kind() {
        Kind::Put => Ok(Some(take())),
        Kind::Delete | Kind::SingleDelete => Ok(None),
        kind => Err(unsupported(key, trailer.seqno(), kind)),
    }
}

fn unsupported(key: &[u8], seqno: SeqNo, kind: Kind) -> Error {
    let key = key.into();
    Error::Unsupported { source: Arc::new(merge_iterator::VisibleError::<Error>::UnsupportedKind { key, seqno, kind }) }
}

fn in_bounds(table: &Table, key: &[u8]) -> bool {
    *table.entry.min_key <= *key && *key <= *table.entry.max_key
}
