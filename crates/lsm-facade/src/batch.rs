//! Batches: writes that become visible together, or not at all.

use std::sync::Arc;

use internal_key::{Kind, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use skiplist_memtable::Memtable;

use crate::batch_format::{NUMBER_BYTES_MAX, encode_entry, encode_number_at_end, number_bytes};
use crate::core::KeyspaceShared;
use crate::{Durability, Error, Keyspace, Result};

/// Writes to any keyspaces of one database that are committed atomically by [`Database::write`](crate::Database::write):
/// no reader ever sees a part of them, and no crash leaves a part of them. If a batch writes a key twice, the last write
/// wins.
///
/// The batch holds its bytes encoded as they go into the log, so that committing copies them once. Clearing and reusing
/// a batch reuses its memory.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = lsm_facade::Database::open(dir.path())?;
/// let (accounts, log) = (database.keyspace("accounts")?, database.keyspace("log")?);
/// let mut batch = database.batch();
/// batch.insert(&accounts, "alice", "10")?;
/// batch.insert(&accounts, "bob", "20")?;
/// batch.remove(&log, "pending")?;
/// database.write(&batch)?;
/// assert_eq!(accounts.get("bob")?.unwrap(), b"20");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WriteBatch {
    /// Room for the longest count, at whose end the count stands, then the entries.
    encoded: Vec<u8>,
    pub(crate) entries: u64,
    /// What each keyspace gets, in the order of first mention.
    pub(crate) parts: Vec<Part>,
    pub(crate) durability: Durability,
}

/// What one keyspace gets of a batch.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) keyspace: Arc<KeyspaceShared>,
    pub(crate) entries: u64,
    /// What its entries need in a memtable's arena.
    pub(crate) arena_bytes: usize,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries for {:?}", self.entries, self.keyspace.name)
    }
}

impl Default for WriteBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl WriteBatch {
    /// An empty batch, to be committed as [`Durability::Buffered`] unless told otherwise.
    pub fn new() -> Self {
        Self { encoded: vec![0; NUMBER_BYTES_MAX], entries: 0, parts: Vec::new(), durability: Durability::default() }
    }

    /// Sets when the commit is answered.
    pub fn set_durability(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// The same batch, committed with `durability`.
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Gives `key` the value `value`.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::ValueTooLong`], [`Error::InvalidInput`] beyond 2^32 − 1 entries; the batch is as
    /// it was.
    pub fn insert(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.push(&keyspace.shared, Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Removes `key`, whether it has a value or not.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`], [`Error::InvalidInput`] beyond 2^32 − 1 entries; the batch is as it was.
    pub fn remove(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> Result<()> {
        self.push(&keyspace.shared, Kind::Delete, key.as_ref(), &[])
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.entries as usize
    }

    /// Whether it holds no write. Committing an empty batch does nothing.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes that it takes in the log, without the record's header.
    pub fn bytes(&self) -> usize {
        self.payload().len()
    }

    /// The payload of its record: the count, then the entries.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.encoded[NUMBER_BYTES_MAX - number_bytes(self.entries as u32)..]
    }

    /// Forgets the writes and keeps the memory and the durability.
    pub fn clear(&mut self) {
        self.encoded.truncate(NUMBER_BYTES_MAX);
        self.encoded.fill(0);
        self.entries = 0;
        self.parts.clear();
    }

    #[inline]
    pub(crate) fn push(&mut self, keyspace: &Arc<KeyspaceShared>, kind: Kind, key: &[u8], value: &[u8]) -> Result<()> {
        check_lengths(key, value)?;
        if self.entries == u64::from(u32::MAX) {
            return Err(Error::InvalidInput { what: "a batch holds at most 4,294,967,295 writes".to_owned() });
        }
        let arena_bytes = Memtable::entry_bytes(key.len(), value.len());
        match self.parts.iter_mut().find(|part| Arc::ptr_eq(&part.keyspace, keyspace)) {
            Some(part) => {
                part.entries += 1;
                part.arena_bytes += arena_bytes;
            }
            None => self.parts.push(Part { keyspace: Arc::clone(keyspace), entries: 1, arena_bytes }),
        }
        encode_entry(&mut self.encoded, keyspace.id, kind, key, value);
        self.entries += 1;
        let room = self.encoded.first_chunk_mut().expect("a batch begins with room for its count");
        encode_number_at_end(room, self.entries as u32);
        Ok(())
    }
}

/// Refuses what no format can hold, before any effect.
#[inline]
pub(crate) fn check_lengths(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::KeyTooLong { found: key.len() });
    }
    if value.len() as u64 > MAX_VALUE_BYTES {
        return Err(Error::ValueTooLong { found: value.len() as u64 });
    }
    Ok(())
}
