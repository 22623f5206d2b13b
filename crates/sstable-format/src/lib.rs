//! Sorted tables built to be read in place: columnar blocks, index, filter, footer, caches.
