//! How much memory the process holds that is no file's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the sampler looks.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// Samples the anonymous resident memory of this process and remembers the largest figure. Linux only: elsewhere it
/// knows nothing.
#[derive(Debug)]
pub struct AnonymousMemory {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes_max: AtomicU64,
    stop: AtomicBool,
}

impl AnonymousMemory {
    /// Begins to sample.
    pub fn watch() -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !seen.stop.load(Ordering::Relaxed) {
                seen.bytes_max.fetch_max(Self::now().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(SAMPLE_EVERY);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Bytes held now; `None` where it cannot be known.
    pub fn now() -> Option<u64> {
        status("RssAnon:")
    }

    /// The largest figure since it was asked for last; `None` where it cannot be known.
    pub fn take_max(&self) -> Option<u64> {
        let now = Self::now()?;
        Some(self.shared.bytes_max.swap(0, Ordering::Relaxed).max(now))
    }
}

impl Drop for AnonymousMemory {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The most memory that was ever resident, pages of mapped files included; `None` where it cannot be known.
pub fn resident_bytes_max() -> Option<u64> {
    status("VmHWM:")
}

/// A figure in KiB from the kernel's account of this process, in bytes.
fn status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
