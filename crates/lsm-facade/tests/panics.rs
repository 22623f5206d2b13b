//! A file, and so a process, of its own: the subscriber that panics must not meet those of other tests.

use file_system::Simulation;
use lsm_facade::{Database, Error, KeyspaceOptions};

/// P9: a job that panics fails the database; who waits for it is told, then and later.
#[test]
fn a_job_that_panics_fails_the_database() {
    struct PanicsAt(&'static str);
    impl tracing::Subscriber for PanicsAt {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            struct Message(String);
            impl tracing::field::Visit for Message {
                fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                    self.0 += &format!("{value:?}");
                }
            }
            let mut message = Message(String::new());
            event.record(&mut message);
            assert!(!message.0.contains(self.0), "planned");
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let simulation = Simulation::new(1);
    let database = Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
    let keyspace = database.create_keyspace("a", KeyspaceOptions::default()).unwrap();
    keyspace.insert("key", "value").unwrap();
    // The panic comes after the flush was installed, so that its caller may be told either.
    let flushed = tracing::subscriber::with_default(PanicsAt("flushed"), || keyspace.flush());
    assert!(matches!(flushed, Ok(()) | Err(Error::Failed { .. })), "{flushed:?}");
    assert!(matches!(database.wait_until_idle(), Err(Error::Failed { .. })));
    assert!(matches!(keyspace.insert("key", "other"), Err(Error::Failed { .. })));
    assert!(matches!(keyspace.flush(), Ok(()) | Err(Error::Failed { .. })));
    assert_eq!(keyspace.get("key").unwrap().unwrap(), b"value");
    drop((keyspace, database));
    let database = Database::builder("/db").environment(simulation.environment()).background_threads(0).open().unwrap();
    assert_eq!(database.open_keyspace("a").unwrap().get("key").unwrap().unwrap(), b"value");
}
