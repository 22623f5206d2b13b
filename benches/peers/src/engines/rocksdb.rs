//! RocksDB, through the `rocksdb` crate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, DBCompressionType, DBRawIteratorWithThreadMode, DBWithThreadMode,
    DataBlockIndexType, MultiThreaded, Options, ReadOptions, WriteBatch, WriteOptions,
};

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{BACKGROUND_THREADS, Direction, Engine, Kind, Look, Outcome, Seek, Settings, Space};
use crate::engine::{BLOCK_BYTES, FILTER_BITS, WRITE_BUFFER_BYTES};

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "rocksdb",
        version: "11.8 (crate 0.25.0)",
        says: |settings| {
            format!(
                "2 write buffers of 64 MiB, HyperClockCache, full Bloom filters of 10 bits, blocks of 4 KiB with hash index \
                 (format 6), dynamic levels, {}, 2 background jobs, files synced each 1 MiB; `get_pinned`, raw iterators, \
                 `batched_multi_get`; checksums: XXH3 of blocks, CRC32C of log records {}; synced: `sync`",
                if settings.compressed { "lz4 in all levels" } else { "no compression" },
                if CRC_IN_HARDWARE {
                    "by the processor's instruction"
                } else {
                    "in software (it is told at build time, and is built for the baseline of the architecture)"
                }
            )
        },
        open,
        is_immutable: |name| name.ends_with(".sst"),
        reads_in_place: false,
        survives_kill: true,
    }
}

/// Whether its build takes the processor's instruction: it goes by the features that this program is built for.
const CRC_IN_HARDWARE: bool =
    cfg!(any(target_feature = "sse4.2", all(target_arch = "aarch64", target_feature = "crc", target_feature = "aes")));

type Database = DBWithThreadMode<MultiThreaded>;

struct RocksDb {
    database: Database,
    write: WriteOptions,
    options: Options,
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    let mut table = BlockBasedOptions::default();
    // Its header recommends it over the LRU cache, and zero for the charge, which it then finds out by itself.
    table.set_block_cache(&Cache::new_hyper_clock_cache(settings.cache_bytes as usize, 0));
    table.set_block_size(BLOCK_BYTES as usize);
    table.set_bloom_filter(f64::from(FILTER_BITS), false);
    table.set_format_version(6);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table.set_data_block_hash_ratio(0.75);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES as usize);
    options.set_max_write_buffer_number(2);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.increase_parallelism(BACKGROUND_THREADS as i32);
    options.set_max_background_jobs(BACKGROUND_THREADS as i32);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_open_files(-1);
    let compression = if settings.compressed { DBCompressionType::Lz4 } else { DBCompressionType::None };
    options.set_compression_type(compression);
    let mut write = WriteOptions::default();
    write.set_sync(settings.synced);
    let database = Database::open_cf_with_opts(&options, dir, [("default", options.clone())])?;
    Ok(Box::new(RocksDb { database, write, options }))
}

/// Looks at rows from where the iterator stands.
fn walk(rows: &mut DBRawIteratorWithThreadMode<'_, Database>, direction: Direction, look: Look<'_>) -> Outcome {
    while let Some((key, value)) = rows.item() {
        if !look(key, value) {
            return Ok(());
        }
        match direction {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.prev(),
        }
    }
    Ok(rows.status()?)
}

impl RocksDb {
    fn property(&self, name: &str) -> Outcome<u64> {
        Ok(self.database.property_int_value(name)?.ok_or_else(|| format!("no property {name}"))?)
    }

    fn is_busy(&self) -> Outcome<bool> {
        for name in [
            "rocksdb.mem-table-flush-pending",
            "rocksdb.num-running-flushes",
            "rocksdb.compaction-pending",
            "rocksdb.num-running-compactions",
        ] {
            if self.property(name)? != 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Engine for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.database.put_opt(key, value, &self.write)?)
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        Ok(self.database.write_opt(batch, &self.write)?)
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        Ok(self.database.delete_opt(key, &self.write)?)
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.database.get_pinned(key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }

    fn get_many(&self, keys: &[Key], seen: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        let family = self.database.cf_handle("default").ok_or("no default column family")?;
        for (place, value) in self.database.batched_multi_get_cf(&family, keys, false).into_iter().enumerate() {
            if let Some(value) = value? {
                seen(place, &value);
            }
        }
        Ok(())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        let mut rows = self.database.raw_iterator();
        match (from, direction) {
            (None, Direction::Forward) => rows.seek_to_first(),
            (None, Direction::Backward) => rows.seek_to_last(),
            (Some(key), Direction::Forward) => rows.seek(key),
            (Some(key), Direction::Backward) => rows.seek_for_prev(key),
        }
        walk(&mut rows, direction, look)
    }

    fn seek_often(&self, work: &mut dyn FnMut(Seek<'_>) -> Outcome) -> Outcome {
        let mut rows = self.database.raw_iterator_opt(ReadOptions::default());
        work(&mut |from, look| {
            rows.seek(from);
            walk(&mut rows, Direction::Forward, look)
        })
    }

    fn settle(&self) -> Outcome {
        self.database.flush()?;
        // A compaction that a flush has made due may be neither pending nor running for a moment.
        let mut idle_since = None;
        loop {
            if self.is_busy()? {
                idle_since = None;
            } else if idle_since.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(100) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn compact(&self) -> Outcome<bool> {
        self.database.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(true)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        Ok(Some(self.property("rocksdb.live-sst-files-size")?))
    }

    fn create_space(&self, name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        self.database.create_cf(name, &self.options)?;
        let family = self.database.cf_handle(name).ok_or("the new column family is not there")?;
        Ok(Some(Box::new(RocksSpace { engine: self, family })))
    }
}

struct RocksSpace<'a> {
    engine: &'a RocksDb,
    family: Arc<BoundColumnFamily<'a>>,
}

impl Space for RocksSpace<'_> {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        Ok(self.engine.database.put_cf_opt(&self.family, key, value, &self.engine.write)?)
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.engine.database.get_pinned_cf(&self.family, key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }
}
