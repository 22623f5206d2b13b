//! A concurrent sorted write buffer: a skip list with inline key heads over an arena.
