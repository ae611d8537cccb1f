//! Helpers that know nothing of metrics.

#[cfg(any(feature = "_otlp", feature = "debug"))]
pub(crate) mod thread;
