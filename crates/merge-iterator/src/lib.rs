//! One order out of many cursors, and what of it a reader at a seqno may see.
