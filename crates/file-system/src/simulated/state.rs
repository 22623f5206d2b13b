//! What the simulated disk and page cache hold, and how each event changes it.
//!
//! ```text
//!   directories   current: name ─▶ inode       durable: name ─▶ inode       pending: name operations in order
//!   files         current pages, length        durable pages, length        pending: patches per page, lengths
//!                 └ what programs see          └ what a power cut leaves    └ what it may leave of the rest
//! ```
//!
//! Applying the same operations to the same state gives the same state: that is how a crash at any past event is
//! rebuilt. Pages are shared between copies of a state, so a copy costs its number of pages and names, not its bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

/// Names a file or directory for as long as the simulation lives. Never reused.
pub(super) type Inode = u64;

/// The directory `/`.
pub(super) const ROOT: Inode = 0;

/// What the page cache writes back in one piece, if nothing tears it.
pub(super) const PAGE_BYTES: usize = 4096;

/// What a disk writes in one piece.
pub(super) const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

/// Bytes by page; a page that is not there reads as zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) len: u64,
    pub(super) pages: BTreeMap<u64, Arc<Page>>,
}

/// Splits `[offset, offset + len)` at page borders: page number, place in the page, place in the piece.
fn split_at_pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let piece = (PAGE_BYTES - within).min(len - done);
        let range = done..done + piece;
        done += piece;
        (piece > 0).then_some((at / PAGE_BYTES as u64, within, range))
    })
}

impl Content {
    /// Fills `buffer` from `offset`; `false` if the content ends before.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        for (number, within, range) in split_at_pages(offset, buffer.len()) {
            match self.pages.get(&number) {
                Some(page) => buffer[range.clone()].copy_from_slice(&page[within..within + range.len()]),
                None => buffer[range].fill(0),
            }
        }
        true
    }

    /// The pages that exist at or after `offset`.
    pub(super) fn written_ranges(&self, offset: u64) -> Vec<Range<u64>> {
        let page = PAGE_BYTES as u64;
        let pages = self.pages.range(offset / page..);
        pages.map(|(number, _)| (number * page).max(offset)..((number + 1) * page).min(self.len)).collect()
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, range) in split_at_pages(offset, bytes.len()) {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Cuts or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let (last, within) = (len / PAGE_BYTES as u64, (len % PAGE_BYTES as u64) as usize);
            self.pages.split_off(&(last + u64::from(within > 0)));
            if within > 0
                && let Some(page) = self.pages.get_mut(&last)
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Bytes that were written into one page and are not known to be durable.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    /// The event that wrote them.
    pub(super) event: u64,
    within: usize,
    source: Arc<[u8]>,
    range: Range<usize>,
}

impl Patch {
    /// Copies what of the patch lies in `sector` (a range of the page) into `page`.
    pub(super) fn copy_sector(&self, page: &mut Page, sector: Range<usize>) {
        let bytes = &self.source[self.range.clone()];
        let start = self.within.max(sector.start);
        let end = (self.within + bytes.len()).min(sector.end);
        if start < end {
            page[start..end].copy_from_slice(&bytes[start - self.within..end - self.within]);
        }
    }
}

/// What was changed since some sync: patches by page, and lengths, each with its event.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    pub(super) patches: BTreeMap<u64, Vec<Patch>>,
    pub(super) lengths: Vec<(u64, u64)>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.patches.is_empty() && self.lengths.is_empty()
    }
}

/// A file's bytes as programs see them, as a power cut is sure to leave them, and what lies between.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState {
    pub(super) current: Content,
    pub(super) durable: Content,
    /// Written since the last sync.
    pub(super) pending: Changes,
    /// Pending when a sync failed: no later sync writes it, unless the same page is written again.
    pub(super) lost: Changes,
}

impl FileState {
    fn write(&mut self, event: u64, offset: u64, bytes: &Arc<[u8]>) {
        let len = self.current.len;
        self.current.write(offset, bytes);
        for (number, within, range) in split_at_pages(offset, bytes.len()) {
            let patch = Patch { event, within, source: Arc::clone(bytes), range };
            self.pending.patches.entry(number).or_default().push(patch);
        }
        if self.current.len != len {
            self.pending.lengths.push((event, self.current.len));
        }
    }

    fn grow(&mut self, event: u64, len: u64) {
        debug_assert!(len >= self.current.len, "files only grow");
        self.current.set_len(len);
        self.pending.lengths.push((event, len));
    }

    /// Dirty pages reach the disk whole, as the page cache holds them.
    fn sync(&mut self) {
        for number in std::mem::take(&mut self.pending.patches).into_keys() {
            self.lost.patches.remove(&number);
            if let Some(page) = self.current.pages.get(&number) {
                self.durable.pages.insert(number, Arc::clone(page));
            }
        }
        if !std::mem::take(&mut self.pending.lengths).is_empty() {
            self.lost.lengths.clear();
            self.durable.len = self.current.len;
        }
    }

    /// The pages are marked clean although they did not reach the disk: what kernels do.
    fn fail_sync(&mut self) {
        if planted_faults::planted("simulated-failed-sync-keeps-pages-dirty") {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        for (number, mut patches) in pending.patches {
            self.lost.patches.entry(number).or_default().append(&mut patches);
        }
        self.lost.lengths.extend(pending.lengths);
    }
}

/// A directory's entries as programs see them and as a power cut is sure to leave them.
#[derive(Debug, Clone, Default)]
pub(super) struct DirState {
    pub(super) current: BTreeMap<Arc<str>, Inode>,
    pub(super) durable: BTreeMap<Arc<str>, Inode>,
}

/// A file or a directory.
#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Arc<FileState>),
    Dir(Arc<DirState>),
}

/// An entry: the directory and the name in it.
pub(super) type Entry = (Inode, Arc<str>);

/// A change of one or two entries. A rename is atomic: both of its entries change or neither does.
#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Link { entry: Entry, inode: Inode },
    Unlink { entry: Entry },
    Rename { from: Entry, to: Entry, inode: Inode },
}

impl NameChange {
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (one, two) = match self {
            Self::Link { entry, .. } | Self::Unlink { entry } => (entry, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(two)
    }
}

/// What an event does to the state. Inodes, not paths: replaying needs no resolution.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    CreateFile {
        entry: Entry,
        inode: Inode,
    },
    CreateDir {
        entry: Entry,
        inode: Inode,
    },
    Name(NameChange),
    Write {
        inode: Inode,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Grow {
        inode: Inode,
        len: u64,
    },
    Sync {
        inode: Inode,
    },
    FailSync {
        inode: Inode,
    },
    SyncDir {
        dir: Inode,
    },
    /// An injected failure without effect.
    Nothing,
}

/// The whole disk and page cache at one event.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<Inode, Node>,
    pub(super) next_inode: Inode,
    /// Changes of names that no directory sync has covered yet, oldest first.
    pub(super) pending_names: Vec<NameChange>,
}

impl State {
    /// A disk with an empty root directory.
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Arc::default()))]);
        Self { nodes, next_inode: ROOT + 1, pending_names: Vec::new() }
    }

    pub(super) fn file(&self, inode: Inode) -> Option<&FileState> {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn dir(&self, inode: Inode) -> Option<&DirState> {
        match self.nodes.get(&inode) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    fn file_mut(&mut self, inode: Inode) -> &mut FileState {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => Arc::make_mut(file),
            _ => unreachable!("an operation names a file that was never created"),
        }
    }

    fn dir_mut(&mut self, inode: Inode) -> &mut DirState {
        match self.nodes.get_mut(&inode) {
            Some(Node::Dir(dir)) => Arc::make_mut(dir),
            _ => unreachable!("an operation names a directory that was never created"),
        }
    }

    /// What stands at `entry`, as programs see it.
    pub(super) fn lookup(&self, entry: &Entry) -> Option<Inode> {
        self.dir(entry.0)?.current.get(&entry.1).copied()
    }

    /// The file or directory at `path`.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<Inode> {
        let mut trail = vec![ROOT];
        for component in path.components() {
            match component {
                Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
                Component::ParentDir => {
                    if trail.len() > 1 {
                        trail.pop();
                    }
                }
                Component::Normal(name) => {
                    let dir = self.dir(trail[trail.len() - 1]).ok_or(io::ErrorKind::NotADirectory)?;
                    let inode = dir.current.get(&*name.to_string_lossy()).ok_or(io::ErrorKind::NotFound)?;
                    trail.push(*inode);
                }
            }
        }
        Ok(trail[trail.len() - 1])
    }

    /// The entry that `path` names, whether or not something stands there; its directory must exist.
    pub(super) fn entry(&self, path: &Path) -> io::Result<Entry> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.resolve(path.parent().unwrap_or(Path::new("")))?;
        if self.dir(dir).is_none() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok((dir, name.to_string_lossy().into()))
    }

    /// How many names `inode` has.
    pub(super) fn link_count(&self, inode: Inode) -> u64 {
        self.named().filter(|&named| named == inode).count() as u64
    }

    /// The inode of every name, as programs see them.
    pub(super) fn named(&self) -> impl Iterator<Item = Inode> + '_ {
        self.nodes.values().flat_map(|node| match node {
            Node::Dir(dir) => Some(dir.current.values().copied()).into_iter().flatten(),
            Node::File(_) => None.into_iter().flatten(),
        })
    }

    /// Carries out `operation`, which is event number `event`.
    pub(super) fn apply(&mut self, event: u64, operation: &Operation) {
        match operation {
            Operation::CreateFile { entry, inode } => self.create(entry, *inode, Node::File(Arc::default())),
            Operation::CreateDir { entry, inode } => self.create(entry, *inode, Node::Dir(Arc::default())),
            Operation::Name(change) => self.change_name(change.clone()),
            Operation::Write { inode, offset, bytes } => self.file_mut(*inode).write(event, *offset, bytes),
            Operation::Grow { inode, len } => self.file_mut(*inode).grow(event, *len),
            Operation::Sync { inode } => self.file_mut(*inode).sync(),
            Operation::FailSync { inode } => self.file_mut(*inode).fail_sync(),
            Operation::SyncDir { dir } => self.sync_dir(*dir),
            Operation::Nothing => {}
        }
    }

    /// Changes a byte, on the disk and in the page cache.
    pub(super) fn corrupt(&mut self, inode: Inode, offset: u64, byte: u8) {
        let file = self.file_mut(inode);
        file.current.write(offset, &[byte]);
        if offset < file.durable.len {
            file.durable.write(offset, &[byte]);
        }
    }

    fn create(&mut self, entry: &Entry, inode: Inode, node: Node) {
        self.next_inode = self.next_inode.max(inode + 1);
        self.nodes.insert(inode, node);
        self.change_name(NameChange::Link { entry: entry.clone(), inode });
    }

    fn change_name(&mut self, change: NameChange) {
        self.change_entries(&change, |dir| &mut dir.current);
        self.pending_names.push(change);
    }

    /// Makes `change` durable.
    pub(super) fn settle_name(&mut self, change: &NameChange) {
        self.change_entries(change, |dir| &mut dir.durable);
    }

    fn change_entries(&mut self, change: &NameChange, side: impl Fn(&mut DirState) -> &mut BTreeMap<Arc<str>, Inode>) {
        match change {
            NameChange::Link { entry: (dir, name), inode } => {
                side(self.dir_mut(*dir)).insert(Arc::clone(name), *inode);
            }
            NameChange::Unlink { entry: (dir, name) } => {
                side(self.dir_mut(*dir)).remove(name);
            }
            NameChange::Rename { from, to, inode } => {
                side(self.dir_mut(from.0)).remove(&from.1);
                side(self.dir_mut(to.0)).insert(Arc::clone(&to.1), *inode);
            }
        }
    }

    /// Makes durable what touches `dir`, and what happened before to the same names.
    fn sync_dir(&mut self, dir: Inode) {
        let mut wanted: BTreeSet<Entry> = BTreeSet::new();
        let mut settled = Vec::new();
        let mut kept = Vec::new();
        for change in std::mem::take(&mut self.pending_names).into_iter().rev() {
            let unordered = planted_faults::planted("simulated-directory-sync-forgets-earlier-changes");
            if change.entries().any(|entry| entry.0 == dir || (wanted.contains(entry) && !unordered)) {
                wanted.extend(change.entries().cloned());
                settled.push(change);
            } else {
                kept.push(change);
            }
        }
        for change in settled.iter().rev() {
            self.settle_name(change);
        }
        kept.reverse();
        self.pending_names = kept;
    }

    /// Forgets files and directories that no name, durable or not, and none of `open` leads to.
    pub(super) fn collect(&mut self, open: impl Fn(Inode) -> bool) {
        let mut kept: BTreeSet<Inode> = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                kept.extend(dir.current.values().chain(dir.durable.values()));
            }
        }
        for change in &self.pending_names {
            kept.extend(change.entries().map(|entry| entry.0));
            if let NameChange::Link { inode, .. } | NameChange::Rename { inode, .. } = change {
                kept.insert(*inode);
            }
        }
        self.nodes.retain(|&inode, _| kept.contains(&inode) || open(inode));
    }
}
