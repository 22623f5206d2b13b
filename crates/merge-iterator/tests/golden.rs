//! Golden scripts: sources of versions in, what a reader sees printed back.
//!
//! ```text
//! sources                       one source a line, newest first; an entry is key#seqno kind[=value]
//!   a#9 delete, b#2 put=x
//! entries                       the merge of them, with the source of each
//! rows at=6 [from=K] [until=K]  what a reader sees, K included and excluded, forwards; then checks the way back
//! walk at=6 seek:b next prev    one move after the other, and where each ends
//! ```

use std::ops::Bound;

use internal_key::{Cursor, Kind, SeqNo, Trailer};
use merge_iterator::slice::SliceEntry;
use merge_iterator::{MergeCursor, SliceCursor, VisibleCursor};
use test_support::{Command, Fixture};

#[derive(Default)]
struct Sources(Vec<SliceCursor>);

fn parse_entry(text: &str) -> SliceEntry {
    let (entry, value) = text.split_once('=').unwrap_or((text, ""));
    let (key, rest) = entry.trim().split_once('#').expect("key#seqno kind");
    let (seqno, kind) = rest.split_once(' ').expect("seqno kind");
    let seqno = SeqNo::new(seqno.parse().expect("a number")).expect("a seqno");
    let kind = Kind::ALL.into_iter().find(|known| known.to_string() == kind).expect("a kind");
    (key.as_bytes().to_vec(), Trailer::new(seqno, kind), value.as_bytes().to_vec())
}

impl Sources {
    fn merge(&self) -> MergeCursor<SliceCursor> {
        MergeCursor::new(self.0.clone())
    }

    fn entries(&self) -> String {
        let mut merge = self.merge();
        let mut printed = String::new();
        let Ok(()) = merge.seek_to_first();
        while let Some(source) = merge.source_index() {
            printed += &format!("{} from {source}\n", merge.key());
            let Ok(()) = merge.next();
        }
        printed
    }

    fn seen(&self, command: &Command) -> VisibleCursor<MergeCursor<SliceCursor>> {
        let at = SeqNo::new(command.option_or("at", SeqNo::MAX.get())).expect("a seqno");
        let from = command.option("from").map_or(Bound::Unbounded, |key| Bound::Included(key.as_bytes()));
        let until = command.option("until").map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_bytes()));
        VisibleCursor::new(self.merge(), at, (from, until))
    }

    fn rows(&self, command: &Command) -> String {
        let mut ways = [Vec::new(), Vec::new()];
        for (rows, forward) in ways.iter_mut().zip([true, false]) {
            let mut seen = self.seen(command);
            let mut moved = if forward { seen.seek_to_first() } else { seen.seek_to_last() };
            while moved.is_ok() && seen.valid() {
                rows.push(stand(&mut seen));
                moved = if forward { seen.next() } else { seen.prev() };
            }
            if let Err(error) = moved {
                rows.push(format!("error: {error}"));
            }
        }
        let [forward, mut backward] = ways;
        if !forward.iter().any(|row| row.starts_with("error")) {
            backward.reverse();
            assert_eq!(forward, backward, "I4: line {}: the way back differs", command.line_number());
        }
        forward.join("\n")
    }

    fn walk(&self, command: &Command) -> String {
        let mut seen = self.seen(command);
        let mut printed = String::new();
        for step in command.args().iter().filter(|arg| !arg.contains('=')) {
            let moved = match step.split_once(':') {
                Some(("seek", key)) => seen.seek(key.as_bytes()),
                Some(("seek-for-prev", key)) => seen.seek_for_prev(key.as_bytes()),
                None if step == "first" => seen.seek_to_first(),
                None if step == "last" => seen.seek_to_last(),
                None if step == "next" => seen.next(),
                None if step == "prev" => seen.prev(),
                _ => command.unknown(),
            };
            let end = match moved {
                Ok(()) => stand(&mut seen),
                Err(error) => format!("error: {error}"),
            };
            printed += &format!("{step} -> {end}\n");
        }
        printed
    }
}

fn stand(seen: &mut VisibleCursor<MergeCursor<SliceCursor>>) -> String {
    if !seen.valid() {
        return "nowhere".to_string();
    }
    let key = format!("{}{}", seen.user_key().escape_ascii(), seen.trailer());
    format!("{key}={}", seen.value().expect("memory does not fail").escape_ascii())
}

impl Fixture for Sources {
    fn run(&mut self, command: &Command) -> String {
        match command.name() {
            "sources" => {
                let source = |line: &str| SliceCursor::new(line.split(", ").map(parse_entry).collect::<Vec<_>>());
                self.0 = command.body().lines().map(source).collect();
                String::new()
            }
            "entries" => self.entries(),
            "rows" => self.rows(command),
            "walk" => self.walk(command),
            _ => command.unknown(),
        }
    }
}

/// I1, I4, I5: the stories in `tests/golden`.
#[test]
fn golden_scripts() {
    test_support::run_scripts("tests/golden", Sources::default);
}
