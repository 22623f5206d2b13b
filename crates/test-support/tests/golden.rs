//! The runner run on scripts of its own: a fixture over the reference model.

use internal_key::{KeyspaceId, SeqNo};
use test_support::{Command, Fixture, ReferenceModel, run_scripts};

const KEYSPACE: KeyspaceId = KeyspaceId(1);

struct ModelFixture {
    model: ReferenceModel,
    next: u64,
}

impl ModelFixture {
    fn new() -> Self {
        let mut model = ReferenceModel::new();
        model.create_keyspace(KEYSPACE, SeqNo::ZERO);
        Self { model, next: 1 }
    }

    fn take_seqno(&mut self) -> SeqNo {
        self.next += 1;
        SeqNo::new(self.next - 1).unwrap()
    }
}

impl Fixture for ModelFixture {
    fn run(&mut self, command: &Command) -> String {
        match command.name() {
            "write" => {
                for write in command.body_commands() {
                    self.run(&write);
                }
            }
            "put" => {
                let seqno = self.take_seqno();
                self.model.put(KEYSPACE, &command.bytes(0), &command.bytes(1), seqno);
            }
            "delete" => {
                let seqno = self.take_seqno();
                self.model.delete(KEYSPACE, &command.bytes(0), seqno);
            }
            "scan" => {
                let at = SeqNo::new(command.option_or("at", self.next - 1)).unwrap();
                let rows = self.model.range(KEYSPACE, .., at);
                return rows.map(|(k, v)| format!("{} = {}\n", k.escape_ascii(), v.escape_ascii())).collect();
            }
            _ => command.unknown(),
        }
        String::new()
    }
}

#[test]
fn scripts_hold() {
    run_scripts("tests/golden", ModelFixture::new);
}

#[test]
#[should_panic(expected = "no golden script under")]
fn a_directory_without_scripts_is_refused() {
    let empty = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("no-scripts");
    std::fs::create_dir_all(&empty).unwrap();
    run_scripts(empty.to_str().unwrap(), ModelFixture::new);
}
