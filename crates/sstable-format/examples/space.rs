//! How many bytes of a table a row takes whose key has 16 bytes and whose value 100, written at a random moment.
//!
//! Argument: how many rows, a million if there is none.

use file_system::Environment;
use internal_key::{Epoch, InternalKey, JobId, KeyspaceId, Kind, Level, SeqNo, TableId, Trailer};
use sstable_format::{TableIdentity, TableOptions, TableWriter};

/// Odd, so that multiples of it modulo a power of two meet every number once.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let files = Environment::real().files;
    let dir = tempfile::tempdir()?;
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
    let mut writer = TableWriter::new(&*files, dir.path(), identity, TableOptions::default())?;
    let mut keys: Vec<u64> = (0..rows).map(|number| number.wrapping_mul(SPREAD)).collect();
    keys.sort_unstable();
    let range = rows.next_power_of_two();
    for (number, first) in (0..).zip(keys) {
        let key = [first.to_be_bytes(), first.wrapping_mul(SPREAD).to_be_bytes()].concat();
        let seqno = SeqNo::new(1 + (SPREAD.wrapping_mul(number) & (range - 1))).expect("a small number");
        writer.add(InternalKey::new(&key, Trailer::new(seqno, Kind::Put)), &[7; 100])?;
    }
    let bytes = writer.finish()?.summary.bytes;
    println!("{rows} rows, {bytes} bytes, {:.2} a row", bytes as f64 / rows as f64);
    Ok(())
}
