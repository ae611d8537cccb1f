//! The counting allocator: what a program allocates, exact to the byte, for a handful of plain instructions.

#![allow(unsafe_code, reason = "an allocator is unsafe by trade, and its hot path has no room for checks")]

mod atomic;
mod countdown;
mod counting;
mod local;
mod measure;
mod peak;
mod registry;
mod slot;
mod totals;

pub use counting::CountingAllocator;
pub(crate) use local::{thread_counts, totals};
pub(crate) use measure::is_global;
pub use measure::{AllocationStats, measure};
pub(crate) use totals::{CLASSES, ThreadCounts, Totals};
