//! The verbs of development.

fn main() {}
