//! Helpers that are independent of metrics.

#[cfg(test)]
pub(crate) mod fuzz;
pub(crate) mod log;
pub(crate) mod mutex;
#[cfg(any(feature = "debug", feature = "profile"))]
pub(crate) mod scale;
pub(crate) mod thread;
