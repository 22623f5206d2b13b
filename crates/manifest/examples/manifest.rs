//! Commits to a database of 10,000 tables and to one of 10,000 keyspaces and prints what an edit costs (M3).
//!
//! `cargo run -p manifest --example manifest [COUNT]`

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use file_system::{Clock, Environment, SystemClock};
use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, SeqNo, TableId};
use manifest::{AddedTable, Change, Claim, Edit, Manifest, ManifestOptions, ManifestStore, OpenMode, TableEntry};

/// What each flush of the example writes: its edit may cost 1 % of it, or 4 KiB.
const TABLE_BYTES: u64 = 256 << 10;

fn table(id: u64) -> TableEntry {
    let seqno = SeqNo::new(id).unwrap_or(SeqNo::MAX);
    TableEntry {
        id: TableId(id),
        bytes: TABLE_BYTES,
        checksum: id,
        min_key: format!("key-{id:012}-a").into_bytes().into(),
        max_key: format!("key-{id:012}-z").into_bytes().into(),
        min_seqno: seqno,
        max_seqno: seqno,
        entries: 2000,
        tombstones: 0,
        logical_bytes: 2 * TABLE_BYTES,
        epoch: Epoch(1),
        job: JobId(id),
        seqno_base: 0,
        newest_unix_ms: 0,
    }
}

fn keyspace(id: u32) -> Change {
    let (name, options) = (format!("keyspace-{id}"), BTreeMap::new());
    Change::CreateKeyspace { id: KeyspaceId(id), name, options, created_seqno: SeqNo::ZERO }
}

fn flush(id: u64, keyspace: KeyspaceId) -> Edit {
    let added = vec![AddedTable { level: Level(6), run: Epoch(1), table: Arc::new(table(id)) }];
    Edit::of(Change::ReplaceTables { keyspace, removed: Vec::new(), added, flushed_seqno: SeqNo::new(id) })
        .and(Change::RaiseClaim(Claim { segment: SegmentId(1), offset: 4096 * id }))
}

fn tables(manifest: &Manifest) -> usize {
    manifest.keyspaces.values().map(|keyspace| keyspace.tables().count()).sum()
}

fn measure(what: &str, first: &Edit, keyspaces: u32, flushed: u64) -> Result<(), Box<dyn std::error::Error>> {
    let env = Environment::simulated(1);
    let clock = SystemClock::new();
    let options = ManifestOptions::default();
    let store = ManifestStore::create(&env, "/db", options, first)?;
    let created = store.metrics();
    let (mut flushes, mut longest, mut slowest) = (0, 0, Duration::ZERO);
    let begun = clock.monotonic();
    // Through the first fold, so that what an edit costs includes it.
    let mut folding = Duration::ZERO;
    while store.metrics().folds == 0 {
        let number = flushes;
        flushes += 1;
        let started = clock.monotonic();
        store.commit(flush(flushed + 1 + number, KeyspaceId(1 + (number % u64::from(keyspaces)) as u32)))?;
        slowest = slowest.max(clock.monotonic() - started);
        if number > 0 {
            longest = longest.max(store.metrics().last.bytes);
        }
        if number % 100 == 99 {
            store.collect_obsolete()?;
        }
        if store.fold_is_due() {
            let started = clock.monotonic();
            assert!(store.fold()?, "it is due");
            folding = clock.monotonic() - started;
        }
    }
    let taken = clock.monotonic() - begun;
    let after = store.metrics();
    let (bytes, syncs) = (after.total.bytes - created.total.bytes, after.total.syncs - created.total.syncs);
    println!("{what}, {flushes} flushes of {} KiB, until the edit file is folded:", TABLE_BYTES >> 10);
    println!("  an edit: {} bytes and {:.2} syncs on average", bytes / flushes, syncs as f64 / flushes as f64);
    println!("  {} edit files begun, {} folded; the longest line: {longest} bytes", after.edit_files, after.folds);
    println!("  time without a disk: {:?} on average, {slowest:?} at most", (taken - folding) / flushes as u32);
    println!("  time of the fold, beside commits and without a disk: {folding:?}");
    assert!(bytes / flushes <= 4096, "M3: an edit costs more than 4 KiB");

    let current = store.current();
    drop(store);
    let started = clock.monotonic();
    let opened = ManifestStore::open(&env, "/db", OpenMode::ReadWrite, options)?.current();
    let taken = clock.monotonic() - started;
    println!("  reopened in {taken:?}: {} keyspaces, {} tables", opened.keyspaces.len(), tables(&opened));
    assert_eq!(tables(&opened), tables(&current));
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u32 = std::env::args().nth(1).map_or(Ok(10_000), |count| count.parse())?;

    // What a small database looks like.
    let env = Environment::simulated(1);
    let store = ManifestStore::create(&env, "/db", ManifestOptions::default(), &Edit::of(keyspace(1)))?;
    store.commit(flush(1, KeyspaceId(1)))?;
    print!("{}", store.current());
    for file in store.named_files().iter().filter(|file| file.path.extension().is_some_and(|end| end == "json")) {
        println!("--- {}", file.path.display());
        print!("{}", String::from_utf8(env.files.read(&file.path, 1 << 20)?)?);
    }
    println!();

    let added = (1..=u64::from(count)).map(|id| AddedTable { level: Level(6), run: Epoch(1), table: table(id).into() });
    let change = Change::ReplaceTables {
        keyspace: KeyspaceId(1),
        removed: Vec::new(),
        added: added.collect(),
        flushed_seqno: SeqNo::new(count.into()),
    };
    measure(&format!("{count} tables in one level"), &Edit::of(keyspace(1)).and(change), 1, count.into())?;
    let many = Edit { changes: (1..=count).map(keyspace).collect() };
    measure(&format!("{count} keyspaces"), &many, count, 0)
}
