//! Models of the turnstile.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release -p commit-pipeline --test loom_turnstile`
#![cfg(loom)]

use commit_pipeline::Turnstile;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// P9: one at a time is inside, each in their turn, and nobody who waits is forgotten.
#[test]
fn everyone_has_a_turn_and_nobody_shares_it() {
    loom::model(|| {
        let turnstile = Arc::new(Turnstile::default());
        let inside = Arc::new(AtomicUsize::new(0));
        let pass = |turnstile: &Turnstile, inside: &AtomicUsize| {
            let turn = turnstile.enter();
            assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "P9: two inside");
            inside.fetch_sub(1, Ordering::Relaxed);
            drop(turn);
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (turnstile, inside) = (Arc::clone(&turnstile), Arc::clone(&inside));
                thread::spawn(move || pass(&turnstile, &inside))
            })
            .collect();
        pass(&turnstile, &inside);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(!turnstile.is_in_use());
    });
}
