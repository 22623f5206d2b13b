//! What this process has used: processor time, bytes written, memory at its most.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Processor time of all threads so far.
pub(crate) fn cpu() -> Duration {
    // SAFETY: all zeros are a valid `rusage`, which the call below overwrites.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a whole `rusage` that nobody else refers to.
    let answer = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    assert_eq!(answer, 0, "getrusage knows this process");
    let of = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Bytes of pages that this process made dirty for the disk so far; `None` where the kernel does not say.
pub(crate) fn written_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.trim().parse().ok()
}

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// A process uses less than this part of a processor when it is quiet.
const QUIET_SHARE: u32 = 20;

/// Quiet must last so long.
const QUIET_FOR: Duration = Duration::from_millis(500);

/// After so long a process that is never quiet is taken as it is.
const QUIET_PATIENCE: Duration = Duration::from_secs(120);

/// Waits until this process has used next to no processor time for half a second and `is_idle` says yes: for engines
/// that do not tell when their background work is done.
pub(crate) fn wait_until_quiet(is_idle: impl Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < QUIET_PATIENCE {
        let before = cpu();
        std::thread::sleep(QUIET_FOR);
        if cpu() - before < QUIET_FOR / QUIET_SHARE && is_idle() {
            return;
        }
    }
    eprintln!("not quiet after {} s", QUIET_PATIENCE.as_secs());
}

/// Samples resident memory in a thread of its own and remembers the largest figures.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    anonymous_max: AtomicU64,
    file_max: AtomicU64,
    stop: AtomicBool,
}

impl Memory {
    /// Runs `work` while memory is sampled; returns what it returned and the most that was seen of anonymous and of
    /// file-backed memory.
    pub(crate) fn watch<T>(work: impl FnOnce() -> T) -> (T, u64, u64) {
        let memory = Self::default();
        let done = std::thread::scope(|scope| {
            // Relaxed all through: the figures are read after the thread was joined.
            scope.spawn(|| {
                while !memory.stop.load(Ordering::Relaxed) {
                    memory.look();
                    std::thread::sleep(SAMPLE_EVERY);
                }
            });
            // Also when the work panics: otherwise the scope would never end.
            let _stop = StopWhenDropped(&memory.stop);
            let done = work();
            memory.look();
            done
        });
        (done, memory.anonymous_max.load(Ordering::Relaxed), memory.file_max.load(Ordering::Relaxed))
    }

    fn look(&self) {
        let (anonymous, file) = resident();
        self.anonymous_max.fetch_max(anonymous, Ordering::Relaxed);
        self.file_max.fetch_max(file, Ordering::Relaxed);
    }
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Bytes of anonymous and of file-backed memory that are resident now; zero where the kernel does not say.
pub(crate) fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib << 10)
    };
    // A map that is shared and written, as a log may be, counts as one or the other by the file system it lies in.
    (figure("RssAnon:"), figure("RssFile:") + figure("RssShmem:"))
}
