//! The durable claim under every interleaving of two syncs and a writer.
#![cfg(loom)]

use internal_key::SegmentId;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use write_ahead_log::{DurableClaim, LogPosition};

fn at(offset: u64) -> LogPosition {
    LogPosition::new(SegmentId(1), offset)
}

/// What two syncs at once do to a disk and a claim.
struct Disk {
    /// The contiguous prefix that was appended.
    logged: AtomicU64,
    /// What is on the disk; plain as a disk is, so that only the claim orders it.
    synced: AtomicU64,
    claim: DurableClaim,
}

impl Disk {
    fn sync(&self) {
        // `logged` is loaded before the sync begins (P7).
        let logged = self.logged.load(Ordering::Acquire);
        self.synced.fetch_max(logged, Ordering::Relaxed);
        self.claim.raise(at(logged));
    }
}

/// L2: a claim never passes what was synced, and never falls.
#[test]
fn a_claim_never_passes_what_was_synced() {
    loom::model(|| {
        let disk =
            Arc::new(Disk { logged: AtomicU64::new(64), synced: AtomicU64::new(64), claim: DurableClaim::new(at(64)) });
        let first = loom::thread::spawn({
            let disk = Arc::clone(&disk);
            move || {
                disk.logged.store(104, Ordering::Release);
                disk.sync();
            }
        });
        let second = loom::thread::spawn({
            let disk = Arc::clone(&disk);
            move || disk.sync()
        });
        // The next reservation puts the claim into a record.
        let claim = disk.claim.load();
        assert!(disk.synced.load(Ordering::Relaxed) >= claim.offset, "L2: {claim} was not synced");
        let later = disk.claim.load();
        assert!(later >= claim, "L2: the claim fell from {claim} to {later}");
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(disk.claim.load(), at(104), "L2: the larger sync stays");
    });
}
