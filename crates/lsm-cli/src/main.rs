//! The `lsm` command: load, read, check and inspect a database.

fn main() {}
