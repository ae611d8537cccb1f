//! What a Rust service's allocator, Tokio runtimes, tasks and process are doing, as OpenTelemetry metrics.
//!
//! ```no_run
//! use opentelemetry_instrumentation_runtime::{CountingAllocator, init_runtime_metrics};
//!
//! #[global_allocator]
//! static ALLOC: CountingAllocator = CountingAllocator::system();
//!
//! # fn main() {
//! let meter = opentelemetry::global::meter("my-service"); // or any other; with feature `otlp`, `otlp::install()`
//! init_runtime_metrics(&meter);
//! # }
//! ```
//!
//! That registers observable instruments for everything that can be read here: the counters of [`CountingAllocator`],
//! the Tokio runtime that it is called in, tasks with a name ([`TaskExt`]), the process and its limits. What it all is
//! stands in the [`catalogue`], and in `METRICS.md`. [`RuntimeMetrics::builder`] has the settings.
//!
//! # From a number to an export
//! A metric is a row of a table: name, kind, unit, a sentence, and how to read it from a sample. A source, in
//! `src/source`, is a table and a function that takes the sample. Whatever leaves the library, instruments, JSON or
//! this page's catalogue, is a loop over rows. A collection reads every source once and sees one moment; its counters
//! never fall; what cannot be read has no point. A source that panics is switched off, and takes nothing with it.
//!
//! # Errors
//! There are none, but for those of the features `otlp` and `debug`: what cannot be read is not reported, and the
//! `Debug` form of [`RuntimeMetrics`] says which sources are on and why others are not.

mod collector;
mod count;
mod metric;
#[cfg(feature = "_otlp")]
pub mod otlp;
mod output;
#[cfg(feature = "profile")]
pub mod profile;
mod runtime_metrics;
mod settings;
mod snapshot;
mod source;
#[cfg(feature = "profile")]
mod stack;
mod util;
mod watch;

pub use count::allocator::{AllocationStats, CountingAllocator, measure};
pub use count::task::{NamedTask, TaskExt};
#[cfg(tokio_unstable)]
pub use count::task::{TaskHooks, task_hooks};
pub use metric::{Availability, Kind, Metric};
#[cfg(feature = "monitor")]
pub use output::Monitor;
#[cfg(feature = "debug")]
pub use output::debug;
#[cfg(feature = "view")]
pub use output::otel::view;
pub use runtime_metrics::{Builder, RuntimeMetrics};
pub use snapshot::{AttributeValue, Attributes, Histogram, Point, Reading, Snapshot, Value};
pub use source::catalogue;
pub use source::table::Group;

use opentelemetry::metrics::Meter;

/// Registers everything that can be measured here on `meter`, with the default settings.
///
/// It never fails and never panics, inside or outside of Tokio: the runtime that it is called in is watched, others with
/// [`RuntimeMetrics::watch_runtime`]. The result may be ignored: dropping it stops nothing. Called twice on one meter it
/// doubles nothing.
///
/// ```
/// use opentelemetry_instrumentation_runtime::init_runtime_metrics;
///
/// let metrics = init_runtime_metrics(&opentelemetry::global::meter("my-service"));
/// for reading in metrics.snapshot().readings() {
///     println!("{} {:?}", reading.metric().name(), reading.points());
/// }
/// ```
pub fn init_runtime_metrics(meter: &Meter) -> RuntimeMetrics {
    RuntimeMetrics::builder().build(meter)
}

/// The README's examples, compiled.
#[cfg(all(doctest, feature = "otlp"))]
#[doc = include_str!("../README.md")]
struct Readme;
