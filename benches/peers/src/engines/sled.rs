//! sled.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sled::{Batch, Config, Db, Mode, Tree};

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{Direction, Engine, Kind, Look, Outcome, Settings, Space};
use crate::process;

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "sled",
        version: "0.34.7",
        says: |_| {
            "high-throughput mode, no compression, flushed each 500 ms (what came after is lost when the process is killed); \
             keys of a `multi-get` one by one; closed when its lock is free, which is some time after it was dropped; \
             synced: `flush` after each write"
                .to_string()
        },
        open,
        is_immutable: |_| false,
        reads_in_place: false,
        survives_kill: false,
    }
}

/// Fields are dropped in this order.
struct Sled {
    rows: Tree,
    database: Db,
    synced: bool,
    _closed: Closed,
}

/// Waits, when it is dropped, until the lock of the database that was dropped before is free: sled lets it go late, in a
/// thread of its own, and refuses to open until then.
struct Closed {
    lock: PathBuf,
}

/// A lock that is held for so long is not waited for.
const CLOSING_PATIENCE: Duration = Duration::from_secs(10);

impl Drop for Closed {
    fn drop(&mut self) {
        let begun = Instant::now();
        let is_held =
            || matches!(File::open(&self.lock).map(|file| file.try_lock()), Ok(Err(TryLockError::WouldBlock)));
        while is_held() {
            if begun.elapsed() > CLOSING_PATIENCE {
                eprintln!("still locked {} s after closing", CLOSING_PATIENCE.as_secs());
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    let config = Config::new().path(dir).cache_capacity(settings.cache_bytes).mode(Mode::HighThroughput);
    let database = config.flush_every_ms(Some(500)).open()?;
    let rows = database.open_tree("rows")?;
    Ok(Box::new(Sled { rows, database, synced: settings.synced, _closed: Closed { lock: dir.join("db") } }))
}

impl Sled {
    /// Makes what was written durable if it is to be.
    fn written(&self) -> Outcome {
        if self.synced {
            self.rows.flush()?;
        }
        Ok(())
    }
}

impl Engine for Sled {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.rows.insert(key, value)?;
        self.written()
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        let mut batch = Batch::default();
        for (key, value) in rows {
            batch.insert(&key[..], &value[..]);
        }
        self.rows.apply_batch(batch)?;
        self.written()
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        self.rows.remove(key)?;
        self.written()
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.rows.get(key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        let mut rows = match (from, direction) {
            (None, _) => self.rows.iter(),
            (Some(key), Direction::Forward) => self.rows.range(key..),
            (Some(key), Direction::Backward) => self.rows.range(..=key),
        };
        loop {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some(row) = row else { return Ok(()) };
            let (key, value) = row?;
            if !look(&key, &value) {
                return Ok(());
            }
        }
    }

    fn settle(&self) -> Outcome {
        self.database.flush()?;
        process::wait_until_quiet(|| true);
        Ok(())
    }

    fn compact(&self) -> Outcome<bool> {
        Ok(false)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        Ok(None)
    }

    fn create_space(&self, name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        Ok(Some(Box::new(SledSpace(self.database.open_tree(name)?))))
    }
}

struct SledSpace(Tree);

impl Space for SledSpace {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.0.insert(key, value)?;
        Ok(())
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.0.get(key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }
}
