//! Cuts a large job into parts by user keys, and shares them out among the threads that have time.
//!
//! ```text
//!   inputs   ├────────────┼────────────┤        landmarks: keys, and how many bytes lie at or before them
//!            ├─────┼──────┼──────┼─────┤
//!   cuts             ▲         ▲                similar bytes on both sides, at an end of a table below if one is near
//!   parts    [ 0     ][ 1      ][ 2    ]        each: its own cursors, collector and tables; together: one edit
//!
//!   who began the job: take ─▶ write ─▶ end ─▶ take … ─▶ none left ─▶ wait for the others ─▶ outputs, in order
//!   helpers:           take ─▶ write ─▶ end
//! ```
//!
//! - **C3** A cut falls between user keys; the parts are disjoint and ascending.
//! - **C4** The first part that fails, is cancelled or is abandoned by a panic stops the others: none is begun any more, and
//!   those that run are told to give up. Who began the job waits until none runs, and only then removes what was written.
//! - **P9** A taken part ends, whatever becomes of it: by a guard. So the wait ends too.
//!
//! Memory: each part that runs holds what a job of any size holds, a cursor for each run and one open table. So a job holds
//! at most as many times that as it has parts, whatever it merges.

use std::sync::atomic::{AtomicBool, Ordering};

use lock_meter::{Condvar, Mutex};

/// A place in an input: how many of its bytes lie at or before a user key, and behind the landmark before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landmark {
    /// The user key.
    pub key: Box<[u8]>,
    /// The bytes.
    pub bytes: u64,
}

/// How many parts a job of `input_bytes` is worth being cut into: none has fewer than `part_bytes_min` bytes of inputs, for
/// at its end each leaves a table that is not full. At least one, at most `parts_max`.
pub fn parts_for(input_bytes: u64, part_bytes_min: u64, parts_max: usize) -> usize {
    let worth = usize::try_from(input_bytes / part_bytes_min.max(1)).unwrap_or(usize::MAX);
    worth.min(parts_max).max(1)
}

/// The last user keys of all parts but the last, ascending: at most `parts - 1` of them, fewer where the inputs have too few
/// landmarks.
///
/// `landmarks` are those of all inputs in any order, the last key of each input among them. The same landmarks give the
/// same cuts. Of `bounds`, the last keys of the tables that the outputs had better end with (ascending), the nearest
/// within a sixteenth of a part is taken, so that a cut costs the next level no overlap.
pub fn cut_keys(mut landmarks: Vec<Landmark>, parts: usize, bounds: &[Box<[u8]>]) -> Vec<Box<[u8]>> {
    landmarks.sort_unstable_by(|left, right| left.key.cmp(&right.key));
    // How many bytes lie at or before each key.
    let mut total = 0_u64;
    let mut places: Vec<(Box<[u8]>, u64)> = Vec::with_capacity(landmarks.len());
    for Landmark { key, bytes } in landmarks {
        total += bytes;
        match places.last_mut() {
            Some((last, at_or_before)) if *last == key => *at_or_before = total,
            _ => places.push((key, total)),
        }
    }
    // Nothing lies behind the last.
    places.pop();
    let slack = total / (parts.max(1) as u64 * 16);
    let mut cuts: Vec<Box<[u8]>> = Vec::new();
    for part in 1..parts {
        let wanted = (u128::from(total) * part as u128 / parts as u128) as u64;
        let at = places.partition_point(|(_, bytes)| *bytes < wanted);
        // Of the landmarks on both sides the nearer.
        let nearer = |left: &&(Box<[u8]>, u64), right: &&(Box<[u8]>, u64)| {
            left.1.abs_diff(wanted).cmp(&right.1.abs_diff(wanted))
        };
        let around = &places[at.saturating_sub(1)..(at + 1).min(places.len())];
        let Some((key, _)) = around.iter().min_by(nearer) else { break };
        let near = nearest_bound(&places, bounds, wanted, slack);
        let cut: &[u8] = near.unwrap_or(key);
        if cuts.last().is_none_or(|last| **last < *cut) {
            cuts.push(cut.into());
        }
    }
    cuts
}

/// The bound with the fewest bytes between it and the place `wanted`, if there is one within `slack` bytes.
fn nearest_bound<'a>(
    places: &[(Box<[u8]>, u64)],
    bounds: &'a [Box<[u8]>],
    wanted: u64,
    slack: u64,
) -> Option<&'a [u8]> {
    let bytes_before = |key: &[u8]| {
        let before = places.partition_point(|(landmark, _)| **landmark <= *key);
        before.checked_sub(1).map_or(0, |last| places[last].1)
    };
    let behind = bounds.partition_point(|bound| bytes_before(bound) < wanted);
    let around = &bounds[behind.saturating_sub(1)..(behind + 1).min(bounds.len())];
    let (last, _) = places.last()?;
    let distances = around.iter().map(|bound| &**bound).map(|bound| (bytes_before(bound).abs_diff(wanted), bound));
    let fits = distances.filter(|(distance, bound)| *distance <= slack && **bound <= **last);
    fits.min_by_key(|(distance, _)| *distance).map(|(_, bound)| bound)
}

/// The parts of one job, for whoever has time. `T` is what a part makes, `E` why it makes nothing.
pub struct Parts<T, E> {
    state: Mutex<State<T, E>>,
    /// Who began the job sleeps here until no part runs.
    ended: Condvar,
    /// Running parts are to give up. Relaxed: seen a little later, they give up a little later.
    stopped: AtomicBool,
}

struct State<T, E> {
    /// The first that nobody has taken.
    next: usize,
    /// What the parts made; `None`: not taken, not ended, or stopped.
    made: Vec<Option<T>>,
    running: usize,
    /// What came first of what ended the job; `Some(None)`: a part was abandoned.
    failed: Option<Option<E>>,
}

/// A part that somebody has taken, until it ends or is dropped: then it counts as abandoned.
pub struct TakenPart<'a, T, E> {
    parts: &'a Parts<T, E>,
    index: usize,
    ended: bool,
}

/// Why a job of parts made nothing. What its parts made all the same is to be removed.
#[derive(Debug, PartialEq, Eq)]
pub struct PartsFailed<T, E> {
    /// What failed first; `None`: a part was abandoned, as by a panic.
    pub cause: Option<E>,
    /// What the other parts made.
    pub made: Vec<T>,
}

impl<T, E> Parts<T, E> {
    /// So many parts, none of them taken.
    pub fn new(count: usize) -> Self {
        let made = (0..count).map(|_| None).collect();
        Self {
            state: Mutex::new(State { next: 0, made, running: 0, failed: None }),
            ended: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    /// The next part, the first first; `None` if each is taken, or none is to be begun any more.
    pub fn take(&self) -> Option<TakenPart<'_, T, E>> {
        let mut state = self.state.lock();
        let is_over = state.failed.is_some() && !planted_faults::planted("compaction-parts-go-on-after-a-failure");
        if is_over || state.next == state.made.len() {
            return None;
        }
        let index = state.next;
        state.next += 1;
        state.running += 1;
        Some(TakenPart { parts: self, index, ended: false })
    }

    /// Whether [`take`](Self::take) would give one.
    pub fn has_more(&self) -> bool {
        let state = self.state.lock();
        state.failed.is_none() && state.next < state.made.len()
    }

    /// True once the running parts are to give up.
    pub fn stopped(&self) -> &AtomicBool {
        &self.stopped
    }

    /// Waits until no part runs and returns what they made, in order. For who began the job, once there is no part left to
    /// take.
    ///
    /// # Errors
    /// A part failed or was abandoned.
    ///
    /// # Panics
    /// If a part was never taken though none has failed.
    pub fn wait(&self) -> Result<Vec<T>, PartsFailed<T, E>> {
        let mut state = self.state.lock();
        while state.running > 0 && !planted_faults::planted("compaction-parts-left-running") {
            state = lock_meter::wait(&self.ended, state);
        }
        let made = std::mem::take(&mut state.made);
        state.next = 0;
        match state.failed.take() {
            Some(cause) => Err(PartsFailed { cause, made: made.into_iter().flatten().collect() }),
            None => Ok(made.into_iter().map(|made| made.expect("C4: every part has ended")).collect()),
        }
    }

    fn end(&self, index: usize, outcome: Result<T, Option<E>>) {
        let mut state = self.state.lock();
        state.running -= 1;
        match outcome {
            Ok(made) => state.made[index] = Some(made),
            // The others then end because of it.
            Err(cause) => {
                state.failed.get_or_insert(cause);
                self.stopped.store(true, Ordering::Relaxed);
            }
        }
        if state.running == 0 {
            self.ended.notify_all();
        }
    }
}

impl<T, E> TakenPart<'_, T, E> {
    /// Which of the parts it is, the first 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// It has ended: with what it made, or with nothing left behind.
    pub fn end(mut self, outcome: Result<T, E>) {
        self.ended = true;
        self.parts.end(self.index, outcome.map_err(Some));
    }
}

impl<T, E> Drop for TakenPart<'_, T, E> {
    fn drop(&mut self) {
        if !self.ended {
            self.parts.end(self.index, Err(None));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn landmark(key: &str, bytes: u64) -> Landmark {
        Landmark { key: key.as_bytes().into(), bytes }
    }

    fn keys(cuts: &[Box<[u8]>]) -> Vec<String> {
        cuts.iter().map(|cut| cut.escape_ascii().to_string()).collect()
    }

    #[test]
    fn cuts_leave_similar_bytes_on_both_sides() {
        let even = |count: u64| (1..=count).map(|key| landmark(&format!("k{key:03}"), 10)).collect::<Vec<_>>();
        assert_eq!(keys(&cut_keys(even(100), 4, &[])), ["k025", "k050", "k075"]);
        // Another input, all of it before k010: the cuts move there.
        let mut skewed = even(100);
        skewed.extend((1..=10).map(|key| landmark(&format!("k{key:03}"), 100)));
        assert_eq!(keys(&cut_keys(skewed, 2, &[])), ["k009"]);
        // Fewer landmarks than parts: as many as there are, the last key is none.
        assert_eq!(keys(&cut_keys(even(3), 8, &[])), ["k001", "k002"]);
        assert_eq!(cut_keys(even(1), 8, &[]), []);
        assert_eq!(cut_keys(Vec::new(), 8, &[]), []);
        assert_eq!(cut_keys(even(100), 1, &[]), []);
    }

    /// A cut goes to where a table of the next level ends if that is near, and stays where it is if none is.
    #[test]
    fn cuts_prefer_the_ends_of_tables_of_the_next_level() {
        let even = || (1..=100).map(|key| landmark(&format!("k{key:03}"), 10)).collect::<Vec<_>>();
        let bounds = |keys: &[&str]| keys.iter().map(|key| key.as_bytes().into()).collect::<Vec<Box<[u8]>>>();
        assert_eq!(keys(&cut_keys(even(), 2, &bounds(&["k048x", "k060"]))), ["k048x"]);
        assert_eq!(keys(&cut_keys(even(), 2, &bounds(&["k040", "k060"]))), ["k050"]);
        // Not behind everything.
        assert_eq!(keys(&cut_keys(even()[98..].to_vec(), 2, &bounds(&["k100", "z"]))), ["k099"]);
    }

    #[test]
    fn a_part_is_never_too_small_to_be_worth_it() {
        assert_eq!(parts_for(1000, 100, 4), 4);
        assert_eq!(parts_for(399, 100, 4), 3);
        assert_eq!(parts_for(10, 100, 4), 1);
        assert_eq!(parts_for(1000, 0, 0), 1);
    }

    #[test]
    fn what_the_parts_made_comes_in_order() {
        let parts: Parts<usize, ()> = Parts::new(3);
        let (first, second, third) = (parts.take().unwrap(), parts.take().unwrap(), parts.take().unwrap());
        assert!(parts.take().is_none());
        for part in [third, first, second] {
            let index = part.index();
            part.end(Ok(index));
        }
        assert_eq!(parts.wait(), Ok(vec![0, 1, 2]));
        assert!(parts.take().is_none(), "nothing is left of it");
    }

    /// C4: the first failure is the job's, what runs is stopped, and nothing more is begun.
    #[test]
    fn the_first_failure_stops_the_others() {
        let parts: Parts<usize, &str> = Parts::new(4);
        let (first, second, third) = (parts.take().unwrap(), parts.take().unwrap(), parts.take().unwrap());
        first.end(Ok(7));
        assert!(!parts.stopped().load(Ordering::Relaxed));
        second.end(Err("full"));
        assert!(parts.stopped().load(Ordering::Relaxed) && parts.take().is_none() && !parts.has_more());
        third.end(Err("cancelled"));
        assert_eq!(parts.wait(), Err(PartsFailed { cause: Some("full"), made: vec![7] }));
    }

    /// P9: a part that panics has ended.
    #[test]
    fn an_abandoned_part_has_ended() {
        let parts: Parts<usize, &str> = Parts::new(2);
        drop(parts.take().unwrap());
        assert!(parts.take().is_none());
        assert_eq!(parts.wait(), Err(PartsFailed { cause: None, made: vec![] }));
    }

    /// C4: who began the job does not remove or install anything while a part still writes.
    #[test]
    fn the_wait_lasts_as_long_as_a_part_runs() {
        let parts: Parts<usize, &str> = Parts::new(2);
        let (first, second) = (parts.take().unwrap(), parts.take().unwrap());
        first.end(Ok(1));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| parts.wait());
            thread::sleep(std::time::Duration::from_millis(20));
            second.end(Ok(2));
            assert_eq!(waiting.join().unwrap(), Ok(vec![1, 2]));
        });
    }

    /// C4, P9: who began the job returns when nobody works on it any more, and not before.
    #[test]
    fn the_wait_ends_with_the_last_part() {
        for failing in [None, Some(1)] {
            let parts: Parts<usize, usize> = Parts::new(16);
            let working = AtomicUsize::new(0);
            let work = || {
                while let Some(part) = parts.take() {
                    working.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    let index = part.index();
                    working.fetch_sub(1, Ordering::SeqCst);
                    part.end(if failing == Some(index) { Err(index) } else { Ok(index) });
                }
            };
            thread::scope(|scope| {
                (0..2).for_each(|_| drop(scope.spawn(work)));
                work();
                let made = parts.wait();
                assert_eq!(working.load(Ordering::SeqCst), 0);
                match failing {
                    None => assert_eq!(made, Ok((0..16).collect())),
                    Some(index) => assert_eq!(made.unwrap_err().cause, Some(index)),
                }
            });
        }
    }
}
