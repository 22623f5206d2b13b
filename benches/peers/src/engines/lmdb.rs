//! LMDB, through the `heed` crate.

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn};

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{Direction, Engine, Kind, Look, Outcome, Seek, Settings, Space};

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "lmdb",
        version: "heed 0.23.1",
        says: |_| {
            "the page cache is its cache, no compression; not synced: NO_SYNC and WRITE_MAP (a power cut may corrupt it); \
             synced: neither; NO_READ_AHEAD in `get-little-memory`; a transaction for each operation, one for a \
             `multi-get` and for many seeks"
                .to_string()
        },
        open,
        // Files are written in place.
        is_immutable: |_| false,
        reads_in_place: true,
        survives_kill: true,
    }
}

type Rows = Database<'static, Bytes, Bytes>;

struct Lmdb {
    /// Lives until the engine is dropped: `rows` borrows it.
    env: &'static Env,
    rows: Rows,
}

impl Drop for Lmdb {
    fn drop(&mut self) {
        let env = std::ptr::from_ref(self.env).cast_mut();
        // SAFETY: `open` made the pointer from a box and gave it to this value alone. Whatever else borrows it is `rows`,
        // which does nothing when it is dropped, and keyspaces, which cannot outlive the engine.
        drop(unsafe { Box::from_raw(env) });
    }
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    let mut options = EnvOpenOptions::new();
    // Pages are at worst half full, and copies of pages that readers still see come on top.
    let map = settings.logical_bytes_max.saturating_mul(8).max(1 << 30).next_multiple_of(1 << 20);
    options.map_size(map as usize).max_dbs(settings.keyspaces);
    let mut flags = EnvFlags::empty();
    flags.set(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP, !settings.synced);
    flags.set(EnvFlags::NO_READ_AHEAD, settings.larger_than_memory);
    // SAFETY: the file is opened once in this process, and no other process writes to it.
    let env = unsafe {
        options.flags(flags);
        options.open(dir)?
    };
    let env: &'static Env = Box::leak(Box::new(env));
    let rows = create(env, None)?;
    Ok(Box::new(Lmdb { env, rows }))
}

fn create(env: &'static Env, name: Option<&str>) -> Outcome<Rows> {
    let transaction = env.write_txn()?;
    let created = env.create_databases_and_commit(transaction, |options, transaction| {
        options.create_database(transaction, name).map(CommitOrAbort::<Rows, ()>::Commit)
    })?;
    Ok(created.unwrap_commit())
}

/// Looks at rows from `from` on.
fn walk(rows: &Rows, transaction: &RoTxn<'_>, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
    let all = Bound::Unbounded;
    match direction {
        Direction::Forward => {
            let start = from.map_or(all, Bound::Included);
            for row in rows.range(transaction, &(start, all))? {
                let (key, value) = row?;
                if !look(key, value) {
                    break;
                }
            }
        }
        Direction::Backward => {
            let end = from.map_or(all, Bound::Included);
            for row in rows.rev_range(transaction, &(all, end))? {
                let (key, value) = row?;
                if !look(key, value) {
                    break;
                }
            }
        }
    }
    Ok(())
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        let mut transaction = self.env.write_txn()?;
        self.rows.put(&mut transaction, key, value)?;
        transaction.commit()?;
        Ok(())
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in rows {
            self.rows.put(&mut transaction, key, value)?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        let mut transaction = self.env.write_txn()?;
        self.rows.delete(&mut transaction, key)?;
        transaction.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let transaction = self.env.read_txn()?;
        let value = self.rows.get(&transaction, key)?;
        if let Some(value) = value {
            seen(value);
        }
        Ok(value.is_some())
    }

    fn get_many(&self, keys: &[Key], seen: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        let transaction = self.env.read_txn()?;
        for (place, key) in keys.iter().enumerate() {
            if let Some(value) = self.rows.get(&transaction, key)? {
                seen(place, value);
            }
        }
        Ok(())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        let transaction = self.env.read_txn()?;
        walk(&self.rows, &transaction, from, direction, look)
    }

    fn seek_often(&self, work: &mut dyn FnMut(Seek<'_>) -> Outcome) -> Outcome {
        let transaction = self.env.read_txn()?;
        work(&mut |from, look| walk(&self.rows, &transaction, Some(from), Direction::Forward, look))
    }

    fn settle(&self) -> Outcome {
        // There is no background work; what is dirty goes to the disk, so that it disturbs no later row.
        Ok(self.env.force_sync()?)
    }

    fn compact(&self) -> Outcome<bool> {
        Ok(false)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        let transaction = self.env.read_txn()?;
        let pages = self.rows.stat(&transaction)?;
        let count = pages.branch_pages + pages.leaf_pages + pages.overflow_pages;
        Ok(Some((count * pages.page_size as usize) as u64))
    }

    fn create_space(&self, name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        Ok(Some(Box::new(LmdbSpace { engine: self, rows: create(self.env, Some(name))? })))
    }
}

struct LmdbSpace<'a> {
    engine: &'a Lmdb,
    rows: Rows,
}

impl Space for LmdbSpace<'_> {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        let mut transaction = self.engine.env.write_txn()?;
        self.rows.put(&mut transaction, key, value)?;
        transaction.commit()?;
        Ok(())
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let transaction = self.engine.env.read_txn()?;
        let value = self.rows.get(&transaction, key)?;
        if let Some(value) = value {
            seen(value);
        }
        Ok(value.is_some())
    }
}
