//! Runtime metrics for Rust services through OpenTelemetry.

mod collection;
#[cfg(feature = "serde")]
mod json;
#[cfg(feature = "monitor")]
mod memstats;
mod metric;
#[cfg(feature = "monitor")]
mod monitor;
mod otel;
#[cfg(feature = "_otlp")]
pub mod otlp;
mod runtime_metrics;
mod source;
#[cfg(feature = "view")]
mod view;

pub use metric::{
    AttributeValue, Attributes, Histogram, Kind, Level, Metric, Point, Reading, Snapshot, Value,
};
#[cfg(feature = "monitor")]
pub use monitor::Monitor;
pub use runtime_metrics::{Builder, RuntimeMetrics};
pub use source::{Family, catalogue};
#[cfg(feature = "view")]
pub use view::view;

use opentelemetry::metrics::Meter;

/// Registers everything that can be measured here on `meter`, with the default settings.
pub fn init_runtime_metrics(meter: &Meter) -> RuntimeMetrics {
    RuntimeMetrics::builder().build(meter)
}
