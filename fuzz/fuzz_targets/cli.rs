//! Rows that `lsm load` reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lsm_cli::fuzzing::cli(input));
