//! The names of numbered things, each a type of its own so that they cannot be swapped.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            /// The number itself.
            #[inline]
            pub const fn get(self) -> $int {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A keyspace (column family). Never reused within a database. Displayed as `ks3`.
    KeyspaceId(u32), "ks"
);
id!(
    /// A table file, `tables/<id>.sst`. Never reused within a database. Displayed as `t17`.
    TableId(u64), "t"
);
id!(
    /// A log segment file, `log/<id>.wal`. Never reused; a recycled file gets a new id. Displayed as `seg4`.
    SegmentId(u64), "seg"
);
id!(
    /// A background job (flush, compaction). Displayed as `job9`.
    JobId(u64), "job"
);
id!(
    /// The age of a run: of two runs that overlap, the one with the larger epoch holds the newer data (C3).
    /// Displayed as `e12`.
    Epoch(u64), "e"
);
id!(
    /// A level of the tree; 0 is the newest. At most [`Level::COUNT`] levels exist. Displayed as `L2`.
    Level(u8), "L"
);

impl Level {
    /// The newest level, into which memtables are flushed. Its runs may overlap.
    pub const ZERO: Self = Self(0);
    /// How many levels there are.
    pub const COUNT: usize = 7;
    /// The last (oldest) level.
    pub const LAST: Self = Self(Self::COUNT as u8 - 1);

    /// The level as an index into an array of [`Level::COUNT`] levels.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The next older level, or `None` below the last.
    pub const fn below(self) -> Option<Self> {
        if self.index() + 1 < Self::COUNT { Some(Self(self.0 + 1)) } else { None }
    }
}
