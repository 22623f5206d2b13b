//! `--limits`: what the machine can do at best, so that figures of engines have a measure.
//!
//! Only the standard library, so that nothing of the engine is in the figures. Each is the best of some rounds: a limit
//! is what is left when nobody else wants the machine.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::machine::{date, load, machine};
use super::markdown::{put_between_marks, short};
use crate::shell::{Outcome, root};

/// So often each limit is measured; the best counts.
const ROUNDS: u32 = 5;

/// Larger than any cache.
const LARGE: usize = 256 << 20;

const PAGE: usize = 4096;

/// Writes that are synced one by one.
const SYNCS: u32 = 300;

/// Reads of random pages from the page cache.
const READS: u32 = 100_000;

/// Measures and prints a table; puts it into `into` as well.
pub(crate) fn run(into: Option<&Path>) -> Outcome {
    let dir = root().join("target/bench/limits");
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let path = dir.join("file");
    let machine = machine(&dir);
    let measured = measure(&path).map_err(failed);
    let _ = std::fs::remove_dir_all(&dir);
    let mut text = format!(
        "{}, {}; load {:.1}. The best of {ROUNDS} rounds each.\n\n| limit | figure |\n|---|---:|\n",
        date(),
        machine,
        load().unwrap_or(f64::NAN)
    );
    for (limit, figure) in measured? {
        text.push_str(&format!("| {limit} | {figure} |\n"));
    }
    println!("{text}");
    match into {
        Some(document) => put_between_marks(&root().join(document), "limits", &text),
        None => Ok(()),
    }
}

fn measure(path: &Path) -> std::io::Result<Vec<(&'static str, String)>> {
    let mut table = Vec::new();
    let source = vec![1_u8; LARGE];
    let mut target = vec![0_u8; LARGE];
    let copy = best(|| target.copy_from_slice(black_box(&source)));
    black_box(&target);
    table.push(("memory copy", format!("{:.1} GB/s", LARGE as f64 / copy.as_nanos() as f64)));
    drop((source, target));

    table.push(("dependent miss to memory", format!("{:.0} ns", dependent_miss())));

    let page = [0x5A; PAGE];
    let growing = best_of(|| {
        let mut file = File::create(path)?;
        timed_syncs(|| file.write_all(&page).and_then(|()| file.sync_data()))
    })?;
    table.push(("write of 4 KiB + fdatasync, growing file", per_second(growing)));
    let mut file = OpenOptions::new().write(true).open(path)?;
    let written = best_of(|| {
        file.seek(SeekFrom::Start(0))?;
        timed_syncs(|| file.write_all(&page).and_then(|()| file.sync_data()))
    })?;
    table.push(("write of 4 KiB + fdatasync, file written before", per_second(written)));

    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let block = vec![7_u8; 1 << 20];
    for _ in 0..LARGE >> 20 {
        file.write_all(&block)?;
    }
    let mut buffer = [0; PAGE];
    let read = best_of(|| {
        let mut random = 1_u64;
        let begun = Instant::now();
        for _ in 0..READS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let page = (random >> 33) % (LARGE / PAGE) as u64;
            file.seek(SeekFrom::Start(page * PAGE as u64))?;
            file.read_exact(&mut buffer)?;
        }
        Ok(begun.elapsed() / READS)
    })?;
    table.push(("read of a random 4 KiB page from the page cache (seek and read)", format!("{} ns", read.as_nanos())));

    let clock = best(|| {
        for _ in 0..100_000 {
            black_box(Instant::now());
        }
    }) / 100_000;
    table.push(("reading the clock", format!("{} ns", clock.as_nanos())));
    Ok(table)
}

/// A chain through all lines of a large array in an order that no prefetcher guesses; nanoseconds of one step.
fn dependent_miss() -> f64 {
    const WORDS_A_LINE: usize = 8;
    const STEPS: u32 = 2_000_000;
    let lines = LARGE / 64;
    let mut next = vec![0_u64; lines * WORDS_A_LINE];
    // Sattolo's shuffle: one cycle through all.
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = 7_u64;
    for at in (1..lines).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, ((random >> 33) % at as u64) as usize);
    }
    for (at, line) in order.iter().enumerate() {
        next[at * WORDS_A_LINE] = u64::from(*line) * WORDS_A_LINE as u64;
    }
    let mut at = 0;
    let took = best(|| {
        for _ in 0..STEPS {
            at = next[at as usize];
        }
        black_box(at);
    });
    took.as_nanos() as f64 / f64::from(STEPS)
}

fn timed_syncs(mut write: impl FnMut() -> std::io::Result<()>) -> std::io::Result<Duration> {
    let begun = Instant::now();
    for _ in 0..SYNCS {
        write()?;
    }
    Ok(begun.elapsed() / SYNCS)
}

fn per_second(each: Duration) -> String {
    format!("{} µs, {} a second", each.as_micros(), short(1.0 / each.as_secs_f64()))
}

fn best(mut step: impl FnMut()) -> Duration {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        step();
        begun.elapsed()
    });
    rounds.min().unwrap_or_default()
}

fn best_of(mut round: impl FnMut() -> std::io::Result<Duration>) -> std::io::Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        best = best.min(round()?);
    }
    Ok(best)
}
