//! Rules by which operations fail.

use std::io;
use std::path::Path;

use super::random::SplitMix;
use crate::FileOperation;

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultEffect {
    /// The disk fails: an input/output error. A sync that fails so drops what it should have written.
    InputOutput,
    /// The disk is full.
    NoSpace,
    /// The system refuses.
    PermissionDenied,
    /// A write reaches the file in part and fails; any other operation fails with an input/output error.
    ShortWrite,
    /// Fails with this kind.
    Kind(io::ErrorKind),
}

impl FaultEffect {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::InputOutput => io::Error::other("simulated input/output error"),
            Self::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "simulated: no space left on device"),
            Self::PermissionDenied => io::Error::new(io::ErrorKind::PermissionDenied, "simulated: permission denied"),
            Self::ShortWrite => io::Error::new(io::ErrorKind::WriteZero, "simulated short write"),
            Self::Kind(kind) => io::Error::new(kind, format!("simulated: {kind}")),
        }
    }
}

/// Which times out of all that match.
#[derive(Debug, Clone, Copy)]
enum When {
    Every,
    Nth(u64),
    FromNth(u64),
    PerMillion(u64),
}

/// A rule: which operations on which paths fail, when, and how.
///
/// ```
/// use file_system::{Fault, FaultEffect, FileOperation};
/// // The third sync of a log segment fails, once.
/// let fault = Fault::on(FileOperation::Sync).path_ends_with(".wal").nth(3).effect(FaultEffect::InputOutput);
/// # let _ = fault;
/// ```
#[derive(Debug, Clone)]
pub struct Fault {
    operation: Option<FileOperation>,
    contains: String,
    suffix: String,
    when: When,
    effect: FaultEffect,
}

impl Fault {
    /// Every `operation` on every path fails with an input/output error, until the rule is narrowed.
    pub fn on(operation: FileOperation) -> Self {
        Self { operation: Some(operation), ..Self::on_anything() }
    }

    /// Every operation of every kind fails with an input/output error, until the rule is narrowed.
    pub fn on_anything() -> Self {
        Self {
            operation: None,
            contains: String::new(),
            suffix: String::new(),
            when: When::Every,
            effect: FaultEffect::InputOutput,
        }
    }

    /// Only on paths that contain `text`.
    pub fn path_contains(mut self, text: impl Into<String>) -> Self {
        self.contains = text.into();
        self
    }

    /// Only on paths that end with `text`.
    pub fn path_ends_with(mut self, text: impl Into<String>) -> Self {
        self.suffix = text.into();
        self
    }

    /// Only the `n`-th matching operation, counted from 1.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn nth(mut self, n: u64) -> Self {
        assert!(n > 0, "counted from 1");
        self.when = When::Nth(n);
        self
    }

    /// The `n`-th matching operation, counted from 1, and every later one.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn from_nth(mut self, n: u64) -> Self {
        assert!(n > 0, "counted from 1");
        self.when = When::FromNth(n);
        self
    }

    /// Each matching operation with this probability, decided by the file system's seed.
    ///
    /// # Panics
    /// If `probability` is not from 0 to 1.
    pub fn with_probability(mut self, probability: f64) -> Self {
        assert!((0.0..=1.0).contains(&probability), "a probability is from 0 to 1, not {probability}");
        self.when = When::PerMillion((probability * 1e6) as u64);
        self
    }

    /// How the operation fails.
    pub fn effect(mut self, effect: FaultEffect) -> Self {
        self.effect = effect;
        self
    }
}

/// Names an injected [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub(super) u64);

/// A fault in force, and what it has met.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) id: FaultId,
    pub(super) fault: Fault,
    pub(super) matched: u64,
    pub(super) hits: u64,
}

impl Rule {
    /// The effect, if this operation fails by this rule. Counts.
    pub(super) fn meet(&mut self, operation: FileOperation, path: &Path, random: &mut SplitMix) -> Option<FaultEffect> {
        let fault = &self.fault;
        let text = path.to_string_lossy();
        let matches = fault.operation.is_none_or(|wanted| wanted == operation)
            && text.contains(&fault.contains)
            && text.ends_with(&fault.suffix);
        if !matches {
            return None;
        }
        self.matched += 1;
        let hit = match fault.when {
            When::Every => true,
            When::Nth(n) => self.matched == n,
            When::FromNth(n) => self.matched >= n,
            When::PerMillion(part) => random.chance(part, 1_000_000),
        };
        self.hits += u64::from(hit);
        hit.then_some(fault.effect)
    }
}
