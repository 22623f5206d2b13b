//! What writers and compactions are slowed down by: the debt of a keyspace, and the rate of compactions.
//!
//! - **P10** Writers are told after every change of a super version what it left to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use compaction::{Cancel, Debt, Load, Pace};
use internal_key::Level;
use version_history::Sealed;

use crate::core::{Core, KeyspaceShared, PACE_FREE, PACE_QUEUE, PACE_WAIT, SealedPart, SuperVersion};

impl Core {
    /// P10: what writers of a keyspace are told, from what the last change of its super version left to do.
    pub(crate) fn update_pace(&self, keyspace: &KeyspaceShared) {
        loop {
            let current = keyspace.history.current_full();
            let (pace, queue_delay) = self.pace_of(keyspace, &current);
            // Relaxed: advice for who stands in the queue, as old as what is stored below at most.
            keyspace.queue_delay.store(queue_delay, Ordering::Relaxed);
            // AcqRel: of two who do this at a time, the one that stores last has acquired what the other looked at, and
            // sees below if that was newer. So what stays is what the newest super version asks for.
            let before = keyspace.pace.swap(pace, Ordering::AcqRel);
            if before == PACE_WAIT && pace != PACE_WAIT {
                // P9: it may have been found wrong by somebody who did no job, whose end would tell.
                self.notify();
            }
            if Arc::ptr_eq(&current, &keyspace.history.current_full()) {
                return;
            }
        }
    }

    /// Per KiB written; each writer scales it by what it writes.
    fn pace_per_kib(&self, keyspace: &KeyspaceShared, current: &SuperVersion) -> Pace {
        compaction::pace::pace(&keyspace.options.limits(), &load_of(keyspace, current), 1024)
    }

    /// What writers of a keyspace are told; and the delay, in nanoseconds per KiB, of those who have come to the head of
    /// the queue and found room: a queue is no way around the debt.
    fn pace_of(&self, keyspace: &KeyspaceShared, current: &SuperVersion) -> (u64, u64) {
        let delay = match self.pace_per_kib(keyspace, current) {
            Pace::Wait(_) => return (PACE_WAIT, 0),
            Pace::Proceed => PACE_FREE,
            Pace::Delay(delay, _) => (delay.as_nanos() as u64).clamp(1, PACE_QUEUE - 1),
        };
        (if keyspace.room.is_in_use() { PACE_QUEUE } else { delay }, delay)
    }

    /// Which hard limit the writers of a keyspace meet, if they meet one (P10).
    pub(crate) fn limit_met(&self, keyspace: &KeyspaceShared) -> Option<Debt> {
        match self.pace_per_kib(keyspace, &keyspace.history.current_full()) {
            Pace::Wait(debt) => Some(debt),
            _ => None,
        }
    }

    /// Waits until the rate of compactions lets `bytes` through, or until the job is cancelled.
    pub(super) fn wait_for_rate(&self, bytes: u64, cancel: Cancel<'_>) {
        /// How often a waiting job looks whether it is cancelled.
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let mut left = self.compaction_rate.take(bytes);
        while !left.is_zero() && !cancel.is_set() {
            let step = left.min(LOOK_EVERY);
            self.environment.clock.sleep(step);
            left -= step;
        }
    }
}

/// What there is to do for a keyspace, as far as it sets the pace of its writers (P10).
pub(crate) fn load_of(keyspace: &KeyspaceShared, current: &SuperVersion) -> Load {
    let sealed_bytes = sealed_bytes(current);
    let coming_of_memtables = sealed_bytes.saturating_mul(1000) / keyspace.options.flush_bytes();
    // Each is a run of its own.
    let batches = current.sealed().iter().filter(|part| matches!(part, Sealed::Batch(_))).count() as u64;
    Load {
        l0_runs: current.version().runs(Level::ZERO).len() as u64,
        l0_runs_coming_thousandths: coming_of_memtables.saturating_add(batches * 1000),
        sealed_bytes,
        pending_bytes: compaction::pick::pending_bytes(current.version(), &keyspace.options.compaction()),
        ..Load::default()
    }
}

/// Bytes in sealed memtables.
pub(crate) fn sealed_bytes(current: &SuperVersion) -> u64 {
    let bytes = |part: &SealedPart| match part {
        Sealed::Memtable(memtable) => memtable.memory_usage(),
        Sealed::Batch(_) => 0,
    };
    current.sealed().iter().map(bytes).sum()
}
