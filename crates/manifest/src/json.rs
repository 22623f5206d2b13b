//! JSON that is read strictly and written for people.
//!
//! Reading goes through [`Node`], which refuses what `serde_json` alone lets pass (a field that stands twice), and
//! [`Object`], which knows the place of every value for error messages and refuses fields that nobody asked for.
//!
//! - Numbers: a 64-bit number is a JSON number up to 2^53 and a string of decimal digits above, because many readers
//!   hold numbers as doubles. Reading takes either form for every value; signs, exponents, fractions and leading zeros are refused.
//! - Checksums, salts and the database id are strings of hexadecimal digits in lower case, as many as their width.
//! - Keys are strings: printable ASCII stands for itself, every other byte and `%` as `%` and two upper-case digits.
//!   There is one way to write a key, and reading refuses the others.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::path::Path;
use std::rc::Rc;

use internal_key::{MAX_KEY_BYTES, SeqNo};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::paths::number;
use crate::{DecodeError, Place};

/// The largest number that every JSON reader holds exactly.
const EXACT_MAX: u64 = 1 << 53;

/// Any JSON value, with the fields of objects in order. Strings without escapes lie in the file's bytes: ten thousand tables
/// have several hundred thousand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl Node<'_> {
    /// How an error shows it.
    fn shown(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(bool) => bool.to_string(),
            Self::Unsigned(number) => number.to_string(),
            Self::Negative(number) => number.to_string(),
            Self::Float(number) => format!("the fraction {number}"),
            Self::Text(text) => format!("{text:?}"),
            Self::List(items) => format!("a list of {}", items.len()),
            Self::Object(fields) => format!("an object of {} fields", fields.len()),
        }
    }

    fn into_value(self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(bool) => bool.into(),
            Self::Unsigned(number) => number.into(),
            Self::Negative(number) => number.into(),
            Self::Float(number) => number.into(),
            Self::Text(text) => text.into_owned().into(),
            Self::List(items) => items.into_iter().map(Self::into_value).collect(),
            Self::Object(fields) => {
                let fields = fields.into_iter().map(|(name, node)| (name.into_owned(), node.into_value()));
                serde_json::Value::Object(fields.collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(bool))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node<'de>, E> {
        Ok(Node::Unsigned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node<'de>, E> {
        Ok(u64::try_from(number).map_or(Node::Negative(number), Node::Unsigned))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node<'de>, E> {
        Ok(Node::Float(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node<'de>, A::Error> {
        // Grown as items are met, never sized by a claim of the input.
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node<'de>, A::Error> {
        let mut fields: Vec<(Cow<'de, str>, Node<'de>)> = Vec::new();
        // Objects have a dozen fields; only options can have more, and then a set is worth its cost.
        let mut seen = std::collections::HashSet::new();
        while let Some((Name(name), node)) = entries.next_entry::<Name<'de>, Node<'de>>()? {
            let twice = if fields.len() < 16 {
                fields.iter().any(|(earlier, _)| *earlier == name)
            } else {
                if seen.is_empty() {
                    seen.extend(fields.iter().map(|(earlier, _)| earlier.clone()));
                }
                !seen.insert(name.clone())
            };
            if twice {
                return Err(de::Error::custom(format_args!("field {name:?} stands twice")));
            }
            fields.push((name, node));
        }
        Ok(Node::Object(fields))
    }
}

/// The name of a field.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}

/// What the readers of one file share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    /// The file, for error messages.
    pub(crate) file: &'a Path,
    /// Whether unknown fields are passed over: only if a known class of feature bits announced them.
    pub(crate) lenient: bool,
}

impl<'a> Source<'a> {
    pub(crate) fn strict(file: &'a Path) -> Self {
        Self { file, lenient: false }
    }

    /// Reads `bytes` as one JSON value.
    pub(crate) fn parse(self, bytes: &'a [u8]) -> Result<Value<'a>, DecodeError> {
        match serde_json::from_slice(bytes) {
            Ok(node) => Ok(Value { spot: Spot { source: self, parent: None, step: Step::Root }, node }),
            Err(error) => {
                let place = Place::Line { line: error.line() as u64, column: error.column() as u64 };
                Err(DecodeError::damaged(self.file, place, "JSON", error.to_string()))
            }
        }
    }
}

/// The last step to a value.
#[derive(Debug, Clone)]
enum Step {
    Root,
    Field(&'static str),
    /// A field whose name the file chose.
    Named(String),
    Index(usize),
}

/// An object or list on the way to a value.
#[derive(Debug)]
struct Link {
    parent: Option<Rc<Link>>,
    step: Step,
}

/// The place of a value, written out only if there is an error to tell: a file has a dozen values a table.
#[derive(Debug, Clone)]
pub(crate) struct Spot<'a> {
    source: Source<'a>,
    parent: Option<Rc<Link>>,
    step: Step,
}

impl<'a> Spot<'a> {
    /// The place as errors show it.
    pub(crate) fn place(&self) -> Place {
        let mut steps = vec![&self.step];
        let mut parent = &self.parent;
        while let Some(link) = parent {
            steps.push(&link.step);
            parent = &link.parent;
        }
        let mut path = String::new();
        for step in steps.into_iter().rev() {
            let dot = if path.is_empty() { "" } else { "." };
            let _ = match step {
                Step::Root => Ok(()),
                Step::Field(name) => write!(path, "{dot}{name}"),
                Step::Named(name) => write!(path, "{dot}{name}"),
                Step::Index(index) => write!(path, "[{index}]"),
            };
        }
        if path.is_empty() { Place::File } else { Place::Json(path) }
    }

    /// The error that not `expected` stands here, but `found`.
    pub(crate) fn wrong(&self, expected: impl Into<String>, found: impl Into<String>) -> DecodeError {
        DecodeError::damaged(self.source.file, self.place(), expected, found)
    }

    /// The error that what stands here, `found`, means something that this version does not know.
    pub(crate) fn unsupported(&self, expected: impl Into<String>, found: impl Into<String>) -> DecodeError {
        DecodeError::unsupported(self.source.file, self.place(), expected, found)
    }

    /// As the way to the values below.
    fn into_link(self) -> (Source<'a>, Rc<Link>) {
        (self.source, Rc::new(Link { parent: self.parent, step: self.step }))
    }
}

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Value<'a> {
    spot: Spot<'a>,
    node: Node<'a>,
}

impl<'a> Value<'a> {
    /// Its place, for errors that are found when the value has been taken apart.
    pub(crate) fn spot(&self) -> Spot<'a> {
        self.spot.clone()
    }

    /// The error that this value is not `expected`.
    pub(crate) fn wrong(&self, expected: impl Into<String>) -> DecodeError {
        self.spot.wrong(expected, self.node.shown())
    }

    /// The error that this value is whole but means something that this version does not know.
    pub(crate) fn unsupported(&self, expected: impl Into<String>) -> DecodeError {
        self.spot.unsupported(expected, self.node.shown())
    }

    pub(crate) fn object(self) -> Result<Object<'a>, DecodeError> {
        match self.node {
            Node::Object(fields) => {
                let (source, link) = self.spot.into_link();
                Ok(Object { source, link, fields: fields.into_iter().map(|(name, node)| (name, Some(node))).collect() })
            }
            _ => Err(self.wrong("an object")),
        }
    }

    pub(crate) fn list(self) -> Result<impl ExactSizeIterator<Item = Value<'a>>, DecodeError> {
        match self.node {
            Node::List(items) => {
                let (source, link) = self.spot.into_link();
                Ok(items.into_iter().enumerate().map(move |(index, node)| {
                    let parent = Some(Rc::clone(&link));
                    Value { spot: Spot { source, parent, step: Step::Index(index) }, node }
                }))
            }
            _ => Err(self.wrong("a list")),
        }
    }

    pub(crate) fn text(self) -> Result<String, DecodeError> {
        match self.node {
            Node::Text(text) => Ok(text.into_owned()),
            _ => Err(self.wrong("a string")),
        }
    }

    /// Checks that the value is the string `expected`; a different one is another version's.
    pub(crate) fn exactly(self, expected: &str) -> Result<(), DecodeError> {
        match &self.node {
            Node::Text(text) if text == expected => Ok(()),
            Node::Text(_) => Err(self.unsupported(format!("{expected:?}"))),
            _ => Err(self.wrong(format!("{expected:?}"))),
        }
    }

    pub(crate) fn bool(self) -> Result<bool, DecodeError> {
        match self.node {
            Node::Bool(bool) => Ok(bool),
            _ => Err(self.wrong("true or false")),
        }
    }

    pub(crate) fn u64(self) -> Result<u64, DecodeError> {
        self.u64_max(u64::MAX)
    }

    /// A number up to `max`.
    pub(crate) fn u64_max(self, max: u64) -> Result<u64, DecodeError> {
        let number = match &self.node {
            Node::Unsigned(number) => Some(*number),
            Node::Text(text) => number(text),
            _ => None,
        };
        number.filter(|number| *number <= max).ok_or_else(|| match max {
            u64::MAX => self.wrong("a number from 0 to 2^64 - 1"),
            _ => self.wrong(format!("a number from 0 to {max}")),
        })
    }

    pub(crate) fn u32(self) -> Result<u32, DecodeError> {
        self.u64_max(u64::from(u32::MAX)).map(|number| number as u32)
    }

    pub(crate) fn seqno(self) -> Result<SeqNo, DecodeError> {
        self.u64_max(SeqNo::MAX.get()).map(|number| SeqNo::new(number).unwrap_or(SeqNo::MAX))
    }

    /// A number as exactly 16 hexadecimal digits.
    pub(crate) fn hex64(self) -> Result<u64, DecodeError> {
        self.hex(16).map(|number| number as u64)
    }

    /// A number as exactly 32 hexadecimal digits.
    pub(crate) fn hex128(self) -> Result<u128, DecodeError> {
        self.hex(32)
    }

    fn hex(self, digits: usize) -> Result<u128, DecodeError> {
        let number = match &self.node {
            Node::Text(text) if text.len() == digits => parse_hex(text.as_bytes()),
            _ => None,
        };
        number.ok_or_else(|| self.wrong(format!("{digits} hexadecimal digits in lower case")))
    }

    /// A user key.
    pub(crate) fn key(self) -> Result<Box<[u8]>, DecodeError> {
        let key = match &self.node {
            Node::Text(text) => parse_key(text),
            _ => None,
        };
        key.ok_or_else(|| {
            self.wrong(format!("a key of at most {MAX_KEY_BYTES} bytes, those not printable and % as %XX"))
        })
    }

    /// Any JSON object, by field.
    pub(crate) fn options(self) -> Result<BTreeMap<String, serde_json::Value>, DecodeError> {
        match self.node {
            Node::Object(fields) => {
                Ok(fields.into_iter().map(|(name, node)| (name.into_owned(), node.into_value())).collect())
            }
            _ => Err(self.wrong("an object")),
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.node == Node::Null
    }
}

/// An object whose fields are taken one by one; [`finish`](Object::finish) refuses what nobody took.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    source: Source<'a>,
    link: Rc<Link>,
    fields: Vec<(Cow<'a, str>, Option<Node<'a>>)>,
}

impl<'a> Object<'a> {
    fn spot(&self, step: Step) -> Spot<'a> {
        Spot { source: self.source, parent: Some(Rc::clone(&self.link)), step }
    }

    /// Takes a field if it is there.
    pub(crate) fn optional(&mut self, name: &'static str) -> Option<Value<'a>> {
        let (_, node) = self.fields.iter_mut().find(|(field, _)| field == name)?;
        let node = node.take()?;
        Some(Value { spot: self.spot(Step::Field(name)), node })
    }

    /// Takes a field.
    pub(crate) fn field(&mut self, name: &'static str) -> Result<Value<'a>, DecodeError> {
        match self.optional(name) {
            Some(value) => Ok(value),
            None => Err(self.spot(Step::Field(name)).wrong("a value", "no such field")),
        }
    }

    /// Takes fields whose place in the format is reserved for later versions: absent and `null` mean what every file
    /// of this version means, anything else is refused.
    pub(crate) fn reserved(&mut self, names: &[&'static str]) -> Result<(), DecodeError> {
        for name in names {
            if let Some(value) = self.optional(name).filter(|value| !value.is_null()) {
                return Err(value.unsupported("null (reserved for a later version)"));
            }
        }
        Ok(())
    }

    /// Takes every field that is left, with its name.
    pub(crate) fn rest(&mut self) -> Vec<(String, Value<'a>)> {
        let fields = std::mem::take(&mut self.fields);
        let left = fields.into_iter().filter_map(|(name, node)| Some((name, node?)));
        let named = left.map(|(name, node)| (name.into_owned(), node));
        named.map(|(name, node)| (name.clone(), Value { spot: self.spot(Step::Named(name)), node })).collect()
    }

    /// Makes later unknown fields of this object errors or not.
    pub(crate) fn set_lenient(&mut self, lenient: bool) {
        self.source.lenient = lenient;
    }

    /// Refuses the fields that nobody took, which a later version may have meant something by.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.source.lenient {
            return Ok(());
        }
        match self.fields.iter().find(|(_, node)| node.is_some()) {
            Some((name, _)) => {
                let spot = self.spot(Step::Named(name.clone().into_owned()));
                Err(spot.unsupported("only known fields", format!("field {name:?}")))
            }
            None => Ok(()),
        }
    }
}

fn parse_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Sixteen hexadecimal digits in lower case.
pub(crate) fn parse_hex64(digits: &[u8]) -> Option<u64> {
    if digits.len() == 16 { parse_hex(digits).map(|number| number as u64) } else { None }
}

fn parse_key(text: &str) -> Option<Box<[u8]>> {
    // Three characters stand for a byte at most, so this bounds the allocation before it is made.
    if text.len() > 3 * MAX_KEY_BYTES {
        return None;
    }
    let mut key = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let escaped = upper_hex(bytes.next()?)? << 4 | upper_hex(bytes.next()?)?;
            // One way to write a key: what can stand for itself does.
            if !needs_escape(escaped) {
                return None;
            }
            key.push(escaped);
        } else if needs_escape(byte) {
            return None;
        } else {
            key.push(byte);
        }
    }
    if key.len() <= MAX_KEY_BYTES { Some(key.into()) } else { None }
}

fn upper_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn needs_escape(byte: u8) -> bool {
    byte == b'%' || !(byte == b' ' || byte.is_ascii_graphic())
}

/// Writes `text` as a JSON string.
pub(crate) fn write_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// Writes `key` as a JSON string.
pub(crate) fn write_key(out: &mut String, key: &[u8]) {
    out.push('"');
    for &byte in key {
        if needs_escape(byte) {
            let _ = write!(out, "%{byte:02X}");
        } else {
            if matches!(byte, b'"' | b'\\') {
                out.push('\\');
            }
            out.push(char::from(byte));
        }
    }
    out.push('"');
}

/// A number as the format writes it.
pub(crate) struct Number(pub(crate) u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 <= EXACT_MAX { write!(f, "{}", self.0) } else { write!(f, "\"{}\"", self.0) }
    }
}

/// Options as the format writes them, in one line.
pub(crate) fn write_options(out: &mut String, options: &BTreeMap<String, serde_json::Value>) {
    out.push('{');
    for (index, (name, value)) in options.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        write_text(out, name);
        let _ = write!(out, ": {value}");
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(json: &str) -> Value<'_> {
        Source::strict(Path::new("t.json")).parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        let error = Source::strict(Path::new("t.json")).parse(br#"{"a": 1, "a": 1}"#).unwrap_err();
        assert!(error.to_string().contains("\"a\" stands twice"), "{error}");
        let many: Vec<String> = (0..40).chain([30]).map(|n| format!("\"f{n}\": 1")).collect();
        let many = format!("{{{}}}", many.join(","));
        let error = Source::strict(Path::new("t.json")).parse(many.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("\"f30\" stands twice"), "{error}");
    }

    #[test]
    fn numbers_have_no_sign_no_fraction_and_no_leading_zero() {
        for wrong in ["-1", "1.0", "1e3", "\"01\"", "\"+1\"", "\"\"", "\"1 \"", "null", "18446744073709551616", "true"]
        {
            assert!(value(wrong).u64().is_err(), "{wrong}");
        }
        assert_eq!(value("\"18446744073709551615\"").u64().unwrap(), u64::MAX);
        assert_eq!(value("7").u64().unwrap(), 7);
        assert!(value("72057594037927936").seqno().is_err(), "2^56 is one too many");
    }

    #[test]
    fn there_is_one_way_to_write_a_key() {
        for wrong in ["%61", "%0a", "%", "%0", "%%", "ä", "a\\nb"] {
            assert!(value(&format!("\"{wrong}\"")).key().is_err(), "{wrong}");
        }
        assert_eq!(*value("\"a%00%25\\\"\"").key().unwrap(), *b"a\0%\"");
        let long = "a".repeat(MAX_KEY_BYTES);
        assert!(value(&format!("\"{long}\"")).key().is_ok());
        assert!(value(&format!("\"{long}a\"")).key().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(key: Vec<u8>, number: u64, text: String, hex: u64) {
            let mut out = String::new();
            write_key(&mut out, &key);
            prop_assert!(out.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            prop_assert_eq!(&*value(&out).key().unwrap(), &key[..]);
            prop_assert_eq!(value(&Number(number).to_string()).u64().unwrap(), number);
            prop_assert_eq!(value(&format!("\"{hex:016x}\"")).hex64().unwrap(), hex);
            out.clear();
            write_text(&mut out, &text);
            prop_assert_eq!(value(&out).text().unwrap(), text);
        }
    }
}
