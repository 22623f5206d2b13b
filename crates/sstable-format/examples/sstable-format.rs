//! Writes a table of a few thousand entries, draws its beginning, reads from it both ways and checks all of it.

use std::ops::ControlFlow;
use std::sync::Arc;

use file_system::Environment;
use internal_key::{Cursor, Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer};
use sstable_format::{
    Access, BlockCache, Compression, Detail, ReadOptions, TableIdentity, TableOptions, TableReader, TableWriter,
    identify, inspect, verify,
};
use xxhash_rust::xxh3::xxh3_64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = Environment::real().files;
    let dir = tempfile::tempdir()?;
    let identity = TableIdentity {
        database_id: 0x1234,
        keyspace: KeyspaceId(1),
        table: TableId(1),
        level: Level(2),
        epoch: Epoch(5),
        job: JobId(8),
        inputs: vec![TableId(10), TableId(11)],
        output_index: 0,
        output_count: 1,
    };
    let options = TableOptions { compression: Compression::Lz4, ..TableOptions::default() };
    let mut writer = TableWriter::new(&*files, dir.path(), identity, options)?;
    for n in 0..5000_u64 {
        let key = format!("fruit/{:05}", n / 2);
        let seqno = SeqNo::new(10_000 - n).ok_or("no seqno left")?;
        let kind = if n % 10 == 0 { Kind::Delete } else { Kind::Put };
        let value = if kind == Kind::Put { format!("weighs {n} grams") } else { String::new() };
        writer.add(InternalKey::new(key.as_bytes(), Trailer::new(seqno, kind)), value.as_bytes())?;
    }
    let path = dir.path().join("1.sst");
    let summary = writer.finish()?.persist(&path)?;
    println!("written: {} entries, {} bytes, xxh3 {:016x}", summary.entries, summary.bytes, summary.checksum);

    let (expected, _) = identify(&*files, &path)?;
    let cache = Arc::new(BlockCache::new(1 << 20));
    let read = ReadOptions { access: Access::Mapped, block_cache: Some(Arc::clone(&cache)) };
    let table = Arc::new(TableReader::open(&*files, &path, expected, read)?);
    let mut lines = 0;
    inspect(&table, Detail::Entries, &mut |line| {
        println!("{line}");
        lines += 1;
        if lines < 12 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    println!("  ...");

    let key = b"fruit/00007";
    for seqno in [10_000, 9986, 9985, 9984] {
        let seqno = SeqNo::new(seqno).ok_or("no such seqno")?;
        match table.get(key, xxh3_64(key), seqno)? {
            Some(found) => println!(
                "get {} at {seqno}: {} {:?}",
                key.escape_ascii(),
                found.trailer,
                found.value.escape_ascii().to_string()
            ),
            None => println!("get {} at {seqno}: nothing", key.escape_ascii()),
        }
    }
    let mut cursor = table.cursor();
    cursor.seek_to_last()?;
    println!("last: {:?}", cursor.key());
    cursor.seek_before(InternalKey::seek(b"fruit/01000", SeqNo::MAX))?;
    println!("before fruit/01000: {:?}", cursor.key());
    println!("checked: {}", verify(&table)?);
    println!("{cache:?}");
    Ok(())
}
