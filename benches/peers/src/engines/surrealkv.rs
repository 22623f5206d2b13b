//! SurrealKV.

use std::path::{Path, PathBuf};

use surrealkv::{
    CompactRangeOptions, CompressionType, Durability, Error, LSMIterator, Mode, Options, Transaction, Tree, TreeBuilder,
};
use tokio::runtime::Runtime;

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{BACKGROUND_THREADS, BLOCK_BYTES, Direction, Engine, Kind, Look, Outcome, Seek, Settings};
use crate::process;
use crate::sets;

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "surrealkv",
        version: "1.2.0",
        says: |settings| {
            format!(
                "memtable of 32 MiB (counts keys and nodes; values, as much again, come on top), 10 filter bits, blocks of \
                 4 KiB, {}, runtime of 2 threads, called from others, so that a commit wakes one of these and is woken by \
                 it; a transaction for each operation, one for a `multi-get` and for many seeks; synced: log preallocated, \
                 `Durability::Immediate`",
                if settings.compressed { "snappy in all levels where others have lz4" } else { "no compression" }
            )
        },
        open,
        is_immutable: |name| name.ends_with(".sst"),
        reads_in_place: false,
        survives_kill: true,
    }
}

/// Levels of a tree, by default.
const LEVELS: usize = 6;

struct SurrealKv {
    dir: PathBuf,
    tree: Tree,
    runtime: Runtime,
    durability: Durability,
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(BACKGROUND_THREADS).enable_all().build()?;
    let mut options = Options::new()
        .with_path(dir.to_path_buf())
        .with_wal_preallocation(settings.synced)
        .with_block_cache_capacity(settings.cache_bytes);
    if settings.compressed {
        options = options.with_compression_per_level(vec![CompressionType::SnappyCompression; LEVELS]);
    }
    options.block_size = BLOCK_BYTES as usize;
    options.max_memtable_size = 32 << 20;
    let tree = {
        let _context = runtime.enter();
        TreeBuilder::with_options(options).build()?
    };
    let durability = if settings.synced { Durability::Immediate } else { Durability::Eventual };
    Ok(Box::new(SurrealKv { dir: dir.to_path_buf(), tree, runtime, durability }))
}

impl SurrealKv {
    /// One transaction that only writes; again, if another one wrote the same rows meanwhile.
    fn write(&self, work: impl Fn(&mut Transaction) -> surrealkv::Result<()>) -> Outcome {
        loop {
            let mut transaction = self.tree.begin_with_mode(Mode::WriteOnly)?.with_durability(self.durability);
            work(&mut transaction)?;
            match self.runtime.block_on(transaction.commit()) {
                Err(Error::TransactionWriteConflict) => {}
                committed => return Ok(committed?),
            }
        }
    }

    fn reading(&self) -> Outcome<Transaction> {
        Ok(self.tree.begin_with_mode(Mode::ReadOnly)?)
    }
}

/// Looks at rows from where the iterator stands.
fn walk(rows: &mut impl LSMIterator, direction: Direction, look: Look<'_>) -> Outcome {
    while rows.valid() {
        let value = rows.value()?;
        if !look(rows.key().user_key(), value.as_ref()) {
            return Ok(());
        }
        match direction {
            Direction::Forward => rows.next()?,
            Direction::Backward => rows.prev()?,
        };
    }
    Ok(())
}

impl Engine for SurrealKv {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write(|transaction| transaction.set(key, value))
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        self.write(|transaction| rows.iter().try_for_each(|(key, value)| transaction.set(&key[..], &value[..])))
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        self.write(|transaction| transaction.delete(key))
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let value = self.reading()?.get(key)?;
        if let Some(value) = &value {
            seen(value);
        }
        Ok(value.is_some())
    }

    fn get_many(&self, keys: &[Key], seen: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        let transaction = self.reading()?;
        for (place, key) in keys.iter().enumerate() {
            if let Some(value) = transaction.get(&key[..])? {
                seen(place, &value);
            }
        }
        Ok(())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        let transaction = self.reading()?;
        match (from, direction) {
            (None, Direction::Forward) => {
                let mut rows = transaction.iter()?;
                rows.seek_first()?;
                walk(&mut rows, direction, look)
            }
            (None, Direction::Backward) => {
                let mut rows = transaction.iter()?;
                rows.seek_last()?;
                walk(&mut rows, direction, look)
            }
            (Some(key), Direction::Forward) => {
                let mut rows = transaction.scan(key..)?;
                rows.seek_first()?;
                walk(&mut rows, direction, look)
            }
            (Some(key), Direction::Backward) => {
                let mut rows = transaction.scan(..=key)?;
                rows.seek_last()?;
                walk(&mut rows, direction, look)
            }
        }
    }

    fn seek_often(&self, work: &mut dyn FnMut(Seek<'_>) -> Outcome) -> Outcome {
        let transaction = self.reading()?;
        let mut rows = transaction.iter()?;
        work(&mut |from, look| {
            rows.seek(from)?;
            walk(&mut rows, Direction::Forward, look)
        })
    }

    fn settle(&self) -> Outcome {
        // Down to level 0 means that memtables are flushed and nothing is merged.
        let options = CompactRangeOptions { target_level: Some(0), rewrite_bottommost: false, flush_memtable: true };
        self.tree.compact_range(None, None, &options)?;
        process::wait_until_quiet(|| true);
        Ok(())
    }

    fn compact(&self) -> Outcome<bool> {
        let options = CompactRangeOptions { flush_memtable: true, ..CompactRangeOptions::default() };
        self.tree.compact_range(None, None, &options)?;
        Ok(true)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        // It does not tell, but it removes the files of tables that are not live any more.
        Ok(Some(sets::disk_bytes_of(&self.dir, &|name| name.ends_with(".sst"))?))
    }
}

impl Drop for SurrealKv {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.block_on(self.tree.close()) {
            eprintln!("closing failed: {error}");
        }
    }
}
