//! Which rows of a keyspace: what `scan` and `count` share.

use std::ffi::OsString;
use std::ops::Bound;

use lsm_facade::{Keyspace, RangeCursor};

use crate::failure::Outcome;
use crate::text::BytesForm;

#[derive(Debug, clap::Args)]
pub(crate) struct Range {
    /// Only keys at or after this one
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["from", "to"])]
    prefix: Option<OsString>,
}

impl Range {
    /// A cursor over the rows meant, standing on none yet.
    pub(super) fn cursor(&self, keyspace: &Keyspace, form: BytesForm) -> Outcome<RangeCursor> {
        let read = |key: &Option<OsString>| key.as_ref().map(|key| form.read(key)).transpose();
        if let Some(prefix) = read(&self.prefix)? {
            let end = internal_key::successor_of_prefix(&prefix).map_or(Bound::Unbounded, Bound::Excluded);
            return Ok(keyspace.cursor_in((Bound::Included(prefix), end)));
        }
        let from = read(&self.from)?.map_or(Bound::Unbounded, Bound::Included);
        let to = read(&self.to)?.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(keyspace.cursor_in((from, to)))
    }
}
