//! Lines of a filter, and a filter of any hashes (T3).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sstable_format::fuzzing::filter(input));
