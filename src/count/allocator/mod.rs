//! The counting allocator. It counts allocations, exact to the byte, with a handful of plain instructions.

#![allow(unsafe_code, reason = "an allocator is unsafe by trade, and its hot path has no room for checks")]

mod atomic;
mod countdown;
mod counting;
mod inner;
mod local;
mod measure;
mod mode;
mod peak;
mod registry;
mod sampler;
#[cfg(feature = "profile")]
pub(crate) mod samples;
mod slot;
mod totals;

pub use counting::CountingAllocator;
#[cfg(feature = "profile")]
pub(crate) use local::{can_sample, is_sampling, set_mean};
pub(crate) use local::{thread_counts, thread_progress, totals};
pub(crate) use measure::is_global;
pub use measure::{AllocationStats, measure};
#[cfg(feature = "profile")]
pub use mode::Sampled;
pub(crate) use totals::{CLASSES, ThreadCounts, Totals};
