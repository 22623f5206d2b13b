//! The registry of faults that the tests must catch.
//!
//! A *planted fault* is a small, deliberate defect in shipped code: a check skipped, a bound off by one, two steps
//! swapped. The code that carries one asks [`planted`] whether to misbehave. Without `--cfg mutants` the answer is a
//! constant `false` and the compiler removes the branch; with it, the environment variable `LSM_MUTANT` chooses at most
//! one fault at run time, so that one build serves every fault. `cargo xtask mutants` runs the test that each
//! [`Fault`] names and fails if it passes with the fault planted. With `--cfg planted` the same variable chooses when this
//! is compiled: such a build is an ordinary one but for the one fault, which is what `cargo xtask bench --planted` counts.
//!
//! ```text
//!   shipped code ── planted("name")? ──▶ registry::FAULTS ◀── cargo xtask mutants ──▶ the test that must fail
//!                         ▲
//!                    LSM_MUTANT=name
//! ```
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

#![forbid(unsafe_code)]

mod registry;

pub use registry::{FAULTS, Fault};

/// How a fault's test is run and which endings count as caught, read from [`Fault::caught_by`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatchingTest {
    /// Whether the test is a loom model, in a build of its own.
    pub loom: bool,
    /// Whether a death by signal counts as caught.
    pub may_crash: bool,
    /// Whether not ending counts as caught.
    pub may_hang: bool,
    /// Arguments to `cargo test`; the first is `-p`.
    pub arguments: Vec<&'static str>,
}

impl Fault {
    /// The test that must fail while this fault is planted.
    ///
    /// # Errors
    /// Says which word of [`caught_by`](Fault::caught_by) is not understood.
    pub fn catching_test(&self) -> Result<CatchingTest, String> {
        let mut test = CatchingTest { loom: false, may_crash: false, may_hang: false, arguments: Vec::new() };
        let mut words = self.caught_by.split_whitespace().peekable();
        while let Some(word) = words.next_if(|word| *word != "-p") {
            match word {
                "loom:" => test.loom = true,
                "crash:" => test.may_crash = true,
                "hang:" => test.may_hang = true,
                _ => return Err(format!("{}: `{word}` is none of loom:, crash:, hang:, -p", self.name)),
            }
        }
        test.arguments = words.collect();
        if test.arguments.len() < 2 {
            return Err(format!("{}: caught_by names no package", self.name));
        }
        Ok(test)
    }
}

/// Whether the fault called `name` is planted in this process.
///
/// Constant `false` unless compiled with `--cfg mutants` or `--cfg planted`. With the first it costs one load and a string
/// comparison when any fault is chosen.
#[cfg(not(any(mutants, planted)))]
#[inline(always)]
pub const fn planted(name: &str) -> bool {
    let _ = name;
    false
}

#[cfg(not(any(mutants, planted)))]
const _: () = assert!(!planted("anything"), "nothing is planted in an ordinary build");

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

/// Whether the fault called `name` is planted in this build: the one that `LSM_MUTANT` named when it was compiled.
///
/// A comparison of two constants: nothing of it is left in an optimised program.
#[cfg(all(planted, not(mutants)))]
#[inline(always)]
pub fn planted(name: &str) -> bool {
    name == CHOSEN
}

/// The one fault of this build.
#[cfg(all(planted, not(mutants)))]
const CHOSEN: &str = env!("LSM_MUTANT", "`--cfg planted` needs the name of the fault in LSM_MUTANT");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_fault_says_what_it_breaks_and_what_catches_it() {
        for (index, fault) in FAULTS.iter().enumerate() {
            assert!(FAULTS[..index].iter().all(|earlier| earlier.name != fault.name), "{} stands twice", fault.name);
            let kebab =
                fault.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            assert!(kebab, "{} is not in kebab case", fault.name);
            assert!(!fault.breaks.is_empty(), "{} breaks nothing", fault.name);
            fault.catching_test().unwrap();
        }
    }

    #[test]
    fn the_words_before_the_package_say_what_counts_as_caught() {
        let fault = |caught_by| Fault { name: "x", breaks: "P1", caught_by };
        let test = fault("loom: hang: -p commit-pipeline --test loom_publish").catching_test().unwrap();
        assert_eq!((test.loom, test.may_hang, test.may_crash), (true, true, false));
        assert_eq!(test.arguments, ["-p", "commit-pipeline", "--test", "loom_publish"]);
        assert!(fault("loop: -p a").catching_test().unwrap_err().contains("`loop:`"));
        assert!(fault("-p").catching_test().is_err());
        assert!(fault("").catching_test().is_err());
    }
}
