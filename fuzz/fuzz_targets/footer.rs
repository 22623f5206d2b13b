//! Footer, header, properties and frames of a table (T5).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sstable_format::fuzzing::footer(input));
