//! Runtime metrics for Rust services through OpenTelemetry.

mod allocator;
mod collection;
#[cfg(feature = "debug")]
pub mod debug;
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
mod replay;
mod runtime_metrics;
mod source;
mod task;
#[cfg(feature = "view")]
mod view;
mod watch;

pub use allocator::{AllocationStats, CountingAllocator, measure};
pub use metric::{
    AttributeValue, Attributes, Histogram, Kind, Level, Metric, Point, Reading, Snapshot, Value,
};
#[cfg(feature = "monitor")]
pub use monitor::Monitor;
pub use runtime_metrics::{Builder, RuntimeMetrics};
pub use source::{Family, catalogue};
pub use task::{NamedTask, TaskExt};
#[cfg(tokio_unstable)]
pub use task::{TaskHooks, task_hooks};
#[cfg(feature = "view")]
pub use view::view;

use opentelemetry::metrics::Meter;

/// Registers everything that can be measured here on `meter`, with the default settings.
pub fn init_runtime_metrics(meter: &Meter) -> RuntimeMetrics {
    RuntimeMetrics::builder().build(meter)
}
