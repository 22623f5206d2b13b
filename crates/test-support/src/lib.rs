//! Reference model, golden-script runner and generators for the tests of the other crates.
