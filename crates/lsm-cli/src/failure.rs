//! How a verb ends: exit codes, and what goes to standard error.

use std::fmt;
use std::io;
use std::path::Path;

/// The exit codes, as `lsm --help` lists them.
pub(crate) mod code {
    /// Done.
    pub(crate) const OK: u8 = 0;
    /// The answer is no: no such key, damage found, contents differ.
    pub(crate) const NO: u8 = 1;
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// It could not be done: no such database, in use, I/O error, unreadable files.
    pub(crate) const FAILED: u8 = 3;
    /// A line of the input is bad; everything before it is loaded.
    pub(crate) const BAD_INPUT: u8 = 4;
    /// Ended by Ctrl-C, cleanly.
    pub(crate) const INTERRUPTED: u8 = 130;
}

/// Why a verb did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// One of [`code`].
    pub(crate) code: u8,
    /// For standard error; empty if there is nothing to be said.
    pub(crate) message: String,
}

impl Failure {
    fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// The answer is no.
    pub(crate) fn no(message: impl fmt::Display) -> Self {
        Self::new(code::NO, message)
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(code::USAGE, message)
    }

    /// It could not be done.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(code::FAILED, message)
    }

    /// A line of the input is bad.
    pub(crate) fn bad_input(message: impl fmt::Display) -> Self {
        Self::new(code::BAD_INPUT, message)
    }

    /// Ctrl-C.
    pub(crate) fn interrupted(message: impl fmt::Display) -> Self {
        Self::new(code::INTERRUPTED, message)
    }

    /// A file that is not the database's could not be read.
    pub(crate) fn reading(path: &Path, error: &io::Error) -> Self {
        Self::failed(format_args!("cannot read {}: {error}", path.display()))
    }
}

/// A failure of the output: a closed pipe ends the command quietly, because its reader has what it wanted.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: code::OK, message: String::new() },
            _ => Self::failed(format_args!("cannot write the output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<lsm_facade::Error> for Failure {
    fn from(error: lsm_facade::Error) -> Self {
        match error {
            lsm_facade::Error::KeyTooLong { .. } | lsm_facade::Error::ValueTooLong { .. } => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// What verbs return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;
