//! What the slots are made of. The model that checks them has its own version of this file.

pub(super) use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicUsize, Ordering, fence};

#[cfg(target_has_atomic = "64")]
pub(super) use std::sync::atomic::AtomicU64;

#[cfg(not(target_has_atomic = "64"))]
pub(super) use super::halves::Halves as AtomicU64;

/// A constructor that can initialise a `static`.
macro_rules! constructor {
    ($($function:tt)*) => { pub(super) const $($function)* };
}
pub(super) use constructor;

pub(super) const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

/// By how many sizes the slots count: the powers of two up to 1 GiB, and what is larger.
pub(super) const POWERS: usize = 32;
