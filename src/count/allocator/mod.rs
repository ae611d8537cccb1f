//! The counting allocator: what a program allocates, exact to the byte, for a handful of plain instructions.

#![allow(unsafe_code, reason = "an allocator is unsafe by trade, and its hot path has no room for checks")]

mod atomic;
mod countdown;
mod counting;
#[cfg(any(test, not(target_has_atomic = "64")))]
mod halves;
mod local;
mod measure;
mod peak;
mod registry;
mod slot;
mod totals;

use std::hint::black_box;

pub use counting::CountingAllocator;
pub use measure::{AllocationStats, measure};
pub(crate) use totals::{CLASSES, Totals};

/// What the calling thread has allocated. Only differences mean anything: a thread goes on from the counters of one
/// that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadCounts {
    /// Bytes.
    pub(crate) allocated: u64,
    pub(crate) allocations: u64,
}

/// The calling thread's counters: zeros in a thread that is past its destructors.
#[inline]
pub(crate) fn thread_counts() -> ThreadCounts {
    local::thread_counts()
}

/// The counters of all threads, read one after the other.
pub(crate) fn totals() -> Totals {
    local::totals()
}

/// Whether the global allocator of this process counts. Found out by an allocation.
pub(crate) fn is_global() -> bool {
    let (_, stats) = measure(|| drop(black_box(Box::new(0_u8))));
    stats.allocations > 0
}
