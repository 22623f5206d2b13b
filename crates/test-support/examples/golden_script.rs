//! Runs a golden script from a string, shows the difference it finds, and the script as it would be rewritten.

use std::collections::BTreeSet;

use test_support::script::{Command, Fixture, Script};

/// A shelf of books: `add TITLE`, `list`.
#[derive(Default)]
struct Shelf(BTreeSet<String>);

impl Fixture for Shelf {
    fn run(&mut self, command: &Command) -> String {
        match command.name() {
            "add" => {
                self.0.insert(command.arg(0).to_string());
                String::new()
            }
            "list" => self.0.iter().map(|title| format!("{title}\n")).collect(),
            _ => command.unknown(),
        }
    }
}

const STORY: &str = r#"# Books stand in the order of their titles.
add "War and Peace"
add Emma
list
----
Emma
Middlemarch
"#;

fn main() {
    let (rewritten, mismatches) = Script::parse(STORY).run(&mut Shelf::default(), |_| {});
    for mismatch in &mismatches {
        println!("{mismatch}");
    }
    println!("rewritten:\n{rewritten}");
    assert_eq!(mismatches.len(), 1);
    assert!(rewritten.ends_with("Emma\nWar and Peace\n"));
}
