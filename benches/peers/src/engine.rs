//! What the rows ask of an engine: the calls that every one of them has, and few that some do better.
//!
//! One file an engine in `engines/`. An adapter does what the engine's own documentation tells a user to do for the
//! call, and nothing that a user could not do.

use std::path::Path;

use crate::data::{Key, VALUE_BYTES};

/// What may fail. A wrong answer is no failure but a panic: it ends the measurement at once.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Looks at a row, and says whether it wants the next one.
pub(crate) type Look<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> bool;

/// Moves to the first row at or after a key and looks at rows from there.
pub(crate) type Seek<'a> = &'a mut dyn FnMut(&[u8], Look<'_>) -> Outcome;

/// How a database is opened: the same for every engine, as far as it can be told so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Bytes of the block or page cache.
    pub(crate) cache_bytes: u64,
    /// Whether rows are read at random from more than memory holds, so that reading ahead only drives out what is there.
    pub(crate) larger_than_memory: bool,
    /// Whether tables are compressed: by lz4, or by what the engine has that is nearest to it.
    pub(crate) compressed: bool,
    /// Whether every commit is durable before it is answered.
    pub(crate) synced: bool,
    /// Bytes of keys and values that the database may come to hold: LMDB must know its largest size beforehand.
    pub(crate) logical_bytes_max: u64,
    /// How many keyspaces there may be beside the one that rows lie in.
    pub(crate) keyspaces: u32,
}

/// Bytes of memtables, for engines that have any.
pub(crate) const WRITE_BUFFER_BYTES: u64 = 64 << 20;

/// Bits per key of Bloom filters, for engines that have any.
pub(crate) const FILTER_BITS: u32 = 10;

/// Bytes of a block, for engines that have any.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// Threads for background work, for engines that have any.
pub(crate) const BACKGROUND_THREADS: usize = 2;

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// An open database.
pub(crate) trait Engine: Send + Sync {
    /// Writes a row, durably if the settings say so.
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome;

    /// Writes rows, all at once for readers and for crashes.
    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome;

    /// Removes a row.
    fn delete(&self, key: &[u8]) -> Outcome;

    /// Looks at the value of a key as it is now; says whether there is one.
    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool>;

    /// Looks at the values of some keys; the closure gets the place of the key among `keys`.
    fn get_many(&self, keys: &[Key], seen: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        for (place, key) in keys.iter().enumerate() {
            self.get(key, &mut |value| seen(place, value))?;
        }
        Ok(())
    }

    /// Looks at rows as they are now, from `from` on, or from the end in that direction.
    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome;

    /// Hands out something that seeks again and again in one state of the database, moved about as cheaply as the engine
    /// allows: where there is no cursor that can be moved, a range is begun anew.
    fn seek_often(&self, work: &mut dyn FnMut(Seek<'_>) -> Outcome) -> Outcome {
        work(&mut |from, look| self.scan(Some(from), Direction::Forward, look))
    }

    /// Writes out what is only in memory and waits until no background work is due or running, nor becomes due by rest.
    fn settle(&self) -> Outcome;

    /// Compacts everything; `false` if the engine has nothing of the kind.
    fn compact(&self) -> Outcome<bool>;

    /// Bytes of live tables or pages, if the engine can tell.
    fn live_bytes(&self) -> Outcome<Option<u64>>;

    /// Creates a keyspace; `None` if the engine has none.
    fn create_space(&self, _name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        Ok(None)
    }
}

/// A keyspace beside the one that an [`Engine`] writes to.
pub(crate) trait Space: Send + Sync {
    /// Writes a row.
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome;

    /// Looks at the value of a key; says whether there is one.
    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool>;
}

/// What is known of an engine before a database is opened.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// The release.
    pub(crate) version: &'static str,
    /// How it is configured, for the table.
    pub(crate) says: fn(&Settings) -> String,
    /// Opens the database in the directory, or creates it.
    pub(crate) open: fn(&Path, &Settings) -> Outcome<Box<dyn Engine>>,
    /// Whether a file of this name is never written again once it is whole, so that a second name for it does as well
    /// as a copy.
    pub(crate) is_immutable: fn(&str) -> bool,
    /// Whether reading writes nothing to any file of the database, so that not even the data set has to be copied.
    pub(crate) reads_in_place: bool,
    /// Whether commits that are not synced survive the death of the process.
    pub(crate) survives_kill: bool,
}

/// The engines that were compiled in, ours first.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        #[cfg(feature = "lsm")]
        crate::engines::lsm::kind(),
        #[cfg(feature = "rocksdb")]
        crate::engines::rocksdb::kind(),
        #[cfg(feature = "fjall")]
        crate::engines::fjall::kind(),
        #[cfg(feature = "surrealkv")]
        crate::engines::surrealkv::kind(),
        #[cfg(feature = "lmdb")]
        crate::engines::lmdb::kind(),
        #[cfg(feature = "redb")]
        crate::engines::redb::kind(),
        #[cfg(feature = "sled")]
        crate::engines::sled::kind(),
    ]
}
