//! The primitives that the counters are built from. The model that checks the counters has its own version of this file.

pub(super) use crate::util::mutex::Mutex;
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Defines a constructor that can initialise a `static`.
macro_rules! constructor {
    ($($function:tt)*) => { pub(crate) const $($function)* };
}
pub(super) use constructor;
