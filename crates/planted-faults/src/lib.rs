//! The registry of faults that the tests must catch.
//!
//! A *planted fault* is a small, deliberate defect in shipped code: a check skipped, a bound off by one, two steps
//! swapped. The code that carries one asks [`planted`] whether to misbehave. Without `--cfg mutants` the answer is a
//! constant `false` and the compiler removes the branch; with it, the environment variable `LSM_MUTANT` chooses at most
//! one fault at run time, so that one build serves every fault. `cargo xtask mutants` runs the test that each
//! [`Fault`] names and fails if it passes with the fault planted.
//!
//! ```
//! // In shipped code: the fault stands beside the line that it breaks.
//! fn is_visible(entry: u64, snapshot: u64) -> bool {
//!     if planted_faults::planted("example-bound-off-by-one") {
//!         return entry < snapshot;
//!     }
//!     entry <= snapshot
//! }
//! assert!(is_visible(7, 7));
//! ```

mod registry;

pub use registry::{FAULTS, Fault};

/// Whether the fault called `name` is planted in this process.
///
/// Constant `false` unless compiled with `--cfg mutants`. With it, costs one load and a string comparison when any
/// fault is chosen.
#[cfg(not(mutants))]
#[inline(always)]
pub const fn planted(name: &str) -> bool {
    let _ = name;
    false
}

/// Whether the fault called `name` is planted in this process: the one named by `LSM_MUTANT`.
///
/// # Panics
/// If `LSM_MUTANT` names a fault that [`FAULTS`] does not hold: a misspelt name would make every test look blind.
#[cfg(mutants)]
pub fn planted(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("LSM_MUTANT").ok().filter(|name| !name.is_empty());
        if let Some(name) = &chosen {
            assert!(FAULTS.iter().any(|fault| fault.name == name), "LSM_MUTANT={name} is not in the registry");
        }
        chosen
    });
    chosen.as_deref() == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_fault_names_what_catches_it() {
        for (index, fault) in FAULTS.iter().enumerate() {
            assert!(!fault.caught_by.is_empty(), "{} names no test", fault.name);
            assert!(FAULTS[..index].iter().all(|earlier| earlier.name != fault.name), "{} stands twice", fault.name);
        }
    }
}
