//! Every planted fault, what it breaks, and the test that must catch it.

/// One deliberate defect.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The name that [`crate::planted`] and `LSM_MUTANT` use, in kebab case.
    pub name: &'static str,
    /// The invariant it breaks (`docs/invariants.md`).
    pub breaks: &'static str,
    /// Arguments to `cargo test` that select the test which must fail, such as `-p manifest --test golden`.
    ///
    /// Words before the first `-p`, each with a colon, say more: `loom:` the test is a model, built with `--cfg loom`;
    /// `crash:` the fault may end the test's process by a signal; `hang:` it may keep the test from ending. Without them a
    /// crash or a timeout does not count as caught: it may as well be the machine's. See [`Fault::catching_test`].
    pub caught_by: &'static str,
}

/// The registry, in the order of the crates. One line a fault; each is planted at exactly one place in shipped code.
pub const FAULTS: &[Fault] = &[];
