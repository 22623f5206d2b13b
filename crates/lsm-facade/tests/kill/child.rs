//! The process that is killed: it writes for as long as it lives, and its files tell in which phases it is.
//!
//! | phase | begins | ends |
//! |---|---|---|
//! | recovery | `open` is called | it returns |
//! | edit | a temporary file in the database's directory or of a level; a store to an edit file | the directory's, the file's sync |
//! | compaction | the job says so | its edit |
//! | flush | a temporary table of a thread that neither writes nor compacts | its edit |

use std::cell::Cell;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use file_system::{
    DirectoryEntry, DirectoryLock, Environment, FileError, FileSystem, LogFile, LogFileWay, ReadFile, RealFileSystem,
    TemporaryFile,
};
use lsm_facade::{Access, Database, DatabaseBuilder, Durability, Keyspace, KeyspaceOptions, Strategy};
use test_support::Rng;
use tracing::field::{Field, Visit};

use crate::page::{Page, Phase};
use crate::work::{self, NAMES, WRITERS};

/// How the database in `dir` is opened, this time.
pub(crate) fn builder(dir: &Path, rng: &mut Rng) -> DatabaseBuilder {
    let builder = Database::builder(dir)
        .background_threads(2)
        .access(*rng.pick(&[Access::Mapped, Access::Pread]))
        .log_way(*rng.pick(&[LogFileWay::Mapped, LogFileWay::Mapped, LogFileWay::Written]))
        .log_segment_bytes(256 << 10)
        .log_bytes_max(1 << 20)
        .large_batch_bytes(16 << 10);
    let builder = match rng.below(3) {
        0 => builder.edit_file_bytes(0),
        _ => builder,
    };
    let idle_after = Duration::from_millis(rng.below(50));
    builder.subcompactions_max(1 + rng.index(3)).compact_when_idle_after(Some(idle_after))
}

fn keyspace_options(name: &str) -> KeyspaceOptions {
    KeyspaceOptions::default()
        .memtable_bytes(16 << 10)
        .write_buffer_bytes(48 << 10)
        .table_bytes(32 << 10)
        .level_base_bytes(32 << 10)
        .level_size_ratio(3)
        .history_writes(if name == NAMES[0] { 0 } else { 1000 })
        .strategy(if name == NAMES[0] { Strategy::Leveled } else { Strategy::Tiered })
}

/// Writes until it is killed, or until who started it is gone.
pub(crate) fn live(dir: &Path, page: &Page, seed: u64) {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    // The page outlives this process, so that it may as well be leaked.
    let marks = MARKS.get_or_init(|| Marks { page: Page::open(Path::new(&std::env::var_os(crate::PAGE).unwrap())) });
    tracing::subscriber::set_global_default(Listener).unwrap();
    // How each life opens the database is no part of what must be known.
    let mut rng = Rng::new(seed ^ u64::from(std::process::id()));
    let files = Arc::new(MarkingFiles { real: RealFileSystem::new(), dir: dir.to_owned() });
    let environment = Environment { files, ..Environment::real() };
    page.enter(Phase::Recovery);
    let database = builder(dir, &mut rng).environment(environment).open();
    page.leave(Phase::Recovery);
    marks.now(None);
    let database = database.unwrap_or_else(|error| exit(&error));
    let keyspaces = NAMES.map(|name| match database.list_keyspaces().iter().any(|known| known == name) {
        true => database.open_keyspace(name),
        false => database.create_keyspace(name, keyspace_options(name)),
    });
    let keyspaces = keyspaces.map(|keyspace| keyspace.unwrap_or_else(|error| exit(&error)));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (database, keyspaces) = (&database, &keyspaces);
            scope.spawn(move || {
                WRITES.set(true);
                write(database, keyspaces, page, seed, writer)
            });
        }
    });
}

/// The parent sees the exit code, the reader of the test's output the error.
fn exit(error: &dyn fmt::Display) -> ! {
    eprintln!("child: {error}");
    std::process::exit(1)
}

fn write(database: &Database, keyspaces: &[Keyspace; 2], page: &Page, seed: u64, writer: usize) {
    let last = keyspaces[0].get(work::last_key(writer)).unwrap_or_else(|error| exit(&error));
    let mut number = last.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().expect("8 bytes")));
    loop {
        number += 1;
        let commit = work::commit(seed, writer, number);
        let mut batch = database.batch();
        batch.set_durability(if commit.synced { Durability::Synced } else { Durability::Buffered });
        for (key, value) in &commit.entries {
            for keyspace in keyspaces {
                let added = match value {
                    Some(value) => batch.insert(keyspace, key, value),
                    None => batch.remove(keyspace, key),
                };
                added.unwrap_or_else(|error| exit(&error));
            }
        }
        page.begin(writer, number);
        database.write(&batch).unwrap_or_else(|error| exit(&error));
        page.acknowledge(writer, number);
    }
}

/// Where the phases of this process are told.
static MARKS: OnceLock<Marks> = OnceLock::new();

thread_local! {
    /// The phase that this thread is in.
    static NOW: Cell<Option<Phase>> = const { Cell::new(None) };
    /// Whether it is a writer, whose tables are batches.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct Marks {
    page: Page,
}

impl Marks {
    /// This thread leaves its phase and enters another, or none.
    fn now(&self, phase: Option<Phase>) {
        if let Some(before) = NOW.replace(phase) {
            self.page.leave(before);
        }
        if let Some(phase) = phase {
            self.page.enter(phase);
        }
    }
}

fn mark(phase: Option<Phase>) {
    if let Some(marks) = MARKS.get() {
        marks.now(phase);
    }
}

/// Hears what jobs say of themselves.
struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("lsm_facade")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        match message.0.as_str() {
            "compaction begins" => mark(Some(Phase::Compaction)),
            "compaction ends" | "flushed" | "job abandoned" => mark(None),
            _ => {}
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// The real files, and what is done to them as a mark.
#[derive(Debug)]
struct MarkingFiles {
    real: RealFileSystem,
    dir: PathBuf,
}

impl MarkingFiles {
    fn is_edit_file(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension == "jsonl")
    }

    fn marking(file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        if Self::is_edit_file(file.path()) { Arc::new(MarkingLog { real: file }) } else { file }
    }
}

impl FileSystem for MarkingFiles {
    fn create_dir(&self, path: &Path) -> Result<(), FileError> {
        self.real.create_dir(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>, FileError> {
        self.real.open(path)
    }

    fn create_temporary(&self, dir: &Path) -> Result<Box<dyn TemporaryFile>, FileError> {
        if !dir.ends_with("tables") {
            mark(Some(Phase::Edit));
        } else if NOW.get().is_none() && !WRITES.get() {
            mark(Some(Phase::Flush));
        }
        self.real.create_temporary(dir)
    }

    fn create_log(&self, path: &Path, bytes: u64, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        self.real.create_log(path, bytes, way).map(Self::marking)
    }

    fn open_log(&self, path: &Path, way: LogFileWay) -> Result<Arc<dyn LogFile>, FileError> {
        self.real.open_log(path, way).map(Self::marking)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.real.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<(), FileError> {
        self.real.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<(), FileError> {
        self.real.remove_dir(path)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<DirectoryEntry>, FileError> {
        self.real.read_dir(path)
    }

    fn file_len(&self, path: &Path) -> Result<u64, FileError> {
        self.real.file_len(path)
    }

    fn link_count(&self, path: &Path) -> Result<u64, FileError> {
        self.real.link_count(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<(), FileError> {
        self.real.hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), FileError> {
        let synced = self.real.sync_dir(path);
        // With the sync of the database's directory `global.json` is replaced.
        if path == self.dir && NOW.get() == Some(Phase::Edit) {
            mark(None);
        }
        synced
    }

    fn lock_dir(&self, dir: &Path) -> Result<Box<dyn DirectoryLock>, FileError> {
        self.real.lock_dir(dir)
    }

    fn exists(&self, path: &Path) -> Result<bool, FileError> {
        self.real.exists(path)
    }
}

/// An edit file: each line is an edit.
#[derive(Debug)]
struct MarkingLog {
    real: Arc<dyn LogFile>,
}

impl LogFile for MarkingLog {
    fn path(&self) -> &Path {
        self.real.path()
    }

    fn len(&self) -> u64 {
        self.real.len()
    }

    fn way(&self) -> LogFileWay {
        self.real.way()
    }

    fn store(&self, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        mark(Some(Phase::Edit));
        self.real.store(offset, bytes)
    }

    fn populate(&self, offset: u64, bytes: u64) {
        self.real.populate(offset, bytes);
    }

    fn release(&self, offset: u64, bytes: u64) {
        self.real.release(offset, bytes);
    }

    fn sync(&self) -> Result<(), FileError> {
        let synced = self.real.sync();
        mark(None);
        synced
    }
}
