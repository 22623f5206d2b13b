//! The payload of a block (T1, T2).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sstable_format::fuzzing::block(input));
