//! What is read of a damaged table: every whole block, nothing that was not written, and the ranges in between (T2).

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Tables, random_options, random_rows};
use internal_key::OwnedInternalKey;
use sstable_format::{Salvaged, TableError, salvage};
use test_support::{Rng, for_each_seed};
use xxhash_rust::xxh3::xxh3_64;

type Rows = BTreeMap<OwnedInternalKey, Vec<u8>>;

fn salvaged(tables: &Tables, table: u64) -> Result<(Rows, Salvaged), TableError> {
    let mut rows = Rows::new();
    let report = salvage(&*tables.files, &tables.path(table), |key, value| {
        assert!(rows.insert(key.to_owned(), value.to_vec()).is_none(), "T2: no entry twice");
        Ok::<(), TableError>(())
    })?;
    assert_eq!(report.entries, rows.len() as u64);
    Ok((rows, report))
}

/// T2: without damage all is there; with damage only what lies in the ranges reported is missing.
#[test]
fn only_what_is_reported_is_lost() {
    let mut lost_in_part = 0;
    for_each_seed(0..150, |rng: &mut Rng| {
        let mut tables = Tables::new();
        let count = 1 + rng.index(300);
        let rows = random_rows(rng, count);
        let (table, _) = tables.write(&rows, random_options(rng));
        let written: Rows = rows.into_iter().collect();
        let (found, report) = salvaged(&tables, table).unwrap();
        assert!(found == written && report.lost.is_empty(), "{report:?}");

        let whole = fs::read(tables.path(table)).unwrap();
        for _ in 0..6 {
            let mut bytes = whole.clone();
            let at = rng.index(bytes.len());
            let end = (at + 1 + rng.index(600)).min(bytes.len());
            match rng.below(4) {
                0 => bytes[at] ^= 1 << rng.below(8),
                1 => bytes[at..end].fill(0),
                2 => bytes[at..end].copy_from_slice(&rng.bytes(end - at)),
                _ => bytes.truncate(at.max(64)),
            }
            fs::remove_file(tables.path(table)).unwrap();
            fs::write(tables.path(table), &bytes).unwrap();
            let (found, report) = match salvaged(&tables, table) {
                Ok(found) => found,
                // Neither the header nor the footer tells the salt.
                Err(TableError::Corrupt(_)) => continue,
                Err(error) => panic!("{error}"),
            };
            for (key, value) in &found {
                assert_eq!(written.get(key), Some(value), "T2: nothing is read that was not written");
            }
            lost_in_part += u64::from(!found.is_empty() && found.len() < written.len());
            for key in written.keys().filter(|key| !found.contains_key(*key)) {
                let covered = report.lost.iter().any(|lost| {
                    lost.after.as_ref().is_none_or(|after| **after <= *key.user_key)
                        && lost.before.as_ref().is_none_or(|before| *key.user_key <= **before)
                });
                assert!(covered, "{} is lost, and {report:?} does not say so", key.user_key.escape_ascii());
            }
        }
    });
    assert!(lost_in_part > 50, "{lost_in_part} tables lost a part");
}

/// T2: bytes that look like a frame everywhere, each as long as the file, are not all hashed: the time is in proportion to
/// the file. Without that bound this would hash two terabytes.
#[test]
fn a_hostile_table_costs_time_in_proportion_to_its_size() {
    let tables = Tables::new();
    let mut bytes = vec![0; 8 << 20];
    bytes[..8].copy_from_slice(b"lsmtable");
    bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&64_u32.to_le_bytes());
    let salt = xxh3_64(&bytes[..56]);
    bytes[56..64].copy_from_slice(&salt.to_le_bytes());
    for frame in bytes[64..].chunks_exact_mut(16) {
        frame[..4].copy_from_slice(&(4_u32 << 20).to_le_bytes());
        frame[4..8].copy_from_slice(&(4_u32 << 20).to_le_bytes());
        frame[8] = 1;
    }
    fs::write(tables.path(1), &bytes).unwrap();
    let (rows, report) = salvaged(&tables, 1).unwrap();
    assert!(rows.is_empty() && report.lost.len() == 1, "{report:?}");
}
