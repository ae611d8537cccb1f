//! Runtime metrics for Rust services through OpenTelemetry.

mod allocator;
mod metric;
mod otel;
mod runtime_metrics;
mod source;

pub use allocator::{AllocationStats, CountingAllocator, measure};
pub use metric::{
    AttributeValue, Attributes, Histogram, Kind, Level, Metric, Point, Reading, Snapshot, Value,
};
pub use runtime_metrics::{Builder, RuntimeMetrics};
pub use source::catalogue;

use opentelemetry::metrics::Meter;

/// Registers everything that can be measured here on `meter`, with the default settings.
pub fn init_runtime_metrics(meter: &Meter) -> RuntimeMetrics {
    RuntimeMetrics::builder().build(meter)
}
