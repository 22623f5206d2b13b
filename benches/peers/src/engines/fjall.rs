//! fjall.

use std::path::Path;

use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{BACKGROUND_THREADS, Direction, Engine, Kind, Look, Outcome, Settings, Space};
use crate::engine::{FILTER_BITS, WRITE_BUFFER_BYTES};
use crate::process;

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "fjall",
        version: "3.1.13",
        says: |settings| {
            format!(
                "memtable of 64 MiB, 10 filter bits, blocks of 4 KiB, {} (journal plain), 2 workers; keys of a `multi-get` \
                 one by one; synced: `persist(SyncData)` after each write",
                if settings.compressed { "lz4 in all levels" } else { "no compression" }
            )
        },
        open,
        is_immutable: |name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()),
        reads_in_place: false,
        survives_kill: true,
    }
}

struct Fjall {
    database: Database,
    rows: Keyspace,
    settings: Settings,
}

fn options(settings: &Settings) -> KeyspaceCreateOptions {
    let compression = if settings.compressed { CompressionType::Lz4 } else { CompressionType::None };
    let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS as f32));
    KeyspaceCreateOptions::default()
        .max_memtable_size(WRITE_BUFFER_BYTES)
        .data_block_compression_policy(CompressionPolicy::all(compression))
        .filter_policy(FilterPolicy::all(bloom))
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    let database = Database::builder(dir)
        .cache_size(settings.cache_bytes)
        .worker_threads(BACKGROUND_THREADS)
        .journal_compression(CompressionType::None)
        .open()?;
    let rows = database.keyspace("rows", || options(settings))?;
    Ok(Box::new(Fjall { database, rows, settings: *settings }))
}

impl Fjall {
    /// Makes what was written durable if it is to be.
    fn written(&self) -> Outcome {
        if self.settings.synced {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.rows.insert(key, value)?;
        self.written()
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        let mut batch = self.database.batch();
        for (key, value) in rows {
            batch.insert(&self.rows, &key[..], &value[..]);
        }
        batch.commit()?;
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
            let (key, value) = row.into_inner()?;
            if !look(&key, &value) {
                return Ok(());
            }
        }
    }

    fn settle(&self) -> Outcome {
        self.rows.rotate_memtable_and_wait()?;
        process::wait_until_quiet(|| {
            self.database.outstanding_flushes() == 0 && self.database.active_compactions() == 0
        });
        Ok(())
    }

    fn compact(&self) -> Outcome<bool> {
        self.rows.major_compact()?;
        Ok(true)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        Ok(Some(self.rows.disk_space()))
    }

    fn create_space(&self, name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        Ok(Some(Box::new(FjallSpace(self.database.keyspace(name, || options(&self.settings))?))))
    }
}

struct FjallSpace(Keyspace);

impl Space for FjallSpace {
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
