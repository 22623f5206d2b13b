//! One workload under one strategy with twice the allowed runs in level 0: what a change of an option would do.
//!
//! `cargo run -p compaction-simulator --example one_case`

use compaction::{CompactionOptions, Strategy};
use compaction_simulator::{Setup, Workload, simulate};

fn main() {
    for l0_runs_max in [4, 8] {
        let mut setup = Setup::small(Workload::Uniform, Strategy::Leveled);
        setup.options = CompactionOptions { l0_runs_max, ..setup.options };
        setup.limits = setup.limits_of_keyspace();
        let report = simulate(&setup);
        println!(
            "{l0_runs_max} runs allowed: write amplification {:.2}, a get asks {:.1} runs, space {:.2}, {:.0} MB/s",
            report.write_amplification(),
            report.get_runs,
            report.space,
            report.write_rate() / 1e6,
        );
    }
}
