//! `docs/format.md` shows the bytes that this crate writes.
#![cfg(not(loom))]

mod common;

use common::{RealDirectory, create, read_file};
use file_system::LogFileWay;
use write_ahead_log::LogOptions;

/// L2: the worked example is what a log of one record holds.
#[test]
fn the_worked_example_is_true() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let document = std::fs::read_to_string(document).unwrap();
    let (_, section) = document.split_once("\n## The log\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let mut shown = Vec::new();
    for line in section.lines() {
        // Rows are an offset of four digits, two spaces, bytes, and three spaces before what they mean.
        let Some((offset, rest)) = line.split_once("  ") else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        if line.find("  ") != Some(4) {
            continue;
        }
        assert_eq!(offset, shown.len(), "rows follow each other: {line}");
        let bytes = rest.split_once("   ").map_or(rest, |(bytes, _)| bytes);
        shown.extend(bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    let place = RealDirectory::new();
    let options = LogOptions {
        segment_bytes: 4096,
        segment_bytes_first: 4096,
        way: LogFileWay::Mapped,
        populate_bytes: 4096,
        recycled_max: 1,
    };
    let (mut open, _) = create(&place.environment, &place.dir, options).unwrap();
    open.append_batch(5).unwrap();
    let written = read_file(&place.environment, &place.dir.join("1.wal"));
    assert_eq!(shown.len(), 64 + 32, "the example shows header and record");
    assert_eq!(shown, written[..shown.len()]);
}
