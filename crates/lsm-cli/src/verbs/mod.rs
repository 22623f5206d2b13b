//! One file for each verb; `ranges`, `interrupt` and `sources` are what several of them, or the largest, need.

pub(crate) mod compact;
pub(crate) mod count;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod inspect;
mod interrupt;
pub(crate) mod keyspaces;
pub(crate) mod load;
pub(crate) mod put;
mod ranges;
pub(crate) mod repair;
pub(crate) mod salvage;
pub(crate) mod scan;
mod sources;
pub(crate) mod stats;
pub(crate) mod verify;
