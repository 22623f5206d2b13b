//! Two sources of versions, their one order, and what readers at three seqnos see of it.
//!
//! `cargo run -p merge-iterator --example merge-iterator`

use std::ops::Bound;

use internal_key::{Cursor, Kind, SeqNo, Trailer};
use merge_iterator::{MergeCursor, SliceCursor, VisibleCursor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let entry = |key: &str, seqno: u64, kind, value: &str| {
        let seqno = SeqNo::new(seqno).expect("a small number");
        (key.as_bytes().to_vec(), Trailer::new(seqno, kind), value.as_bytes().to_vec())
    };
    let newer = SliceCursor::new([
        entry("ant", 9, Kind::Delete, ""),
        entry("bee", 7, Kind::Put, "queen"),
        entry("cat", 8, Kind::Put, "tom"),
    ]);
    let older = SliceCursor::new([
        entry("ant", 3, Kind::Put, "worker"),
        entry("bee", 1, Kind::Put, "drone"),
        entry("dog", 4, Kind::Put, "pup"),
    ]);

    let mut merge = MergeCursor::new(vec![newer, older]);
    println!("all entries, and the source each comes from:");
    merge.seek_to_first()?;
    while let Some(source) = merge.source_index() {
        println!("  {} (source {source})", merge.key());
        merge.next()?;
    }

    for at in [2, 7, 9] {
        let seqno = SeqNo::new(at).expect("a small number");
        let bounds = (Bound::Included(&b"ant"[..]), Bound::Excluded(&b"dog"[..]));
        let mut seen = VisibleCursor::new(merge, seqno, bounds);
        let mut rows = Vec::new();
        seen.seek_to_last()?;
        while seen.valid() {
            let key = seen.user_key().escape_ascii().to_string();
            rows.push(format!("{key}={}", seen.value()?.escape_ascii()));
            seen.prev()?;
        }
        println!("ant..dog at {seqno}, backwards: {}", rows.join(" "));
        merge = seen.into_inner();
    }
    Ok(())
}
