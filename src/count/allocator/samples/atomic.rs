//! The atomics that samples are kept in. The model checker replaces this file by its own.

pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

/// The number of places of an address in a level of the table: a cache line of keys.
pub(super) const WAYS: usize = 8;
