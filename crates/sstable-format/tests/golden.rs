//! Stories of tables, as scripts: entries in, the table drawn.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use common::{Row, Tables, row};
use internal_key::{Cursor, InternalKey, Kind, SeqNo};
use sstable_format::{
    Access, BlockCache, Compression, Detail, ReadOptions, TableCursor, TableOptions, TableReader, inspect, verify,
};
use test_support::{Command, Fixture};
use xxhash_rust::xxh3::xxh3_64;

/// `table [block=N] [partition=N] [large=N] [filter=N] [compression=lz4] [base=N]` writes the rows under it, one a line
/// as `key seqno kind [value] [times=N]`, and draws the table.
struct Shelf {
    tables: Tables,
    table: Option<Arc<TableReader>>,
    cursor: Option<TableCursor>,
}

fn parse_row(line: &Command) -> Row {
    let kind = Kind::ALL.into_iter().find(|kind| kind.to_string() == line.arg(1)).expect("a kind");
    let value = if line.args().len() > 2 && !line.arg(2).starts_with("times=") { line.bytes(2) } else { Vec::new() };
    let times = line.option_or("times", 1);
    let key = line.bytes_of_name();
    row(&key, line.parse(0), kind, &value.repeat(times))
}

trait BytesOfName {
    fn bytes_of_name(&self) -> Vec<u8>;
}

impl BytesOfName for Command {
    fn bytes_of_name(&self) -> Vec<u8> {
        test_support::unescape(self.name()).expect("a key")
    }
}

impl Shelf {
    fn reader(&self) -> &Arc<TableReader> {
        self.table.as_ref().expect("a table first")
    }

    fn cursor_text(&mut self) -> String {
        let cursor = self.cursor.as_mut().expect("a cursor");
        if !cursor.valid() {
            return "nothing".to_owned();
        }
        let key = cursor.key().to_string();
        format!("{key} = \"{}\"", cursor.value().expect("a value").escape_ascii())
    }
}

impl Fixture for Shelf {
    fn run(&mut self, command: &Command) -> String {
        let seqno = |text: &str| SeqNo::new(text.parse().expect("a seqno")).expect("a small seqno");
        match command.name() {
            "table" => {
                let options = TableOptions {
                    block_bytes: command.option_or("block", 4096),
                    index_partition_bytes: command.option_or("partition", 128 << 10),
                    large_value_bytes: command.option_or("large", 64 << 10),
                    filter_bits_per_key: command.option_or("filter", 10),
                    compression: match command.option("compression") {
                        Some("lz4") => Compression::Lz4,
                        _ => Compression::None,
                    },
                    ..TableOptions::default()
                };
                let rows: Vec<Row> = command.body_commands().map(|line| parse_row(&line)).collect();
                let (table, _) = self.tables.write(&rows, options);
                let read =
                    ReadOptions { access: Access::Mapped, block_cache: Some(Arc::new(BlockCache::new(1 << 20))) };
                let reader = self.tables.open(table, command.option_or("base", 0), read).expect("an open table");
                self.cursor = Some(reader.cursor());
                self.table = Some(reader);
                verify(self.reader()).expect("a sound table");
                let mut text = Vec::new();
                inspect(self.reader(), Detail::Entries, &mut |line| {
                    text.push(line.to_owned());
                    ControlFlow::Continue(())
                })
                .expect("a sound table");
                text.join("\n")
            }
            "get" => {
                let key = command.bytes(0);
                match self.reader().get(&key, xxh3_64(&key), seqno(command.arg(1))).expect("a sound table") {
                    Some(found) => format!("{} = \"{}\"", found.trailer, found.value.as_slice().escape_ascii()),
                    None => "nothing".to_owned(),
                }
            }
            "seek" | "seek_before" => {
                let key = command.bytes(0);
                let target = InternalKey::seek(&key, seqno(command.arg(1)));
                let cursor = self.cursor.as_mut().expect("a cursor");
                if command.name() == "seek" { cursor.seek(target) } else { cursor.seek_before(target) }
                    .expect("a seek");
                self.cursor_text()
            }
            "next" | "prev" => {
                let cursor = self.cursor.as_mut().expect("a cursor");
                if command.name() == "next" { cursor.next() } else { cursor.prev() }.expect("a step");
                self.cursor_text()
            }
            _ => command.unknown(),
        }
    }
}

/// T1, T3: what is written is what is drawn.
#[test]
fn golden_scripts() {
    test_support::run_scripts("tests/golden", || Shelf { tables: Tables::new(), table: None, cursor: None });
}
