//! Segments of a log: replayed, salvaged, inspected (L2, L3).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| write_ahead_log::fuzzing::log_replay(input));
