//! How much there is ahead of a range that is to be compacted, for who wants to see how far it is.

use internal_key::Level;
use version_history::{Table, Version};

use crate::pick::KeyRange;

/// Estimates how many bytes the steps of a range will read in all, from `version` on: what lies above goes down level by
/// level, and on each takes along what it meets there. Rewriting tombstones of the last level is left out.
pub fn bytes_ahead<S>(version: &Version<S>, range: KeyRange<'_>) -> u64 {
    let mut ahead = 0_u64;
    // What goes down so far: its bytes, its smallest and its largest key.
    let mut going: Option<(u64, &[u8], &[u8])> = None;
    for level in (0..Level::COUNT as u8).map(Level) {
        let is_last = level == Level::LAST;
        let tables = || version.runs(level).iter().flat_map(|run| run.tables());
        let several = is_last
            && version.runs(level).iter().filter(|run| run.tables().iter().any(|it| range.overlaps(it))).count() > 1;
        let met = |table: &Table<S>| {
            let on_the_way =
                going.is_some_and(|(_, min, max)| *min <= *table.entry.max_key && *table.entry.min_key <= *max);
            on_the_way || (!is_last && range.wants(table)) || (several && range.overlaps(table))
        };
        let mut next = going;
        let mut met_bytes = 0;
        for table in tables().filter(|table| met(table)) {
            let (min, max) = (&*table.entry.min_key, &*table.entry.max_key);
            met_bytes += table.entry.bytes;
            next = Some(next.map_or((table.entry.bytes, min, max), |(bytes, smallest, largest)| {
                (bytes + table.entry.bytes, smallest.min(min), largest.max(max))
            }));
        }
        // A step from the level above into this one, if there is anything to take along or nowhere else to go.
        if let Some((bytes, ..)) = going.filter(|_| met_bytes > 0 || is_last) {
            ahead += bytes + met_bytes;
        } else if several {
            ahead += met_bytes;
        }
        going = next;
    }
    ahead
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use internal_key::{Epoch, JobId, KeyspaceId, SeqNo, TableId};
    use manifest::{AddedTable, TableEntry};
    use version_history::DroppedTables;

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl DroppedTables for Nobody {
        fn table_dropped(&self, _: KeyspaceId, _: TableId) {}
    }

    fn version(tables: &[(u8, u64, &str, &str, u64)]) -> Version<()> {
        let added: Vec<_> = (tables.iter().zip(1..))
            .map(|(&(level, run, min, max, bytes), id)| {
                let table = Arc::new(TableEntry {
                    id: TableId(id),
                    bytes,
                    checksum: 0,
                    min_key: min.as_bytes().into(),
                    max_key: max.as_bytes().into(),
                    min_seqno: SeqNo::ZERO,
                    max_seqno: SeqNo::ZERO,
                    entries: 1,
                    tombstones: 0,
                    logical_bytes: bytes,
                    epoch: Epoch(run),
                    job: JobId(0),
                    seqno_base: 0,
                    newest_unix_ms: 0,
                });
                let handle = Arc::new(Table::new(KeyspaceId(1), table.clone(), (), Weak::<Nobody>::new()));
                (AddedTable { level: Level(level), run: Epoch(run), table }, handle)
            })
            .collect();
        Version::default().replace(&[], &added).unwrap()
    }

    #[test]
    fn what_goes_down_takes_along_what_it_meets() {
        let everything = KeyRange { min: b"", max: None, rewrite_before: TableId(0), through: SeqNo::MAX };
        let ahead = |tables: &[_]| bytes_ahead(&version(tables), everything);
        assert_eq!(ahead(&[]), 0);
        assert_eq!(ahead(&[(6, 1, "a", "z", 100)]), 0, "it is there");
        assert_eq!(ahead(&[(0, 2, "a", "z", 10), (0, 1, "a", "z", 10)]), 20);
        assert_eq!(ahead(&[(0, 2, "a", "z", 10), (6, 1, "a", "z", 100)]), 110);
        // 10 + 30 into level 4, then 40 + 100 into level 6.
        assert_eq!(ahead(&[(0, 3, "a", "z", 10), (4, 2, "a", "z", 30), (6, 1, "a", "z", 100)]), 180);
        assert_eq!(ahead(&[(6, 2, "a", "z", 10), (6, 1, "a", "z", 100)]), 110, "two runs become one");
        let part = KeyRange { min: b"a", max: Some(b"c"), ..everything };
        let tables = [(5, 2, "a", "b", 10), (5, 2, "m", "n", 10), (6, 1, "a", "f", 100), (6, 1, "g", "z", 100)];
        assert_eq!(bytes_ahead(&version(&tables), part), 110, "what lies elsewhere stays there");
    }
}
