//! What the background does while memory runs short: frees, evicts, and flushes the largest memtables.
//!
//! - **P13** Steps 3 and 5 of [`crate::memory`].
//! - **R4** Whatever is freed is freed here, and by no reader or writer.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::core::{Core, KeyspaceShared};
use crate::memory::MemtableUse;

impl Core {
    /// Has memtables flushed until those that stay take no more than half of the room, or leave as much as somebody waits
    /// for; the largest first, whichever keyspace's they are.
    pub(super) fn relieve_memory(&self) {
        if !self.memory.is_limited() {
            return;
        }
        let (wanted, is_flushing) = {
            let jobs = self.jobs.lock();
            (jobs.memory_wanted(), !jobs.flushing.is_empty())
        };
        if wanted.is_none() && !self.memory_runs_short() {
            return;
        }
        let needed = wanted.map_or(0, |(_, needed)| needed);
        // What nobody reads any more, and tables beyond their part.
        self.forget_predecessors();
        self.free_retired();
        self.tables.make_room_for_memtables(needed);
        self.tables.collect();

        let keyspaces = self.keyspace_list();
        let uses: Vec<(MemtableUse, &Arc<KeyspaceShared>)> =
            keyspaces.iter().map(|keyspace| (MemtableUse::of(keyspace), keyspace)).collect();
        let all: u64 = uses.iter().map(|(used, _)| used.all).sum();
        let asked: u64 = uses.iter().map(|(used, _)| used.asked).sum();
        // Less what no flush frees: it was flushed, and is read; or it is empty.
        let room_now = || self.memory.memtables_max().saturating_sub(self.memory.memtables().saturating_sub(all));
        let mut room = room_now();
        if needed > room {
            keyspaces.iter().for_each(|keyspace| keyspace.give_up_spare());
            room = room_now();
        }
        let may_stay = if needed <= room { (room / 2).min(room - needed) } else { room / 2 };
        let mut stays = all - asked;
        let mut largest_first = uses;
        largest_first.sort_by_key(|(used, keyspace)| (Reverse(used.all - used.asked), keyspace.id));
        for (used, keyspace) in &largest_first {
            if stays > may_stay && used.all > used.asked && !planted_faults::planted("facade-memory-flushes-nothing") {
                self.flush_for_memory(keyspace);
                stays -= used.all - used.asked;
            } else if used.asked > 0 && wanted.is_some() {
                self.jobs.lock().wants_look(keyspace.id);
            }
        }
        let Some((number, needed)) = wanted else { return };
        // Step 5: nothing that could be flushed would be enough, and no flush is about to let go of what it has flushed.
        let is_in_vain = needed > room && asked == 0 && !is_flushing;
        // No job may follow whose end would tell that there is room, if it was freed here.
        if is_in_vain || self.memory.has_room(needed) {
            self.jobs.lock().answer_for_memory(number);
            self.notify();
        }
    }

    /// Seals what a keyspace has in memory and has it flushed, whatever its size.
    fn flush_for_memory(&self, keyspace: &Arc<KeyspaceShared>) {
        let Some(pipeline) = &self.pipeline else { return };
        if pipeline.with_order(|_| keyspace.seal_in_order()) {
            self.after_seal(keyspace);
        }
        self.flush_all_sealed(keyspace);
    }
}
