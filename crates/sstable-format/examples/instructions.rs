//! Repeats one operation on a table, to be counted: `valgrind --tool=callgrind … instructions hit 100000`.
//!
//! Operations: `hit`, `miss`, `past` (a miss that the filter lets through), `next`, `none` (what building and opening
//! cost). Two counts at different repetitions give the cost of one. Further arguments: entries, index partition bytes.

use std::hint::black_box;
use std::sync::Arc;

use file_system::Environment;
use internal_key::{Cursor, Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer};
use sstable_format::{ReadOptions, TableIdentity, TableOptions, TableReader, TableWriter, identify};
use xxhash_rust::xxh3::xxh3_64;

fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(n << 40).to_be_bytes());
    key[8..].copy_from_slice(&n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_else(|| "hit".to_owned());
    let times: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let entries: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let default_bytes = TableOptions::default().index_partition_bytes;
    let index_partition_bytes = arguments.next().map_or(Ok(default_bytes), |text| text.parse())?;

    let files = Environment::real().files;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("1.sst");
    let identity = TableIdentity {
        database_id: 1,
        keyspace: KeyspaceId(1),
        table: TableId(1),
        level: Level::ZERO,
        epoch: Epoch(1),
        job: JobId(1),
        inputs: Vec::new(),
        output_index: 0,
        output_count: 1,
    };
    let options = TableOptions { index_partition_bytes, ..TableOptions::default() };
    let mut writer = TableWriter::new(&*files, dir.path(), identity, options)?;
    for n in 0..entries {
        let seqno = SeqNo::new(n + 1).ok_or("no seqno left")?;
        writer.add(InternalKey::new(&key(n), Trailer::new(seqno, Kind::Put)), &[0x5A; 100])?;
    }
    writer.finish()?.persist(&path)?;
    let (expected, _) = identify(&*files, &path)?;
    let table = Arc::new(TableReader::open(&*files, &path, expected, ReadOptions::default())?);
    // Every block is checked once before anything is counted.
    let mut cursor = table.cursor();
    cursor.seek_to_first()?;
    while cursor.valid() {
        cursor.next()?;
    }

    let mut found = 0_u64;
    cursor.seek_to_first()?;
    for n in 0..times {
        let number = n.wrapping_mul(0x9E37_79B9) % entries;
        let mut key = key(number);
        match &*operation {
            "hit" => {
                let answer = table.get(black_box(&key), xxh3_64(&key), SeqNo::MAX)?;
                found += answer.map_or(0, |found| u64::from(found.value[0]));
            }
            "miss" => {
                key[15] ^= 1;
                found += u64::from(table.get(black_box(&key), xxh3_64(&key), SeqNo::MAX)?.is_some());
            }
            "past" => {
                key[15] ^= 1;
                found += u64::from(table.get_unfiltered(black_box(&key), SeqNo::MAX)?.is_some());
            }
            "next" => {
                if !cursor.valid() {
                    cursor.seek_to_first()?;
                }
                found += u64::from(cursor.user_key()[15]) + u64::from(cursor.value()?[0]);
                cursor.next()?;
            }
            "none" => found += u64::from(key[0]),
            other => return Err(format!("unknown operation {other}").into()),
        }
    }
    println!("{operation} × {times}: {found}");
    Ok(())
}
