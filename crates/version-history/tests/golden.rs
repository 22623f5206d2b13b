//! Stories of installing, told in `tests/golden`.
#![cfg(not(any(loom, shuttle)))]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use internal_key::{Level, SeqNo, TableId};
use support::{KEYSPACE, Named, added, entry, memtable, seqno};
use test_support::{Command, Fixture};
use version_history::{
    DroppedTables, Frontier, History, ObsoleteTables, Retired, Sealed, SnapshotHandle, SnapshotRegistry, SuperVersion,
    Table,
};

type Views = SuperVersion<Named, ()>;

/// One keyspace, its manifest as a set of names, and everything that holds on to it.
///
/// ```text
/// seal                                   the active memtable is sealed, a new one takes its place
/// batch t9[a..c]                         a batch table is placed over the active memtable
/// flush m1 m2 = t5[a..f]@L0:e5           sealed memtables leave, tables join
/// replace t5@L0 = t6[a..f]@L1:e5         tables leave, tables join
/// clear at=20
/// write to=30                            visible rises
/// snapshot NAME [at=N], release NAME
/// hold NAME, let-go NAME                 a reader keeps the current super version
/// read at=N                              the memtables and tables that a read there looks through
/// floor [retention=N]                    raises the floor, forgets unneeded predecessors
/// collect                                frees and deletes what can go
/// show
/// ```
struct Keyspace {
    history: History<Named, ()>,
    retired: Arc<Retired<Views>>,
    obsolete: Arc<ObsoleteTables>,
    manifest: BTreeSet<TableId>,
    registry: Arc<SnapshotRegistry>,
    visible: Frontier,
    memtables: u32,
    snapshots: BTreeMap<String, SnapshotHandle>,
    held: BTreeMap<String, Arc<Views>>,
    /// What flushes and compactions have written and not installed yet: one handle a table, also if refused (R5).
    written: BTreeMap<TableId, Arc<Table<()>>>,
}

impl Keyspace {
    fn new() -> Self {
        let retired = Arc::new(Retired::new());
        let registry = Arc::new(SnapshotRegistry::default());
        registry.keep_history(KEYSPACE, SeqNo::ZERO);
        Self {
            history: History::new(SuperVersion::new(memtable("m1"), Arc::default()), Arc::clone(&retired)),
            retired,
            obsolete: Arc::new(ObsoleteTables::new()),
            manifest: BTreeSet::new(),
            registry,
            visible: Frontier::new(SeqNo::ZERO),
            memtables: 1,
            snapshots: BTreeMap::new(),
            held: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    fn new_memtable(&mut self) -> Arc<Named> {
        self.memtables += 1;
        memtable(&format!("m{}", self.memtables))
    }

    /// `t5[a..f]`, made anew or found.
    fn table(&mut self, text: &str) -> Arc<Table<()>> {
        let (id, keys) = text.split_once('[').unwrap_or_else(|| panic!("`{text}` is no table"));
        let id: u64 = id.trim_start_matches('t').parse().unwrap();
        for sealed in self.history.current().sealed() {
            if let Sealed::Batch(table) = sealed
                && table.id() == TableId(id)
            {
                return Arc::clone(table);
            }
        }
        let (min, max) = keys.trim_end_matches(']').split_once("..").unwrap();
        let heard: Arc<dyn DroppedTables> = Arc::clone(&self.obsolete) as _;
        let entry = entry(id, min.as_bytes(), max.as_bytes());
        let new = || Arc::new(Table::new(KEYSPACE, entry, (), Arc::downgrade(&heard)));
        Arc::clone(self.written.entry(TableId(id)).or_insert_with(new))
    }

    fn sealed(&self, name: &str) -> Sealed<Named, ()> {
        let mut views: Vec<Arc<Views>> = self.held.values().cloned().collect();
        views.push(self.history.current_full());
        let found = views.iter().flat_map(|view| view.sealed()).find(|sealed| match sealed {
            Sealed::Memtable(memtable) => memtable.0 == name,
            Sealed::Batch(table) => table.id().to_string() == name,
        });
        found.cloned().unwrap_or_else(|| Sealed::Memtable(memtable(name)))
    }

    /// `OUT … = TABLE@LEVEL:EPOCH …`
    fn edit(&mut self, command: &Command, flush: bool) -> String {
        let middle = command.args().iter().position(|word| word == "=").expect("an edit has a `=`");
        let (out, into) = (&command.args()[..middle], &command.args()[middle + 1..]);
        let into: Vec<_> = into
            .iter()
            .map(|text| {
                let (table, place) = text.split_once('@').unwrap();
                let (level, run) = place.trim_start_matches('L').split_once(":e").unwrap();
                added(level.parse().unwrap(), run.parse().unwrap(), &self.table(table))
            })
            .collect();
        let mut removed = Vec::new();
        let result = if flush {
            let out: Vec<_> = out.iter().map(|name| self.sealed(name)).collect();
            self.history.install(|current| current.install_flush(&out, &into)).map_err(|refusal| refusal.to_string())
        } else {
            for text in out {
                let (id, level) = text.split_once("@L").unwrap();
                removed.push((Level(level.parse().unwrap()), TableId(id.trim_start_matches('t').parse().unwrap())));
            }
            let replace = |current: &Arc<Views>| current.replace_tables(&removed, &into);
            self.history.install(replace).map_err(|refusal| refusal.to_string())
        };
        match result {
            Ok(next) => {
                removed.iter().for_each(|(_, id)| assert!(self.manifest.remove(id)));
                self.manifest.extend(into.iter().map(|(place, _)| place.table.id));
                into.iter().for_each(|(place, _)| drop(self.written.remove(&place.table.id)));
                next.to_string()
            }
            Err(refusal) => format!("refused: {refusal}"),
        }
    }
}

impl Fixture for Keyspace {
    fn run(&mut self, command: &Command) -> String {
        let at = |default: SeqNo| seqno(command.option_or("at", default.get()));
        match command.name() {
            "seal" => {
                let active = self.new_memtable();
                let sealed: Result<_, ()> = self.history.install(|current| Ok(current.seal(active)));
                sealed.unwrap().to_string()
            }
            "batch" => {
                let (active, table) = (self.new_memtable(), self.table(command.arg(0)));
                let placed: Result<_, ()> =
                    self.history.install(|current| Ok(current.seal_around_batch(active, table)));
                self.written.clear();
                placed.unwrap().to_string()
            }
            "flush" => self.edit(command, true),
            "replace" => self.edit(command, false),
            "clear" => {
                let active = self.new_memtable();
                let at = at(SeqNo::ZERO);
                let cleared: Result<_, ()> = self.history.install(|current| Ok(current.restart(active, at)));
                self.manifest.clear();
                self.visible.raise(at);
                cleared.unwrap().to_string()
            }
            "write" => {
                self.visible.raise(seqno(command.option_or("to", 0)));
                String::new()
            }
            "snapshot" => {
                let at = at(self.visible.load());
                match self.registry.register_at(&self.visible, at) {
                    Ok(handle) => {
                        self.snapshots.insert(command.arg(0).to_string(), handle);
                        String::new()
                    }
                    Err(refusal) => format!("refused: {refusal}"),
                }
            }
            "release" => {
                self.snapshots.remove(command.arg(0)).expect("a snapshot of that name");
                String::new()
            }
            "hold" => {
                self.held.insert(command.arg(0).to_string(), self.history.current_full());
                String::new()
            }
            "let-go" => {
                self.held.remove(command.arg(0)).expect("a reader of that name");
                String::new()
            }
            "read" => match self.history.version_for_snapshot(at(self.visible.load())) {
                Some(view) => {
                    let mut line = view.active().to_string();
                    view.sealed().iter().for_each(|sealed| write!(line, ", {sealed}").unwrap());
                    view.version().tables().for_each(|(level, table)| write!(line, ", {level} {table}").unwrap());
                    line
                }
                None => "gone".to_string(),
            },
            "floor" => {
                let retention = seqno(command.option_or("retention", SeqNo::MAX.get()));
                let (floor, registered) = self.registry.floor_and_registered_of(KEYSPACE, &self.visible, retention);
                let forgot = self.history.forget_predecessors(floor, &registered);
                format!("floor {floor}{}", if forgot { ", forgot predecessors" } else { "" })
            }
            "collect" => {
                let mut freed = 0;
                // A predecessor becomes unused when its successor is freed.
                loop {
                    match self.retired.collect() {
                        0 => break,
                        more => freed += more,
                    }
                }
                let mut text = format!("freed {freed}, retired {}\n", self.retired.len());
                for (_, id) in self.obsolete.collect(|| |_, id| self.manifest.contains(&id)) {
                    writeln!(text, "delete {id}").unwrap();
                }
                text
            }
            "show" => self.history.current().to_string(),
            _ => command.unknown(),
        }
    }
}

#[test]
fn golden_scripts() {
    test_support::run_scripts("tests/golden", Keyspace::new);
}
