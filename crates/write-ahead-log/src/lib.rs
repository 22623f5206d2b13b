//! Batches as checksummed records in preallocated mapped segments; replay and group sync.
