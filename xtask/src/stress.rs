//! `stress`: many threads on one database, for as long as one likes.

use crate::shell::{Outcome, Workspace, cargo, expect_test, quick_to_build, run_tests, with_rustflags};

/// How `stress` is run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many threads use the database at once
    #[arg(long, default_value_t = 200)]
    threads: u64,
    /// For how long
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// With the smallest options instead of the default ones: memtables of 1 KiB, tables and levels of 4 KiB
    #[arg(long)]
    small: bool,
    /// Under a sanitizer; needs a nightly toolchain
    #[arg(long, value_enum)]
    sanitizer: Option<Sanitizer>,
}

/// What looks over the test's shoulder.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Sanitizer {
    /// Memory used after it was freed, or beyond its end
    Address,
    /// Data races
    Thread,
}

/// The package and test that read `STRESS_THREADS`, `STRESS_SECS`, `STRESS_SMALL` and `STRESS_STUCK_SECS`.
const PACKAGE: &str = "lsm-facade";
const TEST: &str = "threads";

/// What the thread sanitizer reports falsely, because the standard library that it links was not built with it: the fence
/// in front of the drop of what an `Arc` held, and the test harness's channel. Nothing broader, which would hide races.
/// Of standard locks it sees nothing once somebody waits: what is shared is under those of `lock-meter`.
const FALSE_RACES: &str = "\
race:<alloc::sync::Arc<*> as core::ops::drop::Drop>::drop
race:alloc::sync::Arc<*>::drop_slow
race:test::event::CompletedTest
";

/// Runs the stress test, optimised; it prints what was done and fails if that was too little.
pub(crate) fn run(options: &Options) -> Outcome {
    expect_test(PACKAGE, TEST)?;
    let workspace = Workspace::load()?;
    let mut command = match options.sanitizer {
        None => cargo(&["test", "--release"]),
        Some(_) => {
            // Cargo takes a toolchain only through rustup, and `CARGO` names the one of this build.
            let mut command = std::process::Command::new("cargo");
            command.args(["+nightly", "test", "--release", "--target", "x86_64-unknown-linux-gnu"]);
            command.env_remove("RUSTUP_TOOLCHAIN");
            command
        }
    };
    command.args(["--package", PACKAGE, "--test", TEST]);
    let directory = match options.sanitizer {
        None => workspace.target_dir.clone(),
        Some(Sanitizer::Address) => workspace.target_dir.join("address-sanitizer"),
        Some(Sanitizer::Thread) => workspace.target_dir.join("thread-sanitizer"),
    };
    command.arg("--target-dir").arg(&directory);
    command.args(["--", "--exact", "stress", "--nocapture"]);
    if let Some(sanitizer) = options.sanitizer {
        quick_to_build(&mut command);
        let name = match sanitizer {
            Sanitizer::Address => "address",
            Sanitizer::Thread => "thread",
        };
        // `lock-meter` tells the thread sanitizer what its locks order.
        let seen = if let Sanitizer::Thread = sanitizer { "--cfg thread_sanitizer" } else { "" };
        with_rustflags(&mut command, &format!("-Zsanitizer={name} -Cunsafe-allow-abi-mismatch=sanitizer {seen}"));
        // Everything takes some times as long.
        command.env("STRESS_STUCK_SECS", "60");
        command.env("ASAN_OPTIONS", "detect_leaks=0");
        let suppressions = directory.join("suppressions");
        let written = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&suppressions, FALSE_RACES));
        written.map_err(|error| format!("{}: {error}", suppressions.display()))?;
        command.env("TSAN_OPTIONS", format!("suppressions={}", suppressions.display()));
    }
    command.env("STRESS_THREADS", options.threads.to_string());
    command.env("STRESS_SECS", options.secs.to_string());
    command.env("STRESS_SMALL", u64::from(options.small).to_string());
    let count = run_tests(command, |_| true)?;
    if count.passed == 0 { Err("no stress test ran".to_string()) } else { Ok(()) }
}
