//! Runtime metrics for Rust services through OpenTelemetry.

mod collection;
mod metric;
mod otel;
mod replay;
mod runtime_metrics;
mod source;
mod watch;

pub use metric::{
    AttributeValue, Attributes, Histogram, Kind, Level, Metric, Point, Reading, Snapshot, Value,
};
pub use runtime_metrics::{Builder, RuntimeMetrics};
pub use source::{Family, catalogue};

use opentelemetry::metrics::Meter;

/// Registers everything that can be measured here on `meter`, with the default settings.
pub fn init_runtime_metrics(meter: &Meter) -> RuntimeMetrics {
    RuntimeMetrics::builder().build(meter)
}
