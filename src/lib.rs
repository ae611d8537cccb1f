//! Runtime metrics for Rust services through OpenTelemetry: the allocator, the Tokio runtimes, the tasks and the process.
//!
//! ```no_run
//! use opentelemetry_instrumentation_runtime::{CountingAllocator, TaskExt, init_runtime_metrics};
//!
//! #[global_allocator]
//! static ALLOC: CountingAllocator = CountingAllocator::system();
//!
//! # async fn serve() {}
//! #[tokio::main]
//! async fn main() {
//!     let meter = opentelemetry::global::meter("my-service"); // with the feature `otlp`: `otlp::install()?.meter()`
//!     init_runtime_metrics(&meter);
//!     tokio::spawn(serve().with_task_name("server")).await.expect("the server does not panic");
//! }
//! ```
//!
//! [`init_runtime_metrics`] registers observable instruments for everything that can be read in the process. It never
//! fails and never panics. [`RuntimeMetrics::builder`] has the settings.
//!
//! # Concepts
//!
//! **Metric.** A [`Metric`] has a name, a kind, a unit and one sentence that says what it measures. [`catalogue`] lists
//! all metrics; `METRICS.md` in the repository shows the same list with advice for each metric. Names, kinds and units
//! are public API.
//!
//! **Source.** A source is a group of metrics that are read together, such as `rust.memory` or `process`. Each source is
//! on or off: `jemalloc.*` is on with the feature `jemalloc`, `rust.memory.*` if [`CountingAllocator`] is the global allocator. A source
//! that panics is turned off; the others continue. The `Debug` output of [`RuntimeMetrics`] lists the sources and the
//! reasons.
//!
//! **Collection.** OpenTelemetry reads the instruments at each export. The first reading of a collection reads every source
//! once, so that all values of a collection belong to one moment. Counters never fall. A value that cannot be read is
//! left out, never reported as zero. [`RuntimeMetrics::snapshot`] reads the same values without OpenTelemetry,
//! [`RuntimeMetrics::read`] one metric alone.
//!
//! **Counting allocator.** [`CountingAllocator`] wraps any global allocator and counts bytes and calls, exactly and per
//! thread. `rust.memory.used` is the number of bytes currently allocated. [`measure`] counts the allocations of one
//! closure.
//!
//! **Watched runtime.** The current Tokio runtime is watched from the start, others with
//! [`RuntimeMetrics::watch_runtime`]. One watcher thread looks at all runtimes of the process ten times a second. It
//! works while a runtime is blocked.
//!
//! **Stall.** A worker thread that makes no progress for [`stall_threshold`](Builder::stall_threshold) is stalled.
//! `tokio.worker.stalls` and `tokio.worker.stall.time` report stalls while they last, with their cause: `blocked` in a call,
//! `running` one poll, or `starved` of CPU.
//!
//! **Named task.** [`TaskExt::with_task_name`] counts a future under a name: how many are alive, how they ended, how long
//! they ran and what they allocated. A name stands for a kind of task, such as `"connection"`; a process has at most 200
//! names. [`spawn`] and [`TaskExt::with_task_location`] use the calling line as the name, `tower::TaskNameLayer` the route of
//! a request. Under `--cfg tokio_unstable`, `task_hooks` names all tasks of a runtime by the line that spawns them.
//!
//! **Profile.** The metrics say how much; a profile says where in the code. With the feature `profile`, the module `profile`
//! samples allocations, CPU time, tasks and the stacks of all threads, and writes them for `go tool pprof` and flame graphs.
//!
//! # Features
//!
//! No feature is on by default. The crate then depends on the OpenTelemetry API, Tokio's `rt` and libc.
//!
//! | feature | adds |
//! |---|---|
//! | `otlp` (`otlp-grpc`, `otlp-http`) | `otlp`: an exporter that is configured by the standard `OTEL_*` variables, with one protocol or both |
//! | `otlp-http-json` | the protocol `http/json` |
//! | `otlp-tls`, `otlp-tls-webpki-roots` | https and client certificates; the latter compiles Mozilla's root certificates in |
//! | `otlp-gzip`, `otlp-zstd` | compression of exports |
//! | `otlp-profiles` | heap, stall and CPU profiles over OTLP; experimental |
//! | `view` | `view`, which limits the memory of the instruments in a meter provider of your own |
//! | `jemalloc`, `mimalloc` | the statistics of these allocators |
//! | `serde` | `Serialize` for [`Snapshot`] |
//! | `monitor` | `Monitor`, which writes a JSON line at each interval |
//! | `debug` | `debug`, HTTP endpoints and a page with plots |
//! | `tower`, `axum` | `tower::TaskNameLayer`, which counts requests as tasks; by the routes of axum's router |
//! | `profile` | `profile`: heap, CPU, task and thread profiles for `go tool pprof` and flame graphs, on Linux |
//! | `internal-logs` | the library's warnings as `tracing` events; part of `otlp`, `monitor` and `debug` |
//!
//! # Errors
//!
//! Only the features `otlp`, `debug` and `profile` have errors: a configuration that cannot work, an export that was not
//! delivered, an address that cannot be bound, a profile that cannot be taken. Everything else reports what it can read and leaves out the rest.
//!
//! # Platforms
//!
//! Linux has all metrics. On macOS, Windows and other Unix systems `process.*` and the limits have what the system reports;
//! they are compiled there, but not tested. With musl, stacks end at musl's own functions, which have no unwind tables. `CountingAllocator` needs 64-bit atomics, and Rust 1.93 on targets where the C library does not run the destructors of thread-locals (musl, macOS, Windows).

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_has_atomic = "64"))]
compile_error!("opentelemetry-instrumentation-runtime needs 64-bit atomics, which this target does not have");

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
#[cfg(feature = "tower")]
pub mod tower;
mod util;
mod watch;

#[cfg(feature = "profile")]
pub use count::allocator::Sampled;
pub use count::allocator::{AllocationStats, CountingAllocator, measure};
pub use count::task::{NamedTask, TaskExt, spawn, spawn_blocking, spawn_blocking_named};
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
pub use source::tokio::WatchedRuntime;

use opentelemetry::metrics::Meter;

/// Registers all metrics that can be read in this process on a meter, with the default settings.
///
/// It never fails and never panics, inside or outside a Tokio runtime. It watches the runtime that it is called in;
/// [`RuntimeMetrics::watch_runtime`] adds others. The result may be dropped, which stops nothing. A second call on the same
/// meter doubles no value.
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

/// Compiles the examples of the README.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "jemalloc",
    feature = "otlp",
    feature = "profile",
    feature = "view"
))]
#[doc = include_str!("../README.md")]
struct Readme;
