//! On what the writes fall: options of the engine, sizes of entries, rates of the machine.

use compaction::{CompactionOptions, Limits, Strategy};

use crate::Workload;

/// Everything that a simulation depends on: equal setups give equal reports.
#[derive(Debug, Clone)]
pub struct Setup {
    /// What is written.
    pub workload: Workload,
    /// Over how many keys.
    pub keys: u64,
    /// How many writes.
    pub writes: u64,
    /// Repeats the writes.
    pub seed: u64,
    /// Bytes of a key, as the user counts them.
    pub key_bytes: u64,
    /// Bytes of a value, as the user counts them.
    pub value_bytes: u64,
    /// Bytes of an entry in a table beside key and value: trailer, head, offset and filter, less common prefixes.
    pub table_overhead_bytes: u64,
    /// Bytes of a block of a table.
    pub block_bytes: u64,
    /// Bytes of an entry in a memtable beside key and value.
    pub memtable_overhead_bytes: u64,
    /// Memory at which the active memtable is sealed.
    pub memtable_bytes: u64,
    /// Memory of sealed memtables at which a flush is due.
    pub write_buffer_bytes: u64,
    /// The picker's options.
    pub options: CompactionOptions,
    /// The pacing's limits.
    pub limits: Limits,
    /// Threads for flushes and compactions; of several, one is kept for flushes.
    pub threads: usize,
    /// Bytes of user data that the writer offers per second.
    pub writer_rate: u64,
    /// Bytes of memtables per second that one thread flushes, if the device allows it.
    pub flush_rate: u64,
    /// Bytes of input per second that one thread merges, if the device allows it.
    pub merge_rate: u64,
    /// Bytes per second, read and written together, that running jobs share.
    pub device_rate: u64,
}

impl Setup {
    /// The options of the engine, an eighth of their default sizes, and a data set that is 30 times the write buffer,
    /// written four times over. Rates as of a small machine: two threads, one of them for compaction, and a writer that
    /// offers more than they can merge.
    pub fn new(workload: Workload, strategy: Strategy) -> Self {
        let mut setup = Self::sized(workload, strategy, 2 << 20, 8 << 20);
        setup.writes = 8 << 20;
        setup
    }

    /// A hundredth of it, for tests and examples.
    pub fn small(workload: Workload, strategy: Strategy) -> Self {
        Self::sized(workload, strategy, 40_000, 160 << 10)
    }

    fn sized(workload: Workload, strategy: Strategy, keys: u64, write_buffer_bytes: u64) -> Self {
        let (key_bytes, value_bytes) = (16, 100);
        let level_base_bytes = write_buffer_bytes * 16;
        let options = CompactionOptions {
            strategy,
            level_base_bytes,
            table_bytes_target: write_buffer_bytes,
            fifo_bytes_max: keys * (key_bytes + value_bytes),
            ..CompactionOptions::default()
        };
        let memtable_bytes = write_buffer_bytes / 16;
        let limits = Limits::of_keyspace(&options, write_buffer_bytes, memtable_bytes);
        Self {
            workload,
            keys,
            writes: keys * 4,
            seed: 1,
            key_bytes,
            value_bytes,
            table_overhead_bytes: 10,
            block_bytes: 4096,
            memtable_overhead_bytes: 69,
            memtable_bytes,
            write_buffer_bytes,
            options,
            limits,
            threads: 2,
            writer_rate: 60_000_000,
            flush_rate: 200_000_000,
            merge_rate: 150_000_000,
            device_rate: 500_000_000,
        }
    }

    /// The limits that a database gives a keyspace of these options and sizes: by the same code.
    pub fn limits_of_keyspace(&self) -> Limits {
        Limits::of_keyspace(&self.options, self.write_buffer_bytes, self.memtable_bytes)
    }

    /// Bytes that the user counts for a put or a delete.
    pub fn user_bytes(&self, is_delete: bool) -> u64 {
        self.key_bytes + if is_delete { 0 } else { self.value_bytes }
    }

    /// Bytes of an entry in a table.
    pub fn entry_bytes(&self, is_delete: bool) -> u64 {
        self.user_bytes(is_delete) + self.table_overhead_bytes
    }
}
