//! A walk through the whole interface: `cargo run -p lsm-facade --example tour`.

use lsm_facade::{Database, Durability, KeyspaceOptions, Result};

fn main() -> Result<()> {
    let dir = std::env::temp_dir().join(format!("lsm-tour-{}", std::process::id()));
    tour(&dir)?;
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        eprintln!("{} stays: {error}", dir.display());
    }
    Ok(())
}

fn tour(dir: &std::path::Path) -> Result<()> {
    let database = Database::open(dir)?;

    // Keyspaces are ordered maps with options of their own.
    let fruit = database.keyspace("fruit")?;
    let stock = database.create_keyspace("stock", KeyspaceOptions::default().memtable_bytes(1 << 20))?;
    for (name, colour) in [("apple", "red"), ("banana", "yellow"), ("cherry", "dark red")] {
        fruit.insert(name, colour)?;
    }
    println!("keyspaces {:?}, apple is {:?}", database.list_keyspaces(), fruit.get("apple")?);

    // A snapshot sees what was there, whatever happens after.
    let before = database.snapshot()?;

    // A batch is atomic, across keyspaces; this one survives a power cut when `write` returns.
    let mut batch = database.batch().with_durability(Durability::Synced);
    batch.remove(&fruit, "apple")?;
    batch.insert(&stock, "banana", "12")?;
    batch.insert(&stock, "cherry", "300")?;
    database.write(&batch)?;
    println!("apple now {:?}, before {:?}", fruit.get("apple")?, before.get(&fruit, "apple")?);

    // Ranges read one state, from both ends.
    let mut range = fruit.range("a"..);
    println!("first {:?}", range.next().transpose()?);
    println!("last  {:?}", range.next_back().transpose()?);

    // A cursor looks at rows in place and can be moved about.
    let mut cursor = stock.cursor();
    cursor.seek("c")?;
    println!("at or after c: {:?}", cursor.key().map(<[u8]>::escape_ascii).map(|key| key.to_string()));

    // Maintenance happens by itself; it can also be asked for.
    fruit.flush()?;
    fruit.compact()?;
    stock.clear()?;
    println!("{}health: {}", database.stats(), database.health());
    drop(before);
    database.close()
}
