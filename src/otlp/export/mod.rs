//! The exporting thread: when it exports, what it retries and what it reports.

pub(in crate::otlp) mod outage;
pub(in crate::otlp) mod reader;
pub(in crate::otlp) mod retry;
pub(in crate::otlp) mod worker;
