//! Reports snapshots to OpenTelemetry, as JSON, as a log line and over HTTP.

#[cfg(feature = "debug")]
pub mod debug;
#[cfg(all(feature = "monitor", feature = "profile"))]
mod growth;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "monitor")]
#[cfg_attr(not(feature = "debug"), allow(dead_code, reason = "only `/debug/vars` has every key"))]
mod memstats;
#[cfg(feature = "monitor")]
mod monitor;
pub(crate) mod otel;
#[cfg(feature = "monitor")]
mod sum;

#[cfg(feature = "monitor")]
pub use monitor::Monitor;
