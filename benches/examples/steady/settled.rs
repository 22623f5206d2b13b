//! What is left on the disk once the background has nothing more to do.

use std::path::Path;

use benches::{Rows, mix};
use lsm_facade::{Compression, Keyspace, KeyspaceStats};

use crate::{Arguments, ROW_BYTES, Verdict, check_all, create, settle};

/// Everything overwritten once, then left alone.
pub(crate) fn space(arguments: &Arguments, verdict: &mut Verdict) {
    let rows = arguments.rows();
    let dir = arguments.fresh_dir();
    let (database, keyspace) = create(arguments, &dir, Compression::None);
    for round in 0..2 {
        for number in 0..rows.count() {
            // The second time in another order: that of the keys' ranks, scattered.
            let row = if round == 0 { number } else { scattered(number, rows.count()) };
            keyspace.insert(rows.key(row), Rows::value(row, round)).expect("an insert succeeds");
        }
    }
    settle(&database);
    check_all(&rows, &keyspace, |_| Some(1));
    let logical = u64::from(rows.count()) * ROW_BYTES;
    let stats = keyspace.stats();
    print!("{stats}");
    let ratio = table_bytes(&stats) as f64 / logical as f64;
    verdict.holds("live tables for each logical byte", format!("{ratio:.3}"), "at most 1.15", ratio <= 1.15);
    println!(
        "       the directory, log and all, for each logical byte: {:.3}",
        bytes_in(dir.path()) as f64 / logical as f64
    );
    let stats = database.stats();
    let written = stats.flushed_bytes + stats.compaction_written_bytes;
    println!("       tables written for each logical byte: {:.2}", written as f64 / (2 * logical) as f64);
    database.close().expect("a close succeeds");
}

/// Nine of ten keys deleted, then left alone.
pub(crate) fn deletes(arguments: &Arguments, verdict: &mut Verdict) {
    let rows = arguments.rows();
    let dir = arguments.fresh_dir();
    let (database, keyspace) = create(arguments, &dir, Compression::Lz4);
    for row in 0..rows.count() {
        keyspace.insert(rows.key(row), Rows::value(row, 0)).expect("an insert succeeds");
    }
    settle(&database);
    let before = table_bytes(&keyspace.stats());
    let is_kept = |row: u32| mix(u64::from(row) ^ 0x5DEE_CE66).is_multiple_of(10);
    for number in 0..rows.count() {
        let row = scattered(number, rows.count());
        if !is_kept(row) {
            keyspace.remove(rows.key(row)).expect("a remove succeeds");
        }
    }
    settle(&database);
    let stats = keyspace.stats();
    print!("{stats}");
    let ratio = table_bytes(&stats) as f64 / before as f64;
    verdict.holds(
        "live tables, of what there was",
        format!("{:.1} %", ratio * 100.0),
        "at most 23.5 %",
        ratio <= 0.235,
    );
    check_all(&rows, &keyspace, |row| is_kept(row).then_some(0));
    judge_scan(&keyspace, &stats, verdict);
    database.close().expect("a close succeeds");
}

/// A scan over everything steps over every entry that is left, once.
fn judge_scan(keyspace: &Keyspace, stats: &KeyspaceStats, verdict: &mut Verdict) {
    let returned = keyspace.iter().count() as u64;
    let entries = stats.levels.iter().map(|level| level.entries).sum::<u64>() + stats.memtable_entries;
    let ratio = entries as f64 / returned as f64;
    verdict.holds("entries that a scan meets for each row", format!("{ratio:.2}"), "at most 2", ratio <= 2.0);
}

/// A permutation of the numbers below `count`, another than that of the keys.
fn scattered(number: u32, count: u32) -> u32 {
    // Multiplying by a number that has no factor in common with the count passes every number once.
    let mut step = (count / 3 * 2) | 1;
    while greatest_common_divisor(step, count) > 1 {
        step += 2;
    }
    (u64::from(number) * u64::from(step) % u64::from(count)) as u32
}

fn greatest_common_divisor(left: u32, right: u32) -> u32 {
    if right == 0 { left } else { greatest_common_divisor(right, left % right) }
}

fn table_bytes(stats: &KeyspaceStats) -> u64 {
    stats.levels.iter().map(|level| level.bytes).sum()
}

/// Bytes of all files in a directory and below.
fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory can be read");
    let bytes = entries.map(|entry| {
        let entry = entry.expect("a directory can be read");
        let metadata = entry.metadata().expect("a file has a length");
        if metadata.is_dir() { bytes_in(&entry.path()) } else { metadata.len() }
    });
    bytes.sum()
}
