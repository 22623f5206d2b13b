//! What the figures are of: machine, source, load, date.

use std::fs::read_to_string;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::shell::root;

/// Processor, cores, memory, kernel, the file system that `dir` lies in, compiler.
pub(crate) fn machine(dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory = memory.and_then(|kib| kib.trim().parse::<u64>().ok());
    let memory = memory.map_or(String::new(), |kib| format!(", {:.1} GiB of memory", kib as f64 / f64::from(1 << 20)));
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).trim();
    let system = format!("{} {}", std::env::consts::OS, kernel.trim());
    let files = file_system(dir).map_or(String::new(), |name| format!(", {name}"));
    let compiler = said_by("rustc", &["--version"]).unwrap_or_else(|| "an unknown rustc".to_string());
    // `rustc 1.90.0 (hash date)`: the release names the compiler well enough.
    let compiler = compiler.split(" (").next().unwrap_or_default();
    let flags = std::env::var("RUSTFLAGS").ok().filter(|flags| !flags.trim().is_empty());
    let flags = flags.map_or(String::new(), |flags| format!(" with {}", flags.trim()));
    format!("{model}, {cores} cores{memory}, {}{files}, {compiler}{flags}", system.trim_end())
}

/// The file system that a directory lies in, where the kernel tells.
fn file_system(dir: &Path) -> Option<String> {
    file_system_in(&read_to_string("/proc/self/mounts").ok()?, &dir.canonicalize().ok()?)
}

/// The same, by what is mounted: lines of device, place, type and options.
fn file_system_in(mounts: &str, dir: &Path) -> Option<String> {
    let mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?))
    });
    // Of those mounted at one place the last is what one sees.
    let around = mounted.filter(|(place, _)| dir.starts_with(place));
    around.max_by_key(|(place, _)| place.len()).map(|(_, kind)| kind.to_string())
}

/// What of the tree the figures are of: all that the measuring program is built from.
const MEASURED: &[&str] = &["crates", "benches/peers", "Cargo.toml", "Cargo.lock"];

/// The last commit that changed what is measured; with `+` behind it if it was changed since, `unknown` without `git`.
pub(crate) fn commit() -> String {
    let ask = |verb: &[&str]| said_by("git", &[verb, &["--"][..], MEASURED].concat());
    match (ask(&["log", "-1", "--format=%h", "--abbrev=10"]), ask(&["status", "--porcelain"])) {
        (Some(commit), Some(changed)) if !commit.is_empty() => {
            format!("{commit}{}", if changed.is_empty() { "" } else { "+" })
        }
        _ => "unknown".to_string(),
    }
}

/// What a program prints when it is asked in the workspace's root; `None` if it fails or is not there.
fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.current_dir(root()).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// The load average of the last minute, where there is one.
pub(crate) fn load() -> Option<f64> {
    read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Today as year-month-day, UTC.
pub(crate) fn date() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    date_of(now.as_secs() / 86_400)
}

/// The date so many days after the first of January 1970.
fn date_of(days: u64) -> String {
    // Counted from March of year 0, so that the leap day comes last in its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_is_the_file_system() {
        let mounts =
            "/dev/a / ext4 rw 0 0\nproc /proc proc rw 0 0\n/dev/b /data xfs rw 0 0\ntmpfs /data tmpfs rw 0 0\n";
        let of = |dir: &str| file_system_in(mounts, Path::new(dir));
        assert_eq!(of("/home/x").as_deref(), Some("ext4"));
        assert_eq!(of("/database").as_deref(), Some("ext4"));
        assert_eq!(of("/data/x").as_deref(), Some("tmpfs"));
        assert_eq!(file_system_in("", Path::new("/")), None);
    }

    #[test]
    fn leap_days_and_the_ends_of_years_are_dated() {
        let dates = [(0, "1970-01-01"), (11_016, "2000-02-29"), (19_722, "2023-12-31"), (19_723, "2024-01-01")];
        for (days, date) in dates {
            assert_eq!(date_of(days), date);
        }
    }
}
