//! Helpers that are independent of metrics.

pub(crate) mod log;
pub(crate) mod mutex;
#[cfg(any(feature = "_otlp", feature = "debug"))]
pub(crate) mod thread;
