//! A table's file: opened, verified, scanned both ways, asked for keys (T2).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sstable_format::fuzzing::table(input));
