//! Counts events on the threads where they happen.

pub(crate) mod allocator;
pub(crate) mod task;
