//! The atomics that the slots are made of. The model checker replaces this file by its own.

pub(super) use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Defines a constructor that can initialise a `static`. The model checker's atomics have no such constructors.
macro_rules! constructor {
    ($($function:tt)*) => { pub(super) const $($function)* };
}
pub(super) use constructor;

pub(super) const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

/// The number of size counters in a slot: one for each power of two up to 1 GiB, and one for larger sizes.
pub(super) const POWERS: usize = 32;
