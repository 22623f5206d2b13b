//! What a crash leaves.
//!
//! A killed process leaves the page cache as it is: everything that was stored is there, and what was not synced can
//! still be lost by a power cut later. A power cut leaves what was synced, and of the rest what a seed decides:
//!
//! - Each file goes one of five ways: everything pending survives, nothing does, a prefix in time does (the last write
//!   torn at sector borders), each page stops at a time of its own, or each sector does. So later bytes may survive
//!   without earlier ones.
//! - The length is decided apart from the bytes; what it uncovers and no write reached reads as zeros.
//! - Each change of a name happened or not, apart from the bytes and from other names. Changes of one name happen in
//!   order, and a rename happens whole.
//! - What was pending when a sync failed survives seldom, whatever was synced later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::random::SplitMix;
use super::state::{Content, DirState, FileState, NameChange, Node, Operation, PAGE_BYTES, ROOT, SECTOR_BYTES, State};

/// How the simulated machine or process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Crash {
    /// The process dies, the machine runs on: nothing that was stored is lost.
    Kill,
    /// The machine dies: only what was synced is certain.
    PowerCut,
}

/// The disk after `crash`.
pub(super) fn image(state: &State, crash: Crash, seed: u64) -> State {
    match crash {
        Crash::Kill => state.clone(),
        Crash::PowerCut => after_power_cut(state, seed),
    }
}

/// Carries out a part of `operation`, as when the crash falls into the middle of it. Several pieces of a write count as
/// one event.
pub(super) fn apply_partly(state: &mut State, event: u64, operation: &Operation, random: &mut SplitMix) {
    let Operation::Write { inode, offset, bytes } = operation else {
        if random.chance(1, 2) {
            state.apply(event, operation);
        }
        return;
    };
    if random.chance(1, 2) {
        let prefix = random.below(bytes.len() as u64 + 1) as usize;
        let operation = Operation::Write { inode: *inode, offset: *offset, bytes: bytes[..prefix].into() };
        state.apply(event, &operation);
        return;
    }
    // A copy may move its words in any order.
    for (index, word) in bytes.chunks(8).enumerate() {
        if random.chance(1, 2) {
            let offset = offset + index as u64 * 8;
            state.apply(event, &Operation::Write { inode: *inode, offset, bytes: word.into() });
        }
    }
}

fn after_power_cut(state: &State, seed: u64) -> State {
    let mut settled = state.clone();
    let pending = std::mem::take(&mut settled.pending_names);
    for change in surviving_names(&pending, &mut SplitMix::new(seed)) {
        settled.settle_name(change);
    }
    // What no durable name leads to is gone.
    let mut after = State { nodes: BTreeMap::new(), next_inode: settled.next_inode, pending_names: Vec::new() };
    let mut waiting = vec![ROOT];
    while let Some(inode) = waiting.pop() {
        if after.nodes.contains_key(&inode) {
            continue;
        }
        let node = match &settled.nodes[&inode] {
            Node::Dir(dir) => {
                waiting.extend(dir.durable.values());
                Node::Dir(Arc::new(DirState { current: dir.durable.clone(), durable: dir.durable.clone() }))
            }
            Node::File(file) => {
                let mut random = SplitMix::new(seed ^ inode.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                let content = surviving_content(file, &mut random);
                Node::File(Arc::new(FileState { current: content.clone(), durable: content, ..FileState::default() }))
            }
        };
        after.nodes.insert(inode, node);
    }
    after
}

/// The changes of names that happened: of each name a prefix of its changes.
fn surviving_names<'a>(pending: &'a [NameChange], random: &mut SplitMix) -> Vec<&'a NameChange> {
    let quarters = random.below(5);
    let mut stopped = BTreeSet::new();
    let mut survivors = Vec::new();
    for change in pending {
        if random.chance(quarters, 4) && change.entries().all(|entry| !stopped.contains(entry)) {
            survivors.push(change);
        } else {
            stopped.extend(change.entries());
        }
    }
    survivors
}

/// How a file's pending writes survive.
#[derive(Clone, Copy)]
enum Way {
    Everything,
    Nothing,
    Prefix { cut: u64 },
    EachPage,
    EachSector,
}

fn surviving_content(file: &FileState, random: &mut SplitMix) -> Content {
    if file.pending.is_empty() && file.lost.is_empty() {
        return file.durable.clone();
    }
    // What a failed sync dropped was usually never written.
    let lost_survives = random.chance(1, 4);
    let way = match random.below(5) {
        0 => Way::Everything,
        1 => Way::Nothing,
        2 => {
            let changes = [&file.lost, &file.pending];
            let writes = changes.iter().flat_map(|changes| changes.patches.values().flatten()).map(|patch| patch.event);
            let lengths = changes.iter().flat_map(|changes| &changes.lengths).map(|&(event, _)| event);
            let events: BTreeSet<u64> = writes.chain(lengths).collect();
            let events: Vec<u64> = events.into_iter().collect();
            Way::Prefix { cut: events[random.below(events.len() as u64) as usize] }
        }
        3 => Way::EachPage,
        _ => Way::EachSector,
    };

    let mut content = file.durable.clone();
    let numbers: BTreeSet<u64> = file.lost.patches.keys().chain(file.pending.patches.keys()).copied().collect();
    for number in numbers {
        let lost = file.lost.patches.get(&number).map_or(&[][..], Vec::as_slice);
        let pending = file.pending.patches.get(&number).map_or(&[][..], Vec::as_slice);
        let mut page = content.pages.get(&number).map_or([0; PAGE_BYTES], |page| **page);
        let events: Vec<u64> = lost.iter().chain(pending).map(|patch| patch.event).collect();
        let any_cut = |random: &mut SplitMix| match random.below(events.len() as u64 + 1) as usize {
            index if index < events.len() => events[index],
            _ => u64::MAX,
        };
        let page_cut = any_cut(random);
        for start in (0..PAGE_BYTES).step_by(SECTOR_BYTES) {
            // The sector was last written when all patches before `cut` were in the page cache.
            let cut = match way {
                Way::Everything => u64::MAX,
                Way::Nothing => 0,
                Way::Prefix { cut } => cut + random.below(2),
                Way::EachPage => page_cut,
                Way::EachSector => any_cut(random),
            };
            // A page written again takes along what a failed sync had dropped from it.
            let dirtied_again = pending.first().is_some_and(|patch| patch.event < cut);
            for patch in lost.iter().filter(|patch| patch.event < cut && (lost_survives || dirtied_again)) {
                patch.copy_sector(&mut page, start..start + SECTOR_BYTES);
            }
            for patch in pending.iter().filter(|patch| patch.event < cut) {
                patch.copy_sector(&mut page, start..start + SECTOR_BYTES);
            }
        }
        content.pages.insert(number, Arc::new(page));
    }

    let lost = file.lost.lengths.iter().filter(|_| lost_survives);
    let lengths: Vec<(u64, u64)> = lost.chain(&file.pending.lengths).copied().collect();
    let before = |cut: u64| lengths.iter().rev().find(|(event, _)| *event < cut).map(|&(_, len)| len);
    let len = match way {
        Way::Everything => before(u64::MAX),
        Way::Nothing => None,
        Way::Prefix { cut } => before(cut + 1),
        Way::EachPage | Way::EachSector => {
            let index = random.below(lengths.len() as u64 + 1) as usize;
            lengths.get(index).map(|&(_, len)| len)
        }
    };
    // Through the largest length first, so that pages beyond the end are cut off.
    content.len = content.len.max(file.current.len);
    content.set_len(len.unwrap_or(file.durable.len));
    content
}
