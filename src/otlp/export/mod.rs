//! The exporting threads: when they export, what they try again and what they report.

mod delivery;
mod exporter;
mod outage;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod profiles;
pub(crate) mod reader;
mod request;
#[cfg(feature = "otlp-profiles")]
mod taken;
mod worker;
