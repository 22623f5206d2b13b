//! A crash at every event of a run: what recovery finds is the model's state after some prefix of commits, nothing lies
//! about unnamed, and the database goes on.
//!
//! ```text
//!   run      ──[event]──[event]──▶ … ──▶        two keyspaces, zero threads: a seed repeats it event by event
//!                 │ crash_image_at / crash_image_during, killed or power cut
//!                 ▼
//!   recover  ──[event]──▶ open                  prefix that holds every acknowledged (killed) or synced (power cut) commit
//!                 │ crash again, at an event of recovery or behind it
//!                 ▼
//!   recover  ──▶ the same state ──▶ writes, flushes, compacts, reopens
//! ```
//!
//! - [`run`] plans a run from its seed, options included, and carries it out beside the model.
//! - [`check`] crashes it at one event and judges what recovery finds.
//! - [`shrink`] leaves out steps of a run that failed for as long as it still fails.
//! - [`named`] holds the runs that once failed, under the name of what must hold.
//!
//! `CRASH_SEEDS` and `CRASH_FIRST_SEED` say how much is run. A failure prints the seed, the event, the steps that are
//! needed for it, and the variables that repeat it: `CRASH_STEPS` keeps only those steps of a seed's plan, `CRASH_EVENT`
//! tries one event alone.

mod check;
#[path = "../common/compactions.rs"]
mod compactions;
mod named;
mod run;
mod shrink;

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use file_system::Crash;
use test_support::{Rng, number_in};

use run::{Plan, Run};

/// How long a failing run may be shrunk.
const SHRINKING: Duration = Duration::from_secs(60);

/// A kind of run.
#[derive(Clone, Copy)]
struct Length {
    /// The test that makes them.
    test: &'static str,
    /// At least so many commits.
    commits: u64,
    /// At how many of its events it is crashed; `None`: at all of them.
    sample: Option<u64>,
}

/// M1, M2, P5, P6, P7, L3, L4: a crash at any event of a short run loses nothing acknowledged and halves no batch.
#[test]
fn a_crash_at_any_event_of_a_short_run_leaves_a_prefix() {
    crash_runs(number_in("CRASH_SEEDS", 1), Length { test: "a_crash_at_any_event", commits: 40, sample: None });
}

/// M1, M2, P5, P6, P7, L3, L4: the same at random events of longer runs, in which compactions reach deeper levels.
#[test]
fn a_crash_at_some_events_of_a_longer_run_leaves_a_prefix() {
    crash_runs(number_in("CRASH_SEEDS", 2), Length { test: "a_crash_at_some_events", commits: 300, sample: Some(60) });
}

/// Runs each seed and crashes it at all events, or at some of them; as many seeds at a time as there are cores.
fn crash_runs(seeds: u64, length: Length) {
    let first = number_in("CRASH_FIRST_SEED", 0);
    let kept: Option<Vec<usize>> = std::env::var("CRASH_STEPS").ok().map(|text| {
        let steps = text.split(',').filter(|step| !step.is_empty());
        steps.map(|step| step.parse().expect("CRASH_STEPS holds numbers")).collect()
    });
    let only = std::env::var_os("CRASH_EVENT").map(|_| number_in("CRASH_EVENT", 0));
    let (next, points, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let met = Mutex::new(run::Met::default());
    let work = || {
        // Relaxed: a number is handed out once, and joining the threads brings the sums together.
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            let mut plan = Plan::new(seed, length.commits);
            if let Some(kept) = &kept {
                plan = plan.keeping(kept);
            }
            match crash_everywhere(&plan, length.sample, only) {
                Ok((tried, did)) => {
                    points.fetch_add(tried, Ordering::Relaxed);
                    met.lock().unwrap().add(&did);
                }
                Err(failure) => {
                    failed.store(true, Ordering::Relaxed);
                    panic!("{}", report(&plan, length.test, failure));
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(seeds.max(1) as usize);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let (points, met) = (points.into_inner(), met.into_inner().unwrap());
    println!("crash: {seeds} seeds of {} commits, {points} crash points ({met})", length.commits);
    // Of the runs of continuous integration at least.
    if length.sample.is_some() && kept.is_none() && only.is_none() && seeds > 1 {
        met.assert_varied();
    }
}

/// What went wrong, and where.
struct Failure {
    /// `None` if the run itself failed.
    at: Option<(u64, Crash, bool)>,
    why: String,
}

/// Carries out a plan and crashes it, at all events, at `sample` of them or at one alone; returns the number of points.
fn crash_everywhere(plan: &Plan, sample: Option<u64>, only: Option<u64>) -> Result<(u64, run::Met), Failure> {
    let run = caught(|| {
        let mut run = Run::new(plan);
        run.run(plan);
        run
    });
    let run = run.map_err(|why| Failure { at: None, why })?;
    let count = run.simulation.files.event_count();
    let mut rng = Rng::new(!plan.seed);
    let events: BTreeSet<u64> = match (only, sample) {
        (Some(event), _) => [event].into(),
        (None, None) => (0..=count).collect(),
        (None, Some(sample)) => (0..sample).map(|_| rng.below(count + 1)).collect(),
    };
    let mut points = 0;
    for event in events {
        // Every event decides its own crashes, so that one alone repeats.
        let mut rng = Rng::new(plan.seed ^ (event << 20));
        for crash in [Crash::Kill, Crash::PowerCut] {
            let during = event < count && rng.one_in(2);
            let mut rng = rng.fork();
            caught(|| run.check_crash(event, crash, during, &mut rng))
                .map_err(|why| Failure { at: Some((event, crash, during)), why })?;
            points += 1;
        }
    }
    Ok((points, run.end()))
}

/// Shrinks a failing plan and says how to repeat what is left of it.
fn report(plan: &Plan, test: &str, failure: Failure) -> String {
    let begun = Instant::now();
    let mut last = failure;
    // A planted fault is known: there it is enough to notice it.
    let patience = if std::env::var_os("LSM_MUTANT").is_some() { Duration::ZERO } else { SHRINKING };
    // A shorter run has fewer events: each is tried, whatever the sample was.
    let kept = shrink::shrink(plan.steps.len(), |kept| {
        if begun.elapsed() > patience {
            return false;
        }
        match quietly(|| crash_everywhere(&plan.keeping(kept), None, None)) {
            Ok(_) => false,
            Err(failure) => {
                last = failure;
                true
            }
        }
    });
    let shrunk = plan.keeping(&kept);
    let seed = plan.seed;
    let place = last.at.map_or("without any crash".to_owned(), |(event, crash, during)| {
        format!("{crash:?} {} event {event}", if during { "during" } else { "before" })
    });
    let steps: Vec<String> = shrunk.steps.iter().map(|step| step.index.to_string()).collect();
    let event = last.at.map_or(String::new(), |(event, ..)| format!(" CRASH_EVENT={event}"));
    format!(
        "seed {seed}: {place}: {}\n{} of {} steps are needed:\n{shrunk}this repeats with\n    CRASH_SEEDS=1 \
         CRASH_FIRST_SEED={seed} CRASH_STEPS={}{event} cargo test -p lsm-facade --test crash {}",
        last.why,
        kept.len(),
        plan.steps.len(),
        steps.join(","),
        test,
    )
}

thread_local! {
    /// Whether panics of this thread are expected and say nothing.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` without its panics being printed.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let done = work();
    QUIET.set(false);
    done
}

/// What `work` returns, or the text of its panic.
fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let text = |payload: Box<dyn Any + Send>| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().map_or("a panic without words", |text| text).to_owned(),
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(text)
}
