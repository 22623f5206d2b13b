//! Harness of the fuzz target `cli`: what must hold of the rows that `lsm load` reads, whatever the input's bytes.
//!
//! Only in tests and under `--cfg fuzzing`. It takes one input and panics where a property fails.

use crate::rows::{Format, Next, Row, RowError, RowOptions, RowReader};

/// First byte: bits 0 and 1, the format; bit 2, a header; bits 3 and 4, the column of the value, if not 0; bit 5,
/// records of at most 16 bytes. The rest is the input: every byte and line counts once, a reader takes up at any place
/// that another was at, and rows are no longer than the input.
pub fn cli(input: &[u8]) {
    let Some((&mode, text)) = input.split_first() else { return };
    let format = [Format::Tsv, Format::Csv, Format::Jsonl, Format::Lines][usize::from(mode & 3)];
    let plain = RowOptions::new(format);
    let options = RowOptions {
        header: mode & 4 != 0,
        value_column: (mode >> 3 & 3 != 0).then(|| (mode >> 3 & 3).to_string()),
        record_bytes_max: if mode & 32 == 0 { plain.record_bytes_max } else { 16 },
        ..plain
    };
    let Ok(mut reader) = RowReader::new(text, options.clone()) else { return };
    let (mut row, mut places, mut rest) = (Row::default(), Vec::new(), Vec::new());
    loop {
        let next = match reader.next(&mut row) {
            Ok(next) => next,
            Err(RowError::Column(_)) => return,
            Err(RowError::Io(error)) => panic!("reading from memory does not fail: {error}"),
        };
        if next == Next::Row {
            // A number that stands for a line is longer than the line may be.
            assert!(row.value.len() <= text.len() && row.key.len() <= text.len().max(20), "a row is part of the input");
        }
        let end = next == Next::End;
        places.push(reader.position());
        rest.push((next, row.clone()));
        if end {
            break;
        }
    }
    let end = reader.position();
    assert_eq!(end.offset, text.len() as u64, "every byte is counted once");
    let lines = text.split_inclusive(|&byte| byte == b'\n').count();
    assert_eq!(end.line, lines as u64, "every line is counted once");
    assert!(places.windows(2).all(|pair| pair[0].offset <= pair[1].offset), "a reader moves on");

    let middle = places.len() / 2;
    let again = RowReader::resume(text, options, places[middle]).expect("the columns are the same");
    let mut again = again.expect("the bytes are the same");
    for (expected, expected_row) in &rest[middle + 1..] {
        let next = again.next(&mut row).expect("it was read before");
        assert_eq!(next, *expected, "what is taken up goes on as before");
        assert!(next != Next::Row || row == *expected_row, "what is taken up goes on as before");
    }
}

#[cfg(test)]
mod tests {
    use test_support::fuzz_twin;

    use super::*;

    /// Input of any bytes: no panic, every byte and line counted once, and any place can be returned to.
    #[test]
    fn cli_holds_for_any_bytes() {
        let with_mode = |mode: u8, text: &[u8]| [&[mode], text].concat();
        let samples = [
            ("tsv", with_mode(0, b"apple\tred\n\nlime\tgreen\tsour\nlonely\n\tempty key\n")),
            ("csv", with_mode(1 | 4, b"name,colour\r\napple,\"red, \"\"mostly\"\"\"\r\nlime,\"two\nlines\"\n\"open,1\nd,4\n")),
            ("jsonl", with_mode(2, b"{\"key\":\"a\\n\\u00e9\",\"value\":\"x\"}\n{\"key\":7,\"value\":{\"z\": [1, 2.5e3]}}\n[1]\n{\"key\":\"k\"}\n")),
            ("lines", with_mode(3, b"one\r\n\n\xffthree")),
            ("short-records", with_mode(1 | 8 | 32, b"a,1\nb,\"345678901234567890\"\n\"c\nd\",3\n")),
        ];
        fuzz_twin("cli", &samples, 2000, cli);
    }
}
