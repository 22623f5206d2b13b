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
pub const FAULTS: &[Fault] = &[
    Fault {
        name: "log-left-behind-without-space",
        breaks: "P8",
        caught_by: "-p file-system --test behaviour real::a_segment_that_cannot_be_had_leaves_nothing",
    },
    Fault {
        name: "replace-without-syncing-the-directory",
        breaks: "M1",
        caught_by: "-p file-system --test crash replacing_is_atomic_and_durable_at_every_event",
    },
    Fault {
        name: "replace-without-syncing-the-file",
        breaks: "M1",
        caught_by: "-p file-system --test crash replacing_is_atomic_and_durable_at_every_event",
    },
    Fault {
        name: "simulated-directory-sync-forgets-earlier-changes",
        breaks: "M1",
        caught_by: "-p file-system --test crash a_directory_sync_settles_earlier_changes_of_the_same_names",
    },
    Fault {
        name: "simulated-failed-sync-keeps-pages-dirty",
        breaks: "P8",
        caught_by: "-p file-system --test faults a_failed_sync_is_not_mended_by_a_later_one",
    },
];
