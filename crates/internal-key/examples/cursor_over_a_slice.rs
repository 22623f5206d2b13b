//! Implements [`Cursor`] over a sorted vector and reads a key as of several sequence numbers.

use std::convert::Infallible;

use internal_key::{Cursor, InternalKey, Kind, OwnedInternalKey, SeqNo, Trailer};

/// Entries in internal order; the cursor stands on `at`, or on none if `at` is past the end.
struct VecCursor {
    entries: Vec<(OwnedInternalKey, Vec<u8>)>,
    at: usize,
}

impl VecCursor {
    fn new(mut entries: Vec<(OwnedInternalKey, Vec<u8>)>) -> Self {
        entries.sort();
        let at = entries.len();
        Self { entries, at }
    }
}

impl Cursor for VecCursor {
    type Error = Infallible;

    fn valid(&self) -> bool {
        self.at < self.entries.len()
    }

    fn user_key(&self) -> &[u8] {
        &self.entries[self.at].0.user_key
    }

    fn trailer(&self) -> Trailer {
        self.entries[self.at].0.trailer
    }

    fn value(&mut self) -> Result<&[u8], Infallible> {
        Ok(&self.entries[self.at].1)
    }

    fn seek_to_first(&mut self) -> Result<(), Infallible> {
        self.at = 0;
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<(), Infallible> {
        self.at = self.entries.len().checked_sub(1).unwrap_or(self.entries.len());
        Ok(())
    }

    fn seek(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.at = self.entries.partition_point(|(key, _)| key.borrow() < target);
        Ok(())
    }

    fn seek_before(&mut self, target: InternalKey<'_>) -> Result<(), Infallible> {
        self.seek(target)?;
        self.at = self.at.checked_sub(1).unwrap_or(self.entries.len());
        Ok(())
    }

    fn next(&mut self) -> Result<(), Infallible> {
        self.at = self.entries.len().min(self.at + 1);
        Ok(())
    }

    fn prev(&mut self) -> Result<(), Infallible> {
        if self.valid() {
            self.at = self.at.checked_sub(1).unwrap_or(self.entries.len());
        }
        Ok(())
    }
}

fn entry(user_key: &str, seqno: u64, kind: Kind, value: &str) -> (OwnedInternalKey, Vec<u8>) {
    let trailer = Trailer::new(SeqNo::new(seqno).expect("below 2^56"), kind);
    (InternalKey::new(user_key.as_bytes(), trailer).to_owned(), value.into())
}

fn main() -> Result<(), Infallible> {
    let mut cursor = VecCursor::new(vec![
        entry("apple", 1, Kind::Put, "green"),
        entry("pear", 2, Kind::Put, "yellow"),
        entry("apple", 3, Kind::Put, "red"),
        entry("apple", 6, Kind::Delete, ""),
    ]);

    println!("in order:");
    cursor.seek_to_first()?;
    while cursor.valid() {
        println!("  {}", cursor.key());
        cursor.next()?;
    }

    let mut seen = Vec::new();
    println!("apple as of:");
    for at in 0..=6 {
        cursor.seek(InternalKey::seek(b"apple", SeqNo::new(at).expect("below 2^56")))?;
        let visible = cursor.valid() && cursor.user_key() == b"apple" && cursor.trailer().kind() == Kind::Put;
        let value = if visible { String::from_utf8_lossy(cursor.value()?).into_owned() } else { "nothing".into() };
        println!("  #{at}: {value}");
        seen.push(value);
    }
    assert_eq!(seen, ["nothing", "green", "green", "red", "red", "red", "nothing"]);
    Ok(())
}
