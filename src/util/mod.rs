//! Helpers that are independent of metrics.

pub(crate) mod log;
pub(crate) mod mutex;
#[cfg(any(feature = "debug", feature = "profile"))]
pub(crate) mod scale;
pub(crate) mod thread;
