//! A page of memory that parent and child share, and that outlives the child.
//!
//! ```text
//!   0  threads in flush   8  in compaction   16  in a manifest edit   24  in recovery
//!   32 + 16 w  number of the commit that writer w has begun     40 + 16 w  that it was told of
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

use crate::work::WRITERS;

/// What a process can be killed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Flush,
    Compaction,
    Edit,
    Recovery,
}

impl Phase {
    pub(crate) const ALL: [Self; 4] = [Self::Flush, Self::Compaction, Self::Edit, Self::Recovery];
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flush => "flush",
            Self::Compaction => "compaction",
            Self::Edit => "manifest edit",
            Self::Recovery => "recovery",
        })
    }
}

const BYTES: usize = 4096;

/// The page.
#[derive(Debug)]
pub(crate) struct Page {
    map: MmapRaw,
}

impl Page {
    /// A new page, all zeros, in a file.
    pub(crate) fn create(path: &Path) -> Self {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(BYTES as u64).unwrap();
        Self::of(&file)
    }

    /// The page that another process made.
    pub(crate) fn open(path: &Path) -> Self {
        Self::of(&OpenOptions::new().read(true).write(true).open(path).unwrap())
    }

    fn of(file: &File) -> Self {
        let map = MmapRaw::map_raw(file).unwrap();
        assert_eq!(map.len(), BYTES);
        Self { map }
    }

    fn number(&self, index: usize) -> &AtomicU64 {
        assert!(index < BYTES / size_of::<AtomicU64>());
        // SAFETY: the map is page-aligned, as long as asserted when it was made, lives as long as `self`, and is only ever
        // accessed through atomics, in both processes. No process shortens the file.
        unsafe { &*self.map.as_mut_ptr().cast::<AtomicU64>().add(index) }
    }

    fn begun(&self, writer: usize) -> &AtomicU64 {
        self.number(Phase::ALL.len() + 2 * writer)
    }

    fn acknowledged(&self, writer: usize) -> &AtomicU64 {
        self.number(Phase::ALL.len() + 2 * writer + 1)
    }

    /// Before a child is started: it is in no phase, and the writers have come as far as `known`.
    pub(crate) fn reset(&self, known: &[u64; WRITERS]) {
        Phase::ALL.iter().for_each(|phase| self.number(*phase as usize).store(0, Ordering::Release));
        for (writer, known) in known.iter().enumerate() {
            self.begun(writer).store(*known, Ordering::Release);
            self.acknowledged(writer).store(*known, Ordering::Release);
        }
    }

    /// A thread enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.number(phase as usize).fetch_add(1, Ordering::AcqRel);
    }

    /// And leaves it.
    pub(crate) fn leave(&self, phase: Phase) {
        self.number(phase as usize).fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether a thread is in a phase.
    fn is_in(&self, phase: Phase) -> bool {
        self.number(phase as usize).load(Ordering::Acquire) > 0
    }

    /// The one phase that counts if several threads are in one: the shortest.
    pub(crate) fn phase(&self) -> Option<Phase> {
        [Phase::Recovery, Phase::Edit, Phase::Flush, Phase::Compaction].into_iter().find(|phase| self.is_in(*phase))
    }

    /// A writer begins a commit.
    pub(crate) fn begin(&self, writer: usize, commit: u64) {
        self.begun(writer).store(commit, Ordering::Release);
    }

    /// The commit has returned: it must never be lost.
    pub(crate) fn acknowledge(&self, writer: usize, commit: u64) {
        self.acknowledged(writer).store(commit, Ordering::Release);
    }

    /// How many commits a writer has begun, and was told of.
    pub(crate) fn commits(&self, writer: usize) -> (u64, u64) {
        (self.begun(writer).load(Ordering::Acquire), self.acknowledged(writer).load(Ordering::Acquire))
    }
}
