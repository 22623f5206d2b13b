//! Building a block: rows are gathered, the block's length is known at any time, and the columns are written at the end (T1).

use internal_key::{Kind, MAX_KEY_BYTES, key_head};

use super::{BLOCK_HEADER_BYTES, NO_WIDTH, flags};

/// Gathers rows, knows at any time how large their block would be, and encodes it.
#[derive(Debug, Default)]
pub(crate) struct BlockBuilder {
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    trailers: Vec<u64>,
    values: Vec<u8>,
    value_ends: Vec<usize>,
    shape: Shape,
}

/// Everything that the size of a block depends on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shape {
    rows: usize,
    prefix: usize,
    tails_bytes: usize,
    values_bytes: usize,
    /// The common width so far; `None` once two differ.
    tail_width: Option<usize>,
    value_width: Option<usize>,
    has_short: bool,
    newest: u64,
    oldest: u64,
    one_kind: bool,
}

impl Shape {
    fn is_wide(&self) -> bool {
        self.tails_bytes > u16::MAX.into() || self.values_bytes > u16::MAX.into()
    }

    /// By how many bits distances from the newest trailer are stored shifted.
    fn trailer_shift(&self) -> u32 {
        if self.one_kind { 8 } else { 0 }
    }

    /// The bytes that the largest distance from the newest trailer takes.
    fn trailer_width(&self) -> usize {
        let distance = (self.newest - self.oldest) >> self.trailer_shift();
        if planted_faults::planted("table-trailers-too-narrow") {
            return (distance.checked_ilog2().unwrap_or(0) as usize).div_ceil(8);
        }
        ((u64::BITS - distance.leading_zeros()) as usize).div_ceil(8)
    }

    /// The length of a block of this shape.
    pub(crate) fn bytes(&self) -> usize {
        let ends = (self.rows + 1) * if self.is_wide() { 4 } else { 2 };
        BLOCK_HEADER_BYTES
            + self.rows * 8
            + if self.tail_width.is_none() { ends } else { 0 }
            + if self.value_width.is_none() { ends } else { 0 }
            + if self.has_short { self.rows } else { 0 }
            + self.rows * self.trailer_width()
            + self.prefix
            + self.tails_bytes
            + self.values_bytes
    }
}

impl BlockBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.shape.rows == 0
    }

    /// The length of the block that [`encode`](Self::encode) would write now.
    pub(crate) fn bytes(&self) -> usize {
        self.shape.bytes()
    }

    fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.key_ends[row - 1] };
        &self.keys[start..self.key_ends[row]]
    }

    pub(crate) fn last_key(&self) -> Option<(&[u8], u64)> {
        let last = self.shape.rows.checked_sub(1)?;
        Some((self.key(last), self.trailers[last]))
    }

    /// The shape with one more row. Costs a scan of all keys where the prefix shrinks, else constant time.
    pub(crate) fn shape_with(&self, key: &[u8], trailer: u64, value_bytes: usize) -> Shape {
        let mut shape = self.shape;
        if shape.rows == 0 {
            return Shape {
                rows: 1,
                prefix: key.len(),
                tails_bytes: 0,
                values_bytes: value_bytes,
                tail_width: Some(0),
                value_width: Some(value_bytes),
                has_short: true,
                newest: trailer,
                oldest: trailer,
                one_kind: true,
            };
        }
        let prefix = common_prefix(&self.key(0)[..shape.prefix], key);
        if prefix != shape.prefix {
            shape.prefix = prefix;
            shape.tails_bytes = 0;
            shape.has_short = false;
            let tail = |key: &[u8]| key.len().saturating_sub(prefix + 8);
            shape.tail_width = Some(tail(self.key(0)));
            for row in 0..shape.rows {
                shape.count_key(self.key(row).len(), prefix);
            }
        }
        shape.count_key(key.len(), prefix);
        shape.rows += 1;
        shape.values_bytes += value_bytes;
        shape.value_width = shape.value_width.filter(|&width| width == value_bytes);
        shape.one_kind &= shape.newest as u8 == trailer as u8;
        shape.newest = shape.newest.max(trailer);
        shape.oldest = shape.oldest.min(trailer);
        shape
    }

    /// Adds a row, which must not sort before the last. `shape` is what [`shape_with`](Self::shape_with) said of it.
    pub(crate) fn add(&mut self, shape: Shape, key: &[u8], trailer: u64, value: &[u8]) {
        debug_assert!(key.len() <= MAX_KEY_BYTES && shape.rows == self.shape.rows + 1);
        self.shape = shape;
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len());
        self.trailers.push(trailer);
        self.values.extend_from_slice(value);
        self.value_ends.push(self.values.len());
    }

    /// Appends the block to `out` and forgets the rows. `unique_outside`: no neighbouring block has a key of this one.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>, unique_outside: bool, out_of_line: bool) {
        let start = out.len();
        let shape = self.shape;
        let u32_of = |number: usize| u32::try_from(number).expect("T1: a block stays below 4 GiB");
        let mut flags = 0;
        let mut set = |flag: u8, holds: bool| flags |= if holds { flag } else { 0 };
        set(flags::ALL_PUTS, shape.one_kind && shape.newest as u8 == Kind::Put as u8);
        set(flags::UNIQUE, unique_outside && (1..shape.rows).all(|row| self.key(row - 1) != self.key(row)));
        set(flags::ONE_KIND, shape.one_kind);
        set(flags::SHORT_KEYS, shape.has_short);
        set(flags::WIDE, shape.is_wide());
        set(flags::OUT_OF_LINE, out_of_line);
        out.extend_from_slice(&u32_of(shape.rows).to_le_bytes());
        out.extend_from_slice(&[flags, shape.trailer_width() as u8]);
        out.extend_from_slice(&u16::try_from(shape.prefix).expect("T1: keys are at most 65,535 bytes").to_le_bytes());
        out.extend_from_slice(&shape.newest.to_le_bytes());
        let width = |width: Option<usize>| width.map_or(NO_WIDTH, u32_of);
        for number in
            [width(shape.tail_width), width(shape.value_width), u32_of(shape.tails_bytes), u32_of(shape.values_bytes)]
        {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for row in 0..shape.rows {
            out.extend_from_slice(&key_head(&self.key(row)[shape.prefix..]).to_le_bytes());
        }
        let tail_start = |key: &[u8]| key.len().min(shape.prefix + 8);
        let mut append_end = |end: usize| {
            if shape.is_wide() {
                out.extend_from_slice(&u32_of(end).to_le_bytes());
            } else {
                out.extend_from_slice(&(end as u16).to_le_bytes());
            }
        };
        if shape.tail_width.is_none() {
            let mut end = 0;
            append_end(end);
            for row in 0..shape.rows {
                let key = self.key(row);
                end += key.len() - tail_start(key);
                append_end(end);
            }
        }
        if shape.value_width.is_none() {
            append_end(0);
            for &end in &self.value_ends {
                append_end(end);
            }
        }
        if shape.has_short {
            out.extend((0..shape.rows).map(|row| (self.key(row).len() - shape.prefix).min(8) as u8));
        }
        // Eight bytes are written for each, of which the next one's overwrite those above the width.
        let (column, width) = (out.len(), shape.trailer_width());
        out.resize(column + shape.rows * width + 8, 0);
        for (row, trailer) in self.trailers.iter().enumerate() {
            let below = (shape.newest - trailer) >> shape.trailer_shift();
            let at = column + row * width;
            out[at..at + 8].copy_from_slice(&below.to_le_bytes());
        }
        out.truncate(column + shape.rows * width);
        out.extend_from_slice(&self.key(0)[..shape.prefix]);
        for row in 0..shape.rows {
            let key = self.key(row);
            out.extend_from_slice(&key[tail_start(key)..]);
        }
        out.extend_from_slice(&self.values);
        debug_assert_eq!(out.len() - start, shape.bytes(), "T1: a block is as long as was computed");
        self.clear();
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.key_ends.clear();
        self.trailers.clear();
        self.values.clear();
        self.value_ends.clear();
        self.shape = Shape::default();
    }
}

impl Shape {
    fn count_key(&mut self, key_bytes: usize, prefix: usize) {
        let rest = key_bytes - prefix;
        let tail = rest.saturating_sub(8);
        self.has_short |= rest < 8;
        self.tails_bytes += tail;
        self.tail_width = self.tail_width.filter(|&width| width == tail);
    }
}

/// How many leading bytes `left` and `right` share.
pub(crate) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let words = left.as_chunks::<8>().0.iter().zip(right.as_chunks::<8>().0);
    let whole = words.take_while(|(l, r)| l == r).count() * 8;
    let rest = left[whole..].iter().zip(&right[whole..]);
    whole + rest.take_while(|(l, r)| l == r).count()
}
