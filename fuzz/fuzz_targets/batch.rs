//! Payloads of the log's records (L2).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lsm_facade::fuzzing::batch(input));
