//! Ours.

use std::path::Path;
use std::time::{Duration, Instant};

use lsm_facade::{Compression, Database, Durability, Keyspace, KeyspaceOptions, RangeCursor, WriteBatch};

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{BACKGROUND_THREADS, Direction, Engine, Kind, Look, Outcome, Seek, Settings, Space};
use crate::engine::{BLOCK_BYTES, FILTER_BITS, WRITE_BUFFER_BYTES};

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "lsm",
        version: "this tree",
        says: |settings| {
            format!(
                "memtables of 4 MiB in a write buffer of 64 MiB (a flush is due at one, writers wait at two), tables are mapped \
                 (only compressed blocks need the cache), 10 filter bits, blocks of 4 KiB, {}, log mapped, 2 threads; \
                 settled: also what a rest of a second makes due is done; a `multi-get` asks one snapshot; checksums by \
                 instructions that are looked for at run time; synced: `Durability::Synced`",
                if settings.compressed { "lz4 below level 1" } else { "no compression" }
            )
        },
        open,
        is_immutable: |name| name.ends_with(".sst"),
        reads_in_place: false,
        survives_kill: true,
    }
}

/// A rest that lasts a second makes compactions due, by default; the rest is for whoever has to notice.
const RESTED_AFTER: Duration = Duration::from_millis(1200);

/// A database that is not idle after so long is taken to compact without end.
const REST_PATIENCE: Duration = Duration::from_secs(240);

struct Lsm {
    database: Database,
    rows: Keyspace,
    durability: Durability,
    options: KeyspaceOptions,
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    let options = KeyspaceOptions::default()
        .write_buffer_bytes(WRITE_BUFFER_BYTES)
        .filter_bits_per_key(u64::from(FILTER_BITS))
        .block_bytes(BLOCK_BYTES)
        .compression(if settings.compressed { Compression::Lz4 } else { Compression::None });
    let builder = Database::builder(dir);
    let database = builder.block_cache_bytes(settings.cache_bytes).background_threads(BACKGROUND_THREADS).open()?;
    let rows = match database.list_keyspaces().iter().any(|name| name == "rows") {
        true => database.open_keyspace("rows")?,
        false => database.create_keyspace("rows", options.clone())?,
    };
    let durability = if settings.synced { Durability::Synced } else { Durability::Buffered };
    Ok(Box::new(Lsm { database, rows: rows.with_durability(durability), durability, options }))
}

/// Looks at rows from where the cursor stands.
fn walk(cursor: &mut RangeCursor, direction: Direction, look: Look<'_>) -> Outcome {
    // The cursor lends one of key and value at a time.
    let mut copied = Vec::new();
    loop {
        let Some(key) = cursor.key() else { return Ok(()) };
        copied.clear();
        copied.extend_from_slice(key);
        let Some(value) = cursor.value()? else { return Ok(()) };
        if !look(&copied, value) {
            return Ok(());
        }
        match direction {
            Direction::Forward => cursor.next()?,
            Direction::Backward => cursor.prev()?,
        }
    }
}

impl Engine for Lsm {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.rows.insert(key, value)?)
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        let mut batch = WriteBatch::new().with_durability(self.durability);
        for (key, value) in rows {
            batch.insert(&self.rows, key, value)?;
        }
        Ok(self.database.write(&batch)?)
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        Ok(self.rows.remove(key)?)
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.rows.get(key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }

    fn get_many(&self, keys: &[Key], seen: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        let snapshot = self.database.snapshot()?;
        for (place, key) in keys.iter().enumerate() {
            if let Some(value) = snapshot.get(&self.rows, key)? {
                seen(place, &value);
            }
        }
        Ok(())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        let mut cursor = self.rows.cursor();
        match (from, direction) {
            (None, Direction::Forward) => cursor.seek_to_first()?,
            (None, Direction::Backward) => cursor.seek_to_last()?,
            (Some(key), Direction::Forward) => cursor.seek(key)?,
            (Some(key), Direction::Backward) => cursor.seek_for_prev(key)?,
        }
        walk(&mut cursor, direction, look)
    }

    fn seek_often(&self, work: &mut dyn FnMut(Seek<'_>) -> Outcome) -> Outcome {
        let mut cursor = self.rows.cursor();
        work(&mut |from, look| {
            cursor.seek(from)?;
            walk(&mut cursor, Direction::Forward, look)
        })
    }

    fn settle(&self) -> Outcome {
        self.database.flush()?;
        self.database.wait_until_idle()?;
        let begun = Instant::now();
        loop {
            // Rest alone makes more due: that is done and counted here, and not in the row that comes next.
            let compactions = self.database.stats().compactions;
            std::thread::sleep(RESTED_AFTER);
            self.database.wait_until_idle()?;
            if self.database.stats().compactions == compactions {
                return Ok(());
            }
            if begun.elapsed() > REST_PATIENCE {
                return Err(format!("compacts without end: still after {} s", REST_PATIENCE.as_secs()).into());
            }
        }
    }

    fn compact(&self) -> Outcome<bool> {
        self.rows.compact()?;
        Ok(true)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        Ok(Some(self.rows.stats().levels.iter().map(|level| level.bytes).sum()))
    }

    fn create_space(&self, name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        Ok(Some(Box::new(LsmSpace(self.database.create_keyspace(name, self.options.clone())?))))
    }
}

struct LsmSpace(Keyspace);

impl Space for LsmSpace {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.0.insert(key, value)?)
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.0.get(key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }
}
