//! Random manifests and edits, for the property tests of the formats.

use std::collections::BTreeMap;
use std::sync::Arc;

use internal_key::{Epoch, JobId, KeyspaceId, Level, SegmentId, SeqNo, TableId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::{
    AddedTable, Change, Claim, DatabaseId, Edit, KeyspaceState, LevelState, LogFloor, Manifest, RunEntry, TableEntry,
};

/// Numbers with the edges: small, around 2^53, the largest.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, (1_u64 << 53) - 2..(1 << 53) + 2, any::<u64>(), Just(u64::MAX)]
}

fn seqno() -> impl Strategy<Value = SeqNo> {
    prop_oneof![0..1000_u64, 0..=SeqNo::MAX.get()].prop_map(|number| SeqNo::new(number).unwrap())
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(b'a'..b'e', 0..4), vec(any::<u8>(), 0..12)]
}

pub(crate) fn table() -> impl Strategy<Value = TableEntry> {
    let keys = [key(), key()].prop_map(|mut keys| {
        keys.sort();
        keys
    });
    let seqnos = [seqno(), seqno()].prop_map(|[left, right]| (left.min(right), left.max(right)));
    let numbers = (number(), any::<u64>(), number(), number(), number(), number());
    let optional = [prop_oneof![Just(0), number()], prop_oneof![Just(0), number()]];
    (number(), keys, seqnos, numbers, optional).prop_map(
        |(id, [min_key, max_key], (min_seqno, max_seqno), numbers, [seqno_base, newest_unix_ms])| {
            let (bytes, checksum, entries, tombstones, logical_bytes, job) = numbers;
            TableEntry {
                id: TableId(id),
                bytes,
                checksum,
                min_key: min_key.into(),
                max_key: max_key.into(),
                min_seqno,
                max_seqno,
                entries,
                tombstones,
                logical_bytes,
                epoch: Epoch(id / 2),
                job: JobId(job),
                seqno_base,
                newest_unix_ms,
            }
        },
    )
}

/// Runs as a level holds them: newest first, tables ascending and disjoint, ids unique.
pub(crate) fn runs() -> impl Strategy<Value = Vec<RunEntry>> {
    vec(vec(table(), 1..5), 0..4).prop_map(|runs| {
        let mut id = 0;
        let count = runs.len() as u64;
        runs.into_iter()
            .zip(0..)
            .map(|(mut tables, number)| {
                tables.sort_by(|left, right| left.min_key.cmp(&right.min_key));
                let mut disjoint: Vec<Arc<TableEntry>> = Vec::new();
                for mut table in tables {
                    id += 1;
                    table.id = TableId(id);
                    if disjoint.last().is_none_or(|before| before.max_key < table.min_key) {
                        disjoint.push(Arc::new(table));
                    }
                }
                RunEntry { epoch: Epoch(count - number), tables: disjoint }
            })
            .collect()
    })
}

fn options() -> impl Strategy<Value = BTreeMap<String, serde_json::Value>> {
    let value = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter("JSON has no infinities", |number| number.is_finite()).prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
        vec(any::<u32>(), 0..3).prop_map(Into::into),
    ];
    btree_map(".{0,8}", value, 0..4)
}

/// A manifest as `global.json` holds it: levels have a generation and a checksum, or are empty.
pub(crate) fn manifest() -> impl Strategy<Value = Manifest> {
    let level = prop_oneof![Just(None), (1..100_u64, any::<u64>()).prop_map(Some)];
    let keyspace = ("k.{0,6}", options(), [seqno(), seqno(), seqno()], vec(level, Level::COUNT));
    let counters = (any::<u128>(), 100..1_000_000_u64, [number(), number(), number(), number()]);
    let log = (seqno(), (number(), any::<u64>()), (number(), number()), any::<bool>());
    (counters, log, btree_map(0..u32::MAX, keyspace, 0..4)).prop_map(|(counters, log, keyspaces)| {
        let (database_id, generation, [table, segment, job, epoch]) = counters;
        let (last_seqno, (floor, salt), (claim, offset), closed_cleanly) = log;
        let mut manifest = Manifest {
            database_id: DatabaseId(database_id),
            generation,
            next_table_id: TableId(table),
            next_segment_id: SegmentId(segment),
            next_keyspace_id: KeyspaceId(keyspaces.keys().next_back().map_or(1, |id| id + 1)),
            next_job_id: JobId(job),
            next_epoch: Epoch(epoch),
            last_seqno,
            log_floor: LogFloor { segment: SegmentId(floor), salt },
            claim: Claim { segment: SegmentId(claim), offset },
            closed_cleanly,
            keyspaces: BTreeMap::new(),
        };
        for (id, (name, options, [created_seqno, flushed_seqno, history_floor], levels)) in keyspaces {
            let levels = levels.into_iter().map(|file| {
                let (generation, checksum) = file.unwrap_or_default();
                Arc::new(LevelState { runs: Vec::new(), generation, checksum })
            });
            let state = KeyspaceState {
                id: KeyspaceId(id),
                name: format!("{name}{id}"),
                options,
                created_seqno,
                flushed_seqno,
                history_floor,
                levels: levels.collect(),
            };
            manifest.keyspaces.insert(state.id, Arc::new(state));
        }
        manifest
    })
}

fn change() -> impl Strategy<Value = Change> {
    let keyspace = || any::<u32>().prop_map(KeyspaceId);
    let place = || (0..Level::COUNT as u8, number());
    let added = (place(), table()).prop_map(|((level, run), table)| AddedTable {
        level: Level(level),
        run: Epoch(run),
        table: Arc::new(table),
    });
    let removed = place().prop_map(|(level, id)| (Level(level), TableId(id)));
    prop_oneof![
        (keyspace(), ".{0,8}", options(), seqno()).prop_map(|(id, name, options, created_seqno)| {
            Change::CreateKeyspace { id, name, options, created_seqno }
        }),
        keyspace().prop_map(|id| Change::DropKeyspace { id }),
        (keyspace(), seqno()).prop_map(|(id, at)| Change::ClearKeyspace { id, at }),
        (keyspace(), vec(removed, 0..3), vec(added, 0..3), proptest::option::of(seqno())).prop_map(
            |(keyspace, removed, added, flushed_seqno)| {
                Change::ReplaceTables { keyspace, removed, added, flushed_seqno }
            }
        ),
        (keyspace(), seqno()).prop_map(|(keyspace, to)| Change::RaiseHistoryFloor { keyspace, to }),
        (number(), number())
            .prop_map(|(segment, offset)| { Change::RaiseClaim(Claim { segment: SegmentId(segment), offset }) }),
        (number(), any::<u64>())
            .prop_map(|(segment, salt)| { Change::RaiseLogFloor(LogFloor { segment: SegmentId(segment), salt }) }),
        seqno().prop_map(Change::RaiseLastSeqno),
        (number(), number(), number(), number()).prop_map(|(table, segment, job, epoch)| Change::RaiseNextIds {
            table: TableId(table),
            segment: SegmentId(segment),
            job: JobId(job),
            epoch: Epoch(epoch),
        }),
        any::<bool>().prop_map(Change::SetClosedCleanly),
        Just(Change::EndLog),
    ]
}

pub(crate) fn edit() -> impl Strategy<Value = Edit> {
    vec(change(), 0..4).prop_map(|changes| Edit { changes })
}
