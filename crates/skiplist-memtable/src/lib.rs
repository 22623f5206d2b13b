//! A concurrent sorted write buffer: a skip list with inline key heads over an arena.
//!
//! Writers *reserve* a range of the arena one after another, under a lock of the caller's that also hands out seqnos,
//! and then *insert* into their ranges in parallel. Readers take no lock and write nothing. Nothing is removed until the
//! whole memtable is dropped, and much follows from that.
//!
//! ```text
//!   reserve (one at a time)          insert (parallel)               get, cursor (parallel)
//!   ┌───────────────────────┐        ┌─────────────────────────┐     ┌──────────────────────────────┐
//!   │ seqnos, arena range,  │ range  │ copy key and value,     │     │ heads in range? filter?      │
//!   │ filter segment        ├───────▶│ note in filter, link    ├──▶  │ then search: heads compared  │
//!   └───────────────────────┘        └─────────────────────────┘ ▲   │ in the nodes, bytes if equal │
//!                                              the caller's `visible`└──────────────────────────────┘
//! ```
//!
//! - **K1** Every byte of the arena is handed out at most once, and only the holder of a range writes to it; one thread
//!   at a time reserves. Checked: a second one panics.
//! - **K2** Bytes that a node points to are never written again, moved, or freed before the memtable is.
//! - **K3** Who meets a node sees it whole, and the bytes it points to.
//! - **K4** Nothing is ever unlinked: a node, once met, is good for as long as the memtable. So no call pins an epoch,
//!   and a cursor keeps its place between calls by holding the `Arc` alone.
//! - **K5** Entries stand in the order of internal keys, each internal key once.
//! - **K6** A key whose insert happened before the question is never denied, by filter or by range of heads.
//! - **K7** Reservations come in seqno order, so `last_reserved_seqno` bounds every entry; a memtable is complete when
//!   all before it are applied (P4).
//! - **P13** Within a budget ([`Memtable::within`]) it asks before it grows, in chunks and not by entries, and is refused if
//!   there is no room.
//! - **K8** `memory_usage` counts chunks and filter exactly, and differs from the heap by less than 10 %.
//!
//! ```
//! use internal_key::{Cursor, Kind, SeqNo, Trailer};
//! use skiplist_memtable::{Memtable, MemtableOptions, Reservation, key_hash};
//! use std::sync::Arc;
//!
//! let memtable = Arc::new(Memtable::new(&MemtableOptions::default()));
//! let seqno = |number| SeqNo::new(number).unwrap();
//!
//! // Under the lock that hands out seqnos:
//! let bytes = Memtable::entry_bytes(5, 3) + Memtable::entry_bytes(5, 0);
//! let mut range = memtable.reserve(Reservation { bytes, entries: 2, first_seqno: seqno(1), last_seqno: seqno(2) });
//!
//! // Outside of it, in parallel with other writers:
//! memtable.insert(&mut range, b"apple", Trailer::new(seqno(1), Kind::Put), b"red");
//! memtable.insert(&mut range, b"apple", Trailer::new(seqno(2), Kind::Delete), b"");
//!
//! // Readers, at their seqno:
//! let put = Trailer::new(seqno(1), Kind::Put);
//! assert_eq!(memtable.get(b"apple", key_hash(b"apple"), seqno(1)), Some((put, &b"red"[..])));
//! let mut cursor = memtable.cursor();
//! cursor.seek_to_first().unwrap();
//! assert_eq!(cursor.trailer(), Trailer::new(seqno(2), Kind::Delete), "newest first");
//! ```
//!
//! Reading order: [`memtable`], [`cursor`], [`filling`], then `node_key`, `arena`, `filter`, `list`, `account`, `sync`.

mod account;
mod arena;
pub mod cursor;
pub mod filling;
mod filter;
mod list;
pub mod memtable;
mod node_key;
mod sync;

pub use cursor::MemtableCursor;
pub use filling::Filling;
pub use memtable::{ArenaRange, Memtable, MemtableOptions, NODE_BYTES, NoMemory, Reservation, key_hash};
