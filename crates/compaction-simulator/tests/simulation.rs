//! Whole simulations: what is known of the strategies comes out, and nothing is lost or counted twice.

use compaction::Strategy;
use compaction_simulator::{Report, Setup, Workload, draw, expected_distinct, simulate};

/// A base level so small that the data needs several levels, and a level 0 that does not wait for more.
fn of_several_levels(workload: Workload, strategy: Strategy) -> Setup {
    let mut setup = Setup::small(workload, strategy);
    setup.options.level_base_bytes = setup.write_buffer_bytes * 4;
    setup.options.l0_runs_patient = 0;
    setup.limits.l0_runs = 12;
    // At this size the longest delay of a KiB is as long as a flush: only compaction is to hold writers up.
    setup.limits.sealed_bytes *= 2;
    setup
}

fn run(workload: Workload, strategy: Strategy) -> Report {
    simulate(&Setup::small(workload, strategy))
}

const STRATEGIES: [Strategy; 3] = [Strategy::Leveled, Strategy::Tiered, Strategy::Fifo];

#[test]
fn a_setup_repeats_its_report() {
    for strategy in STRATEGIES {
        assert_eq!(run(Workload::Zipfian, strategy), run(Workload::Zipfian, strategy));
    }
}

/// Ascending keys are written once, whatever the strategy: tables that meet nothing are moved.
#[test]
fn sequential_writes_are_never_merged() {
    for strategy in STRATEGIES {
        let setup = Setup::small(Workload::Sequential, strategy);
        let report = simulate(&setup);
        assert_eq!(report.merged_bytes, 0, "{strategy:?}");
        let entry = setup.entry_bytes(false) as f64 / setup.user_bytes(false) as f64;
        assert!((report.write_amplification() - entry).abs() < 1e-9, "{strategy:?}: each entry once");
    }
}

/// What is live at the end is what the formula says of the keys that were hit, so no key is lost on the way down.
#[test]
fn no_key_is_lost_and_none_is_live_twice() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        let setup = Setup::small(Workload::Uniform, strategy);
        let live = simulate(&setup).settled_live_bytes as f64 / setup.user_bytes(false) as f64;
        let expected = expected_distinct(setup.keys, setup.writes);
        assert!((live / expected - 1.0).abs() < 0.005, "{strategy:?}: {live} keys live, expected {expected}");
    }
}

/// Half of the keys end with a delete; what is retained of a series is exact.
#[test]
fn deletes_take_their_keys_away() {
    for strategy in [Strategy::Leveled, Strategy::Tiered] {
        let setup = Setup::small(Workload::DeleteHeavy, strategy);
        let live = simulate(&setup).settled_live_bytes as f64 / setup.user_bytes(false) as f64;
        let expected = expected_distinct(setup.keys, setup.writes) / 2.0;
        assert!((live / expected - 1.0).abs() < 0.02, "{strategy:?}: {live} keys live, expected {expected}");
        let setup = Setup::small(Workload::TimeSeries, strategy);
        let live = simulate(&setup).settled_live_bytes / setup.user_bytes(false);
        assert!(live.abs_diff(setup.keys) <= 1, "{strategy:?}: {live} points live, {} retained", setup.keys);
    }
}

#[test]
fn each_strategy_pays_where_it_is_known_to() {
    for workload in [Workload::Uniform, Workload::Zipfian, Workload::DeleteHeavy, Workload::TimeSeries] {
        let [leveled, tiered] =
            [Strategy::Leveled, Strategy::Tiered].map(|strategy| simulate(&of_several_levels(workload, strategy)));
        assert!(tiered.write_amplification() < leveled.write_amplification(), "{workload}: tiered writes less");
        assert!(leveled.space < tiered.space, "{workload}: leveled takes less space");
        assert!(leveled.peak_bytes < tiered.peak_bytes, "{workload}: also at the worst moment");
        assert!(leveled.settled_space < 1.25, "{workload}: nine tenths lie in the last level");
    }
}

/// The dropping strategy keeps to its size, give or take the run that is the newest and one that is being merged.
#[test]
fn fifo_keeps_to_its_size() {
    let setup = Setup::small(Workload::Sequential, Strategy::Fifo);
    let report = simulate(&setup);
    assert!(report.dropped_bytes > report.user_bytes / 2);
    let most = setup.options.fifo_bytes_max + setup.write_buffer_bytes;
    assert!(report.peak_bytes <= most, "{} of at most {most}", report.peak_bytes);
}

/// P10: a machine that flushes and merges faster than anybody writes holds nobody up, and one that is too slow is written to at the
/// rate at which it merges.
#[test]
fn writers_go_as_fast_as_jobs_pay() {
    let setup = of_several_levels(Workload::Uniform, Strategy::Leveled);
    let fast =
        Setup { merge_rate: 5_000_000_000, flush_rate: 5_000_000_000, device_rate: 50_000_000_000, ..setup.clone() };
    let fast = simulate(&fast);
    assert_eq!((fast.stalls.stops, fast.stalls.delayed), (0, [0.0; 3]));
    assert!(fast.debt_max() < 0.85, "{}", fast.debt_max());
    let slow = |merge_rate| simulate(&Setup { merge_rate, ..setup.clone() });
    let (slow, slower) = (slow(40_000_000), slow(20_000_000));
    assert!(slow.stalls.stops > 0 || slow.stalls.delayed_bytes > 0);
    let ratio = slow.write_rate() / slower.write_rate();
    assert!((1.7..2.3).contains(&ratio), "half the merging, half the writing: {ratio}");
    assert!(
        slower.debt_max() <= 1.0 + 1.0 / setup.limits.l0_runs as f64,
        "one flush over at most: {}",
        slower.debt_max()
    );
}

/// More than one compaction at a time: their inputs are apart (C3), and the same keys are left.
#[test]
fn several_threads_leave_the_same_keys() {
    let setup = of_several_levels(Workload::DeleteHeavy, Strategy::Leveled);
    let one = simulate(&Setup { threads: 1, ..setup.clone() });
    let four = simulate(&Setup { threads: 4, ..setup });
    assert_eq!(one.settled_live_bytes, four.settled_live_bytes);
    assert!(four.write_seconds < one.write_seconds, "{} and {}", four.write_seconds, one.write_seconds);
}

#[test]
fn figures_are_drawn_for_every_case() {
    let strategies = [Strategy::Leveled, Strategy::Fifo];
    let cases: Vec<draw::Case> =
        strategies.map(|strategy| (Workload::Sequential, strategy, run(Workload::Sequential, strategy))).into();
    let table = draw::markdown(&cases);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("| sequential | leveled | 1.09 | 1.00 | 1.00 |"), "{table}");
    let picture = draw::svg(&cases);
    assert_eq!(picture.matches("<polyline").count(), 4, "debt and pace of two cases");
    assert!(!picture.contains("href") && !picture.contains("NaN"), "{picture}");
}
