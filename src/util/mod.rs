//! Helpers that are independent of metrics.

pub(crate) mod log;
pub(crate) mod mutex;
pub(crate) mod thread;
