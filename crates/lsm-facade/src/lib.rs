//! An ordered, multi-version, embedded key-value engine: databases, keyspaces, batches, snapshots.
