//! Blocks of an index, and an index of any keys (T3).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sstable_format::fuzzing::index(input));
