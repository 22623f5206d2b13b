//! What an edit of a large manifest costs, and the opening of many tables.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use benches::AnonymousMemory;
use file_system::Environment;
use internal_key::{Epoch, JobId, KeyspaceId, Level, SeqNo, TableId};
use lsm_facade::{Database, KeyspaceOptions};
use manifest::{AddedTable, Change, Edit, ManifestOptions, ManifestStore, TableEntry};

use crate::{Arguments, Verdict};

/// What a table of an edit has: a job so small that an edit may cost no more than its least allowance, 4 KiB.
const TABLE_BYTES: u64 = 256 << 10;
/// Edits over which the cost is taken.
const EDITS: u64 = 1000;

pub(crate) fn run(arguments: &Arguments, verdict: &mut Verdict) {
    opening(arguments, verdict);
    for (keyspaces, tables) in [(1, 100), (1, 10_000), (1, 100_000), (10_000, 10_000)] {
        edits(arguments, keyspaces, tables, verdict);
    }
}

/// Flushes and compactions by turns: each compaction replaces a table of the last level by another.
fn edits(arguments: &Arguments, keyspaces: u32, tables: u64, verdict: &mut Verdict) {
    let dir = arguments.fresh_dir();
    let environment = Environment::real();
    let mut first = Edit::default();
    for id in 1..=keyspaces {
        let name = format!("keyspace-{id}");
        let create =
            Change::CreateKeyspace { id: KeyspaceId(id), name, options: BTreeMap::new(), created_seqno: SeqNo::ZERO };
        first.changes.push(create);
    }
    // A thousand a change: each change copies the level that it adds to.
    for id in 1..=keyspaces {
        let numbers: Vec<u64> = (u64::from(id) - 1..tables).step_by(keyspaces as usize).collect();
        for numbers in numbers.chunks(1000) {
            let added = numbers.iter().map(|&number| added(number, number)).collect();
            let keyspace = KeyspaceId(id);
            first.changes.push(Change::ReplaceTables { keyspace, removed: Vec::new(), added, flushed_seqno: None });
        }
    }
    let options = ManifestOptions::default();
    let store = ManifestStore::create(&environment, dir.path(), options, &first).expect("a manifest can be made");
    let before = store.metrics();
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    for edit in 0..EDITS {
        let place = edit * 7919 % tables;
        let keyspace = KeyspaceId(1 + (place % u64::from(keyspaces)) as u32);
        let new = added(tables + edit, place);
        // The table at that place is the one of an earlier edit, if one came here before.
        let standing = store.current().keyspaces[&keyspace]
            .tables()
            .find_map(|(_, _, table)| (table.min_key == new.table.min_key).then_some(table.id));
        let committing = Instant::now();
        store.commit(Edit::of(replace(keyspace, standing, new))).expect("an edit fits");
        longest = longest.max(committing.elapsed());
        store.collect_obsolete().expect("replaced files can be removed");
    }
    let took = begun.elapsed();
    let after = store.metrics();
    let bytes = (after.total.bytes - before.total.bytes) / EDITS;
    let syncs = (after.total.syncs - before.total.syncs) as f64 / EDITS as f64;
    println!(
        "\n{tables} tables in {keyspaces} keyspaces, {EDITS} edits: {} lines, {} folds, {:.2} ms each, the longest {:.1} ms",
        after.lines - before.lines,
        after.folds - before.folds,
        took.as_secs_f64() * 1e3 / EDITS as f64,
        longest.as_secs_f64() * 1e3
    );
    let wanted = (TABLE_BYTES / 100).max(4 << 10);
    verdict.holds("bytes of an edit", bytes, &format!("at most {wanted}"), bytes <= wanted);
    verdict.holds("syncs of an edit", format!("{syncs:.2}"), "at most 5", syncs <= 5.0);
    fold(&store, keyspaces, tables, verdict);
    // What was written is what is read.
    let current = store.current();
    drop(store);
    let reopened = ManifestStore::open(&environment, dir.path(), manifest::OpenMode::ReadOnly, options)
        .expect("the manifest can be read");
    let found = reopened.current();
    assert_eq!(found.keyspaces.len(), current.keyspaces.len());
    for (id, keyspace) in &current.keyspaces {
        let tables = |keyspace: &manifest::KeyspaceState| {
            keyspace.tables().map(|(level, run, table)| (level, run, Arc::clone(table))).collect::<Vec<_>>()
        };
        assert!(tables(keyspace) == tables(&found.keyspaces[id]), "another {id} was read than written");
    }
}

/// Folds the edit file while another thread commits: none of its commits waits for the level files.
fn fold(store: &ManifestStore, keyspaces: u32, tables: u64, verdict: &mut Verdict) {
    let before = store.metrics();
    let (folded, took, mut commits) = thread::scope(|scope| {
        let folding = scope.spawn(|| {
            let begun = Instant::now();
            let folded = store.fold().expect("a fold succeeds");
            (folded, begun.elapsed())
        });
        let mut commits = Vec::new();
        while !folding.is_finished() {
            let number = EDITS + commits.len() as u64;
            let keyspace = KeyspaceId(1 + (number % u64::from(keyspaces)) as u32);
            let new = added(tables + number, tables + number);
            let committing = Instant::now();
            store.commit(Edit::of(replace(keyspace, None, new))).expect("an edit fits");
            commits.push(committing.elapsed());
        }
        let (folded, took) = folding.join().expect("the fold does not panic");
        (folded, took, commits)
    });
    let after = store.metrics();
    if !folded {
        println!("  nothing to fold: level files are small enough to be rewritten");
        return;
    }
    commits.sort_unstable();
    let (bytes, syncs) = (after.total.bytes - before.total.bytes, after.total.syncs - before.total.syncs);
    println!("  a fold beside {} commits: {bytes} bytes and {syncs} syncs with theirs, {took:.1?}", commits.len());
    let (median, longest) = (commits[commits.len() / 2], commits[commits.len() - 1]);
    let shown = format!("{longest:.1?} (median {median:.1?})");
    // Where a fold is short one commit may meet the whole of its last steps, and of the disk's other work.
    let wanted = (took / 4).max(Duration::from_millis(100));
    verdict.holds("longest commit beside it", shown, &format!("at most {wanted:.1?}"), longest <= wanted);
}

fn replace(keyspace: KeyspaceId, removed: Option<TableId>, added: AddedTable) -> Change {
    let removed = removed.map(|id| (Level::LAST, id)).into_iter().collect();
    Change::ReplaceTables { keyspace, removed, added: vec![added], flushed_seqno: None }
}

/// Table `id` in the last level, with the keys of the `place`-th of its neighbours.
fn added(id: u64, place: u64) -> AddedTable {
    let table = TableEntry {
        id: TableId(id + 1),
        epoch: Epoch(1),
        bytes: TABLE_BYTES,
        min_key: format!("key-{place:012}-a").into_bytes().into(),
        max_key: format!("key-{place:012}-z").into_bytes().into(),
        checksum: id,
        min_seqno: SeqNo::new(1).expect("one is a sequence number"),
        max_seqno: SeqNo::new(id + 1).expect("few tables"),
        entries: 2000,
        tombstones: 0,
        logical_bytes: TABLE_BYTES,
        job: JobId(id + 1),
        seqno_base: 0,
        newest_unix_ms: 0,
    };
    AddedTable { level: Level::LAST, run: Epoch(1), table: Arc::new(table) }
}

/// Opens a database of 10,000 tables in a process of its own.
fn opening(arguments: &Arguments, verdict: &mut Verdict) {
    const TABLES: u64 = 10_000;
    let dir = arguments.fresh_dir();
    let database = Database::open(dir.path()).expect("a database can be created");
    let options = KeyspaceOptions::default().table_bytes(4 << 10).compression(lsm_facade::Compression::None);
    let keyspace = database.create_keyspace("rows", options).expect("a keyspace can be created");
    // A table holds one block of about 4 KiB.
    let value = [7; 4000];
    for row in 0..TABLES + 100 {
        keyspace.insert(row.to_be_bytes(), value).expect("an insert succeeds");
    }
    keyspace.flush().expect("a flush succeeds");
    database.wait_until_idle().expect("jobs succeed");
    let tables: u64 = keyspace.stats().levels.iter().map(|level| level.tables).sum();
    assert!(tables >= TABLES, "only {tables} tables were made");
    drop(keyspace);
    database.close().expect("a close succeeds");
    drop(database);
    let program = std::env::current_exe().expect("a program knows its path");
    let output = Command::new(program).arg("open").arg(dir.path()).output().expect("a process can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("the child prints numbers");
    let mut figures = text.split_whitespace().map(|word| word.parse::<f64>().expect("the child prints numbers"));
    let mut next = || figures.next().expect("the child prints three numbers");
    let (ms, mib, processor_ms) = (next(), next(), next());
    println!("\n{tables} tables, opened with {processor_ms:.1} ms of a processor:");
    verdict.holds("opening, ms", format!("{ms:.1}"), "less than 100", ms < 100.0);
    verdict.holds("anonymous memory after it, MiB", format!("{mib:.1}"), "less than 64", mib < 64.0);
}

/// How long this thread has had a processor; zero where the system does not tell.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0))
}

/// Opens the database in `dir`, prints the time in milliseconds, the anonymous memory in MiB and the milliseconds of this
/// thread's that it had a processor, then reads a row of every hundredth table.
pub(crate) fn open_child(dir: &str) {
    let (begun, processor) = (Instant::now(), processor_time());
    let database = Database::open(Path::new(dir)).expect("the database opens");
    let (opened, processor) = (begun.elapsed(), processor_time() - processor);
    let memory = AnonymousMemory::now().unwrap_or(0);
    let (opened, processor) = (opened.as_secs_f64() * 1e3, processor.as_secs_f64() * 1e3);
    println!("{opened} {} {processor}", memory as f64 / f64::from(1 << 20));
    let keyspace = database.keyspace("rows").expect("the keyspace is there");
    for row in (0..10_000_u64).step_by(100) {
        let found = keyspace.get(row.to_be_bytes()).expect("a get succeeds").expect("the row is there");
        assert_eq!(&*found, [7; 4000]);
    }
}
