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
        name: "log-damage-not-looked-at-again",
        breaks: "M5",
        caught_by: "-p write-ahead-log --test damage what_is_written_while_it_is_replayed",
    },
    Fault {
        name: "log-torn-spare-left-behind",
        breaks: "L5",
        caught_by: "-p write-ahead-log --test writing a_recycled_segment_with_a_torn_header_goes",
    },
    Fault {
        name: "log-end-numbered-within-the-last-batch",
        breaks: "L4",
        caught_by: "-p write-ahead-log --test writing an_end_record_that_begins_a_segment",
    },
    Fault {
        name: "log-pages-left-to-the-sync",
        breaks: "L1",
        caught_by: "-p file-system --test behaviour released_pages_leave_the_map",
    },
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
        name: "replace-removes-the-old-before-renaming",
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
    Fault {
        name: "log-recycles-what-is-held",
        breaks: "L5",
        caught_by: "loom: -p write-ahead-log --test loom_rotation segments_are_written_over",
    },
    Fault { name: "log-relaxed-claim", breaks: "L2", caught_by: "loom: -p write-ahead-log --test loom_claim" },
    Fault {
        name: "log-salt-of-a-record-ignored",
        breaks: "L2",
        caught_by: "-p write-ahead-log --test golden golden_scripts",
    },
    Fault {
        name: "log-claim-ignored-at-a-bad-record",
        breaks: "L3",
        caught_by: "-p write-ahead-log --test damage any_flipped_byte_is_a_prefix_or_an_error",
    },
    Fault {
        name: "log-older-segments-not-synced",
        breaks: "P7",
        caught_by: "-p write-ahead-log --test crash a_crash_at_every_event_leaves_a_prefix",
    },
    Fault {
        name: "log-segment-used-before-its-name-is-durable",
        breaks: "L1",
        caught_by: "-p write-ahead-log --test crash a_crash_at_every_event_leaves_a_prefix",
    },
    Fault {
        name: "log-not-synced",
        breaks: "P7",
        caught_by: "-p write-ahead-log --test crash a_crash_at_every_event_leaves_a_prefix",
    },
    Fault {
        name: "log-sealed-segments-taken-for-synced",
        breaks: "P7",
        caught_by: "-p write-ahead-log --test crash a_crash_while_resuming_is_recovered_from",
    },
    Fault {
        name: "log-segment-header-not-synced",
        breaks: "L1",
        caught_by: "-p write-ahead-log --test crash a_crash_at_every_event_leaves_a_prefix",
    },
    Fault {
        name: "log-directory-not-synced-in-its-parent",
        breaks: "M6",
        caught_by: "-p write-ahead-log --test crash creating_is_done_again_after_a_crash",
    },
    Fault {
        name: "log-seal-of-recovery-not-synced",
        breaks: "L4",
        caught_by: "-p write-ahead-log --test crash a_crash_while_resuming_is_recovered_from",
    },
    Fault {
        name: "log-salt-never-changes",
        breaks: "L5",
        caught_by: "-p write-ahead-log --test crash a_crash_while_resuming_is_recovered_from",
    },
    Fault {
        name: "log-segment-header-checksum-unchecked",
        breaks: "L2",
        caught_by: "-p write-ahead-log --test damage any_flipped_byte_is_a_prefix_or_an_error",
    },
    Fault {
        name: "log-record-header-checksum-unchecked",
        breaks: "L2",
        caught_by: "-p write-ahead-log --test damage any_flipped_byte_is_a_prefix_or_an_error",
    },
    Fault {
        name: "log-payload-checksum-unchecked",
        breaks: "L2",
        caught_by: "-p write-ahead-log --test damage any_flipped_byte_is_a_prefix_or_an_error",
    },
    Fault {
        name: "log-claims-behind-a-bad-record-ignored",
        breaks: "L3",
        caught_by: "-p write-ahead-log --test damage any_flipped_byte_is_a_prefix_or_an_error",
    },
    Fault {
        name: "log-held-claims-rise",
        breaks: "L4",
        caught_by: "-p write-ahead-log --test crash a_crash_while_resuming_is_recovered_from",
    },
    Fault {
        name: "log-removed-before-its-end-is-durable",
        breaks: "L5",
        caught_by: "-p lsm-facade --test lifecycle a_crash_while_a_log_ends_or_begins_anew_loses_nothing",
    },
    Fault {
        name: "log-ended-while-it-is-needed",
        breaks: "L5",
        caught_by: "-p lsm-facade --test lifecycle a_log_with_nothing_in_it_ends_with_the_database",
    },
    Fault {
        name: "memory-looked-for-before-it-is-taken",
        breaks: "P13",
        caught_by: "loom: -p memory-budget --test loom_budget the_last_of_the_room_is_given_once",
    },
    Fault {
        name: "memtable-keeps-its-memory",
        breaks: "P13",
        caught_by: "-p skiplist-memtable --test memtable what_is_taken_of_a_budget_is_what_is_held",
    },
    Fault {
        name: "table-memory-without-end",
        breaks: "P13",
        caught_by: "-p lsm-facade --test memory tables_are_closed_at_the_limit",
    },
    Fault {
        name: "facade-memory-flushes-nothing",
        breaks: "P13",
        caught_by: "-p lsm-facade --test memory idle_keyspaces_make_room",
    },
    Fault {
        name: "memtable-ranges-overlap",
        breaks: "K1",
        caught_by: "-p skiplist-memtable --test memtable agrees_with_a_sorted_map",
    },
    Fault {
        name: "memtable-older-versions-first",
        breaks: "K5",
        caught_by: "-p skiplist-memtable --test memtable a_read_finds_the_newest_version_at_or_below_its_seqno",
    },
    Fault {
        name: "memtable-first-filter-segment-only",
        breaks: "K6",
        caught_by: "-p skiplist-memtable --test memtable the_filter_denies_only_absent_keys",
    },
    Fault {
        name: "memtable-filter-bits-lost",
        breaks: "K6",
        caught_by: "loom: -p skiplist-memtable --test loom_publish writers_in_parallel_lose_nothing",
    },
    Fault {
        name: "memtable-largest-head-not-raised",
        breaks: "K6",
        caught_by: "-p skiplist-memtable --test memtable the_range_of_heads_denies_keys_outside_of_it",
    },
    Fault { name: "manifest-flush-installed-twice", breaks: "P6", caught_by: "-p manifest --test golden scripts_hold" },
    Fault {
        name: "manifest-history-floor-beyond-all-writes",
        breaks: "R3",
        caught_by: "-p lsm-facade --test history what_is_written_after_a_power_cut_stays_readable",
    },
    Fault {
        name: "manifest-touching-tables-may-share-a-run",
        breaks: "C3",
        caught_by: "-p manifest --test golden scripts_hold",
    },
    Fault {
        name: "manifest-overlapping-run-read",
        breaks: "C3",
        caught_by: "-p manifest --lib level::tests::what_does_not_fit_is_refused_at_its_place",
    },
    Fault {
        name: "manifest-global-checksum-unchecked",
        breaks: "M1",
        caught_by: "-p manifest --lib global::tests::every_flipped_bit_is_told",
    },
    Fault {
        name: "manifest-incompatible-feature-passed-over",
        breaks: "M1",
        caught_by: "-p manifest --lib global::tests::feature_bits_say_who_may_pass_over_what",
    },
    Fault {
        name: "manifest-level-checksum-unchecked",
        breaks: "M2",
        caught_by: "-p manifest --test crash every_flipped_byte_is_harmless_or_told",
    },
    Fault {
        name: "manifest-level-directory-not-synced",
        breaks: "M1",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-renamed-before-sync",
        breaks: "M1",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-uncertain-reported-as-certain",
        breaks: "M7",
        caught_by: "-p manifest --test crash a_failed_directory_sync_after_the_rename_fails_the_store",
    },
    Fault {
        name: "manifest-leftovers-removed-before-commit",
        breaks: "M2",
        caught_by: "-p manifest --test crash leftovers_go_only_when_what_replaced_them_is_durable",
    },
    Fault {
        name: "manifest-lines-taken-over-not-synced",
        breaks: "M3",
        caught_by: "-p manifest --test crash a_crash_at_any_event_of_taking_over_an_edit_file_leaves_what_was_acknowledged",
    },
    Fault {
        name: "manifest-edit-line-not-synced",
        breaks: "M3",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-keyspace-directory-not-synced-in-its-parent",
        breaks: "M6",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-edit-file-not-synced",
        breaks: "M3",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-edit-file-name-not-synced",
        breaks: "M3",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-pass-goes-on-after-a-fold-failed",
        breaks: "M7",
        caught_by: "-p manifest --lib a_pass_that_waited_while_the_store_failed_writes_nothing",
    },
    Fault {
        name: "manifest-fold-forgets-the-tail",
        breaks: "M3",
        caught_by: "-p manifest --test crash a_crash_at_any_event_of_a_fold_leaves_what_was_acknowledged",
    },
    Fault {
        name: "manifest-fold-tail-not-synced",
        breaks: "M3",
        caught_by: "-p manifest --test crash a_crash_at_any_event_of_a_fold_leaves_what_was_acknowledged",
    },
    Fault {
        name: "manifest-folded-global-not-synced",
        breaks: "M1",
        caught_by: "-p manifest --test crash a_crash_at_any_event_of_a_fold_leaves_what_was_acknowledged",
    },
    Fault {
        name: "manifest-overtaken-fold-installed",
        breaks: "M1",
        caught_by: "-p manifest --test crash a_crash_at_any_event_of_a_fold_leaves_what_was_acknowledged",
    },
    Fault {
        name: "manifest-database-not-synced-in-its-parent",
        breaks: "M6",
        caught_by: "-p manifest --test crash a_crash_at_any_event_leaves_the_old_or_the_new_state",
    },
    Fault {
        name: "manifest-subdirectories-not-synced",
        breaks: "M6",
        caught_by: "-p manifest --test crash a_crash_at_any_event_of_a_migration_is_mended_by_opening",
    },
    Fault {
        name: "manifest-edit-line-checksum-unchecked",
        breaks: "M3",
        caught_by: "-p manifest --lib edit_file::tests::every_flipped_byte_is_told_or_cuts_the_last_line",
    },
    Fault {
        name: "manifest-edit-chain-unchecked",
        breaks: "M3",
        caught_by: "-p manifest --lib edit_file::tests::lines_that_do_not_fit_the_chain_are_no_lines",
    },
    Fault {
        name: "manifest-damaged-edit-line-cut",
        breaks: "M3",
        caught_by: "-p manifest --lib edit_file::tests::every_flipped_byte_is_told_or_cuts_the_last_line",
    },
    Fault {
        name: "manifest-lost-global-is-an-empty-database",
        breaks: "M6",
        caught_by: "-p manifest --test golden scripts_hold",
    },
    Fault {
        name: "table-checked-bit-lost",
        breaks: "T2",
        caught_by: "loom: -p sstable-format --test loom_caches bits_of_neighbours",
    },
    Fault {
        name: "table-opened-by-everyone-who-waits",
        breaks: "R4",
        caught_by: "loom: -p sstable-format --test loom_caches tables_are_opened_once",
    },
    Fault {
        name: "table-checksum-skipped",
        breaks: "T2",
        caught_by: "-p sstable-format --test damage damage_is_an_error_and_never_a_wrong_answer",
    },
    Fault {
        name: "table-evicted-reader-dropped-at-once",
        breaks: "R4",
        caught_by: "-p sstable-format --test caches clock_keeps_what_is_read",
    },
    Fault {
        name: "table-length-unchecked",
        breaks: "T4",
        caught_by: "-p sstable-format --test damage length_is_checked_before_mapping",
    },
    Fault {
        name: "facade-history-floor-not-durable",
        breaks: "R3",
        caught_by: "-p lsm-facade --test history what_was_collected_is_refused_after_reopening",
    },
    Fault {
        name: "facade-history-outlives-a-clear",
        breaks: "R3",
        caught_by: "-p lsm-facade --test history clear_and_drop_end_the_history_before_them",
    },
    Fault { name: "table-not-synced", breaks: "M1", caught_by: "-p lsm-facade --test crash a_crash_at_any_event" },
    Fault {
        name: "table-header-checksum-unchecked",
        breaks: "T5",
        caught_by: "-p sstable-format --test damage damage_is_an_error_and_never_a_wrong_answer",
    },
    Fault {
        name: "table-footer-checksum-unchecked",
        breaks: "T5",
        caught_by: "-p sstable-format --test damage damage_is_an_error_and_never_a_wrong_answer",
    },
    Fault {
        name: "table-large-value-sums-unchecked",
        breaks: "T1",
        caught_by: "-p sstable-format --test damage damage_is_an_error_and_never_a_wrong_answer",
    },
    Fault {
        name: "table-large-value-chunk-unchecked",
        breaks: "T1",
        caught_by: "-p sstable-format --test damage damage_is_an_error_and_never_a_wrong_answer",
    },
    Fault { name: "table-newest-version-for-all", breaks: "T1", caught_by: "-p sstable-format --test golden" },
    Fault {
        name: "table-separator-forgets-versions",
        breaks: "T3",
        caught_by: "-p sstable-format --test model versions_of_one_key_span_blocks",
    },
    Fault {
        name: "table-trailer-below-zero",
        breaks: "T2",
        caught_by: "-p sstable-format --lib block::tests::a_trailer_below_zero_is_damage",
    },
    Fault {
        name: "table-trailers-too-narrow",
        breaks: "T1",
        caught_by: "-p sstable-format --lib block::tests::trailers_of_every_width_read_back",
    },
    Fault {
        name: "table-unknown-feature-accepted",
        breaks: "T5",
        caught_by: "-p sstable-format --test damage what_a_newer_engine_wrote_is_refused_unless_marked_compatible",
    },
    Fault {
        name: "merge-equal-heads-decide",
        breaks: "I1",
        caught_by: "-p merge-iterator --test merge a_merge_moves_as_one_sorted_array_does",
    },
    Fault {
        name: "merge-runner-up-holds-the-key",
        breaks: "I4",
        caught_by: "-p merge-iterator --test merge a_reader_sees_what_the_writes_up_to_its_seqno_left",
    },
    Fault { name: "merge-turns-without-its-other-sources", breaks: "I2", caught_by: "-p merge-iterator --test golden" },
    Fault {
        name: "visible-bound-decided-by-head",
        breaks: "I4",
        caught_by: "-p merge-iterator --test merge bounds_cut_and_inverted_bounds_are_empty",
    },
    Fault {
        name: "visible-own-seqno-missed-backwards",
        breaks: "I4",
        caught_by: "-p merge-iterator --test merge a_reader_sees_what_the_writes_up_to_its_seqno_left",
    },
    Fault { name: "visible-tombstone-hides-nothing-older", breaks: "I4", caught_by: "-p merge-iterator --test golden" },
    Fault {
        name: "version-history-flush-out-of-order",
        breaks: "P6",
        caught_by: "loom: -p version-history --test loom_history flushes_install_in_seal_order",
    },
    Fault {
        name: "version-history-named-table-deleted",
        breaks: "R5",
        caught_by: "-p version-history --test obsolete",
    },
    Fault {
        name: "version-history-predecessor-dropped-early",
        breaks: "R4",
        caught_by: "-p version-history --test super_version",
    },
    Fault {
        name: "version-history-register-in-two-steps",
        breaks: "R3",
        caught_by: "loom: -p version-history --test loom_history",
    },
    Fault {
        name: "version-history-looks-at-floors-before",
        breaks: "R3",
        caught_by: "loom: -p version-history --test loom_history registration_of_the_past",
    },
    Fault {
        name: "version-history-relaxed-frontier",
        breaks: "R1",
        caught_by: "loom: -p version-history --test loom_history reader_finds",
    },
    Fault {
        name: "version-history-table-given-to-two-collectors",
        breaks: "R5",
        caught_by: "loom: -p version-history --test loom_history last_holder",
    },
    Fault {
        name: "version-history-taken-before-noted",
        breaks: "C2",
        caught_by: "loom: -p version-history --test loom_history look_finds_a_snapshot_gone",
    },
    Fault {
        name: "version-history-release-forgets-others",
        breaks: "R3",
        caught_by: "-p version-history --test snapshots",
    },
    Fault {
        name: "commit-pipeline-gathers-nobody",
        breaks: "P7",
        caught_by: "-p commit-pipeline --lib a_leader_that_gathers_answers_also_who_comes_meanwhile",
    },
    Fault {
        name: "commit-pipeline-acknowledged-behind-a-hole",
        breaks: "P3",
        caught_by: "loom: -p commit-pipeline --test loom_publish",
    },
    Fault {
        name: "commit-pipeline-any-sync-will-do",
        breaks: "P7",
        caught_by: "loom: -p commit-pipeline --test loom_sync",
    },
    Fault {
        name: "commit-pipeline-closer-left-asleep",
        breaks: "P9",
        caught_by: "loom: crash: -p commit-pipeline --test loom_death a_writer_behind_a_hole_wakes_the_closer",
    },
    Fault {
        name: "commit-pipeline-failed-close-passes-writers",
        breaks: "P9",
        caught_by: "loom: -p commit-pipeline --test loom_death closing_a_failed_pipeline_waits",
    },
    Fault {
        name: "commit-pipeline-close-passes-a-preparing-writer",
        breaks: "P9",
        caught_by: "loom: -p commit-pipeline --test loom_death closing_waits_for_whoever_prepares",
    },
    Fault {
        name: "commit-pipeline-counted-before-stamped",
        breaks: "P3",
        caught_by: "loom: -p commit-pipeline --test loom_publish queue_publishes",
    },
    Fault {
        name: "commit-pipeline-death-unnoticed",
        breaks: "P2",
        caught_by: "-p commit-pipeline --test commit panic_while_applying",
    },
    Fault {
        name: "commit-pipeline-failure-wakes-nobody",
        breaks: "P8",
        caught_by: "loom: crash: -p commit-pipeline --test loom_death dead_writer",
    },
    Fault {
        name: "commit-pipeline-late-ones-sleep-on-after-a-failure",
        breaks: "P9",
        caught_by: "loom: crash: -p commit-pipeline --test loom_sync panicking_leader",
    },
    Fault {
        name: "commit-pipeline-relaxed-stamp",
        breaks: "P3",
        caught_by: "loom: -p commit-pipeline --test loom_publish",
    },
    Fault {
        name: "commit-pipeline-sealed-taken-for-complete",
        breaks: "P4",
        caught_by: "loom: -p commit-pipeline --test loom_seal",
    },
    Fault {
        name: "commit-pipeline-a-crowd-sleeps",
        breaks: "P9",
        caught_by: "-p commit-pipeline --lib writers_of_a_crowd_wait_without_parking",
    },
    Fault {
        name: "commit-pipeline-turn-passed-on-silently",
        breaks: "P9",
        caught_by: "loom: crash: -p commit-pipeline --test loom_turnstile",
    },
    Fault {
        name: "commit-pipeline-waiters-forgotten",
        breaks: "P9",
        caught_by: "loom: crash: -p commit-pipeline --test loom_publish waiter_is_woken",
    },
    Fault {
        name: "compaction-age-by-the-oldest-table",
        breaks: "C2",
        caught_by: "-p compaction --test golden picking",
    },
    Fault {
        name: "compaction-cancel-seen-by-entries-alone",
        breaks: "C4",
        caught_by: "-p compaction --test run a_cancelled_job_reads_little_more",
    },
    Fault {
        name: "compaction-directory-not-synced",
        breaks: "M1",
        caught_by: "-p compaction --test run outputs_are_durable_when_the_job_returns",
    },
    Fault {
        name: "compaction-fifo-merges-across-ages",
        breaks: "C1",
        caught_by: "-p compaction --test golden picking",
    },
    Fault {
        name: "compaction-forgets-overlap-below",
        breaks: "C3",
        caught_by: "-p compaction --test picking_model newer_entries_never_come_to_lie_below_older_ones",
    },
    Fault { name: "compaction-level-zero-impatient", breaks: "C1", caught_by: "-p compaction --test golden picking" },
    Fault { name: "compaction-rest-out-of-proportion", breaks: "C1", caught_by: "-p compaction --test golden picking" },
    Fault {
        name: "compaction-level-zero-newest-first",
        breaks: "C3",
        caught_by: "-p compaction --test picking_model newer_entries_never_come_to_lie_below_older_ones",
    },
    Fault {
        name: "compaction-older-runs-forget-level-zero",
        breaks: "C2",
        caught_by: "-p compaction --test golden compacting",
    },
    Fault {
        name: "compaction-outputs-stay-after-failure",
        breaks: "C4",
        caught_by: "-p compaction --test run a_job_that_fails_anywhere_leaves_nothing",
    },
    Fault { name: "compaction-reads-need-not-pay", breaks: "C1", caught_by: "-p compaction --test golden picking" },
    Fault {
        name: "compaction-part-goes-on-into-the-next",
        breaks: "C3",
        caught_by: "-p compaction --test run parts_write_what_the_whole_writes",
    },
    Fault {
        name: "compaction-parts-go-on-after-a-failure",
        breaks: "C4",
        caught_by: "-p compaction --lib the_first_failure_stops_the_others",
    },
    Fault {
        name: "compaction-parts-left-running",
        breaks: "C4",
        caught_by: "-p compaction --lib the_wait_lasts_as_long_as_a_part_runs",
    },
    Fault {
        name: "compaction-stripe-ends-before-its-snapshot",
        breaks: "C2",
        caught_by: "-p compaction --test collect every_reader_sees_the_same_and_nothing_else_stays",
    },
    Fault {
        name: "compaction-table-ends-inside-a-key",
        breaks: "C3",
        caught_by: "-p compaction --test run a_table_ends_only_where_a_key_ends",
    },
    Fault {
        name: "compaction-tiered-rests-in-several-levels",
        breaks: "C1",
        caught_by: "-p compaction --test golden picking",
    },
    Fault {
        name: "compaction-tombstone-dropped-early",
        breaks: "C2",
        caught_by: "-p compaction --test collect every_reader_sees_the_same_and_nothing_else_stays",
    },
    Fault {
        name: "facade-repair-orders-tables-by-epoch",
        breaks: "C3",
        caught_by: "-p lsm-facade --test rescue without_a_manifest_no_old_row",
    },
    Fault {
        name: "facade-snapshot-goes-unnoticed",
        breaks: "C2",
        caught_by: "-p lsm-facade --test freed_space what_a_snapshot_kept_stays",
    },
    Fault {
        name: "facade-salvage-takes-hidden-rows",
        breaks: "C3",
        caught_by: "-p lsm-facade --test rescue what_is_left_of_a_damaged_table",
    },
    Fault {
        name: "facade-repair-passes-over-batches",
        breaks: "P11",
        caught_by: "-p lsm-facade --test rescue repair_brings_nothing_back",
    },
    Fault {
        name: "facade-get-allocates-before-a-value-is-found",
        breaks: "R1",
        caught_by: "-p lsm-facade --test allocation a_get_allocates_nothing_until_a_value_is_found",
    },
    Fault {
        name: "facade-new-tables-left-to-their-readers",
        breaks: "T2",
        caught_by: "-p lsm-facade --lib new_tables_are_checked_before_they_are_read",
    },
    Fault {
        name: "facade-log-prepared-between-jobs-alone",
        breaks: "L1",
        caught_by: "-p lsm-facade --lib the_log_is_kept_ahead_while_the_workers_are_in_jobs",
    },
    Fault {
        name: "facade-log-worker-gives-up",
        breaks: "P8",
        caught_by: "-p lsm-facade --lib the_log_is_kept_ahead_while_the_workers_are_in_jobs",
    },
    Fault {
        name: "facade-log-begun-by-opening",
        breaks: "M6",
        caught_by: "-p lsm-facade --test without_log who_only_reads_a_closed_database_writes_nothing",
    },
    Fault {
        name: "facade-edited-without-a-log",
        breaks: "M6",
        caught_by: "-p lsm-facade --test without_log who_only_reads_a_closed_database_writes_nothing",
    },
    Fault {
        name: "log-first-segment-used-without-a-name",
        breaks: "M6",
        caught_by: "-p lsm-facade --test without_log a_log_that_cannot_be_named_takes_no_record",
    },
    Fault {
        name: "log-outgrown-first-segment-stays",
        breaks: "L5",
        caught_by: "-p lsm-facade --test without_log a_first_segment_that_was_too_short_spoils_no_repair",
    },
    Fault {
        name: "facade-no-compaction-without-a-log",
        breaks: "P8",
        caught_by: "-p lsm-facade --test without_log a_log_that_cannot_begin_keeps_no_compaction_from_making_room",
    },
    Fault {
        name: "facade-close-without-a-log-says-nothing",
        breaks: "L3",
        caught_by: "-p lsm-facade --test without_log a_close_that_was_killed_is_made_up_for_by_the_next",
    },
    Fault {
        name: "log-gives-up-what-the-floor-names",
        breaks: "L5",
        caught_by: "-p write-ahead-log --test writing a_log_that_begins_later_is_named_before_its_first_record",
    },
    Fault {
        name: "log-made-for-an-older-wish",
        breaks: "L5",
        caught_by: "-p write-ahead-log --test writing what_is_in_the_making_is_given_up_with_what_is_prepared",
    },
    Fault {
        name: "facade-log-worker-outlives-the-log",
        breaks: "L3",
        caught_by: "-p lsm-facade --lib closing_waits_for_the_segment_in_the_making",
    },
    Fault {
        name: "facade-log-relief-asks-for-nothing",
        breaks: "L5",
        caught_by: "-p lsm-facade --lib what_an_operation_needs_of_the_log_asks_for_no_flush",
    },
    Fault {
        name: "facade-log-failures-of-others-count",
        breaks: "P9",
        caught_by: "-p lsm-facade --lib who_waits_for_the_log_is_not_told_of_what_does_not_matter",
    },
    Fault {
        name: "facade-outputs-of-other-parts-stay",
        breaks: "C4",
        caught_by: "-p lsm-facade --test large_compactions a_part_that_fails_takes_the_others_outputs_along",
    },
    Fault {
        name: "facade-cancel-wakes-nobody",
        breaks: "P9",
        caught_by: "hang: -p lsm-facade --test large_compactions cancelling_wakes_who_waits_for_a_job",
    },
    Fault {
        name: "facade-fence-skipped",
        breaks: "C3",
        caught_by: "-p lsm-facade --test basics what_was_written_is_read_after_flush_compaction_and_reopening",
    },
    Fault {
        name: "facade-flush-before-log-sync",
        breaks: "P5",
        caught_by: "-p lsm-facade --test lifecycle a_flush_makes_no_half_of_a_batch_durable",
    },
    Fault {
        name: "facade-batch-table-name-not-synced",
        breaks: "P11",
        caught_by: "-p lsm-facade --test crash named::a_synced_batch_too_large_for_the_log_survives_a_power_cut",
    },
    Fault {
        name: "facade-clear-not-synced",
        breaks: "P12",
        caught_by: "-p lsm-facade --test crash a_crash_at_any_event",
    },
    Fault {
        name: "facade-new-directory-not-synced-in-its-parent",
        breaks: "M6",
        caught_by: "-p lsm-facade --test crash named::a_database_in_new_directories_survives_a_power_cut",
    },
    Fault {
        name: "facade-log-beyond-the-claim-not-flushed",
        breaks: "L4",
        caught_by: "-p lsm-facade --test crash named::what_was_recovered_after_a_kill_survives_a_power_cut",
    },
    Fault {
        name: "facade-claims-released-before-the-flush",
        breaks: "L4",
        caught_by: "-p lsm-facade --test crash named::claims_stay_where_they_are_while_recovery_cannot_be_flushed",
    },
    Fault {
        name: "facade-closed-before-it-is-settled",
        breaks: "L4",
        caught_by: "-p lsm-facade --test crash named::what_was_recovered_after_a_kill_survives_a_power_cut",
    },
    Fault {
        name: "facade-manifest-folded-by-edits-alone",
        breaks: "M3",
        caught_by: "-p lsm-facade --test lifecycle the_background_folds_the_manifest_before_an_edit_has_to",
    },
    Fault {
        name: "facade-manifest-not-committed-anew",
        breaks: "M2",
        caught_by: "-p lsm-facade --test crash a_crash_at_any_event",
    },
    Fault {
        name: "facade-close-vouches-for-nothing",
        breaks: "L3",
        caught_by: "-p lsm-facade --test crash named::damage_to_the_last_record_of_a_closed_log_is_told",
    },
    Fault {
        name: "facade-log-recycled-before-the-edit",
        breaks: "L5",
        caught_by: "-p lsm-facade --test crash named::a_crash_while_a_flush_frees_many_segments_loses_nothing",
    },
    Fault {
        name: "facade-writers-pass-a-long-log",
        breaks: "P10",
        caught_by: "-p lsm-facade --test races a_writer_that_meets_a_long_log_is_told_why",
    },
    Fault {
        name: "facade-log-floor-raised-by-flushes-alone",
        breaks: "L5",
        caught_by: "hang: -p lsm-facade --test races a_log_that_nobody_needs_is_given_up_without_a_flush",
    },
    Fault {
        name: "facade-merge-makes-rows-young",
        breaks: "C1",
        caught_by: "-p lsm-facade --test ages a_merge_makes_nothing_younger",
    },
    Fault {
        name: "facade-rest-beside-others-unnoticed",
        breaks: "P9",
        caught_by: "-p lsm-facade --test idle a_keyspace_that_rests_comes_to_one_run_beside_a_busy_one",
    },
    Fault {
        name: "facade-flush-asked-for-without-a-look",
        breaks: "P9",
        caught_by: "-p lsm-facade --lib what_is_asked_for_is_looked_for_in_one_step",
    },
    Fault {
        name: "facade-rest-leaves-sealed-memtables",
        breaks: "P6",
        caught_by: "-p lsm-facade --test idle what_a_keyspace_has_sealed_is_flushed_when_it_rests",
    },
    Fault {
        name: "facade-uncertain-edit-goes-on",
        breaks: "M7",
        caught_by: "-p lsm-facade --test failing_disk an_error_at_any_operation_is_certain_or_fails_the_database",
    },
];
