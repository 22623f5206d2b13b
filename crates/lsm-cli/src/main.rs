//! The `lsm` command: see the library, which holds all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(lsm_cli::run(std::env::args_os()))
}
