//! Bytes handed to the caller: copied when small, pinned where they lie when large.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::sync::Arc;

use sstable_format::TableReader;

/// Bytes up to this long stand in the handle itself: no allocation on the way out of a read.
const INLINE_BYTES: usize = 118;

/// Values at least this long that lie in a mapped table are not copied: the handle pins the table instead.
pub(crate) const PIN_BYTES_MIN: usize = 4096;

/// An immutable run of bytes: a key or a value that was read. Dereferences to `[u8]`; compares as the bytes do.
///
/// Up to 118 bytes stand in the handle itself; longer ones are copied once, except that 4 KiB and more of a
/// mapped, uncompressed table are lent in place and keep that one table mapped until the handle is dropped. `'static`,
/// `Send` and `Sync`; holding one never holds up the engine. Cloning copies, pins or shares; it never blocks.
///
/// ```
/// # fn main() -> lsm_facade::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// let database = lsm_facade::Database::open(dir.path())?;
/// let fruit = database.keyspace("fruit")?;
/// fruit.insert("apple", "red")?;
/// let value = fruit.get("apple")?.expect("just written");
/// assert_eq!(value, b"red");
/// assert_eq!(value.len(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Slice(Form);

#[derive(Clone)]
enum Form {
    /// The first `len` bytes are initialised: nobody pays for the others.
    Inline {
        len: u8,
        bytes: [MaybeUninit<u8>; INLINE_BYTES],
    },
    Heap(Arc<[u8]>),
    Pinned {
        _table: Arc<TableReader>,
        start: *const u8,
        len: usize,
    },
}

// SAFETY: the pointer of `Pinned` leads into the immutable bytes of `_table`, which is `Send + Sync` and lives as long
// as the handle; the other forms are plain data.
unsafe impl Send for Slice {}
// SAFETY: as above: nothing behind a shared `Slice` ever changes.
unsafe impl Sync for Slice {}

impl Slice {
    /// A copy of `bytes`.
    #[inline]
    pub(crate) fn copy(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_BYTES {
            let mut inline = [MaybeUninit::uninit(); INLINE_BYTES];
            // SAFETY: no more than `inline` has room for, and fresh memory overlaps nothing.
            unsafe { bytes.as_ptr().copy_to_nonoverlapping(inline.as_mut_ptr().cast(), bytes.len()) };
            Self(Form::Inline { len: bytes.len() as u8, bytes: inline })
        } else {
            Self(Form::Heap(bytes.into()))
        }
    }

    /// Bytes that already have an allocation of their own.
    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_BYTES { Self::copy(&bytes) } else { Self(Form::Heap(bytes.into())) }
    }

    /// `bytes` where they lie, keeping `table` mapped.
    ///
    /// # Safety
    /// `bytes` must lie in memory that `table` owns, stays in place and is never changed while `table` lives.
    pub(crate) unsafe fn pin(table: &Arc<TableReader>, bytes: &[u8]) -> Self {
        Self(Form::Pinned { _table: Arc::clone(table), start: bytes.as_ptr(), len: bytes.len() })
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Inline { len, bytes } => {
                // SAFETY: `copy`, which alone makes this form, initialised so many, and no more than there are.
                unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), usize::from(*len)) }
            }
            Form::Heap(bytes) => bytes,
            // SAFETY: `pin` was promised that the bytes live, unchanged, as long as the table that is held here.
            Form::Pinned { start, len, .. } => unsafe { std::slice::from_raw_parts(*start, *len) },
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Borrow<[u8]> for Slice {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Slice {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Slice {}

impl PartialOrd for Slice {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Slice {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<Slice> for Vec<u8> {
    fn from(slice: Slice) -> Self {
        slice.to_vec()
    }
}

/// Draws the bytes as text, those that are not printable ASCII as `\xNN`.
impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}
