//! What the figures are of: machine, load, date.

use std::fs::read_to_string;
use std::time::{Duration, SystemTime};

/// Processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let memory = read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let memory = memory.and_then(|kib| kib.trim().parse::<u64>().ok());
    let memory = memory.map_or(String::new(), |kib| format!(", {:.1} GiB of memory", kib as f64 / f64::from(1 << 20)));
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).trim();
    format!("{model}, {cores} cores{memory}, {} {}", std::env::consts::OS, kernel.trim()).trim_end().to_string()
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
    fn leap_days_and_the_ends_of_years_are_dated() {
        let dates = [(0, "1970-01-01"), (11_016, "2000-02-29"), (19_722, "2023-12-31"), (19_723, "2024-01-01")];
        for (days, date) in dates {
            assert_eq!(date_of(days), date);
        }
    }
}
