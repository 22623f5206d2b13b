//! The files as the engine has them: each call enters the disk once, and is one operation there, or a few.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};

use super::SimulatedFileSystem;
use super::disk::{Disk, SIMULATED_PID, Shared, failed};
use super::state::{Inode, NameChange, Operation};
use crate::traits::{LOCK_INFO_NAME, LOCK_NAME, TEMPORARY_PREFIX};
use crate::{
    DirectoryEntry, DirectoryLock, FileError, FileOperation, FileSystem, LogFile, LogFileWay, MappedBytes, ReadFile,
    TemporaryFile,
};

impl FileSystem for SimulatedFileSystem {
    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Create;
        let mut disk = self.shared.enter(what, path)?;
        if let Ok(inode) = disk.state.resolve(path)
            && disk.state.dir(inode).is_some()
        {
            return disk.look(what, path);
        }
        let entry = disk.state.entry(path).map_err(failed(what, path))?;
        if disk.state.lookup(&entry).is_some() {
            return Err(failed(what, path)(io::ErrorKind::AlreadyExists));
        }
        let inode = disk.state.next_inode;
        disk.perform(what, path, Operation::CreateDir { entry, inode })
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>, FileError> {
        let (handle, len) = self.open_existing(path)?;
        Ok(Arc::new(SimulatedReadFile { handle, len }))
    }

    fn create_temporary(&self, dir: &Path) -> Result<Box<dyn TemporaryFile>, FileError> {
        let what = FileOperation::Create;
        let mut disk = self.shared.enter(what, dir)?;
        let (path, entry) = loop {
            let path = dir.join(format!("{TEMPORARY_PREFIX}{:06}", disk.next_temporary));
            disk.next_temporary += 1;
            let entry = disk.state.entry(&path).map_err(failed(what, dir))?;
            // One may be left from before a crash.
            if disk.state.lookup(&entry).is_none() {
                break (path, entry);
            }
        };
        let inode = disk.create_file(what, &path, entry)?;
        *disk.open.entry(inode).or_default() += 1;
        Ok(Box::new(SimulatedTemporaryFile { handle: self.open_handle(&path, inode), len: 0, persisted: false }))
    }

    fn create_log(&self, path: &Path, bytes: u64, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        let mut disk = self.shared.enter(FileOperation::Create, path)?;
        let entry = disk.state.entry(path).map_err(failed(FileOperation::Create, path))?;
        if disk.state.lookup(&entry).is_some() {
            return Err(failed(FileOperation::Create, path)(io::ErrorKind::AlreadyExists));
        }
        let inode = disk.create_file(FileOperation::Create, path, entry.clone())?;
        let allocated = if bytes > i64::MAX as u64 >> 10 {
            // No disk is so large.
            Err(failed(FileOperation::Allocate, path)(io::ErrorKind::FileTooLarge))
        } else {
            disk.perform(FileOperation::Allocate, path, Operation::Grow { inode, len: bytes })
        };
        if let Err(error) = allocated {
            // Fails when the process has died, and may fail by a rule; then the file stays, as a real one would.
            let _ = disk.perform(FileOperation::Remove, path, Operation::Name(NameChange::Unlink { entry }));
            return Err(error);
        }
        *disk.open.entry(inode).or_default() += 1;
        let way = if disk.maps_logs { way } else { LogFileWay::Written };
        Ok(Arc::new(SimulatedLogFile { handle: self.open_handle(path, inode), len: bytes, way }))
    }

    fn open_log(&self, path: &Path, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        let (handle, len) = self.open_existing(path)?;
        let way = if self.disk().maps_logs { way } else { LogFileWay::Written };
        Ok(Arc::new(SimulatedLogFile { handle, len, way }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.shared.enter(FileOperation::Rename, from)?.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        self.shared.enter(FileOperation::Remove, path)?.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::Remove;
        let mut disk = self.shared.enter(what, path)?;
        let entry = disk.state.entry(path).map_err(failed(what, path))?;
        let inode = disk.state.lookup(&entry).ok_or_else(|| failed(what, path)(io::ErrorKind::NotFound))?;
        match disk.state.dir(inode) {
            None => Err(failed(what, path)(io::ErrorKind::NotADirectory)),
            Some(dir) if !dir.current.is_empty() => Err(failed(what, path)(io::ErrorKind::DirectoryNotEmpty)),
            Some(_) => disk.perform(what, path, Operation::Name(NameChange::Unlink { entry })),
        }
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<DirectoryEntry>, FileError> {
        let what = FileOperation::List;
        let mut disk = self.shared.enter(what, path)?;
        let inode = disk.state.resolve(path).map_err(failed(what, path))?;
        if disk.state.dir(inode).is_none() {
            return Err(failed(what, path)(io::ErrorKind::NotADirectory));
        }
        disk.look(what, path)?;
        let Disk { state, .. } = &*disk;
        let entries = state.dir(inode).into_iter().flat_map(|dir| &dir.current);
        let is_dir = |inode: &Inode| state.dir(*inode).is_some();
        Ok(entries.map(|(name, inode)| DirectoryEntry { name: name.to_string(), is_dir: is_dir(inode) }).collect())
    }

    fn file_len(&self, path: &Path) -> Result<u64, FileError> {
        let (disk, inode) = self.inspect(path)?;
        Ok(disk.state.file(inode).map_or(0, |file| file.current.len))
    }

    fn link_count(&self, path: &Path) -> Result<u64, FileError> {
        let (disk, inode) = self.inspect(path)?;
        Ok(disk.state.link_count(inode))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        let what = FileOperation::Create;
        let mut disk = self.shared.enter(what, to)?;
        let inode = disk.state.resolve(from).map_err(failed(what, to))?;
        if disk.state.file(inode).is_none() {
            return Err(failed(what, to)(io::ErrorKind::PermissionDenied));
        }
        let entry = disk.state.entry(to).map_err(failed(what, to))?;
        if disk.state.lookup(&entry).is_some() {
            return Err(failed(what, to)(io::ErrorKind::AlreadyExists));
        }
        disk.perform(what, to, Operation::Name(NameChange::Link { entry, inode }))
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        let what = FileOperation::SyncDirectory;
        let mut disk = self.shared.enter(what, path)?;
        let dir = disk.state.resolve(path).map_err(failed(what, path))?;
        if disk.state.dir(dir).is_none() {
            return Err(failed(what, path)(io::ErrorKind::NotADirectory));
        }
        disk.perform(what, path, Operation::SyncDir { dir })
    }

    fn lock_dir(&self, dir: &Path) -> Result<Box<dyn DirectoryLock>, FileError> {
        let what = FileOperation::Lock;
        let path = dir.join(LOCK_NAME);
        let mut disk = self.shared.enter(what, &path)?;
        let entry = disk.state.entry(&path).map_err(failed(what, &path))?;
        let inode = entry.0;
        if disk.locked.contains(&inode) {
            let source = io::Error::new(io::ErrorKind::WouldBlock, format!("process {SIMULATED_PID} holds it"));
            return Err(FileError::new(what, &path, source));
        }
        match disk.state.lookup(&entry) {
            Some(_) => disk.look(what, &path)?,
            None => drop(disk.create_file(what, &path, entry)?),
        }
        let info = dir.join(LOCK_INFO_NAME);
        // As in the real one, the name of the holder is a courtesy; only a process that died here gets no lock.
        let _ = disk.name_holder(&info);
        disk.check_alive(what, &path)?;
        disk.locked.push(inode);
        Ok(Box::new(SimulatedLock { shared: Arc::clone(&self.shared), dir: inode }))
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        let mut disk = self.shared.enter(FileOperation::Inspect, path)?;
        disk.look(FileOperation::Inspect, path)?;
        match disk.state.resolve(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(FileOperation::Inspect, path)(error)),
        }
    }
}

impl SimulatedFileSystem {
    fn open_handle(&self, path: &Path, inode: Inode) -> Handle {
        Handle { shared: Arc::clone(&self.shared), path: path.to_owned(), inode }
    }

    fn open_existing(&self, path: &Path) -> Result<(Handle, u64), FileError> {
        let what = FileOperation::Open;
        let mut disk = self.shared.enter(what, path)?;
        let inode = disk.state.resolve(path).map_err(failed(what, path))?;
        let Some(len) = disk.state.file(inode).map(|file| file.current.len) else {
            return Err(failed(what, path)(io::ErrorKind::IsADirectory));
        };
        disk.look(what, path)?;
        *disk.open.entry(inode).or_default() += 1;
        Ok((self.open_handle(path, inode), len))
    }

    fn inspect(&self, path: &Path) -> Result<(MutexGuard<'_, Disk>, Inode), FileError> {
        let what = FileOperation::Inspect;
        let mut disk = self.shared.enter(what, path)?;
        let inode = disk.state.resolve(path).map_err(failed(what, path))?;
        disk.look(what, path)?;
        Ok((disk, inode))
    }
}

/// An open file: keeps its space from being counted as free.
struct Handle {
    shared: Arc<Shared>,
    path: PathBuf,
    inode: Inode,
}

impl Handle {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.shared.lock()
    }

    /// As [`Shared::enter`], for this file.
    fn enter(&self, what: FileOperation) -> Result<MutexGuard<'_, Disk>, FileError> {
        self.shared.enter(what, &self.path)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let mut disk = self.enter(FileOperation::Write)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let operation = Operation::Write { inode: self.inode, offset, bytes: bytes.into() };
        disk.perform(FileOperation::Write, &self.path, operation).map_err(|error| error.at(offset))
    }

    fn sync(&self) -> Result<(), FileError> {
        self.enter(FileOperation::Sync)?.perform(FileOperation::Sync, &self.path, Operation::Sync { inode: self.inode })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inode = self.inode;
        self.disk().close(inode);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

#[derive(Debug)]
struct SimulatedReadFile {
    handle: Handle,
    len: u64,
}

impl ReadFile for SimulatedReadFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), FileError> {
        let Handle { path, inode, .. } = &self.handle;
        let mut disk = self.handle.enter(FileOperation::Read).map_err(|error| error.at(offset))?;
        disk.look(FileOperation::Read, path).map_err(|error| error.at(offset))?;
        if !buffer.is_empty() && !disk.state.file(*inode).is_some_and(|file| file.current.read(offset, buffer)) {
            let source = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(FileError::new(FileOperation::Read, path, source).at(offset));
        }
        Ok(())
    }

    fn written_ranges(&self, offset: u64) -> Vec<Range<u64>> {
        let disk = self.handle.disk();
        disk.state.file(self.handle.inode).map_or_else(Vec::new, |file| file.current.written_ranges(offset))
    }

    fn map(&self) -> Result<MappedBytes, FileError> {
        let Handle { path, inode, .. } = &self.handle;
        let mut disk = self.handle.enter(FileOperation::Map)?;
        disk.look(FileOperation::Map, path)?;
        // A copy: what is mapped does not change.
        let mut bytes = vec![0; self.len as usize];
        if let Some(file) = disk.state.file(*inode) {
            file.current.read(0, &mut bytes);
        }
        Ok(MappedBytes::from_memory(&bytes))
    }
}

#[derive(Debug)]
struct SimulatedTemporaryFile {
    handle: Handle,
    len: u64,
    persisted: bool,
}

impl TemporaryFile for SimulatedTemporaryFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.handle.write(self.len, bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn sync(&mut self) -> Result<(), FileError> {
        self.handle.sync()
    }

    fn persist(mut self: Box<Self>, to: &Path) -> Result<(), FileError> {
        let path = self.handle.path.clone();
        self.handle.enter(FileOperation::Rename)?.rename(&path, to)?;
        self.persisted = true;
        Ok(())
    }
}

impl Drop for SimulatedTemporaryFile {
    fn drop(&mut self) {
        if !self.persisted {
            let path = std::mem::take(&mut self.handle.path);
            // Fails when the process has died, and may fail by a rule: then it stays, as a real one would.
            let _ = self.handle.disk().remove_file(&path);
        }
    }
}

#[derive(Debug)]
struct SimulatedLogFile {
    handle: Handle,
    len: u64,
    way: LogFileWay,
}

impl LogFile for SimulatedLogFile {
    fn path(&self) -> &Path {
        &self.handle.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn way(&self) -> LogFileWay {
        self.way
    }

    fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        assert!(
            offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.len),
            "L1: a store of {} bytes at {offset} leaves {} of {} bytes",
            bytes.len(),
            self.handle.path.display(),
            self.len
        );
        self.handle.write(offset, bytes)
    }

    fn populate(&self, _offset: u64, _bytes: u64) {}

    fn sync(&self) -> Result<(), FileError> {
        self.handle.sync()
    }
}

struct SimulatedLock {
    shared: Arc<Shared>,
    dir: Inode,
}

impl fmt::Debug for SimulatedLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedLock")
    }
}

impl DirectoryLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.shared.lock().locked.retain(|&dir| dir != self.dir);
    }
}
