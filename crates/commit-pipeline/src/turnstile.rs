//! Lets those through one by one who have to wait, in the order in which they came.
//!
//! ```text
//!   came last ─▶ asleep ─▶ asleep ─▶ asleep ─▶ │ one inside │ ─▶ leaves and wakes the next, nobody else
//! ```
//!
//! - **P9** Whoever waits has their turn after at most as many others as were before them; leaving wakes one thread, not
//!   all. Who stands at a hard limit (P10) waits for room inside and the others behind: otherwise each change would wake
//!   all of them to look, and who came last and happens to run would take the room.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, wait};

/// Where threads wait for their turn.
#[derive(Debug, Default)]
pub struct Turnstile {
    state: Mutex<State>,
    /// Those inside and those who wait for their turn.
    present: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    is_occupied: bool,
    /// In the order in which they came.
    asleep: VecDeque<Arc<Sleeper>>,
}

#[derive(Debug, Default)]
struct Sleeper {
    /// Written and read under the turnstile's lock.
    is_called: AtomicBool,
    called: Condvar,
}

/// Being inside, until this is dropped.
#[derive(Debug)]
pub struct Turn<'a>(&'a Turnstile);

impl Turnstile {
    /// Waits until everyone who came before has left. Whoever is inside must leave by themselves, so what they wait for
    /// there must end also with a failure.
    pub fn enter(&self) -> Turn<'_> {
        // Relaxed: a hint, see `is_in_use`.
        self.present.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.is_occupied {
            let here = Arc::new(Sleeper::default());
            state.asleep.push_back(Arc::clone(&here));
            // Relaxed: the lock orders it.
            while !here.is_called.load(Ordering::Relaxed) {
                state = wait(&here.called, state);
            }
        }
        state.is_occupied = true;
        Turn(self)
    }

    /// Whether somebody is inside or waits. May be out of date when it returns.
    pub fn is_in_use(&self) -> bool {
        self.present() > 0
    }

    /// How many are inside or wait.
    pub fn present(&self) -> usize {
        // Relaxed: nothing is published by it; whoever decides something by it must bear its being out of date.
        self.present.load(Ordering::Relaxed)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        // Stays occupied if somebody follows, so that nobody overtakes who is called and does not run yet.
        match state.asleep.pop_front() {
            Some(next) if !planted_faults::planted("commit-pipeline-turn-passed-on-silently") => {
                next.is_called.store(true, Ordering::Relaxed);
                drop(state);
                next.called.notify_one();
            }
            Some(next) => next.is_called.store(true, Ordering::Relaxed),
            None => state.is_occupied = false,
        }
        self.0.present.fetch_sub(1, Ordering::Relaxed);
    }
}
