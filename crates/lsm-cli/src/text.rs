//! Keys and values as text: escapes that can be read back, or hexadecimal digits.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Write};

use crate::failure::{Failure, Outcome};

/// How keys and values look on the command line and in the output.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct BytesForm {
    /// Keys and values are hexadecimal digits, in arguments and in the output
    #[arg(long, conflicts_with = "escaped")]
    hex: bool,
    /// Arguments hold escapes as the output does: \\ \n \r \t \xNN
    #[arg(long)]
    escaped: bool,
}

impl BytesForm {
    /// The bytes that an argument stands for: those it has, unless told otherwise.
    pub(crate) fn read(self, argument: &OsStr) -> Outcome<Vec<u8>> {
        let bytes = argument.as_encoded_bytes();
        let parsed = match (self.hex, self.escaped) {
            (true, _) => parse_hex(bytes),
            (_, true) => unescape(bytes),
            _ => Ok(bytes.to_vec()),
        };
        parsed.map_err(|what| Failure::usage(format_args!("argument {argument:?}: {what}")))
    }

    /// Writes bytes so that they stay on one line and can be read back.
    pub(crate) fn write(self, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        if self.hex {
            let mut text = String::with_capacity(2 * bytes.len());
            for byte in bytes {
                let _ = write!(text, "{byte:02x}");
            }
            out.write_all(text.as_bytes())
        } else if bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\') {
            out.write_all(bytes)
        } else {
            out.write_all(escape(bytes).as_bytes())
        }
    }
}

/// Text as it is; `\\`, `\n`, `\r`, `\t`; `\xNN` for other control characters and for bytes that are not UTF-8.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                char if char.is_control() => {
                    for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                        let _ = write!(text, "\\x{byte:02x}");
                    }
                }
                char => text.push(char),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// What [`escape`] made its text of.
fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (escaped, after) = match rest {
            [b'\\', after @ ..] => (b'\\', after),
            [b'n', after @ ..] => (b'\n', after),
            [b'r', after @ ..] => (b'\r', after),
            [b't', after @ ..] => (b'\t', after),
            [b'x', high, low, after @ ..] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => return Err("\\x wants two hexadecimal digits".to_owned()),
            },
            _ => return Err("a backslash wants one of \\ n r t xNN after it".to_owned()),
        };
        bytes.push(escaped);
        rest = after;
    }
    Ok(bytes)
}

fn parse_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!("expected an even number of hexadecimal digits, found {}", text.len()));
    }
    let bytes = pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?));
    bytes.collect::<Option<_>>().ok_or_else(|| "expected hexadecimal digits".to_owned())
}

fn digit(text: u8) -> Option<u8> {
    char::from(text).to_digit(16).map(|digit| digit as u8)
}

/// A number with its thousands set apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        assert_eq!(escape("día\\\n\t\0\u{85}".as_bytes()), "día\\\\\\n\\t\\x00\\xc2\\x85");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert!(unescape(b"\\").is_err() && unescape(b"\\x1").is_err() && unescape(b"\\q").is_err());
        assert!(parse_hex(b"0").is_err() && parse_hex(b"0g").is_err());
        assert_eq!(parse_hex(b"00fF"), Ok(vec![0, 255]));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: Vec<u8>) {
            let escaped = escape(&bytes);
            prop_assert!(!escaped.contains(['\n', '\t', '\0']));
            prop_assert_eq!(unescape(escaped.as_bytes()), Ok(bytes.clone()));
            let mut hex = Vec::new();
            BytesForm { hex: true, escaped: false }.write(&mut hex, &bytes).unwrap();
            prop_assert_eq!(parse_hex(&hex), Ok(bytes));
        }

        #[test]
        fn any_argument_is_read_or_refused(text: Vec<u8>) {
            let _ = unescape(&text);
            let _ = parse_hex(&text);
        }
    }
}
