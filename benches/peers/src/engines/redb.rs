//! redb.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::data::{Key, VALUE_BYTES};
use crate::engine::{Direction, Engine, Kind, Look, Outcome, Seek, Settings, Space};

/// What is known of it.
pub(crate) fn kind() -> Kind {
    Kind {
        name: "redb",
        version: "4.6.0",
        says: |_| {
            "no compression; not synced: `Durability::None`, each 10,000th commit `Immediate` (pages are only freed by those; \
             what came after the last one is lost when the process is killed); synced: `Immediate`; a transaction for each \
             operation, one for a `multi-get` and for many seeks"
                .to_string()
        },
        open,
        is_immutable: |_| false,
        reads_in_place: false,
        survives_kill: false,
    }
}

/// So many commits without durability are followed by one that has it.
const COMMITS_TOGETHER: u64 = 10_000;

type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

const ROWS: Definition<'static> = TableDefinition::new("rows");

struct Redb {
    database: Database,
    synced: bool,
    commits: AtomicU64,
}

fn open(dir: &Path, settings: &Settings) -> Outcome<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    let mut builder = Database::builder();
    builder.set_cache_size(settings.cache_bytes as usize);
    let engine =
        Redb { database: builder.create(dir.join("rows.redb"))?, synced: settings.synced, commits: AtomicU64::new(0) };
    // Reading a table that nobody has made is an error.
    engine.write(ROWS, |_| Ok(()))?;
    Ok(Box::new(engine))
}

impl Redb {
    /// One transaction.
    fn write(
        &self,
        definition: Definition<'_>,
        work: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Outcome,
    ) -> Outcome {
        let mut transaction = self.database.begin_write()?;
        // Relaxed: it only counts, and writers come one after another.
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        if !self.synced && !number.is_multiple_of(COMMITS_TOGETHER) {
            transaction.set_durability(Durability::None)?;
        }
        work(&mut transaction.open_table(definition)?)?;
        Ok(transaction.commit()?)
    }

    fn read(&self, definition: Definition<'_>, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        let transaction = self.database.begin_read()?;
        let table = transaction.open_table(definition)?;
        let value = table.get(key)?;
        if let Some(value) = &value {
            seen(value.value());
        }
        Ok(value.is_some())
    }
}

/// Looks at rows from `from` on.
fn walk(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from: Option<&[u8]>,
    direction: Direction,
    look: Look<'_>,
) -> Outcome {
    let mut rows = match (from, direction) {
        (None, _) => table.range::<&[u8]>(..)?,
        (Some(key), Direction::Forward) => table.range(key..)?,
        (Some(key), Direction::Backward) => table.range(..=key)?,
    };
    loop {
        let row = match direction {
            Direction::Forward => rows.next(),
            Direction::Backward => rows.next_back(),
        };
        let Some(row) = row else { return Ok(()) };
        let (key, value) = row?;
        if !look(key.value(), value.value()) {
            return Ok(());
        }
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write(ROWS, |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn put_many(&self, rows: &[(Key, [u8; VALUE_BYTES])]) -> Outcome {
        self.write(ROWS, |table| {
            for (key, value) in rows {
                table.insert(&key[..], &value[..])?;
            }
            Ok(())
        })
    }

    fn delete(&self, key: &[u8]) -> Outcome {
        self.write(ROWS, |table| {
            table.remove(key)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        self.read(ROWS, key, seen)
    }

    fn get_many(&self, keys: &[Key], seen: &mut dyn FnMut(usize, &[u8])) -> Outcome {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        for (place, key) in keys.iter().enumerate() {
            if let Some(value) = table.get(&key[..])? {
                seen(place, value.value());
            }
        }
        Ok(())
    }

    fn scan(&self, from: Option<&[u8]>, direction: Direction, look: Look<'_>) -> Outcome {
        walk(&self.database.begin_read()?.open_table(ROWS)?, from, direction, look)
    }

    fn seek_often(&self, work: &mut dyn FnMut(Seek<'_>) -> Outcome) -> Outcome {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        work(&mut |from, look| walk(&table, Some(from), Direction::Forward, look))
    }

    fn settle(&self) -> Outcome {
        // There is no background work; an empty durable commit writes what is only in memory.
        Ok(self.database.begin_write()?.commit()?)
    }

    fn compact(&self) -> Outcome<bool> {
        // It wants the database for itself alone, which no row can give it.
        Ok(false)
    }

    fn live_bytes(&self) -> Outcome<Option<u64>> {
        let table = self.database.begin_read()?.open_table(ROWS)?;
        let stats = table.stats()?;
        Ok(Some(stats.stored_bytes() + stats.metadata_bytes() + stats.fragmented_bytes()))
    }

    fn create_space(&self, name: &str) -> Outcome<Option<Box<dyn Space + '_>>> {
        self.write(TableDefinition::new(name), |_| Ok(()))?;
        Ok(Some(Box::new(RedbSpace { engine: self, name: name.to_string() })))
    }
}

struct RedbSpace<'a> {
    engine: &'a Redb,
    name: String,
}

impl Space for RedbSpace<'_> {
    fn put(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.engine.write(TableDefinition::new(&self.name), |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], seen: &mut dyn FnMut(&[u8])) -> Outcome<bool> {
        self.engine.read(TableDefinition::new(&self.name), key, seen)
    }
}
