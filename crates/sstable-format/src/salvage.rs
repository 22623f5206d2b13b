//! Reads what is left of a damaged table: every whole block, found by looking for frames and not through the index.
//!
//! ```text
//!   header ─▶ salt      │ block │ damaged bytes ...... │ block │ block │ filter │ index │
//!                        ▲ ok    ▲ no frame checks here  ▲ the next one that does
//!                                └─── lost: keys between the last one before and the first one after ───┘
//! ```
//!
//! - **T2** A frame's checksum is seeded with the table's salt and its own offset, so that what checks is a block of this
//!   table at its place, whatever became of everything else.
//! - The time is in proportion to the file: a file made to look like many overlapping frames is given up, not hashed
//!   over and over.

use std::path::Path;

use file_system::{FileSystem, ReadFile};
use internal_key::InternalKey;

use crate::block::{Layout, flags};
use crate::error::TableError;
use crate::footer::{FOOTER_BYTES, Footer, HEADER_BYTES, TableHeader};
use crate::frame::{
    BlockHandle, FRAME_HEADER_BYTES, FRAME_OVERHEAD_BYTES, FrameHeader, FrameKind, check_frame, decompress,
};
use crate::large::{LargeReference, check_large, value_of};

/// What [`salvage`] could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes it is long.
    pub bytes: u64,
    /// The last user key read before it; `None` if there was none. Other versions of it may be among what is lost.
    pub after: Option<Box<[u8]>>,
    /// The first user key read after it; `None` if there was none. The same as `after` where only a large value is lost.
    pub before: Option<Box<[u8]>>,
}

/// What [`salvage`] met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Entries handed out.
    pub entries: u64,
    /// Data blocks that they came from.
    pub blocks: u64,
    /// What lies between.
    pub lost: Vec<LostRange>,
}

/// Bytes hashed in all, as a multiple of the file's length, before the rest is given up.
const HASHED_TIMES_MAX: u64 = 4;

/// Hands every entry of every whole block to `on_entry`, in the order of the file, with sequence numbers as stored. Works
/// as long as the table's header or its footer is whole.
///
/// # Errors
/// If the file cannot be read, or neither header nor footer tells the salt; and what `on_entry` returns.
pub fn salvage<E: From<TableError>>(
    files: &dyn FileSystem,
    path: &Path,
    mut on_entry: impl FnMut(InternalKey<'_>, &[u8]) -> Result<(), E>,
) -> Result<Salvaged, E> {
    let file = files.open(path).map_err(TableError::from)?;
    let (salt, footer) = salt_of(&*file, path)?;
    // Without a footer nothing says where the data ends, but properties come after all of it.
    let (end, mut complete) = match &footer {
        Some(footer) => (footer.data_end, true),
        None => (file.len().saturating_sub(FOOTER_BYTES as u64), false),
    };
    let mut scan = Scan { file: &*file, salt, frame: Vec::new(), hashed: 0, hashed_max: file.len() * HASHED_TIMES_MAX };
    let mut found = Salvaged::default();
    let mut last_key: Option<Box<[u8]>> = None;
    let (mut gap, mut gaps, mut unreadable_row): (Option<u64>, Vec<LostRange>, bool) = (None, Vec::new(), false);
    let mut at = HEADER_BYTES as u64;
    let mut payload = Vec::new();
    while at + FRAME_OVERHEAD_BYTES as u64 <= end {
        let Some((header, bytes)) = scan.frame_at(at).map_err(TableError::from)? else {
            gap.get_or_insert(at);
            at += 8;
            continue;
        };
        let layout = match header.kind == FrameKind::Data as u8 && decompress(&scan.frame, header, &mut payload).is_ok()
        {
            true => Layout::parse(&payload).ok(),
            false => None,
        };
        if let Some(layout) = layout {
            found.blocks += 1;
            for row in 0..layout.rows {
                let mut key = Vec::new();
                let (Ok(()), Ok(trailer), Ok(value)) = (
                    layout.append_key(&payload, row, &mut key),
                    layout.trailer(&payload, row, 0),
                    layout.value(&payload, row),
                ) else {
                    gap.get_or_insert(at);
                    unreadable_row = true;
                    continue;
                };
                if let Some(from) = gap.take() {
                    let (after, before) = (last_key.take(), Some(key.as_slice().into()));
                    gaps.push(LostRange { offset: from, bytes: at - from, after, before });
                }
                let key_again = || Some(key.as_slice().into());
                if layout.has(flags::OUT_OF_LINE) {
                    match scan.large(value).map_err(TableError::from)? {
                        Ok(frame) => {
                            on_entry(InternalKey::new(&key, trailer), &frame)?;
                            found.entries += 1;
                        }
                        Err((offset, bytes)) => {
                            found.lost.push(LostRange { offset, bytes, after: key_again(), before: key_again() });
                        }
                    }
                } else {
                    on_entry(InternalKey::new(&key, trailer), value)?;
                    found.entries += 1;
                }
                last_key = Some(key.into());
            }
        }
        complete |= header.kind == FrameKind::Properties as u8;
        at += bytes;
    }
    if let Some(from) = gap.or((!complete).then_some(at)) {
        gaps.push(LostRange { offset: from, bytes: end.saturating_sub(from), after: last_key, before: None });
    }
    // Zeros between blocks fill a page. Only the number of blocks tells them from a block that was zeroed.
    if unreadable_row || footer.is_none_or(|footer| footer.data_blocks != found.blocks) {
        found.lost.extend(gaps);
    }
    Ok(found)
}

/// The salt, and the footer if it is whole.
fn salt_of(file: &dyn ReadFile, path: &Path) -> Result<(u64, Option<Footer>), TableError> {
    let length = file.len();
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(0, &mut header[..length.min(HEADER_BYTES as u64) as usize])?;
    let footer = match length.checked_sub(FOOTER_BYTES as u64) {
        Some(start) if start >= HEADER_BYTES as u64 => {
            let mut footer = [0; FOOTER_BYTES];
            file.read_exact_at(start, &mut footer)?;
            Footer::decode(&footer, length, path).ok()
        }
        _ => None,
    };
    match (TableHeader::decode(&header, path), footer) {
        (_, Some(footer)) => Ok((footer.salt, Some(footer))),
        (Ok((_, salt)), None) => Ok((salt, None)),
        (Err(error), None) => Err(error),
    }
}

struct Scan<'a> {
    file: &'a dyn ReadFile,
    salt: u64,
    /// The frame read last.
    frame: Vec<u8>,
    hashed: u64,
    hashed_max: u64,
}

impl Scan<'_> {
    /// Reads the frame that begins at `at` into `frame`, if one does, and returns how long it is.
    fn frame_at(&mut self, at: u64) -> Result<Option<(FrameHeader, u64)>, file_system::FileError> {
        let mut start = [0; FRAME_HEADER_BYTES];
        self.file.read_exact_at(at, &mut start)?;
        let Some(header) = FrameHeader::decode(&start) else { return Ok(None) };
        if !(1..=5).contains(&header.kind) || header.compression > 1 || start[10..].iter().any(|byte| *byte != 0) {
            return Ok(None);
        }
        let large = header.kind == FrameKind::LargeValue as u8;
        let reference = LargeReference { offset: at, bytes: header.stored, ordinal: 0 };
        let bytes = match large {
            true => reference.frame_bytes(),
            false => u64::from(header.stored).next_multiple_of(8) + FRAME_OVERHEAD_BYTES as u64,
        };
        let fits = at.checked_add(bytes).is_some_and(|end| end <= self.file.len());
        if !fits || !large && bytes > BlockHandle::FRAME_BYTES_MAX as u64 || self.hashed > self.hashed_max {
            return Ok(None);
        }
        self.hashed += bytes;
        self.frame.resize(bytes as usize, 0);
        self.file.read_exact_at(at, &mut self.frame)?;
        let kinds = [FrameKind::Data, FrameKind::Index, FrameKind::Filter, FrameKind::Properties];
        let whole = match large {
            true => check_large(&self.frame, reference, self.salt).is_ok(),
            false => kinds
                .iter()
                .any(|kind| header.kind == *kind as u8 && check_frame(&self.frame, *kind, self.salt, at).is_ok()),
        };
        Ok(whole.then_some((header, bytes)))
    }

    /// The value that a row refers to, or which bytes of it are damaged.
    fn large(&mut self, reference: &[u8]) -> Result<Result<Vec<u8>, (u64, u64)>, file_system::FileError> {
        let Ok(reference) = LargeReference::decode(reference) else { return Ok(Err((0, 0))) };
        let bytes = reference.frame_bytes();
        let lost = Err((reference.offset, bytes));
        if reference.offset.checked_add(bytes).is_none_or(|end| end > self.file.len()) {
            return Ok(lost);
        }
        let mut frame = vec![0; bytes as usize];
        self.file.read_exact_at(reference.offset, &mut frame)?;
        match check_large(&frame, reference, self.salt) {
            Ok(()) => Ok(Ok(value_of(&frame, reference).to_vec())),
            Err(_) => Ok(lost),
        }
    }
}
