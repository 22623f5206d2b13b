//! The twin of a fuzz target: the same harness, driven on stable by samples, their mutations and arbitrary bytes.
//!
//! ```text
//!   samples ──▶ fuzz/corpus/TARGET/*  ──▶ the fuzzer starts from them
//!                        └──▶ mutated, by seed ──▶ harness(bytes)      the twin, in the crate's tests
//! ```

use std::path::PathBuf;
use std::{env, fs};

use crate::golden::UPDATE_VARIABLE;
use crate::rng::{Rng, for_each_seed};

/// Numbers at which decoders err: limits of their types, and what is just inside or outside of them.
const EDGES: [u64; 12] = [0, 1, 7, 8, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 56, i64::MAX as u64, u64::MAX];

/// Runs `harness` on every file of the corpus of fuzz target `target`, on mutations of them and on arbitrary bytes,
/// `cases` of both together. The harness panics where a property fails; the seed that repeats the case is printed then.
///
/// `samples`, name and bytes, are what the corpus is made of: with [`UPDATE_VARIABLE`] set they are written to
/// `fuzz/corpus/TARGET`, else their files must hold just them. Further files there, such as former findings, are
/// run too.
///
/// # Panics
/// If the harness does, or the corpus cannot be read or differs from the samples.
pub fn fuzz_twin(target: &str, samples: &[(&str, Vec<u8>)], cases: u64, harness: impl Fn(&[u8])) {
    let root = env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    let dir = root.join("../../fuzz/corpus").join(target);
    let update = env::var_os(UPDATE_VARIABLE).is_some_and(|value| !value.is_empty());
    if update {
        fs::create_dir_all(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    for (name, bytes) in samples {
        let path = dir.join(name);
        if update {
            fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(found == *bytes, "{} is not the sample (`cargo xtask fuzz --corpus` rewrites it)", path.display());
    }
    let mut corpus: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", dir.display())).path();
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        corpus.push((path, bytes));
    }
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", dir.display());
    for (_, bytes) in &corpus {
        harness(bytes);
    }
    for_each_seed(0..cases, |rng| {
        let bytes = if rng.one_in(8) {
            let len = rng.index(300);
            rng.bytes(len)
        } else {
            let (bytes, other) = (&rng.pick(&corpus).1.clone(), &rng.pick(&corpus).1);
            mutate(bytes, other, rng)
        };
        harness(&bytes);
    });
}

/// `bytes` with one to four changes: bits, numbers, pieces taken out, doubled or brought in from `other`.
pub fn mutate(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..rng.within(1..5) {
        if out.is_empty() {
            return rng.bytes(8);
        }
        let at = rng.index(out.len());
        let end = at + rng.index((out.len() - at).min(64) + 1);
        match rng.index(8) {
            0 | 1 => out[at] ^= 1 << rng.index(8),
            2 => out[at] = rng.next_u64() as u8,
            3 => {
                let width = (*rng.pick(&[1, 2, 4, 8])).min(out.len() - at);
                let number = rng.pick(&EDGES).wrapping_add(rng.below(3)).to_le_bytes();
                out[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => drop(out.drain(at..end)),
            5 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            6 if !other.is_empty() => {
                let from = rng.index(other.len());
                let piece = &other[from..from + rng.index((other.len() - from).min(64) + 1)];
                out.splice(at..end, piece.iter().copied());
            }
            _ => out.truncate(at),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_differ_and_keep_the_order_of_size() {
        let sample: Vec<u8> = (0..200).collect();
        let mut changed = 0;
        for_each_seed(0..200, |rng| {
            let mutated = mutate(&sample, b"other", rng);
            changed += u32::from(mutated != sample);
            assert!(mutated.len() <= sample.len() + 4 * 64);
        });
        assert!(changed > 180, "{changed} of 200 were changed");
    }
}
