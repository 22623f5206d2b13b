//! Every file of the manifest, the former one too (M1, M3, M4).
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| manifest::fuzzing::manifest(input));
