//! The data sets that rows read: built once for each engine, copied for each row.
//!
//! ```text
//!   DATA/base       all rows, 16 + 100 B, written in random order, settled, closed
//!   DATA/large-4k   1/40 of the rows with values of 4 KiB
//!   DATA/large-64k  1/640 of the rows with values of 64 KiB
//! ```
//!
//! Files that are never written again get a second name, others are copied without their holes. A copy is synced, so that
//! writing it to the disk disturbs no row.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::data::{fill_value, key, value};
use crate::engine::{Engine, Kind, Outcome, Settings};

/// A data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Set {
    Base,
    Large4K,
    Large64K,
}

/// All of them.
pub(crate) const SETS: [Set; 3] = [Set::Base, Set::Large4K, Set::Large64K];

/// Rows that are written at once while a data set is built.
const TOGETHER: u64 = 100;

impl Set {
    /// The directory's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Large4K => "large-4k",
            Self::Large64K => "large-64k",
        }
    }

    /// How many rows it has where the base set has `keys`.
    pub(crate) fn count(self, keys: u64) -> u64 {
        match self {
            Self::Base => keys,
            Self::Large4K => (keys / 40).max(64),
            Self::Large64K => (keys / 640).max(64),
        }
    }

    /// Bytes of its values.
    pub(crate) fn value_bytes(self) -> usize {
        match self {
            Self::Base => crate::data::VALUE_BYTES,
            Self::Large4K => 4 << 10,
            Self::Large64K => 64 << 10,
        }
    }
}

/// Builds every data set in `data`.
pub(crate) fn build(kind: &Kind, settings: &Settings, keys: u64, data: &Path) -> Outcome {
    for set in SETS {
        let dir = data.join(set.name());
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        let engine = (kind.open)(&dir, settings)?;
        fill(engine.as_ref(), set, keys)?;
        engine.settle()?;
        drop(engine);
        sync_all(&dir)?;
    }
    Ok(())
}

fn fill(engine: &dyn Engine, set: Set, keys: u64) -> Outcome {
    let count = set.count(keys);
    if set == Set::Base {
        for first in (0..count).step_by(TOGETHER as usize) {
            let rows: Vec<_> =
                (first..count.min(first + TOGETHER)).map(|number| (key(number), value(number, 0))).collect();
            engine.put_many(&rows)?;
        }
        return Ok(());
    }
    let mut value = vec![0; set.value_bytes()];
    for number in 0..count {
        fill_value(number, 0, &mut value);
        engine.put(&key(number), &value)?;
    }
    Ok(())
}

/// Copies the directory `from` to `to`, which must not exist.
pub(crate) fn copy(kind: &Kind, from: &Path, to: &Path) -> Outcome {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(kind, &source, &target)?;
            continue;
        }
        let immutable = (kind.is_immutable)(&entry.file_name().to_string_lossy());
        // Where a second name is not allowed, a copy does as well.
        if !immutable || std::fs::hard_link(&source, &target).is_err() {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

/// Copies what a file holds and leaves its holes; shares its blocks where the file system can.
fn copy_file(from: &Path, to: &Path) -> Outcome {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).open(to)?;
    let bytes = source.metadata()?.len();
    target.set_len(bytes)?;
    let seek = |at: i64, whence| {
        // SAFETY: the descriptor is open as long as `source` is.
        unsafe { libc::lseek(source.as_raw_fd(), at, whence) }
    };
    let mut at = 0;
    while at < bytes as i64 {
        let start = seek(at, libc::SEEK_DATA);
        if start < 0 {
            // Nothing but a hole is left, or the file system knows no holes.
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::ENXIO) => break,
                _ => return Err(std::io::Error::last_os_error().into()),
            }
        }
        let end = seek(start, libc::SEEK_HOLE);
        if end < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        copy_part(&source, &target, start, end)?;
        at = end;
    }
    Ok(target.sync_all()?)
}

fn copy_part(source: &File, target: &File, start: i64, end: i64) -> Outcome {
    let (mut from, mut to) = (start, start);
    while from < end {
        // SAFETY: both descriptors are open, and the offsets are this function's own.
        let copied = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &raw mut from,
                target.as_raw_fd(),
                &raw mut to,
                (end - from) as usize,
                0,
            )
        };
        match copied {
            0 => return Err("a file became shorter while it was copied".into()),
            1.. => {}
            _ => return Err(std::io::Error::last_os_error().into()),
        }
    }
    Ok(())
}

/// Syncs every file below the directory.
pub(crate) fn sync_all(dir: &Path) -> Outcome {
    visit(dir, &mut |path| Ok(File::open(path)?.sync_all()?))
}

/// Drops the pages of every file below the directory from the page cache; they must be clean.
pub(crate) fn forget_pages(dir: &Path) -> Outcome {
    visit(dir, &mut |path| {
        let file = File::open(path)?;
        // SAFETY: the descriptor is open.
        let answer = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if answer == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(answer).into()) }
    })
}

/// Bytes that everything below the directory takes on the disk.
pub(crate) fn disk_bytes(dir: &Path) -> Outcome<u64> {
    disk_bytes_of(dir, &|_| true)
}

/// The same of the files whose names `counts`.
pub(crate) fn disk_bytes_of(dir: &Path, counts: &dyn Fn(&str) -> bool) -> Outcome<u64> {
    let mut bytes = 0;
    visit(dir, &mut |path| {
        if path.file_name().is_some_and(|name| counts(&name.to_string_lossy())) {
            // A file may go while it is looked at.
            bytes += std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
        }
        Ok(())
    })?;
    Ok(bytes)
}

fn visit(dir: &Path, work: &mut dyn FnMut(&Path) -> Outcome) -> Outcome {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        // A directory may go as well.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => visit(&entry.path(), work)?,
            Ok(kind) if kind.is_file() => work(&entry.path())?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_copy_has_the_bytes_and_the_holes() {
        let dir = std::env::temp_dir().join(format!("lab-copy-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("from"), dir.join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        file.sync_all().unwrap();
        copy_file(&from, &to).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
        assert!(std::fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
