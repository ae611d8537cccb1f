//! What the counters are made of. The model that checks them has its own version of this file.

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard};

/// A constructor that can initialise a `static`.
macro_rules! constructor {
    ($($function:tt)*) => { pub(crate) const $($function)* };
}
pub(super) use constructor;
