//! Golden scripts: edits in, the manifest and its files printed back.

mod common;

use std::path::PathBuf;

use common::{files_below, parse_edit, real_environment};
use file_system::Environment;
use manifest::{DatabaseId, Edit, FollowerStore, Manifest, ManifestOptions, ManifestStore, OpenMode};
use test_support::{Command, Fixture, run_scripts};

/// `apply` works on a value; everything else on a database in a directory of its own.
struct ManifestFixture {
    value: Manifest,
    env: Environment,
    dir: PathBuf,
    options: ManifestOptions,
    store: Option<ManifestStore>,
    follower: Option<FollowerStore>,
    _home: tempfile::TempDir,
}

impl ManifestFixture {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self {
            value: Manifest::empty(DatabaseId(7)),
            env: real_environment(),
            dir: home.path().join("db"),
            options: ManifestOptions::default(),
            store: None,
            follower: None,
            _home: home,
        }
    }

    /// An error or a path without the directory, which differs from run to run.
    fn shown(&self, text: &str) -> String {
        let text = text.replace(&format!("{}/", self.dir.display()), "").replace(&self.dir.display().to_string(), "db");
        if text.ends_with('\n') { text } else { text + "\n" }
    }

    fn shown_result<T>(&self, result: Result<T, impl std::fmt::Display>, show: impl FnOnce(T) -> String) -> String {
        match result {
            Ok(value) => self.shown(&show(value)),
            Err(error) => self.shown(&format!("error: {error}")),
        }
    }

    fn store(&self) -> &ManifestStore {
        self.store.as_ref().expect("create or open first")
    }
}

impl Fixture for ManifestFixture {
    fn run(&mut self, command: &Command) -> String {
        match command.name() {
            "apply" => match self.value.apply(&parse_edit(command.body())) {
                Ok(next) => {
                    self.value = next;
                    self.value.to_string()
                }
                Err(refusal) => format!("refused: {refusal}\n"),
            },
            "options" => {
                self.options.edit_bytes_free = command.option_or("free", self.options.edit_bytes_free);
                self.options.job_bytes_divisor = command.option_or("divisor", self.options.job_bytes_divisor);
                self.options.edit_file_bytes_min = command.option_or("file", self.options.edit_file_bytes_min);
                String::new()
            }
            "create" => {
                self.store = None;
                let first = parse_edit(command.body());
                let created = ManifestStore::create(&self.env, &self.dir, self.options, &first);
                let shown = self.shown_result(created.as_ref(), |store| store.current().to_string());
                self.store = created.ok();
                shown
            }
            "open" => {
                self.store = None;
                let mode = if command.has("read-only") { OpenMode::ReadOnly } else { OpenMode::ReadWrite };
                let opened = ManifestStore::open(&self.env, &self.dir, mode, self.options);
                let shown = self.shown_result(opened.as_ref(), |store| store.current().to_string());
                self.store = opened.ok();
                shown
            }
            "commit" => {
                let committed = self.store().commit(parse_edit(command.body()));
                let quiet = command.has("quiet");
                self.shown_result(committed, |manifest| match quiet {
                    true => format!("generation {}", manifest.generation),
                    false => manifest.to_string(),
                })
            }
            "anew" => self.shown_result(self.store().commit_anew(), |manifest| manifest.to_string()),
            "fold" => self.shown_result(self.store().fold(), |folded| match folded {
                true => format!("folded, generation {}", self.store().current().generation),
                false => "nothing to fold".into(),
            }),
            "collect" => self.shown_result(self.store().collect_obsolete(), |count| format!("{count} removed")),
            "remove-leftovers" => {
                self.shown_result(self.store().remove_leftovers(), |count| format!("{count} removed"))
            }
            "cost" => {
                let metrics = self.store().metrics();
                format!(
                    "{} passes, {} edits, {} lines, {} folds; the last: {} syncs, {} bytes\n",
                    metrics.passes, metrics.edits, metrics.lines, metrics.folds, metrics.last.syncs, metrics.last.bytes
                )
            }
            "files" => files_below(&self.env, &self.dir).iter().map(|file| format!("{}\n", file.display())).collect(),
            "cat" => {
                let bytes = self.env.files.read(&self.dir.join(command.arg(0)), 1 << 20).unwrap();
                let text = String::from_utf8(bytes).unwrap();
                text.trim_end_matches('\0').to_owned()
            }
            // Files that somebody else put there.
            "put" => {
                let file = self.dir.join(command.arg(0));
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, command.body().trim_end()).unwrap();
                String::new()
            }
            "remove" => {
                std::fs::remove_file(self.dir.join(command.arg(0))).unwrap();
                String::new()
            }
            "replace-text" => {
                let file = self.dir.join(command.arg(0));
                let text = std::fs::read_to_string(&file).unwrap();
                let (from, to) = command.body().trim_end().split_once('\n').expect("two lines: from, to");
                assert!(text.contains(from), "{from:?} stands in {text}");
                std::fs::write(file, text.replacen(from, to, 1)).unwrap();
                String::new()
            }
            "follow" => {
                let opened = FollowerStore::open(&self.env, &self.dir);
                let shown = self.shown_result(opened.as_ref(), |store| store.current().to_string());
                self.follower = opened.ok();
                shown
            }
            "reload" => {
                let follower = self.follower.as_ref().expect("follow first");
                let before = follower.current();
                let reloaded = follower.reload();
                if reloaded.is_err() {
                    assert!(std::sync::Arc::ptr_eq(&before, &follower.current()), "M5: the old value stays");
                }
                self.shown_result(reloaded, |manifest| manifest.to_string())
            }
            _ => command.unknown(),
        }
    }
}

#[test]
fn scripts_hold() {
    run_scripts("tests/golden", ManifestFixture::new);
}

/// The first edit of a database may be empty.
#[test]
fn a_database_may_begin_without_a_keyspace() {
    let home = tempfile::tempdir().unwrap();
    let env = real_environment();
    let options = ManifestOptions::default();
    let store = ManifestStore::create(&env, home.path().join("db"), options, &Edit::default()).unwrap();
    assert!(store.current().keyspaces.is_empty());
}
